"""Archives of Claude's "Export data": conversations, what was attached to them, projects with their documents, and memories."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.cube import Channel, Kind
from holdfast.importers.archive import Archive
from holdfast.importers.base import Found, Left, Maker, objects, rows, sample, stream, unread

TITLE = "a Claude export"
_CONVERSATIONS = ("conversations.json", "conversations-*.json")
_PROJECTS = ("projects.json", "projects/*.json")
_MEMORIES = ("memories.json", "memories/*.json")
_CHANNELS = {"human": Channel.USER, "user": Channel.USER, "assistant": Channel.ASSISTANT}
_ROLES = {"human": "user", "user": "user", "assistant": "assistant"}


def fits(archive: Archive) -> bool:
    """Whether there is a list of ``chat_messages``, or a project or memories in an archive of that name."""
    if archive.is_file:
        return any("chat_messages" in one or "conversations_memory" in one for _, one in objects(archive, 2))
    return any(
        any(key in one for key in ("chat_messages", "conversations_memory", "prompt_template"))
        for name in archive.find(*_CONVERSATIONS, *_MEMORIES, *_PROJECTS)
        for _, one in sample(archive, name, 2)
    )


def read(archive: Archive, make: Maker) -> Iterator[Found | Left]:
    """Memories, projects, then conversations."""
    groups = ((_MEMORIES, _memory), (_PROJECTS, _project), (_CONVERSATIONS, _conversation))
    for wanted, understand in groups:
        for name in archive.names if archive.is_file else archive.find(*wanted):
            whole: dict[str, Any] = {}
            for element, place in stream(archive, name):
                if element.problem:
                    if not archive.is_file or understand is _conversation:
                        yield unread(place, element.problem)
                elif element.member is not None:  # a file of one project, member by member
                    if element.number:
                        whole.setdefault(element.member, []).append(element.value)
                    else:
                        whole[element.member] = element.value
                elif isinstance(element.value, Mapping):
                    yield from understand(element.value, place, make, not archive.is_file)
                elif not archive.is_file or understand is _conversation:
                    yield unread(place, "it is no record of an export")
            if whole:
                yield from understand(whole, name, make, not archive.is_file)


def _conversation(one: Mapping[str, Any], place: str, make: Maker, sure: bool) -> Iterator[Found | Left]:
    if not isinstance(one.get("chat_messages"), list):
        if sure or not any(key in one for key in ("conversations_memory", "docs", "prompt_template")):
            yield unread(place, "it is no conversation")
        return
    id = str(one.get("uuid") or place)
    for number, message in enumerate(one["chat_messages"], 1):
        if not isinstance(message, Mapping):
            yield Left(f"{id}/{number}", "it is no message")
            continue
        item = f"{id}/{message.get('uuid') or number}"
        sender = str(message.get("sender"))
        if sender not in _CHANNELS:
            yield Left(item, f"its sender {sender[:40]!r} is neither human nor assistant")
            continue
        text = _said(message)
        held = [*rows(message.get("attachments")), *rows(message.get("files"))]
        if text.strip() or not held:
            yield from make.cube(
                item,
                text,
                kind=Kind.MESSAGE,
                channel=_CHANNELS[sender],
                author=_ROLES[sender],
                true_from=message.get("created_at"),
                learnt=message.get("created_at"),
                session=id,
                data={"role": _ROLES[sender], "title": one.get("name")},
            )
        for place_of, attached in enumerate(held, 1):
            if isinstance(attached.get("extracted_content"), str) and attached["extracted_content"].strip():
                yield from make.cube(
                    f"{item}/attachment-{place_of}",
                    attached["extracted_content"],
                    kind=Kind.DOCUMENT,
                    channel=Channel.DOCUMENT,
                    learnt=message.get("created_at"),
                    session=id,
                    data={"file": attached.get("file_name"), "title": one.get("name")},
                )


def _said(message: Mapping[str, Any]) -> str:
    """What was said: the texts among the parts, without reasoning, tool calls and what they gave."""
    parts = [part.get("text") for part in rows(message.get("content")) if part.get("type") == "text"]
    said = "\n".join(part for part in parts if isinstance(part, str) and part)
    whole = message.get("text")
    return said or (whole if isinstance(whole, str) else "")


def _project(one: Mapping[str, Any], place: str, make: Maker, sure: bool) -> Iterator[Found | Left]:
    if not ("docs" in one or "prompt_template" in one):
        if sure:
            yield unread(place, "it is no project")
        return
    id = str(one.get("uuid") or place)
    about = {"project": one.get("name")}
    text = one.get("description")
    if isinstance(text, str) and text.strip():
        yield from make.cube(f"project/{id}", text, learnt=one.get("created_at"), data=about)
    text = one.get("prompt_template")
    if isinstance(text, str) and text.strip():
        kind = Kind.INSTRUCTION
        yield from make.cube(f"project/{id}/instructions", text, kind=kind, learnt=one.get("updated_at"), data=about)
    for number, document in enumerate(rows(one.get("docs")), 1):
        yield from make.cube(
            f"project/{id}/{document.get('uuid') or number}",
            document.get("content"),
            kind=Kind.DOCUMENT,
            channel=Channel.DOCUMENT,
            learnt=document.get("created_at"),
            data={**about, "file": document.get("filename")},
        )


def _memory(one: Mapping[str, Any], place: str, make: Maker, sure: bool) -> Iterator[Found | Left]:
    if not ("conversations_memory" in one or "project_memories" in one):
        if sure:
            yield unread(place, "it holds no memories")
        return
    texts = {"conversations": one.get("conversations_memory")}
    projects = one.get("project_memories")
    if isinstance(projects, Mapping):
        texts |= {f"project {id}": text for id, text in projects.items()}
    for about, text in texts.items():
        if isinstance(text, str) and text.strip():
            item = f"memory/{about}/{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"
            yield from make.cube(item, text, kind=Kind.SUMMARY, data={"about": about})
