"""Receipts that outlive the program which forgot something: what the journal, which keeps no word of it, can still tell.

An erasure is one transaction. Its events say when, by whom and why, which ids were asked for and which went because what they
were made from did. Of the words nothing is left to look for: the salts that proved their absence from the files went with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from holdfast.cube import Scope, from_micros
from holdfast.store.engine import Database
from holdfast.store.journal import FOLLOWED, GENESIS, link
from holdfast.store.rows import id_text

SHOWN = 20
"""How many ids a receipt in a list names."""

_OF = "FROM journal WHERE part = ? AND action = 'purge' AND action <> 'add'"  # the second in the words of the index


@dataclass(frozen=True, slots=True)
class Kept:
    """An erasure, as the journal has it: its events from ``first`` to ``seq``, and in all ``count`` memories, ``followed`` of them
    because a source was forgotten.

    ``ids`` are those that were asked for, then the ``derived``; in a list of receipts only the first SHOWN of each.
    """

    first: int
    seq: int
    at: datetime
    by: str
    reason: str
    count: int
    followed: int
    ids: tuple[str, ...]
    derived: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the names of ``Receipt.to_dict`` where it says the same."""
        return {
            "seq": self.seq,
            "first": self.first,
            "at": self.at.isoformat(),
            "by": self.by,
            "reason": self.reason,
            "count": self.count,
            "followed": self.followed,
            "erased": list(self.ids),
            "derived": list(self.derived),
        }


def erasures(
    connection: Database, part: int, before: int | None, limit: int, by: str | None, caller: str
) -> Iterator[Kept]:
    """The erasures of a partition before event ``before``, the newest first; the rest is as in ``erasure``."""
    end = (1 << 62) if before is None else before
    mine = "" if by is None else " AND actor = ?"
    for _ in range(limit):
        newest = f"SELECT seq {_OF} AND seq < ?{mine} ORDER BY seq DESC LIMIT 1"
        found = connection.execute(newest, (part, end, *(() if by is None else (by,)))).fetchone()
        if found is None:
            return
        one = erasure(connection, part, found[0], by, caller, SHOWN)
        assert one is not None  # it is of this moment
        yield one
        end = one.first


def erasure(connection: Database, part: int, seq: int, by: str | None, caller: str, most: int = 1 << 62) -> Kept | None:
    """The erasure that event ``seq`` belongs to. ``by``: None where another than this did it. ``most``: so many ids of each sort.

    ``caller``: who asks, "" for the owner; why somebody else erased something is not told to others.
    """
    query = f"SELECT txn, at, actor, reason {_OF} AND seq = ?"
    found = connection.execute(query, (part, seq)).fetchone()
    if found is None or by not in (None, found[2]):
        return None
    first, at, actor, reason = found
    # A transaction's events follow each other.
    beyond = connection.execute("SELECT seq FROM journal WHERE seq > ? AND txn > ? ORDER BY seq LIMIT 1", (seq, first))
    last = (beyond.fetchone() or (1 << 62,))[0] - 1
    txn, within = f"{_OF} AND seq BETWEEN ? AND ?", (part, first, last)
    last, count = connection.execute(f"SELECT max(seq), count(*) {txn}", within).fetchone()
    followed = connection.execute(f"SELECT count(*) {txn} AND digest = ?", (*within, FOLLOWED)).fetchone()[0]
    asked, derived = (
        tuple(
            id_text(id)
            for (id,) in connection.execute(
                f"SELECT id {txn} AND digest {same} ? ORDER BY seq LIMIT ?", (*within, FOLLOWED, most)
            ).fetchall()
        )
        for same in ("<>", "=")
    )
    told = reason if not caller or actor == caller else ""
    return Kept(first, last, from_micros(at), actor, told, count, followed, asked + derived, derived)


def broken(connection: Database, one: Kept, scope: Scope) -> list[str]:
    """Where the events of an erasure are not as they were written, or what they erased has no tombstone: a line each."""
    before = connection.execute("SELECT hash FROM journal WHERE seq = ?", (one.first - 1,)).fetchone()
    previous = before[0] if before else GENESIS
    found = []
    query = (
        "SELECT seq, txn, at, actor, action, journal.id, version, reason, digest, hash, "
        "(SELECT count(*) FROM tombstones "
        "WHERE tombstones.id = journal.id AND tombstones.seq = journal.seq /*= tombstones journal */) "
        "FROM journal WHERE seq BETWEEN ? AND ? ORDER BY seq"
    )
    for *fields, digest, hash, buried in connection.execute(query, (one.first, one.seq)):
        seq, txn, at, actor, action, id, version, reason = fields
        told = (seq, txn, at, actor, action, scope.partition, id_text(id), version, reason, digest.hex())
        if link(previous, told) != hash:
            found.append(f"event {seq} of the journal is not as it was written")
        if not buried:
            found.append(f"event {seq} has left no tombstone")
        previous = hash
    return found
