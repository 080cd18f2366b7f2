"""A slow copy of what learns, averaged step by step, which is what is kept after a task (LCIA, arXiv 2410.10868, section 3.2).

    slow_t = beta_t slow_{t-1} + (1 - beta_t) fast_t

``constant`` takes one beta. The paper derives one for every tensor and step: with the gradient g, Delta = fast_t - slow_{t-1} and
the curvature as the difference quotient of two gradients, by L1 norms,

    beta_t = (|g_t| + 1) |fast_t - fast_{t-1}| / (|Delta| |g_t - g_{t-1}|)

``elementwise`` is the same formula for every number with its sign. ``reference`` is what the published code does: the weight of the
new is s (1 + |g|) / (|fast - slow| |g_t - g_{t-1}|), the factor |fast_t - fast_{t-1}| is gone, and the copy begins after the first
step. What is not between 0 and 1 takes the fallback. All three have mixed units (1 is added to a gradient): they change with the
scale of the loss, and see gradients as the optimiser saw them.

In our measurements (claim 10) no rule beats a constant that was chosen as carefully, so a constant is the default.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Subform, Subject, Trainable
from holdfast.torched import Tensor, nn, torch

PROFILE = MemoryProfile(
    Form.WEIGHTS,
    Subform.INTERNAL,
    (Function.SKILLS, Function.FACTS_ENVIRONMENT),
    formation=(Formation.INTERNALISE,),
    evolution=(Evolution.CONSOLIDATE_GLOBAL, Evolution.UPDATE_INTERNAL),
    subject=(Subject.AGENT, Subject.WORLD),
    trainable=Trainable.FULL,
)

Rule = Literal["constant", "paper", "elementwise", "reference"]


@dataclass(frozen=True, slots=True)
class Report:
    """How the averaging went.

    Fields
        steps: how many there were.
        in_range: the share of tensors and steps whose formula gave a number between 0 and 1 (of numbers, for ``elementwise``).
        beta: the mean over them of the weight of the old.
    """

    steps: int
    in_range: float
    beta: float


class SlowWeights:
    """The slow copy of some parameters; ``after_step`` after every step of an optimiser, while its gradients are still there.

    Args:
        parameters: what is averaged; those that take no gradients now are left out.
        rule: see the module.
        beta: of ``constant``, and the fallback of the others: the weight of the old, from 0 to 1.
        scale: s of ``reference``; the other formulas are multiplied by it too, and 1 is as published.

    Copies are in 32 bits at least: a step of 1 % is lost in 16.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        rule: Rule = "constant",
        beta: float = 0.99,
        scale: float | None = None,
    ) -> None:
        if not 0 <= beta < 1:
            raise InputError(f"the weight of the old is from 0 to below 1, not {beta}")
        self._fast = [one for one in parameters if one.requires_grad]
        if not self._fast:
            raise InputError("there is nothing to average: no parameter takes gradients")
        self.rule, self.beta = rule, beta
        self.scale = scale if scale is not None else 2.0 if rule == "reference" else 1.0
        self._slow = [_precise(one) for one in self._fast]
        self._before = [one.clone() for one in self._slow] if rule in ("paper", "elementwise") else []
        self._gradients: list[Tensor | None] = [None] * len(self._fast)
        self._steps = 0
        self._asked = self._hit = self._sum = 0.0

    @property
    def size(self) -> int:
        """What is kept, in bytes."""
        kept = [*self._slow, *self._before, *(one for one in self._gradients if one is not None)]
        return sum(one.numel() * one.element_size() for one in kept)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def after_step(self) -> None:
        """Average once."""
        first = self._steps == 0
        for at, fast in enumerate(self._fast):
            now, slow = _precise(fast), self._slow[at]
            if first and self.rule == "reference":
                slow.copy_(now)
            beta = self._beta(at, now, fast.grad)
            slow.mul_(beta).add_(now * (1 - beta))
            if self.rule != "constant":
                self._gradients[at] = None if fast.grad is None else _precise(fast.grad)
            if self._before:
                self._before[at] = now
        self._steps += 1

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def commit(self) -> None:
        """Take the slow weights over into the model."""
        for fast, slow in zip(self._fast, self._slow, strict=True):
            fast.copy_(slow)

    def report(self) -> Report:
        """How it went so far; shares are 0 of nothing."""
        asked = max(self._asked, 1.0)
        return Report(self._steps, self._hit / asked, self._sum / asked)

    def _beta(self, at: int, now: Tensor, gradient: Tensor | None) -> Tensor | float:
        """The weight of the old for one tensor, or for each of its numbers."""
        last = self._gradients[at]
        if self.rule == "constant":
            self._asked, self._hit, self._sum = self._asked + 1, self._hit + 1, self._sum + self.beta
            return self.beta
        if gradient is None or last is None:  # the first step: there is no curvature yet
            found, right = torch.tensor([self.beta]), torch.tensor([False])
        else:
            g = _precise(gradient)
            if self.rule == "elementwise":
                found = self.scale * (g + 1) * (now - self._before[at]) / ((now - self._slow[at]) * (g - last))
            elif self.rule == "paper":
                moved, apart, bent = _l1(now - self._before[at]), _l1(now - self._slow[at]), _l1(g - last)
                found = self.scale * (_l1(g) + 1) * moved / (apart * bent)
            else:
                new = self.scale * (1 + _l1(g)) / (_l1(now - self._slow[at]) * _l1(g - last))
                # 1 - new loses what is small, and so does a test of it: the range is tested on the new.
                right = (new > 0) & (new < 1)
                found = 1 - torch.where(right, new, 1 - self.beta)
            if self.rule != "reference":
                right = (found > 0) & (found < 1)  # 0/0 and x/0 are in no range
                found = torch.where(right, found, self.beta)
        self._asked += right.numel()
        self._hit += float(right.sum())
        self._sum += float(found.double().sum())
        return found if found.numel() > 1 else float(found)


def _precise(tensor: Tensor) -> Tensor:
    """A copy in 32 bits at least."""
    plain = tensor.detach()
    return plain.clone() if plain.dtype in (torch.float32, torch.float64) else plain.float()


def _l1(tensor: Tensor) -> Tensor:
    return tensor.abs().sum()
