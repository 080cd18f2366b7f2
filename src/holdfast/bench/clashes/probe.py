"""What a model itself believes, before anything is shown to it (arXiv 2305.13300, §3.1–3.2): elicited, firmed, supported.

Only a belief that the model keeps when it reads its own passage again, and that this passage supports, can be contradicted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.bench.clashes.items import Passage, Prompt
from holdfast.bench.clashes.readers import Reader
from holdfast.errors import InputError
from holdfast.guard.conflicts import Belief

Supports = Callable[[str, str, str], bool]
"""(question, passage, answer) -> whether the passage supports the answer."""

OWN = "the reader itself"
"""The origin of a passage that a reader wrote about its belief."""


@dataclass(frozen=True, slots=True)
class Elicited:
    """What a reader answers by itself (None: nothing) and the passage it gives for it.

    ``firm``: it answers the same when it reads that passage; ``supported``: the passage says so.
    """

    question: str
    answer: str | None
    passage: str
    firm: bool
    supported: bool

    @property
    def kept(self) -> bool:
        """Whether there is a belief to test: an answer that is firm and supported."""
        return self.answer is not None and self.firm and self.supported

    def belief(self, trust: float) -> Belief | None:
        """The belief as one vote in ``guard.conflicts.resolve``; None where nothing was answered. ``trust``: from 0 to 1."""
        return None if self.answer is None else Belief(self.answer, trust, firm=self.kept)


@dataclass(frozen=True, slots=True)
class BeliefProbe:
    """Asks a reader what it believes. ``supports`` is the filter that the paper gives to a model of entailment."""

    reader: Reader
    supports: Supports

    def elicit(self, questions: Sequence[str]) -> list[Elicited]:
        """For each question its answer and passage without evidence, then its answer with that passage as evidence."""
        told = self.reader.read([Prompt(question) for question in questions])
        asked = [
            Prompt(question, (Passage(one.passage, one.answer or "", OWN),))
            for question, one in zip(questions, told, strict=True)
        ]
        again = self.reader.read(asked)
        return [
            Elicited(
                question,
                first.answer,
                first.passage,
                firm=first.answer is not None and second.answer is not None and same(first.answer, second.answer),
                supported=first.answer is not None and self.supports(question, first.passage, first.answer),
            )
            for question, first, second in zip(questions, told, again, strict=True)
        ]


def same(one: str, other: str) -> bool:
    """Whether two answers are the same but for case, blanks and a full stop."""
    return _plain(one) == _plain(other)


def mentions(question: str, passage: str, answer: str) -> bool:  # noqa: ARG001  (a filter is given all three)
    """The weakest filter: the passage has the answer's words in it, whole. A paraphrase is missed, a denial is not."""
    return re.search(rf"(?<!\w){re.escape(_plain(answer))}(?!\w)", _plain(passage)) is not None


def counter_answer(
    own: str,
    truth: Sequence[str],
    pool: Sequence[str],
    passage: str,
    random: np.random.Generator,
) -> str:
    """An answer against a belief: the truth where the belief is wrong, else one of the same relation (``pool``).

    ``truth`` holds all forms of the true answer. What is drawn from the pool is neither a form of the truth nor in ``passage``,
    so that the belief's own passage does not speak for it. Raises InputError where nothing is left to draw.
    """
    if not any(same(own, one) for one in truth):
        return truth[int(random.integers(len(truth)))]
    rest = [
        one
        for one in dict.fromkeys(pool)
        if not any(same(one, other) for other in truth) and not mentions("", passage, one)
    ]
    if not rest:
        raise InputError(
            f"no answer is left to set against {own!r}: the pool holds only the truth and what the passage says"
        )
    return rest[int(random.integers(len(rest)))]


def substituted(passage: str, own: str, counter: str) -> str:
    """The passage with the answer swapped and all else left alone (entity substitution, the paper's baseline)."""
    return re.sub(rf"(?<!\w){re.escape(own)}(?!\w)", lambda _: counter, passage)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .")
