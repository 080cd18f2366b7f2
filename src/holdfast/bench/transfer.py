"""How learning one task changes the others: one matrix, and every number that the literature draws from it.

R of shape (T + 1, T): R[i, j] is the score on task j after the tasks 1..i, and row 0 is before any. Say with it whether a task was
told at test time. Names follow Chaudhry et al. (arXiv 1801.10112) for forgetting and intransigence, Lopez-Paz and Ranzato (arXiv
1706.08840) for transfer, and Smith et al. (arXiv 2203.17269) for forgetting that weighs tasks by their classes; the drop from one
step to the next, which the code of CODA-Prompt reports as forgetting, has another name here, for it is another number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.errors import InputError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cost:
    """What it took.

    Fields
        trainable: parameters that may learn.
        stored: bytes that are kept from task to task beside the model.
        passes: forward passes for a batch in training, of which one is the learner's own.
        seconds: of processor time, or of a clock; say which.
    """

    trainable: int
    stored: int = 0
    passes: float = 1.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Transfer:
    """Scores on T tasks learnt one after another.

    Fields
        scores: R, shape (T + 1, T); NaN where nobody looked.
        sizes: how many classes each task has (default: one each), for ``global_forgetting``.
        within: the same scores with the choice narrowed to the classes of the tasks 1..j (default: ``scores``); see there.
        joint: the scores of a model that learnt all tasks at once, shape (T,).
        cost: what it took.
    """

    scores: Floats
    sizes: Sequence[int] = ()
    within: Floats | None = None
    joint: Sequence[float] = ()
    cost: Cost | None = None

    def __post_init__(self) -> None:
        rows, columns = np.shape(self.scores)
        if rows != columns + 1 or columns < 1:
            raise InputError(
                f"scores have a row before any task and one after each: shape (T + 1, T), not {(rows, columns)}"
            )
        if self.within is not None and np.shape(self.within) != (rows, columns):
            raise InputError("both matrices of scores have the same shape")
        for name, given in (("sizes", self.sizes), ("joint", self.joint)):
            if len(given) not in (0, columns):
                raise InputError(f"{name} has one number for each of {columns} tasks, or none")

    @property
    def tasks(self) -> int:
        """T."""
        return int(np.shape(self.scores)[1])

    @property
    def average(self) -> float:
        """The mean over tasks after the last: mean_j R[T, j]."""
        return float(np.mean(self.scores[-1]))

    @property
    def incremental(self) -> float:
        """The mean over steps of the mean over the tasks so far."""
        return float(np.mean([np.mean(self.scores[i, :i]) for i in range(1, self.tasks + 1)]))

    @property
    def learnt(self) -> float:
        """The mean right after learning: mean_j R[j, j]."""
        return float(np.mean(self._own()))

    @property
    def forgetting(self) -> float:
        """Chaudhry: the mean over former tasks of the best score before the last task, less the last one."""
        return _mean(self.scores[1:-1, :-1].max(axis=0) - self.scores[-1, :-1]) if self.tasks > 1 else 0.0

    @property
    def drop(self) -> float:
        """The mean over former tasks of what was lost since they were learnt; paper 31 calls it local, where tasks are told."""
        return -self.backward

    @property
    def backward(self) -> float:
        """Backward transfer: mean_{j<T} R[T, j] - R[j, j]."""
        return _mean(self.scores[-1, :-1] - self._own()[:-1])

    @property
    def forward(self) -> float:
        """Forward transfer: mean_{j>1} R[j-1, j] - R[0, j]."""
        before = np.array([self.scores[j, j] for j in range(1, self.tasks)])
        return _mean(before - self.scores[0, 1:])

    @property
    def stepwise(self) -> float:
        """The mean drop of a former task from one step to the next."""
        drops = [self.scores[i, j] - self.scores[i + 1, j] for i in range(1, self.tasks) for j in range(i)]
        return _mean(np.array(drops))

    @property
    def global_forgetting(self) -> float:
        """1/(T-1) sum_{i>1} sum_{j<i} |T_j| / |T_1..T_i| (W[j, j] - W[i, j]), W being ``within``; negative where tasks recover."""
        if self.tasks < 2:
            return 0.0
        sizes = np.asarray(self.sizes or [1] * self.tasks, dtype=np.float64)
        w = self.scores if self.within is None else self.within
        steps = [
            sum(sizes[j] / sizes[: i + 1].sum() * (w[j + 1, j] - w[i + 1, j]) for j in range(i))
            for i in range(1, self.tasks)
        ]
        return float(np.mean(steps))

    @property
    def intransigence(self) -> float:
        """What is not learnt for being careful: mean_j joint[j] - R[j, j]. NaN without ``joint``."""
        return float(np.mean(np.asarray(self.joint) - self._own())) if len(self.joint) else float("nan")

    def metrics(self) -> Mapping[str, float]:
        """All of them by name, and the costs."""
        found = {
            "average": self.average,
            "average, incremental": self.incremental,
            "right after learning": self.learnt,
            "forgetting": self.forgetting,
            "global forgetting": self.global_forgetting,
            "drop a step": self.stepwise,
            "backward transfer": self.backward,
            "forward transfer": self.forward,
        }
        if len(self.joint):
            found["intransigence"] = self.intransigence
        if self.cost is not None:
            found |= {
                "parameters that learn": float(self.cost.trainable),
                "bytes kept": float(self.cost.stored),
                "passes a batch": self.cost.passes,
                "seconds": self.cost.seconds,
            }
        return found

    def _own(self) -> Floats:
        return np.diagonal(self.scores[1:])


def _mean(values: Floats) -> float:
    """0 of nothing: one task has no former ones."""
    return float(np.mean(values)) if np.size(values) else 0.0
