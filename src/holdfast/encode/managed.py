"""Facts of a run, each put into what is known by one operation: add, update, delete, none (Memory-R1, arXiv 2508.19828, §3,
algorithm 3).

Who decides is a policy: a model that is asked once a fact (``Prompted``), or two thresholds (``Thresholds``). An update takes the
place of the old record, which stays in history; algorithm 5 of the paper, which keeps both, is taken for a slip. Nothing that a
model answers reaches further than the few records that it was shown, and only those of the run's own author are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from holdfast.chat import Chat
from holdfast.cube import Cube, Form, Scope, Status
from holdfast.encode.base import Experience, Trajectory
from holdfast.encode.near import Found, Nearest, named
from holdfast.encode.records import CASES, MAKER, Unit, derived, listed, revised
from holdfast.encode.writing import texts, told, write
from holdfast.errors import InputError
from holdfast.store.base import Op, Operation
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_ENVIRONMENT, Function.STRATEGIES),
    formation=(Formation.DISTILL_FACTS,),
    evolution=(Evolution.UPDATE_EXTERNAL, Evolution.CONSOLIDATE_LOCAL),
    subject=(Subject.WORLD, Subject.AGENT),
)


NAME = "managed"
"""In a record's ``data``: that it was made here."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done with a fact: to ``target``, a record that was shown, where it is an update or a deletion. ``text`` is how
    an update reads."""

    op: Op
    target: Cube | None = None
    text: str = ""


class Policy(Protocol):
    """Who decides."""

    def decide(self, fact: str, shown: Sequence[Found]) -> Decision:
        """The operation for a fact, beside the records nearest to it, of which there is one at least."""
        ...


@dataclass(frozen=True, slots=True)
class Prompted:
    """A policy: a model. An update of what was not shown is an addition, and such a deletion is nothing."""

    model: Chat | None = None

    def decide(self, fact: str, shown: Sequence[Found]) -> Decision:
        """Raises InputError without a model, ChatError."""
        instruction = (
            "You manage a memory of facts. Decide what the new fact changes. ADD: it is new. UPDATE: it says more than one of the "
            "records on the same thing, or newer; give that record's number, and as text the one record that takes its place, with "
            "all that still holds. Two facts that can both be true do not contradict each other: join them. DELETE: it says that a "
            "record no longer holds. NONE: it is known, or of no use later."
        )
        data = {"fact": fact, "records": {str(at): one.cube.text for at, one in enumerate(shown, 1)}}
        fields = {
            "event": {"enum": ["ADD", "UPDATE", "DELETE", "NONE"]},
            "record": {"type": "integer", "minimum": 0, "maximum": len(shown)},
            "text": {"type": "string"},
        }
        answer = write(self.model, "operation", instruction, data, fields)
        number = answer["record"]
        target = shown[number - 1].cube if number else None
        match answer["event"]:
            case "UPDATE" if target is not None:
                return Decision(Op.UPDATE, target, answer["text"].strip() or fact)
            case "DELETE" if target is not None:
                return Decision(Op.DELETE, target)
            case "ADD" | "UPDATE":
                return Decision(Op.ADD)
            case _:
                return Decision(Op.NONE)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """A policy that asks nobody: above ``same`` a fact is known, above ``topic`` it takes the nearest one's place. Raises
    InputError."""

    same: float = 0.9
    topic: float = 0.6

    def __post_init__(self) -> None:
        if not -1.0 <= self.topic <= self.same <= 1.0:
            raise InputError("two cosines in [-1, 1]: what is the same is no less alike than what is on the same topic")

    def decide(self, fact: str, shown: Sequence[Found]) -> Decision:
        """By the nearest alone."""
        nearest = shown[0]
        if nearest.relevance > self.same:
            return Decision(Op.NONE)
        return Decision(Op.UPDATE, nearest.cube, fact) if nearest.relevance > self.topic else Decision(Op.ADD)


class Source(Protocol):
    """Where the facts of a run come from."""

    def facts(self, trajectory: Trajectory, succeeded: bool | None) -> list[str]:
        """Each in words that can be understood by themselves."""
        ...


@dataclass(frozen=True, slots=True)
class Drawn:
    """A source: a model draws ``most`` facts or fewer. Raises InputError."""

    most: int = 5
    model: Chat | None = None

    def __post_init__(self) -> None:
        if self.most < 1:
            raise InputError("one fact or more is drawn from a run")

    def facts(self, trajectory: Trajectory, succeeded: bool | None) -> list[str]:
        """Raises InputError without a model, ChatError."""
        instruction = (
            f"Draw at most {self.most} facts from this run that will help with other tasks, each in one sentence that can be "
            "understood by itself: what is so where it happened, and what works or does not. None where there are none."
        )
        data = {"task": trajectory.task, "steps": told(trajectory), "succeeded": succeeded}
        found = write(self.model, "facts", instruction, data, {"facts": texts(0, self.most)})
        return [str(one).strip() for one in found["facts"]]


@dataclass(frozen=True, slots=True)
class Steps:
    """A source that asks nobody: what came of each of the ``most`` last steps. Raises InputError."""

    most: int = 5

    def __post_init__(self) -> None:
        if self.most < 1:
            raise InputError("one fact or more is drawn from a run")

    def facts(self, trajectory: Trajectory, succeeded: bool | None) -> list[str]:  # noqa: ARG002  (the seam has it)
        """Steps that saw something."""
        seen = [f"{step.action}: {step.observation}" for step in trajectory.steps if step.observation.strip()]
        return seen[-self.most :]


@dataclass(frozen=True, slots=True)
class Managed:
    """An encoder: ``source`` gives the facts, and ``policy`` decides what each changes among the ``compared`` nearest records.
    Raises InputError."""

    source: Source = field(default_factory=Drawn)
    policy: Policy = field(default_factory=Prompted)
    compared: int = 5
    memory: Nearest | None = None
    scope: Scope | None = None

    def __post_init__(self) -> None:
        if self.compared < 1:
            raise InputError("a fact is held against one record or more")

    def encode(self, experience: Experience) -> list[Operation]:
        """One operation a fact. Raises InputError without what it needs, ChatError."""
        trajectory = experience.trajectory
        if trajectory is None:
            return []
        if self.memory is None or self.scope is None:
            raise InputError("this part of a recipe compares facts with records: it works in a memory, not by itself")
        author = experience.turns[0].origin.author
        operations: list[Operation] = []
        changed: set[str] = set()
        for fact in dict.fromkeys(self.source.facts(trajectory, experience.outcome.succeeded)):
            near = self.memory.nearest(fact, k=self.compared, kinds=(Unit.NOTE,), **named(self.scope))
            shown = [
                one
                for one in near
                if one.cube.origin.author == author
                and one.cube.data.get(MAKER) == NAME
                and one.cube.status is not Status.FROZEN
                and one.cube.id not in changed
            ]
            decision = self.policy.decide(fact, shown) if shown else Decision(Op.ADD)
            if decision.target is not None:
                changed.add(decision.target.id)  # a second change of it would be of a version that is none any more
            operations.append(self._operation(experience, fact, decision))
        return operations

    def _operation(self, experience: Experience, fact: str, decision: Decision) -> Operation:
        target = decision.target
        if decision.op is Op.UPDATE and target is not None:
            cases = [*listed(target, CASES), experience.turns[0].id]
            return revised(experience, target, "a newer fact on the same thing", text=decision.text, **{CASES: cases})
        if decision.op is Op.DELETE and target is not None:
            return Operation.delete(target, "a newer fact says that it no longer holds")
        if decision.op is Op.NONE:
            return Operation.none("known already, or of no use later")
        return derived(experience, NAME, Unit.NOTE, fact)
