"""Archives of ChatGPT's "Export data": conversations as trees, saved memories, and what the user said of themselves.

The line that ends in the conversation's current node comes in as it was said; branches that an edit or a new answer left behind
come in archived, out of recall. What nobody saw (system prompts, tool calls, pages that were read, reasoning) stays out, and so
does a conversation that was not to be remembered.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.cube import Channel, Kind, Status
from holdfast.importers.archive import Archive
from holdfast.importers.base import Found, Left, Maker, objects, sample, stream, text_of, unread

TITLE = "a ChatGPT export"
_FILES = ("conversations.json", "conversations-*.json")
_MEMORIES = ("memories.json", "memory.json")
_SAID = ("text", "multimodal_text")
_CHANNELS = {"user": Channel.USER, "assistant": Channel.ASSISTANT}
_SAVED = re.compile(r"^\s*\d+\.\s*\[(\d{4}-\d\d-\d\d)\]\.?\s*(.*\S)", re.MULTILINE)
_MODEL = "what the model was told or did unseen"


def fits(archive: Archive) -> bool:
    """Whether the first conversation is a tree."""
    if archive.is_file:
        return any(isinstance(one.get("mapping"), Mapping) for _, one in objects(archive, 1))
    return any(
        isinstance(one.get("mapping"), Mapping) for name in archive.find(*_FILES) for _, one in sample(archive, name, 1)
    )


def read(archive: Archive, make: Maker) -> Iterator[Found | Left]:
    """Saved memories, then conversations."""
    names = list(archive.names) if archive.is_file else archive.find(*_FILES)
    for name in () if archive.is_file else archive.find(*_MEMORIES):
        yield from _memories(archive, name, make)
    for name in names:
        for element, place in stream(archive, name):
            if element.problem:
                yield unread(place, element.problem)
            elif isinstance(element.value, Mapping) and isinstance(element.value.get("mapping"), Mapping):
                yield from _conversation(element.value, place, make)
            else:
                yield unread(place, "it is no conversation")


def _conversation(conversation: Mapping[str, Any], place: str, make: Maker) -> Iterator[Found | Left]:
    id = str(conversation.get("conversation_id") or conversation.get("id") or place)
    if conversation.get("is_do_not_remember"):
        yield Left(id, "it was not to be remembered")
        return
    nodes: Mapping[str, Any] = conversation["mapping"]
    line = _line(nodes, conversation.get("current_node"))
    on = set(line)
    saved: set[str] = set()
    for key in [*line, *(key for key in nodes if key not in on)]:
        node = nodes[key]
        message = node.get("message") if isinstance(node, Mapping) else None
        if message is None:
            continue  # the root of the tree says nothing
        if not isinstance(message, Mapping):
            yield Left(f"{id}/{key}", "it is no message")
            continue
        yield from _message(message, id, key, conversation.get("title"), key in on, saved, make)


def _line(nodes: Mapping[str, Any], last: object) -> list[str]:
    """From the first node to the current one; where none is named, to the last that has no children."""
    if not isinstance(last, str) or last not in nodes:
        last = next((key for key in reversed(list(nodes)) if not _field(nodes[key], "children")), None)
    found: dict[str, None] = {}
    while isinstance(last, str) and last in nodes and last not in found:  # a hostile tree may go in circles
        found[last] = None
        last = _field(nodes[last], "parent")
    return list(reversed(found))


def _message(
    message: Mapping[str, Any], conversation: str, key: str, title: object, current: bool, saved: set[str], make: Maker
) -> Iterator[Found | Left]:
    item = f"{conversation}/{message.get('id') or key}"
    role = str(_field(message.get("author"), "role"))
    content = message.get("content")
    kind = str(_field(content, "content_type"))
    said = message.get("create_time")
    if kind == "user_editable_context":
        yield from _about(content, make)
        return
    if kind == "model_editable_context":
        for when, text in _SAVED.findall(str(_field(content, "model_set_context") or "")):
            yield from _saved(text, when, conversation, saved, make)
        return
    if role == "assistant" and message.get("recipient") == "bio":
        yield from _saved(_words(content), said, conversation, saved, make)
        return
    hidden = _field(message.get("metadata"), "is_visually_hidden_from_conversation")
    if role not in _CHANNELS or hidden or kind not in _SAID or message.get("recipient") not in (None, "all"):
        yield Left(item, _MODEL)
        return
    yield from make.cube(
        item,
        _words(content),
        kind=Kind.MESSAGE,
        channel=_CHANNELS[role],
        author=role,
        true_from=said,
        learnt=said,
        session=conversation,
        data={"role": role, "title": title, "model": _field(message.get("metadata"), "model_slug")},
        status=Status.GENERATED if current else Status.ARCHIVED,
    )


def _saved(text: str, when: object, conversation: str, saved: set[str], make: Maker) -> Iterator[Found | Left]:
    """A saved memory: the same words are one, however often a conversation shows them."""
    item = f"memory/{_digest(text)}"
    if item not in saved:
        saved.add(item)
        yield from make.cube(item, text, learnt=when, data={"conversation": conversation})


def _about(content: object, make: Maker) -> Iterator[Found | Left]:
    """What the user said of themselves and wants to be answered like; ChatGPT puts it before every conversation."""
    for name, kind in (("user_profile", Kind.PROFILE), ("user_instructions", Kind.INSTRUCTION)):
        text = _field(content, name)
        if isinstance(text, str) and text.strip():
            yield from make.cube(f"{name}/{_digest(text)}", text, kind=kind)


def _memories(archive: Archive, name: str, make: Maker) -> Iterator[Found | Left]:
    for element, place in stream(archive, name):
        value = element.value
        if element.problem or not isinstance(value, Mapping | str):
            yield unread(place, element.problem or "it is no memory")
            continue
        one: Mapping[str, Any] = {"content": value} if isinstance(value, str) else value
        text = next((one[key] for key in ("content", "memory", "text", "value") if isinstance(one.get(key), str)), "")
        when = next(
            (one[key] for key in ("updated_at", "created_at", "create_time", "created_timestamp") if one.get(key)), None
        )
        yield from make.cube(f"memory/{_digest(text)}", text, learnt=when)


def _words(content: object) -> str:
    """The words among the parts; pictures and files have none."""
    parts = _field(content, "parts")
    return text_of(parts if isinstance(parts, list) else _field(content, "text"))


def _digest(text: str) -> str:
    return hashlib.sha256(" ".join(text.split()).encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _field(value: object, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None
