"""How skills are picked while episodes are played: by a controller that explores or is measured, by cosine, or by chance (for
MemSkill, arXiv 2602.02474)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.encode.base import Vectors
from holdfast.encode.skill_selection import Controller, gumbel_top_k, log_prob, shift, top_k
from holdfast.train.skill_episodes import Picked


@dataclass(frozen=True, slots=True)
class Explores:
    """Draws skills by the controller's scores, those of ``new`` skills lifted, the lift times ``scale``."""

    controller: Controller
    random: np.random.Generator
    new: npt.NDArray[np.bool_]
    scale: float = 0.0

    def pick(self, states: Vectors, described: Vectors, k: int) -> list[Picked]:
        """One ordered draw for each state, with what PPO has to know of it."""
        found = []
        scores, values = self.controller.logits(states, described), self.controller.values(states)
        for logits, value in zip(scores, values.tolist(), strict=True):
            lift = shift(logits, self.new, self.scale)
            lifted = logits + lift * self.new
            order = gumbel_top_k(lifted, k, self.random)
            found.append(Picked(order, log_prob(lifted, order), value, lift))
        return found


@dataclass(frozen=True, slots=True)
class Trained:
    """Takes the skills with the highest scores."""

    controller: Controller

    def pick(self, states: Vectors, described: Vectors, k: int) -> list[Picked]:
        """The same for the same state."""
        return [Picked(top_k(logits, k)) for logits in self.controller.logits(states, described)]


@dataclass(frozen=True, slots=True)
class ByMeaning:
    """Takes the skills whose descriptions are nearest to the span."""

    def pick(self, states: Vectors, described: Vectors, k: int) -> list[Picked]:
        """By the cosine of the first half of a state, which is the span."""
        spans = states[:, : described.shape[1]]
        return [Picked(top_k(np.asarray(one, np.float64), k)) for one in spans @ described.T]


@dataclass(frozen=True, slots=True)
class ByChance:
    """Takes any k."""

    random: np.random.Generator

    def pick(self, states: Vectors, described: Vectors, k: int) -> list[Picked]:
        """Drawn anew for every state."""
        return [Picked(tuple(self.random.permutation(len(described))[:k].tolist())) for _ in states]


@dataclass(frozen=True, slots=True)
class Always:
    """Takes the same skills, as places in the bank, whatever is read."""

    order: tuple[int, ...]

    def pick(self, states: Vectors, described: Vectors, k: int) -> list[Picked]:  # noqa: ARG002  (the seam has it)
        """Those, for each state."""
        return [Picked(self.order) for _ in states]
