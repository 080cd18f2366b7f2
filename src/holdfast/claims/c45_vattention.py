"""vAttention (arXiv 2405.04437): pages behind reserved addresses serve as many requests as a block table, and attention needs none.

The policy is rehearsed on the lengths of real requests with memory that is counted (``serving``); the books and the policy are the
product's own. The mechanism is measured in this computer's memory: attention over a contiguous view beside the same attention over
blocks that are gathered first, a cache of ``transformers`` over pages beside the plain one, and what an eviction frees. It is no
claim about a GPU, which nothing here has run on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.bench.plots import Bars, Lines, draw
from holdfast.claims.base import Check, Result, Scale
from holdfast.claims.serving import SLOTS, SPARE, Blocks, Memory, Reserved, Virtual, load, served
from holdfast.errors import MissingExtraError
from holdfast.latent.page_slots import Layout
from holdfast.latent.pages import MEBIBYTE

try:
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

    from holdfast.latent.paged import PagedCache
    from holdfast.latent.streaming import StreamingCache
    from holdfast.latent.virtual import VirtualKV
    from holdfast.latent.window import Window
    from holdfast.torched import Tensor, torch
except ImportError as error:
    raise MissingExtraError("claim 45 needs the extra: pip install 'holdfast[torch]'") from error

number = 45
name = "vattention"
statement = (
    "Keys and values as contiguous tensors over pages that are mapped on demand let in at least 98 % of the requests that a block "
    "table lets in and 5 times those of reserved space, with 95 % of the mapping off the path of those who wait; attention gives "
    "the same bits at twice the speed of blocks that are gathered first, and what is evicted is memory that is free."
)
arms = (
    "pages, layers fused",
    "pages of 64 KiB",
    "pages, layers apart",
    "pages, layers fused, nothing ahead",
    "pages of 64 KiB, nothing ahead",
    "pages, layers fused, nothing deferred",
    "blocks of 16",
    "blocks of 256",
    "reserved for 65,536",
    "reserved for the longest there is",
)

FUSED, SMALL, APART, FUSED_SYNC, SMALL_SYNC, FUSED_EAGER, BLOCKS, LARGE, STATIC, ORACLE = arms
BUDGET = 40 * 2**30
LAYERS, HEADS, SIZE, ITEM = 32, 8, 128, 2
"""Of Llama-3-8B in 16 bits."""
TOKEN = 2 * LAYERS * HEADS * SIZE * ITEM
MOST = 65_536
"""Tokens a request at most: of the paper's contexts (32 k, 64 k, 128 k) the least that every request of the trace fits in."""

TOKENS, BLOCK = 4_096, 16
"""Of the attention that is timed, and of the blocks that are gathered for it."""
SAME_SPEED = 2.0
ADMITTED, OVER_STATIC, OFF_PATH = 0.98, 5.0, 0.95
RESIDENT = 1.05
"""Bytes that are there for a byte that was written."""


def run(scale: Scale, seed: int, data: Path | None) -> Result:
    """The rehearsal, the order of requests drawn by ``seed``, and what is measured here."""
    requests = load(data, packed=scale == "quick")
    longest = max(one.prompt + one.answer for one in requests)
    measured: dict[str, dict[str, float]] = {}
    for arm, made in _memories(longest).items():
        memory = made()
        found = served(requests, memory, TOKEN, seed)
        if isinstance(memory, Virtual):
            found |= {
                "pages mapped a step, waited for": memory.waited / found["steps"],
                "pages mapped a step, ahead": memory.mapped_ahead / found["steps"],
                "pages mapped for prompts": float(memory.prompts),
            }
        measured[arm] = found
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        attention, curve = _attention(seed, repeats=15 if scale == "quick" else 60)
        kept = _residence(seed)
        alike = _alike(seed)
    finally:
        torch.set_num_threads(threads)
    batch = {arm: one["requests at once"] for arm, one in measured.items()}
    waited = {arm: measured[arm]["pages mapped a step, waited for"] for arm in (FUSED, FUSED_SYNC, SMALL, SMALL_SYNC)}
    checks = (
        Check("requests at once by those of blocks of 16, layers fused", batch[FUSED] / batch[BLOCKS], ADMITTED),
        Check("requests at once by those of blocks of 16, pages of 64 KiB", batch[SMALL] / batch[BLOCKS], ADMITTED),
        Check("requests at once by those of reserved space", batch[FUSED] / batch[STATIC], OVER_STATIC),
        Check("mapping taken off the path, layers fused", 1 - waited[FUSED] / waited[FUSED_SYNC], OFF_PATH),
        Check("mapping taken off the path, pages of 64 KiB", 1 - waited[SMALL] / waited[SMALL_SYNC], OFF_PATH),
        Check("gather and attend by attend", attention["gathered"] / attention["contiguous"], SAME_SPEED),
        Check("attention differs by", attention["differs"], 0.0, at_least=False),
        Check("MiB there for addresses of 8 GiB alone", kept["reserved"] / MEBIBYTE, 0.0, at_least=False),
        Check("bytes there by bytes written", kept["written"], RESIDENT, at_least=False),
        Check("bytes there once a request has gone", kept["gone"], 0.0, at_least=False),
        Check("bytes there after an eviction, beyond the blocks of what is kept", kept["evicted"], 0.0, at_least=False),
        Check("logits differ from those of a plain cache by", alike, 0.0, at_least=False),
    )
    measured["attention, 4,096 tokens"] = {
        "ms, contiguous": attention["contiguous"],
        "ms, contiguous, 32 layers fused": attention["fused"],
        "ms, gathered from blocks of 16": attention["gathered"],
    }
    settings = {
        "requests": len(requests),
        "longest request": longest,
        "budget GiB": BUDGET // 2**30,
        "bytes a token": TOKEN,
        "requests at most": SLOTS,
        "free once one is let in": SPARE,
        "tokens a request at most": MOST,
        "attention": f"{TOKENS} tokens, 8 heads of 64, float32, one thread",
        "scale": scale,
    }
    notes = (
        "the rehearsal counts pages: it says how many requests fit and who waits for a map, not how long a GPU takes",
        "requests at once are counted while others wait. The first run of this claim counted them to the end, when nobody waits "
        "and the longest answer goes on alone: on the 600 packed requests that gave 3.7 times reserved space, not 5; it is still "
        "printed",
        "reserved for the longest there is: no server knows it; it decides no check",
        "pages of 64 KiB need a driver of the paper's own on a GPU; in a computer's memory they need nothing",
        "the back end for CUDA has not been run on a GPU",
    )
    return Result(measured, checks, settings, {"speed": curve}, notes)


def plot(result: Result, path: Path) -> None:
    """Requests at once, pages waited for, and attention by length."""
    seen = result.arms
    sizes, lines = result.series["speed"]["tokens"], result.series["speed"]["ms"]
    draw(
        path,
        [
            Bars(
                {arm: seen[arm]["requests at once"] for arm in arms},
                title="requests at once",
                ours=(FUSED, SMALL),
                controls=(STATIC,),
                bounds=(BLOCKS,),
                required=ADMITTED * seen[BLOCKS]["requests at once"],
            ),
            Bars(
                {arm: seen[arm]["pages mapped a step, waited for"] for arm in (FUSED, FUSED_SYNC, SMALL, SMALL_SYNC)},
                title="maps waited for, a step",
                ours=(FUSED, SMALL),
            ),
            Lines({arm: (sizes, times) for arm, times in lines.items()}, title="ms to attend, by tokens"),
        ],
        title="Contiguous memory on demand",
        subtitle="Requests to summarise arXiv papers, 40 GiB, Llama-3-8B; attention on one core",
    )


# --- the rehearsal ---


def _memories(longest: int) -> dict[str, Callable[[], Memory]]:
    """The arms, each anew."""

    def virtual(page: int, fused: bool, ahead: bool = True, deferred: bool = True) -> Callable[[], Memory]:
        layout = Layout(LAYERS, HEADS, SIZE, ITEM, page, fused)
        return lambda: Virtual(BUDGET, layout, MOST, ahead=ahead, deferred=deferred)

    large, small = 2 * MEBIBYTE, MEBIBYTE // 16
    return {
        FUSED: virtual(large, True),
        SMALL: virtual(small, False),
        APART: virtual(large, False),
        FUSED_SYNC: virtual(large, True, ahead=False),
        SMALL_SYNC: virtual(small, False, ahead=False),
        FUSED_EAGER: virtual(large, True, deferred=False),
        BLOCKS: lambda: Blocks(BUDGET, TOKEN, 16),
        LARGE: lambda: Blocks(BUDGET, TOKEN, 256),
        STATIC: lambda: Reserved(BUDGET, TOKEN, MOST),
        ORACLE: lambda: Reserved(BUDGET, TOKEN, longest),
    }


# --- what is measured here ---


def _attention(seed: int, repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Milliseconds of one token's attention, arms turn about, their medians, at ``TOKENS`` and at other lengths."""
    lengths = (512, 1024, 2048, TOKENS, 8192)
    random = torch.Generator().manual_seed(seed)
    most = lengths[-1]
    plain = VirtualKV(1, 8, 64, slots=32, tokens=65_536, budget=2**27, dtype=torch.float32)
    fused = VirtualKV(32, 8, 64, slots=2, tokens=65_536, budget=3 * 2**29, dtype=torch.float32)
    stored = torch.randn(2, 1, 8, most, 64, generator=random)
    slots = []
    for kv in (plain, fused):
        slot = kv.take()
        kv.step({slot: most})
        for layer in range(kv.layout.layers):
            kv.write(layer, slot, 0, stored[0], stored[1])
        slots.append(slot)
    blocks = most // BLOCK
    table = torch.randperm(2 * blocks, generator=random)[:blocks]
    scattered = torch.zeros(2, 2 * blocks, BLOCK, 8, 64)
    scattered[:, table] = stored.transpose(2, 3).reshape(2, blocks, BLOCK, 8, 64)
    query = torch.randn(1, 8, 1, 64, generator=random)
    attend = torch.nn.functional.scaled_dot_product_attention

    def gathered(length: int) -> Tensor:
        some = table[: length // BLOCK]
        keys, values = (kind[some].view(1, length, 8, 64).transpose(1, 2) for kind in scattered)
        return attend(query, keys, values)

    at = [0]

    def layered(length: int) -> Tensor:
        at[0] = (at[0] + 1) % 32  # as a model does: another layer every time
        return attend(query, *(kind[:, :, :length] for kind in fused.view(at[0], slots[1])))

    ways: dict[str, Callable[[int], Tensor]] = {
        "contiguous": lambda length: attend(query, *(kind[:, :, :length] for kind in plain.view(0, slots[0]))),
        "fused": layered,
        "gathered": gathered,
    }
    differs = 0.0
    times: dict[str, list[float]] = {way: [] for way in ways}
    for length in lengths:
        found = {way: call(length) for way, call in ways.items()}
        differs = max(differs, *((found["gathered"] - one).abs().max().item() for one in found.values()))
        took: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(repeats):
            for way, call in ways.items():
                began = time.perf_counter()
                call(length)
                took[way].append(time.perf_counter() - began)
        for way, some in took.items():
            times[way].append(1000 * float(np.median(some)))
    plain.close()
    fused.close()
    at_tokens = {way: some[lengths.index(TOKENS)] for way, some in times.items()}
    return at_tokens | {"differs": differs}, {"tokens": list(lengths), "ms": times}


def _residence(seed: int) -> dict[str, float]:
    """What the system says is there: after reserving 4 GiB each of keys and values, after writing, freeing, evicting."""
    random = torch.Generator().manual_seed(seed)
    kv = VirtualKV(1, 8, 64, slots=32, tokens=65_536, budget=2**27, dtype=torch.float32)
    reserved = kv.stats().resident
    slot = kv.take()
    kv.step({slot: TOKENS})
    keys = torch.randn(1, 8, TOKENS, 64, generator=random)
    kv.write(0, slot, 0, keys, keys)
    there = kv.stats()
    places = torch.rand(1, 8, TOKENS, generator=random).argsort(-1)[..., : TOKENS // 4].sort(-1).values
    kv.compact(slot, places)
    evicted = kv.stats().resident - kv.layout.blocks(TOKENS // 4) * kv.layout.tensors * kv.layout.page
    kv.free(slot, now=True)
    gone = kv.stats().resident
    kv.close()
    # The same by a policy, through a model.
    model = _model(seed)
    kv = VirtualKV.of(model, slots=1, tokens=4_096, budget=2**26)
    cache = StreamingCache(model, Window(4), 256, kv=kv)
    tokens = torch.randint(0, 61, (1, 2_048), generator=random)
    with torch.no_grad(), cache.attached(model):
        for start in range(0, 2_048, 1_024):
            model(tokens[:, start : start + 1_024], cache=cache)
    left = kv.stats().resident - kv.layout.blocks(256) * kv.layout.tensors * kv.layout.page
    cache.close()
    gone = max(gone, kv.stats().resident)
    kv.close()
    return {
        "reserved": float(reserved),
        "written": there.resident / there.used,
        "evicted": float(max(evicted, left, 0)),
        "gone": float(gone),
    }


def _alike(seed: int) -> float:
    """How far logits over pages are from those of a plain cache, a prompt and then token by token, layers fused and apart."""
    model, most = _model(seed), 0.0
    tokens = torch.randint(0, 61, (2, 96), generator=torch.Generator().manual_seed(seed))
    for fused in (True, False):
        kv = VirtualKV.of(model, slots=2, tokens=4_096, budget=2**26, fused=fused)
        plain = DynamicCache(config=model.config)
        with PagedCache(kv) as cache, torch.no_grad():
            for start, stop in ((0, 64), *((at, at + 1) for at in range(64, 96))):
                mine, theirs = (model(tokens[:, start:stop], cache=one).logits for one in (cache, plain))
                most = max(most, (mine - theirs).abs().max().item())
        kv.close()
    return most


def _model(seed: int) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4_096,
    )
    return LlamaForCausalLM(config).eval()
