"""Which weights may learn: what is told from singular values, budgets, and that a choice is kept to."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("safetensors", reason="the extra torch is not installed")

from torch import nn  # noqa: E402

from holdfast.errors import InputError  # noqa: E402
from holdfast.weights.plasticity import (  # noqa: E402
    Ranking,
    expected_kappa,
    rank,
    ranked,
    select,
    to_peft_targets,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def stack(layers: int = 6, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(8 + at % 3, 8 + (at + 1) % 3) for at in range(layers)))


@given(st.floats(0.01, 100), st.integers(0, 20))
def test_kappa_does_not_change_with_scale_and_is_that_of_the_singular_values(scale: float, seed: int) -> None:
    model = nn.Linear(7, 5)
    torch.manual_seed(seed)
    nn.init.normal_(model.weight)
    (plain,) = rank(model, "kappa")
    values = torch.linalg.svdvals(model.weight.detach().double())
    assert plain.kappa == pytest.approx(float(values[0] / values[-1]))
    with torch.no_grad():
        model.weight.mul_(scale)
    (scaled,) = rank(model, "kappa")
    assert scaled.kappa == pytest.approx(plain.kappa, rel=1e-4)
    assert scaled.effective_rank == pytest.approx(plain.effective_rank, rel=1e-4)
    assert scaled.norm == pytest.approx(scale * plain.norm, rel=1e-4)
    assert 1 <= plain.stable_rank <= 5 + 1e-9 and 1 <= plain.effective_rank <= 5 + 1e-9


@given(st.integers(0, 1000))
def test_at_an_equal_norm_entropy_is_highest_where_all_singular_values_are_alike(seed: int) -> None:
    """sum log sigma <= r/2 log(|W|^2 / r): why a high condition number bounds what comes out."""
    torch.manual_seed(seed)
    values = torch.linalg.svdvals(torch.randn(6, 6).double())
    assert float(values.log().sum()) <= 3 * math.log(float((values**2).sum()) / 6) + 1e-9


def test_a_rotation_is_as_regular_as_can_be_and_noise_is_told_from_singular_values() -> None:
    model = nn.Linear(6, 6, bias=False)
    nn.init.orthogonal_(model.weight)
    (one,) = rank(model, "kappa")
    assert one.kappa == pytest.approx(1, abs=1e-4) and one.effective_rank == pytest.approx(6, rel=1e-4) and one.resolved
    with torch.no_grad():
        model.weight[0] = model.weight[1]
    (one,) = rank(model, "kappa")
    assert not one.resolved and one.kappa <= 1 / (6 * torch.finfo(torch.float32).eps) * 1.01


def test_what_a_random_matrix_of_a_shape_has() -> None:
    torch.manual_seed(0)
    for rows, columns in ((200, 50), (50, 200)):
        measured = sum(float(torch.linalg.cond(torch.randn(rows, columns))) for _ in range(20)) / 20
        assert measured == pytest.approx(expected_kappa(rows, columns), rel=0.1)
    logs = [math.log(float(torch.linalg.cond(torch.randn(40, 40).double()))) for _ in range(400)]
    assert sum(logs) / 400 == pytest.approx(math.log(expected_kappa(40, 40)), abs=0.2)
    model = nn.ModuleDict({"tall": nn.Linear(20, 200), "square": nn.Linear(60, 60)})
    raw, shaped = ({one.name: one.value for one in rank(model, "kappa", shape=shape)} for shape in (False, True))
    assert raw["square.weight"] > 10 * raw["tall.weight"]
    assert shaped["square.weight"] < 10 * shaped["tall.weight"]


def test_the_order_of_each_measure() -> None:
    model = stack()
    for by, key in (
        ("kappa", lambda one: one.kappa),
        ("effective_rank", lambda one: -one.effective_rank),
        ("stable_rank", lambda one: -one.stable_rank),
        ("norm", lambda one: one.norm),
        (lambda one: -one.kappa, lambda one: -one.kappa),
    ):
        found = rank(model, by)
        assert [*found] == sorted(found, key=key)
        assert ranked(rank(model, "kappa"), by) == found
    assert [*Ranking("norm").scores(model)] == [one.name for one in rank(model, "norm")]
    with pytest.raises(InputError):
        rank(model, "beauty")  # type: ignore[arg-type]


def test_convolutions_stacks_embeddings_and_halves() -> None:
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.Parameter(torch.randn(3, 5, 4))
            self.conv = nn.Conv1d(2, 4, 3)
            self.embed = nn.Embedding(9, 4)
            self.half = nn.Linear(4, 4, bias=False, dtype=torch.bfloat16)

    torch.manual_seed(1)
    model = Fused()
    found = {one.name: one for one in rank(model, "kappa")}
    assert set(found) == {"experts", "conv.weight", "half.weight"}
    each = [float(torch.linalg.cond(one.double())) for one in model.experts.detach()]
    assert found["experts"].kappa == pytest.approx(sum(each) / 3, rel=1e-6)
    flat = model.conv.weight.detach().flatten(1).double()
    assert found["conv.weight"].kappa == pytest.approx(float(torch.linalg.cond(flat)), rel=1e-6)
    assert to_peft_targets(model, ["experts", "half.weight"]) == {
        "target_modules": ["half"],
        "target_parameters": ["experts"],
    }


@given(st.floats(0.01, 1), st.booleans(), st.sampled_from(["parameters", "count"]))
def test_a_budget_is_kept_to_and_one_matrix_learns_at_least(budget: float, balanced: bool, by: str) -> None:
    scores = rank(stack(9), "norm")
    names = select(scores, budget, by=by, balanced=balanced)  # type: ignore[arg-type]
    assert names and [one.name for one in scores if one.name in names] == [*names]
    if not balanced:
        cost = {one.name: one.parameters if by == "parameters" else 1 for one in scores}
        assert sum(cost[name] for name in names) <= budget * sum(cost.values()) + 1e-6 or len(names) == 1
    else:
        assert {name.split(".")[0] for name in names} == {str(at) for at in range(9)}


def test_what_was_found_is_kept_under_the_weights_and_no_other_model_is_given_it(tmp_path: Path, monkeypatch) -> None:
    cache, model, other = tmp_path / "kappa.json", stack(), stack(seed=1)
    first, second = rank(model, "kappa", cache=cache), rank(other, "kappa", cache=cache)
    assert {one.kappa for one in first}.isdisjoint(one.kappa for one in second)
    monkeypatch.setattr(torch.linalg, "svdvals", lambda _: pytest.fail("it was found before"))
    assert rank(model, "kappa", cache=cache) == first and rank(other, "norm", cache=cache) != second
    with torch.no_grad():
        model[0].weight.add_(1)
    with pytest.raises(pytest.fail.Exception):
        rank(model, "kappa", cache=cache)
    cache.write_text("nonsense")
    with pytest.raises(InputError, match="no file"):
        rank(other, "kappa", cache=cache)


def test_what_says_nothing_is_refused() -> None:
    model = nn.Linear(3, 3)
    nn.init.zeros_(model.weight)
    with pytest.raises(InputError, match="zeros"):
        rank(model, "kappa")
    with pytest.raises(InputError, match="names"):
        rank(model, "kappa", names=["bias"])
    with pytest.raises(InputError, match="budget"):
        select((), 0)
