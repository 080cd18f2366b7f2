"""Likeness by words from the index is what a plain count over the texts gives, and what may not be seen has no part in it."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import Cube, Memory
from holdfast.cube import Channel, Kind, Origin, Scope
from holdfast.retrieve import vectors
from holdfast.retrieve.base import MOST, Near, passing
from holdfast.retrieve.hits import Hit
from holdfast.retrieve.likeness import ALL, Mixed, Overlap, Words
from holdfast.retrieve.text import tokens
from support import MEMORY, HashEmbedder

HERE = Scope("default", "ana", "cook")
WORDS = [f"word{letter}" for letter in "abcdefghij"]
text = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)


def near(memory: Memory) -> Near:
    return lambda text, kinds, many, by: memory.nearest(text, k=many, kinds=kinds, by=by)


def plain(query: str, texts: list[str]) -> tuple[list[float], list[float]]:
    """The cosine and the overlap of each text, word by word."""
    counts = [Counter(tokens(f"cook {one}")) for one in texts]
    asked = {
        word: n * (1 + math.log((1 + len(texts)) / (1 + sum(word in one for one in counts))))
        for word, n in Counter(tokens(query)).items()
    }
    cosines = []
    for one in counts:
        dot = sum(weight * one[word] for word, weight in asked.items())
        cosines.append(dot / (math.hypot(*asked.values()) * math.hypot(*one.values())))
    return cosines, [len(set(one) & set(asked)) / len(asked) for one in counts]


@settings(deadline=None, max_examples=25)
@given(st.lists(text, min_size=1, max_size=20, unique=True), text, st.lists(text, max_size=5), st.integers(1, 20))
def test_the_index_gives_what_a_plain_count_gives(texts: list[str], query: str, others: list[str], k: int) -> None:
    with (
        TemporaryDirectory(dir=MEMORY) as folder,
        Memory(folder, user="ana", agent="cook", embedder=HashEmbedder(), encoders=(), background=False) as memory,
    ):
        origin = Origin(Channel.ASSISTANT, "cook")
        cubes = [Cube(HERE, one, Kind.EXPERIENCE, origin=origin) for one in texts]
        memory.add([*cubes, *(Cube(HERE, one, Kind.DOCUMENT, origin=origin) for one in others)])
        half = memory.add([Cube(HERE, f"gone {one}", Kind.EXPERIENCE, origin=origin) for one in others])
        for id in half.ids:  # what is out of recall must not count among the rare words' holders
            memory.retract(id)
        memory.flush()
        cosines, overlaps = plain(query, texts)
        meaning = {hit.text: hit.relevance for hit in memory.nearest(query, k=50, kinds=(Kind.EXPERIENCE,))}
        mixed = [0.3 * words + 0.7 * meaning[one] for words, one in zip(cosines, texts, strict=True)]
        for ranker, scores in ((Words(), cosines), (Overlap(), overlaps), (Mixed(0.3), mixed)):
            found = ranker.seek(query, (Kind.EXPERIENCE,), k, near(memory))
            expected = dict(zip(texts, scores, strict=True))
            given = {hit.text: hit.score for hit in found}
            assert given == pytest.approx({one: expected[one] for one in given}, abs=1e-5)
            best = sorted((score for score in scores if score > 0 or isinstance(ranker, Mixed)), reverse=True)[:k]
            assert sorted(given.values(), reverse=True) == pytest.approx(best, abs=1e-5)
        listed = near(memory)(query, (Kind.EXPERIENCE,), k, ALL)
        assert [hit.score for hit in listed] == pytest.approx(sorted(cosines, reverse=True)[:k], abs=1e-5), "or 0"


def test_among_too_many_to_compare_hardly_one_of_the_best_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = Random(1)
    texts, queries = (
        [" ".join(drawn.choices([f"w{n}" for n in range(300)], k=8)) for _ in range(many)] for many in (2_500, 8)
    )
    found = []
    for exact in (10_000, 50):
        monkeypatch.setattr(vectors, "EXACT_ROWS", exact)
        with Memory(
            tmp_path, user="ana", agent="cook", embedder=HashEmbedder(), encoders=(), background=False, guard=None
        ) as memory:
            if not found:
                memory.add([Cube(HERE, one, origin=Origin(Channel.ASSISTANT, "cook")) for one in texts])
                memory.flush()
            found.append([{hit.id for hit in Mixed(0.5).seek(query, (), 200, near(memory))} for query in queries])
    missed = [len(best - some) for best, some in zip(*found, strict=True)]
    assert sum(missed) <= 0.01 * 200 * len(queries)


def test_what_does_not_pass_is_looked_past_as_far_as_the_limit() -> None:
    hits = [Hit(Cube(HERE, f"n{n}"), float(-n), 0.0) for n in range(3 * MOST)]
    asked: list[int] = []

    def find(many: int) -> list[Hit]:
        asked.append(many)
        return hits[:many]

    tenth = passing(find, 3, lambda hit: int(hit.text[1:]) % 10 == 9)
    assert [hit.text for hit in tenth] == ["n9", "n19", "n29"]
    assert asked == [3, 12, 48]
    asked.clear()
    assert passing(find, 3, lambda _: False) == []
    assert asked[-1] == MOST
    assert passing(lambda many: hits[:many][:5], 4, lambda hit: hit.text == "n4") == [hits[4]]


def test_words_find_a_record_by_meaning_where_it_has_no_vector_yet(tmp_path: Path) -> None:
    with Memory(tmp_path, user="ana", embedder=HashEmbedder(), encoders=(), background=False) as memory:
        memory.add("the lamp in the hall")
        memory.flush()
        memory.add("the lamp in the attic")
        found = Mixed(0.0).seek("attic lamp", (), 2, near(memory))
        assert [hit.text for hit in found] == ["the lamp in the attic", "the lamp in the hall"]


def test_what_comes_after_the_first_question_counts_as_if_it_had_been_there(tmp_path: Path) -> None:
    texts = [" ".join([word] * (1 + at % 3) + WORDS[at : at + 2]) for at, word in enumerate(WORDS)]
    scores = []
    for asked_before in (False, True):
        with Memory(tmp_path / str(asked_before), user="ana", embedder=None, encoders=(), background=False) as memory:
            for at, one in enumerate(texts):
                memory.add(one, kind=Kind.DOCUMENT)
                if asked_before and at % 2:
                    assert Words().seek(one, (), 1, near(memory))[0].text == one
            found = Words().seek(" ".join(WORDS[2:5]), (), len(texts), near(memory))
            scores.append({hit.text: hit.score for hit in found})
    assert scores[0] == pytest.approx(scores[1]) and len(scores[0]) > 3
