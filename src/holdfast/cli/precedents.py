"""Commands before acting: precedents, lessons."""

from __future__ import annotations

import argparse
from typing import Any

from holdfast.cli.excerpt import excerpt
from holdfast.cli.options import open_memory
from holdfast.cli.recall import hit_lines, notes, sentence, waiting_note
from holdfast.cli.screen import Screen, count
from holdfast.cli.work import finish_queue
from holdfast.cube import Cube, Status
from holdfast.errors import InputError
from holdfast.guard.chains import Ask, Chain
from holdfast.guard.lessons import Caution
from holdfast.guard.precedents import K, Precedents


def register(commands: Any) -> None:
    """Add these commands to the parser."""
    asked = commands(
        "precedents",
        precedents,
        "what was done in a like case and may be acted upon: what a quorum of sources agrees on; exits 0 only where there is any",
    )
    asked.add_argument("task", nargs="+", help="what is to be done, quoted or not")
    asked.add_argument("-k", type=int, default=K, metavar="K", help=f"compare so many at most (default: {K})")
    asked.add_argument(
        "--min-sources", type=int, default=2, metavar="N", help="trusted sources that an effect needs (default: 2)"
    )
    asked.add_argument("--model", metavar="NAME", help="let this chat model read what each record would lead to")
    asked.add_argument("--base-url", metavar="URL", help="the model's server (default: OpenAI's, with OPENAI_API_KEY)")
    asked.add_argument("--judge", action="store_true", help="drop what the model does not find consistent and safe")
    asked.add_argument("--no-lessons", action="store_true", help="draw no lesson from what is caught")
    asked.add_argument("--full", action="store_true", help="show whole texts, not the part that the task is about")

    held = commands("lessons", lessons, "what was caught before it was acted upon, and warns; confirm or retract it")
    held.add_argument("--confirm", action="append", default=[], metavar="ID", help="it is right; may be repeated")
    held.add_argument("--retract", action="append", default=[], metavar="ID", help="a false alarm; may be repeated")


def precedents(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast precedents``; 0 only where something may be acted upon."""
    task = " ".join(args.task)
    if args.base_url and not args.model:
        raise InputError("--base-url names the server of a chat model; name the model too, with --model")
    model = _model(args)
    with open_memory(args) as memory:
        found = memory.precedents(
            task,
            k=args.k,
            model=model,
            judge=args.judge,
            min_sources=args.min_sources,
            learn=not args.no_lessons,
        )
        if found.learnt:
            finish_queue(memory, screen)
        waiting = waiting_note(memory)
    if screen.json:
        screen.data({**found.to_dict(), "warning": found.warning})
    else:
        _show(screen, found, args.full)
        notes(screen, [*found.degraded, *waiting])
    return 0 if found else 1


def lessons(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast lessons``."""
    with open_memory(args, embed=False) as memory:
        own = memory.lessons()
        judged = [own.confirm(id) for id in args.confirm] + [own.retract(id) for id in args.retract]
        standing = own.all()
        event = memory.store.journal_head(memory.scope())[0]
    if screen.json:
        screen.data({"judged": [_told(cube) for cube in judged], "lessons": [_told(cube) for cube in standing]})
        return 0
    for cube in judged:
        screen.line(f"{cube.id}: {'warns' if cube.status is Status.ARCHIVED else 'warns no more'}")
    if judged:
        screen.line(f"take the last of this back with: holdfast undo {event}")
    if not standing:
        screen.line("there are no lessons")
    for cube in standing:
        told = _told(cube)
        screen.say(f"{cube.id}  {told['text']}", hang=2, style="bold")
        screen.say(f"where it is about: {' '.join(told['context'])}", indent=2, hang=2)
        counts = f"caught {count(told['hits'], 'time')}, confirmed {count(told['confirmations'], 'time')}"
        screen.say(f"{counts}; from {count(len(told['sources']), 'record')}; until {told['until'][:10]}", indent=2)
    return 0


def _model(args: argparse.Namespace) -> Ask | None:
    if not args.model:
        return None
    from holdfast.guard.chat import ChatModel

    return ChatModel(args.model, base_url=args.base_url)


def _show(screen: Screen, found: Precedents, full: bool) -> None:
    if found.abstained:
        screen.say(f"Nothing here may be acted upon: {found.reason}.", hang=2, style="bold")
    else:
        share = f"{found.quorum:.0%} of the votes agree"
        screen.say(f"May be acted upon ({share}):", style="bold")
    for rank, hit in enumerate(found.kept, 1):
        hit_lines(screen, rank, hit, found.task, full=full, id=True)
        screen.say(f"leads to: {_leads(found.chains.get(hit.id))}", indent=4, hang=2, style="dim")
    if found.dropped:
        screen.heading("Not to be acted upon")
    for one in found.dropped:
        whose = one.hit.cube.origin.author or str(one.hit.cube.origin.channel)
        screen.say(f"{one.hit.id}  {whose}: {excerpt(one.hit.text, found.task, 160)}", indent=1, hang=3)
        screen.say(sentence(one.reason), indent=4, hang=2, style="dim")
    if found.cautions:
        screen.heading("Caught before")
    for caution in found.cautions:
        new = " (just now)" if caution.id in found.learnt else ""
        screen.say(f"{caution.id}  {_caught(caution)}{new}", indent=1, hang=3)


def _leads(chain: Chain | None) -> str:
    if chain is None:
        return "unknown"
    effects = ", ".join(map(str, sorted(chain.effects))) or "no effect"
    return f"{' '.join(part for part in (chain.operation, chain.object) if part)}; {effects}"


def _caught(caution: Caution) -> str:
    effects = ", ".join(map(str, caution.effects))
    return f"{caution.operation} with {effects}: {count(caution.hits, 'time')}, confirmed {count(caution.confirmations, 'time')}"


def _told(cube: Cube) -> dict[str, Any]:
    """A lesson as JSON: its typed fields, of which the text is made anew, for an import may say anything in words."""
    until = cube.policy.expires_at
    effects = [{"kind": kind, "target": target} for kind, target in cube.data["effects"]]
    caught = ", ".join(f"{one['kind']} {one['target']}" for one in effects)
    return {
        "lesson": cube.id,
        "status": str(cube.status),
        "text": f"{cube.data['operation']} with {caught}",
        "operation": cube.data["operation"],
        "effects": effects,
        "context": list(cube.data["context"]),
        "hits": cube.data["hits"],
        "confirmations": cube.data["confirmations"],
        "false_alarms": cube.data["false_alarms"],
        "sources": [[ref.id, ref.version] for ref in cube.origin.derived_from],
        "until": until.isoformat() if until else "",
    }
