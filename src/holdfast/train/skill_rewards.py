"""What each span of an episode is rewarded with: a share of the score of its questions, and a little for doing what its skills say
(MemSkill, arXiv 2602.02474 §3.4).

The second part sums to a tenth of a score at most: more of it, and choosing the kind of edit that always succeeds would pay.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from holdfast.encode.skills import Edits
from holdfast.train.skill_episodes import Step

LAST = 0.6
"""So much of the score goes to the last step; the rest to all, the later ones more."""
DECAY = 0.9
QUOTA, PENALTY, IDLE = 0.10, 0.05, 0.2
"""All of an episode for edits that match the skills, for edits that fail; and what of it matches that do nothing are given."""

Floats = npt.NDArray[np.float64]


def spread(score: float, steps: int) -> Floats:
    """The score over the steps of an episode; it sums to the score."""
    weights = np.power(DECAY, np.arange(steps - 1, -1, -1, dtype=np.float64))
    shares = (1.0 - LAST) * score * weights / weights.sum()
    shares[-1] += LAST * score
    return np.asarray(shares)


def process(step: Step, steps: int) -> float:
    """For one step of an episode of so many: how far the edits made are of the kinds that the skills make."""
    if step.failed:
        return -PENALTY / steps
    quota = QUOTA / steps
    common = step.chosen & step.made
    if not common:
        return -quota
    reward = quota * len(common) / len(step.chosen | step.made)
    return reward * (IDLE if common == {Edits.NOOP} else 1.0)


def rewards(score: float, steps: Sequence[Step]) -> Floats:
    """Of every step of an episode."""
    return np.asarray(spread(score, len(steps)) + np.asarray([process(step, len(steps)) for step in steps]))
