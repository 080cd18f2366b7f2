"""Complementary learning systems: a fast store, a slow learner and a gate between them (arXiv 2601.09113, paradigms 1–3).

Every fact is a unit key and the number of its value. The fast store keeps it at once; the slow learner generalises over
what is replayed to it offline; the gate decides, read by read, whom to believe:

    p(v|k) = g·p_H(v|k) + (1−g)·p_θ(v|k),   g = σ(a·max_i k·k_i + b·H(p_θ) + c)

An item leaves the fast store only when the slow learner has answered it with ``release_at`` or more in ``checks``
consolidations in a row, and it is not replayed again after the first of them: what is released is what the learner keeps
unaided. The record of where the item came from stays.

    memory = ComplementaryMemory(FastStore(384, 20), SlowLearner(384, 20))
    memory.write("ana:city", key, 7, source="chat:12")      # found by the very next read
    memory.read(keys).values                                # the likeliest value of each
    memory.consolidate()                                    # offline; returns what was released
    memory.delete("ana:city", key=key).clean                # out of the store and out of the weights
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Self

import numpy as np
import numpy.typing as npt

from holdfast.cube import Form
from holdfast.errors import InputError, NotFoundError
from holdfast.taxonomy import (
    Evolution,
    Formation,
    Function,
    MemoryProfile,
    Modality,
    Retrieval,
    Subform,
    Subject,
    Trainable,
)

PROFILE = (
    MemoryProfile(
        Form.TEXT,
        Subform.FLAT,
        (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
        evolution=(Evolution.UPDATE_EXTERNAL, Evolution.CONSOLIDATE_GLOBAL),
        retrieval=(Retrieval.ON_REQUEST, Retrieval.SEMANTIC, Retrieval.AGGREGATE),
        subject=(Subject.USER, Subject.WORLD),
        modality=(Modality.VECTOR,),
    ),
    MemoryProfile(
        Form.WEIGHTS,
        Subform.EXTERNAL,
        (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
        formation=(Formation.INTERNALISE,),
        evolution=(Evolution.UPDATE_INTERNAL, Evolution.CONSOLIDATE_GLOBAL),
        retrieval=(Retrieval.ON_REQUEST,),
        subject=(Subject.USER, Subject.WORLD),
        modality=(Modality.VECTOR,),
        trainable=Trainable.FULL,
    ),
)

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_SPARED = 1024  # keys whose answers a deletion must not change; more cost time and change nothing


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
        likely and the nearest is at −1. Raises InputError unless ``keys`` has shape (n, dimension).
        """
        _check_keys(keys, self.dimension)
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
        cosines -= nearest[:, None]
        cosines *= np.float32(self.beta)
        votes: Floats = np.exp(cosines, out=cosines) @ labels
        votes[blind] = 1.0
        return votes / votes.sum(1, keepdims=True), nearest


# --- the slow learner ---


class SlowLearner:
    """A two-layer perceptron p_θ(v|k) with rectified units and dropout, trained by Adam on distributions over the values.

    Dropout is what makes it learn the rule rather than the examples: without it, replaying the exceptions that pile up in
    the fast store costs it what it had generalised.
    """

    def __init__(
        self,
        dimension: int,
        values: int,
        *,
        hidden: int = 256,
        rate: float = 3e-3,
        dropout: float = 0.5,
        seed: int = 0,
    ) -> None:
        if min(dimension, values, hidden) < 1 or not 0.0 <= dropout < 1.0:
            raise InputError("a learner needs dimension, values and hidden of at least 1, and a dropout in [0, 1)")
        self._rng = np.random.default_rng(seed)
        self.dimension = dimension
        self.values = values
        self.rate = rate
        self.dropout = dropout
        # Keys have unit length, not unit entries: without the gain the hidden units start near zero.
        gain = 3.0
        self.weights: tuple[Floats, ...] = (
            (gain * math.sqrt(2 / dimension) * self._rng.standard_normal((dimension, hidden))).astype(np.float32),
            np.zeros(hidden, np.float32),
            (math.sqrt(1 / hidden) * self._rng.standard_normal((hidden, values))).astype(np.float32),
            np.zeros(values, np.float32),
        )
        self._moments = tuple((np.zeros_like(weight), np.zeros_like(weight)) for weight in self.weights)
        self._steps = 0

    @property
    def parameters(self) -> int:
        """How many numbers are learnt."""
        return sum(weight.size for weight in self.weights)

    def predict(self, keys: Floats) -> Floats:
        """Probabilities of the values, shape (n, values). Raises InputError unless ``keys`` is (n, dimension)."""
        _check_keys(keys, self.dimension)
        return self._scores(self._hidden(keys))

    def step(self, keys: Floats, targets: Floats, weights: Floats | None = None) -> None:
        """One step of Adam down ``gradient``."""
        self._steps += 1
        rate = np.float32(self.rate * math.sqrt(1 - 0.999**self._steps) / (1 - 0.9**self._steps))
        slopes = self.gradient(keys, targets, weights)
        for weight, slope, (first, second) in zip(self.weights, slopes, self._moments, strict=True):
            first += np.float32(0.1) * (slope - first)
            second += np.float32(0.001) * (slope * slope - second)
            weight -= rate * first / (np.sqrt(second) + np.float32(1e-8))

    def gradient(self, keys: Floats, targets: Floats, weights: Floats | None = None) -> tuple[Floats, ...]:
        """The slopes, in the shapes of ``weights``, of the mean of w_j·CE(targets_j, p_θ(·|keys_j)).

        With p_old as a target this is the slope of KL(p_old‖p_θ). Dropout is drawn anew at each call.
        """
        hidden = self._hidden(keys)
        gain = np.float32(1 / (1 - self.dropout))
        if self.dropout:
            hidden *= self._rng.random(hidden.shape, np.float32) >= self.dropout
            hidden *= gain
        error: Floats = (self._scores(hidden) - targets) / np.float32(len(keys))
        if weights is not None:
            error *= weights[:, None]
        back: Floats = error @ self.weights[2].T
        back *= hidden > 0
        back *= gain
        return keys.T @ back, back.sum(0), hidden.T @ error, error.sum(0)

    def suppress(self, keys: Floats, values: Ints, target: float, others: Floats) -> None:
        """Make each of ``values`` at most about as likely as ``target`` at one key, changing the answers to other keys least.

        ``keys`` (m, dimension) is the key and some near it, ``others`` (n, dimension) are keys that must keep theirs. A
        rank-one edit of the output layer in closed form: the values' logits fall along C⁻¹h, where h is the mean of the
        keys' hidden units and C the second moment of the others', as locate-and-edit does with facts.
        """
        here = self._hidden(keys).mean(0)
        there = self._hidden(others)
        moment = (there.T @ there).astype(np.float64)
        ridge = 0.1 * max(float(np.trace(moment)), float(here @ here)) / len(here)
        direction = np.linalg.solve(moment + ridge * np.eye(len(here)), here.astype(np.float64))
        believed = np.clip(self.predict(keys).mean(0).astype(np.float64), 1e-6, 1.0)
        # What the other values share between them changes too, since all add up to one.
        rest = max(1.0 - believed[values].sum(), 1e-6) / (1.0 - target * len(values))
        fall = np.maximum(np.log(believed[values] / (target * rest)), 0.0)
        self.weights[2][:, values] -= np.outer(direction / (here @ direction), fall).astype(np.float32)

    def _hidden(self, inputs: Floats) -> Floats:
        hidden: Floats = inputs @ self.weights[0]
        hidden += self.weights[1]
        return np.maximum(hidden, 0, out=hidden)

    def _scores(self, hidden: Floats) -> Floats:
        scores: Floats = hidden @ self.weights[2]
        scores += self.weights[3]
        scores -= scores.max(1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(1, keepdims=True)
        return scores


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
            share = 1 / (1 + np.exp(-(self.a * nearest.astype(np.float64) + self.b * entropy + self.c)))
        return share.astype(np.float32)

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


# --- the two together ---


@dataclass(frozen=True, slots=True)
class Settings:
    """How consolidation is done; the survey gives no values.

    Fields
        steps, batch: gradient steps a consolidation, replayed items a step (half recent, half old).
        omega: items are replayed in proportion to surprise^omega; at 0, where all are alike, rules are learnt best.
        controls: how many keys of released items are remembered, as inputs on which the learner must not change.
        control_weight: λ of λ·KL(p_old‖p_θ) on half a batch of them.
        jitter: length of the noise added to replayed keys: how far a question's key lies from the key as written.
        release_at, checks: how likely the slow learner must find an item, in how many consolidations in a row, before it
            leaves the fast store; with 0 checks nothing leaves.
        forgotten: a deleted value likelier than an even guess is brought down to this share of an even guess.
    """

    steps: int = 150
    batch: int = 128
    omega: float = 0.0
    controls: int = 1024
    control_weight: float = 1.0
    jitter: float = 0.1
    release_at: float = 0.95
    checks: int = 3
    forgotten: float = 0.1

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch < 2 or self.controls < 0 or self.checks < 0:
            raise InputError("steps, controls and checks are not negative, and a batch has at least 2 items")
        if min(self.omega, self.control_weight, self.jitter) < 0 or not 0 < self.release_at <= 1:
            raise InputError("omega, control_weight and jitter are not negative; release_at lies above 0, up to 1")
        if not 0 < self.forgotten <= 1:
            raise InputError(f"forgotten is a share of an even guess, above 0 and up to 1, not {self.forgotten}")


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer: probabilities (n, values), the fast store's share g (n,), and the cosine of the nearest item (n,)."""

    probabilities: Floats
    share: Floats
    nearest: Floats

    @property
    def values(self) -> Ints:
        """The likeliest value of each read."""
        likeliest: Ints = self.probabilities.argmax(1)
        return likeliest


@dataclass(frozen=True, slots=True)
class Release:
    """What remains on record of an item that only the slow learner still holds: whence and when, not what it said."""

    id: str
    source: str
    written: int
    consolidation: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Consolidation:
    """What one consolidation did: items replayed, items released by it, items left in the fast store."""

    replayed: int
    released: tuple[str, ...]
    kept: int


@dataclass(frozen=True, slots=True)
class Deletion:
    """What became of a deleted item: where it was, and how likely the slow learner still finds it at its key.

    ``limit`` is an even guess. Where ``clean`` is False the edit did not reach it: the learner must be trained anew.
    """

    id: str
    from_store: bool
    from_weights: bool
    probability: float
    limit: float

    @property
    def clean(self) -> bool:
        """Whether the value is no likelier than the limit."""
        return self.probability <= self.limit


class ComplementaryMemory:
    """The hybrid: write at once, read from both, consolidate offline, delete from both.

    ``fast`` and ``slow`` must have the same dimension and number of values (InputError otherwise). A gate that is given
    stays as it is; without one, a gate is fitted anew at every consolidation, on stored items of which half are hidden
    from the store. The state is in memory alone.
    """

    def __init__(
        self,
        fast: FastStore,
        slow: SlowLearner,
        gate: Gate | None = None,
        *,
        settings: Settings | None = None,
        seed: int = 0,
    ) -> None:
        if (fast.dimension, fast.values) != (slow.dimension, slow.values):
            raise InputError("the fast store and the slow learner must have the same dimension and number of values")
        self.fast = fast
        self.slow = slow
        self.gate = gate or Gate()
        self.settings = settings or Settings()
        self._fitted = gate is None
        self._rng = np.random.default_rng(seed)
        self._writes = 0
        self._slept_at = 0
        self._sleeps = 0
        self._releases: dict[str, Release] = {}
        self._controls: dict[str, Floats] = {}

    @property
    def releases(self) -> Mapping[str, Release]:
        """The lineage of every item that was released, by id."""
        return MappingProxyType(self._releases)

    def write(self, id: str, key: Floats, value: int, *, source: str = "") -> Item:
        """Keep a fact at once. The same id again supersedes the old value, also one that was released.

        ``key`` has shape (dimension,) and unit length. Raises InputError.
        """
        key = np.array(key, np.float32)
        self._check_key(key)
        if not isinstance(value, int | np.integer) or not 0 <= value < self.fast.values:
            raise InputError(f"a value is a whole number from 0 to {self.fast.values - 1}, not {value!r}")
        self._writes += 1
        self._controls.pop(id, None)  # the learner must be free to change its mind about it
        believed = float(self.slow.predict(key[None])[0, value])
        item = Item(id, key, int(value), source, self._writes, -math.log(max(believed, 1e-9)))
        self.fast.put(item)
        return item

    def read(self, keys: Floats) -> Reading:
        """Answer reads of shape (n, dimension) from both systems. Raises InputError for any other shape."""
        slow = self.slow.predict(keys)
        fast, nearest = self.fast.read(keys)
        share = self.gate(nearest, _entropy(slow))
        mixed: Floats = share[:, None] * fast + (1 - share[:, None]) * slow
        return Reading(mixed, share, nearest)

    def consolidate(self) -> Consolidation:
        """Replay the fast store to the slow learner, release what it now keeps unaided, fit the gate anew."""
        self._sleeps += 1
        items = self.fast.items
        if not items:
            return Consolidation(0, (), 0)
        keys = np.stack([item.key for item in items])
        labels = np.array([item.value for item in items])
        replayed = self._replay(items, keys, labels)
        self._slept_at = self._writes
        believed = self.slow.predict(keys)[np.arange(len(items)), labels]
        released = []
        for item, belief in zip(items, believed, strict=True) if self.settings.checks else ():
            passed = item.passed + 1 if belief >= self.settings.release_at else 0
            if passed >= self.settings.checks:
                self._release(item, float(belief))
                released.append(item.id)
            elif passed != item.passed:
                self.fast.put(replace(item, passed=passed))
        if self._fitted:
            self._fit()
        return Consolidation(replayed, tuple(released), len(self.fast))

    def delete(self, id: str, *, key: Floats | None = None) -> Deletion:
        """Take an item out of the store, the controls and the weights.

        An item that was released is no longer in the store, so its key must be given (InputError otherwise). Raises
        NotFoundError for an id that was never written, or was deleted before.
        """
        stored, release = id in self.fast, id in self._releases
        if not stored and not release:
            raise NotFoundError(f"there is no item {id!r}")
        if not stored and key is None:
            raise InputError(f"{id!r} was released into the weights; give its key, so that it can be unlearnt there")
        target = np.array(self.fast.get(id).key if stored else key, np.float32)
        self._check_key(target)
        believed = self.slow.predict(target[None])[0]
        # The record of a release does not say what was released: it is what the weights find likeliest. Whatever else they
        # are sure of at this key is a value that was superseded.
        banned = believed >= 0.5
        if release:
            banned[believed.argmax()] = True
        if stored:
            banned[self.fast.remove(id).value] = True
        self._releases.pop(id, None)
        self._controls.pop(id, None)
        even = 1 / self.fast.values
        if believed[banned].max() > even:
            near = np.concatenate([target[None], self._jittered(np.repeat(target[None], 8, 0))])
            self.slow.suppress(near, np.flatnonzero(banned), self.settings.forgotten * even, self._spared())
        left = float(self.slow.predict(target[None])[0, banned].max())
        return Deletion(id, stored, release, left, even)

    def report(self) -> dict[str, float]:
        """Sizes, for the capacity report: items in the store, released, control keys, parameters, writes."""
        return {
            "stored": len(self.fast),
            "released": len(self._releases),
            "controls": len(self._controls),
            "parameters": self.slow.parameters,
            "writes": self._writes,
            "consolidations": self._sleeps,
        }

    def _replay(self, items: Sequence[Item], keys: Floats, labels: Ints) -> int:
        """Train on replay; an item that passed its last check is left out, so that its next check is unaided."""
        settings = self.settings
        targets = np.eye(self.fast.values, dtype=np.float32)[labels]
        # The 0.05 nats keep what was no surprise in the mix: it too must pass its checks.
        weights = np.array([(item.surprise + 0.05) ** settings.omega for item in items])
        asleep = np.array([item.passed == 0 for item in items])
        recent = np.array([item.written > self._slept_at for item in items])
        pools = [pool for pool in (np.flatnonzero(asleep & recent), np.flatnonzero(asleep & ~recent)) if len(pool)]
        if not pools:
            return 0
        drawn = [
            self._rng.choice(
                pool, (settings.steps, settings.batch // len(pools)), p=weights[pool] / weights[pool].sum()
            )
            for pool in pools
        ]
        controls = np.array(list(self._controls.values()), np.float32).reshape(-1, self.fast.dimension)
        before = self.slow.predict(controls)
        half = settings.batch // 2 if len(controls) and settings.control_weight else 0
        loads = np.ones(len(drawn) * drawn[0].shape[1] + half, np.float32)
        loads[len(loads) - half :] = settings.control_weight
        noise = self._noise(1024)
        for step in range(settings.steps):
            batch = np.concatenate([rows[step] for rows in drawn])
            shown = _unit(keys[batch] + noise[self._rng.integers(len(noise), size=len(batch))]), targets[batch]
            if half:
                held = self._rng.integers(len(controls), size=half)
                shown = np.concatenate([shown[0], controls[held]]), np.concatenate([shown[1], before[held]])
            self.slow.step(*shown, loads)
        return sum(len(pool) for pool in pools)

    def _release(self, item: Item, belief: float) -> None:
        self.fast.remove(item.id)
        self._releases[item.id] = Release(item.id, item.source, item.written, self._sleeps, belief)
        if len(self._controls) < self.settings.controls:
            self._controls[item.id] = item.key
        elif self._controls and self._rng.random() < self.settings.controls / len(self._releases):
            del self._controls[list(self._controls)[self._rng.integers(len(self._controls))]]
            self._controls[item.id] = item.key

    def _fit(self) -> None:
        items = self.fast.items
        chosen = [items[index] for index in self._rng.permutation(len(items))[:1000]]
        if len(chosen) < 20:
            return
        keys = self._jittered(np.stack([item.key for item in chosen]))
        rows, labels = np.arange(len(chosen)), np.array([item.value for item in chosen])
        fast, nearest = self.fast.read(keys, without=[item.id if row % 2 else None for row, item in enumerate(chosen)])
        slow = self.slow.predict(keys)
        self.gate = self.gate.fit(nearest, _entropy(slow), fast[rows, labels], slow[rows, labels])

    def _spared(self) -> Floats:
        """Keys whose answers a deletion must not change, shape (n, dimension): a sample of what is known."""
        known = [item.key for item in self.fast.items] + list(self._controls.values())
        chosen = self._rng.permutation(len(known))[:_SPARED]
        return np.array([known[index] for index in chosen], np.float32).reshape(-1, self.fast.dimension)

    def _check_key(self, key: Floats) -> None:
        # Written so that a NaN is refused too.
        if key.shape != (self.fast.dimension,) or not abs(float(key @ key) - 1) <= 1e-3:
            raise InputError(f"a key is a vector of {self.fast.dimension} numbers and of length 1")

    def _noise(self, count: int) -> Floats:
        shape = count, self.fast.dimension
        return self._rng.standard_normal(shape, np.float32) * np.float32(self.settings.jitter / math.sqrt(shape[1]))

    def _jittered(self, keys: Floats) -> Floats:
        return _unit(keys + self._noise(len(keys)))


def _unit(vectors: Floats) -> Floats:
    vectors /= np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    return vectors


def _check_keys(keys: Floats, dimension: int) -> None:
    if keys.ndim != 2 or keys.shape[1] != dimension:
        raise InputError(f"keys have the shape (n, {dimension}), not {keys.shape}")


def _entropy(probabilities: Floats) -> Floats:
    """H(p) in nats, shape (n,)."""
    entropy: Floats = -(probabilities * np.log(np.maximum(probabilities, np.float32(1e-9)))).sum(1)
    return entropy
