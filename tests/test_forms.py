"""What was made of memories in another form goes with them: tensor files, and whatever a holder keeps; and a receipt says so."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cube import Channel, Cube, Form, Origin, Policy, Ref, Scope, Status
from holdfast.errors import ConflictError, HoldfastError, InputError, IntegrityError, StoreError
from holdfast.memory import Memory
from holdfast.retrieve.text import ANALYSER, fold_terms
from holdfast.store.base import Operation
from holdfast.store.blobs import Blobs
from holdfast.store.doctor import examine, mend
from holdfast.store.engine import WHOLE
from holdfast.store.forget import forget
from holdfast.store.forms import HOLDER, Kept
from holdfast.store.sqlite import SqliteStore
from support import ANA, BEN, MEMORY, Clock, add, open_memory, open_store, update


def tensors(number: int) -> bytes:
    """A small safetensors file: one tensor of two floats."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return len(header).to_bytes(8, "little") + header + number.to_bytes(8, "little")


def state(store: SqliteStore, number: int, *parents: Cube, scope: Scope = ANA, text: str = "") -> Cube:
    """A cube of cached state with a file, made of some others."""
    origin = Origin(Channel.DERIVED, derived_from=tuple(parent.ref for parent in parents))
    cube = Cube(scope, text, "fact", Form.STATE, store.blobs.put(tensors(number), scope), {"n": number}, origin=origin)
    return add(store, cube).cubes[0]


def files(store: SqliteStore) -> set[str]:
    if isinstance(store, SqliteStore):
        return {path.name for path in store.folder.glob("blobs/**/*") if path.is_file()}
    with store.connections.reading(WHOLE) as connection:
        return {f"{name}.safetensors" for (name,) in connection.execute("SELECT name FROM files")}


def name(number: int) -> str:
    import hashlib

    return hashlib.sha256(tensors(number)).hexdigest() + ".safetensors"


class Bank:
    """A holder of cached states; what it was told, it did, unless it was told to fail."""

    def __init__(self, name: str = "bank") -> None:
        self.name = name
        self.things: dict[str, Kept] = {}
        self.bytes: set[str] = set()
        self.fails: Exception | None = None

    def keep(self, thing: str, cube: Cube) -> None:
        self.things[thing] = Kept(cube.ref, thing)
        self.bytes.add(thing)

    def held(self, ids: Collection[str] | None = None) -> list[Kept]:
        return [kept for kept in self.things.values() if ids is None or kept.ref.id in ids]

    def drop(self, kept: Sequence[Kept]) -> list[Kept]:
        if self.fails:
            raise self.fails
        for one in kept:
            self.things.pop(one.name, None)
            self.bytes.discard(one.name)
        return []

    def outdate(self, kept: Sequence[Kept]) -> None:
        if self.fails:
            raise self.fails
        for one in kept:
            self.things[one.name] = Kept(one.ref, one.name, stale=True)

    def left(self, kept: Sequence[Kept]) -> list[str]:
        return [f"{one.name} lies about" for one in kept if one.name in self.bytes]

    @property
    def served(self) -> set[str]:
        return {thing for thing, kept in self.things.items() if not kept.stale}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No receipt waits for another program here."""
    monkeypatch.setattr("holdfast.store.forget._PAUSES", ())


@pytest.fixture
def store(place: Path | str) -> Iterator[SqliteStore]:
    store = open_store(place)
    yield store
    assert store.verify() == []
    store.close()


# --- tensor files ---


def test_a_file_is_named_by_its_bytes_and_read_back(store: SqliteStore, folder: Path) -> None:
    cube = state(store, 1)
    assert store.blobs.read(cube) == tensors(1) and files(store) == {name(1)}
    assert store.blobs.put(tensors(1), ANA) == cube.blob and len(files(store)) == 1
    file = store.blobs.file(cube.blob or "", ANA)
    file.write_bytes(tensors(2))
    with pytest.raises(IntegrityError, match="damaged"):
        store.blobs.read(cube)
    assert store.blobs.put(tensors(1), ANA) and store.blobs.read(cube) == tensors(1), "put again, it is mended"
    file.unlink()
    with pytest.raises(StoreError):
        store.blobs.read(cube)
    store.blobs.put(tensors(1), ANA)
    with pytest.raises(InputError, match="no tensor file"):
        store.blobs.read(add(store, Cube(ANA, "words")).cubes[0])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04\x95pickle",
        tensors(1)[:-1],
        tensors(1) + b"x",
        (9).to_bytes(8, "little") + b"not json!",
        b"[" * 99,
    ],
)
def test_what_is_no_safetensors_file_is_refused(store: SqliteStore, data: bytes) -> None:
    with pytest.raises(InputError):
        store.blobs.put(data, ANA)
    assert files(store) == set()


def test_a_real_safetensors_file_is_taken(store: SqliteStore) -> None:
    numpy = pytest.importorskip("numpy")
    save = pytest.importorskip("safetensors.numpy").save
    for some in ({"k": numpy.ones((2, 3), "float16"), "v": numpy.zeros(4)}, {"empty": numpy.zeros((0, 3))}):
        assert store.blobs.put(save(some, {"model": "m", "weights": "w"}), ANA)


def test_no_memory_names_a_file_that_is_not_there(store: SqliteStore, folder: Path) -> None:
    with pytest.raises(ConflictError, match="put it there first"):
        add(store, Cube(ANA, form=Form.STATE, blob="ab" * 32))
    cube = state(store, 1)
    with pytest.raises(ConflictError, match="put it there first"):
        update(store, cube, blob="cd" * 32)
    with pytest.raises(InputError, match="hexadecimal"):
        add(store, Cube(ANA, form=Form.STATE, blob="../../holdfast"))
    with pytest.raises(ConflictError, match="put it there first"):
        add(store, Cube(BEN, form=Form.STATE, blob=cube.blob))  # another user's file is not his
    store.blobs.file(cube.blob or "", ANA).unlink()
    store.commit([Operation.delete(cube)])  # what is damaged can still be put away
    assert store.blobs.strays()[2]


def test_a_file_goes_with_the_last_memory_that_names_it(store: SqliteStore) -> None:
    source = add(store, Cube(ANA, "Ana lives in Lisbon")).cubes[0]
    one = state(store, 1, source)
    other = state(store, 1, text="the same state, on its own")
    changed = update(store, other, blob=store.blobs.put(tensors(2), ANA))
    theirs = state(store, 1, scope=BEN)
    receipt = forget(store, ANA, ids=[source.id]).verify()
    assert set(receipt.ids) == {source.id, one.id}
    (step,) = receipt.forms
    assert (step.holder, len(step.things), len(step.shared), step.error) == ("blobs", 1, 1, "")
    assert files(store) == {name(1), name(2)}, "an older version of the other names it"
    receipt = forget(store, ANA, ids=[changed.id]).verify()
    assert len(receipt.forms[0].things) == 2 and receipt.forms[0].shared == ()
    assert store.blobs.read(theirs) == tensors(1) and files(store) == {name(1)}, "another user's is another file"
    forget(store, BEN, ids=[theirs.id]).verify()
    assert files(store) == set()


def test_a_plan_names_the_files_and_deletes_none(store: SqliteStore) -> None:
    source = add(store, Cube(ANA, "a source")).cubes[0]
    state(store, 1, source)
    plan = forget(store, ANA, ids=[source.id], dry_run=True)
    assert [len(step.things) for step in plan.forms] == [1] and files(store) == {name(1)}
    assert plan.to_dict()["forms"] == [{"holder": "blobs", "things": 1, "shared": 0}]


def test_a_receipt_notices_a_file_that_is_there_again(store: SqliteStore) -> None:
    cube = state(store, 1)
    receipt = forget(store, ANA, ids=[cube.id]).verify()
    store.blobs.put(tensors(1), ANA)
    with pytest.raises(IntegrityError, match="tensor file"):
        receipt.verify()
    add(store, Cube(ANA, form=Form.STATE, blob=cube.blob))
    receipt.verify()  # another memory may have the same state


class Killed(BaseException):
    """The program dies here."""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("mended_by", ["forget", "doctor"])
def test_a_crash_between_row_and_file_is_mended(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str, mended_by: str
) -> None:
    """Before the file is deleted, or after, when the note that it is owed is still there."""
    store = open_store(folder)
    cube, kept = state(store, 1), state(store, 2)
    plain = Blobs._delete

    def dying(self: Blobs, connection: sqlite3.Connection) -> set[str]:
        if moment == "after":
            plain(self, connection)
        raise Killed

    monkeypatch.setattr(Blobs, "_delete", dying)
    with pytest.raises(Killed):
        forget(store, ANA, ids=[cube.id])
    monkeypatch.undo()
    store.close()
    store = open_store(folder)
    assert files(store) == ({name(1), name(2)} if moment == "before" else {name(2)})
    findings = examine(store, analyser=ANALYSER)
    (found,) = [finding for finding in findings if finding.check == "blobs"]
    assert found.level == "wrong" and found.mendable and "still to be deleted" in found.what
    if mended_by == "forget":
        forget(store, BEN, ids=[add(store, Cube(BEN, "something else")).cubes[0].id]).verify()
    else:
        assert any("tensor files" in line for line in mend(store, findings, terms=fold_terms, analyser=ANALYSER))
    assert files(store) == {name(2)} and store.blobs.strays() == ([], [], []) and store.blobs.read(kept)
    assert [f.level for f in examine(store, analyser=ANALYSER) if f.check == "blobs"] == ["good"]
    store.close()


def test_a_file_that_is_put_again_meanwhile_is_not_lost(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(folder)
    cube = state(store, 1)
    plain = Blobs.settle
    again: list[Cube] = []

    def between(self: Blobs, *of: str) -> set[str]:
        if not again:
            again.append(state(store, 1, text="kept once more, by another program"))
        return plain(self, *of)

    monkeypatch.setattr(Blobs, "settle", between)
    receipt = forget(store, ANA, ids=[cube.id]).verify()
    assert store.blobs.read(again[0]) == tensors(1) and len(receipt.forms[0].shared) == 1
    store.close()


def test_the_doctor_finds_what_is_missing_damaged_or_nobodys(store: SqliteStore, folder: Path) -> None:
    def found() -> list[tuple[str, bool]]:
        return [(f.level, f.mendable) for f in examine(store, analyser=ANALYSER) if f.check == "blobs"]

    assert found() == []
    one, other = state(store, 1), state(store, 2)
    assert found() == [("good", False)]
    store.blobs.put(tensors(3), ANA)
    (folder,) = (store.folder / "blobs").iterdir()
    (folder / "half.partial").write_bytes(b"half of a file")
    assert found() == [("wrong", True)] and len(store.blobs.strays()[1]) == 2
    mend(store, examine(store, analyser=ANALYSER), terms=fold_terms, analyser=ANALYSER)
    assert found() == [("good", False)] and files(store) == {name(1), name(2)}
    store.blobs.file(one.blob or "", ANA).write_bytes(tensors(9))
    store.blobs.file(other.blob or "", ANA).unlink()
    assert found() == [("wrong", False)] and len(store.blobs.strays()[2]) == 2
    store.blobs.put(tensors(1), ANA), store.blobs.put(tensors(2), ANA)


@st.composite
def lineages(draw: st.DrawFn) -> tuple[list[tuple[list[int], int | None]], set[int]]:
    """Of each of some cubes its parents and the number of its file, if it has one; and which of them are forgotten."""
    made: list[tuple[list[int], int | None]] = []
    for at in range(draw(st.integers(1, 9))):
        parents = draw(st.lists(st.integers(0, at - 1), max_size=2, unique=True)) if at else []
        made.append((parents, draw(st.none() | st.integers(0, 3))))
    return made, draw(st.sets(st.integers(0, len(made) - 1), min_size=1))


@given(lineages(), st.booleans())
def test_exactly_the_right_files_are_left(
    drawn: tuple[list[tuple[list[int], int | None]], set[int]], two: bool
) -> None:
    made, doomed = drawn
    with tempfile.TemporaryDirectory(dir=MEMORY) as home:
        store = open_store(Path(home) / "s")
        cubes: list[Cube] = []
        for at, (parents, number) in enumerate(made):
            origin = Origin(derived_from=tuple(cubes[parent].ref for parent in parents))
            blob = None if number is None else store.blobs.put(tensors(number), ANA)
            form = Form.TEXT if number is None else Form.STATE
            cubes += add(store, Cube(ANA, f"cube {at}", "fact", form, blob, origin=origin)).cubes
        gone = set(doomed)
        for at, (parents, _) in enumerate(made):
            if gone.intersection(parents):
                gone.add(at)
        batches = [sorted(doomed)] if not two else [sorted(doomed)[:1], sorted(doomed)[1:]]
        for batch in batches:
            there = [cubes[at].id for at in batch if next(store.rows(ANA), None) and _is_there(store, cubes[at])]
            forget(store, ANA, ids=there).verify()
        assert files(store) == {name(n) for at, (_, n) in enumerate(made) if n is not None and at not in gone}
        assert {cube.id for cube in store.select(ANA)} == {cubes[at].id for at in range(len(made)) if at not in gone}
        assert store.blobs.strays() == ([], [], []) and store.verify() == []
        store.close()


def _is_there(store: SqliteStore, cube: Cube) -> bool:
    return any(other.id == cube.id for other in store.select(ANA))


# --- holders ---


def test_what_a_holder_keeps_goes_with_the_memory_and_what_was_made_of_it(store: SqliteStore) -> None:
    bank = Bank()
    store.forms.join(bank)
    source, other = add(store, Cube(ANA, "a source"), Cube(ANA, "another")).cubes
    derived = state(store, 1, source)
    for thing, cube in (("s", source), ("d", derived), ("o", other)):
        bank.keep(thing, cube)
    assert {step.holder: len(step.things) for step in forget(store, ANA, ids=[source.id], dry_run=True).forms} == {
        "blobs": 1,
        "bank": 2,
    }
    receipt = forget(store, ANA, ids=[source.id]).verify()
    assert set(bank.things) == {"o"} and [step.holder for step in receipt.forms] == ["blobs", "bank"]
    assert receipt.to_dict()["forms"][1] == {"holder": "bank", "things": 2, "shared": 0}


@pytest.mark.parametrize(
    "error", [StoreError("the bank is closed; open it"), RuntimeError("cannot drop 'the code is swordfish'")]
)
def test_a_holder_that_fails_is_named_and_the_receipt_does_not_verify(store: SqliteStore, error: Exception) -> None:
    bank = Bank()
    store.forms.join(bank)
    cube = add(store, Cube(ANA, "the code is swordfish, and so on")).cubes[0]
    bank.keep("c", cube)
    bank.fails = error
    receipt = forget(store, ANA, ids=[cube.id])
    assert [step.error for step in receipt.forms] == [
        str(error) if isinstance(error, HoldfastError) else "it failed (RuntimeError)"
    ]
    assert "swordfish" not in str(receipt.to_dict()), "the words of anybody's error are not passed on"
    with pytest.raises(IntegrityError, match="bank"):
        receipt.verify()
    with pytest.raises(IntegrityError, match="bank"):
        receipt.retry().verify()
    bank.fails = None
    with pytest.raises(IntegrityError, match="bank"):
        receipt.verify()  # it has not been asked again
    receipt.retry().verify()
    assert bank.things == {} and list(store.select(ANA)) == [], "the rows were gone from the beginning"


def test_a_holder_that_says_it_did_is_looked_into(store: SqliteStore) -> None:
    class Lazy(Bank):
        def drop(self, kept: Sequence[Kept]) -> list[Kept]:
            return []

        def left(self, kept: Sequence[Kept]) -> list[str]:
            return []

    class Lying(Bank):
        def drop(self, kept: Sequence[Kept]) -> list[Kept]:
            self.things.clear()
            return []

    class Broken(Bank):
        def left(self, kept: Sequence[Kept]) -> list[str]:
            raise RuntimeError

    for number, kind in enumerate((Lazy, Lying, Broken)):
        bank = kind(f"bank {number}")
        store.forms.join(bank)
        cube = add(store, Cube(ANA, f"memory {number}")).cubes[0]
        bank.keep("c", cube)
        receipt = forget(store, ANA, ids=[cube.id])
        with pytest.raises(IntegrityError, match=f"bank {number}"):
            receipt.verify()
        store.forms.leave(bank.name)


def test_what_a_holder_shares_with_living_memories_stays(store: SqliteStore) -> None:
    class Sharing(Bank):
        def drop(self, kept: Sequence[Kept]) -> list[Kept]:
            for one in kept:
                del self.things[one.name]
            return [one for one in kept if one.name == "prefix"]

    bank = Sharing()
    store.forms.join(bank)
    cube = add(store, Cube(ANA, "a source")).cubes[0]
    bank.keep("prefix", cube)
    receipt = forget(store, ANA, ids=[cube.id]).verify()
    assert [kept.name for kept in receipt.forms[0].shared] == ["prefix"] and bank.bytes == {"prefix"}


def test_a_holder_that_is_not_here_is_missed_and_makes_up_for_it(place: Path | str) -> None:
    bank = Bank()
    with open_memory(place) as memory:
        memory.store.forms.join(bank)
        text = memory.get(memory.add("Ana lives in Lisbon").ids[0])
        derived = Cube(
            memory.scope(),
            "Ana: Lisbon",
            "fact",
            Form.STATE,
            data={HOLDER: "bank"},
            origin=Origin(derived_from=(text.ref,)),
        )
        memory.apply([Operation.add(derived)], actor="test")
        bank.keep("c", derived)
        memory.store.forms.leave("bank")
    with open_memory(place) as memory:
        receipt = memory.forget(text.id)
        assert [step.holder for step in receipt.forms] == ["bank"] and bank.things
        for tried in (receipt, receipt.retry()):
            with pytest.raises(IntegrityError, match="has not joined here"):
                tried.verify()
        step = memory.store.forms.join(bank)
        assert [kept.name for kept in step.things] == ["c"] and bank.things == {}
        receipt.retry().verify()
        with pytest.raises(InputError, match="joined already"):
            memory.store.forms.join(Bank())


# --- what changes ---


def test_a_new_version_makes_what_was_made_of_the_old_one_stale(place: Path | str) -> None:
    clock = Clock()
    bank = Bank()
    with open_memory(place, clock=clock) as memory, open_memory(place) as elsewhere:
        store = memory.store
        store.forms.join(bank)
        text, other, short = add(
            store,
            Cube(memory.scope(), "Ana lives in Lisbon"),
            Cube(memory.scope(), "Ana likes tea"),
            Cube(memory.scope(), "for now", policy=Policy(clock.tick(10))),
        ).cubes
        both = state(store, 1, text, other, scope=memory.scope())
        above = state(store, 2, both, scope=memory.scope())
        for thing, cube in (("text", text), ("other", other), ("both", both), ("above", above), ("short", short)):
            bank.keep(thing, cube)
        store.forms.follow()
        assert len(bank.served) == 5
        elsewhere.correct(text.id, "Ana lives in Porto")  # another program
        steps = store.forms.follow()
        assert bank.served == {"other", "short"} and {kept.name for kept in steps[0].things} == {
            "text",
            "both",
            "above",
        }
        assert store.forms.follow() == []
        # Made anew of what holds now, it is served; an undo makes it stale again.
        now = memory.get(text.id)
        renewed = update(store, both, origin=Origin(Channel.DERIVED, derived_from=(now.ref, other.ref)))
        bank.keep("text", now), bank.keep("both", renewed)
        store.forms.follow()
        assert bank.served == {"other", "short", "text", "both"}
        memory.undo(memory.history(text.id)[-1].event.seq)
        store.forms.follow()
        assert bank.served == {"other", "short"}
        memory.retract(other.id)
        store.forms.follow()
        assert bank.served == {"short"}
        clock.tick(10)
        store.forms.leave("bank")
        store.forms.join(bank)
        assert bank.served == set(), "what has expired is not served"


def test_a_holder_that_fails_is_told_again(store: SqliteStore) -> None:
    bank = Bank()
    store.forms.join(bank)
    cube, other = add(store, Cube(ANA, "one"), Cube(ANA, "two")).cubes
    bank.keep("c", cube), bank.keep("o", other)
    update(store, cube, text="changed")
    store.purge([other.id], ANA)
    bank.fails = StoreError("later")
    assert [step.error for step in store.forms.follow()] == ["later", "later"]
    bank.fails = None
    assert [step.error for step in store.forms.follow()] == ["", ""]
    assert bank.served == set() and set(bank.things) == {"c"}


def test_a_revocation_reaches_every_form_and_proves_it(place: Path | str) -> None:
    bank = Bank()
    with open_memory(place) as memory:
        memory.store.forms.join(bank)
        page = memory.get(memory.add("the ferry leaves at nine", channel="web", source="u").ids[0])
        own = memory.get(memory.add("the harbour is near").ids[0])
        alone, mixed = (
            state(memory.store, n, *parents, scope=memory.scope()) for n, parents in ((1, [page]), (2, [page, own]))
        )
        for thing, cube in (("page", page), ("own", own), ("alone", alone), ("mixed", mixed)):
            bank.keep(thing, cube)
        plan = memory.revoke(source="u", dry_run=True)
        assert {step.holder for step in plan.forms} == {"blobs", "bank"} and len(bank.served) == 4
        with pytest.raises(InputError, match="dry run"):
            plan.verify()
        bank.fails = StoreError("closed")
        failed = memory.revoke(source="u")
        with pytest.raises(IntegrityError, match="closed"):
            failed.verify()
        memory.undo(failed.seq)
        bank.fails = None
        bank.things = {}
        for thing, id in (("page", page.id), ("own", own.id), ("alone", alone.id), ("mixed", mixed.id)):
            bank.keep(thing, memory.get(id))
        done = memory.revoke(source="u", reason="hacked").verify()
        assert bank.served == {"own"} and memory.get(mixed.id).status is Status.QUARANTINED
        assert done.to_dict()["forms"][1]["holder"] == "bank"
        bank.things["alone"] = Kept(Ref(alone.id, 1), "alone")
        with pytest.raises(IntegrityError, match="still serves alone"):
            done.verify()
        bank.outdate(bank.held([alone.id]))
        memory.undo(done.seq)
        with pytest.raises(IntegrityError, match=page.id):
            done.verify()


def test_the_facade_shows_it(place: Path | str) -> None:
    with Memory(place, user="ana", embedder=None, background=False) as memory:
        text = memory.get(memory.add("Ana lives in Lisbon", source="chat").ids[0])
        blob = memory.store.blobs.put(tensors(1), memory.scope())
        memory.add(Cube(memory.scope(), form=Form.STATE, blob=blob, origin=Origin(derived_from=(text.ref,))))
        receipt = memory.forget(source="chat").verify()
        assert [step.line for step in receipt.forms] == ["blobs: 1 held"] and files(memory.store) == set()
