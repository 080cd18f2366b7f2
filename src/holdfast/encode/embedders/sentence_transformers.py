"""Any model of the sentence-transformers library that lies on this machine (Sentence-BERT, 1908.10084)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from holdfast.encode.base import Vectors
from holdfast.encode.embedders.text import clean
from holdfast.encode.embedders.weights import installed
from holdfast.errors import EmbedderError, MissingExtraError

_CHARACTERS = 65_536


class SentenceTransformerEmbedder:
    """Unit vectors by ``SentenceTransformer(name)``, a model's name or folder; loaded on first use, never downloaded.

    ``device`` is torch's name of one (``cpu``, ``cuda``). Raises MissingExtraError where the library is not installed.
    """

    def __init__(self, name: str, *, device: str | None = None) -> None:
        if not installed("sentence_transformers"):
            raise MissingExtraError(
                "This embedder needs sentence-transformers. Install it with: pip install 'holdfast[sentence-transformers]'"
            )
        self._name = name
        self._device = device

    @property
    def model(self) -> str:
        """The name by which ``open_embedder`` opens it."""
        return f"sentence-transformers:{self._name}"

    @cached_property
    def dimension(self) -> int:
        """Length of the vectors, found by embedding one text. Raises EmbedderError."""
        return int(self._encode(["dimension"]).shape[1])

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dimension). Raises InputError, EmbedderError."""
        cleaned = clean(texts, _CHARACTERS)
        if not cleaned:
            return np.empty((0, self.dimension), dtype=np.float32)
        return self._encode(cleaned)

    @cached_property
    def _transformer(self) -> Any:
        from sentence_transformers import SentenceTransformer

        try:
            return SentenceTransformer(self._name, device=self._device, local_files_only=True)
        except (OSError, ValueError) as error:
            raise EmbedderError(
                f"The model {self._name} is not on this machine or cannot be loaded: {error}"
            ) from error

    def _encode(self, texts: list[str]) -> Vectors:
        try:
            found = self._transformer.encode(
                texts, convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False
            )
        except RuntimeError as error:  # torch's errors: out of memory, no such device
            raise EmbedderError(f"{self.model} failed on {len(texts)} texts: {error}") from error
        vectors: Vectors = np.asarray(found, dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise EmbedderError(
                f"{self.model} gave vectors of shape {vectors.shape} for {len(texts)} texts, or not finite."
            )
        return vectors
