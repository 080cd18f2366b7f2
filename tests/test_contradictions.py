"""The sheaf of statements: cohomology against dense linear algebra, what contradicts what and when, and what is proposed."""

from __future__ import annotations

import itertools
import uuid
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import lsqr

from holdfast.cube import Cube, Origin, Scope, Status, to_micros
from holdfast.errors import InputError
from holdfast.manage.contradictions import Contradictions
from holdfast.manage.sheaf import Sheaf, coboundary
from holdfast.manage.statements import SAME_AS, Statement, learnt_at, statement_of
from shelf import Shelf

SCOPE = Scope("acme", "ana")


def day(month: int, year: int = 2025) -> datetime:
    return datetime(year, month, 1, tzinfo=UTC)


NOW = day(12)


def lives(who: str, where: str, **fields: object) -> Statement:
    return Statement(who, "lives in", where, functional=True, **fields)


def older(who: str, by: float, than: str, **fields: object) -> Statement:
    return Statement(who, "age", by, "years", other=than, **fields)


# --- the numbers ---


def test_direct_disagreement_splits_evenly():
    report = Sheaf([Statement("Ana", "age", 30)]).add(Statement("ana ", "Age", 31))
    np.testing.assert_allclose(report.h, [0.5, 0.5])
    (suggestion,) = report.suggested
    assert suggestion.direct and suggestion.statement.value == 30 and suggestion.against[0].value == 31


@pytest.mark.parametrize("length", [3, 4, 5])
def test_a_cycle_that_does_not_close_shares_the_gap(length):
    names = [f"p{i}" for i in range(length)]
    path = [older(a, 2, b) for a, b in itertools.pairwise(names)]
    sheaf = Sheaf()
    assert all(sheaf.add(statement).consistent for statement in path)
    # 2(n − 1) years along the path, so going back it must be minus that; 3 years off is 3/n on every edge.
    report = sheaf.add(older(names[-1], -2 * (length - 1) + 3, names[0]))
    np.testing.assert_allclose(report.h, 3 / length)
    assert not report.suggested[0].direct and report.suggested[0].close_at is None
    closing = Sheaf(path).add(older(names[-1], -2 * (length - 1), names[0]))
    assert closing.consistent and (closing.h < 1e-12).all()


def test_cohomology_is_of_the_structure_and_contradiction_of_the_data():
    cycle = [older("a", 1, "b"), older("b", 1, "c"), older("c", -2, "a")]
    delta = coboundary(cycle)
    assert delta.matrix.shape == (3, 3)
    # One cycle, one class in H¹, and yet nothing contradicts: a non-zero dim H¹ only makes it possible.
    assert len(delta.cochain) - np.linalg.matrix_rank(delta.matrix) == 1
    assert np.abs(delta.residual()).max() < 1e-12
    wrong = coboundary([*cycle[:2], older("c", 5, "a")])
    np.testing.assert_allclose(wrong.matrix, delta.matrix)
    np.testing.assert_allclose(np.abs(wrong.residual()), 7 / 3)


def test_redundancy_localises_the_blame():
    names = "abcdef"
    truth = {name: 10.0 * i for i, name in enumerate(names)}
    statements = [older(a, truth[a] - truth[b], b) for a, b in itertools.combinations(names, 2)]
    statements[7] = older(statements[7].entity, statements[7].value + 4, statements[7].other)
    report = Sheaf(statements).check()[0]
    assert report.blamed[0] is statements[7]
    # In the complete graph the wrong edge keeps 1 − 2/n of its error.
    np.testing.assert_allclose(report.h.max(), 4 * (1 - 2 / 6))
    assert [suggestion.statement for suggestion in report.suggested] == [statements[7]]


edges = st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(-9, 9)).filter(lambda e: e[0] != e[1])


@settings(deadline=None)
@given(st.lists(edges, min_size=1, max_size=14), st.lists(st.tuples(st.integers(0, 5), st.integers(-9, 9)), max_size=5))
def test_residual_matches_least_squares(links, values):
    statements = [older(f"v{a}", c, f"v{b}") for a, b, c in links] + [
        Statement(f"v{a}", "age", c, "years") for a, c in values
    ]
    delta = coboundary(statements)
    expected = delta.cochain - delta.matrix @ lsqr(delta.matrix, delta.cochain, atol=1e-14, btol=1e-14)[0]
    np.testing.assert_allclose(delta.residual(), expected, atol=1e-6)
    # h is orthogonal to the image of δ, and vanishes iff c lies in it (exactly: the potentials can be read off a tree).
    np.testing.assert_allclose(delta.matrix.T @ delta.residual(), 0, atol=1e-9)
    consistent = not Sheaf(statements).check()
    assert consistent == _propagates(links, values)


def _propagates(links: list[tuple[int, int, int]], values: list[tuple[int, int]]) -> bool:
    """Whether exact integers can be assigned, by breadth-first search from a ground vertex."""
    neighbours: dict[object, list[tuple[object, int]]] = {}
    for a, b, c in [*links, *((a, "ground", c) for a, c in values)]:
        neighbours.setdefault(a, []).append((b, -c))
        neighbours.setdefault(b, []).append((a, c))
    known: dict[object, int] = {}
    for root in ["ground", *neighbours]:
        if root in known:
            continue
        known[root] = 0
        queue = [root]
        for node in queue:
            for other, step in neighbours.get(node, ()):
                if other not in known:
                    known[other] = known[node] + step
                    queue.append(other)
                elif known[other] != known[node] + step:
                    return False
    return True


def test_large_components_use_conjugate_gradients_and_agree():
    n = 600
    rng = np.random.default_rng(0)
    links = [(i, i + 1) for i in range(n)] + [tuple(rng.choice(n, 2, replace=False)) for _ in range(300)]
    statements = [older(f"v{a}", float(rng.integers(-5, 5)), f"v{b}") for a, b in links]
    delta = coboundary(statements)
    solution = np.linalg.lstsq(delta.matrix, delta.cochain, rcond=None)[0]
    np.testing.assert_allclose(delta.residual(), delta.cochain - delta.matrix @ solution, atol=1e-8)


def test_scaled_relations_use_their_restriction_map():
    statements = [Statement("Ana", "wage", other="Bo", scale=2.0), Statement("Bo", "wage", 40)]
    assert Sheaf(statements).add(Statement("Ana", "wage", 80)).consistent
    report = Sheaf(statements).add(Statement("Ana", "wage", 90))
    # x − 2y = 0, y = 40, x = 90: the gap of 10 over (1, −2, 1) squared.
    np.testing.assert_allclose(report.h, [10 / 6, 20 / 6, 10 / 6])


# --- what contradicts what ---


@pytest.mark.parametrize(
    ("statements", "consistent"),
    [
        ([lives("Ana", "Lisbon"), lives("Ana", "lisbon.")], True),
        ([lives("Ana", "Lisbon"), lives("Ana", "Porto")], False),
        ([lives("Ana", "Lisbon"), lives("Bo", "Porto")], True),
        ([lives("Ana", "Lisbon"), Statement("Ana", "works in", "Porto", functional=True)], True),
        ([Statement("Ana", "likes", "jazz"), Statement("Ana", "likes", "rock")], True),
        ([Statement("Ana", "likes", "jazz"), Statement("Ana", "likes", "jazz", polarity=False)], False),
        ([lives("Ana", "Lisbon"), lives("Ana", "Porto", polarity=False)], True),
        ([lives("Ana", "Lisbon"), lives("Ana", "Lisbon", polarity=False)], False),
        ([lives("Ana", "Paris", polarity=False), lives("Ana", "Porto", polarity=False)], True),
        ([Statement("Ana", "height", 180, "cm"), Statement("Ana", "height", "1.8 m")], True),
        ([Statement("Ana", "height", 180, "cm"), Statement("Ana", "height", "1.9 m")], False),
        ([Statement("Ana", "age", "30"), Statement("Ana", "age", 30, "years")], True),
        ([Statement("Ana", "age", "31"), Statement("Ana", "age", 30, "years")], False),
        ([Statement("Ana", "size", 180, "cm"), Statement("Ana", "size", 70, "kg")], True),
        ([Statement("Ana", "pay", 3000, "EUR"), Statement("Ana", "pay", "3,000 EUR")], True),
        ([Statement("Ana", "pay", 3000, "EUR"), Statement("Ana", "pay", 3000, "USD")], True),
        ([Statement("Ana", "age", 30), Statement("Ana", "age", 30, polarity=False)], False),
        ([Statement("Ana", "age", 30), Statement("Ana", "age", 31, polarity=False)], True),
        (
            [
                Statement("Ana", "lucky number", 7, functional=False),
                Statement("Ana", "lucky number", 13, functional=False),
            ],
            True,
        ),
        ([lives("Bob", "Porto"), lives("Robert", "Lisbon")], True),
        ([lives("Bob", "Porto"), lives("Robert", "Lisbon"), Statement("Bob", SAME_AS, "Robert")], False),
        ([lives("Bob", "Porto"), lives("Robert", "Porto"), Statement("Bob", SAME_AS, "Robert")], True),
        (
            [lives("A", "Porto"), Statement("A", SAME_AS, "B"), Statement("B", SAME_AS, "C"), lives("C", "Lisbon")],
            False,
        ),
        ([lives("A", "Porto"), Statement("A", "lives in", other="B"), lives("B", "Lisbon")], False),
        ([Statement("A", "age", 30), older("A", 2, "B"), older("B", 2, "C"), Statement("C", "age", 26)], True),
        ([Statement("A", "age", 30), older("A", 2, "B"), older("B", 2, "C"), Statement("C", "age", 27)], False),
    ],
)
def test_what_contradicts(statements, consistent):
    for order in (statements, statements[::-1]):
        assert (not Sheaf(order).check()) == consistent
        assert Sheaf(order[:-1]).add(order[-1]).consistent == consistent


def test_indirect_contradictions_are_invisible_to_every_pair():
    statements = [lives("A", "Porto"), Statement("A", SAME_AS, "B"), lives("B", "Lisbon")]
    assert len(Sheaf(statements).check()) == 1
    assert all(not Sheaf(pair).check() for pair in itertools.combinations(statements, 2))


def test_disjoint_times_do_not_contradict():
    porto = lives("Ana", "Porto", valid_from=day(1), valid_to=day(5))
    assert Sheaf([porto]).add(lives("Ana", "Lisbon", valid_from=day(5))).consistent
    assert not Sheaf([porto]).add(lives("Ana", "Lisbon", valid_from=day(4))).consistent
    # The alias, too, holds for a while: it carries the contradiction only then.
    for until, consistent in ((day(3), True), (day(8), False)):
        sheaf = Sheaf([lives("Bo", "Porto", valid_from=day(4)), lives("Robert", "Lisbon")])
        assert sheaf.add(Statement("Bo", SAME_AS, "Robert", valid_from=day(1), valid_to=until)).consistent == consistent


def test_a_contradiction_needs_one_time_at_which_all_hold():
    # Each pair of the cycle overlaps, the three never do.
    cycle = [
        older("a", 1, "b", valid_from=day(1), valid_to=day(4)),
        older("b", 1, "c", valid_from=day(3), valid_to=day(8)),
        older("c", 9, "a", valid_from=day(6), valid_to=day(9)),
    ]
    assert not Sheaf(cycle).check()
    assert Sheaf([*cycle[:2], older("c", 9, "a", valid_from=day(3))]).check()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=7))
def test_overlaps_match_a_scan_of_every_day(spans):
    statements = [
        Statement(
            "Ana", "age", value, valid_from=day(start), valid_to=day(start + length) if start + length < 13 else None
        )
        for start, length, value in spans
    ]
    clash = any(len({c.value for c in statements if c.start <= day(month) < c.end}) > 1 for month in range(1, 13))
    assert bool(Sheaf(statements).check()) == clash


# --- who yields ---


def test_trust_decides_before_recency():
    old, new = lives("Ana", "Porto", recorded_at=day(1)), lives("Ana", "Lisbon", recorded_at=day(3))
    (suggestion,) = Sheaf([old]).add(new).suggested
    assert suggestion.statement is old and suggestion.close_at == day(3)
    doubtful = lives("Ana", "Lisbon", recorded_at=day(3), trust=0.5)
    (suggestion,) = Sheaf([old]).add(doubtful).suggested
    assert suggestion.statement is doubtful and suggestion.close_at == day(3)  # it never held
    assert "trust 0.5" in suggestion.reason


def test_each_loser_is_closed_once_and_the_newest_stands():
    statements = [
        lives("Ana", city, recorded_at=day(month)) for month, city in enumerate(("Porto", "Faro", "Lisbon"), 1)
    ]
    (report,) = Sheaf(statements).check()
    assert {s.statement.value: s.close_at for s in report.suggested} == {"Porto": day(2), "Faro": day(3)}


def test_a_stay_within_a_longer_one_is_left_to_a_person():
    home = lives("Ana", "Porto", valid_from=day(1), recorded_at=day(1))
    trip = lives("Ana", "Rome", valid_from=day(4), valid_to=day(5), recorded_at=day(4))
    (suggestion,) = Sheaf([home]).add(trip).suggested
    assert suggestion.statement is home and suggestion.close_at is None


def test_the_least_trusted_of_a_cycle_yields():
    cycle = [older("a", 1, "b"), older("b", 1, "c", trust=0.4), older("c", 5, "a")]
    (suggestion,) = Sheaf(cycle).check()[0].suggested
    assert suggestion.statement is cycle[1] and set(suggestion.against) == {cycle[0], cycle[2]}


def test_suggestions_suffice():
    rng = np.random.default_rng(5)
    for _ in range(30):
        statements = [
            older(f"v{a}", float(rng.integers(0, 3)), f"v{b}") for a, b in rng.integers(0, 6, (12, 2)) if a != b
        ]
        statements += [Statement(f"v{rng.integers(6)}", "age", float(rng.integers(0, 5)), "years") for _ in range(4)]
        losers = [s.statement for report in Sheaf(statements).check() for s in report.suggested]
        assert not Sheaf([statement for statement in statements if statement not in losers]).check()


@pytest.mark.parametrize(
    "fields",
    [
        {"entity": " "},
        {"attribute": ""},
        {"value": None},
        {"value": ""},
        {"value": float("nan")},
        {"other": "Bo", "value": "text"},
        {"other": "Bo", "polarity": False},
        {"attribute": SAME_AS, "polarity": False},
        {"attribute": SAME_AS, "value": 3},
        {"other": "Bo", "value": 1, "scale": 0.0},
        {"valid_from": day(3), "valid_to": day(2)},
    ],
)
def test_wrong_statements_are_refused(fields):
    with pytest.raises(InputError):
        Statement(**{"entity": "Ana", "attribute": "age", "value": 30, **fields})


def test_one_attribute_a_coboundary():
    with pytest.raises(InputError):
        coboundary([Statement("Ana", "age", 3), Statement("Ana", "height", 3)])


# --- the manager ---


def cube(value: object, month: int, *, trust: float = 1.0, author: str | None = None, **fields: object) -> Cube:
    data = {"subject": "Ana", "attribute": "lives in", "value": value, "functional": True, **fields.pop("data", {})}
    origin = Origin(trust=trust, author=author)
    fields.setdefault("id", uuid7(month))
    return Cube(SCOPE, f"Ana: {value}", kind="fact", data=data, origin=origin, recorded_at=day(month), **fields)


_serial = itertools.count()


def uuid7(month: int) -> str:
    """A UUIDv7 as it would have been made then."""
    stamp = to_micros(day(month)) // 1000
    return str(uuid.UUID(int=stamp << 80 | 0x7 << 76 | 0b10 << 62 | next(_serial)))


def test_manager_closes_the_loser_and_keeps_both():
    porto, lisbon = cube("Porto", 1), cube("Lisbon", 3)
    shelf = Shelf(porto, lisbon, Cube(SCOPE, "I live in Rome", data=dict(porto.data)))
    (operation,) = Contradictions().manage(shelf, SCOPE, NOW)
    assert operation.cube == porto.with_(valid_to=day(3))
    assert lisbon.id in operation.reason and "Lisbon" not in operation.reason
    shelf.commit([operation])
    assert Contradictions().manage(shelf, SCOPE, NOW) == []
    assert [c.text for c in shelf.select(SCOPE) if c.kind == "fact" and c.valid_at(NOW)] == ["Ana: Lisbon"]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Porto", "Lisbon", "Faro"]),
            st.integers(1, 11),
            st.sampled_from([0.5, 1.0]),
            st.sampled_from([None, 1, 4, 7]),
            st.sampled_from([None, None, 12]),
        ),
        max_size=6,
    )
)
def test_manager_settles_in_one_pass_without_losing_a_cube(rows):
    facts = [
        cube(city, month, trust=trust, valid_from=start and day(start), valid_to=end and day(end))
        for city, month, trust, start, end in rows
    ]
    shelf = Shelf(*facts)
    shelf.commit(Contradictions().manage(shelf, SCOPE, NOW))
    assert len(shelf.cubes) == len(facts)
    again = Contradictions().manage(shelf, SCOPE, NOW)
    assert again == []
    for fact in facts:
        now = shelf.cubes[fact.id]
        assert now.with_(version=1, valid_to=None) == fact.with_(valid_to=None)


def test_an_old_fact_is_not_newer_for_having_been_touched():
    touched = cube("Porto", 1, version=4).with_(recorded_at=day(9))
    (operation,) = Contradictions().manage(Shelf(cube("Lisbon", 3), touched), SCOPE, NOW)
    assert operation.cube == touched.with_(valid_to=day(3))
    assert learnt_at(touched, NOW) == day(1)
    # What was said decides, where it says so; an id without a time leaves the version's.
    assert learnt_at(touched.with_(data={"said_at": "2024-05-01"}), NOW) == day(5, 2024)
    assert learnt_at(touched.with_(data={"said_at": "yesterday"}), NOW) == day(1)
    assert learnt_at(touched.with_(id=str(uuid.uuid5(uuid.NAMESPACE_OID, "x"))), NOW) == day(9)


def test_manager_leaves_frozen_quarantined_and_foreign_facts():
    frozen = cube("Porto", 1, status=Status.FROZEN)
    assert Contradictions().manage(Shelf(frozen, cube("Lisbon", 3)), SCOPE, NOW) == []
    poison = cube("Rome", 5, status=Status.QUARANTINED)
    assert Contradictions().manage(Shelf(cube("Porto", 1), poison), SCOPE, NOW) == []
    other = Cube(Scope("acme", "bo"), "x", kind="fact", data=dict(frozen.data), recorded_at=day(1))
    assert Contradictions().manage(Shelf(other, cube("Lisbon", 3)), SCOPE, NOW) == []


def test_no_fact_is_closed_on_the_word_of_a_third_person():
    own = cube("Porto", 1, author="Ana")
    assert Contradictions().manage(Shelf(own, cube("Rome", 3, author="Mallory")), SCOPE, NOW) == []
    assert len(Contradictions().manage(Shelf(own, cube("Rome", 3, author="ana")), SCOPE, NOW)) == 1
    # Ana may correct what Bo said of her, and a source of more trust may correct anybody.
    assert (
        len(Contradictions().manage(Shelf(cube("Rome", 1, author="Bo"), cube("Faro", 3, author="Ana")), SCOPE, NOW))
        == 1
    )
    doubted = cube("Porto", 1, author="Ana", trust=0.5)
    assert len(Contradictions().manage(Shelf(doubted, cube("Rome", 3, author="Registry")), SCOPE, NOW)) == 1


def test_indirect_contradictions_are_reported_and_never_closed():
    alias = Cube(
        SCOPE,
        "Ana is Anna",
        kind="fact",
        recorded_at=day(2),
        data={"subject": "Ana", "attribute": SAME_AS, "value": "Anna"},
    )
    shelf = Shelf(cube("Porto", 1), alias, cube("Lisbon", 3, data={"subject": "Anna"}))
    manager = Contradictions()
    assert manager.manage(shelf, SCOPE, NOW) == []
    (report,) = manager.sheaf(shelf, SCOPE, NOW).check()
    assert len(report.edges) == 3


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"subject": "Ana", "attribute": "age"},
        {"subject": "Ana", "attribute": "age", "value": ["a"]},
        {"subject": 3, "attribute": "age", "value": 3},
        {"subject": "", "attribute": "age", "value": 3},
    ],
)
def test_data_that_is_no_statement_is_passed_over(data):
    assert statement_of(Cube(SCOPE, "x", kind="fact", data=data), NOW) is None


def test_a_cube_says_when_it_was_learnt_and_how_it_compares():
    data = {
        "subject": "Ana",
        "attribute": "pay",
        "value": "three thousand",
        "canonical": "3000",
        "polarity": "negative",
    }
    statement = statement_of(Cube(SCOPE, "x", kind="fact", data={**data, "said_at": "2024-05-01"}), NOW)
    assert (
        statement is not None and not statement.polarity and statement.recorded_at == datetime(2024, 5, 1, tzinfo=UTC)
    )
    assert statement.content == Statement("ana", "Pay", "3,000", polarity=False).content
    assert Statement("a", "size", "1 km").content == Statement("A", "size", 1000, "metres").content
    assert Statement("a", "size", "1 km").content != Statement("A", "size", 1000, "kg").content
