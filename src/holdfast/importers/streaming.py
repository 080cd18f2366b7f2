"""Large JSON read one element at a time: memory is bounded by the largest element, and a broken element costs only itself.

The end of an element is found by its brackets and quotes alone, so what is too large, too deep or not JSON can be stepped over and
named, and what comes after it is read. Nothing here recurses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

LARGEST = 64 * 1024 * 1024
"""Bytes of one element; a larger one is stepped over."""

DEEPEST = 200
"""Levels of brackets within one element; a deeper one is stepped over."""

_CHUNK = 256 * 1024
_FIRST = 1024 * 1024  # bytes in which the first of several lines ends
_MARK = re.compile(rb'["{}\[\]]')
_END = re.compile(rb"[,\]}\s]")
_WORD = re.compile(rb"[^ \t\r\n]")
_TRUNCATED = "the file ends in the middle of it"


@dataclass(frozen=True, slots=True)
class Element:
    """One element: the member of the outer object it stands in (None in a list, or line by line), its number there from 1 on (0
    where the member itself is meant), and its value, or why there is none."""

    member: str | None
    number: int
    value: Any = None
    problem: str = ""


class _Broken(Exception):
    """What follows cannot be read."""


def elements(stream: BinaryIO, wanted: Callable[[str | None], bool] = lambda _: True) -> Iterator[Element]:
    """The elements of a JSON list, of each list in a JSON object, or of JSON lines.

    Members of the outer object that are not ``wanted`` are stepped over unread. A file that breaks off yields what came before, and
    then the problem.
    """
    text = _Text(stream)
    first = text.peek()
    if first == b"[":
        yield from text.list(None)
    elif first == b"{":
        whole = text.line()
        if whole is None:
            yield from text.object(wanted)
        else:
            yield from text.lines(whole)
    elif first:
        yield Element(None, 0, problem="it is not JSON: it begins with neither [ nor {")


class _Text:
    """A window that moves over a stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._at = 0
        self._ended = False
        self._chunk = _CHUNK
        self.fill()
        if self._buffer.startswith(b"\xef\xbb\xbf"):
            self._at = 3

    def fill(self, keep: int | None = None) -> bool:
        """Read on; what lies before ``keep`` is let go. False at the end."""
        keep = self._at if keep is None else keep
        if keep:
            del self._buffer[:keep]
            self._at -= keep
        # A long element is searched once for each doubling, not once for each chunk.
        self._chunk = max(_CHUNK, min(len(self._buffer), LARGEST))
        more = b"" if self._ended else self._stream.read(self._chunk)
        self._ended = not more
        self._buffer += more
        return bool(more)

    def peek(self) -> bytes:
        """The next character that is no blank; empty at the end."""
        while True:
            found = _WORD.search(self._buffer, self._at)
            if found:
                self._at = found.start()
                return bytes(self._buffer[self._at : self._at + 1])
            self._at = len(self._buffer)
            if not self.fill():
                return b""

    def take(self, expected: bytes) -> None:
        if self.peek() != expected:
            raise _Broken(_TRUNCATED if not self.peek() else f"there is no {expected.decode()} where one must be")
        self._at += 1

    # --- shapes ---

    def list(self, member: str | None) -> Iterator[Element]:
        """The elements of the list that begins here."""
        number = 0
        try:
            self.take(b"[")
            while self.peek() != b"]":
                if number:
                    self.take(b",")
                number += 1
                value, problem = self.value(keep=True)
                yield Element(member, number, value, problem)
            self._at += 1
        except _Broken as error:
            yield Element(member, max(number, 1), problem=f"{error}; nothing after it was read")
            if member is not None:
                raise

    def object(self, wanted: Callable[[str | None], bool]) -> Iterator[Element]:
        """The members of the object that begins here, the lists among them element by element."""
        name: str | None = None
        told = False
        try:
            self.take(b"{")
            begun = False
            while self.peek() != b"}":
                if begun:
                    self.take(b",")
                begun = True
                if self.peek() != b'"':
                    raise _Broken("a member has no name" if self.peek() else _TRUNCATED)
                found, problem = self.value(keep=True)
                if problem:
                    raise _Broken(problem)
                name = str(found)
                self.take(b":")
                keep = wanted(name)
                if keep and self.peek() == b"[":
                    told = True
                    yield from self.list(name)
                    told = False
                else:
                    value, problem = self.value(keep=keep)
                    if keep:
                        yield Element(name, 0, value, problem)
        except _Broken as error:
            if not told:
                yield Element(name, 0, problem=f"{error}; nothing after it was read")

    def line(self) -> bytes | None:
        """The first line, if it is an object by itself and others follow: then these are JSON lines. Nothing is consumed else."""
        end = self._newline(self._at, _FIRST)
        if end < 0:
            return None
        line = bytes(self._buffer[self._at : end])
        value, problem = _parsed(line)
        if problem or not isinstance(value, dict):
            return None
        while not _WORD.search(self._buffer, self._at + len(line)):
            if len(self._buffer) > _FIRST + _CHUNK or not self.fill():
                return None
        self._at += len(line)
        return line

    def lines(self, first: bytes) -> Iterator[Element]:
        """The first line and those that follow, each a value by itself."""
        number = 1
        value, problem = _parsed(first)
        yield Element(None, number, value, problem)
        while self.peek():
            number += 1
            end = self._newline(self._at)
            if end < 0 and self._ended and len(self._buffer) - self._at <= LARGEST:
                end = len(self._buffer)
            if end < 0:  # it is too long: step over it
                while (end := self._buffer.find(b"\n", self._at)) < 0:
                    self._at = len(self._buffer)
                    if not self.fill():
                        end = self._at
                        break
                self._at = end
                yield Element(None, number, problem=_large())
                continue
            line = bytes(self._buffer[self._at : end])
            self._at = end
            value, problem = _parsed(line)
            yield Element(None, number, value, problem)

    def _newline(self, begin: int, most: int | None = None) -> int:
        """Where the line that begins here ends; -1 where the file ends before, or the line is longer than ``most``."""
        most = LARGEST if most is None else most
        searched = begin - self._at
        while (end := self._buffer.find(b"\n", self._at + searched)) < 0:
            searched = len(self._buffer) - self._at
            if searched > most or not self.fill():
                return -1
        return end if end - self._at <= most else -1

    # --- one value ---

    def value(self, *, keep: bool) -> tuple[Any, str]:
        """Step over the value that begins here; its value, or why there is none. Raises _Broken where the file breaks off."""
        first = self.peek()
        if not first or first in b",:]}":
            raise _Broken(_TRUNCATED if not first else "a value is missing")
        kept, deep = self._span(first, keep)
        if deep > DEEPEST:
            return None, f"it is nested more than {DEEPEST} levels deep"
        if kept is None:
            return None, _large() if keep else ""
        return _read(kept)

    def _span(self, first: bytes, keep: bool) -> tuple[bytes | None, int]:
        """The bytes of the value, None where they are not kept or too many; and how deep it is."""
        begin = position = self._at
        depth = deepest = 0

        def more() -> None:
            """Read on, and move what counts along."""
            nonlocal begin, position, keep
            if keep and position - begin > LARGEST:
                keep = False
            gone = begin if keep else position
            self._at = gone
            if not self.fill():
                raise _Broken(_TRUNCATED)
            begin = max(begin - gone, 0)
            position -= gone

        if first not in b'"{[':
            while not (found := _END.search(self._buffer, position)):
                position = len(self._buffer)
                more()  # what is there may be half of it
            end = found.start()
            kept = bytes(self._buffer[begin:end]) if keep and end - begin <= LARGEST else None
            self._at = end
            return kept, 0
        while True:
            found = _MARK.search(self._buffer, position)
            if not found:
                position = len(self._buffer)
                more()
                continue
            position = found.end()
            mark = found.group()
            if mark == b'"':
                while True:
                    end = self._buffer.find(b'"', position)
                    if end < 0:
                        # An escape that the chunk cuts in two must be seen whole.
                        position = len(self._buffer) - _backslashes(self._buffer, len(self._buffer), position) % 2
                        more()
                        continue
                    if _backslashes(self._buffer, end, position) % 2:
                        position = end + 1
                        continue
                    position = end + 1
                    break
            elif mark in b"{[":
                depth += 1
                deepest = max(deepest, depth)
            else:
                depth -= 1
            if depth <= 0:
                break
        kept = bytes(self._buffer[begin:position]) if keep and position - begin <= LARGEST else None
        self._at = position
        return kept, deepest


def _backslashes(buffer: bytearray, end: int, begin: int) -> int:
    """How many backslashes stand right before ``end``."""
    at = end
    while at > begin and buffer[at - 1] == 0x5C:
        at -= 1
    return end - at


def _parsed(raw: bytes) -> tuple[Any, str]:
    if _depth(raw) > DEEPEST:
        return None, f"it is nested more than {DEEPEST} levels deep"
    return _read(raw)


def _read(raw: bytes) -> tuple[Any, str]:
    try:
        text = raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        return None, f"it is not UTF-8 text (byte {error.start} of it)"
    try:
        return json.loads(text, parse_constant=_refuse), ""
    except (ValueError, RecursionError) as error:  # also a number of too many digits
        return None, f"it is not JSON: {str(error)[:120]}"


def _depth(raw: bytes) -> int:
    """How deep a text is nested, or how many brackets it has where these are few."""
    count = raw.count(b"[") + raw.count(b"{")
    if count <= DEEPEST:
        return count
    depth = deepest = 0
    quoted = False
    for found in re.finditer(rb'\\.|["{}\[\]]', raw, re.DOTALL):
        mark = found.group()
        if mark == b'"':
            quoted = not quoted
        elif not quoted and mark in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif not quoted and mark in b"]}":
            depth -= 1
    return deepest


def _large() -> str:
    return f"it is larger than {LARGEST // 1024**2} MiB"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")
