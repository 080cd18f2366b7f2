"""What a bounded KV cache keeps: the seam of retention policies.

A policy scores the entries of a layer's cache: additive log-scores in fp32, the larger the more worth keeping, +inf for what is
pinned, so that the scores of several policies can be added up. Which entries are kept follows from the scores alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from holdfast.errors import InputError
from holdfast.torched import Tensor, torch

PINNED = float("inf")


@dataclass
class Entries:
    """What a layer's cache holds: B rows, H heads of keys and values, S entries of D numbers.

    Fields
        keys, values: shape (B, H, S, D).
        positions: where each stood in what was read, shape (B, H, S), int64.
        notes: what a policy has noted of each, fp32, shape (B, H, S) by name.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    notes: dict[str, Tensor] = field(default_factory=dict)


class RetentionPolicy(Protocol):
    """Says what is worth keeping. Whatever it remembers of an entry it keeps as a note, which goes where the entry goes."""

    def observe(self, tokens: Tensor, logits: Tensor, before: Tensor | None) -> Mapping[str, Tensor]:
        """Notes on tokens that were read, shape (B, T) each, for all layers and heads: {} where none are taken.

        ``tokens``: shape (B, T); ``logits``: the model's, shape (B, T, V); ``before``: those that the first of the tokens was to
        be told from, shape (B, V), None where nothing was read before.
        """
        ...

    def score(self, layer: int, entries: Entries, seen: int) -> Tensor:
        """Shape (B, H, S), fp32; ``seen`` tokens were read by now."""
        ...

    def turn(self, notes: dict[str, Tensor]) -> None:
        """A turn of the talk has ended: notes may be changed in place."""
        ...


def kept(scores: Tensor, count: int) -> Tensor:
    """Which ``count`` entries are kept, in their old order: shape (B, H, count), int64. Of equals the earlier one.

    Raises InputError where a score is no number, or fewer entries than that are there.
    """
    if not 0 < count <= scores.shape[-1]:
        raise InputError(f"{count} of {scores.shape[-1]} entries cannot be kept")
    if torch.isnan(scores).any():
        raise InputError("a score is no number")
    best = torch.sort(scores.float(), dim=-1, descending=True, stable=True).indices[..., :count]
    return best.sort(dim=-1).values


def gathered(entries: Entries, places: Tensor) -> Entries:
    """The entries at some places, shape (B, H, N), of each head its own."""
    wide = places[..., None].expand(*places.shape, entries.keys.shape[-1])
    return Entries(
        entries.keys.gather(2, wide),
        entries.values.gather(2, wide),
        entries.positions.gather(2, places),
        {name: note.gather(2, places) for name, note in entries.notes.items()},
    )
