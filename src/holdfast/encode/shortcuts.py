"""Shortcuts: named sequences of actions, and when each may be used (Mobile-Agent-E, arXiv 2501.11733; EvolveLab,
arXiv 2512.18746)."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.chat import Chat
from holdfast.cube import Form
from holdfast.encode.base import Experience
from holdfast.encode.records import Unit, derived
from holdfast.encode.writing import TEXT, numbered, texts, told, write
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
class Shortcuts:
    """An encoder: at most ``most`` shortcuts of each run that succeeded, of at most ``actions`` each. Raises InputError."""

    most: int = 3
    actions: int = 10
    model: Chat | None = None

    def __post_init__(self) -> None:
        if self.most < 1 or self.actions < 1:
            raise InputError("shortcuts are one or more, and each has one action or more")

    def encode(self, experience: Experience) -> list[Operation]:
        """The shortcuts of a trajectory that succeeded. Raises InputError without a model, ChatError."""
        trajectory = experience.trajectory
        if trajectory is None or not experience.outcome.succeeded:
            return []
        instruction = (
            f"Name at most {self.most} sequences of actions in this run that are worth doing again as one, and say of each "
            "what must hold before it. None, where there is none."
        )
        schema = {
            "type": "object",
            "properties": {"name": TEXT, "precondition": TEXT, "actions": texts(1, self.actions)},
            "required": ["name", "precondition", "actions"],
            "additionalProperties": False,
        }
        data = {"task": trajectory.task, "steps": told(trajectory)}
        fields = {"shortcuts": {"type": "array", "items": schema, "maxItems": self.most}}
        found = write(self.model, "shortcuts", instruction, data, fields)["shortcuts"]
        return [
            derived(
                experience,
                "shortcuts",
                Unit.SHORTCUT,
                f"{one['name']}: {one['precondition']}",
                numbered(one["actions"]),
            )
            for one in found
        ]
