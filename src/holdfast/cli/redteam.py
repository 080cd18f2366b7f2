"""The command that attacks: ``holdfast redteam``.

The attacks are programs that this command runs, not parts that it is built on: they are imported by name, when asked for.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.cli.options import embedder
from holdfast.cli.screen import Screen, count
from holdfast.errors import InputError


def register(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands(
        "redteam",
        redteam,
        "attack Holdfast, an undefended memory and one filtered by words; exits 0 only where every target holds",
    )
    parser.add_argument("--data", metavar="FOLDER", help="folder of data sets (default: the packaged sample)")
    parser.add_argument(
        "--attack",
        action="append",
        default=[],
        metavar="NAME",
        help="only this one, for example graft; may be repeated",
    )
    parser.add_argument(
        "--arm",
        action="append",
        default=[],
        metavar="NAME",
        help="only undefended, filtered or holdfast; may be repeated",
    )
    parser.add_argument(
        "--recipe",
        action="append",
        default=[],
        metavar="NAME",
        help="attack an agent that learns by this recipe, without the guard and with it; may be repeated, all: every one",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--out", metavar="FOLDER", help="write the report and its plot here")


def redteam(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast redteam``; 0 only where every target that can be judged holds."""
    if args.seed < 0:
        raise InputError("--seed takes a whole number from 0 on")
    out = None if args.out is None else Path(args.out).expanduser()
    if out is not None and out.is_file():
        raise InputError(f"{out} is a file; --out takes a folder")
    data = None if args.data is None else Path(args.data).expanduser()
    with screen.bar(None, "redteam", unit="") as bar:

        def tick(what: str, done: int) -> None:
            bar.set_description_str(what, refresh=False)
            bar.update(done)

        given = {
            "attacks": args.attack,
            "arms": args.arm,
            "seed": args.seed,
            "embedder": embedder(args.embedder),
            "tick": tick,
        }
        recipes: list[str] = args.recipe
        several = len(set(recipes)) > 1 or "all" in recipes
        words = importlib.import_module(f"holdfast.bench.redteam.{'sweep' if several else 'report'}")
        report: dict[str, Any]
        if several:
            report = words.play(recipes, data, **given)
        else:
            catalogue = importlib.import_module("holdfast.bench.redteam.catalogue")
            report = catalogue.run(data, recipe=next(iter(recipes), None), **given)
    written = words.write(report, out) if out is not None else []
    if screen.json:
        screen.data(report)
    elif several:
        _print_recipes(screen, report, words, written)
    else:
        _print(screen, report, words, written)
    return 0 if report["holds"] else 1


def _print(screen: Screen, report: Mapping[str, Any], words: Any, written: list[Path]) -> None:
    arms = report["settings"]["arms"]
    screen.say(
        f"At each level, the share of attempts that reached it, in percent: {'/'.join(arms)}. Benign: what Holdfast does "
        "rightly, without and with the attack. Behind a +: the attacker's answer, told as the word of its source."
    )
    for title, adaptive in (("Attacks", False), ("Attackers who know the defence", True)):
        if rows := words.rows(report, adaptive=adaptive):
            screen.heading(title)
            screen.table(rows, words.HEADERS, wide=1)
    if cost := words.costs(report):
        screen.heading("What it costs")
        screen.table(list(zip(words.COSTS, *cost, strict=True))[1:], ("in percent", *(row[0] for row in cost)))
    screen.heading("What it must reach")
    if not report["checks"]:
        screen.line("not judged: targets are of the arm holdfast, which was not played")
    screen.table(words.judged(report), ("", "target", "value", "required", ""), wide=1)
    screen.line()
    _close(screen, report, {"": words.missed(report)} if report["checks"] else {}, written)


def _print_recipes(screen: Screen, report: Mapping[str, Any], words: Any, written: list[Path]) -> None:
    screen.say(
        "Of each door the share of questions at which the agent would act by the attacker's record, in percent, bare memory / "
        "guarded one; benign: what is done rightly under attack. 0 in the bare memory says nothing of the guard."
    )
    screen.heading("Recipes")
    screen.table(words.matrix(report), words.HEADERS)
    screen.heading("Attack by attack")
    screen.table(words.rows(report), words.ROWS, wide=1)
    screen.line()
    _close(screen, report, dict.fromkeys(report["recipes"], ()) | report["missed"], written)


def _close(
    screen: Screen, report: Mapping[str, Any], judged: Mapping[str, Sequence[str]], written: Sequence[Path]
) -> None:
    """The targets that do not hold, of each that was judged, and what was played."""
    for name, failing in judged.items():
        if failing:
            whose = f"{name}: " if name else ""
            screen.say(f"{whose}{count(len(failing), 'target does', 'targets do')} not hold:", style="bold")
            for target in failing:
                screen.say(target, indent=2, hang=2)
    if judged and not any(judged.values()):
        screen.say("all targets hold", style="bold")
    settings = report["settings"]
    screen.line()
    screen.say(
        f"{settings['records']}, embedder {settings['embedder'] or 'none'}, seed {settings['seed']}, k {settings['k']}"
    )
    for file in written:
        screen.line(f"written: {file}")
