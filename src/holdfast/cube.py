"""The cube: the one immutable record for every form of memory.

The MemCube of MemOS (arXiv 2507.03724 §4.2; arXiv 2505.22101), with bi-temporal validity and lineage. A cube says what
is remembered (``text``, or a reference to a tensor file), where it belongs (``scope``), who says so (``origin``), when it
is true and when we learnt it, and what may be done with it (``status``, ``policy``). Cubes are values: a change makes a
new version, and the store keeps both.
"""

from __future__ import annotations

import functools
import math
import operator
import os
import re
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from holdfast.errors import HoldfastError, InputError, ScopeError

MAX_TEXT_BYTES = 64 * 1024 * 1024
"""A text larger than this is refused; split documents before adding them."""


class Form(StrEnum):
    """What carries the memory: tokens, state inside a running model, or parameters (arXiv 2512.13564)."""

    TEXT = "text"
    STATE = "state"
    WEIGHTS = "weights"


class Kind(StrEnum):
    """What sort of thing is remembered. Any other lower-case word is allowed where these do not fit."""

    MESSAGE = "message"
    FACT = "fact"
    EVENT = "event"
    PREFERENCE = "preference"
    INSTRUCTION = "instruction"
    PROFILE = "profile"
    SUMMARY = "summary"
    EXPERIENCE = "experience"
    CONCEPT = "concept"
    SKILL = "skill"
    LESSON = "lesson"
    DOCUMENT = "document"


class Status(StrEnum):
    """Where a cube stands in its life; the allowed moves are in ``TRANSITIONS``."""

    GENERATED = "generated"
    ACTIVATED = "activated"
    MERGED = "merged"
    ARCHIVED = "archived"
    FROZEN = "frozen"
    QUARANTINED = "quarantined"
    EXPIRED = "expired"
    PURGED = "purged"


RECALLABLE = frozenset({Status.GENERATED, Status.ACTIVATED, Status.FROZEN})
"""Only cubes in these states are found by a search of the present."""

HELD = RECALLABLE | {Status.QUARANTINED}
"""While a version stands in one of these, adding the same content again is a duplicate."""

TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.GENERATED: frozenset(Status) - {Status.GENERATED},
    Status.ACTIVATED: frozenset(Status) - {Status.GENERATED, Status.ACTIVATED},
    Status.MERGED: frozenset({Status.ACTIVATED, Status.ARCHIVED, Status.FROZEN, Status.EXPIRED, Status.PURGED}),
    Status.ARCHIVED: frozenset({Status.ACTIVATED, Status.FROZEN, Status.EXPIRED, Status.PURGED}),
    Status.FROZEN: frozenset({Status.ACTIVATED, Status.ARCHIVED, Status.PURGED}),
    Status.QUARANTINED: frozenset({Status.ACTIVATED, Status.ARCHIVED, Status.EXPIRED, Status.PURGED}),
    Status.EXPIRED: frozenset({Status.ACTIVATED, Status.PURGED}),
    Status.PURGED: frozenset(),
}
"""The state machine of sheet 14: archived and expired cubes can be restored, frozen ones accept no new text, purged is final."""


class Channel(StrEnum):
    """Through which door a memory came in. The store sets it from the call, never from the text."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"
    TOOL = "tool"
    WEB = "web"
    DOCUMENT = "document"
    IMPORT = "import"
    DERIVED = "derived"
    RECALLED = "recalled"


EXTERNAL = frozenset({Channel.TOOL, Channel.WEB, Channel.DOCUMENT})
"""What comes in through these doors may have been written by anybody: it is tainted, and so is all that is made of it."""

MOST_TAINTS = 16
"""Of more labels than that only the channels are kept: a summary of a thousand pages is tainted by the web."""


# --- time ---


def utc(when: datetime | str) -> datetime:
    """An aware UTC time from a datetime or an ISO 8601 string (a date alone means its first moment, UTC).

    Naive values are taken as UTC. Raises InputError for anything else.
    """
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when.strip())
        except (ValueError, OverflowError) as error:
            raise InputError(f"{when!r} is not a time; write it as 2026-01-31 or 2026-01-31T12:00:00+00:00") from error
    if not isinstance(when, datetime):
        raise InputError(f"a time must be a datetime or an ISO 8601 string, not {type(when).__name__}")
    if when.tzinfo is UTC:
        return when
    try:
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except OverflowError as error:
        raise InputError(f"{when} lies outside the years 1 to 9999") from error


def to_micros(when: datetime) -> int:
    """Microseconds since 1970, exactly (floats would lose the last digits)."""
    delta = when - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def from_micros(micros: int) -> datetime:
    """The inverse of ``to_micros``."""
    return _EPOCH + timedelta(microseconds=micros)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _aware(name: str, when: datetime | None) -> None:
    if when is not None and (not isinstance(when, datetime) or when.tzinfo is None):
        raise InputError(f"{name} must be a datetime with a time zone, as utc() makes it, not {when!r}")


def _string_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


# --- identity ---

_uuid_lock = threading.Lock()
_uuid_last = 0


def new_id() -> str:
    """A UUIDv7 (RFC 9562 §5.7), increasing within a process, so that ids sort by creation."""
    global _uuid_last
    with _uuid_lock:
        # 48 bits of milliseconds, then 12 bits of the fraction: method 3 of §6.2.
        stamp = max((time.time_ns() << 12) // 1_000_000, _uuid_last + 1)
        _uuid_last = stamp
    bits = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0b10 << 62
    return str(uuid.UUID(int=bits | int.from_bytes(os.urandom(8)) >> 2))


def _after_fork() -> None:
    global _uuid_lock
    _uuid_lock = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):  # not where there is no fork
    os.register_at_fork(after_in_child=_after_fork)


# --- scope ---


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose memory this is: a path tenant / user / agent / session.

    Tenant and user are the hard wall: no search ever crosses it. Agent and session narrow within it, and None there means
    "all of them" when reading and "none in particular" when writing.
    """

    tenant: str
    user: str
    agent: str | None = None
    session: str | None = None

    def __post_init__(self) -> None:
        for name in ("tenant", "user", "agent", "session"):
            value = getattr(self, name)
            if value is None and name in ("agent", "session"):
                continue
            if not isinstance(value, str) or not value.strip():
                raise ScopeError(f"a scope needs {name}= as a non-empty string, not {value!r}")
            if len(value) > 512 or not value.isprintable():
                raise ScopeError(f"{name}= must be printable and at most 512 characters")

    @property
    def path(self) -> str:
        """The scope as one line, for example ``acme/ana/-/chat-7``; parts are percent-escaped."""
        return "/".join("-" if part is None else escaped(part) for part in self.parts)

    @property
    def parts(self) -> tuple[str, str, str | None, str | None]:
        """(tenant, user, agent, session)."""
        return self.tenant, self.user, self.agent, self.session

    @property
    def partition(self) -> str:
        """The hard wall, ``tenant/user``: the unit of indexes, quotas and deletion."""
        return f"{escaped(self.tenant)}/{escaped(self.user)}"

    def covers(self, other: Scope) -> bool:
        """Whether a read in this scope may see a cube written in ``other``."""
        return (
            self.tenant == other.tenant
            and self.user == other.user
            and (self.agent is None or self.agent == other.agent)
            and (self.session is None or self.session == other.session)
        )

    @staticmethod
    @functools.lru_cache(maxsize=65_536)
    def parse(path: str) -> Scope:
        """The inverse of ``path``; trailing parts may be left out. Raises ScopeError."""
        parts = path.split("/")
        if not 2 <= len(parts) <= 4:
            raise ScopeError(f"{path!r} is not a scope; write tenant/user[/agent[/session]]")
        return Scope(*(None if part == "-" else unquote(part) for part in parts))  # type: ignore[arg-type]


@functools.lru_cache(maxsize=65_536)
def escaped(part: str) -> str:
    """A part of a scope as it stands in a path."""
    # A bare "-" stands for an absent part, so a part that really is "-" must not look like it.
    return "%2D" if part == "-" else quote(part, safe="@:+ ")


# --- the record ---


@dataclass(frozen=True, slots=True)
class Ref:
    """One version of one cube: a node of the lineage graph."""

    id: str
    version: int

    def __post_init__(self) -> None:
        if type(self.id) is not str or type(self.version) is not int:
            raise InputError(f"a version is named by its id and number, not by {self.id!r}, {self.version!r}")


@dataclass(frozen=True, slots=True)
class Origin:
    """Who says so, and from what.

    ``reference`` names the source outside Holdfast (``mail:42``, a URL, a file), ``author`` the speaker, ``trust`` is
    between 0 and 1, and ``derived_from`` lists the exact versions this cube was made from. ``taint`` names the outside
    sources that had a part in it (``web:https://example.org``), sorted; the store adds those of its own channel and of
    everything it was made from, and never takes one away.
    """

    channel: Channel = Channel.USER
    author: str | None = None
    reference: str | None = None
    trust: float = 1.0
    derived_from: tuple[Ref, ...] = ()
    taint: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.channel, Channel):
            raise InputError(f"channel must be one of {', '.join(Channel)}, not {self.channel!r}")
        if not _string_or_none(self.author) or not _string_or_none(self.reference):
            raise InputError(f"author and reference must be strings, not {self.author!r}, {self.reference!r}")
        if not isinstance(self.trust, int | float) or not 0.0 <= self.trust <= 1.0:
            raise InputError(f"trust must lie between 0 and 1, not {self.trust!r}")
        if self.taint and (
            not all(isinstance(some, str) for some in self.taint) or list(self.taint) != sorted(set(self.taint))
        ):
            raise InputError(f"taint must be different strings in order, as taints() makes them, not {self.taint!r}")

    @property
    def label(self) -> str:
        """The door and the source in one word, for example ``document:README.md``; a place within the source is left out."""
        return f"{self.channel}:{(self.reference or self.author or '').split('#')[0]}"


def taints(*groups: Iterable[str]) -> tuple[str, ...]:
    """The union of some taints: sorted, each once; only the channels where there are more than MOST_TAINTS."""
    found = set().union(*groups)
    if len(found) > MOST_TAINTS:
        found = {some.partition(":")[0] + ":*" for some in found}
    return tuple(sorted(found))


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be done with a cube: when it expires, how sensitive it is, who may read it (empty: whoever has the scope)."""

    expires_at: datetime | None = None
    sensitivity: str = "normal"
    readers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _aware("expires_at", self.expires_at)


@dataclass(frozen=True, slots=True)
class Use:
    """What came of using a cube. Changed by feedback, never by being looked at: a popular error must not gain by views."""

    visits: int = 0
    last_use: datetime | None = None
    utility: float = 0.0
    uncertainty: float = 1.0

    def after(self, reward: float, rate: float, when: datetime | None = None, *, start: float = 0.0) -> Use:
        """As it is after one more use: utility Q + rate (reward - Q), uncertainty likewise towards how far Q was off.

        Q is ``start`` where this is the first that is said of it.
        """
        known = self.known(start)
        return Use(
            visits=self.visits + 1,
            last_use=when,
            utility=known + rate * (reward - known),
            uncertainty=self.uncertainty * (1 - rate) + rate * abs(reward - known),
        )

    def known(self, start: float) -> float:
        """The utility, or ``start`` where nobody has said anything of it yet."""
        return start if self == Use() else self.utility


_KIND = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Cube:
    """One memory, at one version.

    Fields
        text: what is remembered, in words; empty only for a tensor form, whose file is named by ``blob``.
        blob: sha256 of a content-addressed safetensors file, for state and weights.
        data: structured payload: a claim's subject, attribute and value; a turn's role and position.
        valid_from, valid_to: when it is true in the world (None: unbounded).
        recorded_at: when we learnt it; the store fills it in.
    """

    scope: Scope
    text: str = ""
    kind: str = Kind.MESSAGE
    form: Form = Form.TEXT
    blob: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    recorded_at: datetime | None = None
    origin: Origin = Origin()
    status: Status = Status.GENERATED
    policy: Policy = Policy()
    use: Use = Use()
    id: str = field(default_factory=new_id)
    version: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.scope, Scope):
            raise ScopeError(f"a cube's scope must be a Scope, not {self.scope!r}")
        if not isinstance(self.text, str):
            raise InputError(f"a cube's text must be a string, not {type(self.text).__name__}")
        if not isinstance(self.kind, str) or not _KIND.fullmatch(self.kind):
            raise InputError(f"kind must be a lower-case word such as 'fact', not {self.kind!r}")
        if not isinstance(self.form, Form) or not isinstance(self.status, Status):
            raise InputError(f"form and status must be a Form and a Status, not {self.form!r}, {self.status!r}")
        if not _string_or_none(self.blob) or not (type(self.data) is dict or isinstance(self.data, Mapping)):
            raise InputError("blob must be a string, and data a mapping")
        if not isinstance(self.id, str) or not _ID.fullmatch(self.id):
            raise InputError(f"id must be a UUID in lower case, not {self.id!r}")
        if type(self.version) is not int or self.version < 1:  # True is an int too, and hashes to another digest than 1
            raise InputError(f"version must be a number from 1 on, not {self.version!r}")
        _aware("valid_from", self.valid_from)
        _aware("valid_to", self.valid_to)
        _aware("recorded_at", self.recorded_at)
        if self.valid_from and self.valid_to and self.valid_to < self.valid_from:
            raise InputError(f"a memory cannot end ({self.valid_to}) before it begins ({self.valid_from})")

    @property
    def tainted(self) -> bool:
        """Whether anything from outside had a part in it: then it is something to read, and authorises nothing."""
        return bool(self.origin.taint)

    @property
    def ref(self) -> Ref:
        """This version, as a node of the lineage graph."""
        return Ref(self.id, self.version)

    def valid_at(self, when: datetime) -> bool:
        """Whether the memory is true in the world at that time (its end is exclusive)."""
        return (self.valid_from is None or self.valid_from <= when) and (self.valid_to is None or when < self.valid_to)

    def with_(self, **changes: Any) -> Cube:
        """A copy with some fields changed; the store gives it the next version when it is committed."""
        return replace(self, **changes)

    def read_again(self, data: Mapping[str, Any], use: Use) -> Cube:
        """As ``with_(data=data, use=use)``, for who knows that both are sound: nothing is checked, in a tenth of the time."""
        made = object.__new__(Cube)
        for put, value in zip(_PUT, _GET(self), strict=True):
            put(made, value)
        _DATA.__set__(made, data)
        _USE.__set__(made, use)
        return made

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict that ``from_dict`` reads back to an equal cube."""
        return {
            "id": self.id,
            "version": self.version,
            "scope": self.scope.path,
            "form": str(self.form),
            "kind": str(self.kind),
            "text": self.text,
            "blob": self.blob,
            "data": dict(self.data),
            "valid_from": _iso(self.valid_from),
            "valid_to": _iso(self.valid_to),
            "recorded_at": _iso(self.recorded_at),
            "origin": {
                "channel": str(self.origin.channel),
                "author": self.origin.author,
                "reference": self.origin.reference,
                "trust": self.origin.trust,
                "derived_from": [[ref.id, ref.version] for ref in self.origin.derived_from],
                "taint": list(self.origin.taint),
            },
            "status": str(self.status),
            "policy": {
                "expires_at": _iso(self.policy.expires_at),
                "sensitivity": self.policy.sensitivity,
                "readers": list(self.policy.readers),
            },
            "use": {
                "visits": self.use.visits,
                "last_use": _iso(self.use.last_use),
                "utility": self.use.utility,
                "uncertainty": self.use.uncertainty,
            },
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Cube:
        """Read what ``to_dict`` wrote; absent fields take their defaults. Raises InputError."""
        try:
            origin, policy, use = record.get("origin") or {}, record.get("policy") or {}, record.get("use") or {}
            return cls(
                scope=Scope.parse(record["scope"]),
                text=record.get("text", ""),
                kind=record.get("kind", Kind.MESSAGE),
                form=_one_of(_FORMS, record.get("form", "text")),
                blob=record.get("blob"),
                data=record.get("data") or {},
                valid_from=_time(record.get("valid_from")),
                valid_to=_time(record.get("valid_to")),
                recorded_at=_time(record.get("recorded_at")),
                origin=_origin_of(origin),
                status=_one_of(_STATUSES, record.get("status", "generated")),
                policy=Policy(
                    expires_at=_time(policy.get("expires_at")),
                    sensitivity=str(policy.get("sensitivity", "normal")),
                    readers=tuple(map(str, _list(policy, "readers"))),
                )
                if policy
                else _NO_POLICY,
                use=Use(
                    visits=int(use.get("visits", 0)),
                    last_use=_time(use.get("last_use")),
                    utility=finite(use.get("utility", 0.0)),
                    uncertainty=finite(use.get("uncertainty", 1.0)),
                )
                if use
                else _UNUSED,
                id=_normal(record["id"]) if record.get("id") else new_id(),
                version=record.get("version", 1),
            )
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            if isinstance(error, HoldfastError):
                raise
            raise InputError(f"this is not a cube's record: {type(error).__name__}: {error}") from error


def bare(id: str, version: int, record: Mapping[str, Any]) -> Cube:
    """A cube of which nothing is known but its scope and its origin, from such a record. Raises as ``from_dict`` does, and
    what else a damaged record causes."""
    made = _BARE.read_again({}, _UNUSED)
    for name, value in (
        ("scope", Scope.parse(record["scope"])),
        ("origin", _origin_of(record.get("origin") or {})),
        ("id", _normal(id)),
        ("version", Ref(id, version).version),
    ):
        Cube.__dict__[name].__set__(made, value)
    return made


_NO_POLICY, _UNUSED = Policy(), Use()
_GET = operator.attrgetter(*(one.name for one in fields(Cube)))
_PUT = tuple(Cube.__dict__[one.name].__set__ for one in fields(Cube))
_DATA, _USE = Cube.__dict__["data"], Cube.__dict__["use"]
_BARE = Cube(Scope("-", "-"), id="00000000-0000-0000-0000-000000000000")

# Looked up by value in a third of the time that the enumeration takes: a search reads many rows.
_FORMS = {str(form): form for form in Form}
_CHANNELS = {str(channel): channel for channel in Channel}
_STATUSES = {str(status): status for status in Status}

E = TypeVar("E")


def _one_of(known: Mapping[str, E], value: str) -> E:
    found = known.get(value)
    if found is None:
        raise ValueError(f"{value!r} is none of {', '.join(known)}")
    return found


def _origin_of(record: Mapping[str, Any]) -> Origin:
    sources = record.get("derived_from")
    read = _origin.__wrapped__ if sources else _origin  # what has sources is mostly one of its kind
    return read(
        record.get("channel", "user"),
        record.get("author"),
        record.get("reference"),
        record.get("trust", 1.0),
        tuple(Ref(_normal(id), int(version)) for id, version in sources) if sources else (),
        tuple(_list(record, "taint")),
    )


@functools.lru_cache(maxsize=4_096, typed=True)
def _origin(
    channel: str,
    author: str | None,
    reference: str | None,
    trust: float,
    sources: tuple[Ref, ...],
    taint: tuple[str, ...],
) -> Origin:
    """Much of what is remembered has one origin; to check it once is enough."""
    return Origin(_one_of(_CHANNELS, channel), author, reference, trust, sources, taint)


def _list(record: Mapping[str, Any], key: str) -> list[Any]:
    """A string is no list of its letters."""
    found = record.get(key, [])
    if not isinstance(found, list | tuple):
        raise TypeError(f"{key} must be a list, not {type(found).__name__}")
    return list(found)


def finite(value: Any) -> float:
    """A number as it is kept. Raises ValueError for one that is not finite."""
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"{value!r} is not a finite number")
    return found


def _normal(id: str) -> str:
    return id if _ID.fullmatch(id) else str(uuid.UUID(id))


def _iso(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat()


def _time(text: datetime | str | None) -> datetime | None:
    return None if text is None else utc(text)
