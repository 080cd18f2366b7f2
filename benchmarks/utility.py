"""What learnt utility costs an agent a step: one ``useful`` and one ``reward`` among its experiences, no model called.

    python -m benchmarks.utility ANSWER [--rows 10000] [--data FOLDER] [--work FOLDER]

A step is measured with a store that survives power loss and with one that survives the death of the process, once each query.
Beside each stands a bare synced commit, the least that a reward can cost which survives power loss, and the embedding of the task
by the offline embedder, where it is installed: the vectors here are given. Times are in milliseconds, those in quiet moments apart.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import Data, Lookup, generate
from benchmarks.engines import holdfast as engine
from benchmarks.limits import SyncedCommit, pace
from benchmarks.worker import Pass, probe, told
from holdfast import Cube, Memory, __version__
from holdfast.cube import Channel, Kind, Origin
from holdfast.encode.base import Embedder
from holdfast.encode.embedders import open_embedder
from holdfast.errors import HoldfastError
from holdfast.retrieve.utility import Utility

USER = "agent"
BATCH = 5_000
WARM = 20
BY = Utility(least=0.1)
BYTES = 1_000
"""About what the journal and the utilities of one reward of five memories take."""


def load(data: Data, folder: Path) -> None:
    """A store with all rows as experiences of one agent."""
    with Memory(folder, user=USER, embedder=engine.Given(Lookup(data)), encoders=(), background=False) as memory:
        scope, origin = memory.scope(), Origin(Channel.ASSISTANT, author="agent")
        for batch in data.batches(BATCH):
            memory.add([Cube(scope, text, kind=Kind.EXPERIENCE, origin=origin) for text in batch.texts])
        memory.flush()


def steps(store: Path, data: Data, durability: str, disk: SyncedCommit, seed: int) -> dict[str, Any]:
    """Each query once, rewarded by 1 or -1 at random, with a bare synced commit after each."""
    random = np.random.default_rng(seed)
    queries = data.queries()
    given = engine.Given(Lookup(data, queries))
    passes = {name: Pass() for name in ("useful", "reward", "step", "synced commit")}
    recalled = moved = 0
    with Memory(store, user=USER, embedder=given, encoders=(), background=False, durability=durability) as memory:
        for at, query in enumerate(queries):
            if at == WARM:
                passes = {name: Pass(probes=[probe()]) for name in passes}
            start = time.perf_counter()
            found = memory.useful(query.text, by=BY, kinds=(Kind.EXPERIENCE,))
            between = time.perf_counter()
            done = memory.reward(found.token, float(random.choice((-1, 1))))
            end = time.perf_counter()
            synced = disk.seconds(random.bytes(BYTES))
            quiet = probe()
            for one, took in zip(passes.values(), (between - start, end - between, end - start, synced), strict=True):
                one.times.append(took)
                one.probes.append(quiet)
            recalled, moved = recalled + len(found.hits), moved + len(done.moved)
    return told(passes) | {"recalled": recalled, "moved": moved}


def embedding(embedder: Embedder, data: Data) -> dict[str, Any]:
    """What it takes to embed each query."""
    one = Pass(probes=[probe()])
    for query in data.queries():
        start = time.perf_counter()
        embedder.embed([query.text])
        one.times.append(time.perf_counter() - start)
        one.probes.append(probe())
    return told({"embedding": one})


def compared(full: dict[str, Any], embedded: dict[str, Any] | None) -> dict[str, float]:
    """Ratios of medians in quiet moments to a bare synced commit, and a step with the embedding of its task, in milliseconds."""
    step, reward, commit = (_median(full[name]) for name in ("step", "reward", "synced commit"))
    found = {"reward by commit": reward / commit, "step by commit": step / commit, "step less commit": step - commit}
    if embedded is not None:
        found["step with embedding"] = step + _median(embedded["embedding"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.utility", description=__doc__.partition("\n")[0])
    parser.add_argument("answer", type=Path)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--data", type=Path, help="keep the generated data here")
    parser.add_argument("--work", type=Path, help="a folder on the disk to measure")
    options = parser.parse_args()
    engine.prepare()
    embedder = _offline()
    with tempfile.TemporaryDirectory(dir=options.work) as temporary:
        work = Path(temporary)
        data = generate((options.data or work) / f"rows-{options.rows}-1", options.rows, 1, options.seed)
        load(data, work / "store")
        disk = SyncedCommit(work / "limit")
        answer: dict[str, Any] = {
            "version": __version__,
            "rows": options.rows,
            "settings": {"pool": BY.pool, "k": BY.k, "embedder": embedder.model if embedder is not None else None},
            "pace_ms": [pace()],
            "steps": {name: steps(work / "store", data, name, disk, options.seed) for name in ("full", "normal")},
            "embedding": embedding(embedder, data) if embedder is not None else None,
        }
        answer["compared"] = compared(answer["steps"]["full"], answer["embedding"])
        disk.close()
        answer["pace_ms"].append(pace())
        answer["load_average"] = os.getloadavg()
    options.answer.write_text(json.dumps(answer, indent=1) + "\n")
    for durability, some in answer["steps"].items():
        for name in ("useful", "reward", "step", "synced commit"):
            print(durability, name, round(_median(some[name]), 3))
    print({name: round(value, 3) for name, value in answer["compared"].items()})


def _offline() -> Embedder | None:
    try:
        return open_embedder("minilm")
    except HoldfastError:
        return None


def _median(one: dict[str, Any]) -> float:
    """In quiet moments, where there were any."""
    return float(one["quiet"].get("p50", one["p50"]))


if __name__ == "__main__":
    main()
