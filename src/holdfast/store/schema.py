"""The tables of the embedded store, and how an older file becomes a newer one.

Forward only, one step a version, each in its own transaction, after a backup of the whole file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from holdfast.errors import SchemaError

APPLICATION_ID = 0x486F6C64  # "Hold": lets a program tell our file from any other SQLite database
VERSION = 1

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


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_create,)
"""MIGRATIONS[n] takes a file from version n to n + 1."""


def migrate(connection: sqlite3.Connection, backups: Path) -> int:
    """Bring an open file to the newest version; return the version it had.

    Raises SchemaError for a newer file, or for a database that is not ours. An existing file is copied to ``backups``
    before the first step, so that a failed upgrade can be taken back by hand.
    """
    newest = len(MIGRATIONS)
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > newest:
        raise SchemaError(
            f"this store has schema {found}, and this Holdfast reads up to {newest}; nothing was changed. "
            "Upgrade with: pip install --upgrade holdfast"
        )
    if found == newest:
        _refuse_foreign(connection)
        return found
    if found == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise SchemaError("this SQLite file is not a Holdfast store; give the path of a new or a Holdfast folder")
    if found:
        _refuse_foreign(connection)
        backup(connection, backups / f"schema-{found}.db")
    for version in range(found, newest):
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have taken the step while we waited for the lock.
            if connection.execute("PRAGMA user_version").fetchone()[0] == version:
                MIGRATIONS[version](connection)
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    return found


def backup(connection: sqlite3.Connection, target: Path) -> None:
    """Write a consistent copy of an open database, while others read and write it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    copy = sqlite3.connect(partial)
    try:
        connection.backup(copy)
    finally:
        copy.close()
    partial.replace(target)


def _refuse_foreign(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise SchemaError("this SQLite file is not a Holdfast store; give the path of a new or a Holdfast folder")
