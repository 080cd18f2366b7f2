"""Letta's agent files (``.af``): core memory blocks, archival passages and messages, in the shape of today and the one before.

A block tells an agent how to act, so it waits in quarantine. Letta wraps what people say in JSON and has agents speak through a
tool: both are taken out of their wrapping, and an agent's inner monologue stays out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.cube import Channel, Kind
from holdfast.importers.archive import Archive
from holdfast.importers.base import Found, Left, Maker, objects, rows, stream, text_of, unread

TITLE = "a Letta agent file"
_BLOCKS = ("blocks", "core_memory", "memory_blocks")
_PASSAGES = ("passages", "archival_memory", "archival_passages")
_WANTED = {*_BLOCKS, *_PASSAGES, "agents", "messages", "name"}


def fits(archive: Archive) -> bool:
    """Whether it names agents with messages, or core memory."""
    if archive.is_file and archive.path.suffix.lower() == ".af":
        return True
    return any(
        (member == "agents" and ("messages" in one or "block_ids" in one))
        or (member in _BLOCKS and "label" in one and "value" in one)
        for member, one in objects(archive)
    )


def read(archive: Archive, make: Maker) -> Iterator[Found | Left]:
    """Blocks and passages, then what was said."""
    for file in archive.names if archive.is_file else archive.find("*.af"):
        agent: object = None
        for element, place in stream(archive, file, lambda member: member in _WANTED):
            one, member = element.value, element.member
            if element.problem:
                yield unread(place, element.problem)
            elif member == "name":
                agent = one
            elif not isinstance(one, Mapping):
                if one is not None:
                    yield unread(place, "it is no object")
            elif member in _BLOCKS:
                yield from _block(one, element.number, agent, make)
            elif member in _PASSAGES:
                yield from _passage(one, element.number, agent, make)
            elif member == "messages":
                yield from _message(one, element.number, agent, make)
            else:
                yield from _agent(one, element.number, make)


def _agent(one: Mapping[str, Any], number: int, make: Maker) -> Iterator[Found | Left]:
    name = one.get("name") or one.get("id") or f"agent-{number}"
    for member in _BLOCKS:
        for place, block in enumerate(rows(one.get(member)), 1):
            yield from _block(block, place, name, make)
    for member in _PASSAGES:
        for place, passage in enumerate(rows(one.get(member)), 1):
            yield from _passage(passage, place, name, make)
    for place, message in enumerate(rows(one.get("messages")), 1):
        yield from _message(message, place, name, make)


def _block(one: Mapping[str, Any], number: int, agent: object, make: Maker) -> Iterator[Found | Left]:
    label = str(one.get("label") or f"block {number}")
    data = {"label": label, "description": one.get("description"), "read_only": one.get("read_only")}
    item = f"{agent or 'agent'}/block/{label}"
    yield from make.cube(
        item,
        one.get("value"),
        kind=Kind.PROFILE,
        learnt=one.get("updated_at") or one.get("created_at"),
        agent=agent,
        data=data,
    )


def _passage(one: Mapping[str, Any], number: int, agent: object, make: Maker) -> Iterator[Found | Left]:
    item = f"{agent or 'agent'}/passage/{one.get('id') or number}"
    tags = one.get("tags")
    yield from make.cube(
        item,
        one.get("text") or one.get("content"),
        learnt=one.get("created_at"),
        agent=agent,
        data={"tags": tags if isinstance(tags, list) else None},
    )


def _message(one: Mapping[str, Any], number: int, agent: object, make: Maker) -> Iterator[Found | Left]:
    item = f"{agent or 'agent'}/message/{one.get('id') or number}"
    role = one.get("role")
    text = text_of(one.get("content")) or text_of(one.get("text"))
    if role == "user":
        said, why = _unwrapped(text)
    elif role == "assistant":
        calls = rows(one.get("tool_calls"))
        said = "\n".join(filter(None, map(_spoken, calls))) if calls else text
        why = "" if said else "an agent's inner monologue or tool call"
    else:
        said, why = "", "what the model was told or did unseen"
    if why:
        yield Left(item, why)
        return
    yield from make.cube(
        item,
        said,
        kind=Kind.MESSAGE,
        channel=Channel.USER if role == "user" else Channel.ASSISTANT,
        author=one.get("name") or role,
        true_from=one.get("created_at"),
        learnt=one.get("created_at"),
        agent=agent,
        session=one.get("conversation_id"),
        data={"role": role},
    )


def _unwrapped(text: str) -> tuple[str, str]:
    """What a person said, out of its wrapping; or why nobody said it."""
    if not text.lstrip().startswith("{"):
        return text, ""
    wrapped = _json(text)
    kind = wrapped.get("type")
    if kind == "user_message" and isinstance(wrapped.get("message"), str):
        return wrapped["message"], ""
    if isinstance(kind, str) and kind in ("heartbeat", "login", "system_alert", "bootup"):
        return "", f"a {kind.replace('_', ' ')} of Letta's, which nobody said"
    return text, ""


def _spoken(call: Mapping[str, Any]) -> str:
    """What a call of ``send_message`` says; nothing of any other call."""
    function = call.get("function")
    if not isinstance(function, Mapping) or function.get("name") != "send_message":
        return ""
    given = function.get("arguments")
    said = (_json(given) if isinstance(given, str) else given if isinstance(given, Mapping) else {}).get("message")
    return said if isinstance(said, str) else ""


def _json(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, Mapping) else {}
