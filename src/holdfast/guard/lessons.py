"""Lessons: what was caught once warns before a like action, kept apart from ordinary memory (A-MemGuard, arXiv 2510.02373).

The paper hangs the text of a rejected chain on the record and pastes it into the prompt. Here a lesson is a memory of its own,
of kind ``lesson``, with the records that it was drawn from as its sources, with counts of its evidence, an end, and an appeal:
it can be confirmed and retracted. It holds typed fields only, never words of the rejected record. Lessons stand in the store
with status ``archived``: out of ordinary recall, and forgotten with their sources.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from holdfast.cube import Channel, Cube, Form, Kind, Origin, Policy, Ref, Scope, Status
from holdfast.errors import HoldfastError, InputError, NotFoundError
from holdfast.guard.base import Verdict
from holdfast.guard.chains import Chain, Effect, EffectKind, target
from holdfast.guard.sql import read_sql
from holdfast.retrieve.context import CLOSE, NOTICE, OPEN
from holdfast.retrieve.text import tokens
from holdfast.store.base import Operation, Store, Where
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Modality, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.STRATEGIES,),
    formation=(Formation.DISTILL_EXPERIENCE,),
    evolution=(Evolution.CONSOLIDATE_LOCAL, Evolution.FORGET_BY_TIME),
    retrieval=(Retrieval.AUTOMATIC, Retrieval.LEXICAL),
    subject=(Subject.AGENT,),
    modality=(Modality.TEXT, Modality.ACTION),
)

AUTHOR = "consensus guard"
"""Who writes lessons."""

_MOST_TERMS = 32  # of a context: more say no more about what is asked
_MOST_SOURCES = 16
_KINDS = frozenset(map(str, EffectKind))
_PLAIN = re.compile(r"[\w.@:/*+-]{1,64}(?: [\w.@:/*+-]{1,64})?")


@dataclass(frozen=True, slots=True)
class Caution:
    """A lesson that speaks of an action.

    Fields
        id: the lesson's, to confirm or to retract it.
        operation, effects: what was caught; a target that is not a plain name is shown as a digest.
        hits, confirmations: how often it was caught, and how often somebody said that this was right.
        taint: the outside sources that had a part in it.
    """

    id: str
    operation: str
    effects: tuple[Effect, ...]
    hits: int
    confirmations: int
    taint: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        effects = [{"kind": str(effect.kind), "target": effect.target} for effect in self.effects]
        counts = {"hits": self.hits, "confirmations": self.confirmations}
        return {"lesson": self.id, "operation": self.operation, "effects": effects, **counts}


def render(cautions: Sequence[Caution]) -> str:
    """Cautions as fenced data, one JSON object a line; "" where there are none."""
    lines = (json.dumps(one.to_dict()).replace("<", "\\u003c") for one in cautions)
    return "\n".join((OPEN, NOTICE, *lines, CLOSE)) if cautions else ""


class LessonStore:
    """The lessons of one scope.

    Args:
        store: where they live; any number of lesson stores may share it.
        scope: whose they are; the records that they are drawn from must be visible in it.
        ttl: how long a lesson warns without being caught or confirmed again.
        max_per_context: of lessons about alike queries no more are kept; the one with the least evidence makes room.
        likeness: the share of words (Jaccard) from which two queries are alike.
        clock: the time; by default the present.
    """

    def __init__(
        self,
        store: Store,
        scope: Scope,
        *,
        ttl: timedelta = timedelta(days=90),
        max_per_context: int = 4,
        likeness: float = 0.2,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if ttl <= timedelta(0) or max_per_context < 1 or not 0.0 < likeness <= 1.0:
            raise InputError("ttl must be positive, max_per_context at least 1, and likeness between 0 and 1")
        self._store = store
        self._scope = scope
        self._ttl = ttl
        self._most = max_per_context
        self._likeness = likeness
        self._clock = clock

    def all(self) -> list[Cube]:
        """The lessons that warn now, oldest first."""
        return [cube for cube in self._select((Status.ARCHIVED,)) if _until(cube) > self._clock()]

    def add_from(
        self, verdict: Verdict, query: str, chains: Mapping[str, Chain | HoldfastError | None]
    ) -> tuple[Cube, ...]:
        """Draw lessons from what a verdict dropped; ``chains`` as ``ConsensusGuard.chains`` gives them. The lessons touched.

        Only where the guard did not abstain, and only from a record that ranks above all that was kept (the one that would
        have been acted upon), and of that only effects which nothing kept shares: a record that is merely about something
        else teaches nothing. A lesson that was retracted is not drawn again while its time lasts.
        """
        if verdict.abstained or not verdict.kept:
            return ()
        best = max(hit.score for hit in verdict.kept)
        shared = set[Effect]().union(*(_effects(chains.get(hit.id)) for hit in verdict.kept))
        caught: dict[tuple[str, frozenset[Effect]], list[Cube]] = {}
        for one in verdict.dropped:
            chain = chains.get(one.hit.id)
            odd = _effects(chain) - shared
            if isinstance(chain, Chain) and odd and one.hit.score > best:
                caught.setdefault((chain.operation, odd), []).append(one.hit.cube)
        return tuple(
            lesson
            for (operation, odd), sources in caught.items()
            if (lesson := self._learn(operation, odd, sources, _terms(query))) is not None
        )

    def for_action(self, action: Chain | str, context: str) -> tuple[Caution, ...]:
        """The cautions that an action calls for in a context (the query): it has an effect that was caught there before.

        An action in words is read as SQL; where it is none, its words are compared with the lesson's operation and targets.
        """
        chain = action if isinstance(action, Chain) else read_sql(action)
        caught = {_shown(effect) for effect in _effects(chain)}
        words = (
            set(re.split(r"[^\w.@:/*+-]+", action.casefold())) if isinstance(action, str) and chain is None else set()
        )
        terms = _terms(context)
        found = []
        for cube in self.all():
            effects = set(_stored(cube))
            spoken = cube.data["operation"] in words and any(effect.target in words for effect in effects)
            if (effects & caught or spoken) and _alike(terms, cube) >= self._likeness:
                found.append(cube)
        return tuple(
            Caution(
                cube.id,
                cube.data["operation"],
                tuple(sorted(_stored(cube))),
                cube.data["hits"],
                cube.data["confirmations"],
                cube.origin.taint,
            )
            for cube in sorted(found, key=_rank, reverse=True)
        )

    def confirm(self, id: str) -> Cube:
        """Say that a lesson is right: it counts, and its time begins again (also after it was retracted)."""
        cube = self._lesson(id)
        data = {**cube.data, "confirmations": cube.data["confirmations"] + 1}
        kept = cube.with_(data=data, status=Status.ARCHIVED, policy=self._policy())
        if cube.status is not Status.EXPIRED:
            return self._commit([Operation.update(kept, "confirmed")])[-1]
        # From there the way back leads through an active state: in one transaction, so that no search sees it.
        back = Operation.update(cube.with_(status=Status.ACTIVATED), "appeal")
        return self._commit([back, Operation.update(kept.with_(version=cube.version + 1), "confirmed")])[-1]

    def retract(self, id: str) -> Cube:
        """Say that a lesson is a false alarm: it warns no more, and is not drawn again while its time lasts."""
        cube = self._lesson(id)
        data = {**cube.data, "false_alarms": cube.data["false_alarms"] + 1}
        return self._commit([Operation.update(cube.with_(data=data, status=Status.EXPIRED), "false alarm")])[0]

    # --- inside ---

    def _learn(self, operation: str, odd: frozenset[Effect], sources: Sequence[Cube], terms: list[str]) -> Cube | None:
        """A new lesson, or one more hit of the one that says the same; None where that one was retracted."""
        effects = {_shown(effect) for effect in odd}
        alive = (cube for cube in self._select((Status.ARCHIVED, Status.EXPIRED)) if _until(cube) > self._clock())
        near = [cube for cube in alive if _alike(terms, cube) >= self._likeness]
        for cube in near:
            if set(_stored(cube)) & effects and cube.status is Status.ARCHIVED:
                return self._again(cube, effects, sources)
            if set(_stored(cube)) & effects and cube.data["false_alarms"]:
                return None
        standing = sorted((cube for cube in near if cube.status is Status.ARCHIVED), key=_rank)
        room = [
            Operation.update(cube.with_(status=Status.EXPIRED), "made room for another lesson")
            for cube in standing[: max(0, len(standing) - self._most + 1)]
        ]
        data = {
            "operation": plain_name(operation),
            "effects": _listed(effects),
            "context": terms,
            "hits": 1,
            "confirmations": 0,
            "false_alarms": 0,
        }
        lesson = Cube(
            self._scope,
            _text(plain_name(operation), effects),
            kind=Kind.LESSON,
            data=data,
            origin=Origin(Channel.DERIVED, AUTHOR, derived_from=_refs((), sources)),
            status=Status.ARCHIVED,
            policy=self._policy(),
        )
        return self._commit([*room, Operation.add(lesson, "drawn from records that were outvoted")])[-1]

    def _again(self, lesson: Cube, effects: set[Effect], sources: Sequence[Cube]) -> Cube:
        """The same thing was caught again: one more hit, however many records said it, and the sources that are new."""
        effects = effects | set(_stored(lesson))
        changed = lesson.with_(
            text=_text(str(lesson.data["operation"]), effects),
            data={**lesson.data, "effects": _listed(effects), "hits": lesson.data["hits"] + 1},
            origin=replace(lesson.origin, derived_from=_refs(lesson.origin.derived_from, sources)),
            policy=self._policy(),
        )
        return self._commit([Operation.update(changed, "caught again")])[-1]

    def _lesson(self, id: str) -> Cube:
        cube = self._store.get(id, self._scope)
        if not is_lesson(cube):
            raise NotFoundError(f"{id} is no lesson of this store")
        return cube

    def _select(self, statuses: tuple[str, ...]) -> Iterator[Cube]:
        for cube in self._store.select(self._scope, Where(kinds=(Kind.LESSON,), statuses=statuses)):
            if is_lesson(cube):
                yield cube

    def _commit(self, operations: Sequence[Operation]) -> tuple[Cube, ...]:
        return self._store.commit(operations, actor=self._scope.path).cubes

    def _policy(self) -> Policy:
        return Policy(expires_at=self._clock() + self._ttl)


def is_lesson(cube: Cube) -> bool:
    """Drawn by this module: the kind alone is a word that anybody may use, and an import may say anything."""
    made = cube.origin.channel is Channel.DERIVED and cube.origin.author == AUTHOR
    return made and cube.kind == Kind.LESSON and _well_formed(cube.data)


def _well_formed(data: Mapping[str, Any]) -> bool:
    """Whether it holds what a lesson holds, and no words beside plain names."""
    effects, context = data.get("effects"), data.get("context")
    if not isinstance(effects, list) or not isinstance(context, list):
        return False
    pairs = all(
        isinstance(one, list) and len(one) == 2 and _shows(one[0]) and one[0] in _KINDS and _shows(one[1])
        for one in effects
    )
    counts = (data.get(name) for name in ("hits", "confirmations", "false_alarms"))
    words = all(isinstance(word, str) for word in context)
    return pairs and words and _shows(data.get("operation")) and all(type(number) is int for number in counts)


def _effects(chain: object) -> frozenset[Effect]:
    return chain.effects if isinstance(chain, Chain) else frozenset()


def plain_name(name: str) -> str:
    """A name as it may be shown: two plain words at most, anything else as a digest that can still be compared."""
    folded = target(name)
    if not folded or _PLAIN.fullmatch(folded):
        return folded
    return f"sha256:{hashlib.sha256(folded.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _shows(name: object) -> bool:
    """Whether it is a name as ``plain_name`` makes them."""
    return isinstance(name, str) and plain_name(name) == name


def _shown(effect: Effect) -> Effect:
    return Effect(effect.kind, plain_name(effect.target))


def _stored(cube: Cube) -> Iterator[Effect]:
    for kind, what in cube.data["effects"]:
        yield Effect(EffectKind(kind), what)


def _listed(effects: Iterable[Effect]) -> list[list[str]]:
    return [[str(effect.kind), effect.target] for effect in sorted(effects)]


def _text(operation: str, effects: Iterable[Effect]) -> str:
    return f"caught before an action: {operation} with {', '.join(map(str, sorted(effects)))}"


def _terms(query: str) -> list[str]:
    """The different words of a query, stemmed, in the order of the alphabet: enough to compare, nothing to follow."""
    return sorted({word[:32] for word in tokens(query)})[:_MOST_TERMS]


def _alike(terms: Sequence[str], cube: Cube) -> float:
    mine, its = set(terms), set(cube.data["context"])
    return len(mine & its) / len(mine | its) if mine | its else 0.0


def _until(cube: Cube) -> datetime:
    return cube.policy.expires_at or datetime.max.replace(tzinfo=UTC)


def _rank(cube: Cube) -> tuple[int, str]:
    """The evidence for a lesson; a person's word counts for two."""
    return int(cube.data["hits"]) + 2 * int(cube.data["confirmations"]), cube.id


def _refs(known: tuple[Ref, ...], sources: Sequence[Cube]) -> tuple[Ref, ...]:
    """The sources that there were and the new ones, up to a number that is enough to show what was caught."""
    ids = {ref.id for ref in known}
    return (*known, *(cube.ref for cube in sources if cube.id not in ids))[:_MOST_SOURCES]
