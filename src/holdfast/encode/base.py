"""The encoder's seam: how experience becomes cubes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt

from holdfast.cube import Cube
from holdfast.store.base import Operation

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Experience:
    """What an encoder sees: the raw turns just kept, verbatim, and what is already known that could be touched by them.

    ``turns`` are message cubes in order, already stored; ``before`` are the turns that preceded them in the session (for
    anaphora and answers to questions); ``known`` are current derived cubes about the same subjects; ``now`` is the time
    to resolve relative dates against where a turn has none.
    """

    turns: tuple[Cube, ...]
    now: datetime
    before: tuple[Cube, ...] = ()
    known: tuple[Cube, ...] = field(default=())


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
