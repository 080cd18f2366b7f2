"""A bounded cache of scales is the plain one where nothing leaves, and keeps by head group what it says it keeps."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")

from holdfast.errors import InputError  # noqa: E402
from holdfast.latent.chance import Chance  # noqa: E402
from holdfast.latent.head_types import CONTEXTUAL, STRUCTURAL, HeadTypes  # noqa: E402
from holdfast.latent.heavy_hitters import ATTENTION, HeavyHitters  # noqa: E402
from holdfast.latent.observation_window import ObservationWindow  # noqa: E402
from holdfast.latent.retention import Entries  # noqa: E402
from holdfast.latent.scales import ALL, ScaleAware, ScaleCache, permute_heads  # noqa: E402
from holdfast.latent.window import Window  # noqa: E402
from test_head_typed import by_hand  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SCALES = (1, 4, 9, 16, 36)
LAYERS, HEADS, WIDE = 3, 4, 6
TYPES = HeadTypes.of("", torch.tensor([[0.1, 0.9, 0.2, 0.8], [0.7, 0.6, 0.75, 0.65], [0.3, 0.4, 0.95, 0.5]]), 5 / 12)
"""No head of the second layer is contextual."""


def states(seed: int, rows: int = 2, layers: int = LAYERS):
    """Queries, keys and values of each scale and layer."""
    g = torch.Generator().manual_seed(seed)
    return [[torch.randn(3, rows, HEADS, of, WIDE, generator=g) for _ in range(layers)] for of in SCALES]


def read(cache, drawn):
    """What every layer reads of every scale."""
    found = []
    for scale in drawn:
        for layer, (queries, keys, values) in enumerate(scale):
            cache.append(layer, keys, values)
            found.append(cache.attend(layer, queries))
            cache.compress(layer)
    return found


def plain(drawn):
    held = [None] * LAYERS
    found = []
    for scale in drawn:
        for layer, (queries, keys, values) in enumerate(scale):
            old = held[layer]
            held[layer] = (
                (keys, values)
                if old is None
                else tuple(torch.cat(both, 2) for both in zip(old, (keys, values), strict=True))
            )
            weights = (queries @ held[layer][0].transpose(-1, -2) * WIDE**-0.5).softmax(-1)
            found.append(weights @ held[layer][1])
    return found


@pytest.mark.parametrize("types", [None, TYPES, TYPES.permuted()], ids=["all", "mixed", "contiguous"])
@pytest.mark.parametrize("budgets", [None, 66])
def test_where_nothing_leaves_it_is_the_plain_cache(types, budgets) -> None:
    drawn = states(0)
    given = None if budgets is None else dict.fromkeys([ALL] if types is None else types.names, budgets)
    rules = {ALL: HeavyHitters(recent=0)} if types is None else None
    cache = ScaleCache(SCALES, types, given, rules=rules)
    for one, other in zip(read(cache, drawn), plain(drawn), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert cache.lengths(cache.groups[-1])[0] == sum(SCALES)


def test_groups_hold_their_budget_and_the_bytes_are_free() -> None:
    drawn = states(1)
    cache, full = ScaleCache(SCALES, TYPES, {CONTEXTUAL: 3, STRUCTURAL: 20}), ScaleCache(SCALES, TYPES)
    for at, scale in enumerate(drawn[:-1]):
        for one in (cache, full):
            for layer, (queries, keys, values) in enumerate(scale):
                one.append(layer, keys, values)
                one.attend(layer, queries)
                one.compress(layer)
        seen = sum(SCALES[: at + 1])
        assert cache.lengths(CONTEXTUAL) == [min(seen, 3), 0, min(seen, 3)]
        assert cache.lengths(STRUCTURAL) == [min(seen, 20)] * 3
    entry = 2 * (2 * WIDE * 4 + 8 + 4)
    contextual = sum(len(TYPES.heads(layer, CONTEXTUAL)) for layer in range(LAYERS))
    assert cache.nbytes() == entry * (3 * contextual + 20 * (LAYERS * HEADS - contextual))
    assert full.nbytes() == entry * 30 * LAYERS * HEADS
    # The last scale is not compressed: nothing follows.
    for layer, (queries, keys, values) in enumerate(drawn[-1]):
        cache.append(layer, keys, values)
        cache.attend(layer, queries)
        cache.compress(layer)
    assert cache.lengths(CONTEXTUAL)[0] == 3 + 36


@pytest.mark.parametrize("merging", [(), (CONTEXTUAL,)])
def test_each_group_keeps_by_its_rule_and_reads_what_it_keeps(merging) -> None:
    """The whole of it once more, a head at a time."""
    drawn, budgets = states(2), {CONTEXTUAL: 4, STRUCTURAL: 17}
    cache = ScaleCache(SCALES, TYPES, budgets, merging=merging)
    found = iter(read(cache, drawn))
    held = {}
    for at, scale in enumerate(drawn):
        for layer, (queries, keys, values) in enumerate(scale):
            out = next(found)
            for row in range(2):
                for head in range(HEADS):
                    new = torch.arange(sum(SCALES[:at]), sum(SCALES[: at + 1]))
                    k, v, p, i = held.get(
                        (layer, row, head), (torch.zeros(0, WIDE), torch.zeros(0, WIDE), new[:0], torch.zeros(0))
                    )
                    k, v, p = torch.cat([k, keys[row, head]]), torch.cat([v, values[row, head]]), torch.cat([p, new])
                    weights = (queries[row, head] @ k.T * WIDE**-0.5).softmax(-1)
                    assert torch.allclose(out[row, head], weights @ v, atol=1e-5)
                    i = torch.cat([i, torch.zeros(len(new))]) + weights.sum(0)  # 16 queries at most: all are asked
                    name = TYPES.types[layer][head]
                    if at < 4 and len(p) > budgets[name]:
                        worth = i.log()
                        if name == STRUCTURAL:
                            worth = worth + 100 * (p >= new[0])
                            worth[p < 5] = float("inf")
                        stays = torch.zeros(len(p), dtype=torch.bool)
                        stays[worth.sort(descending=True, stable=True).indices[: budgets[name]]] = True
                        if at == 3 and name in merging:
                            k, v = (one[0, 0] for one in by_hand(*(x[None, None] for x in (k, v, worth, stays))))
                        k, v, p, i = k[stays], v[stays], p[stays], i[stays]
                    held[layer, row, head] = (k, v, p, i)


def test_structural_heads_keep_the_first_scales_the_newest_and_then_what_was_looked_at() -> None:
    rule, seen = ScaleAware(SCALES), 30
    looked = torch.rand(1, 1, seen, generator=torch.Generator().manual_seed(3)) * 1000
    entries = Entries(
        torch.zeros(1, 1, seen, 2), torch.zeros(1, 1, seen, 2), torch.arange(seen).view(1, 1, -1), {ATTENTION: looked}
    )
    order = rule.score(0, entries, seen)[0, 0].sort(descending=True, stable=True).indices.tolist()
    assert (
        order[:5] == [0, 1, 2, 3, 4]
        and sorted(order[5:21]) == [*range(14, 30)]
        and sorted(order[21:]) == [*range(5, 14)]
    )
    by_attention = looked[0, 0].tolist()
    for part in (order[5:21], order[21:]):
        assert [by_attention[at] for at in part] == sorted((by_attention[at] for at in part), reverse=True)


def test_a_few_queries_tell_what_is_looked_at() -> None:
    drawn = states(4)
    exact, some, same, other = (
        ScaleCache(SCALES, None, {ALL: 12}, rules={ALL: HeavyHitters(recent=0)}, observed=many, seed=seed)
        for many, seed in ((36, 0), (5, 0), (5, 0), (5, 1))
    )
    for cache in (exact, some, same, other):
        for scale in drawn[:4]:
            for layer, (queries, keys, values) in enumerate(scale):
                cache.append(layer, keys, values)
                cache.attend(layer, queries)
                cache.compress(layer)
    notes = [cache.entries(1, ALL).notes[ATTENTION] for cache in (exact, some, same, other)]
    assert torch.equal(notes[1], notes[2]) and not torch.equal(notes[1], notes[3])
    # Attention adds up to 1 a query: 1 + 4 + 9 + 16 queries against 1 + 4 + 5 + 5.
    assert notes[0].sum(-1).max() <= 30 and notes[1].sum(-1).max() <= 15


def test_rows_of_a_pair_keep_the_same_and_others_their_own() -> None:
    drawn = states(5, rows=4)
    paired, apart = (ScaleCache(SCALES, TYPES, {CONTEXTUAL: 3, STRUCTURAL: 12}, pairs=pairs) for pairs in (True, False))
    for cache in (paired, apart):
        read(cache, drawn)
    for group in TYPES.names:
        for cache, same in ((paired, True), (apart, False)):
            at = cache.entries(0, group).positions
            assert torch.equal(at[:2], at[2:]) == same
    # Lots, which rows draw for themselves, too.
    lots = ScaleCache(SCALES, None, {ALL: 8}, rules={ALL: Chance(0)}, pairs=True)
    read(lots, drawn)
    at = lots.entries(0, ALL).positions
    assert torch.equal(at[:2], at[2:]) and not torch.equal(at[0], at[1])
    with pytest.raises(InputError, match="even"):
        ScaleCache(SCALES, pairs=True).append(0, torch.zeros(3, HEADS, 1, WIDE), torch.zeros(3, HEADS, 1, WIDE))


@pytest.mark.parametrize(
    "rule", [Chance(0), Window(5), HeavyHitters(recent=6, mean=True), ScaleAware(SCALES, 1)], ids=str
)
def test_rules_of_other_caches_serve_here(rule) -> None:
    cache = ScaleCache(SCALES, None, {ALL: 11}, rules={ALL: rule})
    assert all(torch.isfinite(one).all() for one in read(cache, states(6)))
    assert cache.lengths(ALL) == [11 + 36] * LAYERS
    if isinstance(rule, Window):
        assert cache.entries(0, ALL).positions[0, 0, :11].tolist() == [0, 1, 2, 3, 4, *range(24, 30)]


def test_heads_in_another_order_give_what_they_gave() -> None:
    """Projections whose heads are permuted, with types that are contiguous then: the same output, compressed too."""
    g = torch.Generator().manual_seed(7)
    wide = HEADS * WIDE
    qkv, bias, out = (
        torch.randn(3 * wide, wide, generator=g),
        torch.randn(3 * wide, generator=g),
        torch.randn(wide, wide, generator=g),
    )
    order = TYPES.order(0)
    assert order == [0, 2, 1, 3]
    texts = [torch.randn(2, of, wide, generator=g) for of in SCALES]

    def gone(types, qkv, bias, out):
        cache, found = ScaleCache(SCALES, types, {CONTEXTUAL: 4, STRUCTURAL: 17}), []
        for x in texts:
            queries, keys, values = (x @ qkv.T + bias).view(2, -1, 3, HEADS, WIDE).permute(2, 0, 3, 1, 4)
            cache.append(0, keys, values)
            found.append(cache.attend(0, queries).transpose(1, 2).flatten(2) @ out.T)
            cache.compress(0)
        return found

    plain = gone(TYPES, qkv, bias, out)
    moved = gone(
        TYPES.permuted(),
        permute_heads(qkv, order, parts=3),
        permute_heads(bias, order, parts=3),
        permute_heads(out, order, dim=1),
    )
    for one, other in zip(plain, moved, strict=True):
        assert torch.allclose(one, other, atol=1e-5 * one.abs().max())


def test_what_cannot_be_is_refused() -> None:
    for wrong in (
        lambda: ScaleCache(SCALES, TYPES, {ALL: 3}),
        lambda: ScaleCache(SCALES, TYPES, {CONTEXTUAL: 0}),
        lambda: ScaleCache(SCALES, None, {ALL: 3}),
        lambda: ScaleCache(SCALES, None, {ALL: 3}, rules={ALL: ObservationWindow()}),
        lambda: ScaleCache(SCALES, observed=0),
        lambda: ScaleCache(SCALES).append(0, torch.zeros(1, HEADS, 4, WIDE), torch.zeros(1, HEADS, 4, WIDE)),
        lambda: ScaleCache(SCALES, TYPES).append(3, torch.zeros(1, HEADS, 1, WIDE), torch.zeros(1, HEADS, 1, WIDE)),
        lambda: ScaleCache(SCALES, TYPES).append(0, torch.zeros(1, 2, 1, WIDE), torch.zeros(1, 2, 1, WIDE)),
        lambda: ScaleCache(SCALES).lengths(CONTEXTUAL),
        lambda: ScaleAware(()),
        lambda: permute_heads(torch.zeros(6, 6), [0, 0]),
        lambda: permute_heads(torch.zeros(6, 6), [0, 1, 2, 3]),
    ):
        with pytest.raises(InputError):
            wrong()
