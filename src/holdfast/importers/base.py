"""What every importer shares: how an item of an archive becomes a cube, and what is said of one that does not."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from holdfast.cube import Channel, Cube, Kind, Origin, Policy, Ref, Scope, Status, taints, utc
from holdfast.encode.turns import TRUST
from holdfast.errors import InputError, ScopeError
from holdfast.guard.admission import STANDING, against
from holdfast.guard.screening import signals
from holdfast.importers.archive import Archive
from holdfast.importers.streaming import Element, elements
from holdfast.retrieve.context import without_recalled

_MILLISECONDS = 10**11  # as seconds that is the year 5138, so a larger number counts thousandths
_LOOKED = 64  # elements, to guess a format
_LONGEST = 16_384  # characters of what is kept beside the words


@dataclass(frozen=True, slots=True)
class Found:
    """A memory of an archive. ``then``: its later versions, each as it was learnt. ``owner``: whose it is there."""

    cube: Cube
    then: tuple[Cube, ...] = ()
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """An item that did not come, or not as it was (``kept``), and why."""

    item: str
    why: str
    kept: bool = False
    unread: bool = False
    """It was not understood at all."""


def unread(item: str, why: str) -> Left:
    """An item that is broken, or is not what an archive of this format holds."""
    return Left(item, why, unread=True)


class Format(Protocol):
    """A module of this package: how one product's archives are read."""

    TITLE: str
    """What the archive is called in messages."""

    def fits(self, archive: Archive) -> bool:
        """Whether an archive looks like one of these."""
        ...

    def read(self, archive: Archive, make: Maker) -> Iterator[Found | Left]:
        """What is in it, item by item, sources before what was made of them."""
        ...


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes the cubes of one archive in one scope. ``name``: the format's; ``source``: what all of them are from."""

    name: str
    source: str
    scope: Scope

    def id(self, item: str) -> str:
        """The id of an item: the same at every import of it into this user's memory, from whichever file."""
        named = f"{self.name}\0{item}\0{self.scope.partition}".encode("utf-8", "surrogatepass")
        bits = int.from_bytes(hashlib.sha256(named).digest()[:16])
        return str(uuid.UUID(int=bits & ~(0xF << 76 | 0b11 << 62) | 8 << 76 | 0b10 << 62))  # a UUIDv8, RFC 9562

    def cube(
        self,
        item: str,
        text: object,
        *,
        kind: str = Kind.FACT,
        channel: Channel = Channel.IMPORT,
        author: object = None,
        true_from: object = None,
        true_until: object = None,
        learnt: object = None,
        ends: object = None,
        data: Mapping[str, Any] | None = None,
        agent: object = None,
        session: object = None,
        status: Status = Status.GENERATED,
        derived_from: Sequence[Ref] = (),
        owner: object = None,
    ) -> Iterator[Found | Left]:
        """The item's memory, and what is to be said of it.

        What another system's model wrote down is taken as that system's word; where it would lay something down (an instruction, a
        profile), or looks like an attack, it is marked as from outside, and the guard has it wait for a person.
        """
        if not isinstance(text, str):
            yield Left(item, f"its text is {_name(text)}")
            return
        words = without_recalled(text).strip()
        if not any(letter.isalnum() or ord(letter) >= 0x2000 for letter in words):
            yield Left(item, "it holds no word")
            return
        times: dict[str, datetime | None] = {}
        for name, value in (("from", true_from), ("until", true_until), ("learnt", learnt), ("ends", ends)):
            times[name] = moment(value)
            if times[name] is None and value not in (None, ""):
                yield Left(item, f"its time {str(value)[:40]!r} is not a time and was left out", kept=True)
        begin, end = times["from"], times["until"]
        if begin is not None and end is not None and end < begin:
            yield Left(item, "it ends before it begins, so that its end was left out", kept=True)
            end = None
        here = Scope(
            self.scope.tenant,
            self.scope.user,
            self.scope.agent or _part(agent),
            self.scope.session or _part(session),
        )
        outside = channel is Channel.IMPORT and (kind in STANDING or against(signals(words)))
        beside = {key: value for key, value in (data or {}).items() if value not in (None, "", [], {})}
        if len(json.dumps(beside, default=str)) > _LONGEST:
            beside = {}
            yield Left(item, "what stood beside its words is too long and was left out", kept=True)
        try:
            cube = Cube(
                here,
                words,
                kind,
                data={**beside, "item": item, "turn": item},
                valid_from=begin,
                valid_to=end,
                recorded_at=times["learnt"],
                origin=Origin(
                    channel,
                    str(author)[:512] if author else None,
                    self.source,
                    TRUST[channel],
                    tuple(derived_from),
                    taints((f"{channel}:{self.source}",)) if outside else (),
                ),
                status=status,
                policy=Policy(expires_at=times["ends"]),
                id=self.id(item),
            )
            yield Found(cube, owner=str(owner) if owner else None)
        except (InputError, ScopeError) as error:
            yield Left(item, str(error))


def later(found: Found, *versions: Mapping[str, Any]) -> Found:
    """With later versions: each is the one before with these fields changed."""
    cube = (found.then or (found.cube,))[-1]
    then = list(found.then)
    for changes in versions:
        cube = cube.with_(**changes)
        then.append(cube)
    return replace(found, then=tuple(then))


def moment(value: object) -> datetime | None:
    """A time as an archive has it: ISO 8601, seconds or thousandths since 1970; None where it is none."""
    if isinstance(value, bool):
        return None
    try:
        if isinstance(value, int | float):
            if not math.isfinite(value):
                return None
            return datetime.fromtimestamp(value / 1000 if abs(value) >= _MILLISECONDS else value, UTC)
        if isinstance(value, str) and value.strip():
            return utc(value)
    except (ValueError, OverflowError, OSError):
        return None
    return value if isinstance(value, datetime) else None


def text_of(value: object) -> str:
    """The words of a message's content: a string, or the texts of a list of parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return text_of(value.get("text"))
    if isinstance(value, list):
        return "\n".join(filter(None, (text_of(part) for part in value)))
    return ""


def rows(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list; none where it is no list."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def stream(
    archive: Archive, name: str, wanted: Callable[[str | None], bool] = lambda _: True
) -> Iterator[tuple[Element, str]]:
    """The elements of a JSON file, each with what it is called in messages."""
    with archive.open(name) as opened:
        for element in elements(opened, wanted):
            place = f"{element.member or 'item'} {element.number}" if element.number else element.member or "the file"
            yield element, name if place == "the file" else f"{name}, {place}"


def sample(archive: Archive, name: str, most: int = 6) -> list[tuple[str | None, Mapping[str, Any]]]:
    """The first objects among the elements of a JSON file, with the member that they stand in."""
    found: list[tuple[str | None, Mapping[str, Any]]] = []
    with archive.open(name) as opened:
        for count, element in enumerate(elements(opened), 1):
            if isinstance(element.value, Mapping):
                found.append((element.member, element.value))
            if len(found) == most or count == _LOOKED:
                break
    return found


def objects(archive: Archive, most: int = 6) -> list[tuple[str | None, Mapping[str, Any]]]:
    """The same of an archive that is one JSON file; none where it is something else."""
    if not archive.is_file or archive.is_sqlite(archive.names[0]):
        return []
    return sample(archive, archive.names[0], most)


def _part(value: object) -> str | None:
    """A name that can stand in a scope."""
    if value is None:
        return None
    plain = "".join(letter if letter.isprintable() else " " for letter in str(value)).strip()[:512].strip()
    return plain or None


def _name(value: object) -> str:
    return {dict: "an object", list: "a list", type(None): "missing"}.get(type(value), f"{value!r:.40}")
