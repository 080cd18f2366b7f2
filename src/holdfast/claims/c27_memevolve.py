"""MemEvolve (arXiv 2512.18746): a memory of experience that was found by search beats each that was made by hand.

The twelve systems of EvolveLab and what a search makes of their parts do the same tasks in the same order, each from an empty
store, with the same agent and the same stand-in for whatever a model writes. The search sees tasks of one family alone. Its winner
is then measured, beside all others, on tasks of that family that it has not seen, and on two families that it knows nothing of. A
search that changes anything in place of what is to blame, with as many runs, is the control.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from holdfast.bench.arena import Arena, Report, Task
from holdfast.bench.evolution import Evolution, Log, Settings, evolve, paired, told
from holdfast.bench.mutation import Menu
from holdfast.bench.plots import Bars, Lines, draw
from holdfast.bench.scribe import Scribe
from holdfast.claims.base import Check, Result, Scale
from holdfast.claims.embedded import EMBEDDER, embedder
from holdfast.claims.memevolve_world import MISLABELLED, Family, Locksmith, World
from holdfast.recipes.base import Recipe
from holdfast.recipes.book import RECIPES, TWELVE
from holdfast.recipes.genotype import to_dict

number = 27
name = "memevolve"
statement = (
    "A recipe found by search, guided by what memories lost, does at least 5 points more on tasks that it has not seen than the "
    "best of twelve made by hand, and than their mean on two other families of tasks; at no more than 1.2 times the tokens, and no "
    "worse than a search without guidance."
)
OURS, CONTROL, NONE = "evolved", "evolved at random", "no memory"
BY_HAND = tuple(recipe.name for recipe in TWELVE)
arms = (OURS, CONTROL, NONE, *RECIPES)
"""All recipes of the book stand in the table; the statement is about the twelve."""

SEARCHED, OTHERS = Family.SITES, (Family.DISHES, Family.DRIFT)
SETTINGS = {
    "quick": Settings(rounds=2, parents=1, children=3, batch=30, carried=10),
    "full": Settings(rounds=8, parents=2, children=4, batch=60, carried=20),
}
TESTED = {"quick": 40, "full": 400}
"""Tasks of each family on which all are measured."""
_FRESH = 10_000  # the first of them: the search reads those before


def run(scale: Scale, seed: int, data: Path | None) -> Result:
    """Both searches, and every arm on the three families. ``seed`` draws the worlds, the agent's luck and the search."""
    sized = "quick" if scale == "quick" else "full"
    arena = Arena(Locksmith(seed), Scribe(), embedder("this claim compares by meaning"))
    log = Log()  # what both searches begin with is run once
    found = {arm: _search(arena, SETTINGS[sized], seed, log, guided=arm == OURS) for arm in (OURS, CONTROL)}
    recipes: dict[str, Recipe | None] = {arm: one.winner for arm, one in found.items()}
    recipes |= {NONE: None, **RECIPES}
    seen = {
        family: {arm: arena.run(recipe, _fresh(family, seed, TESTED[sized])) for arm, recipe in recipes.items()}
        for family in (SEARCHED, *OTHERS)
    }
    home = seen[SEARCHED]
    best = max(BY_HAND, key=lambda arm: home[arm].rate)
    gain, low, high = paired(home[OURS].success, home[best].success, seed=seed)
    checks = [
        Check("success on tasks not seen, less the best by hand", gain, 0.05, note=f"{best}; {low:.3f} to {high:.3f}"),
        Check("the interval of that difference begins at", low, 0.0001),
    ]
    for family in OTHERS:
        mean = float(np.mean([seen[family][arm].rate for arm in BY_HAND]))
        checks.append(Check(f"success on {family}, less the mean by hand", seen[family][OURS].rate - mean, 0.05))
    checks += [
        Check("success on tasks not seen, less the search at random", home[OURS].rate - home[CONTROL].rate, 0.0),
        Check(
            "tokens told, as a multiple of the best by hand",
            home[OURS].tokens / max(home[best].tokens, 1),
            1.2,
            at_least=False,
        ),
    ]
    return Result(
        {arm: _metrics(seen, arm) for arm in arms},
        tuple(checks),
        {
            "searched": str(SEARCHED),
            "others": [str(family) for family in OTHERS],
            "rounds": SETTINGS[sized].rounds,
            "parents": SETTINGS[sized].parents,
            "children": SETTINGS[sized].children,
            "batch": SETTINGS[sized].batch,
            "carried": SETTINGS[sized].carried,
            "tested": TESTED[sized],
            "runs of each search": {arm: one.runs for arm, one in found.items()},
            "winner": to_dict(found[OURS].winner),
            "winner at random": to_dict(found[CONTROL].winner),
            "embedder": EMBEDDER,
            "scale": scale,
        },
        {"rounds": told(found[OURS]), "rounds at random": told(found[CONTROL])},
        (
            "the agent is a locksmith that tries what it is told, and a stand-in that knows nothing fills what a model would "
            "write: what is measured is what a memory keeps, finds and drops, not how well a model writes",
            f"both searches begin with the twelve; {100 * MISLABELLED:.0f} % of the outcomes that memories are told are wrong",
        ),
    )


def plot(result: Result, path: Path) -> None:
    """Success of every arm on the three families, and the best of each round of both searches."""
    panels: list[Bars | Lines] = []
    for family in (SEARCHED, *OTHERS):
        values = {arm: result.arms[arm][f"success, {family}"] for arm in arms}
        ordered = dict(sorted(values.items(), key=lambda item: -item[1]))
        title = f"{family}: searched, other tasks" if family == SEARCHED else f"{family}: never seen"
        panels.append(Bars(ordered, title=title, ours=(OURS,), controls=(CONTROL, NONE), percent=True))
    draw(
        path,
        panels,
        title="A recipe found by search beside twelve made by hand",
        subtitle=f"success on {result.settings['tested']} tasks a family; {EMBEDDER}, {result.settings['scale']}",
        columns=3,
    )


def _search(arena: Arena, settings: Settings, seed: int, log: Log, *, guided: bool) -> Evolution:
    drawn = Settings(
        settings.rounds, settings.parents, settings.children, settings.batch, settings.carried, guided, seed
    )
    tasks = World(SEARCHED, seed).tasks(drawn.needed)
    return evolve(arena, tasks, TWELVE, Menu.of(RECIPES.values()), drawn, log=log)


def _fresh(family: Family, seed: int, count: int) -> list[Task]:
    return World(family, seed).tasks(count, _FRESH)


def _metrics(seen: dict[Family, dict[str, Report]], arm: str) -> dict[str, float]:
    home = seen[SEARCHED][arm]
    return {
        **{f"success, {family}": reports[arm].rate for family, reports in seen.items()},
        "tokens a task": home.tokens / len(home.success),
        "model calls a task": home.calls / len(home.success),
        "milliseconds a task": 1000 * home.seconds / len(home.success),
    }
