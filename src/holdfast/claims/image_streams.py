"""Pictures for learning one task after another: MNIST, and Omniglot to learn before it. Neither may be packed: both are read from a
user's folder of data."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from holdfast.errors import ClaimError
from holdfast.torched import Tensor, nn, torch

TRAIN = "images/mnist/mnist_train_subset_10k.npz"
TEST, TEST_LABELS = "images/mnist/t10k-images-idx3-ubyte.gz", "images/mnist/t10k-labels-idx1-ubyte.gz"
OMNIGLOT = ("images/omniglot/images_background_small1.zip", "images/omniglot/images_background_small2.zip")

CLASSES, SIDE = 10, 14
"""Digits, and points along a side: half of MNIST's own."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Pictures:
    """``x``: shape (N, 1, side, side), from 0 to 1; ``labels``: shape (N,)."""

    x: Tensor
    labels: Tensor

    def of(self, classes: tuple[int, ...]) -> Pictures:
        """Those of some classes."""
        return self.at(torch.isin(self.labels, torch.tensor(classes)))

    def at(self, places: Tensor | slice) -> Pictures:
        """Those at some places."""
        return Pictures(self.x[places], self.labels[places])

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Digits:
    """MNIST: what is learnt from, what settings are chosen on, what is measured on. No digit is in two of them."""

    train: Pictures
    held: Pictures
    test: Pictures


def digits(data: Path | None, seed: int, train: int, test: int, side: int = SIDE) -> Digits:
    """So many digits to learn from and to test on, drawn by ``seed``, and a sixth of the first number to choose settings on.

    What is tested on are MNIST's own test images. ``side``: points along a side, 14 or MNIST's own 28. Raises ClaimError where the
    files are not there.
    """
    if data is None or not all((data / name).is_file() for name in (TRAIN, TEST, TEST_LABELS)):
        raise ClaimError(f"this claim reads MNIST from a folder of data (--data), which is to hold {TRAIN} and {TEST}")
    with np.load(data / TRAIN) as kept:
        images, labels = kept["images"], kept["labels"]
    random = np.random.default_rng([seed, 31])
    order = random.permutation(len(images))[: train + train // 6]
    with gzip.open(data / TEST) as file:
        last = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(data / TEST_LABELS) as file:
        last_labels = np.frombuffer(file.read(), np.uint8, offset=8)
    some = random.permutation(len(last))[:test]
    return Digits(
        _pictures(images[order[:train]], labels[order[:train]], side),
        _pictures(images[order[train:]], labels[order[train:]], side),
        _pictures(last[some], last_labels[some], side),
    )


def omniglot(data: Path | None) -> Pictures:
    """The two small sets of Omniglot: 242 characters of ten alphabets, 20 drawings each, ink 1. Raises ClaimError without them."""
    if data is None or not all((data / name).is_file() for name in OMNIGLOT):
        raise ClaimError(f"this claim reads Omniglot from a folder of data (--data), which is to hold {OMNIGLOT[0]}")
    try:
        from PIL import Image
    except ImportError as error:
        raise ClaimError("Omniglot's pictures need Pillow, which comes with pip install 'holdfast[plot]'") from error
    drawn: dict[str, Bytes] = {}
    for name in OMNIGLOT:
        with zipfile.ZipFile(data / name) as packed:
            for path in packed.namelist():
                if path.endswith(".png") and not path.startswith("__MACOSX"):
                    with Image.open(io.BytesIO(packed.read(path))) as image:
                        small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
                        # Alphabet and character name a class; some alphabets are in both sets.
                        drawn["/".join(path.split("/")[-3:])] = np.asarray(small)
    paths = sorted(drawn)
    characters = sorted({path.rpartition("/")[0] for path in paths})
    ink = 1 - np.stack([drawn[path] for path in paths]).astype(np.float32) / 255
    ink /= np.quantile(ink, 0.99)  # lines that were thin in 105 points are faint in 14
    classes = np.array([characters.index(path.rpartition("/")[0]) for path in paths])
    return Pictures(torch.from_numpy(ink.clip(0, 1))[:, None], torch.from_numpy(classes))


def disguised(some: Pictures, name: str, seed: int) -> Pictures:
    """The same digits in a guise; noise and the permutation are drawn by ``seed``."""
    g = torch.Generator().manual_seed(1000 + seed)
    x = some.x
    if name == "noisy":
        x = (x + 0.3 * torch.randn(x.shape, generator=g)).clamp(0, 1)
    elif name == "inverted":
        x = 1 - x
    elif name == "mirrored":
        x = x.flip(-1)
    elif name == "permuted":  # squares of 7 by 7 points, each turned over within itself by one drawn order
        order = torch.randperm(49, generator=g)
        side = x.shape[-1]
        count = side // 7
        squares = x.reshape(-1, count, 7, count, 7).transpose(2, 3).reshape(-1, count, count, 49)[..., order]
        x = squares.reshape(-1, count, count, 7, 7).transpose(2, 3).reshape(-1, 1, side, side)
    elif name.startswith("turned"):
        angle = np.deg2rad(float(name.removeprefix("turned ")))
        turn = torch.tensor(
            [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]], dtype=torch.float32
        )
        grid = nn.functional.affine_grid(turn.expand(len(x), 2, 3), list(x.shape), align_corners=False)
        x = nn.functional.grid_sample(x, grid, align_corners=False)
    elif name != "plain":
        raise ClaimError(f"there is no guise {name!r}")
    return Pictures(x, some.labels)


def batches(some: Pictures, seed: Sequence[int], epochs: int, size: int) -> list[tuple[Tensor, Tensor]]:
    """Rows, ``size`` at a time, in an order that is drawn for each pass."""
    random = np.random.default_rng([*seed])
    orders = [torch.from_numpy(random.permutation(len(some))) for _ in range(epochs)]
    return [(some.x[at], some.labels[at]) for order in orders for at in order.split(size)]


def _pictures(images: Bytes, labels: Bytes, side: int) -> Pictures:
    small = images.reshape(len(images), side, 28 // side, side, 28 // side).mean(axis=(2, 4), dtype=np.float32) / 255
    return Pictures(torch.from_numpy(small)[:, None], torch.from_numpy(labels.astype(np.int64)))
