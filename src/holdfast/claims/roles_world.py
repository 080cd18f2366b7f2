"""The worlds of claim 44: plans in five classical domains with a simulator of their own, and design meetings.

An episode is what is told to whom and when: facts that one role owns, changes of some of them, chatter between. Nothing here knows
of memory.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ITEMS = 12
"""Things to be moved in a plan, and requirements of each role in a meeting."""


REVISED = 16
"""Of the 48 requirements of a meeting, so many are changed later."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What one role knows of a subject: a goal, a place, a rule, or a requirement. ``why`` stands beside it, for no check."""

    kind: str
    subject: str
    value: str
    why: str


@dataclass(frozen=True, slots=True)
class Tell:
    """A turn of an episode: a role says facts, which may replace what it said before; none are chatter."""

    role: str
    facts: tuple[Fact, ...] = ()
    changed: bool = False
    chatter: str = ""


@dataclass(frozen=True, slots=True)
class Action:
    """An operator of a domain over item, source, target and tool: fluents before and after."""

    name: str
    before: Mapping[str, str]
    after: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Domain:
    """Names of things, and the operators that take an item from its source to its target with a tool."""

    name: str
    item: str
    source: str
    target: str
    tool: str
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Episode:
    """Who tells what, in order; what holds in the end, by role; the domain of a plan (None: a meeting), and its start."""

    turns: tuple[Tell, ...]
    truth: Mapping[str, tuple[Fact, ...]]
    order: tuple[str, ...]
    domain: Domain | None = None
    state: Mapping[str, str] | None = None


PLANNER, KEEPER, CHECKER = "planner", "resource keeper", "checker"
OWNS = {PLANNER: "goal", KEEPER: "place", CHECKER: "rule"}
ROLES = ("backend", "data", "security", "operations")

DOMAINS = (
    Domain(
        "blocksworld",
        "block",
        "pile",
        "tower",
        "arm",
        (
            Action("unstack", {"{item}": "{source}", "{tool}": "free"}, {"{item}": "{tool}", "{tool}": "{item}"}),
            Action("stack", {"{item}": "{tool}", "{tool}": "{item}"}, {"{item}": "{target}", "{tool}": "free"}),
        ),
    ),
    Domain(
        "gripper",
        "ball",
        "room",
        "hall",
        "gripper",
        (
            Action("move", {}, {"robot": "{source}"}),
            Action(
                "pick",
                {"robot": "{source}", "{item}": "{source}", "{tool}": "free"},
                {"{item}": "{tool}", "{tool}": "{item}"},
            ),
            Action("move", {}, {"robot": "{target}"}),
            Action("drop", {"robot": "{target}", "{item}": "{tool}"}, {"{item}": "{target}", "{tool}": "free"}),
        ),
    ),
    Domain(
        "mixing",
        "syrup",
        "dispenser",
        "glass",
        "shaker",
        (
            Action("rinse", {}, {"{tool}": "clean"}),
            Action("fill", {"{tool}": "clean", "{item}": "{source}"}, {"{item}": "{tool}", "{tool}": "full"}),
            Action("shake", {"{tool}": "full"}, {"{tool}": "shaken"}),
            Action("pour", {"{tool}": "shaken", "{item}": "{tool}"}, {"{item}": "{target}", "{tool}": "used"}),
        ),
    ),
    Domain(
        "logistics",
        "crate",
        "depot",
        "dock",
        "truck",
        (
            Action("drive", {}, {"{tool}": "{source}"}),
            Action("load", {"{tool}": "{source}", "{item}": "{source}"}, {"{item}": "{tool}"}),
            Action("drive", {}, {"{tool}": "{target}"}),
            Action("unload", {"{tool}": "{target}", "{item}": "{tool}"}, {"{item}": "{target}"}),
        ),
    ),
    Domain(
        "tyres",
        "wheel",
        "rack",
        "hub",
        "jack",
        (
            Action("fetch", {"{item}": "{source}"}, {"{item}": "bench"}),
            Action("lift", {}, {"{target}": "up on {tool}"}),
            Action("fit", {"{item}": "bench", "{target}": "up on {tool}"}, {"{item}": "{target}"}),
            Action("lower", {"{target}": "up on {tool}"}, {"{target}": "down"}),
        ),
    ),
)

_HUES = "amber black coral dusky ebony fawn green hazel ivory jade khaki lilac".split()
_SIDES = "north south east west upper lower inner outer".split()
_WHY = "night shift, client asks, seen today, audit found, by contract, spare part, noted twice, safety first".split(
    ", "
)
_SUBJECTS = (
    "retry limit, queue depth, cache size, page size, batch size, worker count, timeout, pool size, log rotation, key length, "
    "token life, backup span, alert delay, disk quota, scan period, index width, row limit, session span, shard count, "
    "replica count, sync period, heap size, trace share, rate limit"
).split(", ")
CHATTER = (
    "I had a look at the notes of last week and nothing there seems urgent to me, so let us go on with what is on the table now.",
    "Before I forget, the room is booked until five, and somebody should ask whether the projector was mended since Tuesday.",
    "That sounds reasonable to me, although I would like to hear the others before we write anything down about it.",
    "My train was late again this morning, sorry for that; please go on, I shall catch up from the minutes afterwards.",
)
ASIDE = (
    "I checked it against my list this morning and the others of my group agree, so please take it as settled unless I say "
    "otherwise later. ",
    "This has been a topic before, and I would rather not open it again; it is what we have to work with at present. ",
    "I mention it now because we may not come back to it for a while, and by then there will be other things to think of. ",
)


def plan(seed: str) -> Episode:
    """A plan: goals of the planner, places of the keeper, rules of the checker, told three a turn, some changed later."""
    rng = random.Random(seed)
    domain = rng.choice(DOMAINS)
    items = [f"{hue} {domain.item}" for hue in rng.sample(_HUES, ITEMS)]
    names = {
        "goal": [f"{side} {domain.target} {n}" for side in _SIDES for n in (1, 2, 3)],
        "place": [f"{side} {domain.source} {n}" for side in _SIDES for n in (1, 2, 3)],
        "rule": [f"{side} {domain.tool}" for side in _SIDES[:4]],
    }
    told: dict[str, list[Fact]] = {
        role: [Fact(kind, item, rng.choice(names[kind]), rng.choice(_WHY)) for item in items]
        for role, kind in OWNS.items()
    }
    turns, truth = _briefed(told, names, 3, 4, 5, rng)
    state = {one.subject: one.value for one in truth[KEEPER]} | dict.fromkeys(names["rule"], "free")
    return Episode(turns, truth, tuple(rng.sample(items, ITEMS)), domain, state)


def meeting(seed: str) -> Episode:
    """A meeting: twelve requirements of each role, a quarter of them constraints, told two a turn, some changed; 30 % chatter."""
    rng = random.Random(seed)
    told: dict[str, list[Fact]] = {}
    names = {kind: [f"{n} units" for n in range(10, 1000, 7)] for kind in ("requirement", "constraint")}
    for role in ROLES:
        kinds = ["constraint"] * (ITEMS // 4) + ["requirement"] * (ITEMS - ITEMS // 4)
        told[role] = [
            Fact(kind, f"{role} {subject}", rng.choice(names[kind]), rng.choice(_WHY))
            for kind, subject in zip(kinds, rng.sample(_SUBJECTS, ITEMS), strict=True)
        ]
        rng.shuffle(told[role])
    facts = len(ROLES) * ITEMS // 2 + REVISED
    turns, truth = _briefed(told, names, 2, REVISED, round(0.3 * facts / 0.7), rng)
    asked = [one.subject for facts_of in told.values() for one in facts_of]
    return Episode(turns, truth, tuple(rng.sample(asked, 8)))


def perform(episode: Episode, state: dict[str, str], item: str, source: str, target: str, tool: str) -> bool:
    """Take an item through the operators of the domain; the state is changed as far as they apply. Whether all did."""
    assert episode.domain is not None
    names = {"item": item, "source": source, "target": target, "tool": tool}
    for action in episode.domain.actions:
        if any(state.get(key.format(**names)) != value.format(**names) for key, value in action.before.items()):
            return False
        state.update({key.format(**names): value.format(**names) for key, value in action.after.items()})
    return True


def _briefed(
    told: Mapping[str, Sequence[Fact]],
    names: Mapping[str, Sequence[str]],
    together: int,
    changes: int,
    chatter: int,
    rng: random.Random,
) -> tuple[tuple[Tell, ...], dict[str, tuple[Fact, ...]]]:
    """The turns of a briefing, ``together`` facts each, with changes of facts told before; and what holds at its end."""
    turns = [
        Tell(role, tuple(facts[at : at + together])) for role, facts in told.items() for at in range(0, ITEMS, together)
    ]
    rng.shuffle(turns)
    now = {role: {one.subject: one for one in facts} for role, facts in told.items()}
    some = [(role, one) for role, facts in told.items() for one in facts]
    for role, old in rng.sample(some, changes):
        new = Fact(old.kind, old.subject, rng.choice([v for v in names[old.kind] if v != old.value]), rng.choice(_WHY))
        first = next(at for at, turn in enumerate(turns) if old in turn.facts)
        turns.insert(rng.randint(first + 1, len(turns)), Tell(role, (new,), changed=True))
        now[role][old.subject] = new
    for _ in range(chatter):
        turns.insert(rng.randint(0, len(turns)), Tell(rng.choice(list(told)), chatter=rng.choice(CHATTER)))
    return tuple(turns), {role: tuple(facts.values()) for role, facts in now.items()}
