"""Reading conversations from JSON or JSON lines in the shapes that people have them in: messages, or sessions of messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from holdfast.cube import Cube, Scope
from holdfast.encode.turns import ROLES, to_cubes
from holdfast.errors import InputError
from holdfast.retrieve.context import without_recalled

_INSIDE = ("messages", "turns")
_AROUND = ("sessions", "conversations")
_WHEN = ("timestamp", "at", "date", "time", "created_at")
_MILLISECONDS = 10**11  # as seconds that is the year 5138, so a larger number counts thousandths


@dataclass(frozen=True, slots=True)
class Session:
    """One conversation: its id and date where it has them, its source, and its messages as ``Memory.add`` takes them."""

    messages: tuple[dict[str, Any], ...]
    id: str | None = None
    source: str | None = None


def parse(text: str) -> list[Session]:
    """The sessions of a chat file.

    Accepted: a list of messages; a list of sessions (lists of messages, or objects with ``messages`` or ``turns``); an
    object with ``sessions`` or ``conversations``; the same objects as JSON lines. A message has ``role`` and ``content``,
    and may have ``name``, ``timestamp`` and ``id``. Raises InputError that says where.
    """
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:  # also a number or a nesting that is too large
        whole = _lines(text, error)
    return list(_sessions(whole))


def cubes(session: Session, scope: Scope, *, source: str | None, backdate: bool) -> tuple[list[Cube], list[str]]:
    """The session's turns as cubes, and a reason for each that was left out.

    ``backdate``: a message counts as learnt when it was said, so that reading the memory as of that time finds it.
    """
    here = scope if scope.session is not None or session.id is None else replace(scope, session=session.id)
    try:
        made, reasons = to_cubes(session.messages, here, source=session.source or source, clean=without_recalled)
    except InputError as error:
        raise InputError(f"session {session.id}: {error}" if session.id else str(error)) from error
    if backdate:
        made = [cube.with_(recorded_at=cube.valid_from) for cube in made]
    return made, reasons


def _lines(text: str, first_error: Exception) -> list[Any]:
    records = []
    for number, line in enumerate(
        text.split("\n"), 1
    ):  # a string may hold the separators that splitlines knows besides
        if line.strip():
            try:
                records.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                # One broken line of many is a broken line; a file that is broken from the start is no JSON lines at all.
                if records and number > 1:
                    raise InputError(f"line {number} is not JSON: {error}") from error
                raise InputError(f"this is neither JSON nor JSON lines: {first_error}") from error
    return records


def _sessions(whole: Any) -> Iterator[Session]:
    if isinstance(whole, Mapping):
        around = next((key for key in _AROUND if isinstance(whole.get(key), list)), None)
        if around is not None:
            yield from _several(whole[around])
        elif _is_session(whole):
            yield _session(whole, None)
        elif _is_message(whole):
            yield _session([whole], None)
        else:
            raise InputError(
                f"this object has none of {', '.join((*_AROUND, *_INSIDE))}, and is no message with role and content"
            )
        return
    if not isinstance(whole, list):
        raise InputError(f"a chat file holds a list or an object, not {_name(whole)}")
    if whole and all(_is_message(item) for item in whole):
        yield _session(whole, None)
    else:
        yield from _several(whole)


def _several(items: Sequence[Any]) -> Iterator[Session]:
    for number, item in enumerate(items, 1):
        if not (isinstance(item, list) or _is_session(item)):
            what = "a message among sessions" if _is_message(item) else _name(item)
            raise InputError(f"session {number} must be a list of messages or an object with 'messages', not {what}")
        yield _session(item, f"session-{number}")


def _session(item: Any, fallback: str | None) -> Session:
    if isinstance(item, list):
        return Session(tuple(_message(m, n, None, fallback) for n, m in enumerate(item)), fallback)
    inside = next(key for key in _INSIDE if isinstance(item.get(key), list))
    id = next((str(item[key]) for key in ("id", "session_id", "session") if item.get(key) is not None), fallback)
    when = _first(item, _WHEN)
    messages = tuple(_message(message, n, when, id) for n, message in enumerate(item[inside]))
    source = item.get("source")
    return Session(messages, id, None if source is None else str(source))


def _message(message: Any, number: int, when: Any, session: str | None) -> dict[str, Any]:
    where = f"message {number}" + (f" of session {session}" if session else "")
    if not isinstance(message, Mapping):
        raise InputError(f"{where} must be an object with role and content, not {_name(message)}")
    content = message.get("content", message.get("text"))
    if content is None:
        raise InputError(f"{where} has no 'content'")
    found = {"role": message.get("role", "user"), "content": content}
    name = message.get("name", message.get("speaker"))
    if name is not None:
        found["name"] = name
    for key in ("id", "caption"):
        if message.get(key) is not None:
            found[key] = message[key]
    own = _first(message, _WHEN)
    stamp = own if own is not None else when
    if stamp is not None:
        found["timestamp"] = _seconds(stamp)
    if not isinstance(found["role"], str) or found["role"] not in ROLES:
        raise InputError(f"{where} has the role {found['role']!r}; use one of {', '.join(ROLES)}")
    return found


def _seconds(stamp: Any) -> Any:
    if isinstance(stamp, bool) or not isinstance(stamp, int | float):
        return stamp
    try:
        return datetime.fromtimestamp(stamp / 1000 if abs(stamp) >= _MILLISECONDS else stamp, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(
            f"{stamp} is not a time; give seconds or milliseconds since 1970, or 2026-01-31T12:00:00"
        ) from error


def _first(item: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((item[key] for key in keys if item.get(key) is not None), None)


def _is_message(item: Any) -> bool:
    return isinstance(item, Mapping) and ("content" in item or "text" in item) and not _is_session(item)


def _is_session(item: Any) -> bool:
    return isinstance(item, Mapping) and any(isinstance(item.get(key), list) for key in _INSIDE)


def _name(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a string", type(None): "null"}.get(type(value), f"{value!r:.40}")
