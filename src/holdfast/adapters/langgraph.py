"""LangGraph's store over a memory: ``graph.compile(store=HoldfastStore(memory, user="ana"))``.

An item is a memory of the kind ``item``: its value is the data, the strings in it are what a search finds, its namespace and key
are the name (``named``). Every ``put`` is a version, so history, undo, as-of and ``forget`` work on what a graph keeps.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from holdfast.adapters.named import Named, joined
from holdfast.cube import Channel, Cube, Scope
from holdfast.encode.near import named
from holdfast.errors import InputError, MissingExtraError
from holdfast.guard.flow import plain_leaves
from holdfast.memory import Memory

try:
    from langgraph.store.base import (
        BaseStore,
        GetOp,
        Item,
        ListNamespacesOp,
        MatchCondition,
        Op,
        PutOp,
        Result,
        SearchItem,
        SearchOp,
        TTLConfig,
        get_text_at_path,
        tokenize_path,
    )
except ImportError as error:
    raise MissingExtraError("this needs LangGraph: pip install langgraph") from error

ITEM = "item"
FRESH = 0.9
"""A lifetime of which so much is left is not begun again by a read: each new beginning is a version."""

Namespace = tuple[str, ...]


class HoldfastStore(BaseStore):
    """A ``BaseStore`` in one scope of a memory.

    Args:
        memory: where items are kept.
        index: the paths of a value whose strings are searched, as LangGraph writes them; all strings by default.
        ttl: LangGraph's own configuration; expired items are not returned, and are swept by ``holdfast`` as all that expires.
        channel: whose word a graph's items are: by default its agent's.
        user_at: which label of a namespace names the user, as in ``("memories", "ana")``: 1. The wall between users is the
            store's then, and a search or listing must name one. By default all lie with the memory's own user.
        erase: what is deleted is forgotten for good; else it goes out of recall and stays in history.
        scope: tenant, user, agent, session, as ``Memory`` takes them.

    Raises ScopeError where no user is named; items raise GuardError and what ``Memory.apply`` raises.
    """

    supports_ttl = True

    def __init__(
        self,
        memory: Memory,
        *,
        index: Sequence[str] = ("$",),
        ttl: TTLConfig | None = None,
        channel: Channel | str = Channel.ASSISTANT,
        user_at: int | None = None,
        erase: bool = False,
        **scope: str | None,
    ) -> None:
        self._memory, self._index, self._user_at = memory, list(index), user_at
        self._named = Named(memory, ITEM, channel, erase=erase)
        self.ttl_config = ttl
        self._options = scope
        if user_at is None:
            memory.scope(**scope)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """All reads, as things stood before, then all writes; of two writes of one key the last."""
        results: list[Result] = []
        puts: dict[tuple[Namespace, str], PutOp] = {}
        for op in ops:
            found: Result = None
            if isinstance(op, GetOp):
                found = self._get(op)
            elif isinstance(op, SearchOp):
                found = self._search(op)
            elif isinstance(op, ListNamespacesOp):
                found = self._namespaces(op)
            elif isinstance(op, PutOp):
                puts[op.namespace, op.key] = op
            else:
                raise InputError(f"a store does not know the operation {type(op).__name__}")
            results.append(found)
        for op in puts.values():
            self._put(op)
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """See ``batch``."""
        return await asyncio.to_thread(self.batch, list(ops))

    # --- inside ---

    def _scope(self, namespace: Namespace) -> Scope:
        if self._user_at is None:
            return self._memory.scope(**self._options)
        if len(namespace) <= self._user_at or namespace[self._user_at] == "*":
            raise InputError(
                f"whose items? This store's namespaces name the user at {self._user_at}: not {namespace!r}"
            )
        return self._memory.scope(**{**self._options, "user": namespace[self._user_at]})

    def _get(self, op: GetOp) -> Item | None:
        scope = self._scope(op.namespace)
        cube = self._named.get(scope, _name(op.namespace, op.key))
        if cube is None or self._gone(cube):
            return None
        if op.refresh_ttl:
            self._refresh(cube)
        return Item(**_told(cube))

    def _put(self, op: PutOp) -> None:
        scope, name = self._scope(op.namespace), _name(op.namespace, op.key)
        if op.value is None:
            self._named.drop(scope, name)
            return
        value = dict(op.value)
        text = "" if op.index is False else "\n".join(self._texts(value, op.index or self._index))
        data = {
            "value": value,
            "namespace": list(op.namespace),
            "key": op.key,
            "searched": bool(text.strip()),
            "minutes": op.ttl,
        }
        text = text if text.strip() else op.key or "-"
        now = self._memory.store.now()
        ends = None if op.ttl is None else now + timedelta(minutes=op.ttl)

        def make(before: Cube | None) -> Cube:
            if before is None:
                made = self._named.new(scope, name, text, data={**data, "since": now.isoformat()})
            else:
                since = now.isoformat() if self._gone(before) else before.data["since"]
                made = before.with_(text=text, data={**data, "since": since, "turn": name})
            return made.with_(policy=_until(made, ends))

        self._named.change(scope, name, make)

    def _search(self, op: SearchOp) -> list[SearchItem]:
        scope = self._scope(op.namespace_prefix)
        cubes = self._named.all(scope)
        within_it = self._within(cubes.values(), op.namespace_prefix)
        found = {cube.id: cube for cube in within_it if _passes(cube, op.filter)}
        scores: dict[str, float] = {}
        if op.query and op.query.strip() and found:
            for hit in self._memory.search(op.query, k=len(cubes), kinds=(ITEM,), **named(scope)):
                if hit.id in found and hit.cube.data["searched"]:
                    scores[hit.id] = hit.relevance
        ranked = sorted(found.values(), key=lambda cube: -scores.get(cube.id, -1.0))[op.offset : op.offset + op.limit]
        for cube in ranked if op.refresh_ttl else ():
            self._refresh(cube)
        return [SearchItem(**_told(cube), score=scores.get(cube.id)) for cube in ranked]

    def _namespaces(self, op: ListNamespacesOp) -> list[Namespace]:
        conditions = op.match_conditions or ()
        prefix = next((tuple(one.path) for one in conditions if one.match_type == "prefix"), ())
        cubes = self._named.all(self._scope(prefix)).values()
        some = {_place(cube) for cube in self._within(cubes, ())}
        found = {place[: op.max_depth] for place in some if all(_matches(one, place) for one in conditions)}
        return sorted(found)[op.offset : op.offset + op.limit]

    def _within(self, cubes: Iterable[Cube], prefix: Namespace) -> Iterator[Cube]:
        for cube in cubes:
            if _place(cube)[: len(prefix)] == tuple(prefix) and not self._gone(cube):
                yield cube

    def _gone(self, cube: Cube) -> bool:
        ends = cube.policy.expires_at
        return ends is not None and ends <= self._memory.store.now()

    def _refresh(self, cube: Cube) -> None:
        minutes, ends = cube.data.get("minutes"), cube.policy.expires_at
        if minutes is None or ends is None:
            return
        now = self._memory.store.now()
        span = timedelta(minutes=minutes)
        if ends - now >= FRESH * span:
            return

        def make(before: Cube | None) -> Cube | None:
            if before is None or before.version != cube.version:
                return None
            return before.with_(policy=_until(before, now + span))

        self._named.change(cube.scope, str(cube.origin.reference), make)

    def _texts(self, value: Mapping[str, Any], paths: Sequence[str]) -> Iterator[str]:
        for path in paths:
            if path == "$":
                yield from _strings(value)
            else:
                yield from get_text_at_path(value, tokenize_path(path))


def _name(namespace: Namespace, key: str) -> str:
    return joined("langgraph", (*namespace, key))


def _place(cube: Cube) -> Namespace:
    return tuple(cube.data["namespace"])


def _told(cube: Cube) -> dict[str, Any]:
    value = json.loads(json.dumps(cube.data["value"]))  # a caller may change what it is given
    return {
        "namespace": _place(cube),
        "key": cube.data["key"],
        "value": value,
        "created_at": datetime.fromisoformat(cube.data["since"]),
        "updated_at": cube.recorded_at,
    }


def _until(cube: Cube, ends: datetime | None) -> Any:
    return replace(cube.policy, expires_at=ends)


def _strings(value: Any) -> Iterator[str]:
    """The strings in a value, its keys left out."""
    return (leaf for leaf in plain_leaves(value) if isinstance(leaf, str))


# --- what LangGraph's own store takes for equal, which its base class does not hand down ---


def _passes(cube: Cube, wanted: Mapping[str, Any] | None) -> bool:
    return all(_equal(cube.data["value"].get(key), value) for key, value in (wanted or {}).items())


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        if any(key.startswith("$") for key in wanted):
            return all(_compared(value, operator, other) for operator, other in wanted.items())
        return isinstance(value, dict) and all(_equal(value.get(key), other) for key, other in wanted.items())
    if isinstance(wanted, list | tuple):
        same = isinstance(value, list | tuple) and len(value) == len(wanted)
        return same and all(_equal(one, other) for one, other in zip(value, wanted, strict=True))
    return bool(value == wanted)


def _compared(value: Any, operator: str, other: Any) -> bool:
    if operator in ("$eq", "$ne"):
        return bool(value == other) is (operator == "$eq")
    if operator not in ("$gt", "$gte", "$lt", "$lte"):
        raise InputError(f"a filter does not know {operator}; it knows $eq, $ne, $gt, $gte, $lt, $lte")
    one, two = float(value), float(other)
    return {"$gt": one > two, "$gte": one >= two, "$lt": one < two, "$lte": one <= two}[operator]


def _matches(condition: MatchCondition, namespace: Namespace) -> bool:
    path = tuple(condition.path)
    if len(namespace) < len(path):
        return False
    some = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(wanted in ("*", label) for wanted, label in zip(path, some, strict=True))
