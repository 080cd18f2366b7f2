"""A conversation as a library keeps it, message for message, and as memories at once.

What people, the model and tools say are memories of their own channel, so they are recalled, facts are drawn from what a person
says, and what the model says after a tool has answered is tainted by that tool. What nobody says (a system prompt, a call, a
model's reasoning) is kept *aside*: it comes back with the conversation, and no search finds it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.cube import EXTERNAL, RECALLABLE, Channel, Cube, Kind, Origin, Scope, Status, new_id, taints
from holdfast.encode.near import named
from holdfast.encode.turns import TRUST
from holdfast.errors import ConflictError, InputError, NotFoundError
from holdfast.guard.governor import Purpose
from holdfast.memory import Memory
from holdfast.retrieve.context import without_recalled
from holdfast.store.base import Operation, Where

ASIDE = "aside"
"""The kind of what nobody says."""

_KINDS = (Kind.MESSAGE, ASIDE)
_STATUSES = (*sorted(RECALLABLE), Status.QUARANTINED, Status.ARCHIVED)


@dataclass(frozen=True, slots=True)
class Said:
    """One message: through which door it came, its words, and all of it as the library has it, as JSON.

    ``tool``: whose answer it is. ``aside``: nobody says it.
    """

    channel: Channel
    text: str
    item: Mapping[str, Any]
    author: str | None = None
    tool: str | None = None
    aside: bool = False


class Transcript:
    """The messages of one library in one session.

    Args:
        memory: where they are kept.
        library: whose messages these are; those of others in the session are left alone.
        scope: with a session.
        erase: what is taken away is forgotten for good; else it goes out of recall and stays in history.

    Raises InputError for a scope without a session.
    """

    def __init__(self, memory: Memory, library: str, scope: Scope, *, erase: bool = False) -> None:
        if scope.session is None:
            raise InputError("which conversation? Name it with session=")
        self._memory, self._library, self.scope, self._erase = memory, library, scope, erase

    def read(self, last: int | None = None) -> list[dict[str, Any]]:
        """The messages as the library has them, in order; the ``last`` of them only."""
        cubes = self._cubes()
        some = cubes if last is None else cubes[-last:] if last > 0 else []
        return [json.loads(json.dumps(cube.data["item"])) for cube in some]

    def append(self, messages: Sequence[Said]) -> None:
        """Keep messages, all or none. Raises InputError for what is not JSON."""
        if not messages:
            return
        heard = self._heard() if any(one.channel is Channel.ASSISTANT for one in messages) else ()
        cubes = []
        for one in messages:
            cube = self._cube(one, heard if one.channel is Channel.ASSISTANT else ())
            if one.channel in EXTERNAL:
                heard = taints(heard, (cube.origin.label,))
            cubes.append(cube)
        stored = {cube.id for cube in self._apply(cubes)}
        refused = [cube for cube in cubes if cube.id not in stored]
        # What the guard lets into no memory was said all the same: the conversation has it, and nothing else.
        self._apply([cube.with_(text="(refused by the guard)", kind=ASIDE, status=Status.ARCHIVED) for cube in refused])

    def pop(self) -> dict[str, Any] | None:
        """Take the last message away, and return it; None where there is none. Of many callers each has another one."""
        while cubes := self._cubes():
            if self._drop(cubes[-1]):
                return dict(cubes[-1].data["item"])
        return None

    def clear(self) -> None:
        """Take all messages away."""
        cubes = self._cubes()
        if self._erase and cubes:
            self._memory.forget([cube.id for cube in cubes], **named(self.scope))
            return
        for cube in reversed(cubes):
            self._drop(cube)

    # --- inside ---

    def _cubes(self) -> list[Cube]:
        where = Where(kinds=_KINDS, statuses=_STATUSES, data={"library": self._library})
        found = self._memory.store.select(self.scope, where)
        kept = [
            cube
            for cube in found
            if cube.scope == self.scope
            and not cube.data.get("deleted")
            and (cube.status is not Status.ARCHIVED or cube.kind == ASIDE)
        ]
        return sorted(kept, key=lambda cube: cube.id)  # the order in which they were said, whatever changed since

    def _heard(self) -> tuple[str, ...]:
        return taints(*(cube.origin.taint for cube in self._cubes()))

    def _cube(self, one: Said, taint: tuple[str, ...]) -> Cube:
        text = without_recalled(one.text)
        aside = one.aside or one.channel is Channel.SYSTEM or not any(letter.isalnum() for letter in text)
        id = new_id()
        data = {"role": str(one.channel), "library": self._library, "item": dict(one.item), "turn": id}
        # A system prompt is its program's, and no word of the system that keeps the memory.
        channel = Channel.ASSISTANT if one.channel is Channel.SYSTEM else one.channel
        origin = Origin(channel, one.author, one.tool, TRUST[channel], taint=taint)
        if not aside:
            return Cube(self.scope, text, data=data, origin=origin, id=id)
        return Cube(
            self.scope, text.strip() or "(no words)", ASIDE, data=data, origin=origin, id=id, status=Status.ARCHIVED
        )

    def _apply(self, cubes: Iterable[Cube]) -> tuple[Cube, ...]:
        operations = [Operation.add(cube) for cube in cubes]
        if not operations:
            return ()
        return self._memory.apply(operations, actor=self.scope.path, change=Purpose.WRITE)

    def _drop(self, cube: Cube) -> bool:
        """Take one away; False where another program did, or changed it, just now."""
        try:
            if self._erase:
                self._memory.forget(cube.id, **named(self.scope))
            elif cube.kind == ASIDE:
                gone = cube.with_(status=Status.EXPIRED)
                self._memory.apply([Operation.update(gone, "deleted")], actor=self.scope.path, change=Purpose.EDIT)
            else:  # by its version, so that two who take the last message do not take the same one
                gone = cube.with_(data={**cube.data, "deleted": True})
                (gone,) = self._memory.apply(
                    [Operation.update(gone, "deleted")], actor=self.scope.path, change=Purpose.EDIT
                )
                self._memory.retract(cube.id, reason="deleted", **named(self.scope))
        except (ConflictError, NotFoundError):
            return False
        return True


def jsoned(value: Mapping[str, Any], what: str) -> dict[str, Any]:
    """A message as JSON has it. Raises InputError for what it cannot hold."""
    try:
        read = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{what} cannot be kept, it is not plain JSON: {error}") from error
    return dict(read)


def words_of(parts: Any) -> str:
    """The words in a message's content: a string, or parts of which some have text."""
    if isinstance(parts, str):
        return parts
    if not isinstance(parts, Sequence):
        return ""
    found = [
        part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None for part in parts
    ]
    return "\n".join(some for some in found if isinstance(some, str))
