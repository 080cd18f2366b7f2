"""What every attack is made of, so that one battery can run them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.cube import Channel, Kind


@dataclass(frozen=True, slots=True)
class Said:
    """Something that wants to be remembered.

    ``poison``: the attacker's. ``key``: what it is about, by which the right answer to a question is known.
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
    """A question; ``key`` names the benign record that answers it, "" where none in particular does."""

    text: str
    key: str = ""


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
