"""The fit of the fusion's constants, on questions whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.bench.fit import HELD, Asked, calibrate, fit
from holdfast.errors import InputError
from holdfast.retrieve.fusion import CHANNELS, Calibration, Features, Weights, fuse, relevance


def asked(count: int, seed: int, truth: dict[str, float]) -> list[Asked]:
    """Questions whose one evidence is drawn by the softmax of a score of some channels; the others are noise."""
    rng = np.random.default_rng(seed)
    found = []
    for at in range(count):
        table = rng.random((len(CHANNELS), 30)).astype(np.float32)
        scores = sum(weight * table[CHANNELS.index(name)] for name, weight in truth.items())
        chance = np.exp(scores) / np.exp(scores).sum()
        evidence = np.zeros(30, np.bool_)
        evidence[rng.choice(30, p=chance / chance.sum())] = True
        found.append(Asked(f"benchmark {at % 2}", Features(table), evidence))
    return found


def test_the_fit_finds_the_weights_that_made_the_answers() -> None:
    truth = {"window": 6.0, "passage": 3.0, "length": -4.0, "entities": HELD["entities"]}
    weights = fit(asked(1500, 1, truth))
    for name in CHANNELS:
        assert getattr(weights, name) == pytest.approx(truth.get(name, 0.0), abs=0.75), name
    assert weights.words == HELD["words"] and weights.entities == HELD["entities"]


def test_a_channel_left_out_has_no_weight() -> None:
    weights = fit(asked(60, 2, {"window": 6.0}), ("window", "entities"))
    assert weights.window == weights.entities == 0.0 != weights.passage


def test_chances_are_how_often_a_row_is_evidence() -> None:
    weights = Weights(**dict.fromkeys(CHANNELS, 0.0) | {"window": 8.0})
    tuned, fresh = asked(1500, 3, {"window": 8.0}), asked(1500, 4, {"window": 8.0})
    calibration = calibrate(tuned, weights)
    assert calibration.passage == 0.0, "no channel of meaning has a weight"
    scores = [fuse(one.features, weights) for one in fresh]
    best = [np.argsort(-some)[:10] for some in scores]
    chances = np.concatenate(
        [relevance(o.features, s, calibration)[b] for o, s, b in zip(fresh, scores, best, strict=True)]
    )
    truth = np.concatenate([one.evidence[b] for one, b in zip(fresh, best, strict=True)])
    for low in np.quantile(chances, [0, 0.25, 0.5, 0.75]):
        band = (chances >= low) & (chances <= low + 0.1)
        assert chances[band].mean() == pytest.approx(truth[band].mean(), abs=0.04)
    assert calibration != Calibration()


def test_without_evidence_there_is_nothing_to_fit() -> None:
    with pytest.raises(InputError, match="nothing to fit"):
        fit([Asked("one", Features(np.zeros((len(CHANNELS), 3), np.float32)), np.zeros(3, np.bool_))])
