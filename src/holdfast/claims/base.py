"""The claim's seam: how a paper's central claim becomes something that anyone can run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Scale = Literal["quick", "full", "gpu"]
Verdict = Literal["holds", "fails", "partly", "not run"]


@dataclass(frozen=True, slots=True)
class Check:
    """One measured condition: ``value`` must reach ``required`` (``at_least``), or stay under it."""

    name: str
    value: float
    required: float
    at_least: bool = True
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the condition is met (a NaN never is)."""
        return self.value >= self.required if self.at_least else self.value <= self.required

    @property
    def margin(self) -> float:
        """How far the value lies on the right side of what is required; negative where it fails."""
        return self.value - self.required if self.at_least else self.required - self.value


@dataclass(frozen=True, slots=True)
class Result:
    """What a run measured.

    ``arms`` maps an arm's name (ours, the baselines, the failing control) to its metrics; ``checks`` are the conditions
    on them that decide the verdict; ``settings`` is everything needed to run it again; ``series`` holds what the plot
    draws.
    """

    arms: Mapping[str, Mapping[str, float]]
    checks: tuple[Check, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    series: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Claim(Protocol):
    """One file a paper. The module itself fits: ``number``, ``name``, ``statement``, ``arms``, ``run``, ``plot``."""

    number: int
    name: str
    statement: str
    arms: tuple[str, ...]

    def run(self, scale: Scale, seed: int, data: Path | None) -> Result:
        """Run every arm on the same data and seed. Raises ClaimError where data or an extra is missing."""
        ...

    def plot(self, result: Result, path: Path) -> None:
        """Draw the result into an image file."""
        ...


def verdict(result: Result) -> Verdict:
    """``holds`` when every check holds, ``fails`` when none does, ``partly`` between."""
    held = [check.holds for check in result.checks]
    if not held:
        return "not run"
    return "holds" if all(held) else "partly" if any(held) else "fails"
