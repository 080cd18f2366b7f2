"""The guard's seam: what may come into memory, and which of what was recalled may be acted upon.

Guarantees rest on who says something, through which channel and from what it was made (``Origin``); the words themselves give
signals at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol
from urllib.parse import urlsplit

from holdfast.cube import Cube
from holdfast.retrieve.hits import Hit
from holdfast.store.base import Operation


class Ruling(StrEnum):
    """What becomes of something that wants to be remembered."""

    ADMIT = "admit"
    QUARANTINE = "quarantine"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Decision:
    """A ruling on one operation, why, and the strength of every signal that spoke (between 0 and 1)."""

    ruling: Ruling
    reasons: tuple[str, ...] = ()
    signals: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A hit that must not be acted upon, and why."""

    hit: Hit
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which hits may be acted upon.

    ``abstained``: there is no quorum, or the sides are too even: nothing here may be acted upon, whatever ``kept`` holds.
    ``quorum`` is the share of the votes' weight that agrees with what was kept, between 0 and 1.
    """

    kept: tuple[Hit, ...]
    dropped: tuple[Dropped, ...] = ()
    abstained: bool = False
    quorum: float = 1.0
    reason: str = ""


class Guard(Protocol):
    """Stands at both doors of a memory."""

    def admit(self, operations: Sequence[Operation]) -> list[Decision]:
        """A decision for each operation, in order. Sees the records as they came, before anything is made of them."""
        ...

    def check(self, query: str, hits: Sequence[Hit]) -> Verdict:
        """Which of some hits may be acted upon for a query."""
        ...


def label_of(cube: Cube) -> str:
    """Where a cube is from, as its origin says: the page, the document, the account.

    What came from outside through lineage is from the outside, not from whoever wrote it down.
    """
    return cube.origin.taint[0] if cube.origin.taint else cube.origin.label


def source_of(cube: Cube) -> str:
    """Whose word a cube is: those of one source have one vote, however many they are. All pages of a site are one source."""
    return site(label_of(cube))


def site(label: str) -> str:
    """A label with the host in place of an address; as it is where it holds none, or one that cannot be read."""
    door, _, rest = label.partition(":")
    try:
        host = urlsplit(rest).hostname if "://" in rest else None
    except ValueError:  # whoever names a page may name it "https://[": that is no reason to fail
        return label
    return f"{door}:{host.rstrip('.')}" if host else label
