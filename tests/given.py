"""Grants as the tests of access give them, and who may see what by them: worked out here anew, and not asked of the product."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from holdfast.cube import Cube, Origin, Scope, Status
from holdfast.retrieve.hits import Hits
from holdfast.store.grants import Right

SCOPES = [
    *(
        Scope("acme", "ana", agent, session)
        for agent, session in ((None, None), ("plan", None), ("plan", "s1"), ("work", "s1"))
    ),
    Scope("acme", "bo", "plan", "s1"),
    Scope("zeta", "ana"),
]
KINDS = ("message", "fact", "experience")
WHO = ("bot", "eve")
PLACES = ("acme/ana", "acme/ana", "acme/ana/plan", "acme/ana/plan/s1", "acme/ana/work", "acme/*", "*/ana/plan")
CASCADES = {"forget", "retract", "undo", "revoke"}
"""What is done to a memory is done to what was made of it, wherever in the same user's memory it lies (docs/access.md)."""


@dataclass(frozen=True)
class Given:
    """A grant, as this test gave it."""

    who: str
    place: str
    rights: frozenset[Right]
    kinds: frozenset[str]
    id: str

    def covers(self, scope: Scope) -> bool:
        want = (*self.place.split("/"), "*", "*")[:4]
        return all(part in ("*", have) for part, have in zip(want, scope.parts, strict=True))


def may(given_: Iterable[Given], who: str, right: Right, cube: Cube) -> bool:
    def has(which: Right) -> bool:
        return any(
            one.who == who
            and which in one.rights
            and one.covers(cube.scope)
            and (not one.kinds or cube.kind in one.kinds)
            for one in given_
        )

    named = not cube.policy.readers or who in cube.policy.readers
    return has(right) and named and (cube.status is not Status.QUARANTINED or has(Right.JUDGE))


def told(value: Any, ids: bool = True) -> str:
    """Everything that somebody can read in a result; without ``ids``, not what names the sources of a memory."""
    if isinstance(value, BaseException):
        return f"{value} {value.args!r}"
    if isinstance(value, Hits):
        return " ".join((*(told(one, ids) for one in value), value.reason, *value.degraded))
    if isinstance(value, Origin):
        return told((value.author, value.reference, value.taint), ids)
    if is_dataclass(value) and not isinstance(value, type):
        return " ".join(told(getattr(value, one.name), ids) for one in fields(value) if not one.name.startswith("_"))
    if isinstance(value, dict):
        return " ".join(told(one, ids) for pair in value.items() for one in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return " ".join(told(one, ids) for one in value)
    return "" if isinstance(value, bytes) else str(value)
