"""Neural memory layers: the seam, and how a layer's state is kept between two sessions.

A layer reads a sequence and what it has kept so far, and gives what it says and what it keeps now. The state is a dict of tensors
whose first dimension is the batch's, so that a session's state can be saved, restored, branched and forgotten like any memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Protocol

from holdfast.errors import InputError
from holdfast.torched import Tensor, nn, torch

State = dict[str, Tensor]
"""What a layer keeps: tensors by name, shape (B, ...) each; fp32 for whatever is updated in place, whatever the model runs in."""

Path = Literal["recurrent", "dense", "chunked"]
"""How the same thing is computed: token by token, in one piece (at a cost that grows with the square), or in bounded pieces."""


class MemoryLayer(Protocol):
    """An ``nn.Module`` that keeps a state of constant size, whatever the length it has read.

    Reading a sequence in pieces and carrying the state gives what reading it at once gives.
    """

    def __call__(self, x: Tensor, state: State | None = None, *, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """What it says at every place, shape (B, T, D), and what it keeps now.

        ``x``: shape (B, T, D). ``state``: what an earlier call returned; None begins anew. It is not changed. ``mask``: shape
        (B, T), False where there is padding, which changes nothing.
        """
        ...


class Layer(nn.Module):  # type: ignore[misc]
    """A base for layers that takes padding out of their way, wherever in a row it stands.

    A layer implements ``take``, for rows whose tokens stand at the front.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model

    def forward(self, x: Tensor, state: State | None = None, *, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """See ``MemoryLayer``; what is said of padding is zero. Raises InputError for shapes that do not fit."""
        if x.dim() != 3 or x.shape[-1] != self.d_model or not x.shape[1]:
            raise InputError(f"a sequence has the shape (rows, 1 or more, {self.d_model}), not {tuple(x.shape)}")
        for name, tensor in (state or {}).items():
            if tensor.shape[0] != x.shape[0]:
                raise InputError(f"a state of {tensor.shape[0]} rows ({name}) is not one of {x.shape[0]}")
        if mask is None or mask.all():
            return self.take(x, state, None)
        if mask.shape != x.shape[:2]:
            raise InputError(f"a mask of shape {tuple(mask.shape)} is none for {tuple(x.shape[:2])} tokens")
        mask = mask.bool()
        order = front(mask)
        said, now = self.take(moved(x, order), state, mask.sum(dim=1))
        return torch.zeros_like(said).scatter(1, _wide(order, said), said) * mask[..., None], now

    def take(self, x: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        """See ``MemoryLayer``. ``lengths``: shape (B,), so many tokens of a row are real; None: all."""
        raise NotImplementedError


class ShortConvolution(nn.Module):  # type: ignore[misc]
    """A causal convolution of each channel on its own, and SiLU; the last inputs are its state, shape (B, width - 1, channels).

    ``shared``: which of the ``channels`` filters each channel of the input has, shape (inputs,); None: each its own.
    """

    def __init__(self, channels: int, width: int, shared: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, channels).uniform_(-(width**-0.5), width**-0.5))
        self.register_buffer("shared", shared, persistent=False)

    def forward(self, x: Tensor, before: Tensor | None, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """The convolved sequence, shape (B, T, channels), and the state; of the first channels alone where x has no more.

        Sums of shifted inputs: faster on a CPU than Conv1d.
        """
        tail, size = self.weight.shape[0] - 1, x.shape[1]
        weight = (self.weight if self.shared is None else self.weight[:, self.shared])[:, : x.shape[2]]
        if before is None:
            before = x.new_zeros((x.shape[0], tail, x.shape[2]))
        before = before.to(x.dtype)
        dtype = torch.promote_types(x.dtype, weight.dtype)
        found = _Convolved.apply(x.to(dtype), before.to(dtype), weight.to(dtype))
        if lengths is None and size >= tail:
            return found, x[:, size - tail :].clone()  # a part of x would keep all of it
        long = torch.cat([before, x], dim=1)
        if lengths is None:
            return found, long[:, size:]
        return found, moved(long, lengths[:, None] + torch.arange(tail, device=x.device))


class RMSNorm(nn.RMSNorm):  # type: ignore[misc]
    """As in torch, whose gradient costs a CPU several times as much."""

    def __init__(self, size: int, *, eps: float) -> None:
        super().__init__(size, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Of the last dimension of x."""
        return normed(x, self.weight, self.eps)


def normed(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """``rms_norm`` of the last dimension of x."""
    if _learns(x, weight):
        size = x.shape[-1]
        found: Tensor = _Normed.apply(x, weight, size * eps, size**0.5)
        return found
    return nn.functional.rms_norm(x, x.shape[-1:], weight, eps)


def unit(x: Tensor) -> Tensor:
    """Of length 1 in the last dimension; what is nearly zero stays so."""
    if _learns(x, None):
        found: Tensor = _Normed.apply(x, None, 1e-6, 1.0)
        return found
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + 1e-6)


def _learns(x: Tensor, weight: Tensor | None) -> bool:
    """Whether there is a way back to be written out for a CPU."""
    learns = torch.is_grad_enabled() and (x.requires_grad or (weight is not None and weight.requires_grad))
    plain = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    return learns and plain and (weight is None or weight.dtype == x.dtype)


class _Normed(torch.autograd.Function):  # type: ignore[misc]
    """long w x / sqrt(|x|² + eps), with no more new memory than its results need: to write there first is what costs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, eps: float, long: float) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().add_(eps).rsqrt_().mul_(long)
        ctx.save_for_backward(x, scale, weight)
        ctx.long = long
        found = x * scale
        return found if weight is None else found.mul_(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, back: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, weight = ctx.saved_tensors
        along, to_weight = back * x, None
        if weight is None:
            said = along.sum(dim=-1, keepdim=True)
        else:
            to_weight = torch.mv(along.flatten(0, -2).mT, scale.flatten())
            said, back = torch.matmul(along, weight)[..., None], back * weight
        to_length = said.mul_((scale / ctx.long).square_()).neg_()
        return torch.mul(x, to_length, out=along).add_(back).mul_(scale), to_weight, None, None


_CACHED = 1 << 19
"""So many numbers are computed at a time: fewer cost more in calls than they spare, more no longer lie in the cache."""


class _Convolved(torch.autograd.Function):  # type: ignore[misc]
    """silu(sum_i x[t - i] w[-1 - i]), shape (B, T, channels); what comes before x is in ``before``.

    A layer in training spends much of its time here, and what autograd makes of it passes over memory several times as often.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, before: Tensor, weight: Tensor) -> Tensor:
        sums, tail = torch.empty_like(x), before.shape[1]
        # Without a way back the sums need not be kept.
        found = torch.empty_like(x) if any(ctx.needs_input_grad) else sums
        for start, stop, long in _pieces(x, before):
            piece = torch.mul(long[:, tail:], weight[-1], out=sums[:, start:stop])
            for ago in range(1, tail + 1):
                piece.addcmul_(long[:, tail - ago : -ago], weight[-1 - ago])
            torch.ops.aten.silu.out(piece, out=found[:, start:stop])
        ctx.save_for_backward(x, before, weight, sums)
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, back: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, before, weight, sums = ctx.saved_tensors
        to_x, to_before, to_weight = torch.empty_like(x), torch.zeros_like(before), torch.zeros_like(weight)
        tail = before.shape[1]
        for start, stop, long in _pieces(x, before):
            size = stop - start
            here = torch.ops.aten.silu_backward(back[:, start:stop], sums[:, start:stop])
            torch.mul(here, weight[-1], out=to_x[:, start:stop])
            for ago in range(1, tail + 1):
                early = min(ago, size) if start == 0 else 0  # so many tokens saw what lies before x
                to_x[:, start + early - ago : stop - ago].addcmul_(here[:, early:], weight[-1 - ago])
                to_before[:, tail - ago : tail - ago + early].addcmul_(here[:, :early], weight[-1 - ago])
            room = torch.empty_like(here)
            for ago in range(tail + 1):
                torch.mul(long[:, tail - ago : tail - ago + size], here, out=room)
                to_weight[-1 - ago] += room.sum(dim=(0, 1))
        return to_x, to_before, to_weight


def _pieces(x: Tensor, before: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Where pieces of x start and stop, and each with the inputs before it; a GPU takes all as one."""
    rows, size, channels = x.shape
    tail = before.shape[1]
    step = max(1, tail, _CACHED // max(1, rows * channels)) if x.device.type == "cpu" else max(1, size)
    for start in range(0, size, step):
        stop = min(start + step, size)
        yield start, stop, x[:, start - tail : stop] if start else torch.cat([before, x[:, :stop]], dim=1)


def front(mask: Tensor) -> Tensor:
    """In what order to take the places of each row so that what is real comes first, and stays in order; shape (B, T)."""
    return torch.sort((~mask.bool()).to(torch.uint8), dim=1, stable=True).indices


def moved(x: Tensor, order: Tensor) -> Tensor:
    """The places of each row in some order: x of shape (B, T, ...), order of shape (B, N)."""
    return x.gather(1, _wide(order, x))


def real(lengths: Tensor | None, x: Tensor) -> Tensor | None:
    """Which places of x, shape (B, T, ...), are no padding, shape (B, T); None where all are."""
    return None if lengths is None else torch.arange(x.shape[1], device=x.device) < lengths[:, None]


def exact(x: Tensor) -> Tensor:
    """In fp32 at least: memory is never written in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@contextmanager
def full_precision(x: Tensor) -> Iterator[None]:
    """Within the block autocast is off: it would multiply in half precision what is kept in fp32."""
    with torch.autocast(x.device.type, enabled=False):
        yield


def detached(states: Mapping[str, Tensor]) -> State:
    """A copy of a state that shares neither memory nor gradients: a branch."""
    return {name: tensor.detach().clone() for name, tensor in states.items()}


def _wide(order: Tensor, x: Tensor) -> Tensor:
    return order.reshape(*order.shape, *(1,) * (x.dim() - 2)).expand(*order.shape, *x.shape[2:])
