"""A hierarchical bank of feed-forward blocks (arXiv 2510.02375; y = W3[silu(W1 x) ⊙ W2 x] + Σ_l A3_l[silu(A1_l x) ⊙ A2_l x]).

A node of a cluster tree has a small block: for each layer a few more neurons of the feed-forward network. To a context the blocks
on its path are fetched from disk, and stand beside the model's own neurons. A block is trained by the documents that reach it and
by no others (``block_training``), so that what is rare is not written over; and who reached it is on record, so that a document is
taken back by erasing the blocks it reached. In networks without a gate (GPT-2) a block has two matrices instead of three.

Memorised text lies in blocks: their files want the same care as the documents.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from holdfast.cube import Form
from holdfast.errors import AccessError, InputError, NotFoundError, StaleError, StoreError
from holdfast.latent.identity import config_digest, weights_digest
from holdfast.latent.tensors import differing
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Retrieval, Subform, Subject, Trainable
from holdfast.torched import Tensor, nn, torch
from holdfast.weights.cluster_tree import Address
from holdfast.weights.mapped import MappedTensor, put
from holdfast.weights.places import FeedForward, feed_forward, hooked, one_route

PROFILE = MemoryProfile(
    Form.WEIGHTS,
    Subform.EXTERNAL,
    (Function.FACTS_ENVIRONMENT,),
    formation=(Formation.INTERNALISE,),
    evolution=(Evolution.UPDATE_INTERNAL,),
    retrieval=(Retrieval.AUTOMATIC, Retrieval.SEMANTIC),
    subject=(Subject.WORLD,),
    trainable=Trainable.FULL,
)

GENERIC: Address = ()
"""The address of the generic block, which is no node's: a control of the size of a path, which all documents train now and then."""

_LOOPED = 8
"""So many different blocks of a batch are computed one after another; of more the weights are gathered, row by row."""


@dataclass(frozen=True, slots=True)
class BankShape:
    """How large a bank is. Raises InputError for what is none.

    Fields
        layers, width: of the model.
        ranks: more neurons a layer by level of the tree, 0 where a level has none.
        branching: children of a node. roots: of the root, where it has grown.
        generic: neurons a layer of the generic block; 0: there is none.
        gated: whether the network has a gate, and a block three matrices; else two.
    """

    layers: int
    width: int
    ranks: tuple[int, ...]
    branching: int
    roots: int = 0
    generic: int = 0
    gated: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranks", tuple(self.ranks))
        object.__setattr__(self, "roots", self.roots or self.branching)
        numbers = (*self.ranks, self.generic)
        if min(self.layers, self.width, self.branching, self.roots) < 1 or min(numbers) < 0 or not any(numbers):
            raise InputError("a bank has layers, a width, a branching and neurons on one level at least")

    @property
    def matrices(self) -> int:
        """Of a block in one layer: gate, up and down, or up and down."""
        return 3 if self.gated else 2

    @property
    def depth(self) -> int:
        """Levels of the tree that it is addressed by."""
        return len(self.ranks)

    def rank(self, level: int) -> int:
        """Neurons a layer of a block of a level; level 0 is the generic block's."""
        return self.ranks[level - 1] if level else self.generic

    def nodes(self, level: int) -> int:
        """Blocks of a level."""
        return self.roots * self.branching ** (level - 1) if level else 1

    @property
    def fetched(self) -> int:
        """Numbers that a path has: 3·L·d·Σ r_l."""
        return self.matrices * self.layers * self.width * sum(self.ranks)

    @property
    def stored(self) -> int:
        """Numbers that all nodes have: 3·L·d·Σ r_l·k^l; without the generic block."""
        blocks = sum(self.rank(level) * self.nodes(level) for level in range(1, self.depth + 1))
        return self.matrices * self.layers * self.width * blocks

    @classmethod
    def of(cls, model: Any, ranks: Sequence[int], branching: int, *, roots: int = 0, generic: int = 0) -> BankShape:
        """That fits a model of ``transformers``. Raises InputError."""
        places = feed_forward(model)
        width = model.config.get_text_config(decoder=True).hidden_size
        return cls(len(places), width, tuple(ranks), branching, roots, generic, places[0].gated)


@dataclass(slots=True)
class _Level:
    """Files of one level: blocks, shape (nodes, layers, matrices, rank, width); their moments, (nodes, 2, ...); steps, (nodes,)."""

    blocks: MappedTensor
    moments: MappedTensor
    steps: MappedTensor

    def files(self) -> tuple[MappedTensor, ...]:
        """All of them."""
        return self.blocks, self.moments, self.steps


@dataclass(slots=True)
class _Ledger:
    """What is on record beside the tensors; JSON.

    Fields
        leaves: by document the leaves that it was trained on.
        beyond: documents that trained the generic block, or the anchor itself: "generic", "anchor".
        owners: by node, "2/17". blocked: nodes that nobody is given. erasing: nodes whose bytes are to be erased before all else.
    """

    roots: int
    key: dict[str, Any]
    leaves: dict[str, list[int]] = field(default_factory=dict)
    beyond: dict[str, list[str]] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)
    erasing: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Fetched:
    """Blocks of one level that rows of a batch compute with.

    Fields
        blocks: shape (U, layers, matrices, rank, width), each once.
        rows: which rows of the batch have one, shape (N,); None: all have the only one.
        which: the block of each of these rows, shape (N,).
    """

    blocks: Tensor
    rows: Tensor | None
    which: Tensor


class BlockBank:
    """Blocks in a folder, made at the first use, bound to one model.

    Args:
        folder: of the bank alone. shape: as ``BankShape.of`` tells it.
        model: whose memory it is. Raises StaleError where the bank is of another, or of other sizes.
        seed: of the blocks' first weights. A block that nobody has trained takes no room and has no effect.
        keep: bytes of blocks that stay in memory once fetched, the latest used.

    Raises StoreError where the folder cannot be used.
    """

    def __init__(self, folder: Path, shape: BankShape, model: Any, *, seed: int = 0, keep: int = 256 << 20) -> None:
        fits = BankShape.of(model, shape.ranks, shape.branching, roots=shape.roots, generic=shape.generic)
        if shape != fits:
            kind = "with" if fits.gated else "without"
            raise InputError(
                f"the model has {fits.layers} layers of width {fits.width} {kind} a gate, not as the shape says"
            )
        self.folder, self.seed, self.keep = folder, seed, keep
        self._std = float(getattr(model.config, "initializer_range", 0.02))
        told = {**asdict(shape), "ranks": [*shape.ranks]}
        del told["roots"]  # it may grow
        key = {"kind": "block bank", "shape": told, "seed": seed, **self._key_of(model)}
        self._loaded: OrderedDict[tuple[int, int], Tensor] = OrderedDict()
        self._version = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._ledger = self._read(key) or _Ledger(shape.roots, key)
            self._shape = BankShape(**{**asdict(shape), "roots": max(shape.roots, self._ledger.roots)})
            self._ledger.roots = self._shape.roots
            self._levels = {level: self._open(level) for level in range(shape.depth + 1) if shape.rank(level)}
            self._erase()
            self._write()
        except OSError as error:
            raise StoreError(f"the folder of a bank cannot be used: {error}") from error

    @property
    def shape(self) -> BankShape:
        """How large it is now."""
        return self._shape

    @property
    def loaded(self) -> tuple[Address, ...]:
        """The nodes whose blocks are in memory, the latest used last."""
        return tuple(self._node(level, number) for level, number in self._loaded)

    # --- fetching ---

    def fetch(self, address: Sequence[int]) -> Mapping[str, Tensor]:
        """The blocks of an address by level and part, "2.gate", "2.up" and "2.down", each of shape (layers, rank, width).

        Row j of "down" is what neuron j writes: the paper's A3, transposed. ``GENERIC`` gives the generic block, level 0. Raises
        NotFoundError for an address that is not there.
        """
        parts = ("gate", "up", "down") if self._shape.gated else ("up", "down")
        found: dict[str, Tensor] = {}
        for level, number in self._path(address):
            block = self._block(level, number)
            found |= {f"{level}.{part}": block[:, at].clone() for at, part in enumerate(parts)}
        return found

    @contextmanager
    def attach(
        self, model: nn.Module, address: Sequence[int] | Sequence[Sequence[int]], *, owner: str = ""
    ) -> Iterator[None]:
        """Within the block the model computes with the blocks of an address; or each row of a batch with those of its own.

        ``owner``: in whose name. A cache of keys and values goes on under the address it was begun with, or StaleError is raised.
        Raises NotFoundError, StaleError for another model, AccessError for an address where a block is another owner's.
        """
        each = bool(len(address)) and not isinstance(address[0], int)
        many: Iterable[Any] = address if each else [address]
        addresses = [tuple(int(number) for number in one) for one in many]
        self.check(model)
        for one in {*addresses}:
            self.allowed(one, owner)
        device = next(model.parameters()).device
        levels = self.gathered(addresses, lambda level, numbers: self._fetched(level, numbers).to(device))
        route = (str(self.folder), self._version, tuple(addresses))
        rows = len(addresses) if each else None
        with attached(model, levels, rows), one_route(model, lambda: route):
            yield

    def gathered(self, addresses: Sequence[Address], of: Callable[[int, list[int]], Tensor]) -> list[Fetched]:
        """By level what rows with these addresses compute with; ``of`` gives the blocks of some numbers of a level, stacked."""
        levels: dict[int, dict[int, list[int]]] = {}
        for row, address in enumerate(addresses):
            for level, number in self._path(address):
                levels.setdefault(level, {}).setdefault(number, []).append(row)
        found = []
        for level, numbers in sorted(levels.items()):
            blocks = of(level, sorted(numbers))
            rows = torch.tensor([row for number in sorted(numbers) for row in numbers[number]])
            counts = torch.tensor([len(numbers[number]) for number in sorted(numbers)])
            which = torch.arange(len(numbers)).repeat_interleave(counts)
            whole = len(numbers) == 1 and len(rows) == len(addresses)
            found.append(Fetched(blocks, None if whole else rows.to(blocks.device), which.to(blocks.device)))
        return found

    # --- whose it is ---

    def owner(self, address: Sequence[int]) -> str:
        """Whose the block of a node is; "" where it is nobody's."""
        return self._ledger.owners.get(_name(self._checked(address)), "")

    def own(self, owners: Mapping[Address, str]) -> None:
        """Make nodes their owners'; all of them or none.

        Raises AccessError where one is another's, or where documents of nobody's have trained it.
        """
        trained = {node for document in self._ledger.leaves for node in self._reached(document)}
        for node, owner in owners.items():
            if self.owner(node) != owner and (self.owner(node) or node in trained):
                raise AccessError(f"the block at {node} is not free: others have trained it")
        self._ledger.owners |= {_name(node): owner for node, owner in owners.items()}
        self._write()

    def allowed(self, address: Sequence[int], owner: str) -> None:
        """Raises AccessError where a block of an address is another owner's."""
        for level, number in self._path(address):
            if self.owner(self._node(level, number)) not in {"", owner}:
                raise AccessError(f"a block of the address {tuple(address)} is not this owner's")

    def block(self, addresses: Iterable[Sequence[int]]) -> None:
        """Give nobody the blocks of these nodes, nor of what is below them, until ``unblock``. They stay where they are."""
        names = {_name(self._checked(one)) for one in addresses}
        self._ledger.blocked = sorted({*self._ledger.blocked, *names})
        self._changed()

    def unblock(self, addresses: Iterable[Sequence[int]]) -> None:
        """Give them again."""
        names = {_name(self._checked(one)) for one in addresses}
        self._ledger.blocked = sorted({*self._ledger.blocked} - names)
        self._changed()

    # --- which documents have reached what ---

    def touch(self, reached: Mapping[str, Iterable[Address]], beyond: Iterable[str] = ()) -> None:
        """Put on record that documents train these leaves, before they do. ``beyond``: "generic" and "anchor", where they do so."""
        for document, addresses in reached.items():
            leaves = {self._checked(one)[-1] for one in addresses}
            self._ledger.leaves[document] = sorted({*self._ledger.leaves.get(document, ()), *leaves})
            if more := sorted({*self._ledger.beyond.get(document, ()), *beyond}):
                self._ledger.beyond[document] = more
        self._write()

    @property
    def trained(self) -> tuple[str, ...]:
        """The documents that are on record, in order."""
        return tuple(sorted(self._ledger.leaves))

    def touched_by(self, document: str, *, indirectly: bool = False) -> tuple[Address, ...]:
        """The nodes whose blocks a document has trained, from the root down, ``GENERIC`` among them; none where it is not known.

        ``indirectly``: those too that were trained beside one of these, and whose weights may follow from it: all that anybody has
        reached in the same branches, or in the whole bank where one of these branches' documents trained the generic block or the
        anchor too.
        """
        if document not in self._ledger.leaves:
            return ()
        found = self._reached(document)
        if indirectly:
            every = {one: self._reached(one) for one in self._ledger.leaves}
            branches = {node[:1] for node in found}
            beside = {one for one, nodes in every.items() if branches & {node[:1] for node in nodes}}
            shared = any(self._ledger.beyond.get(one) for one in {document, *beside})
            found = {node for nodes in every.values() for node in nodes if shared or node[:1] in branches}
        return tuple(sorted(found, key=lambda node: (len(node), node)))

    def documents(self, address: Sequence[int]) -> tuple[str, ...]:
        """Which documents have trained the block of a node, in order."""
        node = self._checked(address)
        return tuple(sorted(one for one in self._ledger.leaves if node in self._reached(one)))

    def reached_anchor(self, document: str) -> bool:
        """Whether the model itself was trained on a document: then no erasing of blocks takes it back.

        It may also have learnt from it at second hand, where it was trained beside blocks that the document had trained before.
        """
        return "anchor" in self._ledger.beyond.get(document, ())

    def forget(self, document: str, *, indirectly: bool = True) -> tuple[str, ...]:
        """Erase every block that a document has trained; the documents that had trained these too, which are to be learnt anew.

        ``indirectly``: as of ``touched_by``. Where a branch that one call of ``train_memories`` has trained is then trained again
        by one like it, with what is left of its documents, its blocks are, to the last bit, what they would be without this one.
        A document that has reached other branches too is learnt anew in the erased ones alone. Raises NotFoundError for one that is
        not known.
        """
        if document not in self._ledger.leaves:
            raise NotFoundError(f"no document {document!r} has trained this bank")
        nodes = self.touched_by(document, indirectly=indirectly)
        again = {other for node in nodes for other in self.documents(node)} - {document}
        del self._ledger.leaves[document]
        self._ledger.beyond.pop(document, None)
        self._ledger.erasing = sorted({*self._ledger.erasing, *map(_name, nodes)})
        self._write()
        self._erase()
        return tuple(sorted(again))

    # --- changing ---

    def drop(self, address: Sequence[int]) -> None:
        """Erase the block that the address ends in, in the file, with all that was kept of its training; those above stay.

        It is then a block that nobody has trained. On a file system that copies on write, or on flash, what lay there before is
        erased when the system does so. Raises NotFoundError.
        """
        self._ledger.erasing = sorted({*self._ledger.erasing, _name(self._checked(address))})
        self._write()
        self._erase()

    def grow(self, roots: int = 1) -> None:
        """So many more branches at the root, as ``ClusterTree.grown`` makes them. No block moves."""
        if roots < 1:
            raise InputError(f"a bank grows by one branch or more, not {roots}")
        self._shape = BankShape(**{**asdict(self._shape), "roots": self._shape.roots + roots})
        for level, files in self._levels.items():
            for one in files.files():
                one.grow(self._shape.nodes(level))
        self._ledger.roots = self._shape.roots
        self._write()

    def rebind(self, model: Any) -> None:
        """Make it the memory of a model that has learnt since, beside it."""
        self._ledger.key |= self._key_of(model)
        self._changed()

    def check(self, model: Any) -> None:
        """Raises StaleError for another model than the bank's."""
        if wrong := differing(self._ledger.key, {**self._ledger.key, **self._key_of(model)}):
            raise StaleError(f"the bank is of another {', '.join(wrong)}")

    def read(self, level: int, numbers: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Copies of blocks, moments and steps of some nodes of a level; first weights where a block was never trained."""
        files, rows = self._files(level), torch.tensor([*numbers])
        blocks, steps = files.blocks.read(rows), files.steps.read(rows)
        for at in (steps == 0).nonzero()[:, 0].tolist():
            blocks[at] = self._first(level, numbers[at])
        return blocks, files.moments.read(rows), steps

    def write(self, level: int, numbers: Sequence[int], blocks: Tensor, moments: Tensor, steps: Tensor) -> None:
        """Put them back."""
        files, rows = self._files(level), torch.tensor([*numbers])
        files.blocks.write(rows, blocks)
        files.moments.write(rows, moments)
        files.steps.write(rows, steps)
        for number in numbers:
            self._loaded.pop((level, number), None)
        self._version += 1

    def flush(self) -> None:
        """Wait until all that was written is on disk."""
        for files in self._levels.values():
            for one in files.files():
                one.flush()

    def close(self) -> None:
        """Let the files go."""
        for files in self._levels.values():
            for one in files.files():
                one.close()

    # --- inside ---

    def _path(self, address: Sequence[int]) -> list[tuple[int, int]]:
        """Level and number of the blocks of an address, but for those that are blocked and what is below them."""
        node = self._checked(address)
        found = []
        for level, number in enumerate(node, 1) if node else [(0, 0)]:
            if f"{level}/{number}" in self._ledger.blocked:
                break
            if level in self._levels:
                found.append((level, number))
        return found

    def _checked(self, address: Sequence[int]) -> Address:
        node, shape = tuple(int(one) for one in address), self._shape
        if not node and not shape.generic:
            raise NotFoundError("the bank has no generic block")
        follows = all(below // shape.branching == above for above, below in pairwise(node))
        if (
            len(node) > shape.depth
            or not follows
            or not all(0 <= one < shape.nodes(at) for at, one in enumerate(node, 1))
        ):
            raise NotFoundError(f"there is no node {node} in a tree of {shape.roots} roots and {shape.depth} levels")
        return node

    def _node(self, level: int, number: int) -> Address:
        return tuple(number // self._shape.branching ** (level - at) for at in range(1, level + 1))

    def _reached(self, document: str) -> set[Address]:
        """The nodes that have a block and that a document has trained."""
        shape = self._shape
        found: set[Address] = {GENERIC} if "generic" in self._ledger.beyond.get(document, ()) else set()
        for leaf in self._ledger.leaves[document]:
            path = self._node(shape.depth, leaf)
            found |= {path[:level] for level in range(1, shape.depth + 1) if level in self._levels}
        return found

    def _fetched(self, level: int, numbers: list[int]) -> Tensor:
        return torch.stack([self._block(level, number) for number in numbers])

    def _block(self, level: int, number: int) -> Tensor:
        """One block, of which a copy stays in memory for a while; nobody changes it."""
        at = level, number
        if at in self._loaded:
            self._loaded.move_to_end(at)
        else:
            self._loaded[at] = self.read(level, [number])[0][0]
            room = sum(one.nbytes for one in self._loaded.values())
            while len(self._loaded) > 1 and room > self.keep:
                room -= self._loaded.popitem(last=False)[1].nbytes
        return self._loaded[at]

    def _first(self, level: int, number: int) -> Tensor:
        """A block before its training: what goes in as the model's weights began, what comes out zero. It follows from the seed."""
        shape = self._shape
        told = hashlib.sha256(f"{self.seed} {level} {number}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(told[:6], "little"))
        block = torch.zeros(shape.layers, shape.matrices, shape.rank(level), shape.width)
        nn.init.trunc_normal_(block[:, :-1], std=self._std, a=-3 * self._std, b=3 * self._std, generator=generator)
        return block

    def _files(self, level: int) -> _Level:
        try:
            return self._levels[level]
        except KeyError:
            raise NotFoundError(f"level {level} has no blocks") from None

    def _open(self, level: int) -> _Level:
        shape, key = self._shape, {"kind": "block bank", "level": level, "seed": self.seed}
        nodes, block = shape.nodes(level), (shape.layers, shape.matrices, shape.rank(level), shape.width)

        def file(name: str, *row: int, kind: torch.dtype = torch.float32) -> MappedTensor:
            return MappedTensor(
                self.folder / f"level-{level}.{name}.safetensors", (nodes, *row), {**key, "of": name}, kind
            )

        return _Level(file("blocks", *block), file("moments", 2, *block), file("steps", kind=torch.int32))

    def _erase(self) -> None:
        """Do what the ledger says is to be erased; a process that ended amid it left it there to be done."""
        numbers: dict[int, list[int]] = {}
        trained = {_name(node) for document in self._ledger.leaves for node in self._reached(document)}
        for name in self._ledger.erasing:
            level, number = map(int, name.split("/"))
            numbers.setdefault(level, []).append(number)
            self._loaded.pop((level, number), None)
            if name not in trained:  # else it is learnt anew, by the same owner's
                self._ledger.owners.pop(name, None)
        for level in numbers.keys() & self._levels.keys():
            for one in self._levels[level].files():
                one.erase(numbers[level])  # at once: each call waits for the whole file
        if self._ledger.erasing:
            self._ledger.erasing = []
            self._changed()

    def _changed(self) -> None:
        self._version += 1
        self._write()

    @staticmethod
    def _key_of(model: Any) -> dict[str, Any]:
        return {"model": config_digest(model), "weights": weights_digest(model)}

    def _read(self, key: Mapping[str, Any]) -> _Ledger | None:
        file = self.folder / "bank.json"
        if not file.exists():
            return None
        try:
            found = _Ledger(**json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise StoreError(f"{file.name} is no ledger of a bank: {error}") from error
        if wrong := differing(found.key, key):
            raise StaleError(f"the bank is of another {', '.join(wrong)}: make it anew")
        return found

    def _write(self) -> None:
        put(self.folder / "bank.json", json.dumps(asdict(self._ledger)).encode())


@contextmanager
def attached(model: Any, levels: Sequence[Fetched], rows: int | None = None) -> Iterator[None]:
    """Within the block the model's feed-forward networks have these blocks beside them; gradients go into ``levels``.

    ``rows``: how many a batch must have, where each has blocks of its own.
    """
    places = feed_forward(model)

    def say(at: int) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
        def said(_module: nn.Module, x: Tensor, out: Tensor) -> Tensor:
            if rows is not None and x.shape[0] != rows:
                raise InputError(f"{rows} addresses were given, and the batch has {x.shape[0]} rows")
            for one in levels:
                out = _added(out, x, one, at, places[at])
            return out

        return said

    with hooked([one.module for one in places], say):
        yield


def _added(out: Tensor, x: Tensor, fetched: Fetched, layer: int, place: FeedForward) -> Tensor:
    """What a layer says with the blocks of one level beside it."""
    blocks = fetched.blocks[:, layer].to(x.dtype)  # (U, matrices, rank, width)
    if fetched.rows is None:
        return out + _neurons(x, blocks[0], place)
    if len(blocks) > _LOOPED:
        said = _neurons(x[fetched.rows], blocks[fetched.which].unbind(1), place)
    else:
        counts = fetched.which.bincount(minlength=len(blocks)).tolist()
        parts = x[fetched.rows].split(counts)
        said = torch.cat([_neurons(part, block, place) for part, block in zip(parts, blocks, strict=True)])
    return out.index_add(0, fetched.rows, said)


def _neurons(x: Tensor, block: Any, place: FeedForward) -> Tensor:
    """x of shape (N, T, width) through matrices of shape (rank, width), or of (N, rank, width) each."""
    *into, down = block
    inner = place.activation(x @ into[0].mT)
    if place.gated:
        inner = inner * (x @ into[1].mT)
    return inner @ down


def _name(node: Address) -> str:
    return f"{len(node)}/{node[-1] if node else 0}"
