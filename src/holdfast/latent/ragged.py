"""Entries of which each head holds a number of its own: one after another, so that what a head lets go of is free for another.

A padded cache frees nothing: its every head is as long as the longest. Here what is kept lies flat, (N, D), and is padded for one
layer at a time while that layer's step runs; the step pays for it with one more copy of what the layer keeps.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.latent.retention import Entries
from holdfast.torched import Tensor, torch


@dataclass(frozen=True, slots=True)
class Ragged:
    """N entries of B rows and H heads, row by row and head by head.

    Fields
        keys, values: shape (N, D). positions, and each of notes: shape (N,).
        counts: how many each head holds, shape (B, H), int64; their sum is N.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    notes: dict[str, Tensor]
    counts: Tensor

    @classmethod
    def of(cls, entries: Entries, kept: Tensor) -> Ragged:
        """Those entries that are kept, a mask of shape (B, H, S)."""
        notes = {name: note[kept] for name, note in entries.notes.items()}
        return cls(entries.keys[kept], entries.values[kept], entries.positions[kept], notes, kept.sum(dim=-1))

    def padded_states(self, new_keys: Tensor, new_values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values, shape (B, H, S + T, D), S the most that a head holds, and which places hold an entry, (B, H, S + T).

        What holds nothing comes first, so that what is new, shape (B, H, T, D), stands at the same places in every head. Head by
        head, since to copy what lies together is several times faster than to scatter it.
        """
        rows, heads = self.counts.shape
        counts = self.counts.tolist()
        most, new = max(map(max, counts)), new_keys.shape[2]
        wide = (rows, heads, most + new, self.keys.shape[-1])
        keys, values = self.keys.new_empty(wide), self.values.new_empty(wide)
        start = 0
        for row in range(rows):
            for head in range(heads):
                first, end = most - counts[row][head], start + counts[row][head]
                for to, of in ((keys, self.keys), (values, self.values)):
                    to[row, head, :first] = 0
                    to[row, head, first:most] = of[start:end]
                start = end
        keys[:, :, most:], values[:, :, most:] = new_keys, new_values
        return keys, values, self.places(new)

    def places(self, new: int = 0) -> Tensor:
        """Which places hold an entry once they are padded and so many are appended."""
        most = int(self.counts.max())
        return torch.arange(most + new, device=self.counts.device) >= (most - self.counts)[..., None]

    def padded(self) -> Entries:
        """All of it as (B, H, S, D)."""
        none = self.keys.new_empty((*self.counts.shape, 0, self.keys.shape[-1]))
        keys, values, held = self.padded_states(none, none.to(self.values.dtype))
        positions = self.positions.new_zeros(held.shape)
        positions[held] = self.positions
        notes = {name: note.new_zeros(held.shape) for name, note in self.notes.items()}
        for name, note in self.notes.items():
            notes[name][held] = note
        return Entries(keys, values, positions, notes, held)

    def rows(self, chosen: Tensor) -> Ragged:
        """Some rows, by number, shape (N,)."""
        entries = self.padded()
        assert entries.held is not None
        some = Entries(
            entries.keys.index_select(0, chosen),
            entries.values.index_select(0, chosen),
            entries.positions.index_select(0, chosen),
            {name: note.index_select(0, chosen) for name, note in entries.notes.items()},
        )
        return Ragged.of(some, entries.held.index_select(0, chosen))
