"""SuperLocalMemory V3 (arXiv 2603.14588): information geometry, a lifecycle as a diffusion, contradictions as cohomology.

Four experiments on generated data: the metric is one (§3), where it helps and where it does not, the lifecycle reaches the
law it claims (§4), and the sheaf finds contradictions that no pair of claims shows (§5). A fifth on real conversations, where
they are at hand: the fused search against its channels, and both scores on the sessions of LoCoMo.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from holdfast.bench.data import load_locomo
from holdfast.bench.metrics import bootstrap
from holdfast.bench.plots import Bars, draw
from holdfast.claims.base import Check, Result, Scale
from holdfast.claims.locomo import evidence_recall, gain
from holdfast.encode.embedders import default_embedder, why_no_embedder
from holdfast.errors import ClaimError
from holdfast.manage.lifecycle import TEMPERATURE, ZONE_EDGES, RadialLaw, simulate
from holdfast.manage.sheaf import Sheaf
from holdfast.manage.statements import SAME_AS, Statement
from holdfast.retrieve.gaussian import Prior, fisher_rao, predictive_log_density
from holdfast.retrieve.query import analyse
from holdfast.retrieve.resemblance import known_mean

Floats = npt.NDArray[np.float64]

number = 26
name = "superlocalmemory"
statement = (
    "Information geometry helps where a memory's uncertainty is real: exact Fisher–Rao beats cosine by 15 points on "
    "distribution queries, and on point queries, where Fisher–Rao itself loses, the posterior predictive beats cosine by 5 "
    "if the noise differs by dimension; a confining radial diffusion reaches its stationary law, which the paper's dynamics "
    "do not have; and a sheaf over claims finds direct and indirect contradictions with an F1 of .95, which neither "
    "pairwise checks nor embeddings do."
)
arms = (
    "ours",
    "Fisher–Rao",
    "Kullback–Leibler",
    "Mahalanobis",
    "log density, not shrunk",
    "cosine",
    "Euclid",
    "pairwise claims",
    "paper's severity",
    "paper's dynamics (control)",
)

_MEMORIES, _DIMENSION = 800, 48
_ALPHAS = (0.4, 0.8, 1.2, 2.0, 4.0)
_PER_KIND = 100


def run(scale: Scale, seed: int, data: Path | None) -> Result:
    """All experiments; that on real conversations where ``data`` holds ``locomo``.

    Raises ClaimError at scale ``gpu`` and without the offline embedder.
    """
    if scale == "gpu":
        raise ClaimError("claim 26 runs at the scales quick and full")
    rng = np.random.default_rng([26, seed])
    particles, triples = (8_000, 100_000) if scale == "quick" else (30_000, 300_000)
    metric = _metric(rng, triples)
    spreads = _distribution_queries(rng)
    points = _point_queries(rng, by_dimension=True)
    level = _point_queries(rng, by_dimension=False)
    diffusion = _lifecycle(seed, particles)
    found, shares = _contradictions(rng)
    hits = {arm: float(np.mean(outcome)) for arm, outcome in points.items()}
    measured: dict[str, dict[str, float]] = {arm: {} for arm in arms}
    for label, outcomes in (
        ("distribution hit@1", spreads),
        ("point hit@1", points),
        ("point hit@1, equal noise", level),
    ):
        for arm, outcome in outcomes.items():
            measured[arm][label] = float(np.mean(outcome))
    # By kind of query ours is one score or the other.
    measured["ours"]["distribution hit@1"] = measured["Fisher–Rao"]["distribution hit@1"]
    for arm, metrics in found.items():
        measured[arm].update(metrics)
    measured["ours"] |= {"KS to the law": max(diffusion.distances), "zone violations": float(diffusion.violations)}
    measured["paper's dynamics (control)"] = dict(diffusion.control)
    ours, cosine = measured["ours"], measured["cosine"]
    real, real_checks, real_notes = _real(data)
    for arm, metrics in real.items():
        measured.setdefault(arm, {}).update(metrics)
    return Result(
        arms=measured,
        checks=(
            Check("triangle inequality, worst violation", metric["triangle"], 1e-9, at_least=False),
            Check("symmetry, identity, affine, additivity: worst error", metric["laws"], 1e-9, at_least=False),
            Check("distance against integrated geodesics, worst error", metric["geodesic"], 1e-6, at_least=False),
            Check(
                "distribution queries: Fisher–Rao less cosine, hit@1",
                ours["distribution hit@1"] - cosine["distribution hit@1"],
                0.15,
            ),
            Check("point queries: posterior predictive less cosine, hit@1", hits["ours"] - hits["cosine"], 0.05),
            Check(
                "lifecycle: worst KS distance to the law over five alphas", ours["KS to the law"], 0.03, at_least=False
            ),
            Check("lifecycle: zones not monotone in alpha", ours["zone violations"], 0, at_least=False),
            Check(
                "control: the paper's dynamics archive hot and cold alike, smaller share",
                min(diffusion.control["archived, fresh and unused"], diffusion.control["archived, hot and important"]),
                0.95,
            ),
            Check("contradictions: F1 over 600 claim sets", ours["contradiction F1"], 0.95),
            Check("contradictions: recall of indirect ones", ours["indirect recall"], 0.9),
            Check(
                "contradictions: indirect ones that a pairwise check finds",
                measured["pairwise claims"]["indirect recall"],
                0,
                at_least=False,
            ),
            *real_checks,
        ),
        settings={
            "memories": _MEMORIES,
            "dimension": _DIMENSION,
            "triples": triples,
            "particles": particles,
            "alphas": _ALPHAS,
            "claim sets": 6 * _PER_KIND,
        },
        series={
            "outcomes": {arm: outcome.astype(int).tolist() for arm, outcome in points.items()},
            "flagged": shares,
            "metric": metric,
            "KS by alpha": dict(zip(map(str, _ALPHAS), diffusion.distances, strict=True)),
        },
        notes=(
            "Fisher–Rao loses on point queries: it penalises a difference of the uncertainties themselves, and a point has "
            "none to compare.",
            "The gain on point queries comes from noise that differs by dimension. Where only the number of observations "
            "differs (metric 'point hit@1, equal noise') it stays under the 5 points that the check asks for.",
            "On distribution queries Kullback–Leibler does as well as Fisher–Rao: what helps is comparing spreads at all.",
            "Claims enter the contradiction experiment as claims: it measures the sheaf, not the reading of text.",
            *real_notes,
        ),
    )


def plot(result: Result, path: Path) -> None:
    """Hits of the two kinds of query, and contradictions. Raises MissingExtraError without matplotlib."""

    def column(metric: str) -> dict[str, float]:
        rows = {arm: metrics[metric] for arm, metrics in result.arms.items() if metric in metrics}
        return dict(sorted(rows.items(), key=lambda row: -row[1]))

    distribution = column("distribution hit@1")
    del distribution["ours"]
    draw(
        path,
        [
            Bars(
                distribution,
                title="Distribution queries",
                label="hit@1",
                ours=("Fisher–Rao",),
                required=distribution["cosine"] + 0.15,
                percent=True,
                limits=(0, 1.15),
            ),
            Bars(
                column("point hit@1"),
                title="Point queries",
                label="hit@1 (ours: posterior predictive)",
                ours=("ours",),
                required=result.arms["cosine"]["point hit@1"] + 0.05,
                percent=True,
                limits=(0, 1.15),
            ),
            Bars(
                column("contradiction F1"),
                title="Contradictions",
                label="F1 over 600 claim sets",
                ours=("ours",),
                required=0.95,
                percent=True,
                limits=(0, 1.15),
            ),
        ],
        title="Each score has its query; only the sheaf sees contradictions",
        subtitle="800 generated memories of 48 dimensions; 600 generated claim sets. The line is what the claim requires.",
    )


# --- 1: the metric ---


def _metric(rng: np.random.Generator, triples: int) -> dict[str, float]:
    m, s = rng.normal(0, 3, (3, triples, 8)), np.exp(rng.normal(0, 1, (3, triples, 8)))
    ab, bc, ac = (fisher_rao(m[i], s[i], m[j], s[j]) for i, j in ((0, 1), (1, 2), (0, 2)))
    scale, shift = np.exp(rng.normal(0, 1, (triples, 8))), rng.normal(0, 3, (triples, 8))
    moved = fisher_rao(scale * m[0] + shift, scale * s[0], scale * m[1] + shift, scale * s[1])
    halves = [
        fisher_rao(m[0][:, part], s[0][:, part], m[1][:, part], s[1][:, part]) for part in (slice(3), slice(3, 8))
    ]
    laws = (
        np.abs(ab - fisher_rao(m[1], s[1], m[0], s[0])),
        fisher_rao(m[0], s[0], m[0], s[0]),
        np.abs(moved - ab),
        np.abs(np.hypot(*halves) - ab),
    )
    return {
        "triangle": float(np.maximum(ac - ab - bc, 0).max()),
        "laws": float(max(errors.max() for errors in laws)),
        "geodesic": _geodesic_error(rng, 500, 4),
    }


def _geodesic_error(rng: np.random.Generator, count: int, dimension: int) -> float:
    """Shoot geodesics of (dμ² + 2dσ²)/σ² by Runge–Kutta and measure the distance to where they land."""
    length = rng.uniform(0.01, 5.0, count)
    direction = rng.normal(size=(2, count, dimension))
    direction /= np.sqrt((direction**2).sum(axis=(0, 2)))[:, None]
    mean, sd = rng.normal(0, 2, (count, dimension)), np.exp(rng.normal(0, 0.5, (count, dimension)))
    state = np.stack([mean, sd, direction[0] * sd, direction[1] * sd / math.sqrt(2.0)])

    def slope(y: Floats) -> Floats:
        _, sigma, u, w = y
        return np.stack([u, w, 2 * u * w / sigma, w**2 / sigma - u**2 / (2 * sigma)])

    steps = 2_000
    h = (length / steps)[:, None]
    for _ in range(steps):
        k1 = slope(state)
        k2 = slope(state + h / 2 * k1)
        k3 = slope(state + h / 2 * k2)
        k4 = slope(state + h * k3)
        state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return float(np.abs(fisher_rao(mean, sd, state[0], state[1]) - length).max())


# --- 2: where it helps ---


def _hits(scores: Callable[[int], Floats]) -> npt.NDArray[np.bool_]:
    """Whether the memory that a query was made from has the highest score, for each memory's query."""
    return np.array([int(np.argmax(scores(i))) == i for i in range(_MEMORIES)])


def _unit(rows: Floats) -> Floats:
    units: Floats = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return units


def _distribution_queries(rng: np.random.Generator) -> dict[str, npt.NDArray[np.bool_]]:
    """Each memory is known from 20 samples of its own Gaussian, and asked for by 10 new ones."""
    shape = (_MEMORIES, 1, _DIMENSION)
    centre, spread = rng.normal(0, 0.34, shape), np.exp(rng.normal(0, 0.5, shape))
    known, asked = (centre + spread * rng.normal(size=(_MEMORIES, n, _DIMENSION)) for n in (20, 10))
    m, s, q, t = known.mean(1), known.std(1, ddof=1), asked.mean(1), asked.std(1, ddof=1)
    units, turned = _unit(m), _unit(q)
    return {
        "Fisher–Rao": _hits(lambda i: -fisher_rao(q[i], t[i], m, s)),
        "Kullback–Leibler": _hits(lambda i: -(np.log(s / t[i]) + (t[i] ** 2 + (q[i] - m) ** 2) / (2 * s**2)).sum(1)),
        "Mahalanobis": _hits(lambda i: -((q[i] - m) ** 2 / s**2).sum(1)),
        "cosine": _hits(lambda i: units @ turned[i]),
        "Euclid": _hits(lambda i: -((q[i] - m) ** 2).sum(1)),
    }


def _point_queries(rng: np.random.Generator, *, by_dimension: bool) -> dict[str, npt.NDArray[np.bool_]]:
    """Each memory is the mean of 1 to 16 noisy observations of a truth, and asked for by one text near that truth.

    With ``by_dimension`` the noise of a memory differs from dimension to dimension (log-normal, .7), as it does in
    embeddings; without, it is 2 everywhere and only the counts differ. The prior is estimated from the memories.
    """
    truth = rng.normal(size=(_MEMORIES, _DIMENSION))
    n = rng.integers(1, 17, _MEMORIES)
    noise = 2.0 * np.exp(rng.normal(0, 0.7 if by_dimension else 0.0, truth.shape))
    m, scatter = np.empty_like(truth), np.empty_like(truth)
    for i in range(_MEMORIES):
        rows = truth[i] + noise[i] * rng.normal(size=(n[i], _DIMENSION))
        m[i], scatter[i] = rows.mean(0), ((rows - rows.mean(0)) ** 2).sum(0)
    query_sd = 0.9
    q = truth + query_sd * rng.normal(size=truth.shape)
    pooled = float(scatter.sum() / ((n - 1).sum() * _DIMENSION))
    prior = Prior(nu=4.0, s2=pooled)
    v = (prior.nu * prior.s2 + scatter) / (prior.nu + n - 1)[:, None]
    of_mean = v / n[:, None]
    tau2 = float((m**2).mean() - of_mean.mean())
    units, turned = _unit(m), _unit(q)
    sd, total = np.sqrt(of_mean), of_mean + query_sd**2
    return {
        "ours": _hits(lambda i: predictive_log_density(q[i], m, v, n, query_var=query_sd**2, tau2=tau2)),
        "Fisher–Rao": _hits(lambda i: -fisher_rao(q[i], np.full(_DIMENSION, query_sd), m, sd)),
        "Mahalanobis": _hits(lambda i: -((q[i] - m) ** 2 / of_mean).sum(1)),
        "log density, not shrunk": _hits(lambda i: -((q[i] - m) ** 2 / total + np.log(total)).sum(1)),
        "cosine": _hits(lambda i: units @ turned[i]),
        "Euclid": _hits(lambda i: -((q[i] - m) ** 2).sum(1)),
    }


# --- 3: real conversations ---

_TURNS = 8
"""Sessions of fewer turns are left out: halved, they would hardly be a distribution."""

_Real = tuple[dict[str, dict[str, float]], tuple[Check, ...], tuple[str, ...]]


@functools.cache
def _real(data: Path | None) -> _Real:
    """The fused search against its channels, and both scores with sessions as memories: arms, checks and notes."""
    if data is None:
        return {}, (), ("LoCoMo was not measured: --data names a folder that holds locomo",)
    found: dict[str, dict[str, float]] = {}
    checks = []
    for k in (10, 20):
        recalled = evidence_recall(data, k)
        for arm, score in recalled.items():
            found.setdefault(arm, {})[f"LoCoMo evidence recall@{k}"] = score
        checks.append(Check(f"LoCoMo recall@{k}: fused less the best single channel", gain(recalled), 0.03))
    halves, questions = _sessions(data)
    notes = []
    for outcomes, ours, what in (
        (halves, "Fisher–Rao", "half a session asks for its other half"),
        (questions, "ours", "a question asks for the session of its evidence"),
    ):
        for arm, outcome in outcomes.items():
            found.setdefault(arm, {})[f"LoCoMo sessions hit@1, {what}"] = float(np.mean(outcome))
        delta = bootstrap(outcomes[ours], outcomes["cosine"], seed=26)
        name = {"ours": "the posterior predictive"}.get(ours, ours)
        notes.append(f"On LoCoMo, where {what}: {name} less the cosine of the means {delta} in hit@1.")
    notes.append("Search therefore ranks turns by cosines, and Memory.alike ranks sessions by Fisher–Rao.")
    return found, tuple(checks), tuple(notes)


def _sessions(data: Path) -> tuple[dict[str, list[bool]], dict[str, list[bool]]]:
    """For each arm, whether the right session of the same conversation came first, by session and by question."""
    embedder = default_embedder()
    if embedder is None:
        raise ClaimError(f"claim 26 needs the offline embedder: {why_no_embedder()}")
    halves: dict[str, list[bool]] = {"Fisher–Rao": [], "cosine": []}
    questions: dict[str, list[bool]] = {"ours": [], "cosine": [], "nearest turn": []}
    for talk in load_locomo(data / "locomo"):
        vectors = np.asarray(embedder.embed([f"{turn.text} {turn.caption}".strip() for turn in talk.turns]), np.float64)
        names = [turn.session for turn in talk.turns]
        sessions = [name for name in dict.fromkeys(names) if names.count(name) >= _TURNS]
        turns = [vectors[[at for at, name in enumerate(names) if name == session]] for session in sessions]
        variance = vectors.var(axis=0).clip(1e-8)
        asked, known = ([known_mean(rows[start::2], variance) for rows in turns] for start in (0, 1))
        m, s = np.stack([mean for mean, _ in known]), np.stack([spread for _, spread in known])
        units = _unit(m)
        for at, (mean, spread) in enumerate(asked):
            halves["Fisher–Rao"].append(int(fisher_rao(mean, spread, m, s).argmin()) == at)
            halves["cosine"].append(int((units @ mean).argmax()) == at)
        whole = [known_mean(rows, variance) for rows in turns]
        n = np.array([len(rows) for rows in turns])
        centre = vectors.mean(axis=0)
        m, v = np.stack([mean for mean, _ in whole]), np.stack([spread**2 for _, spread in whole]) * n[:, None]
        units, tau2 = _unit(m), float(np.var(m - centre))
        home = {turn.id: turn.session for turn in talk.turns}
        people = {turn.speaker for turn in talk.turns}
        some = [(q, {home.get(id) for id in q.evidence}) for q in talk.questions if q.category != "5" and q.evidence]
        spoken = np.asarray(embedder.embed([analyse(q.text, people).spoken for q, _ in some]), np.float64)
        for query, (_, gold) in zip(spoken, some, strict=True):
            density = predictive_log_density(
                query - centre, m - centre, v, n, query_var=float(variance.mean()), tau2=tau2
            )
            questions["ours"].append(sessions[int(density.argmax())] in gold)
            questions["cosine"].append(sessions[int((units @ query).argmax())] in gold)
            questions["nearest turn"].append(sessions[int(np.argmax([(rows @ query).max() for rows in turns]))] in gold)
    return halves, questions


# --- 4: the lifecycle ---


@dataclass(frozen=True, slots=True)
class _Diffusion:
    distances: tuple[float, ...]
    violations: int
    control: Mapping[str, float]


def _lifecycle(seed: int, particles: int) -> _Diffusion:
    distances, shares = [], []
    for index, alpha in enumerate(_ALPHAS):
        rho = np.sort(simulate(alpha, seed=26_000 + 100 * seed + index, particles=particles))
        reached = RadialLaw(alpha).cdf(rho)
        grid = np.arange(particles + 1) / particles
        distances.append(float(max((grid[1:] - reached).max(), (reached - grid[:-1]).max())))
        radius = np.tanh(rho / 2)
        shares.append((float((radius < ZONE_EDGES[0]).mean()), float((radius >= ZONE_EDGES[-1]).mean())))
    violations = sum(b[0] < a[0] or b[1] > a[1] for a, b in itertools.pairwise(shares))
    fresh = _paper_dynamics(3.0, seed)
    hot = _paper_dynamics(3.0 + 0.8 * math.log1p(50) / 10 + 0.5, seed)
    control = {
        "median radius, fresh and unused": float(np.median(fresh)),
        "median radius, hot and important": float(np.median(hot)),
        "archived, fresh and unused": float((fresh >= ZONE_EDGES[-1]).mean()),
        "archived, hot and important": float((hot >= ZONE_EDGES[-1]).mean()),
    }
    return _Diffusion(tuple(distances), violations, control)


def _paper_dynamics(alpha: float, seed: int, particles: int = 400, steps: int = 3_000, step: float = 0.005) -> Floats:
    """Radii after the paper's Langevin equation with U = α|x|² in the ball of dimension 8, from the centre.

    It takes half of the Itô correction and clamps the radius at .99; without the clamp nothing would hold it.
    """
    rng = np.random.default_rng([seed, int(alpha * 1000)])
    x = np.zeros((particles, 8))
    for _ in range(steps):
        inverse = (1.0 - (x**2).sum(axis=1, keepdims=True)) / 2.0
        drift = -(inverse**2) * 2.0 * alpha * x + 0.5 * TEMPERATURE * 6.0 * inverse * x
        x = x + drift * step + math.sqrt(2.0 * TEMPERATURE * step) * inverse * rng.normal(size=x.shape)
        radius = np.linalg.norm(x, axis=1, keepdims=True)
        x *= np.minimum(1.0, 0.99 / np.maximum(radius, 1e-12))
    result: Floats = np.linalg.norm(x, axis=1)
    return result


# --- 5: contradictions ---

_PEOPLE = (
    "Ana Bruno Chloe Dmitri Esra Farid Greta Hugo Ines Jonas Kaya Liam Mina Nadia Oskar Petra Quentin Rosa Samir Tessa Ugo "
    "Vera Wanda Ximena Yusuf Zoe"
)
_CITIES = (
    "Lisbon Porto Faro Madrid Lyon Turin Vienna Prague Oslo Bergen Cork Leeds Ghent Basel Gdansk Riga Split Patras"
)
_HOBBIES = "chess rowing pottery jazz climbing sailing baking birdwatching astronomy judo"
_JOBS = "nurse plumber lawyer pilot baker teacher welder chemist"
_KINDS = ("direct", "cycle", "alias", "temporal", "paraphrase", "compatible")
_CONTRADICT = frozenset(("direct", "cycle", "alias"))
_INDIRECT = frozenset(("cycle", "alias"))


@dataclass(frozen=True, slots=True)
class _Said:
    """A claim and the sentence that says it, for the baselines that read text."""

    claim: Statement
    text: str


class _Writer:
    """Draws claim sets of a kind, each mixed with claims that have nothing to do with it."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def draw(self, kind: str) -> list[_Said]:
        people = self._some(_PEOPLE, 7)
        makers: dict[str, Callable[[Sequence[str]], list[_Said]]] = {
            "direct": self._direct,
            "cycle": self._cycle,
            "alias": lambda people: self._alias_chain(people, same=False),
            "temporal": self._temporal,
            "paraphrase": self._paraphrase,
            "compatible": self._compatible,
        }
        said = makers[kind](people)
        for person, hobby in zip(people[:3], self._some(_HOBBIES, 3), strict=True):
            said.append(_Said(Statement(person, "likes", hobby), f"{person} likes {hobby}."))
        # Jobs only for bystanders: under an alias, two people's jobs would be a contradiction of their own.
        for person, job in zip(people[5:], self._some(_JOBS, 2), strict=True):
            said.append(_Said(Statement(person, "job", job, functional=True), f"{person} works as a {job}."))
        return [said[i] for i in self._rng.permutation(len(said))]

    def _some(self, words: str, count: int) -> list[str]:
        return [str(word) for word in self._rng.choice(words.split(), count, replace=False)]

    def _int(self, low: int, high: int) -> int:
        return int(self._rng.integers(low, high))

    def _city(self, person: str, city: str, years: tuple[int, int | None] = (2015, None)) -> _Said:
        start, end = years
        when = f"since {start}" if end is None else f"from {start} to {end}"
        verb = "has lived" if end is None else "lived"
        span = datetime(start, 1, 1, tzinfo=UTC), end and datetime(end, 1, 1, tzinfo=UTC)
        claim = Statement(person, "lives in", city, valid_from=span[0], valid_to=span[1] or None, functional=True)
        return _Said(claim, f"{person} {verb} in {city} {when}.")

    def _age(self, person: str, age: int) -> _Said:
        return _Said(Statement(person, "age", age, "years"), f"{person} is {age} years old.")

    def _older(self, one: str, by: int, other: str) -> _Said:
        word = "older" if by >= 0 else "younger"
        return _Said(Statement(one, "age", by, "years", other=other), f"{one} is {abs(by)} years {word} than {other}.")

    def _alias(self, one: str, other: str) -> _Said:
        return _Said(Statement(one, SAME_AS, other), f"{one} and {other} are the same person.")

    def _direct(self, people: Sequence[str]) -> list[_Said]:
        person, age = people[0], self._int(20, 70)
        if self._rng.random() < 0.5:
            a, b = self._some(_CITIES, 2)
            start = self._int(2010, 2018)
            return [self._city(person, a, (start, None)), self._city(person, b, (start + self._int(0, 3), None))]
        return [self._age(person, age), self._age(person, age + self._int(1, 9))]

    def _cycle(self, people: Sequence[str], gap: int | None = None) -> list[_Said]:
        ring = people[: self._int(3, 6)]
        gap = self._int(1, 9) if gap is None else gap
        ages = [self._int(20, 70) for _ in ring]
        said = [self._older(a, ages[i] - ages[i + 1], b) for i, (a, b) in enumerate(itertools.pairwise(ring))]
        if self._rng.random() < 0.5:
            return [*said, self._older(ring[-1], ages[-1] - ages[0] + gap, ring[0])]
        return [*said, self._age(ring[0], ages[0]), self._age(ring[-1], ages[-1] + gap)]

    def _alias_chain(self, people: Sequence[str], same: bool) -> list[_Said]:
        chain = people[: self._int(2, 4)]
        a, b = self._some(_CITIES, 2)
        links = [self._alias(one, other) for one, other in itertools.pairwise(chain)]
        return [*links, self._city(chain[0], a), self._city(chain[-1], a if same else b)]

    def _temporal(self, people: Sequence[str]) -> list[_Said]:
        cities = self._some(_CITIES, self._int(2, 4))
        starts = sorted(self._rng.choice(np.arange(2005, 2024), len(cities), replace=False).tolist())
        ends: list[int | None] = [*starts[1:], None]
        return [self._city(people[0], c, (s, e)) for c, s, e in zip(cities, starts, ends, strict=True)]

    def _paraphrase(self, people: Sequence[str]) -> list[_Said]:
        person, city, height = people[0], self._some(_CITIES, 1)[0], self._int(155, 200)
        first = self._city(person, city)
        tall = Statement(person, "height", height, "cm")
        return [
            first,
            _Said(first.claim, f"{city} is where {person} has had a home since 2015."),
            _Said(tall, f"{person} is {height} cm tall."),
            _Said(Statement(person, "height", f"{height / 100} m"), f"{person}'s height is {height / 100} m."),
        ]

    def _compatible(self, people: Sequence[str]) -> list[_Said]:
        person = people[0]
        choice = self._int(0, 4)
        if choice == 0:
            return self._cycle(people, gap=0)
        if choice == 1:
            return self._alias_chain(people, same=True)
        if choice == 2:
            hobbies = self._some(_HOBBIES, 3)
            return [_Said(Statement(person, "likes", hobby), f"{person} likes {hobby}.") for hobby in hobbies]
        a, b = self._some(_CITIES, 2)
        denial = Statement(person, "lives in", b, polarity=False)
        return [self._city(person, a), _Said(denial, f"{person} does not live in {b}."), self._age(person, 40)]


def _contradictions(rng: np.random.Generator) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Metrics by arm, and by arm the share of each kind of set that is flagged."""
    embedder = default_embedder()
    if embedder is None:
        raise ClaimError(f"claim 26 compares with embeddings. {why_no_embedder()}")
    writer = _Writer(rng)
    sets = [(kind, writer.draw(kind)) for kind in _KINDS for _ in range(_PER_KIND)]
    texts = sorted({said.text for _, group in sets for said in group})
    vectors = dict(zip(texts, np.asarray(embedder.embed(texts), dtype=np.float64), strict=True))
    truth = np.array([kind in _CONTRADICT for kind, _ in sets])
    severity, farthest, nearest = np.array([_embedding_scores(group, vectors) for _, group in sets]).T
    flags = {
        "ours": np.array([bool(Sheaf(s.claim for s in group).check()) for _, group in sets]),
        "pairwise claims": np.array([_any_pair(group) for _, group in sets]),
        "paper's severity": severity > 0.45,
        # The baseline gets the better of two readings (far apart, or suspiciously close) and the best threshold there is,
        # both chosen on the very sets that it is tested on.
        "cosine": max((_best_cut(score, truth) for score in (-farthest, nearest)), key=lambda flag: _f1(flag, truth)),
    }
    kinds = np.array([kind for kind, _ in sets])
    indirect = np.isin(kinds, sorted(_INDIRECT))
    metrics = {
        arm: {
            "contradiction F1": _f1(flag, truth),
            "indirect recall": float(flag[indirect].mean()),
            "false alarms": float(flag[~truth].mean()),
        }
        for arm, flag in flags.items()
    }
    return metrics, {arm: {kind: float(flag[kinds == kind].mean()) for kind in _KINDS} for arm, flag in flags.items()}


def _f1(flagged: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    return float(2 * (flagged & truth).sum() / (flagged.sum() + truth.sum()))


def _best_cut(score: Floats, truth: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return max((score >= cut for cut in np.unique(score)), key=lambda flag: _f1(flag, truth))


def _any_pair(group: Sequence[_Said]) -> bool:
    return any(Sheaf([a.claim, b.claim]).check() for a, b in itertools.combinations(group, 2))


def _embedding_scores(group: Sequence[_Said], vectors: Mapping[str, Floats]) -> tuple[float, float, float]:
    """Over pairs of different sentences that share an entity: the largest severity, the least and the largest cosine."""
    pairs = [
        (vectors[one.text], vectors[other.text])
        for one, other in itertools.combinations(group, 2)
        if {one.claim.entity, one.claim.other} & {other.claim.entity, other.claim.other} - {None}
        and one.text != other.text
    ]
    cosines = [float(a @ b) for a, b in pairs]
    return max(map(_severity, *zip(*pairs, strict=True))), min(cosines), max(cosines)


def _severity(a: Floats, b: Floats) -> float:
    """|R(b − a)| / (|Ra| + |Rb|) with R = .7 I + .3 ddᵀ/|d|² and d = b − a: Rd = d, |Ra|² = .49|a|² + .51 (a·d)²/|d|²."""
    d = b - a
    square = float(d @ d)
    if square == 0:
        return 0.0
    norms = [math.sqrt(0.49 * float(x @ x) + 0.51 * float(x @ d) ** 2 / square) for x in (a, b)]
    return math.sqrt(square) / sum(norms)
