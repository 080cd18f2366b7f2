"""Where a memory comes from decides what it is worth and who may read it, whatever it says of itself.

Taint only grows along lineage, and nothing is trusted more than the least trusted of what it was made from, nor than the
version before. Where a source names its readers, nobody else reads what was made of it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from holdfast.cube import EXTERNAL, Cube, Origin, Ref, taints
from holdfast.errors import NotFoundError
from holdfast.store.engine import Database
from holdfast.store.rows import VERSIONS, id_bytes, id_text, partition_number
from holdfast.store.schema import PARTITION_BITS

NOBODY = "@nobody"
"""The reader of what was made of memories that have none in common: no principal can have such a name."""


@dataclass(frozen=True, slots=True)
class _Source:
    trust: float
    taint: tuple[str, ...]
    readers: tuple[str, ...] = ()


Standings = dict[tuple[str, Ref], _Source]
"""What is known of versions that are there, by the path of their partition: for who has many made of one, and knows when it
changes."""


def as_of_its_sources(
    connection: Database, cube: Cube, before: Origin | None = None, *, known: Standings | None = None
) -> Cube:
    """The cube with the taint, the trust and the readers of its door, its sources and the version before. Raises NotFoundError.

    ``known``: what this has read of sources in the same view of the store, and adds to.
    """
    origin = cube.origin
    refs = origin.derived_from
    path = cube.scope.partition if refs else ""
    found: Standings = {} if known is None else known
    if unread := [ref for ref in refs if (path, ref) not in found]:
        part = partition_number(connection, path)
        if len(unread) > _FEW:
            found |= {(path, ref): source for ref, source in _standings(connection, unread, part).items()}
        for ref in unread:
            if (path, ref) not in found:
                found[path, ref] = _standing(connection, ref, part)
    sources = [found[path, ref] for ref in refs]
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


_FEW = 2  # are asked for one by one


def _standings(connection: Database, refs: Sequence[Ref], part: int | None) -> dict[Ref, _Source]:
    """As ``_standing`` of each of these versions that is there: what many runs have confirmed is made of all of them."""
    found: dict[Ref, _Source] = {}
    for start in range(0, len(refs), 250):
        some = refs[start : start + 250]
        pairs = ",".join(["(?, ?)"] * len(some))
        values = [value for ref in some for value in (id_bytes(ref.id), ref.version)]
        ids = values[::2]
        now = dict(
            connection.execute(
                "SELECT id, json_extract(body, '$.policy.readers') FROM cubes WHERE known_to IS NULL AND id IN "
                f"({','.join('?' * len(ids))})",
                ids,
            )
        )
        rows = connection.execute(
            "SELECT id, version, trust, json_extract(body, '$.origin.taint'), rid FROM cubes "
            f"WHERE rid IN ({VERSIONS.format(pairs)})",
            values,
        )
        for id, version, trust, taint, rid in rows:
            if rid >> PARTITION_BITS == part:
                readers = tuple(json.loads(now.get(id) or "[]"))
                found[Ref(id_text(id), version)] = _Source(trust, tuple(json.loads(taint or "[]")), readers)
    return found


def _standing(connection: Database, ref: Ref, part: int | None) -> _Source:
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
