"""A server's requests and its scheduler, for claims about where keys and values lie: who is let in, who must wait, what is wasted.

The lengths are those of real requests (arXiv papers to be summarised; microsoft/vattention, MIT). The scheduler is that of an
iteration: whoever came first and fits is let in, then all who are in get a token. Where memory ends the last one is sent back and
comes again first, with all that it has said as its prompt. Memory is counted, and none is there.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Protocol

import numpy as np

from holdfast.errors import ClaimError, OutOfPagesError
from holdfast.latent.page_slots import Layout, PageSlots
from holdfast.latent.pages import CountedPages, PagePool

FILE = "serving_traces/arxiv_sample.csv"
SLOTS = 128
"""Requests at most, for every arm."""
SPARE = 0.01
"""Of the budget so much must be free once a request is let in, for those who grow."""


@dataclass(frozen=True, slots=True)
class Request:
    """Tokens to read and to write."""

    prompt: int
    answer: int


def load(data: Path | None, *, packed: bool) -> list[Request]:
    """The requests of the trace in their order: the 600 that are packed, or all. Raises ClaimError."""
    if packed:
        text = (files("holdfast") / "sample" / "serving.csv").read_text(encoding="utf-8")
    else:
        file = None if data is None else data / FILE
        if file is None or not file.is_file():
            raise ClaimError(
                f"this scale needs the whole trace, which is not packed: --data names a folder with {FILE}"
            )
        text = file.read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    try:
        return [Request(int(float(row["num_prefill_tokens"])), int(float(row["num_decode_tokens"]))) for row in rows]
    except (KeyError, ValueError) as error:
        raise ClaimError(f"the trace is laid out otherwise: {error}") from error


class Memory(Protocol):
    """Where the requests' tokens lie. A request is told by a number of the memory's own."""

    def enter(self, tokens: int, /) -> int | None:
        """Let a request in with so many tokens; None: it does not fit."""
        ...

    def grow(self, lengths: Mapping[int, int], /) -> bool:
        """All who are in have so many tokens; False: that does not fit, and nothing has changed."""
        ...

    def leave(self, request: int, /) -> None:
        """A request is done, or sent back."""
        ...

    def held(self, lengths: Mapping[int, int], /) -> int:
        """Bytes that those who are in hold."""
        ...


class Reserved:
    """Room for the longest there may be, for each."""

    def __init__(self, budget: int, token: int, most: int) -> None:
        self._span, self._free = most * token, list(range(min(budget // (most * token), SLOTS)))

    def enter(self, _tokens: int) -> int | None:
        """A place, if one is free."""
        return self._free.pop() if self._free else None

    def grow(self, _lengths: Mapping[int, int]) -> bool:
        """There is always room."""
        return True

    def leave(self, request: int) -> None:
        """The place is free."""
        self._free.append(request)

    def held(self, lengths: Mapping[int, int]) -> int:
        """All of each place."""
        return len(lengths) * self._span


class Blocks:
    """Blocks of some tokens wherever there are any, and a table of them: PagedAttention."""

    def __init__(self, budget: int, token: int, block: int) -> None:
        self._block, self._bytes = block, block * token
        self._free = budget // self._bytes
        self._spare = int(SPARE * self._free)
        self._has: dict[int, int] = {}
        self._names = list(range(SLOTS))

    def enter(self, tokens: int) -> int | None:
        """Blocks for the prompt and the next token."""
        need = -(-(tokens + 1) // self._block)
        if need > self._free - self._spare or not self._names:
            return None
        request = self._names.pop()
        self._has[request] = need
        self._free -= need
        return request

    def grow(self, lengths: Mapping[int, int]) -> bool:
        """A block for whoever has filled the last."""
        need = {
            request: more
            for request, length in lengths.items()
            if (more := -(-length // self._block) - self._has[request]) > 0
        }
        count = sum(need.values())
        if count > self._free:
            return False
        for request, more in need.items():
            self._has[request] += more
        self._free -= count
        return True

    def leave(self, request: int) -> None:
        """Its blocks are free."""
        self._free += self._has.pop(request)
        self._names.append(request)

    def held(self, lengths: Mapping[int, int]) -> int:
        """All blocks of those who are in."""
        return sum(self._has[request] for request in lengths) * self._bytes


class Virtual:
    """Pages behind reserved addresses: the product's own books and policy over memory that is counted."""

    def __init__(self, budget: int, layout: Layout, most: int, *, ahead: bool, deferred: bool) -> None:
        block = layout.page * layout.tensors
        self.counted = CountedPages(layout.page)
        pool = PagePool(self.counted, budget // block * layout.tensors)
        self._slots = PageSlots(pool, layout, SLOTS, most, deferred=deferred)
        self._ahead, self._block = ahead, block
        self._spare = int(SPARE * (budget // block))
        self.waited = self.mapped_ahead = self.prompts = 0
        """Pages mapped while requests waited for their next token, by the thread beside, and for prompts."""

    def enter(self, tokens: int) -> int | None:
        """A slot whose pages fit best, and what they lack."""
        if self._slots.layout.blocks(tokens + 1) > self._slots.free_blocks - self._spare:
            return None
        slot = self._slots.take(tokens + 1)
        if slot is None:
            return None
        self.prompts += self._slots.step({slot: tokens + 1}) * self._slots.layout.tensors
        return slot

    def grow(self, lengths: Mapping[int, int]) -> bool:
        """What the new tokens lack now, and then what the next will."""
        try:
            self.waited += self._slots.step(lengths) * self._slots.layout.tensors
        except OutOfPagesError:
            return False
        if self._ahead:
            self.mapped_ahead += self._slots.ahead() * self._slots.layout.tensors
        return True

    def leave(self, request: int) -> None:
        """Its slot is free, its pages where nothing is deferred."""
        self._slots.free(request)

    def held(self, lengths: Mapping[int, int]) -> int:
        """All pages of those who are in."""
        return sum(map(self._slots.mapped, lengths)) * self._block


def served(requests: Sequence[Request], memory: Memory, token: int, seed: int) -> dict[str, float]:
    """What came of all requests, in an order drawn by ``seed``: how many were in at once, who was sent back, what was wasted.

    Requests at once are counted while others wait: to the end, when nobody does, those who are in are those who are left.
    """
    order = np.random.default_rng(seed).permutation(len(requests)).tolist()
    waiting = deque((requests[at].prompt, requests[at].answer) for at in order)
    inside: dict[int, list[int]] = {}  # tokens it has, tokens it is still to say; the longest in first
    steps = crowded = total = pressed = peak = back = 0
    wasted = 0.0
    while waiting or inside:
        while waiting:
            request = memory.enter(waiting[0][0])
            if request is None:
                break
            prompt, answer = waiting.popleft()
            inside[request] = [prompt, answer]
        if not inside:
            raise ClaimError("a request is longer than all memory")
        while not memory.grow(lengths := {request: has + 1 for request, (has, _) in inside.items()}):
            last = next(reversed(inside))
            has, answer = inside.pop(last)
            memory.leave(last)
            waiting.appendleft((has, answer))
            back += 1
            if not inside:
                raise ClaimError("a request is longer than all memory")
        steps += 1
        total += len(inside)
        if waiting:
            crowded += 1
            pressed += len(inside)
        peak = max(peak, len(inside))
        if steps % 16 == 0:
            wasted += (memory.held(lengths) - sum(lengths.values()) * token) / len(lengths)
        for request, state in list(inside.items()):
            state[0] += 1
            state[1] -= 1
            if state[1] <= 0:
                del inside[request]
                memory.leave(request)
    return {
        "requests at once": pressed / crowded if crowded else float(peak),
        "requests at once, to the end": total / steps,
        "requests at once, most": float(peak),
        "sent back": float(back),
        "steps": float(steps),
        "MiB wasted a request": wasted / max(steps // 16, 1) / 2**20,
    }
