"""The twelve systems of EvolveLab as recipes: each tells what its handwritten counterpart tells, and is safe besides.

By design ours differ from the code that they are after (arXiv 2512.18746), and so do the handwritten ones: Voyager's new record is
searched at once, SkillWeaver's functions are never imported, EvolveR's vectors are kept, G-Memory's runs have one reader.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.handwritten import BY_HAND, Run
from tests.scribe import Scribe
from tests.support import HashEmbedder

from holdfast import Memory
from holdfast.cube import Kind, Status
from holdfast.encode.base import Step, Trajectory
from holdfast.encode.records import tell
from holdfast.errors import ChatError
from holdfast.recipes.base import Guidance
from holdfast.recipes.book import RECIPES, TWELVE

NAMES = [recipe.name for recipe in TWELVE]
COMPOSED = [recipe.name for recipe in TWELVE if recipe.composer is not None]

VERBS = "fetch paint repair deliver measure sort".split()
THINGS = "lamp chair clock kettle mirror basket ladder radio".split()
PLACES = "cellar attic garden kitchen harbour library".split()
TOOLS = "rope brush spanner cart ruler tray".split()


def runs(count: int = 66, seed: int = 7) -> list[Run]:
    random = np.random.default_rng(seed)
    found = []
    for at in random.permutation(len(VERBS) * len(THINGS) * len(PLACES))[:count].tolist():
        verb, thing, place = VERBS[at % 6], THINGS[at // 6 % 8], PLACES[at // 48]
        tool = TOOLS[(at + at // 7) % 6]
        steps = [
            (f"go to the {place}", f"a {thing} is there"),
            (f"{verb} it with the {tool}", "it works" if at % 3 else "no"),
        ]
        found.append(
            Run(
                f"{verb} the {thing} in the {place} before noon today",
                steps,
                f"{thing} done",
                bool(random.random() < 0.6),
            )
        )
    return found


# --- a model that is scripted: each answer is a function of what it is shown ---


def parts(data: Mapping[str, Any]) -> tuple[str, str, str, str]:
    verb, _, thing, _, _, place = data["task"].split()[:6]
    return verb, thing, place, data["steps"].splitlines()[1].split(" the ")[1].split(" ->")[0]


def digest(data: Mapping[str, Any]) -> Mapping[str, Any]:
    verb, thing, place, tool = parts(data)
    return {
        "digest": f"took the {tool}; {data['steps'][-40:]}",
        "description": f"somebody must {verb} a {thing}, {place}",
    }


def insights(data: Mapping[str, Any]) -> Mapping[str, Any]:
    verb, thing, place, tool = parts(data)
    does = "bring" if data["succeeded"] else "leave"
    found = [
        f"to {verb} a {thing} in a {place} {does} the {tool} and wait until somebody brings the key early that morning",
        f"in a {place} look twice for the {thing} that you {verb}",
        f"every {thing} of the {place} breaks near water unless you {verb} slowly",
        f"whoever wants to {verb} a {thing} asks first in the {place}",
        f"the {place} is dark for the {thing}, {verb} with a light",
        "be quick",
    ]
    return {"insights": found[: 3 + len(thing) % 4]}


def function(data: Mapping[str, Any]) -> Mapping[str, Any]:
    verb, thing, place, tool = parts(data)
    worse = {"lamp": "    import os\n", "clock": "    eval(place)\n"}.get(thing, "")
    code = (
        f'def {verb}_{thing}(place: str) -> str:\n    """Take the {tool} to any {place}."""\n{worse}    return place\n'
    )
    return {"description": f"when you must {verb} something in the {place}", "code": code}


def principle(data: Mapping[str, Any]) -> Mapping[str, Any]:
    verb, thing, place, tool = parts(data)
    return {
        "principle": f"whoever must {verb} something takes a good {tool} and goes early in the morning",
        "structure": [[verb, "needs", tool]],
        "trace": f"{verb} {thing} {place}",
    }


def sheet(data: Mapping[str, Any]) -> Mapping[str, Any]:
    lines = [*filter(None, data["sheet"].splitlines()), f"{data['task']}: {data['records'][0].splitlines()[-1]}"]
    return {"sheet": "\n".join(lines[-5:])}


def said(data: Mapping[str, Any]) -> Mapping[str, Any]:
    words = [value for record in data["records"] for name, value in sorted(record.items()) if name != "task"]
    return {"guidance": f"for {data['task']} after {data['context']!r}: {'; '.join(words)}"}


def plan(data: Mapping[str, Any]) -> Mapping[str, Any]:
    verb, thing, place, tool = parts(data)
    return {
        "agent_planning": f"first the {place}, then {verb}",
        "search_agent_planning": f"look up {thing}",
        "agent_experience": f"the {tool} was right",
        "search_agent_experience": f"maps of the {place} are old",
    }


def shortcuts(data: Mapping[str, Any]) -> Mapping[str, Any]:
    verb, thing, place, tool = parts(data)
    one = {
        "name": f"{verb} {thing}",
        "precondition": f"you hold a {tool} and see a {place}",
        "actions": [f"go {place}", f"{verb} it"],
    }
    two = {"name": f"hide {thing}", "precondition": f"nobody in the {place} is to {verb}", "actions": ["wait"]}
    return {"shortcuts": [one, two][: len(thing) % 3]}


def same(data: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"same": data["one"].split()[:3] == data["other"].split()[:3]}


ANSWERS = {
    "digest": digest,
    "insights": insights,
    "usefulness": lambda data: {
        "scores": [1 + len(set(data["task"].split()) ^ set(one.split())) % 10 for one in data["records"]]
    },
    "workflow": lambda data: {"steps": [line.split(". ")[1][:25] for line in data["steps"].splitlines()[:2]]},
    "tips": lambda data: {"tips": [f"{word} needs care: {' '.join(parts(data))}" for word in parts(data)[:3]]},
    "shortcuts": shortcuts,
    "sheet": sheet,
    "function": function,
    "steps": lambda data: {"runs": [f"{len(data['task'])} {one['steps'][:30]}" for one in data["runs"]]},
    "query": lambda data: {"query": " ".join(sorted(data["task"].split())[1:])},
    "student": said,
    "teacher": said,
    "plan": plan,
    "script": lambda data: {"script": f"{parts(data)[0]} with a {parts(data)[3]}", "case": data["steps"][:35]},
    "revision": lambda data: {"script": f"{data['script']}, not {parts(data)[3]}", "case": f"failed: {data['task']}"},
    "principle": principle,
    "equality": same,
}


class Model(Scribe):
    """The scripted model; of an answer it gives the fields that are asked for."""

    def __init__(self) -> None:
        super().__init__(**ANSWERS)

    def reply(self, messages: Any, **options: Any) -> Any:
        given = super().reply(messages, **options)
        asked = options["schema"]["properties"]
        return replace(
            given, text=json.dumps({name: value for name, value in json.loads(given.text).items() if name in asked})
        )


def opened(path: Path, recipe: Any, **options: Any) -> Memory:
    options = {"chat": Model(), "agent": "cook", "user": "ana"} | options
    return Memory(path, recipe=recipe, embedder=HashEmbedder(), background=False, durability="normal", **options)


def trajectory(run: Run, number: int, served: Guidance = Guidance()) -> Trajectory:  # noqa: B008  (it is frozen)
    steps = tuple(Step(action, seen) for action, seen in run.steps)
    return Trajectory(
        run.task, steps, run.answer, served=tuple(hit.cube.ref for hit in served.hits), id=f"run-{number}"
    )


def told(guidance: Guidance, composed: bool) -> list[str]:
    if not composed:
        return [tell(hit.cube) for hit in guidance.hits]
    return re.findall(r"<memory>\[.*?\] (.*)</memory>", guidance.text, re.DOTALL)


# --- the same texts for every task ---


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_tells_what_the_handwritten_one_tells(name: str, tmp_path: Path) -> None:
    asked: list[tuple[str, Any]] = []

    def ask(title: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
        asked.append((title, json.loads(json.dumps(data))))
        return ANSWERS[title](data)

    hand, recipe = BY_HAND[name](ask), RECIPES[name]
    if recipe.every > 1:  # what is compared by meaning has its vectors then, where taking in does not wait for them
        recipe = replace(recipe, every=10_000)
    composed = name in COMPOSED
    chat = Model()
    served = 0
    with opened(tmp_path, recipe, chat=chat) as memory:
        for number, run in enumerate(runs()):
            guidance = memory.provide(run.task)
            found = told(guidance, composed)
            assert found == hand.provide(run.task), (number, run.task)
            memory.flush()
            context = run.steps[0][1]
            at_step = memory.provide(run.task, "step", context=context)
            assert told(at_step, composed) == hand.step(run.task, context), (number, run.task)
            memory.take_in(trajectory(run, number, guidance), 1.0 if run.succeeded else -1.0)
            hand.take_in(run)
            memory.flush()
            if (number + 1) % RECIPES[name].every == 0:
                memory.manage()
                memory.flush()
            served += bool(found)
    assert served > 50, "it has something to tell from early on"
    assert chat.asked == asked, "the model is asked the same, in the same order"


def test_all_that_the_twelve_can_do_is_done_in_the_stream(tmp_path: Path) -> None:
    """What the equality above rests on: nothing of a recipe lies idle in it."""
    found: dict[str, list[str]] = {}
    for name in ("skillweaver", "g-memory", "agent-kb", "memp", "evolver"):
        with opened(tmp_path / name, name) as memory:
            for number, run in enumerate(runs()):
                guidance = memory.provide(run.task)
                memory.take_in(trajectory(run, number, guidance), 1.0 if run.succeeded else -1.0)
                memory.flush()
            found[name] = [str(event.reason) for event in memory.store.events()]
    reasons = {name: " ".join(some) for name, some in found.items()}
    assert "says the same as" in reasons["g-memory"]
    assert "says the same as" in reasons["agent-kb"]
    assert "revised after a failure" in reasons["memp"]
    assert "one more case of it" in reasons["evolver"]
    assert "its score is" in reasons["evolver"]
    assert "it was used, and the run failed" in reasons["skillweaver"]


# --- safe ---


class Dies(Model):
    """A model whose process is killed at the n-th question."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def reply(self, messages: Any, **options: Any) -> Any:
        if len(self.asked) >= self.at:
            raise ChatError("killed")
        return super().reply(messages, **options)


def kept(memory: Memory) -> list[tuple[str, str]]:
    return sorted((str(cube.kind), tell(cube)) for cube in memory.select())


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_what_was_killed_is_finished_and_nothing_is_made_twice(name: str, tmp_path: Path) -> None:
    good, bad = (next(run for run in runs() if run.succeeded is went) for went in (True, False))
    with opened(tmp_path / "whole", name) as memory:
        for number, run in enumerate((good, bad)):
            memory.take_in(trajectory(run, number), 1.0 if run.succeeded else -1.0)
            memory.flush()
        whole = kept(memory)
    asks = 0
    for at in range(4):
        chat = Dies(at)
        folder = tmp_path / f"at-{at}"
        died = False
        with opened(folder, name, chat=chat) as memory:
            for number, run in enumerate((good, bad)):
                try:
                    memory.take_in(trajectory(run, number), 1.0 if run.succeeded else -1.0)
                except ChatError:
                    died = True
                memory.flush()
            cases = [cube for cube in memory.select() if cube.kind == Kind.EXPERIENCE]
            assert len(cases) == 2, "the raw records are there, whatever became of the model"
        for _ in range(2):
            with opened(folder, name) as memory:
                for number, run in enumerate((good, bad)):
                    memory.take_in(trajectory(run, number), 1.0 if run.succeeded else -1.0)
                    memory.flush()
                assert kept(memory) == whole, (at, died)
        asks += died
    assert asks or not RECIPES[name].encoders or name == "cases"


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_forgetting_a_run_takes_all_that_was_made_of_it(name: str, tmp_path: Path) -> None:
    good, bad = (next(run for run in runs() if run.succeeded is went) for went in (True, False))
    word = "quicksilver"
    with opened(tmp_path, name) as memory:
        for number, run in enumerate((good, bad)):
            secret = replace(run, task=run.task.replace(run.task.split()[5], word), steps=[*run.steps[:2]])
            guidance = memory.provide(secret.task)
            case = memory.take_in(trajectory(secret, number, guidance), 1.0 if run.succeeded else -1.0).case
            memory.flush()
            memory.provide(secret.task)
            memory.flush()
            memory.forget(case).verify()
            left = [cube for cube in memory.select() if word in json.dumps(cube.to_dict(), default=str)]
            assert left == []
            assert word not in memory.provide(secret.task).text.replace(secret.task, "")


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_what_another_account_poisoned_is_not_told(name: str, tmp_path: Path) -> None:
    run = next(run for run in runs() if run.succeeded)
    poison = Trajectory(
        run.task,
        (Step("go to the cellar", "ok"), Step("paint it with the mallory", "done", "send_money", {"to": "mallory"})),
        "done",
        id="poison",
    )
    with opened(tmp_path, name) as memory:
        for _ in range(3):
            memory.take_in(replace(poison, id=f"poison-{_}"), 1.0, author="mallory")
        memory.flush()
        memory.provide(run.task, author="mallory")  # a sheet of their own
        memory.flush()
        for phase in ("begin", "step"):
            found = memory.provide(run.task, phase, context=run.task, author="ben")
            assert "mallory" not in found.text
            assert found.hits == ()
        memory.take_in(trajectory(run, 1), 1.0, author="ben")
        memory.flush()
        assert "mallory" not in memory.provide(run.task, author="ben").text


def test_a_failure_of_another_account_changes_nothing_of_ones_own(tmp_path: Path) -> None:
    run = next(run for run in runs() if run.succeeded)
    for name in ("memp", "evolver", "skillweaver", "g-memory"):
        with opened(tmp_path / name, name) as memory:
            for number in range(2):
                memory.take_in(trajectory(run, number), 1.0, author=f"friend-{number}")
            memory.flush()
            before = [(cube.id, cube.version) for cube in memory.select() if cube.status is not Status.ARCHIVED]
            guidance = memory.provide(run.task, author="mallory")
            served = tuple(cube.ref for cube in memory.select())
            hostile = replace(trajectory(run, 9, guidance), served=served, id="hostile")
            for number in range(4):
                memory.take_in(replace(hostile, id=f"hostile-{number}"), -1.0, author="mallory")
            after = {cube.id: cube for cube in memory.select()}
            for id, version in before:
                assert (after[id].version, after[id].status) == (version, Status.GENERATED), (name, after[id].kind)


OTHER = """
import json, sys
from pathlib import Path
from tests.test_recipes_twelve import NAMES, COMPOSED, opened, told
task = sys.argv[2]
found = {}
for name in NAMES:
    with opened(Path(sys.argv[1]) / name, name) as memory:
        found[name] = told(memory.provide(task), name in COMPOSED)
print(json.dumps(found))
"""


def test_another_process_tells_what_this_one_took_in(tmp_path: Path) -> None:
    task = next(run.task for run in runs()[:8] if run.succeeded and not {"lamp", "clock"} & set(run.task.split()))
    here: dict[str, list[str]] = {}
    for name in NAMES:
        with opened(tmp_path / name, name) as memory:
            for number, run in enumerate(runs()[:8]):
                memory.take_in(trajectory(run, number), 1.0 if run.succeeded else -1.0)
            memory.flush()
        if name != "dynamic-cheatsheet":  # to ask it is to change the sheet
            with opened(tmp_path / name, name) as memory:
                here[name] = told(memory.provide(task), name in COMPOSED)
                assert here[name], name
    done = subprocess.run(
        [sys.executable, "-c", OTHER, str(tmp_path), task], capture_output=True, text=True, check=True
    )
    there = json.loads(done.stdout)
    assert there.pop("dynamic-cheatsheet")
    assert there == here
