"""Where a memory comes from decides what it is worth and who may read it, whatever it says of itself.

Taint only grows along lineage, and nothing is trusted more than the least trusted of what it was made from, nor than the
version before. Where a source names its readers, nobody else reads what was made of it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass, replace

from holdfast.cube import EXTERNAL, Cube, Origin, Ref, taints
from holdfast.errors import NotFoundError
from holdfast.store.rows import id_bytes, partition_number
from holdfast.store.schema import PARTITION_BITS

NOBODY = "@nobody"
"""The reader of what was made of memories that have none in common: no principal can have such a name."""


@dataclass(frozen=True, slots=True)
class _Source:
    trust: float
    taint: tuple[str, ...]
    readers: tuple[str, ...] = ()


def as_of_its_sources(connection: sqlite3.Connection, cube: Cube, before: Origin | None = None) -> Cube:
    """The cube with the taint, the trust and the readers of its door, its sources and the version before. Raises NotFoundError."""
    origin = cube.origin
    part = partition_number(connection, cube.scope.partition) if origin.derived_from else None
    sources = [_standing(connection, ref, part) for ref in origin.derived_from]
    readers = _common(cube.policy.readers, [source.readers for source in sources])
    if readers != cube.policy.readers:
        cube = replace(cube, policy=replace(cube.policy, readers=readers))
    if before is not None:
        sources.append(_Source(before.trust, before.taint))
    own = (origin.label,) if origin.channel in EXTERNAL else ()
    taint = taints(origin.taint, own, *(source.taint for source in sources))
    trust = min((origin.trust, *(source.trust for source in sources)))
    if (taint, trust) == (origin.taint, origin.trust):
        return cube
    return replace(cube, origin=replace(origin, taint=taint, trust=trust))


def _common(readers: tuple[str, ...], sources: Collection[tuple[str, ...]]) -> tuple[str, ...]:
    """Who may read what was made of some memories: those that each of them lets, and it itself; none named is all."""
    named = [set(some) for some in (readers, *sources) if some]
    if not any(sources):
        return readers
    return tuple(sorted(set.intersection(*named))) or (NOBODY,)


def _standing(connection: sqlite3.Connection, ref: Ref, part: int | None) -> _Source:
    """The trust, the taint and the readers of a version; of the newest where that version never was, and its readers now."""
    found = connection.execute(
        "SELECT trust, json_extract(body, '$.origin.taint'), rid, "
        "(SELECT json_extract(body, '$.policy.readers') FROM cubes WHERE id = ?1 AND known_to IS NULL) "
        "FROM cubes WHERE id = ?1 ORDER BY version = ?2 DESC, version DESC",
        (id_bytes(ref.id), ref.version),
    ).fetchone()
    if found is None or found[2] >> PARTITION_BITS != part:  # one answer: another user's does not exist here
        raise NotFoundError(f"a memory cannot be derived from {ref.id}: there is no such memory")
    return _Source(found[0], tuple(json.loads(found[1] or "[]")), tuple(json.loads(found[3] or "[]")))
