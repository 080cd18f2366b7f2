"""A store for tests of managers: the protocol over a dict, without a journal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from holdfast.cube import Cube, Ref, Scope
from holdfast.errors import NotFoundError
from holdfast.store.base import Commit, Event, Op, Operation, Where

EVERYTHING = Where()


class Shelf:
    """The least store that a manager needs: current cubes, filtered by kind and status."""

    def __init__(self, *cubes: Cube) -> None:
        self.cubes = {cube.id: cube for cube in cubes}

    def commit(self, operations: Sequence[Operation], *, actor: str = "") -> Commit:
        for operation in operations:
            assert operation.cube is not None and operation.op is Op.UPDATE
            assert self.cubes[operation.cube.id].version == operation.cube.version
            self.cubes[operation.cube.id] = operation.cube.with_(version=operation.cube.version + 1)
        return Commit(len(operations))

    def get(self, id: str, scope: Scope, *, version: int | None = None) -> Cube:
        cube = self.cubes.get(id)
        if cube is None or not scope.covers(cube.scope):
            raise NotFoundError(f"no memory {id}")
        return cube

    def select(self, scope: Scope, where: Where = EVERYTHING) -> Iterator[Cube]:
        for cube in list(self.cubes.values()):
            if (
                scope.covers(cube.scope)
                and (not where.kinds or cube.kind in where.kinds)
                and (not where.statuses or cube.status in where.statuses)
            ):
                yield cube

    def events(self, since: int = 0, *, scope: Scope | None = None, id: str | None = None) -> Iterator[Event]:
        raise NotImplementedError

    def lineage(self, id: str, scope: Scope, *, down: bool = True) -> list[Ref]:
        raise NotImplementedError
