"""Any embedder, held to what the seam promises: what it gives is checked, and how it fails is one kind of error."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from holdfast.encode.base import Embedder, Vectors
from holdfast.errors import EmbedderError, HoldfastError


class Checked:
    """An embedder of anybody's making. ``embed`` raises EmbedderError whatever goes wrong inside."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @cached_property
    def model(self) -> str:
        """The embedder's name, as it first gave it."""
        return self._embedder.model

    @cached_property
    def dimension(self) -> int:
        """The embedder's dimension, as it first gave it: a service that changes it later is not believed."""
        return self._embedder.dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Finite vectors, float32, shape (len(texts), dimension). Raises EmbedderError."""
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        try:
            vectors: Vectors = np.asarray(self._embedder.embed(texts), np.float32)
        except HoldfastError:
            raise
        except Exception as error:  # anybody's code: a time-out, a refused connection, a text it cannot take
            raise EmbedderError(f"{self.model} failed: {type(error).__name__}: {error}") from error
        if vectors.shape != (len(texts), self.dimension):
            raise EmbedderError(
                f"{self.model} gave vectors of shape {vectors.shape} for {len(texts)} texts and dimension {self.dimension}"
            )
        if not np.isfinite(vectors).all():
            raise EmbedderError(f"{self.model} gave a vector that holds no numbers (NaN or infinity)")
        return vectors
