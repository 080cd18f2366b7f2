"""Slow weights: the published rule and the published code as they are, a constant, and nothing else touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

from torch import nn  # noqa: E402

from holdfast.errors import InputError  # noqa: E402
from holdfast.weights.slow_weights import SlowWeights  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def trained(rule: str, steps: int = 50, **settings):
    """A thin pair of matrices for some steps; the weights and gradients of every step beside it."""
    torch.manual_seed(3)
    down, up = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(5, 4))
    x, y = torch.randn(64, 6), torch.randn(64, 5)
    start = [one.detach().clone() for one in (down, up)]
    slow = SlowWeights([down, up], rule=rule, **settings)
    optimizer, seen = torch.optim.Adam([down, up], 0.01), []
    for _ in range(steps):
        optimizer.zero_grad()
        ((x @ down.T @ up.T - y) ** 2).mean().backward()
        optimizer.step()
        slow.after_step()
        seen.append([(one.detach().clone(), one.grad.clone()) for one in (down, up)])
    return slow, start, seen


def test_the_published_code_is_followed_to_the_last_digits() -> None:
    slow, _, seen = trained("reference", beta=0.99, scale=2e-3)
    inside = 0
    for at in range(2):
        average, last = seen[0][at][0].clone(), None
        for step in seen:
            weights, gradient = step[at]
            share = 0.01
            if last is not None:
                told = (
                    (1 + gradient.abs().sum())
                    / ((weights - average).abs().sum() * (gradient - last).abs().sum())
                    * 2e-3
                )
                if 0 < told < 1:
                    share, inside = float(told), inside + 1
            average = (1 - share) * average + share * weights
            last = gradient
        torch.testing.assert_close(slow._slow[at], average, rtol=0, atol=1e-6)
    assert slow.report().in_range == pytest.approx(inside / 100) and inside > 0


def test_the_formula_of_the_paper_by_norms_and_by_number() -> None:
    for rule, size in (("paper", lambda one: one.abs().sum()), ("elementwise", lambda one: one)):
        slow, start, seen = trained(rule, steps=12)
        for at in range(2):
            average, before, last = start[at].clone(), start[at], None
            for step in seen:
                weights, gradient = step[at]
                beta = torch.tensor(0.99)
                if last is not None:
                    told = (
                        (size(gradient) + 1)
                        * size(weights - before)
                        / (size(weights - average) * size(gradient - last))
                    )
                    beta = torch.where((told > 0) & (told < 1), told, torch.tensor(0.99))
                average = beta * average + (1 - beta) * weights
                before, last = weights, gradient
            torch.testing.assert_close(slow._slow[at], average, rtol=1e-4, atol=1e-5)


@given(st.floats(0, 0.999), st.integers(1, 20))
def test_a_constant_is_a_sum_of_powers(beta: float, steps: int) -> None:
    slow, start, seen = trained("constant", steps=steps, beta=beta)
    for at in range(2):
        powers = sum((1 - beta) * beta ** (steps - 1 - step) * seen[step][at][0] for step in range(steps))
        torch.testing.assert_close(slow._slow[at], beta**steps * start[at] + powers, rtol=1e-4, atol=1e-5)


def test_the_model_takes_the_average_over_by_a_commit_alone() -> None:
    slow, _, seen = trained("constant", steps=5)
    fast = [weights for weights, _ in seen[-1]]
    assert all(torch.equal(*both) for both in zip(slow._fast, fast, strict=True))
    assert not any(torch.equal(*both) for both in zip(slow._fast, slow._slow, strict=True))
    slow.commit()
    assert all(torch.equal(*both) for both in zip(slow._fast, slow._slow, strict=True))


def test_small_steps_are_not_lost_in_sixteen_bits() -> None:
    weight = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    slow = SlowWeights([weight], beta=0.999)
    with torch.no_grad():
        weight.fill_(2.0)
    for _ in range(100):
        slow.after_step()
    assert slow._slow[0].dtype == torch.float32
    torch.testing.assert_close(slow._slow[0], torch.full((3,), 2 - 0.999**100), rtol=1e-4, atol=1e-4)


def test_a_batch_that_repeats_is_in_no_range() -> None:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    for rule in ("paper", "elementwise", "reference"):
        slow = SlowWeights([weight], rule=rule)
        for _ in range(3):
            slow.after_step()
        assert slow.report().in_range == 0 and slow.report().steps == 3
        assert torch.isfinite(slow._slow[0]).all() and slow.report().beta == pytest.approx(0.99)


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(InputError, match="nothing to average"):
        SlowWeights([nn.Parameter(torch.ones(1), requires_grad=False)])
    with pytest.raises(InputError, match="below 1"):
        SlowWeights([nn.Parameter(torch.ones(1))], beta=1.0)
