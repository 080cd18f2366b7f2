"""Where memories of experience meet: each does the same tasks in the same order, from an empty store (the inner loop of MemEvolve,
arXiv 2512.18746 §3.2).

An ``Agent`` does a task with whatever the memory has to tell, and says how it went. What is measured is success, the tokens that
were told, the calls of a model that the memory made, and time. Where a task names what would have helped, a failure is traced to
the part of the memory that lost it.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from holdfast.chat import Chat, Message, Reply, Tool, count_tokens
from holdfast.cube import RECALLABLE, Status
from holdfast.encode.base import Embedder, Outcome, Trajectory
from holdfast.encode.records import tell
from holdfast.memory import Memory
from holdfast.recipes.base import Guidance, Phase, Recipe

_GONE = (Status.ARCHIVED, Status.EXPIRED, Status.MERGED)


@dataclass(frozen=True, slots=True)
class Task:
    """One task. ``needs``: words without which what is told is of no help, where they are known; ``data``: for the agent."""

    id: str
    text: str
    family: str = ""
    needs: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


Guide = Callable[[Phase, str], Guidance]
"""(phase, context) -> what the memory has to tell of the task at hand."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an agent made of a task: whether it ``succeeded``, and the ``outcome`` as it was told, which may be wrong."""

    trajectory: Trajectory
    succeeded: bool
    outcome: Outcome


class Agent(Protocol):
    """Whatever does tasks."""

    def attempt(self, task: Task, guide: Guide) -> Attempt:
        """Do a task. The same task and the same guidance give the same attempt."""
        ...


class Lost(StrEnum):
    """Where what would have helped was lost, in the order of the ways of a memory."""

    NEVER_LIVED = "never lived"  # no run had shown it yet: no memory could know
    NEVER_ENCODED = "never encoded"  # a run had shown it, and no record that is told says it
    EVICTED = "evicted"  # a record said it, and is no longer recalled
    NOT_FOUND = "not found"  # a record says it, and was not among what was told
    DROWNED = "drowned"  # it was told, and the agent failed all the same


@dataclass(frozen=True, slots=True)
class Report:
    """One recipe over some tasks, in their order. ``lost`` counts, over those that failed, what became of each need."""

    recipe: str
    success: tuple[bool, ...]
    tokens: int
    calls: int
    seconds: float
    lost: Mapping[Lost, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """The share of the tasks that succeeded."""
        return sum(self.success) / max(len(self.success), 1)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "recipe": self.recipe,
            "success": [int(one) for one in self.success],
            "rate": round(self.rate, 4),
            "tokens": self.tokens,
            "calls": self.calls,
            "seconds": round(self.seconds, 3),
            "lost": {str(name): count for name, count in self.lost.items()},
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Report:
        """The inverse of ``to_dict``."""
        return cls(
            record["recipe"],
            tuple(map(bool, record["success"])),
            int(record["tokens"]),
            int(record["calls"]),
            float(record["seconds"]),
            {Lost(name): int(count) for name, count in record["lost"].items()},
        )


class Counted:
    """A chat model whose calls are counted."""

    def __init__(self, model: Chat) -> None:
        self._model = model
        self.calls = 0

    def reply(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        schema: Mapping[str, Any] | None = None,
        temperature: float | None = None,
        limit: int | None = None,
    ) -> Reply:
        """See ``Chat.reply``."""
        self.calls += 1
        return self._model.reply(messages, tools=tools, schema=schema, temperature=temperature, limit=limit)


@dataclass(frozen=True, slots=True)
class Arena:
    """Where recipes are run.

    Fields
        agent: what does the tasks.
        model: what writes for the recipes.
        embedder: as ``Memory`` takes it.
        folder: where the stores come and go; a temporary one by default.
    """

    agent: Agent
    model: Chat | None = None
    embedder: Embedder | None = None
    folder: Path | None = None

    def run(self, recipe: Recipe | None, tasks: Sequence[Task], *, warm: Sequence[Task] = ()) -> Report:
        """Do the tasks with a recipe, or with no memory, after ``warm`` ones that do not count."""
        if recipe is None:
            return _scored("no memory", [self.agent.attempt(task, _nothing).succeeded for task in tasks])
        place = Path(tempfile.mkdtemp(prefix="arena-", dir=self.folder))
        model = None if self.model is None else Counted(self.model)
        try:
            with Memory(
                place, user="arena", agent="agent", recipe=recipe, chat=model, embedder=self.embedder,
                encoders=(), durability="normal", background=False,
            ) as memory:  # fmt: skip
                course = _Course(self.agent, memory, recipe)
                for task in warm:
                    course.do(task)
                before = model.calls if model is not None else 0
                course.reset()
                success = [course.do(task) for task in tasks]
        finally:
            shutil.rmtree(place, ignore_errors=True)
        calls = model.calls - before if model is not None else 0
        return replace(
            _scored(recipe.name, success), tokens=course.tokens, calls=calls, seconds=course.seconds, lost=course.lost
        )


class _Course:
    """One recipe on its way through some tasks."""

    def __init__(self, agent: Agent, memory: Memory, recipe: Recipe) -> None:
        self._agent, self._memory, self._recipe = agent, memory, recipe
        self._records = _Records(memory)
        self._done = 0
        self.reset()

    def reset(self) -> None:
        self.tokens, self.seconds = 0, 0.0
        self.lost: Counter[Lost] = Counter()

    def do(self, task: Task) -> bool:
        told: list[Guidance] = []

        def guide(phase: Phase, context: str) -> Guidance:
            began = time.perf_counter()
            told.append(self._memory.provide(task.text, phase, context=context))
            self.seconds += time.perf_counter() - began
            return told[-1]

        attempt = self._agent.attempt(task, guide)
        self.tokens += sum(count_tokens(one.text) for one in told)
        if not attempt.succeeded:
            self.lost.update(self._lost(need, told) for need in task.needs)
        began = time.perf_counter()
        served = tuple(dict.fromkeys(ref for one in told for ref in one.served))
        tokens = tuple(token for one in told for token in one.tokens)
        self._done += 1
        lived = replace(attempt.trajectory, served=served, tokens=tokens, id=f"{self._done}-{task.id}")
        self._memory.take_in(lived, attempt.outcome)
        self._memory.flush()
        self.seconds += time.perf_counter() - began
        return attempt.succeeded

    def _lost(self, need: str, told: Sequence[Guidance]) -> Lost:
        """What became of some words that would have helped."""
        if any(need in one.text for one in told):
            return Lost.DROWNED
        kinds = {kind for find in self._recipe.finds for kind in find.kinds}
        says = [(kind in kinds, status) for kind, status, text in self._records.current() if need in text]
        if any(sought and status in RECALLABLE for sought, status in says):
            return Lost.NOT_FOUND
        if any(sought and status in _GONE for sought, status in says):
            return Lost.EVICTED
        return Lost.NEVER_ENCODED if any(status in RECALLABLE for _, status in says) else Lost.NEVER_LIVED


class _Records:
    """What each record of a memory tells, read anew where the journal says that it has changed."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._seq = 0
        self._held: dict[str, tuple[str, Status, str]] = {}

    def current(self) -> Iterable[tuple[str, Status, str]]:
        """Kind, status and words of each, in no order."""
        changed = set()
        for event in self._memory.store.events(self._seq):
            self._seq = event.seq
            changed.add(event.id)
        for id in changed:
            self._held.pop(id, None)  # it may be forgotten
        for id, cube in self._memory.store.several(changed, self._memory.scope()).items():
            self._held[id] = str(cube.kind), cube.status, tell(cube)
        return self._held.values()


def _scored(name: str, success: Sequence[bool]) -> Report:
    return Report(name, tuple(success), 0, 0, 0.0)


def _nothing(_phase: Phase, _context: str) -> Guidance:
    return Guidance()
