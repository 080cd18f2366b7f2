"""The seam to a language model that talks and calls tools: messages in, one reply out.

Whatever an agent of ours does with a model goes through ``Chat``, so that a scripted stand-in can take a model's place in a test
or a claim, and be read by the same parsers.
"""

from __future__ import annotations

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
    """A tool call that a model asks for; ``arguments`` were read from its JSON."""

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
    """Tokens of some calls, as the server counts them, and how many calls these were."""

    prompt: int = 0
    completion: int = 0
    calls: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt + other.prompt, self.completion + other.completion, self.calls + other.calls)

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
        """One reply. ``schema``: the text is JSON of that JSON Schema, or ChatError. ``limit``: tokens of the reply at most.

        Raises ChatError where there is no reply that can be used; its message holds nothing of what was asked.
        """
        ...
