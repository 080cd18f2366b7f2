"""Metrics against hand-computed values, brute force and trusted implementations; laws by hypothesis."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from holdfast.bench import metrics
from holdfast.errors import InputError

RANKED = ["a", "b", "c", "d", "e"]


def test_hand_computed_values():
    relevant = {"b", "d", "z"}
    assert metrics.recall(RANKED, relevant, 2) == pytest.approx(1 / 3)
    assert metrics.recall(RANKED, relevant, 5) == pytest.approx(2 / 3)
    assert metrics.recall_any(RANKED, relevant, 1) == 0.0
    assert metrics.recall_any(RANKED, relevant, 2) == 1.0
    assert metrics.recall_all(RANKED, relevant, 5) == 0.0
    assert metrics.recall_all(RANKED, {"b", "d"}, 4) == 1.0
    assert metrics.recall_all(RANKED, {"b", "d"}, 3) == 0.0
    assert metrics.mrr(RANKED, relevant) == 0.5
    assert metrics.mrr(RANKED, relevant, 1) == 0.0
    assert metrics.mrr(RANKED, {"z"}) == 0.0


def test_ndcg_standard_by_hand():
    gained = 1 / math.log2(3) + 1 / math.log2(5)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert metrics.ndcg(RANKED, {"b", "d", "z"}, 5) == pytest.approx(gained / ideal)
    # The ideal is over min(k, number of relevant ids), so three relevant at k = 1 can still be perfect.
    assert metrics.ndcg(RANKED, {"a", "b", "c"}, 1) == 1.0


def test_ndcg_any_is_the_official_form_whose_second_rank_is_not_discounted():
    # rel_1 + sum over i >= 2 of rel_i / log2(i): ranks 1 and 2 weigh the same, rank 4 weighs 1/2.
    assert metrics.ndcg_any(RANKED, {"a"}, 5) == metrics.ndcg_any(RANKED, {"b"}, 5) == 1.0
    assert metrics.ndcg_any(RANKED, {"d"}, 5) == pytest.approx(0.5)
    gained = 1 + 1 / math.log2(4)
    ideal = 1 + 1 + 1 / math.log2(3)
    assert metrics.ndcg_any(RANKED, {"b", "d", "z"}, 5) == pytest.approx(gained / ideal)
    assert metrics.ndcg(RANKED, {"b"}, 5) != metrics.ndcg_any(RANKED, {"b"}, 5)


@given(st.permutations("abcdefghij"), st.sets(st.sampled_from("abcdefghijxyz"), min_size=1), st.integers(1, 12))
def test_laws(ranked, relevant, k):
    values = [f(ranked, relevant, k) for f in (metrics.recall, metrics.recall_any, metrics.recall_all)]
    share, any_, all_ = values
    assert all_ <= share <= any_
    assert (any_ == 1.0) == (share > 0) and (all_ == 1.0) == (share == 1.0)
    for measure in (metrics.recall, metrics.recall_any, metrics.recall_all, metrics.mrr):
        assert 0.0 <= measure(ranked, relevant, k) <= measure(ranked, relevant, k + 1) <= 1.0
    front = sorted(ranked, key=lambda id: id not in relevant)
    for measure in (metrics.ndcg, metrics.ndcg_any):
        assert 0.0 <= measure(ranked, relevant, k) <= measure(front, relevant, k) + 1e-12 <= 1.0 + 1e-9


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40).filter(
        lambda rows: len({label for _, label in rows}) == 2
    )
)
def test_auc_equals_the_rank_sum_statistic(rows):
    scores, labels = [float(s) for s, _ in rows], [label for _, label in rows]
    positive = [s for s, label in zip(scores, labels, strict=True) if label]
    negative = [s for s, label in zip(scores, labels, strict=True) if not label]
    reference = stats.mannwhitneyu(positive, negative).statistic / (len(positive) * len(negative))
    assert metrics.auc(scores, labels) == pytest.approx(reference)


def test_bootstrap_agrees_with_scipy_and_with_its_seed():
    rng = np.random.default_rng(3)
    values = rng.random(300)
    baseline = values - 0.05 + 0.1 * rng.random(300)
    ours = metrics.bootstrap(values, baseline, seed=1)
    reference = stats.bootstrap((values - baseline,), np.mean, method="percentile", n_resamples=2000, rng=0)
    assert ours.mean == pytest.approx((values - baseline).mean())
    assert ours.low == pytest.approx(reference.confidence_interval.low, abs=1e-3)
    assert ours.high == pytest.approx(reference.confidence_interval.high, abs=1e-3)
    assert metrics.bootstrap(values, baseline, seed=1) == ours
    assert metrics.bootstrap(values, baseline, seed=2) != ours


def test_drawing_conversations_is_more_careful_than_drawing_questions():
    rng = np.random.default_rng(0)
    clusters = [str(i // 50) for i in range(500)]
    values = np.repeat(rng.random(10), 50)
    within = metrics.bootstrap(values, seed=0)
    between = metrics.bootstrap(values, seed=0, clusters=clusters)
    assert between.high - between.low > 3 * (within.high - within.low)
    # One value a cluster is the plain bootstrap.
    alone = metrics.bootstrap(values[:20], seed=0, clusters=[str(i).zfill(2) for i in range(20)])
    assert alone == metrics.bootstrap(values[:20], seed=0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.recall(RANKED, set(), 5),
        lambda: metrics.ndcg(RANKED, {"a"}, 0),
        lambda: metrics.recall(["a", "a"], {"a"}, 2),
        lambda: metrics.auc([1.0, 2.0], [True, True]),
        lambda: metrics.auc([1.0], [True, False]),
        lambda: metrics.bootstrap([], seed=0),
        lambda: metrics.bootstrap([1.0], [1.0, 2.0], seed=0),
        lambda: metrics.bootstrap([1.0], seed=0, clusters=["a", "b"]),
        lambda: metrics.bootstrap([1.0], seed=0, level=1.0),
    ],
)
def test_wrong_input_is_refused(call):
    with pytest.raises(InputError):
        call()
