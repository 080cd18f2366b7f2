"""The ranker's seam: in which order what was found is worth telling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from holdfast.retrieve.hits import Hit

Scores = npt.NDArray[np.float64]


class Ranker(Protocol):
    """Scores what a search has found; ``hit.relevance`` says how well it fits the query, ``hit.cube`` all that is known of it."""

    def rank(self, query: str, candidates: Sequence[Hit], /) -> Scores:
        """A score each, shape (len(candidates),), the higher the better; -inf for what is to be left out."""
        ...
