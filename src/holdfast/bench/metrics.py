"""Judge-free retrieval metrics over ranked ids, and paired bootstrap intervals.

Binary relevance throughout. ``ndcg_any`` is LongMemEval's published form (arXiv 2410.10813, ``eval_utils.py``), whose second
rank is not discounted; ``ndcg`` is the usual one (Järvelin and Kekäläinen 2002).
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.errors import InputError

Floats = npt.NDArray[np.float64]


def recall(ranked: Sequence[str], relevant: Set[str], k: int) -> float:
    """The share of the relevant ids among the first ``k``. Raises InputError where nothing is relevant or ``k`` < 1."""
    return len(_top(ranked, relevant, k) & relevant) / len(relevant)


def recall_any(ranked: Sequence[str], relevant: Set[str], k: int) -> float:
    """1 where at least one relevant id is among the first ``k``, else 0."""
    return float(bool(_top(ranked, relevant, k) & relevant))


def recall_all(ranked: Sequence[str], relevant: Set[str], k: int) -> float:
    """1 where every relevant id is among the first ``k``, else 0: LongMemEval's headline."""
    return float(_top(ranked, relevant, k) >= relevant)


def mrr(ranked: Sequence[str], relevant: Set[str], k: int | None = None) -> float:
    """One over the rank of the first relevant id, 0 where there is none among the first ``k`` (None: anywhere)."""
    _top(ranked, relevant, 1 if k is None else k)
    return next((1.0 / rank for rank, id in enumerate(ranked[:k], 1) if id in relevant), 0.0)


def ndcg(ranked: Sequence[str], relevant: Set[str], k: int) -> float:
    """Normalised discounted cumulative gain: discount log2(rank + 1), ideal over min(k, number of relevant ids)."""
    return _ndcg(ranked, relevant, k, 1.0 / np.log2(np.arange(2, k + 2)))


def ndcg_any(ranked: Sequence[str], relevant: Set[str], k: int) -> float:
    """LongMemEval's official form: rel_1 + sum over i >= 2 of rel_i / log2(i), divided by the same of an ideal ranking."""
    return _ndcg(ranked, relevant, k, np.concatenate([[1.0], 1.0 / np.log2(np.arange(2, k + 1))]))


def _ndcg(ranked: Sequence[str], relevant: Set[str], k: int, discount: Floats) -> float:
    _top(ranked, relevant, k)
    gains = np.array([id in relevant for id in ranked[:k]], dtype=np.float64)
    return float(gains @ discount[: len(gains)] / discount[: min(k, len(relevant))].sum())


def _top(ranked: Sequence[str], relevant: Set[str], k: int) -> set[str]:
    if not relevant:
        raise InputError("no id is relevant, so recall is undefined; leave such questions out of the mean")
    if k < 1:
        raise InputError(f"k must be at least 1, not {k}")
    top = set(ranked[:k])
    if len(top) < min(k, len(ranked)):
        raise InputError("the ranking names an id twice; rank every id once")
    return top


def auc(scores: Sequence[float] | Floats, labels: Sequence[bool] | npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the chance that a positive outscores a negative, ties counted half.

    Raises InputError unless there are both positives and negatives.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if values.shape != truth.shape or values.ndim != 1:
        raise InputError(f"need one label a score, not {truth.shape} for {values.shape}")
    positive, negative = values[truth], np.sort(values[~truth])
    if not len(positive) or not len(negative):
        raise InputError("an AUC needs at least one positive and one negative")
    below = np.searchsorted(negative, positive, side="left") + np.searchsorted(negative, positive, side="right")
    return float(below.mean() / 2 / len(negative))


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its two-sided percentile interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    values: Sequence[float] | Floats,
    baseline: Sequence[float] | Floats | None = None,
    *,
    seed: int,
    clusters: Sequence[str] | None = None,
    draws: int = 2000,
    level: float = 0.95,
) -> Interval:
    """The mean of per-question values, or of their paired differences from a baseline on the same questions.

    ``clusters`` names the conversation of each question: whole conversations are then drawn, which is the honest interval
    where their questions are alike. Raises InputError on empty or unpaired input.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not len(sample):
        raise InputError("a bootstrap needs at least one value")
    if baseline is not None:
        other = np.asarray(baseline, dtype=np.float64)
        if other.shape != sample.shape:
            raise InputError(f"the baseline has {len(other)} values, not {len(sample)}: pair them by question")
        sample = sample - other
    if not 0 < level < 1 or draws < 1:
        raise InputError("level must lie between 0 and 1, and draws be at least 1")
    if clusters is not None and len(clusters) != len(sample):
        raise InputError(f"{len(clusters)} clusters are named for {len(sample)} values")
    group = np.arange(len(sample)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    sums, counts = np.bincount(group, weights=sample), np.bincount(group)
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for draw in range(draws):
        pick = rng.integers(len(sums), size=len(sums))
        means[draw] = sums[pick].sum() / counts[pick].sum()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sample.mean()), float(low), float(high))
