"""MemSkill (arXiv 2602.02474): skills that are chosen by a trained controller, and added by a designer, write what a memory needs.

Dialogues hold facts of twelve families; a scripted model takes over those of the skills that it is given, so that what is measured
is the choice of skills and not a model. Prompts, parser, controller, PPO, designer, its checks and the way back are the product's
own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from holdfast.bench.memory_probes import one_thread
from holdfast.bench.plots import Bars, Lines, draw
from holdfast.claims import skill_arms, skill_talks
from holdfast.claims.base import Check, Result, Scale
from holdfast.claims.embedded import embedder
from holdfast.claims.runner import bootstrap
from holdfast.claims.skill_arms import (
    BY_COSINE,
    COSINE,
    EVOLUTIONS,
    FIXED,
    NO_DESIGNER,
    ORACLE,
    OURS,
    RANDOM,
    SCRATCH,
    Arena,
    K,
    Size,
)
from holdfast.claims.skill_arms import (
    SEEDS as SEEDS_ONLY,
)
from holdfast.encode.base import Embedder
from holdfast.errors import ClaimError, InputError

number = 18
name = "memskill"
statement = (
    "A controller of memory skills that PPO trains, with a designer who adds the skills that are missing, answers at least "
    "8 points more questions than any fixed, random or cosine choice, and three quarters of what an oracle does; without the "
    "designer 8 points of what no skill kept are lost, and a harmful skill is taken back."
)
arms = (OURS, SCRATCH, NO_DESIGNER, BY_COSINE, COSINE, FIXED, RANDOM, SEEDS_ONLY, ORACLE)

SIZES: Mapping[Scale, Size] = {
    "quick": Size(train=60, test=30, updates=20, batch=8, tried=6),
    "full": Size(train=200, test=60, updates=120, batch=16, tried=20),
}
BASELINES = (SCRATCH, NO_DESIGNER, BY_COSINE, COSINE, FIXED, RANDOM, SEEDS_ONLY)
MARGIN, OF_ORACLE = 0.08, 0.75


def run(scale: Scale, seed: int, data: Path | None) -> Result:
    """All arms on the same dialogues. Raises ClaimError at ``gpu``, where nothing embeds, and in full without LoCoMo."""
    if scale not in SIZES:
        raise ClaimError("claim 18 runs on the processor alone: use --scale quick or full")
    embed = embedder("this claim chooses skills by meaning")
    if scale == "full" and data is None:
        raise ClaimError(
            "the full form of claim 18 has a side check on LoCoMo: --data names a folder that holds locomo"
        )
    with one_thread():  # training hangs on the last bits of its sums, of which those of numpy go by OMP_NUM_THREADS
        result = worlds(scale, seed, embed)
        return result if scale == "quick" or data is None else with_talks(result, data, seed, embed)


def with_talks(result: Result, data: Path, seed: int, embedder: Embedder) -> Result:
    """With the side check on real talk, which decides nothing. Raises ClaimError where LoCoMo is not there."""
    try:
        talks = skill_talks.measured(data, embedder, seed)
    except InputError as error:
        raise ClaimError(f"claim 18 reads LoCoMo in its full form: {error}") from error
    return replace(result, arms={**result.arms, **talks}, notes=(*result.notes, _TALKS))


def worlds(scale: Scale, seed: int, embedder: Embedder) -> Result:
    """All arms on the synthetic dialogues."""
    size = SIZES[scale]
    arena = Arena(embedder, size, seed)
    mine, learnt, rollback = skill_arms.ours(arena)
    played = {OURS: mine, **skill_arms.baselines(arena)}
    outcomes = skill_arms.outcomes(played)
    measured = {
        arm: {
            "right": float(np.mean([one.score for one in some])),
            "right, families absent at the start": skill_arms.by_family(some, True),
            "right, other families": skill_arms.by_family(some, False),
            "memories": float(np.mean([len(one.memories) for one in some])),
        }
        for arm, some in played.items()
    }
    right = {arm: one["right"] for arm, one in measured.items()}
    best = max(BASELINES, key=lambda arm: right[arm])
    interval = bootstrap(np.asarray(outcomes[OURS]) - np.asarray(outcomes[best]))
    low, high = interval["low"], interval["high"]
    absent = "right, families absent at the start"
    checks = (
        Check(
            "right answers, above the best baseline",
            right[OURS] - right[best],
            MARGIN,
            note="the best is named in the series",
        ),
        Check("low end of its 95 % interval over questions", low, 0.0001),
        Check("right answers, as a share of the oracle's", right[OURS] / right[ORACLE], OF_ORACLE),
        Check("absent families, above no designer", measured[OURS][absent] - measured[NO_DESIGNER][absent], MARGIN),
        Check("reward with a harmful skill planted, less the best", rollback.planted - rollback.before, -0.0001, False),
        Check("bank and weights are as before it", float(rollback.restored), 1.0),
    )
    first = learnt.rounds[0]
    series = {
        "best baseline": best,
        "interval": [low, high],
        "outcomes": outcomes,
        "rewards": [round_.reward for round_ in learnt.rounds],
        "scores": _smooth([score for round_ in learnt.rounds for score in round_.scores]),
        "kept": [round_.kept for round_ in learnt.rounds],
        "added": [[change.skill.name for change in round_.changes] for round_ in learnt.rounds],
        "skills": [skill.name for skill in learnt.bank.skills],
        "entropy": [first.reports[0].entropy, learnt.rounds[-1].reports[-1].entropy],
        "planted": rollback.planted,
    }
    settings = {
        "scale": scale,
        "train, test dialogues": [size.train, size.test],
        "rounds": EVOLUTIONS + 1,
        "updates a round": size.updates,
        "dialogues a batch": size.batch,
        "skills a span": K,
        "embedder": embedder.model,
    }
    return Result(measured, checks, settings, series, _NOTES)


_NOTES = (
    "the model that carries skills out is a script, and so is the designer: it returns a skill only where its analysis of the "
    "cases, which it makes from the prompt alone, names what that skill keeps",
    "a skill that finds nothing in a span writes a memory that nobody said; the oracle takes just what a span needs",
    "ours begins with a controller that imitates the cosine choice (train.warm_start), which asks for no answers and is not in the "
    "paper; from random weights is the paper's way, with the same budget, and counts among the baselines",
    "rates, epochs and all else of PPO are the paper's; 16 dialogues a batch is what it uses for its longer task",
    "a reward for a whole dialogue says little of one choice among ten: from random weights most updates go into what the "
    "descriptions of skills say already",
    "600 updates, as many as the sheet has in four evolutions of 150, do not bring the controller to its end: the reward of a "
    "round (in the series) still rises with the last one",
)

_TALKS = (
    "on LoCoMo (5 conversations to train on, 5 to measure) a skill is a filter of sentences, 400 of which may be kept of each "
    "conversation; it decides no check"
)


def plot(result: Result, path: Path) -> None:
    """Right answers by arm, those of the absent families, and the score while it was trained."""
    measured, series = result.arms, result.series
    right = {arm: one["right"] for arm, one in measured.items() if "right" in one}
    absent = {arm: measured[arm]["right, families absent at the start"] for arm in right}
    required = right[series["best baseline"]] + MARGIN
    scores = series["scores"]
    updates = [
        (at + 1) * len(series["kept"]) * result.settings["updates a round"] / len(scores) for at in range(len(scores))
    ]
    ends = {float(result.settings["updates a round"] * at): f"{at}." for at in range(1, len(series["kept"]))}
    draw(
        path,
        [
            Bars(
                right,
                "right answers",
                ours=(OURS,),
                bounds=(ORACLE,),
                controls=(RANDOM,),
                required=required,
                percent=True,
            ),
            Bars(
                absent,
                "right, families absent at first",
                ours=(OURS,),
                bounds=(ORACLE,),
                controls=(NO_DESIGNER,),
                required=absent[NO_DESIGNER] + MARGIN,
                percent=True,
            ),
            Lines(
                {OURS: (updates, scores)},
                "score of a batch, by evolution",
                x_label="updates",
                ours=(OURS,),
                marks=ends,
                percent=True,
            ),
        ],
        title="Skills that are chosen and added write what a memory needs",
        subtitle="Synthetic dialogues, a scripted model; the line is the best baseline and 8 points",
    )


def _smooth(scores: list[float], points: int = 60) -> list[float]:
    """Means over so many stretches."""
    return [float(np.mean(part)) for part in np.array_split(np.asarray(scores), min(points, len(scores)))]
