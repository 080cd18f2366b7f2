"""The state of one run as cubes of the one store: what belongs together is written together, or not at all.

A model's reply, the files that it changed and the results that it will read are one transaction. So a run that dies between any two
messages is, when it is opened again, exactly where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from holdfast.cube import Channel, Cube, Origin, Ref, Scope, Status
from holdfast.errors import ConflictError, InputError
from holdfast.store.base import Operation, Where
from holdfast.store.sql import SqlStore

PROFILE = ()  # where working memory is written down, and no memory of its own

ACTOR = "control"


class Ledger:
    """The cubes of one run. One process at a time may write: a second one that does gets a ConflictError.

    Args:
        store: where they live; that of a ``Memory`` will do.
        scope: the run's own; its session names the run. Raises InputError without one.

    ``source``: what all cubes are made from, and forgotten with; it is set when the run is opened.
    """

    def __init__(self, store: SqlStore, scope: Scope) -> None:
        if scope.session is None:
            raise InputError("a run needs a scope with a session of its own: its name, by which it is resumed")
        self.store = store
        self.scope = scope
        self.source: Ref | None = None
        self._kinds: dict[str, dict[str, Cube]] = {}
        self._waiting: list[Operation] | None = None

    def cubes(self, kind: str) -> list[Cube]:
        """All of a kind as they stand, in the order in which they were made."""
        return list(self._of(kind).values())

    def find(self, kind: str, data: Mapping[str, Any]) -> list[Cube]:
        """Those of a kind whose data say so, read from the store and not kept in memory."""
        return sorted(self.store.select(self.scope, Where(kinds=(kind,), data=data)), key=lambda cube: cube.id)

    def make(
        self,
        kind: str,
        text: str,
        data: Mapping[str, Any],
        *,
        channel: Channel = Channel.ASSISTANT,
    ) -> Cube:
        """A new cube."""
        cube = self._made(kind, text, data, channel, Status.GENERATED)
        self._put(Operation.add(cube))
        return cube

    def record(self, kind: str, text: str, data: Mapping[str, Any]) -> None:
        """Write down what only ``find`` will look for: history, in no search, and not kept in memory."""
        operation = Operation.add(self._made(kind, text, data, Channel.ASSISTANT, Status.ARCHIVED))
        if self._waiting is None:
            self._commit([operation])
        else:
            self._waiting.append(operation)

    def change(self, cube: Cube, **fields: Any) -> Cube:
        """A next version with some fields changed."""
        new = cube.with_(**fields)
        self._put(Operation.update(new))
        return self._of(cube.kind)[cube.id]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Everything written inside is one transaction; where it ends in an error, nothing of it is written or kept."""
        if self._waiting is not None:
            yield
            return
        self._waiting = []
        before = {kind: dict(held) for kind, held in self._kinds.items()}
        try:
            yield
            waiting, self._waiting = self._waiting, None
            if waiting:
                self._commit(waiting)
        except BaseException:
            self._kinds = before
            raise
        finally:
            self._waiting = None

    def _made(self, kind: str, text: str, data: Mapping[str, Any], channel: Channel, status: Status) -> Cube:
        origin = Origin(channel, author=ACTOR, derived_from=() if self.source is None else (self.source,))
        return Cube(self.scope, text, kind, data=data, origin=origin, status=status)

    def _of(self, kind: str) -> dict[str, Cube]:
        if kind not in self._kinds:
            self._kinds[kind] = {cube.id: cube for cube in self.find(kind, {})}
        return self._kinds[kind]

    def _put(self, operation: Operation) -> None:
        cube = operation.cube
        assert cube is not None
        if self._waiting is None:
            self._commit([operation])
            return
        self._waiting.append(operation)
        known = cube.id in self._of(cube.kind)
        self._of(cube.kind)[cube.id] = replace(cube, version=cube.version + 1) if known else cube

    def _commit(self, operations: list[Operation]) -> None:
        done = self.store.commit(operations, actor=ACTOR)
        if done.duplicates:
            raise ConflictError("another process writes to this run; let one of the two end, and resume it then")
        for cube in done.cubes:
            if cube.kind in self._kinds:
                self._kinds[cube.kind][cube.id] = cube
