"""LangGraph's store over a memory: the same operations on it and on LangGraph's own, and a graph that uses it."""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypedDict

import pytest

pytest.importorskip("langgraph", reason="the extra adapters is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.graph import END, START, StateGraph
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore

from holdfast import Memory
from holdfast.adapters.langgraph import HoldfastStore
from holdfast.cube import Channel
from holdfast.errors import InputError, ScopeError
from support import MEMORY, Clock, open_memory


@pytest.fixture
def memory(folder: Path) -> Iterator[Memory]:
    with open_memory(folder) as memory:
        yield memory


def told(found: Any) -> Any:
    """What a result says, without its times and scores."""
    if isinstance(found, list):
        return [told(one) for one in found]
    return (found.namespace, found.key, found.value) if hasattr(found, "value") else found


# Names that an unsafe mapping would confuse: separators, escapes, wildcards of SQL, letters that fold, a lone surrogate.
LABELS = st.sampled_from(
    ["a", "b", "a/b", "a%2Fb", "%", "_", "a:", "langgraph2", "ä", "a\u0308", "A", " ", "-", "#", "\ud800", "'"]
)
NAMESPACES = st.lists(LABELS, min_size=1, max_size=3).map(tuple)
VALUES = st.dictionaries(
    st.sampled_from(["x", "y", "text"]),
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "lisbon", "tea and rain"]) | st.lists(st.integers(0, 2), max_size=2) | st.dictionaries(st.sampled_from(["x", "z"]), st.integers(0, 2), max_size=2),
    max_size=3,
)  # fmt: skip
FILTERS = st.none() | st.fixed_dictionaries({"x": st.integers(-3, 3) | st.none() | st.dictionaries(st.sampled_from(["$eq", "$ne"]), st.integers(-3, 3), min_size=1) | st.just([1, 2]) | st.just({"z": 1})})  # fmt: skip
OPS = st.one_of(
    st.builds(lambda n, k, v: PutOp(n, k, v), NAMESPACES, LABELS, VALUES),
    st.builds(lambda n, k: PutOp(n, k, None), NAMESPACES, LABELS),
    st.builds(lambda n, k: GetOp(n, k), NAMESPACES, LABELS),
    st.builds(lambda n, f: SearchOp(n, f, limit=100), st.just(()) | NAMESPACES, FILTERS),
    st.builds(lambda c, d: ListNamespacesOp(c, d, limit=100), st.none() | st.tuples(st.builds(MatchCondition, st.sampled_from(["prefix", "suffix"]), st.lists(LABELS | st.just("*"), min_size=1, max_size=2).map(tuple))), st.none() | st.integers(1, 3)),
)  # fmt: skip


@settings(max_examples=25)
@given(st.lists(st.lists(OPS, min_size=1, max_size=4), min_size=1, max_size=8))
def test_it_does_what_langgraphs_own_store_does(batches: list[list[Any]]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as home, open_memory(Path(home) / "s") as memory:
        ours, theirs = HoldfastStore(memory), InMemoryStore()
        for ops in batches:
            for op, one, two in zip(ops, ours.batch(ops), theirs.batch(ops), strict=True):
                if isinstance(op, SearchOp):
                    assert sorted(map(repr, told(one))) == sorted(map(repr, told(two)))
                elif isinstance(op, ListNamespacesOp):
                    # Theirs also lists what is empty since, or was only looked for.
                    full = {item.namespace[: op.max_depth] for item in theirs.search((), limit=1000)}
                    assert one == [namespace for namespace in two if namespace in full]
                else:
                    assert told(one) == told(two)
        assert memory.verify() == []


def test_names_that_look_alike_are_different_items(memory: Memory) -> None:
    store = HoldfastStore(memory)
    names = [
        (("a", "b"), "c"),
        (("a",), "b/c"),
        (("a/b",), "c"),
        (("a%2Fb",), "c"),
        (("a",), "b%2Fc"),
        (("a", "b", "c"), ""),
        (("a", "b"), "c "),
    ]
    for number, (namespace, key) in enumerate(names):
        store.put(namespace, key, {"n": number})
    assert [store.get(namespace, key).value["n"] for namespace, key in names] == list(range(len(names)))
    store.delete(("a",), "b/c")
    assert [store.get(*name) is None for name in names] == [False, True, False, False, False, False, False]


def test_a_namespace_that_langgraph_refuses_is_refused(memory: Memory) -> None:
    store = HoldfastStore(memory)
    for namespace in ((), ("a.b",), ("",), ("langgraph",)):
        with pytest.raises(InvalidNamespaceError):
            store.put(namespace, "k", {"x": 1})


def test_search_ranks_by_the_strings_pages_and_leaves_out_what_is_not_indexed(memory: Memory) -> None:
    store = HoldfastStore(memory)
    store.put(("docs",), "1", {"text": "Lisbon has many hills", "n": 1})
    store.put(("docs",), "2", {"text": "The printer is out of paper", "n": 2})
    store.put(("docs",), "3", {"text": "Lisbon by tram", "n": 3}, index=False)
    store.put(("other",), "4", {"text": "Lisbon hills at night", "n": 4})
    found = store.search(("docs",), query="hills of Lisbon")
    assert [item.key for item in found] == ["1", "2", "3"] and found[0].score > 0 and found[2].score is None
    assert [item.key for item in store.search(("docs",), query="hills of Lisbon", limit=1, offset=1)] == ["2"]
    assert [item.key for item in store.search((), query="hills", filter={"n": {"$gt": 1}}, limit=1)] == ["4"]
    with pytest.raises(InputError, match="knows"):
        store.search((), filter={"n": {"$like": 1}})


def test_fields_say_what_is_searched(memory: Memory) -> None:
    store = HoldfastStore(memory, index=["title", "parts[*].name"])
    store.put(("d",), "1", {"title": "harbour", "secret": "heron", "parts": [{"name": "crane"}]})
    assert store.search((), query="harbour")[0].score and store.search((), query="crane")[0].score
    assert store.search((), query="heron")[0].score is None


def test_every_put_is_a_version_that_can_be_undone_and_forgotten(memory: Memory) -> None:
    store = HoldfastStore(memory, agent="planner")
    store.put(("facts",), "city", {"text": "Ana lives in Porto"})
    first = store.get(("facts",), "city")
    store.put(("facts",), "city", {"text": "Ana lives in Lisbon"})
    second = store.get(("facts",), "city")
    assert second.created_at == first.created_at and second.updated_at > first.updated_at
    (cube,) = memory.select()
    assert (cube.version, cube.origin.channel, cube.scope.agent) == (2, Channel.ASSISTANT, "planner")
    memory.undo(memory.history(cube.id)[-1].event.seq)
    assert store.get(("facts",), "city").value == {"text": "Ana lives in Porto"}
    store.delete(("facts",), "city")
    assert store.get(("facts",), "city") is None and memory.get(cube.id).status == "archived"
    store.put(("facts",), "city", {"text": "Ana lives in Faro"})
    memory.forget(source=cube.origin.reference).verify()
    assert store.get(("facts",), "city") is None


def test_where_asked_a_delete_erases(memory: Memory) -> None:
    store = HoldfastStore(memory, erase=True)
    store.put(("facts",), "city", {"text": "Ana lives in Porto"})
    (cube,) = memory.select()
    store.delete(("facts",), "city")
    with pytest.raises(KeyError):
        memory.get(cube.id)
    store.put(("facts",), "city", {"text": "Ana lives in Porto"})
    assert store.get(("facts",), "city").value["text"] == "Ana lives in Porto"


def test_what_expires_is_gone_and_a_read_gives_it_new_time(folder: Path) -> None:
    clock = Clock()
    with open_memory(folder, clock=clock) as memory:
        store = HoldfastStore(memory, ttl={"refresh_on_read": True})
        store.put(("n",), "k", {"x": 1}, ttl=10)
        clock.at += timedelta(minutes=9)
        assert store.get(("n",), "k", refresh_ttl=False) and store.get(("n",), "k")
        clock.at += timedelta(minutes=9)
        assert store.search(("n",), refresh_ttl=False), "the second read began its time anew"
        clock.at += timedelta(minutes=2)
        assert store.get(("n",), "k") is None and store.search(()) == [] and store.list_namespaces() == []
        store.put(("n",), "k", {"x": 2})
        clock.at += timedelta(days=900)
        assert store.get(("n",), "k").value == {"x": 2}


def test_users_are_walled_off_by_a_label_where_asked(folder: Path) -> None:
    with open_memory(folder, user=None) as memory:
        with pytest.raises(ScopeError):
            HoldfastStore(memory)
        store = HoldfastStore(memory, user_at=1)
        store.put(("memories", "ana"), "k", {"x": 1})
        store.put(("memories", "bo"), "k", {"x": 2})
        assert [item.value for item in store.search(("memories", "ana"))] == [{"x": 1}]
        assert store.list_namespaces(prefix=("memories", "bo")) == [("memories", "bo")]
        assert [cube.data["value"] for cube in memory.select(user="bo")] == [{"x": 2}]
        for ask in (
            lambda: store.search(("memories",)),
            store.list_namespaces,
            lambda: store.search(("memories", "*")),
            lambda: store.get(("x",), "k"),
        ):
            with pytest.raises(InputError, match="whose items"):
                ask()


def test_what_is_no_json_is_refused_and_what_is_handed_out_is_a_copy(memory: Memory) -> None:
    store = HoldfastStore(memory)
    for value in ({"x": object()}, {"x": float("nan")}, {"x": {1, 2}}):
        with pytest.raises(InputError, match="JSON"):
            store.put(("n",), "k", value)
    mine = {"x": [1]}
    store.put(("n",), "k", mine)
    mine["x"].append(2)
    store.get(("n",), "k").value["x"].append(3)
    assert store.get(("n",), "k").value == {"x": [1]}


def _puts(folder: Path, name: str, barrier: Any) -> None:
    with open_memory(folder) as memory:
        store = HoldfastStore(memory)
        barrier.wait()
        for number in range(15):
            store.put(("shared",), f"key {number}", {"by": name, "text": f"{name} {number}"})
            store.put((name,), f"key {number}", {"by": name})


def test_two_processes_write_the_same_keys_and_each_is_there_once(folder: Path) -> None:
    open_memory(folder).close()
    context = multiprocessing.get_context("fork")  # the store is closed, and this module slow to import
    barrier = context.Barrier(2)
    writers = [context.Process(target=_puts, args=(folder, name, barrier)) for name in ("left", "right")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    with open_memory(folder) as memory:
        store = HoldfastStore(memory)
        assert [len(store.search((name,), limit=100)) for name in ("shared", "left", "right")] == [15, 15, 15]
        names = [cube.origin.reference for cube in memory.select()]
        assert len(names) == len(set(names)) == 45 and memory.verify() == []


def test_a_graph_remembers_across_its_threads(memory: Memory) -> None:
    class State(TypedDict):
        said: str
        answer: str

    def talk(state: State, *, store: BaseStore) -> dict[str, str]:
        known = store.search(("memories", "ana"), query=state["said"])
        store.put(("memories", "ana"), state["said"], {"text": state["said"]})
        return {"answer": known[0].value["text"] if known else "nothing"}

    graph = StateGraph(State)
    graph.add_node("talk", talk)
    graph.add_edge(START, "talk")
    graph.add_edge("talk", END)
    app = graph.compile(store=HoldfastStore(memory))
    assert app.invoke({"said": "I moved to Lisbon", "answer": ""})["answer"] == "nothing"

    async def again() -> str:
        return (await app.ainvoke({"said": "Where did I move?", "answer": ""}))["answer"]

    assert asyncio.run(again()) == "I moved to Lisbon"
