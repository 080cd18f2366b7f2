"""TIES merging (arXiv 2306.01708 §4; as WISE merges its shards, arXiv 2405.14768 §2.3.2): trim, elect a sign, mean of who agrees.

It is what ``GTA('magnitude', 'sum', normalize=True)`` of EasyEdit computes, to the last bit; of peft's ``ties`` with weights of 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.errors import InputError
from holdfast.torched import Tensor, torch

PROFILE = ()  # how memories are joined, and none itself


def ties(deltas: Sequence[Tensor], weights: Sequence[float] | None = None, *, density: float = 1.0) -> Tensor:
    """One delta of several of the same shape. Raises InputError for what does not fit.

    Args:
        deltas: what each adds to a base.
        weights: how much each has to say in the election and in the mean, above 0; by default all the same.
        density: of each so large a share of its elements is kept, those that are largest.

    Element by element the sign of the weighted sum is elected (+ where it is 0), and the weighted mean taken of those that have it;
    a delta of 0 agrees with nobody. Where nobody agrees, it is 0.
    """
    if weights is None:
        weights = [1 / len(deltas) for _ in deltas]
    if not deltas or len(weights) != len(deltas) or any(one.shape != deltas[0].shape for one in deltas):
        raise InputError("merging needs deltas of one shape, and a weight for each")
    if not all(weight > 0 for weight in weights) or not 0 < density <= 1:
        raise InputError("weights are above 0, and a density lies in (0, 1]")
    trimmed = torch.stack([_trimmed(one, density) for one in deltas])
    scale = torch.tensor(weights, dtype=trimmed.dtype, device=trimmed.device).view(-1, *[1] * deltas[0].dim())
    weighted = trimmed * scale
    elected = (weighted.sum(dim=0) >= 0).to(weighted.dtype) * 2 - 1
    agrees = weighted.sign() == elected
    divisor = (scale * agrees).sum(dim=0)
    divisor[divisor == 0] = 1
    return (weighted * agrees).sum(dim=0) / divisor


def _trimmed(delta: Tensor, density: float) -> Tensor:
    """The largest share of it, by magnitude; the rest is 0."""
    if density == 1:
        return delta
    count = int(density * delta.numel())
    if not count:
        raise InputError(f"a density of {density} leaves nothing of {delta.numel()} elements")
    kept = torch.zeros_like(delta)
    kept.view(-1)[delta.abs().flatten().float().topk(count).indices] = 1
    return delta * kept
