"""Attention and memory in one block: reading token by token is one pass, the future is not seen, and padding changes nothing."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

from holdfast.errors import InputError  # noqa: E402
from holdfast.latent.titans_blocks import TitansBlock  # noqa: E402
from holdfast.latent.window_attention import WindowAttention, rotated  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ["mac", "mag", "mal", "lmm", "window"]


def made(kind: str, **more):
    torch.manual_seed(1)
    if kind == "window":
        return WindowAttention(12, 2, head_dim=4, window=5, **{"persistent": 3, "conv": 3, **more}).eval()
    return TitansBlock(12, 2, head_dim=4, mode=kind, window=8, persistent=3, conv=3, chunk=4, **more).eval()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_token_by_token_and_in_pieces_is_one_pass(kind: str) -> None:
    block, x = made(kind), torch.randn(2, 27, 12)
    expected, after = block(x)
    for sizes in ([1] * 27, [5, 1, 1, 13, 7]):
        state, parts = None, []
        for piece in x.split(sizes, dim=1):
            part, state = block(piece, state)
            parts.append(part)
        assert torch.allclose(torch.cat(parts, 1), expected, atol=1e-4)
        assert all(torch.allclose(state[name], after[name], atol=1e-4) for name in after)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_no_token_sees_the_future(kind: str) -> None:
    block, x = made(kind), torch.randn(1, 19, 12)
    other = x.clone()
    other[:, 13:] = torch.randn(1, 6, 12)
    one, two = block(x)[0], block(other)[0]
    assert torch.allclose(one[:, :13], two[:, :13], atol=1e-6)
    assert not torch.allclose(one[:, 13:], two[:, 13:], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_padding_changes_nothing_even_where_rows_differ_in_length(kind: str) -> None:
    block, made_ = made(kind), torch.Generator().manual_seed(3)
    x = torch.randn(3, 14, 12, generator=made_)
    masks = torch.rand(2, 3, 14, generator=made_) < 0.6
    state, said = None, []
    for mask in masks:
        part, state = block(torch.where(mask[..., None], x, torch.tensor(9.0)), state, mask=mask)
        assert not part[~mask].any()
        said.append(part)
    for row in range(3):
        alone = torch.cat([x[row][masks[0, row]], x[row][masks[1, row]]])[None]
        expected, after = block(alone)
        found = torch.cat([said[0][row][masks[0, row]], said[1][row][masks[1, row]]])
        assert torch.allclose(found, expected[0], atol=1e-5)
        assert all(torch.allclose(state[name][row], after[name][0], atol=1e-5) for name in after), kind


@torch.no_grad()
def test_a_window_is_attention_with_a_mask() -> None:
    layer, x = made("window", conv=1), torch.randn(2, 17, 12)
    q, k, v = (one.unflatten(-1, (2, 4)) for one in layer.to_all(x).chunk(3, dim=-1))
    places = torch.arange(17)
    turned, keys = (rotated(one, places[None]).transpose(1, 2) for one in (q, k))
    ahead = places - places[:, None]
    scores = (turned @ keys.mT).masked_fill((ahead > 0) | (ahead <= -5), float("-inf"))
    always = q.transpose(1, 2) @ layer.persistent[0].mT
    weights = (torch.cat([always, scores], -1) / 2).softmax(-1)
    held = torch.cat([layer.persistent[1].expand(2, -1, -1, -1), v.transpose(1, 2)], dim=2)
    expected = layer.out((weights @ held).transpose(1, 2).flatten(2))
    assert torch.allclose(layer(x)[0], expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns(kind: str) -> None:
    block = made(kind)
    block(torch.randn(2, 24, 12))[0].square().sum().backward()
    idle = [name for name, one in block.named_parameters() if one.grad is None or not one.grad.any()]
    assert idle == []


@pytest.mark.parametrize("kind", ["mac", "mag", "mal", "lmm"])
@torch.no_grad()
def test_what_left_the_window_is_still_there(kind: str) -> None:
    block, x = made(kind), torch.randn(1, 40, 12)
    other = x.clone()
    other[:, :8] = torch.randn(1, 8, 12)  # far outside every window of the last token
    assert not torch.allclose(block(x)[0][:, -1], block(other)[0][:, -1], atol=1e-5)
    window = made("window")
    assert torch.allclose(window(x)[0][:, -1], window(other)[0][:, -1], atol=1e-6)


def test_what_cannot_be_is_refused() -> None:
    for wrong in (
        lambda: made("map"),
        lambda: TitansBlock(12, 2, head_dim=4, mode="mac", window=10, chunk=4),
        lambda: TitansBlock(12, 2, head_dim=3, mode="mac", window=8, chunk=4),
        lambda: WindowAttention(12, 2, head_dim=4, window=0),
        lambda: WindowAttention(12, 2, head_dim=3, window=2),
    ):
        with pytest.raises(InputError):
            wrong()
