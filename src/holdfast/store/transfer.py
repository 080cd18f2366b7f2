"""Taking memories out and bringing them in, as JSON lines or as Markdown that a person can read and edit.

Neither depends on an index: both read and write cubes and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from holdfast.cube import Channel, Cube, Kind, Ref, Scope, escaped
from holdfast.errors import ConflictError, InputError, NotFoundError, ScopeError, StoreError
from holdfast.store.base import Operation, Store, Where

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Imported:
    """What came in: new ids, how many were there already, and a note for each thing that could not be kept as it was.

    ``edited`` are memories that were held already, at the version of the export, with other words: these are their next
    version.
    """

    ids: tuple[str, ...]
    duplicates: int
    notes: tuple[str, ...]
    edited: tuple[str, ...] = ()


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
            record = json.loads(line, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise InputError(f"line {number} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise InputError(f"line {number} is not a cube's record")
        if "holdfast" in record:
            if record["holdfast"] != FORMAT:
                raise InputError(f"this export has format {record['holdfast']}, and this Holdfast reads {FORMAT}")
            continue
        try:
            yield moved(Cube.from_dict(record), scope)
        except (InputError, ScopeError) as error:
            raise InputError(f"line {number}: {error}") from error


def export_markdown(cubes: Iterable[Cube], out: TextIO) -> int:
    """Headings by kind and session, an item a memory: its words to read and edit, and the rest in a comment."""
    out.write("# Memories\n\nEdit the words, or add an item as `- words`. Comments keep what words do not say.\n")
    heading = None
    count = 0
    for cube in cubes:
        here = f"{cube.kind}" + (f", session {_plain(cube.scope.session)}" if cube.scope.session else "")
        if here != heading:
            out.write(f"\n## {here}\n\n")
            heading = here
        record = cube.to_dict()
        shown = _shown(cube.text)
        if shown == cube.text:
            del record["text"]
        when = cube.valid_from or cube.recorded_at
        label = " ".join(part for part in (f"{when:%Y-%m-%d}" if when else "", cube.origin.author or "") if part)
        comment = json.dumps(record, ensure_ascii=True).replace("<", "\\u003c").replace(">", "\\u003e")
        out.write(f"- <!-- {comment} --> **{_plain(label)}**\n{_item(shown)}\n")
        count += 1
    return count


PAGE = 1_000
"""Memories in one file of ``export_folder``."""


def export_folder(cubes: Iterable[Cube], folder: Path) -> int:
    """A folder to read: for each user and kind a Markdown file, for more than PAGE memories several. Returns how many memories.

    A file begins with what is known of each memory (ids, times, source), as YAML; then follow their words, between fences that
    no text can close. The folder must be new or empty. Raises StoreError; what was begun is taken away then.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise StoreError(f"{folder} is not empty; name a new folder, so that nothing there is overwritten")
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror or error}") from error
    pages: dict[tuple[str, str], list[Cube]] = {}
    files: dict[tuple[str, str], int] = {}
    count = 0

    def write(key: tuple[str, str]) -> None:
        files[key] = files.get(key, 0) + 1
        user, kind = key
        # A name may be "..", and a folder of that name is another.
        home = folder / re.sub(r"^\.+", lambda dots: "%2E" * len(dots[0]), escaped(user))
        home.mkdir(exist_ok=True)
        # A kind has no dot, so no page of one is the file of another.
        name = f"{kind}.md" if files[key] == 1 else f"{kind}.{files[key]}.md"
        (home / name).write_text(_page(user, kind, pages.pop(key)), encoding="utf-8", newline="\n")

    try:
        for cube in cubes:
            key = cube.scope.user, str(cube.kind)
            pages.setdefault(key, []).append(cube)
            count += 1
            if len(pages[key]) == PAGE:
                write(key)
        for key in list(pages):
            write(key)
    except BaseException as error:
        for inside in folder.iterdir():
            shutil.rmtree(inside)
        if isinstance(error, OSError):
            raise StoreError(
                f"{folder} cannot be written: {error.strerror or error}; nothing was left there"
            ) from error
        raise
    return count


def _page(user: str, kind: str, cubes: Sequence[Cube]) -> str:
    head = ["---", f"user: {_quoted(user)}", f"kind: {kind}", "memories:"]
    body = []
    for number, cube in enumerate(cubes, 1):
        origin = cube.origin
        known = {
            "id": cube.id,
            "version": cube.version,
            "status": str(cube.status),
            "recorded": None if cube.recorded_at is None else cube.recorded_at.isoformat(),
            "true from": None if cube.valid_from is None else cube.valid_from.isoformat(),
            "true until": None if cube.valid_to is None else cube.valid_to.isoformat(),
            "channel": str(origin.channel),
            "author": origin.author,
            "source": origin.reference,
            "trust": origin.trust,
            "derived from": [ref.id for ref in origin.derived_from],
            "outside": list(origin.taint),
            "session": cube.scope.session,
        }
        head.append(f"  - {_quoted({name: value for name, value in known.items() if value not in (None, [])})}")
        when = cube.valid_from or cube.recorded_at
        label = " ".join(part for part in (f"{when:%Y-%m-%d}" if when else "", _plain(origin.author or "")) if part)
        longest = max(map(len, re.findall("`+", cube.text)), default=0)
        fence = "`" * max(3, longest + 1)
        text = cube.text.encode("utf-8", "replace").decode() or f"(a file of tensors: {cube.blob})"
        body.append(f"## {number}. {label}\n\n`{cube.id}`\n\n{fence}text\n{text}\n{fence}\n")
    return "\n".join([*head, "---", "", f"# {kind.capitalize()}", "", *body])


def _quoted(value: Any) -> str:
    """JSON is YAML; in ASCII no letter of it ends a line or a block."""
    return json.dumps(value, ensure_ascii=True)


_ITEM = re.compile(r"-(?: (?:<!-- (?P<record>\{.*?\}) -->(?: \*\*.*?\*\*)?)?(?P<words>.*))?")


def read_markdown(lines: Iterable[str], scope: Scope) -> Iterator[Cube]:
    """The cubes of such a file, moved into ``scope``'s tenant and user; an item without a comment is a new fact.

    Raises InputError that names the line of a damaged comment.
    """
    record: dict[str, Any] | None = None
    words: list[str] = []
    begun = blank = 0

    def finish() -> Iterator[Cube]:
        if record is None:
            return
        text = _shown("\n".join(words))
        kept = record.get("text")
        if isinstance(kept, str) and text == _shown(kept):  # as exported: some characters only the comment can keep
            text = kept
        if text or record.get("blob"):
            try:
                yield moved(Cube.from_dict({**record, "text": text}), scope)
            except (InputError, ScopeError) as error:
                raise InputError(f"line {begun}: {error}") from error

    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\r\n")
        item = _ITEM.fullmatch(line)
        if item:
            yield from finish()
            begun, blank = number, 0
            try:
                record = json.loads(item["record"], parse_constant=_refuse) if item["record"] else None
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"line {number}: the comment is damaged ({error}); remove the item or restore it"
                ) from error
            if record is None:
                if line.startswith("- <!--"):
                    raise InputError(f"line {number}: the comment is damaged; remove the item or restore it")
                origin = {"channel": str(Channel.IMPORT), "trust": 0.8}
                record = {"scope": scope.path, "kind": str(Kind.FACT), "origin": origin}
            first = (item["words"] or "").strip()
            words = [first] if first else []
        elif line.startswith("  ") and record is not None:
            words += [*[""] * blank, line[2:]]  # editors take the blanks off an empty line
            blank = 0
        elif not line.strip():
            blank += 1
        elif line.startswith("#"):
            yield from finish()
            record, words = None, []
        elif record is not None:  # a person wrote on without the indent
            words += [*[""] * blank, line]
            blank = 0
    yield from finish()


def bring_in(
    store: Store,
    cubes: Iterable[Cube],
    *,
    actor: str = "",
    batch: int = 512,
    called: dict[str, str] | None = None,
) -> Imported:
    """Commit cubes in batches; what is there already is skipped, so an import that broke off can be run again.

    A memory that is held with other words is an edit where the export was made from the version held; otherwise it stays
    as it is. What was forgotten stays forgotten. Each such thing is a note. ``called``: for an import that comes in several
    calls, what of earlier ones lies here by another id; it is added to.
    """
    ids: list[str] = []
    edited: list[str] = []
    notes: list[str] = []
    duplicates = 0
    pending: list[Cube] = []
    waiting: set[str] = set()
    known = dict(called or {})  # what an id of the export is called here

    def flush() -> int:
        count = _commit(store, pending, actor, ids, known, notes)
        pending.clear()
        waiting.clear()
        return count

    for cube in cubes:
        if waiting.intersection(ref.id for ref in cube.origin.derived_from):
            duplicates += flush()
        held = _held(store, cube.id, cube.scope)
        if held is not None:
            known[cube.id] = cube.id
            if held.text == cube.text:
                duplicates += 1
            elif held.version == cube.version:
                try:
                    store.commit([Operation.update(held.with_(text=cube.text), "edited in an import")], actor=actor)
                    edited.append(cube.id)
                except ConflictError as error:  # frozen, or changed just now
                    notes.append(f"{error}; its edit was not taken")
            else:
                notes.append(f"{cube.id}: held at version {held.version}, the import is of {cube.version}; not taken")
            continue
        parents = tuple(
            Ref(known.get(ref.id, ref.id), ref.version)
            for ref in cube.origin.derived_from
            if ref.id in known or _held(store, ref.id, cube.scope) is not None
        )
        if len(parents) < len(cube.origin.derived_from):
            notes.append(f"{cube.id}: a source it was derived from is not in this store")
        if parents != cube.origin.derived_from:
            cube = cube.with_(origin=replace(cube.origin, derived_from=parents))
        pending.append(cube)
        waiting.add(cube.id)
        if len(pending) >= batch:
            duplicates += flush()
    if pending:
        duplicates += flush()
    if called is not None:
        called.update((id, here) for id, here in known.items() if id != here)
    return Imported(tuple(ids), duplicates, tuple(notes), tuple(edited))


def _commit(
    store: Store, cubes: Sequence[Cube], actor: str, ids: list[str], known: dict[str, str], notes: list[str]
) -> int:
    """Add some cubes, singly where one of them is refused; return how many were there already under another id."""
    try:
        done = store.commit([Operation.add(cube) for cube in cubes], actor=actor)
    except ConflictError as error:
        if len(cubes) > 1:
            return sum(_commit(store, [cube], actor, ids, known, notes) for cube in cubes)
        notes.append(str(error))
        return 0
    kept = {cube.id for cube in done.cubes}
    ids += [cube.id for cube in done.cubes]
    known.update((id, id) for id in kept)
    rest = [cube for cube in cubes if cube.id not in kept]
    if len(rest) == len(done.duplicates):
        known.update((cube.id, id) for cube, id in zip(rest, done.duplicates, strict=True))
    else:  # some were there already and some let in nowhere: which is which, only each by itself tells
        for cube in rest:
            there = store.commit([Operation.add(cube)], actor=actor).duplicates
            known.update((cube.id, id) for id in there)
            notes += () if there else (f"{cube.id}: the guard let it in nowhere",)
    return len(done.duplicates)


def moved(cube: Cube, scope: Scope) -> Cube:
    """The cube in ``scope``'s tenant and user; its own agent and session stay unless the scope names them.

    What comes from another tenant or user gets other ids, the same at every import: one id is one memory in a store.
    """
    own = cube.scope
    there = Scope(scope.tenant, scope.user, scope.agent or own.agent, scope.session or own.session)
    if there.partition == own.partition:
        return cube.with_(scope=there)
    parents = tuple(Ref(_renamed(ref.id, there), ref.version) for ref in cube.origin.derived_from)
    origin = replace(cube.origin, derived_from=parents)
    return cube.with_(scope=there, id=_renamed(cube.id, there), origin=origin)


def _renamed(id: str, scope: Scope) -> str:
    """An id's namesake in another partition: the same time, other random bits."""
    old = uuid.UUID(id)
    random = int.from_bytes(hashlib.sha256(old.bytes + scope.partition.encode()).digest()[:8])
    return str(uuid.UUID(int=(old.int >> 64 << 64) | 0b10 << 62 | random >> 2))


def everything(store: Store, scope: Scope) -> Iterator[Cube]:
    """The current version of every cube in a scope, whatever its status, oldest first."""
    return store.select(scope, Where())


def _held(store: Store, id: str, scope: Scope) -> Cube | None:
    try:
        return store.get(id, Scope(scope.tenant, scope.user))
    except NotFoundError:
        return None


def _item(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))


def _shown(text: str) -> str:
    """The words as a file can show them: lines of plain text, no half characters, no blanks that an editor takes off."""
    plain = text.encode("utf-8", "replace").decode()
    return "\n".join(line.rstrip() for line in plain.splitlines()).strip("\n")


def _plain(label: str) -> str:
    return re.sub(r"[*<>\s]+", " ", label.encode("utf-8", "replace").decode()).strip()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")
