"""Memories as diagonal Gaussians: Fisher–Rao distance and predictive density (SuperLocalMemory V3, arXiv 2603.14588 §3).

A memory that has been observed several times knows how sure it is. Two questions can be asked of it, and they need two
different scores. A *point query* (one text) asks how likely the memory makes that text: ``predictive_log_density``. A
*distribution query* (several texts, a profile, a cluster) asks how far two spreads lie apart: ``fisher_rao``. Fisher–Rao
penalises differences of the uncertainty itself and is the wrong score for a point.

Nothing here changes when a memory is read. Narrowing the variance on every recall, as the paper's code does, demotes good
memories; only a new observation is evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Modality, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    evolution=(Evolution.UPDATE_EXTERNAL,),
    retrieval=(Retrieval.SEMANTIC,),
    subject=(Subject.USER, Subject.WORLD),
    modality=(Modality.VECTOR,),
)

Floats = npt.NDArray[np.float64]

_ROOT8 = 2.0 * math.sqrt(2.0)


@dataclass(frozen=True, slots=True)
class Prior:
    """What is believed of a memory before it is observed, per dimension.

    ``s2`` is the variance of one observation around the truth, believed as firmly as ``nu`` observations would teach it;
    ``tau2`` is the variance of the truths around zero. All three must be positive (InputError).
    """

    nu: float = 4.0
    s2: float = 1.0
    tau2: float = 1.0

    def __post_init__(self) -> None:
        for name in ("nu", "s2", "tau2"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"a prior needs {name} > 0, not {value}")


@dataclass(frozen=True, slots=True, eq=False)
class GaussianMemory:
    """What ``n`` observations of one claim, entity or topic have taught: a value; ``observe`` returns a new one.

    Fields
        mean: shape (d,), the running mean m (zeros before the first observation).
        var: shape (d,), the variance v of one observation around the truth, (ν s² + S) / (ν + n − 1), with S the sum of
            squared deviations. The uncertainty of the mean itself is v / n.
        n: how many observations.
    """

    mean: Floats
    var: Floats
    n: int = 0
    prior: Prior = field(default_factory=Prior)

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.mean.shape != self.var.shape:
            raise InputError(f"mean and var must be two vectors of one length, not {self.mean.shape}, {self.var.shape}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.var).all() and (self.var > 0).all() and self.n >= 0):
            raise InputError("a Gaussian memory needs finite means, positive variances and n >= 0")

    @classmethod
    def empty(cls, dimension: int, prior: Prior | None = None) -> Self:
        """A memory that has seen nothing yet."""
        prior = prior or Prior()
        return cls(np.zeros(dimension), np.full(dimension, prior.s2), 0, prior)

    def observe(self, observations: npt.ArrayLike) -> Self:
        """The memory after one more observation, shape (d,), or several, shape (k, d). Raises InputError.

        Welford's update (Chan et al. for a batch): the order of the observations does not matter beyond rounding.
        """
        rows = np.atleast_2d(np.asarray(observations, dtype=np.float64))
        if rows.ndim != 2 or rows.shape[1] != self.mean.shape[0]:
            raise InputError(
                f"this memory takes observations of dimension {self.mean.shape[0]}, not shape {rows.shape}"
            )
        if not np.isfinite(rows).all():
            raise InputError("an observation must be finite in every dimension")
        k = rows.shape[0]
        if k == 0:
            return self
        total = self.n + k
        centre = rows.mean(axis=0)
        shift = centre - self.mean
        scatter = ((rows - centre) ** 2).sum(axis=0) + shift**2 * (self.n * k / total)
        # v times its own denominator is ν s² + S, so S never has to be stored, nor recovered by a subtraction.
        weight = self.prior.nu + max(self.n - 1, 0)
        var = (self.var * weight + scatter) / (self.prior.nu + total - 1)
        return type(self)(self.mean + shift * (k / total), var, total, self.prior)

    @property
    def std(self) -> Floats:
        """Standard deviation of one observation, shape (d,): what ``fisher_rao`` takes."""
        return np.sqrt(self.var)


def posterior(mean: npt.ArrayLike, var: npt.ArrayLike, n: npt.ArrayLike, *, tau2: float = 1.0) -> tuple[Floats, Floats]:
    """Mean and variance of the truth, given N(0, τ²) before and ``n`` observations of variance ``var`` averaging ``mean``.

    ``mean`` and ``var`` have shape (..., d) and ``n`` shape (...). A memory without observations has the prior itself.
    """
    mean, var = np.asarray(mean, dtype=np.float64), np.asarray(var, dtype=np.float64)
    if not (var > 0).all() or not tau2 > 0:
        raise InputError("variances must be positive")
    precision = np.asarray(n, dtype=np.float64)[..., None] / var
    spread = 1.0 / (precision + 1.0 / tau2)
    return spread * precision * mean, spread


def predictive_log_density(
    query: npt.ArrayLike,
    mean: npt.ArrayLike,
    var: npt.ArrayLike,
    n: npt.ArrayLike,
    *,
    query_var: npt.ArrayLike,
    tau2: float = 1.0,
) -> Floats:
    """Log density that each memory gives to a point query: −½ Σ [(q − m̃)² / (ṽ + s_q²) + log 2π(ṽ + s_q²)].

    ``query`` and the memories' ``mean`` and ``var`` have shape (..., d), ``n`` shape (...), broadcast against each other
    (one query against N memories: (d,) and (N, d), answer (N,)). ``query_var`` is the query's own noise variance s_q², a
    number or shape (..., d). A poorly known memory is shrunk towards zero and widened, so it neither wins by accident nor
    is excluded. Raises InputError where a variance is not positive.
    """
    centre, spread = posterior(mean, var, n, tau2=tau2)
    noise = np.asarray(query_var, dtype=np.float64)
    if not (noise >= 0).all():
        raise InputError("query_var must not be negative")
    total = spread + noise
    gap = np.asarray(query, dtype=np.float64) - centre
    result: Floats = -0.5 * (gap**2 / total + np.log(2.0 * math.pi * total)).sum(axis=-1)
    return result


def fisher_rao(m1: npt.ArrayLike, s1: npt.ArrayLike, m2: npt.ArrayLike, s2: npt.ArrayLike) -> Floats:
    """Exact Fisher–Rao distance between diagonal Gaussians, over the last axis; leading axes broadcast.

    ``s1`` and ``s2`` are STANDARD DEVIATIONS, not variances. Per dimension d = √2 arccosh(1 + δ) with
    δ = [(μ₁ − μ₂)² + 2(σ₁ − σ₂)²] / (4σ₁σ₂); the whole is the root of the sum of squares (a product manifold). Check:
    μ equal and σ from 1 to 2 gives √2 ln 2 = 0.98026. Raises InputError where a σ is not positive and finite.
    """
    m1, s1, m2, s2 = (np.asarray(value, dtype=np.float64) for value in (m1, s1, m2, s2))
    if not ((s1 > 0).all() and (s2 > 0).all() and np.isfinite(s1).all() and np.isfinite(s2).all()):
        raise InputError("standard deviations must be positive and finite")
    # arccosh(1 + δ) = 2 arsinh √(δ/2): no cancellation for close pairs and, with hypot, no overflow for distant ones.
    half = np.hypot(m1 - m2, math.sqrt(2.0) * (s1 - s2)) / (_ROOT8 * (np.sqrt(s1) * np.sqrt(s2)))
    result: Floats = np.sqrt(((_ROOT8 * np.arcsinh(half)) ** 2).sum(axis=-1))
    return result
