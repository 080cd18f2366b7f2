"""A bank of memory skills: how to write memories, as texts that can be chosen, learnt and mended (MemSkill, arXiv 2602.02474 §3.1).

A skill says when it applies, what it does and which kind of edit it makes. A bank is a value: whatever changes it gives a new one,
so that the bank itself is the snapshot that a round which did worse goes back to. What is known of a skill's use stands by its
number, which it keeps when it is refined.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.taxonomy import Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(Form.TEXT, Subform.FLAT, (Function.SKILLS,), subject=(Subject.AGENT,))

CAPACITY = 30
LONGEST_NAME, LONGEST_DESCRIPTION, LONGEST_INSTRUCTION = 64, 600, 6_000

_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_FORMAT, _VERSION = "holdfast skills", 1


def _printable(text: str) -> bool:
    return all(one.isprintable() or one in "\n\t" for one in text)


class Edits(StrEnum):
    """The kind of edit that a skill makes, and that an answer asks for."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    NOOP = "noop"


@dataclass(frozen=True, slots=True)
class Skill:
    """One way to write memories. Raises InputError.

    Fields
        name: lower-case words joined by underscores; no two of a bank have the same.
        description: one line that says when it applies; by its meaning the skill is chosen.
        instruction: what the model that carries it out is told.
        edits: the one kind of edit that it makes.
        number: who it is in a bank, whatever its words become; 0 outside one.
    """

    name: str
    description: str
    instruction: str
    edits: Edits
    number: int = 0

    def __post_init__(self) -> None:
        if len(self.name) > LONGEST_NAME or not _NAME.fullmatch(self.name):
            raise InputError(f"a skill's name is lower-case words joined by underscores, not {self.name[:80]!r}")
        for what, text, longest in (
            ("description", self.description, LONGEST_DESCRIPTION),
            ("instruction", self.instruction, LONGEST_INSTRUCTION),
        ):
            if not text or text != text.strip() or len(text) > longest or not _printable(text):
                raise InputError(
                    f"the {what} of skill {self.name} is printable text of 1 to {longest} characters, without blanks around it"
                )
        if "\n" in self.description:
            raise InputError(f"the description of skill {self.name} is one line")
        if not isinstance(self.edits, Edits) or type(self.number) is not int or self.number < 0:
            raise InputError(f"skill {self.name} makes one of {', '.join(Edits)}, and its number counts from 1")


@dataclass(frozen=True, slots=True)
class Stats:
    """What came of using a skill: how often, and the mean reward."""

    uses: int = 0
    mean: float = 0.0

    def after(self, reward: float) -> Stats:
        """As it is after one more use."""
        return Stats(
            self.uses + 1,
            self.mean + (reward - self.mean) / (self.uses + 1),
        )


@dataclass(frozen=True, slots=True)
class SkillBank:
    """Skills in the order in which they came, and what is known of their use. Raises InputError.

    ``made``: the last number that was given; one that was given is never given again.
    """

    skills: tuple[Skill, ...] = ()
    stats: Mapping[int, Stats] = field(default_factory=dict)
    capacity: int = CAPACITY
    made: int = 0

    def __post_init__(self) -> None:
        numbers = [skill.number for skill in self.skills]
        if not all(0 < number <= self.made for number in numbers) or len(set(numbers)) < len(numbers):
            raise InputError("the skills of a bank have different numbers, which the bank has given: add them by add")
        if len({skill.name for skill in self.skills}) < len(self.skills):
            raise InputError("no two skills of a bank have the same name")
        if len(self.skills) > self.capacity:
            raise InputError(f"a bank holds at most {self.capacity} skills, not {len(self.skills)}")

    @classmethod
    def of(cls, skills: Sequence[Skill], capacity: int = CAPACITY) -> SkillBank:
        """A bank of some skills, numbered anew."""
        numbered = tuple(replace(skill, number=at) for at, skill in enumerate(skills, 1))
        return cls(numbered, {}, capacity, len(numbered))

    def named(self, name: str) -> Skill:
        """Raises InputError where there is none of that name."""
        for skill in self.skills:
            if skill.name == name:
                return skill
        raise InputError(f"there is no skill {name!r}; there are {', '.join(skill.name for skill in self.skills)}")

    def used(self, numbers: Sequence[int], reward: float) -> SkillBank:
        """With a reward noted for each of some skills; those that are gone are passed over."""
        here = {skill.number for skill in self.skills}
        stats = dict(self.stats)
        for number in numbers:
            if number in here:
                stats[number] = stats.get(number, Stats()).after(reward)
        return replace(self, stats=stats)

    def add(self, skill: Skill) -> SkillBank:
        """With one more. A full bank lets go of the skill that was used and has the lowest mean reward.

        Raises InputError where the name is taken, or the bank is full of skills that nobody has used.
        """
        bank = self
        if len(self.skills) >= self.capacity:
            tried = [one for one in self.skills if self.stats.get(one.number, Stats()).uses]
            if not tried:
                raise InputError("the bank is full, and nobody knows yet which of its skills serves least")
            bank = self.retire(min(tried, key=lambda one: self.stats[one.number].mean).name)
        if any(one.name == skill.name for one in bank.skills):
            raise InputError(f"there is a skill {skill.name!r} already; refine it")
        new = replace(skill, number=self.made + 1)
        return replace(bank, skills=(*bank.skills, new), made=new.number)

    def refine(self, name: str, *, description: str | None = None, instruction: str | None = None) -> SkillBank:
        """With other words for one skill, which stays who it is. Raises InputError."""
        old = self.named(name)
        new = replace(old, description=description or old.description, instruction=instruction or old.instruction)
        return replace(self, skills=tuple(new if one is old else one for one in self.skills))

    def retire(self, name: str) -> SkillBank:
        """Without one skill, and what was known of it. Raises InputError."""
        old = self.named(name)
        stats = {number: one for number, one in self.stats.items() if number != old.number}
        return replace(self, skills=tuple(one for one in self.skills if one is not old), stats=stats)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``from_dict`` reads it back to an equal bank."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "capacity": self.capacity,
            "made": self.made,
            "skills": [
                {
                    "name": skill.name,
                    "description": skill.description,
                    "instruction": skill.instruction,
                    "edits": str(skill.edits),
                    "number": skill.number,
                }
                for skill in self.skills
            ],
            "stats": {str(number): {"uses": one.uses, "mean": one.mean} for number, one in sorted(self.stats.items())},
        }

    @classmethod
    def from_dict(cls, record: Any) -> SkillBank:
        """The inverse of ``to_dict``. Raises InputError for anything else."""
        if not isinstance(record, Mapping) or record.get("format") != _FORMAT:
            raise InputError("this is no bank of skills")
        if record.get("version") != _VERSION:
            raise InputError(
                f"this bank of skills is of version {record.get('version')!r}; this Holdfast reads {_VERSION}"
            )
        try:
            skills = tuple(
                Skill(
                    _text(one["name"]),
                    _text(one["description"]),
                    _text(one["instruction"]),
                    Edits(one["edits"]),
                    _count(one["number"]),
                )
                for one in record["skills"]
            )
            stats = {
                int(number): Stats(_count(one["uses"]), _real(one["mean"])) for number, one in record["stats"].items()
            }
            return cls(skills, stats, _count(record["capacity"]), _count(record["made"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"this is no bank of skills: {type(error).__name__}: {error}") from error


SEEDS = (
    Skill(
        "insert",
        "New and lasting facts, plans or events in the text that memory does not hold yet.",
        "## Purpose\nKeep what is new in the text and will matter later.\n\n"
        "## When to use\n- The text states a fact, a plan or an event that no shown memory holds.\n\n"
        "## How to apply\n- Write one short, complete sentence for each, with names in place of pronouns and dates where the text "
        "has them.\n\n"
        "## Constraints\n- Leave out small talk, and whatever a shown memory says already.\n- Change no memory that is there.",
        Edits.INSERT,
    ),
    Skill(
        "update",
        "Corrections, changes and further details of something that memory holds already.",
        "## Purpose\nBring a shown memory up to date with what the text says of the same matter.\n\n"
        "## When to use\n- The text corrects a shown memory, changes it, or adds a detail to it.\n\n"
        "## How to apply\n- Name the memory by its index, and write it anew as a whole: what still holds, and what is new.\n\n"
        "## Constraints\n- Make no new memory, and delete none.",
        Edits.UPDATE,
    ),
    Skill(
        "delete",
        "Statements that something in memory is wrong, over, cancelled or withdrawn.",
        "## Purpose\nTake out a shown memory that the text says is not so, or no longer.\n\n"
        "## When to use\n- The text plainly contradicts a shown memory, or calls off what it says.\n\n"
        "## How to apply\n- Name the memory by its index.\n\n"
        "## Constraints\n- In doubt, leave it.",
        Edits.DELETE,
    ),
    Skill(
        "noop",
        "Small talk, greetings and whatever else leaves nothing to remember.",
        "## Purpose\nLeave memory as it is.\n\n"
        "## When to use\n- None of the other skills finds anything to do in the text.\n\n"
        "## Constraints\n- Only where no other edit is made.",
        Edits.NOOP,
    ),
)
"""The four that a bank begins with."""


def seeds(capacity: int = CAPACITY) -> SkillBank:
    """A bank of the four."""
    return SkillBank.of(SEEDS, capacity)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is no count")
    return value


def _real(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is no finite number")
    return float(value)
