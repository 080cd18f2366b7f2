"""The query in a model's words: what to look for, in place of what was asked (Agent KB, arXiv 2507.06229; EvolveLab,
arXiv 2512.18746)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from holdfast.chat import Chat
from holdfast.cube import Form
from holdfast.encode.writing import TEXT, write
from holdfast.errors import InputError
from holdfast.retrieve.base import Near, Ranker, Scores, sought
from holdfast.retrieve.hits import Hit
from holdfast.retrieve.likeness import ANY, Mixed
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

    def __post_init__(self) -> None:
        if self.characters < 1:
            raise InputError("a query is written from one character or more")

    def seek(self, query: str, kinds: Sequence[str], k: int, near: Near) -> Sequence[Hit]:
        """What ``of`` finds for the query as it is written anew. Raises InputError without a model, ChatError."""
        if not near(query, kinds, 1, ANY):  # then there is nothing to write a query for
            return []
        return sought(self.of, self._written(query), kinds, k, near)

    def rank(self, query: str, candidates: Sequence[Hit], /) -> Scores:
        """As ``of`` ranks what was found."""
        return self.of.rank(query, candidates)

    def _written(self, query: str) -> str:
        instruction = "Write the query by which to find records of like tasks: what kind of task it is, and its parts."
        found = write(self.model, "query", instruction, {"task": query[-self.characters :]}, {"query": TEXT})
        return str(found["query"])
