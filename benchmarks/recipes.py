"""What each recipe costs an agent among its experiences, no model called: guidance before, guidance at a step, taking a run in.

    python -m benchmarks.recipes ANSWER [--runs 10000] [--records N] [--recipe NAME ...] [--work FOLDER]

A recipe keeps between one and eight records of a run: ``--records`` stops filling a store once it holds that many. A step's
share of a run is all that a run of four steps costs, the guidance at each of them too, by four.

The model that writes is ``bench.scribe``, whose time is taken off, as is the time of the embedder, which hashes words. Beside
taking in, which is durable before it returns, stand a bare synced commit and how many transactions it made. Milliseconds; those
of quiet moments apart.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.limits import SyncedCommit, pace
from benchmarks.worker import Pass, probe, told
from holdfast import Memory, __version__
from holdfast.bench.costs import Clock, Timed, Writer, reward, runs
from holdfast.encode.base import Vectors
from holdfast.recipes.book import RECIPES
from holdfast.retrieve import loops

USER, AGENT = "user", "agent"
FLUSHED = 50
"""Runs after which vectors are made, while a store is filled."""
WARM, MEASURED = 5, 40
STEPS = 4
"""Of a run that ``bench.costs`` draws."""
SHARE = "a step's share"
BYTES = 1_000


class Hashed:
    """An embedder: the words of a text, each at a place of its own."""

    model, dimension = "hashed/1", 384

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (len(texts), 384)."""
        found = np.full((len(texts), self.dimension), 1e-3, np.float32)
        for row, text in zip(found, texts, strict=True):
            for word in text.split():
                row[sum(map(ord, word)) * 31 % self.dimension] += 1
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def measured(name: str, folder: Path, count: int, most: int, disk: SyncedCommit, seed: int) -> dict[str, Any]:
    """One recipe among ``count`` runs, or fewer once there are ``most`` records."""
    clock = Clock()
    made = {
        "embedder": Timed(Hashed(), clock),
        "chat": Writer(clock),
        "recipe": name,
        "encoders": (),
        "background": False,
    }
    start = time.perf_counter()
    with Memory(folder, user=USER, agent=AGENT, durability="normal", **made) as memory:
        for number, run in enumerate(runs(count, seed), 1):
            memory.take_in(run, reward(number))
            if number % FLUSHED == 0:
                memory.flush()
                if memory.status()["memories"] >= most:
                    break
        memory.flush()
    filled = time.perf_counter() - start
    passes = {what: Pass() for what in ("begin", "step", "take in", "synced commit")}
    commits = 0
    with Memory(folder, user=USER, agent=AGENT, **made) as memory:
        records = memory.status()["memories"]
        for at, run in enumerate(runs(WARM + MEASURED, seed + 1)):
            if at == WARM:
                passes = {what: Pass(probes=[probe()]) for what in passes}
                commits = 0
            before = memory.store.head()[0]
            for what, call in (
                ("begin", lambda run=run: memory.provide(run.task)),
                ("step", lambda run=run: memory.provide(run.task, "step", context=f"{run.task} {run.answer}")),
                ("take in", lambda run=run: memory.take_in(run, 1.0)),
            ):
                off, begun = clock.seconds, time.perf_counter()
                call()
                passes[what].times.append(time.perf_counter() - begun - (clock.seconds - off))
                passes[what].probes.append(probe())
            commits += len({event.txn for event in memory.store.events(before)})
            passes["synced commit"].times.append(disk.seconds(os.urandom(BYTES)))
            passes["synced commit"].probes.append(probe())
    times = told(passes)
    share = (_median(times["begin"]) + STEPS * _median(times["step"]) + _median(times["take in"])) / STEPS
    more = {"runs": number, "records": records, "commits a run": commits / MEASURED, "fill_s": filled}
    return times | {SHARE: share} | more


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__.partition("\n")[0])
    parser.add_argument("answer", type=Path)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument(
        "--records", type=int, help="fill a store until it holds so many, if it does before its runs end"
    )
    parser.add_argument("--recipe", action="append", choices=sorted(RECIPES), help="only these")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--work", type=Path, help="a folder on the disk to measure")
    options = parser.parse_args()
    loops.compiled()  # which would go on in the background while the first recipe is measured
    asked = {"version": __version__, "runs": options.runs, "seed": options.seed}
    asked |= {} if options.records is None else {"records": options.records}
    answer: dict[str, Any] = asked | {"pace_ms": [pace()], "recipes": {}}
    if options.answer.exists():  # goes on where it was cut
        kept = json.loads(options.answer.read_text())
        answer = kept if asked.items() <= kept.items() else answer
    for name in options.recipe or RECIPES:
        if name in answer["recipes"] and not options.recipe:
            continue
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            disk = SyncedCommit(Path(folder) / "limit")
            found = measured(
                name, Path(folder) / "store", options.runs, options.records or sys.maxsize, disk, options.seed
            )
            disk.close()
        answer["recipes"][name] = found | {"load_average": os.getloadavg()}
        answer["pace_ms"] = [*answer["pace_ms"][:1], pace()]
        options.answer.write_text(json.dumps(answer, indent=1) + "\n")
        times = " ".join(f"{what} {_median(found[what]):.2f}" for what in ("begin", "step", "take in", "synced commit"))
        size = f"{found['commits a run']:.1f} commits a run, {found['records']} records of {found['runs']} runs"
        print(f"{name}: {found[SHARE]:.2f} a step; {times}; {size}", flush=True)


def _median(one: dict[str, Any]) -> float:
    """In quiet moments, where there were any."""
    return float(one["quiet"].get("p50", one["p50"]))


if __name__ == "__main__":
    main()
