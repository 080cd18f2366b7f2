"""Tensors as a file: safetensors with a key of all that must match before they are used again, and never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from holdfast.errors import InputError, MissingExtraError, StaleError
from holdfast.torched import Tensor

try:
    from safetensors import SafetensorError
    from safetensors.torch import load, save
except ImportError as error:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[torch]'") from error

Key = Mapping[str, Any]
"""What must match, JSON-ready: model, weights, tokenizer, dtype, positions, tokens, and whatever else a reader relies on."""

_KEY = "holdfast"
_LENGTH = 8  # of the header's length, in bytes, with which a safetensors file begins


def pack(tensors: Mapping[str, Tensor], key: Key) -> bytes:
    """A safetensors file of some tensors, on whatever device they are, that says what must match. Raises InputError."""
    if not tensors:
        raise InputError("there is nothing to keep: no tensors were given")
    # Views would be written once for each name, and the library refuses them.
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    try:
        written: bytes = save(plain, metadata={_KEY: json.dumps(key, sort_keys=True)})
    except (TypeError, ValueError) as error:
        raise InputError(f"a key must be JSON, and tensors of kinds that safetensors knows: {error}") from error
    return written


def unpack(data: bytes, key: Key | None = None) -> dict[str, Tensor]:
    """The tensors of such a file, of memory of their own.

    Raises InputError for what is no such file, StaleError where it was made for another key than the one given; make it anew then.
    """
    found = key_of(data)
    if key is not None and (wrong := differing(found, key)):
        raise StaleError(f"what was kept is of another {', '.join(wrong)}: make it anew")
    try:
        tensors: dict[str, Tensor] = load(data)
    except SafetensorError as error:
        raise InputError(f"this is no safetensors file: {error}") from error
    return {name: tensor.clone() for name, tensor in tensors.items()}


def key_of(data: bytes) -> dict[str, Any]:
    """The key that such a file was made with. Raises InputError for what is no such file."""
    try:
        size = int.from_bytes(data[:_LENGTH], "little")
        header = json.loads(data[_LENGTH : _LENGTH + size])
        found = json.loads(header["__metadata__"][_KEY])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError("this is no file of tensors that Holdfast has written") from error
    if not isinstance(found, dict):
        raise InputError("this is no file of tensors that Holdfast has written")
    return found


def differing(found: Key, wanted: Key) -> list[str]:
    """The names under which two keys differ."""
    plain = json.loads(json.dumps(dict(wanted)))  # tuples as lists, as they come back
    return sorted(name for name in {*found, *plain} if found.get(name) != plain.get(name))
