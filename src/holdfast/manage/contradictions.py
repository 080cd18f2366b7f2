"""Contradictions as cohomology: a sheaf over claims (after SuperLocalMemory V3, arXiv 2603.14588 §5, on claims, not vectors).

Vertices are slots, (entity, attribute); the stalk over a slot is a real line for a quantity and one coordinate a value for
a text. Every claim is an edge: an assertion ties its slot to a known value, a relation says that two slots differ by c
("Ana is two years older than Bo"), an alias that two entities agree in everything. With F_u, F_v the restriction maps,

    (δx)_e = F_v x_v − F_u x_u,    h = c − δx*,    x* = argmin |δx − c|²,

the claims can all be true together iff h = 0, that is iff c lies in the image of δ. |h_e| says how much of the disagreement
falls on each claim. This finds contradictions that no pair of claims shows: around a cycle, or through an alias or an
intermediate entity. A non-zero dim H¹ alone never means a contradiction: it only says that one is possible.

Claims that hold at different times do not contradict each other: h is computed for each set of claims that hold together.
"""

from __future__ import annotations

import math
import re
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from holdfast.cube import RECALLABLE, Cube, Form, Kind, Ref, Scope, Status, from_micros, utc
from holdfast.encode.slots import plain, speaker
from holdfast.errors import InputError
from holdfast.store.base import Operation, Store, Where
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    evolution=(Evolution.UPDATE_EXTERNAL,),
    subject=(Subject.USER, Subject.WORLD),
)

Floats = npt.NDArray[np.float64]

SAME_AS = "same as"
"""The attribute of an alias: ``Claim("Bob", SAME_AS, "Robert")``."""

_BEGINNING = datetime.min.replace(tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)
_DENSE = 400

_NUMBER = re.compile(r"([-+]?(?:0|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d*)(?:\.\d+)?)\s*([^\W\d]+)?")
_SCALES: Mapping[str, Mapping[float, str]] = {
    "length": {
        0.001: "mm millimetre millimeter",
        0.01: "cm centimetre centimeter",
        1.0: "m metre meter",
        1000.0: "km kilometre kilometer",
        0.0254: "inch inche",
        0.3048: "ft foot feet",
        1609.344: "mile",
    },
    "mass": {0.001: "g gram gramme", 1.0: "kg kilo kilogram kilogramme", 0.45359237: "lb", 1000.0: "tonne"},
    "time": {
        1.0: "s sec second",
        60.0: "min minute",
        3600.0: "h hr hour",
        86_400.0: "day",
        604_800.0: "week",
        2_629_746.0: "month",
        31_556_952.0: "yr year",
    },
}
_UNITS = {
    name: (dimension, factor)
    for dimension, scale in _SCALES.items()
    for factor, names in scale.items()
    for name in names.split()
}


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement that can be true or false, and who stands behind it.

    Fields
        entity, attribute: the slot; case, spacing, outer punctuation and leading articles do not matter.
        value, unit: what is asserted. A number, or a text that is one ("30", "180 cm"), is a quantity; other texts are
            values. With ``other`` it is the offset of a relation, and None means "the same".
        valid_from, valid_to: when it holds (the end is exclusive). Without a start it holds from when it was recorded.
        polarity: False for a denial ("does not live in Paris"). Relations and aliases cannot be denied.
        trust, recorded_at: what decides between claims that cannot both be true.
        functional: whether the slot has one value at a time. Left None, quantities do and texts do not ("likes" may have
            many values; two of them are no contradiction).
        other, scale: a relation: entity's attribute = scale · other's attribute + value.

    Raises InputError for empty names, values that are not finite, and relations that cannot be expressed.
    """

    entity: str
    attribute: str
    value: str | float | None = None
    unit: str | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    polarity: bool = True
    trust: float = 1.0
    ref: Ref | None = None
    recorded_at: datetime | None = None
    functional: bool | None = None
    other: str | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not plain(self.entity) or not plain(self.attribute):
            raise InputError("a claim needs an entity and an attribute")
        linked = self.other is not None or plain(self.attribute) == SAME_AS
        if linked and not self.polarity:
            raise InputError("a relation or an alias cannot be denied; claim the values that differ instead")
        if self.other is None:
            if self.value is None or (isinstance(self.value, str) and not plain(self.value)):
                raise InputError("a claim needs a value, or other= for a relation")
            if plain(self.attribute) == SAME_AS and not isinstance(self.value, str):
                raise InputError("an alias needs the other entity's name as its value")
        elif not plain(self.other) or isinstance(self.value, str):
            raise InputError("a relation needs the other entity's name and a number (or None) as its value")
        numbers = [self.scale] + ([] if self.value is None or isinstance(self.value, str) else [self.value])
        if not all(math.isfinite(number) for number in numbers) or self.scale == 0:
            raise InputError("a claim's numbers must be finite, and its scale must not be zero")
        if self.valid_from and self.valid_to and self.valid_to < self.valid_from:
            raise InputError(f"a claim cannot end ({self.valid_to}) before it begins ({self.valid_from})")

    @property
    def start(self) -> datetime:
        """From when it holds: its own start, else when it was recorded, else always."""
        return self.valid_from or self.recorded_at or _BEGINNING

    @property
    def end(self) -> datetime:
        """Until when it holds, exclusive."""
        return self.valid_to or _END

    @property
    def content(self) -> tuple[object, ...]:
        """What is said, whoever says it and whenever: equal for claims that differ only in spelling or unit."""
        reading = _read(self)
        number = None if reading.number is None else float(f"{reading.number * reading.factor:.12g}")
        said = reading.text if number is None else number
        return reading.entity, reading.attribute, reading.other, said, reading.dimension, reading.scale, self.polarity


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Which of the contradicting claims should yield, and why. It is a suggestion: nothing is changed.

    ``against`` are the claims it cannot be true with. ``direct`` says that they are about the same slot. ``close_at`` is
    the time at which closing the loser's validity ends a direct contradiction; None where closing would lose something
    (the winner ends before the loser does), where no dates are known, and for indirect contradictions.
    """

    claim: Claim
    against: tuple[Claim, ...]
    direct: bool
    close_at: datetime | None
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class ConsistencyReport:
    """Whether the claims of one component can all be true.

    ``edges`` are the claims and ``h``, shape (len(edges),), the part of the disagreement that falls on each: the largest
    |h_e| over all times at which it holds, in the units of the first claim. ``suggested`` is empty iff ``consistent``.
    """

    h: Floats
    edges: tuple[Claim, ...]
    suggested: tuple[Suggestion, ...]

    @property
    def consistent(self) -> bool:
        """Whether nothing contradicts."""
        return not self.suggested

    @property
    def blamed(self) -> tuple[Claim, ...]:
        """The claims by the disagreement that falls on them, largest first; ties in the order of ``edges``."""
        return tuple(self.edges[i] for i in np.argsort(-np.round(self.h, 9), kind="stable"))


# --- reading a claim ---

Coordinate = tuple[str, str, float]
"""("#", dimension, 0) for a quantity, ("=", text, 0) for a text value, ("≠", dimension, number) for a denied number."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """A claim with its names folded, its value parsed and its unit resolved. ``number`` and ``text`` exclude each other."""

    entity: str
    attribute: str
    other: str | None
    text: str | None
    number: float | None
    dimension: str | None
    factor: float
    functional: bool
    polarity: bool
    scale: float


def _read(claim: Claim) -> _Reading:
    attribute, value, unit = plain(claim.attribute), claim.value, claim.unit
    other = None if claim.other is None else plain(claim.other)
    text: str | None = None
    number: float | None = None
    if attribute == SAME_AS:
        other = plain(claim.other or str(value))
    elif isinstance(value, str):
        match = _NUMBER.fullmatch(value.strip())
        # "180 cm" is a quantity, "12 angry men" is not; a unit given twice is left as it stands.
        if match and not (match[2] and unit):
            number, unit = float(match[1].replace(",", "")), match[2] or unit
        else:
            text = plain(value)
    elif value is not None or claim.scale != 1.0:
        number = float(value or 0.0)
    dimension, factor = _unit(unit)
    functional = claim.functional if claim.functional is not None else number is not None
    return _Reading(
        plain(claim.entity),
        attribute,
        other,
        text,
        number,
        dimension,
        factor,
        functional,
        claim.polarity,
        claim.scale,
    )


def _unit(unit: str | None) -> tuple[str | None, float]:
    if unit is None or not plain(unit):
        return None, 1.0
    name = plain(unit)
    singular = name[:-1] if len(name) > 2 and name.endswith("s") else name
    return _UNITS.get(name) or _UNITS.get(singular) or (singular, 1.0)


class _Frame:
    """What the claims of one component share: the unit of each dimension, and what a number without a unit means."""

    def __init__(self, readings: Iterable[_Reading]) -> None:
        units = {(r.dimension, r.factor): None for r in readings if r.dimension is not None and r.number is not None}
        # A bare number takes the only unit in use; between several units it could mean any of them and is left alone.
        self._bare = next(iter(units)) if len(units) == 1 else (None, 1.0)
        self._factors: dict[str | None, float] = {None: 1.0}
        for dimension, factor in units:
            self._factors.setdefault(dimension, factor)

    def number(self, reading: _Reading) -> tuple[str, float]:
        """(dimension, value in the component's unit of that dimension)."""
        dimension, factor = (reading.dimension, reading.factor) if reading.dimension is not None else self._bare
        return dimension or "", (reading.number or 0.0) * factor / self._factors[dimension]


# --- the coboundary ---


@dataclass(frozen=True, slots=True, eq=False)
class Coboundary:
    """δ⁰ and the cochain c of claims that hold together, as rows that touch one vertex or two.

    Row i reads ``maps[i, 1]·x[ends[i, 1]] − maps[i, 0]·x[ends[i, 0]] = cochain[i]``; an assertion has ``ends[i, 0] = −1``.
    ``owner[i]`` is the index of the claim, ``size`` the number of unknowns. ``scale[i]`` is the largest value asserted on
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
                continue  # a tree with at most one known value: its claims can always be met
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


def coboundary(claims: Sequence[Claim]) -> Coboundary:
    """The sheaf of claims about one attribute that all hold at the same time (aliases may be among them).

    Raises InputError where the claims are about several attributes: each attribute is a sheaf of its own.
    """
    readings = [_read(claim) for claim in claims]
    if len({r.attribute for r in readings} - {SAME_AS}) > 1:
        raise InputError("one coboundary takes the claims of one attribute")
    return _coboundary(readings, _Frame(readings))


def _coboundary(readings: Sequence[_Reading], frame: _Frame) -> Coboundary:
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


def _stalk(readings: Iterable[_Reading], frame: _Frame) -> tuple[Coordinate, ...]:
    """Every coordinate that some claim speaks of, in the order of first mention."""
    stalk: dict[Coordinate, None] = {}
    for reading in readings:
        if reading.number is not None:
            dimension, number = frame.number(reading)
            single = reading.other is not None or (reading.polarity and reading.functional)
            stalk.setdefault(("#", dimension, 0.0) if single else ("≠", dimension, number))
        elif reading.text is not None:
            stalk.setdefault(("=", reading.text, 0.0))
    return tuple(stalk)


def _assertions(reading: _Reading, frame: _Frame, stalk: Iterable[Coordinate]) -> dict[Coordinate, float]:
    """What a value claim says of each coordinate of the stalk; it is silent on the others."""
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


class ClaimSheaf:
    """Claims, indexed by slot, and what is inconsistent among them. Add them oldest first: where times tie, order decides.

    Two quantities agree when each claim may be off by ``tolerance``, relative to the largest value in its component.
    Adding costs one least-squares solve of the claim's component (the slots that relations and aliases connect to it) for
    each set of its claims that hold together.
    """

    def __init__(self, claims: Iterable[Claim] = (), *, tolerance: float = 1e-8) -> None:
        if not tolerance > 0:
            raise InputError("the tolerance must be positive")
        self.tolerance = tolerance
        self._claims: list[Claim] = []
        self._readings: list[_Reading] = []
        self._at: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._attributes: dict[str, dict[str, None]] = defaultdict(dict)
        for claim in claims:
            self._insert(claim)

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Every claim, in the order in which they came."""
        return tuple(self._claims)

    def add(self, claim: Claim) -> ConsistencyReport:
        """Keep a claim, and report on its component at the times at which it holds."""
        index = self._insert(claim)
        reading = self._readings[index]
        attributes = [reading.attribute]
        if reading.attribute == SAME_AS:
            group = self._reach(reading.entity, SAME_AS)[0]
            attributes = list(dict.fromkeys(name for entity in group for name in self._attributes[entity]))
        components = [self._reach(reading.entity, attribute)[1] for attribute in attributes]
        return self._report([component for component in components if index in component], within=index)

    def check(self) -> tuple[ConsistencyReport, ...]:
        """One report for each component that is not consistent, in the order of its first claim."""
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

    def _insert(self, claim: Claim) -> int:
        reading = _read(claim)
        index = len(self._claims)
        self._claims.append(claim)
        self._readings.append(reading)
        for entity in {reading.entity, reading.other or reading.entity}:
            self._at[entity, reading.attribute].append(index)
            if reading.attribute != SAME_AS:
                self._attributes[entity][reading.attribute] = None
        return index

    def _reach(self, entity: str, attribute: str) -> tuple[list[str], list[int]]:
        """The entities that relations and aliases connect to this one for an attribute, and the claims on the way."""
        entities, found = [entity], {entity}
        claims: set[int] = set()
        for current in entities:
            for index in (*self._at.get((current, attribute), ()), *self._at.get((current, SAME_AS), ())):
                claims.add(index)
                reading = self._readings[index]
                for neighbour in (reading.entity, reading.other):
                    if neighbour is not None and neighbour not in found:
                        found.add(neighbour)
                        entities.append(neighbour)
        return entities, sorted(claims)

    def _report(self, components: Sequence[Sequence[int]], within: int | None = None) -> ConsistencyReport:
        total: dict[int, float] = {}
        suggested: list[Suggestion] = []
        for component in components:
            frame = _Frame(self._readings[i] for i in component)
            spans = {i: (self._claims[i].start, self._claims[i].end) for i in component}
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
            tuple(self._claims[i] for i in edges),
            tuple(suggested),
        )

    def _disagreement(self, together: Sequence[int], frame: _Frame) -> tuple[dict[int, float], list[int]]:
        """|h_e| of claims that hold at the same time, and those of them for which it exceeds the tolerance."""
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
                    excess, key=lambda i: (self._claims[i].trust, -round(h[i] / max(h.values()), 6), self._age(i))
                )
                others = tuple(self._claims[i] for i in excess if i != loser)
                reason = (
                    f"these claims cannot all be true; of those least trusted ({self._claims[loser].trust:g}) it carries "
                    f"the most disagreement ({h[loser]:.4g}), or is the oldest of equals"
                )
                yield Suggestion(self._claims[loser], others, False, None, reason)
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
            for loser in sorted(slot, key=lambda i: (self._claims[i].trust, self._age(i)), reverse=True):
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
                claim, best = self._claims[loser], self._claims[winners[0]]
                # Closing a claim that outlives its winner would take away the time after it: that is for a person.
                settled = not enclosed and end > _BEGINNING
                if settled:
                    open_spans[loser] = (start, end)
                    kept.append(loser)
                else:
                    del open_spans[loser]
                why = (
                    f"its trust {claim.trust:g} is below {best.trust:g}"
                    if claim.trust < best.trust
                    else "it is the older"
                )
                against = tuple(self._claims[i] for i in winners)
                yield Suggestion(claim, against, True, end if settled else None, why)

    def _age(self, index: int) -> tuple[datetime, datetime, int]:
        claim = self._claims[index]
        return claim.recorded_at or _BEGINNING, claim.start, index

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
    """The largest sets of claims that hold at one time: just before an end that follows a start."""
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


# --- the manager ---


def claim_of(cube: Cube, now: datetime) -> Claim | None:
    """The claim that a cube's data states, or None where it states none that can be compared.

    Reads ``subject``, ``attribute``, ``value`` (or ``canonical``, the value as it is compared) and, where present,
    ``unit``, ``polarity`` (False or "negative" for a denial) and ``functional``.
    """
    data = cube.data
    entity, attribute, unit = (data.get(name) for name in ("subject", "attribute", "unit"))
    value = data.get("canonical", data.get("value"))
    if isinstance(value, bool):
        value = str(value)
    if not (isinstance(entity, str) and isinstance(attribute, str) and isinstance(value, str | int | float)):
        return None
    functional = data.get("functional")
    try:
        return Claim(
            entity,
            attribute,
            value,
            unit if isinstance(unit, str) else None,
            cube.valid_from,
            cube.valid_to,
            data.get("polarity", True) not in (False, "negative"),
            cube.origin.trust,
            cube.ref,
            learnt_at(cube, now),
            functional if isinstance(functional, bool) else None,
        )
    except InputError:
        # Data is whatever an encoder or a user put there; what is no claim cannot contradict one.
        return None


def learnt_at(cube: Cube, now: datetime) -> datetime:
    """When a memory was first learnt: ``said_at`` in its data, else when its first version was recorded, else ``now``.

    ``recorded_at`` is that of the version, and an old fact is not newer for having been touched; so later versions go back
    to the time in the id where it is a UUIDv7.
    """
    with suppress(KeyError, InputError):  # data is whatever an encoder or a user put there, so it may not say
        return utc(cube.data["said_at"])
    recorded = cube.recorded_at or now
    id = uuid.UUID(cube.id)
    return recorded if cube.version == 1 or id.version != 7 else min(recorded, from_micros((id.int >> 80) * 1000))


class Contradictions:
    """Proposes to close the validity of a fact that a more trusted or newer fact about the same slot contradicts.

    Both stay: the loser keeps its text and its past, and only its ``valid_to`` is set. Contradictions between slots
    (around a cycle, through an alias) are for ``ClaimSheaf.check`` to report: which claim is wrong is not certain there.
    Frozen facts are never changed, and nobody's fact is closed on the word of a third person: the winner must come from
    the same speaker, from the one it is about, or from a source of more trust.
    """

    def __init__(self, *, tolerance: float = 1e-8) -> None:
        self.tolerance = tolerance

    def sheaf(self, store: Store, scope: Scope, now: datetime) -> ClaimSheaf:
        """The sheaf of every recallable fact in the scope that states a claim."""
        return ClaimSheaf((claim for _, claim in _facts(store, scope, now)), tolerance=self.tolerance)

    def manage(self, store: Store, scope: Scope, now: datetime) -> list[Operation]:
        """One update for each fact to be closed. The reason names the winner and quotes nothing of it."""
        facts = list(_facts(store, scope, now))
        cubes = {cube.ref: cube for cube, _ in facts}
        operations = []
        for report in ClaimSheaf((claim for _, claim in facts), tolerance=self.tolerance).check():
            for suggestion in report.suggested:
                loser, winner = suggestion.claim, suggestion.against[0]
                # Every claim here was read from a cube, so its ref is known.
                if suggestion.close_at is None or loser.ref is None or winner.ref is None:
                    continue
                cube = cubes[loser.ref]
                if cube.status is not Status.FROZEN and _may_close(cube, cubes[winner.ref]):
                    reason = (
                        f"contradicted by {winner.ref.id} version {winner.ref.version}; {suggestion.reason}: "
                        f"holds until {suggestion.close_at.isoformat()}"
                    )
                    operations.append(Operation.update(cube.with_(valid_to=suggestion.close_at), reason))
        return operations


def _may_close(loser: Cube, winner: Cube) -> bool:
    says, said = plain(speaker(winner)), plain(speaker(loser))
    return winner.origin.trust > loser.origin.trust or says in (said, plain(str(loser.data["subject"])).split("'s ")[0])


def _facts(store: Store, scope: Scope, now: datetime) -> Iterator[tuple[Cube, Claim]]:
    for cube in store.select(scope, Where(kinds=(Kind.FACT,), statuses=tuple(sorted(RECALLABLE)))):
        claim = claim_of(cube, now)
        if claim is not None:
            yield cube, claim
