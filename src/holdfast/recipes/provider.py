"""A recipe at work over one store (the provider of EvolveLab, arXiv 2512.18746 §3.1: provide, take in, manage).

It holds nothing: all that it knows stands in the store, so that any number of processes serve one memory, and one that was killed
goes on where it stopped. The raw record of a trajectory is durable before anything is made of it, and no part makes anything of the
same one twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from holdfast.as_of import RECALLED
from holdfast.chat import Chat, Message, Reply
from holdfast.cube import RECALLABLE, Cube, Form, Kind, Ref, Scope, Status
from holdfast.encode.base import Encoder, Experience, Outcome, Trajectory
from holdfast.encode.near import named
from holdfast.encode.records import MAKER, made_of, raw, tell
from holdfast.errors import ConflictError, InputError, NotFoundError
from holdfast.guard.base import Dropped
from holdfast.guard.governor import Purpose
from holdfast.guard.hearsay import all_own, heeded
from holdfast.manage.base import Manager
from holdfast.recipes.base import Find, Guidance, Phase, Recipe, Taken
from holdfast.retrieve.base import Ranker, passing, sought
from holdfast.retrieve.context import pack
from holdfast.retrieve.hits import Hit
from holdfast.store.base import Op, Operation
from holdfast.store.rewards import Terms
from holdfast.store.rows import owned
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Retrieval, Subform, Subject

if TYPE_CHECKING:
    from holdfast.memory import Memory
    from holdfast.retrieve.search import Ranking

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.CASES, Function.STRATEGIES),
    formation=(Formation.DISTILL_EXPERIENCE,),
    evolution=(Evolution.UPDATE_EXTERNAL,),
    retrieval=(Retrieval.AUTOMATIC, Retrieval.ON_REQUEST),
    subject=(Subject.AGENT,),
)

COMPARED = 48
"""So many of the best records are compared where others than who asks have written some: a run may have left several, and a
few accounts must not fill all places."""

TRIES = 3
"""So often something is done anew because another process changed what it was made from."""

T = TypeVar("T")


class Cook:
    """A provider: one recipe, in one scope.

    Args:
        memory: what to keep it in.
        recipe: what to do.
        scope: whose memory; its agent is who asks, unless ``author`` names somebody (an account that the agent works for).
        model: what writes, where a part of the recipe has something written.
        budget: tokens that guidance may have, by default as many as the recipe says.
    """

    def __init__(
        self,
        memory: Memory,
        recipe: Recipe,
        scope: Scope,
        *,
        model: Chat | None = None,
        author: str | None = None,
        budget: int | None = None,
    ) -> None:
        self._memory, self.recipe, self._scope = memory, recipe, scope
        self._author = author or scope.agent or scope.user
        self._budget = recipe.budget if budget is None else budget
        self._equip: Callable[..., Any] = lambda part, changed=None, once=False: equipped(
            part, _Once(model) if once and model else model, memory, scope, self._author, changed
        )

    def provide(self, task: str, phase: Phase = Phase.BEGIN, *, context: str = "") -> Guidance:
        """What is worth telling for a task. Raises InputError, and ChatError where a part asks a model that fails."""
        return _again(lambda: self._provided(task, phase, context))

    def _provided(self, task: str, phase: Phase, context: str) -> Guidance:
        finds = [find for find in self.recipe.finds if phase in find.phases]
        if not finds:
            return Guidance()
        hits, dropped = self._found(finds, task if phase is Phase.BEGIN else context or task)
        operations: tuple[Operation, ...] = ()
        if self.recipe.composer is not None:
            composed = self._equip(self.recipe.composer).compose(task, context, hits)
            operations = composed.operations
            packed = _packed(hits, composed.text, self._budget) if composed.text else ""
        else:
            told = [_told(hit) for hit in hits]
            packed_up = pack(told, self._budget)
            packed, kept = packed_up.text, {cube.id for cube in packed_up.cubes}
            hits = [hit for hit in hits if hit.id in kept]
        if operations:
            self._commit(operations)
        token = ""
        if self.recipe.rewarded and hits and packed:
            token = self._memory.store.hand_out([hit.cube for hit in hits], self._scope, Terms())
        return Guidance(packed, tuple(hits) if packed else (), tuple(dropped), token)

    def take_in(self, trajectory: Trajectory, outcome: Outcome) -> Taken:
        """Keep a trajectory, and learn from it.

        Where it was taken in before, only what was not done then is done: parts that have made nothing of it are asked again.
        Raises InputError, and ChatError where a part asks a model that fails: the raw record is kept all the same.
        """
        if not trajectory.task.strip():
            raise InputError("a trajectory has a task in words")
        store = self._memory.store
        scope = named(self._scope)
        added = self._memory.add(raw(trajectory, outcome, self._scope, self._author), **scope)
        if not (ids := (*added.ids, *added.duplicates)):
            return Taken("", quarantined=added.quarantined, reasons=added.reasons)
        case = store.get(ids[0], self._scope)
        for token in trajectory.tokens:
            if outcome.reward is not None:
                self._memory.reward(token, outcome.reward, **scope)
        done = set[str]() if added.ids else self._made(case)  # of what has just come nothing is made
        made: list[Cube] = []
        reasons: list[str] = []

        def encoded(encoder: Encoder) -> tuple[Sequence[Operation], tuple[Cube, ...]]:
            # What it was served is read anew for each part: the one before may have changed it.
            known = self._current(trajectory.served)
            experience = Experience((case,), store.now(), known=known, trajectory=trajectory, outcome=outcome)
            operations = self._equip(encoder).encode(experience)
            return operations, self._commit(operations)

        # Each part's records are durable before the next asks a model: an answer that was paid for is not asked for twice.
        for encoder in self.recipe.encoders:
            if _maker(encoder) in done:
                continue
            operations, stored = _again(partial(encoded, encoder))
            reasons += [operation.reason for operation in operations if operation.op is Op.NONE]
            made += stored
        if added.ids and self.recipe.managers:
            # What is older was tended before; twice as far back, for the last time may have been cut short.
            count, since = self._memory.tally(back=2 * self.recipe.every, kinds=(Kind.EXPERIENCE,), **scope)
            if count % self.recipe.every == 0:
                self._tend(since)
        held = tuple(cube.id for cube in made if cube.status is Status.QUARANTINED)
        return Taken(case.id, tuple(cube.id for cube in made if cube.id not in held), held, tuple(reasons))

    def manage(self) -> tuple[str, ...]:
        """Let every manager tend the scope; the ids of what changed."""
        return self._tend(None)

    def _tend(self, since: datetime | None) -> tuple[str, ...]:
        store = self._memory.store

        def tended(manager: Manager) -> tuple[Cube, ...]:
            changed = None if since is None else tuple(self._memory.changed(since, **named(self._scope)))
            return self._commit(self._equip(manager, changed).manage(store, self._scope, store.now()))

        changed = [cube.id for manager in self.recipe.managers for cube in _again(partial(tended, manager))]
        return tuple(dict.fromkeys(changed))

    def _found(self, finds: Sequence[Find], query: str) -> tuple[list[Hit], list[Dropped]]:
        """What the finds of a phase tell, one after the other, and what is not to be gone by."""
        searches = [(find, self._equip(find.ranker, once=True)) for find in finds]
        ranked = [self._ranked(find, ranker, query, self._many(find)) for find, ranker in searches]
        first = [hit for (find, _), some in zip(searches, ranked, strict=True) for hit in some[: find.k]]
        # Mostly all is one's own, and then no more is looked at.
        if not self._memory.guarded or self._lived(first):
            return list(map(_owned, first)), []
        hits: list[Hit] = []
        dropped: list[Dropped] = []
        for (find, ranker), some in zip(searches, ranked, strict=True):
            kept, out = self._heeded(find, ranker, query, some)
            hits += map(_owned, kept)
            dropped += [replace(one, hit=_owned(one.hit)) for one in out]
        return hits, dropped

    def _heeded(
        self, find: Find, ranker: Ranker, query: str, ranked: list[Hit]
    ) -> tuple[Sequence[Hit], Sequence[Dropped]]:
        """Of what a find has ranked, and of more where others have written some of the best, what is to be gone by."""
        compared = self._compared(find)
        if self._lived(ranked[: find.k]):
            return ranked[: find.k], ()
        if not find.whole:
            ranked = self._ranked(find, ranker, query, compared)
            if self._lived(ranked[: find.k]):
                return ranked[: find.k], ()

        def chances() -> dict[str, float]:
            found = self._memory.search(query, k=2 * compared, kinds=find.kinds, **named(self._scope))
            return {hit.id: hit.relevance for hit in found}

        said = heeded(query, ranked, find.k, self._memory.store, self._scope, self._author, chances)
        return said.kept, said.dropped

    def _many(self, find: Find) -> int:
        """So many are ranked at first: what reads everything reads it once."""
        return self._compared(find) if find.whole and self._memory.guarded else find.k

    def _compared(self, find: Find) -> int:
        return max(COMPARED, 4 * find.k)

    def _lived(self, hits: Sequence[Hit]) -> bool:
        return all_own(hits, self._memory.store, self._scope, self._author)

    def _ranked(self, find: Find, ranker: Ranker, query: str, k: int) -> list[Hit]:
        """The k best, best first, as the ranker scores them."""
        if find.whole:
            everything = self._memory.select(replace(RECALLED, kinds=find.kinds), **named(self._scope))
            candidates = [hit for cube in everything if self._fits(hit := Hit(cube, 0.0, 0.0), find)]
        else:
            candidates = list(sought(ranker, query, find.kinds, k, partial(self._near, find), find.pool))
        if not candidates:
            return []
        scores = ranker.rank(query, candidates)
        order = [at for at in np.argsort(-scores, kind="stable").tolist() if scores[at] > find.least]
        return [_scored(candidates[at], float(scores[at])) for at in order[:k]]

    def _near(self, find: Find, query: str, kinds: Sequence[str], k: int, by: Ranking) -> list[Hit]:
        """The k best in the order of an index of what a find may tell."""

        def nearest(many: int) -> Sequence[Hit]:
            # Rankers only look at what they are given: what is told of it has data of its own in the end.
            return self._memory.nearest(query, k=many, kinds=kinds, by=replace(by, lent=True), **named(self._scope))

        return passing(nearest, k, partial(self._fits, find=find))

    def _fits(self, hit: Hit, find: Find) -> bool:
        if find.own and hit.cube.origin.author != self._author:
            return False
        return not find.makers or hit.cube.data.get(MAKER) in find.makers

    def _commit(self, operations: Sequence[Operation]) -> tuple[Cube, ...]:
        wanted = [operation for operation in operations if operation.op is not Op.NONE]
        return self._memory.apply(wanted, actor=self._scope.path, change=Purpose.WRITE) if wanted else ()

    def _current(self, refs: Sequence[Ref]) -> tuple[Cube, ...]:
        """Memories that were served, as they are by now, without those that are gone."""
        found = self._memory.store.several((ref.id for ref in refs), self._scope)
        return tuple(cube for ref in refs if (cube := found.get(ref.id)) is not None and cube.status in RECALLABLE)

    def _made(self, case: Cube) -> set[str]:
        """The parts that have made something of a raw record."""
        made = set()
        for ref in self._memory.store.lineage(case.id, self._scope, down=True):
            try:
                cube = self._memory.store.get(ref.id, self._scope, version=ref.version)
            except NotFoundError:
                continue
            if made_of(cube, case):
                made.add(str(cube.data.get(MAKER)))
        return made


def equipped(
    part: T,
    model: Chat | None,
    memory: Memory,
    scope: Scope,
    author: str | None = None,
    changed: Sequence[Cube] | None = None,
) -> T:
    """A part of a recipe with what it works with, in fields of these names that are None: ``model``, ``memory``, ``scope``,
    ``author`` (who asks), ``changed`` (what alone needs tending), ``embedder`` (the memory's, if it has one). Parts within it are
    equipped too."""
    if not is_dataclass(part) or isinstance(part, type):
        return part
    offered = {
        "model": model,
        "memory": memory,
        "scope": scope,
        "author": author,
        "changed": changed,
        "embedder": memory.recall.embedder if memory is not None else None,
    }
    takes: dict[str, Any] = {}
    for one in fields(part):
        held = getattr(part, one.name)
        if held is None and one.name in offered:
            takes[one.name] = offered[one.name]
        elif one.name not in offered and is_dataclass(held):
            takes[one.name] = equipped(held, model, memory, scope, author, changed)
    return replace(part, **takes)


class _Once:
    """A model that is asked the same only once: a find may look twice, and what a model says of the best is the same."""

    def __init__(self, model: Chat) -> None:
        self._model = model
        self._said: list[tuple[tuple[Message, ...], dict[str, Any], Reply]] = []

    def reply(self, messages: Sequence[Message], **options: Any) -> Reply:
        """See ``Chat``."""
        asked = tuple(messages)
        for known, by, said in self._said:
            if known == asked and by == options:
                return said
        reply = self._model.reply(messages, **options)
        self._said.append((asked, options, reply))
        return reply


def _again(work: Callable[[], T]) -> T:
    """Work that reads, thinks and writes; where another process was faster, once more from what it wrote."""
    for _ in range(TRIES - 1):
        try:
            return work()
        except ConflictError:
            continue
    return work()


def _maker(encoder: Encoder) -> str:
    """The name under which a part's records stand: its module's last word."""
    return type(encoder).__module__.rpartition(".")[2]


def _owned(hit: Hit) -> Hit:
    return replace(hit, cube=owned(hit.cube))


def _scored(hit: Hit, score: float) -> Hit:
    return hit if hit.score == score else replace(hit, score=score)


def _told(hit: Hit) -> Hit:
    """With what is told of it as its words."""
    text = tell(hit.cube)
    return hit if text == hit.cube.text else replace(hit, cube=hit.cube.with_(text=text))


def _packed(hits: Sequence[Hit], text: str, budget: int) -> str:
    """What a composer wrote, fenced like the records that it wrote it from, and tainted as they are."""
    if not hits:
        return ""
    best = hits[0]
    origin = replace(best.cube.origin, taint=tuple(sorted({t for hit in hits for t in hit.cube.origin.taint})))
    return pack([replace(best, cube=best.cube.with_(text=text, origin=origin))], budget).text
