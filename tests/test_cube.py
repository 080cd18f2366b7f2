"""The cube and its parts: laws that hold for every value, and what is refused."""

from __future__ import annotations

import json
import os
import threading
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cube import (
    TRANSITIONS,
    Channel,
    Cube,
    Form,
    Kind,
    Origin,
    Policy,
    Ref,
    Scope,
    Status,
    Use,
    from_micros,
    new_id,
    to_micros,
    utc,
)
from holdfast.errors import InputError, ScopeError

SCOPE = Scope("acme", "ana")

printable = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)
names = st.one_of(printable, st.sampled_from(["-", "%2D", "a/b", "..", "a b", "%", "-/-", "@x:y+z", "é", "日本"]))
scopes = st.builds(Scope, names, names, st.none() | names, st.none() | names)
moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
texts = st.text(max_size=60)  # hypothesis draws lone surrogates and null bytes too
floats = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
ids = st.uuids().map(str)
origins = st.builds(
    Origin,
    st.sampled_from(Channel),
    st.none() | texts,
    st.none() | texts,
    st.floats(0, 1),
    st.lists(st.builds(Ref, ids, st.integers(1, 9)), max_size=3).map(tuple),
)


@st.composite
def cubes(draw: st.DrawFn) -> Cube:
    begin, end = draw(st.none() | moments), draw(st.none() | moments)
    if begin and end:
        begin, end = min(begin, end), max(begin, end)
    return Cube(
        draw(scopes),
        draw(texts),
        draw(st.sampled_from(Kind).map(str) | st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True)),
        draw(st.sampled_from(Form)),
        draw(st.none() | texts),
        draw(st.dictionaries(texts, values, max_size=3)),
        begin,
        end,
        draw(st.none() | moments),
        draw(origins),
        draw(st.sampled_from(Status)),
        Policy(draw(st.none() | moments), draw(texts), tuple(draw(st.lists(texts, max_size=2)))),
        Use(draw(st.integers(0, 99)), draw(st.none() | moments), draw(floats), draw(floats)),
        draw(ids),
        draw(st.integers(1, 99)),
    )


@given(cubes())
def test_a_record_reads_back_to_an_equal_cube(cube: Cube) -> None:
    assert Cube.from_dict(cube.to_dict()) == cube
    assert Cube.from_dict(json.loads(json.dumps(cube.to_dict()))) == cube


def test_a_record_needs_only_a_scope() -> None:
    cube = Cube.from_dict({"scope": "acme/ana"})
    assert cube.scope == SCOPE and cube.text == "" and cube.version == 1 and uuid.UUID(cube.id)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"scope": None},
        {"scope": 7},
        {"scope": "acme/ana", "text": 5},
        {"scope": "acme/ana", "text": None},
        {"scope": "acme/ana", "kind": 5},
        {"scope": "acme/ana", "kind": "No Kind"},
        {"scope": "acme/ana", "form": "clay"},
        {"scope": "acme/ana", "status": "lost"},
        {"scope": "acme/ana", "data": [1]},
        {"scope": "acme/ana", "blob": 1},
        {"scope": "acme/ana", "id": "x"},
        {"scope": "acme/ana", "id": 7},
        {"scope": "acme/ana", "version": "2"},
        {"scope": "acme/ana", "version": 0},
        {"scope": "acme/ana", "valid_from": "soon"},
        {"scope": "acme/ana", "valid_from": 5},
        {"scope": "acme/ana", "valid_from": "2026-01-02", "valid_to": "2026-01-01"},
        {"scope": "acme/ana", "valid_from": "0001-01-01T00:00:00+05:00"},
        {"scope": "acme/ana", "origin": "me"},
        {"scope": "acme/ana", "origin": {"channel": "radio"}},
        {"scope": "acme/ana", "origin": {"trust": 2}},
        {"scope": "acme/ana", "origin": {"trust": float("nan")}},
        {"scope": "acme/ana", "origin": {"trust": "1"}},
        {"scope": "acme/ana", "origin": {"author": 1}},
        {"scope": "acme/ana", "origin": {"derived_from": [["x", 1]]}},
        {"scope": "acme/ana", "origin": {"derived_from": [1]}},
        {"scope": "acme/ana", "policy": {"expires_at": 1}},
        {"scope": "acme/ana", "use": {"visits": "many"}},
    ],
)
def test_a_record_that_is_none_is_refused_with_one_kind_of_error(record: dict[str, object]) -> None:
    with pytest.raises((InputError, ScopeError)):
        Cube.from_dict(record)


@pytest.mark.parametrize(
    "fields",
    [
        {"scope": "acme/ana"},
        {"text": b"bytes"},
        {"text": None},
        {"kind": None},
        {"kind": ""},
        {"status": "generated"},
        {"form": "text"},
        {"data": None},
        {"id": "no-id"},
        {"id": uuid.uuid4()},
        {"version": 0},
        {"version": 1.5},
        {"valid_from": datetime(2026, 1, 1)},
        {"recorded_at": "2026-01-01"},
        {"valid_from": utc("2026-01-02"), "valid_to": utc("2026-01-01")},
    ],
)
def test_a_cube_with_a_wrong_field_cannot_be_made(fields: dict[str, object]) -> None:
    with pytest.raises((InputError, ScopeError)):
        Cube(**{"scope": SCOPE, "text": "x", **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields", [{"channel": "user"}, {"author": 1}, {"reference": b"x"}, {"trust": -0.1}, {"trust": "1"}]
)
def test_an_origin_with_a_wrong_field_cannot_be_made(fields: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Origin(**fields)  # type: ignore[arg-type]


@given(scopes)
def test_a_scope_is_its_path(scope: Scope) -> None:
    assert Scope.parse(scope.path) == scope
    assert scope.path.startswith(scope.partition + "/")
    assert scope.path.count("/") == 3


@given(scopes, scopes)
def test_two_scopes_share_a_path_or_a_partition_only_where_they_are_the_same(one: Scope, other: Scope) -> None:
    assert (one.path == other.path) == (one == other)
    assert (one.partition == other.partition) == ((one.tenant, one.user) == (other.tenant, other.user))


@given(scopes, scopes, scopes)
def test_covering_is_an_order_within_a_tenants_user(a: Scope, b: Scope, c: Scope) -> None:
    assert a.covers(a)
    if a.covers(b) and b.covers(c):
        assert a.covers(c)
    if a.covers(b) and b.covers(a):
        assert a == b
    if a.covers(b):
        assert a.partition == b.partition
    home = Scope(a.tenant, a.user)
    assert home.covers(a) and (a == home or not a.covers(home))


@pytest.mark.parametrize("bad", ["", " ", "\n", "a\nb", "a\x00", "x" * 513, "\ud800", "\u200b", 5, b"x", None])
def test_a_scope_needs_printable_names(bad: object) -> None:
    with pytest.raises(ScopeError):
        Scope("acme", bad)  # type: ignore[arg-type]
    with pytest.raises(ScopeError):
        Scope(bad, "ana")  # type: ignore[arg-type]
    if bad is not None:
        with pytest.raises(ScopeError):
            Scope("acme", "ana", bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["", "acme", "acme/", "/ana", "-/ana", "acme/-", "a/b/c/d/e", "acme//x"])
def test_what_is_no_path_of_a_scope_is_refused(path: str) -> None:
    with pytest.raises(ScopeError):
        Scope.parse(path)


def test_the_life_of_a_cube() -> None:
    assert set(TRANSITIONS) == set(Status)
    assert all(status not in after for status, after in TRANSITIONS.items()), "a status does not follow itself"
    assert not TRANSITIONS[Status.PURGED], "purged is final"
    assert Status.GENERATED not in set().union(*TRANSITIONS.values()), "nothing is generated twice"
    assert all(Status.PURGED in after for status, after in TRANSITIONS.items() if status is not Status.PURGED)
    assert all(
        Status.ACTIVATED in TRANSITIONS[status] for status in (Status.ARCHIVED, Status.EXPIRED, Status.QUARANTINED)
    )


def test_ids_increase_also_between_threads() -> None:
    made: list[str] = []
    lock = threading.Lock()

    def make() -> None:
        for _ in range(500):
            with lock:
                made.append(new_id())

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == sorted(made) and len(set(made)) == 2000
    first = uuid.UUID(made[0])
    assert first.version == 7 and first.variant == uuid.RFC_4122
    assert abs((first.int >> 80) / 1000 - datetime.now(UTC).timestamp()) < 60, "the first 48 bits are milliseconds"


def test_ids_stay_unique_and_the_lock_free_in_a_forked_child() -> None:
    from holdfast import cube

    reading, writing = os.pipe()
    with cube._uuid_lock:  # as another thread may hold it at that moment
        child = os.fork()
        if child == 0:
            os.write(writing, new_id().encode())
            os._exit(0)
    os.close(writing)
    assert uuid.UUID(os.read(reading, 36).decode()).version == 7
    os.close(reading)
    os.waitpid(child, 0)


@given(moments)
def test_microseconds_are_exact(when: datetime) -> None:
    assert from_micros(to_micros(when)) == when


def test_times() -> None:
    east = timezone(timedelta(hours=9))
    assert utc("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    assert utc(" 2026-01-31T12:00 ") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert utc("2026-01-31T12:00:00+09:00") == datetime(2026, 1, 31, 3, tzinfo=UTC)
    assert utc(datetime(2026, 1, 31, 12, tzinfo=east)).tzinfo is UTC
    for bad in ("", "tomorrow", "2026-02-30", 5, None, datetime(1, 1, 1, tzinfo=east)):
        with pytest.raises(InputError):
            utc(bad)  # type: ignore[arg-type]


@given(st.none() | moments, st.none() | moments, moments)
def test_validity_ends_before_its_end(begin: datetime | None, end: datetime | None, when: datetime) -> None:
    if begin and end:
        begin, end = min(begin, end), max(begin, end)
    cube = Cube(SCOPE, "x", valid_from=begin, valid_to=end)
    assert cube.valid_at(when) == ((begin is None or begin <= when) and (end is None or when < end))
