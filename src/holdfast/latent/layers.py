"""Neural memory layers: the seam, and how a layer's state is kept between two sessions.

A layer reads a sequence and what it has kept so far, and gives what it says and what it keeps now. The state is a dict of tensors
whose first dimension is the batch's, so that a session's state can be saved, restored, branched and forgotten like any memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from holdfast.torched import Tensor

State = dict[str, Tensor]
"""What a layer keeps: tensors by name, shape (B, ...) each; fp32 for whatever is updated in place, whatever the model runs in."""


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


def detached(states: Mapping[str, Tensor]) -> State:
    """A copy of a state that shares neither memory nor gradients: a branch."""
    return {name: tensor.detach().clone() for name, tensor in states.items()}
