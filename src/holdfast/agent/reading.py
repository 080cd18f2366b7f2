"""What a model wrote, read as what it was asked for: one JSON object of a schema, or tool calls with their arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from holdfast.chat import Call, Tool
from holdfast.encode.endpoint import RawCall, whole
from holdfast.encode.schemas import misfits
from holdfast.errors import AnswerRefusedError
from holdfast.guard.strict_json import first_object


class UnreadableError(Exception):
    """An answer is not what was asked for. Its message is in words of our own; ``detail`` quotes, and is for the model alone."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail or message


def read_object(text: str, schema: Mapping[str, Any]) -> str:
    """The JSON object in a text, also behind a model's thoughts or in a fence, as JSON alone. Raises UnreadableError."""
    found = _object(_THOUGHTS.sub("", text), "the answer")
    _fit(found, schema, "the answer")
    return json.dumps(found, ensure_ascii=False)


def read_calls(calls: Sequence[RawCall], tools: Iterable[Tool]) -> tuple[Call, ...]:
    """The calls, each with an id of its own. Arguments of a tool that is offered are of its schema. Raises UnreadableError."""
    parameters = {tool.name: tool.parameters for tool in tools}
    read: dict[str, Call] = {}
    for raw in calls:
        if not raw.tool:
            raise UnreadableError("a call names no tool")
        # Some servers give no ids, and some the same one twice; an answer must name one call.
        id = raw.id if raw.id and raw.id not in read else f"{raw.id or 'call'}-{len(read) + 1}"
        read[id] = Call(id, raw.tool, _arguments(raw.arguments, parameters.get(raw.tool)))
    return tuple(read.values())


_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)


def _arguments(text: str, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    what = "a call's arguments"
    if text.strip() in ("", "null"):
        found: dict[str, Any] = {}
    else:
        found = _object(text, what)
        try:
            json.loads(text)
        except ValueError:  # one object and then something: two calls in one, or half of another
            raise UnreadableError(f"{what} cannot be read: they are not JSON") from None
    if schema is not None:
        _fit(found, schema, what)
    return found


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        found = first_object(text)
    except AnswerRefusedError as refused:
        raise UnreadableError(f"{what} cannot be read: {refused.refusal}") from None
    # Escapes may spell halves of surrogate pairs.
    made: dict[str, Any] = json.loads(whole(json.dumps(found, ensure_ascii=False)))
    return made


def _fit(value: Mapping[str, Any], schema: Mapping[str, Any], what: str) -> None:
    if wrong := misfits(value, schema):
        rules = ", ".join(sorted({one.rule for one in wrong}))
        raise UnreadableError(f"{what} does not fit the schema ({rules})", "; ".join(map(str, wrong)))
