"""A memory's own forms: its scope's path, a grant's place, a moment, a record, a row that may be damaged."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

from fuzz.base import ANA, CUT, ID, NOW, Target, law, parts, refusable
from holdfast.cube import Cube, Origin, Ref, Scope, from_micros, to_micros, utc
from holdfast.errors import HoldfastError
from holdfast.retrieve.text import fold_terms
from holdfast.store.access import place_of
from holdfast.store.base import Operation
from holdfast.store.doctor import salvage
from holdfast.store.grants import ANY, Grant, Right
from holdfast.store.proof import check_store
from holdfast.store.rows import check, id_bytes, pack, to_cube
from holdfast.store.sqlite import SqliteStore

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where stores come and go, no disk need turn."""


def scope(text: str) -> None:
    """A path is its scope, and nothing in a part of it moves the wall between two users."""
    path = text.replace(CUT, "/")
    read = refusable(lambda: Scope.parse(path))
    if read is not None:
        law(Scope.parse(read.path) == read, "a path reads back", read)
    tenant, user, agent, session = parts(text, 4)
    made = refusable(lambda: Scope(tenant, user, agent or None, session or None))
    if made is None:
        return
    law(Scope.parse(made.path) == made, "a scope is its path", made)
    law(made.path.count("/") == 3 and made.path.startswith(made.partition + "/"), "a path has four parts", made)
    law(Scope.parse(made.partition) == Scope(tenant, user), "a partition is its tenant and user", made)


def place(text: str) -> None:
    """A place reads back; written as a scope's path it covers that scope, and none that differs in a part that it names."""
    read = refusable(lambda: place_of(text.replace(CUT, "/")))
    if read is not None:
        law(place_of(_grant(read).place) == read, "a place reads back", read)
    tenant, user, agent, session = parts(text, 4)
    made = refusable(lambda: Scope(tenant, user, agent or None, session or None))
    named = None if made is None else refusable(lambda: place_of(made.path))
    if made is None or named is None:
        return
    grant = _grant(named)
    law(grant.covers(made, "fact"), "a scope's path covers the scope", made, named)
    for part in ("tenant", "user", *(name for name in ("agent", "session") if getattr(made, name) is not None)):
        other = replace(made, **{part: f"{getattr(made, part)}x"})
        law(not grant.covers(other, "fact") and not grant.meets(other), "a place covers no other", other, named)


def _grant(named: tuple[str, str, str | None, str | None]) -> Grant:
    return Grant(ID, "bot", *named, frozenset({Right.READ}))


def moment(text: str) -> None:
    """A moment is in UTC, reads back, and survives as microseconds."""
    when = refusable(lambda: utc(text))
    if when is None:
        return
    law(when.utcoffset() is not None and not when.utcoffset(), "a moment is in UTC", when)
    law(utc(when.isoformat()) == when and from_micros(to_micros(when)) == when, "a moment reads back", when)


def record(text: str) -> None:
    """A record that is taken reads back to an equal cube, as a record and as a row; what no row can hold is refused."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return
    cube = refusable(lambda: Cube.from_dict(found))
    if cube is None:
        return
    law(Scope.parse(cube.scope.path) == cube.scope, "a scope is its path", cube.scope)
    body = refusable(lambda: (check(cube), pack(cube))[1])
    if body is None:
        return
    law(Cube.from_dict(json.loads(json.dumps(cube.to_dict()))) == cube, "a record reads back", cube)
    row = to_cube((1, id_bytes(cube.id), cube.version, 0, None, body, None, None, None, None))
    law(row == (cube if cube.version == 1 else replace(cube, use=row.use)), "a row reads back", cube, row)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        store = SqliteStore(Path(folder) / "s", durability="normal")
        try:
            kept = refusable(lambda: store.commit([Operation.add(replace(cube, origin=_own(cube.origin)))]))
            if kept is not None:
                law(store.get(cube.id, cube.scope).text == cube.text, "what was kept is there", cube)
                law(store.verify() == [], "what was kept is vouched for", store.verify())
        finally:
            store.close()


def _own(origin: Origin) -> Origin:
    return replace(origin, derived_from=())


COLUMNS = (
    *( ("cubes", column) for column in ("body", "id", "version", "known_from", "known_to", "kind", "key", "salt", "trust", "seq") ),
    *(("uses", column) for column in ("id", "visits", "last_use", "utility")),
    *(("journal", column) for column in ("at", "actor", "action", "id", "version", "reason", "digest", "hash", "part")),
    ("links", "parent"), ("links", "parent_version"), ("partitions", "path"), ("partitions", "next"),
)  # fmt: skip
"""What is damaged, by the first character of a text; what comes after it is put there instead."""


def row(text: str) -> None:
    """Whatever stands in a row, reading it gives a cube or an error of the house, and a proof finds that something is wrong."""
    refusable(lambda: to_cube((1, b"\x01" * 16, 1, 0, None, text, None, None, None, None)))
    for damaged in (text, text.encode("utf-8", "surrogatepass"), len(text), None):
        refusable(lambda some=damaged: to_cube((1, some, some, 0, None, "{}", some, some, some, some)))
    table, column = COLUMNS[ord(text[0]) % len(COLUMNS)] if text else COLUMNS[0]
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        file = Path(folder) / "holdfast.db"
        file.write_bytes(_file())
        connection = sqlite3.connect(file)
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        everything = f"SELECT {column}, typeof({column}) FROM {table}"
        try:
            before = connection.execute(everything).fetchall()
            try:
                connection.execute(f"UPDATE {table} SET {column} = ?", (_value(text[1:]),))
                connection.commit()
            except (sqlite3.Error, UnicodeError, OverflowError):  # what SQLite itself does not take
                return
            after = connection.execute(everything).fetchall()
            problems = check_store(connection, None)
            # A number that is free and higher is as good as the one that was next.
            law(bool(problems) or before == after or column == "next", "damage is found", table, column, before, after)
        finally:
            connection.close()
        saved = salvage(file)
        law(saved.whole and all(isinstance(cube.text, str) for cube in saved.cubes), "what is sound is read", saved)
        store = None
        try:
            store = SqliteStore(Path(folder), terms=fold_terms)
            for scope in (ANA, Scope("acme", "bo")):
                list(store.select(scope))
                list(store.events(scope=scope))
                store.lineage(ID, scope)
        except HoldfastError:
            return
        finally:
            if store is not None:
                store.close()


def _value(text: str) -> str | bytes | int | float | None:
    """A value of one of SQLite's types."""
    if text[:1] == "#":
        return text[1:].encode("utf-8", "surrogatepass")
    if text == "~":
        return None
    try:
        return int(text) if len(text) < 20 else text
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


@cache
def _file() -> bytes:
    """The file of a store with two memories, one of them at its second version, used, and made of the other."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        store = SqliteStore(Path(folder) / "s", clock=lambda: NOW, durability="normal")
        first = store.commit([Operation.add(Cube(ANA, "the source", id=ID))]).cubes[0]
        made = Cube(ANA, "made of it", data={"n": 1}, origin=Origin(derived_from=(Ref(first.id, 1),)))
        made = store.commit([Operation.add(made)]).cubes[0]
        store.feedback([made.id], ANA, 1.0)
        store.commit([Operation.update(made.with_(text="other words"))])
        store.fold_log()
        store.close()
        return (Path(folder) / "s" / "holdfast.db").read_bytes()


MEMBERS = (
    '"scope":"acme/bo/plan/s1"', '"scope":"a"', '"scope":7', '"text":"words"', '"text":""', '"text":"\\ud800\\u0000"',
    '"text":null', f'"id":"{ID}"', f'"id":"{ID.upper()}"', '"id":7', '"version":2', '"version":true', '"version":1e3',
    '"version":' + "9" * 20, '"kind":"fact"', '"kind":"Fact"', '"form":"state"', '"form":[]', '"blob":"ab"', '"blob":7',
    '"data":[]', '"data":{"a":[1,null,"b"]}', '"data":{"a":1e999}', '"data":' + '{"a":' * 70 + "1" + "}" * 70,
    '"data":' + '{"a":' * 900 + "1" + "}" * 900, '"valid_from":"0001-01-01"', '"valid_to":"9999-12-31T23:59:59-12:00"',
    '"valid_to":"2026-01-31T10:00+05:30"', '"recorded_at":"2031-01-01"', '"recorded_at":5', '"status":"quarantined"',
    '"status":"purged"', '"origin":[]', '"origin":{"channel":"web","trust":0.5,"author":"a","reference":"r"}',
    '"origin":{"trust":true}', '"origin":{"trust":"1"}', '"origin":{"taint":["web:a","tool:b"]}', '"origin":{"taint":"ab"}',
    '"origin":{"taint":[["a"]]}', f'"origin":{{"derived_from":[["{ID}",1]]}}',
    f'"origin":{{"derived_from":[["{ID}",{"9" * 30}]]}}', '"origin":{"derived_from":{"ab":1}}',
    f'"origin":{{"derived_from":[["{ID}",1e400]]}}', '"origin":{"derived_from":[[7,1]]}', '"origin":{"author":["a"]}',
    '"origin":{"author":"\\ud800"}', '"policy":{"expires_at":"2031-01-01","sensitivity":"secret","readers":["bot"]}',
    '"policy":{"readers":"bot"}', '"policy":{"readers":{"a":1}}', '"policy":[1]',
    '"use":{"visits":3,"last_use":"2026-01-01","utility":-0.0,"uncertainty":1}', '"use":{"visits":' + "9" * 30 + "}",
    '"use":{"visits":-1}', '"use":{"utility":"nan"}', '"use":{"utility":1e999}', '"use":{"last_use":7}', '"use":{"visits":"3"}',
    '"text":NaN', "[" * 1200, '"":{}',
)  # fmt: skip
FRAME = ('{"scope":"acme/ana","text":"a",', ",", "}")

TARGETS = (
    Target(
        "scope",
        scope,
        ("acme", "ana", CUT, "/", "-", "%2D", "%2F", "%25", "%ff", "%00", "*", "@holdfast", " ", ".", "ß"),
    ),
    Target(
        "place", place, ("acme", "ana", CUT, "/", "-", "%2D", "%2A", ANY, "%40holdfast", "@holdfast", "%ff", " ", "%20")
    ),
    Target(
        "moment",
        moment,
        (
            "2026-01-31",
            "T12:00:00",
            "+00:00",
            "-23:59",
            "Z",
            ".123456",
            "0001-01-01",
            "9999-12-31",
            "T24:00",
            "-W01-1",
            " ",
        ),
    ),
    Target("record", record, MEMBERS, FRAME),
    Target(
        "row",
        row,
        (
            *map(chr, range(64, 64 + len(COLUMNS))),
            "#",
            "~",
            "0",
            "-1",
            "1.5",
            "9" * 15,
            "[]",
            "{}",
            "\x00" * 16,
            '{"scope":"a/b"',
            *MEMBERS[::7],
        ),
    ),
)
