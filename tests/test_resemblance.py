"""Sessions most like some texts: the right one first, whatever the order, and nothing that the scope may not see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import Memory
from holdfast.errors import EmbedderError, InputError
from holdfast.retrieve.gaussian import fisher_rao
from holdfast.retrieve.resemblance import known_mean
from support import HashEmbedder

TALKS = {
    "garden": [
        "the roses need water",
        "roses and tulips grow",
        "water the tulips in the garden",
        "the garden needs roses",
    ],
    "boat": ["the sail is torn", "a torn sail on the boat", "the boat needs a mast", "mast and sail for the boat"],
    "tea": ["green tea with milk", "milk or lemon in tea", "the tea was too hot", "lemon tea is green"],
}


@pytest.fixture
def memory(tmp_path: Path):
    with Memory(tmp_path / "m", user="ana", embedder=HashEmbedder(), encoders=(), background=False) as opened:
        for session, turns in TALKS.items():
            opened.add(turns, session=session)
        opened.flush()
        yield opened


def test_a_conversation_finds_the_one_that_it_is_like(memory: Memory) -> None:
    found = memory.alike(["is the boat a sail boat", "the mast of the boat"])
    assert found[0].session == "boat" and len(found) == 3
    assert [one.distance for one in found] == sorted(one.distance for one in found)
    assert {one.turns for one in found} == {4}
    # Each distance is that of the two known means, and of nothing simpler.
    embed = HashEmbedder().embed
    prior = np.maximum(
        embed([turn for turns in TALKS.values() for turn in turns]).astype(np.float16).var(0, np.float64), 1e-8
    )
    asked = known_mean(embed(["is the boat a sail boat", "the mast of the boat"]).astype(np.float64), prior)
    for one in found:
        held = known_mean(embed(TALKS[one.session]).astype(np.float64), prior)
        assert one.distance == pytest.approx(float(fisher_rao(*asked, *held)), rel=0.02)
    assert [one.session for one in memory.alike(TALKS["tea"], k=1)] == ["tea"]
    assert memory.alike(TALKS["tea"])[0].distance == pytest.approx(0, abs=0.2)
    there, back = memory.alike(TALKS["garden"]), memory.alike(TALKS["garden"][::-1])
    assert [one.session for one in there] == [one.session for one in back]
    assert [one.distance for one in there] == pytest.approx([one.distance for one in back])


def test_it_sees_what_the_scope_may_see(memory: Memory) -> None:
    memory.add(["the boat is here", "the sail of the boat"], user="ben", session="his")
    memory.add(["the boat of the agent", "an agent sails the boat"], agent="scout", session="boat")
    memory.add(["a single turn of its own"], session="short")
    memory.add(["in no session at all", "the boat and its sail"])
    memory.flush()
    everything = memory.alike(["the boat", "the sail"], k=10)
    assert {one.agent for one in everything if one.session == "boat"} == {None, "scout"}
    assert {one.session for one in everything} == {"garden", "boat", "tea"} and len(everything) == 4
    assert [one.agent for one in memory.alike(["the boat", "the sail"], agent="scout")] == ["scout"]
    assert memory.alike(["the boat", "the sail"], user="nobody") == []
    for cube in list(memory.select(session="tea")):
        memory.retract(cube.id, session="tea")
    assert "tea" not in {one.session for one in memory.alike(["green tea", "milk"], k=10)}


def test_one_text_and_no_embedder_are_refused(memory: Memory, tmp_path: Path) -> None:
    for wrong in ("a single text", ["one"], [], ["two", 3]):
        with pytest.raises(InputError, match="several texts"):
            memory.alike(wrong)
    with Memory(tmp_path / "lexical", user="ana", embedder=None, background=False) as lexical:
        lexical.add(["one", "two"], session="s")
        with pytest.raises(EmbedderError, match="no embedder"):
            lexical.alike(["one", "two"])
    with Memory(tmp_path / "early", user="ana", embedder=HashEmbedder(), background=False) as early:
        early.add(["one", "two"], session="s")
        with pytest.raises(EmbedderError, match="flush"):
            early.alike(["one", "two"])


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(1, 12), st.integers(0, 1000))
def test_the_mean_is_known_the_better_the_more_is_seen(n: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, variance = rng.normal(size=(n, d)), np.full(d, 0.5)
    mean, spread = known_mean(rows, variance)
    scatter = ((rows - rows.mean(0)) ** 2).sum(0)
    assert np.allclose(mean, rows.mean(0)) and np.allclose(spread**2 * n, (4 * 0.5 + scatter) / (4 + n - 1))
    _, surer = known_mean(np.concatenate((rows, rows)), variance)
    assert (surer < spread).all()
    assert fisher_rao(mean, spread, mean, spread) == 0
