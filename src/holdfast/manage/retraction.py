"""What taking a memory back entails: what was drawn from it goes with it, and what that had ended is true again.

Truth maintenance in the sense of Doyle (1979): a derived memory stands as long as one of its sources stands.
"""

from __future__ import annotations

from collections.abc import Collection

from holdfast.cube import RECALLABLE, Cube, Scope
from holdfast.errors import NotFoundError
from holdfast.retrieve.context import SUPERSEDED
from holdfast.store.base import Operation, Store, Where

ENDED_BY = "ended_by"
"""In a closed claim's ``data``: the id of the claim that ended it."""


def consequences(store: Store, ids: Collection[str], scope: Scope) -> list[Operation]:
    """The operations that complete the retraction of some memories, sources before what was made of them.

    A derived memory is retracted when all of its sources are; a claim that it had ended is reopened, and the turn that had
    stated that claim is no longer outdated.
    """
    gone = set(ids)
    operations: list[Operation] = []
    for id in ids:
        for ref in store.lineage(id, scope):
            cube = store.get(ref.id, scope)
            if cube.id in gone or cube.status not in RECALLABLE:
                continue
            if all(parent.id in gone or not _stands(store, parent.id, scope) for parent in cube.origin.derived_from):
                gone.add(cube.id)
                operations.append(Operation.delete(cube, f"its source {id} was taken back"))
    for id in gone:
        for closed in store.select(scope, Where(data={ENDED_BY: id})):
            if closed.id not in gone:
                operations += _reopened(store, closed, scope, id)
    return operations


def _reopened(store: Store, closed: Cube, scope: Scope, by: str) -> list[Operation]:
    reason = f"what ended it, {by}, was taken back"
    operations = [Operation.update(closed.with_(valid_to=None, data=_without(closed, ENDED_BY)), reason)]
    for ref in closed.origin.derived_from:
        if _stands(store, ref.id, scope):
            turn = store.get(ref.id, scope)
            if SUPERSEDED in turn.data:
                operations.append(Operation.update(turn.with_(data=_without(turn, SUPERSEDED)), reason))
    return operations


def _without(cube: Cube, key: str) -> dict[str, object]:
    return {name: value for name, value in cube.data.items() if name != key}


def _stands(store: Store, id: str, scope: Scope) -> bool:
    try:
        return store.get(id, scope).status in RECALLABLE
    except NotFoundError:  # erased
        return False
