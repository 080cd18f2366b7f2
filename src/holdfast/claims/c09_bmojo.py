"""B'MOJO (arXiv 2407.06324): an exact store of what was not foreseen recalls what a window, a fading memory and both together lose.

Associative recall with an empty filler, so that what is told is what surprises; windows are far shorter than the way back to it.
The layers are the product's own, one of them in a small model that has nothing else to remember with. Every arm is trained at the
same learning rates, the best of which is chosen by sequences that are neither trained on nor tested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.bench.memory_probes import (
    Factory,
    Probed,
    Recipe,
    Task,
    draw_recall,
    one_thread,
    train_probe,
    tuned_probe,
)
from holdfast.claims.base import Check, Result, Scale
from holdfast.latent.bmojo import BMojo, Selector, foresight, watched
from holdfast.latent.layers import Layer, State, real
from holdfast.latent.matrix_memory import MatrixMemory
from holdfast.latent.titans_blocks import named, under
from holdfast.latent.window_attention import WindowAttention
from holdfast.torched import Tensor, nn

number = 9
name = "bmojo"
statement = (
    "With window and state alike, an exact store of the tokens that were foreseen worst recalls at least 10 points more of the "
    "most pairs told than a gated delta rule, than the same with a window behind it and than a window with fading memory alone; "
    "more than a store of a quarter of the size; and at least 10 points more than a store of tokens drawn at random."
)
arms = ("eidetic", "small store", "random store", "no store", "gated delta", "gated delta, then window", "window")

OURS, SMALL, RANDOM, NONE, DELTA, HYBRID, WINDOW = arms
CONV = 3
VARIANTS: Mapping[str, Mapping[str, Any]] = {"random filler": {"random_filler": True}, "asked evenly": {"slope": 1.0}}
"""Of the task, for the two stores of one size, not in the quick form; they decide nothing. As the task is, most is asked soon, when
a store has room for nearly all that has left the window, whatever it selects."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large the proof is: task and recipe, head size and window, the stores and the rates tried."""

    task: Task
    recipe: Recipe
    head: int
    window: int
    store: int
    small: int
    rates: tuple[float, ...]


SIZES: Mapping[Scale, Size] = {
    "quick": Size(Task(64, (2, 4, 8), 128, random_filler=False), Recipe(steps=700, batch=16), 8, 8, 16, 4, (5e-3,)),
    "full": Size(
        Task(128, (4, 8, 16), 256, random_filler=False), Recipe(steps=2000, batch=16), 16, 16, 32, 8, (2e-3, 5e-3, 1e-2)
    ),
    "gpu": Size(
        Task(2048, (64, 128, 256), 8192, random_filler=False),
        Recipe(steps=20_000, batch=32, width=128, blocks=2),
        64,
        128,
        512,
        128,
        (1e-3, 3e-3),
    ),
}


def run(scale: Scale, seed: int, data: Path | None) -> Result:
    """All arms on the same sequences, drawn by ``seed``."""
    size = SIZES[scale]
    task, most = size.task, max(size.task.pairs)
    with one_thread():
        chosen = {
            arm: tuned_probe(make, task, size.recipe, size.rates, seed=seed, pairs=most, extra=_foreseeing)
            for arm, make in _layers(size).items()
        }
        found = {arm: one for arm, (_, one) in chosen.items()}
        if scale != "quick":
            for variant, change in VARIANTS.items():
                other = replace(size, task=replace(task, **change))
                found |= {
                    f"{arm}, {variant}": _trained(_layers(size)[arm], other, chosen[arm][0], seed)
                    for arm in (OURS, RANDOM)
                }
    measured = {arm: one.metrics for arm, one in found.items()}
    for arm, (rate, _) in chosen.items():
        measured[arm]["learning rate"] = rate
    best = {arm: one.accuracy[most] for arm, one in found.items()}
    checks = (
        *(Check(f"recall of {most} pairs, less {arm}", best[OURS] - best[arm], 0.10) for arm in (DELTA, HYBRID, NONE)),
        Check(f"recall of {most} pairs, less a small store", best[OURS] - best[SMALL], 0.0001),
        Check(f"recall of {most} pairs, less a random store", best[OURS] - best[RANDOM], 0.10),
    )
    settings = {
        "length": task.length,
        "pairs": list(task.pairs),
        "vocabulary": task.vocabulary,
        "window": size.window,
        "store": size.store,
        "small store": size.small,
        "head size": size.head,
        "convolution": CONV,
        "steps": size.recipe.steps,
        "batch": size.recipe.batch,
        "width": size.recipe.width,
        "blocks": size.recipe.blocks,
        "learning rates": list(size.rates),
        "scale": scale,
    }
    notes = (
        "one layer: attention sees what fading memory said of other tokens, never of the one that asks, so that without a store "
        "it recalls little of what is far: a second layer, or the option residual, would help",
        "the store's filter and its selection are our reading of the paper: the authors have published the layer without a store",
        "most is asked soon, when a store has room for nearly all that has left the window, whatever it selects; with questions "
        "spread evenly (an arm that decides no check, and is not in the quick form) it has not",
        "where the filler surprises as much as what is told, innovation tells nothing of what is asked (as above)",
    )
    series = {"recall": {arm: list(found[arm].accuracy.values()) for arm in arms}, "pairs": list(task.pairs)}
    return Result(measured, checks, settings, series, notes)


def plot(result: Result, path: Path) -> None:
    """Recall by the number of pairs, and of the most."""
    pairs = result.series["pairs"]
    most = {arm: result.arms[arm][f"{max(pairs)} pairs"] for arm in arms}
    draw_recall(
        path,
        result.series["recall"],
        pairs,
        ours=OURS,
        control=RANDOM,
        required=max(most[arm] for arm in (DELTA, HYBRID, NONE)) + 0.10,
        title="What was not foreseen is worth keeping word for word",
        subtitle="Multi-query associative recall, one small layer, windows shorter than the way back",
    )


class _Stacked(Layer):
    """A fading memory and a window behind it, each with a residual: the usual hybrid, in the place of one layer."""

    def __init__(self, d_model: int, first: nn.Module, second: nn.Module) -> None:
        super().__init__(d_model)
        self.first, self.second = first, second
        self.norm = nn.RMSNorm(d_model, eps=1e-6)

    def take(self, x: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        """See ``Layer``."""
        mask = real(lengths, x)
        parts = [None, None] if state is None else [under(name, state) for name in ("first", "second")]
        said, first = self.first(x, parts[0], mask=mask)
        seen, second = self.second(self.norm(x + said), parts[1], mask=mask)
        return said + seen, {**named("first", first), **named("second", second)}


def _layers(size: Size) -> Mapping[str, Factory]:
    def delta(width: int) -> MatrixMemory:
        return MatrixMemory(width, 1, key_dim=size.head, conv=CONV)

    def window(width: int) -> WindowAttention:
        return WindowAttention(width, 1, head_dim=size.head, window=size.window, conv=CONV)

    def stored(count: int, selector: Selector = "innovation") -> Factory:
        return lambda width: BMojo(
            width,
            1,
            head_dim=size.head,
            window=size.window,
            eidetic=count,
            fading=delta(width),
            selector=selector,
            conv=CONV,
        )

    return {
        OURS: stored(size.store),
        SMALL: stored(size.small),
        RANDOM: stored(size.store, "random"),
        NONE: stored(0),
        DELTA: delta,
        HYBRID: lambda width: _Stacked(width, delta(width), window(width)),
        WINDOW: window,
    }


def _trained(make: Factory, size: Size, rate: float, seed: int) -> Probed:
    return train_probe(make, size.task, replace(size.recipe, rate=rate), seed=seed, extra=_foreseeing)


def _foreseeing(model: nn.Module, loss: Callable[[], Tensor]) -> Tensor:
    """With the loss of the filters that foresee, where there are any."""
    with watched(model) as calls:
        found = loss()
    return found + foresight(calls) if calls else found
