"""The commands that erase for good, with a preview, a question and a receipt that is verified, and that show receipts again."""

from __future__ import annotations

import argparse
from typing import Any

from holdfast.cli.options import open_memory
from holdfast.cli.screen import Screen, count
from holdfast.errors import InputError
from holdfast.store.forget import Receipt
from holdfast.store.receipts import Kept

_SHOWN = 20


def register(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands("forget", forget, "erase memories for good, with all that was derived from them")
    parser.add_argument("--id", action="append", default=[], metavar="ID", help="this memory; may be repeated")
    parser.add_argument("--source", help="everything from this source, as given to: holdfast add --source")
    parser.add_argument("--author", help="everything that this speaker said")
    parser.add_argument("--since", metavar="DATE", help="everything said since then")
    parser.add_argument("--all", action="store_true", help="the whole memory of the user (or agent, or session)")
    parser.add_argument("--reason", default="", help="kept in the journal; write no secret into it")
    parser.add_argument("--dry-run", action="store_true", help="only show what would go")
    parser.add_argument("--yes", action="store_true", help="do not ask")

    kept = commands("receipts", receipts, "what was forgotten, as the journal keeps it; one receipt is looked at again")
    kept.add_argument(
        "seq", nargs="?", type=int, help="an event of an erasure: all its ids, and whether anything is left"
    )
    kept.add_argument("--limit", type=int, default=_SHOWN, metavar="N", help=f"the newest N (default: {_SHOWN})")


def forget(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast forget``."""
    filters = {"source": args.source, "author": args.author, "since": args.since}
    if not args.id and not args.all and not any(filters.values()):
        raise InputError("forget what? Give --id, --source, --author, --since, or --all; --dry-run shows what would go")
    if args.all and (args.id or any(filters.values())):
        raise InputError("--all means everything; leave out --id, --source, --author and --since")
    with open_memory(args, embed=False) as memory:
        plan = memory.forget(args.id, **filters, everything=args.all, reason=args.reason, dry_run=True)
        if args.dry_run or not plan.ids:
            _plan(screen, plan)
            return 0
        if not args.yes:
            if not screen.can_ask():
                raise InputError(f"this would erase {_count(plan)} for good; say so with --yes, or look with --dry-run")
            _plan(screen, plan)
            if not screen.ask("Erase this for good?"):
                screen.note("nothing was erased")
                return 1
        # What was shown is what goes: a memory that arrives between the question and the answer stays.
        named = [id for id in plan.ids if id not in set(plan.derived)]
        receipt = memory.forget(named, reason=args.reason)
        receipt.verify()
        _, head = memory.store.head()
    if screen.json:
        screen.data({**receipt.to_dict(), "verified": True, "head": head})
        return 0
    receipt_lines(screen, receipt)
    return 0


def receipts(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast receipts``; 1 where something is left of what one says is gone."""
    if args.limit < 1:
        raise InputError("--limit must be at least 1")
    with open_memory(args, embed=False) as memory:
        if args.seq is not None:
            one, left = memory.store.receipt(args.seq, memory.scope())
            if screen.json:
                screen.data({**one.to_dict(), "left": left})
            else:
                _kept_lines(screen, one, left)
            return 1 if left else 0
        found = memory.store.receipts(memory.scope(), limit=args.limit + 1)
    more, found = len(found) > args.limit, found[: args.limit]
    if screen.json:
        screen.data({"receipts": [one.to_dict() for one in found], "more": more})
        return 0
    if not found:
        screen.line("nothing was ever forgotten here")
        return 0
    rows = [(one.seq, f"{one.at:%Y-%m-%d %H:%M}", one.by, _counted(one), one.reason) for one in found]
    screen.table(rows, ("event", "when (UTC)", "who", "what", "why"), wide=4)
    if more:
        screen.note(f"there are older ones; see them with: holdfast receipts --limit {2 * args.limit}")
    return 0


def _kept_lines(screen: Screen, one: Kept, left: list[str]) -> None:
    screen.line(f"forgotten: {_counted(one)}")
    clean = "no row and no index entry of them is there, and their events are as they were written"
    rows = [
        ("receipt", f"event {one.seq} of the journal"),
        ("when", f"{one.at:%Y-%m-%d %H:%M} UTC"),
        ("who", one.by),
        ("reason", one.reason),
        ("ids", " ".join(one.ids)),
        *(("left", some) for some in left),
        ("looked at again", "" if left else clean),
    ]
    screen.table([row for row in rows if row[1]], wide=1)


def receipt_lines(screen: Screen, receipt: Receipt) -> None:
    """A verified receipt."""
    screen.line(f"forgotten: {_count(receipt)}")
    rows = [
        ("receipt", f"event {receipt.seq} of the journal"),
        ("scope", receipt.scope.path),
        ("reason", receipt.reason),
        *(("in other forms", step.line) for step in receipt.forms),
        ("verified", "no row, no index entry and no byte of their words is left in the store's files"),
        *(("note", note) for note in receipt.notes),
    ]
    screen.table([row for row in rows if row[1]], wide=1)


def _plan(screen: Screen, plan: Receipt) -> None:
    if screen.json:
        screen.data({**plan.to_dict(), "preview": list(plan.preview), "verified": False})
        return
    if not plan.ids:
        screen.line("nothing matches, so nothing would be erased")
        return
    screen.line(f"this would erase {_count(plan)} for good:")
    for line in plan.preview[:_SHOWN]:
        screen.say(line, indent=2, hang=2)
    if len(plan.preview) > _SHOWN:
        screen.line(f"  and {count(len(plan.preview) - _SHOWN, 'more version')}")
    for step in plan.forms:
        screen.line(f"  in other forms, {step.line}")


def _count(receipt: Receipt) -> str:
    return _said(len(receipt.ids), len(receipt.derived))


def _counted(one: Kept) -> str:
    return _said(one.count, one.followed)


def _said(many: int, derived: int) -> str:
    named = count(many - derived, "memory", "memories")
    return f"{named} and {derived} derived from them" if derived else named
