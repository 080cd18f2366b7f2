"""One additive score from named channels over a pool of candidates, and the chance that a candidate answers.

A linear model over a few features: every term is a channel's contribution, so a score explains itself. Reciprocal-rank fusion
throws the scores away and measured worse than BM25 alone; here BM25 enters as a share of the most that the query's words
could give, cosines as they are. A row is judged beside its neighbours: the words of a question that stand in the turn before
count for the answer (``window``), and a session that holds one good turn lifts its others.

The pool
    the best ``POOL`` visible rows by BM25 over ``Query.tokens``, the best ``POOL`` by cosine with the embedded
    ``Query.spoken``, the best ``POOL`` by activation over names (``entities``), the previous and next turns of all these, and,
    where the query is a request, every visible row that is a standing instruction or a preference. All features are over this
    pool.

The constants were fitted by a listwise softmax (mean over a question's evidence of -log of its share against all other rows),
L2 0.01 on standardised weights, the three benchmarks weighing the same, on LoCoMo conv-26 and conv-30, the 50 LongMemEval
dev questions and BEAM 100K chats 1 to 5 only. ``bench/reference.py`` computes the features in the plainest way, and
``bench/fit.py`` fits the constants again.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from holdfast.retrieve.loops import Loops, plain
from holdfast.retrieve.pool import Feature, Pool
from holdfast.retrieve.query import Want

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.integer]

POOL = 100
"""How many candidates the lexical and the dense channel each bring."""

TURN, ASKED = 1.5, 4.0
"""Time fades by e in max(TURN days, length of the span asked for / ASKED) outside that span."""

BEST = 10
"""So many rows a chance is judged against."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What one unit of each channel adds to the score. The defaults were fitted on the dev part with MiniLM vectors.

    ``words`` beside its relatives was fitted below zero (``best_words``, ``window`` and ``segment`` say the same better); it is
    held at zero, so that no shared word ever counts against a row: LoCoMo -0.001, LongMemEval -0.002, BEAM +0.009.
    ``entities`` came later: on the dev part any weight up to 2 moves no benchmark by more than 0.005, for a name is a word too;
    it is there for what is reached over other names, which none of the three asks for.
    """

    words: float = 0.0
    best_words: float = 0.62
    session_words: float = 2.89
    window: float = 2.46
    segment: float = 0.45
    meaning: float = 0.45
    passage: float = 5.82
    meaning_after: float = 1.02
    session_meaning: float = 4.6
    entities: float = 1.0
    author: float = 2.83
    user: float = 2.66
    recounted: float = 3.89
    summed_up: float = 3.34
    length: float = -2.74
    answer: float = 0.41
    dated: float = 1.94
    instruction: float = 3.72
    preference: float = 2.88
    time: float = 4.57


WEIGHTS = Weights()

CHANNELS: tuple[str, ...] = tuple(field.name for field in fields(Weights))


@dataclass(frozen=True, slots=True)
class Features:
    """The channels of n candidates, ``found["words"]`` and so on, shape (n,) each; ``Weights`` has the same names.

    Channels
        words: BM25 as a share of the sum of the query's idf, between 0 and ``pool.K1`` + 1.
        best_words: ``words`` divided by its largest value in the pool.
        session_words: the largest ``words`` in the row's session.
        window: the share of the query's idf whose tokens stand in the row (1), the turn before (0.6) or after (0.4).
        segment: the largest BM25 share of any one segment; ``words`` where there are no segments.
        meaning, passage, meaning_after: the cosines of ``pool.Pool``; session_meaning: the largest ``meaning`` in the session.
        entities: that of ``pool.Pool``.
        author: 1 where the row is by the one named author.
        user: 1 for a user's row in a chat with an assistant.
        recounted: 1 for an assistant's row, where the query asks what the assistant said.
        summed_up: 1 for an assistant's row, where the query asks for a summary.
        length: ln(1 + tokens) / 5.
        answer: 1 where the turn before holds a question.
        dated: 1 where the row holds a time expression and the query asks when.
        instruction, preference: 1 for such a row where the query is a request.
        time: how near the row is to a time that the query names, between 0 and 1.
    """

    table: Floats
    """All of them, shape (channels, n), in the order of ``CHANNELS``: a score is one product."""

    def __getitem__(self, channel: str) -> Floats:
        found: Floats = self.table[CHANNELS.index(channel)]
        return found


LEXICAL_WEIGHTS = Weights(
    words=0.0,
    best_words=2.17,
    session_words=4.68,
    window=2.34,
    segment=1.3,
    meaning=0.0,
    passage=0.0,
    meaning_after=0.0,
    session_meaning=0.0,
    entities=1.0,
    author=2.66,
    user=2.74,
    recounted=4.2,
    summed_up=3.48,
    length=-3.4,
    answer=0.43,
    dated=1.86,
    instruction=4.02,
    preference=2.92,
    time=3.9,
)
"""The same fit without the four channels of meaning: for a scope that has no vectors. ``entities`` at 1 adds 0.001 to 0.002 of
nDCG@10 to the dev parts, and 0.000 to 0.004 to the held-out ones."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How scores become chances: the chance is 1 / (1 + exp(-(bias + lead * l + passage * p))).

    l is a row's score less the mean of the ten best, p its passage cosine. ``nothing`` is the score of a row that has nothing
    to do with the query (the median over the pools of the dev part); it stands in where fewer than ten rows were found.
    Fitted by logistic regression over the ten best rows of every dev question, those without an answer included.
    """

    lead: float = 0.73
    passage: float = 1.57
    bias: float = -3.13
    nothing: float = 3.9


CALIBRATION = Calibration()

LEXICAL_CALIBRATION = Calibration(lead=0.94, passage=0.0, bias=-2.58, nothing=1.2)
"""For ``LEXICAL_WEIGHTS``."""

UNLIKELY = 0.15
"""Under this chance for its best row a search should say that it found nothing. On held-out questions it withholds 0 to 5 % of
right first hits, but catches few questions that have no answer (8 to 14 %): what those ask about is mostly spoken of."""


def features(pool: Pool, wants: Collection[Want], loops: Loops | None = None) -> Features:
    """The channels of every candidate. Costs O(n·t); nothing here looks beyond the pool."""
    return Features((loops or plain()).channels(pool, _counted(frozenset(wants))))


@functools.lru_cache(maxsize=64)
def _counted(wants: frozenset[Want]) -> Bools:
    counted = np.ones(len(CHANNELS), np.bool_)
    for want, channels in _ONLY.items():
        counted[channels] = want in wants
    return counted


_ONLY = {
    Want.ASSISTANT: [Feature.RECOUNTED],
    Want.SUMMARY: [Feature.SUMMED_UP],
    Want.TIME: [Feature.DATED],
    Want.REQUEST: [Feature.INSTRUCTION, Feature.PREFERENCE],
}
"""The channels that count only where a query is after something."""


def fuse(found: Features, weights: Weights) -> Floats:
    """The scores, shape (n,)."""
    scores: Floats = _vector(weights) @ found.table
    return scores


def contributions(found: Features, weights: Weights, at: Ints) -> Floats:
    """What each of ``CHANNELS`` adds to the scores of some candidates, shape (len(at), channels); a row sums to its score."""
    parts: Floats = found.table[:, at].T * _vector(weights)
    return parts


@functools.lru_cache(maxsize=64)
def _vector(weights: Weights) -> Floats:
    return np.asarray([getattr(weights, name) for name in CHANNELS], np.float32)


def relevance(found: Features, scores: Floats, calibration: Calibration, at: Ints | slice = slice(None)) -> Floats:
    """The chance, between 0 and 1, that each candidate is evidence for an answer, or some are; shape (n,)."""
    best = np.partition(scores, -BEST)[-BEST:] if len(scores) > BEST else scores
    mean = (best.sum() + calibration.nothing * (BEST - len(best))) / BEST
    logit = calibration.bias + calibration.lead * (scores[at] - mean) + calibration.passage * found["passage"][at]
    chance: Floats = (1 / (1 + np.exp(-logit))).astype(np.float32)
    return chance


def nearness(said: npt.NDArray[np.float64], spans: Sequence[tuple[float, float]]) -> Floats:
    """How near times are to any of the half-open spans [first, last), between 0 and 1; all in days since 1970.

    1 inside a span, falling by e outside it in the longer of 1.5 days and a quarter of the span. A row without a time (NaN)
    and a query without spans give 0.
    """
    near = np.zeros(len(said))
    for first, last in spans:
        gap = np.maximum(np.maximum(first - said, said - last), 0.0)
        near = np.fmax(near, np.exp(-gap / max(TURN, (last - first) / ASKED)))
    return near.astype(np.float32)
