"""Who is measured: anything that answers conflict prompts, be it a language model, our resolver or a control."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from holdfast.bench.clashes.items import Prompt
from holdfast.bench.clashes.prompts import as_text, read_letter, read_told
from holdfast.cube import Channel, Cube, Origin, Scope
from holdfast.guard.conflicts import Belief, Policy, resolve
from holdfast.retrieve.hits import Hit


@dataclass(frozen=True, slots=True)
class Told:
    """An answer (None: uncertain, or none that was on offer) and, where one was asked for, the passage in its support."""

    answer: str | None
    passage: str = ""


class Reader(Protocol):
    """What is measured. With options the answer is one of them or None; without passages it comes with one of its own."""

    def read(self, prompts: Sequence[Prompt]) -> list[Told]:
        """One answer a prompt, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class TextReader:
    """A language model behind ``complete``, text in and text out; ``render`` puts a prompt into words."""

    complete: Callable[[str], str]
    render: Callable[[Prompt], str] = as_text

    def read(self, prompts: Sequence[Prompt]) -> list[Told]:
        """One call a prompt. Raises what ``complete`` raises."""
        found = []
        for prompt in prompts:
            reply = self.complete(self.render(prompt))
            found.append(Told(read_letter(reply, prompt.options)) if prompt.options else Told(*read_told(reply)))
        return found


_SCOPE = Scope("bench", "reader")
_VALUE = "claim"


@dataclass(frozen=True, slots=True)
class ResolverReader:
    """``guard.conflicts.resolve`` as a reader: it goes by each passage's claim, source and trust, and by no words.

    ``beliefs`` gives by question what a model believes by itself, which is one more vote; without passages nothing else is
    known. An answer that is no option is None.
    """

    beliefs: Mapping[str, Belief]
    policy: Policy | None = None

    def read(self, prompts: Sequence[Prompt]) -> list[Told]:
        """One resolution a prompt."""
        return [self._one(prompt) for prompt in prompts]

    def _one(self, prompt: Prompt) -> Told:
        belief = self.beliefs.get(prompt.question)
        if not prompt.passages:
            return Told(belief.answer if belief is not None and belief.firm else None)
        hits = [
            Hit(
                Cube(
                    _SCOPE,
                    one.text,
                    data={_VALUE: one.claim},
                    origin=Origin(
                        Channel.DOCUMENT, reference=one.origin, trust=one.trust, taint=(f"document:{one.origin}",)
                    ),
                ),
                1.0,
                0.5,
            )
            for one in prompt.passages
        ]
        found = resolve(
            prompt.question,
            hits,
            lambda _, cube: str(cube.data[_VALUE]),
            policy=self.policy,
            belief=belief if prompt.knowledge else None,
        )
        return Told(found.answer if not prompt.options or found.answer in prompt.options else None)


@dataclass(frozen=True, slots=True)
class FirstPassage:
    """A control: believes the passage it sees first, and without one says what it is told to (``beliefs``)."""

    beliefs: Mapping[str, str]

    def read(self, prompts: Sequence[Prompt]) -> list[Told]:
        """The first passage's claim, one a prompt."""
        return [
            Told(prompt.passages[0].claim if prompt.passages else self.beliefs.get(prompt.question))
            for prompt in prompts
        ]


@dataclass(frozen=True, slots=True)
class Sloth:
    """A control: says what it believes, whatever it is shown."""

    beliefs: Mapping[str, str]

    def read(self, prompts: Sequence[Prompt]) -> list[Told]:
        """Its belief, one a prompt."""
        return [Told(self.beliefs.get(prompt.question)) for prompt in prompts]
