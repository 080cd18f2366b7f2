"""mem0 without a language model (``infer=False``), on its own default store, Qdrant in local mode.

Its configuration knows no embedder of one's own, so one is put in after construction; the language model's and the
embedder's clients are made with a key that is never used. Its keyword search needs a model that is downloaded at run
time, so offline it is dense only. It has no bulk call: loading adds one memory at a time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.data import DIMENSION, Batch, Data, Floats, Lookup, Query

os.environ["MEM0_TELEMETRY"] = "False"
from mem0 import Memory

VERSION = version("mem0ai")
SETTINGS = "infer=False, Qdrant in local mode (its default), given vectors, no keyword search (needs a download)"
MODES = ("dense",)
BATCH = 100


class Given:
    """What stands in for mem0's embedder."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def embed(self, text: str, memory_action: str | None = None) -> list[float]:
        """The given vector of one text."""
        found: list[float] = self._lookup([text])[0].tolist()
        return found


class Engine:
    """One memory a row; a scope is a user."""

    def __init__(self, folder: Path, data: Data, queries: Sequence[Query]) -> None:
        logging.getLogger("mem0").setLevel(logging.ERROR)
        folder.mkdir(parents=True, exist_ok=True)
        store = {
            "path": str(folder / "qdrant"),
            "collection_name": "rows",
            "embedding_model_dims": DIMENSION,
            "on_disk": True,
        }
        self._memory = Memory.from_config(
            {
                "vector_store": {"provider": "qdrant", "config": store},
                "llm": {"provider": "openai", "config": {"api_key": "unused"}},
                "embedder": {"provider": "openai", "config": {"api_key": "unused"}},
                "history_db_path": str(folder / "history.db"),
            }
        )
        self._memory.embedding_model = Given(Lookup(data, queries))

    def load(self, batch: Batch) -> None:
        for number, scope, text, vector in zip(
            batch.numbers, batch.scopes.tolist(), batch.texts, batch.vectors, strict=True
        ):
            self.add(number, scope, text, vector)

    def finish(self) -> None:
        """Every call was indexed when it returned."""

    def add(self, number: int, scope: int, text: str, vector: Floats) -> None:
        self._memory.add(text, user_id=str(scope), metadata={"number": number}, infer=False)

    def search(self, text: str, vector: Floats, scope: int | None, k: int, mode: str) -> Sequence[int]:
        user = "0" if scope is None else str(scope)
        found = self._memory.search(text, filters={"user_id": user}, top_k=k, threshold=0.0)
        return [hit["metadata"]["number"] for hit in found["results"]]

    def settle(self) -> None:
        """A row is searchable by its vector when ``add`` returns."""

    def close(self) -> None:
        self._memory.vector_store.client.close()
        self._memory.close()
