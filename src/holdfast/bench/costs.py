"""What a recipe costs a run: calls of a model, tokens, time and bytes, measured on this machine (arXiv 2601.09113 asks every
evaluation of memory to say what it costs).

The model that writes is the scribe, whose time counts for nothing; so what is measured is what is asked of a model, and what the
framework takes. Tasks are made of drawn words, a run has four steps, and every fourth one fails.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from holdfast.bench.scribe import Scribe
from holdfast.chat import Reply, Usage, count_tokens
from holdfast.encode.base import Embedder, Step, Trajectory, Vectors
from holdfast.memory import Memory
from holdfast.recipes.base import Recipe

T = TypeVar("T")
VOCABULARY = 3_000
"""Words, of which the later ones are drawn less often."""

FLUSHED = 10
"""Runs after which vectors are made."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Means over the later half of some runs. Times in seconds, without the model's and the embedder's; ``kept`` in bytes of the
    store's file."""

    recipe: str
    calls_before: float
    calls_at_step: float
    calls_after: float
    prompt: float
    completion: float
    told: float
    before: float
    at_step: float
    after: float
    kept: float


class Clock:
    """Adds up what calls take that are not the framework's."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.used = Usage()

    def __call__(self, call: Callable[[], T]) -> T:
        """The call's answer; its time is added."""
        start = time.perf_counter()
        try:
            return call()
        finally:
            self.seconds += time.perf_counter() - start


class Writer(Scribe):
    """The scribe, by a clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def reply(self, *args: Any, **more: Any) -> Reply:
        """As the scribe replies."""
        reply = self._clock(lambda: super(Writer, self).reply(*args, **more))
        self._clock.used += reply.usage
        return reply


class Timed:
    """An embedder, by a clock."""

    def __init__(self, of: Embedder, clock: Clock) -> None:
        self._of, self._clock = of, clock
        self.model, self.dimension = of.model, of.dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        """As the one that is timed."""
        return self._clock(lambda: self._of.embed(texts))


def runs(count: int, seed: int) -> list[Trajectory]:
    """Tasks of twelve words, with four steps each."""
    drawn = random.Random(seed)
    found = []
    for number in range(count):
        words = [f"word{min(int(drawn.expovariate(15 / VOCABULARY)), VOCABULARY)}" for _ in range(12)]
        steps = tuple(Step(f"call {word}", f"{word} is done", f"tool {word}", {"of": word}) for word in words[:4])
        found.append(Trajectory(f"do {' '.join(words)}", steps, f"done {words[0]}", id=f"{seed}-{number}"))
    return found


def reward(number: int) -> float:
    """How the run of that number went."""
    return 1.0 if number % 4 else -1.0


def costs(recipes: Iterable[Recipe], embedder: Embedder | None, count: int = 40, seed: int = 0) -> Iterator[Cost]:
    """Measures one recipe after another, each in a store of its own that is gone afterwards."""
    for recipe in recipes:
        with tempfile.TemporaryDirectory() as folder:
            yield _cost(recipe, embedder, Path(folder) / "store", runs(count, seed))


def _cost(recipe: Recipe, embedder: Embedder | None, folder: Path, tasks: Sequence[Trajectory]) -> Cost:
    half = len(tasks) // 2
    clock, size = Clock(), 0
    means: dict[str, float] = {}
    for number, some in enumerate((tasks[:half], tasks[half:])):
        before = clock.used
        with Memory(
            folder,
            user="user",
            agent="agent",
            embedder=None if embedder is None else Timed(embedder, clock),
            encoders=(),
            background=False,
            recipe=recipe,
            chat=Writer(clock),
        ) as memory:
            means = _lived(memory, some, clock, number * half)
        # Only a closed store has all that it keeps in its file.
        means |= {
            "kept": (_bytes(folder) - size) / len(some),
            "prompt": (clock.used.prompt - before.prompt) / len(some),
            "completion": (clock.used.completion - before.completion) / len(some),
        }
        size = _bytes(folder)
    return Cost(recipe.name, **means)


def _lived(memory: Memory, tasks: Sequence[Trajectory], clock: Clock, first: int) -> dict[str, float]:
    """The calls, the times and what was told, as means over some runs."""
    means = dict.fromkeys(("calls_before", "calls_at_step", "calls_after", "before", "at_step", "after", "told"), 0.0)

    def measured(when: str, call: Callable[[], T]) -> T:
        calls, off, start = clock.used.calls, clock.seconds, time.perf_counter()
        found = call()
        means[when] += (time.perf_counter() - start - (clock.seconds - off)) / len(tasks)
        means[f"calls_{when}"] += (clock.used.calls - calls) / len(tasks)
        return found

    for number, task in enumerate(tasks, first):
        seen = f"{task.task} {task.answer}"
        told = (
            measured("before", partial(memory.provide, task.task)),
            measured("at_step", partial(memory.provide, task.task, "step", context=seen)),
        )
        means["told"] += sum(count_tokens(one.text) for one in told if one.text) / len(tasks)
        served = tuple(ref for one in told for ref in one.served)
        measured("after", partial(memory.take_in, replace(task, served=served), reward(number)))
        if number % FLUSHED == FLUSHED - 1:
            memory.flush()
    memory.flush()
    return means


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
