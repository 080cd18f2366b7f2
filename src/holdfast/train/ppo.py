"""PPO for choices of several skills in order (arXiv 1707.06347 eq. 7 and 11, as MemSkill has it, arXiv 2602.02474 §3.4).

The ratio is that of the whole ordered choice, at the shift of new skills with which it was drawn: another order or another shift
would make it wrong. Advantages are normalised once over the batch, and the epochs stop where the policy has moved too far.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.errors import InputError
from holdfast.torched import torch
from holdfast.train.controller import SkillController, entropy, log_probs

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Settings:
    """The paper's, by default. ``target``: the mean KL at which the epochs of one update stop. Raises InputError."""

    rate: float = 1e-4
    gamma: float = 0.99
    smoothing: float = 0.95
    clip: float = 0.2
    value_weight: float = 0.5
    entropy_weight: float = 0.01
    norm: float = 0.5
    epochs: int = 2
    minibatch: int = 32
    target: float = 0.02

    def __post_init__(self) -> None:
        if self.rate <= 0 or not 0 < self.clip < 1 or min(self.epochs, self.minibatch) < 1:
            raise InputError("PPO has a positive rate, a clip in (0, 1), and one epoch and a minibatch of one or more")


@dataclass(frozen=True, slots=True)
class Batch:
    """Steps of some episodes, one after another.

    Shapes: states (steps, 2 d), described (skills, d), new (skills,), orders (steps, K); the others (steps,). ``shifts`` were added
    to the logits of the ``new`` skills when the orders were drawn; ``last`` marks the last step of an episode.
    """

    states: npt.NDArray[np.float32]
    described: npt.NDArray[np.float32]
    new: npt.NDArray[np.bool_]
    orders: npt.NDArray[np.int64]
    shifts: Floats
    log_probs: Floats
    values: Floats
    rewards: Floats
    last: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Report:
    """Means over the minibatches of an update. ``epochs``: how many were begun; ``kl`` of the last."""

    policy: float
    value: float
    entropy: float
    kl: float
    clipped: float
    epochs: int


def gae(
    rewards: Floats, values: Floats, last: npt.NDArray[np.bool_], gamma: float, smoothing: float
) -> tuple[Floats, Floats]:
    """Advantages and returns of each step (arXiv 1506.02438 eq. 16); nothing flows from one episode into another."""
    advantages = np.zeros(len(rewards))
    carried = 0.0
    for at in range(len(rewards) - 1, -1, -1):
        after = 0.0 if last[at] else values[at + 1]
        if last[at]:
            carried = 0.0
        carried = rewards[at] + gamma * after - values[at] + gamma * smoothing * carried
        advantages[at] = carried
    return advantages, advantages + values


def update(
    net: SkillController, optimizer: Any, batch: Batch, settings: Settings, random: np.random.Generator
) -> Report:
    """One update of the network by one batch. Raises InputError where the loss is no finite number; the last step is not taken."""
    if not len(batch.rewards) or not batch.last[-1]:
        raise InputError("a batch holds whole episodes, one at least")
    advantages, returns = gae(batch.rewards, batch.values, batch.last, settings.gamma, settings.smoothing)
    normal = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    given = {
        "states": torch.from_numpy(batch.states),
        "orders": torch.from_numpy(batch.orders),
        "old": _tensor(batch.log_probs),
        "shift": _tensor(batch.shifts),
        "advantages": _tensor(normal),
        "returns": _tensor(returns),
    }
    described, new = torch.from_numpy(batch.described), torch.from_numpy(batch.new.astype(np.float32))
    seen: list[tuple[float, float, float, float]] = []
    kls: list[float] = []
    while len(kls) < settings.epochs and (not kls or kls[-1] <= settings.target):
        moved = []
        for some in _minibatches(len(batch.rewards), settings.minibatch, random):
            part = {name: one[some] for name, one in given.items()}
            logits, values = net(part["states"], described)
            logits = logits + part["shift"][:, None] * new[None]
            difference = log_probs(logits, part["orders"]) - part["old"]
            ratio = difference.exp()
            near = ratio.clamp(1 - settings.clip, 1 + settings.clip)
            policy = -torch.minimum(ratio * part["advantages"], near * part["advantages"]).mean()
            value = (values - part["returns"]).pow(2).mean()
            spread = entropy(logits).mean()
            loss = policy + settings.value_weight * value - settings.entropy_weight * spread
            if not torch.isfinite(loss):
                raise InputError("the loss of an update is no finite number: lower the rate, or look at the rewards")
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), settings.norm)
            optimizer.step()
            moved.append(float((ratio - 1 - difference).mean().detach()))
            clipped = float((ratio != near).float().mean())
            seen.append((float(policy.detach()), float(value.detach()), float(spread.detach()), clipped))
        kls.append(float(np.mean(moved)))
    policy, value, spread, clipped = np.mean(np.asarray(seen), axis=0).tolist()
    return Report(policy, value, spread, kls[-1], clipped, len(kls))


def _minibatches(count: int, size: int, random: np.random.Generator) -> Iterator[Sequence[int]]:
    order = random.permutation(count).tolist()
    for start in range(0, count, size):
        yield order[start : start + size]


def _tensor(values: Floats) -> Any:
    return torch.from_numpy(values.astype(np.float32))
