"""A layer of a stream's cache whose heads hold unequal numbers: each head's queries look at its own entries where they lie.

What was kept lies flat (``ragged``), behind each head's entries some room for those that come. To attend, a step pads nothing and
copies nothing: each head of keys is one call over a view. A policy, which sees all heads at once, is given padded entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from holdfast.errors import InputError
from holdfast.latent.ragged import Ragged
from holdfast.latent.retention import Entries, Merging
from holdfast.latent.stream_layers import READING, StreamLayer
from holdfast.torched import Tensor, nn, torch

PROFILE = ()  # part of a stream's cache


class RaggedLayer(StreamLayer):
    """Until something leaves it is a plain layer. Then ``_flat`` holds the entries, and what was noted of those that were kept; the
    positions and notes of what came since are those of a plain layer, whose ``keys`` and ``values`` are empty.
    """

    _flat: Ragged | None = None
    _since = 0  # so many of every head came since

    @property
    def counts(self) -> Tensor:
        """How many entries each head holds, shape (B, H)."""
        late = super().counts
        return late if self._flat is None else late + self._flat.counts.to(late.device)

    def tensors(self) -> list[Tensor]:
        """All that is held between two steps, and the room for what comes."""
        flat = self._flat
        if flat is None:
            return super().tensors()
        return [*super().tensors(), flat.keys, flat.values, flat.positions, flat.ends, *flat.notes.values()]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """See ``transformers``; what is given back is of use to ``attend`` alone. Raises InputError where it will not be asked."""
        layers = READING.get()
        if layers is None or layers[self._at] is not self:
            raise InputError("heads hold unequal numbers: call the model within attached()")
        return super().update(key_states, value_states, *args, **kwargs)

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **given: Any
    ) -> Any:
        """The mask of all layers is of none of these heads: what is new is causal, and all else is seen. Raises InputError."""
        if self._flat is None:
            new, held = query.shape[2], key.shape[2]
            ours = torch.ones((new, held), dtype=torch.bool, device=key.device).tril(held - new)[None, None]
            return super().attend(module, query, key, value, ours if 1 < new < held else None, **given)
        if given.get("softcap") is not None or given.get("position_bias") is not None:
            raise InputError("over heads of unequal length attention is plain: no cap, and no bias by position")
        self._asked(query, given.get("scaling"))
        dropout = float(given.get("dropout") or 0.0)
        return self._flat.attended(query, self._since, self._scaling, dropout).transpose(1, 2).contiguous(), None

    def turn(self) -> None:
        """The policy may change its notes."""
        super().turn()
        if self._flat is not None:
            self._policy.turn(self._flat.notes)

    def is_over(self, shares: Sequence[int]) -> bool:
        """Whether any head holds more than its share and the buffer."""
        if self._flat is None:
            return self._held > min(shares) + self._buffer
        late = self._since - self._buffer
        return any(count + late > share for row in self._flat.lengths for count, share in zip(row, shares, strict=True))

    def totals(self) -> list[int]:
        """How many entries all heads hold together, of each row."""
        rows, heads = self.keys.shape[:2]
        kept = [0] * rows if self._flat is None else [sum(row) for row in self._flat.lengths]
        return [total + heads * self._held for total in kept]

    def scored(self, seen: int) -> tuple[Tensor, Tensor]:
        """The scores, and which places hold an entry, shape (B, H, S) each, now that ``seen`` tokens were read."""
        entries = self.entries
        assert entries is not None
        scores = self._policy.score(self._at, entries, seen).expand_as(entries.positions)
        return scores, torch.ones_like(scores, dtype=torch.bool) if entries.held is None else entries.held

    def keep_of(self, mask: Tensor, scores: Tensor) -> None:
        """Let go of all but those of a mask, shape (B, H, S), chosen by their scores."""
        entries = self.entries
        assert entries is not None
        if isinstance(self._policy, Merging):
            entries.values = self._policy.merge(self._at, entries, scores, mask)
        self._flat = Ragged.of(entries, mask, self._buffer)
        self.keys, self.values = (one[:, :, :0].clone() for one in (entries.keys, entries.values))
        self._room, self._since = None, 0
        self._positions = entries.positions[..., :0].clone()
        self._notes = {name: note[..., :0].clone() for name, note in entries.notes.items()}

    def reset(self) -> None:
        """See ``transformers``."""
        super().reset()
        self._flat, self._since = None, 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beam search takes some rows anew, with all that was noted of them."""
        super().reorder_cache(beam_idx)
        if self._flat is not None:
            self._flat = self._flat.rows(beam_idx)

    @property
    def _held(self) -> int:
        """Of every head so many that came since some left."""
        return super()._held if self._flat is None else self._since

    def _grown(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take in what is new. Once heads are unequal there is nothing to give but what came."""
        if self._flat is None:
            return super()._grown(keys, values)
        end = self._since + keys.shape[2]
        if end > self._flat.room:
            self._flat = self._flat.widened(end)
        self._flat = self._flat.filled(self._since, keys, values)
        self._since = end
        return keys, values

    def _came(self, count: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the newest entries, shape (B, H, count, D)."""
        return super()._came(count) if self._flat is None else self._flat.filling(self._since - count, count)

    def _all(self) -> Entries:
        """What is held, padded on the left."""
        late = super()._all()
        if self._flat is None:
            return late
        every = self._flat.padded(late.positions, late.notes)
        return replace(every, queries=late.queries, asked=late.asked, scaling=late.scaling)

    def _renew(self, notes: Mapping[str, Tensor]) -> None:
        """Notes on all entries, padded, go to what was kept and to what came since."""
        if self._flat is None:
            super()._renew(notes)
            return
        held = self._flat.places()
        size = held.shape[2]
        for name, note in notes.items():
            self._flat.notes[name] = note[..., :size][held].float()
            self._notes[name] = note[..., size:].float()
