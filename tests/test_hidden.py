"""Nothing that a call answers tells a principal of a memory that only others may read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import Cube, Memory
from holdfast.cube import Channel, Origin, Policy, Ref, Scope, Status, to_micros
from holdfast.errors import ConflictError, GuardError, HoldfastError, NotFoundError
from holdfast.retrieve.partition import View
from holdfast.store.base import Operation
from holdfast.store.grants import Right

ANA = {"tenant": "acme", "user": "ana"}
HOME = Scope("acme", "ana")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    with Memory(tmp_path / "m", embedder=None, background=False, tenant="acme") as opened:
        yield opened


def agent(
    memory: Memory, *rights: str, name: str = "bot", place: str = "acme/ana", kinds: tuple[str, ...] = ()
) -> Memory:
    memory.access.enrol(name)
    memory.access.grant(name, place, rights, kinds=kinds)
    return memory.held_by(name)


def said(text: str, *readers: str, kind: str = "message", source: str | None = None) -> Cube:
    """Each time a memory of its own, with the same words."""
    return Cube(HOME, text, kind, origin=Origin(Channel.USER, "Ana", source), policy=Policy(readers=readers))


def test_the_same_as_what_is_hidden_is_held_twice(memory: Memory) -> None:
    (hidden,) = memory.add(said("the code is 4711", "eve"), **ANA).ids
    bot, cat = agent(memory, "write"), agent(memory, "write", name="cat")
    added = bot.add(said("the code is 4711"), **ANA)
    assert not added.duplicates and added.ids != (hidden,)
    assert bot.add(said("the code is 4711"), **ANA).duplicates == added.ids, "its own it knows"
    others = cat.add(said("the code is 4711"), **ANA)
    assert not others.duplicates and {*others.ids}.isdisjoint({hidden, *added.ids}), "and nobody else's"
    assert memory.verify() == []


def test_who_added_words_that_were_changed_since_is_not_told_the_new_ones(memory: Memory) -> None:
    bot = agent(memory, "write")
    (own,) = bot.add(said("the code is 4711"), **ANA).ids
    memory.apply([Operation.update(memory.get(own, **ANA).with_(text="the code is 815"))], actor="ana")
    guessed = bot.add(said("the code is 815"), **ANA)
    assert not guessed.duplicates and guessed.ids != (own,)


def test_what_is_changed_into_the_words_of_what_is_hidden_is_no_conflict(memory: Memory) -> None:
    memory.add([said("the code is 4711", "eve"), said("the door is red")], **ANA)
    bot = agent(memory, "read", "write")
    (own,) = bot.add(said("the code is 0"), **ANA).ids
    with pytest.raises(ConflictError):
        bot.correct(own, "the door is red", **ANA)
    assert bot.correct(own, "the code is 4711", **ANA).text == "the code is 4711"
    assert bot.freeze(own, **ANA).text == "the code is 4711", "nor afterwards"
    assert memory.verify() == []


def test_what_is_hidden_has_no_part_in_a_search(memory: Memory) -> None:
    """Each of these rows is out of sight for another reason; what is out of sight counts in no score and names no author."""
    plan = Scope("acme", "ana", "plan")
    rows = [said("tea"), said("tea", "eve"), said("tea", "eve", "bot"), said("tea", kind="fact"), Cube(plan, "tea")]
    ids = [memory.add(row.with_(text=f"tea {n}"), **ANA).ids[0] for n, row in enumerate(rows)]
    partition = memory.recall.partition(memory.store.partition(HOME) or 0)
    partition.catch_up()

    def seen(bot: Memory) -> list[str]:
        view = View(now=to_micros(memory.store.now()), reach=bot.store.reach(HOME))
        return [ids[row] for row in range(len(ids)) if partition.visible(view)[row]]

    assert seen(agent(memory, "read")) == [ids[0], *ids[2:]]
    assert seen(agent(memory, "read", name="eve")) == ids
    assert seen(agent(memory, "read", name="facts", kinds=("fact",))) == [ids[3]]
    assert seen(agent(memory, "read", name="planner", place="acme/ana/plan")) == [ids[4]]
    writer = agent(memory, "write", name="writer")
    memory.access.grant("writer", "acme/ana", ["read"], kinds=["fact"])
    assert seen(writer) == [ids[3]], "a right to write shows nothing"


def test_a_revocation_leaves_what_it_may_not_judge_and_shows_what_may_be_read(memory: Memory) -> None:
    page = said("the ferry leaves at nine", source="https://f.example")
    hidden = said("the ferry is late", "eve", source="https://f.example")
    made = said("so be there early", "eve").with_(origin=Origin(Channel.ASSISTANT, derived_from=(Ref(page.id, 1),)))
    memory.add([page, hidden], **ANA)
    memory.add(made, **ANA)
    bot = agent(memory, "read", "write", "judge")
    planned = bot.revoke(source="https://f.example", dry_run=True, **ANA)
    assert planned.said == (page.id,) and planned.derived == (made.id,)
    assert [page.id in line for line in planned.diff] == [True], "no word of what only eve may read"
    assert bot.revoke(source="https://f.example", **ANA).seq
    assert memory.get(hidden.id, **ANA).status is Status.GENERATED
    assert memory.get(made.id, **ANA).status is Status.ARCHIVED


def test_of_what_a_memory_was_made_of_only_what_may_be_read_is_shown(memory: Memory) -> None:
    open_, hidden = said("tea"), said("coffee", "eve")
    memory.add([open_, hidden], **ANA)
    made = said("a drink").with_(origin=Origin(derived_from=(Ref(open_.id, 1), Ref(hidden.id, 1))))
    memory.add(made, **ANA)
    memory.apply([Operation.update(memory.get(hidden.id, **ANA).with_(text="cocoa"))], actor="ana")
    for who, seen in ((memory, {open_.id, hidden.id}), (agent(memory, "read"), {open_.id})):
        assert {ref.id for ref in who.store.sources([made], HOME)} == seen


def test_an_event_that_touched_what_is_hidden_is_no_event(memory: Memory) -> None:
    memory.add([said("tea"), said("coffee", "eve")], **ANA)
    seq = memory.store.head()[0]
    gone = memory.add(said("milk"), **ANA).ids[0]
    memory.forget(gone, **ANA)
    erased = memory.store.head()[0]
    bot = agent(memory, *Right)

    def answer(seq: int) -> str:
        with pytest.raises(HoldfastError) as caught:
            bot.undo(seq, **ANA)
        return f"{type(caught.value).__name__}: {caught.value}".replace(str(seq), "N")

    assert answer(seq) == answer(erased) == answer(99_999)
    with pytest.raises(ConflictError, match="forgotten"):
        memory.undo(erased, **ANA)


def test_who_may_judge_and_read_nothing_takes_back_a_change(memory: Memory) -> None:
    (own,) = memory.add(said("tea"), **ANA).ids
    seq = memory.store.head()[0]
    assert agent(memory, "judge").store.undo(seq, HOME)
    assert memory.get(own, **ANA).status is Status.ARCHIVED


def test_a_canary_is_asked_in_the_eyes_of_whoever_set_it(memory: Memory) -> None:
    """A guess that is right would hold back a change, and so tell that it is."""
    hidden = memory.get(memory.add(said("the reactor is in hall seven", "eve"), **ANA).ids[0], **ANA)
    bot = agent(memory, "read", "write", "judge")
    kept = bot.canary("where is the reactor?", "hall seven", **ANA)
    assert not bot.answers(kept)
    assert memory.apply([Operation.delete(hidden)], actor="tidy")
    seen = memory.get(memory.add(said("the reactor is in hall eight"), **ANA).ids[0], **ANA)
    memory.canary("where is the reactor?", "hall eight", **ANA)
    with pytest.raises(GuardError):
        memory.apply([Operation.delete(seen)], actor="tidy")


def test_an_id_that_is_hidden_cannot_be_told_from_one_that_is_not(memory: Memory) -> None:
    (hidden,) = memory.add(said("the code is 4711", "eve"), **ANA).ids
    bot = agent(memory, "read", "write")
    for call in (bot.get, bot.retract, bot.freeze):
        with pytest.raises(NotFoundError):
            call(hidden, **ANA)
