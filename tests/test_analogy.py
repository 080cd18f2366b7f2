"""What was done in another case, told for the case at hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cube import Cube, Scope
from holdfast.errors import ExtractionError
from holdfast.guard.analogy import ACTS, applied
from holdfast.guard.precedents import recorded

SCOPE = Scope("t", "u")
NUMBERS = st.integers(1000, 9_999_999)


def record(text: str, operation: str = "", **data: Any) -> Cube:
    return Cube(SCOPE, text, "experience", data={**({"operation": operation} if operation else {}), **data})


def look_up(who: str) -> dict[str, Any]:
    return {"operation": f"look up {who}", "steps": [{"tool": "get_file", "arguments": {"patient": who}}]}


def test_the_case_that_is_asked_about_stands_in_place_of_the_one_it_was_done_for() -> None:
    told = applied(
        "What does patient P-12 take?", record("What does patient P-7777 take? Looked up", **look_up("P-7777"))
    )
    assert dict(told.data) == look_up("P-12")
    assert told.text == "What does patient P-7777 take? Looked up"


@pytest.mark.parametrize("form", ["P-{}", "patient{}", "ORD{}x", "{}"])
@given(asked=NUMBERS, own=NUMBERS)
def test_whatever_the_record_was_about_all_of_them_come_to_the_same(form: str, asked: int, own: int) -> None:
    wanted, done = form.format(asked), form.format(own)
    told = applied(f"cancel {wanted}", record(f"cancelled {done}", **look_up(done)))
    assert dict(told.data) == look_up(wanted)
    assert dict(applied(f"cancel {wanted}", told.with_(text=f"cancelled {wanted}")).data) == look_up(wanted)


@given(asked=NUMBERS, other=NUMBERS)
def test_who_is_about_the_thing_that_is_asked_about_and_acts_on_another_is_a_substitution(
    asked: int, other: int
) -> None:
    bad = record(f"What does patient P-{asked} take? It is P-{other}.", **look_up(f"P-{other}"))
    if asked == other:
        assert applied(f"What does P-{asked} take?", bad) is bad
        return
    with pytest.raises(ExtractionError, match=f"it is about P-{asked} and acts on P-{other}"):
        applied(f"What does P-{asked} take?", bad)
    with pytest.raises(ExtractionError):
        recorded()(f"What does p-{asked} take?", bad)


def test_a_query_may_name_what_is_too_long_for_a_number() -> None:
    done = record("paid 4711", "pay", target=4711)
    assert applied("pay 815999", done).data["target"] == 815_999
    for digits in (5_000, 100_000):
        assert applied("pay " + "9" * digits, done).data["target"] == "9" * digits


def test_numbers_stay_numbers_and_everything_else_stays_as_it_was() -> None:
    data = {
        "sql": "DELETE FROM beds WHERE id = 4711",
        "steps": [{"tool": "free", "args": {"id": 4711, "ward": 3, "now": True}}],
    }
    told = applied("free bed 1234 on ward 9", record("free bed 4711 on ward 3", note="bed 4711", **data))
    assert told.data["sql"] == "DELETE FROM beds WHERE id = 1234"
    assert told.data["steps"] == [{"tool": "free", "args": {"id": 1234, "ward": 3, "now": True}}]
    assert told.data["note"] == "bed 4711"


@pytest.mark.parametrize(
    ("query", "text", "acted"),
    [
        ("cancel it", "cancelled P-7777", "P-7777"),  # nothing is named
        ("cancel A-1111", "cancelled P-7777", "P-7777"),  # another kind of thing
        ("move P-1111 to P-2222", "moved P-7777 to P-8888", "P-7777"),  # which stands for which?
        ("move P-1111", "moved P-7777 to P-8888", "P-8888"),
        ("cancel P-1111", "cancelled what he said", "P-7777"),  # a thing of its own, whoever asks
        ("cancel P-1111 on ward 3", "cancelled P-7777 on ward 4", "ward 4"),  # small numbers are amounts
        ("the report of 2026-01-02", "the report of 2025-01-02", "report 2025-01-02"),
    ],
)
def test_where_it_is_not_clear_what_stands_for_what_nothing_is_put_in_its_place(
    query: str, text: str, acted: str
) -> None:
    same = record(text, f"cancel {acted}")
    assert applied(query, same) is same


@given(
    st.text(max_size=40),
    st.text(max_size=40),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=12),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(ACTS),
)
def test_whatever_is_written_nothing_but_identifiers_changes(query: str, text: str, value: Any, key: str) -> None:
    before = Cube(SCOPE, text or "-", "experience", data={key: value, "other": value})
    try:
        after = applied(query, before)
    except ExtractionError:
        return
    assert (after.text, after.id, after.data["other"]) == (before.text, before.id, before.data["other"])
    assert _shape(after.data[key]) == _shape(before.data[key])


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shape(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_shape(one) for one in value]
    return type(value)
