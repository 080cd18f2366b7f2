"""Commands that carry memories in and out: import, export."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from holdfast import importers
from holdfast.cli import chats
from holdfast.cli.options import announce_new, open_memory, scope
from holdfast.cli.recall import notes
from holdfast.cli.screen import Screen, count
from holdfast.cli.work import finish_queue
from holdfast.cube import Cube, Scope
from holdfast.errors import InputError, NotFoundError, ScopeError, StoreError
from holdfast.memory import Memory
from holdfast.store.transfer import (
    bring_in,
    everything,
    export_folder,
    export_jsonl,
    export_markdown,
    read_jsonl,
    read_markdown,
)

BATCH = 256
_NOTES = 5


def register(commands: Any) -> None:
    """Add these commands to the parser."""
    come = commands(
        "import", bring, "bring in an export, chats, or what another system remembers; running it again is safe"
    )
    come.add_argument("file", help="a file, a folder or a zip file, or '-' for standard input")
    come.add_argument(
        "--from",
        dest="system",
        choices=importers.FORMATS,
        help="another system's archive (default: guessed from what is in it)",
    )
    come.add_argument(
        "--whose", metavar="NAME", help="of an archive with several users, whose memories; '*' for everybody's"
    )
    come.add_argument("--dry-run", action="store_true", help="count what would come, and keep nothing")
    come.add_argument("--format", choices=("auto", "jsonl", "markdown", "chat"), default="auto")
    come.add_argument("--source", help="chats: where they come from (default: file:NAME)")
    come.add_argument(
        "--backdate", action="store_true", help="chats: learnt when they were said, for as-of; otherwise learnt now"
    )

    go = commands("export", take, "write memories as JSON lines (complete) or Markdown (to read and edit)")
    go.add_argument("--format", choices=("auto", "jsonl", "markdown"), default="auto")
    go.add_argument("folder", nargs="?", help="with --format markdown: a folder to read, a file for each kind")
    go.add_argument("-o", "--output", metavar="FILE", help="default: standard output")


@dataclass(slots=True)
class _Tally:
    """What an import did."""

    added: int = 0
    duplicates: int = 0
    changed: int = 0
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def bring(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast import``."""
    foreign = _foreign(args)
    if foreign is not None:
        archive, system = foreign
        with closing(archive):
            return _bring_archive(args, archive, system, screen)
    if args.whose:
        raise InputError("--whose is for other systems' archives; this file is Holdfast's own, or a chat")
    text = _read(args.file)
    form = _form(args.format, args.file, text)
    if form != "chat" and (args.source or args.backdate):
        raise InputError(
            f"--source and --backdate are for chats; a {form} file says for itself where each memory is from"
        )
    tally, home = _Tally(), scope(args)
    try:  # all of it is understood before the first memory is kept, or a store is made
        found = _cubes(args, home, form, text, tally)
    except (InputError, ScopeError) as error:
        raise InputError(f"{args.file}: {error}") from error
    if args.dry_run:
        return _would(args, screen, form, found, tally)
    new = announce_new(args)
    with open_memory(args, create=True) as memory:
        try:
            _keep(memory, _edit(memory, found, args.file, tally) if form == "markdown" else found, tally, screen)
            left = finish_queue(memory, screen)
        except KeyboardInterrupt:
            screen.note("stopped; what was imported so far is kept. Run the same command again to go on")
            raise
        degraded = memory.degraded
    if screen.json:
        answer = {"file": args.file, "format": form, **asdict(tally), "waiting": left, "degraded": degraded}
        screen.data(answer)
        return 0
    if new:
        screen.note(new)
    known = f"; {tally.duplicates:,} were there already" if tally.duplicates else ""
    edited = f"; {count(tally.changed, 'memory', 'memories')} got the words they have there" if tally.changed else ""
    screen.line(f"imported {count(tally.added, 'memory', 'memories')} from {args.file} ({form}){known}{edited}")
    _some(screen, [f"left out: {reason}" for reason in tally.left_out])
    _some(screen, tally.notes)
    if left:
        screen.note(f"not indexed yet: {count(left, 'memory', 'memories')}; see: holdfast status")
    notes(screen, degraded)
    return 0


def _foreign(args: argparse.Namespace) -> tuple[importers.Archive, str] | None:
    """The file and its format, if it is another system's archive."""
    if args.file == "-" or args.format != "auto":
        if args.system:
            raise InputError("--from takes a file, a folder or a zip file, and no --format")
        return None
    archive = importers.Archive(args.file)
    try:
        head = b""
        if archive.is_file and not args.system:
            with archive.open(archive.names[0]) as stream:
                head = stream.read(4096)
        own = b'"holdfast"' in head.split(b"\n", 1)[0] or b'"scope"' in head.split(b"\n", 1)[0]
        system = args.system if args.system or own else importers.guess(archive)
        if system is None and not archive.is_file:
            raise InputError(f"{args.file} looks like no archive that is known; say which with --from {_names()}")
    except BaseException:
        archive.close()
        raise
    if system is None:
        archive.close()
        return None
    return archive, system


def _names() -> str:
    return ", ".join(importers.FORMATS)


def _bring_archive(args: argparse.Namespace, archive: importers.Archive, system: str, screen: Screen) -> int:
    if args.source or args.backdate:
        raise InputError(
            "--source and --backdate are for chats; an archive says for itself where each memory is from and when"
        )
    guessed = args.system is None
    left, degraded, new = 0, list[str](), ""
    with screen.bar(None, "reading", unit=" items") as reading:

        def saw(_: str, some: int, __: int | None) -> None:
            reading.update(some)

        found = importers.survey(archive, scope(args), format=system, whose=args.whose, progress=saw)
    done = importers.Brought(found)
    if guessed:
        screen.note(f"{args.file} looks like {found.title} (--from {found.format} says so)")
    if not args.dry_run and found.memories:
        new = announce_new(args)
        with open_memory(args, create=True) as memory:
            try:
                with screen.bar(found.memories, "importing") as bar:

                    def tick(_: str, some: int, __: int | None) -> None:
                        bar.update(some)

                    done = importers.keep(memory, archive, memory.scope(), found, whose=args.whose, progress=tick)
                left = finish_queue(memory, screen)
            except KeyboardInterrupt:
                screen.note("stopped; what was imported so far is kept. Run the same command again to go on")
                raise
            degraded = memory.degraded
    if screen.json:
        screen.data(
            {
                "file": args.file,
                "format": found.format,
                "guessed": guessed,
                "dry_run": args.dry_run,
                "memories": found.memories,
                "kinds": dict(found.kinds),
                "owners": dict(found.owners),
                "added": done.added,
                "duplicates": done.duplicates,
                "changed": done.changed,
                "quarantined": done.quarantined,
                "left_out": _reasons(found.left_out),
                "remarks": _reasons(found.remarks),
                "notes": list(done.notes),
                "waiting": left,
                "degraded": degraded,
            }
        )
        return 0
    if new:
        screen.note(new)
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(found.kinds.items()))
    if args.dry_run or not found.memories:
        some = count(found.memories, "memory", "memories")
        screen.line(
            f"would import {some} from {args.file} ({found.format}){f': {kinds}' if kinds else ''}; nothing was kept"
        )
    else:
        known = f"; {done.duplicates:,} were there already" if done.duplicates else ""
        edited = f"; {count(done.changed, 'memory', 'memories')} got other words" if done.changed else ""
        screen.line(
            f"imported {count(done.added, 'memory', 'memories')} from {args.file} ({found.format}){known}{edited}"
        )
        if done.quarantined:
            screen.note(
                f"{count(done.quarantined, 'memory waits', 'memories wait')} in quarantine; see: holdfast quarantine"
            )
    _some(screen, [_told("left out", why, *counted) for why, counted in found.left_out.items()])
    _some(screen, [_told("kept", why, *counted) for why, counted in found.remarks.items()])
    _some(screen, done.notes)
    if left:
        screen.note(f"not indexed yet: {count(left, 'memory', 'memories')}; see: holdfast status")
    notes(screen, degraded)
    return 0


def _told(what: str, why: str, number: int, first: str) -> str:
    more = f" and {number - 1:,} more" if number > 1 else ""
    return f"{what}: {first[:120]}{more}: {why}"


def _reasons(counted: Mapping[str, tuple[int, str]]) -> list[dict[str, object]]:
    return [{"why": why, "count": number, "first": first} for why, (number, first) in counted.items()]


def _would(args: argparse.Namespace, screen: Screen, form: str, found: Sequence[Cube], tally: _Tally) -> int:
    """What an import of Holdfast's own, or of chats, would bring."""
    if screen.json:
        screen.data({"file": args.file, "format": form, "dry_run": True, "memories": len(found), **asdict(tally)})
        return 0
    screen.line(f"would import {count(len(found), 'memory', 'memories')} from {args.file} ({form}); nothing was kept")
    _some(screen, [f"left out: {reason}" for reason in tally.left_out])
    return 0


def take(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast export``."""
    form = args.format
    if args.folder is not None:
        if form != "markdown" or args.output is not None:
            raise InputError(
                "a folder is for --format markdown, without -o; a complete copy is: holdfast export -o FILE"
            )
        with open_memory(args, embed=False) as memory:
            cubes = list(memory.select())
            written = export_folder(_counted(cubes, screen, "exporting"), Path(args.folder).expanduser())
        if screen.json:
            screen.data({"folder": args.folder, "format": form, "memories": written})
        else:
            screen.line(f"exported {count(written, 'memory', 'memories')} to {args.folder} ({form})")
        return 0
    if form == "auto":
        form = "markdown" if args.output and args.output.lower().endswith((".md", ".markdown")) else "jsonl"
    if screen.json and args.output is None and form == "markdown":
        raise InputError("--json and Markdown cannot share standard output; give -o FILE, or --format jsonl")
    with open_memory(args, embed=False) as memory:
        scope = memory.scope()
        # A person edits what is recalled; a complete copy also holds what was retracted, with its status.
        cubes = list(memory.select() if form == "markdown" else everything(memory.store, scope))
        write = export_markdown if form == "markdown" else export_jsonl
        if args.output is None:
            write(_counted(cubes, screen, "exporting"), screen.out)
            return 0
        written = _write(Path(args.output), write, _counted(cubes, screen, "exporting"))
    if screen.json:
        screen.data({"file": args.output, "format": form, "memories": written})
    else:
        screen.line(f"exported {count(written, 'memory', 'memories')} to {args.output} ({form})")
    return 0


# --- reading ---


def _read(name: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror or error}") from error
    try:
        text = raw.decode("utf-8-sig", "surrogatepass")  # an export may hold lone surrogates
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 text (byte {error.start}); convert it first") from error
    if not text.strip():
        raise InputError(f"{name} is empty")
    return text


def _form(asked: str, name: str, text: str) -> str:
    if asked != "auto":
        return asked
    head = text.lstrip()[:4096]
    if head.startswith(("{", "[")):
        return "jsonl" if '"holdfast"' in head.splitlines()[0] or '"scope"' in head.splitlines()[0] else "chat"
    if name.lower().endswith((".md", ".markdown")) or head.startswith(("#", "- ")):
        return "markdown"
    raise InputError(f"{name} looks like neither an export, Markdown nor a chat; say which with --format")


def _cubes(args: argparse.Namespace, home: Scope, form: str, text: str, tally: _Tally) -> list[Cube]:
    """Every memory of the file, in the user's scope."""
    if form != "chat":
        return list((read_jsonl if form == "jsonl" else read_markdown)(io.StringIO(text), home))
    source = args.source or (None if args.file == "-" else f"file:{Path(args.file).name}")
    found: list[Cube] = []
    for session in chats.parse(text):
        some, reasons = chats.cubes(session, home, source=source, backdate=args.backdate)
        found += some
        tally.left_out += reasons
    return found


def _edit(memory: Memory, found: Sequence[Cube], name: str, tally: _Tally) -> list[Cube]:
    """Make words that a person changed the memory's next version; return the memories that are not held yet."""
    fresh = []
    for cube in found:
        held = _held(memory, cube)
        if held is None or held.text == cube.text:
            fresh.append(cube)
        elif held.version != cube.version:
            tally.notes.append(
                f"{cube.id} has changed since the export (version {held.version}); its edit was not taken"
            )
        else:
            memory.correct(cube.id, cube.text, reason=f"edited in {Path(name).name}")
            tally.changed += 1
    return fresh


def _keep(memory: Memory, found: Sequence[Cube], tally: _Tally, screen: Screen) -> None:
    done = bring_in(
        memory.door, _counted(found, screen, "importing"), actor=f"import:{memory.scope().path}", batch=BATCH
    )
    tally.added, tally.duplicates = len(done.ids), done.duplicates
    tally.notes += done.notes


def _held(memory: Memory, cube: Cube) -> Cube | None:
    try:
        return memory.get(cube.id)
    except NotFoundError:
        return None


def _counted(cubes: Sequence[Cube], screen: Screen, what: str) -> Iterator[Cube]:
    with screen.bar(len(cubes), what) as bar:
        for cube in cubes:
            yield cube
            bar.update()


# --- writing ---


def _write(path: Path, write: Any, cubes: Iterator[Cube]) -> int:
    """Write a file whole or not at all: a broken export must not replace a good one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    out: TextIO
    try:
        with draft.open("w", encoding="utf-8", errors="surrogatepass", newline="\n") as out:
            written: int = write(cubes, out)
        draft.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}; nothing there was changed") from error
    finally:
        draft.unlink(missing_ok=True)
    return written


def _some(screen: Screen, remarks: Sequence[str]) -> None:
    counted: dict[str, int] = {}
    for remark in remarks:
        counted[remark] = counted.get(remark, 0) + 1
    for remark, times in list(counted.items())[:_NOTES]:
        screen.note(remark + (f" ({times} times)" if times > 1 else ""))
    if len(counted) > _NOTES:
        screen.note(f"and {count(len(counted) - _NOTES, 'more remark')}; see them with --json")
