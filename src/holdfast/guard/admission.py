"""Who may write what: a ruling on everything that wants to be remembered, before anything is made of it.

What a person or the agent itself says is admitted. What comes from outside, or was made of it, is told from that by its taint,
which no words can take away, and is held to three rules:

1. It lays down nothing: an instruction, a preference, an experience, a skill or a lesson from outside waits in quarantine for
   a person, or for a rule that rests on more than its own word (``release``).
2. It may be read, but what looks like an attack waits too (``screening``): a signal holds back, and never lets in.
3. It has one voice: of near-copies from one source the first few are kept, the rest wait, and so does what a source brings in a
   burst beyond ten thousand an hour.

What no memory can be (our own fence forged, letters that nobody sees) is refused.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np

from holdfast.cube import EXTERNAL, Cube, Form, Kind, Origin, Scope
from holdfast.encode.records import Unit
from holdfast.guard.base import Decision, Ruling, Verdict, source_of
from holdfast.guard.screening import signals
from holdfast.guard.sketch import SIZE, Sketch, sketch
from holdfast.retrieve.hits import Hit
from holdfast.store.base import Op, Operation
from holdfast.taxonomy import Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_ENVIRONMENT,),
    subject=(Subject.WORLD,),
)

STANDING = frozenset(
    {
        Kind.INSTRUCTION,
        Kind.PREFERENCE,
        Kind.PROFILE,
        Kind.EXPERIENCE,
        Kind.CONCEPT,
        Kind.SKILL,
        Kind.LESSON,
        *Unit,
    }
)
"""What tells an agent how to act."""

COPIES = 3
"""So many near-copies of a text are taken from one source."""

BURST = 10_000
"""So many texts are taken from one source at once, and as many an hour. A whole mailbox or site that is taken in is less."""

ALIKE = 0.7
"""Texts that share so many of their runs of three words are near-copies."""

_ENOUGH = 0.7
_HOUR = 3600.0
_KEPT = 512  # texts of a source, and sources, that are remembered to know a copy by; a power of two
_FORGED = re.compile(r"<\s*+/?\s*+memor(?:y|ies)\b", re.IGNORECASE)

_CLAUSES = {
    "hidden": "it holds characters that a reader does not see",
    "lookalike": "it holds words with letters of another script in them",
    "encoded": "it holds encoded words",
    "order": "it gives orders to an agent",
    "spoof": "it passes for a part of the agent's own trace",
    "praise": "it vouches for itself",
    "carries_off": "it wants something sent somewhere",
    "shortcut": "it recommends to leave out a check",
    "asks": "it begins with the question that it answers",
    "copies": f"its source said nearly the same {COPIES} times before",
    "flood": "its source brings very many within an hour",
}


@dataclass(frozen=True, slots=True)
class Admission:
    """The guard that a memory has by default; ``check`` keeps every hit (``ConsensusGuard`` is for agents that act on them).

    ``burst``: what one source may bring at once, and within an hour; who takes in a whole site raises it. ``clock``: seconds.
    """

    standing: frozenset[str] = STANDING
    enough: float = _ENOUGH
    burst: int = BURST
    clock: Callable[[], float] = field(default=time.monotonic, repr=False, compare=False)
    _sources: _Sources = field(default_factory=lambda: _Sources(), repr=False, compare=False)

    def admit(self, operations: Sequence[Operation]) -> list[Decision]:
        """A decision for each operation, in order."""
        return [self._one(operation) for operation in operations]

    def check(self, query: str, hits: Sequence[Hit]) -> Verdict:  # noqa: ARG002  (the seam has it)
        """Every hit."""
        return Verdict(tuple(hits))

    def _one(self, operation: Operation) -> Decision:
        cube = operation.cube
        if cube is None or operation.op not in (Op.ADD, Op.UPDATE) or not outside(cube.origin):
            return Decision(Ruling.ADMIT)
        found = dict(signals(cube.text))
        if found.get("hidden") == 1.0 or _FORGED.search(cube.text):
            why = _CLAUSES["hidden"] if "hidden" in found else "it forges the fence around recalled memories"
            return Decision(Ruling.REFUSE, (f"{_from(cube)} is refused: {why}",), found)
        if operation.op is Op.ADD:
            found |= self._sources.signals(cube, self.burst, self.clock())
        reasons = []
        if cube.kind in self.standing:
            reasons.append(f"a memory of kind {cube.kind} from outside ({_from(cube)}) must be approved")
        reasons += against(found, self.enough)
        ruling = Ruling.QUARANTINE if reasons else Ruling.ADMIT
        return Decision(ruling, tuple(reasons), found, uncorroborated=bool(reasons) and not found)


def against(found: Mapping[str, float], enough: float = _ENOUGH) -> list[str]:
    """Why some signals (``screening.signals``) hold a text back; empty where they are too weak for that.

    Two weak signs are as good as a strong one: a text that vouches for itself and leaves out a check.
    """
    strong = max(found.values(), default=0.0) >= enough or sum(found.values()) >= 1.0
    return [_CLAUSES[name] for name in found if name in _CLAUSES] if strong else []


def outside(origin: Origin) -> bool:
    """Whether anything from outside has a part in it; the store adds the taint of the sources when it commits."""
    return origin.channel in EXTERNAL or bool(origin.taint)


def _from(cube: Cube) -> str:
    """Where something is from, for a person to read: each page, where ``source_of`` counts sites."""
    return ", ".join(cube.origin.taint) or cube.origin.label


class _Said:
    """The sketches of the last _KEPT texts of one source, a row each, so that many are compared at once; how much it brought."""

    def __init__(self, now: float) -> None:
        self._rows = np.empty((8, SIZE), np.uint32)
        self._count = 0
        self._brought, self._at = 0.0, now

    def alike(self, own: Sketch) -> int:
        """How many of them are near-copies."""
        rows = self._rows[: min(self._count, len(self._rows))]
        return int((np.count_nonzero(rows == own, axis=1) >= ALIKE * SIZE).sum())

    def add(self, own: Sketch) -> None:
        """Remember one more, in place of the oldest where there are _KEPT."""
        if self._count == len(self._rows) < _KEPT:
            self._rows = np.concatenate((self._rows, np.empty_like(self._rows)))
        self._rows[self._count % len(self._rows)] = own
        self._count += 1

    def overflows(self, burst: int, now: float) -> bool:
        """Whether one more is more than a bucket of that size holds, which empties once an hour."""
        self._brought = max(0.0, self._brought - burst * (now - self._at) / _HOUR)
        self._at = now
        if self._brought + 1 > burst:
            return True
        self._brought += 1
        return False


class _Sources:
    """What each source has brought lately, in this process."""

    def __init__(self) -> None:
        self._said: OrderedDict[tuple[Scope, str], _Said] = OrderedDict()
        self._lock = Lock()

    def signals(self, cube: Cube, burst: int, now: float) -> dict[str, float]:
        """``copies``: the cube's source has said nearly the same COPIES times before; ``flood``: it brings too many."""
        own = sketch(cube.text)
        key = Scope(cube.scope.tenant, cube.scope.user), source_of(cube)
        with self._lock:
            if key not in self._said:
                self._said[key] = _Said(now)
            said = self._said[key]
            self._said.move_to_end(key)
            if len(self._said) > _KEPT:
                self._said.popitem(last=False)
            alike, flood = said.alike(own), said.overflows(burst, now)
            said.add(own)
        return ({"copies": 1.0} if alike >= COPIES else {}) | ({"flood": 1.0} if flood else {})
