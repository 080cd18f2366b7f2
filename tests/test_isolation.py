"""Nobody sees what another one wrote: whatever was written, through every door that reads."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.cube import Cube, Origin, Scope, new_id
from holdfast.errors import ConflictError, HoldfastError, InputError, NotFoundError, ScopeError
from holdfast.memory import Memory
from holdfast.store.base import Operation, Where
from support import MEMORY, START, Clock, HashEmbedder, open_memory

EXAMPLES = settings.default.max_examples // 2  # each opens a store and asks it everything
WORDS = ["tea", "coffee", "lisbon", "porto", "monday", "secret"]
SCOPES = [
    Scope("acme", "ana"),
    Scope("acme", "ben"),
    Scope("umbrella", "ana"),  # the same name at another tenant
    Scope("acme", "ana", "bot"),
    Scope("acme", "ana", "bot", "s1"),
    Scope("acme", "ana", "bot", "s2"),
    Scope("acme", "ana", None, "s1"),
    Scope("acme/ana", "x"),  # paths that would run into each other
    Scope("acme", "ana/x"),
    Scope("acme", "-"),
    Scope("acme", "%2D"),
    Scope("acme", "Ana"),
]


def named(scope: Scope) -> dict[str, str | None]:
    return {"tenant": scope.tenant, "user": scope.user, "agent": scope.agent, "session": scope.session}


@dataclass
class Written:
    cube: Cube
    seq: int


def write(memory: Memory, writes: list[tuple[int, str]]) -> list[Written]:
    found = []
    for n, (at, words) in enumerate(writes):
        cube = Cube(SCOPES[at], f"{words} {n}", origin=Origin(author=f"author-{at}", reference=f"source-{at}"))
        done = memory.store.commit([Operation.add(cube)])
        found.append(Written(done.cubes[0], done.seq))
    return found


writes = st.lists(st.tuples(st.integers(0, len(SCOPES) - 1), st.sampled_from(WORDS)), min_size=2, max_size=14)


@settings(max_examples=EXAMPLES)
@given(writes, st.sampled_from(SCOPES), st.booleans())
def test_no_read_shows_what_the_scope_does_not_cover(some: list[tuple[int, str]], reader: Scope, embed: bool) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as home:
        clock = Clock()
        memory = open_memory(Path(home), clock=clock, embedder=HashEmbedder(dimension=8) if embed else None)
        with memory:
            written = write(memory, some)
            memory.flush()
            mine = {item.cube.id for item in written if reader.covers(item.cube.scope)}
            here = named(reader)
            seen = {
                "select": [cube.id for cube in memory.select(**here)],
                "everything": [cube.id for cube in memory.select(Where(), **here)],
                "past": [cube.id for cube in memory.as_of(START).select(**here)],
                "by source": [
                    cube.id for n in range(len(SCOPES)) for cube in memory.select(Where(source=f"source-{n}"), **here)
                ],
                "by author": [
                    cube.id for n in range(len(SCOPES)) for cube in memory.select(Where(author=f"author-{n}"), **here)
                ],
            }
            for words in WORDS:
                hits = memory.search(words, k=50, neighbours=3, **here)
                seen[f"search {words}"] = [cube.id for hit in hits for cube in (hit.cube, *hit.before, *hit.after)]
                seen[f"past search {words}"] = [hit.id for hit in memory.as_of(START).search(words, k=50, **here)]
                for text in (memory.context(words, budget=9999, **here), memory.as_of(START).context(words, **here)):
                    shown = {item.cube.text for item in written if f"] {item.cube.text}</memory>" in text}
                    allowed = {item.cube.text for item in written if item.cube.id in mine}
                    assert shown <= allowed, words
            for name, ids in seen.items():
                assert set(ids) <= mine, name
                if name in ("select", "everything", "past"):
                    assert set(ids) == mine, name
            for item in written:
                id = item.cube.id
                doors = {
                    "get": lambda id=id: memory.get(id, **here),
                    "version": lambda id=id: memory.get(id, version=1, **here),
                    "past": lambda id=id: memory.as_of(START).get(id, **here),
                    "lineage": lambda id=id: memory.lineage(id, **here),
                    "plan": lambda id=id: memory.forget(id, dry_run=True, **here),
                }
                for name, door in doors.items():
                    if id in mine:
                        door()
                        continue
                    with pytest.raises(NotFoundError) as refused:
                        door()
                    assert item.cube.text not in str(refused.value), name
                if reader.partition != item.cube.scope.partition:
                    assert memory.history(id, **here) == []
                elif id not in mine:
                    assert all(change.cube is None for change in memory.history(id, **here))
            for change in memory.history(**here):
                assert change.event.partition == reader.partition
                assert change.cube is None or change.cube.id in mine


@settings(max_examples=EXAMPLES)
@given(writes, st.sampled_from(SCOPES))
def test_no_write_touches_what_the_scope_does_not_cover(some: list[tuple[int, str]], writer: Scope) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as home, open_memory(Path(home)) as memory:
        written = write(memory, some)
        others = [item for item in written if not writer.covers(item.cube.scope)]
        before = {item.cube.id: memory.store.get(item.cube.id, item.cube.scope) for item in others}
        here = named(writer)
        head = memory.store.head()
        for item in others:
            id = item.cube.id
            for door in (
                lambda id=id: memory.correct(id, "mine now", **here),
                lambda id=id: memory.retract(id, **here),
                lambda id=id: memory.freeze(id, **here),
                lambda id=id: memory.restore(id, **here),
                lambda id=id: memory.feedback([id], -1.0, **here),
                lambda id=id: memory.forget(id, **here),
                lambda seq=item.seq: memory.undo(seq, **here),
                lambda cube=item.cube: memory.add(cube, **here),
                lambda cube=item.cube: memory.add(cube.with_(scope=writer), **here),
                lambda cube=item.cube: (
                    memory.add(Cube(writer, "x", origin=Origin(derived_from=(cube.ref,))), **here)
                    if cube.scope.partition != writer.partition
                    else memory.get(new_id(), **here)
                ),
            ):
                with pytest.raises((NotFoundError, ScopeError, ConflictError)) as refused:
                    door()
                if item.cube.scope.partition != writer.partition:
                    assert item.cube.text not in str(refused.value)
        assert memory.store.head() == head
        for everything in (False, True):
            with suppress(NotFoundError):
                if everything:
                    memory.forget(everything=True, **here)
                else:
                    for n in range(len(SCOPES)):
                        memory.forget(source=f"source-{n}", **here)
                        memory.forget(author=f"author-{n}", **here)
        assert list(memory.select(Where(), **here)) == [], "what is the writer's own went"
        for item in others:
            assert memory.store.get(item.cube.id, item.cube.scope) == before[item.cube.id]
        assert memory.verify() == []


@pytest.fixture
def memory(place: Path | str) -> Iterator[Memory]:
    with open_memory(place, user=None) as opened:
        yield opened


CALLS = {
    "add": lambda memory, **scope: memory.add("x", **scope),
    "search": lambda memory, **scope: memory.search("x", **scope),
    "context": lambda memory, **scope: memory.context("x", **scope),
    "select": lambda memory, **scope: memory.select(**scope),
    "get": lambda memory, **scope: memory.get(new_id(), **scope),
    "history": lambda memory, **scope: memory.history(**scope),
    "undo": lambda memory, **scope: memory.undo(1, **scope),
    "correct": lambda memory, **scope: memory.correct(new_id(), "y", **scope),
    "retract": lambda memory, **scope: memory.retract(new_id(), **scope),
    "feedback": lambda memory, **scope: memory.feedback([], 1.0, **scope),
    "forget": lambda memory, **scope: memory.forget(everything=True, **scope),
    "lineage": lambda memory, **scope: memory.lineage(new_id(), **scope),
    "past": lambda memory, **scope: memory.as_of(START).search("x", **scope),
    "past select": lambda memory, **scope: memory.as_of(START).select(**scope),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_names_nobody_is_refused(memory: Memory, call: str) -> None:
    memory.add("somebody's", user="ana")
    for scope in (
        {},
        {"user": None},
        {"agent": "bot"},
        {"user": ""},
        {"user": " "},
        {"user": 5},
    ):
        with pytest.raises(ScopeError):
            CALLS[call](memory, **scope)
    with pytest.raises((InputError, TypeError)):
        CALLS[call](memory, user="ana", usr="ben")


def test_a_default_is_not_lost_by_naming_nothing(place: Path | str) -> None:
    with open_memory(place, user="ana", session="s1") as memory:
        memory.add("in the session")
        memory.add("elsewhere", session="s2")
        assert [cube.text for cube in memory.select()] == ["in the session"]
        assert list(memory.select(session=None, user=None)) == list(memory.select()), "None names nothing"


def test_lineage_shows_no_other_session(memory: Memory) -> None:
    one, two = Scope("default", "ana", "bot", "s1"), Scope("default", "ana", "bot", "s2")
    [source] = memory.apply([Operation.add(Cube(one, "said here"))], actor="test")
    [derived] = memory.apply(
        [Operation.add(Cube(two, "drawn there", origin=Origin(derived_from=(source.ref,))))], actor="test"
    )
    assert memory.lineage(source.id, user="ana") == [derived.ref]
    assert memory.lineage(source.id, user="ana", session="s1") == []
    assert memory.lineage(derived.id, user="ana", session="s2", down=False) == []


def test_an_undo_by_number_tells_nothing_of_others(memory: Memory) -> None:
    """The journal is one for all; a number that is somebody else's must look like one that is nobody's."""
    ids = memory.add(["Ana's", "Ana's too"], user="ana").ids
    memory.feedback([ids[0]], 1.0, user="ana")
    memory.forget(ids[1], user="ana")
    said = set()
    for seq in range(1, 9):
        with pytest.raises(NotFoundError) as refused:
            memory.undo(seq, user="ben")
        said.add(str(refused.value).replace(str(seq), "N"))
    assert len(said) == 1 and not any(id in line for line in said for id in ids)


def test_what_is_forgotten_or_not_mine_or_nowhere_looks_the_same(memory: Memory) -> None:
    mine, others = memory.add("mine", user="ana").ids[0], memory.add("others'", user="ben").ids[0]
    memory.forget(mine, user="ana")
    nowhere = new_id()
    said = set()
    for id in (mine, others, nowhere):
        with pytest.raises(NotFoundError) as refused:
            memory.get(id, user="ana")
        said.add(str(refused.value).replace(id, "ID"))
    assert len(said) == 1


def test_a_cube_of_another_scope_is_not_added_through_mine(memory: Memory) -> None:
    for scope in (Scope("default", "ben"), Scope("other", "ana")):
        with pytest.raises(ScopeError):
            memory.add(Cube(scope, "x"), user="ana")
    with pytest.raises(ScopeError):
        memory.add(Cube(Scope("default", "ana"), "x"), user="ana", session="s1")
    assert memory.add(Cube(Scope("default", "ana", session="s1"), "x"), user="ana").ids


def test_a_row_that_was_moved_to_another_user_is_not_shown_by_a_search_and_is_found_by_verify(folder: Path) -> None:
    import sqlite3

    with open_memory(folder) as memory:
        memory.add("tea for Ana")
        memory.add("tea for Ben", user="ben")
        behind = sqlite3.connect(folder / "holdfast.db")
        behind.execute("UPDATE cubes SET rid = (2 << 32) + 1 WHERE rid = 1 << 32")
        behind.execute("UPDATE terms SET rid = (2 << 32) + 1 WHERE rid = 1 << 32")
        behind.commit()
        assert [hit.text for hit in memory.search("tea", user="ben")] == ["tea for Ben"]
        assert [cube.text for cube in memory.select(user="ben")] == ["tea for Ben"]
        assert memory.verify() != []


def test_errors_are_ours(memory: Memory) -> None:
    assert issubclass(NotFoundError, HoldfastError) and issubclass(ScopeError, HoldfastError)
