"""The loops of a search against the plainest arithmetic, by numpy and compiled."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.retrieve import loops as numpy_loops
from holdfast.retrieve.loops import Loops, widened


@pytest.fixture(scope="module", params=["numpy", "compiled"])
def loops(request: pytest.FixtureRequest) -> Loops:
    if request.param == "compiled":
        pytest.importorskip("numba", reason="the extra fast is not installed")
        return numpy_loops.fastest()
    return numpy_loops.plain()


def test_every_finite_half_is_widened_exactly() -> None:
    half = np.arange(65_536, dtype=np.uint16).view(np.float16)
    half = half[np.isfinite(half)]
    assert np.array_equal(widened(half).view(np.uint32), half.astype(np.float32).view(np.uint32))


def test_a_product_takes_every_half_as_it_is(loops: Loops) -> None:
    half = np.arange(65_536, dtype=np.uint16).view(np.float16)
    half = half[np.isfinite(half)][:, None]
    found = loops.products(half, np.arange(len(half)), np.ones(1, np.float32))
    assert np.array_equal(found, half[:, 0].astype(np.float32))


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(0, 2**32))
def test_products(loops: Loops, n: int, dimension: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    half = rng.standard_normal((n, dimension)).astype(np.float16)
    query = rng.standard_normal(dimension).astype(np.float32)
    rows = rng.integers(-2, n + 2, 30)
    expected = [half[row].astype(np.float64) @ query if 0 <= row < n else 0.0 for row in rows]
    np.testing.assert_allclose(loops.products(half, rows, query), expected, atol=1e-4)


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 5), st.integers(0, 2**32))
def test_differences(loops: Loops, n: int, words: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 2**64, (n, words), np.uint64)
    bits = rng.integers(0, 2**64, words, np.uint64)
    unlike = [[(int(a) ^ int(b)).bit_count() for a, b in zip(row, bits, strict=True)] for row in table]
    first = np.empty(n, np.uint8)
    head = min(words, 3)
    loops.differences([np.ascontiguousarray(table[:, at]) for at in range(head)], bits[:head], first)
    assert first.tolist() == [sum(row[:head]) for row in unlike]
    rows = rng.integers(0, n, 20)
    rest = np.ascontiguousarray(table[:, head:])
    assert loops.differences_of(rest, rows, bits[head:], first).tolist() == [sum(unlike[row]) for row in rows]


postings = st.lists(st.integers(0, 300), min_size=1, max_size=60, unique=True).map(sorted)


@settings(deadline=None)
@given(postings, st.lists(st.integers(-1, 310), max_size=60), st.integers(0, 2**32))
def test_counts_at(loops: Loops, held: list[int], rows: list[int], seed: int) -> None:
    counts = np.random.default_rng(seed).integers(1, 256, len(held)).astype(np.uint8)
    known = dict(zip(held, counts.tolist(), strict=True))
    found = np.zeros(len(rows), np.float32)
    loops.counts_at(np.asarray(held, np.int32), counts, np.asarray(rows, np.int32), found)
    assert found.tolist() == [known.get(row, 0) for row in rows]


@settings(deadline=None)
@given(postings, st.integers(0, 2**32))
def test_add_gains(loops: Loops, held: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 256, len(held)).astype(np.uint8)
    norms, found = rng.random(301).astype(np.float32) + 0.1, rng.random(301).astype(np.float32)
    expected = found.astype(np.float64)
    for row, count in zip(held, counts.tolist(), strict=True):
        expected[row] += 2.5 * count / (count + norms[row])
    loops.add_gains(found, np.asarray(held, np.int32), counts, norms, np.float32(2.5))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_numba_that_does_not_fit_is_named_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("numba", reason="the extra fast is not installed")
    monkeypatch.setitem(sys.modules, "holdfast.retrieve.compiled", None)  # an import of it raises ImportError
    monkeypatch.delattr("holdfast.retrieve.compiled", raising=False)
    numpy_loops.fastest.cache_clear()
    try:
        assert numpy_loops.fastest() is numpy_loops.plain()
        assert "the extra 'fast' cannot be used" in caplog.text
    finally:
        numpy_loops.fastest.cache_clear()
