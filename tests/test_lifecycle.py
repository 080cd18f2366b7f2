"""The radial lifecycle: its law against scipy, the sheet's table, and what the manager proposes."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from holdfast.cube import Cube, Policy, Scope, Status, Use, new_id
from holdfast.errors import InputError
from holdfast.manage.expiry import Expiry
from holdfast.manage.lifecycle import (
    ALPHA_RANGE,
    AlphaMap,
    RadialLaw,
    RadialLifecycle,
    Zone,
    median_radius,
    simulate,
    zone_of,
)
from shelf import Shelf

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SCOPE = Scope("acme", "ana")


def fact(age_days: float = 0, **fields: object) -> Cube:
    return Cube(SCOPE, "a fact", kind=fields.pop("kind", "fact"), recorded_at=NOW - timedelta(days=age_days), **fields)


@pytest.mark.parametrize(
    ("alpha", "median", "archived", "active"),
    [
        (0.3, 0.94, 0.97, 0.0),
        (0.4, 0.87, 0.79, 0.0),
        (0.5, 0.80, 0.49, 0.0),
        (0.8, 0.63, 0.035, 0.004),
        (1.2, 0.51, 0.0, 0.03),
        (2.0, 0.385, 0.0, 0.17),
        (3.0, 0.31, 0.0, 0.44),
        (4.0, 0.27, 0.0, 0.69),
        (6.0, 0.22, 0.0, 0.93),
    ],
)
def test_the_table_of_the_sheet(alpha, median, archived, active):
    law = RadialLaw(alpha)
    occupancy = law.occupancy()
    assert law.median_radius == pytest.approx(median, abs=0.005)
    assert occupancy[Zone.ARCHIVED] == pytest.approx(archived, abs=0.006)
    assert occupancy[Zone.ACTIVE] == pytest.approx(active, abs=0.006)
    assert sum(occupancy.values()) == pytest.approx(1.0, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.05, 50), st.floats(0.05, 3), st.integers(1, 30))
def test_law_matches_scipy(alpha, temperature, dimension):
    law = RadialLaw(alpha, temperature, dimension)
    middle = float(law.quantile(0.5))

    def weight(rho):
        # The same law, written directly and scaled at the median so that scipy neither overflows nor underflows.
        logs = -alpha * (rho**2 - middle**2) / temperature
        return math.exp(logs + (dimension - 1) * (math.log(math.sinh(rho)) - math.log(math.sinh(middle))))

    width = math.sqrt(temperature / (2 * alpha))
    points = [max(1e-12, middle + k * width) for k in range(-10, 11)]
    pieces = [integrate.quad(weight, a, b, epsabs=0, epsrel=1e-11)[0] for a, b in itertools.pairwise(points)]
    assert sum(pieces[:10]) / sum(pieces) == pytest.approx(0.5, abs=1e-7)
    assert law.density(middle) == pytest.approx(1 / sum(pieces), rel=1e-7)
    shares = np.array([1e-6, 0.01, 0.3, 0.9, 1 - 1e-6])
    np.testing.assert_allclose(law.cdf(law.quantile(shares)), shares, atol=1e-12)


def test_one_dimension_is_half_a_gaussian():
    law = RadialLaw(2.0, 0.3, 1)
    rho = np.linspace(0.01, 1.5, 20)
    np.testing.assert_allclose(law.cdf(rho), stats.halfnorm.cdf(rho, scale=math.sqrt(0.3 / 4)), atol=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.2, 4.0])
def test_simulation_reaches_the_law(alpha):
    rho = simulate(alpha, seed=3, particles=4000)
    assert stats.kstest(rho, RadialLaw(alpha).cdf).statistic < 0.03
    assert (rho == simulate(alpha, seed=3, particles=4000)).all()
    assert stats.kstest(rho, RadialLaw(alpha * 1.3).cdf).statistic > 0.1  # the check can fail


def test_interpolated_median_is_exact_enough_and_monotone():
    alphas = np.geomspace(*ALPHA_RANGE, 37)
    exact = [RadialLaw(float(alpha)).median_radius for alpha in alphas]
    np.testing.assert_allclose([median_radius(float(alpha)) for alpha in alphas], exact, atol=2e-6)
    assert (np.diff(exact) < 0).all()
    assert median_radius(0.0) == median_radius(ALPHA_RANGE[0]) and median_radius(99.0) == median_radius(ALPHA_RANGE[1])


def test_zones():
    assert [zone_of(r) for r in (0.0, 0.299, 0.3, 0.55, 0.8, 0.999)] == [
        Zone.ACTIVE,
        Zone.ACTIVE,
        Zone.WARM,
        Zone.COLD,
        Zone.ARCHIVED,
        Zone.ARCHIVED,
    ]
    for bad in (math.nan, 1.0, -0.1):
        with pytest.raises(InputError):
            zone_of(bad)


@pytest.mark.parametrize(("alpha", "temperature", "dimension"), [(0, 1, 8), (1, 0, 8), (1, 1, 0), (math.nan, 1, 8)])
def test_impossible_laws_are_refused(alpha, temperature, dimension):
    with pytest.raises(InputError):
        RadialLaw(alpha, temperature, dimension)
    with pytest.raises(InputError):
        simulate(alpha, seed=0, temperature=temperature, dimension=dimension, steps=1)


@pytest.mark.parametrize(
    ("cube", "zone"),
    [
        (fact(0), Zone.ACTIVE),
        (fact(45), Zone.WARM),
        (fact(250), Zone.COLD),
        (fact(400), Zone.ARCHIVED),
        (fact(4000, use=Use(visits=10, last_use=NOW)), Zone.ACTIVE),
        (fact(4000, use=Use(visits=1, last_use=NOW)), Zone.WARM),
        (fact(4000, use=Use(visits=10, last_use=NOW - timedelta(days=900))), Zone.ARCHIVED),
        (fact(4000, use=Use(utility=1.0)), Zone.WARM),
        (fact(250, use=Use(utility=-1.0)), Zone.ARCHIVED),
    ],
)
def test_the_policy_targets(cube, zone):
    assert RadialLifecycle().zone(cube, NOW) is zone


@given(
    st.integers(0, 100),
    st.floats(0, 3000),
    st.floats(-3, 3),
    st.floats(0, 1),
    st.sampled_from(["visits", "age", "utility", "uncertainty"]),
)
def test_strength_is_monotone_in_everything(visits, age, utility, uncertainty, what):
    def alpha(more: float) -> float:
        use = Use(
            visits + int(what == "visits") * int(more),
            NOW - timedelta(days=age / 2),
            utility + more * (what == "utility"),
            uncertainty + more * (what == "uncertainty"),
        )
        return AlphaMap()(fact(age + more * (what == "age"), use=use), NOW)

    less, more = alpha(0), alpha(1)
    assert ALPHA_RANGE[0] <= less <= ALPHA_RANGE[1]
    assert more <= less if what in ("age", "uncertainty") else more >= less


def test_what_is_not_a_number_is_refused_by_name():
    cube = fact(use=Use(utility=math.nan))
    with pytest.raises(InputError, match=cube.id):
        RadialLifecycle().zone(cube, NOW)


def test_manager_archives_what_has_drifted_and_nothing_else():
    old = fact(500)
    kept = [
        fact(10),
        fact(5000, kind="instruction"),
        fact(5000, kind="preference"),
        fact(5000, status=Status.FROZEN),
        fact(5000, status=Status.QUARANTINED),
        fact(5000, data={"pinned": True}),
        fact(5000, use=Use(visits=20, last_use=NOW)),
    ]
    shelf = Shelf(old, *kept)
    (operation,) = RadialLifecycle().manage(shelf, SCOPE, NOW)
    assert operation.cube == old.with_(status=Status.ARCHIVED)
    assert "0.8" in operation.reason and "500 days" in operation.reason and "0 uses" in operation.reason
    assert RadialLifecycle().manage(shelf, SCOPE, NOW) == [operation]  # deterministic, and nothing was changed
    shelf.commit([operation])
    assert RadialLifecycle().manage(shelf, SCOPE, NOW) == []


def test_manager_stays_in_its_scope():
    other = Cube(Scope("acme", "bo"), "x", kind="fact", recorded_at=NOW - timedelta(days=900))
    assert RadialLifecycle().manage(Shelf(other), SCOPE, NOW) == []


def test_expiry():
    past, at, future = (fact(policy=Policy(expires_at=NOW + timedelta(seconds=seconds))) for seconds in (-1, 0, 1))
    frozen = past.with_(id=new_id(), status=Status.FROZEN)
    archived = past.with_(id=new_id(), status=Status.ARCHIVED)
    purged = past.with_(id=new_id(), status=Status.PURGED)
    shelf = Shelf(past, at, future, fact(), frozen, archived, purged)
    operations = Expiry().manage(shelf, SCOPE, NOW)
    assert [op.cube.id for op in operations if op.cube] == [past.id, at.id, archived.id]
    assert all(op.cube.status is Status.EXPIRED for op in operations if op.cube)
    assert past.policy.expires_at.isoformat() in operations[0].reason
    shelf.commit(operations)
    assert Expiry().manage(shelf, SCOPE, NOW) == []
