"""The small next-scale model of claim 40 (as VAR, arXiv 2404.02905): pictures as tokens of several scales, and what draws them.

A picture is coarse at first, and each scale adds what is missing: a convolutional autoencoder whose latents, 8 by 8, are the sum of
scales of 1, 2, 3, 4, 6 and 8 tokens a side. A transformer tells all tokens of a scale at once from the sum so far, its class, and
what is kept of the scales before. All is trained anew for every seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from holdfast.claims.base import Scale
from holdfast.claims.hack_digits import CLASSES, Pictures
from holdfast.torched import Tensor, nn, torch

SIDES = (1, 2, 3, 4, 6, 8)
TOKENS = tuple(side * side for side in SIDES)
LATENT, CODES = 16, 128
_PLACES = SIDES[-1] ** 2
_SHARPEST = 100.0
_CODING = 4e-3


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is trained, and on how much.

    Fields
        layers, width, heads, inner: of the transformer. channels: of the autoencoder's first layer.
        pictures: to learn from. coding, drawing, naming: steps of the autoencoder, the transformer and the classifier. rate: of
            the transformer.
        tuned, held: pictures that settings are chosen by, and that are measured. generated: pictures that are drawn.
    """

    layers: int
    width: int
    heads: int
    inner: int
    channels: int
    pictures: int
    coding: int
    drawing: int
    naming: int
    tuned: int
    held: int
    generated: int
    batch: int = 32
    rate: float = 4e-3
    calibration: int = 50


SIZES: dict[Scale, Sizes] = {
    "quick": Sizes(3, 64, 4, 128, 12, 1000, 200, 300, 150, tuned=40, held=80, generated=80),
    "full": Sizes(4, 128, 8, 384, 16, 6000, 1000, 1500, 600, tuned=64, held=256, generated=256, rate=2e-3),
}


class Kept(Protocol):
    """What the model needs of a cache (``latent.scales.ScaleCache``)."""

    def append(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Take a scale's keys and values."""
        ...

    def attend(self, layer: int, queries: Tensor, scaling: float | None = None) -> Tensor:
        """What they read."""
        ...

    def compress(self, layer: int) -> None:
        """The scale is over."""
        ...


class Appended:
    """The plain cache: all keys and values, one scale after another."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[Tensor, Tensor]] = {}

    def append(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """See ``Kept``."""
        if layer in self._held:
            old = self._held[layer]
            keys, values = torch.cat([old[0], keys], dim=2), torch.cat([old[1], values], dim=2)
        self._held[layer] = (keys, values)

    def attend(self, layer: int, queries: Tensor, scaling: float | None = None) -> Tensor:
        """See ``Kept``."""
        return nn.functional.scaled_dot_product_attention(queries, *self._held[layer], scale=scaling)

    def compress(self, layer: int) -> None:
        """Nothing leaves."""


class Coder(nn.Module):  # type: ignore[misc]
    """Pictures as tokens of several scales, and back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.encoder = nn.Sequential(
            nn.Conv2d(1, c, 4, 2, 1), nn.GELU(), nn.Conv2d(c, 2 * c, 4, 2, 1), nn.GELU(),
            nn.Conv2d(2 * c, LATENT, 3, 1, 1), nn.BatchNorm2d(LATENT, affine=False),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(LATENT, 2 * c, 3, 1, 1), nn.GELU(),
            nn.ConvTranspose2d(2 * c, c, 4, 2, 1), nn.GELU(),
            nn.ConvTranspose2d(c, 1, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip
        self.register_buffer("codes", torch.zeros(CODES, LATENT))
        for at, side in enumerate(SIDES):
            down, up = _resizing(side)
            self.register_buffer(f"down{at}", down)
            self.register_buffer(f"up{at}", up)

    def latents(self, images: Tensor) -> Tensor:
        """Shape (B, 64, 16)."""
        return self.encoder(images).flatten(2).transpose(1, 2)

    def tokens(self, latents: Tensor) -> list[Tensor]:
        """Of each scale what is missing most, shape (B, T_s)."""
        missing, found = latents.detach(), []
        for at in range(len(SIDES)):
            found.append(self.nearest(self.asked(at, missing)))
            missing = missing - self.added(at, found[-1])
        return found

    def nearest(self, asked: Tensor) -> Tensor:
        """The code that each is nearest to, shape (B, T), of shape (B, T, 16)."""
        return torch.cdist(asked, self.codes.expand(len(asked), -1, -1)).argmin(dim=-1)

    def added(self, at: int, tokens: Tensor) -> Tensor:
        """What a scale adds to the sum, shape (B, 64, 16)."""
        return getattr(self, f"up{at}") @ self.codes[tokens]

    def asked(self, at: int, total: Tensor) -> Tensor:
        """The sum so far at the places of a scale, shape (B, T_s, 16)."""
        return getattr(self, f"down{at}") @ total

    def inputs(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """Of each scale but the first what the model is told at its places, shape (B, T_s, 16)."""
        total, found = torch.zeros(1, _PLACES, LATENT), []
        for at in range(len(SIDES) - 1):
            total = total + self.added(at, tokens[at])
            found.append(self.asked(at + 1, total))
        return found

    def pictures(self, total: Tensor) -> Tensor:
        """Shape (B, 1, 32, 32), of the sum of all scales."""
        return self.decoder(total.transpose(1, 2).unflatten(2, (SIDES[-1], SIDES[-1])))


class Drawer(nn.Module):  # type: ignore[misc]
    """Tells the tokens of each scale from the scales before and the class."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        self.enter = nn.Linear(LATENT, width)
        self.classes = nn.Embedding(CLASSES + 1, width)  # the last stands for none
        self.places = nn.Parameter(torch.cat([_waves(side, width) for side in SIDES]))
        self.levels = nn.Parameter(torch.randn(len(TOKENS), width) * 0.1)
        self.layers = nn.ModuleList([_Layer(sizes) for _ in range(sizes.layers)])
        self.norm, self.leave = nn.LayerNorm(width), nn.Linear(width, CODES)
        level = torch.repeat_interleave(torch.arange(len(TOKENS)), torch.tensor(TOKENS))
        self.register_buffer("seen", level[:, None] >= level)

    def enters(self, at: int, told: Tensor | None, labels: Tensor) -> Tensor:
        """What goes into the first layer at a scale, shape (B, T_s, width)."""
        start = sum(TOKENS[:at])
        where = self.places[start : start + TOKENS[at]] + self.levels[at]
        return where + (self.classes(labels)[:, None] if told is None else self.enter(told))

    def forward(self, inputs: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Logits of all scales at once, shape (B, 130, 128): each sees itself and those before."""
        x = torch.cat([self.enters(at, told, labels) for at, told in enumerate([None, *inputs])], dim=1)
        given = self.classes(labels)

        def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=self.seen, scale=1.0)

        for layer in self.layers:
            x = layer(x, given, attend)
        return self.leave(self.norm(x))

    def step(self, at: int, told: Tensor | None, labels: Tensor, cache: Kept) -> Tensor:
        """Logits of one scale, shape (B, T_s, 128), by what a cache keeps of those before."""
        x, given = self.enters(at, told, labels), self.classes(labels)
        for number, layer in enumerate(self.layers):

            def attend(queries: Tensor, keys: Tensor, values: Tensor, number: int = number) -> Tensor:
                cache.append(number, keys, values)
                found = cache.attend(number, queries, 1.0)
                cache.compress(number)
                return found

            x = layer(x, given, attend)
        return self.leave(self.norm(x))


class _Layer(nn.Module):  # type: ignore[misc]
    """Attention and a network of two layers, both shifted and scaled by the class."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        self.heads = sizes.heads
        self.given = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.given.weight)
        nn.init.zeros_(self.given.bias)
        self.one, self.two = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        # As in VAR: queries and keys of length 1, and how sharply a head looks is learnt.
        self.sharp = nn.Parameter(torch.full((sizes.heads, 1, 1), 4.0).log())
        self.inner = nn.Sequential(nn.Linear(width, sizes.inner), nn.GELU(), nn.Linear(sizes.inner, width))

    def forward(self, x: Tensor, given: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """Shape (B, T, width) as ``x``; ``given``: shape (B, width)."""
        a, b, c, d, e, f = self.given(nn.functional.silu(given))[:, None].chunk(6, dim=-1)
        queries, keys, values = (
            self.qkv(self.one(x) * (1 + a) + b).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        queries, keys = (nn.functional.normalize(one, dim=-1) for one in (queries, keys))
        queries = queries * self.sharp.clamp(max=math.log(_SHARPEST)).exp()
        x = x + (1 + c) * self.out(attend(queries, keys, values).transpose(1, 2).flatten(2))
        return x + (1 + d) * self.inner(self.two(x) * (1 + e) + f)


class Namer(nn.Module):  # type: ignore[misc]
    """Tells the class of a picture; by its features pictures are compared."""

    def __init__(self) -> None:
        super().__init__()
        self.sees = nn.Sequential(
            nn.Conv2d(1, 12, 5, 2, 2), nn.ReLU(), nn.Conv2d(12, 24, 5, 2, 2), nn.ReLU(), nn.Conv2d(24, 32, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 16, 32), nn.ReLU(),
        )  # fmt: skip
        self.names = nn.Linear(32, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, shape (B, 10)."""
        return self.names(self.sees(images))


def coder(pictures: Pictures, sizes: Sizes, seed: int) -> Coder:
    """A trained autoencoder; frozen. It learns to show pictures first, and then by codes."""
    torch.manual_seed(seed)
    model, codes = Coder(sizes.channels), _Codes(seed)
    begins = sizes.coding * 2 // 5
    for step, batch in enumerate(_steps(model, pictures, sizes.batch, sizes.coding, seed, _CODING)):
        latents = model.latents(batch.images)
        if step < begins:
            _descend(model, nn.functional.mse_loss(model.pictures(latents), batch.images))
            continue
        total, near = codes.learn(model, latents, step == begins, step % 5 == 0)
        # What the decoder says of the sum goes to the encoder as if there were no codes.
        shown = nn.functional.mse_loss(model.pictures(latents + (total - latents).detach()), batch.images)
        _descend(model, shown + 0.25 * near)
    model.eval().requires_grad_(False)
    return model


class _Codes:
    """How codes are learnt: each is the running mean of what was nearest to it, all scales counting the same."""

    def __init__(self, seed: int, decay: float = 0.95) -> None:
        self._drawn, self._decay = torch.Generator().manual_seed(seed), decay
        self._mass, self._sums = torch.ones(CODES), torch.zeros(CODES, LATENT)

    def learn(self, model: Coder, latents: Tensor, first: bool, anew: bool) -> tuple[Tensor, Tensor]:
        """The sum of all scales, and how far the sums so far are from the latents, the mean over scales.

        ``first``: codes are drawn from what is to be coded. ``anew``: those that hardly anything is near to are.
        """
        missing, total, near = latents.detach(), torch.zeros_like(latents), torch.zeros(())
        told, chosen, weights = [], [], []
        parts = torch.arange(CODES).chunk(len(SIDES))
        for at in range(len(SIDES)):
            asked = model.asked(at, missing)
            if first:
                model.codes[parts[at]] = self._some(
                    asked.flatten(0, 1), torch.ones(asked.shape[:2].numel()), len(parts[at])
                )
                self._sums[parts[at]] = model.codes[parts[at]]
            tokens = model.nearest(asked)
            added = model.added(at, tokens)
            missing, total = missing - added, total + added
            near = near + nn.functional.mse_loss(latents, total) / len(SIDES)
            told.append(asked.flatten(0, 1))
            chosen.append(tokens.flatten())
            weights.append(torch.full((tokens.numel(),), 1000 / tokens.numel()))
        vectors, which, weight = torch.cat(told), torch.cat(chosen), torch.cat(weights)
        self._mass.mul_(self._decay).index_add_(0, which, weight * (1 - self._decay))
        self._sums.mul_(self._decay).index_add_(0, which, weight[:, None] * vectors * (1 - self._decay))
        idle = self._mass < 0.05
        if anew and idle.any():
            self._mass[idle], self._sums[idle] = 1.0, self._some(vectors, weight, int(idle.sum()))
        model.codes.copy_(self._sums / self._mass.clamp(min=1e-6)[:, None])
        return total, near

    def _some(self, vectors: Tensor, weight: Tensor, many: int) -> Tensor:
        return vectors[torch.multinomial(weight, many, replacement=True, generator=self._drawn)]


def drawer(tokens: Sequence[Tensor], labels: Tensor, code: Coder, sizes: Sizes, seed: int) -> Drawer:
    """A trained transformer, which was told no class of one picture in ten; frozen. ``tokens``: of the pictures to learn from."""
    torch.manual_seed(seed + 1)
    model = Drawer(sizes)
    drawn = torch.Generator().manual_seed(seed)
    every = Pictures(torch.arange(len(labels)), labels)
    truth, inputs = torch.cat(list(tokens), dim=1), code.inputs(tokens)
    for batch in _steps(model, every, sizes.batch, sizes.drawing, seed + 1, sizes.rate):
        hidden = torch.rand(len(batch.labels), generator=drawn) < 0.1
        logits = model([one[batch.images] for one in inputs], batch.labels.masked_fill(hidden, CLASSES))
        _descend(model, nn.functional.cross_entropy(logits.transpose(1, 2), truth[batch.images]))
    model.eval().requires_grad_(False)
    return model


def namer(pictures: Pictures, sizes: Sizes, seed: int) -> Namer:
    """A trained classifier; frozen."""
    torch.manual_seed(seed + 2)
    model = Namer()
    for batch in _steps(model, pictures, sizes.batch, sizes.naming, seed + 2):
        _descend(model, nn.functional.cross_entropy(model(batch.images), batch.labels))
    model.eval().requires_grad_(False)
    return model


def _descend(model: nn.Module, loss: Tensor) -> None:
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)


def _steps(
    model: nn.Module, data: Pictures, batch: int, steps: int, seed: int, rate: float = 2e-3
) -> Iterator[Pictures]:
    """Batches to learn from; before the next is given, one step is taken down what the last has left as gradients."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    warm = steps // 20 + 1
    falling = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda at: min(1.0, (at + 1) / warm) * 0.5 * (1.02 + math.cos(math.pi * min(1.0, at / steps)))
    )
    drawn = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimiser.zero_grad()
        yield data.some(torch.randint(len(data.labels), (batch,), generator=drawn))
        optimiser.step()
        falling.step()


def _waves(side: int, width: int) -> Tensor:
    """Where positions, which are learnt, begin, shape (T_s, width): waves of where the middle of a place is.

    The same place has the same in every scale, so that a small model need not learn first what lies where.
    """
    middle = (torch.arange(side) + 0.5) / side
    turns = middle[:, None] * math.pi * 2.0 ** torch.linspace(-1, 3, width // 4)
    along = torch.cat([turns.sin(), turns.cos()], dim=-1)
    rows, columns = along[:, None].expand(-1, side, -1), along[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def _resizing(side: int) -> tuple[Tensor, Tensor]:
    """Latents to a scale by means, shape (T_s, 64), and back, shape (64, T_s): both are linear."""
    whole = SIDES[-1]
    one, other = torch.eye(_PLACES).view(_PLACES, 1, whole, whole), torch.eye(side * side).view(-1, 1, side, side)
    down = nn.functional.interpolate(one, size=(side, side), mode="area").flatten(1).T
    up = nn.functional.interpolate(other, size=(whole, whole), mode="bicubic", align_corners=False).flatten(1).T
    return down.contiguous(), up.contiguous()
