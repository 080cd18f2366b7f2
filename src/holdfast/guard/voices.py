"""Recall that nobody from outside can own: of near-copies from one source one is shown, and other sources are heard beside it.

PoisonedRAG (arXiv 2402.07867) wins by number: five passages for a question push all others out. So a source from outside may
fill half of what is recalled, and gives way above that to any other that is about as likely to answer. Where there is none, it
keeps its places: a book of one's own is a single source too. All pages of a site share its half; a copy is one only on
the same page, for the pages of a site are mostly alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from holdfast.guard.base import site
from holdfast.guard.sketch import Sketch, likeness, sketch
from holdfast.retrieve.hits import Hit

SHARE = 0.5
"""Of the places, so many at most for one source, where others have something to say."""

ABOUT = 0.5
"""Another source is heard where its hit is at least so many times as likely to answer as the one whose place it takes."""

COPY = 0.5
"""Texts of one source that share so many of their runs of three words say the same."""

WIDER = 4
"""So many times as many hits are looked at where one source has too many."""


def crowded(hits: Sequence[Hit], k: int) -> bool:
    """Whether an outside source has more than its share of some hits, or repeats itself in them."""
    return len(heard(hits, k, fill=False)) < len(hits)


def heard(hits: Sequence[Hit], k: int, *, fill: bool = True) -> list[Hit]:
    """The k hits to show of more that were found, best first. ``fill``: deferred ones take places that are left."""
    share = max(1, int(k * SHARE))
    shown: list[Hit] = []
    deferred: list[Hit] = []
    places: Counter[str] = Counter()
    said: dict[str, list[Sketch]] = {}
    for hit in hits:
        if len(shown) == k:
            break
        labels = hit.cube.origin.taint
        if labels:
            own = sketch(hit.text)
            if any(likeness(own, other) >= COPY for label in labels for other in said.get(label, ())):
                continue
            sites = {site(label) for label in labels}
            if any(places[one] >= share for one in sites):
                deferred.append(hit)
                continue
            for label in labels:
                said.setdefault(label, []).append(own)
            places.update(sites)
        if deferred and hit.relevance < ABOUT * deferred[0].relevance:
            break  # what follows is not worth a place of what was put off
        shown.append(hit)
    if fill:
        shown += deferred[: k - len(shown)]
    return sorted(shown, key=lambda hit: -hit.score)
