"""What a target is, and what the targets share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from holdfast.cube import Channel, Cube, Origin, Scope
from holdfast.errors import HoldfastError

T = TypeVar("T")

NOW = datetime(2026, 3, 5, 12, tzinfo=UTC)
ANA = Scope("acme", "ana")
ID = "0190f3a0-0000-7000-8000-000000000001"
CUT = "\x1f"
"""Parts one text into the several that a target takes."""

MOST = 100_000
"""Characters of the longest text that a target is timed on."""

SECONDS = 4.0
"""So long it may take to read it: what takes time with the square of its length takes ten or more."""


class BrokenLawError(AssertionError):
    """A parser did what it must not."""


@dataclass(frozen=True)
class Target:
    """A parser and its laws.

    Fields
        name: as ``--target`` takes it.
        check: reads a text; raises BrokenLawError, or whatever else but a HoldfastError the parser raises.
        words: what texts that get far are made of: the dictionary of the fuzzer, and what hypothesis joins.
        frame: what stands before, between and after the words in a text of the right form; for a form that needs one.
    """

    name: str
    check: Callable[[str], None]
    words: tuple[str, ...]
    frame: tuple[str, str, str] = ("", "", "")


def law(holds: bool, what: str, *seen: object) -> None:
    """Raise BrokenLawError where a law does not hold."""
    if not holds:
        raise BrokenLawError(f"{what}: {', '.join(f'{one!r:.400}' for one in seen)}")


def refusable(call: Callable[[], T]) -> T | None:
    """What a call gives; None where it refuses with an error of the house, in words that can be printed."""
    try:
        return call()
    except HoldfastError as error:
        law(bool(str(error)), "an error says what was wrong", type(error).__name__)
        return None


def parts(text: str, count: int) -> list[str]:
    """So many parts of a text; what is not there is empty."""
    found = text.split(CUT, count - 1)
    return found + [""] * (count - len(found))


def said(text: str, channel: Channel = Channel.USER, author: str | None = "Ana", taint: str = "") -> Cube:
    """A turn with some words."""
    return Cube(ANA, text, valid_from=NOW, origin=Origin(channel, author, taint=(taint,) if taint else ()), id=ID)


def seconds(call: Callable[[], object]) -> float:
    """Processor time of a call, in seconds; of two runs the shorter, where the first is long."""
    took = _once(call)
    return min(took, _once(call)) if took > SECONDS else took


def _once(call: Callable[[], object]) -> float:
    begin = time.process_time()
    refusable(call)
    return time.process_time() - begin
