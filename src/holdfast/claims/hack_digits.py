"""The pictures of claim 40: four digits of one class in a square, so that a picture has a meaning and a layout.

From MNIST, where a user's folder of data holds it; without one, drawn here as strokes, bent, turned and thickened by lot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from holdfast.torched import Tensor, torch

FILE = "images/mnist/mnist_train_subset_10k.npz"
"""Where MNIST is in a user's folder of data; its licence does not let it be packed here."""
MNIST, STROKES = "MNIST", "strokes drawn here"

CLASSES, SIDE = 10, 16
"""Digits, and points along the side of one; a picture has twice as many."""
DRAWN = 3000
"""Digits that are drawn where there is no file."""

Floats = npt.NDArray[np.float32]

# Where a pen goes, x and y in a square of side 1, y downwards.
_PENS: Mapping[int, tuple[tuple[float, float], ...]] = {
    0: ((0.5, 0.14), (0.33, 0.25), (0.27, 0.5), (0.33, 0.76), (0.5, 0.87), (0.67, 0.76), (0.73, 0.5), (0.67, 0.25), (0.5, 0.14)),
    1: ((0.36, 0.3), (0.52, 0.14), (0.52, 0.87)),
    2: ((0.27, 0.3), (0.36, 0.17), (0.56, 0.14), (0.71, 0.28), (0.64, 0.47), (0.27, 0.86), (0.75, 0.86)),
    3: ((0.28, 0.2), (0.5, 0.13), (0.7, 0.28), (0.6, 0.44), (0.44, 0.49), (0.63, 0.53), (0.73, 0.7), (0.55, 0.87), (0.27, 0.8)),
    4: ((0.6, 0.87), (0.6, 0.14), (0.22, 0.63), (0.78, 0.63)),
    5: ((0.7, 0.14), (0.33, 0.14), (0.3, 0.47), (0.52, 0.42), (0.71, 0.56), (0.68, 0.76), (0.5, 0.87), (0.27, 0.8)),
    6: ((0.65, 0.15), (0.42, 0.3), (0.3, 0.56), (0.34, 0.78), (0.5, 0.87), (0.68, 0.76), (0.66, 0.58), (0.5, 0.5), (0.32, 0.6)),
    7: ((0.25, 0.15), (0.75, 0.15), (0.45, 0.87)),
    8: (
        (0.5, 0.48), (0.33, 0.36), (0.35, 0.2), (0.5, 0.13), (0.65, 0.2), (0.67, 0.36), (0.5, 0.48),
        (0.3, 0.62), (0.33, 0.8), (0.5, 0.87), (0.67, 0.8), (0.7, 0.62), (0.5, 0.48),
    ),
    9: ((0.68, 0.4), (0.5, 0.51), (0.34, 0.42), (0.33, 0.25), (0.5, 0.13), (0.66, 0.22), (0.68, 0.4), (0.64, 0.7), (0.5, 0.87)),
}  # fmt: skip
_POINTS = 25


@dataclass(frozen=True, slots=True)
class Pictures:
    """``images``: shape (N, 1, 32, 32), from -1 to 1; ``labels``: shape (N,)."""

    images: Tensor
    labels: Tensor

    def some(self, places: Tensor | slice) -> Pictures:
        """Those at some places."""
        return Pictures(self.images[places], self.labels[places])


def pictures(data: Path | None, seed: int, train: int, held: int) -> tuple[Pictures, Pictures, str]:
    """Pictures to learn from and others of other digits, every class as often; and what they were made of."""
    random = np.random.default_rng([seed, 40])
    file = None if data is None else data / FILE
    if file is not None and file.is_file():
        with np.load(file) as kept:
            digits, labels = _halved(kept["images"]), kept["labels"].astype(np.int64)
        source = MNIST
    else:
        labels = np.arange(DRAWN) % CLASSES
        digits, source = strokes(labels, random), STROKES
    order = random.permutation(len(digits))
    digits, labels = digits[order], labels[order]
    cut = len(digits) * 3 // 4
    return (
        _squares(digits[:cut], labels[:cut], train, random),
        _squares(digits[cut:], labels[cut:], held, random),
        source,
    )


def strokes(labels: npt.NDArray[np.int64], random: np.random.Generator) -> Floats:
    """Digits as a pen draws them, shape (N, 16, 16), from 0 to 1."""
    pens = np.stack([_even(np.asarray(_PENS[digit])) for digit in range(CLASSES)])
    many = len(labels)
    # A smooth bend: two waves along the pen, of a height and a phase of their own in x and in y.
    along = np.linspace(0, 2 * np.pi, _POINTS)[None, :, None]
    bend = sum(
        random.normal(0, 0.022, (many, 1, 2)) * np.sin(k * along + random.uniform(0, 6.3, (many, 1, 2))) for k in (1, 2)
    )
    points = pens[labels] + bend - 0.5
    turn, lean = random.normal(0, 0.12, many), random.normal(0, 0.12, many)
    wide, tall = random.uniform(0.85, 1.12, (2, many))
    turned = np.stack(
        [
            np.stack([np.cos(turn) * wide, (lean - np.sin(turn)) * tall], axis=-1),
            np.stack([np.sin(turn) * wide, np.cos(turn) * tall], axis=-1),
        ],
        axis=1,
    )
    points = np.einsum("nij,npj->npi", turned, points) + 0.5 + random.normal(0, 0.03, (many, 1, 2))
    thick = random.uniform(0.035, 0.06, (many, 1))
    middle = (np.arange(SIDE) + 0.5) / SIDE
    grid = np.stack(np.meshgrid(middle, middle), axis=-1).reshape(-1, 2)
    near = np.full((many, len(grid)), np.inf)
    for start, end in zip(points[:, :-1].swapaxes(0, 1), points[:, 1:].swapaxes(0, 1), strict=True):
        step = end - start
        share = np.einsum("ngd,nd->ng", grid - start[:, None], step) / np.maximum((step**2).sum(-1), 1e-9)[:, None]
        foot = start[:, None] + np.clip(share, 0, 1)[..., None] * step[:, None]
        near = np.minimum(near, np.linalg.norm(grid - foot, axis=-1))
    found: Floats = np.clip((thick - near) * SIDE + 0.5, 0, 1).reshape(many, SIDE, SIDE).astype(np.float32)
    return found


def _even(pen: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The same way by points at even distances."""
    gone = np.concatenate([[0.0], np.linalg.norm(np.diff(pen, axis=0), axis=1).cumsum()])
    at = np.linspace(0, gone[-1], _POINTS)
    return np.stack([np.interp(at, gone, pen[:, axis]) for axis in range(2)], axis=-1)


def _halved(images: npt.NDArray[np.uint8]) -> Floats:
    """28 points to a side become 16."""
    wide = np.pad(images.astype(np.float32) / 255, ((0, 0), (2, 2), (2, 2)))
    found: Floats = wide.reshape(len(wide), SIDE, 2, SIDE, 2).mean(axis=(2, 4))
    return found


def _squares(digits: Floats, labels: npt.NDArray[np.int64], many: int, random: np.random.Generator) -> Pictures:
    of = [np.flatnonzero(labels == digit) for digit in range(CLASSES)]
    wanted = np.arange(many) % CLASSES
    four = np.stack([random.choice(of[digit], 4) for digit in wanted.tolist()])
    made = digits[four].reshape(many, 2, 2, SIDE, SIDE).swapaxes(2, 3).reshape(many, 1, 2 * SIDE, 2 * SIDE)
    return Pictures(torch.from_numpy(made * 2 - 1), torch.from_numpy(wanted))
