"""Evidence on disk: ``NN-slug.json`` and its plot, one a claim, replaced in one step and never by a smaller run's."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from holdfast.claims.base import Scale
from holdfast.claims.catalogue import Paper
from holdfast.errors import ClaimError

SCALES: tuple[Scale, ...] = ("quick", "full", "gpu")


def replaced(path: Path, text: str) -> None:
    """Write a file in one step: whoever reads it meanwhile has it as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """The value as JSON can hold it: arrays as lists, NaN and infinities as null, paths by their last part only."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return value.name
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise ClaimError(f"evidence cannot hold a {type(value).__name__}; claims must give numbers, text and lists")


def read(path: Path) -> dict[str, Any] | None:
    """The record on file, None where there is none. Raises ClaimError where it is no evidence."""
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["scale"] not in SCALES or not isinstance(record["seeds"], list):
            raise ValueError(f"scale {record['scale']!r}, seeds {record['seeds']!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise ClaimError(f"{path.name} is not evidence ({error}); remove it and run the claim again") from error
    return cast(dict[str, Any], record)


def place(folder: Path, item: Paper, scale: Scale) -> tuple[Path, Path]:
    """Where the record and the plot go: a run smaller than what is on file leaves the larger one's plot alone."""
    path = folder / f"{item.stem}.json"
    before = read(path)
    smaller = before is not None and SCALES.index(before["scale"]) > SCALES.index(scale)
    return path, folder / f"{item.stem}{f'-{scale}' if smaller else ''}.png"


def write(path: Path, record: dict[str, Any], scale: Scale) -> dict[str, Any]:
    """Join the record with what is on file, and replace the file in one step."""
    before = read(path) or {}
    smaller: dict[str, Any] = before.pop("smaller", {})
    if not before or SCALES.index(before["scale"]) <= SCALES.index(scale):
        if before and before["scale"] != scale:
            smaller[before["scale"]] = before
        smaller.pop(scale, None)
        whole = record
    else:
        smaller[scale] = record
        whole = before
    if smaller:
        whole["smaller"] = smaller
    replaced(path, json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return record
