"""The file store of a run (L2MAC, arXiv 2310.02003, Algorithm 1: D): every version of every file, read and changed piece by piece.

Files are cubes: each version is an event of the journal, made from the task, and forgotten with it. Nothing here touches the
disk but ``export``. A file is written whole or by a unified diff whose context must stand there, so that what a reply's limit cuts
costs a hunk and not the file.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from holdfast.agent.ledger import Ledger
from holdfast.chat import count_tokens
from holdfast.cube import Cube, Form, Status
from holdfast.errors import ConflictError, InputError, NotFoundError
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.WORK_MULTI,),
    evolution=(Evolution.UPDATE_EXTERNAL,),
    retrieval=(Retrieval.ON_REQUEST, Retrieval.LEXICAL),
    subject=(Subject.AGENT,),
)

FILE = "file"
MOST_BYTES = 1024 * 1024
"""Of one file."""
MOST_FILES = 10_000
LONGEST_PATH = 200


@dataclass(frozen=True, slots=True)
class FileVersion:
    """One version of a file. ``sha256`` is that of its bytes in UTF-8."""

    path: str
    version: int
    sha256: str
    lines: int
    deleted: bool
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Lines ``start`` to ``end`` (from 1, both included) of the ``lines`` of a file; ``cut`` where the cap took more away."""

    path: str
    start: int
    end: int
    lines: int
    text: str
    cut: bool


@dataclass(frozen=True, slots=True)
class Match:
    """A line that holds what was searched for."""

    path: str
    line: int
    text: str


class FileStore:
    """The files of a run.

    Args:
        ledger: where they are written down.
        count: counts tokens, for the caps on reading.
    """

    def __init__(self, ledger: Ledger, *, count: Callable[[str], int] = count_tokens) -> None:
        self._ledger = ledger
        self._count = count

    # --- reading ---

    def paths(self) -> list[str]:
        """The paths of all files, sorted."""
        return sorted(_path(cube) for cube in self._cubes() if not _deleted(cube))

    def text(self, path: str) -> str:
        """A whole file. Raises NotFoundError."""
        return _content(self._live(path))

    def all(self) -> dict[str, str]:
        """Every file by its path."""
        return {_path(cube): _content(cube) for cube in self._cubes() if not _deleted(cube)}

    def read(self, path: str, start: int = 1, end: int | None = None, *, cap: int = 1000) -> Excerpt:
        """Some lines of a file, of at most ``cap`` tokens. Raises NotFoundError, and InputError for lines that it does not have."""
        lines = _lines(self.text(path))
        last = len(lines) if end is None else min(end, len(lines))
        if start < 1 or (last < start and (lines or start > 1)):
            raise InputError(f"{path} has {len(lines)} lines; lines {start} to {end} are not among them")
        taken: list[str] = []
        left = cap
        for line in lines[start - 1 : last]:
            cost = self._count(line + "\n")
            if cost > left:
                if not taken:  # one line alone is longer than the cap
                    taken.append(line[: max(left, 0)])
                return Excerpt(path, start, start + len(taken) - 1, len(lines), "\n".join(taken), True)
            left -= cost
            taken.append(line)
        return Excerpt(path, start, last, len(lines), "\n".join(taken), False)

    def search(self, *words: str, limit: int = 20) -> list[Match]:
        """The first lines that hold one of some texts, as they stand: no pattern that a model writes is run as one."""
        wanted = [word for word in words if word]
        if not wanted:
            raise InputError("search for what? Give one or more texts")
        found: list[Match] = []
        for path, text in sorted(self.all().items()):
            for number, line in enumerate(_lines(text), 1):
                if any(word in line for word in wanted):
                    found.append(Match(path, number, line))
                    if len(found) == limit:
                        return found
        return found

    def history(self, path: str) -> list[FileVersion]:
        """Every version of a file, oldest first; also of one that was deleted. Raises NotFoundError."""
        rows = self._ledger.store.versions(self._known(path).id, self._ledger.scope)
        return [_version(row.cube) for row in rows]

    def at(self, path: str, version: int) -> str:
        """A file as it was at a version; "" where it was deleted then. Raises NotFoundError."""
        cube = self._ledger.store.get(self._known(path).id, self._ledger.scope, version=version)
        return "" if _deleted(cube) else _content(cube)

    def version(self, path: str) -> FileVersion:
        """The current version of a file. Raises NotFoundError."""
        return _version(self._live(path))

    def diff(self, path: str, old: int, new: int | None = None) -> str:
        """What changed between two versions (by default until now), as a unified diff that ``patch`` takes."""
        after = self.text(path) if new is None else self.at(path, new)
        return unified(path, self.at(path, old), after)

    @property
    def digest(self) -> str:
        """One hash of all paths and contents."""
        whole = hashlib.sha256()
        for path, text in sorted(self.all().items()):
            whole.update(f"{path}\0{_sha(text)}\n".encode())
        return whole.hexdigest()

    # --- changing ---

    def write(self, path: str, text: str) -> FileVersion:
        """Write a whole file; the same content again changes nothing. Raises InputError for a path or a text that cannot be."""
        path = confined(path)
        _check_text(path, text)
        held = self._find(path)
        if held is not None and not _deleted(held) and _content(held) == text:
            return _version(held)
        if held is None or _deleted(held):
            self._check_place(path)
        data = {"subject": path, "sha256": _sha(text)}
        body = f"{path}\n{text}"
        if held is None:
            made = self._ledger.make(FILE, body, data)
            return _version(self._find(path) or made)
        return _version(self._ledger.change(held, text=body, data=data, status=Status.ACTIVATED))

    def patch(self, path: str, diff: str) -> FileVersion:
        """Change a file by a unified diff. Raises NotFoundError, and InputError where its context does not stand in the file."""
        return self.write(path, patched(self.text(path), diff))

    def delete(self, path: str) -> None:
        """Delete a file; its history stays. Raises NotFoundError."""
        self._ledger.change(self._live(path), status=Status.ARCHIVED)

    def rollback(self, path: str, version: int) -> FileVersion:
        """Make an earlier version the newest one. Raises NotFoundError."""
        held = self._known(path)
        earlier = self._ledger.store.get(held.id, self._ledger.scope, version=version)
        if _deleted(earlier):
            if not _deleted(held):
                self.delete(path)
            return _version(self._known(path))
        return self.write(path, _content(earlier))

    def export(self, folder: str | Path) -> None:
        """Write all files into a folder that is new or empty, through no link.

        Raises ConflictError where the folder holds something or is a link, and where anything turns up in it meanwhile.
        """
        root = Path(folder)
        if root.is_symlink():
            raise ConflictError(f"{root} is a link; name the folder itself")
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            raise ConflictError(f"{root} is not empty; name a new folder, so that nothing in it is overwritten")
        made = {root}
        try:
            for path, text in sorted(self.all().items()):
                place = root / path
                for parent in reversed(place.parents):
                    if root in parent.parents and parent not in made:
                        parent.mkdir()  # one that is there already is not ours, and may be a link
                        made.add(parent)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                with os.fdopen(os.open(place, flags, 0o644), "w", encoding="utf-8", newline="") as file:
                    file.write(text)
        except FileExistsError as error:
            raise ConflictError(
                f"{error.filename} was put there meanwhile; name a new folder, and leave it alone"
            ) from error

    # --- inside ---

    def _cubes(self) -> list[Cube]:
        return self._ledger.cubes(FILE)

    def _find(self, path: str) -> Cube | None:
        return next((cube for cube in self._cubes() if _path(cube) == path), None)

    def _known(self, path: str) -> Cube:
        found = self._find(confined(path))
        if found is None:
            near = difflib.get_close_matches(path, self.paths(), 1)
            raise NotFoundError(f"there is no file {path}" + (f"; did you mean {near[0]}?" if near else ""))
        return found

    def _live(self, path: str) -> Cube:
        found = self._known(path)
        if _deleted(found):
            raise NotFoundError(f"{path} was deleted")
        return found

    def _check_place(self, path: str) -> None:
        paths = self.paths()
        if len(paths) >= MOST_FILES:
            raise InputError(f"a run may hold {MOST_FILES} files; delete some first")
        for other in paths:
            if other.startswith(f"{path}/") or path.startswith(f"{other}/"):
                raise InputError(f"{path} cannot be: {other} is there, and a path is a file or a folder, not both")
            if other.casefold() == path.casefold():
                raise InputError(f"{path} differs from {other} by capitals alone; many disks hold only one of the two")


def confined(path: str) -> str:
    """The path, where it is relative and stays inside: parts of printable text, joined by "/". Raises InputError."""
    if not isinstance(path, str) or not path or len(path) > LONGEST_PATH or not path.isprintable():
        raise InputError(f"a path is printable text of at most {LONGEST_PATH} characters, not {path!r:.80}")
    if any(mark in path for mark in '\\:*?"<>|') or unicodedata.normalize("NFC", path) != path:
        raise InputError(f"a path holds no backslash, colon or wildcard, and is in normal form C: {path!r}")
    for part in path.split("/"):
        if part != part.strip() or part in ("", ".", "..") or part.endswith(".") or part.startswith("~"):
            raise InputError(f"a path is relative and stays inside, as src/main.py does; {path!r} does not")
    return path


def unified(path: str, old: str, new: str) -> str:
    """The unified diff between two texts; "" where they are equal. A newline at the end counts as one more, empty, line."""
    lines = difflib.unified_diff(old.split("\n"), new.split("\n"), f"a/{path}", f"b/{path}", lineterm="")
    return "".join(f"{line}\n" for line in lines)


_HUNK = re.compile(r"@@ -(\d{1,9})(?:,\d{1,9})? \+\d{1,9}(?:,\d{1,9})? @@.*")


def patched(text: str, diff: str) -> str:
    """A text after a unified diff.

    A hunk applies where its header says, or else at the only other place after the hunk before where all of its old lines
    stand; its counts are not read. Raises InputError where there is none or more than one: then nothing is changed.
    """
    lines = text.split("\n")
    done: list[str] = []
    at = 0
    for start, old, new in _hunks(diff):
        said = start if not old else start - 1
        place = said if said >= at and lines[said : said + len(old)] == old else -1
        if place < 0 and old:
            others = [n for n in range(at, len(lines) - len(old) + 1) if lines[n : n + len(old)] == old]
            if len(others) > 1:
                raise InputError(f"the hunk at line {start} stands in {len(others)} places; give more lines around it")
            place = others[0] if others else -1
        if place < 0 or place > len(lines):
            there = "\n".join(lines[max(said, 0) : max(said, 0) + len(old)])[:300]
            raise InputError(f"the hunk at line {start} does not fit; what stands there is:\n{there}")
        done += lines[at:place] + new
        at = place + len(old)
    return "\n".join(done + lines[at:])


def _hunks(diff: str) -> list[tuple[int, list[str], list[str]]]:
    """(line, old lines, new lines) of each hunk."""
    body = diff.split("\n")
    if body and not body[-1]:
        body.pop()
    hunks: list[tuple[int, list[str], list[str]]] = []
    bare: list[set[str]] = []
    mark = ""
    for line in body:
        if header := _HUNK.fullmatch(line):
            hunks.append((int(header[1]), [], []))
            bare.append(set())
        elif hunks:
            before, mark, words = mark, line[:1] or " ", line[1:]
            _, old, new = hunks[-1]
            if mark not in " -+\\":
                raise InputError(f"a line of a hunk begins with a space, - or +, not as {line[:40]!r} does")
            if mark == "\\":
                bare[-1].add(before)
            if mark in " -":
                old.append(words)
            if mark in " +":
                new.append(words)
        elif not line.startswith(("---", "+++", "diff ", "index ")):
            raise InputError(
                f"a unified diff has hunks that begin with @@ -line,count +line,count @@, not {line[:40]!r}"
            )
    for (_, old, new), sides in zip(hunks, bare, strict=True):
        # Where the last line of one side alone lacks its newline, the other side has one more, empty, line.
        if sides == {"-"}:
            new.append("")
        if sides == {"+"}:
            old.append("")
    if not any(old != new for _, old, new in hunks):
        raise InputError("the diff changes nothing; it needs a hunk with lines that begin with - or +")
    return hunks


def _path(cube: Cube) -> str:
    return cube.text.partition("\n")[0]


def _content(cube: Cube) -> str:
    return cube.text.partition("\n")[2]


def _deleted(cube: Cube) -> bool:
    return cube.status is Status.ARCHIVED


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _version(cube: Cube) -> FileVersion:
    text = _content(cube)
    return FileVersion(_path(cube), cube.version, _sha(text), len(_lines(text)), _deleted(cube), cube.recorded_at)


def _check_text(path: str, text: str) -> None:
    if not isinstance(text, str) or "\0" in text:
        raise InputError(f"what is written to {path} must be text, without NUL")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InputError(f"what is written to {path} cannot be encoded as UTF-8: {error.reason}") from error
    if size > MOST_BYTES:
        raise InputError(f"a file may have {MOST_BYTES} bytes; split {path}")
