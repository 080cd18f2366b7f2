"""Pages of a computer's own memory behind addresses that cost none (vAttention, arXiv 2405.04437, with mmap for CUDA's calls).

Linux alone. Addresses are an anonymous map; pages are parts of a file in memory (``memfd_create``) that are mapped over it, for one
page can then lie behind several addresses, which anonymous memory cannot. What is dropped is punched out of the file and free at
once; ``MADV_DONTNEED`` would free nothing of a file. The system gives memory as it is first written to, and what it says of the
file is what is resident.

A process that forks shares these pages with its child: what either writes, the other reads.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path

from holdfast.errors import InputError, PageError
from holdfast.latent.pages import PAGE_BYTES

PROFILE = ()  # where memory lies, and none itself

_MAP_FIXED = 0x10
_PUNCH_HOLE = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
_FAILED = ctypes.c_void_p(-1).value


class MappedPages:
    """A back end of Linux's memory. Raises PageError on another system, InputError for a page that is not of whole pages of it.

    ``guarded``: to read an address that nothing lies behind ends the process, as it would on a GPU; otherwise zeros are read. To
    write to it always does.
    """

    device = "cpu"

    def __init__(self, page_bytes: int = PAGE_BYTES, *, guarded: bool = False) -> None:
        if sys.platform != "linux":
            raise PageError("pages behind addresses are made by mmap and memfd_create: Linux alone has both")
        if page_bytes < 1 or page_bytes % mmap.PAGESIZE:
            raise InputError(f"a page is of whole pages of the system: {mmap.PAGESIZE} bytes each")
        self.page_bytes = page_bytes
        self._bare = 0 if guarded else mmap.PROT_READ
        self._pages = 0  # that the file has room for
        try:
            self._file = os.memfd_create("holdfast-pages", os.MFD_CLOEXEC)
        except OSError as error:
            raise PageError(f"the system gave no file in memory: {error}") from error
        self._ranges: list[tuple[int, int]] = []
        self._closer = weakref.finalize(self, _close, self._file)
        # Whoever holds a tensor over the addresses holds this object; only then are they anybody's again.
        self._freer = weakref.finalize(self, _free, self._ranges)

    @property
    def resident(self) -> int:
        """Bytes of the pages' file that the system holds."""
        return os.fstat(self._file).st_blocks * 512 if self._closer.alive else 0

    def reserve(self, size: int) -> int:
        """See ``PageBackend``. What cannot be written to is not counted as memory, however much it is."""
        address = _mapped(None, size, self._bare, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        self._ranges.append((address, size))
        return address

    def map(self, address: int, pages: Sequence[int]) -> None:
        """See ``PageBackend``. The system allows a process some 65,000 maps; pages in a row count as one."""
        done = 0
        try:
            self._grow(max(pages, default=-1) + 1)
            while done < len(pages):
                count = 1
                while done + count < len(pages) and pages[done + count] == pages[done] + count:
                    count += 1
                _mapped(
                    address + done * self.page_bytes,
                    count * self.page_bytes,
                    mmap.PROT_READ | mmap.PROT_WRITE,
                    mmap.MAP_SHARED | _MAP_FIXED,
                    self._file,
                    pages[done] * self.page_bytes,
                )
                done += count
        except PageError:
            if done:
                self._blank(address, done * self.page_bytes)
            raise

    def unmap(self, address: int, drop: int | None) -> None:
        """See ``PageBackend``. What is dropped is gone from memory."""
        if drop is not None:
            size = ctypes.c_longlong(self.page_bytes)
            if _libc().fallocate(self._file, _PUNCH_HOLE, ctypes.c_longlong(drop * self.page_bytes), size):
                raise _refused("free a page")
        self._blank(address, self.page_bytes)

    def copy(self, to: int, source: int) -> None:
        """See ``PageBackend``."""
        ctypes.memmove(to, source, self.page_bytes)

    def close(self) -> None:
        """See ``PageBackend``."""
        for address, size in self._ranges:
            self._blank(address, size)
        self._closer()

    def maps(self) -> int:
        """How many maps of this process lie within these addresses: what counts against the system's bound."""
        count = 0
        for line in Path("/proc/self/maps").read_text().splitlines():
            start = int(line.partition("-")[0], 16)
            count += any(address <= start < address + size for address, size in self._ranges)
        return count

    def _grow(self, pages: int) -> None:
        """Let the file have room for so many pages; it costs no memory."""
        if pages > self._pages:
            try:
                os.ftruncate(self._file, pages * self.page_bytes)
            except (OSError, OverflowError) as error:
                raise PageError(f"the system would not let the pages' file grow: {error}") from error
            self._pages = pages

    def _blank(self, address: int, size: int) -> None:
        _mapped(address, size, self._bare, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED, -1, 0)


@functools.cache
def _libc() -> ctypes.CDLL:
    found = ctypes.CDLL(None, use_errno=True)
    found.mmap.restype = ctypes.c_void_p
    found.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    found.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return found


def _mapped(address: int | None, size: int, access: int, flags: int, file: int, offset: int) -> int:
    found: int | None = _libc().mmap(address, size, access, flags, file, offset)
    if found is None or found == _FAILED:
        raise _refused(f"map {size} bytes")
    return found


def _refused(what: str) -> PageError:
    code = ctypes.get_errno()
    return PageError(f"the system would not {what}: {os.strerror(code)}")


def _close(file: int) -> None:
    os.close(file)


def _free(ranges: list[tuple[int, int]]) -> None:
    for address, size in ranges:
        _libc().munmap(address, size)
    ranges.clear()
