"""Which adapter an instruction belongs to: tasks that are told alike share one (LCIA, arXiv 2410.10868, section 3.3).

A group is an adapter, and the instructions that it was trained under. A new task joins the group whose instructions are nearest
to its own, where they are near enough, or begins one. An instruction is answered by the nearest group, where it is near enough, and
else by the model as it was: the published code takes the last adapter then, and never says that it did not know.

Likeness is the cosine of TF-IDF fitted on the two strings, as published, or that of any embedder. ``pool`` says how the likenesses
of a group's instructions become one: their mean, as published, or the best of them; a group with many ways of saying its task never
reaches a threshold by the mean.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from holdfast.cube import Form
from holdfast.errors import InputError, NotFoundError
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Retrieval, Subform, Subject, Trainable
from holdfast.weights.base import Route

PROFILE = MemoryProfile(
    Form.WEIGHTS,
    Subform.EXTERNAL,
    (Function.SKILLS,),
    formation=(Formation.INTERNALISE,),
    evolution=(Evolution.CONSOLIDATE_CLUSTER,),
    retrieval=(Retrieval.AUTOMATIC, Retrieval.LEXICAL, Retrieval.SEMANTIC),
    subject=(Subject.AGENT,),
    trainable=Trainable.ASSISTED,
)

Likeness = Callable[[Sequence[str], Sequence[str]], npt.NDArray[np.float64]]
"""Of each text on the left to each on the right, at most 1."""

COMMON = frozenset(
    "a about after again all am an and any are as at be because been before being both but by can could did do does doing down "
    "during each either else every few for from further had has have he her here hers him his how however i if in into is it its "
    "itself just least less may me might mine more most much must my neither no nor not now of off on once one only onto or other "
    "our ours out over own per perhaps rather same she should since so some still such than that the their theirs them then there "
    "these they this those though through thus to together too toward under until up upon us very via was we well were what "
    "when where whether which while who whom whose why will with within without would yet you your yours".split()
)
"""Words that say nothing of a task."""
_WORD = re.compile(r"\b\w\w+\b")


def tfidf(left: Sequence[str], right: Sequence[str], common: Collection[str] = COMMON) -> npt.NDArray[np.float64]:
    """The cosine of each pair's TF-IDF, fitted on the pair: a word of both counts 1, a word of one 1 + ln 1.5."""
    mine, theirs = ([_counts(text, common) for text in texts] for texts in (left, right))
    return np.array([[_cosine(a, b) for b in theirs] for a in mine], dtype=np.float64).reshape(len(mine), len(theirs))


def _counts(text: str, common: Collection[str]) -> Counter[str]:
    return Counter(word for word in _WORD.findall(text.lower()) if word not in common)


def _cosine(a: Counter[str], b: Counter[str]) -> float:
    shared = a.keys() & b.keys()
    if not shared:
        return 0.0
    alone = 1 + math.log(1.5)
    norms = [sum((n if w in shared else n * alone) ** 2 for w, n in one.items()) for one in (a, b)]
    return sum(a[word] * b[word] for word in shared) / math.sqrt(norms[0] * norms[1])


def embedded(embed: Callable[[Sequence[str]], npt.NDArray[np.float32]]) -> Likeness:
    """Likeness by an embedder of texts: the cosine of what it gives."""

    def likeness(left: Sequence[str], right: Sequence[str]) -> npt.NDArray[np.float64]:
        a, b = (np.asarray(embed(texts), dtype=np.float64) for texts in (left, right))
        lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None]
        found: npt.NDArray[np.float64] = a @ b.T / np.maximum(lengths, 1e-12)
        return found

    return likeness


@dataclass(frozen=True, slots=True)
class Assigned:
    """Where a task went: the id of its group, whether that is new, and how near the nearest group was (0 where there was none)."""

    group: str
    is_new: bool
    score: float


class AdapterBook:
    """Groups of instructions by id.

    Args:
        likeness: ``tfidf``, or ``embedded(...)``.
        reuse_at: from which likeness on a group is taken; 0.9 is published for fixed instructions, 0.3 for diverse ones.
        pool: how the likenesses to a group's instructions become one.
    """

    def __init__(
        self, likeness: Likeness = tfidf, *, reuse_at: float = 0.9, pool: Literal["mean", "best"] = "best"
    ) -> None:
        self._likeness, self.reuse_at, self.pool = likeness, reuse_at, pool
        self._groups: dict[str, tuple[str, ...]] = {}
        self._made = 0

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The instructions of each group, in the order they came."""
        return dict(self._groups)

    def assign(self, instructions: Iterable[str], group: str | None = None) -> Assigned:
        """Where a task with these instructions belongs; they become its group's. ``group`` says it outright.

        Raises InputError without an instruction.
        """
        told = tuple(dict.fromkeys(one.strip() for one in instructions if one.strip()))
        if not told:
            raise InputError("a task is told by an instruction at least")
        best, score = self._nearest(told)
        if group is None:
            group = best if best is not None and score >= self.reuse_at else self._fresh()
        elif not group:
            raise InputError("the id of a group must say something")
        new = group not in self._groups
        self._groups[group] = tuple(dict.fromkeys((*self._groups.get(group, ()), *told)))
        return Assigned(group, new, score)

    def route(self, instruction: str) -> Route:
        """Which group answers an instruction; None, the model as it was, where none is near enough."""
        best, score = self._nearest((instruction,))
        return Route(best if score >= self.reuse_at else None, score, self.reuse_at)

    def forget(self, group: str) -> tuple[str, ...]:
        """Strike a group out; its instructions. Its id is not given again. Raises NotFoundError."""
        if group not in self._groups:
            raise NotFoundError(f"there is no group {group!r}")
        return self._groups.pop(group)

    def to_json(self) -> str:
        """Groups and ids; not the likeness, which is code."""
        return json.dumps(
            {"groups": self._groups, "made": self._made, "reuse_at": self.reuse_at, "pool": self.pool},
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, written: str, likeness: Likeness = tfidf) -> AdapterBook:
        """What ``to_json`` wrote, to be used with the same likeness. Raises InputError."""
        try:
            kept: Any = json.loads(written)
            book = cls(likeness, reuse_at=float(kept["reuse_at"]), pool=kept["pool"])
            book._groups = {str(group): tuple(map(str, told)) for group, told in kept["groups"].items()}
            book._made = int(kept["made"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError("this is no book of adapters") from error
        return book

    def _nearest(self, told: Sequence[str]) -> tuple[str | None, float]:
        best, most = None, 0.0
        for group, instructions in self._groups.items():
            found = self._likeness(told, instructions)
            score = float(found.mean() if self.pool == "mean" else found.max(axis=1).mean())
            if best is None or score > most:
                best, most = group, score
        return best, most

    def _fresh(self) -> str:
        """An id that no group has or had by this book."""
        while True:
            self._made += 1
            if (group := f"group-{self._made}") not in self._groups:
                return group
