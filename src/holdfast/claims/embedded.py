"""What claims compare texts by: MiniLM, and each text once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.encode.base import Embedder, Vectors
from holdfast.encode.embedders import open_embedder
from holdfast.errors import ClaimError, HoldfastError

EMBEDDER = "minilm"


class Cached:
    """An embedder that embeds each text once: every arm meets the same ones, again and again."""

    def __init__(self, inner: Embedder) -> None:
        self.model, self.dimension = inner.model, inner.dimension
        self._inner = inner
        self._known: dict[str, Vectors] = {}

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row for each text, shape (len(texts), dimension)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= dict(zip(new, self._inner.embed(new), strict=True))
        rows = [self._known[text] for text in texts]
        return np.stack(rows) if rows else np.empty((0, self.dimension), np.float32)


def embedder(why: str) -> Cached:
    """The embedder of a claim, which says what for. Raises ClaimError where it is not installed."""
    try:
        return Cached(open_embedder(EMBEDDER))
    except HoldfastError as error:
        raise ClaimError(f"{why}, and nothing can embed here: {error}") from error
