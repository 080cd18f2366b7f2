"""Slots of addresses for requests, and the policy of whose pages are whose (vAttention, arXiv 2405.04437, §5).

A request grows by pages that are mapped when they are needed or ahead of it, and leaves them behind for the next that fits. What a
token takes follows from how the layers lie.

The published allocator takes slots down one page an iteration where reclamation is not deferred; here that is done when a request
ends. It has no pages of two owners but by mapping the same ones at the start of all slots; here they are counted, and copied when
one of the owners writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.errors import InputError, OutOfPagesError
from holdfast.latent.pages import PAGE_BYTES, PagePool

PROFILE = ()  # where memory lies, and none itself


@dataclass(frozen=True, slots=True)
class Layout:
    """How keys and values lie behind addresses. Raises InputError.

    Fields
        layers, heads, size: of the model; ``size`` numbers a head.
        item: bytes a number.
        page: bytes a page.
        fused: one tensor of keys and one of values for all layers, so that a page holds all layers of some tokens (the paper's
            tensor slicing); otherwise two tensors a layer.
    """

    layers: int
    heads: int
    size: int
    item: int
    page: int = PAGE_BYTES
    fused: bool = True

    def __post_init__(self) -> None:
        if min(self.layers, self.heads, self.size, self.item, self.page) < 1 or self.page % self.item:
            raise InputError("layers, heads, sizes and pages are 1 or more, and a page is of whole numbers")

    @property
    def tensors(self) -> int:
        """How many tensors there are; a block is one page of each."""
        return 2 if self.fused else 2 * self.layers

    @property
    def token(self) -> int:
        """Bytes of one token in one tensor."""
        return self.heads * self.size * self.item * (self.layers if self.fused else 1)

    def blocks(self, tokens: int) -> int:
        """Blocks that so many tokens take."""
        return -(-tokens * self.token // self.page)

    def room(self, blocks: int) -> int:
        """Tokens that so many blocks hold."""
        return blocks * self.page // self.token


@dataclass(frozen=True, slots=True)
class PageStats:
    """What is there: bytes, and pages.

    Fields
        reserved: bytes of addresses.
        resident: bytes of memory, as the system counts them.
        used: bytes of the tokens that requests have.
        wasted: bytes behind addresses of requests beyond their tokens, and of what has ended and is kept for the next.
        pages, free, shared: pages of the budget, those behind no address, and those of several owners.
    """

    reserved: int
    resident: int
    used: int
    wasted: int
    pages: int
    free: int
    shared: int


class PageSlots:
    """Slots for requests, each with the same room of addresses in every tensor, and the policy of whose pages are whose.

    Args:
        pool: where pages come from.
        layout: how tokens lie.
        slots: requests at most.
        tokens: tokens a request at most.
        deferred: what ends keeps its pages until they are needed.

    A slot's block number n is the page number n of each of its tensors. Raises InputError.
    """

    def __init__(self, pool: PagePool, layout: Layout, slots: int, tokens: int, *, deferred: bool = True) -> None:
        if slots < 1 or tokens < 1:
            raise InputError("there are one slot and one token or more")
        if layout.page != pool.backend.page_bytes:
            raise InputError(f"the layout is for pages of {layout.page} bytes, and these are {pool.backend.page_bytes}")
        self.pool, self.layout, self.tokens, self.deferred = pool, layout, tokens, deferred
        self.span = layout.blocks(tokens) * layout.page
        """Bytes of addresses that a slot has in each tensor."""
        self.bases = [pool.backend.reserve(slots * self.span) for _ in range(layout.tensors)]
        self.lengths = [0] * slots
        """Tokens of each slot."""
        self._pages: list[list[list[int]]] = [[[] for _ in self.bases] for _ in range(slots)]
        self._mapped = [0] * slots
        self._room = [0] * slots  # tokens that the mapped blocks hold
        self._taken: set[int] = set()

    # --- slots ---

    @property
    def taken(self) -> frozenset[int]:
        """Slots of requests."""
        return frozenset(self._taken)

    def mapped(self, slot: int) -> int:
        """Blocks that a slot has."""
        return self._mapped[slot]

    def pages(self, slot: int, tensor: int = 0) -> tuple[int, ...]:
        """The numbers of a slot's pages in a tensor, in order."""
        return tuple(self._pages[slot][tensor])

    def take(self, tokens: int = 0) -> int | None:
        """A slot for a new request: of those with pages enough for it that with the fewest, else the first; None: all are taken."""
        idle = [slot for slot in range(len(self.lengths)) if slot not in self._taken]
        if not idle:
            return None
        need = self.layout.blocks(tokens)
        fits = [slot for slot in idle if self.mapped(slot) >= need]
        slot = min(fits, key=self.mapped) if fits else idle[0]
        self._taken.add(slot)
        return slot

    def take_run(self, count: int) -> int | None:
        """The first of so many free slots that lie beside each other, all of them taken; None: there are none."""
        for first in range(len(self.lengths) - count + 1):
            run = range(first, first + count)
            if self._taken.isdisjoint(run):
                self._taken.update(run)
                return first
        return None

    def free(self, slot: int, *, now: bool = False) -> None:
        """A request has ended. ``now``: its pages go too, and with them its bytes, even where reclamation is deferred.

        From its first page on that others own too nothing is kept: the next one could not write there.
        """
        self._check(slot)
        self.lengths[slot] = 0
        self._cut(slot, 0 if now or not self.deferred else self._own(slot))
        self._taken.discard(slot)

    # --- growing and shrinking ---

    @property
    def free_blocks(self) -> int:
        """Blocks that a request could have: what is free, and what is mapped and not needed."""
        surplus = sum(self.mapped(slot) - self.layout.blocks(length) for slot, length in enumerate(self.lengths))
        return self.pool.free // self.layout.tensors + surplus

    def step(self, lengths: Mapping[int, int]) -> int:
        """Slots are to have so many tokens; what they lack is mapped now, and new tokens lie on pages of their own. Blocks mapped.

        Raises OutOfPagesError where not enough are to be had, even of what others do not need; no length has changed then.
        """
        for slot, length in lengths.items():
            self._check(slot)
            if not 0 <= length <= self.tokens:
                raise InputError(f"a slot holds 0 to {self.tokens} tokens, not {length}")
        need = {
            slot: self.layout.blocks(length) - self.mapped(slot)
            for slot, length in lengths.items()
            if length > self._room[slot]
        }
        count = sum(need.values())
        if count:
            if self._short(count):
                self._reclaim(count, lengths)
            self._extend(need)
        for slot, length in lengths.items():
            if self.pool.shared and length > self.lengths[slot]:
                self._copy_shared(slot, self.lengths[slot], length)
        for slot, length in lengths.items():
            self.lengths[slot] = length
        return count

    def ahead(self, steps: int = 10, blocks: int = 2) -> int:
        """Map what the next tokens need, off the path of those who wait: of the next one all, of those after ``blocks`` at most.

        Where not enough is to be had nothing is mapped: it is not needed yet. Blocks mapped.
        """
        near = sorted(slot for slot in self._taken if self._room[slot] < min(self.lengths[slot] + steps, self.tokens))
        done = 0
        for more in range(1, steps):
            wanted = {slot: min(self.lengths[slot] + more, self.tokens) for slot in near}
            need = {slot: length for slot, length in wanted.items() if length > self._room[slot]}
            lack = {slot: self.layout.blocks(length) - self.mapped(slot) for slot, length in need.items()}
            if more == 1:
                if self._short(sum(lack.values())):
                    self._reclaim(sum(lack.values()), wanted)
                if self._short(sum(lack.values())):
                    return 0
                if lack:
                    self._extend(lack)
                done += sum(lack.values())
                continue
            for slot, count in lack.items():
                if done >= blocks or self._short(count):
                    return done
                self._extend({slot: count})
                done += count
        return done

    def shrink(self, slot: int, length: int) -> int:
        """A slot keeps its first ``length`` tokens alone, and what lies beyond is taken away at once. How many blocks that were."""
        self._check(slot)
        if not 0 <= length <= self.lengths[slot]:
            raise InputError(f"of {self.lengths[slot]} tokens {length} cannot be kept")
        self.lengths[slot] = length
        return self._cut(slot, self.layout.blocks(length))

    def reclaim(self) -> int:
        """Take away all that no request needs. How many blocks that were."""
        return sum(self._cut(slot, self.layout.blocks(length)) for slot, length in enumerate(self.lengths))

    # --- sharing ---

    def share(self, source: int, to: int, tokens: int) -> None:
        """A slot that has no tokens yet begins with the first of another, in the same pages. Raises InputError, PageError."""
        self._check(source)
        self._check(to)
        if source == to or self.lengths[to] or not 0 <= tokens <= self.lengths[source]:
            raise InputError("an empty slot begins with tokens that another slot has")
        self._cut(to, 0)
        count = self.layout.blocks(tokens)
        done = 0
        try:
            for tensor in range(self.layout.tensors):
                if count:
                    self.pool.share(self.address(tensor, to), self._pages[source][tensor][:count])
                done += 1
        except BaseException:
            for tensor in range(done):
                for at in range(count - 1, -1, -1):
                    self.pool.unmap(self.address(tensor, to, at), self._pages[source][tensor][at])
            raise
        for tensor, pages in enumerate(self._pages[to]):
            pages.extend(self._pages[source][tensor][:count])
        self.lengths[to] = tokens
        self._count(to)

    def writable(self, slot: int, start: int, stop: int) -> int:
        """Make the pages of some tokens the slot's own: what others own too is copied. How many pages were.

        Raises OutOfPagesError where not enough pages are to be had; nothing was copied then.
        """
        self._check(slot)
        return self._copy_shared(slot, start, stop) if self.pool.shared else 0

    # --- the books ---

    def address(self, tensor: int, slot: int, block: int = 0) -> int:
        """Where a slot's block lies in a tensor."""
        return self.bases[tensor] + slot * self.span + block * self.layout.page

    def stats(self) -> PageStats:
        """What is there."""
        held = [page for slot in self._pages for pages in slot for page in pages]
        used = sum(self.lengths) * self.layout.token * self.layout.tensors
        return PageStats(
            reserved=len(self.bases) * len(self.lengths) * self.span,
            resident=self.pool.backend.resident,
            used=used,
            wasted=len(held) * self.layout.page - used,
            pages=self.pool.pages,
            free=self.pool.free,
            shared=sum(self.pool.owners(page) > 1 for page in set(held)),
        )

    def _check(self, slot: int) -> None:
        if slot not in self._taken:
            raise InputError(f"slot {slot} is nobody's")

    def _short(self, blocks: int) -> bool:
        return self.pool.free < blocks * self.layout.tensors

    def _extend(self, need: Mapping[int, int]) -> None:
        """Map blocks, so many of each slot: all or none."""
        lists, runs = [], []
        for slot, count in need.items():
            for tensor, pages in enumerate(self._pages[slot]):
                lists.append(pages)
                runs.append((self.address(tensor, slot, len(pages)), max(self._mapped[slot] + count - len(pages), 0)))
        for pages, found in zip(lists, self.pool.map(runs), strict=True):
            pages.extend(found)
        for slot in need:
            self._count(slot)

    def _reclaim(self, blocks: int, lengths: Mapping[int, int]) -> None:
        """Take what nobody needs, now or once they have these lengths, until so many blocks are free; from the last slot on."""
        for slot in range(len(self.lengths) - 1, -1, -1):
            least = self.layout.blocks(max(self.lengths[slot], lengths.get(slot, 0)))
            while self._short(blocks) and self.mapped(slot) > least:  # shared pages that are taken are not free
                lack = blocks - self.pool.free // self.layout.tensors
                self._cut(slot, max(self.mapped(slot) - lack, least))
            if not self._short(blocks):
                return

    def _cut(self, slot: int, blocks: int) -> int:
        """Take away a slot's blocks from this one on, the last first."""
        before = self._mapped[slot]
        try:
            unmap, size = self.pool.unmap, self.layout.page
            for tensor, pages in enumerate(self._pages[slot]):
                address = self.address(tensor, slot, len(pages))
                while len(pages) > blocks:
                    address -= size
                    unmap(address, pages[-1])
                    pages.pop()
        finally:
            self._count(slot)  # should the system refuse midway, a block that lacks a page is none
        return before - self._mapped[slot]

    def _own(self, slot: int) -> int:
        """The first of a slot's blocks that others own too, or how many it has."""
        if not self.pool.shared:
            return self._mapped[slot]
        rows = zip(*self._pages[slot], strict=False)
        own = (at for at, row in enumerate(rows) if any(self.pool.owners(page) > 1 for page in row))
        return next(own, self._mapped[slot])

    def _copy_shared(self, slot: int, start: int, stop: int) -> int:
        first = start * self.layout.token // self.layout.page
        last = min(self.layout.blocks(stop), self._mapped[slot])
        shared = [
            (tensor, at)
            for tensor, pages in enumerate(self._pages[slot])
            for at in range(first, last)
            if self.pool.owners(pages[at]) > 1
        ]
        if len(shared) > self.pool.free:
            self._reclaim(-(-len(shared) // self.layout.tensors), {})
        if len(shared) > self.pool.free:
            raise OutOfPagesError(f"{len(shared)} shared pages are to be copied, and {self.pool.free} are free")
        for tensor, at in shared:
            self.pool.own(self.address(tensor, slot, at), self._pages[slot][tensor], at)
        return len(shared)

    def _count(self, slot: int) -> None:
        self._mapped[slot] = min(map(len, self._pages[slot]))
        self._room[slot] = self.layout.room(self._mapped[slot])
