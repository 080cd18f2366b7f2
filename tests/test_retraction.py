"""Taking a turn back takes back what was drawn from it, and what that had ended holds again."""

from __future__ import annotations

from pathlib import Path

from holdfast import Memory
from holdfast.retrieve.context import SUPERSEDED
from holdfast.store.base import Where


def _colours(memory: Memory) -> list[tuple[str, bool]]:
    cubes = [cube for cube in memory.select() if cube.data.get("attribute") == "favourite colour"]
    return sorted((cube.data["value"], cube.valid_to is None) for cube in cubes)


def _told(place: Path | str) -> tuple[Memory, str, str]:
    memory = Memory(place, user="ana", embedder=None, background=False)
    (first,) = memory.add("My favourite colour is green.", at="2026-01-01").ids
    memory.flush()
    (second,) = memory.add("Actually, my favourite colour is blue now.", at="2026-02-01").ids
    memory.flush()
    return memory, first, second


def test_undoing_a_correction_reopens_what_it_ended(tmp_path: Path) -> None:
    memory, first, second = _told(tmp_path)
    assert _colours(memory) == [("blue", True), ("green", False)]
    assert SUPERSEDED in memory.get(first).data
    memory.undo(memory.history(second)[0].event.seq)
    assert _colours(memory) == [("green", True)]
    assert SUPERSEDED not in memory.get(first).data
    assert "green" in memory.context("what is my favourite colour?")
    assert memory.verify() == []
    memory.close()


def test_undoing_the_undo_brings_all_of_it_back(tmp_path: Path) -> None:
    memory, _, second = _told(tmp_path)
    memory.undo(memory.history(second)[0].event.seq)
    memory.undo(memory.history()[-1].event.seq)
    assert _colours(memory) == [("blue", True), ("green", False)]
    memory.close()


def test_a_fact_with_another_source_stays(tmp_path: Path) -> None:
    memory = Memory(tmp_path, user="ana", embedder=None, encoders=(), background=False)
    one, two = memory.add(["Tea at four", "Tea again at four"]).ids
    turns = [memory.get(one), memory.get(two)]
    fact = turns[0].with_(
        id="01a217d8-0000-7000-8000-000000000001",
        text="Ana takes tea at four",
        kind="fact",
        origin=turns[0].origin.__class__(derived_from=tuple(turn.ref for turn in turns)),
    )
    memory.add(fact)
    memory.retract(one)
    assert [cube.kind for cube in memory.select(Where(kinds=("fact",)))] == ["fact"]
    memory.retract(two)
    assert memory.get(fact.id).status == "archived"
    memory.close()


def test_the_encoders_part_of_a_correction_can_be_undone(tmp_path: Path) -> None:
    memory = Memory(tmp_path, user="ana", embedder=None, background=False)
    (id,) = memory.add("I live in Lisbon.", at="2026-01-01").ids
    memory.flush()
    memory.correct(id, "I live in Porto.")
    memory.flush()
    assert SUPERSEDED not in memory.get(id).data
    memory.undo(memory.history()[-1].event.seq)
    assert memory.status()["backlog"] == {} or "enrich" not in memory.status()["backlog"]
    assert memory.verify() == []
    memory.close()


def test_a_correction_in_the_same_batch_outdates_the_turn_too(tmp_path: Path) -> None:
    memory = Memory(tmp_path, user="ana", embedder=None, background=False)
    (first,) = memory.add("My favourite colour is green.", at="2026-01-01").ids
    memory.add("Actually, my favourite colour is blue now.", at="2026-02-01")
    memory.flush()
    assert _colours(memory) == [("blue", True), ("green", False)]
    assert SUPERSEDED in memory.get(first).data
    memory.close()
