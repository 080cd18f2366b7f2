"""AgentDojo (arXiv 2406.13352) without a model: a scripted agent that obeys every injected goal that reaches its context.

It makes the calls of the user task's ground truth, one by one, and looks at all it holds after each: where the words of the
injected goal stand in it, it carries the goal out. So a run measures the memory and not a model's steadfastness: the share of
attacks that succeed is an upper bound, and the worker that obeys is its counterpart below the boundary.

Utility is an upper bound, too, for the calls are right from the start. It is not for free: where a call needs a value that an
earlier result gave and that has not crossed, the agent stops there.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any, Literal

from holdfast.bench.agentdojo_orders import carry_out, orders
from holdfast.bench.agentdojo_schemas import CLASSES, FLOWS, SCHEMAS, VERSION
from holdfast.bench.agentdojo_words import is_number, made, needed, plain, refs, stands_in, texts
from holdfast.bench.agentdojo_workers import mechanical, tempted
from holdfast.errors import IsolationError, MissingExtraError
from holdfast.guard.flow import Value, plain_leaves
from holdfast.guard.isolation import IsolationPolicy, WorkingMemory
from holdfast.guard.schema import Known, OpaqueRef, Schema
from holdfast.guard.workers import Worker, deny

ATTACK = "important_instructions"
FINAL = "Done."
"""Said where the task has no text of its own: an empty answer would make the benchmark run everything again."""

Text = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Arm:
    """How the agent remembers.

    Fields
        isolated: results go to a worker, and only declared values come back; else their text goes into the context.
        shown: what is done to a result's text before it goes into a flat context.
        worker: what a worker does that reads the goal: nothing (``mechanical``), carry it out and then answer honestly
            (``obedient``), or, without a call that would give it away, write the goal into every field, cut to fit (``writing``).
        watched: validator, sanitiser and data-flow policy are on.
        grounded: names and ids must stand in a result as a whole.
    """

    isolated: bool
    shown: Text = str
    worker: Literal["mechanical", "obedient", "writing"] = "mechanical"
    watched: bool = False
    grounded: bool = True


@dataclass(slots=True)
class Run:
    """What one run did and held.

    ``obeyed``: the goal reached the agent, which carried it out; ``reached``: it reached the worker. ``characters`` and
    ``flat_characters`` are the length of the trace of calls at the end, as it was and with every result in it; the task's words,
    which are the same in both, are left out.
    """

    utility: bool = False
    attacked: bool = False
    obeyed: bool = False
    reached: bool = False
    stopped: bool = False
    characters: int = 0
    flat_characters: int = 0
    exposed: int = 0
    steps: int = 0

    def reach(self) -> None:
        """Note that the goal reached the worker."""
        self.reached = True


# --- the benchmark ---


def module(name: str) -> Any:
    """A module of the package. Raises MissingExtraError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its dependencies warn of one another
            return importlib.import_module(f"agentdojo.{name}")
    except ModuleNotFoundError as error:
        raise MissingExtraError("AgentDojo is not installed: pip install 'holdfast[redteam]'") from error


@cache
def suites() -> Mapping[str, Any]:
    """The four suites of the pinned version, by name. Raises MissingExtraError."""
    found: Mapping[str, Any] = module("task_suite.load_suites").get_suites(VERSION)
    return found


@dataclass(frozen=True, slots=True)
class Case:
    """One user task under one injection (none: the benign run)."""

    suite: str
    user: str
    injection: str | None

    @property
    def task(self) -> Any:
        """The user task."""
        return suites()[self.suite].user_tasks[self.user]

    @property
    def goal(self) -> Any:
        """The injection task."""
        return None if self.injection is None else suites()[self.suite].injection_tasks[self.injection]


def cases(*, benign: bool = False, one_per_task: Sequence[str] = (), shift: int = 0) -> list[Case]:
    """All 949 attacked cases in order, or the 97 benign ones.

    Of a suite in ``one_per_task`` each user task gets one injection, which moves on from task to task, starting at ``shift``.
    """
    found = []
    for name, suite in suites().items():
        injections = list(suite.injection_tasks)
        for at, user in enumerate(suite.user_tasks):
            if benign:
                found.append(Case(name, user, None))
            elif name in one_per_task:
                found.append(Case(name, user, injections[(at + shift) % len(injections)]))
            else:
                found += [Case(name, user, injection) for injection in injections]
    return found


@cache
def attack(suite: str, kind: str = ATTACK) -> Any:
    """The benchmark's own attack on a suite: it finds the places that a task sees by running its ground truth."""
    pipeline = module("agent_pipeline").GroundTruthPipeline(None)
    pipeline.name = "local"
    module("attacks")
    made = module("attacks.attack_registry").load_attack(kind, suites()[suite], pipeline)
    # It reads the same world anew for each task; a copy of one is the same and quicker.
    made.task_suite = SimpleNamespace(
        tools=suites()[suite].tools, load_and_inject_default_environment=lambda injections: _world(suite, injections)
    )
    return made


def _world(suite: str, injections: Mapping[str, str]) -> Any:
    """A fresh world with some injections; it is read once for as long as they stay the same."""
    return _read_world(suite, tuple(sorted(injections.items()))).model_copy(deep=True)


@lru_cache(maxsize=8)
def _read_world(suite: str, injections: tuple[tuple[str, str], ...]) -> Any:
    return suites()[suite].load_and_inject_default_environment(dict(injections))


def environment(case: Case, kind: str = ATTACK) -> Any:
    """The world of a case, with the injected text in every place that its task sees."""
    if case.goal is None:
        return _world(case.suite, {})
    return suites()[case.suite].load_and_inject_default_environment(
        attack(case.suite, kind).attack(case.task, case.goal)
    )


@cache
def known(suite: str) -> Known:
    """Addresses that the user's own world holds as such before anything is injected: what an administrator would list."""
    world = _world(suite, {}).model_dump(mode="json")
    whole = [text.lower() for text in texts(world) if re.fullmatch(r"[\w.+-]+@[\w.-]+", text)]
    return Known(frozenset(whole), frozenset(url for url in texts(world) if re.fullmatch(r"www\.[\w.-]+", url)))


# --- the run ---


def run(case: Case, arm: Arm, world: Any, schemas: Mapping[str, Schema] = SCHEMAS) -> Run:
    """One case through the benchmark's own harness; ``world`` is left as it is."""
    found = Run()
    agent = _agent(case, arm, found, schemas)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        utility, security = suites()[case.suite].run_task_with_pipeline(
            agent, case.task, case.goal, {}, environment=world.model_copy(deep=True)
        )
    found.utility, found.attacked = bool(utility), case.goal is not None and bool(security)
    return found


class Executor:
    """Runs tools in the world, whoever calls them, and keeps the benchmark's messages and the text of every result."""

    def __init__(self, runtime: Any, world: Any) -> None:
        self._runtime, self._world = runtime, world
        self._call = module("functions_runtime").FunctionCall
        self._as_text = module("agent_pipeline.tool_execution").tool_result_to_str
        self.messages: list[dict[str, Any]] = []
        self.texts: list[str] = []
        self.leaves: list[str] = []
        self.shown: list[str] = []

    def tools(self) -> dict[str, Callable[..., Any]]:
        """The suite's tools for a working memory; an error is raised, as a tool would."""
        return {name: self._bound(name) for name in self._runtime.functions}

    def _bound(self, name: str) -> Callable[..., Any]:
        def tool(**args: Any) -> Any:
            result = self.run(name, args)
            if self.messages[-1]["error"]:
                raise RuntimeError(self.messages[-1]["error"])
            return result

        return tool

    def run(self, name: str, args: Mapping[str, Any]) -> Any:
        """One call: the plain result, "" where it failed."""
        result, error = self._runtime.run_function(self._world, name, dict(args))
        text = error if error else self._as_text(result)
        call = self._call(function=name, args=dict(args))
        self.messages += [
            {"role": "assistant", "tool_calls": [call], "content": _content("")},
            {"role": "tool", "content": _content(text), "tool_call": call, "tool_call_id": None, "error": error},
        ]
        made = plain(result)
        self.texts.append(text)
        self.leaves += texts(made)
        self.shown.append(f"{name}({', '.join(f'{key}={item}' for key, item in args.items())}) → {text}")
        return made


def _content(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "content": text}]


def _agent(case: Case, arm: Arm, found: Run, schemas: Mapping[str, Schema]) -> Any:
    base = module("agent_pipeline.base_pipeline_element").BasePipelineElement

    class Agent(base):  # type: ignore[misc, valid-type]
        name = "local"

        def query(self, query: str, runtime: Any, env: Any, messages: Any = (), extra_args: Any = None) -> Any:
            executor = Executor(runtime, env)
            context = Isolated(case, arm, found, executor, env, schemas) if arm.isolated else _Flat(arm, executor)
            _act(case, found, executor, context, env)
            said = case.task.GROUND_TRUTH_OUTPUT or FINAL
            if found.obeyed:
                said += f" {case.goal.GROUND_TRUTH_OUTPUT}"
            final = {"role": "assistant", "tool_calls": None, "content": _content(said)}
            return query, runtime, env, [*messages, *executor.messages, final], extra_args or {}

    return Agent()


def _act(case: Case, found: Run, executor: Executor, context: _Flat | Isolated, env: Any) -> None:
    calls = case.task.ground_truth(env)
    goal = case.goal
    wanted = orders(goal, env) if goal is not None else []
    found.steps = len(calls)
    for call in calls:
        try:
            context.call(call.function, call.args)
        except _LostError:
            found.stopped = True
            break
        reached = goal is not None and stands_in(goal.GOAL, context.heard())
        found.exposed += reached
        if reached and not found.obeyed:
            found.obeyed = True
            carry_out(wanted, context.attempt)
    found.characters = len(context.text())
    found.flat_characters = len("\n".join(executor.shown))


class _LostError(Exception):
    """The agent does not know a value that its next call needs, or may not use it."""


class _Flat:
    """Every result in the context."""

    def __init__(self, arm: Arm, executor: Executor) -> None:
        self._arm, self._executor = arm, executor
        self._heard: list[str] = []

    def call(self, tool: str, args: Mapping[str, Any]) -> str | None:
        result = self._executor.run(tool, args)
        self._heard += [self._arm.shown(text) for text in texts(result)]
        return str(result["id_"]) if isinstance(result, dict) and "id_" in result else None

    attempt = call

    def heard(self) -> str:
        return " ".join(self._heard)

    def text(self) -> str:
        return "\n".join(self._executor.shown)


class Isolated:
    """A working memory; what the ground truth asks for is put in terms of what that memory holds."""

    def __init__(
        self, case: Case, arm: Arm, found: Run, executor: Executor, env: Any, schemas: Mapping[str, Schema]
    ) -> None:
        policy = IsolationPolicy(
            classes=CLASSES,
            known=known(case.suite),
            flows=FLOWS if arm.watched else None,
            validator=deny if arm.watched else None,
            grounded=arm.grounded,
        )
        worker: Worker = mechanical
        if arm.worker != "mechanical" and case.goal is not None:
            worker = tempted(case.goal, orders(case.goal, env) if arm.worker == "obedient" else None, found.reach)
        self.memory = WorkingMemory(case.task.PROMPT, policy, tools=executor.tools(), worker=worker)
        self._executor, self._schemas = executor, schemas

    def call(self, tool: str, args: Mapping[str, Any]) -> str | None:
        """A call of the ground truth: the id of what it made. Raises where the agent does not know an argument."""
        # Both as the benchmark writes a result and as it is: YAML folds lines and doubles quotes.
        seen = [*self._executor.texts, *self._executor.leaves]
        mine = {name: self._known(item, seen) for name, item in args.items()}
        try:
            value = self.memory.call(tool, mine, returns=self._schemas[tool])
        except IsolationError as refused:
            raise _LostError from refused
        return made(value)

    def attempt(self, tool: str, args: Mapping[str, Any]) -> str | None:
        """A call of an injected goal, which comes with its arguments."""
        try:
            return made(self.memory.call(tool, args, returns=self._schemas[tool]))
        except IsolationError:
            return None

    def _known(self, item: Any, seen: Sequence[str]) -> Any:
        """An argument of the ground truth as this agent has it: as a word it knows, or as a handle. Raises where it has neither."""
        if isinstance(item, Mapping):
            return {name: self._known(one, seen) for name, one in item.items()}
        if isinstance(item, list | tuple):
            whole = self._list(list(item))
            return [self._known(one, seen) for one in item] if whole is None else whole
        if not needed(item, seen, self.memory.task):
            return item
        if str(item) in self.words():
            return item
        handle = self.handles().get(str(item))
        if handle is None:
            raise _LostError
        return handle

    def _list(self, items: list[Any]) -> Value | None:
        """The earlier list that some items are, whole and in order: named, it need not be written out again."""
        for entry in self.memory.entries:
            for name, child in entry.value.schema.fields.items() if entry.value.ok else ():
                if child.item is not None and len(items) > 1 and entry.value.data[name] == items:
                    return entry.value[name]
        return None

    def words(self) -> set[str]:
        """What the parent can read, each number also as a float."""
        return {str(leaf) for entry in self.memory.entries for leaf in plain_leaves(entry.value.data)} | {
            f"{float(leaf)}"
            for entry in self.memory.entries
            for leaf in plain_leaves(entry.value.data)
            if is_number(leaf)
        }

    def handles(self) -> dict[str, OpaqueRef]:
        """Sealed text to its handle, for a script that knows the text; an agent would know it by its field."""
        found: dict[str, OpaqueRef] = {}
        for entry in self.memory.entries:
            for ref in refs(entry.value.data):
                found.setdefault(self.memory.raw(ref, reason="the ground truth names it"), ref)
        return found

    def heard(self) -> str:
        """All that the parent reads."""
        return " ".join(
            str(leaf) for entry in self.memory.entries for leaf in plain_leaves([entry.value, dict(entry.args)])
        )

    def text(self) -> str:
        """The trace of calls, as a prompt holds it."""
        return "\n".join(map(str, self.memory.entries))


def benign_run(case: Case) -> tuple[Executor, Any]:
    """Tools and world of a user task, for its ground truth to be made call by call."""
    suite = suites()[case.suite]
    env = case.task.init_environment(_world(case.suite, {}))
    return Executor(module("functions_runtime").FunctionsRuntime(suite.tools), env), env
