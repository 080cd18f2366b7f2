"""From what a caller hands over (a string, chat messages, cubes) to verbatim cubes, and why nothing where there is nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from holdfast.cube import Channel, Cube, Kind, Origin, Ref, Scope, taints, utc
from holdfast.errors import InputError, ScopeError

ROLES: Mapping[str, Channel] = {
    "user": Channel.USER,
    "human": Channel.USER,
    "assistant": Channel.ASSISTANT,
    "ai": Channel.ASSISTANT,
    "tool": Channel.TOOL,
    "function": Channel.TOOL,
    "document": Channel.DOCUMENT,
    "system": Channel.SYSTEM,
    "developer": Channel.SYSTEM,
}

TRUST: Mapping[Channel, float] = {
    Channel.USER: 1.0,
    Channel.SYSTEM: 1.0,
    Channel.ASSISTANT: 0.8,
    Channel.IMPORT: 0.8,
    Channel.DERIVED: 0.8,
    Channel.DOCUMENT: 0.6,
    Channel.TOOL: 0.5,
    Channel.WEB: 0.4,
    Channel.RECALLED: 0.0,
}
"""How far a channel is trusted where the caller, who knows more, says nothing."""

Message = Mapping[str, Any]
Content = str | Cube | Message | Iterable[str | Cube | Message]


def to_cubes(
    content: Content,
    scope: Scope,
    *,
    kind: str = Kind.MESSAGE,
    channel: Channel | str = Channel.USER,
    author: str | None = None,
    source: str | None = None,
    trust: float | None = None,
    at: datetime | str | None = None,
    data: Mapping[str, Any] = MappingProxyType({}),
    derived_from: Sequence[Ref] = (),
    taint: Sequence[str] = (),
    clean: Callable[[str], str] = str,
) -> tuple[list[Cube], list[str]]:
    """Verbatim cubes, in order, and a reason for each thing that was left out.

    A message is a mapping with ``role`` and ``content`` (a string, or a list of parts of which the text ones are kept),
    and optionally ``name`` (the speaker), ``timestamp`` or ``at``, ``id``, ``caption``. System prompts are the agent's own
    words and recalled blocks are ours: neither is a new memory; ``clean`` cuts the latter out of a text. ``data`` is kept beside
    each string and each message; cubes have their own. ``derived_from`` and ``taint`` are of what is not a user's own word.
    Raises InputError, ScopeError.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"data must be a mapping, not {type(data).__name__}")
    items = [content] if isinstance(content, str | Cube | Mapping) else content
    if not isinstance(items, Iterable) or isinstance(items, bytes | bytearray):
        raise InputError(f"add takes a string, chat messages or cubes, not {type(content).__name__}")
    common = Origin(_channel(channel), author, source)
    cubes: list[Cube] = []
    reasons: list[str] = []
    seen: dict[tuple[str | None, str], int] = {}
    for position, item in enumerate(items):
        if isinstance(item, Cube):
            if not scope.covers(item.scope):
                raise ScopeError(f"a cube of {item.scope.path} cannot be added through {scope.path}")
            if item.origin.channel is not Channel.USER and (derived_from or taint):
                sources = tuple(dict.fromkeys((*item.origin.derived_from, *derived_from)))
                origin = replace(item.origin, derived_from=sources, taint=taints(item.origin.taint, taint))
                item = item.with_(origin=origin)
            cubes.append(item)
            continue
        if isinstance(item, str):
            said = item
            when = None if at is None else utc(at)
            cube = Cube(scope, clean(item), kind, data=dict(data), valid_from=when, origin=common)
        elif isinstance(item, Mapping):
            cube = _message(item, scope, kind, common, at, position)
            cube = cube.with_(data={**data, **cube.data}) if data else cube
            said = cube.text
            text = clean(said)
            cube = cube if text == said else cube.with_(text=text)
        else:
            raise InputError(f"item {position} must be a string, a message or a cube, not {type(item).__name__}")
        reason = _nothing(cube)
        if reason:
            if said.strip() and not cube.text.strip():
                reason = _ECHO
            reasons.append(reason)
            continue
        # The same words twice in one conversation are two turns; the same conversation added twice is one.
        turn = cube.origin.author, cube.text
        seen[turn] = seen.get(turn, 0) + 1
        if seen[turn] > 1 and "turn" not in cube.data:
            cube = cube.with_(data={**cube.data, "turn": f"again-{seen[turn]}"})
        origin = replace(cube.origin, trust=TRUST[cube.origin.channel] if trust is None else trust)
        if origin.channel is not Channel.USER and (derived_from or taint):
            origin = replace(origin, derived_from=tuple(derived_from), taint=taints(taint))
        cubes.append(cube if origin == cube.origin else cube.with_(origin=origin))
    if not cubes and not reasons:
        reasons.append("there was nothing to add: the list is empty")
    return cubes, reasons


def _message(
    message: Message, scope: Scope, kind: str, common: Origin, at: datetime | str | None, position: int
) -> Cube:
    role = message.get("role", "user")
    if not isinstance(role, str) or role not in ROLES:
        raise InputError(f"message {position} has the role {role!r}; use one of {', '.join(ROLES)}")
    if "content" not in message:
        raise InputError(f"message {position} has no 'content'")
    when: Any = next((some for some in (message.get("at"), message.get("timestamp"), at) if some is not None), None)
    if isinstance(when, int | float) and not isinstance(when, bool):
        try:
            when = datetime.fromtimestamp(when, UTC)
        except (ValueError, OverflowError, OSError) as error:
            raise InputError(f"message {position}: {when} is not a time in seconds since 1970 ({error})") from error
    data: dict[str, Any] = {"role": role}
    if message.get("id") is not None:
        data["turn"] = str(message["id"])
    said = _text(message["content"], position)
    caption = str(message.get("caption") or "")
    if caption and said.strip():
        data["caption"] = caption
    channel = ROLES[role] if common.channel in (Channel.USER, Channel.ASSISTANT) else common.channel
    name = message.get("name")
    return Cube(
        scope,
        said if said.strip() else caption,  # a picture without a word is remembered by what it shows
        kind,
        data=data,
        valid_from=None if when is None else utc(when),
        origin=replace(common, channel=channel, author=str(name) if name else common.author or role),
    )


def _text(content: Any, position: int) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        return "\n".join(part for part in parts if isinstance(part, str) and part)
    raise InputError(f"message {position}: content must be a string or a list of parts, not {type(content).__name__}")


_ECHO = "recalled text is remembered already; adding it again would only echo it"


def _nothing(cube: Cube) -> str:
    """Why a turn is no memory at all; "" where it is one."""
    if cube.origin.channel is Channel.SYSTEM:
        return "a system prompt is the agent's own text, not a memory"
    if cube.origin.channel is Channel.RECALLED:
        return _ECHO
    if not cube.text.strip():
        return "the text is empty"
    if not any(character.isalnum() for character in cube.text) and all(ord(c) < 0x2000 for c in cube.text):
        return "the text holds no word"
    return ""


def _channel(channel: Channel | str) -> Channel:
    try:
        return Channel(channel)
    except ValueError as error:
        raise InputError(f"channel must be one of {', '.join(Channel)}, not {channel!r}") from error
