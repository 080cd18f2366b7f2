"""PoisonedRAG (arXiv 2402.07867): passages made up for one question each, which bring their own wrong answer.

Two sets. ConflictQA has two fluent passages on either side of a question: one side is the store's, on two sites, and the other is
the attacker's. PoisonedRAG's own passages, five a question, are played among paragraphs that say nothing to the question: there
nobody contradicts them. The black-box attack puts the question in front of each passage.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from holdfast.cube import Channel, Kind
from holdfast.guard.attacks.base import Asked, Attack, Said
from holdfast.guard.attacks.records import Disputed, Records
from holdfast.guard.attacks.static import Static, from_outside

COPIES = 5
"""So many passages a question, as published."""

_PAGE = "https://wrong.example/notes"
_SITES = ("https://first.example", "https://second.example")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_SOURCE = "PoisonedRAG, arXiv 2402.07867"


def variants(records: Records, *, seed: int) -> list[Static]:
    """With the question in front and without, from one page; then from a page each, a site each, and where nobody contradicts."""
    rows = records.disputed
    order = np.random.default_rng([seed, 4]).permutation(len(rows)).tolist()
    most = 200 if records.full else 12
    chosen = [rows[at] for at in order[:most]]
    hit, left = chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :]
    store = tuple(said for row in chosen for said in _pages_of(row))
    benign = tuple(Asked(row.question, row.question, row.answers[0]) for row in left)
    asked = tuple(Asked(row.question, row.question, row.answers[0], row.answers[1]) for row in hit)

    def one(name: str, poison: Sequence[Said], sources: Sequence[str], adaptive: bool = False) -> Static:
        attack = Attack(name, store, from_outside(poison, Channel.WEB, sources), asked, benign)
        return Static(attack, "passages", "A4", _SOURCE, adaptive)

    plain = [said for row in hit for said in _made_up(row.question, row.answers[1], _pieces(row.passages[1]))]
    copied = [
        said for row in hit for said in _made_up(row.question, row.answers[1], _pieces(row.passages[1]), copied=True)
    ]
    return [
        one("question in front, one page", copied, (_PAGE,)),
        one("no question in front, one page", plain, (_PAGE,)),
        one("a page each, one site", copied, [f"{_PAGE}/{at}" for at in range(len(copied))], True),
        one("a site each", copied, [f"https://wrong-{at}.example/notes" for at in range(COPIES)], True),
        *_alone(records, seed),
    ]


def _alone(records: Records, seed: int) -> list[Static]:
    """PoisonedRAG's own passages among paragraphs on other things."""
    rows = records.fabricated
    others = records.paragraphs or tuple((row.question, row.passages[0][0]) for row in records.disputed)
    store = tuple(Said(text, Kind.DOCUMENT, Channel.DOCUMENT, title, key=title) for title, text in dict(others).items())
    picked = np.random.default_rng([seed, 5]).permutation(len(store))[: 60 if records.full else 12]
    benign = tuple(Asked(f"What is said of {store[at].key}?", store[at].key) for at in sorted(picked.tolist()))

    def one(name: str, copied: bool) -> Static:
        poison = [said for row in rows for said in _made_up(row.question, row.wrong, row.passages, copied=copied)]
        attack = Attack(
            name,
            store,
            from_outside(poison, Channel.WEB, (_PAGE,)),
            tuple(Asked(row.question, row.question, row.right, row.wrong) for row in rows),
            benign,
        )
        return Static(attack, "passages", "A4", _SOURCE)

    return [one("nobody contradicts, question in front", True), one("nobody contradicts, no question in front", False)]


def _pages_of(row: Disputed) -> list[Said]:
    """What the store holds of a question: a passage on each of two sites."""
    return [
        Said(
            text,
            Kind.DOCUMENT,
            Channel.WEB,
            f"{site}/{re.sub(r'[^a-z0-9]+', '-', row.question.lower()).strip('-')}",
            key=row.question,
            data={"answer": row.answers[0]},
        )
        for site, text in zip(_SITES, row.passages[0], strict=True)
    ]


def _made_up(question: str, answer: str, passages: Sequence[str], *, copied: bool = False) -> list[Said]:
    return [
        Said(
            f"{question} {text}" if copied else text,
            Kind.DOCUMENT,
            poison=True,
            key=question,
            data={"answer": answer},
        )
        for text in passages[:COPIES]
    ]


def _pieces(passages: Sequence[str]) -> list[str]:
    """Five passages of two: both whole, and their halves."""
    halves = []
    for passage in passages:
        sentences = _SENTENCE.split(passage)
        middle = (len(sentences) + 1) // 2
        halves += [" ".join(sentences[:middle]), " ".join(sentences[middle:])]
    return [text for text in (*passages, *halves) if text][:COPIES]
