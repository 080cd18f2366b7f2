"""Tensor files as rows of the database, beside the memories that name them; the same holder as ``blobs``.

A reader that maps a file into memory is given a copy in a folder of this process's own, which goes with it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from holdfast.cube import Cube, Scope
from holdfast.errors import ConflictError, IntegrityError, StoreError
from holdfast.store.blobs import OWED, Blobs, check_file, home
from holdfast.store.engine import WHOLE, Database, Engine
from holdfast.store.forms import Kept


class StoredFiles(Blobs):
    """The tensor files of one store, as rows (tenant, the user's folder, name)."""

    def __init__(self, connections: Engine, clock: Callable[[], datetime]) -> None:
        self._copies: tempfile.TemporaryDirectory[str] | None = None
        super().__init__(Path(), connections, clock, durability="normal")

    def put(self, data: bytes, scope: Scope) -> str:
        """Keep a file for a tenant's user and return its name, for ``Cube.blob``: add the cube next. Raises InputError."""
        check_file(data)
        name = hashlib.sha256(data).hexdigest()
        with self._connections.writing(scope.tenant, alone=False) as connection:
            where = home(scope.partition), name
            connection.execute(
                "UPDATE files SET data = ?3 WHERE home = ?1 AND name = ?2 AND data <> ?3", (*where, data)
            )
            connection.execute(
                "INSERT INTO files (home, name, data) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (*where, data)
            )
        return name

    def read(self, cube: Cube) -> bytes:
        """The file that a cube names. Raises InputError where it names none, StoreError and IntegrityError."""
        self._file_of(cube)
        data = self.named(cube.blob or "", cube.scope)
        if hashlib.sha256(data).hexdigest() != cube.blob:
            raise IntegrityError(f"the tensor file of memory {cube.id} is damaged; see: holdfast doctor")
        return data

    def named(self, name: str, scope: Scope) -> bytes:
        """The file of a name, unchecked. Raises StoreError where it is not there."""
        with self._connections.reading(scope.tenant) as connection:
            query = "SELECT data FROM files WHERE home = ? AND name = ?"
            found = connection.execute(query, (home(scope.partition), name)).fetchone()
        if found is None:
            raise StoreError(f"the tensor file {name[:12]}... is not in the database; see: holdfast doctor")
        data: bytes = found[0]
        return data

    def whole(self, cube: Cube) -> Path:
        """A copy of the file that a cube names, for as long as the store is open. Raises as ``read`` does."""
        data, file = self.read(cube), self._file_of(cube)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_bytes(data)
        partial.replace(file)
        return file

    def require(self, cube: Cube) -> None:
        """Raise ConflictError where a cube names a file that is not there. To be asked in the transaction that adds it."""
        if cube.blob is None:
            return
        self._file_of(cube)
        with self._connections.reading(cube.scope.tenant) as connection:
            query = "SELECT 1 FROM files WHERE home = ? AND name = ?"
            if connection.execute(query, (home(cube.scope.partition), cube.blob)).fetchone() is None:
                raise ConflictError(
                    f"the tensor file {cube.blob[:12]}... of memory {cube.id} is not in this store; put it there first"
                )

    def left(self, kept: Sequence[Kept]) -> list[str]:
        """The files that are still there though no memory names them."""
        names = {one.name for one in kept}
        stray = names & set(self.strays()[1]) if names else set()
        return [f"the tensor file {name} is still there" for name in sorted(stray)]

    def strays(self) -> tuple[list[str], list[str], list[str]]:
        """(files still owed, files that belong to nothing, files that a memory names and that are missing or damaged)."""
        owed: set[str] = set()
        stray: set[str] = set()
        bad: set[str] = set()
        for tenant in self._connections.chains():
            with self._connections.reading(tenant) as connection:
                due, named = set(self._owed(connection)), self._named(connection)
                query = "SELECT home, name, encode(sha256(data), 'hex') FROM files"
                files = {f"{folder}/{name}": name == hash for folder, name, hash in connection.execute(query)}
            owed |= due
            stray |= files.keys() - named - due
            bad |= (named - files.keys()) | {name for name in named & files.keys() if not files[name]}
        return sorted(owed), sorted(stray), sorted(bad)

    def mend(self) -> int:
        """Delete every file that belongs to nothing; return how many."""
        done = 0
        for tenant in self._connections.chains():
            with self._connections.writing(tenant) as connection:
                before = self._count(connection)
                self._delete(connection)
                named = self._named(connection)
                there = connection.execute("SELECT home, name FROM files").fetchall()
                self._remove(connection, {f"{folder}/{name}" for folder, name in there} - named)
                done += before - self._count(connection)
        return done

    def settle(self, tenant: str = WHOLE) -> set[str]:
        """Delete the files that are owed, also after a crash; return the names of those that stay, because a memory names them."""
        with self._connections.reading(tenant) as connection:
            query = "SELECT DISTINCT tenant FROM meta WHERE key >= ? AND key < ?"
            owing = [tenant for (tenant,) in connection.execute(query, (OWED, OWED[:-1] + ";"))]
        stay: set[str] = set()
        for tenant in owing:
            with self._connections.writing(tenant) as connection:
                stay |= self._delete(connection)
        return stay

    # --- inside ---

    def file(self, name: str, scope: Scope) -> Path:
        """Where a copy of a file lies, once ``whole`` has made it. Raises InputError for what is no name."""
        if self._copies is None:
            self._copies = tempfile.TemporaryDirectory(prefix="holdfast-")
            self.folder = Path(self._copies.name)
        return super().file(name, scope)

    def _delete(self, connection: Database) -> set[str]:
        owed = set(self._owed(connection))
        stay = owed & self._named(connection) if owed else set()
        self._remove(connection, owed - stay)
        connection.executemany("DELETE FROM meta WHERE key = ?", [(OWED + name,) for name in owed])
        return stay

    def _remove(self, connection: Database, names: set[str]) -> None:
        if self._copies is not None:
            for name in names:
                self._path(name).unlink(missing_ok=True)
        gone = [tuple(name.split("/")) for name in sorted(names)]
        connection.executemany("DELETE FROM files WHERE home = ? AND name = ?", gone)

    @staticmethod
    def _count(connection: Database) -> int:
        return int(connection.execute("SELECT count(*) FROM files").fetchone()[0])
