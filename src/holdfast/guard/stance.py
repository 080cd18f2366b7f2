"""Which of two claims a passage speaks for: what a conflict between texts is told by where no typed slot tells it.

An embedding does not see a "not": the two opposite passages of a question are nearer to each other than to their own further
evidence (claim 24 measures it). So the claims are compared with each sentence of the passage, and beside their likeness counts
whether the sentence denies while only one of the claims does. The weights of the logistic model are of 450 questions of ConflictQA
(arXiv 2305.13300, Apache-2.0); swapping the claims turns the sign, by construction.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from holdfast.cube import Cube, Form
from holdfast.encode.base import Embedder
from holdfast.guard.conflicts import Detector
from holdfast.retrieve.text import tokens
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject, Trainable

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_ENVIRONMENT,),
    retrieval=(Retrieval.SEMANTIC, Retrieval.AGGREGATE),
    subject=(Subject.WORLD,),
    trainable=Trainable.ASSISTED,
)

Floats = npt.NDArray[np.float64]

CERTAIN = 1.4
"""From such a logit on a passage counts as speaking for a claim; below, it cannot be told."""

WEIGHTS = (
    *(1.475, 0.041, 1.846, -0.048, 0.878, 0.081, 0.235, -0.085, 4.859),
    *(-1.229, -0.284, 0.571, 0.254, 2.074, 0.738, 3.001, -2.684, -5.347),
)
"""One a feature, for features as they come."""

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_DENIES = re.compile(
    r"\b(?:not|no|never|none|neither|nor|cannot|\w+n't|unable|without|lack(?:s|ed)?|fail(?:s|ed)?|false|incorrect|myth|unlikely|"
    r"impossible|nobody|nothing)\b",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(
    r"\b(?:therefore|thus|so|hence|this (?:means|suggests|shows|indicates)|meaning that|in conclusion|as a result|"
    r"consequently|clearly)\b",
    re.IGNORECASE,
)


class Stance:
    """Tells the stance of passages by an embedder and the words."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def of(self, claims: tuple[str, str], passages: Sequence[str]) -> Floats:
        """For each passage the logit that it speaks for the first claim and not for the second, shape (len(passages),)."""
        found: Floats = self.features(claims, passages) @ np.asarray(WEIGHTS)
        return found

    def features(self, claims: tuple[str, str], passages: Sequence[str]) -> Floats:
        """What the weights apply to, shape (len(passages), len(WEIGHTS)); swapping the claims turns every sign."""
        cut = [[some for some in _SENTENCE.split(passage.strip()) if some] or [passage] for passage in passages]
        texts = list(dict.fromkeys((*claims, *passages, *(some for sentences in cut for some in sentences))))
        table = np.asarray(self._embedder.embed(texts), np.float64)
        at = {text: row for row, text in enumerate(texts)}
        both = np.stack([table[at[claim]] for claim in claims])
        rows = []
        for passage, sentences in zip(passages, cut, strict=True):
            near = table[[at[some] for some in sentences]] @ both.T  # (sentences, 2)
            forward = _one(claims, near, sentences)
            backward = _one((claims[1], claims[0]), near[:, ::-1], sentences)
            whole = table[at[passage]] @ both.T
            rows.append([*(a - b for a, b in zip(forward, backward, strict=True)), 2 * float(whole[0] - whole[1])])
        return np.asarray(rows)


def denies(text: str) -> int:
    """How many words of a text deny something."""
    return len(_DENIES.findall(text))


def detector(stance: Stance, claims: tuple[str, str]) -> Detector:
    """For ``conflicts.resolve``: which of two claims a memory speaks for, None where it cannot be told."""

    def detect(_question: str, cube: Cube) -> str | None:
        logit = float(stance.of(claims, [cube.text])[0])
        return None if abs(logit) < CERTAIN else claims[0] if logit > 0 else claims[1]

    return detect


def _one(claims: tuple[str, str], near: Floats, sentences: Sequence[str]) -> list[float]:
    own, other = claims
    lead = near[:, 0] - near[:, 1]
    denies = np.asarray([1.0 if _DENIES.search(some) else -1.0 for some in sentences])
    # +1 where only the first claim denies: then a sentence that denies speaks for it.
    side = float(bool(_DENIES.search(own))) - float(bool(_DENIES.search(other)))
    weight = np.exp(4 * near.sum(1))
    weight /= weight.sum()
    concluding = [row for row, some in enumerate(sentences) if _CONCLUDES.search(some)]
    found: list[float] = []
    for row in (int(near.sum(1).argmax()), len(sentences) - 1, int(near[:, 0].argmax()), 0):
        found += [float(lead[row]), side * float(denies[row])]
    found += [
        float(weight @ lead),
        float(near[:, 0].max() - near[:, 1].max()),
        side * float(denies.mean()),
        side * float(weight @ denies),
        side * float(denies[concluding].mean()) if concluding else 0.0,
        float(lead[concluding].mean()) if concluding else 0.0,
    ]
    words = [tokens(some) for some in sentences]
    spoken = {word for some in words for word in some}
    only = set(tokens(own)) - set(tokens(other))
    found.append(len(only & spoken) / max(1, len(only)))
    pairs = _pairs(tokens(own))
    shared = [len(pairs & _pairs(some)) / max(1, len(pairs)) for some in words]
    return [*found, max(shared), shared[-1]]


def _pairs(words: Sequence[str]) -> set[tuple[str, str]]:
    return set(pairwise(words))
