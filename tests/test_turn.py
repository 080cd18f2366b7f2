"""What an agent read in a turn has a part in what it writes in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import Memory
from holdfast.agent.turn import Turn
from holdfast.cube import Channel, Cube, Kind, Origin
from holdfast.guard.attacks.graft import attack, impostors


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
    (note,) = turn.add("Ana has a red boat").ids
    assert memory.get(note).origin.taint == memory.get(note).origin.derived_from == ()


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
