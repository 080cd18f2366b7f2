"""The memory scheduler: which blocks to keep at hand under a budget (MemOS, arXiv 2507.03724 §5.4).

Holding a block of size n (a text of n tokens, a KV cache of n bytes) saves a cost each time it is asked for. Its density is the
rate of saving a unit of budget, λ · saved / n, with λ an arrival rate that decays exponentially. The densest blocks are held; one
that is already held counts ``hysteresis`` times as much, so that nothing is swapped for a gain that the next event may undo.
Decisions are data, and depend on nothing but the events and their times. LRU and LFU are the baselines that the policy has to beat.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from holdfast.cube import Form, Ref
from holdfast.errors import InputError
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.WORK_MULTI,),
    evolution=(Evolution.FORGET_BY_TIME, Evolution.FORGET_BY_FREQUENCY),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.USER, Subject.WORLD),
)

_NEGLIGIBLE = 1e-3


@dataclass(frozen=True, slots=True)
class Block:
    """What may be held: one version of a cube, its ``size``, and the cost ``saved`` when it is at hand.

    Sizes are in one unit (tokens, bytes), costs in another (tokens not read again, seconds). ``after``: the id of a block without
    which this one is of no use, such as what a stretch of a KV cache was computed after. Raises InputError unless size > 0 and
    saved ≥ 0.
    """

    ref: Ref
    size: int
    saved: float
    after: str | None = None

    def __post_init__(self) -> None:
        if self.size <= 0 or not 0 <= self.saved < math.inf:
            raise InputError(f"a block needs size > 0 and a finite saved >= 0, not {self.size} and {self.saved}")


@dataclass(frozen=True, slots=True)
class Move:
    """A decision: take a block up, or let it go. ``density`` is cost saved a token of budget and unit of time."""

    action: Literal["promote", "demote"]
    block: Block
    density: float
    reason: str


class WorkingSet:
    """The blocks at hand, under a budget; the policy decides by density with hysteresis.

    Times are numbers in one unit (seconds, say), ``half_life`` in the same, and must not run backwards. Raises InputError
    for a budget, half-life or hysteresis out of range.
    """

    def __init__(self, budget: int, half_life: float, *, hysteresis: float = 2.0) -> None:
        if budget < 0 or not half_life > 0 or not hysteresis >= 1:
            raise InputError("a working set needs budget >= 0, half_life > 0 and hysteresis >= 1")
        self.budget = budget
        self.half_life = half_life
        self.hysteresis = hysteresis
        self._held: dict[str, Block] = {}
        self._known: dict[str, Block] = {}
        self._weight: dict[str, tuple[float, float]] = {}
        self._now = -math.inf

    @property
    def held(self) -> tuple[Block, ...]:
        """The blocks at hand, in the order in which they were taken up."""
        return tuple(self._held.values())

    def use(self, block: Block, at: float) -> bool:
        """Record that a block is asked for; whether this very version is at hand. A stale version is let go at once."""
        self._advance(at)
        id = block.ref.id
        weight, last = self._weight.get(id, (0.0, at))
        self._weight[id] = (weight * self._decay(at - last) + 1.0, at)
        self._known[id] = block
        held = self._held.get(id)
        if held is not None and held.ref != block.ref:
            del self._held[id]
            return False
        return held is not None

    def drop(self, id: str) -> Block | None:
        """Forget a cube that was changed, closed or erased, with its history of use; the block if it was at hand."""
        self._weight.pop(id, None)
        self._known.pop(id, None)
        return self._held.pop(id, None)

    def knows(self, id: str) -> bool:
        """Whether a block was asked for lately enough to count."""
        return id in self._known

    def rate(self, id: str, at: float) -> float:
        """The arrival rate λ at a time: each arrival counts ln 2 / half-life, halved every half-life since."""
        weight, last = self._weight.get(id, (0.0, at))
        return weight * self._decay(at - last) * math.log(2.0) / self.half_life

    def density(self, block: Block, at: float) -> float:
        """λ · saved / size."""
        return self.rate(block.ref.id, at) * block.saved / block.size

    def tick(self, at: float) -> tuple[Move, ...]:
        """Decide anew: demotions first, then promotions, each with its reason; they are applied to ``held``."""
        self._advance(at)
        for id in [id for id, (weight, last) in self._weight.items() if weight * self._decay(at - last) < _NEGLIGIBLE]:
            if id not in self._held:
                self.drop(id)
        density = {id: self.density(block, at) for id, block in self._known.items()}
        chosen: dict[str, Block] = {}
        room = self.budget
        waiting = sorted(self._known, key=lambda id: (-self._favoured(id, density[id]), id))
        waiting = [id for id in waiting if density[id] > 0]
        more = True
        while more:  # a block that another one must precede comes in the turn after that one
            more, left = False, []
            for id in waiting:
                block = self._known[id]
                if block.after is not None and block.after not in chosen:
                    left.append(id)
                elif block.size <= room:
                    chosen[id] = block
                    room -= block.size
                    more = True
            waiting = left
        out = [
            Move("demote", block, density[id], f"density {density[id]:.4g} no longer earns its {block.size}")
            for id, block in self._held.items()
            if id not in chosen
        ]
        into = [
            Move("promote", block, density[id], f"density {density[id]:.4g} earns {block.size} of {self.budget}")
            for id, block in chosen.items()
            if id not in self._held
        ]
        for move in out:
            del self._held[move.block.ref.id]
        # What stays is held as it was last asked for: its size may have been measured anew.
        self._held = {id: chosen[id] for id in self._held} | {move.block.ref.id: move.block for move in into}
        return (*out, *into)

    def _favoured(self, id: str, density: float) -> float:
        return density * self.hysteresis if id in self._held else density

    def _decay(self, elapsed: float) -> float:
        return float(2.0 ** (-elapsed / self.half_life))

    def _advance(self, at: float) -> None:
        if not at >= self._now or at == math.inf:
            raise InputError(f"time must not run backwards: {at} after {self._now}")
        self._now = at


class LRU:
    """Baseline: hold whatever was asked for last, letting go of what was not asked for the longest."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._held: OrderedDict[str, Block] = OrderedDict()

    def use(self, block: Block) -> bool:
        """Whether this very version was at hand; it is afterwards, if it fits at all."""
        hit = self._held.pop(block.ref.id, None)
        if block.size <= self.budget:
            self._held[block.ref.id] = block
            while sum(held.size for held in self._held.values()) > self.budget:
                self._held.popitem(last=False)
        return hit is not None and hit.ref == block.ref


class LFU:
    """Baseline: hold whatever was asked for most often since the start, ties going to the more recent."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._held: dict[str, Block] = {}
        self._count: dict[str, tuple[int, int]] = {}
        self._clock = 0

    def use(self, block: Block) -> bool:
        """Whether this very version was at hand; it is afterwards, if its count earns it a place."""
        self._clock += 1
        id = block.ref.id
        self._count[id] = (self._count.get(id, (0, 0))[0] + 1, self._clock)
        hit = self._held.pop(id, None)
        self._held = _fill(sorted((*self._held.values(), block), key=self._merit, reverse=True), self.budget)
        return hit is not None and hit.ref == block.ref

    def _merit(self, block: Block) -> tuple[int, int]:
        return self._count[block.ref.id]


def _fill(blocks: Iterable[Block], budget: int) -> dict[str, Block]:
    """The first blocks that fit, skipping those that do not."""
    held: dict[str, Block] = {}
    for block in blocks:
        if block.size <= budget:
            held[block.ref.id] = block
            budget -= block.size
    return held
