"""The encoder's seam: how experience becomes cubes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from holdfast.cube import Cube, Ref
from holdfast.errors import InputError
from holdfast.store.base import Operation

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that an agent did and what came of it. ``tool`` and ``arguments`` name the call, where it was one."""

    action: str
    observation: str = ""
    tool: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """How an agent went about a task, from its words to the answer.

    ``task`` is the task in words; ``served`` the versions of the memories that it was shown meanwhile, ``tokens`` by which they are
    rewarded; ``taint`` names what it read from outside. ``id`` names the run: without one, two runs that do the same are one.
    ``data`` is whatever else is to stand in its record, unsearched.
    """

    task: str
    steps: tuple[Step, ...] = ()
    answer: str = ""
    served: tuple[Ref, ...] = ()
    tokens: tuple[str, ...] = ()
    taint: tuple[str, ...] = ()
    id: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went: a reward in [-1, 1], None where nobody knows, and whatever words came with it. Raises InputError."""

    reward: float | None = None
    feedback: str = ""

    def __post_init__(self) -> None:
        if self.reward is not None and not -1.0 <= self.reward <= 1.0:
            raise InputError(f"a reward lies between -1 and 1, not {self.reward}; leave it out where nobody knows")

    @property
    def succeeded(self) -> bool | None:
        """None where nobody knows."""
        return None if self.reward is None else self.reward > 0


@dataclass(frozen=True, slots=True)
class Experience:
    """What an encoder sees: what was just kept, verbatim, and what is already known that could be touched by it.

    ``turns`` are the raw cubes in order, already stored: messages, or the one record of a ``trajectory``, whose ``outcome`` may
    be known. ``before`` are the turns that preceded them in the session (for anaphora and answers to questions); ``known`` are
    current derived cubes about the same subjects, of a trajectory those that it was served; ``now`` is the time to resolve
    relative dates against where a turn has none.
    """

    turns: tuple[Cube, ...]
    now: datetime
    before: tuple[Cube, ...] = ()
    known: tuple[Cube, ...] = field(default=())
    trajectory: Trajectory | None = None
    outcome: Outcome = Outcome()


class Encoder(Protocol):
    """Turns experience into operations. It proposes; the store applies."""

    def encode(self, experience: Experience) -> list[Operation]:
        """The changes that this experience calls for; an empty list where there are none."""
        ...


class Embedder(Protocol):
    """Turns texts into unit vectors. The same model id must always mean the same vectors."""

    @property
    def model(self) -> str:
        """A name that changes whenever the vectors would: model, precision, artefact version."""
        ...

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dimension). Raises EmbedderError; never returns fewer rows."""
        ...
