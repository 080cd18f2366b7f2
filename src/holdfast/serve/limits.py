"""What a caller may ask: so many calls a second, bodies of such a size, by these names of the server, from no other's pages."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast.errors import InputError
from holdfast.serve.calls import bearer, told

CALLERS = 10_000
"""So many callers are kept count of; who has not called for longest is forgotten first."""

STREAMED = frozenset({"/v1/import"})
"""Addresses whose bodies may be of any length: they are read piece by piece."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is allowed.

    Fields
        rate: calls a second of one key, in the long run; 0: no limit.
        burst: calls at once.
        body: bytes of a body.
        idle: seconds that a body may pause; who sends nothing for longer holds a connection for nothing.
    """

    rate: float = 50.0
    burst: int = 200
    body: int = 4 * 2**20
    idle: float = 30.0

    def __post_init__(self) -> None:
        if self.rate < 0 or self.burst < 1 or self.body < 1 or self.idle <= 0:
            raise InputError("a rate is 0 or more, a burst and a body are 1 or more, and idle is more than 0")


class Limited:
    """A wall around an application. Names of the server that are not its own, and pages of another origin, are refused."""

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        hosts: Collection[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._limits, self._hosts, self._clock = app, limits, frozenset(hosts), clock
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        refused = self._refused(headers, scope)
        if refused is not None:
            return await refused(scope, receive, send)
        receive = self._bounded(receive, None if scope["path"] in STREAMED else self._limits.body)
        return await self._app(scope, receive, send)

    def _refused(self, headers: Headers, scope: Scope) -> ASGIApp | None:
        if self._hosts and _name(headers.get("host", "")) not in self._hosts:
            return told(421, "InputError", "this server is not known by that name; start it with --allow-host NAME")
        origin = headers.get("origin")
        if origin is not None and self._hosts and _place(origin) != headers.get("host", "").lower():
            return told(403, "AccessError", f"a page of {origin} may not call this server")
        size = headers.get("content-length", "")
        if scope["path"] not in STREAMED and size.isdecimal() and int(size) > self._limits.body:
            return told(413, "InputError", self._too_large())
        wait = self._wait(bearer(headers.get("authorization")) or str((scope.get("client") or ("",))[0]))
        if wait > 0:
            words = f"more than {self._limits.rate:g} calls a second; come again in {wait:.1f} s"
            return told(429, "InputError", words, {"Retry-After": str(math.ceil(wait))})
        return None

    def _wait(self, caller: str) -> float:
        """Take a call from a caller's bucket; how many seconds it is to wait, where there is none."""
        if not self._limits.rate:
            return 0.0
        who, now = hashlib.sha256(caller.encode("utf-8", "surrogatepass")).digest(), self._clock()
        left, seen = self._buckets.pop(who, (float(self._limits.burst), now))
        left = min(float(self._limits.burst), left + (now - seen) * self._limits.rate)
        short = max(0.0, 1.0 - left)
        self._buckets[who] = (left if short else left - 1.0, now)
        while len(self._buckets) > CALLERS:
            self._buckets.popitem(last=False)
        return short / self._limits.rate

    def _bounded(self, receive: Receive, most: int | None) -> Receive:
        read, whole = 0, False

        async def counted() -> Message:
            nonlocal read, whole
            if whole:  # from now on it is only waited for that the caller goes away
                return await receive()
            try:
                async with asyncio.timeout(self._limits.idle):
                    message = await receive()
            except TimeoutError:
                words = f"the body paused for more than {self._limits.idle:g} s"
                raise HTTPException(408, words, {"Connection": "close"}) from None
            read += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if most is not None and read > most:
                raise HTTPException(413, self._too_large())
            return message

        return counted

    def _too_large(self) -> str:
        return f"a body may have {self._limits.body:,} bytes; send many memories to /v1/import"


def _place(origin: str) -> str:
    """The host and port of an origin, as a Host header has them; "" for what is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name(host: str) -> str:
    """A host without its port, in lower case: ``[::1]:80`` is ``::1``."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
