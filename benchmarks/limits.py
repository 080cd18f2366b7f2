"""What the hardware allows: the price of one synced commit on this disk, and how fast one core reads memory."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import numpy as np

WORDS_BYTES = 24 + 24 / 64
"""What a scan must read a row at the least: 192 of its 384 sign bits, and the others of one row in 64."""

RESCORED, RESCORED_BYTES = 250, 768
"""And then the best rows again, in float16, so that the recall is that of an exact search."""

POSTING_BYTES = 5
"""What a lexical index must read for each row that holds a word of the query: its number and how often."""


class SyncedCommit:
    """One row of bytes in one transaction of a plain table: WAL, synchronous FULL, nothing else."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = sqlite3.connect(folder / "limit.db", isolation_level=None)
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = FULL")
        self._file.execute("CREATE TABLE IF NOT EXISTS rows (number INTEGER PRIMARY KEY, body BLOB NOT NULL)")

    def seconds(self, body: bytes) -> float:
        """How long one commit of these bytes takes."""
        start = time.perf_counter()
        self._file.execute("BEGIN IMMEDIATE")
        self._file.execute("INSERT INTO rows (body) VALUES (?)", (body,))
        self._file.execute("COMMIT")
        return time.perf_counter() - start

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def read_bandwidth(mebibytes: int = 512, repeats: int = 7) -> float:
    """Bytes a second that one core reads from memory in order: the best of several passes over far more than the cache."""
    numbers = np.ones(mebibytes * 2**20 // 4, np.float32)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        np.maximum.reduce(numbers)
        best = min(best, time.perf_counter() - start)
    return numbers.nbytes / best


def pace(repeats: int = 20) -> float:
    """Milliseconds that a fixed piece of work takes at best, plain Python and reads all over 32 MB of memory.

    How fast a machine that is shared with others happens to be just now.
    """
    numbers = np.ones(2**23, np.float32)
    places = np.random.default_rng(0).integers(0, len(numbers), 200_000)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        total = 0
        for number in range(20_000):
            total += number * number
        numbers[places].sum()
        best = min(best, time.perf_counter() - start)
    return round(best * 1e3, 3)


def scan_bytes(rows: int) -> float:
    """What a search without a graph must read of ``rows`` vectors."""
    return rows * WORDS_BYTES + min(rows, RESCORED) * RESCORED_BYTES
