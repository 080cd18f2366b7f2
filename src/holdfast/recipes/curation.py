"""A curator that writes one sheet anew for each task (Dynamic Cheatsheet as EvolveLab has it, arXiv 2512.18746; after
arXiv 2504.07952).

From the sheet as it was and the record most like the task a model writes the sheet that is told, and kept in the old one's place.
It is kept only where all that it was written from is of the author who asks: another's records, once agreed upon, may be read,
but the sheet that they went into would pass for somebody's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from holdfast.chat import Chat
from holdfast.cube import RECALLABLE, Channel, Cube, Form, Origin, Scope, Status
from holdfast.encode.records import MAKER, Unit, tell
from holdfast.encode.writing import TEXT, write
from holdfast.errors import InputError
from holdfast.recipes.base import Composition
from holdfast.retrieve.hits import Hit
from holdfast.store.base import Operation, Store, Where
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.STRATEGIES,),
    formation=(Formation.SUMMARY_INCREMENTAL,),
    evolution=(Evolution.CONSOLIDATE_GLOBAL,),
    retrieval=(Retrieval.AGGREGATE,),
    subject=(Subject.AGENT,),
)


class Kept(Protocol):
    """What a composer sees of a memory; ``holdfast.Memory`` is one."""

    @property
    def store(self) -> Store:
        """The store beneath."""
        ...


@dataclass(frozen=True, slots=True)
class Curation:
    """A composer. ``words``: the most that the sheet has. Raises InputError."""

    words: int = 200
    model: Chat | None = None
    memory: Kept | None = None
    scope: Scope | None = None
    author: str | None = None

    def __post_init__(self) -> None:
        if self.words < 1:
            raise InputError("a sheet has one word or more")

    def compose(self, task: str, context: str, hits: Sequence[Hit]) -> Composition:  # noqa: ARG002  (the seam has it)
        """The new sheet; nothing where there is no record yet. Raises InputError without a model or outside a memory, ChatError."""
        records = [hit.cube for hit in hits if hit.cube.kind != Unit.SHEET]
        old = next((hit.cube for hit in hits if hit.cube.kind == Unit.SHEET), None)
        if not records:
            return Composition(old.text if old is not None else "")
        instruction = (
            f"Write the sheet of at most {self.words} words that helps most with the task and with those to come: keep what is "
            "still of use in the sheet there is, add what the records teach, and drop the rest."
        )
        data = {"task": task, "sheet": old.text if old is not None else "", "records": [tell(cube) for cube in records]}
        sheet = write(self.model, "sheet", instruction, data, {"sheet": TEXT})["sheet"]
        return Composition(sheet, self._kept(sheet, old, records))

    def _kept(self, sheet: str, old: Cube | None, records: Sequence[Cube]) -> tuple[Operation, ...]:
        if self.scope is None or self.memory is None:
            raise InputError("a sheet is kept in a memory: this part of a recipe works in one")
        used = [*([old] if old is not None else []), *records]
        if any(cube.origin.author != self.author for cube in used):
            return ()
        sources = tuple(cube.ref for cube in records)
        if old is None:
            if self._other():  # it is there, and not found: it changed a moment ago, or may not be gone by
                return ()
            trust = min(cube.origin.trust for cube in records)
            origin = Origin(Channel.DERIVED, self.author, trust=trust, derived_from=sources)
            return (Operation.add(Cube(self.scope, sheet, Unit.SHEET, data={MAKER: "curation"}, origin=origin)),)
        if old.status is Status.FROZEN:
            return ()
        joint = tuple(dict.fromkeys((*old.origin.derived_from, *sources)))
        new = old.with_(text=sheet, origin=replace(old.origin, derived_from=joint))
        return (Operation.update(new, "written anew for a task"),) if new != old else ()

    def _other(self) -> bool:
        """Whether there is a sheet of this author."""
        assert self.memory is not None and self.scope is not None
        held = tuple(str(status) for status in RECALLABLE)
        where = Where(kinds=(Unit.SHEET,), statuses=held, author=self.author, data={MAKER: "curation"}, limit=1)
        return any(True for _ in self.memory.store.select(self.scope, where))
