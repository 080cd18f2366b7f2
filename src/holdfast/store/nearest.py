"""Vectors that a server searches by itself, where it has the extension ``vector``: a large scope's need not lie in a process.

The bytes of a fold stay what they are everywhere. Beside them stands, made by the server, the row's own vector as a ``halfvec``,
with a graph over the whole table (HNSW). A transaction sees of it what it sees of the rows: those of its tenant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.store.engine import Database

MOST_DIMENSIONS = 4_000
"""Of a ``halfvec`` that an HNSW index takes; vectors of more dimensions are searched in the process."""

NEWEST = "0.8"
"""The first version of the extension whose index goes on where a filter has left too few rows."""

_THERE = (
    "(SELECT string_to_array(extversion, '.')::int[] >= string_to_array('" + NEWEST + "', '.')::int[] "
    "FROM pg_extension WHERE extname = 'vector')"
)
_WHERE = "(SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector')"

FUNCTIONS = (
    # A half is a sign, five bits of exponent and ten of fraction. What is no number, or too short, gives no vector.
    r"""CREATE FUNCTION halves(body bytea, dimension integer) RETURNS real[] IMMUTABLE STRICT LANGUAGE sql AS $$
       SELECT CASE WHEN length(body) >= 2 * dimension THEN (
         SELECT CASE WHEN bool_and(h & 31744 <> 31744) THEN array_agg((CASE WHEN h > 32767 THEN -1 ELSE 1 END
           * (CASE WHEN h & 31744 = 0 THEN h & 1023 ELSE 1024 + (h & 1023) END)
           * power(2::double precision, greatest((h & 31744) >> 10, 1) - 25))::real ORDER BY i) END
         FROM generate_series(0, dimension - 1) AS i,
           LATERAL (SELECT get_byte(body, 2 * i) + 256 * get_byte(body, 2 * i + 1)) AS half(h)) END $$""",
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
    f"""CREATE FUNCTION likeness(model bigint, query double precision[], rids bigint[], length bigint)
       RETURNS TABLE (found bigint, likeness double precision, pieces bytea) STABLE LANGUAGE plpgsql AS $$
       BEGIN
         RETURN QUERY EXECUTE format('SELECT rid, -(embedding OPERATOR(%1$s.<#>) $1::%1$s.halfvec),
           CASE WHEN length(body) > $3 THEN substr(body, $3::integer + 1) END FROM vectors_%2$s
           WHERE tenant = current_setting(''holdfast.tenant'') AND rid = ANY($2)', {_WHERE}, model) USING query, rids, length;
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
    connection: Database, no: int, query: Sequence[float], low: int, high: int, many: int, *, exactly: bool
) -> list[tuple[int, float]]:
    """Up to ``many`` rows of a range that are most like a query, and their cosines; by the graph, or by all of them."""
    values = (no, list(query), low, high, many, exactly)
    return connection.execute("SELECT found, likeness FROM nearest(?, ?, ?, ?, ?, ?)", values).fetchall()


def likeness(
    connection: Database, no: int, query: Sequence[float], rids: Sequence[int], dimension: int
) -> list[tuple[int, float, bytes | None]]:
    """The cosines of some rows with a query, and the vectors of their passages (float16) where they have any."""
    values = (no, list(query), list(rids), 2 * dimension)
    return connection.execute("SELECT found, likeness, pieces FROM likeness(?, ?, ?, ?)", values).fetchall()


def bodies(connection: Database, no: int, rids: Sequence[int]) -> list[tuple[int, bytes]]:
    """The folds of some rows."""
    query = f"SELECT rid, body FROM vectors_{int(no)} WHERE rid = ANY(?)"
    return connection.execute(query, (list(rids),)).fetchall()
