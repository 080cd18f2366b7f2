"""Measure Holdfast beside its peers, in one run on one machine.

    python -m benchmarks.run --python chromadb=/path/to/python --scale 1k,100k --out evidence

Each engine works in processes of its own, on the same data, one step after the other; the steps of all engines take turns
case by case. What is not installed is reported as that. Writes speed.json, speed.md and speed.png, after every step.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.data import generate
from benchmarks.limits import pace, read_bandwidth
from holdfast.retrieve.vectors import EXACT_ROWS

ROOT = Path(__file__).parent.parent
SCALES = {"1k": 1_000, "10k": 10_000, "100k": 100_000, "1m": 1_000_000}
ENGINES = {
    "holdfast": "holdfast",
    "holdfast[fast]": "holdfast_fast",
    "chromadb": "chroma",
    "lancedb": "lance",
    "sqlite-vec": "sqlite_vec",
    "mem0": "mem0",
}
STEPS = ("load", "serve", "add", "kill")
SAME_STORE = {report.FAST: report.OURS}
"""An engine that only searches, in the store that another one has just loaded."""


@dataclass(frozen=True, slots=True)
class Case:
    """So many rows in so many scopes."""

    rows: int
    scopes: int

    @property
    def name(self) -> str:
        """For example ``1000000 in 1 scope``."""
        return f"{self.rows:,} in {self.scopes:,} scope{'s' if self.scopes > 1 else ''}"


def cases(scales: list[str]) -> list[Case]:
    """One scope at each scale, then the same rows in many: a 1 % tenant, and at a million scopes of a hundred."""
    many = {1_000: 10, 10_000: 100, 100_000: 100, 1_000_000: 10_000}
    return [Case(SCALES[scale], scopes) for scale in scales for scopes in (1, many[SCALES[scale]])]


def main() -> None:
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "speed.json"
    results: dict[str, Any] = json.loads(file.read_text()) if options.keep and file.exists() else {}

    def save() -> None:
        file.write_text(json.dumps(results, indent=1) + "\n")
        report.write(results, options.out)

    results.setdefault("about", about(options))
    results.setdefault("commands", []).append(spoken(sys.argv[1:]))
    results.setdefault("limits", {"read_bytes_per_s": read_bandwidth()})
    with tempfile.TemporaryDirectory(dir=options.work) as temporary:
        work = Path(temporary)
        missing = {name: why for name in options.engines if (why := not_installed(name, options))}
        results["not_installed"] = missing
        save()
        for case in cases(options.scale):
            data = (options.data or work) / f"rows-{case.rows}-{case.scopes}"
            postings = generate(data, case.rows, case.scopes, options.seed).postings
            new = {"rows": case.rows, "scopes": case.scopes, "postings": postings, "engines": {}}
            here = results.setdefault("cases", {}).setdefault(case.name, new)
            for name in options.engines:
                if name in missing or name in SAME_STORE:
                    continue
                found = here["engines"].setdefault(name, {})
                measure(name, STEPS, case, data, work / "store", found, options)
                for other in options.engines:
                    # The extra changes nothing in smaller scopes.
                    small = case.rows // case.scopes <= EXACT_ROWS
                    if SAME_STORE.get(other) == name and other not in missing and not small and "load" in found:
                        steps = here["engines"].setdefault(other, {"load": found["load"]})
                        measure(other, ("serve",), case, data, work / "store", steps, options)
                shutil.rmtree(work / "store", ignore_errors=True)
                save()
            if options.data is None:
                shutil.rmtree(data)
        if "holdfast" in options.engines and not options.engines_only:
            data = options.data or work
            generate(data / "rows-1000-1", 1_000, 1, options.seed)
            for name, arguments in (("embedding", [str(data / "rows-1000-1")]), ("footprint", [])):
                if name not in results:
                    answer = work / "answer.json"
                    command = [python_of("holdfast", options), "-m", f"benchmarks.{name}", *arguments, str(answer)]
                    results[name] = outcome(command, answer, 1800)
                    save()
    results["about"]["ended"] = datetime.now(UTC).isoformat(timespec="seconds")
    results["about"]["load_average_at_end"] = os.getloadavg()
    save()


def measure(
    name: str,
    steps: Sequence[str],
    case: Case,
    data: Path,
    store: Path,
    found: dict[str, Any],
    options: argparse.Namespace,
) -> None:
    """Some steps of one engine in one case; a failure ends them and is written down."""
    for step in steps:
        if step in found or (step == "kill" and case.scopes > 1):
            continue
        if step != "load" and not store.exists():
            return  # kept from an earlier run, whose store is gone
        store.mkdir(exist_ok=True)
        print(f"{datetime.now():%H:%M:%S}  {case.name}  {name}  {step}", flush=True)
        answer = store.parent / "answer.json"
        command = [python_of(name, options), "-m", "benchmarks.worker", step, ENGINES[name]]
        command += [str(data), str(store), str(answer), "--seconds", str(options.seconds)]
        found[step] = outcome(command, answer, 600 + 3 * options.seconds)
        if "error" in found[step] or not found[step].get("complete", True):
            break


def outcome(command: list[str], answer: Path, seconds: float) -> dict[str, Any]:
    """Run a step; what it answered, or how it failed."""
    answer.unlink(missing_ok=True)
    before = pace()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done in {seconds:.0f} s"}
    if done.returncode or not answer.exists():
        return {"error": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:500]}
    found: dict[str, Any] = json.loads(answer.read_text())
    return found | {"date": datetime.now(UTC).isoformat(timespec="seconds"), "pace_ms": [before, pace()]}


_OF_THIS_MACHINE = {"--python", "--out", "--work", "--data"}


def spoken(arguments: Sequence[str]) -> str:
    """The command of this run, without the folders and interpreters of this machine."""
    kept = []
    for at, word in enumerate(arguments):
        if not {word.partition("=")[0], arguments[at - 1] if at else ""} & _OF_THIS_MACHINE:
            kept.append(word)
    return shlex.join(["python", "-m", "benchmarks.run", *kept])


def not_installed(name: str, options: argparse.Namespace) -> str | None:
    """Why an engine cannot be measured here; None where it can."""
    command = [python_of(name, options), "-c", f"import benchmarks.engines.{ENGINES[name]}"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


def python_of(name: str, options: argparse.Namespace) -> str:
    """The interpreter that has an engine."""
    found: str = options.python.get(name, sys.executable)
    return found


def about(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that the numbers depend on."""
    cpu = Path("/proc/cpuinfo")
    model = (
        next((line for line in cpu.read_text().splitlines() if line.startswith("model name")), "")
        if cpu.exists()
        else ""
    )
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": model.partition(": ")[2] or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "sqlite": sqlite3.sqlite_version,
        "load_average": os.getloadavg(),
        "seed": options.seed,
        "load_seconds": options.seconds,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=_list_of(SCALES), default=list(SCALES)[:1], help=f"of {', '.join(SCALES)}")
    parser.add_argument("--engines", type=_list_of(ENGINES), default=list(ENGINES), help=f"of {', '.join(ENGINES)}")
    parser.add_argument("--python", action="append", default=[], metavar="ENGINE=PATH", help="an engine's interpreter")
    parser.add_argument("--out", type=Path, default=ROOT / "evidence")
    parser.add_argument(
        "--work", type=Path, help="a folder on the disk to measure; by default the system's for temporary files"
    )
    parser.add_argument("--data", type=Path, help="keep the generated data here")
    parser.add_argument("--seconds", type=float, default=1200, help="how long an engine may take to load a case")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--keep", action="store_true", help="do not measure again what --out holds already")
    parser.add_argument(
        "--engines-only", action="store_true", help="leave out the embedder, the import and the install"
    )
    options = parser.parse_args()
    options.python = dict(entry.split("=", 1) for entry in options.python)
    return options


def _list_of(known: dict[str, Any]) -> Any:
    def names(text: str) -> list[str]:
        found = text.split(",")
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
        return found

    return names


if __name__ == "__main__":
    main()
