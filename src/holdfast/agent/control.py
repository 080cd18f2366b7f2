"""The control unit (L2MAC, arXiv 2310.02003, Algorithm 1): long work, one instruction at a time, each in a fresh small context.

The model is the processor. What lasts lies outside its window: the instructions in a registry, all output in files. After each
change the evaluators say what is wrong; an instruction is done when the model says so and they agree. A context that would overflow
is given up for a fresh one, with an account of the progress kept among the instruction's notes.

Every message is written down with what it did. A run that dies is opened again with the same ledger and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.agent.acceptance import is_test, weakened
from holdfast.agent.base import Call, Chat, Message, Reply, Role, Tool
from holdfast.agent.context import Log, clipped_lines, cost, repeats, tools_cost, without_oldest
from holdfast.agent.evaluators import Evaluator, misfits
from holdfast.agent.files import FileStore
from holdfast.agent.filework import TASK_FILE, TOOLS, Done, FileWork, clipped
from holdfast.agent.ledger import Ledger
from holdfast.agent.registry import Instruction, InstructionRegistry, Stage
from holdfast.cube import Channel, Cube, Form, Ref
from holdfast.errors import ChatError, ConflictError, InputError
from holdfast.retrieve.context import count_tokens
from holdfast.taxonomy import Formation, Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.WORK_MULTI,),
    formation=(Formation.SUMMARY_PARTITIONED,),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.AGENT,),
)

TASK = "task"

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
COMPLETE = Tool("step_complete", "Say that the step is done.", {"type": "object", "properties": {}})
SPLIT = Tool(
    "split_step",
    "Split a step that is too large.",
    {
        "type": "object",
        "properties": {"steps": {"type": "array", "minItems": 2, "items": {"type": "string"}}},
        "required": ["steps"],
    },
)
WORK = (*TOOLS, COMPLETE, SPLIT)

SYSTEM = (
    "You carry out one step of a larger task. What shall last you write to files with the tools: this conversation will be "
    "forgotten. Write complete, working content with tests, and never ask the user. Tests that are there may not be weakened."
)
PLANNER = (
    "You plan a task that is carried out step by step, each step by somebody who sees only that step, the files and the "
    "summaries of the steps that it depends on. Steps are called s1, s2 and so on. Give at most {most} steps."
)
_GO_ON = "Is the step done? Go on with the tools, or call step_complete."
_AGAIN = "Your last reply could not be read. Reply again, with a tool call whose arguments are one JSON object."
_SUMMARY = (
    "The step is done. Summarise in one or two sentences what later steps must know: names, signatures, decisions."
)
_ACCOUNT = "Your context is full and will be cleared. Say in two sentences what of this step is done and what is left."
_PASSED = "complete: all checks pass"
_SPLIT = "split into"
_MOST_REFUSALS = 3


@dataclass(frozen=True, slots=True)
class Budget:
    """Bounds, in tokens but for the last three.

    Fields
        window: a context with the tools and the reply; never exceeded.
        reply: one reply. read: one result of a tool. report: what the evaluators say. summary: a summary or an account.
        free: what is freed, where there is as much, before an account is asked for.
        attempts: contexts of one instruction. turns: replies to one instruction. steps: asked for from each part of a task.
    """

    window: int = 8192
    reply: int = 1024
    read: int = 1500
    report: int = 500
    summary: int = 120
    free: int = 700
    attempts: int = 30
    turns: int = 120
    steps: int = 10

    def __post_init__(self) -> None:
        if min(self.reply, self.read, self.report, self.summary, self.attempts, self.turns, self.steps) < 1:
            raise InputError("every bound of a budget is at least 1")
        if self.window - self.reply < 2 * max(self.read, self.report):
            raise InputError("a window holds a reply and twice what one tool or the evaluators may say; make it larger")


class ControlUnit:
    """Carries out one task with one ledger.

    Args:
        chat: the model, or whatever answers in its place.
        ledger: where all is written down.
        evaluators: what must be satisfied before an instruction is done.
        budget: bounds on contexts and turns.
        temperature: of replies; raised by 0.4 where the conversation goes in circles, and lowered by 0.1 a turn after.
        count: counts tokens as the model does; the default estimates them.
        summaries: ask for one after each instruction, and for an account before a context is given up.
        recover: begin a fresh context where one would overflow; without it the instruction is given up.
    """

    files: FileStore
    registry: InstructionRegistry

    def __init__(
        self,
        chat: Chat,
        ledger: Ledger,
        *,
        evaluators: Sequence[Evaluator] = (),
        budget: Budget | None = None,
        temperature: float = 0.01,
        count: Callable[[str], int] = count_tokens,
        summaries: bool = True,
        recover: bool = True,
    ) -> None:
        self._chat = chat
        self._ledger = ledger
        self._log = Log(ledger)
        self._evaluators = tuple(evaluators)
        self._budget = budget or Budget()
        self._temperature = temperature
        self._count = count
        self._summaries = summaries
        self._recover = recover
        self._judged: tuple[str, list[str]] = ("", [])

    @property
    def failed(self) -> list[Instruction]:
        """The instructions that were given up; their summaries say why."""
        return [one for one in self.registry.instructions if one.status is Stage.FAILED]

    def run(self, task: str | None = None, program: Sequence[str] | None = None) -> FileStore:
        """Carry out a task to its end, or go on with the one that the ledger holds; the files.

        ``program``: its instructions, where the model shall not make them. Look at ``failed`` for what was given up. Whatever the
        chat raises ends the run, which can be resumed. Raises InputError where there is no task, or a context cannot hold
        what a step needs; ConflictError where the ledger holds another task; ChatError where replies cannot be read.
        """
        found = self._open(task)
        self._plan(found, program)
        while (step := self.registry.next()) is not None:
            self._carry_out(step)
        return self.files

    # --- the program ---

    def _open(self, task: str | None) -> Cube:
        held = self._ledger.cubes(TASK)
        if held and task is not None and held[0].text != task:
            raise ConflictError("this ledger holds another task; give a run of its own (another session) to each")
        if not held and (task is None or not task.strip()):
            raise InputError("there is no task to go on with; give one")
        with self._ledger.together():
            found = held[0] if held else self._ledger.make(TASK, task or "", {"planned": 0}, channel=Channel.USER)
            source = Ref(found.id, 1)
            self.files = FileStore(self._ledger, source=source, count=self._count)
            self.registry = InstructionRegistry(self._ledger, source=source)
            if not held:
                self.files.write(TASK_FILE, found.text)
        self._work = FileWork(self.files, cap=self._budget.read, count=self._count)
        return self._ledger.cubes(TASK)[0]

    def _plan(self, task: Cube, program: Sequence[str] | None) -> None:
        """A task longer than a third of the window is planned in parts, each in a context of its own."""
        if program is not None:
            parts = ["\n".join(program)]
        else:
            parts = clipped_lines(task.text, (self._budget.window - self._budget.reply) // 3, self._count)
        line = 1
        for number, part in enumerate(parts):
            if number >= task.data["planned"]:
                steps: Sequence[Mapping[str, Any]]
                steps = self._planned(part, line, number, len(parts)) if program is None else _steps(program)
                with self._ledger.together():
                    for step in steps:
                        self.registry.add(step["text"], depends_on=step.get("depends_on", ()))
                    task = self._ledger.change(task, data={"planned": number + 1})
            line += part.count("\n") + 1

    def _planned(self, part: str, line: int, number: int, parts: int) -> list[Mapping[str, Any]]:
        known = [one.id for one in self.registry.instructions]
        told = f"Part {number + 1} of {parts} of the task ({TASK_FILE} from line {line}):\n{part}\n\n"
        told += f"{len(known)} steps are planned; yours begin with s{len(known) + 1}. Call plan."
        messages = [
            Message(Role.SYSTEM, PLANNER.format(most=self._budget.steps)),
            Message(Role.USER, told),
        ]
        for _ in range(self._budget.attempts):
            reply = self._read(messages, (PLAN,))
            call = next((call for call in reply.calls if call.tool == PLAN.name), None)
            wrong = "call plan" if call is None else _unfit(call, known)
            if call is not None and not wrong:
                return list(call.arguments["steps"])
            messages = [*messages[:2], Message(Role.USER, f"error: {wrong}"[:400])]
        raise ChatError(
            f"the model gave no plan in {self._budget.attempts} attempts; resume the run, or give a program"
        )

    # --- one instruction ---

    def _carry_out(self, step: Instruction) -> None:
        messages = self._log.messages(step) if step.attempts else self._begin(step)
        while messages[-1].text != _PASSED or messages[-1].role is not Role.TOOL:
            if messages[-1].role is Role.TOOL and messages[-1].text.startswith(_SPLIT):
                messages = self._begin(self.registry.get(step.id))  # it goes on as its first part
            step = self.registry.get(step.id)
            if self._log.replies(step) >= self._budget.turns:
                self.registry.settle(step.id, f"given up after {self._budget.turns} turns", failed=True)
                return
            if not self._fits(messages, WORK, self._budget.reply):
                if not self._recover or step.attempts >= self._budget.attempts:
                    self.registry.settle(step.id, "given up: its context overflowed", failed=True)
                    return
                messages = self._afresh(step, messages)
                continue
            messages = self._turn(step, messages)
        summary = self._ask_for(_SUMMARY, messages) if self._summaries else ""
        self.registry.settle(step.id, summary)

    def _begin(self, step: Instruction, note: str = "") -> list[Message]:
        with self._ledger.together():
            if note:
                self.registry.note(step.id, note)
            step = self.registry.begin(step.id)
            opening = self._opening(step)
            tests = {path: self.files.version(path).version for path in self.files.paths() if is_test(path)}
            self._log.begin(step, opening, tests)
        return opening

    def _opening(self, step: Instruction) -> list[Message]:
        """What a fresh context holds: the task, what exists, what is known, the step. Raises InputError where it is too much."""
        room = self._budget.window - self._budget.reply - tools_cost(WORK, self._count)
        task = self.files.text(TASK_FILE)
        before = self.registry.instructions
        before = before[: [one.id for one in before].index(step.id)]
        known = [one for one in before if one.summary and (one.id in step.depends_on or one is before[-1])]
        told = [
            f"Task ({TASK_FILE}, {len(task.splitlines())} lines): {clipped(task, room // 10, self._count)}",
            f"Files: {clipped(', '.join(self.files.paths()), room // 6, self._count)}",
            clipped("\n".join(f"{one.id} is done: {one.summary}" for one in reversed(known)), room // 5, self._count),
            f"Step {step.id}: {step.text}",
            clipped("\n".join(f"So far: {note}" for note in step.notes[-1:]), room // 5, self._count),
        ]
        opening = [Message(Role.SYSTEM, SYSTEM), Message(Role.USER, "\n\n".join(filter(None, told)))]
        if sum(cost(message, self._count) for message in opening) > room * 3 // 4:
            raise InputError(
                f"instruction {step.id} leaves no room in a window of {self._budget.window} tokens; split it"
            )
        return opening

    def _turn(self, step: Instruction, messages: list[Message]) -> list[Message]:
        """One reply and all that it does, written down as one."""
        temperature = heat(messages, self._temperature)
        reply = self._read(messages, WORK, temperature)
        kept = self._kept(step)
        with self._ledger.together():
            new = [reply.message]
            for call in reply.calls:
                cut = reply.cut and call is reply.calls[-1]
                new.append(Message(Role.TOOL, self._answer(step, call, kept, cut), answers=call.id))
            if not reply.calls:
                new.append(Message(Role.USER, _GO_ON))
            self._log.append(step, messages, new)
        return [*messages, *new]

    def _answer(self, step: Instruction, call: Call, kept: Mapping[str, str], cut: bool) -> str:
        if call.tool == COMPLETE.name:
            return self._report(weakened(kept, self.files.all()) + self._faults()) or _PASSED
        if call.tool == SPLIT.name:
            if wrong := misfits(dict(call.arguments), SPLIT.parameters):
                return f"error: {wrong[0]}"
            try:
                return f"{_SPLIT} {', '.join(one.id for one in self.registry.split(step.id, call.arguments['steps']))}"
            except (InputError, ConflictError) as error:
                return f"error: {error}"
        done: Done = self._work.perform(call, kept=kept, cut=cut)
        if not done.changed:
            return done.text
        return f"{done.text}\n{self._report(self._faults()) or 'checks pass'}"

    def _kept(self, step: Instruction) -> dict[str, str]:
        if step.may_change_tests:
            return {}
        return {path: self.files.at(path, version) for path, version in self._log.tests(step).items()}

    def _faults(self) -> list[str]:
        digest = self.files.digest
        if self._judged[0] != digest:
            files = self.files.all()
            found = [str(finding) for one in self._evaluators for finding in one.evaluate(files)]
            self._judged = digest, found
        return self._judged[1]

    def _report(self, faults: list[str]) -> str:
        """The first faults that fit the bound, and how many more there are; "" for none."""
        told: list[str] = []
        left = self._budget.report - self._count(f"not done: {len(faults)} faults\nand {len(faults)} more")
        for fault in faults:
            left -= self._count(f"{fault}\n")
            if left < 0 and told:
                break
            told.append(clipped(fault, self._budget.report // 2, self._count))
        more = [f"and {len(faults) - len(told)} more"] if len(told) < len(faults) else []
        return "\n".join([f"not done: {len(faults)} faults", *told, *more]) if faults else ""

    # --- contexts ---

    def _afresh(self, step: Instruction, messages: list[Message]) -> list[Message]:
        account = self._ask_for(_ACCOUNT, messages, free=self._budget.free) if self._summaries else ""
        return self._begin(step, account)

    def _ask_for(self, what: str, messages: list[Message], *, free: int = 0) -> str:
        """An account in words of a conversation, its oldest turns left out as far as the window demands."""
        asked = Message(Role.USER, what)

        def fits(turns: Sequence[Message], spare: int) -> bool:
            return self._fits([*messages[:2], *turns, asked], (), self._budget.summary + spare)

        turns = without_oldest(messages[2:], lambda some: fits(some, free) or (fits(some, 0) and not some))
        reply = self._read([*messages[:2], *turns, asked], (), limit=self._budget.summary)
        return clipped(reply.text.strip(), self._budget.summary, self._count)

    def _fits(self, messages: Sequence[Message], tools: Sequence[Tool], reply: int) -> bool:
        used = sum(cost(message, self._count) for message in messages)
        return used + tools_cost(tools, self._count) + reply <= self._budget.window

    def _read(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        temperature: float | None = None,
        limit: int | None = None,
    ) -> Reply:
        """A reply; where it cannot be read the model is told so, up to twice. The window is never exceeded."""
        limit = limit or self._budget.reply
        asked = list(messages)
        for refusals in range(1, _MOST_REFUSALS + 1):
            assert self._fits(asked, tools, limit), "a context is about to exceed its window"
            try:
                return self._chat.reply(
                    asked,
                    tools=tools,
                    temperature=self._temperature if temperature is None else temperature,
                    limit=limit,
                )
            except ChatError:
                if refusals == _MOST_REFUSALS:
                    raise
                again = [*messages, *[Message(Role.USER, _AGAIN)] * refusals]
                asked = again if self._fits(again, tools, limit) else asked
        raise AssertionError("unreachable")


def heat(messages: Sequence[Message], least: float) -> float:
    """The temperature of the next reply: 0.4 more (to 1) for each turn that ended in a circle, 0.1 less for each that did not."""
    found = least
    for at in range(len(messages)):
        if at == len(messages) - 1 or messages[at + 1].role is Role.ASSISTANT:
            found = min(1.0, found + 0.4) if repeats(messages[: at + 1]) else max(least, found - 0.1)
    return found


def _steps(program: Sequence[str]) -> list[Mapping[str, Any]]:
    return [{"text": text} for text in program]


def _unfit(call: Call, known: Sequence[str]) -> str:
    """Why a plan cannot be taken; "" where it can."""
    if wrong := misfits(dict(call.arguments), PLAN.parameters):
        return wrong[0]
    names = list(known)
    for step in call.arguments["steps"]:
        if not step["text"].strip():
            return "a step needs words"
        if other := set(step.get("depends_on", ())) - set(names):
            return f"s{len(names) + 1} depends on {', '.join(sorted(other))}, which is no earlier step"
        names.append(f"s{len(names) + 1}")
    return ""
