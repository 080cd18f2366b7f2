"""Time to live: what has passed its expiry date leaves recall (the lifespan policy of MemOS, arXiv 2507.03724 §4.2)."""

from __future__ import annotations

from datetime import datetime

from holdfast.cube import TRANSITIONS, Form, Scope, Status
from holdfast.store.base import Operation, Store, Where
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    evolution=(Evolution.FORGET_BY_TIME,),
    subject=(Subject.USER, Subject.WORLD),
)

_CAN_EXPIRE = tuple(status for status in Status if Status.EXPIRED in TRANSITIONS[status])


class Expiry:
    """Proposes status ``expired`` for every cube whose ``policy.expires_at`` has come.

    Frozen cubes are left alone (the owner froze them), and so are cubes that are already expired or purged. Expired cubes
    can be restored; erasing them is ``forget``, which only a caller asks for.
    """

    def manage(self, store: Store, scope: Scope, now: datetime) -> list[Operation]:
        """One update for each cube that expires at or before ``now``."""
        return [
            Operation.update(
                cube.with_(status=Status.EXPIRED),
                f"its time to live ended at {cube.policy.expires_at.isoformat()}; now is {now.isoformat()}",
            )
            for cube in store.select(scope, Where(statuses=_CAN_EXPIRE))
            if cube.policy.expires_at is not None and cube.policy.expires_at <= now
        ]
