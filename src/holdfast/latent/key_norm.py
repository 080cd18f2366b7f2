"""Keys of small norm are kept (arXiv 2406.11430): queries tend to look at them. Nothing is noted, and little computed."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.latent.retention import LEAST, Entries, Retention, pinned
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Retrieval, Subform, Subject
from holdfast.torched import Tensor, torch

PROFILE = MemoryProfile(
    Form.STATE,
    Subform.REUSED,
    (Function.WORK_MULTI,),
    evolution=(Evolution.FORGET_BY_IMPORTANCE,),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.USER, Subject.WORLD, Subject.AGENT),
)


@dataclass(frozen=True, slots=True)
class KeyNorm(Retention):
    """A policy for each head of its own. Raises InputError.

    Fields
        sinks: so many of the first entries are pinned.
        recent: so many of the newest are.
    """

    sinks: int = 0
    recent: int = 0

    def __post_init__(self) -> None:
        if self.sinks < 0 or self.recent < 0:
            raise InputError("sinks and recent are 0 or more")

    def score(self, layer: int, entries: Entries, seen: int) -> Tensor:
        """The logarithm of the norm, negative."""
        norms = torch.linalg.vector_norm(entries.keys, dim=-1, dtype=torch.float32)
        return pinned(-norms.clamp(min=LEAST).log(), entries, seen, self.sinks, self.recent)
