"""Seeds that were run, kept in a folder, so that a long run that was cut goes on at the seed it stood at.

A kept seed is used again only where the code of the package, the libraries and what was asked are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import holdfast
from holdfast.claims.base import Check, Result, Scale
from holdfast.claims.evidence import replaced
from holdfast.errors import ClaimError


@dataclass(frozen=True, slots=True)
class Kept:
    """Where the outcomes of seeds lie, one file each. ``versions``: those of the libraries in use."""

    folder: Path
    versions: Mapping[str, str]

    def find(self, number: int, scale: Scale, seed: int, with_data: bool) -> tuple[Result, float] | None:
        """What the seed gave and how many seconds it took, or None. Raises ClaimError for a file that is none of ours."""
        path = self._path(number, scale, seed)
        if not path.is_file():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["of"] != self._of(with_data):
                return None
            given = record["result"]
            checks = tuple(Check(**check) for check in given.pop("checks"))
            return Result(**given | {"checks": checks, "notes": tuple(given["notes"])}), float(record["duration_s"])
        except (KeyError, TypeError, ValueError) as error:
            raise ClaimError(f"{path.name} is not a kept seed ({error}); remove it and run again") from error

    def keep(self, number: int, scale: Scale, seed: int, with_data: bool, result: Result, took: float) -> None:
        """Write what a seed gave, in one step."""
        path = self._path(number, scale, seed)
        record = {"of": self._of(with_data), "duration_s": took, "result": asdict(result)}
        replaced(path, json.dumps(record, default=_plain))

    def _path(self, number: int, scale: Scale, seed: int) -> Path:
        return self.folder / f"{number:02}-{scale}-{seed}.json"

    def _of(self, with_data: bool) -> dict[str, Any]:
        return {"code": _code(), "versions": dict(self.versions), "data": with_data}


def _code() -> str:
    """A digest of the package's modules."""
    package = Path(holdfast.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """What JSON lacks: arrays as lists, a path by its last part."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return value.name
    raise ClaimError(f"evidence cannot hold a {type(value).__name__}; claims must give numbers, text and lists")
