"""Pages behind reserved addresses (vAttention, arXiv 2405.04437): contiguous for whoever reads, and only what is used is there.

A tensor for all requests at their greatest length is addresses alone. Pages are put behind them as a request grows, stay when it
ends for the next one that fits (deferred reclamation), and are mapped ahead of their need (eager allocation). Here is what is
the same on every machine: the books (``PagePool``); the policy is in ``page_slots``. What talks to a machine fits ``PageBackend``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from holdfast.errors import InputError, OutOfPagesError

PROFILE = ()  # where memory lies, and none itself

MEBIBYTE = 2**20
PAGE_BYTES = 2 * MEBIBYTE
"""What a GPU's stock driver maps at the least."""


class PageBackend(Protocol):
    """Addresses and pages of one machine. Pages are told by number, and there is one as soon as it is first mapped.

    Every method raises PageError where the system refuses, and has then changed nothing.
    """

    page_bytes: int
    device: str
    """Where tensors over its addresses are, as torch says it."""

    @property
    def resident(self) -> int:
        """Bytes of pages that are there, as the system counts them."""
        ...

    def reserve(self, size: int) -> int:
        """The first of ``size`` addresses with nothing behind them; ``size`` is a multiple of a page."""
        ...

    def map(self, address: int, pages: Sequence[int], /) -> None:
        """Put pages behind the addresses from here on, one after the other. A page may lie behind several addresses."""
        ...

    def unmap(self, address: int, drop: int | None, /) -> None:
        """Take away the page that lies here; ``drop`` is its number where nobody needs its bytes: nobody reads them again."""
        ...

    def copy(self, to: int, source: int, /) -> None:
        """Copy a page's bytes from one address to another."""
        ...

    def close(self) -> None:
        """Take away everything. Addresses stay reserved for as long as a tensor lies over them."""
        ...


class CountedPages:
    """A back end that has no memory and counts: for rehearsals with a machine that is not there."""

    device = "meta"

    def __init__(self, page_bytes: int = PAGE_BYTES) -> None:
        self.page_bytes = page_bytes
        self.maps = self.unmaps = 0
        """Calls: pages that were mapped and taken away."""
        self._top = page_bytes
        self._there: set[int] = set()

    @property
    def resident(self) -> int:
        """Bytes of pages that were mapped and not dropped."""
        return len(self._there) * self.page_bytes

    def reserve(self, size: int) -> int:
        """Addresses that nobody has had."""
        start, self._top = self._top, self._top + size
        return start

    def map(self, _address: int, pages: Sequence[int]) -> None:
        """Count."""
        self.maps += len(pages)
        self._there.update(pages)

    def unmap(self, _address: int, drop: int | None) -> None:
        """Count."""
        self.unmaps += 1
        if drop is not None:
            self._there.discard(drop)

    def copy(self, _to: int, _source: int) -> None:
        """There is nothing to copy."""

    def close(self) -> None:
        """Nothing is there any more."""
        self._there.clear()


class PagePool:
    """A budget of pages: which are free, and how many owners the others have. Whatever fails here leaves it as it was.

    An owner is an address that the page lies behind. Raises InputError.
    """

    def __init__(self, backend: PageBackend, pages: int) -> None:
        if pages < 1:
            raise InputError("a pool has one page or more")
        self.backend, self.pages = backend, pages
        self._free = list(range(pages - 1, -1, -1))
        self._more: dict[int, int] = {}  # of pages with several owners, those beyond the first
        self._scratch: int | None = None

    @property
    def free(self) -> int:
        """Pages behind no address."""
        return len(self._free)

    @property
    def shared(self) -> int:
        """Pages of several owners."""
        return len(self._more)

    def owners(self, page: int) -> int:
        """Of a page that lies behind an address, how many it lies behind."""
        return 1 + self._more.get(page, 0)

    def map(self, runs: Iterable[tuple[int, int]]) -> list[list[int]]:
        """Put free pages behind runs of addresses, (first address, pages) each: all or, with an error, none.

        Raises OutOfPagesError where fewer are free, PageError where the system refuses.
        """
        runs = list(runs)
        need = sum(count for _, count in runs)
        if need > len(self._free):
            raise OutOfPagesError(f"{need} pages were asked for, and {len(self._free)} of {self.pages} are free")
        done: list[list[int]] = []
        try:
            for address, count in runs:
                pages = self._free[-count:][::-1] if count else []
                if pages:
                    self.backend.map(address, pages)
                    del self._free[-count:]
                done.append(pages)
        except BaseException:
            for (address, _), pages in zip(reversed(runs[: len(done)]), reversed(done), strict=True):
                for at in range(len(pages) - 1, -1, -1):
                    self.unmap(address + at * self.backend.page_bytes, pages[at])
            raise
        return done

    def unmap(self, address: int, page: int) -> None:
        """Take a page from behind an address; it is free where nobody else owns it."""
        if page in self._more:
            self.backend.unmap(address, None)
            self._less(page)
        else:
            self.backend.unmap(address, page)
            self._free.append(page)

    def share(self, address: int, pages: Sequence[int]) -> None:
        """Put pages that lie elsewhere behind these addresses too."""
        self.backend.map(address, pages)
        for page in pages:
            self._more[page] = self._more.get(page, 0) + 1

    def own(self, address: int, pages: list[int], at: int) -> bool:
        """Where others own the page ``pages[at]`` too, which lies here, put a copy in its place, here and in the list. Whether so.

        Raises OutOfPagesError, PageError.
        """
        page = pages[at]
        if page not in self._more:
            return False
        if not self._free:
            raise OutOfPagesError(
                f"a page that is shared cannot be written to: none of {self.pages} is free for a copy"
            )
        backend, new = self.backend, self._free[-1]
        if self._scratch is None:
            self._scratch = backend.reserve(backend.page_bytes)
        backend.map(self._scratch, [new])
        try:
            backend.copy(self._scratch, address)
            backend.unmap(address, None)
            try:
                backend.map(address, [new])
            except BaseException:
                backend.map(address, [page])
                raise
        except BaseException:
            backend.unmap(self._scratch, new)
            raise
        pages[at] = self._free.pop()
        self._less(page)
        scratch, self._scratch = self._scratch, None  # should the system refuse, it is not used again
        backend.unmap(scratch, None)
        self._scratch = scratch
        return True

    def _less(self, page: int) -> None:
        """A page has one owner less."""
        others = self._more.pop(page, 0)
        if others > 1:
            self._more[page] = others - 1
        elif not others:
            self._free.append(page)
