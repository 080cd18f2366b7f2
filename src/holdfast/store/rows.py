"""The form of a row: how a cube is packed into the store, read back, found there, and told from all others."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from holdfast.cube import EXTERNAL, MAX_TEXT_BYTES, Cube, Scope, Status, Use, bare, finite, from_micros, to_micros
from holdfast.errors import InputError, IntegrityError, NotFoundError
from holdfast.store import schema
from holdfast.store.base import Where
from holdfast.store.engine import Database
from holdfast.store.grants import Reach

DEEPEST = 64
"""A memory's data may be nested so deep: deeper, it could be written and not be read where there is more on the stack."""


@dataclass(frozen=True, slots=True)
class Row:
    """A version as it lies in the store."""

    rid: int
    cube: Cube
    known_from: int
    known_to: int | None


# --- writing a row ---


def check(cube: Cube) -> None:
    """Raise InputError for a cube that no row can hold."""
    if not cube.text and cube.blob is None:
        raise InputError("a memory needs a text or a tensor file; this one has neither")
    if len(cube.text) * 4 > MAX_TEXT_BYTES and len(cube.text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        raise InputError(f"a memory's text may have {MAX_TEXT_BYTES // 2**20} MiB; split this one before adding it")
    if cube.status is Status.PURGED:
        raise InputError("a purged memory cannot be written; to erase one, use forget")
    if cube.data and not _within(cube.data, DEEPEST):
        raise InputError(f"a memory's data may be nested {DEEPEST} deep; put what is deeper into its text")


def _within(value: Any, depth: int) -> bool:
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return True
    return depth > 0 and all(_within(item, depth - 1) for item in value if type(item) not in _FLAT)


_FLAT = frozenset({str, int, float, bool, type(None)})


def pack(cube: Cube) -> str:
    """The cube as compact JSON without its id and version (the event has them) and what is default.

    Of its use, only what a first version came with: later feedback has its own table and events.
    """
    record = cube.to_dict()
    for field in ("id", "version", *(("use",) if cube.version > 1 or cube.use == Use() else ())):
        del record[field]
    for field, default in (("form", "text"), ("status", "generated")):
        if record[field] == default:
            del record[field]
    record["origin"] = {k: v for k, v in record["origin"].items() if v not in (None, [])}
    record["policy"] = {k: v for k, v in record["policy"].items() if v not in (None, [], "normal")}
    record = {k: v for k, v in record.items() if v not in (None, {}, "")}
    try:
        return _json(record)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"a cube's data must be plain JSON: {error}") from error


def _json(value: Any) -> str:
    text = _ENCODER.encode(value)
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates: escaped, they survive verbatim
        text = _ESCAPING.encode(value)
    return text


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_ESCAPING = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def written(text: str) -> str:
    """A text as it stands in the body of a row, without the quotes around it."""
    return _json(text)[1:-1]


def columns(cube: Cube) -> tuple[Any, ...]:
    """What a row repeats of its body so that SQLite can filter by it: kept equal by ``verify``."""
    return (
        micros(cube.valid_from), micros(cube.valid_to), micros(cube.policy.expires_at), str(cube.kind),
        str(cube.status), cube.scope.agent, cube.scope.session, cube.origin.author, cube.origin.reference,
        cube.origin.trust,
    )  # fmt: skip


def content_key(cube: Cube) -> bytes:
    """What makes two adds the same memory: place, kind, speaker, words, stated time, and position where one is given.

    Of what comes from outside, the source too: two sites that say the same are two witnesses, and none of them may take the
    place of a person's own word by saying it first.
    """
    claim = [cube.data.get(field) for field in ("subject", "attribute", "value", "polarity", "turn")]
    identity = [cube.scope.path, cube.kind, cube.origin.author, cube.text, cube.blob, micros(cube.valid_from), claim]
    if cube.origin.channel in EXTERNAL:
        identity.append(cube.origin.label)
    return hashlib.sha256(_IDENTITY.encode(identity).encode()).digest()


def key_beside(key: bytes, id: bytes) -> bytes:
    """The key of a memory that says what another one says, of which its writer may not know."""
    return hashlib.sha256(key + id).digest()


_IDENTITY = json.JSONEncoder(default=str)


def wording(cube: Cube) -> tuple[Any, ...]:
    """What names, dates and vectors are made from."""
    return cube.text, cube.origin.author, cube.valid_from, cube.data.get("caption")


# --- reading a row ---

_READ = "SELECT cubes.rid, cubes.id, cubes.version, known_from, known_to, body, visits, last_use, utility, uncertainty"
_FROM = "FROM cubes LEFT JOIN uses ON uses.id = cubes.id /*= uses cubes */"
SELECT = f"{_READ} {_FROM}"
SELECT_SALTED = f"{_READ}, salt {_FROM}"
"""What ``to_row`` takes, and with the salt after it; the conditions are the caller's."""
SELECT_BARE = "SELECT cubes.rid, cubes.id, cubes.version, body FROM cubes"
"""What ``to_bare`` takes."""


VERSIONS = """
SELECT version.rid FROM (VALUES {}) AS wanted
CROSS JOIN cubes AS version WHERE version.id = wanted.column1 AND version.version = wanted.column2
"""
"""The row numbers of some ids and versions, a pair of marks each: to ``(id, version) IN (...)`` SQLite would look at all rows."""

_decode = json.JSONDecoder().raw_decode


def to_row(record: Sequence[Any], *, lent: bool = False) -> Row:
    """A record that SELECT gave, as a version; ``lent`` as in ``to_cube``. Raises IntegrityError where its body is damaged."""
    return Row(record[0], to_cube(record, lent=lent), record[3], record[4])


def to_cube(record: Sequence[Any], *, lent: bool = False) -> Cube:
    """The cube of such a record. Raises IntegrityError where its body is damaged.

    ``lent``: for who only looks at it. Its data are those that others are given a copy of.
    """
    rid, id, version, _, _, body, visits, last_use, utility, uncertainty = record
    try:
        cube = _read(id, version, body)
        if lent and visits is None:
            return cube
        use = cube.use
        if visits is not None:
            use = Use(
                visits=int(visits),
                last_use=None if last_use is None else from_micros(last_use),
                utility=finite(utility),
                uncertainty=finite(uncertainty),
            )
        return cube.read_again(cube.data if lent else _copied(cube.data), use)
    except UNREADABLE as error:
        raise IntegrityError(
            f"row {rid} of the store is damaged ({error}); nothing was changed. See: holdfast doctor"
        ) from error


@functools.lru_cache(maxsize=8_192, typed=True)
def _read(id: bytes, version: int, body: str) -> Cube:
    """The cube in a body: to read it costs ten times as much as to know it. By all that it is made from, so that what lies in the
    file is what is read."""
    fields, end = _decode(body)  # json.loads looks for space around it, which takes longer than to read it
    if end != len(body):
        raise ValueError("there is something after its end")
    fields["id"], fields["version"] = id_text(id), version
    return Cube.from_dict(fields)


def owned(cube: Cube) -> Cube:
    """A cube that was lent, with data of its own: what its reader may change is theirs alone."""
    return cube.read_again(_copied(cube.data), cube.use)


def _copied(value: Any) -> Any:
    """What came from JSON once more, in a third of the time that ``copy.deepcopy`` takes."""
    made = value.copy()
    for name, inner in made.items() if isinstance(value, dict) else enumerate(made):
        if isinstance(inner, _CONTAINERS):
            made[name] = _copied(inner)
    return made


_CONTAINERS = dict, list


def to_bare(record: Sequence[Any]) -> Cube:
    """As ``to_cube``, with nothing but its scope, its origin, its id and its version: whose it is, in a third of the time."""
    try:
        return _read_bare(*record[1:])
    except UNREADABLE as error:
        raise IntegrityError(
            f"row {record[0]} of the store is damaged ({error}); nothing was changed. See: holdfast doctor"
        ) from error


@functools.lru_cache(maxsize=16_384, typed=True)
def _read_bare(id: bytes, version: int, body: str) -> Cube:
    fields, end = _decode(body)
    if end != len(body):
        raise ValueError("there is something after its end")
    return bare(id_text(id), version, fields)


def forget_read() -> None:
    """For who erases, and for who follows an erasure: this process keeps in mind nothing that is no longer in the file.

    A program that has not followed it yet may hold such words until they make room; what it serves is read by the file.
    """
    for clear in _CACHES:
        clear()


def forgotten_with(clear: Callable[[], object]) -> None:
    """Have what else a process keeps in mind of what it read, which ``clear`` empties, forgotten when something is erased."""
    _CACHES.append(clear)


_CACHES: list[Callable[[], object]] = [_read.cache_clear, _read_bare.cache_clear]


UNREADABLE = (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)
"""What a value of another type, or a body that is no cube's, causes where it is read."""


def visible(connection: Database, id: str, reach: Reach, version: int | None = None) -> Row | None:
    """A cube's current version, or the one that is named; None where it is out of reach or there is none.

    What is hidden now is hidden in every version.
    """
    if version is not None and reach.grants is not None and visible(connection, id, reach) is None:
        return None
    which = "known_to IS NULL" if version is None else "version = ?"
    values = (id_bytes(id),) if version is None else (id_bytes(id), version)
    record = connection.execute(f"{SELECT} WHERE cubes.id = ? AND {which}", values).fetchone()
    if record is not None and record[0] >> schema.PARTITION_BITS == partition_number(connection, reach.scope.partition):
        row = to_row(record)
        if reach.sees(row.cube):
            return row
    return None


def current(connection: Database, id: str, reach: Reach, version: int | None = None) -> Row:
    """As ``visible``, with NotFoundError for None."""
    row = visible(connection, id, reach, version)
    if row is None:
        # One answer for "does not exist", "is not yours" and "was forgotten": a caller learns nothing about others.
        raise NotFoundError(f"no memory {id} in {reach.scope.path}")
    return row


_KNOWN_PARTS = 1_000


def note(connection: Database, key: str, value: str) -> None:
    """Write a note that the store keeps about itself, whoever writes being alone."""
    if not connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key)).rowcount:
        connection.execute("INSERT INTO meta (key, value) VALUES (?, ?)", (key, value))


def stray(table: str) -> str:
    """The condition that a row of a table, which is named by its row number, belongs to no memory."""
    return f"NOT EXISTS (SELECT 1 FROM cubes WHERE cubes.rid = {table}.rid /*= cubes {table} */)"


def partition_number(connection: Database, path: str) -> int | None:
    """The number of the partition tenant/user, None while nothing was ever written there."""
    known: dict[str, int] | None = getattr(connection, "parts", None)  # of a reader, which sees what is committed alone
    if known is not None and path in known:
        return known[path]
    found = connection.execute("SELECT no FROM partitions WHERE path = ?", (path,)).fetchone()
    if found is None:
        return None
    if known is not None:
        if len(known) >= _KNOWN_PARTS:
            known.clear()
        known[path] = found[0]
    return int(found[0])


def conditions(scope: Scope, where: Where, *, reads_json: bool = True) -> tuple[list[str], list[Any]]:
    """What a row's columns must say to lie in an agent's or session's scope and pass a filter: SQL conditions, their values.

    Where the database does not read JSON as SQLite does, a condition on data lets more through, and ``passes`` has the last word.
    """
    for name in ("kinds", "statuses"):
        if isinstance(getattr(where, name), str):
            raise InputError(f"{name} is a list: write ({getattr(where, name)!r},)")
    clauses: list[str] = []
    values: list[Any] = []

    def add(clause: str, *more: Any) -> None:
        clauses.append(clause)
        values.extend(more)

    if scope.agent is not None:
        add("agent = ?", scope.agent)
    if scope.session is not None:
        add("session = ?", scope.session)
    if where.known_at is None:
        add("known_to IS NULL")
    else:
        moment = to_micros(where.known_at)
        add("known_from <= ? AND (known_to IS NULL OR known_to > ?)", moment, moment)
    if where.valid_at is not None:
        moment = to_micros(where.valid_at)
        add("(valid_from IS NULL OR valid_from <= ?) AND (valid_to IS NULL OR valid_to > ?)", moment, moment)
    if where.kinds:
        add(f"kind IN ({','.join('?' * len(where.kinds))})", *(str(kind) for kind in where.kinds))
    if where.statuses:
        add(f"status IN ({','.join('?' * len(where.statuses))})", *(str(status) for status in where.statuses))
    if where.source is not None:
        add("source = ?", where.source)
    if where.author is not None:
        add("author = ?", where.author)
    if where.by is not None:
        add("cubes.id IN (SELECT id FROM journal WHERE actor = ? AND action = 'add')", where.by)
    if where.since is not None:
        add("coalesce(valid_from, known_from) >= ?", to_micros(where.since))
    if where.until is not None:
        add("coalesce(valid_from, known_from) < ?", to_micros(where.until))
    for key, value in where.data.items():
        if not isinstance(key, str) or not isinstance(value, str | int | float | None):
            raise InputError(
                f"data can be filtered by strings, numbers, true, false and none, not by {key!r}: {value!r}"
            )
        if not reads_json:
            if value is not None and key.isascii():  # as it stands in a body, whichever way that is escaped
                said = f'"{written(value)}"' if isinstance(value, str) and value.isascii() else ""
                add("instr(body, ?) > 0", f'"{written(key)}":{said}')
            continue
        # json_each compares whole keys, whatever characters they hold; a path would need them escaped.
        add("(SELECT value FROM json_each(body, '$.data') WHERE key = ?) IS ?", key, value)
    return clauses, values


def passes(data: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a memory's data hold what is asked for, compared as SQLite does: true is 1, and what is not there is none."""
    for key, value in wanted.items():
        held = data.get(key)
        if (_json(held) if isinstance(held, dict | list) else held) != value:
            return False
    return True


# --- ids and times ---


_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # as they are mostly written, in a third of the time


def id_bytes(id: str) -> bytes:
    """An id as rows hold it (16 bytes). Raises NotFoundError for a text that is no id."""
    if isinstance(id, str) and _ID.fullmatch(id):
        return bytes.fromhex(id.replace("-", ""))
    try:
        return uuid.UUID(id).bytes
    except (ValueError, AttributeError, TypeError) as error:
        raise NotFoundError(f"{id!r} is not a memory's id") from error


def id_text(id: bytes) -> str:
    """The inverse of ``id_bytes``. Raises ValueError."""
    if not isinstance(id, bytes) or len(id) != 16:
        raise ValueError("an id has 16 bytes")
    written = id.hex()
    return f"{written[:8]}-{written[8:12]}-{written[12:16]}-{written[16:20]}-{written[20:]}"


def micros(when: datetime | None) -> int | None:
    """A moment as rows hold it."""
    return None if when is None else to_micros(when)
