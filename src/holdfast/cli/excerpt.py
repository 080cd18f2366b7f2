"""The part of a long text that a query is about, for showing; what is searched and remembered is always the whole."""

from __future__ import annotations

import re
from collections import Counter

from holdfast.retrieve.text import tokens

LIMIT = 280

_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")


def excerpt(text: str, query: str, limit: int = LIMIT) -> str:
    """At most about ``limit`` characters: the run of whole sentences with most of the query's words, dots where it is cut."""
    pieces = [" ".join(piece.split()) for piece in _SENTENCE.split(text)]
    pieces = [piece for piece in pieces if piece]
    whole = " ".join(pieces)
    if len(whole) <= limit:
        return whole
    wanted = set(tokens(query))
    found = [wanted.intersection(tokens(piece)) for piece in pieces]
    best, most = (0, 1), -1
    inside: Counter[str] = Counter()  # the query's words in the run, how often each
    size = last = 0
    for first in range(len(pieces)):
        while last < len(pieces) and (last <= first or size + len(pieces[last]) <= limit):
            size += len(pieces[last]) + 1
            inside.update(found[last])
            last += 1
        if len(inside) > most:
            best, most = (first, last), len(inside)
        size -= len(pieces[first]) + 1
        inside -= Counter(found[first])
    first, last = best
    middle = " ".join(pieces[first:last])
    start = 0
    if len(middle) > limit:  # one very long sentence
        start = max(0, _first_match(middle, wanted) - limit // 3)
        if start:
            start = middle.find(" ", start) + 1
    cut = middle[start : start + limit]
    if start + limit < len(middle) and " " in cut:
        cut = cut.rsplit(" ", 1)[0]
    before = "… " if first or start else ""
    after = " …" if last < len(pieces) or start + len(cut) < len(middle) else ""
    return before + cut + after


def _first_match(text: str, wanted: set[str]) -> int:
    for match in re.finditer(r"\w+", text):
        if wanted.intersection(tokens(match[0])):
            return match.start()
    return 0
