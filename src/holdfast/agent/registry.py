"""The instruction registry of a run (L2MAC, arXiv 2310.02003, Algorithm 1: I): a program of steps that outlives every context.

Each instruction is a cube with its state: what it waits for, how often it was begun, what was noted when a context overflowed, and
the summary that later steps read. The order of the program is the order of ``instructions``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from holdfast.agent.ledger import Ledger
from holdfast.cube import Cube, Form
from holdfast.errors import ConflictError, InputError, NotFoundError
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.WORK_MULTI,),
    formation=(Formation.SUMMARY_PARTITIONED,),
    evolution=(Evolution.UPDATE_EXTERNAL,),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.AGENT,),
)

STEP = "step"


class Stage(StrEnum):
    """How far an instruction is."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One step of a program.

    Fields
        depends_on: ids of instructions that are settled (done, or given up) before this one begins.
        attempts: how many contexts were begun for it. turns: how many replies it took, in all of them.
        summary: what its end left for later steps.
        notes: accounts of progress, one from each context that overflowed.
        may_change_tests: whether tests that were there before may be changed or deleted.
    """

    id: str
    text: str
    depends_on: tuple[str, ...] = ()
    status: Stage = Stage.PENDING
    attempts: int = 0
    turns: int = 0
    summary: str = ""
    notes: tuple[str, ...] = ()
    may_change_tests: bool = False


class InstructionRegistry:
    """The instructions of a run, in order.

    Args:
        ledger: where they are written down.
        splits: how many instructions ``split`` may add in all.
    """

    def __init__(self, ledger: Ledger, *, splits: int = 16) -> None:
        self._ledger = ledger
        self._splits = splits

    @property
    def instructions(self) -> list[Instruction]:
        """All of them, in the order of the program."""
        return [_instruction(cube) for cube in self._cubes()]

    def get(self, id: str) -> Instruction:
        """One of them. Raises NotFoundError."""
        return _instruction(self._cube(id))

    def next(self) -> Instruction | None:
        """The first that is running, or may begin; None where all are settled. Raises ConflictError where each waits on another."""
        every = self.instructions
        settled = {one.id for one in every if one.status in (Stage.DONE, Stage.FAILED)}
        ready = [one for one in every if one.id not in settled and settled.issuperset(one.depends_on)]
        running = [one for one in ready if one.status is Stage.RUNNING]
        if not ready and len(settled) < len(every):
            raise ConflictError("the instructions wait for each other; edit what one of them depends on")
        return next(iter(running or ready), None)

    def add(self, text: str, *, depends_on: Sequence[str] = (), may_change_tests: bool = False) -> Instruction:
        """A new last instruction. Raises InputError for a text that is empty, or an unknown id that it depends on."""
        cubes = self._cubes()
        order = [cubes[-1].data["order"][0] + 1] if cubes else [1]
        return self._make(text, order, self._known(depends_on), may_change_tests=may_change_tests)

    def edit(self, id: str, text: str, *, depends_on: Sequence[str] | None = None) -> Instruction:
        """Give one that has not ended other words. Raises ConflictError for one that has, InputError, NotFoundError."""
        one = self.get(id)
        if one.status in (Stage.DONE, Stage.FAILED):
            raise ConflictError(f"instruction {id} has ended; add another one")
        waits = one.depends_on if depends_on is None else self._known(depends_on)
        if id in waits:
            raise InputError(f"instruction {id} cannot depend on itself")
        return self._set(id, text=_worded(text), depends_on=list(waits))

    def split(self, id: str, texts: Sequence[str]) -> list[Instruction]:
        """Put several in the place of one that has not ended, in a row. Raises ConflictError where too many were added so."""
        if len(texts) < 2:
            raise InputError("an instruction is split into two or more")
        added = sum(len(cube.data["order"]) > 1 for cube in self._cubes())
        if added + len(texts) - 1 > self._splits:
            raise ConflictError(f"instructions may be split into {self._splits} more in all; do this one as it is")
        texts = [_worded(text) for text in texts]
        with self._ledger.together():
            order = list(self._cube(id).data["order"])
            made = [self.edit(id, texts[0])]
            taken = [cube.data["order"] for cube in self._cubes() if cube.data["order"][: len(order)] == order]
            first = max((one[len(order)] for one in taken if len(one) > len(order)), default=0) + 1
            waiting = [one.id for one in self.instructions if id in one.depends_on]
            for number, text in enumerate(texts[1:], first):
                made.append(self._make(text, [*order, number], (made[-1].id,)))
            for other in waiting:
                waits = [made[-1].id if one == id else one for one in self.get(other).depends_on]
                self._set(other, depends_on=waits)
        return made

    def begin(self, id: str) -> Instruction:
        """A new context is begun for it."""
        return self._set(id, stage=Stage.RUNNING, attempts=self.get(id).attempts + 1)

    def turn(self, id: str) -> Instruction:
        """It took one more reply. Whoever else carries it out at the same time gets a ConflictError for theirs."""
        return self._set(id, turns=self.get(id).turns + 1)

    def note(self, id: str, text: str) -> Instruction:
        """Keep an account of its progress."""
        return self._set(id, notes=[*self.get(id).notes, text])

    def settle(self, id: str, summary: str, *, failed: bool = False) -> Instruction:
        """It is done, or given up."""
        return self._set(id, stage=Stage.FAILED if failed else Stage.DONE, summary=summary)

    def _cubes(self) -> list[Cube]:
        return sorted(self._ledger.cubes(STEP), key=lambda cube: list(cube.data["order"]))

    def _cube(self, id: str) -> Cube:
        for cube in self._ledger.cubes(STEP):
            if cube.data["subject"] == id:
                return cube
        raise NotFoundError(f"there is no instruction {id}")

    def _known(self, ids: Sequence[str]) -> tuple[str, ...]:
        for id in ids:
            if not any(cube.data["subject"] == id for cube in self._ledger.cubes(STEP)):
                raise InputError(f"there is no instruction {id!r} to depend on; add it first")
        return tuple(dict.fromkeys(ids))

    def _make(
        self, text: str, order: list[int], depends_on: Sequence[str], *, may_change_tests: bool = False
    ) -> Instruction:
        id = f"s{len(self._ledger.cubes(STEP)) + 1}"
        data = {
            "subject": id,
            "order": order,
            "stage": str(Stage.PENDING),
            "attempts": 0,
            "turns": 0,
            "depends_on": list(depends_on),
            "summary": "",
            "notes": [],
            "may_change_tests": may_change_tests,
        }
        self._ledger.make(STEP, _worded(text), data)
        return self.get(id)

    def _set(self, id: str, *, text: str | None = None, **fields: Any) -> Instruction:
        cube = self._cube(id)
        self._ledger.change(cube, text=cube.text if text is None else text, data={**cube.data, **_plain(fields)})
        return self.get(id)


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Stage) else value for name, value in fields.items()}


def _worded(text: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise InputError("an instruction needs words")
    return text.strip()


def _instruction(cube: Cube) -> Instruction:
    data = cube.data
    return Instruction(
        data["subject"],
        cube.text,
        tuple(data["depends_on"]),
        Stage(data["stage"]),
        data["attempts"],
        data["turns"],
        data["summary"],
        tuple(data["notes"]),
        data["may_change_tests"],
    )
