"""Facts in a routed copy of one matrix (WISE, arXiv 2405.14768, eqs. 3-6, algorithms 1-2): the model's own matrix is never touched.

Edits are learnt one after another in a copy of the matrix, each shard of them in a random subspace of its own, and shards are
merged by TIES. A prompt whose answer the copy would change by much is answered by the copy, all others by the matrix: margins in
the loss teach the copy to change little of what is unrelated.

What is not as in the released code, unless ``reference``: scores are of the prompt, by which a request is routed once (there: of
each call's tokens, so that a route may flip with every token that is generated); the threshold is measured anew over all edits as
they have become (there: a running minimum, from before later edits wore it down) and never falls under the margin of what is
unrelated, for one edit badly learnt would open the gate for everything; there is no activation within the score, and no factor on
the threshold; all shards have the same say in a merge. Weight decay, if any, stays within the mask.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self, cast

import numpy as np

from holdfast.cube import Form
from holdfast.errors import InputError, MissingExtraError, StaleError
from holdfast.latent.identity import config_digest, digest, weights_digest
from holdfast.latent.tensors import Key, differing, key_of, pack, unpack
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Retrieval, Subform, Subject, Trainable
from holdfast.torched import Tensor, nn, torch
from holdfast.weights.base import Edit, Edited, Route, evaluating, frozen, transposed
from holdfast.weights.prompts import (
    IGNORED,
    Rows,
    Tokenizer,
    became,
    contexts_of,
    logits_at,
    padded,
    pool_of,
    rows_of,
    tokens,
    wordings,
)
from holdfast.weights.routing import Routed, constant, mapped
from holdfast.weights.ties import ties

try:
    from transformers.activations import ACT2FN
except ImportError as error:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[torch]'") from error

PROFILE = MemoryProfile(
    Form.WEIGHTS,
    Subform.EXTERNAL,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    formation=(Formation.INTERNALISE,),
    evolution=(Evolution.UPDATE_INTERNAL,),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.USER, Subject.WORLD),
    trainable=Trainable.FULL,
)

MERGED = "merged"
"""The name of the one memory of the mode ``merge``."""

_NEAR = 1 - 1e-4  # sums in another order are not the same to the last bit
_TOGETHER = 64  # rows that are read at once
_REPLAYED = 8  # requests of each memory that are told again while an edit is learnt
_PACE = 0.3  # at a third of it twelve facts had 2.5 times the loss in one small model, at thrice it 12 times in another
_LONG = 100  # tokens; in the released code a longer request is scored by one token of it
_FLAT, _LOW = 1e-4, 0.02  # the loss has stopped to fall, and is low


@dataclass(frozen=True, slots=True)
class Margins:
    """How far the side memory is to move what the matrix says, in units of its output (α, β, γ of the paper).

    Fields
        unrelated: at most so far for what is unrelated.
        taught: at least so far for what is taught.
        apart: at least so much farther for what is taught than for what is unrelated.
    """

    unrelated: float
    taught: float
    apart: float

    def __post_init__(self) -> None:
        if not 0 <= self.unrelated < self.taught or self.apart < 0:
            raise InputError("what is unrelated is to move less than what is taught")


@dataclass(frozen=True, slots=True)
class Settings:
    """How edits are learnt and kept. Raises InputError.

    Fields
        share: of the matrix's elements that a shard may change, drawn by lot (ρ).
        rate: of SGD; None: one that moves a typical output by three tenths of its margin a step, measured on unrelated texts.
        steps: of an edit at most; it stops where the loss is low and falls no more.
        margins: None: by the median length of what the matrix says of unrelated texts, that, a quarter and a half of it.
        bound: so far an element may move from where it was (the norm constraint).
        decay: of what was moved, times the rate a step.
        unrelated: so many texts are drawn for an edit that brings none.
        shard: edits a shard. One to a shard makes forgetting cheap: it is dropped, and nothing learnt again.
        mode: ``merge``: all shards in one memory; ``retrieve``: ``shards`` of them in one, and the memory that moves most answers.
        shards: that are merged in one memory of the mode ``retrieve``.
        density: of a shard's change that is kept in a merge.
        ratio: on the thresholds.
        weight: of the margins in the loss; 0: without.
        replay: while it learns, a memory of the mode ``retrieve`` is told what earlier ones answer, and what it answers itself.
        reference: as in the released code, where that differs from the paper.
    """

    share: float = 0.2
    rate: float | None = None
    steps: int = 70
    margins: Margins | None = None
    bound: float = 1.0
    decay: float = 0.0
    unrelated: int = 1
    shard: int = 500
    mode: Literal["merge", "retrieve"] = "merge"
    shards: int = 2
    density: float = 0.53
    ratio: float = 1.0
    weight: float = 1.0
    replay: bool = False
    reference: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or not 0 < self.density <= 1:
            raise InputError("shares of a matrix lie in (0, 1]")
        if min(self.steps, self.unrelated, self.shard, self.shards) < 1:
            raise InputError("steps, unrelated texts, edits a shard and shards are 1 or more")
        if not self.bound > 0 or self.decay < 0 or self.ratio < 0 or self.weight < 0 or (self.rate or 1) <= 0:
            raise InputError("the rate and the bound are above 0, and nothing is below 0")
        if self.mode not in ("merge", "retrieve") or (self.replay and self.mode == "merge"):
            raise InputError("the mode is merge or retrieve, and only retrieve has memories to replay")


@dataclass(frozen=True, slots=True)
class Learnt:
    """An entry of the log: an edit, the shard that it is in, and how it was learnt."""

    edit: Edit
    shard: int
    loss: float
    steps: int
    score: float


@dataclass(frozen=True, slots=True)
class _Shard:
    """Edits that were learnt in one subspace, and the matrix that came of it, in fp32."""

    number: int
    weight: Tensor
    log: tuple[Learnt, ...] = ()
    closed: bool = False


@dataclass(frozen=True, slots=True)
class _Memory:
    name: str
    weight: Tensor
    threshold: float
    shards: tuple[_Shard, ...]


class SideMemory(Routed):
    """Edits of a causal model of ``transformers``, on for as long as a ``with`` block or from ``attach`` to ``detach``.

    Args:
        model, tokenizer: a tokenizer of ``transformers``, or a callable from text to ids.
        layer: the path of a linear map (``nn.Linear`` or the ``Conv1D`` of GPT-2), best in a feed-forward layer past the middle,
            ``model.layers.5.mlp.down_proj``.
        settings: see there.
        unrelated: texts, or their ids, whose answers must stay; what the model says by itself, where none are given.
        templates: contexts in which a prompt is taught, ``{}`` where it stands; by default those that the model makes.
        seed: of all that is drawn.

    Raises InputError for what does not fit the model.
    """

    together = False

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        *,
        layer: str,
        settings: Settings | None = None,
        unrelated: Sequence[str | Sequence[int]] = (),
        templates: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(model, layer)
        self.tokenizer, self.seed = tokenizer, seed
        self.templates = contexts_of(model, tokenizer, templates)
        self._pool = pool_of(model, tokenizer, unrelated, self._seed("words"))
        self._base = self._module.weight.detach().float()
        self._said = _activation(model) if settings and settings.reference else None
        self.settings = self._measured(settings or Settings())
        self._shards: tuple[_Shard, ...] = ()
        self._memories: tuple[_Memory, ...] = ()

    # --- what is taught ---

    @property
    def edits(self) -> tuple[Edit, ...]:
        """What has been taught and not forgotten, oldest first."""
        return tuple(one.edit for one in self.log)

    @property
    def log(self) -> tuple[Learnt, ...]:
        """The same, with how it was learnt."""
        return tuple(one for shard in self._shards for one in shard.log)

    def edit(self, edits: Sequence[Edit]) -> tuple[Edited, ...]:
        """Teach, one after another; all or, where one cannot be taught, none. Raises InputError for an id that is there already."""
        known = {one.edit.id for one in self.log}
        for one in edits:
            if one.id in known:
                raise InputError(f"the edit {one.id!r} is there already: forget it first")
            known.add(one.id)
        shards = list(self._shards)
        for one in edits:
            if not shards or shards[-1].closed or len(shards[-1].log) >= self.settings.shard:
                shards.append(_Shard(shards[-1].number + 1 if shards else 0, self._base))
            shards[-1] = self._taught(shards[-1], one, shards[:-1])
        self._keep(shards)
        return became(self, edits, {one.edit.id: one for one in self.log})

    @property
    def shards(self) -> Mapping[int, tuple[str, ...]]:
        """Which edits are in each shard, by its number."""
        return {shard.number: tuple(one.edit.id for one in shard.log) for shard in self._shards if shard.log}

    @property
    def unrelated(self) -> list[list[int]]:
        """The tokens of the texts whose answers are to stay."""
        return [list(one) for one in self._pool]

    def taught_in(self, memory: str) -> tuple[str, ...]:
        """The edits that a memory answers for, as a ``Route`` names it."""
        found = next((one for one in self._memories if one.name == memory), None)
        return tuple(one.edit.id for shard in found.shards for one in shard.log) if found is not None else ()

    def close_shard(self) -> None:
        """What is taught next goes into a new shard."""
        if self._shards:
            self._shards = (*self._shards[:-1], replace(self._shards[-1], closed=True))

    def forget(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Make it as if these edits had never been: what else was in their shards is learnt again, by the same draws.

        With ``replay`` later shards were told of them, and are learnt again too. Of a shard that they were alone in nothing is
        left. Which edits share a shard stays as it was. Gives the ids that were there.
        """
        wanted = set(ids)
        gone = tuple(one.edit.id for one in self.log if one.edit.id in wanted)
        if not gone:
            return ()
        kept: list[_Shard] = []
        stale = False
        for shard in self._shards:
            left = [one.edit for one in shard.log if one.edit.id not in wanted]
            touched = len(left) < len(shard.log)
            again = touched or (stale and self.settings.replay)
            stale = stale or touched
            # Later edits go where they would have gone: a shard that was full stays closed, and keeps its number.
            closed = shard.closed or shard.number < self._shards[-1].number
            new = _Shard(shard.number, self._base) if again else shard
            if again:
                for one in left:
                    new = self._taught(new, one, kept)
            kept.append(replace(new, closed=closed))
        while kept and not kept[-1].log and not kept[-1].closed:
            kept.pop()
        self._keep(kept)
        return gone

    def regrouped(self, mode: Literal["merge", "retrieve"], shards: int = 2) -> SideMemory:
        """The same edits, their shards put together otherwise; nothing is learnt again."""
        if self.settings.replay:
            raise InputError("what was replayed depends on how shards are put together: teach anew")
        other = SideMemory(
            self.model, self.tokenizer, layer=self.layer, settings=replace(self.settings, mode=mode, shards=shards),
            unrelated=self._pool, templates=self.templates, seed=self.seed,
        )  # fmt: skip
        other._keep(self._shards)
        return other

    # --- which memory answers ---

    def _choose(self, x: Tensor, y: Tensor, mask: Tensor) -> tuple[Route, ...]:
        if not self._memories:
            return tuple(Route(None, 0.0, 0.0) for _ in range(x.shape[0]))
        scores = torch.stack([self._scores(y, mapped(self._module, x, one.weight), mask) for one in self._memories])
        best = scores.argmax(dim=0).tolist()
        routes = []
        for row, at in enumerate(best):
            score, threshold = float(scores[at, row]), self._memories[at].threshold * self.settings.ratio
            routes.append(Route(self._memories[at].name if score >= threshold else None, score, threshold))
        return tuple(routes)

    def _answer(self, x: Tensor, y: Tensor, routes: Sequence[Route], mask: Tensor, begins: bool) -> Tensor | None:
        names = {one.memory for one in routes} - {None}
        if not names:
            return None
        y = y.clone()
        for memory in self._memories:
            if memory.name in names:
                rows = torch.tensor([one.memory == memory.name for one in routes], device=x.device)
                y[rows] = mapped(self._module, x[rows], memory.weight)
        return y

    def _scores(self, y: Tensor, side: Tensor, mask: Tensor, *, asked: bool = True) -> Tensor:
        """How far what the matrix says is moved, shape (B,): the mean over the tokens that count."""
        if self._said is not None:
            moved = torch.linalg.vector_norm(self._said(side) - self._said(y), dim=-1)
            if asked:
                return moved.amax(dim=-1) if moved.shape[1] > _LONG else moved.mean(dim=-1)
        else:
            moved = torch.linalg.vector_norm((side - y).float(), dim=-1)
        return (moved * mask).sum(dim=-1) / mask.sum(dim=-1)

    # --- how it is learnt ---

    def _taught(self, shard: _Shard, edit: Edit, before: Sequence[_Shard]) -> _Shard:
        """The shard with one edit more."""
        given = self.settings
        rate = cast(float, given.rate)
        rows = self._rows(edit)
        mask = self._subspace(shard.number)
        weight = shard.weight.clone().requires_grad_()
        low, high = self._base - given.bound, self._base + given.bound
        again = self._again(shard, edit, before)
        said, places = _Said(self._module, weight), rows.places
        loss = previous = float("inf")
        score, step = 0.0, 0
        with self.apart(), evaluating(self.model), torch.enable_grad(), frozen(self.model), self._steps(said):
            while True:
                told, now = self._loss(rows, places, said)
                if again:
                    told = told + self._kept_apart(again, weight, step)
                flat = abs(loss - previous) <= _FLAT and loss <= _LOW
                if flat or step < given.steps:
                    score = now  # of the last but one look where the steps ran out, as in the released code
                if flat or step == given.steps:
                    break
                previous, loss = loss, float(told.detach())
                (gradient,) = torch.autograd.grad(told, weight)
                with torch.no_grad():
                    if given.decay:
                        gradient.add_(weight - self._base, alpha=given.decay)
                    weight.add_(gradient.mul_(mask), alpha=-rate)
                    torch.clamp(weight, low, high, out=weight)
                step += 1
        learnt = Learnt(edit, shard.number, float(told.detach()), step, score)
        return replace(shard, weight=weight.detach(), log=(*shard.log, learnt))

    def _loss(self, rows: Rows, places: Tensor, said: _Said) -> tuple[Tensor, float]:
        """The loss of a step, and how far the side memory moves what is taught."""
        logits = logits_at(self.model, rows.inputs, places)[: rows.taught]
        loss = _untold(logits, rows.labels[: rows.taught], places, padded_too=self.settings.reference)
        base, side = said.both
        inside = self._scores(base[: rows.taught], side[: rows.taught], rows.inside[: rows.taught], asked=False)
        if self.settings.weight:
            apart = rows.outside.any(dim=1)
            outside = self._scores(base[apart], side[apart], rows.outside[apart], asked=False)
            loss = loss + self.settings.weight * _hinges(inside, outside, cast(Margins, self.settings.margins))
        return loss, float(inside.detach().mean())

    def _again(self, shard: _Shard, edit: Edit, before: Sequence[_Shard]) -> list[list[tuple[Tensor, Tensor, Tensor]]]:
        """What is replayed while an edit is learnt: some requests of each earlier memory, and last of the one that learns."""
        if not self.settings.replay:
            return []
        ours = shard.number // self.settings.shards
        groups: dict[int, list[Edit]] = {}
        for one in before:
            groups.setdefault(one.number // self.settings.shards, []).extend(learnt.edit for learnt in one.log)
        own = [*groups.pop(ours, []), *(learnt.edit for learnt in shard.log), edit]
        if not any(groups.values()):
            return []
        random = np.random.default_rng(self._seed("replay", edit.prompt, edit.target))
        found = []
        for many in (*(some for some in groups.values() if some), own):
            drawn = random.permutation(len(many))[:_REPLAYED].tolist()
            rows = [self._rows(many[at]) for at in drawn]
            found.append(
                [(*self.read(one.ids[: one.taught], one.mask[: one.taught]), one.inside[: one.taught]) for one in rows]
            )
        return found

    def _kept_apart(
        self, again: Sequence[Sequence[tuple[Tensor, Tensor, Tensor]]], weight: Tensor, step: int
    ) -> Tensor:
        """What earlier memories answer moves little, and what this one answers moves enough (WISE §B.3)."""
        margins = cast(Margins, self.settings.margins)
        turns = [many[step % len(many)] for many in again]
        moved = [self._scores(y, mapped(self._module, x, weight), inside, asked=False) for x, y, inside in turns]
        others = torch.stack([_active(one - margins.unrelated) for one in moved[:-1]]).mean()
        return others + _active(margins.taught - moved[-1])

    @contextmanager
    def _steps(self, said: _Said) -> Iterator[None]:
        """Within the block the model says what the matrix that learns would, and only what depends on it is run again."""
        self._module.forward = said.forward
        try:
            with constant(self.model, self.layer):
                yield
        finally:
            del self._module.forward

    def _rows(self, edit: Edit) -> Rows:
        texts = [text for text in edit.unrelated if text not in edit.prompt]
        unrelated = [tokens(self.tokenizer, text) for text in texts]
        if not edit.unrelated:
            random = np.random.default_rng(self._seed("unrelated", edit.prompt, edit.target))
            drawn = random.permutation(len(self._pool))[: self.settings.unrelated]
            unrelated = [self._pool[at] for at in drawn.tolist()]
        everywhere = self.settings.reference
        return rows_of(self.tokenizer, edit, self.templates, unrelated, device=self._base.device, everywhere=everywhere)

    def _subspace(self, number: int) -> Tensor:
        """The subspace of a shard: the same for the same number."""
        random = torch.Generator().manual_seed(self._seed("mask", number))
        drawn = torch.rand(self._base.shape, generator=random) < self.settings.share
        return drawn.to(self._base.device, self._base.dtype)

    def _seed(self, *what: object) -> int:
        """A seed for each thing that is drawn: none depends on what else is there."""
        told = json.dumps([self.seed, *what]).encode()
        return int.from_bytes(hashlib.sha256(told).digest()[:4], "little")

    def _measured(self, given: Settings) -> Settings:
        """The settings with what was to be measured."""
        if given.rate is not None and given.margins is not None:
            return given
        ids, mask = padded(self._pool, self._base.device)
        x, _ = self.read(ids, mask)
        x = x[mask].float()
        said = x @ (self._base if transposed(self._module) else self._base.T)
        typical = float(torch.linalg.vector_norm(said, dim=-1).median())
        margins = given.margins or Margins(typical / 4, typical, typical / 2)
        squared = float(x.square().sum(dim=-1).mean())
        return replace(given, margins=margins, rate=given.rate or _PACE * margins.taught / (given.share * squared))

    # --- what is made of it ---

    def _keep(self, shards: Sequence[_Shard]) -> None:
        """These shards from now on, and the memories that they make."""
        groups: dict[str, list[_Shard]] = {}
        for shard in shards:
            if shard.log:
                name = MERGED if self.settings.mode == "merge" else str(shard.number // self.settings.shards)
                groups.setdefault(name, []).append(shard)
        known = {one.name: one for one in self._memories}
        memories = []
        for name, some in groups.items():
            old = known.get(name)
            # Tensors are never changed once they are kept, so the same ones make the same memory.
            same = old is not None and [id(one.log) for one in old.shards] == [id(one.log) for one in some]
            memories.append(old if old is not None and same else self._memory(name, tuple(some)))
        self._shards, self._memories = tuple(shards), tuple(memories)

    def _memory(self, name: str, shards: tuple[_Shard, ...]) -> _Memory:
        weight = self._merged([shard.weight for shard in shards])
        if self.settings.reference:
            threshold = min(one.score for shard in shards for one in shard.log)
        else:
            least = min(self._least([one.edit for shard in shards for one in shard.log], weight))
            threshold = max(least * _NEAR, cast(Margins, self.settings.margins).unrelated)
        return _Memory(name, weight, threshold, shards)

    def _merged(self, weights: Sequence[Tensor]) -> Tensor:
        """One matrix of several shards'."""
        base, density = self._base, self.settings.density
        if len(weights) == 1:
            return weights[0]
        if not self.settings.reference or self.settings.mode == "retrieve":
            return base + ties([one - base for one in weights], density=density)
        found, size = base, self.settings.shards
        for start in range(0, len(weights), size):
            some = weights[start : start + size]
            shares = [(0.4 if start else 1.0) / len(some)] * len(some) + ([0.6] if start else [])
            deltas = [one - base for one in some] + ([found - base] if start else [])
            found = base + ties(deltas, shares, density=density)
        return found

    def _least(self, edits: Sequence[Edit], weight: Tensor) -> list[float]:
        """Of each edit, the score of the wording it was taught in that moves the least."""
        asked = [
            (at, tokens(self.tokenizer, text)) for at, one in enumerate(edits) for text in wordings(one, self.templates)
        ]
        found = [float("inf")] * len(edits)
        for start in range(0, len(asked), _TOGETHER):
            some = asked[start : start + _TOGETHER]
            ids, mask = padded([row for _, row in some], self._base.device)
            with self.apart(), torch.no_grad():
                x, y = self.read(ids, mask)
                scores = self._scores(y, mapped(self._module, x, weight), mask)
            for (at, _), score in zip(some, scores.tolist(), strict=True):
                found[at] = min(found[at], score)
        return found

    # --- what is kept ---

    def state(self, shards: Collection[int] | None = None) -> bytes:
        """All of it, or some shards, as a file: of each the elements that it changed, the log, and what it was drawn from."""
        some = tuple(one for one in self._shards if shards is None or one.number in shards)
        tensors: dict[str, Tensor] = {}
        for shard in some:
            changed = (shard.weight != self._base).flatten().cpu()
            tensors[f"{shard.number}.changed"] = torch.from_numpy(np.packbits(changed.numpy()))
            tensors[f"{shard.number}.values"] = shard.weight.flatten()[changed.to(self._base.device)]
        log = {
            "templates": self.templates,
            "pool": self._pool,
            "shards": [
                {"number": shard.number, "closed": shard.closed, "log": [asdict(one) for one in shard.log]}
                for shard in some
            ],
        }
        tensors["log"] = torch.frombuffer(bytearray(json.dumps(log).encode()), dtype=torch.uint8)
        return pack(tensors, self._key(some))

    @classmethod
    def load(cls, data: bytes, model: Any, tokenizer: Tokenizer) -> Self:
        """What ``state`` kept, for the same model and tokenizer.

        Raises StaleError for others, InputError for what is no such file.
        """
        try:
            key, log = key_of(data), json.loads(bytes(unpack(data)["log"].numpy()))
            given = key["settings"]
            settings = Settings(**{**given, "margins": Margins(**given["margins"])})
            memory = cls(
                model, tokenizer, layer=key["layer"], settings=settings, unrelated=log["pool"],
                templates=log["templates"], seed=key["seed"],
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"this is no side memory that Holdfast has written: {error}") from error
        memory._keep(memory._opened(data))
        return memory

    def join(self, data: bytes) -> tuple[str, ...]:
        """Take up the shards of a file that ``state`` wrote, behind those that are there; the ids of their edits.

        A shard whose edits are there already is passed over. Raises StaleError where the file is of another model, tokenizer,
        settings, templates or unrelated texts, InputError for what is no such file.
        """
        known = {one.edit.id for one in self.log}
        found = {one.number: one for one in self._shards}
        new: list[str] = []
        for shard in self._opened(data):
            ids = [one.edit.id for one in shard.log]
            if known.isdisjoint(ids):
                # Another program may have given the number to a shard of its own.
                number = max(found) + 1 if shard.number in found else shard.number
                log = tuple(replace(one, shard=number) for one in shard.log)
                found[number] = replace(shard, number=number, log=log, closed=True)
                new += ids
        self._keep([found[number] for number in sorted(found)])
        return tuple(new)

    @property
    def identity(self) -> str:
        """Of all that must match before a file of edits can be taken up, in 32 hexadecimal digits."""
        return digest(json.dumps(self._key(()), sort_keys=True).encode())

    def _opened(self, data: bytes) -> list[_Shard]:
        """The shards of a file that fits. Raises StaleError, InputError."""
        try:
            tensors = unpack(data)
            shards = [self._unpacked(one, tensors) for one in json.loads(bytes(tensors["log"].numpy()))["shards"]]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"this is no side memory that Holdfast has written: {error}") from error
        if wrong := differing(key_of(data), self._key(shards)):
            raise StaleError(f"these edits are of another {', '.join(wrong)}: teach them anew")
        return shards

    def _unpacked(self, told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> _Shard:
        number = told["number"]
        changed = np.unpackbits(tensors[f"{number}.changed"].numpy(), count=self._base.numel()).astype(bool)
        weight = self._base.clone()
        weight.view(-1)[torch.from_numpy(changed).to(weight.device)] = tensors[f"{number}.values"].to(weight.device)
        log = tuple(Learnt(**{**one, "edit": Edit.from_dict(one["edit"])}) for one in told["log"])
        return _Shard(number, weight, log, told["closed"])

    def _key(self, shards: Sequence[_Shard]) -> Key:
        taught = [tokens(self.tokenizer, one.edit.prompt) for shard in shards for one in shard.log]
        return {
            "kind": "side memory",
            "model": config_digest(self.model),
            "weights": weights_digest(self.model),
            "tokenizer": digest(json.dumps(taught).encode()),
            "dtype": str(self._module.weight.dtype),
            "layer": self.layer,
            "texts": digest(json.dumps([self.templates, self._pool]).encode()),
            "settings": asdict(self.settings),
            "seed": self.seed,
        }


class _Said:
    """What a map says, and what it would say with another matrix, at every step of an edit: it is given the same each time."""

    def __init__(self, module: nn.Module, weight: Tensor) -> None:
        self._module, self._weight = module, weight
        self._run = module.forward
        self._both: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        base = self._both[0] if self._both is not None else self._run(x).detach()
        self._both = base, mapped(self._module, x, self._weight)
        return self._both[1]

    @property
    def both(self) -> tuple[Tensor, Tensor]:
        if self._both is None:
            raise InputError("the model does not use this layer for what it is taught")
        return self._both


def _untold(logits: Tensor, labels: Tensor, places: Tensor, *, padded_too: bool) -> Tensor:
    """The mean over rows of the mean over what is to be said of its surprise; logits are of what comes after some places.

    ``padded_too``: the mean is also of as many tokens more as the released code counts, whose loss is 0.
    """
    wanted = labels[:, 1:]
    counts = wanted != IGNORED
    if padded_too:
        first = (labels == IGNORED).sum(dim=-1, keepdim=True) - 2
        counts = torch.arange(wanted.shape[1], device=wanted.device) >= first
    some = wanted[:, places]
    loss = nn.functional.cross_entropy(
        logits.float().flatten(0, 1), some.flatten(), reduction="none", ignore_index=IGNORED
    ).view_as(some)
    return ((loss * counts[:, places]).sum(dim=1) / counts.sum(dim=1)).mean()


def _hinges(inside: Tensor, outside: Tensor, margins: Margins) -> Tensor:
    """The margins as a loss (eq. 5): what is unrelated moves little, what is taught much, and the one less than the other."""
    between = outside[:, None] - inside + margins.apart
    return _active(between) + _active(outside - margins.unrelated) + _active(margins.taught - inside)


def _active(missed: Tensor) -> Tensor:
    """The mean of those that miss their margin."""
    some = missed[missed > 0]
    return some.mean() if some.numel() else missed.new_zeros(())


def _activation(model: Any) -> Any:
    """That of the model's feed-forward layers, which the released code has in its score."""
    config = model.config
    name = getattr(config, "hidden_act", None) or getattr(config, "activation_function", None)
    if name not in ACT2FN:
        raise InputError("the model's configuration names no activation, which the released code needs")
    return ACT2FN[name]
