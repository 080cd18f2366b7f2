"""Nodes of a graph of tasks: what was done, tied to the tasks whose memories were used (G-Memory, arXiv 2506.07398, §4).

A node holds the run's steps as they were, the paper's interaction graph of one agent; its ties are the paper's graph of queries. No
model is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holdfast.cube import Form
from holdfast.encode.base import Experience
from holdfast.encode.records import LINKS, MAKER, Unit, derived
from holdfast.encode.writing import told
from holdfast.errors import InputError
from holdfast.store.base import Operation
from holdfast.taxonomy import Formation, Function, MemoryProfile, Modality, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.PLANAR,
    (Function.CASES,),
    formation=(Formation.STRUCTURE_CHUNKS,),
    subject=(Subject.AGENT,),
    modality=(Modality.TEXT, Modality.ACTION),
)


@dataclass(frozen=True, slots=True)
class Nodes:
    """An encoder. ``characters``: of a run that are kept, its end first. Raises InputError."""

    characters: int = 4_000

    def __post_init__(self) -> None:
        if self.characters < 1:
            raise InputError("a node keeps one character or more")

    def encode(self, experience: Experience) -> list[Operation]:
        """The node of a trajectory."""
        trajectory = experience.trajectory
        if trajectory is None:
            return []
        used = {cube.id: 1.0 for cube in experience.known if cube.data.get(MAKER) == "nodes"}
        steps = told(trajectory, self.characters)
        ties: dict[str, Any] = {LINKS: used} if used else {}
        return [derived(experience, "nodes", Unit.DIGEST, trajectory.task, steps, **ties)]
