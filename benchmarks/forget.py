"""Forgetting in a large store: how long it takes, how long its proof takes, and whether the proof is true.

    python -m benchmarks.forget ANSWER [--rows 100000] [--rounds 3] [--data FOLDER] [--work FOLDER]

A store is loaded once, with rows of three sources strewn over it: 1, 100 and 10,000 of 100,000 rows, each of the last with a
tensor file derived from every hundredth. Each round copies it and forgets one source after the other. The bytes of every file are
then looked through for every whole text by ``grep``, which knows nothing of the receipt. Times are in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import Data, Lookup, generate
from benchmarks.engines.holdfast import Given
from benchmarks.limits import pace
from holdfast import Cube, Memory, __version__
from holdfast.cube import Channel, Form, Origin

SHARES = {"one": 0.0, "hundred": 0.001, "many": 0.1}
USER = "0"
EVERY = 100
BATCH = 5_000


def load(data: Data, folder: Path) -> dict[str, int]:
    """A store with all rows; how many of each source, and how many have a tensor file."""
    random = np.random.default_rng(data.seed)
    order = random.permutation(data.rows).tolist()
    sizes = {name: max(1, int(data.rows * share)) for name, share in SHARES.items()}
    source: dict[int, str] = {}
    for name, size in sizes.items():
        source |= dict.fromkeys(order[len(source) : len(source) + size], f"mail:{name}")
    files = 0
    with Memory(folder, user=USER, embedder=Given(Lookup(data)), encoders=(), background=False) as memory:
        scope = memory.scope()
        for batch in data.batches(BATCH):
            cubes = [
                Cube(scope, text, data={"n": number}, origin=Origin(author="user", reference=source.get(number)))
                for number, text in zip(batch.numbers, batch.texts, strict=True)
            ]
            memory.add(cubes)
            made = []
            for cube in cubes:
                if cube.data["n"] % EVERY == 0:
                    origin = Origin(Channel.DERIVED, derived_from=(cube.ref,))
                    blob = memory.store.blobs.put(_tensors(cube.data["n"]), scope)
                    made.append(Cube(scope, form=Form.STATE, blob=blob, origin=origin))
            memory.add(made)
            files += len(made)
        memory.flush()
    return sizes | {"files": files}


def measure(store: Path, texts: dict[str, list[str]], data: Data) -> dict[str, Any]:
    """Forget one source after the other in this store."""
    found: dict[str, Any] = {}
    with Memory(store, user=USER, embedder=Given(Lookup(data)), encoders=(), background=False) as memory:
        memory.search(data.queries()[0].text)
        for name in SHARES:
            start = time.perf_counter()
            receipt = memory.forget(source=f"mail:{name}", reason="asked to")
            forgotten = time.perf_counter()
            receipt.verify()
            proved = time.perf_counter()
            found[name] = {
                "memories": len(receipt.ids),
                "files": sum(len(step.things) for step in receipt.forms),
                "forget_s": forgotten - start,
                "verify_s": proved - forgotten,
                "both_s": proved - start,
            }
        found["journal"] = len(memory.verify())
    for name, said in texts.items():
        found[name]["texts_left_in_files"] = left(store, said)
    return found


def left(folder: Path, texts: list[str]) -> int:
    """How many of some texts stand anywhere in a folder's files, by ``grep``."""
    command = [
        "grep",
        "--recursive",
        "--text",
        "--only-matching",
        "--no-filename",
        "--fixed-strings",
        "--file=-",
        folder,
    ]
    done = subprocess.run(
        command, input="\n".join(texts).encode(), env={**os.environ, "LC_ALL": "C"}, capture_output=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr.decode()
    return len(set(done.stdout.splitlines()))


def texts_of(store: Path) -> dict[str, list[str]]:
    """The words of each source."""
    with Memory(store, user=USER, embedder=None, encoders=(), background=False) as memory:
        said: dict[str, list[str]] = {name: [] for name in SHARES}
        for cube in memory.select():
            if cube.origin.reference:
                said[cube.origin.reference.removeprefix("mail:")].append(cube.text)
    return said


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forget", description=__doc__.partition("\n")[0])
    parser.add_argument("answer", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--data", type=Path, help="keep the generated data, and the loaded store, here")
    parser.add_argument("--work", type=Path, help="a folder on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as temporary:
        work = Path(temporary)
        kept = options.data or work
        data = generate(kept / f"rows-{options.rows}-1", options.rows, 1, options.seed)
        loaded, about = kept / f"forget-{options.rows}", kept / f"forget-{options.rows}.json"
        if not about.exists():
            shutil.rmtree(loaded, ignore_errors=True)
            about.write_text(json.dumps(load(data, loaded)))
        texts = texts_of(loaded)
        assert left(loaded, texts["hundred"][:100]) == min(100, len(texts["hundred"])), (
            "the audit can find what is there"
        )
        rounds, paces = [], [pace()]
        for _ in range(options.rounds):
            shutil.copytree(loaded, work / "store")
            rounds.append(measure(work / "store", texts, data))
            shutil.rmtree(work / "store")
            paces.append(pace())
        medians = {
            name: {part: statistics.median(one[name][part] for one in rounds) for part in rounds[0][name]}
            for name in SHARES
        }
        answer = {
            "version": __version__,
            "rows": options.rows,
            "store": json.loads(about.read_text()) | {"mb": _size(loaded) / 1e6},
            "medians": medians,
            "rounds": rounds,
            "pace_ms": paces,
            "load_average": os.getloadavg(),
        }
        options.answer.write_text(json.dumps(answer, indent=1) + "\n")
        for name, some in medians.items():
            print(name, {part: round(value, 3) for part, value in some.items()})


def _tensors(number: int) -> bytes:
    """A small safetensors file of its own."""
    header = json.dumps({"k": {"dtype": "F32", "shape": [64], "data_offsets": [0, 256]}}).encode()
    body = np.random.default_rng(number).standard_normal(64).astype(np.float32).tobytes()
    return len(header).to_bytes(8, "little") + header + body


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


if __name__ == "__main__":
    main()
