"""A store behind PgBouncer, which carries each transaction to whichever session is free."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from server import Server
from support import open_memory

SESSIONS = 2
"""So few that callers take turns with each."""


@pytest.fixture
def pooled(server: Server, database: str) -> Iterator[str]:
    """The address of a fresh database, through a pooler."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        message = "PgBouncer is not installed here (Debian: the package pgbouncer)"
        (pytest.fail if os.environ.get("HOLDFAST_POSTGRES") == "required" else pytest.skip)(message)
    socket = database.partition("?host=")[2]
    with tempfile.TemporaryDirectory(prefix="pgb-", dir="/tmp") as made:
        home = Path(made)
        (home / "users").write_text('"postgres" ""\n')
        settings = {
            "listen_addr": "", "listen_port": "6432", "unix_socket_dir": home, "auth_type": "trust", "auth_file": home / "users",
            "pool_mode": "transaction", "default_pool_size": SESSIONS, "max_client_conn": 200,
        }  # fmt: skip
        if os.geteuid() == 0:  # it refuses to run as root
            owner = Path(socket).owner()
            settings["user"] = owner
            shutil.chown(home, owner)
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (home / "settings.ini").write_text(f"[databases]\n* = host={socket}\n[pgbouncer]\n{lines}")
        with (home / "log").open("w") as log:
            pooler = subprocess.Popen([program, str(home / "settings.ini")], stdout=log, stderr=log)
        try:
            ends = time.monotonic() + 20
            while not (home / ".s.PGSQL.6432").exists():
                assert pooler.poll() is None and time.monotonic() < ends, (home / "log").read_text()
                time.sleep(0.02)
            yield f"{database.partition('?')[0]}?host={home}&port=6432"
        finally:
            pooler.terminate()
            pooler.wait(20)


def test_many_callers_share_few_sessions_and_lose_nothing(pooled: str, database: str) -> None:
    def talk(who: int) -> list[str]:
        with open_memory(pooled, user=f"u{who}", tenant=f"t{who % 3}", embedder=None) as memory:
            for number in range(12):  # what is asked often would be prepared in one session, and asked for in another
                memory.add(f"note {number} of {who} about tea")
                memory.search("tea", k=3)
            (first, *_) = memory.page(limit=100).cubes
            memory.correct(first.id, "coffee after all")
            memory.flush()
            return [hit.text for hit in memory.search("coffee", k=1)]

    with ThreadPoolExecutor(8) as callers:
        assert list(callers.map(talk, range(8))) == [["coffee after all"]] * 8
    with open_memory(pooled, user="u3", tenant="t0") as memory:
        assert memory.tally(back=1)[0] == 12 and memory.verify() == []
        gone = memory.search("coffee", k=1)[0].id
        memory.forget(gone).verify()
    with open_memory(database, user="u3", tenant="t0") as memory:
        assert memory.tally(back=1)[0] == 11


def test_the_pooler_of_this_test_does_mix_sessions(pooled: str) -> None:
    """The control: what is prepared, as it is by default, is not found again."""
    unknown = psycopg.errors.DuplicatePreparedStatement, psycopg.errors.InvalidSqlStatementName
    with (
        psycopg.connect(pooled, autocommit=True) as one,
        psycopg.connect(pooled, autocommit=True) as other,
        pytest.raises(unknown),
    ):
        for _ in range(20):
            for connection in (one, other):
                connection.execute("SELECT %s::int", (1,))
