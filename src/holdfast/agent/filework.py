"""The tools by which a model works on the files of a run (L2MAC, arXiv 2310.02003: the read and the write component).

Every result is bounded, says in words what failed, and never raises for what a model asked: a model reads errors, not exceptions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.agent.acceptance import weakened
from holdfast.agent.files import FileStore, patched
from holdfast.chat import Call, Tool
from holdfast.encode.schemas import misfits
from holdfast.errors import InputError, NotFoundError

PROFILE = ()  # hands, and no memory

TASK_FILE = "task.md"
"""Where the whole task can be read; nothing may change it."""


def _tool(name: str, description: str, required: str = "", **properties: Mapping[str, Any]) -> Tool:
    schema = {"type": "object", "properties": properties, "required": required.split()}
    return Tool(name, description, schema)


_TEXT, _NUMBER = {"type": "string"}, {"type": "integer"}
_FILE = {
    "type": "object",
    "properties": {"path": _TEXT, "text": _TEXT},
    "required": ["path", "text"],
}

READ = _tool("read_file", "Lines start to end of a file.", "path", path=_TEXT, start=_NUMBER, end=_NUMBER)
SEARCH = _tool(
    "search_files",
    "Lines that hold one of these words.",
    "words",
    words={"type": "array", "items": _TEXT, "minItems": 1},
)
LIST = _tool("list_files", "All paths.")
WRITE = _tool("write_files", "Write whole files.", "files", files={"type": "array", "items": _FILE, "minItems": 1})
PATCH = _tool("patch_file", "Change a file by a unified diff.", "path diff", path=_TEXT, diff=_TEXT)
DELETE = _tool("delete_files", "Delete files.", "paths", paths={"type": "array", "items": _TEXT, "minItems": 1})
TOOLS = (LIST, READ, SEARCH, WRITE, PATCH, DELETE)
_LONGEST_LINE = 300
_CHANGING = {WRITE.name, PATCH.name, DELETE.name}


@dataclass(frozen=True, slots=True)
class Done:
    """What a call gave: the words for the model, and whether a file was changed."""

    text: str
    changed: bool = False


class FileWork:
    """Carries out a model's calls on files.

    Args:
        files: the files.
        cap: tokens of one result.
        count: counts tokens.
    """

    def __init__(self, files: FileStore, *, cap: int, count: Callable[[str], int]) -> None:
        self._files = files
        self._cap = cap
        self._count = count

    def perform(self, call: Call, *, kept: Mapping[str, str], cut: bool = False) -> Done:
        """Do what a call asks. ``kept``: tests that may not be weakened, by path; ``cut``: the reply ran into its limit."""
        tool = next((tool for tool in TOOLS if tool.name == call.tool), None)
        if tool is None:
            return Done(f"error: there is no tool {call.tool!r:.60}")
        if wrong := misfits(dict(call.arguments), tool.parameters):
            return Done(f"error: {'; '.join(map(str, wrong[:3]))}")
        if cut and call.tool in _CHANGING:
            return Done(
                "error: your reply was cut at its limit, so nothing was changed. Write fewer or shorter files at a time, or patch"
            )
        before = self._files.digest if call.tool in _CHANGING else ""
        text = clipped(self._does(call.tool, call.arguments, kept), self._cap, self._count)
        return Done(text, call.tool in _CHANGING and self._files.digest != before)

    def _does(self, tool: str, given: Mapping[str, Any], kept: Mapping[str, str]) -> str:
        if tool == LIST.name:
            return "\n".join(self._files.paths()) or "there are no files"
        if tool == READ.name:
            return _tried(self._read, given)
        if tool == SEARCH.name:
            return _tried(self._search, given["words"])
        if tool == PATCH.name:
            return _tried(self._patch, given["path"], given["diff"], kept)
        if tool == DELETE.name:
            return "\n".join(_tried(self._delete, path, kept) for path in given["paths"])
        return "\n".join(_tried(self._write, one["path"], one["text"], kept) for one in given["files"])

    def _read(self, given: Mapping[str, Any]) -> str:
        room = self._cap - 20  # for the line above it
        found = self._files.read(given["path"], given.get("start", 1), given.get("end"), cap=room)
        more = "; cut, read on from there" if found.cut else ""
        return f"{found.path}, lines {found.start} to {found.end} of {found.lines}{more}\n{found.text}"

    def _search(self, words: list[str]) -> str:
        found = self._files.search(*words)
        return "\n".join(f"{one.path}:{one.line}: {one.text[:_LONGEST_LINE]}" for one in found) or "no line holds that"

    def _write(self, path: str, text: str, kept: Mapping[str, str]) -> str:
        self._permit(path, text, kept)
        return f"wrote {path}, {self._files.write(path, text).lines} lines"

    def _patch(self, path: str, diff: str, kept: Mapping[str, str]) -> str:
        return self._write(path, patched(self._files.text(path), diff), kept)

    def _delete(self, path: str, kept: Mapping[str, str]) -> str:
        self._permit(path, None, kept)
        self._files.delete(path)
        return f"deleted {path}"

    @staticmethod
    def _permit(path: str, text: str | None, kept: Mapping[str, str]) -> None:
        if path == TASK_FILE:
            raise InputError(f"{TASK_FILE} is the task, and may not be changed")
        if path in kept and (why := weakened({path: kept[path]}, {} if text is None else {path: text})):
            raise InputError(f"{why[0]}; nothing was changed")


def _tried(work: Callable[..., str], *given: Any) -> str:
    try:
        return work(*given)
    except (InputError, NotFoundError) as error:
        return f"error: {error}"


def listed(paths: Sequence[str], cap: int, count: Callable[[str], int]) -> str:
    """The first paths that ``cap`` tokens hold, and how many more there are."""
    told, shown = "", 0
    for path in paths:
        longer = f"{told}, {path}" if told else path
        if count(f"{longer} and {len(paths)} more") > cap:
            break
        told, shown = longer, shown + 1
    more = f"{len(paths) - shown} more" if shown < len(paths) else ""
    return " and ".join(filter(None, [told, more])) or "none"


def clipped(text: str, cap: int, count: Callable[[str], int]) -> str:
    """A text of at most ``cap`` tokens: cut between lines where it can be, and saying so."""
    if count(text) <= cap:
        return text
    mark = "\n[cut]"
    while text and count(text + mark) > cap:
        # By the share that is too much, so that a long text takes a few steps and not one for each character.
        text = text[: min(len(text) - 1, len(text) * cap // count(text + mark))]
    return (text.rpartition("\n")[0] or text) + mark
