"""The provider's seam, and the recipe that a provider is made of (EvolveLab of MemEvolve, arXiv 2512.18746 §3).

Any memory of experience is four parts: what is made of a trajectory (encoders), where it is kept (the one store), how it is found
(finds, each with a ranker), and how it changes (managers). A ``Recipe`` names them, with their settings, as plain data: it can be
compared, saved, and changed by a search (the paper's genotype).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import Protocol

from holdfast.cube import Ref
from holdfast.encode.base import Encoder, Outcome, Trajectory
from holdfast.errors import InputError
from holdfast.guard.base import Dropped
from holdfast.manage.base import Manager
from holdfast.retrieve.base import Ranker
from holdfast.retrieve.hits import Hit
from holdfast.store.base import Operation

BUDGET = 1_500
"""Tokens that what a recipe tells may have, where it does not say."""


class Phase(StrEnum):
    """When a memory is asked: once before anything is done, or at a step."""

    BEGIN = "begin"
    STEP = "step"


@dataclass(frozen=True, slots=True)
class Guidance:
    """What is told for a task. ``text`` is fenced as data, "" where there is nothing; ``hits`` are the memories in it.

    ``dropped`` were found and must not be acted upon. By ``token`` what was told is rewarded, "" where the recipe learns no
    utility.
    """

    text: str = ""
    hits: tuple[Hit, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    token: str = ""

    @property
    def served(self) -> tuple[Ref, ...]:
        """The versions of the memories in it, as a ``Trajectory`` names them."""
        return tuple(hit.cube.ref for hit in self.hits)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The token, as a ``Trajectory`` names it."""
        return (self.token,) if self.token else ()


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a trajectory: the ids of its raw record and of what was made of it, what waits in quarantine, and why nothing
    was made of it."""

    case: str
    made: tuple[str, ...] = ()
    quarantined: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


class Provider(Protocol):
    """A memory of experience, as an agent uses it."""

    def provide(self, task: str, phase: Phase = Phase.BEGIN, *, context: str = "") -> Guidance:
        """What is worth telling for a task; at a step, ``context`` says what has happened just now."""
        ...

    def take_in(self, trajectory: Trajectory, outcome: Outcome) -> Taken:
        """Keep what was done, and learn from it. The same trajectory a second time changes nothing."""
        ...

    def manage(self) -> tuple[str, ...]:
        """Tend what is kept; the ids of what changed."""
        ...


@dataclass(frozen=True, slots=True)
class Composition:
    """What a composer wrote, and what is to be kept of it."""

    text: str
    operations: tuple[Operation, ...] = ()


class Composer(Protocol):
    """Writes what is told, from what was found. What it writes is told as data too."""

    def compose(self, task: str, context: str, hits: Sequence[Hit]) -> Composition:
        """The text, "" where nothing is worth telling."""
        ...


@dataclass(frozen=True, slots=True)
class Find:
    """How records of some kinds are found. Raises InputError.

    Fields
        kinds: which records.
        ranker: what makes one better than another.
        k: how many are told at most.
        least: what scores no more than this is left out.
        phases: when.
        pool: of so many nearest ones, where the ranker does not say itself where its best are.
        makers: of these parts of a recipe alone; of any where empty.
        whole: of all that there are, however like the task they are; ``pool`` and relevance mean nothing then, and the ranker reads
            records: one that asks an index has nothing to ask.
        own: of what who asks has lived through alone.
    """

    kinds: tuple[str, ...]
    ranker: Ranker
    k: int = 1
    least: float = float("-inf")
    phases: tuple[Phase, ...] = (Phase.BEGIN,)
    pool: int = 50
    makers: tuple[str, ...] = ()
    whole: bool = False
    own: bool = False

    def __post_init__(self) -> None:
        if not self.kinds or not self.phases or not 1 <= self.k <= self.pool:
            raise InputError("a find has kinds and phases, and k between 1 and its pool")
        if self.whole and hasattr(self.ranker, "seek"):
            raise InputError(
                f"{type(self.ranker).__name__} asks an index for what is best: a find that is whole needs another ranker"
            )


@dataclass(frozen=True, slots=True)
class Recipe:
    """A memory of experience as a composition. Raises InputError.

    Fields
        name, about: what it is called, and in one line what it does and whose it is.
        encoders: what is made of each trajectory, in this order. They see what it was served, too, and may change that.
        finds: what is looked for.
        composer: what writes the text that is told; where there is none, the records are told as they are.
        managers: what tends the store, after every ``every`` trajectories.
        rewarded: an outcome's reward goes to what was told, as its utility (``store.rewards``).
        budget: tokens that what is told may have.
    """

    name: str
    about: str
    encoders: tuple[Encoder, ...] = ()
    finds: tuple[Find, ...] = ()
    composer: Composer | None = None
    managers: tuple[Manager, ...] = ()
    every: int = 1
    rewarded: bool = False
    budget: int = BUDGET
    notes: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not self.name or self.every < 1:
            raise InputError("a recipe has a name, and is tended after one trajectory or more")

    @property
    def writes(self) -> bool:
        """Whether some part of it has something written by a chat model."""
        parts = (*self.encoders, *(find.ranker for find in self.finds), self.composer, *self.managers)
        return any(map(_writes, parts))


def _writes(part: object) -> bool:
    """Whether a part, or one within it, has something written by a chat model."""
    if not is_dataclass(part):
        return hasattr(part, "model")
    return any(one.name == "model" or _writes(getattr(part, one.name)) for one in fields(part))
