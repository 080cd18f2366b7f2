"""What only the PostgreSQL store has: walls between tenants, a journal each, a head over all, and a server that may be away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import psycopg
import pytest

from holdfast.cli import main
from holdfast.cube import Cube, Policy, Scope
from holdfast.errors import InputError, NotFoundError, SchemaError, StoreError
from holdfast.memory import Memory
from holdfast.store.access import Access
from holdfast.store.base import Operation
from holdfast.store.engine import WHOLE
from holdfast.store.postgres import PostgresStore
from holdfast.store.sql import SqlStore
from holdfast.store.tables import walls
from server import Server
from support import ANA, HashEmbedder, add, open_memory, open_store, texts

EVA = Scope("umbrella", "eva")
TENANTS = 1_000


@pytest.fixture
def store(database: str) -> PostgresStore:
    opened = open_store(database)
    assert isinstance(opened, PostgresStore)
    return opened


# --- walls ---


def test_no_tenant_of_a_thousand_sees_another(place: Path | str) -> None:
    scopes = [Scope(f"tenant-{n}", "ana") for n in range(TENANTS)]
    store = open_store(place)
    ids = [
        add(store, Cube(scope, f"the word of {scope.tenant} is w{n:04d}")).cubes[0].id for n, scope in enumerate(scopes)
    ]
    with open_memory(place) as memory:
        for n in range(0, TENANTS, 25):
            other = ids[(n + 1) % TENANTS]
            assert [cube.id for cube in store.select(scopes[n])] == [ids[n]]
            assert [event.id for event in store.events(scope=scopes[n])] == [ids[n]]
            assert store.several([other, ids[n]], scopes[n]).keys() == {ids[n]}
            assert texts(memory.search(f"word w{(n + 1) % TENANTS:04d}", tenant=scopes[n].tenant, k=50)) == [
                f"the word of tenant-{n} is w{n:04d}"
            ]
            for call in (store.get, store.versions, store.lineage, lambda id, scope: store.purge([id], scope)):
                with pytest.raises(NotFoundError):
                    call(other, scopes[n])
    assert store.verify() == [] and store.counts()["memories"] == TENANTS
    if isinstance(store, PostgresStore):
        for n in range(0, TENANTS, 50):
            with store.connections.reading(scopes[n].tenant) as connection:
                said = connection.execute("SELECT body FROM cubes").fetchall()
                assert len(said) == 1 and f"w{n:04d}" in said[0][0], "a forgotten WHERE sees nothing of others"
    store.close()


def test_raw_statements_of_a_tenant_reach_no_row_of_another(store: PostgresStore) -> None:
    mine, theirs = add(store, Cube(ANA, "mine")).cubes[0], add(store, Cube(EVA, "theirs")).cubes[0]
    store.blobs.put(_tensor(), EVA)
    with store.connections.reading(WHOLE) as connection:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = 'holdfast'"
        tables = {name for (name,) in connection.execute(query)}
        walled = "SELECT relname FROM pg_class WHERE relrowsecurity AND relnamespace = 'holdfast'::regnamespace"
        assert tables - {name for (name,) in connection.execute(walled)} == {"models", "anchors", "version"}
    with store.connections.reading("acme") as connection:
        for table in tables - {"models", "anchors", "version"}:
            count = connection.execute(f"SELECT count(*) FROM {table} WHERE tenant NOT IN ('acme', '')").fetchone()
            assert count == (0,), table
    for table in ("anchors", "version"):
        with pytest.raises(StoreError, match="may not"), store.connections.reading("acme") as connection:
            connection.execute(f"SELECT * FROM {table}")
    for statement in (
        "UPDATE cubes SET body = 'taken'",
        "DELETE FROM journal",
        "DELETE FROM files",
        "UPDATE heads SET seq = 99",
    ):
        with pytest.raises(ZeroDivisionError), store.connections.writing("acme") as connection:
            connection.execute(statement)
            with pytest.raises(ZeroDivisionError), store.connections.reading("umbrella") as other:
                assert "theirs" in other.execute("SELECT body FROM cubes").fetchone()[0]
                1 / 0  # noqa: B018
            1 / 0  # noqa: B018
    with pytest.raises(StoreError), store.connections.writing("acme") as connection:
        connection.execute("INSERT INTO tombstones (id, seq, tenant) VALUES (?, 1, 'umbrella')", (b"0" * 16,))
    with pytest.raises(StoreError), store.connections.writing("acme") as connection:
        connection.execute("UPDATE cubes SET tenant = 'umbrella'")
    with store.connections.writing("acme") as connection:
        assert connection.execute("DELETE FROM uses").rowcount == 0
        assert connection.execute("UPDATE cubes SET trust = trust").rowcount == 1
    assert store.get(mine.id, ANA) == mine and store.get(theirs.id, EVA) == theirs and store.verify() == []


@pytest.mark.parametrize(
    "tenant", ["", "\0", "it's", 'a"b', "a\\'b", "'; DROP TABLE cubes; --", "%s $1 ?", "acme/ana", "ünï"]
)
def test_a_hostile_name_is_a_name(store: PostgresStore, tenant: str) -> None:
    if tenant in ("", "\0"):  # what stands for the owner is nobody's name
        with pytest.raises(Exception, match="tenant"):
            Scope(tenant, "ana")
        return
    scope = Scope(tenant, "ana")
    add(store, Cube(ANA, "tea"))
    kept = add(store, Cube(scope, "coffee")).cubes
    assert list(store.select(scope)) == list(kept) and store.connections.chains() == sorted(["acme", tenant])
    assert store.verify() == []


@pytest.mark.parametrize("text", ["\0", "half \ud800", "\udc00 half", "\ud800\U0001f600\udc00", "\\u0000 \\", "\\\0 é"])
def test_what_stands_beside_hostile_words_is_read_as_it_is(place: Path | str, text: str) -> None:
    readers = ("ana", "ünï\n", "a\\u00e9", "\U0001f600")
    opened = open_store(place)
    (kept,) = add(opened, Cube(ANA, text, policy=Policy(readers=readers))).cubes
    part = opened.partition(ANA)
    assert part is not None and json.loads(opened.headers(part)[0][-1]) == list(readers)
    assert list(opened.select(ANA)) == [kept] and opened.verify() == []
    opened.close()


def test_a_commit_is_of_one_tenant(store: PostgresStore) -> None:
    with pytest.raises(InputError, match="one tenant"):
        store.commit([Operation.add(Cube(ANA, "tea")), Operation.add(Cube(EVA, "coffee"))])
    assert store.counts()["memories"] == 0


def _tensor() -> bytes:
    import numpy as np
    from safetensors.numpy import save

    return save({"x": np.zeros(4, np.float32)})


def test_every_key_and_index_leads_with_the_tenant(store: PostgresStore) -> None:
    store.add_model("hash-64", 64)
    query = (
        "SELECT i.indexrelid::regclass::text, a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid AND c.relrowsecurity "
        "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]"
    )
    with store.connections.reading(WHOLE) as connection:
        found = dict(connection.execute(query).fetchall())
    assert len(found) > 20 and set(found.values()) == {"tenant"}, found


def test_tables_that_are_partitioned_by_tenant_serve_as_well(store: PostgresStore, server: Server) -> None:
    """As docs/postgres.md says how to spread tenants over machines; here both parts lie on one."""
    database = store.name.rpartition("/")[2]
    tables = [name for (name,) in server.run(database, "SELECT relname FROM pg_class WHERE relrowsecurity")]
    for table in tables:
        server.run(
            database,
            f"ALTER TABLE holdfast.{table} RENAME TO {table}_before",
            f"CREATE TABLE holdfast.{table} (LIKE holdfast.{table}_before INCLUDING ALL) PARTITION BY HASH (tenant)",
            *(
                f"CREATE TABLE holdfast.{table}_{n} PARTITION OF holdfast.{table} FOR VALUES WITH (MODULUS 2, REMAINDER {n})"
                for n in (0, 1)
            ),
            f"INSERT INTO holdfast.{table} SELECT * FROM holdfast.{table}_before",
            f"DROP TABLE holdfast.{table}_before",
            "SET search_path = holdfast",
            *(f"SET search_path = holdfast; {statement}" for statement in walls(table)),
        )
    store_policy = "CREATE POLICY store ON holdfast.heads FOR SELECT TO holdfast_tenant USING (tenant = '')"
    server.run(database, store_policy)
    scopes = [Scope(f"t{n}", "ana") for n in range(8)]
    with open_memory(server.address(database), embedder=HashEmbedder()) as memory:
        ids = {scope: memory.add(f"tea number {scope.tenant}", tenant=scope.tenant).ids[0] for scope in scopes}
        memory.flush()
        for scope in scopes:
            assert texts(memory.search("tea number", tenant=scope.tenant)) == [f"tea number {scope.tenant}"]
        memory.forget(ids[scopes[0]], tenant="t0").verify()
        assert memory.verify(memory.store.head()) == [] and memory.status()["memories"] == 7
    parts = [server.run(database, f"SELECT count(*) FROM holdfast.cubes_{n}")[0][0] for n in (0, 1)]
    assert min(parts) > 0 and sum(parts) == 7


# --- journals and their head ---


def test_a_head_that_was_noted_proves_every_journal(store: PostgresStore, server: Server) -> None:
    add(store, Cube(ANA, "tea"))
    first = store.head()
    add(store, Cube(EVA, "coffee"))
    access = Access(store)
    access.enrol("bot")
    assert store.verify(access.held_by("bot").head()) == [] and store.head() == access.held_by("bot").head()
    second = store.head()
    assert (first[0], second[0]) == (1, 3) and store.head() == second
    add(store, Cube(EVA, "water"))
    assert store.verify(first) == store.verify(second) == []
    assert store.verify((3, "0" * 64)) and store.verify((1, second[1]))
    database = store.name.rpartition("/")[2]
    server.run(database, "DELETE FROM holdfast.journal WHERE tenant = 'umbrella'",
               "DELETE FROM holdfast.cubes WHERE tenant = 'umbrella'",
               "DELETE FROM holdfast.terms WHERE tenant = 'umbrella'",
               "UPDATE holdfast.heads SET seq = 0, hash = '' WHERE tenant = 'umbrella'")  # fmt: skip
    assert store.verify(first) == [], "what was noted before says nothing of it"
    assert any("noted" in problem.what for problem in store.verify(second))


def test_a_change_that_is_watched_notes_the_journal_and_no_head_of_the_store(
    store: PostgresStore, server: Server
) -> None:
    add(store, Cube(ANA, "tea"))
    add(store, Cube(EVA, "coffee"))
    (event,) = store.events(scope=EVA)
    assert store.journal_head(EVA) == (event.seq, event.hash.hex()) and store.journal_head(Scope("new", "ana"))[0] == 0
    with open_memory(store.connections.url, tenant="acme") as memory:
        memory.add("a canary")
        memory.canary("what is a canary", "a canary")
        memory.add("a watched change")
    assert server.run(store.name.rpartition("/")[2], "SELECT count(*) FROM holdfast.anchors") == [(0,)]


def test_writers_of_a_tenant_queue_and_of_two_do_not_wait(store: PostgresStore) -> None:
    with store.connections.writing("acme") as connection:
        connection.execute("UPDATE cubes SET trust = trust")
        add(store, Cube(EVA, "at once"))
        late = threading.Thread(target=lambda: add(store, Cube(ANA, "later")))
        late.start()
        late.join(0.2)
        assert late.is_alive()
    late.join(5)
    assert [cube.text for cube in store.select(ANA)] == ["later"]
    many = [threading.Thread(target=lambda n=n: add(store, Cube(ANA, f"note {n}"))) for n in range(40)]
    for thread in many:
        thread.start()
    for thread in many:
        thread.join()
    assert len(list(store.select(ANA))) == 41 and store.verify() == []


def test_what_was_acknowledged_survives_the_death_of_its_writer(database: str) -> None:
    script = f"""
        from support import *
        with open_memory({database!r}, durability="full") as memory:
            for n in range(1_000_000):
                memory.add(f"note {{n}}")
                print(n, flush=True)
    """
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert writer.stdout is not None
    for _ in range(30):
        last = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    last = max([last, *map(int, writer.stdout.read().split())])
    writer.wait()
    with open_memory(database) as memory:
        there = {cube.text for cube in memory.select()}
        assert {f"note {n}" for n in range(last + 1)} <= there and memory.verify() == []
        assert memory.add("the next").ids, "no lock of the dead one is left"


def test_two_workers_take_no_job_twice(database: str) -> None:
    one, two = open_store(database), open_store(database)
    for n in range(60):
        add(one, Cube(Scope(f"t{n % 7}", "ana"), f"note {n}"))
    taken: list[int] = []

    def work(store: SqlStore) -> None:
        while some := store.queue.take("enrich", 9):
            taken.extend(some)

    threads = [threading.Thread(target=work, args=(store,)) for store in (one, two) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 60


# --- what goes wrong ---


def test_what_is_wrong_with_the_server_is_said_with_advice(server: Server, database: str, tmp_path: Path) -> None:
    host = f"?host={server.address('x').partition('?host=')[2]}"
    for address, error, advice in (
        (f"postgresql://postgres@/?host={tmp_path}", StoreError, "cannot be reached"),
        (f"postgresql://postgres@/nowhere{host}", StoreError, "createdb"),
        (f"postgresql://nobody@/postgres{host}", StoreError, "let this user in"),
        ("postgresql://a:b:c@[x/", InputError, "postgresql://user@host"),
    ):
        with pytest.raises(error, match=advice):
            Memory(address, user="ana", embedder=None)
    server.run(database.partition("?")[0].rpartition("/")[2], "UPDATE holdfast.version SET version = 99")
    with pytest.raises(SchemaError, match="upgrade"):
        open_store(database)
    secret = "postgresql://postgres:hunter2@127.0.0.1:1/x"
    with pytest.raises(StoreError) as told:
        open_store(secret)
    assert "hunter2" not in str(told.value)


def test_what_only_reads_makes_no_store_in_a_mistyped_database(
    server: Server, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.run("postgres", "CREATE DATABASE mistyped")
    address = server.address("mistyped")
    try:
        for command in (["search", "tea"], ["status"], ["doctor"]):
            assert main(["--store", address, "--user", "ana", "--embedder", "none", *command]) == 1
            assert "there is no store at postgresql://" in capsys.readouterr().err
        assert main(["migrate", address, str(folder)]) == 1 and not folder.exists()
        assert server.run("mistyped", "SELECT to_regnamespace('holdfast')") == [(None,)]
        capsys.readouterr()
        add_tea = ["--store", address, "--user", "ana", "--embedder", "none", "add", "tea"]
        assert main(add_tea) == 0 and "made a new store at postgresql://" in capsys.readouterr().err
        assert main(add_tea) == 0 and "made a new store" not in capsys.readouterr().err
    finally:
        server.run("postgres", "DROP DATABASE mistyped WITH (FORCE)")


def test_a_schema_that_is_not_ours_is_left_alone(server: Server) -> None:
    server.run("postgres", "CREATE DATABASE foreign_schema")
    server.run("foreign_schema", "CREATE SCHEMA holdfast", "CREATE TABLE holdfast.mine (x int)")
    with pytest.raises(SchemaError, match="no Holdfast store"):
        open_store(server.address("foreign_schema"))
    server.run("postgres", "DROP DATABASE foreign_schema WITH (FORCE)")


def test_a_connection_that_the_server_dropped_is_made_anew(store: PostgresStore, server: Server) -> None:
    add(store, Cube(ANA, "tea"))
    server.run("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'holdfast'")
    assert [cube.text for cube in store.select(ANA)] == ["tea"]
    assert add(store, Cube(ANA, "coffee")).seq == 2


def test_an_ordinary_user_can_own_a_store(server: Server, database: str) -> None:
    server.run("postgres", "CREATE ROLE shop LOGIN", "CREATE DATABASE shop OWNER shop")
    try:
        with pytest.raises(StoreError, match="administrator"):
            open_store(server.address("shop", "shop"))
        server.run("postgres", "GRANT holdfast_tenant TO shop")
        store = open_store(server.address("shop", "shop"))
        kept = add(store, Cube(ANA, "tea")).cubes
        add(store, Cube(EVA, "coffee"))
        assert list(store.select(ANA)) == list(kept) and store.verify(store.head()) == []
        store.close()
        with psycopg.connect(server.address("shop", "shop")) as connection:
            connection.execute("SET ROLE holdfast_tenant")
            with pytest.raises(psycopg.Error):
                connection.execute("SELECT count(*) FROM holdfast.cubes").fetchone()
    finally:
        server.run("postgres", "DROP DATABASE shop WITH (FORCE)", "DROP ROLE shop")


def test_an_address_that_was_made_a_path_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="as a string"):
        Memory(Path("postgresql://postgres@/memories"))
    assert not list(tmp_path.iterdir())


def test_jobs_of_a_partition_that_is_not_there_hold_up_nobody(store: PostgresStore, server: Server) -> None:
    add(store, Cube(ANA, "tea"))
    jobs = "INSERT INTO holdfast.jobs (task, rid, tenant) VALUES ('enrich', 7, 'acme'), ('enrich', 8, 'acme')"
    server.run(store.name.rpartition("/")[2], jobs)
    assert len(store.queue.take("enrich", 1)) == 1 and store.queue.take("enrich", 9) == []
