"""Radial Langevin lifecycle with a confining potential (after SuperLocalMemory V3, arXiv 2603.14588 §4, corrected).

A memory is a particle in the Poincaré ball of dimension d; its radius r says how far it has drifted out of mind. The
paper's potential U = α|x|² is bounded on the ball while hyperbolic volume is infinite, so its stationary law does not exist
and every memory ends at the rim. Here U = αρ², with ρ = 2 artanh r the geodesic radius, so that the radial equation

    dρ = [−2αρ + T (d − 1) coth ρ] dt + √(2T) dW

has the unique stationary law p(ρ) ∝ exp(−αρ²/T) sinh^{d−1} ρ. Use, utility, certainty and freshness raise α and hold the
memory near the centre. By default a memory sits at the median of its law: no noise, the same answer every time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from holdfast.cube import Cube, Form, Kind, Scope, Status
from holdfast.errors import InputError
from holdfast.store.base import Operation, Store, Where
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    evolution=(Evolution.FORGET_BY_TIME, Evolution.FORGET_BY_FREQUENCY, Evolution.FORGET_BY_IMPORTANCE),
    subject=(Subject.USER, Subject.WORLD),
)

Floats = npt.NDArray[np.float64]

DIMENSION = 8
TEMPERATURE = 0.3
ALPHA_RANGE = (0.3, 6.0)

_KEPT_KINDS = frozenset({Kind.INSTRUCTION, Kind.PREFERENCE})
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_CELLS = 256
_TABLE_SIZE = 513


class Zone(StrEnum):
    """How present a memory is, by its radius: below .3, .55, .8, and beyond."""

    ACTIVE = "active"
    WARM = "warm"
    COLD = "cold"
    ARCHIVED = "archived"


ZONE_EDGES = (0.3, 0.55, 0.8)
"""Radii at which a memory passes to the next zone."""


def zone_of(radius: float) -> Zone:
    """The zone of a radius in [0, 1). Raises InputError outside it (a NaN must not look like an old memory)."""
    if not 0.0 <= radius < 1.0:
        raise InputError(f"a radius lies in [0, 1), not {radius}")
    return list(Zone)[sum(radius >= edge for edge in ZONE_EDGES)]


# --- the stationary law ---


@dataclass(frozen=True, slots=True)
class RadialLaw:
    """The stationary law p(ρ) ∝ exp(−αρ²/T) sinh^{d−1} ρ of the geodesic radius, by numeric integration.

    Gauss–Legendre cells over the whole mass; distribution function and quantiles are good to about 1e-12. Raises InputError
    unless α and T are positive and d ≥ 1.
    """

    alpha: float
    temperature: float = TEMPERATURE
    dimension: int = DIMENSION
    _edges: Floats = field(init=False, repr=False, compare=False)
    _cumulative: Floats = field(init=False, repr=False, compare=False)
    _peak: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (0 < self.alpha < math.inf and 0 < self.temperature < math.inf and self.dimension >= 1):
            raise InputError("a radial law needs alpha > 0, temperature > 0 and dimension >= 1")
        # The log density is concave. Its slope is at most (d−1)(1 + 1/ρ) − 2αρ/T, whose root bounds the mode, and its
        # curvature is at least that of a Gaussian of variance T/2α: twelve such deviations hold all the mass.
        a, b = 2.0 * self.alpha / self.temperature, self.dimension - 1.0
        mode = (b + math.sqrt(b * b + 4.0 * a * b)) / (2.0 * a)
        reach = 12.0 / math.sqrt(a)
        edges = np.linspace(max(0.0, self._lowest(a, b) - reach), mode + reach, _CELLS + 1)
        middle, half = (edges[1:] + edges[:-1]) / 2.0, (edges[1:] - edges[:-1]) / 2.0
        logs = self._log_density(middle[:, None] + half[:, None] * _NODES)
        peak = float(logs.max())
        masses = (np.exp(logs - peak) * _WEIGHTS).sum(axis=1) * half
        cumulative = np.concatenate([[0.0], np.cumsum(masses)])
        object.__setattr__(self, "_edges", edges)
        object.__setattr__(self, "_cumulative", cumulative)
        object.__setattr__(self, "_peak", peak)

    @staticmethod
    def _lowest(a: float, b: float) -> float:
        # The slope is at least (d−1)·max(1, 1/ρ) − 2αρ/T, so the mode lies above both roots.
        return max(b / a, math.sqrt(b / a))

    def _log_density(self, rho: Floats) -> Floats:
        power = self.dimension - 1
        core: Floats = -self.alpha * rho**2 / self.temperature
        if power:
            # log sinh ρ = ρ + log((1 − e^{−2ρ}) / 2), finite where sinh itself overflows.
            core = core + power * (rho + np.log(-np.expm1(-2.0 * rho) / 2.0))
        return core

    def density(self, rho: npt.ArrayLike) -> Floats:
        """p(ρ), normalised, for ρ > 0."""
        logs = self._log_density(np.asarray(rho, dtype=np.float64))
        result: Floats = np.exp(logs - self._peak) / self._cumulative[-1]
        return result

    def cdf(self, rho: npt.ArrayLike) -> Floats:
        """P(radius ≤ ρ)."""
        where = np.clip(np.asarray(rho, dtype=np.float64), self._edges[0], self._edges[-1])
        cell = np.clip(np.searchsorted(self._edges, where, side="right") - 1, 0, _CELLS - 1)
        start = self._edges[cell]
        half = (where - start) / 2.0
        logs = self._log_density(np.maximum((start + half)[..., None] + half[..., None] * _NODES, np.finfo(float).tiny))
        part = (np.exp(logs - self._peak) * _WEIGHTS).sum(axis=-1) * half
        result: Floats = (self._cumulative[cell] + part) / self._cumulative[-1]
        return result

    def quantile(self, probability: npt.ArrayLike) -> Floats:
        """The geodesic radius ρ below which that share of the law lies (to rounding)."""
        share = np.asarray(probability, dtype=np.float64)
        if not ((share >= 0) & (share <= 1)).all():
            raise InputError("a probability lies between 0 and 1")
        cell = np.clip(np.searchsorted(self._cumulative / self._cumulative[-1], share) - 1, 0, _CELLS - 1)
        low, high = self._edges[cell], self._edges[cell + 1]
        for _ in range(6):
            middle = (low + high) / 2.0
            below = self.cdf(middle) < share
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        # The law is all but linear over a 64th of a cell: three Newton steps reach rounding.
        rho: Floats = (low + high) / 2.0
        for _ in range(3):
            density = self.density(rho)
            step = np.divide(share - self.cdf(rho), density, out=np.zeros_like(density), where=density > 0)
            rho = np.clip(rho + step, low, high)
        return rho

    @property
    def median_radius(self) -> float:
        """The median in the ball, r = tanh(ρ/2)."""
        return math.tanh(float(self.quantile(0.5)) / 2.0)

    def occupancy(self) -> dict[Zone, float]:
        """The share of time that the particle spends in each zone."""
        edges = self.cdf(2.0 * np.arctanh(np.array(ZONE_EDGES)))
        shares = np.diff(np.concatenate([[0.0], edges, [1.0]]))
        return {zone: float(share) for zone, share in zip(Zone, shares, strict=True)}


@lru_cache(maxsize=8)
def _median_table(temperature: float, dimension: int) -> tuple[Floats, Floats]:
    alphas = np.geomspace(*ALPHA_RANGE, _TABLE_SIZE)
    return np.log(alphas), np.array([RadialLaw(float(a), temperature, dimension).median_radius for a in alphas])


def median_radius(alpha: float, temperature: float = TEMPERATURE, dimension: int = DIMENSION) -> float:
    """The deterministic radius of a memory held with strength ``alpha``, clipped to ``ALPHA_RANGE``.

    Interpolated in log α from a table that is integrated once per (temperature, dimension); within 2e-6 of
    ``RadialLaw(alpha).median_radius``.
    """
    logs, radii = _median_table(temperature, dimension)
    return float(np.interp(math.log(min(max(alpha, ALPHA_RANGE[0]), ALPHA_RANGE[1])), logs, radii))


def simulate(
    alpha: float,
    *,
    seed: int,
    particles: int = 10_000,
    relaxations: float = 4.0,
    steps: int = 1000,
    temperature: float = TEMPERATURE,
    dimension: int = DIMENSION,
) -> Floats:
    """Geodesic radii of independent particles after a while, started at the centre: a check on the law, seeded.

    The time is given in relaxation times 1/α (a start is forgotten as e^{−2αt}), cut into equal ``steps``. Each step is
    split: the pull −2αρ exactly, then one step of a hyperbolic random walk, of which only the radius is kept (the law of
    cosines), so that coth ρ is never evaluated near its pole. Shape (particles,).
    """
    if not (particles > 0 and relaxations > 0 and steps > 0 and alpha > 0 and temperature > 0 and dimension >= 1):
        raise InputError("a simulation needs positive alpha, temperature, dimension, particles, relaxations and steps")
    rng = np.random.default_rng(seed)
    rho = np.zeros(particles)
    time = relaxations / (alpha * steps)
    shrink = math.exp(-alpha * time)
    variance = 2.0 * temperature * time
    for _ in range(steps):
        rho *= shrink
        along = math.sqrt(variance) * rng.standard_normal(particles)
        across = variance * rng.chisquare(dimension - 1, particles) if dimension > 1 else np.zeros(particles)
        length = np.sqrt(along**2 + across)
        cosine = np.divide(along, length, out=np.zeros(particles), where=length > 0)
        # cosh of the new radius, less one, written without cancellation for small radii.
        rise = 2.0 * np.sinh((rho - length) / 2.0) ** 2 + np.sinh(rho) * np.sinh(length) * (1.0 + cosine)
        rho = shrink * 2.0 * np.arcsinh(np.sqrt(rise / 2.0))
    return rho


# --- from use to strength ---


@dataclass(frozen=True, slots=True)
class AlphaMap:
    """How firmly a memory is held: α = .3 + a·log1p(uses) + b·utility + c·certainty + e·freshness, clipped to [.3, 6].

    Uses decay with ``half_life`` since the last use and freshness is 2^(−age / half_life), from 1 at birth to 0, so the
    last term is a penalty on age. Utility is clipped to [−1, 1] and certainty is 1 − uncertainty. The defaults meet these
    targets: a new memory is active; one that is never used is warm after a month, cold after seven months and archived
    after a year; ten uses make it active again; a utility of 1 keeps it out of the archive for good.
    """

    uses: float = 1.25
    utility: float = 0.8
    certainty: float = 0.15
    freshness: float = 3.7
    half_life: timedelta = timedelta(days=90)

    def __post_init__(self) -> None:
        if not self.half_life > timedelta(0):
            raise InputError("the half-life must be positive")

    def __call__(self, cube: Cube, now: datetime) -> float:
        """α of a cube at a time; reads nothing but its use and when it was recorded. Raises InputError for a NaN."""
        use = cube.use
        if not (math.isfinite(use.utility) and math.isfinite(use.uncertainty)):
            raise InputError(
                f"cube {cube.id} has a utility or uncertainty that is not a number; send new feedback for it"
            )
        age = self._decay(cube.recorded_at, now)
        uses = max(use.visits, 0) * self._decay(use.last_use or cube.recorded_at, now)
        alpha = (
            ALPHA_RANGE[0]
            + self.uses * math.log1p(uses)
            + self.utility * min(max(use.utility, -1.0), 1.0)
            + self.certainty * (1.0 - min(max(use.uncertainty, 0.0), 1.0))
            + self.freshness * age
        )
        return min(max(alpha, ALPHA_RANGE[0]), ALPHA_RANGE[1])

    def _decay(self, since: datetime | None, now: datetime) -> float:
        if since is None:
            return 1.0
        return float(2.0 ** (-max((now - since) / self.half_life, 0.0)))


@dataclass(frozen=True, slots=True)
class RadialLifecycle:
    """Proposes to archive what has drifted to the rim: a pure function of use, recording time and ``now``."""

    alpha_of: AlphaMap = field(default_factory=AlphaMap)
    temperature: float = TEMPERATURE
    dimension: int = DIMENSION

    def radius(self, cube: Cube, now: datetime) -> float:
        """The median radius of the cube's law, in [0, 1)."""
        return median_radius(self.alpha_of(cube, now), self.temperature, self.dimension)

    def zone(self, cube: Cube, now: datetime) -> Zone:
        """Active, warm, cold or archived."""
        return zone_of(self.radius(cube, now))

    def manage(self, store: Store, scope: Scope, now: datetime) -> list[Operation]:
        """One update to status ``archived`` for each recallable cube in the outer zone.

        Frozen cubes, cubes pinned in their data (``data["pinned"]``), instructions and preferences are never proposed.
        """
        return [
            Operation.update(cube.with_(status=Status.ARCHIVED), self._reason(cube, now))
            for cube in store.select(scope, Where(statuses=(Status.GENERATED, Status.ACTIVATED)))
            if cube.kind not in _KEPT_KINDS and not cube.data.get("pinned") and self.zone(cube, now) is Zone.ARCHIVED
        ]

    def _reason(self, cube: Cube, now: datetime) -> str:
        use = cube.use
        age = (now - (cube.recorded_at or now)).days
        last = f"last {use.last_use.date().isoformat()}" if use.last_use else "never"
        return (
            f"radius {self.radius(cube, now):.3f} has reached the archive at {ZONE_EDGES[-1]} "
            f"(alpha {self.alpha_of(cube, now):.3f}: age {age} days, {use.visits} uses, {last}, "
            f"utility {use.utility:.2f}, uncertainty {use.uncertainty:.2f})"
        )
