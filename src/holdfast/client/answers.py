"""What a server answers, as the types that ``Memory`` gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from holdfast import errors
from holdfast.cube import Channel, Cube, Ref, Scope, utc
from holdfast.errors import HoldfastError, InputError, IntegrityError
from holdfast.guard.base import Dropped
from holdfast.guard.chains import Chain, Effect, EffectKind
from holdfast.guard.lessons import Caution
from holdfast.guard.precedents import Precedents
from holdfast.guard.revocation import Revocation
from holdfast.memory import Added, Change, Page
from holdfast.recipes.base import Guidance, Taken
from holdfast.retrieve.context import Packed
from holdfast.retrieve.hits import Hit, Hits
from holdfast.retrieve.resemblance import Likeness
from holdfast.retrieve.utility import Useful
from holdfast.store.access import Key, Principal, place_of
from holdfast.store.base import Action, Event
from holdfast.store.doctor import Finding
from holdfast.store.forget import Receipt
from holdfast.store.forms import Step
from holdfast.store.grants import Grant, Right
from holdfast.store.journal import Problem
from holdfast.store.rewards import Rewarded

if TYPE_CHECKING:
    from holdfast.guard.release import Releases

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Forgotten(Receipt):
    """The receipt of a server, which looked for what should be gone before it answered. Its ``forms`` are names.

    Fields
        verified: it looked and found nothing.
        problem: what it found.
    """

    verified: bool = False
    problem: str = ""

    def verify(self) -> Forgotten:
        """Say again what the server found; return self. Raises IntegrityError, and InputError for the plan of a dry run."""
        if self.planned:
            raise InputError("nothing was erased yet: this is the plan of a dry run")
        if not self.verified:
            raise IntegrityError(self.problem)
        return self


@dataclass(frozen=True, slots=True)
class Revoked(Revocation):
    """What a server took out of recall, and then looked whether it is; as ``Forgotten``."""

    verified: bool = False
    problem: str = ""

    def verify(self) -> Revoked:
        """Say again what the server found; return self. Raises IntegrityError, and InputError for the plan of a dry run."""
        if self.planned:
            raise InputError("nothing was revoked yet: this is the plan of a dry run")
        if not self.verified:
            raise IntegrityError(self.problem)
        return self


# --- memories ---


def cube(told: Record) -> Cube:
    """One memory."""
    return Cube.from_dict(told)


def cubes(told: Record) -> list[Cube]:
    """Some memories."""
    return [Cube.from_dict(one) for one in told["memories"]]


def packed(told: Record) -> Packed:
    """A context, with the memories in it."""
    return Packed(told["text"], tuple(cubes(told)), told["tokens"])


def added(told: Record) -> Added:
    """What an add did."""
    return Added(*(tuple(told[name]) for name in ("ids", "duplicates", "reasons", "quarantined")))


def page(told: Record) -> Page:
    """A page of many."""
    return Page(tuple(cubes(told)), told["total"], told["next"], when(told["first"]), when(told["last"]))


def change(told: Record) -> Change:
    """A line of history."""
    event = {**told["event"], "at": utc(told["event"]["at"]), "action": Action(told["event"]["action"])}
    event |= {name: bytes.fromhex(event[name]) for name in ("digest", "hash")}
    return Change(Event(**event), None if told["memory"] is None else Cube.from_dict(told["memory"]))


def changes(pages: Sequence[Record]) -> list[Change]:
    """History."""
    return [change(one) for told in pages for one in told["changes"]]


def waiting(pages: Sequence[Record]) -> list[Cube]:
    """What stands in quarantine."""
    return [Cube.from_dict(one["memory"]) for told in pages for one in told["waiting"]]


def ref(told: Record) -> Ref:
    """A version of a memory."""
    return Ref(told["id"], told["version"])


# --- what was found ---


def hit(told: Record) -> Hit:
    """One memory that was found."""
    before, after = (tuple(map(Cube.from_dict, told[name])) for name in ("before", "after"))
    return Hit(Cube.from_dict(told["cube"]), told["score"], told["relevance"], told["channels"], before, after)


def hits(told: Record) -> Hits:
    """What a search found."""
    found = map(hit, told["hits"])
    return Hits(found, abstain=told["abstain"], reason=told["reason"], degraded=tuple(told["degraded"]))


def useful(told: Record) -> Useful:
    """What has helped before, with its token."""
    return Useful(hits(told), told["token"])


def sessions(told: Record) -> list[Likeness]:
    """Sessions that are alike."""
    return [Likeness(**one) for one in told["sessions"]]


def rewarded(told: Record) -> Rewarded:
    """What came of a token."""
    return Rewarded(told["applied"], told["reward"], tuple(told["moved"]), told["unmoved"])


# --- experience and the guard ---


def guidance(told: Record) -> Guidance:
    """What a recipe tells."""
    return Guidance(told["text"], tuple(map(hit, told["hits"])), tuple(map(dropped, told["dropped"])), told["token"])


def taken(told: Record) -> Taken:
    """What became of a run."""
    return Taken(told["case"], *(tuple(told[name]) for name in ("made", "quarantined", "reasons")))


def dropped(told: Record) -> Dropped:
    """What must not be acted upon."""
    return Dropped(hit(told), told["reason"])


def precedents(told: Record) -> Precedents:
    """What was done in a like case."""
    compared = (*told["kept"], *told["dropped"])
    return Precedents(
        told["task"],
        tuple(map(hit, told["kept"])),
        tuple(map(dropped, told["dropped"])),
        told["abstained"],
        told["quorum"],
        told["reason"],
        {one["id"]: _chain(one["leads_to"]) for one in compared if one["leads_to"] is not None},
        cautions(told),
        tuple(told["learnt"]),
        tuple(told["degraded"]),
    )


def cautions(told: Record) -> tuple[Caution, ...]:
    """Lessons that speak of an action."""
    return tuple(
        Caution(one["lesson"], one["operation"], _effects(one), one["hits"], one["confirmations"], tuple(one["taint"]))
        for one in told["cautions"]
    )


def _chain(told: Record) -> Chain:
    return Chain(told["operation"], told["object"], frozenset(_effects(told)), told["text"])


def _effects(told: Record) -> tuple[Effect, ...]:
    return tuple(Effect(EffectKind(one["kind"]), one["target"]) for one in told["effects"])


def releases(told: Record) -> Releases:
    """What came out of quarantine."""
    from holdfast.guard.release import (
        Release,
        Releases,
    )  # the grammars that it reads claims by take a second to compile

    released = tuple(
        Release(Cube.from_dict(one["memory"]), tuple(one["voices"]), tuple(one["because"])) for one in told["released"]
    )
    return Releases(released, tuple(told["withdrawn"]), told["waiting"], told["planned"])


# --- what was taken back ---


def forgotten(told: Record) -> Forgotten:
    """A receipt."""
    return Forgotten(
        Scope.parse(told["scope"]),
        tuple(told["erased"]),
        tuple(told["derived"]),
        told["reason"],
        seq=told["seq"],
        planned=told["planned"],
        notes=tuple(told["notes"]),
        preview=tuple(told.get("preview", ())),
        forms=tuple(map(_step, told["forms"])),
        **_looked(told),
    )


def revoked(told: Record) -> Revoked:
    """A revocation."""
    return Revoked(
        Scope.parse(told["scope"]),
        tuple(told["said"]),
        tuple(told["derived"]),
        tuple(told["doubted"]),
        tuple(told["reopened"]),
        tuple(told["diff"]),
        seq=told["seq"],
        planned=told["planned"],
        forms=tuple(map(_step, told["forms"])),
        **_looked(told),
    )


def _step(told: Record) -> Step:
    return Step(told["holder"], error=told.get("error", ""), measured=told.get("measured", {}))


def _looked(told: Record) -> dict[str, Any]:
    return {"verified": told.get("verified", False), "problem": told.get("problem", "")}


# --- care, and who may do what ---


def problems(told: Record) -> list[Problem]:
    """What does not check."""
    return [Problem(**one) for one in told["found"]]


def findings(told: Record) -> list[Finding]:
    """What a doctor looked at."""
    return [Finding(**one) for one in told["findings"]]


def principal(told: Record) -> Principal:
    """Somebody."""
    doors = frozenset(map(Channel, told["channels"]))
    return Principal(told["id"], told["name"], doors, frozenset(told["authors"]), told["trust"])


def grant(told: Record) -> Grant:
    """Rights on a place."""
    rights, kinds = frozenset(map(Right, told["rights"])), frozenset(told["kinds"])
    return Grant(told["id"], told["name"], *place_of(told["place"]), rights, kinds)


def key(told: Record) -> Key:
    """What is known of a key."""
    return Key(told["id"], told["principal"], told["tail"], when(told["issued"]), when(told["until"]))


# --- parts ---


def when(told: str | None) -> datetime | None:
    """A time."""
    return None if told is None else utc(told)


def error(title: str, detail: str) -> HoldfastError:
    """The error that a server names, as ``Memory`` raises it."""
    kind: Any = errors.AccessError if title == "UnknownKeyError" else getattr(errors, title, InputError)
    if not (isinstance(kind, type) and issubclass(kind, HoldfastError)) or kind is HoldfastError:
        kind = InputError
    try:
        found: HoldfastError = kind(detail)
    except TypeError:  # of a kind that takes more
        return InputError(detail)
    return found
