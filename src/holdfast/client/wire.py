"""How a call gets to a server and back: one that waits for it, one for asynchronous programs, and what both do.

A method of a client is written once, as a function that makes a ``Call``. ``asked`` turns it into the method: it carries the call
over the ``Wire`` of whatever it is a method of, and gives what was asked for, or what can be awaited.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload
from urllib.parse import quote

from holdfast.client.answers import error
from holdfast.cube import Scope
from holdfast.errors import HoldfastError, InputError, MissingExtraError, NotFoundError, StoreError

try:
    import httpx
except ImportError as missing:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[client]'") from missing

Http = httpx.Client
AsyncHttp = httpx.AsyncClient

P = ParamSpec("P")
T = TypeVar("T")

AGAIN = 3
"""So often a call that changes nothing is tried, and any call that the server says it did nothing of."""

PAUSE = 0.2
"""Seconds before a call is tried again, where the server does not say how many."""

PATIENCE = 10.0
"""Who is told to come again later than after so many seconds is not waited for."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call.

    Fields
        path: below ``/v1/``.
        read: makes of the answer's JSON what was asked for.
        params: of the address; None is left out.
        again: whether it may be done twice, as it changes nothing or the same.
        cursor: for what comes in pages, the parameter that the ``next`` of each is given in; ``read`` has a list of all of them.
    """

    method: str
    path: str
    read: Callable[[Any], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    again: bool = False
    cursor: str = ""

    def after(self, told: Any) -> Call[T] | None:
        """The call for the page after this one; None after the last."""
        following = told.get("next") if self.cursor else None
        return None if following is None else replace(self, params={**self.params, self.cursor: following})

    @property
    def request(self) -> dict[str, Any]:
        """As httpx takes it. Raises InputError for what JSON cannot hold."""
        found: dict[str, Any] = {"method": self.method, "url": f"/v1/{self.path}", "params": given(self.params)}
        if self.body is not None:
            try:  # in ASCII, as a text may hold half of a character
                found["content"] = json.dumps(self.body, allow_nan=False)
            except (TypeError, ValueError) as wrong:
                raise InputError(f"what is sent must be plain JSON: {wrong}") from wrong
            found["headers"] = {"Content-Type": "application/json"}
        return found

    def pause(self, answer: httpx.Response, left: int) -> float | None:
        """How many seconds to wait before it is tried once more; None where it is not. Raises what the server says is wrong."""
        if answer.status_code < 400:
            return None
        if left and answer.status_code == 429:  # nothing was done
            wait = _seconds(answer.headers.get("retry-after"))
            if wait <= PATIENCE:
                return wait
        raise refusal(answer)


class Wire:
    """A connection that is waited for. ``http`` is closed with it where ``own`` says so."""

    def __init__(self, http: httpx.Client, key: str, own: bool) -> None:
        self.http, self._own, self._headers = http, own, authorised(key)

    def carry(self, call: Call[T]) -> T:
        """Send a call; what it asked for. Raises what the server says, and StoreError where it does not answer."""
        told, page = [self._told(call)], call
        while (following := page.after(told[-1])) is not None:
            page = following
            told.append(self._told(page))
        return call.read(told if call.cursor else told[0])

    def _told(self, call: Call[Any]) -> Any:
        request = call.request
        headers = {**self._headers, **request.pop("headers", {})}
        for left in range(AGAIN - 1, -1, -1):
            try:
                with reaching():
                    answer = self.http.request(**request, headers=headers)
                pause = call.pause(answer, left)
                if pause is None:
                    return answer.json()
            except Unreachable:
                if not left or not call.again:
                    raise
                pause = PAUSE
            time.sleep(pause)
        raise AssertionError("unreachable")

    @contextmanager
    def lines(
        self, method: str, path: str, params: Mapping[str, Any], content: Iterable[bytes] | None = None
    ) -> Iterator[Iterator[Any]]:
        """The records of an answer that comes line by line. Raises as ``carry``, on the way too."""
        asking = self.http.stream(method, f"/v1/{path}", params=given(params), content=content, headers=self._headers)
        with reaching(), asking as answer:
            if answer.status_code >= 400:
                answer.read()
                raise refusal(answer)
            yield _records(answer.iter_bytes())

    def close(self) -> None:
        """Close it, where it is its own."""
        if self._own:
            self.http.close()


class AsyncWire:
    """A connection that is awaited; as ``Wire``."""

    def __init__(self, http: httpx.AsyncClient, key: str, own: bool) -> None:
        self.http, self._own, self._headers = http, own, authorised(key)

    async def carry(self, call: Call[T]) -> T:
        """See ``Wire.carry``."""
        told, page = [await self._told(call)], call
        while (following := page.after(told[-1])) is not None:
            page = following
            told.append(await self._told(page))
        return call.read(told if call.cursor else told[0])

    async def _told(self, call: Call[Any]) -> Any:
        request = call.request
        headers = {**self._headers, **request.pop("headers", {})}
        for left in range(AGAIN - 1, -1, -1):
            try:
                with reaching():
                    answer = await self.http.request(**request, headers=headers)
                pause = call.pause(answer, left)
                if pause is None:
                    return answer.json()
            except Unreachable:
                if not left or not call.again:
                    raise
                pause = PAUSE
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def lines(
        self, method: str, path: str, params: Mapping[str, Any], content: AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[AsyncIterator[Any]]:
        """See ``Wire.lines``."""
        asking = self.http.stream(method, f"/v1/{path}", params=given(params), content=content, headers=self._headers)
        with reaching():
            async with asking as answer:
                if answer.status_code >= 400:
                    await answer.aread()
                    raise refusal(answer)
                yield _records_later(answer.aiter_bytes())

    async def close(self) -> None:
        """Close it, where it is its own."""
        if self._own:
            await self.http.aclose()


# --- methods ---


class Named:
    """What has a scope that its calls use unless they name their own."""

    _defaults: Mapping[str, str | None]

    def _scope(self, more: Mapping[str, str | None]) -> dict[str, str | None]:
        """The scope that a call means. Raises as ``Memory.scope``."""
        unknown = set(more) - set(self._defaults)
        if unknown:
            raise InputError(f"unknown argument {', '.join(sorted(unknown))}; a scope has tenant, user, agent, session")
        named = {**self._defaults, **{name: value for name, value in more.items() if value is not None}}
        Scope(
            named["tenant"] or "", named["user"] or "", named["agent"], named["session"]
        )  # raises what ``Memory`` raises
        return named


class Now:
    """What carries its calls at once."""

    def __init__(self, wire: Wire, defaults: Mapping[str, str | None]) -> None:
        self._wire, self._defaults = wire, defaults

    def _carried(self, build: Callable[[], Call[T]]) -> T:
        return self._wire.carry(build())


class Later:
    """What carries its calls when they are awaited."""

    def __init__(self, wire: AsyncWire, defaults: Mapping[str, str | None]) -> None:
        self._wire, self._defaults = wire, defaults

    async def _carried(self, build: Callable[[], Call[T]]) -> T:
        return await self._wire.carry(build())


class asked(Generic[P, T]):
    """A method of ``Now`` and of ``Later`` alike, from the function that makes its call."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[T]]) -> None:
        @wraps(build)
        def method(made: Now | Later, *args: P.args, **named: P.kwargs) -> Any:
            return made._carried(lambda: build(made, *args, **named))

        self._method = method

    @overload
    def __get__(self, made: None, owner: type) -> Callable[Concatenate[Any, P], Any]: ...

    @overload
    def __get__(self, made: Now, owner: type) -> Callable[P, T]: ...

    @overload
    def __get__(self, made: Later, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __get__(self, made: Any, owner: type) -> Any:
        return self._method if made is None else MethodType(self._method, made)


# --- parts ---


class Unreachable(StoreError):
    """No answer came."""


@contextmanager
def reaching() -> Iterator[None]:
    """Turns what httpx raises into ours."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as wrong:
        raise Unreachable(f"the server does not answer ({wrong}); is it running there?") from wrong


def refusal(answer: httpx.Response) -> HoldfastError:
    """The error that an answer tells of."""
    try:
        told = answer.json()
        return error(str(told["title"]), str(told["detail"]))
    except (ValueError, KeyError, TypeError):
        return StoreError(f"the server answered {answer.status_code}: {answer.text[:200]}")


def authorised(key: str) -> dict[str, str]:
    """The header that a key goes with. Raises InputError for what can be none."""
    if not key.isascii() or not key.isprintable():
        raise InputError("that is no key: one has letters, digits, - and _ only")
    return {"Authorization": f"Bearer {key}"}


def given(params: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None."""
    return {name: value for name, value in params.items() if value is not None}


def part(id: str) -> str:
    """An id as a part of a path. Raises NotFoundError for what would lead elsewhere."""
    if not isinstance(id, str) or id in ("", ".", "..") or "/" in id:
        raise NotFoundError(f"{id!r} is not a memory's id")
    return quote(id, safe="")


def _seconds(told: str | None) -> float:
    try:
        return max(0.0, float(told or PAUSE))
    except ValueError:
        return PAUSE


def _records(pieces: Iterator[bytes]) -> Iterator[Any]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from map(json.loads, whole)


async def _records_later(pieces: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for one in whole:
            yield json.loads(one)
