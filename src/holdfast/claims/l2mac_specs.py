"""Programs asked for in claim 8: features with dependencies, each with an example in its requirement and checks kept hidden."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

_FIRST = (
    "amber brisk calm dusky eager faint grand hollow inner jolly keen lunar misty noble outer plain quiet rapid sharp tidy "
    "upper vivid warm young"
).split()
_SECOND = (
    "anchor basket candle dragon engine falcon garden hammer island jacket kettle ladder marble needle orchard pillar quarry "
    "ribbon saddle tunnel urchin valley walnut zephyr"
).split()

_HIDDEN = (-3, 0, 5, 11)
_EXAMPLE = 2


@dataclass(frozen=True, slots=True)
class Part:
    """``times`` the feature ``number`` at x + ``shift``."""

    times: int
    number: int
    shift: int


@dataclass(frozen=True, slots=True)
class Feature:
    """What one requirement asks for. ``call`` is how it is used at x: its signature."""

    number: int
    call: str
    parts: tuple[Part, ...]
    slope: int
    constant: int
    example: int

    @property
    def id(self) -> str:
        """As the requirements name it: ``F07``."""
        return f"F{self.number:02d}"

    @property
    def name(self) -> str:
        """What has to be defined."""
        return name_of(self.call)

    @property
    def requirement(self) -> str:
        """The one line of the task that asks for it."""
        kind = {"(x)": "a function", "(x).value()": "a data class with a field x and a method"}.get(
            self.call[len(self.name) :], "a registry, a dict with the keys 0 to 3"
        )
        terms = [f"{part.times} times F{part.number:02d} at {_shifted('x', part.shift)}" for part in self.parts]
        terms += [f"{self.slope} times x", str(self.constant)]
        return (
            f"{self.id} `{self.call}`: {kind}. It gives {', plus '.join(terms)}. Whole numbers go in and come out, negative ones "
            f"too; nothing is kept from one call to the next. Example: at x = {_EXAMPLE} it gives {self.example}."
        )


REQUIREMENT = re.compile(
    r"^F(\d+) `([^`]+)`: [^.]+\. It gives (.+?)\. Whole numbers .+? Example: at x = 2 it gives (-?\d+)\.$", re.MULTILINE
)
_TERM = re.compile(r"(-?\d+) times F(\d+) at x(?: ([+-]) (\d+))?")
SIGNATURE = re.compile(r"F(\d+) `?(\w+(?:\(x\)\.value\(\)|\(x\)|\[x % 4\]))")


def read_requirements(text: str) -> dict[int, Feature]:
    """The features whose whole requirement stands in a text."""
    found = {}
    for number, call, terms, example in REQUIREMENT.findall(text):
        *parts, slope, constant = terms.split(", plus ")
        read = [_TERM.fullmatch(part) for part in parts]
        if not all(read) or not slope.endswith(" times x"):
            continue
        made = tuple(Part(int(m[1]), int(m[2]), int(f"{m[3] or ''}{m[4] or 0}")) for m in read if m)
        found[int(number)] = Feature(int(number), call, made, int(slope.split()[0]), int(constant), int(example))
    return found


def specification(features: int, seed: int) -> list[Feature]:
    """Features in order; after the first quarter each depends on one or two before it."""
    rng = random.Random(f"{features} {seed}")
    names = rng.sample([f"{first}_{second}" for first in _FIRST for second in _SECOND], features)
    made: list[Feature] = []
    for number in range(1, features + 1):
        before = rng.sample(range(1, number), min(rng.randint(1, 2), number - 1)) if number > features // 4 else []
        parts = tuple(Part(rng.choice((-2, -1, 1, 2, 3)), other, rng.randint(-2, 2)) for other in sorted(before))
        call = _call(names[number - 1], rng.choice(("function", "class", "registry", "function")))
        feature = Feature(number, call, parts, rng.randint(2, 9), rng.randint(1, 99), 0)
        example = value([*made, feature], number, _EXAMPLE)
        made.append(Feature(number, call, parts, feature.slope, feature.constant, example))
    return made


def value(features: Sequence[Feature], number: int, x: int) -> int:
    """What a feature gives at x, by definition."""
    one = features[number - 1]
    if one.call.endswith("]"):
        x %= 4
    terms = (part.times * value(features, part.number, x + part.shift) for part in one.parts)
    return sum(terms) + one.slope * x + one.constant


def task(features: Sequence[Feature]) -> str:
    """The whole task, a line a feature."""
    return "\n".join(one.requirement for one in features)


def name_of(call: str) -> str:
    """``QuietLedger`` of ``QuietLedger(x).value()``."""
    found = re.match(r"\w+", call)
    assert found is not None
    return found[0]


def module_of(name: str) -> str:
    """The module that defines a name, and nothing else: ``quiet_ledger``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def used(call: str, argument: str) -> str:
    """A signature at another argument than x."""
    return call.replace("(x)", f"({argument})").replace("[x % 4]", f"[({argument}) % 4]")


def expression(feature: Feature, calls: dict[int, str]) -> str:
    """What a feature computes from x, in Python, given the signatures of what it depends on."""
    terms = [f"{part.times} * {used(calls[part.number], _shifted('x', part.shift))}" for part in feature.parts]
    return " + ".join([*terms, f"{feature.slope} * x", str(feature.constant)])


def hidden_checks(features: Sequence[Feature]) -> tuple[str, list[str]]:
    """A file with one check a feature, and their names in order; no arm sees it."""
    lines, names = [], []
    for one in features:
        names.append(f"check_{one.number}")
        lines += [f"def check_{one.number}():", f"    from {module_of(one.name)} import {one.name}"]
        for x in _HIDDEN:
            lines.append(f"    assert {used(one.call, str(x))} == {value(features, one.number, x)}")
    return "\n".join(lines) + "\n", names


def _call(words: str, kind: str) -> str:
    if kind == "class":
        return "".join(word.title() for word in words.split("_")) + "(x).value()"
    return f"{words}(x)" if kind == "function" else f"{words}[x % 4]"


def _shifted(x: str, shift: int) -> str:
    return x if not shift else f"{x} {'+' if shift > 0 else '-'} {abs(shift)}"
