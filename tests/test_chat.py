"""A chat model over HTTP: a real server on loopback that answers well, badly, in pieces, late or not at all."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.errors import ChatError, ContextOverflowError, CutReplyError, InputError, UnusableReplyError
from test_llm_encoder import Reply as Answer
from test_llm_encoder import Server, busy, cut, raw

pytest.importorskip("openai", reason="the extra llm is not installed")
pytest.importorskip("jsonschema", reason="the extra llm is not installed")

from holdfast.agent.chat import Endpoint, Prices
from holdfast.agent.reading import read_object
from holdfast.chat import Call, Message, Role, Tool, Usage, estimate

ASK = [Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "How old is the secretkoala?")]
AGE = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0}, "name": {"type": "string"}},
    "required": ["age"],
}
LOOK = Tool(
    "look", "Looks a page up", {"type": "object", "properties": {"page": {"type": "string"}}, "required": ["page"]}
)
COUNTED = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}


def said(
    content: Any = None, *calls: tuple[Any, Any, Any], end: str = "stop", usage: Any = COUNTED, **more: Any
) -> Answer:
    """A completion with these words and calls: (id, name, arguments)."""
    message: dict[str, Any] = {"role": "assistant", "content": content, **more}
    if calls:
        message["tool_calls"] = [
            {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for id, name, arguments in calls
        ]
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "test", "usage": usage}
    return raw(json.dumps({**body, "choices": [{"index": 0, "finish_reason": end, "message": message}]}))


def refusing(field: str, then: Answer) -> Answer:
    """A server that does not know a field."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        known = field not in handler.server.asked[-1]  # type: ignore[attr-defined]
        (then if known else raw('{"error": {"message": "what is that?"}}', 400))(handler)

    return reply


def echo(status: int) -> Answer:
    """A server whose errors repeat what it was asked, wherever they can."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        asked = json.dumps(handler.server.asked[-1])  # type: ignore[attr-defined]
        raw(json.dumps({"error": {"message": asked, "code": asked, "type": asked, "param": asked}}), status)(handler)

    return reply


def chunk(content: str | None = None, *, end: str | None = None, calls: Any = None) -> dict[str, Any]:
    delta = {"content": content, "tool_calls": calls}
    return {
        "id": "1",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": end}],
    }


def sent(*events: Any, torn: bool = False) -> Answer:
    """Events of a stream. ``torn``: the connection goes within a chunk of HTTP; else it is closed in good order."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for event in events:
            data = f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        handler.wfile.write(b"ff\r\ndata: {" if torn else b"0\r\n\r\n")
        handler.close_connection = True

    return reply


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with contextlib.ExitStack() as stack:

        def start(*replies: Answer) -> Server:
            server = Server(*replies)
            server._http.asked = server.requests  # type: ignore[attr-defined]
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it was waited between two tries; nobody waits."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def endpoint(server: Server, **options: Any) -> Endpoint:
    return Endpoint("test", base_url=server.url, **{"timeout": 5.0, "retries": 0, **options})


def wrong(call: Callable[[], object]) -> ChatError:
    """The error of a call, which quotes neither question nor answer."""
    with pytest.raises(ChatError) as caught:
        call()
    assert "koala" not in str(caught.value) and "Be brief" not in str(caught.value)
    return caught.value


# --- a reply ---


def test_a_reply_is_counted_and_priced(serve: Callable[..., Server]) -> None:
    server = serve(said("Four."))
    chat = endpoint(server, prices=Prices(prompt=2.0, completion=10.0), temperature=0.5)
    reply = chat.reply(ASK, limit=50)
    assert (reply.text, reply.calls, reply.cut) == ("Four.", (), False)
    assert reply.message == Message(Role.ASSISTANT, "Four.")
    assert (reply.usage.prompt, reply.usage.completion, reply.usage.calls, reply.usage.estimated) == (100, 7, 1, 0)
    assert reply.usage.cost == pytest.approx((100 * 2 + 7 * 10) / 1e6)
    chat.reply(ASK, temperature=0.0)
    assert chat.usage == reply.usage + reply.usage and chat.usage.tokens == 214
    first, second = server.requests
    assert first["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How old is the secretkoala?"},
    ]
    assert (first["temperature"], first["max_tokens"], second["temperature"]) == (0.5, 50, 0.0)
    assert {"tools", "response_format", "stream"}.isdisjoint(first) and "max_tokens" not in second


def test_a_history_with_calls_travels_as_the_protocol_has_it(serve: Callable[..., Server]) -> None:
    server = serve(said("ok"))
    history = [
        *ASK,
        Message(Role.ASSISTANT, "I look.", (Call("c1", "look", {"page": "é\ud800"}),)),
        Message(Role.TOOL, "half \ud83d of \ud83d\ude00", answers="c1"),
    ]
    endpoint(server).reply(history, tools=[LOOK])
    (request,) = server.requests
    call, result = request["messages"][2:]
    assert call["tool_calls"][0]["id"] == result["tool_call_id"] == "c1"
    assert json.loads(call["tool_calls"][0]["function"]["arguments"]) == {"page": "é\ud800"}
    assert result == {"role": "tool", "content": "half \ufffd of \U0001f600", "tool_call_id": "c1"}
    (declared,) = request["tools"]
    assert declared["function"] == {"name": "look", "description": LOOK.description, "parameters": LOOK.parameters}


def test_what_is_not_counted_is_estimated_and_said(serve: Callable[..., Server]) -> None:
    for usage in (None, {}, {"prompt_tokens": "7", "completion_tokens": -1}):
        chat = endpoint(serve(said("Four." * 8, usage=usage)))
        assert chat.reply(ASK).usage == Usage(estimate(ASK), 10, 1, 0.0, 1)


def test_totals_of_many_threads_add_up(serve: Callable[..., Server]) -> None:
    chat = endpoint(serve(said("Four.")), prices=Prices(1.0, 1.0))
    with ThreadPoolExecutor(8) as pool:
        spent = list(pool.map(lambda _: chat.reply(ASK).usage, range(64)))
    assert chat.usage.calls == 64 and chat.usage.tokens == 64 * 107 == sum(one.tokens for one in spent)
    assert chat.usage.cost == pytest.approx(64 * 107 / 1e6)


def test_neither_key_nor_organisation_of_the_environment_goes_to_another_server(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def reply(handler: BaseHTTPRequestHandler) -> None:
        seen.append(str(handler.headers))
        said("ok")(handler)

    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "sk-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer sk-secret")
    server = serve(reply)
    endpoint(server).reply(ASK)
    endpoint(server, api_key="mine").reply(ASK)
    assert server.keys == ["Bearer unused", "Bearer mine"] and "sk-secret" not in "".join(seen)
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_ADMIN_KEY")
    with pytest.raises(InputError, match="api_key"):
        Endpoint("gpt")


def test_what_cannot_be_asked_is_not_asked(serve: Callable[..., Server]) -> None:
    server = serve(said('{"age": 4}'))
    chat = endpoint(server)
    page = Tool("look", "x", {"type": "object", "properties": 7})
    for call in (
        lambda: chat.reply([]),
        lambda: chat.reply(ASK, tools=[LOOK, LOOK]),
        lambda: chat.reply(ASK, tools=[page]),
        lambda: chat.reply(ASK, schema={"type": "nothing"}),
        lambda: chat.reply(ASK, schema={"type": object}),
        lambda: chat.stream([]),
        lambda: Prices(-1.0, 0.0),
        lambda: Prices(0.0, float("nan")),
    ):
        with pytest.raises(InputError):
            call()
    assert server.requests == [] and chat.usage == Usage()


def test_a_schema_is_fetched_from_nowhere(serve: Callable[..., Server]) -> None:
    server, fetched = serve(said('{"age": 4}')), []

    def get(handler: BaseHTTPRequestHandler) -> None:
        fetched.append(handler.path)
        raw(json.dumps(AGE))(handler)

    server._http.RequestHandlerClass.do_GET = get  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="cannot be used"):
        endpoint(server).reply(ASK, schema={"$ref": server.url})
    assert fetched == []


# --- structured output ---


def test_a_schema_is_asked_for_and_the_answer_is_its_json_alone(serve: Callable[..., Server]) -> None:
    server = serve(said('<think>{"age": 9}?</think>Here:\n```json\n{"age": 4, "name": "é"}\n```'))
    assert endpoint(server).reply(ASK, schema=AGE).text == '{"age": 4, "name": "é"}'
    closed = {**AGE, "required": ["age", "name"], "additionalProperties": False}
    endpoint(server).reply(ASK, schema=closed)
    asked = [request["response_format"]["json_schema"] for request in server.requests]
    assert [one["schema"] for one in asked] == [AGE, closed] and [one["strict"] for one in asked] == [False, True]


def test_a_server_without_schemas_is_told_in_words_and_asked_so_from_then_on(serve: Callable[..., Server]) -> None:
    server = serve(refusing("response_format", said('{"age": 4}')))
    chat = endpoint(server)
    assert chat.reply(ASK, schema=AGE).text == chat.reply(ASK[1:], schema=AGE).text == '{"age": 4}'
    assert ["response_format" in request for request in server.requests] == [True, False, False]
    system = server.requests[1]["messages"][0]
    assert (
        system["role"] == "system" and system["content"].startswith("Be brief.") and '"minimum": 0' in system["content"]
    )
    assert [one["role"] for one in server.requests[2]["messages"]] == ["system", "user"]
    assert chat.usage.calls == 2


def test_a_refusal_of_something_else_is_not_held_against_schemas(serve: Callable[..., Server]) -> None:
    server = serve(echo(400), echo(400), said('{"age": 4}'))
    chat = endpoint(server)
    assert wrong(lambda: chat.reply(ASK, schema=AGE)).status == 400
    chat.reply(ASK, schema=AGE)
    assert "response_format" in server.requests[2]


BAD = [
    "It is four, secretkoala.",
    '{"age": 4',
    '{"age": "secretkoala"}',
    '{"secretkoala": 4}',
    '{"age": -1}',
    '{"age": 4, "age": 5}',
    '{"age": NaN}',
    "[4]",
    "null",
    "",
    "{" * 5000,
]


@pytest.mark.parametrize("bad", BAD)
def test_a_wrong_answer_is_asked_for_once_more(serve: Callable[..., Server], bad: str) -> None:
    server = serve(said(bad), said('{"age": 4}'))
    chat = endpoint(server)
    reply = chat.reply(ASK, schema=AGE)
    assert reply.text == '{"age": 4}' and reply.usage == chat.usage == Usage(200, 14, 2)
    first, second = (request["messages"] for request in server.requests)
    assert second[:2] == first and second[2] == {"role": "assistant", "content": bad or "(nothing)"}
    assert "cannot be used" in second[3]["content"] and '"minimum": 0' in second[3]["content"]


@pytest.mark.parametrize("bad", BAD)
def test_an_answer_that_stays_wrong_is_an_error_that_quotes_nothing(serve: Callable[..., Server], bad: str) -> None:
    server = serve(said(bad))
    chat = endpoint(server)
    assert "after one repair" in str(wrong(lambda: chat.reply(ASK, schema=AGE)))
    assert len(server.requests) == 2 and chat.usage == Usage(200, 14, 2)


def test_an_answer_that_was_cut_is_not_asked_for_again(serve: Callable[..., Server]) -> None:
    server = serve(said('{"age": ', end="length"))
    assert "limit=" in str(wrong(lambda: endpoint(server).reply(ASK, schema=AGE)))
    assert len(server.requests) == 1
    assert endpoint(serve(said("It is fo", end="length"))).reply(ASK).cut


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.dictionaries(st.text(), json_values, max_size=4),
    st.sampled_from(["{}", "```json\n{}\n```", "So: {} }} done", "<think>{{</think>{}"]),
)
@example({"a": '}"\\{'}, "say {} }}")
def test_whatever_object_a_model_writes_is_read_as_it_is(value: dict[str, Any], around: str) -> None:
    for written in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        read = read_object(around.format(written), {"type": "object"})
        assert json.loads(read) == json.loads(json.dumps(value).encode("utf-8", "replace"))
        assert read_object(read, {"type": "object"}) == read


# --- tool calls ---


def test_calls_are_read_and_named(serve: Callable[..., Server]) -> None:
    answer = said(
        "I look.", ("c1", "look", '{"page": "a"}'), (None, "fly", ""), ("c1", "fly", "null"), ("", "fly", "{}")
    )
    reply = endpoint(serve(answer)).reply(ASK, tools=[LOOK])
    assert reply.text == "I look." and len({call.id for call in reply.calls}) == 4
    assert reply.calls[0] == Call("c1", "look", {"page": "a"})
    assert [(call.tool, call.arguments) for call in reply.calls[1:]] == [("fly", {})] * 3
    assert reply.message.calls == reply.calls


def test_a_reply_that_calls_needs_no_json(serve: Callable[..., Server]) -> None:
    server = serve(said("I look.", ("c1", "look", '{"page": "a"}')))
    assert endpoint(server).reply(ASK, tools=[LOOK], schema=AGE).calls and len(server.requests) == 1


@pytest.mark.parametrize(
    "arguments",
    ["{", "secretkoala", '["a"]', '{"page": 7}', '{"secretkoala": "a"}', '{"page": "a"} {"page": "b"}', "{}"],
)
def test_arguments_that_cannot_be_used_are_asked_for_once_more(serve: Callable[..., Server], arguments: str) -> None:
    bad, good = said(None, ("c1", "look", arguments)), said(None, ("c2", "look", '{"page": "a"}'))
    server = serve(bad, good, bad)
    chat = endpoint(server)
    assert chat.reply(ASK, tools=[LOOK]).calls == (Call("c2", "look", {"page": "a"}),)
    again = server.requests[1]["messages"]
    assert again[2]["content"] == f"look({arguments})" and "tool_calls" not in again[2]
    assert "after one repair" in str(wrong(lambda: chat.reply(ASK, tools=[LOOK])))
    assert len(server.requests) == 4 and chat.usage.calls == 4


# --- a server that fails ---


def test_a_busy_server_is_asked_again_after_as_long_as_it_says(
    serve: Callable[..., Server], waits: list[float]
) -> None:
    server = serve(raw("{}", 429, Retry_After="7"), raw("{}", 503, Retry_After="2"), said("ok"))
    assert endpoint(server, retries=2).reply(ASK).text == "ok"
    assert waits == [7.0, 2.0] and len(server.requests) == 3


def test_a_failing_server_is_asked_again_with_growing_pauses_and_not_for_ever(
    serve: Callable[..., Server], waits: list[float]
) -> None:
    server = serve(raw("boom", 500, "text/plain"), cut, raw("boom", 502), said("ok"))
    chat = endpoint(server, retries=3)
    assert chat.reply(ASK).text == "ok" and chat.usage.calls == 1
    assert len(waits) == 3 and all(0.375 * 2**n <= wait <= 0.5 * 2**n for n, wait in enumerate(waits))
    server = serve(busy)
    assert wrong(lambda: endpoint(server, retries=2).reply(ASK)).status == 429
    assert len(server.requests) == 3


def test_a_stream_that_cannot_begin_is_asked_for_again(serve: Callable[..., Server], waits: list[float]) -> None:
    server = serve(raw("{}", 429, Retry_After="7"), sent(chunk("ok", end="stop"), "[DONE]"))
    assert list(endpoint(server, retries=1).stream(ASK)) == ["ok"] and waits == [7.0]


BROKEN = [
    (cut, 0, "APIConnectionError"),
    (echo(400), 400, "BadRequestError"),
    (echo(401), 401, "api_key="),
    (echo(404), 404, "base_url="),
    (echo(429), 429, "RateLimitError"),
    (echo(500), 500, "try again later"),
    (raw("<html>secretkoala</html>", 200, "text/html"), 0, "does not speak"),
    (raw("[1, 2]"), 0, "does not speak"),
    (raw("{"), 0, "does not speak"),
    (raw("[" * 100_000), 0, "does not speak"),
    (raw('{"choices": []}'), 0, "does not speak"),
    (raw('{"choices": [{"message": null}]}'), 0, "does not speak"),
    (said(7), 0, "does not speak"),
    (said(None, ("c", 7, "{}")), 0, "does not speak"),
    (said(None, ("c", "", "{}")), 0, "names no tool"),
    (said(""), 0, "empty"),
    (said(None, end="length"), 0, "limit="),
    (said(None, refusal="secretkoala is not my business"), 0, "refused"),
    (said("It is", end="content_filter"), 0, "refused"),
]


LONG = "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens."
FULL = [
    (400, {"error": {"message": LONG, "type": "invalid_request_error", "code": "context_length_exceeded"}}),
    (400, {"object": "error", "message": LONG, "type": "BadRequestError", "param": None, "code": 400}),
    (400, {"error": {"message": "", "code": "context_length_exceeded"}}),
    (400, {"error": {"code": 400, "message": "too much", "type": "exceed_context_size_error", "n_ctx": 256}}),
    (500, {"error": {"code": 500, "message": "the request exceeds the available context size"}}),
    (400, {"message": "The input (9000 tokens) is longer than the model's context length (8192 tokens)."}),
    (
        422,
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096",
            "error_type": "validation",
        },
    ),
    (400, {"error": {"message": "prompt is too long: 200082 tokens > 199999 maximum"}}),
    (400, {"detail": '{"error": {"code": 400, "type": "exceed_context_size_error"}}'}),
    (413, {}),
]
NOT_FULL = [
    (400, {"error": {"message": "max_tokens is too large: 9000. This model supports at most 4096 completion tokens"}}),
    (400, {"error": {"message": "what is that?", "code": "unknown_field"}}),
    (401, {"error": {"message": LONG}}),
    (429, {"error": {"message": "tokens per minute: reduce the length of the messages"}}),
    (500, {"error": {"message": "out of memory"}}),
]


@pytest.mark.parametrize(
    ("status", "body", "full"), [(*one, True) for one in FULL] + [(*one, False) for one in NOT_FULL]
)
def test_a_prompt_that_does_not_fit_is_told_from_other_refusals(
    serve: Callable[..., Server], status: int, body: dict[str, Any], full: bool
) -> None:
    for ask in ({"schema": AGE}, {}):
        server = serve(raw(json.dumps(body), status))
        error = wrong(lambda server=server, ask=ask: endpoint(server).reply(ASK, **ask))
        assert isinstance(error, ContextOverflowError) is full and error.status == status
        if full:
            assert len(server.requests) == 1 and "send less" in str(error)  # nor asked again in other words
    assert (
        isinstance(wrong(lambda: endpoint(serve(raw(json.dumps(body), status))).stream(ASK)), ContextOverflowError)
        is full
    )


def test_a_reply_that_is_no_use_is_told_from_a_model_that_cannot_be_asked(serve: Callable[..., Server]) -> None:
    kinds = [
        (said(None, ("c", "look", '{"a"')), UnusableReplyError),
        (said(""), UnusableReplyError),
        (said(None, ("c", "look", '{"a"'), end="length"), CutReplyError),
        (said(None, end="length"), CutReplyError),
        (cut, ChatError),
        (said("It is", end="content_filter"), ChatError),
    ]
    for answer, kind in kinds:
        assert type(wrong(lambda answer=answer: endpoint(serve(answer)).reply(ASK, tools=[LOOK]))) is kind


@pytest.mark.parametrize(("answer", "status", "why"), BROKEN)
def test_whatever_a_server_does_is_a_reply_or_an_error_that_says_what_to_do(
    serve: Callable[..., Server], answer: Answer, status: int, why: str
) -> None:
    chat = endpoint(serve(answer))
    for call in (lambda: chat.reply(ASK), lambda: chat.reply(ASK, tools=[LOOK], schema=None)):
        error = wrong(call)
        assert error.status == status and why in str(error)


def test_a_server_that_hangs_or_is_gone(serve: Callable[..., Server]) -> None:
    released: list[object] = []

    def hang(handler: BaseHTTPRequestHandler) -> None:
        released.append(handler.rfile.read(1))  # until the client hangs up

    server = serve(hang)
    chat = endpoint(server, timeout=0.1)
    assert "in time" in str(wrong(lambda: chat.reply(ASK)))
    server.close()
    assert "base_url=" in str(wrong(lambda: chat.reply(ASK)))


# --- a stream ---


STREAMING: dict[str, Endpoint] = {}
"""A client for each server: it takes a tenth of a second to make one."""


@pytest.fixture
def one_server(serve: Callable[..., Server]) -> Server:
    server = serve(busy)
    STREAMING[server.url] = endpoint(server)
    return server


def pieces(text: str, places: Sequence[int]) -> list[str]:
    bounds = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(bounds)]


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.lists(st.integers(0, 30), max_size=5),
    st.integers(0, 6),
    st.booleans(),
)
@example("whole", [2], 6, False)
@example("cut", [1], 1, True)
def test_a_stream_is_its_whole_text_or_an_error_and_loses_nothing(
    one_server: Server, text: str, places: list[int], until: int, torn: bool
) -> None:
    cut_up = pieces(text, places)
    events = [*map(chunk, cut_up), chunk(end="stop"), "[DONE]"]
    kept = events[:until]
    one_server.replies = [sent(*kept, torn=torn and kept != events)]
    chat, got = STREAMING[one_server.url], []
    before, stream = chat.usage, chat.stream(ASK)
    if kept == events or (kept == events[:-1] and not torn):
        if text.strip():
            got = list(stream)
            assert stream.reply.text == text and stream.reply.usage.calls == 1
        else:
            assert "empty" in str(wrong(lambda: got.extend(stream)))
    else:
        wrong(lambda: got.extend(stream))
        with pytest.raises(ChatError, match="not come to its end"):
            _ = stream.reply
    assert stream.text == "".join(cut_up[: len(kept)]) and "".join(got) in (stream.text, "")
    assert (chat.usage.calls, chat.usage.estimated) == (before.calls + 1, before.estimated + 1)


def test_a_stream_carries_calls_and_counts(serve: Callable[..., Server]) -> None:
    def part(index: int | None, id: str | None, name: str | None, arguments: str) -> dict[str, Any]:
        return {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}

    usage = {"id": "1", "choices": [], "usage": COUNTED}
    server = serve(
        sent(
            chunk("I "),
            chunk("look."),
            chunk(calls=[part(0, "c1", "look", "")]),
            chunk(calls=[part(1, "c2", "look", '{"page": "b"}'), part(0, None, None, '{"page"')]),
            chunk(calls=[part(0, None, None, ': "a"}')]),
            chunk(end="tool_calls"),
            usage,
            "[DONE]",
        ),
        sent(
            chunk(calls=[part(None, None, "look", '{"page": "a"}'), part(None, None, "look", "{}")]), chunk(end="stop")
        ),
    )
    chat = endpoint(server, prices=Prices(1.0, 2.0))
    with chat.stream(ASK, tools=[LOOK], temperature=0.3, limit=9) as stream:
        assert list(stream) == ["I ", "look."]
    assert stream.reply.calls == (Call("c1", "look", {"page": "a"}), Call("c2", "look", {"page": "b"}))
    assert stream.reply.usage == chat.usage == Usage(100, 7, 1, pytest.approx(114e-6), 0)
    (request,) = server.requests
    assert request["stream"] is True and request["stream_options"] == {"include_usage": True}
    assert (request["temperature"], request["max_tokens"], len(request["tools"])) == (0.3, 9, 1)
    assert "a stream is not repaired" in str(wrong(lambda: list(chat.stream(ASK, tools=[LOOK]))))


@pytest.mark.parametrize(
    "answer",
    [
        sent(chunk("koa"), '{"error": {"message": "secretkoala"}}'),
        sent(chunk("koa"), "{not json, secretkoala"),
        sent(chunk("koa"), "[" * 100_000),
        sent(chunk("koa"), {"choices": [{"delta": {"content": 7}}]}),
        sent(chunk("koa"), {"choices": [7]}),
        sent(chunk("koa"), chunk(calls=[{"index": 0}])),
        sent(chunk("koa"), torn=True),
        sent(chunk("koa"), "[DONE]"),
    ],
)
def test_a_stream_that_breaks_keeps_what_came(serve: Callable[..., Server], answer: Answer) -> None:
    chat, got = endpoint(serve(answer)), []
    stream = chat.stream(ASK)
    wrong(lambda: got.extend(stream))
    assert stream.text == "koa" and chat.usage == Usage(estimate(ASK), 1, 1, 0.0, 1)
    assert list(stream) == []  # it has ended
    stream.close()
    assert chat.usage.calls == 1


@pytest.mark.parametrize("answer", [raw("<html>secretkoala</html>", 200, "text/html"), said("whole"), raw("")])
def test_what_is_no_stream_is_an_error(serve: Callable[..., Server], answer: Answer) -> None:
    assert ".text" in str(wrong(lambda: list(endpoint(serve(answer)).stream(ASK))))


@pytest.mark.parametrize("read", [0, 1])
def test_a_stream_that_is_left_early_is_counted_once(serve: Callable[..., Server], read: int) -> None:
    chat = endpoint(serve(sent(*[chunk("four")] * 3, chunk(end="stop"))))
    with chat.stream(ASK) as stream:
        for _ in range(read):
            next(stream)
    stream.close()
    assert stream.text == "four" * read and chat.usage == Usage(estimate(ASK), read, 1, 0.0, 1)
    assert list(stream) == []


def test_a_server_that_cannot_count_streams_streams_all_the_same(serve: Callable[..., Server]) -> None:
    server = serve(refusing("stream_options", sent(chunk("ok"), chunk(end="stop"))))
    chat = endpoint(server)
    assert list(chat.stream(ASK)) == list(chat.stream(ASK)) == ["ok"]
    assert ["stream_options" in request for request in server.requests] == [True, False, False]
    assert wrong(lambda: endpoint(serve(echo(400))).stream(ASK)).status == 400


# --- tokens ---

usages = st.builds(Usage, *[st.integers(0, 1000)] * 3, st.integers(0, 50).map(float), st.integers(0, 9))


@given(usages, usages, usages)
def test_what_was_spent_adds_up_in_any_order(one: Usage, two: Usage, three: Usage) -> None:
    assert (one + two) + three == one + (two + three) and one + two == two + one and one + Usage() == one
    assert (one + two).tokens == one.tokens + two.tokens


@given(st.text(), st.text())
def test_an_estimate_grows_with_what_is_sent(text: str, more: str) -> None:
    one, two = Message(Role.USER, text), Message(Role.ASSISTANT, more, (Call("c", "look", {"page": more}),))
    assert estimate([one]) < estimate([one, two]) < estimate([one, two], [LOOK])
    assert estimate([one]) <= estimate([Message(Role.USER, text + more)])
