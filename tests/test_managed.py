"""Facts of runs as operations: what each policy does, and what no answer of a model can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast import Memory
from holdfast.cube import Status
from holdfast.encode.base import Step, Trajectory
from holdfast.encode.managed import Drawn, Managed, Steps, Thresholds
from holdfast.encode.records import Unit
from holdfast.errors import InputError
from holdfast.recipes.base import Find, Recipe
from holdfast.recipes.book import RECIPES
from holdfast.retrieve.distilled import Distilled
from scribe import Scribe
from stream import opened

BUDDY, SCOUT, BOTH = "Sam has a dog, Buddy", "Sam has a dog, Scout", "Sam has two dogs, Buddy and Scout"


def run(number: int, *facts: str) -> Trajectory:
    """A run whose steps say some facts."""
    return Trajectory(f"look after Sam {number}", tuple(Step("hear", fact) for fact in facts), id=str(number))


def scripted(event: str = "ADD", record: int = 0, text: str = "", useful: tuple[int, ...] = ()) -> Scribe:
    """A model that draws what was heard, decides as told, and picks as told."""

    def facts(data: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"facts": [line.split(" -> ")[1] for line in data["steps"].splitlines() if " -> " in line]}

    return Scribe(
        facts=facts,
        operation=lambda _: {"event": event, "record": record, "text": text},
        distillation=lambda _: {"useful": list(useful)},
    )


def notes(memory: Memory) -> list[str]:
    return [cube.text for cube in memory.select() if cube.kind == Unit.NOTE and cube.status is Status.GENERATED]


@pytest.mark.parametrize(
    ("event", "record", "text", "left"),
    [
        ("ADD", 0, "", [BUDDY, SCOUT]),
        ("ADD", 1, "", [BUDDY, SCOUT]),
        ("UPDATE", 1, BOTH, [BOTH]),
        ("UPDATE", 1, "  ", [SCOUT]),
        ("UPDATE", 0, BOTH, [BUDDY, SCOUT]),
        ("DELETE", 1, "", []),
        ("DELETE", 0, "", [BUDDY]),
        ("NONE", 1, "", [BUDDY]),
    ],
)
def test_a_model_decides_and_what_it_names_in_vain_is_news_or_nothing(
    tmp_path: Path, event: str, record: int, text: str, left: list[str]
) -> None:
    with opened(tmp_path, "memory-r1", chat=scripted()) as memory:
        first = memory.take_in(run(1, BUDDY), 1.0)
        memory.flush()
        model = scripted(event, record, text)
        cook = memory.provider(chat=model)
        second = cook.take_in(run(2, SCOUT), outcome())
        assert sorted(notes(memory)) == sorted(left)
        assert model.asked[1][1] == {"fact": SCOUT, "records": {"1": BUDDY}}
        if event == "UPDATE" and record:
            cube = memory.get(first.made[0])
            assert {ref.id for ref in cube.origin.derived_from} == {first.case, second.case}
            assert next(one.cube.text for one in memory.history(cube.id) if one.cube) == BUDDY, "it stands in history"
            asked = len(model.asked)
            cook.take_in(run(2, SCOUT), outcome())
            assert len(model.asked) == asked, "a run that is taken in again is not managed again"


def outcome() -> Any:
    from holdfast.encode.base import Outcome

    return Outcome(1.0)


def test_forgetting_a_run_takes_what_it_changed(tmp_path: Path) -> None:
    with opened(tmp_path, "memory-r1", chat=scripted("UPDATE", 1, BOTH)) as memory:
        memory.take_in(run(1, BUDDY), 1.0)
        memory.flush()
        second = memory.take_in(run(2, SCOUT), 1.0)
        assert notes(memory) == [BOTH]
        memory.forget(second.case).verify()
        assert BOTH not in notes(memory)


def test_one_record_is_changed_once_a_run(tmp_path: Path) -> None:
    with opened(tmp_path, "memory-r1", chat=scripted("UPDATE", 1, BOTH)) as memory:
        memory.take_in(run(1, BUDDY), 1.0)
        memory.flush()
        memory.take_in(run(2, SCOUT, "Sam walks them at noon"), 1.0)
        assert sorted(notes(memory)) == [BOTH, "Sam walks them at noon"]


def test_what_is_anothers_or_frozen_is_not_shown(tmp_path: Path) -> None:
    with opened(tmp_path, "memory-r1", chat=scripted("DELETE", 1)) as memory:
        made = memory.take_in(run(1, BUDDY), 1.0, author="mallory").made[0]
        memory.flush()
        memory.take_in(run(2, SCOUT), 1.0)
        memory.flush()
        assert memory.get(made).status is Status.GENERATED
        mine = next(cube for cube in memory.select() if cube.text == SCOUT)
        memory.freeze(mine.id)
        memory.take_in(run(3, "Sam has a cat"), 1.0)
        assert memory.get(mine.id).status is Status.FROZEN
        assert "Sam has a cat" in notes(memory)


def test_thresholds_know_replace_and_add_by_the_nearest(tmp_path: Path) -> None:
    with opened(tmp_path, "memory-r1-rules") as memory:
        for number, fact in enumerate(
            ["the gate of the west yard is locked", "the gate of the west yard is open", "rain is due"]
        ):
            for again in (0, 10):
                memory.take_in(run(number + again, fact), 1.0)
                memory.flush()
        assert sorted(notes(memory)) == ["hear: rain is due", "hear: the gate of the west yard is open"]
        assert "open" in memory.provide("the gate of the west yard").text


def test_only_what_a_model_picks_is_told_in_the_order_of_meaning(tmp_path: Path) -> None:
    with opened(tmp_path, "memory-r1", chat=scripted(useful=(3, 1))) as memory:
        memory.take_in(run(1, "the lamp is in the attic", "the lamp is broken", "soup is made of leek"), 1.0)
        memory.flush()
        told = [hit.text for hit in memory.provide("where is the lamp in the attic").hits]
        assert told == ["the lamp is in the attic", "soup is made of leek"]
        assert memory.provider(chat=scripted(useful=())).provide("where is the lamp").text == ""


def test_genes_have_their_range_and_only_some_ask_a_model() -> None:
    for part, genes in (
        (Drawn, {"most": 0}),
        (Steps, {"most": 0}),
        (Managed, {"compared": 0}),
        (Distilled, {"shown": 0}),
    ):
        with pytest.raises(InputError):
            part(**genes)
    with pytest.raises(InputError):
        Thresholds(same=0.5, topic=0.6)
    assert RECIPES["memory-r1"].writes and not RECIPES["memory-r1-rules"].writes
    nested = Recipe("n", "", (), (Find((Unit.NOTE,), Distilled()),))
    assert nested.writes and not replace(RECIPES["cases"]).writes
