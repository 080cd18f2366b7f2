"""Memory layers in training: their chunked path beside the recurrent one, which is the same sum token by token.

    python -m benchmarks.layers layers.json
    python -m benchmarks.layers layers.json --only "titans, mac"    these alone, beside what the file holds of the others

One forward and one backward pass over 1,024 tokens, on one thread, turn about, in several rounds over all layers. The best time of
each path is told, for a machine that is shared is never faster than it is; and of the ratios of neighbouring turns, which a slow
moment hits alike, the median and the middle half. What the paths say is compared as well. Attention has no state and is computed at
once by both paths; in Titans' blocks only the memory has two.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any, get_args

import torch
from torch import Tensor, nn

from holdfast.latent.bmojo import BMojo
from holdfast.latent.delta import RULES
from holdfast.latent.matrix_memory import MatrixMemory
from holdfast.latent.mixture import MixtureOfMemories
from holdfast.latent.titans import NeuralMemory
from holdfast.latent.titans_blocks import Mode, TitansBlock

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
    **{
        f"titans, {mode}": lambda mode=mode: TitansBlock(WIDTH, HEADS, head_dim=SIZE, mode=mode, window=64)  # type: ignore[misc]
        for mode in get_args(Mode)
    },
    "b'mojo, nothing stored": lambda: BMojo(WIDTH, HEADS, head_dim=SIZE, window=64),
    "b'mojo, 64 stored": lambda: BMojo(WIDTH, HEADS, head_dim=SIZE, window=64, eidetic=64),
}


@dataclass(slots=True)
class Turns:
    """What was measured of one layer: processor seconds by path, turn by turn, and how far apart at most what the paths say is."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"recurrent": [], "chunked": []})
    difference: float = 0.0
    load: float = 0.0

    def take(self, make: Callable[[], nn.Module], repeats: int) -> None:
        """So many turns more."""
        torch.manual_seed(0)
        layer, x = make(), torch.randn(ROWS, TOKENS, WIDTH)
        said: dict[str, Tensor] = {}
        for _ in range(repeats):
            for path, times in self.seconds.items():
                layer.zero_grad()
                for part in layer.modules():
                    if hasattr(part, "path"):
                        part.path = path
                start = time.process_time()
                said[path], _ = layer(x)
                said[path].square().mean().backward()
                times.append(time.process_time() - start)
        self.difference = max(self.difference, (said["recurrent"] - said["chunked"]).abs().max().item())
        self.load = os.getloadavg()[0]

    def told(self) -> dict[str, Any]:
        """JSON-ready."""
        ratios = [a / b for a, b in zip(*self.seconds.values(), strict=True)]
        low, middle, high = quantiles(ratios, n=4, method="inclusive")
        return {
            **{f"{path}_s": round(min(times), 4) for path, times in self.seconds.items()},
            "ratio": round(middle, 2),
            "middle half": [round(low, 2), round(high, 2)],
            "difference": self.difference,
            "load": self.load,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", action="append", choices=list(LAYERS), metavar="LAYER")
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = {"rows": ROWS, "tokens": TOKENS, "width": WIDTH, "heads": HEADS, "head size": SIZE, "threads": 1}
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    record = {"settings": {**settings, "rounds": given.rounds, "repeats": given.repeats}, "versions": versions}
    found: dict[str, Any] = {}
    if given.only:
        before = json.loads(given.file.read_text()) if given.file.exists() else {**record, "layers": {}}
        if any(before[name] != value for name, value in record.items()):
            parser.error(f"{given.file} was measured with other settings: measure all layers")
        found = before["layers"]
    turns = {name: Turns() for name in given.only or LAYERS}
    for _ in range(given.rounds):
        for name, some in turns.items():
            some.take(LAYERS[name], given.repeats)
            found[name] = some.told()
            print(f"{name}: {found[name]}", flush=True)
    given.file.write_text(json.dumps({**record, "layers": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
