"""Dynamic Cheatsheet (arXiv 2504.07952): a self-curated sheet lets a weak solver reuse code that it found, without labels.

The questions are real (MathEquationBalancer of the paper, 250; Game of 24, ranks 901 to 1000; and, where they are mixed, MMLU-Pro
physics as a third task), and so are prompts, parsers, the sandbox and the store. Generator and curator are scripted
(``sheet_players``), for what is claimed is about the memory and not about a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.bench.plots import Bars, Lines, draw
from holdfast.claims.base import Check, Result, Scale
from holdfast.claims.embedded import EMBEDDER, embedder
from holdfast.claims.sheet_arms import (
    BASELINE,
    CUMULATIVE,
    EMPTY_SHEET,
    HISTORY,
    ITEMS,
    RETRIEVED,
    SYNTHESIS,
    WORDS,
    Stream,
    Vectors,
    answered,
    by_items,
    forgotten,
    stream,
)
from holdfast.claims.sheet_box import Box
from holdfast.claims.sheet_players import DISCOVER, FAULT, TRIALS, WINDOW
from holdfast.claims.sheet_tasks import FAULTY, Family, Question, load
from holdfast.errors import ClaimError

number = 48
name = "dynamic-cheatsheet"
statement = (
    "A sheet that the model curates itself, without labels, lets a weak solver reuse the code that it came to write: 90 % and more "
    "in the second half of a stream, where history in the window stays 15 points below; a faulty snippet in it is overcome within "
    "20 questions where code is tried on past questions, and lasts where it is not."
)
arms = (ITEMS, CUMULATIVE, SYNTHESIS, RETRIEVED, HISTORY, EMPTY_SHEET, BASELINE)

ORDERS: Mapping[Scale, int] = {"quick": 1, "full": 4}
SINGLE = {"equations": Family.EQUATION, "games": Family.GAME}
MIXED = "mixed"
PHYSICS = 100
"""Questions of the third task, drawn by the order."""
CURVE = 20
"""Questions that a share is taken over: for curves, and to say that a stream has recovered."""
RECOVERED = 0.9
FORGETS = 0.05
"""The chance that the forgetful curator leaves an item out of a rewrite."""

Marks = npt.NDArray[np.float64]


def run(scale: Scale, seed: int, data: Path | None) -> Result:
    """All arms on the same questions, orders and luck. Raises ClaimError where the data is not there, or at ``gpu``."""
    if scale not in ORDERS:
        raise ClaimError("claim 48 runs on the processor alone: use --scale quick or full")
    questions, box, orders = load(data), Box(), ORDERS[scale]
    streams = {
        **{
            title: [stream(title, [questions[family]], order, seed) for order in range(orders)]
            for title, family in SINGLE.items()
        },
        MIXED: [stream(MIXED, _mixed(questions, order, seed), order, seed) for order in range(orders)],
    }
    vectors = _vectors([question for some in streams.values() for one in some for question in one.questions])
    marks = {
        arm: {
            title: [np.asarray(answered(arm, one, box, vectors), np.float64) for one in some]
            for title, some in streams.items()
        }
        for arm in arms
    }
    measured = {arm: _measured(marks[arm], streams) for arm in arms}
    poison = _poisoned(streams, box)
    loss = _forgetful(streams["equations"], box)
    checks = [
        Check(f"{arm}, second half, {title}", measured[arm][f"{title}, second half"], 0.90)
        for arm in (ITEMS, CUMULATIVE, SYNTHESIS)
        for title in (*SINGLE, MIXED)
    ]
    for arm in (BASELINE, EMPTY_SHEET):
        for title, most in (("equations", 0.50), ("games", 0.20)):
            checks.append(Check(f"{arm}, {title}", measured[arm][title], most, at_least=False))
    for title in (*SINGLE, MIXED):
        ours, history = measured[CUMULATIVE], measured[HISTORY]
        key = f"{title}, second half"
        checks.append(Check(f"DC-Cu above FH, second half, {title}", ours[key] - history[key], 0.15))
    for title in SINGLE:
        on, off = poison[f"poisoned, tried, {title}"], poison[f"poisoned, untried, {title}"]
        checks += [
            Check(
                f"poisoned, tried: questions until it has recovered, at most, {title}",
                on["questions to recover, at most"],
                20,
                False,
            ),
            Check(f"poisoned, untried: share of streams that never recover, {title}", off["never recovered"], 1.0),
        ]
    return Result(
        {**measured, **poison, **loss},
        tuple(checks),
        _settings(scale, orders, box),
        {
            "curves": {title: {arm: _curve(marks[arm][title]) for arm in arms} for title in streams},
            "by family, mixed": {
                arm: {str(family): _share(marks[arm][MIXED], streams[MIXED], [family]) for family in Family}
                for arm in arms
            },
        },
        _NOTES,
    )


_NOTES = (
    "generator and curator are scripts that read the prompts a model would; absolute shares are theirs, not a model's",
    "the generator takes over what code gives if it has the form of an answer, and does not work it out again; where code gives "
    "nothing it guesses, or writes code itself",
    "faults as in the sheet: wrong precedence, and a quotient taken for whole; of the questions they answer "
    "62 % and 96 % (equations) and 29 % and 83 % (games) rightly; for 37 % and 2 % of the equations they give nothing",
    "mixed shares are over equations and games; physics is there to fill history and sheet, and is guessed",
    "poisoned: in the middle of the stream the curator puts code with the wrong precedence in the place of the most used; what the "
    "generator writes itself is sound there, so that the poison is the one fault",
    "what history in the window loses: on one task alone code that is used stands in each new answer, so that the window always "
    "holds it, be it sound or faulty, and FH falls behind DC only where a faulty snippet came first or tasks are mixed",
    "on equations neither fault lasts: wrong precedence finds nothing where it is wrong, and the solver goes on to write sound "
    "code",
    f"a forgetful curator leaves each item out of a rewrite with a chance of {FORGETS}: it decides no check",
)


def _settings(scale: Scale, orders: int, box: Box) -> dict[str, Any]:
    return {
        "scale": scale,
        "orders": orders,
        "words of the sheet": WORDS,
        "window, tokens": WINDOW,
        "chance to write code": DISCOVER,
        "chance that it is faulty": FAULT,
        "trials of a guess": {str(family): trials for family, trials in TRIALS.items()},
        "third task, questions": PHYSICS,
        "embedder": EMBEDDER,
        "scripts run in the sandbox": box.scripts,
        "its processes": box.children,
    }


def plot(result: Result, path: Path) -> None:
    """Second halves by task, a curve, what a faulty snippet does, and what a curator that forgets does."""
    measured = result.arms
    curves = result.series["curves"]["games"]
    draw(
        path,
        [
            *(
                Bars(
                    {arm: measured[arm][f"{title}, second half"] for arm in arms},
                    title=f"{title}, second half",
                    ours=(ITEMS,),
                    controls=(BASELINE, EMPTY_SHEET),
                    required=0.9,
                    percent=True,
                )
                for title in (*SINGLE, MIXED)
            ),
            Lines(
                {
                    arm: (list(range(CURVE, CURVE + len(curves[arm]))), curves[arm])
                    for arm in (ITEMS, HISTORY, EMPTY_SHEET)
                },
                title=f"games: share of the last {CURVE}",
                ours=(ITEMS,),
                percent=True,
            ),
            Bars(
                {arm: measured[arm]["right afterwards"] for arm in measured if arm.startswith("poisoned")},
                title="after a faulty snippet",
                ours=[arm for arm in measured if arm.startswith("poisoned, tried")],
                percent=True,
            ),
            Bars(
                {arm: measured[arm]["second half"] for arm in measured if arm.startswith("forgetful")},
                title="a curator that forgets, equations",
                ours=("forgetful, items",),
                percent=True,
            ),
        ],
        title="A sheet that curates itself keeps the code that works",
        subtitle="Equation balancing and Game of 24, a scripted solver and curator",
    )


def _mixed(questions: Mapping[Family, Sequence[Question]], order: int, seed: int) -> list[Sequence[Question]]:
    drawn = np.random.default_rng([seed, order]).permutation(len(questions[Family.PHYSICS]))[:PHYSICS].tolist()
    physics = [questions[Family.PHYSICS][at] for at in drawn]
    return [questions[Family.EQUATION], questions[Family.GAME], physics]


def _measured(marks: Mapping[str, Sequence[Marks]], streams: Mapping[str, Sequence[Stream]]) -> dict[str, float]:
    """By stream: the share answered rightly, in all and in the second half; of the mixed one, of what has code at all."""
    found = {}
    for title, some in marks.items():
        families = [SINGLE[title]] if title in SINGLE else list(SINGLE.values())
        found[title] = _share(some, streams[title], families)
        found[f"{title}, second half"] = _share(some, streams[title], families, 0.5)
    return found


def _share(marks: Sequence[Marks], streams: Sequence[Stream], families: Sequence[Family], since: float = 0.0) -> float:
    right = [
        mark
        for some, given in zip(marks, streams, strict=True)
        for at, (mark, question) in enumerate(zip(some, given.questions, strict=True))
        if question.family in families and at >= since * len(some)
    ]
    return float(np.mean(right))


def _curve(marks: Sequence[Marks]) -> list[float]:
    """The share of the last so many questions, over the orders."""
    mean = np.mean(np.stack(marks), axis=0)
    return [float(one) for one in np.convolve(mean, np.ones(CURVE) / CURVE, "valid")]


def _poisoned(streams: Mapping[str, Sequence[Stream]], box: Box) -> dict[str, dict[str, float]]:
    """What one faulty snippet does in the middle of a stream, with code that is tried and without."""
    found = {}
    for title, family in SINGLE.items():
        for word, checked in (("tried", True), ("untried", False)):
            after = []
            for given in streams[title]:
                middle = len(given.questions) // 2
                marks = by_items(given, box, checked=checked, poisoned=(middle, FAULTY[family][0]), fault=0.0)
                after.append(np.asarray(marks, np.float64))
            waits = [_recovers(marks) for marks in after]
            found[f"poisoned, {word}, {title}"] = {
                "right afterwards": float(np.mean(np.concatenate(after))),
                "right from the 21st on": float(np.mean(np.concatenate([marks[CURVE:] for marks in after]))),
                "questions to recover, at most": max(waits),
                "never recovered": float(
                    np.mean([wait >= len(marks) for wait, marks in zip(waits, after, strict=True)])
                ),
            }
    return found


def _recovers(marks: Marks) -> float:
    """After how many questions so many of the next ones are right as ever; all of them where that never comes."""
    for start in range(len(marks) - CURVE + 1):
        if marks[start : start + CURVE].mean() >= RECOVERED:
            return float(start)
    return float(len(marks))


def _forgetful(streams: Sequence[Stream], box: Box) -> dict[str, dict[str, float]]:
    """Second halves with a curator that forgets: a document loses what it leaves out, items stay for some rounds."""
    document, items = zip(*(forgotten(given, box, FORGETS) for given in streams), strict=True)
    halves = {"document": document, "items": items}
    return {
        f"forgetful, {kind}": {"second half": float(np.mean([np.mean(marks[len(marks) // 2 :]) for marks in some]))}
        for kind, some in halves.items()
    }


def _vectors(questions: Sequence[Question]) -> Vectors:
    texts = list(dict.fromkeys(question.text for question in questions))
    return dict(zip(texts, embedder("this claim compares questions by meaning").embed(texts), strict=True))
