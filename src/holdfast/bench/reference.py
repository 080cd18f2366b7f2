"""The retrieval recipe in its plainest form, over one conversation held in memory: the oracle for the real index.

Nothing is incremental and nothing is approximate: token counts are a dense matrix, vectors are scanned in full. It serves
tests (the real search must rank as this does), the fit of ``fusion.Weights``, and ablations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.bench.data import Conversation, Question, Turn
from holdfast.encode.dates import find_dates
from holdfast.encode.people import find_names
from holdfast.retrieve import fusion
from holdfast.retrieve.entities import DECAY, HOPS, LEAST
from holdfast.retrieve.fusion import (
    LEXICAL_CALIBRATION,
    LEXICAL_WEIGHTS,
    Calibration,
    Features,
    Weights,
)
from holdfast.retrieve.passages import passages
from holdfast.retrieve.pool import ASSISTANT, NAMED, USER, Pool
from holdfast.retrieve.query import Query, Want, analyse
from holdfast.retrieve.signs import Sign
from holdfast.retrieve.standing import is_instruction, is_preference
from holdfast.retrieve.text import tokens

Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]
ROLES = frozenset({"user", "assistant", "system", "tool"})

K1, B = 1.5, 0.75
"""BM25 of the first stage, which only chooses the pool."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A conversation with everything about its n turns that does not depend on a query; v distinct tokens, p passages."""

    conversation: Conversation
    authors: frozenset[str]
    vocabulary: dict[str, int]
    counts: npt.NDArray[np.float32]  # (n, v)
    idf: npt.NDArray[np.float32]  # (v,)
    absent_idf: float
    vectors: npt.NDArray[np.float32] | None  # (n, d)
    passage_vectors: npt.NDArray[np.float32] | None  # (p, d)
    passage_rows: npt.NDArray[np.int64]  # (p,)
    session: npt.NDArray[np.int32]
    before: npt.NDArray[np.int64]  # row of the turn before in the session, -1
    after: npt.NDArray[np.int64]
    said: npt.NDArray[np.float64]  # days since 1970, NaN
    dated: npt.NDArray[np.bool_]
    flags: npt.NDArray[np.uint8]  # signs.Sign of each
    names: list[frozenset[str]]


def prepare(conversation: Conversation, embed: Embed | None) -> Prepared:
    """Index a conversation; ``embed`` maps texts to unit vectors (None: lexical only)."""
    turns = conversation.turns
    found = [Counter(tokens(_searchable(turn))) for turn in turns]
    vocabulary = {token: at for at, token in enumerate(sorted(set().union(*found)))}
    counts = np.zeros((len(turns), len(vocabulary)), np.float32)
    for row, count in enumerate(found):
        for token, times in count.items():
            counts[row, vocabulary[token]] = times
    df = (counts > 0).sum(0)
    names = {name: at for at, name in enumerate(dict.fromkeys(turn.session for turn in turns))}
    session = np.array([names[turn.session] for turn in turns], np.int32)
    rows = np.arange(len(turns))
    same = np.append(session[1:] == session[:-1], False)
    cut = [(row, text) for row, turn in enumerate(turns) for text in _passages(turn)]
    return Prepared(
        conversation=conversation,
        authors=frozenset(turn.speaker for turn in turns) - ROLES,
        vocabulary=vocabulary,
        counts=counts,
        idf=np.log1p((len(turns) - df + 0.5) / (df + 0.5)).astype(np.float32),
        absent_idf=float(np.log1p((len(turns) + 0.5) / 0.5)),
        vectors=None if embed is None else embed([_spoken(turn) for turn in turns]),
        passage_vectors=None if embed is None else embed([text for _, text in cut]),
        passage_rows=np.array([row for row, _ in cut], np.int64),
        session=session,
        before=np.where(np.append(False, same[:-1]), rows - 1, -1),
        after=np.where(same, rows + 1, -1),
        said=np.array([turn.time.timestamp() / 86400 if turn.time else np.nan for turn in turns]),
        dated=np.array([bool(find_dates(turn.text, turn.time)) if turn.time else False for turn in turns]),
        flags=np.array([_signs(turn) for turn in turns], np.uint8),
        names=[frozenset(find_names(turn.text)) for turn in turns],
    )


@dataclass(frozen=True, slots=True)
class Candidates:
    """The pool of one question: turn numbers, their features, and how the query was read."""

    rows: npt.NDArray[np.int64]
    features: Features
    query: Query


def candidates(
    prepared: Prepared, question: Question, embed: Embed | None, pool: int | None = fusion.POOL
) -> Candidates:
    """The candidates for a question (``pool`` None: every turn), with their features."""
    turns = prepared.conversation.turns
    query = analyse(question.text, prepared.authors)
    columns = [prepared.vocabulary.get(token) for token in query.tokens]
    counts = np.stack(
        [np.zeros(len(turns), np.float32) if at is None else prepared.counts[:, at] for at in columns], axis=1
    )
    idf = np.array([prepared.absent_idf if at is None else prepared.idf[at] for at in columns], np.float32)
    lengths = prepared.counts.sum(1)
    cosine = passage = np.zeros(len(turns), np.float32)
    if embed is not None and prepared.vectors is not None and prepared.passage_vectors is not None:
        vector = embed([query.spoken])[0]
        cosine = prepared.vectors @ vector
        passage = np.full(len(turns), -1.0, np.float32)
        np.maximum.at(passage, prepared.passage_rows, prepared.passage_vectors @ vector)
    activation = _activation(prepared, query.names)
    rows = np.arange(len(turns))
    if pool is not None:
        norm = K1 * (1 - B + B * lengths / lengths.mean())
        first = (idf * counts * (K1 + 1) / (counts + norm[:, None])).sum(1)
        chosen = np.concatenate([top(first, pool), top(cosine, pool), top(activation, pool)])
        chosen = np.concatenate([chosen, prepared.before[chosen], prepared.after[chosen]])
        if Want.REQUEST in query.wants:
            chosen = np.concatenate([chosen, np.flatnonzero(prepared.flags & (Sign.INSTRUCTION | Sign.PREFERENCE))])
        rows = np.unique(chosen[chosen >= 0])

    now = question.date or max((turn.time for turn in turns if turn.time), default=None)
    times = find_dates(question.text, now) if now else ()
    spans = [(span.first.timestamp() / 86400, span.last.timestamp() / 86400) for span in times]
    return Candidates(
        rows,
        fusion.features(
            Pool(
                rows=np.append(np.arange(len(turns)), -1),
                here=rows,
                before=prepared.before[rows],
                after=prepared.after[rows],
                counts=np.vstack((counts, np.zeros_like(counts[:1]))).T,
                idf=idf,
                segments=np.array(
                    [[token in segment for token in query.tokens] for segment in query.segments], np.bool_
                ).reshape(-1, len(query.tokens)),
                cosine=cosine[rows],
                passage=passage[rows],
                cosine_after=np.where(prepared.after[rows] >= 0, cosine[prepared.after[rows]], 0),
                entities=activation[rows],
                time=fusion.nearness(prepared.said[rows], spans),
                lengths=lengths,
                mean_length=float(lengths.mean()),
                session=prepared.session,
                author=np.arange(len(turns), dtype=np.int32),
                roles=np.array([_role(turn, query, prepared.authors) for turn in turns], np.uint8),
                flags=prepared.flags,
                dated=prepared.dated,
            ),
            query.wants,
        ),
        query,
    )


@dataclass(frozen=True, slots=True)
class Ranking:
    """Turn ids, best first, with their scores, their chances of being evidence, and what each channel adds."""

    ids: tuple[str, ...]
    scores: npt.NDArray[np.float32]
    chances: npt.NDArray[np.float32]
    parts: dict[str, npt.NDArray[np.float32]]


def rank(
    prepared: Prepared,
    question: Question,
    embed: Embed | None,
    k: int,
    weights: Weights | None = None,
    calibration: Calibration | None = None,
) -> Ranking:
    """The k best turns for a question, ties by position; without an embedder the lexical constants are the default."""
    weights = weights or (LEXICAL_WEIGHTS if embed is None else Weights())
    calibration = calibration or (LEXICAL_CALIBRATION if embed is None else Calibration())
    found = candidates(prepared, question, embed)
    scores = fusion.fuse(found.features, weights)
    chances = fusion.relevance(found.features, scores, calibration)
    best = np.lexsort((found.rows, -scores))[:k]
    turns = prepared.conversation.turns
    ids = tuple(turns[row].id for row in found.rows[best])
    parts = dict(zip(fusion.CHANNELS, fusion.contributions(found.features, weights, best).T, strict=True))
    return Ranking(ids, scores[best], chances[best], parts)


def top(scores: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """The numbers of the k largest positive scores, best first; ties by number."""
    order = np.argsort(-scores, kind="stable")[:k]
    return order[scores[order] > 0]


def _activation(prepared: Prepared, seeds: Sequence[str]) -> npt.NDArray[np.float32]:
    """What ``entities.EntityIndex.activation`` finds, name by name."""
    n = len(prepared.names)
    rows = {
        name: [row for row, held in enumerate(prepared.names) if name in held]
        for name in set(seeds).union(*prepared.names)
    }
    found = np.zeros(n, np.float32)
    # Rows whose text holds no name count too: the index has them all.
    idf = {name: float(np.log1p((n - len(rows[name]) + 0.5) / (len(rows[name]) + 0.5))) for name in seeds}
    for name in seeds:
        found[rows[name]] += np.float32(idf[name] / sum(idf.values()))
    active: dict[str, float] = {}
    frontier = dict.fromkeys(seeds, 1.0)
    for _ in range(HOPS):
        reached: dict[str, float] = {}
        for name, level in frontier.items():
            passed = DECAY * level / max(len(rows[name]), 1) ** 0.5
            for other in set().union(*(prepared.names[row] for row in rows[name])) - set(seeds):
                if passed >= LEAST and passed > active.get(other, 0.0):
                    active[other] = reached[other] = passed
        frontier = reached
    for name, level in active.items():
        found[rows[name]] = np.maximum(found[rows[name]], np.float32(level))
    return found


def _signs(turn: Turn) -> Sign:
    user = turn.role == "user"
    found = Sign.QUESTION if "?" in turn.text else Sign(0)
    if user and is_instruction(turn.text):
        found |= Sign.INSTRUCTION
    if user and is_preference(turn.text):
        found |= Sign.PREFERENCE
    return found


def _role(turn: Turn, query: Query, authors: frozenset[str]) -> int:
    return (
        (len(query.authors) == 1 and turn.speaker in query.authors) * NAMED
        | (not authors and turn.role == "user") * USER
        | (turn.role == "assistant") * ASSISTANT
    )


def _searchable(turn: Turn) -> str:
    when = turn.time.strftime("%d %B %Y") if turn.time else ""
    speaker = "" if turn.speaker in ROLES else turn.speaker
    return "\n".join(part for part in (speaker, turn.text, turn.caption, when) if part)


def _spoken(turn: Turn) -> str:
    return f"{turn.text} {turn.caption}".strip()


def _passages(turn: Turn) -> list[str]:
    cut = passages(turn.text)
    return cut if len(cut) > 1 else [_spoken(turn)]
