"""Stores of LangGraph: the file of its ``SqliteStore``, and items as JSON (``namespace``, ``key``, ``value`` and two times)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from holdfast.importers.archive import Archive
from holdfast.importers.base import Found, Left, Maker, objects, stream, unread

TITLE = "a LangGraph store"
_WORDS = ("text", "content", "memory", "data", "fact", "summary", "value")
_STORE = ("store", {"prefix", "key", "value", "created_at", "updated_at"})


def fits(archive: Archive) -> bool:
    """Whether there is the table of its store, or objects of its items."""
    return bool(archive.databases(*_STORE)) or any(_is_item(one) for _, one in objects(archive))


def read(archive: Archive, make: Maker) -> Iterator[Found | Left]:
    """Each item."""
    databases = archive.databases(*_STORE)
    for name in databases:
        with archive.database(name) as database:
            for row in database.execute("SELECT * FROM store ORDER BY rowid"):
                yield from _item(dict(zip(row.keys(), row, strict=True)), row["prefix"], make)
    if databases:
        return
    for name in archive.names if archive.is_file else archive.find("*.json", "*.jsonl"):
        for element, place in stream(archive, name):
            one = element.value
            if element.problem or not isinstance(one, Mapping) or not _is_item(one):
                if element.problem or element.number:
                    yield unread(place, element.problem or "it has no namespace, key and value")
                continue
            space = one.get("namespace", one.get("prefix"))
            path = (
                ".".join(map(str, space)) if isinstance(space, Sequence) and not isinstance(space, str) else str(space)
            )
            yield from _item(one, path, make)


def _item(one: Mapping[str, Any], path: str, make: Maker) -> Iterator[Found | Left]:
    item = f"{path}/{one.get('key')}"
    value = one.get("value")
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            if isinstance(value, bytes):
                yield Left(item, "its value is no JSON")
                return
    text, rest = _words(value)
    yield from make.cube(
        item,
        text,
        learnt=one.get("updated_at") or one.get("created_at"),
        ends=one.get("expires_at"),
        owner=path,
        data={"namespace": path, "key": one.get("key"), "value": rest},
    )


def _words(value: Any, depth: int = 0) -> tuple[str, Any]:
    """The words of a value, and what stands beside them; a value that has none in particular is its own JSON."""
    if isinstance(value, str):
        return value, None
    if isinstance(value, Mapping) and depth < 4:
        for key in _WORDS:
            inner = value.get(key)
            if isinstance(inner, str) and inner.strip():
                return inner, {other: some for other, some in value.items() if other != key}
            if isinstance(inner, Mapping) and (found := _words(inner, depth + 1))[0]:
                return found[0], {other: some for other, some in value.items() if other != key}
    return ("" if value in (None, {}, []) else json.dumps(value, ensure_ascii=False, default=str)), None


def _is_item(one: Mapping[str, Any]) -> bool:
    return ("namespace" in one or "prefix" in one) and "key" in one and "value" in one
