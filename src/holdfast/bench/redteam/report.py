"""The report of a battery: every number with its level, n and interval, beside undefended, with the benign cost."""

from __future__ import annotations

import functools
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from holdfast import __version__
from holdfast.bench.metrics import bootstrap
from holdfast.bench.redteam.arms import K
from holdfast.bench.redteam.battery import SESSIONS, Faced, Fought, Played
from holdfast.bench.redteam.targets import BARE, OURS, Check
from holdfast.errors import MissingExtraError
from holdfast.guard.attacks.base import Level

LEVELS = tuple(Level)
DRAWS = 1000


def make(seen: Played, checks: Sequence[Check], *, seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was seen as one JSON-ready report. Intervals are 95 %, bootstrap over questions or trials."""
    attacks: dict[str, dict[str, Any]] = {
        name: {
            "code": static.code,
            "family": static.family,
            "source": static.source,
            "adaptive": static.adaptive,
            "sha256": static.digest,
            "questions": len(static.attack.asked),
            "records": len(static.attack.poison),
            "store": len(static.attack.store),
            "arms": {arm: _faced(faced, seed) for arm, faced in arms.items()},
        }
        for name, (static, arms) in seen.static.items()
    }
    campaigns: dict[str, dict[str, Any]] = {
        name: {
            "code": campaign.code,
            "source": campaign.source,
            "adaptive": bool(getattr(campaign, "adaptive", False)),
            "arms": {arm: _fought(fought, seed) for arm, fought in arms.items()},
        }
        for name, (campaign, arms) in seen.campaigns.items()
    }
    for entry in (*attacks.values(), *campaigns.values()):
        entry["fall"] = _falls(entry["arms"])
    return {
        # What an attacker reaches who knows the defence stands beside the targets, and is none of them.
        "holds": bool(checks) and all(check.holds is not False for check in checks if not check.adaptive),
        "checks": [
            {
                "name": check.name,
                "value": _rounded(check.value),
                "required": check.required,
                "at_least": check.at_least,
                "holds": check.holds,
                "adaptive": check.adaptive,
                "note": check.note,
            }
            for check in checks
        ],
        "attacks": attacks,
        "campaigns": campaigns,
        "turns": {name: list(some) for name, some in seen.turns.items()},
        "settings": {
            **settings,
            "seed": seed,
            "k": K,
            "sessions": SESSIONS,
            "intervals": f"95 %, percentile bootstrap over questions or trials, {DRAWS} draws",
            "holdfast": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "date": datetime.now(UTC).date().isoformat(),
        },
    }


def write(report: Mapping[str, Any], out: Path) -> list[Path]:
    """``redteam.json``, ``redteam.md`` and, where matplotlib is installed, ``redteam.png`` into a folder; what was written."""
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "redteam.json", out / "redteam.md"]
    files[0].write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    files[1].write_text(markdown(report), encoding="utf-8")
    try:
        _plot(report, out / "redteam.png")
    except MissingExtraError:
        return files
    return [*files, out / "redteam.png"]


# --- tables ---

HEADERS = ("", "attack", "n", *map(str, LEVELS), "benign")
"""Of ``rows``: percentages in the order of the arms; benign: the share that ours does rightly, without and with the attack."""

COSTS = (
    "arm",
    "right record recalled",
    "attacked",
    "done rightly",
    "attacked",
    "attacked questions done rightly",
    "benign records held",
    "own doings held",
)
"""Of ``costs``: percentages, means over the static attacks."""


def rows(report: Mapping[str, Any], *, adaptive: bool) -> list[tuple[str, ...]]:
    """One row an attack: its number, name, n, at each level the success by arm in percent, and benign utility of ours."""
    found = []
    for name, entry in (*report["attacks"].items(), *report["campaigns"].items()):
        if entry["adaptive"] is not adaptive:
            continue
        arms = entry["arms"]
        n = max((arms[arm]["levels"][level][3] for arm in arms for level in arms[arm]["levels"]), default=0)
        levels = ["/".join(_percent(arm["levels"].get(level)) for arm in arms.values()) for level in LEVELS]
        told = arms[OURS].get("told as the source's word") if OURS in arms else None
        if told and told[0]:
            levels[LEVELS.index(Level.PROPOSED)] += f" +{_percent(told)}"
        benign = arms[OURS].get("benign", {}).get("utility") if OURS in arms else None
        right = "/".join(_percent([one]) for one in benign) if benign else ""
        found.append((entry["code"], name, str(n), *(one.strip("/") for one in levels), right))
    return found


def costs(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row an arm: what benign questions and writes get with it, and without any defence."""
    found = []
    for arm in _arms(report):
        faced = [entry["arms"][arm] for entry in report["attacks"].values()]
        if not faced:
            break
        cells = [_over([one["benign"][what][at] for one in faced]) for what in ("recall", "utility") for at in (0, 1)]
        right = _over([one["right under attack"][0] for one in faced if one["right under attack"]])
        held = [_held([one["benign"][what] for one in faced]) for what in ("store", "written by the agent")]
        found.append((arm, *cells, right, *held))
    return found


def judged(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row a target: whether it holds, its name, what was measured, what is required, and the note."""
    words = {True: "ok", False: "FAILS", None: "-"}
    return [
        (
            "passes" if check["adaptive"] and check["holds"] is False else words[check["holds"]],
            check["name"] + (" (adaptive)" if check["adaptive"] else ""),
            "none" if check["value"] is None else f"{check['value']:.4g}",
            f"{'≥' if check['at_least'] else '≤'} {check['required']:.4g}",
            check["note"],
        )
        for check in report["checks"]
    ]


def markdown(report: Mapping[str, Any]) -> str:
    """The report for people."""
    arms = _arms(report)
    failing = missed(report)
    parts = [
        "# Attacks on an agent's memory",
        f"{len(report['attacks'])} static attacks and {len(report['campaigns'])} campaigns. At each level the share of "
        f"attempts that reached it, in percent: {'/'.join(arms)}. Benign: what is done rightly with Holdfast, without "
        "and with the attack. Intervals, sources and hashes are in the JSON file; where none of n was reached, draws say nothing, "
        "and the 95 % bound is 3 / n.",
        "Behind a +: how often Holdfast told the attacker's answer as the word of its source, vouched for by nobody. That is no "
        "proposal here, while a right answer that is told so counts as right: whoever takes such an answer for a proposal adds the "
        "two. Of campaigns it is not counted apart.",
        "## Attacks",
        table(HEADERS, rows(report, adaptive=False)),
        "## Attackers who know the defence",
        table(HEADERS, rows(report, adaptive=True)),
        "## What it costs",
        table(COSTS, costs(report)),
        "## What it must reach",
        "All targets hold." if not failing else f"{len(failing)} targets do not hold: {'; '.join(failing)}.",
        "What is marked as adaptive is no target: it says what an attacker reaches who knows the defence.",
        table(("", "target", "value", "required", ""), judged(report)),
        "## Setting",
        table(("what", "value"), [(name, str(value)) for name, value in report["settings"].items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def missed(report: Mapping[str, Any]) -> list[str]:
    """The names of the targets that do not hold."""
    return [check["name"] for check in report["checks"] if check["holds"] is False and not check["adaptive"]]


def _arms(report: Mapping[str, Any]) -> tuple[str, ...]:
    return next((tuple(entry["arms"]) for entry in (*report["attacks"].values(), *report["campaigns"].values())), ())


def table(headers: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """A table of Markdown; "" without rows."""
    lines = [[one.replace("|", "\\|") for one in row] for row in cells]
    if not lines:
        return ""
    every = [list(headers), ["---"] * len(headers), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in every)


# --- numbers ---


def _faced(faced: Faced, seed: int) -> dict[str, Any]:
    bad, every = zip(*faced.origins, strict=True) if faced.origins else ((0,), (0,))
    return {
        "levels": {str(level): _interval(values, seed) for level, values in faced.levels.items()},
        "share of what is recalled": _interval(faced.share, seed),
        "records recalled": list(faced.poison),
        "records that came in": list(faced.kept),
        "attacker's sources": _rounded(float(np.mean(bad))),
        "sources": _rounded(float(np.mean(every))),
        "right under attack": _interval(faced.right, seed),
        "told as the source's word": _interval(faced.retold, seed),
        **({"attacker's words told": _interval(faced.voiced, seed)} if faced.voiced else {}),
        "benign": {
            "recall": [_mean(faced.clean.recall), _mean(faced.attacked.recall)],
            "utility": [_mean(faced.clean.utility), _mean(faced.attacked.utility)],
            "recall_interval": _interval(faced.clean.recall, seed),
            "utility_interval": _interval(faced.clean.utility, seed),
            "questions": len(faced.clean.utility),
            "store": dict(faced.told),
            "written by the agent": dict(faced.wrote),
        },
        "shown to another user": faced.leaked,
    }


def _fought(fought: Fought, seed: int) -> dict[str, Any]:
    levels: dict[str, list[Any]] = {}
    settings: dict[str, dict[str, list[Any]]] = {}
    for level in LEVELS:
        told = [(trial.what, float(trial.reached[level])) for trial in fought.trials if level in trial.reached]
        if told:
            levels[str(level)] = _interval([value for _, value in told], seed)
        for what in dict.fromkeys(what for what, _ in told):
            some = [value for one, value in told if one == what]
            settings.setdefault(what, {})[str(level)] = [_rounded(float(np.mean(some))), len(some)]
    return {
        "levels": levels,
        "trials": len(fought.trials),
        "by setting": settings,
        "figures": {name: _rounded(value) for name, value in fought.figures.items()},
    }


def _falls(arms: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """By arm and level, how far success falls relative to undefended; None where that has none."""
    found: dict[str, dict[str, float | None]] = {}
    for arm, entry in arms.items():
        for level, (mean, *_) in entry["levels"].items():
            bare = arms.get(BARE, {}).get("levels", {}).get(level)
            if arm != BARE and bare is not None:
                found.setdefault(arm, {})[level] = _rounded(1 - mean / bare[0]) if bare[0] else None
    return found


def _interval(values: Sequence[float], seed: int) -> list[Any]:
    """[mean, low, high, n]; empty where there is no value."""
    return list(_bootstrapped(tuple(values), seed)) if len(values) else []


@functools.lru_cache(maxsize=4_096)
def _bootstrapped(values: tuple[float, ...], seed: int) -> tuple[float | None, float | None, float | None, int]:
    """Many attacks end alike, and what never differs needs no draws."""
    found = bootstrap(values, seed=seed, draws=DRAWS if len(set(values)) > 1 else 1)
    return _rounded(found.mean), _rounded(found.low), _rounded(found.high), len(values)


def _mean(values: Sequence[float]) -> float | None:
    return _rounded(float(np.mean(values))) if len(values) else None


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _over(values: Iterable[float | None]) -> str:
    some = [value for value in values if value is not None]
    return f"{100 * float(np.mean(some)):.1f}" if some else ""


def _held(became: Sequence[Mapping[str, int]]) -> str:
    """Of some writes, the share that did not come in."""
    every = sum(sum(one.values()) for one in became)
    return f"{100 * (1 - sum(one['kept'] for one in became) / every):.1f}" if every else ""


def _percent(some: Sequence[Any] | None) -> str:
    return "" if not some or some[0] is None else f"{100 * some[0]:.0f}"


# --- the plot ---


def _plot(report: Mapping[str, Any], path: Path) -> None:
    from holdfast.bench.plots import Bars, Panel, draw

    arms = _arms(report)
    panels: list[Panel] = []
    for title, entries in _groups(report).items():
        plain = [entry for entry in entries if not entry["adaptive"]]
        values = {arm: _success([entry["arms"][arm] for entry in plain]) for arm in arms}
        knowing = [_success([entry["arms"][OURS]]) for entry in entries if entry["adaptive"] and OURS in arms]
        if knowing:
            values[f"{OURS}, known"] = max(knowing)
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        if values:
            ours = tuple(name for name in values if name.startswith(OURS))
            panels.append(Bars(values, title=title, ours=ours, percent=True, limits=(0, 1)))
    for what, title in (("recall", "benign: record recalled"), ("utility", "benign: done rightly")):
        values = {
            f"{arm}{when}": float(np.mean(some))
            for arm in arms
            for at, when in enumerate(("", ", attacked"))
            if (
                some := [
                    value
                    for one in report["attacks"].values()
                    if (value := one["arms"][arm]["benign"][what][at]) is not None
                ]
            )
        }
        if values:
            ours = tuple(name for name in values if name.startswith(OURS))
            panels.append(Bars(values, title=title, ours=ours, percent=True, limits=(0, 1)))
    draw(
        path,
        panels,
        title="What an obedient agent does by an attacker's memory",
        subtitle="share of attempts, mean over an attack's plain forms (level proposed, or executed where that is not shown);\n"
        f"known: the worst for Holdfast of those made for its defence; {report['settings'].get('records', '')}, seed "
        f"{report['settings']['seed']}",
    )


def _groups(report: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Attacks that are the same but for the door or the setting, by what they are called together."""
    found: dict[str, list[Any]] = {}
    for entry in report["attacks"].values():
        found.setdefault(f"{entry['code']} {entry['family']}", []).append(entry)
    for name, entry in report["campaigns"].items():
        title = f"{entry['code']} {name.split(',')[0]}" if entry["code"].startswith("A") else "made for the defence"
        found.setdefault(title, []).append(entry)
    return found


def _success(some: Sequence[Mapping[str, Any]]) -> float:
    """The mean success of some attacks on an arm, NaN where none shows a level of acting."""
    levels = [one["levels"].get("proposed") or one["levels"].get("executed") for one in some]
    reached = [level[0] for level in levels if level]
    return float(np.mean(reached)) if reached else math.nan
