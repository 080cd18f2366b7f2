"""How a reader behaves where evidence meets belief (arXiv 2305.13300, §4–5): M_R by mode, order, quantity and popularity.

``M_R = f_m / (f_m + f_c)``: of the answers that are the reader's own belief or the answer against it, the share of its own. 1 is
a sloth, 0 a chameleon. Answers that are neither leave the ratio, so their share stands beside it. Intervals are percentile
intervals at 95 % over items drawn again with replacement, the same draws for whatever is subtracted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.bench.clashes.items import COUNTER_FIRST, MODES, OWN_FIRST, Item, Mode, shown
from holdfast.bench.clashes.readers import Reader
from holdfast.bench.metrics import Interval
from holdfast.errors import InputError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

QUINTILES = 5


@dataclass(frozen=True, slots=True)
class Ratio:
    """M_R with its interval (NaN where no answer was one of the two, or there was no evidence on either), of ``items``.

    ``other``: the share of answers that are neither; ``stray``: of those that an irrelevant passage gave, which are among them.
    """

    ratio: Interval
    other: float
    stray: float
    items: int


@dataclass(frozen=True, slots=True)
class Answers:
    """What a reader answered, by item: how often its own belief, the answer against it, that of an irrelevant passage.

    ``own``, ``counter``, ``stray``: shape (items,); ``asked``: how often each item was asked.
    """

    own: Floats
    counter: Floats
    stray: Floats
    asked: int = 1

    def __add__(self, other: Answers) -> Answers:
        return Answers(
            self.own + other.own, self.counter + other.counter, self.stray + other.stray, self.asked + other.asked
        )


@dataclass(frozen=True, slots=True)
class ClashReport:
    """A reader's behaviour in conflict, one entry of an evaluation card.

    Fields
        modes: M_R by mode.
        mixed: M_R where one passage stands against one, both orders together.
        order: M_R with the own passage first minus M_R with it second; 0 where order moves nothing on balance.
        moved: the share of items whose answer changes with the order.
        popularity: ``mixed`` by quintile of popularity, rarest first; empty for fewer than five popularities.
        slope: the most popular quintile's M_R minus the rarest's; NaN without quintiles.
        right, wrong: ``mixed`` where the belief is the truth, and where the counter-evidence is.
    """

    modes: Mapping[str, Ratio]
    mixed: Ratio
    order: Interval
    moved: Interval
    popularity: tuple[Ratio, ...]
    slope: Interval
    right: Ratio
    wrong: Ratio
    answers: Mapping[str, Answers]

    def metrics(self) -> dict[str, float]:
        """The report as one flat table of numbers, for a claim's arm or an evaluation card."""
        return {
            **{f"M_R, {name}": one.ratio.mean for name, one in self.modes.items() if np.isfinite(one.ratio.mean)},
            **{f"other answers, {name}": one.other for name, one in self.modes.items()},
            **{f"irrelevant answers, {name}": one.stray for name, one in self.modes.items() if "irrelevant" in name},
            **{f"irrelevant answers, {name}": one.stray for name, one in self.modes.items() if "irrelevant" in name},
            "M_R, 1:1": self.mixed.ratio.mean,
            "M_R, 1:1, belief right": self.right.ratio.mean,
            "M_R, 1:1, belief wrong": self.wrong.ratio.mean,
            "order effect": self.order.mean,
            "answers moved by order": self.moved.mean,
            **{f"M_R, 1:1, popularity {n}": one.ratio.mean for n, one in enumerate(self.popularity, 1)},
            "popularity slope": self.slope.mean,
        }


def clash_report(
    reader: Reader, items: Sequence[Item], *, modes: Sequence[Mode] = MODES, seed: int = 0, draws: int = 1000
) -> ClashReport:
    """Put every item to the reader in every mode. ``seed`` draws orders and intervals.

    ``modes`` must hold the two 1:1 modes. Raises InputError without them, without items, with two items of one id, and where an
    item lacks a passage. Cost: one answer an item and mode; (draws, items) numbers in memory.
    """
    lacking = {OWN_FIRST, COUNTER_FIRST} - {mode.name for mode in modes}
    if lacking or not items:
        raise InputError(
            "a clash report needs items" if not items else f"a clash report needs the modes {sorted(lacking)}"
        )
    if len({item.id for item in items}) < len(items):
        raise InputError("two items have one id: what is drawn for an item is drawn from its id")
    answers = {mode.name: _answers(reader, items, mode, seed) for mode in modes}
    weights = _weights(len(items), draws, seed)
    everywhere = np.ones(len(items), dtype=bool)
    first, second = answers[OWN_FIRST], answers[COUNTER_FIRST]
    mixed = first + second
    right = np.asarray([item.right for item in items])
    groups = _quintiles(np.asarray([item.popularity for item in items], dtype=np.float64))
    moved = (first.own != second.own) | (first.counter != second.counter)
    slope = _ratios(weights, mixed, groups[-1]) - _ratios(weights, mixed, groups[0]) if groups else np.full(2, np.nan)
    on_evidence = {mode.name for mode in modes if mode.roles}
    return ClashReport(
        modes={name: _ratio(weights, one, everywhere, defined=name in on_evidence) for name, one in answers.items()},
        mixed=_ratio(weights, mixed, everywhere),
        order=_interval(_ratios(weights, first, everywhere) - _ratios(weights, second, everywhere)),
        moved=_interval(weights @ moved.astype(float) / len(items)),
        popularity=tuple(_ratio(weights, mixed, group) for group in groups),
        slope=_interval(slope),
        right=_ratio(weights, mixed, right),
        wrong=_ratio(weights, mixed, ~right),
        answers=answers,
    )


def difference(one: Answers, other: Answers, *, seed: int = 0, draws: int = 1000) -> Interval:
    """M_R of one mode minus that of another, paired by item. Raises InputError where they are not of the same items."""
    if len(one.own) != len(other.own):
        raise InputError(f"{len(one.own)} answers cannot be paired with {len(other.own)}")
    weights, everywhere = _weights(len(one.own), draws, seed), np.ones(len(one.own), dtype=bool)
    return _interval(_ratios(weights, one, everywhere) - _ratios(weights, other, everywhere))


def _answers(reader: Reader, items: Sequence[Item], mode: Mode, seed: int) -> Answers:
    told = reader.read([shown(item, mode, seed) for item in items])
    if len(told) != len(items):
        raise InputError(f"the reader gave {len(told)} answers to {len(items)} prompts")
    pairs = [(one.answer, item) for one, item in zip(told, items, strict=True)]
    strays = [{one.claim for one in item.irrelevant[: mode.irrelevant]} for item in items]
    return Answers(
        np.asarray([answer == item.own for answer, item in pairs], dtype=np.float64),
        np.asarray([answer == item.counter for answer, item in pairs], dtype=np.float64),
        np.asarray([answer in stray for (answer, _), stray in zip(pairs, strays, strict=True)], dtype=np.float64),
    )


def _weights(items: int, draws: int, seed: int) -> Floats:
    """How often each item counts: in the first row once, which gives the point; in the others as drawn. (1 + draws, items)."""
    drawn = np.random.default_rng([seed, items]).multinomial(items, np.full(items, 1 / items), size=draws)
    return np.vstack([np.ones((1, items)), drawn.astype(np.float64)])


def _ratios(weights: Floats, answers: Answers, group: Bools) -> Floats:
    """M_R of a group of items, by row of the weights."""
    mine, both = weights @ (answers.own * group), weights @ ((answers.own + answers.counter) * group)
    found: Floats = np.divide(mine, both, out=np.full_like(both, np.nan), where=both > 0)
    return found


def _interval(values: Floats) -> Interval:
    drawn = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
    return Interval(float(values[0]), float(low), float(high))


def _ratio(weights: Floats, answers: Answers, group: Bools, *, defined: bool = True) -> Ratio:
    asked = int(group.sum()) * answers.asked
    values = _ratios(weights, answers, group) if defined else np.full(2, np.nan)
    if not asked:
        return Ratio(_interval(values), float("nan"), float("nan"), 0)
    said = float(((answers.own + answers.counter) * group).sum())
    return Ratio(_interval(values), 1 - said / asked, float((answers.stray * group).sum()) / asked, int(group.sum()))


def _quintiles(popular: Floats) -> tuple[Bools, ...]:
    """Items by popularity in five groups, rarest first: by quantiles, since popularity is heavy-tailed."""
    if len(np.unique(popular)) < QUINTILES:
        return ()
    edges = np.quantile(popular, np.arange(1, QUINTILES) / QUINTILES)
    at = np.searchsorted(edges, popular, side="right")
    return tuple(at == n for n in range(QUINTILES))
