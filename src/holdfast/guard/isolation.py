"""Working memory of one task in which raw results never reach the parent (AgentSys, arXiv 2602.07398).

What a tool gives is sealed and shown to a worker with a fresh context, which knows neither the task nor the history. What the
parent declared before the call, and nothing else, comes back; free text comes back as a handle. So an instruction in a result meets
nobody who decides, and it is gone when its worker is. Values can still be wrong: isolation gives no integrity of content, so a
command takes only arguments from where its rules allow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from holdfast.cube import EXTERNAL, Channel, Form, taints
from holdfast.errors import AnswerRefusedError, IsolationError, NotFoundError
from holdfast.guard.conform import ground, parse
from holdfast.guard.flow import UNAVAILABLE, Flows, Traces, Value, forbidden, shown, without_taint
from holdfast.guard.schema import Known, OpaqueRef, Schema
from holdfast.guard.workers import (
    Attempt,
    Sanitizer,
    Validator,
    Worker,
    as_text,
    cleaned,
    deny,
    drop_instructions,
    project,
)
from holdfast.taxonomy import Function, MemoryProfile, Modality, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.WORK_MULTI,),
    retrieval=(Retrieval.FILTER,),
    subject=(Subject.AGENT,),
    modality=(Modality.TEXT, Modality.ACTION),
)


class ToolClass(StrEnum):
    """What a tool does: a query only reads; a command writes, sends or runs something."""

    QUERY = "query"
    COMMAND = "command"


Tool = Callable[..., Any]
"""Called with the arguments by name. Gives a text, or plain dicts, lists and numbers."""


@dataclass(frozen=True, slots=True)
class IsolationPolicy:
    """The rules of one working memory.

    Fields
        classes: what each tool is; one that is not named here is a command.
        channels: the door that a tool's results come through; ``tool`` where it is not named. A channel that is not external
            (``cube.EXTERNAL``) taints nothing.
        known: addresses that may cross.
        flows: which taints may fill which argument (``flow.Flows``); None switches the data-flow policy off.
        validator: asked for each command of a worker; None lets workers do as they like, which is for measuring alone.
        sanitizer: what a result goes through before a worker is started again.
        depth: how many workers may stand below one another.
        restarts: how often a worker is started again after a denial or an answer that was refused.
        calls: how many tools all workers below one call of the parent may run.
        grounded: a short text or an id must stand in the result as a whole, so that it cannot be made of pieces of another.
        keep_raw: keep sealed results for audit until ``close``; else a result goes when its worker has returned.
    """

    classes: Mapping[str, ToolClass] = field(default_factory=dict)
    channels: Mapping[str, Channel] = field(default_factory=dict)
    known: Known = field(default_factory=Known)
    flows: Flows | None = field(default_factory=dict)
    validator: Validator | None = deny
    sanitizer: Sanitizer = drop_instructions
    depth: int = 3
    restarts: int = 2
    calls: int = 16
    grounded: bool = True
    keep_raw: bool = True

    def is_command(self, tool: str) -> bool:
        """Whether a tool acts; what is not known does."""
        return self.classes.get(tool, ToolClass.COMMAND) is ToolClass.COMMAND


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the parent's memory: what was called with what, and the value it came to.

    ``args`` hold values and handles as they were given; they are shown by their names.
    """

    call: str
    tool: str
    args: Mapping[str, Any]
    value: Value

    def __str__(self) -> str:
        args = ", ".join(f"{name}={shown(item)}" for name, item in self.args.items())
        return f"{self.call} {self.tool}({args}) → {shown(self.value.data)}"


@dataclass(frozen=True, slots=True)
class Event:
    """Something for the audit, in words of our own."""

    what: str
    call: str
    tool: str
    depth: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Segment:
    text: str
    taint: tuple[str, ...]


class WorkingMemory:
    """What one agent knows during one task: the task, its calls, and typed values.

    Args:
        task: the user's words; they are trusted.
        policy: the rules; by default no tainted argument reaches a command.
        tools: name to callable.
        worker: reads results; the mechanical ``project`` by default. A call may name another.
    """

    def __init__(
        self,
        task: str,
        policy: IsolationPolicy | None = None,
        *,
        tools: Mapping[str, Tool],
        worker: Worker = project,
    ) -> None:
        self.task = task
        self.policy = policy or IsolationPolicy()
        self._tools = dict(tools)
        self._worker = worker
        self._entries: list[Entry] = []
        self._events: list[Event] = []
        self._sealed: dict[str, _Segment] = {}
        self._traces = Traces(task)
        self._calls = 0

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The parent's memory, in order."""
        return tuple(self._entries)

    @property
    def events(self) -> tuple[Event, ...]:
        """What was run, refused, denied, started again and looked at."""
        return tuple(self._events)

    def text(self) -> str:
        """The parent's memory as a prompt holds it: the task, and one line a call."""
        return "\n".join([self.task, *map(str, self._entries)])

    def call(
        self, tool: str, args: Mapping[str, Any] | None = None, *, returns: Schema, worker: Worker | None = None
    ) -> Value:
        """Run a tool, have a worker read the result, and keep the declared value.

        ``args`` are plain values, earlier ``Value``s, or handles. A tool or a worker that fails gives a value that is not
        ``ok``, with the same words whatever happened. Raises IsolationError for an unknown tool, a handle that is not of this
        memory, or a command with an argument from where its rules do not allow; then nothing has been run.
        """
        args = args or {}
        if tool not in self._tools:
            raise IsolationError(
                f"there is no tool {tool!r} here; there are: {', '.join(sorted(self._tools)) or 'none'}"
            )
        taint_of = {name: self._taint(item) for name, item in args.items()}
        wrong = self._forbidden(tool, taint_of)
        if wrong is not None:
            argument, from_ = wrong
            self._note("flow refused", "", tool, 0, argument)
            raise IsolationError(
                f"{argument}= of {tool} must not come from {', '.join(from_)}; let a rule of the policy allow it, or have "
                "somebody endorse the value"
            )
        value = self._run(
            tool, args, returns, worker or self._worker, 0, _Budget(self.policy.calls), taints(*taint_of.values())
        )
        self._entries.append(Entry(value.call, tool, dict(args), value))
        self._traces.add(value.data, value.taint)
        return value

    def endorse(self, value: Value, reason: str) -> Value:
        """The value without taint: somebody has checked it against a second source, or the user has confirmed it.

        The reason is kept. Copies of its words that the parent writes are untainted from here on, too.
        """
        self._note("endorsed", value.call, "", 0, reason)
        self._traces.forget(value.data)
        return Value(value.data, value.schema, (), value.call, value.refusal)

    def raw(self, ref: str | OpaqueRef, *, reason: str) -> str:
        """A sealed text, for audit: the raw result of a call (``§3``) or a handle's. The reason is kept.

        What it returns is for people; put into a prompt, it undoes the isolation. Raises NotFoundError.
        """
        found = self._sealed.get(str(ref))
        if found is None:
            raise NotFoundError(f"nothing is sealed here as {ref}: it never was, or it has been dropped")
        self._note("audited", str(ref), "", 0, reason)
        return found.text

    def close(self) -> None:
        """Drop every sealed text. Typed values and events stay."""
        self._sealed.clear()

    # --- below the parent ---

    def _run(
        self,
        tool: str,
        args: Mapping[str, Any],
        returns: Schema,
        worker: Worker,
        depth: int,
        budget: _Budget,
        taint: tuple[str, ...],
    ) -> Value:
        self._calls += 1
        call = f"§{self._calls}"
        channel = self.policy.channels.get(tool, Channel.TOOL)
        taint = taints(taint, [f"{channel}:{tool}"] if channel in EXTERNAL else ())
        try:
            result = self._tools[tool](**{name: self._opened(item) for name, item in args.items()})
        except Exception as error:
            # What an error says may be the attacker's words: they are sealed like any result.
            self._note("failed", call, tool, depth)
            self._sealed[call] = _Segment(f"{type(error).__name__}: {error}", taint)
            return self._unavailable(returns, taint, call, "the tool failed")
        self._note("run", call, tool, depth)
        self._sealed[call] = _Segment(as_text(result), taint)
        value = self._read(tool, result, returns, worker, depth, budget, taint, call)
        if not self.policy.keep_raw:
            del self._sealed[call]
        return value

    def _read(
        self,
        tool: str,
        record: Any,
        returns: Schema,
        worker: Worker,
        depth: int,
        budget: _Budget,
        taint: tuple[str, ...],
        call: str,
    ) -> Value:
        refusal: str = ""
        for attempt in range(self.policy.restarts + 1):
            if attempt:
                record = cleaned(record, self.policy.sanitizer)
                self._note("started again", call, tool, depth)
            desk = _Desk(self, tool, returns, record, depth + 1, budget, taint, call, worker)
            try:
                answer = worker(desk)
            except _DeniedError:
                answer = ""
            finally:
                denied = desk.close()
            if denied:
                refusal = denied
                continue
            pending: list[str] = []

            def seal(text: str, pending: list[str] = pending) -> OpaqueRef:
                pending.append(text)
                return OpaqueRef(f"{call}.{len(pending)}")

            try:
                data = parse(answer, returns, known=self.policy.known, seal=seal)
                if self.policy.grounded:
                    ground(data, returns, record)
            except AnswerRefusedError as error:
                refusal = error.refusal
                self._note("refused", call, tool, depth, f"{error.where}: {refusal}" if error.where else refusal)
                continue
            self._sealed |= {f"{call}.{at}": _Segment(text, taint) for at, text in enumerate(pending, 1)}
            return Value(data, returns, taint, call)
        return self._unavailable(returns, taint, call, refusal)

    def _delegated(self, desk: _Desk, tool: str, args: Mapping[str, Any], returns: Schema) -> Value:
        """A call of a worker. Everything it writes is tainted by what it has read."""
        spent = "too deep" if desk.depth >= self.policy.depth else "" if desk.budget.take() else "no calls left"
        if spent or tool not in self._tools:
            self._note("refused", desk.source, "", desk.depth, spent or "unknown tool")
            return self._unavailable(returns, desk.taint, desk.source, spent or "unknown tool")
        taint_of = {name: taints(desk.taint, self._taint(item)) for name, item in args.items()}
        if self.policy.is_command(tool) and self.policy.validator is not None:
            opened = {name: without_taint(item) for name, item in args.items()}
            history = tuple((entry.tool, tuple(entry.args)) for entry in self._entries)
            if self.policy.validator(Attempt(self.task, history, desk.tool, tool, opened, desk.depth)) is not True:
                return desk.deny(tool, "denied by the validator")
        if self._forbidden(tool, taint_of) is not None:
            return desk.deny(tool, "denied by the data-flow policy")
        return self._run(tool, args, returns, desk.worker, desk.depth, desk.budget, taints(*taint_of.values()))

    def _forbidden(self, tool: str, taint_of: Mapping[str, tuple[str, ...]]) -> tuple[str, tuple[str, ...]] | None:
        if self.policy.flows is None:
            return None
        return forbidden(self.policy.flows, tool, taint_of, command=self.policy.is_command(tool))

    def _taint(self, item: Any) -> tuple[str, ...]:
        if isinstance(item, Value):
            return item.taint
        if isinstance(item, OpaqueRef):
            return self._segment(item).taint
        if isinstance(item, Mapping):
            return taints(*(self._taint(one) for one in item.values()))
        if isinstance(item, list | tuple):
            return taints(*(self._taint(one) for one in item))
        return self._traces.of(item)

    def _segment(self, ref: OpaqueRef) -> _Segment:
        found = self._sealed.get(ref.name)
        if found is None:
            raise IsolationError(f"the handle {ref} is not of this memory, or its text has been dropped")
        return found

    def _opened(self, item: Any) -> Any:
        """An argument as the tool gets it."""
        if isinstance(item, Value):
            return self._opened(item.data)
        if isinstance(item, OpaqueRef):
            return self._segment(item).text
        if isinstance(item, Mapping):
            return {name: self._opened(one) for name, one in item.items()}
        if isinstance(item, list | tuple):
            return [self._opened(one) for one in item]
        return item

    def _unavailable(self, schema: Schema, taint: tuple[str, ...], call: str, why: str) -> Value:
        return Value(dict(UNAVAILABLE), schema, taint, call, why)

    def _note(self, what: str, call: str, tool: str, depth: int, detail: str = "") -> None:
        self._events.append(Event(what, call, tool, depth, detail))


@dataclass
class _Budget:
    left: int

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0


class _DeniedError(Exception):
    """Ends a worker; one that catches it is ended all the same, for its desk is closed."""


class _Desk:
    """One worker's context. It is emptied when the worker returns."""

    def __init__(
        self,
        memory: WorkingMemory,
        tool: str,
        wanted: Schema,
        record: Any,
        depth: int,
        budget: _Budget,
        taint: tuple[str, ...],
        source: str,
        worker: Worker,
    ) -> None:
        self._memory: WorkingMemory | None = memory
        self.tool, self.wanted, self.depth, self.taint, self.source = tool, wanted, depth, taint, source
        self.record, self.raw = record, as_text(record)
        self.known, self.budget, self.worker = memory.policy.known, budget, worker
        self._denied = ""

    def call(self, tool: str, args: Mapping[str, Any] | None = None, *, returns: Schema) -> Value:
        if self._memory is None:
            raise IsolationError("this worker has ended: what it was given is gone, and it runs nothing more")
        return self._memory._delegated(self, tool, args or {}, returns)

    def deny(self, tool: str, why: str) -> Value:
        if self._memory is not None:
            self._memory._note("denied", self.source, tool, self.depth, why)
        self._denied = why
        self.close()
        raise _DeniedError

    def close(self) -> str:
        self._memory, self.record, self.raw = None, None, ""
        return self._denied
