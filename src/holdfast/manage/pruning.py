"""What has failed too often is taken out of recall (EvolveR, arXiv 2510.16079, pruning by metric score; SkillWeaver's skills
likewise, arXiv 2504.07079)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from holdfast.cube import Cube, Form, Scope
from holdfast.encode.trials import score, uses
from holdfast.errors import InputError
from holdfast.manage.base import tended
from holdfast.store.base import Operation, Store
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.STRATEGIES, Function.SKILLS),
    evolution=(Evolution.FORGET_BY_IMPORTANCE,),
    subject=(Subject.AGENT,),
)


@dataclass(frozen=True, slots=True)
class Pruning:
    """A manager: of some ``kinds`` what scores below ``below`` (``encode.trials``) after ``uses`` or more.

    ``changed``: only of these records. Raises InputError.
    """

    kinds: tuple[str, ...]
    below: float = 0.3
    uses: int = 1
    changed: Sequence[Cube] | None = None

    def __post_init__(self) -> None:
        if not self.kinds or not 0.0 < self.below <= 1.0 or self.uses < 0:
            raise InputError("pruning is of some kinds, below a score in (0, 1], after no uses or more")

    def manage(self, store: Store, scope: Scope, now: datetime) -> list[Operation]:  # noqa: ARG002  (the seam has it)
        """Retracts what failed: it is archived, and still in history."""
        found = tended(store, scope, self.kinds, self.changed)
        return [
            Operation.delete(cube, f"its score is {score(cube):.2f} after {uses(cube)} uses, below {self.below:.2f}")
            for cube in found
            if uses(cube) >= self.uses and score(cube) < self.below
        ]
