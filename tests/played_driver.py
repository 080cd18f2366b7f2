"""CUDA's virtual memory calls, played in this computer's memory: they hold callers to what the documentation says, and fail when told to."""

from __future__ import annotations

import ctypes
import enum
from types import SimpleNamespace

from holdfast.latent.mapped_pages import MappedPages


class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_INVALID_DEVICE = 101
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_UNKNOWN = 999


class Invalid(Exception):
    """The call is not one that CUDA would carry out."""


class Driver:
    """A driver with one GPU of so many pages. ``calls`` are what it was told; call number ``fail`` from now on is refused."""

    CUresult = CUresult
    CUdevice_attribute = SimpleNamespace(CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED=102)
    CUmemLocationType = SimpleNamespace(CU_MEM_LOCATION_TYPE_DEVICE=1)
    CUmemAllocationType = SimpleNamespace(CU_MEM_ALLOCATION_TYPE_PINNED=1)
    CUmemAccess_flags = SimpleNamespace(CU_MEM_ACCESS_FLAGS_PROT_READWRITE=3)
    CUmemAllocationGranularity_flags = SimpleNamespace(CU_MEM_ALLOC_GRANULARITY_MINIMUM=0)

    def __init__(self, granularity: int = 4096, pages: int = 10**6, able: bool = True) -> None:
        self.granularity, self.most, self.able = granularity, pages, able
        self.memory = MappedPages(granularity, guarded=True)
        self.calls: list[str] = []
        self.fail: int | None = None
        self.code = CUresult.CUDA_ERROR_UNKNOWN
        self.reserved: dict[int, int] = {}
        self.handles: dict[int, bool] = {}  # whether it was released and is mapped still
        self.at: dict[int, int] = {}
        self.allowed: set[int] = set()
        self.contexts: list[object] = []
        self.retained = self.next = 0
        self.busy = True  # whether the GPU may still be reading

    CUmemAllocationProp = staticmethod(lambda: SimpleNamespace(location=SimpleNamespace()))
    CUmemAccessDesc = staticmethod(lambda: SimpleNamespace(location=SimpleNamespace()))

    def __getattribute__(self, name: str):
        found = super().__getattribute__(name)
        if not name.startswith("cu"):
            return found

        def call(*given: object):
            self.calls.append(name)
            if self.fail is not None:
                self.fail -= 1
                if self.fail < 0:
                    self.fail = None
                    return (self.code,)
            try:
                answer = found(*given)
            except Invalid:
                return (CUresult.CUDA_ERROR_INVALID_VALUE,)
            except MemoryError:
                return (CUresult.CUDA_ERROR_OUT_OF_MEMORY,)
            return (CUresult.CUDA_SUCCESS,) if answer is None else (CUresult.CUDA_SUCCESS, answer)

        return call

    def _check(self, held: object) -> None:
        if not held:
            raise Invalid

    # --- the device ---

    def cuInit(self, flags: int) -> None:
        self._check(flags == 0)

    def cuDeviceGet(self, number: int) -> int:
        self._check(number == 0)
        return 70

    def cuDeviceGetAttribute(self, attribute: int, device: int) -> int:
        self._check((attribute, device) == (102, 70))
        return int(self.able)

    def cuDevicePrimaryCtxRetain(self, device: int) -> str:
        self._check(device == 70)
        self.retained += 1
        return "primary"

    def cuDevicePrimaryCtxRelease(self, device: int) -> None:
        self._check(device == 70 and self.retained)
        self.retained -= 1

    def cuCtxPushCurrent(self, context: object) -> None:
        self._check(context == "primary")
        self.contexts.append(context)

    def cuCtxPopCurrent(self) -> object:
        self._check(self.contexts)
        return self.contexts.pop()

    def cuCtxSynchronize(self) -> None:
        self._check(self.contexts)
        self.busy = False

    # --- memory ---

    def cuMemGetAllocationGranularity(self, kind, option: int) -> int:
        self._check((kind.type, kind.location.type, kind.location.id, option) == (1, 1, 0, 0))
        return self.granularity

    def cuMemAddressReserve(self, size: int, alignment: int, hint: int, flags: int) -> int:
        self._check(
            size and size % self.granularity == 0 and alignment & (alignment - 1) == 0 and (hint, flags) == (0, 0)
        )
        start = self.memory.reserve(size)
        self.reserved[start] = size
        return start

    def cuMemAddressFree(self, address: int, size: int) -> None:
        self._check(self.reserved.get(address) == size)
        self._check(not any(address <= at < address + size for at in self.at))
        del self.reserved[address]

    def cuMemCreate(self, size: int, kind, flags: int) -> int:
        self._check(size == self.granularity and kind.location.id == 0 and flags == 0)
        if len(self.handles) >= self.most:
            raise MemoryError
        self.next += 1
        self.handles[self.next] = False
        return self.next

    def cuMemRelease(self, handle: int) -> None:
        self._check(self.handles.get(handle) is False)
        self.handles[handle] = True
        self._forget(handle)

    def cuMemMap(self, address: int, size: int, offset: int, handle: int, flags: int) -> None:
        self._check(size == self.granularity and (offset, flags) == (0, 0) and self.handles.get(handle) is False)
        self._check(
            address not in self.at and any(start <= address < start + size for start, size in self.reserved.items())
        )
        self.memory.map(address, [handle])
        self.at[address] = handle
        self.busy = True

    def cuMemSetAccess(self, address: int, size: int, access, count: int) -> None:
        self._check(
            count == len(access) == 1 and (access[0].flags, access[0].location.type, access[0].location.id) == (3, 1, 0)
        )
        pages = range(address, address + size, self.granularity)
        self._check(size and size % self.granularity == 0 and all(page in self.at for page in pages))
        self.allowed.update(pages)

    def cuMemUnmap(self, address: int, size: int) -> None:
        self._check(size == self.granularity and address in self.at)
        assert not self.busy or address not in self.allowed, "taken away under the GPU's hands"
        handle = self.at.pop(address)
        self.allowed.discard(address)
        self.memory.unmap(address, None)
        self._forget(handle)

    def cuMemsetD8(self, address: int, value: int, size: int) -> None:
        self._check(self.contexts and address in self.allowed and size == self.granularity)
        ctypes.memset(address, value, size)
        self.busy = True

    def cuMemcpyDtoD(self, to: int, source: int, size: int) -> None:
        self._check(self.contexts and {to, source} <= self.allowed and size == self.granularity)
        ctypes.memmove(to, source, size)
        self.busy = True

    def _forget(self, handle: int) -> None:
        """A page that is released and lies nowhere is gone."""
        if self.handles[handle] and handle not in self.at.values():
            del self.handles[handle]
            page = self.memory.reserve(self.granularity)
            self.memory.map(page, [handle])
            self.memory.unmap(page, handle)

    def launch(self) -> None:
        """The GPU is given work that reads what is mapped."""
        self.busy = True
