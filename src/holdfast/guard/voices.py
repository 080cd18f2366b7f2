"""Recall that nobody from outside can own: of near-copies from one source one is shown, and other sources are heard beside it.

PoisonedRAG (arXiv 2402.07867) wins by number: five passages for a question push all others out. So a source from outside may
fill half of what is recalled, and gives way above that to any other that is about as likely to answer. Sites cost an attacker
nothing either: all that is from outside together may fill three quarters, and gives way above that to a word from inside. Where
there is none, they keep their places: a book of one's own is a single source too. All pages of a site share its half; a copy
is one only on the same page, for the pages of a site are mostly alike.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cached_property

from holdfast.cube import Form
from holdfast.guard.base import site, source_of
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

OUTSIDE = 0.75
"""Of the places, so many at most for all sources from outside, where somebody from inside has something to say."""

ABOUT = 0.5
"""Another source is heard where its hit is at least so many times as likely to answer as the one whose place it takes."""

COPY = 0.5
"""Texts of one source that share so many of their runs of three words say the same."""

WIDER = 4
"""So many times as many hits are looked at where one source has too many."""


def heard(hits: Iterable[Hit], k: int, *, fill: bool = True, everyone: bool = False) -> list[Hit]:
    """The k hits to show of more that were found, best first. ``fill``: deferred ones take places that are left.

    ``everyone``: one account has no more than half of the places either, and gives way to whoever else was found, which is for
    records that are voted on. Takes no more hits than it needs: where the first k may be shown, the first k.
    """
    share, most = max(1, int(k * SHARE)), max(1, int(k * OUTSIDE))
    shown: list[Hit] = []
    waiting: list[Hit] = []  # for want of a place for the outside
    deferred: list[Hit] = []  # for want of one for their source
    outside = 0
    places: Counter[str] = Counter()
    said: defaultdict[str, list[_Text]] = defaultdict(list)
    for hit in hits:
        tainted = hit.cube.tainted
        if tainted or everyone:  # mostly all is from inside, and nothing of it is counted
            labels = set(map(site, hit.cube.origin.taint)) if tainted else {source_of(hit.cube)}
            own = _Text(hit.text)
            if tainted and any(own.copies(other) for label in labels for other in said[label]):
                continue
            if any(places[label] >= share for label in labels):
                deferred.append(hit)
                continue
            places.update(labels)
            if tainted:
                for label in labels:
                    said[label].append(own)
                if outside == most:
                    waiting.append(hit)
                    continue
                outside += 1
        if (waiting or deferred) and not everyone:
            first = max(some[0].relevance for some in (waiting, deferred) if some)
            if hit.relevance < ABOUT * first:
                break  # what follows is not worth a place of what was put off
        shown.append(hit)
        if len(shown) == k:
            break
    if fill:
        shown += [*waiting, *deferred][: k - len(shown)]
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
