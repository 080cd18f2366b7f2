"""The REST server beside the same search within a program, and under many clients at once.

    python -m benchmarks.serve ANSWER [--memories 100000] [--clients 200] [--seconds 120] [--work FOLDER]

The server is ``holdfast serve`` in a process of its own, without a rate limit and without an embedder; searches go over one
connection, turn about with the same search in this process, on the same store. Then every client asks for whatever it will, one
call after another: of ten calls eight search, one adds and one looks at the status.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from holdfast import Memory, __version__

WORDS = 4_000
SEARCHES = 400
USER = {"user": "ana"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__.partition("\n")[0])
    parser.add_argument("answer", type=Path)
    parser.add_argument("--memories", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    drawn = random.Random(7)
    with tempfile.TemporaryDirectory(dir=options.work) as home:
        store, file = Path(home) / "store", Path(home) / "key"
        with Memory(store, user="ana", embedder=None, encoders=(), background=False, durability="normal") as memory:
            for start in range(0, options.memories, 2_000):
                memory.add([text(drawn) for _ in range(min(2_000, options.memories - start))])
            memory.flush()  # or the server would work off the queue meanwhile, and that would be measured
        command = [sys.executable, "-m", "holdfast", "serve", str(store), "--port", "0", "--owner-key-file", str(file)]
        server = subprocess.Popen(
            [*command, "--embedder", "none", "--rate", "0"], stderr=subprocess.PIPE, text=True, cwd=home
        )
        try:
            assert server.stderr is not None
            address = next(
                found[1] for line in server.stderr if (found := re.search(r"listening at (http://\S+)/", line))
            )
            key = file.read_text().strip()
            answer = {
                "version": __version__,
                "memories": options.memories,
                "load_average": os.getloadavg(),
                "search": beside(store, address, key, drawn),
                "many": asyncio.run(many(address, key, options.clients, options.seconds)),
            }
        finally:
            server.terminate()
            server.wait(30)
    options.answer.write_text(json.dumps(answer, indent=1) + "\n")
    print(json.dumps(answer, indent=1))


def text(drawn: random.Random) -> str:
    words = (f"word{min(int(drawn.expovariate(12 / WORDS)), WORDS)}" for _ in range(14))
    return " ".join(words)


def beside(store: Path, address: str, key: str, drawn: random.Random) -> dict[str, Any]:
    """Milliseconds of the same searches, here and over HTTP, turn about."""
    here, there = [], []
    headers = {"Authorization": f"Bearer {key}"}
    with (
        Memory(store, user="ana", embedder=None, encoders=(), background=False) as memory,
        httpx.Client(base_url=address, headers=headers, timeout=60) as http,
    ):
        for number in range(SEARCHES + 20):
            query = " ".join(text(drawn).split()[:4])
            start = time.perf_counter()
            found = memory.search(query, k=10)
            between = time.perf_counter()
            told = http.post("/v1/search", params=USER, json={"query": query, "k": 10})
            end = time.perf_counter()
            assert [hit["id"] for hit in told.json()["hits"]] == [hit.id for hit in found]
            if number >= 20:
                here.append(1e3 * (between - start))
                there.append(1e3 * (end - between))
    more = np.subtract(there, here)
    return {"in process": spread(here), "over HTTP": spread(there), "more": spread(more.tolist())}


async def many(address: str, key: str, clients: int, seconds: float) -> dict[str, Any]:
    """What many clients get when all ask at once."""
    ends, took, wrong = time.monotonic() + seconds, [], []

    async def client(number: int) -> None:
        drawn = random.Random(number)
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=address, headers=headers, timeout=60) as http:
            while time.monotonic() < ends:
                start, which = time.perf_counter(), drawn.randrange(10)
                try:
                    if which == 0:
                        told = await http.post("/v1/memories", params=USER, json={"content": text(drawn)})
                    elif which == 1:
                        told = await http.get("/v1/status", params=USER)
                    else:
                        query = " ".join(text(drawn).split()[:4])
                        told = await http.post("/v1/search", params=USER, json={"query": query})
                    if told.status_code not in (200, 201):
                        wrong.append(f"{told.status_code}: {told.text[:200]}")
                except httpx.HTTPError as error:
                    wrong.append(repr(error))
                took.append(1e3 * (time.perf_counter() - start))

    await asyncio.gather(*(client(number) for number in range(clients)))
    return {
        "clients": clients, "seconds": seconds, "calls": len(took), "calls a second": len(took) / seconds, "errors": len(wrong),
        "first errors": wrong[:5], "ms": spread(took),
    }  # fmt: skip


def spread(some: list[float]) -> dict[str, float]:
    return {f"p{share}": round(float(np.percentile(some, share)), 3) for share in (50, 90, 99)}


if __name__ == "__main__":
    main()
