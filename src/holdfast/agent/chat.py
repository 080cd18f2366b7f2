"""A chat model behind any endpoint that speaks the OpenAI protocol: a reply is as it was asked for, or it is a ChatError.

Structured output goes by ``response_format`` where the server takes it, else by instruction; either way it is checked here, and
a reply that does not fit is asked for once more. Arguments of tool calls are checked in the same way.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.chat import Message, Reply, Role, Tool, Usage, count_tokens, estimate
from holdfast.errors import (
    ChatError,
    ContextOverflowError,
    CutReplyError,
    InputError,
    MissingExtraError,
    UnusableReplyError,
)

try:
    from holdfast.agent.reading import UnreadableError, read_calls, read_object
    from holdfast.agent.stream import Stream
    from holdfast.encode.endpoint import Completion, complete, open_client, open_stream, whole
    from holdfast.encode.schemas import usable
except ImportError as error:
    raise MissingExtraError("asking a language model needs the extra: pip install 'holdfast[llm]'") from error


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens cost, in any currency. Tokens that a server has cached count in full."""

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(price) and price >= 0 for price in (self.prompt, self.completion)):
            raise InputError("prices are finite and not below 0")

    def of(self, prompt: int, completion: int) -> float:
        """What so many tokens cost."""
        return (prompt * self.prompt + completion * self.completion) / 1_000_000


class Endpoint:
    """A ``Chat``. Safe to call from any thread.

    ``timeout`` in seconds is for each attempt; ``retries`` and keys are as ``encode.endpoint.open_client`` has them. With a
    ``base_url`` no key is taken from the environment. ``temperature`` is for calls that name none; None leaves it to the
    server. Raises InputError where no key is known for the default endpoint.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 2,
        temperature: float | None = None,
        prices: Prices | None = None,
    ) -> None:
        self._client = open_client(base_url, api_key, timeout, retries)
        self.model = model
        self._temperature = temperature
        self._prices = prices or Prices(0.0, 0.0)
        self._usage = Usage()
        self._by_words: set[str] = set()
        self._counts_streams = True
        self._lock = threading.Lock()

    @property
    def usage(self) -> Usage:
        """All that was spent since this endpoint was made, on replies that could not be used too."""
        with self._lock:
            return self._usage

    def reply(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        schema: Mapping[str, Any] | None = None,
        temperature: float | None = None,
        limit: int | None = None,
    ) -> Reply:
        """See ``Chat``. Arguments of calls fit the parameters of their tool, where it was offered; ``usage`` is of both askings.

        Raises ChatError as ``Chat`` does, and InputError for no messages, two tools of one name, or what is no JSON Schema.
        """
        turns = list(messages)
        request = self._request(turns, tools, temperature, limit)
        if schema is not None:
            usable(schema)
        usage, before = Usage(), ""
        while True:
            got = self._ask(request, turns, schema)
            usage += self._spent(got, turns, tools)
            try:
                return _reply(got, tools, schema, usage)
            except UnreadableError as wrong:
                if got.end == "length":
                    raise CutReplyError(
                        "the reply was cut by a limit of its length; raise limit= or the server's"
                    ) from wrong
                if before:
                    raise UnusableReplyError(
                        f"{wrong}, also after one repair; try another model or a plainer schema"
                    ) from wrong
                before = str(wrong)
                turns += [
                    Message(Role.ASSISTANT, _shown(got) or "(nothing)"),
                    Message(Role.USER, _again(wrong, schema)),
                ]

    def stream(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        temperature: float | None = None,
        limit: int | None = None,
    ) -> Stream:
        """The reply piece by piece. Nothing is repaired. Raises ChatError where no stream begins, and InputError as ``reply``."""
        turns = list(messages)
        request = {**self._request(turns, tools, temperature, limit), "messages": _wire(turns)}
        counted = {"stream_options": {"include_usage": True}}

        def read(got: Completion, usage: Usage) -> Reply:
            try:
                return _reply(got, tools, None, usage)
            except UnreadableError as wrong:
                raise UnusableReplyError(f"{wrong}; a stream is not repaired, ask by reply()") from wrong

        try:
            chunks = open_stream(self._client, **request, **(counted if self._counts_streams else {}))
        except ChatError as error:
            if not _not_taken(error) or not self._counts_streams:
                raise
            chunks = open_stream(self._client, **request)
            self._counts_streams = False
        return Stream(chunks, lambda got: self._spent(got, turns, tools), read)

    def _request(
        self, turns: Sequence[Message], tools: Sequence[Tool], temperature: float | None, limit: int | None
    ) -> dict[str, Any]:
        if not turns:
            raise InputError("there are no messages to reply to")
        if len({tool.name for tool in tools}) < len(tools):
            raise InputError("two tools have the same name")
        request: dict[str, Any] = {"model": self.model}
        if tools:
            request["tools"] = [_declared(tool) for tool in tools]
        temperature = self._temperature if temperature is None else temperature
        if temperature is not None:
            request["temperature"] = temperature
        if limit is not None:
            # OpenAI's newer models refuse the old name, and other servers may not know the new one.
            ours = self._client.base_url.host == "api.openai.com"
            request["max_completion_tokens" if ours else "max_tokens"] = limit
        return request

    def _ask(self, request: dict[str, Any], turns: Sequence[Message], schema: Mapping[str, Any] | None) -> Completion:
        if schema is None:
            return complete(self._client, **request, messages=_wire(turns))
        key = json.dumps(schema, sort_keys=True)
        if key not in self._by_words:
            try:
                return complete(self._client, **request, messages=_wire(turns), response_format=_format(schema))
            except ChatError as error:
                if not _not_taken(error):
                    raise
        got = complete(self._client, **request, messages=_wire(_instructed(turns, schema)))
        self._by_words.add(key)  # only now: what was refused may have been something else
        return got

    def _spent(self, got: Completion, turns: Sequence[Message], tools: Sequence[Tool]) -> Usage:
        prompt = estimate(turns, tools) if got.prompt is None else got.prompt
        completion = count_tokens(_shown(got)) if got.completion is None else got.completion
        guessed = got.prompt is None or got.completion is None
        usage = Usage(prompt, completion, 1, self._prices.of(prompt, completion), int(guessed))
        with self._lock:
            self._usage += usage
        return usage


_NOT_TAKEN = (400, 422, 501)
"""What servers say to a field that they do not know."""


def _not_taken(error: ChatError) -> bool:
    return error.status in _NOT_TAKEN and not isinstance(error, ContextOverflowError)


def _reply(got: Completion, tools: Sequence[Tool], schema: Mapping[str, Any] | None, usage: Usage) -> Reply:
    if got.refused or got.end == "content_filter":
        raise ChatError("the model or its server refused to answer")
    calls = read_calls(got.calls, tools)
    text = got.text if schema is None or calls else read_object(got.text, schema)
    if not calls and not text.strip():
        if got.end == "length":
            raise CutReplyError("the reply is empty; raise limit=")
        raise UnusableReplyError("the reply is empty")
    return Reply(text, calls, usage, got.end == "length")


def _shown(got: Completion) -> str:
    """An answer as words, calls and all: a history with calls that cannot be read is refused by servers."""
    return "\n".join(filter(None, [got.text, *(f"{call.tool}({call.arguments})" for call in got.calls)]))


def _again(wrong: UnreadableError, schema: Mapping[str, Any] | None) -> str:
    wanted = f" The answer is one JSON object of this JSON Schema, and nothing else:\n{json.dumps(schema)}"
    return f"That cannot be used: {wrong.detail}. Answer again, in full.{wanted if schema is not None else ''}"


def _instructed(turns: Sequence[Message], schema: Mapping[str, Any]) -> list[Message]:
    words = f"Answer with one JSON object of this JSON Schema, and nothing else:\n{json.dumps(schema)}"
    if turns[0].role is not Role.SYSTEM:
        return [Message(Role.SYSTEM, words), *turns]
    return [Message(Role.SYSTEM, f"{turns[0].text}\n\n{words}"), *turns[1:]]  # many templates allow one, at the front


def _format(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": _closed(schema), "schema": dict(schema)}}


def _closed(node: Any) -> bool:
    """Whether every object needs all its properties and allows no other, which servers ask of a strict schema."""
    if isinstance(node, list | tuple):
        return all(map(_closed, node))
    if not isinstance(node, Mapping):
        return True
    if node.get("type") == "object" or "properties" in node:
        named = set(node.get("properties", ()))
        if node.get("additionalProperties") is not False or named != set(node.get("required", ())):
            return False
    return all(map(_closed, node.values()))


def _declared(tool: Tool) -> dict[str, Any]:
    parameters = dict(usable(tool.parameters))
    return {
        "type": "function",
        "function": {"name": tool.name, "description": whole(tool.description), "parameters": parameters},
    }


def _wire(turns: Sequence[Message]) -> list[dict[str, Any]]:
    return [_turn(message) for message in turns]


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": str(message.role), "content": whole(message.text)}
    if message.calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.tool, "arguments": json.dumps(dict(call.arguments))},
            }
            for call in message.calls
        ]
    if message.answers:
        turn["tool_call_id"] = message.answers
    return turn
