"""A word has one stem, whichever library finds it and however many threads ask."""

from __future__ import annotations

import random
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import snowballstemmer
from hypothesis import given
from hypothesis import strategies as st
from snowballstemmer.porter_stemmer import PorterStemmer

from holdfast.retrieve import text

ENDINGS = ["", "s", "ies", "ing", "ed", "eed", "ations", "ational", "iveness", "ousli", "ly", "y", "e", "bled", "ion"]
words = st.builds(str.__add__, st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=9), st.sampled_from(ENDINGS))


def test_threads_do_not_mix_their_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snowballstemmer, "stemmer", lambda _: PorterStemmer())  # as where PyStemmer is not installed
    monkeypatch.setattr(text, "_stemmer", text._Stemmer())
    rng = random.Random(0)
    said = ["".join(rng.choices(["ba", "ce", "du", "fi"], k=3)) + rng.choice(ENDINGS) for _ in range(400)]
    expected = [PorterStemmer().stemWord(word) for word in said]
    monkeypatch.setattr(text, "_stem", text._stem.__wrapped__)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _: [text.stem(word) for word in said], range(4)):
                assert found == expected
    finally:
        sys.setswitchinterval(before)


@given(words)
def test_the_compiled_library_finds_the_same_stems(word: str) -> None:
    # What one process has stored by the one, another looks up by the other.
    compiled = pytest.importorskip("Stemmer", reason="the extra fast is not installed")
    assert compiled.Stemmer("porter").stemWord(word) == PorterStemmer().stemWord(word)
