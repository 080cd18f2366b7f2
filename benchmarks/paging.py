"""What pages behind reserved addresses cost and save: mapping, the growth of a cache, attention over it, beside what others do.

    python -m benchmarks.paging ANSWER [--repeats 30]

In this computer's memory, one thread; ways are timed turn about. Growth is one token put after those that a layer has, as at every
step of a model: in place (pages), by concatenation (``DynamicCache``), into room that was set aside (``StaticCache``). Attention
is one token's over a contiguous view, over a view of 32 layers fused, over blocks of 16 tokens gathered first, and over a
concatenated cache. Medians and best, in microseconds; ratios are of the medians.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.limits import pace
from holdfast import __version__
from holdfast.latent.mapped_pages import MappedPages
from holdfast.latent.pages import PAGE_BYTES
from holdfast.latent.virtual import VirtualKV

HEADS, SIZE, BLOCK = 8, 64, 16
LENGTHS = (512, 1024, 2048, 4096, 8192)
Told = dict[str, dict[str, float]]


def timed(ways: Mapping[str, Callable[[], Any]], repeats: int) -> Told:
    """Every way so many times, turn about."""
    took: dict[str, list[float]] = {way: [] for way in ways}
    for call in ways.values():
        call()
    for _ in range(repeats):
        for way, call in ways.items():
            began = time.perf_counter()
            call()
            took[way].append(1e6 * (time.perf_counter() - began))
    return {way: {"median": float(np.median(some)), "best": min(some)} for way, some in took.items()}


def mapping(repeats: int) -> Told:
    """One page of 2 MiB: mapped, taken away, first written, written again, copied; and the same bytes of a fresh anonymous map."""
    backend = MappedPages()
    start = backend.reserve(2**36)
    view = np.ctypeslib.as_array((ctypes.c_ubyte * PAGE_BYTES).from_address(start))
    took: dict[str, list[float]] = {}

    def step(name: str, call: Callable[[], Any]) -> None:
        began = time.perf_counter()
        call()
        took.setdefault(name, []).append(1e6 * (time.perf_counter() - began))

    for at in range(repeats):
        step("map", lambda at=at: backend.map(start, [2 * at]))
        step("write the first time", lambda: view.fill(1))
        step("write again", lambda: view.fill(2))
        backend.map(start + PAGE_BYTES, [2 * at + 1])
        step("copy", lambda: backend.copy(start + PAGE_BYTES, start))
        step("unmap and free", lambda at=at: backend.unmap(start, 2 * at))
        backend.unmap(start + PAGE_BYTES, 2 * at + 1)
        step("anonymous, map and write", lambda: np.frombuffer(mmap.mmap(-1, PAGE_BYTES), np.uint8).fill(1))
    backend.close()
    return {name: {"median": float(np.median(some)), "best": min(some)} for name, some in took.items()}


def growth(length: int, repeats: int) -> Told:
    """One token after ``length``, keys and values of one layer."""
    kv = VirtualKV(1, HEADS, SIZE, slots=1, tokens=65_536, budget=2**28, dtype=torch.float32)
    slot = kv.take()
    new = torch.randn(1, HEADS, 1, SIZE)
    held = [torch.randn(1, HEADS, length, SIZE) for _ in range(2)]
    fixed = [torch.zeros(1, HEADS, length + 1, SIZE) for _ in range(2)]
    kv.step({slot: length + 1})

    def in_place() -> None:
        kv.step({slot: length + 1})
        kv.write(0, slot, length, new, new)
        kv.view(0, slot)

    def set_aside() -> None:
        for one in fixed:
            one[:, :, length : length + 1] = new

    found = timed(
        {
            "in place": in_place,
            "concatenated": lambda: [torch.cat([one, new], dim=-2) for one in held],
            "set aside": set_aside,
        },
        repeats,
    )
    kv.close()
    return found


def attention(length: int, repeats: int) -> Told:
    """One token's attention over ``length``."""
    plain = VirtualKV(1, HEADS, SIZE, slots=1, tokens=65_536, budget=2**27, dtype=torch.float32)
    fused = VirtualKV(32, HEADS, SIZE, slots=1, tokens=65_536, budget=3 * 2**29, dtype=torch.float32)
    stored = torch.randn(2, 1, HEADS, length, SIZE)
    for kv in (plain, fused):
        kv.step({kv.take(): length})
        for layer in range(kv.layout.layers):
            kv.write(layer, 0, 0, stored[0], stored[1])
    table = torch.randperm(2 * length // BLOCK)[: length // BLOCK]
    blocks = torch.zeros(2, 2 * length // BLOCK, BLOCK, HEADS, SIZE)
    blocks[:, table] = stored.transpose(2, 3).reshape(2, length // BLOCK, BLOCK, HEADS, SIZE)
    query, layer = torch.randn(1, HEADS, 1, SIZE), [0]
    attend = torch.nn.functional.scaled_dot_product_attention

    def next_layer() -> None:
        layer[0] = (layer[0] + 1) % 32
        attend(query, *fused.view(layer[0], 0))

    found = timed(
        {
            "contiguous": lambda: attend(query, *plain.view(0, 0)),
            "fused": next_layer,
            "gathered": lambda: attend(
                query, *(one[table].view(1, length, HEADS, SIZE).transpose(1, 2) for one in blocks)
            ),
            "concatenated": lambda: attend(query, stored[0], stored[1]),
        },
        repeats,
    )
    plain.close()
    fused.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paging", description=__doc__.partition("\n")[0])
    parser.add_argument("answer", type=Path)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    answer: dict[str, Any] = {"version": __version__, "torch": torch.__version__, "repeats": options.repeats}
    answer |= {
        "pace_ms": [pace()],
        "page, 2 MiB": mapping(options.repeats),
        "growth": {},
        "attention": {},
        "ratios": {},
    }
    for length in LENGTHS:
        grown = answer["growth"][length] = growth(length, options.repeats)
        read = answer["attention"][length] = attention(length, options.repeats)
        answer["ratios"][length] = {
            "concatenated by in place": grown["concatenated"]["median"] / grown["in place"]["median"],
            "gathered by contiguous": read["gathered"]["median"] / read["contiguous"]["median"],
            "fused by contiguous": read["fused"]["median"] / read["contiguous"]["median"],
        }
        print(length, {name: round(value, 2) for name, value in answer["ratios"][length].items()}, flush=True)
    answer |= {"load_average": os.getloadavg(), "pace_ms": [*answer["pace_ms"], pace()]}
    options.answer.write_text(json.dumps(answer, indent=1) + "\n")
    for name, one in answer["page, 2 MiB"].items():
        print(f"{name}: {one['median']:.0f} µs")


if __name__ == "__main__":
    main()
