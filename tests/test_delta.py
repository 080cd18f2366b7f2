"""Matrix memories: all paths agree with each other and with a trusted implementation, and a stream may be cut anywhere."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

from holdfast.errors import InputError  # noqa: E402
from holdfast.latent import layers as seam  # noqa: E402
from holdfast.latent.delta import RULES, Writes, _Cut, run  # noqa: E402
from holdfast.latent.layers import ShortConvolution, unit  # noqa: E402
from holdfast.latent.matrix_memory import MatrixMemory  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(decay: str, length: int = 70, seed: int = 0, dtype=torch.float32) -> Writes:
    made = torch.Generator().manual_seed(seed)

    def some(*shape: int):
        return torch.randn(2, 3, length, *shape, generator=made, dtype=dtype)

    fading = {"none": None, "head": some(1), "channel": some(8)}[decay]
    if fading is not None:
        fading = torch.nn.functional.logsigmoid(fading + 1)
    return Writes(some(8), unit(some(8)), some(5), fading, some().sigmoid())


@pytest.mark.parametrize("name", RULES)
def test_the_paths_agree_and_a_stream_may_be_cut_anywhere(name: str) -> None:
    rule, writes = RULES[name], drawn(RULES[name].decay)
    state = torch.randn(2, 3, 8, 5, generator=torch.Generator().manual_seed(1))
    expected, after = run(writes, state, rule=rule, path="recurrent")
    for path, size in (("dense", None), ("chunked", 16), ("chunked", 64), ("chunked", 1)):
        found, then = run(writes, state, rule=rule, path=path, size=size)
        assert torch.allclose(found, expected, atol=1e-4) and torch.allclose(then, after, atol=1e-4), (path, size)
    parts, now = [], state
    for some in (slice(0, 33), slice(33, 34), slice(34, 70)):
        cut = Writes(*(None if one is None else one[:, :, some] for one in (
            writes.queries, writes.keys, writes.values, writes.decay, writes.strength)))  # fmt: skip
        part, now = run(cut, now, rule=rule, size=16)
        parts.append(part)
    assert torch.allclose(torch.cat(parts, 2), expected, atol=1e-4) and torch.allclose(now, after, atol=1e-4)


@pytest.mark.parametrize("name", RULES)
def test_the_paths_have_one_gradient(name: str) -> None:
    gradients = {}
    for path in ("recurrent", "dense", "chunked"):
        writes = drawn(RULES[name].decay, length=21, dtype=torch.float64)
        given = [one.requires_grad_() for one in (writes.queries, writes.keys, writes.values)]
        found, after = run(writes, rule=RULES[name], path=path, size=8)
        (found.square().sum() + after.sum()).backward()
        gradients[path] = [one.grad for one in given]
    for path in ("dense", "chunked"):
        assert all(torch.allclose(a, b) for a, b in zip(gradients[path], gradients["recurrent"], strict=True))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("lengths", [[21, 21, 21, 21, 21, 21], [3, 0, 21, 8, 16, 9], [0, 0, 0, 0, 0, 0]])
def test_where_nobody_writes_or_reads_any_more_is_passed_over(name: str, lengths: list[int]) -> None:
    many = torch.tensor(lengths).unflatten(0, (2, 3))
    assert sum(_Cut.of(torch.empty(2, 3, 21, 8), 8, many).counts) == sum(max(1, -(-one // 8)) for one in lengths)
    there = torch.arange(21) < many[..., None]
    outcomes = []
    for path in ("recurrent", "dense", "chunked"):
        writes = drawn(RULES[name].decay, length=21, dtype=torch.float64)
        state = torch.randn(2, 3, 8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        given = [
            writes.queries,
            writes.keys,
            writes.values,
            state,
            *filter(torch.is_tensor, (writes.decay, writes.strength)),
        ]
        given = [one.requires_grad_() for one in given]
        found, after = run(writes.only(there), state, rule=RULES[name], path=path, size=8, lengths=many)
        found = found * there[..., None]
        gradients = torch.autograd.grad(found.square().sum() + after.square().sum(), given, allow_unused=True)
        outcomes.append([found, after, *gradients])
    for outcome in outcomes[1:]:
        for ours, true in zip(outcome, outcomes[0], strict=True):
            assert (ours is None and true is None) or torch.allclose(ours, true)


def test_parity_with_the_reference_of_transformers() -> None:
    reference = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    writes = drawn("head", length=130)
    state = torch.randn(2, 3, 8, 5, generator=torch.Generator().manual_seed(2))
    theirs = [one.transpose(1, 2) for one in (writes.queries, writes.keys, writes.values)]
    more = {"g": writes.decay[..., 0].transpose(1, 2), "beta": writes.strength.transpose(1, 2)}
    # Their queries are divided by the root of their size within.
    ours = Writes(writes.queries * 8**-0.5, writes.keys, writes.values, writes.decay, writes.strength)
    for name in ("torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule"):
        expected, after = getattr(reference, name)(
            *theirs, **more, initial_state=state, output_final_state=True, use_qk_l2norm_in_kernel=False
        )
        for path in ("recurrent", "dense", "chunked"):
            found, then = run(ours, state, rule=RULES["gated_delta"], path=path)
            assert (found.transpose(1, 2) - expected).abs().max() < 1e-5 and (then - after).abs().max() < 1e-5


def test_strong_decay_overflows_nowhere() -> None:
    writes = drawn("head")
    strong = Writes(writes.queries, writes.keys, writes.values, (writes.decay * 200).requires_grad_(), writes.strength)
    for path in ("dense", "chunked"):
        found, _ = run(strong, rule=RULES["gated_delta"], path=path, size=16)
        expected, _ = run(strong, rule=RULES["gated_delta"], path="recurrent")
        assert torch.allclose(found, expected, atol=1e-5)
        (gradient,) = torch.autograd.grad(found.sum(), strong.decay)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["gla", "channel_delta"])
@pytest.mark.parametrize("fallen", [1.0, 59.9, 60.1, 5000.0])
def test_channels_may_fade_as_strongly_as_they_like(name: str, fallen: float) -> None:
    """A piece's strongest channel falls by so much: on both sides of where the sum is taken in another way."""
    writes = drawn("channel", length=64, dtype=torch.float64)
    decay = writes.decay / -writes.decay.unflatten(2, (2, 32)).sum(dim=3).min() * fallen
    given = [writes.queries, writes.keys, writes.values, decay, writes.strength]
    exact = [one.clone().requires_grad_() for one in given]
    expected, after = run(Writes(*exact), rule=RULES[name], path="recurrent")
    wanted = torch.autograd.grad(expected.square().sum() + after.sum(), exact)
    for path, size in (("dense", None), ("chunked", 32), ("chunked", 13)):
        single = [one.float().requires_grad_() for one in given]
        found, then = run(Writes(*single), rule=RULES[name], path=path, size=size)
        assert torch.allclose(found.double(), expected, atol=1e-4) and torch.allclose(then.double(), after, atol=1e-4)
        gradients = torch.autograd.grad(found.square().sum() + then.sum(), single)
        for ours, true in zip(gradients, wanted, strict=True):
            assert (ours - true).abs().max() < 1e-4 * true.abs().max().clamp_min(1)


def layers():
    torch.manual_seed(0)
    return [MatrixMemory(12, 2, key_dim=4, value_dim=6, rule=name, conv=3, size=4) for name in RULES]


@pytest.mark.parametrize("length", [1, 2, 3, 9, 14])
@pytest.mark.parametrize("cached", [1, 40, 1 << 19])
def test_neighbours_are_seen_together_as_by_a_convolution_of_torch(
    length: int, cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seam, "_CACHED", cached)  # pieces of 3 and 4 tokens, and all in one
    torch.manual_seed(0)
    ours = ShortConvolution(5, 4).double()
    theirs = torch.nn.Conv1d(5, 5, 4, groups=5, bias=False).double()
    theirs.weight.data = ours.weight.data.T[:, None].clone()
    x, before = (torch.randn(2, many, 5, dtype=torch.float64, requires_grad=True) for many in (length, 3))
    found, last = ours(x, before, None)
    wanted = torch.nn.functional.silu(theirs(torch.cat([before, x], dim=1).mT).mT)
    assert torch.allclose(found, wanted) and torch.equal(last, torch.cat([before, x], dim=1)[:, -3:])
    weigh = torch.randn_like(found)
    mine = torch.autograd.grad((found * weigh).sum(), [x, before, ours.weight])
    true = torch.autograd.grad((wanted * weigh).sum(), [x, before, theirs.weight])
    for a, b in zip(mine, (*true[:2], true[2][:, 0].T), strict=True):
        assert torch.allclose(a, b)
    assert torch.equal(ours(x[..., :2], before[..., :2], None)[0], found[..., :2])
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x.bfloat16(), None, None)[0].dtype == torch.float64  # the filters' own, as of any product


@pytest.mark.parametrize("weighed", [False, True])
def test_a_norm_is_that_of_torch_and_so_is_its_gradient(weighed: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True) if weighed else None
    given = [x] if weight is None else [x, weight]
    found, wanted = seam.normed(x, weight, 0.01), torch.nn.functional.rms_norm(x, (5,), weight, 0.01)
    assert torch.allclose(found, wanted)
    weigh = torch.randn_like(found)
    mine, true = (torch.autograd.grad((one * weigh).sum(), given) for one in (found, wanted))
    assert all(torch.allclose(a, b) for a, b in zip(mine, true, strict=True))
    assert torch.allclose(unit(x).square().sum(dim=-1), torch.ones(2, 3, dtype=torch.float64), atol=1e-4)
    assert torch.autograd.gradcheck(unit, (x,))
    layer = seam.RMSNorm(5, eps=0.01).bfloat16()
    assert layer(x.bfloat16()).dtype == torch.bfloat16  # as torch has it
    layer.load_state_dict(torch.nn.RMSNorm(5).state_dict())


@pytest.mark.parametrize("at", range(len(RULES)))
def test_padding_changes_nothing_wherever_it_stands(at: int) -> None:
    layer = layers()[at].eval()
    x = torch.randn(2, 9, 12)
    plain, after = layer(x)
    plain, after = layer(x, after)  # with a state, and with a convolution that has a past
    first = layer(x)[1]
    mask = torch.zeros(2, 14, dtype=torch.bool)
    mask[0, [0, 1, 4, 5, 6, 8, 9, 12, 13]] = True
    mask[1, 2:11] = True
    wide = torch.full((2, 14, 12), 7.0)
    wide[mask] = x.flatten(0, 1)
    found, then = layer(wide, first, mask=mask)
    assert torch.allclose(found[mask], plain.flatten(0, 1), atol=1e-5)
    assert not found[~mask].any()
    assert all(torch.allclose(then[name], after[name], atol=1e-5) for name in after)


@pytest.mark.parametrize("at", range(len(RULES)))
def test_a_layer_reads_a_stream_in_pieces_by_any_path(at: int) -> None:
    layer = layers()[at].eval()
    x = torch.randn(2, 17, 12)
    expected, after = layer(x)
    for path in ("recurrent", "dense", "chunked"):
        layer.path, state, parts = path, None, []
        for piece in x.split([1, 7, 1, 1, 7], dim=1):
            part, state = layer(piece, state)
            parts.append(part)
        assert torch.allclose(torch.cat(parts, 1), expected, atol=1e-4)
        assert all(torch.allclose(state[name], after[name], atol=1e-4) for name in after)


def test_what_does_not_fit_is_refused() -> None:
    layer = layers()[0]
    state = layer(torch.zeros(2, 3, 12))[1]
    for wrong in (
        lambda: layer(torch.zeros(2, 3, 11)),
        lambda: layer(torch.zeros(2, 0, 12)),
        lambda: layer(torch.zeros(3, 3, 12), state),
        lambda: layer(torch.zeros(2, 3, 12), mask=torch.zeros(2, 4, dtype=torch.bool)),
        lambda: MatrixMemory(12, 2, key_dim=4, rule="none"),
        lambda: run(drawn("none"), rule=RULES["gated_delta"]),
    ):
        with pytest.raises(InputError):
            wrong()
