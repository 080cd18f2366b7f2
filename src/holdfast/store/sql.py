"""The store in SQL: one body of code for the embedded database and for the server.

The journal is the truth. Every change is an event in a hash chain, written in the same transaction as the row it changes;
the lexical fold of a row is written there too, so a memory can be found the moment ``commit`` returns. Everything slower
(vectors, names, dates) follows from a queue in the same database, and every fold can be thrown away and made again.
"""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from holdfast.cube import EXTERNAL, Cube, Origin, Ref, Scope, from_micros
from holdfast.errors import AccessError, ConflictError, IntegrityError, NotFoundError, StoreError
from holdfast.store import schema
from holdfast.store.base import Action, Commit, Event, Op, Operation, Where
from holdfast.store.batch import Batch, newest
from holdfast.store.blobs import Blobs
from holdfast.store.engine import STORE, WHOLE, Database, Engine
from holdfast.store.forms import Forms
from holdfast.store.grants import Gate, Reach, Right
from holdfast.store.journal import Problem
from holdfast.store.proof import check_store
from holdfast.store.provenance import Standings, as_of_its_sources
from holdfast.store.queue import FOLDS, Clock, Queue, arrive, fold_table, vector_tables
from holdfast.store.receipts import Kept, broken, erasure, erasures
from holdfast.store.rewards import Rewarded, Terms, bounded, hand_out, hindrance, redeem
from holdfast.store.rows import (
    SELECT,
    SELECT_BARE,
    SELECT_SALTED,
    VERSIONS,
    Row,
    check,
    conditions,
    current,
    forget_read,
    id_bytes,
    id_text,
    note,
    partition_number,
    passes,
    stray,
    to_bare,
    to_cube,
    to_row,
    visible,
)
from holdfast.store.waiting import Waiting, waiting

_ANY = Where()

LOOKS = 50
"""How often the journal is looked into, going backwards, for one page of what a caller may see."""

KNOWN_PARTITIONS = 100_000
"""How many tenants' and users' partition numbers a process remembers."""


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


class SqlStore:
    """Cubes in the tables of a database. Safe for any number of threads and processes.

    ``queue`` holds the work that is still owed to them, ``blobs`` the tensor files, and ``forms`` all who keep something that was
    made of them.

    Args:
        connections: the database, open, with the newest tables.
        blobs: where the tensor files lie.
        name: what the store is called, for people: its path, or its address without a password.
        terms: the lexical fold of a cube, written with its row (None: not kept).
        tasks: what the queue owes every recallable text row, for example ("embed", "enrich").
        clock: the current time; an argument so that a replay or a test can set it.
    """

    def __init__(
        self,
        connections: Engine,
        blobs: Blobs,
        *,
        name: str,
        terms: Callable[[Cube], bytes] | None,
        tasks: Sequence[str],
        clock: Clock,
    ) -> None:
        self.connections = connections
        self.name = name
        self.blobs = blobs
        self.tasks = tuple(tasks)
        self._terms = terms
        self._clock = clock
        self._numbers: dict[str, int] = {}
        self._seal: bytes | None = None
        self._gate = Gate()
        self.queue = Queue(connections, clock)
        self.forms = Forms(connections, clock, blobs)

    def close(self) -> None:
        """Close the files. The store can be opened again at any time."""
        self.connections.close()

    # --- writing ---

    def commit(
        self,
        operations: Sequence[Operation],
        *,
        also: Sequence[Operation] = (),
        actor: str = "",
        through: SqlStore | None = None,
    ) -> Commit:
        """Apply operations in one durable transaction, with their events; all of them or none.

        ``also`` holds what follows from them. ``through``: the store of whoever asks for them, to whose reach they are held; what
        follows is held to this store's own, as an erasure reaches whatever was derived. Raises InputError (nothing to store),
        ConflictError (changed meanwhile, or the status forbids it, or a tensor file is not there), ScopeError, NotFoundError,
        StoreError.
        """
        if not any(operation.op is not Op.NONE for operation in operations):
            return Commit(0)
        words = [self._words(operation) for operation in operations]  # before the lock: a long text takes a second
        with self.connections.writing(tenant(operations, also)) as connection:
            batch = self._batch(connection, actor, through)
            for operation, batch.words in zip(operations, words, strict=True):
                batch.apply(operation)
            self._follow(batch, also)
            return batch.finish()

    def as_of_its_sources(self, cube: Cube, before: Origin | None = None, *, known: Standings | None = None) -> Cube:
        """The cube as it would be tainted and trusted if it were stored now. Raises NotFoundError for a source that is not there.

        ``before`` is the origin of the version that it would follow; ``known``: what has been read of sources in the same view.
        """
        if before is None and not cube.origin.derived_from and cube.origin.channel not in EXTERNAL:
            return cube
        with self.connections.reading(cube.scope.tenant) as connection:
            if self._gate.name:  # what is hidden from a caller is not to be told by its taint
                home = self._gate.reach(Scope(cube.scope.tenant, cube.scope.user))
                for ref in cube.origin.derived_from:
                    if before is None or ref not in before.derived_from:
                        current(connection, ref.id, home)
            return as_of_its_sources(connection, cube, before, known=known)

    def _batch(self, connection: Database, actor: str, through: SqlStore | None = None) -> Batch:
        return Batch(
            connection,
            actor,
            (through or self)._gate,
            now=self._clock(),
            terms=self._terms,
            tasks=self.tasks,
            require=self.blobs.require,
        )

    def _follow(self, batch: Batch, also: Sequence[Operation]) -> None:
        batch.gate, batch.words = self._gate, None
        for operation in also:
            batch.apply(operation)

    def _words(self, operation: Operation) -> bytes | None:
        if self._terms is None or operation.cube is None or operation.op is Op.DELETE:
            return None
        check(operation.cube)
        return self._terms(operation.cube)

    def feedback(
        self, ids: Iterable[str], scope: Scope, reward: float, *, rate: float = 0.3, actor: str = ""
    ) -> dict[str, str]:
        """Record that memories were used and how well that went (a reward in [-1, 1]); utility moves towards it.

        Nothing else but ``redeem`` changes ``use``: looking at a memory never does. Returns why some gained nothing, by id: see
        ``rewards.hindrance``.
        """
        reward = bounded(reward)
        unmoved: dict[str, str] = {}
        with self.connections.writing(scope.tenant) as connection:
            batch = self._batch(connection, actor)
            reach = self._gate.reach(scope, Right.WRITE)
            for id in ids:
                row = current(connection, id, reach)
                if hindered := hindrance(row.cube, reward):
                    unmoved[row.cube.id] = hindered
                else:
                    batch.feedback(row, reward, rate)
            batch.finish()
        return unmoved

    def hand_out(self, cubes: Iterable[Cube], scope: Scope, terms: Terms | None = None) -> str:
        """A token for memories that were recalled, to reward them by later; "" where the caller may change none of them."""
        try:
            reach = self._gate.reach(scope, Right.WRITE)
        except AccessError:  # who may only read gives no feedback
            return ""
        if not (within := [cube for cube in cubes if reach.sees(cube)]):
            return ""
        key = self._sealing()
        with self.connections.reader(scope.tenant) as connection:
            return hand_out(connection, key, within, scope, terms or Terms())

    def redeem(self, token: str, scope: Scope, reward: float, *, actor: str = "") -> Rewarded:
        """Let a reward in [-1, 1] count, exactly once, for all that a token is for. Raises InputError and NotFoundError."""
        reward = bounded(reward)
        reach, key = self._gate.reach(scope, Right.WRITE), self._sealing()
        with self.connections.writing(scope.tenant) as connection:
            batch = self._batch(connection, actor)
            done = redeem(connection, batch, key, token, reach, scope, reward)
            batch.finish()
        return done

    def undo(
        self,
        seq: int,
        scope: Scope,
        *,
        also: Sequence[Operation] = (),
        actor: str = "",
        reason: str = "",
        through: SqlStore | None = None,
    ) -> Commit:
        """Take back the transaction that event ``seq`` belongs to, by new events: the past stays readable.

        What it added is archived, what it changed returns to the version before; ``also`` holds what follows from that, and
        is applied in the same transaction; ``through`` is as in ``commit``. An undo can itself be undone. Raises NotFoundError
        where the scope may not see all of it, and ConflictError when something was changed again since, or was purged.
        """
        with self.connections.writing(scope.tenant) as connection:
            part = partition_number(connection, scope.partition)
            events = list(
                self._events(connection, "txn = (SELECT txn FROM journal WHERE seq = ? AND part = ?)", (seq, part))
            )
            made: dict[str, list[Event]] = {}
            for event in events:
                made.setdefault(event.id, []).append(event)
            batch = self._batch(connection, actor, through)
            # A transaction that touched what is out of reach is not the caller's to take back, nor to know of.
            if (
                not events
                or any(event.partition != scope.partition for event in events)
                or not all(_known(connection, batch.gate, id, scope) for id in made)
            ):
                raise NotFoundError(f"the journal has no event {seq} in {scope.path}; see: holdfast history")
            for some in reversed(made.values()):
                batch.undo(some, scope, reason or f"undo of {events[0].txn}")
            self._follow(batch, also)
            return batch.finish()

    def purge(
        self, ids: Iterable[str], scope: Scope, *, where: Where | None = None, actor: str = "", reason: str = ""
    ) -> Erased:
        """Erase these cubes, those that pass a filter, and everything derived from them: every version, every fold.

        A tombstone each stays. The ids must be visible in the scope (NotFoundError otherwise, and nothing is erased); what
        was derived goes wherever it lies in the same tenant and user.
        """
        with self.connections.writing(scope.tenant) as connection:
            named = dict.fromkeys(ids)
            reach = self._gate.reach(scope, Right.ERASE)
            read = {row.rid: row for row in (current(connection, id, reach) for id in named)}
            if where is not None:
                found = self._rows(connection, reach, where)
                read |= {row.rid: row for row in found}
                named |= dict.fromkeys(row.cube.id for row in found)
            batch = self._batch(connection, actor)
            rows: list[Row] = []
            salts: list[bytes] = []
            for id in self._closure(connection, named):
                for *record, salt in connection.execute(
                    f"{SELECT_SALTED} WHERE cubes.id = ? ORDER BY version", (id_bytes(id),)
                ):
                    rows.append(read.get(record[0]) or to_row(record))
                    salts.append(salt)
            batch.purge(rows, reason, {row.cube.id for row in read.values()})
            versions = tuple(row.cube for row in rows)
            self.blobs.owe(connection, versions)
            done = batch.finish()
        forget_read()
        return Erased(done.seq, tuple(named), versions, tuple(salts))

    def scrub(self, salts: Sequence[bytes]) -> list[str]:
        """Take away what the database keeps of rows that were erased; a note for each thing that was done or cannot be."""
        raise NotImplementedError

    def traces(self, salts: Sequence[bytes], words: Sequence[bytes]) -> list[str]:
        """Where salts or words of erased rows can still be found in the database's own files: a line for each place."""
        raise NotImplementedError

    def leftovers(self, ids: Sequence[str], scope: Scope | None = None) -> dict[str, int]:
        """How many rows of each table still belong to these ids of a scope's tenant: all 0 after a purge."""
        with self.connections.reading(WHOLE if scope is None else scope.tenant) as connection:
            found = dict.fromkeys(("cubes", "links", "uses", "folds", "jobs"), 0)
            blobs = list(map(id_bytes, ids))
            for start in range(0, len(blobs), 500):
                some = blobs[start : start + 500]
                marks = ",".join("?" * len(some))
                for table, column in (("cubes", "id"), ("links", "child"), ("links", "parent"), ("uses", "id")):
                    query = f"SELECT count(*) FROM {table} WHERE {column} IN ({marks})"
                    found[table] += connection.execute(query, some).fetchone()[0]
            for table in (*FOLDS, *vector_tables(connection)):
                query = f"SELECT count(*) FROM {table} WHERE {stray(table)}"
                found["folds"] += connection.execute(query).fetchone()[0]
            query = f"SELECT count(*) FROM jobs WHERE {stray('jobs')}"
            found["jobs"] = connection.execute(query).fetchone()[0]
        return found

    def bodies(self) -> Iterator[str]:
        """The rows of everybody as they lie in the file, many in one piece, for the proof that something is not among them."""
        with self.connections.reading(WHOLE) as connection:
            rows = connection.execute("SELECT body FROM cubes")
            while some := rows.fetchmany(4096):
                yield "\n".join(body for (body,) in some)

    # --- reading ---

    def get(self, id: str, scope: Scope, *, version: int | None = None) -> Cube:
        """One cube (its current version unless one is named). Raises NotFoundError, also outside the scope."""
        with self.connections.reading(scope.tenant) as connection:
            return current(connection, id, self._gate.reach(scope), version).cube

    def select(self, scope: Scope, where: Where = _ANY, *, right: Right = Right.READ) -> Iterator[Cube]:
        """The cubes in a scope that pass a filter, oldest first; current versions unless ``known_at`` is set."""
        for row in self.rows(scope, where, right=right):
            yield row.cube

    def rows(self, scope: Scope, where: Where = _ANY, *, right: Right = Right.READ) -> Iterator[Row]:
        """As ``select``, with the row numbers that folds use. ``right``: what the caller wants to do with them."""
        with self.connections.reading(scope.tenant) as connection:
            found = self._rows(connection, self._gate.reach(scope, right), where)
        yield from found

    def _rows(self, connection: Database, reach: Reach, where: Where) -> list[Row]:
        part = partition_number(connection, reach.scope.partition)
        if part is None:
            return []
        reads_json = self.connections.reads_json
        clauses, values = conditions(reach.scope, where, reads_json=reads_json)
        clauses.insert(0, "cubes.rid BETWEEN ? AND ?")
        values[:0] = part << schema.PARTITION_BITS, ((part + 1) << schema.PARTITION_BITS) - 1
        query = f"{SELECT} WHERE {' AND '.join(clauses)} ORDER BY cubes.rid"
        found = map(to_row, connection.execute(query, values))
        # By what it says of itself, not only by its columns.
        seen = (row for row in found if _sees(connection, reach, row.cube, row.known_to))
        if where.data and not reads_json:
            seen = (row for row in seen if passes(row.cube.data, where.data))
        return list(islice(seen, where.limit))

    def numbers(self, scope: Scope, where: Where = _ANY) -> array[int]:
        """The row numbers of what passes a filter, oldest first, in one state of the store: 8 MB for a million memories.

        Some may be of rows that the caller does not see: ``cubes_at``, which reads them, has the last word. ``where.data`` is not
        looked at.
        """
        with self.connections.reading(scope.tenant) as connection:
            reach = self._gate.reach(scope)
            part = self._number(connection, reach.scope.partition)
            if part is None:
                return array("q")
            clauses, values = conditions(reach.scope, replace(where, data={}), reads_json=False)
            query = f"SELECT cubes.rid FROM cubes WHERE {' AND '.join(['cubes.rid BETWEEN ? AND ?', *clauses])} ORDER BY rid"
            values[:0] = part << schema.PARTITION_BITS, ((part + 1) << schema.PARTITION_BITS) - 1
            return array("q", (rid for (rid,) in islice(connection.execute(query, values), where.limit)))

    def versions(self, id: str, scope: Scope) -> list[Row]:
        """Every version of one cube, oldest first. Raises NotFoundError."""
        with self.connections.reading(scope.tenant) as connection:
            reach = self._gate.reach(scope)
            current(connection, id, reach)
            found = connection.execute(f"{SELECT} WHERE cubes.id = ? ORDER BY version", (id_bytes(id),)).fetchall()
        return [row for row in map(to_row, found) if reach.sees(row.cube)]

    def cubes_at(self, scope: Scope, rids: Sequence[int], *, lent: bool = False) -> dict[int, Cube]:
        """What lies in the rows with these numbers, where the scope may see it; ``lent`` as in ``rows.to_cube``."""
        with self.connections.reading(scope.tenant) as connection:
            part = self._number(connection, scope.partition)
            reach = self._gate.reach(scope)
            found: dict[int, Cube] = {}
            for start in range(0, len(rids), 500):
                some = rids[start : start + 500]
                marks = ",".join("?" * len(some))
                for record in connection.execute(f"{SELECT} WHERE cubes.rid IN ({marks})", some):
                    if record[0] >> schema.PARTITION_BITS == part:
                        cube = to_cube(record, lent=lent)
                        if _sees(connection, reach, cube, record[4]):
                            found[record[0]] = cube
        return found

    def sources(self, cubes: Iterable[Cube], scope: Scope, *, bare: bool = False) -> dict[Ref, Cube]:
        """What some cubes were made of, at any remove, in the versions that went into them; without what the scope may not see.

        To be looked at: what changes the data of one changes what is looked at next. ``bare``: for who asks whose they are, and no
        more; where the caller may see all of the scope, nothing else stands in them.
        """
        found: dict[Ref, Cube] = {}
        asked: set[Ref] = set()
        wanted = {ref for cube in cubes for ref in cube.origin.derived_from}
        if not wanted:
            return found
        with self.connections.reading(scope.tenant) as connection:
            part = self._number(connection, scope.partition)
            reach = self._gate.reach(scope)
            bare = bare and reach.grants is None
            selected = SELECT_BARE if bare else SELECT
            while wanted:
                asked |= wanted
                refs = list(wanted)
                wanted = set()
                for start in range(0, len(refs), 250):
                    some = refs[start : start + 250]
                    marks = ",".join(["(?, ?)"] * len(some))
                    values = [value for ref in some for value in (id_bytes(ref.id), ref.version)]
                    query = f"{selected} WHERE cubes.rid IN ({VERSIONS.format(marks)})"
                    for record in connection.execute(query, values).fetchall():
                        if record[0] >> schema.PARTITION_BITS != part:
                            continue
                        if bare:
                            cube = to_bare(record)
                            if not reach.sees(cube):
                                continue
                        else:
                            cube = to_cube(record, lent=True)
                            if not _sees(connection, reach, cube, record[4]):
                                continue
                        found[cube.ref] = cube
                        wanted.update(cube.origin.derived_from)
                wanted -= asked
        return found

    def several(self, ids: Iterable[str], scope: Scope, *, lent: bool = False) -> dict[str, Cube]:
        """The current versions of those of some cubes that the scope may see; what is no id is none of them.

        ``lent`` as in ``rows.to_cube``.
        """
        blobs = [blob for id in dict.fromkeys(ids) if (blob := _blob(id)) is not None]
        with self.connections.reading(scope.tenant) as connection:
            found = self._current(connection, blobs, self._gate.reach(scope), lent=lent)
            return {row.cube.id: row.cube for row in found}

    def made_of(self, ids: Iterable[str], scope: Scope) -> dict[str, Cube]:
        """The current versions of everything derived from some cubes, as ``lineage`` finds it from each that the scope may see."""
        blobs = [blob for id in dict.fromkeys(ids) if (blob := _blob(id)) is not None]
        with self.connections.reading(scope.tenant) as connection:
            reach = self._gate.reach(scope)
            start = [id_bytes(row.cube.id) for row in self._current(connection, blobs, reach)]
            found = sorted({blob for step, _ in _steps(connection, start, down=True) for blob in step})
            return {row.cube.id: row.cube for row in self._current(connection, found, reach)}

    def _current(
        self, connection: Database, ids: Sequence[bytes], reach: Reach, *, lent: bool = False
    ) -> Iterator[Row]:
        """The current versions of some cubes that are within reach."""
        part = self._number(connection, reach.scope.partition)
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            marks = ",".join("?" * len(some))
            for record in connection.execute(f"{SELECT} WHERE cubes.id IN ({marks}) AND known_to IS NULL", some):
                if record[0] >> schema.PARTITION_BITS == part:
                    row = to_row(record, lent=lent)
                    if reach.sees(row.cube):
                        yield row

    def events(
        self, since: int = 0, *, scope: Scope | None = None, id: str | None = None, until: int | None = None
    ) -> Iterator[Event]:
        """The journal after ``since``, up to ``until``, oldest first; where each tenant has one of its own, one after the other."""
        if scope is None:
            if self._gate.name:
                raise AccessError(f"{self._gate.name} may not read everybody's journal; name a scope")
            for tenant in self.connections.chains():
                yield from self._journal(tenant, since, None, id, until)
        else:
            yield from self._journal(scope.tenant, since, scope, id, until)

    def _journal(self, tenant: str, since: int, scope: Scope | None, id: str | None, until: int | None) -> list[Event]:
        clauses, values = ["seq > ?"], [since]  # type: tuple[list[str], list[Any]]
        if until is not None:
            clauses.append("seq <= ?")
            values.append(until)
        with self.connections.reading(tenant) as connection:
            if scope is not None:
                clauses.append("part = ?")
                values.append(partition_number(connection, scope.partition) or -1)
            if id is not None:
                clauses.append("id = ?")
                values.append(id_bytes(id))
            found = list(self._events(connection, " AND ".join(clauses), values, scope))
            return found if scope is None else self._told(connection, found, scope)

    def backwards(
        self, scope: Scope, *, before: int | None = None, action: Action | None = None, limit: int = 100
    ) -> tuple[list[Event], int | None]:
        """The newest events of a scope's tenant and user, those before event ``before``, the newest first.

        And before which event to go on, None at the beginning of the journal. Where a caller may see few of many, fewer than
        ``limit`` may come though there are more: nobody is kept waiting until all were looked at.
        """
        told: list[Event] = []
        end = (1 << 62) if before is None else before
        with self.connections.reading(scope.tenant) as connection:
            self._gate.reach(scope)
            part = self._number(connection, scope.partition)
            for _ in range(LOOKS):
                clauses, values = ["part = ?", "seq < ?"], [part, end]  # type: tuple[list[str], list[Any]]
                if action is not None:
                    clauses.append("action = ?")
                    values.append(str(action))
                    if action is not Action.ADD:
                        clauses.append("action <> 'add'")  # in the words of the index that is meant
                condition = " AND ".join(clauses)
                some = list(self._events(connection, condition, values, scope, f"seq DESC LIMIT {limit + 1}"))
                more = len(some) > limit
                some = some[:limit]
                told += self._told(connection, some, scope)
                if not more or len(told) >= limit:
                    break
                end = some[-1].seq
        if len(told) > limit:
            return told[:limit], told[limit - 1].seq
        return told, some[-1].seq if more else None

    def _told(self, connection: Database, events: list[Event], scope: Scope) -> list[Event]:
        """Some events of a scope as the caller may know them."""
        reach = self._gate.reach(scope)
        if reach.grants is None:
            return events
        blobs = [id_bytes(id) for id in dict.fromkeys(event.id for event in events)]
        seen = {row.cube.id for row in self._current(connection, blobs, reach)}
        # Who may read all of a scope sees of what is hidden in it, or gone, that it was changed, and not why; why it erased
        # something itself, everybody knows.
        whole = reach.covers(scope)
        return [
            event if known else replace(event, reason="")
            for event in events
            if (known := event.id in seen or (event.action is Action.PURGE and event.actor == self._gate.name)) or whole
        ]

    # --- what people look at ---

    def waiting(self, scope: Scope, *, limit: int = 100, after: int = -1) -> Waiting:
        """How many memories wait in quarantine, and some of them, the oldest first, each with why; see ``Waiting``.

        Without a look at what does not wait. ``limit`` may be 0: then they are only counted.
        """
        with self.connections.reading(scope.tenant) as connection:
            reach = self._gate.reach(scope)
            part = self._number(connection, scope.partition)
            return Waiting(0) if part is None else waiting(connection, part, reach, limit, after)

    def receipts(self, scope: Scope, *, before: int | None = None, limit: int = 20) -> list[Kept]:
        """What was erased for good in a scope's tenant and user, as the journal keeps it, the newest first.

        For whoever may read all of it; of others, what they erased themselves. ``before``: the ``first`` of the last one of a page.
        """
        with self.connections.reading(scope.tenant) as connection:
            reach = self._gate.reach(scope)
            part = self._number(connection, scope.partition)
            by = None if reach.grants is None or reach.covers(Scope(scope.tenant, scope.user)) else self._gate.name
            return [] if part is None else list(erasures(connection, part, before, limit, by, self._gate.name))

    def receipt(self, seq: int, scope: Scope) -> tuple[Kept, list[str]]:
        """The receipt of the erasure that event ``seq`` belongs to, whole, and what of it can be found now: a line each.

        Raises NotFoundError where there is none, or none that the caller may see.
        """
        with self.connections.reading(scope.tenant) as connection:
            reach = self._gate.reach(scope)
            part = self._number(connection, scope.partition)
            by = None if reach.grants is None or reach.covers(Scope(scope.tenant, scope.user)) else self._gate.name
            found = None if part is None else erasure(connection, part, seq, by, self._gate.name)
            if found is None:
                raise NotFoundError(f"the journal has no erasure at event {seq} in {scope.path}")
            left = broken(connection, found, scope)
        rows = self.owner.leftovers(found.ids, scope)
        left += [f"{count} rows of {table}" for table, count in rows.items() if count]
        return found, left + self.owner.forms.left((), found.ids)

    def owed(self, scope: Scope) -> dict[str, int]:
        """For each task: how many memories of a scope's tenant and user it is still owed to. For who may read all of them."""
        home = Scope(scope.tenant, scope.user)
        if not self._gate.reach(home).covers(home):
            raise AccessError(
                f"what waits is told of all that lies in {home.partition}, and not all of it is to be read"
            )
        part = self.partition(home)
        return {} if part is None else self.queue.owed(part)

    def lineage(self, id: str, scope: Scope, *, down: bool = True) -> list[Ref]:
        """Everything derived from a cube (``down``), or everything it was derived from, nearest first.

        Of what lies in the scope: lineage leads through the memories of other agents and sessions, and does not show them.
        """
        with self.connections.reading(scope.tenant) as connection:
            reach = self._gate.reach(scope)
            current(connection, id, reach)
            return [ref for ref in self._walk(connection, [id], down) if visible(connection, ref.id, reach) is not None]

    def derived(self, ids: Iterable[str], scope: Scope) -> list[str]:
        """The ids and everything derived from them, nearest first, wherever it lies in the same tenant and user.

        It is what would be erased with them, so it is for whoever may erase them. Raises NotFoundError for an id that the scope
        does not hold.
        """
        with self.connections.reading(scope.tenant) as connection:
            named = list(dict.fromkeys(ids))
            reach = self._gate.reach(scope, Right.ERASE)
            for id in named:
                current(connection, id, reach)
            return self._closure(connection, named)

    def partition(self, scope: Scope) -> int | None:
        """The partition's number, or None while nothing was ever written there."""
        self._gate.reach(scope)
        known = self._numbers.get(scope.partition)
        if known is not None:
            return known
        with self.connections.reading(scope.tenant) as connection:
            return self._number(connection, scope.partition)

    def newest(self, scope: Scope) -> int:
        """The newest event in a scope's partition, 0 where there is none."""
        self._gate.reach(scope)
        with self.connections.reading(scope.tenant) as connection:
            part = self._number(connection, scope.partition)
            query = "SELECT coalesce(max(seq), 0) FROM journal WHERE part = ?"
            return int(connection.execute(query, (part,)).fetchone()[0])

    def partitions(self) -> list[str]:
        """The paths tenant/user of everything in the store."""
        with self.connections.reading(WHOLE) as connection:
            return sorted(path for (path,) in connection.execute("SELECT path FROM partitions"))

    def head(self) -> tuple[int, str]:
        """The newest event's seq and hash: note it elsewhere, and nobody can rewrite or cut the journal unseen."""
        with self.connections.reading(WHOLE) as connection:
            seq, hash = newest(connection)[:2]
        return seq, hash.hex()

    def journal_head(self, scope: Scope) -> tuple[int, str]:
        """The newest event, and its hash, of the journal that a scope's events are in, whoever's they are. It notes nothing."""
        self._gate.reach(scope)
        with self.connections.reading(scope.tenant) as connection:
            seq, hash = newest(connection)[:2]
        return seq, hash.hex()

    def counts(self) -> dict[str, int]:
        """How many of what the store holds, for ``status``."""
        queries = {
            "memories": "SELECT count(*) FROM cubes WHERE known_to IS NULL",
            "versions": "SELECT count(*) FROM cubes",
            "partitions": "SELECT count(*) FROM partitions",
            "purged": "SELECT count(*) FROM tombstones",
        }
        with self.connections.reading(WHOLE) as connection:
            found = {name: connection.execute(query).fetchone()[0] for name, query in queries.items()}
            return {**found, "events": sum(seq for seq, _ in self.connections.heads().values())}

    # --- proof ---

    def verify(self, head: tuple[int, str] | None = None) -> list[Problem]:
        """Check the whole chain, and every row of every table that it vouches for. An empty list means all is well.

        ``head`` is what ``head()`` said earlier: with it, a journal that was cut or rewritten as a whole since is found too.
        """
        with self.connections.reading(WHOLE) as connection:
            return check_store(connection, head)

    # --- what indexes follow ---

    def fold(self, table: str, part: int, after: int = -1, *, bodies: bool = True) -> list[tuple[int, bytes]]:
        """A fold's rows of one partition with n > ``after``, in order. ``table`` is one of FOLDS or a vector table.

        ``bodies``: false for who asks which rows there are; nothing stands in them.
        """
        low = (part << schema.PARTITION_BITS) + after + 1
        high = ((part + 1) << schema.PARTITION_BITS) - 1
        with self.connections.reading(self.connections.tenant_of(part)) as connection:
            what = "rid, body" if bodies else "rid, NULL"
            query = f"SELECT {what} FROM {fold_table(table)} WHERE rid BETWEEN ? AND ? ORDER BY rid"
            return connection.execute(query, (low, high)).fetchall()

    def fold_rows(self, table: str, rids: Sequence[int], *, bodies: bool = True) -> list[tuple[int, bytes]]:
        """A fold's rows with these numbers; ``bodies`` as in ``fold``."""
        found: list[tuple[int, bytes]] = []
        what = "rid, body" if bodies else "rid, NULL"
        query = f"SELECT {what} FROM {fold_table(table)} WHERE rid = ?"
        for tenant, some in self.connections.by_tenant(map(int, rids)).items():
            with self.connections.reading(tenant) as connection:
                found += [record for rid in some for record in connection.execute(query, (rid,))]
        return found

    def changes(self, part: int, seq: int, arrival: int) -> Changes:
        """What an index of a partition has to catch up with after event ``seq`` and arrival ``arrival``.

        After event 0 that is all rows with all their folds, as they are now, so only the watermarks are said.
        """
        with self.connections.reading(self.connections.tenant_of(part)) as connection:
            if seq == 0:
                last, come = connection.execute(
                    "SELECT (SELECT coalesce(max(seq), 0) FROM journal WHERE part = ?1), "
                    "(SELECT coalesce(max(n), 0) FROM arrivals WHERE part = ?1)",
                    (part,),
                ).fetchone()
                return Changes(last, come, {}, [])
            events = connection.execute(
                "SELECT seq, action, id, version FROM journal WHERE part = ? AND seq > ? ORDER BY seq", (part, seq)
            ).fetchall()
            arrivals = connection.execute(
                "SELECT n, fold, rids FROM arrivals WHERE part = ? AND n > ? ORDER BY n", (part, arrival)
            ).fetchall()
            ended: dict[int, int] = {}
            for _, action, id, version in events:
                if action in (Action.UPDATE, Action.DELETE, Action.UNDO):
                    # The one before alone: a sheet that is written anew at each run has thousands of them.
                    ended.update(
                        connection.execute(
                            "SELECT rid, known_to FROM cubes WHERE id = ? AND version = ? AND known_to IS NOT NULL",
                            (id, version - 1),
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
        of the version before or None, its readers as JSON or None)
        """
        low = (part << schema.PARTITION_BITS) + after + 1
        high = ((part + 1) << schema.PARTITION_BITS) - 1
        with self.connections.reading(self.connections.tenant_of(part)) as connection:
            return connection.execute(
                "SELECT rid, known_from, known_to, valid_from, valid_to, expires_at, kind, status, agent, session, author, "
                "trust, CASE WHEN version > 1 THEN (SELECT rid FROM cubes AS old WHERE old.id = cubes.id AND "
                "old.version = cubes.version - 1) END, "
                # To look for a word costs less than to parse every row for what hardly any has.
                "CASE WHEN instr(body, '\"readers\":') > 0 THEN json_extract(body, '$.policy.readers') END "
                "FROM cubes WHERE rid BETWEEN ? AND ? ORDER BY rid",
                (low, high),
            ).fetchall()

    def tainted(self, part: int, after: int = -1) -> list[int]:
        """The rids of a partition's rows with n > ``after`` in which something from outside has a part."""
        low = (part << schema.PARTITION_BITS) + after + 1
        high = ((part + 1) << schema.PARTITION_BITS) - 1
        with self.connections.reading(self.connections.tenant_of(part)) as connection:
            found = connection.execute(
                "SELECT rid FROM cubes WHERE rid BETWEEN ? AND ? AND json_extract(body, '$.origin.taint') IS NOT NULL",
                (low, high),
            )
            return [rid for (rid,) in found]

    def data_version(self, part: int | None = None) -> tuple[int, int]:
        """(connection, number): for one connection the number changes whenever another has committed.

        The cheapest test for "nothing new"; numbers of two connections say nothing about each other. ``part``: the partition
        that is asked for; it may be told of what does not concern it.
        """
        return self.connections.data_version(part)

    def rebuild(self, terms: Callable[[Cube], bytes], stamp: str) -> int:
        """Make the lexical fold again from the cubes, and note under which analyser; return how many rows."""
        done = 0
        for tenant in self.connections.chains():
            with self.connections.writing(tenant) as connection:
                connection.execute("DELETE FROM terms")
                reading = connection.execute(f"{SELECT} ORDER BY cubes.rid")
                while some := reading.fetchmany(1000):
                    rows = [to_row(record) for record in some]
                    connection.executemany(
                        "INSERT INTO terms VALUES (?, ?)", [(row.rid, terms(row.cube)) for row in rows]
                    )
                    done += len(rows)
                if tenant == WHOLE:
                    note(connection, "analyser", stamp)
                for (part,) in connection.execute("SELECT no FROM partitions").fetchall():
                    arrive(connection, part, "terms", [])
        if WHOLE not in self.connections.chains():
            self.set_meta("analyser", stamp)
        return done

    def meta(self, key: str) -> str | None:
        """A note that the store keeps about itself."""
        with self.connections.reading(STORE) as connection:
            found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    def set_meta(self, key: str, value: str) -> None:
        """Write such a note."""
        with self.connections.writing(STORE) as connection:
            note(connection, key, value)

    # --- vector tables ---

    def models(self) -> list[tuple[int, str, int, bool]]:
        """Every embedding model the store has vectors of: (number, name, dimension, whether searches use it)."""
        with self.connections.reading() as connection:
            return [
                (no, name, dimension, bool(active))
                for no, name, dimension, active in connection.execute(
                    "SELECT no, name, dimension, active FROM models ORDER BY no"
                )
            ]

    def add_model(self, name: str, dimension: int, *, beside: bool = True) -> int:
        """Give a model a table of its own and queue every recallable row for it; return its number.

        The model that serves now goes on serving until ``activate``. Without ``beside``, raises ConflictError where the
        store has vectors of other models only.
        """
        with self.connections.writing(WHOLE) as connection:
            # Who settles jobs without having seen this model would settle what is owed to it too.
            self.connections.hold_off(connection)
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
            self.connections.make_vectors(connection, int(no), dimension)
            self.connections.queue_all(connection, "embed")
        return int(no)

    def activate(self, no: int) -> None:
        """Let searches use this model's vectors, and drop the tables of all others."""
        with self.connections.writing(WHOLE) as connection:
            if connection.execute("SELECT 1 FROM models WHERE no = ?", (no,)).fetchone() is None:
                raise StoreError(f"there is no embedding model number {no} in this store; nothing was changed")
            for (other,) in connection.execute("SELECT no FROM models WHERE no <> ?", (no,)).fetchall():
                connection.execute(f"DROP TABLE vectors_{other}")
            connection.execute("DELETE FROM models WHERE no <> ?", (no,))
            connection.execute("UPDATE models SET active = 1 WHERE no = ?", (no,))
            connection.execute(f"DELETE FROM jobs WHERE task = 'embed' AND rid IN (SELECT rid FROM vectors_{int(no)})")

    def serve(self, no: int) -> None:
        """Let searches use this model's vectors, and keep the others."""
        with self.connections.writing(WHOLE) as connection:
            connection.execute("UPDATE models SET active = CASE WHEN no = ? THEN 1 ELSE 0 END", (no,))

    # --- inside ---

    def now(self) -> datetime:
        """The store's time."""
        return self._clock()

    def reach(self, scope: Scope, right: Right = Right.READ) -> Reach:
        """What a call of this store's holder may touch in a scope. Raises AccessError where that is nothing."""
        return self._gate.reach(scope, right)

    def sees(self, cube: Cube) -> bool:
        """Whether this store's holder may read a memory."""
        try:
            return self._gate.reach(cube.scope).sees(cube)
        except AccessError:  # it may read nothing there at all
            return False

    @property
    def owner(self) -> SqlStore:
        """The same store as its owner sees it; this one, where it is."""
        return self

    def _sealing(self) -> bytes:
        """The key that tokens are sealed with; the store makes one when the first goes out, and keeps it."""
        if self._seal is None:
            with self.connections.reading(STORE) as connection:
                found = connection.execute("SELECT value FROM meta WHERE key = 'seal'").fetchone()
            if found is None:
                with self.connections.writing(STORE) as connection:
                    new = secrets.token_hex(32)
                    connection.execute(
                        "INSERT INTO meta (key, value) VALUES ('seal', ?) ON CONFLICT DO NOTHING", (new,)
                    )
                    found = connection.execute("SELECT value FROM meta WHERE key = 'seal'").fetchone()
            self._seal = bytes.fromhex(found[0])
        return self._seal

    def _number(self, reading: Database, path: str) -> int | None:
        """As ``partition_number``, from memory where it was read before: once committed, a partition's number never changes."""
        found = self._numbers.get(path)
        if found is None and (found := partition_number(reading, path)) is not None:
            if len(self._numbers) >= KNOWN_PARTITIONS:
                self._numbers.clear()
            self._numbers[path] = found
            self.connections.noted(found, Scope.parse(path).tenant)
        return found

    @staticmethod
    def _walk(connection: Database, ids: Iterable[str], down: bool) -> list[Ref]:
        """What links lead to from some cubes, nearest first, without themselves."""
        steps = _steps(connection, list(dict.fromkeys(map(id_bytes, ids))), down)
        return [Ref(id_text(blob), step[blob]) for step, new in steps for blob in new]

    def _closure(self, connection: Database, ids: Iterable[str]) -> list[str]:
        named = list(dict.fromkeys(ids))
        return [*named, *(ref.id for ref in self._walk(connection, named, down=True))]

    def _events(
        self,
        connection: Database,
        condition: str,
        values: Sequence[Any],
        scope: Scope | None = None,
        order: str = "seq",
    ) -> Iterator[Event]:
        """``scope``: whose they all are, where that is known; to know where each belongs, all partitions are read."""
        paths = {} if scope else dict(connection.execute("SELECT no, path FROM partitions").fetchall())
        query = (
            "SELECT seq, txn, at, actor, action, part, id, version, reason, digest, hash FROM journal "
            f"WHERE {condition} ORDER BY {order}"
        )
        for seq, txn, at, actor, action, part, id, version, reason, content, hash in connection.execute(query, values):
            try:
                yield Event(
                    seq, txn, from_micros(at), actor, Action(action), scope.partition if scope else paths.get(part, "?"),
                    id_text(id), version, reason, content, hash,
                )  # fmt: skip
            except (TypeError, ValueError, OverflowError) as error:
                raise IntegrityError(
                    f"event {seq} of the journal is damaged ({error}); see: holdfast doctor"
                ) from error


def _steps(connection: Database, ids: Sequence[bytes], down: bool) -> Iterator[tuple[dict[bytes, int], list[bytes]]]:
    """Along the links from some cubes, step by step: what is met, in its newest version, and in order what was not met before."""
    near, far = ("parent", "child") if down else ("child", "parent")
    seen, frontier = set(ids), list(ids)
    while frontier:
        step: dict[bytes, int] = {}
        for start in range(0, len(frontier), 500):
            some = frontier[start : start + 500]
            query = f"SELECT {far}, {far}_version FROM links WHERE {near} IN ({','.join('?' * len(some))})"
            for blob, version in connection.execute(query, some):
                step[blob] = max(version, step.get(blob, 0))
        frontier = sorted(step.keys() - seen)
        seen.update(frontier)
        yield step, frontier


def tenant(operations: Iterable[Operation], also: Iterable[Operation] = ()) -> str | None:
    """Whose memories some operations change; of several tenants, None."""
    named = {operation.cube.scope.tenant for operation in (*operations, *also) if operation.cube is not None}
    return named.pop() if len(named) == 1 else None


def _blob(id: str) -> bytes | None:
    try:
        return id_bytes(id)
    except NotFoundError:
        return None


def _sees(connection: Database, reach: Reach, cube: Cube, known_to: int | None) -> bool:
    """Whether a reach shows a version: what is hidden now is hidden in every version."""
    if not reach.sees(cube):
        return False
    return known_to is None or reach.grants is None or visible(connection, cube.id, reach) is not None


def _known(connection: Database, gate: Gate, id: str, scope: Scope) -> bool:
    """Whether whoever asks may know of a memory, by any right. What was erased only the owner does."""
    for right in (Right.READ, Right.WRITE, Right.JUDGE):
        try:
            reach = gate.reach(scope, right)
        except AccessError:
            continue
        if visible(connection, id, reach) is not None:
            return True
    gone = connection.execute("SELECT 1 FROM tombstones WHERE id = ?", (id_bytes(id),)).fetchone()
    return gone is not None and not gate.name


def present() -> datetime:
    """The time of day."""
    return datetime.now(UTC)
