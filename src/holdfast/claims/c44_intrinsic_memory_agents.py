"""Intrinsic Memory Agents (arXiv 2508.08997): a memory of its own, in the shape of its role, for each agent of a team.

The agents are scripted, and act on what stands in their rendered context alone. The memories are the product's, written through its
parser by a stand-in that leaves out facts and corrupts its answers, the same in every arm.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from holdfast import Memory
from holdfast.agent.team import Said
from holdfast.bench.plots import Bars, draw
from holdfast.claims.base import Check, Result, Scale
from holdfast.claims.embedded import embedder
from holdfast.claims.roles_arms import (
    CORRUPT,
    MEMORY,
    OMITTED,
    VERBS,
    WINDOW,
    Arm,
    Kept,
    Known,
    Window,
    facts_in,
    sentence,
)
from holdfast.claims.roles_world import (
    ASIDE,
    CHECKER,
    ITEMS,
    KEEPER,
    OWNS,
    PLANNER,
    ROLES,
    Episode,
    Fact,
    meeting,
    perform,
    plan,
)
from holdfast.encode.base import Embedder
from holdfast.errors import ClaimError

number = 44
name = "intrinsic-memory-agents"
OURS, RULED, FREE = "per-agent, template", "per-agent, template by rule", "per-agent, unstructured"
SHARED = ("shared, running summary", "shared, structured")
ORACLE = "oracle"
arms = (OURS, RULED, FREE, *SHARED, "retrieval", "full history, truncated", "none", ORACLE)
statement = (
    "In a window of 600 tokens, a memory for each agent in the shape of its role leads to at least 10 points more success than the "
    "best memory that the team shares, and 5 more than one of its own without structure, at no more tokens; a template by rule "
    "reaches 90 % of one by hand."
)

EPISODES: Mapping[Scale, int] = {"quick": 10, "full": 200}
"""Of each task, in ten groups, over which standard deviations are."""

GROUPS = 10
SPARE = 1  # rounds of a plan beyond one for each item


@dataclass(slots=True)
class _Ran:
    """What one episode came to: counts, and shares of what could be."""

    success: float = 0.0
    whole: bool = False
    violations: int = 0
    superseded: int = 0
    retained: float = 0.0
    contradictions: int = 0
    tokens: int = 0
    turns: int = 0
    dialogue: int = 0
    said: dict[tuple[str, str, str], str] = field(default_factory=dict)


def run(scale: Scale, seed: int, data: Path | None) -> Result:
    """All arms on the same episodes. Raises ClaimError at ``gpu``, which this claim lacks, and where nothing can embed."""
    if scale not in EPISODES:
        raise ClaimError("claim 44 has no learned updater yet: use --scale quick or full")
    embed = embedder("one arm retrieves turns by meaning")
    count = EPISODES[scale]
    ran: dict[str, dict[str, list[_Ran]]] = {arm: {"plan": [], "meeting": []} for arm in arms}
    for task, make, play in (("plan", plan, _play_plan), ("meeting", meeting, _play_meeting)):
        for one in range(count):
            episode = make(f"{task} {seed} {one}")
            with (
                tempfile.TemporaryDirectory() as folder,
                Memory(
                    folder, user="team", embedder=None, encoders=(), background=False, durability="normal"
                ) as memory,
            ):
                for at, arm in enumerate(arms):
                    made = _arm(arm, episode, memory, f"{seed} {one}", str(at), embed)
                    done = play(episode, made, random.Random(f"aside {seed} {one}"))
                    if isinstance(made, Kept):
                        done.tokens += made.scribe.tokens
                    ran[arm][task].append(done)
    measured = {arm: _metrics(by_task) for arm, by_task in ran.items()}
    return Result(measured, _checks(measured), _settings(count, seed), notes=_NOTES)


def _checks(measured: Mapping[str, Mapping[str, float]]) -> tuple[Check, ...]:
    ours = measured[OURS]
    checks: list[Check] = []
    for task in ("plan", "meeting"):
        best = max(SHARED, key=lambda arm: measured[arm][f"success, {task}"])
        spread = [measured[arm][f"deviation, {task}"] for arm in arms if arm != ORACLE]
        more = {arm: ours[f"success, {task}"] - measured[arm][f"success, {task}"] for arm in (best, FREE)}
        cost = {arm: ours[f"tokens, {task}"] / measured[arm][f"tokens, {task}"] for arm in (best, FREE)}
        smaller = sum(one < ours[f"deviation, {task}"] for one in spread)
        ruled = measured[RULED][f"success, {task}"] / ours[f"success, {task}"]
        checks += [
            Check(f"{task}: success above the best shared", more[best], 0.10, note=best),
            Check(f"{task}: success above unstructured", more[FREE], 0.05),
            Check(f"{task}: tokens, of those of the best shared", cost[best], 1.0, at_least=False),
            Check(f"{task}: tokens, of those of unstructured", cost[FREE], 1.0, at_least=False),
            Check(f"{task}: arms of smaller deviation", smaller, 1, at_least=False),
            Check(f"{task}: template by rule, of that by hand", ruled, 0.90),
        ]
    return tuple(checks)


def _settings(count: int, seed: int) -> dict[str, object]:
    return {
        "episodes of each task": count,
        "groups": GROUPS,
        "window, tokens": WINDOW,
        "memory, tokens": MEMORY,
        "facts omitted": OMITTED,
        "answers corrupted": CORRUPT,
        "facts a role": ITEMS,
        "seed": seed,
    }


_NOTES = (
    "Agents and the model that writes memories are scripted: what is measured is what a memory keeps in a window, not how well a "
    "model writes one. What one role knows fits its memory; what all know does not fit one of the same size.",
    "Success is the share of goals reached without breaking a rule (plan), and of requirements met in the final document "
    "(meeting); 'all' is the share of episodes where every one is.",
    "Deviation is that of success over ten groups of episodes, and the oracle, which forgets nothing, is not ranked. Arms that "
    "hardly ever succeed vary least: the check on deviation asks to vary less than they do, and is left as the paper has it.",
    "Without a template a memory is a list of what was said, each sentence once, of which the beginning goes: no chatter "
    "is in it.",
    "Tokens are those of every context and of every call that writes a memory.",
)


def plot(result: Result, path: Path) -> None:
    """Success and the share of its facts that a role still knows, by arm, for both tasks."""
    panels = []
    for task, title in (("plan", "plans in five domains"), ("meeting", "design meetings")):
        values = {arm: result.arms[arm][f"success, {task}"] for arm in arms}
        best = max(values[arm] for arm in SHARED)
        panels.append(
            Bars(
                values,
                title=f"success, {title}",
                ours=(OURS, RULED),
                bounds=(ORACLE,),
                required=best + 0.10,
                percent=True,
            )
        )
    kept = {arm: result.arms[arm]["retained"] for arm in arms}
    panels.append(Bars(kept, title="facts a role still knows", ours=(OURS, RULED), bounds=(ORACLE,), percent=True))
    draw(
        path,
        panels,
        title="A memory in the shape of one's role, and what a window of 600 tokens holds without it",
        subtitle=f"scripted agents; {result.settings['episodes of each task']} episodes of each task",
    )


# --- episodes ---


def _arm(arm: str, episode: Episode, memory: Memory, seed: str, id: str, embedder: Embedder) -> Arm:
    match arm:
        case "retrieval":
            return Window(arm, embedder)
        case "full history, truncated" | "none":
            return Window(arm)
        case "oracle":
            return Window(arm, truth=episode.truth)
        case _:
            return Kept(memory, seed, id, list(episode.truth), arm)


class _Stage:
    """The dialogue of an episode as it goes on: who says what, what it costs, and whether it fits what was said before."""

    def __init__(self, arm: Arm, luck: random.Random) -> None:
        self.history: list[Said] = []
        self.ran = _Ran()
        self._arm, self._luck = arm, luck

    def known(self, agent: str, ask: str) -> Known:
        """What an agent's context tells it."""
        text, tokens = self._arm.show(agent, self.history, ask)
        self.ran.tokens += tokens
        return Known(text)

    def say(self, agent: str, words: str, *, changed: bool = False, aside: bool = True) -> None:
        """An agent says something; its memory takes it in."""
        for one in facts_in(words):
            at = agent, one.kind, one.subject
            self.ran.contradictions += self.ran.said.get(at, one.value) != one.value and not changed
            self.ran.said[at] = one.value
        output = f"{''.join(self._luck.sample(ASIDE, 2))}{words}" if aside else words
        self.history.append(Said(agent, output))
        self._arm.take(agent, output)
        self.ran.turns += 1
        self.ran.dialogue += len(output) // 4

    def hear(self, words: str) -> None:
        """Somebody who is no agent says something."""
        self.history.append(Said("chair", words))

    def brief(self, episode: Episode) -> None:
        """The turns that are told."""
        for turn in episode.turns:
            words = turn.chatter or f"{'Change' if turn.changed else 'Noted'}: {'; '.join(map(sentence, turn.facts))}."
            self.say(turn.role, words, changed=turn.changed, aside=not turn.chatter)

    def retained(self, episode: Episode) -> float:
        """The share of the facts that hold, which their owners' contexts tell."""
        shares, before = [], self.ran.tokens
        for role, facts in episode.truth.items():
            known = self.known(role, f"what {role} knows: {VERBS[facts[0].kind]}")
            shares += [known.of(one.kind, one.subject) == one.value for one in facts]
        self.ran.tokens = before  # asked for the measure alone
        return float(np.mean(shares))


def _play_plan(episode: Episode, arm: Arm, luck: random.Random) -> _Ran:
    """Three agents take items to their goals, one a round: the planner names it, the keeper where it is, the checker the tool."""
    assert episode.domain is not None and episode.state is not None
    stage = _Stage(arm, luck)
    state, rank = dict(episode.state), {item: at for at, item in enumerate(episode.order)}
    rules = {one.subject: one.value for one in episode.truth[CHECKER]}
    broken: set[str] = set()
    stage.brief(episode)
    stage.ran.retained = stage.retained(episode)
    last = ""
    for _ in range(ITEMS + SPARE):
        known = stage.known(PLANNER, "goals: what must end at which place, and what is done")
        open_ = [item for kind, item in known.facts if kind == OWNS[PLANNER] and item not in known.done]
        if not open_:
            stage.say(PLANNER, f"{last}Nothing is left that I know of.")
            last = ""
            continue
        item = min(open_, key=lambda one: (one in known.failed, rank[one]))
        target = known.facts[OWNS[PLANNER], item]
        question = f"{last}Next: {item} must end at {target}."
        stage.say(PLANNER, question)
        source = stage.known(KEEPER, question).of(OWNS[KEEPER], item)
        stage.say(KEEPER, f"Answer: {item} is at {source}." if source else f"I do not know where {item} stands.")
        tool = stage.known(CHECKER, question).of(OWNS[CHECKER], item)
        stage.say(CHECKER, f"Answer: {item} needs {tool}." if tool else f"I have no rule for {item}.")
        used = tool or f"north {episode.domain.tool}"
        moved = source is not None and perform(episode, state, item, source, target, used)
        if moved and used != rules[item]:
            broken.add(item)
            stage.ran.violations += 1
        last = f"Result: {item} is done. " if moved else f"Result: {item} could not be moved. "
        stage.hear(last.strip())
    met = [state[one.subject] == one.value and one.subject not in broken for one in episode.truth[PLANNER]]
    stage.ran.success, stage.ran.whole = float(np.mean(met)), all(met)
    return stage.ran


def _play_meeting(episode: Episode, arm: Arm, luck: random.Random) -> _Ran:
    """Four roles say what they require, answer questions, and write their sections of the final document."""
    stage = _Stage(arm, luck)
    owner = {one.subject: (role, one) for role, facts in episode.truth.items() for one in facts}
    stage.brief(episode)
    for subject in episode.order:
        role, fact = owner[subject]
        question = f"Chair: what of {subject}, please?"
        stage.hear(question)
        value = stage.known(role, question).of(fact.kind, subject)
        answer = sentence(Fact(fact.kind, subject, value, "")) if value else f"I do not recall {subject}"
        stage.say(role, f"Answer: {answer}.")
    stage.ran.retained = stage.retained(episode)
    met = []
    for role in ROLES:
        known = stage.known(role, f"the requirements and constraints of {role}: shall be, must be")
        for fact in episode.truth[role]:
            value = known.of(fact.kind, fact.subject)
            met.append(value == fact.value)
            stage.ran.violations += fact.kind == "constraint" and value != fact.value
            stage.ran.superseded += value is not None and value != fact.value
            before = stage.ran.said.get((role, fact.kind, fact.subject))
            stage.ran.contradictions += value is not None and value != before
    stage.ran.success, stage.ran.whole = float(np.mean(met)), all(met)
    return stage.ran


def _metrics(by_task: Mapping[str, Sequence[_Ran]]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for task, ran in by_task.items():
        groups = [float(np.mean([one.success for one in ran[at::GROUPS]])) for at in range(GROUPS)]
        metrics |= {
            f"success, {task}": float(np.mean([one.success for one in ran])),
            f"all, {task}": float(np.mean([one.whole for one in ran])),
            f"deviation, {task}": float(np.std(groups, ddof=1)),
            f"violations, {task}": float(np.mean([one.violations for one in ran])),
            f"contradictions, {task}": float(np.mean([one.contradictions for one in ran])),
            f"tokens, {task}": float(np.mean([one.tokens for one in ran])),
            f"turns, {task}": float(np.mean([one.turns for one in ran])),
            f"dialogue, {task}": float(np.mean([one.dialogue for one in ran])),
        }
    every = [one for ran in by_task.values() for one in ran]
    metrics["retained"] = float(np.mean([one.retained for one in every]))
    metrics["superseded, meeting"] = float(np.mean([one.superseded for one in by_task["meeting"]]))
    return metrics
