"""Lessons of a run that succeeded, each a situation and what to do in it (ArcMemo, arXiv 2509.04439, the open-ended format).

In two calls: how the solution was come by, looked at afterwards, and then the lessons. A lesson is found by its situation alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.chat import Chat
from holdfast.cube import Form
from holdfast.encode.base import Experience
from holdfast.encode.concept_text import line
from holdfast.encode.records import Unit, derived
from holdfast.encode.writing import TEXT, told, write
from holdfast.errors import InputError
from holdfast.store.base import Operation
from holdfast.taxonomy import Formation, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.STRATEGIES,),
    formation=(Formation.DISTILL_EXPERIENCE,),
    subject=(Subject.AGENT,),
)

MAKER = "situations"

THOUGHT = (
    "The run solved the task, and its result was verified. Tell how the solution was come by: which observations led to it, which "
    "ideas were dropped and why."
)
LESSONS = (
    "Write the lessons of this run for other tasks, {most} at most. A situation says in general what about a task shows that the "
    "lesson is of use, so that it is recognised before the task is solved; a suggestion says what to do or to look for then."
)


@dataclass(frozen=True, slots=True)
class Situations:
    """An encoder. ``most``: lessons of one run. Raises InputError."""

    most: int = 5
    model: Chat | None = None

    def __post_init__(self) -> None:
        if self.most < 1:
            raise InputError("a run has one lesson or more")

    def encode(self, experience: Experience) -> list[Operation]:
        """The lessons of a run that succeeded. Raises InputError without a model, ChatError."""
        trajectory = experience.trajectory
        if trajectory is None or not experience.outcome.succeeded:
            return []
        data = {"task": trajectory.task, "steps": told(trajectory)}
        thought = write(self.model, "thought", THOUGHT, data, {"thought": TEXT})["thought"]
        record = {
            "type": "object",
            "properties": {"situation": TEXT, "suggestion": TEXT},
            "required": ["situation", "suggestion"],
            "additionalProperties": False,
        }
        fields = {"lessons": {"type": "array", "items": record, "maxItems": self.most}}
        data = {"task": trajectory.task, "thought": thought, "steps": told(trajectory)}
        found = write(self.model, "lessons", LESSONS.format(most=self.most), data, fields)["lessons"]
        lessons = {line(one["situation"]): line(one["suggestion"]) for one in found}
        return [
            derived(experience, MAKER, Unit.INSIGHT, situation, suggestion)
            for situation, suggestion in lessons.items()
            if situation and suggestion
        ]
