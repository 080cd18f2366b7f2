"""The fast paths of a search give what the plain ones give."""

from __future__ import annotations

import os
import signal
import struct
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import Memory
from holdfast.retrieve import sign_scan
from holdfast.retrieve.arrays import in_order, top
from holdfast.retrieve.lexical import LexicalIndex
from holdfast.retrieve.loops import plain


def index(texts: list[list[int]], cuts: set[int]) -> LexicalIndex:
    """An index of texts given as numbers of words, appended in several calls."""
    folds = []
    for text in texts:
        terms = sorted(set(text))
        folds.append(struct.pack("<IB", len(text), 0) + b"".join(struct.pack("<IB", t, text.count(t)) for t in terms))
    found = LexicalIndex()
    ends = sorted({cut for cut in cuts if 0 < cut < len(texts)} | {len(texts)})
    for start, end in zip([0, *ends], ends, strict=False):
        found.append(list(range(start, end)), folds[start:end])
    return found


# Word 0 is the commonest: squaring a uniform number crowds the draws towards it.
word = st.floats(0, 0.999).map(lambda x: int(40 * x * x))
text = st.lists(word, min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(text, min_size=1, max_size=120),
    st.sets(st.integers(1, 119), max_size=4),
    st.sets(word, min_size=1, max_size=5),
    st.integers(1, 12),
    st.integers(0, 2**32),
    st.sampled_from([16_384, 60, 8]),  # with all of these, rows are counted exactly, once a word, or not at all
)
def test_skipping_common_words_finds_the_same_rows(texts, cuts, query, k, seed, few):
    lexical = index(texts, cuts)
    allowed = np.random.default_rng(seed).random(len(texts)) < 0.7
    scores = lexical.scores(sorted(query), len(texts)) * allowed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("holdfast.retrieve.loops.FEW", few)
        expected, found = top(scores, k), lexical.best(sorted(query), k, allowed)
    assert len(found) == len(expected)
    np.testing.assert_allclose(scores[found], scores[expected], rtol=1e-5)


def test_common_words_are_skipped_where_a_rare_one_settles_it(monkeypatch):
    texts = [[0, 1, 2] for _ in range(500)] + [[0, 7, 7]] * 5
    lexical = index(texts, set())
    looked_up = []
    count = LexicalIndex._count
    monkeypatch.setattr(
        LexicalIndex, "_count", lambda self, w, rows, out: looked_up.append(w.rows) or count(self, w, rows, out)
    )
    found = lexical.best([0, 7], 3, np.ones(len(texts), np.bool_))
    assert found.tolist() == [500, 501, 502]
    assert looked_up == [505]


@settings(max_examples=60, deadline=None)
@given(st.lists(text, min_size=1, max_size=120), st.sets(st.integers(1, 119), max_size=4), word, st.integers(0, 2**32))
def test_a_word_counted_row_by_row_gives_the_same_counts(texts, cuts, query, seed):
    rows = np.random.default_rng(seed).integers(-1, len(texts) + 2, 40)
    with pytest.MonkeyPatch.context() as patch:
        expected = index(texts, cuts).counts([query], rows)
        patch.setattr("holdfast.retrieve.lexical._MANY_ROWS", 0)
        lexical = index(texts, cuts)
        for _ in range(2):
            assert lexical.counts([query], rows).tolist() == expected.tolist()


def test_what_expires_is_gone_the_moment_it_does_although_masks_are_kept(tmp_path):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    now = [start]
    memory = Memory(tmp_path, user="ana", embedder=None, encoders=(), background=False, clock=lambda: now[0])
    memory.add("the kettle is blue", ttl=timedelta(hours=1))
    memory.add("the kettle is red")
    memory.add("the kettle is old", ttl=timedelta(hours=2))
    counts = []
    for minutes in (0, 59, 60, 61, 119, 120, 121, 10):
        now[0] = start + timedelta(minutes=minutes)
        counts.append(len(memory.search("kettle")))
    memory.close()
    assert counts == [3, 3, 2, 2, 2, 1, 1, 3]


def test_a_row_seen_under_two_words_does_not_count_as_two(monkeypatch):
    """Words 1 and 2 are rare and meet in row 0; row 1 holds one of them in a long text, row 2 only the common word 3."""
    monkeypatch.setattr("holdfast.retrieve.loops.FEW", 8)
    lexical = index([[1, 2], [1, *range(100, 300)], [3, 3, 3], *([[3, 9]] * 10), *([[9]] * 30)], set())
    found = lexical.best([1, 2, 3], 2, np.ones(43, np.bool_))
    assert found.tolist() == top(lexical.scores([1, 2, 3], 43), 2).tolist() == [0, 2]


@pytest.mark.parametrize("dimension", [384, 6, 7])
def test_a_query_is_turned_as_the_rows_are(dimension: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((200, dimension)).astype(np.float32)
    one_by_one = np.stack([sign_scan._sign_bits_of(vector) for vector in vectors])
    unlike = np.bitwise_count(one_by_one ^ sign_scan._sign_bits(vectors)).sum()
    assert unlike <= 200 * dimension / 10_000  # of what is next to nothing the sign may go either way
    assert (
        one_by_one.shape == (200, -(-dimension // 64))
        and len(np.unique(one_by_one, axis=0)) > min(2**dimension, 200) / 3
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_that_was_forked_scans_a_large_scope_by_its_own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_scan, "_PARALLEL_ROWS", 100)
    vectors = np.random.default_rng(0).standard_normal((5_000, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scan = sign_scan.SignScan(64, plain)
    scan.put(np.arange(5_000), vectors)

    def nearest() -> int:
        rows, cosines = scan.near(vectors[7], 10, np.ones(5_000, np.bool_), lambda rows: vectors[rows] @ vectors[7])
        return int(rows[cosines.argmax()])

    assert nearest() == 7
    child = os.fork()
    if not child:
        signal.alarm(20)  # a child that waits for a thread of its parent waits for ever
        os._exit(0 if nearest() == 7 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 2**31 - 1), st.floats(0, 1e6, width=32)), unique_by=lambda pair: pair[0], max_size=60
    )
)
def test_rows_in_order_keep_their_scores(pairs):
    rows, scores = (
        np.asarray([row for row, _ in pairs], np.int64),
        np.asarray([score for _, score in pairs], np.float32),
    )
    found, beside = in_order(rows, scores)
    assert list(zip(found.tolist(), beside.tolist(), strict=True)) == sorted(
        zip(rows.tolist(), scores.tolist(), strict=True)
    )
    assert found.dtype == np.int64 and beside.dtype == np.float32
