"""Holdfast: memory for AI agents and language models that can be traced, trusted and taken back.

Names are imported on first use, so that ``import holdfast`` costs milliseconds and needs nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AsyncMemory": "holdfast.aio",
    "Cube": "holdfast.cube",
    "Form": "holdfast.cube",
    "Hit": "holdfast.retrieve.hits",
    "HoldfastError": "holdfast.errors",
    "ScopeError": "holdfast.errors",
    "Kind": "holdfast.cube",
    "Memory": "holdfast.memory",
    "Origin": "holdfast.cube",
    "Scope": "holdfast.cube",
    "Status": "holdfast.cube",
}

__all__ = [
    "AsyncMemory",
    "Cube",
    "Form",
    "Hit",
    "HoldfastError",
    "Kind",
    "Memory",
    "Origin",
    "Scope",
    "ScopeError",
    "Status",
    "__version__",
]

if TYPE_CHECKING:
    from holdfast.aio import AsyncMemory
    from holdfast.cube import Cube, Form, Kind, Origin, Scope, Status
    from holdfast.errors import HoldfastError, ScopeError
    from holdfast.memory import Memory
    from holdfast.retrieve.hits import Hit


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'holdfast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
