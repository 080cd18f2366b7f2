"""Chroma, persistent client, one collection; a scope is a metadata field."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import chromadb
from chromadb.config import Settings

from benchmarks.data import Batch, Data, Floats, Query

VERSION = chromadb.__version__
SETTINGS = "persistent client, HNSW in its default settings, inner product, scope in metadata"
MODES = ("dense",)


class Engine:
    """Rows by their number as id."""

    def __init__(self, folder: Path, data: Data, queries: Sequence[Query]) -> None:
        self._client = chromadb.PersistentClient(str(folder / "chroma"), Settings(anonymized_telemetry=False))
        self._rows = self._client.get_or_create_collection(
            "rows", embedding_function=None, configuration={"hnsw": {"space": "ip"}}
        )
        self._most = self._client.get_max_batch_size()

    def load(self, batch: Batch) -> None:
        for start in range(0, len(batch.numbers), self._most):
            some = slice(start, start + self._most)
            self._rows.add(
                ids=[str(number) for number in batch.numbers[some]],
                embeddings=batch.vectors[some],
                documents=batch.texts[some],
                metadatas=[{"scope": scope} for scope in batch.scopes[some].tolist()],
            )

    def finish(self) -> None:
        """Every call was durable and indexed when it returned."""

    def add(self, number: int, scope: int, text: str, vector: Floats) -> None:
        self._rows.add(ids=[str(number)], embeddings=vector[None], documents=[text], metadatas=[{"scope": scope}])

    def search(self, text: str, vector: Floats, scope: int | None, k: int, mode: str) -> Sequence[int]:
        where = None if scope is None else {"scope": scope}
        found = self._rows.query(query_embeddings=vector[None], n_results=k, where=where, include=["documents"])
        return [int(id) for id in found["ids"][0]]

    def settle(self) -> None:
        """A row is searchable by its vector when ``add`` returns."""

    def close(self) -> None:
        self._client.close()
