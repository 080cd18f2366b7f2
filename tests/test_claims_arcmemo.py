"""The solver of claim 25: what arms and budgets have in common is tried once, and comes to what each would come to alone."""

from __future__ import annotations

import numpy as np

from holdfast.claims.concept_grids import Step, done, holes
from holdfast.claims.concept_search import Bench, search
from holdfast.claims.concept_world import drawn
from holdfast.claims.concept_writer import filled


def test_a_search_finds_what_it_finds_on_a_bench_of_its_own() -> None:
    world = drawn(7, 0, 2)
    found = 0
    for task in world.tests:
        shared = Bench(task)
        known = [program for number in task.motifs for program in filled(world.motifs[number].steps, task.colours)]
        for routines in ([], known, known[:1]):
            for first in ((), shared.primitives[5:9], (task.program,)):
                for budget in (200, 3, 40, 300):  # in no order: what was found within more is not told to who has less
                    here = search(shared, routines, budget, first)
                    assert here == search(Bench(task), routines, budget, first)
                    assert here.tried <= budget
                    found += here.program is not None
    assert found > 6


def test_what_is_known_of_a_grid_is_not_changed_by_what_is_made_of_it() -> None:
    ring = np.array([[0, 0, 0, 0, 0], [0, 2, 2, 2, 0], [0, 2, 0, 2, 0], [0, 2, 2, 2, 0]], np.uint8)
    assert holes(ring).tolist() == [[False] * 5, [False] * 5, [False, False, True, False, False], [False] * 5]
    for _ in range(2):
        for colour in "34":
            wanted = ring.copy()
            wanted[2, 2] = int(colour)
            for step in (Step("fill_holes", (colour,)), Step("map", (Step("fill_holes", (colour,)),))):
                made = done(step, ring, ring)
                assert made is not None and made.tolist() == wanted.tolist()
                made[:] = 9  # whoever is given a grid may write to it
