"""What to say where memories disagree: by declared policy, never by order, fluency or number of copies.

A language model believes one fluent passage nine times in ten, and of two that disagree it mostly takes the one it sees first
(Adaptive Chameleon or Stubborn Sloth, arXiv 2305.13300). Here every source has one vote for what it says last, weighted by its
trust and by how fresh it is; what a model believes by itself is one more source, never more; and where the sides are too even,
or too little is known, nothing is answered. Against a word from inside all sites that say the same weigh as one, for they cost an
attacker nothing, and what only they say is not answered, however little that word weighs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from holdfast.cube import Cube, Form
from holdfast.errors import InputError
from holdfast.guard.base import Lookup, voter
from holdfast.retrieve.hits import Hit
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    retrieval=(Retrieval.ON_REQUEST, Retrieval.AGGREGATE),
    subject=(Subject.USER, Subject.WORLD),
)

Detector = Callable[[str, Cube], str | None]
"""(question, memory) -> the answer that the memory gives, in a form in which equal answers are equal; None: it cannot be told."""


class Status(StrEnum):
    """How things stand between some memories."""

    AGREE = "agree"
    CONFLICT = "conflict"
    INSUFFICIENT = "insufficient"


class Action(StrEnum):
    """What to do about it."""

    ANSWER = "answer"
    CAVEAT = "answer with caveat"
    ABSTAIN = "abstain"


@dataclass(frozen=True, slots=True)
class Belief:
    """What a model believes without memory: one more source, with a trust of its own. Not ``firm``: it has no vote."""

    answer: str
    trust: float
    firm: bool = True


@dataclass(frozen=True, slots=True)
class Policy:
    """How sides are weighed.

    ``least``: the winner needs so much weight (one source of full trust weighs 1); ``margin``: it must lead the next by so much
    of both; ``unknown``: of all weight at most so much may say nothing that can be told; ``half_life``: days in which a
    source's word loses half its weight, None: it does not age.
    """

    least: float = 0.3
    margin: float = 0.2
    unknown: float = 0.5
    half_life: float | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One answer: who gives it (one memory a source, the sources sorted), and with what weight: the sum of theirs, or that of
    the weightiest where all are from outside and somebody from inside speaks too."""

    answer: str
    weight: float
    sources: tuple[str, ...]
    cubes: tuple[Cube, ...]


@dataclass(frozen=True, slots=True)
class Resolution:
    """What came of weighing; ``sides`` are sorted by weight, ``answer`` is None where there is none to give.

    ``outside``: nobody from inside gives the answer, so it is to be told as the word of its sources, and never as known.
    """

    status: Status
    action: Action
    answer: str | None
    sides: tuple[Side, ...]
    unknown: tuple[Cube, ...]
    confidence: float
    reason: str
    outside: bool = False


_MODEL = "model"
_OWN = 0.5  # a word from inside that is trusted less does not stand against the outside
_DAY = 86_400.0


def resolve(
    question: str,
    hits: Sequence[Hit],
    detect: Detector,
    *,
    policy: Policy | None = None,
    belief: Belief | None = None,
    at: datetime | None = None,
    lookup: Lookup | None = None,
) -> Resolution:
    """Weigh what some hits say. The same for every order of the hits, and however often a source repeats itself.

    ``at``: the time asked about, against which words age. ``lookup`` finds what derived memories were made from
    (``base.sources_in``), for they are its word; without it all of them are one voice. Raises InputError for a policy that
    ages words without ``at``.
    """
    policy = policy or Policy()
    if policy.half_life is not None and at is None:
        raise InputError("a policy with a half-life needs at=, the time asked about")
    said: defaultdict[str, list[Cube]] = defaultdict(list)
    for hit in hits:
        said[voter(hit.cube, lookup).source].append(hit.cube)
    votes: defaultdict[str, list[tuple[str, float, Cube | None]]] = defaultdict(list)
    unknown: list[Cube] = []
    dark = 0.0
    for source in sorted(said):
        known = [(cube, answer) for cube in said[source] if (answer := detect(question, cube)) is not None]
        cube, answer = max(known, key=lambda one: _last(one[0])) if known else (max(said[source], key=_last), None)
        weight = cube.origin.trust * _freshness(cube, policy, at)
        if answer is None:
            unknown.append(cube)
            dark += weight
        else:
            votes[answer].append((source, weight, cube))
    if belief is not None and belief.firm:
        votes[belief.answer].append((_MODEL, belief.trust, None))
    sides = [
        Side(
            answer,
            math.fsum(weight for _, weight, _ in some),
            tuple(source for source, _, _ in some),
            tuple(cube for _, _, cube in some if cube is not None),
        )
        for answer, some in votes.items()
    ]
    if any(map(_from_inside, sides)):
        most = {answer: max(weight for _, weight, _ in some) for answer, some in votes.items()}
        sides = [replace(side, weight=most[side.answer]) if _only_outside(side) else side for side in sides]
    sides.sort(key=lambda side: (-side.weight, side.answer))
    return _judged(tuple(sides), tuple(unknown), dark, policy)


def _judged(sides: tuple[Side, ...], unknown: tuple[Cube, ...], dark: float, policy: Policy) -> Resolution:
    total = math.fsum(side.weight for side in sides)
    if not sides or total <= 0:
        return Resolution(Status.INSUFFICIENT, Action.ABSTAIN, None, sides, unknown, 0.0, "no memory here answers it")
    first, second = sides[0], sides[1].weight if len(sides) > 1 else 0.0
    status = Status.CONFLICT if second > 0 else Status.AGREE
    confidence = (first.weight - second) / (first.weight + second)
    if dark > policy.unknown * (total + dark):
        return Resolution(
            Status.INSUFFICIENT,
            Action.ABSTAIN,
            None,
            sides,
            unknown,
            confidence,
            "of most of what was found it cannot be told",
        )
    if first.weight < policy.least:
        return Resolution(
            status, Action.ABSTAIN, None, sides, unknown, confidence, "those who say so are hardly trusted"
        )
    if _only_outside(first) and any(_from_inside(side) for side in sides[1:]):
        why = "only sources from outside say so, and one from inside says otherwise"
        return Resolution(status, Action.ABSTAIN, None, sides, unknown, confidence, why)
    if confidence < policy.margin:
        return Resolution(status, Action.ABSTAIN, None, sides, unknown, confidence, "the sides are too even")
    outside = _only_outside(first)
    action = Action.CAVEAT if status is Status.CONFLICT or outside else Action.ANSWER
    others = f", {len(sides) - 1} other answer(s) weigh {total - first.weight:.2f}" if status is Status.CONFLICT else ""
    whose = ", all from outside," if outside else ""
    reason = f"{len(first.sources)} source(s) of weight {first.weight:.2f}{whose} say so{others}"
    return Resolution(status, action, first.answer, sides, unknown, confidence, reason, outside)


def _only_outside(side: Side) -> bool:
    return _MODEL not in side.sources and all(cube.tainted for cube in side.cubes)


def _from_inside(side: Side) -> bool:
    return any(not cube.tainted and cube.origin.trust >= _OWN for cube in side.cubes)


def by_slot(question: str, cube: Cube) -> str | None:  # noqa: ARG001  (a detector is given both)
    """The detector for claims that the rules or a model have drawn: the value of the claim's slot, with its polarity."""
    value = cube.data.get("value")
    if not isinstance(value, str) or not value.strip():
        return None
    return f"{'not ' if cube.data.get('polarity') is False else ''}{' '.join(value.casefold().split())}"


def _last(cube: Cube) -> tuple[float, float, str]:
    """What a source said last counts: by when it became true, then by when it was learnt; the id settles the rest."""
    when, learnt = cube.valid_from or cube.recorded_at, cube.recorded_at
    return (when.timestamp() if when else -math.inf, learnt.timestamp() if learnt else -math.inf, cube.id)


def _freshness(cube: Cube, policy: Policy, at: datetime | None) -> float:
    when = cube.valid_from or cube.recorded_at
    if policy.half_life is None or at is None or when is None:
        return 1.0
    days = max(0.0, (at - when).total_seconds() / _DAY)
    return float(0.5 ** (days / policy.half_life))
