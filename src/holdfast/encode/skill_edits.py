"""Memory skills carried out: one prompt for a span of text and the skills chosen for it, and the edits in the answer (MemSkill,
arXiv 2602.02474 §3.3).

An answer is blocks of ``ACTION: INSERT | UPDATE | DELETE | NOOP`` with their fields; bare lines of these words and JSON are read
too, and whatever cannot be read is an edit that failed, never a guess. An index counts in the list that the model was shown: it is
turned into who is meant before anything is changed, and an edit is of a kind that one of the chosen skills makes, or is refused. A
text can talk a model into an edit of a kind that its skills make, and into no other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from holdfast.chat import Chat, Message, Role
from holdfast.encode.skills import Edits, Skill
from holdfast.encode.writing import NOTICE

PROFILE = ()  # how skills are carried out, and no memory

LONGEST = 2_000
"""Characters of a memory that a model writes."""
MOST = 50
"""Edits that are taken from one answer."""

INSTRUCTION = """\
You keep a memory. The user's message holds a text and the memories that are nearest to it, each with its index. Apply the skills \
below to the text, each as often as it applies, and answer with the edits that they call for and nothing else. Every edit is a \
block of its own, with a blank line between blocks:

ACTION: INSERT
MEMORY_ITEM: the new memory

ACTION: UPDATE
MEMORY_INDEX: the index of a memory that was shown
UPDATED_MEMORY: that memory, written anew as a whole

ACTION: DELETE
MEMORY_INDEX: the index of a memory that was shown

ACTION: NOOP

Make only edits of the kinds that the skills allow. A memory is one or two plain sentences that can be understood by themselves."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit of an answer. ``index`` counts in the list that was shown; where it is not ``ok``, ``why`` says what is wrong."""

    kind: Edits
    text: str = ""
    index: int = -1
    ok: bool = True
    why: str = ""


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One edit as it is to be made: of which memory, None for a new one."""

    kind: Edits
    text: str
    of: T | None


def prompt(text: str, memories: Sequence[str], skills: Sequence[Skill]) -> tuple[Message, Message]:
    """What the model is asked. The skills are instructions, text and memories are data."""
    told = [
        f"[Skill {at}] {skill.name}\nIt applies to: {skill.description}\nIt allows: {skill.edits.upper()}\n{skill.instruction}"
        for at, skill in enumerate(skills, 1)
    ]
    data = {"text": text, "memories": [{"index": at, "memory": one} for at, one in enumerate(memories)]}
    return (
        Message(Role.SYSTEM, "\n\n".join([INSTRUCTION, *told, NOTICE])),
        Message(Role.USER, json.dumps(data, ensure_ascii=False)),
    )


def carry_out(model: Chat, text: str, memories: Sequence[str], skills: Sequence[Skill]) -> tuple[Edit, ...]:
    """The edits that the skills call for, by one call of the model. Raises ChatError."""
    reply = model.reply(prompt(text, memories, skills), temperature=0.0)
    return parse(reply.text, len(memories))


def resolve(edits: Sequence[Edit], shown: Sequence[T], allowed: Collection[Edits]) -> tuple[list[Change[T]], list[str]]:
    """The changes that edits come to, with what was ``shown`` in place of indices, and why some come to none.

    Of several edits of one memory in an answer the first counts.
    """
    changes: list[Change[T]] = []
    refused: list[str] = []
    touched: set[int] = set()
    for edit in edits:
        if not edit.ok:
            refused.append(edit.why)
        elif edit.kind is Edits.NOOP:
            continue
        elif edit.kind not in allowed:
            refused.append(f"none of the skills makes the edit {edit.kind}")
        elif edit.kind is Edits.INSERT:
            changes.append(Change(edit.kind, edit.text, None))
        elif not 0 <= edit.index < len(shown):
            refused.append("its index is none of the memories that were shown")
        elif edit.index in touched:
            refused.append("the same memory is edited twice in one answer")
        else:
            touched.add(edit.index)
            changes.append(Change(edit.kind, edit.text, shown[edit.index]))
    return changes, refused


# --- the answer ---

_KINDS = "INSERT|UPDATE|DELETE|NOOP"
_BULLET = r"^[ \t]*(?:(?:[-*>#•]+|\d+[.)])[ \t]*)?"
_ACTION = re.compile(
    rf"{_BULLET}\**ACTION\**[ \t]*[:=-][ \t]*\**[ \t]*(?P<kind>{_KINDS})\b", re.IGNORECASE | re.MULTILINE
)
_BARE = re.compile(rf"{_BULLET}\**(?P<kind>{_KINDS})\**[ \t]*[:=-]?[ \t]*$", re.IGNORECASE | re.MULTILINE)
_FIELD = re.compile(
    r"(?<!\w)\**(?P<key>MEMORY[_ ]ITEM|NEW[_ ]MEMORY|UPDATED[_ ]MEMORY|MEMORY[_ ]INDEX|REASONING)\**[ \t]*[:=-][ \t]*\**"
)
_INDEX = re.compile(r"\A[\s\[(#*\"']*(?P<index>\d{1,6})(?!\w|[.,]\d)")
_FENCE = re.compile(r"\A```[a-zA-Z]*[ \t]*\n(?P<body>.*?)\n?```[ \t]*\Z", re.DOTALL)
_OPENS = re.compile(r"[{\[]")
_TRIED = 20
"""Brackets that begin nothing which can be read, until the rest of an answer is let be: each costs a pass over it."""
_UNREAD = Edit(Edits.NOOP, ok=False, why="the answer holds no edits that can be read")


def parse(answer: str, shown: int) -> tuple[Edit, ...]:
    """The edits of an answer, at most fifty, in their order. Never empty: what cannot be read is a NOOP that failed."""
    text = answer.replace("\r\n", "\n").replace("\r", "\n").strip()
    if fenced := _FENCE.match(text):
        text = fenced["body"].strip()
    marks = list(_ACTION.finditer(text)) or list(_BARE.finditer(text))
    if marks:
        ends = [mark.start() for mark in marks[1:]] + [len(text)]
        blocks = ((Edits(mark["kind"].lower()), text[mark.end() : end]) for mark, end in zip(marks, ends, strict=True))
        edits = [edit for kind, block in blocks for edit in _of_block(kind, block, shown)]
    else:
        edits = [edit for record in _records(text) for edit in _of_record(record, shown)]
    return tuple(edits[:MOST]) or (_UNREAD,)


def _of_block(kind: Edits, block: str, shown: int) -> Iterator[Edit]:
    """The edits of one block: one, or one for each item of an INSERT."""
    marks = list(_FIELD.finditer(block))
    ends = [mark.start() for mark in marks[1:]] + [len(block)]
    fields = [(mark["key"].replace(" ", "_"), block[mark.end() : end]) for mark, end in zip(marks, ends, strict=False)]
    texts = [value for key, value in fields if key not in ("MEMORY_INDEX", "REASONING")]
    indices = [value for key, value in fields if key == "MEMORY_INDEX"]
    if kind is Edits.INSERT and len(texts) > 1:
        for one in texts:
            yield _edit(kind, one, None, shown)
    else:
        found = _INDEX.match(indices[0]) if indices else None
        yield _edit(kind, texts[0] if texts else "", int(found["index"]) if found else None, shown)


def _of_record(record: Any, shown: int) -> Iterator[Edit]:
    if isinstance(record, list):
        for one in record:
            yield from _of_record(one, shown) if isinstance(one, dict) else ()
        return
    fields = {str(key).lower().replace(" ", "_"): value for key, value in record.items()}
    if isinstance(fields.get("actions"), list):
        yield from _of_record(fields["actions"], shown)
        return
    kind = fields.get("action")
    if not isinstance(kind, str) or kind.strip().lower() not in list(Edits):
        return
    keys = ("updated_memory", "memory_item", "new_memory")
    named = keys if kind.strip().lower() == Edits.UPDATE else keys[1:]
    texts = [fields[key] for key in named if isinstance(fields.get(key), str)]
    index = fields.get("memory_index")
    if isinstance(index, str) and index.strip().isdecimal() and len(index) < 8:
        index = int(index)
    yield _edit(Edits(kind.strip().lower()), texts[0] if texts else "", index if type(index) is int else None, shown)


def _edit(kind: Edits, text: str, index: int | None, shown: int) -> Edit:
    text = " ".join(text.strip().strip("*").split())[:LONGEST].rstrip()
    if kind in (Edits.UPDATE, Edits.DELETE):
        if index is None:
            return Edit(Edits.NOOP, ok=False, why=f"{kind} names no memory")
        if not 0 <= index < shown:
            return Edit(Edits.NOOP, ok=False, why=f"{kind} names a memory that was not shown")
    if kind in (Edits.INSERT, Edits.UPDATE) and not text:
        return Edit(Edits.NOOP, ok=False, why=f"{kind} says nothing")
    return Edit(
        kind,
        text if kind in (Edits.INSERT, Edits.UPDATE) else "",
        index if index is not None and kind in (Edits.UPDATE, Edits.DELETE) else -1,
    )


def _records(text: str) -> Iterator[Any]:
    """The JSON objects and lists in a text, one after another; what is left open is closed, and commas too many are dropped."""
    decoder = json.JSONDecoder()
    at = failed = 0
    while failed < _TRIED and (match := _OPENS.search(text, at)):
        try:
            found, at = decoder.raw_decode(text, match.start())
            yield found
            continue
        except (ValueError, RecursionError):
            pass
        try:
            found = json.loads(_mended(text[match.start() :]))
        except (ValueError, RecursionError):
            at, failed = match.end(), failed + 1
            continue
        yield found
        return


def _mended(text: str) -> str:
    """JSON whose end is missing, with its end; without commas before a closing bracket."""
    closing: list[str] = []
    quoted = escaped = False
    kept: list[str] = []
    for one in text:
        kept.append(one)
        if quoted:
            quoted, escaped = escaped or one != '"', not escaped and one == "\\"
        elif one == '"':
            quoted = True
        elif one in "{[":
            closing.append("}" if one == "{" else "]")
        elif one in "}]":
            if not closing or closing.pop() != one:
                break
            if not closing:
                break
    mended = "".join(kept) + ('"' if quoted else "") + "".join(reversed(closing))
    return re.sub(r",(\s*[}\]])", r"\1", mended)
