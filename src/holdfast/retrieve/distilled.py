"""What of many records is useful, as a model picks it before it answers (Memory-R1, arXiv 2508.19828, memory distillation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from holdfast.chat import Chat
from holdfast.cube import Form
from holdfast.encode.records import tell
from holdfast.encode.writing import write
from holdfast.errors import InputError
from holdfast.retrieve.base import Near, Ranker, Scores, foremost, sought
from holdfast.retrieve.hits import Hit
from holdfast.retrieve.likeness import Meaning
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_ENVIRONMENT, Function.STRATEGIES),
    retrieval=(Retrieval.SEMANTIC, Retrieval.FILTER),
    subject=(Subject.WORLD, Subject.AGENT),
)


@dataclass(frozen=True, slots=True)
class Distilled:
    """A ranker: of the ``shown`` best by ``of`` those that a model finds useful, in one call. Raises InputError."""

    of: Ranker = field(default_factory=Meaning)
    shown: int = 30
    model: Chat | None = None

    def __post_init__(self) -> None:
        if self.shown < 1:
            raise InputError("one record or more is shown to the model")

    def seek(self, query: str, kinds: Sequence[str], k: int, near: Near) -> Sequence[Hit]:
        """What ``of`` looks at."""
        return sought(self.of, query, kinds, max(k, self.shown), near)

    def rank(self, query: str, candidates: Sequence[Hit], /) -> Scores:
        """As ``of`` ranks what was picked; -inf for all else. Raises InputError without a model, ChatError."""
        scores: Scores = np.full(len(candidates), -np.inf)
        first, best = foremost(self.of, query, candidates, self.shown)
        if not best:
            return scores
        instruction = "Give the numbers of the records that are useful for the task; none where none is."
        records = {str(number): tell(candidates[at].cube) for number, at in enumerate(best, 1)}
        number = {"type": "integer", "minimum": 1, "maximum": len(best)}
        fields = {"useful": {"type": "array", "items": number, "maxItems": len(best)}}
        data = {"task": query, "records": records}
        for picked in write(self.model, "distillation", instruction, data, fields)["useful"]:
            scores[best[picked - 1]] = first[best[picked - 1]]
        return scores
