"""The twelve systems of EvolveLab as recipes: each tells what its handwritten counterpart tells, for every task of a stream, in order.

By design ours differ from the code that they are after (arXiv 2512.18746), and so do the handwritten ones: Voyager's new record is
searched at once, SkillWeaver's functions are never imported, EvolveR's vectors are kept, G-Memory's runs have one reader.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from handwritten import BY_HAND
from holdfast.recipes.book import RECIPES
from stream import ANSWERS, COMPOSED, NAMES, Model, opened, runs, told, trajectory
from support import MEMORY

DOES = {
    "skillweaver": ("it was used, and the run failed",),
    "g-memory": ("says the same as", "it was used, and the run succeeded"),
    "agent-kb": ("says the same as",),
    "memp": ("revised after a failure",),
    "evolver": ("one more case of it", "its score is"),
}
"""What is done in the stream besides adding, so that the equality rests on it."""

# --- the same texts for every task ---


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_tells_what_the_handwritten_one_tells(name: str) -> None:
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
    with TemporaryDirectory(dir=MEMORY) as folder, opened(Path(folder), recipe, chat=chat) as memory:
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
        reasons = {str(event.reason).partition(" 0")[0] for event in memory.store.events()}
    assert served > 50, "it has something to tell from early on"
    assert chat.asked == asked, "the model is asked the same, in the same order"
    assert all(any(reason.startswith(done) for reason in reasons) for done in DOES.get(name, ())), reasons


def test_managers_wait_for_as_many_runs_as_the_recipe_says(tmp_path: Path) -> None:
    class Counting:
        def manage(self, *_: Any) -> list[Any]:
            counted.append(number)
            return []

    counted: list[int] = []
    number = 0
    with opened(tmp_path, replace(RECIPES["cases"], managers=(Counting(),), every=3)) as memory:
        for number, run in enumerate(runs()[:7], 1):
            memory.take_in(trajectory(run, number), 1.0)
            memory.take_in(trajectory(run, number), 1.0)
    assert counted == [3, 6], "and taking in again is not another run"
