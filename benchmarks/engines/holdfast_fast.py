"""Holdfast with the extra ``fast``."""

from __future__ import annotations

import numba

from benchmarks.engines.holdfast import MODES, VERSION, Engine
from holdfast.retrieve import loops

__all__ = ["MODES", "SETTINGS", "VERSION", "Engine", "prepare"]
SETTINGS = f"durability full, rules for facts off (encoders=()), numba {numba.__version__}"


def prepare() -> None:
    """Wait until the loops are compiled, which would go on in the background otherwise."""
    loops.compiled()
