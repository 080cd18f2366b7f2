"""Erasing for good: what is derived from a memory goes with it, and a receipt proves it.

A receipt lists what went and checks afterwards that nothing of it is left: no row, no fold, and no byte of the text in any
file of the store's folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.cube import Cube, Scope
from holdfast.errors import InputError, IntegrityError
from holdfast.store.base import Where
from holdfast.store.sqlite import SqliteStore, pack

_NEEDLE = 48  # bytes of a text that are searched for; short enough to be cheap, long enough to be its own
_SHORTEST = 12  # a shorter text may stand elsewhere by chance, so finding it would prove nothing


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a ``forget`` erased, or would erase (``planned``). ``derived`` are those that went because a source did."""

    scope: Scope
    ids: tuple[str, ...]
    derived: tuple[str, ...]
    reason: str
    seq: int = 0
    planned: bool = False
    notes: tuple[str, ...] = ()
    preview: tuple[str, ...] = ()
    _store: SqliteStore | None = field(default=None, repr=False, compare=False)
    _needles: tuple[bytes, ...] = field(default=(), repr=False, compare=False)

    def verify(self) -> Receipt:
        """Look for anything that should be gone; return self. Raises IntegrityError that says where something was found."""
        if self._store is None:
            raise InputError("only the receipt that forget returned can verify; this one was read back")
        if self.planned:
            raise InputError("nothing was erased yet: this is the plan of a dry run")
        found = [*_rows_left(self._store, self.ids), *_bytes_left(self._store, self._needles)]
        if found:
            raise IntegrityError("not everything is gone: " + "; ".join(found))
        return self

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
    named = list(ids)
    if where is not None:
        named += [cube.id for cube in store.select(scope, where)]
    named = list(dict.fromkeys(named))
    for id in named:
        store.get(id, scope)
    home = Scope(scope.tenant, scope.user)  # what was derived may lie in another session of the same user
    doomed = store.derived(named, home)
    versions = [row.cube for id in doomed for row in store.versions(id, home)]
    preview = tuple(f"{cube.kind} {cube.id}: {cube.text[:100]}" for cube in versions)
    derived = tuple(id for id in doomed if id not in set(named))
    if dry_run or not doomed:
        return Receipt(scope, tuple(doomed), derived, reason, planned=True, preview=preview)
    needles = tuple(dict.fromkeys(needle for cube in versions for needle in _needles(cube)))
    notes = []
    done = store.purge(list(reversed(doomed)), home, actor=actor, reason=reason)
    for copy in sorted((store.folder / "backups").glob("*.db")):
        copy.unlink()
        notes.append(f"the backup {copy.name} held it too and was removed")
    return Receipt(
        scope, tuple(doomed), derived, reason, seq=done.seq, notes=tuple(notes), _store=store, _needles=needles
    )


def _needles(cube: Cube) -> list[bytes]:
    """A slice of the text as it lies in the file, between characters that JSON would escape."""
    body = pack(cube).encode()
    texts = []
    for piece in cube.text.replace("\\", "\n").replace('"', "\n").splitlines():
        encoded = piece.strip().encode("utf-8", "replace")
        if len(encoded) >= _SHORTEST and encoded in body:
            texts.append(encoded)
    texts.sort(key=len, reverse=True)
    return [text[:_NEEDLE] for text in texts[:1]]


def _rows_left(store: SqliteStore, ids: Sequence[str]) -> list[str]:
    left = store.leftovers(ids)
    return [f"{count} rows of {table}" for table, count in left.items() if count]


def _bytes_left(store: SqliteStore, needles: Sequence[bytes]) -> list[str]:
    own = [needle for needle in needles if not store.holds_text(needle.decode("utf-8", "replace"))]
    store.fold_log()
    found = []
    for file in sorted(path for path in store.folder.rglob("*") if path.is_file()):
        data = _read(file)
        found += [
            f"{file.name} still holds {needle[:12].decode('utf-8', 'replace')!r}..." for needle in own if needle in data
        ]
    return found


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:  # a log that another process just folded in
        return b""
