"""Conflict items and the modes in which they are put to a reader (Adaptive Chameleon or Stubborn Sloth, arXiv 2305.13300, §2–4).

An item is a question, what the reader itself believes, an answer against it, and passages on both sides. A mode says which of
the passages are shown and in which order. Whatever is drawn (the order of passages where a mode does not fix it, the order of
the options) is drawn per item from its id, the mode and the seed, so leaving items out changes nothing for the others.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from holdfast.errors import InputError


class Role(StrEnum):
    """What a passage is to the reader's own belief."""

    OWN = "own"
    """What the reader wrote itself in support of its belief."""
    OWN_EXTRA = "own, further"
    COUNTER = "counter"
    """A coherent passage for the answer against it."""
    COUNTER_EXTRA = "counter, further"
    SUBSTITUTED = "substituted"
    """The reader's own passage with nothing changed but the answer."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage, the answer that it gives (``claim``), whom it is from, and how far that one is trusted."""

    text: str
    claim: str
    origin: str
    trust: float = 1.0


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a reader is asked: with no passages from its own knowledge alone, with no options in its own words.

    ``knowledge``: it is told to go by what it knows as well as by the passages. "Uncertain" is never among ``options``; a
    reader may always say it.
    """

    question: str
    passages: tuple[Passage, ...] = ()
    options: tuple[str, ...] = ()
    knowledge: bool = True


@dataclass(frozen=True, slots=True)
class Item:
    """A question on which a reader's belief meets evidence against it.

    ``irrelevant``: passages about something else, each with the answer it would give if it were mistaken for evidence;
    ``popularity``: how often the subject is met with, in any unit that orders; ``right``: whether the belief is the truth.
    """

    id: str
    question: str
    own: str
    counter: str
    passages: Mapping[Role, Passage]
    irrelevant: tuple[Passage, ...] = ()
    popularity: float = 0.0
    right: bool = True


@dataclass(frozen=True, slots=True)
class Mode:
    """Which passages are shown, in this order unless ``shuffled``, with so many ``irrelevant`` ones after them.

    Like the paper, a reader is told to use its knowledge too where the evidence has one side or none, and not where it has two.
    """

    name: str
    roles: tuple[Role, ...]
    knowledge: bool = False
    shuffled: bool = True
    irrelevant: int = 0


SINGLE, SUBSTITUTED = "counter alone", "substituted alone"
OWN_FIRST, COUNTER_FIRST = "1:1, own first", "1:1, counter first"

MODES: tuple[Mode, ...] = (
    Mode("own alone", (Role.OWN,), knowledge=True),
    Mode(SINGLE, (Role.COUNTER,), knowledge=True),
    Mode(SUBSTITUTED, (Role.SUBSTITUTED,), knowledge=True),
    Mode(OWN_FIRST, (Role.OWN, Role.COUNTER), shuffled=False),
    Mode(COUNTER_FIRST, (Role.COUNTER, Role.OWN), shuffled=False),
    Mode("2:1", (Role.OWN, Role.OWN_EXTRA, Role.COUNTER)),
    Mode("1:2", (Role.OWN, Role.COUNTER, Role.COUNTER_EXTRA)),
    Mode("2:2", (Role.OWN, Role.OWN_EXTRA, Role.COUNTER, Role.COUNTER_EXTRA)),
    *(Mode(f"{n} irrelevant", (), knowledge=True, irrelevant=n) for n in (1, 2, 3)),
    *(Mode(f"1:1 and {n} irrelevant", (Role.OWN, Role.COUNTER), irrelevant=n) for n in (1, 2, 3)),
)
"""The modes of the paper that are rebuilt here. Own passages come first in the ratios: 2:1 is two for the belief, one against."""


def shown(item: Item, mode: Mode, seed: int) -> Prompt:
    """The item as the mode puts it. Raises InputError where the item lacks a passage that the mode shows."""
    missing = [role.value for role in mode.roles if role not in item.passages]
    if missing or len(item.irrelevant) < mode.irrelevant:
        lacks = ", ".join(missing) or f"{mode.irrelevant} irrelevant"
        raise InputError(f"item {item.id} lacks passages that the mode {mode.name!r} shows: {lacks}")
    random = np.random.default_rng([seed, zlib.crc32(f"{mode.name}\0{item.id}".encode())])
    some = [*(item.passages[role] for role in mode.roles), *item.irrelevant[: mode.irrelevant]]
    if mode.shuffled:
        some = [some[n] for n in random.permutation(len(some))]
    against = [item.counter] if mode.roles else []
    options = list(dict.fromkeys([item.own, *against, *(one.claim for one in item.irrelevant[: mode.irrelevant])]))
    return Prompt(
        item.question,
        tuple(some),
        tuple(options[n] for n in random.permutation(len(options))),
        mode.knowledge,
    )
