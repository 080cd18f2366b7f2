"""The controller of memory skills as a network that is trained (MemSkill, arXiv 2602.02474 §3.2): actor and critic on one state.

Skills enter by the vectors of their descriptions, so that their number may change without a change of the network. What serves in a
memory is the same network in numpy (``encode.skill_selection.Controller``), which its weights are handed to.
"""

from __future__ import annotations

import numpy as np

from holdfast.encode.skill_selection import LEAST, Controller
from holdfast.errors import InputError
from holdfast.torched import Tensor, nn, torch

HIDDEN = 256


class SkillController(nn.Module):  # type: ignore[misc,unused-ignore]
    """Scores every skill for a state, and says what the rest of an episode is worth. ``dimension``: of the vectors of texts."""

    def __init__(self, dimension: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.state = _tower(2 * dimension, hidden)
        self.skill = _tower(dimension, hidden)
        self.actor = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.critic = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, states: Tensor, described: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of shape (states, skills) and values of shape (states,), of states (states, 2 d) and skills (skills, d)."""
        hidden, known = self.state(states), self.skill(described)
        # The first layer on a pair is the sum of what it does with either half: no pair need be written out.
        matrix, half = self.actor[0].weight, hidden.shape[1]
        pairs = (hidden @ matrix[:, :half].T)[:, None] + (known @ matrix[:, half:].T)[None] + self.actor[0].bias
        return self.actor[2](torch.relu(pairs))[..., 0], self.critic(hidden)[:, 0]

    def frozen(self, embedder: str) -> Controller:
        """The network as it is now, in numpy. ``embedder``: the model whose vectors it is trained on."""
        weights = {name: one.detach().cpu().numpy().copy() for name, one in self.state_dict().items()}
        return Controller(weights, embedder)

    def restore(self, controller: Controller) -> None:
        """Take over weights. Raises InputError where they are of another shape."""
        try:
            self.load_state_dict({name: torch.from_numpy(np.array(one)) for name, one in controller.weights.items()})
        except RuntimeError as error:
            raise InputError(f"these weights are of a controller of another size: {error}") from error


def log_probs(logits: Tensor, orders: Tensor) -> Tensor:
    """The logarithm of the probability that K skills are drawn in just this order, without replacement; shape (states,).

    ``logits`` (states, skills), ``orders`` (states, K).
    """
    mass = torch.softmax(logits, dim=-1).gather(1, orders)
    before = torch.cumsum(mass, dim=1) - mass
    return (mass.clamp_min(LEAST).log() - (1.0 - before).clamp_min(LEAST).log()).sum(dim=1)


def entropy(logits: Tensor) -> Tensor:
    """Of the softmax of each state's logits, in nats."""
    logs = torch.log_softmax(logits, dim=-1)
    return -(logs.exp() * logs).sum(dim=-1)


def _tower(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
