"""Consolidation: what counts as the same memory, what a merge keeps, and how a proposal is shown."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.cube import Channel, Cube, Origin, Policy, Ref, Scope, Status, Use
from holdfast.errors import InputError, NotFoundError
from holdfast.manage.consolidation import Consolidation, diff
from holdfast.store.base import Operation
from shelf import Shelf

SCOPE = Scope("acme", "ana")
LONG = "Ana told the team on Monday that she will lead the Lisbon office from next spring"


def day(month: int) -> datetime:
    return datetime(2025, month, 1, tzinfo=UTC)


NOW = day(12)


def note(text: str, month: int = 1, **fields: object) -> Cube:
    return Cube(
        fields.pop("scope", SCOPE),
        text,
        kind=fields.pop("kind", "fact"),
        recorded_at=day(month),
        id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{text}/{month}")),
        **fields,
    )


def claim(value: object, month: int = 1, text: str | None = None, **fields: object) -> Cube:
    data = {"subject": "Ana", "attribute": "lives in", "value": value, "functional": True, **fields.pop("data", {})}
    return note(text or f"Ana lives in {value}", month, data=data, **fields)


def merged(*cubes: Cube, **options: object) -> dict[str, Cube]:
    operations = Consolidation(**options).manage(Shelf(*cubes), SCOPE, NOW)
    return {operation.cube.id: operation.cube for operation in operations if operation.cube}


def pairs(first: str, second: str, **options: object) -> bool:
    return bool(merged(note(first, 1), note(second, 2), **options))


def test_the_same_claim_in_other_words_is_merged_into_the_fullest():
    short, full = claim("Lisbon", 1), claim("lisbon ", 3, "Ana lives in Lisbon by the river")
    after = merged(short, full)
    assert after[short.id] == short.with_(status=Status.MERGED)
    assert after[full.id].text == full.text and after[full.id].status is full.status
    assert after[full.id].origin.derived_from == (short.ref,)
    assert after[full.id].valid_from == day(1)  # it has been true since it was first said


def test_lineage_and_use_are_joined():
    source, other = Ref("turn-1", 1), Ref("turn-2", 3)
    first = claim("Lisbon", 1, origin=Origin(derived_from=(source,)), use=Use(2, day(3), 1.0, 0.5))
    second = claim("Lisbon", 2, origin=Origin(derived_from=(other, source)), use=Use(6, day(2), 0.0, 0.25))
    keeper = merged(first, second)[first.id]
    assert keeper.origin.derived_from == (source, other, second.ref)
    assert keeper.use == Use(8, day(3), 0.25, 0.25)


def test_a_merge_settles_and_undoes():
    cubes = [claim("Lisbon", month) for month in (1, 2, 3)]
    shelf = Shelf(*cubes)
    operations = Consolidation().manage(shelf, SCOPE, NOW)
    assert len(operations) == 3
    shelf.commit(operations)
    assert Consolidation().manage(shelf, SCOPE, NOW) == []
    assert [c.status for c in shelf.cubes.values()].count(Status.MERGED) == 2


@pytest.mark.parametrize("kind", ["message", "document", "experience", "skill"])
def test_verbatim_records_are_never_touched(kind):
    assert merged(note(LONG, 1, kind=kind), note(LONG, 2, kind=kind)) == {}
    assert merged(note(LONG, 1, kind=kind), note(LONG, 2)) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"scope": Scope("acme", "ana", "agent")},
        {"kind": "summary"},
        {"policy": Policy(readers=("bo",))},
        {"policy": Policy(expires_at=NOW)},
        {"origin": Origin(trust=0.9)},
        {"origin": Origin(channel=Channel.TOOL)},
        {"status": Status.FROZEN},
        {"status": Status.QUARANTINED},
        {"status": Status.ARCHIVED},
        {"valid_to": day(11)},
        {"data": {"step": 2}},
    ],
)
def test_what_differs_in_anything_else_stays_apart(change):
    assert merged(note(LONG, 1), note(LONG, 2)) != {}
    assert merged(note(LONG, 1), note(LONG, 2, **change)) == {}


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (LONG, LONG + ".", True),
        (LONG, LONG.upper(), True),
        (LONG, LONG.replace("the team", "team"), True),
        (LONG, LONG + " again", True),
        (LONG, LONG.replace("Monday", "Tuesday"), False),
        (LONG, LONG.replace("will", "will not"), False),
        (LONG, LONG.replace("will", "won't"), False),
        (LONG, LONG + "?", False),
        ("Ana manages Bo", "Bo manages Ana", False),
        (
            "It is -5 degrees outside the house in the north today",
            "It is 5 degrees outside the house in the north today",
            False,
        ),
        (
            "Bo owes Ana €40 for the dinner on the last day of May",
            "Bo owes Ana $40 for the dinner on the last day of May",
            False,
        ),
        ("Ana likes tea", "Ana likes green tea", False),
        ("", "", False),
    ],
)
def test_near_duplicates_of_texts(first, second, same):
    if first:
        assert pairs(first, second) == same == pairs(second, first)
    else:
        assert not merged(note(first, 1, data={"a": 1}), note(second, 2, data={"a": 1}))


def test_two_claims_are_merged_only_if_they_are_one():
    assert merged(claim("Lisbon", 1, LONG), claim("Porto", 2, LONG)) == {}
    assert merged(claim("Lisbon", 1, LONG), claim("Lisbon", 2, LONG, data={"polarity": False})) == {}
    assert merged(claim("180 cm", 1), claim("1.8 m", 2)) != {}


def test_what_was_true_twice_is_two_facts():
    before = claim("Lisbon", 1, valid_from=day(1), valid_to=day(3))
    assert merged(before, claim("Lisbon", 5, valid_from=day(5))) == {}
    assert merged(before, claim("Lisbon", 5, valid_from=day(5), valid_to=day(3 + 4))) == {}


def test_vectors_where_given_must_agree():
    a, b = note(LONG, 1), note(LONG + " again", 2)
    near = {a.id: np.array([1.0, 0.0]), b.id: np.array([0.99, 0.1])}
    apart = {a.id: np.array([1.0, 0.0]), b.id: np.array([0.0, 1.0])}
    assert merged(a, b, vectors=near) and merged(a, b, vectors={a.id: near[a.id]})
    assert not merged(a, b, vectors=apart)
    assert not merged(a, b, vectors={a.id: near[a.id], b.id: np.zeros(2)})


def test_the_threshold_is_the_jaccard_of_the_words():
    # 9 words of 10.
    first, second = "one two three four five six seven eight nine", "one two three four five six seven eight nine ten"
    assert pairs(first, second, jaccard=0.9) and not pairs(first, second, jaccard=0.91)
    for wrong in ({"jaccard": 0.0}, {"cosine": 1.5}):
        with pytest.raises(InputError):
            Consolidation(**wrong)


words = st.lists(
    st.sampled_from(["ana", "bo", "tea", "not", "rome", "5", "five", "likes", "the", "a"]), min_size=1, max_size=7
)


@settings(deadline=None)
@given(st.lists(words, min_size=1, max_size=8), st.floats(0.3, 1.0))
def test_merging_loses_no_word_and_no_cube(texts, jaccard):
    cubes = [note(" ".join(text), 1 + i) for i, text in enumerate(texts)]
    shelf = Shelf(*cubes)
    operations = Consolidation(jaccard=jaccard).manage(shelf, SCOPE, NOW)
    touched = [operation.cube.id for operation in operations if operation.cube]
    assert len(touched) == len(set(touched))
    shelf.commit(operations)
    assert len(shelf.cubes) == len(cubes)
    live = [c for c in shelf.cubes.values() if c.status is not Status.MERGED]
    for cube in cubes:
        if shelf.cubes[cube.id].status is Status.MERGED:
            (keeper,) = [c for c in live if cube.ref in c.origin.derived_from]
            assert set(cube.text.split()) - {"the", "a"} <= set(keeper.text.split())
            assert ("not" in cube.text.split()) == ("not" in keeper.text.split())


def test_many_cubes_are_compared_quickly():
    cubes = [note(f"Note {i} says that item {i * 7} of box {i % 50} was moved to shelf {i * 3}") for i in range(2000)]
    assert merged(*cubes) == {}


# --- the diff ---


def test_diff_shows_what_goes_and_what_comes():
    first, second = claim("Lisbon", 1), claim("Lisbon", 2)
    shelf = Shelf(first, second)
    text = diff(Consolidation().manage(shelf, SCOPE, NOW), shelf, SCOPE)
    assert text.splitlines() == [
        f"update fact {first.id}: takes over {second.id}",
        f'  + origin.derived_from: [["{second.id}", 1]]',
        f"update fact {second.id}: merged into {first.id}: both state the same claim",
        '  - status: "generated"',
        '  + status: "merged"',
    ]


def test_diff_of_the_other_operations():
    old = note("Gone", 1)
    shelf = Shelf(old)
    new = note("New", 2)
    text = diff([Operation.add(new, "because"), Operation.delete(old), Operation.none("dull")], shelf, SCOPE)
    assert '  + text: "New"' in text and '  - text: "Gone"' in text and text.endswith("none: dull")
    assert f"add fact {new.id}: because" in text
    with pytest.raises(NotFoundError):
        diff([Operation.update(old)], shelf, Scope("acme", "bo"))
