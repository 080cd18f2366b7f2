"""Heads are told apart by what they look at, and what was told of one model is not used for another."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")

from holdfast.errors import InputError, StaleError  # noqa: E402
from holdfast.latent.head_types import (  # noqa: E402
    CONTEXTUAL,
    RETRIEVAL,
    STREAMING,
    STRUCTURAL,
    HeadTypes,
    column_variance,
    far_attention,
    measured,
    profile,
)
from holdfast.latent.identity import weights_digest  # noqa: E402
from test_streaming import made  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SCALES = (1, 2, 3, 4, 6)


def vertical(g, queries: int, keys: int):
    """A map that looks at a few columns, whatever the query."""
    at = torch.randperm(keys, generator=g)[:3]
    weights = torch.zeros(queries, keys)
    weights[:, at] = torch.rand(3, generator=g) + 0.2
    return weights / weights.sum(-1, keepdim=True)


def diagonal(g, side: int):
    """A map whose queries look at the place of each scale that fits theirs."""
    maps = []
    for of in SCALES:
        weights = torch.zeros(side, side, of, of)
        for row in range(side):
            for column in range(side):
                weights[row, column, row * of // side, column * of // side] = 1
        maps.append((torch.rand(1, generator=g) + 0.2) * weights.view(side * side, of * of))
    weights = torch.cat(maps, dim=-1)
    return weights / weights.sum(-1, keepdim=True)


def noisy(g, weights):
    """A tenth of what is looked at is noise."""
    noise = torch.rand(weights.shape, generator=g)
    return 0.9 * weights + 0.1 * noise / noise.sum(-1, keepdim=True)


def test_stripes_and_diagonals_are_told_apart_without_a_mistake() -> None:
    g = torch.Generator().manual_seed(0)
    side, keys = SCALES[-1], sum(of * of for of in SCALES)
    upright = [noisy(g, vertical(g, side * side, keys)) for _ in range(200)]
    along = [noisy(g, diagonal(g, side)) for _ in range(200)]
    values = column_variance(torch.stack(upright + along)).view(2, 200)
    found = HeadTypes.of("some model", values)
    assert set(found.types[0]) == {CONTEXTUAL} and set(found.types[1]) == {STRUCTURAL}
    # Over keys instead of queries the order is the opposite: this is not what is measured.
    assert values[0].max() < values[1].min()
    wrong = torch.stack(upright + along).var(dim=-1, correction=0).sum(-1).view(2, 200)
    assert wrong[0].mean() > wrong[1].mean()


def test_column_variance_is_the_formula() -> None:
    weights = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    expected = ((weights - weights.mean(2, keepdim=True)) ** 2).mean(2).sum(-1)
    assert torch.allclose(column_variance(weights), expected, atol=1e-6)
    assert column_variance(torch.eye(10)).item() == pytest.approx(0.9)


def test_what_is_far_is_neither_first_nor_newest() -> None:
    measure = far_attention(1, 2)
    even = torch.ones(6, 6).tril() / torch.arange(1, 7)[:, None]
    # Queries 3, 4 and 5 have 1, 2 and 3 of their 4, 5 and 6 tokens far away; the others have none.
    assert measure(even).item() == pytest.approx((1 / 4 + 2 / 5 + 3 / 6) / 3)
    first = torch.zeros(6, 6)
    first[:, 0] = 1
    assert measure(first).item() == 0 == measure(torch.eye(6)).item()
    assert measure(even[-2:]).item() == pytest.approx((2 / 5 + 3 / 6) / 2)
    with pytest.raises(InputError, match="nothing is far"):
        far_attention(4, 8)(even)


def test_types_come_back_from_json_and_are_bound_to_their_model() -> None:
    found = HeadTypes.of("a digest", torch.tensor([[0.3, 0.1, 0.9], [0.2, 0.8, 0.4]]))
    assert found.types == ((CONTEXTUAL, CONTEXTUAL, STRUCTURAL), (CONTEXTUAL, STRUCTURAL, STRUCTURAL))
    written = json.loads(json.dumps(found.to_dict()))
    assert written["heads"][2].keys() == {"layer", "head", "variance", "type"}
    assert HeadTypes.from_dict(written, "a digest") == found
    with pytest.raises(StaleError, match="anew"):
        HeadTypes.from_dict(written, "another")
    for change in (
        {"heads": written["heads"][1:]},
        {"heads": []},
        {"by": "far"},
        {"names": ["one"]},
        {"heads": [{**row, "type": "other"} for row in written["heads"]]},
        {"heads": 3},
    ):
        with pytest.raises(InputError):
            HeadTypes.from_dict({**written, **change})


def test_controls_budgets_and_orders() -> None:
    values = torch.rand(4, 8, generator=torch.Generator().manual_seed(2))
    types = HeadTypes.of("", values, share=0.25)
    assert types.share == 0.25 and types.swapped().share == 0.75 and types.swapped().swapped() == types
    dealt = types.shuffled(0)
    assert dealt.share == 0.25 and dealt.types != types.types and dealt == types.shuffled(0) != types.shuffled(1)
    assert types.agreement(types) == 1 and types.agreement(types.swapped()) == 0
    assert types.agreement(HeadTypes.of("", values, share=0.5)) == 0.75
    for mean, low in ((20, 5), (7, 2), (33.3, 8), (20, 20)):
        budgets = types.budgets(mean, low)
        total = sum(budgets[name] for of in types.types for name in of)
        assert mean * 32 - 32 < total <= mean * 32 and budgets[CONTEXTUAL] == low
    with pytest.raises(InputError):
        types.swapped().budgets(4, 6)
    for layer in range(4):
        order = types.order(layer)
        assert sorted(order) == list(range(8)) and order[: len(types.heads(layer, CONTEXTUAL))] == types.heads(
            layer, CONTEXTUAL
        )
        assert types.permuted().order(layer) == list(range(8))
    for wrong in (
        lambda: HeadTypes.of("", values[0]),
        lambda: HeadTypes.of("", values * float("nan")),
        lambda: HeadTypes.of("", values, share=1.5),
        lambda: types.agreement(HeadTypes.of("", values[:2])),
    ):
        with pytest.raises(InputError):
            wrong()


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_text_model_is_measured_by_its_own_attention(kind: str) -> None:
    model = made(kind, "eager")
    ids = torch.randint(0, 61, (3, 30), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        maps = model(ids, output_attentions=True).attentions
    for measure in (column_variance, far_attention(2, 8)):
        expected = torch.stack([measure(of).mean(0).view(2, 2).mean(1) for of in maps])
        found = measured(model, [ids[:2], ids[2:]], measure)
        assert torch.allclose(found.float(), expected, atol=1e-5)
    types = profile(model, [ids], sinks=2, recent=8)
    assert types.model == weights_digest(model) and types.by == "far" and types.share == 0.5
    assert {one for of in types.types for one in of} == {STREAMING, RETRIEVAL}
    low = [
        v
        for of, its in zip(types.values, types.types, strict=True)
        for v, t in zip(of, its, strict=True)
        if t == STREAMING
    ]
    assert max(low) <= min(v for of in types.values for v in of if v not in low)
    with pytest.raises(InputError, match="no texts"):
        profile(model, [])
