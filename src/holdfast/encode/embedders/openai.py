"""Embeddings from any server that speaks OpenAI's protocol, through the official client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from holdfast.encode.base import Vectors
from holdfast.encode.embedders.text import clean
from holdfast.encode.embedders.weights import installed
from holdfast.errors import EmbedderError, InputError, MissingExtraError

_CHARACTERS = 24_000  # about 6,000 tokens of English; the usual limit for one text is 8,191
_TEXTS_A_REQUEST = 128
_CHARACTERS_A_REQUEST = 200_000


class OpenAIEmbedder:
    """Unit vectors from ``base_url`` (default: OPENAI_BASE_URL, else OpenAI itself), by ``api_key`` (default: OPENAI_API_KEY).

    With a ``base_url`` neither key nor organisation nor project is taken from the environment (``encode.endpoint.open_client``).
    ``dimension`` asks the server for vectors of that length; without it the first answer tells the length, and every
    later one must have it too. ``timeout`` is in seconds for one try. A try that is refused as too many, or that fails
    on the server's side or on the way, is repeated up to ``retries`` times, with growing pauses. A text is cut at 24,000
    characters.

    Raises MissingExtraError without the client, EmbedderError where no key is set.
    """

    def __init__(
        self,
        name: str,
        *,
        dimension: int | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
    ) -> None:
        if not installed("openai"):
            raise MissingExtraError(
                "This embedder needs the OpenAI client. Install it with: pip install 'holdfast[llm]'"
            )
        from holdfast.encode.endpoint import open_client

        try:
            self._client = open_client(base_url, api_key, timeout, retries)
        except InputError as error:
            raise EmbedderError(
                "The OpenAI client needs a key. Set OPENAI_API_KEY (to anything, for a server without keys)."
            ) from error
        self._name = name
        self._asked = dimension

    @property
    def model(self) -> str:
        """The name by which ``open_embedder`` opens it; the server's address is not part of it."""
        return f"openai:{self._name}" + (f"@{self._asked}" if self._asked else "")

    @cached_property
    def dimension(self) -> int:
        """The length asked for, else that of a vector got from the server on first use. Raises EmbedderError."""
        return self._asked or self._request(["dimension"], 0, 1).shape[1]

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dimension). Raises InputError, EmbedderError."""
        # The protocol refuses an empty text.
        cleaned = [text or " " for text in clean(texts, _CHARACTERS)]
        vectors = np.empty((len(cleaned), self.dimension), dtype=np.float32)
        for start, stop in _requests(cleaned):
            vectors[start:stop] = self._part(cleaned, start, stop)
        return vectors

    def _part(self, texts: list[str], start: int, stop: int) -> Vectors:
        import openai

        try:
            found = self._request(texts[start:stop], start, stop)
        except openai.BadRequestError as error:
            # Halving gets a request that was too large through, and finds the one text that the server refuses.
            if stop - start == 1:
                raise EmbedderError(f"The server refuses text {start}: {error.message}") from error
            middle = (start + stop) // 2
            return np.concatenate([self._part(texts, start, middle), self._part(texts, middle, stop)])
        if found.shape[1] != self.dimension:
            raise EmbedderError(
                f"{self.model} answered with vectors of {found.shape[1]} dimensions for {_which(start, stop)}, "
                f"{self.dimension} expected. Is another model served under that name?"
            )
        return found

    def _request(self, texts: list[str], start: int, stop: int) -> Vectors:
        """Unit vectors of one request. Raises openai.BadRequestError, for the caller to halve, and EmbedderError."""
        import openai

        which = _which(start, stop)
        wishes: dict[str, Any] = {"dimensions": self._asked} if self._asked else {}
        try:
            answer = self._client.embeddings.create(model=self._name, input=texts, encoding_format="float", **wishes)
        except openai.BadRequestError:
            raise
        except openai.APITimeoutError as error:
            raise EmbedderError(
                f"The embedding server did not answer in time for {which}; nothing was kept."
            ) from error
        except (openai.OpenAIError, ValueError) as error:
            raise EmbedderError(f"The embedding server failed on {which}: {error}") from error
        return _vectors(answer, len(texts), which)


def _requests(texts: list[str]) -> Iterator[tuple[int, int]]:
    """Ranges of texts that go into one request."""
    start = characters = 0
    for number, text in enumerate(texts):
        characters += len(text)
        if number > start and (number - start == _TEXTS_A_REQUEST or characters > _CHARACTERS_A_REQUEST):
            yield start, number
            start, characters = number, len(text)
    if texts:
        yield start, len(texts)


def _which(start: int, stop: int) -> str:
    return f"text {start}" if stop - start == 1 else f"texts {start} to {stop - 1}"


def _vectors(answer: Any, count: int, which: str) -> Vectors:
    """What a server sent, as unit vectors in the order asked for; a server may send anything."""
    try:
        rows = {int(row.index): row.embedding for row in answer.data}
        if len(answer.data) != count or rows.keys() != set(range(count)):
            raise EmbedderError(
                f"The embedding server sent {len(answer.data)} vectors for {which}; {count} were asked for."
            )
        vectors: Vectors = np.array([rows[number] for number in range(count)], dtype=np.float32)
    except (AttributeError, TypeError, ValueError) as error:
        raise EmbedderError(f"The embedding server sent something else than vectors for {which}: {error}") from error
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True) if vectors.ndim == 2 else np.zeros(1)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise EmbedderError(f"The embedding server sent an empty, zero or infinite vector for {which}.")
    unit: Vectors = vectors / norms
    return unit
