"""Taking a source's word back: all it said, and what was made of it, out of recall in one step that can itself be undone.

``forget`` erases for good; a revocation keeps everything in history. What was made of the source alone is archived with it.
What was made of other sources too may still be right: it waits in quarantine for somebody to look at it. Lineage says what was made
of a memory; what an agent wrote after it had read a page that is no memory is known by its taint.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from holdfast.cube import RECALLABLE, Cube, Scope, Status
from holdfast.errors import InputError
from holdfast.manage.retraction import consequences
from holdfast.store.base import Op, Operation, Where
from holdfast.store.sqlite import SqliteStore


@dataclass(frozen=True, slots=True)
class Revocation:
    """What a revocation took out of recall, or would take (``planned``).

    ``said``: the source's own memories; ``derived``: what was made of them alone; ``doubted``: what other sources had a part
    in too, now in quarantine; ``reopened``: what the source had ended or outdated, and holds again; ``diff``: a line each.
    ``seq``: the event by which ``undo`` brings all of it back.
    """

    scope: Scope
    said: tuple[str, ...]
    derived: tuple[str, ...]
    doubted: tuple[str, ...]
    reopened: tuple[str, ...]
    diff: tuple[str, ...]
    seq: int = 0
    planned: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "scope": self.scope.path,
            "said": list(self.said),
            "derived": list(self.derived),
            "doubted": list(self.doubted),
            "reopened": list(self.reopened),
            "seq": self.seq,
            "planned": self.planned,
        }


def revoke(
    store: SqliteStore, scope: Scope, where: Where, *, reason: str = "", actor: str = "", dry_run: bool = False
) -> Revocation:
    """Take everything in a scope that passes a filter out of recall, with what was made of it. ``dry_run`` only says what.

    Raises InputError for a filter that names nothing.
    """
    if where == Where():
        raise InputError("revoke what? Give source=, author=, since= or until=")
    home = Scope(scope.tenant, scope.user)
    found = [cube for cube in store.select(scope, where) if cube.status in RECALLABLE]
    alone, shared = _named(store, home, where, found)
    why = f"revoked: {reason}" if reason else "revoked"
    said, gone = [cube.id for cube in found], [cube.id for cube in (*found, *alone)]
    operations = [Operation.delete(cube, why) for cube in found]
    operations += [Operation.delete(cube, f"{why}; it was made of that alone") for cube in alone]
    follow = consequences(store, gone, home)
    operations += follow
    touched = {operation.cube.id for operation in operations if operation.cube is not None}
    for id in dict.fromkeys((*(store.derived(gone, home) if gone else ()), *shared)):
        if id in touched:
            continue
        cube = store.get(id, home)
        if cube.status in RECALLABLE:
            held = cube.with_(status=Status.QUARANTINED)
            operations.append(Operation.update(held, f"{why}; one of its sources was"))
    derived = [cube.id for cube in alone]
    derived += [some.cube.id for some in follow if some.op is Op.DELETE and some.cube is not None]
    updates = [some.cube for some in operations if some.op is Op.UPDATE and some.cube is not None]
    doubted = [cube.id for cube in updates if cube.status is Status.QUARANTINED]
    reopened = [cube.id for cube in updates if cube.status is not Status.QUARANTINED]
    diff = tuple(
        f"{_MARKS[group]} {some.cube.kind} {some.cube.id}: {some.cube.text[:100]}"
        for group, ids in (("said", said), ("derived", derived), ("doubted", doubted), ("reopened", reopened))
        for some in operations
        if some.cube is not None and some.cube.id in set(ids)
    )
    seq = 0 if dry_run else store.commit(operations, actor=actor).seq
    return Revocation(
        scope, tuple(said), tuple(derived), tuple(doubted), tuple(reopened), diff, seq=seq, planned=dry_run
    )


def _named(store: SqliteStore, home: Scope, where: Where, found: list[Cube]) -> tuple[list[Cube], list[str]]:
    """What else can be recalled and names the source in its taint: cubes that name nothing else, ids of those that do."""
    if where.source is None:
        return [], []
    known = {cube.id for cube in found}
    alone, shared = [], []
    for cube in store.select(home, replace(where, source=None)):
        labels = [label.partition(":")[2] == where.source for label in cube.origin.taint]
        if any(labels) and cube.status in RECALLABLE and cube.id not in known:
            if all(labels) and not cube.origin.derived_from:
                alone.append(cube)
            else:
                shared.append(cube.id)
    return alone, shared


_MARKS = {"said": "- said", "derived": "- derived", "doubted": "? doubted", "reopened": "+ holds again"}
