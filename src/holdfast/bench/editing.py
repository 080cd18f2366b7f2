"""What edits of a model are worth in the end: said, said in other words, and the rest left alone (arXiv 2405.14768 eq. 9).

Everything is asked of the final model, after the last edit; measured right after each edit, as many tools do, a stream of edits
looks better than it is. Locality is asked of the model before it was edited: what it says is to stay, right or wrong. It is
told apart near (other subjects of the same relations) and far (another domain), for the far one is easily had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.errors import InputError
from holdfast.weights.base import Edit
from holdfast.weights.prompts import Tokenizer, answered, split

Pair = tuple[str, str]
"""A prompt, and what is said after it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What a model is asked after it was edited.

    Fields
        edits: that were taught, oldest first.
        rewordings: their prompts in other words, with their targets.
        near, far: prompts whose answers must stay, with what the model is known to say there.
    """

    edits: Sequence[Edit]
    rewordings: Sequence[Pair]
    near: Sequence[Pair]
    far: Sequence[Pair]


@dataclass(frozen=True, slots=True)
class Share:
    """Of some prompts the share whose whole answer is right, and of all their tokens the share that is."""

    exact: float
    tokens: float


@dataclass(frozen=True, slots=True)
class Edited:
    """How an edited model does, in the words of the field."""

    reliability: Share
    generalisation: Share
    near: Share
    far: Share

    @property
    def mean(self) -> float:
        """Of reliability, generalisation and far locality, by whole answers: the published average."""
        return (self.reliability.exact + self.generalisation.exact + self.far.exact) / 3

    @property
    def metrics(self) -> dict[str, float]:
        """As an arm of a claim."""
        found = {"mean": self.mean}
        for name in ("reliability", "generalisation", "near", "far"):
            share: Share = getattr(self, name)
            found[name] = share.exact
            found[f"{name}, tokens"] = share.tokens
        return found


def judged(model: Any, tokenizer: Tokenizer, trial: Trial, before: Sequence[Sequence[int]]) -> Edited:
    """A model as it is now; ``before``: what ``locality`` said of it before any edit. Raises InputError."""
    local = [*trial.near, *trial.far]
    if len(before) != len(local):
        raise InputError("locality is measured against what the same model said to the same prompts before")
    now = locality(model, tokenizer, trial)
    cut = len(trial.near)
    return Edited(
        shares(model, tokenizer, [(one.prompt, one.target) for one in trial.edits]),
        shares(model, tokenizer, trial.rewordings),
        _share(now[:cut], before[:cut]),
        _share(now[cut:], before[cut:]),
    )


def locality(model: Any, tokenizer: Tokenizer, trial: Trial) -> list[list[int]]:
    """What a model says to the prompts whose answers must stay, the near ones first."""
    return answered(model, [split(tokenizer, *pair) for pair in (*trial.near, *trial.far)])


def shares(model: Any, tokenizer: Tokenizer, pairs: Sequence[Pair]) -> Share:
    """How much of what is to be said a model says, each token after those before it."""
    parts = [split(tokenizer, *pair) for pair in pairs]
    return _share(answered(model, parts), [target for _, target in parts])


def _share(said: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]) -> Share:
    if not wanted:
        raise InputError("there is nothing to be asked")
    right = [[a == b for a, b in zip(one, other, strict=True)] for one, other in zip(said, wanted, strict=True)]
    return Share(sum(map(all, right)) / len(right), sum(map(sum, right)) / sum(map(len, right)))
