"""Memories of mem0: what ``get_all`` and an export say as JSON, and the history that it keeps in SQLite.

The history tells when words changed, so its memories have all their versions, and what was deleted is archived from then on. It
does not say whose they are. What mem0's local Qdrant holds is pickled Python, which is never read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.cube import Status
from holdfast.importers.archive import Archive
from holdfast.importers.base import Found, Left, Maker, later, moment, objects, stream, unread

TITLE = "memories of mem0"
_LISTS = ("results", "memories", None)
_HISTORY = ("history", {"memory_id", "new_memory", "event"})


def fits(archive: Archive) -> bool:
    """Whether there is a history in SQLite, or objects with a ``memory`` and an ``id``."""
    if archive.databases(*_HISTORY):
        return True
    return any(
        member in _LISTS and isinstance(one.get("memory"), str) and ("id" in one or "hash" in one)
        for member, one in objects(archive)
    )


def read(archive: Archive, make: Maker) -> Iterator[Found | Left]:
    """Each memory; of a history, with its versions."""
    databases = archive.databases(*_HISTORY)
    for name in databases:
        yield from _history(archive, name, make)
    for name in archive.names:
        if name.endswith(("storage.sqlite", "storage.dbm")):
            yield unread(
                name, "Qdrant keeps memories as pickled Python, which is not read; export them with get_all as JSON"
            )
    if databases:
        return
    for name in archive.names if archive.is_file else archive.find("*.json"):
        for element, place in stream(archive, name, lambda member: member in (*_LISTS, "relations")):
            one = element.value
            if element.member == "relations" and isinstance(one, Mapping):
                yield from _relation(one, place, make)
                continue
            if element.problem or not isinstance(one, Mapping) or not isinstance(one.get("memory"), str):
                yield unread(place, element.problem or "it has no 'memory'")
                continue
            yield from make.cube(
                str(one.get("id") or one.get("hash") or place),
                one["memory"],
                author=one.get("actor_id"),
                learnt=one.get("updated_at") or one.get("created_at"),
                ends=one.get("expiration_date"),
                agent=one.get("agent_id"),
                session=one.get("run_id"),
                owner=one.get("user_id"),
                data={key: one.get(key) for key in ("role", "created_at", "metadata", "categories", "user_id")},
            )


def _relation(one: Mapping[str, Any], place: str, make: Maker) -> Iterator[Found | Left]:
    """An edge of mem0's graph memory."""
    parts = [one.get("source"), one.get("relationship"), one.get("destination") or one.get("target")]
    if not all(isinstance(part, str) and part for part in parts):
        yield unread(place, "it is no relation")
        return
    begin, kind, end = map(str, parts)
    text = " ".join((begin, kind, end)).replace("_", " ")
    data = {"subject": begin, "attribute": kind, "value": end}
    yield from make.cube(f"relation/{begin}/{kind}/{end}", text, owner=one.get("user_id"), data=data)


def _history(archive: Archive, name: str, make: Maker) -> Iterator[Found | Left]:
    with archive.database(name) as database:
        events: list[Mapping[str, Any]] = []
        for row in database.execute(
            "SELECT * FROM history ORDER BY memory_id, coalesce(updated_at, created_at), rowid"
        ):
            event = dict(zip(row.keys(), row, strict=True))
            if events and event["memory_id"] != events[0]["memory_id"]:
                yield from _one(events, make)
                events = []
            if len(events) < 1000:
                events.append(event)
        if events:
            yield from _one(events, make)


def _one(events: list[Mapping[str, Any]], make: Maker) -> Iterator[Found | Left]:
    """The life of a memory."""
    item = str(events[0]["memory_id"])
    first = next((event for event in events if isinstance(event["new_memory"], str)), None)
    if first is None:
        yield Left(item, "its history has no words")
        return
    for made in make.cube(
        item,
        first["new_memory"],
        author=first.get("actor_id"),
        learnt=first.get("updated_at") or first.get("created_at"),
        data={"role": first.get("role")},
    ):
        if isinstance(made, Left):
            yield made
            continue
        for event in events[events.index(first) + 1 :]:
            when = moment(event.get("updated_at") or event.get("created_at"))
            if event.get("event") == "DELETE" or event.get("is_deleted"):
                made = later(made, {"status": Status.ARCHIVED, "recorded_at": when})
            elif isinstance(event["new_memory"], str) and event["new_memory"].strip():
                now = (made.then or (made.cube,))[-1]
                if now.text != event["new_memory"].strip():
                    made = later(made, {"text": event["new_memory"].strip(), "recorded_at": when})
        yield made
