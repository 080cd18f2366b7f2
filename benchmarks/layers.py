"""Memory layers in training: their chunked path beside the recurrent one, which is the same sum token by token.

    python -m benchmarks.layers layers.json

One forward and one backward pass over 1,024 tokens, on one thread, turn about; of processor time the best of several is told, for a
machine that is shared is never faster than it is. What the paths say is compared as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from holdfast.latent.bmojo import BMojo
from holdfast.latent.delta import RULES
from holdfast.latent.matrix_memory import MatrixMemory
from holdfast.latent.mixture import MixtureOfMemories
from holdfast.latent.titans import NeuralMemory

WIDTH, HEADS, SIZE = 128, 4, 32
ROWS, TOKENS = 2, 1024

LAYERS: dict[str, Callable[[], nn.Module]] = {
    **{
        f"matrix memory, {rule}": lambda rule=rule: MatrixMemory(WIDTH, HEADS, key_dim=SIZE, rule=rule)  # type: ignore[misc]
        for rule in RULES
    },
    "mixture of 4 and a shared one": lambda: MixtureOfMemories(WIDTH, HEADS, key_dim=SIZE),
    "neural memory, a matrix": lambda: NeuralMemory(WIDTH, HEADS, head_dim=SIZE, depth=1),
    "neural memory, two layers": lambda: NeuralMemory(WIDTH, HEADS, head_dim=SIZE, depth=2),
    "b'mojo, nothing stored": lambda: BMojo(WIDTH, HEADS, head_dim=SIZE, window=64),
    "b'mojo, 64 stored": lambda: BMojo(WIDTH, HEADS, head_dim=SIZE, window=64, eidetic=64),
}


def measured(make: Callable[[], nn.Module], repeats: int) -> dict[str, float]:
    torch.manual_seed(0)
    layer, x = make(), torch.randn(ROWS, TOKENS, WIDTH)
    best = {"recurrent": float("inf"), "chunked": float("inf")}
    said: dict[str, Tensor] = {}
    for _ in range(repeats):
        for path in best:
            layer.zero_grad()
            start = time.process_time()
            layer.path = path
            said[path], _ = layer(x)
            said[path].square().mean().backward()
            best[path] = min(best[path], time.process_time() - start)
    return {
        "recurrent_s": round(best["recurrent"], 4),
        "chunked_s": round(best["chunked"], 4),
        "ratio": round(best["recurrent"] / best["chunked"], 2),
        "difference": (said["recurrent"] - said["chunked"]).abs().max().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name, make in LAYERS.items():
        found[name] = measured(make, given.repeats)
        print(f"{name}: {found[name]}", flush=True)
    settings = {"rows": ROWS, "tokens": TOKENS, "width": WIDTH, "heads": HEADS, "head size": SIZE, "threads": 1}
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    record = {
        "settings": {**settings, "repeats": given.repeats},
        "versions": versions,
        "load": list(os.getloadavg()),
        "layers": found,
    }
    given.file.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
