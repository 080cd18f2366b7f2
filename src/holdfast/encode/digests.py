"""What happened, in few words: a digest of each trajectory (Voyager, Generative Agents, DiLu in EvolveLab, arXiv 2512.18746).

Found by the task, or by a description of it that the model writes too.
"""

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
    (Function.CASES,),
    formation=(Formation.DISTILL_EXPERIENCE,),
    subject=(Subject.AGENT,),
)


@dataclass(frozen=True, slots=True)
class Digests:
    """An encoder. ``words``: the most that the digest has. ``described``: it is found by a description of at most ``sentences``,
    not by the task's words. ``successes``: of those alone. Raises InputError."""

    words: int = 150
    described: bool = False
    sentences: int = 6
    successes: bool = False
    model: Chat | None = None

    def __post_init__(self) -> None:
        if self.words < 1 or self.sentences < 1:
            raise InputError("a digest has one word or more, and its description one sentence or more")

    def encode(self, experience: Experience) -> list[Operation]:
        """The digest of a trajectory. Raises InputError without a model, ChatError."""
        trajectory, outcome = experience.trajectory, experience.outcome
        if trajectory is None or (self.successes and not outcome.succeeded):
            return []
        fields = {"digest": TEXT} | ({"description": TEXT} if self.described else {})
        instruction = f"Sum up in at most {self.words} words what was done and what came of it." + (
            f" Describe the task in at most {self.sentences} sentences, so that like ones are found by it."
            if self.described
            else ""
        )
        data = {"task": trajectory.task, "steps": told(trajectory), "succeeded": outcome.succeeded}
        found = write(self.model, "digest", instruction, data, fields)
        text = found["description"] if self.described else trajectory.task
        return [derived(experience, "digests", Unit.DIGEST, text, found["digest"])]
