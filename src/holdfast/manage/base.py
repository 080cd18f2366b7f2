"""The manager's seam: how cubes change over time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from holdfast.cube import Cube, Scope, Status
from holdfast.encode.records import MAKER
from holdfast.store.base import Operation, Store, Where

OPEN = (Status.GENERATED, Status.ACTIVATED)
"""What a manager may change of a recipe's records."""


class Manager(Protocol):
    """Looks at a scope and proposes changes. A proposal is applied through the journal, so it can be shown and undone."""

    def manage(self, store: Store, scope: Scope, now: datetime) -> list[Operation]:
        """The changes this manager proposes for the scope at that time; it changes nothing itself."""
        ...


def tended(store: Store, scope: Scope, kinds: Sequence[str], changed: Sequence[Cube] | None = None) -> list[Cube]:
    """The records of some kinds that parts of a recipe have made and a manager may change: of those that ``changed``, or of all."""
    found = store.select(scope, Where(kinds=tuple(kinds), statuses=OPEN)) if changed is None else changed
    return [cube for cube in found if MAKER in cube.data and cube.kind in kinds and cube.status in OPEN]
