"""Where a memory comes from decides what it is worth: its taint and its trust, whatever it says of itself.

Taint only grows along lineage, and nothing is trusted more than the least trusted of what it was made from, nor than the
version before.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace

from holdfast.cube import EXTERNAL, Cube, Origin, Ref, taints
from holdfast.errors import NotFoundError
from holdfast.store.rows import id_bytes


def as_of_its_sources(connection: sqlite3.Connection, cube: Cube, before: Origin | None = None) -> Cube:
    """The cube with the taint and the trust of its door, its sources and the version before. Raises NotFoundError."""
    origin = cube.origin
    sources = [_standing(connection, ref) for ref in origin.derived_from]
    if before is not None:
        sources.append((before.trust, before.taint))
    own = (origin.label,) if origin.channel in EXTERNAL else ()
    taint = taints(origin.taint, own, *(some for _, some in sources))
    trust = min((origin.trust, *(some for some, _ in sources)))
    if (taint, trust) == (origin.taint, origin.trust):
        return cube
    return replace(cube, origin=replace(origin, taint=taint, trust=trust))


def _standing(connection: sqlite3.Connection, ref: Ref) -> tuple[float, tuple[str, ...]]:
    """The trust and the taint of a version; of the newest where that version never was."""
    found = connection.execute(
        "SELECT trust, json_extract(body, '$.origin.taint') FROM cubes WHERE id = ?1 ORDER BY version = ?2 DESC, version DESC",
        (id_bytes(ref.id), ref.version),
    ).fetchone()
    if found is None:
        raise NotFoundError(f"a memory cannot be derived from {ref.id}: there is no such memory")
    return found[0], tuple(json.loads(found[1] or "[]"))
