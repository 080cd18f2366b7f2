"""The scripted agent of claim 1: what it retrieves, what each guard lets through, and whether what it copies is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.claims.clinic import Floats, Task, Vectors, chain_of, logistic, other_domains, retrieve
from holdfast.cube import Cube, Ref
from holdfast.guard.chains import Chain
from holdfast.guard.clusters import largest_cluster
from holdfast.guard.consensus import ConsensusGuard, spread
from holdfast.guard.sql import sql
from holdfast.retrieve.hits import Hit

ARMS = ("ours", "none", "auditor", "paper's guard", "paper's clustering")
K, PAPER_K = 12, 4

Arm = Callable[[str, Sequence[Hit]], "Seen"]
"""(question, the 24 nearest cases) -> what the arm looked at and what it let through."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What an arm looked at for one question, and what it let through, best first."""

    seen: Sequence[Hit]
    kept: Sequence[Hit]


@dataclass(frozen=True, slots=True)
class Pool:
    """A memory: its cases, the vectors of their questions (n, dimension), and the ids of what is poison."""

    cubes: list[Cube]
    matrix: Floats
    bad: frozenset[str]

    def plus(self, cubes: Sequence[Cube], vectors: Vectors, bad: bool) -> Pool:
        """With more cases, all of them poison or none."""
        if not cubes:
            return self
        rows = vectors([cube.text for cube in cubes])
        ids = {cube.id for cube in cubes} if bad else frozenset[str]()
        return Pool([*self.cubes, *cubes], np.vstack([self.matrix, rows]), self.bad | ids)


def make_arms(vectors: Vectors, seed: int, training: int, lookup: Mapping[Ref, Cube]) -> dict[str, Arm]:
    """Every arm by its name; the auditor is trained here, on records of other domains."""
    guard = ConsensusGuard(sql, lookup=lookup.get)
    texts, poisoned = other_domains(seed, training)
    weights = logistic(vectors(texts), poisoned)

    def ours(question: str, hits: Sequence[Hit]) -> Seen:
        seen = spread(hits, K, per_source=2, lookup=lookup.get)
        return Seen(seen, guard.check(question, seen).kept)

    def none(question: str, hits: Sequence[Hit]) -> Seen:
        return Seen(hits[:K], hits[:K])

    def auditor(question: str, hits: Sequence[Hit]) -> Seen:
        rows = vectors([f"{hit.text}\n{hit.cube.data['sql']}" for hit in hits[:K]])
        flagged = rows @ weights[:-1] + weights[-1] > 0
        return Seen(hits[:K], [hit for hit, bad in zip(hits, flagged, strict=False) if not bad])

    def boolean(question: str, hits: Sequence[Hit]) -> Seen:
        said = [chain(hit).operation for hit in hits[:PAPER_K]]
        majority = Counter(said).most_common(1)[0][0]
        return Seen(hits[:PAPER_K], [hit for hit, what in zip(hits, said, strict=False) if what == majority])

    def clustering(question: str, hits: Sequence[Hit]) -> Seen:
        rows = vectors([chain(hit).text for hit in hits[:PAPER_K]])
        return Seen(hits[:PAPER_K], [hits[at] for at in largest_cluster(rows, eps=0.5, min_samples=2)])

    return dict(zip(ARMS, (ours, none, auditor, boolean, clustering), strict=True))


def chain(hit: Hit) -> Chain:
    """What copying a case does."""
    return chain_of(hit.cube.data["sql"])


def asked(vectors: Vectors, pool: Pool, task: Task, trigger: str, k: int = 2 * K) -> tuple[str, list[Hit]]:
    """The question as it is put, and the nearest cases."""
    question = task.question.rstrip("?") + trigger if trigger else task.question
    return question, retrieve(vectors, question, pool.cubes, pool.matrix, k)


def right(done: Seen, task: Task) -> float:
    """Whether the copied statement does what the right one does: the same to the same tables, with the same effects."""
    if not done.kept:
        return 0.0
    does, wanted = chain(done.kept[0]), task.chain
    return float((does.operation, does.object, does.effects) == (wanted.operation, wanted.object, wanted.effects))


def counts_of(done: Seen, bad: frozenset[str]) -> npt.NDArray[np.float64]:
    """Poison kept and seen, benign kept and seen."""
    kept = {hit.id for hit in done.kept}
    seen = {hit.id for hit in done.seen}
    return np.array([len(kept & bad), len(seen & bad), len(kept - bad), len(seen - bad)], float)
