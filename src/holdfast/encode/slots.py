"""What a claim does to what is known: added, known already, or the end of an older value of the same slot.

The operations of Memory-R1 (arXiv 2508.19828, §3) with the rule that field reports ask for: a claim may end another only
where both fill the same slot, which is the same attribute of the same subject. To mention somebody retires nothing. The
older value is not deleted: its validity ends, so it leaves recall and stays in history, and setting ``valid_to`` back
undoes it.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from holdfast.cube import EXTERNAL, RECALLABLE, Channel, Cube, Form, Kind, Origin, Status, utc
from holdfast.encode.base import Experience
from holdfast.errors import InputError
from holdfast.letters import folded
from holdfast.store.base import Operation

UNHEARD = frozenset({Channel.RECALLED, Channel.SYSTEM})
"""Channels that nothing is ever extracted from: recalled text would breed itself, and a system prompt is no testimony."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement that a turn makes, with the place where it makes it.

    ``functional`` attributes have one value at a time, so that a new one ends the old one. ``polarity`` is False for a
    statement that something is not so, or no longer. ``span`` holds the character offsets of the supporting words in the
    turn's text. ``canonical`` is the value as it is compared where its words are not ("1,200" is 1200, "May 3rd" is
    2026-05-03). ``valid_from`` is None where the turn's own time counts. ``ends`` names the one cube of the same slot that
    this claim replaces, where that is known.
    """

    subject: str
    attribute: str
    value: str
    text: str
    span: tuple[int, int]
    rule: str
    kind: str = Kind.FACT
    unit: str | None = None
    polarity: bool = True
    functional: bool = False
    canonical: str | None = None
    valid_from: datetime | None = None
    ends: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def slot(self) -> str:
        """The key of what the claim is about: subject and attribute."""
        return f"{plain(self.subject)} | {plain(self.attribute)}"

    @property
    def key(self) -> str:
        """The content key over subject, attribute, value and polarity: the same claim in other words has the same key."""
        content = "\x1f".join(
            (self.slot, plain(self.canonical or self.value), plain(self.unit or ""), str(self.polarity))
        )
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def plain(text: str) -> str:
    """A text as keys compare it: NFKC, case folded, blanks and outer punctuation gone, no leading article."""
    words = " ".join(folded(text).split())
    return _LEADING.sub("", words).rstrip(_OUTER)


_OUTER = " .,;:!?\"'“”‘’()[]"
_LEADING = re.compile(
    rf"\A(?:[{re.escape(_OUTER)}]|(?:an?|the)(?= ))*+"
)  # an article that is the last word is the value


def speaker(turn: Cube) -> str:
    """Who says "I" in a turn: its author, or the user whose scope it is where the author is a mere role.

    On a page, in a document or in a tool's answer it is never the user: where nobody is named, it is whoever the source is.
    """
    author, origin = turn.origin.author, turn.origin
    if author is not None and author not in ("user", "human"):
        return author
    return (origin.reference or str(origin.channel)) if origin.channel in EXTERNAL else turn.scope.user


def said_at(turn: Cube, now: datetime) -> datetime:
    """When a turn was said: its own time in the world, else when it was recorded, else ``now``."""
    return utc(turn.valid_from or turn.recorded_at or now)


def is_heard(turn: Cube) -> bool:
    """Whether facts may be taken from a turn: neither recalled, nor a system prompt, nor out of recall itself."""
    return turn.origin.channel not in UNHEARD and turn.status in RECALLABLE and turn.data.get("role") != "system"


@dataclass(slots=True)
class _Value:
    """A value that a slot holds, and the ``position`` of the operation that adds or ends it, if there is one."""

    cube: Cube
    value: tuple[str, str | None]
    position: int | None = None

    @classmethod
    def of(cls, cube: Cube, position: int | None = None) -> _Value:
        value = cube.data.get("canonical", cube.data["value"])
        return cls(cube, (plain(str(value)), cube.data.get("unit")), position)

    @property
    def polarity(self) -> bool:
        return bool(self.cube.data.get("polarity", True))

    @property
    def begins(self) -> datetime:
        return self.cube.valid_from or datetime.min.replace(tzinfo=UTC)

    def open_at(self, when: datetime) -> bool:
        return self.cube.valid_to is None or self.cube.valid_to > when

    def said_at(self) -> datetime | None:
        """When the value was asserted; data is whatever a caller put there, so it may not say."""
        with suppress(InputError, KeyError):
            return utc(self.cube.data["said_at"])
        return self.cube.valid_from or self.cube.recorded_at


def settle(claims: Iterable[tuple[Claim, Cube]], experience: Experience) -> list[Operation]:
    """The operations for claims, in the order they were made, each with the turn that makes it.

    A claim that is known already gives ``none`` with the id that holds it. A new value of a functional slot is added, and
    the value before it is updated to end where the new one begins; so is the affirmation that a denial contradicts, and
    the other way round. Nothing is ended on the word of a less trusted source, nor on the word of a third person. Reasons
    hold ids and rules, never content: they stay in the journal after the content is purged.
    """
    slots: dict[tuple[str, str], list[_Value]] = defaultdict(list)
    for cube in experience.known:
        if cube.form is Form.TEXT and cube.status in RECALLABLE and {"slot", "value"} <= cube.data.keys():
            slots[cube.scope.partition, str(cube.data["slot"])].append(_Value.of(cube))
    operations: list[Operation] = []
    for claim, turn in claims:
        peers = slots[turn.scope.partition, claim.slot]
        cube = _cube(claim, turn, experience.now)
        new = _Value.of(cube, len(operations))
        held = next((one for one in peers if _is_same(one, new)), None)
        if held is not None:
            operations.append(Operation.none(f"known already as {held.cube.id} (rule {claim.rule})"))
            continue
        for one in _contradicted(new, peers, claim.ends):
            if _is_newer(one, new):  # late news of a time that is over
                if not _may_end(cube, one.cube, claim):
                    continue
                end = max(new.begins, one.begins)
                cube = cube.with_(valid_to=min(end, cube.valid_to or end))
            elif _may_end(one.cube, turn, claim):
                one.cube = one.cube.with_(
                    valid_to=max(one.begins, new.begins), data={**one.cube.data, "ended_by": cube.id}
                )
                if one.position is None:
                    one.position = len(operations)
                    operations.append(Operation.update(one.cube, f"ended by {cube.id} (rule {claim.rule})"))
                else:  # one operation for each cube: it has been added or ended a moment ago
                    operations[one.position] = replace(operations[one.position], cube=one.cube)
        new.cube, new.position = cube, len(operations)
        operations.append(Operation.add(cube, f"rule {claim.rule}"))
        peers.append(new)
    return operations


def _cube(claim: Claim, turn: Cube, now: datetime) -> Cube:
    data: dict[str, Any] = {
        "subject": claim.subject,
        "attribute": claim.attribute,
        "value": claim.value,
        "polarity": claim.polarity,
        "functional": claim.functional,
        "span": list(claim.span),
        "rule": claim.rule,
        "slot": claim.slot,
        "key": claim.key,
        "said_at": said_at(turn, now).isoformat(),
        **claim.extra,
    }
    data |= {name: value for name, value in (("unit", claim.unit), ("canonical", claim.canonical)) if value is not None}
    begins = utc(claim.valid_from) if claim.valid_from else said_at(turn, now)
    return Cube(
        scope=turn.scope,
        text=claim.text,
        kind=claim.kind,
        data=data,
        valid_from=begins,
        origin=Origin(
            channel=Channel.DERIVED,
            author=speaker(turn),
            reference=turn.origin.reference,
            trust=turn.origin.trust,
            derived_from=(turn.ref,),
        ),
        policy=turn.policy,
        id=derived_id(turn.id, claim.key),
    )


def derived_id(turn: str, key: str) -> str:
    """A UUIDv7 that is the same whenever the same claim is read in the same turn, and sorts beside the turn.

    So a retry after a crash cannot write a claim twice, and one that was retracted does not come back.
    """
    time = uuid.UUID(turn).int >> 80
    noise = int.from_bytes(hashlib.sha256(f"{turn} {key}".encode()).digest()[:10])
    return str(uuid.UUID(int=time << 80 | 0x7 << 76 | (noise >> 64 & 0xFFF) << 64 | 0b10 << 62 | noise & (1 << 62) - 1))


def _is_same(one: _Value, new: _Value) -> bool:
    return one.value == new.value and one.polarity == new.polarity and one.open_at(new.begins)


def _contradicted(new: _Value, peers: list[_Value], ends: str | None) -> list[_Value]:
    """The values that cannot hold beside a new one: the same value denied, and other values of a functional attribute."""
    held = [one for one in peers if one.open_at(new.begins)]
    if ends is not None:
        return [one for one in held if one.cube.id == ends]
    if not new.polarity or not new.cube.data["functional"]:
        return [one for one in held if one.polarity != new.polarity and one.value == new.value]
    others = [one for one in held if one.polarity and one.value != new.value]
    if len(others) > 1 and not any(one.cube.data.get("functional") for one in others):
        others = []  # of several meetings, nobody knows which was moved
    return others + [one for one in held if not one.polarity and one.value == new.value]


def _is_newer(one: _Value, new: _Value) -> bool:
    mine, theirs = new.said_at(), one.said_at()
    return mine is not None and theirs is not None and theirs > mine


def _may_end(known: Cube, turn: Cube, claim: Claim) -> bool:
    if known.status is Status.FROZEN or turn.origin.trust < known.origin.trust:
        return False
    who = plain(speaker(turn))
    return who == plain(speaker(known)) or plain(claim.subject).split("'s ")[0] == who
