"""Commands about who may do what, and who did: access, audit."""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

from holdfast.cli.options import open_memory
from holdfast.cli.screen import Screen, count
from holdfast.cube import Channel, utc
from holdfast.errors import InputError
from holdfast.store.access import Principal
from holdfast.store.base import Action, Event
from holdfast.store.grants import Grant, Right

LATEST = 50


def register(commands: Any) -> None:
    """Add these commands to the parser."""
    parser = commands("access", None, "who may do what: principals, their grants and keys")
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|add|grant|key|withdraw")
    add = commands.nested(actions, "access")
    listed = add("list", list_access, "everybody who is known, what they may do, and their keys")
    listed.add_argument("name", nargs="?", help="only this principal")

    known = add("add", add_principal, "make a principal known; it may do nothing yet")
    known.add_argument("name")
    known.add_argument(
        "--channel", action="append", default=[], metavar="NAME", help=f"a door it may write by: {', '.join(Channel)}"
    )
    known.add_argument("--author", action="append", default=[], metavar="NAME", help="in whose name it may write")
    known.add_argument("--trust", type=float, default=1.0, help="nothing that it writes is trusted more (default: 1)")

    given = add("grant", grant, "give a principal rights on a place")
    given.add_argument("name")
    given.add_argument("place", help="tenant/user[/agent[/session]], * for any; for example acme/*")
    given.add_argument(
        "--right",
        action="append",
        required=True,
        choices=[right.value for right in Right],
        help="may be repeated",
        metavar="|".join(Right),
    )
    given.add_argument("--kind", action="append", default=[], metavar="KIND", help="only these kinds; may be repeated")
    given.add_argument("--until", metavar="DATE", help="when it ends")

    made = add("key", issue, "make a key for a principal; it is shown this once")
    made.add_argument("name")
    made.add_argument("--days", type=float, metavar="N", help="how long it lasts (default: until it is withdrawn)")

    gone = add("withdraw", withdraw, "withdraw a principal with all it has, or one grant or key")
    gone.add_argument("what", metavar="NAME|ID", help="a principal's name, or the id of a grant or a key")
    gone.add_argument("--reason", default="", help="kept in the journal")

    told = commands("audit", audit, "who changed what, in the whole store; also checks that nobody rewrote the journal")
    told.add_argument("--by", metavar="NAME", help="only what this principal, or this scope, did")
    told.add_argument("--on", metavar="TENANT/USER", help="only changes of this user's memories")
    told.add_argument("--action", choices=[action.value for action in Action], metavar="|".join(Action))
    told.add_argument("--since", metavar="DATE")
    told.add_argument("--until", metavar="DATE")
    told.add_argument("--limit", type=int, default=LATEST, metavar="N", help=f"only the newest N (default: {LATEST})")


def list_access(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast access list``."""
    with open_memory(args, embed=False, personal=False) as memory:
        access = memory.access
        principals = [one for one in access.principals() if args.name in (None, one.name)]
        grants, keys = access.grants(args.name), access.keys(args.name)
    if screen.json:
        screen.data(
            {
                "principals": [_principal(one) for one in principals],
                "grants": [_grant(one) for one in grants],
                "keys": [
                    {"id": key.id, "principal": key.principal, "tail": key.tail, "until": _iso(key.until)}
                    for key in keys
                ],
            }
        )
        return 0
    if not principals:
        screen.line("nobody is known here but the owner; make somebody known with: holdfast access add NAME")
    for one in principals:
        screen.heading(one.name)
        screen.say(_limits(one), indent=2, hang=2)
        for grant in grants:
            if grant.principal == one.name:
                kinds = f", only {', '.join(sorted(grant.kinds))}" if grant.kinds else ""
                screen.say(
                    f"may {', '.join(sorted(grant.rights))} in {grant.place}{kinds}  ({grant.id})", indent=2, hang=2
                )
        for key in keys:
            if key.principal == one.name:
                until = f" until {_iso(key.until)}" if key.until else ""
                screen.say(f"has a key that ends in {key.tail}{until}  ({key.id})", indent=2, hang=2)
    return 0


def add_principal(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast access add``."""
    with open_memory(args, embed=False, create=True, personal=False) as memory:
        kept = memory.access.enrol(args.name, channels=args.channel, authors=args.author, trust=args.trust)
    if screen.json:
        screen.data(_principal(kept))
    else:
        screen.line(
            f"{kept.name} is known, and may do nothing yet; next: holdfast access grant {kept.name} PLACE --right read"
        )
    return 0


def grant(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast access grant``."""
    until = None if args.until is None else utc(args.until)
    with open_memory(args, embed=False, personal=False) as memory:
        given = memory.access.grant(args.name, args.place, args.right, kinds=args.kind, until=until)
    if screen.json:
        screen.data(_grant(given))
    else:
        screen.line(f"{given.principal} may {', '.join(sorted(given.rights))} in {given.place}")
    return 0


def issue(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast access key``."""
    if args.days is not None and not 0 < args.days < 100_000:
        raise InputError("--days must be a number above 0")
    with open_memory(args, embed=False, personal=False) as memory:
        until = None if args.days is None else memory.store.now() + timedelta(days=args.days)
        key = memory.access.issue(args.name, until=until)
    if screen.json:
        screen.data({"principal": args.name, "key": key, "until": _iso(until)})
    else:
        screen.line(key)
        screen.note("this is shown once; the store keeps its hash alone. Use it with --key or HOLDFAST_KEY")
    return 0


def withdraw(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast access withdraw``."""
    with open_memory(args, embed=False, personal=False) as memory:
        ids = memory.access.withdraw(args.what, reason=args.reason)
    if screen.json:
        screen.data({"withdrawn": list(ids)})
    else:
        screen.line(f"withdrawn: {count(len(ids), 'entry', 'entries')}")
    return 0


def audit(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast audit``; 1 where the journal does not check."""
    if args.limit < 1:
        raise InputError("--limit must be at least 1")
    since, until = (None if when is None else utc(when) for when in (args.since, args.until))
    with open_memory(args, embed=False, personal=False) as memory:
        problems = memory.verify()
        seq, head = memory.store.head()
        found = [
            event
            for event in memory.store.events()
            if args.by in (None, event.actor)
            and args.on in (None, event.partition)
            and args.action in (None, event.action)
            and (since is None or since <= event.at)
            and (until is None or event.at < until)
        ]
    shown = found[-args.limit :]
    if screen.json:
        screen.data(
            {
                "verified": not problems,
                "problems": [str(problem) for problem in problems],
                "head": {"seq": seq, "hash": head},
                "left_out": len(found) - len(shown),
                "events": [_event(event) for event in shown],
            }
        )
        return 1 if problems else 0
    rows = [
        (event.seq, f"{event.at:%Y-%m-%d %H:%M:%S}", event.actor, event.action, event.partition, event.id, event.reason)
        for event in shown
    ]
    if rows:
        screen.table(rows, ("event", "when (UTC)", "who", "what", "whose", "memory", "why"))
    else:
        screen.line("the journal holds no such change")
    if len(shown) < len(found):
        screen.note(f"not shown: {count(len(found) - len(shown), 'older event')}; see them with --limit {len(found)}")
    for problem in problems:
        screen.note(str(problem))
    screen.line(
        "the journal does not check: see holdfast doctor"
        if problems
        else f"the journal checks up to event {seq}: {head}"
    )
    return 1 if problems else 0


def _principal(one: Principal) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "channels": sorted(one.channels),
        "authors": sorted(one.authors),
        "trust": one.trust,
    }


def _grant(one: Grant) -> dict[str, Any]:
    return {
        "id": one.id,
        "principal": one.principal,
        "place": one.place,
        "rights": sorted(one.rights),
        "kinds": sorted(one.kinds),
    }


def _event(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "transaction": event.txn,
        "at": event.at.isoformat(),
        "actor": event.actor,
        "action": str(event.action),
        "partition": event.partition,
        "id": event.id,
        "version": event.version,
        "reason": event.reason,
    }


def _limits(one: Principal) -> str:
    doors = ", ".join(sorted(one.channels)) or "any channel but system and import"
    names = ", ".join(sorted(one.authors)) or "anybody"
    return f"writes by {doors}, in the name of {names}, trusted up to {one.trust:g}"


def _iso(when: Any) -> str | None:
    return None if when is None else when.isoformat()
