"""The store's seam: what every place where cubes live must do, and the records that pass through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from holdfast.cube import Cube, Ref, Scope


class Op(StrEnum):
    """What an operation does (Memory-R1, arXiv 2508.19828: add, update, delete, none)."""

    ADD = "add"
    UPDATE = "update"
    DELETE = "delete"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Operation:
    """A proposed change, and why. Encoders and managers propose; only the store applies, through the journal.

    ``add`` and ``update`` carry the cube as it shall be (an update keeps its id; the store raises the version);
    ``delete`` carries the cube to be retracted: it is archived, out of recall and still in history. Erasing for good is
    not an operation that anything may propose: it is ``forget``, and only a caller asks for it. ``none`` carries the
    reason why nothing was worth keeping.
    """

    op: Op
    cube: Cube | None = None
    reason: str = ""

    @classmethod
    def add(cls, cube: Cube, reason: str = "") -> Operation:
        """Keep a new cube."""
        return cls(Op.ADD, cube, reason)

    @classmethod
    def update(cls, cube: Cube, reason: str = "") -> Operation:
        """Make a new version of a cube; ``cube.version`` must be the version that was read (ConflictError otherwise)."""
        return cls(Op.UPDATE, cube, reason)

    @classmethod
    def delete(cls, cube: Cube, reason: str = "") -> Operation:
        """Retract a cube: archived, out of recall, still in history."""
        return cls(Op.DELETE, cube, reason)

    @classmethod
    def none(cls, reason: str) -> Operation:
        """Nothing is worth keeping, and this is why."""
        return cls(Op.NONE, None, reason)


class Action(StrEnum):
    """What an event in the journal records."""

    ADD = "add"
    UPDATE = "update"
    DELETE = "delete"
    FEEDBACK = "feedback"
    REWARD = "reward"
    UNDO = "undo"
    PURGE = "purge"


OF_USE = frozenset({Action.FEEDBACK, Action.REWARD})
"""Events that tell how a memory served (``store.rewards``), and make no version of it."""


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the journal.

    ``seq`` counts from 1 without gaps; events of one transaction share ``txn`` (the seq of its first event). ``digest`` is
    a salted hash of the version's content, so that the chain still verifies after the content is purged. ``hash`` covers
    everything here and the previous event's hash.
    """

    seq: int
    txn: int
    at: datetime
    actor: str
    action: Action
    partition: str
    id: str
    version: int
    reason: str
    digest: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """What a transaction did: its last ``seq`` (0 when nothing changed), the cubes as stored, the ids that already were there."""

    seq: int
    cubes: tuple[Cube, ...] = ()
    duplicates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Where:
    """A filter for ``select``: None or empty means "any". ``by``: whoever added it, as the journal has it."""

    kinds: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    source: str | None = None
    author: str | None = None
    by: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    known_at: datetime | None = None
    valid_at: datetime | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None


class Store(Protocol):
    """A place where cubes live. Scope is checked here, at every access, and nowhere above."""

    def commit(self, operations: Sequence[Operation], *, actor: str = "") -> Commit:
        """Apply operations in one durable transaction, with their events; all of them or none."""
        ...

    def get(self, id: str, scope: Scope, *, version: int | None = None) -> Cube:
        """One cube (its current version unless one is named). Raises NotFoundError, also outside the scope."""
        ...

    def select(self, scope: Scope, where: Where = ...) -> Iterator[Cube]:
        """The current cubes in a scope that pass a filter, oldest first."""
        ...

    def events(self, since: int = 0, *, scope: Scope | None = None, id: str | None = None) -> Iterator[Event]:
        """The journal after ``since``, oldest first."""
        ...

    def lineage(self, id: str, scope: Scope, *, down: bool = True) -> list[Ref]:
        """Everything derived from a cube (``down``), or everything it was derived from, nearest first."""
        ...
