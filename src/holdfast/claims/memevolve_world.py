"""Four families of tasks in which experience helps, and an agent that can use nothing else (for claim 27).

A task is a row of locks, each with a key word; a lock opens to one of a few values, which the agent finds by trying or is told. It
has one try a lock and a few to spare. What differs is what makes experience useful:

- sites: rules of sites that come again, and are named in the task;
- dishes: procedures shared by dishes, of which some go otherwise when baked than when fried (a hint of the other class misleads);
- drift: as sites, and every so often some of the rules change;
- noise: the task is long and says nothing; what lock comes next is seen only at the step itself.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from holdfast.bench.arena import Attempt, Guide, Task
from holdfast.encode.base import Outcome, Step, Trajectory
from holdfast.recipes.base import Phase

Floats = npt.NDArray[np.float64]
VALUES = tuple(f"v{number:02d}" for number in range(24))
CHOICES = 6
"""A lock opens to one of so many values."""

SPARE = 2
"""Tries beyond one a lock."""

READ = 1_600
"""Characters of each guidance that the agent reads: the rest drowns."""

MISLABELLED = 0.12

_SYLLABLES = ("ba", "do", "ki", "lu", "me", "no", "pa", "ri", "so", "tu", "va", "ze")
_HINT = re.compile(r"([\w./-]+) => (v\d\d)(?: -> (ok|refused))?")


class Family(StrEnum):
    """What makes experience useful."""

    SITES = "sites"
    DISHES = "dishes"
    DRIFT = "drift"
    NOISE = "noise"


@dataclass(frozen=True, slots=True)
class World:
    """The rules of one family; ``seed`` draws them, and the tasks."""

    family: Family
    seed: int

    def tasks(self, count: int, start: int = 0) -> list[Task]:
        """Tasks ``start`` to ``start + count`` of an endless row."""
        return [self._task(number) for number in range(start, start + count)]

    def _task(self, number: int) -> Task:
        random = np.random.default_rng([self.seed, number, *map(ord, self.family)])
        match self.family:
            case Family.SITES | Family.DRIFT:
                site = self._word("site", _zipf(random, 8))
                does = [self._word("op", int(one)) for one in random.choice(6, 3, replace=False)]
                locks = [f"{site}.{one}" for one in does]
                text = f"On the site {site}: {', then '.join(does)}."
            case Family.DISHES:
                baked = bool(random.integers(2))
                does = [self._word("step", int(one)) for one in random.choice(24, 3, replace=False, p=_weights(24))]
                locks = does
                how, dish = "baked" if baked else "fried", self._word("dish", int(random.integers(40)))
                text = f"Make the {how} dish {dish}: {', '.join(does)}."
                wins = [self.value(lock, number, how if _forked(lock) else "") for lock in locks]
                return self._made(number, text, locks, wins)
            case Family.NOISE:
                locks = [f"fault-{self._word('fault', _zipf(random, 40))}" for _ in range(4)]
                locks = list(dict.fromkeys(locks))
                text = " ".join(self._word("noise", int(one)) for one in random.integers(400, size=40))
        return self._made(number, text, locks, [self.value(lock, number) for lock in locks])

    def value(self, lock: str, number: int, variant: str = "") -> str:
        """What opens a lock at a task."""
        epoch = 0
        if self.family is Family.DRIFT:  # every lock changes now and then, each at its own times
            epoch = (number + _hash(f"{self.seed} {lock} phase") % 120) // 120
        choices = self.choices(lock)
        return choices[_hash(f"{self.seed} {self.family} {lock} {variant} {epoch}") % len(choices)]

    def choices(self, lock: str) -> tuple[str, ...]:
        """The values that a lock may open to."""
        at = _hash(f"{self.seed} {lock} choices")
        return tuple(VALUES[(at + 5 * one) % len(VALUES)] for one in range(CHOICES))

    def _made(self, number: int, text: str, locks: Sequence[str], wins: Sequence[str]) -> Task:
        needs = tuple(f"{lock} => {value}" for lock, value in zip(locks, wins, strict=True))
        data = {
            "locks": tuple(locks),
            "wins": tuple(wins),
            "choices": tuple(self.choices(lock) for lock in locks),
            "hidden": self.family is Family.NOISE,
        }
        return Task(f"{self.family}-{self.seed}-{number}", text, str(self.family), needs, data)

    def _word(self, kind: str, number: int) -> str:
        at = _hash(f"{self.seed} {kind} {number}")
        return "".join(_SYLLABLES[(at // 12**one) % 12] for one in range(3)) + f"{number}"


class Locksmith:
    """An agent. ``seed`` draws its guesses and the wrong labels, each by the task alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def attempt(self, task: Task, guide: Guide) -> Attempt:
        """Open the locks in order; each wrong try costs one of those to spare."""
        random = np.random.default_rng([self._seed, _hash(task.id)])
        locks, wins, choices = task.data["locks"], task.data["wins"], task.data["choices"]
        told = guide(Phase.BEGIN, "").text[:READ]
        steps: list[Step] = []
        spare = SPARE
        for lock, win, offered in zip(locks, wins, choices, strict=True):
            seen = f"the lock {lock} stops the way" if task.data["hidden"] else f"next is {lock}"
            now = f"{told}\n{guide(Phase.STEP, seen).text[:READ]}"
            order = _ordered(now, lock, offered, random)
            while order:
                value = order.pop(0)
                opened = value == win
                steps.append(Step(f"{lock} => {value}", "ok" if opened else "refused"))
                if opened:
                    break
                if spare == 0:
                    return self._done(task, steps, False, random)
                spare -= 1
        return self._done(task, steps, True, random)

    def _done(self, task: Task, steps: Sequence[Step], succeeded: bool, random: np.random.Generator) -> Attempt:
        said = succeeded != bool(random.random() < MISLABELLED)
        return Attempt(
            Trajectory(task.text, tuple(steps), "done" if succeeded else "gave up"),
            succeeded,
            Outcome(1.0 if said else -1.0),
        )


def _ordered(told: str, lock: str, offered: Sequence[str], random: np.random.Generator) -> list[str]:
    """The values as the agent tries them: what it is told most often, what it knows nothing of, what was refused."""
    votes: Counter[str] = Counter()
    for found in _HINT.finditer(told):
        if found[1] == lock:
            votes[found[2]] += -1 if found[3] == "refused" else 1
    guesses = [offered[int(at)] for at in random.permutation(len(offered))]
    others = [value for value in votes if value not in guesses]
    return sorted((*others, *guesses), key=lambda value: -votes[value])


def _forked(lock: str) -> bool:
    """Whether a procedure goes otherwise when baked than when fried."""
    return _hash(f"{lock} forked") % 3 == 0


def _zipf(random: np.random.Generator, count: int) -> int:
    return int(random.choice(count, p=_weights(count)))


def _weights(count: int) -> Floats:
    weights: Floats = 1.0 / np.arange(1, count + 1)
    weights /= weights.sum()
    return weights


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
