"""The command that searches for the memory of experience that suits your tasks: ``holdfast evolve``."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.cli.options import chat, chat_options, embedder
from holdfast.cli.screen import Screen
from holdfast.errors import InputError
from holdfast.opening import choose


def register(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands(
        "evolve", evolve, "search for the recipe that learns best from your tasks, and measure it on others"
    )
    parser.add_argument(
        "--tasks",
        required=True,
        metavar="FILE|MODULE:CLASS",
        help='a file of lines {"task": ..., "answer": ...}, or a Python class that does its own tasks',
    )
    parser.add_argument(
        "--recipe",
        action="append",
        default=[],
        metavar="NAME",
        help="begin with this one; may be repeated (default: cases)",
    )
    chat_options(parser, "does the tasks and writes for the recipes", required=False)
    parser.add_argument("--rounds", type=int, default=8, metavar="N", help="default 8")
    parser.add_argument(
        "--batch", type=int, default=60, metavar="N", help="tasks a round, a third of them carried over (default 60)"
    )
    parser.add_argument(
        "--children", type=int, default=4, metavar="N", help="of each of two parents, a round (default 4)"
    )
    parser.add_argument("--random", action="store_true", help="change anything, not what is to blame: the control")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument(
        "--out", metavar="FOLDER", help="write winner, runs and plot here; a killed search goes on here"
    )


def evolve(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast evolve``."""
    arena, evolution, files, mutation, run = (
        importlib.import_module(f"holdfast.bench.{name}")
        for name in ("arena", "evolution", "task_files", "mutation", "evolve_run")
    )
    book = importlib.import_module("holdfast.recipes.book")
    out = None if args.out is None else Path(args.out).expanduser()
    if out is not None and out.is_file():
        raise InputError(f"{out} is a file; --out takes a folder")
    first = [book.opened(name) for name in args.recipe or ["cases"]]
    given = files.brought(args.tasks, chat(args))
    settings = evolution.Settings(
        rounds=args.rounds,
        children=args.children,
        batch=args.batch,
        carried=args.batch // 3,
        guided=not args.random,
        seed=args.seed,
    )
    chosen, degraded = choose(embedder(args.embedder), [])
    for line in degraded:
        screen.note(line)
    # Without a model, what has something written by one cannot be tried.
    offered = [one for one in book.RECIPES.values() if given.model is not None or not one.writes]
    with screen.bar(None, "evolve", unit=" runs") as bar:

        def tick(what: str, done: int, most: int) -> None:
            bar.total = most
            bar.set_description_str(what, refresh=False)
            bar.update(done - bar.n)

        report = run.search(
            arena.Arena(given.agent, given.model, chosen),
            given.tasks,
            first,
            mutation.Menu.of(offered),
            settings,
            out=out,
            progress=tick,
        )
    plotted = run.draw(report, out) if out is not None else None
    if screen.json:
        screen.data(report)
    else:
        _print(screen, report, out, plotted)
    return 0


def _print(screen: Screen, report: Mapping[str, Any], out: Path | None, plotted: Path | None) -> None:
    screen.heading(f"On {report['sealed tasks']} tasks that the search has not seen")
    rows = [
        (one["recipe"], f"{100 * one['rate']:.1f} %", one["tokens"], one["calls"], f"{one['seconds']:.1f} s")
        for one in report["sealed"]
    ]
    screen.table(rows, ("recipe", "success", "tokens told", "model calls", "memory's time"))
    screen.line()
    for name, gain in report["gains of the winner"].items():
        low, high = gain["interval"]
        screen.say(
            f"The winner does {100 * gain['gain']:+.1f} points over {name} ({100 * low:+.1f} to {100 * high:+.1f})."
        )
    screen.say(f"The winner, after {report['runs']} runs: {report['winner']['about'] or report['winner']['name']}")
    if out is not None:
        screen.say(f"Use it with Memory(..., recipe={str(out / 'winner.json')!r}). Every run stands in {out}.")
    if plotted is not None:
        screen.say(f"The front is drawn in {plotted}.")
