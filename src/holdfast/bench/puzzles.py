"""How puzzles of pairs are scored (ARC-AGI, as ArcMemo scores it, arXiv 2509.04439): officially, and strictly.

More attempts raise the official score by themselves: compare methods at equal attempts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.errors import InputError

ATTEMPTS = 2
"""Attempts at a pair that count, unless more are allowed."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one program came to: whether it was right, for each pair to learn from and each to be tested on."""

    train: tuple[bool, ...]
    test: tuple[bool, ...]


def official(puzzles: Sequence[Sequence[Attempt]], most: int = ATTEMPTS) -> float:
    """Of each pair to be tested on, whether one of the first ``most`` attempts is right; the mean over pairs, then over puzzles, in
    [0, 1]. Raises InputError."""
    return float(np.mean([_official(attempts, most) for attempts in _some(puzzles, most)]))


def strict(puzzles: Sequence[Sequence[Attempt]], most: int = ATTEMPTS) -> float:
    """The share of puzzles of which one of the first ``most`` attempts is right on all pairs, in [0, 1]. Raises InputError."""
    right = [any(all(one.train) and all(one.test) for one in attempts[:most]) for attempts in _some(puzzles, most)]
    return float(np.mean(right))


def _official(attempts: Sequence[Attempt], most: int) -> float:
    if not attempts:
        return 0.0
    return float(np.mean([any(pair) for pair in zip(*(one.test for one in attempts[:most]), strict=True)]))


def _some(puzzles: Sequence[Sequence[Attempt]], most: int) -> Sequence[Sequence[Attempt]]:
    if not puzzles or most < 1:
        raise InputError("a score is of one puzzle or more, and of one attempt or more")
    for attempts in puzzles:
        if len({len(one.test) for one in attempts}) > 1 or any(not one.test for one in attempts):
            raise InputError("the attempts at a puzzle are at the same pairs, one or more")
    return puzzles
