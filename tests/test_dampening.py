"""Synaptic dampening: what is measured, what is chosen, and that a model is what it was when it is taken off again."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("safetensors", reason="the extra torch is not installed")

import numpy as np  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from holdfast.errors import ConflictError, InputError, StaleError  # noqa: E402
from holdfast.torched import Tensor, nn  # noqa: E402
from holdfast.weights.answers import answers, in_batches  # noqa: E402
from holdfast.weights.dampening import (  # noqa: E402
    Dampening,
    Importances,
    adaptive_alpha,
    dampening,
    importances,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def network(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3)
    )
    model[1].running_mean.normal_()
    return model.to(dtype)


def rows(count: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "images": torch.randn(count, 1, 6, 6, generator=g).to(dtype),
        "labels": torch.randint(3, (count,), generator=g),
    }


def both(model: nn.Module, **given) -> tuple[Importances, Importances]:
    return (
        importances(model, in_batches(rows(21), 8), size=8, **given),
        importances(model, in_batches(rows(5, 2), 8), size=8, **given),
    )


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: one.clone() for name, one in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_importances_are_mean_squares_of_the_gradients_of_batch_means() -> None:
    model = network(dtype=torch.float64).train()
    data, before = rows(21, dtype=torch.float64), state(model)
    model[5].weight.grad = torch.ones_like(model[5].weight)
    model[0].bias.requires_grad_(False)
    found = importances(model, in_batches(data, 8), size=8)
    assert same(state(model), before) and model.training and not model[0].bias.requires_grad
    assert (model[5].weight.grad == 1).all() and found.batch == 8

    model.eval().requires_grad_(True)
    wanted = {name: torch.zeros_like(one) for name, one in model.named_parameters()}
    for at in (0, 8, 16):
        model.zero_grad()
        said = model(data["images"][at : at + 8])
        nn.functional.cross_entropy(said, data["labels"][at : at + 8]).backward()
        for name, one in model.named_parameters():
            wanted[name] += one.grad**2 / 3
    for name, one in wanted.items():
        torch.testing.assert_close(found.values[name], one, rtol=1e-12, atol=0)


def test_without_labels_the_size_of_the_gradient_of_the_logits_counts() -> None:
    model, data = network().eval(), rows(4)
    found = importances(model, [data], size=4, labelled=False)
    other = importances(model, [{**data, "labels": (data["labels"] + 1) % 3}], size=4, labelled=False)
    model(data["images"]).square().sum(dim=1).mean().backward()
    for name, one in model.named_parameters():
        torch.testing.assert_close(found.values[name], one.grad.abs())
        assert torch.equal(found.values[name], other.values[name])


def test_batches_of_other_sizes_are_refused_and_never_compared() -> None:
    model = network()
    one = rows(4)
    with pytest.raises(InputError, match="only the last"):
        importances(model, [one, rows(8), one], size=8)
    with pytest.raises(InputError, match="only the last"):
        importances(model, [rows(9)], size=8)
    with pytest.raises(InputError, match="no batch"):
        importances(model, [], size=8)
    with pytest.raises(InputError, match="has no parameter 'nowhere'"):
        importances(model, [one], size=8, names=["nowhere"])
    with pytest.raises(InputError, match="measured alike"):
        dampening(importances(model, [one], size=8), importances(model, [one], size=4))
    with pytest.raises(InputError, match="measured alike"):
        dampening(importances(model, [one], size=8), importances(model, [one], size=8, labelled=False))
    with pytest.raises(InputError, match="same parameters"):
        dampening(importances(model, [one], size=8), importances(model, [one], size=8, names=["0.weight"]))
    with pytest.raises(StaleError, match="same weights"):
        dampening(importances(model, [one], size=8), importances(network(3), [one], size=8))
    with pytest.raises(InputError, match="above zero"):
        dampening(*both(model), alpha=0)
    assert not any(module.training != model.training for module in model.modules())


tensors = st.lists(st.tuples(*[st.floats(0, 4, width=32)] * 2, st.floats(-3, 3, width=32)), min_size=1, max_size=12)


@given(tensors, st.floats(0.1, 20), st.floats(0.1, 20))
def test_what_is_chosen_and_by_how_much_follows_the_formula(values, alpha: float, strength: float) -> None:
    whole, theirs, weights = (torch.tensor(one) for one in zip(*values, strict=True))
    model = nn.Linear(len(weights), 1, bias=False)
    model.weight.data[:] = weights
    digest = importances(model, [{"x": torch.ones(1, len(weights)), "labels": torch.zeros(1).long()}], size=1).weights
    original, flagged = (Importances({"weight": one[None]}, 1, True, digest) for one in (whole, theirs))
    delta = dampening(original, flagged, alpha=alpha, strength=strength)
    wanted = weights.clone()
    for at, (i, f, w) in enumerate(zip(whole.tolist(), theirs.tolist(), weights.tolist(), strict=True)):
        if theirs[at] > alpha * whole[at]:
            wanted[at] = w * min(strength * i / f, 1.0)
    before = model.weight.detach().clone()
    with delta.attached(model):
        torch.testing.assert_close(model.weight.detach()[0], wanted, rtol=1e-5, atol=1e-7)
        assert (model.weight.abs() <= before.abs()).all() and torch.isfinite(model.weight).all()
    assert torch.equal(model.weight, before)
    assert delta.changed == int(((theirs > alpha * whole) & (strength * whole / theirs < 1)).sum())
    # A higher threshold never chooses more.
    fewer = dampening(original, flagged, alpha=2 * alpha, strength=strength)
    chosen = {*delta.places.get("weight", torch.empty(0)).tolist()}
    assert {*fewer.places.get("weight", torch.empty(0)).tolist()} <= chosen


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_dampening_leaves_no_trace_when_it_is_undone(layout, dtype) -> None:
    model = network().to(dtype=dtype, memory_format=layout)
    data = rows(8, dtype=dtype)
    original = importances(model, [data], size=8)
    assert all(one.dtype == torch.float32 for one in original.values.values())
    delta = dampening(original, importances(model, [rows(4, 2, dtype)], size=8), alpha=1.0, strength=0.3)
    assert delta.changed > 0
    before = state(model)
    applied = delta.apply(model)
    assert not same(state(model), before)
    with pytest.raises(StaleError, match="other weights"), delta.attached(model):
        pass  # twice would be the square
    applied.undo()
    assert same(state(model), before)
    with pytest.raises(ConflictError, match="undone already"):
        applied.undo()
    applied = delta.apply(model)
    model[5].bias.data += 1
    with pytest.raises(ConflictError, match="changed since"):
        applied.undo()


def test_it_is_taken_off_again_when_the_block_fails() -> None:
    model = network()
    delta, before = dampening(*both(model), alpha=0.5, strength=0.1), state(model)
    with pytest.raises(ZeroDivisionError), delta.attached(model):
        assert not same(state(model), before)
        raise ZeroDivisionError
    assert same(state(model), before)


def test_what_is_kept_serves_the_model_that_it_was_made_for() -> None:
    model = network()
    original, flagged = both(model)
    delta = dampening(original, flagged, alpha=0.5, strength=0.2)
    again = Dampening.unpack(delta.pack(), model)
    assert (again.alpha, again.strength, again.changed) == (0.5, 0.2, delta.changed)
    assert all(torch.equal(again.factors[name], one) for name, one in delta.factors.items())
    kept = Importances.unpack(original.pack(), model)
    assert (kept.batch, kept.labelled) == (8, True) and same(dict(kept.values), dict(original.values))
    short = Importances.unpack(original.pack(short=True), model)
    assert len(original.pack(short=True)) < 0.7 * len(original.pack())
    for name, one in original.values.items():
        torch.testing.assert_close(short.values[name], one, rtol=2**-7, atol=0)
    for stored, kind in ((delta.pack(), Dampening), (original.pack(), Importances)):
        with pytest.raises(StaleError):
            kind.unpack(stored, network(3))
    with pytest.raises(InputError, match="no dampening"):
        Dampening.unpack(original.pack(), model)
    with pytest.raises(InputError, match="no importances"):
        Importances.unpack(delta.pack(), model)


def test_squares_of_small_gradients_survive_short_storage() -> None:
    model = network()
    original = importances(model, [rows(4)], size=4)
    tiny = Importances({name: one * 1e-10 for name, one in original.values.items()}, 4, True, original.weights)
    kept = Importances.unpack(tiny.pack(short=True), model)
    for name, one in tiny.values.items():
        assert ((kept.values[name] > 0) == (one > 0)).all()
    assert any((one.half() == 0).any() and (one > 0).any() for one in tiny.values.values())


def test_the_threshold_without_a_search_is_a_percentile_of_the_ratios() -> None:
    whole, theirs = torch.arange(1.0, 65), torch.arange(1.0, 65).flip(0) ** 2
    original = Importances({"5.weight": whole}, 8, True, "w")
    flagged = Importances({"5.weight": theirs}, 8, True, "w")
    ratios = (theirs / whole).double().numpy()
    for share in (0.01, 0.5, 1.0):
        wanted = np.percentile(ratios, 100 - np.log(1 + 100 * share))
        assert adaptive_alpha(original, flagged, share) == pytest.approx(wanted)
    with pytest.raises(InputError, match="share"):
        adaptive_alpha(original, flagged, 0.0)
    nothing = Importances({"5.weight": torch.zeros(64)}, 8, True, "w")
    with pytest.raises(InputError, match="no weight matters"):
        adaptive_alpha(nothing, flagged, 0.1)


def test_a_batch_says_what_was_to_be_said() -> None:
    model = network().eval()
    said = answers(model, rows(4))
    assert said.logits.shape == (4, 3) and said.rows.tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match="labels"):
        answers(model, {"images": rows(4)["images"]})
    with pytest.raises(InputError, match="do not answer"):
        answers(model, {**rows(4), "labels": torch.zeros(4, 2).long()})
    with pytest.raises(InputError, match="as many rows"):
        next(in_batches({"images": torch.zeros(2, 1), "labels": torch.zeros(3)}, 2))
