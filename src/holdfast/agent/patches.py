"""A document that changes by patches, every leaf of which knows where it is from (Intrinsic Memory Agents, arXiv 2508.08997).

The paper has a model write its memory anew at every turn, which drifts and drops fields. Here it names what changes: ``set``,
``append`` or ``remove`` at a JSON pointer (RFC 6901). A document that is written anew is taken too, and held to the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from holdfast.agent.reading import UnreadableError
from holdfast.cube import Ref, taints

PROFILE = ()  # the arithmetic of ``roles``, and no memory by itself


class Share(StrEnum):
    """Who sees a field, and who may write it: its agent alone; all see it; all see and write it."""

    PRIVATE = "private"
    READ = "shared-read"
    WRITE = "shared-write"


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for one field of a document.

    ``items``: of a list or an object so many are kept, and the oldest go. ``words``: a text of more is refused. ``pinned``: what
    is in it is never dropped or removed; an item of it can be set to other words.
    """

    items: int | None = None
    words: int | None = None
    pinned: bool = False
    share: Share = Share.PRIVATE


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a leaf is from: the agent's turn, whose output it was drawn from, the outside sources in it, and the memories."""

    turn: int
    agent: str
    taint: tuple[str, ...] = ()
    sources: tuple[Ref, ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """A JSON object, and a tree of the same shape that has a ``Mark`` at every leaf. Neither is changed in place."""

    document: Mapping[str, Any]
    marks: Mapping[str, Any]

    @property
    def leaves(self) -> dict[str, tuple[Any, Mark]]:
        """Every leaf by its JSON pointer."""
        return {path: (value, mark) for path, value, mark in _leaves("", self.document, self.marks)}

    @property
    def taint(self) -> tuple[str, ...]:
        """The outside sources of all leaves."""
        return taints(*(mark.taint for _, mark in self.leaves.values()))

    def only(self, fields: Sequence[str]) -> Held:
        """Some fields of it alone."""
        there = [one for one in fields if one in self.document]
        return Held({one: self.document[one] for one in there}, {one: self.marks[one] for one in there})


def patched(held: Held, patch: Sequence[Mapping[str, Any]], mark: Mark) -> Held:
    """The document with a patch applied, whole or not at all. Raises UnreadableError for a step that cannot be taken."""
    document, marks = _copied(held.document), _copied(held.marks)
    for step in patch:
        _take(step, document, marks, mark)
    return Held(document, marks)


def rewritten(held: Held, document: Mapping[str, Any], mark: Mark) -> Held:
    """The document written anew: what stands in it as before keeps its mark, the rest is of the new one."""
    return Held(document, _kept(held.document, held.marks, document, mark))


def written(held: Held, after: Held) -> set[str]:
    """The top-level fields that differ."""
    return {one for one in {*held.document, *after.document} if held.document.get(one) != after.document.get(one)}


def check(before: Held, after: Held, policies: Mapping[str, Policy]) -> None:
    """Hold a change to the policies. Raises UnreadableError where a pinned item goes, or a text is too long."""
    for field, policy in policies.items():
        old, new = before.document.get(field), after.document.get(field)
        if policy.pinned and _lost(old, new):
            raise UnreadableError(
                f"{field} is pinned: nothing may be removed from it; set an item to other words instead"
            )
        if policy.words is not None:
            for path, value, _ in _leaves(f"/{field}", new, after.marks.get(field)):
                if isinstance(value, str) and len(value.split()) > policy.words:
                    raise UnreadableError(f"{path} has more than {policy.words} words")


def fitted(
    held: Held, policies: Mapping[str, Policy], budget: int, measure: Callable[[Held], int]
) -> tuple[Held, tuple[str, ...]]:
    """The document within the limits of its fields and a budget, and the pointers of what was dropped, the oldest first.

    Of the fields that are not pinned, items go by the turn that wrote them last. Raises UnreadableError where what is pinned is
    more than a limit or the budget allows.
    """
    document, marks = _copied(held.document), _copied(held.marks)
    dropped: list[str] = []
    for field, policy in policies.items():
        while policy.items is not None and _size(document.get(field)) > policy.items:
            if policy.pinned:
                raise UnreadableError(
                    f"{field} is pinned and full ({policy.items} items): set one that is there instead"
                )
            dropped.append(_drop(document, marks, min(_units(document, marks, [field]))[-2:]))
    free = [field for field in document if not policies.get(field, Policy()).pinned]
    while measure(Held(document, marks)) > budget:
        units = _units(document, marks, free)
        if not units:
            raise UnreadableError(f"what is pinned does not fit the budget of {budget} tokens: use fewer words")
        dropped.append(_drop(document, marks, min(units)[-2:]))
    return Held(document, marks), tuple(dropped)


# --- marks as data ---


def to_data(held: Held) -> dict[str, Any]:
    """The document and its marks as JSON; each mark is written once."""
    table: dict[Mark, int] = {}

    def number(marks: Any) -> Any:
        if isinstance(marks, Mark):
            return table.setdefault(marks, len(table))
        if isinstance(marks, Mapping):
            return {key: number(one) for key, one in marks.items()}
        return [number(one) for one in marks]

    marks = number(held.marks)
    known = [[one.turn, one.agent, list(one.taint), [[ref.id, ref.version] for ref in one.sources]] for one in table]
    return {"document": held.document, "marks": marks, "known": known}


def from_data(data: Mapping[str, Any]) -> Held:
    """The inverse of ``to_data``."""
    known = [
        Mark(turn, agent, tuple(taint), tuple(Ref(id, version) for id, version in sources))
        for turn, agent, taint, sources in data["known"]
    ]

    def named(marks: Any) -> Any:
        if isinstance(marks, int):
            return known[marks]
        if isinstance(marks, Mapping):
            return {key: named(one) for key, one in marks.items()}
        return [named(one) for one in marks]

    return Held(data["document"], named(data["marks"]))


def shaped(value: Any, mark: Mark) -> Any:
    """A tree of a value's shape with one mark at every leaf."""
    if isinstance(value, Mapping):
        return {key: shaped(one, mark) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [shaped(one, mark) for one in value]
    return mark


# --- inside ---


def _copied(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _copied(one) for key, one in tree.items()}
    return [_copied(one) for one in tree] if isinstance(tree, list | tuple) else tree


def _take(step: Mapping[str, Any], document: Any, marks: Any, mark: Mark) -> None:
    path = str(step["path"])
    if not path.startswith("/") or (step["op"] != "remove" and "value" not in step):
        raise UnreadableError(f"a step needs a path that begins with / and, unless it removes, a value: {path!r}")
    *way, last = (key.replace("~1", "/").replace("~0", "~") for key in path[1:].split("/"))
    for key in way:
        at = _key(document, key, path)
        document, marks = document[at], marks[at]
    if step["op"] == "append":
        at = _key(document, last, path)
        if not isinstance(document[at], list):
            raise UnreadableError(f"{path} is no list to append to")
        document[at].append(_copied(step["value"]))
        marks[at].append(shaped(step["value"], mark))
    elif step["op"] == "set":
        at = last if isinstance(document, dict) else _key(document, last, path)
        document[at], marks[at] = _copied(step["value"]), shaped(step["value"], mark)
    else:
        at = _key(document, last, path)
        del document[at], marks[at]


def _key(parent: Any, key: str, path: str) -> Any:
    if isinstance(parent, dict) and key in parent:
        return key
    if isinstance(parent, list) and key.isascii() and key.isdigit() and len(key) < 10 and int(key) < len(parent):
        return int(key)
    raise UnreadableError(f"there is nothing at {path}")


def _kept(old: Any, marks: Any, new: Any, mark: Mark) -> Any:
    if isinstance(new, Mapping):
        known = isinstance(old, Mapping)
        return {
            key: _kept(old[key], marks[key], one, mark) if known and key in old else shaped(one, mark)
            for key, one in new.items()
        }
    if isinstance(new, list):
        left = list(zip(old, marks, strict=True)) if isinstance(old, list) else []
        found = []
        for one in new:
            at = next((n for n, (before, _) in enumerate(left) if _same(before, one)), None)
            found.append(shaped(one, mark) if at is None else left.pop(at)[1])
        return found
    return marks if isinstance(marks, Mark) and _same(old, new) else mark


def _same(old: Any, new: Any) -> bool:
    return bool(old == new) and type(old) is type(new)  # 1 == True


def _lost(old: Any, new: Any) -> bool:
    """Whether something of a pinned field is gone: an item, a key, or words for which none stand now."""
    if isinstance(old, Mapping):
        return not isinstance(new, Mapping) or any(key not in new or _lost(one, new[key]) for key, one in old.items())
    if isinstance(old, list):
        return (
            not isinstance(new, list)
            or len(new) < len(old)
            or any(_lost(one, other) for one, other in zip(old, new, strict=False))
        )
    return bool(old not in (None, "") and (new is None or (isinstance(new, str) and not new.strip())))


def _leaves(path: str, value: Any, marks: Any) -> Iterator[tuple[str, Any, Mark]]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _leaves(f"{path}/{escaped(key)}", one, marks[key])
    elif isinstance(value, list | tuple):
        for at, one in enumerate(value):
            yield from _leaves(f"{path}/{at}", one, marks[at])
    elif value is not None:
        yield path, value, marks


def escaped(key: str) -> str:
    """A key as it stands in a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list | Mapping) else 0


def _units(document: Mapping[str, Any], marks: Mapping[str, Any], fields: Sequence[str]) -> list[tuple[Any, ...]]:
    """What can be dropped: (turn that wrote it last, order in its field, order of the field, field, key)."""
    found: list[tuple[Any, ...]] = []
    for order, field in enumerate(fields):
        value = document[field]
        keys = list(value) if isinstance(value, Mapping) else range(_size(value)) if isinstance(value, list) else ()
        found += [(_turn(marks[field][key]), at, order, field, key) for at, key in enumerate(keys)]
        if isinstance(value, str) and value:
            found.append((_turn(marks[field]), 0, order, field, None))
    return found


def _turn(marks: Any) -> int:
    if isinstance(marks, Mark):
        return marks.turn
    inner = marks.values() if isinstance(marks, Mapping) else marks
    return max((_turn(one) for one in inner), default=0)


def _drop(document: Any, marks: Any, unit: tuple[Any, ...]) -> str:
    field, key = unit
    if key is None:
        document[field] = ""
        return f"/{escaped(field)}"
    del document[field][key], marks[field][key]
    return f"/{escaped(field)}/{escaped(str(key))}"
