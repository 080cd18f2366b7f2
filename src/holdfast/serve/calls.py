"""What every route needs: the memory in the caller's hands, the scope that is named, and errors that say what to do.

Who calls is told by ``Authorization: Bearer KEY``. What a key may do is checked in the store at every call, and nowhere here.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import inspect
import json
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

from holdfast.errors import (
    AccessError,
    ChatError,
    ConflictError,
    EmbedderError,
    ExtractionError,
    GuardError,
    HoldfastError,
    InputError,
    MissingExtraError,
    NotFoundError,
    ScopeError,
    StoreError,
)
from holdfast.memory import Memory
from holdfast.retrieve.hits import Hit, Hits
from holdfast.store.access import HeldStore

try:
    import orjson
    from fastapi import Depends, FastAPI, Request, Security
    from fastapi.concurrency import run_in_threadpool
    from fastapi.exceptions import RequestValidationError
    from fastapi.openapi.models import HTTPBearer
    from fastapi.responses import JSONResponse as PlainJson
    from fastapi.responses import Response
    from fastapi.routing import APIRoute
    from fastapi.security.base import SecurityBase
    from pydantic import BaseModel
    from starlette.exceptions import HTTPException
except ImportError as error:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[serve]'") from error

KEY_BYTES = 32

NAMED = 10_000
"""Of so many keys it is remembered whose they are."""


class UnknownKeyError(AccessError):
    """No key came with the call, or one that opens nothing."""


_STATUS: tuple[tuple[type[HoldfastError], int], ...] = (
    (UnknownKeyError, 401),
    (ScopeError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (GuardError, 409),
    (InputError, 422),
    (StoreError, 503),
    (EmbedderError, 503),
    (ChatError, 503),
    (ExtractionError, 503),
)


class Door:
    """Opens a memory for the holder of a key: the owner's own, of which only the hash is held, or a principal's.

    Args:
        memory: the owner's. Raises AccessError for another.
        owner_key: opens everything. ``own_key`` makes one.
    """

    def __init__(self, memory: Memory, owner_key: str) -> None:
        _ = memory.access
        if len(owner_key) < KEY_BYTES:
            raise InputError(f"the owner's key needs {KEY_BYTES} characters at least; let holdfast serve make one")
        self._memory, self._owner = memory, digest(owner_key)
        self._names: OrderedDict[bytes, str] = OrderedDict()
        self._naming = Lock()

    def owned(self, key: str | None) -> Memory | None:
        """The owner's memory for the owner's key, without a look at the store; None for another's. Raises UnknownKeyError."""
        if key is None:
            raise UnknownKeyError("this call brings no key; send one as: Authorization: Bearer KEY")
        return self._memory if hmac.compare_digest(digest(key), self._owner) else None

    def __call__(self, key: str) -> Memory:
        """The memory in the hands of a principal, by its key. Raises UnknownKeyError."""
        try:
            held = self._memory.with_key(key)
        except AccessError as error:
            raise UnknownKeyError(str(error)) from error
        known = digest(key)
        if known not in self._names and isinstance(held.store, HeldStore):
            with self._naming:
                self._names[known] = held.store.holder
                while len(self._names) > NAMED:
                    self._names.popitem(last=False)
        return held

    def named(self, key: bytes) -> str | None:
        """Whose a key is, by its digest, where it has opened anything lately, "" for the owner's; without a look at the store."""
        return "" if hmac.compare_digest(key, self._owner) else self._names.get(key)


def own_key(file: Path) -> tuple[str, bool]:
    """The owner's key in a file that only its owner may read, and whether it was made just now. Raises InputError."""
    try:
        try:
            opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            if os.name == "posix" and file.stat().st_mode & 0o077:
                raise InputError(f"others may read {file}; change that with: chmod 600 {file}") from None
            return file.read_text("ascii").strip(), False
        key = secrets.token_urlsafe(KEY_BYTES)
        with os.fdopen(opened, "w") as out:
            out.write(key + "\n")
        return key, True
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the owner's key cannot be kept in {file}: {error}") from error


def digest(key: str) -> bytes:
    """What a key is known by where it is not to be kept."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def bearer(header: str | None) -> str | None:
    """The key in ``Authorization: Bearer KEY``, however that is spelt; None where there is none."""
    kind, _, key = (header or "").strip().partition(" ")
    return (key.strip() or None) if kind.lower() == "bearer" else None


# --- what routes depend on ---


class _Bearer(SecurityBase):
    """Lets the OpenAPI document say how to come in; who may is asked of the ``Door``."""

    def __init__(self) -> None:
        self.model, self.scheme_name = HTTPBearer(bearerFormat="a key of Holdfast's"), "key"

    async def __call__(self, request: Request) -> Memory:
        door: Door = request.app.state.door
        key = bearer(request.headers.get("authorization"))
        owned = door.owned(key)
        return await run_in_threadpool(door, str(key)) if owned is None else owned


_SCOPE = {
    "user": "whose memories",
    "tenant": "of which organisation; 'default' where it is not named",
    "agent": "of which agent of theirs",
    "session": "of which conversation",
}


# Both read the request themselves: for a search, FastAPI's way of declaring what they read took longer than the search.
async def _scope(request: Request) -> dict[str, str | None]:
    named = request.query_params
    if "user" not in named:
        raise InputError("the address says not whose memories it is about; end it with ?user=NAME")
    return {"tenant": "default", **{name: named[name] for name in _SCOPE if name in named}}


_key = _Bearer()

Held = Annotated[Memory, Security(_key)]
"""The memory as whoever calls may use it."""

Named = Annotated[dict[str, Any], Depends(_scope)]
"""The scope that the address names: ``?user=ana&tenant=default&agent=&session=``."""


class JSONResponse(PlainJson):
    """JSON of whatever a memory holds: half of a character, which UTF-8 cannot write, is escaped."""

    def render(self, content: Any) -> bytes:
        """See Starlette."""
        return written(content)


class Route(APIRoute):
    """A route that is answered from the thread it ran on: FastAPI would take another one to look through what it says.

    Where it has a scope, the OpenAPI document says how that is named.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        called, status = endpoint, options.get("status_code") or 200
        if not inspect.iscoroutinefunction(called):

            @functools.wraps(called)
            def endpoint(*args: Any, **named: Any) -> Response:
                found = called(*args, **named)
                return found if isinstance(found, Response) else JSONResponse(found, status)

        if "scope" in inspect.signature(called).parameters:
            said = [
                {
                    "name": name,
                    "in": "query",
                    "required": name == "user",
                    "description": what,
                    "schema": {"type": "string"},
                }
                for name, what in _SCOPE.items()
            ]
            options["openapi_extra"] = {**(options.get("openapi_extra") or {}), "parameters": said}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI. One that takes a memory, a scope and one body is called at once, in less than half of the time."""
        plain, called = super().get_route_handler(), self.endpoint
        names = [*inspect.signature(called).parameters]
        body = self.body_field.field_info.annotation if names[:2] == ["memory", "scope"] and self.body_field else None
        if len(names) != 3 or not isinstance(body, type) or not issubclass(body, BaseModel):
            return plain

        async def handler(request: Request) -> Response:
            if request.headers.get("content-type") != "application/json":
                return await plain(request)
            memory, scope = await _key(request), await _scope(request)
            try:
                asked = body.model_validate(orjson.loads(await request.body()))
            except (ValueError, RecursionError):
                return await plain(request)  # which says what is wrong
            told: Response = await run_in_threadpool(called, memory, scope, asked)
            return told

        return handler


# --- what is told ---


def told_hit(hit: Hit) -> dict[str, Any]:
    """As ``Hit.to_dict``, which rounds for people, with its numbers as they are."""
    return {
        "id": hit.id,
        "text": hit.text,
        "score": hit.score,
        "relevance": hit.relevance,
        "channels": dict(hit.channels),
        "why": hit.why,
        "cube": hit.cube.to_dict(),
        "before": [cube.to_dict() for cube in hit.before],
        "after": [cube.to_dict() for cube in hit.after],
    }


def told_hits(hits: Hits) -> dict[str, Any]:
    """What a search found."""
    told = [told_hit(hit) for hit in hits]
    return {"hits": told, "abstain": hits.abstain, "reason": hits.reason, "degraded": list(hits.degraded)}


# --- what went wrong ---


def told(status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """A problem in the words of RFC 9457; ``title`` is the name of Holdfast's error where it is one."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    more = {"Cache-Control": "no-store", **(headers or {})}
    return JSONResponse(body, status, more, media_type="application/problem+json")


def add_problems(app: FastAPI) -> None:
    """Let every error leave ``app`` as such a problem."""

    def ours(_: Request, error: Exception) -> JSONResponse:
        status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
        more = {"WWW-Authenticate": "Bearer"} if status == 401 else None
        return told(status, type(error).__name__.lstrip("_"), str(error), more)

    def malformed(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return told(422, "InputError", wrong)

    def plain(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        title = "NotFoundError" if error.status_code == 404 else "InputError"
        return told(error.status_code, title, str(error.detail), dict(error.headers or {}))

    app.add_exception_handler(HoldfastError, ours)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, plain)


PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {
        "description": what,
        "content": {"application/problem+json": {"schema": {"type": "object", "required": ["title", "detail"]}}},
    }
    for code, what in {
        401: "no key, or one that opens nothing",
        403: "the key's holder may not do this here",
        404: "there is no such memory in this scope",
        409: "the memory has changed, its status forbids this, or the guard does",
        413: "the body is too large",
        422: "the input cannot be used as it is",
        429: "too many calls; Retry-After says when to come again",
        503: "the store, or a model that this needs, cannot be reached",
    }.items()
}
"""What any route may answer instead, for the OpenAPI document."""


def written(record: Any) -> bytes:
    """A record as JSON."""
    try:
        return orjson.dumps(record, option=orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME)
    except TypeError:  # half of a character, a number of more than 64 bits, a key that is none
        return json.dumps(record, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


def line(record: Any) -> bytes:
    """One line of newline-delimited JSON."""
    return written(record) + b"\n"
