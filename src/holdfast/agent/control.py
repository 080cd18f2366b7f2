"""The control unit (L2MAC, arXiv 2310.02003, Algorithm 1): long work, one instruction at a time, each in a fresh small context.

The model is the processor. What lasts lies outside its window: the instructions in a registry, all output in files. After each
change the evaluators say what is wrong; an instruction is done when the model says so and they agree. A context that would overflow
is given up for a fresh one, with an account of the progress kept among the instruction's notes.

Every message is written down with what it did. A run that dies is opened again with the same ledger and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from holdfast.agent.acceptance import is_test, weakened
from holdfast.agent.context import Log, repeats, units, without_oldest
from holdfast.agent.evaluators import Evaluator
from holdfast.agent.files import FileStore
from holdfast.agent.filework import TASK_FILE, TOOLS, FileWork, clipped, listed
from holdfast.agent.ledger import Ledger
from holdfast.agent.planning import Step, first_part, planned
from holdfast.agent.registry import Instruction, InstructionRegistry, Stage
from holdfast.agent.window import Budget, Window
from holdfast.chat import Call, Chat, Message, Role, Tool, count_tokens
from holdfast.cube import Channel, Cube, Form, Ref
from holdfast.encode.schemas import misfits
from holdfast.errors import ConflictError, ContextOverflowError, InputError
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
_GO_ON = "Is the step done? Go on with the tools, or call step_complete."
_SUMMARY = (
    "The step is done. Summarise in one or two sentences what later steps must know: names, signatures, decisions."
)
_ACCOUNT = "Your context is full and will be cleared. Say in two sentences what of this step is done and what is left."
_PASSED = "complete: all checks pass"
_SPLIT = "split into"
_SMALLER = "the model's context is smaller than a window of {} tokens; give a budget with a smaller one"
_OPENING = 2  # messages
_LATER = "error: not done, there is no room for what it would say; call it again"


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
        self._ledger = ledger
        for held in ledger.cubes(TASK):
            ledger.source = Ref(held.id, 1)
        self._evaluators = tuple(evaluators)
        self._budget = budget or Budget()
        self._temperature = temperature
        self._count = count
        self._summaries = summaries
        self._recover = recover
        self._window = Window(chat, self._budget, temperature, count)
        self.files = FileStore(ledger, count=count)
        self.registry = InstructionRegistry(ledger)
        self._work = FileWork(self.files, cap=self._budget.read, count=count)
        self._room = self._window.left((), WORK)
        self._log = Log(ledger)
        self._judged: tuple[str, list[str]] = ("", [])
        self._kept: tuple[str, dict[str, str]] = ("", {})

    @property
    def failed(self) -> list[Instruction]:
        """The instructions that were given up; their summaries say why."""
        return [one for one in self.registry.instructions if one.status is Stage.FAILED]

    def run(self, task: str | None = None, program: Sequence[str] | None = None) -> FileStore:
        """Carry out a task to its end, or go on with the one that the ledger holds; the files.

        ``program``: its instructions, where the model shall not make them; a run that goes on needs none. Look at ``failed`` for
        what was given up. Raises InputError where there is no task, or a context cannot hold what a step needs, ConflictError
        where the ledger holds another task, and as the chat does: then the run can be resumed.
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
        if not held:
            with self._ledger.together():
                made = self._ledger.make(TASK, task or "", {"planned": 0}, channel=Channel.USER)
                self._ledger.source = Ref(
                    made.id, 1
                )  # its first version: what is planned changes, and the task does not
                self.files.write(TASK_FILE, made.text)
        self._log = Log(self._ledger)
        return self._ledger.cubes(TASK)[0]

    def _plan(self, task: Cube, program: Sequence[str] | None) -> None:
        """Plan the lines of the task that are not planned yet, a third of the window at a time."""
        lines = task.text.rstrip().split("\n")
        while (at := task.data["planned"]) < len(lines):
            if program is not None:
                part, steps = lines[at:], [Step(text) for text in program]
            else:
                before = self.registry.instructions
                part = first_part(lines[at:], (self._budget.window - self._budget.reply) // 3, self._count)
                steps = planned(self._window, part, at, len(lines), before, self._room // 4)
            with self._ledger.together():
                for step in steps:
                    self.registry.add(step.text, depends_on=step.depends_on)
                task = self._ledger.change(task, data={"planned": at + len(part)})

    # --- one instruction ---

    def _carry_out(self, step: Instruction) -> None:
        messages = self._log.messages(step) if step.attempts else self._begin(step)
        while (came_to := _came_to(messages)) != _PASSED:
            if came_to == _SPLIT:
                messages = self._begin(self.registry.get(step.id))  # it goes on as its first part
            step = self.registry.get(step.id)
            if step.turns >= self._budget.turns:
                self.registry.settle(step.id, f"given up after {self._budget.turns} turns", failed=True)
                return
            more = self._turn(step, messages) if self._window.left(messages, WORK) >= 0 else None
            if more is None and (not self._recover or step.attempts >= self._budget.attempts):
                self.registry.settle(step.id, "given up: its context overflowed", failed=True)
                return
            messages = self._afresh(step, messages) if more is None else more
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
        rest = self._room * 3 // 4 - self._count(SYSTEM) - self._count(step.text)
        if rest < self._room // 4:
            raise InputError(
                f"instruction {step.id} leaves no room in a window of {self._budget.window} tokens; split it"
            )
        task = self.files.text(TASK_FILE)
        before = self.registry.instructions
        before = before[: [one.id for one in before].index(step.id)]
        known = [one for one in before if one.summary and (one.id in step.depends_on or one is before[-1])]
        told = [
            f"Task ({TASK_FILE}, {len(task.splitlines())} lines): {clipped(task, rest * 15 // 100, self._count)}",
            f"Files: {listed(self.files.paths(), rest // 4, self._count)}",
            clipped("\n".join(f"{one.id} is done: {one.summary}" for one in reversed(known)), rest // 4, self._count),
            f"Step {step.id}: {step.text}",
            clipped("\n".join(f"So far: {note}" for note in step.notes[-1:]), rest // 4, self._count),
        ]
        return [Message(Role.SYSTEM, SYSTEM), Message(Role.USER, "\n\n".join(filter(None, told)))]

    def _turn(self, step: Instruction, messages: list[Message]) -> list[Message] | None:
        """One reply and all that it does, written down as one; None where the model says that its context is full."""
        try:
            reply = self._window.ask(messages, WORK, temperature=heat(messages, self._temperature))
        except ContextOverflowError as error:
            if len(messages) == _OPENING:
                raise InputError(_SMALLER.format(self._budget.window)) from error
            return None
        kept = self._tests(step)
        with self._ledger.together():
            new = [reply.message]
            for call in reply.calls:
                room = self._window.left([*messages, *new], WORK)
                cut = reply.cut and call is reply.calls[-1]
                fits = len(new) == 1 or room >= self._budget.read + self._budget.report
                text = self._answer(step, call, kept, cut) if fits else _LATER
                new.append(Message(Role.TOOL, text, answers=call.id))
            if not reply.calls:
                new.append(Message(Role.USER, _GO_ON))
            self.registry.turn(step.id)
            self._log.append(step, messages, new)
        return [*messages, *new]

    def _answer(self, step: Instruction, call: Call, kept: Mapping[str, str], cut: bool) -> str:
        if call.tool == COMPLETE.name:
            return self._report(weakened(kept, self.files.all()) + self._faults()) or _PASSED
        if call.tool == SPLIT.name:
            if wrong := misfits(dict(call.arguments), SPLIT.parameters):
                return f"error: {wrong[0]}"
            steps = call.arguments["steps"]
            if any(self._count(text) > self._room // 4 for text in steps):
                return f"error: a step has at most {self._room // 4} tokens"
            try:
                return f"{_SPLIT} {', '.join(one.id for one in self.registry.split(step.id, steps))}"
            except (InputError, ConflictError) as error:
                return f"error: {error}"
        done = self._work.perform(call, kept=kept, cut=cut)
        if not done.changed:
            return done.text
        return f"{done.text}\n{self._report(self._faults()) or 'checks pass'}"

    def _tests(self, step: Instruction) -> dict[str, str]:
        """The tests that were there when the step was first begun, and may not be weakened."""
        if step.may_change_tests:
            return {}
        if self._kept[0] != step.id:
            kept = {path: self.files.at(path, version) for path, version in self._log.tests(step).items()}
            self._kept = step.id, kept
        return self._kept[1]

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
        """An account in words of a conversation, its oldest turns left out as far as the window and the model demand."""
        asked, opening = Message(Role.USER, what), messages[:_OPENING]
        limit = self._budget.summary

        def fits(turns: Sequence[Message]) -> bool:
            return self._window.left([*opening, *turns, asked], (), limit) >= free

        turns = without_oldest(messages[_OPENING:], fits)
        while True:
            try:
                reply = self._window.ask([*opening, *turns, asked], limit=limit)
            except ContextOverflowError as error:
                if not turns:
                    raise InputError(_SMALLER.format(self._budget.window)) from error
                turns = [message for group in units(turns)[1:] for message in group]
            else:
                return clipped(reply.text.strip(), limit, self._count)


def _came_to(messages: Sequence[Message]) -> str:
    """What the last turn came to: ``_PASSED``, ``_SPLIT``, or "". Files may say anything, so only these tools' results count."""
    said, *results = units(messages)[-1]
    answered = [(call.tool, result.text) for call, result in zip(said.calls, results, strict=False)]
    if any(tool == SPLIT.name and text.startswith(_SPLIT) for tool, text in answered):
        return _SPLIT
    return _PASSED if answered and answered[-1] == (COMPLETE.name, _PASSED) else ""


def heat(messages: Sequence[Message], least: float) -> float:
    """The temperature of the next reply: 0.4 more (to 1) for each turn that ended in a circle, 0.1 less for each that did not."""
    found = least
    for at in range(len(messages)):
        if at == len(messages) - 1 or messages[at + 1].role is Role.ASSISTANT:
            found = min(1.0, found + 0.4) if repeats(messages[: at + 1]) else max(least, found - 0.1)
    return found
