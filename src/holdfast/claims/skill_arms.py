"""The arms of claim 18: ours, what it is held against, and what shows where its share is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np

from holdfast.claims.skill_families import ABSENT, FAMILIES
from holdfast.claims.skill_models import HARMFUL, Executor
from holdfast.claims.skill_models import Designer as Designs
from holdfast.claims.skill_world import dialogues, heard, read, slot_of
from holdfast.encode.base import Embedder, Vectors
from holdfast.encode.skill_selection import scaled
from holdfast.encode.skills import SkillBank, seeds
from holdfast.manage.skill_design import Change, Proposal, SkillDesigner
from holdfast.manage.skill_failures import Failures, chosen
from holdfast.torched import torch
from holdfast.train.skill_episodes import Episode, Picked, Played, Policy, Stage, executor
from holdfast.train.skill_policies import Always, ByChance, ByMeaning, Trained
from holdfast.train.skill_trainer import CONSIDERED, Learnt, Plan, SkillTrainer

OURS, NO_DESIGNER, BY_COSINE = "MemSkill", "controller, no designer", "designer, cosine choice"
COSINE, FIXED, RANDOM, SEEDS, ORACLE = "cosine choice", "fixed three, best", "random three", "seeds only", "oracle"
SCRATCH = "MemSkill, from random weights"
K = 3
EVOLUTIONS = 4


@dataclass(frozen=True)
class Size:
    """How large a run is. ``tried``: dialogues on which each fixed choice is tried."""

    train: int
    test: int
    updates: int
    batch: int
    tried: int


@dataclass(frozen=True)
class Arena:
    """The dialogues, the same for every arm, and what they are played with."""

    embedder: Embedder
    size: Size
    seed: int

    @cached_property
    def stage(self) -> Stage:
        """With a scripted model, whose answers are read by the product's own parser."""
        return Stage(self.embedder, executor(Executor()), read, k=K)

    @cached_property
    def train(self) -> list[Episode]:
        """What arms learn from."""
        return dialogues(self.size.train, self.seed)

    @cached_property
    def test(self) -> list[Episode]:
        """What they are measured on, which none has seen."""
        return dialogues(self.size.test, self.seed, first=100_000)

    @cached_property
    def bank(self) -> SkillBank:
        """Skills of all families but those that are absent at the start."""
        return SkillBank.of([family.skill for name, family in FAMILIES.items() if name not in ABSENT])

    @cached_property
    def whole(self) -> SkillBank:
        """Skills of all families."""
        return SkillBank.of([family.skill for family in FAMILIES.values()])

    def tested(self, policy: Policy, bank: SkillBank) -> list[Played]:
        """The test dialogues as a policy plays them."""
        return self.stage.play(self.test, policy, bank)

    def trainer(self, designer: SkillDesigner | None, warm: bool = True) -> SkillTrainer:
        """A trainer for one more round than there are evolutions; every proposal is approved."""
        torch.set_num_threads(1)
        plan = Plan(
            rounds=EVOLUTIONS + 1,
            updates=self.size.updates,
            batch=self.size.batch,
            warm=warm,
        )
        return SkillTrainer(self.stage, self.train, self.bank, plan, self.seed, designer, lambda _: True)


class Plants:
    """A designer that proposes a harmful skill, whatever has failed."""

    def propose(self, groups: object, bank: SkillBank, failed: object = ()) -> Proposal:  # noqa: ARG002  (the seam has it)
        """To rewrite whatever memory is shown."""
        return Proposal(bank, (Change(HARMFUL, True),), {})


@dataclass(frozen=True)
class Rollback:
    """What a planted skill did: the reward before, in the round with it, and whether bank and weights are as before."""

    before: float
    planted: float
    restored: bool


def ours(arena: Arena) -> tuple[list[Played], Learnt, Rollback]:
    """MemSkill, and then a round with a harmful skill planted."""
    trainer = arena.trainer(SkillDesigner(Designs()))
    learnt = trainer.train()
    played = arena.tested(Trained(learnt.controller), learnt.bank)
    trainer.designer, trainer.plan = Plants(), replace(trainer.plan, rounds=1)
    after = trainer.train()
    weights = trainer.net.frozen(arena.embedder.model).weights
    restored = trainer.bank == learnt.bank and all(
        np.array_equal(weights[name], one) for name, one in learnt.controller.weights.items()
    )
    return played, learnt, Rollback(learnt.reward, after.rounds[-1].reward, restored)


def baselines(arena: Arena) -> dict[str, list[Played]]:
    """Everything that ours is held against, and the oracle."""
    bank = arena.bank
    learnt = arena.trainer(None).train()
    scratch = arena.trainer(SkillDesigner(Designs()), warm=False).train()
    return {
        SCRATCH: arena.tested(Trained(scratch.controller), scratch.bank),
        NO_DESIGNER: arena.tested(Trained(learnt.controller), learnt.bank),
        BY_COSINE: arena.tested(ByMeaning(), _designed(arena)),
        COSINE: arena.tested(ByMeaning(), bank),
        FIXED: arena.tested(_best_fixed(arena), bank),
        RANDOM: arena.tested(ByChance(np.random.default_rng(arena.seed)), bank),
        SEEDS: arena.tested(ByMeaning(), seeds()),
        ORACLE: arena.tested(_Oracle(arena), arena.whole),
    }


def _designed(arena: Arena) -> SkillBank:
    """The bank that the designer makes where skills are chosen by cosine, with the same number of evolutions and the way back."""
    best, reward, failed = arena.bank, -1.0, []
    bank, changes = best, tuple[Change, ...]()
    failures = kept = Failures()
    for number in range(EVOLUTIONS + 1):
        played = arena.stage.play(arena.train, ByMeaning(), bank)
        score = float(np.mean([one.score for one in played]))
        failures = failures.seen([case for one in played for case in one.cases], number)
        if score > reward:
            best, reward, kept = bank, score, failures
        else:
            failures = kept
            failed += [changes] if changes else []
        groups = chosen(failures.worst(CONSIDERED), arena.stage.vectors)
        proposal = SkillDesigner(Designs()).propose(groups, best, failed)
        bank, changes = proposal.bank, proposal.changes
    return best


def _best_fixed(arena: Arena) -> Always:
    """Of all choices of three skills the one that does best on some of the training dialogues."""
    some = arena.train[: arena.size.tried]

    def score(order: tuple[int, ...]) -> float:
        return float(np.mean([one.score for one in arena.stage.play(some, Always(order), arena.bank)]))

    return Always(max(combinations(range(len(arena.bank.skills)), K), key=score))


def _needed(span: str) -> set[str]:
    """The names of the skills whose facts a span holds."""
    return {family.skill.name for family, _, _ in heard(span)}


class _Oracle:
    """Takes just the skills that a span needs, and no others."""

    def __init__(self, arena: Arena) -> None:
        spans = [span for episode in arena.test for span in episode.spans]
        self._spans = {vector.tobytes(): span for vector, span in zip(_seen(arena, spans), spans, strict=True)}
        self._names = [skill.name for skill in arena.whole.skills]

    def pick(self, states: Vectors, described: Vectors, k: int) -> list[Picked]:
        wanted = [_needed(self._spans[state[: described.shape[1]].tobytes()]) for state in states]
        return [Picked(tuple(at for at, name in enumerate(self._names) if name in some)[:k]) for some in wanted]


def _seen(arena: Arena, spans: Sequence[str]) -> Vectors:
    """The first half of each span's state."""
    return scaled(arena.stage.vectors(spans), arena.embedder.dimension)


def outcomes(played: Mapping[str, Sequence[Played]]) -> dict[str, list[float]]:
    """Of every arm the score of each question, in the same order."""
    return {arm: [case.score for one in some for case in one.cases] for arm, some in played.items()}


def by_family(played: Sequence[Played], absent: bool) -> float:
    """The share answered rightly of the questions whose family was absent at the start, or of the others."""
    scores = []
    for one in played:
        for case in one.cases:
            slot = slot_of(case.question)
            assert slot is not None
            changed = any(family.of and held == slot for text in case.evidence for family, held, _ in heard(text))
            if (slot[0] in ABSENT and not changed) == absent:
                scores.append(case.score)
    return float(np.mean(scores))
