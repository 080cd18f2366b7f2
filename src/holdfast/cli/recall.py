"""Commands that find: search, as-of, context, show."""

from __future__ import annotations

import argparse
from typing import Any

from holdfast.as_of import AsOf
from holdfast.cli.excerpt import excerpt
from holdfast.cli.options import open_memory
from holdfast.cli.screen import Screen, count
from holdfast.cli.work import pending
from holdfast.cube import Cube
from holdfast.memory import Memory
from holdfast.retrieve.hits import Hit, Hits
from holdfast.store.base import Action


def register(commands: Any) -> None:
    """Add these commands to the parser."""
    search = commands("search", find, "find memories: rank, relevance, date, speaker, words")
    _query(search)
    search.add_argument("--neighbours", type=int, default=0, metavar="N", help="show N turns before and after each")

    then = commands("as-of", find_then, "search the memory as it was at a time")
    then.add_argument("date", help="2026-01-01 means the first moment of that day, UTC")
    _query(then)
    then.add_argument("--true-at", metavar="DATE", help="only what was true in the world at that time")

    packed = commands("context", pack, "what is worth telling a model, fenced, within a budget of tokens")
    packed.add_argument("query", nargs="+")
    packed.add_argument("--budget", type=int, default=800, metavar="TOKENS", help="default: 800")
    packed.add_argument("--as-of", metavar="DATE", help="as it was known then")

    shown = commands("show", show, "one memory with everything that is known about it")
    shown.add_argument("id")
    shown.add_argument("--version", type=int, metavar="N", help="an earlier version")
    shown.add_argument("--as-of", metavar="DATE", help="the version that was known then")


def _query(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", nargs="+", help="words, quoted or not")
    parser.add_argument("-k", type=int, default=5, metavar="K", help="how many at most (default: 5)")
    parser.add_argument("--kind", action="append", default=[], metavar="KIND", help="only this kind; may be repeated")
    parser.add_argument("--why", action="store_true", help="show what each channel gave to the score, and the source")
    parser.add_argument("--full", action="store_true", help="show whole texts, not the part that the query is about")


def find(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast search``."""
    query = " ".join(args.query)
    with open_memory(args) as memory:
        hits = memory.search(query, k=args.k, kinds=args.kind, neighbours=args.neighbours)
        _answer(args, screen, memory, query, hits, {})
    return 0


def find_then(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast as-of``."""
    query = " ".join(args.query)
    with open_memory(args) as memory:
        view = memory.as_of(args.date, true_at=args.true_at)
        hits = view.search(query, k=args.k, kinds=args.kind)
        _answer(args, screen, memory, query, hits, _times(view))
    return 0


def pack(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast context``."""
    query = " ".join(args.query)
    with open_memory(args) as memory:
        view = memory.as_of(args.as_of) if args.as_of else memory
        text = view.context(query, budget=args.budget)
        degraded = memory.degraded
    if screen.json:
        screen.data({"query": query, "budget": args.budget, "context": text, "degraded": degraded})
        return 0
    if text:
        screen.line(text)
    else:
        screen.note("nothing that is remembered is likely to help with this, so there is no context")
    notes(screen, degraded)
    return 0


def show(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast show``."""
    with open_memory(args, embed=False) as memory:
        then = memory.as_of(args.as_of) if args.as_of else None
        cube = then.get(args.id) if then else memory.get(args.id, version=args.version)
        changes = memory.history(args.id)
        up, down = memory.lineage(args.id, down=False), memory.lineage(args.id)
    if screen.json:
        lineage = {"derived_from": [[r.id, r.version] for r in up], "derived": [[r.id, r.version] for r in down]}
        screen.data({"memory": cube.to_dict(), "events": [change.event.seq for change in changes], "lineage": lineage})
        return 0
    screen.say(cube.text)
    screen.line()
    latest = max((change.event.version for change in changes), default=cube.version)
    rows = [("id", cube.id), ("version", f"{cube.version} of {latest}"), *_facts(cube)]
    rows += [("derived from", f"{ref.id} (version {ref.version})") for ref in up]
    rows += [("derived", f"{ref.id} (version {ref.version})") for ref in down]
    rows += [
        ("events", ", ".join(f"{c.event.seq} ({c.event.action})" for c in changes if c.event.action != Action.PURGE))
    ]
    screen.table([row for row in rows if row[1]], wide=1)
    return 0


# --- how hits look ---


def _answer(
    args: argparse.Namespace, screen: Screen, memory: Memory, query: str, hits: Hits, times: dict[str, str | None]
) -> None:
    waiting = waiting_note(memory)
    if screen.json:
        screen.data({"query": query, "scope": memory.scope().path, **times, **hits_dict(hits)})
        return
    if not hits:
        screen.say(sentence(hits.reason or "nothing was found"))
    elif hits.abstain:
        screen.say(f"{sentence(hits.reason or 'nothing here is likely to answer')} The closest:")
    for rank, hit in enumerate(hits, 1):
        hit_lines(screen, rank, hit, query, why=args.why, full=args.full, id=True)
    notes(screen, [*hits.degraded, *waiting])


def hit_lines(
    screen: Screen,
    rank: int,
    hit: Hit,
    query: str,
    *,
    why: bool = False,
    full: bool = False,
    id: bool = False,
    indent: int = 0,
) -> None:
    """One hit: rank, relevance, date, speaker; its words; its reasons."""
    cube = hit.cube
    said = f"{hit.said:%Y-%m-%d}" if hit.said else "undated"
    until = f" until {cube.valid_to:%Y-%m-%d}" if cube.valid_to else ""
    kind = "" if cube.kind == "message" else f"  {cube.kind}"
    head = f"{rank:>2}  {hit.relevance:.2f}  {said}{until}  {_speaker(cube)}{kind}"
    beside = id and indent + len(head) + 38 <= screen.width
    screen.say(f"{head}  {hit.id}" if beside else head, indent=indent, style="bold")
    for turn in hit.before:
        _turn(screen, turn, query, full, indent)
    screen.say(cube.text if full else excerpt(cube.text, query), indent=indent + 4)
    for turn in hit.after:
        _turn(screen, turn, query, full, indent)
    if why:
        screen.say(hit.why, indent=indent + 4, hang=2, style="dim")
    if id and not beside:
        screen.say(hit.id, indent=indent + 4, style="dim")


def _turn(screen: Screen, cube: Cube, query: str, full: bool, indent: int) -> None:
    words = cube.text if full else excerpt(cube.text, query, 160)
    screen.say(f"{_speaker(cube)}: {words}", indent=indent + 6, hang=2, style="dim")


def _speaker(cube: Cube) -> str:
    return cube.origin.author or str(cube.origin.channel)


def hits_dict(hits: Hits) -> dict[str, Any]:
    """Hits as JSON: whether to answer at all, what is degraded, and each hit with its rank."""
    return {
        "abstain": hits.abstain,
        "reason": hits.reason,
        "degraded": list(hits.degraded),
        "hits": [{"rank": rank, **hit.to_dict()} for rank, hit in enumerate(hits, 1)],
    }


def sentence(reason: str) -> str:
    """A search's reason as a sentence."""
    return reason[:1].upper() + reason[1:].rstrip(".") + "."


def notes(screen: Screen, degraded: list[str] | tuple[str, ...]) -> None:
    """What could not be used, beside the answer."""
    for what in dict.fromkeys(degraded):
        screen.note(f"note: {what}")


def waiting_note(memory: Memory) -> list[str]:
    """That some memories have no vectors or facts yet, so that a search finds them by their words only."""
    waiting = pending(memory)
    if not waiting:
        return []
    return [
        f"not fully indexed yet: {count(waiting, 'memory', 'memories')}; words find them, meaning may not. "
        "Finish with: holdfast doctor --repair"
    ]


def _times(view: AsOf) -> dict[str, str | None]:
    return {
        "known": None if view.known is None else view.known.isoformat(),
        "true_at": None if view.true_at is None else view.true_at.isoformat(),
    }


def _facts(cube: Cube) -> list[tuple[str, str]]:
    """Everything about a cube but its words and lineage, as rows."""
    origin, policy, use = cube.origin, cube.policy, cube.use
    return [
        ("scope", cube.scope.path),
        ("kind", str(cube.kind)),
        ("status", str(cube.status)),
        ("said or true from", _moment(cube.valid_from)),
        ("true until", _moment(cube.valid_to)),
        ("learnt", _moment(cube.recorded_at)),
        ("speaker", origin.author or ""),
        ("channel", str(origin.channel)),
        ("source", origin.reference or ""),
        ("trust", f"{origin.trust:.2f}"),
        ("expires", _moment(policy.expires_at)),
        ("use", f"{count(use.visits, 'time')}, utility {use.utility:+.2f}" if use.visits else ""),
        *((f"data: {name}", str(value)) for name, value in cube.data.items()),
    ]


def _moment(when: Any) -> str:
    return "" if when is None else f"{when:%Y-%m-%d %H:%M:%S}"
