"""A world of dialogues for claim 18: facts of twelve families among small talk, what a span says by rule, and a reader.

A question is answered from the first of the memories found for it that fills its slot, right or wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from holdfast.claims.skill_families import FAMILIES, NAMES, Family
from holdfast.train.skill_episodes import Episode, Question

SPANS, ASKED = 10, 20
SECOND = 0.4
"""The chance of a second fact of a family in the same span."""

TOPICS = "the weather|the match|traffic|a new film|the news|lunch|gardening|the holidays|a podcast|the market|sleep|the bus".split(
    "|"
)
_CHATTER = (
    "Honestly, {topic} again, what can one say.",
    "Haha, do not get me started on {topic}.",
    "By the way, {topic} was fun to hear about.",
    "Well, enough of {topic} for one day, right?",
    "I could talk about {topic} for hours.",
    "Sure, {topic}, why not.",
)


@dataclass(slots=True)
class Fact:
    """One fact. ``slot``: the family whose slot it fills, which for an update is another's."""

    family: str
    slot: str
    who: str
    what: str
    value: str
    span: int
    current: bool = True


def dialogues(count: int, seed: int, first: int = 0) -> list[Episode]:
    """So many dialogues, numbered from ``first``: with ``seed`` the same ones every time."""
    return [
        _dialogue(np.random.default_rng([seed, number]), f"dialogue-{number}") for number in range(first, first + count)
    ]


def _dialogue(random: np.random.Generator, id: str) -> Episode:
    """Five people; drawn anew until there is enough to ask."""
    while True:
        people = [NAMES[at] for at in random.permutation(len(NAMES))[:5].tolist()]
        facts: list[Fact] = []
        spans = []
        for at in range(SPANS):
            new: list[Fact] = []
            for number in random.permutation(len(FAMILIES)).tolist():
                if len({fact.family for fact in new}) == 1 + at % 3:  # one, two and three families in turn
                    break
                for _ in range(1 + int(random.random() < SECOND)):
                    new += _fact(list(FAMILIES.values())[number], people, [*facts, *new], at, random)
            facts += new
            spans.append(_span(new, people, random))
        asked = [fact for fact in facts if fact.current]
        if len(asked) >= ASKED:
            chosen = sorted(random.permutation(len(asked))[:ASKED].tolist())
            return Episode(id, tuple(spans), tuple(_question(asked[one]) for one in chosen))


def _fact(
    family: Family, people: Sequence[str], facts: Sequence[Fact], span: int, random: np.random.Generator
) -> list[Fact]:
    """A new fact, where there is room for one: an empty slot, or an older fact to change."""
    if family.of:
        # What changes was said in an earlier span.
        open_ = [fact for fact in facts if fact.current and fact.family in family.of and fact.span < span]
        if not open_:
            return []
        old = open_[int(random.integers(len(open_)))]
        values = family.values or FAMILIES[old.slot].values
        value = [one for one in values if one != old.value][int(random.integers(len(values) - (old.value in values)))]
        old.current = False
        return [Fact(family.name, old.slot if not family.memory else family.name, old.who, old.what, value, span)]
    held = {(fact.slot, fact.who, fact.what) for fact in facts}
    free = [(who, what) for who in people for what in family.whats if (family.name, who, what) not in held]
    if not free:
        return []
    who, what = free[int(random.integers(len(free)))]
    return [Fact(family.name, family.name, who, what, family.values[int(random.integers(len(family.values)))], span)]


def _span(facts: Sequence[Fact], people: Sequence[str], random: np.random.Generator) -> str:
    """Six to eight turns of two people: the facts, and small talk between them."""
    lines = []
    for fact in facts:
        said = FAMILIES[fact.family].said
        lines.append(_filled(said[int(random.integers(len(said)))], fact))
    while len(lines) < 6 + int(random.integers(3)) or len(lines) == len(facts):
        topic = TOPICS[int(random.integers(len(TOPICS)))]
        lines.append(_CHATTER[int(random.integers(len(_CHATTER)))].format(topic=topic))
    order = random.permutation(len(lines)).tolist()
    return "\n".join(f"{people[number % 2]}: {lines[at]}" for number, at in enumerate(order))


def _question(fact: Fact) -> Question:
    return Question(_filled(FAMILIES[fact.slot].question, fact), fact.value, (fact.span,))


def _filled(template: str, fact: Fact) -> str:
    return template.format(who=fact.who, what=fact.what, value=fact.value)


# --- the reader ---


@lru_cache(maxsize=100_000)
def slot_of(question: str) -> tuple[str, str, str] | None:
    """The family, person and thing that a question is about."""
    for family in FAMILIES.values():
        if family.question and (found := family.read_question.match(question)):
            return family.name, found["who"], found["what"]
    return None


@lru_cache(maxsize=100_000)
def filled(memory: str) -> tuple[tuple[str, str, str], str] | None:
    """The slot that a memory fills, and with what."""
    for family in FAMILIES.values():
        if family.memory and (found := family.read_memory.match(memory.removesuffix(".") + ".")):
            return (family.name, found["who"], found["what"]), found.groupdict().get("value", "")
    return None


def read(question: Question, memories: Sequence[str]) -> tuple[float, str]:
    """The answer of the first memory that fills the question's slot."""
    slot = slot_of(question.text)
    for memory in memories:
        held = filled(memory)
        if held is not None and held[0] == slot:
            return float(held[1] == question.answer), held[1]
    return 0.0, "not known"


@lru_cache(maxsize=20_000)
def heard(text: str) -> tuple[tuple[Family, tuple[str, str, str], str], ...]:
    """What a span says: by line, the family, the slot of the memory that it changes, or fills, and the memory."""
    found = []
    for line in text.splitlines():
        words = line.partition(": ")[2]
        for family in FAMILIES.values():
            match = next((m for pattern in family.heard if (m := pattern.match(words))), None)
            if match is None:
                continue
            who, what, value = match["who"], match["what"], match.groupdict().get("value", "cancelled")
            if family.name == "updates":
                base = next(FAMILIES[one] for one in family.of if what in FAMILIES[one].whats)
                found.append((family, (base.name, who, what), base.memory.format(who=who, what=what, value=value)))
            else:
                slot = family.of[0] if family.of else family.name
                found.append((family, (slot, who, what), family.memory.format(who=who, what=what, value=value)))
            break
    return tuple(found)
