"""Usefulness as a model judges it, from 1 to 10, of the few that are most alike (Generative Agents as EvolveLab has them,
arXiv 2512.18746; after arXiv 2304.03442)."""

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
    (Function.CASES,),
    retrieval=(Retrieval.SEMANTIC, Retrieval.RERANK),
    subject=(Subject.AGENT,),
)


@dataclass(frozen=True, slots=True)
class Judged:
    """A ranker: the ``shown`` best by ``of`` are judged, in one call; the others are left out. Raises InputError."""

    of: Ranker = field(default_factory=Meaning)
    shown: int = 3
    model: Chat | None = None

    def __post_init__(self) -> None:
        if self.shown < 1:
            raise InputError("one record or more is shown to the model")

    def seek(self, query: str, kinds: Sequence[str], k: int, near: Near) -> Sequence[Hit]:
        """What ``of`` looks at."""
        return sought(self.of, query, kinds, max(k, self.shown), near)

    def rank(self, query: str, candidates: Sequence[Hit], /) -> Scores:
        """Shape (len(candidates),): 1 to 10, and -inf for what was not shown; of equals the one more alike, by a trace.

        Raises InputError without a model, ChatError.
        """
        scores: Scores = np.full(len(candidates), -np.inf)
        _, best = foremost(self.of, query, candidates, self.shown)
        if not best:
            return scores
        instruction = "Judge for each record how useful it is for the task: a whole number from 1 (not at all) to 10."
        data = {"task": query, "records": [tell(candidates[at].cube) for at in best]}
        number = {"type": "integer", "minimum": 1, "maximum": 10}
        fields = {"scores": {"type": "array", "items": number, "minItems": len(best), "maxItems": len(best)}}
        judged = write(self.model, "usefulness", instruction, data, fields)["scores"]
        for place, (at, given) in enumerate(zip(best, judged, strict=True)):
            scores[at] = given - 1e-6 * place
        return scores
