"""The protocol that every engine fits, so that the same worker drives them all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.data import Batch, Data, Floats, Query


class Engine(Protocol):
    """A store of texts and vectors in a folder. Making one opens it, or creates it where there is nothing.

    Row numbers are the data set's. ``scope`` is None where the data set has one scope: no filter is then asked for.
    """

    def load(self, batch: Batch) -> None:
        """Store rows in bulk."""
        ...

    def finish(self) -> None:
        """Make everything loaded searchable and durable: build the index, if the engine wants one built."""
        ...

    def add(self, number: int, scope: int, text: str, vector: Floats) -> None:
        """Store one row; durable and visible to search when this returns."""
        ...

    def settle(self) -> None:
        """Wait until every row is searchable by its vector too, where ``add`` does not wait for that."""
        ...

    def search(self, text: str, vector: Floats, scope: int | None, k: int, mode: str) -> Sequence[int]:
        """The row numbers of the k best, best first, with their texts read; ``mode`` is one of the module's MODES."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...


class Maker(Protocol):
    """What an engine's module offers as ``Engine``."""

    def __call__(self, folder: Path, data: Data, queries: Sequence[Query]) -> Engine:
        """Open the store in a folder. ``data`` and ``queries`` are for engines that call an embedder."""
        ...
