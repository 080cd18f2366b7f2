"""Memories as documents that a model attends to: a bank (``latent.document_bank``) that follows the store.

A memory on the shelf was read once and is in sight of every question; which of them are attended to is the model's own choice.
What is forgotten is removed, to the last bit as if it had never been there, and so is what was corrected, revoked or expired, until
it is put there anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from holdfast.cube import Cube, Form, Ref, Scope
from holdfast.errors import InputError
from holdfast.keeping import recallable, standing
from holdfast.latent.document_bank import DocumentBank
from holdfast.latent.interleave import label
from holdfast.latent.sparse_attention import Documents
from holdfast.retrieve.context import line
from holdfast.retrieve.hits import Hit
from holdfast.store.forms import Kept
from holdfast.store.sql import SqlStore
from holdfast.torched import torch


class Shelf:
    """The memories of one scope in a bank; a holder of the store's ``Forms``. ``Memory.shelve`` makes it.

    Args:
        store, scope: where the memories are, and whose; nobody else's are ever in sight.
        bank: of a model and a router that was trained.
        tokenizer: the model's.
        name: what it is called in receipts.
    """

    def __init__(self, store: SqlStore, scope: Scope, bank: DocumentBank, tokenizer: Any, name: str) -> None:
        self._store, self._scope, self._bank, self._tokenizer, self._name = store, scope, bank, tokenizer, name
        self._refs: dict[str, Ref] = {}

    @property
    def name(self) -> str:
        """See ``Holder``."""
        return self._name

    def put(self, cubes: Iterable[Cube | Hit | str]) -> tuple[str, ...]:
        """Let the model read memories, as fenced lines with a label and a source; the ids of those that were not yet there.

        Raises NotFoundError for one that is not to be recalled in this scope, StaleError where the model has learnt since.
        """
        self._store.owner.forms.follow()
        new = []
        for one in cubes:
            cube = recallable(self._store, self._scope, one if isinstance(one, str) else one.id)
            if cube.form is not Form.TEXT:
                raise InputError(f"{cube.id} is no text but a {cube.form}: only text is read")
            if self._refs.get(cube.id) == cube.ref:
                continue
            told = f"[{label(cube.id)}] {line(cube)}"  # by which the model may name it
            ids = self._tokenizer(told, add_special_tokens=False)["input_ids"]
            if cube.id in self._refs:
                self._remove(cube.id)
            self._bank.add(cube.id, torch.tensor(ids), owner=self._owner)
            self._refs[cube.id] = cube.ref
            new.append(cube.id)
        return tuple(new)

    def documents(self) -> Documents | None:
        """For ``sparse_attention.Memory.use``: what is on the shelf and still holds; None where nothing is."""
        self._store.owner.forms.follow()
        for id, ref in list(self._refs.items()):  # what has expired makes no event
            if standing(self._store, self._scope, ref) is None:
                self._remove(id)
        return self._bank.documents(owner=self._owner)

    def texts(self) -> dict[str, str]:
        """For ``interleave``: what is pasted where the model names a memory, as fenced lines; of those that still hold."""
        self.documents()
        return {id: line(recallable(self._store, self._scope, id)) for id in self._refs}

    def held(self, ids: Collection[str] | None = None) -> list[Kept]:
        """See ``Holder``."""
        return [Kept(ref, id) for id, ref in self._refs.items() if ids is None or id in ids]

    def drop(self, kept: Sequence[Kept]) -> list[Kept]:
        """See ``Holder``."""
        for one in kept:
            if self._refs.get(one.ref.id) == one.ref:
                self._remove(one.ref.id)
        return []

    def outdate(self, kept: Sequence[Kept]) -> None:
        """See ``Holder``: what no longer holds is not kept either."""
        self.drop(kept)

    def left(self, kept: Sequence[Kept]) -> list[str]:
        """See ``Holder``."""
        there = set(self._bank.ids(owner=self._owner))
        return [f"memory {one.ref.id} is still in the bank" for one in kept if one.ref.id in there]

    @property
    def _owner(self) -> str:
        return self._scope.path

    def _remove(self, id: str) -> None:
        del self._refs[id]
        self._bank.remove(id, owner=self._owner)
