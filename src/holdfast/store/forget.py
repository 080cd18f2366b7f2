"""Erasing for good: what is derived from a memory goes with it, and a receipt proves it.

A receipt lists what went and checks afterwards that nothing of it is left: no row, no fold, no job, in no file of the store's
folder the text or the random salt that lay beside it in its row, and with nobody who keeps memories in another form (``forms``)
what was made of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from time import sleep
from typing import Any

from holdfast.cube import Cube, Scope
from holdfast.errors import InputError, IntegrityError, StoreError
from holdfast.store.base import Where
from holdfast.store.forms import Step, holders_of
from holdfast.store.grants import Right
from holdfast.store.rows import written
from holdfast.store.sql import SqlStore

_SLICE = 48  # characters of a text that are searched for; short enough to be cheap, long enough to be its own
_SHORTEST = 12  # a shorter text may stand elsewhere by chance, so finding it would prove nothing; its row has a salt
_PAUSES = (0.1, 0.3, 0.9)  # seconds before looking again: another program may be erasing the same words at this moment


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a ``forget`` erased, or would erase (``planned``). ``derived`` are those that went because a source did.

    ``forms``: what each holder of another form dropped, or would drop, and what went wrong with it.
    """

    scope: Scope
    ids: tuple[str, ...]
    derived: tuple[str, ...]
    reason: str
    seq: int = 0
    planned: bool = False
    notes: tuple[str, ...] = ()
    preview: tuple[str, ...] = ()
    forms: tuple[Step, ...] = ()
    _store: SqlStore | None = field(default=None, repr=False, compare=False)
    _salts: tuple[bytes, ...] = field(default=(), repr=False, compare=False)
    _slices: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def verify(self) -> Receipt:
        """Look for anything that should be gone; return self. Raises IntegrityError that says where something was found."""
        if self.planned:
            raise InputError("nothing was erased yet: this is the plan of a dry run")
        if self._store is None:
            raise InputError("only the receipt that forget returned can verify; this one was read back")
        for pause in (*_PAUSES, 0.0):
            left = [
                *_rows_left(self._store, self.ids, self.scope),
                *self._store.forms.left(self.forms, self.ids),
                *self._store.traces(self._salts, [some.encode() for some in self._slices]),
            ]
            if not left:
                return self
            sleep(pause)
        raise IntegrityError("not everything is gone: " + "; ".join(left))

    def retry(self) -> Receipt:
        """Ask the holders that failed, or had not joined, once more; a receipt of what came of it."""
        if self._store is None:
            raise InputError("only the receipt that forget returned can be tried again; this one was read back")
        failed = {step.holder for step in self.forms if step.error}
        again = {step.holder: step for step in self._store.forms.drop(self.ids, failed)}
        steps = []
        for step in self.forms:
            if step.error:
                new = again.get(step.holder, Step(step.holder))
                # What it failed to drop before is looked for too, whatever its books say now.
                things = tuple(dict.fromkeys((*step.things, *new.things)))
                step = replace(new, things=things)
            steps.append(step)
        return replace(self, forms=tuple(steps))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; holds ids and counts, never a word of what was forgotten."""
        return {
            "scope": self.scope.path,
            "erased": list(self.ids),
            "derived": list(self.derived),
            "reason": self.reason,
            "seq": self.seq,
            "planned": self.planned,
            "notes": list(self.notes),
            "forms": [step.to_dict() for step in self.forms],
        }


def forget(
    store: SqlStore,
    scope: Scope,
    *,
    ids: Iterable[str] = (),
    where: Where | None = None,
    reason: str = "",
    actor: str = "",
    dry_run: bool = False,
) -> Receipt:
    """Erase memories and everything derived from them. ``dry_run`` only says what would go.

    Raises NotFoundError for an id that the scope does not hold; nothing is erased then.
    """
    named = list(dict.fromkeys(ids))
    home = Scope(scope.tenant, scope.user)  # what was derived may lie in another session of the same user
    if dry_run:
        if where is not None:
            passing = store.select(scope, where, right=Right.ERASE)
            named = list(dict.fromkeys([*named, *(cube.id for cube in passing)]))
        doomed = store.derived(named, scope)
        versions = [row.cube for id in doomed for row in store.owner.versions(id, home)]
        derived = tuple(doomed[len(named) :])
        steps = tuple(store.forms.plan(doomed))
        return Receipt(
            scope, tuple(doomed), derived, reason, planned=True, preview=_shown(store, versions), forms=steps
        )
    erased = store.purge(named, scope, where=where, actor=actor, reason=reason)
    ids = tuple(dict.fromkeys(cube.id for cube in erased.versions))
    # After the rows: from now on the journal says that this is to be done, whatever happens to this program.
    told = tuple(store.forms.drop(ids, holders_of(erased.versions)))
    notes = []
    try:
        store.blobs.settle(scope.tenant)
    except StoreError as error:
        notes.append(
            f"tensor files of what was forgotten could not be deleted ({error}); try: holdfast doctor --repair"
        )
    if ids:
        notes += store.owner.scrub(erased.salts)
    return Receipt(
        scope,
        ids,
        ids[len(erased.named) :],
        reason,
        seq=erased.seq,
        notes=tuple(notes),
        preview=_shown(store, erased.versions),
        forms=told,
        _store=store.owner,
        _salts=erased.salts,
        _slices=tuple(dict.fromkeys(some for cube in erased.versions for some in _slices(cube.text))),
    )


def _shown(store: SqlStore, versions: Sequence[Cube]) -> tuple[str, ...]:
    """A line for each version that the caller may read; of what is hidden now, none."""
    newest = {cube.id: cube for cube in versions}  # they come in order
    return tuple(
        f"{cube.kind} {cube.id}: {cube.text[:100]}"
        for cube in versions
        if store.sees(cube) and store.sees(newest[cube.id])
    )


def _slices(text: str) -> list[str]:
    """The two ends of a text as it lies in the file, in JSON: one of them is whole even where the other is cut by a page."""
    escaped = written(text)
    return [escaped[:_SLICE], escaped[-_SLICE:]] if len(escaped) >= _SHORTEST else []


def _rows_left(store: SqlStore, ids: Sequence[str], scope: Scope) -> list[str]:
    left = store.leftovers(ids, scope)
    return [f"{count} rows of {table}" for table, count in left.items() if count]
