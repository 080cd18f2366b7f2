"""The files of Anthropic's memory tool as memories: ``client.beta.messages.run_tools(tools=[HoldfastMemoryTool(memory)], ...)``.

There is no disk beneath: a path is the name of a memory (``named``) and every edit is a new version, so ``Memory.history`` and
``undo`` work on a model's notes, a search finds them, and ``forget`` reaches them. Answers are worded as the tool's documentation
has them, since that is what models were taught to expect.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import unquote

from holdfast.adapters.named import Named, joined
from holdfast.cube import Channel, Cube
from holdfast.errors import HoldfastError, MissingExtraError
from holdfast.guard.governor import Purpose
from holdfast.memory import Memory
from holdfast.store.base import Operation

try:
    from anthropic.lib.tools import BetaAbstractMemoryTool, BetaAsyncAbstractMemoryTool, ToolError
    from anthropic.types.beta import (
        BetaMemoryTool20250818CreateCommand,
        BetaMemoryTool20250818DeleteCommand,
        BetaMemoryTool20250818InsertCommand,
        BetaMemoryTool20250818RenameCommand,
        BetaMemoryTool20250818StrReplaceCommand,
        BetaMemoryTool20250818ViewCommand,
    )
except ImportError as error:
    raise MissingExtraError("this needs Anthropic's SDK: pip install anthropic") from error

ROOT = "/memories"
FILE = "memo"
"""The kind of a file."""

OUTSIDE = f"{Channel.TOOL}:memory"
"""The taint of what a model notes that may have read anything."""

MOST_FILES = 10_000
LONGEST_PATH = 500
LONGEST_NAME = 200
MOST_BYTES = 1024 * 1024
"""Of one file."""

_LINES = 999_999
_WIDTH = len(str(_LINES))

T = TypeVar("T")


class HoldfastMemoryTool(BetaAbstractMemoryTool):
    """The memory tool in one scope of a memory.

    Args:
        memory: where the files are kept.
        closed: the model reads nothing but these files and its user, so what it notes is taken for its own word; else it counts
            as coming from outside, and what looks like an attack is kept out of recall, though not from the tool.
        erase: ``delete`` forgets for good; else a file goes out of recall and stays in history.
        cache_control: as Anthropic's own.
        scope: tenant, user, agent, session, as ``Memory`` takes them.

    Raises ScopeError where no user is named.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        closed: bool = False,
        erase: bool = False,
        cache_control: Any = None,
        **scope: str | None,
    ) -> None:
        super().__init__(cache_control=cache_control)
        self._files = Named(memory, FILE, Channel.ASSISTANT, erase=erase)
        self._scope = memory.scope(**scope)
        self._taint = () if closed else (OUTSIDE,)

    def view(self, command: BetaMemoryTool20250818ViewCommand) -> str:
        """A file with its lines numbered, or what lies up to two levels deep in a folder."""
        return _told(self._view, command)

    def create(self, command: BetaMemoryTool20250818CreateCommand) -> str:
        """A new file. One that is there is not overwritten."""
        return _told(self._create, command)

    def str_replace(self, command: BetaMemoryTool20250818StrReplaceCommand) -> str:
        """Put other words in place of some that stand in a file once."""
        return _told(self._str_replace, command)

    def insert(self, command: BetaMemoryTool20250818InsertCommand) -> str:
        """Put words after a line; 0 is before the first."""
        return _told(self._insert, command)

    def delete(self, command: BetaMemoryTool20250818DeleteCommand) -> str:
        """Take a file, or a folder with all in it, away."""
        return _told(self._delete, command)

    def rename(self, command: BetaMemoryTool20250818RenameCommand) -> str:
        """Give a file or a folder another path, in one step."""
        return _told(self._rename, command)

    def clear_all_memory(self) -> str:
        """Take all files away."""
        for path in self._paths():
            self._files.drop(self._scope, _name(path))
        return "All memory cleared"

    # --- inside ---

    def _view(self, command: BetaMemoryTool20250818ViewCommand) -> str:
        path = confined(command.path)
        cube = self._files.get(self._scope, _name(path))
        if cube is None:
            return self._listed(path)
        lines = _content(cube).split("\n")
        if len(lines) > _LINES:
            raise ToolError(f"File {path} exceeds maximum line limit of 999,999 lines.")
        first, last = _range(command.view_range, len(lines))
        shown = "\n".join(f"{number:>{_WIDTH}}\t{lines[number - 1]}" for number in range(first, last + 1))
        return f"Here's the content of {path} with line numbers:\n{shown}"

    def _listed(self, folder: str) -> str:
        sizes = {path: len(_content(cube).encode("utf-8", "surrogatepass")) for path, cube in self._paths().items()}
        inside = {path: size for path, size in sizes.items() if path.startswith(folder + "/")}
        if not inside and folder != ROOT:
            raise ToolError(f"The path {folder} does not exist. Please provide a valid path.")
        entries: dict[str, int] = {}
        for path, size in inside.items():
            parts = path[len(folder) + 1 :].split("/")
            if any(part.startswith(".") for part in parts[:2]):
                continue
            for depth in range(1, min(2, len(parts)) + 1):
                entry = f"{folder}/{'/'.join(parts[:depth])}" + ("/" if depth < len(parts) else "")
                entries[entry] = entries.get(entry, 0) + size
        lines = [
            f"{_size(sum(inside.values()))}\t{folder}",
            *(f"{_size(entries[one])}\t{one}" for one in sorted(entries)),
        ]
        head = f"Here're the files and directories up to 2 levels deep in {folder}, excluding hidden items:"
        return "\n".join([head, *lines])

    def _create(self, command: BetaMemoryTool20250818CreateCommand) -> str:
        path, text = self._free(command.path), _words(command.file_text, "file_text")
        if len(self._paths()) >= MOST_FILES:
            raise ToolError(f"There are {MOST_FILES:,} files already; delete some first")

        def make(before: Cube | None) -> Cube:
            if before is not None:
                raise ToolError(f"File {path} already exists")
            new = self._files.new(self._scope, _name(path), "-", self._taint, data={"path": path})
            return _written(new, text)

        self._files.change(self._scope, _name(path), make)
        return f"File created successfully at: {path}"

    def _str_replace(self, command: BetaMemoryTool20250818StrReplaceCommand) -> str:
        path = confined(command.path)
        old, new = _words(command.old_str, "old_str"), _words(command.new_str or "", "new_str")
        at = 0

        def edit(content: str) -> str:
            nonlocal at
            found = [place for place in range(len(content)) if content.startswith(old, place)] if old else []
            if not found:
                raise ToolError(f"No replacement was performed, old_str `{old}` did not appear verbatim in {path}.")
            if len(found) > 1:
                lines = ", ".join(str(content.count("\n", 0, place) + 1) for place in found)
                raise ToolError(
                    f"No replacement was performed. Multiple occurrences of old_str `{old}` in lines: {lines}. "
                    "Please ensure it is unique"
                )
            at = content.count("\n", 0, found[0])
            return content[: found[0]] + new + content[found[0] + len(old) :]

        lines = self._edited(path, edit).split("\n")
        shown = [
            f"{number:>{_WIDTH}}\t{lines[number - 1]}" for number in range(max(1, at - 1), min(len(lines), at + 3) + 1)
        ]
        return (
            "The memory file has been edited. Here is the snippet showing the change (with line numbers):\n"
            + "\n".join(shown)
        )

    def _insert(self, command: BetaMemoryTool20250818InsertCommand) -> str:
        path, text = confined(command.path), _words(command.insert_text, "insert_text")

        def edit(content: str) -> str:
            lines = content.split("\n")
            if lines[-1] == "":
                lines.pop()
            if not isinstance(command.insert_line, int) or not 0 <= command.insert_line <= len(lines):
                raise ToolError(
                    f"Invalid `insert_line` parameter: {command.insert_line}. "
                    f"It should be within the range [0, {len(lines)}]."
                )
            lines.insert(command.insert_line, text.removesuffix("\n"))
            return "\n".join(lines) + "\n"

        self._edited(path, edit)
        return f"The file {path} has been edited."

    def _delete(self, command: BetaMemoryTool20250818DeleteCommand) -> str:
        path = confined(command.path)
        if path == ROOT:
            raise ToolError(f"Cannot delete the {ROOT} directory itself")
        doomed = [one for one in self._paths() if one == path or one.startswith(path + "/")]
        if not [one for one in doomed if self._files.drop(self._scope, _name(one))]:
            raise ToolError(f"The path {path} does not exist")
        return f"Successfully deleted {path}"

    def _rename(self, command: BetaMemoryTool20250818RenameCommand) -> str:
        old = confined(command.old_path)
        if old == ROOT:
            raise ToolError(f"Cannot rename the {ROOT} directory itself")
        new = self._free(command.new_path)
        if new.startswith(old + "/"):
            raise ToolError(f"{old} cannot be moved into itself")
        moved = {path: cube for path, cube in self._paths().items() if path == old or path.startswith(old + "/")}
        if not moved:
            raise ToolError(f"The path {old} does not exist")
        operations = []
        for path, cube in moved.items():
            target = confined(new + path[len(old) :])
            origin = replace(cube.origin, reference=_name(target))
            data = {**cube.data, "path": target, "turn": _name(target)}
            operations.append(Operation.update(cube.with_(origin=origin, data=data), f"renamed from {path}"))
        memory = self._files.memory
        if len(memory.apply(operations, actor=self._scope.path, change=Purpose.EDIT)) < len(operations):
            raise ToolError(f"{old} cannot be renamed: the guard refuses what is in it")
        return f"Successfully renamed {old} to {new}"

    def _edited(self, path: str, edit: Callable[[str], str]) -> str:
        after = ""

        def make(before: Cube | None) -> Cube:
            nonlocal after
            if before is None:
                what = "is not a file" if self._inside(path) else "does not exist. Please provide a valid path"
                raise ToolError(f"The path {path} {what}.")
            after = edit(_content(before))
            taint = tuple(sorted({*before.origin.taint, *self._taint}))
            return _written(before.with_(origin=replace(before.origin, taint=taint)), after)

        self._files.change(self._scope, _name(path), make)
        return after

    def _paths(self) -> dict[str, Cube]:
        return {str(cube.data["path"]): cube for cube in self._files.all(self._scope).values()}

    def _inside(self, folder: str) -> bool:
        return folder == ROOT or any(path.startswith(folder + "/") for path in self._paths())

    def _free(self, given: str) -> str:
        """A path at which there is nothing yet, below no file. Raises ToolError."""
        path = confined(given)
        if self._files.get(self._scope, _name(path)) is not None or self._inside(path):
            raise ToolError(f"The destination {path} already exists")
        above = path.rpartition("/")[0]
        while above != ROOT:
            if self._files.get(self._scope, _name(above)) is not None:
                raise ToolError(f"{above} is a file, and cannot hold {path}")
            above = above.rpartition("/")[0]
        return path


class AsyncHoldfastMemoryTool(BetaAsyncAbstractMemoryTool):
    """As ``HoldfastMemoryTool``, for the asynchronous client."""

    def __init__(self, memory: Memory, *, cache_control: Any = None, **options: Any) -> None:
        super().__init__(cache_control=cache_control)
        self._tool = HoldfastMemoryTool(memory, cache_control=cache_control, **options)

    async def view(self, command: BetaMemoryTool20250818ViewCommand) -> str:
        """See ``HoldfastMemoryTool.view``."""
        return await asyncio.to_thread(self._tool.view, command)

    async def create(self, command: BetaMemoryTool20250818CreateCommand) -> str:
        """See ``HoldfastMemoryTool.create``."""
        return await asyncio.to_thread(self._tool.create, command)

    async def str_replace(self, command: BetaMemoryTool20250818StrReplaceCommand) -> str:
        """See ``HoldfastMemoryTool.str_replace``."""
        return await asyncio.to_thread(self._tool.str_replace, command)

    async def insert(self, command: BetaMemoryTool20250818InsertCommand) -> str:
        """See ``HoldfastMemoryTool.insert``."""
        return await asyncio.to_thread(self._tool.insert, command)

    async def delete(self, command: BetaMemoryTool20250818DeleteCommand) -> str:
        """See ``HoldfastMemoryTool.delete``."""
        return await asyncio.to_thread(self._tool.delete, command)

    async def rename(self, command: BetaMemoryTool20250818RenameCommand) -> str:
        """See ``HoldfastMemoryTool.rename``."""
        return await asyncio.to_thread(self._tool.rename, command)

    async def clear_all_memory(self) -> str:
        """See ``HoldfastMemoryTool.clear_all_memory``."""
        return await asyncio.to_thread(self._tool.clear_all_memory)


def confined(path: object) -> str:
    """A path below ``/memories``, as it is; one that could be read as another is refused, not mended. Raises ToolError."""
    if not isinstance(path, str) or (path != ROOT and not path.startswith(ROOT + "/")):
        raise ToolError(f"Path must start with {ROOT}, got: {path!r}")
    if path != ROOT and path.endswith("/"):
        path = path[:-1]
    if len(path) > LONGEST_PATH or not path.isprintable():
        raise ToolError(f"A path has at most {LONGEST_PATH} characters, each of them to be seen, got: {path[:80]!r}")
    if "\\" in path or unquote(path) != path or unicodedata.normalize("NFKC", path) != path:
        raise ToolError(
            f"A path is written in plain characters, without \\, %-escapes or compatibility forms, got: {path!r}"
        )
    for part in path.split("/")[1:]:
        if not part or part in (".", "..") or part != part.strip() or part.endswith(".") or len(part) > LONGEST_NAME:
            raise ToolError(
                f"Path {path} would escape {ROOT}, or has a part that is empty, too long, or ends in a dot or blank"
            )
    return path


def _told(run: Callable[[Any], str], command: Any) -> str:
    try:
        return run(command)
    except HoldfastError as error:
        raise ToolError(str(error)) from error


def _words(value: object, parameter: str) -> str:
    """What a model sent where words must be, which the SDK does not look at. Raises ToolError."""
    if not isinstance(value, str):
        raise ToolError(f"Invalid `{parameter}` parameter: {value!r:.40}. It should be text.")
    return value


def _name(path: str) -> str:
    return joined("memories", path.split("/")[2:])


def _content(cube: Cube) -> str:
    return "" if cube.data.get("empty") else cube.text


def _written(cube: Cube, content: str) -> Cube:
    if len(content.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise ToolError(f"A file may have {MOST_BYTES:,} bytes; write several")
    data = {name: value for name, value in cube.data.items() if name != "empty"}
    return cube.with_(text=content or str(cube.data["path"]), data=data if content else {**data, "empty": True})


def _range(wanted: Sequence[int] | None, lines: int) -> tuple[int, int]:
    if not wanted:
        return 1, lines
    if len(wanted) != 2 or not all(isinstance(one, int) for one in wanted):
        raise ToolError(f"Invalid `view_range`: {wanted}. It should be two line numbers, the second -1 for the end.")
    first, last = max(1, wanted[0]), lines if wanted[1] == -1 else min(wanted[1], lines)
    if first > lines or last < first:
        raise ToolError(f"Invalid `view_range`: {list(wanted)}. The file has {lines} lines.")
    return first, last


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "K", "M"):
        if size < 1024 or unit == "M":
            break
        size /= 1024
    return f"{size:.0f}{unit}" if size == int(size) else f"{size:.1f}{unit}"
