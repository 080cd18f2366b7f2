"""The candidates of a search: what is known of them, and which channels ``Loops.channels`` makes of it.

The columns are the whole scope's. What a channel needs of them is looked up where it is computed, and nothing is copied.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.retrieve.arrays import Floats, Rows

K1, B = 0.3, 0.4
"""BM25 saturation and length normalisation inside the fused score. Of four pairs tried on dev, none lay more than 0.01 of loss
from another; with this one the words need no weight below zero."""

BEFORE, AFTER = np.float32(0.6), np.float32(0.4)
"""What a word in the turn before or after counts, beside 1 in the turn itself."""

NAMED, USER, ASSISTANT = 1, 2, 4
"""What an author is to a query: the one whom it names, the user or the assistant of a chat with an assistant."""

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]


class Feature(IntEnum):
    """The lines of ``fusion.Features.table``; the names are those of ``fusion.CHANNELS``."""

    WORDS = 0
    BEST_WORDS = 1
    SESSION_WORDS = 2
    WINDOW = 3
    SEGMENT = 4
    MEANING = 5
    PASSAGE = 6
    MEANING_AFTER = 7
    SESSION_MEANING = 8
    ENTITIES = 9
    AUTHOR = 10
    USER = 11
    RECOUNTED = 12
    SUMMED_UP = 13
    LENGTH = 14
    ANSWER = 15
    DATED = 16
    INSTRUCTION = 17
    PREFERENCE = 18
    TIME = 19


class Pool(NamedTuple):
    """What is known of n candidates in a scope of N rows, for a query of t tokens in s segments.

    Fields
        rows: the m rows that were looked up (m,): the candidates, the turns before and after them in the same session, and -1.
        here, before, after: which of these m are the candidates and the turns beside them (n,); where there is none, that of -1.
        counts: how often each token stands in each of the m, shape (t, m): a row of the table a token, as numpy is fastest;
            nothing stands in -1.
        idf: ln(1 + (N - df + 0.5) / (df + 0.5)) of each token in the scope (t,), also for absent tokens (df = 0), so that a
            query whose rare word is nowhere cannot look well answered.
        segments: which tokens belong to each segment (s, t); s may be 0.
        cosine: of the row's vector with the embedded ``Query.spoken`` (n,); passage: the same for the row's best passage
            (the row itself where it is short); cosine_after: that of the next turn in the session, 0 where there is none.
            All zeros without an embedder.
        entities: how far the names of the query lead to the row (n,), zeros where it names nobody else than authors.
        time: ``nearness`` of the row's time to the times that the query names (n,), zeros where it names none.
        lengths: tokens of each row of the scope (N,); mean_length: their mean.
        session: a small number that rows of one session share, 0 or more (N,).
        author: a small number for the author (N,); roles: what each of them is to the query, of NAMED, USER and ASSISTANT.
        flags: ``signs.Sign`` of each row (N,).
        dated: which rows hold a time expression (N,).
    """

    rows: Rows
    here: Rows
    before: Rows
    after: Rows
    counts: Floats
    idf: Floats
    segments: Bools
    cosine: Floats
    passage: Floats
    cosine_after: Floats
    entities: Floats
    time: Floats
    lengths: Floats
    mean_length: float
    session: npt.NDArray[np.int32]
    author: npt.NDArray[np.int32]
    roles: Bytes
    flags: Bytes
    dated: Bools
