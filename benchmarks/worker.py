"""One engine, one step, in a process of its own: what ``run`` starts, with the engine's own interpreter.

    python -m benchmarks.worker STEP ENGINE DATA STORE ANSWER [--seconds S]

Writes its numbers as JSON to ANSWER. Times are in milliseconds unless the name says otherwise.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.data import Data, K, Query
from benchmarks.limits import SyncedCommit

WARM_UP = 20
ADDS = 300
KILLED_AFTER = 100
COLD_SCOPES = 1_000
PASS_SECONDS = 40.0
"""A pass of searches ends after this long, with the queries it got through."""
PROBE_STEPS = 1_500
FASTEST, SLACK = 2.0, 1.2
"""Quiet is a moment whose probe takes at most SLACK times what the fastest FASTEST percent of the step's probes take."""

Answer = dict[str, Any]


def load(module: ModuleType, data: Data, store: Path, seconds: float) -> Answer:
    """Bulk import of every row, then the index; stops where the time is up."""
    engine = module.Engine(store, data, ())
    start = time.perf_counter()
    rows = 0
    for batch in data.batches(getattr(module, "BATCH", 10_000)):
        engine.load(batch)
        rows = batch.numbers.stop
        if time.perf_counter() - start > seconds:
            break
    stored = time.perf_counter() - start
    engine.finish()
    done = time.perf_counter() - start
    engine.close()
    return {
        "rows": rows,
        "complete": rows == data.rows,
        "stored_s": stored,
        "searchable_s": done,
        "stored_rows_per_s": rows / stored,
        "searchable_rows_per_s": rows / done,
        "disk_mb": disk_bytes(store) / 1e6,
        "load_rss_mb": resident_mb(),
    }


def serve(module: ModuleType, data: Data, store: Path, _: float) -> Answer:
    """A fresh process opens the store, from a cold page cache, and answers; then the memory it takes."""
    queries = data.queries()
    base = resident_mb()
    evict(store)
    start = time.perf_counter()
    engine = module.Engine(store, data, queries)
    opened = time.perf_counter()
    ask(engine, data, queries[0], module.MODES[0])
    answer: Answer = {
        "open_ms": 1e3 * (opened - start),
        "open_to_first_hit_ms": 1e3 * (time.perf_counter() - start),
        "rss_before_open_mb": base,
    }
    passes: dict[str, Pass] = {}
    for mode in module.MODES:
        if data.scopes == 1:
            timed(engine, data, queries[:WARM_UP], mode)
            passes[f"search_{mode}"] = timed(engine, data, queries[WARM_UP:] or queries, mode)
        else:
            passes |= scoped(engine, data, queries, mode, first=mode == module.MODES[0])
    answer["rss_mb"] = resident_mb()
    answer |= told(passes)
    engine.close()
    return answer


def scoped(engine: Any, data: Data, queries: Sequence[Query], mode: str, *, first: bool) -> dict[str, Pass]:
    """Searches in scopes never touched before in this process, then in the same ones again."""
    by_scope = {query.scope: query for query in queries[1:]}
    others = np.random.default_rng(data.seed).permutation(data.scopes)[:COLD_SCOPES].tolist()
    # Any vector will do to touch a scope; only those with a query of their own count for the recall.
    touched = [
        by_scope.get(scope) or replace(queries[scope % len(queries)], scope=scope, truth=frozenset())
        for scope in others
    ]
    touched += [query for scope, query in by_scope.items() if scope not in set(others)]
    passes: dict[str, Pass] = {}
    if first:
        passes[f"search_{mode}_cold"] = timed(engine, data, touched, mode)
    warm = [touched[i] for i in np.random.default_rng(data.seed + 1).permutation(len(touched))]
    passes[f"search_{mode}"] = timed(engine, data, warm, mode)
    return passes


def add(module: ModuleType, data: Data, store: Path, _: float) -> Answer:
    """Single durable adds, each beside a synced commit of the same bytes on the same disk; then a burst of them."""
    engine = module.Engine(store, data, data.queries())
    extra = data.extra()
    limit = SyncedCommit(store.parent / "limit")
    limits, adds, settled, visible = [], [], [], 0
    rows = list(zip(extra.numbers, extra.scopes.tolist(), extra.texts, extra.vectors, strict=True))
    start = time.perf_counter()
    for number, scope, text, vector in rows[:ADDS]:
        limits.append(limit.seconds(text.encode() + vector.tobytes()))
        before = time.perf_counter()
        engine.add(number, scope, text, vector)
        after = time.perf_counter()
        found = engine.search(text, vector, None if data.scopes == 1 else scope, K, module.MODES[0])
        visible += number in list(found)
        again = time.perf_counter()
        engine.settle()
        adds.append(after - before)
        settled.append(after - before + time.perf_counter() - again)
        if time.perf_counter() - start > PASS_SECONDS and len(adds) >= 30:
            break
    burst, start = [], time.perf_counter()
    for number, scope, text, vector in rows[ADDS : 2 * ADDS]:
        before = time.perf_counter()
        engine.add(number, scope, text, vector)
        burst.append(time.perf_counter() - before)
        if time.perf_counter() - start > PASS_SECONDS:
            break
    engine.close()
    limit.close()
    return {
        "add": spread(adds),
        "add_limit": spread(limits),
        "add_and_settled": spread(settled),
        "add_burst": spread(burst),
        "visible_at_once": visible / len(adds),
    }


def kill(module: ModuleType, data: Data, store: Path, _: float) -> Answer:
    """Kill a process amid its adds with SIGKILL; count what it had acknowledged and is gone."""
    command = [sys.executable, "-m", "benchmarks.worker", "victim", module.__name__.rpartition(".")[2]]
    victim = subprocess.Popen([*command, str(data.folder), str(store), os.devnull], stdout=subprocess.PIPE, text=True)
    assert victim.stdout is not None
    acknowledged = []
    for line in victim.stdout:
        if line.startswith("added "):
            acknowledged.append(int(line.split()[1]))
            if len(acknowledged) == KILLED_AFTER:
                victim.kill()
                break
    victim.wait()
    extra = data.extra()
    engine = module.Engine(store, data, data.queries())
    engine.settle()
    missing = 0
    for number in acknowledged:
        row = number - data.rows
        scope = None if data.scopes == 1 else int(extra.scopes[row])
        missing += number not in list(engine.search(extra.texts[row], extra.vectors[row], scope, K, module.MODES[0]))
    engine.close()
    return {"acknowledged": len(acknowledged), "missing_after_kill": missing}


def victim(module: ModuleType, data: Data, store: Path, _: float) -> Answer:
    """Add rows and say so, until killed."""
    engine = module.Engine(store, data, data.queries())
    extra = data.extra()
    rows = zip(extra.numbers, extra.scopes.tolist(), extra.texts, extra.vectors, strict=True)
    for number, scope, text, vector in islice(rows, 2 * ADDS, None):
        engine.add(number, scope, text, vector)
        print("added", number, flush=True)
    return {}


# --- measuring ---


def ask(engine: Any, data: Data, query: Query, mode: str) -> Sequence[int]:
    scope = None if data.scopes == 1 else query.scope
    found: Sequence[int] = engine.search(query.text, query.vector, scope, K, mode)
    return found


@dataclass
class Pass:
    """Single searches, in seconds, and the share of the exact ten nearest that they found; a probe before and after each."""

    times: list[float] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)
    probes: list[float] = field(default_factory=list)


def timed(engine: Any, data: Data, queries: Sequence[Query], mode: str) -> Pass:
    """Search for each query once."""
    done = Pass(probes=[probe()])
    start = time.perf_counter()
    for query in queries:
        before = time.perf_counter()
        found = ask(engine, data, query, mode)
        done.times.append(time.perf_counter() - before)
        done.probes.append(probe())
        if query.truth:
            done.recalls.append(len(query.truth.intersection(found)) / len(query.truth))
        if time.perf_counter() - start > PASS_SECONDS and len(done.times) >= 20:
            break
    return done


def probe() -> float:
    """How fast the machine is just now: the seconds of a fixed loop that leaves the caches alone."""
    start = time.perf_counter()
    for _ in range(PROBE_STEPS):
        pass
    return time.perf_counter() - start


def told(passes: dict[str, Pass]) -> Answer:
    """The passes of a step: of all their searches, and of those in quiet moments, whatever these took themselves."""
    limit = SLACK * float(np.percentile([took for done in passes.values() for took in done.probes], FASTEST))
    answer: Answer = {}
    for name, done in passes.items():
        quiet = [
            took
            for took, before, after in zip(done.times, done.probes, done.probes[1:], strict=False)
            if max(before, after) <= limit
        ]
        answer[name] = spread(done.times) | {
            "recall": float(np.mean(done.recalls)) if done.recalls else None,
            "quiet": spread(quiet) if quiet else {"count": 0},
        }
    return answer


def spread(seconds: Sequence[float]) -> Answer:
    """Percentiles in milliseconds."""
    p50, p90, p99 = np.percentile(np.asarray(seconds) * 1e3, [50, 90, 99]).tolist()
    return {"p50": p50, "p90": p90, "p99": p99, "count": len(seconds)}


def resident_mb() -> float:
    """What this process holds in memory now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1e3
    return float("nan")


def disk_bytes(folder: Path) -> int:
    """What a store takes on disk, in allocated blocks."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def evict(folder: Path) -> None:
    """Ask the kernel to drop a store's pages, so that opening it reads the disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


STEPS: dict[str, Callable[[ModuleType, Data, Path, float], Answer]] = {
    step.__name__: step for step in (load, serve, add, kill, victim)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=sorted(STEPS))
    parser.add_argument("engine")
    parser.add_argument("data", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("answer", type=Path)
    parser.add_argument("--seconds", type=float, default=1e9)
    options = parser.parse_args()
    start = time.perf_counter()
    module = importlib.import_module(f"benchmarks.engines.{options.engine}")
    imported = time.perf_counter() - start
    getattr(module, "prepare", lambda: None)()
    before = os.getloadavg()[0]
    answer = STEPS[options.step](module, Data(options.data), options.store, options.seconds)
    about = {"version": module.VERSION, "settings": module.SETTINGS, "import_ms": 1e3 * imported}
    load_average = {"before": before, "after": os.getloadavg()[0]}
    if options.answer != Path(os.devnull):
        options.answer.write_text(json.dumps(answer | {"about": about, "load_average": load_average}))


if __name__ == "__main__":
    main()
