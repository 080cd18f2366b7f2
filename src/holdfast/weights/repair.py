"""Repair of what a model learnt from bad records of which a few are flagged (corrective unlearning, arXiv 2402.14015, section 3):
synaptic dampening with α and λ searched by a proxy, and a report that says what it did and whether it should be used at all.

The search sees only what is flagged and what is retained: the mean of the accuracy retained and of the share of flagged answers
that are no longer given. It never sees rows of the bad kind that were not flagged. Nothing is applied.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Subform, Subject, Trainable
from holdfast.torched import Tensor, nn, torch
from holdfast.weights.answers import Read, answers, asked, in_batches, rows_in
from holdfast.weights.base import Batch
from holdfast.weights.dampening import Dampening, Importances, dampening, importances, laid
from holdfast.weights.unlearning import accuracy

PROFILE = MemoryProfile(
    Form.WEIGHTS,
    Subform.INTERNAL,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    evolution=(Evolution.UPDATE_INTERNAL, Evolution.FORGET_BY_IMPORTANCE),
    subject=(Subject.USER, Subject.WORLD),
    trainable=Trainable.NO,
)

ALPHAS = (0.1, 1.0, 10.0, 50.0, 100.0, 500.0, 1e3, 1e4, 1e5, 1e6)
STRENGTHS = (0.1, 0.5, 1.0, 5.0, 10.0)
"""The grid of the paper's scripts: α, and λ as multiples of it."""

FLOOR, BORNE = 0.8, 0.3
"""No class may keep less than the first share of the accuracy that it had; one whose label flagged rows bear, than the second:
bad records that nobody found are among its rows, and a repair that works takes them out of it."""
FEW = 10
"""A class of fewer places says nothing by itself."""
SHARED = 0.5
"""What is wrong is one thing if dampening by half of the flagged rows changes so much of the other half."""


class Verdict(StrEnum):
    """What to do."""

    RETRAIN = "retrain"
    DAMPEN = "dampen"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class Tried:
    """One pair of the grid: how much is still retained and how much of the flagged changed, as shares; whether every class held."""

    alpha: float
    strength: float
    changed_weights: int
    retained: float
    flagged: float
    held: bool

    @property
    def score(self) -> float:
        """The proxy."""
        return (self.retained + self.flagged) / 2


@dataclass(frozen=True, slots=True)
class Repair:
    """What was found.

    Fields
        verdict: and ``why``, in one sentence.
        delta: the dampening that was chosen, applied to nothing; None where no pair kept every class.
        flagged: the share of flagged answers that are given, before and after.
        retained: the accuracy on what is retained, before and after.
        worst: the class that loses most, with its accuracy before and after.
        shared: how much of one half of the flagged rows is changed by a dampening that was searched with the other; NaN where
            there are too few.
        tried: the pairs of the grid that change anything.
    """

    verdict: Verdict
    why: str
    delta: Dampening | None
    flagged: tuple[float, float]
    retained: tuple[float, float]
    worst: tuple[int, float, float]
    shared: float
    tried: tuple[Tried, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the delta's tensors."""
        chosen = {"alpha": self.delta.alpha, "strength": self.delta.strength} if self.delta else {}
        return {
            "verdict": str(self.verdict),
            "why": self.why,
            **chosen,
            "weights changed": self.delta.changed if self.delta else 0,
            "flagged, before and after": list(self.flagged),
            "retained, before and after": list(self.retained),
            "class that loses most": list(self.worst),
            "shared": None if math.isnan(self.shared) else self.shared,
        }


def repair(
    model: nn.Module,
    flagged: Batch,
    kept: Iterable[Batch],
    *,
    size: int,
    probe: Iterable[Batch] | None = None,
    original: Importances | None = None,
    complete: bool = False,
    labelled: bool = True,
    names: Sequence[str] | None = None,
    alphas: Sequence[float] = ALPHAS,
    strengths: Sequence[float] = STRENGTHS,
    floor: float = FLOOR,
    borne: float = BORNE,
    read: Read = answers,
) -> Repair:
    """Search a dampening and judge it; the model is left as it was. Raises InputError, StaleError.

    Args:
        model: a classifier or a causal language model.
        flagged: rows that are known to be bad, with the labels that were learnt.
        kept: batches of ``size`` rows of what is retained; a list or a loader, gone over again and again.
        probe: batches to judge by, by default ``kept``; a part of it, where that is large, or rows that are known to be good.
        original: importances of it that were measured before (``Importances.pack``).
        complete: provenance says that these are all the bad records. Then nothing but training without them is exact.
        strengths: as multiples of α.
        floor, borne: what share of its accuracy each class must keep, and each that is a label of flagged rows.
        labelled, names, read: as of ``importances``.
    """
    if original is None:
        original = importances(model, kept, size=size, labelled=labelled, names=names, read=read)
    elif original.batch != size or original.labelled != labelled:
        raise InputError("the importances that were given were measured otherwise: with another batch size or kind")
    bad = torch.cat([one.labels for one in asked(model, in_batches(flagged, size), read)]).unique()
    retained = _Retained(model, kept if probe is None else probe, floor, (bad, borne), read)
    grid = [(alpha, alpha * times) for alpha in alphas for times in strengths]
    search = _Search(model, original, retained, grid, size, read)
    delta, tried = search.best(flagged)
    before = after = search.given(flagged)
    now = retained.before
    if delta is not None:
        with laid(model, delta):
            after, now = search.given(flagged), retained.now()
    shared = search.shared(flagged)
    verdict, why = _judged(complete, delta, before, after, shared)
    both = (retained.before.accuracy, now.accuracy)
    return Repair(verdict, why, delta, (before, after), both, retained.worst(now), shared, tried)


def _judged(complete: bool, delta: Dampening | None, before: float, after: float, shared: float) -> tuple[Verdict, str]:
    if complete:
        return Verdict.RETRAIN, "all that is bad is known: training without it is exact, and nothing else is"
    if delta is None:
        return Verdict.QUARANTINE, "no dampening takes away what is flagged and keeps every class"
    if math.isnan(shared):
        return Verdict.QUARANTINE, "one flagged row does not tell what it has in common with others: flag more"
    if before - after < SHARED * before or shared < SHARED:
        return (
            Verdict.QUARANTINE,
            "what one half of the flagged rows tells does not hold for the other, as where labels are wrong and nothing else: "
            "no method works from a part; take the component out of use, or find the rest by its origin",
        )
    return Verdict.DAMPEN, "what is flagged has a mark in common that dampening takes away, found or not"


@dataclass(frozen=True, slots=True)
class _Accuracy:
    right: Tensor  # by class
    count: Tensor

    @property
    def accuracy(self) -> float:
        return float(self.right.sum() / self.count.sum())


class _Retained:
    """What is retained, as a probe."""

    def __init__(
        self, model: nn.Module, kept: Iterable[Batch], floor: float, borne: tuple[Tensor, float], read: Read
    ) -> None:
        self._model, self._kept, self._read = model, kept, read
        self.before = self.now()
        self._floors = torch.full_like(self.before.right, floor)
        self._floors[borne[0]] = borne[1]
        self._counted = (self.before.count >= FEW) & (self.before.right > 0)

    def now(self) -> _Accuracy:
        said = [*asked(self._model, self._kept, self._read)]
        labels, right = torch.cat([one.labels for one in said]), torch.cat([one.right for one in said])
        classes = int(said[0].logits.shape[-1])
        return _Accuracy(
            torch.bincount(labels[right], minlength=classes).double(), torch.bincount(labels, minlength=classes)
        )

    def holds(self, now: _Accuracy) -> bool:
        """Whether each class keeps its share."""
        return bool((now.right >= self._floors * self.before.right)[self._counted].all())

    def worst(self, now: _Accuracy) -> tuple[int, float, float]:
        """The class that loses most, with its accuracy before and now."""
        shares = [one.right / one.count.clamp(min=1) for one in (self.before, now)]
        at = int(torch.where(self._counted, shares[0] - shares[1], -math.inf).argmax())
        return at, float(shares[0][at]), float(shares[1][at])


class _Search:
    """The grid, for any part of what is flagged."""

    def __init__(
        self,
        model: nn.Module,
        original: Importances,
        kept: _Retained,
        grid: Sequence[tuple[float, float]],
        size: int,
        read: Read,
    ) -> None:
        self._model, self._original, self._kept, self._grid = model, original, kept, grid
        self._size, self._read = size, read

    def given(self, rows: Batch) -> float:
        """The share of flagged answers that the model gives."""
        return accuracy(self._model, [*in_batches(rows, self._size)], self._read)

    def best(self, rows: Batch) -> tuple[Dampening | None, tuple[Tried, ...]]:
        """The pair with the best proxy among those that keep every class; of equals the one that dampens most: what was not found
        is to go as well, and the proxy does not see it."""
        theirs = importances(
            self._model,
            in_batches(rows, self._size),
            size=self._size,
            labelled=self._original.labelled,
            names=[*self._original.values],
            read=self._read,
        )
        found: list[tuple[Tried, Dampening]] = []
        for alpha, strength in self._grid:
            delta = dampening(self._original, theirs, alpha=alpha, strength=strength)
            if not delta.changed:
                continue
            with laid(self._model, delta):
                now = self._kept.now()
                one = Tried(alpha, strength, delta.changed, now.accuracy, 1 - self.given(rows), self._kept.holds(now))
            found.append((one, delta))
        held = [pair for pair in found if pair[0].held]
        best = max(held, key=lambda pair: (pair[0].score, pair[1].depth), default=None)
        return (best[1] if best else None), tuple(one for one, _ in found)

    def shared(self, rows: Batch) -> float:
        """How much of each half of the rows is changed by what was searched with the other; the rows as they come, every second."""
        if rows_in(rows) < 2:
            return math.nan
        halves = [{name: one[first::2] for name, one in rows.items()} for first in (0, 1)]
        lost = given = 0.0
        for half, other in (halves, halves[::-1]):
            delta, _ = self.best(half)
            before = self.given(other) * rows_in(other)
            given += before
            if delta is not None:
                with laid(self._model, delta):
                    lost += before - self.given(other) * rows_in(other)
        return lost / given if given else math.nan
