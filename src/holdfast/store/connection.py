"""Opening SQLite so that many processes share one file without loss, and saying plainly what went wrong when it will not."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.errors import HoldfastError, StoreError

BUSY_MS = 60_000
"""How long a writer queues behind other processes before it gives up."""

_NETWORK_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "fuse.sshfs", "9p.sshfs"})


class Connections:
    """One writing connection for the process, guarded by a lock, and one reading connection a thread.

    Readers never block and never wait for writers (write-ahead log); writers of all processes queue. ``durability`` is
    "full" (a commit survives power loss) or "normal" (it survives the death of the process).
    """

    def __init__(self, file: Path, *, durability: str = "full") -> None:
        refuse_network(file.parent)
        self.file = file
        self.lock = threading.RLock()
        self.durability = durability
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        with translated(file):
            self.writer = self._open()
            self.writer.execute("PRAGMA journal_mode = WAL")

    def reader(self) -> sqlite3.Connection:
        """This thread's connection for reading."""
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            with translated(self.file):
                found = self._local.connection = self._open()
                found.execute("PRAGMA query_only = ON")
            with self.lock:
                self._readers.append(found)
        return found

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A consistent view of the store: everything read inside is of one moment."""
        connection = self.reader()
        with translated(self.file):
            if connection.in_transaction:  # nested: the outer view holds
                yield connection
                return
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("COMMIT")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, alone among all processes; all of it becomes durable, or none of it."""
        with self.lock, translated(self.file):
            connection = self.writer
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close every connection; the last process to close folds the log into the file."""
        with self.lock:
            for connection in [*self._readers, self.writer]:
                connection.close()
            self._readers.clear()
            self._local = threading.local()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.file, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000, cached_statements=256
        )
        connection.execute(f"PRAGMA synchronous = {'FULL' if self.durability == 'full' else 'NORMAL'}")
        connection.execute("PRAGMA secure_delete = ON")  # what is forgotten is overwritten, not just unlinked
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA cache_size = -16000")
        connection.execute("PRAGMA mmap_size = 268435456")
        return connection


@contextmanager
def translated(file: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, with what to do. Nothing is lost: a failed transaction leaves no trace."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{_advice(error)} (store: {file}; SQLite says: {error})") from error
    except OSError as error:
        if isinstance(error, HoldfastError):
            raise
        raise StoreError(f"the store's folder cannot be used: {error}") from error


def _advice(error: sqlite3.Error) -> str:
    text = str(error).lower()
    if "full" in text:
        return "the disk is full; what was committed before is safe, this change was not made. Free space and try again"
    if "readonly" in text or "read-only" in text or "unable to open" in text:
        return "the store cannot be written: check that its folder exists and that you may write to it"
    if "locked" in text or "busy" in text:
        return "another program held the store for too long; this change was not made, try again"
    if "malformed" in text or "not a database" in text or "corrupt" in text or "disk i/o" in text:
        return (
            "the store's file is damaged. Copy the folder, then run: holdfast doctor --repair. "
            "The folder 'backups' holds earlier copies, if any"
        )
    return "the store refused this; nothing was changed"


def refuse_network(folder: Path) -> None:
    """Raise StoreError on a network file system, whose locks cannot be trusted with a shared write-ahead log."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return
    best, kind = "", ""
    where = str(folder.resolve())
    for line in mounts.read_text(errors="replace").splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        if (where == point or where.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, fields[2]
    if kind in _NETWORK_FILESYSTEMS:
        raise StoreError(
            f"{folder} lies on a network file system ({kind}), where several writers can destroy the store; "
            "use a local disk, or the PostgreSQL store"
        )
