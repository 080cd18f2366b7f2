"""Which model this is, to the last bit: what is kept of a model's state serves this very model alone.

Weights are hashed once and looked at again at every use, by version counters and samples, so that to ask is cheap. Where they were
changed (trained, edited, merged with an adapter) they are hashed anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from holdfast.torched import Tensor, nn, torch

PROFILE = ()  # no memory, but what tells whose it is

_SAMPLES = 4  # of every weight, looked at at every use
_APART = ("_name_or_path", "transformers_version", "_attn_implementation", "use_cache")
"""What a configuration says that changes nothing of what a model computes."""

_Known = tuple[tuple[Any, ...], Tensor, str]
_KNOWN: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def config_digest(model: Any) -> str:
    """Of the configuration of a model of ``transformers``, in 32 hexadecimal digits."""
    told = {name: value for name, value in model.config.to_dict().items() if name not in _APART}
    return digest(json.dumps(told, sort_keys=True, default=str).encode())


def weights_digest(model: nn.Module, without: Iterable[nn.Module] = ()) -> str:
    """Of every parameter and persistent buffer by name, in 32 hexadecimal digits; but of those of modules that were added to it."""
    apart = {id(tensor) for one in without for tensor in one.state_dict(keep_vars=True).values()}
    named = [(name, tensor) for name, tensor in _tensors(model) if id(tensor) not in apart]
    marks = tuple((name, tensor.data_ptr(), tensor._version, tensor.shape, tensor.dtype) for name, tensor in named)
    samples = _samples([tensor for _, tensor in named])
    known = _KNOWN.get(model)
    if known is None or known[0] != marks or not torch.equal(known[1], samples):
        known = _KNOWN[model] = marks, samples, tensors_digest(named)
    return known[2]


def tensors_digest(named: Iterable[tuple[str, Tensor]]) -> str:
    """Of names, kinds, shapes and bytes, in 32 hexadecimal digits."""
    found = hashlib.sha256()
    for name, tensor in named:
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        plain = tensor.detach().cpu().contiguous().flatten()
        found.update(memoryview(plain.view(torch.uint8).numpy()))
    return found.hexdigest()[:32]


def digest(data: bytes) -> str:
    """SHA-256, the first 32 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()[:32]


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """What is in the model's state; tied weights once."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        found.setdefault(tensor.data_ptr() if tensor.numel() else id(tensor), (name, tensor))
    return list(found.values())


def _samples(tensors: Sequence[Tensor]) -> Tensor:
    """A few numbers of each: version counters do not see what is written through ``.data``, as adapters are merged."""
    some = [one.detach().flatten()[:: max(1, -(-one.numel() // _SAMPLES))].double() for one in tensors if one.numel()]
    return torch.cat([one.to(some[0].device) for one in some]).cpu() if some else torch.empty(0)
