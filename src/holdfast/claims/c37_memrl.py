"""MemRL (arXiv 2601.03192): utilities learnt from rewards at run time tell memories that help from look-alikes.

The tasks are the 500 database tasks of LifelongAgentBench; the agent that does them is a simulator, for what is claimed is about
the memory and not about a model. It masters some of the SQL skills that the tasks need, and a memory brings it those of the task
that it came from, if it is sound; if it is not, it misleads. Which is which nobody can see. Memory, ranking, tokens and rewards
are the product's own; every arm meets the same tasks in the same order with the same luck.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from holdfast.bench.plots import Bars, Lines, draw
from holdfast.claims.base import Check, Result, Scale
from holdfast.claims.embedded import embedder
from holdfast.claims.lifelong import Task, adapt, load, solves
from holdfast.cube import Channel, Kind, Use
from holdfast.encode.base import Embedder
from holdfast.errors import ClaimError
from holdfast.memory import Memory
from holdfast.retrieve.utility import Utility
from holdfast.store.base import Action
from holdfast.store.rewards import Terms

number = 37
name = "memrl"
statement = (
    "Utilities learnt from rewards at run time, with no weight changed, tell memories that help from those that look alike: at "
    "least 5 points more success in the last epoch than by likeness alone, more over all epochs than by either alone, and less "
    "forgetting."
)
arms = ("likeness and utility", "no memory", "likeness alone", "utility alone")

OURS, NONE, ALIKE, UTILITY = arms
WEIGHTS = {ALIKE: 0.0, OURS: 0.5, UTILITY: 1.0}
EPOCHS, ADDING = 8, 3
"""Memories are added in the first epochs."""
SEEDS = {"full": (0, 1, 2, 3, 4)}
"""Where no seeds are named."""
QUICK = 250
"""So many of the tasks, drawn by the seed, in the quick form."""
EXECUTED = 5
"""Epochs of the agent whose statements are executed."""
MASTERED = 0.6
SOUND, SOUND_FAILED = 0.6, 0.25
"""So many memories of a success, and of a failure, are sound."""
BEST, UNCOVERED, MISLED = 0.95, 0.25, 0.85
"""The chance of success, and what a skill that is lacking and a memory that misleads leave of it."""
SETTINGS = Utility(pool=10, k=5, least=0.35, explore=0.01, terms=Terms(rate=0.3, start=0.5))
_START = datetime(2026, 1, 1, tzinfo=UTC)

Floats = npt.NDArray[np.float64]


def run(scale: Scale, seed: int, data: Path | None) -> Result:
    """All arms in one world: which skills are mastered, which memories are sound and the luck are drawn by ``seed``."""
    tasks = load(data)
    if scale == "quick":
        tasks = [tasks[at] for at in sorted(np.random.default_rng(seed).permutation(len(tasks))[:QUICK].tolist())]
    embed = embedder("this claim compares tasks by meaning")
    world = _World.drawn(tasks, seed)
    seen = {}
    with tempfile.TemporaryDirectory() as folder:
        for arm in arms:
            seen[arm] = _lived(world, arm, Path(folder) / arm.replace(" ", "-"), embed, seed)
        executed = {}
        if scale != "quick":
            executed = {
                f"executed, {arm}": _executed(tasks, weight, Path(folder) / f"executed-{at}", embed, seed)
                for at, (arm, weight) in enumerate(WEIGHTS.items())
            }
    measured = {arm: one.metrics for arm, one in seen.items()} | executed
    ours, alike, utility = measured[OURS], measured[ALIKE], measured[UTILITY]
    off, spread, allowed = _theorem(seed)
    quintiles = seen[OURS].quintiles
    checks = (
        Check("success in the last epoch, less likeness alone", ours["last epoch"] - alike["last epoch"], 0.05),
        Check("higher than likeness alone in the last epoch", float(ours["last epoch"] > alike["last epoch"]), 1.0),
        Check("mean over epochs, less likeness alone", ours["mean"] - alike["mean"], 0.0001),
        Check("mean over epochs, less utility alone", ours["mean"] - utility["mean"], 0.0001),
        Check("forgetting, less likeness alone", ours["forgetting"] - alike["forgetting"], -0.0001, at_least=False),
        Check("success rises with the utility of what was told, by fifths", float(_rises(quintiles)), 1.0),
        Check("theorem: the mean of Q is off its closed form by", off, 0.01, at_least=False),
        Check("theorem: variance of Q by its bound", spread, allowed, at_least=False, note="1 + 3 standard errors"),
        Check("tokens that counted twice", float(seen[OURS].twice), 0.0, at_least=False),
        Check("Q is off what the journal says by", seen[OURS].off, 1e-9, at_least=False),
    )
    settings = {
        "tasks": len(tasks),
        "epochs": EPOCHS,
        "epochs in which memories are added": ADDING,
        "pool": SETTINGS.pool,
        "k": SETTINGS.k,
        "least likeness": SETTINGS.least,
        "rate": SETTINGS.terms.rate,
        "start": SETTINGS.terms.start,
        "explore": SETTINGS.explore,
        "embedder": embed.model,
        "scale": scale,
    }
    notes = (
        "executed (not in the quick form): a case's statement is fitted to the table by rules and run in SQLite, so the absolute "
        "scores are low; it decides no check",
        "the agent of the other arms is a simulator: rewards depend on skills and on which memories are sound; no model writes SQL",
        "each run is one world (skills mastered, sound memories, luck); the sheet asks for five",
    )
    series = {"epochs": {arm: one.epochs for arm, one in seen.items()}, "fifths": quintiles}
    return Result(measured, checks, settings, series, notes)


def plot(result: Result, path: Path) -> None:
    """Success by epoch, in the last epoch, and by the utility of what was told."""
    epochs = list(range(1, EPOCHS + 1))
    last = {arm: result.arms[arm]["last epoch"] for arm in arms}
    fifths = result.series["fifths"]
    draw(
        path,
        [
            Lines(
                {arm: (epochs, values) for arm, values in result.series["epochs"].items()}, title="success, by epoch"
            ),
            Bars(
                last,
                title="success in the last epoch",
                ours=(OURS,),
                controls=(NONE,),
                required=last[ALIKE] + 0.05,
                percent=True,
            ),
            Lines({OURS: (list(range(1, 6)), fifths)}, title="success, by utility of what was told (fifths)"),
        ],
        title="Utility learnt from rewards beats likeness alone",
        subtitle="Database tasks of LifelongAgentBench, a simulated agent",
    )


# --- the world ---


@dataclass(frozen=True, slots=True)
class _World:
    """What is the same for every arm: arrays of shape (epochs, tasks), the orders as task numbers, the luck in [0, 1)."""

    tasks: Sequence[Task]
    mastered: frozenset[str]
    orders: npt.NDArray[np.int64]
    luck: Floats
    soundness: Floats

    @classmethod
    def drawn(cls, tasks: Sequence[Task], seed: int) -> _World:
        random = np.random.default_rng(seed)
        skills = sorted(frozenset[str]().union(*(task.skills for task in tasks)))
        mastered = random.choice(skills, round(MASTERED * len(skills)), replace=False)
        orders = np.stack([random.permutation(len(tasks)) for _ in range(EPOCHS)])
        shape = EPOCHS, len(tasks)
        return cls(tasks, frozenset(mastered.tolist()), orders, random.random(shape), random.random(shape))


@dataclass(frozen=True, slots=True)
class _Lived:
    metrics: Mapping[str, float]
    epochs: Sequence[float]
    quintiles: Sequence[float]
    twice: int
    off: float


def _lived(world: _World, arm: str, folder: Path, embedder: Embedder, seed: int) -> _Lived:
    """One arm through all epochs."""
    clock = [_START]
    memory = Memory(
        folder,
        user="agent",
        embedder=embedder,
        encoders=(),
        background=False,
        durability="normal",
        clock=lambda: clock[0],
    )
    by = None if arm == NONE else _weighed(WEIGHTS[arm])
    random = np.random.default_rng(seed)
    solved = np.zeros((EPOCHS, len(world.tasks)), np.bool_)
    from_: dict[str, frozenset[str]] = {}  # of each memory, the skills of its task
    sound: dict[str, bool] = {}
    told: list[tuple[float, bool]] = []
    took: list[float] = []
    twice = 0
    try:
        for epoch in range(EPOCHS):
            for at in world.orders[epoch].tolist():
                clock[0] += timedelta(minutes=1)
                task = world.tasks[at]
                began = time.perf_counter()
                found = memory.useful(task.text, by=by, kinds=[Kind.EXPERIENCE], random=random) if by else None
                spent = time.perf_counter() - began
                ids = [hit.id for hit in found.hits] if found else []
                brought = frozenset[str]().union(*(from_[id] for id in ids if sound[id]))
                lacking = len(task.skills - world.mastered - brought)
                chance = BEST * UNCOVERED**lacking * MISLED ** sum(not sound[id] for id in ids)
                ok = solved[epoch, at] = bool(world.luck[epoch, at] < chance)
                if found is not None and ids:
                    told.append((float(np.mean([hit.cube.use.known(0.5) for hit in found.hits])), ok))
                    began = time.perf_counter()
                    memory.reward(found.token, float(ok))
                    took.append(spent + time.perf_counter() - began)
                    if epoch == 0:
                        twice += memory.reward(found.token, 1.0 - ok).applied
                if by is not None and epoch < ADDING:
                    done = memory.add(
                        task.text,
                        kind=Kind.EXPERIENCE,
                        channel=Channel.ASSISTANT,
                        author="agent",
                        at=clock[0],
                        data={"task": at, "solved": bool(ok)},
                    )
                    if len(done.ids) != 1:
                        raise ClaimError(f"an experience was not kept: {done}")
                    memory.flush()
                    from_[done.ids[0]] = task.skills
                    sound[done.ids[0]] = bool(world.soundness[epoch, at] < (SOUND if ok else SOUND_FAILED))
        use = {cube.id: cube.use for cube in memory.select() if cube.id in sound}
        off = _off(memory, use)
    finally:
        memory.close()
    metrics = {
        "last epoch": float(solved[-1].mean()),
        "mean": float(solved.mean()),
        "solved at least once": float(solved.any(axis=0).mean()),
        "forgetting": _forgetting(solved),
    }
    if use:
        utility = [use[id].known(0.5) for id in use]
        metrics["correlation of utility and soundness"] = float(np.corrcoef(utility, [sound[id] for id in use])[0, 1])
        metrics["ms a step, median"] = 1000 * float(np.median(took))
    return _Lived(metrics, solved.mean(axis=1).tolist(), _fifths(told), twice, off)


# --- rewards by execution ---


def _executed(tasks: Sequence[Task], weight: float, folder: Path, embedder: Embedder, seed: int) -> dict[str, float]:
    """An agent that fits the statement of the first case recalled to the table at hand, rewarded by what SQLite makes of it.

    Half of the tasks, with their statements, are its memory; the other half it tries in every epoch.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(tasks)).tolist()
    known, asked = order[: len(order) // 2], order[len(order) // 2 :]
    by = _weighed(weight, k=1)
    with Memory(folder, user="agent", embedder=embedder, encoders=(), background=False, durability="normal") as memory:
        cases: dict[str, Task] = {}
        for at in known:
            done = memory.add(
                tasks[at].text,
                kind=Kind.EXPERIENCE,
                channel=Channel.ASSISTANT,
                author="agent",
                at=_START + timedelta(minutes=at),
                data={"sql": tasks[at].sql},
            )
            cases |= dict.fromkeys(done.ids, tasks[at])
        memory.flush()
        shares = []
        for _ in range(EXECUTED):
            right = 0
            for at in random.permutation(asked).tolist():
                task = tasks[at]
                found = memory.useful(task.text, by=by, kinds=[Kind.EXPERIENCE], random=random)
                if not found.hits:
                    continue
                case = cases[found.hits[0].id]
                ok = solves(task, adapt(case.sql, case.table, task.text, task.table))
                right += ok
                memory.reward(found.token, float(ok))
            shares.append(right / len(asked))
    return {"executed, last epoch": shares[-1], "executed, mean": float(np.mean(shares))}


def _weighed(weight: float, k: int = SETTINGS.k) -> Utility:
    return Utility(SETTINGS.pool, k, SETTINGS.least, weight, terms=SETTINGS.terms, explore=SETTINGS.explore)


def _forgetting(solved: npt.NDArray[np.bool_]) -> float:
    """Of the tasks that were solved in an epoch, the share that fails in the next."""
    return float((solved[:-1] & ~solved[1:]).sum() / max(solved[:-1].sum(), 1))


def _fifths(told: Sequence[tuple[float, bool]]) -> list[float]:
    """The share of successes in each fifth of the attempts, by the mean utility of what was told, the least useful first."""
    if not told:
        return []
    utility, ok = (np.asarray(values) for values in zip(*told, strict=True))
    return [float(some.mean()) for some in np.array_split(ok[np.argsort(utility, kind="stable")], 5)]


def _rises(values: Sequence[float]) -> bool:
    return all(later > earlier for earlier, later in pairwise(values))


def _off(memory: Memory, use: Mapping[str, Use]) -> float:
    """The largest gap between a memory's utility and what its feedback in the journal adds up to."""
    rate, start = SETTINGS.terms.rate, SETTINGS.terms.start
    replayed = dict.fromkeys(use, Use(utility=start))
    for event in memory.store.events(scope=memory.scope()):
        if event.action is Action.FEEDBACK and event.id in replayed:
            replayed[event.id] = replayed[event.id].after(float(event.reason), rate)
    return max((abs(replayed[id].utility - use[id].known(start)) for id in use), default=0.0)


# --- the theorem ---


def _theorem(seed: int, runs: int = 2000, steps: int = 30, mean: float = 0.9) -> tuple[float, float, float]:
    """Of Bernoulli rewards: how far the mean of Q is off (1 - rate)^t (Q_0 - mean) at most, the variance of Q after the last by
    its bound rate / (2 - rate) Var(r), and how much of that bound three standard errors allow."""
    rate, start = SETTINGS.terms.rate, SETTINGS.terms.start
    rewards = (np.random.default_rng(seed).random((steps, runs)) < mean).astype(np.float64)
    uses = [Use(utility=start)] * runs
    off = 0.0
    for step in range(steps):
        uses = [use.after(reward, rate) for use, reward in zip(uses, rewards[step].tolist(), strict=True)]
        found = np.asarray([use.utility for use in uses])
        off = max(off, abs(float(found.mean()) - mean - (1 - rate) ** (step + 1) * (start - mean)))
    bound = rate / (2 - rate) * mean * (1 - mean)
    squares = (found - found.mean()) ** 2
    error = float(squares.std()) / np.sqrt(runs)
    return off, float(squares.mean()) / bound, 1 + 3 * float(error) / bound
