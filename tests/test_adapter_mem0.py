"""mem0's calls over a memory: its shapes, its errors, its filters; and what mem0 does not promise."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast import importers
from holdfast.adapters.mem0 import TENANT, AsyncMemory, Memory
from holdfast.cube import Channel
from support import Clock, open_memory


@pytest.fixture
def mem0(folder: Path) -> Iterator[Memory]:
    with Memory(path=folder, embedder=None, background=False, durability="normal") as memory:
        yield memory


def one(answer: dict[str, Any]) -> dict[str, Any]:
    (result,) = answer["results"]
    return result


def texts(answer: dict[str, Any]) -> list[str]:
    return [result["memory"] for result in answer["results"]]


def test_results_have_mem0s_shapes(mem0: Memory) -> None:
    added = one(mem0.add("I like tea", user_id="ana", metadata={"topic": "food"}, infer=False))
    assert added == {"id": added["id"], "memory": "I like tea", "event": "ADD", "actor_id": None, "role": "user"}
    item = mem0.get(added["id"])
    digest = hashlib.md5(b"I like tea").hexdigest()
    plain = {
        "id": added["id"],
        "memory": "I like tea",
        "hash": digest,
        "metadata": {"topic": "food"},
        "user_id": "ana",
        "role": "user",
    }
    assert {name: item[name] for name in plain} == plain and item["score"] is None
    assert set(item) == {*plain, "created_at", "updated_at", "score"} and datetime.fromisoformat(item["created_at"])
    assert one(mem0.get_all(filters={"user_id": "ana"})) == {name: item[name] for name in item if name != "score"}
    found = one(mem0.search("what tea?", filters={"user_id": "ana"}))
    assert {**found, "score": None} == item and 0 < found["score"] <= 1
    assert one(mem0.search("tea", filters={"user_id": "ana"}, explain=True))["score_details"]
    assert mem0.update(added["id"], "I like coffee", metadata={"sure": True}) == {
        "message": "Memory updated successfully!"
    }
    assert mem0.get(added["id"])["metadata"] == {"topic": "food", "sure": True}
    assert mem0.delete(added["id"]) == {"message": "Memory deleted successfully!"} and mem0.get(added["id"]) is None
    history = mem0.history(added["id"])
    assert [(line["event"], line["old_memory"], line["new_memory"], line["is_deleted"]) for line in history] == [
        ("ADD", None, "I like tea", False),
        ("UPDATE", "I like tea", "I like coffee", False),
        ("DELETE", "I like coffee", None, True),
    ]
    assert set(history[0]) == {
        "id",
        "memory_id",
        "old_memory",
        "new_memory",
        "event",
        "created_at",
        "updated_at",
        "is_deleted",
        "actor_id",
        "role",
    }
    assert mem0.history("00000000-0000-7000-8000-000000000000") == []


def test_roles_are_channels_and_system_prompts_and_echoes_are_no_memories(mem0: Memory) -> None:
    talk = [
        {"role": "system", "content": "You are terse"},
        {"role": "user", "content": "I live in Lisbon", "name": "ana"},
        {"role": "assistant", "content": "Lisbon has hills"},
        {"role": "user"},
        "nonsense",
    ]
    results = mem0.add(talk, user_id="ana", infer=False)["results"]
    assert [(result["memory"], result["actor_id"], result["role"]) for result in results] == [
        ("I live in Lisbon", "ana", "user"),
        ("Lisbon has hills", None, "assistant"),
    ]
    channels = [cube.origin.channel for cube in mem0.holdfast.select(tenant=TENANT, user="ana")]
    assert channels == [Channel.USER, Channel.ASSISTANT]
    block = mem0.holdfast.context("Lisbon", tenant=TENANT, user="ana")
    assert mem0.add(block, user_id="ana")["results"] == []


def test_facts_are_drawn_without_a_model_and_the_same_again_is_known(mem0: Memory) -> None:
    results = mem0.add("My favourite colour is green.", user_id="ana")["results"]
    assert [result["event"] for result in results] == ["ADD", "ADD"] and "green" in results[1]["memory"]
    again = one(mem0.add("My favourite colour is green.", user_id="ana"))
    assert (again["event"], again["id"]) == ("NONE", results[0]["id"])
    mem0.delete(results[0]["id"])
    assert mem0.get_all(filters={"user_id": "ana"})["results"] == [], "what was drawn from it goes with it"


def test_where_nothing_is_to_be_inferred_nothing_is(mem0: Memory) -> None:
    mem0.add("My favourite colour is green.", user_id="ana", infer=False)
    mem0.holdfast.flush()
    assert texts(mem0.get_all(filters={"user_id": "ana"})) == ["My favourite colour is green."]


def test_ids_scope_as_in_mem0_and_no_filter_crosses_a_user(mem0: Memory) -> None:
    mem0.add("ana of a, run 1", user_id="ana", agent_id="a", run_id="1", infer=False)
    mem0.add("ana of b", user_id="ana", agent_id="b", infer=False)
    mem0.add("bo of a", user_id="bo", agent_id="a", infer=False)
    mem0.add("nobody's of a", agent_id="a", infer=False)

    def of(**filters: Any) -> list[str]:
        return texts(mem0.get_all(filters=filters))

    assert of(user_id="ana") == ["ana of a, run 1", "ana of b"] and of(user_id="ana", agent_id="b") == ["ana of b"]
    assert of(user_id="ana", run_id="1") == ["ana of a, run 1"] and of(user_id="ana", run_id="2") == []
    assert of(agent_id="a") == ["nobody's of a"], "an agent is no way around the wall between users"
    assert of(user_id=" ana ") == of(user_id="ana") and of(AND=[{"user_id": "bo"}, {"agent_id": "a"}]) == ["bo of a"]
    assert mem0.get_all(filters={"agent_id": "a"})["results"][0].get("user_id") is None
    assert texts(mem0.search("ana", filters={"user_id": "bo"})) == []


def test_filters(mem0: Memory) -> None:
    for number, metadata in enumerate([{"n": 1, "t": "Red tea"}, {"n": 2, "t": "green"}, {"n": "x"}, None]):
        mem0.add(f"thing number {number}", user_id="ana", metadata=metadata, infer=False)

    def of(**filters: Any) -> str:
        found = mem0.get_all(filters={"user_id": "ana", **filters})
        assert sorted(
            texts(mem0.search("thing number", filters={"user_id": "ana", **filters}, threshold=0.0))
        ) == sorted(texts(found))
        return "".join(words[-1] for words in texts(found))

    assert (
        of() == "0123"
        and of(n=1) == "0"
        and of(n="*") == "012"
        and of(role="user") == "0123"
        and of(role="assistant") == ""
    )
    assert of(n={"gt": 1}) == "1" and of(n={"gte": 1, "lt": 2}) == "0" and of(n={"lte": 2}) == "01"
    assert of(n={"in": [1, "x"]}) == "02" and of(n={"nin": [1, "x"]}) == "13" and of(n={"ne": 1}) == "123"
    assert of(t={"contains": "tea"}) == "0" and of(t={"icontains": "RED"}) == "0"
    assert (
        of(OR=[{"n": 1}, {"n": 2}]) == "01"
        and of(NOT=[{"n": 1}, {"n": 2}]) == "23"
        and of(AND=[{"n": {"gt": 0}}, {"t": "green"}]) == "1"
    )
    for most in ({"top_k": 2}, {"limit": 2}):
        assert len(mem0.get_all(filters={"user_id": "ana"}, **most)["results"]) == 2
        assert len(mem0.search("thing number", filters={"user_id": "ana"}, threshold=0.0, **most)["results"]) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.add("x y"),
        lambda m: m.add("x y", user_id=" "),
        lambda m: m.add("x y", user_id="a b"),
        lambda m: m.add(7, user_id="ana"),
        lambda m: m.add("x y", user_id="ana", memory_type="procedural_memory"),
        lambda m: m.add("x y", user_id="ana", expiration_date="soon"),
        lambda m: m.get_all(),
        lambda m: m.get_all(filters={"topic": "x"}),
        lambda m: m.get_all(user_id="ana"),
        lambda m: m.get_all(filters={"user_id": "*"}),
        lambda m: m.get_all(filters={"user_id": {"in": ["ana", "bo"]}}),
        lambda m: m.get_all(filters={"user_id": "ana", "OR": [{"user_id": "bo"}], "AND": "x"}),
        lambda m: m.get_all(filters={"user_id": "ana", "n": {"like": 1}}),
        lambda m: m.get_all(filters={"AND": [{"user_id": "ana"}, {"user_id": "bo"}]}),
        lambda m: m.get_all(filters={"user_id": "ana"}, top_k=-1),
        lambda m: m.search("tea"),
        lambda m: m.search("tea", user_id="ana"),
        lambda m: m.search(" ", filters={"user_id": "ana"}),
        lambda m: m.search("tea", filters={"user_id": "ana"}, threshold=2),
        lambda m: m.search("tea", filters={"user_id": "ana"}, keyword_search=True),
        lambda m: m.update("00000000-0000-7000-8000-000000000000", "x"),
        lambda m: m.update("00000000-0000-7000-8000-000000000000"),
        lambda m: m.delete("00000000-0000-7000-8000-000000000000"),
        lambda m: m.delete("nonsense"),
        lambda m: m.delete_all(),
    ],
)
def test_wrong_calls_are_value_errors_as_in_mem0(mem0: Memory, call: Any) -> None:
    mem0.add("kept", user_id="ana", infer=False)
    with pytest.raises(ValueError, match=r"\w"):
        call(mem0)
    assert texts(mem0.get_all(filters={"user_id": "ana"})) == ["kept"]
    assert mem0.get("nonsense") is None


def test_metadata_can_put_nothing_into_another_scope(mem0: Memory) -> None:
    result = one(
        mem0.add(
            "mine", user_id="ana", metadata={"user_id": "bo", "agent_id": "x", "actor_id": "y", "n": 1}, infer=False
        )
    )
    mem0.update(result["id"], metadata={"user_id": "bo"})
    item = mem0.get(result["id"])
    assert item["user_id"] == "ana" and item["metadata"] == {"n": 1} and "agent_id" not in item


def test_delete_all_and_reset_reach_what_they_say_and_no_more(folder: Path) -> None:
    with open_memory(folder) as ours:
        ours.add("a memory of the store that is not mem0's")
        mem0 = Memory(memory=ours)
        for user, agent in (("ana", "a"), ("ana", "b"), ("bo", "a")):
            mem0.add(f"{user} of {agent}", user_id=user, agent_id=agent, infer=False)
        mem0.delete_all(user_id="ana", agent_id="a")
        assert texts(mem0.get_all(filters={"user_id": "ana"})) == ["ana of b"]
        assert texts(mem0.get_all(filters={"user_id": "bo"})) == ["bo of a"]
        erasing = Memory(memory=ours, erase=True)
        gone = one(mem0.get_all(filters={"user_id": "ana"}))["id"]
        erasing.delete(gone)
        assert [line["event"] for line in mem0.history(gone)][-1] == "DELETE" and "ana of b" not in str(
            mem0.history(gone)
        )
        assert mem0.get(next(ours.select()).id) is None, "what is not mem0's is not to be had by its id"
        mem0.reset()
        assert mem0.get_all(filters={"user_id": "bo"})["results"] == []
        assert [cube.text for cube in ours.select()] == [
            "a memory of the store that is not mem0's"
        ] and ours.verify() == []
        mem0.close()
        assert list(ours.select()), "it was not opened here"


def test_a_deleted_memory_can_be_brought_back(mem0: Memory) -> None:
    id = one(mem0.add("I like tea", user_id="ana", infer=False))["id"]
    mem0.delete(id)
    mem0.holdfast.undo(mem0.holdfast.history(id, tenant=TENANT, user="ana")[-1].event.seq, tenant=TENANT, user="ana")
    assert mem0.get(id)["memory"] == "I like tea"


def test_what_expires_is_shown_to_the_end_of_its_day(folder: Path) -> None:
    clock = Clock()
    with open_memory(folder, clock=clock) as ours:
        mem0, filters = Memory(memory=ours), {"user_id": "ana"}
        id = one(mem0.add("the fair is on", user_id="ana", expiration_date="2026-01-02", infer=False))["id"]
        assert mem0.get(id)["expiration_date"] == "2026-01-02"
        clock.at += timedelta(days=1)
        assert mem0.get_all(filters=filters)["results"] and mem0.search("fair", filters=filters)["results"]
        clock.at += timedelta(days=1)
        assert mem0.get_all(filters=filters)["results"] == mem0.search("fair", filters=filters)["results"] == []
        assert mem0.get_all(filters=filters, show_expired=True)["results"]
        mem0.update(id, expiration_date=None)
        assert mem0.get_all(filters=filters)["results"] and "expiration_date" not in mem0.get(id)
        mem0.update(id, expiration_date="2026-01-02")
        mem0.delete_all(user_id="ana")
        assert mem0.get_all(filters=filters, show_expired=True)["results"] == [], "what is expired is deleted too"


def test_what_was_imported_says_when_it_was_learnt(mem0: Memory, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(
        json.dumps([{"id": str(n), "memory": f"fact {n}", "created_at": "2025-03-01T00:00:00Z"} for n in range(20)])
    )
    assert importers.bring(mem0.holdfast, path, tenant=TENANT, user="ana").added == 20
    found = mem0.get_all(filters={"user_id": "ana"})["results"]  # their ids tell no time, but for what they are
    assert {item["created_at"] for item in found} == {"2025-03-01T00:00:00+00:00"} and len(found) == 20


def test_time_is_kept_and_counted_where_mem0_refuses(mem0: Memory) -> None:
    mem0.add("I visited Porto", user_id="ana", timestamp="2026-03-02", infer=False)
    mem0.add("I visited Faro", user_id="ana", timestamp=1_790_000_000, infer=False)
    found = mem0.search("what did I visit last week?", filters={"user_id": "ana"}, reference_date="2026-03-10", top_k=1)
    assert texts(found) == ["I visited Porto"]


def test_from_a_config_and_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOLDFAST_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    config = {"llm": {"provider": "openai"}, "holdfast": {"path": str(tmp_path / "here")}}
    with Memory.from_config(config) as memory:
        memory.add("I like tea", user_id="ana", infer=False)
    assert (tmp_path / "here" / "holdfast.db").exists()

    async def run() -> None:
        awaited = await AsyncMemory.from_config(config)
        id = one(await awaited.get_all(filters={"user_id": "ana"}))["id"]
        await awaited.update(id, "I like coffee")
        assert one(await awaited.search("coffee", filters={"user_id": "ana"}))["id"] == (await awaited.get(id))["id"]
        assert len(await awaited.history(id)) == 2
        await awaited.add("I like milk", user_id="ana", infer=False)
        await awaited.delete(id)
        await awaited.delete_all(user_id="ana")
        await awaited.reset()
        assert (await awaited.get_all(filters={"user_id": "ana"}))["results"] == []
        awaited.close()

    asyncio.run(run())
