"""What a caller may ask: so many calls and bytes a second, bodies of such a size, by these names, from no other's pages."""

from __future__ import annotations

import asyncio
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
from holdfast.serve.calls import bearer, digest, told

CALLERS = 10_000
"""So many callers are kept count of; who has not called for longest is forgotten first."""

STREAMED = frozenset({"/v1/import"})
"""Addresses whose bodies may be of any length: they are read piece by piece."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one caller is allowed: a principal, by whichever of its keys, or the owner.

    Fields
        rate: calls a second, in the long run; 0: no limit.
        burst: calls at once.
        body: bytes of a body.
        flow: bytes a second of all its bodies, in the long run; who sends more is read from more slowly. 0: no limit.
        idle: seconds that a body may pause; who sends nothing for longer holds a connection for nothing.
    """

    rate: float = 50.0
    burst: int = 200
    body: int = 4 * 2**20
    flow: float = 16 * 2**20
    idle: float = 30.0

    def __post_init__(self) -> None:
        if self.rate < 0 or self.flow < 0 or self.burst < 1 or self.body < 1 or self.idle <= 0:
            raise InputError(
                "a rate and a flow are 0 or more, a burst and a body are 1 or more, and idle is more than 0"
            )


class Buckets:
    """So much a second for each caller, and ``size`` at once.

    ``lends``: whoever takes more than is there has it, and waits until it is made up for; otherwise it gets nothing.
    """

    def __init__(self, rate: float, size: float, clock: Callable[[], float], *, lends: bool = False) -> None:
        self._rate, self._size, self._clock, self._lends = rate, size, clock, lends
        self._left: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def take(self, who: bytes, amount: float = 1.0) -> float:
        """Take so much from a caller's bucket; how many seconds it is to wait."""
        if not self._rate:
            return 0.0
        now = self._clock()
        left, seen = self._left.pop(who, (self._size, now))
        left = min(self._size, left + (now - seen) * self._rate)
        short = max(0.0, amount - left)
        self._left[who] = (left - amount if self._lends or not short else left, now)
        while len(self._left) > CALLERS:
            self._left.popitem(last=False)
        return short / self._rate


class Limited:
    """A wall around an application. Names of the server that are not its own, and pages of another origin, are refused.

    ``named``: whose a key is, by its digest, where that is known without a look at the store. A key is counted with all others that
    come from its address until it has opened something, so that nobody may try one after another, and with all of its principal's
    from then on.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        hosts: Collection[str],
        named: Callable[[bytes], str | None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._limits, self._hosts, self._named = app, limits, frozenset(hosts), named
        self._calls = Buckets(limits.rate, float(limits.burst), clock)
        self._bytes = Buckets(limits.flow, float(limits.flow), clock, lends=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        who = self._who(headers, scope)
        refused = self._refused(headers, scope, who)
        if refused is not None:
            return await refused(scope, receive, send)
        receive = self._bounded(receive, None if scope["path"] in STREAMED else self._limits.body, who)
        return await self._app(scope, receive, send)

    def _who(self, headers: Headers, scope: Scope) -> bytes:
        """Who calls, as far as it is counted: a principal, or an address."""
        key = bearer(headers.get("authorization"))
        name = None if key is None else self._named(digest(key))
        if name is None:
            return b"address " + str((scope.get("client") or ("",))[0]).encode()
        return b"principal " + name.encode()

    def _refused(self, headers: Headers, scope: Scope, who: bytes) -> ASGIApp | None:
        if self._hosts and _name(headers.get("host", "")) not in self._hosts:
            return told(421, "InputError", "this server is not known by that name; start it with --allow-host NAME")
        origin = headers.get("origin")
        if origin is not None and self._hosts and _place(origin) != headers.get("host", "").lower():
            return told(403, "AccessError", f"a page of {origin} may not call this server")
        size = headers.get("content-length", "")
        if scope["path"] not in STREAMED and size.isdecimal() and int(size) > self._limits.body:
            return told(413, "InputError", self._too_large())
        wait = self._calls.take(who)
        if wait > 0:
            words = f"more than {self._limits.rate:g} calls a second; come again in {wait:.1f} s"
            return told(429, "InputError", words, {"Retry-After": str(math.ceil(wait))})
        return None

    def _bounded(self, receive: Receive, most: int | None, who: bytes) -> Receive:
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
            size = len(message.get("body", b""))
            read += size
            whole = not message.get("more_body", False)
            if most is not None and read > most:
                raise HTTPException(413, self._too_large())
            if size and (wait := self._bytes.take(who, size)):
                await asyncio.sleep(wait)
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
