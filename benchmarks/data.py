"""The same data for every engine: texts from a Zipf vocabulary, clustered unit vectors, queries with exact answers.

Generated once from a seed into a folder, then read by every engine's process. Vectors are given, so no embedder's speed
is mixed into a store's. There is no stop list in it: the commonest word stands in four of five texts, which is hard on
lexical search and is meant to be.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

DIMENSION = 384
VOCABULARY = 60_000
WORDS = (8, 30)
QUERIES = 300
EXTRA = 2_000
K = 10
_NOISE = 0.65  # the true top ten of 100,000 then have a mean cosine of about 0.73, as sentences of one topic do
_BLOCK = 20_000


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows to store: numbers, scopes and texts, and vectors of shape (len(numbers), 384)."""

    numbers: range
    scopes: Ints
    texts: list[str]
    vectors: Floats


@dataclass(frozen=True, slots=True)
class Query:
    """A question to one scope, with the row numbers of its exact ten nearest there."""

    scope: int
    text: str
    vector: Floats
    truth: frozenset[int]


class Data:
    """One data set on disk: ``rows`` rows in ``scopes`` scopes of equal size, in order of scope."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        about = json.loads((folder / "about.json").read_text())
        self.rows: int = about["rows"]
        self.scopes: int = about["scopes"]
        self.seed: int = about["seed"]
        self.postings: float = about["postings"]  # of a query's words in its scope, on the average
        self.vectors: Floats = np.load(folder / "vectors.npy", mmap_mode="r")

    def batches(self, size: int = 10_000) -> Iterator[Batch]:
        """All rows, in order."""
        with (self.folder / "texts.txt").open(encoding="ascii") as lines:
            for start in range(0, self.rows, size):
                numbers = range(start, min(start + size, self.rows))
                texts = [next(lines).rstrip("\n") for _ in numbers]
                yield Batch(numbers, self.scope_of(np.asarray(numbers)), texts, self.vectors[start : numbers.stop])

    def extra(self) -> Batch:
        """Rows beyond the stored ones, far from every query, for timing single adds."""
        numbers = range(self.rows, self.rows + EXTRA)
        texts = (self.folder / "extra.txt").read_text().splitlines()
        return Batch(numbers, self.scope_of(np.asarray(numbers) % self.rows), texts, np.load(self.folder / "extra.npy"))

    def queries(self) -> list[Query]:
        """The questions, with their exact answers."""
        vectors = np.load(self.folder / "queries.npy")
        records = json.loads((self.folder / "queries.json").read_text())
        return [
            Query(scope, text, vector, frozenset(truth))
            for (scope, text, truth), vector in zip(records, vectors, strict=True)
        ]

    def scope_of(self, numbers: Ints) -> Ints:
        """The scope of each row."""
        return numbers * self.scopes // self.rows


class Lookup:
    """The given vector of a text: what stands in for an embedder. What it knows of stored texts is read when needed."""

    def __init__(self, data: Data, queries: Sequence[Query] = ()) -> None:
        self._data = data
        self._few = {query.text: query.vector for query in queries}

    def __call__(self, texts: Sequence[str]) -> Floats:
        """Vectors of shape (len(texts), 384). Raises KeyError for a text that is not of this data set."""
        return np.asarray([self._few[text] if text in self._few else self._stored(text) for text in texts], np.float32)

    def _stored(self, text: str) -> Floats:
        if text in self._extra:
            return self._extra[text]
        wanted = text_hash(text)
        hashes, order = self._hashes
        at = int(np.searchsorted(hashes, wanted))
        if at == len(hashes) or hashes[at] != wanted:
            raise KeyError(f"no vector is given for {text!r}")
        vector: Floats = self._data.vectors[order[at]]
        return vector

    @cached_property
    def _extra(self) -> dict[str, Floats]:
        extra = self._data.extra()
        return dict(zip(extra.texts, extra.vectors, strict=True))

    @cached_property
    def _hashes(self) -> tuple[npt.NDArray[np.uint64], Ints]:
        hashes = np.load(self._data.folder / "hashes.npy")
        order = np.argsort(hashes)
        return hashes[order], order


def text_hash(text: str) -> np.uint64:
    """64 bits of a text."""
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()))


def generate(folder: Path, rows: int, scopes: int, seed: int) -> Data:
    """Make a data set, or open it where it was made before with the same numbers."""
    about = folder / "about.json"
    wanted = {"rows": rows, "scopes": scopes, "seed": seed, "version": 2}
    if about.exists() and json.loads(about.read_text()).items() >= wanted.items():
        return Data(folder)
    folder.mkdir(parents=True, exist_ok=True)
    words = _vocabulary()
    texts = np.random.default_rng([seed, 1])
    hashes = np.empty(rows, np.uint64)
    with (folder / "texts.txt").open("w", encoding="ascii") as out:
        for start in range(0, rows, _BLOCK):
            some = _texts(texts, words, min(_BLOCK, rows - start))
            hashes[start : start + len(some)] = [text_hash(text) for text in some]
            out.writelines(f"{text}\n" for text in some)
    np.save(folder / "hashes.npy", hashes)
    (folder / "extra.txt").write_text("\n".join(_texts(texts, words, EXTRA)))

    centres = _gaussian(np.random.default_rng([seed, 2]), max(10, rows // 100))
    clusters = np.random.default_rng([seed, 3]).integers(len(centres), size=rows)
    noise = np.random.default_rng([seed, 4])
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (rows, DIMENSION))
    for start in range(0, rows, _BLOCK):
        stop = min(start + _BLOCK, rows)
        vectors[start:stop] = _unit(centres[clusters[start:stop]] + _NOISE * _gaussian(noise, stop - start))
    vectors.flush()
    np.save(folder / "extra.npy", _unit(_gaussian(np.random.default_rng([seed, 5]), EXTRA)))

    asked = np.random.default_rng([seed, 6])
    rows_asked = asked.choice(rows, size=min(QUERIES, rows), replace=False)
    questions = _unit(centres[clusters[rows_asked]] + _NOISE * _gaussian(asked, len(rows_asked)))
    words_asked, postings = _words_of(folder / "texts.txt", rows_asked.tolist(), asked)
    asked_scopes = (rows_asked * scopes // rows).tolist()
    truth = _nearest(vectors, questions, asked_scopes, scopes).tolist()
    np.save(folder / "queries.npy", questions)
    (folder / "queries.json").write_text(json.dumps(list(zip(asked_scopes, words_asked, truth, strict=True))))
    about.write_text(json.dumps(wanted | {"postings": postings / scopes}))
    return Data(folder)


def _words_of(file: Path, rows: list[int], random: np.random.Generator) -> tuple[list[str], float]:
    """Four words of each of these rows; and in how many rows of the file the words of a query stand, on the average."""
    wanted = set(rows)
    held: dict[int, list[str]] = {}
    frequency: Counter[str] = Counter()
    with file.open(encoding="ascii") as lines:
        for number, line in enumerate(lines):
            words = set(line.split())
            frequency.update(words)
            if number in wanted:
                held[number] = sorted(words)
    chosen = [random.choice(held[number], size=4, replace=False).tolist() for number in rows]
    postings = sum(frequency[word] for words in chosen for word in words) / len(chosen)
    return [" ".join(words) for words in chosen], postings


def _nearest(stored: Floats, vectors: Floats, asked_scopes: list[int], scopes: int) -> Ints:
    """The exact K nearest of each query in its scope."""
    if scopes > 1:
        size = len(stored) // scopes
        rows = [slice(scope * size, (scope + 1) * size) for scope in asked_scopes]
        near = [np.argsort(-(stored[part] @ vector))[:K] for part, vector in zip(rows, vectors, strict=True)]
        return np.asarray([part.start + found for part, found in zip(rows, near, strict=True)])
    numbers = np.empty((len(vectors), 0), np.int64)
    scores = np.empty((len(vectors), 0), np.float32)
    for start in range(0, len(stored), _BLOCK):
        block = vectors @ stored[start : start + _BLOCK].T
        scores = np.concatenate((scores, block), axis=1)
        here = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
        numbers = np.concatenate((numbers, here), axis=1)
        keep = np.argpartition(-scores, K - 1, axis=1)[:, :K]
        scores, numbers = np.take_along_axis(scores, keep, 1), np.take_along_axis(numbers, keep, 1)
    return numbers


def _vocabulary() -> npt.NDArray[np.str_]:
    """Made-up words, the commonest shortest."""
    syllables = [consonant + vowel for consonant in "bcdfghjklmnprstvwxyz" for vowel in "aeiou"]
    pairs = [first + second for first in syllables for second in syllables]
    return np.asarray([*pairs, *(pair + third for third in syllables[:5] for pair in pairs)][:VOCABULARY])


def _texts(random: np.random.Generator, words: npt.NDArray[np.str_], count: int) -> list[str]:
    weights = 1.0 / np.arange(1, len(words) + 1)
    ends = np.cumsum(random.integers(WORDS[0], WORDS[1] + 1, size=count))
    bounds = np.cumsum(weights / weights.sum())
    drawn = np.minimum(np.searchsorted(bounds, random.random(int(ends[-1]))), len(words) - 1)
    spoken = words[drawn].tolist()
    return [" ".join(spoken[start:end]) for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)]


def _gaussian(random: np.random.Generator, count: int) -> Floats:
    return random.standard_normal((count, DIMENSION), np.float32) / np.float32(np.sqrt(DIMENSION))


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
