"""Claim 44's worlds and scripted parts: solvable, unforgiving, and known to agents through text alone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from holdfast import Memory
from holdfast.claims.c44_intrinsic_memory_agents import _play_meeting, _play_plan
from holdfast.claims.roles_arms import OMITTED, WINDOW, Kept, Known, Scribe, Window, facts_in, sentence
from holdfast.claims.roles_world import DOMAINS, ITEMS, KEEPER, PLANNER, ROLES, Fact, meeting, perform, plan


@pytest.mark.parametrize("seed", range(3))
def test_who_knows_all_succeeds_and_who_knows_the_last_turns_does_not(seed: int) -> None:
    for make, play in ((plan, _play_plan), (meeting, _play_meeting)):
        episode = make(f"test {seed}")
        known = play(episode, Window("oracle", truth=episode.truth), random.Random(0))
        assert (
            known.whole and known.success == known.retained == 1 and not known.violations and not known.contradictions
        )
        assert play(episode, Window("none"), random.Random(0)).success < 0.5


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda one: one.name)
def test_a_simulator_takes_an_item_from_where_it_is_alone(domain: object) -> None:
    episode = next(one for one in (plan(f"{n}") for n in range(200)) if one.domain == domain)
    fact, goal = episode.truth[KEEPER][0], episode.truth[PLANNER][0]
    tool = f"north {episode.domain.tool}"
    state = dict(episode.state or {})
    assert not perform(episode, state, fact.subject, "nowhere", goal.value, tool) and state[fact.subject] == fact.value
    assert perform(episode, state, fact.subject, fact.value, goal.value, tool) and state[fact.subject] == goal.value


def test_an_episode_is_as_the_sheet_has_it() -> None:
    episode = meeting("m")
    told = [turn for turn in episode.turns if turn.facts]
    assert 1 - len(told) / len(episode.turns) == pytest.approx(0.3, abs=0.01)
    assert list(episode.truth) == list(ROLES) and all(len(facts) == ITEMS for facts in episode.truth.values())
    last = {fact.subject: fact for turn in told for fact in turn.facts}
    assert all(last[fact.subject] == fact for facts in episode.truth.values() for fact in facts)


def test_what_is_said_is_read_back_and_the_last_word_holds() -> None:
    facts = [
        Fact("goal", "amber crate", "north dock 2", "by contract"),
        Fact("requirement", "data disk quota", "45 units", ""),
    ]
    assert facts_in(f"By the way. Noted: {'; '.join(map(sentence, facts))}.") == facts
    context = "<memory>\ngoals:\n- amber crate: south dock 1 (seen today)\ndone:\n- black crate\n</memory>\n"
    assert Known(context).of("goal", "amber crate") == "south dock 1" and Known(context).done == {"black crate"}
    assert (
        Known(f"{context}<turn of=x>Change: {sentence(facts[0])}.</turn>").of("goal", "amber crate") == "north dock 2"
    )
    assert Known("").facts == {}


def test_the_stand_in_leaves_out_a_tenth_and_its_answers_go_through_repair() -> None:
    scribe = Scribe("s")
    left = [scribe._omits(f"fact {n}", "output") for n in range(4000)]
    assert sum(left) / len(left) == pytest.approx(OMITTED, abs=0.015)


@pytest.mark.parametrize(
    "how", ["per-agent, template", "per-agent, template by rule", "per-agent, unstructured", "shared, structured"]
)
def test_every_memory_is_written_and_shown_within_the_window(how: str, tmp_path: Path) -> None:
    episode = meeting("window")
    with Memory(tmp_path, user="t", embedder=None, encoders=(), background=False, durability="normal") as memory:
        arm = Kept(memory, "7", "e", list(episode.truth), how)
        shown: list[int] = []
        inner = arm.show
        arm.show = lambda *asked: (found := inner(*asked), shown.append(found[1]))[0]
        ran = _play_meeting(episode, arm, random.Random(0))
    assert 0 < max(shown) <= WINDOW and ran.retained > 0.2
    assert arm.scribe.repairs > 0 and arm.scribe.calls > len(episode.turns)
