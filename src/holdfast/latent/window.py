"""Attention sinks and a window of the newest entries (StreamingLLM, arXiv 2309.17453): the baseline of every retention policy."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.latent.retention import Entries, Retention, pinned
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Retrieval, Subform, Subject
from holdfast.torched import Tensor

PROFILE = MemoryProfile(
    Form.STATE,
    Subform.REUSED,
    (Function.WORK_MULTI,),
    evolution=(Evolution.FORGET_BY_TIME,),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.USER, Subject.WORLD, Subject.AGENT),
)


@dataclass(frozen=True, slots=True)
class Window(Retention):
    """A policy: the first ``sinks`` entries, and of the others the newest. Raises InputError."""

    sinks: int = 4

    def __post_init__(self) -> None:
        if self.sinks < 0:
            raise InputError("there are no fewer than 0 sinks")

    def score(self, layer: int, entries: Entries, seen: int) -> Tensor:
        """The position itself."""
        return pinned(entries.positions.float(), entries, seen, self.sinks, 0)
