"""What a command prints: words that wrap, tables, JSON, bars and questions, fit for a terminal and for a pipe alike."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

WIDEST = 120
NARROWEST = 40

# Everything that moves the cursor, colours, rings or turns the direction of writing: a memory's text may hold it.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Screen:
    """Where a command's answer goes. ``out`` carries the answer and nothing else; notes and bars go to ``err``.

    ``json``: the answer is one JSON document. ``styled``: ``out`` is a terminal that shows bold and dim.
    """

    out: TextIO
    err: TextIO
    json: bool = False
    width: int = 80
    styled: bool = False

    @classmethod
    def of_process(cls, *, as_json: bool) -> Screen:
        """The process's own standard output and error."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # what the terminal cannot show is escaped, never a crash
                stream.reconfigure(errors="backslashreplace")
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        return cls(
            out=sys.stdout,
            err=sys.stderr,
            json=as_json,
            width=max(NARROWEST, min(WIDEST, shutil.get_terminal_size((80, 24)).columns)),
            styled=sys.stdout.isatty() and not plain and sys.platform != "win32",
        )

    # --- the answer ---

    def data(self, answer: Any) -> None:
        """The answer as one JSON document."""
        ascii_only = (getattr(self.out, "encoding", None) or "utf-8").lower().replace("-", "") != "utf8"
        self.out.write(json.dumps(answer, indent=2, ensure_ascii=ascii_only) + "\n")

    def line(self, text: str = "") -> None:
        """One line as it is."""
        self.out.write(text + "\n")

    def say(self, text: str, *, indent: int = 0, hang: int = 0, style: str = "") -> None:
        """A paragraph, wrapped; ``hang`` indents its further lines more. ``style`` is "", "bold" or "dim"."""
        first, rest = " " * indent, " " * (indent + hang)
        for line in wrap(plain(text), self.width - indent - hang, head=self.width - indent):
            self.line(self.style(first + line, style))
            first = rest

    def heading(self, text: str) -> None:
        """A heading, with a blank line before it."""
        self.line()
        self.say(text, style="bold")

    def table(self, rows: Iterable[Sequence[Any]], headers: Sequence[str] = (), *, wide: int | None = None) -> None:
        """A table. Column ``wide`` takes whatever width the others leave, and wraps."""
        cells = [[plain("" if cell is None else str(cell)) for cell in row] for row in rows]
        if not cells:
            return
        # tabulate makes a column two wider than its header.
        head = [display_width(header) + 2 for header in headers] or [0] * len(cells[0])
        widest = [max(head[i], *(display_width(row[i]) for row in cells)) for i in range(len(cells[0]))]
        if wide is not None:
            others = sum(size for i, size in enumerate(widest) if i != wide) + 2 * (len(widest) - 1)
            room = max(20, self.width - others)
            for row in cells:
                row[wide] = "\n".join(wrap(row[wide], room))
        from tabulate import tabulate  # slow to import, and most commands print no table

        style = "simple" if headers else "plain"
        text = tabulate(cells, headers=headers, tablefmt=style, disable_numparse=True)
        self.line("\n".join(line.rstrip() for line in text.splitlines()))

    def style(self, text: str, style: str) -> str:
        """The text in bold or dim, on a terminal."""
        code = {"bold": "1", "dim": "2"}.get(style)
        return f"\x1b[{code}m{text}\x1b[0m" if self.styled and code and text else text

    # --- beside the answer ---

    def note(self, text: str) -> None:
        """Something beside the answer, on standard error: wrapped on a terminal, one line in a file."""
        self.out.flush()
        lines = wrap(plain(text), self.width) if self.err.isatty() else [plain(text)]
        self.err.write("\n".join(lines) + "\n")
        self.err.flush()

    def bar(self, total: int | None, what: str, unit: str = " memories") -> tqdm[Any]:
        """A progress bar on standard error, seen only on a terminal."""
        from tqdm import tqdm

        self.out.flush()
        return tqdm(
            total=total,
            desc=what,
            unit=unit,
            file=self.err,
            disable=not self.err.isatty(),
            leave=False,
            ncols=self.width,
        )

    def can_ask(self) -> bool:
        """Whether somebody is there to answer."""
        return not self.json and sys.stdin is not None and sys.stdin.isatty() and self.err.isatty()

    def ask(self, question: str) -> bool:
        """Ask yes or no; anything but yes is no."""
        self.out.flush()
        self.err.write(f"{question} [y/N] ")
        self.err.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun: "1 memory", "2,000 memories"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def plain(text: str) -> str:
    """The text without anything that would steer a terminal; lines and words stay."""
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\t", "    "))


def display_width(text: str) -> int:
    """How many columns a terminal gives a text: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def wrap(text: str, width: int, *, head: int | None = None) -> list[str]:
    """The text in lines of at most ``width`` columns (the first: ``head``), broken between words where there are any."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line: str | None = None  # None: nothing on it yet, so that leading blanks are kept
        room = head if head is not None and not lines else width
        for word in paragraph.split(" "):
            joined = word if line is None else f"{line} {word}"
            if display_width(joined) <= room:
                line = joined
                continue
            if line is not None and line.strip():
                lines.append(line.rstrip())
                room = width
            *whole, line = _broken(word, room, width)
            if whole:
                lines += whole
                room = width
        lines.append((line or "").rstrip())
    return lines


def _broken(word: str, room: int, width: int) -> list[str]:
    """A word in pieces that fit, the first of them beside what is on its line; a character that fits nowhere has a line."""
    pieces, begin, taken = [], 0, 0
    for at, character in enumerate(word):
        columns = _columns(character)
        if taken + columns > room and at > begin:
            pieces.append(word[begin:at])
            begin, taken, room = at, 0, width
        taken += columns
    return [*pieces, word[begin:]]
