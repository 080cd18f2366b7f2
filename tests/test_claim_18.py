"""The world of claim 18: what is said can be kept and asked for, skills keep their own family, and the designer sees what it names."""

from __future__ import annotations

import json

import numpy as np
import pytest

from holdfast.chat import Message, Role
from holdfast.claims.skill_families import ABSENT, FAMILIES
from holdfast.claims.skill_models import HARMFUL, UNCLEAR, Designer, Executor
from holdfast.claims.skill_world import ASKED, SPANS, dialogues, filled, heard, read, slot_of
from holdfast.encode.skill_edits import carry_out, prompt, resolve
from holdfast.encode.skills import SEEDS, Edits, SkillBank
from holdfast.errors import ChatError
from holdfast.manage.skill_design import SkillDesigner
from holdfast.manage.skill_failures import Case
from holdfast.train.skill_episodes import Question, Stage, executor
from holdfast.train.skill_policies import Always, ByMeaning
from support import HashEmbedder

SOME = dialogues(12, seed=3)


def test_dialogues_are_of_one_size_and_the_same_for_the_same_seed() -> None:
    assert dialogues(12, seed=3) == SOME
    assert dialogues(2, seed=3, first=10) == SOME[10:]
    assert dialogues(1, seed=4) != SOME[:1]
    for episode in SOME:
        assert (len(episode.spans), len(episode.questions)) == (SPANS, ASKED)
        assert all(6 <= len(span.splitlines()) <= 8 for span in episode.spans)
        assert all(1 <= len({family.name for family, _, _ in heard(span)}) <= 3 for span in episode.spans)


def test_every_question_is_answered_from_what_its_evidence_says() -> None:
    seen = set()
    for episode in SOME:
        for question in episode.questions:
            (span,) = (episode.spans[at] for at in question.evidence)
            kept = [memory for _, _, memory in heard(span)]
            assert read(question, kept) == (1.0, question.answer)
            assert read(question, [])[0] == 0.0
            seen.add(slot_of(question.text)[0])  # type: ignore[index]
    assert seen == {name for name, family in FAMILIES.items() if family.memory}
    assert {family.name for episode in SOME for span in episode.spans for family, _, _ in heard(span)} == set(FAMILIES)


def test_a_wrong_memory_in_front_is_the_answer() -> None:
    question = Question("Where is the passport of Alba kept?", "under the bed")
    right, wrong = "The passport of Alba is kept under the bed.", f"The passport of Alba is kept {UNCLEAR}."
    other = "The umbrella of Alba is kept in the cellar."
    assert read(question, [other, right, wrong])[0] == 1.0
    assert read(question, [other, wrong, right]) == (0.0, UNCLEAR)
    assert filled("It rains.") is None


def test_a_skill_keeps_its_family_and_what_finds_nothing_writes_what_nobody_said() -> None:
    model = Executor()
    for episode in SOME[:4]:
        for span in episode.spans:
            for name, family in FAMILIES.items():
                edits = carry_out(model, span, [], [family.skill])
                mine = [memory for one, _, memory in heard(span) if one.name == name]
                assert [edit.text.rstrip(".") for edit in edits] == (
                    [one.rstrip(".") for one in mine] or [edits[0].text.rstrip(".")]
                )
                assert mine or UNCLEAR in edits[0].text
    with pytest.raises(ChatError):
        model.reply([Message(Role.USER, "{}")], schema={"title": "x"})


def test_an_update_changes_the_memory_that_it_is_about() -> None:
    span = "Alba: No, that has changed: the office of Hugo is now Porto.\nHugo: Sure, lunch, why not."
    memories = ["The home of Hugo is in Turin.", "The office of Hugo is in Kiel."]
    (edit,) = carry_out(Executor(), span, memories, [FAMILIES["updates"].skill])
    assert (edit.kind, edit.index, edit.text) == (Edits.UPDATE, 1, "The office of Hugo is in Porto.")
    (edit,) = carry_out(Executor(), span, [], [FAMILIES["updates"].skill])
    assert resolve([edit], [], {Edits.UPDATE})[0] == [], "a skill that updates makes nothing new"
    (edit,) = carry_out(
        Executor(),
        "Alba: Hugo had to drop the film night.",
        ["The plan of Hugo is a film night with Lena."],
        [SEEDS[2]],
    )
    assert (edit.kind, edit.index) == (Edits.DELETE, 0)
    spoilt = carry_out(Executor(), span, memories, [HARMFUL])
    assert [(edit.text, edit.index) for edit in spoilt] == [("tidy", 0), ("tidy", 1)]


def test_the_right_skills_answer_everything_and_the_wrong_ones_nothing() -> None:
    bank = SkillBank.of([family.skill for family in FAMILIES.values()])
    stage = Stage(HashEmbedder(), executor(Executor()), read, k=12, asked=50)
    everything = stage.play(SOME[:3], Always(tuple(range(12))), bank)
    assert np.mean([one.score for one in everything]) > 0.9
    fewer = stage.play(SOME[:3], Always((3,)), bank)
    assert np.mean([one.score for one in fewer]) < 0.2
    assert all(one.memories for one in stage.play(SOME[:1], ByMeaning(), bank))


def cases(name: str, count: int) -> list[Case]:
    """Failures of one family."""
    found = []
    for episode in SOME:
        for question in episode.questions:
            (span,) = (episode.spans[at] for at in question.evidence)
            if any(family.name == name and slot == slot_of(question.text) for family, slot, _ in heard(span)):
                found.append(Case(episode.id, question.text, question.answer, "not known", 0.0, (), (span,)))
    return found[:count]


def test_the_designer_returns_what_the_cases_show_and_nothing_else() -> None:
    pytest.importorskip("jsonschema", reason="the extra llm is not installed")
    bank = SkillBank.of([family.skill for name, family in FAMILIES.items() if name not in ABSENT])
    designer = SkillDesigner(Designer())
    proposal = designer.propose(
        [cases("quotes", 3), cases("dates", 3), [*cases("causes", 1), *cases("plans", 2)]], bank
    )
    assert [change.skill for change in proposal.changes] == [FAMILIES["quotes"].skill]
    assert {one["pattern_name"] for one in proposal.analysis["failure_patterns"]} == {"quotes", "dates", "plans"}
    stored = [
        Case(
            one.episode,
            one.question,
            one.answer,
            "?",
            0.0,
            tuple(memory for _, _, memory in heard(one.evidence[0])),
            one.evidence,
        )
        for one in cases("quotes", 3)
    ]
    assert not designer.propose([stored], bank), "what was stored and not found needs no new skill"
    with pytest.raises(ChatError):
        Designer().reply([Message(Role.SYSTEM, ""), Message(Role.USER, json.dumps({}))], schema=None)
    assert prompt("x", [], bank.skills)
