"""Poisoned runs in an agent's experience, for memories that learn from runs: the doors that graft and plans do not try.

An account may do the same many times, several may do the same in step, and a run may order in words what its calls do not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from holdfast.cube import Channel, Kind
from holdfast.guard.attacks import graft, plans
from holdfast.guard.attacks.base import Said
from holdfast.guard.attacks.records import Records
from holdfast.guard.attacks.static import INTRUDER, Static, by_account

MANY = 5
"""So often an account does the same; and so many accounts do the same, against three of the team."""


def experienced(attacks: Sequence[Static]) -> list[Static]:
    """Those that bring experiences: what is only read or noted is no run, and no recipe makes anything of it."""
    return [one for one in attacks if {said.kind for said in one.attack.poison} <= {Kind.EXPERIENCE, Kind.SKILL}]


def grafts(*, full: bool = False) -> list[Static]:
    """Grafted experiences by every door."""
    published = graft.variants(full=full)
    whole = published[0]
    records = whole.attack.poison
    return [
        *experienced(published),
        _of(whole, "one account", by_account(records)),
        _of(whole, f"one account, {MANY} times", by_account(graft.attack(copies=MANY).poison)),
        _of(whole, f"{MANY} accounts that do the same", _together(records)),
        _of(whole, "in words alone, one account", _worded(by_account(records))),
    ]


def planned(records: Records) -> list[Static]:
    """Plans by every door."""
    published = plans.variants(records)
    whole = next(one for one in published if one.attack.name == "plans, one account")
    first = {said.text.partition("\n")[0]: said for said in reversed(whole.attack.poison)}
    return [
        *experienced(published),
        _of(whole, f"plans, {MANY} accounts that do the same", _together(tuple(first.values()))),
    ]


def _of(whole: Static, name: str, poison: tuple[Said, ...]) -> Static:
    return replace(whole, attack=replace(whole.attack, name=name, poison=poison), adaptive=True)


def _together(records: Sequence[Said]) -> tuple[Said, ...]:
    accounts = (INTRUDER, *(f"account-{at}" for at in range(1, MANY)))
    return tuple(replace(said, channel=Channel.ASSISTANT, source=account) for said in records for account in accounts)


def _worded(records: Sequence[Said]) -> tuple[Said, ...]:
    """The same words, and a record of having called nothing."""
    return tuple(replace(said, data={**said.data, "steps": []}) for said in records)
