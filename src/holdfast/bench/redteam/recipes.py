"""The attacks on an agent that learns by a recipe: the same memory without a guard and with it.

What an account did is taken in as a run of its own; everything else comes in as it does for the other arms. The agent is as
obedient as theirs: it does what the first record leads to that the recipe tells it, and by one that was made of others,
what these led to.
"""

from __future__ import annotations

from typing import ClassVar

from holdfast.bench.redteam.arms import Arm, Shown
from holdfast.bench.redteam.targets import BARE, OURS
from holdfast.bench.scribe import Scribe
from holdfast.cube import Channel, Cube, Kind
from holdfast.encode.base import Outcome, Step, Trajectory
from holdfast.guard.attacks.base import Asked
from holdfast.guard.base import Guard
from holdfast.memory import Added
from holdfast.recipes.base import Provider, Recipe

_LIVED = (Channel.USER, Channel.ASSISTANT)


class Learning(Arm):
    """An agent that learns by a recipe; ``arms`` makes those with one."""

    recipe: ClassVar[Recipe]
    model: ClassVar[Scribe] = Scribe()

    def ask(self, asked: Asked, *, user: str, agent: str = "main", keep: bool = False) -> Shown:
        """Do what the first record leads to that the recipe tells."""
        self._settle()
        lookup = self._lookup(user)
        told = self._provider(user, agent).provide(asked.text)
        lead = next(self._leads(asked, told.hits, lookup), None)
        if keep and lead is not None:
            self._note(self._write(self._experience(asked, lead, user, agent), user), lead.by_attacker)
        refused = "; ".join(dict.fromkeys(one.reason for one in told.dropped))
        return self._shown(told.hits, lookup, lead, refused=refused, fenced=True)

    def _write(self, cube: Cube, user: str) -> Added:
        if cube.kind not in (Kind.EXPERIENCE, Kind.SKILL) or cube.origin.channel not in _LIVED:
            return super()._write(cube, user)
        taken = self._provider(user, cube.origin.author or user).take_in(_run(cube), Outcome(1.0))
        kept = (taken.case, *taken.made) if taken.case else ()
        return Added(kept, reasons=taken.reasons, quarantined=taken.quarantined)

    def _provider(self, user: str, author: str) -> Provider:
        return self.memory.provider(recipe=self.recipe, chat=self.model, author=author, user=user)


def arms(recipe: Recipe) -> dict[str, type[Arm]]:
    """The recipe without a guard and with it, under the names that targets are held against."""

    class Bare(Learning):
        """Everything is admitted, and told."""

    class Guarded(Learning):
        """The default guard, and what others did as far as a quorum agrees."""

        guard: ClassVar[Guard | str | None] = "default"

    Bare.recipe = Guarded.recipe = recipe
    return {BARE: Bare, OURS: Guarded}


def _run(cube: Cube) -> Trajectory:
    """What a record says was done, as a run: its first line is the task, its data are those of the record that is made of it."""
    task, _, rest = cube.text.partition("\n")
    steps = (Step(rest),) if rest else ()
    return Trajectory(task, steps, str(cube.data.get("answer", "")), data=cube.data, id=cube.id)
