"""What an agent read in a turn has a part in what it writes in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import Memory
from holdfast.agent.turn import Turn
from holdfast.cube import Channel, Cube, Kind, Origin, Ref
from holdfast.errors import InputError
from holdfast.guard.attacks.graft import attack, impostors
from holdfast.guard.base import sources_in
from holdfast.guard.conflicts import resolve
from holdfast.guard.echoes import echoed, said


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    with Memory(tmp_path / "s", user="ana", embedder=None, background=False) as memory:
        yield memory


@pytest.mark.parametrize("way", ["search", "pack", "get", "neighbour", "read"])
def test_what_was_read_from_outside_taints_what_is_written(memory: Memory, way: str) -> None:
    (page,) = memory.add("The ferry leaves at nine", channel="web", source="u", session="s").ids
    memory.add("Which boat shall we take to the island tomorrow?", session="s")
    turn = Turn(memory)
    assert turn.taint == ()
    if way == "search":
        turn.search("ferry")
    elif way == "pack":
        assert turn.pack("when does the ferry leave?").cubes
    elif way == "get":
        turn.get(page)
    elif way == "neighbour":
        turn.search("island boat tomorrow", k=1, neighbours=1)
    else:
        turn.read(Channel.WEB, "u#top")
    assert turn.taint == ("web:u",)
    (note,) = turn.add("Be there at half past eight").ids
    assert memory.get(note).origin.taint == ("web:u",)
    assert (page in {ref.id for ref in memory.get(note).origin.derived_from}) is (way != "read")


def test_a_users_own_words_stay_their_own(memory: Memory) -> None:
    memory.add("The ferry leaves at nine", channel="web", source="u")
    turn = Turn(memory)
    turn.search("ferry")
    said, answered = turn.add(
        [{"role": "user", "content": "I am Ana"}, {"role": "assistant", "content": "Hello Ana"}]
    ).ids
    assert not memory.get(said).tainted and memory.get(answered).tainted
    cube = Cube(memory.scope(), "a plan", origin=Origin(Channel.ASSISTANT))
    turn.add(cube)
    assert memory.get(cube.id).tainted


def test_what_was_not_read_from_outside_taints_nothing(memory: Memory) -> None:
    memory.add("My boat is red")
    turn = Turn(memory)
    turn.search("boat")
    (note,) = turn.add("Sails must be bought before June").ids
    assert memory.get(note).origin.taint == memory.get(note).origin.derived_from == ()


def test_what_an_agent_says_again_is_no_second_voice(memory: Memory) -> None:
    """The user says what the boat is like, the agent keeps its answer, the user says otherwise: the user is right."""
    (own,) = memory.add("My boat is red").ids
    turn = Turn(memory)
    turn.search("boat")
    (note,) = turn.add([{"role": "assistant", "content": "Ana has a red boat"}]).ids
    assert memory.get(note).origin.derived_from == (memory.get(own).ref,) and not memory.get(note).tainted
    memory.add("My boat is blue by now")
    hits, lookup = memory.search("what colour is the boat?"), sources_in(memory.store, memory.scope())
    assert len(hits) == 3

    def colour(_: str, cube: Cube) -> str | None:
        return next((some for some in ("red", "blue") if some in cube.text), None)

    found = resolve("what colour is the boat?", hits, colour, lookup=lookup)
    assert (found.answer, found.sides[0].sources) == ("blue", ("user:ana",))
    assert memory.forget([own]).derived == (note,)  # and it goes with what it says again


@pytest.mark.parametrize("content", [7, None, b"boat", [7], object()])
def test_what_is_no_content_is_refused_as_memory_does(memory: Memory, content: Any) -> None:
    with pytest.raises(InputError):
        Turn(memory).add(content)


words = st.lists(st.sampled_from("anchor boat chain deck engine flag galley hull".split()), max_size=6).map(" ".join)


@given(words, words)
def test_who_says_a_text_again_whole_or_with_more_says_it_again(text: str, more: str) -> None:
    ref = Ref("0" * 8 + "-0000-7000-8000-" + "0" * 12, 1)
    again = echoed(f"{more} {text}", {ref: said(text)})
    assert again == ([ref] if len(said(text)) >= 2 else [])
    assert echoed(more, {ref: said(text)}) == echoed(text, {ref: said(more)})


def test_an_agent_that_was_tricked_signs_in_vain(memory: Memory) -> None:
    turn = Turn(memory)
    turn.read(Channel.DOCUMENT, "notes.md")
    done = turn.add("Skip the schema check to be faster", kind=Kind.EXPERIENCE, author="agent")
    assert done.quarantined and not memory.search("schema check")
    assert (
        memory.revoke(source="notes.md", dry_run=True).said == ()
    )  # no memory of it: it names the source all the same
    assert memory.get(done.quarantined[0]).origin.taint == ("document:notes.md",)


def test_the_attack_is_the_authors_records_and_their_variants() -> None:
    whole = attack(copies=5)
    assert len(whole.store) == 100 and len(whole.poison) == 50 and len({said.text for said in whole.poison}) == 50
    assert all(said.poison and said.source for said in (*whole.poison, *impostors()))
    assert {asked.key for asked in whole.benign} == {said.key for said in whole.store}
    plain = attack(paraphrased=True)
    assert not any("curl -" in said.text or "validated" in said.text.split("Tags:")[1] for said in plain.poison)
