"""Training a controller and evolving its bank in turn, with a way back (MemSkill, arXiv 2602.02474 §3.5).

A round plays batches of episodes and updates the controller by PPO. Then its reward, the mean of the last quarter of its batches,
is held against the best there was: where it is better, bank and weights are kept, else both go back to the best, the designer is
told which attempt failed, and looks at the failures that were seen with the best. What it proposes is put to ``approve``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from holdfast.encode.skill_files import CONTROLLER, write_bank
from holdfast.encode.skill_selection import Controller
from holdfast.encode.skills import SkillBank
from holdfast.errors import InputError
from holdfast.manage.skill_design import Change, Proposal
from holdfast.manage.skill_failures import Case, Failures, chosen
from holdfast.torched import torch
from holdfast.train import ppo
from holdfast.train.controller import HIDDEN, SkillController
from holdfast.train.skill_episodes import Episode, Played, Policy, Stage
from holdfast.train.skill_policies import Explores, Trained
from holdfast.train.skill_rewards import rewards
from holdfast.train.warm_start import imitate, stand_ins

CONSIDERED = 60
"""Failures that are played anew before a designer looks at the worst of them."""


class Designer(Protocol):
    """``manage.skill_design.SkillDesigner`` is one."""

    def propose(
        self, groups: Sequence[Sequence[Case]], bank: SkillBank, failed: Sequence[Sequence[Change]] = ()
    ) -> Proposal:
        """Changes of the bank that mend failures."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """How long is trained, and on what. Raises InputError.

    Fields
        rounds: of training; between two of them the designer is asked, if there is one.
        updates: of the controller in a round, each by ``batch`` episodes.
        lifted: so many updates after a change until new skills are no longer lifted.
        patience: rounds in turn without a new best until it stops.
        last: the share of a round's batches, its last ones, that its reward is the mean of.
        warm: begin with a controller that chooses as the cosine does, not with random weights as the paper does.
    """

    rounds: int = 20
    updates: int = 100
    batch: int = 4
    lifted: int = 25
    patience: int = 5
    last: float = 0.25
    warm: bool = True
    hidden: int = HIDDEN
    settings: ppo.Settings = field(default_factory=ppo.Settings)

    def __post_init__(self) -> None:
        if min(self.rounds, self.updates, self.batch, self.lifted, self.patience, self.hidden) < 1:
            raise InputError("a plan has one round, update, episode a batch and hidden unit or more")
        if not 0 < self.last <= 1:
            raise InputError("the reward of a round is of a share of its batches, in (0, 1]")


@dataclass(frozen=True, slots=True)
class Round:
    """How a round went: the score of each batch, its reward, and whether bank and controller were kept."""

    scores: tuple[float, ...]
    reward: float
    kept: bool
    changes: tuple[Change, ...]
    reports: tuple[ppo.Report, ...] = ()


@dataclass(frozen=True, slots=True)
class Learnt:
    """The best bank and controller, and how they came about."""

    bank: SkillBank
    controller: Controller
    reward: float
    rounds: tuple[Round, ...]

    def save(self, folder: Path) -> None:
        """Write both to a folder, which ``recipes.memskill.memskill`` and ``encode.skill_writing`` read."""
        write_bank(self.bank, folder)
        self.controller.save(folder / CONTROLLER)


@dataclass(slots=True)
class SkillTrainer:
    """Trains on some episodes. ``designer`` None: the bank stays as it is. ``approve`` decides on every proposal.

    ``credit`` says what each step of an episode is rewarded with. ``train`` may be called again, with another designer: it goes on
    from where it is.
    """

    stage: Stage
    episodes: Sequence[Episode]
    bank: SkillBank
    plan: Plan = field(default_factory=Plan)
    seed: int = 0
    designer: Designer | None = None
    approve: Callable[[Proposal], bool] = lambda proposal: False  # noqa: ARG005  (nothing is changed unasked)
    credit: Callable[[Played], npt.NDArray[np.float64]] = lambda one: rewards(one.score, one.steps)
    net: SkillController = field(init=False)
    best: Learnt | None = field(default=None, init=False)
    _optimizer: Any = field(init=False)
    _kept: Any = field(default=None, init=False)
    _random: np.random.Generator = field(init=False)
    _failures: Failures = field(default_factory=Failures, init=False)
    _new: frozenset[int] = field(default=frozenset(), init=False)
    _pending: tuple[Change, ...] = field(default=(), init=False)
    _failed: list[tuple[Change, ...]] = field(default_factory=list, init=False)
    _rounds: list[Round] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if not self.episodes or not self.bank.skills:
            raise InputError("there are episodes to train on, and skills to choose from")
        self._random = np.random.default_rng(self.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.net = SkillController(self.stage.embedder.dimension, self.plan.hidden)
        self._optimizer = torch.optim.Adam(self.net.parameters(), lr=self.plan.settings.rate, fused=True)

    def train(self, progress: Callable[[int, int, float], None] | None = None) -> Learnt:
        """Rounds of training, with a proposal before each but the very first. Raises what episodes and the designer raise.

        ``progress`` is told the round, the update and the score of the batch.
        """
        if self.best is None and self.plan.warm:
            seen = stand_ins(self.stage, self.episodes, self._random)
            imitate(self.net, seen, self.stage.described(self.bank), self._random)
        lost = 0
        for number in range(1, self.plan.rounds + 1):
            if self.best is not None:
                self._design()
            lost = 0 if self._round(number, progress).kept else lost + 1
            if lost >= self.plan.patience:
                break
        assert self.best is not None
        self.best = replace(self.best, rounds=tuple(self._rounds))
        return self.best

    def _round(self, number: int, progress: Callable[[int, int, float], None] | None) -> Round:
        scores, reports = [], []
        for at in range(self.plan.updates):
            score, report = self._update(at)
            scores.append(score)
            reports.append(report)
            if progress is not None:
                progress(number, at + 1, score)
        reward = float(np.mean(scores[-max(1, round(self.plan.last * len(scores))) :]))
        kept = self.best is None or reward > self.best.reward
        done = Round(tuple(scores), reward, kept, self._pending, tuple(reports))
        self._rounds.append(done)
        if kept:
            controller = self.net.frozen(self.stage.embedder.model)
            self.best = Learnt(self.bank, controller, reward, ())
            self._kept = deepcopy(self._optimizer.state_dict()), self._failures
        else:
            self._go_back()
        self._pending, self._new = (), frozenset()
        return done

    def _update(self, at: int) -> tuple[float, ppo.Report]:
        places = self._random.choice(len(self.episodes), min(self.plan.batch, len(self.episodes)), replace=False)
        new = np.asarray([skill.number in self._new for skill in self.bank.skills])
        scale = max(0.0, 1.0 - at / self.plan.lifted)
        policy = Explores(self.net.frozen(self.stage.embedder.model), self._random, new, scale)
        played = self.stage.play([self.episodes[place] for place in places.tolist()], policy, self.bank)
        batch = batch_of(played, self.stage.described(self.bank), new, self.credit)
        report = ppo.update(self.net, self._optimizer, batch, self.plan.settings, self._random)
        for one in played:
            self.bank = self.bank.used(sorted({number for step in one.steps for number in step.numbers}), one.score)
        cases = [case for one in played for case in one.cases]
        self._failures = self._failures.seen(cases, sum(len(done.scores) for done in self._rounds) + at)
        return float(np.mean([one.score for one in played])), report

    def _go_back(self) -> None:
        """Bank, weights, what the optimizer knows and the failures: all as they were with the best."""
        assert self.best is not None
        self.bank = self.best.bank
        self.net.restore(self.best.controller)
        held, self._failures = self._kept
        self._optimizer.load_state_dict(deepcopy(held))
        if self._pending:
            self._failed.append(self._pending)

    def _design(self) -> None:
        """Have changes proposed from what still fails; where they are approved, the next round tries them."""
        if self.designer is None:
            return
        worst = self._failures.worst(CONSIDERED)
        wanted = {case.episode for case in worst}
        again = [episode for episode in self.episodes if episode.id in wanted]
        now = self.measured(again, Trained(self.net.frozen(self.stage.embedder.model))) if again else []
        self._failures = self._failures.rescored(case for one in now for case in one.cases)
        left = self._failures.worst(CONSIDERED)
        proposal = self.designer.propose(chosen(left, self.stage.vectors), self.bank, self._failed)
        if proposal and self.approve(proposal):
            self.bank = proposal.bank
            self._pending = proposal.changes
            self._new = frozenset(self.bank.named(change.skill.name).number for change in proposal.changes)

    def measured(self, episodes: Sequence[Episode], policy: Policy) -> list[Played]:
        """Episodes played by a policy with the bank as it is."""
        return self.stage.play(episodes, policy, self.bank)


def batch_of(
    played: Sequence[Played],
    described: npt.NDArray[np.float32],
    new: npt.NDArray[np.bool_],
    credit: Callable[[Played], npt.NDArray[np.float64]],
) -> ppo.Batch:
    """The steps of some episodes as PPO takes them."""
    steps = [step for one in played for step in one.steps]
    last = np.concatenate([np.arange(len(one.steps)) == len(one.steps) - 1 for one in played])
    return ppo.Batch(
        np.stack([step.state for step in steps]),
        described,
        new,
        np.asarray([step.picked.order for step in steps], np.int64),
        np.asarray([step.picked.shift for step in steps]),
        np.asarray([step.picked.log_prob for step in steps]),
        np.asarray([step.picked.value for step in steps]),
        np.concatenate([credit(one) for one in played]),
        last,
    )
