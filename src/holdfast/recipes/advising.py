"""Guidance written from what was found, or none where none is needed (EvolveLab's Cerebra, arXiv 2512.18746)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.chat import Chat
from holdfast.cube import Form
from holdfast.encode.records import tell
from holdfast.encode.writing import write
from holdfast.errors import InputError
from holdfast.recipes.base import Composition
from holdfast.retrieve.hits import Hit
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.STRATEGIES,),
    retrieval=(Retrieval.AGGREGATE, Retrieval.FILTER),
    subject=(Subject.AGENT,),
)


@dataclass(frozen=True, slots=True)
class Advising:
    """A composer. ``words``: the most that is told; ``characters``: of what has just happened that is seen. Raises InputError."""

    words: int = 150
    characters: int = 1_000
    model: Chat | None = None

    def __post_init__(self) -> None:
        if self.words < 1 or self.characters < 1:
            raise InputError("one word or more is told, and one character or more is seen")

    def compose(self, task: str, context: str, hits: Sequence[Hit]) -> Composition:
        """The guidance; nothing where the model needs none. Raises InputError without a model, ChatError."""
        if not hits:
            return Composition("")
        instruction = (
            "Say whether these records help with the task, and if they do, what to do by them, in at most "
            f"{self.words} words; else leave the guidance empty."
        )
        data = {"task": task, "context": context[-self.characters :], "records": [tell(hit.cube) for hit in hits]}
        fields = {"needed": {"type": "boolean"}, "guidance": {"type": "string"}}
        found = write(self.model, "advice", instruction, data, fields)
        return Composition(found["guidance"].strip() if found["needed"] else "")
