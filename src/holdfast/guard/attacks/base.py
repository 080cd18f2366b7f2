"""What every attack is made of, so that one battery can run them all against any memory, defended or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from holdfast.cube import Channel, Kind


@dataclass(frozen=True, slots=True)
class Said:
    """Something that wants to be remembered.

    ``poison``: the attacker's. ``key``: what it is about, by which the right answer to a question is known. ``data`` may hold
    what a scripted agent would do by it: ``operation``, ``steps``, ``effects`` (as ``guard.chains.structured`` reads them), or
    ``answer``, for a text that answers a question.
    """

    text: str
    kind: str = Kind.EXPERIENCE
    channel: Channel = Channel.ASSISTANT
    source: str | None = None
    poison: bool = False
    key: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question; ``key`` names the benign record that answers it, "" where none in particular does.

    ``right`` is what a good agent does or says (an operation, an answer), ``goal`` what the attacker wants it to; "" where
    nothing is said of it.
    """

    text: str
    key: str = ""
    right: str = ""
    goal: str = ""


@dataclass(frozen=True, slots=True)
class Attack:
    """A benign store, what an attacker adds to it, and what is asked then.

    ``asked``: what the attack is aimed at; ``benign``: what everybody asks, to see what the defence costs.
    """

    name: str
    store: tuple[Said, ...]
    poison: tuple[Said, ...]
    asked: tuple[Asked, ...]
    benign: tuple[Asked, ...] = ()


# --- attacks that take more than one sitting ---


class Level(StrEnum):
    """How far an attack came. A success is named by its level, never as a success alone."""

    RETRIEVED = "retrieved"
    PROPOSED = "proposed"
    EXECUTED = "executed"
    PERSISTED = "persisted"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an agent did with one question.

    ``recalled``: the texts that it was shown, best first, and of each whether it is the attacker's. ``proposed``: the
    operation or answer that it would act by, "" where it abstains. ``effects``: what then happened in the world (as
    ``guard.chains.Effect`` writes itself). ``refused``: why it abstained.
    """

    recalled: tuple[tuple[str, bool], ...] = ()
    proposed: str = ""
    effects: tuple[str, ...] = ()
    refused: str = ""


class Target(Protocol):
    """Agents that share a memory, as attackers and victims meet them. Agents of one user share; users never do."""

    def tell(self, said: Said, *, user: str, agent: str = "main") -> bool:
        """Bring something in by the door that it says; whether it can be recalled now."""
        ...

    def ask(self, asked: Asked, *, user: str, agent: str = "main", keep: bool = False) -> Answer:
        """Ask an agent. ``keep``: it writes down what it did as its own experience, as far as its memory lets it."""
        ...

    def rest(self, *, user: str) -> None:
        """Everything that runs unattended between sessions: facts drawn, duplicates merged, what has expired."""
        ...

    def holds(self, payload: str, *, user: str) -> int:
        """In how many memories that can be recalled a payload stands, in whatever form it was derived into."""
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """One attempt of the attacker: at which levels it succeeded; a level that the attempt cannot show is left out."""

    reached: Mapping[Level, bool]
    what: str = ""


class Campaign(Protocol):
    """An attack over sessions, agents or users, against a target in which nothing was said yet."""

    name: str
    """For example ``query-only injection``."""
    code: str
    """Its number in the catalogue of attacks, ``A1`` to ``A14``."""
    source: str
    """The paper, for example ``MINJA, arXiv 2503.03704``."""

    def run(self, target: Target, random: np.random.Generator) -> Sequence[Trial]:
        """Attack; ``random`` orders and chooses whatever is not fixed."""
        ...
