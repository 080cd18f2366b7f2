"""The packaged sample: real conversations of two users, with questions and the turns that answer them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any

from holdfast.cube import utc


@dataclass(frozen=True, slots=True)
class Session:
    """One conversation of a user, at one time; messages as ``Memory.add`` takes them."""

    user: str
    id: str
    at: datetime
    source: str
    messages: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the ids of the turns that answer it; no turns where the conversations do not say."""

    id: str
    text: str
    answer: str
    category: str
    evidence: frozenset[str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One user's conversations, oldest first, and what is asked about them."""

    user: str
    sessions: tuple[Session, ...]
    questions: tuple[Question, ...]

    def question(self, id: str) -> Question:
        """The question with that id."""
        return next(question for question in self.questions if question.id == id)


def load(user: str) -> Sample:
    """The sample of ``sam`` (LongMemEval) or ``emily`` (MemoryBank); see sample/README.md."""
    whole = json.loads(files("holdfast").joinpath("sample", f"{user}.json").read_text(encoding="utf-8"))
    return Sample(
        user=whole["user"],
        sessions=tuple(
            Session(whole["user"], each["id"], utc(each["date"]), each["source"], tuple(each["messages"]))
            for each in whole["sessions"]
        ),
        questions=tuple(
            Question(each["id"], each["question"], each["answer"], each["category"], frozenset(each["evidence"]))
            for each in whole["questions"]
        ),
    )
