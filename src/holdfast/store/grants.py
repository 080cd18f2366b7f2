"""What a call may touch: rights, grants of them on scopes and kinds, and the reach of one call.

Every place where a store reads or changes a row asks a ``Reach``, and only a ``Gate`` makes one. The owner of a store, who has
its files, reaches whatever the scope holds; a principal what its grants cover besides (``store.access``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote

from holdfast.cube import Cube, Scope, Status

ANY = "*"
"""In place of a tenant's or a user's name: every one."""

PLACE = Scope("@holdfast", "access")
"""Where principals, grants and keys lie. No grant covers anything of its tenant."""


class Right(StrEnum):
    """What a grant allows: to read, to change, to judge what stands in quarantine and others' changes, to erase."""

    READ = "read"
    WRITE = "write"
    JUDGE = "judge"
    ERASE = "erase"


@dataclass(frozen=True, slots=True)
class Grant:
    """Rights of one principal on a place.

    ``tenant`` and ``user`` may be ``*``; an ``agent`` or ``session`` of None means all of them; no ``kinds`` means all.
    """

    id: str
    principal: str
    tenant: str
    user: str
    agent: str | None
    session: str | None
    rights: frozenset[Right]
    kinds: frozenset[str] = frozenset()

    @property
    def place(self) -> str:
        """The place as it is written: ``acme/*/planner``."""
        parts = [quote(part or ANY, safe="@:+ *") for part in (self.tenant, self.user, self.agent, self.session)]
        while len(parts) > 2 and parts[-1] == ANY:
            parts.pop()
        return "/".join(parts)

    def meets(self, scope: Scope) -> bool:
        """Whether anything in a scope could be covered."""
        return (
            scope.tenant != PLACE.tenant
            and self.tenant in (ANY, scope.tenant)
            and self.user in (ANY, scope.user)
            and (None in (self.agent, scope.agent) or self.agent == scope.agent)
            and (None in (self.session, scope.session) or self.session == scope.session)
        )

    def covers(self, scope: Scope, kind: str) -> bool:
        """Whether a memory of that kind, written in that scope, is covered."""
        return (
            scope.tenant != PLACE.tenant
            and self.tenant in (ANY, scope.tenant)
            and self.user in (ANY, scope.user)
            and self.agent in (None, scope.agent)
            and self.session in (None, scope.session)
            and (not self.kinds or kind in self.kinds)
        )


@dataclass(frozen=True, slots=True)
class Reach:
    """What one call may touch in a scope. ``grants``: those of the caller that meet the scope; None: the owner's call.

    ``scope`` is the one that was asked for, narrowed to the only agent or session that the grants name.
    """

    scope: Scope
    right: Right = Right.READ
    grants: tuple[Grant, ...] | None = None
    reader: str = ""

    def allows(self, cube: Cube) -> bool:
        """Whether the call may bring such a memory in."""
        return self.scope.covers(cube.scope) and self._granted(self.right, cube)

    def sees(self, cube: Cube) -> bool:
        """Whether the call may touch this memory. What stands in quarantine is for those who may judge it."""
        if not self.allows(cube):
            return False
        if self.grants is None:
            return True
        named = not cube.policy.readers or self.reader in cube.policy.readers
        return named and (cube.status is not Status.QUARANTINED or self._granted(Right.JUDGE, cube))

    def covers(self, scope: Scope, kind: str | None = None) -> bool:
        """Whether all that lies in a scope is within reach: all of one kind, or of any."""
        if self.grants is None:
            return True
        return any(
            self.right in grant.rights
            and (not grant.kinds or kind in grant.kinds)
            and grant.agent in (None, scope.agent)
            and grant.session in (None, scope.session)
            for grant in self.grants
        )

    @property
    def kinds(self) -> frozenset[str]:
        """The only kinds within reach; empty: all."""
        if self.grants is None:
            return frozenset()
        kinds = [grant.kinds for grant in self.grants if self.right in grant.rights]
        return frozenset().union(*kinds) if all(kinds) else frozenset()

    def _granted(self, right: Right, cube: Cube) -> bool:
        return self.grants is None or any(
            right in grant.rights and grant.covers(cube.scope, str(cube.kind)) for grant in self.grants
        )


class Gate:
    """Says what calls may touch: this one is the owner's, who may do everything that a scope allows."""

    name = ""
    """Who calls, where it is not the owner."""

    def reach(self, scope: Scope, right: Right = Right.READ) -> Reach:
        """The reach of a call in a scope. Raises AccessError where the caller has no such right there at all."""
        return Reach(scope, right)

    def incoming(self, cube: Cube) -> Cube:
        """A memory as it may come in. Raises AccessError."""
        return cube
