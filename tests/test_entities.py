"""Activation over names: what a query names, what is named beside it, and nothing through what may not be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import Memory
from holdfast.retrieve.entities import EntityIndex
from holdfast.retrieve.text import pack_terms

NAMES = ("luna", "emily", "pell", "carag press", "lisbon", "acme")


def index(*rows: tuple[str, ...]) -> EntityIndex:
    found = EntityIndex()
    half = len(rows) // 2
    for start, end in ((0, half), (half, len(rows))):  # as rows come: some now, some later
        found.append(list(range(start, end)), [pack_terms(names) for names in rows[start:end]])
    return found


def everything(count: int) -> np.ndarray:
    return np.ones(count, np.bool_)


def test_a_row_of_the_name_itself_comes_before_one_that_is_reached_over_another() -> None:
    held = index(("luna", "pell"), ("pell", "lisbon"), ("lisbon",), ("acme",), ())
    reached = held.activation(["luna"], everything(5))
    assert reached[0] == pytest.approx(1) and reached[0] > reached[1] > reached[2] > 0
    assert reached[3] == reached[4] == 0


def test_two_names_weigh_by_how_rare_they_are() -> None:
    held = index(("luna",), ("emily",), ("emily",), ("emily",), (), ())
    reached = held.activation(["luna", "emily"], everything(6))
    assert reached[0] > reached[1] == reached[2] and reached[0] + reached[1] == pytest.approx(1, abs=1e-6)


def test_what_is_hidden_leads_nowhere() -> None:
    held = index(("luna", "pell"), ("pell",))
    shown = np.asarray([False, True])
    assert held.activation(["luna"], shown).tolist() == [0, 0]
    assert held.activation(["luna"], shown[:1]).tolist() == [0]
    assert EntityIndex().activation(["luna"], everything(3)).tolist() == [0, 0, 0]


def test_a_name_in_many_rows_passes_nothing_on() -> None:
    crowd = [("luna",)] * 60
    assert index(*crowd, ("luna", "pell"), ("pell",)).activation(["luna"], everything(62))[61] == 0
    assert index(("luna", "pell"), ("pell",)).activation(["luna"], everything(2))[1] > 0


@given(
    st.lists(st.sets(st.sampled_from(NAMES)).map(tuple), min_size=2, max_size=12),
    st.sets(st.sampled_from(NAMES), min_size=1),
)
def test_activation_is_a_share_and_all_of_it_only_where_all_names_are(rows, asked) -> None:
    reached = index(*rows).activation(sorted(asked), everything(len(rows)))
    assert (reached >= 0).all() and (reached <= 1 + 1e-6).all()
    for row, level in zip(rows, reached.tolist(), strict=True):
        if asked <= set(row):
            assert level == pytest.approx(1, abs=1e-5)
        elif not asked & set(row):
            assert level <= 0.7 + 1e-6


def test_a_question_finds_what_is_known_under_another_name(tmp_path: Path) -> None:
    with Memory(tmp_path / "m", user="ana", embedder=None, encoders=(), background=False) as memory:
        memory.add(
            [
                {"role": "user", "content": "We sailed on the Marigold with Captain Okafor."},
                *({"role": "user", "content": f"Lunch number {n} was a soup."} for n in range(30)),
                {"role": "user", "content": "By the way, Captain Okafor lives in Porto now."},
            ]
        )
        memory.flush()
        hits = memory.search("Which city does the skipper of the Marigold live in?", k=3)
        assert "Porto" in hits[1].text and hits[1].channels["entities"] > 0, [hit.text for hit in hits]
