"""sqlite-vec beside a table of texts, in one SQLite file; a scope is a partition key.

Through apsw, because the sqlite3 of many Python builds cannot load extensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import apsw
import sqlite_vec

from benchmarks.data import DIMENSION, Batch, Data, Floats, Query

VERSION = sqlite_vec.__version__
SETTINGS = "float32, exact scan, WAL, synchronous FULL, scope a partition key"
MODES = ("dense",)


class Engine:
    """One row a memory in ``rows`` and in the vector table ``near``, in one transaction."""

    def __init__(self, folder: Path, data: Data, queries: Sequence[Query]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = apsw.Connection(str(folder / "rows.db"))
        self._file.enable_load_extension(True)
        self._file.load_extension(sqlite_vec.loadable_path())
        self._file.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000")
        # A partition takes whole chunks: with scopes of a hundred rows, chunks of 1,024 would be nine tenths empty.
        room = min(1024, max(8, -(-data.rows // data.scopes // 8) * 8))
        self._file.execute(
            "CREATE TABLE IF NOT EXISTS rows (number INTEGER PRIMARY KEY, scope INTEGER NOT NULL, text TEXT NOT NULL);"
            "CREATE VIRTUAL TABLE IF NOT EXISTS near USING vec0(number INTEGER PRIMARY KEY, scope INTEGER PARTITION KEY, "
            f"vector FLOAT[{DIMENSION}] distance_metric=cosine, chunk_size={room})"
        )

    def load(self, batch: Batch) -> None:
        scopes = batch.scopes.tolist()
        with self._file:
            rows = zip(batch.numbers, scopes, batch.texts, strict=True)
            self._file.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)
            packed = [vector.tobytes() for vector in batch.vectors]
            near = zip(batch.numbers, scopes, packed, strict=True)
            self._file.executemany("INSERT INTO near (number, scope, vector) VALUES (?, ?, ?)", near)

    def finish(self) -> None:
        """Every transaction was durable and searchable when it returned."""

    def add(self, number: int, scope: int, text: str, vector: Floats) -> None:
        with self._file:
            self._file.execute("INSERT INTO rows VALUES (?, ?, ?)", (number, scope, text))
            self._file.execute(
                "INSERT INTO near (number, scope, vector) VALUES (?, ?, ?)", (number, scope, vector.tobytes())
            )

    def search(self, text: str, vector: Floats, scope: int | None, k: int, mode: str) -> Sequence[int]:
        here = "" if scope is None else f"AND scope = {int(scope)}"
        query = (
            f"WITH best AS (SELECT number, distance FROM near WHERE vector MATCH ? AND k = ? {here}) "
            "SELECT best.number, rows.text FROM best JOIN rows USING (number) ORDER BY distance"
        )
        return [number for number, _ in self._file.execute(query, (vector.tobytes(), k))]

    def settle(self) -> None:
        """A row is searchable by its vector when ``add`` returns."""

    def close(self) -> None:
        self._file.close()
