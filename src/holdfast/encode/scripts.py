"""Scripts: a procedure in the abstract, beside the run that it is from (Memp, arXiv 2508.06433; EvolveLab, arXiv 2512.18746)."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.chat import Chat
from holdfast.cube import Form
from holdfast.encode.base import Experience
from holdfast.encode.records import Unit, derived
from holdfast.encode.writing import TEXT, told, write
from holdfast.errors import InputError
from holdfast.store.base import Operation
from holdfast.taxonomy import Formation, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.CASES, Function.STRATEGIES),
    formation=(Formation.DISTILL_EXPERIENCE,),
    subject=(Subject.AGENT,),
)


@dataclass(frozen=True, slots=True)
class Scripts:
    """An encoder. ``words``: the most that a script has; ``case``: that its case has. Raises InputError."""

    words: int = 100
    case: int = 150
    model: Chat | None = None

    def __post_init__(self) -> None:
        if self.words < 1 or self.case < 1:
            raise InputError("a script and its case have one word or more")

    def encode(self, experience: Experience) -> list[Operation]:
        """The script of a trajectory that succeeded. Raises InputError without a model, ChatError."""
        trajectory = experience.trajectory
        if trajectory is None or not experience.outcome.succeeded:
            return []
        instruction = (
            f"Write in at most {self.words} words how such a task is done, as a script without this one's values; then in at "
            f"most {self.case} words what was done here, with them."
        )
        data = {"task": trajectory.task, "steps": told(trajectory)}
        found = write(self.model, "script", instruction, data, {"script": TEXT, "case": TEXT})
        tell = scripted(found["script"], found["case"])
        parts = {"script": found["script"], "case": found["case"]}
        return [derived(experience, "scripts", Unit.SCRIPT, trajectory.task, tell, **parts)]


def scripted(script: str, case: str) -> str:
    """What is told of a script."""
    return f"Script: {script}\nA case: {case}"
