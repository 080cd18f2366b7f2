"""Commands that keep and amend: add, correct, feedback, retract, restore."""

from __future__ import annotations

import argparse
import json
import re
import sys
from datetime import timedelta
from typing import Any

from holdfast.cli.options import announce_new, open_memory
from holdfast.cli.recall import notes
from holdfast.cli.screen import Screen, count
from holdfast.cli.work import finish_queue
from holdfast.cube import Channel, Kind
from holdfast.errors import InputError

_SPAN = re.compile(r"([0-9]{1,12})\s*(s|m|h|d|w)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def register(commands: Any) -> None:
    """Add these commands to the parser."""
    keep = commands("add", add, "keep a memory; '-' reads it from standard input")
    keep.add_argument("text", nargs="+", help="the words, quoted or not; '-' reads standard input")
    keep.add_argument(
        "--kind", default=str(Kind.MESSAGE), help="message, fact, event, preference, ... (default: message)"
    )
    keep.add_argument("--channel", default=str(Channel.USER), help=f"one of {', '.join(Channel)} (default: user)")
    keep.add_argument("--author", help="who says so")
    keep.add_argument("--source", help="where it comes from, for example mail:42 or a URL")
    keep.add_argument("--trust", type=float, metavar="0..1", help="how far it is trusted (default: by channel)")
    keep.add_argument("--at", metavar="DATE", help="when it was said or became true, for example 2026-01-31")
    keep.add_argument("--data", metavar="JSON", help="kept beside the words, for example the steps of an experience")
    keep.add_argument("--ttl", metavar="SPAN", help="forget it after 30m, 12h, 7d, 2w")

    amended = commands("correct", correct, "give a memory other words; the old ones stay in history")
    amended.add_argument("id")
    amended.add_argument("text", nargs="+")
    amended.add_argument("--reason", default="")

    judged = commands("feedback", feedback, "say how well memories served")
    judged.add_argument("id", nargs="+")
    judged.add_argument("--reward", type=float, required=True, help="from -1 (harmful) to 1 (what was needed)")

    hidden = commands("retract", retract, "take a memory out of recall; it stays in history")
    hidden.add_argument("id")
    hidden.add_argument("--reason", default="")

    back = commands("restore", restore, "bring a retracted or expired memory back")
    back.add_argument("id")
    back.add_argument("--reason", default="")


def add(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast add``."""
    text = sys.stdin.read() if args.text == ["-"] else " ".join(args.text)
    ttl = _span(args.ttl) if args.ttl else None
    data = _object(args.data) if args.data else None
    new = announce_new(args)
    with open_memory(args, create=True) as memory:
        done = memory.add(
            text.rstrip("\n") if args.text == ["-"] else text,
            kind=args.kind,
            channel=args.channel,
            author=args.author,
            source=args.source,
            trust=args.trust,
            at=args.at,
            ttl=ttl,
            data=data,
        )
        degraded = memory.degraded
        finish_queue(memory, screen)
    if screen.json:
        answer = {"ids": list(done.ids), "duplicates": list(done.duplicates), "quarantined": list(done.quarantined)}
        answer["reasons"] = list(done.reasons)
        screen.data({**answer, "degraded": degraded})
        return 0 if done else 1
    if new:
        screen.note(new)
    for id in done.ids:
        screen.line(f"kept {id}")
    for id in done.duplicates:
        screen.line(f"known already: {id}")
    for id in done.quarantined:
        screen.line(f"in quarantine: {id}; see: holdfast quarantine")
    for reason in done.reasons:
        screen.note(f"{'it waits' if done.quarantined else 'nothing was kept'}: {reason}")
    notes(screen, degraded)
    return 0 if done else 1


def correct(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast correct``."""
    with open_memory(args) as memory:
        before = memory.get(args.id)
        after = memory.correct(args.id, " ".join(args.text), reason=args.reason)
        finish_queue(memory, screen)
    if screen.json:
        screen.data({"memory": after.to_dict(), "before": before.to_dict()})
        return 0
    screen.line(f"corrected {after.id}: version {before.version} is history, version {after.version} is recalled")
    return 0


def feedback(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast feedback``."""
    with open_memory(args, embed=False) as memory:
        unmoved = memory.feedback(args.id, args.reward)
        uses = {id: memory.get(id).use for id in args.id}
    if screen.json:
        said = [{"id": id, "visits": use.visits, "utility": use.utility} for id, use in uses.items()]
        screen.data({"uses": said, "unmoved": unmoved})
        return 0
    for id, reason in unmoved.items():
        screen.line(f"{id}: {reason}")
    for id, use in uses.items():
        screen.line(f"{id}: used {count(use.visits, 'time')}, utility {use.utility:+.2f}")
    return 0


def retract(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast retract``."""
    with open_memory(args, embed=False) as memory:
        memory.retract(args.id, reason=args.reason)
        cube = memory.get(args.id)
    if screen.json:
        screen.data({"memory": cube.to_dict()})
        return 0
    screen.line(f"retracted {cube.id}: out of recall, still in history. Bring it back with: holdfast restore {cube.id}")
    return 0


def restore(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast restore``."""
    with open_memory(args) as memory:
        cube = memory.restore(args.id, reason=args.reason)
        finish_queue(memory, screen)
    if screen.json:
        screen.data({"memory": cube.to_dict()})
        return 0
    screen.line(f"restored {cube.id}: it is recalled again")
    return 0


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"--data is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError('--data must be a JSON object, for example {"steps": []}')
    return found


def _span(text: str) -> timedelta:
    match = _SPAN.fullmatch(text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise InputError(f"{text!r} is not a span of time; write it as 30m, 12h, 7d or 2w")
    try:
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError as error:
        raise InputError(f"{text!r} is too long a span of time; leave --ttl out to keep it for good") from error
