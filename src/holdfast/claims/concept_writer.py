"""Who writes and chooses concepts in ArcMemo's claim, in a model's place (arXiv 2509.04439): anti-unification, and cues.

Of two solved programs the longest chains of the same primitives are what they have in common. Their least general generalisation
is a template: where they differ stands a parameter, where two places differ alike it is the same one, and where functions differ it
is a routine. What is written is a record as a model writes it, and goes the same way: ``concept_text.read``, merged by name, shown
by ``hint``. What is solved with is read back out of that text.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from holdfast.claims.concept_grids import SIGNATURES, Program, Step, domain, parsed, written
from holdfast.claims.concept_world import Task, cues
from holdfast.encode.concept_text import hint, read
from holdfast.encode.concepts import GRID, Concept

LONGEST, SHORTEST = 6, 2
"""Steps of a concept."""

_Term = str | Step


@dataclass(frozen=True, slots=True)
class Solved:
    """A task that was solved: its program and its cues."""

    name: str
    program: Program
    cues: tuple[str, ...]

    @classmethod
    def of(cls, task: Task, program: Program) -> Solved:
        """A task with what solved it."""
        return cls(task.name, program, cues(task.train))


def skeleton(program: Sequence[Step]) -> str:
    """The primitives of a chain, which is the name of its concept."""
    return " then ".join(step.op for step in program)


def generalised(one: Program, other: Program) -> Program:
    """The least general template of two chains of the same primitives; a parameter is named by its first place."""
    held: dict[tuple[_Term, _Term], str] = {}

    def term(a: _Term, b: _Term, place: str) -> _Term:
        if a == b and not _free(a):
            return a
        if isinstance(a, Step) and isinstance(b, Step) and a.op == b.op:
            args = (term(x, y, f"{place}_{at}") for at, (x, y) in enumerate(zip(a.args, b.args, strict=True), 1))
            return Step(a.op, tuple(args))
        return held.setdefault((a, b), f"?{place}")

    return tuple(
        Step(x.op, tuple(term(a, b, f"{at}_{n}") for n, (a, b) in enumerate(zip(x.args, y.args, strict=True), 1)))
        for at, (x, y) in enumerate(zip(one, other, strict=True), 1)
    )


def common(one: Program, other: Program) -> list[tuple[Program, Program]]:
    """The longest chains of the same primitives in two programs, as they stand in each."""
    found: dict[str, tuple[Program, Program]] = {}
    for at in range(len(one)):
        for to in range(len(other)):
            if at and to and one[at - 1].op == other[to - 1].op:
                continue  # it began earlier
            length = 0
            while at + length < len(one) and to + length < len(other) and one[at + length].op == other[to + length].op:
                length += 1
            if SHORTEST <= length <= LONGEST:
                chains = one[at : at + length], other[to : to + length]
                found.setdefault(skeleton(chains[0]), chains)
    return list(found.values())


def parameters(template: Program) -> dict[str, str]:
    """The parameters of a template, each with its type."""
    found: dict[str, str] = {}

    def walk(step: Step) -> None:
        for arg, kind in zip(step.args, SIGNATURES[step.op], strict=True):
            if isinstance(arg, Step):
                walk(arg)
            elif _free(arg):
                found[arg] = kind

    for step in template:
        walk(step)
    return found


def filled(template: Program, colours: Sequence[int]) -> Iterator[Program]:
    """The template with its parameters filled in, in every way that there is where some colours are in play."""
    free = parameters(template)
    inner = {arg for step in template for held in step.args if isinstance(held, Step) for arg in held.args}
    for values in product(*(domain(kind, colours, inner=name in inner) for name, kind in free.items())):
        chosen = dict(zip(free, values, strict=True))
        yield tuple(_with(step, chosen) for step in template)


def _with(step: Step, values: Mapping[str, _Term]) -> Step:
    return Step(step.op, tuple(_with(a, values) if isinstance(a, Step) else values.get(a, a) for a in step.args))


def _free(term: _Term) -> bool:
    return isinstance(term, str) and term.startswith("?")


# --- the writer ---

Record = tuple[dict[str, Any], tuple[str, ...]]
"""What is written, and the names of the tasks that it is from."""


class Book:
    """A memory of concepts and its writer. ``exact``: each use by itself, without parameters, in the open-ended format's place."""

    def __init__(self, *, exact: bool = False) -> None:
        self.exact = exact
        self.past: list[Solved] = []
        self.concepts: dict[str, Concept] = {}
        self._templates: dict[str, Program] = {}

    def add(self, solved: Solved) -> None:
        """Take in a solved task: its records are read, and merged with those there are."""
        for record, names in self.written(solved):
            (one,), _ = read([record])
            new = replace(one, used_in=names)
            self.concepts[new.name] = self.concepts[new.name].merged(new) if new.name in self.concepts else new

    def written(self, solved: Solved) -> list[Record]:
        """The records that a solved task leads to, beside those that were solved before it."""
        records: list[Record] = []
        known: set[str] = set()
        for other in self.past:
            for its, theirs in common(solved.program, other.program):
                if (name := skeleton(its)) not in known:
                    known.add(name)
                    records += self._exactly(solved, its) if self.exact else self._generally(solved, its, other, theirs)
                if self.exact:
                    records += self._exactly(other, theirs)
        self.past.append(solved)
        return records

    def _exactly(self, solved: Solved, chain: Program) -> list[Record]:
        return [(_record(written(chain), chain, solved.cues), (solved.name,))]

    def _generally(self, one: Solved, its: Program, other: Solved, theirs: Program) -> list[Record]:
        name = skeleton(its)
        known = self._templates.get(name)
        template = self._templates[name] = generalised(known or theirs, its)
        old = [] if known else [(_record(name, template, other.cues), (other.name,))]
        return [*old, (_record(name, template, one.cues), (one.name,))]


def _record(name: str, template: Program, seen: Iterable[str]) -> dict[str, Any]:
    free = parameters(template).items()
    return {
        "name": name,
        "kind": "routine",
        "routine_subtype": GRID,
        "output_typing": "Grid := array of colours",
        "parameters": [{"name": one.removeprefix("?"), "typing": kind, "description": ""} for one, kind in free],
        "description": "",
        "cues": list(seen),
        "implementation": [written(template)],
    }


# --- the selector, and what a solver reads ---


def selected(concepts: Mapping[str, Concept], seen: Sequence[str], k: int) -> list[str]:
    """The names of the ``k`` concepts whose cues match best those of a task: by the sum of what the shared cues tell, which is the
    more the fewer concepts have them; of equals the more used."""
    held = Counter(cue for one in concepts.values() for cue in one.cues)
    tells = {cue: math.log((1 + len(concepts)) / (1 + held[cue])) for cue in seen}
    scores = {name: sum(tells[cue] for cue in one.cues if cue in tells) for name, one in concepts.items()}
    return sorted(concepts, key=lambda name: (-scores[name], -len(concepts[name].used_in)))[:k]


_NAME, _NOTE = re.compile(r"^- (?!by name: )"), re.compile(r"^  note: (.*)$")


def routines(told: str, colours: Sequence[int]) -> list[Program]:
    """The routines in what a solver is told, filled in for the colours in play: of each concept the newest note, which is the most
    general."""
    notes: list[str] = []
    for line in told.splitlines():
        if _NAME.match(line):
            notes.append("")
        elif found := _NOTE.match(line):
            notes[-1] = found[1]
    return [program for note in notes if note for program in filled(parsed(note), colours)]


def brought(concepts: Mapping[str, Concept], chosen: Sequence[str], colours: Sequence[int]) -> list[Program]:
    """What the product tells of the chosen ones, as routines."""
    return routines(hint(concepts.values(), chosen), colours)
