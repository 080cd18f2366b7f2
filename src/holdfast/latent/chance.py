"""What is kept is drawn by lot: the control that every retention policy must beat.

The lot of an entry hangs on the seed and on where it stood, so that it is drawn once, whatever else leaves or comes.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.errors import InputError
from holdfast.latent.retention import Entries, Retention, pinned
from holdfast.torched import Tensor, torch

PROFILE = ()  # it remembers nothing on purpose

_MIX = (0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35)  # odd numbers without structure, as integer hashes use them
_WORD = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Chance(Retention):
    """A policy. Raises InputError.

    Fields
        seed: of the lots.
        sinks: so many of the first entries are pinned.
        alike: all layers and heads draw the same, so that whole tokens are kept; rows draw for themselves in any case.
    """

    seed: int = 0
    sinks: int = 0
    alike: bool = False

    def __post_init__(self) -> None:
        if self.sinks < 0:
            raise InputError("there are no fewer than 0 sinks")

    def score(self, layer: int, entries: Entries, seen: int) -> Tensor:
        """The lots, between 0 and 1."""
        rows, heads, _ = entries.positions.shape
        each = torch.arange(rows, device=entries.positions.device).view(rows, 1, 1)
        if not self.alike:
            numbers = torch.arange(heads, device=entries.positions.device).view(1, heads, 1)
            each = each + rows * (numbers + heads * layer)
        found = _mixed(entries.positions + _mixed(each + _mixed(torch.full_like(each, self.seed))))
        return pinned(found.float() / _WORD, entries, seen, self.sinks, 0)


def _mixed(numbers: Tensor) -> Tensor:
    """32 bits of each number, none of which tells the number."""
    found = numbers & _WORD
    for factor in _MIX:
        found = ((found ^ (found >> 16)) * factor) & _WORD
    return found ^ (found >> 16)
