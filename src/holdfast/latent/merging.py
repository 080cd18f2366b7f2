"""What leaves a cache is merged into what stays and is most like it (HACK, arXiv 2504.09261, v2, sec. 3; the rule is inferred).

Each entry that leaves goes to the one of its head that stays whose key has the greatest cosine with its own; keys and values become
means, weighted by what the entries are worth. What is pinned is not touched. Keys that were rotated stand for different places, and
their mean for none: of a model with rotary embeddings take the values alone.
"""

from __future__ import annotations

from holdfast.latent.retention import PINNED, Entries
from holdfast.torched import Tensor, torch

PROFILE = ()  # part of a cache's policy

_BLOCK = 256
"""So many entries find their place together: all at once would need memory of their number squared."""


def merged(entries: Entries, scores: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values, shape (B, H, S, D) each, in which those that are kept hold what leaves; the others are as they were.

    ``scores``: log-scores, shape (B, H, S): an entry's weight is their exponential. ``kept``: a mask of that shape.
    """
    there = torch.ones_like(kept) if entries.held is None else entries.held
    targets = kept & there & (scores != PINNED)
    leaving = there & ~kept & targets.any(dim=-1, keepdim=True)
    weights = scores.float().masked_fill(~(targets | leaving), float("-inf"))
    most = weights.amax(dim=-1, keepdim=True)
    weights = (weights - most.masked_fill(most.isinf(), 0.0)).exp()
    unit = torch.nn.functional.normalize(entries.keys.float(), dim=-1)
    goes = torch.arange(kept.shape[-1], device=kept.device).expand(kept.shape).clone()
    for start in range(0, kept.shape[-1], _BLOCK):
        some = slice(start, start + _BLOCK)
        like = (unit[..., some, :] @ unit.transpose(-1, -2)).masked_fill(~targets[..., None, :], float("-inf"))
        goes[..., some] = torch.where(leaving[..., some], like.argmax(dim=-1), goes[..., some])
    # A weight so small that its exponential is 0 must not turn a mean into 0/0.
    total = torch.zeros_like(weights).scatter_add_(-1, goes, weights)
    changed = targets & (total > weights)
    return _means(entries.keys, weights, goes, total, changed), _means(entries.values, weights, goes, total, changed)


def _means(states: Tensor, weights: Tensor, goes: Tensor, total: Tensor, changed: Tensor) -> Tensor:
    sums = torch.zeros(states.shape, dtype=torch.float32, device=states.device)
    sums.scatter_add_(2, goes[..., None].expand(states.shape), weights[..., None] * states.float())
    found = sums / total.clamp(min=torch.finfo(torch.float32).tiny)[..., None]
    return torch.where(changed[..., None], found.to(states.dtype), states)
