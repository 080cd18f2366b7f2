"""What a search returns: cubes with scores that explain themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from holdfast.cube import Cube


@dataclass(frozen=True, slots=True)
class Hit:
    """One memory that a search found.

    ``score`` is the sum of ``channels``; ``relevance`` is the calibrated chance, between 0 and 1, that it answers the
    query. ``before`` and ``after`` are its neighbours in the conversation, where they were asked for.
    """

    cube: Cube
    score: float
    relevance: float
    channels: Mapping[str, float] = field(default_factory=dict)
    before: tuple[Cube, ...] = ()
    after: tuple[Cube, ...] = ()

    @property
    def id(self) -> str:
        """The memory's id."""
        return self.cube.id

    @property
    def text(self) -> str:
        """The memory's words."""
        return self.cube.text

    @property
    def said(self) -> datetime | None:
        """When it was said or became true; else when it was recorded."""
        return self.cube.valid_from or self.cube.recorded_at

    @property
    def why(self) -> str:
        """One line: the share of each channel, who said it when through which channel, and how far that is trusted."""
        parts = sorted(self.channels.items(), key=lambda item: -abs(item[1]))
        shares = " ".join([f"{name} {value:+.2f}" for name, value in parts if abs(value) >= 0.005])
        origin = self.cube.origin
        source = " ".join(part for part in (origin.author, f"({origin.channel})", origin.reference) if part)
        when = f" on {self.said.isoformat()[:10]}" if self.said else ""
        return f"{self.score:.2f} = {shares or 'no evidence'}; {source}{when}, trust {origin.trust:.2f}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "id": self.id,
            "text": self.text,
            "score": round(self.score, 4),
            "relevance": round(self.relevance, 4),
            "channels": {name: round(value, 4) for name, value in self.channels.items()},
            "why": self.why,
            "cube": self.cube.to_dict(),
            "before": [cube.to_dict() for cube in self.before],
            "after": [cube.to_dict() for cube in self.after],
        }


class Hits(list[Hit]):
    """The hits of one search, best first.

    Attributes:
        abstain: nothing found is likely to answer the query; the hits are there to look at, not to act upon.
        reason: why there are no hits, or why to abstain; empty otherwise.
        degraded: what could not be used, for example that no embedder is installed.
    """

    def __init__(
        self, hits: Iterable[Hit] = (), *, abstain: bool = False, reason: str = "", degraded: tuple[str, ...] = ()
    ) -> None:
        super().__init__(hits)
        self.abstain = abstain
        self.reason = reason
        self.degraded = degraded
