"""The context of one instruction (L2MAC, arXiv 2310.02003): what it costs, how it is cut, when it goes in circles, how it is kept.

The original pops messages at a fixed place when a context overflows, which may leave a tool's result without its call. Here a call
and its results go together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from holdfast.agent.ledger import Ledger
from holdfast.agent.registry import Instruction
from holdfast.chat import Call, Message, Role, Tool
from holdfast.cube import Cube, Form
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.WORK_SINGLE,),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.AGENT,),
)

TURN = "turn"
_FRAME = 4
"""Tokens that a message costs beside its words."""

Count = Callable[[str], int]


def cost(message: Message, count: Count) -> int:
    """The tokens of a message with its calls."""
    calls = sum(
        count(call.tool) + count(json.dumps(dict(call.arguments), ensure_ascii=False)) for call in message.calls
    )
    return _FRAME + count(message.text) + calls


def tools_cost(tools: Sequence[Tool], count: Count) -> int:
    """The tokens of what a model is told of its tools."""
    return sum(count(f"{tool.name} {tool.description} {json.dumps(tool.parameters)}") for tool in tools)


def units(messages: Sequence[Message]) -> list[list[Message]]:
    """Messages in groups that belong together: a call with its results; any other message alone."""
    groups: list[list[Message]] = []
    for message in messages:
        if message.role is Role.TOOL and groups:
            groups[-1].append(message)
        else:
            groups.append([message])
    return groups


def without_oldest(messages: Sequence[Message], fits: Callable[[Sequence[Message]], bool]) -> list[Message]:
    """The messages without as many of the oldest groups (``units``) as it takes to fit; [] where none fit."""
    groups = units(messages)
    while groups and not fits([message for group in groups for message in group]):
        groups.pop(0)
    return [message for group in groups for message in group]


def repeats(messages: Sequence[Message]) -> bool:
    """Whether the last two, three or four messages say what as many before them said."""
    said = [(m.role, m.text, [(call.tool, dict(call.arguments)) for call in m.calls]) for m in messages[-8:]]
    return any(len(said) >= 2 * n and said[-n:] == said[-2 * n : -n] for n in (2, 3, 4))


class Log:
    """The conversations of a run, one for each context that was begun. They are history, and never found by a search."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._tests: dict[str, dict[str, int]] = {}

    def begin(self, step: Instruction, opening: Sequence[Message], tests: Mapping[str, int]) -> None:
        """Write down a new context; ``tests``: the versions of the tests that are there."""
        self._write(step, 0, opening, {"tests": dict(tests)})

    def append(self, step: Instruction, before: Sequence[Message], new: Sequence[Message]) -> None:
        """Write down what was said after ``before``."""
        self._write(step, len(before), new, {})

    def messages(self, step: Instruction) -> list[Message]:
        """The conversation that an instruction was left in."""
        found = self._ledger.find(TURN, {"step": step.id, "attempt": step.attempts})
        return [_message(cube) for cube in sorted(found, key=lambda cube: int(cube.data["n"]))]

    def tests(self, step: Instruction) -> dict[str, int]:
        """The versions of the tests that were there when an instruction was first begun, by path."""
        if step.id not in self._tests:
            (first,) = self._ledger.find(TURN, {"step": step.id, "attempt": 1, "n": 0})
            self._tests[step.id] = dict(first.data["tests"])
        return self._tests[step.id]

    def _write(self, step: Instruction, start: int, messages: Sequence[Message], data: Mapping[str, object]) -> None:
        for n, message in enumerate(messages, start):
            where = {"step": step.id, "attempt": step.attempts, "n": n, "role": str(message.role)}
            self._ledger.record(TURN, _written(message), {**where, **data})


def _written(message: Message) -> str:
    calls = [[call.id, call.tool, dict(call.arguments)] for call in message.calls]
    return json.dumps({"text": message.text, "calls": calls, "answers": message.answers}, ensure_ascii=False)


def _message(cube: Cube) -> Message:
    said = json.loads(cube.text)
    calls = tuple(Call(id, tool, arguments) for id, tool, arguments in said["calls"])
    return Message(Role(cube.data["role"]), said["text"], calls, said["answers"])
