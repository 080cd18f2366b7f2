"""Keys and values as plain tensors over addresses, with pages behind what is used alone (vAttention, arXiv 2405.04437).

A tensor of all slots at their greatest length is made once. What a request has of it is a view that any kernel reads, and it grows
without a copy. With ``fused`` layers a page holds all layers of some tokens (the paper's tensor slicing), and a layer's view has
gaps between its tokens.

``torch.save`` and ``copy.deepcopy`` of a view read its whole storage, also where nothing lies behind: ``clone`` it first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from holdfast.errors import InputError, OutOfPagesError
from holdfast.latent.mapped_pages import MappedPages
from holdfast.latent.page_slots import Layout, PageSlots, PageStats
from holdfast.latent.pages import PageBackend, PagePool
from holdfast.torched import Tensor, torch

PROFILE = ()  # where memory lies, and none itself


class VirtualKV:
    """The keys and values of several requests over one budget of memory. Raises InputError, PageError.

    Args:
        layers, heads, size: of the model: layers, key-value heads, numbers a head.
        slots: requests at most.
        tokens: tokens a request at most; it costs addresses and no memory.
        budget: bytes of memory at most, in whole blocks.
        dtype: of keys and values.
        backend: whose memory; the computer's own by default.
        fused: a page holds all layers of some tokens.
        deferred: what ends keeps its pages until they are needed.
        background: what the next tokens need is mapped by a thread while the model computes.
    """

    def __init__(
        self,
        layers: int,
        heads: int,
        size: int,
        *,
        slots: int,
        tokens: int,
        budget: int,
        dtype: Any = None,
        backend: PageBackend | None = None,
        fused: bool = True,
        deferred: bool = True,
        background: bool = False,
    ) -> None:
        self.dtype = torch.get_default_dtype() if dtype is None else dtype
        backend = MappedPages() if backend is None else backend
        layout = Layout(layers, heads, size, self.dtype.itemsize, backend.page_bytes, fused)
        count = budget // layout.page // layout.tensors * layout.tensors
        if count < 1:
            raise InputError(f"a block takes {layout.tensors * layout.page} bytes, and the budget is {budget}")
        self.layout, self.backend = layout, backend
        self.pages = PageSlots(PagePool(backend, count), layout, slots, tokens, deferred=deferred)
        """Whose pages are whose. With ``background`` ask for it after ``settle``."""
        self.device = torch.device(backend.device)
        self._worker = ThreadPoolExecutor(1, "pages-ahead") if background else None
        self._ahead: Future[int] | None = None
        item, row = layout.item, heads * size
        flat = [
            tensor_at(base, slots * self.pages.span, backend.device, backend).view(self.dtype)
            for base in self.pages.bases
        ]
        shape = (slots, tokens, heads, size)
        strides = (self.pages.span // item, layout.token // item, size, 1)
        apart = 2 if fused else 2 * layers
        self._tensors = [
            [
                flat[(kind if fused else 2 * layer + kind) % apart].as_strided(
                    shape, strides, layer * row if fused else 0
                )
                for layer in range(layers)
            ]
            for kind in range(2)
        ]

    @classmethod
    def of(cls, model: Any, **given: Any) -> VirtualKV:
        """For a model of ``transformers``: its layers, heads, dtype, the rest as given. Raises InputError where layers slide."""
        config = model.config.get_text_config(decoder=True)
        kinds = set(getattr(config, "layer_types", None) or ("full_attention",))
        if kinds != {"full_attention"}:
            raise InputError(f"pages are for full attention, and this model has {sorted(kinds)}")
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(config.num_hidden_layers, heads, size, **{"dtype": model.dtype, **given})

    # --- requests ---

    def take(self, tokens: int = 0) -> int:
        """A slot for a request that begins with so many tokens. Raises OutOfPagesError where all are taken."""
        self.settle()
        slot = self.pages.take(tokens)
        if slot is None:
            raise OutOfPagesError("all slots are taken: free one, or close a cache that is done with")
        return slot

    def step(self, lengths: Mapping[int, int]) -> int:
        """Slots are to have so many tokens: see ``PageSlots.step``."""
        self.settle()
        mapped = self.pages.step(lengths)
        if self._worker is not None:
            self._ahead = self._worker.submit(self.pages.ahead)
        return mapped

    def free(self, slot: int, *, now: bool = False) -> None:
        """A request has ended: see ``PageSlots.free``."""
        self.settle()
        self.pages.free(slot, now=now)

    def share(self, source: int, to: int, tokens: int) -> None:
        """A slot begins with tokens of another, in the same pages: see ``PageSlots.share``."""
        self.settle()
        self.pages.share(source, to, tokens)

    def view(self, layer: int, slot: int, length: int | None = None, rows: int = 1) -> tuple[Tensor, Tensor]:
        """A layer's keys and values of some slots side by side, shape (rows, heads, length, size); by default the slot's length."""
        length = self.pages.lengths[slot] if length is None else length
        if not 0 <= length <= min(self.pages.lengths[slot : slot + rows]):
            raise InputError("nothing is to be read beyond a request's tokens")
        keys, values = (self._tensors[kind][layer][slot : slot + rows, :length].transpose(1, 2) for kind in range(2))
        return keys, values

    def write(self, layer: int, slot: int, start: int, keys: Tensor, values: Tensor) -> None:
        """Put a layer's keys and values of some tokens, shape (rows, heads, T, size), at their place, within the slots' lengths."""
        rows, heads, new, size = keys.shape
        if (heads, size, keys.dtype) != (self.layout.heads, self.layout.size, self.dtype) or values.shape != keys.shape:
            raise InputError(
                f"keys and values are of {self.layout.heads} heads of {self.layout.size} numbers of {self.dtype}, "
                f"not of shape {tuple(keys.shape)} and {tuple(values.shape)} of {keys.dtype}"
            )
        if not 0 <= start <= start + new <= min(self.pages.lengths[slot : slot + rows]):
            raise InputError("nothing is to be written beyond a request's tokens")
        for kind, given in enumerate((keys, values)):
            self._tensors[kind][layer][slot : slot + rows, start : start + new] = given.detach().transpose(1, 2)

    def compact(self, slot: int, places: Tensor) -> int:
        """Keep some of a slot's tokens alone, in their order, and free the pages of the rest. How many blocks went.

        ``places``: int64, shape (layers, heads, N), of each head its own, ascending.
        """
        self.settle()
        layers, heads, count = places.shape
        length = self.pages.lengths[slot]
        if (layers, heads) != (self.layout.layers, self.layout.heads) or not 0 <= count <= length:
            raise InputError("of each layer and head the same number of tokens is kept")
        if count and (int(places.min()) < 0 or int(places.max()) >= length):
            raise InputError(f"tokens have places 0 to {length - 1}")
        self.pages.writable(slot, 0, count)
        for layer in range(layers):
            wide = places[layer, ..., None].expand(heads, count, self.layout.size)[None]
            keys, values = (kind.gather(2, wide) for kind in self.view(layer, slot))
            self.write(layer, slot, 0, keys, values)
        return self.pages.shrink(slot, count)

    # --- all of it ---

    def settle(self) -> None:
        """Wait for what is mapped ahead; what went wrong there is raised here."""
        pending, self._ahead = self._ahead, None
        if pending is not None:
            pending.result()

    def stats(self) -> PageStats:
        """What is there."""
        self.settle()
        return self.pages.stats()

    def close(self) -> None:
        """Give back all memory; nothing of it can be read again."""
        self.settle()
        if self._worker is not None:
            self._worker.shutdown()
        self.backend.close()

    def __deepcopy__(self, memo: object) -> VirtualKV:
        raise InputError("memory behind addresses is not copied: share a slot's tokens")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise InputError("memory behind addresses is not pickled: keep tensors with holdfast.latent.tensors")


class Rows:
    """The rows of one batch, in slots side by side, all of one length: what a cache keeps. Layers come to a length one by one."""

    def __init__(self, kv: VirtualKV) -> None:
        self.kv = kv
        self.first, self.count = 0, 0
        self.lengths = [0] * kv.layout.layers

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put new tokens after a layer's, shape (B, H, T, D); all that the layer has. Raises InputError, OutOfPagesError."""
        if torch.is_grad_enabled() and (keys.requires_grad or values.requires_grad):
            raise InputError("keys and values are written in place and keep no gradients: use torch.no_grad()")
        if not self.count:
            self._claim(keys.shape[0])
        elif keys.shape[0] != self.count:
            raise InputError(f"this cache is of {self.count} rows, not {keys.shape[0]}")
        start, length = self.lengths[layer], self.lengths[layer] + keys.shape[2]
        if length > self.kv.pages.lengths[self.first]:
            self.kv.step(dict.fromkeys(self._slots, length))
        self.kv.write(layer, self.first, start, keys, values)
        self.lengths[layer] = length
        return self.view(layer)

    def view(self, layer: int) -> tuple[Tensor, Tensor]:
        """All that a layer has."""
        return self.kv.view(layer, self.first, self.lengths[layer], self.count)

    def replace(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Let a layer have these tokens and no others; once all layers have fewer, pages are freed. Raises OutOfPagesError."""
        length = keys.shape[2]
        self._writable(length)
        self.kv.write(layer, self.first, 0, keys, values)
        self.lengths[layer] = length
        if (longest := max(self.lengths)) < self.kv.pages.lengths[self.first]:
            self.kv.settle()
            for slot in self._slots:
                self.kv.pages.shrink(slot, longest)
        return self.view(layer)

    def crop(self, layer: int, length: int) -> None:
        """Let a layer have its first tokens alone; their pages stay for those that come."""
        self.lengths[layer] = length
        if max(self.lengths) < self.kv.pages.lengths[self.first]:
            self.kv.step(dict.fromkeys(self._slots, max(self.lengths)))

    def select(self, indices: Tensor) -> None:
        """Let the rows be these of them, as many as there are or fewer."""
        if len(indices) > self.count:
            raise InputError(f"of {self.count} rows {len(indices)} cannot be chosen: repeat them")
        self._writable(max(self.lengths))
        for layer in range(len(self.lengths)):
            keys, values = (kind.index_select(0, indices.to(kind.device)) for kind in self.view(layer))
            self.kv.write(layer, self.first, 0, keys, values)
        for slot in list(self._slots)[len(indices) :]:
            self.kv.free(slot)
        self.count = len(indices)

    def fork(self, repeats: int = 1) -> Rows:
        """Rows that begin with all that these have, each so many times, in the same pages. Raises OutOfPagesError."""
        new = Rows(self.kv)
        if not self.count:
            return new
        new._claim(self.count * repeats)
        try:
            for at in range(new.count):
                self.kv.share(self.first + at // repeats, new.first + at, max(self.lengths))
        except BaseException:
            new.free()
            raise
        new.lengths = [*self.lengths]
        return new

    def free(self, *, now: bool = False) -> None:
        """Give the slots back; ``now``: and their bytes."""
        for slot in self._slots:
            self.kv.free(slot, now=now)
        self.first, self.count = 0, 0
        self.lengths = [0] * len(self.lengths)

    @property
    def _slots(self) -> range:
        return range(self.first, self.first + self.count)

    def _claim(self, count: int) -> None:
        self.kv.settle()
        first = self.kv.pages.take_run(count)
        if first is None:
            raise OutOfPagesError(f"no {count} slots side by side are free: close a cache that is done with")
        self.first, self.count = first, count

    def _writable(self, length: int) -> None:
        self.kv.settle()
        for slot in self._slots:
            self.kv.pages.writable(slot, 0, length)


# --- a tensor over addresses ---


class _Tensor(ctypes.Structure):
    """DLPack's DLTensor: the shape of what is at an address, and on which device."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("dimensions", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    """DLPack's DLManagedTensor: a tensor, and what to call when it is done with."""

    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


_DEVICES = {"cpu": 1, "cuda": 2}
_UNSIGNED = 1
_KEPT: dict[int, tuple[object, ...]] = {}  # of tensors that live, whatever must live as long


def _done(managed: int) -> None:
    _KEPT.pop(managed, None)


_DONE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_done)


def tensor_at(address: int, size: int, device: str, owner: object) -> Tensor:
    """A tensor of ``size`` bytes over addresses of a device, uint8, which keeps ``owner``. Nothing is read.

    The device is told and not asked for, as it is by DLPack alone: of an address with nothing behind it a driver knows nothing.
    """
    kind, _, number = device.partition(":")
    if kind not in _DEVICES:
        raise InputError(f"tensors lie on {' or '.join(_DEVICES)}, not on {device}")
    shape = ctypes.c_int64(size)
    managed = _Managed()
    managed.tensor = _Tensor(address, _DEVICES[kind], int(number or 0), 1, _UNSIGNED, 8, 1, ctypes.pointer(shape))
    managed.deleter = ctypes.cast(_DONE, ctypes.c_void_p)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    at = ctypes.addressof(managed)
    _KEPT[at] = (managed, shape, owner)
    return torch.from_dlpack(new(at, b"dltensor", None))
