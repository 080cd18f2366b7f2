"""Pages of a GPU's memory behind addresses that cost none: CUDA's virtual memory calls (vAttention, arXiv 2405.04437).

``cuMemAddressReserve`` gives addresses, ``cuMemCreate`` a page, ``cuMemMap`` and ``cuMemSetAccess`` put it behind them. The calls
are those of ``cuda.bindings``, and the answer of each is looked at; what fails midway is taken back. To take a page away waits for
all that the GPU was told before (``cuCtxSynchronize``), for unmapping is not in the order of streams. The paper's smaller pages
need a driver of their own and are not here: fuse the layers instead (``Layout.fused``).

This has not been run on a GPU yet. It is tested against a driver that is played in this computer's memory and holds callers to what
CUDA's documentation says of each call.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from holdfast.errors import InputError, MissingExtraError, OutOfPagesError, PageError

PROFILE = ()  # where memory lies, and none itself


class CudaPages:
    """A back end of one GPU. Raises MissingExtraError without ``cuda.bindings``, PageError without a GPU that can do it.

    Args:
        number: which GPU, as CUDA and torch count them.
        page_bytes: by default the least that the driver maps, 2 MiB on those of today; else a multiple of it.
        spare: so many pages that nobody needs are kept, filled with zeros, and the next map need not create them; more are given
            back to the driver.
        driver: the calls, by default ``cuda.bindings.driver``.
    """

    def __init__(self, number: int = 0, page_bytes: int | None = None, *, spare: int = 0, driver: Any = None) -> None:
        if spare < 0:
            raise InputError("0 or more pages are kept")
        self.device = f"cuda:{number}"
        self._driver = driver = _bindings() if driver is None else driver
        self._spare = spare
        _call(driver, "cuInit", 0)
        device = _call(driver, "cuDeviceGet", number)
        able = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED
        if not _call(driver, "cuDeviceGetAttribute", able, device):
            raise PageError(f"{self.device} cannot put pages behind addresses")
        place = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        self._kind = driver.CUmemAllocationProp()
        self._kind.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        self._kind.location.type, self._kind.location.id = place, number
        self._access = driver.CUmemAccessDesc()
        self._access.location.type, self._access.location.id = place, number
        self._access.flags = driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
        least = driver.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
        self._least = int(_call(driver, "cuMemGetAllocationGranularity", self._kind, least))
        self.page_bytes = self._least if page_bytes is None else page_bytes
        if self.page_bytes < 1 or self.page_bytes % self._least:
            raise InputError(f"{self.device} has pages of {self._least} bytes or a multiple, not of {self.page_bytes}")
        # The context that torch uses too.
        self._context = _call(driver, "cuDevicePrimaryCtxRetain", device)
        self._held = held = _Held(self.page_bytes)
        # Whoever holds a tensor over the addresses holds this object. A process that ends gives back everything by itself.
        weakref.finalize(self, _let_go, driver, self._context, device, held).atexit = False

    @property
    def resident(self) -> int:
        """Bytes of pages that were created and not given back, those that are kept for the next map among them."""
        return (len(self._held.pages) + len(self._held.spare)) * self.page_bytes

    def reserve(self, size: int) -> int:
        """See ``PageBackend``."""
        with self._current():
            address = int(self._call("cuMemAddressReserve", size, self._least, 0, 0))
        self._held.ranges.append((address, size))
        return address

    def map(self, address: int, pages: Sequence[int]) -> None:
        """See ``PageBackend``. Raises OutOfPagesError where the GPU has no memory left."""
        held, created, done = self._held, [], 0
        with self._current():
            try:
                for page in pages:
                    if page not in held.pages:
                        held.pages[page] = held.spare.pop() if held.spare else self._create()
                        created.append(page)
                    here = address + done * self.page_bytes
                    self._put(here, page)
                    done += 1
                # Dearer than all else, and once for a run.
                self._allow(address, len(pages))
            except BaseException as error:
                with _as_well(error):
                    for at in range(done):
                        self._take_away(address + at * self.page_bytes)
                    for page in created:
                        self._release(page)
                raise

    def unmap(self, address: int, drop: int | None) -> None:
        """See ``PageBackend``. Waits for the GPU."""
        with self._current():
            self._call("cuCtxSynchronize")  # whatever still reads it
            keep = drop is not None and len(self._held.spare) < self._spare
            if keep:
                self._call("cuMemsetD8", address, 0, self.page_bytes)  # nobody reads what another wrote
                self._call("cuCtxSynchronize")
            self._take_away(address)
            if drop is None:
                return
            if keep:
                self._held.spare.append(self._held.pages.pop(drop))
                return
            try:
                self._release(drop)
            except BaseException as error:
                with _as_well(error):
                    self._put(address, drop)
                    self._allow(address, 1)
                raise

    def copy(self, to: int, source: int) -> None:
        """See ``PageBackend``. Waits for the GPU."""
        with self._current():
            self._call("cuCtxSynchronize")
            self._call("cuMemcpyDtoD", to, source, self.page_bytes)
            self._call("cuCtxSynchronize")

    def close(self) -> None:
        """See ``PageBackend``. Waits for the GPU."""
        with self._current():
            self._call("cuCtxSynchronize")
            for address in list(self._held.mapped):
                self._take_away(address)
            for page in list(self._held.pages):
                self._release(page)
            self._trim()

    def trim(self) -> int:
        """Give back the pages that are kept for the next map. How many bytes that were."""
        before = self.resident
        with self._current():
            self._trim()
        return before - self.resident

    def _create(self) -> Any:
        return self._call("cuMemCreate", self.page_bytes, self._kind, 0)

    def _put(self, address: int, page: int) -> None:
        self._call("cuMemMap", address, self.page_bytes, 0, self._held.pages[page], 0)
        self._held.mapped[address] = page

    def _allow(self, address: int, pages: int) -> None:
        self._call("cuMemSetAccess", address, pages * self.page_bytes, [self._access], 1)

    def _take_away(self, address: int) -> None:
        self._call("cuMemUnmap", address, self.page_bytes)
        del self._held.mapped[address]

    def _release(self, page: int) -> None:
        self._call("cuMemRelease", self._held.pages[page])
        del self._held.pages[page]

    def _trim(self) -> None:
        while self._held.spare:
            self._call("cuMemRelease", self._held.spare[-1])
            self._held.spare.pop()

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Within it the GPU's context is this thread's, and afterwards the one that was: torch takes its GPU from it."""
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        except BaseException as error:
            with _as_well(error):
                self._call("cuCtxPopCurrent")
            raise
        self._call("cuCtxPopCurrent")

    def _call(self, name: str, *given: Any) -> Any:
        return _call(self._driver, name, *given)


class _Held:
    """What the driver has given: apart, so that it can be given back once nobody holds the back end."""

    def __init__(self, page_bytes: int) -> None:
        self.page_bytes = page_bytes
        self.ranges: list[tuple[int, int]] = []
        self.mapped: dict[int, int] = {}
        self.pages: dict[int, Any] = {}
        self.spare: list[Any] = []


def _bindings() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise MissingExtraError("pages of a GPU need the extra: pip install 'holdfast[cuda]'") from error
    return driver


def _call(driver: Any, name: str, *given: Any) -> Any:
    """What one call gives, None where it gives nothing. Raises PageError for whatever it answers but success."""
    try:
        code, *found = getattr(driver, name)(*given)
    except RuntimeError as error:  # no library of the driver is to be found
        raise PageError(f"{name} cannot be called, there is no NVIDIA driver here: {error}") from error
    if code != driver.CUresult.CUDA_SUCCESS:
        kind = OutOfPagesError if code == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY else PageError
        raise kind(f"{name} failed: {getattr(code, 'name', code)}")
    return found[0] if found else None


@contextmanager
def _as_well(error: BaseException) -> Iterator[None]:
    """What fails while an error is being made good is told with it."""
    try:
        yield
    except PageError as other:
        error.add_note(f"and then {other}")


def _let_go(driver: Any, context: Any, device: Any, held: _Held) -> None:
    """Give back all that the driver has given."""
    _call(driver, "cuCtxPushCurrent", context)
    _call(driver, "cuCtxSynchronize")
    for address in held.mapped:
        _call(driver, "cuMemUnmap", address, held.page_bytes)
    for handle in (*held.pages.values(), *held.spare):
        _call(driver, "cuMemRelease", handle)
    for address, size in held.ranges:
        _call(driver, "cuMemAddressFree", address, size)
    _call(driver, "cuCtxPopCurrent")
    _call(driver, "cuDevicePrimaryCtxRelease", device)
