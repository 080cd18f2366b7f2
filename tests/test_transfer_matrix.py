"""The numbers that are drawn from a matrix of scores, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from holdfast.bench.transfer import Cost, Transfer
from holdfast.errors import InputError

BY_HAND = Transfer(
    np.array([[0.1, 0.2, 0.3], [0.9, 0.4, 0.3], [0.7, 0.8, 0.5], [0.8, 0.6, 1.0]]),
    sizes=(1, 1, 2),
    joint=(1.0, 0.9, 0.9),
    cost=Cost(7, 8, 2.0, 3.5),
)


def test_by_hand() -> None:
    told = {
        "average": 0.8,
        "average, incremental": (0.9 + 0.75 + 0.8) / 3,
        "right after learning": 0.9,
        "forgetting": (0.1 + 0.2) / 2,
        "backward transfer": -(0.1 + 0.2) / 2,
        "forward transfer": (0.2 + 0.2) / 2,
        "drop a step": (0.2 - 0.1 + 0.2) / 3,
        "global forgetting": ((1 / 2) * 0.2 + (1 / 4) * 0.1 + (1 / 4) * 0.2) / 2,
        "intransigence": (0.1 + 0.1 - 0.1) / 3,
        "parameters that learn": 7,
        "bytes kept": 8,
        "passes a batch": 2,
        "seconds": 3.5,
    }
    found = BY_HAND.metrics()
    assert set(found) == set(told)
    for name, value in told.items():
        assert found[name] == pytest.approx(value), name


def test_forgetting_is_that_of_avalanche() -> None:
    metrics = pytest.importorskip("avalanche.evaluation.metrics")
    forgetting = metrics.forgetting_bwt.Forgetting()
    for j in range(2):  # avalanche measures against a task's first score, which is its own here
        forgetting.update(j, BY_HAND.scores[j + 1, j], initial=True)
        forgetting.update(j, BY_HAND.scores[-1, j])
    assert np.mean(list(forgetting.result().values())) == pytest.approx(BY_HAND.drop)


@given(st.integers(1, 5).flatmap(lambda t: arrays.arrays(np.float64, (t + 1, t), elements=st.floats(0, 1))))
def test_laws(scores: np.ndarray) -> None:
    found = Transfer(scores)
    assert found.drop == -found.backward and found.forgetting >= found.drop - 1e-12
    still = Transfer(np.vstack([scores[:1], np.repeat(scores[-1:], len(scores) - 1, axis=0)]))
    assert still.forgetting == still.global_forgetting == still.stepwise == 0
    assert still.average == pytest.approx(still.learnt)


def test_a_matrix_of_another_shape_is_refused() -> None:
    for wrong in (np.zeros((2, 2)), np.zeros((1, 0))):
        with pytest.raises(InputError):
            Transfer(wrong)
    with pytest.raises(InputError):
        Transfer(np.zeros((3, 2)), sizes=(1,))
