"""The seam to a language model that talks and calls tools: messages in, one reply out.

Whatever an agent of ours does with a model goes through ``Chat``, so that a scripted stand-in can take a model's place in a test
or a claim, and be read by the same parsers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class Role(StrEnum):
    """Who speaks in a chat."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that a model asks for; ``arguments`` were read from its JSON. The tool may be one that nobody offered."""

    id: str
    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. ``calls`` are an assistant's; ``answers`` is the id of the call whose result this is."""

    role: Role
    text: str
    calls: tuple[Call, ...] = ()
    answers: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """What a model may call. ``parameters`` is the JSON Schema of the arguments, an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of some calls, how many calls these were, and what they cost in the currency of their prices.

    Of ``estimated`` calls the server did not count the tokens, or not to the end; theirs are an estimate.
    """

    prompt: int = 0
    completion: int = 0
    calls: int = 0
    cost: float = 0.0
    estimated: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.calls + other.calls,
            self.cost + other.cost,
            self.estimated + other.estimated,
        )

    @property
    def tokens(self) -> int:
        """Of both kinds."""
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answers: words, tool calls, or both. ``cut``: it ran into a limit of length."""

    text: str
    calls: tuple[Call, ...] = ()
    usage: Usage = Usage()
    cut: bool = False

    @property
    def message(self) -> Message:
        """The reply as a turn of the chat."""
        return Message(Role.ASSISTANT, self.text, self.calls)


class Chat(Protocol):
    """A chat model."""

    def reply(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        schema: Mapping[str, Any] | None = None,
        temperature: float | None = None,
        limit: int | None = None,
    ) -> Reply:
        """One reply: words, calls, or both, never nothing.

        ``schema``: a JSON Schema of an object; where the reply calls no tool, its text is JSON of that schema. ``limit``:
        tokens of the reply at most. Raises ChatError where there is no reply that can be used; its message holds nothing of
        what was asked. It is a ContextOverflowError where the messages are known to be too long for the model, an
        UnusableReplyError where to ask again may help, and of these a CutReplyError where a limit of length was in the way.
        """
        ...


def count_tokens(text: str) -> int:
    """An estimate that needs no tokenizer: about four bytes of UTF-8 a token, rounded up."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def estimate(messages: Sequence[Message], tools: Sequence[Tool] = ()) -> int:
    """Tokens of a prompt, without a tokenizer: about four bytes a token, and four tokens more a message."""
    calls = [call for message in messages for call in message.calls]
    told = [{"name": tool.name, "description": tool.description, "parameters": tool.parameters} for tool in tools]
    return (
        sum(count_tokens(message.text) + 4 for message in messages)
        + sum(count_tokens(call.tool) + count_tokens(json.dumps(dict(call.arguments), default=str)) for call in calls)
        + (count_tokens(json.dumps(told, default=str)) if told else 0)
    )
