"""Which concepts and lessons serve a task: a model reads them all and names those that do (ArcMemo, arXiv 2509.04439).

One call each, and no vectors. What a model names and there is not is left out. What is named comes first, in that order; of
concepts the others follow with a score of 0, and can be told by name. Where there is more than a model can be shown, what has
least of the task's words is not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from holdfast.chat import Chat
from holdfast.cube import Form
from holdfast.encode.concept_text import view
from holdfast.encode.concept_writing import shares
from holdfast.encode.concepts import Concept, merged
from holdfast.encode.writing import TEXT, write
from holdfast.errors import InputError
from holdfast.retrieve.base import Near, Scores
from holdfast.retrieve.hits import Hit
from holdfast.retrieve.likeness import ALL, Counted, compared, counted
from holdfast.store.rows import forgotten_with
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.STRATEGIES,),
    retrieval=(Retrieval.AUTOMATIC, Retrieval.RERANK, Retrieval.FILTER),
    subject=(Subject.AGENT,),
)

CHOOSE = """\
Choose the concepts that are likely to help with the task. First explore the task: what is given, what is wanted, what changes. Then
match it with the cues of the concepts in the memory. Name those that match exactly as they stand there, the most useful first, and
with them the routines that could fill a parameter of theirs. Name none that has nothing to do with the task."""
CHOOSE_LESSONS = (
    "Each situation in the list says when a lesson is of use. Choose those that the task is in, {k} at most, by their numbers, the "
    "most fitting first."
)

_NUMBERS = {"numbers": {"type": "array", "items": {"type": "integer"}}}


@dataclass(frozen=True, slots=True)
class Chosen:
    """A ranker of shares of concepts, of which twice as many as ``shown`` are read.

    Fields
        k: concepts that are chosen at most.
        shown: where there are more, the model is shown those alone whose cues, names and descriptions are most like the task.
        threshold: what was used in fewer runs is shown to it by name alone.

    Raises InputError.
    """

    k: int = 8
    shown: int = 150
    threshold: int = 1
    model: Chat | None = None

    def __post_init__(self) -> None:
        if self.k < 1 or self.shown < self.k or self.threshold < 1:
            raise InputError(
                "one concept or more is chosen, of no fewer that are shown, and the threshold is one run or more"
            )

    def seek(self, query: str, kinds: Sequence[str], k: int, near: Near) -> Sequence[Hit]:
        """The shares most like the task; of a memory that is not large, all."""
        return near(query, kinds, min(k, 2 * self.shown), ALL)

    def rank(self, query: str, candidates: Sequence[Hit], /) -> Scores:
        """Shape (len(candidates),): above 0 for the shares of what was chosen, 0 for those of others, -inf for what is none.

        Raises InputError without a model, ChatError.
        """
        places = {hit.id: at for at, hit in enumerate(candidates)}
        read = shares(hit.cube for hit in candidates)
        scores: Scores = np.full(len(candidates), -np.inf)
        concepts = merged(one for _, one in read)
        names = self._named(query, near(query, concepts, self.shown)) if concepts else ()
        worth = {name: float(len(names) - place) for place, name in enumerate(names)}
        for cube, one in read:
            scores[places[cube.id]] = worth.get(one.name, 0.0)
        return scores

    def _named(self, query: str, concepts: Mapping[str, Concept]) -> tuple[str, ...]:
        data = {"task": query, "memory": view(concepts.values(), threshold=self.threshold)}
        fields = {"exploration": {"type": "string"}, "names": {"type": "array", "items": TEXT, "maxItems": 4 * self.k}}
        found = write(self.model, "selection", CHOOSE, data, fields)["names"]
        # A model that copies a signature has named the concept all the same.
        plain = (one if one in concepts else one.partition("(")[0].strip() for one in found)
        return tuple(dict.fromkeys(one for one in plain if one in concepts))[: self.k]


@dataclass(frozen=True, slots=True)
class Situated:
    """A ranker of lessons: the ``k`` in whose situations the task is, by the word of a model. Raises InputError.

    ``shown``: where there are more, those alone whose situations are most like the task.
    """

    k: int = 5
    shown: int = 300
    model: Chat | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.shown:
            raise InputError("one lesson or more is chosen, of no fewer that are shown")

    def seek(self, query: str, kinds: Sequence[str], k: int, near: Near) -> Sequence[Hit]:
        """As many as are shown."""
        return near(query, kinds, max(k, self.shown), ALL)

    def rank(self, query: str, candidates: Sequence[Hit], /) -> Scores:
        """Shape (len(candidates),): k for the first that was chosen, down to 1; -inf for the others. Raises as ``Chosen`` does."""
        scores: Scores = np.full(len(candidates), -np.inf)
        if not candidates:
            return scores
        # By number, and not by what a model copies: two lessons may have one situation.
        shown = sorted(range(len(candidates))[: self.shown], key=lambda at: candidates[at].id)
        data = {
            "task": query,
            "situations": [{"number": number, "situation": candidates[at].text} for number, at in enumerate(shown, 1)],
        }
        number = {"type": "integer", "minimum": 1, "maximum": len(shown)}
        fields = {"numbers": {"type": "array", "items": number, "maxItems": 4 * self.k}}
        instruction = CHOOSE_LESSONS.format(k=self.k)
        found = write(self.model, "situations", instruction, data, fields, accepted=_NUMBERS)["numbers"]
        chosen = [number for number in dict.fromkeys(found) if 1 <= number <= len(shown)][: self.k]
        for place, number in enumerate(chosen):
            scores[shown[number - 1]] = self.k - place
        return scores


def near(task: str, concepts: Mapping[str, Concept], most: int) -> dict[str, Concept]:
    """Of more concepts than ``most`` those that say most of what the task says, in their old order."""
    if len(concepts) <= most:
        return dict(concepts)
    alike = compared(task, list(map(_counted, concepts.values())))
    best = set(np.argsort(-alike, kind="stable")[:most].tolist())
    return {name: one for at, (name, one) in enumerate(concepts.items()) if at in best}


@lru_cache(maxsize=4_096)
def _counted(concept: Concept) -> Counted:
    """The words that a concept is known by: the same ones are compared with each task."""
    return counted((concept.name, concept.description, *concept.cues))


forgotten_with(_counted.cache_clear)
