"""Holdfast with the extra ``fast``, also on a processor where it would be left alone for being the slower one."""

from __future__ import annotations

import turbovec

from benchmarks.engines.holdfast import MODES, VERSION, Engine
from holdfast.retrieve import vectors

__all__ = ["MODES", "SETTINGS", "VERSION", "Engine", "prepare"]
SETTINGS = f"durability full, rules for facts off (encoders=()), turbovec {turbovec.__version__}"


def prepare() -> None:
    """Scan by turbovec."""
    vectors.installed = lambda _: True
