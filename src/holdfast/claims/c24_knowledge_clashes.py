"""Adaptive Chameleon or Stubborn Sloth (arXiv 2305.13300): what is served where passages disagree, by policy and not by order.

ConflictQA gives two fluent passages for an answer and two against it. They come from four sources with trust of their own. A
reader that believes the first, the most or the newest passage is moved by order and copies; the resolver must not be, and must be
as right as the trust is. Which side a passage is on is told by typed slots (the labels: an upper bound) or by its words.

The paper measures models: at ``full`` a decoder learns a world by heart (``clash_model``), is asked what it believes, and is shown
evidence against it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from holdfast.bench.plots import Bars, Lines, Panel, draw
from holdfast.claims import clash_model
from holdfast.claims.base import Check, Result, Scale
from holdfast.claims.embedded import embedder
from holdfast.cube import Channel, Cube, Origin, Scope
from holdfast.errors import ClaimError
from holdfast.guard.conflicts import resolve
from holdfast.guard.stance import CERTAIN, Stance
from holdfast.retrieve.hits import Hit

number = 24
name = "knowledge-clashes"
statement = (
    "A language model gives its belief up to one coherent passage, less so to one with only the answer changed, and keeps it where "
    "both sides are shown, the more so the more popular the subject; an explicit policy over sources is moved by neither order nor "
    "copies, is as often right as the trust it is given, and abstains where a passage's side cannot be told."
)
arms = (
    *("ours, typed slots", "ours, by the words", "first passage", "most passages", "newest passage"),
    *(clash_model.MODEL, clash_model.RESOLVER, clash_model.FIRST, clash_model.SLOTH),
    *(clash_model.RAW, clash_model.SIDES, clash_model.RESOLVED),
)

FILE = "conflictQA-strategyQA-llama2-7b.json"
FITTED_ON = "conflictQA-strategyQA-gpt4.json"
FITTED = 450
RIGHT_TRUST = 0.8
_QUESTIONS = {"quick": 60, "full": 240, "gpu": 400}
_SCOPE = Scope("claims", "reader")
_PASSAGES = (
    "parametric_memory",
    "parametric_memory_aligned_evidence",
    "counter_memory",
    "counter_memory_aligned_evidence",
)


@dataclass(frozen=True, slots=True)
class _Case:
    """A question: its two claims, four passages with the side each is on, and the side that is true."""

    claims: tuple[str, str]
    hits: tuple[Hit, ...]
    sides: tuple[int, ...]
    logits: tuple[float, ...]
    true: int


Reader = Callable[[_Case, Sequence[int]], int | None]


def run(scale: Scale, seed: int, data: Path | None) -> Result:
    """Questions that the stance was not fitted on; ``seed`` draws them, their trust and the orders."""
    random = np.random.default_rng(seed)
    cases = _cases(_QUESTIONS[scale], data, random)
    typed = {id(case): case.sides for case in cases}
    told = {id(case): tuple(None if abs(one) < CERTAIN else int(one < 0) for one in case.logits) for case in cases}
    readers: dict[str, Reader] = {
        "ours, typed slots": lambda case, order: _ours(case, order, typed[id(case)]),
        "ours, by the words": lambda case, order: _ours(case, order, told[id(case)]),
        "first passage": lambda case, order: case.sides[order[0]],
        "most passages": lambda case, order: _most(case, order),
        "newest passage": lambda case, order: case.sides[order[-1]],
    }
    measured = {arm: _measure(read, cases, np.random.default_rng(seed)) for arm, read in readers.items()}
    logits = np.asarray([one for case in cases for one in case.logits])
    sides = np.asarray([side for case in cases for side in case.sides])
    known = np.abs(logits) >= CERTAIN
    auc, precision = _auc(-logits, sides), float(((logits < 0) == sides)[known].mean())
    measured["ours, by the words"] |= {
        "stance AUC": auc,
        "stance known": float(known.mean()),
        "stance precision": precision,
    }
    series = {"abstention": _curve(cases)}
    slots, words = measured["ours, typed slots"], measured["ours, by the words"]
    checks = (
        Check("stance of a passage by its words, AUC", auc, 0.75),
        Check("precision where the stance is said to be known", precision, 0.9),
        Check("verdicts changed by order, typed", slots["moved by order"], 0.0, at_least=False),
        Check("verdicts changed by order, words", words["moved by order"], 0.0, at_least=False),
        Check("verdicts changed by copies, typed", slots["moved by copies"], 0.0, at_least=False),
        Check("verdicts changed by copies, words", words["moved by copies"], 0.0, at_least=False),
        Check("right, where trust is right four times in five", slots["right"], 0.78),
        Check("first passage is moved by order (control)", measured["first passage"]["moved by order"], 0.2),
        Check("most passages is moved by copies (control)", measured["most passages"]["moved by copies"], 0.2),
    )
    notes: tuple[str, ...] = (
        f"by the words alone {words['answered']:.0%} of the questions are answered, {words['right when answered']:.0%} of these as "
        "the truth is",
    )
    settings = {
        "questions": len(cases),
        "file": FILE,
        "fitted on": f"the first {FITTED} questions of {FITTED_ON}",
        "certain": CERTAIN,
    }
    product = Result(measured, checks, settings, series, notes)
    if scale == "quick":
        only = "the half about a model's own weights trains one (extra torch): it runs at --scale full and is not judged here"
        return replace(product, notes=(*notes, only))
    return _joined(product, clash_model.measure(seed, RIGHT_TRUST))


def _joined(product: Result, weights: clash_model.Weights) -> Result:
    return Result(
        {**product.arms, **weights.arms},
        (*product.checks, *weights.checks),
        {**product.settings, "model": weights.settings},
        {**product.series, **weights.series},
        (*product.notes, *weights.notes, *clash_model.NOTES),
    )


def plot(result: Result, path: Path) -> None:
    """How far each reader is moved, how right the words are by how many questions are answered, and what the model does."""
    share, right = result.series["abstention"]
    readers = arms[:5]
    panels: list[Panel] = [
        Bars(
            {arm: result.arms[arm]["moved by order"] for arm in readers},
            title="verdicts that change with the order",
            ours=arms[:2],
            percent=True,
        ),
        Bars(
            {arm: result.arms[arm]["moved by copies"] for arm in readers},
            title="... with five copies of one passage",
            ours=arms[:2],
            percent=True,
        ),
        Lines({"by the words": (share, right)}, title="right, by share of passages told", ours=("by the words",)),
    ]
    subtitle = "ConflictQA, four passages a question, two for and two against"
    if "modes" in result.series:
        panels += clash_model.panels(result)
        subtitle += "; below, a decoder trained on a world of 2,000 people"
    draw(path, panels, title="When memories disagree", subtitle=subtitle)


# --- the cases ---


def _cases(count: int, data: Path | None, random: np.random.Generator) -> list[_Case]:
    folder = data / "conflictqa" if data is not None else None
    if folder is None or not (folder / FILE).is_file():
        raise ClaimError(f"this claim reads ConflictQA; give the folder that holds conflictqa/{FILE} with --data")
    stance = Stance(embedder("this claim tells stances by meaning"))
    seen = {row["question"] for row in _rows(folder / FITTED_ON)[:FITTED]}
    rows = [
        row
        for row in _rows(folder / FILE)
        if row["question"] not in seen and all(row[key].strip() for key in _PASSAGES)
    ]
    chosen = random.choice(len(rows), min(count, len(rows)), replace=False)
    right = random.permutation(len(chosen)) < round(RIGHT_TRUST * len(chosen))
    cases = []
    for at, trusted in zip(chosen.tolist(), right.tolist(), strict=True):
        row = rows[at]
        claims = (row["memory_answer"], row["counter_answer"])
        true = _true_side(row)
        sides = (0, 0, 1, 1)
        high = true if trusted else 1 - true
        hits = tuple(
            Hit(_cube(row[key], f"source {n}", 0.9 if side == high else 0.5), 1.0, 0.5)
            for n, (key, side) in enumerate(zip(_PASSAGES, sides, strict=True))
        )
        logits = tuple(float(one) for one in stance.of(claims, [row[key] for key in _PASSAGES]))
        cases.append(_Case(claims, hits, sides, logits, true))
    return cases


def _rows(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _true_side(row: dict[str, str]) -> int:
    """0 where the model's own answer is the truth. Of the two claims one denies; the truth says whether it should."""
    truth = str(row["ground_truth"][0]).casefold() == "true"
    own = _affirms(row["memory_answer"], row["counter_answer"])
    return 0 if own is truth else 1


def _affirms(claim: str, other: str) -> bool:
    denying = (" not ", "n't ", " no ", "cannot", "never", "unlikely", "incorrect", "false")
    count = sum(claim.casefold().count(word) for word in denying)
    rest = sum(other.casefold().count(word) for word in denying)
    return count < rest if count != rest else len(claim) < len(other)


def _cube(text: str, source: str, trust: float) -> Cube:
    return Cube(
        _SCOPE, text, origin=Origin(Channel.DOCUMENT, reference=source, trust=trust, taint=(f"document:{source}",))
    )


# --- the readers ---


def _ours(case: _Case, order: Sequence[int], sides: Sequence[int | None]) -> int | None:
    by_text = {case.hits[n].cube.id: sides[n] for n in range(len(case.hits))}

    def detect(_question: str, cube: Cube) -> str | None:
        side = by_text[cube.id]
        return None if side is None else str(side)

    found = resolve("", [case.hits[n] for n in order], detect)
    return None if found.answer is None else int(found.answer)


def _most(case: _Case, order: Sequence[int]) -> int:
    votes = [case.sides[n] for n in order]
    return int(sum(votes) * 2 > len(votes)) if sum(votes) * 2 != len(votes) else votes[0]


def _measure(read: Reader, cases: Sequence[_Case], random: np.random.Generator) -> dict[str, float]:
    order_moved, copies_moved, right, answered = [], [], [], []
    for case in cases:
        usual = list(range(len(case.hits)))
        verdict = read(case, random.permutation(len(usual)).tolist())
        first = read(case, usual)
        order_moved.append(any(read(case, random.permutation(len(usual)).tolist()) != first for _ in range(6)))
        copied = int(random.integers(len(usual)))
        copies_moved.append(read(case, [*usual, *[copied] * 5]) != first)
        answered.append(verdict is not None)
        right.append(verdict == case.true)
    told = [was for was, said in zip(right, answered, strict=True) if said]
    return {
        "moved by order": float(np.mean(order_moved)),
        "moved by copies": float(np.mean(copies_moved)),
        "right": float(np.mean(right)),
        "answered": float(np.mean(answered)),
        "right when answered": float(np.mean(told)) if told else float("nan"),
    }


def _curve(cases: Sequence[_Case]) -> tuple[list[float], list[float]]:
    """By share of passages told (the surest first), the share of these whose side is right."""
    logits = np.asarray([one for case in cases for one in case.logits])
    right = (logits < 0) == np.asarray([side for case in cases for side in case.sides])
    order = np.argsort(-np.abs(logits), kind="stable")
    told = np.arange(1, len(order) + 1)
    at = np.linspace(0.1, 1.0, 10)
    where = np.maximum(1, (at * len(order)).astype(int)) - 1
    return at.tolist(), (np.cumsum(right[order]) / told)[where].tolist()


def _auc(scores: np.ndarray, labels: np.ndarray) -> float:
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = np.arange(len(order))
    positive = labels == 1
    return float((ranks[positive].mean() - (positive.sum() - 1) / 2) / (~positive).sum())
