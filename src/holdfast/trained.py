"""What was trained on memories, and follows the store: blocks of weights in a bank (``weights.block_bank``), and a model itself.

A bank is exact. What is forgotten goes with every block that it reached, and what else had trained these is learnt again without
it; the receipt says how many blocks that were, and what it cost the others.

A model is not. It is given to a method of unlearning that its owner chose (``weights.unlearning``, ``weights.repair``), and what
comes of it is called approximate, and asked: as long as rows of what is forgotten are told from rows that it never saw, or that
cannot be tested, the receipt does not verify. To train anew is the only method that proves it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from holdfast.cube import Cube, Form, Ref, Scope
from holdfast.errors import InputError
from holdfast.keeping import recallable, standing
from holdfast.retrieve.hits import Hit
from holdfast.store.forms import Kept
from holdfast.store.sql import SqlStore
from holdfast.torched import nn, torch
from holdfast.weights.answers import Read, answers, in_batches, rows_in
from holdfast.weights.base import Batch, evaluating
from holdfast.weights.block_bank import BlockBank
from holdfast.weights.block_training import Document, Training, train_memories
from holdfast.weights.cluster_tree import Address
from holdfast.weights.membership import Membership, by_loss, membership
from holdfast.weights.prompts import Tokenizer, tokens
from holdfast.weights.unlearning import accuracy

Place = Callable[[Cube], Address]
"""Where in a bank's tree a memory is learnt: the address of its embedding, or of what it will be asked by."""

Unlearn = Callable[[nn.Module, Batch, Batch], nn.Module]
"""Of a model, rows to be forgotten and rows to be retained: what the model is to be from now on; the one given is left as it is."""


class TrainedBank:
    """The memories of one scope in a bank of blocks; a holder of the store's ``Forms``. ``Memory.bank`` makes it.

    What a bank was trained on is on its own record, so another program that opens it, and joins, is brought up to date.

    Args:
        store, scope: where the memories are, and whose; the blocks are their owner's, and nobody else's memories train them.
        bank, model, tokenizer: the bank, and the model that it is of.
        place, training: see there. name: what it is called in receipts.
    """

    def __init__(
        self,
        store: SqlStore,
        scope: Scope,
        bank: BlockBank,
        model: Any,
        tokenizer: Tokenizer,
        *,
        place: Place,
        training: Training,
        name: str,
    ) -> None:
        bank.check(model)
        self._store, self._scope, self._name = store, scope, name
        self.bank, self._model, self._tokenizer = bank, model, tokenizer
        self._place, self._training = place, training
        self._asked: dict[str, float] = {}

    @property
    def name(self) -> str:
        """See ``Holder``."""
        return self._name

    def train(self, cubes: Iterable[Cube | Hit | str]) -> tuple[str, ...]:
        """Let memories train the blocks of their places, in one go; the ids of those that had not in this version.

        Raises NotFoundError for one that is not to be recalled in this scope, AccessError where its blocks are another's.
        """
        self._store.owner.forms.follow()
        wanted: dict[str, Document] = {}
        for one in cubes:
            cube = recallable(self._store, self._scope, one if isinstance(one, str) else one.id)
            if cube.form is not Form.TEXT:
                raise InputError(f"{cube.id} is no text but a {cube.form}: only text is learnt")
            document = self._document(cube, self._place(cube))
            leaves = self._leaves(document.id)
            if not leaves or any(map(self._blank, leaves)):  # a program that ended amid it may have left them so
                wanted[cube.id] = document
        if wanted:
            self.drop([one for one in self.held(wanted) if _named(one.ref) != wanted[one.ref.id].id])
            train_memories(self.bank, self._model, list(wanted.values()), self._training)
        return tuple(wanted)

    @contextmanager
    def attach(self, address: Address) -> Iterator[None]:
        """Within the block the model computes with the blocks of an address, as far as what trained them still holds."""
        self._store.owner.forms.follow()
        self.drop(
            [one for one in self.held() if standing(self._store, self._scope, one.ref) is None]
        )  # what has expired makes no event
        with self.bank.attach(self._model, address, owner=self._owner):
            yield

    # --- a holder ---

    def held(self, ids: Collection[str] | None = None) -> list[Kept]:
        """See ``Holder``."""
        refs = [ref for one in self.bank.trained if (ref := _ref(one)) is not None and (ids is None or ref.id in ids)]
        return [Kept(ref, f"blocks of {ref.id}") for ref in refs if self._ours(_named(ref))]

    def drop(self, kept: Sequence[Kept]) -> list[Kept]:
        """See ``Holder``: its blocks are erased, and what else had trained them is learnt again without it."""
        gone = {name for one in kept if self._ours(name := _named(one.ref))}
        self._asked = {}
        if not gone:
            return []
        erased: set[Address] = set()
        others: dict[str, list[Address]] = {}
        for name in sorted(gone):
            nodes = self.bank.touched_by(name, indirectly=True)
            erased.update(nodes)
            others |= {other: self._leaves(other) for node in nodes for other in self.bank.documents(node)}
        again: list[Document] = []
        for name, leaves in others.items():
            ref = _ref(name)
            cube = standing(self._store, self._scope, ref) if ref is not None else None
            if cube is None:  # it no longer holds either
                gone.add(name)
            else:
                again += [self._document(cube, leaf) for leaf in leaves if leaf in erased]
        again = [one for one in again if one.id not in gone]
        before = self._loss(again)
        for name in sorted(gone):
            if self._leaves(name):
                self.bank.forget(name)
        if again:
            train_memories(self.bank, self._model, again, self._training)
        self._asked = {"blocks erased": float(len(erased)), "memories learnt again": float(len(again))}
        if again:
            self._asked |= {"others' loss before": before, "others' loss after": self._loss(again)}
        return []

    def outdate(self, kept: Sequence[Kept]) -> None:
        """See ``Holder``: what no longer holds is not kept either."""
        self.drop(kept)

    def left(self, kept: Sequence[Kept]) -> list[str]:
        """See ``Holder``."""
        names = {one.ref.id: self.bank.touched_by(_named(one.ref)) for one in kept}
        return [
            f"memory {id} has trained {len(nodes)} blocks that are still there" for id, nodes in names.items() if nodes
        ]

    def measured(self) -> Mapping[str, float]:
        """See ``Probing``: what was erased last, and the loss of the others, in nats a token, before it and learnt again."""
        return dict(self._asked)

    # --- inside ---

    @property
    def _owner(self) -> str:
        return self._scope.path

    def _ours(self, document: str) -> bool:
        nodes = self.bank.touched_by(document)
        return bool(nodes) and self.bank.owner(nodes[-1]) == self._owner

    def _leaves(self, document: str) -> list[Address]:
        return [node for node in self.bank.touched_by(document) if len(node) == self.bank.shape.depth]

    def _blank(self, leaf: Address) -> bool:
        """Whether the block of a leaf is one that nobody has trained."""
        return not bool(self.bank.read(len(leaf), [leaf[-1]])[2].item())

    def _document(self, cube: Cube, address: Address) -> Document:
        ids = torch.tensor(tokens(self._tokenizer, cube.text))
        return Document(_named(cube.ref), ids, address, owner=self._owner)

    def _loss(self, some: Sequence[Document]) -> float:
        """How surprising texts are to the model with their blocks; the mean of all tokens, in nats."""
        total, count = 0.0, 0
        for one in some:
            ids = one.tokens[None].to(next(self._model.parameters()).device)
            with evaluating(self._model), self.bank.attach(self._model, one.address, owner=self._owner):
                logits = self._model(input_ids=ids, use_cache=False).logits[0, :-1]
            total += float(nn.functional.cross_entropy(logits.float(), ids[0, 1:], reduction="sum"))
            count += len(one.tokens) - 1
        return total / count if count else 0.0


class TrainedModel:
    """A model whose own weights were trained on memories of one scope; a holder of ``Forms``. ``Memory.trained`` makes it.

    Rows are kept in this program alone, as long as the memories are: give them again to another one. A memory that was forgotten
    while no program had its rows cannot be unlearnt, and the step that says so is an error until the model is trained anew.

    Args:
        store, scope: where the memories are, and whose.
        model: as it was trained; ``self.model`` is what it is now.
        unlearn: see there. exact: it trains anew without the rows, so nothing is to be tested.
        unseen: rows of the same kind that the model never saw, to test what it still knows.
        size: rows a batch. read: how the model is asked. name: what it is called in receipts.
    """

    def __init__(
        self,
        store: SqlStore,
        scope: Scope,
        model: nn.Module,
        *,
        unlearn: Unlearn,
        unseen: Batch,
        exact: bool = False,
        size: int = 64,
        read: Read = answers,
        name: str = "model",
    ) -> None:
        if rows_in(unseen) < 2:
            raise InputError("a membership test needs two rows at least that the model never saw")
        self._store, self._scope, self._name = store, scope, name
        self.model, self._unlearn, self._exact = model, unlearn, exact
        self._unseen, self._size, self._read = unseen, size, read
        self._rows: dict[Ref, Batch | None] = {}
        self._wrong: dict[Ref, str] = {}
        self._asked: dict[str, float] = {}

    @property
    def name(self) -> str:
        """See ``Holder``."""
        return self._name

    def learnt(self, rows: Mapping[Ref, Batch | None]) -> None:
        """Say which rows of which memories the model was trained on; None where they are not at hand any more.

        What has been forgotten, changed or expired since is unlearnt at once. Raises InputError for rows of another kind than
        ``unseen``.
        """
        for one in rows.values():
            if one is not None and (one.keys() != self._unseen.keys() or not rows_in(one)):
                raise InputError("rows have the names that the unseen ones have, and one row at least")
        self._rows |= rows
        self._store.owner.forms.follow()
        self.drop([one for one in self.held() if standing(self._store, self._scope, one.ref) is None])

    # --- a holder ---

    def held(self, ids: Collection[str] | None = None) -> list[Kept]:
        """See ``Holder``."""
        return [Kept(ref, f"rows of {ref.id}") for ref in self._rows if ids is None or ref.id in ids]

    def drop(self, kept: Sequence[Kept]) -> list[Kept]:
        """See ``Holder``: unlearnt by the chosen method. Raises InputError where rows are not at hand, or nothing would be left."""
        gone = [one.ref for one in kept if one.ref in self._rows]
        self._asked = {}
        if not gone:
            return []
        some = [self._rows[ref] for ref in gone]
        flagged = [one for one in some if one is not None]
        if len(flagged) < len(some):
            raise InputError("the rows of a memory that is forgotten are gone: train the model anew without it")
        rest = [one for ref, one in self._rows.items() if ref not in gone and one is not None]
        if not rest:
            raise InputError("nothing that the model was trained on would be left: take it out of use")
        forgotten, retained = _together(flagged), _together(rest)
        before = self._tested(self.model, forgotten)
        kept_before = self._right(self.model, retained)
        found = self._unlearn(self.model, forgotten, retained)
        after = self._tested(found, forgotten)
        self.model = found
        for ref in gone:
            del self._rows[ref]
        self._asked = {
            "approximate": float(not self._exact),
            "retained before": kept_before,
            "retained after": self._right(found, retained),
        }
        for moment, one in (("before", before), ("after", after)):
            if one is not None:
                self._asked |= {f"membership {moment}": one.auc, f"membership {moment}, at least": one.low}
        if not self._exact and (after is None or after.told):
            why = (
                "it is not tested: too few rows"
                if after is None
                else f"they are told from unseen ones, {after.auc:.2f}"
            )
            self._wrong |= dict.fromkeys(gone, why)
        return []

    def outdate(self, kept: Sequence[Kept]) -> None:
        """See ``Holder``: what no longer holds is unlearnt too."""
        self.drop(kept)

    def left(self, kept: Sequence[Kept]) -> list[str]:
        """See ``Holder``: what an approximate method has not been shown to have taken out."""
        return [
            f"rows of {one.ref.id} may still be known: {self._wrong[one.ref]}" for one in kept if one.ref in self._wrong
        ]

    def measured(self) -> Mapping[str, float]:
        """See ``Probing``: approximate (1) or not, the accuracy that was retained, and the membership test with its lower end."""
        return dict(self._asked)

    # --- inside ---

    def _tested(self, model: nn.Module, rows: Batch) -> Membership | None:
        if rows_in(rows) < 2:
            return None
        scores = [by_loss(model, in_batches(one, self._size), self._read) for one in (rows, self._unseen)]
        return membership(*scores)

    def _right(self, model: nn.Module, rows: Batch) -> float:
        return accuracy(model, in_batches(rows, self._size), self._read)


def _together(some: Sequence[Batch]) -> Batch:
    return {name: torch.cat([one[name] for one in some]) for name in some[0]}


def _named(ref: Ref) -> str:
    """What a version of a memory is called in a bank."""
    return f"{ref.id}@{ref.version}"


def _ref(document: str) -> Ref | None:
    """Which version of a memory a document of a bank is; None for one that is none."""
    id, _, version = document.partition("@")
    return Ref(id, int(version)) if id and version.isdecimal() else None
