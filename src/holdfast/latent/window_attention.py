"""Sliding-window attention with learnt tokens that are always in sight (the persistent memory of Titans, arXiv 2501.00663, eq. 19).

A token sees itself and the ``window - 1`` before it. Positions are rotary, and count on over a stream; the learnt tokens have none.
"""

from __future__ import annotations

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.latent.layers import Layer, ShortConvolution, State, exact
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Retrieval, Subform, Subject, Trainable
from holdfast.torched import Tensor, nn, torch

PROFILE = MemoryProfile(
    Form.STATE,
    Subform.REUSED,
    (Function.WORK_SINGLE,),
    evolution=(Evolution.FORGET_BY_TIME,),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.USER, Subject.WORLD, Subject.AGENT),
    trainable=Trainable.FULL,
)


class WindowAttention(Layer):
    """A layer that keeps the keys and values of the last tokens. Raises InputError.

    Args:
        d_model, heads, head_dim: its sizes; head_dim is even.
        window: so many tokens are seen at most.
        persistent: learnt tokens.
        conv: width of a causal convolution of queries, keys and values; 1 for none.
    """

    def __init__(
        self, d_model: int, heads: int, *, head_dim: int, window: int, persistent: int = 0, conv: int = 1
    ) -> None:
        super().__init__(d_model)
        if window < 1 or persistent < 0 or head_dim % 2:
            raise InputError("a window is 1 token or more, learnt tokens are 0 or more, and heads have an even size")
        self.heads, self.head_dim, self.window = heads, head_dim, window
        self.to_all = nn.Linear(d_model, 3 * heads * head_dim, bias=False)
        self.conv = ShortConvolution(3 * heads * head_dim, conv) if conv > 1 else None
        self.persistent = nn.Parameter(torch.randn(2, heads, persistent, head_dim) * 0.5) if persistent else None
        self.out = nn.Linear(heads * head_dim, d_model, bias=False)

    def take(self, x: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        """See ``Layer``."""
        rows, length, _ = x.shape
        mixed, now = self.to_all(x), {}
        if self.conv is not None:
            mixed, now["conv"] = self.conv(mixed, None if state is None else state["conv"], lengths)
        # (B, T, H, d): time comes second, as ``moved`` wants it.
        queries, keys, values = (one.unflatten(-1, (self.heads, self.head_dim)) for one in mixed.chunk(3, dim=-1))
        before = self.window - 1
        if state is None:
            empty = keys.new_zeros((rows, before, self.heads, self.head_dim))
            state = {"keys": empty, "values": empty, "seen": torch.zeros(rows, dtype=torch.int64, device=x.device)}
        seen = state["seen"]
        places = seen[:, None] + torch.arange(length, device=x.device)
        turned = rotated(queries, places)
        keys = torch.cat([state["keys"].to(x.dtype), rotated(keys, places)], dim=1)
        values = torch.cat([state["values"].to(x.dtype), values], dim=1)
        found = self._attended(queries, turned, keys, values, seen)
        # The last of what is real, as ``ShortConvolution`` keeps it.
        ends = torch.full((rows,), length, device=x.device) if lengths is None else lengths
        last = (ends[:, None] + torch.arange(before, device=x.device))[..., None, None]
        now["keys"], now["values"] = (one.gather(1, last.expand(-1, -1, *one.shape[2:])) for one in (keys, values))
        now["seen"] = seen + ends
        return self.out(found.flatten(2)), now

    def _attended(self, plain: Tensor, queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
        """In blocks of queries, each of which sees the keys of its own and the last window: shape (B, T, H, d)."""
        length, before = queries.shape[1], self.window - 1
        size = min(self.window, length)
        short = -length % size

        def blocks(x: Tensor, span: int) -> Tensor:
            """Shape (B, L, H, d) as (B, H, blocks, span, d)."""
            long = nn.functional.pad(x, (0, 0, 0, 0, 0, short))
            return long.unfold(1, span, size).permute(0, 2, 1, 4, 3)

        wide = blocks(keys, size + before)
        scores = blocks(queries, size) @ wide.mT
        at, key = (torch.arange(count, device=keys.device) for count in (size, size + before))
        inside = (key >= at[:, None]) & (key <= at[:, None] + before)
        # Before the first token nothing was kept.
        first = torch.arange(wide.shape[2], device=keys.device) * size
        there = first[:, None] + key >= before - seen[:, None, None]
        scores = scores.masked_fill(~(inside & there[:, None, :, None]), float("-inf"))
        if self.persistent is None:
            weights = (exact(scores) * self.head_dim**-0.5).softmax(dim=-1).to(values.dtype)
            found = weights @ blocks(values, size + before)
        else:
            always = blocks(plain, size) @ self.persistent[0][:, None].mT
            weights = (exact(torch.cat([always, scores], dim=-1)) * self.head_dim**-0.5).softmax(dim=-1)
            first_, rest = weights.to(values.dtype).split([always.shape[-1], scores.shape[-1]], dim=-1)
            found = first_ @ self.persistent[1][:, None] + rest @ blocks(values, size + before)
        return found.flatten(2, 3)[:, :, :length].transpose(1, 2)


def rotated(x: Tensor, places: Tensor) -> Tensor:
    """Rotary positions (arXiv 2104.09864): x of shape (B, T, H, d), places of shape (B, T)."""
    return turned(x, *turns(x, places))


def turns(x: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """The cosines and sines for heads like those of x, shape (..., T, 1, d / 2), at places of shape (..., T)."""
    half = x.shape[-1] // 2
    frequencies = 10000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angles = places[..., None, None] * frequencies
    return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x of shape (..., T, H, d) by such turns."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat([torch.addcmul(left * cos, right, sin, value=-1), torch.addcmul(right * cos, left, sin)], dim=-1)
