"""What the PostgreSQL store adds to plain SQL that does the same work, on one server: durable adds, and searches.

    python -m benchmarks.postgres postgresql://me@localhost/postgres

Makes and drops a database of its own. The plain arm writes the same rows in the same tables by psycopg, in one transaction of
the same durability, with nothing looked up but what keeps them consistent: the tenant's head, and whether the same is held. Its
search is what a program would write by hand, of the same words and the same vectors: full-text search and vector distance
(pgvector, exact; with an HNSW index where ``--large``) under row-level security, fused by rank, ten rows. Arms run in turn, so that
both meet the same machine. ``--large`` also compares the two places where a large scope's vectors may be searched, this process and
the server, beside the rows of a quarter as many memories of others; how well the graph finds, and what a vector costs to keep.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from holdfast.cube import Cube, Scope, new_id
from holdfast.memory import Memory
from holdfast.retrieve import partition as partitions
from holdfast.retrieve import pgvectors
from holdfast.retrieve.pgvectors import StoredVectors
from holdfast.retrieve.text import fold_terms
from holdfast.retrieve.vectors import VectorIndex
from holdfast.store.base import Operation
from holdfast.store.postgres import PostgresStore
from holdfast.store.rows import pack
from support import HashEmbedder

HOME = Scope("acme", "ana")
WORDS = [f"{a}{b}" for a in ("tea", "ship", "lamp", "rain", "note", "song", "dog", "road") for b in range(60)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", help="the address of a server's database in which an administrator may work")
    parser.add_argument("--rows", type=int, default=2_000, help="memories that are searched")
    parser.add_argument("--large", action="store_true", help="search in the server too")
    parser.add_argument("--times", type=int, default=300, help="adds and searches that are timed")
    args = parser.parse_args()
    head, _, rest = args.server.partition("?")
    address = head.rpartition("/")[0] + "/holdfast_bench" + (f"?{rest}" if rest else "")
    with psycopg.connect(args.server, autocommit=True) as server:
        server.execute("DROP DATABASE IF EXISTS holdfast_bench")
        server.execute("CREATE DATABASE holdfast_bench")
        try:
            arms = large if args.large else measured
            for row in arms(address, args.rows, args.times):
                print(json.dumps(row))
        finally:
            server.execute("DROP DATABASE holdfast_bench WITH (FORCE)")


def measured(address: str, held: int, times: int) -> list[dict[str, object]]:
    """Adds and searches of both arms, in a database with nothing in it."""
    draw = random.Random(1)
    with Memory(
        address, tenant="acme", user="ana", embedder=HashEmbedder(dimension=384), encoders=(), background=False
    ) as memory:
        plain = Plain(address)
        texts = [" ".join(draw.choices(WORDS, k=12)) for _ in range(held)]
        for start in range(0, len(texts), 256):
            memory.store.commit([Operation.add(Cube(HOME, text)) for text in texts[start : start + 256]])
        memory.flush()
        plain.load(texts)
        new = iter([" ".join(draw.choices(WORDS, k=12)) + f" {n}" for n in range(10 * times)])
        asked = iter([" ".join(draw.choices(WORDS, k=4)) for _ in range(2 * times)])
        store = PostgresStore(address, terms=fold_terms, tasks=("embed", "enrich"))
        return [
            compared(
                "add",
                lambda: store.commit([Operation.add(Cube(HOME, next(new)))]),
                lambda: plain.add(next(new)),
                times,
            ),
            compared("search", lambda: memory.search(next(asked), k=10), lambda: plain.search(next(asked)), times),
        ]


def large(address: str, held: int, times: int) -> list[dict[str, object]]:
    """Searches of a scope of many memories: its vectors in this process, in the server, and plain SQL."""
    draw = random.Random(1)
    embedder = HashEmbedder(dimension=384)
    texts = [" ".join(draw.choices(WORDS, k=12)) + f" {n}" for n in range(held)]
    others = [Scope(f"tenant{n % 10}", "ben") for n in range(held // 4)]
    partitions.HELD_ROWS = 1 << 40
    with Memory(address, tenant="acme", user="ana", embedder=embedder, encoders=(), background=False) as memory:
        for start in range(0, held, 256):
            memory.store.commit([Operation.add(Cube(HOME, text)) for text in texts[start : start + 256]])
        for at in range(10):
            some = [Cube(scope, " ".join(draw.choices(WORDS, k=12))) for scope in others[at::10]]
            memory.store.commit([Operation.add(cube) for cube in some])
        memory.flush()
    plain = Plain(address)  # with the extension, of which the next to open the store makes use
    plain.load(texts)
    begin = time.perf_counter()
    PostgresStore(address).close()
    built = time.perf_counter() - begin
    plain.index()
    asked = [" ".join(draw.choices(WORDS, k=4)) for _ in range(2 * times)]
    rows: list[dict[str, object]] = [
        {"what": "rows", "of the scope": held, "of others": len(others), "made searchable in s": round(built, 1)}
    ]
    arms: dict[str, Callable[[str], object]] = {"plain": plain.search}
    options = {"tenant": "acme", "user": "ana", "embedder": embedder, "encoders": (), "background": False}
    with Memory(address, **options) as here, Memory(address, **options) as there:
        for name, memory, limit in (("process", here, 1 << 40), ("server", there, 0)):
            partitions.HELD_ROWS = limit
            memory.search("a first one loads it")
            arms[name] = lambda query, memory=memory: memory.search(query, k=10)
        took: dict[str, list[float]] = {name: [] for name in arms}
        for query in asked[:times]:
            for name, call in arms.items():
                begin = time.perf_counter()
                call(query)
                took[name].append(1e3 * (time.perf_counter() - begin))
        medians = {name: round(statistics.median(some[5:]), 2) for name, some in took.items()}
        rows.append(
            {
                "what": "search",
                "times": times,
                "median_ms": medians,
                "server / plain": round(medians["server"] / medians["plain"], 2),
            }
        )
        rows.append(nearest(here, there, embedder, asked[times:], times))
        store = PostgresStore(address, terms=fold_terms, tasks=("embed", "enrich"))
        new = iter([" ".join(draw.choices(WORDS, k=12)) + f" new {n}" for n in range(4 * times)])
        add = compared(
            "add", lambda: store.commit([Operation.add(Cube(HOME, next(new)))]), lambda: plain.add(next(new)), times
        )
        rows.append(add)
        begin = time.perf_counter()
        done = there.flush()
        rows.append(
            {
                "what": "vectors and names made after the adds",
                "ms_each": round(1e3 * (time.perf_counter() - begin) / times, 2),
                "said": str(done),
            }
        )
    return rows


def nearest(here: Memory, there: Memory, embedder: HashEmbedder, queries: list[str], times: int) -> dict[str, object]:
    """Of the ten nearest that all vectors say, the share that each way finds, and its milliseconds for a pool of 100."""
    no = here.store.partition(HOME)
    assert no is not None
    held, stored = here.recall.partition(no).vectors, there.recall.partition(no).vectors
    assert isinstance(held, VectorIndex) and isinstance(stored, StoredVectors)
    rows = np.arange(len(held.present))
    table = held.vectors(rows)
    found: dict[str, list[float]] = {name: [] for name in ("process", "graph", "exact in the server")}
    took: dict[str, list[float]] = {name: [] for name in found}
    for query in queries[:times]:
        vector = embedder.embed([query])[0]
        want = set(np.argsort(-(table @ vector), kind="stable")[:10].tolist())
        for name, index, mostly in (
            ("process", held, 10),
            ("graph", stored, 1 << 40),
            ("exact in the server", stored, 0),
        ):
            pgvectors.MOSTLY = mostly
            begin = time.perf_counter()
            got = index.search(vector, 100)[0]
            took[name].append(1e3 * (time.perf_counter() - begin))
            found[name].append(len(want & set(got[:10].tolist())) / 10)
    pgvectors.MOSTLY = 10
    return {
        "what": "nearest vectors",
        "times": times,
        "recall_at_10": {name: round(statistics.mean(some), 3) for name, some in found.items()},
        "median_ms": {name: round(statistics.median(some), 2) for name, some in took.items()},
    }


def compared(what: str, ours: Callable[[], object], theirs: Callable[[], object], times: int) -> dict[str, object]:
    """Median milliseconds of both, in turn, and their ratio."""
    took: dict[str, list[float]] = {"holdfast": [], "plain": []}
    for _ in range(times):
        for name, call in (("holdfast", ours), ("plain", theirs)):
            begin = time.perf_counter()
            call()
            took[name].append(1e3 * (time.perf_counter() - begin))
    medians = {name: round(statistics.median(some[10:]), 3) for name, some in took.items()}
    return {
        "what": what,
        "times": times,
        "median_ms": medians,
        "ratio": round(medians["holdfast"] / medians["plain"], 2),
    }


class Plain:
    """The same by hand."""

    def __init__(self, address: str) -> None:
        self._embedder = HashEmbedder(dimension=384)
        self._connection = psycopg.connect(address, autocommit=True)
        for statement in (
            "CREATE EXTENSION IF NOT EXISTS vector",
            "CREATE TABLE plain (tenant text, rid bigint, body text, v halfvec(384), words tsvector, PRIMARY KEY (tenant, rid))",
            "CREATE INDEX ON plain USING gin (words)",
            "ALTER TABLE plain ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY own ON plain USING (tenant = current_setting('holdfast.tenant'))",
            "GRANT SELECT ON plain TO holdfast_tenant",
        ):
            self._connection.execute(statement)
        self._n = 1 << 40
        self._distance = "<=>"

    def load(self, texts: list[str]) -> None:
        vectors = self._embedder.embed(texts)
        with self._connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO plain VALUES ('acme', %s, %s, %s, to_tsvector('english', %s))",
                [(n, text, _literal(v), text) for n, (text, v) in enumerate(zip(texts, vectors, strict=True))],
            )
        self._connection.execute("ANALYZE plain")

    def index(self) -> None:
        """The graph that a program of many rows would have."""
        self._connection.execute("CREATE INDEX ON plain USING hnsw (v halfvec_ip_ops)")
        self._connection.execute("ANALYZE")
        self._distance = "<#>"

    def _begin(self) -> None:
        self._connection.execute(
            "BEGIN; SELECT set_config('search_path', 'holdfast,public', true), set_config('holdfast.tenant', 'plain', true), "
            "set_config('role', 'holdfast_tenant', true)"
        )

    def add(self, text: str) -> None:
        cube = Cube(HOME, text)
        run = self._connection.execute
        self._begin()
        run("INSERT INTO heads (tenant) VALUES ('plain') ON CONFLICT DO NOTHING")
        seq = run("SELECT seq FROM heads WHERE tenant = 'plain' FOR UPDATE").fetchone()[0] + 1  # type: ignore[index]
        key, id = new_id().encode(), new_id().replace("-", "")
        run("SELECT id FROM cubes WHERE key = %s", (key,)).fetchone()
        self._n += 1
        values = (self._n, bytes.fromhex(id), seq, pack(cube), key)
        run(
            "INSERT INTO cubes (rid, id, version, seq, known_from, kind, status, trust, salt, body, key) VALUES "
            "(%s, %s, 1, %s, 1, 'message', 'generated', 1, '', %s, %s)",
            values,
        )
        run("INSERT INTO terms (rid, body) VALUES (%s, %s)", (self._n, fold_terms(cube)))
        run("INSERT INTO jobs (task, rid) VALUES ('embed', %s), ('enrich', %s)", (self._n, self._n))
        run(
            "INSERT INTO journal (seq, txn, at, actor, action, part, id, version, reason, digest, hash) VALUES "
            "(%s, %s, 1, '', 'add', 1, %s, 1, '', '', '')",
            (seq, seq, bytes.fromhex(id)),
        )
        run("UPDATE heads SET seq = %s WHERE tenant = 'plain'", (seq,))
        run("COMMIT")

    def search(self, query: str) -> list[object]:
        vector = _literal(self._embedder.embed([query])[0])
        self._connection.execute(
            "BEGIN; SELECT set_config('holdfast.tenant', 'acme', true), set_config('role', 'holdfast_tenant', true)"
        )
        found = self._connection.execute(
            """WITH close AS (SELECT rid, v {distance} %(v)s::halfvec AS distance FROM plain ORDER BY distance LIMIT 50),
               near AS (SELECT rid, row_number() OVER (ORDER BY distance) AS rank FROM close),
               said AS (SELECT rid, row_number() OVER (ORDER BY ts_rank(words, q) DESC) AS rank FROM plain,
                        to_tsquery('english', %(q)s) AS q WHERE words @@ q ORDER BY ts_rank(words, q) DESC LIMIT 50)
               SELECT rid, body FROM plain JOIN (SELECT rid, sum(1.0 / (60 + rank)) AS score FROM
               (SELECT * FROM near UNION ALL SELECT * FROM said) AS ranked GROUP BY rid) AS best USING (rid)
               ORDER BY score DESC LIMIT 10""".replace("{distance}", self._distance),
            {"v": vector, "q": " | ".join(query.split())},
        ).fetchall()
        self._connection.execute("COMMIT")
        return list(found)


def _literal(vector: np.ndarray) -> str:
    return "[" + ",".join(f"{value:.5f}" for value in vector) + "]"


if __name__ == "__main__":
    main()
