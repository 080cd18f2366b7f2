"""What nobody uses fades: a score that halves with time since the last use (decay, a gene of MemEvolve, arXiv 2512.18746)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from holdfast.cube import Cube, Form, Scope
from holdfast.encode.trials import score
from holdfast.errors import InputError
from holdfast.manage.base import tended
from holdfast.store.base import Operation, Store
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.STRATEGIES, Function.SKILLS),
    evolution=(Evolution.FORGET_BY_TIME, Evolution.FORGET_BY_IMPORTANCE),
    subject=(Subject.AGENT,),
)

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Fading:
    """A manager: of some ``kinds`` what scores (``encode.trials``) below ``below``, where the score halves every ``days``. Raises
    InputError."""

    kinds: tuple[str, ...]
    days: float = 30.0
    below: float = 0.05

    def __post_init__(self) -> None:
        if not self.kinds or not self.days > 0 or not 0.0 < self.below <= 1.0:
            raise InputError("fading is of some kinds, over days above 0, below a score in (0, 1]")

    def manage(self, store: Store, scope: Scope, now: datetime) -> list[Operation]:
        """Retracts what has faded: it is archived, and still in history."""
        operations = []
        for cube in tended(store, scope, self.kinds):
            left = score(cube) * 0.5 ** (_age(cube, now) / self.days)
            if left < self.below:
                operations.append(Operation.delete(cube, f"its score has faded to {left:.3f}, below {self.below:.3f}"))
        return operations


def _age(cube: Cube, now: datetime) -> float:
    """Days since it was last used, or learnt or changed."""
    touched = [when for when in (cube.use.last_use, cube.recorded_at) if when is not None]
    return max(0.0, (now - max(touched)).total_seconds() / _DAY) if touched else 0.0
