"""What every embedder does to its input first: check that it is text, and make any text fit to be tokenised."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.errors import InputError


def clean(texts: Sequence[str], limit: int) -> list[str]:
    """The texts cut to ``limit`` characters, with lone surrogates replaced by U+FFFD. Raises InputError."""
    if isinstance(texts, str):
        raise InputError("embed() takes a list of texts; for one text pass [text].")
    cleaned = []
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"Text {number} is a {type(text).__name__}; embed() takes strings only.")
        text = text[:limit]
        if not text.isascii():
            # By way of UTF-16 a pair of surrogates becomes the character that it stands for.
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        cleaned.append(text)
    return cleaned
