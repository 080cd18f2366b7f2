"""AdamW (arXiv 1711.05101) for the rows that a batch has touched: moments, decay and the correction of bias are each row's own.

A row that no batch touches keeps its weights and its moments to the last bit: decay of all rows at every step would erase what is
rare (arXiv 2510.02375 and 2601.22887 both keep their banks so).
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.torched import Tensor, torch

PROFILE = ()  # how memory is learnt, and none itself


@dataclass(frozen=True, slots=True)
class AdamW:
    """Rates: ``rate`` a step, ``decay`` of the weights (times the rate), ``betas`` of the two moments."""

    rate: float = 1e-4
    decay: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8

    def step(self, rows: Tensor, gradient: Tensor, moments: Tensor, steps: Tensor, share: float = 1.0) -> None:
        """Change rows, shape (N, ...), by their gradients; moments, shape (N, 2, ...), and steps, shape (N,), go on. All in place.

        ``share``: of the rate, for a schedule.
        """
        with torch.no_grad():
            steps += 1
            first, second = moments[:, 0], moments[:, 1]
            one, two = self.betas
            first.mul_(one).add_(gradient, alpha=1 - one)
            second.mul_(two).addcmul_(gradient, gradient, value=1 - two)
            each = steps.to(rows.dtype).view(-1, *[1] * (rows.dim() - 1))
            scale = (second / (1 - two**each)).sqrt_().add_(self.eps)
            rows.mul_(1 - self.rate * share * self.decay)
            rows.sub_(self.rate * share * (first / (1 - one**each)) / scale)
