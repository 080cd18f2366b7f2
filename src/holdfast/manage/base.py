"""The manager's seam: how cubes change over time."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from holdfast.cube import Scope
from holdfast.store.base import Operation, Store


class Manager(Protocol):
    """Looks at a scope and proposes changes. A proposal is applied through the journal, so it can be shown and undone."""

    def manage(self, store: Store, scope: Scope, now: datetime) -> list[Operation]:
        """The changes this manager proposes for the scope at that time; it changes nothing itself."""
        ...
