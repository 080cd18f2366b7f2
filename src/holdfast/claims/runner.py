"""Running claims: find a paper's claim, run it over its seeds, write what came of it.

A claim is the module ``claims/cNN_slug.py`` (``claims.base.Claim``). Its evidence is ``NN-slug.json`` with every arm, every
check and everything needed to run it again, and ``NN-slug.png``. A claim that does not hold is written as it is.
"""

from __future__ import annotations

import ast
import importlib
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

import holdfast
from holdfast import claims
from holdfast.claims import evidence
from holdfast.claims.base import Check, Claim, Result, Scale, Verdict, verdict
from holdfast.claims.catalogue import PAPERS, Paper, paper
from holdfast.claims.kept import Kept
from holdfast.errors import ClaimError, MissingExtraError

Progress = Callable[[str], None]
"""Told in one line what happens next."""

DEFAULT_SEEDS: Mapping[Scale, tuple[int, ...]] = {"quick": (0,), "full": (0, 1, 2), "gpu": (0,)}

OUTCOMES = "outcomes"
"""The series of a number a question for each arm."""

_EXTRAS = {"torch": "torch", "safetensors": "torch", "onnxruntime": "embed", "tokenizers": "embed", "openai": "llm"}
# Student's t, two-sided 95 %, by degrees of freedom: seeds are few, so the normal's 1.96 would flatter.
_T95 = (math.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of ``holdfast claims list``. ``file`` is None while the claim is absent, the rest while it was not run.

    ``margin`` and ``required`` are those of the check that decides: the one closest to failing, or furthest into it.
    """

    number: int
    name: str
    file: str | None
    statement: str | None
    scale: Scale | None
    verdict: Verdict
    margin: float | None
    required: float | None
    seeds: tuple[int, ...]
    date: str | None

    def to_dict(self) -> dict[str, Any]:
        """The row as ``--json`` prints it."""
        return {**asdict(self), "seeds": list(self.seeds)}


@dataclass(frozen=True, slots=True)
class Report:
    """What a run over one or more seeds found, and where it was written.

    ``result`` holds the means over the seeds (its ``series`` are those of the first seed); ``record`` is the JSON that
    was written; ``plot`` is None where it could not be drawn, and ``messages`` then say why.
    """

    paper: Paper
    scale: Scale
    seeds: tuple[int, ...]
    verdict: Verdict
    result: Result
    record: Mapping[str, Any]
    evidence: Path
    plot: Path | None
    messages: tuple[str, ...] = field(default=())


def evidence_folder(given: Path | None = None) -> Path:
    """The folder for evidence: the one given, or ``evidence/`` of the checkout this package is imported from.

    Raises ClaimError where the package is installed and no folder was given.
    """
    if given is not None:
        return given
    package = Path(holdfast.__file__).resolve().parent
    root = package.parent.parent
    if package.parent.name == "src" and (root / "pyproject.toml").is_file():
        return root / "evidence"
    raise ClaimError("Holdfast is installed, not checked out: say where evidence shall be written (--evidence FOLDER)")


def find_claim(number: int) -> Path | None:
    """The file of a paper's claim, or None while nobody has written it. Raises ClaimError for an unknown number."""
    name = f"{paper(number).module}.py"
    return next((Path(folder) / name for folder in claims.__path__ if (Path(folder) / name).is_file()), None)


def load_claim(number: int) -> Claim:
    """Import a paper's claim. Raises ClaimError where it is absent or ill-formed, MissingExtraError where torch is."""
    wanted = paper(number)
    if find_claim(number) is None:
        raise ClaimError(f"claim {number} ({wanted.title}) is not written yet: there is no claims/{wanted.module}.py")
    try:
        module = importlib.import_module(f"{claims.__name__}.{wanted.module}")
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in _EXTRAS:
            raise
        extra = f"pip install 'holdfast[{_EXTRAS[package]}]'"
        raise MissingExtraError(f"claim {number} needs {package}: {extra}") from error
    missing = [name for name in ("number", "name", "statement", "arms", "run", "plot") if not hasattr(module, name)]
    if missing or module.number != number:
        fault = f"it lacks {', '.join(missing)}" if missing else f"its number is {module.number}"
        raise ClaimError(f"claims/{wanted.module}.py is not the claim of paper {number}: {fault}")
    return cast(Claim, module)


def list_claims(evidence_dir: Path | None = None) -> list[Row]:
    """All 54 rows, in order, from the claims' files (read, not imported) and the evidence there is.

    Raises ClaimError where a piece of evidence cannot be read, or where no folder can be told (``evidence_folder``).
    """
    folder = evidence_folder(evidence_dir)
    return [_row(item, folder) for item in PAPERS]


def longest_first(numbers: Sequence[int], scale: Scale, evidence_dir: Path | None = None) -> list[int]:
    """The order in which to begin some claims so that all are done soonest where several seeds run at once.

    First those of which nobody knows how long a seed takes, then by the longest seed in the evidence there is. Raises ClaimError
    as ``list_claims``.
    """
    folder = evidence_folder(evidence_dir)
    return sorted(numbers, key=lambda number: -_longest(folder, paper(number), scale))


def _longest(folder: Path, item: Paper, scale: Scale) -> float:
    record = evidence.read(folder / f"{item.stem}.json") or {}
    if record.get("scale") != scale:
        record = record.get("smaller", {}).get(scale, {})
    return max((float(run["duration_s"]) for run in record.get("runs", ())), default=math.inf)


def run_claim(number: int, *, jobs: int = 1, **given: Any) -> Report:
    """Run a paper's claim over its seeds, write its evidence, return the report: ``start_claim``, with ``workers`` of its own."""
    with workers(jobs) as pool:
        return start_claim(number, pool=pool, **given)()


@contextmanager
def workers(jobs: int) -> Iterator[Pool | None]:
    """Where so many seeds run at once, whichever claims they are of; None for one. Raises ClaimError."""
    if jobs < 1:
        raise ClaimError(f"one seed or more runs at once, not {jobs}")
    if jobs == 1:
        yield None
        return
    # A fresh interpreter each: what one has loaded or cached is no part of another.
    with _shared(jobs), ProcessPoolExecutor(jobs, get_context("spawn"), max_tasks_per_child=1) as executor:
        try:
            yield Pool(executor, jobs)
        finally:
            executor.shutdown(cancel_futures=True)


@contextmanager
def _shared(jobs: int) -> Iterator[None]:
    """Have what is begun now take its share of the cores, where nobody has said how many: more threads only wait for each other."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


@dataclass(frozen=True, slots=True)
class Pool:
    """What ``workers`` gives: processes, and how many."""

    executor: ProcessPoolExecutor
    jobs: int


def start_claim(
    number: int,
    *,
    scale: Scale = "quick",
    seeds: Sequence[int] | None = None,
    data: Path | None = None,
    evidence_dir: Path | None = None,
    progress: Progress | None = None,
    today: date | None = None,
    pool: Pool | None = None,
    keep: Path | None = None,
) -> Callable[[], Report]:
    """Begin to run a paper's claim over its seeds; what is returned waits for them, writes the evidence and gives the report.

    By default seed 0, and 0, 1, 2 at ``full``, or what the claim's own ``SEEDS`` say for a scale.
    ``data`` is the user's folder of data sets, for claims that read some. The evidence of a larger scale is never
    replaced by a smaller run: that one is kept beside it, under ``smaller``. ``pool``: where the seeds run, each in a process of
    its own, their times being those of a shared machine; without one they run in turn, once the report is asked for. ``keep``: a
    folder for the outcome of each seed, which the same code takes from there when it is run again (``kept``). Raises ClaimError
    for an unknown number or an absent claim, and when the report is asked for, where the claim itself says what it lacks; then
    nothing is written.
    """
    if scale not in evidence.SCALES:
        raise ClaimError(f"scale must be one of {', '.join(evidence.SCALES)}, not {scale!r}")
    item, claim, folder = paper(number), load_claim(number), evidence_folder(evidence_dir)
    usual = {**DEFAULT_SEEDS, **getattr(claim, "SEEDS", {})}
    chosen = tuple(usual[scale] if seeds is None else seeds)
    if not chosen or len(set(chosen)) != len(chosen):
        raise ClaimError(f"give one or more different seeds, not {list(chosen)}")
    say = progress or (lambda _: None)
    running = [] if pool is None else [pool.executor.submit(_run, number, scale, seed, data, keep) for seed in chosen]

    def finished() -> Report:
        ran: list[tuple[Result, float]] = []
        for at, seed in enumerate(chosen):
            say(f"claim {number} ({item.name}), scale {scale}, seed {seed}")
            ran.append(running[at].result() if running else _run(number, scale, seed, data, keep))
        jobs = 1 if pool is None else pool.jobs
        return _reported(item, claim, folder, scale, chosen, ran, say, today, jobs)

    return finished


def _reported(
    item: Paper,
    claim: Claim,
    folder: Path,
    scale: Scale,
    seeds: tuple[int, ...],
    ran: Sequence[tuple[Result, float]],
    say: Progress,
    today: date | None,
    jobs: int,
) -> Report:
    """Write what came of a claim's seeds."""
    results, durations = [result for result, _ in ran], [took for _, took in ran]
    merged = merge(results)
    outcome = verdict(merged)
    record = {
        "number": item.number,
        "name": item.name,
        "arxiv": item.arxiv,
        "title": item.title,
        "statement": claim.statement,
        "scale": scale,
        "verdict": outcome,
        **_deciding(merged.checks),
        "seeds": list(seeds),
        "date": (today or datetime.now(UTC).date()).isoformat(),
        "duration_s": round(sum(durations), 2),
        "checks": _checks(merged.checks, results),
        "arms": merged.arms,
        "intervals": _intervals(results),
        "paired": _paired(results, claim.arms),
        "runs": [
            {"seed": seed, "duration_s": round(took, 2), "arms": result.arms}
            for seed, took, result in zip(seeds, durations, results, strict=True)
        ],
        "settings": merged.settings,
        "notes": list(merged.notes),
        "series": merged.series,
        "versions": _versions(),
        "machine": {"cores": os.cpu_count(), "jobs": jobs},
    }
    path, plot = evidence.place(folder, item, scale)
    written = evidence.write(path, evidence.plain(record), scale)
    messages = []
    try:
        claim.plot(merged, plot)
    except MissingExtraError as error:
        messages.append(f"plot skipped: {error}")
    say(f"claim {item.number}: {outcome}")
    return Report(item, scale, seeds, outcome, merged, written, path, None if messages else plot, tuple(messages))


def _run(number: int, scale: Scale, seed: int, data: Path | None, keep: Path | None) -> tuple[Result, float]:
    """One seed, and how long it took."""
    claim = load_claim(number)
    kept = None if keep is None else Kept(keep, _versions())
    if kept is not None and (before := kept.find(number, scale, seed, data is not None)) is not None:
        return before
    started = time.perf_counter()
    result, took = claim.run(scale, seed, data), time.perf_counter() - started
    if kept is not None:
        kept.keep(number, scale, seed, data is not None, result, took)
    return result, took


def merge(results: Sequence[Result]) -> Result:
    """Runs of one claim over several seeds as one result: means of every metric and check, and of every number of the series that
    all seeds have at the same place; words, and what is of another length in another seed, are the first seed's.

    Raises ClaimError where the runs do not have the same arms, metrics and checks.
    """
    if not results:
        raise ClaimError("there is no run to merge")
    first = results[0]
    shape = _shape(first)
    if any(_shape(result) != shape for result in results):
        raise ClaimError("the seeds' runs differ in their arms, metrics or checks, so they cannot be averaged")
    arms = {
        arm: {metric: _mean(result.arms[arm][metric] for result in results) for metric in metrics}
        for arm, metrics in first.arms.items()
    }
    checks = tuple(
        Check(
            name=check.name,
            value=_mean(result.checks[index].value for result in results),
            required=_mean(result.checks[index].required for result in results),
            at_least=check.at_least,
            note=check.note,
        )
        for index, check in enumerate(first.checks)
    )
    notes = tuple(dict.fromkeys(note for result in results for note in result.notes))
    series = _averaged([result.series for result in results])
    if OUTCOMES in first.series:  # whose questions each seed may have drawn anew
        series[OUTCOMES] = first.series[OUTCOMES]
    return Result(arms=arms, checks=checks, settings=first.settings, series=series, notes=notes)


def _averaged(series: Sequence[Any]) -> Any:
    """The mean of what several seeds have at one place."""
    first = series[0]
    if all(isinstance(one, Mapping) and one.keys() == first.keys() for one in series):
        return {key: _averaged([one[key] for one in series]) for key in first}
    if all(isinstance(one, list | tuple) and len(one) == len(first) for one in series):
        return [_averaged(some) for some in zip(*series, strict=True)]
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in series)
    return _mean(series) if numbers and any(one != first for one in series) else first


def _shape(result: Result) -> tuple[Any, ...]:
    arms = {arm: set(metrics) for arm, metrics in result.arms.items()}
    return arms, [(check.name, check.at_least) for check in result.checks]


def _mean(values: Iterable[float]) -> float:
    return float(np.mean([float(value) for value in values]))


def _interval(values: Sequence[float]) -> list[float]:
    """The 95 % interval of a mean over seeds, by Student's t."""
    centre, freedom = float(np.mean(values)), len(values) - 1
    half = (_T95[freedom] if freedom < len(_T95) else 1.96) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return [centre - half, centre + half]


def _intervals(results: Sequence[Result]) -> dict[str, dict[str, list[float]]]:
    if len(results) < 2:
        return {}
    return {
        arm: {metric: _interval([result.arms[arm][metric] for result in results]) for metric in metrics}
        for arm, metrics in results[0].arms.items()
    }


def _paired(results: Sequence[Result], arms: Sequence[str]) -> dict[str, Any]:
    """Our arm (the claim's first) minus each other, paired.

    Over seeds where there are two or more, for every metric both arms have; over questions where the claim hands out the series
    ``OUTCOMES``, arm to one number a question, in the same order for every arm.
    """
    ours, measured = arms[0], results[0].arms
    pairs: dict[str, Any] = {}
    if len(results) > 1 and ours in measured:
        over_seeds = {
            other: {
                metric: _interval([result.arms[ours][metric] - result.arms[other][metric] for result in results])
                for metric in metrics
                if metric in measured[ours]
            }
            for other, metrics in measured.items()
            if other != ours
        }
        pairs["seeds"] = {other: metrics for other, metrics in over_seeds.items() if metrics}
    outcomes = [result.series.get(OUTCOMES, {}) for result in results]
    if all(ours in one for one in outcomes):
        joined = {arm: np.concatenate([np.asarray(one[arm], float) for one in outcomes]) for arm in outcomes[0]}
        pairs["questions"] = {
            other: bootstrap(joined[ours] - values) for other, values in joined.items() if other != ours
        }
    return pairs


def bootstrap(differences: npt.NDArray[np.float64], draws: int = 2000) -> dict[str, float]:
    """Mean paired difference and its 95 % percentile interval over questions drawn again with replacement."""
    rng = np.random.default_rng(0)
    means = [float(np.mean(rng.choice(differences, len(differences)))) for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return {"difference": float(np.mean(differences)), "low": float(low), "high": float(high)}


def _closeness(check: Check) -> float:
    """A check's margin in units of what it requires, so that checks of different units can be ranked."""
    return -math.inf if math.isnan(check.margin) else check.margin / (abs(check.required) or 1.0)


def _deciding(checks: Sequence[Check]) -> dict[str, float | None]:
    if not checks:
        return {"margin": None, "required": None}
    check = min(checks, key=lambda one: (one.holds, _closeness(one)))
    return {"margin": check.margin, "required": check.required}


def _checks(merged: Sequence[Check], results: Sequence[Result]) -> list[dict[str, Any]]:
    return [
        {
            "name": check.name,
            "value": check.value,
            "required": check.required,
            "at_least": check.at_least,
            "holds": check.holds,
            "margin": check.margin,
            "note": check.note,
            "by_seed": [result.checks[index].value for result in results],
        }
        for index, check in enumerate(merged)
    ]


def _versions() -> dict[str, str]:
    versions = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "holdfast": holdfast.__version__,
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        versions["torch"] = str(torch.__version__)
    return versions


def _row(item: Paper, folder: Path) -> Row:
    source = find_claim(item.number)
    record = evidence.read(folder / f"{item.stem}.json") or {}
    return Row(
        number=item.number,
        name=item.name,
        file=None if source is None else f"holdfast/claims/{source.name}",
        statement=None if source is None else _statement(source),
        scale=record.get("scale"),
        verdict=record.get("verdict", "not run"),
        margin=record.get("margin"),
        required=record.get("required"),
        seeds=tuple(record.get("seeds", ())),
        date=record.get("date"),
    )


def _statement(source: Path) -> str | None:
    """The claim's sentence, read without importing the claim, which may need an extra that is not installed."""
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == "statement" for target in targets):
            try:
                return str(ast.literal_eval(cast(ast.Assign, node).value))
            except ValueError as error:
                raise ClaimError(f"{source.name}: its statement must be one plain string") from error
    return None
