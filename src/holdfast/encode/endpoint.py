"""An endpoint that speaks the OpenAI protocol: one way to open it and to ask it, for everything that asks a model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai

from holdfast.errors import ChatError, ContextOverflowError, InputError


@dataclass(frozen=True, slots=True)
class RawCall:
    """A tool call as a server wrote it: ``arguments`` may be JSON, or anything."""

    id: str
    tool: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Completion:
    """What a server answered. Tokens are None where it does not count them; ``end`` is its ``finish_reason``."""

    text: str
    calls: tuple[RawCall, ...] = ()
    prompt: int | None = None
    completion: int | None = None
    end: str = ""
    refused: bool = False


def open_client(base_url: str | None, api_key: str | None, timeout: float, retries: int) -> openai.OpenAI:
    """A client. With a ``base_url`` neither key nor organisation nor project is taken from the environment.

    ``timeout`` in seconds is for each attempt. Timeouts, lost connections, 408, 409, 429 and 5xx are tried again ``retries``
    times, after as long as the server's ``Retry-After`` says, else after 0.5, 1, 2, 4 and then 8 seconds, less up to a quarter.
    Raises InputError where no key is known for the default endpoint.
    """
    elsewhere: dict[str, Any] = {}
    if base_url:
        api_key = api_key or "unused"
        # The client reads these from the environment where they are not given, the last of them from OPENAI_CUSTOM_HEADERS.
        elsewhere = {
            "organization": "",
            "project": "",
            "default_headers": {"Authorization": f"Bearer {api_key}"},
        }
    try:
        return openai.OpenAI(base_url=base_url, api_key=api_key, timeout=timeout, max_retries=retries, **elsewhere)
    except openai.OpenAIError as error:
        raise InputError(
            "no API key: pass api_key=, set OPENAI_API_KEY, or name a local server by base_url="
        ) from error


def complete(client: openai.OpenAI, **request: Any) -> Completion:
    """One answer. Raises ChatError, whose message holds nothing of what was asked."""
    try:
        return _read(client.chat.completions.create(**request))
    except openai.OpenAIError as error:
        raise failure(error) from error
    except (AttributeError, IndexError, RecursionError, TypeError, ValueError) as error:
        # The client passes on whatever a server says: a page of HTML, a list, no choices.
        raise ChatError(NO_CHAT) from error


def open_stream(client: openai.OpenAI, **request: Any) -> openai.Stream[Any]:
    """The chunks of an answer. Raises ChatError as ``complete``, where none begins."""
    try:
        chunks: openai.Stream[Any] = client.chat.completions.create(**request, stream=True)
    except openai.OpenAIError as error:
        raise failure(error) from error
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise ChatError(NO_CHAT) from error
    return chunks


def failure(error: Exception) -> ChatError:
    """What a client's error means and what to do about it, without a word of what was asked: a server may repeat that."""
    status = error.status_code if isinstance(error, openai.APIStatusError) else 0
    if isinstance(error, openai.APIStatusError) and _overflows(error):
        return ContextOverflowError(
            f"the endpoint failed ({type(error).__name__}): the request does not fit the model's context; send less",
            status,
        )
    if isinstance(error, openai.APITimeoutError):
        advice = "no answer in time; try again later, or with a longer timeout="
    elif isinstance(error, openai.APIConnectionError):
        advice = "the connection was refused or lost; check that a server runs at base_url="
    else:
        advice = _ADVICE.get(status, "try again later" if status >= 500 else "look into its log")
    return ChatError(f"the endpoint failed ({type(error).__name__}): {advice}", status)


def _overflows(error: openai.APIStatusError) -> bool:
    """Whether a server refused a prompt for its length. It may repeat the prompt, whose words are taken for its own then."""
    if error.status_code not in _TOO_LARGE:
        return False
    return error.status_code == 413 or _OVERFLOW.search(f"{error.message} {error.body}") is not None


def text_of(content: Any) -> str:
    """The words of a message or of a piece of one, fit to be sent again. Raises TypeError for what is no text."""
    if content is None:
        return ""
    if not isinstance(content, str):
        raise TypeError("content is no text")
    return whole(content)


def whole(text: str) -> str:
    """The text with U+FFFD for halves of surrogate pairs, which no request can carry."""
    # By way of UTF-16 a pair of halves becomes the character that it stands for.
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def tokens_of(usage: Any) -> tuple[int | None, int | None]:
    """Tokens of prompt and completion as a server counts them."""
    counts = (getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None))
    prompt, completion = (count if type(count) is int and count >= 0 else None for count in counts)
    return prompt, completion


NO_CHAT = "the endpoint does not speak the chat protocol; check base_url="
_OVERFLOW = re.compile(
    "context_length_exceeded|exceed_context_size|context (length|size|window)|maximum prompt length|(prompt|input) is too long"
    "|maximum number of tokens|tokens \\+ .max_new_tokens|reduce the length of the (messages|prompt|input)",
    re.IGNORECASE,
)
"""What OpenAI and others say, vLLM, SGLang, llama.cpp, TGI among them, where a prompt does not fit. There is no one code for it."""
_TOO_LARGE = (400, 413, 422, 500)
_ADVICE = {
    400: "the server refuses the request; look at the model's limits",
    401: "check api_key=",
    403: "check what the key may do",
    404: "check the model's name and base_url=",
    408: "try again later, or with a longer timeout=",
    413: "the request is too large",
    422: "the server refuses the request",
    429: "too many requests, or no credit left; try again later",
}


def _read(answer: Any) -> Completion:
    choice = answer.choices[0]
    message = choice.message
    prompt, completion = tokens_of(answer.usage)
    return Completion(
        text_of(message.content),
        tuple(_calls(getattr(message, "tool_calls", None))),
        prompt,
        completion,
        str(getattr(choice, "finish_reason", None) or ""),
        bool(getattr(message, "refusal", None)),
    )


def _calls(calls: Any) -> Iterator[RawCall]:
    for call in calls or ():
        yield RawCall(text_of(call.id), text_of(call.function.name), text_of(call.function.arguments))
