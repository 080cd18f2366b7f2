"""CLR (arXiv 2307.11386): a network that never changes learns task after task by a small kernel for each of its channels.

The network is pretrained on characters of Omniglot; the tasks are MNIST digits, plain and changed in four ways. Every arm tries the
same learning rates on the first task, by rows that nothing is measured with.
"""

from __future__ import annotations

import copy
import gzip
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from holdfast.bench.plots import Bars, draw
from holdfast.claims.base import Check, Result, Scale
from holdfast.errors import ClaimError, MissingExtraError
from holdfast.torched import Tensor, nn, torch
from holdfast.weights.answers import in_batches
from holdfast.weights.reprogramming import Layers, Reprogrammed
from holdfast.weights.unlearning import Shuffled, accuracy

number = 17
name = "clr"
statement = (
    "A frozen network whose channels have a small kernel of each task's own learns five tasks at least 2 points better than by "
    "heads alone, 1 point better than by norms alone, and closes half of the way to a full copy a task, with less than 5 % of its "
    "weights; none is forgotten, to the last bit, where one network trained in sequence loses 30 points."
)
arms = (
    "CLR",
    "norms alone",
    "kernels alone",
    "heads alone",
    "a full copy a task",
    "in sequence",
    "in sequence, held by L2",
)

OURS, NORMS, KERNELS, PROBE, FULL, SEQUENCE, HELD = arms
OVER_PROBE, OVER_NORMS, CLOSED, LOST, SHARE, RESNET_SHARE, RESNET_KERNELS = 0.02, 0.01, 0.5, 0.30, 0.05, 0.006, 34_560

SIDE, CLASSES, HEAD = 14, 10, "12"
NOISE = 0.6
TASKS = ("plain", "inverted", "mirrored", "quarters moved", "noisy")
RATES = (1e-3, 3e-3, 1e-2)
"""Tried by every arm."""
WEIGHTS = (0.1, 1.0, 10.0)
"""Tried by the arm that is held; the best after all tasks is shown."""
OWN: Mapping[str, tuple[Layers, bool]] = {
    OURS: ("spatial", True),
    NORMS: ("none", True),
    KERNELS: ("spatial", False),
    PROBE: ("none", False),
}
"""Kernels, and norms of the task's own."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of the run: images a task, epochs, batch; epochs over Omniglot; images to measure with."""

    images: int
    epochs: int
    batch: int
    before: int
    test: int
    check: int = 500


SIZES: dict[Scale, Sizes] = {
    "quick": Sizes(1500, 4, 64, 6, 1000),
    "full": Sizes(3000, 4, 32, 12, 2000),
    "gpu": Sizes(9500, 8, 32, 40, 10_000),
}

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Task:
    """Rows to learn, to choose by, and to measure with."""

    name: str
    train: Mapping[str, Tensor]
    check: Mapping[str, Tensor]
    test: Mapping[str, Tensor]


def run(scale: Scale, seed: int, data: Path | None) -> Result:
    """All arms on the same network and tasks, drawn by ``seed``."""
    torch.set_num_threads(1)
    sizes = SIZES[scale]
    tasks = _tasks(data, sizes, seed)
    anchor = _pretrained(data, sizes, seed)
    rates: dict[str, float] = {}
    found: dict[str, Mapping[str, float]] = {}
    for arm, (layers, norms) in OWN.items():
        rates[arm] = _chosen(partial(_own, anchor, tasks[:1], layers, norms, sizes, seed))
        if arm != OURS:
            found[arm] = _own(anchor, tasks, layers, norms, sizes, seed, rates[arm])[1]
    kept = _kept(anchor, tasks, sizes, seed, rates[OURS])
    found[OURS] = kept.tested
    rates[FULL] = _chosen(partial(_copies, anchor, tasks[:1], sizes, seed))
    found[FULL] = _copies(anchor, tasks, sizes, seed, rates[FULL])[1]
    sequence = _sequence(anchor, tasks, sizes, seed, rates[FULL], 0.0)
    held = {weight: _sequence(anchor, tasks, sizes, seed, rates[FULL], weight) for weight in WEIGHTS}
    best = max(held, key=lambda weight: held[weight].checked)
    found[SEQUENCE], found[HELD] = sequence.last, held[best].last
    means = {arm: float(np.mean([*of.values()])) for arm, of in found.items()}
    measured = {arm: {"mean": means[arm], **found[arm]} for arm in arms}
    measured[SEQUENCE]["lost"], measured[HELD]["lost"] = sequence.lost, held[best].lost
    measured[OURS] |= {
        "private parameters": float(kept.private),
        "share of the backbone": kept.share,
        "routed to the right task": kept.routed,
        "mean, routed": kept.routed_accuracy,
    }
    shape = _resnet()
    checks = (
        Check("CLR, less heads alone", means[OURS] - means[PROBE], OVER_PROBE),
        Check("CLR, less norms alone", means[OURS] - means[NORMS], OVER_NORMS),
        Check("of the way from heads alone to full copies", _way(means[PROBE], means[OURS], means[FULL]), CLOSED),
        Check("answers to the first task that four later ones changed", kept.changed, 0.0, False),
        Check("lost by one network in sequence", sequence.lost, LOST),
        Check("private parameters, by those of the backbone", kept.share, SHARE, False),
        Check(
            "kernels of a network of ResNet-50's shape",
            abs(shape[0] - RESNET_KERNELS),
            0.0,
            False,
            "off the count of the paper's code",
        ),
        Check("private share in a network of ResNet-50's shape", shape[1], RESNET_SHARE, False),
    )
    settings = {
        "network": "3 convolutions of 24, 48 and 48 channels with batch norms, 14×14 pixels",
        "pretrained on": "Omniglot, 242 characters of the two small background sets",
        "tasks": list(TASKS),
        "images a task": sizes.images,
        "epochs": sizes.epochs,
        "batch": sizes.batch,
        "learning rates tried": list(RATES),
        "learning rates chosen": rates,
        "weights of L2 tried": list(WEIGHTS),
        "weight of L2 chosen": best,
        "noise": NOISE,
        "scale": scale,
    }
    notes = (
        "the published code adds 1e-5 times the unsquared norms of all weights to the loss; here nothing is added",
        "of the two arms in sequence accuracy is what is left after the last task",
        "routed: without being told the task, by the nearest mean of what the network itself sees of a row",
    )
    return Result(measured, checks, settings, {"means": means, "way": {arm: found[arm] for arm in arms}}, notes)


def plot(result: Result, path: Path) -> None:
    """Means by arm, and the tasks of ours."""
    draw(
        path,
        [
            Bars(
                result.series["means"],
                title="accuracy, mean of five tasks",
                ours=(OURS,),
                bounds=(FULL,),
                controls=(SEQUENCE, HELD),
                percent=True,
            ),
            Bars(result.series["way"][OURS], title="CLR, by task", ours=TASKS, percent=True),
        ],
        title="Kernels of a task's own in a network that never changes",
        subtitle="Pretrained on Omniglot; MNIST in five ways",
    )


def network(classes: int, seed: int) -> nn.Module:
    """Three convolutions with batch norms; a backbone of 31,560 parameters."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inner, outer, pool in ((1, 24, True), (24, 48, True), (48, 48, False)):
        layers += [nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * 9, classes))


# --- arms ---


@dataclass(frozen=True, slots=True)
class _Sequence:
    last: Mapping[str, float]  # by task, after the last
    lost: float  # on average over all but the last, since each was learnt
    checked: float  # the mean after the last, by rows to choose by


@dataclass(frozen=True, slots=True)
class _Kept:
    tested: Mapping[str, float]
    changed: float
    private: int
    share: float
    routed: float
    routed_accuracy: float


def _chosen(tried: Callable[[float], tuple[float, dict[str, float]]]) -> float:
    """The rate that does best by rows to choose by; of equals the smaller."""
    return max(RATES, key=lambda rate: (tried(rate)[0], -rate))


def _taught(
    tasks: Sequence[Task], anchor: nn.Module, layers: Layers, norms: bool, sizes: Sizes, seed: int, rate: float
) -> Reprogrammed:
    lent = Reprogrammed(copy.deepcopy(anchor), head=HEAD, layers=layers, norms=norms)
    for task in tasks:
        lent.add_task(task.name, CLASSES, seed=seed)
        _teach(lent, task, sizes, seed, rate)
    return lent


def _teach(lent: Reprogrammed, task: Task, sizes: Sizes, seed: int, rate: float) -> None:
    with lent.active(task.name) as model:
        model.train()
        _fit(model, lent.task_parameters(task.name), task.train, sizes, seed, rate)


def _own(
    anchor: nn.Module, tasks: Sequence[Task], layers: Layers, norms: bool, sizes: Sizes, seed: int, rate: float
) -> tuple[float, dict[str, float]]:
    """What each task has of its own: by rows to choose by, on average; by rows to measure with."""
    lent = _taught(tasks, anchor, layers, norms, sizes, seed, rate)
    checked, tested = [], {}
    for task in tasks:
        with lent.active(task.name) as model:
            checked.append(_share(model, task.check))
            tested[task.name] = _share(model, task.test)
    return float(np.mean(checked)), tested


def _copies(
    anchor: nn.Module, tasks: Sequence[Task], sizes: Sizes, seed: int, rate: float
) -> tuple[float, dict[str, float]]:
    checked, tested = [], {}
    for task in tasks:
        model = _headed(anchor, seed).train()
        _fit(model, list(model.parameters()), task.train, sizes, seed, rate)
        checked.append(_share(model, task.check))
        tested[task.name] = _share(model, task.test)
    return float(np.mean(checked)), tested


def _sequence(
    anchor: nn.Module, tasks: Sequence[Task], sizes: Sizes, seed: int, rate: float, weight: float
) -> _Sequence:
    """One network and one head through all tasks; ``weight``: of the squared distance from what it was when the task began."""
    model = _headed(anchor, seed)
    first: list[float] = []
    for task in tasks:
        model.train()
        _fit(model, list(model.parameters()), task.train, sizes, seed, rate, weight if first else 0.0)
        first.append(_share(model, task.test))
    last = {task.name: _share(model, task.test) for task in tasks}
    lost = np.mean([was - last[task.name] for was, task in zip(first[:-1], tasks[:-1], strict=True)])
    return _Sequence(last, float(lost), float(np.mean([_share(model, task.check) for task in tasks])))


def _kept(anchor: nn.Module, tasks: Sequence[Task], sizes: Sizes, seed: int, rate: float) -> _Kept:
    """What the first task answers before and after the others came; what a task owns; and how rows find their task."""
    lent = _taught(tasks[:1], anchor, *OWN[OURS], sizes, seed, rate)
    before = _answers(lent, tasks[0].name, tasks[0].test["images"])
    for task in tasks[1:]:
        lent.add_task(task.name, CLASSES, seed=seed)
        _teach(lent, task, sizes, seed, rate)
    after = _answers(lent, tasks[0].name, tasks[0].test["images"])
    backbone = sum(one.numel() for path, one in lent.model.named_parameters() if not path.startswith(HEAD))
    count = lent.count(tasks[0].name)
    for task in tasks:
        lent.remember(task.name, [task.train["images"]], [task.train["labels"]])
    routed, right = [], []
    for task in tasks:
        names = [route.memory for route in lent.route(task.test["images"])]
        routed.append(float(np.mean([name == task.name for name in names])))
        told = torch.full((len(names),), -1)
        for other in lent.tasks:
            rows = torch.tensor([name == other for name in names])
            if rows.any():
                told[rows] = _answers(lent, other, task.test["images"][rows]).argmax(dim=1)
        right.append(float((told == task.test["labels"]).double().mean()))
    tested = {}
    for task in tasks:
        with lent.active(task.name) as model:
            tested[task.name] = _share(model, task.test)
    return _Kept(
        tested,
        float((before != after).double().mean()),
        count.private,
        count.private / backbone,
        float(np.mean(routed)),
        float(np.mean(right)),
    )


def _answers(lent: Reprogrammed, name: str, images: Tensor) -> Tensor:
    with lent.active(name) as model, torch.no_grad():
        said: Tensor = model.eval()(images)
    return said


def _fit(
    model: nn.Module,
    parameters: Sequence[nn.Parameter],
    rows: Mapping[str, Tensor],
    sizes: Sizes,
    seed: int,
    rate: float,
    weight: float = 0.0,
) -> None:
    """Adam, whose rate falls to a tenth after each third of the epochs, as published."""
    optimiser = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, max(1, sizes.epochs // 3), 0.1)
    before = [one.detach().clone() for one in parameters] if weight else []
    batches = Shuffled(rows, sizes.batch, seed)
    for _ in range(sizes.epochs):
        for batch in batches:
            loss = nn.functional.cross_entropy(model(batch["images"]), batch["labels"])
            if weight:
                loss = loss + weight * sum(
                    (one - was).square().sum() for one, was in zip(parameters, before, strict=True)
                )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()


def _headed(anchor: nn.Module, seed: int) -> nn.Module:
    """A copy with a new head, the same as a task's own begins with."""
    lent = Reprogrammed(copy.deepcopy(anchor), head=HEAD, layers="none")
    lent.add_task("only", CLASSES, seed=seed)
    with lent.active("only") as model:
        return copy.deepcopy(model).requires_grad_(True)


def _share(model: nn.Module, rows: Mapping[str, Tensor]) -> float:
    return accuracy(model, [*in_batches(rows, 500)])


def _way(start: float, at: float, end: float) -> float:
    return (at - start) / (end - start) if end > start else 1.0


def _resnet() -> tuple[int, float]:
    """Kernels and private share of a task in a network of ResNet-50's shape, with random weights."""
    try:
        from transformers import ResNetConfig, ResNetForImageClassification
    except ImportError as error:
        raise MissingExtraError("this needs the extra: pip install 'holdfast[torch]'") from error
    lent = Reprogrammed(ResNetForImageClassification(ResNetConfig(num_labels=1000)), head="classifier.1")
    lent.add_task("one", CLASSES)
    return lent.count("one").kernels, lent.share("one")


# --- data ---


def _tasks(data: Path | None, sizes: Sizes, seed: int) -> list[Task]:
    """MNIST, halved to 14×14, in five ways; rows to learn and to choose by are of the training part."""
    folder = _folder(data, "mnist")
    with np.load(folder / "mnist_train_subset_10k.npz") as kept:
        images, labels = kept["images"], kept["labels"]
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        held = np.frombuffer(file.read()[16:], dtype=np.uint8).reshape(-1, 28, 28)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        told = np.frombuffer(file.read()[8:], dtype=np.uint8)
    random = np.random.default_rng([seed, 17])
    learn = random.permutation(len(images))[: sizes.images + sizes.check]
    test = random.permutation(len(held))[: sizes.test]
    found = []
    for at, name in enumerate(TASKS):
        chance = np.random.default_rng([seed, 17, at])
        x, y = (
            torch.from_numpy(_changed(_halved(images[learn]), name, chance))[:, None],
            torch.from_numpy(labels[learn].astype(np.int64)),
        )
        z, w = (
            torch.from_numpy(_changed(_halved(held[test]), name, chance))[:, None],
            torch.from_numpy(told[test].astype(np.int64)),
        )
        cut = sizes.images
        found.append(
            Task(
                name,
                {"images": x[:cut], "labels": y[:cut]},
                {"images": x[cut:], "labels": y[cut:]},
                {"images": z, "labels": w},
            )
        )
    return found


def _changed(images: Floats, name: str, chance: np.random.Generator) -> Floats:
    half = SIDE // 2
    changed: Floats = images
    if name == "inverted":
        changed = 1 - images
    elif name == "mirrored":
        changed = images[:, :, ::-1].copy()
    elif name == "quarters moved":
        changed = np.roll(images, (half, half), axis=(1, 2)).copy()
    elif name == "noisy":
        changed = images + NOISE * chance.standard_normal(images.shape).astype(np.float32)
    return changed


def _halved(images: npt.NDArray[np.uint8]) -> Floats:
    halved: Floats = (images.reshape(-1, SIDE, 2, SIDE, 2).mean(axis=(2, 4)) / 255).astype(np.float32)
    return halved


def _pretrained(data: Path | None, sizes: Sizes, seed: int) -> nn.Module:
    """The network that learnt to tell the characters; frozen by all that use it."""
    images, labels = _characters(data)
    model = network(int(labels.max()) + 1, seed).train()
    _fit(
        model,
        list(model.parameters()),
        {"images": images, "labels": labels},
        Sizes(len(images), sizes.before, 64, 0, 0),
        seed,
        3e-3,
    )
    return model.eval()


def _characters(data: Path | None) -> tuple[Tensor, Tensor]:
    """Omniglot's two small sets: drawings of 14×14 points, white on black as MNIST, and the number of the character.

    There are 242 characters; the fifty that are in both sets count as two kinds each, which makes 292.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("the drawings of Omniglot need pillow: pip install 'holdfast[plot]'") from error
    drawings, names = [], []
    for part in (1, 2):
        with zipfile.ZipFile(_folder(data, "omniglot") / f"images_background_small{part}.zip") as kept:
            for path in sorted(kept.namelist()):
                if path.endswith(".png"):
                    drawn = np.array(Image.open(io.BytesIO(kept.read(path))).convert("L"), dtype=np.float32)
                    drawings.append(1 - drawn / 255)
                    names.append(path.rpartition("/")[0])
    known = {name: at for at, name in enumerate(dict.fromkeys(names))}
    small = nn.functional.adaptive_avg_pool2d(torch.from_numpy(np.stack(drawings))[:, None], SIDE)
    # Strokes of three points in 105 would be faint beside those of MNIST.
    return (2 * small).clamp(max=1), torch.tensor([known[name] for name in names])


def _folder(data: Path | None, name: str) -> Path:
    folder = None if data is None else data / "images" / name
    if folder is None or not folder.is_dir():
        raise ClaimError(f"claim 17 needs the folder images/{name} of the data sets: give it with --data")
    return folder
