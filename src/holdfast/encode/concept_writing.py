"""Concepts drawn from a run that succeeded, in two calls: what was done in the abstract, and which concepts that comes to
(ArcMemo, arXiv 2509.04439, the PS format).

The second call sees the memory, of a large one the shares that are most like the run, so that a name is used again, and made
general by a parameter, where it fits. What one run says
of one concept is a record of its own, its *share*; a concept is the shares of its name, merged in order whenever it is read. So
nothing that another run said is ever rewritten, and ``forget`` of a run takes its share back and leaves what others said. A share
holds what it adds alone: words that a model copies from the memory stay those of the run that they came from.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol

from holdfast.chat import Chat
from holdfast.cube import RECALLABLE, Cube, Form, Kind, Scope
from holdfast.encode.base import Experience
from holdfast.encode.concept_text import MOST, RECORD, THRESHOLD, read, record_of, told, view
from holdfast.encode.concepts import Concept, merged
from holdfast.encode.near import Nearest, named
from holdfast.encode.records import MAKER as MADE_BY
from holdfast.encode.records import RUN, derived
from holdfast.encode.writing import TEXT, write
from holdfast.encode.writing import told as story
from holdfast.errors import InputError
from holdfast.store.base import Operation, Store, Where
from holdfast.store.rows import forgotten_with
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.STRATEGIES,),
    formation=(Formation.DISTILL_EXPERIENCE,),
    evolution=(Evolution.CONSOLIDATE_CLUSTER,),
    subject=(Subject.AGENT,),
)

MAKER = "concept_writing"
SHARE = "concept"
"""In a share's ``data``: the concept, as ``concept_text.record_of`` writes it."""
PLACE = "place"
"""In a share's ``data``: where it stands among those of its run, which are stored at once."""

SKETCH = (
    "The run solved the task, and its result was verified. Write the pseudocode of the solution, free of this task's values "
    "where they do not matter, and one sentence that says what it does."
)
CONCEPTS = """\
Say which reusable concepts the pseudocode is made of. The memory holds those that are known; each was drawn from other tasks.

- A structure is something that stands in the data; a routine is something that is done. routine_subtype is "grid manipulation" for
  what gives a changed grid, "intermediate" for what gives something on the way, or the name of a type of functions.
- Where a known concept fits, use its name exactly, and write only what this task adds: a cue, a note, a parameter. Where it nearly
  fits, make it general by a parameter in place of a near copy under another name.
- A parameter may be a routine itself: say so in its typing. A type that typings share is defined once, as Name := definition.
- Cues say what about a task, seen before it is solved, shows that the concept may be of use. Notes on the implementation say how.
- Leave a text empty where there is nothing to say. Write no concept that holds for this one task alone."""

_PLAIN = 2  # the last format in which equal values are written alike
_LOOSE = {"concepts": {"type": "array"}}


class Kept(Nearest, Protocol):
    """What this encoder sees of a memory; ``holdfast.Memory`` is one."""

    @property
    def store(self) -> Store:
        """The store beneath."""
        ...

    def tally(self, *, back: int, kinds: Sequence[str] = (), **scope: str | None) -> tuple[int, datetime | None]:
        """How many memories there are, and since when the last of them."""
        ...


@dataclass(frozen=True, slots=True)
class ConceptWriting:
    """An encoder. Raises InputError.

    Fields
        most: concepts of one run.
        threshold: what was used in fewer runs the writer sees by name alone.
        shown: of a memory that holds more shares, the writer sees so many, those nearest to what was done. A name that it cannot
            see it may give again; the shares are one concept all the same.
    """

    most: int = 12
    threshold: int = THRESHOLD
    shown: int = 300
    model: Chat | None = None
    memory: Kept | None = None
    scope: Scope | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.most <= MOST or self.threshold < 1 or self.shown < 1:
            raise InputError(
                f"a run has between 1 and {MOST} concepts, the threshold is one run or more, and one share or more is shown"
            )

    def encode(self, experience: Experience) -> list[Operation]:
        """The shares of a run that succeeded, and why others are none. Raises InputError without a model or a memory, ChatError."""
        trajectory = experience.trajectory
        if trajectory is None or not experience.outcome.succeeded:
            return []
        if self.memory is None or self.scope is None:
            raise InputError("concepts are merged with those there are: this part of a recipe works in a memory")
        data = {"task": trajectory.task, "steps": story(trajectory)}
        sketch = write(self.model, "pseudocode", SKETCH, data, {"pseudocode": TEXT, "summary": TEXT})
        author = experience.turns[0].origin.author
        cubes = self._known(f"{trajectory.task}\n{sketch['summary']}")
        known = concepts_of(cube for cube in cubes if cube.origin.author == author)
        shown = view(known.values(), threshold=self.threshold)
        data = {"task": trajectory.task, "memory": shown, **sketch}
        fields = {"concepts": {"type": "array", "items": RECORD, "maxItems": self.most}}
        # Each concept is judged by itself: one that is malformed does not take the others with it.
        written = write(self.model, "concepts", CONCEPTS, data, fields, accepted=_LOOSE)["concepts"]
        found, faults = read(written[: self.most])
        operations = [
            share(experience, one.beyond(known.get(one.name)), place, str(sketch["summary"]))
            for place, one in enumerate(merged(found).values())
        ]
        return [*operations, *(Operation.none(fault) for fault in faults)]

    def _known(self, done: str) -> Iterable[Cube]:
        """The shares there are; of more than are shown, those nearest to what was done."""
        assert self.memory is not None and self.scope is not None
        if self.memory.tally(back=1, kinds=(Kind.CONCEPT,), **named(self.scope))[0] > self.shown:
            near = self.memory.nearest(done, k=self.shown, kinds=(Kind.CONCEPT,), **named(self.scope))
            return [one.cube for one in near]
        held = tuple(str(status) for status in RECALLABLE)
        where = Where(kinds=(Kind.CONCEPT,), statuses=held, data={MADE_BY: MAKER})
        return self.memory.store.select(self.scope, where)


def share(experience: Experience, concept: Concept, place: int, summary: str) -> Operation:
    """To add what a run says of a concept, at a place among what it says. ``summary``: what was done in it."""
    text = f"{concept.name}: {concept.description}" if concept.description else concept.name
    tell = "\n".join(told(replace(concept, description="")))
    held = record_of(concept)
    return derived(experience, MAKER, Kind.CONCEPT, text, tell, concept=held, place=place, summary=summary)


def shares(cubes: Iterable[Cube]) -> list[tuple[Cube, Concept]]:
    """The shares among some records, in the order of their runs. What is none is left out."""
    found = []
    for cube in cubes:
        if cube.kind == Kind.CONCEPT and cube.data.get(MADE_BY) == MAKER:
            one = _said(_Record(cube.data.get(SHARE)), _run(cube))
            found += [(cube, one)] if one is not None else []
    return sorted(found, key=lambda pair: _order(pair[0]))


class _Record:
    """What stands in a share, known by its bytes, which are made in a tenth of the time that JSON takes and never read."""

    __slots__ = ("bytes", "data")

    def __init__(self, data: Any) -> None:
        self.data, self.bytes = data, marshal.dumps(data, _PLAIN)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Record) and self.bytes == other.bytes

    def __hash__(self) -> int:
        return hash(self.bytes)


@lru_cache(maxsize=4_096)
def _said(record: _Record, run: str) -> Concept | None:
    """What a share of a run says: shares are read for each task and each run, and to know one costs a tenth of reading it."""
    found, _ = read([record.data])
    return replace(found[0], used_in=(run,)) if found else None


forgotten_with(_said.cache_clear)


def concepts_of(cubes: Iterable[Cube]) -> dict[str, Concept]:
    """The concepts that some records come to, by name; ``used_in`` are the ids of the raw records of their runs."""
    return merged(one for _, one in shares(cubes))


def renamed(cubes: Sequence[Cube], name: str, to: str) -> list[Operation]:
    """To call a concept by another's name, so that the two are one from then on."""
    operations = []
    for cube, one in shares(cubes):
        if one.name == name:
            text = cube.text.replace(name, to, 1) if cube.text.startswith(name) else cube.text
            data: dict[str, Any] = {**cube.data, SHARE: record_of(replace(one, name=to))}
            operations.append(
                Operation.update(cube.with_(text=text, data=data), f"{name!r} and {to!r} are one concept")
            )
    return operations


def _order(cube: Cube) -> tuple[str, int, str]:
    place = cube.data.get(PLACE)
    return _run(cube), place if type(place) is int else 0, cube.id  # ids sort by creation


def _run(cube: Cube) -> str:
    """The id of the raw record that a share is from."""
    sources = cube.origin.derived_from
    return sources[0].id if sources else str(cube.data.get(RUN, cube.id))
