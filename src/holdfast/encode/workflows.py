"""Workflows: how a kind of task is done, with variables in place of its values (Agent Workflow Memory, arXiv 2409.07429).

Of runs that succeeded; found by the task and the workflow together, as EvolveLab has it (arXiv 2512.18746).
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.chat import Chat
from holdfast.cube import Form
from holdfast.encode.base import Experience
from holdfast.encode.records import Unit, derived
from holdfast.encode.writing import numbered, texts, told, write
from holdfast.errors import InputError
from holdfast.store.base import Operation
from holdfast.taxonomy import Formation, Function, MemoryProfile, Modality, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.STRATEGIES,),
    formation=(Formation.DISTILL_EXPERIENCE,),
    subject=(Subject.AGENT,),
    modality=(Modality.TEXT, Modality.ACTION),
)


@dataclass(frozen=True, slots=True)
class Workflows:
    """An encoder. ``words``: the most that a workflow has; ``steps``: the most steps. Raises InputError."""

    words: int = 200
    steps: int = 20
    model: Chat | None = None

    def __post_init__(self) -> None:
        if self.words < 1 or self.steps < 1:
            raise InputError("a workflow has one word or more, and one step or more")

    def encode(self, experience: Experience) -> list[Operation]:
        """The workflow of a trajectory that succeeded. Raises InputError without a model, ChatError."""
        trajectory = experience.trajectory
        if trajectory is None or not experience.outcome.succeeded:
            return []
        instruction = (
            f"Write the workflow of this run in at most {self.words} words, as steps, for any task of its kind: put variables "
            "such as {city} in place of its values, and leave out what led nowhere."
        )
        data = {"task": trajectory.task, "steps": told(trajectory)}
        found = write(self.model, "workflow", instruction, data, {"steps": texts(1, self.steps)})
        text = f"{trajectory.task}\n{numbered(found['steps'])}"
        return [derived(experience, "workflows", Unit.WORKFLOW, text)]
