"""A search over recipes from end to end: tasks are parted, the search runs, and its winner is measured on tasks that it never saw.

There too each begins with an empty store. All that is written is the user's to keep: the winner as a recipe that
``Memory(recipe=FILE)`` takes, every run, and the front as a plot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from holdfast.bench.arena import Arena, Report, Task
from holdfast.bench.evolution import Evolution, Log, Progress, Settings, evolve, paired, told
from holdfast.bench.mutation import Menu
from holdfast.bench.plots import Bars, Lines
from holdfast.bench.plots import draw as draw_panels
from holdfast.errors import InputError
from holdfast.recipes.base import Recipe
from holdfast.recipes.genotype import to_dict

WINNER, RUNS, REPORT, FRONT = "winner.json", "runs.jsonl", "report.json", "front.png"


def search(
    arena: Arena,
    tasks: Sequence[Task],
    first: Sequence[Recipe],
    menu: Menu,
    settings: Settings,
    *,
    out: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Search on the first tasks, measure on the rest: the winner, what the search began with, and no memory.

    ``out``: a folder; where it holds the runs of a search that was killed, that one goes on. Raises InputError for too few tasks.
    """
    sealed = tasks[settings.needed :]
    if not sealed:
        raise InputError(
            f"the search reads {settings.needed} tasks, and none of {len(tasks)} is left to measure its winner on: give more, "
            "or take fewer rounds or smaller batches"
        )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    log = Log(out / RUNS if out is not None else None)
    evolution = evolve(arena, tasks, first, menu, settings, log=log, progress=progress)
    reports = [arena.run(None, sealed), *(log.run(arena, recipe, sealed) for recipe in (*first, evolution.winner))]
    report = _told(evolution, settings, reports, len(sealed))
    if out is not None:
        (out / WINNER).write_text(json.dumps(to_dict(evolution.winner), indent=2) + "\n", "utf-8")
        (out / REPORT).write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return report


def _told(evolution: Evolution, settings: Settings, reports: Sequence[Report], count: int) -> dict[str, Any]:
    *others, winner = reports
    gains = {}
    for other in others:
        gain, low, high = paired(winner.success, other.success, seed=settings.seed)
        gains[other.recipe] = {"gain": round(gain, 4), "interval": [round(low, 4), round(high, 4)]}
    return {
        "settings": asdict(settings),
        "runs": evolution.runs,
        "rounds": told(evolution),
        "sealed tasks": count,
        "sealed": [report.to_dict() for report in reports],
        "winner": to_dict(evolution.winner),
        "gains of the winner": gains,
    }


def draw(report: Mapping[str, Any], out: Path) -> Path:
    """Every candidate by tokens and success, the front among those of the last round, and success on the sealed tasks.

    Raises MissingExtraError without matplotlib.
    """
    last = report["rounds"][-1]
    shown = {
        "earlier rounds": [one for some in report["rounds"][:-1] for one in some["candidates"]],
        "last round": last["candidates"],
        "front": sorted(last["candidates"][: last["front"]], key=lambda one: one["tokens"]),
    }
    clouds = {
        name: ([one["tokens"] for one in ones], [one["rate"] for one in ones]) for name, ones in shown.items() if ones
    }
    sealed = {one["recipe"]: one["rate"] for one in report["sealed"]}
    winner = report["sealed"][-1]
    where = out / FRONT
    draw_panels(
        where,
        [
            Lines(
                clouds,
                "The search",
                "tokens told in a round",
                "success",
                ours=("front",),
                points=("earlier rounds", "last round"),
                percent=True,
            ),
            Bars(sealed, "On tasks that it has not seen", "success", ours=(winner["recipe"],), percent=True),
        ],
        title=f"{winner['recipe']}: {100 * winner['rate']:.0f} % of tasks that the search has not seen",
        subtitle=f"{report['runs']} runs, seed {report['settings']['seed']}; {report['sealed tasks']} sealed tasks",
    )
    return where
