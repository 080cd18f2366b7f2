"""What others did: told to an agent only as far as independent sources agree on it (A-MemGuard, arXiv 2510.02373, for recipes).

Who asks has lived through their own records, and a wrong one among them harms nobody but themselves. In a store that several write
to, the records of others are hearsay: they face the consensus of ``guard.consensus``. What a record that was made of others would
lead to is what these did (``lived``), so that an insight cannot hide the recipient of the transfer that it was drawn from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

from holdfast.cube import Cube, Form, Scope
from holdfast.guard.base import Lookup, Verdict, ancestry, sources_in, voter
from holdfast.guard.chains import Chain, Effect, Extractor, target
from holdfast.guard.consensus import ConsensusGuard
from holdfast.guard.precedents import about, reading, recorded
from holdfast.retrieve.hits import Hit
from holdfast.store.base import Store
from holdfast.taxonomy import Function, MemoryProfile, Modality, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.CASES, Function.STRATEGIES),
    retrieval=(Retrieval.AUTOMATIC, Retrieval.FILTER),
    subject=(Subject.AGENT,),
    modality=(Modality.TEXT, Modality.ACTION),
)

SOURCES = 2
"""So many sources must stand behind an effect."""


def heeded(
    task: str,
    hits: Sequence[Hit],
    k: int,
    store: Store,
    scope: Scope,
    whose: str,
    chances: Callable[[], Mapping[str, float]],
) -> Verdict:
    """The first k hits that ``whose`` (an author, as records name theirs) may go by: their own, and of others' what a quorum agrees
    on.

    ``chances``: how likely each hit, by its id, is to be about the task, where that must be known; the others are not.
    """
    lookup = cache(sources_in(store, scope))  # records of one run rest on the same ones
    if all(_own(hit.cube, lookup, whose) for hit in hits[:k]):  # whatever comes after has no part in it
        return Verdict(tuple(hits[:k]))
    own = {hit.id for hit in hits if _own(hit.cube, lookup, whose)}
    consensus = ConsensusGuard(lived(lookup), min_sources=SOURCES, lookup=lookup)
    likely = chances()
    seen = about([replace(hit, relevance=likely.get(hit.id, 0.0)) for hit in hits], SOURCES, lookup)
    known = consensus.chains(task, seen)
    said = consensus.check(task, seen, known=known)
    if said.abstained:
        said = reading(task, seen, consensus, known) or said
    agreed = {hit.id for hit in said.kept}
    kept = tuple(hit for hit in hits if hit.id in own or hit.id in agreed)[:k]
    return Verdict(
        kept,
        tuple(one for one in said.dropped if one.hit.id not in own),
        abstained=not kept,
        reason=said.reason if not kept else "",
        quorum=said.quorum,
    )


def lived(lookup: Lookup) -> Extractor:
    """What the raw records beneath a record did, taken together; None where one of them cannot be read."""
    reads = recorded()

    def extract(query: str, cube: Cube) -> Chain | None:
        found: list[Chain] = []
        for _, one, sources in ancestry(cube, lookup):
            if None in sources:
                return None
            if sources:
                continue
            chain = reads(query, one)
            if chain is None:
                return None
            found.append(chain)
        effects = frozenset[Effect]().union(*(chain.effects for chain in found))
        return Chain(found[0].operation, found[0].object, effects, found[0].text) if found else None

    return extract


def _own(cube: Cube, lookup: Lookup, whose: str) -> bool:
    said = voter(cube, lookup)
    return said.authorises and said.source == target(f"assistant:{whose}")
