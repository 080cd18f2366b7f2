"""The solver of ArcMemo's claim (arXiv 2509.04439): programs in the order of their cost, so many at most, checked on the pairs.

A routine, whether a primitive or a concept with its arguments filled in, costs one. Among programs of one cost those come first
whose routines stand first: what a memory brings stands before the primitives. A program that does what an earlier one does on all
pairs is not extended (observational equivalence), in every arm alike. Each candidate counts, also one that could not be run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from holdfast.claims.concept_grids import SIGNATURES, Grid, Program, Step, done, instances
from holdfast.claims.concept_world import Pair, Task

Code: TypeAlias = tuple[int, ...]
State: TypeAlias = tuple[int, ...]

FAILED = -1
"""In place of a grid, where a program cannot be run."""
DEEPEST = 4
"""Routines of a program at most."""
HOLDS_OUT = 3
"""Where there are so many pairs, the last one verifies what fits the others."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to. ``tried``: the number of the candidate, from 1; ``program`` is None where none fits.

    ``verified``: no earlier candidate fitted all pairs but the last, so that this one told of the last before it saw it.
    """

    program: Program | None
    tried: int
    verified: bool = False


class Bench:
    """One task, with everything that was ever run on it: arms that try the same program run it once."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.primitives: tuple[Program, ...] = tuple(
            (step,) for op in SIGNATURES for step in instances(op, task.colours)
        )
        self._steps: list[Step] = []
        self._numbers: dict[Step, int] = {}
        self._boards = [_Board(pair, self._steps) for pair in task.train]
        self._sweeps: dict[tuple[Code, ...], _Sweep] = {}

    def coded(self, program: Program) -> Code:
        """A program as the numbers of its steps."""
        for step in program:
            if step not in self._numbers:
                self._numbers[step] = len(self._steps)
                self._steps.append(step)
        return tuple(self._numbers[step] for step in program)

    def program(self, code: Code) -> Program:
        """The inverse of ``coded``."""
        return tuple(self._steps[number] for number in code)

    def swept(self, routines: Sequence[Program]) -> _Sweep:
        """The programs of these routines and the primitives after them."""
        grammar = tuple(dict.fromkeys(map(self.coded, (*routines, *self.primitives))))
        if grammar not in self._sweeps:
            self._sweeps[grammar] = _Sweep(self, grammar)
        return self._sweeps[grammar]

    def start(self) -> State:
        """Where every program begins."""
        return (0,) * len(self._boards)

    def after(self, code: Code, state: State) -> State | None:
        """What a program makes of the grids of all pairs; None where it cannot be run on one."""
        new = []
        for board, at in zip(self._boards, state, strict=True):
            if (made := board.after(code, at)) == FAILED:
                return None
            new.append(made)
        return tuple(new)

    def fits(self, code: Code, state: State) -> int:
        """So many pairs, from the first on, does a program solve from there."""
        for number, board in enumerate(self._boards):
            if board.after(code, state[number]) != board.wanted:
                return number
        return len(self._boards)


class _Board:
    """The grids that were made of one input, by number; the input is 0."""

    def __init__(self, pair: Pair, steps: Sequence[Step]) -> None:
        self._given, self._steps = pair.given, steps
        self._grids: list[Grid] = []
        self._numbers: dict[tuple[int, bytes], int] = {}
        self._made: dict[tuple[int, int], int] = {}
        self._number(pair.given)
        self.wanted = self._number(pair.wanted)

    def after(self, code: Code, at: int) -> int:
        for step in code:
            made = self._made.get((at, step))
            if made is None:
                grid = done(self._steps[step], self._grids[at], self._given)
                made = self._made[at, step] = FAILED if grid is None else self._number(grid)
            if made == FAILED:
                return FAILED
            at = made
        return at

    def _number(self, grid: Grid) -> int:
        key = grid.shape[1], grid.tobytes()
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = len(self._grids)
            self._grids.append(grid)
        return found


def search(bench: Bench, routines: Sequence[Program] = (), budget: int = 8_000, first: Iterable[Program] = ()) -> Found:
    """The first program that fits all pairs. ``routines`` stand before the primitives; ``first`` are whole programs that are tried
    before any other."""
    pairs = len(bench.task.train)
    almost, tried = False, 0
    for program in dict.fromkeys(first):
        if tried == budget:
            return Found(None, tried)
        tried += 1
        fit = bench.fits(bench.coded(program), bench.start())
        if fit == pairs:
            return Found(program, tried, pairs >= HOLDS_OUT and not almost)
        almost |= fit == pairs - 1
    found = bench.swept(routines).upto(budget - tried)
    return Found(found.program, tried + found.tried, found.verified and not almost)


class _Sweep:
    """The programs of one grammar in their order, as far as they were asked for: arms with the same routines, and a budget that is
    larger, go on from there."""

    def __init__(self, bench: Bench, grammar: Sequence[Code]) -> None:
        self._bench, self._pairs = bench, len(bench.task.train)
        self._coming = _candidates(bench, grammar)
        self._tried, self._almost = 0, False
        self._found: Found | None = None

    def upto(self, budget: int) -> Found:
        """What a search with a budget finds."""
        while self._found is None and self._tried < budget:
            one = next(self._coming, None)
            if one is None:
                break
            before, state, code = one
            self._tried += 1
            fit = self._bench.fits(code, state)
            if fit == self._pairs:
                verified = self._pairs >= HOLDS_OUT and not self._almost
                self._found = Found(self._bench.program(before + code), self._tried, verified)
            self._almost |= fit == self._pairs - 1
        if self._found is not None and self._found.tried <= budget:
            return self._found
        return Found(None, min(budget, self._tried))


def _candidates(bench: Bench, grammar: Sequence[Code]) -> Iterator[tuple[Code, State, Code]]:
    start = bench.start()
    seen = {start}
    level = _Level(iter([((), start)]))
    for _ in range(DEEPEST):
        yield from level.extended(grammar)
        level = _Level(_new(bench, level, grammar, seen))


class _Level:
    """The programs of one cost that are extended, as far as they were asked for."""

    def __init__(self, coming: Iterator[tuple[Code, State]]) -> None:
        self._coming = coming
        self._held: list[tuple[Code, State]] = []

    def extended(self, grammar: Sequence[Code]) -> Iterator[tuple[Code, State, Code]]:
        """Each of them with each routine: by the sum of their places, of these the earlier program first."""
        total = 0
        while True:
            begin = max(0, total - len(grammar) + 1)
            if not self._reaches(begin):
                return
            for at in range(begin, total + 1):
                if not self._reaches(at):
                    break
                yield (*self._held[at], grammar[total - at])
            total += 1

    def _reaches(self, at: int) -> bool:
        while len(self._held) <= at:
            one = next(self._coming, None)
            if one is None:
                return False
            self._held.append(one)
        return True


def _new(bench: Bench, level: _Level, grammar: Sequence[Code], seen: set[State]) -> Iterator[tuple[Code, State]]:
    """What a level comes to, where no program before it came to the same."""
    for before, state, code in level.extended(grammar):
        after = bench.after(code, state)
        if after is not None and after not in seen:
            seen.add(after)
            yield before + code, after
