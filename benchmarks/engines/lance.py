"""LanceDB, one table; a scope is a column with a bitmap index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lancedb
import pyarrow as pa

from benchmarks.data import DIMENSION, Batch, Data, Floats, Query

VERSION = lancedb.__version__
SETTINGS = "IVF_HNSW_SQ from 10,000 rows on, refine factor 5; scope a B-tree column, filtered before the search"
MODES = ("dense",)
INDEXED_FROM = 10_000
_SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("scope", pa.int64()),
        ("text", pa.string()),
        ("vector", pa.list_(pa.float32(), DIMENSION)),
    ]
)


class Engine:
    """One row a memory."""

    def __init__(self, folder: Path, data: Data, queries: Sequence[Query]) -> None:
        self._scopes = data.scopes
        database = lancedb.connect(str(folder / "lance"))
        self._rows = database.create_table("rows", schema=_SCHEMA, exist_ok=True)

    def load(self, batch: Batch) -> None:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(batch.vectors.reshape(-1)), DIMENSION)
        columns = [pa.array(batch.numbers), pa.array(batch.scopes), pa.array(batch.texts), vectors]
        self._rows.add(pa.table(columns, schema=_SCHEMA))

    def finish(self) -> None:
        if self._scopes > 1:
            self._rows.create_scalar_index("scope")
        if self._rows.count_rows() >= INDEXED_FROM:
            self._rows.create_index(metric="dot", vector_column_name="vector", index_type="IVF_HNSW_SQ")

    def add(self, number: int, scope: int, text: str, vector: Floats) -> None:
        self._rows.add([{"number": number, "scope": scope, "text": text, "vector": vector}])

    def search(self, text: str, vector: Floats, scope: int | None, k: int, mode: str) -> Sequence[int]:
        query = self._rows.search(vector).distance_type("dot").limit(k).refine_factor(5)
        if scope is not None:
            query = query.where(f"scope = {scope}", prefilter=True)
        found: list[int] = query.select(["number", "text", "_distance"]).to_arrow()["number"].to_pylist()
        return found

    def settle(self) -> None:
        """A row is searchable by its vector when ``add`` returns."""

    def close(self) -> None:
        """Nothing is held open."""
