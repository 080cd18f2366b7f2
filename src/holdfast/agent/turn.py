"""One turn of an agent: what it has read from outside has a part in whatever it writes, whether it says so or not.

A signature proves who wrote something, not that it was not tricked into writing it (MemoryGraft, arXiv 2512.16962). So an agent
that reads memory through a turn writes through the same one, and the turn names the sources: all from outside, and of what is
from inside that which it says again (``guard.echoes``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from holdfast.cube import Channel, Cube, Form, Ref, taints
from holdfast.encode.base import Outcome, Trajectory
from holdfast.encode.turns import Content
from holdfast.guard.echoes import echoed, said
from holdfast.guard.precedents import Precedents
from holdfast.memory import Added, Memory
from holdfast.recipes.base import Guidance, Taken
from holdfast.retrieve.context import Packed
from holdfast.retrieve.hits import Hits
from holdfast.retrieve.utility import Useful
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_ENVIRONMENT,),
    retrieval=(Retrieval.ON_REQUEST,),
    subject=(Subject.AGENT,),
)


class Turn:
    """Reads and writes one memory, and remembers for as long as it lives what it read.

    Args:
        memory: where to read and write.
        scope: tenant, user, agent, session, as ``Memory`` takes them.
    """

    def __init__(self, memory: Memory, **scope: str | None) -> None:
        self._memory = memory
        self._scope: dict[str, Any] = dict(scope)
        self._read: dict[str, Ref] = {}
        self._own: dict[Ref, frozenset[str]] = {}
        self._new: dict[Ref, str] = {}  # what came since the turn last wrote: a search does not wait for its words
        self._taint: tuple[str, ...] = ()

    @property
    def learns(self) -> bool:
        """Whether the memory has a recipe."""
        return self._memory.learns

    @property
    def taint(self) -> tuple[str, ...]:
        """The outside sources that had a part in this turn so far."""
        return self._taint

    def search(self, query: str, **options: Any) -> Hits:
        """See ``Memory.search``."""
        hits = self._memory.search(query, **options, **self._scope)
        for hit in hits:
            for cube in (hit.cube, *hit.before, *hit.after):
                self._saw(cube)
        return hits

    def useful(self, task: str, **options: Any) -> Useful:
        """See ``Memory.useful``."""
        found = self._memory.useful(task, **options, **self._scope)
        for hit in found.hits:
            self._saw(hit.cube)
        return found

    def provide(self, task: str, phase: str = "begin", **options: Any) -> Guidance:
        """See ``Memory.provide``. What was dropped is no part of it, and does not count as read."""
        found = self._memory.provide(task, phase, **options, **self._scope)
        for hit in found.hits:
            self._saw(hit.cube)
        return found

    def take_in(self, trajectory: Trajectory, outcome: Outcome | float | None, **options: Any) -> Taken:
        """See ``Memory.take_in``. It is tainted by what this turn has read from outside."""
        lived = replace(trajectory, taint=taints(trajectory.taint, self._taint))
        return self._memory.take_in(lived, outcome, **options, **self._scope)

    def pack(self, query: str, **options: Any) -> Packed:
        """See ``Memory.pack``."""
        packed = self._memory.pack(query, **options, **self._scope)
        for cube in packed.cubes:
            self._saw(cube)
        return packed

    def precedents(self, task: str, **options: Any) -> Precedents:
        """See ``Memory.precedents``. What was dropped is handed over too, so that it counts as read."""
        found = self._memory.precedents(task, **options, **self._scope)
        for hit in (*found.kept, *(one.hit for one in found.dropped)):
            self._saw(hit.cube)
        self._taint = taints(self._taint, *(caution.taint for caution in found.cautions))
        return found

    def get(self, id: str) -> Cube:
        """See ``Memory.get``."""
        cube = self._memory.get(id, **self._scope)
        self._saw(cube)
        return cube

    def read(self, channel: Channel, source: str) -> None:
        """Say that something was read that is no memory: a page, a tool's answer."""
        self._taint = taints(self._taint, (f"{channel}:{source.split('#')[0]}",))

    def add(self, content: Content, *, channel: Channel | str = Channel.ASSISTANT, **options: Any) -> Added:
        """See ``Memory.add``. What is not the user's own word is derived from all that this turn read from outside, and from
        what it says again of the rest."""
        items: list[Any] = [content]
        if isinstance(content, Iterable) and not isinstance(content, str | Cube | Mapping):
            items = list(content)
        self._own |= {ref: said(text) for ref, text in self._new.items()}
        self._new.clear()
        again = [ref for item in items for ref in echoed(_words(item), self._own)]
        sources = tuple(dict.fromkeys((*self._read.values(), *again)))
        return self._memory.add(
            items,
            channel=channel,
            derived_from=sources,
            taint=self._taint,
            **options,
            **self._scope,
        )

    def _saw(self, cube: Cube) -> None:
        if cube.tainted:
            self._read[cube.id] = cube.ref
            self._taint = taints(self._taint, cube.origin.taint)
        elif cube.ref not in self._own:
            self._new[cube.ref] = cube.text


def _words(item: object) -> str:
    """The words of what is to be added, as far as they are plain; whatever else it is ``add`` judges."""
    text = item.text if isinstance(item, Cube) else item.get("content") if isinstance(item, Mapping) else item
    return text if isinstance(text, str) else ""
