"""The fused score: additive, explained, and as good as it is said to be; how a query is read; passages; standing rules."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.bench import metrics, reference
from holdfast.bench.data import Conversation, Question, Turn, load_locomo, load_longmemeval
from holdfast.retrieve import fusion
from holdfast.retrieve.fusion import (
    CHANNELS,
    Calibration,
    Weights,
    contributions,
    features,
    fuse,
    nearness,
    relevance,
)
from holdfast.retrieve.passages import PASSAGE_WORDS, WHOLE_WORDS, passages
from holdfast.retrieve.pool import ASSISTANT, K1, NAMED, USER, Feature, Pool
from holdfast.retrieve.query import Want, analyse
from holdfast.retrieve.signs import Sign
from holdfast.retrieve.standing import is_instruction, is_preference

DATA = Path(os.environ.get("HOLDFAST_DATA") or Path(__file__).parents[2] / "shared" / "data")


def pool(n: int, t: int, seed: int = 0, segments: int = 2) -> Pool:
    """A scope of n rows that are all candidates, each beside the next in its place."""
    rng = np.random.default_rng(seed)
    floats = [rng.random(n).astype(np.float32) for _ in range(5)]
    return Pool(
        rows=np.append(rng.permutation(n), -1),
        here=np.arange(n),
        before=(np.arange(n) - 1) % (n + 1),
        after=np.arange(n) + 1,
        counts=rng.integers(0, 3, (t, n + 1)).astype(np.float32) * (np.arange(n + 1) < n),
        idf=rng.random(t).astype(np.float32) + 0.1,
        segments=rng.random((segments, t)) < 0.5,
        cosine=floats[0],
        passage=floats[1],
        cosine_after=floats[2],
        entities=floats[4],
        time=floats[3],
        lengths=rng.integers(1, 30, n).astype(np.float32),
        mean_length=12.0,
        session=rng.integers(0, 3, n).astype(np.int32),
        author=rng.integers(0, 8, n).astype(np.int32),
        roles=np.arange(8, dtype=np.uint8),
        flags=rng.integers(0, 8, n).astype(np.uint8),
        dated=rng.random(n) < 0.5,
    )


# --- the score ---


@given(st.integers(0, 20), st.integers(0, 5), st.integers(0, 1000), st.sets(st.sampled_from(list(Want))))
def test_contributions_sum_to_the_score_and_chances_keep_its_order(n, t, seed, wants):
    found = features(pool(n, t, seed), wants)
    scores = fuse(found, Weights())
    parts = contributions(found, Weights(), np.arange(n))
    assert parts.shape == (n, len(CHANNELS))
    assert scores.shape == (n,) and np.isfinite(scores).all()
    np.testing.assert_allclose(parts.sum(axis=1), scores, atol=1e-4)
    chances = relevance(found, scores, Calibration(passage=0.0))
    assert ((chances >= 0) & (chances <= 1)).all()
    assert (np.diff(chances[np.argsort(scores)]) >= 0).all()


@given(st.integers(1, 20), st.integers(1, 5), st.integers(0, 1000))
def test_shares_are_shares(n, t, seed):
    found = features(pool(n, t, seed), ())
    for name in ("window", "best_words", "time"):
        values = found[name]
        assert (values >= 0).all() and (values <= 1 + 1e-6).all()
    assert (found["words"] <= K1 + 1).all()
    assert (found["session_words"] >= found["words"]).all() and (found["session_meaning"] >= found["meaning"]).all()


def test_bm25_and_window_by_hand():
    one = pool(2, 2)._replace(
        rows=np.array([0, 1, 2, 3, -1]),
        counts=np.array([[2, 0, 0, 1, 0], [0, 0, 1, 0, 0]], np.float32),
        here=np.array([0, 1]),
        before=np.array([2, 4]),
        after=np.array([3, 2]),
        lengths=np.full(4, 10, np.float32),
        mean_length=10.0,
        idf=np.array([3, 1], np.float32),
        segments=np.zeros((0, 2), bool),
        flags=np.array([0, 0, 1, 0], np.uint8),
    )
    found = features(one, ())
    bm25 = 3 * 2 * (K1 + 1) / (2 + K1)
    np.testing.assert_allclose(found["words"], [bm25 / 4, 0], rtol=1e-6)
    np.testing.assert_allclose(found["window"], [(3 + 0.6 * 1) / 4, 0.4 * 1 / 4], rtol=1e-6)
    np.testing.assert_allclose(found["segment"], found["words"])
    assert found["answer"].tolist() == [1, 0]


def test_a_segment_that_is_wholly_matched_counts_in_full():
    one = pool(1, 2)._replace(
        counts=np.array([[1, 0], [0, 0]], np.float32),
        idf=np.array([1, 3], np.float32),
        segments=np.array([[1, 0], [0, 1]], bool),
    )
    found = features(one, ())
    np.testing.assert_allclose(found["segment"], 4 * found["words"], rtol=1e-6)


@pytest.mark.parametrize(
    ("channel", "shown", "want"),
    [
        ("recounted", lambda of, rows: of.roles[of.author[rows]] & ASSISTANT, Want.ASSISTANT),
        ("summed_up", lambda of, rows: of.roles[of.author[rows]] & ASSISTANT, Want.SUMMARY),
        ("dated", lambda of, rows: of.dated[rows], Want.TIME),
        ("instruction", lambda of, rows: of.flags[rows] & Sign.INSTRUCTION, Want.REQUEST),
        ("preference", lambda of, rows: of.flags[rows] & Sign.PREFERENCE, Want.REQUEST),
    ],
)
def test_flags_count_only_where_the_query_wants_them(channel, shown, want):
    some = pool(12, 2)
    expected = shown(some, some.rows[some.here]) > 0
    assert expected.any()
    np.testing.assert_array_equal(features(some, {want})[channel], expected)
    assert not features(some, set(Want) - {want})[channel].any()


def test_an_author_is_what_he_is_to_the_query():
    some = pool(12, 2)
    roles = some.roles[some.author[some.rows[some.here]]]
    found = features(some, ())
    np.testing.assert_array_equal(found["author"], (roles & NAMED) > 0)
    np.testing.assert_array_equal(found["user"], (roles & USER) > 0)


def test_the_lines_of_the_table_are_the_channels():
    assert [feature.name.lower() for feature in Feature] == list(CHANNELS)


def test_no_word_and_no_meaning_counts_against_a_row():
    for weights in (Weights(), fusion.LEXICAL_WEIGHTS):
        assert all(getattr(weights, name) >= 0 for name in CHANNELS if name != "length")


def test_a_lone_good_row_is_likely_and_a_lone_bad_one_is_not():
    found = features(pool(1, 1)._replace(passage=np.array([0.6], np.float32)), ())
    assert relevance(found, np.array([16.0], np.float32), Calibration())[0] > 0.9
    assert relevance(found, np.array([3.0], np.float32), Calibration())[0] < fusion.UNLIKELY


def test_nearness():
    said = np.array([0.0, 10.0, 12.0, 20.0, np.nan])
    near = nearness(said, [(10.0, 17.0)])
    np.testing.assert_allclose(near, [np.exp(-10 / 1.75), 1, 1, np.exp(-3 / 1.75), 0], rtol=1e-5)
    assert not nearness(said, []).any()
    np.testing.assert_array_equal(nearness(said, [(10, 17), (0, 1)]) == 1, [True, True, True, False, False])


# --- reading a query ---


def test_wrapping_is_taken_off():
    query = analyse(
        "Can you list the order in which I brought up different aspects of developing my budget tracker throughout our "
        "conversations, in order? Mention ONLY and ONLY three items."
    )
    assert query.focus == "developing my budget tracker"
    assert query.tokens == ("develop", "budget", "tracker")
    assert query.wants == {Want.ORDER}


def test_one_named_author_speaks_in_the_first_person():
    query = analyse("What did Mel and her kids paint in July?", ["Caroline", "Melanie"])
    assert query.authors == {"Melanie"}
    assert query.spoken == "What did I and my kids paint in July"
    assert query.tokens == ("kid", "paint", "juli")
    assert analyse("What is Caroline's job?", ["Caroline", "Melanie"]).spoken == "What is my job"
    both = analyse("What do Jon and Gina share?", ["Jon", "Gina"])
    assert both.authors == {"Jon", "Gina"} and both.spoken == "What do Jon and Gina share"
    assert analyse("And what then?", ["Andrew"]).authors == frozenset()


def test_parts_become_segments():
    query = analyse("How much did I pay for the designer handbag and the skincare products?")
    assert query.segments == (("pai", "design", "handbag"), ("skincar", "product"))
    assert analyse("What colour is the wall?").segments == ()


@pytest.mark.parametrize(
    ("text", "wants"),
    [
        ("When did I buy the smoker?", {Want.TIME}),
        ("How many weeks did it take?", {Want.TIME}),
        ("Could you show me how to implement a login feature?", {Want.REQUEST}),
        ("I'm planning a trip to Denver soon. Any suggestions?", {Want.REQUEST}),
        ("Can you give me a summary of my project so far?", {Want.SUMMARY}),
        ("Can you remind me what you recommended?", {Want.ASSISTANT}),
        ("How many sessions did I mention across my conversations?", set()),
        ("What degree did I graduate with?", set()),
    ],
)
def test_wants(text, wants):
    assert analyse(text).wants == wants


@given(st.text(max_size=80), st.lists(st.text(max_size=8), max_size=3))
def test_any_text_can_be_asked(text, authors):
    query = analyse(text, authors)
    assert query.authors <= set(authors)
    assert len(set(query.tokens)) == len(query.tokens)
    assert all(set(segment) <= set(query.tokens) for segment in query.segments)


def test_a_query_of_nothing_but_question_words_still_has_words():
    assert analyse("who is who?").tokens
    assert analyse("Caroline?", ["Caroline"]).tokens == ("carolin",)


# --- passages and standing rules ---


@given(st.text(alphabet="ab .!?\n", max_size=600))
def test_passages_keep_every_word_in_order(text):
    cut = passages(text)
    assert " ".join(cut).split() == text.split()
    if len(text.split()) <= WHOLE_WORDS:
        assert cut == [text]
    else:
        assert all(0 < len(part.split()) <= PASSAGE_WORDS for part in cut)


def test_passages_break_at_sentences():
    first, second = "one " * 25 + "stop.", "By the way, I moved to Lisbon in May. " + "two " * 20
    assert passages(f"{first} {second}")[0] == first.strip()


def test_standing_rules():
    assert is_instruction("Always include version numbers when I ask about libraries.")
    assert is_instruction("From now on, answer in German.")
    assert not is_instruction("I always walk to work.")
    assert not is_instruction("Always " + "x" * 600)
    assert is_preference("I'm building an app and I'd rather use plain CSS.")
    assert is_preference("I prefer simple, minimal dependencies")
    assert not is_preference("What is the preferred way?")


# --- the whole pipeline ---


def test_the_answer_after_the_question_is_found_by_the_words_of_the_question():
    lines = [
        ("Ana", "Which instrument did you take up as a child?"),
        ("Ben", "The clarinet, and I still have it."),
        ("Ana", "I had soup for lunch."),
        ("Ben", "Sounds good to me."),
    ]
    turns = tuple(Turn(str(i), name, "user", text, "s") for i, (name, text) in enumerate(lines))
    question = Question("q", "Which instrument did Ben take up as a child?", "1", ("1",))
    talk = Conversation("c", turns, (question,))
    ranking = reference.rank(reference.prepare(talk, None), question, None, 4)
    at = ranking.ids.index("1")
    assert at < 2  # only the question itself, which holds all the words, may stand before its answer
    assert ranking.parts["window"][at] > 0 and ranking.parts["author"][at] > 0 and ranking.parts["answer"][at] > 0
    assert ranking.parts["best_words"][at] == 0


def recalls(talk: Conversation, measure) -> list[float]:
    prepared = reference.prepare(talk, None)
    return [
        measure(reference.rank(prepared, question, None, 10).ids, set(question.evidence), 10)
        for question in talk.questions
        if question.evidence and not question.abstain
    ]


def test_without_any_vector_the_recipe_beats_bm25_on_held_out_conversations():
    if not (DATA / "locomo").is_dir():
        pytest.skip("no locomo data here: set HOLDFAST_DATA to the folder that holds it")
    talks = [talk for talk in load_locomo(DATA / "locomo") if talk.id in ("conv-44", "conv-50")]
    found = [value for talk in talks for value in recalls(talk, metrics.recall)]
    assert np.mean(found) >= 0.70  # BM25 over all ten conversations: 0.633


def test_without_any_vector_the_recipe_beats_bm25_on_the_evidence_pool():
    if not (DATA / "longmemeval").is_dir():
        pytest.skip("no longmemeval data here: set HOLDFAST_DATA to the folder that holds it")
    (talk,) = load_longmemeval(DATA / "longmemeval")
    some = replace(talk, questions=talk.questions[::3])
    assert np.mean(recalls(some, metrics.recall_all)) >= 0.75  # of all questions BM25 answers 0.728
