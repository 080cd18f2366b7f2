"""The arms of claim 40: caches that keep a share of what a next-scale model has drawn, and what each of them changes.

A budget is a share of the entries that are there before the last scale, for nothing follows that one: the mean over all heads of
what a head keeps after each scale. Every arm has a few settings, and takes those by which other pictures are told best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from holdfast.claims.hack_digits import CLASSES
from holdfast.claims.hack_model import TOKENS, Coder, Drawer, Kept, Namer
from holdfast.latent.chance import Chance
from holdfast.latent.head_types import CONTEXTUAL, STRUCTURAL, HeadTypes, column_variance
from holdfast.latent.heavy_hitters import HeavyHitters
from holdfast.latent.retention import RetentionPolicy
from holdfast.latent.scales import ALL, ScaleAware, ScaleCache
from holdfast.latent.window import Window
from holdfast.torched import Tensor, torch

FULL, RANDOM, WINDOW, HITTERS, AWARE = (
    "full cache",
    "random",
    "first scales and last",
    "attention (H2O)",
    "scale-aware, all heads",
)
OURS, SWAPPED, DEALT, UNMERGED = "HACK", "HACK, types swapped", "HACK, types by lot", "HACK, no merging"
UNIFORM = (RANDOM, WINDOW, HITTERS, AWARE)
TYPED = (OURS, SWAPPED, DEALT, UNMERGED)

BEFORE_LAST = sum(TOKENS[:-1])
LATE = (len(TOKENS) - 2, len(TOKENS) - 1)
"""The scales whose maps types are told from."""
GUIDANCE = 1.5

CacheOf = Callable[[int], ScaleCache]
"""Of a budget, the mean of a head, a fresh cache."""


@dataclass(frozen=True, slots=True)
class Setting:
    """``first``: so many scales are pinned. ``recent``: so large a share of a budget the newest entries are. ``mean``: attention by
    query instead of its sum. ``share``: of the heads that are contextual. ``small``: their budget, as a share of the mean.
    """

    first: int = 2
    recent: float = 0.0
    mean: bool = False
    share: float = 0.5
    small: float = 0.25


SETTINGS: Mapping[str, Sequence[Setting]] = {
    RANDOM: [Setting(first=first) for first in range(4)],
    WINDOW: [Setting(first=first) for first in range(4)],
    HITTERS: [Setting(recent=recent, mean=mean) for recent, mean in product((0.0, 0.25, 0.5), (False, True))],
    AWARE: [Setting(first=first) for first in range(4)],
    OURS: [Setting(share=share, small=small) for share, small in product((0.25, 0.5, 0.75), (0.25, 0.5))],
}


def cache_of(arm: str, setting: Setting, values: Tensor, seed: int, pairs: bool = False) -> CacheOf:
    """The cache of an arm. ``values``: column variances of all heads, shape (L, H)."""
    if arm == FULL:
        return lambda _: ScaleCache(TOKENS)
    if arm in TYPED:
        types = HeadTypes.of("", values, setting.share)
        types = {SWAPPED: types.swapped(), DEALT: types.shuffled(seed)}.get(arm, types)
        merging = () if arm == UNMERGED else (CONTEXTUAL,)
        return lambda budget: ScaleCache(
            TOKENS,
            types,
            types.budgets(budget, max(1, round(setting.small * budget))),
            rules={CONTEXTUAL: HeavyHitters(recent=0), STRUCTURAL: ScaleAware(TOKENS, setting.first)},
            merging=merging,
            pairs=pairs,
            seed=seed,
        )
    pinned = sum(TOKENS[: setting.first])

    def rule(budget: int) -> RetentionPolicy:
        if arm == RANDOM:
            return Chance(seed, pinned)
        if arm == WINDOW:
            return Window(pinned)
        if arm == HITTERS:
            return HeavyHitters(round(setting.recent * budget), mean=setting.mean)
        return ScaleAware(TOKENS, setting.first)

    return lambda budget: ScaleCache(TOKENS, None, {ALL: budget}, rules={ALL: rule(budget)}, pairs=pairs, seed=seed)


@dataclass(frozen=True, slots=True)
class Told:
    """Pictures whose scales are known: what the model is told at each scale, shape (B, T_s, 16), and their classes."""

    inputs: Sequence[Tensor]
    labels: Tensor

    def some(self, places: slice) -> Told:
        """Those at some places."""
        return Told([one[places] for one in self.inputs], self.labels[places])


def told(model: Drawer, pictures: Told, cache: Kept) -> Tensor:
    """Log-probabilities of every token, shape (B, 130, 128), each scale told by the true ones before and what the cache keeps."""
    with torch.no_grad():
        found = [model.step(at, given, pictures.labels, cache) for at, given in enumerate([None, *pictures.inputs])]
    return torch.cat(found, dim=1).log_softmax(dim=-1)


def divergence(whole: Tensor, found: Tensor) -> float:
    """KL(full ‖ compressed) in nats, the mean over the tokens that some scale came before."""
    apart = (whole.exp() * (whole - found)).sum(dim=-1)
    return float(apart[:, TOKENS[0] :].mean())


class Watching(ScaleCache):
    """A cache that keeps everything, and notes of each head how much the columns of its late maps vary."""

    def __init__(self) -> None:
        super().__init__(TOKENS)
        self.found: list[Tensor] = []

    def attend(self, layer: int, queries: Tensor, scaling: float | None = None) -> Tensor:
        """See ``ScaleCache``."""
        entries = self.entries(layer, ALL)
        step = TOKENS.index(queries.shape[2])
        if step in LATE:
            scale = queries.shape[-1] ** -0.5 if scaling is None else scaling
            maps = (queries @ entries.keys.transpose(-1, -2) * scale).softmax(dim=-1)
            self.found.append(column_variance(maps))
        return super().attend(layer, queries, scaling)


def variances(model: Drawer, pictures: Told) -> Tensor:
    """Of each picture and head, shape (B, L, H): the mean over the late scales."""
    watching = Watching()
    told(model, pictures, watching)
    return torch.stack(watching.found, dim=1).unflatten(1, (len(LATE), -1)).mean(dim=1)


def best(arm: str, model: Drawer, pictures: Told, whole: Tensor, values: Tensor, budget: int, seed: int) -> Setting:
    """Of an arm's settings the one whose divergence on some pictures is least."""
    found = [
        divergence(whole, told(model, pictures, cache_of(arm, setting, values, seed)(budget)))
        for setting in SETTINGS[arm]
    ]
    return SETTINGS[arm][found.index(min(found))]


def drawn(model: Drawer, code: Coder, labels: Tensor, cache: Kept, seed: int) -> Tensor:
    """Pictures of some classes, shape (B, 1, 32, 32), drawn scale by scale with guidance that grows with the scale."""
    lots = torch.Generator().manual_seed(seed)
    both = torch.cat([labels, torch.full_like(labels, CLASSES)])
    total, given = torch.zeros(len(labels), TOKENS[-1], code.codes.shape[1]), None
    with torch.no_grad():
        for at in range(len(TOKENS)):
            logits, free = model.step(at, given, both, cache).chunk(2)
            more = GUIDANCE * at / (len(TOKENS) - 1)
            shares = ((1 + more) * logits - more * free).softmax(dim=-1)
            tokens = torch.multinomial(shares.flatten(0, 1), 1, generator=lots).view(len(labels), -1)
            total = total + code.added(at, tokens)
            if at + 1 < len(TOKENS):
                given = code.asked(at + 1, total).repeat(2, 1, 1)
        return code.pictures(total)


def judged(images: Tensor, labels: Tensor, name: Namer, real: Tensor) -> dict[str, float]:
    """How many pictures are seen as what they were to be, and how far their features lie from those of real ones."""
    with torch.no_grad():
        right = name(images).argmax(dim=-1) == labels
        return {
            "right class": float(right.float().mean()),
            "Fréchet distance": frechet(name.sees(images), name.sees(real)),
        }


def frechet(ours: Tensor, real: Tensor) -> float:
    """Between two sets of features, shape (N, D) each, as normal distributions: |μ - ν|² + Tr(A + B - 2 (A^½ B A^½)^½)."""
    one, other = ours.double(), real.double()
    first, second = torch.cov(one.T), torch.cov(other.T)
    values, vectors = torch.linalg.eigh(first)
    root = vectors @ (values.clamp(min=0).sqrt()[:, None] * vectors.T)
    shared = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    return float((one.mean(0) - other.mean(0)).square().sum() + first.trace() + second.trace() - 2 * shared)


def maps(seed: int, many: int = 200) -> tuple[Tensor, Tensor]:
    """Synthetic maps of a late scale, a tenth of each noise: vertical stripes and diagonals, shape (``many``, 64, 130) each."""
    drawn = torch.Generator().manual_seed(seed)
    side, keys = round(TOKENS[-1] ** 0.5), sum(TOKENS)
    upright = torch.zeros(many, side * side, keys)
    for one in upright:
        one[:, torch.randperm(keys, generator=drawn)[:4]] = torch.rand(4, generator=drawn) + 0.2
    along = torch.zeros(many, side * side, keys)
    place = torch.arange(side * side)
    start = 0
    for tokens in TOKENS:
        of = round(tokens**0.5)
        fits = (place // side * of // side) * of + place % side * of // side
        along[:, place, start + fits] = torch.rand(many, 1, generator=drawn) + 0.2
        start += tokens

    def noisy(found: Tensor) -> Tensor:
        noise = torch.rand(found.shape, generator=drawn)
        return 0.9 * found / found.sum(-1, keepdim=True) + 0.1 * noise / noise.sum(-1, keepdim=True)

    return noisy(upright), noisy(along)
