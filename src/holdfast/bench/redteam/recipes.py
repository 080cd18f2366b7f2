"""The attacks on an agent that learns by a recipe: the same memory without a guard and with it.

What an account did is taken in as a run of its own, what a page or a document says was done as a run of the agent that has read
it, tainted by it; everything else comes in as it does for the other arms. The agent is as obedient as theirs: it does what the
first record leads to that the recipe tells it, and by one that was made of others what these led to, the attacker's first. Of a
sheet that is told whole it goes by what has most of the question's words. A recipe that tells an agent only what it has lived
through is played as if the agent had lived through what its team did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from holdfast.bench.redteam.arms import Arm, Book, Lead, Shown
from holdfast.bench.redteam.targets import BARE, OURS
from holdfast.bench.scribe import Scribe, alike
from holdfast.cube import EXTERNAL, Channel, Cube, Kind, Origin, Ref
from holdfast.encode.base import Embedder, Outcome, Step, Trajectory
from holdfast.encode.records import RUN, tell
from holdfast.encode.turns import TRUST
from holdfast.guard.attacks.base import Asked, Said
from holdfast.guard.attacks.static import TEAM
from holdfast.guard.base import Guard, Lookup, ancestry, sources_in
from holdfast.memory import Added
from holdfast.recipes.base import Guidance, Provider, Recipe
from holdfast.retrieve.hits import Hit

ASKER = "main"
"""The agent that asks, where nobody else is named."""

_RUNS = frozenset({Channel.USER, Channel.ASSISTANT}) | EXTERNAL
_WAYS = (Kind.EXPERIENCE, Kind.SKILL)
_OF_THE_RUN = ("story", "reward", RUN)  # in a raw record's data, and no part of what it leads to


class Learning(Arm):
    """An agent that learns by a recipe; ``arms`` makes those with one."""

    recipe: ClassVar[Recipe]
    model: ClassVar[Scribe] = Scribe()

    def __init__(self, folder: Path, embedder: Embedder | str | None, book: Book | None = None) -> None:
        super().__init__(folder, embedder, book)
        self._served: tuple[Ref, ...] = ()
        self._raw: dict[Ref, tuple[Cube, ...]] = {}

    def tell(self, said: Said, *, user: str, agent: str = ASKER) -> bool:
        """See ``Arm.tell``. An attacker's account asks for guidance first, and says in its run that it was served that."""
        lived = said.kind in _WAYS and said.channel in (Channel.USER, Channel.ASSISTANT)
        if lived and all(find.own for find in self.recipe.finds) and (not said.poison or said.source in TEAM):
            said = replace(said, source=ASKER)
        if lived and said.poison:
            self._settle()
            self._served = self._provider(user, said.source or user).provide(said.text.partition("\n")[0]).served
        try:
            return super().tell(said, user=user, agent=agent)
        finally:
            self._served = ()

    def ask(self, asked: Asked, *, user: str, agent: str = ASKER, keep: bool = False) -> Shown:
        """Do what the first record leads to that the recipe tells."""
        self._settle()
        lookup = self._lookup(user)
        told = self._provider(user, agent).provide(asked.text)
        lead = next(self._leads(asked, self._read(asked, told), lookup), None)
        if keep and lead is not None:
            self._served = told.served
            self._note(self._write(self._experience(asked, lead, user, agent), user), lead.by_attacker)
            self._served = ()
        refused = "; ".join(dict.fromkeys(one.reason for one in told.dropped))
        shown = self._shown(told.hits, lookup, lead, refused=refused, fenced=True)
        return replace(shown, text=told.text)

    def _read(self, asked: Asked, told: Guidance) -> Sequence[Hit]:
        """What was told, in the order in which the agent heeds it."""
        if not any(find.whole for find in self.recipe.finds):
            return told.hits
        return sorted(told.hits, key=lambda hit: -alike([asked.text, tell(hit.cube)]))

    def _write(self, cube: Cube, user: str) -> Added:
        if cube.kind not in _WAYS or cube.origin.channel not in _RUNS:
            return super()._write(cube, user)
        outside = cube.origin.channel in EXTERNAL
        run = _run(cube, self._served, (cube.origin.label,) if outside else ())
        author = ASKER if outside else cube.origin.author or user
        taken = self._provider(user, author).take_in(run, Outcome(1.0))
        # What was made of a run is known by its lineage.
        return Added((taken.case,) if taken.case else (), reasons=taken.reasons, quarantined=taken.quarantined)

    def _source(self, cube: Cube, lookup: Lookup) -> Cube:
        """Of the raw records beneath a record the attacker's, or else the first that says what it leads to; itself where none
        does."""
        raw = [one for one in self._beneath(cube, lookup) if "about" in one.data]
        return next((one for one in raw if one.id in self.book.bad), raw[0] if raw else cube)

    def _is_bad(self, cube: Cube) -> bool:
        beneath = self._beneath(cube, sources_in(self.memory.store, cube.scope))
        return any(one.id in self.book.bad for one in beneath)

    def _beneath(self, cube: Cube, lookup: Lookup) -> tuple[Cube, ...]:
        """What a version of a record was made of in the end; itself where it was made of nothing."""
        if cube.ref not in self._raw:
            self._raw[cube.ref] = tuple(one for _, one, sources in ancestry(cube, lookup) if not sources)
        return self._raw[cube.ref]

    def _experience(self, asked: Asked, lead: Lead, user: str, agent: str) -> Cube:
        """What the agent did, as it had been told of it."""
        data = {name: value for name, value in lead.cube.data.items() if name not in _OF_THE_RUN}
        what = tell(lead.cube).partition("\n")[2] or lead.cube.text
        origin = Origin(Channel.ASSISTANT, agent, trust=TRUST[Channel.ASSISTANT])
        return Cube(self.memory.scope(user=user), f"{asked.text}\n{what}", Kind.EXPERIENCE, data=data, origin=origin)

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


def _run(cube: Cube, served: tuple[Ref, ...], taint: tuple[str, ...]) -> Trajectory:
    """What a record says was done, as a run: its first line is the task, its data are those of the record that is made of it."""
    task, _, rest = cube.text.partition("\n")
    steps = (Step(rest),) if rest else ()
    answer = str(cube.data.get("answer", ""))
    return Trajectory(task, steps, answer, served=served, taint=taint, data=cube.data, id=cube.id)
