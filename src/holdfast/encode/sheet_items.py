"""A sheet as items, written out for a prompt and read back by id (the memory items of Dynamic Cheatsheet, arXiv 2504.07952 §2).

What ``render`` writes ``parse`` reads back to the same items, whatever their words hold: a tag of the sheet's own inside them is
spelt with ``&lt;``. What a model writes is read as far as it can be, and what it writes for nobody is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from holdfast.cube import Form
from holdfast.store.rows import forgotten_with
from holdfast.taxonomy import Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.STRATEGIES,),
    subject=(Subject.AGENT,),
)

OPEN, CLOSE = "<cheatsheet>", "</cheatsheet>"
EMPTY = "(empty)"
"""A sheet without items, as it stands in a prompt."""


class Section(StrEnum):
    """What an item is for, in the order of a sheet."""

    SOLUTIONS = "solutions"
    STRATEGIES = "strategies"
    REASONING = "reasoning"


class Check(StrEnum):
    """What came of running an item's code on past questions (``encode.sheet_trials``)."""

    UNCHECKED = "unchecked"
    RUNS = "runs"  # it ended without an error, and nothing says whether its answers are right
    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing worth knowing.

    Fields
        number: its id in the sheet; 0 where it has none yet.
        description, example, code: what it says; ``code`` is Python.
        count: how many questions it served.
        refs: the numbers of the questions that it was made from or served; ``used`` is the last one that it served.
        check: what is known of its code.
        missed: so many rewrites in turn have left it out, or left it failing.
    """

    number: int
    description: str
    example: str = ""
    code: str = ""
    section: Section = Section.STRATEGIES
    count: int = 1
    refs: tuple[int, ...] = ()
    used: int = 0
    check: Check = Check.UNCHECKED
    missed: int = 0

    @property
    def content(self) -> tuple[str, str, str]:
        """What it says, without the numbers."""
        return self.description, self.example, self.code


@dataclass(frozen=True, slots=True)
class Written:
    """A sheet as it was read: its items, and the numbers that are marked as to be deleted."""

    items: tuple[Item, ...]
    deleted: tuple[int, ...] = ()


def render(items: Sequence[Item], deleted: Sequence[int] = ()) -> str:
    """A sheet as it stands in a prompt, items in the order given."""
    marks = [f'<delete id="{number}"/>' for number in deleted]
    return "\n".join([OPEN, *map(_item, items), *marks, CLOSE])


def parse(text: str) -> Written | None:
    """The sheet in a text; None where there is no whole one.

    An item without an id has the number 0; of one id that is written twice the last counts.
    """
    start, end = text.find(OPEN), text.rfind(CLOSE)
    if start < 0 or end < start:
        return None
    found: list[Item] = []
    places: dict[int, int] = {}
    body = text[start + len(OPEN) : end]
    for one in _ITEM.finditer(body):
        item = _read(one["head"], one["body"])
        if item.number and item.number in places:
            found[places[item.number]] = item
            continue
        places[item.number] = len(found)
        found.append(item)
    outside = _ITEM.sub("", body)
    return Written(tuple(found), tuple(int(one) for one in _DELETE.findall(outside)))


def words(text: str) -> int:
    """How many words a text has."""
    return len(text.split())


_NAMES = "cheatsheet|item|delete|description|example|code"
_TAG = re.compile(rf"<(?=\s*/?\s*(?:{_NAMES})\b)")
_ITEM = re.compile(r"<item\b(?P<head>[^>]*)>(?P<body>.*?)</item>", re.DOTALL)
_ATTRIBUTE = re.compile(r'([a-z-]+)\s*=\s*"([^"]*)"')
_DELETE = re.compile(r'<delete\s+id\s*=\s*"(\d{1,9})"\s*/?>')
_PARTS = {part: re.compile(rf"<{part}>(.*?)</{part}>", re.DOTALL) for part in ("description", "example", "code")}
_AMP = re.compile(r"&(?=(?:lt|amp);)")
_ESCAPED = re.compile(r"&(lt|amp);")
_NUMBER = re.compile(r"\d{1,9}")
_FENCED = re.compile(r"```[a-zA-Z]*\n(.*)\n```\Z", re.DOTALL)


@lru_cache(maxsize=1_024)
def _item(item: Item) -> str:
    """As it is written out: from one rewrite to the next most of a sheet stays as it is."""
    head = [
        f'id="{item.number}"' if item.number else 'id="new"',
        f'section="{item.section}"',
        f'count="{item.count}"',
        f'questions="{" ".join(map(str, item.refs))}"',
        f'last="{item.used}"',
        f'check="{item.check}"',
        *([f'left-out="{item.missed}"'] if item.missed else []),
    ]
    lines = [f"<item {' '.join(head)}>", _part("description", item.description)]
    lines += [_part("example", item.example)] if item.example else []
    lines += [_part("code", f"```python\n{item.code}\n```")] if item.code else []
    return "\n".join([*lines, "</item>"])


def _part(name: str, text: str) -> str:
    return f"<{name}>\n{_TAG.sub('&lt;', _AMP.sub('&amp;', text))}\n</{name}>"


@lru_cache(maxsize=1_024)
def _read(attributes: str, body: str) -> Item:
    head = dict(_ATTRIBUTE.findall(attributes))
    said = {part: _text(pattern, body) for part, pattern in _PARTS.items()}
    if not any(pattern.search(body) for pattern in _PARTS.values()):  # a model that forgot the tags within
        said["description"] = _plain(body.strip())
    fenced = _FENCED.match(said["code"])
    section, check = head.get("section", ""), head.get("check", "")
    return Item(
        _whole(head.get("id", "")),
        said["description"],
        said["example"],
        fenced[1] if fenced else said["code"],
        Section(section) if section in set(Section) else Section.STRATEGIES,
        _whole(head.get("count", ""), 1),
        tuple(int(one) for one in _NUMBER.findall(head.get("questions", ""))),
        _whole(head.get("last", "")),
        Check(check) if check in set(Check) else Check.UNCHECKED,
        _whole(head.get("left-out", "")),
    )


def _text(pattern: re.Pattern[str], body: str) -> str:
    """Without the one line break after the opening tag and before the closing one, which ``render`` writes."""
    found = pattern.search(body)
    if found is None:
        return ""
    return _plain(found[1].removeprefix("\n").removesuffix("\n"))


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: "<" if found[1] == "lt" else "&", text)


def _whole(text: str, otherwise: int = 0) -> int:
    return int(text) if _NUMBER.fullmatch(text) else otherwise


forgotten_with(_item.cache_clear)
forgotten_with(_read.cache_clear)
