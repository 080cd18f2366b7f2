"""The store against its promises: all or nothing, versions, statuses, undo, lineage, filters, and the past as it was."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from holdfast.cube import HELD, TRANSITIONS, Cube, Kind, Origin, Policy, Ref, Scope, Status, Use, new_id, utc
from holdfast.errors import ConflictError, HoldfastError, InputError, NotFoundError, StoreError
from holdfast.store import queue
from holdfast.store.base import Action, Operation, Where
from holdfast.store.rows import owned
from holdfast.store.sql import SqlStore
from server import Server
from support import ANA, BEN, MEMORY, START, Clock, HashEmbedder, add, open_memory, open_store, update

CHAT = Scope("acme", "ana", "bot", "chat-1")


@pytest.fixture
def store(place: Path | str) -> Iterator[SqlStore]:
    with_clock = open_store(place, clock=Clock())
    yield with_clock
    assert with_clock.verify() == [], "whatever a test did, the journal fits"
    with_clock.close()


def clock(store: SqlStore) -> Clock:
    assert isinstance(store._clock, Clock)
    return store._clock


def current(store: SqlStore, scope: Scope = ANA, **where: object) -> list[str]:
    return [cube.text for cube in store.select(scope, Where(**where))]  # type: ignore[arg-type]


# --- adding ---


def test_what_is_added_is_there_with_what_the_store_fills_in(store: SqlStore) -> None:
    cube = Cube(CHAT, "I moved", data={"role": "user"}, valid_from=utc("2025-05-01"), origin=Origin(author="ana"))
    done = add(store, cube)
    assert done.seq == 1 and done.duplicates == ()
    assert done.cubes == (cube.with_(recorded_at=START),)
    assert store.get(cube.id, CHAT) == store.get(cube.id, ANA) == done.cubes[0]
    event = next(iter(store.events()))
    assert (event.seq, event.txn, event.action, event.partition, event.id, event.version) == (
        1, 1, Action.ADD, "acme/ana", cube.id, 1,
    )  # fmt: skip


def test_a_commit_is_all_or_nothing(store: SqlStore) -> None:
    old = add(store, Cube(ANA, "old")).cubes[0]
    head, arrivals = store.head(), store.changes(1, 0, 0)
    for broken in (
        Operation.add(Cube(ANA, "")),
        Operation.add(Cube(ANA, "no JSON", data={"x": object()})),
        Operation.add(Cube(ANA, "orphan", origin=Origin(derived_from=(Ref(new_id(), 1),)))),
        Operation.update(Cube(ANA, "nobody")),
        Operation.update(old.with_(version=9)),
        Operation.delete(Cube(BEN, "not his", id=old.id)),
        Operation.add(Cube(ANA, "\ud800", origin=Origin(author="\ud800"))),
    ):
        good = Cube(ANA, "good"), Cube(BEN, "good too")
        with pytest.raises(HoldfastError):
            store.commit([*map(Operation.add, good), Operation.update(old.with_(text="new")), broken])
        assert store.head() == head and store.changes(1, 0, 0) == arrivals
        assert current(store) == ["old"] and store.partition(BEN) is None
    assert store.queue.backlog()["embed"][0] == 1, "no job is left of what was not committed"
    add(store, Cube(ANA, "next"))
    assert store.get(old.id, ANA) == old


def test_nothing_to_do_is_no_transaction(store: SqlStore) -> None:
    assert store.commit([]).seq == store.commit([Operation.none("nothing worth keeping")]).seq == 0
    assert store.head()[0] == 0


def test_adding_the_same_again_changes_nothing(store: SqlStore) -> None:
    first = add(store, Cube(ANA, "tea", valid_from=START)).cubes[0]
    again = add(store, Cube(ANA, "tea", valid_from=START), Cube(ANA, "tea", valid_from=START))
    assert again.seq == 0 and again.cubes == () and again.duplicates == (first.id, first.id)
    assert add(store, first).duplicates == (first.id,)
    different = (
        Cube(ANA, "Tea", valid_from=START),
        Cube(ANA, "tea"),
        Cube(ANA, "tea", "fact", valid_from=START),
        Cube(CHAT, "tea", valid_from=START),
        Cube(BEN, "tea", valid_from=START),
        Cube(ANA, "tea", valid_from=START, origin=Origin(author="ben")),
        Cube(ANA, "tea", valid_from=START, data={"turn": "2"}),
    )
    assert len(add(store, *different).cubes) == len(different)


def test_what_was_retracted_may_be_said_again(store: SqlStore) -> None:
    first = add(store, Cube(ANA, "tea")).cubes[0]
    store.commit([Operation.delete(first)])
    second = add(store, Cube(ANA, "tea")).cubes[0]
    assert second.id != first.id
    with pytest.raises(ConflictError, match="held already"):
        update(store, store.get(first.id, ANA), status=Status.ACTIVATED)
    assert add(store, Cube(ANA, "tea", status=Status.ARCHIVED)).cubes, "an archived copy is a memory of its own"


def test_an_id_is_one_memory(store: SqlStore) -> None:
    cube = add(store, Cube(ANA, "tea")).cubes[0]
    for other in (cube.with_(text="coffee"), cube.with_(scope=BEN), cube.with_(scope=CHAT)):
        with pytest.raises(ConflictError, match="taken"):
            add(store, other)
    assert current(store) == ["tea"] and store.partition(BEN) is None


def test_what_feedback_said_elsewhere_comes_with_an_import(store: SqlStore) -> None:
    use = Use(3, START, 0.5, 0.25)
    cube = add(store, Cube(ANA, "tea", use=use)).cubes[0]
    assert store.get(cube.id, ANA).use == use
    store.feedback([cube.id], ANA, 1.0)
    assert store.get(cube.id, ANA).use.visits == 4
    assert update(store, store.get(cube.id, ANA), text="green tea").use.visits == 4


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=4,
    )
)
@settings(max_examples=50, deadline=None)
def test_what_a_reader_does_to_data_is_its_own(data: dict[str, object]) -> None:
    written = {**data, "nested": {"list": [[1], {"a": 1}]}}
    with tempfile.TemporaryDirectory() as folder, closing(open_store(Path(folder), clock=Clock())) as store:
        id = add(store, Cube(ANA, "tea", data=written)).cubes[0].id
        known = json.dumps(store.get(id, ANA).data)
        assert known == json.dumps(written), "and 1 is neither 1.0 nor true"
        first = store.get(id, ANA).data
        for value in (first["nested"]["list"][1], first["nested"]["list"], first["nested"], first):
            value.clear()
        assert json.dumps(store.get(id, ANA).data) == known
        lent = store.several([id], ANA, lent=True)[id]
        own = owned(lent)
        assert own == lent and json.dumps(own.data) == known
        for value in (own.data["nested"]["list"][1], own.data["nested"]["list"], own.data["nested"], own.data):
            value.clear()
        assert json.dumps(lent.data) == json.dumps(store.get(id, ANA).data) == known


# --- changing ---


def test_an_update_makes_a_version_and_keeps_the_old_one(store: SqlStore) -> None:
    first = add(store, Cube(CHAT, "tea")).cubes[0]
    clock(store).tick()
    second = update(store, first, text="coffee", kind="fact", scope=ANA)
    assert second.version == 2 and second.scope == CHAT, "a memory does not move"
    assert [(row.cube.text, row.known_to is None) for row in store.versions(first.id, ANA)] == [
        ("tea", False),
        ("coffee", True),
    ]
    assert store.get(first.id, ANA, version=1).text == "tea"
    assert current(store) == ["coffee"]


def test_two_changes_from_one_reading_conflict(store: SqlStore) -> None:
    read = add(store, Cube(ANA, "tea")).cubes[0]
    update(store, read, text="coffee")
    with pytest.raises(ConflictError, match="version 2"):
        update(store, read, text="water")
    assert current(store) == ["coffee"]


@pytest.mark.parametrize("text", ["", "x" * (64 * 2**20 + 1)])
def test_an_update_is_held_to_what_an_add_is(store: SqlStore, text: str) -> None:
    cube = add(store, Cube(ANA, "tea")).cubes[0]
    with pytest.raises(InputError):
        update(store, cube, text=text)
    with pytest.raises(InputError):
        add(store, Cube(ANA, text))


@pytest.mark.parametrize("begin", [status for status in Status if status is not Status.PURGED])
@pytest.mark.parametrize("end", list(Status))
def test_the_status_machine(store: SqlStore, begin: Status, end: Status) -> None:
    cube = add(store, Cube(ANA, "tea", status=begin)).cubes[0]
    allowed = end in TRANSITIONS[begin] and end is not Status.PURGED
    if allowed:
        assert update(store, cube, status=end).status is end
    elif end is not begin:
        with pytest.raises((ConflictError, InputError)):
            update(store, cube, status=end)
    assert store.get(cube.id, ANA).version == 1 + allowed


def test_what_is_frozen_takes_no_change_but_the_thaw(store: SqlStore) -> None:
    cube = add(store, Cube(ANA, "tea")).cubes[0]
    cube = update(store, cube, status=Status.FROZEN)
    with pytest.raises(ConflictError, match="frozen"):
        update(store, cube, text="coffee")
    cube = update(store, cube, status=Status.ACTIVATED)
    assert update(store, cube, text="coffee").text == "coffee"


def test_feedback_is_the_only_thing_that_changes_use(store: SqlStore) -> None:
    cube = add(store, Cube(ANA, "tea")).cubes[0]
    for _ in range(3):
        store.get(cube.id, ANA)
        list(store.select(ANA))
    assert store.get(cube.id, ANA).use == Use()
    store.feedback([cube.id], ANA, 1.0)
    store.feedback([cube.id], ANA, 1.0)
    use = store.get(cube.id, ANA).use
    assert use.visits == 2 and use.last_use == START and use.utility == pytest.approx(0.3 + 0.7 * 0.3)
    assert store.get(cube.id, ANA).version == 1
    for reward in (1.5, float("nan")):
        with pytest.raises(InputError):
            store.feedback([cube.id], ANA, reward)
    with pytest.raises(NotFoundError):
        store.feedback([cube.id], BEN, 1.0)


# --- undo ---


def test_undo_of_an_add_a_change_a_retraction_and_of_an_undo(store: SqlStore) -> None:
    cube = add(store, Cube(ANA, "tea")).cubes[0]
    update(store, cube, text="coffee")
    store.undo(2, ANA)
    assert current(store) == ["tea"]
    store.undo(3, ANA)
    assert current(store) == ["coffee"], "an undo can be undone"
    store.commit([Operation.delete(store.get(cube.id, ANA))])
    store.undo(5, ANA)
    assert store.get(cube.id, ANA).status is Status.GENERATED
    other = add(store, Cube(ANA, "milk")).cubes[0]
    store.undo(store.head()[0], ANA)
    assert store.get(other.id, ANA).status is Status.ARCHIVED
    with pytest.raises(ConflictError, match="since"):
        store.undo(7, ANA)
    store.undo(store.head()[0], ANA)
    assert store.get(other.id, ANA).status is Status.GENERATED
    assert len(store.versions(cube.id, ANA)) == 6, "the past stays"


def test_undo_takes_back_a_whole_transaction(store: SqlStore) -> None:
    old = add(store, Cube(ANA, "tea")).cubes[0]
    fresh = Cube(ANA, "milk")
    done = store.commit(
        [
            Operation.add(fresh),
            Operation.update(old.with_(text="coffee")),
            Operation.update(old.with_(text="water", version=2)),
            Operation.update(fresh.with_(text="oat milk")),
            Operation.delete(fresh),
        ]
    )
    assert done.seq == 6
    store.undo(3, ANA)
    assert store.get(old.id, ANA).text == "tea"
    assert store.get(fresh.id, ANA).status is Status.ARCHIVED
    store.undo(store.head()[0], ANA)
    assert store.get(old.id, ANA).text == "water"


def test_undo_is_refused_where_it_would_lose_or_invent_something(store: SqlStore) -> None:
    cube = add(store, Cube(ANA, "tea")).cubes[0]
    update(store, cube, text="coffee")
    with pytest.raises(ConflictError, match="changed again since"):
        store.undo(1, ANA)
    store.feedback([cube.id], ANA, 1.0)
    with pytest.raises(ConflictError, match="feedback"):
        store.undo(3, ANA)
    store.purge([cube.id], ANA)
    with pytest.raises(ConflictError, match="forgotten"):
        store.undo(4, ANA)
    with pytest.raises(NotFoundError):
        store.undo(2, ANA)
    for seq in (0, -1, 5, 2**62):
        with pytest.raises(NotFoundError):
            store.undo(seq, ANA)
    store.commit([Operation.add(Cube(ANA, "both")), Operation.add(Cube(BEN, "both"))])
    with pytest.raises(NotFoundError):
        store.undo(5, ANA)
    assert current(store, BEN) == ["both"]


def test_undo_does_not_bring_back_what_was_said_anew(store: SqlStore) -> None:
    cube = add(store, Cube(ANA, "tea")).cubes[0]
    store.commit([Operation.delete(cube)])
    add(store, Cube(ANA, "tea"))
    with pytest.raises(ConflictError, match="held already"):
        store.undo(2, ANA)


# --- lineage ---


def test_lineage_leads_down_and_up_nearest_first(store: SqlStore) -> None:
    a, b = add(store, Cube(ANA, "a"), Cube(ANA, "b")).cubes
    c = add(store, Cube(ANA, "c", "fact", origin=Origin(derived_from=(a.ref, b.ref)))).cubes[0]
    d = add(store, Cube(ANA, "d", "summary", origin=Origin(derived_from=(c.ref, a.ref)))).cubes[0]
    assert set(store.lineage(a.id, ANA)) == {c.ref, d.ref}
    assert store.lineage(b.id, ANA) == [c.ref, d.ref]
    assert store.lineage(d.id, ANA, down=False)[0] in (a.ref, c.ref)
    assert {ref.id for ref in store.lineage(d.id, ANA, down=False)} == {a.id, b.id, c.id}
    assert store.derived([b.id], ANA) == [b.id, c.id, d.id]
    update(store, c, text="c2", origin=Origin(derived_from=(b.ref,)))
    assert c.ref in store.lineage(a.id, ANA), "an old version was made from it, so it must go with it"


def test_lineage_may_be_a_circle(store: SqlStore) -> None:
    a = add(store, Cube(ANA, "a")).cubes[0]
    b = add(store, Cube(ANA, "b", origin=Origin(derived_from=(a.ref,)))).cubes[0]
    a = update(store, a, origin=Origin(derived_from=(b.ref, a.ref)))
    assert store.derived([a.id], ANA) == [a.id, b.id]
    assert len(store.purge([b.id], ANA).versions) == 3


def test_lineage_stays_within_one_user(store: SqlStore) -> None:
    a = add(store, Cube(ANA, "a")).cubes[0]
    with pytest.raises(NotFoundError) as theirs:
        add(store, Cube(BEN, "b", origin=Origin(derived_from=(a.ref,))))
    none = Ref(new_id(), 1)
    with pytest.raises(NotFoundError) as nobodys:
        add(store, Cube(BEN, "b", origin=Origin(derived_from=(none,))))
    assert str(theirs.value).replace(a.id, none.id) == str(nobodys.value), "whether another user has it is not told"
    with pytest.raises(NotFoundError):
        store.lineage(a.id, BEN)


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=10), st.data())
@settings(max_examples=40, deadline=None)
def test_sources_are_what_one_would_look_up_one_by_one(made_of: list[list[int]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder, closing(open_store(Path(folder))) as store:
        made: list[Cube] = []
        for number, wanted in enumerate(made_of):
            refs = tuple(dict.fromkeys(made[at].ref for at in wanted if at < number))
            home = data.draw(st.sampled_from([CHAT, ANA]))
            new = add(store, Cube(home, f"{number}", "fact", origin=Origin(derived_from=refs))).cubes[0]
            if data.draw(st.booleans()):  # what is made of it later is made of a second version
                new = update(store, new, text=f"{number} again")
            made.append(new)
        for scope in (ANA, CHAT, BEN):
            known: dict[Ref, Cube] = {}
            left = [ref for cube in made for ref in cube.origin.derived_from]
            while left:
                ref = left.pop()
                if ref not in known:
                    with suppress(NotFoundError):
                        known[ref] = store.get(ref.id, scope, version=ref.version)
                        left += known[ref].origin.derived_from
            assert store.sources(made, scope) == known


# --- filters ---


def test_filters(store: SqlStore) -> None:
    add(
        store,
        Cube(
            CHAT, "one", data={"n": 1, "t": True, "odd.key[0]\"'": "x"}, origin=Origin(author="ana", reference="mail:1")
        ),
        Cube(ANA, "two", "fact", data={"n": 2.5, "s": "é"}, valid_from=utc("2025-01-01"), valid_to=utc("2025-06-01")),
        Cube(Scope("acme", "ana", "bot"), "three", "fact", status=Status.ARCHIVED, data={"n": None}),
        Cube(BEN, "four", "fact"),
    )
    assert current(store) == ["one", "two", "three"]
    assert current(store, Scope("acme", "ana", "bot")) == ["one", "three"]
    assert current(store, CHAT) == ["one"] and current(store, Scope("acme", "ana", session="chat-2")) == []
    assert current(store, kinds=("fact",)) == current(store, kinds=(Kind.FACT,)) == ["two", "three"]
    assert current(store, statuses=(Status.ARCHIVED,)) == ["three"]
    assert current(store, source="mail:1") == current(store, author="ana") == ["one"]
    assert current(store, since=utc("2025-12-31")) == ["one", "three"] and current(store, until=START) == ["two"]
    assert current(store, valid_at=utc("2025-03-01")) == ["one", "two", "three"]
    assert current(store, valid_at=utc("2025-06-01")) == ["one", "three"]
    assert current(store, data={"n": 1}) == current(store, data={"t": True}) == ["one"]
    assert current(store, data={"n": 2.5, "s": "é"}) == ["two"] and current(store, data={"n": 1, "s": "é"}) == []
    assert current(store, data={"odd.key[0]\"'": "x"}) == ["one"]
    assert current(store, data={"missing": None}) == ["one", "two", "three"]
    assert current(store, limit=2) == ["one", "two"] and current(store, limit=0) == []
    assert current(store, Scope("acme", "nobody")) == []
    for wrong in ({"kinds": "fact"}, {"statuses": "archived"}, {"data": {"n": [1]}}, {"author": "\ud800"}):
        with pytest.raises(InputError):
            current(store, **wrong)


def test_history_reads_on_after_a_purge(place: Path | str) -> None:
    with open_memory(place, agent="bot") as memory:
        id = memory.add("tea").ids[0]
        memory.correct(id, "coffee")
        assert [change.cube and change.cube.text for change in memory.history(id)] == ["tea", "coffee"]
        memory.forget(id)
        assert [(str(change.event.action), change.cube) for change in memory.history(id)] == [
            ("add", None),
            ("update", None),
            ("purge", None),
        ]
        assert memory.history(new_id()) == memory.history(id, user="ben") == []
        with pytest.raises(NotFoundError):
            memory.history("no id")
        with pytest.raises(NotFoundError, match="no memory"):
            memory.get(id)


# --- the past ---


def test_the_past_by_hand(place: Path | str) -> None:
    time = Clock()
    with open_memory(place, clock=time) as memory:
        id = memory.add("Ana lives in Porto", kind="fact").ids[0]
        time.tick(86_400)
        memory.correct(id, "Ana lives in Lisbon")
        time.tick(86_400)
        memory.retract(id)
        first, second, third = START, START + timedelta(days=1), START + timedelta(days=2)
        assert [hit.text for hit in memory.as_of(first).search("where does Ana live")] == ["Ana lives in Porto"]
        assert [hit.text for hit in memory.as_of(second).search("where does Ana live")] == ["Ana lives in Lisbon"]
        assert memory.as_of(third).search("where does Ana live") == []
        assert [memory.as_of(t).get(id).version for t in (first, second, third)] == [1, 2, 3]
        for view in (memory.as_of(first - timedelta(microseconds=1)), memory.as_of("2001-01-01")):
            with pytest.raises(NotFoundError):
                view.get(id)
            assert list(view.select()) == [] and view.search("Ana") == []
        assert "Porto" in memory.as_of(first).context("Ana") and memory.as_of(third).context("Ana") == ""
        with pytest.raises(NotFoundError):
            memory.as_of(first).get(id, user="ben")


def test_what_was_true_then_is_found_also_when_it_has_ended(place: Path | str) -> None:
    with open_memory(place, clock=Clock()) as memory:
        porto = Cube(ANA, "Ana lived in Porto", "fact", valid_from=utc("2020-01-01"), valid_to=utc("2022-01-01"))
        lisbon = Cube(ANA, "Ana lives in Lisbon", "fact", valid_from=utc("2022-01-01"))
        memory.add([porto, lisbon], tenant="acme")
        found = {
            year: [hit.text for hit in memory.as_of(true_at=f"{year}-06-01").search("Ana", tenant="acme")]
            for year in (2019, 2021, 2023)
        }
        assert found == {2019: [], 2021: ["Ana lived in Porto"], 2023: ["Ana lives in Lisbon"]}
        assert [hit.text for hit in memory.search("Ana", tenant="acme")] == ["Ana lives in Lisbon"]
        selected = memory.as_of(true_at="2021-06-01").select(tenant="acme")
        assert [cube.text for cube in selected] == ["Ana lived in Porto"]


def test_a_clock_set_back_hides_nothing(place: Path | str) -> None:
    time = Clock()
    with open_memory(place, clock=time) as memory:
        memory.add("before the clock was set back")
        time.tick(-86_400)
        id = memory.add("after the clock was set back").ids[0]
        assert len(memory.search("clock")) == 2 and memory.get(id).recorded_at == START
        assert len(list(memory.select())) == len(list(memory.as_of(true_at=time.at).select())) == 2
        memory.correct(id, "after the clock was set back indeed")
        assert memory.verify() == []
        assert len(memory.as_of(START).search("clock")) == 2


@dataclass(frozen=True)
class Version:
    """What the model holds of one version."""

    cube: Cube
    known_from: datetime
    known_to: datetime | None


class Side(RuleBasedStateMachine):
    """The store beside a plain list of versions: after any history both give the same answer at any moment."""

    memories = Bundle("memories")
    transactions = Bundle("transactions")

    def __init__(self) -> None:
        super().__init__()
        self.left = ExitStack()
        place = self.left.enter_context(self.place())
        self.clock = Clock()
        self.store = open_store(place, clock=self.clock)
        self.second = open_store(place, clock=self.clock)  # another program on the same store
        self.versions: dict[str, list[Version]] = {}
        self.made: dict[int, list[tuple[str, int]]] = {}  # seq -> (id, version) of the transaction
        self.seq = 0
        self.now = utc("0001-01-01")
        self.moments = [self.clock.at]

    def teardown(self) -> None:
        assert self.store.verify() == [] == self.second.verify()
        self.store.close()
        self.second.close()
        self.left.close()

    @contextmanager
    def place(self) -> Iterator[Path | str]:
        with tempfile.TemporaryDirectory(dir=MEMORY) as home:
            yield Path(home)

    # --- what both do ---

    def stamp(self) -> datetime:
        """The journal's time: the clock's, but never before the last event."""
        self.now = max(self.now, self.clock.at)
        return self.now

    def end(self, id: str, at: datetime) -> None:
        last = self.versions[id][-1]
        self.versions[id][-1] = replace(last, known_to=at)

    def begin(self, cube: Cube, at: datetime) -> None:
        self.versions.setdefault(cube.id, []).append(Version(cube, at, None))
        self.seq += 1
        self.made.setdefault(self.seq, []).append((cube.id, cube.version))

    def now_held(self, key: tuple[object, ...]) -> str | None:
        for id, some in self.versions.items():
            cube = some[-1].cube
            if cube.status in HELD and self.key(cube) == key:
                return id
        return None

    @staticmethod
    def key(cube: Cube) -> tuple[object, ...]:
        return cube.scope, cube.kind, cube.text, cube.valid_from

    @rule(seconds=st.sampled_from([0, 0, 1, 60, 86_400, -30, -86_400]))
    def time_passes(self, seconds: int) -> None:
        self.clock.tick(seconds)
        self.moments += [self.clock.at, max(self.now, START)]

    @rule(
        target=memories,
        who=st.sampled_from([ANA, BEN, CHAT]),
        text=st.sampled_from(["tea", "coffee", "milk", "water", "wine"]),
        kind=st.sampled_from(["message", "fact"]),
        begins=st.sampled_from([None, START, utc("2025-01-01")]),
        other=st.booleans(),
    )
    def add(self, who: Scope, text: str, kind: str, begins: datetime | None, other: bool) -> object:
        cube = Cube(who, text, kind, valid_from=begins)
        done = (self.second if other else self.store).commit([Operation.add(cube)])
        held = self.now_held(self.key(cube))
        if held is not None:
            assert done.duplicates == (held,) and done.cubes == ()
            return multiple()
        at = self.stamp()
        cube = cube.with_(recorded_at=at)
        assert done.cubes == (cube,) and done.seq == self.seq + 1
        self.begin(cube, at)
        return cube.id

    @rule(
        id=memories,
        text=st.none() | st.sampled_from(["tea", "juice", "beer"]),
        status=st.none() | st.sampled_from(Status),
        stale=st.booleans(),
    )
    def change(self, id: str, text: str | None, status: Status | None, stale: bool) -> None:
        old = self.versions[id][-1].cube
        new = old.with_(text=text or old.text, status=status or old.status)
        read = new.with_(version=old.version - 1) if stale and old.version > 1 else new
        refused = (
            read.version != old.version
            or (new.status is not old.status and new.status not in TRANSITIONS[old.status])
            or new.status is Status.PURGED
            or (old.status is new.status is Status.FROZEN)
            or (new.status in HELD and self.now_held(self.key(new)) not in (None, id))
        )
        if refused:
            with pytest.raises((ConflictError, InputError)):
                self.store.commit([Operation.update(read)])
            return
        done = self.store.commit([Operation.update(read)])
        self.replaced(id, new, done.cubes[0])

    def replaced(self, id: str, new: Cube, stored: Cube) -> None:
        at = self.stamp()
        expected = new.with_(version=self.versions[id][-1].cube.version + 1, recorded_at=at)
        assert stored == expected
        self.end(id, at)
        self.begin(expected, at)

    @rule(id=memories)
    def retract(self, id: str) -> None:
        old = self.versions[id][-1].cube
        done = self.second.commit([Operation.delete(old)])
        self.replaced(id, old.with_(status=Status.ARCHIVED), done.cubes[0])

    @rule(back=st.integers(0, 6), who=st.sampled_from([ANA, BEN]))
    def undo(self, back: int, who: Scope) -> None:
        seq = self.seq - back
        if seq not in self.made:
            return
        [(id, version)] = self.made[seq]
        some = self.versions.get(id)
        mine = some is not None and some[-1].cube.scope.partition == who.partition
        possible = mine and some[-1].cube.version == version
        if possible and version == 1 and some[-1].cube.status is Status.ARCHIVED:
            possible = False
        if possible:
            before = some[-1].cube.with_(status=Status.ARCHIVED) if version == 1 else some[version - 2].cube
            if before.status in HELD and self.now_held(self.key(before)) not in (None, id):
                possible = False
        if not possible:
            with pytest.raises((ConflictError, NotFoundError)):
                self.store.undo(seq, who)
            return
        done = self.store.undo(seq, who)
        self.replaced(id, before, done.cubes[0])

    @rule(id=consumes(memories))
    def purge(self, id: str) -> None:
        scope = self.versions[id][-1].cube.scope
        erased = self.store.purge([id], Scope(scope.tenant, scope.user))
        assert list(erased.versions) == [version.cube for version in self.versions.pop(id)]
        self.stamp()
        self.seq += 1

    # --- what must be the same ---

    def then(self, scope: Scope, moment: datetime | None) -> set[tuple[str, int]]:
        return {
            (version.cube.id, version.cube.version)
            for some in self.versions.values()
            for version in some
            if scope.covers(version.cube.scope)
            and (
                version.known_to is None
                if moment is None
                else version.known_from <= moment and (version.known_to is None or moment < version.known_to)
            )
        }

    @invariant()
    def the_present_is_the_same(self) -> None:
        for scope in (ANA, BEN, CHAT):
            found = list(self.second.select(scope))
            assert {(cube.id, cube.version) for cube in found} == self.then(scope, None)
            assert all(cube == self.versions[cube.id][-1].cube for cube in found)
        assert self.store.head()[0] == self.seq

    @rule(back=st.integers(0, 40), shift=st.sampled_from([0, 0, 1, -1]), who=st.sampled_from([ANA, BEN, CHAT]))
    def the_past_is_the_same(self, back: int, shift: int, who: Scope) -> None:
        moment = self.moments[-1 - back % len(self.moments)] + timedelta(microseconds=shift)
        found = list(self.store.select(who, Where(known_at=moment)))
        assert {(cube.id, cube.version) for cube in found} == self.then(who, moment)


TestSide = Side.TestCase


def test_side_by_side_on_a_server(server: Server) -> None:
    class OnServer(Side):
        def place(self) -> AbstractContextManager[Path | str]:
            return server.database()

    run_state_machine_as_test(OnServer, settings=settings(max_examples=8, stateful_step_count=25))


# --- the queue ---


def test_a_job_is_leased_and_comes_back_when_its_worker_died(place: Path | str) -> None:
    time = Clock()
    store, other = open_store(place, clock=time), open_store(place, clock=time)
    add(store, *(Cube(ANA, f"turn {n}") for n in range(3)))
    taken = store.queue.take("embed", 2)
    assert len(taken) == 2 and len(other.queue.take("embed", 9)) == 1 and store.queue.take("embed", 9) == []
    time.tick(59)
    assert other.queue.take("embed", 9) == []
    time.tick(2)
    assert len(other.queue.take("embed", 9)) == 3
    time.tick(-86_400)
    assert len(store.queue.take("embed", 9)) == 3, "a lease from a clock that ran ahead does not last for a day"
    store.queue.put_folds({}, task="embed", done=taken)
    assert store.queue.backlog()["embed"][0] == 1


def test_a_failed_job_waits_longer_each_time_and_is_never_dropped(place: Path | str) -> None:
    time = Clock()
    store = open_store(place, clock=time)
    add(store, Cube(ANA, "turn"))
    waits = []
    for _ in range(14):
        rids = store.queue.take("embed", 1)
        assert rids
        store.queue.postpone("embed", rids, "no answer")
        waited = 0
        while not store.queue.take("embed", 1):
            time.tick(1)
            waited += 1
        waits.append(waited)
        store.queue.retry()
    assert waits[:4] == [1, 2, 4, 8] and waits[-1] == 3600
    assert store.queue.backlog()["embed"] == (1, 1, "no answer")


def test_where_nothing_was_put_off_a_retry_waits_for_nobody(place: Path | str) -> None:
    one, two = open_store(place), open_store(place)
    add(one, Cube(ANA, "turn"))
    with two.connections.writing(ANA.tenant):  # so that to write here would wait, and fail in the end
        one.queue.retry()
    assert one.queue.take("embed", 1)


def test_one_bad_row_ends_up_alone(place: Path | str) -> None:
    store = open_store(place, clock=(time := Clock()))
    add(store, *(Cube(ANA, f"turn {n}") for n in range(64)))
    bad = 1 << 32 | 17
    for _ in range(200):
        rids = store.queue.take("embed", 64)
        if not rids:
            time.tick(3600)
        elif bad in rids:
            store.queue.postpone("embed", rids, "bad row")
        else:
            store.queue.put_folds({}, task="embed", done=rids)
    assert store.queue.backlog()["embed"] == (1, 1, "bad row")


def test_folds_of_what_was_purged_meanwhile_are_left_out(place: Path | str) -> None:
    store = open_store(place)
    store.serve(store.add_model("m", 2))
    cube, other = add(store, Cube(ANA, "gone"), Cube(ANA, "stays")).cubes
    rids = store.queue.take("embed", 9)
    store.purge([cube.id], ANA)
    store.queue.put_folds(
        {"vectors_1": [(rid, b"\x00" * 4) for rid in rids], "names": [(rids[0], b"x")]}, task="embed", done=rids
    )
    assert [rid for rid, _ in store.fold("vectors_1", 1)] == rids[1:] and store.fold("names", 1) == []
    assert store.leftovers([cube.id]) == dict.fromkeys(("cubes", "links", "uses", "folds", "jobs"), 0)
    assert "embed" not in store.queue.backlog() and store.get(other.id, ANA)


def test_a_worker_of_a_model_that_another_program_dropped_loses_no_job(place: Path | str) -> None:
    one, two = open_store(place), open_store(place)
    one.serve(one.add_model("old", 2))
    add(one, Cube(ANA, "a"), Cube(ANA, "b"))
    rids = one.queue.take("embed", 1, lacking="vectors_1")
    new = two.add_model("new", 2)
    two.activate(new)
    with pytest.raises(StoreError):
        one.queue.put_folds({"vectors_1": [(rids[0], b"\x00" * 4)]}, task="embed", done=rids)
    assert two.queue.backlog()["embed"][0] == 2
    two.queue.retry()
    rids = two.queue.take("embed", 9, lacking="vectors_2")
    two.queue.put_folds({"vectors_2": [(rid, b"\x00" * 4) for rid in rids]}, task="embed", done=rids)
    assert "embed" not in two.queue.backlog() and len(two.fold("vectors_2", 1)) == 2


def test_while_the_model_changes_both_models_get_every_vector(place: Path | str) -> None:
    """Two programs, two models, one queue: neither takes a row from the other."""
    one, two = open_store(place), open_store(place)
    one.serve(one.add_model("old", 2))
    add(one, Cube(ANA, "a"), Cube(ANA, "b"))
    two.add_model("new", 2)
    add(one, Cube(ANA, "c"))
    for store, table in ((one, "vectors_1"), (one, "vectors_1"), (two, "vectors_2")):
        rids = store.queue.take("embed", 9, lacking=table)
        store.queue.put_folds({table: [(rid, b"\x00" * 4) for rid in rids]}, task="embed", done=rids)
    assert len(one.fold("vectors_1", 1)) == len(one.fold("vectors_2", 1)) == 3 and "embed" not in one.queue.backlog()


def test_a_change_of_model_while_another_program_writes_and_embeds(place: Path | str) -> None:
    old, new = HashEmbedder("old", 16), HashEmbedder("new", 32)
    with open_memory(place, embedder=old, background=True) as one, open_memory(place, embedder=old) as two:
        done = threading.Event()
        added: list[str] = []

        def write() -> None:
            while not done.is_set():
                added.extend(one.add(f"note number {len(added)}").ids)

        writer = threading.Thread(target=write)
        writer.start()
        while len(added) < 30:
            pass
        two.reembed(new)
        done.set()
        writer.join()
        two.flush()
        assert two.status()["embedder"] == "new" and two.status()["backlog"] == {}
        [(no, *_)] = two.store.models()
        assert len(two.store.fold(f"vectors_{no}", 1)) == len(added)
        one.flush()
        assert any("open the store again" in line for line in one.degraded)
        assert one.search("note number 3") and one.verify() == []


def test_who_settles_jobs_while_a_model_comes_leaves_what_is_owed_to_it(place: Path | str, monkeypatch) -> None:
    with open_memory(place, embedder=HashEmbedder("old", 16)) as memory:
        memory.add("tea with Ben")
        read, go_on = threading.Event(), threading.Event()
        seen = queue.vector_tables

        def slowly(connection: queue.Database) -> list[str]:
            tables = seen(connection)
            read.set()
            go_on.wait(10)
            return tables

        monkeypatch.setattr(queue, "vector_tables", slowly)
        settling = threading.Thread(target=memory.flush)
        settling.start()
        assert read.wait(10)
        coming = threading.Thread(target=memory.store.add_model, args=("new", 32))
        coming.start()
        coming.join(0.5)  # it waits, or is done before what was seen is acted on
        go_on.set()
        settling.join()
        coming.join()
        assert memory.store.queue.lacking("vectors_2")[0] == 1


def test_a_change_of_words_is_owed_new_folds_and_any_other_change_keeps_them(place: Path | str) -> None:
    with open_memory(place, embedder=HashEmbedder()) as memory:
        id = memory.add("tea with Ben in Porto on Monday").ids[0]
        memory.flush()
        memory.freeze(id)
        memory.thaw(id)
        store = memory.store
        assert store.queue.backlog() == {} and len(store.fold("vectors_1", 1)) == len(store.fold("names", 1)) == 3
        memory.correct(id, "coffee")
        assert {task: some[0] for task, some in store.queue.backlog().items()} == {"embed": 1, "enrich": 1}
        memory.flush()
        assert len(store.fold("vectors_1", 1)) == 4


def test_what_is_owed_moves_on_to_the_next_version(place: Path | str) -> None:
    with open_memory(place, embedder=HashEmbedder()) as memory:
        id = memory.add("tea").ids[0]
        memory.freeze(id)
        memory.flush()
        assert [rid & 0xFF for rid, _ in memory.store.fold("vectors_1", 1)] == [1]


# --- connections ---


def test_threads_come_and_go_and_leave_no_files_open(folder: Path) -> None:
    store = open_store(folder)
    add(store, Cube(ANA, "tea"))
    open_files = len(list(Path("/proc/self/fd").iterdir()))

    def read() -> None:
        list(store.select(ANA))

    for _ in range(20):
        threads = [threading.Thread(target=read) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_files + 3 * 8


def test_a_closed_store_says_so(place: Path | str) -> None:
    store = open_store(place)
    store.close()
    store.close()
    for call in (lambda: add(store, Cube(ANA, "x")), lambda: list(store.select(ANA)), store.head, store.verify):
        with pytest.raises(StoreError, match="closed"):
            call()


def test_only_a_log_will_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SQLite cannot keep a write-ahead log it quietly keeps another journal; then readers would block."""
    from holdfast.store.connection import Connections, Reader

    class Stubborn(sqlite3.Connection):
        def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
            return super().execute("SELECT 'delete'" if "journal_mode" in statement else statement, *values)

    plain = Connections._open
    monkeypatch.setattr(
        Connections, "_open", lambda self, factory: plain(self, factory if factory is Reader else Stubborn)
    )
    with pytest.raises(StoreError, match="write-ahead log"):
        open_store(folder)


def test_a_time_to_live(place: Path | str) -> None:
    time = Clock()
    with open_memory(place, clock=time) as memory:
        memory.add("the code is 1234", ttl=timedelta(hours=1))
        memory.add("the code is short-lived")
        assert len(memory.search("code")) == 2
        time.tick(3601)
        assert [hit.text for hit in memory.search("code")] == ["the code is short-lived"]
        assert len(memory.as_of(START).search("code")) == 2


def test_an_import_may_say_when_it_was_learnt_but_not_later_than_now(store: SqlStore) -> None:
    early, late = utc("2020-01-01"), utc("2030-01-01")
    a = add(store, Cube(ANA, "early", recorded_at=early)).cubes[0]
    b = add(store, Cube(ANA, "late", recorded_at=late)).cubes[0]
    assert (a.recorded_at, b.recorded_at) == (early, START)
    assert current(store, known_at=early) == ["early"]
    assert all(one.at <= two.at for one, two in pairwise(store.events()))


def test_policy_comes_back(store: SqlStore) -> None:
    policy = Policy(utc("2030-01-01"), "secret", ("ana", "bot"))
    cube = add(store, Cube(ANA, "x", policy=policy)).cubes[0]
    assert store.get(cube.id, ANA).policy == policy


def test_what_the_queue_commits_lazily_leaves_the_next_commit_synced(folder: Path) -> None:
    store = open_store(folder, durability="full")
    try:
        writer = store.connections.writer

        def level() -> int:
            return int(writer.execute("PRAGMA synchronous").fetchone()[0])

        assert level() == 2
        with store.connections.writing(lazily=True):
            assert level() == 1
        assert level() == 2
        with pytest.raises(ZeroDivisionError), store.connections.writing(lazily=True):
            raise ZeroDivisionError
        assert level() == 2
    finally:
        store.close()
