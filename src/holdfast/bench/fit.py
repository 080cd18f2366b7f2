"""Fit the constants of ``retrieve.fusion`` on the dev parts of the benchmarks, and print them beside those in use.

    python -m holdfast.bench.fit locomo=PATH longmemeval=PATH beam=PATH

Weights: the mean over a question's evidence of -log of its share against all other rows (a listwise softmax), L2 on weights in
units of a channel's spread, the benchmarks weighing the same. Calibration: logistic regression over the ten best rows of every
question, those without an answer included. Features come from ``reference``; nothing held out is read.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from holdfast.bench import reference
from holdfast.bench.recall import ABLATIONS, find_benchmark
from holdfast.encode.embedders import default_embedder, why_no_embedder
from holdfast.errors import HoldfastError, InputError, MissingExtraError
from holdfast.retrieve.fusion import (
    BEST,
    CALIBRATION,
    CHANNELS,
    LEXICAL_CALIBRATION,
    LEXICAL_WEIGHTS,
    WEIGHTS,
    Calibration,
    Features,
    Weights,
    fuse,
)

Floats = npt.NDArray[np.float64]
Objective = Callable[[Floats], tuple[float, Floats]]

L2 = 0.01
HELD = {"words": 0.0, "entities": 1.0}
"""Channels whose weight is not fitted; ``fusion.Weights`` says why."""
MEANING = ABLATIONS["without meaning"]
_RIDGE = 0.005


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: the features of its candidates, and which of these are evidence, shape (n,)."""

    benchmark: str
    features: Features
    evidence: npt.NDArray[np.bool_]


def questions(name: str, data: Path, embed: reference.Embed) -> Iterator[Asked]:
    """The dev questions of a benchmark; without evidence where the right answer is that nobody said it."""
    bench = find_benchmark(name, data)
    for conversation in bench.load(data):
        dev = [one for one in conversation.questions if bench.dev(conversation, one)]
        dev = [one for one in dev if bench.scored(one) or one.abstain]
        if not dev:
            continue
        prepared = reference.prepare(conversation, embed)
        for question in dev:
            found = reference.candidates(prepared, question, embed)
            # LoCoMo's category 5 asks of the wrong person what another said: it must not teach to disregard names.
            wanted = set() if question.abstain else set(question.evidence)
            ids = [conversation.turns[row].id for row in found.rows]
            yield Asked(name, found.features, np.asarray([id in wanted for id in ids], np.bool_))


def fit(asked: Sequence[Asked], without: Sequence[str] = ()) -> Weights:
    """The weights of least loss; those of ``HELD`` stay, channels named in ``without`` get none.

    Raises InputError where no question has evidence among its candidates, MissingExtraError without scipy.
    """
    told = [one for one in asked if one.evidence.any()]
    if not told:
        raise InputError("no question here has evidence among its candidates, so there is nothing to fit")
    free = [at for at, name in enumerate(CHANNELS) if name not in (*HELD, *without)]
    counts = Counter(one.benchmark for one in told)
    ends = np.cumsum([len(one.evidence) for one in told])
    table = np.concatenate([one.features.table for one in told], axis=1).astype(np.float64)
    fixed = sum(weight * table[CHANNELS.index(name)] for name, weight in HELD.items() if name not in without)
    spread = table[free].std(axis=1) + 1e-6
    scaled = table[free] / spread[:, None]

    def loss(weights: Floats) -> tuple[float, Floats]:
        scores = weights @ scaled + fixed
        slope = np.zeros_like(scores)
        total = L2 * float(weights @ weights)
        for one, end in zip(told, ends, strict=True):
            here = slice(end - len(one.evidence), end)
            share = 1 / counts[one.benchmark]
            powers = np.exp(scores[here] - scores[here].max())
            mine, others = powers[one.evidence], powers[~one.evidence].sum() + 1e-12
            total += share * float(np.mean(np.log(mine + others) - np.log(mine)))
            gradient = np.empty(len(powers))
            gradient[one.evidence] = (mine / (mine + others) - 1) / len(mine)
            gradient[~one.evidence] = powers[~one.evidence] * (1 / (mine + others)).mean()
            slope[here] = share * gradient
        return total, scaled @ slope + 2 * L2 * weights

    found = _minimise(loss, len(free)) / spread
    named = {CHANNELS[at]: round(float(weight), 2) for at, weight in zip(free, found, strict=True)}
    return Weights(**dict.fromkeys(CHANNELS, 0.0) | HELD | named | dict.fromkeys(without, 0.0))


def calibrate(asked: Sequence[Asked], weights: Weights) -> Calibration:
    """How scores become chances, with the passage's part only where a row can have a meaning."""
    by_words = not any(getattr(weights, name) for name in MEANING)
    rows, labels, shares, medians = [], [], [], []
    counts = Counter(one.benchmark for one in asked)
    for one in asked:
        scores = fuse(one.features, weights)
        best = np.argsort(-scores, kind="stable")[:BEST]
        medians.append(float(np.median(scores)))
        passage = np.zeros(len(best)) if by_words else one.features["passage"][best]
        rows.append(np.stack((scores[best] - scores[best].mean(), passage, np.ones(len(best))), axis=1))
        labels.append(one.evidence[best])
        shares.append(np.full(len(best), 1 / counts[one.benchmark]))
    table, truth, share = np.concatenate(rows), np.concatenate(labels), np.concatenate(shares)
    spread = table.std(axis=0) + (table.std(axis=0) == 0)
    ridge = np.asarray([_RIDGE, _RIDGE, 0.0])

    def loss(weights: Floats) -> tuple[float, Floats]:
        logit = table / spread @ weights
        chance = 1 / (1 + np.exp(-logit))
        cost = share @ np.where(truth, np.logaddexp(0, -logit), np.logaddexp(0, logit))
        slope = (table / spread).T @ (share * (chance - truth)) + 2 * ridge * weights
        return float(cost + ridge @ weights**2), slope

    lead, by_passage, bias = (round(float(value), 2) for value in _minimise(loss, 3) / spread)
    return Calibration(lead=lead, passage=by_passage, bias=bias, nothing=round(float(np.median(medians)), 1))


def _minimise(objective: Objective, size: int) -> Floats:
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise MissingExtraError("fitting needs scipy: pip install scipy") from error
    found: Floats = minimize(objective, np.zeros(size), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return found


def main(arguments: Sequence[str]) -> None:
    """Fit with vectors and without, and print both."""
    try:
        sources = dict(argument.split("=", 1) for argument in arguments)
    except ValueError:
        sources = {}
    if not sources:
        raise InputError(
            "say where the benchmarks are: python -m holdfast.bench.fit locomo=PATH longmemeval=PATH beam=PATH"
        )
    embedder = default_embedder()
    if embedder is None:
        raise MissingExtraError(why_no_embedder())
    asked = [one for name, data in sources.items() for one in questions(name, Path(data), embedder.embed)]
    lexical = [replace(one, features=_without_meaning(one.features)) for one in asked]
    for title, some, without, used, calibration in (
        ("with vectors", asked, (), WEIGHTS, CALIBRATION),
        ("without vectors", lexical, MEANING, LEXICAL_WEIGHTS, LEXICAL_CALIBRATION),
    ):
        weights = fit(some, without)
        print(f"\n{title}: {len(some)} questions")
        print(
            tabulate([(name, getattr(weights, name), getattr(used, name)) for name in CHANNELS], ["", "fitted", "used"])
        )
        print(f"fitted {calibrate(some, weights)}\nused   {calibration}")


def _without_meaning(features: Features) -> Features:
    table = features.table.copy()
    table[[CHANNELS.index(name) for name in MEANING]] = 0.0
    return Features(table)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except HoldfastError as error:
        sys.exit(str(error))
