"""Attention sinks and a window of the newest entries (StreamingLLM, arXiv 2309.17453): the baseline of every retention policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.latent.retention import PINNED, Entries
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
class Window:
    """A policy: the first ``sinks`` entries, and of the others the newest. Raises InputError."""

    sinks: int = 4

    def __post_init__(self) -> None:
        if self.sinks < 0:
            raise InputError("there are no fewer than 0 sinks")

    def observe(self, _tokens: Tensor, _logits: Tensor, _before: Tensor | None) -> Mapping[str, Tensor]:
        """Nothing is noted."""
        return {}

    def score(self, _layer: int, entries: Entries, _seen: int) -> Tensor:
        """The position itself."""
        found = entries.positions.float()
        return found.masked_fill(entries.positions < self.sinks, PINNED)

    def turn(self, notes: dict[str, Tensor]) -> None:
        """Nothing changes."""
