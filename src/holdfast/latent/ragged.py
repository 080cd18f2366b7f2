"""Entries of which each head holds a number of its own: one after another, so that what a head lets go of is free for another.

A padded cache frees nothing: its every head is as long as the longest. Here what is kept lies flat, and each head has room for the
same number of entries behind its own: what is new is written there in place. Attention is one call a head of keys, over a view; a
call knows its queries' whole group, so that many short calls take no longer than one of all heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from holdfast.latent.retention import Entries
from holdfast.torched import Tensor, nn, torch


@dataclass(frozen=True, slots=True)
class Ragged:
    """N entries of B rows and H heads, row by row and head by head.

    Fields
        keys, values: shape (N + B H room, D). positions, and each of notes: shape (N,).
        ends: the place after each head's last entry, where its room begins, shape (B, H), int64.
        lengths: how many each head holds, by row: what ``ends`` says, for loops that must not wait for a device.
        room: places behind each head's entries.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    notes: dict[str, Tensor]
    ends: Tensor
    lengths: tuple[tuple[int, ...], ...]
    room: int = 0

    @classmethod
    def of(cls, entries: Entries, kept: Tensor, room: int = 0) -> Ragged:
        """Those entries that are kept, a mask of shape (B, H, S)."""
        wide = nn.functional.pad(kept, (0, room), value=True)
        keys, values = (nn.functional.pad(one, (0, 0, 0, room))[wide] for one in (entries.keys, entries.values))
        notes = {name: note[kept] for name, note in entries.notes.items()}
        counts = kept.sum(dim=-1)
        lengths = tuple(map(tuple, counts.tolist()))
        return cls(keys, values, entries.positions[kept], notes, _ends(counts, room), lengths, room)

    @property
    def counts(self) -> Tensor:
        """How many entries each head holds, shape (B, H), int64."""
        ends = self.ends.flatten()
        return (ends - nn.functional.pad(ends[:-1] + self.room, (1, 0))).view(self.ends.shape)

    def filled(self, start: int, keys: Tensor, values: Tensor) -> Ragged:
        """Keys and values, shape (B, H, T, D), are put into the room of every head from a place of it on, in place."""
        at = self._of_room(start, keys.shape[2])
        new = [one.reshape(-1, one.shape[-1]) for one in (keys, values)]
        if keys.requires_grad or values.requires_grad:  # gradients do not flow through what is written in place
            return replace(self, keys=self.keys.index_copy(0, at, new[0]), values=self.values.index_copy(0, at, new[1]))
        self.keys.index_copy_(0, at, new[0])
        self.values.index_copy_(0, at, new[1])
        return self

    def filling(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        """So many keys and values of every head's room from a place of it on, shape (B, H, count, D)."""
        at, shape = self._of_room(start, count), (*self.ends.shape, count, self.keys.shape[-1])
        return self.keys[at].view(shape), self.values[at].view(shape)

    def _of_room(self, start: int, count: int) -> Tensor:
        return (self.ends[..., None] + torch.arange(start, start + count, device=self.ends.device)).flatten()

    def widened(self, room: int) -> Ragged:
        """The same with more room, and in it what it held."""
        each = self.counts.flatten() + self.room
        heads = torch.arange(len(each), device=each.device)
        to = torch.arange(self.keys.shape[0], device=each.device) + (room - self.room) * heads.repeat_interleave(each)
        shape = (self.keys.shape[0] + (room - self.room) * len(each), self.keys.shape[1])
        keys, values = (one.new_zeros(shape).index_copy(0, to, one) for one in (self.keys, self.values))
        return replace(self, keys=keys, values=values, ends=_ends(self.counts, room), room=room)

    def attended(self, queries: Tensor, since: int, scaling: float, dropout: float = 0.0) -> Tensor:
        """What queries of the newest T entries see, shape (B, Hq, T, D): all but what is later, of which each saw the ``since``
        first of its head's room, themselves among them."""
        rows, heads = self.ends.shape
        new, most = queries.shape[2], max(map(max, self.lengths))
        grouped = queries.reshape(rows * heads, 1, 1, -1, queries.shape[-1]).unbind(0)
        sizes = [size for row in self.lengths for count in row for size in (count + since, self.room - since)]
        keys, values = (one[None, None].split(sizes, dim=2)[::2] for one in (self.keys, self.values))
        mask = None
        if new > 1:
            mask = torch.ones((new, most + since), dtype=torch.bool, device=queries.device).tril(most + since - new)
            mask = mask.repeat(grouped[0].shape[2] // new, 1)
        found = [
            nn.functional.scaled_dot_product_attention(
                asked,
                key,
                value,
                attn_mask=None if mask is None else mask[:, most + since - key.shape[2] :],
                dropout_p=dropout,
                scale=scaling,
            )
            for asked, key, value in zip(grouped, keys, values, strict=True)
        ]
        return torch.cat(found, dim=1).view(rows, -1, new, self.values.shape[-1])

    def places(self, since: int = 0) -> Tensor:
        """Which places hold an entry once they are padded and so many are appended."""
        most = max(map(max, self.lengths))
        return torch.arange(most + since, device=self.ends.device) >= (most - self.counts)[..., None]

    def padded(self, positions: Tensor | None = None, notes: Mapping[str, Tensor] | None = None) -> Entries:
        """All of it as (B, H, S, D), what holds nothing first; and behind it as much of each room as positions are given, shape
        (B, H, T), with what was noted of it."""
        since, late = (0 if positions is None else positions.shape[2]), notes or {}
        held = self.places(since)
        size = held.shape[2]
        kept = held[..., : size - since]
        # A head's room follows its entries, so that one range covers both; what comes before them belongs to another head.
        at = self.ends[..., None] + torch.arange(since - size, since, device=held.device)
        keys, values = (one[at.clamp(min=0)].masked_fill(~held[..., None], 0.0) for one in (self.keys, self.values))

        def whole(flat: Tensor | None, new: Tensor | None, like: Tensor) -> Tensor:
            found = like.new_zeros(held.shape)
            if flat is not None:
                found[..., : size - since][kept] = flat
            if new is not None:
                found[..., size - since :] = new
            return found

        names = dict.fromkeys([*self.notes, *late])
        every = {
            name: whole(self.notes.get(name), late.get(name), self.notes.get(name, late.get(name))) for name in names
        }
        return Entries(keys, values, whole(self.positions, positions, self.positions), every, held)

    def rows(self, chosen: Tensor) -> Ragged:
        """Some rows, by number, shape (N,), with all that their rooms hold."""
        order = chosen.tolist()
        sizes = [sum(row) for row in self.lengths]
        wide = [size + len(row) * self.room for size, row in zip(sizes, self.lengths, strict=True)]

        def of(flat: Tensor, by: list[int]) -> Tensor:
            parts = flat.split(by)
            return torch.cat([parts[at] for at in order])

        return Ragged(
            of(self.keys, wide),
            of(self.values, wide),
            of(self.positions, sizes),
            {name: of(note, sizes) for name, note in self.notes.items()},
            _ends(self.counts.index_select(0, chosen), self.room),
            tuple(self.lengths[at] for at in order),
            self.room,
        )


def _ends(counts: Tensor, room: int) -> Tensor:
    """Where each head's entries end, where they lie one after another with room between them."""
    flat = counts.flatten()
    return (flat.cumsum(0) + room * torch.arange(len(flat), device=flat.device)).view(counts.shape)
