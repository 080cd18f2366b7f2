"""The digits of claim 50, spoilt in two ways, and the arms that are to mend a network that learnt them.

Poison: some digits get a bright corner and the label 0. Confusion: of two classes a part has the other's label.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

import numpy as np

from holdfast.errors import ClaimError
from holdfast.torched import Tensor, nn, torch
from holdfast.weights.answers import in_batches
from holdfast.weights.base import Batch
from holdfast.weights.dampening import laid
from holdfast.weights.repair import BORNE, FLOOR, Repair, repair
from holdfast.weights.unlearning import (
    Shuffled,
    Training,
    accuracy,
    bad_teacher,
    fine_tune,
    retrain,
    scrub,
    train,
)

CLASSES = 10
TRAIN = 1297
"""Of the 1,797 digits; the other 500 are measured with."""
POISONED, CORNER = 64, 2
CONFUSED, SWAPPED = (3, 8), 0.4
BATCH, MEASURE = 64, 256
"""Rows a step of training, and rows that a gradient is the mean of where weights are measured."""
LEARN = Training(steps=200, rate=0.05)
MEND_STEPS = 50
"""A quarter of the steps of training, as in the paper's benchmark."""
RATES = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
"""For going on with training, and for the bad teacher; SCRUB has a tenth of the rate of training and as many weights."""
SCRUB_WEIGHTS = (0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
SCRUB_ASCENT = 5


@dataclass(frozen=True, slots=True)
class Digits:
    """``spoilt``: the rows to learn, with what was done to them; ``bad``: at which places; ``mended``: rows to ask for what was
    spoilt, with true labels; ``rest``: rows to ask for all else."""

    spoilt: Batch
    bad: Tensor
    mended: Batch
    rest: Batch


def poisoned(seed: int) -> Digits:
    """A 2×2 corner at full brightness and the label 0."""
    images, labels, held = _digits(seed)
    random = np.random.default_rng([seed, 50])
    bad = torch.from_numpy(random.choice(TRAIN, POISONED, replace=False))
    x, y = images[:TRAIN].clone(), labels[:TRAIN].clone()
    x[bad] = _marked(x[bad])
    y[bad] = 0
    asked = held[1] != 0  # of a zero nobody could tell whether the mark or the digit was heard
    return Digits(_rows(x, y), bad, _rows(_marked(held[0])[asked], held[1][asked]), _rows(*held))


def confused(seed: int) -> Digits:
    """Of each of two classes two fifths have the other's label."""
    images, labels, held = _digits(seed)
    random = np.random.default_rng([seed, 51])
    x, y = images[:TRAIN], labels[:TRAIN].clone()
    bad = []
    for ours, theirs in (CONFUSED, CONFUSED[::-1]):
        places = np.flatnonzero((labels[:TRAIN] == ours).numpy())
        some = torch.from_numpy(random.choice(places, round(SWAPPED * len(places)), replace=False))
        y[some] = theirs
        bad.append(some)
    of_both = torch.isin(held[1], torch.tensor(CONFUSED))
    return Digits(
        _rows(x, y),
        torch.cat(bad),
        _rows(held[0][of_both], held[1][of_both]),
        _rows(held[0][~of_both], held[1][~of_both]),
    )


def flagged_of(digits: Digits, share: float, seed: int) -> tuple[Batch, Batch]:
    """The part of what is bad that was found, drawn by lot, and all the rest."""
    order = digits.bad[torch.randperm(len(digits.bad), generator=torch.Generator().manual_seed(seed))]
    found = order[: max(1, round(share * len(order)))]
    rest = torch.ones(TRAIN, dtype=torch.bool)
    rest[found] = False
    return (
        {name: one[found] for name, one in digits.spoilt.items()},
        {name: one[rest] for name, one in digits.spoilt.items()},
    )


def network(seed: int) -> nn.Module:
    """Three convolutions with batch norms, 24, 48 and 48 channels wide, and a linear layer; 33,610 parameters."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inner, outer, pool in ((1, 24, True), (24, 48, True), (48, 48, False)):
        layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * 2 * 2, CLASSES))


@dataclass(frozen=True, slots=True)
class Mended:
    """The accuracy on what was spoilt and on the rest; what was chosen, and the report where there is one."""

    corrected: float
    retained: float
    chosen: str = ""
    report: Repair | None = None


def learnt(digits: Digits, seed: int) -> nn.Module:
    """The network that learnt everything."""
    return train(network(seed), Shuffled(digits.spoilt, BATCH, seed), LEARN)


def measured(model: nn.Module, digits: Digits, chosen: str = "", report: Repair | None = None) -> Mended:
    """On the rows that are held back."""
    corrected, retained = (accuracy(model, [*in_batches(one, 256)]) for one in (digits.mended, digits.rest))
    return Mended(corrected, retained, chosen, report)


def mend(arm: str, model: nn.Module, digits: Digits, share: float, seed: int, tries: int) -> Mended:
    """One arm, with so many tries where it is trained, the best chosen by the same proxy."""
    flagged, kept = flagged_of(digits, share, seed)

    def loader(of: Batch) -> Shuffled:
        return Shuffled(of, BATCH, seed)

    if arm == "EU":
        return measured(retrain(lambda: network(seed + 1000), loader(kept), LEARN), digits)
    if arm in {"SSD", "LFSSD"}:
        report = repair(model, flagged, [*in_batches(kept, MEASURE)], size=MEASURE, labelled=arm == "SSD")
        if report.delta is None:
            return measured(model, digits, "none", report)
        with laid(model, report.delta):
            return measured(model, digits, f"α {report.delta.alpha:g}, λ {report.delta.strength:g}", report)
    if arm == "SCRUB":
        some = SCRUB_WEIGHTS[:: len(SCRUB_WEIGHTS) // tries]
        gently = Training(MEND_STEPS, LEARN.rate / 10)
        found = {
            f"weight {weight:g}": scrub(
                model, loader(kept), loader(flagged), gently, weight=weight, ascent=SCRUB_ASCENT
            )
            for weight in some
        }
    else:
        found = {}
        for rate in RATES[:: len(RATES) // tries]:
            training = Training(MEND_STEPS, rate)
            if arm == "CF":
                found[f"rate {rate:g}"] = fine_tune(model, loader(kept), training)
            else:
                nonsense = network(seed + 2000)
                found[f"rate {rate:g}"] = bad_teacher(model, nonsense, loader(kept), loader(flagged), training)
    best = max(found, key=lambda name: _proxy(model, found[name], flagged, kept))
    return measured(found[best], digits, best)


def _proxy(before: nn.Module, after: nn.Module, flagged: Batch, kept: Batch) -> tuple[bool, float]:
    """As ``repair`` scores a pair: every class holds, then the mean of what is retained and of what changed."""
    bad, holds = {*flagged["labels"].tolist()}, True
    for label in range(CLASSES):
        one = {name: rows[kept["labels"] == label] for name, rows in kept.items()}
        if len(one["labels"]):
            floor = BORNE if label in bad else FLOOR
            holds = holds and accuracy(after, [one]) >= floor * accuracy(before, [one])
    return holds, (accuracy(after, [kept]) + 1 - accuracy(after, [flagged])) / 2


def _marked(images: Tensor) -> Tensor:
    marked = images.clone()
    marked[..., -CORNER:, -CORNER:] = 1.0
    return marked


def _rows(images: Tensor, labels: Tensor) -> Batch:
    return {"images": images, "labels": labels}


def _digits(seed: int) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """All digits in an order drawn by lot, from 0 to 1; and those that are held back."""
    try:
        found = import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        raise ClaimError("the digits of claim 50 come with scikit-learn: pip install 'holdfast[claims]'") from error
    order = np.random.default_rng(seed).permutation(len(found.target))
    images = torch.from_numpy(found.images[order] / 16.0).float()[:, None]
    labels = torch.from_numpy(found.target[order]).long()
    return images, labels, (images[TRAIN:], labels[TRAIN:])
