"""The ``Memory`` that mem0's users know, over ours: ``from holdfast.adapters.mem0 import Memory``.

Calls, errors and results have mem0 2's shapes (``{"results": [...]}``, ``filters`` with ``user_id``, ``agent_id``, ``run_id``).
What differs does so on purpose: no language model and no key are needed, nothing leaves the machine, a user is a wall that no
filter crosses, and what is deleted can be undone, or is erased with all that was made of it where ``erase`` is set.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from holdfast import memory as ours
from holdfast.cube import RECALLABLE, Cube, Kind, Scope
from holdfast.encode.near import named
from holdfast.encode.turns import to_cubes
from holdfast.errors import AccessError, HoldfastError, InputError, NotFoundError
from holdfast.guard.governor import Purpose
from holdfast.retrieve.context import without_recalled
from holdfast.store.access import HeldStore
from holdfast.store.base import Action, Operation, Where

TENANT = "mem0"
"""The tenant in which everything of this adapter lies, so that ``reset`` can reach nothing else."""

NOBODY = "-"
"""The user of what is added for an agent or a run alone."""

_IDS = ("user_id", "agent_id", "run_id")
_IDENTITY = {*_IDS, "actor_id"}
_UNSET: Any = object()
_RECALLED = Where(statuses=tuple(sorted(RECALLABLE)))


class Memory:
    """mem0's ``Memory``.

    Args:
        config: mem0's configuration, of which nothing is needed here; a path stands in ``{"holdfast": {"path": ...}}``.
        memory: a ``holdfast.Memory`` that is open already, instead of a path of one's own.
        path: the store's folder (default: $HOLDFAST_STORE, else ./memory.holdfast).
        erase: ``delete`` and ``delete_all`` forget for good; else memories go out of recall and stay in history.
        options: as ``holdfast.Memory`` takes them, for example ``embedder``.

    Raises AccessError for a memory in the hands of a principal.
    """

    def __init__(
        self,
        config: Any = None,
        *,
        memory: ours.Memory | None = None,
        path: str | Path | None = None,
        erase: bool = False,
        **options: Any,
    ) -> None:
        self.config = config
        settings = config.get("holdfast", {}) if isinstance(config, Mapping) else {}
        place = path or settings.get("path") or os.environ.get("HOLDFAST_STORE") or "memory.holdfast"
        self._closes = memory is None
        self._memory = ours.Memory(place, **options) if memory is None else memory
        if isinstance(self._memory.store, HeldStore):
            raise AccessError(
                "mem0's calls name a memory by its id alone, and only the store's owner can tell whose it is"
            )
        self._erase = erase

    @classmethod
    def from_config(cls, config_dict: dict[str, Any]) -> Self:
        """As mem0 is opened from a configuration."""
        return cls(config_dict)

    @property
    def holdfast(self) -> ours.Memory:
        """The memory beneath, for all that mem0 has no call for: ``undo``, ``as_of``, ``revoke``, ``verify``."""
        return self._memory

    # --- writing ---

    def add(
        self,
        messages: str | dict[str, Any] | list[dict[str, Any]],
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        timestamp: Any = None,
        expiration_date: Any = None,
        infer: bool = True,
        memory_type: str | None = None,
        prompt: str | None = None,  # noqa: ARG002  (there is no model to be told)
    ) -> dict[str, Any]:
        """Keep messages; with ``infer`` also the facts in them, which are drawn by rules.

        An ``event`` is ADD, NONE for what is known already, QUARANTINE for what waits for a person; what the guard refuses has
        none. Raises ValueError as mem0 does.
        """
        if memory_type is not None:
            raise InputError(
                "procedural memories are written by a language model; see Memory.take_in of Holdfast for such"
            )
        scope = _scope(_ids(user_id=user_id, agent_id=agent_id, run_id=run_id))
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        elif isinstance(messages, dict):
            messages = [messages]
        elif not isinstance(messages, list):
            raise InputError("messages must be str, dict, or list[dict]")
        some = [one for one in messages if isinstance(one, dict) and one.get("role") and one.get("content") is not None]
        said = {name: value for name, value in (metadata or {}).items() if name not in _IDENTITY}
        ends = _day(expiration_date)
        data = {"metadata": said, **({"expiration_date": ends} if ends else {})}
        kind = Kind.MESSAGE if infer else Kind.FACT  # facts are drawn from messages, whenever the queue is worked off
        cubes, _ = to_cubes(some, scope, kind=kind, at=timestamp, data=data, clean=without_recalled)
        cubes = [cube.with_(policy=replace(cube.policy, expires_at=_end(ends))) for cube in cubes]
        done = self._memory.add(cubes, **named(scope))
        results = [_event(self._get(scope, id), "ADD") for id in done.ids]
        results += [_event(self._get(scope, id), "NONE") for id in done.duplicates]
        results += [_event(self._get(scope, id), "QUARANTINE") for id in done.quarantined]
        if infer and done.ids:
            self._memory.flush()
            drawn = {ref.id for id in done.ids for ref in self._memory.lineage(id, **named(scope))}
            results += [_event(cube, "ADD") for cube in self._kept(scope) if cube.id in drawn]
        return {"results": results}

    def update(
        self,
        memory_id: str,
        text: str | None = None,
        metadata: dict[str, Any] | None = None,
        expiration_date: Any = _UNSET,
        data: str | None = None,
    ) -> dict[str, str]:
        """Other words, more metadata or another end for a memory; the version before stays in history."""
        text = text if text is not None else data
        if text is None and metadata is None and expiration_date is _UNSET:
            raise InputError("At least one of text, metadata, or expiration_date must be provided.")
        cube = self._found(memory_id)
        said = {name: value for name, value in (metadata or {}).items() if name not in _IDENTITY}
        held = {**cube.data, "metadata": {**cube.data.get("metadata", {}), **said}}
        policy = cube.policy
        if expiration_date is not _UNSET:
            held["expiration_date"] = _day(expiration_date)
            policy = replace(policy, expires_at=_end(held["expiration_date"]))
        after = cube.with_(text=cube.text if text is None else text, data=held, policy=policy)
        if not self._memory.apply([Operation.update(after)], actor=cube.scope.path, change=Purpose.EDIT):
            raise InputError(f"memory {memory_id} is as it was: the guard refuses these words")
        return {"message": "Memory updated successfully!"}

    def delete(self, memory_id: str) -> dict[str, str]:
        """Take one memory away. Raises ValueError where there is none."""
        self._drop(self._found(memory_id))
        return {"message": "Memory deleted successfully!"}

    def delete_all(
        self, user_id: str | None = None, agent_id: str | None = None, run_id: str | None = None
    ) -> dict[str, str]:
        """Take away all that these ids hold, and nothing else."""
        scope = _scope(_ids(user_id=user_id, agent_id=agent_id, run_id=run_id))
        if self._erase:
            self._memory.forget(everything=True, **named(scope))
        else:
            for cube in self._kept(scope, expired=True):
                self._drop(cube)
        return {"message": "Memories deleted successfully!"}

    def reset(self) -> None:
        """Erase everything that was ever added through this adapter, for good; the rest of the store is left alone."""
        for path in self._memory.store.partitions():
            scope = Scope.parse(path)
            if scope.tenant == TENANT:
                self._memory.forget(everything=True, **named(scope))

    # --- reading ---

    def get(self, memory_id: str) -> dict[str, Any] | None:
        """One memory; None where there is none."""
        try:
            return {**_item(self._found(memory_id)), "score": None}
        except InputError:
            return None

    def get_all(
        self,
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 20,
        show_expired: bool = False,
        **others: Any,
    ) -> dict[str, Any]:
        """The memories that pass a filter, ``top_k`` at most."""
        top_k = others.pop("limit", top_k)  # as mem0 called it before
        scope, passes = _filtered(filters, others, "get_all")
        _checked(top_k)
        found = [_item(cube) for cube in self._kept(scope, show_expired)]
        return {"results": [item for item in found if passes(item)][:top_k]}

    def search(
        self,
        query: str,
        *,
        top_k: int = 20,
        filters: dict[str, Any] | None = None,
        threshold: float = 0.1,
        rerank: bool = False,  # noqa: ARG002  (hits are ranked by all channels as it is)
        explain: bool = False,
        reference_date: Any = None,
        show_expired: bool = False,
        **others: Any,
    ) -> dict[str, Any]:
        """The memories that answer a query, best first. ``score`` is the chance, from 0 to 1, that one does.

        ``reference_date`` is the moment from which "last week" counts. ``explain`` adds the share of each channel.
        """
        top_k = others.pop("limit", top_k)
        scope, passes = _filtered(filters, others, "search")
        _checked(top_k, threshold)
        if not isinstance(query, str) or not query.strip():
            raise InputError("Invalid query: cannot be empty or whitespace-only.")
        kept = {cube.id for cube in self._kept(scope, show_expired)}
        results: list[dict[str, Any]] = []
        if not kept or not top_k:
            return {"results": results}
        for hit in self._memory.search(query, k=len(kept), now=reference_date, **named(scope)):
            item = {**_item(hit.cube), "score": hit.relevance}
            if hit.id in kept and hit.relevance >= (threshold or 0.0) and passes(item):
                results.append({**item, "score_details": dict(hit.channels)} if explain else item)
        return {"results": results[:top_k]}

    def history(self, memory_id: str) -> list[dict[str, Any]]:
        """Every change of a memory, oldest first; of what was erased, that it was."""
        told: list[dict[str, Any]] = []
        before: str | None = None
        scope = self._scope_of(memory_id)
        for change in self._memory.history(memory_id, **named(scope)) if scope is not None else ():
            event, cube = change.event, change.cube
            gone = event.action is Action.PURGE or (cube is not None and cube.status not in RECALLABLE)
            after = None if gone or cube is None else cube.text
            told.append(
                {
                    "id": f"{memory_id}:{event.seq}",
                    "memory_id": memory_id,
                    "old_memory": before,
                    "new_memory": after,
                    "event": "ADD" if event.action is Action.ADD else "DELETE" if gone else "UPDATE",
                    "created_at": told[0]["created_at"] if told else event.at.isoformat(),
                    "updated_at": event.at.isoformat(),
                    "is_deleted": gone,
                    "actor_id": None if cube is None else _actor(cube),
                    "role": None if cube is None else cube.data.get("role"),
                }
            )
            before = after
        return told

    def close(self) -> None:
        """Close the files, where they were opened here."""
        if self._closes:
            self._memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- inside ---

    def _get(self, scope: Scope, id: str) -> Cube:
        return self._memory.get(id, **named(scope))

    def _kept(self, scope: Scope, expired: bool = False) -> Iterator[Cube]:
        now = self._memory.store.now()
        for cube in self._memory.store.select(scope, _RECALLED):
            if expired or cube.policy.expires_at is None or now < cube.policy.expires_at:
                yield cube

    def _scope_of(self, id: str) -> Scope | None:
        """Where the memory with an id lies; None where there is none, or it is not of this adapter."""
        try:
            event = next(self._memory.store.events(0, id=id), None)
        except HoldfastError:
            return None
        scope = Scope.parse(event.partition) if event is not None else None
        return scope if scope is not None and scope.tenant == TENANT else None

    def _found(self, id: str) -> Cube:
        scope = self._scope_of(id)
        try:
            cube = self._get(scope, id) if scope is not None else None
        except NotFoundError:
            cube = None
        if cube is None or cube.status not in RECALLABLE:
            raise InputError(f"Memory with id {id} not found")
        return cube

    def _drop(self, cube: Cube) -> None:
        try:
            if self._erase:
                self._memory.forget(cube.id, **named(cube.scope))
            elif self._get(cube.scope, cube.id).status in RECALLABLE:  # it may have gone with what it was drawn from
                self._memory.retract(cube.id, reason="deleted", **named(cube.scope))
        except NotFoundError:  # by another program, this moment
            return


class AsyncMemory:
    """mem0's ``AsyncMemory``: the calls of ``Memory``, awaited."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._memory = Memory(*args, **options)

    @classmethod
    async def from_config(cls, config_dict: dict[str, Any]) -> Self:
        """As mem0 is opened from a configuration."""
        return cls(config_dict)

    @property
    def holdfast(self) -> ours.Memory:
        """See ``Memory.holdfast``."""
        return self._memory.holdfast

    async def add(self, *args: Any, **options: Any) -> dict[str, Any]:
        """See ``Memory.add``."""
        return await asyncio.to_thread(self._memory.add, *args, **options)

    async def update(self, *args: Any, **options: Any) -> dict[str, str]:
        """See ``Memory.update``."""
        return await asyncio.to_thread(self._memory.update, *args, **options)

    async def delete(self, memory_id: str) -> dict[str, str]:
        """See ``Memory.delete``."""
        return await asyncio.to_thread(self._memory.delete, memory_id)

    async def delete_all(self, *args: Any, **options: Any) -> dict[str, str]:
        """See ``Memory.delete_all``."""
        return await asyncio.to_thread(self._memory.delete_all, *args, **options)

    async def reset(self) -> None:
        """See ``Memory.reset``."""
        await asyncio.to_thread(self._memory.reset)

    async def get(self, memory_id: str) -> dict[str, Any] | None:
        """See ``Memory.get``."""
        return await asyncio.to_thread(self._memory.get, memory_id)

    async def get_all(self, **options: Any) -> dict[str, Any]:
        """See ``Memory.get_all``."""
        return await asyncio.to_thread(self._memory.get_all, **options)

    async def search(self, *args: Any, **options: Any) -> dict[str, Any]:
        """See ``Memory.search``."""
        return await asyncio.to_thread(self._memory.search, *args, **options)

    async def history(self, memory_id: str) -> list[dict[str, Any]]:
        """See ``Memory.history``."""
        return await asyncio.to_thread(self._memory.history, memory_id)

    def close(self) -> None:
        """See ``Memory.close``."""
        self._memory.close()


# --- whose ---


def _ids(**given: Any) -> dict[str, str]:
    ids: dict[str, str] = {}
    for name, value in given.items():
        if value is None:
            continue
        text = str(value).strip()
        if not text or any(character.isspace() for character in text):
            raise InputError(f"Invalid {name}: it cannot be empty or hold whitespace. Provide a valid identifier.")
        ids[name] = text
    if not ids:
        raise InputError("At least one of 'user_id', 'agent_id', or 'run_id' must be provided.")
    return ids


def _scope(ids: Mapping[str, str]) -> Scope:
    return Scope(TENANT, ids.get("user_id", NOBODY), ids.get("agent_id"), ids.get("run_id"))


def _checked(top_k: Any, threshold: Any = None) -> None:
    if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 0:
        raise InputError(f"Invalid top_k: {top_k!r}. Must be a non-negative integer.")
    if threshold is not None and (not isinstance(threshold, int | float) or not 0 <= threshold <= 1):
        raise InputError(f"Invalid threshold: {threshold!r}. Must be between 0 and 1 (inclusive).")


# --- filters ---

Passes = Callable[[Mapping[str, Any]], bool]


def _filtered(filters: Mapping[str, Any] | None, others: Mapping[str, Any], call: str) -> tuple[Scope, Passes]:
    """The scope that a filter names, and whether an item passes the rest of it."""
    beside = sorted(set(_IDS) & set(others))
    if beside:
        raise InputError(
            f"Top-level entity parameters {beside} are not supported in {call}(). Use filters={{'user_id': '...'}} instead."
        )
    if others:
        raise InputError(f"{call}() does not know {', '.join(sorted(others))}")
    wanted = dict(filters or {})
    while "AND" in wanted and not set(_IDS) & set(wanted):  # ids may stand within an AND, as the platform has them
        within = wanted.pop("AND")
        if not isinstance(within, list):
            raise InputError("AND operator requires a list of conditions")
        for one in within:
            if clash := set(one) & set(wanted):
                raise InputError(f"AND names {', '.join(sorted(clash))} twice; put one of them into an inner AND")
            wanted.update(one)
    ids = {name: wanted.pop(name) for name in _IDS if name in wanted}
    if any(isinstance(value, Mapping | list) or value == "*" for value in ids.values()):
        raise InputError("user_id, agent_id and run_id are each one id: a search crosses no user")
    try:
        scope = _scope(_ids(**ids))
    except InputError as error:
        raise InputError(f"{error} filters must contain at least one of: user_id, agent_id, run_id.") from error
    _holds({}, wanted)  # an unknown operator is told before there is anything to compare
    return scope, lambda item: _holds({**(item.get("metadata") or {}), **item}, wanted)


def _holds(item: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    results = []
    for name, condition in wanted.items():
        if name in ("AND", "OR", "NOT"):
            if (
                not isinstance(condition, list)
                or not all(isinstance(one, Mapping) for one in condition)
                or not condition
            ):
                raise InputError(f"{name} operator requires a non-empty list of conditions")
            some = [_holds(item, one) for one in condition]
            results.append(all(some) if name == "AND" else any(some) if name == "OR" else not any(some))
        elif isinstance(condition, Mapping):
            results.append(all([_compared(item.get(name), operator, value) for operator, value in condition.items()]))  # noqa: C419
        else:
            results.append(name in item if condition == "*" else item.get(name) == condition)
    return all(results)


_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": lambda one, two: bool(one == two),
    "ne": lambda one, two: bool(one != two),
    "in": lambda one, two: one in two,
    "nin": lambda one, two: one not in two,
    "gt": lambda one, two: bool(one > two),
    "gte": lambda one, two: bool(one >= two),
    "lt": lambda one, two: bool(one < two),
    "lte": lambda one, two: bool(one <= two),
    "contains": lambda one, two: two in one,
    "icontains": lambda one, two: str(two).lower() in str(one).lower(),
}


def _compared(value: Any, operator: str, other: Any) -> bool:
    compare = _OPERATORS.get(operator)
    if compare is None:
        raise InputError(f"Unsupported metadata filter operator: {operator}")
    if value is None and operator not in ("eq", "ne", "nin"):
        return False
    try:
        return compare(value, other)
    except TypeError:  # a word is neither above nor below a number
        return False


# --- as mem0 has it ---


def _item(cube: Cube) -> dict[str, Any]:
    told = {
        "id": cube.id,
        "memory": cube.text,
        "hash": hashlib.md5(cube.text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest(),
        "metadata": dict(cube.data.get("metadata") or {}) or None,
        "created_at": _made(cube),
        "updated_at": None if cube.recorded_at is None else cube.recorded_at.isoformat(),
        "user_id": None if cube.scope.user == NOBODY else cube.scope.user,
        "agent_id": cube.scope.agent,
        "run_id": cube.scope.session,
        "actor_id": _actor(cube),
        "role": cube.data.get("role"),
        "expiration_date": cube.data.get("expiration_date"),
    }
    kept = ("id", "memory", "hash", "metadata", "created_at", "updated_at")
    return {name: value for name, value in told.items() if name in kept or value is not None}


def _made(cube: Cube) -> str | None:
    """When it was first kept: its id tells (RFC 9562 §5.7), but for an import's, of which is told when it was learnt."""
    id = UUID(cube.id)
    made = datetime.fromtimestamp((id.int >> 80) / 1000, UTC) if id.version == 7 else cube.recorded_at
    return None if made is None else made.isoformat()


def _actor(cube: Cube) -> str | None:
    author = cube.origin.author
    return None if author == cube.data.get("role") else author


def _event(cube: Cube, event: str) -> dict[str, Any]:
    return {"id": cube.id, "memory": cube.text, "event": event, "actor_id": _actor(cube), "role": cube.data.get("role")}


def _day(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        return value.date().isoformat()
    if isinstance(value, date):
        return value.isoformat()
    try:
        return date.fromisoformat(value).isoformat()
    except (TypeError, ValueError) as error:
        raise InputError("expiration_date must be a valid date in YYYY-MM-DD format.") from error


def _end(day: str | None) -> datetime | None:
    """The first moment after a day: to its end a memory is there."""
    if day is None:
        return None
    try:
        return datetime.combine(date.fromisoformat(day), time(), UTC) + timedelta(days=1)
    except OverflowError:  # the last day that there is
        return datetime.max.replace(tzinfo=UTC)
