"""Gaussian memories: the metric, Welford's updates, the predictive density."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import integrate, stats

from holdfast.errors import InputError
from holdfast.retrieve.gaussian import GaussianMemory, Prior, fisher_rao, posterior, predictive_log_density

means = arrays(np.float64, 5, elements=st.floats(-50, 50))
deviations = arrays(np.float64, 5, elements=st.floats(0.02, 50))


def test_known_distances():
    assert fisher_rao([0.0], [1.0], [0.0], [2.0]) == pytest.approx(math.sqrt(2) * math.log(2), abs=1e-14)
    assert round(float(fisher_rao([0.0], [1.0], [0.0], [2.0])), 4) == 0.9803
    # The paper's code hands variances 1 and 4 to a function of standard deviations and gets twice the distance.
    assert round(float(fisher_rao([0.0], [1.0], [0.0], [4.0])), 4) == 1.9605
    assert fisher_rao([0.0], np.sqrt([1.0]), [0.0], np.sqrt([4.0])) == pytest.approx(0.9802581434685472, abs=1e-14)


@given(means, deviations, means, deviations)
def test_matches_the_textbook_form(m1, s1, m2, s2):
    delta = ((m1 - m2) ** 2 + 2 * (s1 - s2) ** 2) / (4 * s1 * s2)
    expected = math.sqrt(float((2 * np.arccosh(1 + delta) ** 2).sum()))
    assert fisher_rao(m1, s1, m2, s2) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(means, deviations, means, deviations, means, deviations)
def test_is_a_metric(m1, s1, m2, s2, m3, s3):
    ab, bc, ac = fisher_rao(m1, s1, m2, s2), fisher_rao(m2, s2, m3, s3), fisher_rao(m1, s1, m3, s3)
    assert ab == fisher_rao(m2, s2, m1, s1) >= 0
    assert fisher_rao(m1, s1, m1, s1) == 0
    assert ac <= ab + bc + 1e-9


@given(means, deviations, means, deviations, st.floats(0.01, 100), means)
def test_affine_invariance_and_additivity(m1, s1, m2, s2, scale, shift):
    whole = fisher_rao(m1, s1, m2, s2)
    moved = fisher_rao(scale * m1 + shift, scale * s1, scale * m2 + shift, scale * s2)
    assert moved == pytest.approx(float(whole), rel=1e-7, abs=1e-7)
    parts = [fisher_rao(m1[i : i + 1], s1[i : i + 1], m2[i : i + 1], s2[i : i + 1]) for i in range(5)]
    assert whole == pytest.approx(math.sqrt(sum(float(part) ** 2 for part in parts)), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.2, 2.0, 3.1])
def test_matches_an_integrated_geodesic(angle):
    # Shoot a unit-speed geodesic of ds² = (dμ² + 2dσ²)/σ² for a length and measure the distance to where it lands.
    def geodesic(_t, y):
        _, sigma, u, w = y
        return [u, w, 2 * u * w / sigma, w * w / sigma - u * u / (2 * sigma)]

    for length in (0.01, 1.0, 4.0):
        start = [0.3, 0.8, 0.8 * math.cos(angle), 0.8 * math.sin(angle) / math.sqrt(2)]
        end = integrate.solve_ivp(geodesic, (0, length), start, rtol=1e-11, atol=1e-13).y[:, -1]
        assert fisher_rao([0.3], [0.8], end[:1], end[1:2]) == pytest.approx(length, rel=1e-6)


def test_close_and_distant_pairs_are_exact():
    # For a step much smaller than σ the distance is the Mahalanobis one; a direct arccosh would return 0 here.
    assert fisher_rao([1e-12], [1.0], [0.0], [1.0]) == pytest.approx(1e-12, rel=1e-9)
    assert fisher_rao([0.0], [1e-150], [0.0], [1e150]) == pytest.approx(math.sqrt(2) * 300 * math.log(10), rel=1e-12)


def test_rows_broadcast():
    rng = np.random.default_rng(0)
    m, s = rng.normal(size=(7, 3)), np.exp(rng.normal(size=(7, 3)))
    one = fisher_rao(m[0], s[0], m, s)
    assert one.shape == (7,)
    assert fisher_rao(m[:, None], s[:, None], m, s).shape == (7, 7)
    assert one[4] == fisher_rao(m[0], s[0], m[4], s[4])


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_refuses_what_is_no_deviation(bad):
    with pytest.raises(InputError):
        fisher_rao([0.0], [1.0], [0.0], [bad])


@given(arrays(np.float64, (9, 3), elements=st.floats(-100, 100)), st.integers(0, 9), st.floats(0.1, 20))
def test_welford_matches_the_definition_in_any_order(rows, cut, nu):
    prior = Prior(nu=nu, s2=0.7)
    memory = GaussianMemory.empty(3, prior).observe(rows[:cut]).observe(rows[cut:])
    one_by_one = GaussianMemory.empty(3, prior)
    for row in rows[::-1]:
        one_by_one = one_by_one.observe(row)
    expected = (nu * 0.7 + ((rows - rows.mean(axis=0)) ** 2).sum(axis=0)) / (nu + 8)
    for m in (memory, one_by_one):
        assert m.n == 9
        np.testing.assert_allclose(m.mean, rows.mean(axis=0), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(m.var, expected, rtol=1e-9)
    np.testing.assert_allclose(memory.std**2, memory.var)


def test_one_observation_teaches_the_mean_and_nothing_of_the_noise():
    memory = GaussianMemory.empty(2, Prior(nu=3.0, s2=0.5)).observe([1.0, -2.0])
    assert memory.mean.tolist() == [1.0, -2.0]
    np.testing.assert_allclose(memory.var, 0.5)


def test_reading_changes_nothing():
    memory = GaussianMemory.empty(2).observe([[1.0, 0.0], [1.2, 0.1]])
    before = memory.mean.copy(), memory.var.copy(), memory.n
    for _ in range(20):
        predictive_log_density([1.0, 0.0], memory.mean, memory.var, memory.n, query_var=0.1)
        fisher_rao(memory.mean, memory.std, [1.0, 0.0], [0.1, 0.1])
    assert (memory.mean == before[0]).all() and (memory.var == before[1]).all() and memory.n == before[2]


@given(means, deviations, st.integers(0, 40), means, st.floats(0, 9), st.floats(0.1, 30))
def test_predictive_density_matches_scipy(mean, sd, n, query, noise, tau2):
    var = sd**2
    centre, spread = posterior(mean, var, n, tau2=tau2)
    ours = predictive_log_density(query, mean, var, n, query_var=noise, tau2=tau2)
    assert ours == pytest.approx(stats.norm.logpdf(query, centre, np.sqrt(spread + noise)).sum(), rel=1e-9, abs=1e-9)


def test_posterior_matches_bayes_by_integration():
    mean, var, n, tau2 = 1.5, 0.6, 3, 2.0

    def weight(x):
        return stats.norm.pdf(x, 0, math.sqrt(tau2)) * stats.norm.pdf(mean, x, math.sqrt(var / n))

    total = integrate.quad(weight, -10, 10)[0]
    first = integrate.quad(lambda x: x * weight(x), -10, 10)[0] / total
    second = integrate.quad(lambda x: (x - first) ** 2 * weight(x), -10, 10)[0] / total
    centre, spread = posterior([mean], [var], n, tau2=tau2)
    assert (centre[0], spread[0]) == pytest.approx((first, second), rel=1e-7)


def test_more_evidence_narrows_and_none_is_the_prior():
    centre, spread = posterior(np.ones((3, 1)), np.ones((3, 1)), [0, 1, 100], tau2=4.0)
    assert centre[0] == 0 and spread[0] == 4.0
    assert spread[0] > spread[1] > spread[2] and centre[1] < centre[2] < 1


@settings(max_examples=20)
@given(st.integers(0, 3))
def test_wrong_inputs_are_refused(which):
    memory = GaussianMemory.empty(3)
    calls = [
        lambda: memory.observe([1.0, 2.0]),
        lambda: memory.observe([1.0, math.nan, 2.0]),
        lambda: Prior(nu=0.0),
        lambda: predictive_log_density([0.0], [0.0], [0.0], 1, query_var=1.0),
    ]
    with pytest.raises(InputError):
        calls[which]()
