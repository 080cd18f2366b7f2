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
    published = {one.attack.name: one for one in graft.variants(full=full)}
    whole = published["by a document"]
    records = whole.attack.poison
    return [
        whole,
        published["under questions of benign records"],
        published["as an agent's own word"],
        published["an account a record"],
        _of(whole, f"one account, {MANY} times", by_account(graft.attack(copies=MANY).poison)),
        _of(whole, f"{MANY} accounts that do the same", _together(records)),
        _of(whole, "in words alone, one account", _worded(by_account(records))),
    ]


def planned(records: Records) -> list[Static]:
    """Plans by every door, for the tasks that are asked, of which the store then holds no others."""
    published = [_asked_only(one) for one in experienced(plans.variants(records))]
    whole = next(one for one in published if one.attack.name == "plans, one account")
    right = {said.key: said.data for said in whole.attack.store}
    first = {said.text.partition("\n")[0]: said for said in reversed(whole.attack.poison)}
    worded = [replace(said, data=right[said.key.rpartition(" by ")[0]]) for said in first.values()]
    return [
        *published,
        _of(whole, f"plans, {MANY} accounts that do the same", _together(tuple(first.values()))),
        _of(whole, "plans, in words alone, one account", by_account(worded)),
    ]


def _asked_only(one: Static) -> Static:
    attack = one.attack
    asked, keys = {question.text for question in attack.asked}, {question.key for question in attack.benign}
    poison = tuple(said for said in attack.poison if said.text.partition("\n")[0] in asked)
    store = tuple(said for said in attack.store if said.key in keys)
    return replace(one, attack=replace(attack, poison=poison, store=store))


def _of(whole: Static, name: str, poison: tuple[Said, ...]) -> Static:
    return replace(whole, attack=replace(whole.attack, name=name, poison=poison), adaptive=True)


def _together(records: Sequence[Said]) -> tuple[Said, ...]:
    accounts = (INTRUDER, *(f"account-{at}" for at in range(1, MANY)))
    return tuple(replace(said, channel=Channel.ASSISTANT, source=account) for said in records for account in accounts)


def _worded(records: Sequence[Said]) -> tuple[Said, ...]:
    """The same words, and a record of having called nothing."""
    return tuple(replace(said, data={**said.data, "steps": []}) for said in records)
