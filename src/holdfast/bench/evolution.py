"""A search over recipes: run, compare, change what failed, again (the outer loop of MemEvolve, arXiv 2512.18746 §3.2, eq. 5-8).

In each round the parents and their children do the same tasks, each from an empty store. Those that no other beats in success,
tokens and calls at once come first, of these the most successful; the best few are the next parents. Every run is noted in a file
before the next begins: a search that was killed goes on from there. What it reports of the winner is measured on tasks that the
search has not seen.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.bench.arena import Arena, Report, Task
from holdfast.bench.mutation import Menu, Module, blamed, mutate
from holdfast.errors import InputError
from holdfast.recipes.base import Recipe

Progress = Callable[[str, int, int], None]
"""(what was run, how many runs are done, how many there will be at most)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to search. Raises InputError.

    Fields
        rounds, parents, children: of ``parents`` recipes, each has ``children`` in each of ``rounds`` rounds (K and S).
        batch: tasks a round; ``carried`` of them are those of the round before.
        guided: change what is to blame; otherwise anything.
        seed: of all that is drawn.
    """

    rounds: int = 8
    parents: int = 2
    children: int = 4
    batch: int = 60
    carried: int = 20
    guided: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.rounds, self.parents, self.children, self.batch) < 1 or not 0 <= self.carried < self.batch:
            raise InputError(
                "rounds, parents, children and batch are 1 or more, and fewer tasks are carried than a batch has"
            )

    @property
    def needed(self) -> int:
        """How many tasks the search reads."""
        return self.batch + (self.rounds - 1) * (self.batch - self.carried)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe, what it did in the last round that it was in, and whose child it is ("" for one that was given)."""

    recipe: Recipe
    report: Report
    parent: str = ""
    changed: str = ""


@dataclass(frozen=True, slots=True)
class Round:
    """One round: all that ran, best first; the first ``front`` of them are beaten by none."""

    candidates: tuple[Candidate, ...]
    front: int


@dataclass(frozen=True, slots=True)
class Evolution:
    """A search that is over."""

    rounds: tuple[Round, ...]

    @property
    def winner(self) -> Recipe:
        """The best of the last round."""
        return self.rounds[-1].candidates[0].recipe

    @property
    def runs(self) -> int:
        """How many recipes were run."""
        return sum(len(one.candidates) for one in self.rounds)


class Log:
    """The runs that are done, by recipe and tasks; a file of one JSON object a line, or none."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._done: dict[str, Report] = {}
        if path is not None and path.exists():
            for line in path.read_text("utf-8").splitlines():
                try:
                    record = json.loads(line)
                    self._done[record["key"]] = Report.from_dict(record["report"])
                except (ValueError, KeyError):  # the line that was being written when it was killed
                    continue

    def run(self, arena: Arena, recipe: Recipe, tasks: Sequence[Task]) -> Report:
        """The report of a recipe on some tasks, from the file where it is there."""
        key = hashlib.sha256(f"{signature(recipe)} {[task.id for task in tasks]}".encode()).hexdigest()
        if key not in self._done:
            self._done[key] = arena.run(recipe, tasks)
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "report": self._done[key].to_dict()}) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
        return replace(self._done[key], recipe=recipe.name)


def evolve(
    arena: Arena,
    tasks: Sequence[Task],
    first: Sequence[Recipe],
    menu: Menu,
    settings: Settings | None = None,
    *,
    log: Log | None = None,
    progress: Progress | None = None,
) -> Evolution:
    """Search from some recipes over tasks that are read in their order. Raises InputError where there are too few."""
    settings, log = settings or Settings(), log or Log()
    if len(tasks) < settings.needed:
        raise InputError(
            f"such a search reads {settings.needed} tasks, and there are {len(tasks)}: give more, or fewer rounds"
        )
    random = np.random.default_rng(settings.seed)
    standing = [(recipe, "", "") for recipe in first]
    most = settings.rounds * (settings.parents * (settings.children + 1)) + len(first)
    rounds: list[Round] = []
    runs = 0
    for number in range(settings.rounds):
        start = number * (settings.batch - settings.carried)
        batch = tasks[start : start + settings.batch]
        candidates: list[Candidate] = []

        def run(recipe: Recipe, parent: str, changed: str, batch: Sequence[Task] = batch) -> Candidate:
            nonlocal runs
            runs += 1
            if progress is not None:
                progress(recipe.name, runs, most)
            return Candidate(recipe, log.run(arena, recipe, batch), parent, changed)

        candidates += [run(*one) for one in standing]
        parents, _ = ranked(candidates)
        for parent in parents[: settings.parents]:
            for child, module in _children(parent, menu, settings, number, random):
                if all(signature(child) != signature(other.recipe) for other in candidates):
                    candidates.append(run(child, parent.recipe.name, module))
        best, front = ranked(candidates)
        rounds.append(Round(tuple(best), front))
        standing = [(one.recipe, one.parent, one.changed) for one in best[: settings.parents]]
    return Evolution(tuple(rounds))


def _children(
    parent: Candidate, menu: Menu, settings: Settings, number: int, random: np.random.Generator
) -> list[tuple[Recipe, Module]]:
    found = []
    for child in range(settings.children):
        lost = parent.report.lost if settings.guided else {}
        module = blamed(lost, random)
        name = f"{parent.recipe.name.split('~')[0]}~{number + 1}.{child + 1}"
        changed = mutate(parent.recipe, module, menu, random)
        found.append((replace(changed, name=name, about=f"changed in {module} from {parent.recipe.name}"), module))
    return found


def ranked(candidates: Sequence[Candidate]) -> tuple[list[Candidate], int]:
    """The candidates, those that none beats first, then those that only these beat, and so on; among equals the most successful
    first, then the cheapest. And how many none beats."""
    values = {id(one): (one.report.rate, -one.report.tokens, -one.report.calls) for one in candidates}
    left, found, front = list(candidates), list[Candidate](), 0
    while left:
        best = [one for one in left if not any(_beats(values[id(other)], values[id(one)]) for other in left)]
        front = front or len(best)
        found += sorted(best, key=lambda one: values[id(one)], reverse=True)
        left = [one for one in left if one not in best]
    return found, front


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def signature(recipe: Recipe) -> str:
    """What a recipe is made of, whatever it is called."""
    return repr(replace(recipe, name="-", about="", notes={}))


def paired(
    one: Sequence[bool], other: Sequence[bool], *, seed: int = 0, draws: int = 10_000
) -> tuple[float, float, float]:
    """The difference of two rates over the same tasks, and its 95 % interval (percentile bootstrap over tasks)."""
    gaps = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    picks = np.random.default_rng(seed).integers(len(gaps), size=(draws, len(gaps)))
    low, high = np.percentile(gaps[picks].mean(axis=1), (2.5, 97.5))
    return float(gaps.mean()), float(low), float(high)


def told(evolution: Evolution) -> list[dict[str, Any]]:
    """The rounds, JSON-ready."""
    return [
        {
            "front": one.front,
            "candidates": [
                {**candidate.report.to_dict(), "parent": candidate.parent, "changed": str(candidate.changed)}
                for candidate in one.candidates
            ],
        }
        for one in evolution.rounds
    ]
