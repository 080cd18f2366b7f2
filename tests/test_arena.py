"""The arena and the search over recipes: fair runs, true blame, fronts that nothing beats, and a search that can be killed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.bench.arena import Arena, Attempt, Guide, Lost, Report, Task
from holdfast.bench.evolution import Candidate, Log, Settings, evolve, paired, ranked, signature
from holdfast.bench.mutation import BLAMED, Menu, Module, blamed, mutate
from holdfast.claims.memevolve_world import Family, Locksmith, World
from holdfast.cube import Kind
from holdfast.encode.base import Experience, Outcome, Step, Trajectory
from holdfast.encode.records import Unit, derived
from holdfast.errors import InputError
from holdfast.recipes.base import Find, Phase, Recipe
from holdfast.recipes.book import RECIPES
from holdfast.retrieve.likeness import Meaning, Mixed, Words
from holdfast.store.base import Operation
from support import MEMORY, HashEmbedder

CASES = RECIPES["cases"]
FOLDER = None if MEMORY is None else Path(MEMORY)


def arena(seed: int = 0) -> Arena:
    return Arena(Locksmith(seed), None, HashEmbedder(), FOLDER)


def test_experience_helps_and_the_same_run_gives_the_same_report() -> None:
    tasks = World(Family.DISHES, 3).tasks(40)
    wide = replace(CASES, finds=(replace(CASES.finds[0], k=3),))
    one, two = (arena().run(wide, tasks) for _ in range(2))
    assert replace(one, seconds=0.0) == replace(two, seconds=0.0)
    assert one.rate > arena().run(None, tasks).rate + 0.2
    assert one.tokens > 0
    assert sum(one.lost.values()) == sum(len(t.needs) for t, ok in zip(tasks, one.success, strict=True) if not ok)
    assert Report.from_dict(json.loads(json.dumps(one.to_dict()))).success == one.success


def test_warm_tasks_are_lived_through_and_not_counted() -> None:
    tasks = World(Family.SITES, 1).tasks(30)
    report = arena().run(CASES, tasks[20:], warm=tasks[:20])
    assert len(report.success) == 10
    assert report.tokens > 0


class Deaf:
    """Fails at each task, however it is helped; its trajectory says ``word``."""

    def attempt(self, task: Task, guide: Guide) -> Attempt:
        guide(Phase.BEGIN, "")
        step = Step(str(task.data.get("says", "nothing")), "done")
        return Attempt(Trajectory(task.text, (step,)), False, Outcome(-1.0))


class Mute:
    """An encoder whose records hold nothing of what was done."""

    def encode(self, experience: Experience) -> list[Operation]:
        return [derived(experience, "mute", Unit.TIP, "be careful")]


class Sweep:
    """A manager that archives all that is there."""

    def manage(self, store: object, scope: object, now: object) -> list[Operation]:
        return [Operation.delete(cube) for cube in store.select(scope)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("recipe", "lost"),
    [
        (CASES, Lost.DROWNED),
        (replace(CASES, finds=(replace(CASES.finds[0], least=2.0),)), Lost.NOT_FOUND),
        (replace(CASES, encoders=(Mute(),), finds=(Find((Unit.TIP,), Meaning()),)), Lost.NEVER_ENCODED),
        (replace(CASES, managers=(Sweep(),)), Lost.EVICTED),
    ],
)
def test_a_failure_is_traced_to_the_part_that_lost_what_would_have_helped(recipe: Recipe, lost: Lost) -> None:
    tasks = [Task("a", "open the door", needs=("turn left",), data={"says": "turn left"})]
    tasks.append(replace(tasks[0], id="b"))
    report = Arena(Deaf(), None, HashEmbedder(), FOLDER).run(recipe, tasks)
    assert report.lost == {Lost.NEVER_LIVED: 1, lost: 1}


reports = st.builds(
    lambda good, tokens, calls: Candidate(
        CASES, Report("-", tuple([True] * good + [False] * (5 - good)), tokens, calls, 0.0)
    ),
    st.integers(0, 5),
    st.integers(0, 3),
    st.integers(0, 3),
)


@given(st.lists(reports, min_size=1, max_size=12))
def test_nothing_beats_the_front_and_something_beats_the_rest(candidates: Sequence[Candidate]) -> None:
    found, front = ranked(candidates)

    def value(one: Candidate) -> tuple[float, int, int]:
        return one.report.rate, -one.report.tokens, -one.report.calls

    def beats(one: Candidate, other: Candidate) -> bool:
        return value(one) != value(other) and all(a >= b for a, b in zip(value(one), value(other), strict=True))

    assert sorted(map(id, found)) == sorted(map(id, candidates))
    assert not any(beats(other, one) for one in found[:front] for other in found)
    assert all(any(beats(other, one) for other in found) for one in found[front:])
    assert [value(one) for one in found[:front]] == sorted((value(one) for one in found[:front]), reverse=True)


@given(st.integers(0, 10_000), st.sampled_from(Module), st.sampled_from(sorted(RECIPES)))
def test_a_child_differs_by_a_part_that_can_be_made(seed: int, module: Module, name: str) -> None:
    menu = Menu.of(RECIPES.values())
    random = np.random.default_rng(seed)
    try:
        child = mutate(RECIPES[name], module, menu, random)
    except InputError as error:
        assert "cannot be changed in" in str(error)
        return
    assert signature(child) != signature(RECIPES[name])
    assert child.finds
    again = mutate(RECIPES[name], module, menu, np.random.default_rng(seed))
    assert again == child


@given(st.dictionaries(st.sampled_from(Lost), st.integers(1, 50)), st.integers(0, 999))
def test_only_what_lost_something_is_blamed(lost: dict[Lost, int], seed: int) -> None:
    module = blamed(lost, np.random.default_rng(seed))
    to_blame = {BLAMED[what] for what in lost if what in BLAMED}
    assert module in (to_blame or set(Module))


SMALL = Settings(rounds=2, parents=1, children=2, batch=12, carried=4, seed=5)


class KilledError(Exception):
    """The machine went away."""


def test_a_search_that_was_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    tasks, menu = World(Family.DISHES, 2).tasks(SMALL.needed), Menu.of(RECIPES.values())
    menu = replace(menu, rankers=(Meaning(), Words(), Mixed()), blocks=(((), CASES.finds),))
    whole = evolve(arena(), tasks, [CASES], menu, SMALL, log=Log(tmp_path / "whole.jsonl"))
    ran: list[str] = []

    def stop(name: str, number: int, _most: int) -> None:
        ran.append(name)
        if number == 4:
            raise KilledError

    log = tmp_path / "killed.jsonl"
    with pytest.raises(KilledError):
        evolve(arena(), tasks, [CASES], menu, SMALL, log=Log(log), progress=stop)
    assert len(log.read_text().splitlines()) == 3
    with log.open("a") as file:
        file.write('{"key": "half a li')
    counted = Counting()
    again = evolve(counted, tasks, [CASES], menu, SMALL, log=Log(log))
    assert counted.runs == len((tmp_path / "whole.jsonl").read_text().splitlines()) - 3
    assert [[one.report.success for one in r.candidates] for r in again.rounds] == [
        [one.report.success for one in r.candidates] for r in whole.rounds
    ]
    assert signature(again.winner) == signature(whole.winner)


class Counting(Arena):
    """An arena that counts."""

    def __init__(self) -> None:
        super().__init__(Locksmith(0), None, HashEmbedder(), FOLDER)
        object.__setattr__(self, "runs", 0)

    runs: int

    def run(self, recipe: Recipe | None, tasks: Sequence[Task], *, warm: Sequence[Task] = ()) -> Report:
        object.__setattr__(self, "runs", self.runs + 1)
        return Arena.run(self, recipe, tasks, warm=warm)


def test_a_search_finds_what_is_better_than_what_it_began_with() -> None:
    world = World(Family.DISHES, 4)
    settings = Settings(rounds=3, parents=1, children=2, batch=20, carried=8, seed=1)
    menu = Menu((((), CASES.finds),), (Meaning(), Mixed(), Words()), (), ())
    evolution = evolve(arena(), world.tasks(settings.needed), [CASES], menu, settings)
    fresh = world.tasks(60, 5_000)
    gain, low, high = paired(arena().run(evolution.winner, fresh).success, arena().run(CASES, fresh).success)
    assert low <= gain <= high
    assert gain > 0.05


def test_too_few_tasks_and_impossible_settings_are_refused() -> None:
    with pytest.raises(InputError, match="reads 20 tasks, and there are 3"):
        evolve(arena(), World(Family.SITES, 0).tasks(3), [CASES], Menu.of([CASES]), SMALL)
    with pytest.raises(InputError, match="fewer tasks are carried"):
        Settings(batch=5, carried=5)


def test_a_paired_difference_knows_when_it_knows_nothing() -> None:
    gain, low, high = paired([True, False] * 20, [False, True] * 20)
    assert gain == 0
    assert low < 0 < high
    assert paired([True] * 10, [False] * 10) == (1.0, 1.0, 1.0)
    assert Kind.EXPERIENCE in CASES.finds[0].kinds
