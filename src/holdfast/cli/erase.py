"""The command that erases for good: forget, with a preview, a question, and a receipt that is verified."""

from __future__ import annotations

import argparse
from typing import Any

from holdfast.cli.options import open_memory
from holdfast.cli.screen import Screen, count
from holdfast.errors import InputError
from holdfast.store.forget import Receipt

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
    derived = len(receipt.derived)
    named = count(len(receipt.ids) - derived, "memory", "memories")
    return f"{named} and {derived} derived from them" if derived else named
