"""Erasing for good: what is derived from a memory goes with it, and a receipt proves it.

A receipt lists what went and checks afterwards that nothing of it is left: no row, no fold, no job, in no file of the store's
folder the text or the random salt that lay beside it in its row, and with nobody who keeps memories in another form (``forms``)
what was made of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.cube import Scope
from holdfast.errors import InputError, IntegrityError, StoreError
from holdfast.store.base import Where
from holdfast.store.forms import Step, holders_of
from holdfast.store.rows import written
from holdfast.store.sqlite import SqliteStore

_SLICE = 48  # characters of a text that are searched for; short enough to be cheap, long enough to be its own
_SHORTEST = 12  # a shorter text may stand elsewhere by chance, so finding it would prove nothing; its row has a salt
_PIECE = 1 << 24
_FEW = 16
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
    _store: SqliteStore | None = field(default=None, repr=False, compare=False)
    _salts: tuple[bytes, ...] = field(default=(), repr=False, compare=False)
    _slices: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def verify(self) -> Receipt:
        """Look for anything that should be gone; return self. Raises IntegrityError that says where something was found."""
        if self.planned:
            raise InputError("nothing was erased yet: this is the plan of a dry run")
        if self._store is None:
            raise InputError("only the receipt that forget returned can verify; this one was read back")
        for pause in (*_PAUSES, 0.0):
            found = [
                *_rows_left(self._store, self.ids),
                *self._store.forms.left(self.forms, self.ids),
                *_bytes_left(self._store, self._salts, self._slices),
            ]
            if not found:
                return self
            sleep(pause)
        raise IntegrityError("not everything is gone: " + "; ".join(found))

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
    store: SqliteStore,
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
            named = list(dict.fromkeys([*named, *(cube.id for cube in store.select(scope, where))]))
        doomed = store.derived(named, scope)
        preview = [f"{row.cube.kind} {id}: {row.cube.text[:100]}" for id in doomed for row in store.versions(id, home)]
        derived = tuple(doomed[len(named) :])
        steps = tuple(store.forms.plan(doomed))
        return Receipt(scope, tuple(doomed), derived, reason, planned=True, preview=tuple(preview), forms=steps)
    erased = store.purge(named, scope, where=where, actor=actor, reason=reason)
    ids = tuple(dict.fromkeys(cube.id for cube in erased.versions))
    # After the rows: from now on the journal says that this is to be done, whatever happens to this program.
    steps = store.forms.drop(ids, holders_of(erased.versions))
    notes = []
    try:
        store.blobs.settle()
    except StoreError as error:
        notes.append(f"tensor files of what was forgotten could not be deleted ({error}); try: holdfast doctor --repair")
    if ids:
        for copy in sorted((store.folder / "backups").glob("*")):
            copy.unlink()
            notes.append(f"the backup {copy.name} held it too and was removed")
        try:
            _scrub(store, erased.salts)
        except StoreError as error:  # it is erased; only the bytes of before may still lie about
            notes.append(f"the files were not looked through ({error}); verify() says whether anything is left in them")
    return Receipt(
        scope,
        ids,
        ids[len(erased.named) :],
        reason,
        seq=erased.seq,
        notes=tuple(notes),
        preview=tuple(f"{cube.kind} {cube.id}: {cube.text[:100]}" for cube in erased.versions),
        forms=tuple(steps),
        _store=store,
        _salts=erased.salts,
        _slices=tuple(dict.fromkeys(some for cube in erased.versions for some in _slices(cube.text))),
    )


def _scrub(store: SqliteStore, salts: Sequence[bytes]) -> None:
    """Take away the copies of rows that SQLite leaves in its log, and in the gaps of pages that it has split."""
    store.fold_log()
    with store.connections.away():
        traces = _found(store.folder, salts)
    if traces:
        store.compact()


def _slices(text: str) -> list[str]:
    """The two ends of a text as it lies in the file, in JSON: one of them is whole even where the other is cut by a page."""
    escaped = written(text)
    return [escaped[:_SLICE], escaped[-_SLICE:]] if len(escaped) >= _SHORTEST else []


def _rows_left(store: SqliteStore, ids: Sequence[str]) -> list[str]:
    left = store.leftovers(ids)
    return [f"{count} rows of {table}" for table, count in left.items() if count]


def _bytes_left(store: SqliteStore, salts: Sequence[bytes], slices: Sequence[str]) -> list[str]:
    store.fold_log()
    with store.connections.away():
        rows = _found(store.folder, salts)
        found = _found(store.folder, [some.encode() for some in slices])
    left = [f"{file} still holds a row of it" for file in sorted(set(rows.values()))]
    if found:  # what another memory says as well may stay
        said = {text for bodies in store.bodies() for text in _within(bodies.encode("utf-8", "replace"), list(found))}
        left += [
            f"{file} still holds {text[:12].decode(errors='replace')!r}..."
            for text, file in found.items()
            if text not in said
        ]
    return left


def _found(folder: Path, needles: Sequence[bytes]) -> dict[bytes, str]:
    """Which of some byte strings (8 bytes or longer) are anywhere in a folder's files, and the name of a file that holds it.

    To be called while the store's connections are ``away``.
    """
    found: dict[bytes, str] = {}
    if not needles:
        return found
    longest = max(map(len, needles))
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with suppress(FileNotFoundError), file.open("rb") as reading:  # a log that another process just folded in
            tail = b""
            while piece := reading.read(_PIECE):
                data = tail + piece
                found.update(dict.fromkeys(_within(data, needles), file.name))
                tail = data[-longest:]
    return found


def _within(data: bytes, needles: Sequence[bytes]) -> list[bytes]:
    if len(needles) <= _FEW:
        return [needle for needle in needles if needle in data]
    # Many at once: every window of 8 bytes is looked up in a table that has, of each needle, the window that fewest share.
    counts = Counter(needle[at : at + 8] for needle in needles for at in range(len(needle) - 7))
    keys: dict[int, list[tuple[bytes, int]]] = {}
    for needle in needles:
        at = min(range(len(needle) - 7), key=lambda at: counts[needle[at : at + 8]])
        keys.setdefault(int.from_bytes(needle[at : at + 8], "little"), []).append((needle, at))
    known = np.fromiter(keys, np.uint64, len(keys))
    table = np.zeros(1 << 16, np.bool_)
    table[_spread(known)] = True
    found = []
    for offset in range(min(8, len(data) - 7)):
        windows = np.frombuffer(data, "<u8", (len(data) - offset) // 8, offset)
        maybe = np.flatnonzero(table[_spread(windows)])
        for at in maybe[np.isin(windows[maybe], known)].tolist():
            start = offset + 8 * at
            found += [
                some
                for some, within in keys[int(windows[at])]
                if start >= within and data.startswith(some, start - within)
            ]
    return found


def _spread(windows: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return (windows * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(48)
