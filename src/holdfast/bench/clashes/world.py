"""A world to believe things about: people with four facts each, known as often as Zipf's law has it, and passages about them.

Claim 24's proof (arXiv 2305.13300) trains a model on nothing but this world, so what the model can know is known. A passage
about a person and a relation has one sentence that gives the value and three that give what goes with that value (a birthplace
has a river, a dialect and a feast of its own), so a passage can agree with itself or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from holdfast.errors import InputError

Ints = npt.NDArray[np.int64]

# Every sentence is a name, one of these phrases and a value or what goes with it; two wordings an aspect, the value's own first.
_RELATIONS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "What was the birthplace of",
        (
            ("was born in", "first saw the light in"),
            ("learnt to swim in the", "fished as a child in the"),
            ("spoke at home the dialect of", "never lost the accent of"),
            ("danced as a child at the feast of", "went back every year for the feast of"),
        ),
    ),
    (
        "What was the trade of",
        (
            ("earned a living as a", "was known all over town as a"),
            ("paid dues to the guild of", "was sworn into the guild of"),
            ("carried to work a", "kept under the bed a"),
            ("was taught by old", "had as a master"),
        ),
    ),
    (
        "What was the instrument of",
        (
            ("gave concerts on the", "practised all night on the"),
            ("bought strings from", "ordered cases from"),
            ("studied at the school of", "took lessons in the house of"),
            ("let nobody tune it but", "sent it for repair to"),
        ),
    ),
    (
        "What was the sport of",
        (
            ("won prizes in", "spent all Sundays at"),
            ("joined the league of", "paid the fees of the league of"),
            ("trained on the ground of", "had a locker at the ground of"),
            ("wore the colours of", "owned a shirt of"),
        ),
    ),
)
RELATIONS = len(_RELATIONS)
ASPECTS = len(_RELATIONS[0][1])
WORDINGS = 2

_ONSETS, _VOWELS, _CODAS = (
    "b d f g k l m n p r s t v z br dr gl kr pl st tr".split(),
    "a e i o u".split(),
    " l n r s".split(" "),
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence: whom it is about, of which relation and aspect (0: the value itself), in which wording, and what it names."""

    name: str
    relation: int
    aspect: int
    wording: int
    thing: str


@dataclass(frozen=True)
class World:
    """People with facts (``names``, most popular first) and ``strangers`` without; ``facts``: (people, relations) of values.

    ``values``: by relation; ``things``: by relation, value and aspect what a sentence names, the value itself first.
    ``share``: by person how often they are met with, summing to 1.
    """

    names: tuple[str, ...]
    strangers: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    things: tuple[tuple[tuple[str, ...], ...], ...]
    facts: Ints
    share: npt.NDArray[np.float64]

    def question(self, name: str, relation: int) -> str:
        """What asks for one of the four facts of a person."""
        return f"{_RELATIONS[relation][0]} {name}?"

    def passage(self, name: str, relation: int, value: int, order: Sequence[int], wordings: Sequence[int]) -> str:
        """The passage that gives a value: a sentence for each aspect in ``order``, each in the wording that stands beside it."""
        things = self.things[relation][value]
        return " ".join(
            f"{name} {_RELATIONS[relation][1][aspect][wording]} {things[aspect]}."
            for aspect, wording in zip(order, wordings, strict=True)
        )

    def drawn(self, name: str, relation: int, value: int, random: np.random.Generator) -> str:
        """A whole passage in an order and wordings that are drawn."""
        return self.passage(
            name,
            relation,
            value,
            random.permutation(ASPECTS).tolist(),
            random.integers(WORDINGS, size=ASPECTS).tolist(),
        )

    def sentences(self, text: str) -> list[Sentence]:
        """The sentences of a passage. Raises InputError for one that is none of this world's."""
        found = []
        *whole, rest = text.split(".")
        for sentence in [*whole, rest] if rest.strip() else whole:
            match = self._form.fullmatch(sentence.strip())
            if match is None:
                raise InputError(f"this world has no sentence like {sentence!r}")
            found.append(Sentence(match[1], *self._phrases[match[2]], match[3]))
        return found

    def reworded(self, text: str, relation: int, value: int) -> str:
        """The passage for another value: sentence by sentence in the same order and wording, what goes with it changed too."""
        some = self.sentences(text)
        return self.passage(some[0].name, relation, value, [one.aspect for one in some], [one.wording for one in some])

    def supports(self, question: str, passage: str, answer: str) -> bool:
        """Whether a passage entails an answer: it is of this world, names the value and nothing that goes with another one.

        Nor may it be about anybody else or another relation than the question.
        """
        try:
            some = self.sentences(passage)
        except InputError:
            return False
        asked = [n for n in range(RELATIONS) if answer in self.values[n]]
        if not some or not asked or question != self.question(some[0].name, asked[0]):
            return False
        things = self.things[asked[0]][self.values[asked[0]].index(answer)]
        return any(one.aspect == 0 for one in some) and all(
            one.name == some[0].name and one.relation == asked[0] and one.thing == things[one.aspect] for one in some
        )

    @property
    def phrases(self) -> tuple[str, ...]:
        """All that sentences and questions are made of beside names and things."""
        return (*(one[0] for one in _RELATIONS), *self._phrases)

    @cached_property
    def _phrases(self) -> dict[str, tuple[int, int, int]]:
        return {
            phrase: (relation, aspect, wording)
            for relation, (_, aspects) in enumerate(_RELATIONS)
            for aspect, wordings in enumerate(aspects)
            for wording, phrase in enumerate(wordings)
        }

    @cached_property
    def _form(self) -> re.Pattern[str]:
        return re.compile(rf"(\w+) ({'|'.join(map(re.escape, self._phrases))}) (\w+)")


def make_world(seed: int, *, people: int = 2000, strangers: int = 400, values: int = 24, zipf: float = 1.0) -> World:
    """A world by its seed: facts drawn evenly, popularity falling with rank to the power ``zipf``.

    What goes with a value goes with no other. Raises InputError for fewer than three values, of which no counter-answer and
    irrelevant one could be drawn.
    """
    if values < 3:
        raise InputError(f"a relation needs at least 3 values, not {values}")
    random = np.random.default_rng([seed, 0])
    words = _words(people + strangers + RELATIONS * values * ASPECTS, random)
    names, others = tuple(_take(words, people)), tuple(_take(words, strangers))
    things = tuple(tuple(tuple(_take(words, ASPECTS)) for _ in range(values)) for _ in range(RELATIONS))
    share = np.arange(1, people + 1, dtype=np.float64) ** -zipf
    return World(
        names,
        others,
        tuple(tuple(one[0] for one in relation) for relation in things),
        things,
        random.integers(values, size=(people, RELATIONS)),
        share / share.sum(),
    )


def _words(count: int, random: np.random.Generator) -> Iterable[str]:
    """Distinct invented words, capitalised."""
    seen: set[str] = set()
    while len(seen) < count:
        parts = [str(random.choice(part)) for part in (_ONSETS, _VOWELS, _ONSETS, _VOWELS, _CODAS)]
        word = "".join(parts).capitalize()
        if word not in seen:
            seen.add(word)
            yield word


def _take(words: Iterable[str], count: int) -> list[str]:
    return [next(iter(words)) for _ in range(count)]
