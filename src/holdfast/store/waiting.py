"""What stands in quarantine, for people who go through it: counted without a look at anything else, and shown a page at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.cube import Cube, Policy, Scope, Status
from holdfast.store.engine import Database
from holdfast.store.grants import Reach
from holdfast.store.rows import SELECT, Row, id_bytes, to_row
from holdfast.store.schema import PARTITION_BITS

_HELD = """known_to IS NULL AND status = 'quarantined'"""

# The index on current memories is by kind first, so each kind that there is is asked for by itself.
_KINDS = """WITH RECURSIVE kinds(kind) AS (
SELECT min(kind) FROM cubes WHERE known_to IS NULL UNION ALL
SELECT (SELECT min(kind) FROM cubes WHERE known_to IS NULL AND kind > kinds.kind) FROM kinds WHERE kinds.kind IS NOT NULL)
"""
_FROM = f"FROM kinds CROSS JOIN cubes WHERE cubes.kind = kinds.kind AND {_HELD} AND cubes.rid BETWEEN ? AND ?"
_READERS = "CASE WHEN instr(body, '\"readers\":') > 0 THEN json_extract(body, '$.policy.readers') END"


@dataclass(frozen=True, slots=True)
class Waiting:
    """``total``: how many memories wait in all. ``some``: a page of them, each with why it waits; ``next``: where the one after
    it begins, None where this is the last."""

    total: int
    some: tuple[tuple[Cube, str], ...] = ()
    next: int | None = None


def waiting(connection: Database, part: int, reach: Reach, limit: int, after: int) -> Waiting:
    """What waits in a partition and is within reach; ``after``: the number within the partition of the last row that was seen."""
    low, high = part << PARTITION_BITS, ((part + 1) << PARTITION_BITS) - 1
    total = _count(connection, low, high, reach)
    if not limit or not total:
        return Waiting(total)
    found: list[Row] = []
    for row in _rows(connection, max(low, low + after + 1), high, limit + 1):
        if reach.sees(row.cube):
            found.append(row)
            if len(found) > limit:
                break
    more, found = len(found) > limit, found[:limit]
    some = tuple((row.cube, _why(connection, row.cube.id)) for row in found)
    return Waiting(total, some, found[-1].rid - low if more else None)


def _count(connection: Database, low: int, high: int, reach: Reach) -> int:
    scope = reach.scope
    if reach.grants is None and scope.agent is None and scope.session is None:
        return int(connection.execute(f"{_KINDS} SELECT count(*) {_FROM}", (low, high)).fetchone()[0])
    alike = f"{_KINDS} SELECT cubes.kind, agent, session, {_READERS} AS readers, count(*) {_FROM} GROUP BY 1, 2, 3, 4"
    total = 0
    for kind, agent, session, readers, count in connection.execute(alike, (low, high)).fetchall():
        # One stands for all that are alike in what a reach asks for, so the rule is in one place.
        policy = Policy(readers=tuple(json.loads(readers)) if readers else ())
        place = Scope(scope.tenant, scope.user, agent, session)
        one = Cube(place, "-", kind=kind, status=Status.QUARANTINED, policy=policy)
        total += count if reach.sees(one) else 0
    return total


def _rows(connection: Database, low: int, high: int, size: int) -> Iterator[Row]:
    while True:
        page = f"{_KINDS} SELECT cubes.rid {_FROM} ORDER BY cubes.rid LIMIT ?"
        rids = [rid for (rid,) in connection.execute(page, (low, high, size)).fetchall()]
        for start in range(0, len(rids), 500):
            some = rids[start : start + 500]
            marks = ",".join("?" * len(some))
            query = f"{SELECT} WHERE cubes.rid IN ({marks}) ORDER BY cubes.rid"
            yield from map(to_row, connection.execute(query, some).fetchall())
        if len(rids) < size:
            return
        low = rids[-1] + 1


def _why(connection: Database, id: str) -> str:
    """The newest reason that the journal gives for a memory."""
    query = "SELECT reason FROM journal WHERE id = ? AND reason <> '' ORDER BY seq DESC LIMIT 1"
    found = connection.execute(query, (id_bytes(id),)).fetchone()
    return found[0] if found else ""
