"""What the tests of the store share: a clock that is set by hand, a small embedder, shorthand for scopes and cubes."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from holdfast import opening
from holdfast.cube import Cube, Scope
from holdfast.memory import Memory
from holdfast.retrieve.text import fold_terms, tokens
from holdfast.store.base import Commit, Operation
from holdfast.store.engine import WHOLE
from holdfast.store.sql import SqlStore
from holdfast.store.sqlite import SqliteStore

ANA = Scope("acme", "ana")
BEN = Scope("acme", "ben")
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where a hundred stores come and go, no disk need turn."""
START = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Clock:
    """The time, moved by hand."""

    def __init__(self, at: datetime = START) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def tick(self, seconds: float = 1.0) -> datetime:
        self.at += timedelta(seconds=seconds)
        return self.at


class HashEmbedder:
    """A bag of words as a unit vector: the same text always gives the same vector, and shared words bring texts near."""

    def __init__(self, model: str = "hash-64", dimension: int = 64) -> None:
        self.model = model
        self.dimension = dimension

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        found = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            for word in tokens(text):
                found[row] += _direction(self.model, self.dimension, word)
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)


@functools.cache
def _direction(model: str, dimension: int, word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(f"{model} {word}".encode("utf-8", "surrogatepass")).digest()[:4])
    return np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)


class Failing(HashEmbedder):
    """Does what ``behave`` says with the vectors that it should have given."""

    def __init__(self, behave: Any, model: str = "hash-64", dimension: int = 64) -> None:
        super().__init__(model, dimension)
        self.behave = behave

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return self.behave(super().embed(texts), texts)


def place_of(text: str) -> Path | str:
    """A place as it was given to another program."""
    return text if opening.is_address(text) else Path(text)


def open_store(place: Path | str, **options: Any) -> SqlStore:
    """A store as ``Memory`` opens it, without the wait for the disk."""
    options = {"terms": fold_terms, "tasks": ("embed", "enrich"), "durability": "normal", **options}
    return opening.open_store(place, **options)


def open_memory(place: Path | str, **options: Any) -> Memory:
    """A memory that works only when it is told to, without the wait for the disk."""
    options = {"embedder": None, "encoders": (), "background": False, "durability": "normal", "user": "ana", **options}
    return Memory(place, **options)


def everywhere(store: SqlStore) -> bytes:
    """Every byte of every file of a store; on a server, everything that its tables hold, whoever it belongs to."""
    if isinstance(store.owner, SqliteStore):
        with store.owner.connections.away():
            return b"\n".join(path.read_bytes() for path in sorted(store.owner.folder.rglob("*")) if path.is_file())
    with store.connections.reading(WHOLE) as connection:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = 'holdfast'"
        tables = [name for (name,) in connection.execute(query)]
        rows = [row for name in tables for row in connection.execute(f"SELECT * FROM {name}")]
    return b"\n".join(value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row)


def add(store: SqlStore, *cubes: Cube) -> Commit:
    return store.commit([Operation.add(cube) for cube in cubes])


def update(store: SqlStore, cube: Cube, **changes: Any) -> Cube:
    return store.commit([Operation.update(cube.with_(**changes))]).cubes[0]


def texts(hits: Sequence[Any]) -> list[str]:
    return [hit.text for hit in hits]
