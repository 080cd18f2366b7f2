"""Putting one transaction together: what each operation does to rows, lineage, folds, queue and journal."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Container, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

from holdfast.cube import HELD, TRANSITIONS, Cube, Ref, Scope, Status, Use, from_micros, to_micros
from holdfast.errors import AccessError, ConflictError, InputError, NotFoundError, StoreError
from holdfast.store import schema
from holdfast.store.base import OF_USE, Action, Commit, Event, Op, Operation
from holdfast.store.engine import Database
from holdfast.store.grants import Gate, Reach, Right
from holdfast.store.journal import ASKED, FOLLOWED, GENESIS, digest, link
from holdfast.store.proof import use_digest
from holdfast.store.provenance import Standings, as_of_its_sources
from holdfast.store.queue import FOLDS, arrive, owed_tasks, vector_tables
from holdfast.store.rows import (
    Row,
    check,
    columns,
    content_key,
    current,
    id_bytes,
    id_text,
    key_beside,
    micros,
    pack,
    partition_number,
    visible,
    wording,
)

_SAID = "INSERT INTO uses (visits, last_use, utility, uncertainty, id) VALUES (?, ?, ?, ?, ?)"
_SAID_AGAIN = "UPDATE uses SET visits = ?, last_use = ?, utility = ?, uncertainty = ? WHERE id = ?"
_MOVED_AWAY = (
    "DELETE FROM jobs WHERE rid = ?1 AND task = ?2 AND EXISTS (SELECT 1 FROM jobs WHERE task = ?2 AND rid = ?3)"
)


class Batch:
    """One write transaction while it is being made: the state that its operations share.

    ``gate`` says what they may touch; it may be another one for what follows from them. ``require`` refuses a cube whose tensor
    file is not there.
    """

    def __init__(
        self,
        connection: Database,
        actor: str,
        gate: Gate,
        *,
        now: datetime,
        terms: Callable[[Cube], bytes] | None,
        tasks: Sequence[str],
        require: Callable[[Cube], None],
    ) -> None:
        self._connection = connection
        self.gate = gate
        self._actor = (gate.name or actor).encode("utf-8", "replace").decode()
        self._terms = terms
        self._tasks = tasks
        self._require = require
        self._seq, self._previous, last_at = newest(connection)
        self._txn = self._seq + 1
        # Time never runs backwards in the journal, whatever the clock does.
        self._at = max(to_micros(now), last_at)
        self._parts: dict[str, tuple[int, int]] = {}
        self._cubes: list[Cube] = []
        self._duplicates: list[str] = []
        self._journal: list[tuple[Any, ...]] = []
        self._standings: Standings = {}
        self.words: bytes | None = None  # the lexical fold of the operation at hand, where it was made beforehand

    def apply(self, operation: Operation) -> None:
        """Do one operation. Raises as ``SqlStore.commit`` does."""
        if operation.op is Op.NONE:
            return
        cube = operation.cube
        if cube is None:
            raise InputError(f"an operation '{operation.op}' needs a cube")
        if operation.op is Op.ADD:
            self._add(cube, operation.reason)
        elif operation.op is Op.UPDATE:
            self._update(cube, operation.reason)
        else:
            row = current(self._connection, cube.id, self.gate.reach(cube.scope, Right.WRITE))
            self._replace(row, replace(row.cube, status=Status.ARCHIVED), Action.DELETE, operation.reason)

    def _add(self, cube: Cube, reason: str) -> None:
        cube = self._incoming(cube)
        self._require(cube)
        id, key = id_bytes(cube.id), content_key(cube)
        query = (
            "SELECT EXISTS (SELECT 1 FROM tombstones WHERE id = ?1), EXISTS (SELECT 1 FROM cubes WHERE id = ?1), "
            "EXISTS (SELECT 1 FROM cubes WHERE key = ?2)"
        )
        forgotten, taken, said = self._connection.execute(query, (id, key)).fetchone()
        if said and cube.status in HELD:
            found, key = self._holding(key, cube)
            if found is not None:
                self._duplicates.append(found)
                return
        if taken and self._tells(cube.id, cube.scope, content_key(cube)):
            held = visible(self._connection, cube.id, Reach(cube.scope))
            if held is not None and content_key(held.cube) == content_key(cube):
                self._duplicates.append(cube.id)
                return
        elif (taken or forgotten) and self.gate.name:
            # Whoever comes in by a key is not told which.
            raise ConflictError(f"the id {cube.id} cannot be used here; add this under a new id")
        if forgotten:
            raise ConflictError(f"memory {cube.id} was forgotten; it does not come back under the same id")
        if taken:
            raise ConflictError(
                f"the id {cube.id} is taken by a memory with other content; update that one, or add this under a new id"
            )
        first = cube if cube.version == 1 else replace(cube, version=1)
        first = as_of_its_sources(self._connection, first, known=self._standings)
        self._write(first, Action.ADD, reason, self._learnt(cube), key=key if first.status in HELD else None)
        if cube.use != Use():  # an import brings what feedback said elsewhere
            self._use(id, cube.use)

    def _holding(self, key: bytes, cube: Cube) -> tuple[str | None, bytes]:
        """The id under which the same is held already, None where it is not; and the key under which to hold this one.

        What its writer may not see is no duplicate: to be told of it would tell what it says. So the same is held twice.
        """
        found = self._connection.execute("SELECT id, rid FROM cubes WHERE key = ?", (key,)).fetchone()
        if found is None:
            return None, key
        if self._tells(id_text(found[0]), cube.scope, key):
            return id_text(found[0]), key
        mine = self._connection.execute(
            "SELECT id FROM journal WHERE part = ? AND actor = ? AND action = 'add'",
            (found[1] >> schema.PARTITION_BITS, self._actor),
        )
        for (id,) in mine.fetchall():
            if self._connection.execute("SELECT 1 FROM cubes WHERE key = ?", (key_beside(key, id),)).fetchone():
                return id_text(id), key
        return None, key_beside(key, id_bytes(cube.id))

    def _tells(self, id: str, scope: Scope, key: bytes) -> bool:
        """Whether who writes may know of a memory: it may read it, or has itself added it with these words."""
        try:
            if visible(self._connection, id, self.gate.reach(scope)) is not None:
                return True
        except AccessError:  # it may write here and read nothing
            pass
        first = visible(self._connection, id, Reach(Scope(scope.tenant, scope.user)), 1)
        query = "SELECT 1 FROM journal WHERE id = ? AND action = 'add' AND actor = ?"
        own = self._connection.execute(query, (id_bytes(id), self._actor)).fetchone() is not None
        return own and first is not None and content_key(first.cube) == key

    def _update(self, cube: Cube, reason: str) -> None:
        row = current(self._connection, cube.id, self.gate.reach(cube.scope, Right.WRITE))
        old = row.cube
        cube = self._incoming(replace(cube, scope=old.scope), old.origin.derived_from)
        if cube.version != old.version:
            raise ConflictError(
                f"memory {cube.id} is at version {old.version}, and this change was made from {cube.version}; read it again"
            )
        if cube.status is not old.status and cube.status not in TRANSITIONS[old.status]:
            raise ConflictError(f"a memory that is {old.status} cannot become {cube.status}")
        if old.status is Status.FROZEN and cube.status is Status.FROZEN:
            raise ConflictError(f"memory {cube.id} is frozen; thaw it first (status activated)")
        if cube.blob != old.blob:
            self._require(cube)
        cube = as_of_its_sources(self._connection, cube, old.origin, known=self._standings)
        self._replace(row, cube, Action.UPDATE, reason)

    def _incoming(self, cube: Cube, before: Collection[Ref] = ()) -> Cube:
        """The cube as it may come in, made of nothing that is hidden from whoever brings it but what it was made of ``before``."""
        reach = self.gate.reach(Scope(cube.scope.tenant, cube.scope.user), Right.WRITE)
        if reach.grants is None:
            return cube
        for ref in cube.origin.derived_from:
            if ref not in before:
                current(self._connection, ref.id, self.gate.reach(reach.scope))
        return self.gate.incoming(cube)

    def undo(self, events: Sequence[Event], scope: Scope, reason: str) -> None:
        """Take back what one transaction did to one cube."""
        if any(event.action is Action.PURGE for event in events):
            raise ConflictError("what was forgotten is gone and cannot be brought back; nothing was changed")
        if any(event.action in OF_USE for event in events):
            raise ConflictError("feedback is evidence and cannot be undone; give the opposite reward instead")
        id, first, last = events[0].id, events[0].version, events[-1].version
        own = all(event.actor == self._actor for event in events)
        reach = self.gate.reach(scope, Right.WRITE if own else Right.JUDGE)
        row = current(self._connection, id, reach)
        if row.cube.version != last:
            raise ConflictError(f"memory {id} was changed again since (version {row.cube.version}); undo that first")
        if first == 1:
            if (
                row.cube.status is Status.ARCHIVED and last > 1
            ):  # made and retracted in one go: nothing of it is in recall
                return
            # What is archived from the beginning (a lesson, a canary) holds in that state, and would go on holding.
            born_archived = row.cube.status is Status.ARCHIVED
            before = replace(row.cube, status=Status.EXPIRED if born_archived else Status.ARCHIVED)
        else:
            before = current(self._connection, id, reach, first - 1).cube
        self._replace(row, before, Action.UNDO, reason)

    def feedback(self, row: Row, reward: float, rate: float, start: float = 0.0) -> None:
        """Move a memory's utility by ``rate`` towards a reward, from ``start`` where this is the first that is said of it."""
        known = row.cube.use.after(reward, rate, from_micros(self._at), start=start)
        id = id_bytes(row.cube.id)
        part = row.rid >> schema.PARTITION_BITS
        mark = self._use(id, known)
        self._record(Action.FEEDBACK, row.cube.scope.partition, part, id, row.cube.version, f"{reward:+.3f}", mark)

    def rewarded(self, scope: Scope, first: Ref, reward: float, token: bytes) -> None:
        """Note that a token has been redeemed: its digest, with the first of the memories that it is for."""
        part = partition_number(self._connection, scope.partition)
        if part is None:
            raise NotFoundError(f"nothing was ever remembered for {scope.partition}, so there is nothing to reward")
        self._record(Action.REWARD, scope.partition, part, id_bytes(first.id), first.version, repr(reward), token)

    def _use(self, id: bytes, use: Use) -> bytes:
        """Note what feedback says of a cube; return the digest that an event vouches for it with."""
        values = (use.visits, micros(use.last_use), use.utility, use.uncertainty)
        if not self._connection.execute(_SAID_AGAIN, (*values, id)).rowcount:
            self._connection.execute(_SAID, (*values, id))
        return use_digest(values)

    def purge(self, rows: Sequence[Row], reason: str, named: Container[str]) -> None:
        """Erase cubes, given all their versions, with folds, jobs, links and use; a tombstone each and their events stay.

        ``named``: the ids that were asked for, which the journal tells from what followed.
        """
        newest = {row.cube.id: row for row in rows if row.known_to is None}
        rids = sorted(row.rid for row in rows)
        for table in (*FOLDS, "cubes", *vector_tables(self._connection)):
            self._connection.executemany(f"DELETE FROM {table} WHERE rid = ?", [(rid,) for rid in rids])
        self._connection.executemany(
            "DELETE FROM jobs WHERE task = ? AND rid = ?",
            [(task, rid) for task in owed_tasks(self._connection) for rid in rids],
        )
        ids = [(id_bytes(id),) for id in newest]
        for statement in (
            "DELETE FROM links WHERE child = ?",
            "DELETE FROM links WHERE parent = ?",
            "DELETE FROM uses WHERE id = ?",
        ):
            self._connection.executemany(statement, ids)
        tombstones = []
        for (blob,), row in zip(ids, newest.values(), strict=True):
            part = row.rid >> schema.PARTITION_BITS
            why = ASKED if row.cube.id in named else FOLLOWED
            self._record(Action.PURGE, row.cube.scope.partition, part, blob, row.cube.version, reason, why)
            tombstones.append((blob, self._seq))
        self._connection.executemany("INSERT INTO tombstones VALUES (?, ?)", tombstones)
        for part in {rid >> schema.PARTITION_BITS for rid in rids}:
            arrive(self._connection, part, "cubes", [rid for rid in rids if rid >> schema.PARTITION_BITS == part])

    def _replace(self, row: Row, cube: Cube, action: Action, reason: str) -> None:
        """End a version and begin the next, with the old one's folds where the words are the same."""
        learnt = max(self._learnt(cube) if cube.recorded_at != row.cube.recorded_at else self._at, row.known_from)
        key, seq = self._connection.execute("SELECT key, seq FROM cubes WHERE rid = ?", (row.rid,)).fetchone()
        self._connection.execute("UPDATE cubes SET known_to = ?, key = NULL WHERE rid = ?", (learnt, row.rid))
        new = replace(cube, version=row.cube.version + 1, scope=row.cube.scope)
        same = wording(new) == wording(row.cube)
        # What stands in quarantine is read by no encoder; once it comes out, it is.
        owed = not same or (row.cube.status is Status.QUARANTINED and new.status is not Status.QUARANTINED)
        held = self._next_key(new, key, seq if action is Action.UNDO else 0) if new.status in HELD else None
        rid = self._write(new, action, reason, learnt, owed=owed, key=held)
        if same:
            for table in ("names", "dates", *vector_tables(self._connection)):
                self._connection.execute(
                    f"INSERT INTO {table} SELECT ?, body FROM {table} WHERE rid = ?", (rid, row.rid)
                )
            # What was still owed to the old version is owed to the new one.
            moves = [(rid, task, row.rid) for task in owed_tasks(self._connection)]
            if owed:
                self._connection.executemany(_MOVED_AWAY, moves)
            self._connection.executemany("UPDATE jobs SET rid = ? WHERE task = ? AND rid = ?", moves)
        else:
            drop = "DELETE FROM jobs WHERE task = ? AND rid = ?"
            self._connection.executemany(drop, [(task, row.rid) for task in owed_tasks(self._connection)])

    def _next_key(self, cube: Cube, before: bytes | None, since: int) -> bytes:
        """The key of a memory's next version. Raises ConflictError where another says the same.

        Not where the two are held beside each other, or were until this one was taken back at event ``since``, nor where who writes
        may not know of the other.
        """
        key = content_key(cube)
        other = self._connection.execute("SELECT id, seq FROM cubes WHERE key = ?", (key,)).fetchone()
        if other is None:
            return key
        beside = key_beside(key, id_bytes(cube.id))
        if beside == before or other[1] < since or not self._tells(id_text(other[0]), cube.scope, key):
            return beside
        raise ConflictError(f"the same memory is held already under another id: {cube.text[:80]!r}")

    def _write(
        self, cube: Cube, action: Action, reason: str, learnt: int, *, owed: bool = True, key: bytes | None = None
    ) -> int:
        if self.words is None:  # else it was looked at before its words were made
            check(cube)
        part, n = self._place(cube.scope.partition)
        rid = part << schema.PARTITION_BITS | n
        id = id_bytes(cube.id)
        salt = os.urandom(16)
        cube = replace(cube, recorded_at=from_micros(learnt))
        body = pack(cube)
        self._record(action, cube.scope.partition, part, id, cube.version, reason, digest(salt, body))
        self._connection.execute(
            "INSERT INTO cubes VALUES (?,?,?,?,?,NULL,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (rid, id, cube.version, self._seq, learnt, *columns(cube), key, salt, body),
        )
        self._link(cube, part, id)
        if cube.version > 1:  # of what was made of it, the readers are now others
            self._standings.clear()
        if self._terms is not None:
            words = self._terms(cube) if self.words is None else self.words
            self._connection.execute("INSERT INTO terms VALUES (?, ?)", (rid, words))
        if owed and cube.text.strip() and cube.status is not Status.QUARANTINED:
            values = [value for task in self._tasks for value in (task, rid)]
            if values:
                marks = ", ".join(["(?, ?)"] * len(self._tasks))
                self._connection.execute(f"INSERT INTO jobs (task, rid) VALUES {marks}", values)
        self._cubes.append(cube)
        return rid

    def _link(self, cube: Cube, part: int, id: bytes) -> None:
        """Note what a version is made of. Raises NotFoundError for a source that is not there."""
        refs = cube.origin.derived_from
        path = cube.scope.partition if refs else ""
        for start in range(0, len(refs), 500):
            some = [(ref, id_bytes(ref.id)) for ref in refs[start : start + 500]]
            # What has just been read as a source is there.
            unread = [(ref, parent) for ref, parent in some if (path, ref) not in self._standings]
            marks = ",".join("?" * len(unread))
            there = dict(
                self._connection.execute(
                    f"SELECT id, rid FROM cubes WHERE id IN ({marks})", [parent for _, parent in unread]
                ).fetchall()
                if unread
                else ()
            )
            for ref, parent in unread:
                rid = there.get(parent)
                # One answer: another user's does not exist here.
                if rid is None or rid >> schema.PARTITION_BITS != part:
                    raise NotFoundError(f"a memory cannot be derived from {ref.id}: there is no such memory")
            self._connection.executemany(
                "INSERT INTO links VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [(id, cube.version, parent, ref.version) for ref, parent in some],
            )

    def _place(self, path: str) -> tuple[int, int]:
        """The partition's number and the next free n in it."""
        if path not in self._parts:
            found = self._connection.execute("SELECT no, next FROM partitions WHERE path = ?", (path,)).fetchone()
            if found is None:
                new = "INSERT INTO partitions (path, next) VALUES (?, 0) RETURNING no, next"
                (found,) = self._connection.execute(new, (path,)).fetchall()
            self._parts[path] = found
        part, n = self._parts[path]
        if n >> schema.PARTITION_BITS:  # the row's number would lie in another's range
            raise StoreError(
                f"{path} has no numbers left for more memories, or its row is damaged; see: holdfast doctor"
            )
        self._parts[path] = part, n + 1
        return part, n

    def _learnt(self, cube: Cube) -> int:
        """When we learnt it: now, unless an import says that it was earlier. Never later than now."""
        return self._at if cube.recorded_at is None else min(to_micros(cube.recorded_at), self._at)

    def _record(
        self, action: Action, path: str, part: int, id: bytes, version: int, reason: str, content: bytes
    ) -> None:
        self._seq += 1
        reason = reason.encode("utf-8", "replace").decode()
        fields = (
            self._seq, self._txn, self._at, self._actor, str(action), path, id_text(id), version, reason, content.hex(),
        )  # fmt: skip
        self._previous = link(self._previous, fields)
        self._journal.append(
            (self._seq, self._txn, self._at, self._actor, action, part, id, version, reason, content, self._previous)
        )

    def finish(self) -> Commit:
        """Write the events, and say what was done; the last thing before the transaction ends."""
        self._connection.executemany("INSERT INTO journal VALUES (?,?,?,?,?,?,?,?,?,?,?)", self._journal)
        for path, (_, n) in self._parts.items():
            self._connection.execute("UPDATE partitions SET next = ? WHERE path = ?", (n, path))
        return Commit(self._seq if self._journal else 0, tuple(self._cubes), tuple(self._duplicates))


def newest(connection: Database) -> tuple[int, bytes, int]:
    """The newest event's seq, hash and time: what the next one is linked to."""
    if (
        known := getattr(connection, "newest", None)
    ) is not None:  # it came with the lock of the head that this writer holds
        return cast("tuple[int, bytes, int]", known)
    found = connection.execute("SELECT seq, hash, at FROM journal ORDER BY seq DESC LIMIT 1").fetchone()
    return found or (0, GENESIS, 0)
