"""Connections to PostgreSQL: whose rows a transaction sees, who waits for whom, and what went wrong in plain words.

A transaction in the scope of a tenant begins, in one round trip, by taking an unprivileged role under which row-level security
shows the rows of that tenant and no others: a forgotten condition shows nothing of anybody else. Work on the whole store runs
as the owner of the tables.
"""

from __future__ import annotations

import functools
import os
import re
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from holdfast.errors import HoldfastError, InputError, StoreError
from holdfast.store.engine import WHOLE, Cursor, Database
from holdfast.store.schema import PARTITION_BITS

try:
    import psycopg
    from psycopg import pq
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper
    from psycopg.types.string import StrDumperUnknown, TextBinaryLoader, TextLoader
except ImportError as error:
    raise StoreError(f"the PostgreSQL store needs psycopg ({error}): pip install 'holdfast[postgres]'") from error

SCHEMA = "holdfast"
ROLE = "holdfast_tenant"
"""Under which a tenant's transactions run; it has no other rights and cannot log in."""

BUSY_SECONDS = 60
"""How long a writer waits behind others of its tenant before it gives up."""

IDLE = 8
"""How many connections are kept open for the next transaction."""

MOST = 24
"""How many threads of one process use the database at once; others wait."""

_COMMON = f"set_config('search_path', '{SCHEMA}, pg_temp', true), set_config('lock_timeout', '{BUSY_SECONDS}s', true)"


# --- values ---

_MARK = "\ufdd0"  # no character: in front of what PostgreSQL's texts cannot hold


class _Text(StrDumperUnknown):
    """A text as it can be held: without the character NUL, which stands in names and reasons of hostile origin."""

    def dump(self, obj: str) -> bytes:
        if "\0" in obj or _MARK in obj:
            obj = obj.replace(_MARK, _MARK + "1").replace("\0", _MARK + "0")
        return str.encode(obj)


def _shown(text: str) -> str:
    return text.replace(_MARK + "0", "\0").replace(_MARK + "1", _MARK) if _MARK in text else text


class _ReadText(TextLoader):
    def load(self, data: Any) -> str:
        return _shown(bytes(data).decode())


class _ReadTextBinary(TextBinaryLoader):
    def load(self, data: Any) -> str:
        return _shown(bytes(data).decode())


def _adapted(connection: psycopg.Connection[Any]) -> None:
    some = connection.adapters
    some.register_dumper(str, _Text)
    # One type for all whole numbers: a statement is planned once, not once for each size of its values.
    some.register_dumper(int, Int8Dumper)
    some.register_dumper(int, Int8BinaryDumper)
    for name in ("text", "varchar", "name"):
        some.register_loader(name, _ReadText)
        some.register_loader(name, _ReadTextBinary)


# --- statements ---

_VALUE = re.compile(r"\?(\d*)")
_SAME_TENANT = re.compile(r"/\*= (\w+) (\w+) \*/")


@functools.lru_cache(maxsize=4_096)
def translated_sql(sql: str) -> str:
    """A statement with PostgreSQL's marks of values; where it says that rows belong together, by their tenant first."""
    sql = _SAME_TENANT.sub(r"AND \1.tenant = \2.tenant", sql)
    if "/*" in sql:
        raise ValueError(f"a mark that means nothing in PostgreSQL: {sql}")
    count = 0

    def mark(found: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return f"${found[1] or count}"

    return _VALUE.sub(mark, sql)


_CHANGES = ("INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER")


class Session:
    """One connection, in a transaction of one tenant's or the owner's."""

    text_factory: Any = str

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.changed = False
        self.found: Any = None
        self.newest: tuple[int, bytes, int] | None = None
        self.parts: dict[str, int] | None = None

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Cursor:
        """Run one statement."""
        self.changed = self.changed or sql.startswith(_CHANGES)
        return psycopg.RawCursor(self.connection).execute(translated_sql(sql), values or None, binary=True)

    def executemany(self, sql: str, values: Iterable[Sequence[Any]], /) -> None:
        """Run one statement for each of some rows of values, all of them on their way before the first is answered."""
        rows = list(values)
        if len(rows) == 1:
            self.execute(sql, rows[0])
        elif rows:
            self.changed = self.changed or sql.startswith(_CHANGES)
            psycopg.RawCursor(self.connection).executemany(translated_sql(sql), rows)


class Pool:
    """The connections of one store to its server. It is the parent's alone after a fork: in the child it refuses."""

    reads_json = False
    searches = True

    def __init__(self, url: str, *, durability: str = "full") -> None:
        self.url = url
        self.durability = durability
        self.name = told(url)
        self._process = os.getpid()
        self._closed = False
        self._idle: list[psycopg.Connection[Any]] = []
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(MOST)
        self._local = threading.local()
        self._tenants: dict[int, str] = {}
        self.servers: tuple[str, ...] = ()
        self._pooled: bool | None = None
        self.parts: dict[str, int] = {}

    @property
    def skipping(self) -> str:
        """See ``Engine``; a row of another server can be waited for, and not left out."""
        return "" if self.servers else " FOR UPDATE OF jobs SKIP LOCKED"

    # --- transactions ---

    def reading(self, tenant: str | None = None) -> _Reading:
        """A consistent view of a tenant's rows, or with WHOLE of everybody's; in a nested block, the outer one's of the tenant."""
        return _Reading(self, tenant)

    reader = reading

    @contextmanager
    def writing(
        self, tenant: str | None = None, *, lazily: bool = False, alone: bool = True, quietly: bool = False
    ) -> Iterator[Session]:
        """One transaction, the only one that writes to the tenant: it holds the tenant's lock, and the row of its head.

        The lock is this server's. Where the row is another's, one could not wait for the row: whoever came second would see what
        was there before, and fail.

        Raises InputError where the tenant is None: a transaction changes the memories of one.
        """
        if tenant is None:
            raise InputError("one commit changes the memories of one tenant; make a commit for each")
        key = "" if tenant == WHOLE else tenant
        begin = f"BEGIN; SELECT {_identity(tenant)}"
        if lazily or self.durability != "full":
            begin += "; SET LOCAL synchronous_commit = off"
        if alone:
            begin += f"; SELECT pg_advisory_xact_lock(hashtextextended('holdfast' || {_literal(key)}, 0))"
            begin += f"; SELECT seq, hash, at FROM heads WHERE tenant = {_literal(key)} FOR UPDATE"
        with self._taken(begin) as session:
            connection = session.connection
            try:
                if alone and session.found is None:
                    connection.execute("INSERT INTO heads (tenant) VALUES (%s) ON CONFLICT DO NOTHING", (key,))
                    connection.execute("SELECT 1 FROM heads WHERE tenant = %s FOR UPDATE", (key,))
                if alone and session.found and session.found[0]:
                    session.newest = session.found
                yield session
                end = "COMMIT"
                if session.changed and alone and not quietly:
                    end = f"UPDATE heads SET changed = changed + 1{_MOVED if key else ''} WHERE tenant = {_literal(key)}; COMMIT"
                connection.execute(end)
            except BaseException:
                with suppress(psycopg.Error):
                    connection.execute("ROLLBACK")
                raise

    # --- whose rows ---

    def chains(self) -> list[str]:
        """Every tenant that anything was ever written for."""
        with self.reading(WHOLE) as connection:
            return [
                tenant
                for (tenant,) in connection.execute("SELECT tenant FROM heads WHERE tenant <> '' ORDER BY tenant")
            ]

    def heads(self) -> dict[str, tuple[int, bytes]]:
        """The newest event of each tenant's chain."""
        with self.reading(WHOLE) as connection:
            found = connection.execute("SELECT tenant, seq, hash FROM heads WHERE seq > 0 ORDER BY tenant").fetchall()
        return {tenant: (seq, hash) for tenant, seq, hash in found}

    def noted(self, part: int, tenant: str) -> None:
        """Remember whose a partition is."""
        if len(self._tenants) >= 100_000:
            self._tenants.clear()
        self._tenants[part] = tenant

    def tenant_of(self, part: int) -> str:
        """Whose a partition is; of a number that is no partition's, "", to whom nothing belongs."""
        found = self._tenants.get(part)
        if found is None:
            with self.reading(WHOLE) as connection:
                row = connection.execute("SELECT tenant FROM partitions WHERE no = ?", (part,)).fetchone()
            if row is None:
                return ""
            found = str(row[0])
            self.noted(part, found)
        return found

    def by_tenant(self, rids: Iterable[int]) -> dict[str | None, list[int]]:
        """Row numbers by whose they are, without those of partitions that are not there."""
        found: dict[str | None, list[int]] = {}
        for rid in rids:
            if tenant := self.tenant_of(rid >> PARTITION_BITS):
                found.setdefault(tenant, []).append(rid)
        return found

    def owners_of(self, ids: Iterable[bytes]) -> dict[str | None, list[bytes]]:
        """Memories' ids by the tenants whose journal knows them."""
        blobs = list(dict.fromkeys(ids))
        found: dict[str | None, list[bytes]] = {}
        if blobs:
            with self.reading(WHOLE) as session:
                query = "SELECT DISTINCT tenant, id FROM journal WHERE id = ANY(?)"
                for tenant, id in session.execute(query, (blobs,)):
                    found.setdefault(tenant, []).append(id)
        return found

    def data_version(self, part: int | None) -> tuple[int, int]:
        """(0, number): it changes with every commit to the partition's tenant, and with every one to the whole store."""
        if part is None:
            with self.reading(WHOLE) as session:
                return 0, int(session.execute("SELECT coalesce(sum(changed), 0)::bigint FROM heads").fetchone()[0])
        tenant = self.tenant_of(part)
        with self.reading(tenant) as session:
            # By name, so that it is asked of no other server.
            query = "SELECT coalesce(sum(changed), 0)::bigint FROM heads WHERE tenant IN ('', ?)"
            return 0, int(session.execute(query, (tenant,)).fetchone()[0])

    # --- what PostgreSQL does in another way ---

    def make_vectors(self, connection: Database, no: int, dimension: int) -> None:
        """Make a model's table, with the walls between tenants; where the server can, it will search it."""
        from holdfast.store.nearest import stand
        from holdfast.store.tables import fold_table, walls

        for statement in (fold_table(f"vectors_{no}"), *walls(f"vectors_{no}")):
            connection.execute(statement)
        stand(connection, no, dimension)

    def queue_all(self, connection: Database, task: str) -> None:
        """Owe a task to every current memory with words."""
        connection.execute(
            "INSERT INTO jobs (task, rid, tenant) SELECT ?, rid, tenant FROM cubes WHERE known_to IS NULL "
            "AND trim(json_extract(body, '$.text')) <> '' ON CONFLICT DO NOTHING",
            (task,),
        )

    def hold_off(self, connection: Database) -> None:
        """See ``Engine``: every writer to a tenant has the row of its head until it ends."""
        connection.execute("LOCK TABLE heads IN EXCLUSIVE MODE")

    @contextmanager
    def held_off(self) -> Iterator[None]:
        """While the block runs, nobody writes to any tenant: every writer begins with the row of a head."""
        with self._taken(f"BEGIN; SELECT {_identity(WHOLE)}; LOCK TABLE heads IN EXCLUSIVE MODE") as session:
            try:
                yield
            finally:
                session.connection.execute("ROLLBACK")

    def numbered(self) -> None:
        """Let new partitions have numbers after the highest that is there."""
        with self.writing(WHOLE) as session:
            session.execute(
                "SELECT setval('partition_numbers', (SELECT max(no) + 1 FROM partitions), false) FROM partitions"
            )

    def close(self) -> None:
        """Close every connection that nobody is using; those in use are closed when their block ends."""
        if os.getpid() != self._process:
            return  # the parent's connections are the parent's to close
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # --- inside ---

    def _check(self) -> None:
        if os.getpid() != self._process:
            raise StoreError(
                f"this store was opened by process {self._process}, before this one was forked from it; open it again here, "
                f"Memory({self.name!r})"
            )
        if self._closed:
            raise StoreError(f"this store is closed; open it again, Memory({self.name!r})")

    def connect(self) -> psycopg.Connection[Any]:
        """A new connection, out of any transaction. Raises StoreError that says what to do."""
        with translated(self.name):
            connection = psycopg.connect(self.url, autocommit=True, connect_timeout=10, application_name="holdfast")
        _adapted(connection)
        connection.prepared_max = 300
        # Which of several servers a statement needs is part of its plan, and is another for the next tenant.
        if self.servers or self._passed_on(connection):
            connection.prepare_threshold = None
        return connection

    def _passed_on(self, connection: psycopg.Connection[Any]) -> bool:
        """Whether a pooler stands between, which may carry each transaction to another session, where no statement is prepared.

        It names a process of its own when one connects, and not the session's.
        """
        if self._pooled is None:
            with translated(self.name):
                (session,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
            self._pooled = session != connection.info.backend_pid
        return self._pooled

    def _held(self) -> list[tuple[str | None, Session]]:
        held: list[tuple[str | None, Session]] | None = getattr(self._local, "held", None)
        if held is None:
            held = self._local.held = []
        return held

    def _begun(self, begin: str) -> Session:
        """A session in which a transaction has begun; anew where the server has let go of one that lay idle."""
        while True:
            with self._lock:
                found = self._idle.pop() if self._idle else None
            connection = found or self.connect()
            try:
                session = Session(connection)
                cursor = connection.execute(begin)
                while cursor.nextset():
                    pass
                session.found = cursor.fetchone() if cursor.description else None
                return session
            except BaseException as error:
                dead = connection.closed or connection.pgconn.status != pq.ConnStatus.OK
                if dead or connection.info.transaction_status != pq.TransactionStatus.IDLE:
                    connection.close()
                else:
                    self._give(connection)
                if found is None or not dead or not isinstance(error, psycopg.OperationalError):
                    raise

    def _give(self, connection: psycopg.Connection[Any]) -> None:
        ready = connection.info.transaction_status == pq.TransactionStatus.IDLE
        with self._lock:
            kept = ready and not self._closed and len(self._idle) < IDLE
            if kept:
                self._idle.append(connection)
        if not kept:
            connection.close()

    @contextmanager
    def _taken(self, begin: str) -> Iterator[Session]:
        self._check()
        first = self._enter()
        try:
            with translated(self.name):
                session = self._begun(begin)
                try:
                    yield session
                finally:
                    self._give(session.connection)
        finally:
            self._leave(first)

    def _enter(self) -> bool:
        """Wait for room, where this thread has none yet: who holds a connection is never kept waiting for another."""
        depth = getattr(self._local, "depth", 0)
        if not depth and not self._room.acquire(timeout=BUSY_SECONDS):
            raise StoreError(f"{MOST} threads of this process have used the database for {BUSY_SECONDS} s; try again")
        self._local.depth = depth + 1
        return not depth

    def _leave(self, first: bool) -> None:
        self._local.depth -= 1
        if first:
            self._room.release()


_MOVED = (
    ", (seq, hash, at) = (SELECT coalesce(max(j.seq), 0), coalesce((array_agg(j.hash))[1], ''), coalesce(max(j.at), 0) FROM "
    "(SELECT seq, hash, at FROM journal WHERE journal.tenant = heads.tenant ORDER BY journal.seq DESC LIMIT 1) AS j)"
)


class _Reading:
    """The block of ``reading``. What it reads is of one moment; whoever asks for another tenant within it gets another one."""

    __slots__ = ("_entry", "_first", "_pool", "_tenant")

    def __init__(self, pool: Pool, tenant: str | None) -> None:
        self._pool = pool
        self._tenant = tenant
        self._entry: tuple[str | None, Session] | None = None
        self._first = False

    def __enter__(self) -> Session:
        pool = self._pool
        pool._check()
        held = pool._held()
        for tenant, session in reversed(held):
            if self._tenant in (None, tenant):
                return session
        whose = WHOLE if self._tenant is None else self._tenant
        self._first = pool._enter()
        try:
            with translated(pool.name):
                begin = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT {_identity(whose)}"
                session = pool._begun(begin)
        except BaseException:
            pool._leave(self._first)
            raise
        session.parts = pool.parts
        self._entry = whose, session
        held.append(self._entry)
        return session

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._entry is not None:
            pool, session = self._pool, self._entry[1]
            pool._held().remove(self._entry)
            try:
                with suppress(psycopg.Error):  # it only read
                    session.connection.execute("ROLLBACK")
            finally:
                pool._give(session.connection)
                pool._leave(self._first)
        if error is not None:
            _raise_told(error, self._pool.name)


def _identity(tenant: str) -> str:
    """What a transaction's first statement selects: where it looks for tables, whose rows it sees, and as whom."""
    if tenant == WHOLE:
        return f"{_COMMON}, set_config('holdfast.tenant', '', true)"
    return f"{_COMMON}, set_config('holdfast.tenant', {_literal(tenant)}, true), set_config('role', '{ROLE}', true)"


@functools.lru_cache(maxsize=4_096)
def _literal(text: str) -> str:
    """A name as it stands in a statement: printable, as a scope's is, and quoted, whatever the server's settings."""
    if "\\" in text:
        return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + text.replace("'", "''") + "'"


def told(url: str) -> str:
    """An address without its password, for people. Raises InputError for what is no address."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error as error:
        raise InputError(
            f"this is no address of a PostgreSQL database ({str(error).strip()}); write postgresql://user@host/database"
        ) from None
    user = f"{parts['user']}@" if "user" in parts else ""
    port = f":{parts['port']}" if "port" in parts else ""
    return f"postgresql://{user}{parts.get('host', '')}{port}/{parts.get('dbname', '')}"


# --- what can go wrong ---


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn PostgreSQL's errors into ours, with what to do. Nothing is lost: a failed transaction leaves no trace."""
    try:
        yield
    except Exception as error:
        _raise_told(error, name)
        raise


def _raise_told(error: BaseException, name: str) -> None:
    if isinstance(error, UnicodeEncodeError):
        raise InputError(f"this is not text: it holds half of a character, {error.object[error.start]!r}") from error
    if isinstance(error, OverflowError | struct.error | psycopg.errors.NumericValueOutOfRange):
        raise InputError(f"a number is too large for the store: {error}") from error
    if isinstance(error, OSError) and not isinstance(error, HoldfastError):
        raise StoreError(f"this change was not made: {error}") from error
    if isinstance(error, psycopg.Error):
        raise StoreError(f"{_advice(error)} (store: {name}; PostgreSQL says: {_first_line(error)})") from error


def _first_line(error: psycopg.Error) -> str:
    return (error.diag.message_primary or str(error)).strip().partition("\n")[0]


def _advice(error: psycopg.Error) -> str:
    code, text = error.sqlstate or "", str(error).lower()
    if code == "3D000" or ("database" in text and "does not exist" in text):
        return "there is no such database; make it with: createdb NAME"
    if (
        code.startswith("28")
        or "authentication failed" in text
        or "no password supplied" in text
        or ("role" in text and "does not exist" in text)
    ):
        return "the server does not let this user in; check the user and the password of the address"
    if code == "42501":
        return "this user may not do that; the store's tables are made and changed by their owner: open it as the user that made it"
    if code == "53100":
        return "the server's disk is full; what was committed before is safe, this change was not made"
    if code == "53300":
        return "the server has no connection left; raise max_connections, or run fewer programs"
    if code in ("55P03", "40P01", "40001"):
        return "another program held the store for too long; this change was not made, try again"
    if code == "25006":
        return "this server only reads: it is a standby; give the address of the primary"
    if code.startswith("08"):
        return (
            "another server, on which part of this store lies, cannot be reached; this change was not made. What lies on the "
            "others can be used meanwhile"
        )
    if code in ("XX001", "XX002"):
        return "the server's files are damaged; put back a backup of the database"
    if isinstance(error, psycopg.OperationalError):
        return "the server cannot be reached, or went away; this change may not have been made. Check that it runs, and the address"
    return "the store refused this; nothing was changed"
