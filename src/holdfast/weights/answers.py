"""What a model says to a batch, of one form for classifiers and for causal language models, so that what measures, repairs or
unlearns them is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from holdfast.errors import InputError
from holdfast.torched import Tensor, nn, torch
from holdfast.weights.base import Batch, evaluating
from holdfast.weights.calls import LABELS, inputs, logits_of
from holdfast.weights.prompts import IGNORED

PROFILE = ()  # no memory, but how one that is in weights is asked


@dataclass(frozen=True, slots=True)
class Answers:
    """Every place of a batch at which something was to be said.

    Fields
        logits: shape (places, choices).
        labels: shape (places,), what was to be said.
        rows: shape (places,), the row of the batch that each place is of; a classifier has one place a row.
    """

    logits: Tensor
    labels: Tensor
    rows: Tensor

    @property
    def loss(self) -> Tensor:
        """The mean cross-entropy of all places; a scalar."""
        return torch.nn.functional.cross_entropy(self.logits, self.labels)

    @property
    def right(self) -> Tensor:
        """Whether the most likely choice is the label; shape (places,)."""
        return self.logits.argmax(dim=-1) == self.labels


Read = Callable[[nn.Module, Batch], Answers]
"""How a model is asked; ``answers`` is enough for classifiers and causal language models."""


def answers(model: nn.Module, batch: Batch) -> Answers:
    """Call a model on a batch that has ``labels``. Raises InputError.

    A model of ``transformers`` is given the rest by name, any other in the order in which it stands. Logits of shape (B, C) are a
    class a row; of shape (B, T, C) they tell the next token, as the models of ``transformers`` count (labels as long as the text,
    -100 where nothing is asked).
    """
    if LABELS not in batch:
        raise InputError("a batch needs labels: what was to be said")
    labels, given = batch[LABELS], inputs(batch)
    logits = logits_of(model(**given) if hasattr(model, "config") else model(*given.values()))
    rows = torch.arange(len(labels), device=labels.device)
    if logits.dim() == 3 and labels.dim() == 2:
        logits, labels = logits[:, :-1], labels[:, 1:]
        asked = labels != IGNORED
        logits, labels, rows = logits[asked], labels[asked], rows[:, None].expand_as(asked)[asked]
    elif logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise InputError(f"logits of shape {tuple(logits.shape)} do not answer labels of shape {tuple(labels.shape)}")
    if not len(labels):
        raise InputError("nothing is asked in this batch: every label is -100")
    return Answers(logits, labels, rows)


def in_batches(rows: Batch, size: int) -> Iterator[Batch]:
    """Rows, in their order, ``size`` at a time; the last batch may be smaller. Raises InputError."""
    count = rows_in(rows)
    if size < 1:
        raise InputError(f"a batch has one row or more, not {size}")
    for at in range(0, count, size):
        yield {name: one[at : at + size] for name, one in rows.items()}


def rows_in(batch: Batch) -> int:
    """How many rows a batch has. Raises InputError where there are none, or its tensors do not agree."""
    counts = {len(one) for one in batch.values()}
    if len(counts) != 1 or not (count := counts.pop()):
        raise InputError("the tensors of a batch have as many rows each, and one at least")
    return count


def asked(model: nn.Module, batches: Iterable[Batch], read: Read = answers) -> Iterator[Answers]:
    """What a model says to each batch, without dropout and without gradients. Raises InputError where there is no batch."""
    none = True
    with evaluating(model):
        for batch in batches:
            none = False
            yield read(model, batch)
    if none:
        raise InputError("there is nothing to ask: no batch was given")
