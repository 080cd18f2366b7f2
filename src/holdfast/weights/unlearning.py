"""What corrective unlearning (arXiv 2402.14015, section 4) is compared with: to train anew without what is flagged (EU), to go on
training without it (CF), to unlearn it against a teacher (SCRUB, arXiv 2302.09880), to learn nonsense of it (bad teacher, arXiv
2205.08096).

Each gives a trained copy; the model that it was given is left as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from holdfast.errors import InputError
from holdfast.torched import Tensor, nn, torch
from holdfast.weights.answers import Read, answers, asked, in_batches, rows_in
from holdfast.weights.base import Batch

PROFILE = ()  # no memory, but ways to take some out of weights

_WARM, _BEYOND = 0.01, 1.25


@dataclass(frozen=True, slots=True)
class Training:
    """How a model is trained: SGD, a warm-up of 1 % of the steps, then a rate that falls in a line and would be zero after 1.25
    times the steps. Raises InputError.
    """

    steps: int
    rate: float
    momentum: float = 0.9
    decay: float = 5e-4

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.rate > 0:
            raise InputError("training takes one step or more, at a rate above zero")


def train(model: nn.Module, batches: Iterable[Batch], training: Training, read: Read = answers) -> nn.Module:
    """Train a model in place and give it back, in the mode that it was in. ``batches``: a loader, gone over again and again."""
    endless = _endless(batches)
    with _stepping(model, training) as step:
        for _ in range(training.steps):
            step(read(model, next(endless)).loss)
    return model


def retrain(
    make: Callable[[], nn.Module], kept: Iterable[Batch], training: Training, read: Read = answers
) -> nn.Module:
    """EU: a model made anew, trained on what is kept alone. The only one that is exact, where all that is wrong is flagged."""
    return train(make(), kept, training, read)


def fine_tune(model: nn.Module, kept: Iterable[Batch], training: Training, read: Read = answers) -> nn.Module:
    """CF: what is flagged is hoped to be forgotten while the rest is learnt again."""
    return train(copy.deepcopy(model), kept, training, read)


def scrub(
    model: nn.Module,
    kept: Iterable[Batch],
    flagged: Iterable[Batch],
    training: Training,
    *,
    weight: float,
    ascent: int,
    temperature: float = 4.0,
    read: Read = answers,
) -> nn.Module:
    """SCRUB: loss plus ``weight`` times the divergence from the model as it was, made larger on what is flagged, else smaller.

    A pass over what is flagged comes before each pass over the rest, until ``ascent`` steps were made upwards.
    """
    teacher, student = copy.deepcopy(model).eval().requires_grad_(False), copy.deepcopy(model)

    def objective(batch: Batch) -> Tensor:
        said = read(student, batch)
        with torch.no_grad():
            before = read(teacher, batch).logits
        return said.loss + weight * _divergence(said.logits, before, temperature)

    def order() -> Iterator[tuple[Batch, float]]:
        up = 0
        while True:
            if up < ascent:
                for batch in _pass(flagged):
                    up += 1
                    yield batch, -1.0
            for batch in _pass(kept):
                yield batch, 1.0

    coming = order()
    with _stepping(student, training) as step:
        for _ in range(training.steps):
            batch, sign = next(coming)
            step(sign * objective(batch))
    return student


def bad_teacher(
    model: nn.Module,
    nonsense: nn.Module,
    kept: Iterable[Batch],
    flagged: Iterable[Batch],
    training: Training,
    read: Read = answers,
) -> nn.Module:
    """Bad teacher: a copy is to say of what is flagged what a model with random weights says, and else what it said.

    Each step takes a batch of both, and every answer counts alike.
    """
    teachers = [copy.deepcopy(one).eval().requires_grad_(False) for one in (model, nonsense)]
    student = copy.deepcopy(model)
    sources = [_endless(kept), _endless(flagged)]
    with _stepping(student, training) as step:
        for _ in range(training.steps):
            said, told = [], []
            for teacher, source in zip(teachers, sources, strict=True):
                batch = next(source)
                said.append(read(student, batch).logits)
                with torch.no_grad():
                    told.append(read(teacher, batch).logits)
            step(_divergence(torch.cat(said), torch.cat(told)))
    return student


class Shuffled:
    """Rows as a loader: every pass in another order, drawn by the seed. The last batch of a pass may be smaller.

    It goes on with its draws from training to training: make another for another training that is to see the same.
    """

    def __init__(self, rows: Batch, size: int, seed: int) -> None:
        self.rows, self.size, self._count = rows, size, rows_in(rows)
        self._random = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[Batch]:
        order = torch.randperm(self._count, generator=self._random)
        return in_batches({name: one[order] for name, one in self.rows.items()}, self.size)


def accuracy(model: nn.Module, batches: Iterable[Batch], read: Read = answers) -> float:
    """The share of answers that are right. Raises InputError where nothing is asked."""
    right = torch.cat([said.right for said in asked(model, batches, read)])
    return float(right.double().mean())


@contextmanager
def _stepping(model: nn.Module, training: Training) -> Iterator[Callable[[Tensor], None]]:
    """Within the block a step can be made with a loss; afterwards every module is in the mode that it was in."""
    warm = max(1, round(_WARM * training.steps))
    learning = [one for one in model.parameters() if one.requires_grad]
    optimiser = torch.optim.SGD(learning, lr=training.rate, momentum=training.momentum, weight_decay=training.decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda at: min((at + 1) / warm, 1 - at / (_BEYOND * training.steps))
    )

    def step(loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()

    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train()
        yield step
    finally:
        for module, mode in modes:
            module.training = mode


def _endless(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Pass after pass. Raises as ``_pass``."""
    while True:
        yield from _pass(batches)


def _pass(batches: Iterable[Batch]) -> Iterator[Batch]:
    """One pass. Raises InputError for a loader that gives nothing, or can be gone over but once."""
    none = True
    for batch in batches:
        none = False
        yield batch
    if none:
        raise InputError("a loader gives batches at every pass: give a list or a data loader, not a generator")


def _divergence(said: Tensor, told: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(told || said) of logits, both divided by the temperature, times its square; the mean of all places."""
    ours, theirs = (torch.log_softmax(one / temperature, dim=-1) for one in (said, told))
    return nn.functional.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2
