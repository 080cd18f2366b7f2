"""Memory layers in a model of ``transformers``: put in place of attention or beside it, for a while, with the state of a session.

A session's state goes on from call to call, from turn to turn, and over a new KV cache: it is what remains of a text that is in
no context any more. Every session's is its own: it is kept with the name of its owner and with all that must match, and is given
back to nobody else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from holdfast.errors import InputError
from holdfast.latent.identity import config_digest, weights_digest
from holdfast.latent.layers import State, detached
from holdfast.latent.tensors import pack, unpack
from holdfast.torched import Tensor, nn, torch


class Beside(nn.Module):  # type: ignore[misc]
    """A layer that stands beside attention: what it says is added, times a gate a channel that begins at zero.

    So a model with it is at first the model without, and can be trained from there.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.d_model = layer, layer.d_model
        self.gate = nn.Parameter(torch.zeros(layer.d_model))

    def forward(self, x: Tensor, state: State | None = None, *, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """See ``MemoryLayer``."""
        said, now = self.layer(x, state, mask=mask)
        return said * self.gate, now


class Session:
    """What the layers of a mounted model have kept so far; made by ``mounted``."""

    def __init__(self, model: nn.Module, layers: Mapping[int, nn.Module], owner: str) -> None:
        self.layers = dict(sorted(layers.items()))
        self.owner = owner
        self._model = model
        self._states: dict[int, State] = {}
        self._mask: Tensor | None = None
        self._caches: WeakSet[Any] = WeakSet()

    def state(self) -> dict[int, State]:
        """A copy of what each place has kept, that nothing changes any more; {} where nothing was read."""
        return {at: detached(one) for at, one in self._states.items()}

    def restore(self, kept: Mapping[int, State] | bytes) -> None:
        """Go on from what was kept: what ``state`` or ``pack`` gave.

        Raises StaleError for what was packed of another owner, model, layer or place, InputError for what does not fit.
        """
        if isinstance(kept, bytes):
            found: dict[int, State] = {}
            for name, tensor in unpack(kept, self.key()).items():
                at, _, rest = name.partition(".")
                found.setdefault(int(at), {})[rest] = tensor
            kept = found
        if kept and set(kept) != set(self.layers):
            raise InputError(f"what was kept is of the blocks {sorted(kept)}, and the layers are at {[*self.layers]}")
        device = next(self._model.parameters()).device
        self._states = {at: {name: one.to(device, copy=True) for name, one in kept[at].items()} for at in sorted(kept)}

    def reset(self) -> None:
        """Forget everything: what is read next is the beginning."""
        self._states = {}

    def detach(self) -> None:
        """Let no gradient go back beyond this point (truncated backpropagation). What was kept stays."""
        self._states = {at: {name: one.detach() for name, one in state.items()} for at, state in self._states.items()}

    @contextmanager
    def branch(self) -> Iterator[Session]:
        """What is read within the block leaves no trace."""
        before = dict(self._states)  # a layer changes no state that it was given
        try:
            yield self
        finally:
            self._states = before

    def pack(self) -> bytes:
        """The state as a file, for a cube of form ``state``. Raises InputError where nothing was read."""
        named = {f"{at}.{name}": one for at, state in self._states.items() for name, one in state.items()}
        return pack(named, self.key())

    def key(self) -> dict[str, Any]:
        """All that must match before a packed state is used again; the weights are the model's and the layers'."""
        return {
            "kind": "memory layers",
            "owner": self.owner,
            "model": config_digest(self._model),
            "weights": weights_digest(self._model),
            "layers": {str(at): _settings(layer) for at, layer in self.layers.items()},
        }

    def _read(self, at: int, x: Tensor, cache: Any) -> Tensor:
        """What the layer at a place says of x, and its state goes on."""
        if cache is not None and cache not in self._caches:
            self._caches.add(cache)
            self._follow(cache)
        mask = self._mask
        if mask is not None:
            if mask.dim() != 2 or mask.shape[1] < x.shape[1]:
                raise InputError("a memory layer needs a mask of shape (rows, tokens), False or 0 for padding")
            mask = mask[:, -x.shape[1] :].bool()
        before = self._states.get(at)
        if before is not None and next(iter(before.values())).shape[0] != x.shape[0]:
            raise InputError(f"the session goes on with as many rows as before, not with {x.shape[0]}: or reset() it")
        layer = self.layers[at]
        # A layer may be kept in another precision than the model: it is small, and is trained.
        said, self._states[at] = layer(x.to(next(layer.parameters()).dtype), before, mask=mask)
        return said.to(x.dtype)

    def _follow(self, cache: Any) -> None:
        """Beam search takes some rows anew, and assisted decoding takes tokens back: the first can be followed."""
        reorder = cache.reorder_cache

        def reordered(rows: Tensor) -> None:
            reorder(rows)
            self._states = {
                at: {name: one.index_select(0, rows.to(one.device)) for name, one in state.items()}
                for at, state in self._states.items()
            }

        def crop(tokens: int) -> None:
            if tokens:
                raise InputError("what a memory layer has read cannot be taken back: decode without drafts")

        cache.reorder_cache, cache.crop = reordered, crop


@contextmanager
def mounted(model: Any, layers: Mapping[int, nn.Module], *, owner: str = "") -> Iterator[Session]:
    """Within the block the model's blocks of these numbers have memory layers instead of attention. Raises InputError.

    Args:
        model: a causal model of ``transformers`` whose blocks have ``self_attn``.
        layers: by block, from 0 on; ``Beside(layer)`` keeps attention and adds to it. They are trained, and saved, like any module:
            within the block they are parts of the model.
        owner: whose session it is. What another owner has packed is refused.

    Every call goes on from the one before, with gradients: for an unrelated text, or a training step, ``reset`` the session first.
    Rows stay the same rows, and padding is told from the attention mask. ``generate`` has not read the last token that it gave.
    """
    blocks = blocks_of(model)
    width = model.config.get_text_config(decoder=True).hidden_size
    for at, layer in layers.items():
        if at not in range(len(blocks)) or not hasattr(blocks[at], "self_attn"):
            raise InputError(f"the model has no block {at} with attention: it has {len(blocks)} blocks, from 0 on")
        if layer.d_model != width:
            raise InputError(f"a layer of width {layer.d_model} does not fit a model of width {width}")
        if isinstance(blocks[at].self_attn, _Place):
            raise InputError(f"block {at} has a memory layer already: leave its session first")
    session = Session(model, layers, owner)
    before = {at: blocks[at].self_attn for at in layers}

    def begin(_module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        session._mask = given.get("attention_mask", args[1] if len(args) > 1 else None)
        if model.training and getattr(model, "is_activation_checkpointing", False):
            raise InputError("gradient checkpointing reads everything twice, and memory with it: switch it off")

    hook = model.register_forward_pre_hook(begin, with_kwargs=True)
    try:
        for at, layer in layers.items():
            blocks[at].self_attn = _Place(at, layer, before[at], session)
        yield session
    finally:
        hook.remove()
        for at, attention in before.items():
            blocks[at].self_attn = attention


class _Place(nn.Module):  # type: ignore[misc]
    """What stands where attention stood."""

    def __init__(self, at: int, layer: nn.Module, attention: nn.Module, session: Session) -> None:
        super().__init__()
        self.layer = layer
        self.attention = attention if isinstance(layer, Beside) else None
        self._at, self._session = at, session

    def forward(self, hidden_states: Tensor, *args: Any, **given: Any) -> tuple[Tensor, Any]:
        cache = given.get("cache", given.get("past_key_values"))
        said = self._session._read(self._at, hidden_states, cache)
        if self.attention is not None:
            attended, *rest = self.attention(hidden_states, *args, **given)
            return attended + said, *rest
        if cache is not None:
            # Positions and masks of all blocks are counted in one block's cache, which may be this: one number a token.
            mark = hidden_states.new_zeros((hidden_states.shape[0], 1, hidden_states.shape[1], 1))
            cache.update(mark, mark, self._at)
        return said, None


def blocks_of(model: Any) -> Any:
    """The blocks of a causal model of ``transformers``. Raises InputError for another."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    blocks = getattr(decoder, "layers", None)
    if not isinstance(blocks, nn.ModuleList):
        raise InputError("memory layers are mounted in a causal model of transformers that has its blocks in `layers`")
    return blocks


def _settings(layer: nn.Module) -> dict[str, Any]:
    """What a layer is beside its weights."""
    hidden = {"path", "size", "training"}  # how it is computed changes nothing
    settings = {
        f"{name}.{key}".lstrip("."): value
        for name, module in layer.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, bool | int | float | str) and not key.startswith("_") and key not in hidden
    }
    return {"kind": type(layer).__name__, "settings": settings}
