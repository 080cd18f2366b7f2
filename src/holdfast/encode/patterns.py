"""Patterns: how a kind of task was solved, tied to those that are alike (Cerebra, evolved by MemEvolve, arXiv 2512.18746).

Of runs that succeeded. A tie is as heavy as the cosine, and stands where that is ``alike`` or more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holdfast.chat import Chat
from holdfast.cube import Form, Kind, Scope
from holdfast.encode.base import Experience
from holdfast.encode.near import Nearest, named
from holdfast.encode.records import LINKS, derived
from holdfast.encode.writing import TEXT, told, write
from holdfast.errors import InputError
from holdfast.store.base import Operation
from holdfast.taxonomy import Formation, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.PLANAR,
    (Function.STRATEGIES,),
    formation=(Formation.DISTILL_EXPERIENCE, Formation.STRUCTURE_CHUNKS),
    subject=(Subject.AGENT,),
)


@dataclass(frozen=True, slots=True)
class Patterns:
    """An encoder. ``words``: the most that a pattern has; ``ties``: the most that it begins with. Raises InputError."""

    words: int = 150
    alike: float = 0.75
    ties: int = 5
    model: Chat | None = None
    memory: Nearest | None = None
    scope: Scope | None = None

    def __post_init__(self) -> None:
        if self.words < 1 or self.ties < 1 or not -1.0 <= self.alike <= 1.0:
            raise InputError("a pattern has one word or more, and one tie or more, and a cosine lies in [-1, 1]")

    def encode(self, experience: Experience) -> list[Operation]:
        """The pattern of a trajectory that succeeded. Raises InputError without a model or outside a memory, ChatError."""
        trajectory = experience.trajectory
        if trajectory is None or not experience.outcome.succeeded:
            return []
        if self.memory is None or self.scope is None:
            raise InputError("a pattern is tied to others: this part of a recipe works in a memory")
        instruction = (
            f"Write in at most {self.words} words the pattern by which this run succeeded, for tasks of its kind; and in one "
            "sentence what kind that is."
        )
        data = {"task": trajectory.task, "steps": told(trajectory)}
        found = write(self.model, "pattern", instruction, data, {"kind": TEXT, "pattern": TEXT})
        near = self.memory.nearest(found["kind"], k=self.ties, kinds=(Kind.CONCEPT,), **named(self.scope))
        ties: dict[str, Any] = {
            LINKS: {one.cube.id: round(one.relevance, 4) for one in near if one.relevance >= self.alike}
        }
        return [derived(experience, "patterns", Kind.CONCEPT, found["kind"], found["pattern"], **ties)]
