"""Evidence recall on LoCoMo for the claims that stand on it (14 and 26): measured once a process, since it has no seed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.bench import recall

HYBRID = "hybrid search"
SINGLE = ("BM25", "dense", recall.NAMED, "recency")
"""The single channels that the hybrid is held against."""


def evidence_recall(data: Path, k: int) -> Mapping[str, float]:
    """Recall of the evidence turns among the first k, over categories 1 to 4, by arm.

    ``data`` holds the folder ``locomo``. Raises InputError where it does not.
    """
    found = _run(data)["results"]["categories 1-4"]
    return {
        HYBRID: found["holdfast"][f"recall@{k}"][0],
        **{arm: found[arm][f"recall@{k}"][0] for arm in SINGLE if arm in found},
    }


def gain(recalled: Mapping[str, float]) -> float:
    """How far the hybrid lies above the best single channel."""
    return recalled[HYBRID] - max(score for arm, score in recalled.items() if arm != HYBRID)


@functools.cache
def _run(data: Path) -> dict[str, Any]:
    return recall.run("locomo", data / "locomo")
