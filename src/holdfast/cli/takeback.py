"""``holdfast demo takeback``: facts in three forms, one source taken back, and the model asked what is left of it.

It needs the extra ``holdfast[torch]``, and is imported by name, so that no other command does.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from pathlib import Path
from typing import Any

from holdfast.cli.screen import Screen
from holdfast.errors import InputError


def takeback(args: argparse.Namespace, screen: Screen) -> int:
    """Run it; 0 only where the model tells no more of what was forgotten than one that never saw it, but for noise."""
    program = importlib.import_module("holdfast.bench.takeback")
    plot = None if args.plot is None else Path(args.plot).expanduser()
    if plot is not None and plot.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"--plot takes a file that ends with .png, .svg or .pdf, not {plot.name}")
    began = time.perf_counter()
    if not screen.json:
        screen.say("Take back: what a source taught goes from text, from caches and from weights", style="bold")
        screen.line()
        screen.say(
            "A small language model is trained here on a world of facts. Two sources then tell of people whom it has never read "
            "of: Ana herself, and a customer system. What they tell is kept as text, read into KV caches, and taught to the "
            "model's weights. Then the customer system turns out to have been taken over."
        )
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-takeback-") as folder,
        screen.bar(None, "takeback", unit="") as bar,
    ):

        def progress(what: str, done: int, of: int) -> None:
            bar.set_description(what)
            bar.total, bar.n = of, done
            bar.refresh()

        found = program.take_back(Path(folder) / "demo.holdfast", seed=args.seed, progress=progress)
        if plot is not None:
            program.plot(found, plot)
    took = time.perf_counter() - began
    if screen.json:
        screen.data({**found.to_dict(), "seconds": round(took, 1)})
    else:
        _tell(screen, found, program, took, plot)
    return 0 if found.holds else 1


def _tell(screen: Screen, found: Any, program: Any, took: float, plot: Path | None) -> None:
    screen.heading("1  Taught")
    taught = ", ".join(f"{count} of {source}" for source, count in found.taught.items())
    screen.say(
        f"The model tells {found.recall:.0%} of its world. Facts that are in its weights now: {taught}. {len(found.refused)} did "
        f"not pass and stay text"
        + (f" (for one: {found.refused[0]})" if found.refused else "")
        + f". {found.states[0]} KV caches "
        "lie on disk."
    )
    screen.heading("2  Forgotten")
    screen.say(f"$ holdfast forget --source {program.FALSE} --reason 'the account was taken over'")
    erased, derived = len(found.receipt["erased"]), len(found.receipt["derived"])
    screen.say(
        f"{erased} memories went: {erased - derived} that the source had told, and {derived} that were made of them in other "
        f"forms. {found.states[1]} KV caches are left."
    )
    screen.heading("3  Asked")
    screen.table(
        [
            (one.prompt, one.source, f"{one.before} ({one.form})", f"{one.after} ({one.form_after})", one.never)
            for one in found.told
        ],
        ("asked", "source", "before", "after", "had it never seen it"),
    )
    screen.line()
    asked = found.measured
    screen.table(
        [
            (name, *(f"{asked[f'{kind} {when}']:.0%}" for when in ("before", "after", "never")))
            for kind, name in (
                ("direct", "told in the words it was taught in"),
                ("rephrased", "told in other words"),
                ("sampled", "told in other contexts"),
                ("chance", "chance that a sampled answer is it"),
            )
            if f"{kind} before" in asked
        ],
        ("what was forgotten", "before", "after", "never seen"),
    )
    screen.line()
    if "others before" in asked:
        screen.say(
            f"Of the other source's facts it tells {asked['others after']:.0%}, and told {asked['others before']:.0%}."
        )
    if "membership after" in asked:
        screen.say(
            "Told from answers that nobody gave, by how likely the model holds them, with an area under the curve of "
            f"{asked['membership after']:.2f}; by a model that never saw them, {asked['membership never']:.2f}."
        )
    screen.say(
        "With everything taken off it, the model computes what it did before, to the last bit."
        if found.identical
        else "With everything taken off it, the model does not compute what it did before."
    )
    screen.line()
    screen.say(f"It took {took:.0f} s." + (f" The plot is {plot}." if plot is not None else ""))
