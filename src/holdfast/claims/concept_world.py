"""The tasks of ArcMemo's claim (arXiv 2509.04439): programs of latent motifs with fresh parameters, and the cues that pairs give.

A motif is a chain of two or three steps, some of whose arguments are free. Motifs are used as often as Zipf's law has it. A task is
one or two of them, its free arguments drawn anew, with three pairs to learn from and one to be tested on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.claims.concept_grids import (
    LARGEST,
    SIGNATURES,
    Grid,
    Program,
    Step,
    domain,
    done,
    holes,
    instances,
    run,
    things,
)
from holdfast.errors import ClaimError

MOTIFS, PALETTE = 40, (1, 2, 3, 4, 5, 6)
PAIRS = 3
"""To learn from."""
TWO = 0.5
"""So many tasks are of two motifs."""
FREE = 2
"""Arguments of a motif that are free at most; one at least."""
TRAINING = "arc/arc_agi_1_training.jsonl"


@dataclass(frozen=True, slots=True)
class Pair:
    """An input and its output."""

    given: Grid
    wanted: Grid


@dataclass(frozen=True, slots=True)
class Task:
    """A task. ``program`` solves it, and ``motifs`` are those that it is of; neither is known of a real one."""

    name: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]
    program: Program = ()
    motifs: tuple[int, ...] = ()

    @property
    def colours(self) -> tuple[int, ...]:
        """What occurs in the pairs to learn from, but for the ground."""
        seen = {int(one) for pair in self.train for grid in (pair.given, pair.wanted) for one in np.unique(grid)}
        return tuple(sorted(seen - {0}))


@dataclass(frozen=True, slots=True)
class Motif:
    """A template: ``?`` and a number is a free argument, of the type of its place."""

    steps: Program

    @property
    def free(self) -> dict[str, str]:
        """The types of the free arguments."""
        return {
            arg: kind
            for step in self.steps
            for arg, kind in zip(step.args, SIGNATURES[step.op], strict=True)
            if isinstance(arg, str) and arg.startswith("?")
        }


@dataclass(frozen=True, slots=True)
class World:
    """The motifs, solved tasks to learn from, and tasks to be tested on."""

    motifs: tuple[Motif, ...]
    seeds: tuple[Task, ...]
    tests: tuple[Task, ...]


def drawn(seed: int, seeds: int, tests: int) -> World:
    """A world."""
    random = np.random.default_rng([25, seed])
    motifs: dict[str, Motif] = {}
    while len(motifs) < MOTIFS:
        one = _motif(random)
        skeleton = " ".join(step.op for step in one.steps)
        # No two motifs are one another's beginning or the like: each is an abstraction of its own.
        if not any(skeleton in held or held in skeleton for held in motifs) and _works(one, random):
            motifs[skeleton] = one
    book = tuple(motifs.values())
    weights = 1 / np.arange(1, MOTIFS + 1)
    tasks = [_task(f"{at}", book, weights / weights.sum(), random) for at in range(seeds + tests)]
    return World(book, tuple(tasks[:seeds]), tuple(tasks[seeds:]))


def _motif(random: np.random.Generator) -> Motif:
    ops = random.choice([*SIGNATURES], size=int(random.integers(2, 4)), replace=False).tolist()
    steps = [_one([*instances(op, PALETTE)], random) for op in ops]
    places = [(at, arg) for at, step in enumerate(steps) for arg in range(len(step.args))]
    random.shuffle(places)
    for number, (at, arg) in enumerate(places[: int(random.integers(1, FREE + 1))]):
        args = list(steps[at].args)
        args[arg] = f"?{number}"
        steps[at] = Step(steps[at].op, tuple(args))
    return Motif(tuple(steps))


def filled(motif: Motif, random: np.random.Generator) -> Program:
    """A motif with its free arguments drawn."""
    values = {name: _one(domain(kind, PALETTE), random) for name, kind in motif.free.items()}
    return tuple(
        Step(step.op, tuple(values.get(arg, arg) if isinstance(arg, str) else arg for arg in step.args))
        for step in motif.steps
    )


def _works(motif: Motif, random: np.random.Generator) -> bool:
    """Whether the motif has a free argument, and does something as often as not."""
    return bool(motif.free) and sum(_pairs(filled(motif, random), random) is not None for _ in range(12)) >= 4


def _task(name: str, motifs: Sequence[Motif], weights: np.ndarray, random: np.random.Generator) -> Task:
    while True:
        count = 1 + int(random.random() < TWO)
        numbers = tuple(random.choice(len(motifs), size=count, replace=False, p=weights).tolist())
        # What was drawn is kept if it can be: otherwise motifs that seldom work would be seldom used.
        for _ in range(30):
            program = tuple(step for number in numbers for step in filled(motifs[number], random))
            if (pairs := _pairs(program, random)) is not None:
                return Task(name, tuple(pairs[:PAIRS]), tuple(pairs[PAIRS:]), program, numbers)


def _pairs(program: Program, random: np.random.Generator) -> list[Pair] | None:
    """Pairs of which the program is the rule; None where one of its steps is idle or needless, or all outputs are alike."""
    colours = random.choice(PALETTE, size=3, replace=False)
    named = [int(str(step.args[0])) for step in program if step.op in ("recolour", "erase")]
    colours[: len(named)] = named[:3]
    pairs, idle = [], [0] * len(program)
    for _ in range(PAIRS + 1):
        given = _scene(colours, random)
        now = given
        for at, step in enumerate(program):
            new = done(step, now, given)
            if new is None or not new.any():
                return None
            idle[at] += new.shape == now.shape and bool((new == now).all())
            now = new
        if max(now.shape) > LARGEST or (now.shape == given.shape and bool((now == given).all())):
            return None
        pairs.append(Pair(given, now))
    if max(idle) > 1 or len({pair.wanted.tobytes() for pair in pairs}) <= PAIRS:
        return None
    less = (program[:at] + program[at + 1 :] for at in range(len(program)))
    return None if any(solves(one, pairs) for one in less) else pairs


def _scene(colours: np.ndarray, random: np.random.Generator) -> Grid:
    """Some objects on the ground, apart from one another: blocks, rings and crooked ones."""
    rows, columns = random.integers(7, 12, size=2).tolist()
    grid = np.zeros((rows, columns), np.uint8)
    for _ in range(int(random.integers(3, 7))):
        height, width = random.integers(1, 5, size=2).tolist()
        top, left = int(random.integers(0, rows - height + 1)), int(random.integers(0, columns - width + 1))
        around = grid[max(top - 1, 0) : top + height + 1, max(left - 1, 0) : left + width + 1]
        if around.any():
            continue
        shape = np.ones((height, width), np.bool_)
        form = random.random()
        if form < 0.4 and height > 2 and width > 2:
            shape[1:-1, 1:-1] = False
        elif form < 0.7:
            shape[int(random.integers(height)), int(random.integers(width))] = False
        grid[top : top + height, left : left + width][shape] = random.choice(colours)
    return grid


def real(data: Path | None) -> list[Task]:
    """The training tasks of ARC-AGI-1. Raises ClaimError where they are not there."""
    path = None if data is None else data / TRAINING
    if path is None or not path.is_file():
        raise ClaimError(f"the tasks of ARC-AGI-1 ({TRAINING}) are needed: give --data FOLDER")
    tasks = []
    for line in path.read_text("utf-8").splitlines():
        held = json.loads(line)
        train, test = (tuple(_pair(one) for one in held[part]) for part in ("train", "test"))
        tasks.append(Task(held["task_id"], train, test))
    return tasks


def _pair(held: Any) -> Pair:
    return Pair(np.asarray(held["input"], np.uint8), np.asarray(held["output"], np.uint8))


def solves(program: Program, pairs: Sequence[Pair]) -> bool:
    """Whether a program is right on all pairs."""
    made = [run(program, pair.given) for pair in pairs]
    return all(
        one is not None and one.shape == pair.wanted.shape and bool((one == pair.wanted).all())
        for one, pair in zip(made, pairs, strict=True)
    )


# --- cues ---


def cues(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """What holds of all the pairs, and can be seen before the task is solved."""
    common: dict[str, None] | None = None
    for pair in pairs:
        here = _seen(pair.given, pair.wanted)
        common = dict.fromkeys(here) if common is None else {cue: None for cue in common if cue in here}
    return tuple(common or ())


def _seen(given: Grid, wanted: Grid) -> list[str]:
    before, after = {*np.unique(given).tolist()} - {0}, {*np.unique(wanted).tolist()} - {0}
    rows, columns = (wanted.shape[at] / given.shape[at] for at in (0, 1))
    first, then = things(given), things(wanted)
    filled, ground = wanted != 0, (wanted == 0).any()
    said = {
        f"the output has {_times(rows)} the rows of the input": True,
        f"the output has {_times(columns)} the columns of the input": True,
        "the output is the input's transpose in size": wanted.shape == given.shape[::-1] != wanted.shape[::-1],
        "a new colour appears": bool(after - before),
        "a colour is gone": bool(before - after),
        "the colours stay": before == after,
        "the output has one colour": len(after) == 1,
        "there are fewer objects": len(then) < len(first),
        "there are more objects": len(then) > len(first),
        "there are as many objects": len(then) == len(first),
        "one object is left": len(then) == 1,
        "the output is the same from left to right": _same(wanted, wanted[:, ::-1]),
        "the output is the same from top to bottom": _same(wanted, wanted[::-1]),
        "the output touches all edges": bool(
            filled[0].any() and filled[-1].any() and filled[:, 0].any() and filled[:, -1].any()
        ),
        "the output has a frame of one colour": _framed(wanted),
        "no ground is left": not ground,
        "the cells of the output rest at the bottom": _rests(filled),
        "the cells of the output rest at the top": _rests(filled[::-1]),
        "the cells of the output rest at the right": _rests(filled.T),
        "the cells of the output rest at the left": _rests(filled.T[::-1]),
        "the output is twice the same, side by side": _twice(wanted.T),
        "the output is twice the same, one above the other": _twice(wanted),
        "the output is made of blocks of two by two": _blocks(wanted),
        "holes are gone": bool(holes(given).any() and not holes(wanted).any()),
    }
    if given.shape == wanted.shape:
        was = given != 0
        changed = given != wanted
        said |= {
            "the filled cells stay": _same(was, filled),
            "cells are only added": bool((given == wanted)[was].all()),
            "cells are only taken away": bool((given == wanted)[filled].all()),
            "cells are only recoloured, or taken away": bool((was | ~filled).all()),
            "less than a quarter of the cells change": bool(changed.mean() < 0.25),
            "every object changes within its own box": _local(given, wanted),
        }
    return [cue for cue, holds in said.items() if holds]


def _times(ratio: float) -> str:
    return {1.0: "as many times", 2.0: "twice", 0.5: "half"}.get(ratio, "fewer than" if ratio < 1 else "more than")


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool((one == other).all())


def _framed(grid: Grid) -> bool:
    edge = np.concatenate([grid[0], grid[-1], grid[:, 0], grid[:, -1]])
    return bool(edge[0] != 0 and (edge == edge[0]).all())


def _rests(filled: np.ndarray) -> bool:
    """Whether beneath a filled cell there is no empty one."""
    return bool((filled[1:] >= filled[:-1]).all())


def _twice(grid: Grid) -> bool:
    half, odd = divmod(len(grid), 2)
    return not odd and half > 0 and bool((grid[:half] == grid[half:]).all())


def _blocks(grid: Grid) -> bool:
    if grid.shape[0] % 2 or grid.shape[1] % 2:
        return False
    return bool((grid == grid[::2, ::2].repeat(2, axis=0).repeat(2, axis=1)).all())


def _local(given: Grid, wanted: Grid) -> bool:
    inside = np.zeros(given.shape, np.bool_)
    for one in things(given):
        inside[one.top : one.bottom, one.left : one.right] = True
    return bool((given == wanted)[~inside].all()) and not _same(given, wanted)


def _one(some: Sequence[Any], random: np.random.Generator) -> Any:
    return some[int(random.integers(len(some)))]
