"""Probes of memory layers: can a small model with this one layer say what it was told a while ago?

Multi-query associative recall as in Zoology (arXiv 2312.04927, §3 and appendix E): pairs of a key and a value, then keys again at
places drawn by a power law, of which the values are to be said. All layers are trained and scored by one and the same call.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from holdfast.bench.plots import Bars, Lines, draw
from holdfast.errors import InputError
from holdfast.latent.layers import State
from holdfast.latent.matrix_memory import MatrixMemory
from holdfast.latent.window_attention import WindowAttention
from holdfast.torched import Tensor, nn, torch

Ints = npt.NDArray[np.int64]
Factory = Callable[[int], nn.Module]
"""Makes a memory layer of some width."""

IGNORED = -100
"""The label of a place where nothing is asked."""
VALIDATION = 10_000
"""Added to a seed, for the sequences by which a rate is chosen."""


@dataclass(frozen=True, slots=True)
class Task:
    """Multi-query associative recall. Raises InputError for what does not fit.

    Fields
        length: tokens of a sequence.
        pairs: how many keys are told; in training these take turns.
        vocabulary: keys are of its first half, values of its second; 0 is the filler.
        random_filler: what is neither told nor asked is drawn from the whole vocabulary, not 0.
        slope: of the power law by which the distance of a question is drawn; the smaller, the sooner most are asked.
    """

    length: int = 64
    pairs: tuple[int, ...] = (4, 8, 16)
    vocabulary: int = 256
    random_filler: bool = True
    slope: float = 0.01

    def __post_init__(self) -> None:
        if self.length % 2 or not self.pairs or 4 * max(self.pairs) > self.length or self.vocabulary <= self.length:
            raise InputError(
                "a length is even, four times the pairs at least, and shorter than the vocabulary: "
                f"not {self.length} for {self.pairs} pairs of {self.vocabulary} tokens"
            )

    def drawn(self, rows: int, pairs: int, random: np.random.Generator) -> tuple[Ints, Ints]:
        """Tokens and labels, shape (rows, length) both."""
        half, told = self.vocabulary // 2, 2 * pairs
        keys = 1 + _some(rows, half - 1, pairs, random)
        values = half + _some(rows, self.vocabulary - half, pairs, random)
        tokens = np.zeros((rows, self.length), np.int64)
        tokens[:, 0:told:2], tokens[:, 1:told:2] = keys, values
        gaps = np.arange(1, (self.length - told) // 2 + 1)
        weight = self.slope * gaps ** (self.slope - 1.0)
        # The first of a race of exponentials: places without replacement, as likely as their weights.
        race = random.exponential(size=(rows, len(gaps))) / weight
        asked = told + 2 * np.argsort(race, axis=1)[:, :pairs]
        labels = np.full_like(tokens, IGNORED)
        np.put_along_axis(tokens, asked, keys, axis=1)
        np.put_along_axis(labels, asked, values, axis=1)
        if self.random_filler:
            filler = random.integers(0, self.vocabulary, tokens.shape)
            tokens = np.where(tokens == 0, filler, tokens)
        return tokens, labels


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a probe is trained: AdamW with a warm-up and a cosine, the numbers of pairs by turns."""

    steps: int = 2500
    batch: int = 32
    rate: float = 5e-3
    warm: int = 100
    decay: float = 0.1
    width: int = 64
    blocks: int = 1
    clip: float = 1.0


@dataclass(frozen=True, slots=True)
class Probed:
    """What came of it: accuracy by how many pairs were told, parameters of the layers alone, bytes of a row's state, seconds."""

    model: ProbeModel
    accuracy: dict[int, float]
    parameters: int
    state_bytes: int
    seconds: float
    loss: float

    @property
    def metrics(self) -> dict[str, float]:
        """As an arm of a claim: all of it by name, but for the model and its last loss."""
        return {
            **{f"{pairs} pairs": share for pairs, share in self.accuracy.items()},
            "parameters": float(self.parameters),
            "bytes of state": float(self.state_bytes),
            "seconds": self.seconds,
        }


class ProbeModel(nn.Module):  # type: ignore[misc]
    """Tokens, one or more layers with a residual each, and what comes next: nothing else that could remember."""

    def __init__(self, make: Factory, vocabulary: int, width: int, blocks: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.tokens.weight, std=width**-0.5)
        self.layers = nn.ModuleList(make(width) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.RMSNorm(width, eps=1e-6) for _ in range(blocks))
        self.last = nn.RMSNorm(width, eps=1e-6)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, list[State]]:
        """Hidden states before the head, shape (B, T, width), and what the layers kept."""
        x, states = self.tokens(tokens), []
        for norm, layer in zip(self.norms, self.layers, strict=True):
            said, state = layer(norm(x))
            x = x + said
            states.append(state)
        return self.last(x), states


def train_probe(
    make: Factory,
    task: Task,
    recipe: Recipe,
    *,
    seed: int,
    tested: int = 512,
    device: str = "cpu",
    extra: Callable[[nn.Module, Callable[[], Tensor]], Tensor] | None = None,
) -> Probed:
    """Train a model with such layers and score it on sequences it has not seen, ``tested`` for each number of pairs.

    ``extra(model, loss)`` may call ``loss`` and return another loss instead: that of a router, say.
    """
    random = np.random.default_rng([seed, 1])
    torch.manual_seed(seed)
    model = ProbeModel(make, task.vocabulary, recipe.width, recipe.blocks).to(device)
    started = time.process_time()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, betas=(0.9, 0.95), weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: _pace(at, recipe))
    loss = torch.zeros((), device=device)
    for step in range(recipe.steps):
        tokens, labels = task.drawn(recipe.batch, task.pairs[step % len(task.pairs)], random)

        def told(tokens: Ints = tokens, labels: Ints = labels) -> Tensor:
            hidden, _ = model(torch.from_numpy(tokens).to(device))
            wanted = torch.from_numpy(labels).to(device)
            asked = wanted != IGNORED
            return nn.functional.cross_entropy(model.head(hidden[asked]), wanted[asked])

        loss = told() if extra is None else extra(model, told)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        schedule.step()
    accuracy, state = scored(model, task, seed, tested)
    return Probed(
        model,
        accuracy,
        sum(one.numel() for one in model.layers.parameters()),
        state,
        time.process_time() - started,
        loss.item(),
    )


def tuned_probe(
    make: Factory,
    task: Task,
    recipe: Recipe,
    rates: Sequence[float],
    *,
    seed: int,
    pairs: int,
    device: str = "cpu",
    extra: Callable[[nn.Module, Callable[[], Tensor]], Tensor] | None = None,
) -> tuple[float, Probed]:
    """The best of the rates by recall of so many pairs, on sequences neither trained on nor tested, and what came of it.

    Every rate has the whole of the recipe; with one rate there is nothing to choose. See ``train_probe``.
    """
    tried = [
        (rate, train_probe(make, task, replace(recipe, rate=rate), seed=seed, device=device, extra=extra))
        for rate in rates
    ]
    if len(tried) == 1:
        return tried[0]
    return max(tried, key=lambda one: scored(one[1].model, task, seed + VALIDATION, 256)[0][pairs])


@torch.no_grad()  # type: ignore[untyped-decorator]
def scored(model: nn.Module, task: Task, seed: int, tested: int) -> tuple[dict[int, float], int]:
    """Accuracy by number of pairs on sequences that training never draws, and bytes of one row's state."""
    found, state, device = {}, 0, next(model.parameters()).device
    for pairs in task.pairs:
        tokens, labels = task.drawn(tested, pairs, np.random.default_rng([seed, 2, pairs]))
        right = 0
        for start in range(0, tested, 64):
            hidden, states = model(torch.from_numpy(tokens[start : start + 64]).to(device))
            wanted = torch.from_numpy(labels[start : start + 64]).to(device)
            asked = wanted != IGNORED
            right += int((model.head(hidden[asked]).argmax(dim=-1) == wanted[asked]).sum())
            state = sum(one[:1].numel() * one.element_size() for layer in states for one in layer.values())
        found[pairs] = right / (tested * pairs)
    return found, state


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch has one thread: with several, models as small as these are slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def anchors(length: int, *, size: int = 16, window: int = 16, conv: int = 3) -> dict[str, Factory]:
    """What every memory layer is measured beside, with one head of ``size``: the best there is, and the usual."""
    return {
        "attention": lambda width: WindowAttention(width, 1, head_dim=size, window=length, conv=conv),
        "gated delta": lambda width: MatrixMemory(width, 1, key_dim=size, conv=conv),
        "linear": lambda width: MatrixMemory(width, 1, key_dim=size, conv=conv, rule="linear"),
        "window": lambda width: WindowAttention(width, 1, head_dim=size, window=window, conv=conv),
    }


def _pace(step: int, recipe: Recipe) -> float:
    """A linear warm-up, then a cosine down to nothing."""
    if step < recipe.warm:
        return (step + 1) / recipe.warm
    return 0.5 * (1 + math.cos(math.pi * (step - recipe.warm) / max(1, recipe.steps - recipe.warm)))


def _some(rows: int, count: int, wanted: int, random: np.random.Generator) -> Ints:
    """So many different numbers below ``count``, for each row: shape (rows, wanted)."""
    drawn: Sequence[int] | Ints = np.argsort(random.random((rows, count)), axis=1)[:, :wanted]
    return np.asarray(drawn, np.int64)


def draw_recall(
    path: Path,
    recall: Mapping[str, Sequence[float]],
    pairs: Sequence[int],
    *,
    ours: str,
    control: str,
    required: float,
    title: str,
    subtitle: str,
) -> None:
    """Recall of each arm by the number of pairs, and of the most of them beside what is required of ours."""
    most = max(range(len(pairs)), key=lambda at: pairs[at])
    draw(
        path,
        [
            Lines(
                {arm: (pairs, shares) for arm, shares in recall.items()}, title="recall, by pairs told", percent=True
            ),
            Bars(
                {arm: shares[most] for arm, shares in recall.items()},
                title=f"recall of {pairs[most]} pairs",
                ours=(ours,),
                controls=(control,),
                required=required,
                percent=True,
            ),
        ],
        title=title,
        subtitle=subtitle,
    )
