"""A KV cache for ``transformers`` that grows in place, over pages (vAttention, arXiv 2405.04437): attention sees plain tensors.

``DynamicCache`` copies all that it holds at every token; here a token is written where it belongs, and a page is mapped when the
last is full. A copy (``copy.deepcopy``, as for a prompt that many requests begin with) shares its pages until one of them writes.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from holdfast.cube import Form
from holdfast.errors import InputError, MissingExtraError
from holdfast.latent.virtual import Rows, VirtualKV
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Retrieval, Subform, Subject
from holdfast.torched import Tensor

try:
    from transformers.cache_utils import Cache, DynamicLayer
except ImportError as error:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[torch]'") from error

PROFILE = MemoryProfile(
    Form.STATE,
    Subform.REUSED,
    (Function.WORK_MULTI,),
    evolution=(Evolution.UPDATE_INTERNAL,),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.USER, Subject.WORLD, Subject.AGENT),
)


class PagedCache(Cache):  # type: ignore[misc]
    """All tokens of a batch, like ``DynamicCache``, in slots of ``kv``: give it to a model or to ``generate`` as ``cache``.

    Several caches may share one ``kv``, a batch each. Close one that is done with: its slots are the next one's then, and so is
    what an old view of it would show. Nothing keeps gradients. Raises OutOfPagesError where the budget, the slots or a slot's
    tokens are at an end; the cache is then as it was before the step.
    """

    def __init__(self, kv: VirtualKV) -> None:
        self.kv, self.rows = kv, Rows(kv)
        super().__init__(layers=[_PagedLayer(at, self) for at in range(kv.layout.layers)])

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beam search takes some rows anew."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows; the slots of the others are free."""
        if self.rows.count:
            self.rows.select(indices)
            self._show()

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row so many times, in the same pages until they are written to."""
        if self.rows.count:
            before, self.rows = self.rows, self.rows.fork(repeats)
            before.free()
            self._show()

    def reset(self) -> None:
        """Forget everything; pages stay for the next tokens."""
        self.rows.free()
        self._show()

    def close(self, *, now: bool = False) -> None:
        """Give the slots back, and with ``now`` the memory too."""
        self.rows.free(now=now)
        self._show()

    def _show(self) -> None:
        for layer in self.layers:
            layer.show()

    def __enter__(self) -> PagedCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> PagedCache:
        new = memo[id(self)] = PagedCache(self.kv)
        new.rows = self.rows.fork()
        new._show()
        return new


class _PagedLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's view of the rows."""

    def __init__(self, at: int, cache: PagedCache) -> None:
        super().__init__()
        self._at, self._cache = at, cache

    def lazy_initialization(self, key_states: Tensor, _value_states: Tensor) -> None:
        """There is nothing to make."""
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_given: Any) -> tuple[Tensor, Tensor]:
        """See ``transformers``: all that is held and what is new."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = self._cache.rows.append(self._at, key_states, value_states)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """How many tokens are held."""
        return self._cache.rows.lengths[self._at]

    def get_max_length(self) -> int:
        """The tokens that a slot has addresses for are no shape of the cache: it grows, like ``DynamicLayer``."""
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        """Let go of the last tokens, so many with a minus sign."""
        if tokens_to_remove > 0:
            raise InputError("how many tokens to remove is told as a negative number")
        if tokens_to_remove:
            self._cache.rows.crop(self._at, max(self.get_seq_length() + tokens_to_remove, 0))
            self.show()

    def show(self) -> None:
        """Look at the rows anew."""
        self.is_initialized = bool(self._cache.rows.count)
        self.keys, self.values = self._cache.rows.view(self._at) if self.is_initialized else (None, None)

    def offload(self) -> None:
        """It stays where its pages are."""
        raise InputError("a cache over pages is not moved to another device")
