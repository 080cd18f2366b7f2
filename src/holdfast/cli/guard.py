"""Commands of the guard: what waits in quarantine, a source taken back, canary questions."""

from __future__ import annotations

import argparse
from typing import Any

from holdfast.cli.options import open_memory
from holdfast.cli.screen import Screen, count
from holdfast.cli.work import finish_queue
from holdfast.cube import Cube
from holdfast.errors import InputError
from holdfast.guard.release import Rule
from holdfast.guard.revocation import Revocation
from holdfast.memory import Memory

_SHOWN = 20


def register(commands: Any) -> None:
    """Add these commands to the parser."""
    held = commands("quarantine", quarantine, "show what waits for somebody to look at it, or let it in, or not")
    held.add_argument("--approve", action="append", default=[], metavar="ID", help="let it in; may be repeated")
    held.add_argument("--reject", action="append", default=[], metavar="ID", help="archive it; may be repeated")
    held.add_argument("--release", action="store_true", help="let in what enough independent sources say as well")
    held.add_argument(
        "--inside", type=int, default=None, metavar="N", help="with --release: so many people (default 2)"
    )
    held.add_argument("--sites", type=int, default=None, metavar="N", help="or so many people and sites (default 3)")
    held.add_argument("--dry-run", action="store_true", help="with --release: only show what would come in")
    held.add_argument("--reason", default="", help="kept in the journal")

    back = commands(
        "revoke", revoke, "take a source's memories out of recall, with what was made of them; undo brings all back"
    )
    back.add_argument("--source", help="everything from this source, as given to: holdfast add --source")
    back.add_argument("--author", help="everything that this speaker said")
    back.add_argument("--by", metavar="NAME", help="everything that this principal added; see: holdfast access list")
    back.add_argument("--since", metavar="DATE", help="only what was said since then")
    back.add_argument("--until", metavar="DATE", help="only what was said before then")
    back.add_argument("--reason", default="", help="kept in the journal")
    back.add_argument("--dry-run", action="store_true", help="only show what would go")

    question = commands(
        "canary", canary, "keep a question that must go on finding a memory: a change that ends that is undone"
    )
    question.add_argument("question", nargs="+")
    question.add_argument(
        "--expects", required=True, metavar="ID|WORDS", help="the memory's id, or words that it holds"
    )


def quarantine(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast quarantine``."""
    if args.release:
        return _release(args, screen)
    if args.dry_run or args.inside is not None or args.sites is not None:
        raise InputError("--inside, --sites and --dry-run go with --release")
    with open_memory(args, embed=bool(args.approve)) as memory:
        judged = [memory.approve(id, reason=args.reason) for id in args.approve]
        judged += [memory.reject(id, reason=args.reason) for id in args.reject]
        if args.approve:
            finish_queue(memory, screen)
        waiting = [(cube, _why(memory, cube)) for cube in memory.quarantined()]
    if screen.json:
        screen.data(
            {
                "judged": [cube.to_dict() for cube in judged],
                "waiting": [{"why": why, "memory": cube.to_dict()} for cube, why in waiting],
            }
        )
        return 0
    for cube in judged:
        screen.line(f"{cube.id}: {cube.status}")
    if not waiting:
        screen.line("nothing waits in quarantine")
    for cube, why in waiting:
        screen.say(f"{cube.id}  {cube.kind} from {_whence(cube)}", hang=2, style="bold")
        screen.say(" ".join(cube.text[:300].split()), indent=2, hang=2)
        screen.say(why, indent=2, hang=2)
    return 0


def _release(args: argparse.Namespace, screen: Screen) -> int:
    if args.approve or args.reject:
        raise InputError("--release goes by rule; approve or reject what is left in a call of its own")
    asked = {name: number for name in ("inside", "sites") if (number := getattr(args, name)) is not None}
    with open_memory(args, embed=not args.dry_run) as memory:
        done = memory.release(rule=Rule(**asked), dry_run=args.dry_run)
        if done.released and not done.planned:
            finish_queue(memory, screen)
    if screen.json:
        screen.data(done.to_dict())
        return 0
    would = "would come in" if done.planned else "came in"
    screen.line(f"{count(len(done.released), 'memory', 'memories')} {would}, {len(done.waiting)} wait")
    for one in done.released:
        screen.say(f"{one.cube.id}  {one.cube.kind} from {_whence(one.cube)}", hang=2, style="bold")
        screen.say(" ".join(one.cube.text[:300].split()), indent=2, hang=2)
        screen.say(f"{', '.join(one.voices)} say the same: {', '.join(one.because)}", indent=2, hang=2)
    for id in done.withdrawn:
        screen.line(f"{id}: back into quarantine, for those who said the same are gone")
    for id, why in done.waiting.items():
        screen.say(f"{id}: {why}", hang=2)
    return 0


def revoke(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast revoke``."""
    asked = {name: getattr(args, name) for name in ("source", "author", "by", "since", "until")}
    if not any(asked.values()):
        raise InputError(
            "revoke what? Give --source, --author, --by, --since or --until; --dry-run shows what would go"
        )
    with open_memory(args, embed=False) as memory:
        done = memory.revoke(**asked, reason=args.reason, dry_run=args.dry_run)
    if screen.json:
        screen.data({**done.to_dict(), "diff": list(done.diff)})
        return 0
    screen.line(_summary(done))
    for line in done.diff[:_SHOWN]:
        screen.say(line, indent=2, hang=2)
    if len(done.diff) > _SHOWN:
        screen.line(f"  and {count(len(done.diff) - _SHOWN, 'more memory', 'more memories')}")
    for step in done.forms:
        screen.line(f"  {step.line}")
    if done.seq:
        screen.line(f"bring all of it back with: holdfast undo {done.seq}")
    return 0


def canary(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast canary``."""
    question = " ".join(args.question)
    with open_memory(args) as memory:
        kept = memory.canary(question, args.expects)
        answered = memory.answers(kept)
    if screen.json:
        screen.data({"canary": kept.to_dict(), "answered": answered})
        return 0
    screen.line(f"kept canary {kept.id}")
    if not answered:
        screen.note("the question does not find that memory now, so no change can be blamed for it")
    return 0


def _whence(cube: Cube) -> str:
    return ", ".join(cube.origin.taint) or cube.origin.label


def _why(memory: Memory, cube: Cube) -> str:
    changes = memory.history(cube.id)
    return next((change.event.reason for change in reversed(changes) if change.event.version == cube.version), "")


def _summary(done: Revocation) -> str:
    would = "this would take" if done.planned else "took"
    parts = [
        count(len(done.said), "memory", "memories"),
        f"{len(done.derived)} made of them alone",
        f"{len(done.doubted)} of others' words too, into quarantine",
    ]
    again = f"; {len(done.reopened)} hold again" if done.reopened else ""
    return f"{would} out of recall: {', '.join(parts)}{again}"
