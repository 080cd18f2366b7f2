"""Whose word the records beneath some hits are: the short way to say that all are one's own never says more than the vote would."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from holdfast.cube import Channel, Cube, Origin, Ref, Scope, new_id
from holdfast.guard.base import voter
from holdfast.guard.chains import target
from holdfast.guard.hearsay import alone
from holdfast.retrieve.hits import Hit

SCOPE = Scope("acme", "ana", "bot")


def word(author: str = "bot", trust: float = 0.8, **origin: object) -> Cube:
    """What an agent did."""
    return Cube(SCOPE, "a run", origin=replace(Origin(Channel.ASSISTANT, author, trust=trust), **origin))  # type: ignore[arg-type]


def made(*of: Cube | Ref, taint: tuple[str, ...] = (), id: str = "") -> Cube:
    """What was made of some records."""
    refs = tuple(one if isinstance(one, Ref) else one.ref for one in of)
    return Cube(SCOPE, "a lesson", id=id or new_id(), origin=Origin(Channel.DERIVED, derived_from=refs, taint=taint))


def is_alone(*cubes: Cube, among: tuple[Cube, ...] = ()) -> bool:
    return alone([Hit(cube, 1.0, 1.0) for cube in cubes], {cube.ref: cube for cube in among}, "bot")


def test_what_is_made_of_ones_own_at_any_remove_is_ones_own() -> None:
    first, second = word(), word()
    lesson = made(first, second)
    digest = made(lesson, first)
    assert is_alone(digest, lesson, second, among=(first, second, lesson))


@pytest.mark.parametrize(
    "other",
    [
        word("eve"),
        word(trust=0.4),
        word(taint=("web:https://evil.example",)),
        made(),
        made(Ref(new_id(), 1)),
    ],
    ids=["another", "of little trust", "from outside", "of nothing", "of what is gone"],
)
def test_one_other_beneath_them_and_they_are_not(other: Cube) -> None:
    mine = word()
    assert not is_alone(other, among=())
    assert not is_alone(mine, made(mine, other), among=(mine, other))


def test_what_is_made_of_itself_is_nobodys_own() -> None:
    mine, id, other = word(), new_id(), new_id()
    ring = made(mine, Ref(other, 1), id=id), made(mine, Ref(id, 1), id=other)
    assert not is_alone(ring[0], among=(mine, *ring))
    assert is_alone(mine, among=(mine,))


@pytest.mark.parametrize("seed", range(40))
def test_the_short_way_never_says_more_than_the_vote(seed: int) -> None:
    drawn = random.Random(seed)
    ids = [new_id() for _ in range(12)]
    cubes = []
    for at, id in enumerate(ids):
        if at < 5:
            author = "eve" if drawn.random() < 0.05 else "bot"
            cubes.append(replace(word(author), id=id))
            continue
        # Mostly of what was there before; now and then of what comes later, or is gone.
        of = [Ref(ids[drawn.randrange(at if drawn.random() < 0.9 else 12)], 1) for _ in range(drawn.randint(1, 3))]
        cubes.append(made(*of, id=id, taint=("web:x",) if drawn.random() < 0.03 else ()))
    known = {cube.ref: cube for cube in cubes}
    said = [voter(cube, known.get) for cube in cubes]
    own = all(one.authorises and one.source == target("assistant:bot") for one in said)
    assert own or not is_alone(*cubes, among=tuple(cubes))
