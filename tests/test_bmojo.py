"""B'MOJO: what a loop with a heap says, on every path; a stream may be cut anywhere, and the parts that are known are themselves."""

from __future__ import annotations

import heapq
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

from holdfast.errors import InputError  # noqa: E402
from holdfast.latent.bmojo import BMojo, foresight, remembered, watched  # noqa: E402
from holdfast.latent.layers import Layer  # noqa: E402
from holdfast.latent.titans import NeuralMemory  # noqa: E402
from holdfast.latent.window_attention import WindowAttention, rotated  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = {
    "f": {"eidetic": 0},
    "eidetic": {"eidetic": 6},
    "untied": {"eidetic": 3, "tied": False, "conv": 3, "residual": True},
    "threshold": {"eidetic": 5, "least": 0.9, "conv": 2, "normed": False},
    "one": {"eidetic": 1, "window": 1},
}


def made(kind: str, **more) -> BMojo:
    torch.manual_seed(1)
    return BMojo(12, 2, **{"head_dim": 4, "window": 5, **KINDS[kind], **more}).eval()


def given(rows: int, length: int, seed: int = 0):
    """Tokens some of which are like those before, so that some are foreseen worse than others."""
    made_ = torch.Generator().manual_seed(seed)
    loud = torch.rand(rows, length, 1, generator=made_) < 0.4
    return torch.randn(rows, length, 12, generator=made_) * torch.where(loud, 1.0, 0.1)


class Same(Layer):
    """A fading memory that says what it is told."""

    def take(self, x, state, lengths):
        return x, {}


def by_hand(layer: BMojo, x):
    """Token by token over whole sequences, without a convolution: three sets of keys and one softmax."""
    (length, _), w, heads = x.shape[1:], layer.window, (layer.heads, layer.head_dim)
    out, told = [], []
    for row in x:
        y = layer.fading(row[None])[0][0]
        places = torch.arange(length)

        def looked(part, inputs, places=places):
            keys, values = (one.unflatten(-1, heads) for one in part.to_others(inputs).chunk(2, -1))
            return rotated(part.norm_keys(keys)[None], places[None])[0], values

        q = layer.of_tokens.norm_queries(layer.of_tokens.to_queries(row).unflatten(-1, heads))
        q = rotated(q[None], places[None])[0]
        k, v = looked(layer.of_tokens, row)
        said_k, said_v = looked(layer.of_said, y)
        errors = []
        for t in range(length):
            past = [y[t - back] if t >= back else torch.zeros_like(y[0]) for back in range(1, layer.lags + 1)]
            error = (layer.filter(torch.cat(past)) - row[t]).square().mean().item() if layer.eidetic else 0.0
            errors.append(error if t else float("inf"))
        heap = []  # (innovation, -position): the youngest of the smallest goes first
        for t in range(length):
            gone = t - w
            if gone >= 0 and layer.eidetic:
                mean = sum(errors[1 : gone + 1]) / max(gone, 1)
                if errors[gone] > layer.least * mean:
                    heapq.heappush(heap, (errors[gone], -gone))
                    if len(heap) > layer.eidetic:
                        heapq.heappop(heap)
            near = list(range(max(0, t - w + 1), t + 1))
            faded = list(range(max(0, t - 2 * w + 1), max(0, t - w + 1)))
            kept = sorted(-at for _, at in heap)
            keys = torch.cat([k[near], said_k[faded], k[kept]])
            values = torch.cat([v[near], said_v[faded], v[kept]])
            weights = (torch.einsum("hd,nhd->hn", q[t], keys) * layer.head_dim**-0.5).softmax(-1)
            out.append(layer.out(torch.einsum("hn,nhd->hd", weights, values).flatten()))
        told.append({-at: error for error, at in heap})
    return torch.stack(out).unflatten(0, x.shape[:2]), told


@pytest.mark.parametrize("kind", ["f", "eidetic", "threshold", "one"])
@torch.no_grad()
def test_it_is_a_loop_with_a_heap_on_every_path(kind: str) -> None:
    layer, x = made(kind, conv=1), given(3, 37)
    expected, _ = by_hand(layer, x)
    for path, size in (("recurrent", None), ("dense", None), ("chunked", None), ("chunked", 1), ("chunked", 16)):
        layer.path, layer.size = path, size
        found, state = layer(x)
        assert torch.allclose(found, expected, atol=1e-5), (path, size)
    if layer.eidetic:
        later = by_hand(layer, torch.cat([x, x[:, :1]], dim=1))[1]  # the store as the next token will find it
        assert remembered(state) == [pytest.approx(one, rel=1e-3) for one in later]
        assert all(0 in one for one in later), "the first token is a sink"


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_stream_is_read_in_pieces_by_any_path(kind: str) -> None:
    layer, x = made(kind), given(2, 41)
    expected, after = layer(x)
    for path in ("recurrent", "dense", "chunked"):
        layer.path = path
        for sizes in ([1] * 41, [5, 1, 1, 21, 13]):
            state, parts = None, []
            for piece in x.split(sizes, dim=1):
                part, state = layer(piece, state)
                parts.append(part)
            assert torch.allclose(torch.cat(parts, 1), expected, atol=1e-4), path
            assert all(torch.allclose(state[name], after[name], atol=1e-4) for name in after), path


@pytest.mark.parametrize("kind", KINDS)
def test_the_paths_have_one_gradient(kind: str) -> None:
    gradients = {}
    for path in ("recurrent", "dense", "chunked"):
        layer, x = made(kind, path=path).double(), given(2, 23).double().requires_grad_()
        with watched(layer) as calls:
            loss = layer(x)[0].square().sum()
        (loss + foresight(calls) if layer.eidetic else loss).backward()
        gradients[path] = [x.grad, *(one.grad for one in layer.parameters())]
        assert all(one is not None and one.any() for one in gradients[path])
    for path in ("dense", "chunked"):
        assert all(torch.allclose(a, b) for a, b in zip(gradients[path], gradients["recurrent"], strict=True))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_no_token_sees_the_future(kind: str) -> None:
    layer, x = made(kind), given(1, 30)
    other = x.clone()
    other[:, 19:] = given(1, 11, 5) * 9  # nobody foresees it
    assert torch.allclose(layer(x)[0][:, :19], layer(other)[0][:, :19], atol=1e-6)
    assert not torch.allclose(layer(x)[0][:, 19:], layer(other)[0][:, 19:], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_padding_changes_nothing_even_where_rows_differ_in_length(kind: str) -> None:
    layer, made_ = made(kind), torch.Generator().manual_seed(3)
    x = given(3, 19)
    masks = torch.rand(2, 3, 19, generator=made_) < 0.6
    state, said = None, []
    for mask in masks:
        part, state = layer(torch.where(mask[..., None], x, torch.tensor(9.0)), state, mask=mask)
        assert not part[~mask].any()
        said.append(part)
    for row in range(3):
        alone = torch.cat([x[row][masks[0, row]], x[row][masks[1, row]]])[None]
        expected, after = layer(alone)
        found = torch.cat([said[0][row][masks[0, row]], said[1][row][masks[1, row]]])
        assert torch.allclose(found, expected[0], atol=1e-5)
        assert all(torch.allclose(state[name][row], after[name][0], atol=1e-5) for name in after)


@torch.no_grad()
def test_with_nothing_stored_and_a_memory_that_says_what_it_is_told_it_is_a_window_of_twice_the_size() -> None:
    layer = made("f", fading=Same(12), normed=False)
    window = WindowAttention(12, 2, head_dim=4, window=10)
    window.to_all.weight.copy_(torch.cat([layer.of_tokens.to_queries.weight, layer.of_tokens.to_others.weight]))
    window.out.weight.copy_(layer.out.weight)
    x = given(2, 33)
    assert torch.allclose(layer(x)[0], window(x)[0], atol=1e-6)
    long, whole = made("f", window=33, normed=False), torch.arange(33)
    long.of_tokens.load_state_dict(layer.of_tokens.state_dict())
    long.out.load_state_dict(layer.out.state_dict())
    q, k, v = (one.unflatten(-1, (2, 4)).transpose(1, 2) for one in window.to_all(x).chunk(3, -1))
    q, k = (rotated(one.transpose(1, 2), whole[None]).transpose(1, 2) for one in (q, k))
    full = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
    assert torch.allclose(long(x)[0], layer.out(full), atol=1e-6), "a window over everything is attention"


@torch.no_grad()
def test_parity_with_the_published_way_of_joining_two_attentions() -> None:
    """The authors run window and fading attention apart and weigh the results by their log-sum-exps, the keys shifted by w."""
    layer, x = made("f", normed=False), given(2, 29)
    w, y, places = layer.window, layer.fading(x)[0], torch.arange(29)

    def apart(q, k, v, mask):
        scores = (q @ k.mT * 0.5).masked_fill(~mask, float("-inf"))
        return scores.softmax(-1).nan_to_num() @ v, scores.logsumexp(-1, keepdim=True)

    def split(one):
        return one.unflatten(-1, (2, 4))

    part = layer.of_tokens
    q = rotated(split(part.to_queries(x)), places[None]).transpose(1, 2)
    back = places[:, None] - places
    a, b = [], []
    for inputs, mask in ((x, (back >= 0) & (back < w)), (y, (back >= w) & (back < 2 * w))):
        keys, values = (split(one) for one in part.to_others(inputs).chunk(2, -1))
        o, lse = apart(q, rotated(keys, places[None]).transpose(1, 2), values.transpose(1, 2), mask)
        a.append(o)
        b.append(lse)
    total = torch.logaddexp(*b)
    expected = layer.out(sum(o * (lse - total).exp() for o, lse in zip(a, b, strict=True)).transpose(1, 2).flatten(2))
    assert torch.allclose(layer(x)[0], expected, atol=1e-5)


@torch.no_grad()
def test_any_memory_can_be_the_fading_one() -> None:
    layer = made("eidetic", fading=NeuralMemory(12, 2, head_dim=4, chunk=4))
    x = given(2, 23)
    expected, after = layer(x)
    state, parts = None, []
    for piece in x.split([7, 1, 15], dim=1):
        part, state = layer(piece, state)
        parts.append(part)
    assert torch.allclose(torch.cat(parts, 1), expected, atol=1e-4)
    assert all(torch.allclose(state[name], after[name], atol=1e-4) for name in after)


def test_the_filter_learns_what_can_be_foreseen_and_teaches_nothing_else() -> None:
    layer = made("eidetic").train()
    x = given(8, 40)
    x[:, 1::2] = x[:, 1:2]  # every second token is always the same
    with watched(layer) as calls:
        layer(x)
    foresight(calls).backward()
    assert {name for name, one in layer.named_parameters() if one.grad is not None} == {"filter.weight", "filter.bias"}
    optimizer = torch.optim.Adam(layer.filter.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        with watched(layer) as calls:
            layer(x)
        foresight(calls).backward()
        optimizer.step()
    kept = [at for one in remembered(layer(x)[1]) for at in one if at]
    assert sum(at % 2 == 0 for at in kept) > 0.8 * len(kept), "what could be foreseen was not stored"
    assert not layer._watchers


@torch.no_grad()
def test_a_random_store_is_drawn_by_the_seed() -> None:
    layer, x = made("eidetic", selector="random"), given(4, 60)
    torch.manual_seed(5)
    one = remembered(layer(x)[1])
    torch.manual_seed(5)
    assert remembered(layer(x)[1]) == one
    torch.manual_seed(6)
    assert remembered(layer(x)[1]) != one and all(len(row) == 6 and 0 in row for row in one)


def test_what_cannot_be_is_refused() -> None:
    for wrong in (
        lambda: made("f", window=0),
        lambda: made("f", head_dim=3),
        lambda: made("f", eidetic=-1),
        lambda: made("f", selector="best"),
        lambda: made("f", fading=Same(11)),
        lambda: foresight([]),
    ):
        with pytest.raises(InputError):
            wrong()


def test_the_example_of_the_page_runs() -> None:
    pytest.importorskip("transformers", reason="the extra torch is not installed")
    from test_mounting import ids, model_of

    page = (Path(__file__).parents[1] / "docs" / "layers.md").read_text()
    (example,) = (one for one in re.findall(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "BMojo" in one)
    names = {"torch": torch, "model": model_of(), "text": ids(2, 40)}
    exec(
        compile(
            example.replace("{3:", "{1:").replace("()[3]", "()[1]").replace("window=128", "window=8"),
            "docs/layers.md",
            "exec",
        ),
        names,
    )
    assert len(names["kept"]) == 2 and names["loss"].isfinite()
