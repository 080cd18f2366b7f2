"""The parts of ArcMemo's claim: the language of grids, the search and its budget, anti-unification, and the product's own path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.claims.c25_arcmemo import run as run_claim
from holdfast.claims.concept_arms import (
    ALL,
    INSTANCE,
    LESSONS,
    NONE,
    ORACLE,
    SELECTED,
    Memories,
    Solve,
    Stream,
    book,
    share,
    solved,
)
from holdfast.claims.concept_grids import (
    PREDICATES,
    SIGNATURES,
    Program,
    Step,
    done,
    holes,
    instances,
    parsed,
    run,
    things,
    written,
)
from holdfast.claims.concept_product import differences
from holdfast.claims.concept_search import Bench, search
from holdfast.claims.concept_world import PAIRS, Pair, Task, World, cues, drawn, real, solves
from holdfast.claims.concept_writer import (
    Book,
    Solved,
    brought,
    common,
    filled,
    generalised,
    parameters,
    selected,
    skeleton,
)
from holdfast.errors import ClaimError

COLOURS = (1, 2, 3)
STEPS = [step for op in SIGNATURES for step in instances(op, COLOURS)]
BY_OP = {op: [*instances(op, COLOURS)] for op in SIGNATURES}
some_grid = st.builds(
    lambda seed, rows, columns: np.random.default_rng(seed).integers(0, 4, (rows, columns)).astype(np.uint8),
    *(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 7)),
)
some_program = st.lists(st.sampled_from(STEPS), min_size=1, max_size=4).map(tuple)


@pytest.fixture(scope="module")
def world() -> World:
    return drawn(1_000, 30, 6)


# --- the language ---


def test_there_are_as_many_primitives_as_the_claim_says() -> None:
    assert len(SIGNATURES) + len(PREDICATES) == 24


@given(some_program)
def test_a_program_is_read_back_from_its_text(program: Program) -> None:
    assert parsed(written(program)) == program


@given(some_grid, st.sampled_from(STEPS))
def test_a_step_gives_a_grid_of_its_own_or_none(grid: np.ndarray, step: Step) -> None:
    before = grid.copy()
    made = done(step, grid, grid)
    assert (grid == before).all()
    assert made is None or (made.dtype == np.uint8 and made.size and max(made.shape) <= 30)


@given(some_grid)
def test_objects_are_what_touches_and_holes_what_is_shut_in(grid: np.ndarray) -> None:
    found = things(grid)
    assert sum(one.mask.astype(int) for one in found).max(initial=0) <= 1 if found else not grid.any()
    assert sum(one.size for one in found) == (grid != 0).sum()
    for one in found:
        assert set(grid[one.mask].tolist()) == {one.colour} and one.mask.sum() == one.size
        beside = np.pad(one.mask, 1)
        touched = (beside[:-2, 1:-1] | beside[2:, 1:-1] | beside[1:-1, :-2] | beside[1:-1, 2:]) & ~one.mask
        assert one.colour not in grid[touched]
    shut = holes(grid)
    assert not (shut & (grid != 0)).any()
    assert not shut[0].any() and not shut[-1].any() and not shut[:, 0].any() and not shut[:, -1].any()


# --- anti-unification ---


@given(st.lists(st.sampled_from(sorted(SIGNATURES)), min_size=2, max_size=4), st.data())
def test_a_template_covers_both_and_nothing_is_free_that_is_alike(ops: list[str], data: st.DataObject) -> None:
    one, other = (tuple(data.draw(st.sampled_from(BY_OP[op])) for op in ops) for _ in range(2))
    template = generalised(one, other)
    if sum(len(SIGNATURES[op]) for op in ops) <= 4:
        covered = set(filled(template, COLOURS))
        assert {one, other} <= covered
    assert generalised(one, one) == one and not parameters(one)
    assert generalised(template, other) == template == generalised(template, one), "it is learnt once"
    assert skeleton(template) == skeleton(one) and parsed(written(template)) == template


def test_places_that_differ_alike_are_one_parameter_and_functions_are_routines() -> None:
    one, other = parsed("paint(1) | outline(1) | map(flip(h))"), parsed("paint(2) | outline(2) | map(paint(3))")
    template = generalised(one, other)
    assert written(template) == "paint(?1_1) | outline(?1_1) | map(?3_1)"
    assert parameters(template) == {"?1_1": "Colour", "?3_1": "Function := Grid -> Grid"}
    third = generalised(template, parsed("paint(1) | outline(2) | map(paint(1))"))
    assert written(third) == "paint(?1_1) | outline(?2_1) | map(?3_1)", "one parameter parts into two where it must"
    within = generalised(parsed("map(paint(1))"), parsed("map(paint(2))"))
    assert written(within) == "map(paint(?1_1_1))" and len([*filled(within, COLOURS)]) == 3


def test_the_longest_common_chains_are_found() -> None:
    one, other = (
        parsed("crop() | paint(1) | scale() | flip(h)"),
        parsed("scale() | flip(v) | crop() | paint(2) | scale()"),
    )
    assert [skeleton(its) for its, _ in common(one, other)] == ["crop then paint then scale", "scale then flip"]


def test_a_book_names_again_and_generalises() -> None:
    made = Book()
    for name, text in (("a", "paint(1) | scale()"), ("b", "paint(1) | scale()"), ("c", "crop() | paint(2) | scale()")):
        made.add(Solved(name, parsed(text), (f"cue {name}",)))
    (one,) = made.concepts.values()
    assert (one.name, one.used_in, one.cues) == ("paint then scale", ("a", "b", "c"), ("cue a", "cue b", "cue c"))
    assert one.implementation == ("paint(1) | scale()", "paint(?1_1) | scale()")
    assert brought(made.concepts, [one.name], COLOURS) == [parsed(f"paint({at}) | scale()") for at in COLOURS]
    assert brought(made.concepts, [], COLOURS) == []
    exact = Book(exact=True)
    for name, text in (("a", "paint(1) | scale()"), ("b", "paint(2) | scale()")):
        exact.add(Solved(name, parsed(text), ()))
    assert list(exact.concepts) == ["paint(2) | scale()", "paint(1) | scale()"]
    assert selected(made.concepts, ["cue a"], 8) == [one.name]


# --- the search ---


def task_of(text: str, count: int = PAIRS, heart: int | None = None) -> Task:
    """A task of a program; of pair ``heart`` the output is another."""
    random = np.random.default_rng(3)
    pairs = []
    for at in range(count + 1):
        given = np.zeros((5, 6), np.uint8)
        given[1:3, 1:4], given[4, at % 5] = 1, 2
        given[random.integers(0, 5), 5] = 3
        made = run(parsed(text), given)
        assert made is not None
        pairs.append(Pair(given, np.flip(made) if at == heart else made))
    return Task("t", tuple(pairs[:count]), tuple(pairs[count:]), parsed(text))


@pytest.mark.parametrize("text", ["gravity(up)", "outline(3) | scale()", "recolour(1, 3) | tile(h)"])
def test_what_is_short_is_found_within_the_budget(text: str) -> None:
    task = task_of(text)
    bench = Bench(task)
    found = search(bench, (), 8_000)
    assert found.program is not None and solves(found.program, task.train) and solves(found.program, task.test)
    assert search(bench, (), found.tried) == found and search(bench, (), found.tried - 1).program is None
    assert search(bench, [parsed(text)], 1).program == parsed(text), "what a memory brings stands first"
    assert search(bench, (), 1, [parsed(text)]).tried == 1


def test_only_a_pair_that_was_not_looked_at_verifies() -> None:
    task = task_of("scale()")
    assert search(Bench(task)).verified
    assert not search(Bench(task_of("scale()", 2))).verified, "two pairs are too few"
    almost = Task("t", (*task.train[:2], Pair(task.train[2].given, task.train[2].given)), task.test)
    bench = Bench(almost)
    assert search(bench, (), 500).program is None
    fits = search(Bench(task), (), 50, [parsed("paint(1)"), parsed("scale()")])
    assert fits.verified and fits.tried == 2


@settings(max_examples=20, deadline=None)
@given(some_program)
def test_nothing_of_one_step_is_lost_by_pruning(program: Program) -> None:
    made = [run(program[:1], pair.given) for pair in task_of("scale()").train]
    if any(one is None for one in made):
        return
    task = Task("t", tuple(Pair(p.given, m) for p, m in zip(task_of("scale()").train, made, strict=True)), ())  # type: ignore[arg-type]
    if program[0] in {step for op in SIGNATURES for step in instances(op, task.colours)}:
        found = search(Bench(task), (), 200)
        assert found.program is not None and len(found.program) <= 1 + all(p.given is p.wanted for p in task.train)


# --- the world and the arms ---


def test_a_world_is_drawn_by_its_seed_and_its_programs_solve_it(world: World) -> None:
    again = drawn(1_000, 30, 6)
    assert [task.program for task in again.tests] == [task.program for task in world.tests]
    assert len({skeleton(motif.steps) for motif in world.motifs}) == 40
    for task in (*world.seeds, *world.tests):
        assert solves(task.program, (*task.train, *task.test)) and cues(task.train)
        assert not any(solves(task.program[:at] + task.program[at + 1 :], (*task.train, *task.test)) for at in range(len(task.program)))  # fmt: skip


def test_every_arm_keeps_to_its_budget_and_learning_begins_as_the_frozen_one(world: World) -> None:
    memories = Memories.of(world.seeds)
    went = {arm: [solved(arm, Bench(task), memories, world.motifs, 300) for task in world.tests] for arm in (NONE, INSTANCE, LESSONS, ALL, SELECTED, ORACLE)}  # fmt: skip
    assert all(one.tried <= 300 for some in went.values() for one in some)
    assert share(went[ORACLE], 300) >= share(went[NONE], 300)
    learning = Stream(world.seeds, world.motifs, [300])
    for task in world.tests:
        learning.solve(Bench(task))
    assert learning.went[300] == went[SELECTED], "the first batch is solved as it is frozen"
    assert Solve(200, True).within(200) and not Solve(201, True).within(200) and not Solve(1, False).within(200)


def test_the_products_memory_comes_to_the_same(world: World) -> None:
    assert differences(world.seeds, world.tests) == 0 and len(book(world.seeds).concepts) > 5


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ClaimError, match="--data"):
        real(None)
    with pytest.raises(ClaimError, match="--data"):
        real(Path("/nowhere"))
    with pytest.raises(ClaimError, match="quick or full"):
        run_claim("gpu", 0, None)
