"""Tensor files of cached state and weights: content-addressed safetensors, deleted with the last memory that names them.

A file is named by the SHA-256 of its bytes and lies in the folder of its tenant and user, so that nobody learns from a file's
presence what another one keeps. It is written before the cube that names it, and deleted after the row is gone: the purge
leaves a note in its own transaction, and the note goes in the transaction that deletes the file. So no crash leaves a file of a
forgotten memory unnoticed, and none takes a file that a memory still names.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from holdfast.cube import Cube, Ref, Scope
from holdfast.errors import ConflictError, InputError, IntegrityError
from holdfast.store.connection import translated
from holdfast.store.engine import WHOLE, Database, Engine
from holdfast.store.forms import Freshness, Kept
from holdfast.store.rows import UNREADABLE, id_bytes, id_text, note

NAME = "blobs"
"""What this holder is called in receipts."""

SUFFIX = ".safetensors"
OWED = "blob:"  # the key of a note in ``meta``: the file of a memory that was purged, until it is deleted
_LONGEST_HEADER = 100_000_000  # as the safetensors library has it
_MANY = 200
_PLACE = re.compile("[0-9a-f]{32}/[0-9a-f]{64}")
_NAMES = "json_extract(body, '$.blob')"
_NAMING = (
    'instr(body, \'"blob":"\') > 0'  # cheap, and told from a text that says so by the quotes; then the JSON is read
)


class Blobs:
    """The tensor files of one store; the first holder of its ``Forms``.

    Args:
        folder: ``blobs/`` of the store; created with the first file.
        durability: "full" also waits for the disk, as the store's commits do.
    """

    def __init__(self, folder: Path, connections: Engine, clock: Callable[[], datetime], durability: str) -> None:
        self.folder = folder
        self._connections = connections
        self._clock = clock
        self._synced = durability == "full"

    @property
    def name(self) -> str:
        """``blobs``."""
        return NAME

    def put(self, data: bytes, scope: Scope) -> str:
        """Keep a file for a tenant's user and return its name, for ``Cube.blob``: add the cube next.

        ``data`` is what ``safetensors.numpy.save`` gives. Raises InputError for anything else: a pickle is never kept.
        """
        check_file(data)
        name = hashlib.sha256(data).hexdigest()
        file = self.file(name, scope)
        with translated(file):
            if file.is_file() and _hash(file) == name:
                return name
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(f".{uuid.uuid4().hex}.partial")
            try:
                with partial.open("wb") as out:
                    out.write(data)
                    if self._synced:
                        out.flush()
                        os.fsync(out.fileno())
                partial.replace(file)
            finally:
                partial.unlink(missing_ok=True)
            if self._synced:
                _sync(file.parent)
        return name

    def read(self, cube: Cube) -> bytes:
        """The file that a cube names. Raises InputError where it names none, StoreError and IntegrityError."""
        file = self._file_of(cube)
        with translated(file):
            data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() != cube.blob:
            raise IntegrityError(f"the tensor file of memory {cube.id} is damaged; see: holdfast doctor")
        return data

    def named(self, name: str, scope: Scope) -> bytes:
        """The file of a name, unchecked. Raises StoreError where it is not there."""
        file = self.file(name, scope)
        with translated(file):
            return file.read_bytes()

    def whole(self, cube: Cube) -> Path:
        """Where the file that a cube names lies, looked through and found to be what it says. Raises as ``read`` does."""
        file = self._file_of(cube)
        with translated(file):
            if _hash(file) != cube.blob:
                raise IntegrityError(f"the tensor file of memory {cube.id} is damaged; see: holdfast doctor")
        return file

    def file(self, name: str, scope: Scope) -> Path:
        """Where a file of a tenant's user lies, whether it is there or not. Raises InputError for what is no name."""
        if len(name) != 64 or not set(name) <= set("0123456789abcdef"):
            raise InputError(f"a tensor file is named by the 64 hexadecimal digits of its SHA-256, not {name[:80]!r}")
        return self.folder / home(scope.partition) / f"{name}{SUFFIX}"

    def require(self, cube: Cube) -> None:
        """Raise ConflictError where a cube names a file that is not there. To be asked in the transaction that adds it."""
        if cube.blob is not None and not self.file(cube.blob, cube.scope).is_file():
            raise ConflictError(
                f"the tensor file {cube.blob[:12]}... of memory {cube.id} is not in this store; put it there first"
            )

    # --- as a holder ---

    def held(self, ids: Collection[str] | None = None) -> list[Kept]:
        """The files that any version of these memories names, and those of purged ones that are still to be deleted."""
        if ids is None:
            where: Iterable[str | None] = self._connections.chains()
        else:
            where = self._connections.owners_of(map(id_bytes, ids))
        found = []
        for tenant in where:
            with self._connections.reading(tenant) as connection:
                found += self._held(connection, ids)
        return found

    def _held(self, connection: Database, ids: Collection[str] | None) -> list[Kept]:
        query = f"SELECT id, version, {_NAMES}, json_extract(body, '$.scope') FROM cubes WHERE {_NAMING}"
        if ids is None or len(ids) > _MANY:  # then one look at all rows is quicker than one for each
            rows = connection.execute(query).fetchall()
        else:
            rows = [row for id in ids for row in connection.execute(f"{query} AND id = ?", (id_bytes(id),))]
        fresh = Freshness(connection, self._clock())
        wanted = None if ids is None else set(ids)
        found = []
        for id, version, name, path in rows:
            ref = Ref(id_text(id), version)
            if name is not None and (wanted is None or ref.id in wanted):
                found.append(Kept(ref, f"{home(Scope.parse(path).partition)}/{name}", stale=not fresh(ref)))
        for name, refs in self._owed(connection).items():
            found += [Kept(ref, name, stale=True) for ref in refs if wanted is None or ref.id in wanted]
        return found

    def drop(self, kept: Sequence[Kept]) -> list[Kept]:
        """Delete the files of purged memories, these and whatever a crash has left; return what living memories share."""
        stay = self.settle()
        return [one for one in kept if one.name in stay]

    def outdate(self, kept: Sequence[Kept]) -> None:
        """Nothing: what a file is worth follows from the rows, and history reads it still."""

    def left(self, kept: Sequence[Kept]) -> list[str]:
        """The files that are still there though no memory names them."""
        there = {one.name for one in kept if self._path(one.name).exists()}
        if not there:
            return []
        with self._connections.reading() as connection:
            stray = there - self._named(connection)
        return [f"the tensor file {name} is still there" for name in sorted(stray)]

    # --- owing and mending ---

    def owe(self, connection: Database, cubes: Iterable[Cube]) -> None:
        """Note, in the transaction that purges some versions, that their files are to be deleted."""
        owed: dict[str, set[Ref]] = {}
        for cube in cubes:
            place = f"{home(cube.scope.partition)}/{cube.blob}"
            if _PLACE.fullmatch(place):  # a row that was tampered with must not name a file elsewhere
                owed.setdefault(place, set()).add(cube.ref)
        if owed:
            before = self._owed(connection)
            for name, refs in owed.items():
                both = sorted((ref.id, ref.version) for ref in refs.union(before.get(name, ())))
                note(connection, OWED + name, json.dumps(both))

    def strays(self) -> tuple[list[str], list[str], list[str]]:
        """(files still owed, files that belong to nothing, files that a memory names and that are missing or damaged)."""
        with self._connections.reading() as connection:
            owed, named = set(self._owed(connection)), self._named(connection)
        files = {str(path.relative_to(self.folder).with_suffix("")): path for path in self._files()}
        belong = {name for name, path in files.items() if path.suffix == SUFFIX and name in named}
        bad = [name for name in belong if _hash(files[name]) != name.rpartition("/")[2]]
        return sorted(owed), sorted(files.keys() - belong - owed), sorted([*bad, *(named - belong)])

    def mend(self) -> int:
        """Delete every file that belongs to nothing; return how many. A cube that would name one must be added anew."""
        with self._connections.writing() as connection, translated(self.folder):
            before = len(list(self._files()))
            self._delete(connection)
            named = self._named(connection)
            for path in list(self._files()):
                name = str(path.relative_to(self.folder).with_suffix(""))
                if path.suffix != SUFFIX or name not in named:
                    path.unlink(missing_ok=True)
            return before - len(list(self._files()))

    def settle(self, tenant: str = WHOLE) -> set[str]:  # noqa: ARG002  (a folder has no walls within)
        """Delete the files that are owed, also after a crash; return the names of those that stay, because a memory names them.

        Of one tenant alone, where tenants are apart and one is named.
        """
        with self._connections.reading() as connection:
            if not self._owed(connection):
                return set()
        # With the store's lock: nobody adds a cube that names a file while it is deleted.
        with self._connections.writing() as connection, translated(self.folder):
            return self._delete(connection)

    # --- inside ---

    def _file_of(self, cube: Cube) -> Path:
        if cube.blob is None:
            raise InputError(f"memory {cube.id} has no tensor file; its form is {cube.form}")
        return self.file(cube.blob, cube.scope)

    def _delete(self, connection: Database) -> set[str]:
        owed = set(self._owed(connection))
        stay = owed & self._named(connection) if owed else set()
        for name in owed - stay:
            path = self._path(name)
            path.unlink(missing_ok=True)
            if self._synced and path.parent.exists():
                _sync(path.parent)
            with suppress(OSError):  # others of that user are there, or it is gone already
                path.parent.rmdir()
        connection.executemany("DELETE FROM meta WHERE key = ?", [(OWED + name,) for name in owed])
        return stay

    @staticmethod
    def _owed(connection: Database) -> dict[str, list[Ref]]:
        query = "SELECT key, value FROM meta WHERE key >= ? AND key < ?"
        rows = connection.execute(query, (OWED, OWED[:-1] + ";"))
        return {key[len(OWED) :]: [Ref(id, version) for id, version in json.loads(value)] for key, value in rows}

    @staticmethod
    def _named(connection: Database) -> set[str]:
        """The files that any version of any memory names."""
        query = f"SELECT DISTINCT {_NAMES}, json_extract(body, '$.scope') FROM cubes WHERE {_NAMING}"
        return {
            f"{home(Scope.parse(path).partition)}/{name}"
            for name, path in connection.execute(query)
            if name is not None
        }

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    def _files(self) -> Iterator[Path]:
        return (path for path in self.folder.rglob("*") if path.is_file())


def home(partition: str) -> str:
    """The folder of a tenant's user: any name fits into a file system so, and none is told."""
    return hashlib.sha256(partition.encode()).hexdigest()[:32]


def check_file(data: bytes) -> None:
    """Raise InputError for what is no safetensors file: 8 bytes of length, a JSON header of tensors, their bytes to the end."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= min(_LONGEST_HEADER, len(data) - 8):
        raise InputError("this is not a safetensors file; make one with safetensors.numpy.save")
    try:
        header = json.loads(data[8 : 8 + size])
        tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
        ends = [int(tensor["data_offsets"][1]) for tensor in tensors]
    except (*UNREADABLE, IndexError) as error:
        raise InputError(f"the header of this safetensors file cannot be read ({type(error).__name__})") from error
    if max(ends, default=0) != len(data) - 8 - size:
        raise InputError("this safetensors file is cut off, or something follows its tensors")


def _hash(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    """Let the disk know what a folder holds, where folders can be opened at all."""
    if os.name == "posix":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
