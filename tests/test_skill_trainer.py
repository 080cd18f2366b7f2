"""Training on episodes: they are read span by span, a bank grows where it helps, and a round that did worse is taken back whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.chat import Message, Reply
from holdfast.cli import main
from holdfast.encode.skill_edits import Edit
from holdfast.encode.skill_selection import Controller
from holdfast.encode.skill_writing import SkillWriter
from holdfast.encode.skills import Edits, Skill, SkillBank
from holdfast.errors import InputError
from holdfast.manage.skill_design import Change, Proposal
from support import HashEmbedder, open_memory

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

from holdfast.train import ppo  # noqa: E402
from holdfast.train.skill_episodes import Episode, Question, Stage  # noqa: E402
from holdfast.train.skill_logs import read_log, token_f1  # noqa: E402
from holdfast.train.skill_policies import Always, ByChance, ByMeaning, Explores, Trained  # noqa: E402
from holdfast.train.skill_trainer import Plan, SkillTrainer, batch_of  # noqa: E402
from holdfast.train.warm_start import imitate, stand_ins  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


# --- episodes ---

GOODS = ("tea", "rope", "salt", "coal")


def keeper(good: str, edits: Edits = Edits.INSERT) -> Skill:
    return Skill(f"keep_{good}", f"everything about {good}", f"Keep {good}.", edits)


def carry_out(text: str, memories: Sequence[str], skills: Sequence[Skill]) -> list[Edit]:
    """Each skill keeps the lines about its good; one called spoil deletes all that it is shown."""
    edits = [
        Edit(Edits.INSERT, line)
        for skill in skills
        for line in text.splitlines()
        if skill.name.removeprefix("keep_") in line
    ]
    if any(skill.name == "spoil" for skill in skills):
        edits += [Edit(Edits.UPDATE, "gone", at) for at in range(len(memories))]
    return edits or [Edit(Edits.NOOP)]


def answer(question: Question, memories: Sequence[str]) -> tuple[float, str]:
    return float(question.answer in memories), memories[0] if memories else ""


def episodes(count: int, goods: Sequence[str] = GOODS) -> list[Episode]:
    found = []
    for number in range(count):
        said = [f"{goods[(number + at) % len(goods)]} costs {number + at}" for at in range(4)]
        asked = tuple(Question(f"what costs {line.split()[0]}", line, (at,)) for at, line in enumerate(said))
        found.append(Episode(f"e{number}", tuple(said), asked))
    return found


def stage(k: int = 1, **options: Any) -> Stage:
    return Stage(HashEmbedder(), carry_out, answer, k=k, **options)


def bank(*goods: str) -> SkillBank:
    return SkillBank.of([keeper(good) for good in goods])


def test_an_episode_is_read_span_by_span_into_an_empty_memory() -> None:
    played = stage().play(episodes(3), ByMeaning(), bank(*GOODS))
    assert [one.score for one in played] == [1.0] * 3
    assert played[1].memories == episodes(3)[1].spans
    assert played[0].cases[0].evidence == ("tea costs 0",)
    (one,) = stage().play(episodes(1), Always((0,)), bank(*GOODS))
    assert (one.score, [step.failed for step in one.steps]) == (0.25, [False] * 4)
    assert [step.made for step in one.steps] == [{Edits.INSERT}, *[{Edits.NOOP}] * 3]
    assert np.all(one.steps[0].state[64:] == 0)
    assert np.any(one.steps[1].state[64:] != 0)
    spoil = replace(
        bank(*GOODS),
        skills=(*bank(*GOODS).skills, replace(keeper("x"), name="spoil", edits=Edits.UPDATE, number=5)),
        made=5,
    )
    (spoilt,) = stage(k=5).play(episodes(1), ByChance(np.random.default_rng(0)), spoil)
    assert spoilt.memories.count("gone") == 3
    short = Episode("short", ("tea costs 0",), (Question("q", "a"),))
    lengths = [len(one.steps) for one in stage().play([episodes(1)[0], short], ByMeaning(), bank("tea"))]
    assert lengths == [4, 1]
    with pytest.raises(InputError):
        Episode("x", (), ())
    with pytest.raises(InputError, match="place of a span"):
        Episode("x", ("a",), (Question("q", "a", (1,)),))


# --- training ---


class Proposes:
    """A designer that proposes some changes, one after another, and keeps what it was told."""

    def __init__(self, *skills: Skill) -> None:
        self.skills = list(skills)
        self.told: list[tuple[Any, Any]] = []

    def propose(self, groups: Any, known: SkillBank, failed: Any = ()) -> Proposal:
        self.told.append((groups, list(failed)))
        return Proposal(known, (Change(self.skills.pop(0), True),) if self.skills else (), {})


def trainer(designer: Any = None, approve: Any = lambda proposal: True, **options: Any) -> SkillTrainer:
    plan = Plan(**{"rounds": 3, "updates": 12, "batch": 4, "hidden": 64, "lifted": 6, "warm": False, **options})
    plan = replace(plan, settings=ppo.Settings(rate=1e-3))
    return SkillTrainer(stage(), episodes(12), bank("tea", "rope"), plan, 0, designer, approve)


def same(one: Controller, other: Controller) -> bool:
    return all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_a_controller_learns_and_what_the_bank_lacks_is_added() -> None:
    designer = Proposes(keeper("salt"), keeper("coal"))
    training = trainer(designer, updates=40)
    learnt = training.train()
    assert [skill.name for skill in learnt.bank.skills][-1] in ("keep_salt", "keep_coal")
    scores = [one.score for one in stage().play(episodes(8), Trained(learnt.controller), learnt.bank)]
    chance = [one.score for one in stage().play(episodes(8), ByChance(np.random.default_rng(0)), learnt.bank)]
    assert np.mean(scores) > np.mean(chance) + 0.2
    groups, _ = designer.told[0]
    assert {case.question.split()[-1] for group in groups for case in group} >= {"salt", "coal"}
    assert all(case.score < 0.5 for group in groups for case in group)
    assert learnt.bank.stats[1].uses > 0


def test_a_harmful_skill_is_taken_back_with_the_weights_and_told_of() -> None:
    training = trainer(updates=20)
    training.train()
    assert training.best is not None
    before, weights = training.best, training.best.controller
    spoil = Skill("spoil", "tea rope salt coal costs everything about", "Spoil it.", Edits.UPDATE)
    training.designer = designer = Proposes(spoil, keeper("salt"))
    training.plan = replace(training.plan, rounds=1)
    after = training.train()
    assert after.rounds[-1].changes[0].skill.name == "spoil"
    assert not after.rounds[-1].kept
    assert after.rounds[-1].reward < before.reward
    assert training.bank == before.bank == after.bank
    assert same(training.net.frozen("hash-64"), weights)
    assert same(after.controller, weights)
    training.train()
    assert [change.skill.name for change in designer.told[-1][1][0]] == ["spoil"]


def test_a_warm_start_chooses_as_the_cosine_does_before_anything_is_rewarded() -> None:
    training = trainer()
    training.bank = bank(*GOODS)
    losses = imitate(
        training.net,
        stand_ins(stage(), episodes(12), np.random.default_rng(0)),
        stage().described(training.bank),
        np.random.default_rng(0),
    )
    assert losses[-1] < 0.1 * losses[0]
    frozen = training.net.frozen("hash-64")
    alike = [
        one.picked.order == other.picked.order
        for played in zip(
            stage().play(episodes(12), Trained(frozen), training.bank),
            stage().play(episodes(12), ByMeaning(), training.bank),
            strict=True,
        )
        for one, other in zip(played[0].steps, played[1].steps, strict=True)
    ]
    assert np.mean(alike) > 0.9
    warm = trainer(warm=True, rounds=1, updates=1).train()
    assert warm.rounds[0].scores[0] > trainer(rounds=1, updates=1).train().rounds[0].scores[0]


def test_nothing_is_changed_that_nobody_approved() -> None:
    asked = []
    training = trainer(Proposes(keeper("salt"), keeper("coal")), lambda proposal: asked.append(proposal.diff), rounds=2)
    assert [skill.name for skill in training.train().bank.skills] == ["keep_tea", "keep_rope"]
    assert "+# Keep Salt" in asked[0]


def test_training_is_the_same_for_the_same_seed_and_is_saved(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="the extra torch is not installed")
    state = torch.get_rng_state()
    first, second = (trainer(Proposes(keeper("salt"))).train() for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert first.rounds == second.rounds
    assert same(first.controller, second.controller)
    first.save(tmp_path)
    from holdfast.encode.skill_writing import _opened

    read, selector = _opened(str(tmp_path), HashEmbedder())
    assert read == first.bank
    assert selector.controller is not None
    assert same(selector.controller, first.controller)
    (chosen,) = selector.choose("rope costs 3", [], read.skills, 1)
    (played,) = stage().play(
        [Episode("x", ("rope costs 3",), (Question("q", "a"),))], Trained(first.controller), first.bank
    )
    assert chosen.number == played.steps[0].numbers[0], "what serves chooses as what was trained"


def test_a_batch_holds_every_step_with_what_it_was_drawn_by() -> None:
    training = trainer()
    new = np.asarray([False, True])
    policy = Explores(training.net.frozen("hash-64"), np.random.default_rng(0), new, 1.0)
    played = stage().play(episodes(2), policy, training.bank)
    made = batch_of(played, stage().described(training.bank), new, training.credit)
    assert made.last.tolist() == [False, False, False, True] * 2
    assert made.rewards[:4].sum() == pytest.approx(played[0].score, abs=0.1 + 1e-9)
    assert made.orders.shape == (8, 1)


# --- one's own log ---


def test_a_log_is_read_and_what_is_wrong_with_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    turns = [{"speaker": "ana", "text": f"line {at}"} for at in range(5)]
    asked = [{"question": "q", "answer": "a", "evidence": [4, 3]}]
    path.write_text(
        json.dumps({"turns": turns, "questions": asked})
        + "\n\n"
        + json.dumps({"id": "x", "spans": ["s"], "questions": asked[:1] and [{"question": "q", "answer": 7}]})
    )
    first, second = read_log(path, turns=2)
    assert first.spans == ("ana: line 0\nana: line 1", "ana: line 2\nana: line 3", "ana: line 4")
    assert first.questions[0].evidence == (2, 1)
    assert (second.id, second.questions[0].answer) == ("x", "7")
    for wrong in (
        "[]",
        "{",
        '{"turns": []}',
        '{"turns": ["a"], "questions": []}',
        '{"turns": ["a"], "questions": [{"question": "q"}]}',
    ):
        path.write_text(wrong)
        with pytest.raises(InputError, match="line 1 is no episode"):
            read_log(path)
    path.write_text("\n")
    with pytest.raises(InputError, match="holds no episode"):
        read_log(path)


def test_answers_are_scored_by_the_words_they_share() -> None:
    assert token_f1("The red Fox!", "a red fox") == 1.0
    assert token_f1("red", "red fox") == pytest.approx(2 / 3)
    assert token_f1("blue", "red") == 0.0
    assert token_f1("", "") == 1.0


class Shop:
    """A model for a whole log: keeps lines about prices, answers with what it is shown, and designs a skill."""

    def __init__(self, *args: Any, **options: Any) -> None: ...

    def reply(self, messages: Sequence[Message], *, schema: Any = None, **options: Any) -> Reply:
        data = json.loads(messages[-1].text)
        if schema is None:
            return Reply("\n\n".join(f"ACTION: INSERT\nMEMORY_ITEM: {line}" for line in data["text"].splitlines()))
        if schema["title"] == "answer":
            return Reply(json.dumps({"answer": data["memories"][0] if data["memories"] else "unknown"}))
        if schema["title"] == "failures":
            return Reply(json.dumps({"failure_patterns": [], "recommendations": [], "summary": "prices"}))
        new = {
            "type": "add_new",
            "name": "prices",
            "description": "Prices.",
            "instruction": "Keep prices.",
            "edits": "insert",
            "reasoning": "r",
        }
        return Reply(json.dumps({"action": "apply_changes", "changes": [new]}))


def test_the_command_trains_on_a_log_and_a_memory_uses_what_it_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jsonschema", reason="the extra llm is not installed")
    pytest.importorskip("openai", reason="the extra llm is not installed")
    monkeypatch.setattr("holdfast.agent.chat.Endpoint", Shop)
    monkeypatch.setattr("holdfast.cli.skills.choose", lambda *_: (HashEmbedder(), []))
    log, out = tmp_path / "log.jsonl", tmp_path / "learnt"
    log.write_text(
        "\n".join(
            json.dumps(
                {"spans": list(one.spans), "questions": [{"question": q.text, "answer": "x"} for q in one.questions]}
            )
            for one in episodes(4)
        )
    )
    argv = [
        "skills",
        "train",
        "--log",
        str(log),
        "--model",
        "m",
        "--out",
        str(out),
        "--rounds",
        "2",
        "--updates",
        "2",
        "--json",
    ]
    assert main(argv) == 2
    assert "nobody is there to approve" in capsys.readouterr().err
    assert main([*argv, "--yes"]) == 0
    report = capsys.readouterr()
    assert "+# Prices" in report.err
    assert [one["changes"] for one in json.loads(report.out)["rounds"]] == [[], [{"skill": "prices", "new": True}]]
    assert main(["skills", "show", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["uses"] > 0
    assert main(["skills", "show"]) == 0
    assert "noop" in capsys.readouterr().out
    assert main(["skills", "show", "--skill", "insert"]) == 0
    assert "Action type: INSERT only." in capsys.readouterr().out
    writer = SkillWriter(str(out), k=5, model=Shop(), embedder=HashEmbedder())
    with open_memory(tmp_path / "store", encoders=[writer]) as memory:
        memory.add("tea costs 4")
        memory.flush()
        assert next(cube.text for cube in memory.select() if cube.kind == "fact").endswith("tea costs 4")
