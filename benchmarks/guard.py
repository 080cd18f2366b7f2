"""What the guard costs: searches and adds with it and without it, turn about in one process on one store.

    python -m benchmarks.guard ANSWER [--rows 100000] [--data FOLDER] [--work FOLDER]

Three users have the same texts and vectors: in ``benign`` a person said all of them, in ``spread`` half are from a thousand
sites, in ``crowded`` half are from one site, so that it often has more than its share of the ten best. Times are in milliseconds.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.data import Data, K, Lookup, generate
from benchmarks.engines import holdfast as engine
from benchmarks.limits import pace
from holdfast import Cube, Memory, __version__
from holdfast.cube import Channel, Origin
from holdfast.guard.voices import heard

STORES = ("benign", "spread", "crowded")
SITES = 1_000
BATCH = 5_000
ADDS = 300
ARMS = {"guarded": "default", "unguarded": None}


def origin(store: str, number: int) -> Origin:
    """Where a row of a store comes from."""
    if store == "benign" or number % 2:
        return Origin(author="user", trust=1.0)
    site = number // 2 % SITES if store == "spread" else 0
    return Origin(
        Channel.WEB, reference=f"https://site{site}.example/{number}" if site else "https://crowd.example", trust=0.4
    )


def load(data: Data, folder: Path) -> None:
    """All three users; unguarded, for the guard's rulings on rows in bulk are not what is measured."""
    with Memory(folder, embedder=engine.Given(Lookup(data)), encoders=(), guard=None, background=False) as memory:
        for store in STORES:
            scope = memory.scope(user=store)
            for batch in data.batches(BATCH):
                rows = zip(batch.numbers, batch.texts, strict=True)
                memory.add([Cube(scope, text, data={"n": n}, origin=origin(store, n)) for n, text in rows], user=store)
        memory.flush()


def searches(arms: dict[str, Memory], data: Data, store: str, rounds: int) -> dict[str, Any]:
    """Each query by both arms, each arm first every other time."""
    queries = data.queries()
    for memory in arms.values():
        for query in queries[:20]:
            memory.search(query.text, k=K, user=store)
    times: dict[str, list[float]] = {name: [] for name in arms}
    full = 0
    for turn in range(rounds):
        for at, query in enumerate(queries):
            order = list(arms) if (at + turn) % 2 else list(arms)[::-1]
            for name in order:
                start = time.perf_counter()
                hits = arms[name].search(query.text, k=K, user=store)
                times[name].append(1e3 * (time.perf_counter() - start))
                full += name == "unguarded" and len(heard(hits, K, fill=False)) < len(hits)
    return compared(times) | {"crowded_share": full / len(times["unguarded"])}


def adds(arms: dict[str, Memory], texts: Iterator[str], make: Callable[[int], Origin], user: str) -> dict[str, Any]:
    """Single durable adds by both arms, turn about."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    for at in range(ADDS):
        order = list(arms) if at % 2 else list(arms)[::-1]
        for name in order:
            memory = arms[name]
            cube = Cube(memory.scope(user=user), next(texts), data={"add": f"{name} {at}"}, origin=make(at))
            start = time.perf_counter()
            memory.add(cube, user=user)
            times[name].append(1e3 * (time.perf_counter() - start))
    return compared(times)


def compared(times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians of both arms, and how many times as long the guarded one took: of the medians, and of each pair."""
    guarded, plain = times["guarded"], times["unguarded"]
    medians = {f"{name}_p50": statistics.median(some) for name, some in times.items()}
    p90 = {f"{name}_p90": statistics.quantiles(some, n=10)[-1] for name, some in times.items()}
    return {
        **medians,
        **p90,
        "ratio": medians["guarded_p50"] / medians["unguarded_p50"],
        "mean_ratio": statistics.fmean(guarded) / statistics.fmean(plain),
        "paired_ratio": statistics.median(a / b for a, b in zip(guarded, plain, strict=True)),
        "count": len(plain),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__.partition("\n")[0])
    parser.add_argument("answer", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--fast", action="store_true", help="with the extra 'fast'; else numpy alone")
    parser.add_argument("--data", type=Path, help="keep the generated data, and the loaded store, here")
    parser.add_argument("--work", type=Path, help="a folder on the disk to measure")
    options = parser.parse_args()
    prepared: Any = importlib.import_module("benchmarks.engines.holdfast_fast") if options.fast else engine
    prepared.prepare()
    with tempfile.TemporaryDirectory(dir=options.work) as temporary:
        work = Path(temporary)
        kept = options.data or work
        data = generate(kept / f"rows-{options.rows}-1", options.rows, 1, options.seed)
        loaded, done = kept / f"guard-{options.rows}", kept / f"guard-{options.rows}.done"
        if not done.exists():
            shutil.rmtree(loaded, ignore_errors=True)
            load(data, loaded)
            done.touch()
        shutil.copytree(loaded, work / "store")
        embedder = engine.Given(Lookup(data, data.queries()))
        arms = {
            name: Memory(work / "store", embedder=embedder, encoders=(), guard=guard, background=False)
            for name, guard in ARMS.items()
        }
        answer: dict[str, Any] = {
            "version": __version__,
            "rows": options.rows,
            "settings": prepared.SETTINGS,
            "pace_ms": [pace()],
            "search": {store: searches(arms, data, store, options.rounds) for store in STORES},
        }
        texts = iter(data.extra().texts)
        answer["add"] = {
            "user": adds(arms, islice(texts, 2 * ADDS), lambda _: Origin(author="user"), "benign"),
            "web": adds(
                arms,
                islice(texts, 2 * ADDS),
                lambda _: Origin(Channel.WEB, reference="https://crowd.example"),
                "crowded",
            ),
        }
        for memory in arms.values():
            memory.close()
        answer["pace_ms"].append(pace())
        answer["load_average"] = os.getloadavg()
    options.answer.write_text(json.dumps(answer, indent=1) + "\n")
    for what in ("search", "add"):
        for name, some in answer[what].items():
            print(what, name, {part: round(value, 3) for part, value in some.items()})


if __name__ == "__main__":
    main()
