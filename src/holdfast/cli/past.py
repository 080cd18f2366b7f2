"""Commands about what was: history, undo, lineage."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from holdfast.cli.options import open_memory
from holdfast.cli.screen import Screen, count
from holdfast.cli.work import finish_queue
from holdfast.cube import Cube
from holdfast.errors import InputError, NotFoundError
from holdfast.memory import Change, Memory
from holdfast.store.base import OF_USE, Action

LATEST = 20
_WORDS = 300


def register(commands: Any) -> None:
    """Add these commands to the parser."""
    told = commands("history", history, "the journal of one memory or of a user: what changed, when, by whom")
    told.add_argument("id", nargs="?", help="a memory; without it, the whole journal of the user")
    told.add_argument("--since", type=int, default=0, metavar="SEQ", help="only events after this one")
    told.add_argument("--limit", type=int, metavar="N", help=f"only the newest N (default: {LATEST} without an id)")

    back = commands("undo", undo, "take back the change that an event belongs to; an undo can be undone")
    back.add_argument("seq", type=int, help="the event's number, from: holdfast history")
    back.add_argument("--reason", default="")

    tree = commands("lineage", lineage, "what was derived from a memory, or with --up what it was derived from")
    tree.add_argument("id")
    tree.add_argument("--up", action="store_true", help="the sources instead")


def history(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast history``."""
    limit = args.limit if args.limit is not None else None if args.id else LATEST
    if limit is not None and limit < 1:
        raise InputError("--limit must be at least 1")
    with open_memory(args, embed=False) as memory:
        if args.id:
            _known(memory, args.id)
        changes = memory.history(args.id, since=args.since)
        left_out = max(0, len(changes) - limit) if limit is not None else 0
        changes = changes[left_out:]
        befores = [before(memory, change) for change in changes]
    if screen.json:
        events = [change_dict(change, old) for change, old in zip(changes, befores, strict=True)]
        screen.data({"id": args.id, "left_out": left_out, "events": events})
        return 0
    if not changes:
        screen.line("the journal holds nothing here")
        return 0
    for change, old in zip(changes, befores, strict=True):
        change_lines(screen, change, old)
    if left_out:
        screen.note(
            f"not shown: {count(left_out, 'older event')}; see them with: holdfast history --limit {left_out + len(changes)}"
        )
    return 0


def undo(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast undo``."""
    with open_memory(args) as memory:
        cubes = memory.undo(args.seq, reason=args.reason)
        event = memory.store.newest(memory.scope())  # before the queue: what it draws is a change of its own
        finish_queue(memory, screen)
    if screen.json:
        screen.data({"undone": args.seq, "event": event, "memories": [cube.to_dict() for cube in cubes]})
        return 0
    changed = count(len(cubes), "memory", "memories")
    screen.line(f"undone: {changed} changed; take this back with: holdfast undo {event}")
    for cube in cubes[:10]:
        screen.say(f"{cube.id}  {cube.status}  {_short(cube.text)}", indent=2, hang=2)
    if len(cubes) > 10:
        screen.line(f"  and {len(cubes) - 10} more")
    return 0


def lineage(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast lineage``."""
    with open_memory(args, embed=False) as memory:
        refs = memory.lineage(args.id, down=not args.up)
        cubes = []
        for ref in refs:
            with suppress(NotFoundError):  # a version that was erased, or that another session keeps
                cubes.append(memory.get(ref.id, version=ref.version))
    if screen.json:
        key = "derived_from" if args.up else "derived"
        screen.data({"id": args.id, key: [cube.to_dict() for cube in cubes]})
        return 0
    if not cubes:
        screen.line("it was derived from nothing" if args.up else "nothing was derived from it")
    for cube in cubes:
        screen.say(f"{cube.id}  version {cube.version}  {cube.kind}  {_short(cube.text)}", hang=2)
    return 0


# --- how a change looks ---


def before(memory: Memory, change: Change, **scope: str | None) -> Cube | None:
    """The version before the one that a change made, where there is one."""
    if change.cube is None or change.event.version < 2 or change.event.action in OF_USE:
        return None
    with suppress(NotFoundError):
        return memory.get(change.event.id, version=change.event.version - 1, **scope)
    return None


def change_dict(change: Change, old: Cube | None) -> dict[str, Any]:
    """A change as JSON: the event, and the memory before and after (null where erased or none)."""
    event = change.event
    return {
        "seq": event.seq,
        "txn": event.txn,
        "at": event.at.isoformat(),
        "actor": event.actor,
        "action": str(event.action),
        "id": event.id,
        "version": event.version,
        "reason": event.reason,
        "hash": event.hash.hex(),
        "before": old.to_dict() if old else None,
        "after": change.cube.to_dict() if change.cube and event.action not in OF_USE else None,
    }


def change_lines(screen: Screen, change: Change, old: Cube | None, *, indent: int = 0) -> None:
    """A change as lines: the event; the words before (-) and after (+), and what else differs."""
    event, new = change.event, change.cube
    kind = f" {new.kind}" if new else ""
    head = f"{event.seq:>6}  {event.at:%Y-%m-%d %H:%M:%S}  {event.action}{kind}  {event.id}"
    screen.say(head, indent=indent, hang=8, style="bold")
    about = [f"by {event.actor}" if event.actor else "", f"because: {event.reason}" if event.reason else ""]
    lines = ["; ".join(part for part in about if part)]
    if event.action == Action.PURGE:
        lines.append("erased for good; its words are gone from every version")
    elif new is None:
        lines.append("its words were erased later")
    elif event.action == Action.FEEDBACK:
        lines.append(f"reward {event.reason} for: {_short(new.text)}")
    elif event.action == Action.REWARD:
        lines.append(f"a recall was rewarded by {event.reason}; the first that it told: {_short(new.text)}")
    elif old is None:
        lines.append(f"+ {_short(new.text)}")
    elif old.text != new.text:
        lines += [f"- {_short(old.text)}", f"+ {_short(new.text)}", *differences(old, new)]
    else:
        lines += [f"= {_short(new.text)}", *differences(old, new)]
    for line in lines:
        if line:
            screen.say(line, indent=indent + 8, hang=2)


def differences(old: Cube, new: Cube) -> Sequence[str]:
    """What else than the words differs between two versions, a line each."""
    pairs = {
        "status": (old.status, new.status),
        "kind": (old.kind, new.kind),
        "true from": (old.valid_from, new.valid_from),
        "true until": (old.valid_to, new.valid_to),
        "expires": (old.policy.expires_at, new.policy.expires_at),
        "trust": (old.origin.trust, new.origin.trust),
    }
    return [f"{name}: {_value(was)} → {_value(now)}" for name, (was, now) in pairs.items() if was != now]


def _value(value: Any) -> str:
    if value is None:
        return "open"
    return f"{value:%Y-%m-%d %H:%M}" if hasattr(value, "strftime") else str(value)


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _WORDS else flat[:_WORDS].rsplit(" ", 1)[0] + " …"


def _known(memory: Memory, id: str) -> None:
    """Raise NotFoundError for an id that was never here; one that was forgotten still has its events."""
    if not memory.history(id):
        memory.get(id)
