"""A controller's first lesson: to choose as the cosine of span and description does, before anything is rewarded.

MemSkill (arXiv 2602.02474) begins from random weights, and a reward for a whole history says little of each choice: the first
hundreds of updates go into what the descriptions say already. Imitating the choice that needs no training asks for no answers, and
carries over to skills that are added later. This is ours, not the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.encode.base import Vectors
from holdfast.encode.skill_selection import states
from holdfast.torched import torch
from holdfast.train.controller import SkillController
from holdfast.train.skill_episodes import Episode, Stage

SHARPNESS = 1.5
"""How many logits a standard deviation of the cosines is worth: enough to prefer, too little to be sure."""
STEPS, ROWS, RATE = 300, 64, 1e-3
MOST = 2_000


def stand_ins(stage: Stage, episodes: Sequence[Episode], random: np.random.Generator) -> Vectors:
    """States of the spans of some episodes, about ``MOST``; earlier spans stand for memories, which nobody has written yet."""
    spans, near = [], []
    for place in random.permutation(len(episodes)).tolist():
        vectors = stage.vectors(episodes[place].spans)
        spans += list(vectors)
        near += [vectors[max(0, at - stage.shown) : at] for at in range(len(vectors))]
        if len(spans) >= MOST:
            break
    return states(np.stack(spans), near)


def imitate(
    net: SkillController,
    states: npt.NDArray[np.float32],
    described: npt.NDArray[np.float32],
    random: np.random.Generator,
    steps: int = STEPS,
) -> list[float]:
    """Train the actor on the cosines of states (states, 2 d) and skills (skills, d); the loss of every step, in nats."""
    width = described.shape[1]
    cosines = states[:, :width] @ described.T
    spread = cosines.std(axis=1, keepdims=True)
    wanted = torch.from_numpy((cosines - cosines.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-9) * SHARPNESS)
    target, seen, skills = torch.softmax(wanted, dim=1), torch.from_numpy(states), torch.from_numpy(described)
    optimizer: Any = torch.optim.Adam(net.parameters(), lr=RATE)
    losses = []
    for _ in range(steps):
        some = random.choice(len(states), min(ROWS, len(states)), replace=False).tolist()
        logits, _values = net(seen[some], skills)
        loss = (target[some] * (target[some].log() - torch.log_softmax(logits, dim=1))).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
