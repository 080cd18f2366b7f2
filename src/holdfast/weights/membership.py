"""Whether a model still knows what it was to forget: an attack that tells members from rows it never saw by loss (arXiv
1709.01604) or by entropy, as in arXiv 2308.07707; its area under the curve with an interval.

Suspects and unseen rows must be of one kind (the same origin, form and time), or the test tells the kinds apart and not what was
learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.errors import InputError
from holdfast.torched import Tensor, nn, torch
from holdfast.weights.answers import Answers, Read, answers, asked
from holdfast.weights.base import Batch

PROFILE = ()  # no memory, but a test of what is in one

DRAWS = 2000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Membership:
    """How well suspects are told from what was never seen: ``auc`` 0.5 is not at all; with a 95 % bootstrap interval."""

    auc: float
    low: float
    high: float

    @property
    def told(self) -> bool:
        """Whether the suspects still look like members, beyond chance."""
        return self.low > 0.5


def membership(
    suspects: Sequence[float] | Floats, unseen: Sequence[float] | Floats, *, seed: int = 0, draws: int = DRAWS
) -> Membership:
    """The chance that a suspect's score exceeds that of an unseen row, ties counted half; high scores are those of members.

    The interval draws both sides anew. With few suspects it is wide, and says so. Raises InputError for less than two on a side, or
    for scores that are no numbers.
    """
    ours, theirs = (np.asarray(one, dtype=np.float64) for one in (suspects, unseen))
    if min(ours.size, theirs.size) < 2 or ours.ndim != 1 or theirs.ndim != 1:
        raise InputError("a membership test needs two suspects and two unseen rows at least")
    if np.isnan(ours).any() or np.isnan(theirs).any():
        raise InputError("a score is no number: the model's loss is not finite")
    # Of each suspect how many of the unseen lie below it; a draw weighs both sides anew by how often each was drawn.
    order = np.sort(theirs)
    below, upto = np.searchsorted(order, ours, side="left"), np.searchsorted(order, ours, side="right")
    random = np.random.default_rng(seed)
    found = [float((below + upto).mean() / 2 / theirs.size)]
    for _ in range(draws):
        weights = np.bincount(random.integers(theirs.size, size=theirs.size), minlength=theirs.size)
        heaped = np.concatenate([[0], np.cumsum(weights)])
        some = random.integers(ours.size, size=ours.size)
        found.append(float((heaped[below[some]] + heaped[upto[some]]).mean() / 2 / theirs.size))
    low, high = np.quantile(found[1:], [0.025, 0.975]) if draws else (found[0], found[0])
    return Membership(found[0], float(low), float(high))


def by_loss(model: nn.Module, batches: Iterable[Batch], read: Read = answers) -> Floats:
    """A score for each row: minus the mean loss of its answers; of a text, minus the mean loss of its tokens."""
    return _scored(
        model, batches, read, lambda said: -nn.functional.cross_entropy(said.logits, said.labels, reduction="none")
    )


def by_entropy(model: nn.Module, batches: Iterable[Batch], read: Read = answers) -> Floats:
    """A score for each row that needs no true label: minus the mean entropy of what the model says."""

    def sure(said: Answers) -> Tensor:
        told = torch.log_softmax(said.logits.double(), dim=-1)
        return (told.exp() * told).nan_to_num().sum(dim=-1)  # 0 log 0 is 0

    return _scored(model, batches, read, sure)


def _scored(model: nn.Module, batches: Iterable[Batch], read: Read, score: Callable[[Answers], Tensor]) -> Floats:
    found = []
    for said in asked(model, batches, read):
        scores, rows = score(said).double(), said.rows
        sums = torch.zeros(int(rows.max()) + 1, dtype=torch.float64, device=scores.device)
        counts = torch.zeros_like(sums).index_add(0, rows, torch.ones_like(scores))
        means = sums.index_add(0, rows, scores) / counts
        found.append(means[counts > 0].cpu().numpy())
    return np.concatenate(found)
