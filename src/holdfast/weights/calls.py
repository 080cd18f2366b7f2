"""A model is called on a batch by names, and what it answers is read the same way from any model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.errors import InputError
from holdfast.torched import Tensor
from holdfast.weights.base import Batch

PROFILE = ()  # no memory

LABELS = "labels"
"""Under this name a batch holds what was to be said."""


def inputs(batch: Batch) -> dict[str, Tensor]:
    """A batch without its labels."""
    return {name: one for name, one in batch.items() if name != LABELS}


def logits_of(outputs: Any) -> Tensor:
    """The logits of an answer: the answer itself, or what it holds under that name. Raises InputError for another."""
    found = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", outputs)
    if not isinstance(found, Tensor):
        raise InputError(
            f"a model must answer with logits, or with something that holds them, not {type(outputs).__name__}"
        )
    return found


def kept(batch: Batch, logits: Tensor) -> Tensor:
    """Logits as rows, one a prediction, without those of padding: shape (N, classes)."""
    mask = batch.get("attention_mask")
    if logits.dim() == 3 and mask is not None and mask.shape == logits.shape[:2]:
        return logits[mask.bool()]
    return logits.flatten(0, -2)
