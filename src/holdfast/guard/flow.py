"""Which sources may fill which argument of a call: information flow where something happens (AgentSys, arXiv 2602.07398).

The paper leaves the main agent's own calls unchecked, though the values that steer them come from outside. Here every argument
has a taint: that of the typed value or sealed text it is, or of every value in memory whose words stand in it. Words of the task
are the user's own. A rule names, for an argument of a command, the taints that may fill it; without a rule none may.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from holdfast.cube import Channel, Origin, taints
from holdfast.guard.schema import OpaqueRef, Schema

PROFILE = ()  # a part of the boundary, and no memory

Flows = Mapping[str, Mapping[str, Sequence[str]]]
"""Tool to argument to patterns of taint, for example ``{"send_money": {"recipient": ("tool:get_contacts",)}}``."""

SHORTEST_TRACE = 2
"""A value of fewer characters is found in everything, so it is traced only where it is the whole argument."""


@dataclass(frozen=True, slots=True)
class Value:
    """What a call came to: a typed value, and where it is from.

    Fields
        data: plain Python, with an ``OpaqueRef`` for each sealed text; ``UNAVAILABLE`` where the call failed.
        taint: the outside sources that had a part in it, as ``Origin.taint`` names them.
        call: the call that made it, for example ``§3``.
        path: where it is, for example ``§3.names``: an argument that is a value is shown in memory by that.
        refusal: why there is none, in fixed words; "" where there is one.
    """

    data: Any
    schema: Schema
    taint: tuple[str, ...]
    call: str
    refusal: str = ""
    path: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return not self.refusal

    @property
    def origin(self) -> Origin:
        """For a cube made of it: long-term memory then knows that it comes from outside."""
        return Origin(Channel.TOOL, reference=self.call, trust=0.5, taint=self.taint)

    def __getitem__(self, key: str | int) -> Value:
        """A field or an item of it, with the same taint."""
        child = self.schema.fields[key] if isinstance(key, str) else self.schema.item
        path = f"{self.path or self.call}.{key}"
        return Value(self.data[key], child or self.schema, self.taint, self.call, self.refusal, path)

    def __iter__(self) -> Iterator[Value]:
        return (self[at] for at in range(len(self.data)))


UNAVAILABLE: Mapping[str, str] = {"error": "not available"}
"""Stands for every answer that was refused: the same words whatever happened, so that an error says nothing of its cause."""


@dataclass
class Traces:
    """The values in memory by their words, so that an argument that was copied from one keeps its taint."""

    task: str
    seen: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add(self, data: Any, taint: tuple[str, ...]) -> None:
        """Remember the leaves of a value under its taint."""
        for leaf in plain_leaves(data):
            words = str(leaf)
            if taint and words:
                self.seen[words] = taints(self.seen.get(words, ()), taint)

    def forget(self, data: Any) -> None:
        """Stop tracing the leaves of a value."""
        for leaf in plain_leaves(data):
            self.seen.pop(str(leaf), None)

    def of(self, argument: Any) -> tuple[str, ...]:
        """The taint of what the parent wrote itself: that of every value whose words stand in it and not in the task."""
        found: list[tuple[str, ...]] = []
        for leaf in plain_leaves(argument):
            text = str(leaf)
            found += [
                taint
                for words, taint in self.seen.items()
                if (words == text or (len(words) >= SHORTEST_TRACE and _stands_in(words, text)))
                and not _stands_in(words, self.task)
            ]
        return taints(*found)


def _stands_in(words: str, text: str) -> bool:
    """Whether some words stand in a text as whole words."""
    return words in text and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def plain_leaves(value: Any) -> Iterator[Any]:
    """Every string and number in nested dicts, lists and values; booleans, nulls and handles say nothing to copy."""
    if isinstance(value, Value):
        yield from plain_leaves(value.data)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from plain_leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from plain_leaves(item)
    elif not isinstance(value, bool | OpaqueRef) and value is not None:
        yield value


def forbidden(
    flows: Flows, tool: str, taint_of: Mapping[str, Iterable[str]], *, command: bool
) -> tuple[str, tuple[str, ...]] | None:
    """The first argument that is filled from where it must not be, and the taints that must not; None where all may.

    A query is held to its rules only where it has some: what it is asked for may tell its server something, too.
    """
    if not command and tool not in flows:
        return None
    rules = flows.get(tool, {})
    for argument, taint in taint_of.items():
        wrong = tuple(one for one in taint if not any(fnmatchcase(one, rule) for rule in rules.get(argument, ())))
        if wrong:
            return argument, wrong
    return None


def without_taint(item: Any) -> Any:
    """An argument as the parent's memory shows it: values as their data, handles as they are."""
    if isinstance(item, Value):
        return item.data
    if isinstance(item, Mapping):
        return {name: without_taint(one) for name, one in item.items()}
    if isinstance(item, list | tuple):
        return [without_taint(one) for one in item]
    return item


def shown(value: Any) -> str:
    """A value in few characters; a list of records as a table, each name once."""
    if isinstance(value, Value):
        return value.path or value.call
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        names = list(value[0])
        rows = ["|".join("" if item[name] is None else shown(item[name]) for name in names) for item in value]
        return f"[{'|'.join(names)}: {'; '.join(rows)}]"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {shown(item)}' for name, item in value.items())}}}"
    return "null" if value is None else str(value)
