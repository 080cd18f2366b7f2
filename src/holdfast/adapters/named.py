"""Memories under names, one of a name in a scope: what a library calls a key of its store, or a file.

The name is the source of the memory (``Origin.reference``), so it is found by an index, and ``forget(source=...)`` reaches it.
Every change is a new version. Where two programs write one name at once, the first makes the memory and the other its next version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from holdfast.cube import RECALLABLE, Channel, Cube, Origin, Scope, Status
from holdfast.encode.near import named
from holdfast.encode.turns import TRUST
from holdfast.errors import ConflictError, GuardError, NotFoundError
from holdfast.guard.governor import Purpose
from holdfast.memory import Memory
from holdfast.store.base import Operation, Where

TRIES = 50
"""So often a change is made anew because another program was first."""

KEPT = (*sorted(RECALLABLE), Status.QUARANTINED)
"""What is read back by its name: also what the guard keeps out of recall, for whoever wrote it may read it."""


def joined(library: str, parts: Iterable[str]) -> str:
    """Parts of a name as one, so that no two lists of parts have the same."""
    return f"{library}:" + "/".join(quote(part, safe="", errors="surrogatepass") for part in parts)


class Named:
    """The memories of one kind that have names.

    ``erase``: what is dropped is forgotten for good; else it goes out of recall and stays in history, and ``undo`` brings it back.
    """

    def __init__(self, memory: Memory, kind: str, channel: Channel | str, *, erase: bool = False) -> None:
        self.memory, self.kind = memory, kind
        self._channel, self._erase = Channel(channel), erase

    def get(self, scope: Scope, name: str) -> Cube | None:
        """What has the name; None where nothing has."""
        return self._first(self.memory.store.select(scope, Where(kinds=(self.kind,), statuses=KEPT, source=name)))

    def all(self, scope: Scope) -> dict[str, Cube]:
        """Everything that has a name, by it, in the order in which it was made."""
        found: dict[str, list[Cube]] = {}
        for cube in self.memory.store.select(scope, Where(kinds=(self.kind,), statuses=KEPT)):
            found.setdefault(str(cube.origin.reference), []).append(cube)
        firsts = {name: first for name, cubes in found.items() if (first := self._first(cubes)) is not None}
        return dict(sorted(firsts.items(), key=lambda item: item[1].id))

    def _first(self, cubes: Iterable[Cube]) -> Cube | None:
        """Of several with one name, which two programs have made at once, the one that was committed first."""
        some = list(cubes)
        if len(some) < 2:
            return some[0] if some else None
        store = self.memory.store
        return min(some, key=lambda cube: next(store.events(0, scope=cube.scope, id=cube.id)).seq)

    def new(self, scope: Scope, name: str, text: str, taint: tuple[str, ...] = (), **fields: Any) -> Cube:
        """A cube for something that has no name yet."""
        origin = Origin(self._channel, scope.agent, name, TRUST[self._channel], taint=taint)
        data = {
            **fields.pop("data", {}),
            "turn": name,
        }  # else the same words under another name would be the same memory
        return Cube(scope, text, self.kind, data=data, origin=origin, **fields)

    def change(self, scope: Scope, name: str, make: Callable[[Cube | None], Cube | None]) -> Cube | None:
        """Replace what has a name by what ``make`` makes of it (None: leave it), in one step however many write.

        Raises GuardError where the guard refuses it, ConflictError where it is frozen, and what ``make`` raises.
        """
        trouble: Exception = ConflictError(f"{name} changes too often to be changed; try again")
        for _ in range(TRIES):
            before = self.get(scope, name)
            after = make(before)
            if after is None:
                return before
            operation = Operation.add(after) if before is None else Operation.update(after)
            purpose = Purpose.WRITE if before is None else Purpose.EDIT
            try:
                done = self.memory.apply([operation], actor=scope.path, change=purpose)
            except ConflictError as error:
                trouble = error
                continue
            if not done:
                if before is None and self.get(scope, name) is not None:
                    continue
                raise GuardError("nothing was kept: the guard refuses hidden characters and a forged fence of memories")
            first = self.get(scope, name)
            if before is None and first is not None and first.id != done[0].id:  # another program was first
                self.memory.retract(done[0].id, reason="written twice at once", **named(scope))
                continue
            return done[0]
        raise trouble

    def drop(self, scope: Scope, name: str) -> bool:
        """Take what has a name away; whether there was anything."""
        found = False
        while (cube := self.get(scope, name)) is not None:
            found = True
            try:
                if self._erase:
                    self.memory.forget(cube.id, **named(scope))
                else:
                    self.memory.retract(cube.id, reason="deleted", **named(scope))
            except NotFoundError:  # by another program, this moment
                continue
        return found
