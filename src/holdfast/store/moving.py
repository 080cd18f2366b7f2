"""Moving a whole store to another place: every version, event, link, use, fold, job, key and tensor file, both ways.

The journal is followed event by event, so a run that was cut off goes on where it stopped, and what is written meanwhile comes
after. Events are chained anew, for a place may keep one chain for all tenants or one for each: the head of the old store is
noted in the new one. Only for the last step, when next to nothing is left, do writers of the old store wait.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from holdfast.cube import Scope
from holdfast.errors import InputError, IntegrityError, StoreError
from holdfast.store.batch import newest
from holdfast.store.engine import WHOLE, Database
from holdfast.store.journal import link
from holdfast.store.queue import FOLDS, put
from holdfast.store.rows import id_text, note
from holdfast.store.schema import PARTITION_BITS
from holdfast.store.sql import SqlStore

STEP = 1_000
"""Events that are moved in one transaction: what a run that is cut off has to do again."""

_MARK = "moving"
_COLUMNS = (
    "rid, id, version, seq, known_from, known_to, valid_from, valid_to, expires_at, kind, status, agent, session, author, "
    "source, trust, key, salt, body"
)
_EVENT = "seq, txn, at, actor, action, part, id, version, reason, digest"

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did: events and memories' versions in the new store, its head, and the old one's head that it notes."""

    events: int
    versions: int
    head: tuple[int, str]
    before: tuple[int, str]


def move(source: SqlStore, target: SqlStore, progress: Progress | None = None) -> Moved:
    """Bring everything of one store into another, which must be new or the target of the same move.

    ``progress`` is told how many events are there, and of how many. Raises InputError where the target holds anything else, and
    IntegrityError where one of the stores does not verify.
    """
    return _Move(source.owner, target.owner, progress or (lambda _done, _all: None)).run()


class _Move:
    def __init__(self, source: SqlStore, target: SqlStore, progress: Progress) -> None:
        self._source, self._target, self._progress = source, target, progress
        self._apart = WHOLE not in target.connections.chains()
        self._paths: dict[int, str] = {}
        self._tables: tuple[str, ...] = ()

    def run(self) -> Moved:
        """As ``move`` says."""
        self._begin()
        while self._follow() > STEP:  # what was written while the rest was moved
            pass
        _sound(self._target, "new")
        self._source.blobs.settle()
        with self._source.connections.held_off():
            self._follow()
            self._settle()
            self._compare()
            heads = {chain: [seq, hash.hex()] for chain, (seq, hash) in self._source.connections.heads().items()}
            self._target.set_meta("moved from", json.dumps({"name": self._source.name, "heads": heads}))
        before = self._source.head()
        _sound(self._target, "new")
        counts = self._target.counts()
        return Moved(counts["events"], counts["versions"], self._target.head(), before)

    # --- the beginning ---

    def _begin(self) -> None:
        mark = self._target.meta(_MARK)
        if mark is None:
            if self._target.counts()["events"] or self._target.models():
                raise InputError(f"{self._target.name} holds memories already; move a store to a place of its own")
            _sound(self._source, "old")
            start = {"from": self._source.name, "arrivals": self._arrived()}
            self._target.set_meta(_MARK, json.dumps(start))
        elif json.loads(mark)["from"] != self._source.name:
            raise InputError(
                f"{self._target.name} is the target of a move from {json.loads(mark)['from']}, which is not done"
            )
        for tenant, (seq, _) in self._target.connections.heads().items():
            with self._target.connections.reading(tenant) as connection:
                moved = _mark(connection)["seq"]
            if moved != seq:
                raise InputError(
                    f"{self._target.name} was written to since; it cannot be brought up to date by a move any more"
                )
        self._models()

    def _models(self) -> None:
        there = {no for no, _, _, _ in self._target.models()}
        models = self._source.models()
        with self._target.connections.writing(WHOLE) as connection:
            for no, name, dimension, active in models:
                if no not in there:
                    connection.execute("INSERT INTO models VALUES (?, ?, ?, ?)", (no, name, dimension, int(active)))
                    self._target.connections.make_vectors(connection, no, dimension)
        self._tables = (*FOLDS, *(f"vectors_{no}" for no, _, _, _ in models))

    def _arrived(self) -> dict[str, int]:
        found = {}
        for chain in self._source.connections.chains():
            with self._source.connections.reading(chain) as connection:
                found[chain] = connection.execute("SELECT coalesce(max(n), 0) FROM arrivals").fetchone()[0]
        return found

    # --- events ---

    def _since(self) -> dict[str, int]:
        """Of each chain of the source, the last event that is in the target with all before it."""
        known: dict[str, int] = {}
        marked = self._target.meta("moved up to")
        known.update(json.loads(marked) if marked else {})
        return known

    def _follow(self) -> int:
        """Move all events that are there now; return how many."""
        since, heads = self._since(), self._source.connections.heads()
        every = sum(seq for seq, _ in heads.values())
        streams = [self._events(chain, since.get(chain, 0), seq) for chain, (seq, _) in heads.items()]
        events = heapq.merge(*streams)
        done, before = 0, sum(since.values())
        while some := list(islice(events, STEP)):
            groups: dict[str, list[tuple[str, Sequence[Any]]]] = {}
            for _, chain, seq, event in some:
                since[chain] = seq
                groups.setdefault(self._home(chain, event[5]), []).append((chain, event))
            for tenant, group in groups.items():
                self._step(tenant, group)
            self._target.set_meta("moved up to", json.dumps(since))
            done += len(some)
            self._progress(before + done, every)
        return done

    def _events(self, chain: str, since: int, until: int) -> Iterator[tuple[int, str, int, Sequence[Any]]]:
        query = f"SELECT {_EVENT} FROM journal WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT {STEP}"
        while since < until:
            with self._source.connections.reading(chain) as connection:
                page = connection.execute(query, (since, until)).fetchall()
            for event in page:
                yield event[2], chain, event[0], event
            since = page[-1][0] if page else until

    def _home(self, chain: str, part: int) -> str:
        """Which chain of the target an event goes to."""
        if part not in self._paths:
            with self._source.connections.reading(chain) as connection:
                self._paths.update(connection.execute("SELECT no, path FROM partitions").fetchall())
        return Scope.parse(self._paths[part]).tenant if self._apart else WHOLE

    def _step(self, tenant: str, group: Sequence[tuple[str, Sequence[Any]]]) -> None:
        """Move some events and what they did, in one transaction."""
        with self._target.connections.writing(tenant) as connection:
            mark = _mark(connection)
            fresh = [(chain, event) for chain, event in group if event[0] > mark["of"].get(chain, 0)]
            seq, previous, last_at = newest(connection)
            numbers: dict[tuple[str, int], int] = {}
            lines = []
            for chain, (old, txn, at, actor, action, part, id, version, reason, digest) in fresh:
                seq += 1
                numbers[chain, old] = seq
                if mark["txn"].get(chain, [0])[0] != txn:
                    mark["txn"][chain] = [txn, seq]
                last_at = max(at, last_at)
                head = (seq, mark["txn"][chain][1], last_at, actor, action)
                previous = link(previous, (*head, self._paths[part], id_text(id), version, reason, digest.hex()))
                lines.append((*head, part, id, version, reason, digest, previous))
                mark["of"][chain] = old
            marks = ",".join("?" * 11)
            connection.executemany(f"INSERT INTO journal ({_EVENT}, hash) VALUES ({marks})", lines)
            for chain in dict.fromkeys(chain for chain, _ in fresh):
                own = [event for of, event in fresh if of == chain]
                with self._source.connections.reading(chain) as reading:
                    self._rows(reading, connection, chain, own, numbers)
            mark["seq"] = seq
            note(connection, "moved", json.dumps(mark))

    def _rows(
        self,
        reading: Database,
        writing: Database,
        chain: str,
        events: Sequence[Sequence[Any]],
        numbers: dict[tuple[str, int], int],
    ) -> None:
        """Bring what some events touched to what it is in the source by now; what comes of later events comes with them."""
        for part in {event[5] for event in events}:
            record = reading.execute("SELECT no, path, next FROM partitions WHERE no = ?", (part,)).fetchone()
            writing.execute("DELETE FROM partitions WHERE no = ?", (part,))
            writing.execute("INSERT INTO partitions (no, path, next) VALUES (?, ?, ?)", record)
        fresh: list[tuple[Any, ...]] = []
        ids = list(dict.fromkeys(event[6] for event in events))
        for id in ids:
            there = {rid for (rid,) in writing.execute("SELECT rid FROM cubes WHERE id = ?", (id,))}
            rows = reading.execute(f"SELECT {_COLUMNS} FROM cubes WHERE id = ? ORDER BY version", (id,)).fetchall()
            kept = {row[0]: row for row in rows}
            writing.executemany("UPDATE cubes SET known_to = ?, key = ? WHERE rid = ?",
                                [(kept[rid][5], kept[rid][16], rid) for rid in there & kept.keys()])  # fmt: skip
            for rid in there - kept.keys():
                self._erase(writing, id, rid)
            fresh += [row for row in rows if row[0] not in there and (chain, row[3]) in numbers]
            writing.execute("DELETE FROM uses WHERE id = ?", (id,))
            said = reading.execute("SELECT id, visits, last_use, utility, uncertainty FROM uses WHERE id = ?", (id,))
            writing.executemany(
                "INSERT INTO uses (id, visits, last_use, utility, uncertainty) VALUES (?, ?, ?, ?, ?)", said
            )
        for row in fresh:
            self._file(reading, row)
        marks = ",".join("?" * 19)
        rows = [(*row[:3], numbers[chain, row[3]], *row[4:]) for row in fresh]
        writing.executemany(f"INSERT INTO cubes ({_COLUMNS}) VALUES ({marks})", rows)
        columns = "child, child_version, parent, parent_version"
        for row in fresh:
            query = f"SELECT {columns} FROM links WHERE child = ? AND child_version = ?"
            links = reading.execute(query, (row[1], row[2])).fetchall()
            writing.executemany(f"INSERT INTO links ({columns}) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", links)
        for event in events:
            if event[4] == "purge":
                writing.execute("DELETE FROM links WHERE parent = ?", (event[6],))
                values = (event[6], numbers[chain, event[0]])
                writing.execute("INSERT INTO tombstones (id, seq) VALUES (?, ?)", values)
        self._folds(reading, writing, self._tables, [row[0] for row in fresh])

    def _erase(self, writing: Database, id: bytes, rid: int) -> None:
        for table in ("cubes", *self._tables):
            writing.execute(f"DELETE FROM {table} WHERE rid = ?", (rid,))
        writing.execute("DELETE FROM links WHERE child = ?", (id,))

    @staticmethod
    def _folds(reading: Database, writing: Database, tables: Sequence[str], rids: Sequence[int]) -> None:
        for table in tables:
            for start in range(0, len(rids), 500):
                some = rids[start : start + 500]
                query = f"SELECT rid, body FROM {table} WHERE rid IN ({','.join('?' * len(some))})"
                put(writing, table, reading.execute(query, some).fetchall())

    def _file(self, reading: Database, row: Sequence[Any]) -> None:
        """Bring the tensor file that a version names, where it names one."""
        if '"blob":"' not in row[18]:
            return
        record = reading.execute("SELECT json_extract(body, '$.blob') FROM cubes WHERE rid = ?", (row[0],)).fetchone()
        if record is not None and record[0] is not None:
            scope = Scope.parse(self._paths[row[0] >> PARTITION_BITS])
            self._target.blobs.put(self._source.blobs.named(record[0], scope), scope)

    # --- the end, while writers wait ---

    def _settle(self) -> None:
        """What no event tells of: folds that came later, the queue, which model serves, the key that tokens are sealed with."""
        start = json.loads(self._target.meta(_MARK) or "{}")
        jobs: dict[str, list[Sequence[Any]]] = {tenant: [] for tenant in self._target.connections.chains()}
        for chain in self._source.connections.chains():
            with self._source.connections.reading(chain) as reading:
                query = "SELECT part, fold, rids FROM arrivals WHERE n > ?"
                late: dict[str, dict[str, list[int]]] = {}
                for part, fold, packed in reading.execute(query, (start["arrivals"].get(chain, 0),)):
                    if fold in self._tables:
                        rids = [int.from_bytes(packed[at : at + 8], "little") for at in range(0, len(packed), 8)]
                        late.setdefault(self._home(chain, part), {}).setdefault(fold, []).extend(rids)
                for tenant, folds in late.items():
                    with self._target.connections.writing(tenant) as writing:
                        for fold, rids in folds.items():
                            self._folds(reading, writing, [fold], list(dict.fromkeys(rids)))
                for part, path, free in reading.execute("SELECT no, path, next FROM partitions").fetchall():
                    with self._target.connections.writing(self._home(chain, part)) as writing:
                        writing.execute("UPDATE partitions SET next = ? WHERE path = ?", (free, path))
                for job in reading.execute("SELECT task, rid, attempts, not_before, error FROM jobs"):
                    jobs.setdefault(self._home(chain, job[1] >> PARTITION_BITS), []).append(job)
        for tenant, owed in jobs.items():
            with self._target.connections.writing(tenant) as writing:
                writing.execute("DELETE FROM jobs")
                owe = "INSERT INTO jobs (task, rid, attempts, not_before, error) VALUES (?, ?, ?, ?, ?)"
                writing.executemany(owe, owed)
        models = self._source.models()
        if [model[:3] for model in models] != [model[:3] for model in self._target.models()]:
            raise StoreError("the old store's embedding model was changed meanwhile; begin again with a new place")
        for no, _, _, active in models:
            if active:
                self._target.serve(no)
        for key in ("seal", "analyser"):
            if (value := self._source.meta(key)) is not None:
                self._target.set_meta(key, value)
        self._target.connections.numbered()

    def _compare(self) -> None:
        """Raise IntegrityError where a table of the new store has not as many rows as the old one's."""
        tables = ("partitions", "journal", "cubes", "links", "uses", "tombstones", "jobs", *self._tables)
        with self._source.connections.reading(WHOLE) as old, self._target.connections.reading(WHOLE) as new:
            for table in tables:
                query = f"SELECT count(*) FROM {table}"
                here, there = old.execute(query).fetchone()[0], new.execute(query).fetchone()[0]
                if here != there:
                    raise IntegrityError(
                        f"the new store has {there} rows of {table}, the old one {here}; it is not done. "
                        "The old one is as it was"
                    )


def _mark(connection: Database) -> dict[str, Any]:
    """How far one of the target's chains has come: its newest event, and of each of the source's chains the last that is in it.

    And of each of these the transaction that the last event belonged to, by its old name and its new one.
    """
    found = connection.execute("SELECT value FROM meta WHERE key = 'moved'").fetchone()
    mark: dict[str, Any] = json.loads(found[0]) if found else {"seq": 0, "of": {}, "txn": {}}
    return mark


def _sound(store: SqlStore, which: str) -> None:
    if problems := store.verify():
        raise IntegrityError(
            f"the {which} store does not verify: {problems[0].what} (event {problems[0].seq}, {len(problems)} in all); "
            "nothing is lost, and the move is not done"
        )
