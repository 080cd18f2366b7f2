"""Revision on failure: what a run was served and failed with is written anew (Memp, arXiv 2508.06433, its update by reflection).

Only a script of the run's own author is revised, so that nobody's failures change what is another's. The run becomes one of its
sources: to forget the run takes the script with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.chat import Chat
from holdfast.cube import Form
from holdfast.encode.base import Experience
from holdfast.encode.records import TELL, Unit, own, revised
from holdfast.encode.scripts import scripted
from holdfast.encode.writing import TEXT, told, write
from holdfast.errors import InputError
from holdfast.store.base import Operation
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.CASES, Function.STRATEGIES),
    formation=(Formation.DISTILL_EXPERIENCE,),
    evolution=(Evolution.UPDATE_EXTERNAL,),
    subject=(Subject.AGENT,),
)


@dataclass(frozen=True, slots=True)
class Revision:
    """An encoder over what ``Scripts`` made, with the same bounds. Raises InputError."""

    words: int = 100
    case: int = 150
    model: Chat | None = None

    def __post_init__(self) -> None:
        if self.words < 1 or self.case < 1:
            raise InputError("a script and its case have one word or more")

    def encode(self, experience: Experience) -> list[Operation]:
        """The scripts that a failed trajectory was served, revised. Raises InputError without a model, ChatError."""
        trajectory, outcome = experience.trajectory, experience.outcome
        if trajectory is None or outcome.succeeded is not False:
            return []
        id = experience.turns[0].id
        instruction = (
            "An agent was given this script and failed. Write the script anew, so that such a task succeeds, in at most "
            f"{self.words} words; and the case, with what is to be avoided, in at most {self.case} words."
        )
        operations = []
        for cube in own(experience):
            if cube.kind != Unit.SCRIPT or any(ref.id == id for ref in cube.origin.derived_from):
                continue
            data = {
                "task": trajectory.task,
                "steps": told(trajectory),
                "feedback": outcome.feedback,
                "script": cube.data["script"],
                "case": cube.data["case"],
            }
            found = write(self.model, "revision", instruction, data, {"script": TEXT, "case": TEXT})
            parts = {"script": found["script"], "case": found["case"], TELL: scripted(found["script"], found["case"])}
            count = int(cube.data.get("revisions", 0)) + 1
            operations.append(revised(experience, cube, "revised after a failure", revisions=count, **parts))
        return operations
