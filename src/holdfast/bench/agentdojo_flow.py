"""Which values the tasks of AgentDojo need from earlier results, and which of them cross a typed boundary.

A value is needed where a call of the ground truth has an argument of two or more characters that stands in the text of an earlier
result and not in the user's words: 385 values, in 57 of the 97 tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.bench.agentdojo import Arm, Isolated, Run, benign_run, cases
from holdfast.bench.agentdojo_schemas import SCHEMAS
from holdfast.bench.agentdojo_words import needed
from holdfast.guard.flow import plain_leaves
from holdfast.guard.schema import Schema


@dataclass(frozen=True, slots=True)
class Need:
    """A value that a call of a user task's ground truth takes from an earlier result."""

    suite: str
    task: str
    step: int
    tool: str
    argument: str
    value: Any


def needs() -> list[Need]:
    """Every value of two or more characters that a call takes from the text of an earlier result and not from the user's words."""
    found = []
    for case in cases(benign=True):
        executor, env = benign_run(case)
        for step, call in enumerate(case.task.ground_truth(env)):
            for argument, item in call.args.items():
                found += [
                    Need(case.suite, case.user, step, call.function, argument, leaf)
                    for leaf in plain_leaves(item)
                    if needed(leaf, executor.texts, case.task.PROMPT)
                ]
            executor.run(call.function, call.args)
    return found


@dataclass(slots=True)
class Flow:
    """How the needed values cross: as words, as handles, or not; and how many of the tasks that need some have them all."""

    needed: int = 0
    words: int = 0
    handles: int = 0
    tasks: int = 0
    whole: int = 0
    lost: list[Need] = field(default_factory=list)

    @property
    def recall(self) -> float:
        """The share that crosses."""
        return (self.words + self.handles) / self.needed if self.needed else float("nan")


def value_flow(schemas: Mapping[str, Schema] = SCHEMAS) -> Flow:
    """Which of ``needs`` the declarations let through, where each call is made whatever was lost before it."""
    flow = Flow()
    for case in cases(benign=True):
        executor, env = benign_run(case)
        isolated = Isolated(case, Arm(True), Run(), executor, env, schemas)
        lost, many = 0, 0
        for step, call in enumerate(case.task.ground_truth(env)):
            words, handles = isolated.words(), isolated.handles()
            for argument, item in call.args.items():
                for leaf in plain_leaves(item):
                    if not needed(leaf, executor.texts, case.task.PROMPT):
                        continue
                    many += 1
                    if str(leaf) in words:
                        flow.words += 1
                    elif str(leaf) in handles:
                        flow.handles += 1
                    else:
                        lost += 1
                        flow.lost.append(Need(case.suite, case.user, step, call.function, argument, leaf))
            isolated.memory.call(call.function, call.args, returns=schemas[call.function])
        flow.needed += many
        flow.tasks += many > 0
        flow.whole += many > 0 and lost == 0
    return flow
