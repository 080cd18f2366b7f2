"""What an encoder or a manager sees of a memory's search: the records nearest to a text, which lie in the rooms above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from holdfast.cube import Cube, Scope
from holdfast.encode.records import MAKER
from holdfast.errors import InputError


class Found(Protocol):
    """A record and how near it is; ``retrieve.hits.Hit`` is one."""

    @property
    def cube(self) -> Cube:
        """The record."""
        ...

    @property
    def relevance(self) -> float:
        """The cosine, or the share of the text's words where there are no vectors."""
        ...


class Nearest(Protocol):
    """``holdfast.Memory`` is one."""

    def nearest(self, text: str, *, k: int = 10, kinds: Sequence[str] = (), **scope: str | None) -> Sequence[Found]:
        """The k records most like a text in meaning, the nearest first."""
        ...


def named(scope: Scope) -> dict[str, Any]:
    """A scope as a memory's methods take it."""
    return dict(zip(("tenant", "user", "agent", "session"), scope.parts, strict=True))


def near(
    memory: Nearest | None, scope: Scope | None, text: str, kind: str, k: int, above: float, author: str | None
) -> list[Cube]:
    """The derived records of an author that are nearer to a text than ``above``, the nearest first. Raises InputError
    outside a memory."""
    if memory is None or scope is None:
        raise InputError("this part of a recipe compares records with others: it works in a memory, not by itself")
    found = memory.nearest(text, k=k, kinds=(kind,), **named(scope))
    cubes = [one.cube for one in found if one.relevance > above]
    return [cube for cube in cubes if cube.origin.author == author and MAKER in cube.data]
