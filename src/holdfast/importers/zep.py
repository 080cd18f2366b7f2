"""Graphs of Zep and Graphiti as JSON: episodes, entities, and edges that say when a fact held and when that was known.

An edge becomes a fact that is true from ``valid_at`` to ``invalid_at`` and was learnt at ``created_at``. Where ``expired_at`` says
that its end was learnt later, it has two versions: before, it had no end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from holdfast.cube import Channel, Kind, Ref
from holdfast.importers.archive import Archive
from holdfast.importers.base import Found, Left, Maker, later, moment, objects, stream, unread

TITLE = "a graph of Zep or Graphiti"
_EPISODES = ("episodes", "episodic_nodes", "messages")
_ENTITIES = ("nodes", "entities", "entity_nodes")
_EDGES = ("edges", "entity_edges", "facts")
_ROLES = {"user": Channel.USER, "human": Channel.USER, "assistant": Channel.ASSISTANT, "ai": Channel.ASSISTANT}
_NAMES = 1_000_000  # entities whose names are kept to tell what an edge connects


def fits(archive: Archive) -> bool:
    """Whether there are objects with a uuid and what only a graph has."""
    return any(
        _is_edge(one) or _is_episode(one) or (member in _ENTITIES and _is_entity(one))
        for member, one in objects(archive, 12)
    )


def read(archive: Archive, make: Maker) -> Iterator[Found | Left]:
    """Episodes, entities, then edges, which are derived from the episodes that they name."""
    names: dict[str, str] = {}
    for members, is_one in ((_EPISODES, _is_episode), (_ENTITIES, _is_entity), (_EDGES, _is_edge)):
        last = members is _EDGES
        for file in archive.names if archive.is_file else archive.find("*.json", "*.jsonl"):
            for element, place in stream(archive, file, partial(_among, members)):
                one = element.value
                ours = element.member in members or (element.member is None and last)
                if element.problem or not isinstance(one, Mapping):
                    if ours:
                        yield unread(place, element.problem or "it is no object")
                elif not is_one(one):
                    if ours and not any(test(one) for test in (_is_episode, _is_entity, _is_edge)):
                        yield unread(place, "it is neither an episode, an entity nor an edge")
                elif is_one is _is_episode:
                    yield from _episode(one, make)
                elif is_one is _is_edge:
                    yield from _edge(one, names, make)
                else:
                    if len(names) < _NAMES:
                        names[_id(one)] = str(one.get("name"))[:200]
                    yield from _entity(one, make)


def _among(members: Sequence[str], member: str | None) -> bool:
    return member is None or member in members


def _episode(one: Mapping[str, Any], make: Maker) -> Iterator[Found | Left]:
    role = str(one.get("role_type") or one.get("role") or "").lower()
    said = one.get("source", "message") == "message"
    channel = _ROLES.get(role, Channel.IMPORT if said else Channel.DOCUMENT)
    yield from make.cube(
        _id(one),
        one.get("content"),
        kind=Kind.MESSAGE if said else Kind.DOCUMENT,
        channel=channel,
        author=one.get("name") if role in _ROLES and one.get("role_type") else role or None,
        true_from=one.get("valid_at") or one.get("created_at"),
        learnt=one.get("created_at"),
        session=one.get("session_id") or one.get("thread_id"),
        owner=_owner(one),
        data={key: one.get(key) for key in ("source", "source_description", "name", "role")},
    )


def _entity(one: Mapping[str, Any], make: Maker) -> Iterator[Found | Left]:
    name, summary = str(one.get("name") or ""), one.get("summary")
    if not isinstance(summary, str) or not summary.strip():
        return  # a name alone is told by the edges
    text = summary if name and name.casefold() in summary.casefold() else f"{name}: {summary}"
    labels = one.get("labels")
    yield from make.cube(
        _id(one),
        text,
        kind=Kind.SUMMARY,
        learnt=one.get("created_at"),
        owner=_owner(one),
        data={"entity": name, "labels": labels if isinstance(labels, list) else None},
    )


def _edge(one: Mapping[str, Any], names: Mapping[str, str], make: Maker) -> Iterator[Found | Left]:
    created, expired, ended = (one.get(key) for key in ("created_at", "expired_at", "invalid_at"))
    episodes = one.get("episodes")
    parents = [Ref(make.id(str(id)), 1) for id in episodes[:64]] if isinstance(episodes, list) else []
    late = moment(expired)
    known = moment(created)
    learnt_later = late is not None and ended is not None and (known is None or late > known)
    for made in make.cube(
        _id(one),
        one.get("fact"),
        true_from=one.get("valid_at"),
        true_until=None if learnt_later else ended,
        learnt=created,
        derived_from=parents,
        owner=_owner(one),
        data={
            "subject": names.get(str(one.get("source_node_uuid"))),
            "attribute": one.get("name"),
            "value": names.get(str(one.get("target_node_uuid"))),
        },
    ):
        if isinstance(made, Found) and learnt_later:
            end = moment(ended)
            if end is None or (made.cube.valid_from is not None and end < made.cube.valid_from):
                yield Left(
                    _id(one),
                    f"its end {str(ended)[:40]!r} is not a time after its beginning and was left out",
                    kept=True,
                )
            else:
                made = later(made, {"valid_to": end, "recorded_at": late})
        yield made


def _id(one: Mapping[str, Any]) -> str:
    return str(one.get("uuid") or one.get("uuid_"))


def _owner(one: Mapping[str, Any]) -> object:
    return one.get("group_id") or one.get("user_id")


def _is_edge(one: Mapping[str, Any]) -> bool:
    return ("uuid" in one or "uuid_" in one) and isinstance(one.get("fact"), str)


def _is_episode(one: Mapping[str, Any]) -> bool:
    return ("uuid" in one or "uuid_" in one) and isinstance(one.get("content"), str)


def _is_entity(one: Mapping[str, Any]) -> bool:
    return ("uuid" in one or "uuid_" in one) and isinstance(one.get("name"), str) and "summary" in one
