"""Consensus before use: what a record would lead to is compared with what the others would (A-MemGuard, arXiv 2510.02373).

The paper lets a model find the odd ones out among K chains, one vote a record. Here a vote belongs to a *source*, weighted by
trust, for the attack's whole purpose is to fill K with records of one hand. Effects are voted on apart from the operation, so
that a recipient added to an otherwise right chain is outvoted. Where no side has the quorum, or an effect rests on too few
sources that may authorise anything, the guard abstains: it never falls back on the majority.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from holdfast.cube import Form
from holdfast.errors import HoldfastError, InputError
from holdfast.guard.base import Dropped, Lookup, Verdict, Voter, voter
from holdfast.guard.chains import Chain, Effect, Extractor
from holdfast.retrieve.hits import Hit
from holdfast.taxonomy import Function, MemoryProfile, Modality, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.CASES, Function.FACTS_ENVIRONMENT),
    retrieval=(Retrieval.AUTOMATIC, Retrieval.FILTER),
    subject=(Subject.AGENT, Subject.WORLD),
    modality=(Modality.TEXT, Modality.ACTION),
)

_SAME = 1e-9  # sums of shares in another order differ by less


def spread(hits: Iterable[Hit], k: int, *, per_source: int = 1, lookup: Lookup | None = None) -> list[Hit]:
    """The k best of some hits with at most ``per_source`` of each source, filled up by rank where that leaves fewer.

    So that one source cannot fill what a guard sees while others have something to say. Hand it about twice ``k`` hits: from
    far more of them it draws voters that have nothing to say about the query, and legitimate changes then miss the quorum.
    """
    if k < 1 or per_source < 1:
        raise InputError("k and per_source must be whole numbers from 1 on")
    hits, counts, chosen = list(hits), dict[str, int](), set[int]()
    for at, hit in enumerate(hits):
        source = voter(hit.cube, lookup).source
        if len(chosen) < k and counts.get(source, 0) < per_source:
            counts[source] = counts.get(source, 0) + 1
            chosen.add(at)
    for at in range(len(hits)):
        if len(chosen) < k:
            chosen.add(at)
    return [hits[at] for at in sorted(chosen)]


@dataclass(frozen=True, slots=True)
class _Read:
    """A hit that could be read."""

    hit: Hit
    chain: Chain
    voter: Voter

    @property
    def ballot(self) -> tuple[str, frozenset[Effect]]:
        return self.chain.operation, self.chain.effects


@dataclass(frozen=True, slots=True)
class _Votes:
    """Ballots of all sources: of each ballot its weight, the sources, and those of them that authorise."""

    weights: Mapping[tuple[str, frozenset[Effect]], Mapping[str, float]]
    authorising: frozenset[str]

    def of(self, *, operation: str | None = None, effect: Effect | None = None) -> float:
        """The weight of the ballots for an operation, and with an effect, where those are given."""
        return sum(
            weight
            for (what, effects), sources in self.weights.items()
            for weight in sources.values()
            if (operation is None or what == operation) and (effect is None or effect in effects)
        )

    def founders(self, operation: str, effect: Effect) -> int:
        """How many sources that may authorise anything stand behind an effect of an operation."""
        ballots = [sources for (what, with_), sources in self.weights.items() if what == operation and effect in with_]
        return len(set[str]().union(*ballots) & self.authorising)


class ConsensusGuard:
    """Lets through what a quorum of independent sources agrees on.

    Args:
        extract: what a record would lead to (``guard.chains``).
        quorum: the share of the votes' weight that an operation needs, and that each effect needs among those for the
            operation; above one half.
        min_sources: how many independent sources, from inside and trusted, must stand behind an effect.
        lookup: finds what derived records were made from (``sources_in``); without it derived records are one voter that
            authorises nothing.
    """

    def __init__(
        self, extract: Extractor, *, quorum: float = 0.6, min_sources: int = 2, lookup: Lookup | None = None
    ) -> None:
        if not 0.5 < quorum <= 1.0:
            raise InputError(f"a quorum is a share above one half and at most 1, not {quorum!r}")
        if min_sources < 1:
            raise InputError(f"min_sources must be at least 1, not {min_sources!r}")
        self._extract = extract
        self._quorum = quorum - _SAME
        self._min_sources = min_sources
        self._lookup = lookup

    def chains(self, query: str, hits: Sequence[Hit]) -> dict[str, Chain | HoldfastError | None]:
        """What each hit would lead to, by its id; None or the error where that cannot be read. ``check`` takes it as ``known``."""
        return {hit.id: _chain(self._extract, query, hit) for hit in hits}

    def check(
        self, query: str, hits: Sequence[Hit], *, known: Mapping[str, Chain | HoldfastError | None] | None = None
    ) -> Verdict:
        """Which hits may be acted upon for a query, in the order in which they came.

        The hits should be raw records (kinds that tell what to do), before anything is made of them. A record that cannot be
        read has no vote and is dropped.
        """
        if not hits:
            return Verdict((), reason="there is nothing to check")
        chains = self.chains(query, hits) if known is None else known
        read, dropped = [], dict[str, str]()
        for hit in hits:
            chain = chains.get(hit.id)
            if isinstance(chain, Chain):
                read.append(_Read(hit, chain, voter(hit.cube, self._lookup)))
            else:
                dropped[hit.id] = f"what it leads to cannot be read{f': {chain}' if chain else ''}"
        votes = _count(read)
        total = votes.of()
        if total <= 0:
            why = "nobody who is trusted says what to do" if read else "no record can be read"
            return _abstain(hits, dropped, 0.0, why)
        shares = {operation: votes.of(operation=operation) / total for operation, _ in votes.weights}
        best = max(sorted(shares), key=lambda operation: shares[operation])
        if shares[best] < self._quorum:
            return _abstain(hits, dropped, shares[best], f"no quorum: {best!r} has {shares[best]:.0%} of the weight")
        agreed = set[Effect]()
        for effect in set[Effect]().union(*(one.chain.effects for one in read if one.chain.operation == best)):
            if votes.of(operation=best, effect=effect) / (shares[best] * total) < self._quorum:
                continue
            founders = votes.founders(best, effect)
            if founders < self._min_sources:
                why = f"{effect} rests on {founders} of at least {self._min_sources} sources that may authorise it"
                return _abstain(hits, dropped, shares[best], why)
            agreed.add(effect)
        for one in read:
            if one.chain.operation != best:
                dropped[one.hit.id] = f"it leads to {one.chain.operation!r}, the others to {best!r}"
            elif odd := one.chain.effects - agreed:
                named = ", ".join(map(str, sorted(odd)))
                dropped[one.hit.id] = f"its effects have no quorum among those for {best!r}: {named}"
        kept = tuple(hit for hit in hits if hit.id not in dropped)
        if not kept:
            return _abstain(hits, dropped, shares[best], f"no effects of {best!r} have a quorum")
        ballots = {one.ballot for one in read if one.hit.id not in dropped}
        quorum = sum(sum(votes.weights[ballot].values()) for ballot in ballots) / total
        return Verdict(kept, _dropped(hits, dropped), quorum=min(1.0, quorum))


def _chain(extract: Extractor, query: str, hit: Hit) -> Chain | HoldfastError | None:
    try:
        return extract(query, hit.cube)
    except HoldfastError as error:  # told in the reason; one record that cannot be read must not stop the check
        return error


def _count(read: Sequence[_Read]) -> _Votes:
    """One vote a source, shared evenly among the different things it says: how often it says them is of no account."""
    said: dict[str, set[tuple[str, frozenset[Effect]]]] = {}
    trust: dict[str, float] = {}
    barred: set[str] = set()
    for one in read:
        source = one.voter.source
        said.setdefault(source, set()).add(one.ballot)
        trust[source] = min(trust.get(source, 1.0), one.hit.cube.origin.trust)
        if not one.voter.authorises:
            barred.add(source)
    weights: dict[tuple[str, frozenset[Effect]], dict[str, float]] = {}
    for source in sorted(said):  # sums must not depend on the order of hits
        for ballot in said[source]:
            weights.setdefault(ballot, {})[source] = trust[source] / len(said[source])
    ordered = sorted(weights, key=lambda ballot: (ballot[0], sorted(ballot[1])))
    return _Votes({ballot: weights[ballot] for ballot in ordered}, frozenset(said) - barred)


def _abstain(hits: Sequence[Hit], dropped: Mapping[str, str], quorum: float, why: str) -> Verdict:
    """Nothing is kept: each hit with its own reason, or with the one for all."""
    reasons = {hit.id: dropped.get(hit.id, why) for hit in hits}
    return Verdict((), _dropped(hits, reasons), abstained=True, quorum=quorum, reason=why)


def _dropped(hits: Sequence[Hit], reasons: Mapping[str, str]) -> tuple[Dropped, ...]:
    return tuple(Dropped(hit, reasons[hit.id]) for hit in hits if hit.id in reasons)
