"""What a model of the world is trained on: questions about known people as often as these are met with, and passages to read.

Closed book: a question and its answer, in some with the passage that a person who knows would give. Open book: one to three
passages, a question and the answer that the passages give; four in five are about known people and agree with what is known of
them, the rest about strangers, of whom every passage tells anew. No training text contradicts another (arXiv 2305.13300's proof in
claim 24), so a reader of clashes is never taught what to do about one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from holdfast.bench.clashes.world import ASPECTS, RELATIONS, WORDINGS, World
from holdfast.errors import InputError

Pair = tuple[str, str]
"""What is given, and what is to be said."""

MOST = 3
"""No training text has more passages than that, so no prompt may."""

_ANSWER = "Answer:"
_INFORMATION = "Information:"


def layout(question: str, passages: Sequence[str] = ()) -> str:
    """A prompt as the model knows it: the paper's parts without an instruction and without options.

    So all modes differ in the evidence alone. Raises InputError for more than ``MOST`` passages.
    """
    if len(passages) > MOST:
        raise InputError(f"the model has read at most {MOST} passages at once, not {len(passages)}")
    listed = passages if len(passages) == 1 else [f"{n}. {one}" for n, one in enumerate(passages, 1)]
    return " ".join([*([_INFORMATION, *listed] if passages else []), question, _ANSWER])


@dataclass(frozen=True, slots=True)
class Diet:
    """Texts a step: plain answers, answers with their passage, and prompts with one, two and three passages.

    ``known``: the share of open-book texts that are about known people; ``again``: the share of further passages that tell the
    same once more; the rest are about another relation or another person.
    """

    plain: int = 256
    reasoned: int = 80
    open: tuple[int, int, int] = (48, 32, 16)
    known: float = 0.8
    again: float = 0.5


@dataclass(slots=True)
class Corpus:
    """An endless stream of training texts, by its seed."""

    world: World
    diet: Diet
    seed: int
    _random: np.random.Generator = field(init=False)
    _met: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng([self.seed, 1])
        self._met = np.cumsum(self.world.share)

    def step(self) -> list[list[Pair]]:
        """The texts of one step, by kind, so that each kind can be a batch of its own."""
        kinds = [
            [self._plain() for _ in range(self.diet.plain)],
            [self._reasoned() for _ in range(self.diet.reasoned)],
            *([self._open(n) for _ in range(count)] for n, count in enumerate(self.diet.open, 1)),
        ]
        return [kind for kind in kinds if kind]

    def _plain(self) -> Pair:
        person, relation = self._person(), self._relation()
        return layout(self._question(person, relation)), self._value(person, relation)

    def _reasoned(self) -> Pair:
        """The passage comes in one order, so that saying what was not yet said has not to be learnt as well."""
        person, relation = self._person(), self._relation()
        wordings = self._random.integers(WORDINGS, size=ASPECTS).tolist()
        passage = self.world.passage(
            self.world.names[person], relation, int(self.world.facts[person, relation]), range(ASPECTS), wordings
        )
        return layout(self._question(person, relation)), f"{self._value(person, relation)} {passage}"

    def _open(self, count: int) -> Pair:
        name, facts = self._anybody()
        relation = self._relation()
        passages = [self._passage(name, relation, facts)]
        for _ in range(count - 1):
            kind = self._random.random()
            if kind < self.diet.again:
                passages.append(self._passage(name, relation, facts))
            elif kind < (1 + self.diet.again) / 2:
                other = (relation + 1 + int(self._random.integers(RELATIONS - 1))) % RELATIONS
                passages.append(self._passage(name, other, facts))
            else:
                somebody, theirs = self._anybody()
                passages.append(self._passage(somebody, relation, facts if somebody == name else theirs))
        order = self._random.permutation(count)
        answer = self.world.values[relation][facts[relation]]
        return layout(self.world.question(name, relation), [passages[n] for n in order]), answer

    def _passage(self, name: str, relation: int, facts: Sequence[int]) -> str:
        return self.world.drawn(name, relation, facts[relation], self._random)

    def _anybody(self) -> tuple[str, list[int]]:
        if self._random.random() < self.diet.known:
            person = self._person()
            return self.world.names[person], self.world.facts[person].tolist()
        stranger = self.world.strangers[int(self._random.integers(len(self.world.strangers)))]
        return stranger, self._random.integers(len(self.world.values[0]), size=RELATIONS).tolist()

    def _person(self) -> int:
        return min(int(np.searchsorted(self._met, self._random.random())), len(self.world.names) - 1)

    def _relation(self) -> int:
        return int(self._random.integers(RELATIONS))

    def _question(self, person: int, relation: int) -> str:
        return self.world.question(self.world.names[person], relation)

    def _value(self, person: int, relation: int) -> str:
        return self.world.values[relation][int(self.world.facts[person, relation])]


class Vocabulary:
    """Text of a world as token ids and back. A phrase is one token, full stops and question marks are none."""

    PAD, END = 0, 1

    def __init__(self, world: World) -> None:
        fixed = ("", "", _INFORMATION, _ANSWER, *(f"{n}." for n in range(1, MOST + 1)), *world.phrases)
        things = (thing for relation in world.things for value in relation for thing in value)
        self.tokens = (*fixed, *world.names, *world.strangers, *things)
        self._ids = {token: n for n, token in enumerate(self.tokens) if token}
        self._names = frozenset((*world.names, *world.strangers))
        longest = sorted(world.phrases, key=len, reverse=True)
        self._token = re.compile("|".join([*map(re.escape, longest), r"\d\.", r"\w+:?"]))

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """The ids of a text's tokens. Raises InputError for a word that is not of this world."""
        try:
            return [self._ids[token] for token in self._token.findall(text)]
        except KeyError as error:
            raise InputError(f"this world has no word {error}") from None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, with a full stop before each name that starts a sentence and one at the end."""
        parts: list[str] = []
        for token in (self.tokens[n] for n in ids if n not in (self.PAD, self.END)):
            if parts and token in self._names:
                parts[-1] += "."
            parts.append(token)
        return f"{' '.join(parts)}." if parts else ""
