"""Moving a store between a folder and a server: nothing is lost, nothing changes, whenever it is cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import main
from holdfast.cube import Channel, Cube, Form, Origin, Scope, Use
from holdfast.errors import InputError, NotFoundError
from holdfast.memory import Memory
from holdfast.store import moving
from holdfast.store.moving import move
from holdfast.store.sql import SqlStore
from support import ANA, BEN, Clock, HashEmbedder, add, open_memory, open_store, texts, update
from test_postgres import _tensor

EVA = Scope("umbrella", "eva", "bot", "s1")


def fill(place: Path | str) -> None:
    """A store in which everything has happened, to several tenants in turn."""
    time = Clock()
    with open_memory(place, embedder=HashEmbedder(), clock=time, tenant="acme") as memory:
        store = memory.store
        for n in range(12):
            time.tick()
            scope = (ANA, BEN, EVA)[n % 3]
            cubes = [
                Cube(scope, f"note {n} of {scope.user} \0 é", origin=Origin(author=f"a{n}")),
                Cube(scope, f"aside {n}"),
            ]
            first, second = add(store, *cubes).cubes
            time.tick()
            if n % 2:
                first = update(store, first, text=f"note {n}, put right")
            add(
                store, Cube(scope, f"drawn from {n}", "fact", origin=Origin(Channel.DERIVED, derived_from=(first.ref,)))
            )
            if n % 4 == 0:
                store.feedback([first.id], scope, 0.5)
            if n % 5 == 0:
                store.purge([second.id], scope, reason="asked to")
        file = store.blobs.put(_tensor(), EVA)
        source = next(store.select(EVA))
        add(
            store,
            Cube(EVA, "", "fact", Form.STATE, file, {}, origin=Origin(Channel.DERIVED, derived_from=(source.ref,))),
        )
        memory.flush()
        store.undo(add(store, Cube(BEN, "said by mistake")).seq, BEN)
        memory.access.enrol("bot")
        memory.access.grant("bot", "acme/ana", ["read"])
        time.tick()
        add(store, Cube(ANA, "not embedded yet"))


def contents(store: SqlStore) -> dict[str, Any]:
    """Everything that can be asked of a store, but for the numbers that its journals give."""
    found: dict[str, Any] = {
        "backlog": store.queue.backlog(),
        "models": store.models(),
        "partitions": store.partitions(),
    }
    for scope in (ANA, BEN, EVA, Scope("@holdfast", "access")):
        home = Scope(scope.tenant, scope.user)
        cubes = list(store.select(home))
        part = store.partition(home)
        assert part is not None
        found[home.path] = {
            "cubes": cubes,
            "versions": [[replace(row, rid=row.rid) for row in store.versions(cube.id, home)] for cube in cubes],
            "events": [
                (e.at, e.actor, e.action, e.id, e.version, e.reason, e.digest) for e in store.events(scope=home)
            ],
            "folds": {table: store.fold(table, part) for table in ("terms", "names", "dates", "vectors_1")},
            "files": [store.blobs.read(cube) for cube in cubes if cube.blob],
        }
    return found


def test_there_and_back_everything_is_as_it_was(folder: Path, database: str, tmp_path: Path) -> None:
    fill(folder)
    first, server, last = open_store(folder), open_store(database), open_store(tmp_path / "back")
    before = contents(first)
    done = move(first, server)
    assert contents(server) == before and server.verify(done.head) == [] and done.before == first.head()
    move(server, last)
    assert contents(last) == before and last.verify() == [] and contents(first) == before
    for store in (server, last):
        kept = next(cube for cube in store.select(ANA) if cube.use != Use())
        assert store.get(kept.id, ANA).use.utility > 0
        gone = [event.id for event in store.events(scope=ANA) if event.action == "purge"]
        for id in gone:
            with pytest.raises(NotFoundError):
                store.get(id, ANA)
        undone = add(store, Cube(BEN, "one more"))
        store.undo(undone.seq, BEN)
        assert store.verify() == []
        store.close()
    for place in (database, tmp_path / "back"):
        with open_memory(place, embedder=HashEmbedder(), tenant="acme") as memory:
            assert memory.flush() is None and texts(memory.search("not embedded yet", k=1)) == ["not embedded yet"]
            assert memory.held_by("bot").search("note", user="ana") and memory.verify() == []


def test_a_move_that_was_killed_goes_on_and_brings_what_was_written_since(
    folder: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder)
    script = f"""
        import os, signal
        from pathlib import Path
        from support import *
        from holdfast.store import moving
        moving.STEP = 7
        def killed(done, every):
            if done > every // 2:
                os.kill(os.getpid(), signal.SIGKILL)
        moving.move(open_store(Path({str(folder)!r})), open_store({database!r}), killed)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    gone = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment, check=False)
    assert gone.returncode == -signal.SIGKILL
    source, target = open_store(folder), open_store(database)
    assert 0 < target.counts()["events"] < source.counts()["events"]
    kept = next(source.select(ANA))
    update(source, kept, text="changed while the move lay still")
    source.purge([next(source.select(BEN)).id], BEN)
    monkeypatch.setattr(moving, "STEP", 5)

    def meanwhile(done: int, every: int) -> None:
        if done < every:
            add(source, Cube(ANA, f"written at {done}"))

    move(source, target, meanwhile)
    assert contents(target) == contents(source) and target.verify() == []
    add(source, Cube(EVA, "and once more"))
    move(source, target)
    assert contents(target) == contents(source)
    add(target, Cube(EVA, "the new one is in use"))
    with pytest.raises(InputError, match="written to since"):
        move(source, target)


def test_a_store_is_moved_to_a_place_of_its_own(folder: Path, database: str) -> None:
    with open_memory(folder) as memory:
        memory.add("tea")
    with open_memory(database) as memory:
        memory.add("coffee")
    with pytest.raises(InputError, match="a place of its own"):
        move(open_store(folder), open_store(database))


def test_the_command_moves_and_says_so(folder: Path, database: str, capsys: pytest.CaptureFixture[str]) -> None:
    with open_memory(folder) as memory:
        memory.add("I take my tea with milk")
    assert main(["migrate", str(folder), database]) == 0
    assert "moved 1 event" in capsys.readouterr().out
    at = ["--store", database, "--user", "ana", "--embedder", "none"]
    assert main([*at, "search", "tea"]) == 0 and "milk" in capsys.readouterr().out
    assert main([*at, "add", "and sugar"]) == 0 and main([*at, "doctor"]) == 0 and main([*at, "status"]) == 0
    assert "PostgreSQL" in capsys.readouterr().out
    assert main(["migrate", str(folder / "nothing"), database]) == 1
    with Memory(database, user="ana", embedder=None) as memory:
        assert len(list(memory.select())) == 2
