"""Insights: what a run teaches in general, each in a sentence (ExpeL, arXiv 2308.10144; G-Memory, arXiv 2506.07398).

As EvolveLab has ExpeL (arXiv 2512.18746): of every run, failed ones too, and without the original's votes. ``tied``: each insight
is tied to those that the run was served, as G-Memory's graph of insights has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holdfast.chat import Chat
from holdfast.cube import Form
from holdfast.encode.base import Experience
from holdfast.encode.records import LINKS, Unit, derived
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
class Insights:
    """An encoder. Between ``least`` and ``most`` are asked for, the first ``kept`` are kept. ``tied``: see above. Raises
    InputError."""

    least: int = 3
    most: int = 6
    kept: int = 4
    tied: bool = False
    model: Chat | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most or self.kept < 1:
            raise InputError("insights are one or more, the least no more than the most, and one or more are kept")

    def encode(self, experience: Experience) -> list[Operation]:
        """The insights of a trajectory. Raises InputError without a model, ChatError."""
        trajectory = experience.trajectory
        if trajectory is None:
            return []
        instruction = (
            f"Draw between {self.least} and {self.most} lessons from this run that help with other tasks too, the most useful "
            "first, each in one sentence that can be understood by itself. Where it failed, say what to avoid."
        )
        data = {"task": trajectory.task, "steps": told(trajectory), "succeeded": experience.outcome.succeeded}
        found = write(self.model, "insights", instruction, data, {"insights": texts(self.least, self.most)})
        used = {cube.id: 1.0 for cube in experience.known if cube.kind == Unit.INSIGHT}
        tied: dict[str, Any] = {LINKS: used} if self.tied and used else {}
        kept = dict.fromkeys(found["insights"][: self.kept])
        return [derived(experience, "insights", Unit.INSIGHT, text, **tied) for text in kept]
