"""ArcMemo as recipes (arXiv 2509.04439): concepts, or lessons, drawn from verified solutions and chosen for a task by a model.

Each author has a memory of their own, and is told no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from holdfast.as_of import RECALLED
from holdfast.chat import count_tokens
from holdfast.cube import Cube, Form, Kind, Scope
from holdfast.encode.concept_text import EMPTY, hint, view
from holdfast.encode.concept_writing import MAKER, ConceptWriting, concepts_of, renamed, shares
from holdfast.encode.concepts import Concept, Proposal, merged, synonyms
from holdfast.encode.records import MAKER as MADE_BY
from holdfast.encode.records import Unit
from holdfast.encode.situations import MAKER as SITUATIONS
from holdfast.encode.situations import Situations
from holdfast.errors import InputError
from holdfast.recipes.base import Composition, Find, Recipe
from holdfast.retrieve.concepts import Chosen, Situated
from holdfast.retrieve.hits import Hit
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

if TYPE_CHECKING:
    from holdfast.memory import Memory

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.STRATEGIES,),
    retrieval=(Retrieval.AUTOMATIC, Retrieval.AGGREGATE),
    subject=(Subject.AGENT,),
)

MOST = 5_000
"""Shares, or lessons, that a memory is read from."""

_FRAME = 200  # tokens that stand around what is told


@dataclass(frozen=True, slots=True)
class Hinting:
    """A composer: the concepts that a ranker has chosen in full, and the others by name, within ``tokens``. Raises InputError."""

    tokens: int = 3_000

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise InputError("what is told of concepts has one token or more")

    def compose(self, task: str, context: str, hits: Sequence[Hit]) -> Composition:  # noqa: ARG002  (the seam has it)
        """What is told: first names go where it is too long, the newest first, then what was chosen last."""
        best = {hit.cube.id: hit.score for hit in hits}
        read = shares(hit.cube for hit in hits)
        concepts = merged(one for _, one in read)
        worth: dict[str, float] = {}
        for cube, one in read:
            worth[one.name] = max(best[cube.id], worth.get(one.name, 0.0))
        chosen = sorted((name for name, score in worth.items() if score > 0), key=lambda name: -worth[name])
        others = [name for name in concepts if worth[name] <= 0]
        text = hint(concepts.values(), chosen)
        while text and count_tokens(text) > self.tokens:
            others, chosen = (others[: len(others) // 2], chosen) if others else ([], chosen[:-1])
            left = {*chosen, *others}
            text = hint([one for name, one in concepts.items() if name in left], chosen)
        return Composition(text)


def arcmemo(*, k: int = 8, tokens: int = 3_000) -> Recipe:
    """Routines and structures: what is made of a run that succeeded in two calls, chosen in one call, ``k`` at most. Raises
    InputError."""
    return Recipe(
        "arcmemo",
        "typed concepts with parameters, drawn from runs that succeeded and chosen by a model (arXiv 2509.04439, PS)",
        (ConceptWriting(),),
        (Find((Kind.CONCEPT,), Chosen(k), k=MOST, pool=MOST, makers=(MAKER,), own=True),),
        Hinting(tokens),
        budget=tokens + _FRAME,
    )


def arcmemo_lessons(*, k: int = 5) -> Recipe:
    """Situations and suggestions: made in two calls of a run that succeeded, ``k`` chosen in one call. Raises InputError."""
    return Recipe(
        "arcmemo-lessons",
        "what to do in which situation, drawn from runs that succeeded and chosen by a model (arXiv 2509.04439, OE)",
        (Situations(),),
        (Find((Unit.INSIGHT,), Situated(k), k=k, pool=MOST, makers=(SITUATIONS,), own=True),),
    )


def concepts(memory: Memory, *, author: str | None = None, **scope: str | None) -> dict[str, Concept]:
    """The concepts that a memory holds, by name; ``used_in`` are the ids of the runs that each is from.

    ``author``: whose, by default those of who asks.
    """
    return concepts_of(_shares(memory, author, scope))


def text(memory: Memory, *, author: str | None = None, **scope: str | None) -> str:
    """The whole memory as a model is shown it, everything in full."""
    held = concepts(memory, author=author, **scope)
    return view(held.values(), threshold=1) if held else EMPTY


def suggestions(
    memory: Memory, *, alike: float = 0.6, author: str | None = None, **scope: str | None
) -> list[Proposal]:
    """Concepts that may be one under two names, the most alike first. Nothing is changed: ``join`` does that, one by one."""
    return synonyms(list(concepts(memory, author=author, **scope).values()), alike)


def join(memory: Memory, kept: str, other: str, *, author: str | None = None, **scope: str | None) -> tuple[str, ...]:
    """Call the concept ``other`` by the name ``kept`` from now on, so that they are one; the ids of the shares that changed.

    In one transaction, which ``Memory.undo`` takes back. Raises InputError where one of them is not there, or they differ in sort.
    """
    cubes = _shares(memory, author, scope)
    held = concepts_of(cubes)
    if missing := [name for name in (kept, other) if name not in held]:
        raise InputError(
            f"there is no concept {missing[0]!r}; there are {', '.join(map(repr, sorted(held))) or 'none'}"
        )
    if kept == other or held[kept].sort is not held[other].sort:
        raise InputError("two different names are joined, both of routines or both of structures")
    here = memory.scope(**scope)
    operations = renamed(cubes, other, kept)
    return tuple(cube.id for cube in memory.apply(operations, actor=here.path))


def _shares(memory: Memory, author: str | None, scope: dict[str, str | None]) -> list[Cube]:
    here: Scope = memory.scope(**scope)
    whose = author or here.agent or here.user
    where = replace(RECALLED, kinds=(Kind.CONCEPT,), data={MADE_BY: MAKER})
    return [cube for cube in memory.select(where, **scope) if cube.origin.author == whose]
