"""The REST server beside the same search within a program, and under many clients at once.

    python -m benchmarks.serve ANSWER [--memories 100000] [--clients 200] [--seconds 120] [--work FOLDER]

The server is ``holdfast serve`` in a process of its own, without a rate limit and without an embedder; searches go over one
plain connection and through ``holdfast.client``, turn about with the same search in this process, on the same store. A process
compiles the loops of a search when it starts, which takes one of the two cores for some ten seconds: what searches take in the
first minute is told as "starting". Then every client asks for whatever it will, one call after another: of ten calls eight
search, one adds and one looks at the status.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np

from holdfast import Memory, __version__
from holdfast.client import Client

WORDS = 4_000
SEARCHES = 400
STARTING = 60.0  # seconds until both processes have compiled and have read what they search
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
    """Milliseconds of the same searches, turn about: here, over a plain connection, and through ``holdfast.client``."""
    ends, starting = time.monotonic() + STARTING, []
    ways = (
        Memory(store, user="ana", embedder=None, encoders=(), background=False),
        Plain(address, key),
        Client(address, key, user="ana"),
    )
    took: list[list[float]] = [[], [], []]
    with ways[0], closing(ways[1]), ways[2]:
        while len(took[0]) < SEARCHES:
            query = " ".join(text(drawn).split()[:4])
            found, times = [], []
            for way in ways:
                start = time.perf_counter()
                found.append([hit.id for hit in way.search(query, k=10)])
                times.append(1e3 * (time.perf_counter() - start))
            if time.monotonic() < ends:
                starting.append(times[1])
                continue
            assert (
                found[0] == found[1] == found[2]
            )  # until here equal scores may stand in another order: not all have compiled
            for so_far, one in zip(took, times, strict=True):
                so_far.append(one)
    here, plain, client = took
    return {
        "starting, over HTTP": spread(starting),
        "in process": spread(here),
        "over HTTP": spread(plain),
        "more": spread(np.subtract(plain, here).tolist()),
        "holdfast.client": spread(client),
        "more with holdfast.client": spread(np.subtract(client, here).tolist()),
    }


class Plain:
    """One connection of the standard library: what a client costs by itself is hardly in it."""

    def __init__(self, address: str, key: str) -> None:
        host, _, port = address.removeprefix("http://").partition(":")
        self._http = http.client.HTTPConnection(host, int(port), timeout=60)
        self._http.connect()
        self._http.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def search(self, query: str, k: int) -> list[Found]:
        """See ``Memory.search``."""
        self._http.request("POST", "/v1/search?user=ana", json.dumps({"query": query, "k": k}), self._headers)
        return [Found(one["id"]) for one in json.loads(self._http.getresponse().read())["hits"]]

    def close(self) -> None:
        """Close it."""
        self._http.close()


class Found(NamedTuple):
    """A hit."""

    id: str


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
