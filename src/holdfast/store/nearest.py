"""Vectors that a server searches by itself, where it has the extension ``vector``: a large scope's need not lie in a process.

The bytes of a fold stay what they are everywhere. Beside them stands, made by the server, the row's own vector as a ``halfvec``,
with a graph over the whole table (HNSW). A transaction sees of it what it sees of the rows: those of its tenant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.store.engine import Database

Floats = npt.NDArray[np.float32]

MOST_DIMENSIONS = 4_000
"""Of a ``halfvec`` that an HNSW index takes; vectors of more dimensions are searched in the process."""

CANARIES = 20
"""Of how many rows the doctor asks for the nearest, by the graph and by all."""

NEWEST = "0.8"
"""The first version of the extension whose index goes on where a filter has left too few rows."""

_THERE = (
    "(SELECT string_to_array(extversion, '.')::int[] >= string_to_array('" + NEWEST + "', '.')::int[] "
    "FROM pg_extension WHERE extname = 'vector')"
)
_WHERE = "(SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector')"

_SCALES = ",".join(
    "NULL" if some % 32 == 31 else repr((1 if some < 32 else -1) * 2.0 ** (max(some % 32, 1) - 25))
    for some in range(64)
)
_WHOLE = ",".join("1024" if some % 32 else "0" for some in range(64))

FUNCTIONS = (
    # Of a half, the upper byte says its sign, its exponent and the first two bits of its fraction. What is too short, or no
    # number, gives no vector.
    f"""CREATE FUNCTION halves(body bytea, dimension integer) RETURNS real[] IMMUTABLE STRICT LANGUAGE sql AS $$
       SELECT CASE WHEN length(body) >= 2 * dimension THEN (
         SELECT CASE WHEN count(value) = dimension THEN array_agg(value) END FROM (
           SELECT (('{{{_SCALES}}}'::double precision[])[high / 4 + 1]
             * (('{{{_WHOLE}}}'::integer[])[high / 4 + 1] + high % 4 * 256 + get_byte(body, at - 1)))::real AS value
           FROM (SELECT at, get_byte(body, at) AS high FROM generate_series(1, 2 * dimension - 1, 2) AS at) AS bytes
         ) AS numbers) END $$""",
    # The plan is made for each call, since how far it may look depends on whose rows are asked for.
    f"""CREATE FUNCTION nearest(model bigint, query double precision[], low bigint, high bigint, many bigint, exactly boolean)
       RETURNS TABLE (found bigint, likeness double precision) STABLE LANGUAGE plpgsql
       SET enable_sort = off AS $$
       BEGIN
         PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true), set_config('hnsw.ef_search', '200', true);
         RETURN QUERY EXECUTE format(CASE WHEN exactly THEN
           'WITH scope AS MATERIALIZED (SELECT rid, -(embedding OPERATOR(%1$s.<#>) $1::%1$s.halfvec) AS likeness FROM vectors_%2$s
            WHERE tenant = current_setting(''holdfast.tenant'') AND rid BETWEEN $2 AND $3 AND embedding IS NOT NULL)
            SELECT rid, likeness FROM scope ORDER BY likeness DESC LIMIT $4'
         ELSE
           'SELECT rid, -(embedding OPERATOR(%1$s.<#>) $1::%1$s.halfvec) FROM vectors_%2$s
            WHERE tenant = current_setting(''holdfast.tenant'') AND rid BETWEEN $2 AND $3
            ORDER BY embedding OPERATOR(%1$s.<#>) $1::%1$s.halfvec LIMIT $4'
         END, {_WHERE}, model) USING query, low, high, many;
       END $$""",
    # What a query loses as halves is a second vector of halves, so that the sum is what the process would find.
    f"""CREATE FUNCTION likeness(model bigint, query double precision[], rest double precision[], rids bigint[], length bigint)
       RETURNS TABLE (found bigint, likeness double precision, pieces bytea) STABLE LANGUAGE plpgsql AS $$
       BEGIN
         RETURN QUERY EXECUTE format('SELECT rid,
           -(embedding OPERATOR(%1$s.<#>) $1::%1$s.halfvec) - (embedding OPERATOR(%1$s.<#>) $2::%1$s.halfvec),
           CASE WHEN length(body) > $4 THEN substr(body, $4::integer + 1) END FROM vectors_%2$s
           WHERE tenant = current_setting(''holdfast.tenant'') AND rid = ANY($3)', {_WHERE}, model) USING query, rest, rids, length;
       END $$""",
)
"""What the store asks its server, by the number of a model: the nearest rows of a range, and the likeness of some."""


def stand(connection: Any, no: int, dimension: int) -> None:
    """Give a model's table its column and its graph, where the server can search it and does not yet.

    A table that is there is written anew. One that is spread over servers is left as it is.
    """
    query = (
        f"SELECT {_WHERE} FROM pg_class WHERE oid = to_regclass('holdfast.vectors_{int(no)}') AND relkind = 'r' AND {_THERE} "
        "AND NOT EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'embedding')"
    )
    found = connection.execute(query).fetchone() if dimension <= MOST_DIMENSIONS else None
    if found is None:
        return
    table, home = f"vectors_{int(no)}", found[0]
    connection.execute(
        f"ALTER TABLE {table} ADD COLUMN embedding {home}.halfvec({int(dimension)}) "
        f"GENERATED ALWAYS AS (halves(body, {int(dimension)})::{home}.halfvec({int(dimension)})) STORED"
    )
    connection.execute(f"CREATE INDEX {table}_near ON {table} USING hnsw (embedding {home}.halfvec_ip_ops)")


def searched(connection: Database, no: int) -> int | None:
    """About how many rows of a model the server can search; None where it cannot."""
    query = (
        "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass(?) AND EXISTS "
        "(SELECT 1 FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'embedding')"
    )
    found = connection.execute(query, (f"holdfast.vectors_{int(no)}",)).fetchone()
    return None if found is None else int(found[0])


def able(connection: Database) -> bool:
    """Whether the server has the extension, new enough."""
    return bool(connection.execute(f"SELECT {_THERE}").fetchone()[0])


def nearest(
    connection: Database, no: int, query: Floats, low: int, high: int, many: int, *, exactly: bool
) -> list[tuple[int, float]]:
    """Up to ``many`` rows of a range that are most like a query, and their cosines; by the graph, or by all of them."""
    values = (no, _array(query), low, high, many, exactly)
    return connection.execute("SELECT found, likeness FROM nearest(?, ?, ?, ?, ?, ?)", values).fetchall()


def likeness(
    connection: Database, no: int, query: Floats, rids: Sequence[int]
) -> list[tuple[int, float, bytes | None]]:
    """The cosines of some rows with a query, and the vectors of their passages (float16) where they have any."""
    halves = query.astype(np.float16)
    rest = query - halves.astype(np.float32)
    values = (no, _array(halves), _array(rest), _array(rids), 2 * len(query))
    return connection.execute("SELECT found, likeness, pieces FROM likeness(?, ?, ?, ?, ?)", values).fetchall()


def bodies(connection: Database, no: int, rids: Sequence[int]) -> list[tuple[int, bytes]]:
    """The folds of some rows."""
    query = f"SELECT rid, body FROM vectors_{int(no)} WHERE rid = ANY(CAST(? AS bigint[]))"
    return connection.execute(query, (_array(rids),)).fetchall()


def _array(values: npt.NDArray[Any] | Sequence[int]) -> str:
    """Numbers as an array is written: in one step, where psycopg would look at each of them."""
    return "{" + ",".join(map(str, values if isinstance(values, list) else np.asarray(values).tolist())) + "}"


def canary(connection: Database, no: int, dimension: int, low: int, high: int) -> float:
    """Of the ten nearest to some rows of a range, the share that the graph finds; 1.0 is all."""
    query = f"SELECT rid FROM vectors_{int(no)} WHERE rid BETWEEN ? AND ? AND embedding IS NOT NULL ORDER BY rid"
    rids = [rid for (rid,) in connection.execute(query, (low, high))]
    shares = []
    for _, body in bodies(connection, no, rids[:: max(1, len(rids) // CANARIES)][:CANARIES]):
        asked = np.frombuffer(body, np.float16, dimension).astype(np.float32)
        want = {rid for rid, _ in nearest(connection, no, asked, low, high, 10, exactly=True)}
        found = {rid for rid, _ in nearest(connection, no, asked, low, high, 10, exactly=False)}
        shares.append(len(want & found) / len(want))
    return sum(shares) / max(1, len(shares))
