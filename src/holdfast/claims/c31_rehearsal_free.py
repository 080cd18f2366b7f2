"""Rehearsal-free continual learning (arXiv 2203.17269): what must be held depends on whether a model was trained before.

Five tasks of two digits each, one after another, for one classifier that is never told the task and keeps no picture. Every arm has
the same network and schedule; each regulariser has three weights to choose from, and the choice is made on the first two tasks
alone, as in the paper, for a choice on all five would look into the future.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from holdfast.bench.plots import Bars, draw
from holdfast.bench.transfer import Cost, Transfer
from holdfast.claims.base import Check, Result, Scale
from holdfast.claims.image_streams import CLASSES, Digits, Pictures, batches, digits, omniglot
from holdfast.torched import Tensor, nn, torch
from holdfast.weights.anchors import FisherAnchor, L2Anchor
from holdfast.weights.base import Batch, Regularizer
from holdfast.weights.distillation import FeatureDistiller, PredictionDistiller, sigmoid_loss
from holdfast.weights.learning import Plastic

number = 31
name = "rehearsal-free"
statement = (
    "Where no old data are kept, anchors without distilled predictions keep at most 25 % of five tasks and with them 35 % or more; "
    "from a random start distilled predictions alone are best and anchors only forget less, from a pre-trained model an L2 anchor "
    "adds at least 3 points, forgets less, and is no worse than EWC, which itself adds to predictions alone."
)
HELD = ("L2", "EWC", "features")
arms = (
    "pre-trained: predictions + L2",
    *(f"pre-trained: {one}" for one in ("predictions", "predictions + EWC", "predictions + features")),
    *(f"pre-trained: {one}" for one in ("nothing", *HELD, "L2, new classes alone")),
    *(f"random: {one}" for one in ("predictions", *(f"predictions + {held}" for held in HELD))),
    *(f"random: {one}" for one in ("nothing", *HELD, "L2, new classes alone")),
)

GRID: Mapping[str, tuple[float, ...]] = {
    "L2": (0.1, 1.0, 10.0),
    "EWC": (10.0, 100.0, 1000.0),
    "features": (0.01, 0.1, 1.0),
}
TASKS: tuple[tuple[int, ...], ...] = tuple((at, at + 1) for at in range(0, CLASSES, 2))
CHOSEN_ON = 2
"""Tasks that weights are chosen on."""
RATE, BATCH, EPOCHS = 1e-3, 16, 2
SAMPLES = 200
"""Rows that a Fisher information is measured on."""
MOST, LEAST, GAIN, CLOSE = 0.25, 0.35, 0.03, -0.005


@dataclass(frozen=True, slots=True)
class Sizes:
    """Digits to learn from and to test on, and passes over Omniglot before."""

    train: int
    test: int
    before: int


SIZES: Mapping[Scale, Sizes] = {
    "quick": Sizes(4000, 2000, 6),
    "full": Sizes(8500, 10_000, 12),
    "gpu": Sizes(8500, 10_000, 12),
}


class Net(nn.Module):  # type: ignore[misc]
    """Two convolutions, a layer of features, a head."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(288, 96), nn.ReLU()),
        )
        self.head = nn.Linear(96, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (B, classes)."""
        found: Tensor = self.head(self.body(x))
        return found


@dataclass(frozen=True, slots=True)
class Arm:
    """How tasks are learnt: from which start, with which losses, and what is held by which weights to choose from."""

    pretrained: bool
    predictions: bool
    held: str = ""
    new_alone: bool = False

    def made(self, weight: float) -> list[Regularizer]:
        """Its regularisers. A model that begins at random has nothing to keep in its first task."""
        found: list[Regularizer] = [PredictionDistiller(known=())] if self.predictions else []
        if self.held == "L2":
            found.append(L2Anchor(weight, pretrained=self.pretrained))
        elif self.held == "EWC":
            found.append(FisherAnchor(weight, samples=SAMPLES))
        elif self.held == "features":
            found.append(FeatureDistiller("body", weight, pretrained=self.pretrained))
        return found


ARMS: Mapping[str, Arm] = {
    f"{start}: {told}": Arm(
        start == "pre-trained",
        told.startswith("predictions"),
        next((held for held in HELD if held in told), ""),
        told.endswith("alone"),
    )
    for start, told in (arm.split(": ") for arm in arms)
}


def run(scale: Scale, seed: int, data: Path | None) -> Result:
    """All arms on the same digits in the same order of tasks; digits, order and starts are drawn by ``seed``."""
    torch.set_num_threads(1)
    sizes = SIZES[scale]
    found = digits(data, seed, sizes.train, sizes.test)
    order = np.random.default_rng([seed, 2203]).permutation(CLASSES)
    found = Digits(*(_renamed(some, order) for some in (found.train, found.held, found.test)))
    starts = {False: _fresh(seed), True: _pretrained(omniglot(data), sizes.before, seed)}
    chosen, transfers = {}, {}
    for name, arm in ARMS.items():
        weights = GRID.get(arm.held, (0.0,))
        chosen[name] = max(weights, key=lambda one: _early(arm, one, starts[arm.pretrained], found, seed))
        transfers[name] = learnt(arm, chosen[name], starts[arm.pretrained], found.train, found.test, seed, TASKS)
    measured = {
        name: {**one.metrics(), "weight": chosen[name], "local forgetting": told}
        for name, (one, told) in transfers.items()
    }
    checks = judged(measured)
    settings = {
        "train": len(found.train),
        "held to choose weights on": len(found.held),
        "test": len(found.test),
        "tasks": [[int(order[at]) for at in task] for task in TASKS],
        "epochs": EPOCHS,
        "epochs before": sizes.before,
        "batch": BATCH,
        "learning rate": RATE,
        "weights to choose from": {held: list(grid) for held, grid in GRID.items()},
        "weights chosen on tasks": CHOSEN_ON,
        "parameters": sum(one.numel() for one in starts[True].parameters()),
        "rows for a Fisher information": SAMPLES,
        "scale": scale,
    }
    notes = (
        "average: accuracy after the last task among all ten digits, the task not told; global forgetting: paper 31's, among the "
        "classes of the tasks up to the one asked about",
        "arms without distilled predictions learn all classes seen so far, old ones as noughts, as the paper has it; 'new classes "
        "alone' leaves old outputs out of the loss, as our regularisers are used",
        "the first run had 3,000 digits in batches of 32: 38 steps a task, in which no arm learnt its tasks (predictions alone 27 "
        "and 30 %, where the pilot had 57 and 41); digits and steps were set anew, margins were not",
        "the head is not anchored; normalisation is kept still; seconds are of processor time, for the five tasks alone",
    )
    series = {"average": {arm: one["average"] for arm, one in measured.items()}}
    return Result(measured, checks, settings, series, notes)


def judged(measured: Mapping[str, Mapping[str, float]]) -> tuple[Check, ...]:
    """What decides, of every arm's metrics."""
    last = {arm: one["average"] for arm, one in measured.items()}
    lost = {arm: one["global forgetting"] for arm, one in measured.items()}
    bare = [arm for arm in arms if not ARMS[arm].predictions and not ARMS[arm].new_alone]
    told = [arm for arm in arms if ARMS[arm].predictions]
    alone, random = "random: predictions", [f"random: predictions + {held}" for held in HELD]
    before, ours = "pre-trained: predictions", arms[0]
    ewc = "pre-trained: predictions + EWC"
    return (
        Check("the best without predictions", max(last[arm] for arm in bare), MOST, at_least=False),
        Check("the worst with predictions", min(last[arm] for arm in told), LEAST),
        Check(
            "random: predictions alone, less the best with more", last[alone] - max(last[arm] for arm in random), 0.0
        ),
        Check("random: what EWC forgets less", lost[alone] - lost["random: predictions + EWC"], 0.0),
        Check("random: what L2 forgets less", lost[alone] - lost["random: predictions + L2"], 0.0),
        Check("pre-trained: L2 and predictions, less predictions", last[ours] - last[before], GAIN),
        Check("pre-trained: what L2 forgets less", lost[before] - lost[ours], 0.0),
        Check("pre-trained: L2 less EWC", last[ours] - last[ewc], CLOSE),
        Check("pre-trained: EWC and predictions, less predictions", last[ewc] - last[before], 0.0),
    )


def plot(result: Result, path: Path) -> None:
    """What is known after the last task, and what was forgotten on the way."""
    for_plot = {start: [arm for arm in arms if arm.startswith(start)] for start in ("pre-trained", "random")}
    draw(
        path,
        [
            Bars(
                {arm.split(": ")[1]: result.arms[arm][metric] for arm in some},
                title=f"{start}: {title}",
                ours=("predictions + L2",) if start == "pre-trained" else ("predictions",),
                controls=("nothing", *HELD, "L2, new classes alone"),
                percent=True,
            )
            for start, some in for_plot.items()
            for metric, title in (("average", "right after five tasks"), ("global forgetting", "forgotten"))
        ],
        title="What to hold without old data depends on the start",
        subtitle="Five tasks of two digits each, one classifier, tasks not told",
        columns=2,
    )


# --- learning ---


def learnt(
    arm: Arm,
    weight: float,
    start: Net,
    train: Pictures,
    test: Pictures,
    seed: int,
    tasks: tuple[tuple[int, ...], ...],
) -> tuple[Transfer, float]:
    """The tasks one after another from a start, which stays as it is; and what is forgotten where tasks are told."""
    model = copy.deepcopy(start)
    hold = arm.made(weight)
    plastic = Plastic(model, lambda parameters: torch.optim.Adam(parameters, RATE), hold=hold)
    before = time.process_time()
    logits = [_logits(model, test)]
    kept = 0
    spent = time.process_time() - before
    for at, task in enumerate(tasks):
        some = train.of(task)
        data: list[Batch] = [{"x": some.x, "labels": some.labels}]
        classes = task if arm.predictions or arm.new_alone else tuple(one for each in tasks[: at + 1] for one in each)
        began = time.process_time()
        with plastic.learning(str(task), data):
            for x, labels in batches(some, [seed, at], EPOCHS, BATCH):
                plastic.step(sigmoid_loss(model(x), labels, classes))
            kept = max(kept, sum(int(getattr(one, "size", 0)) for one in hold))
        spent += time.process_time() - began
        logits.append(_logits(model, test))
    trainable = sum(one.numel() for one in model.parameters())
    passes = 1 + arm.predictions + (arm.held == "features")
    return _scored(logits, test.labels, tasks, Cost(trainable, kept, passes, spent))


def _scored(
    logits: list[Tensor], labels: Tensor, tasks: tuple[tuple[int, ...], ...], cost: Cost
) -> tuple[Transfer, float]:
    """Accuracies among the classes seen so far, among those up to the task asked about, and within it."""
    many = len(tasks)
    seen, within, told = (np.zeros((many + 1, many)) for _ in range(3))
    for i, said in enumerate(logits):
        for j, task in enumerate(tasks):
            places = torch.isin(labels, torch.tensor(task))
            for into, among in ((seen, tasks[: max(i, j + 1)]), (within, tasks[: j + 1]), (told, (task,))):
                classes = torch.tensor([one for each in among for one in each])
                guess = classes[said[places][:, classes].argmax(-1)]
                into[i, j] = float((guess == labels[places]).float().mean())
    sizes = [len(task) for task in tasks]
    return Transfer(seen, sizes, within, cost=cost), Transfer(told).drop


def _early(arm: Arm, weight: float, start: Net, found: Digits, seed: int) -> float:
    """What a weight is chosen by: accuracy after the first tasks, on digits that are neither learnt from nor tested on."""
    if not arm.held:
        return 0.0
    return learnt(arm, weight, start, found.train, found.held, seed, TASKS[:CHOSEN_ON])[0].average


def _fresh(seed: int) -> Net:
    torch.manual_seed(seed)
    return Net()


def _pretrained(drawn: Pictures, epochs: int, seed: int) -> Net:
    """Trained to tell Omniglot's characters; with a new head."""
    torch.manual_seed(seed)
    model = Net(int(drawn.labels.max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    for x, labels in batches(drawn, [seed, 20], epochs, 64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()
    model.head = nn.Linear(model.head.in_features, CLASSES)
    return model


def _renamed(some: Pictures, order: np.ndarray) -> Pictures:
    """Which digits come together, and when, is drawn: class k is the digit order[k]."""
    return Pictures(some.x, torch.from_numpy(np.argsort(order))[some.labels])


@torch.no_grad()  # type: ignore[untyped-decorator]
def _logits(model: Net, test: Pictures) -> Tensor:
    model.eval()
    found = torch.cat([model(x) for x in test.x.split(500)])
    model.train()
    return found
