"""Recall that nobody from outside can own: of near-copies from one source one is shown, and other sources are heard beside it.

PoisonedRAG (arXiv 2402.07867) wins by number: five passages for a question push all others out. So a source from outside may
fill half of what is recalled, and gives way above that to any other that is about as likely to answer. Where there is none, it
keeps its places: a book of one's own is a single source too. All pages of a site share its half; a copy is one only on
the same page, for the pages of a site are mostly alike.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cached_property

from holdfast.cube import Form
from holdfast.guard.base import site
from holdfast.guard.sketch import runs, shared
from holdfast.retrieve.hits import Hit
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_ENVIRONMENT,),
    retrieval=(Retrieval.AUTOMATIC, Retrieval.RERANK, Retrieval.FILTER),
    subject=(Subject.WORLD,),
)

SHARE = 0.5
"""Of the places, so many at most for one source, where others have something to say."""

ABOUT = 0.5
"""Another source is heard where its hit is at least so many times as likely to answer as the one whose place it takes."""

COPY = 0.5
"""Texts of one source that share so many of their runs of three words say the same."""

WIDER = 4
"""So many times as many hits are looked at where one source has too many."""


def heard(hits: Iterable[Hit], k: int, *, fill: bool = True) -> list[Hit]:
    """The k hits to show of more that were found, best first. ``fill``: deferred ones take places that are left.

    Takes no more of them than it needs: where the first k may be shown, the first k.
    """
    share = max(1, int(k * SHARE))
    shown: list[Hit] = []
    deferred: list[Hit] = []
    places: Counter[str] = Counter()
    said: defaultdict[str, list[_Text]] = defaultdict(list)
    for hit in hits:
        labels = set(map(site, hit.cube.origin.taint))
        if labels:
            own = _Text(hit.text)
            if any(own.copies(other) for label in labels for other in said[label]):
                continue
            if any(places[label] >= share for label in labels):
                deferred.append(hit)
                continue
            for label in labels:
                said[label].append(own)
            places.update(labels)
        if deferred and hit.relevance < ABOUT * deferred[0].relevance:
            break  # what follows is not worth a place of what was put off
        shown.append(hit)
        if len(shown) == k:
            break
    if fill:
        shown += deferred[: k - len(shown)]
    return sorted(shown, key=lambda hit: -hit.score)


class _Text:
    """A text whose runs are made when it is first compared: mostly a source has one hit."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def _runs(self) -> frozenset[int]:
        return runs(self._text)

    def copies(self, other: _Text) -> bool:
        return shared(self._runs, other._runs) >= COPY
