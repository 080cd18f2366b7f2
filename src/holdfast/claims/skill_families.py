"""The twelve kinds of facts of claim 18: how each is said, remembered and asked for, and the skill that keeps it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from holdfast.encode.skills import Edits, Skill

NAMES = "Alba Bruno Clara Dario Elif Farid Greta Hugo Ilse Jonas Kaja Luca".split()


@dataclass(frozen=True)
class Family:
    """One kind of fact: how it is said, remembered and asked for, and the skill that keeps it.

    Templates have ``who``, ``what`` and ``value``; ``of``: for facts that change an older one, the families that they change.
    """

    name: str
    whats: tuple[str, ...]
    values: tuple[str, ...]
    said: tuple[str, ...]
    memory: str
    question: str
    about: str
    of: tuple[str, ...] = ()

    @property
    def skill(self) -> Skill:
        """The skill that keeps facts of this family."""
        how = (
            "Bring the memory that it changes up to date."
            if self.of
            else "Write one sentence for each, with its names."
        )
        instruction = f"## Purpose\nKeep {self.about}\n\n## How to apply\n- {how}\n\n## Constraints\n- Nothing else."
        description = self.about[0].upper() + self.about[1:]
        return Skill(f"keep_{self.name}", description, instruction, Edits.UPDATE if self.of else Edits.INSERT)

    @cached_property
    def read_memory(self) -> re.Pattern[str]:
        """What a memory of this family says."""
        return _pattern(self.memory, self.changed)

    @cached_property
    def read_question(self) -> re.Pattern[str]:
        """What a question of this family asks."""
        return _pattern(self.question, self.changed)

    @cached_property
    def heard(self) -> tuple[re.Pattern[str], ...]:
        """What a line of talk says of this family."""
        return tuple(_pattern(one, self.changed) for one in self.said)

    @cached_property
    def changed(self) -> tuple[str, ...]:
        """What its facts are about: its own things, or those of the families that it changes."""
        return self.whats or tuple(what for one in self.of for what in FAMILIES[one].whats)


def _pattern(template: str, whats: Sequence[str]) -> re.Pattern[str]:
    forms = {"who": "|".join(NAMES), "what": "|".join(map(re.escape, whats)), "value": r"[^.?!]+?"}
    parts = re.split(r"\{(\w+)\}", template)
    said = (f"(?P<{one}>{forms[one]})" if at % 2 else re.escape(one) for at, one in enumerate(parts))
    return re.compile("".join(said) + r"\Z")


TOWNS = "Porto Bergen Lyon Ghent Graz Turin Bath Kiel Split Vigo Malmo Cork".split()
DAYS = tuple(
    f"{day} {month}"
    for day, month in zip(
        (2, 5, 9, 11, 14, 17, 19, 21, 23, 25, 27, 30),
        (
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ),
        strict=True,
    )
)
NUMBERS = tuple("two three four five six seven eight nine ten eleven twelve thirteen".split())
SPOTS = tuple(
    "in the hall cupboard|under the stairs|on the top shelf|behind the door|in the blue box|beside the stove|in the garage|"
    "under the bed|in the desk drawer|on the window sill|in the cellar|behind the piano".split("|")
)

FAMILIES: Mapping[str, Family] = {
    one.name: one
    for one in (
        Family(
            "dates",
            ("birthday", "driving test", "anniversary", "job interview"),
            DAYS,
            (
                "Mark it down, {who} has the {what} on {value}.",
                "So the {what} of {who} falls on {value}.",
                "It was {value} for {who} and the {what}, I checked.",
            ),
            "The {what} of {who} is on {value}.",
            "On which day is the {what} of {who}?",
            "dates of birthdays, tests, interviews and other days in the calendar.",
        ),
        Family(
            "places",
            ("home", "office", "workshop", "school"),
            tuple(TOWNS),
            (
                "You will find the {what} of {who} in {value}.",
                "{who} has the {what} over in {value}.",
                "I went to {value} to see the {what} of {who}.",
            ),
            "The {what} of {who} is in {value}.",
            "In which town is the {what} of {who}?",
            "towns and places where people live, work or go to school.",
        ),
        Family(
            "preferences",
            ("drink", "colour", "season", "kind of music"),
            tuple("espresso|mint tea|cider|amber|violet|teal|autumn|winter|spring|tango|opera|jazz".split("|")),
            (
                "Of all things {who} loves {value} best as a {what}.",
                "For {who} no {what} beats {value}.",
                "Give {who} {value}, that is the {what} to pick.",
            ),
            "The favourite {what} of {who} is {value}.",
            "What is the favourite {what} of {who}?",
            "tastes and preferences: what somebody likes best.",
        ),
        Family(
            "updates",
            (),
            (),
            (
                "No, that has changed: the {what} of {who} is now {value}.",
                "Scratch the old answer, for the {what} of {who} it is {value} these days.",
                "What you knew of the {what} of {who} is out of date, make it {value}.",
            ),
            "",
            "",
            "corrections of something known that has changed and is no longer so.",
            ("places", "quantities", "objects"),
        ),
        Family(
            "quantities",
            ("hens", "bicycles", "cousins", "old radios"),
            NUMBERS,
            (
                "{who} counts {value} {what} by now.",
                "There are {value} {what} at the house of {who}.",
                "Believe it or not, {value} {what} belong to {who}.",
            ),
            "The number of {what} of {who} is {value}.",
            "What is the number of {what} of {who}?",
            "quantities: how many of a thing somebody has.",
        ),
        Family(
            "relations",
            ("sister", "neighbour", "boss", "dentist"),
            tuple("Mirko Nadia Oskar Petra Quentin Rosa Sven Tilda Ursula Viktor Wanda Xaver".split()),
            (
                "Have you met {value}, the {what} of {who}?",
                "{who} introduced me to {value}, the {what}.",
                "{value} turns out to be the {what} of {who}.",
            ),
            "The {what} of {who} is called {value}.",
            "What is the name of the {what} of {who}?",
            "relatives, neighbours and colleagues: how people are related to each other.",
        ),
        Family(
            "plans",
            ("sailing trip", "dinner party", "garage sale", "film night"),
            tuple("Anton Birgit Carlo Doris Emil Frida Gustav Hanna Igor Julia Konrad Lena".split()),
            (
                "{who} is setting up a {what} together with {value}.",
                "Soon {who} will have the {what}, and {value} joins in.",
                "A {what} is what {who} intends to do with {value}.",
            ),
            "The plan of {who} is a {what} with {value}.",
            "With whom does {who} plan the {what}?",
            "plans and intentions: what somebody is going to do, and with whom.",
        ),
        Family(
            "cancellations",
            (),
            ("cancelled",),
            (
                "Nothing will come of the {what} of {who}, it was called off.",
                "{who} had to drop the {what}.",
                "They scrapped the {what} of {who} altogether.",
            ),
            "The plan of {who} for a {what} is {value}.",
            "What became of the plan of {who} for a {what}?",
            "plans that were cancelled or called off.",
            ("plans",),
        ),
        Family(
            "objects",
            ("spare key", "toolbox", "passport", "umbrella"),
            SPOTS,
            (
                "{who} put the {what} {value}.",
                "Look {value} if you need the {what} of {who}.",
                "The {what} that {who} was after lies {value}.",
            ),
            "The {what} of {who} is kept {value}.",
            "Where is the {what} of {who} kept?",
            "household objects and the spot in the house where they are kept.",
        ),
        Family(
            "constraints",
            ("touch", "buy", "use", "mention"),
            tuple(
                "peanuts|shellfish|rye bread|heavy bags|glass|ladders|the lift|a phone|bleach|the attic|the mill|bars".split(
                    "|"
                )
            ),
            (
                "Whatever happens, {who} must never {what} {value}.",
                "The doctor forbids {who} to {what} {value}.",
                "{who} is not allowed to {what} {value}.",
            ),
            "It is forbidden that {who} should {what} {value}.",
            "What is {who} forbidden to {what}?",
            "rules, allergies and prohibitions: what somebody must not do.",
        ),
        Family(
            "quotes",
            ("dinner", "station", "market", "wedding"),
            tuple(
                "time will tell|never again|fortune favours us|less is more|let it rain|who knows|all is well|so be it|"
                "better late|onward then|easy does it|wait and see".split("|")
            ),
            (
                "At the {what} {who} said, word for word, {value}.",
                "I still hear {who} at the {what} calling out {value}.",
                "{value} were the very words of {who} at the {what}.",
            ),
            "At the {what} the words of {who} were {value}.",
            "What did {who} say at the {what}?",
            "the exact words that somebody said, as a quotation.",
        ),
        Family(
            "causes",
            ("late train", "broken window", "missed call", "flooded kitchen"),
            tuple(
                "a storm|a fallen tree|a dead battery|a loose pipe|a strike|ice|a stray cat|a short circuit|fog|a burst tyre|"
                "a lost ticket|old wiring".split("|")
            ),
            (
                "The {what} of {who} happened because of {value}.",
                "It was {value} that led to the {what} of {who}.",
                "{who} blames {value} for the {what}.",
            ),
            "The reason of the {what} of {who} was {value}.",
            "What was the reason of the {what} of {who}?",
            "causes and reasons: why something happened.",
        ),
    )
}
ABSENT = ("objects", "constraints", "quotes", "causes")
"""Families that no skill of the first bank keeps."""
