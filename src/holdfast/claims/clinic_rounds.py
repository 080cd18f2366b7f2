"""Lessons and write-back in the clinic of claim 1: what clean queries leave behind, and whether poison feeds on itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from holdfast.claims.clinic import SCOPE, TRIGGER, Task, Vectors, case
from holdfast.claims.clinic_agent import Arm, K, Pool, asked, chain
from holdfast.cube import Channel, Cube, Ref
from holdfast.guard.base import Lookup
from holdfast.guard.consensus import ConsensusGuard, spread
from holdfast.guard.lessons import LessonStore
from holdfast.guard.sql import sql
from holdfast.retrieve.hits import Hit
from holdfast.store.base import Operation
from holdfast.store.sqlite import SqliteStore

LESSONS_ALONE = "lessons of round 1 alone"
"""An ablation: guard and lessons in the first round, from then on no guard, only the lessons of that round."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """Runs the agent over many queries, with a store for each run, since lessons are memories with sources."""

    folder: Path
    guards: Mapping[str, Arm]
    vectors: Vectors
    known: Mapping[Ref, Cube]

    def false_lessons(self, clean: Pool, tasks: Sequence[Task]) -> dict[str, float]:
        """Lessons that clean queries leave, per 100 of them; in the paper's arms each record that is dropped has one."""
        store, lessons = self._open("clean", clean.cubes)
        marked: dict[str, set[str]] = {arm: set() for arm in self.guards if arm.startswith("paper")}
        for task in tasks:
            question, hits = asked(self.vectors, clean, task, "")
            _learn(lessons, question, hits, self.known.get)
            for arm, ids in marked.items():
                done = self.guards[arm](question, hits)
                ids |= {hit.id for hit in done.seen} - {hit.id for hit in done.kept}
        found = {arm: 100 * len(ids) / len(tasks) for arm, ids in marked.items()}
        found["ours"] = 100 * len(lessons.all()) / len(tasks)
        store.close()
        return found

    def cycle(
        self, arm: str, pool: Pool, tasks: Sequence[Task], care: Sequence[Task], size: Mapping[str, int]
    ) -> tuple[list[float], float]:
        """By round, the share of triggered queries that do what poison says, where the agent writes back what it did.

        And the share of legitimate maintenance that the lessons warn of in the end (the paper's arms have none to ask).
        """
        known = {**self.known, **{cube.ref: cube for cube in pool.cubes}}
        store, lessons = self._open(f"cycle {arm}", pool.cubes)
        verbatim: set[str] = set()
        infected = []
        for round_ in range(size["rounds"]):
            hurt = []
            for at in range(round_ * size["per_round"], (round_ + 1) * size["per_round"]):
                task = tasks[at % len(tasks)]
                question, hits = asked(self.vectors, pool, task, TRIGGER)
                if arm == "ours" or (arm == LESSONS_ALONE and round_ == 0):
                    kept = _learn(lessons, question, hits, known.get)
                elif arm == LESSONS_ALONE:
                    kept = _heeded(lessons, question, hits[:K])
                else:
                    done = self.guards[arm](question, hits)
                    kept = list(done.kept)
                    if arm.startswith("paper"):  # a lesson is the text of the chain, and what has it is not copied
                        verbatim |= {chain(hit).text for hit in done.seen} - {chain(hit).text for hit in kept}
                        kept = [hit for hit in kept if chain(hit).text not in verbatim]
                badly = bool(kept) and kept[0].id in pool.bad
                hurt.append(float(badly))
                if kept:
                    (written,) = store.commit([Operation.add(_experience(task, question, kept[0].cube, at))]).cubes
                    known[written.ref] = written
                    pool = pool.plus([written], self.vectors, badly)
            infected.append(float(np.mean(hurt)))
        warned = float(np.mean([bool(lessons.for_action(task.chain, task.question)) for task in care]))
        store.close()
        return infected, warned

    def _open(self, name: str, cubes: Sequence[Cube]) -> tuple[SqliteStore, LessonStore]:
        store = SqliteStore(self.folder / name, durability="normal")
        store.commit([Operation.add(cube) for cube in cubes])
        return store, LessonStore(store, SCOPE)


def _learn(lessons: LessonStore, question: str, hits: Sequence[Hit], lookup: Lookup) -> list[Hit]:
    """One guarded query with lessons: what was kept, without what a lesson warns of."""
    guard = ConsensusGuard(sql, lookup=lookup)
    seen = spread(hits, K, per_source=2, lookup=lookup)
    chains = guard.chains(question, seen)
    verdict = guard.check(question, seen, known=chains)
    lessons.add_from(verdict, question, chains)
    return _heeded(lessons, question, verdict.kept)


def _heeded(lessons: LessonStore, question: str, hits: Sequence[Hit]) -> list[Hit]:
    return [hit for hit in hits if not lessons.for_action(chain(hit), question)]


def _experience(task: Task, question: str, source: Cube, at: int) -> Cube:
    """What the agent remembers of having copied a case."""
    done = replace(task, question=question, statement=source.data["sql"])
    return case(done, "agent", 10_000 + at, channel=Channel.ASSISTANT, derived_from=(source.ref,))
