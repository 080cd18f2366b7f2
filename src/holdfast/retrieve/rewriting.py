"""The query in a model's words: what to look for, in place of what was asked (Agent KB, arXiv 2507.06229; EvolveLab,
arXiv 2512.18746)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from holdfast.chat import Chat
from holdfast.cube import Form, Scope
from holdfast.encode.near import Nearest, named
from holdfast.encode.writing import TEXT, write
from holdfast.errors import InputError
from holdfast.retrieve.base import Ranker, Scores
from holdfast.retrieve.hits import Hit
from holdfast.retrieve.likeness import Mixed
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.CASES, Function.STRATEGIES),
    retrieval=(Retrieval.HYBRID, Retrieval.REWRITE),
    subject=(Subject.AGENT,),
)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A ranker: ``of``, by the query as the model writes it, from its last ``characters``. Raises InputError."""

    of: Ranker = field(default_factory=lambda: Mixed(0.5))
    characters: int = 1_000
    model: Chat | None = None
    memory: Nearest | None = None
    scope: Scope | None = None

    def __post_init__(self) -> None:
        if self.characters < 1:
            raise InputError("a query is written from one character or more")

    def rank(self, query: str, candidates: Sequence[Hit], /) -> Scores:
        """As ``of`` ranks. Raises InputError without a model or outside a memory, ChatError."""
        if self.memory is None or self.scope is None:
            raise InputError("a query is written anew for a search: this part of a recipe works in a memory")
        instruction = "Write the query by which to find records of like tasks: what kind of task it is, and its parts."
        found = write(self.model, "query", instruction, {"task": query[-self.characters :]}, {"query": TEXT})
        kinds = sorted({hit.cube.kind for hit in candidates})
        nearest = self.memory.nearest(found["query"], k=len(candidates), kinds=kinds, **named(self.scope))
        near = {one.cube.id: one.relevance for one in nearest}
        return self.of.rank(found["query"], [replace(hit, relevance=near.get(hit.id, 0.0)) for hit in candidates])
