"""No order of its own: for finds of all that there is, which a composer puts together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.retrieve.base import Scores
from holdfast.retrieve.hits import Hit

PROFILE = ()  # no mechanism


@dataclass(frozen=True, slots=True)
class Unranked:
    """A ranker: everything as it comes, the oldest first."""

    def rank(self, _query: str, candidates: Sequence[Hit], /) -> Scores:
        """Zeros, shape (len(candidates),)."""
        return np.zeros(len(candidates))
