"""Contradictions as cohomology: a sheaf over statements (after SuperLocalMemory V3, arXiv 2603.14588 §5, there on vectors).

Vertices are slots, (entity, attribute); the stalk over a slot is a real line for a quantity and one coordinate a value for
a text. Every statement is an edge: an assertion ties its slot to a known value, a relation says that two slots differ by c
("Ana is two years older than Bo"), an alias that two entities agree in everything. With F_u, F_v the restriction maps,

    (δx)_e = F_v x_v − F_u x_u,    h = c − δx*,    x* = argmin |δx − c|²,

the statements can all be true together iff h = 0, that is iff c lies in the image of δ. |h_e| says how much of the
disagreement falls on each. This finds contradictions that no pair of statements shows: around a cycle, or through an alias
or an intermediate entity. A non-zero dim H¹ alone never means a contradiction: it only says that one is possible.

Statements that hold at different times do not contradict each other: h is computed for each set of those that hold together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.manage.statements import BEGINNING, SAME_AS, Reading, Statement
from holdfast.taxonomy import Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    subject=(Subject.USER, Subject.WORLD),
)

Floats = npt.NDArray[np.float64]

_DENSE = 400


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Which of the contradicting statements should yield, and why. It is a suggestion: nothing is changed.

    ``against`` are the statements it cannot be true with. ``direct`` says that they are about the same slot. ``close_at`` is
    the time at which closing the loser's validity ends a direct contradiction; None where closing would lose something
    (the winner ends before the loser does), where no dates are known, and for indirect contradictions.
    """

    statement: Statement
    against: tuple[Statement, ...]
    direct: bool
    close_at: datetime | None
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class ConsistencyReport:
    """Whether the statements of one component can all be true.

    ``edges`` are the statements and ``h``, shape (len(edges),), the part of the disagreement that falls on each: the largest
    |h_e| over all times at which it holds, in the units of the first statement. ``suggested`` is empty iff ``consistent``.
    """

    h: Floats
    edges: tuple[Statement, ...]
    suggested: tuple[Suggestion, ...]

    @property
    def consistent(self) -> bool:
        """Whether nothing contradicts."""
        return not self.suggested

    @property
    def blamed(self) -> tuple[Statement, ...]:
        """The statements by the disagreement that falls on them, largest first; ties in the order of ``edges``."""
        return tuple(self.edges[i] for i in np.argsort(-np.round(self.h, 9), kind="stable"))


# --- the coboundary ---

Coordinate = tuple[str, str, float]
"""("#", dimension, 0) for a quantity, ("=", text, 0) for a text value, ("≠", dimension, number) for a denied number."""


class _Frame:
    """What the statements of one component share: the unit of each dimension, and what a number without a unit means."""

    def __init__(self, readings: Iterable[Reading]) -> None:
        units = {(r.dimension, r.factor): None for r in readings if r.dimension is not None and r.number is not None}
        # A bare number takes the only unit in use; between several units it could mean any of them and is left alone.
        self._bare = next(iter(units)) if len(units) == 1 else (None, 1.0)
        self._factors: dict[str | None, float] = {None: 1.0}
        for dimension, factor in units:
            self._factors.setdefault(dimension, factor)

    def number(self, reading: Reading) -> tuple[str, float]:
        """(dimension, value in the component's unit of that dimension)."""
        dimension, factor = (reading.dimension, reading.factor) if reading.dimension is not None else self._bare
        return dimension or "", (reading.number or 0.0) * factor / self._factors[dimension]


@dataclass(frozen=True, slots=True, eq=False)
class Coboundary:
    """δ⁰ and the cochain c of statements that hold together, as rows that touch one vertex or two.

    Row i reads ``maps[i, 1]·x[ends[i, 1]] − maps[i, 0]·x[ends[i, 0]] = cochain[i]``; an assertion has ``ends[i, 0] = −1``.
    ``owner[i]`` is the index of the statement, ``size`` the number of unknowns. ``scale[i]`` is the largest value asserted on
    its coordinate (at least 1): what a relative tolerance refers to.
    """

    ends: npt.NDArray[np.intp]
    maps: Floats
    cochain: Floats
    owner: npt.NDArray[np.intp]
    scale: Floats
    size: int

    @property
    def matrix(self) -> Floats:
        """δ⁰ as a dense matrix, shape (rows, unknowns); dim H¹ is its number of rows less its rank."""
        dense = np.zeros((len(self.cochain), self.size))
        rows = np.arange(len(self.cochain))
        np.add.at(dense, (rows, self.ends[:, 1]), self.maps[:, 1])
        linked = self.ends[:, 0] >= 0
        np.add.at(dense, (rows[linked], self.ends[linked, 0]), -self.maps[linked, 0])
        return dense

    def residual(self) -> Floats:
        """h = c − δx* for the least-squares x*, shape (rows,); solved block by connected block."""
        h = np.zeros_like(self.cochain)
        for rows in self._blocks():
            unknowns, local = np.unique(self.ends[rows], return_inverse=True)
            anchored = int(unknowns[0] < 0)
            size = len(unknowns) - anchored
            if len(rows) < size + anchored:
                continue  # a tree with at most one known value: its statements can always be met
            block = Coboundary(
                local.reshape(-1, 2) - anchored,
                self.maps[rows],
                self.cochain[rows],
                self.owner[rows],
                self.scale[rows],
                size,
            )
            h[rows] = block._solve_dense() if size <= _DENSE else block._solve_sparse()
        return h

    def _blocks(self) -> list[npt.NDArray[np.intp]]:
        parent = list(range(self.size))

        def root(node: int) -> int:
            while parent[node] != node:
                parent[node] = parent[parent[node]]
                node = parent[node]
            return node

        for u, v in self.ends.tolist():
            if u >= 0:
                parent[root(u)] = root(v)
        rows: dict[int, list[int]] = defaultdict(list)
        for row, v in enumerate(self.ends[:, 1].tolist()):
            rows[root(v)].append(row)
        return [np.array(block, dtype=np.intp) for block in rows.values()]

    def _solve_dense(self) -> Floats:
        matrix = self.matrix
        solution = np.linalg.lstsq(matrix, self.cochain, rcond=None)[0]
        result: Floats = self.cochain - matrix @ solution
        return result

    def _solve_sparse(self) -> Floats:
        """Conjugate gradients on the normal equations (CGLS), with two products by δ⁰ an iteration."""
        (u, v), (fu, fv) = self.ends.T, self.maps.T
        linked = u >= 0
        fu = np.where(linked, fu, 0.0)
        u = np.where(linked, u, 0)

        def adjoint(y: Floats) -> Floats:
            back = np.bincount(v, fv * y, self.size) - np.bincount(u, fu * y, self.size)
            return back.astype(np.float64, copy=False)

        residual = self.cochain.copy()
        gradient = adjoint(residual)
        direction = gradient.copy()
        norm = float(gradient @ gradient)
        target = norm * 1e-26
        for _ in range(20 * self.size):
            if norm <= target:
                break
            image = fv * direction[v] - fu * direction[u]
            length = norm / float(image @ image)
            residual -= length * image
            gradient = adjoint(residual)
            previous, norm = norm, float(gradient @ gradient)
            direction = gradient + (norm / previous) * direction
        return residual


def coboundary(statements: Sequence[Statement]) -> Coboundary:
    """The sheaf of statements about one attribute that all hold at the same time (aliases may be among them).

    Raises InputError where the statements are about several attributes: each attribute is a sheaf of its own.
    """
    readings = [Reading.of(statement) for statement in statements]
    if len({r.attribute for r in readings} - {SAME_AS}) > 1:
        raise InputError("one coboundary takes the statements of one attribute")
    return _coboundary(readings, _Frame(readings))


def _coboundary(readings: Sequence[Reading], frame: _Frame) -> Coboundary:
    stalk = _stalk(readings, frame)
    unknowns: dict[tuple[str, Coordinate], int] = {}
    ends: list[tuple[int, int]] = []
    maps: list[tuple[float, float]] = []
    cochain: list[float] = []
    owner: list[int] = []
    coordinates: list[Coordinate] = []

    def unknown(entity: str, coordinate: Coordinate) -> int:
        return unknowns.setdefault((entity, coordinate), len(unknowns))

    for index, reading in enumerate(readings):
        if reading.other is None:
            said = _assertions(reading, frame, stalk)
        elif reading.number is None:
            said = dict.fromkeys(stalk, 0.0)
        else:
            dimension, number = frame.number(reading)
            said = {("#", dimension, 0.0): number}
        for coordinate, value in said.items():
            other = -1 if reading.other is None else unknown(reading.other, coordinate)
            ends.append((other, unknown(reading.entity, coordinate)))
            maps.append((reading.scale, 1.0))
            cochain.append(value)
            owner.append(index)
            coordinates.append(coordinate)
    largest: dict[Coordinate, float] = {}
    for coordinate, value in zip(coordinates, cochain, strict=True):
        largest[coordinate] = max(largest.get(coordinate, 1.0), abs(value))
    return Coboundary(
        np.array(ends, dtype=np.intp).reshape(-1, 2),
        np.array(maps, dtype=np.float64).reshape(-1, 2),
        np.array(cochain, dtype=np.float64),
        np.array(owner, dtype=np.intp),
        np.array([largest[coordinate] for coordinate in coordinates], dtype=np.float64),
        len(unknowns),
    )


def _stalk(readings: Iterable[Reading], frame: _Frame) -> tuple[Coordinate, ...]:
    """Every coordinate that some statement speaks of, in the order of first mention."""
    stalk: dict[Coordinate, None] = {}
    for reading in readings:
        if reading.number is not None:
            dimension, number = frame.number(reading)
            single = reading.other is not None or (reading.polarity and reading.functional)
            stalk.setdefault(("#", dimension, 0.0) if single else ("≠", dimension, number))
        elif reading.text is not None:
            stalk.setdefault(("=", reading.text, 0.0))
    return tuple(stalk)


def _assertions(reading: Reading, frame: _Frame, stalk: Iterable[Coordinate]) -> dict[Coordinate, float]:
    """What a value statement says of each coordinate of the stalk; it is silent on the others."""
    single = reading.polarity and reading.functional
    if reading.number is None:
        mine = ("=", reading.text or "", 0.0)
        return {c: float(c == mine) for c in stalk if c[0] == "="} if single else {mine: float(reading.polarity)}
    dimension, number = frame.number(reading)
    if not single:
        return {("≠", dimension, number): float(reading.polarity)}
    said: dict[Coordinate, float] = {("#", dimension, 0.0): number}
    for c in stalk:
        if c[0] == "≠" and c[1] == dimension:
            said[c] = float(math.isclose(c[2], number, rel_tol=1e-9, abs_tol=1e-9))
    return said


# --- the sheaf ---


class Sheaf:
    """Statements, indexed by slot, and what is inconsistent among them. Add them oldest first: where times tie, order decides.

    Two quantities agree when each statement may be off by ``tolerance``, relative to the largest value in its component.
    Adding costs one least-squares solve of the statement's component (the slots that relations and aliases connect to it) for
    each set of its statements that hold together.
    """

    def __init__(self, statements: Iterable[Statement] = (), *, tolerance: float = 1e-8) -> None:
        if not tolerance > 0:
            raise InputError("the tolerance must be positive")
        self.tolerance = tolerance
        self._statements: list[Statement] = []
        self._readings: list[Reading] = []
        self._at: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._attributes: dict[str, dict[str, None]] = defaultdict(dict)
        for statement in statements:
            self._insert(statement)

    @property
    def statements(self) -> tuple[Statement, ...]:
        """Every statement, in the order in which they came."""
        return tuple(self._statements)

    def add(self, statement: Statement) -> ConsistencyReport:
        """Keep a statement, and report on its component at the times at which it holds."""
        index = self._insert(statement)
        reading = self._readings[index]
        attributes = [reading.attribute]
        if reading.attribute == SAME_AS:
            group = self._reach(reading.entity, SAME_AS)[0]
            attributes = list(dict.fromkeys(name for entity in group for name in self._attributes[entity]))
        components = [self._reach(reading.entity, attribute)[1] for attribute in attributes]
        return self._report([component for component in components if index in component], within=index)

    def check(self) -> tuple[ConsistencyReport, ...]:
        """One report for each component that is not consistent, in the order of its first statement."""
        reports: list[ConsistencyReport] = []
        seen: set[tuple[str, str]] = set()
        for reading in self._readings:
            if reading.attribute == SAME_AS or (reading.entity, reading.attribute) in seen:
                continue
            entities, component = self._reach(reading.entity, reading.attribute)
            seen.update((entity, reading.attribute) for entity in entities)
            report = self._report([component])
            if not report.consistent:
                reports.append(report)
        return tuple(reports)

    def _insert(self, statement: Statement) -> int:
        reading = Reading.of(statement)
        index = len(self._statements)
        self._statements.append(statement)
        self._readings.append(reading)
        for entity in {reading.entity, reading.other or reading.entity}:
            self._at[entity, reading.attribute].append(index)
            if reading.attribute != SAME_AS:
                self._attributes[entity][reading.attribute] = None
        return index

    def _reach(self, entity: str, attribute: str) -> tuple[list[str], list[int]]:
        """The entities that relations and aliases connect to this one for an attribute, and the statements on the way."""
        entities, found = [entity], {entity}
        statements: set[int] = set()
        for current in entities:
            for index in (*self._at.get((current, attribute), ()), *self._at.get((current, SAME_AS), ())):
                statements.add(index)
                reading = self._readings[index]
                for neighbour in (reading.entity, reading.other):
                    if neighbour is not None and neighbour not in found:
                        found.add(neighbour)
                        entities.append(neighbour)
        return entities, sorted(statements)

    def _report(self, components: Sequence[Sequence[int]], within: int | None = None) -> ConsistencyReport:
        total: dict[int, float] = {}
        suggested: list[Suggestion] = []
        for component in components:
            frame = _Frame(self._readings[i] for i in component)
            spans = {i: (self._statements[i].start, self._statements[i].end) for i in component}
            if within is not None:
                start, end = spans[within]
                spans = {i: (s, e) for i, (s, e) in spans.items() if max(s, start) < min(e, end)}
            worst = dict.fromkeys(spans, 0.0)
            contradiction = False
            for together in _together(spans):
                if within is None or within in together:
                    h, excess = self._disagreement(together, frame)
                    contradiction |= bool(excess)
                    for index, part in h.items():
                        worst[index] = max(worst[index], part)
            if contradiction:
                suggested += self._resolve(spans, frame, within)
            # An alias lies in the component of every attribute that it connects.
            for index, part in worst.items():
                total[index] = math.hypot(total.get(index, 0.0), part)
        edges = sorted(total)
        return ConsistencyReport(
            np.array([total[i] for i in edges], dtype=np.float64),
            tuple(self._statements[i] for i in edges),
            tuple(suggested),
        )

    def _disagreement(self, together: Sequence[int], frame: _Frame) -> tuple[dict[int, float], list[int]]:
        """|h_e| of statements that hold at the same time, and those of them for which it exceeds the tolerance."""
        delta = _coboundary([self._readings[i] for i in together], frame)
        rows = delta.residual()
        h = np.sqrt(np.bincount(delta.owner, rows**2, len(together)))
        excess = np.unique(delta.owner[np.abs(rows) > self.tolerance * delta.scale])
        return dict(zip(together, h.tolist(), strict=True)), [together[i] for i in excess]

    def _resolve(self, spans: Mapping[int, _Span], frame: _Frame, within: int | None) -> Iterator[Suggestion]:
        """Validity has already been respected; then trust decides, then recency. Same-slot contradictions come first."""
        open_spans = dict(spans)
        yield from self._direct(open_spans, frame)
        for together in _together(open_spans):
            if within is not None and within not in together:
                continue
            standing = [i for i in together if i in open_spans]
            h, excess = self._disagreement(standing, frame)
            while excess:
                loser = min(
                    excess, key=lambda i: (self._statements[i].trust, -round(h[i] / max(h.values()), 6), self._age(i))
                )
                others = tuple(self._statements[i] for i in excess if i != loser)
                reason = (
                    f"these statements cannot all be true; of those least trusted ({self._statements[loser].trust:g}) it carries "
                    f"the most disagreement ({h[loser]:.4g}), or is the oldest of equals"
                )
                yield Suggestion(self._statements[loser], others, False, None, reason)
                del open_spans[loser]
                standing.remove(loser)
                h, excess = self._disagreement(standing, frame)

    def _direct(self, open_spans: dict[int, _Span], frame: _Frame) -> Iterator[Suggestion]:
        """Settles contradictions within one slot; shortens the losers' spans, or drops them where that cannot settle it."""
        slots: dict[str, list[int]] = defaultdict(list)
        for index in open_spans:
            if self._readings[index].other is None:
                slots[self._readings[index].entity].append(index)
        for slot in slots.values():
            kept: list[int] = []
            for loser in sorted(slot, key=lambda i: (self._statements[i].trust, self._age(i)), reverse=True):
                start, end = open_spans[loser]
                winners: list[int] = []
                enclosed = False
                for winner in kept:
                    begins, ends = open_spans[winner]
                    if max(start, begins) < min(end, ends) and self._disagree(loser, winner, frame):
                        winners.append(winner)
                        enclosed |= ends < end
                        end = max(start, begins)
                if not winners:
                    kept.append(loser)
                    continue
                statement, best = self._statements[loser], self._statements[winners[0]]
                # Closing a statement that outlives its winner would take away the time after it: that is for a person.
                settled = not enclosed and end > BEGINNING
                if settled:
                    open_spans[loser] = (start, end)
                    kept.append(loser)
                else:
                    del open_spans[loser]
                why = (
                    f"its trust {statement.trust:g} is below {best.trust:g}"
                    if statement.trust < best.trust
                    else "it is the older"
                )
                against = tuple(self._statements[i] for i in winners)
                yield Suggestion(statement, against, True, end if settled else None, why)

    def _age(self, index: int) -> tuple[datetime, datetime, int]:
        statement = self._statements[index]
        return statement.recorded_at or BEGINNING, statement.start, index

    def _disagree(self, a: int, b: int, frame: _Frame) -> bool:
        pair = [self._readings[a], self._readings[b]]
        stalk = _stalk(pair, frame)
        left, right = (_assertions(reading, frame, stalk) for reading in pair)
        return any(
            # Both may be off by the tolerance, as in the residual, which halves the gap between two assertions.
            abs(left[c] - right[c]) > 2.0 * self.tolerance * max(1.0, abs(left[c]), abs(right[c]))
            for c in left.keys() & right.keys()
        )


_Span = tuple[datetime, datetime]


def _together(spans: Mapping[int, _Span]) -> Iterator[list[int]]:
    """The largest sets of statements that hold at one time: just before an end that follows a start."""
    events = [
        event
        for index, (start, end) in spans.items()
        if start < end
        for event in ((start, True, index), (end, False, index))
    ]
    active: set[int] = set()
    grew = False
    for _, begins, index in sorted(events):
        if begins:
            active.add(index)
        else:
            if grew:
                yield sorted(active)
            active.remove(index)
        grew = begins
