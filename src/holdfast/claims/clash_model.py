"""The half of claim 24 about a model's own weights: a decoder learns a world, is asked what it believes, and is contradicted.

Trained anew for every seed, so world, model and items are all fresh. What the model does not read are words: it was shown no
instruction, no options and no names of sources, so its prompts differ in the evidence and its order alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version

import numpy as np

from holdfast.bench.clashes.contradict import Contradicted, contradict
from holdfast.bench.clashes.corpus import MOST
from holdfast.bench.clashes.items import MODES, SINGLE, SUBSTITUTED, Item, Passage, Prompt, Role
from holdfast.bench.clashes.prompts import by_side
from holdfast.bench.clashes.readers import FirstPassage, Reader, ResolverReader, Sloth
from holdfast.bench.clashes.report import ClashReport, clash_report, difference
from holdfast.bench.clashes.world import make_world
from holdfast.bench.metrics import Interval
from holdfast.bench.plots import Bars, Lines, Panel
from holdfast.claims.base import Check, Result
from holdfast.errors import ClaimError, MissingExtraError
from holdfast.guard.conflicts import Belief

MODEL, RESOLVER, FIRST, SLOTH = "trained model", "resolver", "believes the first (control)", "believes itself (control)"
RAW, SIDES, RESOLVED = "model, raw prompt", "model, one passage a source", "model, the resolved side alone"
ASKED = 800
TRUSTED, DOUBTED = 0.9, 0.5

NOTES = (
    "the decoder is smaller than the sheet's (2 layers of 64 against 4 of 256), for the time of one core",
    "it reads neither instructions nor options nor names of sources, so of our annotated prompt only the order and the choice of "
    "passages is measured, not its words; reported, not judged",
    "intervals drawn are those of the first seed",
)

Arrange = Callable[[Prompt], Prompt]


@dataclass(frozen=True, slots=True)
class Weights:
    """What was measured: arms, checks on them, settings, curves and notes, to be joined with the claim's other half."""

    arms: dict[str, dict[str, float]]
    checks: tuple[Check, ...]
    settings: dict[str, object]
    series: dict[str, object]
    notes: tuple[str, ...]


def measure(seed: int, right_trust: float) -> Weights:
    """Train, probe, contradict. ``right_trust``: the share of items whose true side is the trusted one.

    Raises ClaimError where the extra torch is not installed.
    """
    try:
        from holdfast.bench.clashes.decoder import Training, train
    except MissingExtraError as error:
        raise ClaimError(f"claim 24 trains a model at this scale: {error}") from error
    world, training = make_world(seed), Training()
    reader = train(world, seed, training)
    found = contradict(world, reader, ASKED, seed)
    settings: dict[str, object] = {
        "people": len(world.names),
        "relations": len(world.values),
        "values": len(world.values[0]),
        "training": asdict(training),
        "transformers": version("transformers"),
        "parameters": reader.parameters,
        "asked": found.asked,
    }
    return judged(reader, found, seed, right_trust, settings)


def judged(reader: Reader, found: Contradicted, seed: int, right_trust: float, settings: dict[str, object]) -> Weights:
    """The sheet's margins on a reader and its items, with the resolver and two controls on the same items."""
    items = found.items
    modes = [mode for mode in MODES if len(mode.roles) + mode.irrelevant <= MOST]
    beliefs = {item.question: item.own for item in items}
    readers: dict[str, Reader] = {
        MODEL: reader,
        RESOLVER: ResolverReader({question: Belief(own, DOUBTED) for question, own in beliefs.items()}),
        FIRST: FirstPassage(beliefs),
        SLOTH: Sloth(beliefs),
    }
    reports = {arm: clash_report(one, items, modes=modes, seed=seed) for arm, one in readers.items()}
    arms = {arm: report.metrics() for arm, report in reports.items()}
    report = reports[MODEL]
    single, changed = (
        report.modes[SINGLE].ratio,
        difference(report.answers[SUBSTITUTED], report.answers[SINGLE], seed=seed),
    )
    arms[MODEL] |= {
        "beliefs right": found.right / found.asked,
        "beliefs firm": found.firm / found.asked,
        "beliefs supported": found.supported / found.asked,
        "items": float(len(items)),
        **_ends("order effect", report.order),
        **_ends("popularity slope", report.slope),
        **_ends("substituted minus coherent", changed),
    }
    arms |= _product(reader, items, seed, right_trust)
    checks = (
        Check("M_R, counter passage with only the answer changed, minus coherent one", changed.mean, 0.20),
        Check("M_R, 1:1 mixed, minus counter passage alone", report.mixed.ratio.mean - single.mean, 0.20),
        Check("M_R, 1:1 mixed, most popular fifth minus rarest", report.slope.mean, 0.10),
    )
    notes = (
        f"seed {seed}: {len(items)} of {found.asked} beliefs are firm and supported; order effect {report.order}, "
        f"{report.moved.mean:.1%} of the answers move with the order",
    )
    return Weights(arms, checks, settings, _series(report), notes)


def _ends(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}, low": interval.low, f"{name}, high": interval.high}


def _series(report: ClashReport) -> dict[str, object]:
    return {
        "modes": {
            name: [one.ratio.mean, one.ratio.low, one.ratio.high]
            for name, one in report.modes.items()
            if np.isfinite(one.ratio.mean)
        },
        "popularity": [[one.ratio.mean, one.ratio.low, one.ratio.high] for one in report.popularity],
    }


def panels(result: Result) -> list[Panel]:
    """M_R by mode (intervals of the first seed), by popularity, and what our arrangements of a prompt change."""
    modes = {name: result.arms[MODEL][f"M_R, {name}"] for name in result.series["modes"]}
    fifths = list(range(1, 1 + len(result.series["popularity"])))
    return [
        Bars(
            modes,
            title="M_R: the model's own belief kept",
            errors={name: (low, high) for name, (_, low, high) in result.series["modes"].items()},
            percent=True,
        ),
        Lines(
            {MODEL: (fifths, [result.arms[MODEL][f"M_R, 1:1, popularity {n}"] for n in fifths])},
            title="... one passage against one",
            x_label="fifth of popularity, rarest first",
            ours=(MODEL,),
            percent=True,
        ),
        Bars(
            {arm: result.arms[arm]["answers moved by order"] for arm in (RAW, SIDES, RESOLVED)},
            title="the model's answers that change with the order",
            ours=(SIDES, RESOLVED),
            percent=True,
        ),
    ]


# --- what the product changes for such a model ---


def _product(reader: Reader, items: Sequence[Item], seed: int, right_trust: float) -> dict[str, dict[str, float]]:
    """Own and counter passage, each with a trust of its own, to the model as they come, and arranged by us."""
    random = np.random.default_rng([seed, 3])
    informed = (random.permutation(len(items)) < round(right_trust * len(items))).tolist()
    pairs = [_trusted(item, bool(one)) for item, one in zip(items, informed, strict=True)]
    resolver = ResolverReader({})

    def resolved(prompt: Prompt) -> Prompt:
        (told,) = resolver.read([prompt])
        return _with(prompt, [one for one in prompt.passages if one.claim == told.answer])

    arrangements: dict[str, Arrange] = {
        RAW: lambda prompt: prompt,
        SIDES: lambda prompt: _with(prompt, prompt.passages, seed),
        RESOLVED: resolved,
    }
    return {arm: _arranged(reader, items, pairs, arrange) for arm, arrange in arrangements.items()}


def _with(prompt: Prompt, passages: Sequence[Passage], seed: int = 0) -> Prompt:
    return Prompt(
        prompt.question, tuple(one for side in by_side(passages, seed) for one in side), prompt.options, False
    )


def _trusted(item: Item, informed: bool) -> tuple[Passage, Passage]:
    """Own and counter passage with their trust: higher on the true side where trust is informed."""
    own_trusted = item.right if informed else not item.right
    own, counter = item.passages[Role.OWN], item.passages[Role.COUNTER]
    return (
        Passage(own.text, own.claim, own.origin, TRUSTED if own_trusted else DOUBTED),
        Passage(counter.text, counter.claim, counter.origin, DOUBTED if own_trusted else TRUSTED),
    )


def _arranged(
    reader: Reader, items: Sequence[Item], pairs: Sequence[tuple[Passage, Passage]], arrange: Arrange
) -> dict[str, float]:
    def answers(pick: Sequence[int]) -> list[str | None]:
        prompts = [
            arrange(Prompt(item.question, tuple(pair[n] for n in pick), (item.own, item.counter), False))
            for item, pair in zip(items, pairs, strict=True)
        ]
        return [one.answer for one in reader.read(prompts)]

    first, second, copied = answers((0, 1)), answers((1, 0)), answers((0, 1, 1))
    truth = [item.own if item.right else item.counter for item in items]
    wrong = np.asarray([not item.right for item in items])
    right = np.mean([[one == true for one, true in zip(some, truth, strict=True)] for some in (first, second)], axis=0)
    return {
        "answers moved by order": float(np.mean([a != b for a, b in zip(first, second, strict=True)])),
        "answers moved by copies": float(np.mean([a != b for a, b in zip(first, copied, strict=True)])),
        "answers right": float(right.mean()),
        "answers right, belief wrong": float(right[wrong].mean()) if wrong.any() else float("nan"),
    }
