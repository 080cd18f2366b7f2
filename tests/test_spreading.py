"""A store whose tables are spread over several real servers, as docs/postgres.md says how; one of them may die."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from holdfast.cube import Cube, Scope
from holdfast.errors import StoreError
from holdfast.retrieve.text import ANALYSER
from holdfast.store.base import Operation
from holdfast.store.doctor import examine
from holdfast.store.postgres import PostgresStore
from holdfast.store.sql import SqlStore
from server import Foreign
from support import HashEmbedder, add, open_memory, open_store, texts

HERE, THERE, ALSO = (Scope(tenant, "ana") for tenant in ("acme", "umbrella", "initech"))
PAGE = (Path(__file__).parents[1] / "docs/postgres.md").read_text().partition("## Many machines")[2]
RECIPE = re.findall(r"^```sql\n(.*?)^```", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Foreign, Foreign]]:
    """Two servers, the first of which can read tables of the second."""
    programs = Foreign.found()
    if programs is None:
        message = "no PostgreSQL with postgres_fdw is installed here (Debian: the package postgresql)"
        (pytest.fail if os.environ.get("HOLDFAST_POSTGRES") == "required" else pytest.skip)(message)
    both = Foreign(programs), Foreign(programs)
    yield both
    for one in both:
        one.stop()


@pytest.fixture
def spread(servers: tuple[Foreign, Foreign]) -> Iterator[str]:
    """The address of a store in which one tenant lies on the first server, and two that have memories on the second."""
    first, second = servers
    for one in servers:
        one.run("postgres", "DROP DATABASE IF EXISTS memories WITH (FORCE)", "CREATE DATABASE memories")
    second.run("postgres", "DROP ROLE IF EXISTS me, holdfast_tenant", "CREATE ROLE me LOGIN PASSWORD 'secret'",
               "CREATE ROLE holdfast_tenant NOLOGIN", "ALTER DATABASE memories OWNER TO me")  # fmt: skip
    with open_memory(first.address("memories"), embedder=HashEmbedder()) as memory:
        for scope in (HERE, THERE, ALSO):
            memory.add(f"the tea of {scope.tenant} came first", tenant=scope.tenant)
        memory.flush()
    second.copy_tables(first.address("memories"), second.address("memories", "me", "secret"))
    for block in RECIPE:
        first.run("memories", block.replace("second.internal", second.host))
    yield first.address("memories")


def test_a_spread_store_serves(spread: str, servers: tuple[Foreign, Foreign]) -> None:
    first, second = servers
    with open_memory(spread, embedder=HashEmbedder()) as memory:
        for scope in (HERE, THERE, ALSO):
            tenant = scope.tenant
            kept = memory.add(f"the coffee of {tenant} is strong", tenant=tenant).ids[0]
            gone = memory.add(f"the secret of {tenant} is plum", tenant=tenant).ids[0]
            memory.flush()
            assert texts(memory.search("strong coffee", tenant=tenant))[0] == f"the coffee of {tenant} is strong"
            receipt = memory.forget(gone, tenant=tenant)
            receipt.verify()
            assert any("other servers (second)" in line for line in receipt.notes)
            assert not any("plum" in text for text in texts(memory.search("plum", k=50, tenant=tenant)))
            assert [event.action for event in memory.store.events(scope=scope, id=gone)] == ["add", "purge"]
            for n in range(2):  # what is there already is changed, what is not is made
                memory.store.feedback([kept], scope, 1.0)
                assert memory.store.get(kept, scope).use.visits == n + 1
            changed = memory.store.commit([Operation.update(memory.store.get(kept, scope).with_(text="it is weak"))])
            memory.store.undo(changed.seq, scope)
            assert memory.store.get(kept, scope).text == f"the coffee of {tenant} is strong"
            name = memory.store.blobs.put(tensor(), scope)
            assert memory.store.blobs.put(tensor(), scope) == name and memory.store.blobs.named(name, scope) == tensor()
        memory.flush()
        assert memory.status()["memories"] == 6 and memory.status()["backlog"] == {}
        heads = [memory.store.head()]
        memory.add("one more", tenant=THERE.tenant)
        heads += [memory.store.head(), memory.store.head()]
        assert heads[0] != heads[1] == heads[2] and all(memory.store.verify(head) == [] for head in heads)
        wrong = [finding.check for finding in examine(memory.store, analyser=ANALYSER) if finding.level == "wrong"]
        assert wrong == ["blobs"], "tensor files that no memory names"
    for table, mine, theirs in (("cubes", 4, 9), ("uses", 1, 2), ("tombstones", 1, 2), ("files", 1, 2)):
        assert first.run("memories", f"SELECT count(*) FROM holdfast.{table}_here") == [(mine,)], table
        assert second.run("memories", f"SELECT count(*) FROM holdfast.{table}") == [(theirs,)], table


def test_the_walls_stand_between_tenants_of_one_server_and_of_two(spread: str) -> None:
    store = open_store(spread)
    assert isinstance(store, PostgresStore)
    for _ in range(8):  # a plan that was kept would be the first tenant's
        for scope in (HERE, THERE, ALSO):
            with store.connections.reading(scope.tenant) as connection:
                for table in ("cubes", "journal", "terms", "partitions", "vectors_1"):
                    query = f"SELECT DISTINCT tenant FROM {table}"
                    assert connection.execute(query).fetchall() == [(scope.tenant,)], table
    with pytest.raises(ZeroDivisionError), store.connections.writing(THERE.tenant) as connection:
        assert connection.execute("DELETE FROM cubes").rowcount == 1
        1 / 0  # noqa: B018
    for other in (HERE.tenant, ALSO.tenant):
        for statement in ("INSERT INTO tombstones (id, seq, tenant) VALUES ('x', 1, ?)", "UPDATE cubes SET tenant = ?"):
            with pytest.raises(StoreError), store.connections.writing(THERE.tenant) as connection:
                connection.execute(statement, (other,))
    assert store.counts()["memories"] == 3 and store.verify() == []
    store.close()


def test_many_write_to_a_tenant_of_another_server_and_many_take_its_jobs(spread: str) -> None:
    one, two = open_store(spread), open_store(spread)
    writers = [threading.Thread(target=add, args=((one, two)[n % 2], Cube(THERE, f"note {n}"))) for n in range(20)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    assert len(list(one.select(THERE))) == 21 and one.verify() == []
    taken: list[int] = []

    def work(store: SqlStore) -> None:
        while some := store.queue.take("enrich", 4):
            taken.extend(some)

    workers = [threading.Thread(target=work, args=(store,)) for store in (one, two) * 2]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    assert len(taken) == len(set(taken)) == 20
    one.queue.postpone("enrich", taken, "it failed")
    one.queue.retry()
    assert len(one.queue.take("enrich", 8)) == 4, "those that failed are taken in smaller batches"
    one.close()
    two.close()


def test_while_a_server_is_away_the_tenants_of_the_others_go_on(spread: str, servers: tuple[Foreign, Foreign]) -> None:
    _, second = servers
    with open_memory(spread, embedder=HashEmbedder()) as memory:
        acknowledged: list[str] = []

        def write() -> None:
            with suppress(StoreError):
                while True:
                    acknowledged.extend(memory.add(f"kept {len(acknowledged)}", tenant=THERE.tenant).ids)

        writer = threading.Thread(target=write)
        writer.start()
        while len(acknowledged) < 10:
            time.sleep(0.001)
        second.kill()
        writer.join()
        try:
            for opened in (memory, open_memory(spread, embedder=HashEmbedder())):
                id = opened.add("rain on the first server", tenant=HERE.tenant).ids[0]
                assert opened.search("rain", tenant=HERE.tenant)[0].id == id
                assert opened.store.versions(id, HERE) and list(opened.store.events(scope=HERE))
                opened.forget(id, tenant=HERE.tenant)
                with pytest.raises(StoreError, match="another server"):
                    opened.search("kept", tenant=THERE.tenant)
                with pytest.raises(StoreError, match="another server"):
                    opened.add("lost", tenant=ALSO.tenant)
            opened.close()
        finally:
            second.start()
        assert {cube.id for cube in memory.store.select(THERE)} >= set(acknowledged)
        assert memory.add("it is back", tenant=ALSO.tenant).ids and memory.verify() == []


def tensor() -> bytes:
    return save({"x": np.zeros(4, np.float32)})
