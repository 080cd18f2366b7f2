"""A student and a teacher: what other runs' plans say before anything is done, and their experience on the way (Agent KB,
arXiv 2507.06229; EvolveLab, arXiv 2512.18746)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.chat import Chat
from holdfast.cube import Form
from holdfast.encode.plans import EXPERIENCE, PLANNING
from holdfast.encode.writing import TEXT, write
from holdfast.errors import InputError
from holdfast.recipes.base import Composition
from holdfast.retrieve.hits import Hit
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.CASES, Function.STRATEGIES),
    retrieval=(Retrieval.AGGREGATE,),
    subject=(Subject.AGENT,),
)


@dataclass(frozen=True, slots=True)
class Tutoring:
    """A composer over plans. ``words``: the most that is told; ``characters``: of what has just happened that the teacher sees, its
    end. Raises InputError."""

    words: int = 150
    characters: int = 1_000
    model: Chat | None = None

    def __post_init__(self) -> None:
        if self.words < 1 or self.characters < 1:
            raise InputError("one word or more is told, and one character or more is seen")

    def compose(self, task: str, context: str, hits: Sequence[Hit]) -> Composition:
        """What the student says, or where there is a context the teacher; nothing without plans. Raises InputError, ChatError."""
        if not hits:
            return Composition("")
        if context:
            who, named = "teacher", EXPERIENCE
            instruction = "You teach an agent at work. From the experience of others, say what to do or to mend next,"
        else:
            who, named = "student", PLANNING
            instruction = "You have studied how others planned. From their plans, say how to plan this task,"
        records = [
            {"task": hit.text, **{name: hit.cube.data[name] for name in named if name in hit.cube.data}} for hit in hits
        ]
        data = {"task": task, "context": context[-self.characters :], "records": records}
        found = write(self.model, who, f"{instruction} in at most {self.words} words.", data, {"guidance": TEXT})
        return Composition(found["guidance"])
