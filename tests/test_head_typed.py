"""Each head keeps what the rule of its type says, within the budget of its type, and what it lets go of is free or merged."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")

from holdfast.errors import InputError  # noqa: E402
from holdfast.latent.head_typed import HeadTyped  # noqa: E402
from holdfast.latent.head_types import RETRIEVAL, STREAMING, HeadTypes  # noqa: E402
from holdfast.latent.heavy_hitters import HeavyHitters  # noqa: E402
from holdfast.latent.merging import _BLOCK, merged  # noqa: E402
from holdfast.latent.observation_window import ObservationWindow  # noqa: E402
from holdfast.latent.retention import Entries, Sum  # noqa: E402
from holdfast.latent.streaming import StreamingCache  # noqa: E402
from holdfast.latent.surprisal import Surprisal  # noqa: E402
from holdfast.latent.window import Window  # noqa: E402
from test_retention import drawn, held, masked, stream  # noqa: E402
from test_streaming import made  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

TYPES = HeadTypes.of("", torch.tensor([[0.1, 0.9], [0.8, 0.7], [0.2, 0.3]]), by="far", names=(STREAMING, RETRIEVAL))
BUDGETS = {STREAMING: 4, RETRIEVAL: 12}


@pytest.mark.parametrize("rule", [HeavyHitters(recent=2), ObservationWindow(3, 3), Surprisal(1, recent=2)], ids=str)
@pytest.mark.parametrize("buffer", [0, 3])
def test_each_head_keeps_by_its_own_rule_and_budget(rule, buffer: int) -> None:
    model, ids = made("qwen3"), drawn(1)
    policy = HeadTyped(TYPES, {STREAMING: Window(1), RETRIEVAL: rule})
    cache = StreamingCache(model, policy, policy.shares(BUDGETS), buffer=buffer)
    found, kept_then = stream(model, cache, ids)
    assert torch.allclose(found, masked(model, ids, kept_then), atol=1e-4)
    length = ids.shape[1]
    for layer, by_row in enumerate(held(cache)):
        for by_head in by_row:
            for head, positions in enumerate(by_head):
                streaming = TYPES.types[layer][head] == STREAMING
                assert len(positions) <= BUDGETS[TYPES.types[layer][head]] + buffer
                if streaming and not buffer:
                    assert positions == [0, *range(length - 3, length)]


def test_it_is_each_rule_alone_where_all_heads_are_of_one_type() -> None:
    model, ids = made(), drawn(2)
    for share, rule in ((1.0, Window(2)), (0.0, HeavyHitters(recent=2))):
        types = HeadTypes.of("", torch.rand(3, 2), share, names=(STREAMING, RETRIEVAL))
        policy = HeadTyped(types, {STREAMING: Window(2), RETRIEVAL: HeavyHitters(recent=2)})
        typed = StreamingCache(model, policy, 7)
        plain = StreamingCache(model, rule, 7)
        assert torch.allclose(stream(model, typed, ids)[0], stream(model, plain, ids)[0], atol=1e-5)
        assert held(typed) == held(plain)


def test_what_short_heads_let_go_of_is_free() -> None:
    model, ids = made(), drawn(3, rows=1, sizes=[120])
    policy = HeadTyped(TYPES, {STREAMING: Window(2), RETRIEVAL: HeavyHitters(recent=4)})
    typed = StreamingCache(model, policy, policy.shares({STREAMING: 8, RETRIEVAL: 64}))
    plain = StreamingCache(model, HeavyHitters(recent=4), 64)
    for cache in (typed, plain):
        stream(model, cache, ids, [120])
    entries, counts = 3 * 8 + 3 * 64, 6 * 8
    # Keys and values of 8 numbers, a position of 8 bytes and a note of 4 bytes an entry; nothing else but the counts.
    assert typed.nbytes() == entries * (2 * 8 * 4 + 8 + 4) + counts
    assert plain.nbytes() == 6 * 64 * (2 * 8 * 4 + 8 + 4)
    assert typed.nbytes() < 0.6 * plain.nbytes()


def by_hand(keys, values, scores, kept, held=None):
    keys, values = keys.double().clone(), values.double().clone()
    for row in range(keys.shape[0]):
        for head in range(keys.shape[1]):
            k, v, s = keys[row, head].clone(), values[row, head].clone(), scores[row, head].double()
            there = [at for at in range(len(k)) if held is None or held[row, head, at]]
            targets = [at for at in there if kept[row, head, at] and not s[at].isinf()]
            groups = {at: [at] for at in targets}
            for at in there:
                if targets and not kept[row, head, at]:
                    like = [torch.cosine_similarity(k[at], k[to], dim=0).item() for to in targets]
                    groups[targets[like.index(max(like))]].append(at)
            for to, of in groups.items():
                w = s[of].exp()
                keys[row, head, to] = (w[:, None] * k[of]).sum(0) / w.sum()
                values[row, head, to] = (w[:, None] * v[of]).sum(0) / w.sum()
    return keys.float(), values.float()


@pytest.mark.parametrize("padded", [False, True])
def test_merging_is_the_formula(padded: bool) -> None:
    g = torch.Generator().manual_seed(4)
    size = _BLOCK + 20
    keys, values = torch.randn(2, 3, size, 4, generator=g), torch.randn(2, 3, size, 4, generator=g)
    scores, kept = torch.randn(2, 3, size, generator=g), torch.rand(2, 3, size, generator=g) < 0.05
    scores[0, 0][kept[0, 0].nonzero()[:2, 0]] = float("inf")
    kept[1, 1] = torch.arange(size) == 7
    scores[1, 1, 7] = float("inf")  # all that stays is pinned
    there = torch.rand(2, 3, size, generator=g) < 0.7 if padded else None
    entries = Entries(keys, values, torch.arange(size).expand(2, 3, -1), held=there)
    found = merged(entries, scores, kept if there is None else kept & there)
    expected = by_hand(keys, values, scores, kept if there is None else kept & there, there)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert torch.equal(found[0][1, 1], keys[1, 1]) and not torch.allclose(found[0], keys)
    assert torch.equal(found[1][~kept], values[~kept])


def test_merging_is_calm_where_worths_are_far_apart() -> None:
    keys = torch.randn(1, 1, 4, 3, generator=torch.Generator().manual_seed(5))
    entries = Entries(keys, keys, torch.arange(4).view(1, 1, 4))
    kept = torch.tensor([[[True, True, False, False]]])
    for scores in ([0.0, -1e4, -1e4, -1e4], [-69.0, -69.0, 3.0, -2e4], [float("-inf")] * 4):
        found = merged(entries, torch.tensor([[scores]]), kept)
        assert all(torch.isfinite(one).all() for one in found)


def test_values_of_what_leaves_go_on_in_the_heads_that_merge() -> None:
    model, ids = made(), drawn(6, rows=2, sizes=[20])
    rules = {STREAMING: Window(1), RETRIEVAL: HeavyHitters(recent=2)}
    for shares in (None, 8):
        caches = [
            StreamingCache(model, policy, shares or policy.shares(BUDGETS))
            for policy in (HeadTyped(TYPES, rules), HeadTyped(TYPES, rules, merging=(RETRIEVAL,)))
        ]
        for cache in caches:
            stream(model, cache, ids, [20])
        assert held(caches[0]) == held(caches[1])
        for layer, types in enumerate(TYPES.types):
            plain, merging = (cache.entries(layer) for cache in caches)
            assert torch.equal(plain.keys, merging.keys), "keys are rotated, and are not merged"
            for head, name in enumerate(types):
                assert torch.equal(plain.values[:, head], merging.values[:, head]) == (name == STREAMING)
                # What is pinned is as it was.
                assert torch.equal(plain.values[:, head, -2:], merging.values[:, head, -2:])


def test_what_cannot_be_is_refused() -> None:
    rules = {STREAMING: Window(), RETRIEVAL: Window()}
    for wrong in (
        lambda: HeadTyped(TYPES, {STREAMING: Window()}),
        lambda: HeadTyped(TYPES, rules, merging=("all",)),
        lambda: HeadTyped(TYPES, rules).shares({STREAMING: 3}),
        lambda: Sum(((1.0, HeadTyped(TYPES, rules)),)),
    ):
        with pytest.raises(InputError):
            wrong()
