"""The guard's seam: what may come into memory, which of what was recalled may be acted upon, and whose word a memory is.

Guarantees rest on who says something, through which channel and from what it was made (``Origin``); the words themselves give
signals at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol
from urllib.parse import urlsplit

from holdfast.cube import EXTERNAL, Channel, Cube, Ref, Scope
from holdfast.encode.turns import ROLES
from holdfast.errors import NotFoundError
from holdfast.guard.chains import target
from holdfast.retrieve.hits import Hit
from holdfast.store.base import Operation, Store


class Ruling(StrEnum):
    """What becomes of something that wants to be remembered."""

    ADMIT = "admit"
    QUARANTINE = "quarantine"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Decision:
    """A ruling on one operation, why, and the strength of every signal that spoke (between 0 and 1).

    ``uncorroborated``: all that speaks against it is that no one else says so; then a rule may let it out (``release``).
    """

    ruling: Ruling
    reasons: tuple[str, ...] = ()
    signals: Mapping[str, float] = field(default_factory=dict)
    uncorroborated: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """A hit that must not be acted upon, and why."""

    hit: Hit
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which hits may be acted upon.

    ``abstained``: there is no quorum, or the sides are too even: nothing here may be acted upon, whatever ``kept`` holds.
    ``quorum`` is the share of the votes' weight that agrees with what was kept, between 0 and 1.
    """

    kept: tuple[Hit, ...]
    dropped: tuple[Dropped, ...] = ()
    abstained: bool = False
    quorum: float = 1.0
    reason: str = ""


class Guard(Protocol):
    """Stands at both doors of a memory."""

    def admit(self, operations: Sequence[Operation]) -> list[Decision]:
        """A decision for each operation, in order. Sees the records as they came, before anything is made of them."""
        ...

    def check(self, query: str, hits: Sequence[Hit]) -> Verdict:
        """Which of some hits may be acted upon for a query."""
        ...


AUTHORISING_TRUST = 0.5
"""A source that is trusted less may vote, and authorises no effect."""

Lookup = Callable[[Ref], Cube | None]
"""The cube of that id and version, or None: how a guard sees what a derived record was made from."""


def sources_in(store: Store, scope: Scope) -> Lookup:
    """Looks sources up in a store; None for what was erased or belongs to somebody else."""

    def lookup(ref: Ref) -> Cube | None:
        try:
            return store.get(ref.id, scope, version=ref.version)
        except NotFoundError:
            return None

    return lookup


@dataclass(frozen=True, slots=True)
class Voter:
    """Whose word a record is, and whether that word may authorise an effect."""

    source: str
    authorises: bool


def voter(cube: Cube, lookup: Lookup | None = None) -> Voter:
    """The source that a record speaks for: those of one source have one vote, however many they are.

    What came from outside, itself or through lineage, speaks for the outside and authorises nothing. A derived record speaks
    for one of its sources, never for a new one; where they cannot be looked up, all such records are one voter that authorises
    nothing. Everything else is the word of its ``source_of``.
    """
    if _from_outside(cube):
        return Voter(source_of(cube), False)
    if (raw := _raw(cube, lookup)) is not None:  # mostly: then there is nothing to walk through
        return _voter(cube, [_voter(one, ()) for one in raw])
    voters: dict[Ref, Voter] = {}
    for ref, one, sources in ancestry(cube, lookup):
        voters[ref] = _voter(one, [voters[some] for some in sources if some is not None])
    return voters[cube.ref]


def ancestry(cube: Cube, lookup: Lookup | None) -> Iterator[tuple[Ref, Cube, tuple[Ref | None, ...]]]:
    """A cube and what it was made of, at any remove: each once, after its own sources, and with these.

    In place of a source stands None where it cannot be looked up, or is itself made of what it is a source of.
    """
    known, above = {cube.ref: cube}, {cube.ref}
    stack: list[tuple[Ref, Iterator[Ref], list[Ref | None]]] = [(cube.ref, iter(cube.origin.derived_from), [])]
    while stack:
        here, left, sources = stack[-1]
        ref = next(left, None)
        if ref is None:
            stack.pop()
            above.discard(here)
            yield here, known[here], tuple(sources)
        elif ref in known:
            sources.append(None if ref in above else ref)
        elif lookup is None or (found := lookup(ref)) is None:
            sources.append(None)
        else:
            sources.append(ref)
            known[ref] = found
            above.add(ref)
            stack.append((ref, iter(found.origin.derived_from), []))


def _raw(cube: Cube, lookup: Lookup | None) -> list[Cube] | None:
    """What a cube was made of, where all of it is there and was made of nothing itself; None otherwise."""
    if lookup is None:
        return None
    found: list[Cube] = []
    for ref in cube.origin.derived_from:
        one = lookup(ref)
        if one is None or one.origin.derived_from:
            return None
        found.append(one)
    return found


def _from_outside(cube: Cube) -> bool:
    return cube.tainted or cube.origin.channel in EXTERNAL


def _voter(cube: Cube, found: Sequence[Voter]) -> Voter:
    """The source that a record speaks for, given those of what it was made from."""
    origin = cube.origin
    if _from_outside(cube):
        return Voter(source_of(cube), False)
    if origin.derived_from or origin.channel is Channel.DERIVED:
        if not found or len(found) < len(origin.derived_from):
            return Voter("derived", False)
        return Voter(min(one.source for one in found), all(one.authorises for one in found))
    authorises = origin.trust >= AUTHORISING_TRUST and origin.channel is not Channel.RECALLED
    return Voter(source_of(cube), authorises)


def source_of(cube: Cube) -> str:
    """Whose word a cube is by its own origin; ``voter`` also follows what it was derived from.

    What a person or an agent said is theirs, whatever it refers to; where nobody is named, the user's or the agent's whose
    memory it is. What came from outside through lineage is the word of the outside (``site``), not of whoever wrote it down.
    """
    origin = cube.origin
    if origin.taint:
        return site(origin.taint[0])
    if origin.channel not in (Channel.USER, Channel.ASSISTANT):
        return site(origin.label)
    owner = cube.scope.user if origin.channel is Channel.USER else cube.scope.agent
    # A chat that names no speaker calls them by their role.
    named = origin.author if origin.author and origin.author.casefold() not in ROLES else owner or ""
    return target(f"{origin.channel}:{named}")


def site(label: str) -> str:
    """The source that a taint or an origin's label names: one web site is one source, however many hosts and pages it has."""
    door, _, rest = label.partition(":")
    try:
        host = urlsplit(rest).hostname if "://" in rest else None
    except ValueError:  # brackets that are no address
        host = None
    return f"{door}:{domain(host)}" if host else target(label)


def domain(host: str) -> str:
    """The last two labels of a host's name: whoever has a domain has all hosts under it. An address stays as it is.

    Where that joins strangers (two sites of one hosting service), they are one source: fewer count, never more.
    """
    labels = host.rstrip(".").split(".")
    return ".".join(labels if labels[-1].isdigit() else labels[-2:])
