"""What the newest queries look at is kept (SnapKV, arXiv 2404.14469), with what stands next to it: their mean attention, pooled.

Published for a prompt that is read at once and then kept; here the window moves on, so that decoding is bounded too. The queries
of the window are kept, and what they look at is computed when something must leave, not at every step.
"""

from __future__ import annotations

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
    evolution=(Evolution.FORGET_BY_IMPORTANCE,),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.USER, Subject.WORLD, Subject.AGENT),
)


@dataclass(frozen=True, slots=True)
class ObservationWindow(Retention):
    """A policy for each head of its own. Raises InputError.

    Fields
        window: so many of the newest queries are asked; their own entries are pinned.
        pool: over so many neighbours, an odd number, the attention of an entry is averaged: what stands around it is kept with it.
        sinks: so many of the first entries are pinned.
    """

    window: int = 32
    pool: int = 5
    sinks: int = 0

    def __post_init__(self) -> None:
        if self.window < 1 or self.pool < 1 or self.pool % 2 == 0 or self.sinks < 0:
            raise InputError("the window is 1 or more, the pool an odd number, and sinks are 0 or more")

    @property
    def needs(self) -> Needs:
        """The queries of the window."""
        return Needs(queries=self.window)

    def score(self, layer: int, entries: Entries, seen: int) -> Tensor:
        """The logarithm of the pooled attention, the mean of the window's queries and of the heads that share a head of keys."""
        assert entries.queries is not None
        assert entries.asked is not None
        queries, asked = entries.queries[:, :, -self.window :], entries.asked[-self.window :]
        found = attention(entries, queries, asked).mean(dim=(2, 3))
        # The window's own entries are kept anyway, and lend nothing to their neighbours.
        found = found.masked_fill(entries.positions >= seen - self.window, 0.0)
        found = torch.nn.functional.avg_pool1d(found, self.pool, stride=1, padding=self.pool // 2)
        return pinned(found.clamp(min=LEAST).log(), entries, seen, self.sinks, self.window)
