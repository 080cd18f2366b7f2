"""Facts that cannot both be true: what the sheaf of statements finds, as closed validities (arXiv 2603.14588 §5)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from holdfast.cube import RECALLABLE, Cube, Form, Kind, Scope, Status
from holdfast.encode.slots import plain, speaker
from holdfast.manage.sheaf import Sheaf
from holdfast.manage.statements import Statement, statement_of
from holdfast.store.base import Operation, Store, Where
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    evolution=(Evolution.UPDATE_EXTERNAL,),
    subject=(Subject.USER, Subject.WORLD),
)


class Contradictions:
    """Proposes to close the validity of a fact that a more trusted or newer fact about the same slot contradicts.

    Both stay: the loser keeps its text and its past, and only its ``valid_to`` is set. Contradictions between slots
    (around a cycle, through an alias) are for ``Sheaf.check`` to report: which statement is wrong is not certain there.
    Frozen facts are never changed, and nobody's fact is closed on the word of a third person: the winner must come from
    the same speaker, from the one it is about, or from a source of more trust.
    """

    def __init__(self, *, tolerance: float = 1e-8) -> None:
        self.tolerance = tolerance

    def sheaf(self, store: Store, scope: Scope, now: datetime) -> Sheaf:
        """The sheaf of every recallable fact in the scope that states something."""
        return Sheaf((statement for _, statement in _facts(store, scope, now)), tolerance=self.tolerance)

    def manage(self, store: Store, scope: Scope, now: datetime) -> list[Operation]:
        """One update for each fact to be closed. The reason names the winner and quotes nothing of it."""
        facts = list(_facts(store, scope, now))
        cubes = {cube.ref: cube for cube, _ in facts}
        operations = []
        for report in Sheaf((statement for _, statement in facts), tolerance=self.tolerance).check():
            for suggestion in report.suggested:
                loser, winner = suggestion.statement, suggestion.against[0]
                # Every statement here was read from a cube, so its ref is known.
                if suggestion.close_at is None or loser.ref is None or winner.ref is None:
                    continue
                cube = cubes[loser.ref]
                if cube.status is not Status.FROZEN and _may_close(cube, cubes[winner.ref]):
                    reason = (
                        f"contradicted by {winner.ref.id} version {winner.ref.version}; {suggestion.reason}: "
                        f"holds until {suggestion.close_at.isoformat()}"
                    )
                    operations.append(Operation.update(cube.with_(valid_to=suggestion.close_at), reason))
        return operations


def _may_close(loser: Cube, winner: Cube) -> bool:
    says, said = plain(speaker(winner)), plain(speaker(loser))
    return winner.origin.trust > loser.origin.trust or says in (said, plain(str(loser.data["subject"])).split("'s ")[0])


def _facts(store: Store, scope: Scope, now: datetime) -> Iterator[tuple[Cube, Statement]]:
    for cube in store.select(scope, Where(kinds=(Kind.FACT,), statuses=tuple(sorted(RECALLABLE)))):
        statement = statement_of(cube, now)
        if statement is not None:
            yield cube, statement
