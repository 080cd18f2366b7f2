"""Out of quarantine by rule: what enough independent sources say as well may be read, with the reason and a way back.

A record that rests on an untrusted document stays untrusted until something independent of it clears it (MemoryGraft,
arXiv 2512.16962); independence is what poison by number lacks (A-MemGuard, arXiv 2510.02373; arXiv 2305.13300). So the rule
counts origins and never records: a person once, whatever they say it through, a site once, with all its hosts and pages. And to
say the same is to say the same words, or to fill the same slot with the same value: texts that are merely alike differ in the
one word that matters, and an attacker chooses which.

What comes out is as tainted as before. What tells an agent how to act comes out only where people inside say it as well, as the
same kind; no number of sites lays that down. What any signal of an attack spoke against, and what another hand than admission or a
revocation put there, waits for a person.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from holdfast.cube import EXTERNAL, RECALLABLE, Channel, Cube, Kind, Scope, Status
from holdfast.encode.claims import find_claims
from holdfast.encode.slots import plain, said_at, speaker
from holdfast.encode.standing import find_standing
from holdfast.encode.turns import TRUST
from holdfast.errors import InputError
from holdfast.guard.admission import STANDING
from holdfast.guard.base import AUTHORISING_TRUST, Lookup, ancestry, domain, sources_in
from holdfast.guard.governor import Purpose, certificates
from holdfast.guard.screening import signals
from holdfast.guard.stance import denies
from holdfast.letters import folded
from holdfast.retrieve.context import SUPERSEDED
from holdfast.retrieve.text import tokens
from holdfast.store.base import OF_USE, Operation, Store, Where

RELEASED = "released by rule"
"""How the reason of a release begins in the journal."""

_LIFTABLE = ("quarantined: ", "revoked")  # how the reasons of admission and of a revocation begin
_BY_HAND = "approved"
_ANY_TIME = datetime.min.replace(tzinfo=UTC)
_LEFT_OUT = frozenset({"a", "an", "the"})
_MARKS = ".,;:!?\"'“”‘’()[]"
_HOST = re.compile(r"(?:[a-z0-9_-]+\.)+[a-z][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Rule:
    """How many independent sources must say the same, besides the memory's own.

    ``inside``: so many people who are trusted. ``sites``: or so many people and sites together, for what lays nothing down.
    Raises InputError below 2: one more voice is no independence.
    """

    inside: int = 2
    sites: int = 3

    def __post_init__(self) -> None:
        if self.inside < 2 or self.sites < 2:
            raise InputError("a rule of release asks at least two independent sources")


@dataclass(frozen=True, slots=True)
class Release:
    """A memory that may come out: ``voices`` are the sources that say the same, ``because`` one memory of each."""

    cube: Cube
    voices: tuple[str, ...]
    because: tuple[str, ...]

    @property
    def reason(self) -> str:
        """For the journal; ids and no words."""
        return f"{RELEASED}: {len(self.because)} independent sources say the same: {', '.join(self.because)}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"memory": self.cube.to_dict(), "voices": list(self.voices), "because": list(self.because)}


@dataclass(frozen=True, slots=True)
class Releases:
    """What came out, or would come out (``planned``); what went back because its sources fell; why each of the rest waits."""

    released: tuple[Release, ...] = ()
    withdrawn: tuple[str, ...] = ()
    waiting: Mapping[str, str] = field(default_factory=dict)
    planned: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "released": [one.to_dict() for one in self.released],
            "withdrawn": list(self.withdrawn),
            "waiting": dict(self.waiting),
            "planned": self.planned,
        }


def propose(store: Store, scope: Scope, rule: Rule) -> tuple[list[Release], dict[str, str]]:
    """What the rule lets out of quarantine in a scope, and of each other memory there why not. Nothing is changed.

    Whoever speaks in the same tenant and user is heard, in whatever session.
    """
    home = _home(scope)
    held = sorted(store.select(scope, Where(statuses=(Status.QUARANTINED,))), key=lambda cube: cube.id)
    waiting: dict[str, str] = {}
    open_: list[Cube] = []
    for cube in held:
        reason = _last_reason(store, cube, home)
        if not reason.startswith(_LIFTABLE):
            waiting[cube.id] = "it was not admission that put it there: it waits for a person"
        elif spoken := signals(cube.text):
            waiting[cube.id] = f"signs of an attack ({', '.join(sorted(spoken))}): it waits for a person"
        else:
            open_.append(cube)
    released: list[Release] = []
    said: set[tuple[frozenset[str], str, str]] = set()
    found = _same(store, home, open_)
    lookup = sources_in(store, home)
    for cube in open_:
        own = origins(cube, lookup)
        voices = _voices(found[cube.id], own, lookup)
        enough, why = _enough(cube, voices, rule)
        words = own, _kind(cube.kind), _words(cube.text)
        if words in said or any(origins(other, lookup) == own for other in found[cube.id]):
            waiting[cube.id] = "its source has said it already"
        elif enough:
            said.add(words)
            released.append(Release(cube, tuple(voices), tuple(voices.values())))
        else:
            waiting[cube.id] = why
    return released, waiting


def unsupported(store: Store, scope: Scope, without: Collection[str] = ()) -> list[Operation]:
    """The operations that put back what once came out by rule and is said by too few others now; ``without`` some memories.

    Looks at all of the tenant's user, whatever the scope.
    """
    scope = _home(scope)
    rules = dict(filter(None, map(_certified, certificates(store, scope, Purpose.RELEASE))))
    if not rules:
        return []
    out = [cube for cube in store.select(scope, Where(statuses=tuple(RECALLABLE))) if cube.id in rules]
    out = [cube for cube in out if cube.id not in without and _by_rule(store, cube, scope)]
    found = _same(store, scope, out, without)
    lookup = sources_in(store, scope)
    operations = []
    for cube in out:
        voices = _voices(found[cube.id], origins(cube, lookup), lookup)
        enough, why = _enough(cube, voices, rules[cube.id])
        if not enough:
            back = cube.with_(status=Status.QUARANTINED)
            operations.append(Operation.update(back, f"quarantined: what let it out holds no more; {why}"))
    return operations


def origins(cube: Cube, lookup: Lookup) -> frozenset[str]:
    """Whose words a memory rests on: people (``user:ana``), sites (``site:example.org``), and other doors by their label.

    A site is all hosts of a domain (``base.domain``).
    """
    found: set[str] = set()
    for _, one, sources in ancestry(cube, lookup):
        origin = one.origin
        found |= {
            _outside(label) for label in (*origin.taint, *((origin.label,) if origin.channel in EXTERNAL else ()))
        }
        if sources:
            found |= {"unknown"} if None in sources else set()
        elif origin.channel is Channel.USER:
            found.add(f"user:{plain(speaker(one))}")
        elif origin.channel not in EXTERNAL:
            found.add(f"{origin.channel}:{plain(origin.author or '')}")
    return frozenset(found)


def _outside(label: str) -> str:
    door, _, rest = label.partition(":")
    if "://" not in rest:
        return door  # a file or a tool by whatever name: nobody knows who stands behind it
    try:
        parts = urlsplit(rest)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return door
    known = _HOST.fullmatch(host) and "@" not in parts.netloc
    return f"site:{domain(host)}" if known else door


def _voices(same: Sequence[Cube], own: frozenset[str], lookup: Lookup) -> dict[str, str]:
    """The independent sources among some memories, in order, each with one memory of it.

    A source is no voice beside the memory's own, nor where it is not trusted: a person as far as to authorise something, a site
    as far as the web is by default. What rests on several is the voice of none.
    """
    found: dict[str, str] = {}
    for cube in sorted(same, key=lambda cube: cube.id):
        origin = origins(cube, lookup)
        if len(origin) != 1 or origin & own:
            continue
        (voice,) = origin
        person = voice.startswith("user:") and not cube.tainted and cube.origin.trust >= AUTHORISING_TRUST
        site = voice.startswith("site:") and cube.origin.trust >= TRUST[Channel.WEB]
        if person or site:
            found.setdefault(voice, cube.id)
    return dict(sorted(found.items()))


def _enough(cube: Cube, voices: Mapping[str, str], rule: Rule) -> tuple[bool, str]:
    people = sum(voice.startswith("user:") for voice in voices)
    if people >= rule.inside:
        return True, ""
    if cube.kind in STANDING:
        return False, f"{people} of {rule.inside} people inside say the same; sites do not count for a {cube.kind}"
    short = f"{people} of {rule.inside} people, or {len(voices)} of {rule.sites} people and sites, say the same"
    return len(voices) >= rule.sites, short


def _same(store: Store, scope: Scope, cubes: Sequence[Cube], without: Collection[str] = ()) -> dict[str, list[Cube]]:
    """Of each memory, by id, those in recall that say the same, and still do."""
    found: dict[str, list[Cube]] = {cube.id: [] for cube in cubes}
    wanted: defaultdict[tuple[str, str], list[Cube]] = defaultdict(list)
    for cube in cubes:
        if words := _words(cube.text):
            wanted[_kind(cube.kind), words].append(cube)
    claims = [cube for cube in cubes if isinstance(cube.data.get("key"), str)]
    for other in store.select(scope, Where(statuses=tuple(RECALLABLE))) if cubes else ():
        if other.id in without or other.valid_to is not None or SUPERSEDED in other.data:
            continue
        same = wanted.get((_kind(other.kind), _words(other.text)), [])
        for cube in (*same, *(some for some in claims if some not in same and _claims_it(other, some))):
            if cube.id != other.id:
                found[cube.id].append(other)
    return found


def _claims_it(turn: Cube, cube: Cube) -> bool:
    """Whether the words of a turn, as the rules read them, fill the slot of a claim with its value.

    A second witness of a claim leaves no fact of its own, so it is the turns that are read. The claim's own words are not in its
    key and could say anything beside it: they may be no others than those of the turn's claim and of the slot.
    """
    value = plain(str(cube.data.get("value", "")))
    if not value or value not in " ".join(turn.text.casefold().split()):
        return False
    who, when = speaker(turn), said_at(turn, _ANY_TIME)
    for claim in (*find_claims(turn.text, who, when), *find_standing(turn.text, who, when)):
        if claim.key == cube.data["key"] and _kind(claim.kind) == _kind(cube.kind):
            known = tokens(f"{claim.text} {claim.subject} {claim.attribute} {claim.value}")
            if set(tokens(cube.text)) <= set(known) and denies(cube.text) == denies(claim.text):
                return True
    return False


def _kind(kind: str) -> str:
    """What lays something down is compared with its like: to mention an instruction in a message is not to give it."""
    return kind if kind in STANDING else Kind.MESSAGE


def _words(text: str) -> str:
    """A text as it is compared: case, articles and the marks around words are left out, and nothing that could change it."""
    found = (word.strip(_MARKS) for word in folded(text).split())
    return " ".join(word for word in found if word and word not in _LEFT_OUT)


def _certified(certificate: Cube) -> tuple[str, Rule] | None:
    """The memory that a certificate says was let out, and by which rule; None for what is no such certificate."""
    data = certificate.data.get("evidence")
    if certificate.data.get("rolled_back") is not False:
        return None
    match data:
        case {"memory": str(id), "inside": int(inside), "sites": int(sites)} if min(inside, sites) >= 2:
            return id, Rule(inside, sites)
    return None


def _home(scope: Scope) -> Scope:
    return Scope(scope.tenant, scope.user)


def _last_reason(store: Store, cube: Cube, scope: Scope) -> str:
    """Why a memory came to its present version."""
    made = [event for event in store.events(scope=scope, id=cube.id) if event.action not in OF_USE]
    return made[-1].reason if made and made[-1].version == cube.version else ""


def _by_rule(store: Store, cube: Cube, scope: Scope) -> bool:
    """Whether it was the rule that let a memory out last, and not a person."""
    let_out = [event.reason for event in store.events(scope=scope, id=cube.id)]
    let_out = [reason for reason in let_out if reason.startswith((RELEASED, _BY_HAND))]
    return bool(let_out) and let_out[-1].startswith(RELEASED)
