"""Proving a store: the journal's chain from its first event on, and every row that the chain vouches for.

What is checked is the truth (journal, memories, lineage, use, tombstones), not the folds, which are made again at will.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from holdfast.cube import HELD, Cube, to_micros
from holdfast.store.engine import Database
from holdfast.store.journal import GENESIS, Problem, digest, link
from holdfast.store.rows import UNREADABLE, columns, content_key, id_bytes, id_text, key_beside, stray
from holdfast.store.schema import PARTITION_BITS

_LOW = (1 << PARTITION_BITS) - 1


def use_digest(values: tuple[Any, ...]) -> bytes:
    """What a feedback event vouches for: the digest of (visits, last use in microseconds, utility, uncertainty)."""
    same = [value + 0.0 if isinstance(value, float) else value for value in values]  # SQLite keeps no minus zero
    return hashlib.sha256(json.dumps(same, default=repr).encode()).digest()


def check_store(connection: Database, head: tuple[int, str] | None) -> list[Problem]:
    """Everything that does not fit, in one consistent view."""
    strict = connection.text_factory
    connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")  # damaged text is found, not raised
    try:
        return [
            *_chain(connection, head),
            *_memories(connection),
            *_gone(connection),
            *_use(connection),
        ]
    finally:
        connection.text_factory = strict


def _chain(connection: Database, head: tuple[int, str] | None) -> Iterator[Problem]:
    """Every gap, reordering and changed event."""
    paths = dict(connection.execute("SELECT no, path FROM partitions").fetchall())
    previous, expected, last_at, seen = GENESIS, 1, 0, head is None
    for seq, *fields, part, id, version, reason, content, hash in connection.execute(
        "SELECT seq, txn, at, actor, action, part, id, version, reason, digest, hash FROM journal ORDER BY seq"
    ):
        if seq != expected:
            yield Problem(seq, f"event {expected} is missing")
        try:
            if fields[1] < last_at:
                yield Problem(seq, "its time lies before the event before it")
            last_at = fields[1]
            text = id_text(id)
            if hash != link(previous, (seq, *fields, paths.get(part), text, version, reason, content.hex())):
                yield Problem(seq, "its hash does not fit: this event or the one before it was changed")
        except UNREADABLE as error:
            yield Problem(seq, f"the event cannot be read: {error}")
        if head is not None and seq == head[0]:
            seen = isinstance(hash, bytes) and hash.hex() == head[1]
        previous, expected = hash if isinstance(hash, bytes) else GENESIS, seq + 1
    if not seen and head is not None:
        yield Problem(
            head[0], f"the journal does not hold the event {head[0]} that was noted earlier: it was cut or rewritten"
        )


def _memories(connection: Database) -> Iterator[Problem]:
    """Every version against the event that made it, its own columns, the version before and after, and its links."""
    buried = {id for (id,) in connection.execute("SELECT id FROM tombstones")}
    links: defaultdict[tuple[bytes, int], set[tuple[bytes, int]]] = defaultdict(set)
    for child, version, parent, parent_version in connection.execute(
        "SELECT child, child_version, parent, parent_version FROM links"
    ):
        links[child, version].add((parent, parent_version))
    paths = dict(connection.execute("SELECT no, path FROM partitions").fetchall())
    ends: dict[bytes, tuple[int, int | None]] = {}
    last: dict[int, int] = {}
    for rid, id, version, seq, known_from, known_to, key, salt, body, expected, part, *own in connection.execute(
        "SELECT rid, cubes.id, cubes.version, cubes.seq, known_from, known_to, key, salt, body, digest, part, valid_from, "
        "valid_to, expires_at, kind, status, agent, session, author, source, trust FROM cubes LEFT JOIN journal ON "
        "journal.seq = cubes.seq AND journal.id = cubes.id AND journal.version = cubes.version "
        "AND action IN ('add', 'update', 'delete', 'undo') ORDER BY cubes.seq"
    ):
        if expected is None:
            yield Problem(seq, "a memory has no event that made it")
            continue
        try:
            if digest(salt, body) != expected:
                yield Problem(seq, "the memory's content is not what was written")
                continue
            cube = Cube.from_dict({**json.loads(body), "id": id_text(id), "version": version})
            assert cube.recorded_at is not None
            if tuple(own) != columns(cube) or known_from != to_micros(cube.recorded_at):
                yield Problem(seq, "a column of the memory's row does not say what its content says")
            said = content_key(cube)
            held = known_to is None and cube.status in HELD
            if key not in ((said, key_beside(said, id)) if held else (None,)):
                yield Problem(seq, "the memory's content key is not its own")
            if rid >> PARTITION_BITS != part or paths.get(part) != cube.scope.partition:
                yield Problem(seq, "the memory lies in another partition than its event says")
            if rid <= last.get(part, -1):
                yield Problem(seq, "the memory's row is out of order")
            last[part] = max(rid, last.get(part, -1))
            before, until = ends.get(id, (0, known_from))
            if version != before + 1 or until != known_from:
                yield Problem(seq, "the version before does not end where this one begins")
            ends[id] = version, known_to
            parents = {(id_bytes(ref.id), ref.version) for ref in cube.origin.derived_from}
            if links.pop((id, version), set()) != {ref for ref in parents if ref[0] not in buried}:
                yield Problem(seq, "the lineage is not the one that the memory names")
        except UNREADABLE as error:
            yield Problem(seq, f"the memory's row cannot be read: {error}")
    for id, (version, known_to) in ends.items():
        if known_to is not None:
            yield Problem(0, f"the last version ({version}) of memory {id_text(id)} is said to have ended")
    for _, version in links:
        yield Problem(0, f"the lineage names version {version} of a memory that is not there")
    for part, free in connection.execute("SELECT no, next FROM partitions"):
        if not isinstance(free, int) or free > _LOW or (part in last and free <= last[part] & _LOW):
            yield Problem(0, f"partition {part} would use the number of a row again, or of another partition")


def _gone(connection: Database) -> Iterator[Problem]:
    """Memories that are gone without a purge, and tombstones without an event or the other way round."""
    for (seq,) in connection.execute(
        "SELECT journal.seq FROM journal LEFT JOIN cubes ON cubes.seq = journal.seq "
        "LEFT JOIN tombstones ON tombstones.id = journal.id "
        "WHERE action IN ('add', 'update', 'delete', 'undo') AND cubes.seq IS NULL AND tombstones.id IS NULL"
    ):
        yield Problem(seq, "its memory is gone, and no purge says why")
    purged = set(connection.execute("SELECT id, seq FROM journal WHERE action = 'purge'"))
    for _, seq in purged ^ set(connection.execute("SELECT id, seq FROM tombstones")):
        yield Problem(seq if isinstance(seq, int) else 0, "what was forgotten and what the journal says of it differ")
    for (seq,) in connection.execute("SELECT cubes.seq FROM cubes JOIN tombstones ON tombstones.id = cubes.id"):
        yield Problem(seq, "a memory that was forgotten is there again")
    for (rid,) in connection.execute(f"SELECT rid FROM terms WHERE {stray('terms')}"):
        yield Problem(0, f"row {rid} has words in the index and is not there: it was moved or taken out")


def _use(connection: Database) -> Iterator[Problem]:
    """What is said of each memory's use against its last feedback, or against what its first version came with."""
    expected: dict[bytes, tuple[int, bytes]] = {}
    for id, seq, body in connection.execute(
        "SELECT id, seq, json_extract(body, '$.use') FROM cubes WHERE version = 1 AND json_valid(body) "
        "AND json_extract(body, '$.use') IS NOT NULL"
    ):
        try:
            use = Cube.from_dict({"scope": "t/u", "text": "-", "use": json.loads(body)}).use
        except UNREADABLE as error:
            yield Problem(seq, f"the memory's row cannot be read: {error}")
            continue
        last_use = None if use.last_use is None else to_micros(use.last_use)
        expected[id] = seq, use_digest((use.visits, last_use, use.utility, use.uncertainty))
    for id, seq, content in connection.execute(
        "SELECT journal.id, journal.seq, journal.digest FROM journal LEFT JOIN tombstones ON tombstones.id = journal.id "
        "WHERE action = 'feedback' AND tombstones.id IS NULL ORDER BY journal.seq"
    ):
        expected[id] = seq, content
    for id, *values in connection.execute("SELECT id, visits, last_use, utility, uncertainty FROM uses"):
        seq, content = expected.pop(id, (0, b""))
        if use_digest(tuple(values)) != content:
            yield Problem(seq, "what is said of a memory's use is not what feedback said")
    for seq, _ in expected.values():
        yield Problem(seq, "what feedback said of a memory is gone")
