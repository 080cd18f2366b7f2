"""The loops of a search against the plainest arithmetic, by numpy and compiled."""

from __future__ import annotations

import os
import signal
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.retrieve import loops as numpy_loops
from holdfast.retrieve.lexical import LexicalIndex
from holdfast.retrieve.loops import HIDDEN, Loops, widened
from holdfast.retrieve.text import pack_terms, term
from holdfast.retrieve.vectors import EXACT_ROWS, VectorIndex


@pytest.fixture(scope="module", params=["numpy", "compiled"])
def loops(request: pytest.FixtureRequest) -> Loops:
    if request.param == "compiled":
        pytest.importorskip("numba", reason="the extra fast is not installed")
        return numpy_loops.compiled()
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
@given(st.integers(1, 50), st.integers(1, 5), st.integers(1, 60), st.integers(0, 2**32))
def test_nearest_and_differences(loops: Loops, n: int, words: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 2**64, (n, words), np.uint64)
    bits = rng.integers(0, 2**64, words, np.uint64)
    shown = rng.random(n) < rng.choice([0.5, 1.0])
    unlike = [[(int(a) ^ int(b)).bit_count() for a, b in zip(row, bits, strict=True)] for row in table]
    first = np.empty(n, np.uint8)
    head = min(words, 3)
    columns = [np.ascontiguousarray(table[:, at]) for at in range(head)]
    rows, bound = loops.nearest(columns, bits[:head], shown, count, first)
    assert first.tolist() == [sum(row[:head]) if seen else HIDDEN for row, seen in zip(unlike, shown, strict=True)]
    # So few rows are their own sample: as many are found as are asked for, or all that are shown.
    assert bound < HIDDEN and len(rows) >= min(count, np.count_nonzero(shown))
    assert rows.tolist() == [row for row in range(n) if first[row] <= bound]
    rows = rng.integers(0, n, 20)
    differing = loops.differences(np.ascontiguousarray(table[:, head:]), rows, bits[head:], first)
    assert differing.tolist() == [int(first[row]) + sum(unlike[row][head:]) for row in rows]


def test_about_as_many_rows_are_found_as_are_asked_for(loops: Loops) -> None:
    rng = np.random.default_rng(1)
    columns = [rng.integers(0, 2**64, 200_000, np.uint64) for _ in range(3)]
    first = np.empty(200_000, np.uint8)
    rows, bound = loops.nearest(columns, columns[0][:3], np.ones(200_000, np.bool_), 4_000, first)
    assert 2_500 < len(rows) < 8_000 and rows.tolist() == np.flatnonzero(first <= bound).tolist()


@settings(deadline=None)
@given(st.lists(st.integers(0, 30) | st.integers(0, 65_535), max_size=60), st.integers(1, 70))
def test_smallest(loops: Loops, values: list[int], count: int) -> None:
    found = loops.smallest(np.asarray(values, np.uint16), count)
    assert sorted(found.tolist()) == sorted(sorted(range(len(values)), key=lambda at: (values[at], at))[:count])


postings = st.lists(st.integers(0, 300), min_size=1, max_size=60, unique=True).map(sorted)


@settings(deadline=None)
@given(postings, st.lists(st.integers(-1, 310), max_size=60), st.integers(0, 2**32))
def test_counts_at(loops: Loops, held: list[int], rows: list[int], seed: int) -> None:
    counts = np.random.default_rng(seed).integers(1, 256, len(held)).astype(np.uint8)
    known = dict(zip(held, counts.tolist(), strict=True))
    found = np.zeros(len(rows), np.float32)
    loops.counts_at(np.asarray(held, np.int32), counts, np.asarray(rows, np.int64), found)
    assert found.tolist() == [known.get(row, 0) for row in rows]


@settings(deadline=None)
@given(st.lists(postings, min_size=1, max_size=4), st.integers(0, 2**32))
def test_add_gains(loops: Loops, lists: list[list[int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    norms = rng.random(301).astype(np.float32) + 0.1
    found, expected = np.zeros(301, np.float32), np.zeros(301)
    seen, size = np.empty(301, np.int32), 0
    for held in lists:
        counts = rng.integers(1, 256, len(held)).astype(np.uint8)
        for row, count in zip(held, counts.tolist(), strict=True):
            expected[row] += 2.5 * count / (count + norms[row])
        size = loops.add_gains(found, seen, size, np.asarray(held, np.int32), counts, norms, np.float32(2.5))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert sorted(seen[:size].tolist()) == np.flatnonzero(expected).tolist()


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 30.0, width=32), min_size=1, max_size=60), st.floats(0.01, 30.0), st.data())
def test_so_many_rows_reach_what_is_said(loops: Loops, scores: list[float], most: float, data: st.DataObject) -> None:
    found = np.minimum(np.asarray([*scores, 40.0], np.float32), np.float32(most))
    seen = np.arange(len(scores), dtype=np.int32)
    count = data.draw(st.integers(1, len(scores)))
    reached, best = loops.reached(found, seen, count, most), np.sort(found[seen])[-count]
    assert best - most / 400 - 1e-6 <= reached <= best


@settings(deadline=None)
@given(st.integers(1, 90), st.integers(0, 40), st.integers(0, 2**32))
def test_surroundings(loops: Loops, size: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    previous, following = (rng.integers(-1, size, size).astype(np.int32) for _ in range(2))
    shown, rows = rng.random(size) < 0.8, rng.integers(0, size, n)
    found, *places = loops.surroundings(rows, previous, following, shown)
    assert found[-1] == -1 and len(set(found.tolist())) == len(found)
    expected = [
        rows,
        *(np.where((side[rows] >= 0) & shown[side[rows]], side[rows], -1) for side in (previous, following)),
    ]
    assert [found[some].tolist() for some in places] == [some.tolist() for some in expected]
    assert set(found.tolist()) == {-1, *np.concatenate(expected).tolist()}


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(0, 4), st.integers(0, 3), st.integers(0, 2**32))
def test_weigh(loops: Loops, n: int, terms: int, segments: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = (rng.integers(0, 4, (terms, 9)) * (rng.random((terms, 9)) < 0.5)).astype(np.float32)
    here, before, after = rng.integers(0, 9, (3, n))
    norms, weights = rng.random(n).astype(np.float32) + 0.1, rng.random(terms).astype(np.float32)
    parts = rng.random((segments, terms)).astype(np.float32)
    words, window, segment = loops.weigh(counts, here, before, after, norms, weights, parts)
    for at in range(n):
        own = counts[:, here[at]]
        gains = own / (own + norms[at])
        near = np.where(own > 0, 1.0, np.maximum(0.6 * (counts[:, before[at]] > 0), 0.4 * (counts[:, after[at]] > 0)))
        assert words[at] == pytest.approx(float(weights @ gains), rel=1e-5)
        assert window[at] == pytest.approx(float(weights @ near), rel=1e-5)
        assert segment[at] == pytest.approx(float((parts @ gains).max() if segments else weights @ gains), rel=1e-5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-5, 5, width=32)), max_size=40))
def test_the_most_of_each_group(loops: Loops, pairs: list[tuple[int, float]]) -> None:
    groups, values = np.asarray([g for g, _ in pairs], np.int32), np.asarray([v for _, v in pairs], np.float32)
    assert loops.most(groups, values).tolist() == [max(v for g, v in pairs if g == group) for group, _ in pairs]


def test_a_numba_that_does_not_fit_is_named_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("numba", reason="the extra fast is not installed")
    monkeypatch.setitem(sys.modules, "holdfast.retrieve.compiled", None)  # an import of it raises ImportError
    monkeypatch.delattr("holdfast.retrieve.compiled", raising=False)
    monkeypatch.setattr(numpy_loops, "_compiler", numpy_loops._Compiler())
    assert numpy_loops.compiled() is numpy_loops.plain() is numpy_loops.fastest()
    assert "the extra 'fast' cannot be used" in caplog.text


def test_a_large_scope_is_searched_by_numpy_until_the_loops_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = pytest.importorskip("holdfast.retrieve.compiled", reason="the extra fast is not installed")
    ready = threading.Event()
    monkeypatch.setattr(compiled, "warm_up", ready.wait)
    monkeypatch.setattr(numpy_loops, "_compiler", numpy_loops._Compiler())
    assert numpy_loops.fastest() is numpy_loops.plain()
    ready.set()
    assert numpy_loops.compiled() is compiled is numpy_loops.fastest()


def test_warming_up_compiles_all_that_a_search_calls() -> None:
    compiled = pytest.importorskip("holdfast.retrieve.compiled", reason="the extra fast is not installed")
    numpy_loops.compiled()
    rng = np.random.default_rng(0)
    index = VectorIndex(192)
    vectors = rng.standard_normal((EXACT_ROWS + 5, 192)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index.put_folds(range(len(vectors)), [vector.astype(np.float16).tobytes() * 2 for vector in vectors])
    rows, cosines = index.search(vectors[3], 10, np.ones(len(vectors), np.bool_))
    assert rows[0] == 3
    index.best_passages(vectors[3], rows, cosines)
    lexical = LexicalIndex()
    lexical.append(range(len(vectors)), [pack_terms(["common", f"word{row % 50}"]) for row in range(len(vectors))])
    lexical.best([term("common"), term("word7")], 10, np.ones(len(vectors), np.bool_))
    lexical.counts(term("word7"), rows)
    needed, *places = numpy_loops.compiled().surroundings(
        rows, np.zeros(len(vectors), np.int32), np.full(len(vectors), -1, np.int32), np.ones(len(vectors), np.bool_)
    )
    index.cosines(vectors[3], needed)
    table = np.stack([lexical.counts(term(word), needed) for word in ("common", "word7")])
    norms = lexical.lengths[rows]
    numpy_loops.compiled().weigh(table, *places, norms, np.ones(2, np.float32), np.ones((1, 2), np.bool_) * norms[:2])
    numpy_loops.compiled().most(np.zeros(len(rows), np.int32), norms)
    made = {name: len(loop.signatures) for name, loop in vars(compiled).items() if hasattr(loop, "signatures")}
    assert len(made) >= 6 and set(made.values()) == {1}, made


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_in_the_middle_of_compiling_goes_by_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = pytest.importorskip("holdfast.retrieve.compiled", reason="the extra fast is not installed")
    ready = threading.Event()
    monkeypatch.setattr(compiled, "warm_up", ready.wait)
    compiler = numpy_loops._Compiler()
    monkeypatch.setattr(numpy_loops, "_compiler", compiler)
    assert compiler.loops is numpy_loops.plain()
    child = os.fork()
    if not child:
        signal.alarm(20)  # a child that waits for its parent's thread waits for ever
        os._exit(0 if numpy_loops.compiled() is numpy_loops.plain() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ready.set()
    assert numpy_loops.compiled() is compiled
