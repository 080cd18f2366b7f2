"""A bounded cache is right: what is kept is what attention sees, positions and masks fit, and the length is bounded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")

from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM  # noqa: E402

from holdfast.errors import InputError  # noqa: E402
from holdfast.latent.retention import Entries, kept  # noqa: E402
from holdfast.latent.streaming import StreamingCache  # noqa: E402
from holdfast.latent.surprisal import SURPRISE, Surprisal  # noqa: E402
from holdfast.latent.window import Window  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip


def made(kind: str = "llama", attention: str = "sdpa"):
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES) if kind == "llama" else Qwen3Config(**SIZES, head_dim=8)
    config._attn_implementation = attention
    return (LlamaForCausalLM if kind == "llama" else Qwen3ForCausalLM)(config).eval()


def read(model, cache, ids, sizes):
    """Logits of a text that is read in pieces of some sizes, and after each the positions that are kept."""
    logits, held, start = [], [], 0
    with torch.no_grad(), cache.attached(model):
        for size in sizes:
            logits.append(model(ids[:, start : start + size], cache=cache).logits)
            start += size
            held.append(cache.layers[0].positions.clone())
    return torch.cat(logits, dim=1), held


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_what_is_never_full_is_the_plain_model(kind: str, attention: str) -> None:
    model, ids = made(kind, attention), torch.arange(40)[None] % 61
    with torch.no_grad():
        plain = model(ids).logits
    found, _ = read(model, StreamingCache(model, Surprisal(), 64), ids, [7, 1, 20, 12])
    assert torch.allclose(found, plain, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("policy", [Window(2), Surprisal(2, recent=3), Surprisal(1, decay=0.7)])
def test_what_was_kept_is_what_attention_sees(kind: str, policy) -> None:
    model, sizes = made(kind, "eager"), [6, 5, 1, 1, 9, 1, 1, 4]
    ids = torch.randint(0, 61, (2, sum(sizes)), generator=torch.Generator().manual_seed(1))
    found, held = read(model, StreamingCache(model, policy, 8), ids, sizes)
    assert all(one.shape[-1] <= 8 for one in held)
    # The same by one forward pass whose mask shows each piece what was kept before it, and itself as far as it is causal.
    length, start = sum(sizes), 0
    mask = torch.full((2, 1, length, length), float("-inf"))
    for at, size in enumerate(sizes):
        rows = torch.arange(start, start + size)
        for row in range(2):
            if at:
                mask[row, 0, rows[:, None], held[at - 1][row, 0][None]] = 0
            mask[row, 0, rows[:, None], rows[None]] = torch.full((size, size), float("-inf")).triu(1)
        start += size
    with torch.no_grad():
        plain = model(ids, attention_mask=mask).logits
    assert torch.allclose(found, plain, atol=1e-4), (found - plain).abs().max()


def test_surprise_is_the_formula_across_pieces() -> None:
    model = made()
    ids = torch.randint(0, 61, (2, 24), generator=torch.Generator().manual_seed(2))
    cache = StreamingCache(model, Surprisal(), 64)
    read(model, cache, ids, [5, 1, 8, 10])
    with torch.no_grad():
        plain = torch.log_softmax(model(ids).logits, dim=-1)
    expected = -plain[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    noted = cache.layers[1].notes[SURPRISE]
    assert noted.shape == (2, 2, 24) and torch.allclose(noted[:, 0, 1:], expected, atol=1e-4)
    assert torch.allclose(noted[:, 0, 0], expected[:, :4].amax(dim=1), atol=1e-4)


def test_a_turn_fades_what_was_noted_in_every_layer() -> None:
    model = made()
    cache = StreamingCache(model, Surprisal(decay=0.5), 64)
    read(model, cache, torch.arange(12)[None], [12])
    before = [layer.notes[SURPRISE].clone() for layer in cache.layers]
    cache.end_turn()
    assert all(
        torch.equal(layer.notes[SURPRISE], was / 2) and was.any()
        for layer, was in zip(cache.layers, before, strict=True)
    )


def test_noise_takes_no_more_than_its_share() -> None:
    tokens, logits = torch.randint(0, 61, (1, 12)), torch.randn(1, 12, 61)
    plain, bounded = (Surprisal(most=most).observe(tokens, logits, torch.zeros(1, 61))[SURPRISE] for most in (None, 3))
    assert sorted(bounded[bounded > 0].tolist()) == sorted(plain[0].tolist())[-3:]


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_positions_within_the_cache_are_as_if_the_keys_had_never_been_elsewhere(kind: str) -> None:
    model = made(kind)
    ids = torch.randint(0, 61, (1, 30), generator=torch.Generator().manual_seed(3))
    cache = StreamingCache(model, Window(2), 10, reindex=True)
    read(model, cache, ids, [12, 1, 9, 8])
    assert cache.get_seq_length() == 10 and cache.seen == 30
    layer = cache.layers[0]
    assert layer.positions[0, 0].tolist() == [*range(10)]
    # The first layer's keys hang on their token and place alone.
    kept_ids = torch.cat([ids[:, :2], ids[:, -8:]], dim=1)
    with torch.no_grad():
        fresh = model(kept_ids, use_cache=True).past_key_values
    assert torch.allclose(layer.keys, fresh.layers[0].keys, atol=1e-4)


def test_generation_streams_past_any_length_in_bounded_memory() -> None:
    model = made()
    cache = StreamingCache(model, Surprisal(4, recent=4), 16, buffer=4)
    with cache.attached(model):
        out = model.generate(torch.arange(30)[None], past_key_values=cache, max_new_tokens=50, do_sample=False)
    assert out.shape == (1, 80) and cache.seen == 79
    assert {layer.keys.shape[-2] for layer in cache.layers} <= {*range(16, 21)}
    cache.reset()
    assert cache.get_seq_length() == 0 and cache.seen == 0


@pytest.mark.parametrize("reindex", [False, True])
def test_a_talk_of_several_turns_is_generated_as_if_stepped_by_hand(reindex: bool) -> None:
    model, said = made(), {}
    drawn = torch.Generator().manual_seed(5)
    turns = [torch.randint(0, 61, (1, length), generator=drawn) for length in (12, 7, 9)]
    for way in ("generate", "by hand"):
        cache, last = StreamingCache(model, Surprisal(2, recent=4), 16, reindex=reindex), turns[0][:, :0]
        with torch.no_grad(), cache.attached(model):
            for turn in turns:
                new = torch.cat([last, turn], dim=1)
                if way == "generate":
                    told = cache.prompt(new)
                    out = model.generate(**told, cache=cache, max_new_tokens=6, do_sample=False, eos_token_id=None)
                    out = out[:, told["input_ids"].shape[1] :]
                else:
                    out = new[:, :0]
                    while out.shape[1] < 6:
                        out = torch.cat([out, model(new, cache=cache).logits[:, -1:].argmax(-1)], dim=1)
                        new = out[:, -1:]
                said.setdefault(way, []).append(out.tolist())
                last = out[:, -1:]
    assert said["generate"] == said["by hand"]


def test_equal_scores_keep_the_earlier_and_order_stays() -> None:
    scores = torch.tensor([[[1.0, 3.0, 1.0, float("inf"), 1.0]]])
    assert kept(scores, 3).tolist() == [[[0, 1, 3]]]
    for wrong in (lambda: kept(scores, 6), lambda: kept(scores * float("nan"), 2)):
        with pytest.raises(InputError):
            wrong()


def test_what_cannot_be_is_refused() -> None:
    model = made()
    for wrong in (
        lambda: StreamingCache(model, Window(), 0),
        lambda: Surprisal(decay=0.0),
        lambda: Surprisal(most=0),
        lambda: Window(-1),
    ):
        with pytest.raises(InputError):
            wrong()
    cache = StreamingCache(model, Surprisal(), 8)
    with pytest.raises(InputError, match="call the model with all logits"):
        cache.observe(torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 1, 61))
    assert Entries(torch.zeros(1, 1, 0, 4), torch.zeros(1, 1, 0, 4), torch.zeros(1, 1, 0)).notes == {}


def test_padding_is_refused_and_a_step_that_nobody_tells_of() -> None:
    model = made()
    cache = StreamingCache(model, Window(), 8)
    with torch.no_grad(), cache.attached(model), pytest.raises(InputError, match="no padding"):
        model(torch.ones(1, 4, dtype=torch.long), attention_mask=torch.tensor([[0, 1, 1, 1]]), cache=cache)
    with torch.no_grad():
        model(torch.ones(1, 4, dtype=torch.long), cache=cache)
        with pytest.raises(InputError, match=r"within attached\(\)"):
            model(torch.ones(1, 4, dtype=torch.long), cache=cache)


def test_the_example_of_the_page_streams(tmp_path: Path) -> None:
    made().save_pretrained(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "state.md").read_text()
    (example,) = (one for one in re.findall(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "Streaming" in one)
    names = {"PATH": tmp_path, "talk": [torch.randint(0, 61, (1, 30)), torch.randint(0, 61, (1, 9))]}
    exec(compile(example.replace("max_new_tokens=200", "max_new_tokens=5"), "docs/state.md", "exec"), names)
    assert 30 + 9 < names["cache"].seen <= 30 + 9 + 2 * 5
