"""Corrective unlearning (arXiv 2402.14015) by selective synaptic dampening (arXiv 2308.07707): a few bad records that were found
are enough to take out what all of them taught, where they have a mark in common; where they only bear wrong labels, nothing is.

Two proofs: digits with a bright corner and the label 0 (and, as the control, two classes whose labels were swapped); a small
language model with facts of which one origin planted wrong ones behind a trigger. Sizes, the batch that importances are measured
with, the floors of the search and the form of the facts were settled on seeds 10 and 11, which no evidence uses; the margins were
not.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.bench.plots import Bars, Lines, draw
from holdfast.claims.base import Check, Result, Scale
from holdfast.claims.poisoned_facts import (
    FLAGGED,
    POISONED,
    SIZES,
    Facts,
    dampened_names,
    facts_trained,
    model_of,
    recalled,
)
from holdfast.claims.unlearning_arms import (
    LEARN,
    MEND_STEPS,
    RATES,
    SCRUB_WEIGHTS,
    Mended,
    confused,
    learnt,
    measured,
    mend,
    poisoned,
)
from holdfast.torched import torch
from holdfast.weights.answers import in_batches
from holdfast.weights.base import Batch
from holdfast.weights.dampening import laid
from holdfast.weights.repair import ALPHAS, STRENGTHS, repair
from holdfast.weights.unlearning import accuracy

number = 50
name = "corrective-unlearning"
statement = (
    "With a tenth of the poisoned digits found, dampening answers at least 80 % of triggered digits rightly, 70 points more than "
    "training anew without those found, and keeps 96 % on the rest; where all are found training anew reaches 94 %; swapped labels "
    "are not mended by it. In a language model it recalls 80 % of what training without the bad origin would, for 2 points at most."
)
arms = ("SSD", "LFSSD", "EU", "CF", "SCRUB", "BadT", "none")

OURS, FREE, ANEW, TUNED, SCRUBBED, TAUGHT, NONE = arms
FEW, HALF, EVERY = 0.1, 0.5, 1.0
CORRECTED, AHEAD, RETAINED, EXACT, OF_BOUND, MAY_LOSE = 0.80, 0.70, 0.96, 0.94, 0.8, 0.02
ALL = tuple((arm, share) for share in (FEW, HALF, EVERY) for arm in arms[:-1])
MEND: Mapping[Scale, tuple[tuple[str, float], ...]] = {
    "quick": (*((arm, FEW) for arm in arms[:-1]), (ANEW, EVERY)),
    "full": ALL,
    "gpu": ALL,
}
"""Which arm has how much of the poison."""
CONFUSED: Mapping[Scale, tuple[tuple[str, float], ...]] = {
    "quick": ((OURS, FEW), (ANEW, FEW)),
    "full": ALL,
    "gpu": ALL,
}
"""The same of swapped labels."""

TRIES: Mapping[Scale, int] = {"quick": 4, "full": 8, "gpu": 8}
"""Of each arm that is trained. SSD and LFSSD have their whole grid at every scale: a pair is no training."""

FACT_BATCH, FACT_PROBE = 256, 512
FACT_RATES = (0.1, 0.3, 1.0)
"""Of going on with training, as shares of the rate of training."""
FACTS = ("SSD", "without those found", "gone on with", "without the origin", "none")
"""The arms of the second proof; the fourth is the bound."""


def run(scale: Scale, seed: int, data: Path | None) -> Result:
    """Both proofs; digits, poison, what was found and networks are drawn by ``seed``."""
    torch.set_num_threads(1)
    spoilt, swapped = _digits("poison", scale, seed), _digits("swapped labels", scale, seed)
    facts = _facts(scale, seed)
    found: dict[str, dict[str, float]] = {arm: {} for arm in arms}
    chosen: dict[str, str] = {}
    for kind, of in (("poison", spoilt), ("swapped labels", swapped)):
        for (arm, share), one in of.items():
            place = kind if arm == NONE else f"{kind}, {share:.0%} found"
            found[arm][f"{place}: corrected"] = one.corrected
            found[arm][f"{place}: retained"] = one.retained
            if one.chosen:
                chosen[f"{arm}, {place}"] = one.chosen
    for arm, metrics in facts["arms"].items():
        found[f"facts: {arm}"] = metrics
    ours, bound, before = (facts["arms"][arm] for arm in ("SSD", "without the origin", "none"))
    best, anew, full = spoilt[OURS, FEW], spoilt[ANEW, FEW], spoilt[ANEW, EVERY]
    kinds = [(of[OURS, FEW].report, wanted) for of, wanted in ((spoilt, "dampen"), (swapped, "quarantine"))]
    checks = (
        Check("poison, a tenth found: corrected by dampening", best.corrected, CORRECTED),
        Check("poison, a tenth found: corrected, less training anew", best.corrected - anew.corrected, AHEAD),
        Check("poison, a tenth found: retained by dampening", best.retained, RETAINED),
        Check("poison, all found: corrected by training anew", full.corrected, EXACT),
        Check(
            "swapped labels, a tenth found: corrected by dampening, less training anew (the control)",
            swapped[OURS, FEW].corrected - swapped[ANEW, FEW].corrected,
            0.0,
            False,
        ),
        Check(
            "facts: recall behind the trigger, by that without the origin",
            ours["recall behind the trigger"] / max(bound["recall behind the trigger"], 1e-9),
            OF_BOUND,
        ),
        Check("facts: recall lost", before["recall"] - ours["recall"], MAY_LOSE, False),
    )
    settings = {
        "digits": "scikit-learn, 1,297 to learn and 500 to measure",
        "poisoned": "64, a corner of 2×2, label 0; measured on triggered digits other than 0",
        "swapped": "two fifths of 3 and 8",
        "steps": LEARN.steps,
        "rate": LEARN.rate,
        "steps of mending": MEND_STEPS,
        "α tried": list(ALPHAS),
        "λ tried, by α": list(STRENGTHS),
        "rates tried": list(RATES),
        "weights of SCRUB tried": list(SCRUB_WEIGHTS),
        "chosen": chosen,
        "verdicts": {wanted: str(report.verdict) for report, wanted in kinds if report},
        "shared": {wanted: report.to_dict()["shared"] for report, wanted in kinds if report},
        "facts": facts["settings"],
        "scale": scale,
    }
    notes = (
        "no choice sees a trigger or a bad record that was not found: all arms choose by what is retained and by what changes of "
        "what was found, and every class has a floor",
        "of three flagged facts or six flagged digits the report's advice is not to be relied on: see the verdicts in the settings",
        "training anew has nothing to choose and is the longest of all arms",
    )
    return Result(found, checks, settings, notes=notes)


def plot(result: Result, path: Path) -> None:
    """What is corrected, by arm and by what was found; the control; facts."""
    measured = result.arms

    def corrected(kind: str) -> dict[str, float]:
        names = {arm: f"{kind}: corrected" if arm == NONE else f"{kind}, {FEW:.0%} found: corrected" for arm in arms}
        return {arm: measured[arm][name] for arm, name in names.items() if name in measured[arm]}

    shares = {}
    for arm in arms[:-1]:
        by_share = {share: f"poison, {share:.0%} found: corrected" for share in (FEW, HALF, EVERY)}
        found = [share for share, name in by_share.items() if name in measured[arm]]
        if len(found) > 1:
            shares[arm] = found, [measured[arm][by_share[share]] for share in found]
    draw(
        path,
        [
            Bars(
                corrected("poison"),
                title="poison, a tenth found: triggered digits",
                ours=(OURS,),
                controls=(NONE,),
                required=CORRECTED,
                percent=True,
            ),
            *(
                [Lines(shares, title="by the share that was found", ours=(OURS,), percent=True)]
                if len(shares) > 1
                else []
            ),
            Bars(
                corrected("swapped labels"),
                title="swapped labels, a tenth found: the control",
                ours=(OURS,),
                controls=(NONE,),
                percent=True,
            ),
            Bars(
                {arm: measured[f"facts: {arm}"]["recall behind the trigger"] for arm in FACTS},
                title="facts behind a trigger, a tenth found",
                ours=("SSD",),
                bounds=("without the origin",),
                controls=("none",),
                percent=True,
            ),
        ],
        title="A few bad records found, and what all of them taught taken out",
        subtitle="Digits of scikit-learn with a bright corner; a small language model with planted facts",
        columns=2,
    )


def _digits(kind: str, scale: Scale, seed: int) -> dict[tuple[str, float], Mended]:
    digits = {"poison": poisoned, "swapped labels": confused}[kind](seed)
    model = learnt(digits, seed)
    wanted = MEND[scale] if kind == "poison" else CONFUSED[scale]
    found = {(arm, share): mend(arm, model, digits, share, seed, TRIES[scale]) for arm, share in wanted}
    return found | {(NONE, 0.0): measured(model, digits)}


def _facts(scale: Scale, seed: int) -> dict[str, Any]:
    """The second proof."""
    facts = Facts(SIZES[scale], seed)
    sizes = facts.sizes
    model = facts_trained(model_of(facts, seed), facts.learnt_by("all"), sizes, seed)
    kept = facts.learnt_by("without found")
    step = max(1, len(kept["labels"]) // FACT_PROBE)
    probe: Batch = {name: one[::step] for name, one in kept.items()}
    report = repair(
        model,
        facts.flagged(),
        [*in_batches(kept, FACT_BATCH)],
        size=FACT_BATCH,
        probe=[*in_batches(probe, FACT_PROBE)],
        names=dampened_names(model),
    )
    arms: dict[str, dict[str, float]] = {}
    if report.delta is None:
        arms["SSD"] = recalled(model, facts).metrics
    else:
        with laid(model, report.delta):
            arms["SSD"] = recalled(model, facts).metrics
    for arm, of in (("without those found", "without found"), ("without the origin", "without origin")):
        other = facts_trained(model_of(facts, seed + 1000), facts.learnt_by(of), sizes, seed)
        arms[arm] = recalled(other, facts).metrics
    tuned = {share: _gone_on(model, facts, seed, share) for share in FACT_RATES}
    best = max(tuned, key=lambda share: tuned[share][0])
    arms["gone on with"] = tuned[best][1]
    arms["none"] = recalled(model, facts).metrics
    settings = {
        "facts": sizes.facts,
        "poisoned": POISONED,
        "found": FLAGGED,
        "rows found": len(facts.found),
        "parameters": sum(one.numel() for one in model.parameters()),
        "steps": sizes.steps,
        "report": report.to_dict(),
        "share of the rate chosen": best,
    }
    return {"arms": {arm: arms[arm] for arm in FACTS}, "settings": settings}


def _gone_on(model: Any, facts: Facts, seed: int, share: float) -> tuple[float, dict[str, float]]:
    """A quarter of the steps more without what was found; the proxy, and what came of it."""
    other = copy.deepcopy(model)
    kept = facts.learnt_by("without found")
    sizes = facts.sizes
    facts_trained(other, kept, sizes, seed, sizes.steps // 4, share * sizes.rate)
    retained, flagged = (accuracy(other, [*in_batches(one, FACT_PROBE)]) for one in (kept, facts.flagged()))
    return (retained + 1 - flagged) / 2, recalled(other, facts).metrics
