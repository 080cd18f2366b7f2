"""A cache over pages is a plain cache to the last bit, grows without a copy, and what leaves it is memory that is free."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")

from transformers import (  # noqa: E402
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from holdfast.errors import InputError, OutOfPagesError, PageError  # noqa: E402
from holdfast.latent import virtual  # noqa: E402
from holdfast.latent.mapped_pages import MappedPages  # noqa: E402
from holdfast.latent.paged import PagedCache  # noqa: E402
from holdfast.latent.streaming import StreamingCache  # noqa: E402
from holdfast.latent.surprisal import Surprisal  # noqa: E402
from holdfast.latent.virtual import VirtualKV, tensor_at  # noqa: E402
from holdfast.latent.window import Window  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(sys.platform != "linux", reason="pages of memory are made on Linux alone"),
]

PAGE = 4096
SIZES = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip


def made(kind: str = "llama", attention: str = "sdpa", dtype=None):
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES) if kind == "llama" else Qwen3Config(**SIZES, head_dim=8)
    config._attn_implementation = attention
    return (LlamaForCausalLM if kind == "llama" else Qwen3ForCausalLM)(config).to(dtype or torch.float32).eval()


def memory(model, budget: int = 2**22, **given) -> VirtualKV:
    backend = MappedPages(PAGE, guarded=True)
    return VirtualKV.of(model, **{"slots": 8, "tokens": 400, "budget": budget, "backend": backend, **given})


def ids(rows: int, length: int, seed: int = 1):
    return torch.randint(0, 61, (rows, length), generator=torch.Generator().manual_seed(seed))


def read(model, cache, tokens, sizes):
    logits, start = [], 0
    with torch.no_grad():
        for size in sizes:
            logits.append(model(tokens[:, start : start + size], cache=cache).logits)
            start += size
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_plain_cache_to_the_last_bit(kind: str, attention: str, fused: bool, dtype) -> None:
    model, sizes = made(kind, attention, dtype), [17, 1, 1, 30, 1, 5, 1, 64, 1, 1]
    tokens, plain = ids(2, sum(sizes)), DynamicCache(config=model.config)
    with PagedCache(memory(model, fused=fused)) as cache:
        assert torch.equal(read(model, cache, tokens, sizes), read(model, plain, tokens, sizes))
        for mine, theirs in zip(cache.layers, plain.layers, strict=True):
            assert torch.equal(mine.keys, theirs.keys) and torch.equal(mine.values, theirs.values)
        assert cache.get_seq_length() == plain.get_seq_length() == sum(sizes)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "how", [{"do_sample": False}, {"do_sample": True, "top_k": 9}, {"num_beams": 3, "do_sample": False}]
)
def test_what_is_generated_is_what_a_plain_cache_gives(fused: bool, how) -> None:
    model, tokens = made(), ids(2, 21)
    mask = torch.ones_like(tokens)
    mask[0, :6] = 0  # padding on the left
    said = []
    for cache in (DynamicCache(config=model.config), PagedCache(memory(model, fused=fused))):
        torch.manual_seed(4)
        said.append(
            model.generate(
                tokens, attention_mask=mask, cache=cache, max_new_tokens=40, eos_token_id=None, pad_token_id=0, **how
            )
        )
    assert torch.equal(*said) and said[0].shape[1] == 61


def test_it_grows_without_a_copy_and_maps_what_is_used() -> None:
    model = made()
    kv = memory(model, tokens=100_000, slots=64)
    cache = PagedCache(kv)
    assert kv.stats().reserved > 2**31 and kv.stats().resident == 0
    read(model, cache, ids(1, 10), [10])
    start = [layer.keys.data_ptr() for layer in cache.layers]
    read(model, cache, ids(1, 90), [1] * 90)
    assert [layer.keys.data_ptr() for layer in cache.layers] == start
    block = kv.layout.tensors * PAGE
    stats = kv.stats()
    assert stats.used == 100 * 2 * kv.layout.token == 100 * 2 * 3 * 2 * 8 * 4
    assert stats.wasted < block and stats.resident == stats.used + stats.wasted
    cache.close(now=True)
    assert kv.stats().resident == 0


def test_a_copy_of_a_prompt_shares_its_pages_until_it_is_written_to() -> None:
    model, prompt = made(), ids(1, 90)
    kv = memory(model)
    first = PagedCache(kv)
    read(model, first, prompt, [90])
    before = kv.stats()
    copies = [copy.deepcopy(first) for _ in range(3)]
    assert kv.stats().resident == before.resident and kv.stats().free == before.free
    for seed, cache in enumerate([first, *copies]):
        more, plain = ids(1, 30, seed + 5), DynamicCache(config=model.config)
        read(model, plain, prompt, [90])
        assert torch.equal(read(model, cache, more, [29, 1]), read(model, plain, more, [29, 1]))
    whole = 90 * kv.layout.token // PAGE  # pages that the prompt alone fills are still everybody's
    assert kv.stats().shared == 2 * whole
    for cache in (first, *copies):
        cache.close(now=True)
    assert kv.stats().resident == 0 and kv.stats().free == kv.stats().pages


def test_rows_are_repeated_chosen_and_cropped_like_those_of_a_plain_cache() -> None:
    model, tokens = made(), ids(2, 30)
    plain, cache = DynamicCache(config=model.config), PagedCache(memory(model))
    for one in (plain, cache):
        read(model, one, tokens, [30])
        one.batch_repeat_interleave(2)
        one.crop(-7)
        one.reorder_cache(torch.tensor([3, 0, 0, 2]))
        one.batch_select_indices(torch.tensor([2, 0]))
    assert cache.get_seq_length() == 23
    more = ids(2, 12, 3)
    assert torch.equal(read(model, cache, more, [5, 7]), read(model, plain, more, [5, 7]))
    with pytest.raises(InputError, match="negative"):
        cache.crop(3)
    cache.reset()
    assert cache.get_seq_length() == 0 and not cache.kv.pages.taken
    assert torch.equal(read(model, cache, tokens, [30]), read(model, DynamicCache(config=model.config), tokens, [30]))


def test_the_budget_s_end_is_an_error_and_loses_nothing() -> None:
    model, tokens = made(), ids(1, 200)
    kv = memory(model, budget=2 * 12 * PAGE)
    held, cache, plain = PagedCache(kv), PagedCache(kv), DynamicCache(config=model.config)
    read(model, held, ids(1, 60), [60])
    with pytest.raises(OutOfPagesError, match="free"):
        read(model, cache, tokens, [20] * 10)
    done = cache.get_seq_length()
    assert done % 20 == 0 and 0 < done < 200 and {layer.get_seq_length() for layer in cache.layers} == {done}
    expected = read(model, plain, tokens, [20] * 10)
    held.close()
    rest = read(model, cache, tokens[:, done:], [20] * ((200 - done) // 20))
    assert torch.equal(rest, expected[:, done:])


def test_slots_at_an_end_are_an_error_that_says_what_to_do() -> None:
    model = made()
    kv = memory(model, slots=2)
    one, two = PagedCache(kv), PagedCache(kv)
    read(model, one, ids(2, 4), [4])
    with pytest.raises(OutOfPagesError, match="close a cache"):
        read(model, two, ids(1, 4), [4])
    with pytest.raises(OutOfPagesError, match="slots are taken"):
        kv.take()
    one.close()
    read(model, two, ids(1, 4), [4])
    with pytest.raises(InputError, match="0 to 400"):
        read(model, two, ids(1, 400), [400])


def test_pages_may_be_mapped_ahead_by_a_thread() -> None:
    model, tokens = made(), ids(1, 150)
    kv = memory(model, background=True)
    with PagedCache(kv) as cache:
        plain = read(model, DynamicCache(config=model.config), tokens, [10] + [1] * 140)
        assert torch.equal(read(model, cache, tokens, [10] + [1] * 140), plain)
        late = sum(kv.step({0: 151 + more}) for more in range(100))
        assert late == 0  # the thread had been there before
    kv.close()


def test_what_went_wrong_ahead_is_told() -> None:
    kv = memory(made(), background=True)
    slot = kv.take()

    def broken(*_: object) -> None:
        raise PageError("the driver would not")

    kv.step({slot: 1})
    kv.settle()
    kv.pages.ahead = broken  # type: ignore[method-assign]
    kv.step({slot: 2})
    with pytest.raises(PageError, match="driver"):
        kv.stats()
    kv.close()


# --- compaction: what is evicted is free ---


@pytest.mark.parametrize("policy", [Window(2), Surprisal(2, recent=8)])
@pytest.mark.parametrize("reindex", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_what_a_stream_evicts_is_memory_that_is_free(policy, reindex: bool, fused: bool) -> None:
    model, tokens = made(), ids(1, 240)
    kv = memory(model, fused=fused)
    found, most = [], []
    for given in ({}, {"kv": kv}):
        cache = StreamingCache(model, policy, 40, buffer=8, reindex=reindex, **given)
        logits = []
        with torch.no_grad(), cache.attached(model):
            for start in range(0, 240, 20):
                logits.append(model(tokens[:, start : start + 20], cache=cache).logits)
                if given:
                    stats = kv.stats()
                    most.append(stats.resident)
                    assert stats.resident <= stats.used + stats.wasted
                    assert kv.pages.lengths[0] == cache.layers[0].keys.shape[-2] <= 48
                    assert stats.wasted < kv.layout.tensors * PAGE
        found.append(torch.cat(logits, dim=1))
    assert torch.equal(*found)
    assert max(most) <= kv.layout.blocks(68) * kv.layout.tensors * PAGE < 240 * kv.layout.token * kv.layout.tensors
    cache.close()
    assert kv.stats().resident == 0 and cache.seen == 0


def test_a_stream_over_pages_is_generated_like_any_other() -> None:
    model, said = made(), []
    kv = memory(model)
    for given in ({}, {"kv": kv}):
        cache = StreamingCache(model, Surprisal(4, recent=4), 16, buffer=4, **given)
        with cache.attached(model):
            said.append(
                model.generate(
                    ids(2, 30), cache=cache, max_new_tokens=40, num_beams=2, do_sample=False, eos_token_id=None
                )
            )
        cache.reset()
    assert torch.equal(*said)


def test_a_stream_that_ran_out_of_memory_goes_on_once_there_is_some() -> None:
    model, tokens = made(), ids(1, 60)
    kv = memory(model, budget=2 * 4 * PAGE)
    held = PagedCache(kv)
    read(model, held, ids(1, 60), [60])
    plain, cache = StreamingCache(model, Window(2), 40), StreamingCache(model, Window(2), 40, kv=kv)
    with torch.no_grad(), cache.attached(model), plain.attached(model):
        assert torch.equal(model(tokens[:, :20], cache=cache).logits, model(tokens[:, :20], cache=plain).logits)
        with pytest.raises(OutOfPagesError):
            model(tokens[:, 20:], cache=cache)
        held.close()
        assert torch.equal(model(tokens[:, 20:], cache=cache).logits, model(tokens[:, 20:], cache=plain).logits)


def test_a_slot_is_compacted_head_by_head_and_others_that_share_it_are_not() -> None:
    kv = VirtualKV(3, 2, 8, slots=4, tokens=200, budget=2**20, backend=MappedPages(PAGE, guarded=True))
    one, two = kv.take(), kv.take()
    kv.step({one: 120})
    keys, values = torch.randn(2, 3, 1, 2, 120, 8)
    for layer in range(3):
        kv.write(layer, one, 0, keys[layer], values[layer])
    kv.share(one, two, 100)
    places = torch.rand(3, 2, 120, generator=torch.Generator().manual_seed(0)).argsort(-1)[..., :30].sort(-1).values
    before = kv.stats()
    freed = kv.compact(one, places)
    assert freed == kv.layout.blocks(120) - kv.layout.blocks(30) and kv.pages.mapped(two) == kv.layout.blocks(100)
    for layer in range(3):
        wide = places[layer, ..., None].expand(2, 30, 8)[None]
        for kept, given in zip(kv.view(layer, one), (keys, values), strict=True):
            assert torch.equal(kept, given[layer].gather(2, wide))
        for kept, given in zip(kv.view(layer, two), (keys, values), strict=True):
            assert torch.equal(kept, given[layer][:, :, :100])
    kv.free(two, now=True)
    assert kv.stats().resident == kv.layout.blocks(30) * 2 * PAGE < before.resident
    with pytest.raises(InputError, match="places 0 to 29"):
        kv.compact(one, places)
    with pytest.raises(InputError, match="same number"):
        kv.compact(one, places[:2])


# --- what is refused ---


def test_what_cannot_be_kept_is_refused() -> None:
    model = made()
    kv = memory(model)
    cache = PagedCache(kv)
    with pytest.raises(InputError, match="no gradients"):
        model(ids(1, 4), cache=cache)
    read(model, cache, ids(1, 4), [4])
    with pytest.raises(InputError, match="1 rows, not 2"):
        read(model, cache, ids(2, 4), [4])
    with pytest.raises(InputError, match="bfloat16"):
        PagedCache(memory(model, dtype=torch.bfloat16)).update(*torch.zeros(2, 1, 2, 3, 8), 0)
    with pytest.raises(InputError, match="not pickled"):
        pickle.dumps(kv)
    with pytest.raises(InputError, match="not copied"):
        copy.deepcopy(kv)
    with pytest.raises(InputError, match="another device"):
        cache.layers[0].offload()
    with pytest.raises(InputError, match="beyond"):
        kv.view(0, cache.rows.first, 5)
    with pytest.raises(InputError, match="beyond"):
        kv.write(0, cache.rows.first, 4, *torch.zeros(2, 1, 2, 1, 8))
    with pytest.raises(InputError, match="the budget is"):
        memory(model, budget=PAGE)
    mistral = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=16))
    if "sliding_attention" in (getattr(mistral.config, "layer_types", None) or ()):
        with pytest.raises(InputError, match="sliding"):
            memory(mistral)


# --- tensors over addresses ---


def test_a_tensor_over_addresses_keeps_its_memory_and_lets_go_of_it() -> None:
    gc.collect()
    alive = len(virtual._KEPT)
    backend = MappedPages(PAGE)
    start = backend.reserve(2**33)
    backend.map(start, [0])
    tensor = tensor_at(start, 2**33, "cpu", backend).view(torch.float32)
    tensor[:8] = 3.0
    free = backend._freer
    backend.close()
    del backend
    gc.collect()
    assert free.alive and tensor[:8].sum() == 0  # nothing lies there any more; it can be read for all that
    view = tensor[4:8]
    del tensor
    gc.collect()
    assert len(virtual._KEPT) == alive + 1 and view.sum() == 0
    del view
    gc.collect()
    assert len(virtual._KEPT) == alive and not free.alive
    with pytest.raises(InputError, match="cpu or cuda"):
        tensor_at(start, 1, "meta", None)


def test_a_program_may_end_with_tensors_over_addresses() -> None:
    code = (
        "import torch; from holdfast.latent.virtual import VirtualKV\n"
        "kv = VirtualKV(2, 2, 8, slots=2, tokens=100, budget=2**24); slot = kv.take(); kv.step({slot: 3})\n"
        "KEPT = kv.view(0, slot); print('done', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


# --- the page and the benchmark ---


def test_the_example_of_the_page_runs(capsys) -> None:
    page = (Path(__file__).parents[1] / "docs" / "paging.md").read_text()
    (example,) = [
        one for one in re.findall(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "PagedCache" in one
    ]
    names = {"model": made(), "prompt": ids(1, 20)}
    exec(compile(example, "docs/paging.md", "exec"), names)
    assert names["said"].shape[1] > 20 and "resident=" in capsys.readouterr().out
    names["kv"].close()


def test_the_benchmark_measures_every_way() -> None:
    from benchmarks import paging

    torch.manual_seed(0)
    assert set(paging.mapping(2)) == {
        "map", "write the first time", "write again", "copy", "unmap and free", "anonymous, map and write",
    }  # fmt: skip
    assert set(paging.growth(64, 1)) == {"in place", "concatenated", "set aside"}
    found = paging.attention(64, 1)
    assert set(found) == {"contiguous", "fused", "gathered", "concatenated"}
    assert all(0 < one["best"] <= one["median"] for one in found.values())
