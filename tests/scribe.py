"""A language model's stand-in for the tests of recipes: it answers a schema from the data that it is sent, and keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from holdfast.chat import Message, Reply, Tool, Usage

Answers = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class Scribe:
    """A ``Chat``. ``answers``: by the title of a schema, what it makes of the data."""

    def __init__(self, **answers: Answers) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def reply(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        schema: Mapping[str, Any] | None = None,
        temperature: float | None = None,
        limit: int | None = None,
    ) -> Reply:
        assert schema is not None, "a recipe asks for a schema"
        data = json.loads(messages[-1].text)
        self.asked.append((schema["title"], data))
        return Reply(json.dumps(self.answers[schema["title"]](data)), usage=Usage(10, 5, 1))
