"""Commands that look after a store: status, doctor."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from holdfast.cli.options import embedder, open_memory, require_store, store_path
from holdfast.cli.recall import notes
from holdfast.cli.screen import Screen, count
from holdfast.cli.work import finish_queue
from holdfast.cube import Cube
from holdfast.enrichment import EMBED, ENRICH
from holdfast.errors import HoldfastError, InputError, SchemaError, StoreError
from holdfast.memory import Memory
from holdfast.opening import open_store
from holdfast.retrieve.text import ANALYSER, fold_terms
from holdfast.store.doctor import Finding, examine, mend, salvage
from holdfast.store.sql import SqlStore
from holdfast.store.transfer import export_jsonl

_MARK = {"good": "ok", "note": "note", "wrong": "WRONG"}


def register(commands: Any) -> None:
    """Add these commands to the parser."""
    commands("status", status, "what the store holds, what waits, what is degraded")

    parser = commands("doctor", doctor, "check everything about the store; with --repair, mend what can be made again")
    parser.add_argument(
        "--repair", action="store_true", help="make indexes again, work off the queue, salvage a damaged file"
    )
    parser.add_argument(
        "--reembed", metavar="NAME", help="change the whole store to another embedder ('auto': the offline one)"
    )
    parser.add_argument(
        "--head",
        metavar="SEQ:HASH",
        help="what status said of the head earlier: it proves that nothing was cut off since",
    )
    parser.add_argument(
        "--coverage",
        action="store_true",
        help="print which kinds of memory are covered by which mechanisms, and what is left out and why; needs no store",
    )
    parser.add_argument(
        "--cost",
        action="store_true",
        help="measure here what each recipe takes a run: calls of a model, tokens, time, bytes; needs no store",
    )


def status(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast status``."""
    with open_memory(args, personal=False) as memory:
        found = memory.status()
    if screen.json:
        screen.data(found)
        return 0
    rows: list[tuple[str, Any]] = [
        ("store", found["path"]),
        ("memories", f"{found['memories']:,} of {count(found['partitions'], 'user')}"),
        ("versions", f"{found['versions']:,}"),
        ("events", f"{found['events']:,}"),
        ("head", f"{found['head']['seq']}:{found['head']['hash']}"),
        ("forgotten", f"{found['purged']:,}"),
        ("embedder", found["embedder"] or "none: search goes by words"),
        ("durability", found["durability"]),
    ]
    for task, queue in found["backlog"].items():
        failed = f", {queue['failed']} failed: {queue['error']}" if queue["failed"] else ""
        rows.append((f"queue: {task}", f"{queue['waiting']:,} waiting{failed}"))
    screen.table(rows, wide=1)
    notes(screen, found["degraded"])
    return 0


def doctor(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast doctor``; 0 only where nothing is wrong (any more)."""
    if args.coverage:
        return _coverage(screen)
    if args.cost:
        return _cost(args, screen)
    path, head = store_path(args), _head(args.head)
    require_store(path)
    repaired: list[str] = []
    try:
        findings = _look(path, head)
        if args.repair:
            repaired = _repair(args, screen, path, findings)
            findings = _look(path, head)
    except SchemaError:
        raise
    except StoreError as error:
        if isinstance(path, str):  # a server that does not answer is not a file to be read out
            raise
        findings = [Finding("database", "wrong", str(error), "holdfast doctor --repair reads out what can be read")]
        if args.repair:
            repaired = _rescue(path)
    else:
        if args.reembed:
            repaired += _reembed(args, screen)
            findings = _look(path, head)
        findings += [_embedder(path)]
    ok = all(finding.level != "wrong" for finding in findings)
    if screen.json:
        screen.data(
            {"path": str(path), "ok": ok, "findings": [asdict(finding) for finding in findings], "repaired": repaired}
        )
        return 0 if ok else 1
    screen.table([(_MARK[f.level], f.check, _words(f, args.repair)) for f in findings], wide=2)
    if repaired:
        screen.heading("Repaired")
        for line in repaired:
            screen.say(line, indent=2, hang=2)
    screen.line()
    mendable = any(f.mendable for f in findings)
    if ok:
        screen.line("all is well" + ("; what waits is done with: holdfast doctor --repair" if mendable else ""))
    elif mendable and not args.repair:
        screen.line("something is wrong; mend what can be made again with: holdfast doctor --repair")
    else:
        screen.line("something is wrong that needs you; see above")
    return 0 if ok else 1


def _words(finding: Finding, repaired: bool) -> str:
    if not finding.fix or (finding.mendable and repaired and finding.level != "wrong"):
        return finding.what
    return f"{finding.what}\n→ {finding.fix}"


def _head(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    seq, _, hash = text.partition(":")
    if not seq.isdigit() or not re.fullmatch("[0-9a-f]{64}", hash):
        raise InputError(f"{text!r} is not a head; write it as status printed it, 276:6dd899...")
    return int(seq), hash


def _look(path: Path | str, head: tuple[int, str] | None) -> list[Finding]:
    store = _store(path)
    try:
        return examine(store, analyser=ANALYSER, head=head)
    finally:
        store.close()


def _store(path: Path | str) -> SqlStore:
    # Not through Memory, which would make a stale index again before it could be reported.
    return open_store(path, terms=fold_terms, tasks=(EMBED, ENRICH))


def _repair(args: argparse.Namespace, screen: Screen, path: Path | str, findings: list[Finding]) -> list[str]:
    if isinstance(path, Path) and any(
        finding.check == "database" and finding.level == "wrong" and not finding.mendable for finding in findings
    ):
        return _rescue(path)
    store = _store(path)
    try:
        done = mend(store, findings, terms=fold_terms, analyser=ANALYSER)
    finally:
        store.close()
    with open_memory(args, personal=False) as memory:
        waited = sum(count for count, _, _ in memory.store.queue.backlog().values())
        finish_queue(memory, screen)
        left = sum(count for count, _, _ in memory.store.queue.backlog().values())
    if waited > left:
        done.append(f"worked off {waited - left} jobs of the queue")
    return done


def _rescue(path: Path) -> list[str]:
    """Write what a damaged file still gives, a file a user, beside the store."""
    try:
        saved = salvage(path / "holdfast.db")
    except StoreError as error:
        return [str(error)]
    by_user: dict[str, list[Cube]] = {}
    for cube in saved.cubes:
        by_user.setdefault(cube.scope.partition, []).append(cube)
    folder = path.with_name(f"{path.name}-salvaged")
    folder.mkdir(exist_ok=True)
    done = []
    for partition, cubes in sorted(by_user.items()):
        file = folder / f"{partition.replace('/', '+')}.jsonl"
        with file.open("w", encoding="utf-8") as out:
            export_jsonl(cubes, out)
        tenant, user = cubes[0].scope.tenant, cubes[0].scope.user
        done.append(
            f"{len(cubes)} memories of {partition} are in {file}; bring them into a new store with: "
            f"holdfast --store NEW --tenant {tenant!r} --user {user!r} import {str(file)!r}"
        )
    if not saved.whole:
        done.append("a part of the file could not be read; what lay there is missing, and history is not carried over")
    return done or ["nothing could be read from the file"]


def _reembed(args: argparse.Namespace, screen: Screen) -> list[str]:
    name = embedder(args.reembed)
    if name is None:
        raise InputError("--reembed needs an embedder's name; to search by words only, use --embedder none")
    with Memory(store_path(args), embedder="auto", background=False) as memory:
        chosen: Any = name
        if name == "auto":
            from holdfast.encode.embedders import default_embedder, why_no_embedder

            chosen = default_embedder()
            if chosen is None:
                raise StoreError(why_no_embedder())
        with screen.bar(memory.store.counts()["memories"], "embedding") as bar:

            def tick(_: str, done: int) -> None:
                bar.update(done)

            changed = memory.reembed(chosen, progress=tick)
        return [f"{count(changed, 'memory has', 'memories have')} vectors of {memory.status()['embedder']}"]


def _embedder(path: Path | str) -> Finding:
    """Whether the embedder that the store was made with, or else the offline one, can be opened here."""
    from holdfast.encode.embedders import default_embedder, open_embedder, why_no_embedder

    store = _store(path)
    try:
        serving = next((name for _, name, _, active in store.models() if active), None)
    finally:
        store.close()
    if serving is not None:
        try:
            open_embedder(serving)
        except HoldfastError as error:
            return Finding(
                "embedder",
                "wrong",
                f"the store's embedder {serving} cannot be opened: {error}",
                "until then search goes by words",
            )
        return Finding("embedder", "good", f"{serving} opens")
    found = default_embedder()
    if found is None:
        return Finding("embedder", "note", why_no_embedder())
    return Finding("embedder", "good", f"{found.model} opens; it will serve this store")


def _cost(args: argparse.Namespace, screen: Screen) -> int:
    """What each recipe takes a run, on this machine, with a stand-in for the model."""
    from holdfast.bench.costs import costs
    from holdfast.opening import choose
    from holdfast.recipes.book import RECIPES

    serving, degraded = choose(embedder(args.embedder), ())
    found = []
    with screen.bar(len(RECIPES), "measuring", " recipes") as bar:
        for one in costs(RECIPES.values(), serving):
            found.append(one)
            bar.update()
    if screen.json:
        screen.data([asdict(one) for one in found])
        return 0
    rows = [
        (
            one.recipe,
            f"{one.calls_before:.1f} {one.calls_at_step:.1f} {one.calls_after:.1f}",
            f"{one.prompt:,.0f}",
            f"{one.completion:,.0f}",
            f"{one.told:,.0f}",
            f"{1e3 * one.before:.1f} {1e3 * one.at_step:.1f} {1e3 * one.after:.1f}",
            f"{one.kept / 1024:.1f}",
        )
        for one in found
    ]
    screen.table(rows, ("recipe", "calls", "tokens sent", "written", "told", "ms", "KiB kept"), wide=0)
    screen.line()
    screen.say("A run: calls of the model, and milliseconds without it, are those before, at a step, and after.")
    notes(screen, degraded)
    return 0


def _coverage(screen: Screen) -> int:
    """What the taxonomy says of every kind of memory: which mechanisms cover it, and where none does."""
    from holdfast.taxonomy import coverage

    found = coverage()
    if screen.json:
        screen.data(found)
        return 0
    screen.table(found["rows"], found["headers"], wide=len(found["headers"]) - 1)
    screen.line()
    for gap in found["gaps"]:
        screen.say(f"gap: {gap}", hang=5)
    return 0
