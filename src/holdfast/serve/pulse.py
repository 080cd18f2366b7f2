"""What goes on in a scope at this moment, for a page that stays open: cheap while nothing does.

Each look asks for two numbers that move when anything is written or indexed. Only when they have is the rest counted again, once
for all pages that may see the same, and never so often that it takes more than a small share of a core.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastapi.concurrency import run_in_threadpool

from holdfast.errors import AccessError, HoldfastError
from holdfast.memory import Memory
from holdfast.store.grants import Reach, Right

BEAT = 1.0
"""Seconds between two looks."""

STALE = 10.0
"""Seconds after which all is counted again though nothing was written: memories expire, and jobs fail, without a word."""

SHARE = 20
"""A count that took so long is not repeated for this many times as long."""

_QUIET = 15  # looks without news after which the other side is told that somebody is there
_KEPT = 256  # scopes of which the last count is kept
_NEWEST = 6  # memories that are told in full


@dataclass(slots=True)
class _Seen:
    marks: tuple[Any, ...]
    told: dict[str, Any]
    rests: float  # until then it is not counted again, whatever happens
    stale: float
    counting: bool = False


class Pulse:
    """The last count of each scope, shared by everybody who may see the same of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: OrderedDict[Reach, _Seen] = OrderedDict()

    def look(self, memory: Memory, scope: dict[str, Any]) -> dict[str, Any]:
        """As ``status``, perhaps of a moment ago. Raises AccessError where the caller may read nothing there now."""
        store = memory.store
        reach = store.reach(memory.scope(**scope), Right.READ)
        part = store.partition(reach.scope)
        changes = None if part is None else store.owner.changes(part, 0, 0)
        # To its owner the whole store is shown, of which a write anywhere is news.
        whole = store.owner.connections.data_version(None) if reach.grants is None else None
        marks = (changes and (changes.seq, changes.arrival), whole)
        now = self._clock()
        with self._lock:
            seen = self._seen.get(reach)
            if seen is not None:
                self._seen.move_to_end(reach)
                if seen.counting or now < seen.rests or (seen.marks == marks and now < seen.stale):
                    return seen.told
                seen.counting = True
        try:
            told = status(memory, scope)
        finally:
            if seen is not None:
                seen.counting = False
        after = self._clock()
        with self._lock:
            self._seen[reach] = _Seen(marks, told, after + SHARE * (after - now), after + STALE)
            while len(self._seen) > _KEPT:
                self._seen.popitem(last=False)
        return told

    async def beat(self, memory: Memory, scope: dict[str, Any], over: Callable[[], Any]) -> AsyncIterator[str]:
        """Server-sent events: the status, and again whenever it has changed, until ``over`` or until the caller may not look."""
        before, quiet = "", 0
        while not await over():
            try:
                # ASCII: half of a character is escaped.
                now = json.dumps(await run_in_threadpool(self.look, memory, scope))
            except HoldfastError:
                return
            if now != before:
                yield f"event: status\ndata: {now}\n\n"
                before, quiet = now, 0
            elif (quiet := quiet + 1) % _QUIET == 0:
                yield ": still here\n\n"
            await asyncio.sleep(BEAT)


def status(memory: Memory, scope: dict[str, Any]) -> dict[str, Any]:
    """Of a scope, what the caller may know; of the store as a whole, only for its owner.

    ``quarantined``: what waits there for whoever may judge it. ``owed``: what is not indexed yet, for whoever may read all of it.
    """
    store, here = memory.store, memory.scope(**scope)
    page = memory.page(limit=_NEWEST, **scope)
    told: dict[str, Any] = dict(memory.status()) if store.owner is store else {}
    told |= {
        "memories": page.total,
        "first": None if page.first is None else page.first.isoformat(),
        "last": None if page.last is None else page.last.isoformat(),
        "degraded": memory.degraded,
        "newest": [
            {
                "id": cube.id,
                "text": cube.text[:200],
                "kind": cube.kind,
                "form": str(cube.form),
                "recorded_at": cube.recorded_at.isoformat() if cube.recorded_at else None,
            }
            for cube in page.cubes
        ],
    }
    with suppress(AccessError):
        store.reach(here, Right.JUDGE)
        told["quarantined"] = store.waiting(here, limit=0).total
    with suppress(AccessError):
        told["owed"] = store.owed(here)
    return told
