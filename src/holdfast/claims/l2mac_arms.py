"""The arms of claim 8: the control unit, what is left of it without one of its parts, and the ways of working it is compared with.

All have the same model, window, limit of a reply and number of calls. The baselines' files live in a dict, and all that they write
is kept, also what has left their context.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.agent.acceptance import is_test
from holdfast.agent.context import cost, tools_cost, without_oldest
from holdfast.agent.control import ControlUnit
from holdfast.agent.evaluators import Evaluator, Finding, PythonSyntax, PythonTests
from holdfast.agent.filework import TASK_FILE, WRITE, clipped
from holdfast.agent.ledger import Ledger
from holdfast.agent.sandbox import Sandbox
from holdfast.agent.window import Budget
from holdfast.chat import Message, Role, count_tokens
from holdfast.claims.l2mac_model import CONDENSE, OUTPUT, REFLECT, REPLAN, WINDOW, Scribe, SpentError
from holdfast.cube import Scope
from holdfast.errors import ChatError
from holdfast.store.sqlite import SqliteStore

BUDGET = Budget(
    window=WINDOW + OUTPUT, reply=OUTPUT, read=400, report=200, summary=120, free=700, attempts=30, turns=40, steps=10
)
SCOPE = Scope("claims", "l2mac", "control", "run")
SYSTEM = "You write a program for a task, with tests. Write complete files with write_files. Never ask the user."
_TASK_SHARE = 0.55
"""Of a baseline's window that the task may take; the rest is for what was said since."""

Files = dict[str, str]
Arm = Callable[[str, Scribe, Sequence[Evaluator]], Files]


def evaluators(sandbox: Sandbox) -> tuple[Evaluator, ...]:
    """What judges a program here: syntax, and its own tests."""
    return PythonSyntax(), _Once(PythonTests(sandbox))


class _Once:
    """An evaluator that judges the same files once: arms go one way until they part, and a run that is resumed goes it again."""

    def __init__(self, judge: Evaluator) -> None:
        self._judge = judge
        self._known: dict[frozenset[tuple[str, str]], tuple[Finding, ...]] = {}

    def evaluate(self, files: Mapping[str, str]) -> list[Finding]:
        """See ``Evaluator``."""
        key = frozenset(files.items())
        if key not in self._known:
            self._known[key] = tuple(self._judge.evaluate(files))
        return list(self._known[key])


# --- ours ---


def ledger(folder: Path) -> tuple[SqliteStore, Ledger]:
    """A ledger in a store of its own; the store is the caller's to close."""
    store = SqliteStore(folder, durability="normal")
    return store, Ledger(store, SCOPE)


def controlled(**without: Any) -> Arm:
    """The control unit; ``without``: ``evaluators=()``, ``summaries=False``, ``recover=False``."""

    def arm(task: str, model: Scribe, judges: Sequence[Evaluator]) -> Files:
        with tempfile.TemporaryDirectory() as folder:
            store, book = ledger(Path(folder))
            try:
                unit = ControlUnit(model, book, **{"evaluators": judges, "budget": BUDGET, **without})
                with contextlib.suppress(SpentError):  # what is written is kept
                    unit.run(task)
                return {path: text for path, text in unit.files.all().items() if path != TASK_FILE}
            finally:
                store.close()

    return arm


def unsearched(**without: Any) -> Arm:
    """The control unit with a model that does not search: what is left are the tools of the paper, to list and to view files."""

    def arm(task: str, model: Scribe, judges: Sequence[Evaluator]) -> Files:
        model.searches = False
        return controlled(**without)(task, model, judges)

    return arm


# --- what it is compared with ---


def single_shot(task: str, model: Scribe, _judges: Sequence[Evaluator]) -> Files:
    """One reply to the task."""
    files: Files = {}
    _write(model, _opening(task), files)
    return files


def growing(task: str, model: Scribe, _judges: Sequence[Evaluator]) -> Files:
    """One conversation; of what does not fit, the task is kept and the oldest turns are left out."""
    files: Files = {}
    turns: list[Message] = []
    opening = _opening(task)
    while said := _write(model, [*opening, *turns], files):
        turns = _fitting(opening, [*turns, *said])
    return files


def rolling(task: str, model: Scribe, _judges: Sequence[Evaluator]) -> Files:
    """After each reply all that was done is condensed, and goes on as a summary."""
    files: Files = {}
    summary: list[Message] = []
    while said := _write(model, [*_opening(task), *summary], files):
        asked = [*_opening(task), *_fitting(_opening(task), [*summary, *said, _user(CONDENSE)])]
        told = _say(model, asked)
        if told is None:
            break
        summary = [_user(f"So far: {told}")]
    return files


def replanning(task: str, model: Scribe, judges: Sequence[Evaluator]) -> Files:
    """A plan is rewritten from the context at every turn and takes the place of all before it; tests are run after each reply."""
    files: Files = {}
    plan = _opening(task)[1:]
    seen: list[Message] = []
    system = _opening(task)[:1]
    while True:
        told = _say(model, [*system, *_fitting(system, [*plan, *seen, _user(REPLAN)])])
        if told is None:
            return files
        plan = [_user(told)]
        said = _write(model, [*system, *plan], files)
        if not said:
            return files
        seen = [*said, _user(_report(files, judges))]


def reflecting(task: str, model: Scribe, judges: Sequence[Evaluator]) -> Files:
    """A reply, its tests, a reflection on what failed, and all anew, until the tests pass; the best attempt is kept."""
    best: Files = {}
    fewest: float = float("inf")
    reflection: list[Message] = []
    while True:
        files: Files = {}
        said = _write(model, [*_opening(task), *reflection], files)
        if not said:
            return best
        report = _report(files, judges)
        faults = sum(len(judge.evaluate(files)) for judge in judges)
        if faults < fewest:
            best, fewest = files, faults
        told = (
            None
            if not faults
            else _say(model, [*_opening(task), *_fitting(_opening(task), [*said, _user(report), _user(REFLECT)])])
        )
        if told is None:
            return best
        reflection = [_user(told)]


ABLATIONS: dict[str, Arm] = {
    "without evaluators": controlled(evaluators=()),
    "without summaries": controlled(summaries=False),
    "without overflow recovery": controlled(recover=False),
}
BASELINES: dict[str, Arm] = {
    "single shot": single_shot,
    "growing context": growing,
    "rolling summary": rolling,
    "re-planner": replanning,
    "reflection and retry": reflecting,
}
OURS = "control unit"
UNSEARCHED: dict[str, Arm] = {
    "without search": unsearched(),
    "without search and summaries": unsearched(summaries=False),
}
ARMS: dict[str, Arm] = {OURS: controlled(), **BASELINES, **ABLATIONS, **UNSEARCHED}


def own_tests(files: Files, judges: Sequence[Evaluator]) -> tuple[int, int]:
    """How many tests a program has that pass, and how many in all."""
    total = sum(text.count("def test_") for path, text in files.items() if is_test(path))
    failed = {finding.where for finding in judges[1].evaluate(files)}
    return total - len(failed), total


def _opening(task: str) -> list[Message]:
    room = WINDOW - tools_cost((WRITE,), count_tokens)
    return [Message(Role.SYSTEM, SYSTEM), _user(clipped(task, int(room * _TASK_SHARE), count_tokens))]


def _fitting(opening: Sequence[Message], turns: Sequence[Message]) -> list[Message]:
    def fits(some: Sequence[Message]) -> bool:
        used = sum(cost(message, count_tokens) for message in (*opening, *some))
        return used + tools_cost((WRITE,), count_tokens) <= WINDOW

    return without_oldest(turns, fits)


def _user(text: str) -> Message:
    return Message(Role.USER, text)


def _say(model: Scribe, messages: Sequence[Message]) -> str | None:
    try:
        return model.reply(messages).text
    except SpentError:
        return None


def _write(model: Scribe, messages: list[Message], files: Files) -> list[Message]:
    """One reply and what it wrote; [] where the model has nothing more to do, or no calls are left."""
    again = messages
    while True:
        try:
            reply = model.reply(again, tools=(WRITE,))
        except SpentError:
            return []
        except ChatError:
            again = _fitted([*again, _user("Your last reply could not be read. Reply again.")])
            continue
        if not reply.calls:
            return []
        said = [reply.message]
        for call in reply.calls:
            wrote = [
                one
                for one in call.arguments.get("files", ())
                if isinstance(one, dict) and {"path", "text"} <= one.keys()
            ]
            if not reply.cut:
                files.update({one["path"]: one["text"] for one in wrote})
            result = "the reply was cut; nothing was written" if reply.cut else f"wrote {len(wrote)} files"
            said.append(Message(Role.TOOL, result, answers=call.id))
        return said


def _fitted(messages: list[Message]) -> list[Message]:
    return [*messages[:2], *_fitting(messages[:2], messages[2:])]


def _report(files: Files, judges: Sequence[Evaluator]) -> str:
    faults = [str(finding) for judge in judges for finding in judge.evaluate(files)]
    if not faults:
        return "checks pass"
    return clipped("\n".join([f"not done: {len(faults)} faults", *faults]), BUDGET.report, count_tokens)
