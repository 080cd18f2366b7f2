"""Training memory skills: PPO against plain loops, numpy against torch, and a round that did worse is taken back as a whole."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.encode.skill_edits import Edit
from holdfast.encode.skill_selection import Controller, gumbel_top_k, log_prob
from holdfast.encode.skills import Edits, Skill, SkillBank
from holdfast.errors import InputError
from holdfast.manage.skill_design import Change, Proposal
from support import HashEmbedder

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

from holdfast.train import ppo  # noqa: E402
from holdfast.train.controller import SkillController, entropy, log_probs  # noqa: E402
from holdfast.train.skill_episodes import Episode, Picked, Question, Stage, Step  # noqa: E402
from holdfast.train.skill_policies import Always, ByChance, ByMeaning, Explores, Trained  # noqa: E402
from holdfast.train.skill_rewards import process, rewards, spread  # noqa: E402
from holdfast.train.skill_trainer import Plan, SkillTrainer, batch_of  # noqa: E402
from holdfast.train.warm_start import imitate, stand_ins  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


# --- episodes ---

GOODS = ("tea", "rope", "salt", "coal")


def keeper(good: str, edits: Edits = Edits.INSERT) -> Skill:
    return Skill(f"keep_{good}", f"everything about {good}", f"Keep {good}.", edits)


def carry_out(text: str, memories: Sequence[str], skills: Sequence[Skill]) -> list[Edit]:
    """Each skill keeps the lines about its good; one called spoil deletes all that it is shown."""
    edits = [
        Edit(Edits.INSERT, line)
        for skill in skills
        for line in text.splitlines()
        if skill.name.removeprefix("keep_") in line
    ]
    if any(skill.name == "spoil" for skill in skills):
        edits += [Edit(Edits.UPDATE, "gone", at) for at in range(len(memories))]
    return edits or [Edit(Edits.NOOP)]


def answer(question: Question, memories: Sequence[str]) -> tuple[float, str]:
    return float(question.answer in memories), memories[0] if memories else ""


def episodes(count: int, goods: Sequence[str] = GOODS) -> list[Episode]:
    found = []
    for number in range(count):
        said = [f"{goods[(number + at) % len(goods)]} costs {number + at}" for at in range(4)]
        asked = tuple(Question(f"what costs {line.split()[0]}", line, (at,)) for at, line in enumerate(said))
        found.append(Episode(f"e{number}", tuple(said), asked))
    return found


def stage(k: int = 1, **options: Any) -> Stage:
    return Stage(HashEmbedder(), carry_out, answer, k=k, **options)


def bank(*goods: str) -> SkillBank:
    return SkillBank.of([keeper(good) for good in goods])


def test_an_episode_is_read_span_by_span_into_an_empty_memory() -> None:
    played = stage().play(episodes(3), ByMeaning(), bank(*GOODS))
    assert [one.score for one in played] == [1.0] * 3
    assert played[1].memories == episodes(3)[1].spans
    assert played[0].cases[0].evidence == ("tea costs 0",)
    (one,) = stage().play(episodes(1), Always((0,)), bank(*GOODS))
    assert (one.score, [step.failed for step in one.steps]) == (0.25, [False] * 4)
    assert [step.made for step in one.steps] == [{Edits.INSERT}, *[{Edits.NOOP}] * 3]
    assert np.all(one.steps[0].state[64:] == 0)
    assert np.any(one.steps[1].state[64:] != 0)
    spoil = replace(
        bank(*GOODS),
        skills=(*bank(*GOODS).skills, replace(keeper("x"), name="spoil", edits=Edits.UPDATE, number=5)),
        made=5,
    )
    (spoilt,) = stage(k=5).play(episodes(1), ByChance(np.random.default_rng(0)), spoil)
    assert spoilt.memories.count("gone") == 3
    short = Episode("short", ("tea costs 0",), (Question("q", "a"),))
    lengths = [len(one.steps) for one in stage().play([episodes(1)[0], short], ByMeaning(), bank("tea"))]
    assert lengths == [4, 1]
    with pytest.raises(InputError):
        Episode("x", (), ())
    with pytest.raises(InputError, match="place of a span"):
        Episode("x", ("a",), (Question("q", "a", (1,)),))


# --- training ---


class Proposes:
    """A designer that proposes some changes, one after another, and keeps what it was told."""

    def __init__(self, *skills: Skill) -> None:
        self.skills = list(skills)
        self.told: list[tuple[Any, Any]] = []

    def propose(self, groups: Any, known: SkillBank, failed: Any = ()) -> Proposal:
        self.told.append((groups, list(failed)))
        return Proposal(known, (Change(self.skills.pop(0), True),) if self.skills else (), {})


def trainer(designer: Any = None, approve: Any = lambda proposal: True, **options: Any) -> SkillTrainer:
    plan = Plan(**{"rounds": 3, "updates": 12, "batch": 4, "hidden": 64, "lifted": 6, "warm": False, **options})
    plan = replace(plan, settings=ppo.Settings(rate=1e-3))
    return SkillTrainer(stage(), episodes(12), bank("tea", "rope"), plan, 0, designer, approve)


def same(one: Controller, other: Controller) -> bool:
    return all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_a_controller_learns_and_what_the_bank_lacks_is_added() -> None:
    designer = Proposes(keeper("salt"), keeper("coal"))
    training = trainer(designer, updates=40)
    learnt = training.train()
    assert [skill.name for skill in learnt.bank.skills][-1] in ("keep_salt", "keep_coal")
    scores = [one.score for one in stage().play(episodes(8), Trained(learnt.controller), learnt.bank)]
    chance = [one.score for one in stage().play(episodes(8), ByChance(np.random.default_rng(0)), learnt.bank)]
    assert np.mean(scores) > np.mean(chance) + 0.2
    groups, _ = designer.told[0]
    assert {case.question.split()[-1] for group in groups for case in group} >= {"salt", "coal"}
    assert all(case.score < 0.5 for group in groups for case in group)
    assert learnt.bank.stats[1].uses > 0


def test_a_harmful_skill_is_taken_back_with_the_weights_and_told_of() -> None:
    training = trainer(updates=20)
    training.train()
    assert training.best is not None
    before, weights = training.best, training.best.controller
    spoil = Skill("spoil", "tea rope salt coal costs everything about", "Spoil it.", Edits.UPDATE)
    training.designer = designer = Proposes(spoil, keeper("salt"))
    training.plan = replace(training.plan, rounds=1)
    after = training.train()
    assert after.rounds[-1].changes[0].skill.name == "spoil"
    assert not after.rounds[-1].kept
    assert after.rounds[-1].reward < before.reward
    assert training.bank == before.bank == after.bank
    assert same(training.net.frozen("hash-64"), weights)
    assert same(after.controller, weights)
    training.train()
    assert [change.skill.name for change in designer.told[-1][1][0]] == ["spoil"]


def test_a_warm_start_chooses_as_the_cosine_does_before_anything_is_rewarded() -> None:
    training = trainer()
    training.bank = bank(*GOODS)
    losses = imitate(
        training.net,
        stand_ins(stage(), episodes(12), np.random.default_rng(0)),
        stage().described(training.bank),
        np.random.default_rng(0),
    )
    assert losses[-1] < 0.1 * losses[0]
    frozen = training.net.frozen("hash-64")
    alike = [
        one.picked.order == other.picked.order
        for played in zip(
            stage().play(episodes(12), Trained(frozen), training.bank),
            stage().play(episodes(12), ByMeaning(), training.bank),
            strict=True,
        )
        for one, other in zip(played[0].steps, played[1].steps, strict=True)
    ]
    assert np.mean(alike) > 0.9
    warm = trainer(warm=True, rounds=1, updates=1).train()
    assert warm.rounds[0].scores[0] > trainer(rounds=1, updates=1).train().rounds[0].scores[0]


def test_nothing_is_changed_that_nobody_approved() -> None:
    asked = []
    training = trainer(Proposes(keeper("salt"), keeper("coal")), lambda proposal: asked.append(proposal.diff), rounds=2)
    assert [skill.name for skill in training.train().bank.skills] == ["keep_tea", "keep_rope"]
    assert "+# Keep Salt" in asked[0]


def test_training_is_the_same_for_the_same_seed_and_is_saved(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="the extra torch is not installed")
    state = torch.get_rng_state()
    first, second = (trainer(Proposes(keeper("salt"))).train() for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert first.rounds == second.rounds
    assert same(first.controller, second.controller)
    first.save(tmp_path)
    from holdfast.encode.skill_writing import _opened

    read, selector = _opened(str(tmp_path), HashEmbedder())
    assert read == first.bank
    assert selector.controller is not None
    assert same(selector.controller, first.controller)
    (chosen,) = selector.choose("rope costs 3", [], read.skills, 1)
    (played,) = stage().play(
        [Episode("x", ("rope costs 3",), (Question("q", "a"),))], Trained(first.controller), first.bank
    )
    assert chosen.number == played.steps[0].numbers[0], "what serves chooses as what was trained"


def test_a_batch_holds_every_step_with_what_it_was_drawn_by() -> None:
    training = trainer()
    new = np.asarray([False, True])
    policy = Explores(training.net.frozen("hash-64"), np.random.default_rng(0), new, 1.0)
    played = stage().play(episodes(2), policy, training.bank)
    made = batch_of(played, stage().described(training.bank), new, training.credit)
    assert made.last.tolist() == [False, False, False, True] * 2
    assert made.rewards[:4].sum() == pytest.approx(played[0].score, abs=0.1 + 1e-9)
    assert made.orders.shape == (8, 1)


def test_the_package_is_imported_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import holdfast, holdfast.train, holdfast.train.skill_episodes, holdfast.encode.skill_selection\n"
        "from holdfast.errors import MissingExtraError\n"
        "try:\n    import holdfast.train.controller\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "training needs the extra: pip install 'holdfast[torch]'"
