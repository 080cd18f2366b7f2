"""The memory of MCP's reference server: JSON lines of entities with observations, and of relations between entities."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.importers.archive import Archive
from holdfast.importers.base import Found, Left, Maker, objects, stream, unread

TITLE = "the memory of MCP's reference server"


def fits(archive: Archive) -> bool:
    """Whether there are entities with observations, or relations."""
    return any(_is_entity(one) or _is_relation(one) for _, one in objects(archive))


def read(archive: Archive, make: Maker) -> Iterator[Found | Left]:
    """An observation is a fact, and so is a relation."""
    for name in archive.names if archive.is_file else archive.find("*.jsonl", "memory.json"):
        for element, place in stream(archive, name):
            one = element.value
            if isinstance(one, Mapping) and _is_entity(one):
                yield from _entity(one, make)
            elif isinstance(one, Mapping) and _is_relation(one):
                begin, kind, end = (str(one[key]) for key in ("from", "relationType", "to"))
                text = f"{begin} {kind.replace('_', ' ')} {end}"
                data = {"subject": begin, "attribute": kind, "value": end}
                yield from make.cube(f"relation/{_digest(begin, kind, end)}", text, data=data)
            elif element.problem or element.number:
                yield unread(place, element.problem or "it is neither an entity nor a relation")


def _entity(one: Mapping[str, Any], make: Maker) -> Iterator[Found | Left]:
    name = str(one["name"])
    told = one.get("observations")
    if not isinstance(told, list) or not told:
        yield Left(f"entity {name}", "nothing was observed of it")
        return
    for observed in told:
        words = observed.get("content") if isinstance(observed, Mapping) else observed
        when = observed.get("timestamp") if isinstance(observed, Mapping) else None
        if not isinstance(words, str):
            yield Left(f"entity {name}", "an observation of it is no text")
            continue
        text = words if name.casefold() in words.casefold() else f"{name}: {words}"
        data = {"subject": name, "type": one.get("entityType")}
        yield from make.cube(f"entity/{_digest(name, words)}", text, learnt=when, data=data)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _is_entity(one: Mapping[str, Any]) -> bool:
    return "name" in one and "entityType" in one


def _is_relation(one: Mapping[str, Any]) -> bool:
    return all(key in one for key in ("from", "to", "relationType"))
