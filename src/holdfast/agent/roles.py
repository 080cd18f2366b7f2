"""A memory of an agent's own, in the shape of its role, kept from what it says itself (arXiv 2508.08997, Algorithm 1).

After each of its turns a model says what changes in the document (``patches``), not what it is to be as a whole. What fits neither
the schema nor the rules of its fields is asked for once more; then the memory stays as it was, and the output is kept verbatim, so
that nothing is lost. The document is a cube: each version is in the journal, with history, undo and forget, and a process that is
killed goes on with the last one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from holdfast.agent.patches import (
    Held,
    Mark,
    Policy,
    Share,
    check,
    fitted,
    from_data,
    patched,
    rewritten,
    shaped,
    to_data,
    written,
)
from holdfast.agent.reading import UnreadableError, read_object
from holdfast.agent.role_templates import Template
from holdfast.agent.role_text import ANSWER, UPDATE, Unprocessed, again, question, render, tokens, verbatim
from holdfast.chat import Chat, Message, Role, count_tokens
from holdfast.cube import HELD, RECALLABLE, Channel, Cube, Form, Origin, Ref, Status, taints
from holdfast.errors import ChatError, ConflictError, GuardError, InputError, NotFoundError
from holdfast.memory import Memory
from holdfast.store.base import Operation, Where
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.WORK_MULTI,),
    formation=(Formation.SUMMARY_INCREMENTAL,),
    evolution=(Evolution.UPDATE_EXTERNAL, Evolution.FORGET_BY_TIME),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.AGENT, Subject.TEAM),
)

KIND = "role"
"""The kind of the cubes."""

BUDGET = 800
"""Tokens of a memory, unless it is given others."""

UNPROCESSED = 3
"""So many outputs are kept verbatim of those that could not be worked in; the oldest goes first."""

_LONGEST = 2_000  # characters of one of these
_TRIES = 5  # where another process writes the same memory


@dataclass(frozen=True, slots=True)
class Updated:
    """What a turn did to a memory; an entry of the patch log.

    ``patch`` are the steps taken, ``dropped`` the pointers of what gave way to a limit. ``reason`` says why nothing was taken
    over; then ``applied`` is false. ``repaired``: the model was asked twice.
    """

    turn: int
    applied: bool
    patch: tuple[Mapping[str, Any], ...] = ()
    dropped: tuple[str, ...] = ()
    reason: str = ""
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class _State:
    """A version of the memory as read; ``cube`` is None before there is one."""

    cube: Cube | None
    held: Held
    unprocessed: tuple[Unprocessed, ...]
    turns: Mapping[str, int]  # the last one that was worked in, by whose output it was

    @property
    def turn(self) -> int:
        return max(self.turns.values(), default=0)

    def after(self, mark: Mark, held: Held | None = None, unprocessed: tuple[Unprocessed, ...] | None = None) -> _State:
        turns = {**self.turns, mark.agent: max(mark.turn, self.turns.get(mark.agent, 0))}
        aside = self.unprocessed if unprocessed is None else unprocessed
        return _State(self.cube, held or self.held, aside, turns)


class RoleMemory:
    """The memory of one agent's role, in a store.

    Args:
        memory: the store.
        agent: whose it is. A memory that a team shares has the team's name here.
        schema: the template, or the JSON Schema of an object.
        policies: what holds for fields, where ``schema`` is a JSON Schema.
        budget: tokens that the memory may have as text.
        task: what it is for: each task has a memory of its own. None: it is kept across tasks.
        scope: tenant and user, as ``Memory`` takes them.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        agent: str,
        schema: Template | Mapping[str, Any],
        policies: Mapping[str, Policy] | None = None,
        budget: int = BUDGET,
        task: str | None = None,
        **scope: str | None,
    ) -> None:
        if isinstance(schema, Template) and policies is not None:
            raise InputError("a template has its policies; give policies beside a JSON Schema only")
        if budget < 1:
            raise InputError(f"a memory needs a budget of tokens, not {budget}")
        self.agent, self.budget = agent, budget
        self.template = schema if isinstance(schema, Template) else Template(schema, policies or {})
        self._memory = memory
        self._whose = dict(scope)
        self._scope: dict[str, Any] = {**scope, "agent": agent, "session": task}
        self._here = memory.scope(**self._scope)
        self._id: str | None = None

    # --- read ---

    @property
    def held(self) -> Held:
        """The document with the mark of every leaf, as it is in the store now."""
        return self._load().held

    @property
    def document(self) -> Mapping[str, Any]:
        """The document alone."""
        return self.held.document

    @property
    def turn(self) -> int:
        """The last turn that was worked in; 0 before any."""
        return self._load().turn

    @property
    def taint(self) -> tuple[str, ...]:
        """The outside sources that ever had a part in it."""
        cube = self._load().cube
        return cube.origin.taint if cube is not None else ()

    @property
    def unprocessed(self) -> tuple[Unprocessed, ...]:
        """What could not be worked in, oldest first."""
        return self._load().unprocessed

    @property
    def id(self) -> str | None:
        """The cube's id, for ``Memory.history``, ``undo`` and ``forget``; None before there is one."""
        cube = self._load().cube
        return None if cube is None else cube.id

    @property
    def patch_log(self) -> tuple[Updated, ...]:
        """What every turn did, oldest first, read from the journal."""
        id = self.id
        versions = [] if id is None else self._memory.history(id, **self._scope)
        cubes = [change.cube for change in versions if change.cube and change.cube.status is not Status.QUARANTINED]
        log = [_logged(cube.data["log"]) for cube in cubes]
        return tuple(
            one for at, one in enumerate(log) if one not in log[:at]
        )  # an undo has the log of an earlier version

    def render(self, budget: int | None = None) -> str:
        """The memory as text within a budget of tokens, "" where it is empty.

        What could not be worked in stands behind the document as far as there is room, newest first. Where the budget is less than
        the memory's own, items that are not pinned are left out of the text, the oldest first; raises UnreadableError where what
        is pinned is more than that.
        """
        return self.told(budget)[0]

    def told(self, budget: int | None = None) -> tuple[str, tuple[str, ...]]:
        """As ``render``, with the ``taint`` of the same version."""
        state, most = self._load(), self.budget if budget is None else min(budget, self.budget)
        held, _ = fitted(state.held, self.template.policies, most, tokens)
        text = render(held)
        for one in reversed(state.unprocessed):
            more = "\n".join(filter(None, (text, verbatim(one))))
            if one.text and count_tokens(more) <= most:
                text = more
        return text, state.cube.origin.taint if state.cube is not None else ()

    # --- write ---

    def update(
        self,
        output: str,
        chat: Chat,
        *,
        by: str | None = None,
        turn: int | None = None,
        taint: Sequence[str] = (),
        sources: Sequence[Ref] = (),
    ) -> Updated:
        """Work an output into the memory: one call of the model, and one more where the first answer is of no use.

        ``by``: whose output it is, where not this agent's; then only fields that are ``Share.WRITE`` may change. ``turn``: the
        number of the turn; one that was worked in already changes nothing, so that a run that was killed may say it again.
        ``taint``, ``sources``: the outside sources and the memories that had a part in the output (``agent.turn``); what is from
        outside in the memory, which the model is shown, has a part in whatever it writes.
        What the guard holds back stands in history alone, and what it refuses nowhere.
        Raises InputError for an empty output, NotFoundError for a source that is not there, ConflictError where another process
        writes without a pause.
        """
        if not output.strip() or (turn is not None and turn < 1):
            raise InputError("a memory is updated with an output in words, of a turn from 1 on")
        state = self._load()
        # The model is shown the memory: what is from outside there may come back in other words at another place.
        read = (self._memory.get(ref.id, version=ref.version, **self._whose) for ref in sources)
        seen = taints(taint, state.held.taint, *(cube.origin.taint for cube in read))
        mark = Mark(turn or state.turn + 1, by or self.agent, seen, tuple(dict.fromkeys(sources)))
        if turn is not None and turn <= state.turns.get(mark.agent, 0):
            return _before(mark)
        asked = [
            Message(Role.SYSTEM, UPDATE),
            Message(
                Role.USER,
                question(self.template, state.held, output, mark, own=mark.agent == self.agent, budget=self.budget),
            ),
        ]
        why, repaired = "", False
        for attempt in range(2):
            repaired = attempt > 0
            try:
                reply = chat.reply(asked, schema=ANSWER)
            except ChatError as failure:
                why = f"there was no answer: {failure}"
                break
            try:
                answer = json.loads(read_object(reply.text, ANSWER))
                return self._work_in(state, answer, mark, repaired, once=turn is not None)
            except UnreadableError as wrong:
                why = str(wrong)
                asked += again(reply, wrong)
            except GuardError as refused:
                return self._set_aside("", mark, str(refused), repaired)
        return self._set_aside(output, mark, why, repaired)

    def patch(self, steps: Sequence[Mapping[str, Any]], *, by: str | None = None, taint: Sequence[str] = ()) -> Updated:
        """Change the memory by hand, under the same rules. Raises InputError where a step breaks one, GuardError, ConflictError."""
        state = self._load()
        mark = Mark(state.turn + 1, by or self.agent, taints(taint))
        try:
            answer = json.loads(read_object(json.dumps({"patch": list(steps)}), ANSWER))
            return self._work_in(state, answer, mark, repaired=False, once=False)
        except UnreadableError as wrong:
            raise InputError(f"the memory is as it was: {wrong}") from None

    # --- inside ---

    def _work_in(self, state: _State, answer: Mapping[str, Any], mark: Mark, repaired: bool, once: bool) -> Updated:
        for _ in range(_TRIES - 1):
            try:
                return self._worked_in(state, answer, mark, repaired)
            except ConflictError:  # another process wrote: the same change, of what is there now
                state = self._load()
                if mark.turn <= state.turns.get(mark.agent, 0):
                    if once:
                        return _before(mark)
                    mark = replace(mark, turn=state.turn + 1)
        return self._worked_in(state, answer, mark, repaired)

    def _worked_in(self, state: _State, answer: Mapping[str, Any], mark: Mark, repaired: bool) -> Updated:
        steps = answer.get("patch")
        if steps is None:
            after = rewritten(state.held, answer["document"], mark)
            steps = [
                {"op": "set", "path": f"/{name}", "value": after.document.get(name)}
                for name in sorted(written(state.held, after))
            ]
        else:
            after = patched(state.held, steps, mark)
        self._allowed(state.held, after, mark)
        read_object(json.dumps(after.document), self.template.schema)
        check(state.held, after, self.template.policies)
        after, dropped = fitted(after, self.template.policies, self.budget, tokens)
        done = Updated(mark.turn, True, tuple(steps), dropped, repaired=repaired)
        self._commit(state, state.after(mark, held=after), done, mark)
        return done

    def _allowed(self, before: Held, after: Held, mark: Mark) -> None:
        if mark.agent != self.agent:
            closed = written(before, after) - set(self.template.shared(Share.WRITE))
            if closed:
                raise UnreadableError(f"{mark.agent} may not write {', '.join(sorted(closed))}")

    def _set_aside(self, output: str, mark: Mark, why: str, repaired: bool) -> Updated:
        done, text = Updated(mark.turn, False, reason=why, repaired=repaired), output[:_LONGEST]
        for attempt in range(_TRIES):
            state = self._load()
            kept = (*state.unprocessed, Unprocessed(mark, text, why))[-UNPROCESSED:]
            try:
                self._commit(state, state.after(mark, unprocessed=kept), done, mark)
                break
            except GuardError:  # not even to be read again: the version that was held back has the words
                if not text:
                    raise
                text = ""
            except ConflictError:
                if attempt == _TRIES - 1:
                    raise
        return done

    def _commit(self, before: _State, after: _State, done: Updated, mark: Mark) -> None:
        """A new version of the cube. Raises GuardError where the guard holds it back; the version before stands then."""
        data = {
            "role": self.agent,
            **to_data(after.held),
            "unprocessed": [
                [one.mark.turn, one.mark.agent, list(one.mark.taint), one.text, one.reason] for one in after.unprocessed
            ],
            "turns": dict(after.turns),
            "log": [done.turn, done.applied, list(done.patch), list(done.dropped), done.reason, done.repaired],
        }
        lines = [render(after.held), *(verbatim(one) for one in after.unprocessed if one.text)]
        text = "\n".join(filter(None, lines)) or f"The working memory of {self.agent} is empty."
        old = before.cube
        if old is None:
            origin = Origin(Channel.DERIVED, author=self.agent, derived_from=mark.sources, taint=mark.taint)
            operation = Operation.add(Cube(self._here, text, kind=KIND, data=data, origin=origin), f"turn {done.turn}")
        else:
            refs = tuple(dict.fromkeys((*old.origin.derived_from, *mark.sources)))
            origin = replace(old.origin, derived_from=refs, taint=taints(old.origin.taint, mark.taint))
            operation = Operation.update(old.with_(text=text, data=data, origin=origin), f"turn {done.turn}")
        cubes = self._memory.apply([operation], actor=self._here.path)
        if not cubes:
            raise GuardError("the guard refused what the memory would say")
        if cubes[0].status is Status.QUARANTINED:
            self._back(cubes[0])
            raise GuardError("the guard holds back what the memory would say")
        self._id = cubes[0].id

    def _load(self) -> _State:
        cube = self._find()
        if cube is None:
            empty = self.template.empty
            return _State(None, Held(empty, shaped(empty, Mark(0, self.agent))), (), {})
        held = from_data(cube.data)
        unknown = set(held.document) - set(self.template.schema["properties"])
        if unknown:
            raise InputError(
                f"the memory of {self.agent} was kept by another template: it has {', '.join(sorted(unknown))}; open it with "
                "that one, or give it another task"
            )
        aside = tuple(
            Unprocessed(Mark(turn, agent, tuple(taint)), text, why)
            for turn, agent, taint, text, why in cube.data["unprocessed"]
        )
        return _State(cube, held, aside, cube.data["turns"])

    def _back(self, cube: Cube) -> None:
        """Take back a version in quarantine: it stays in history for a person to look at, and the one before goes on."""
        event = self._memory.history(cube.id, **self._scope)[-1].event
        self._memory.undo(event.seq, reason="the guard holds back what the memory would say", **self._scope)

    def _find(self) -> Cube | None:
        if self._id is not None:
            try:
                cube = self._memory.get(self._id, **self._scope)
                if cube.status in RECALLABLE:
                    return cube
            except NotFoundError:
                pass  # forgotten, here or by another process: there may be a new one
        first = self._first()
        if first is not None and first.status is Status.QUARANTINED:  # whoever wrote it died before it was taken back
            self._back(first)
            first = self._first()
        self._id = None if first is None else first.id
        return first

    def _first(self) -> Cube | None:
        where = Where(kinds=(KIND,), statuses=tuple(sorted(HELD)), author=self.agent)
        found = self._memory.select(where, **self._scope)
        return next((cube for cube in found if cube.scope == self._here), None)


def _before(mark: Mark) -> Updated:
    return Updated(mark.turn, False, reason=f"turn {mark.turn} was worked in before")


def _logged(entry: Sequence[Any]) -> Updated:
    turn, applied, patch, dropped, reason, repaired = entry
    return Updated(turn, applied, tuple(patch), tuple(dropped), reason, repaired)
