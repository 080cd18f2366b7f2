"""Memories in and out, any number of them, in memory that does not grow: newline-delimited JSON.

An import acknowledges batch after batch, each once it is durable. Whoever was cut off sends all of it again: what is there already
is counted as known, and nothing is kept twice.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from holdfast.cube import Scope as Place
from holdfast.errors import HoldfastError, InputError
from holdfast.memory import Memory
from holdfast.serve.calls import PROBLEMS, Held, Named, Route, line
from holdfast.store.base import Where
from holdfast.store.grants import Right
from holdfast.store.transfer import FORMAT, Imported, bring_in, read_jsonl

routes = APIRouter(tags=["transfer"], responses=PROBLEMS, route_class=Route)

LINES = "application/x-ndjson"

BATCH, BATCH_BYTES, LONGEST = 256, 2**20, 64 * 2**20
"""Lines and bytes of a batch, and bytes of one line."""

_RECORDS = "Cubes as `GET /v1/export` gives them, one a line."


class _Told(Response):
    """Lines that are sent as they come, while the body of the request is still read.

    Most clients send all before they read anything: what they do not take yet waits here, so that they can send on. It is
    a line a batch.
    """

    media_type = LINES

    def __init__(self, lines: AsyncIterator[bytes]) -> None:
        super().__init__()
        self._lines = lines
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  (ASGI)
        waiting = asyncio.Queue[bytes | None]()

        async def tell() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while (one := await waiting.get()) is not None:
                await send({"type": "http.response.body", "body": one, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        telling = asyncio.create_task(tell())
        try:
            async for one in self._lines:
                waiting.put_nowait(one)
                if telling.done():  # nobody is told any more
                    break
            waiting.put_nowait(None)
            await telling
        finally:
            telling.cancel()


@routes.post(
    "/import",
    operation_id="bring",
    response_class=Response,
    openapi_extra={"requestBody": {"content": {LINES: {"schema": {"type": "string", "description": _RECORDS}}}}},
)
async def bring(request: Request, memory: Held, scope: Named) -> Response:
    """Bring memories in; a line of the answer for each batch that is durable, and one that ends with an error or ``done``."""
    here = await run_in_threadpool(_writable, memory, scope)

    async def answers() -> AsyncIterator[bytes]:
        number, kept, known = 0, 0, 0
        called: dict[str, str] = {}  # what lies here by another id: what is derived from it may come in a later batch
        try:
            async for batch in _batches(request):
                done = await run_in_threadpool(_brought, memory, batch, here, called)
                number, kept, known = number + len(batch), kept + len(done.ids), known + done.duplicates
                yield line({"line": number, "kept": kept, "known": known, "notes": done.notes, "edited": done.edited})
        except HoldfastError as error:
            told = {"error": type(error).__name__, "detail": f"after line {number}: {error}"}
            yield line({"line": number, "kept": kept, "known": known, **told})
            return
        except HTTPException as error:  # the body paused for too long
            told = {"error": "InputError", "detail": f"after line {number}: {error.detail}"}
            yield line({"line": number, "kept": kept, "known": known, **told})
            return
        yield line({"line": number, "kept": kept, "known": known, "done": True})

    return _Told(answers())


def _writable(memory: Memory, scope: dict[str, Any]) -> Place:
    """The scope; what is refused is refused before the answer begins."""
    here = memory.scope(**scope)
    memory.store.reach(here, Right.WRITE)
    return here


def _brought(memory: Memory, lines: list[str], here: Place, called: dict[str, str]) -> Imported:
    return bring_in(memory.door, read_jsonl(lines, here), actor=here.path, called=called)


async def _batches(request: Request) -> AsyncIterator[list[str]]:
    begun, length, batch, size = list[bytes](), 0, list[str](), 0
    async for chunk in request.stream():
        *whole, rest = chunk.split(b"\n")
        if whole:  # joined once: a long line must not be copied with every piece of it
            whole[0] = b"".join((*begun, whole[0]))
            begun, length = [], 0
        begun.append(rest)
        length += len(rest)
        for one in whole:
            batch.append(one.decode("utf-8", "replace"))
            size += len(one)
            if len(batch) >= BATCH or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if length > LONGEST:
            raise InputError(f"a line may have {LONGEST:,} bytes")
    if length:
        batch.append(b"".join(begun).decode("utf-8", "replace"))
    if batch:
        yield batch


@routes.get(
    "/export",
    operation_id="take",
    response_class=Response,
    responses={200: {"content": {LINES: {"schema": {"type": "string"}}}}},
)
def take(memory: Held, scope: Named) -> Response:
    """All memories of a scope as they are at this moment, what was retracted too, one a line.

    They are read while they are sent, and nothing is locked meanwhile: the versions are chosen at the beginning, and a version
    never changes. What is forgotten on the way is left out. Where a right to read ends on the way, the answer breaks off.
    """
    here = memory.scope(**scope)
    chosen = memory.store.numbers(here, Where())

    def lines() -> Iterator[bytes]:
        yield line(
            {"holdfast": FORMAT}
        )  # the rest is in ASCII, as ``export_jsonl`` writes it: no letter of it ends a line
        for start in range(0, len(chosen), BATCH):
            found = memory.store.cubes_at(here, chosen[start : start + BATCH].tolist())
            yield "".join(json.dumps(found[rid].to_dict()) + "\n" for rid in sorted(found)).encode()

    more = {"Content-Disposition": 'attachment; filename="memories.jsonl"', "Cache-Control": "no-store"}
    return StreamingResponse(lines(), media_type=LINES, headers=more)
