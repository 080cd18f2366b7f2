"""Looking a store over, and mending what can be made again: every fold, the queue, SQLite's own indexes.

The journal and the memories are the truth and are never altered here. Where the file itself is damaged, ``salvage`` reads
out what can still be read.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from holdfast.cube import Cube
from holdfast.errors import StoreError
from holdfast.store import nearest
from holdfast.store.connection import refuse_network, translated
from holdfast.store.engine import WHOLE, Database
from holdfast.store.queue import FOLDS
from holdfast.store.rows import UNREADABLE, id_text, stray
from holdfast.store.schema import PARTITION_BITS, backup
from holdfast.store.sql import SqlStore
from holdfast.store.sqlite import SqliteStore

Level = Literal["good", "note", "wrong"]

LOW_DISK = 64 * 2**20
"""With fewer bytes free than this, commits are about to fail."""

LARGE_LOG = 256 * 2**20
"""A write-ahead log larger than this means that some reader never lets go."""

_SHOWN = 5

# The rows that owe a fold: current, of text, with words. Older versions keep what they had.
_OWING = (
    "cubes.known_to IS NULL AND json_extract(cubes.body, '$.form') IS NULL AND json_extract(cubes.body, '$.text') <> ''"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``fix`` says what to do; ``mendable`` means that ``mend`` does it."""

    check: str
    level: Level
    what: str
    fix: str = ""
    mendable: bool = False


def examine(store: SqlStore, *, analyser: str, head: tuple[int, str] | None = None) -> list[Finding]:
    """Check everything about an open store, in order of weight.

    ``analyser`` is the one that this program indexes with; ``head`` a (seq, hash) that was noted earlier elsewhere.
    """
    database = check_database(store)
    if any(finding.level == "wrong" and not finding.mendable for finding in database):
        return [*database, *_place(store)]
    return [
        *database,
        *check_journal(store, head),
        *check_lexical(store, analyser),
        *check_mentions(store),
        *check_vectors(store),
        *check_queue(store),
        *check_blobs(store),
        *_place(store),
    ]


def _place(store: SqlStore) -> list[Finding]:
    return check_place(store.folder) if isinstance(store, SqliteStore) else []  # a server's disk is its administrator's


def check_database(store: SqlStore) -> list[Finding]:
    """SQLite's own check of pages, indexes and constraints; of a server, that it answers, and how much it holds."""
    if not isinstance(store, SqliteStore):
        query = "SELECT current_setting('server_version'), pg_database_size(current_database())"
        with store.connections.reading(WHOLE) as session:
            release, held = session.execute(query).fetchone()
        return [Finding("database", "good", f"PostgreSQL {release} answers ({_size(held)})")]
    try:
        with store.connections.reading(WHOLE) as connection:
            found = [str(line) for (line,) in connection.execute("PRAGMA integrity_check")]
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            size = pages * connection.execute("PRAGMA page_size").fetchone()[0]
    except StoreError as error:
        found, size = [str(error)], 0
    if found == ["ok"]:
        return [Finding("database", "good", f"SQLite finds its file sound ({_size(size)})")]
    indexes_only = all("missing from index" in line or "wrong # of entries in index" in line for line in found)
    fix = "make SQLite's indexes again" if indexes_only else "the file is damaged: read out what can be read"
    return [Finding("database", "wrong", _some(found), fix, mendable=indexes_only)]


def check_journal(store: SqlStore, head: tuple[int, str] | None = None) -> list[Finding]:
    """The hash chain, and every memory, link, tombstone and use against the event that made it."""
    problems = store.verify(head)
    seq, newest = store.head()
    if not problems:
        what = f"chain of {seq} events intact, every memory as it was written; head {seq}:{newest}"
        return [Finding("journal", "good", what)]
    lines = [f"event {problem.seq}: {problem.what}" for problem in problems]
    fix = "something changed the file behind the store's back: compare with a backup or an export from before"
    return [Finding("journal", "wrong", _some(lines), fix)]


def check_lexical(store: SqlStore, analyser: str) -> list[Finding]:
    """That every version has its words in the lexical fold, made by this program's analyser."""
    kept = store.meta("analyser")
    with store.connections.reading(WHOLE) as connection:
        lacking = _count(connection, "SELECT count(*) FROM cubes LEFT JOIN terms USING (rid) WHERE terms.rid IS NULL")
        total = _count(connection, "SELECT count(*) FROM cubes")
        strays = _count(connection, f"SELECT count(*) FROM terms WHERE {stray('terms')}")
    fix = "make the lexical index again"
    if kept != analyser:
        what = f"the lexical index was made by analyser {kept or 'unknown'}, this program uses {analyser}"
        return [Finding("words", "wrong", what, fix, mendable=True)]
    if lacking or strays:
        what = f"{lacking} of {total} versions cannot be found by their words; {strays} index entries belong to nothing"
        return [Finding("words", "wrong", what, fix, mendable=True)]
    return [Finding("words", "good", f"all {total} versions are in the lexical index (analyser {analyser})")]


def check_mentions(store: SqlStore) -> list[Finding]:
    """That every current memory has its names and dates, or a job that will make them."""
    with store.connections.reading(WHOLE) as connection:
        lacking = _count(connection, f"SELECT count(*) FROM cubes WHERE {_OWING} AND {_no_fold('names', 'enrich')}")
        strays = sum(
            _count(connection, f"SELECT count(*) FROM {table} WHERE {stray(table)}") for table in ("names", "dates")
        )
    if lacking or strays:
        what = f"{lacking} memories have neither names nor a job for them; {strays} entries belong to nothing"
        return [Finding("names", "wrong", what, "queue them again", mendable=True)]
    return [Finding("names", "good", "every memory has its names and dates, or waits for them in the queue")]


def check_vectors(store: SqlStore) -> list[Finding]:
    """That every current memory has vectors of the serving model, of the right length, or a job for them."""
    models = store.models()
    serving = next(((no, name, dimension) for no, name, dimension, active in models if active), None)
    if serving is None:
        return [Finding("vectors", "note", "no embedder has served this store yet; search goes by words")]
    no, name, dimension = serving
    with store.connections.reading(WHOLE) as connection:
        table = f"vectors_{no}"
        held = _count(connection, f"SELECT count(*) FROM {table}")
        lacking = _count(connection, f"SELECT count(*) FROM cubes WHERE {_OWING} AND {_no_fold(table, 'embed')}")
        wrong = _count(connection, f"SELECT count(*) FROM {table} WHERE {_malformed(dimension)}")
        strays = _count(connection, f"SELECT count(*) FROM {table} WHERE {stray(table)}")
    if lacking or wrong or strays:
        what = (
            f"{lacking} memories have neither vectors nor a job for them; {wrong} entries are no vectors of {dimension} "
            f"dimensions; {strays} belong to nothing"
        )
        return [Finding("vectors", "wrong", what, "queue them again", mendable=True)]
    findings = [Finding("vectors", "good", f"{held} versions have vectors of {name} ({dimension} dimensions)")]
    if store.connections.searches:
        findings.append(_searching(store, no, dimension))
    others = [other for _, other, _, active in models if not active]
    if others:
        what = f"a change to {', '.join(others)} is not finished; {name} goes on serving"
        findings.append(Finding("vectors", "note", what, f"finish it with: holdfast doctor --reembed {others[0]}"))
    return findings


def _searching(store: SqlStore, no: int, dimension: int) -> Finding:
    """Whether the server searches vectors by itself, and how many of the nearest it finds in the largest scope."""
    with store.connections.reading(WHOLE) as connection:
        there, rows = nearest.able(connection), nearest.searched(connection, no)
        query = f"SELECT rid >> {PARTITION_BITS} AS part FROM vectors_{no} GROUP BY part ORDER BY count(*) DESC LIMIT 1"
        largest = connection.execute(query).fetchone()
    if rows is None or largest is None:
        why = (
            f"its table is spread over servers, or its vectors have more than {nearest.MOST_DIMENSIONS} dimensions"
            if there
            else f"its database has no extension 'vector' of version {nearest.NEWEST} or newer"
        )
        return Finding(
            "vectors", "note", f"programs hold the vectors of what they search: the server cannot, for {why}"
        )
    low = largest[0] << PARTITION_BITS
    with store.connections.reading(store.connections.tenant_of(largest[0])) as connection:
        share = nearest.canary(connection, no, dimension, low, low + (1 << PARTITION_BITS) - 1)
    what = f"the server can search vectors; its graph finds {share:.0%} of the ten nearest in the largest scope"
    return Finding("vectors", "good" if share >= 0.9 else "note", what)


def check_queue(store: SqlStore) -> list[Finding]:
    """What waits, what failed and why, and jobs for rows that are gone."""
    backlog = store.queue.backlog()
    served = any(active for _, _, _, active in store.models())
    with store.connections.reading(WHOLE) as connection:
        strays = _count(connection, f"SELECT count(*) FROM jobs WHERE {stray('jobs')}")
    findings = []
    if strays:
        findings.append(
            Finding("queue", "wrong", f"{strays} jobs are for rows that are gone", "drop them", mendable=True)
        )
    for task, (waiting, failed, error) in sorted(backlog.items()):
        if failed:
            what = f"{task}: {failed} of {waiting} waiting jobs failed; the last error: {error}"
            findings.append(Finding("queue", "wrong", what, "try them again", mendable=True))
        elif task != "embed" or served:
            findings.append(Finding("queue", "note", f"{task}: {waiting} waiting", "work them off", mendable=True))
        else:
            findings.append(Finding("queue", "note", f"{task}: {waiting} waiting for the first embedder"))
    return findings or [Finding("queue", "good", "nothing waits")]


def check_blobs(store: SqlStore) -> list[Finding]:
    """That every tensor file is the one that its memory names, and that none belongs to nothing. Nothing where there are none."""
    owed, stray, bad = store.blobs.strays()
    findings = []
    if owed:
        what = f"{len(owed)} tensor files of forgotten memories are still to be deleted"
        findings.append(Finding("blobs", "wrong", what, "delete them", mendable=True))
    if stray:
        what = f"{len(stray)} tensor files belong to no memory, the first {stray[0]}"
        findings.append(Finding("blobs", "wrong", what, "delete them", mendable=True))
    if bad:
        what = f"{len(bad)} tensor files are missing or not what they were, the first {bad[0]}"
        fix = "put back a copy of the folder 'blobs', or make them anew from what they were made from"
        findings.append(Finding("blobs", "wrong", what, fix))
    if not findings and (held := len({kept.name for kept in store.blobs.held()})):
        findings.append(Finding("blobs", "good", f"all {held} tensor files are what their memories name"))
    return findings


def check_place(folder: Path) -> list[Finding]:
    """The disk and its file system, the write-ahead log, and the backups that lie here."""
    findings = []
    try:
        refuse_network(folder)
        findings.append(Finding("place", "good", "a local file system, whose locks can be trusted"))
    except StoreError as error:
        findings.append(Finding("place", "wrong", str(error), "move the folder to a local disk"))
    free = shutil.disk_usage(folder).free
    file, log = folder / "holdfast.db", folder / "holdfast.db-wal"
    size = file.stat().st_size if file.exists() else 0
    if free < LOW_DISK:
        what = f"only {_size(free)} are free, and the store holds {_size(size)}"
        findings.append(Finding("disk", "wrong", what, "free space: a commit that does not fit is refused"))
    else:
        findings.append(Finding("disk", "good", f"{_size(free)} free"))
    if log.exists() and log.stat().st_size > LARGE_LOG:
        what = f"the write-ahead log has grown to {_size(log.stat().st_size)}"
        findings.append(Finding("disk", "note", what, "close programs that hold the store open"))
    copies = sorted(path.name for path in (folder / "backups").glob("*.db"))
    if copies:
        findings.append(Finding("backups", "note", f"in the folder 'backups': {', '.join(copies)}"))
    return findings


# --- mending ---


def mend(store: SqlStore, findings: Sequence[Finding], *, terms: Callable[[Cube], bytes], analyser: str) -> list[str]:
    """Mend what was found and can be mended; return what was done, a line each. Memories and journal stay as they are."""
    broken = {finding.check for finding in findings if finding.mendable}
    done = []
    if "database" in broken and isinstance(store, SqliteStore):
        copy = store.folder / "backups" / "before-doctor.db"
        with store.connections.lock, translated(store.connections.file):
            backup(store.connections.writer, copy)
            store.connections.writer.execute("REINDEX")
        done.append(f"made SQLite's indexes again (the file of before is backups/{copy.name})")
    if "words" in broken:
        done.append(f"made the lexical index again: {store.rebuild(terms, analyser)} versions")
    if {"names", "vectors", "queue"} & broken:
        done += _requeue(store)
    if "blobs" in broken:
        done.append(f"deleted {store.blobs.mend()} tensor files that belonged to no memory")
    return done


def _requeue(store: SqlStore) -> list[str]:
    """Drop folds and jobs that belong to nothing or are malformed, and queue every memory that lacks one."""
    models = store.models()
    tables = [(f"vectors_{no}", _malformed(dimension)) for no, _, dimension, _ in models]
    tables += [(table, "1 = 0") for table in FOLDS]
    serving = next((f"vectors_{no}" for no, _, _, active in models if active), None)
    owed = [("names", "enrich")] if serving is None else [("names", "enrich"), (serving, "embed")]
    done: Counter[str] = Counter()
    for tenant in store.connections.chains():
        with store.connections.writing(tenant) as connection:
            for table, malformed in tables:
                statement = f"DELETE FROM {table} WHERE {stray(table)} OR {malformed}"
                what = f"dropped {{}} entries of {table} that belonged to nothing or were malformed"
                done[what] += connection.execute(statement).rowcount
            statement = f"DELETE FROM jobs WHERE {stray('jobs')}"
            done["dropped {} jobs for rows that are gone"] += connection.execute(statement).rowcount
            for table, task in owed:
                statement = (
                    f"INSERT INTO jobs (task, rid) SELECT '{task}', rid FROM cubes "
                    f"WHERE {_OWING} AND {_no_fold(table, task)}"
                )
                done[f"queued {{}} memories again ({task})"] += connection.execute(statement).rowcount
            statement = "UPDATE jobs SET not_before = 0, attempts = 0 WHERE attempts > 0"
            done["made {} failed jobs due again"] += connection.execute(statement).rowcount
    return [what.format(count) for what, count in done.items() if count]


# --- a file that cannot be opened ---


@dataclass(frozen=True, slots=True)
class Salvaged:
    """The current memories that could still be read from a damaged file, and whether the reading reached its end."""

    cubes: tuple[Cube, ...]
    whole: bool


def salvage(file: Path) -> Salvaged:
    """Read what can be read from a damaged store's file: from its beginning, then from its end back to the damage.

    Nothing is written. Raises StoreError where not even SQLite's header can be read.
    """
    found: dict[int, Cube] = {}
    with closing(_reader(file)) as connection:
        reached = _read_rows(connection, "ASC", found)
        if not reached:
            _read_rows(connection, "DESC", found)
    return Salvaged(tuple(found[rid] for rid in sorted(found)), reached)


def _reader(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
    connection.text_factory = bytes  # damaged text is met row by row, not as an error of the whole reading
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(
            f"nothing can be read from {file} ({error}). Put back a copy of the folder, or a file from its folder 'backups'"
        ) from error
    return connection


def _read_rows(connection: sqlite3.Connection, order: str, found: dict[int, Cube]) -> bool:
    query = f"SELECT rid, id, version, known_to, body FROM cubes NOT INDEXED ORDER BY rid {order}"
    try:
        for rid, id, version, known_to, body in connection.execute(query):
            if rid in found:
                return True
            if known_to is None:
                with suppress(*UNREADABLE):  # a row whose bytes are damaged is no memory any more
                    found[rid] = Cube.from_dict({**json.loads(body), "id": id_text(id), "version": version})
    except sqlite3.DatabaseError:
        return False
    return True


# --- small things ---


def _malformed(dimension: int) -> str:
    # One vector of half floats for the whole text, and one for each of its pieces.
    return f"(length(body) = 0 OR length(body) % {2 * dimension} <> 0)"


def _no_fold(table: str, task: str) -> str:
    return (
        f"NOT EXISTS (SELECT 1 FROM {table} WHERE {table}.rid = cubes.rid /*= {table} cubes */) "
        f"AND NOT EXISTS (SELECT 1 FROM jobs WHERE task = '{task}' AND jobs.rid = cubes.rid /*= jobs cubes */)"
    )


def _count(connection: Database, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def _some(lines: Sequence[str]) -> str:
    more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
