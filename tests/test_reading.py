"""Reading rows: what is read once is known again, and is everybody's own all the same."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast import Memory
from holdfast.cube import Channel, Cube, Origin, Policy, Scope
from holdfast.errors import IntegrityError, NotFoundError
from holdfast.guard.base import voter
from holdfast.store.base import Operation
from holdfast.store.rows import _read, _read_bare
from holdfast.store.sqlite import SqliteStore

ANA, BEN = Scope("default", "ana"), Scope("default", "ben")


def stored(store: SqliteStore, text: str, *of: Cube, scope: Scope = ANA, **more: object) -> Cube:
    origin = Origin(
        Channel.DERIVED if of else Channel.ASSISTANT, "cook", trust=0.8, derived_from=tuple(one.ref for one in of)
    )
    return store.commit([Operation.add(Cube(scope, text, origin=origin, **more))]).cubes[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [{"a": 1}, {"a": 1, "deep": {"list": [1, {"x": "y"}]}}, {}])
def test_what_one_reader_does_to_its_data_no_other_sees(tmp_path: Path, data: dict[str, object]) -> None:
    store = SqliteStore(tmp_path / "s")
    kept = stored(store, "tea", data=data)
    first = store.get(kept.id, ANA)
    assert first == store.get(kept.id, ANA) and first.data == data
    first.data["new"] = 1  # type: ignore[index]
    if "deep" in data:
        first.data["deep"]["list"][1]["x"] = "z"
    assert store.get(kept.id, ANA).data == data
    store.close()


def test_what_feedback_says_is_read_beside_what_is_known(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s")
    kept = stored(store, "tea")
    assert store.get(kept.id, ANA).use.visits == 0
    store.feedback([kept.id], ANA, 1.0)
    assert store.get(kept.id, ANA).use.visits == 1 and store.get(kept.id, ANA).use.utility > 0
    store.close()


def test_a_body_that_is_damaged_after_it_was_read_is_not_read_from_memory(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s")
    kept = stored(store, "tea")
    below = stored(store, "green tea", kept)
    assert store.get(kept.id, ANA).text == "tea" and len(store.sources([below], ANA, bare=True)) == 1
    with sqlite3.connect(tmp_path / "s" / "holdfast.db") as other:
        other.execute("UPDATE cubes SET body = replace(body, 'tea', 'ale') WHERE version = 1")
    assert store.get(kept.id, ANA).text == "ale"
    with sqlite3.connect(tmp_path / "s" / "holdfast.db") as other:
        other.execute("UPDATE cubes SET body = substr(body, 1, 40)")
    for read in (lambda: store.get(kept.id, ANA), lambda: store.sources([below], ANA, bare=True)):
        with pytest.raises(IntegrityError, match="damaged"):
            read()
    store.close()


def test_what_is_forgotten_is_kept_in_no_process_that_notices(tmp_path: Path) -> None:
    with Memory(tmp_path / "s", user="ana", embedder=None, background=False) as memory:
        id = memory.add("the boat leaks").ids[0]
        assert memory.search("boat")[0].id == id and _read.cache_info().currsize
        memory.forget(id).verify()
        assert _read.cache_info().currsize == _read_bare.cache_info().currsize == 0
        id = memory.add("the kettle leaks").ids[0]
        with Memory(tmp_path / "s", user="ana", embedder=None, background=False) as other:
            other.forget(id)
        memory.get(memory.add("the piano leaks").ids[0])
        assert _read.cache_info().currsize
        assert [hit.text for hit in memory.search("leaks")] == ["the piano leaks"]
        assert _read.cache_info().currsize <= 1  # the one that was found


def test_bare_sources_say_whose_they_are_and_nothing_else(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s")
    case = stored(store, "tea", data={"steps": [1]})
    page = store.commit(
        [Operation.add(Cube(ANA, "page", origin=Origin(Channel.WEB, reference="https://x.example")))]
    ).cubes[0]
    middle = stored(store, "green tea", case)
    top = stored(store, "any tea", middle, page)
    whole, bare = store.sources([top], ANA), store.sources([top], ANA, bare=True)
    assert whole.keys() == bare.keys() and len(bare) == 3
    assert all((bare[ref].origin, bare[ref].scope) == (whole[ref].origin, whole[ref].scope) for ref in bare)
    assert not any(one.text or one.data for one in bare.values())
    for cube in (top, middle, case, page):
        assert voter(cube, bare.get) == voter(cube, whole.get)
    assert store.sources([top], BEN, bare=True) == {}
    narrow = Scope("default", "ana", "somebody")
    assert store.sources([top], narrow, bare=True) == store.sources([top], narrow) == {}
    store.close()


def test_many_are_read_at_once_as_one_by_one(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s")
    cases = [stored(store, f"case {number}") for number in range(4)]
    lessons = [stored(store, f"lesson {number}", *cases[number : number + 2]) for number in range(3)]
    above = stored(store, "above", *lessons[:2])
    other = stored(store, "of another", scope=BEN)
    ids = [*(cube.id for cube in cases), other.id, "no id", "00000000-0000-0000-0000-000000000000"]
    assert store.several(ids, ANA) == {cube.id: store.get(cube.id, ANA) for cube in cases}
    expected = set()
    for id in ids:
        try:
            expected |= {ref.id for ref in store.lineage(id, ANA)}
        except NotFoundError:
            continue
    assert set(store.made_of(ids, ANA)) == expected == {above.id, *(one.id for one in lessons)}
    assert set(store.made_of([lessons[0].id, cases[0].id], ANA)) == {lessons[0].id, above.id}
    assert store.made_of([other.id], ANA) == store.several([other.id], ANA) == {}
    store.close()


def test_what_many_sources_have_in_common_is_that_of_each(tmp_path: Path) -> None:
    """More sources than are asked for one by one: the least trust, all taints, and the readers whom each of them lets."""
    store = SqliteStore(tmp_path / "s")
    made = [
        store.commit(
            [
                Operation.add(
                    Cube(
                        ANA,
                        f"page {number}",
                        origin=Origin(Channel.WEB, reference=f"https://{number}.example", trust=0.9 - number / 10),
                        policy=Policy(readers=("a", "b") if number else ("b", "c")),
                    )
                )
            ]
        ).cubes[0]
        for number in range(5)
    ]
    top = stored(store, "top", *made)
    assert top.origin.trust == pytest.approx(0.5) and len(top.origin.taint) == 5 and top.policy.readers == ("b",)
    gone = replace(made[0], id="00000000-0000-0000-0000-000000000000")
    with pytest.raises(NotFoundError, match="derived from"):
        stored(store, "of nothing", *made, gone)
    with pytest.raises(NotFoundError, match="derived from"):
        stored(store, "of another's", *made, scope=BEN)
    unknown = replace(made[0], version=9)  # of a version that never was, the newest stands
    assert stored(store, "again", unknown, *made[1:]).origin.trust == pytest.approx(0.5)
    store.close()
