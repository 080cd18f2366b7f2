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

    def padded_states(self) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values, shape (B, H, S, D), S the most that a head holds, and which places hold an entry, (B, H, S).

        What holds nothing comes first, so that what is appended stands at the same place in every head.
        """
        rows, heads = self.counts.shape
        most = int(self.counts.max())
        held = torch.arange(most, device=self.counts.device) >= (most - self.counts)[..., None]
        wide = (rows, heads, most, self.keys.shape[-1])
        keys, values = self.keys.new_zeros(wide), self.values.new_zeros(wide)
        keys[held], values[held] = self.keys, self.values
        return keys, values, held

    def padded(self) -> Entries:
        """The same with positions and notes."""
        keys, values, held = self.padded_states()
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
