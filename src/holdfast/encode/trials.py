"""Trials: how often what was served was used, and how often the run then succeeded (EvolveR, arXiv 2510.16079, its metric score).

The score of a record is (successes + 1) / (uses + 2), so one that nobody has used stands at a half. Only runs of its own author
count: others must not be able to talk a record up or down. A run counts once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.cube import Cube, Form
from holdfast.encode.base import Experience
from holdfast.encode.records import own
from holdfast.errors import InputError
from holdfast.store.base import Operation
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.STRATEGIES, Function.SKILLS),
    evolution=(Evolution.UPDATE_EXTERNAL,),
    subject=(Subject.AGENT,),
)

TRIALS = "trials"
"""In a derived record's ``data``: ``used``, ``won``, and the ids of the last runs that were counted."""


@dataclass(frozen=True, slots=True)
class Trials:
    """An encoder that asks no model. ``kinds``: of which records; ``last``: so many runs are known again. Raises InputError."""

    kinds: tuple[str, ...]
    last: int = 50

    def __post_init__(self) -> None:
        if not self.kinds or self.last < 1:
            raise InputError("trials are of some kinds of records, and one run or more is known again")

    def encode(self, experience: Experience) -> list[Operation]:
        """What was served, with one more use; nothing where nobody knows how it went."""
        succeeded = experience.outcome.succeeded
        if experience.trajectory is None or succeeded is None:
            return []
        id = experience.turns[0].id
        operations = []
        for cube in own(experience):
            used, won, seen = counted(cube)
            if cube.kind in self.kinds and id not in seen:
                after = {
                    "used": used + 1,
                    "won": won + int(succeeded),
                    "last": [*seen, id][-self.last :],
                }
                reason = "it was used, and the run succeeded" if succeeded else "it was used, and the run failed"
                operations.append(Operation.update(cube.with_(data={**cube.data, TRIALS: after}), reason))
        return operations


def counted(cube: Cube) -> tuple[int, int, list[str]]:
    """How often a record was used, how often it won, and the last runs; nothing where its data say something else."""
    held = cube.data.get(TRIALS)
    if not isinstance(held, Mapping):
        return 0, 0, []
    used, won, last = held.get("used"), held.get("won"), held.get("last")
    if type(used) is not int or type(won) is not int or not 0 <= won <= used or not isinstance(last, list):
        return 0, 0, []
    return used, won, [str(id) for id in last]


def uses(cube: Cube) -> int:
    """How often a record was used."""
    return counted(cube)[0]


def score(cube: Cube) -> float:
    """(successes + 1) / (uses + 2), in (0, 1)."""
    used, won, _ = counted(cube)
    return (won + 1) / (used + 2)
