"""Vectors of large scopes where the server searches them: the same hits as from this process's memory, and nothing of them here."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from holdfast.as_of import AsOf
from holdfast.cube import Scope
from holdfast.memory import Memory
from holdfast.retrieve import partition as partitions
from holdfast.retrieve import pgvectors
from holdfast.retrieve.fusion import POOL
from holdfast.retrieve.pgvectors import StoredVectors
from holdfast.retrieve.text import ANALYSER, fold_terms
from holdfast.retrieve.vectors import VectorIndex
from holdfast.store import nearest
from holdfast.store.base import Operation
from holdfast.store.doctor import examine, mend
from holdfast.store.moving import move
from holdfast.store.postgres import PostgresStore
from server import Server
from support import ANA, START, Clock, HashEmbedder, open_memory, open_store, texts

ROWS = 3 * POOL
WORDS = ("tea", "ship", "lamp", "rain", "note", "song", "dog", "road")


def sentence(n: int) -> str:
    return " ".join(f"{word}{n * (5 + at) % (7 + 3 * at)}" for at, word in enumerate(WORDS)) + f" {n}"


@pytest.fixture
def searching(server: Server, database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database whose server searches the vectors of every scope that is larger than a pool."""
    server.run(name_of(database), "CREATE EXTENSION vector")
    monkeypatch.setattr(partitions, "HELD_ROWS", POOL)
    return database


def name_of(database: str) -> str:
    return database.partition("?")[0].rpartition("/")[2]


def fill(memory: Memory, count: int = ROWS, start: int = 0, **scope: str) -> list[str]:
    ids = [memory.add(sentence(n), **scope).ids[0] for n in range(start, start + count)]
    memory.flush()
    return ids


def index_of(memory: Memory, scope: Scope = ANA) -> object:
    no = memory.store.partition(scope)
    assert no is not None
    return memory.recall.partition(no).vectors


def asked(memory: Memory | AsOf, **how: str) -> list[tuple[str, float]]:
    return [
        (hit.text, round(hit.relevance, 3)) for n in range(4) for hit in memory.search(sentence(7 * n)[:40], k=9, **how)
    ]


def test_the_server_finds_what_the_process_finds(searching: str, folder: Path) -> None:
    clock = Clock()
    found = []
    for place in (searching, folder):
        clock.at = START
        with open_memory(place, embedder=HashEmbedder(), clock=clock, tenant="acme") as memory:
            ids = fill(memory, agent="one")
            fill(memory, 60, ROWS, agent="two")
            clock.tick(60)
            before = clock.at - timedelta(seconds=30)
            changed = memory.store.get(ids[7], Scope("acme", "ana", "one")).with_(text="tea1 of another kind")
            memory.store.commit([Operation.update(changed)])
            memory.forget(ids[14])
            long = memory.add(
                ". ".join([*map(sentence, range(900, 915)), "The harbour of Zanzibar is closed", sentence(915)])
            )
            memory.flush()
            some = [asked(memory), asked(memory, agent="two"), asked(memory.as_of(before))]
            best = memory.search("the harbour of Zanzibar", k=1)[0]
            assert best.id == long.ids[0] and "passage" in best.channels
            some.append([(best.text, round(best.channels["passage"], 3))])
            found.append(some)
            kind = StoredVectors if place == searching else VectorIndex
            assert isinstance(index_of(memory), kind) and memory.verify() == []
    assert found[0] == found[1]


def test_a_scope_that_outgrows_the_process_moves_to_the_server(searching: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "HELD_ROWS", ROWS)
    with open_memory(searching, embedder=HashEmbedder(), tenant="acme") as memory:
        fill(memory)
        before = asked(memory)
        assert isinstance(index_of(memory), VectorIndex)
        fill(memory, 1, ROWS)
        assert memory.search(sentence(ROWS))[0].text == sentence(ROWS) and isinstance(index_of(memory), StoredVectors)
        assert asked(memory)[0][0] == before[0][0]


def test_each_way_of_searching_gives_the_nearest(searching: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_memory(searching, embedder=HashEmbedder(), tenant="acme") as memory:
        fill(memory)
        memory.search("tea1")
        stored = index_of(memory)
        assert isinstance(stored, StoredVectors)
        no = memory.store.partition(ANA)
        folds = memory.store.fold("vectors_1", no)  # type: ignore[arg-type]
        exact = VectorIndex(64)
        exact.put_folds([rid & 0xFFFFFFFF for rid, _ in folds], [body for _, body in folds])
        mask = np.arange(ROWS) % 3 == 0
        for n in range(5):
            query = HashEmbedder().embed([sentence(n)[:30]])[0]
            for allowed in (None, mask, np.zeros(ROWS, np.bool_)):
                want = exact.search(query, 10, allowed)
                for few, mostly in ((2_500, 10), (0, 10**9), (0, 0)):
                    monkeypatch.setattr(pgvectors, "FEW_ROWS", few)
                    monkeypatch.setattr(pgvectors, "MOSTLY", mostly)
                    rows, cosines = stored.search(query, 10, allowed)
                    assert np.allclose(cosines, want[1], atol=2e-3), (few, mostly)
                    assert len(set(rows.tolist()) & set(want[0].tolist())) >= 0.8 * len(want[0])
        assert np.array_equal(stored.vectors(np.arange(ROWS)), exact.vectors(np.arange(ROWS)))


def test_no_tenant_finds_a_vector_of_another(searching: str) -> None:
    with open_memory(searching, embedder=HashEmbedder(), tenant="acme") as memory:
        fill(memory, 120)
        fill(memory, 120, 500, tenant="umbrella")
        query = HashEmbedder().embed([sentence(501)])[0]
        with memory.store.connections.reading("acme") as connection:
            for exactly in (True, False):
                found = nearest.nearest(connection, 1, query, 0, 1 << 62, 1_000, exactly=exactly)
                assert len(found) == 120 and {memory.store.connections.tenant_of(rid >> 32) for rid, _ in found} == {
                    "acme"
                }
            theirs = memory.store.partition(Scope("umbrella", "ana")) << 32  # type: ignore[operator]
            assert nearest.likeness(connection, 1, query, [theirs, theirs + 1]) == []


def test_a_change_of_model_and_a_doctor(searching: str) -> None:
    with open_memory(searching, embedder=HashEmbedder(), tenant="acme") as memory:
        fill(memory)
        memory.reembed(HashEmbedder("other", 32))
        assert texts(memory.search(sentence(3), k=1)) == [sentence(3)] and isinstance(index_of(memory), StoredVectors)
        store = memory.store
        with store.connections.writing("acme") as connection:
            connection.execute("UPDATE vectors_2 SET body = ? WHERE rid % 7 = 0", (b"\xff" * 64,))  # no numbers
            connection.execute("UPDATE vectors_2 SET body = ? WHERE rid % 7 = 1", (b"\0",))
        findings = {finding.check: finding for finding in examine(store, analyser=ANALYSER)}
        assert findings["vectors"].level == "wrong"
        mend(store, list(findings.values()), terms=fold_terms, analyser=ANALYSER)
        memory.flush()
        mended = [finding for finding in examine(store, analyser=ANALYSER) if finding.check == "vectors"]
        assert [finding.level for finding in mended] == ["good", "good"] and "100%" in mended[1].what


def test_a_store_moves_there_and_back(searching: str, folder: Path) -> None:
    with open_memory(folder, embedder=HashEmbedder(), tenant="acme") as memory:
        fill(memory)
        want = asked(memory)
        move(memory.store, (target := open_store(searching)))
        target.close()
    with open_memory(searching, embedder=HashEmbedder(), tenant="acme") as memory:
        assert asked(memory) == want and isinstance(index_of(memory), StoredVectors)
        move(memory.store, (target := open_store(folder.with_name("back.holdfast"))))
        target.close()
    with open_memory(folder.with_name("back.holdfast"), embedder=HashEmbedder(), tenant="acme") as memory:
        assert asked(memory) == want


def test_tables_of_version_one_are_brought_to_two(
    server: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "HELD_ROWS", POOL)
    with open_memory(database, embedder=HashEmbedder(), tenant="acme") as memory:
        fill(memory)
        want = asked(memory)
        assert isinstance(index_of(memory), VectorIndex), "this database has no such extension"
        assert any("extension" in one.what for one in examine(memory.store, analyser=ANALYSER) if one.level == "note")
    name = name_of(database)
    server.run(name, *(f"DROP FUNCTION holdfast.{function}" for function in ("halves", "nearest", "likeness")),
               "UPDATE holdfast.version SET version = 1", "CREATE EXTENSION vector")  # fmt: skip
    with open_memory(database, embedder=HashEmbedder(), tenant="acme") as memory:
        assert asked(memory) == want and isinstance(index_of(memory), StoredVectors)
        assert isinstance(memory.store, PostgresStore) and memory.verify() == []
    assert server.run(name, "SELECT version FROM holdfast.version") == [(2,)]
    assert server.run(name, "SELECT count(*) FROM holdfast.vectors_1 WHERE embedding IS NULL") == [(0,)]


def test_vectors_that_no_graph_takes_stay_in_the_process(searching: str) -> None:
    with open_memory(searching, embedder=HashEmbedder("wide", nearest.MOST_DIMENSIONS + 1), tenant="acme") as memory:
        fill(memory, POOL + 1)
        assert texts(memory.search(sentence(5), k=1)) == [sentence(5)] and isinstance(index_of(memory), VectorIndex)
