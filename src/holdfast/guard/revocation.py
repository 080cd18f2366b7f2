"""Taking a source's word back: all it said, and what was made of it, out of recall in one step that can itself be undone.

``forget`` erases for good; a revocation keeps everything in history. What was made of the source alone is archived with it.
What was made of other sources too may still be right: it waits in quarantine for somebody to look at it. Lineage says what was made
of a memory; what an agent wrote after it had read a page that is no memory is known by its taint.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

from holdfast.cube import RECALLABLE, Cube, Form, Scope, Status
from holdfast.errors import InputError, IntegrityError, NotFoundError
from holdfast.guard.governor import Purpose, certificates
from holdfast.manage.retraction import consequences
from holdfast.store.base import Op, Operation, Store, Where
from holdfast.store.forms import Step, holders_of
from holdfast.store.sql import SqlStore
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    evolution=(Evolution.UPDATE_EXTERNAL,),
    subject=(Subject.USER, Subject.WORLD),
)


@dataclass(frozen=True, slots=True)
class Revocation:
    """What a revocation took out of recall, or would take (``planned``).

    ``said``: the source's own memories; ``derived``: what was made of them alone; ``doubted``: what other sources had a part
    in too, now in quarantine; ``reopened``: what the source had ended or outdated, and holds again; ``diff``: a line each.
    ``seq``: the event by which ``undo`` brings all of it back. ``forms``: what each holder of another form serves no more.
    """

    scope: Scope
    said: tuple[str, ...]
    derived: tuple[str, ...]
    doubted: tuple[str, ...]
    reopened: tuple[str, ...]
    diff: tuple[str, ...]
    seq: int = 0
    planned: bool = False
    forms: tuple[Step, ...] = ()
    _store: SqlStore | None = field(default=None, repr=False, compare=False)

    def verify(self) -> Revocation:
        """Look whether anything of it can be recalled, or is served in another form; return self. Raises IntegrityError."""
        if self._store is None:
            raise InputError("nothing was revoked yet: this is the plan of a dry run")
        home = Scope(self.scope.tenant, self.scope.user)
        gone = (*self.said, *self.derived, *self.doubted)
        found = [f"{step.holder}: {step.error}" for step in self.forms if step.error]
        for id in gone:
            try:
                cube = self._store.get(id, home)
            except NotFoundError:  # forgotten since
                continue
            if cube.status in RECALLABLE:
                found.append(f"memory {id} is {cube.status}")
        found += self._store.forms.served(gone)
        if found:
            raise IntegrityError("not everything is out of recall: " + "; ".join(found))
        return self

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
            "forms": [step.to_dict() for step in self.forms],
        }


def revoke(
    store: SqlStore,
    scope: Scope,
    where: Where,
    *,
    reason: str = "",
    actor: str = "",
    dry_run: bool = False,
    judged: Callable[[Cube], bool] = lambda _: True,
    shown: Callable[[Cube], bool] = lambda _: True,
) -> Revocation:
    """Take everything in a scope that passes a filter out of recall, with what was made of it. ``dry_run`` only says what.

    ``judged``: what the caller may judge; what was made of it follows, wherever it lies. ``shown``: what it may read; ``diff``
    holds the words of nothing else. Raises InputError for a filter that names nothing.
    """
    if where == Where():
        raise InputError("revoke what? Give source=, author=, since= or until=")
    home = Scope(scope.tenant, scope.user)
    found = [cube for cube in store.select(scope, where) if cube.status in RECALLABLE and judged(cube)]
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
    operations += put_back(store, home, {some.cube.id for some in operations if some.cube is not None})
    derived = [cube.id for cube in alone]
    derived += [some.cube.id for some in follow if some.op is Op.DELETE and some.cube is not None]
    updates = [some.cube for some in operations if some.op is Op.UPDATE and some.cube is not None]
    doubted = [cube.id for cube in updates if cube.status is Status.QUARANTINED]
    reopened = [cube.id for cube in updates if cube.status is not Status.QUARANTINED]
    diff = tuple(
        f"{_MARKS[group]} {some.cube.kind} {some.cube.id}: {some.cube.text[:100]}"
        for group, ids in (("said", said), ("derived", derived), ("doubted", doubted), ("reopened", reopened))
        for some in operations
        if some.cube is not None and some.cube.id in set(ids) and shown(some.cube)
    )
    groups = tuple(said), tuple(derived), tuple(doubted), tuple(reopened)
    taken = {*said, *derived, *doubted}
    if dry_run:
        return Revocation(scope, *groups, diff, planned=True, forms=tuple(store.forms.plan(taken)))
    seq = store.commit(operations, actor=actor).seq
    named = holders_of(some.cube for some in operations if some.cube is not None and some.cube.id in taken)
    return Revocation(scope, *groups, diff, seq=seq, forms=tuple(store.forms.outdate(taken, named)), _store=store)


def put_back(store: Store, scope: Scope, without: Collection[str] = ()) -> list[Operation]:
    """The operations that return to quarantine what came out by rule on the word of what is gone; ``without`` some memories."""
    home = Scope(scope.tenant, scope.user)
    if not certificates(store, home, Purpose.RELEASE):
        return []
    from holdfast.guard.release import unsupported  # the grammars that it reads claims by take a second to compile

    return unsupported(store, home, without)


def _named(store: SqlStore, home: Scope, where: Where, found: list[Cube]) -> tuple[list[Cube], list[str]]:
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
