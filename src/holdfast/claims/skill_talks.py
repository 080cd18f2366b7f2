"""The side check of claim 18 on real talk: which sentences of LoCoMo are worth one of 400 places, by filters that skills stand for.

A skill keeps the sentences that hold one of its words; of each span as many are kept as its share of 400 allows, in their order.
What counts is how many of the turns that a question needs are among the ten sentences nearest to it. Half of the conversations
train the controller, in stretches, and the other half, whole, measure it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from holdfast.bench.data import Conversation, load_locomo
from holdfast.encode.base import Embedder
from holdfast.encode.skill_edits import Edit
from holdfast.encode.skills import Edits, Skill, SkillBank
from holdfast.train.skill_episodes import Episode, Executor, Policy, Question, Stage
from holdfast.train.skill_policies import ByChance, ByMeaning, Trained
from holdfast.train.skill_trainer import Plan, SkillTrainer

BUDGET, ASKED, TURNS, STRETCH = 400, 10, 8, 12
CATEGORIES = ("1", "2", "3", "4")
RECALL = f"evidence recall@{ASKED}"
TRAINED, COSINE, RANDOM = "LoCoMo, MemSkill", "LoCoMo, cosine choice", "LoCoMo, random three"

_FILTERS: Mapping[str, tuple[str, str]] = {
    "dates": (
        "days, months, years and other times when something happens",
        "yesterday today tomorrow last next ago week month year day since january february march april june july august september "
        "october november december monday tuesday wednesday thursday friday saturday sunday",
    ),
    "places": (
        "towns, countries and places that people go to or live in",
        "park beach museum city town home house country school shop store restaurant mountain lake forest here there abroad",
    ),
    "preferences": (
        "tastes: what somebody loves, likes, enjoys or hates",
        "love loved like enjoy enjoyed favorite favourite prefer hate fan into",
    ),
    "quantities": (
        "numbers: how many and how long",
        "one two three four five six seven eight nine ten dozen few several many couple",
    ),
    "relations": (
        "family, friends and other people",
        "mom mother dad father sister brother son daughter kid child children husband wife partner friend grandma grandpa cousin "
        "aunt uncle family colleague boss",
    ),
    "plans": (
        "plans: what somebody is going to do or hopes for",
        "going gonna plan planning will want hope hoping looking thinking",
    ),
    "events": (
        "what somebody has done or been through",
        "went did had got made took started finished joined visited met bought won lost moved passed attended ran saw tried found",
    ),
    "work": (
        "work, studies and careers",
        "work job career project class course study studying degree business company team research counseling adoption",
    ),
    "feelings": (
        "feelings and moods",
        "feel felt happy sad proud excited scared nervous amazing awesome tough hard grateful thankful stressed",
    ),
    "causes": ("reasons and causes", "because reason due why inspired motivated helped so"),
    "things": (
        "things that somebody owns, makes or uses",
        "book car guitar piano painting pottery song album movie game phone camera necklace shoe picture photo dog cat pet plant",
    ),
    "greetings": ("greetings, thanks and compliments", "hey hi hello thanks thank wow cool great bye sounds"),
}


@dataclass(frozen=True)
class Talks:
    """The conversations, and which turn each sentence is from."""

    conversations: Sequence[Conversation]

    @classmethod
    def load(cls, data: Path) -> Talks:
        """From a folder that holds ``locomo``. Raises InputError."""
        return cls(load_locomo(data / "locomo"))

    @cached_property
    def turns(self) -> dict[str, set[str]]:
        """Of each line, where it was said: "conversation turn"."""
        found: dict[str, set[str]] = {}
        for talk in self.conversations:
            for turn in talk.turns:
                for line in lines(turn.speaker, turn.text):
                    found.setdefault(line, set()).add(f"{talk.id} {turn.id}")
        return found

    def episodes(self, talk: Conversation, most: int | None = None) -> list[Episode]:
        """A conversation in one episode, or in stretches of so many spans, with the questions that each can answer."""
        starts = range(0, len(talk.turns), TURNS)
        spans = [
            "\n".join(line for t in talk.turns[at : at + TURNS] for line in lines(t.speaker, t.text)) for at in starts
        ]
        place = {turn.id: at // TURNS for at, turn in enumerate(talk.turns)}
        made = []
        for first in range(0, len(spans), most or len(spans)):
            some = range(first, min(len(spans), first + (most or len(spans))))
            asked = tuple(
                Question(one.text, " ".join(f"{talk.id}:{id}" for id in one.evidence))
                for one in talk.questions
                if one.category in CATEGORIES and one.evidence and all(place[id] in some for id in one.evidence)
            )
            if asked:
                made.append(Episode(f"{talk.id}-{first}", tuple(spans[at] for at in some), asked))
        return made

    def read(self, question: Question, memories: Sequence[str]) -> tuple[float, str]:
        """The share of the turns that a question needs which the memories are from."""
        wanted = {one.replace(":", " ", 1) for one in question.answer.split()}
        held = set().union(*(self.turns.get(one, set()) for one in memories))
        return len(wanted & held) / len(wanted), ""


def lines(speaker: str, text: str) -> list[str]:
    """The sentences of a turn, each with who says it."""
    return [f"{speaker}: {one.strip()}" for one in re.split(r"(?<=[.!?])\s+", text) if len(one.strip()) > 3]


def bank() -> SkillBank:
    """A skill for each filter."""
    return SkillBank.of(
        [Skill(f"keep_{name}", about, f"Keep {about}.", Edits.INSERT) for name, (about, _) in _FILTERS.items()]
    )


_COMPILED = {
    f"keep_{name}": re.compile(rf"\b(?:{'|'.join(words.split())})s?\b", re.IGNORECASE)
    for name, (_, words) in _FILTERS.items()
}


def keeping(quota: int) -> Executor:
    """Of each span the first so many sentences that one of the skills keeps."""

    def carry_out(text: str, memories: Sequence[str], skills: Sequence[Skill]) -> list[Edit]:  # noqa: ARG001
        kept = [
            line
            for line in text.splitlines()
            if any(_COMPILED[one.name].search(line.partition(": ")[2]) for one in skills)
        ]
        return [Edit(Edits.INSERT, line) for line in kept[:quota]] or [Edit(Edits.NOOP)]

    return carry_out


def measured(
    data: Path, embedder: Embedder, seed: int, updates: int = 60, batch: int = 8
) -> dict[str, dict[str, float]]:
    """Evidence recall of a trained choice, of cosine and of chance, on the conversations that were not trained on."""
    talks = Talks.load(data)
    order = np.random.default_rng(seed).permutation(len(talks.conversations)).tolist()
    half = len(order) // 2
    train = [one for at in order[:half] for one in talks.episodes(talks.conversations[at], STRETCH)]
    test = [one for at in order[half:] for one in talks.episodes(talks.conversations[at])]
    spans = float(np.mean([len(one.spans) for one in test]))
    stage = Stage(embedder, keeping(max(1, round(BUDGET / spans))), talks.read, asked=ASKED)
    trainer = SkillTrainer(stage, train, bank(), Plan(rounds=2, updates=updates, batch=batch), seed)
    learnt = trainer.train()
    policies: dict[str, Policy] = {
        TRAINED: Trained(learnt.controller),
        COSINE: ByMeaning(),
        RANDOM: ByChance(np.random.default_rng(seed)),
    }
    return {
        arm: {
            RECALL: float(np.mean([case.score for one in played for case in one.cases])),
            "memories": float(np.mean([len(one.memories) for one in played])),
        }
        for arm, played in ((arm, stage.play(test, policy, bank())) for arm, policy in policies.items())
    }
