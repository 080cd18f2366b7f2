"""The numbers of a run as a page and a plot; every measure beside the best peer and beside the limit.

python -m benchmarks.report DIR        # from DIR/speed.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.limits import POSTING_BYTES, scan_bytes
from holdfast.bench import plots

OURS, FAST = "holdfast", "holdfast[fast]"
GOOD_RECALL = 0.9
"""A peer's search counts for the comparison only where it finds this share of what it should."""

ENOUGH = 20
"""Fewer searches in quiet moments than this judge nothing."""

Results = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One measure: our value, what was aimed at, the best peer's, and the limit. None: not measured, or there is none.

    ``quiet``: the same of the searches in quiet moments, and how many these were.
    """

    what: str
    unit: str
    value: float | None
    target: str = ""
    holds: bool | None = None
    peer: tuple[str, float] | None = None
    limit: float | None = None
    more_is_better: bool = False
    quiet: tuple[float, int] | None = None


def write(results: Results, out: Path) -> None:
    """Write speed.md and speed.png into a folder."""
    lines = list(measures(results))
    parts = [_head(results), _summary(lines), *(_case(name, case) for name, case in _cases(results))]
    parts += [_settings(results), _NOTES]
    (out / "speed.md").write_text("\n\n".join(part for part in parts if part) + "\n")
    _plot(results, out / "speed.png")


def measures(results: Results) -> Iterator[Line]:
    """What the design asks for, in its order."""
    for name, case in _cases(results):
        if case["scopes"] == 1:
            yield from _adds(name, case)
    for name, case in _cases(results):
        if case["scopes"] == 1:
            rate = _peer(case, "load", "searchable_rows_per_s", most=True)
            for key, words in (("stored", "durable, found by words"), ("searchable", "and by vector")):
                value = _get(case, OURS, "load", f"{key}_rows_per_s")
                yield Line(f"import of {name}: {words}", "rows/s", value, peer=rate, more_is_better=True)
    found = results.get("embedding", {})
    if "share" in found:
        yield Line(
            "import with MiniLM int8, of the embedder's own rate", "", found["share"], "≥ 0.85", found["share"] >= 0.85,
            limit=1.0, more_is_better=True,
        )  # fmt: skip
    for name, case in _cases(results):
        for engine in (OURS, FAST):
            yield from _searches(name, engine, case, results)
    for name, case in _cases(results):
        for engine in (OURS, FAST):
            value = _get(case, engine, "serve", "search_dense", "recall")
            peer = _peer(case, "serve", "search_dense", "recall", most=True)
            if value is not None:
                what = f"recall@10 of vectors, {name}{_with(engine)}"
                yield Line(what, "", value, "≥ 0.99", value >= 0.99, peer, 1.0, more_is_better=True)
    for name, case in _cases(results):
        for key, words, unit in (
            ("open_to_first_hit_ms", "cold open to first hit", "ms"),
            ("rss_mb", "memory when serving", "MB"),
        ):
            yield Line(f"{words}, {name}", unit, _get(case, OURS, "serve", key), peer=_peer(case, "serve", key))
        disk = _get(case, OURS, "load", "disk_mb")
        yield Line(f"disk, {name}", "MB", disk, peer=_peer(case, "load", "disk_mb"))
    yield from _footprint(results.get("footprint", {}))


def _adds(name: str, case: Results) -> Iterator[Line]:
    for share in ("p50", "p99"):
        value, limit = (_get(case, OURS, "add", key, share) for key in ("add", "add_limit"))
        holds = None if value is None or limit is None or share != "p50" else value <= 3 * limit
        peer = _peer(case, "add", "add", share)
        target = "≤ 3 × limit" if share == "p50" else ""
        yield Line(f"durable add, {share}, {name}", "ms", value, target, holds, peer, limit)
    value = _get(case, OURS, "add", "add_burst", "p50")
    yield Line(f"durable add in a burst, p50, {name}", "ms", value, peer=_peer(case, "add", "add_burst", "p50"))
    value = _get(case, OURS, "add", "add_and_settled", "p50")
    peer = _peer(case, "add", "add_and_settled", "p50")
    yield Line(f"durable add until found by vector too, p50, {name}", "ms", value, peer=peer)


def _with(engine: str) -> str:
    return "" if engine == OURS else ", extra fast"


def _searches(name: str, engine: str, case: Results, results: Results) -> Iterator[Line]:
    size = case["rows"] // case["scopes"]
    speed = results["limits"]["read_bytes_per_s"]
    aims = {(100_000, 1): 5.0 if engine == OURS else 2.0, (1_000_000, 1): 10.0, (1_000_000, 10_000): 1.0}
    for key, mode, touched in (
        ("search_hybrid", "words and vector", ""),
        ("search_hybrid_cold", "words and vector", ", scope not touched before"),
        ("search_dense", "vector only", ""),
    ):
        for share in ("p50", "p99"):
            value = _get(case, engine, "serve", key, share)
            if value is None:
                continue
            cold = key.endswith("cold")
            needed = scan_bytes(size) + (case["postings"] * POSTING_BYTES if "hybrid" in key else 0)
            peer = _peer(case, "serve", "search_dense_cold" if cold else "search_dense", share, recall=True)
            quiet = _quiet(case["engines"][engine]["serve"][key]) if share == "p50" else None
            target, judged = None if cold or share == "p99" else aims.get((case["rows"], case["scopes"])), value
            aim = f"≤ {target:g} ms" if target else ""
            if target and quiet and quiet[1] >= ENOUGH:
                aim, judged = f"{aim} in quiet moments", quiet[0]
            yield Line(
                f"search {name}, {mode}{touched}, {share}{_with(engine)}", "ms", value, aim,
                None if target is None else judged <= target, peer, None if cold else 1e3 * needed / speed, quiet=quiet,
            )  # fmt: skip


def _footprint(found: Results) -> Iterator[Line]:
    if "import_holdfast_ms" in found:
        yield Line("import holdfast, median of 10", "ms", found["import_holdfast_ms"]["median"])
        yield Line("from holdfast import Memory, median of 10", "ms", found["import_memory_ms"]["median"])
    install = found.get("install", {})
    if "mb" in install:
        yield Line("bare install", "MB", install["mb"], "≤ 80 MB", install["mb"] <= 80)
        yield Line("packages in a bare install", "", install["packages"])


# --- reading results ---


def _cases(results: Results) -> list[tuple[str, Results]]:
    return sorted(results.get("cases", {}).items(), key=lambda pair: (pair[1]["rows"], pair[1]["scopes"]))


def _get(case: Results, engine: str, *path: str) -> float | None:
    found: Any = case["engines"].get(engine, {})
    if not found.get("load", {}).get("complete", False):
        return None
    for key in path:
        found = found.get(key, {})
    return found if isinstance(found, int | float) else None


def _peer(case: Results, *path: str, most: bool = False, recall: bool = False) -> tuple[str, float] | None:
    """The best peer's value; with ``recall``, of those peers whose search finds enough."""
    found = []
    for name in case["engines"]:
        value = _get(case, name, *path)
        good = not recall or (_get(case, name, "serve", "search_dense", "recall") or 0.0) >= GOOD_RECALL
        if name not in (OURS, FAST) and value is not None and good:
            found.append((name, value))
    return (max if most else min)(found, key=lambda pair: pair[1]) if found else None


def _quiet(search: Results) -> tuple[float, int] | None:
    """The median of the searches in quiet moments and their number, where there are any."""
    found = search.get("quiet", {})
    return (found["p50"], found["count"]) if "p50" in found else None


# --- the page ---


def _head(results: Results) -> str:
    about, speed = results["about"], results["limits"]["read_bytes_per_s"]
    missing = "".join(f"\n\n`{name}` is not installed ({why})." for name, why in results["not_installed"].items())
    load = f"{about['load_average'][0]:.2f}"
    if "load_average_at_end" in about:
        load += f" at the start, {about['load_average_at_end'][0]:.2f} at the end"
    return (
        f"# Speed\n\n{about['date'][:10]}, {about['cores']} cores of {about['cpu']}, {about['memory_gb']:g} GB, "
        f"Python {about['python']}, numpy {about['numpy']}, SQLite {about['sqlite']}; load average {load}; "
        f"one core reads {speed / 1e9:.1f} GB/s; seed {about['seed']}.{_pace(results)}{missing}"
    )


def _pace(results: Results) -> str:
    """How steady the machine was, what is remarked, and the commands; of the steps that say so."""
    steps = [
        step
        for case in results.get("cases", {}).values()
        for engine in case["engines"].values()
        for step in engine.values()
    ]
    paces = sorted({round(pace, 2) for step in steps for pace in step.get("pace_ms", ())})
    told = ""
    if paces:
        told = (
            f"\n\nA fixed piece of work took {paces[0]} to {paces[-1]} ms before and after the steps (median "
            f"{paces[len(paces) // 2]}): so far the speed of this machine moves while others share its processor."
        )
    told += "".join(f"\n\n{remark}" for remark in results.get("remarks", ()))
    commands = "".join(f"\n    {command}" for command in dict.fromkeys(results.get("commands", ())))
    return told + (f"\n\nMade by:\n{commands}" if commands else "")


def _summary(lines: list[Line]) -> str:
    rows = [
        "| measure | Holdfast | in quiet moments | target | holds | best peer | ratio to it | limit | ratio to it |\n"
        "|---|---|---|---|---|---|---|---|---|"
    ]
    for line in lines:
        peer = f"{_number(line.peer[1])} {line.unit} ({line.peer[0]})" if line.peer else "–"
        rows.append(
            f"| {line.what} | {_number(line.value)} {line.unit} | {_calm(line.quiet)} | "
            f"{line.target} | {_verdict(line.holds)} | {peer} | "
            f"{_ratio(line.value, line.peer[1] if line.peer else None)} | "
            f"{_number(line.limit)} | {_ratio(line.value, line.limit)} |"
        )
    return "## What was aimed at\n\n" + "\n".join(rows)


def _case(name: str, case: Results) -> str:
    rows = [
        f"## {name}\n\n| engine | import, rows/s | disk MB | memory MB | open to first hit ms | search p50 / p99 ms | "
        "p50 in quiet moments | recall@10 | add p50 / p99 ms | of a synced commit | burst p50 ms | lost to kill -9 |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|"
    ]
    for engine, steps in case["engines"].items():
        failed = [f"{step}: {found['error']}" for step, found in steps.items() if "error" in found]
        load = steps.get("load", {})
        if failed or not load.get("complete", True):
            why = "; ".join(failed) or f"stopped after {load['stored_s']:.0f} s with {load['rows']:,} rows"
            rows.append(f"| {engine} | {why} |" + " |" * 10)
            continue
        rows += _engine(engine, steps)
    return "\n".join(rows)


def _engine(engine: str, steps: Results) -> Iterator[str]:
    load, serve, add, kill = (steps.get(step, {}) for step in ("load", "serve", "add", "kill"))
    modes = [key for key in serve if key.startswith("search_")]
    for row, key in enumerate(modes or [""]):
        label = f"{engine}, {key.removeprefix('search_').replace('_', ' ')}" if key else engine
        search = serve.get(key, {})
        costs = ["", "", "", ""]
        written = ["", "", "", ""]
        if row == 0:
            costs = [
                _number(load.get("searchable_rows_per_s")),
                _number(load.get("disk_mb")),
                _number(serve.get("rss_mb")),
                _number(serve.get("open_to_first_hit_ms")),
            ]
            limit = add.get("add_limit", {}).get("p50")
            written = [
                _pair(add.get("add", {})),
                _ratio(add.get("add", {}).get("p50"), limit),
                _number(add.get("add_burst", {}).get("p50")),
                f"{kill['missing_after_kill']} of {kill['acknowledged']}" if "acknowledged" in kill else "",
            ]
        recall = search.get("recall") if "dense" in key else None
        yield "| " + " | ".join([label, *costs, _pair(search), _calm(_quiet(search)), _number(recall), *written]) + " |"


def _settings(results: Results) -> str:
    seen: dict[str, str] = {}
    for _, case in _cases(results):
        for engine, steps in case["engines"].items():
            for found in steps.values():
                if "about" in found:
                    seen[engine] = f"- {engine} {found['about']['version']}: {found['about']['settings']}."
    return "## How each was set\n\n" + "\n".join(seen.values()) if seen else ""


_NOTES = """## How to read it

- All engines had the same texts (8 to 30 words of a Zipf vocabulary of 60,000, no stop list: the commonest word stands in
  four of five texts) and the same 384-d unit vectors; no embedder ran, except where the embedder is named.
- Holdfast's search is over words and vectors unless it says "vector only"; the peers' is over vectors, so theirs does less.
- `holdfast` searches by numpy alone, `holdfast[fast]` by loops that numba compiles; they differ in scopes of
  more than 10,000 memories only.
- A durable add has returned, survives `kill -9`, and is found by the next search: by words and vector for the peers, by
  words for Holdfast, whose vector follows from a queue; the line "until found by vector too" waits for it.
- The limit of an add is one synced SQLite commit of the same bytes on the same disk, taken turn about with the adds. The
  limit of a search is what a scan must read (24 bytes a row, 250 rows again in float16, 5 bytes a posting of the query's
  words) at the speed at which one core reads memory; a graph reads less than that, and pays for it when it is built.
- "In quiet moments" are those searches before and after which a fixed loop took at most 1.2 times what the fastest 2 % of
  all such loops of the step took, with their number: other users of the machine slow it down by up to a factor of two, and
  the loop says when, whatever the search itself took. Targets for search are judged by this figure where it says so; each
  search was made once, and the other columns and the ratios are of all of them.
- The best peer of a search is the fastest whose recall is at least 0.9. "Cold" is a scope that this process has not
  searched before. Opening is timed in a fresh process after the store's pages were dropped from the page cache, without
  the time to import the package. Memory is the whole process."""


def _verdict(holds: bool | None) -> str:
    return "" if holds is None else "yes" if holds else "**no**"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if value and abs(value) < 0.995:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _pair(found: Results) -> str:
    return f"{_number(found['p50'])} / {_number(found['p99'])}" if "p50" in found else ""


def _calm(quiet: tuple[float, int] | None) -> str:
    return f"{_number(quiet[0])} ms (of {quiet[1]:,})" if quiet else ""


def _ratio(value: float | None, other: float | None) -> str:
    return f"{_number(value / other)} ×" if value is not None and other else "–"


# --- the plot ---


def _plot(results: Results, file: Path) -> None:
    panels: list[plots.Panel] = []
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for _, case in _cases(results):
        if case["scopes"] > 1:
            continue
        for engine in case["engines"]:
            for key in ("search_hybrid", "search_dense"):
                value = _get(case, engine, "serve", key, "p50")
                if value is not None:
                    name = f"{engine}, vectors only" if engine in (OURS, FAST) and key == "search_dense" else engine
                    xs, ys = curves.setdefault(name, ([], []))
                    xs.append(case["rows"])
                    ys.append(value)
    ours = [name for name in curves if name.startswith(OURS)]
    if curves:
        panels.append(
            plots.Lines(curves, "Search, median", "memories in one scope", "ms", ours=ours, log_x=True, log_y=True)
        )
    for title, many, path in (
        ("Durable add, median ms", False, ("add", "add", "p50")),
        ("Search by vector, many scopes, ms", True, ("serve", "search_dense", "p50")),
        ("Recall@10, many scopes", True, ("serve", "search_dense", "recall")),
    ):
        for name, case in reversed(_cases(results)):
            if (case["scopes"] > 1) is not many:
                continue
            values = {engine: value for engine in case["engines"] if (value := _get(case, engine, *path)) is not None}
            if values:
                limit = _get(case, OURS, "add", "add_limit", "p50") if "add" in path else None
                bounds = {"one synced commit": limit} if limit is not None else {}
                panels.append(plots.Bars(values | bounds, f"{title}\n{name}", ours=[OURS, FAST], bounds=list(bounds)))
                break
    if panels:
        about = results["about"]
        plots.draw(
            file, panels, title="Speed beside peers", columns=2,
            subtitle=f"{about['cores']} cores, {about['date'][:10]}; the peers search vectors only",
        )  # fmt: skip


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write(json.loads((folder / "speed.json").read_text()), folder)
