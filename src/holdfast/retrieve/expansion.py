"""From the few that are most alike along their ties, and up to what rests on them (G-Memory, arXiv 2506.07398, §4.2; the
neighbours of EvolveLab's Cerebra, arXiv 2512.18746).

The ties are those in the records (``encode.records.LINKS``), read in both directions: from a record to what it names, wherever that
lies, and back among the ``LOOKED_AT`` that are most like the query, for what was of use to a task is like it. What is of an ``up``
kind is reached only from a record of the same source: an insight from the tasks that it was drawn from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from holdfast.cube import RECALLABLE, Cube, Form, Scope
from holdfast.encode.records import linked
from holdfast.encode.trials import score
from holdfast.errors import InputError
from holdfast.retrieve.base import Near, Ranker, Scores, sought
from holdfast.retrieve.hits import Hit
from holdfast.retrieve.likeness import Meaning
from holdfast.store.sql import SqlStore
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.HIERARCHICAL,
    (Function.CASES, Function.STRATEGIES),
    retrieval=(Retrieval.GRAPH,),
    subject=(Subject.AGENT,),
)


LOOKED_AT = 40


class Kept(Protocol):
    """``holdfast.Memory`` is one."""

    @property
    def store(self) -> SqlStore:
        """Where ties and lineage are followed."""
        ...


@dataclass(frozen=True, slots=True)
class Expanded:
    """A ranker. Raises InputError.

    Fields
        of: what finds the first records.
        seeds: how many of these there are, and ``least`` the score that they exceed.
        up: the kinds that are reached from below; their score is weighed by their trials, at a half of which it stays.
        hops: how far ties are followed.
        neighbours: of each record, the most of its ties that are followed, the heaviest first.
        weight: of a score, what is left of it after a tie of weight 1.
    """

    of: Ranker = field(default_factory=Meaning)
    seeds: int = 2
    least: float = 0.0
    up: tuple[str, ...] = ()
    hops: int = 1
    neighbours: int = 3
    weight: float = 0.7
    memory: Kept | None = None
    scope: Scope | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.hops < 0 or self.neighbours < 1 or not 0.0 < self.weight <= 1.0:
            raise InputError("seeds and neighbours are one or more, hops none or more, and the weight lies in (0, 1]")

    def seek(self, query: str, kinds: Sequence[str], k: int, near: Near) -> Sequence[Hit]:
        """What is most like the query, what ties lead to from the best of it, and what rests on these."""
        below = [kind for kind in kinds if kind not in self.up]
        found = {hit.id: hit for hit in sought(self.of, query, below, max(k, LOOKED_AT), near)}
        if self.memory is None or self.scope is None:
            return list(found.values())
        hits = list(found.values())
        best = np.argsort(-self.of.rank(query, hits), kind="stable")[: self.seeds]
        frontier = reached = {hits[at].id: hits[at] for at in best.tolist()}
        places = {hit.id: at for at, hit in enumerate(hits)}
        ties = _ties(hits, places)
        for _ in range(self.hops):
            named = [id for hit in frontier.values() for id in self._heaviest(linked(hit.cube))]
            back = [hits[at].id for id in frontier if id in found for at in ties[places[id]]]
            wanted = [id for id in dict.fromkeys([*named, *back]) if id not in reached]
            read = self._hits([id for id in wanted if id not in found], below)
            frontier = {id: hit for id in wanted if (hit := found.get(id) or read.get(id)) is not None}
            reached = reached | frontier
        found |= reached
        if self.up:
            cases = dict.fromkeys(id for hit in reached.values() for id in _sources(hit))
            resting = self.memory.store.made_of(cases, self.scope).values()
            found |= {
                cube.id: _far(cube)
                for cube in sorted(resting, key=lambda cube: cube.id)
                if cube.kind in self.up and cube.status in RECALLABLE
            }
        return list(found.values())

    def rank(self, query: str, candidates: Sequence[Hit], /) -> Scores:
        """Shape (len(candidates),); -inf for what nothing leads to."""
        scores: Scores = np.full(len(candidates), -np.inf)
        below = [at for at, hit in enumerate(candidates) if hit.cube.kind not in self.up]
        if not below:
            return scores
        first = self.of.rank(query, [candidates[at] for at in below])
        order = [place for place in np.argsort(-first, kind="stable").tolist() if first[place] > self.least]
        for place in order[: self.seeds]:
            scores[below[place]] = first[place]
        at_id = {candidates[at].id: at for at in below}
        ties = _ties(candidates, at_id)
        frontier = [below[place] for place in order[: self.seeds]]
        for _ in range(self.hops):
            reached, before = [], scores.copy()
            for at in frontier:
                heaviest = sorted(ties[at].items(), key=lambda tie: (-tie[1], tie[0]))[: self.neighbours]
                for other, tie in heaviest:
                    passed = before[at] * tie * self.weight
                    if passed > scores[other]:
                        scores[other] = passed
                        reached.append(other)
            frontier = list(dict.fromkeys(reached))
        self._rise(candidates, scores)
        return scores

    def _heaviest(self, ties: Mapping[str, float]) -> list[str]:
        return sorted(ties, key=lambda id: (-ties[id], id))[: self.neighbours]

    def _hits(self, ids: Sequence[str], kinds: Sequence[str]) -> dict[str, Hit]:
        """Records that were named, as far from the query as can be; without those that are gone, or none of ours: what stands among
        the ties may have been written by anybody."""
        assert self.memory is not None and self.scope is not None
        read = self.memory.store.several(ids, self.scope, lent=True) if ids else {}
        return {id: _far(cube) for id, cube in read.items() if cube.kind in kinds and cube.status in RECALLABLE}

    def _rise(self, candidates: Sequence[Hit], scores: Scores) -> None:
        """Give what is ``up`` the best score of what it shares a source with."""
        best: dict[str, float] = defaultdict(lambda: -np.inf)
        for hit, found in zip(candidates, scores.tolist(), strict=True):
            for id in _sources(hit):
                best[id] = max(best[id], found)
        for at, hit in enumerate(candidates):
            if hit.cube.kind in self.up:
                under = max((best[id] for id in _sources(hit)), default=-np.inf)
                scores[at] = under * self.weight * 2 * score(hit.cube) if np.isfinite(under) else -np.inf


def _far(cube: Cube) -> Hit:
    return Hit(cube, -1.0, -1.0)


def _sources(hit: Hit) -> list[str]:
    return [ref.id for ref in hit.cube.origin.derived_from]


def _ties(candidates: Sequence[Hit], at_id: Mapping[str, int]) -> dict[int, dict[int, float]]:
    ties: dict[int, dict[int, float]] = defaultdict(dict)
    for at in at_id.values():
        for id, weight in linked(candidates[at].cube).items():
            other = at_id.get(id)
            if other is not None and other != at and weight > ties[at].get(other, 0.0):
                ties[at][other] = ties[other][at] = weight
    return ties
