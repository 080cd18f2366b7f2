"""Tips: short advice from a run, whether it succeeded or not (Mobile-Agent-E, arXiv 2501.11733; EvolveLab, arXiv 2512.18746)."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.chat import Chat
from holdfast.cube import Form
from holdfast.encode.base import Experience
from holdfast.encode.records import Unit, derived
from holdfast.encode.writing import texts, told, write
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


@dataclass(frozen=True, slots=True)
class Tips:
    """An encoder: between ``least`` and ``most`` tips of each run. Raises InputError."""

    least: int = 3
    most: int = 5
    model: Chat | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise InputError("tips are one or more, and the least no more than the most")

    def encode(self, experience: Experience) -> list[Operation]:
        """The tips of a trajectory. Raises InputError without a model, ChatError."""
        trajectory = experience.trajectory
        if trajectory is None:
            return []
        instruction = (
            f"Give between {self.least} and {self.most} tips from this run for whoever has a task of its kind, each in one "
            "sentence that names what it is about."
        )
        data = {"task": trajectory.task, "steps": told(trajectory), "succeeded": experience.outcome.succeeded}
        found = write(self.model, "tips", instruction, data, {"tips": texts(self.least, self.most)})
        return [derived(experience, "tips", Unit.TIP, text) for text in dict.fromkeys(found["tips"])]
