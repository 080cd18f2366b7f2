"""What a bounded KV cache costs a model that decodes: tokens a second beside a full cache of the same physical length, and bytes.

    python -m benchmarks.decoding ANSWER [--budget 896] [--buffer 128] [--rounds 6] [--width 512] [--layers 8] [--only POLICY ...]

The model is a Llama with random weights: what is measured is what the cache costs, and that hangs on shapes alone. Each policy and
a full cache decode ``buffer`` tokens a round, a few tokens each in turn, while both grow from ``budget`` to ``budget + buffer``
entries a head (where heads compete, in the mean); ours then lets go of what is too much, within the time, and the full one is cut
back outside it. Times are CPU times of one thread; a ratio is that of a round, and of the rounds the median, the least and the most
are told, and each arm's best. Bytes are all that a cache holds, with its room for what comes, after streams of some lengths.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from holdfast.latent.chance import Chance
from holdfast.latent.gates import GatedRetention, RetentionGates
from holdfast.latent.heavy_hitters import HeavyHitters
from holdfast.latent.key_norm import KeyNorm
from holdfast.latent.observation_window import ObservationWindow
from holdfast.latent.retention import RetentionPolicy
from holdfast.latent.streaming import StreamingCache
from holdfast.latent.surprisal import Surprisal
from holdfast.latent.window import Window

PIECE = 128
"""So many tokens of a prompt are read at once."""

TURN = 16
"""So many tokens one arm decodes before the other: what else the machine does meanwhile befalls both."""


def made(width: int, layers: int, seed: int = 0) -> Any:
    """A model with random weights: four queries' heads a head of keys."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 128,
        max_position_embeddings=1 << 17,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def policies(model: Any, budget: int) -> dict[str, tuple[RetentionPolicy, dict[str, Any]]]:
    """What is measured: a policy, and how the cache is set."""
    # The bias makes gates of random weights forget: how fast does not matter here.
    gates = RetentionGates.of(model, width=128, bias=4.0).requires_grad_(False)
    return {
        "sinks and window": (Window(), {}),
        "random": (Chance(), {}),
        "key norm": (KeyNorm(), {}),
        "surprisal": (Surprisal(), {}),
        "surprisal, positions in the cache": (Surprisal(), {"reindex": True}),
        "gates": (GatedRetention(gates), {}),
        "gates, heads compete": (GatedRetention(gates), {"scope": "global", "floor": budget // 8}),
        "observation window": (ObservationWindow(), {}),
        "heavy hitters": (HeavyHitters(recent=budget // 2), {}),
    }


def read(model: Any, cache: Any, tokens: torch.Tensor) -> None:
    """Read a text in pieces."""
    for piece in tokens.split(PIECE, dim=1):
        model(piece, cache=cache, logits_to_keep=1)


def decoded(model: Any, cache: Any, count: int) -> float:
    """Seconds of the one thread's own time that greedy decoding takes: others may share the machine."""
    token = torch.ones((1, 1), dtype=torch.long)
    started = time.process_time()
    for _ in range(count):
        token = model(token, cache=cache, logits_to_keep=1).logits[:, -1:].argmax(dim=-1)
    return time.process_time() - started


def speed(
    model: Any, name: str, policy: RetentionPolicy, given: dict[str, Any], said: argparse.Namespace
) -> dict[str, Any]:
    """One policy and the full cache, turn about."""
    drawn = torch.Generator().manual_seed(0)
    prompt = torch.randint(0, 8192, (1, said.budget), generator=drawn)
    cache = StreamingCache(model, policy, said.budget, buffer=said.buffer - 1, **given)
    full = DynamicCache()
    read(model, full, prompt)
    with cache.attached(model):
        read(model, cache, prompt)
        decoded(model, cache, said.buffer)
    ours, theirs = [], []
    for at in range(said.rounds):
        ours.append(0.0)
        theirs.append(0.0)
        for start in range(0, said.buffer, TURN):
            count = min(TURN, said.buffer - start)
            # Who comes first finds the caches of the processor as the other left them.
            for own in (True, False) if at % 2 else (False, True):
                if own:
                    with cache.attached(model):
                        ours[-1] += decoded(model, cache, count)
                else:
                    theirs[-1] += decoded(model, full, count)
        full.crop(-said.buffer)
        mean = float(torch.stack(cache.counts()).float().mean())
        assert mean == said.budget, f"both arms are of one length, and ours begins the next round with {mean}"
    ratios = [full_ / own for own, full_ in zip(ours, theirs, strict=True)]
    return {
        "policy": name,
        "tokens a second": said.buffer / min(ours),
        "full cache, tokens a second": said.buffer / min(theirs),
        "ratio": statistics.median(ratios),
        "least ratio": min(ratios),
        "greatest ratio": max(ratios),
        "ratio of the best": min(theirs) / min(ours),
        "shortest and longest head": [int(one) for one in torch.stack(cache.counts()).aminmax()],
    }


def memory(model: Any, cache: Any, lengths: list[int], bytes_of: Callable[[], int]) -> list[int]:
    """Bytes held after streams of some lengths."""
    drawn, found, seen = torch.Generator().manual_seed(1), [], 0
    for length in lengths:
        read(model, cache, torch.randint(0, 8192, (1, length - seen), generator=drawn))
        seen = length
        found.append(bytes_of())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("answer", type=Path)
    parser.add_argument("--budget", type=int, default=896)
    parser.add_argument("--buffer", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--longest", type=int, default=8192)
    parser.add_argument("--only", nargs="*", help="these policies alone")
    said = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    model = made(said.width, said.layers)
    lengths = [length for length in (1024, 2048, 4096, 8192, 16384, 32768) if length <= said.longest]
    rows = []
    for name, (policy, given) in policies(model, said.budget).items():
        if said.only and name not in said.only:
            continue
        row = speed(model, name, policy, given, said)
        cache = StreamingCache(model, policy, said.budget, buffer=said.buffer - 1, **given)
        with cache.attached(model):
            row["bytes"] = dict(zip(map(str, lengths), memory(model, cache, lengths, cache.nbytes), strict=True))
        rows.append(row)
        range_ = f"{row['least ratio']:.2f} to {row['greatest ratio']:.2f}"
        print(f"{name}: {row['ratio']:.2f} ({range_}) of the full cache, {row['bytes']}", flush=True)
    full = DynamicCache()

    def held() -> int:
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in full.layers)

    answer = {
        "tokens a second": "of CPU time, one thread",
        "settings": {name: value for name, value in vars(said).items() if name not in ("answer", "only")}
        | {"piece": PIECE, "turn": TURN, "threads": 1},
        "versions": {name: version(name) for name in ("holdfast", "torch", "transformers")},
        "load average": os.getloadavg(),
        "policies": rows,
        "full cache, bytes": dict(zip(map(str, lengths), memory(model, full, lengths, held), strict=True)),
    }
    said.answer.write_text(json.dumps(answer, indent=2) + "\n")


if __name__ == "__main__":
    main()
