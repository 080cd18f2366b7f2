"""A model is called on a batch by names, and what it answers is read the same way from any model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from holdfast.errors import InputError
from holdfast.torched import Tensor, nn
from holdfast.weights.base import Batch

PROFILE = ()  # no memory

LABELS = "labels"
"""Under which name a batch holds what is right."""


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


def own_loss(model: nn.Module, batch: Batch) -> Tensor | None:
    """The loss that a model of ``transformers`` counts itself where it is given labels; None for a model that takes none."""
    taken = inspect.signature(model.forward).parameters.values()
    if LABELS not in batch or not any(one.name == LABELS or one.kind is one.VAR_KEYWORD for one in taken):
        return None
    outputs = model(**batch)
    found = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    return found if isinstance(found, Tensor) else None
