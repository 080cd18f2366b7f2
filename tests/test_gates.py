"""Gates: softened attention is the formula, soft sizes are the plain sum, what is learnt is only the gates, and what lasts is kept."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")

from torch.nn.attention.flex_attention import flex_attention  # noqa: E402

from holdfast.errors import InputError, StaleError  # noqa: E402
from holdfast.latent.gates import (  # noqa: E402
    _GATING,
    LOG_BETA,
    GatedRetention,
    RetentionGate,
    RetentionGates,
    Rows,
    _attend,
    _Gating,
    expected_lifetime,
    fingerprint,
    gated,
    soft_sizes,
    train_retention_gates,
)
from holdfast.latent.streaming import StreamingCache  # noqa: E402
from test_retention import drawn, held, masked, stream  # noqa: E402
from test_streaming import made  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def shaken(model, bias: float = 2.0) -> RetentionGates:
    """Gates that tell entries apart without having learnt anything."""
    gates = RetentionGates.of(model, width=16, bias=bias)
    drawn = torch.Generator().manual_seed(9)
    for gate in gates:
        torch.nn.init.normal_(gate.inner.weight, 0, 1.0, generator=drawn)
        torch.nn.init.normal_(gate.outer.weight, 0, 0.5, generator=drawn)
    return gates.requires_grad_(False)


def test_a_gate_is_the_formula() -> None:
    gate, hidden = RetentionGate(6, 3, width=5, bias=1.5, seed=4), torch.randn(2, 7, 6)
    inner = hidden @ gate.inner.weight.T + gate.inner.bias
    plain = (inner * torch.sigmoid(inner)) @ gate.outer.weight.T + 1.5
    assert torch.allclose(gate(hidden), torch.log(torch.sigmoid(plain)).transpose(1, 2), atol=1e-6)
    published = RetentionGate(6, 3)
    beta = published(hidden.half())
    assert beta.dtype == torch.float32 and beta.max() < 0, "half precision would say that nothing ever decays"
    assert expected_lifetime(torch.tensor([-0.01])).item() == pytest.approx(100)


@pytest.mark.parametrize("block", [1, 5, 64])
def test_soft_sizes_are_the_plain_sum_and_so_are_their_gradients(block: int) -> None:
    log_beta = torch.nn.functional.logsigmoid(torch.randn(2, 3, 17, dtype=torch.float64)).requires_grad_()
    plain = torch.stack(
        [sum((log_beta[..., i] * (t - i)).exp() for i in range(t + 1)) for t in range(17)], dim=-1
    )  # fmt: skip
    found = soft_sizes(log_beta, block)
    assert torch.allclose(found, plain)
    weights = torch.randn(2, 3, 17, dtype=torch.float64)
    (ours,) = torch.autograd.grad((found * weights).sum(), log_beta)
    (theirs,) = torch.autograd.grad((plain * weights).sum(), log_beta)
    assert torch.allclose(ours, theirs)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("multiply", [False, True])
def test_softened_attention_is_that_of_flex_attention(multiply: bool) -> None:
    g = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, 11, 8, generator=g) for heads in (4, 2, 2))
    log_beta = torch.nn.functional.logsigmoid(torch.randn(2, 2, 11, generator=g))

    def score(logit, row, head, q, k):
        decay = log_beta[row, head // 2, k] * (q - k)
        soft = logit * decay.exp() if multiply else logit + decay
        return torch.where(q >= k, soft, float("-inf"))

    expected = flex_attention(query, key, value, score_mod=score, enable_gqa=True, scale=0.3)
    token = _GATING.set(_Gating([log_beta], multiply))
    try:
        found, _ = _attend(torch.nn.Identity(), query, key, value, None, scaling=0.3)
    finally:
        _GATING.reset(token)
    assert torch.allclose(found.transpose(1, 2), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_gates_that_forget_nothing_leave_the_model_as_it_is(kind: str) -> None:
    model, ids = made(kind), drawn(1)
    with torch.no_grad():
        plain = model(ids, use_cache=False).logits
        with gated(model, RetentionGates.of(model, bias=40.0)) as seen:
            found = model(ids, use_cache=False).logits
    assert torch.allclose(found, plain, atol=1e-5) and len(seen) == 3 and seen[0].shape == (2, 2, 28)
    with torch.no_grad(), gated(model, shaken(model)):
        assert not torch.allclose(model(ids, use_cache=False).logits, plain, atol=1e-2)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("scope", ["head", "layer", "global"])
def test_a_cache_keeps_by_the_gates_what_they_say_at_the_hidden_states_it_saw(scope: str) -> None:
    model, ids = made("qwen3"), drawn(2)
    gates = shaken(model)
    cache = StreamingCache(model, GatedRetention(gates), 8, scope=scope)
    found, kept_then = stream(model, cache, ids)
    assert torch.allclose(found, masked(model, ids, kept_then), atol=1e-4)
    # The first layer's hidden states hang on the tokens alone.
    with torch.no_grad():
        first = gates[0](model.model.layers[0].input_layernorm(model.model.embed_tokens(ids)))
    entries = cache.entries(0)
    for row, by_head in enumerate(held(cache)[0]):
        for head, positions in enumerate(by_head):
            noted = entries.notes[LOG_BETA][row, head]
            noted = noted if entries.held is None else noted[entries.held[row, head]]
            assert torch.allclose(noted, first[row, head, positions], atol=1e-5)
    if scope == "head":
        for row in range(2):
            for head in range(2):
                # What was kept after the last piece is the best of what was kept before it and of the piece.
                here = sorted({*kept_then[-2][0][row][head], *range(24, 28)})
                worth = [(float(first[row, head, at] * (28 - at)), at) for at in here]
                assert kept_then[-1][0][row][head] == sorted(at for _, at in sorted(worth, reverse=True)[:8])


def test_what_is_pinned_outlasts_the_gates() -> None:
    model = made()
    cache = StreamingCache(model, GatedRetention(shaken(model, bias=-2.0), sinks=3, recent=2), 6)
    stream(model, cache, drawn(3, rows=1))
    assert all({0, 1, 2, 26, 27} <= {*head} for layer in held(cache) for head in layer[0])


def test_training_changes_the_gates_alone_and_shrinks_what_they_hold() -> None:
    model = made()
    before, state = fingerprint(model), [parameter.requires_grad for parameter in model.parameters()]
    losses = []
    tokens = drawn(4, rows=2, sizes=[24])
    mask = torch.ones(2, 24, dtype=torch.bool)
    mask[1, 15:] = False
    gates = train_retention_gates(
        model, [Rows(tokens, mask)] * 30, 4, width=16, bias=4.0, rate=2e-2, progress=lambda _, one: losses.append(one)
    )
    assert fingerprint(model) == before and [p.requires_grad for p in model.parameters()] == state
    assert model.config._attn_implementation == "sdpa"
    assert losses[0].size > 12 and losses[-1].size < 0.7 * losses[0].size and losses[-1].over < losses[0].over
    assert losses[0].kl == pytest.approx(0.0, abs=0.05)
    # Without the hinge and only drawn towards the whole model, there is no reason to forget.
    free = []
    train_retention_gates(
        model, [Rows(tokens, mask)] * 30, 4, width=16, bias=4.0, rate=2e-2, told=0.0, capacity=0.0, progress=lambda _, one: free.append(one)
    )  # fmt: skip
    assert free[-1].size > 12
    assert not any(parameter.requires_grad for parameter in gates.parameters())


def test_what_is_padded_changes_nothing() -> None:
    model, short = made(), drawn(5, rows=2, sizes=[12])
    padded = torch.cat([short, torch.full((2, 9), 7)], dim=1)
    mask = torch.arange(21).expand(2, 21) < 12
    told = []
    for rows in (Rows(short), Rows(padded, mask)):
        train_retention_gates(model, [rows], 3, width=8, bias=1.0, progress=lambda _, one: told.append(one))
    for name in ("kl", "told", "over", "size"):
        assert getattr(told[0], name) == pytest.approx(getattr(told[1], name), rel=1e-4), name


def test_gates_are_kept_with_the_model_that_they_are_of() -> None:
    model = made()
    gates = shaken(model)
    data = gates.pack(model, 16)
    assert len(data) < 40_000, "the gates alone"
    back = RetentionGates.unpack(data, model)
    hidden = torch.randn(1, 5, 32)
    assert all(torch.equal(one(hidden), other(hidden)) for one, other in zip(gates, back, strict=True))
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1e-3
    with pytest.raises(StaleError, match="model"):
        RetentionGates.unpack(data, model)
    for wrong in (
        lambda: RetentionGates.unpack(b"nothing", model),
        lambda: GatedRetention(gates, sinks=-1),
        lambda: train_retention_gates(model, [], 0),
        lambda: RetentionGates.of(_bare(model)),
    ):
        with pytest.raises(InputError):
            wrong()
    with gated(model, gates), torch.no_grad():
        cache = model(hidden.argmax(-1), use_cache=True)
        with pytest.raises(InputError, match="without a cache"):
            model(hidden.argmax(-1)[:, :1], cache=cache.past_key_values)


def _bare(model):
    """A model whose attention goes by another name."""

    class Bare(torch.nn.Module):
        config, device = model.config, model.device

    return Bare()
