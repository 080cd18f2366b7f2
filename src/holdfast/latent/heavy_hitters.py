"""What was looked at most is kept (H2O, arXiv 2306.14048): each entry's attention, added up over all queries since it was written.

Half of the published budget goes to the newest entries, which had no time to gain any: ``recent``. A mean instead of the sum (as in
kvpress' observed attention) does not favour the old. To see what is looked at, attention is computed once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.latent.retention import LEAST, Entries, Needs, Retention, attention, pinned
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Retrieval, Subform, Subject
from holdfast.torched import Tensor, torch

PROFILE = MemoryProfile(
    Form.STATE,
    Subform.REUSED,
    (Function.WORK_MULTI,),
    evolution=(Evolution.FORGET_BY_FREQUENCY,),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.USER, Subject.WORLD, Subject.AGENT),
)

ATTENTION = "attention"

_BLOCK = 64
"""So many queries are looked at together: all of a long prompt would need memory of its length squared."""


@dataclass(frozen=True, slots=True)
class HeavyHitters(Retention):
    """A policy for each head of its own. Raises InputError.

    Fields
        recent: so many of the newest entries are pinned: half of the budget, as published.
        sinks: so many of the first are.
        mean: attention by query, instead of its sum.
    """

    recent: int = 64
    sinks: int = 0
    mean: bool = False

    def __post_init__(self) -> None:
        if self.recent < 0 or self.sinks < 0:
            raise InputError("sinks and recent are 0 or more")

    @property
    def needs(self) -> Needs:
        """What is read."""
        return Needs(reads=True)

    def read(self, layer: int, entries: Entries, queries: Tensor) -> Mapping[str, Tensor]:
        """The attention of each entry so far, the mean of the queries' heads that share its head."""
        found = entries.notes.get(ATTENTION)
        if found is None:
            found = torch.zeros(entries.positions.shape, dtype=torch.float32, device=queries.device)
        asked = entries.positions[0, 0, -queries.shape[2] :]
        groups = queries.shape[1] // entries.keys.shape[1]
        for start in range(0, queries.shape[2], _BLOCK):
            some = slice(start, start + _BLOCK)
            found = found + attention(entries, queries[:, :, some], asked[some]).sum(dim=(2, 3)) / groups
        return {ATTENTION: found}

    def score(self, layer: int, entries: Entries, seen: int) -> Tensor:
        """Its logarithm."""
        found = entries.notes[ATTENTION]
        if self.mean:
            found = found / (seen - entries.positions).clamp(min=1)
        return pinned(found.clamp(min=LEAST).log(), entries, seen, self.sinks, self.recent)
