"""Neural memory: gradients are what autograd says, paths agree, a stream may be cut anywhere, and it is an independent loop's."""

from __future__ import annotations

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

from holdfast.errors import InputError  # noqa: E402
from holdfast.latent.inner_loop import Lesson, Settings, answered, gradient, learnt  # noqa: E402
from holdfast.latent.titans import NeuralMemory  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(depth: int, length: int, dtype=torch.float64, rows: int = 2):
    made = torch.Generator().manual_seed(0)

    def some(*shape: int):
        return torch.randn(*shape, generator=made, dtype=dtype)

    widths = [6, *[10] * (depth - 1), 6]
    weights = tuple(some(rows, 3, a, b) * a**-0.5 for a, b in pairwise(widths))
    rates = torch.cat([some(rows, 3, length, 1).sigmoid() * 0.3, some(rows, 3, length, 2)], dim=-1)
    return Lesson(some(rows, 3, length, 6), some(rows, 3, length, 6), rates), weights, some(rows, 3, length, 6)


def network(weights, asked):
    for at, weight in enumerate(weights):
        asked = (torch.nn.functional.gelu(asked) if at else asked) @ weight
    return asked


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_gradients_are_those_of_autograd(depth: int) -> None:
    lesson, weights, _ = drawn(depth, 5)

    def loss(some, keys, values, theta):
        return (theta * (network(some, keys) - values).square().mean(-1)).sum()

    given = weights, lesson.keys, lesson.values, lesson.rates[..., 0]
    expected = torch.func.vmap(torch.func.vmap(torch.func.grad(loss)))(*given)
    found = gradient(*given[:3], lesson.rates[..., :1] * (2 / 6))
    assert max((a - b).abs().max() for a, b in zip(found, expected, strict=True)) < 1e-12


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("momentum", [True, False])
@pytest.mark.parametrize("forget", [True, False])
@pytest.mark.parametrize("home", [True, False])
def test_it_is_an_independent_loop(depth: int, momentum: bool, forget: bool, home: bool) -> None:
    lesson, weights, asked = drawn(depth, 11)
    homes = tuple(one[0] * 0.5 for one in weights) if home else None
    settings = Settings(4, momentum, forget, homes)
    pace = tuple(torch.randn_like(one) for one in weights)
    history, after = learnt(lesson, None, weights, pace, settings, "chunked")
    found = answered(history, asked, 4, ahead=1)
    for row in range(2):
        for head in range(3):
            now, moves = [one[row, head] for one in weights], [one[row, head] for one in pace]
            for t in range(11):
                if t % 4 == 3:
                    part = slice(t - 3, t + 1)
                    leaves = [one.clone().requires_grad_() for one in now]
                    miss = network(leaves, lesson.keys[row, head, part]) - lesson.values[row, head, part]
                    loss = (lesson.rates[row, head, part, 0] * miss.square().mean(-1)).sum()
                    slopes = torch.autograd.grad(loss, leaves)
                    eta, alpha = lesson.rates[row, head, part, 1:].mean(0).sigmoid()
                    moves = [(eta * move if momentum else 0) - slope for move, slope in zip(moves, slopes, strict=True)]
                    if forget:
                        now = [
                            (1 - alpha) * one + (alpha * homes[at][head] if home else 0) for at, one in enumerate(now)
                        ]
                    now = [one + move for one, move in zip(now, moves, strict=True)]
                assert (network(now, asked[row, head, t]) - found[row, head, t]).abs().max() < 1e-10
            assert all((a[row, head, -1] - b).abs().max() < 1e-10 for a, b in zip(history, now, strict=True))
            assert all((a[row, head] - b).abs().max() < 1e-10 for a, b in zip(after, moves, strict=True))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_paths_agree(depth: int) -> None:
    lesson, weights, asked = drawn(depth, 40, torch.float32)
    zero = tuple(torch.zeros_like(one) for one in weights)
    ways = {path: learnt(lesson, None, weights, zero, Settings(8, clip=0.5), path) for path in ("recurrent", "chunked")}
    said = {path: answered(history, asked, 8, ahead=1) for path, (history, _) in ways.items()}
    assert torch.allclose(said["recurrent"], said["chunked"], atol=1e-4)
    for a, b in zip(ways["recurrent"][1], ways["chunked"][1], strict=True):
        assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("settings", [{}, {"momentum": False}, {"forget": False}, {"clip": None}, {"home": None}])
def test_the_outer_gradient_that_is_written_out_is_that_of_autograd(depth: int, settings) -> None:
    lesson, weights, asked = drawn(depth, 10)
    paces = tuple(torch.randn_like(one) * 0.1 for one in weights)
    homes = tuple(one[0] * 0.5 for one in weights)
    given = [
        one.clone().requires_grad_()
        for one in (lesson.keys, lesson.values, lesson.rates, *weights, *paces, *homes, asked)
    ]

    def found(path: str):
        keys, values, rates, *some, asked = given
        first, second, third = (tuple(some[at : at + depth]) for at in range(0, 3 * depth, depth))
        more = {"home": third, "clip": 1.0, **settings}
        history, last = learnt(Lesson(keys, values, rates), None, first, second, Settings(3, **more), path)
        said = answered(history, asked, 3, ahead=1).square().sum() + sum(one.sin().sum() for one in last)
        return said, torch.autograd.grad(said, given, retain_graph=True, allow_unused=True, materialize_grads=True)

    (expected, slopes), (said, others) = found("dense"), found("chunked")
    assert torch.allclose(said, expected, rtol=1e-10)
    for slope, other in zip(slopes, others, strict=True):
        assert torch.allclose(slope, other, rtol=1e-8, atol=1e-10)


def test_a_graph_that_is_kept_may_be_gone_back_through_again() -> None:
    lesson, weights, asked = drawn(2, 4, rows=1)
    zero = tuple(torch.zeros_like(one) for one in weights)

    def said(keys, values, rates, first, second):
        history, _ = learnt(Lesson(keys, values, rates), None, (first, second), zero, Settings(2, clip=1.0), "chunked")
        return answered(history, asked, 2, ahead=1)

    given = [one.clone().requires_grad_() for one in (lesson.keys, lesson.values, lesson.rates, *weights)]
    assert torch.autograd.gradcheck(said, given, fast_mode=True)


def made(**more) -> NeuralMemory:
    torch.manual_seed(1)
    return NeuralMemory(**{"d_model": 12, "heads": 2, "head_dim": 4, "chunk": 4, "conv": 3, **more}).eval()


@pytest.mark.parametrize("more", [{}, {"depth": 1}, {"chunk": 1, "conv": 1}, {"forget_to": "zero", "momentum": False}])
@torch.no_grad()
def test_a_stream_may_be_cut_anywhere(more) -> None:
    layer = made(**more)
    x = torch.randn(2, 23, 12)
    expected, after = layer(x)
    for path in ("recurrent", "chunked"):
        layer.path, state, parts = path, None, []
        for piece in x.split([1, 6, 1, 1, 9, 4, 1], dim=1):
            part, state = layer(piece, state)
            parts.append(part)
        assert torch.allclose(torch.cat(parts, 1), expected, atol=1e-5)
        assert all(torch.allclose(state[name], after[name], atol=1e-5) for name in after)


@torch.no_grad()
def test_padding_changes_nothing_even_where_rows_differ_in_length() -> None:
    layer, made_ = made(), torch.Generator().manual_seed(2)
    x = torch.randn(3, 12, 12, generator=made_)
    masks = torch.rand(2, 3, 12, generator=made_) < 0.6
    state, said = None, []
    for mask in masks:  # rows come to stand at different places of a chunk
        part, state = layer(torch.where(mask[..., None], x, torch.tensor(9.0)), state, mask=mask)
        said.append(part)
    for row in range(3):
        alone = torch.cat([x[row][masks[0, row]], x[row][masks[1, row]]])[None]
        expected, after = layer(alone)
        found = torch.cat([said[0][row][masks[0, row]], said[1][row][masks[1, row]]])
        assert torch.allclose(found, expected[0], atol=1e-5)
        assert all(torch.allclose(state[name][row], after[name][0], atol=1e-5) for name in after)
    assert len(set((masks.sum((0, 2)) % 4).tolist())) > 1, "the rows of this test differ"


@torch.no_grad()
def test_what_is_written_is_read_and_reading_writes_nothing() -> None:
    layer, x = made(), torch.randn(2, 8, 12)
    state = layer.write(x)
    assert all(torch.equal(state[name], one) for name, one in layer(x)[1].items())
    kept = {name: one.clone() for name, one in state.items()}
    said = layer.read(x, state)
    assert said.shape == x.shape and all(torch.equal(state[name], kept[name]) for name in state)
    assert not torch.allclose(said, layer.read(x, layer.begun(2)))


@torch.no_grad()
def test_a_chunk_is_told_from_its_last_token_on() -> None:
    layer, x = made(conv=1), torch.randn(2, 8, 12)
    said = layer(x)[0]
    first, both = layer.write(x[:, :4]), layer.write(x)
    for some, state in ((slice(0, 3), layer.begun(2)), (slice(3, 7), first), (slice(7, 8), both)):
        assert torch.allclose(said[:, some], layer.read(x[:, some], state), atol=1e-6)


@torch.no_grad()
def test_what_was_seen_before_surprises_less() -> None:
    layer = made(depth=1, clip=None, conv=1)
    layer.to_rates.bias[:2], layer.to_rates.bias[2:] = 0.0, -20.0  # it learns, and forgets nothing
    x = torch.randn(1, 4, 12).repeat(1, 12, 1)
    surprise = layer.surprise(x)
    first, last = surprise[:, :4].mean(), surprise[:, -4:].mean()
    assert surprise.shape == (1, 48) and last < 0.2 * first
    assert torch.allclose(layer.surprise(x[:, 4:], layer.write(x[:, :4])), surprise[:, 4:], atol=1e-6)


@torch.no_grad()
def test_one_token_again_and_again_does_not_make_it_run_away() -> None:
    x = torch.randn(1, 1, 12).repeat(1, 400, 1)
    sizes = {}
    for clip in (None, 1.0):
        layer = made(depth=1, chunk=16, clip=clip, most=2.0)
        sizes[clip] = layer.write(x)["weights.0"].abs().max().item()
    assert sizes[1.0] < 100 and not sizes[None] < 1e6


@torch.no_grad()
def test_memory_stays_in_full_precision_under_autocast() -> None:
    layer, x = made(), torch.randn(2, 9, 12)
    seen: list[torch.dtype] = []
    hook = layer.out.norm.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        said, state = layer(x)
        layer.read(x, state)
    hook.remove()
    assert seen == [torch.float32] * 2  # what memory says is not rounded before it is normed
    assert state["weights.0"].dtype == state["momentum.1"].dtype == torch.float32
    assert torch.allclose(said.float(), layer(x)[0], atol=0.1)


def test_what_cannot_be_is_refused() -> None:
    for wrong in ({"depth": 0}, {"chunk": 0}, {"most": 0.0}, {"clip": -1.0}, {"forget_to": "end"}):
        with pytest.raises(InputError):
            made(**wrong)
