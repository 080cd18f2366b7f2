"""Concepts: typed abstractions with parameters, cues and notes, merged by name (ArcMemo, arXiv 2509.04439 the PS format).

A concept is a routine or a structure. A parameter may be a routine itself, so that concepts compose. What is learnt of one later on
is merged into it: its first description and typing stand, parameters are known by name and the newer one holds, cues, notes and
the runs that it was used in are gathered in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.store.rows import forgotten_with
from holdfast.taxonomy import Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.STRATEGIES,),
    subject=(Subject.AGENT,),
)

GRID = "grid manipulation"
INTERMEDIATE = "intermediate"
"""Subtypes of routines that have a place of their own; any other is the name of a type of functions."""


class Sort(StrEnum):
    """What a concept is: something in the data, or something that is done."""

    STRUCTURE = "structure"
    ROUTINE = "routine"


@dataclass(frozen=True, slots=True)
class Parameter:
    """What varies. ``typing`` is free text, and may define a type (``custom_types``)."""

    name: str
    typing: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Concept:
    """One abstraction. ``""`` is what nobody has said. Raises InputError.

    Fields
        subtype: of a routine alone.
        output: the typing of what it gives.
        cues: what about a problem says that it may be of use.
        implementation: notes on how it is done.
        used_in: the ids of the runs that it comes from, each once.
    """

    name: str
    sort: Sort = Sort.ROUTINE
    subtype: str = ""
    output: str = ""
    parameters: tuple[Parameter, ...] = ()
    description: str = ""
    cues: tuple[str, ...] = ()
    implementation: tuple[str, ...] = ()
    used_in: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [one.name for one in self.parameters]
        if not self.name or not all(names) or len(set(names)) < len(names):
            raise InputError("a concept has a name, and each of its parameters one of its own")

    def __hash__(self) -> int:
        """Of its name alone, which mostly tells it from others: what is worked out of a concept is looked up by it."""
        return hash(self.name)

    def merged(self, newer: Concept) -> Concept:
        """With what a newer one of the same name adds. Raises InputError for another name."""
        if newer.name != self.name:
            raise InputError(f"concepts are merged by name, and {newer.name!r} is not {self.name!r}")
        parameters = {one.name: one for one in (*self.parameters, *newer.parameters)}
        return replace(
            self,
            subtype=self.subtype or newer.subtype,
            output=self.output or newer.output,
            description=self.description or newer.description,
            parameters=tuple(parameters.values()),
            cues=_united(self.cues, newer.cues),
            implementation=_united(self.implementation, newer.implementation),
            used_in=_united(self.used_in, newer.used_in),
        )

    def beyond(self, older: Concept | None) -> Concept:
        """What this one says that an older one of its name does not; merged into that, it gives the same."""
        if older is None:
            return self
        known = {one.name: one for one in older.parameters}
        return replace(
            self,
            subtype="" if self.subtype == older.subtype else self.subtype,
            output="" if self.output == older.output else self.output,
            description="" if self.description == older.description else self.description,
            parameters=tuple(one for one in self.parameters if known.get(one.name) != one),
            cues=tuple(cue for cue in self.cues if cue not in older.cues),
            implementation=tuple(note for note in self.implementation if note not in older.implementation),
        )


def merged(concepts: Iterable[Concept]) -> dict[str, Concept]:
    """By name, each merged from those that bear it, in order."""
    found: dict[str, Concept] = {}
    for one in concepts:
        older = found.get(one.name)
        found[one.name] = one if older is None else _joined(older, one)
    return found


@lru_cache(maxsize=4_096)
def _joined(older: Concept, newer: Concept) -> Concept:
    """The same shares are merged for each task and each run."""
    return older.merged(newer)


forgotten_with(_joined.cache_clear)


_DEFINES = ":="
_DEFINED = re.compile(r"\b(?P<name>[A-Za-z_]\w*)\s*:=\s*(?P<definition>[^;\n]*[^;\n\s])")


def custom_types(concepts: Iterable[Concept]) -> dict[str, str]:
    """The types that typings define, as ``Name := definition`` up to a semicolon; the first definition of a name holds."""
    found: dict[str, str] = {}
    for concept in concepts:
        for typing in (concept.output, *(one.typing for one in concept.parameters)):
            if _DEFINES in typing:  # mostly it does not, and to look for a name that is defined takes long
                for one in _DEFINED.finditer(typing):
                    found.setdefault(one["name"], one["definition"])
    return found


def named_types(typing: str) -> str:
    """A typing with the names of the types that it defines in place of their definitions."""
    return _DEFINED.sub(lambda one: one["name"], typing) if _DEFINES in typing else typing


@dataclass(frozen=True, slots=True)
class Proposal:
    """Two concepts that may be one under two names: ``other`` would be called ``kept``, the one that was used more, or first."""

    kept: str
    other: str
    likeness: float


def synonyms(concepts: Sequence[Concept], alike: float = 0.6) -> list[Proposal]:
    """Pairs of one sort that may say the same, the most alike first. Only equal names merge by themselves, so names for one thing
    pile up: whether two are one is for somebody to say who reads both.

    Likeness is the mean of the shares of words that names, and what they say beside, have in common; in [0, 1].
    """
    words = [
        (_words(one.name), _words(" ".join([one.description, *one.cues, *(p.name for p in one.parameters)])))
        for one in concepts
    ]
    found = []
    for at, one in enumerate(concepts):
        for later in range(at + 1, len(concepts)):
            other = concepts[later]
            if one.sort is not other.sort or one.name == other.name:
                continue
            (name, said), (its_name, its) = words[at], words[later]
            likeness = 1.0 if name == its_name else (_share(name, its_name) + _share(said, its)) / 2
            if likeness >= alike:
                kept, left = (one, other) if len(one.used_in) >= len(other.used_in) else (other, one)
                found.append(Proposal(kept.name, left.name, round(likeness, 4)))
    return sorted(found, key=lambda one: -one.likeness)


def _united(first: Sequence[str], then: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *then)))


def _words(text: str) -> frozenset[str]:
    # Plural and singular are one word here, and a hyphen parts words.
    return frozenset(word.removesuffix("s") for word in re.findall(r"[^\W_]+", text.casefold()))


def _share(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 0.0
