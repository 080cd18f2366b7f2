"""A mixture of memories is what a loop over memories and their own tokens says, on every path, and can be looked into."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

from holdfast.errors import InputError  # noqa: E402
from holdfast.latent import mixture  # noqa: E402
from holdfast.latent.layers import unit  # noqa: E402
from holdfast.latent.mixture import MixtureOfMemories, Routing, balance, emptied, frozen, spread, watched  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

RULES = ["linear", "gated_linear", "delta", "gated_delta", "gla"]


def made(rule: str = "gated_delta", **more) -> MixtureOfMemories:
    torch.manual_seed(3)
    return MixtureOfMemories(12, 2, key_dim=4, value_dim=6, rule=rule, conv=3, size=4, **more).eval()


def by_hand(layer: MixtureOfMemories, x):
    """Each memory reads the tokens that were routed to it, and those alone, one by one."""
    (length, _), heads, n = x.shape[1:], layer.heads, layer.memories + layer.shared

    def conv(inputs, weight):
        width = weight.shape[0]
        past = torch.cat([inputs.new_zeros(width - 1, inputs.shape[-1]), inputs])
        return torch.stack([(past[t : t + width] * weight).sum(0) for t in range(length)])

    out = []
    for row in x:
        all_ = conv(layer.to_all(row), layer.conv.weight[:, layer.conv.shared])
        q, k, v = torch.nn.functional.silu(all_).split(layer._sides, dim=-1)
        q = unit(q.view(length, heads, 4)) * 4**-0.5
        k, v = unit(k.view(length, n, heads, 4)), v.view(length, n, heads, 6)
        likely = layer.router(torch.nn.functional.silu(conv(row, layer.router_conv.weight))).softmax(-1)
        total = torch.zeros(length, heads, 6)
        for m in range(n):
            for h in range(heads):
                s = torch.zeros(4, 6)
                for t in range(length):
                    best = likely[t].topk(layer.top_k).indices.tolist()
                    if m < layer.memories and m not in best:
                        continue
                    g = 1.0 if m == layer.memories else likely[t, m]
                    if m < layer.memories and layer.top_k > 1:
                        g = likely[t, m] / likely[t, best].sum()
                    if layer.rule.decay == "head":
                        logit = layer.to_fading(row[t]).view(n, heads)[m, h]
                        step = torch.nn.functional.softplus(logit + layer.bias[h])
                        s = s * torch.exp(-layer.rate[h].exp() * step)
                    elif layer.rule.decay == "channel":
                        logit = layer.to_fading(row[t]).view(n, heads, 4)[m, h]
                        s = s * logit.sigmoid().pow(1 / 16)[:, None]
                    new = v[t, m, h]
                    if layer.rule.corrects:
                        b = layer.to_strength(row[t]).view(n, heads)[m, h].sigmoid()
                        new = b * (new - s.T @ k[t, m, h])
                    s = s + torch.outer(k[t, m, h], new)
                    total[t, h] += g * (s.T @ q[t, h])
        out.append(layer.out(total.transpose(0, 1)[None], row[None])[0])
    return torch.stack(out)


@pytest.fixture(params=[1, 256])
def long(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with each memory's tokens side by side, and once with memories that pass over what is not theirs."""
    monkeypatch.setattr(mixture, "LONG", request.param)


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("more", [{}, {"shared": False, "top_k": 1}, {"memories": 3, "top_k": 3}])
@torch.no_grad()
def test_it_is_a_loop_over_memories_and_the_tokens_of_each_on_every_path(rule: str, more) -> None:
    layer, x = made(rule, **more), torch.randn(2, 11, 12, generator=torch.Generator().manual_seed(1))
    expected = by_hand(layer, x)
    for path in ("recurrent", "dense", "chunked"):
        layer.path = path
        assert torch.allclose(layer(x)[0], expected, atol=1e-5), path
        state, parts = None, []
        for piece in x.split([1, 5, 1, 4], dim=1):
            part, state = layer(piece, state)
            parts.append(part)
        assert torch.allclose(torch.cat(parts, 1), expected, atol=1e-5), path


@pytest.mark.usefixtures("long")
@torch.no_grad()
def test_padding_changes_no_state_no_output_and_no_balance() -> None:
    layer, x = made(), torch.randn(2, 9, 12, generator=torch.Generator().manual_seed(2))
    with watched(layer) as routes:
        plain, after = layer(x)
    mask = torch.tensor([[0, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1], [1] * 9 + [0] * 3]).bool()
    wide = torch.full((2, 12, 12), 5.0)
    wide[mask] = x.flatten(0, 1)
    with watched(layer) as padded:
        found, then = layer(wide, mask=mask)
    assert torch.allclose(found[mask], plain.flatten(0, 1), atol=1e-5) and not found[~mask].any()
    assert all(torch.allclose(then[name].float(), after[name].float(), atol=1e-5) for name in after)
    assert torch.allclose(balance(padded), balance(routes)) and abs(spread(padded) - spread(routes)) < 1e-9


def test_both_ways_have_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = made().double(), torch.randn(2, 19, 12, dtype=torch.float64)
    found = []
    for least in (1, 256):
        monkeypatch.setattr(mixture, "LONG", least)
        found.append(torch.autograd.grad(layer(x)[0].square().sum(), [*layer.parameters()]))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-10) and one.abs().sum() > 0


def test_balance_is_the_loss_of_switch_transformers_for_each_choice() -> None:
    made = torch.Generator().manual_seed(4)
    routes = []
    for _ in range(2):
        likely = torch.randn(2, 7, 5, generator=made).softmax(-1)
        routes.append(Routing(likely, likely.topk(2, dim=-1).indices, None))
    likely, chosen = (torch.cat([getattr(one, n).flatten(0, 1) for one in routes]) for n in ("likely", "chosen"))
    expected = sum(5 * (chosen[:, j] == e).float().mean() * likely[:, e].mean() for j in range(2) for e in range(5))
    assert torch.allclose(balance(routes), expected)
    even = Routing(torch.full((1, 4, 4), 0.25), torch.tensor([[[0, 1], [1, 2], [2, 3], [3, 0]]]), None)
    assert balance([even]).item() == pytest.approx(2.0) and spread([even]) == pytest.approx(1.0)
    one = Routing(torch.full((1, 4, 4), 0.25), torch.zeros(1, 4, 1, dtype=torch.long), None)
    assert spread([one]) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.usefixtures("long")
def test_the_router_learns_even_with_one_choice() -> None:
    layer = made(top_k=1)
    layer(torch.randn(1, 6, 12))[0].square().sum().backward()
    assert layer.router.weight.grad.abs().sum() > 0


@pytest.mark.usefixtures("long")
@torch.no_grad()
def test_one_memory_can_be_frozen_or_emptied_and_the_others_go_on() -> None:
    layer, x = made(), torch.randn(2, 20, 12, generator=torch.Generator().manual_seed(5))
    _, before = layer(x[:, :10])
    _, after = layer(x[:, 10:], frozen(before, 1))
    assert torch.equal(after["memories"][:, 1], before["memories"][:, 1])
    assert all(not torch.equal(after["memories"][:, m], before["memories"][:, m]) for m in (0, 2, 3, 4))
    _, later = layer(x[:, 10:], frozen(after, 1, frozen=False))
    assert not torch.equal(later["memories"][:, 1], before["memories"][:, 1])
    empty = emptied(before, 2)
    assert not empty["memories"][:, 2].any() and torch.equal(empty["memories"][:, 3], before["memories"][:, 3])
    assert before["memories"][:, 2].any(), "the state that was given is not changed"


def test_what_cannot_be_is_refused() -> None:
    state = made()(torch.zeros(1, 2, 12))[1]
    for wrong in (
        lambda: made(top_k=5),
        lambda: made(top_k=0),
        lambda: made("none"),
        lambda: balance([]),
        lambda: frozen(state, 5),
    ):
        with pytest.raises(InputError):
            wrong()
