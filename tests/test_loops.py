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
from holdfast.retrieve.arrays import Floats
from holdfast.retrieve.fusion import features
from holdfast.retrieve.lexical import LexicalIndex
from holdfast.retrieve.loops import HIDDEN, Loops, widened
from holdfast.retrieve.pool import K1, B, Feature, Pool
from holdfast.retrieve.signs import Sign
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
    seen, size = np.empty(302, np.int32), 0
    for held in lists:
        counts = rng.integers(1, 256, len(held)).astype(np.uint8)
        for row, count in zip(held, counts.tolist(), strict=True):
            expected[row] += 2.5 * count / (count + norms[row])
        size = loops.add_gains(found, seen, size, np.asarray(held, np.int32), counts, norms, np.float32(2.5))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert sorted(seen[:size].tolist()) == np.flatnonzero(expected).tolist()


@settings(deadline=None)
@given(st.lists(postings, min_size=1, max_size=4), st.integers(0, 2**32))
def test_add_ones(loops: Loops, lists: list[list[int]], seed: int) -> None:
    shown = np.random.default_rng(seed).random(301) < 0.7
    found, expected = np.zeros(301, np.uint16), np.zeros(301, np.uint16)
    seen, size = np.empty(302, np.int32), 0
    for held in lists:
        expected[held] += shown[held]
        size = loops.add_ones(found, seen, size, np.asarray(held, np.int32), shown)
    assert found.tolist() == expected.tolist()
    assert sorted(seen[:size].tolist()) == np.flatnonzero(expected).tolist()


@settings(deadline=None)
@given(st.lists(postings, min_size=1, max_size=4), st.integers(0, 2**32))
def test_add_counts(loops: Loops, lists: list[list[int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    shown = rng.random(301) < 0.7
    found, expected = np.zeros(301), np.zeros(301)
    seen = np.empty(302, np.int32)
    rows, ends = np.concatenate(lists).astype(np.int32), np.cumsum([len(held) for held in lists])
    counts, weights = rng.integers(1, 256, len(rows)).astype(np.uint8), rng.random(len(lists)) + 0.1
    for held, some, weight in zip(lists, np.split(counts, ends), weights, strict=False):
        expected[held] += shown[held] * weight * some
    assert loops.shown_of(rows, ends, shown).tolist() == [int(shown[held].sum()) for held in lists]
    size = loops.add_counts(found, seen, rows, counts, ends, shown, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-15)
    assert sorted(seen[:size].tolist()) == np.flatnonzero(expected).tolist()


def test_where_every_row_holds_a_word_all_are_seen(loops: Loops) -> None:
    """Once all are there, the place beyond them takes what is written."""
    rows, ones = np.arange(9, dtype=np.int32), np.ones(9, np.uint8)
    found, few, seen = np.zeros(9, np.float32), np.zeros(9, np.uint16), np.empty(10, np.int32)
    for _ in range(2):
        size = loops.add_gains(
            found, seen, 0 if not found.any() else 9, rows, ones, np.zeros(9, np.float32), np.float32(1)
        )
        assert sorted(seen[:size].tolist()) == rows.tolist()
    for _ in range(2):
        size = loops.add_ones(few, seen, 0 if not few.any() else 9, rows, np.ones(9, np.bool_))
        assert sorted(seen[:size].tolist()) == rows.tolist()


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 30.0, width=32), min_size=1, max_size=60), st.floats(0.01, 30.0), st.data())
def test_so_many_rows_reach_what_is_said(loops: Loops, scores: list[float], most: float, data: st.DataObject) -> None:
    found = np.minimum(np.asarray([*scores, 40.0], np.float32), np.float32(most))
    seen = np.arange(len(scores), dtype=np.int32)
    count = data.draw(st.integers(1, len(scores)))
    reached, best = loops.reached(found, seen, count, most), np.sort(found[seen])[-count]
    assert best - most / 400 - 1e-6 <= reached <= best


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 30.0, width=32), max_size=60), st.floats(0.0, 30.0, width=32), st.integers(0, 2**32))
def test_what_is_found_is_taken(loops: Loops, scores: list[float], least: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = np.asarray([*scores, 40.0], np.float32)
    seen = rng.permutation(len(scores)).astype(np.int32)[: rng.integers(0, len(scores) + 1)]
    rows, values = loops.taken(found, seen, least)
    expected = [(row, scores[row]) for row in seen.tolist() if scores[row] >= least]
    assert list(zip(rows.tolist(), values.tolist(), strict=True)) == expected
    assert rows.dtype == np.int64 and values.dtype == np.float32
    assert found.tolist() == [0.0 if row in seen else score for row, score in enumerate([*scores, 40.0])]


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


def some_pool(n: int, rows: int, terms: int, segments: int, seed: int) -> Pool:
    """n candidates among some rows of a scope, in no order, beside any of them or none."""
    rng = np.random.default_rng(seed)
    size = rows + 5

    def floats() -> Floats:
        return rng.standard_normal(n).astype(np.float32)

    counts = rng.integers(0, 4, (terms, rows + 1)) * (rng.random((terms, rows + 1)) < 0.5)
    counts[:, -1] = 0
    return Pool(
        rows=np.append(rng.permutation(size)[:rows], -1),
        here=rng.integers(0, rows, n),
        before=rng.integers(0, rows + 1, n),
        after=rng.integers(0, rows + 1, n),
        counts=counts.astype(np.float32),
        idf=rng.random(terms).astype(np.float32),
        segments=rng.random((segments, terms)) < 0.5,
        cosine=floats(),
        passage=floats(),
        cosine_after=floats(),
        entities=floats(),
        time=floats(),
        lengths=rng.integers(1, 300, size).astype(np.float32),
        mean_length=float(rng.random() * 40),
        session=rng.integers(0, rng.integers(1, 5), size).astype(np.int32),
        author=rng.integers(0, 8, size).astype(np.int32),
        roles=np.arange(8, dtype=np.uint8),
        flags=rng.integers(0, 8, size).astype(np.uint8),
        dated=rng.random(size) < 0.5,
    )


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(1, 30), st.integers(0, 4), st.integers(0, 3), st.integers(0, 2**32))
def test_words_window_and_segment_of_a_pool(loops: Loops, n: int, rows: int, t: int, segments: int, seed: int) -> None:
    pool = some_pool(n, rows, t, segments, seed)
    found = loops.channels(pool, np.ones(len(Feature), np.bool_))
    shares = pool.idf * (K1 + 1) / max(pool.idf.sum(), 1e-9)
    parts = [some * pool.idf * (K1 + 1) / max((some * pool.idf).sum(), 1e-9) for some in pool.segments]
    for at in range(n):
        own, before, after = (pool.counts[:, some[at]] for some in (pool.here, pool.before, pool.after))
        norm = K1 * (1 - B + B * pool.lengths[pool.rows[pool.here[at]]] / max(pool.mean_length, 1))
        gains = own / (own + norm)
        near = np.where(own > 0, 1.0, np.maximum(0.6 * (before > 0), 0.4 * (after > 0)))
        best = max([float(part @ gains) for part in parts], default=float(shares @ gains))
        assert found[Feature.WORDS, at] == pytest.approx(float(shares @ gains), rel=1e-5)
        assert found[Feature.WINDOW, at] == pytest.approx(float(shares @ near) / (K1 + 1), rel=1e-5)
        assert found[Feature.SEGMENT, at] == pytest.approx(best, rel=1e-5)
        asked = pool.before[at] < rows and pool.flags[pool.rows[pool.before[at]]] & Sign.QUESTION
        assert found[Feature.ANSWER, at] == bool(asked)
    sessions = pool.session[pool.rows[pool.here]]
    for line, values in ((Feature.SESSION_WORDS, found[Feature.WORDS]), (Feature.SESSION_MEANING, pool.cosine)):
        assert found[line].tolist() == [values[sessions == one].max() for one in sessions]


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 30), st.integers(0, 5), st.integers(0, 3), st.integers(0, 2**32))
def test_the_compiled_channels_are_those_of_numpy(n: int, rows: int, terms: int, segments: int, seed: int) -> None:
    pytest.importorskip("numba", reason="the extra fast is not installed")
    pool = some_pool(n, rows, terms, segments, seed)
    counted = np.random.default_rng(seed).random(len(Feature)) < 0.5
    expected = numpy_loops.plain().channels(pool, counted)
    np.testing.assert_allclose(numpy_loops.compiled().channels(pool, counted), expected, rtol=1e-5, atol=1e-6)


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
    needed, *places = numpy_loops.compiled().surroundings(
        rows, np.zeros(len(vectors), np.int32), np.full(len(vectors), -1, np.int32), np.ones(len(vectors), np.bool_)
    )
    index.cosines(vectors[3], needed)
    table = lexical.counts([term("common"), term("word7")], needed)
    here, before, after = places
    size, silent = len(vectors), np.zeros(len(rows), np.float32)
    numbers = np.zeros(size, np.int32)
    pool = Pool(
        rows=needed,
        here=here,
        before=before,
        after=after,
        counts=table,
        idf=np.asarray([lexical.idf(term(word)) for word in ("common", "word7")], np.float32),
        segments=np.zeros((0, 2), np.bool_),
        cosine=cosines,
        passage=cosines,
        cosine_after=cosines,
        entities=silent,
        time=silent,
        lengths=lexical.lengths,
        mean_length=lexical.mean_length,
        session=numbers,
        author=numbers,
        roles=np.zeros(1, np.uint8),
        flags=lexical.flags,
        dated=np.zeros(size, np.bool_),
    )
    features(pool, (), numpy_loops.compiled())
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
