"""Complementary learning systems: a fast store, a slow learner and a gate between them (arXiv 2601.09113, paradigms 1–3).

Every fact is a unit key and the number of its value. The fast store keeps it at once; the slow learner generalises over
what is replayed to it offline; the gate decides, read by read, whom to believe:

    p(v|k) = g·p_H(v|k) + (1−g)·p_θ(v|k),   g = σ(a·max_i k·k_i + b·H(p_θ) + c)

An item leaves the fast store only when the slow learner has answered it with ``release_at`` or more in ``checks``
consolidations in a row, and it is not replayed again after the first of them: what is released is what the learner keeps
unaided. The record of where the item came from stays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Self

import numpy as np
import numpy.typing as npt

from holdfast.errors import ConflictError, InputError, NotFoundError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


# --- the fast store ---


@dataclass(frozen=True, slots=True)
class Item:
    """One fact in the fast store.

    ``written`` counts the memory's writes, ``surprise`` is −log p_θ(value|key) when it was written, and ``passed`` counts
    the consolidations in a row after which the slow learner answered it.
    """

    id: str
    key: Floats
    value: int
    source: str = ""
    written: int = 0
    surprise: float = 0.0
    passed: int = 0


class FastStore:
    """Nearest-neighbour memory over unit keys: p_H(v|k) = Σ_i softmax_i(β·k·k_i)·1[v_i = v]."""

    def __init__(self, dimension: int, values: int, *, beta: float = 20.0) -> None:
        self.dimension = dimension
        self.values = values
        self.beta = beta
        self._items: dict[str, Item] = {}
        self._matrix: tuple[Floats, Floats] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, id: object) -> bool:
        return id in self._items

    @property
    def items(self) -> tuple[Item, ...]:
        """What is kept, oldest id first."""
        return tuple(self._items.values())

    def get(self, id: str) -> Item:
        """One item. Raises NotFoundError."""
        try:
            return self._items[id]
        except KeyError as error:
            raise NotFoundError(f"the fast store holds no item {id!r}") from error

    def put(self, item: Item) -> None:
        """Keep an item; one with the same id is replaced."""
        self._items[item.id] = item
        self._matrix = None

    def remove(self, id: str) -> Item:
        """Take an item out and return it. Raises NotFoundError."""
        item = self.get(id)
        del self._items[id]
        self._matrix = None
        return item

    def read(self, keys: Floats, *, without: Sequence[str | None] | None = None) -> tuple[Floats, Floats]:
        """What the neighbours say: probabilities (n, values), and the cosine of the nearest (n,).

        ``without[j]`` names the item that read j must not see. Where there is nothing to see, all values are equally
        likely and the nearest is at −1.
        """
        if not self._items:
            return np.full((len(keys), self.values), 1 / self.values, np.float32), np.full(len(keys), -1.0, np.float32)
        if self._matrix is None:
            labels = np.eye(self.values, dtype=np.float32)[[item.value for item in self._items.values()]]
            self._matrix = np.stack([item.key for item in self._items.values()]), labels
        known, labels = self._matrix
        cosines = keys @ known.T
        if without is not None:
            columns = {id: column for column, id in enumerate(self._items)}
            hidden = [(row, columns[id]) for row, id in enumerate(without) if id in columns]
            cosines[tuple(np.array(hidden, dtype=np.int64).reshape(-1, 2).T)] = -np.inf
        nearest = cosines.max(1)
        blind = np.isneginf(nearest)
        nearest[blind] = -1.0
        votes: Floats = np.exp(self.beta * (cosines - nearest[:, None])) @ labels
        votes[blind] = 1.0
        return votes / votes.sum(1, keepdims=True), nearest


# --- the slow learner ---


class SlowLearner:
    """A two-layer perceptron p_θ(v|k) with rectified units, trained by Adam on distributions over the values."""

    def __init__(self, dimension: int, values: int, *, hidden: int = 256, rate: float = 3e-3, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.dimension = dimension
        self.values = values
        self.rate = rate
        # Keys have unit length, not unit entries: without the gain the hidden units start near zero.
        gain = 3.0
        self.weights: tuple[Floats, ...] = (
            (gain * math.sqrt(2 / dimension) * rng.standard_normal((dimension, hidden))).astype(np.float32),
            np.zeros(hidden, np.float32),
            (math.sqrt(1 / hidden) * rng.standard_normal((hidden, values))).astype(np.float32),
            np.zeros(values, np.float32),
        )
        self._moments = tuple((np.zeros_like(weight), np.zeros_like(weight)) for weight in self.weights)
        self._steps = 0

    @property
    def parameters(self) -> int:
        """How many numbers are learnt."""
        return sum(weight.size for weight in self.weights)

    def predict(self, keys: Floats) -> Floats:
        """Probabilities of the values, shape (n, values)."""
        return self._forward(keys)[1]

    def step(self, keys: Floats, targets: Floats, weights: Floats | None = None) -> None:
        """One step on the mean of w_j·CE(targets_j, p_θ(·|keys_j)); with p_old as a target this is KL(p_old‖p_θ)."""
        hidden, scores = self._forward(keys)
        error = (scores - targets) / np.float32(len(keys))
        self.descend(keys, hidden, error if weights is None else error * weights[:, None])

    def _forward(self, keys: Floats) -> tuple[Floats, Floats]:
        into, into_bias, out, out_bias = self.weights
        hidden: Floats = np.maximum(keys @ into + into_bias, 0)
        scores = hidden @ out + out_bias
        scores -= scores.max(1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(1, keepdims=True)
        return hidden, scores

    def descend(self, keys: Floats, hidden: Floats, error: Floats) -> None:
        """Adam on the gradient that ``error`` (n, values), the loss's slope at the scores, sends back."""
        back = (error @ self.weights[2].T) * (hidden > 0)
        slopes = (keys.T @ back, back.sum(0), hidden.T @ error, error.sum(0))
        self._steps += 1
        rate = np.float32(self.rate * math.sqrt(1 - 0.999**self._steps) / (1 - 0.9**self._steps))
        for weight, slope, (first, second) in zip(self.weights, slopes, self._moments, strict=True):
            first += np.float32(0.1) * (slope - first)
            second += np.float32(0.001) * (slope * slope - second)
            weight -= rate * first / (np.sqrt(second) + np.float32(1e-8))


# --- the gate ---


@dataclass(frozen=True, slots=True)
class Gate:
    """How much the fast store is believed: g = σ(a·nearest + b·entropy + c)."""

    a: float = 40.0
    b: float = 0.0
    c: float = -36.0

    @classmethod
    def fixed(cls, share: float) -> Self:
        """A gate that always gives the fast store the same share; 0 and 1 are the pure systems, exactly."""
        if not 0.0 <= share <= 1.0:
            raise InputError(f"a share lies between 0 and 1, not {share}")
        c = -math.inf if share == 0 else math.inf if share == 1 else math.log(share / (1 - share))
        return cls(0.0, 0.0, c)

    def __call__(self, nearest: Floats, entropy: Floats) -> Floats:
        """g for each read, shape (n,)."""
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-(self.a * nearest + self.b * entropy + self.c)))

    def fit(self, nearest: Floats, entropy: Floats, fast: Floats, slow: Floats, *, rounds: int = 400) -> Gate:
        """The gate that makes the truth likeliest: max Σ_j log(g_j·fast_j + (1−g_j)·slow_j).

        ``fast`` and ``slow`` (n,) are the probabilities that each system gave the true value. Adam on standardised
        features, from this gate's own decision as a start that does not matter; a small ridge keeps a, b, c finite.
        """
        features = np.stack([nearest, entropy, np.ones_like(nearest)], 1).astype(np.float64)
        centre, spread = features[:, :2].mean(0), features[:, :2].std(0) + 1e-6
        features[:, :2] = (features[:, :2] - centre) / spread
        point, first, second = np.zeros(3), np.zeros(3), np.zeros(3)
        for round_ in range(1, rounds + 1):
            g = 1 / (1 + np.exp(-(features @ point)))
            gain = (fast - slow) / np.maximum(g * fast + (1 - g) * slow, 1e-9) * g * (1 - g)
            slope = features.T @ gain / len(gain) - 1e-4 * point
            first += 0.1 * (slope - first)
            second += 0.01 * (slope * slope - second)
            point += 0.1 * (first / (1 - 0.9**round_)) / (np.sqrt(second / (1 - 0.99**round_)) + 1e-9)
        a, b = point[:2] / spread
        return Gate(float(a), float(b), float(point[2] - a * centre[0] - b * centre[1]))
