"""Which adapter an instruction belongs to, and that nobody answers for what he was not told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="the extra torch is not installed")

from holdfast.errors import InputError, NotFoundError
from holdfast.weights.adapter_book import AdapterBook, embedded, tfidf

WORDS = st.lists(
    st.sampled_from("book a flight hotel to answer the question name picture".split()), min_size=1, max_size=8
)
TEXTS = st.lists(WORDS.map(" ".join), min_size=1, max_size=4)


@given(TEXTS, TEXTS)
def test_likeness_is_a_cosine(left: list[str], right: list[str]) -> None:
    found = tfidf(left, right)
    assert found.shape == (len(left), len(right)) and (found >= 0).all() and (found <= 1 + 1e-9).all()
    np.testing.assert_allclose(found, tfidf(right, left).T)
    for text in left:
        assert tfidf([text], [text])[0, 0] in (0.0, pytest.approx(1.0))


@given(TEXTS, TEXTS)
def test_likeness_is_that_of_scikit_learn(left: list[str], right: list[str]) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    found = tfidf(left, right, text.ENGLISH_STOP_WORDS)
    for row, a in enumerate(left):
        for column, b in enumerate(right):
            try:
                rows = text.TfidfVectorizer(stop_words="english").fit_transform([a, b]).toarray()
            except ValueError:  # nothing but common words
                assert found[row, column] == 0
                continue
            assert found[row, column] == pytest.approx(float(rows[0] @ rows[1]))


def test_tasks_told_alike_share_a_group_and_others_begin_one() -> None:
    book = AdapterBook(reuse_at=0.5)
    first = book.assign(["Answer the question about the picture."])
    assert first.is_new and first.group == "group-1" and first.score == 0
    again = book.assign(["Answer the question about the picture.", "Answer the picture question."])
    assert again.group == "group-1" and not again.is_new and again.score > 0.9
    other = book.assign(["Book a flight to Lisbon."])
    assert other.group == "group-2" and other.is_new and other.score < 0.5
    assert book.groups["group-1"] == ("Answer the question about the picture.", "Answer the picture question.")
    assert book.route("Book a flight to Porto.").memory == "group-2"
    strange = book.route("Prove the lemma.")
    assert strange.memory is None and strange.score < strange.threshold


def test_many_ways_of_saying_it_reach_a_threshold_by_the_best_and_not_by_the_mean() -> None:
    told = ["Book a flight.", "Reserve an aeroplane seat.", "Find a plane ticket."]
    for pool, found in (("best", "travel"), ("mean", None)):
        book = AdapterBook(reuse_at=0.9, pool=pool)
        book.assign(told, group="travel")
        assert book.route("Reserve an aeroplane seat.").memory == found


def test_ids_are_told_or_made_and_none_is_given_twice() -> None:
    book = AdapterBook()
    book.assign(["translate poems"], group="group-1")
    made = book.assign(["cook soup"]).group
    assert made == "group-2"
    assert book.forget(made) == ("cook soup",) and book.route("cook soup").memory is None
    assert book.assign(["cook soup"]).group == "group-3"
    with pytest.raises(NotFoundError):
        book.forget("group-2")
    with pytest.raises(InputError):
        book.assign(["  "])


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_a_book_that_was_written_down_routes_alike(tasks: list[list[str]]) -> None:
    book = AdapterBook(reuse_at=0.4, pool="mean")
    for told in tasks:
        book.assign(told)
    again = AdapterBook.from_json(book.to_json())
    assert again.groups == book.groups and (again.reuse_at, again.pool) == (0.4, "mean")
    for told in tasks:
        assert again.route(told[0]) == book.route(told[0])
    assert again.assign(["words of another kind"]) == book.assign(["words of another kind"])


def test_an_embedder_serves_as_well_and_what_is_no_book_is_refused() -> None:
    table = {"near": [1.0, 0.1], "home": [1.0, 0.0], "far": [0.0, 2.0]}
    book = AdapterBook(embedded(lambda texts: np.array([table[one] for one in texts], dtype=np.float32)), reuse_at=0.9)
    book.assign(["home"], group="a")
    assert book.route("near").memory == "a" and book.route("far").memory is None
    for wrong in ("", "[]", '{"groups": 3}'):
        with pytest.raises(InputError):
            AdapterBook.from_json(wrong)
