"""Erasing for good: the rows, the folds, the bytes, and what was made from them; and a receipt that would notice."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cube import Cube, Origin, Scope, Status, new_id
from holdfast.encode.base import Experience
from holdfast.enrichment import Enrichment
from holdfast.errors import ConflictError, InputError, IntegrityError, NotFoundError, StoreError
from holdfast.memory import Memory
from holdfast.store.base import Operation, Where
from holdfast.store.forget import Receipt, forget
from holdfast.store.sql import SqlStore
from holdfast.store.sqlite import SqliteStore
from holdfast.store.traces import Sought
from holdfast.store.traces import found as traces
from support import ANA, BEN, Clock, HashEmbedder, add, everywhere, open_memory, open_store, update


@pytest.fixture
def memory(place: Path | str) -> Iterator[Memory]:
    with open_memory(place, embedder=HashEmbedder(dimension=8)) as opened:
        yield opened
        assert opened.verify() == []


def found(store: SqlStore, needles: Sequence[bytes]) -> list[bytes]:
    if isinstance(store, SqliteStore):
        with store.connections.away():
            return list(traces(store.folder, needles))
    there = everywhere(store)
    return [needle for needle in needles if needle in there]


def test_nothing_is_left_of_what_was_forgotten(memory: Memory, place: Path | str) -> None:
    secret = "the launch code is Zarathustra-4711"
    id = memory.add(secret, source="mail:7").ids[0]
    memory.correct(id, "the launch code is Xylophone-0815, no longer the other")
    kept = memory.add("the launch is on Monday").ids[0]
    memory.feedback([id], 1.0)
    memory.flush()
    assert b"Zarathustra-4711" in everywhere(memory.store)
    receipt = memory.forget(id, reason="asked to")
    assert receipt.verify() is receipt
    assert (
        receipt.ids == (id,) and receipt.derived == () and receipt.seq == memory.store.head()[0] and not receipt.planned
    )
    left = everywhere(memory.store)
    assert b"Zarathustra" not in left and b"Xylophone" not in left
    assert id.replace("-", "").encode() not in left
    assert [hit.id for hit in memory.search("launch code")] == [kept]
    assert memory.search("Zarathustra") == [] and memory.as_of(memory.store.now()).search("Zarathustra") == []
    for door in (
        lambda: memory.get(id),
        lambda: memory.get(id, version=1),
        lambda: memory.correct(id, "back"),
        lambda: memory.restore(id),
        lambda: memory.forget(id),
        lambda: memory.undo(1),
    ):
        with pytest.raises((NotFoundError, ConflictError)):
            door()
    with pytest.raises(ConflictError, match="forgotten"):
        memory.undo(receipt.seq)
    with pytest.raises(ConflictError, match="forgotten"):
        memory.add(Cube(memory.scope(), secret, id=id))


def test_what_was_made_from_it_goes_too(memory: Memory) -> None:
    scope = memory.scope()
    source = memory.add("Ana said she moved to Lisbon", session="s1").ids[0]
    apart = memory.add("Ana likes tea").ids[0]

    def derive(text: str, *parents: str, session: str | None = None) -> str:
        refs = tuple(memory.get(parent).ref for parent in parents)
        cube = Cube(Scope("default", "ana", None, session), text, "fact", origin=Origin(derived_from=refs))
        return memory.apply([Operation.add(cube)], actor="test")[0].id

    fact = derive("Ana lives in Lisbon", source, session="s2")
    summary = derive("Ana: Lisbon, tea", fact, apart)
    memory.retract(summary)
    plan = memory.forget(source, dry_run=True, session="s1")
    assert plan.planned and set(plan.ids) == {source, fact, summary} and set(plan.derived) == {fact, summary}
    assert len(plan.preview) == 4 and plan.seq == 0, "every version is listed"
    with pytest.raises(InputError, match="dry run"):
        plan.verify()
    assert memory.get(source), "a plan erases nothing"
    receipt = memory.forget(source, session="s1")
    assert set(receipt.ids) == set(plan.ids) and set(receipt.derived) == set(plan.derived)
    receipt.verify()
    assert [cube.id for cube in memory.select(Where())] == [apart]
    assert memory.lineage(apart) == []
    assert memory.get(apart).scope == scope


def test_by_source_author_and_time(place: Path | str) -> None:
    time = Clock()
    with open_memory(place, clock=time) as memory:
        memory.add("from the attacker", source="mail:evil", author="mallory")
        archived = memory.add("from the attacker, taken back", source="mail:evil").ids[0]
        memory.retract(archived)
        memory.add("from mallory", author="mallory")
        time.tick(60)
        memory.add("late", author="ana")
        memory.add("not mine", source="mail:evil", user="ben")
        assert len(memory.forget(source="mail:evil").verify().ids) == 2
        assert len(memory.forget(author="mallory").verify().ids) == 1
        assert memory.forget(since=time.at, dry_run=True).preview[0].endswith("late")
        assert len(memory.forget(since=time.at).ids) == 1
        assert list(memory.select(Where())) == []
        nothing = memory.forget(source="mail:nobody")
        assert nothing.ids == () and not nothing.planned and nothing.seq == 0
        nothing.verify()
        for call in (memory.forget, lambda: memory.forget([])):
            with pytest.raises(InputError, match="forget what"):
                call()
        with pytest.raises(NotFoundError):
            memory.forget(new_id())
        assert len(memory.forget(everything=True, user="ben").ids) == 1


def test_one_unknown_id_and_nothing_goes(memory: Memory) -> None:
    id = memory.add("stays").ids[0]
    with pytest.raises(NotFoundError):
        memory.forget([id, new_id()])
    assert memory.get(id) and memory.store.head()[0] == 1


def test_a_receipt_notices_what_is_left(memory: Memory, folder: Path) -> None:
    """The negative control: whatever is put back, by row, by fold or by file, the receipt finds it."""
    secret = "the launch code is Zarathustra-4711"
    id = memory.add(secret).ids[0]
    memory.flush()
    behind = sqlite3.connect(folder / "holdfast.db", isolation_level=None)
    tables = ("cubes", "terms", "names", "vectors_1")
    saved = {table: behind.execute(f"SELECT * FROM {table}").fetchone() for table in tables}
    receipt = memory.forget(id)
    receipt.verify()
    for table, row in saved.items():
        behind.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        with pytest.raises(IntegrityError, match="not everything is gone"):
            receipt.verify()
        behind.execute(f"DELETE FROM {table}")
        receipt.verify()
    salt = receipt._salts[0]
    for name, data in (
        ("backups/old.db", salt),
        ("notes.txt", b"so: " + secret.encode()),
        ("blobs/x", b"\0" * 9999 + salt),
    ):
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
        with pytest.raises(IntegrityError, match=file.name):
            receipt.verify()
        file.unlink()
        receipt.verify()
    memory.add(secret)
    receipt.verify()  # another memory may say the same
    behind.close()


def test_a_receipt_tells_ids_and_never_words(memory: Memory) -> None:
    receipt = memory.forget(memory.add("the launch code is Zarathustra").ids[0], reason="asked to")
    told = receipt.to_dict()
    assert told["erased"] == list(receipt.ids) and told["reason"] == "asked to"
    assert "Zarathustra" not in str(told) and "Zarathustra" not in str(receipt.to_dict())
    with pytest.raises(InputError, match="read back"):
        Receipt(ANA, ("x",), (), "").verify()


@pytest.mark.parametrize(
    "text",
    ["1234", "é", "\ud800 half", 'say "so"\n\\ and\tmore', "日本語の秘密の暗号", "x" * 20_000, "\u0000" * 30, "🦊" * 9],
)
def test_texts_that_are_hard_to_look_for(memory: Memory, place: Path | str, text: str) -> None:
    memory.add("the one before")
    receipt = memory.forget(memory.apply([Operation.add(Cube(memory.scope(), text))], actor="test")[0].id)
    receipt.verify()
    left = everywhere(memory.store)
    assert receipt._salts[0] not in left
    if len(text) > 8 and "\0" not in text:
        assert text.encode("utf-8", "replace")[:24] not in left


def test_rows_that_moved_between_pages_leave_nothing_behind(folder: Path) -> None:
    """SQLite leaves copies of rows in the gaps of pages that it splits; several users' rows make it split in the middle."""
    rng = random.Random(3)
    store = open_store(folder)
    scopes = [Scope("acme", f"user-{n}") for n in range(8)]
    cubes: list[Cube] = []
    for n in range(1000):
        cubes += add(store, Cube(rng.choice(scopes), f"needle {n:06d} " + "x" * rng.randint(1, 900))).cubes
        at = rng.randrange(len(cubes))
        if n % 3 == 0:
            cubes[at] = update(
                store, cubes[at], status=Status.FROZEN if cubes[at].status is not Status.FROZEN else Status.ACTIVATED
            )
    victims = [cubes[n] for n in sorted(rng.sample(range(len(cubes)), 400))]
    ids = {scope: [cube.id for cube in victims if cube.scope == scope] for scope in scopes}
    erased = store.purge(ids[scopes[0]], scopes[0])
    assert found(store, erased.salts), "the control: erasing the rows alone leaves bytes of them in the file"
    for scope in scopes[1:]:
        forget(store, scope, ids=ids[scope]).verify()
    left = everywhere(store)
    assert not [cube.text[:13] for cube in victims if cube.scope != scopes[0] and cube.text[:13].encode() in left]
    assert store.verify() == [] and len(list(store.select(scopes[0]))) > 50


def test_a_backup_that_holds_it_goes_too(memory: Memory, folder: Path) -> None:
    id = memory.add("the launch code is Zarathustra").ids[0]
    backups = folder / "backups"
    backups.mkdir()
    (backups / "schema-1.db").write_bytes(b"Zarathustra")
    (backups / "schema-1.partial").write_bytes(b"Zarathustra")
    receipt = memory.forget(id)
    assert list(backups.iterdir()) == [] and len(receipt.notes) == 2
    receipt.verify()


def test_a_reader_of_another_program_that_holds_on_to_the_past_is_told_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import holdfast.store.sqlite as sqlite_module

    with open_memory(folder) as memory:
        id = memory.add("the launch code is Zarathustra").ids[0]
    script = f"""
import sys
from pathlib import Path
from holdfast.store.sqlite import SqliteStore
with SqliteStore(Path({str(folder)!r})).connections.reading() as connection:
    connection.execute("SELECT count(*) FROM cubes").fetchone()
    print("reading", flush=True)
    sys.stdin.readline()
"""
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "reading\n"
    monkeypatch.setattr(sqlite_module, "FOLD_SECONDS", 0.1)
    with open_memory(folder) as memory:
        receipt = memory.forget(id)
        assert memory.search("Zarathustra") == []
        with pytest.raises(IntegrityError, match="holdfast.db"):
            receipt.verify()
        other.communicate("go\n")
        receipt.verify()


def test_a_look_at_the_bytes_waits_for_readers_of_this_program(
    memory: Memory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import holdfast.store.connection as connection_module
    import holdfast.store.sqlite as sqlite_module

    monkeypatch.setattr(connection_module, "PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(sqlite_module, "FOLD_SECONDS", 0.1)
    id = memory.add("the launch code is Zarathustra").ids[0]
    with memory.store.connections.reading() as connection:
        connection.execute("SELECT count(*) FROM cubes").fetchone()
        receipt = memory.forget(id)
        assert receipt.notes
        with pytest.raises(StoreError, match="try again"):
            receipt.verify()
    receipt.verify()


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux lists its locks")
def test_a_look_at_the_bytes_does_not_cost_the_process_its_locks(memory: Memory, folder: Path) -> None:
    """Opening and closing SQLite's files beside it cancels its locks; then two programs write at once."""

    def locks(name: str) -> int:
        inode = (folder / name).stat().st_ino
        lines = Path("/proc/locks").read_text().splitlines()
        return sum(f":{inode} " in line and f" {os.getpid()} " in line for line in lines)

    id = memory.add("tea").ids[0]
    with open_memory(folder) as other:  # of the same process, with connections of its own
        list(other.select())
        memory.forget(id).verify()
        for opened in (memory, other):
            opened.add("coffee")
            assert list(opened.select())
        assert locks("holdfast.db") and locks("holdfast.db-shm")


def test_workers_in_flight_bring_nothing_back(place: Path | str) -> None:
    """The row is read by the embedder and by an encoder while it is forgotten."""
    started, go = threading.Event(), threading.Event()

    class Slow(HashEmbedder):
        def embed(self, texts: list[str]) -> np.ndarray:  # type: ignore[override]
            started.set()
            go.wait(10)
            return super().embed(texts)

    class Copying:
        def encode(self, experience: Experience) -> list[Operation]:
            started.set()
            go.wait(10)
            turn = experience.turns[0]
            origin = Origin(derived_from=(turn.ref,))
            return [Operation.add(Cube(turn.scope, f"fact of: {turn.text}", "fact", origin=origin))]

    for worker_of in (
        lambda store: Enrichment(store, Slow(dimension=8), ()),
        lambda store: Enrichment(store, None, (Copying(),)),
    ):
        with open_memory(place) as memory:
            id = memory.add("the launch code is Zarathustra").ids[0]
            started.clear()
            go.clear()
            worker = worker_of(memory.store)
            thread = threading.Thread(target=worker.drain)
            thread.start()
            assert started.wait(10)
            receipt = memory.forget(id)
            go.set()
            thread.join()
            memory.flush()
            receipt.verify()
            assert memory.search("Zarathustra") == [] and list(memory.select(Where())) == []
            assert memory.status()["backlog"] == {}, "no job is left for what is gone"


def test_what_is_derived_at_the_very_moment_goes_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the question what is derived and the erasing nobody can derive anything more: it is one transaction."""
    store, other = open_store(folder), open_store(folder)
    source = add(store, Cube(ANA, "a source")).cubes[0]
    plain = SqliteStore._closure
    blocked: list[str] = []

    def closure(self: SqliteStore, connection: sqlite3.Connection, ids: object) -> list[str]:
        found = plain(self, connection, ids)  # type: ignore[arg-type]
        cube = Cube(ANA, "derived just now", "fact", origin=Origin(derived_from=(source.ref,)))
        thread = threading.Thread(target=lambda: blocked.append(repr(attempt(other, cube))))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), "the writer waits for the purge"
        self.waiting = thread  # type: ignore[attr-defined]
        return found

    def attempt(where: SqliteStore, cube: Cube) -> object:
        try:
            return add(where, cube)
        except NotFoundError as error:
            return error

    monkeypatch.setattr(SqliteStore, "_closure", closure)
    forget(store, ANA, ids=[source.id]).verify()
    monkeypatch.undo()
    store.waiting.join()  # type: ignore[attr-defined]
    assert "NotFoundError" in blocked[0] and list(store.select(ANA)) == []


def test_forgetting_in_one_program_empties_the_index_of_another(place: Path | str) -> None:
    with open_memory(place) as one, open_memory(place) as two:
        id = one.add("Zarathustra spoke").ids[0]
        one.add("somebody else spoke")
        assert len(two.search("spoke")) == 2
        one.forget(id)
        assert [hit.text for hit in two.search("spoke Zarathustra")] == ["somebody else spoke"]


def test_forgetting_a_thousand_takes_seconds(place: Path | str) -> None:
    import time

    store = open_store(place)
    cubes = [
        Cube(ANA, f"turn number {n} about nothing much", origin=Origin(reference="mail:evil")) for n in range(1500)
    ]
    for start in range(0, 1500, 500):
        add(store, *cubes[start : start + 500])
    add(store, *(Cube(BEN, f"turn number {n} about nothing much") for n in range(1500)))
    begin = time.perf_counter()
    receipt = forget(store, ANA, where=Where(source="mail:evil"))
    receipt.verify()
    assert len(receipt.ids) == 1500 and time.perf_counter() - begin < 20
    assert len(list(store.select(BEN))) == 1500


def test_no_byte_is_left_of_what_was_strewn_over_thousands(place: Path | str) -> None:
    """Found by other means than the receipt's: every file is read, and each text looked for as it stands in a row."""
    rng = random.Random(11)
    words = [f"w{n:04d}" for n in range(4_000)]
    sizes = {"mail:one": 1, "mail:hundred": 40, "mail:many": 600}
    sources = [source for source, size in sizes.items() for _ in range(size)] + [None] * 3_400
    rng.shuffle(sources)
    said: dict[str | None, list[str]] = {}
    with open_memory(place, embedder=HashEmbedder(dimension=8)) as memory:
        cubes = []
        for number, source in enumerate(sources):
            text = f"turn {number} says " + " ".join(rng.choices(words, k=rng.randint(4, 60)))
            said.setdefault(source, []).append(text)
            scope = memory.scope(user=("ana", "ben")[number % 7 == 0])
            cubes.append(Cube(scope, text, origin=Origin(author="user", reference=source)))
        for user in ("ana", "ben"):
            memory.add([cube for cube in cubes if cube.scope.user == user], user=user)
        memory.flush()
        changed = [cube for cube in cubes if cube.origin.reference][::5]
        for cube in changed:
            memory.correct(cube.id, f"{cube.text}, or rather not", user=cube.scope.user)
        before = everywhere(memory.store)
        assert all(some[0].encode() in before for some in said.values())
        kept = next(cube for cube in cubes if cube.origin.reference is None and cube.scope.user == "ana")
        for source, size in sizes.items():
            receipts = [memory.forget(source=source, user=user).verify() for user in ("ana", "ben")]
            assert sum(len(receipt.ids) for receipt in receipts) == size
        left = everywhere(memory.store)
        for source, some in said.items():
            there = sum(text.encode() in left for text in some[:200])
            assert there == (min(200, len(some)) if source is None else 0)
            if source is not None:  # nor any piece of it that is its own
                assert not [text for text in some[:200] if " ".join(text.split()[:4]).encode() in left]
        assert memory.search(kept.text, k=1)[0].id == kept.id
        assert memory.verify() == []


def test_many_needles_are_found_like_few() -> None:
    rng = random.Random(5)
    needles = [rng.randbytes(rng.randint(8, 40)) for _ in range(300)]
    hidden = set(rng.sample(needles, 40))
    data = b"".join(rng.randbytes(rng.randint(0, 50)) + needle for needle in hidden)
    assert Sought(needles).within(data) == hidden
    assert Sought(needles[:10]).within(data) == hidden & set(needles[:10])
    assert Sought(needles).within(b"short") == set() == Sought(needles).within(b"")
    with pytest.raises(InputError, match="8 bytes"):
        Sought([b"1234567"])


@given(
    st.lists(st.binary(min_size=8, max_size=48), min_size=17, max_size=60, unique=True),
    st.lists(st.tuples(st.integers(0, 59), st.integers(0, 20)), max_size=20),
    st.binary(max_size=40),
)
def test_a_needle_is_found_wherever_it_lies(needles: list[bytes], hidden: list[tuple[int, int]], noise: bytes) -> None:
    data = noise + b"".join(noise[:gap] + needles[at % len(needles)] for at, gap in hidden) + noise
    assert Sought(needles).within(data) == {needle for needle in needles if needle in data}


@pytest.mark.parametrize("length", [8, 11, 15, 16])
def test_needles_that_begin_alike_are_found_at_every_offset(length: int) -> None:
    """Their first window is common, and there is hardly another to know them by."""
    rng = random.Random(length)
    needles = [b"the same" + rng.randbytes(length - 8) for _ in range(17 if length > 8 else 1)]
    needles += [rng.randbytes(length) for _ in range(20)]
    for needle in needles:
        assert all(needle in Sought(needles).within(bytes(offset) + needle + b"\n") for offset in range(9))


def test_a_needle_is_found_across_the_pieces_that_a_file_is_read_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import holdfast.store.traces as module

    monkeypatch.setattr(module, "_PIECE", 64)
    rng = random.Random(7)
    needles = [rng.randbytes(rng.randint(8, 40)) for _ in range(40)]
    folder.mkdir()
    (folder / "file").write_bytes(b"".join(rng.randbytes(rng.randint(0, 90)) + needle for needle in needles[:30]))
    assert traces(folder, needles) == dict.fromkeys(needles[:30], "file") and traces(folder, []) == {}


def test_a_frozen_or_quarantined_memory_can_be_forgotten(memory: Memory) -> None:
    for status in (Status.FROZEN, Status.QUARANTINED, Status.ARCHIVED, Status.EXPIRED):
        cube = memory.apply([Operation.add(Cube(memory.scope(), f"{status}", status=status))], actor="test")[0]
        memory.forget(cube.id).verify()


def test_a_receipt_looks_again_where_another_program_is_still_erasing(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        receipt = memory.forget(memory.add("the vault opens with heliotrope").ids)
        trace = tmp_path / "log-of-another"
        trace.write_text("the vault opens with heliotrope")
        eraser = threading.Timer(0.25, trace.unlink)
        eraser.start()
        assert receipt.verify() is receipt
        eraser.join()
        assert not trace.exists()
