"""The store on a server: PostgreSQL, for many programs on many machines.

Every tenant has a journal of its own, one hash chain each, and a wall around its rows (``pool``, ``tables``). The head of the
whole store is a chain over the heads of all: what was noted of it once can be proved later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

from holdfast.cube import Cube
from holdfast.errors import InputError
from holdfast.store.engine import WHOLE, Database
from holdfast.store.files import StoredFiles
from holdfast.store.journal import GENESIS, Problem
from holdfast.store.pool import Pool, translated
from holdfast.store.proof import check_store
from holdfast.store.queue import FOLDS, Clock, vector_tables
from holdfast.store.sql import SqlStore, present
from holdfast.store.tables import migrate, servers, version

COVERED = (
    "PostgreSQL's tables were vacuumed: nothing of it can be read from the database any more, once no transaction from before "
    "is open. Its bytes may lie in the free space of pages until they are used again (VACUUM FULL writes the tables anew), and "
    "copies in what the server keeps elsewhere: its write-ahead log, replicas, archived logs, backups"
)
"""What a receipt says of an erasure here, and what it does not reach."""

ELSEWHERE = (
    "part of the tables lies on other servers ({}): what was erased there cannot be read any more, and is vacuumed by those "
    "servers, by themselves or by VACUUM"
)
"""And where tables are spread over servers."""


class PostgresStore(SqlStore):
    """Cubes in a PostgreSQL database. Safe for any number of threads, processes and machines.

    Args:
        url: ``postgresql://user@host/database``; the tables are made on first use, in a schema of their own.
        terms, tasks, clock: as in ``SqlStore``.
        durability: "full": a returned commit is on the server's disk; "normal": it may be lost where the server crashes.
    """

    connections: Pool

    def __init__(
        self,
        url: str,
        *,
        terms: Callable[[Cube], bytes] | None = None,
        tasks: Sequence[str] = (),
        clock: Clock | None = None,
        durability: str = "full",
    ) -> None:
        if durability not in ("full", "normal"):
            raise InputError(f"durability must be 'full' or 'normal', not {durability!r}")
        pool = Pool(url, durability=durability)
        with translated(pool.name), pool.connect() as connection:
            migrate(connection)
            pool.servers = servers(connection)
        clock = clock or present
        super().__init__(pool, StoredFiles(pool, clock), name=pool.name, terms=terms, tasks=tasks, clock=clock)

    # --- the whole store's head ---

    def head(self) -> tuple[int, str]:
        """How many events all journals have, and a hash over all their heads: note it elsewhere, and ``verify`` can prove it.

        Where a journal has moved since it was asked for last, an entry of that is kept. Which journals it vouches for is noted
        beside them when it is asked for next, since they may lie on other servers, of which one may fail where another does not.
        """
        with self.connections.writing(WHOLE, quietly=True) as connection:
            last = connection.execute("SELECT moved FROM anchors ORDER BY n DESC LIMIT 1").fetchone()
            done = [(seq, tenant) for tenant, seq, _ in json.loads(last[0])] if last else []
            connection.executemany("UPDATE heads SET anchored = ?1 WHERE tenant = ?2 AND anchored < ?1", done)
        with self.connections.writing(WHOLE, quietly=True) as connection:
            last = connection.execute("SELECT n, seq, hash, moved FROM anchors ORDER BY n DESC LIMIT 1").fetchone()
            n, total, before, said = last or (0, 0, GENESIS, "[]")
            known = {tenant: seq for tenant, seq, _ in json.loads(said)}  # where somebody else has asked meanwhile
            query = "SELECT tenant, seq, hash, anchored FROM heads WHERE seq > anchored ORDER BY tenant"
            moved = [
                (tenant, seq, hash, max(anchored, known.get(tenant, 0)))
                for tenant, seq, hash, anchored in connection.execute(query)
                if seq > known.get(tenant, 0)
            ]
            if not moved:
                return total, before.hex()
            said = json.dumps([[tenant, seq, hash.hex()] for tenant, seq, hash, _ in moved])
            total += sum(seq - anchored for _, seq, _, anchored in moved)
            hash = _anchor(before, total, said)
            connection.execute("INSERT INTO anchors VALUES (?, ?, ?, ?)", (n + 1, total, said, hash))
        return total, hash.hex()

    def verify(self, head: tuple[int, str] | None = None) -> list[Problem]:
        """Check every tenant's chain, and every row that it vouches for; an empty list means all is well.

        ``head`` is what ``head()`` said earlier: with it, a journal that was cut or rewritten as a whole since is found too.
        """
        problems: list[Problem] = []
        noted: dict[str, tuple[int, str]] = {}
        if head is not None and head[0]:
            with self.connections.reading(WHOLE) as connection:
                noted = _noted(connection, head)
            if not noted:
                what = f"the store does not hold the head {head[0]} that was noted earlier: it was cut or rewritten"
                problems.append(Problem(head[0], what))
        for tenant in dict.fromkeys([*self.connections.chains(), *noted]):
            with self.connections.reading(tenant) as connection:
                found = check_store(connection, noted.get(tenant))
                last = connection.execute("SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1").fetchone()
                head_row = connection.execute("SELECT seq, hash FROM heads WHERE seq > 0").fetchone()
            if last != head_row:
                found.append(Problem(last[0] if last else 0, "the head that is kept is not the journal's newest event"))
            problems += [Problem(one.seq, f"{one.what} (tenant {tenant})") for one in found]
        return problems

    # --- erasing ---

    def scrub(self, salts: Sequence[bytes]) -> list[str]:
        """Vacuum the tables, so that no row that was erased is left in them; a note on what that reaches and what not."""
        with self.connections.reading(WHOLE) as session:
            tables = ["cubes", "links", "uses", "jobs", "files", "journal", *FOLDS, *vector_tables(session)]
        with translated(self.connections.name), self.connections.connect() as connection:
            connection.execute("VACUUM " + ", ".join(f"holdfast.{table}" for table in tables))
        servers = self.connections.servers
        return [COVERED, ELSEWHERE.format(", ".join(servers))] if servers else [COVERED]

    def traces(self, salts: Sequence[bytes], words: Sequence[bytes]) -> list[str]:
        """Where a row's salt is still found: in the tables, for nothing else of the server can be looked into from here."""
        with self.connections.reading(WHOLE) as connection:
            query = "SELECT count(*) FROM cubes WHERE salt = ANY(?)"
            left = connection.execute(query, (list(salts),)).fetchone()[0] if salts else 0
        return [f"the table of memories still holds {left} rows of it"] if left else []


def missing(url: str) -> str:
    """The name of a database that holds no store yet, which opening one would make; "" where one is there. Raises StoreError."""
    pool = Pool(url)
    with translated(pool.name), pool.connect() as connection:
        return "" if version(connection) else pool.name


def _anchor(before: bytes, total: int, moved: str) -> bytes:
    return hashlib.sha256(before + f"{total}:{moved}".encode()).digest()


def _noted(connection: Database, head: tuple[int, str]) -> dict[str, tuple[int, str]]:
    """Where each tenant's journal stood when the head was said; empty where that head was never said."""
    found: dict[str, tuple[int, str]] = {}
    before = GENESIS
    for total, moved, hash in connection.execute("SELECT seq, moved, hash FROM anchors ORDER BY n"):
        if _anchor(before, total, moved) != hash:
            return {}
        found.update({tenant: (seq, hex) for tenant, seq, hex in json.loads(moved)})
        if (total, hash.hex()) == tuple(head):
            return found
        before = hash
    return {}
