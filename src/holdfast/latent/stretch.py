"""What rows read since their last complete piece, and what is new, in one sequence that begins with a piece.

Titans (arXiv 2501.00663) learns chunk by chunk and attends segment by segment; whoever reads in pieces of other lengths gets the
same where what makes no complete piece is kept for the next call.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.latent.layers import State, front
from holdfast.torched import Tensor, nn, torch

PROFILE = ()  # a part of memories, and no memory


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tensors of the same L tokens, each of shape (B, ..., L, d).

    Fields
        parts: these, by name.
        kept: the names of those that ``tail`` keeps.
        totals: shape (B,), so many of a row are real; None: all.
        fresh: where a row's new tokens stand: shape (B, T), or one slice for all rows.
    """

    parts: State
    kept: tuple[str, ...]
    totals: Tensor | None
    fresh: Tensor | slice

    @classmethod
    def of(cls, before: State, counts: Tensor, new: State, lengths: Tensor | None) -> Stretch:
        """Join what ``tail`` kept, of which so many tokens of a row are real, to what is new, of which ``lengths`` are (None: all).

        Zeros stand before what is new and is not kept.
        """
        count, kept = int(counts[0]), tuple(before)
        if lengths is None and (counts == count).all():
            return cls(_joined(before, new, count) if count else new, kept, None, slice(count, None))
        room, length = (next(iter(some.values())).shape[-2] for some in (before, new))
        places = torch.arange(room + length, device=counts.device)
        ends = room + (torch.full_like(counts, length) if lengths is None else lengths)
        held = (places < counts[:, None]) | ((places >= room) & (places < ends[:, None]))
        totals = held.sum(dim=1)
        order = front(held)[:, : max(1, int(totals.max()))]
        parts = {name: _picked(part, order) for name, part in _joined(before, new, room).items()}
        fresh = (counts[:, None] + torch.arange(length, device=counts.device)).clamp_max(order.shape[1] - 1)
        return cls(parts, kept, totals, fresh)

    def within(self, start: int, size: int) -> Tensor | None:
        """How many tokens of so many from a place on are real, shape (B,); None: all."""
        some = None if self.totals is None else (self.totals - start).clamp(0, size)
        return None if some is None or bool((some == size).all()) else some

    def new(self, found: Tensor) -> Tensor:
        """Of what was found for all tokens, shape (B, ..., L, d), that of the new ones."""
        return found[..., self.fresh, :] if isinstance(self.fresh, slice) else _picked(found, self.fresh)

    def tail(self, size: int) -> State:
        """What makes no complete piece of so many tokens, in room for all but one of them, and its "count"."""
        held = {name: self.parts[name] for name in self.kept}
        one = next(iter(held.values()))
        if self.totals is None:
            left = one.shape[-2] % size
            room = 0, 0, 0, size - 1 - left
            ends = {name: nn.functional.pad(part[..., part.shape[-2] - left :, :], room) for name, part in held.items()}
            return {**ends, "count": torch.full((len(one),), left, device=one.device)}
        counts = self.totals % size
        slots = torch.arange(size - 1, device=one.device)
        places = ((self.totals - counts)[:, None] + slots).clamp_max(one.shape[-2] - 1)
        real = slots < counts[:, None]
        return {**{name: _picked(part, places) * _wide(real, part) for name, part in held.items()}, "count": counts}


def _joined(before: State, new: State, count: int) -> State:
    return {
        name: torch.cat([before[name][..., :count, :].to(part.dtype), part], dim=-2)
        if name in before
        else nn.functional.pad(part, (0, 0, count, 0))
        for name, part in new.items()
    }


def _picked(x: Tensor, places: Tensor) -> Tensor:
    """Some places of x, shape (B, ..., L, d), of each row its own: places of shape (B, N)."""
    return x.gather(-2, _wide(places, x).expand(*x.shape[:-2], -1, x.shape[-1]))


def _wide(places: Tensor, x: Tensor) -> Tensor:
    return places.reshape(len(places), *(1,) * (x.dim() - 3), -1, 1)
