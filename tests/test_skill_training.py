"""PPO for memory skills: rewards and advantages against plain loops, numpy against torch, and what an update does."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.encode.skill_selection import gumbel_top_k, log_prob
from holdfast.encode.skills import Edits
from holdfast.errors import InputError

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

from holdfast.train import ppo  # noqa: E402
from holdfast.train.controller import SkillController, entropy, log_probs  # noqa: E402
from holdfast.train.skill_episodes import Picked, Step  # noqa: E402
from holdfast.train.skill_policies import Explores  # noqa: E402
from holdfast.train.skill_rewards import process, rewards, spread  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


# --- rewards and advantages ---

numbers = st.floats(-2, 2)


@given(st.floats(0, 1), st.integers(1, 30))
def test_a_score_is_spread_whole_and_later_steps_get_more(score: float, steps: int) -> None:
    shares = spread(score, steps)
    weights = [0.9 ** (steps - 1 - at) for at in range(steps)]
    plain = [0.4 * score * weight / sum(weights) for weight in weights]
    plain[-1] += 0.6 * score
    assert np.allclose(shares, plain)
    assert math.isclose(shares.sum(), score, abs_tol=1e-12)


kinds = st.frozensets(st.sampled_from(Edits))


@given(st.lists(st.tuples(kinds.filter(bool), kinds, st.booleans()), min_size=1, max_size=8))
def test_doing_what_skills_say_is_worth_a_tenth_at_most(
    steps: list[tuple[frozenset[Edits], frozenset[Edits], bool]],
) -> None:
    some = [Step(np.zeros(2, np.float32), Picked((0,)), (1,), chosen, made, failed) for chosen, made, failed in steps]
    given_for = [process(step, len(some)) for step in some]
    assert -0.1 - 1e-9 <= sum(given_for) <= 0.1 + 1e-9
    for step, reward in zip(some, given_for, strict=True):
        if step.failed:
            assert reward == -0.05 / len(some)
        elif step.chosen == step.made:
            assert math.isclose(reward, (0.02 if step.made == {Edits.NOOP} else 0.1) / len(some))
        elif not step.chosen & step.made:
            assert reward == -0.1 / len(some)
    assert np.allclose(rewards(0.5, some), spread(0.5, len(some)) + given_for)


@given(
    st.lists(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5), min_size=1, max_size=4),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_advantages_are_the_sums_that_define_them(
    episodes: list[list[tuple[float, float]]], gamma: float, smoothing: float
) -> None:
    flat = [step for episode in episodes for step in episode]
    last = [at == len(episode) - 1 for episode in episodes for at in range(len(episode))]
    found, returns = ppo.gae(
        np.asarray([reward for reward, _ in flat]),
        np.asarray([value for _, value in flat]),
        np.asarray(last),
        gamma,
        smoothing,
    )
    plain = []
    for episode in episodes:
        values = [value for _, value in episode] + [0.0]
        deltas = [reward + gamma * values[at + 1] - values[at] for at, (reward, _) in enumerate(episode)]
        plain += [
            sum((gamma * smoothing) ** (later - at) * deltas[later] for later in range(at, len(episode)))
            for at in range(len(episode))
        ]
    assert np.allclose(found, plain)
    assert np.allclose(returns, np.asarray(plain) + [value for _, value in flat])


# --- the network ---


def network(d: int = 6, hidden: int = 8, seed: int = 0) -> SkillController:
    torch.manual_seed(seed)
    return SkillController(d, hidden)


def some_states(rows: int, d: int = 6, seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, 2 * d)).astype(np.float32), random.normal(size=(5, d)).astype(np.float32)


def test_numpy_and_torch_agree_and_weights_travel() -> None:
    net, (states, skills) = network(), some_states(4)
    frozen = net.frozen("hash-64")
    logits, values = net(torch.from_numpy(states), torch.from_numpy(skills))
    assert np.allclose(frozen.logits(states, skills), logits.detach().numpy(), atol=1e-6)
    assert np.allclose(frozen.values(states), values.detach().numpy(), atol=1e-6)
    pair = torch.cat([net.state(torch.from_numpy(states[:1])), net.skill(torch.from_numpy(skills[2:3]))], dim=1)
    assert torch.allclose(net.actor(pair)[0, 0], logits[0, 2], atol=1e-6), "as the network is written down"
    other = network(seed=1)
    other.restore(frozen)
    assert all(torch.equal(one, net.state_dict()[name]) for name, one in other.state_dict().items())
    with pytest.raises(InputError, match="another size"):
        network(hidden=4).restore(frozen)
    fewer = frozen.logits(states, skills[:2])
    assert np.allclose(fewer, frozen.logits(states, skills)[:, :2]), "skills come and go"


@given(st.integers(0, 10_000), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_the_trainer_scores_a_choice_as_the_sampler_did(seed: int, k: int) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(3, 5)) * 2
    orders = [gumbel_top_k(row, k, random) for row in logits]
    found = log_probs(torch.from_numpy(logits), torch.tensor(orders))
    assert np.allclose(
        found.numpy(), [log_prob(row, order) for row, order in zip(logits, orders, strict=True)], atol=1e-6
    )
    mass = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(entropy(torch.from_numpy(logits)).numpy(), -(mass * np.log(mass)).sum(axis=1))


def test_choices_that_hold_nearly_all_the_mass_give_finite_ratios() -> None:
    logits = torch.tensor([[60.0, 0.0, -60.0]], requires_grad=True)
    found = log_probs(logits, torch.tensor([[0, 1, 2]]))
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(logits.grad).all()


# --- an update ---


def batch(net: SkillController, lift: float = 0.0, rows: int = 40) -> ppo.Batch:
    """One step an episode; a reward where skill 1 is drawn first."""
    states, skills = some_states(rows)
    new = np.asarray([False, False, True, False, False])
    policy = Explores(net.frozen("x"), np.random.default_rng(0), new, lift)
    picks = policy.pick(states, skills, 2)
    return ppo.Batch(
        states,
        skills,
        new,
        np.asarray([pick.order for pick in picks]),
        np.asarray([pick.shift for pick in picks]),
        np.asarray([pick.log_prob for pick in picks]),
        np.asarray([pick.value for pick in picks]),
        np.asarray([float(pick.order[0] == 1) for pick in picks]),
        np.ones(rows, bool),
    )


def adam(net: SkillController, rate: float = 1e-2) -> Any:
    return torch.optim.Adam(net.parameters(), lr=rate)


def test_the_first_ratio_is_one_with_the_shift_that_was_used_and_not_without() -> None:
    once = ppo.Settings(epochs=1, minibatch=99)
    for lift in (0.0, 1.0):
        net = network()
        given_batch = batch(net, lift)
        assert bool(given_batch.shifts.any()) == bool(lift)
        assert ppo.update(net, adam(net, 0.0), given_batch, once, np.random.default_rng(0)).kl < 1e-6
    wrong = replace(given_batch, shifts=np.zeros(40))
    assert ppo.update(network(), adam(net, 0.0), wrong, once, np.random.default_rng(0)).kl > 1e-3
    other = replace(given_batch, orders=given_batch.orders[:, ::-1].copy())
    assert ppo.update(network(), adam(net, 0.0), other, once, np.random.default_rng(0)).kl > 1e-3


def test_what_is_rewarded_becomes_more_likely_and_a_far_move_stops_the_epochs() -> None:
    net = network()
    optimizer = adam(net)
    before = float(np.mean([one[0] == 1 for one in batch(net).orders]))
    for _ in range(30):
        ppo.update(net, optimizer, batch(net), ppo.Settings(), np.random.default_rng(0))
    after = batch(net)
    assert float(np.mean([one[0] == 1 for one in after.orders])) > before + 0.4
    assert abs(after.values.mean() - after.rewards.mean()) < 0.15
    hasty = ppo.Settings(epochs=9, target=1e-9)
    assert ppo.update(net, adam(net, 0.05), batch(net), hasty, np.random.default_rng(0)).epochs < 9
    patient = ppo.Settings(epochs=3, target=1e9)
    assert ppo.update(net, adam(net, 1e-5), batch(net), patient, np.random.default_rng(0)).epochs == 3
    with pytest.raises(InputError, match="whole episodes"):
        ppo.update(net, optimizer, replace(after, last=np.zeros(40, bool)), patient, np.random.default_rng(0))
    with pytest.raises(InputError, match="no finite number"):
        ppo.update(net, optimizer, replace(after, rewards=np.full(40, np.nan)), patient, np.random.default_rng(0))


def test_the_package_is_imported_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import holdfast, holdfast.train, holdfast.train.skill_episodes, holdfast.encode.skill_selection\n"
        "from holdfast.errors import MissingExtraError\n"
        "try:\n    import holdfast.train.controller\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "this needs the extra: pip install 'holdfast[torch]'"
