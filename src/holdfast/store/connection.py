"""Opening SQLite so that many processes share one file without loss, and saying plainly what went wrong when it will not."""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from holdfast.errors import HoldfastError, InputError, StoreError
from holdfast.store import schema
from holdfast.store.engine import WHOLE, Database

BUSY_MS = 60_000
"""How long a writer queues behind other processes before it gives up."""

IDLE_READERS = 8
"""How many reading connections are kept open for the next reader; more are opened when more threads read at once."""

FOLD_AFTER = 1000
"""After so many changed rows the write-ahead log is folded into the file."""

LOG_BYTES = 4 * 2**20
"""A log that was folded in is cut to this size; a program that finds a longer one folds it in with its first commit."""

CUT_BYTES = 64 * 2**10

PAUSE_SECONDS = 10.0
"""How long a fork, or a look at the bytes of the file, waits for other threads to finish what they are reading."""

_NETWORK_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "fuse.sshfs", "9p.sshfs"})

_numbers = itertools.count(1)

log = logging.getLogger("holdfast")

C = TypeVar("C", bound=sqlite3.Connection)


class Reader(sqlite3.Connection):
    """A reading connection with a number that no other one in this process ever had.

    ``parts``: the partitions' numbers that it has read; once committed, one never changes.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.number = next(_numbers)
        self.parts: dict[str, int] = {}


class Connections:
    """One writing connection for the process, guarded by a lock, and a pool of reading connections, one a reading thread.

    Readers never block and never wait for writers (write-ahead log); writers of all processes queue. ``durability`` is
    "full" (a commit survives power loss) or "normal" (it survives the death of the process).

    SQLite must not be carried over a fork: a child would believe that it holds its parent's locks, and commits would be
    lost. So everything is closed just before a fork and opened again afterwards, and only by the parent: in the child this
    object refuses, and a store opened anew there is safe.
    """

    reads_json = True
    searches = False
    skipping = ""

    def __init__(self, file: Path, *, durability: str = "full") -> None:
        refuse_network(file.parent)
        self.file = file
        self.lock = threading.RLock()
        self.durability = durability
        self._process = os.getpid()
        self._closed = False
        self._writer: sqlite3.Connection | None = None
        self._folded = 0
        self._idle: list[Reader] = []
        self._reading = 0
        self._pool = threading.Condition()
        self._local = threading.local()
        with translated(file):
            _refuse_carried(file)
            self._writer = self._open_writer()
        with _registry:
            _living.add(self)

    @property
    def writer(self) -> sqlite3.Connection:
        """The writing connection; hold ``lock`` while you use it."""
        self._check()
        if self._writer is None:
            self._writer = self._open_writer()
        return self._writer

    def reader(self, tenant: str | None = None) -> _Block:
        """A connection for reading, this thread's own until the block ends; in a nested block, the outer one's."""
        return _Block(self, consistent=False)

    def reading(self, tenant: str | None = None) -> _Block:
        """A consistent view of the store: everything read inside is of one moment; in a nested block, of the outer one's."""
        return _Block(self, consistent=True)

    @contextmanager
    def writing(
        self, tenant: str | None = None, *, lazily: bool = False, alone: bool = True, quietly: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """One transaction, alone among all processes; all of it becomes durable, or none of it.

        ``lazily``: it becomes durable with the next one that is not. For what is done again where a power cut takes it.
        """
        self._check()
        with self.lock, translated(self.file):
            connection = self.writer
            if connection.total_changes - self._folded >= FOLD_AFTER:
                self._fold(connection)
            lazily = lazily and self.durability == "full"
            if lazily:
                connection.execute("PRAGMA synchronous = NORMAL")
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                if lazily:
                    connection.execute("PRAGMA synchronous = FULL")

    def cut_log(self) -> bool:
        """Fold the log in and begin it anew with one small commit; return whether nothing of before is left in it.

        SQLite's own TRUNCATE would keep all writers waiting for a slow reader, and where it cannot, work beside them.
        """
        self._check()
        with self.lock, translated(self.file):
            writer = self.writer
            self._fold(writer)
            writer.execute("PRAGMA journal_size_limit = 0")
            try:
                writer.execute("BEGIN IMMEDIATE")
                writer.execute("INSERT OR REPLACE INTO meta VALUES ('log', 'cut')")
                writer.execute("COMMIT")
            finally:
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
                writer.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
            log_file = self.file.with_name(self.file.name + "-wal")
            return not log_file.exists() or log_file.stat().st_size < CUT_BYTES

    def close(self) -> None:
        """Close every connection; the last process to close folds the log into the file."""
        if os.getpid() != self._process:
            return  # the parent's connections are the parent's to close
        with self.lock:
            self._closed = True
            self._shut()

    # --- one chain for all tenants, so whose a row is makes no difference ---

    def chains(self) -> tuple[str]:
        """The one that all tenants share."""
        return (WHOLE,)

    def heads(self) -> dict[str, tuple[int, bytes]]:
        """Its newest event."""
        with self.reading() as connection:
            found = connection.execute("SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1").fetchone()
        return {WHOLE: found} if found else {}

    def tenant_of(self, part: int) -> None:
        """Not known, and not needed."""

    def by_tenant(self, rids: Iterable[int]) -> dict[str | None, list[int]]:
        """All of them together."""
        return {None: list(rids)}

    def owners_of(self, ids: Iterable[bytes]) -> dict[str | None, list[bytes]]:
        """All of them together."""
        return {None: list(ids)}

    def noted(self, part: int, tenant: str) -> None:
        """Nothing."""

    def data_version(self, part: int | None) -> tuple[int, int]:
        """SQLite's own number, which changes whenever another connection has committed anything."""
        with self.reader() as connection:
            return connection.number, int(connection.execute("PRAGMA data_version").fetchone()[0])

    def make_vectors(self, connection: Database, no: int, _dimension: int) -> None:
        """Make a model's table."""
        connection.execute(f"CREATE TABLE vectors_{no} (rid INTEGER PRIMARY KEY, body BLOB NOT NULL)")

    def queue_all(self, connection: Database, task: str) -> None:
        """Owe a task to every current memory with words."""
        connection.execute(
            "INSERT INTO jobs (task, rid) SELECT ?, rid FROM cubes WHERE known_to IS NULL "
            "AND trim(json_extract(body, '$.text')) <> '' ON CONFLICT DO NOTHING",
            (task,),
        )

    def hold_off(self, connection: Database) -> None:
        """See ``Engine``: there is one writer at a time."""

    def held_off(self) -> AbstractContextManager[object]:
        """While the block runs, nobody writes to the store."""
        return self.writing()

    def numbered(self) -> None:
        """Nothing: SQLite counts from the highest number that is there."""

    # --- inside ---

    def _fold(self, writer: sqlite3.Connection) -> None:
        """Copy the write-ahead log into the file, while this process holds all writers off, so that the next begins it anew.

        SQLite would do so by itself, beside other writers; up to version 3.51.2 that can destroy the file when somebody
        begins the log anew at the same moment (sqlite.org/wal.html, "the WAL-reset bug"), and no Python can be sure of a
        newer one.
        """
        self._folded = writer.total_changes
        writer.execute("BEGIN IMMEDIATE")
        try:
            with self.reader() as connection:
                if not connection.in_transaction:
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except StoreError as error:  # the log is as good a place as the file; it is tried again
            log.warning("the write-ahead log is not folded in: %s", error)
        finally:
            writer.execute("ROLLBACK")

    def _check(self) -> None:
        if os.getpid() != self._process:
            raise StoreError(
                f"this store was opened by process {self._process}, before this one was forked from it; open it again here, "
                f"Memory({str(self.file.parent)!r})"
            )
        if self._closed:
            raise StoreError(f"this store is closed; open it again, Memory({str(self.file.parent)!r})")

    def _take(self) -> Reader:
        self._check()
        with self._pool:
            self._reading += 1
            if self._idle:
                return self._idle.pop()
        try:
            connection = self._open(Reader)
            connection.execute("PRAGMA query_only = ON")
        except BaseException:
            self._done()
            raise
        return connection

    def _give(self, connection: Reader) -> None:
        with self._pool:
            kept = not self._closed and len(self._idle) < IDLE_READERS
            if kept:
                self._idle.append(connection)
        if not kept:
            connection.close()
        self._done()

    def _done(self) -> None:
        with self._pool:
            self._reading -= 1
            self._pool.notify_all()

    def _shut(self) -> None:
        """Close what nobody is using; a reader that is in use is closed when its block ends."""
        with self._pool:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open_writer(self) -> sqlite3.Connection:
        connection = self._open(sqlite3.Connection)
        log_file = self.file.with_name(self.file.name + "-wal")
        self._folded = -FOLD_AFTER if log_file.exists() and log_file.stat().st_size > LOG_BYTES else 0
        try:
            schema.version(
                connection
            )  # another program's database, or a newer one of ours, is not even switched to a log
            # When several processes create the store at once, the switch can meet a lock that it does not wait for.
            ends = time.monotonic() + BUSY_MS / 1000
            while True:
                try:
                    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
                    break
                except sqlite3.OperationalError as error:
                    if "locked" not in str(error) or time.monotonic() > ends:
                        raise
                    time.sleep(0.01)
            if mode != "wal":
                raise StoreError(
                    f"{self.file.parent} lies on a file system where SQLite cannot share a write-ahead log (it offers "
                    f"{mode!r}); use a local disk"
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def _open(self, factory: type[C]) -> C:
        connection = sqlite3.connect(
            self.file,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_MS / 1000,
            cached_statements=256,
            factory=factory,
        )
        try:
            connection.execute(f"PRAGMA synchronous = {'FULL' if self.durability == 'full' else 'NORMAL'}")
            connection.execute("PRAGMA secure_delete = ON")  # what is forgotten is overwritten, not just unlinked
            connection.execute("PRAGMA wal_autocheckpoint = 0")  # see _fold
            connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA cache_size = -16000")
            # No mapped file: where the disk fails or the file is cut, that would be a signal and not an error.
            connection.execute("PRAGMA mmap_size = 0")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def away(self) -> Iterator[None]:
        """While the block runs, nothing in this process has the store's file open.

        Whoever opens and closes a file by other means than SQLite cancels all locks that his process holds on it (POSIX says
        so): two programs would then write at once, and the file would be destroyed. So the bytes of a store are read here or
        in another process, never beside an open connection. Raises StoreError where a reader does not end.
        """
        with _registry:
            paused = _pause(self.file)
            try:
                if not all(shut for _, shut in paused):
                    raise StoreError(
                        f"{self.file} is being read in this process for too long; nothing was done, try again"
                    )
                yield
            finally:
                for some, _ in paused:
                    some.resume()

    def pause(self) -> bool:
        """Let everybody finish, then close; return whether all could be closed. Nobody gets in until ``resume``."""
        self.lock.acquire()
        self._pool.acquire()
        own = getattr(self._local, "connection", None) is not None
        quiet = self._pool.wait_for(lambda: self._reading <= own, PAUSE_SECONDS)
        if own or not quiet or (self._writer is not None and self._writer.in_transaction):
            return False
        self._shut()
        return True

    def resume(self) -> None:
        """Let everybody in again; files are opened when they are needed."""
        self._pool.release()
        self.lock.release()


class _Block:
    """The block of ``reader`` or ``reading``. A search enters several: as nested generators they would cost it 20 µs."""

    __slots__ = ("_begun", "_connections", "_consistent", "_taken")

    def __init__(self, connections: Connections, consistent: bool) -> None:
        self._connections = connections
        self._consistent = consistent
        self._taken: Reader | None = None
        self._begun: Reader | None = None

    def __enter__(self) -> Reader:
        home = self._connections
        held: Reader | None = getattr(home._local, "connection", None)
        try:
            if held is None:
                held = home._local.connection = self._taken = home._take()
            if self._consistent and not held.in_transaction:
                held.execute("BEGIN")
                self._begun = held
        except BaseException as error:
            self._leave()
            _raise_told(error, home.file)
            raise
        return held

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            if self._begun is not None and self._begun.in_transaction:
                self._begun.execute("ROLLBACK")  # it only read
        except sqlite3.Error as failed:
            _raise_told(failed, self._connections.file)
        finally:
            self._leave()
        if error is not None:
            _raise_told(error, self._connections.file)

    def _leave(self) -> None:
        if self._taken is not None:
            self._connections._local.connection = None
            self._connections._give(self._taken)


# --- what all stores of a process do together ---

_registry = threading.Lock()
_living: weakref.WeakSet[Connections] = weakref.WeakSet()
_forking: list[tuple[Connections, bool]] = []
_carried: set[tuple[int, int]] = set()
"""Device and inode of the files that were open in this process when it was forked: SQLite cannot open them safely."""


def _pause(file: Path | None = None) -> list[tuple[Connections, bool]]:
    """Pause all stores of this process, or all that have one file open; hold ``_registry`` meanwhile."""
    process = os.getpid()
    found = [some for some in list(_living) if some._process == process and not some._closed]
    return [(some, some.pause()) for some in found if file is None or some.file.resolve() == file.resolve()]


def _before_fork() -> None:
    _registry.acquire()
    _forking[:] = _pause()


def _after_fork_in_parent() -> None:
    for some, _ in _forking:
        some.resume()
    _forking.clear()
    _registry.release()


def _after_fork_in_child() -> None:
    for some, shut in _forking:
        if not shut and some.file.exists():
            status = some.file.stat()
            _carried.add((status.st_dev, status.st_ino))
        some.resume()
    _forking.clear()
    _registry.release()


if hasattr(os, "register_at_fork"):  # not where there is no fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def _refuse_carried(file: Path) -> None:
    if _carried and file.exists():
        status = file.stat()
        if (status.st_dev, status.st_ino) in _carried:
            raise StoreError(
                f"this process was forked in the middle of a transaction on {file}, so SQLite cannot lock it here; fork "
                "outside of transactions, or start processes with multiprocessing's 'spawn'"
            )


# --- what can go wrong ---


@contextmanager
def translated(file: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, with what to do. Nothing is lost: a failed transaction leaves no trace."""
    try:
        yield
    except Exception as error:
        _raise_told(error, file)
        raise


def _raise_told(error: BaseException, file: Path) -> None:
    """Raise ours in place of an error of SQLite or the system; return where it is neither."""
    if isinstance(error, sqlite3.Error):
        raise StoreError(f"{_advice(error)} (store: {file}; SQLite says: {error})") from error
    if isinstance(error, UnicodeEncodeError):
        raise InputError(f"this is not text: it holds half of a character, {error.object[error.start]!r}") from error
    if isinstance(error, OverflowError):
        raise InputError(f"a number is too large for the store: {error}") from error
    if isinstance(error, OSError) and not isinstance(error, HoldfastError):
        raise StoreError(f"the store's folder cannot be used: {error}") from error


def _advice(error: sqlite3.Error) -> str:
    text = str(error).lower()
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code; errors of the Python module have none
    if code == sqlite3.SQLITE_FULL:
        return "the disk is full; what was committed before is safe, this change was not made. Free space and try again"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return "the store cannot be written: check that its folder exists and that you may write to it"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "another program held the store for too long; this change was not made, try again"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT) or "utf-8" in text:
        return (
            "the store's file is damaged. Copy the folder, then run: holdfast doctor --repair. "
            "The folder 'backups' holds earlier copies, if any"
        )
    if code == sqlite3.SQLITE_IOERR:
        return (
            "the disk failed to read or write; what was committed before is safe, this change was not made. Check the disk, "
            "its free space and any limit on the size of files, and try again"
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
