"""Episodes of writing by skills: a history is read span by span into an empty memory, then questions are asked (MemSkill,
arXiv 2602.02474 §3.4).

An episode is played by whatever chooses, carries out and answers: a controller that explores, one that is measured, or a rule.
Several are played in step, so that their choices are scored together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from holdfast.chat import Chat
from holdfast.encode.base import Embedder, Vectors
from holdfast.encode.skill_edits import Edit, carry_out, resolve
from holdfast.encode.skill_selection import scaled, states, top_k
from holdfast.encode.skills import Edits, Skill, SkillBank
from holdfast.errors import InputError
from holdfast.manage.skill_failures import Case


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked when all is read. ``evidence``: the places of the spans that hold the answer, where they are known."""

    text: str
    answer: str
    evidence: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Episode:
    """A history in spans, and what is asked of it. Raises InputError."""

    id: str
    spans: tuple[str, ...]
    questions: tuple[Question, ...]

    def __post_init__(self) -> None:
        if not self.spans or not self.questions:
            raise InputError(f"the episode {self.id!r} has spans to read and questions to answer")
        if not all(0 <= at < len(self.spans) for one in self.questions for at in one.evidence):
            raise InputError(f"the evidence of a question of {self.id!r} is the place of a span, counted from 0")


@dataclass(frozen=True, slots=True)
class Picked:
    """Skills chosen for one state, as places in the bank in the order in which they were drawn.

    ``log_prob``: of just this order; ``value``: what the critic expects; ``shift``: what was added to the logits of new skills.
    """

    order: tuple[int, ...]
    log_prob: float = 0.0
    value: float = 0.0
    shift: float = 0.0


class Policy(Protocol):
    """Chooses skills for some states at once."""

    def pick(self, states: Vectors, described: Vectors, k: int) -> list[Picked]:
        """One choice for each state, of shape (states, 2 d); ``described`` are the vectors of the skills."""
        ...


Executor = Callable[[str, Sequence[str], Sequence[Skill]], Sequence[Edit]]
"""The edits that skills call for in a text, with the memories that are shown."""

Reader = Callable[[Question, Sequence[str]], tuple[float, str]]
"""A score in [0, 1] and the answer that some memories give, the nearest first."""


@dataclass(frozen=True, slots=True)
class Step:
    """One span as it was read."""

    state: Vectors
    picked: Picked
    numbers: tuple[int, ...]
    chosen: frozenset[Edits]
    made: frozenset[Edits]
    failed: bool


@dataclass(frozen=True, slots=True)
class Played:
    """An episode as it went: its steps, the memories at its end, and each question with its score."""

    episode: Episode
    steps: tuple[Step, ...]
    memories: tuple[str, ...]
    cases: tuple[Case, ...]

    @property
    def score(self) -> float:
        """The mean over the questions."""
        return float(np.mean([case.score for case in self.cases]))


@dataclass(frozen=True, slots=True)
class Stage:
    """What episodes are played with. ``k`` skills a span, which sees ``shown`` memories; a question sees ``asked``."""

    embedder: Embedder
    carry_out: Executor
    read: Reader
    k: int = 3
    shown: int = 20
    asked: int = 5
    _known: dict[str, Vectors] = field(default_factory=dict, compare=False, repr=False)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of shape (len(texts), d); each text is embedded once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self.embedder.embed(new), strict=True))
        if not texts:
            return np.zeros((0, self.embedder.dimension), np.float32)
        return np.stack([self._known[text] for text in texts])

    def described(self, bank: SkillBank) -> Vectors:
        """The skills of a bank as a controller sees them, shape (skills, d)."""
        return scaled(self.vectors([skill.description for skill in bank.skills]), self.embedder.dimension)

    def play(self, episodes: Sequence[Episode], policy: Policy, bank: SkillBank) -> list[Played]:
        """Play some episodes to their ends. Raises what choosing, carrying out and reading raise."""
        described = self.described(bank)
        memories = [_Notes() for _ in episodes]
        steps: list[list[Step]] = [[] for _ in episodes]
        for at in range(max(len(episode.spans) for episode in episodes)):
            going = [number for number, episode in enumerate(episodes) if at < len(episode.spans)]
            spans = self.vectors([episodes[number].spans[at] for number in going])
            shown = [
                top_k(memories[number].matrix(self) @ span, self.shown) if memories[number].texts else ()
                for number, span in zip(going, spans, strict=True)
            ]
            near = [memories[number].matrix(self)[list(some)] for number, some in zip(going, shown, strict=True)]
            seen = states(spans, near)
            picks = policy.pick(seen, described, self.k)
            written: list[str] = []
            for number, some, state, picked in zip(going, shown, seen, picks, strict=True):
                skills = [bank.skills[place] for place in picked.order]
                keys = [memories[number].keys[place] for place in some]
                texts = [memories[number].texts[key] for key in keys]
                edits = self.carry_out(episodes[number].spans[at], texts, skills)
                chosen = frozenset(skill.edits for skill in skills)
                changes, _ = resolve(edits, keys, chosen)
                for change in changes:
                    memories[number].apply(change.kind, change.text, change.of)
                    if change.kind is not Edits.DELETE:
                        written.append(change.text)
                steps[number].append(
                    Step(
                        state,
                        picked,
                        tuple(skill.number for skill in skills),
                        chosen,
                        frozenset(edit.kind for edit in edits if edit.ok),
                        not changes and all(not edit.ok or edit.kind is not Edits.NOOP for edit in edits),
                    )
                )
            self.vectors(written)  # all at once: the matrices, which are made one by one, find them known
        return [
            Played(episode, tuple(some), tuple(notes.texts.values()), self._asked(episode, notes))
            for episode, some, notes in zip(episodes, steps, memories, strict=True)
        ]

    def _asked(self, episode: Episode, notes: _Notes) -> tuple[Case, ...]:
        texts = list(notes.texts.values())
        alike = self.vectors([one.text for one in episode.questions]) @ notes.matrix(self).T
        cases = []
        for question, scores in zip(episode.questions, alike, strict=True):
            found = tuple(texts[at] for at in top_k(scores, self.asked))
            score, answer = self.read(question, found)
            evidence = tuple(episode.spans[at] for at in question.evidence)
            cases.append(Case(episode.id, question.text, question.answer, answer, score, found, evidence))
        return tuple(cases)


def executor(model: Chat) -> Executor:
    """What a chat model makes of spans and skills."""
    return lambda text, memories, skills: carry_out(model, text, memories, skills)


class _Notes:
    """A memory that is being written: texts by key, oldest first, and their vectors."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self._made = 0
        self._matrix: Vectors | None = None

    @property
    def keys(self) -> list[int]:
        return list(self.texts)

    def matrix(self, stage: Stage) -> Vectors:
        if self._matrix is None:
            self._matrix = stage.vectors(list(self.texts.values()))
        return self._matrix

    def apply(self, kind: Edits, text: str, key: int | None) -> None:
        self._matrix = None
        if key is None:
            self._made += 1
            self.texts[self._made] = text
        elif kind is Edits.DELETE:
            self.texts.pop(key, None)
        else:
            self.texts[key] = text
