"""The queue of work that a commit leaves, and the folds that it fills: vectors, names and dates.

A job is a task that is owed to a row. It is taken under a lease, and either settled in the transaction that writes what it
made, or put back with a growing delay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from holdfast.cube import to_micros
from holdfast.errors import StoreError
from holdfast.store import schema
from holdfast.store.engine import WHOLE, Database, Engine
from holdfast.store.rows import SELECT, Row, to_row

Clock = Callable[[], datetime]

FOLDS = ("terms", "names", "dates")
"""The folds that are the same for every embedding model; vectors have a table a model, ``vectors_N``."""

LEASE_SECONDS = 60
"""How long a worker has to finish the jobs it took; after that others may take them."""

_LATER = "CAST(1000000 AS BIGINT) * (CASE WHEN attempts < 12 THEN 1 << CAST(attempts AS INTEGER) ELSE 3600 END)"


class Queue:
    """The jobs of one store, for the workers of any number of processes."""

    def __init__(self, connections: Engine, clock: Clock) -> None:
        self._connections = connections
        self._clock = clock

    def take(
        self, task: str, limit: int, *, partition: int | None = None, lacking: str | None = None, held: bool = False
    ) -> list[int]:
        """Take up to ``limit`` due jobs, oldest first, for LEASE_SECONDS; return their row numbers.

        Of rows without an entry in the table ``lacking``, where one is given; with ``held``, also jobs that others have
        taken or put off. Jobs that failed before are taken in ever smaller batches, so that one bad row ends up alone. If
        the process dies, the lease runs out and another process takes them.
        """
        low, high = 0, 1 << 62
        if partition is not None:
            low, high = partition << schema.PARTITION_BITS, ((partition + 1) << schema.PARTITION_BITS) - 1
        now = to_micros(self._clock())
        lease = now + LEASE_SECONDS * 1_000_000
        # A time far ahead was written before the clock was set back: such a job is due.
        free = f"task = ?1 AND (1 = {int(held)} OR not_before <= ?2 OR not_before > ?2 + 7200000000)"
        if lacking:
            table = fold_table(lacking)
            free += f" AND NOT EXISTS (SELECT 1 FROM {table} AS t WHERE t.rid = jobs.rid /*= t jobs */)"
        due = f"SELECT rid, attempts FROM jobs WHERE {free} AND rid BETWEEN ?3 AND ?4 ORDER BY rid LIMIT ?5"
        tenant = WHOLE if partition is None else self._connections.tenant_of(partition)
        while True:
            with self._connections.reading(tenant) as connection:
                found = connection.execute(due, (task, now, low, high, limit)).fetchall()
            if not found:
                return []
            some = found[: max(1, limit >> min(found[0][1], 16))]
            if taken := self._lease(task, [rid for rid, _ in some], free, now, lease):
                return taken
            # Of two workers that found the same jobs the second gets none of them, and looks further. So it does where their
            # partition is not there, which is for the doctor.
            low = some[-1][0] + 1

    def _lease(self, task: str, rids: Sequence[int], free: str, now: int, until: int) -> list[int]:
        """Put off the free ones among some jobs; their row numbers."""
        taken: list[int] = []
        skipping = self._connections.skipping
        for tenant, own in self._connections.by_tenant(rids).items():
            with self._connections.writing(tenant, lazily=True, alone=not skipping, quietly=True) as connection:
                query = f"SELECT rid FROM jobs WHERE {free} AND rid IN ({','.join(map(str, own))})"
                still = [rid for (rid,) in connection.execute(query + skipping, (task, now))]
                put_off = "UPDATE jobs SET not_before = ? WHERE task = ? AND rid = ?"
                connection.executemany(put_off, [(until, task, rid) for rid in still])
            taken += still
        return sorted(taken)

    def texts(self, rids: Sequence[int]) -> list[Row]:
        """The rows with these numbers, for the queue's workers (they serve every scope)."""
        found = []
        for tenant, some in self._connections.by_tenant(rids).items():
            with self._connections.reading(tenant) as connection:
                for rid in some:
                    record = connection.execute(f"{SELECT} WHERE cubes.rid = ?", (rid,)).fetchone()
                    if record is not None:
                        found.append(to_row(record))
        return found

    def put_folds(self, folds: Mapping[str, Sequence[tuple[int, bytes]]], *, task: str, done: Sequence[int]) -> None:
        """Write folds (table: rows) and settle the jobs that owed them, in one transaction for each tenant that has one.

        Rows that were purged meanwhile are left out, so that nothing comes back.
        """
        whose = self._connections.by_tenant(
            dict.fromkeys([*(rid for rows in folds.values() for rid, _ in rows), *done])
        )
        for tenant, rids in whose.items():
            own = set(rids)
            with self._connections.writing(tenant, lazily=True) as connection:
                some = {table: [row for row in rows if row[0] in own] for table, rows in folds.items()}
                self._put(connection, some, task, [rid for rid in done if rid in own])

    def _put(
        self, connection: Database, folds: Mapping[str, Sequence[tuple[int, bytes]]], task: str, done: Sequence[int]
    ) -> None:
        for table, rows in folds.items():
            put(connection, table, rows)
            by_part: dict[int, list[int]] = {}
            for rid, _ in rows:
                by_part.setdefault(rid >> schema.PARTITION_BITS, []).append(rid)
            for part, rids in by_part.items():
                arrive(connection, part, table, rids)
        if any(table.startswith("vectors_") for table in folds):
            done = self._everywhere(connection, task, done)
        connection.executemany("DELETE FROM jobs WHERE task = ? AND rid = ?", [(task, rid) for rid in done])

    @staticmethod
    def _everywhere(connection: Database, task: str, rids: Sequence[int]) -> list[int]:
        """Those rows that every model has a vector of; the others are due again at once, for the other models' workers."""
        tables = vector_tables(connection)
        if len(tables) == 1:
            return list(rids)
        lacking = " OR ".join(f"NOT EXISTS (SELECT 1 FROM {table} WHERE rid = ?1)" for table in tables)
        query = f"SELECT 1 FROM cubes WHERE rid = ?1 AND ({lacking})"
        owing = {rid for rid in rids if connection.execute(query, (rid,)).fetchone()}
        connection.executemany(
            "UPDATE jobs SET not_before = 0, attempts = 0, error = NULL WHERE task = ? AND rid = ?",
            [(task, rid) for rid in owing],
        )
        return [rid for rid in rids if rid not in owing]

    def postpone(self, task: str, rids: Sequence[int], error: str) -> None:
        """Put failed jobs back with a growing delay (1 s doubling to 1 h). They are never dropped."""
        now, skipping = to_micros(self._clock()), self._connections.skipping
        for tenant, some in self._connections.by_tenant(rids).items():
            with self._connections.writing(tenant, lazily=True, alone=not skipping, quietly=True) as connection:
                connection.executemany(
                    f"UPDATE jobs SET attempts = attempts + 1, error = ?, not_before = ? + {_LATER} "
                    "WHERE task = ? AND rid = ?",
                    [(error[:500], now, task, rid) for rid in some],
                )

    def retry(self) -> None:
        """Make every postponed job due at once."""
        for tenant in self._connections.chains():
            with self._connections.reading(tenant) as connection:
                put_off = connection.execute("SELECT 1 FROM jobs WHERE not_before <> 0 LIMIT 1").fetchone()
            if put_off is None:  # as mostly: who only looks keeps nobody from writing
                continue
            with self._connections.writing(tenant, quietly=True) as connection:
                connection.execute("UPDATE jobs SET not_before = 0 WHERE not_before <> 0")

    def lacking(self, table: str) -> tuple[int, str | None]:
        """How many rows that owe a vector have none in a vector table, and the last error with them."""
        with self._connections.reading(WHOLE) as connection:
            query = (
                "SELECT count(*), max(error) FROM jobs WHERE task = 'embed' "
                f"AND NOT EXISTS (SELECT 1 FROM {fold_table(table)} AS t WHERE t.rid = jobs.rid /*= t jobs */)"
            )
            count, error = connection.execute(query).fetchone()
        return count, error

    def owed(self, part: int) -> dict[str, int]:
        """For each task: how many rows of a partition wait for it."""
        low, high = part << schema.PARTITION_BITS, ((part + 1) << schema.PARTITION_BITS) - 1
        with self._connections.reading(self._connections.tenant_of(part)) as connection:
            query = "SELECT count(*) FROM jobs WHERE task = ? AND rid BETWEEN ? AND ?"
            found = {
                task: connection.execute(query, (task, low, high)).fetchone()[0] for task in owed_tasks(connection)
            }
        return {task: count for task, count in found.items() if count}

    def backlog(self) -> dict[str, tuple[int, int, str | None]]:
        """For each task: how many jobs wait, how many of them failed before, and the last error."""
        with self._connections.reading(WHOLE) as connection:
            return {
                task: (waiting, failed, error)
                for task, waiting, failed, error in connection.execute(
                    "SELECT task, count(*), sum(CASE WHEN attempts > 0 THEN 1 ELSE 0 END), max(error) FROM jobs GROUP BY task"
                )
            }


def owed_tasks(connection: Database) -> list[str]:
    """The tasks that anything is owed: jobs are found by task and row, and by row alone only one by one."""
    query = (
        "WITH RECURSIVE t(task) AS (SELECT min(task) FROM jobs UNION ALL "
        "SELECT (SELECT min(task) FROM jobs WHERE task > t.task) FROM t WHERE t.task IS NOT NULL) "
        "SELECT task FROM t WHERE task IS NOT NULL"
    )
    return [task for (task,) in connection.execute(query)]


# --- folds ---


def vector_tables(connection: Database) -> list[str]:
    """The folds that there is one of for each embedding model."""
    return [f"vectors_{no}" for (no,) in connection.execute("SELECT no FROM models")]


def fold_table(name: str) -> str:
    """The name itself, fit to stand in a query. Raises StoreError where it is no fold's."""
    if name in FOLDS or (name.startswith("vectors_") and name[8:].isdigit()):
        return name
    raise StoreError(f"there is no fold named {name!r}")


def put(connection: Database, table: str, rows: Sequence[tuple[int, bytes]]) -> None:
    """Write rows of a fold, in place of what was there; without those of memories that are not there any more."""
    connection.executemany(f"DELETE FROM {fold_table(table)} WHERE rid = ?", [(rid,) for rid, _ in rows])
    there = "EXISTS (SELECT 1 FROM cubes WHERE rid = ?1)"
    connection.executemany(f"INSERT INTO {fold_table(table)} (rid, body) SELECT ?1, ?2 WHERE {there}", rows)


def arrive(connection: Database, part: int, fold: str, rids: Sequence[int]) -> None:
    """Tell the indexes of all processes that a fold of these rows came, changed or went."""
    packed = b"".join(rid.to_bytes(8, "little") for rid in rids)
    connection.execute("INSERT INTO arrivals (part, fold, rids) VALUES (?, ?, ?)", (part, fold, packed))
