"""``Memory`` over HTTP: the same calls by the same names, with the same results and the same errors.

    with Client("http://127.0.0.1:8200", key, user="ana") as memory:
        memory.add("I moved to Lisbon in May")
        memory.search("where does Ana live?")[0].why

    async with AsyncClient("http://127.0.0.1:8200", key, user="ana") as memory:
        await memory.search("where does Ana live?")

Only what changes nothing, or the same a second time, is tried again where the connection fails.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Self

from holdfast.client.answers import Forgotten, Revoked, error
from holdfast.client.calls import AccessCalls, Calls, LessonCalls, PastCalls
from holdfast.client.wire import AsyncHttp, AsyncWire, Http, Later, Now, Wire
from holdfast.cube import Cube, utc
from holdfast.errors import InputError

__all__ = [
    "Access",
    "AsyncAccess",
    "AsyncClient",
    "AsyncLessons",
    "AsyncPast",
    "Client",
    "Forgotten",
    "Lessons",
    "Past",
    "Revoked",
]


class Client(Calls, Now):
    """A memory behind a server. Safe for any number of threads.

    Args:
        address: the server's.
        key: the owner's or a principal's.
        tenant, user, agent, session: the scope of every call that names no other.
        timeout: seconds.
        http: a client of one's own, with its address; it is closed by whoever made it.

    Every call raises what ``Memory`` raises, and StoreError where the server cannot be reached.
    """

    def __init__(
        self,
        address: str,
        key: str,
        *,
        tenant: str = "default",
        user: str | None = None,
        agent: str | None = None,
        session: str | None = None,
        timeout: float = 30.0,
        http: Http | None = None,
    ) -> None:
        wire = Wire(http or Http(base_url=_whole(address), timeout=timeout), key, own=http is None)
        super().__init__(wire, {"tenant": tenant, "user": user, "agent": agent, "session": session})
        self.access = Access(wire, {})

    def as_of(self, known: datetime | str | None = None, *, true_at: datetime | str | None = None) -> Past:
        """See ``Memory.as_of``."""
        return Past(self._wire, self._defaults, known, true_at)

    def lessons(self, **scope: str | None) -> Lessons:
        """See ``Memory.lessons``."""
        return Lessons(self._wire, self._scope(scope))

    def bring(self, cubes: Iterable[Cube], **scope: str | None) -> Iterator[dict[str, Any]]:
        """Send cubes; what the server acknowledges, batch after batch, each once it is durable. Where it broke off: again."""
        with self._wire.lines("POST", "import", self._scope(scope), map(_line, cubes)) as told:
            yield from map(_acknowledged, told)

    def export(self, **scope: str | None) -> Iterator[Cube]:
        """All memories of a scope as they were when this began, whatever their status, oldest first, read as they are asked for."""
        with self._wire.lines("GET", "export", self._scope(scope)) as told:
            yield from (Cube.from_dict(one) for one in told if "holdfast" not in one)

    def close(self) -> None:
        """Close the connections that it made itself."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(Calls, Later):
    """A memory behind a server, for asynchronous programs; as ``Client``, but every call is awaited."""

    def __init__(
        self,
        address: str,
        key: str,
        *,
        tenant: str = "default",
        user: str | None = None,
        agent: str | None = None,
        session: str | None = None,
        timeout: float = 30.0,
        http: AsyncHttp | None = None,
    ) -> None:
        wire = AsyncWire(http or AsyncHttp(base_url=_whole(address), timeout=timeout), key, own=http is None)
        super().__init__(wire, {"tenant": tenant, "user": user, "agent": agent, "session": session})
        self.access = AsyncAccess(wire, {})

    def as_of(self, known: datetime | str | None = None, *, true_at: datetime | str | None = None) -> AsyncPast:
        """See ``Memory.as_of``."""
        return AsyncPast(self._wire, self._defaults, known, true_at)

    def lessons(self, **scope: str | None) -> AsyncLessons:
        """See ``Memory.lessons``."""
        return AsyncLessons(self._wire, self._scope(scope))

    async def bring(
        self, cubes: Iterable[Cube] | AsyncIterable[Cube], **scope: str | None
    ) -> AsyncIterator[dict[str, Any]]:
        """See ``Client.bring``."""

        async def lines() -> AsyncIterator[bytes]:
            if isinstance(cubes, AsyncIterable):
                async for cube in cubes:
                    yield _line(cube)
            else:
                for cube in cubes:
                    yield _line(cube)

        async with self._wire.lines("POST", "import", self._scope(scope), lines()) as told:
            async for one in told:
                yield _acknowledged(one)

    async def export(self, **scope: str | None) -> AsyncIterator[Cube]:
        """See ``Client.export``."""
        async with self._wire.lines("GET", "export", self._scope(scope)) as told:
            async for one in told:
                if "holdfast" not in one:
                    yield Cube.from_dict(one)

    async def close(self) -> None:
        """Close the connections that it made itself."""
        await self._wire.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Past(PastCalls, Now):
    """A memory on a server as it was; see ``AsOf``."""

    def __init__(
        self,
        wire: Wire,
        defaults: Mapping[str, str | None],
        known: datetime | str | None,
        true_at: datetime | str | None,
    ) -> None:
        super().__init__(wire, defaults)
        self.known, self.true_at = (None if when is None else utc(when) for when in (known, true_at))


class AsyncPast(PastCalls, Later):
    """See ``Past``."""

    def __init__(
        self,
        wire: AsyncWire,
        defaults: Mapping[str, str | None],
        known: datetime | str | None,
        true_at: datetime | str | None,
    ) -> None:
        super().__init__(wire, defaults)
        self.known, self.true_at = (None if when is None else utc(when) for when in (known, true_at))


class Lessons(LessonCalls, Now):
    """What was caught before it was acted upon, on a server; see ``LessonStore``."""


class AsyncLessons(LessonCalls, Later):
    """See ``Lessons``."""


class Access(AccessCalls, Now):
    """Who may do what on a server; see ``store.access.Access``."""


class AsyncAccess(AccessCalls, Later):
    """See ``Access``."""


def _whole(address: str) -> str:
    if not address.startswith(("http://", "https://")):
        raise InputError(f"{address!r} is no server's address; one is like http://127.0.0.1:8200")
    return address


def _line(cube: Cube) -> bytes:
    return json.dumps(cube.to_dict()).encode() + b"\n"


def _acknowledged(told: dict[str, Any]) -> dict[str, Any]:
    if "error" in told:
        raise error(told["error"], told["detail"])
    return told
