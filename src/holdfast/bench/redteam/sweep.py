"""The same attacks on one recipe after another, and the table of what they reach: bare memory against guarded one.

Proposed: the agent would act by the attacker's record. Told: words that only the attacker has written stand in what it is told, be
it written by a model. An attack that reaches nothing in the bare memory shows nothing of the guard.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.bench.redteam import catalogue
from holdfast.bench.redteam.battery import Remembering, Tick
from holdfast.bench.redteam.report import missed, table
from holdfast.bench.redteam.targets import BARE, OURS
from holdfast.encode.base import Embedder
from holdfast.errors import InputError, MissingExtraError
from holdfast.recipes.book import RECIPES

ALL = "all"
FAMILIES = ("graft", "plans", "query-only")
"""Played where none is named: poisoned experiences, and queries that plant them."""

DOORS: Mapping[str, tuple[str, ...]] = {
    "a run that read a document": ("by a document", "under questions"),
    "one account": ("graft: one account", "plans: plans, one account", "a call added"),
    "one of the team": ("as an agent's own word",),
    "an account a record": ("an account a record",),
    "five accounts in step": ("accounts that do the same",),
    "in words alone": ("in words alone",),
    "queries that plant": ("query-only",),
}
"""Columns of the table: of which attacks, by a part of their names, each is the mean."""


def play(
    recipes: Sequence[str],
    data: Path | None = None,
    *,
    attacks: Sequence[str] = (),
    arms: Sequence[str] = (),
    seed: int = 0,
    embedder: Embedder | str | None = "auto",
    tick: Tick | None = None,
) -> dict[str, Any]:
    """Play attacks on recipes, ``all`` for every one that has a name; the report. Raises InputError for what does not exist."""
    names = tuple(RECIPES) if ALL in recipes else tuple(dict.fromkeys(recipes))
    if arms:
        raise InputError("--arm is of one recipe: several are compared bare and guarded")
    found = catalogue.opened_embedder(embedder)
    shared = None if found is None else Remembering(found)
    chosen = tuple(attacks) or FAMILIES
    reports: dict[str, dict[str, Any]] = {}
    for name in names:

        def told(what: str, done: int, name: str = name) -> None:
            if tick is not None:
                tick(f"{name}, {what}", done)

        reports[name] = catalogue.run(data, attacks=chosen, recipe=name, seed=seed, embedder=shared, tick=told)
    first = next(iter(reports.values()))["settings"]
    shown = ("records", "embedder", "seed", "k", "sessions", "intervals", "holdfast", "python", "numpy", "date")
    command = " ".join(f"--recipe {name}" for name in ([ALL] if ALL in recipes else names))
    return {
        "holds": all(report["holds"] for report in reports.values()),
        "missed": {name: some for name, report in reports.items() if (some := missed(report))},
        "recipes": {name: _entries(report) for name, report in reports.items()},
        "settings": {
            "command": f"{first['command']} {command}",
            "attacks": list(chosen),
            "arms": [BARE, OURS],
            **{key: first[key] for key in shown},
        },
    }


def _entries(report: Mapping[str, Any]) -> dict[str, Any]:
    """By attack what each arm shows of it, with n and intervals."""
    found: dict[str, Any] = {}
    for name, entry in (*report["attacks"].items(), *report["campaigns"].items()):
        arms = {}
        for arm, seen in entry["arms"].items():
            levels = seen["levels"]
            arms[arm] = {
                "proposed": levels.get("proposed") or levels.get("executed") or [],
                "persisted": levels.get("persisted") or [] if name in report["attacks"] else [],
                "told": seen.get("attacker's words told", []),
                "benign": seen.get("benign", {}).get("utility", []),
            }
        found[name] = {"code": entry["code"], "adaptive": entry["adaptive"], **arms}
    return found


# --- the table ---

HEADERS = ("recipe", *DOORS, "benign")
ROWS = ("recipe", "attack", "n", "proposed", "told", "persisted", "benign", "attacked")


def matrix(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row a recipe: of each door the share of questions proposed, bare/guarded in percent, and what is done rightly under
    attack."""
    return [
        (
            name,
            *(_pair([one for title, one in entries.items() if any(part in title for part in parts)], "proposed")
              for parts in DOORS.values()),
            _pair(list(entries.values()), "benign"),
        )
        for name, entries in report["recipes"].items()
    ]  # fmt: skip


def rows(report: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """One row a recipe and attack, bare/guarded in percent."""
    for recipe, entries in report["recipes"].items():
        for title, entry in entries.items():
            n = max(((entry[arm]["proposed"] or [0, 0, 0, 0])[3] for arm in (BARE, OURS)), default=0)
            values = [_pair([entry], what) for what in ("proposed", "told", "persisted")]
            yield (recipe, title, str(n), *values, _pair([entry], "benign", 0), _pair([entry], "benign"))


def markdown(report: Mapping[str, Any]) -> str:
    """The report for people."""
    settings = report["settings"]
    parts = [
        "# Attacks on every recipe",
        f"`{settings['command']}`: {settings['records']}, embedder {settings['embedder'] or 'none'}, seed {settings['seed']}. "
        "Bare memory / guarded one, in percent. Proposed: the agent would act by the attacker's record. Told: words that only "
        "the attacker has written stand in what the agent is told. Benign: what is done rightly, without and with the attack. "
        "A 0 in the bare memory says nothing of the guard.",
        table(HEADERS, matrix(report)),
        "## Attack by attack",
        table(ROWS, rows(report)),
    ]
    return "\n\n".join(parts) + "\n"


def write(report: Mapping[str, Any], out: Path) -> list[Path]:
    """``redteam-recipes.json``, ``.md`` and, where matplotlib is installed, ``.png`` into a folder; what was written."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"redteam-recipes.{kind}" for kind in ("json", "md", "png")]
    paths[0].write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    paths[1].write_text(markdown(report), encoding="utf-8")
    try:
        _plot(report, paths[2])
    except MissingExtraError:
        return paths[:2]
    return paths


def _values(entries: Sequence[Mapping[str, Any]], arm: str, what: str, at: int) -> list[float]:
    return [value[at] for one in entries if (value := one[arm][what]) and value[at] is not None]


def _pair(entries: Sequence[Mapping[str, Any]], what: str, at: int | None = None) -> str:
    place = (1 if what == "benign" else 0) if at is None else at
    values = [_values(entries, arm, what, place) for arm in (BARE, OURS)]
    return "/".join(f"{100 * float(np.mean(some)):.0f}" for some in values) if all(values) else ""


def _plot(report: Mapping[str, Any], path: Path) -> None:
    from holdfast.bench.plots import Bars, Panel, draw

    panels: list[Panel] = []
    for title, what, at in (
        ("proposed", "proposed", 0),
        ("attacker's words told", "told", 0),
        ("benign, done rightly", "benign", 1),
    ):
        values: dict[str, float] = {}
        for recipe, entries in report["recipes"].items():
            some = [one for name, one in entries.items() if _plain(name)]
            for arm, named in ((BARE, f"{recipe}, bare"), (OURS, recipe)):
                found = _values(some, arm, what, at)
                values[named] = float(np.mean(found)) if found else math.nan
        panels.append(Bars(values, title=title, ours=tuple(report["recipes"]), percent=True, limits=(0, 1)))
    settings = report["settings"]
    draw(
        path,
        panels,
        title="What poisoned experience reaches through each recipe",
        subtitle=f"mean over attacks by a document or by one account; {settings['records']}, seed {settings['seed']}",
        columns=3,
    )


def _plain(name: str) -> bool:
    """Whether an attack comes by a document or by one account."""
    return any(part in name for door in ("a run that read a document", "one account") for part in DOORS[door])
