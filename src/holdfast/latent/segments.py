"""A stretch of a KV cache: the keys and values of some tokens at their places, on disk and back, and joined into a cache.

MemOS (arXiv 2507.03724 §5.5) keeps what a model computes of a text as activation memory. A segment is the part of such a cache that
one text brought. Joined with the segments that it was computed after, it is exactly what reading them all at once would give; moved
to another place, or after others than those, it is an approximation: its keys are turned to their new places, but it has not seen
what now stands before it.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from holdfast.cube import Form
from holdfast.errors import InputError, MissingExtraError, StaleError
from holdfast.latent.rotary import Rotation
from holdfast.latent.tensors import Key, differing, key_of, pack
from holdfast.taxonomy import Formation, Function, MemoryProfile, Retrieval, Subform, Subject
from holdfast.torched import Tensor, torch

try:
    from transformers.cache_utils import DynamicCache
except ImportError as error:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[torch]'") from error

PROFILE = MemoryProfile(
    Form.STATE,
    Subform.REUSED,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT, Function.WORK_SINGLE, Function.WORK_MULTI),
    formation=(Formation.LATENT,),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.USER, Subject.WORLD, Subject.AGENT),
)

_DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Segment:
    """What a model holds of some tokens.

    Fields
        tokens: their ids.
        start: the place of the first.
        keys, values: shape (H, S, D), one a layer; keys are turned to their places.
    """

    tokens: tuple[int, ...]
    start: int
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def end(self) -> int:
        """The place after the last."""
        return self.start + len(self.tokens)

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.keys, *self.values))

    def moved(self, start: int, turn: Rotation) -> Segment:
        """The same at another place."""
        if start == self.start:
            return self
        by = torch.full((len(self.tokens),), start - self.start)
        return Segment(self.tokens, start, tuple(turn(keys, by.to(keys.device)) for keys in self.keys), self.values)

    def to(self, device: Any) -> Segment:
        """The same on a device."""
        keys, values = (tuple(tensor.to(device) for tensor in some) for some in (self.keys, self.values))
        return Segment(self.tokens, self.start, keys, values)


def taken(cache: Any, tokens: Sequence[int], start: int) -> Segment:
    """The end of a cache with one row, as a segment of memory of its own, for the tokens that it holds there."""
    keys, values = (
        tuple(getattr(layer, name)[0, :, start : start + len(tokens)].detach().clone() for layer in cache.layers)
        for name in ("keys", "values")
    )
    if any(tensor.shape[1] != len(tokens) for tensor in (*keys, *values)):
        raise InputError(f"the cache does not hold {len(tokens)} tokens from place {start} on")
    return Segment(tuple(tokens), start, keys, values)


def joined(segments: Sequence[Segment]) -> DynamicCache:
    """A cache of one row that holds them all; what is read next leaves them as they are. Raises InputError for a gap."""
    for before, after in pairwise(segments):
        if after.start != before.end:
            raise InputError(f"a segment starts at place {after.start}, and the one before it ends at {before.end}")
    if not segments or segments[0].start != 0:
        raise InputError("a cache begins with a segment at place 0")
    layers = (
        zip(*(segment.keys for segment in segments), strict=True),
        zip(*(one.values for one in segments), strict=True),
    )
    return DynamicCache(
        [(torch.cat(keys, dim=1)[None], torch.cat(values, dim=1)[None]) for keys, values in zip(*layers, strict=True)]
    )


def packed(segment: Segment, key: Key) -> bytes:
    """As a safetensors file that says what must match."""
    named = {f"keys.{at}": keys for at, keys in enumerate(segment.keys)}
    named |= {f"values.{at}": values for at, values in enumerate(segment.values)}
    return pack(named, {**key, "start": segment.start, "ids": list(segment.tokens)})


def unpacked(data: bytes, key: Key) -> Segment:
    """The segment of such a file. Raises InputError for what is none, StaleError where it was made for another key."""
    return _read(memoryview(bytearray(data)), key)


def mapped(file: Path, key: Key) -> Segment:
    """As ``unpacked``, without reading the file: it is mapped, and its pages are copied where somebody writes to them."""
    with file.open("rb") as opened:
        pages = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
    return _read(memoryview(pages), key)


def _read(memory: memoryview, key: Key) -> Segment:
    """The tensors lie over that memory: nothing but the header is read here."""
    base = _LENGTH + int.from_bytes(memory[:_LENGTH], "little")
    head = bytes(memory[:base])
    found = key_of(head)
    start, ids = found.pop("start", None), found.pop("ids", None)
    if wrong := differing(found, key):
        raise StaleError(f"what was kept is of another {', '.join(wrong)}: make it anew")
    if not isinstance(start, int) or not isinstance(ids, list) or not all(isinstance(id, int) for id in ids):
        raise InputError("this file holds no stretch of a KV cache")
    header: Mapping[str, Any] = json.loads(head[_LENGTH:base])
    tensors: dict[str, list[Tensor]] = {"keys": [], "values": []}
    try:
        for name, into in tensors.items():
            for at in range(len(header) // 2):
                entry = header[f"{name}.{at}"]
                begin, end = entry["data_offsets"]
                kind = _DTYPES[entry["dtype"]]
                count = (end - begin) // kind.itemsize
                tensor = torch.frombuffer(memory, dtype=kind, count=count, offset=base + begin)
                into.append(tensor.view(*entry["shape"]))
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"this file of a KV cache is damaged: {type(error).__name__}") from error
    segment = Segment(tuple(ids), start, tuple(tensors["keys"]), tuple(tensors["values"]))
    if any(tensor.dim() != 3 or tensor.shape[1] != len(ids) for tensor in (*segment.keys, *segment.values)):
        raise InputError("this file of a KV cache does not hold as many entries as tokens")
    return segment
