"""A bank of documents for memory sparse attention (arXiv 2603.23516, §3.3): each adds and removes its own rows and no others.

A document is read by itself, so that what is kept of it follows from its tokens, the model and the router's keys alone; and the
bank is a set, in the order of names. What was removed was, to the last bit, never there. Documents are known by their owner and by
an id of the caller's, say a cube's; an owner's are all that the owner's questions see, and all that the owner's file holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.cube import Form
from holdfast.errors import ConflictError, InputError, NotFoundError, StaleError
from holdfast.latent.identity import config_digest, tensors_digest, weights_digest
from holdfast.latent.sparse_attention import Documents, Router, read, together
from holdfast.latent.tensors import differing, key_of, pack, unpack
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Retrieval, Subform, Subject
from holdfast.torched import Tensor, torch

PROFILE = MemoryProfile(
    Form.STATE,
    Subform.REUSED,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    formation=(Formation.LATENT, Formation.STRUCTURE_CHUNKS),
    evolution=(Evolution.UPDATE_EXTERNAL,),
    retrieval=(Retrieval.AUTOMATIC, Retrieval.SEMANTIC),
    subject=(Subject.USER, Subject.WORLD),
)

_PARTS = "keys", "values", "routing"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One document: its tokens, shape (T,), and what router layers keep of them, 1 row and 1 document."""

    tokens: Tensor
    kept: Documents


class DocumentBank:
    """Documents that a model has read. What is asked of it changes nothing; every change touches one document.

    Where the model or the router has learnt since, what was kept is of no use: ``add`` and ``documents`` then raise StaleError, and
    a new bank is to be made.
    """

    def __init__(self, model: Any, router: Router) -> None:
        self._model, self._router = model, router
        self._key = self.key()
        self._owners: dict[str, dict[str, _Entry]] = {}
        self._stacked: dict[str, Documents] = {}

    def add(self, id: str, tokens: Tensor, *, owner: str = "") -> None:
        """Read a document: token ids of shape (T,).

        Raises ConflictError where there is one of that name, StaleError, InputError for no tokens.
        """
        if id in self._owners.get(owner, {}):
            raise ConflictError(f"there is a document {id!r} already: remove it first")
        if tokens.dim() != 1 or not len(tokens):
            raise InputError(f"a document is token ids of shape (1 or more,), not {tuple(tokens.shape)}")
        self._check()
        device = next(self._model.parameters()).device
        training = self._model.training
        self._model.eval()  # dropout would keep something else each time
        try:
            with torch.no_grad():
                kept = read(self._model, self._router, tokens[None].to(device))
        finally:
            self._model.train(training)
        # Nobody who holds the caller's tensor can change what was read.
        self._put(owner, id, _Entry(tokens.detach().to("cpu", torch.int64, copy=True), kept))

    def remove(self, id: str, *, owner: str = "") -> None:
        """Of a document nothing is left. Raises NotFoundError."""
        self._entry(id, owner)
        self._stacked.pop(owner, None)
        del self._owners[owner][id]
        if not self._owners[owner]:
            del self._owners[owner]

    def ids(self, *, owner: str = "") -> tuple[str, ...]:
        """The names of an owner's documents, in order."""
        return tuple(sorted(self._owners.get(owner, {})))

    def tokens(self, id: str, *, owner: str = "") -> Tensor:
        """What was read, shape (T,): means of chunks do not hold it word for word. Raises NotFoundError."""
        return self._entry(id, owner).tokens.clone()

    def documents(self, *, owner: str = "") -> Documents | None:
        """For ``Memory.use``: an owner's documents and no others; None where there are none. Raises StaleError."""
        ids = self.ids(owner=owner)
        if not ids:
            return None
        self._check()
        if owner not in self._stacked:
            self._stacked[owner] = together([self._owners[owner][id].kept for id in ids], ids)
        return self._stacked[owner]

    def key(self) -> dict[str, Any]:
        """All on which what is kept of a document depends, beside its tokens."""
        return {
            "kind": "documents",
            "pool": self._router.pool,
            "blocks": list(self._router.layers),
            "keys": tensors_digest(self._router.to_keys.named_parameters()),
            "model": config_digest(self._model),
            "weights": weights_digest(self._model, [self._router]),
        }

    def pack(self, *, owner: str = "") -> bytes:
        """An owner's documents as a file, for a cube of form ``state``. Raises InputError where there are none."""
        ids = self.ids(owner=owner)
        named = {}
        for number, id in enumerate(ids):
            entry = self._owners[owner][id]
            named[f"{number}.tokens"] = entry.tokens
            for part in _PARTS:
                named |= {f"{number}.{part}.{at}": one for at, one in getattr(entry.kept, part).items()}
        return pack(named, {**self._key, "owner": owner, "ids": list(ids)})

    def restore(self, data: bytes, *, owner: str = "") -> None:
        """Put an owner's documents in place of those there are: what ``pack`` gave.

        Raises StaleError for a file of another owner, model or router, InputError for what is no such file.
        """
        wanted, found = {**self.key(), "owner": owner}, key_of(data)
        if wrong := differing({name: found.get(name) for name in wanted}, wanted):
            raise StaleError(f"what was kept is of another {', '.join(wrong)}: make it anew")
        tensors, ids = unpack(data), found.get("ids")
        if not isinstance(ids, list) or {name.partition(".")[0] for name in tensors} != {
            str(n) for n in range(len(ids))
        }:
            raise InputError("this is no file of a bank of documents")
        device = next(self._model.parameters()).device
        entries = {str(id): self._unpacked(number, tensors, device) for number, id in enumerate(ids)}
        self._owners[owner] = entries
        self._stacked.pop(owner, None)

    def _unpacked(self, number: int, tensors: Mapping[str, Tensor], device: torch.device) -> _Entry:
        def part(name: str) -> dict[int, Tensor]:
            return {at: tensors[f"{number}.{name}.{at}"].to(device) for at in self._router.layers}

        try:
            tokens, keys, values, routing = tensors[f"{number}.tokens"], *(part(name) for name in _PARTS)
        except KeyError as error:
            raise InputError(f"this is no file of a bank of documents: it lacks {error}") from error
        chunks = -(-len(tokens) // self._router.pool)
        if any(one.shape[:3] != (1, 1, chunks) for one in (*keys.values(), *values.values(), *routing.values())):
            raise InputError(f"this is no file of a bank of documents: document {number} has not {chunks} chunks")
        there = torch.ones(1, 1, chunks, dtype=torch.bool, device=device)
        return _Entry(tokens, Documents(keys, values, routing, there))

    def _put(self, owner: str, id: str, entry: _Entry) -> None:
        self._owners.setdefault(owner, {})[id] = entry
        self._stacked.pop(owner, None)

    def _entry(self, id: str, owner: str) -> _Entry:
        try:
            return self._owners[owner][id]
        except KeyError as error:
            raise NotFoundError(f"there is no document {id!r}") from error

    def _check(self) -> None:
        if wrong := differing(self._key, self.key()):
            raise StaleError(f"the documents were read by another {', '.join(wrong)}: make the bank anew")
