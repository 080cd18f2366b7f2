"""Memory sparse attention is one dense attention with a mask, routed as a loop would; training needs nothing but an ordinary loop."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")

from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM, StaticCache  # noqa: E402

from holdfast.cube import Cube  # noqa: E402
from holdfast.errors import InputError  # noqa: E402
from holdfast.latent.sparse_attention import (  # noqa: E402
    Router,
    attached,
    chosen,
    pooled,
    read,
    relevance,
    routing_loss,
    together,
)
from support import ANA  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip


def model_of(kind: str = "llama", attention: str = "sdpa"):
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES) if kind == "llama" else Qwen3Config(**SIZES, head_dim=8)
    config._attn_implementation = attention
    return (LlamaForCausalLM if kind == "llama" else Qwen3ForCausalLM)(config).eval()


def router_of(model, **more) -> Router:
    torch.manual_seed(1)
    return Router(model, **{"top_k": 3, "pool": 4, "layers": (1, 2), **more})


def ids(rows: int, length: int, seed: int = 1):
    return torch.randint(1, 61, (rows, length), generator=torch.Generator().manual_seed(seed))


def some(*shape: int, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- the parts ---


def test_a_chunk_is_the_mean_of_the_tokens_that_it_has() -> None:
    x, lengths = some(3, 11, 2, 5), torch.tensor([11, 4, 6])
    found = pooled(x, 4, lengths)
    assert found.shape == (3, 3, 2, 5)
    for row, length in enumerate(lengths.tolist()):
        for chunk in range(3):
            part = x[row, 4 * chunk : min(4 * chunk + 4, length)]
            expected = part.mean(0) if len(part) else torch.zeros(2, 5)
            assert torch.allclose(found[row, chunk], expected, atol=1e-6)


@pytest.mark.parametrize("tile", [None, 1, 3])
@pytest.mark.parametrize("shared", [False, True])
def test_relevance_is_a_loop_over_documents_chunks_tokens_and_heads(tile: int | None, shared: bool) -> None:
    queries, keys = some(2, 5, 4, 6), some(1 if shared else 2, 7, 3, 2, 6, seed=1)
    there, asked = torch.rand(keys.shape[:3]) < 0.7, torch.tensor([[1, 0, 1, 1, 0], [0, 1, 0, 0, 1]]).bool()
    there[0, 2] = False
    found = relevance(queries, keys, there, asked, tile=tile)
    for row in range(2):
        at = 0 if shared else row
        for n in range(7):
            scores = [
                sum(
                    torch.cosine_similarity(queries[row, t, h], keys[at, n, c, h // 2], dim=0).item() for h in range(4)
                ) / 4
                for t in range(5) if asked[row, t]
                for c in range(3) if there[at, n, c]
            ]  # fmt: skip
            assert found[row, n].item() == pytest.approx(max(scores, default=-math.inf), abs=1e-5)


def test_the_best_are_chosen_in_the_order_of_documents_and_what_is_empty_never_is() -> None:
    scores = torch.tensor([[0.1, 0.9, -1.0, 0.5], [0.3, -math.inf, -math.inf, -math.inf]])
    best, there = chosen(scores, 2)
    assert best[0].tolist() == [1, 3] and there.tolist() == [[True, True], [True, False]] and best[1, 0] == 0
    assert chosen(scores, 9)[0].shape == (2, 4)


def test_the_loss_of_routing_lets_relevant_documents_not_compete() -> None:
    scores, relevant = some(4, 6).requires_grad_(), torch.tensor(
        [[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]
    ).bool()  # fmt: skip
    rows = []
    for row, right in zip(scores.tolist(), relevant.tolist(), strict=True):
        good = [math.exp(s / 0.2) for s, yes in zip(row, right, strict=True) if yes]
        bad = sum(math.exp(s / 0.2) for s, yes in zip(row, right, strict=True) if not yes)
        if good:
            rows.append(sum(-math.log(one / (one + bad)) for one in good) / len(good))
    loss = routing_loss({1: scores, 2: scores}, relevant, temperature=0.2)
    assert loss.item() == pytest.approx(sum(rows) / len(rows), rel=1e-5)
    loss.backward()
    assert scores.grad.isfinite().all() and not scores.grad[2].any()
    some_there = scores.detach().clone()
    some_there[0, 5] = -math.inf  # a place that holds no document
    assert routing_loss(some_there, relevant).isfinite()


# --- in a model ---


def by_hand(model, router: Router, texts, documents):
    """Everything anew from the model's weights: documents and question by plain loops, the router's choice made at every layer."""
    config, layers = model.config, model.model.layers
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    size = layers[0].self_attn.head_dim

    def block(n, x, first, before):
        part, attention = layers[n], layers[n].self_attn
        h = part.input_layernorm(x)
        length = len(h)
        q, k, v = (
            getattr(attention, f"{name}_proj")(h).view(length, -1, size) for name in "qkv"
        )  # fmt: skip
        if hasattr(attention, "q_norm"):
            q, k = attention.q_norm(q), attention.k_norm(k)
        angles = torch.outer(
            torch.arange(first, first + length).float(),
            1.0 / config.rope_parameters["rope_theta"] ** (torch.arange(0, size, 2).float() / size),
        )
        cos, sin = angles.cos().repeat(1, 2)[:, None], angles.sin().repeat(1, 2)[:, None]

        def turned(one):
            return one * cos + torch.cat([-one[..., size // 2 :], one[..., : size // 2]], -1) * sin

        q, k = turned(q), turned(k)
        keys, values = (k, v) if before is None else (torch.cat([before[0], k]), torch.cat([before[1], v]))
        extra = len(keys) - length
        out = torch.zeros(length, heads, size)
        for t in range(length):
            for g in range(heads):
                one = g * groups // heads
                weights = (keys[: extra + t + 1, one] @ q[t, g] * size**-0.5).softmax(0)
                out[t, g] = weights @ values[: extra + t + 1, one]
        x = x + attention.o_proj(out.flatten(1))
        return x + part.mlp(part.post_attention_layernorm(x)), h, k, v

    def chunks(x):
        return torch.stack([part.mean(0) for part in x.split(router.pool)])

    kept = []
    for text in documents:
        x, of_layers = model.model.embed_tokens(text), {}
        for n in range(len(layers)):
            x, h, k, v = block(n, x, 0, None)
            if n in router.layers:
                routing = router.to_keys[str(n)](h).view(len(text), groups, size)
                of_layers[n] = chunks(k), chunks(v), chunks(routing)
        kept.append(of_layers)
    logits, picked = [], []
    for text in texts:
        x, best = model.model.embed_tokens(text), {}
        for n in range(len(layers)):
            before = None
            if n in router.layers and kept:
                h = layers[n].input_layernorm(x)
                asking = router.to_queries[str(n)](h).view(1, len(text), heads, size)
                scores = [
                    relevance(asking, one[n][2][None, None], torch.ones(1, 1, len(one[n][2]), dtype=torch.bool)).item()
                    for one in kept
                ]
                best[n] = sorted(sorted(range(len(kept)), key=lambda i: -scores[i])[: router.top_k])
                before = [torch.cat([kept[i][n][part] for i in best[n]]) for part in (0, 1)]
            x = block(n, x, router.top_k if kept else 0, before)[0]
        logits.append(model.lm_head(model.model.norm(x)))
        picked.append(best)
    return logits, picked


def documents_of(model, router, texts):
    return together([read(model, router, text[None]) for text in texts])


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@torch.no_grad()
def test_a_question_sees_its_documents_as_one_dense_attention_by_hand(kind: str) -> None:
    model = model_of(kind)
    router = router_of(model)
    texts = [ids(1, length, seed)[0] for seed, length in enumerate((9, 3, 12, 4, 7), 2)]
    questions = [ids(1, 6, 20)[0], ids(1, 6, 21)[0]]
    expected, picked = by_hand(model, router, questions, texts)
    documents = documents_of(model, router, texts)
    assert documents.there.sum(-1).tolist() == [[3, 1, 3, 1, 2]]
    with attached(model, router) as memory:
        memory.use(documents)
        found = model(torch.stack(questions)).logits
        for layer in router.layers:
            assert memory.chosen[layer].tolist() == [one[layer] for one in picked]
            assert memory.scores[layer].shape == (2, 5)
    assert torch.allclose(found, torch.stack(expected), atol=1e-4)
    router.tile = 2
    with attached(model, router) as memory:
        memory.use(documents)
        assert torch.allclose(model(torch.stack(questions)).logits, found, atol=1e-5)


@torch.no_grad()
def test_many_documents_read_at_once_are_what_each_is_alone() -> None:
    model = model_of()
    router = router_of(model)
    texts = [ids(1, length, seed)[0] for seed, length in enumerate((9, 3, 12), 2)]
    alone = documents_of(model, router, texts)
    wide = torch.stack([torch.nn.functional.pad(text, (0, 12 - len(text)), value=7) for text in texts])
    at_once = read(model, router, wide, torch.tensor([9, 3, 12]))
    assert torch.equal(at_once.there, alone.there)
    for part in ("keys", "values", "routing"):
        for layer in router.layers:
            assert torch.allclose(getattr(at_once, part)[layer], getattr(alone, part)[layer], atol=1e-5)
    rows = at_once.by_row(3)
    assert rows.there.shape == (3, 1, 3) and torch.equal(rows.keys[1][2, 0], at_once.keys[1][0, 2])


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_without_documents_and_afterwards_the_model_is_what_it_was(kind: str, attention: str) -> None:
    model, text = model_of(kind, attention), ids(2, 9)
    router = router_of(model)
    plain = model(text).logits
    with attached(model, router) as memory:
        assert torch.allclose(model(text).logits, plain, atol=1e-5)
        memory.use(read(model, router, ids(4, 8)))
        assert not torch.allclose(model(text).logits, plain, atol=1e-2)
        assert all(
            torch.equal(a, b)
            for a, b in zip(
                read(model, router, text).keys.values(), read(model, router, text).keys.values(), strict=True
            )
        )
        memory.use(None)
        assert torch.allclose(model(text).logits, plain, atol=1e-5)
    assert torch.equal(model(text).logits, plain) and model.config._attn_implementation == attention


@torch.no_grad()
def test_documents_are_read_without_documents_even_while_some_are_in_use() -> None:
    model = model_of()
    router, text = router_of(model), ids(2, 9)
    before = read(model, router, text)
    with attached(model, router) as memory:
        memory.use(read(model, router, ids(4, 8)))
        after = read(model, router, text)
        assert all(torch.allclose(before.values[at], after.values[at], atol=1e-6) for at in router.layers)
        assert all(torch.allclose(before.keys[at], after.keys[at], atol=1e-6) for at in router.layers)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@torch.no_grad()
def test_generating_token_by_token_is_reading_at_once_and_padding_changes_nothing(kind: str) -> None:
    model = model_of(kind)
    router = router_of(model)
    documents = read(model, router, ids(6, 8, 3))
    prompts = [ids(1, 7, 4)[0], ids(1, 4, 5)[0]]
    given = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with attached(model, router) as memory:
        alone = []
        for prompt in prompts:
            memory.use(documents)
            alone.append(model.generate(prompt[None], **given)[0, len(prompt) :].tolist())
            first, text, said = dict(memory.chosen), prompt[None], []
            for _ in range(6):
                memory.use(documents, asked=torch.arange(text.shape[1])[None] < len(prompt))
                said.append(model(text, use_cache=False).logits[0, -1].argmax().item())
                assert all(torch.equal(memory.chosen[at], first[at]) for at in router.layers)
                text = torch.cat([text, torch.tensor([[said[-1]]])], dim=1)
            assert said == alone[-1]
        memory.use(documents)
        padded = torch.stack([prompts[0], torch.cat([torch.zeros(3, dtype=torch.long), prompts[1]])])
        mask = torch.tensor([[1] * 7, [0] * 3 + [1] * 4])
        assert model.generate(padded, attention_mask=mask, **given)[:, 7:].tolist() == alone
        memory.use(documents)
        with pytest.raises(InputError, match="fixed size"):
            model.generate(prompts[0][None], cache=StaticCache(config=model.config, max_cache_len=32), **given)
        memory.use(documents)
        expected = model.generate(prompts[1][None], num_beams=3, **given)[0, 4:].tolist()
        memory.use(documents)
        assert model.generate(padded, attention_mask=mask, num_beams=3, **given)[1, 7:].tolist() == expected


def test_an_ordinary_loop_trains_the_router_and_what_documents_leave() -> None:
    model = model_of().train()
    router = router_of(model, top_k=2, layers=(1,))
    optimizer = torch.optim.AdamW([*model.parameters(), *router.parameters()], lr=5e-3)
    made = torch.Generator().manual_seed(3)
    recalled, losses = [], []
    with attached(model, router) as memory:
        for _ in range(60):
            texts = torch.stack([torch.randperm(60, generator=made)[:16].view(4, 4) + 1 for _ in range(16)])
            right = torch.randint(0, 4, (16,), generator=made)
            memory.use(read(model, router, texts.flatten(0, 1)).by_row(16))
            question = texts[torch.arange(16), right, :1]
            loss = torch.nn.functional.cross_entropy(model(question).logits[:, -1], texts[torch.arange(16), right, 1])
            relevant = torch.nn.functional.one_hot(right, 4).bool()
            (loss + routing_loss(memory.scores, relevant)).backward()
            if not losses:
                assert all(one.grad is not None and one.grad.any() for one in router.parameters())
                assert model.model.layers[1].self_attn.v_proj.weight.grad.any()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            recalled.append((memory.chosen[1] == right[:, None]).any(1).float().mean().item())
    assert sum(recalled[-10:]) / 10 > 0.9 > sum(recalled[:5]) / 5 and losses[-1] < losses[0]


def test_what_cannot_be_is_refused() -> None:
    model = model_of()
    router = router_of(model)
    documents = read(model, router, ids(4, 8))
    for wrong in (
        lambda: router_of(model, layers=(3,)),
        lambda: router_of(model, layers=()),
        lambda: router_of(model, top_k=0),
        lambda: Router(torch.nn.Linear(2, 2)),
        lambda: read(model, router, ids(1, 8)[0]),
        lambda: read(model, router, ids(2, 8), torch.tensor([8, 9])),
        lambda: documents.by_row(3),
        lambda: together([]),
        lambda: routing_loss({}, torch.ones(1, 2).bool()),
        lambda: routing_loss(torch.zeros(1, 2), torch.zeros(1, 2).bool()),
    ):
        with pytest.raises(InputError):
            wrong()
    past = model(ids(1, 4), use_cache=True).cache
    with attached(model, router) as memory:
        with pytest.raises(InputError, match="already"), attached(model, router):
            pass
        memory.use(documents.by_row(2))
        with pytest.raises(InputError, match="rows"):
            model(ids(3, 4))
        memory.use(documents)
        with pytest.raises(InputError, match="past"):
            model(ids(1, 4), cache=past)
        with pytest.raises(InputError, match="no names"):
            memory.found()
        memory.use(documents, asked=torch.ones(1, 3).bool())
        with pytest.raises(InputError, match="mask"):
            model(ids(1, 4))


def test_the_example_of_the_page_runs() -> None:
    page = (Path(__file__).parents[1] / "docs" / "layers.md").read_text()
    (example,) = (
        one for one in re.findall(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "DocumentBank" in one
    )
    texts = ids(2, 9)
    names = {
        "model": model_of(), "rows": 2, "documents": ids(6, 12), "question": torch.arange(9)[None].expand(2, -1) < 6,
        "texts": texts, "labels": texts, "relevant": torch.eye(2, 3).bool(), "cube": Cube(ANA, "words"), "tokens": ids(1, 12)[0],
        "prompt": ids(1, 5),
    }  # fmt: skip
    exec(compile(example, "docs/layers.md", "exec"), names)
    assert names["loss"].isfinite() and names["said"].shape[1] > 5
