"""Attacks that are laid down once and wait for a question: what all of them have in common.

An attack is the same by whichever door it comes, and the door decides how far it gets: an outsider's page, one account of the team
that was taken over, or an account a record. Accounts are trusted and write as themselves, so what comes from them is no filter's
business: it is what votes are for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from holdfast.cube import Channel
from holdfast.guard.attacks.base import Attack, Said

TEAM = tuple(f"agent-{number}" for number in range(1, 9))
"""The accounts that fill a benign store, in turn: an experience that only one has made is no consensus."""

INTRUDER = "agent-9"
"""One account more, the attacker's."""


@dataclass(frozen=True, slots=True)
class Static:
    """One attack by one door.

    ``family`` groups what is the same attack; ``code`` and ``source`` say which it is in the catalogue of attacks and where it is
    from. ``adaptive``: it is made for the defence, and its numbers stand beside those of the plain ones.
    """

    attack: Attack
    family: str
    code: str
    source: str
    adaptive: bool = False

    @property
    def name(self) -> str:
        """The family and the door, for example ``graft: by a document``."""
        return f"{self.family}: {self.attack.name}"

    @property
    def digest(self) -> str:
        """sha256 over everything that the attacker writes, asks and wants: pins the attack without repeating it."""
        strings = [
            [said.text, str(said.kind), str(said.channel), said.source, dict(said.data)] for said in self.attack.poison
        ]
        asked = [[asked.text, asked.goal] for asked in self.attack.asked]
        return hashlib.sha256(json.dumps([strings, asked], sort_keys=True, default=str).encode()).hexdigest()


def by_account(poison: Sequence[Said], accounts: Sequence[str] = (INTRUDER,)) -> tuple[Said, ...]:
    """The same records, written by accounts of the team in turn."""
    return tuple(
        replace(said, channel=Channel.ASSISTANT, source=accounts[at % len(accounts)]) for at, said in enumerate(poison)
    )


def by_accounts(poison: Sequence[Said]) -> tuple[Said, ...]:
    """The same records, each written by an account of its own."""
    return by_account(poison, [f"account-{at}" for at in range(len(poison))])


def from_outside(poison: Sequence[Said], channel: Channel, sources: Sequence[str]) -> tuple[Said, ...]:
    """The same records, out of pages, documents or tools in turn."""
    return tuple(replace(said, channel=channel, source=sources[at % len(sources)]) for at, said in enumerate(poison))
