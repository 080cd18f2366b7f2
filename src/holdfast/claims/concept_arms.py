"""The arms of ArcMemo's claim (arXiv 2509.04439) on one stream of tasks: after how many candidates each is solved, and rightly.

Every arm has the same solver, the same order of the primitives and the same budget; they differ in what stands before these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.claims.concept_grids import Program
from holdfast.claims.concept_search import Bench, Found, search
from holdfast.claims.concept_world import Motif, Task, cues, solves
from holdfast.claims.concept_writer import Book, Solved, brought, filled, selected, skeleton

NONE, INSTANCE, INSTANCES, LESSONS, ALL, SELECTED, CONTINUAL, ORACLE = (
    "no memory",
    "nearest instance",
    "eight nearest instances",
    "macros without parameters",
    "concepts, all",
    "concepts, selected",
    "concepts, selected, continual",
    "true motifs",
)
BUDGETS = (500, 2_000, 8_000)
K, BATCH = 8, 10


@dataclass(frozen=True, slots=True)
class Solve:
    """How a task went: the candidate that fitted, 0 for none; whether it is right on the test too, and whether it was verified."""

    tried: int = 0
    right: bool = False
    verified: bool = False

    def within(self, budget: int) -> bool:
        """Whether it was solved rightly with a budget."""
        return self.right and 0 < self.tried <= budget


@dataclass(frozen=True, slots=True)
class Memories:
    """What was learnt of the solved tasks in one order."""

    concepts: Book
    macros: Book

    @classmethod
    def of(cls, seeds: Sequence[Task]) -> Memories:
        """The memories of tasks whose programs are known."""
        return cls(book(seeds), book(seeds, exact=True))


def book(seeds: Sequence[Task], *, exact: bool = False) -> Book:
    """A memory of concepts from tasks whose programs are known."""
    made = Book(exact=exact)
    for task in seeds:
        made.add(Solved.of(task, task.program))
    return made


def solved(arm: str, bench: Bench, memories: Memories, motifs: Sequence[Motif], budget: int) -> Solve:
    """One arm at one task. The continual one is ``Stream``."""
    task = bench.task
    seen, colours = cues(task.train), task.colours
    routines: list[Program] = []
    first: list[Program] = []
    if arm in (INSTANCE, INSTANCES):
        first = [*_instances(memories.concepts.past, seen, bench, 1 if arm == INSTANCE else K)]
    elif arm == LESSONS:
        held = memories.macros.concepts
        routines = brought(held, selected(held, seen, K), colours)
    elif arm == ALL:
        routines = brought(memories.concepts.concepts, list(memories.concepts.concepts), colours)
    elif arm == SELECTED:
        held = memories.concepts.concepts
        routines = brought(held, selected(held, seen, K), colours)
    elif arm == ORACLE:
        routines = [program for number in task.motifs for program in filled(motifs[number].steps, colours)]
    return judged(task, search(bench, routines, budget, first))


class Stream:
    """The continual arm: after each batch it learns from what it has solved and verified itself, by a pair held out.

    Each budget has a memory of its own. ``went``: how each task went, by budget; ``known``: whether all of its motifs were
    concepts by then, and ``told``: whether all were chosen.
    """

    def __init__(self, seeds: Sequence[Task], motifs: Sequence[Motif], budgets: Sequence[int]) -> None:
        self._motifs = motifs
        self._books = {budget: book(seeds) for budget in budgets}
        self._waiting: dict[int, list[Solved]] = {budget: [] for budget in budgets}
        self.went: dict[int, list[Solve]] = {budget: [] for budget in budgets}
        self.known: dict[int, list[bool]] = {budget: [] for budget in budgets}
        self.told: dict[int, list[bool]] = {budget: [] for budget in budgets}

    def solve(self, bench: Bench) -> None:
        """The next task."""
        task, seen = bench.task, cues(bench.task.train)
        for budget, held in self._books.items():
            chosen = selected(held.concepts, seen, K)
            known, told = had(task, self._motifs, held, chosen)
            self.known[budget].append(known)
            self.told[budget].append(told)
            found = search(bench, brought(held.concepts, chosen, task.colours), budget)
            self.went[budget].append(judged(task, found))
            if found.program is not None and found.verified:
                self._waiting[budget].append(Solved(task.name, found.program, seen))
            if len(self.went[budget]) % BATCH == 0:
                for one in self._waiting[budget]:
                    held.add(one)
                self._waiting[budget].clear()


def had(task: Task, motifs: Sequence[Motif], held: Book, chosen: Sequence[str]) -> tuple[bool, bool]:
    """Whether all motifs of a task are concepts, and whether all were chosen."""
    names = {skeleton(motifs[number].steps) for number in task.motifs}
    return names <= set(held.concepts), names <= set(chosen)


def judged(task: Task, found: Found) -> Solve:
    """A search's result, strictly: the program is right on the pairs to be tested on too."""
    if found.program is None:
        return Solve()
    return Solve(found.tried, solves(found.program, task.test), found.verified)


def _instances(past: Sequence[Solved], seen: Sequence[str], bench: Bench, k: int) -> Iterator[Program]:
    """The programs of the ``k`` tasks most alike by their cues, then those that differ from the first of them by one step."""
    here = set(seen)
    likeness = [len(here & set(one.cues)) / max(len(here | set(one.cues)), 1) for one in past]
    near = [past[at].program for at in np.argsort(-np.asarray(likeness), kind="stable")[:k].tolist()]
    yield from near
    for at, step in enumerate(near[0]):
        # The same primitive with other arguments first, then others in its place, then none.
        others = sorted(bench.primitives, key=lambda other: other[0].op != step.op)
        yield from (near[0][:at] + other + near[0][at + 1 :] for other in others)
        yield near[0][:at] + near[0][at + 1 :]


def share(went: Sequence[Solve], budget: int) -> float:
    """The strict rate of what was solved with a budget."""
    return float(np.mean([one.within(budget) for one in went]))
