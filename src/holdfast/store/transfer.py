"""Taking memories out and bringing them in, as JSON lines or as Markdown that a person can read and edit.

Neither depends on an index: both read and write cubes and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TextIO

from holdfast.cube import Channel, Cube, Kind, Scope
from holdfast.errors import InputError
from holdfast.store.base import Operation, Store, Where

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Imported:
    """What came in: new ids, how many were there already, and a note for each thing that could not be kept as it was."""

    ids: tuple[str, ...]
    duplicates: int
    notes: tuple[str, ...]


def export_jsonl(cubes: Iterable[Cube], out: TextIO) -> int:
    """One JSON object a line: a header, then each cube as ``Cube.to_dict``. Returns how many cubes."""
    out.write(json.dumps({"holdfast": FORMAT}) + "\n")
    count = 0
    for cube in cubes:
        # ASCII escapes keep lone surrogates and odd separators intact through any editor.
        out.write(json.dumps(cube.to_dict(), ensure_ascii=True) + "\n")
        count += 1
    return count


def read_jsonl(lines: Iterable[str], scope: Scope) -> Iterator[Cube]:
    """The cubes of an export, moved into ``scope``'s tenant and user. Raises InputError that names the line."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"line {number} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise InputError(f"line {number} is not a cube's record")
        if "holdfast" in record:
            if record["holdfast"] != FORMAT:
                raise InputError(f"this export has format {record['holdfast']}, and this Holdfast reads {FORMAT}")
            continue
        try:
            yield moved(Cube.from_dict(record), scope)
        except InputError as error:
            raise InputError(f"line {number}: {error}") from error


def export_markdown(cubes: Iterable[Cube], out: TextIO) -> int:
    """Headings by kind and session, an item a memory: its words to read and edit, and the rest in a comment."""
    out.write(
        "# Memories\n\nEdit the words, delete an item, or add one as `- words`. Comments keep what words do not say.\n"
    )
    heading = None
    count = 0
    for cube in cubes:
        here = f"{cube.kind}" + (f", session {_plain(cube.scope.session)}" if cube.scope.session else "")
        if here != heading:
            out.write(f"\n## {here}\n\n")
            heading = here
        record = cube.to_dict()
        if _words(_item(cube.text)) == cube.text:
            del record["text"]
        when = cube.valid_from or cube.recorded_at
        label = " ".join(part for part in (f"{when:%Y-%m-%d}" if when else "", cube.origin.author or "") if part)
        comment = json.dumps(record, ensure_ascii=True).replace("<", "\\u003c").replace(">", "\\u003e")
        out.write(f"- <!-- {comment} --> **{_plain(label)}**\n{_item(cube.text)}\n")
        count += 1
    return count


_ITEM = re.compile(r"- (?:<!-- (?P<record>\{.*?\}) -->(?: \*\*.*?\*\*)?)?(?P<words>.*)")


def read_markdown(lines: Iterable[str], scope: Scope) -> Iterator[Cube]:
    """The cubes of such a file, moved into ``scope``'s tenant and user; an item without a comment is a new fact."""
    record: dict[str, Any] | None = None
    words: list[str] = []

    def finish() -> Iterator[Cube]:
        if record is not None:
            text = record["text"] if "text" in record else "\n".join(words)
            if text:
                yield moved(Cube.from_dict({**record, "text": text}), scope)

    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\n")
        item = _ITEM.fullmatch(line)
        if item:
            yield from finish()
            try:
                record = json.loads(item["record"]) if item["record"] else None
            except json.JSONDecodeError as error:
                raise InputError(
                    f"line {number}: the comment is damaged ({error}); remove the item or restore it"
                ) from error
            if record is None:
                origin = {"channel": str(Channel.IMPORT), "trust": 0.8}
                record = {"scope": scope.path, "kind": str(Kind.FACT), "origin": origin}
            words = [item["words"]] if item["words"].strip() else []
        elif line.startswith("  ") and record is not None:
            words.append(line[2:])
        elif line.startswith("#"):
            yield from finish()
            record, words = None, []
    yield from finish()


def bring_in(store: Store, cubes: Iterable[Cube], *, actor: str = "", batch: int = 512) -> Imported:
    """Commit cubes in batches; what is there already is skipped, so an import that broke off can be run again."""
    ids: list[str] = []
    notes: list[str] = []
    duplicates = 0
    pending: list[Cube] = []
    known: set[str] = set()

    def flush() -> int:
        done = store.commit([Operation.add(cube) for cube in pending], actor=actor)
        ids.extend(cube.id for cube in done.cubes)
        pending.clear()
        return len(done.duplicates)

    for cube in cubes:
        parents = tuple(ref for ref in cube.origin.derived_from if ref.id in known or _held(store, ref.id, cube.scope))
        if len(parents) < len(cube.origin.derived_from):
            notes.append(f"{cube.id}: a source it was derived from is not in this store")
            cube = cube.with_(origin=replace(cube.origin, derived_from=parents))
        known.add(cube.id)
        pending.append(cube)
        if len(pending) >= batch:
            duplicates += flush()
    if pending:
        duplicates += flush()
    return Imported(tuple(ids), duplicates, tuple(notes))


def moved(cube: Cube, scope: Scope) -> Cube:
    """The cube in ``scope``'s tenant and user; its own agent and session stay unless the scope names them."""
    own = cube.scope
    return cube.with_(scope=Scope(scope.tenant, scope.user, scope.agent or own.agent, scope.session or own.session))


def everything(store: Store, scope: Scope) -> Iterator[Cube]:
    """The current version of every cube in a scope, whatever its status, oldest first."""
    return store.select(scope, Where())


def _held(store: Store, id: str, scope: Scope) -> bool:
    return any(True for _ in store.events(scope=scope, id=id))


def _item(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))


def _words(item: str) -> str:
    """What ``read_markdown`` would read back from an item."""
    return "\n".join(line[2:] for line in item.splitlines())


def _plain(label: str) -> str:
    return re.sub(r"[*<>\s]+", " ", label).strip()
