"""``Memory`` for asynchronous programs: the same calls, on a bounded pool of threads of its own.

The store is synchronous because SQLite is; a call here never blocks the event loop, works on any loop, and at most
``workers`` of them run at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from holdfast.cube import Cube
from holdfast.memory import Added, Memory
from holdfast.retrieve.hits import Hits
from holdfast.retrieve.resemblance import Likeness
from holdfast.retrieve.utility import Useful
from holdfast.store.forget import Receipt
from holdfast.store.rewards import Rewarded

if TYPE_CHECKING:
    from holdfast.guard.precedents import Precedents

P = ParamSpec("P")
T = TypeVar("T")


class AsyncMemory:
    """An asynchronous view of a ``Memory``; takes the same arguments. ``memory`` is the synchronous one beneath."""

    def __init__(self, *args: Any, workers: int = 4, **options: Any) -> None:
        self.memory = Memory(*args, **options)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="holdfast-async")

    async def run(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """Run any call of ``memory`` on the pool: ``await m.run(m.memory.history, id, user="ana")``."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(call, *args, **options))

    async def add(self, *args: Any, **options: Any) -> Added:
        """See ``Memory.add``."""
        return await self.run(self.memory.add, *args, **options)

    async def search(self, *args: Any, **options: Any) -> Hits:
        """See ``Memory.search``."""
        return await self.run(self.memory.search, *args, **options)

    async def context(self, *args: Any, **options: Any) -> str:
        """See ``Memory.context``."""
        return await self.run(self.memory.context, *args, **options)

    async def alike(self, *args: Any, **options: Any) -> list[Likeness]:
        """See ``Memory.alike``."""
        return await self.run(self.memory.alike, *args, **options)

    async def precedents(self, *args: Any, **options: Any) -> Precedents:
        """See ``Memory.precedents``."""
        return await self.run(self.memory.precedents, *args, **options)

    async def get(self, *args: Any, **options: Any) -> Cube:
        """See ``Memory.get``."""
        return await self.run(self.memory.get, *args, **options)

    async def feedback(self, *args: Any, **options: Any) -> dict[str, str]:
        """See ``Memory.feedback``."""
        return await self.run(self.memory.feedback, *args, **options)

    async def useful(self, *args: Any, **options: Any) -> Useful:
        """See ``Memory.useful``."""
        return await self.run(self.memory.useful, *args, **options)

    async def reward(self, *args: Any, **options: Any) -> Rewarded:
        """See ``Memory.reward``."""
        return await self.run(self.memory.reward, *args, **options)

    async def forget(self, *args: Any, **options: Any) -> Receipt:
        """See ``Memory.forget``."""
        return await self.run(self.memory.forget, *args, **options)

    async def flush(self) -> None:
        """See ``Memory.flush``."""
        await self.run(self.memory.flush)

    async def close(self) -> None:
        """Wait for the calls under way, then close the memory and the pool."""
        await asyncio.to_thread(self._pool.shutdown)
        await asyncio.to_thread(self.memory.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
