"""What an archive holds, read without unpacking it: a file, a folder, or a zip file.

Nothing is written anywhere, so no name in an archive can lead out of a folder. What a zip file says of itself is not believed: the
bytes that come out are counted.
"""

from __future__ import annotations

import sqlite3
import stat
import zipfile
import zlib
from collections.abc import Iterator, Set
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from holdfast.errors import InputError

MOST_FILES = 100_000
MOST_BYTES = 32 * 1024**3
"""Bytes that may come out of one file of an archive."""
MOST_TIMES = 200
"""So many times its packed size; JSON packs ten to twenty times smaller."""
_FREE = 16 * 1024**2  # below that, nobody minds how well it was packed
_DIRECTORY = 64 * 1024**2
_SQLITE = b"SQLite format 3\0"
_SLOW = 200_000_000  # steps of SQLite's machine for one statement: a table of millions, and no view without end


class Archive:
    """An archive at a path. Raises InputError where there is none, or it is not to be trusted."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self.name = "".join(letter if letter.isprintable() else "\ufffd" for letter in self.path.name) or "archive"
        self._zip: zipfile.ZipFile | None = None
        self.left_out: list[tuple[str, str]] = []
        try:
            mode = self.path.stat().st_mode
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        if stat.S_ISDIR(mode):
            self.names = tuple(self._inside())
        elif not stat.S_ISREG(mode):
            raise InputError(f"{path} is neither a file nor a folder")
        elif zipfile.is_zipfile(self.path):
            self.names = tuple(self._opened())
        else:
            self.names = (self.path.name,)

    @property
    def is_file(self) -> bool:
        """Whether it is one plain file."""
        return self._zip is None and not self.path.is_dir()

    def find(self, *wanted: str) -> list[str]:
        """The files whose name (``conversations.json``) or folder and ending (``projects/*.json``) is one of these."""
        return [name for name in self.names if any(_matches(PurePosixPath(name), one) for one in wanted)]

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """A file of it, as a stream of bytes. Raises InputError."""
        try:
            if self._zip is None:
                path = self.path if self.is_file else self.path / name
                with path.open("rb") as stream:
                    yield stream
                return
            info = self._zip.getinfo(name)
            with self._zip.open(info) as packed:
                yield cast(BinaryIO, _Counted(packed, info, name))
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
            raise InputError(f"{self.name}: {name} cannot be read: {error}") from error

    def is_sqlite(self, name: str) -> bool:
        """Whether a file on disk is a database of SQLite."""
        if self._zip is not None:
            return False
        with self.open(name) as stream:
            return stream.read(len(_SQLITE)) == _SQLITE

    @contextmanager
    def database(self, name: str) -> Iterator[sqlite3.Connection]:
        """Such a file, to be read only; what its schema calls is not run. Raises InputError."""
        path = (self.path if self.is_file else self.path / name).resolve()
        try:
            with closing(_database(path)) as connection:
                steps = [0]

                def tired() -> bool:
                    steps[0] += 1
                    return steps[0] > _SLOW // 100_000

                connection.set_progress_handler(tired, 100_000)
                yield connection
        except sqlite3.Error as error:
            raise InputError(f"{self.name}: {name} is no database that can be read: {error}") from error

    def databases(self, table: str, columns: Set[str]) -> list[str]:
        """The databases of SQLite that have a table, and no view, with these columns. Raises InputError."""
        found = []
        for name in self.names if self.is_file else self.find("*.db", "*.sqlite", "*.sqlite3"):
            if self.is_sqlite(name):
                with self.database(name) as database:
                    made = database.execute("SELECT type FROM sqlite_master WHERE name = ?", (table,)).fetchone()
                    has = {row["name"] for row in database.execute("SELECT name FROM pragma_table_info(?)", (table,))}
                if made is not None and made["type"] == "table" and has >= columns:
                    found.append(name)
        return found

    def close(self) -> None:
        """Close the file."""
        if self._zip is not None:
            self._zip.close()

    def _inside(self) -> Iterator[str]:
        root = self.path.resolve()
        count = 0
        for path in sorted(self.path.rglob("*")):
            name = path.relative_to(self.path).as_posix()
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                self.left_out.append((name, "it is a link that leads out of the folder"))
            elif path.is_file():
                count += 1
                if count > MOST_FILES:
                    raise InputError(f"{self.path} holds more than {MOST_FILES:,} files; name the export's own folder")
                yield name

    def _opened(self) -> Iterator[str]:
        _check_directory(self.path)
        try:
            self._zip = zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise InputError(f"{self.path} is no zip file that can be read: {error}") from error
        files = self._zip.infolist()
        if len(files) > MOST_FILES:
            self.close()
            raise InputError(f"{self.path} holds more than {MOST_FILES:,} files, which no export does")
        seen: set[str] = set()
        for info in files:
            if info.is_dir():
                continue
            if info.flag_bits & 0x1:
                self.left_out.append((info.filename, "it is encrypted"))
            elif _leads_out(info.filename) or info.filename in seen:
                twice = info.filename in seen
                self.left_out.append((info.filename, "its name is there twice" if twice else "its name leads out"))
            else:
                seen.add(info.filename)
                yield info.filename


class _Counted:
    """A packed file that stops once more comes out of it than a file of its size holds."""

    def __init__(self, packed: object, info: zipfile.ZipInfo, name: str) -> None:
        self._packed = cast(BinaryIO, packed)
        self._most = min(MOST_BYTES, max(_FREE, info.compress_size * MOST_TIMES))
        self._out = 0
        self._name = name

    def read(self, size: int = -1) -> bytes:
        got = self._packed.read(size if size >= 0 else 1024**2)
        self._out += len(got)
        if self._out > self._most:
            raise InputError(
                f"{self._name} unpacks to more than {MOST_TIMES} times its size: this is a bomb, or no export"
            )
        return got


def _check_directory(path: Path) -> None:
    """Refuse a zip file with a directory that would fill the memory, before it is read."""
    with path.open("rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - 65_557))
        tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    size = int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0
    if size > _DIRECTORY:
        raise InputError(f"{path} holds too many files to be an export; unpack it and name the folder")


def _leads_out(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in path.parts[0] if path.parts else True


def _matches(path: PurePosixPath, wanted: str) -> bool:
    folder, _, name = wanted.rpartition("/")
    return path.match(name) and (not folder or path.parent.name == folder)


def _database(path: Path) -> sqlite3.Connection:
    """Read-only; where its log cannot be read along with it, as it was when the log was last written into it."""
    error: sqlite3.Error | None = None
    for how in ("mode=ro", "mode=ro&immutable=1"):
        connection = sqlite3.connect(f"{path.as_uri()}?{how}", uri=True)
        try:
            for pragma in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON"):
                connection.execute(f"PRAGMA {pragma}")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 64 * 1024**2)
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            connection.row_factory = sqlite3.Row
            return connection
        except sqlite3.Error as broken:
            connection.close()
            error = broken
    assert error is not None
    raise error
