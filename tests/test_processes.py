"""Many processes, threads, loops and forks on one store; writers killed at any moment."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest

from holdfast.aio import AsyncMemory
from holdfast.cube import Cube, Scope
from holdfast.memory import Memory
from holdfast.store.base import Operation
from support import ANA, HashEmbedder, add, open_memory, open_store, texts

KILL = Path(__file__).parent.parent / "benchmarks" / "kill.py"
SECONDS = float(os.environ.get("HOLDFAST_KILL_SECONDS", "12"))


def run(script: str, *arguments: object) -> subprocess.Popen[str]:
    code = "import sys; sys.path.insert(0, sys.argv[1])\n" + textwrap.dedent(script)
    command = [sys.executable, "-c", code, str(Path(__file__).parent), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


# --- killed ---


def test_eight_writers_killed_at_random(tmp_path: Path) -> None:
    out = tmp_path / "durability.json"
    done = subprocess.run(
        [sys.executable, KILL, "--seconds", str(SECONDS), "--out", out, "--folder", tmp_path], check=False
    )
    report = json.loads(out.read_text())
    assert done.returncode == 0 and report["verdict"] == "holds", report
    assert report["processes"]["killed"] >= SECONDS and report["looked_at"]["confirmed_memories"] > 2 * SECONDS
    assert report["unconfirmed"] > 0, "some were killed in the middle of something"
    assert report["reader"]["looked"] > SECONDS and report["reader"]["missed"] == []


@pytest.fixture
def kill() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kill", KILL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill"] = module
    spec.loader.exec_module(module)
    return module


def test_the_audit_would_notice(kill: ModuleType, folder: Path) -> None:
    """The control: each thing that could go wrong, done on purpose."""
    ledgers = folder.parent / "ledgers"
    ledgers.mkdir()
    ledger = kill.Ledger(ledgers / "w0x1.jsonl")
    with kill.open_memory(folder, "normal", background=False) as memory:
        ids = []
        for n in range(6):
            text = f"turn w0x1x{n} of w0 on Monday"
            ledger.note(will="add", user="w0", texts=[text])
            ids.append(memory.add(text, user="w0").ids[0])
            ledger.note(did="add", user="w0", texts=[text], ids=[ids[-1]])
        ledger.note(will="add", user="w0", texts=["turn w0x1x9 of w0 on Monday"])  # killed before it heard
        memory.add("turn w0x1x9 of w0 on Monday", user="w0")
        memory.flush()

    def audit() -> dict[str, object]:
        report = kill.audit(folder, kill.listen(ledgers), 0)
        names = ("lost", "wrong", "written_by_nobody", "chain_problems", "not_found_by_words", "not_found_by_vectors",
                 "not_found_by_search", "jobs_left")  # fmt: skip
        return {name: report[name] for name in names if report[name]}

    assert audit() == {}
    with kill.open_memory(folder, "normal", background=False) as memory:
        memory.add("turn nobody1 was written", user="w0")
        memory.forget(ids[0], user="w0")
        memory.retract(ids[1], user="w0")
        memory.feedback([ids[2]], 1.0, user="w0")
        with memory.store.connections.writing() as connection:
            connection.execute("DELETE FROM terms WHERE rid = (1 << 32) + 3")
            connection.execute("DELETE FROM vectors_1 WHERE rid = (1 << 32) + 4")
            connection.execute("UPDATE journal SET reason = 'because' WHERE seq = 6")
    found = audit()
    found.pop("not_found_by_search", None)  # what has lost its words may still be found as a neighbour or by its vector
    assert {name: len(some) for name, some in found.items()} == {  # type: ignore[arg-type]
        "lost": 1,
        "wrong": 2,
        "written_by_nobody": 1,
        "chain_problems": 1,
        "not_found_by_words": 1,
        "not_found_by_vectors": 1,
    }


def test_a_writer_killed_in_the_middle_of_a_large_transaction_leaves_nothing_of_it(place: Path | str) -> None:
    store = open_store(place)
    add(store, Cube(ANA, "before"))
    writer = run(
        """
        from support import *
        from holdfast.store.base import Operation
        store = open_store(place_of(sys.argv[2]))
        def operations():
            for n in range(3000):
                yield Operation.add(Cube(ANA, f"turn {n} " + "x" * 2000))
        with store.connections.writing(ANA.tenant) as connection:
            batch = store._batch(connection, "")
            for operation in operations():
                batch.apply(operation)
            print("written", flush=True)
            sys.stdin.readline()
        """,
        place,
    )
    assert said(writer) == "written"
    assert [cube.text for cube in store.select(ANA)] == ["before"], "nobody sees what is not committed"
    writer.kill()
    writer.wait()
    add(store, Cube(ANA, "after"))
    assert [cube.text for cube in store.select(ANA)] == ["before", "after"] and store.verify() == []
    assert store.queue.backlog()["embed"][0] == 2


def test_jobs_of_a_killed_worker_are_done_by_the_next(place: Path | str) -> None:
    with open_memory(place, embedder=HashEmbedder(dimension=8)) as memory:
        memory.add([f"turn {n}" for n in range(10)])
        worker = run(
            """
            from support import *
            store = open_store(place_of(sys.argv[2]))
            print(len(store.queue.take("embed", 5)), len(store.queue.take("enrich", 7)), flush=True)
            sys.stdin.readline()
            """,
            place,
        )
        assert said(worker) == "5 7"
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        memory.flush()
        assert memory.status()["backlog"] == {} and len(memory.store.fold("vectors_1", 1)) == 10


# --- side by side ---


def test_a_reader_finds_what_another_process_committed_a_moment_ago(place: Path | str) -> None:
    with open_memory(place, embedder=HashEmbedder()) as memory:
        memory.add("to begin with")
        reader = run(
            """
            from support import *
            with open_memory(place_of(sys.argv[2]), embedder=HashEmbedder()) as memory:
                print("ready", flush=True)
                for line in sys.stdin:
                    print([hit.text for hit in memory.search(line.strip(), k=1)], flush=True)
            """,
            place,
        )
        assert said(reader) == "ready"
        for n in range(60):
            text = f"unique{n}word was said"
            id = memory.add(text).ids[0]
            tell(reader, f"unique{n}word")
            assert said(reader) == str([text])
            if n % 10 == 5:
                memory.correct(id, f"changed{n}word was said")
                tell(reader, f"changed{n}word")
                assert said(reader) == str([f"changed{n}word was said"])
        memory.forget(id)
        tell(reader, "unique59word")
        assert "unique59word" not in said(reader)
        assert reader.communicate()[0] == "" and reader.returncode == 0


def test_readers_do_not_wait_for_a_long_writer(place: Path | str) -> None:
    with open_memory(place) as memory, open_memory(place) as other:
        memory.add("tea with Ben")
        other.search("tea")
        with memory.store.connections.writing("default") as connection:
            connection.execute("UPDATE journal SET reason = reason")
            begin = time.perf_counter()
            for _ in range(20):
                assert len(other.search("tea")) == len(list(other.select())) == 1
                assert len(memory.search("tea")) == 1, "also in the same process"
            assert time.perf_counter() - begin < 2.0


def test_writers_queue_and_none_is_refused(place: Path | str) -> None:
    script = """
    from support import *
    with open_memory(place_of(sys.argv[2]), user=sys.argv[3]) as memory:
        print("ready", flush=True)
        sys.stdin.readline()
        for n in range(40):
            memory.add(f"{sys.argv[3]} said {n}")
            memory.add(f"everybody {sys.argv[3]} {n}", user="everybody")
    """
    open_memory(place).close()
    writers = [run(script, place, f"user{n}") for n in range(4)]
    for writer in writers:
        assert said(writer) == "ready"
    for writer in writers:
        tell(writer, "go")
    assert [writer.wait() for writer in writers] == [0] * 4
    with open_memory(place) as memory:
        assert len(list(memory.select(user="everybody"))) == 160 and memory.store.counts()["memories"] == 320
        assert memory.verify() == []


def test_forgetting_beside_other_writers_destroys_nothing(place: Path | str) -> None:
    script = """
    from support import *
    with open_memory(place_of(sys.argv[2]), user=sys.argv[3]) as memory:
        print("ready", flush=True)
        sys.stdin.readline()
        for n in range(25):
            kept, gone = memory.add([f"{sys.argv[3]} kept {n} " + "x" * (n * 37), f"{sys.argv[3]} gone {n} " + f"{sys.argv[3]}/{n};" * (n * 11)]).ids
            memory.correct(kept, f"{sys.argv[3]} kept {n} for good " + "y" * (n * 53))
            memory.forget(gone).verify()
    """
    open_memory(place).close()
    writers = [run(script, place, f"user{n}") for n in range(3)]
    for writer in writers:
        assert said(writer) == "ready"
    for writer in writers:
        tell(writer, "go")
    assert [writer.wait() for writer in writers] == [0] * 3
    with open_memory(place) as memory:
        assert memory.verify() == [] and memory.store.counts()["memories"] == 75
        if isinstance(place, Path):
            with memory.store.connections.reading() as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_the_log_stays_short_and_no_connection_folds_it_in_beside_writers(folder: Path) -> None:
    """SQLite's own checkpoints run beside writers, where versions up to 3.51.2 can lose pages; ours hold them off."""
    log = folder / "holdfast.db-wal"
    with open_memory(folder) as idle:  # an open program, so that no other one is the last to close
        idle.add("to begin with")
        longest = 0
        for n in range(12):
            store = open_store(folder)
            with store.connections.reader() as connection:
                for one in (connection, store.connections.writer):
                    assert one.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
            for m in range(60):
                add(store, Cube(ANA, f"turn {n} {m} " + "x" * 3000))
                longest = max(longest, log.stat().st_size)
            store.close()
        assert longest < 16 * 2**20
        assert idle.verify() == [] and idle.store.counts()["memories"] == 721


def test_eight_programs_make_one_store_at_the_same_time(folder: Path) -> None:
    """The first start of an agent opens several at once; all find the same new store."""
    script = """
    from pathlib import Path
    from support import *
    sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
    for n in range(4):
        with open_memory(Path(sys.argv[2] + str(n))) as memory:
            memory.add(f"from {sys.argv[3]}")
    """
    programs = [run(script, folder, n) for n in range(8)]
    for program in programs:
        assert said(program) == "ready"
    for program in programs:
        tell(program, "go")
    assert [program.wait() for program in programs] == [0] * 8
    for n in range(4):
        with open_memory(Path(f"{folder}{n}")) as memory:
            assert len(list(memory.select())) == 8 and memory.verify() == []


# --- threads and loops ---


def test_threads_share_one_memory(place: Path | str) -> None:
    troubles: list[BaseException] = []
    with open_memory(place, embedder=HashEmbedder(), background=True) as memory:

        def work(n: int) -> None:
            try:
                for m in range(25):
                    user = f"user{(n + m) % 3}"
                    id = memory.add(f"thread{n} said{m} something", user=user).ids[0]
                    assert id in [hit.id for hit in memory.search(f"thread{n} said{m}", k=30, user=user)]
                    if m % 5 == 0:
                        memory.correct(id, f"thread{n} meant{m} something", user=user)
                    if m % 7 == 0:
                        memory.forget(id, user=user)
                    memory.feedback([], 1.0, user=user)
                    list(memory.select(user=user))
            except BaseException as error:
                troubles.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert troubles == []
        assert memory.store.counts()["memories"] == 6 * 25 - 6 * 4
        memory.flush()
        assert memory.verify() == [] and memory.status()["backlog"] == {}


def test_an_asynchronous_memory_on_several_loops(place: Path | str) -> None:
    memory = AsyncMemory(place, user="ana", embedder=None, encoders=(), durability="normal", background=False)

    async def work(n: int) -> int:
        added = await asyncio.gather(*(memory.add(f"loop{n} task{m}") for m in range(10)))
        assert all(some.ids for some in added)
        assert (await memory.get(added[0].ids[0])).text == f"loop{n} task0"
        assert "loop" in await memory.context(f"loop{n} task3")
        return len(await memory.search(f"loop{n}", k=100))

    assert asyncio.run(work(0)) == 10
    found: list[int] = []
    threads = [threading.Thread(target=lambda n=n: found.append(asyncio.run(work(n)))) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and memory.memory.store.counts()["memories"] == 40
    assert asyncio.run(memory.run(memory.memory.verify)) == []
    asyncio.run(memory.close())


def test_a_call_does_not_block_the_loop(folder: Path) -> None:
    async def work() -> int:
        async with AsyncMemory(folder, user="ana", embedder=None, encoders=(), durability="normal") as memory:
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    await asyncio.sleep(0.01)
                    ticks += 1

            ticking = asyncio.create_task(tick())
            held = memory.memory.store.connections.lock
            started, go = threading.Event(), threading.Event()

            def hold() -> None:
                with held:
                    started.set()
                    go.wait(5)

            holder = threading.Thread(target=hold)
            holder.start()
            started.wait()
            adding = asyncio.create_task(memory.add("while somebody else writes"))
            await asyncio.sleep(0.3)
            assert not adding.done()
            go.set()
            await adding
            holder.join()
            ticking.cancel()
            return ticks

    assert asyncio.run(work()) >= 10


def test_closing_waits_for_the_calls_under_way(place: Path | str) -> None:
    async def work() -> None:
        memory = AsyncMemory(place, user="ana", embedder=None, encoders=(), durability="normal", workers=2)

        def slow() -> bool:
            time.sleep(0.3)
            return bool(memory.memory.add("under way"))

        under_way = asyncio.create_task(memory.run(slow))
        await asyncio.sleep(0.05)
        await memory.close()
        assert await under_way

    asyncio.run(work())


# --- forks ---


def forked(call: object) -> str:
    """What a forked child says, or that it hung."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def body() -> None:
        try:
            send.send(f"returned {call()!r}")  # type: ignore[operator]
        except BaseException as error:
            send.send(f"{type(error).__name__}: {error}")

    child = context.Process(target=body)
    child.start()
    answer = receive.recv() if receive.poll(20) else "hung"
    child.join(5)
    if child.is_alive():
        child.kill()
        answer += ", and did not end"
    return answer


CHILD_CALLS = {
    "add": lambda memory: memory.add("from the child"),
    "search": lambda memory: memory.search("tea"),
    "get": lambda memory: list(memory.select()),
    "flush": lambda memory: memory.flush(),
    "status": lambda memory: memory.status(),
    "forget": lambda memory: memory.forget(everything=True),
    "verify": lambda memory: memory.verify(),
}


@pytest.mark.parametrize("call", CHILD_CALLS)
def test_a_child_may_not_use_its_parents_store(place: Path | str, call: str) -> None:
    with open_memory(place, embedder=HashEmbedder(dimension=8), background=True) as memory:
        memory.add("tea")
        memory.search("tea")
        answer = forked(lambda: CHILD_CALLS[call](memory))
        assert answer.startswith("StoreError") and "forked" in answer and "open it again" in answer
        memory.add("coffee")
        assert texts(memory.search("coffee", k=1)) == ["coffee"] and memory.verify() == []


def test_a_child_may_close_and_end_without_touching_the_parents_files(place: Path | str) -> None:
    with open_memory(place, background=True) as memory:
        memory.add("tea")
        assert forked(memory.close) == "returned None"
        memory.add("coffee")
        assert len(list(memory.select())) == 2 and memory.verify() == []


def test_a_child_that_opens_the_store_itself_loses_nothing_whoever_closes_first(folder: Path) -> None:
    """SQLite's locks do not survive a fork. With a connection carried over, a third program that closes last would take
    the log away from under the child, and what the child commits then would be lost."""
    parent = open_memory(folder)
    parent.add("from the parent")
    list(parent.select())
    opened, go, done = multiprocessing.Event(), multiprocessing.Event(), multiprocessing.Event()

    def body() -> None:
        with open_memory(folder) as mine:
            mine.add("from the child")
            opened.set()
            go.wait(20)
            mine.add("from the child, later")
            done.set()
            time.sleep(0.1)
            os._exit(0)  # without closing

    child = multiprocessing.get_context("fork").Process(target=body)
    child.start()
    assert opened.wait(20)
    parent.close()
    third = run("from pathlib import Path\nfrom support import *\nopen_memory(Path(sys.argv[2])).close()", folder)
    assert third.wait() == 0
    go.set()
    assert done.wait(20)
    child.join(10)
    with open_memory(folder) as memory:
        assert sorted(cube.text for cube in memory.select()) == [
            "from the child",
            "from the child, later",
            "from the parent",
        ]
        assert memory.verify() == []


def test_a_fork_waits_for_a_transaction_of_another_thread(folder: Path) -> None:
    store = open_store(folder)
    started, go = threading.Event(), threading.Event()

    def write() -> None:
        with store.connections.writing() as connection:
            connection.execute("INSERT INTO meta VALUES ('a', 'b')")
            started.set()
            go.wait(10)

    writer = threading.Thread(target=write)
    writer.start()
    started.wait()
    threading.Timer(0.3, go.set).start()
    begin = time.monotonic()
    answer = forked(lambda: open_store(folder).meta("a"))
    assert answer == "returned 'b'" and time.monotonic() - begin >= 0.2
    writer.join()
    assert store.meta("a") == "b"


def test_a_fork_in_the_middle_of_ones_own_transaction_is_refused_in_the_child(folder: Path) -> None:
    store = open_store(folder)
    add(store, Cube(ANA, "tea"))
    with store.connections.reading():
        answer = forked(lambda: open_store(folder).head())
    assert answer.startswith("StoreError") and "spawn" in answer
    with store.connections.writing() as connection:
        connection.execute("INSERT INTO meta VALUES ('a', 'b')")
        assert "spawn" in forked(lambda: open_store(folder).head())
    assert store.meta("a") == "b" and store.verify() == []
    assert forked(lambda: open_store(folder).head()[0]) == "returned 1", "and outside of one it is fine"


def test_many_forks_while_threads_work(place: Path | str) -> None:
    """Neither hangs, whatever the threads are doing at the moment of the fork."""
    with open_memory(place, embedder=HashEmbedder(dimension=8), background=True) as memory:
        done = threading.Event()
        troubles: list[BaseException] = []

        def work(n: int) -> None:
            try:
                m = 0
                while not done.is_set():
                    m += 1
                    memory.add(f"thread{n} turn{m}")
                    memory.search(f"turn{m}")
            except BaseException as error:
                troubles.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()

        def child() -> int:
            with open_memory(place) as mine:
                mine.add(f"from process {os.getpid()}", user="children")
                return len(mine.search("process", user="children"))

        answers = [forked(child) for _ in range(6)]
        done.set()
        for thread in threads:
            thread.join()
        assert troubles == [] and all(answer.startswith("returned") for answer in answers), answers
        assert len(list(memory.select(user="children"))) == 6 and memory.verify() == []


def test_a_fork_of_a_program_without_a_store_costs_nothing() -> None:
    assert forked(lambda: 7) == "returned 7"


def test_spawned_processes_write_side_by_side(folder: Path) -> None:
    """What multiprocessing offers besides fork needs nothing at all."""
    context = multiprocessing.get_context("spawn")
    with open_memory(folder) as memory:
        memory.add("from the parent")
        children = [context.Process(target=write_one, args=(str(folder), n)) for n in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
        assert [child.exitcode for child in children] == [0, 0]
        assert len(list(memory.select())) == 3


def write_one(folder: str, n: int) -> None:
    with Memory(folder, user="ana", embedder=None, background=False) as memory:
        memory.apply([Operation.add(Cube(Scope("default", "ana"), f"from child {n}"))], actor="test")
