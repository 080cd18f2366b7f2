"""The program of a run (L2MAC, arXiv 2310.02003, Algorithm 1: bootstrap): a model divides a task into steps, a part at a time.

Each part is planned in a context of its own, so that a task may be longer than the window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from holdfast.agent.filework import TASK_FILE, clipped
from holdfast.agent.registry import Instruction
from holdfast.agent.window import Window
from holdfast.chat import Call, Message, Role, Tool
from holdfast.encode.schemas import misfits
from holdfast.errors import ChatError

PROFILE = ()  # it makes instructions; the registry keeps them

PLAN = Tool(
    "plan",
    "Give the steps, in order.",
    {
        "type": "object",
        "properties": {
            "steps": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "properties": {
                        "text": {"type": "string"},
                        "depends_on": {"type": "array", "items": {"type": "string"}},
                    },
                    "required": ["text"],
                },
            }
        },
        "required": ["steps"],
    },
)
PLANNER = (
    "You plan a task that is carried out step by step, each step by somebody who sees only that step, the files and the "
    "summaries of the steps that it depends on. Steps are called s1, s2 and so on. Give at most {most} steps."
)

_BEGINNING = 100  # characters


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan; ``depends_on``: ids of steps before it."""

    text: str
    depends_on: tuple[str, ...] = ()


def first_part(lines: Sequence[str], most: int, count: Callable[[str], int]) -> list[str]:
    """The first of some lines, as many as have at most ``most`` tokens together; at least one."""
    part = list(lines[:1])
    for line in lines[1:]:
        if count("\n".join([*part, line])) > most:
            break
        part.append(line)
    return part


def planned(
    window: Window, part: Sequence[str], at: int, lines: int, before: Sequence[Instruction], longest: int
) -> list[Step]:
    """The steps for a part of a task.

    ``at``: the lines before it, of ``lines``; ``before``: the steps for these, whose beginnings the model is shown, so that later
    steps can depend on them; ``longest``: tokens of one step. Raises ChatError where the model gives no plan that can be
    taken, and as ``Window.ask`` does.
    """
    told = f"A part of the task ({TASK_FILE} from line {at + 1}, {len(part)} of {lines} lines):\n" + "\n".join(part)
    known = len(before)
    told += f"\n\n{known} steps are planned; yours begin with s{known + 1}. Call plan."
    if before:
        newest = "\n".join(f"{one.id}: {one.text.splitlines()[0][:_BEGINNING]}" for one in reversed(before))
        most = (window.budget.window - window.budget.reply) // 4
        told += f"\nThe steps before, the newest first:\n{clipped(newest, most, window.count)}"
    question = [Message(Role.SYSTEM, PLANNER.format(most=window.budget.steps)), Message(Role.USER, told)]
    messages = question
    for _ in range(window.budget.attempts):
        reply = window.ask(messages, (PLAN,))
        call = next((call for call in reply.calls if call.tool == PLAN.name), None)
        wrong = "call plan" if call is None else _unfit(call, known, longest, window.count)
        if call is not None and not wrong:
            return [Step(one["text"], tuple(one.get("depends_on", ()))) for one in call.arguments["steps"]]
        again = [*question, Message(Role.USER, f"error: {wrong}"[:400])]
        messages = again if window.left(again, (PLAN,)) >= 0 else question
    raise ChatError(f"the model gave no plan in {window.budget.attempts} attempts; resume the run, or give a program")


def _unfit(call: Call, known: int, longest: int, count: Callable[[str], int]) -> str:
    """Why a plan cannot be taken; "" where it can."""
    if wrong := misfits(dict(call.arguments), PLAN.parameters):
        return str(wrong[0])
    for number, step in enumerate(call.arguments["steps"], known + 1):
        if not step["text"].strip():
            return f"s{number} needs words"
        if count(step["text"]) > longest:
            return f"s{number} is longer than {longest} tokens; say less, or make it two"
        if other := set(step.get("depends_on", ())) - {f"s{n}" for n in range(1, number)}:
            return f"s{number} depends on {', '.join(sorted(other))}, which is no earlier step"
    return ""
