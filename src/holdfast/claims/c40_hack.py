"""HACK (arXiv 2504.09261): heads have different jobs, and a cache that goes by them loses less than one rule for all.

A small next-scale model (``hack_model``) draws four digits of a class. Its heads are typed by what they look at on a few pictures;
then the same pictures are told with caches of equal budgets, and others are drawn (``hack_arms``).

In the quick form it does not hold: no head of so small a model looks along diagonals, one rule for all heads loses less, and types
dealt by lot do as well as those measured.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from holdfast.bench.plots import Bars, Lines, draw
from holdfast.claims.base import Check, Result, Scale
from holdfast.claims.hack_arms import (
    BEFORE_LAST,
    DEALT,
    FULL,
    GUIDANCE,
    LATE,
    OURS,
    RANDOM,
    SETTINGS,
    SWAPPED,
    TYPED,
    UNIFORM,
    Setting,
    Told,
    best,
    cache_of,
    divergence,
    drawn,
    judged,
    maps,
    told,
    variances,
)
from holdfast.claims.hack_digits import CLASSES, pictures
from holdfast.claims.hack_model import SIDES, SIZES, Appended, coder, drawer, namer
from holdfast.errors import ClaimError
from holdfast.latent.head_types import CONTEXTUAL, STRUCTURAL, HeadTypes, column_variance
from holdfast.latent.scales import OBSERVED
from holdfast.torched import torch

number = 40
name = "hack"
statement = (
    "With a cache compressed by 70 %, budgets and rules by the type of each head move what a next-scale model tells at most 0.7 "
    "times as far as the best single rule for all heads; with types swapped, 1.5 times as far as with the right ones; and one "
    "picture tells nine heads in ten the type that fifty do."
)
arms = (FULL, *UNIFORM, *TYPED)

RATIOS = (0.5, 0.7, 0.9)
MIDDLE = 0.7
"""The ratio of the margins, and the one that settings are chosen at."""
AT_MOST, AT_LEAST, STABLE = 0.7, 1.5, 0.9


def run(scale: Scale, seed: int, data: Path | None) -> Result:
    """All arms on the same pictures; they, the models and all lots are drawn by ``seed``. Raises ClaimError at ``gpu``."""
    if scale not in SIZES:
        raise ClaimError("claim 40 runs on the processor alone: use --scale quick or full")
    torch.set_num_threads(1)
    sizes = SIZES[scale]
    train, rest, source = pictures(data, seed, sizes.pictures, sizes.tuned + sizes.held)
    code = coder(train, sizes, seed)
    with torch.no_grad():
        known, asked = (code.tokens(code.latents(one.images)) for one in (train, rest))
        shown = code.pictures(sum(code.added(at, one) for at, one in enumerate(asked)))
    model = drawer(known, train.labels, code, sizes, seed)
    judge = namer(train, sizes, seed)
    # --- the types ---
    calibration = Told(code.inputs([one[: sizes.calibration] for one in known]), train.labels[: sizes.calibration])
    found = variances(model, calibration)
    values = found.mean(dim=0)
    # --- settings, by pictures of their own ---
    every = Told(code.inputs(asked), rest.labels)
    tuned, held = every.some(slice(sizes.tuned)), every.some(slice(sizes.tuned, None))
    budgets = {ratio: max(2, round((1 - ratio) * BEFORE_LAST)) for ratio in RATIOS}
    whole = told(model, tuned, Appended())
    settings = {arm: best(arm, model, tuned, whole, values, budgets[MIDDLE], seed) for arm in SETTINGS}
    settings |= dict.fromkeys(TYPED, settings[OURS])
    # --- what each changes ---
    whole = told(model, held, Appended())
    same = float((whole - told(model, held, cache_of(FULL, settings[OURS], values, seed)(0))).abs().max())
    labels = torch.arange(sizes.generated) % CLASSES
    real = rest.images[sizes.tuned :]
    measured: dict[str, dict[str, float]] = {
        FULL: judged(drawn(model, code, labels, Appended(), seed), labels, judge, real)
    }
    ratios = RATIOS if scale == "full" else (MIDDLE,)
    for arm in (*UNIFORM, *TYPED):
        measured[arm] = {}
        make = cache_of(arm, settings[arm], values, seed)
        for ratio, budget in budgets.items():
            cache = make(budget)
            measured[arm][f"KL, {ratio:.0%}"] = divergence(whole, told(model, held, cache))
            if ratio in ratios:
                paired = cache_of(arm, settings[arm], values, seed, pairs=True)(budget)
                for how, one in (("", make(budget)), (", rows in pairs", paired)):
                    images = drawn(model, code, labels, one, seed)
                    its = judged(images, labels, judge, real)
                    measured[arm] |= {f"{what}, {ratio:.0%}{how}": value for what, value in its.items()}
    with torch.no_grad():
        for key, images in (("real pictures", real), ("real pictures through the codes", shown[sizes.tuned :])):
            measured[key] = judged(images, rest.labels[sizes.tuned :], judge, real)
    # One entry a head: how much all that is kept is worth at all.
    least = told(model, held, cache_of(RANDOM, Setting(first=1), values, seed)(1))
    measured["one entry a head"] = {"KL": divergence(whole, least)}
    types = HeadTypes.of("", values, settings[OURS].share)
    alone = [types.agreement(HeadTypes.of("", one, settings[OURS].share)) for one in found]
    measured["types"] = {
        "one picture and all agree, mean": float(np.mean(alone)),
        "one picture and all agree, least": min(alone),
        "contextual heads": types.share,
        **_spread(values.flatten().tolist()),
    }
    upright, along = (column_variance(one).view(1, -1) for one in maps(seed))
    synthetic = HeadTypes.of("", torch.cat([upright, along]))
    told_apart = (synthetic.types[0].count(CONTEXTUAL) + synthetic.types[1].count(STRUCTURAL)) / (2 * upright.numel())
    # Of our code and not of the paper, so that no verdict is made of them; the tests demand both.
    measured["exact"] = {"synthetic maps told apart": told_apart, "where nothing leaves, off the plain cache by": same}
    key = f"KL, {MIDDLE:.0%}"
    nearest = min(UNIFORM, key=lambda arm: measured[arm][key])
    ours = measured[OURS][key]
    checks = (
        Check(
            "KL of HACK, by that of the best rule for all heads", ours / measured[nearest][key], AT_MOST, at_least=False
        ),
        Check("KL with types swapped, by that of HACK", measured[SWAPPED][key] / ours, AT_LEAST),
        Check("heads of which one picture and all say the same", float(np.mean(alone)), STABLE),
    )
    spread = measured["types"]
    notes = (
        f"seed {seed}: column variances are from {spread['variance, least']:.3f} to {spread['variance, most']:.3f}; pure "
        "diagonals have about 1, a map that is the same for every query 0",
        f"seed {seed}: the best rule for all heads at {MIDDLE:.0%} is {nearest}; types by lot: "
        f"{measured[DEALT][key] / ours:.2f} times HACK; settings {settings[OURS]}",
        *_NOTES,
    )
    record = {
        "scale": scale,
        "pictures of": source,
        "sides": SIDES,
        "late scales": [SIDES[at] for at in LATE],
        "budgets": {f"{ratio:.0%}": budget for ratio, budget in budgets.items()},
        "observed queries": OBSERVED,
        "guidance": GUIDANCE,
        "chosen": {arm: asdict(setting) for arm, setting in settings.items()},
        **asdict(sizes),
    }
    series = {"values": [sorted(of) for of in values.tolist()], "ratios": list(RATIOS)}
    return Result(measured, checks, record, series, notes)


_NOTES = (
    "a ratio is of the entries that are there before the last scale, for nothing follows that one; a budget is the mean of a head",
    "the settings of every arm were chosen on other pictures at 70 %; swapped, by lot and without merging take those of HACK",
    "scale-aware, all heads: HACK's rule for structural heads at the budget of all; it counts among the rules to be beaten, though "
    "the paper has no such arm",
    "drawn pictures are judged by a classifier trained here; a class is easily seen in them, and of few pictures Fréchet distances "
    "are rough: KL decides",
    "rows in pairs: the rows with and without a class keep the same entries; else each keeps its own",
)


def plot(result: Result, path: Path) -> None:
    """How far each arm moves what is told, by ratio; at the ratio of the margins; what is drawn; and how heads differ."""
    measured, ratios = result.arms, list(result.series["ratios"])
    key = f"KL, {MIDDLE:.0%}"
    compared = (*UNIFORM, *TYPED)
    draw(
        path,
        [
            Lines(
                {arm: (ratios, [measured[arm][f"KL, {ratio:.0%}"] for ratio in ratios]) for arm in compared},
                title="KL(full ‖ compressed), nats a token",
                x_label="share of the cache let go of",
                ours=(OURS,),
            ),
            Bars(
                {arm: measured[arm][key] for arm in compared},
                title=f"... at {MIDDLE:.0%}",
                ours=(OURS,),
                controls=(SWAPPED, DEALT),
                required=AT_MOST * min(measured[arm][key] for arm in UNIFORM),
                at_least=False,
            ),
            Bars(
                {FULL: measured[FULL]["Fréchet distance"]}
                | {arm: measured[arm][f"Fréchet distance, {MIDDLE:.0%}"] for arm in compared},
                title=f"drawn pictures, Fréchet distance, {MIDDLE:.0%}",
                ours=(OURS,),
                bounds=(FULL,),
                controls=(SWAPPED, DEALT),
            ),
            Lines(
                {f"layer {at + 1}": (list(range(1, 1 + len(of))), of) for at, of in enumerate(result.series["values"])},
                title="column variance of the heads",
                x_label="head",
            ),
        ],
        title="Budgets and rules by the type of each head",
        subtitle="A next-scale model of four digits of a class, trained anew; teacher forcing and guided drawing",
        columns=2,
    )


def _spread(values: list[float]) -> dict[str, float]:
    """How the variances of all heads lie: a long tail is one whose highest is far above the middle."""
    return {
        "variance, least": min(values),
        "variance, middle": float(np.median(values)),
        "variance, most": max(values),
    }
