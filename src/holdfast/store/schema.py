"""The tables of the embedded store, and how an older file becomes a newer one.

Forward only, one step a version, each in its own transaction, after a backup of the whole file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from holdfast.cube import EXTERNAL
from holdfast.errors import SchemaError, StoreError

APPLICATION_ID = 0x486F6C64  # "Hold": lets a program tell our file from any other SQLite database

# A row's number is partition << 32 | n. So everything of one partition lies together on disk, a scope is read with one
# range scan, and n is a dense index into the arrays that searches run over.
PARTITION_BITS = 32

_V1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE partitions (
  no INTEGER PRIMARY KEY,
  path TEXT NOT NULL UNIQUE,      -- tenant/user, percent-escaped
  next INTEGER NOT NULL           -- the next n: numbers are never used twice, not even after a purge
);

CREATE TABLE journal (
  seq INTEGER PRIMARY KEY,
  txn INTEGER NOT NULL,
  at INTEGER NOT NULL,            -- microseconds, never decreasing, even when the clock is set back
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  part INTEGER NOT NULL,
  id BLOB NOT NULL,
  version INTEGER NOT NULL,
  reason TEXT NOT NULL,
  digest BLOB NOT NULL,
  hash BLOB NOT NULL
);
CREATE INDEX journal_part ON journal (part, seq);
CREATE INDEX journal_id ON journal (id, seq);

CREATE TABLE cubes (              -- one row a version; known_to is NULL for the current one
  rid INTEGER PRIMARY KEY,
  id BLOB NOT NULL,
  version INTEGER NOT NULL,
  seq INTEGER NOT NULL,           -- the event that made this version
  known_from INTEGER NOT NULL,
  known_to INTEGER,
  valid_from INTEGER,
  valid_to INTEGER,
  expires_at INTEGER,
  kind TEXT NOT NULL,
  status TEXT NOT NULL,
  agent TEXT,
  session TEXT,
  author TEXT,
  source TEXT,
  trust REAL NOT NULL,
  key BLOB,                       -- content key; NULL once the version may be added again
  salt BLOB NOT NULL,
  body TEXT NOT NULL              -- the whole cube as JSON, defaults left out
);
CREATE UNIQUE INDEX cubes_id ON cubes (id, version);
CREATE UNIQUE INDEX cubes_key ON cubes (key) WHERE key IS NOT NULL;
CREATE INDEX cubes_source ON cubes (source) WHERE source IS NOT NULL;
CREATE INDEX cubes_expiry ON cubes (expires_at) WHERE expires_at IS NOT NULL AND known_to IS NULL;

CREATE TABLE links (              -- lineage: child was made from parent
  child BLOB NOT NULL, child_version INTEGER NOT NULL,
  parent BLOB NOT NULL, parent_version INTEGER NOT NULL,
  PRIMARY KEY (parent, child, parent_version, child_version)
) WITHOUT ROWID;
CREATE INDEX links_child ON links (child);

CREATE TABLE uses (               -- what feedback has said: a fold over the journal's feedback events
  id BLOB PRIMARY KEY, visits INTEGER NOT NULL, last_use INTEGER, utility REAL NOT NULL, uncertainty REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE tombstones (id BLOB PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE terms (rid INTEGER PRIMARY KEY, body BLOB NOT NULL);      -- lexical fold, same transaction as the row
CREATE TABLE names (rid INTEGER PRIMARY KEY, body BLOB NOT NULL);      -- people and things, by the enrichment queue
CREATE TABLE dates (rid INTEGER PRIMARY KEY, body BLOB NOT NULL);      -- times that the text speaks of, likewise

CREATE TABLE models (no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, dimension INTEGER NOT NULL, active INTEGER NOT NULL);

CREATE TABLE jobs (               -- what is still owed to a row; a row with no job is fully enriched
  task TEXT NOT NULL, rid INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, not_before INTEGER NOT NULL DEFAULT 0, error TEXT,
  PRIMARY KEY (task, rid)
) WITHOUT ROWID;
CREATE INDEX jobs_due ON jobs (task, not_before);

CREATE TABLE arrivals (           -- folds that came after their rows, so that other processes can catch up
  n INTEGER PRIMARY KEY AUTOINCREMENT, part INTEGER NOT NULL, fold TEXT NOT NULL, rids BLOB NOT NULL
);
CREATE INDEX arrivals_part ON arrivals (part, n);
"""


def _create(connection: sqlite3.Connection) -> None:
    statement = ""
    for line in _V1.splitlines(keepends=True):  # executescript would commit the transaction that we are in
        statement += line.partition("--")[0]
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _keyed_by_source(connection: sqlite3.Connection) -> None:
    """Content keys of what came from outside name its source from now on."""
    from holdfast.store.rows import SELECT, content_key, to_row  # they need this module

    for record in connection.execute(f"{SELECT} WHERE key IS NOT NULL").fetchall():
        cube = to_row(record).cube
        if cube.origin.channel in EXTERNAL:
            connection.execute("UPDATE cubes SET key = ? WHERE rid = ?", (content_key(cube), record[0]))


def _found_by_kind(connection: sqlite3.Connection) -> None:
    """The current memories of a kind are found without a look at all others in their partition, archived ones of the kind too."""
    connection.execute("CREATE INDEX cubes_kind ON cubes (kind, status) WHERE known_to IS NULL")


def _found_by_action(connection: sqlite3.Connection) -> None:
    """Events of a rare kind, such as erasures, are found without a look at all others; adds, the many, pay nothing for that."""
    connection.execute("CREATE INDEX journal_action ON journal (part, action, seq) WHERE action <> 'add'")


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    _create,
    _keyed_by_source,
    _found_by_kind,
    _found_by_action,
)
"""MIGRATIONS[n] takes a file from version n to n + 1."""


_NOTE = """This folder is a Holdfast store. holdfast.db, with its -wal and -shm files while a program uses it, holds the memories.
Copy, move or delete the folder as a whole.
"""


def migrate(connection: sqlite3.Connection, folder: Path) -> None:
    """Bring the open file of a store's folder to the newest version.

    Raises SchemaError for a newer file or a database that is not ours, and StoreError for an empty file where a store has
    been. An existing file is copied to ``backups`` before each step, under the lock that the step is taken with, so that a
    failed upgrade can be taken back by hand.
    """
    newest = len(MIGRATIONS)
    found = version(connection)
    new = found == 0  # nothing to keep a copy of
    note = folder / "STORE.txt"
    while found < newest:
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have taken the step while we waited for the lock.
            found = version(connection)
            if found == 0 and note.exists():
                raise StoreError(
                    f"{folder} held a store, and its file holdfast.db is empty or missing; nothing was changed. Put back a "
                    "copy of the folder or a file from its folder 'backups', or delete the folder to begin anew"
                )
            if found < newest:
                if not new:
                    with closing(
                        sqlite3.connect(folder / "holdfast.db")
                    ) as reading:  # the writing one cannot be copied
                        backup(reading, folder / "backups" / f"schema-{found}.db")
                MIGRATIONS[found](connection)
                found += 1
                connection.execute(f"PRAGMA user_version = {found}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    if not note.exists():
        with suppress(OSError):  # a convenience: a store that can be read but not written is still a store
            note.write_text(_NOTE)


def backup(connection: sqlite3.Connection, target: Path) -> None:
    """Write a consistent copy of an open database, while others read and write it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with closing(sqlite3.connect(partial)) as copy:
        connection.backup(copy)
    partial.replace(target)


def version(connection: sqlite3.Connection) -> int:
    """The schema version of a file, 0 for one with nothing in it yet. Raises SchemaError where we must not touch it."""
    # In one statement, so that what another process is creating right now is seen whole or not at all.
    found, application, tables = connection.execute(
        "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master) "
        "FROM pragma_user_version, pragma_application_id"
    ).fetchone()
    if found < 0 or (tables and application != APPLICATION_ID):
        raise SchemaError("this SQLite file is not a Holdfast store; give the path of a new or a Holdfast folder")
    if found > len(MIGRATIONS):
        raise SchemaError(
            f"this store has schema {found}, and this Holdfast reads up to {len(MIGRATIONS)}; nothing was changed. "
            "Upgrade with: pip install --upgrade holdfast"
        )
    return int(found)
