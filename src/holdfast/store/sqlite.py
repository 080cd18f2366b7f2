"""The embedded store: one SQLite file in WAL mode, through the standard library."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast.cube import Cube
from holdfast.errors import InputError, StoreError
from holdfast.store import schema
from holdfast.store.blobs import Blobs
from holdfast.store.connection import Connections, translated
from holdfast.store.queue import Clock
from holdfast.store.sql import Changes, Erased, SqlStore, present
from holdfast.store.traces import Sought, found

__all__ = ["Changes", "Erased", "SqliteStore"]

FOLD_SECONDS = 5.0
"""How long an erasure waits for readers of the write-ahead log that it wants to cut."""


class SqliteStore(SqlStore):
    """Cubes in one SQLite file inside a folder. Safe for any number of threads and processes.

    Args:
        folder: created on first use; holds ``holdfast.db``, ``blobs/``, ``backups/``.
        terms, tasks, clock: as in ``SqlStore``.
        durability: "full" survives power loss, "normal" only the death of the process.
    """

    connections: Connections

    def __init__(
        self,
        folder: str | Path,
        *,
        terms: Callable[[Cube], bytes] | None = None,
        tasks: Sequence[str] = (),
        clock: Clock | None = None,
        durability: str = "full",
    ) -> None:
        if durability not in ("full", "normal"):
            raise InputError(f"durability must be 'full' or 'normal', not {durability!r}")
        self.folder = Path(folder)
        file = self.folder / "holdfast.db"
        with translated(file):
            if self.folder.exists() and not self.folder.is_dir():
                raise StoreError(f"{self.folder} is a file; a store is a folder, give another path")
            self.folder.mkdir(parents=True, exist_ok=True)
        connections = Connections(file, durability=durability)
        try:
            with translated(file):
                schema.migrate(connections.writer, self.folder)
        except BaseException:
            connections.close()
            raise
        clock = clock or present
        blobs = Blobs(self.folder / "blobs", connections, clock, durability)
        super().__init__(connections, blobs, name=str(self.folder), terms=terms, tasks=tasks, clock=clock)

    def scrub(self, salts: Sequence[bytes]) -> list[str]:
        """Take away the copies of rows that SQLite leaves in its log, in the gaps of pages that it has split, and in backups."""
        notes = []
        for copy in sorted((self.folder / "backups").glob("*")):
            copy.unlink()
            notes.append(f"the backup {copy.name} held it too and was removed")
        try:
            self.fold_log()
            with self.connections.away():
                left = found(self.folder, salts)
            if left:
                self.compact()
        except StoreError as error:  # it is erased; only the bytes of before may still lie about
            notes.append(f"the files were not looked through ({error}); verify() says whether anything is left in them")
        return notes

    def traces(self, salts: Sequence[bytes], words: Sequence[bytes]) -> list[str]:
        """Which of the folder's files still hold a row's salt, or words that no other memory says."""
        self.fold_log()
        with self.connections.away():
            told = found(self.folder, [*salts, *words])
        left = [f"{file} still holds a row of it" for file in sorted({told[salt] for salt in salts if salt in told})]
        there = [text for text in words if text in told]
        if there:  # what another memory says as well may stay
            sought = Sought(there)
            said = {text for bodies in self.bodies() for text in sought.within(bodies.encode("utf-8", "replace"))}
            files = {told[text] for text in there if text not in said}
            left += [f"{file} still holds words of it" for file in sorted(files)]
        return left

    def fold_log(self) -> bool:
        """Fold the write-ahead log into the file and cut it to next to nothing: it still holds the pages of before.

        False where a reader still needs it for longer than FOLD_SECONDS. Nobody is kept waiting meanwhile.
        """
        ends = time.monotonic() + FOLD_SECONDS
        while not self.connections.cut_log():
            if time.monotonic() > ends:
                return False
            time.sleep(0.02)
        return True

    def compact(self) -> None:
        """Write the whole file anew, without the gaps, where SQLite leaves bytes of rows that it has moved."""
        with self.connections.lock, translated(self.connections.file):
            self.connections.writer.execute("VACUUM")
        self.fold_log()
