"""Records that say the same become one, where a model confirms it (G-Memory's insights, arXiv 2506.07398; Agent KB's plans,
arXiv 2507.06229).

Of two records of one author and kind whose cosine is above ``alike`` the older one is kept as it is; it takes over the other's
sources, cases and trials. Records of two authors are never merged: one record is one voice. What a model found different is not
asked about again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from holdfast.chat import Chat
from holdfast.cube import Cube, Form, Ref, Scope, Status
from holdfast.encode.near import Nearest, near
from holdfast.encode.records import CASES, LINKS, linked, listed, tell
from holdfast.encode.trials import TRIALS, counted
from holdfast.encode.writing import write
from holdfast.errors import InputError
from holdfast.manage.base import OPEN, tended
from holdfast.store.base import Operation, Store
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.STRATEGIES,),
    evolution=(Evolution.CONSOLIDATE_LOCAL,),
    subject=(Subject.AGENT,),
)

UNLIKE = "unlike"
"""In a derived record's ``data``: the ids of older ones that a model found to say something else."""


@dataclass(frozen=True, slots=True)
class Merging:
    """A manager of some ``kinds``. ``compared``: of each record, the most that the model is asked about; ``changed``: only these
    records are compared with others. Raises InputError.
    """

    kinds: tuple[str, ...]
    alike: float = 0.8
    compared: int = 3
    changed: Sequence[Cube] | None = None
    model: Chat | None = None
    memory: Nearest | None = None

    def __post_init__(self) -> None:
        if not self.kinds or self.compared < 1 or not -1.0 <= self.alike <= 1.0:
            raise InputError("merging is of some kinds, one record or more is compared, and a cosine lies in [-1, 1]")

    def manage(self, store: Store, scope: Scope, now: datetime) -> list[Operation]:  # noqa: ARG002  (the seam has it)
        """One update of each record that was kept, and of each that was merged into it. Raises InputError, ChatError."""
        operations = []
        for kind in self.kinds:
            cubes = {cube.id: cube for cube in tended(store, scope, (kind,), self.changed)}
            operations += self._merged(kind, cubes, scope)
        return operations

    def _merged(self, kind: str, cubes: Mapping[str, Cube], scope: Scope) -> list[Operation]:
        before, now, into = dict(cubes), dict(cubes), dict[str, str]()
        for id in sorted(cubes):  # ids sort by creation
            cube = now[id]
            unlike = listed(cube, UNLIKE)
            for other in near(self.memory, scope, cube.text, kind, self.compared + 1, self.alike, cube.origin.author):
                old = now.get(other.id, other)
                if old.id >= id or old.id in into or old.id in unlike or old.status not in OPEN:
                    continue
                if old.scope != cube.scope or old.policy != cube.policy or old.origin.taint != cube.origin.taint:
                    continue
                if self._same(old, cube):
                    before.setdefault(old.id, other)
                    now[old.id], into[id] = _joined(old, cube), old.id
                    break
                unlike.append(old.id)
            if id not in into and unlike != listed(cube, UNLIKE):
                now[id] = cube.with_(data={**cube.data, UNLIKE: unlike})
        operations = []
        for id, cube in now.items():
            if id in into:
                operations.append(
                    Operation.update(before[id].with_(status=Status.MERGED), f"says the same as {into[id]}")
                )
            elif cube != before[id]:
                operations.append(Operation.update(cube, "compared with others, and merged where they say the same"))
        return operations

    def _same(self, one: Cube, other: Cube) -> bool:
        instruction = "Do these two records say the same, so that one of them is enough?"
        data = {"one": tell(one), "other": tell(other)}
        return bool(write(self.model, "equality", instruction, data, {"same": {"type": "boolean"}})["same"])


def _joined(kept: Cube, other: Cube) -> Cube:
    sources: dict[Ref, None] = dict.fromkeys((*kept.origin.derived_from, *other.origin.derived_from, other.ref))
    data: dict[str, Any] = dict(kept.data)
    for name in (CASES, UNLIKE):
        if joint := list(dict.fromkeys((*listed(kept, name), *listed(other, name)))):
            data[name] = joint
    if ties := {**linked(other), **linked(kept)}:
        data[LINKS] = ties
    if TRIALS in kept.data or TRIALS in other.data:
        (used, won, last), (more, also, others) = counted(kept), counted(other)
        data[TRIALS] = {"used": used + more, "won": won + also, "last": [*last, *others]}
    return kept.with_(data=data, origin=replace(kept.origin, derived_from=tuple(sources)))
