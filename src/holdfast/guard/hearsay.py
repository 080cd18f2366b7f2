"""What others did: told to an agent only as far as independent sources agree on it (A-MemGuard, arXiv 2510.02373, for recipes).

Who asks has lived through their own records, and a wrong one among them harms nobody but themselves. In a store that several write
to, the records of others are hearsay: they face the consensus of ``guard.consensus``. What a record that was made of others would
lead to is what these did (``lived``), so that an insight cannot hide the recipient of the transfer that it was drawn from.

What is voted on is what a record says was called. Its words can ask for more, and whoever writes a record writes both. So the words
of others are held to what words from outside are held to (``admission.against``): what looks like an attack has no say; and of
records that agree on calls, one's own are told, or else those whose words the others have most of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace

from holdfast.cube import Cube, Form, Scope
from holdfast.encode.records import tell
from holdfast.errors import HoldfastError
from holdfast.guard.admission import against
from holdfast.guard.base import Dropped, Lookup, Verdict, ancestry, voter
from holdfast.guard.chains import Chain, Effect, Extractor, target
from holdfast.guard.consensus import ConsensusGuard
from holdfast.guard.precedents import about, reading, recorded
from holdfast.guard.screening import signals
from holdfast.retrieve.hits import Hit
from holdfast.retrieve.text import tokens
from holdfast.store.sql import SqlStore
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
    store: SqlStore,
    scope: Scope,
    whose: str,
    chances: Callable[[], Mapping[str, float]],
) -> Verdict:
    """The first k hits that ``whose`` (an author, as records name theirs) may go by: their own, and of others' what a quorum agrees
    on.

    ``chances``: how likely each hit, by its id, is to be about the task, where that must be known; the others are not.
    """
    lookup = store.sources((hit.cube for hit in hits), scope).get
    own = {hit.id for hit in hits if _own(hit.cube, lookup, whose)}
    hostile = tuple(
        Dropped(hit, "; ".join(why)) for hit in hits if hit.id not in own and (why := _hostile(hit.cube, lookup))
    )
    barred = {one.hit.id for one in hostile}
    consensus = ConsensusGuard(lived(lookup), min_sources=SOURCES, lookup=lookup)
    likely = chances()
    heard = [replace(hit, relevance=likely.get(hit.id, 0.0)) for hit in hits if hit.id not in barred]
    seen = about(heard, SOURCES, lookup)
    known = consensus.chains(task, seen)
    said = consensus.check(task, seen, known=known)
    if said.abstained:
        said = reading(task, seen, consensus, known) or said
    unsaid = _unsaid(task, [hit for hit in said.kept if _does(known[hit.id])], own, lookup)
    agreed = {hit.id for hit in said.kept} - {one.hit.id for one in unsaid}
    kept = tuple(hit for hit in hits if hit.id in own or hit.id in agreed)[:k]
    return Verdict(
        kept,
        (*hostile, *(one for one in (*said.dropped, *unsaid) if one.hit.id not in own)),
        abstained=not kept,
        reason=said.reason if not kept else "",
        quorum=said.quorum,
    )


def all_own(hits: Sequence[Hit], store: SqlStore, scope: Scope, whose: str) -> bool:
    """Whether ``whose`` has lived through whatever these hits are made of: then nobody else need be heard."""
    lookup = store.sources((hit.cube for hit in hits), scope, bare=True).get
    return all(_own(hit.cube, lookup, whose) for hit in hits)


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


def _hostile(cube: Cube, lookup: Lookup) -> list[str]:
    """What in the words of a record, or of one that it was made of, looks like an attack: who words it anew takes off the signs,
    and not the sense. That it begins with a question is how records are found."""
    found = [
        why
        for text in _texts(cube, lookup)
        for why in against({name: strength for name, strength in signals(text).items() if name != "asks"})
    ]
    return list(dict.fromkeys(found))


def _texts(cube: Cube, lookup: Lookup) -> list[str]:
    """What a record tells, and what all that it was made of tells."""
    return list(dict.fromkeys([tell(cube), *(tell(one) for _, one, _ in ancestry(cube, lookup))]))


def _does(chain: Chain | HoldfastError | None) -> bool:
    """Whether a record leads to more than reading."""
    return isinstance(chain, Chain) and bool(chain.effects)


def _unsaid(task: str, hits: Sequence[Hit], own: Set[str], lookup: Lookup) -> list[Dropped]:
    """Of records that agree on what is called, all but those of ``SOURCES`` whose words the others have most of; all but the
    ``own``, where there are any.

    What is advice alone is worded by whoever gives it; of calls that several made, the words of one say nothing that is needed.
    """
    if any(hit.id in own for hit in hits):
        return [Dropped(hit, "who asks has done the same, and has words for it") for hit in hits if hit.id not in own]
    asked = set(tokens(task))
    # Of a run kept in several records, one may say nothing but the task: it stands and falls with the rest of its run.
    words = {hit.id: {word for text in _texts(hit.cube, lookup) for word in tokens(text)} - asked for hit in hits}
    source = {hit.id: voter(hit.cube, lookup).source for hit in hits}
    shares: dict[str, float] = {}
    for hit in hits:
        others = set[str]().union(*(words[id] for id in words if source[id] != source[hit.id]))
        shares[hit.id] = len(words[hit.id] & others) / len(words[hit.id]) if words[hit.id] else 1.0
    best: dict[str, float] = {}
    for id, share in shares.items():
        best[source[id]] = max(best.get(source[id], 0.0), share)
    if len(best) <= SOURCES:
        return []
    bar = sorted(best.values(), reverse=True)[SOURCES - 1]
    return [
        Dropped(hit, "its words are less those of the others who did the same") for hit in hits if shares[hit.id] < bar
    ]


def _own(cube: Cube, lookup: Lookup, whose: str) -> bool:
    said = voter(cube, lookup)
    return said.authorises and said.source == target(f"assistant:{whose}")
