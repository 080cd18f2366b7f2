"""The chain: whatever single thing is changed, dropped, swapped or put in behind the store's back, verify finds it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from holdfast.cube import Cube, Origin, Policy, Status, Use, utc
from holdfast.errors import IntegrityError
from holdfast.store.base import Operation, Where
from holdfast.store.journal import digest, link
from holdfast.store.proof import check_store
from holdfast.store.sqlite import SqliteStore
from support import ANA, BEN, START, Clock, add, open_store, update


def fill(folder: Path) -> SqliteStore:
    """A store in which every kind of event has happened, to two users."""
    clock = Clock()
    store = open_store(folder, clock=clock)
    first = add(store, Cube(ANA, "Ana moved to Lisbon", origin=Origin(author="ana", reference="chat:1"))).cubes[0]
    clock.tick()
    derived = add(
        store,
        Cube(ANA, "lives in Lisbon", "fact", valid_from=START, origin=Origin(derived_from=(first.ref,))),
        Cube(BEN, "Ben likes tea", policy=Policy(utc("2030-01-01"))),
        Cube(ANA, "scored elsewhere", use=Use(3, START, 0.5, 0.1)),
    ).cubes
    clock.tick()
    second = update(store, derived[0], text="lives in Lisbon, Portugal")
    clock.tick()
    store.feedback([second.id, derived[1].id][:1], ANA, 0.7)
    store.commit([Operation.delete(derived[1], "no longer")])
    clock.tick()
    undone = update(store, first, status=Status.FROZEN)
    store.undo(store.head()[0], ANA)
    gone = add(store, Cube(ANA, "to be forgotten", origin=Origin(derived_from=(undone.ref,)))).cubes[0]
    clock.tick()
    store.purge([gone.id], ANA, reason="asked to")
    add(store, Cube(BEN, "and goes on"))
    assert store.verify() == []
    return store


def tables(folder: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(folder / "holdfast.db", isolation_level=None)
    connection.execute("PRAGMA foreign_keys = OFF")
    return connection


TRUTH = {
    "journal": "seq",
    "cubes": "rid",
    "partitions": "no",
    "uses": "id",
    "tombstones": "id",
    "links": "child, child_version, parent, parent_version",
}


def other(value: object) -> object:
    """A value of the same type that is not this one."""
    if value is None:
        return 1
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:]
    if isinstance(value, str):
        return value[:-1] + chr(ord(value[-1]) ^ 1) if value else "x"
    return value + 1 if isinstance(value, int) else value + 0.25  # type: ignore[operator]


def problems(behind: sqlite3.Connection) -> list[str]:
    """What ``verify`` says, of a transaction that is not committed."""
    return [problem.what for problem in check_store(behind, None)]


def tampered(behind: sqlite3.Connection, statement: str, values: Sequence[object] = ()) -> list[str] | None:
    """What verify says after one statement, which is then taken back; None where SQLite forbids it or nothing changed."""
    behind.execute("BEGIN")
    try:
        if not behind.execute(statement, values).rowcount:
            return None
        return problems(behind)
    except sqlite3.IntegrityError:
        return None
    finally:
        behind.execute("ROLLBACK")


def rows(behind: sqlite3.Connection, table: str) -> list[tuple[str, list[object], dict[str, object]]]:
    """(condition, its values, the row) for each row of a table."""
    keys = TRUTH[table].split(", ")
    where = " AND ".join(f"{key} IS ?" for key in keys)
    behind.row_factory = sqlite3.Row
    found = [dict(row) for row in behind.execute(f"SELECT * FROM {table}")]
    behind.row_factory = None
    return [(where, [row[key] for key in keys], row) for row in found]


def test_every_changed_column_of_every_row_is_found(folder: Path) -> None:
    fill(folder).close()
    behind = tables(folder)
    missed, tried = [], 0
    for table in TRUTH:
        for where, key, row in rows(behind, table):
            for column, old in row.items():
                for new in (other(old), "other", None, b"\x00" * 16):
                    if type(new) is type(old) and new == old:
                        continue
                    said = tampered(behind, f"UPDATE {table} SET {column} = ? WHERE {where}", [new, *key])
                    tried += said is not None
                    if said == []:
                        missed.append((table, column, old, new))
    # A partition's next row number may be moved upwards: that leaves a gap, and gaps mean nothing.
    assert [item for item in missed if item[:2] != ("partitions", "next")] == []
    assert tried > 500 and problems(behind) == []


def test_every_dropped_row_is_found(folder: Path) -> None:
    fill(folder).close()
    behind = tables(folder)
    for table in TRUTH:
        for where, key, row in rows(behind, table):
            said = tampered(behind, f"DELETE FROM {table} WHERE {where}", key)
            assert said, (table, row)


def test_every_swap_of_two_rows_is_found(folder: Path) -> None:
    fill(folder).close()
    behind = tables(folder)
    swaps = 0
    for table, column in (("journal", "seq"), ("cubes", "rid"), ("cubes", "body"), ("cubes", "seq"), ("uses", "id")):
        keys = [key[0] for _, key, _ in rows(behind, table)]
        name = TRUTH[table]
        for one in keys:
            for two in keys:
                if one == two or (isinstance(one, int) and one > two):  # type: ignore[operator]
                    continue
                behind.execute("BEGIN")
                first, second = (
                    behind.execute(f"SELECT {column} FROM {table} WHERE {name} = ?", (key,)).fetchone()[0]
                    for key in (one, two)
                )
                spare: object = -1 if isinstance(first, int) else b"spare" if isinstance(first, bytes) else "{}"
                for value, where in ((spare, first), (first, second), (second, spare)):
                    behind.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (value, where))
                assert problems(behind), (table, column, one, two)
                behind.execute("ROLLBACK")
                swaps += 1
    assert swaps > 50


def test_every_inserted_row_is_found(folder: Path) -> None:
    fill(folder).close()
    behind = tables(folder)
    fresh = {
        "seq": 10_000,
        "rid": (1 << 33) + 77,
        "no": 99,
        "id": b"\x01" * 16,
        "version": 7,
        "key": None,
        "path": "acme/eve",
    }
    for table in ("journal", "cubes", "uses", "tombstones", "links"):
        for _, _, row in rows(behind, table):
            names = TRUTH[table].split(", ")
            copy = {**row, **{name: fresh.get(name, b"\x02" * 16) for name in names}}
            if table == "cubes":
                copy |= {"id": fresh["id"], "key": None}
            if table == "links":
                copy |= {"child_version": 1, "parent_version": 1}
            said = tampered(
                behind, f"INSERT INTO {table} VALUES ({', '.join('?' * len(copy))})", [copy[name] for name in row]
            )
            assert said, (table, copy)


def test_a_forged_event_does_not_fit_even_with_a_hash_of_its_own(folder: Path) -> None:
    """Who can write the file can make a valid hash for one event, but then the next one does not follow from it."""
    store = fill(folder)
    events = list(store.events())
    store.close()
    behind = tables(folder)
    for event in events[:-1]:
        previous = events[event.seq - 2].hash if event.seq > 1 else bytes(32)
        at = behind.execute("SELECT at FROM journal WHERE seq = ?", (event.seq,)).fetchone()[0]
        fields = (event.seq, event.txn, at, "forger", str(event.action), event.partition, event.id, event.version)
        forged = link(previous, (*fields, event.reason, event.digest.hex()))
        said = tampered(behind, "UPDATE journal SET actor = 'forger', hash = ? WHERE seq = ?", [forged, event.seq])
        assert said and any("hash" in line for line in said)


def test_a_journal_that_was_cut_or_rewritten_as_a_whole_is_found_by_a_head_noted_elsewhere(folder: Path) -> None:
    store = open_store(folder)
    add(store, Cube(ANA, "first"))
    noted_early = store.head()
    add(store, Cube(ANA, "second"))
    noted = store.head()
    assert store.verify() == store.verify(noted) == store.verify(noted_early) == []
    behind = tables(folder)
    behind.execute("DELETE FROM journal WHERE seq = 2")
    behind.execute("DELETE FROM terms WHERE rid = (SELECT rid FROM cubes WHERE seq = 2)")
    behind.execute("DELETE FROM cubes WHERE seq = 2")  # a tail that is cut off everywhere leaves a chain that is whole
    assert store.verify() == []
    assert store.verify(noted_early) == []
    assert ["cut or rewritten" in problem.what for problem in store.verify(noted)] == [True]
    add(store, Cube(ANA, "another second"))
    assert store.verify() == []
    assert ["cut or rewritten" in problem.what for problem in store.verify(noted)] == [True]


def test_a_purge_keeps_the_chain_and_takes_the_words(folder: Path) -> None:
    store = open_store(folder)
    made = add(store, Cube(ANA, "a secret"), Cube(ANA, "no secret")).cubes
    hashes = [event.hash for event in store.events()]
    store.purge([made[0].id], ANA)
    assert store.verify() == []
    assert [event.hash for event in store.events()][:2] == hashes, "what happened is not rewritten"
    assert [event.action for event in store.events()] == ["add", "add", "purge"]
    assert store.head()[0] == 3


def test_without_its_salt_a_digest_does_not_tell_whether_a_guess_is_right() -> None:
    body = '{"text":"pin 1234"}'
    assert digest(b"a" * 16, body) != digest(b"b" * 16, body) != digest(b"", body)


def test_fields_of_an_event_cannot_run_into_each_other() -> None:
    assert link(bytes(32), (1, "ab", "c")) != link(bytes(32), (1, "a", "bc"))
    assert link(bytes(32), (1, "a", "b")) != link(b"\x01" + bytes(31), (1, "a", "b"))


def test_a_damaged_event_or_row_is_an_error_of_its_own_and_not_a_crash(folder: Path) -> None:
    store = fill(folder)
    behind = tables(folder)
    behind.execute("UPDATE journal SET action = 'conjure' WHERE seq = 3")
    with pytest.raises(IntegrityError, match="event 3"):
        list(store.events())
    behind.execute("UPDATE cubes SET body = substr(body, 5) WHERE seq = 1")
    with pytest.raises(IntegrityError, match="damaged"):
        list(store.select(ANA, Where(known_at=START)))
    assert {problem.seq for problem in store.verify()} >= {1, 3}


def test_time_in_the_journal_does_not_run_backwards(folder: Path) -> None:
    clock = Clock()
    store = open_store(folder, clock=clock)
    add(store, Cube(ANA, "at noon"))
    clock.tick(-3600)
    late = add(store, Cube(ANA, "the clock was set back")).cubes[0]
    events = list(store.events())
    assert events[0].at == events[1].at == late.recorded_at == START
    assert store.verify() == []
