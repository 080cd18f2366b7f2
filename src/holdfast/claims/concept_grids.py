"""A small language of grids for ArcMemo's claim (arXiv 2509.04439): 24 typed primitives, of which two take functions.

Eighteen change a grid; six say something of an object, for ``select``. A program is a chain of steps. Grids are arrays of colours,
0 (the ground) to 9, shape (rows, columns); what cannot be done gives None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Grid: TypeAlias = npt.NDArray[np.uint8]

LARGEST = 30
"""Rows, and columns, of a grid at most."""

COLOUR, DIRECTION, AXIS, HALF_TURN, PREDICATE, FUNCTION = (
    *("Colour", "Direction", "Axis", "Turns"),
    *("Predicate := Object -> bool", "Function := Grid -> Grid"),
)
"""The types of arguments, as typings of parameters."""

DIRECTIONS, AXES, MIRRORS, TURNS = ("up", "down", "left", "right"), ("h", "v", "d"), ("h", "v"), ("1", "2", "3")


@dataclass(frozen=True, slots=True)
class Step:
    """A primitive and its arguments: words, or a step where a function is asked for."""

    op: str
    args: tuple[str | Step, ...] = ()

    def __str__(self) -> str:
        return f"{self.op}({', '.join(map(str, self.args))})"


Program: TypeAlias = tuple[Step, ...]


def written(program: Sequence[Step]) -> str:
    """A program as text; ``parsed`` reads it back."""
    return " | ".join(map(str, program))


def parsed(text: str) -> Program:
    """The program that a text says. Raises ValueError for what is none."""
    return tuple(_step(part.strip()) for part in text.split("|"))


def _step(text: str) -> Step:
    op, bracket, rest = text.partition("(")
    if not bracket or not rest.endswith(")") or not op:
        raise ValueError(f"{text!r} is no step")
    inner, args, depth, word = rest[:-1], list[str](), 0, ""
    for letter in inner + ",":
        if letter == "," and not depth:
            args += [word.strip()] if word.strip() else []
            word = ""
            continue
        depth += (letter == "(") - (letter == ")")
        word += letter
    return Step(op, tuple(_step(arg) if "(" in arg else arg for arg in args))


# --- objects ---


@dataclass(frozen=True, slots=True)
class Thing:
    """One object: cells of one colour that touch at their sides. ``mask`` is of the whole grid."""

    mask: npt.NDArray[np.bool_]
    top: int
    left: int
    bottom: int
    right: int
    colour: int
    size: int


def things(grid: Grid) -> tuple[Thing, ...]:
    """The objects of a grid, from the top left."""
    return _things(grid.tobytes(), grid.shape[1])


@lru_cache(maxsize=20_000)
def _things(held: bytes, columns: int) -> tuple[Thing, ...]:
    rows, wide = len(held) // columns, columns + 1
    # One row of ground around all, and one cell between rows, so that no cell has a neighbour that is not there.
    padded = np.zeros((rows + 2, wide), np.uint8)
    padded[1:-1, :-1] = np.frombuffer(held, np.uint8).reshape(rows, columns)
    cells = padded.ravel().tolist()
    found = []
    for start in np.flatnonzero(padded).tolist():
        if not (colour := cells[start]):
            continue
        cells[start] = 0
        its = [start]
        for at in its:  # it grows meanwhile
            for near in (at + 1, at - 1, at + wide, at - wide):
                if cells[near] == colour:
                    cells[near] = 0
                    its.append(near)
        mask = np.zeros((rows + 2) * wide, np.bool_)
        mask[its] = True
        xs = [at % wide for at in its]
        top, bottom = min(its) // wide - 1, max(its) // wide
        whole = mask.reshape(rows + 2, wide)[1:-1, :-1]
        found.append(Thing(whole, top, min(xs), bottom, max(xs) + 1, colour, len(its)))
    return tuple(found)


def holes(grid: Grid) -> npt.NDArray[np.bool_]:
    """Cells of the ground from which no way over the ground leads to the edge; not to be written to."""
    return _holes(grid.tobytes(), grid.shape[1])


@lru_cache(maxsize=20_000)
def _holes(held: bytes, columns: int) -> npt.NDArray[np.bool_]:
    grid = np.frombuffer(held, np.uint8).reshape(-1, columns)
    rows = len(grid)
    outside = np.zeros((rows + 2, columns + 2), np.bool_)
    ground = np.ones((rows + 2, columns + 2), np.bool_)
    ground[1:-1, 1:-1] = grid == 0
    outside[0] = outside[-1] = True
    outside[:, 0] = outside[:, -1] = True
    while True:
        grown = outside.copy()
        grown[1:] |= outside[:-1]
        grown[:-1] |= outside[1:]
        grown[:, 1:] |= outside[:, :-1]
        grown[:, :-1] |= outside[:, 1:]
        grown &= ground
        if (grown == outside).all():
            return (ground & ~outside)[1:-1, 1:-1]
        outside = grown


# --- primitives ---


def _flip(grid: Grid, axis: str) -> Grid:
    return grid[:, ::-1] if axis == "h" else grid[::-1] if axis == "v" else grid.T


def _gravity(grid: Grid, to: str) -> Grid:
    turned = grid.T if to in ("up", "down") else grid
    filled = turned != 0
    order = np.argsort(filled if to in ("down", "right") else ~filled, axis=1, kind="stable")
    moved = np.take_along_axis(turned, order, axis=1)
    return moved.T if to in ("up", "down") else moved


def _crop(grid: Grid) -> Grid | None:
    rows, columns = np.flatnonzero(grid.any(axis=1)), np.flatnonzero(grid.any(axis=0))
    return grid[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else None


def _outline(grid: Grid, colour: int) -> Grid:
    wide = np.zeros((grid.shape[0], grid.shape[1] + 2), np.bool_)
    wide[:, 1:-1] = grid != 0
    wide = wide[:, :-2] | wide[:, 1:-1] | wide[:, 2:]
    near = wide.copy()
    near[1:] |= wide[:-1]
    near[:-1] |= wide[1:]
    return np.where(near & (grid == 0), np.uint8(colour), grid)


def _frame(grid: Grid, colour: int) -> Grid:
    new = grid.copy()
    new[0] = new[-1] = colour
    new[:, 0] = new[:, -1] = colour
    return new


def _symmetrise(grid: Grid, axis: str) -> Grid:
    return np.where(grid != 0, grid, _flip(grid, axis))


def _half(grid: Grid, side: str) -> Grid | None:
    rows, columns = grid.shape
    if (rows if side in ("up", "down") else columns) < 2:
        return None
    half = {
        "up": grid[: rows // 2],
        "down": grid[(rows + 1) // 2 :],
        "left": grid[:, : columns // 2],
        "right": grid[:, (columns + 1) // 2 :],
    }
    return half[side]


def _select(grid: Grid, predicate: str) -> Grid | None:
    all_of_it = things(grid)
    if not all_of_it:
        return None
    kept = np.zeros(grid.shape, np.bool_)
    for one in all_of_it:
        if PREDICATES[predicate](grid, one, all_of_it):
            kept |= one.mask
    return np.where(kept, grid, np.uint8(0))


def _largest(grid: Grid) -> Grid | None:
    best = max(things(grid), key=lambda one: one.size, default=None)
    return None if best is None else np.where(best.mask, grid, np.uint8(0))


def _map(grid: Grid, function: Step) -> Grid | None:
    new = np.zeros_like(grid)
    for one in things(grid):
        box = slice(one.top, one.bottom), slice(one.left, one.right)
        part = np.where(one.mask[box], grid[box], np.uint8(0))
        made = _mapped(function, part.tobytes(), part.shape[1])
        if made is None or made.shape != part.shape:
            return None
        new[box] = np.where(made != 0, made, new[box])
    return new


@lru_cache(maxsize=50_000)
def _mapped(function: Step, held: bytes, columns: int) -> Grid | None:
    """What a step makes of one object: the same objects stand in one grid after another."""
    part = np.frombuffer(held, np.uint8).reshape(-1, columns)
    return done(function, part, part)


PREDICATES: Mapping[str, Callable[[Grid, Thing, Sequence[Thing]], bool]] = {
    "smallest": lambda _, one, others: one.size == min(other.size for other in others),
    "at_edge": lambda grid, one, _: (
        one.top == 0 or one.left == 0 or one.bottom == grid.shape[0] or one.right == grid.shape[1]
    ),
    "holed": lambda _grid, one, _: bool(holes(one.mask.astype(np.uint8)).any()),
    "mirrored": lambda _grid, one, _: _mirrored(one.mask[one.top : one.bottom, one.left : one.right]),
    "wide": lambda _grid, one, _: one.right - one.left > one.bottom - one.top,
    "solid": lambda _grid, one, _: one.size == (one.bottom - one.top) * (one.right - one.left),
}
"""Six of the primitives: what may be said of an object, beside the grid and all of its objects."""


def _mirrored(mask: npt.NDArray[np.bool_]) -> bool:
    return bool((mask == mask[:, ::-1]).all() or (mask == mask[::-1]).all())


SIGNATURES: Mapping[str, tuple[str, ...]] = {
    "flip": (AXIS,),
    "rotate": (HALF_TURN,),
    "recolour": (COLOUR, COLOUR),
    "paint": (COLOUR,),
    "gravity": (DIRECTION,),
    "crop": (),
    "keep_largest": (),
    "outline": (COLOUR,),
    "fill_holes": (COLOUR,),
    "tile": (AXIS,),
    "symmetrise": (AXIS,),
    "select": (PREDICATE,),
    "map": (FUNCTION,),
    "overlay": (),
    "scale": (),
    "frame": (COLOUR,),
    "erase": (COLOUR,),
    "half": (DIRECTION,),
}
"""Eighteen primitives that change a grid, each with the types of its arguments."""

_INNER = ("flip", "paint", "fill_holes", "frame", "symmetrise")
"""Those that ``map`` may do to each object."""


def done(step: Step, grid: Grid, given: Grid) -> Grid | None:
    """What a step makes of a grid; ``given`` is the input of its task. None where it cannot be done."""
    arg = step.args[0] if step.args else ""
    match step.op:
        case "flip":
            new: Grid | None = _flip(grid, str(arg))
        case "rotate":
            new = np.rot90(grid, int(str(arg)))
        case "recolour":
            new = np.where(grid == int(str(arg)), np.uint8(int(str(step.args[1]))), grid)
        case "paint":
            new = np.where(grid != 0, np.uint8(int(str(arg))), grid)
        case "gravity":
            new = _gravity(grid, str(arg))
        case "crop":
            new = _crop(grid)
        case "keep_largest":
            new = _largest(grid)
        case "outline":
            new = _outline(grid, int(str(arg)))
        case "fill_holes":
            new = np.where(holes(grid), np.uint8(int(str(arg))), grid)
        case "tile":
            new = np.tile(grid, (1 + (arg != "h"), 1 + (arg != "v")))
        case "symmetrise":
            new = _symmetrise(grid, str(arg)) if arg != "d" or grid.shape[0] == grid.shape[1] else None
        case "select":
            new = _select(grid, str(arg))
        case "map":
            assert isinstance(arg, Step)
            new = _map(grid, arg)
        case "overlay":
            new = np.where(grid != 0, grid, given) if grid.shape == given.shape else None
        case "scale":
            new = grid.repeat(2, axis=0).repeat(2, axis=1)
        case "frame":
            new = _frame(grid, int(str(arg)))
        case "erase":
            new = np.where(grid == int(str(arg)), np.uint8(0), grid)
        case "half":
            new = _half(grid, str(arg))
        case _:
            return None
    if new is None or max(new.shape) > LARGEST:
        return None
    return np.ascontiguousarray(new, np.uint8)


def run(program: Sequence[Step], grid: Grid) -> Grid | None:
    """What a program makes of a grid."""
    now: Grid | None = grid
    for step in program:
        if now is None:
            return None
        now = done(step, now, grid)
    return now


def domain(kind: str, colours: Sequence[int], *, inner: bool = False) -> list[str | Step]:
    """The arguments of a type, where some colours are in play. ``inner``: of what is done to one object."""
    match kind:
        case "Colour":
            return [str(colour) for colour in colours]
        case "Direction":
            return [*DIRECTIONS]
        case "Axis":
            return [*(MIRRORS if inner else AXES)]
        case "Turns":
            return [*TURNS]
        case one if one == PREDICATE:
            return [*PREDICATES]
        case _:
            return [step for op in _INNER for step in instances(op, colours, inner=True)]


def instances(op: str, colours: Sequence[int], *, inner: bool = False) -> Iterator[Step]:
    """A primitive with all the arguments that it can have; one that would recolour to itself is none."""
    for args in product(*(domain(kind, colours, inner=inner) for kind in SIGNATURES[op])):
        if op != "recolour" or args[0] != args[1]:
            yield Step(op, args)
