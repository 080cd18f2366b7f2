"""What a model knows of some facts: asked directly, in other words, and after words that it made up itself.

Editing's reliability and generalisation (WISE, arXiv 2405.14768 §3.1), asked of the model as it is now; and, after forgetting,
whether what it says of a fact is what a model says that never saw it. A prompt is read in a call of its own and the target after it
from the cache, as when an answer is generated, so that what is routed by the prompt (``weights.routing``) is routed here too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.errors import InputError
from holdfast.weights.prompts import BARE, Tokenizer, split, told

PROFILE = ()  # no memory, but a test of what is in one


@dataclass(frozen=True, slots=True)
class Probe:
    """A fact to ask for: a prompt, what is to be said, and the prompt in other words."""

    prompt: str
    target: str
    rephrased: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one prompt: whether the model says the target, token by token, and the natural log of its chance."""

    told: bool
    likelihood: float


@dataclass(frozen=True, slots=True)
class Knows:
    """Shares of prompts whose target is said, of three kinds (None: there was none), and the mean chance of the target.

    ``chance`` is over all prompts: how often a sampled answer would be the target.
    """

    direct: float
    rephrased: float | None
    sampled: float | None
    chance: float

    def to_dict(self) -> dict[str, float]:
        """What was asked for, by name."""
        asked = {"direct": self.direct, "rephrased": self.rephrased, "sampled": self.sampled, "chance": self.chance}
        return {name: value for name, value in asked.items() if value is not None}


def knows(model: Any, tokenizer: Tokenizer, probes: Sequence[Probe], contexts: Iterable[str] = ()) -> Knows:
    """Ask for every fact in every way. ``contexts``: templates with ``{}``, as ``prompts.templates_of`` has a model make them.

    Raises InputError where there is no probe.
    """
    if not probes:
        raise InputError("there is nothing to ask for")
    made_up = [one for one in contexts if one != BARE]
    kinds: Mapping[str, list[tuple[str, str]]] = {
        "direct": [(one.prompt, one.target) for one in probes],
        "rephrased": [(prompt, one.target) for one in probes for prompt in one.rephrased],
        "sampled": [(context.replace(BARE, one.prompt), one.target) for one in probes for context in made_up],
    }
    found = iter(answers_of(model, tokenizer, [row for rows in kinds.values() for row in rows]))
    answers = {kind: [next(found) for _ in rows] for kind, rows in kinds.items()}
    every = [one for some in answers.values() for one in some]
    shares = {kind: sum(one.told for one in some) / len(some) if some else None for kind, some in answers.items()}
    return Knows(
        shares["direct"] or 0.0,
        shares["rephrased"],
        shares["sampled"],
        sum(math.exp(one.likelihood) for one in every) / len(every),
    )


def answers_of(model: Any, tokenizer: Tokenizer, rows: Sequence[tuple[str, str]]) -> list[Answer]:
    """For each prompt and target."""
    found: dict[int, Answer] = {}
    for some, logits, targets in told(model, [split(tokenizer, *row) for row in rows]):
        chances = logits.float().log_softmax(dim=-1).gather(2, targets[..., None]).sum(dim=(1, 2)).tolist()
        right = (logits.argmax(dim=-1) == targets).all(dim=1).tolist()
        found.update(zip(some, map(Answer, right, chances), strict=True))
    return [found[at] for at in range(len(rows))]
