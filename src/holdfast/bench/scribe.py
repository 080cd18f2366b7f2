"""A language model's stand-in for measuring recipes: it fills any schema that it is sent from the data, and knows nothing.

It writes down what the steps say, line by line, and judges by the words that two texts share. So a recipe that is measured with it
can be no better than what it keeps, finds and drops; how well a model writes is not measured. The same data give the same reply.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from holdfast.chat import Message, Reply, Tool, Usage, count_tokens, estimate
from holdfast.encode.sheet_items import EMPTY, OPEN, Item, parse, render
from holdfast.encode.skill_edits import INSTRUCTION
from holdfast.errors import ChatError
from holdfast.retrieve.text import tokens

LONGEST = 600
"""Characters of a text that it writes."""

MOST = 4
"""Lines of a list that it writes, where the schema does not say how many."""

_NUMBER = re.compile(r"^\d+\. ")


class Scribe:
    """A ``Chat``."""

    def reply(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),  # noqa: ARG002  (the seam has it)
        schema: Mapping[str, Any] | None = None,
        temperature: float | None = None,  # noqa: ARG002
        limit: int | None = None,  # noqa: ARG002
    ) -> Reply:
        """A value for each field of the schema, a cheatsheet, or edits. Raises ChatError where asked for anything else."""
        sent = messages[-1].text
        if schema is None and messages[0].text.startswith(INSTRUCTION):
            return _reply(messages, _edits(json.loads(sent)))
        sheet, _, rest = sent.rpartition("\n\n")
        if schema is None and not sheet.startswith((OPEN, EMPTY)):
            raise ChatError("the scribe fills schemas, writes sheets and makes edits, and was asked for none of them")
        try:
            data = json.loads(sent if schema is not None else rest)
        except ValueError:
            raise ChatError("the scribe reads JSON, and was sent something else") from None
        if schema is None:
            return _reply(messages, _sheet(sheet, data))
        text = json.dumps(_filled(schema, data, list(_lines(data))), ensure_ascii=False)
        return _reply(messages, text)


def _reply(messages: Sequence[Message], text: str) -> Reply:
    return Reply(text, usage=Usage(estimate(messages), count_tokens(text), 1))


def _sheet(sheet: str, data: Any) -> str:
    """The sheet as it was, with an item for each new line of what was done."""
    read = parse(sheet)
    old = read.items if read is not None else ()
    known = {item.description for item in old}
    work = {"steps": str(data.get("work", ""))} if isinstance(data, Mapping) and "work" in data else data
    new = [Item(0, line) for line in _lines(work) if line not in known]
    return render([*old, *new])


def _edits(data: Mapping[str, Any]) -> str:
    """A new memory for each of the first lines of the text that no memory holds yet."""
    known = {one["memory"] for one in data["memories"]}
    lines = [line for line in dict.fromkeys(data["text"].splitlines()) if line.strip() and line not in known]
    return "\n\n".join(f"ACTION: INSERT\nMEMORY_ITEM: {line}" for line in lines[:MOST]) or "ACTION: NOOP"


def _filled(schema: Mapping[str, Any], data: Any, lines: Sequence[str], name: str = "") -> Any:
    if "enum" in schema:
        return _chosen(schema["enum"], data)
    match schema.get("type", "object"):
        case "object":
            fields = schema.get("properties", {})
            return {key: _filled(one, data, lines, key) for key, one in fields.items()}
        case "array":
            return [_filled(schema.get("items", {}), *one, name) for one in _each(schema, data, lines)]
        case "integer" | "number":
            low, high = schema.get("minimum", 0), schema.get("maximum", 10)
            found = low + (high - low) * alike(data)
            return round(found) if schema["type"] == "integer" else found
        case "boolean":
            return alike(data) > 0.8
        case _:
            return _written(name, data, lines)


def _each(schema: Mapping[str, Any], data: Any, lines: Sequence[str]) -> Iterator[tuple[Any, list[str]]]:
    """What each place of a list is filled from: each of the records that are sent, where as many are asked for, or a line each."""
    least, most = int(schema.get("minItems", 0)), int(schema.get("maxItems", MOST))
    if isinstance(data, Mapping) and least == most:
        sent = [value for value in data.values() if isinstance(value, list) and len(value) == most]
        if sent:
            for value in sent[0]:
                one = {"task": data.get("task", ""), **(value if isinstance(value, Mapping) else {"record": value})}
                yield one, list(_lines({key: text for key, text in one.items() if key != "task"}))
            return
    lines = lines or ["nothing"]
    for at in range(max(least, min(most, len(lines)))):
        yield data, [lines[at % len(lines)]]


def _written(name: str, data: Any, lines: Sequence[str]) -> str:
    """Words: of the task where a description or a query is asked for, of what was done otherwise."""
    task = str(data.get("task", "")) if isinstance(data, Mapping) else ""
    if name == "code":
        body = json.dumps("\n".join(lines))
        return f"def {'_'.join(tokens(task)[:6]) or 'run'}() -> str:\n    {body}\n    return {body}"
    if task and any(word in name for word in ("description", "name", "query", "title", "when", "precondition")):
        return task
    text = ""
    for line in lines:
        if text and len(text) + len(line) > LONGEST:
            break
        text = f"{text}; {line}" if text else line
    return text or task or "nothing"


def _lines(data: Any) -> Iterator[str]:
    """What the data say was done, a line each: the steps of a trajectory, or else every text in it."""
    if isinstance(data, Mapping) and isinstance(data.get("steps"), str):
        seen = dict.fromkeys(_NUMBER.sub("", line).strip() for line in data["steps"].splitlines())
        yield from (line for line in seen if line)
    else:
        yield from dict.fromkeys(line.strip() for text in _texts(data) for line in text.splitlines() if line.strip())


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, Mapping):
        for value in data.values():
            yield from _texts(value)
    elif isinstance(data, list):
        for value in data:
            yield from _texts(value)


def alike(data: Any) -> float:
    """How many of the words of the shorter of the first two texts stand in the other, as a share."""
    texts = [set(tokens(text)) for text in islice(_texts(data), 2)]
    if len(texts) < 2 or not all(texts):
        return 0.0
    return len(texts[0] & texts[1]) / min(map(len, texts))


def _chosen(choices: Sequence[Any], data: Any) -> Any:
    """What is good comes first in a list of two, where the data say how it went."""
    failed = isinstance(data, Mapping) and data.get("succeeded") is False
    return choices[-1] if failed else choices[0]
