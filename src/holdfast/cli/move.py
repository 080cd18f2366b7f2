"""The command that moves a whole store: migrate."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from holdfast.cli.options import place, require_store
from holdfast.cli.screen import Screen, count
from holdfast.opening import open_store
from holdfast.retrieve.text import fold_terms
from holdfast.store.moving import move


def register(commands: Any) -> None:
    """Add the command to the parser."""
    to = commands(
        "migrate", migrate, "move a store from a folder to a PostgreSQL database, or back; running it again is safe"
    )
    to.add_argument("source", metavar="FROM", help="a folder, or postgresql://user@host/database")
    to.add_argument("target", metavar="TO", help="likewise; it must be new, or the target of the same move")


def migrate(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast migrate``."""
    require_store(place(args.source))
    source = open_store(place(args.source), terms=fold_terms)
    try:
        target = open_store(place(args.target), terms=fold_terms)
        try:
            with screen.bar(None, "moved", " events") as bar:

                def moved(done: int, total: int) -> None:
                    bar.total = total
                    bar.update(done - bar.n)

                done = move(source, target, moved)
            names = source.name, target.name
        finally:
            target.close()
    finally:
        source.close()
    if screen.json:
        screen.data({"from": names[0], "to": names[1], **asdict(done)})
        return 0
    screen.line(
        f"moved {count(done.events, 'event')} and {count(done.versions, 'version')} to {names[1]}, and it verifies"
    )
    screen.say(f"head {done.head[0]}:{done.head[1]}", indent=2)
    screen.say(
        f"the old store's was {done.before[0]}:{done.before[1]}; keep that store to prove what it says", indent=2
    )
    screen.say(
        "open the new one in your programs now; what is still written to the old one comes with: the same command",
        indent=2,
    )
    return 0
