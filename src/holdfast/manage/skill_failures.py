"""Questions that skills failed, and the few of them that a designer looks at (MemSkill, arXiv 2602.02474 §3.5).

Failures are kept by question for some updates; what has been solved since must be scored anew before anybody designs from it
(``rescored``). They are sorted into clusters by the meaning of the question, and of each cluster the most important are shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from holdfast.encode.base import Vectors

PROFILE = ()  # what went wrong, for those who mend the skills

FAILED = 0.5
"""A score below this is a failure."""
SIZE, WINDOW = 2_000, 100
CLUSTERS, EACH = 5, 3
SEED, STARTS, TURNS = 42, 10, 50


@dataclass(frozen=True, slots=True)
class Case:
    """A question of an episode, the right answer, the one that was given, and from what memories; ``evidence``: what was said."""

    episode: str
    question: str
    answer: str
    given: str
    score: float
    memories: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    fails: int = 1

    @property
    def key(self) -> tuple[str, str]:
        """By which it is known again."""
        return self.episode, self.question

    @property
    def importance(self) -> float:
        """(1 - score) log(1 + how often it failed)."""
        return (1.0 - self.score) * math.log1p(self.fails)


@dataclass(frozen=True, slots=True)
class Failures:
    """What has failed within the last updates, the latest word on each question. A value: changes make a new one."""

    cases: Mapping[tuple[str, str], tuple[int, Case]] = field(default_factory=dict)

    def seen(self, cases: Iterable[Case], update: int) -> Failures:
        """With questions as they went in an update: failures are added, and what was solved goes."""
        held = {key: one for key, one in self.cases.items() if one[0] > update - WINDOW}
        for case in cases:
            before = held.pop(case.key, None)
            if case.score < FAILED:
                fails = (before[1].fails if before else 0) + 1
                held[case.key] = update, replace(case, fails=fails)
        return Failures(dict(list(held.items())[-SIZE:]))

    def rescored(self, cases: Iterable[Case]) -> Failures:
        """With the failures scored anew where they are among some cases; what is solved by now goes, and no count grows."""
        held = dict(self.cases)
        for case in cases:
            if (before := held.get(case.key)) is None:
                continue
            if case.score < FAILED:
                held[case.key] = before[0], replace(case, fails=before[1].fails)
            else:
                del held[case.key]
        return Failures(held)

    def worst(self, most: int) -> list[Case]:
        """The most important failures, the most important first."""
        cases = [case for _, case in self.cases.values()]
        return sorted(cases, key=lambda case: (-case.importance, case.key))[:most]


def chosen(
    cases: Sequence[Case], embed: Callable[[Sequence[str]], Vectors], clusters: int = CLUSTERS, each: int = EACH
) -> list[list[Case]]:
    """Of each cluster of different questions the most important failures; clusters with the most failures first."""
    unique: dict[str, Case] = {}
    for case in sorted(cases, key=lambda case: (-case.importance, case.key)):
        unique.setdefault(" ".join(case.question.lower().split()), case)
    some = list(unique.values())
    if not some:
        return []
    labels = k_means(np.asarray(embed([case.question for case in some]), np.float64), clusters)
    groups = [[case for case, label in zip(some, labels, strict=True) if label == one] for one in range(clusters)]
    return [group[:each] for group in sorted(groups, key=len, reverse=True) if group]


def k_means(points: npt.NDArray[np.float64], k: int, seed: int = SEED) -> npt.NDArray[np.int64]:
    """A cluster in [0, k) for each point: the best of ten starts by k-means++, each until nothing moves. At most one a point."""
    k = min(k, len(points))
    random = np.random.default_rng(seed)
    best, least = np.zeros(len(points), np.int64), math.inf
    for _ in range(STARTS):
        centres = points[[int(random.integers(len(points)))]]
        while len(centres) < k:
            away = _squared(points, centres).min(axis=1)
            share = away / away.sum() if away.sum() > 0 else None
            centres = np.vstack([centres, points[random.choice(len(points), p=share)]])
        for _ in range(TURNS):
            labels = _squared(points, centres).argmin(axis=1)
            moved = np.stack(
                [points[labels == one].mean(axis=0) if (labels == one).any() else centres[one] for one in range(k)]
            )
            if np.array_equal(moved, centres):
                break
            centres = moved
        away = _squared(points, centres)
        inertia = float(away.min(axis=1).sum())
        if inertia < least:
            best, least = away.argmin(axis=1), inertia
    return best


def _squared(points: npt.NDArray[np.float64], centres: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(((points[:, None] - centres[None]) ** 2).sum(axis=2))
