"""Conflict items out of what a reader believes of a world (arXiv 2305.13300, §3.3–3.4): the answer and passages against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.bench.clashes.items import Item, Passage, Role
from holdfast.bench.clashes.probe import OWN, BeliefProbe, Elicited, counter_answer, substituted
from holdfast.bench.clashes.readers import Reader
from holdfast.bench.clashes.world import RELATIONS, World

IRRELEVANT = 3


@dataclass(frozen=True, slots=True)
class Contradicted:
    """The items, and of how many questions: how many were answered rightly, and how many beliefs were firm and supported."""

    items: tuple[Item, ...]
    asked: int
    right: int
    firm: int
    supported: int


def contradict(world: World, reader: Reader, count: int, seed: int) -> Contradicted:
    """Ask about ``count`` people, one fact each, drawn evenly from all ranks, and build an item on every belief that is kept.

    The counter passage is the reader's own, sentence by sentence in the same wording, for the counter answer; so it differs from
    the substituted one in nothing but that what goes with the answer is changed as well.
    """
    random = np.random.default_rng([seed, 2])
    people = random.permutation(len(world.names))[:count].tolist()
    relations = random.integers(RELATIONS, size=len(people)).tolist()
    questions = [world.question(world.names[n], relation) for n, relation in zip(people, relations, strict=True)]
    beliefs = BeliefProbe(reader, world.supports).elicit(questions)
    items = [
        _item(world, person, relation, belief, random)
        for person, relation, belief in zip(people, relations, beliefs, strict=True)
        if belief.kept
    ]
    truths = [world.values[r][int(world.facts[n, r])] for n, r in zip(people, relations, strict=True)]
    return Contradicted(
        tuple(items),
        asked=len(people),
        right=sum(one.answer == truth for one, truth in zip(beliefs, truths, strict=True)),
        firm=sum(one.firm for one in beliefs),
        supported=sum(one.supported for one in beliefs),
    )


def _item(world: World, person: int, relation: int, belief: Elicited, random: np.random.Generator) -> Item:
    name, values = world.names[person], world.values[relation]
    own = belief.answer or ""
    truth = values[int(world.facts[person, relation])]
    counter = counter_answer(own, [truth], values, belief.passage, random)
    mine, theirs = values.index(own), values.index(counter)
    passages = {
        Role.OWN: Passage(belief.passage, own, OWN),
        Role.OWN_EXTRA: Passage(world.drawn(name, relation, mine, random), own, "own, further"),
        Role.COUNTER: Passage(world.reworded(belief.passage, relation, theirs), counter, "counter"),
        Role.COUNTER_EXTRA: Passage(world.drawn(name, relation, theirs, random), counter, "counter, further"),
        Role.SUBSTITUTED: Passage(substituted(belief.passage, own, counter), counter, "counter"),
    }
    return Item(
        id=f"{name}, {relation}",
        question=belief.question,
        own=own,
        counter=counter,
        passages=passages,
        irrelevant=_irrelevant(world, person, relation, (mine, theirs), random),
        popularity=float(world.share[person]),
        right=own == truth,
    )


def _irrelevant(
    world: World, person: int, relation: int, taken: Sequence[int], random: np.random.Generator
) -> tuple[Passage, ...]:
    """Passages of the same relation about other people, who have other values than the two in question."""
    facts = world.facts[:, relation]
    free = np.flatnonzero(~np.isin(facts, list(taken)))
    chosen = random.choice(free[free != person], IRRELEVANT, replace=False).tolist()
    return tuple(
        Passage(
            world.drawn(world.names[n], relation, int(facts[n]), random),
            world.values[relation][int(facts[n])],
            f"about {world.names[n]}",
        )
        for n in chosen
    )
