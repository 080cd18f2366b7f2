"""What breaks from outside: disks, files, versions, embedders, clocks. A clear error, nothing lost, no silence."""

from __future__ import annotations

import io
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from holdfast.cube import Cube, Scope
from holdfast.encode.base import Experience
from holdfast.enrichment import Enrichment
from holdfast.errors import EmbedderError, HoldfastError, IntegrityError, SchemaError, StoreError
from holdfast.memory import Memory
from holdfast.retrieve.partition import Partition
from holdfast.store import schema
from holdfast.store.base import Operation
from holdfast.store.sqlite import SqliteStore
from support import ANA, Clock, Failing, HashEmbedder, add, open_memory, open_store, texts

ROOT = os.geteuid() == 0


def in_child(call: Callable[[], object]) -> str:
    """Run something in a forked child and return what it raised or returned, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = f"returned: {call()!r}"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode("utf-8", "replace")[:60_000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


# --- the disk ---


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    home = Path(tempfile.mkdtemp())
    mounted = ROOT and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(home)], capture_output=True
    ).returncode == 0  # fmt: skip
    if not mounted:
        home.rmdir()
        pytest.skip("mounting a small disk needs root")
    try:
        yield home
    finally:
        subprocess.run(["umount", str(home)], check=True)
        home.rmdir()


def test_a_full_disk_loses_nothing_and_goes_on_when_there_is_space_again() -> None:
    with small_disk("8m") as disk, open_memory(disk / "s", durability="full") as memory:
        ids: list[str] = []
        with pytest.raises(StoreError, match="disk is full"):
            for n in range(10_000):
                ids += memory.add(f"turn {n} " + "x" * 2000).ids
        assert len(ids) > 100
        with pytest.raises(StoreError, match="disk is full"):
            memory.add("x" * 100_000)
        with pytest.raises(StoreError):
            memory.forget(ids[:50], reason="y" * 2_000_000)
        assert memory.store.counts()["memories"] == len(ids) and memory.verify() == []
        assert memory.search("turn 7")[0].text.startswith("turn 7 "), "reading goes on"
        assert memory.status()["memories"] == len(ids)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        ids += memory.add("there is space again").ids
        assert memory.store.counts()["memories"] == len(ids) and memory.verify() == []
        assert memory.search("space again")[0].id == ids[-1]


def test_a_store_cannot_be_made_on_a_full_disk_and_can_be_later() -> None:
    with small_disk("64k") as disk:
        with pytest.raises(StoreError, match=r"disk|cannot be"):
            open_store(disk / "s")
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        store = open_store(disk / "s")
        add(store, Cube(ANA, "tea"))
        assert store.verify() == []
        store.close()


def test_a_limit_on_file_sizes_is_told_as_what_it_is(folder: Path) -> None:
    store = open_store(folder)
    add(store, Cube(ANA, "before"))
    store.close()

    def write() -> object:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        limited = open_store(folder)
        count = 0
        try:
            for n in range(1000):
                add(limited, Cube(ANA, f"turn {n} " + "x" * 5000))
                count += 1
        except StoreError as error:
            return count, str(error), len(limited.verify()), limited.counts()["memories"]
        return "no error"

    said = in_child(write)
    assert "what was committed before is safe" in said and "damaged" not in said, said
    store = open_store(folder)
    assert store.verify() == [] and f", {store.counts()['memories']})" in said
    add(store, Cube(ANA, "after"))


@pytest.mark.skipif(not ROOT, reason="becoming another user needs root")
def test_a_folder_that_may_not_be_written() -> None:
    home = Path(tempfile.mkdtemp())
    home.chmod(0o755)
    try:
        store = open_store(home / "s")
        add(store, Cube(ANA, "tea"))
        store.close()

        def as_nobody(call: Callable[[], object]) -> str:
            def run() -> object:
                os.setgroups([])
                os.setgid(54_321)
                os.setuid(54_321)
                return call()

            return in_child(run)

        for call in (
            lambda: open_store(home / "s"),
            lambda: open_store(home / "new"),
            lambda: open_store(home / "s" / "deeper"),
            lambda: open_memory(home / "s"),
        ):
            said = as_nobody(call)
            assert said.startswith("StoreError") and ("written" in said or "Permission" in said), said
        assert not (home / "new").exists()
        (home / "locked").mkdir(mode=0o700)
        assert as_nobody(lambda: open_store(home / "locked" / "s")).startswith("StoreError")
        store = open_store(home / "s")
        assert store.verify() == [] and store.counts()["memories"] == 1
        store.close()
    finally:
        shutil.rmtree(home)


def test_a_path_that_is_a_file_or_under_one(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    for path in (file, file / "s"):
        with pytest.raises(StoreError):
            open_store(path)
        with pytest.raises(StoreError):
            Memory(path, embedder=None)
    assert file.read_text() == "mine"
    (tmp_path / "d" / "holdfast.db").mkdir(parents=True)
    with pytest.raises(StoreError):
        open_store(tmp_path / "d")


# --- the file ---


def filled(folder: Path, count: int = 300) -> int:
    store = open_store(folder)
    add(store, *(Cube(ANA, f"turn {n} about tea") for n in range(count)))
    store.fold_log()
    store.close()
    return count


def test_a_file_that_is_no_database(folder: Path) -> None:
    folder.mkdir()
    for content in (b"this is not a database, it is a letter to my aunt " * 100, b"\x00" * 8192, os.urandom(8192)):
        (folder / "holdfast.db").write_bytes(content)
        with pytest.raises(StoreError, match="damaged|not a Holdfast store"):
            open_store(folder)
        assert (folder / "holdfast.db").read_bytes() == content, "it is left as it was"


def test_another_programs_database_is_left_as_it_was(folder: Path) -> None:
    folder.mkdir()
    file = folder / "holdfast.db"
    for version, application in ((0, 0), (1, 0), (7, 0x12345678)):
        with sqlite3.connect(file) as other:
            other.execute("CREATE TABLE IF NOT EXISTS aunts (name TEXT)")
            other.execute(f"PRAGMA user_version = {version}")
            other.execute(f"PRAGMA application_id = {application}")
        other.close()
        before = file.read_bytes()
        with pytest.raises(SchemaError, match="not a Holdfast store"):
            open_store(folder)
        assert file.read_bytes() == before
        assert sorted(path.name for path in folder.iterdir()) == ["holdfast.db"]
        file.unlink()


def test_a_newer_store_is_left_as_it_was(folder: Path) -> None:
    filled(folder)
    with sqlite3.connect(folder / "holdfast.db") as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    before = (folder / "holdfast.db").read_bytes()
    with pytest.raises(SchemaError, match="schema 99.*pip install --upgrade"):
        open_store(folder)
    with pytest.raises(SchemaError):
        Memory(folder, embedder=None)
    assert (folder / "holdfast.db").read_bytes() == before and not (folder / "backups").exists()


@pytest.mark.parametrize("left", [0.9, 0.5, 0.1])
def test_a_truncated_file_is_told_and_nothing_more_is_lost(folder: Path, left: float) -> None:
    filled(folder)
    file = folder / "holdfast.db"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * left)])
    short = file.read_bytes()
    with pytest.raises((StoreError, IntegrityError), match=r"damaged|not everything|doctor"):
        store = open_store(folder)
        try:
            assert not store.verify()
            list(store.select(ANA))
            add(store, Cube(ANA, "after"))
        finally:
            store.close()
    assert file.read_bytes()[: len(short) // 2][100:] == short[: len(short) // 2][100:], "what is left is not touched"


def test_an_empty_or_missing_file_where_a_store_was_is_not_a_new_store(folder: Path) -> None:
    filled(folder)
    file = folder / "holdfast.db"
    kept = file.read_bytes()
    for damage in (lambda: file.write_bytes(b""), file.unlink):
        damage()
        with pytest.raises(StoreError, match="empty or missing"):
            open_store(folder)
        with pytest.raises(StoreError, match="empty or missing"):
            Memory(folder, embedder=None)
    file.write_bytes(kept)
    store = open_store(folder)
    assert store.verify() == [] and store.counts()["memories"] == 300
    store.close()


def test_flipped_bits_are_an_error_or_found_by_verify_and_never_a_crash(folder: Path) -> None:
    filled(folder, 120)
    file = folder / "holdfast.db"
    whole = file.read_bytes()
    rng = np.random.default_rng(1)
    outcomes = {"error": 0, "found": 0, "harmless": 0}
    for at in rng.integers(0, len(whole), 150).tolist():
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(0, 8))
        file.write_bytes(damaged)
        for name in ("holdfast.db-wal", "holdfast.db-shm"):
            (folder / name).unlink(missing_ok=True)
        try:
            store = open_store(folder)
            try:
                problems = store.verify()
                cubes = [cube.text for cube in store.select(ANA)]
                partition = Partition(store, 1)
                partition.catch_up()
                list(store.events())
            finally:
                store.close()
        except HoldfastError:
            outcomes["error"] += 1
            continue
        if problems:
            outcomes["found"] += 1
        else:
            outcomes["harmless"] += 1  # in a gap, or in an index
            assert cubes == [f"turn {n} about tea" for n in range(120)]
    assert outcomes["error"] > 10 and outcomes["found"] > 10, outcomes


def test_a_damaged_index_is_told_and_made_again(folder: Path) -> None:
    with open_memory(folder, embedder=HashEmbedder(dimension=8)) as memory:
        memory.add(["tea with Ben", "coffee on Monday"])
        memory.flush()
    for table in ("terms", "vectors_1", "dates"):
        with sqlite3.connect(folder / "holdfast.db") as behind:
            behind.execute(f"UPDATE {table} SET body = substr(body, 1, length(body) - 3)")
        behind.close()
        with open_memory(folder, embedder=HashEmbedder(dimension=8)) as memory:
            assert memory.verify() == [], "no memory is lost"
            with pytest.raises(IntegrityError, match=r"index.*doctor"):
                memory.search("tea")
            assert [cube.text for cube in memory.select()] == ["tea with Ben", "coffee on Monday"]
            with memory.store.connections.writing() as connection:
                connection.execute(f"DELETE FROM {table}")
                if table != "terms":
                    connection.execute(
                        "INSERT INTO jobs (task, rid) SELECT ?, rid FROM cubes",
                        ("embed" if table == "vectors_1" else "enrich",),
                    )
            from holdfast.retrieve.text import ANALYSER, fold_terms

            memory.store.rebuild(fold_terms, ANALYSER)
            memory.flush()
            assert memory.search("tea")[0].text == "tea with Ben"


# --- versions ---


def _more(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE cubes ADD COLUMN mood TEXT")


def _broken(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE cubes ADD COLUMN weather TEXT")
    connection.execute("DELETE FROM cubes")
    raise sqlite3.OperationalError("the power went")


def columns(folder: Path) -> list[str]:
    with sqlite3.connect(folder / "holdfast.db") as looking:
        found = [row[1] for row in looking.execute("PRAGMA table_info(cubes)")]
    looking.close()
    return found


def version(file: Path) -> int:
    with sqlite3.connect(file) as looking:
        found: int = looking.execute("PRAGMA user_version").fetchone()[0]
    looking.close()
    return found


def test_a_new_step_is_taken_once_after_a_backup(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(folder)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, _more))
    newest = len(schema.MIGRATIONS)
    monkeypatch.setattr(SqliteStore, "head", SqliteStore.head)
    schema.migrate(opened := _writer(folder), folder)
    opened.close()
    assert "mood" in columns(folder) and version(folder / "holdfast.db") == newest
    copy = folder / "backups" / f"schema-{newest - 1}.db"
    assert version(copy) == newest - 1 and sorted(path.name for path in copy.parent.iterdir()) == [copy.name]
    with sqlite3.connect(copy) as old:
        assert old.execute("SELECT count(*) FROM cubes").fetchone() == (300,)
    old.close()
    stamp = copy.stat().st_mtime_ns
    schema.migrate(opened := _writer(folder), folder)
    opened.close()
    assert copy.stat().st_mtime_ns == stamp, "and not again"


def _writer(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "holdfast.db", isolation_level=None)


def test_a_step_that_fails_changes_nothing_and_leaves_the_backup(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = filled(folder)
    before = columns(folder)
    plain = schema.MIGRATIONS
    monkeypatch.setattr(schema, "MIGRATIONS", (*plain, _more, _broken))
    with pytest.raises(StoreError, match="the power went"):
        open_store(folder)
    assert columns(folder) == [*before, "mood"] and version(folder / "holdfast.db") == len(plain) + 1, "steps are whole"
    assert {path.name for path in (folder / "backups").iterdir()} == {f"schema-{len(plain) + n}.db" for n in (0, 1)}
    monkeypatch.setattr(schema, "MIGRATIONS", (*plain, _more))
    with _writer(folder) as opened:
        schema.migrate(opened, folder)
        assert opened.execute("SELECT count(*) FROM cubes").fetchone() == (count,)
    opened.close()


def test_a_process_killed_in_a_step_leaves_the_store_as_it_was(folder: Path) -> None:
    filled(folder)
    before = columns(folder)
    script = f"""
import os, signal
from pathlib import Path
from holdfast.store import schema
def step(connection):
    connection.execute("ALTER TABLE cubes ADD COLUMN mood TEXT")
    connection.execute("UPDATE cubes SET mood = 'sunny'")
    os.kill(os.getpid(), signal.SIGKILL)
schema.MIGRATIONS = (*schema.MIGRATIONS, step)
from holdfast.store.sqlite import SqliteStore
SqliteStore({str(folder)!r})
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert columns(folder) == before
    store = open_store(folder)
    assert store.verify() == [] and store.counts()["memories"] == 300
    store.close()


def test_two_programs_that_upgrade_at_once_take_the_step_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(folder)
    steps: list[int] = []

    def slow(connection: sqlite3.Connection) -> None:
        steps.append(1)
        time.sleep(0.2)
        _more(connection)

    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, slow))
    troubles: list[BaseException] = []

    def upgrade() -> None:
        opened = sqlite3.connect(folder / "holdfast.db", isolation_level=None, timeout=30)
        try:
            schema.migrate(opened, folder)
        except BaseException as error:
            troubles.append(error)
        finally:
            opened.close()

    threads = [threading.Thread(target=upgrade) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == [] and steps == [1]
    assert version(next((folder / "backups").iterdir())) == len(schema.MIGRATIONS) - 1, (
        "the backup is of before the step"
    )


# --- embedders ---


def refuse(error: BaseException) -> Callable[[np.ndarray, object], np.ndarray]:
    def behave(vectors: np.ndarray, texts: object) -> np.ndarray:
        raise error

    return behave


FAULTS: dict[str, Callable[[np.ndarray, object], object]] = {
    "time-out": refuse(TimeoutError("no answer in 30 s")),
    "connection": refuse(ConnectionError("refused")),
    "its own error": refuse(EmbedderError("quota")),
    "any error": refuse(ZeroDivisionError("division by zero")),
    "out of memory": refuse(MemoryError("no memory")),
    "too few rows": lambda vectors, texts: vectors[:-1],
    "no rows": lambda vectors, texts: vectors[:0],
    "another dimension": lambda vectors, texts: vectors[:, :5],
    "NaN": lambda vectors, texts: vectors * np.float32("nan"),
    "infinity": lambda vectors, texts: vectors * np.float32("inf"),
    "nothing": lambda vectors, texts: None,
    "words": lambda vectors, texts: list(texts),  # type: ignore[call-overload]
    "one list too flat": lambda vectors, texts: vectors[0],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_embedder_that_fails_costs_only_the_search_by_meaning(folder: Path, fault: str) -> None:
    working = lambda vectors, texts: vectors  # noqa: E731
    embedder = Failing(working, dimension=8)
    time_ = Clock()
    with open_memory(folder, embedder=embedder, clock=time_) as memory:
        memory.add("tea with Ben")
        memory.flush()
        assert memory.search("tea") and memory.degraded == []
        embedder.behave = FAULTS[fault]
        memory.add(["coffee on Monday", "milk"])
        memory.flush()
        assert memory.status()["backlog"]["embed"]["waiting"] == memory.status()["backlog"]["embed"]["failed"] == 2
        assert memory.status()["backlog"]["embed"]["error"], "the error is kept with the jobs"
        hits = memory.search("coffee")
        assert hits[0].text == "coffee on Monday" and hits.degraded, "search by words goes on and says so"
        assert memory.degraded and memory.verify() == []
        assert memory.add("another one").ids
        embedder.behave = working
        memory.flush()
        assert memory.status()["backlog"] == {} and len(memory.store.fold("vectors_1", 1)) == 4
        assert memory.search("milk").degraded == () and memory.degraded == []


@pytest.mark.parametrize("fault", ["time-out", "any error", "NaN"])
def test_the_thread_survives_an_embedder_that_fails(folder: Path, fault: str) -> None:
    calls: list[int] = []

    def behave(vectors: np.ndarray, texts: object) -> object:
        calls.append(1)
        return FAULTS[fault](vectors, texts) if len(calls) < 3 else vectors

    with open_memory(folder, embedder=Failing(behave, dimension=8), background=True) as memory:
        memory.add("tea")
        ends = time.monotonic() + 20
        while memory.store.queue.backlog() and time.monotonic() < ends:
            memory.store.queue.retry()
            memory._enrichment.wake()
            time.sleep(0.02)
        assert memory.store.queue.backlog() == {} and len(calls) >= 3


def test_an_encoder_that_fails_costs_only_its_facts(folder: Path) -> None:
    class Encoder:
        broken = True

        def encode(self, experience: Experience) -> list[Operation]:
            if self.broken:
                raise KeyError("the model said nothing")
            return [Operation.add(Cube(turn.scope, f"fact: {turn.text}", "fact")) for turn in experience.turns]

    encoder = Encoder()
    with open_memory(folder, encoders=(encoder,)) as memory:
        memory.add("tea")
        memory.flush()
        assert "KeyError" in memory.status()["backlog"]["enrich"]["error"] and memory.search("tea")
        encoder.broken = False
        memory.flush()
        assert [cube.text for cube in memory.select()] == ["tea", "fact: tea"] and memory.degraded == []


def test_one_text_that_an_embedder_cannot_take_does_not_hold_up_the_others(folder: Path) -> None:
    def behave(vectors: np.ndarray, some: object) -> np.ndarray:
        if any("poison" in text for text in some):  # type: ignore[attr-defined]
            raise ValueError("cannot take this text")
        return vectors

    clock = Clock()
    with open_memory(folder, embedder=Failing(behave, dimension=8), clock=clock) as memory:
        memory.add([f"turn {n}" for n in range(300)])
        memory.add("poison")
        memory.add([f"later turn {n}" for n in range(300)])
        for _ in range(20):
            memory.flush()
        backlog = memory.status()["backlog"]["embed"]
        assert (backlog["waiting"], backlog["failed"]) == (1, 1) and "cannot take" in backlog["error"]
        assert len(memory.store.fold("vectors_1", 1)) == 600


def test_an_embedder_that_changed_its_dimension_under_the_same_name(folder: Path) -> None:
    with open_memory(folder, embedder=HashEmbedder(dimension=8)) as memory:
        memory.add("tea")
        memory.flush()
    with pytest.raises(EmbedderError, match="8 dimensions"):
        open_memory(folder, embedder=HashEmbedder(dimension=16))
    embedder = HashEmbedder(dimension=8)
    with open_memory(folder, embedder=embedder) as memory:
        memory.add("coffee")
        embedder.dimension = 16  # as a service does over night
        memory.flush()
        assert memory.status()["backlog"]["embed"]["waiting"] == 1 and any(
            "dimension" in line for line in memory.degraded
        )
        assert memory.search("coffee")[0].text == "coffee"
        embedder.dimension = 8
        memory.flush()
        assert memory.search("coffee").degraded == ()
        assert memory.status()["backlog"] == {} and memory.degraded == []


def test_another_model_is_refused_until_the_store_changes_to_it(folder: Path) -> None:
    with open_memory(folder, embedder=HashEmbedder("one", 8)) as memory:
        memory.add("tea")
        memory.flush()
    with pytest.raises(EmbedderError, match="vectors are of one"):
        open_memory(folder, embedder=HashEmbedder("two", 8))
    with open_memory(folder) as memory:
        assert any("vectors of one" in line for line in memory.degraded) and memory.search("tea").degraded
    with open_memory(folder, embedder="auto") as memory:
        assert any("cannot be opened" in line for line in memory.degraded) and memory.search("tea")


def test_a_change_of_model_that_fails_leaves_the_old_one_serving(folder: Path) -> None:
    broken = Failing(FAULTS["time-out"], "two", 16)
    with open_memory(folder, embedder=HashEmbedder("one", 8)) as memory:
        memory.add(["tea", "coffee"])
        memory.flush()
        with pytest.raises(EmbedderError, match="one goes on serving"):
            memory.reembed(broken)
        assert memory.status()["embedder"] == "one" and memory.search("tea")[0].channels and memory.degraded == []
        memory.add("milk")
        memory.flush()
        assert len(memory.store.fold("vectors_1", 1)) == 3
        broken.behave = lambda vectors, texts: vectors
        assert memory.reembed(broken) == 3
        assert [model[1] for model in memory.store.models()] == ["two"] and memory.status()["backlog"] == {}


def test_closing_does_not_wait_for_ever_for_an_embedder_that_hangs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import holdfast.enrichment as enrichment

    monkeypatch.setattr(enrichment, "STOP_SECONDS", 0.3)
    go, here = threading.Event(), threading.Event()

    def behave(vectors: np.ndarray, texts: object) -> np.ndarray:
        here.set()
        go.wait(20)
        return vectors

    memory = open_memory(folder, embedder=Failing(behave, dimension=8), background=True)
    memory.add("tea")
    assert here.wait(10)
    begin = time.monotonic()
    memory.close()
    assert time.monotonic() - begin < 5
    go.set()
    with open_memory(folder, embedder=HashEmbedder(dimension=8)) as again:
        assert again.store.queue.backlog()["embed"][0] == 1, "what was in flight is still owed"
        again.flush()
        assert again.store.queue.backlog() == {} and again.verify() == []


def test_a_worker_that_was_overtaken_does_no_harm(folder: Path) -> None:
    """Its lease ran out, another did the work, the row has a new version by now; then it comes back."""
    clock = Clock()
    store = open_store(folder, clock=clock)
    slow, quick = Enrichment(store, HashEmbedder(dimension=8), ()), Enrichment(store, HashEmbedder(dimension=8), ())
    cube = add(store, Cube(ANA, "tea with Ben")).cubes[0]
    quick.table()
    taken = {task: store.queue.take(task, 9) for task in ("embed", "enrich")}
    clock.tick(61)
    quick.drain()
    assert store.queue.backlog() == {}
    store.commit([Operation.update(store.get(cube.id, ANA).with_(text="coffee"))])
    store.queue.put_folds({"vectors_1": [(taken["embed"][0], b"\x01" * 16)]}, task="embed", done=taken["embed"])
    store.queue.put_folds(
        {"names": [(taken["enrich"][0], b"\x01\x00\x00\x00\x00")]}, task="enrich", done=taken["enrich"]
    )
    assert {task: some[0] for task, some in store.queue.backlog().items()} == {"embed": 1, "enrich": 1}, (
        "the new version is owed still"
    )
    slow.drain()
    assert store.queue.backlog() == {} and store.verify() == []


# --- what is said ---


def test_a_long_reason_or_actor_and_broken_characters_in_them(folder: Path) -> None:
    store = open_store(folder)
    store.commit([Operation.add(Cube(ANA, "x"), "because \ud800 " + "y" * 100_000)], actor="me \udfff")
    assert store.verify() == [] and "because ?" in next(iter(store.events())).reason


@pytest.mark.parametrize(
    "before", [(), ("I do not know.",), ("The ferry was late.", "Soup for lunch.", "A new kettle.")]
)
def test_what_was_said_a_moment_ago_is_told_before_its_vector_is_there(folder: Path, before: tuple[str, ...]) -> None:
    embedder = HashEmbedder()
    with open_memory(folder, embedder=embedder) as memory:
        memory.store.serve(memory.store.add_model(embedder.model, embedder.dimension))
        if before:
            memory.add(list(before))
            memory.flush()
        memory.add("I moved to Lisbon in May.")
        hits = memory.search("Where do I live, Lisbon or Porto?")
        assert hits[0].text == "I moved to Lisbon in May." and not hits.abstain, hits.reason
        assert "Lisbon in May" in memory.context("Where do I live, Lisbon or Porto?")


def test_the_status_says_what_is_degraded(folder: Path) -> None:
    with Memory(folder, user="ana", embedder=None, background=False) as memory:
        status = memory.status()
        assert status["durability"] == "full" and status["embedder"] is None and status["memories"] == 0
        assert io.StringIO(str(status["head"])).read()
    with pytest.raises(HoldfastError, match="durability"):
        Memory(folder, durability="none", embedder=None)


def test_two_partitions_of_texts_are_not_confused_by_a_reopened_store(folder: Path) -> None:
    for n in range(3):
        with open_memory(folder) as memory:
            memory.add(f"tea number {n}")
            assert len(texts(memory.search("tea"))) == n + 1
            assert memory.store.partition(Scope("default", "ana")) == 1
