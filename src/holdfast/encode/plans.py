"""Plans: how a task was planned and what was learnt on the way, for the agent and for its search (Agent KB, arXiv 2507.06229).

Of runs that succeeded, with the four fields that EvolveLab keeps (arXiv 2512.18746).
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
    (Function.CASES, Function.STRATEGIES),
    formation=(Formation.DISTILL_EXPERIENCE,),
    subject=(Subject.AGENT,),
)

PLANNING = ("agent_planning", "search_agent_planning")
"""Fields of a plan that help before anything is done."""

EXPERIENCE = ("agent_experience", "search_agent_experience")
"""Fields of a plan that help on the way."""


@dataclass(frozen=True, slots=True)
class Plans:
    """An encoder. ``words``: the most that each field has. Raises InputError."""

    words: int = 100
    model: Chat | None = None

    def __post_init__(self) -> None:
        if self.words < 1:
            raise InputError("a field of a plan has one word or more")

    def encode(self, experience: Experience) -> list[Operation]:
        """The plan of a trajectory that succeeded. Raises InputError without a model, ChatError."""
        trajectory = experience.trajectory
        if trajectory is None or not experience.outcome.succeeded:
            return []
        instruction = (
            f"Say how to plan a task like this one, and what this run teaches for the way, in at most {self.words} words a "
            "field: for the agent as a whole, and for its searches."
        )
        data = {"task": trajectory.task, "steps": told(trajectory)}
        named = (*PLANNING, *EXPERIENCE)
        found = write(self.model, "plan", instruction, data, dict.fromkeys(named, TEXT))
        tell = "\n".join(f"{name.replace('_', ' ')}: {found[name]}" for name in named)
        return [derived(experience, "plans", Unit.PLAN, trajectory.task, tell, **{name: found[name] for name in named})]
