"""What a text of AgentDojo says, and whether a goal or a needed value stands in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.guard.flow import Value
from holdfast.guard.schema import OpaqueRef


def plain(result: Any) -> Any:
    """A tool's result as dicts, lists, texts and numbers."""
    if hasattr(result, "model_dump"):
        return plain(result.model_dump())
    if isinstance(result, Mapping):
        return {str(key): plain(item) for key, item in result.items()}
    if isinstance(result, list | tuple):
        return [plain(item) for item in result]
    if result is None or isinstance(result, bool | int | float):
        return result
    return str(result)


def stands_in(goal: str, text: str) -> bool:
    """Whether the words of a goal stand in a text one after another, whatever marks, cases and lines lie between."""
    return " ".join(_word(goal)) in " ".join(_word(text))


def _word(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def texts(value: Any) -> list[str]:
    """Every text in nested dicts and lists, keys among them."""
    if isinstance(value, Mapping):
        return [text for key, item in value.items() for text in (str(key), *texts(item))]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


def refs(value: Any) -> list[OpaqueRef]:
    """Every handle in a value."""
    if isinstance(value, Mapping):
        return [ref for item in value.values() for ref in refs(item)]
    if isinstance(value, list):
        return [ref for item in value for ref in refs(item)]
    return [value] if isinstance(value, OpaqueRef) else []


def needed(leaf: Any, seen: Sequence[str], task: str) -> bool:
    """Whether an argument can only come from what was seen: two or more characters, and not in the user's words."""
    if isinstance(leaf, bool) or leaf is None:
        return False
    text = str(leaf)
    return len(text) >= 2 and text not in task and any(text in result for result in seen)


def is_number(leaf: Any) -> bool:
    """Whether a leaf may be written in two ways, as 5 and as 5.0."""
    return isinstance(leaf, int | float)


def made(value: Value) -> str | None:
    """The id of what a call made."""
    made = value.data.get("id")
    return None if made is None else str(made)
