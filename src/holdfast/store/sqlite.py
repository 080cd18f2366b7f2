"""The embedded store: one SQLite file in WAL mode, through the standard library.

The journal is the truth. Every change is an event in a hash chain, written in the same transaction as the row it changes;
the lexical fold of a row is written there too, so a memory can be found the moment ``commit`` returns. Everything slower
(vectors, names, dates) follows from a queue in the same file, and every fold can be thrown away and made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from holdfast.cube import (
    HELD,
    MAX_TEXT_BYTES,
    TRANSITIONS,
    Cube,
    Ref,
    Scope,
    Status,
    Use,
    from_micros,
    to_micros,
)
from holdfast.errors import ConflictError, InputError, IntegrityError, NotFoundError, ScopeError, StoreError
from holdfast.store import schema
from holdfast.store.base import Action, Commit, Event, Op, Operation, Where
from holdfast.store.connection import Connections, translated
from holdfast.store.journal import GENESIS, Problem, digest, link
from holdfast.store.proof import check_store, use_digest

Clock = Callable[[], datetime]

_ANY = Where()

FOLDS = ("terms", "names", "dates")
"""The folds that are the same for every embedding model; vectors have a table a model, ``vectors_N``."""

FOLD_SECONDS = 5.0
"""How long an erasure waits for readers of the write-ahead log that it wants to cut."""

KNOWN_PARTITIONS = 100_000
"""How many tenants' and users' partition numbers a process remembers."""

LEASE_SECONDS = 60
"""How long a worker has to finish the jobs it took; after that others may take them."""


@dataclass(frozen=True, slots=True)
class Row:
    """A version as it lies in the store."""

    rid: int
    cube: Cube
    known_from: int
    known_to: int | None


@dataclass(frozen=True, slots=True)
class Erased:
    """What a purge took away, as a last look: every version, and the random salt that lay beside each in the file.

    ``named`` are the ids that were asked for; the others were derived from them.
    """

    seq: int
    named: tuple[str, ...] = ()
    versions: tuple[Cube, ...] = ()
    salts: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened to a partition since an index last looked: versions that ended, and folds that came or went."""

    seq: int
    arrival: int
    ended: dict[int, int]
    arrivals: list[tuple[str, list[int]]]


class SqliteStore:
    """Cubes in one SQLite file inside a folder. Safe for any number of threads and processes.

    Args:
        folder: created on first use; holds ``holdfast.db``, ``blobs/``, ``backups/``.
        terms: the lexical fold of a cube, written with its row (None: not kept).
        tasks: what the queue owes every recallable text row, for example ("embed", "enrich").
        clock: the current time; an argument so that a replay or a test can set it.
        durability: "full" survives power loss, "normal" only the death of the process.
    """

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
        self.tasks = tuple(tasks)
        self._terms = terms
        self._clock = clock or _now
        self._numbers: dict[str, int] = {}
        file = self.folder / "holdfast.db"
        with translated(file):
            if self.folder.exists() and not self.folder.is_dir():
                raise StoreError(f"{self.folder} is a file; a store is a folder, give another path")
            self.folder.mkdir(parents=True, exist_ok=True)
        self.connections = Connections(file, durability=durability)
        try:
            with translated(file):
                schema.migrate(self.connections.writer, self.folder)
        except BaseException:
            self.connections.close()
            raise

    def close(self) -> None:
        """Close the files. The store can be opened again at any time."""
        self.connections.close()

    # --- writing ---

    def commit(self, operations: Sequence[Operation], *, actor: str = "") -> Commit:
        """Apply operations in one durable transaction, with their events; all of them or none.

        Raises InputError (nothing to store), ConflictError (changed meanwhile, or the status forbids it), ScopeError
        (a parent in another partition), NotFoundError, StoreError.
        """
        if not any(operation.op is not Op.NONE for operation in operations):
            return Commit(0)
        words = [self._words(operation) for operation in operations]  # before the lock: a long text takes a second
        with self.connections.writing() as connection:
            batch = _Batch(self, connection, actor)
            for operation, batch.words in zip(operations, words, strict=True):
                batch.apply(operation)
            return batch.finish()

    def _words(self, operation: Operation) -> bytes | None:
        if self._terms is None or operation.cube is None or operation.op is Op.DELETE:
            return None
        _check(operation.cube)
        return self._terms(operation.cube)

    def feedback(
        self, ids: Iterable[str], scope: Scope, reward: float, *, rate: float = 0.3, actor: str = ""
    ) -> Commit:
        """Record that memories were used and how well that went (a reward in [-1, 1]); utility moves towards it.

        This is the only thing that changes ``use``: looking at a memory never does.
        """
        if not -1.0 <= reward <= 1.0:
            raise InputError(f"a reward lies between -1 and 1, not {reward}")
        with self.connections.writing() as connection:
            batch = _Batch(self, connection, actor)
            for id in ids:
                batch.feedback(self._current(connection, id, scope), reward, rate)
            return batch.finish()

    def undo(
        self, seq: int, scope: Scope, *, also: Sequence[Operation] = (), actor: str = "", reason: str = ""
    ) -> Commit:
        """Take back the transaction that event ``seq`` belongs to, by new events: the past stays readable.

        What it added is archived, what it changed returns to the version before; ``also`` holds what follows from that, and
        is applied in the same transaction. An undo can itself be undone. Raises
        NotFoundError where the scope may not see all of it, and ConflictError when something was changed again since, or
        was purged.
        """
        with self.connections.writing() as connection:
            part = self._part(connection, scope.partition)
            events = list(
                self._events(connection, "txn = (SELECT txn FROM journal WHERE seq = ? AND part = ?)", (seq, part))
            )
            # A transaction that touched another user's memories is not this user's to take back, nor to know of.
            if not events or any(event.partition != scope.partition for event in events):
                raise NotFoundError(f"the journal has no event {seq} in {scope.path}; see: holdfast history")
            made: dict[str, list[Event]] = {}
            for event in events:
                made.setdefault(event.id, []).append(event)
            batch = _Batch(self, connection, actor)
            for some in reversed(made.values()):
                batch.undo(some, scope, reason or f"undo of {events[0].txn}")
            for operation in also:
                batch.apply(operation)
            return batch.finish()

    def purge(
        self, ids: Iterable[str], scope: Scope, *, where: Where | None = None, actor: str = "", reason: str = ""
    ) -> Erased:
        """Erase these cubes, those that pass a filter, and everything derived from them: every version, every fold.

        A tombstone each stays. The ids must be visible in the scope (NotFoundError otherwise, and nothing is erased); what
        was derived goes wherever it lies in the same tenant and user.
        """
        with self.connections.writing() as connection:
            named = dict.fromkeys(ids)
            for id in named:
                self._current(connection, id, scope)
            if where is not None:
                named |= dict.fromkeys(row.cube.id for row in self._rows(connection, scope, where))
            batch = _Batch(self, connection, actor)
            versions: list[Cube] = []
            salts: list[bytes] = []
            for id in self._closure(connection, named):
                for *record, salt in connection.execute(
                    f"{_SELECT_SALTED} WHERE cubes.id = ? ORDER BY version", (_bytes(id),)
                ):
                    versions.append(_row(record).cube)
                    salts.append(salt)
                batch.purge(id, reason)
            done = batch.finish()
        return Erased(done.seq, tuple(named), tuple(versions), tuple(salts))

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

    def leftovers(self, ids: Sequence[str]) -> dict[str, int]:
        """How many rows of each table still belong to these ids: all 0 after a purge."""
        with self.connections.reading() as connection:
            found = dict.fromkeys(("cubes", "links", "uses", "folds", "jobs"), 0)
            for id in map(_bytes, ids):
                found["cubes"] += connection.execute("SELECT count(*) FROM cubes WHERE id = ?", (id,)).fetchone()[0]
                query = "SELECT count(*) FROM links WHERE child = ?1 OR parent = ?1"
                found["links"] += connection.execute(query, (id,)).fetchone()[0]
                found["uses"] += connection.execute("SELECT count(*) FROM uses WHERE id = ?", (id,)).fetchone()[0]
            tables = [*FOLDS, *(f"vectors_{no}" for (no,) in connection.execute("SELECT no FROM models"))]
            for table in tables:
                query = f"SELECT count(*) FROM {table} WHERE rid NOT IN (SELECT rid FROM cubes)"
                found["folds"] += connection.execute(query).fetchone()[0]
            query = "SELECT count(*) FROM jobs WHERE rid NOT IN (SELECT rid FROM cubes)"
            found["jobs"] = connection.execute(query).fetchone()[0]
        return found

    def bodies(self) -> Iterator[str]:
        """The rows of everybody as they lie in the file, many in one piece, for the proof that something is not among them."""
        with self.connections.reading() as connection:
            rows = connection.execute("SELECT body FROM cubes")
            while some := rows.fetchmany(4096):
                yield "\n".join(body for (body,) in some)

    # --- reading ---

    def get(self, id: str, scope: Scope, *, version: int | None = None) -> Cube:
        """One cube (its current version unless one is named). Raises NotFoundError, also outside the scope."""
        with self.connections.reading() as connection:
            return self._current(connection, id, scope, version).cube

    def select(self, scope: Scope, where: Where = _ANY) -> Iterator[Cube]:
        """The cubes in a scope that pass a filter, oldest first; current versions unless ``known_at`` is set."""
        for row in self.rows(scope, where):
            yield row.cube

    def rows(self, scope: Scope, where: Where = _ANY) -> Iterator[Row]:
        """As ``select``, with the row numbers that folds use."""
        with self.connections.reading() as connection:
            found = self._rows(connection, scope, where)
        yield from found

    def _rows(self, connection: sqlite3.Connection, scope: Scope, where: Where) -> list[Row]:
        part = self._part(connection, scope.partition)
        if part is None:
            return []
        clauses, values = _conditions(scope, where)
        clauses.insert(0, "cubes.rid BETWEEN ? AND ?")
        values[:0] = part << schema.PARTITION_BITS, ((part + 1) << schema.PARTITION_BITS) - 1
        limit = f" LIMIT {int(where.limit)}" if where.limit is not None else ""
        query = f"{_SELECT} WHERE {' AND '.join(clauses)} ORDER BY cubes.rid{limit}"
        found = map(_row, connection.execute(query, values))
        return [
            row for row in found if scope.covers(row.cube.scope)
        ]  # by what it says of itself, not only by its columns

    def versions(self, id: str, scope: Scope) -> list[Row]:
        """Every version of one cube, oldest first. Raises NotFoundError."""
        with self.connections.reading() as connection:
            self._current(connection, id, scope)
            found = connection.execute(f"{_SELECT} WHERE cubes.id = ? ORDER BY version", (_bytes(id),)).fetchall()
        return [_row(record) for record in found]

    def by_rids(self, scope: Scope, rids: Sequence[int]) -> dict[int, Row]:
        """The rows with these numbers that the scope may see."""
        with self.connections.reading() as connection:
            part = self._number(connection, scope.partition)
            found: dict[int, Row] = {}
            for start in range(0, len(rids), 500):
                some = [int(rid) for rid in rids[start : start + 500]]
                marks = ",".join("?" * len(some))
                for record in connection.execute(f"{_SELECT} WHERE cubes.rid IN ({marks})", some):
                    if record[0] >> schema.PARTITION_BITS == part:
                        row = _row(record)
                        if scope.covers(row.cube.scope):
                            found[row.rid] = row
        return found

    def events(self, since: int = 0, *, scope: Scope | None = None, id: str | None = None) -> Iterator[Event]:
        """The journal after ``since``, oldest first."""
        clauses, values = ["seq > ?"], [since]  # type: tuple[list[str], list[Any]]
        with self.connections.reading() as connection:
            if scope is not None:
                clauses.append("part = ?")
                values.append(self._part(connection, scope.partition) or -1)
            if id is not None:
                clauses.append("id = ?")
                values.append(_bytes(id))
            found = list(self._events(connection, " AND ".join(clauses), values))
        yield from found

    def lineage(self, id: str, scope: Scope, *, down: bool = True) -> list[Ref]:
        """Everything derived from a cube (``down``), or everything it was derived from, nearest first.

        Of what lies in the scope: lineage leads through the memories of other agents and sessions, and does not show them.
        """
        with self.connections.reading() as connection:
            self._current(connection, id, scope)
            return [
                ref
                for ref in self._walk(connection, [id], down)
                if self._visible(connection, ref.id, scope) is not None
            ]

    def derived(self, ids: Iterable[str], scope: Scope) -> list[str]:
        """The ids and everything derived from them, nearest first, wherever it lies in the same tenant and user.

        Raises NotFoundError for an id that the scope does not hold.
        """
        with self.connections.reading() as connection:
            named = list(dict.fromkeys(ids))
            for id in named:
                self._current(connection, id, scope)
            return self._closure(connection, named)

    def partition(self, scope: Scope) -> int | None:
        """The partition's number, or None while nothing was ever written there."""
        known = self._numbers.get(scope.partition)
        if known is not None:
            return known
        with self.connections.reading() as connection:
            return self._number(connection, scope.partition)

    def partitions(self) -> list[str]:
        """The paths tenant/user of everything in the store."""
        with self.connections.reading() as connection:
            return [path for (path,) in connection.execute("SELECT path FROM partitions ORDER BY path")]

    def head(self) -> tuple[int, str]:
        """The newest event's seq and hash: note it elsewhere, and nobody can rewrite or cut the journal unseen."""
        with self.connections.reading() as connection:
            seq, hash = _head(connection)[:2]
        return seq, hash.hex()

    def counts(self) -> dict[str, int]:
        """How many of what the store holds, for ``status``."""
        queries = {
            "memories": "SELECT count(*) FROM cubes WHERE known_to IS NULL",
            "versions": "SELECT count(*) FROM cubes",
            "events": "SELECT coalesce(max(seq), 0) FROM journal",
            "partitions": "SELECT count(*) FROM partitions",
            "purged": "SELECT count(*) FROM tombstones",
        }
        with self.connections.reading() as connection:
            return {name: connection.execute(query).fetchone()[0] for name, query in queries.items()}

    # --- proof ---

    def verify(self, head: tuple[int, str] | None = None) -> list[Problem]:
        """Check the whole chain, and every row of every table that it vouches for. An empty list means all is well.

        ``head`` is what ``head()`` said earlier: with it, a journal that was cut or rewritten as a whole since is found too.
        """
        with self.connections.reading() as connection:
            return check_store(connection, content_key, _columns, head)

    # --- folds and their queue ---

    def fold(self, table: str, part: int, after: int = -1) -> list[tuple[int, bytes]]:
        """A fold's rows of one partition with n > ``after``, in order. ``table`` is one of FOLDS or a vector table."""
        low = (part << schema.PARTITION_BITS) + after + 1
        high = ((part + 1) << schema.PARTITION_BITS) - 1
        with self.connections.reading() as connection:
            query = f"SELECT rid, body FROM {_table(table)} WHERE rid BETWEEN ? AND ?"
            return connection.execute(query, (low, high)).fetchall()

    def fold_rows(self, table: str, rids: Sequence[int]) -> list[tuple[int, bytes]]:
        """A fold's rows with these numbers."""
        with self.connections.reading() as connection:
            query = f"SELECT rid, body FROM {_table(table)} WHERE rid = ?"
            return [record for rid in rids for record in connection.execute(query, (int(rid),))]

    def put_folds(self, folds: Mapping[str, Sequence[tuple[int, bytes]]], *, task: str, done: Sequence[int]) -> None:
        """Write folds (table: rows) and settle the jobs that owed them, in one transaction.

        Rows that were purged meanwhile are left out, so that nothing comes back.
        """
        with self.connections.writing(lazily=True) as connection:
            for table, rows in folds.items():
                connection.executemany(
                    f"INSERT OR REPLACE INTO {_table(table)} (rid, body) "
                    "SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM cubes WHERE rid = ?1)",
                    rows,
                )
                by_part: dict[int, list[int]] = {}
                for rid, _ in rows:
                    by_part.setdefault(rid >> schema.PARTITION_BITS, []).append(rid)
                for part, rids in by_part.items():
                    _arrive(connection, part, table, rids)
            if any(table.startswith("vectors_") for table in folds):
                done = self._everywhere(connection, task, done)
            connection.executemany("DELETE FROM jobs WHERE task = ? AND rid = ?", [(task, rid) for rid in done])

    @staticmethod
    def _everywhere(connection: sqlite3.Connection, task: str, rids: Sequence[int]) -> list[int]:
        """Those rows that every model has a vector of; the others are due again at once, for the other models' workers."""
        tables = [f"vectors_{no}" for (no,) in connection.execute("SELECT no FROM models")]
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

    def take(
        self, task: str, limit: int, *, partition: int | None = None, lacking: str | None = None, held: bool = False
    ) -> list[int]:
        """Take up to ``limit`` due jobs, oldest first, for LEASE_SECONDS; return their row numbers.

        Of rows without an entry in the table ``lacking``, where one is given; with ``held``, also jobs that others have
        taken or put off. Jobs that failed before are taken in ever
        smaller batches, so that one bad row ends up alone. If the process dies, the lease runs out and another process
        takes them.
        """
        low, high = 0, 1 << 62
        if partition is not None:
            low, high = partition << schema.PARTITION_BITS, ((partition + 1) << schema.PARTITION_BITS) - 1
        now = to_micros(self._clock())
        lease = now + LEASE_SECONDS * 1_000_000
        without = f" AND NOT EXISTS (SELECT 1 FROM {_table(lacking)} AS t WHERE t.rid = jobs.rid)" if lacking else ""
        # A time far ahead was written before the clock was set back: such a job is due.
        due = (
            f"SELECT rid, attempts FROM jobs WHERE task = ?1 AND ({int(held)} OR not_before <= ?2 OR not_before > ?2 + 7200000000) "
            f"AND rid BETWEEN ?3 AND ?4{without} ORDER BY rid LIMIT ?5"
        )
        with self.connections.reading() as connection:
            first = connection.execute(due, (task, now, low, high, 1)).fetchone()
            if first is None:
                return []
        limit = max(1, limit >> min(first[1], 16))
        with self.connections.writing(lazily=True) as connection:
            rids = [rid for rid, _ in connection.execute(due, (task, now, low, high, limit))]
            connection.executemany(
                "UPDATE jobs SET not_before = ? WHERE task = ? AND rid = ?", [(lease, task, rid) for rid in rids]
            )
        return rids

    def texts(self, rids: Sequence[int]) -> list[Row]:
        """The rows with these numbers, for the queue's workers (they serve every scope)."""
        with self.connections.reading() as connection:
            found = []
            for rid in rids:
                record = connection.execute(f"{_SELECT} WHERE cubes.rid = ?", (rid,)).fetchone()
                if record is not None:
                    found.append(_row(record))
        return found

    def settle(self, task: str, rids: Sequence[int]) -> None:
        """Take finished jobs off the queue."""
        with self.connections.writing(lazily=True) as connection:
            connection.executemany("DELETE FROM jobs WHERE task = ? AND rid = ?", [(task, rid) for rid in rids])

    def postpone(self, task: str, rids: Sequence[int], error: str) -> None:
        """Put failed jobs back with a growing delay (1 s doubling to 1 h). They are never dropped."""
        with self.connections.writing(lazily=True) as connection:
            now = to_micros(self._clock())
            for rid in rids:
                connection.execute(
                    "UPDATE jobs SET attempts = attempts + 1, error = ?, "
                    "not_before = ? + 1000000 * min(3600, 1 << min(attempts, 12)) WHERE task = ? AND rid = ?",
                    (error[:500], now, task, rid),
                )

    def retry(self) -> None:
        """Make every postponed job due at once."""
        with self.connections.writing() as connection:
            connection.execute("UPDATE jobs SET not_before = 0")

    def lacking(self, table: str) -> tuple[int, str | None]:
        """How many rows that owe a vector have none in a vector table, and the last error with them."""
        with self.connections.reading() as connection:
            query = (
                "SELECT count(*), max(error) FROM jobs WHERE task = 'embed' "
                f"AND NOT EXISTS (SELECT 1 FROM {_table(table)} AS t WHERE t.rid = jobs.rid)"
            )
            count, error = connection.execute(query).fetchone()
        return count, error

    def backlog(self) -> dict[str, tuple[int, int, str | None]]:
        """For each task: how many jobs wait, how many of them failed before, and the last error."""
        with self.connections.reading() as connection:
            return {
                task: (waiting, failed, error)
                for task, waiting, failed, error in connection.execute(
                    "SELECT task, count(*), sum(attempts > 0), max(error) FROM jobs GROUP BY task"
                )
            }

    def changes(self, part: int, seq: int, arrival: int) -> Changes:
        """What an index of a partition has to catch up with after event ``seq`` and arrival ``arrival``.

        After event 0 that is all rows with all their folds, as they are now, so only the watermarks are said.
        """
        with self.connections.reading() as connection:
            if seq == 0:
                last, come = connection.execute(
                    "SELECT (SELECT coalesce(max(seq), 0) FROM journal WHERE part = ?1), "
                    "(SELECT coalesce(max(n), 0) FROM arrivals WHERE part = ?1)",
                    (part,),
                ).fetchone()
                return Changes(last, come, {}, [])
            events = connection.execute(
                "SELECT seq, action, id FROM journal WHERE part = ? AND seq > ? ORDER BY seq", (part, seq)
            ).fetchall()
            arrivals = connection.execute(
                "SELECT n, fold, rids FROM arrivals WHERE part = ? AND n > ? ORDER BY n", (part, arrival)
            ).fetchall()
            ended: dict[int, int] = {}
            for _, action, id in events:
                if action in (Action.UPDATE, Action.DELETE, Action.UNDO):
                    ended.update(
                        connection.execute(
                            "SELECT rid, known_to FROM cubes WHERE id = ? AND known_to IS NOT NULL", (id,)
                        )
                    )
        return Changes(
            seq=events[-1][0] if events else seq,
            arrival=arrivals[-1][0] if arrivals else arrival,
            ended=ended,
            arrivals=[
                (fold, [int.from_bytes(rids[i : i + 8], "little") for i in range(0, len(rids), 8)])
                for _, fold, rids in arrivals
            ],
        )

    def headers(self, part: int, after: int = -1) -> list[tuple[Any, ...]]:
        """The columns that searches filter by, of a partition's rows with n > ``after``, in order.

        (rid, known_from, known_to, valid_from, valid_to, expires_at, kind, status, agent, session, author, trust, the rid
        of the version before or None)
        """
        low = (part << schema.PARTITION_BITS) + after + 1
        high = ((part + 1) << schema.PARTITION_BITS) - 1
        with self.connections.reading() as connection:
            return connection.execute(
                "SELECT rid, known_from, known_to, valid_from, valid_to, expires_at, kind, status, agent, session, author, "
                "trust, CASE WHEN version > 1 THEN (SELECT rid FROM cubes AS old WHERE old.id = cubes.id AND "
                "old.version = cubes.version - 1) END FROM cubes WHERE rid BETWEEN ? AND ? ORDER BY rid",
                (low, high),
            ).fetchall()

    def data_version(self) -> tuple[int, int]:
        """(connection, number): for one connection the number changes whenever another has committed.

        The cheapest test for "nothing new"; numbers of two connections say nothing about each other.
        """
        with self.connections.reader() as connection:
            return connection.number, int(connection.execute("PRAGMA data_version").fetchone()[0])

    def rebuild(self, terms: Callable[[Cube], bytes], stamp: str) -> int:
        """Make the lexical fold again from the cubes, and note under which analyser; return how many rows."""
        with self.connections.writing() as connection:
            connection.execute("DELETE FROM terms")
            done = 0
            reading = connection.execute(f"{_SELECT} ORDER BY cubes.rid")
            while some := reading.fetchmany(1000):
                rows = [_row(record) for record in some]
                connection.executemany("INSERT INTO terms VALUES (?, ?)", [(row.rid, terms(row.cube)) for row in rows])
                done += len(rows)
            self._set_meta(connection, "analyser", stamp)
            for (part,) in connection.execute("SELECT no FROM partitions").fetchall():
                _arrive(connection, part, "terms", [])
        return done

    def meta(self, key: str) -> str | None:
        """A note that the store keeps about itself."""
        with self.connections.reading() as connection:
            found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    def set_meta(self, key: str, value: str) -> None:
        """Write such a note."""
        with self.connections.writing() as connection:
            self._set_meta(connection, key, value)

    @staticmethod
    def _set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # --- vector tables ---

    def models(self) -> list[tuple[int, str, int, bool]]:
        """Every embedding model the store has vectors of: (number, name, dimension, whether searches use it)."""
        with self.connections.reading() as connection:
            return [
                (no, name, dimension, bool(active))
                for no, name, dimension, active in connection.execute("SELECT * FROM models ORDER BY no")
            ]

    def add_model(self, name: str, dimension: int, *, beside: bool = True) -> int:
        """Give a model a table of its own and queue every recallable row for it; return its number.

        The model that serves now goes on serving until ``activate``. Without ``beside``, raises ConflictError where the
        store has vectors of other models only.
        """
        with self.connections.writing() as connection:
            found = connection.execute("SELECT no, dimension FROM models WHERE name = ?", (name,)).fetchone()
            if found is not None:
                if found[1] != dimension:
                    raise ConflictError(
                        f"the store holds vectors of {name!r} with {found[1]} dimensions, and it now gives {dimension}; "
                        "nothing was changed. Give the new model another name"
                    )
                return int(found[0])
            no = connection.execute("SELECT coalesce(max(no), 0) + 1 FROM models").fetchone()[0]
            if no > 1 and not beside:
                raise ConflictError(f"this store's vectors are not of {name!r} by now; open the store again")
            connection.execute("INSERT INTO models VALUES (?, ?, ?, 0)", (no, name, dimension))
            connection.execute(f"CREATE TABLE vectors_{no} (rid INTEGER PRIMARY KEY, body BLOB NOT NULL)")
            connection.execute(
                "INSERT OR IGNORE INTO jobs (task, rid) "
                "SELECT 'embed', rid FROM cubes WHERE known_to IS NULL AND trim(json_extract(body, '$.text')) <> ''"
            )
        return int(no)

    def activate(self, no: int) -> None:
        """Let searches use this model's vectors, and drop the tables of all others."""
        with self.connections.writing() as connection:
            if connection.execute("SELECT 1 FROM models WHERE no = ?", (no,)).fetchone() is None:
                raise StoreError(f"there is no embedding model number {no} in this store; nothing was changed")
            for (other,) in connection.execute("SELECT no FROM models WHERE no <> ?", (no,)).fetchall():
                connection.execute(f"DROP TABLE vectors_{other}")
            connection.execute("DELETE FROM models WHERE no <> ?", (no,))
            connection.execute("UPDATE models SET active = 1 WHERE no = ?", (no,))
            connection.execute(f"DELETE FROM jobs WHERE task = 'embed' AND rid IN (SELECT rid FROM vectors_{int(no)})")

    def serve(self, no: int) -> None:
        """Let searches use this model's vectors, and keep the others."""
        with self.connections.writing() as connection:
            connection.execute("UPDATE models SET active = (no = ?)", (no,))

    # --- inside ---

    def now(self) -> datetime:
        """The store's time."""
        return self._clock()

    def _number(self, reading: sqlite3.Connection, path: str) -> int | None:
        """As ``_part``, from memory where it was read before: once committed, a partition's number never changes."""
        found = self._numbers.get(path)
        if found is None and (found := self._part(reading, path)) is not None:
            if len(self._numbers) >= KNOWN_PARTITIONS:
                self._numbers.clear()
            self._numbers[path] = found
        return found

    @staticmethod
    def _part(connection: sqlite3.Connection, path: str) -> int | None:
        found = connection.execute("SELECT no FROM partitions WHERE path = ?", (path,)).fetchone()
        return found[0] if found else None

    @staticmethod
    def _walk(connection: sqlite3.Connection, ids: Iterable[str], down: bool) -> list[Ref]:
        """What links lead to from some cubes, nearest first, without themselves."""
        near, far = ("parent", "child") if down else ("child", "parent")
        query = f"SELECT {far}, max({far}_version) FROM links WHERE {near} = ? GROUP BY {far}"
        frontier = list(dict.fromkeys(map(_bytes, ids)))
        seen = set(frontier)
        found = []
        while frontier:
            step = {blob: version for id in frontier for blob, version in connection.execute(query, (id,))}
            frontier = sorted(step.keys() - seen)
            seen.update(frontier)
            found += [Ref(_text(blob), step[blob]) for blob in frontier]
        return found

    def _closure(self, connection: sqlite3.Connection, ids: Iterable[str]) -> list[str]:
        named = list(dict.fromkeys(ids))
        return [*named, *(ref.id for ref in self._walk(connection, named, down=True))]

    def _current(self, connection: sqlite3.Connection, id: str, scope: Scope, version: int | None = None) -> Row:
        row = self._visible(connection, id, scope, version)
        if row is None:
            # One answer for "does not exist", "is not yours" and "was forgotten": a caller learns nothing about others.
            raise NotFoundError(f"no memory {id} in {scope.path}")
        return row

    def _visible(self, connection: sqlite3.Connection, id: str, scope: Scope, version: int | None = None) -> Row | None:
        which = "known_to IS NULL" if version is None else "version = ?"
        values = (_bytes(id),) if version is None else (_bytes(id), version)
        record = connection.execute(f"{_SELECT} WHERE cubes.id = ? AND {which}", values).fetchone()
        if record is not None and record[0] >> schema.PARTITION_BITS == self._part(connection, scope.partition):
            row = _row(record)
            if scope.covers(row.cube.scope):
                return row
        return None

    def _events(self, connection: sqlite3.Connection, condition: str, values: Sequence[Any]) -> Iterator[Event]:
        paths = dict(connection.execute("SELECT no, path FROM partitions"))
        query = (
            "SELECT seq, txn, at, actor, action, part, id, version, reason, digest, hash FROM journal "
            f"WHERE {condition} ORDER BY seq"
        )
        for seq, txn, at, actor, action, part, id, version, reason, content, hash in connection.execute(query, values):
            try:
                yield Event(
                    seq, txn, from_micros(at), actor, Action(action), paths.get(part, "?"), _text(id), version, reason,
                    content, hash,
                )  # fmt: skip
            except (TypeError, ValueError, OverflowError) as error:
                raise IntegrityError(
                    f"event {seq} of the journal is damaged ({error}); see: holdfast doctor"
                ) from error


class _Batch:
    """One write transaction while it is being made: the state that its operations share."""

    def __init__(self, store: SqliteStore, connection: sqlite3.Connection, actor: str) -> None:
        self.store = store
        self.connection = connection
        self.actor = actor.encode("utf-8", "replace").decode()
        self.seq, self.previous, last_at = _head(connection)
        self.txn = self.seq + 1
        # Time never runs backwards in the journal, whatever the clock does.
        self.at = max(to_micros(store.now()), last_at)
        self.parts: dict[str, tuple[int, int]] = {}
        self.cubes: list[Cube] = []
        self.duplicates: list[str] = []
        self.journal: list[tuple[Any, ...]] = []
        self.words: bytes | None = None  # the lexical fold of the operation at hand, where it was made beforehand

    def apply(self, operation: Operation) -> None:
        if operation.op is Op.NONE:
            return
        cube = operation.cube
        if cube is None:
            raise InputError(f"an operation '{operation.op}' needs a cube")
        if operation.op is Op.ADD:
            self.add(cube, operation.reason)
        elif operation.op is Op.UPDATE:
            self.update(cube, operation.reason)
        else:
            row = self.store._current(self.connection, cube.id, cube.scope)
            self.replace(row, replace(row.cube, status=Status.ARCHIVED), Action.DELETE, operation.reason)

    def add(self, cube: Cube, reason: str) -> None:
        key = content_key(cube)
        if cube.status in HELD:
            found = self.connection.execute("SELECT id FROM cubes WHERE key = ?", (key,)).fetchone()
            if found is not None:
                self.duplicates.append(_text(found[0]))
                return
        id = _bytes(cube.id)
        query = "SELECT EXISTS (SELECT 1 FROM tombstones WHERE id = ?1), EXISTS (SELECT 1 FROM cubes WHERE id = ?1)"
        forgotten, taken = self.connection.execute(query, (id,)).fetchone()
        if forgotten:
            raise ConflictError(f"memory {cube.id} was forgotten; it does not come back under the same id")
        if taken:
            held = self.store._visible(self.connection, cube.id, cube.scope)
            if held is None or content_key(held.cube) != key:
                raise ConflictError(
                    f"the id {cube.id} is taken by a memory with other content; update that one, or add this under a new id"
                )
            self.duplicates.append(cube.id)
            return
        first = cube if cube.version == 1 else replace(cube, version=1)
        self.write(first, Action.ADD, reason, self.learnt(cube), key=key)
        if cube.use != Use():  # an import brings what feedback said elsewhere
            self.use(id, cube.use)

    def update(self, cube: Cube, reason: str) -> None:
        row = self.store._current(self.connection, cube.id, cube.scope)
        old = row.cube
        if cube.version != old.version:
            raise ConflictError(
                f"memory {cube.id} is at version {old.version}, and this change was made from {cube.version}; read it again"
            )
        if cube.status is not old.status and cube.status not in TRANSITIONS[old.status]:
            raise ConflictError(f"a memory that is {old.status} cannot become {cube.status}")
        if old.status is Status.FROZEN and cube.status is Status.FROZEN:
            raise ConflictError(f"memory {cube.id} is frozen; thaw it first (status activated)")
        self.replace(row, cube, Action.UPDATE, reason)

    def undo(self, events: Sequence[Event], scope: Scope, reason: str) -> None:
        """Take back what one transaction did to one cube."""
        if any(event.action is Action.PURGE for event in events):
            raise ConflictError("what was forgotten is gone and cannot be brought back; nothing was changed")
        if any(event.action is Action.FEEDBACK for event in events):
            raise ConflictError("feedback is evidence and cannot be undone; give the opposite reward instead")
        id, first, last = events[0].id, events[0].version, events[-1].version
        row = self.store._current(self.connection, id, scope)
        if row.cube.version != last:
            raise ConflictError(f"memory {id} was changed again since (version {row.cube.version}); undo that first")
        if first == 1:
            if row.cube.status is Status.ARCHIVED:
                if last > 1:  # made and retracted in one go: nothing of it is in recall
                    return
                raise ConflictError(f"memory {id} is taken back already")
            before = replace(row.cube, status=Status.ARCHIVED)
        else:
            before = self.store._current(self.connection, id, scope, first - 1).cube
        self.replace(row, before, Action.UNDO, reason)

    def feedback(self, row: Row, reward: float, rate: float) -> None:
        use = row.cube.use
        known = Use(
            visits=use.visits + 1,
            last_use=from_micros(self.at),
            utility=use.utility + rate * (reward - use.utility),
            uncertainty=use.uncertainty * (1 - rate) + rate * abs(reward - use.utility),
        )
        id = _bytes(row.cube.id)
        part = row.rid >> schema.PARTITION_BITS
        mark = self.use(id, known)
        self.record(Action.FEEDBACK, row.cube.scope.partition, part, id, row.cube.version, f"{reward:+.3f}", mark)

    def use(self, id: bytes, use: Use) -> bytes:
        """Note what feedback says of a cube; return the digest that an event vouches for it with."""
        values = (use.visits, _micros(use.last_use), use.utility, use.uncertainty)
        self.connection.execute("INSERT OR REPLACE INTO uses VALUES (?, ?, ?, ?, ?)", (id, *values))
        return use_digest(values)

    def purge(self, id: str, reason: str) -> None:
        blob = _bytes(id)
        current = "SELECT rid, version, body FROM cubes WHERE id = ? AND known_to IS NULL"
        rid, version, body = self.connection.execute(current, (blob,)).fetchone()
        rids = [rid for (rid,) in self.connection.execute("SELECT rid FROM cubes WHERE id = ?", (blob,))]
        tables = [*FOLDS, "cubes"]
        tables += [f"vectors_{no}" for (no,) in self.connection.execute("SELECT no FROM models")]
        for table in tables:
            self.connection.executemany(f"DELETE FROM {table} WHERE rid = ?", [(rid,) for rid in rids])
        self.connection.executemany(
            "DELETE FROM jobs WHERE task = ? AND rid = ?", [(task, rid) for task in self.owed() for rid in rids]
        )
        self.connection.execute("DELETE FROM links WHERE child = ?1 OR parent = ?1", (blob,))
        self.connection.execute("DELETE FROM uses WHERE id = ?", (blob,))
        part = rid >> schema.PARTITION_BITS
        path = Scope.parse(json.loads(body)["scope"]).partition
        self.record(Action.PURGE, path, part, blob, version, reason, bytes(32))
        self.connection.execute("INSERT INTO tombstones VALUES (?, ?)", (blob, self.seq))
        _arrive(self.connection, part, "cubes", rids)

    def replace(self, row: Row, cube: Cube, action: Action, reason: str) -> None:
        """End a version and begin the next, with the old one's folds where the words are the same."""
        learnt = max(self.learnt(cube) if cube.recorded_at != row.cube.recorded_at else self.at, row.known_from)
        self.connection.execute("UPDATE cubes SET known_to = ?, key = NULL WHERE rid = ?", (learnt, row.rid))
        new = replace(cube, version=row.cube.version + 1, scope=row.cube.scope)
        same = _wording(new) == _wording(row.cube)
        rid = self.write(new, action, reason, learnt, owed=not same)
        if same:
            tables = ["names", "dates"]
            tables += [f"vectors_{no}" for (no,) in self.connection.execute("SELECT no FROM models")]
            for table in tables:
                self.connection.execute(
                    f"INSERT INTO {table} SELECT ?, body FROM {table} WHERE rid = ?", (rid, row.rid)
                )
            # What was still owed to the old version is owed to the new one.
            move = "UPDATE OR REPLACE jobs SET rid = ? WHERE task = ? AND rid = ?"
            self.connection.executemany(move, [(rid, task, row.rid) for task in self.owed()])
        else:
            drop = "DELETE FROM jobs WHERE task = ? AND rid = ?"
            self.connection.executemany(drop, [(task, row.rid) for task in self.owed()])

    def write(
        self, cube: Cube, action: Action, reason: str, learnt: int, *, owed: bool = True, key: bytes | None = None
    ) -> int:
        _check(cube)
        part, n = self.place(cube.scope.partition)
        rid = part << schema.PARTITION_BITS | n
        id = _bytes(cube.id)
        salt = os.urandom(16)
        cube = replace(cube, recorded_at=from_micros(learnt))
        body = pack(cube)
        self.record(action, cube.scope.partition, part, id, cube.version, reason, digest(salt, body))
        held = (key or content_key(cube)) if cube.status in HELD else None
        try:
            self.connection.execute(
                "INSERT INTO cubes VALUES (?,?,?,?,?,NULL,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (rid, id, cube.version, self.seq, learnt, *_columns(cube), held, salt, body),
            )
        except sqlite3.IntegrityError as error:
            raise ConflictError(f"the same memory is held already under another id: {cube.text[:80]!r}") from error
        for ref in cube.origin.derived_from:
            self.link(cube, part, id, ref)
        if self.store._terms is not None:
            words = self.store._terms(cube) if self.words is None else self.words
            self.connection.execute("INSERT INTO terms VALUES (?, ?)", (rid, words))
        if owed and cube.text.strip():
            for task in self.store.tasks:
                self.connection.execute("INSERT INTO jobs (task, rid) VALUES (?, ?)", (task, rid))
        self.cubes.append(cube)
        return rid

    def owed(self) -> list[str]:
        """The tasks that anything is owed: jobs are found by task and row, and by row alone only one by one."""
        query = (
            "WITH RECURSIVE t(task) AS (SELECT min(task) FROM jobs UNION ALL "
            "SELECT (SELECT min(task) FROM jobs WHERE task > t.task) FROM t WHERE t.task IS NOT NULL) "
            "SELECT task FROM t WHERE task IS NOT NULL"
        )
        return [task for (task,) in self.connection.execute(query)]

    def link(self, cube: Cube, part: int, id: bytes, ref: Ref) -> None:
        parent = _bytes(ref.id)
        found = self.connection.execute("SELECT rid FROM cubes WHERE id = ? LIMIT 1", (parent,)).fetchone()
        if found is None:
            raise NotFoundError(f"a memory cannot be derived from {ref.id}: there is no such memory")
        if found[0] >> schema.PARTITION_BITS != part:
            raise ScopeError(f"a memory of {cube.scope.partition} cannot be derived from another user's")
        self.connection.execute(
            "INSERT OR IGNORE INTO links VALUES (?, ?, ?, ?)", (id, cube.version, parent, ref.version)
        )

    def place(self, path: str) -> tuple[int, int]:
        """The partition's number and the next free n in it."""
        if path not in self.parts:
            found = self.connection.execute("SELECT no, next FROM partitions WHERE path = ?", (path,)).fetchone()
            if found is None:
                cursor = self.connection.execute("INSERT INTO partitions (path, next) VALUES (?, 0)", (path,))
                found = cursor.lastrowid, 0
            self.parts[path] = found
        part, n = self.parts[path]
        self.parts[path] = part, n + 1
        return part, n

    def learnt(self, cube: Cube) -> int:
        """When we learnt it: now, unless an import says that it was earlier. Never later than now."""
        return self.at if cube.recorded_at is None else min(to_micros(cube.recorded_at), self.at)

    def record(
        self, action: Action, path: str, part: int, id: bytes, version: int, reason: str, content: bytes
    ) -> None:
        self.seq += 1
        reason = reason.encode("utf-8", "replace").decode()
        fields = (self.seq, self.txn, self.at, self.actor, str(action), path, _text(id), version, reason, content.hex())
        self.previous = link(self.previous, fields)
        self.journal.append(
            (self.seq, self.txn, self.at, self.actor, action, part, id, version, reason, content, self.previous)
        )

    def finish(self) -> Commit:
        self.connection.executemany("INSERT INTO journal VALUES (?,?,?,?,?,?,?,?,?,?,?)", self.journal)
        for path, (_, n) in self.parts.items():
            self.connection.execute("UPDATE partitions SET next = ? WHERE path = ?", (n, path))
        return Commit(self.seq if self.journal else 0, tuple(self.cubes), tuple(self.duplicates))


# --- the form of a row ---


def _check(cube: Cube) -> None:
    if not cube.text and cube.blob is None:
        raise InputError("a memory needs a text or a tensor file; this one has neither")
    if len(cube.text) * 4 > MAX_TEXT_BYTES and len(cube.text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        raise InputError(f"a memory's text may have {MAX_TEXT_BYTES // 2**20} MiB; split this one before adding it")
    if cube.status is Status.PURGED:
        raise InputError("a purged memory cannot be written; to erase one, use forget")


_READ = "SELECT cubes.rid, cubes.id, cubes.version, known_from, known_to, body, visits, last_use, utility, uncertainty"
_SELECT = f"{_READ} FROM cubes LEFT JOIN uses ON uses.id = cubes.id"
_SELECT_SALTED = f"{_READ}, salt FROM cubes LEFT JOIN uses ON uses.id = cubes.id"


def _row(record: Sequence[Any]) -> Row:
    rid, id, version, known_from, known_to, body, visits, last_use, utility, uncertainty = record
    try:
        cube = Cube.from_dict(json.loads(body) | {"id": _text(id), "version": version})
    except (TypeError, ValueError) as error:
        raise IntegrityError(
            f"row {rid} of the store is damaged ({error}); nothing was changed. See: holdfast doctor"
        ) from error
    if visits is not None:
        moment = None if last_use is None else from_micros(last_use)
        cube = replace(cube, use=Use(visits, moment, utility, uncertainty))
    return Row(rid, cube, known_from, known_to)


def _columns(cube: Cube) -> tuple[Any, ...]:
    """What a row repeats of its body so that SQLite can filter by it: kept equal by ``verify``."""
    return (
        _micros(cube.valid_from), _micros(cube.valid_to), _micros(cube.policy.expires_at), str(cube.kind),
        str(cube.status), cube.scope.agent, cube.scope.session, cube.origin.author, cube.origin.reference,
        cube.origin.trust,
    )  # fmt: skip


def pack(cube: Cube) -> str:
    """The cube as compact JSON without its id and version (the event has them) and what is default.

    Of its use, only what a first version came with: later feedback has its own table and events.
    """
    record = cube.to_dict()
    for field in ("id", "version", *(("use",) if cube.version > 1 or cube.use == Use() else ())):
        del record[field]
    for field, default in (("form", "text"), ("status", "generated")):
        if record[field] == default:
            del record[field]
    record["origin"] = {k: v for k, v in record["origin"].items() if v not in (None, [])}
    record["policy"] = {k: v for k, v in record["policy"].items() if v not in (None, [], "normal")}
    record = {k: v for k, v in record.items() if v not in (None, {}, "")}
    try:
        return _json(record)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"a cube's data must be plain JSON: {error}") from error


def _json(value: Any) -> str:
    text = _ENCODER.encode(value)
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates: escaped, they survive verbatim
        text = _ESCAPING.encode(value)
    return text


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_ESCAPING = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def written(text: str) -> str:
    """A text as it stands in the body of a row, without the quotes around it."""
    return _json(text)[1:-1]


def content_key(cube: Cube) -> bytes:
    """What makes two adds the same memory: place, kind, speaker, words, stated time, and position where one is given."""
    claim = [cube.data.get(field) for field in ("subject", "attribute", "value", "polarity", "turn")]
    identity = [cube.scope.path, cube.kind, cube.origin.author, cube.text, cube.blob, _micros(cube.valid_from), claim]
    return hashlib.sha256(_IDENTITY.encode(identity).encode()).digest()


_IDENTITY = json.JSONEncoder(default=str)


def _wording(cube: Cube) -> tuple[Any, ...]:
    """What names, dates and vectors are made from."""
    return cube.text, cube.origin.author, cube.valid_from, cube.data.get("caption")


def _conditions(scope: Scope, where: Where) -> tuple[list[str], list[Any]]:
    for name in ("kinds", "statuses"):
        if isinstance(getattr(where, name), str):
            raise InputError(f"{name} is a list: write ({getattr(where, name)!r},)")
    clauses: list[str] = []
    values: list[Any] = []

    def add(clause: str, *more: Any) -> None:
        clauses.append(clause)
        values.extend(more)

    if scope.agent is not None:
        add("agent = ?", scope.agent)
    if scope.session is not None:
        add("session = ?", scope.session)
    if where.known_at is None:
        add("known_to IS NULL")
    else:
        moment = to_micros(where.known_at)
        add("known_from <= ? AND (known_to IS NULL OR known_to > ?)", moment, moment)
    if where.valid_at is not None:
        moment = to_micros(where.valid_at)
        add("(valid_from IS NULL OR valid_from <= ?) AND (valid_to IS NULL OR valid_to > ?)", moment, moment)
    if where.kinds:
        add(f"kind IN ({','.join('?' * len(where.kinds))})", *(str(kind) for kind in where.kinds))
    if where.statuses:
        add(f"status IN ({','.join('?' * len(where.statuses))})", *(str(status) for status in where.statuses))
    if where.source is not None:
        add("source = ?", where.source)
    if where.author is not None:
        add("author = ?", where.author)
    if where.since is not None:
        add("coalesce(valid_from, known_from) >= ?", to_micros(where.since))
    if where.until is not None:
        add("coalesce(valid_from, known_from) < ?", to_micros(where.until))
    for key, value in where.data.items():
        if not isinstance(key, str) or not isinstance(value, str | int | float | None):
            raise InputError(
                f"data can be filtered by strings, numbers, true, false and none, not by {key!r}: {value!r}"
            )
        # json_each compares whole keys, whatever characters they hold; a path would need them escaped.
        add("(SELECT value FROM json_each(body, '$.data') WHERE key = ?) IS ?", key, value)
    return clauses, values


def _arrive(connection: sqlite3.Connection, part: int, fold: str, rids: Sequence[int]) -> None:
    """Tell the indexes of all processes that a fold of these rows came, changed or went."""
    packed = b"".join(rid.to_bytes(8, "little") for rid in rids)
    connection.execute("INSERT INTO arrivals (part, fold, rids) VALUES (?, ?, ?)", (part, fold, packed))


def _head(connection: sqlite3.Connection) -> tuple[int, bytes, int]:
    found = connection.execute("SELECT seq, hash, at FROM journal ORDER BY seq DESC LIMIT 1").fetchone()
    return found or (0, GENESIS, 0)


def _bytes(id: str) -> bytes:
    try:
        return uuid.UUID(id).bytes
    except (ValueError, AttributeError, TypeError) as error:
        raise NotFoundError(f"{id!r} is not a memory's id") from error


def _text(id: bytes) -> str:
    if len(id) != 16:
        raise ValueError("an id has 16 bytes")
    written = id.hex()
    return f"{written[:8]}-{written[8:12]}-{written[12:16]}-{written[16:20]}-{written[20:]}"


def _table(name: str) -> str:
    if name in FOLDS or (name.startswith("vectors_") and name[8:].isdigit()):
        return name
    raise StoreError(f"there is no fold named {name!r}")


def _micros(when: datetime | None) -> int | None:
    return None if when is None else to_micros(when)


def _now() -> datetime:
    return datetime.now(UTC)
