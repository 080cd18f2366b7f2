"""Holdfast with the extra ``fast``."""

from __future__ import annotations

import turbovec

from benchmarks.engines.holdfast import MODES, VERSION, Engine

__all__ = ["MODES", "SETTINGS", "VERSION", "Engine"]
SETTINGS = f"durability full, rules for facts off (encoders=()), turbovec {turbovec.__version__}"
