"""Commands that measure: claims, bench.

Claims and benchmarks are programs that these commands run, not parts that they are built on: both are imported by name,
when asked for.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.cli.options import embedder
from holdfast.cli.screen import Screen
from holdfast.errors import HoldfastError, InputError

_BENCHMARKS = ("locomo", "longmemeval", "beam")


def register(commands: Any) -> None:
    """Add these commands to the parser."""
    measured = commands("bench", bench, "evidence recall on a public benchmark, from data that you have")
    measured.add_argument("name", choices=_BENCHMARKS)
    measured.add_argument("--data", required=True, metavar="PATH", help="the benchmark's file or folder")
    measured.add_argument("--out", metavar="DIR", help="write the report and its plot here")
    measured.add_argument("--limit", type=int, metavar="N", help="only the first N conversations")

    parser = commands("claims", None, "the claims of the papers that Holdfast implements: list them, run them")
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|run")
    add = commands.nested(actions, "claims")
    listed = add("list", list_claims, "every claim with its verdict")
    listed.add_argument("--out", metavar="DIR", help="folder of the evidence (default: evidence/ of the checkout)")
    ran = add("run", run_claims, "run a claim beside its baselines; exits 0 only where the verdict is 'holds'")
    ran.add_argument("number", type=int, nargs="*", help="a claim's number; several are run in turn")
    ran.add_argument("--all", action="store_true", help="every claim that is written")
    ran.add_argument("--scale", choices=("quick", "full", "gpu"), default="quick")
    ran.add_argument("--seed", type=int, action="append", metavar="N", help="may be repeated (default: by scale)")
    ran.add_argument("--data", metavar="PATH", help="folder of data sets, for claims that read some")
    ran.add_argument("--out", metavar="DIR", help="folder for evidence and plots (default: evidence/ of the checkout)")
    ran.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="seeds that run at once, of whichever claims, each on its share of the cores (default: 1)",
    )
    ran.add_argument(
        "--keep", metavar="DIR", help="keep each seed's outcome here: where a run was cut, the same command goes on"
    )


def list_claims(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast claims list``."""
    rows = _runner().list_claims(_path(args.out))
    if screen.json:
        screen.data([row.to_dict() for row in rows])
        return 0
    cells = [
        (row.number, row.name, row.verdict if row.file else "not written", row.scale, _number(row.margin), row.date)
        for row in rows
    ]
    screen.table(cells, ("no", "claim", "verdict", "scale", "margin", "date"))
    written = sum(1 for row in rows if row.file)
    held = sum(1 for row in rows if row.verdict == "holds")
    screen.line()
    screen.line(f"{len(rows)} papers, {written} claims written, {held} hold. Run one with: holdfast claims run NUMBER")
    return 0


def run_claims(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast claims run``; 0 only where every verdict is ``holds``."""
    runner = _runner()
    if args.all == bool(args.number):
        raise InputError("run which claim? Give its number, or --all; see them with: holdfast claims list")
    out = _path(args.out)
    numbers = [row.number for row in runner.list_claims(out) if row.file] if args.all else args.number
    if not numbers:
        raise InputError("no claim is written yet, so there is nothing to run")
    records: list[dict[str, Any]] = []
    with runner.workers(args.jobs) as pool, screen.bar(len(numbers), "claims", unit="") as bar:
        # All of them at once: where one claim's last seed leaves a core free, the next one's first is begun.
        given = {"scale": args.scale, "seeds": args.seed, "data": _path(args.data), "evidence_dir": out}
        given |= {"pool": pool, "keep": _path(args.keep)}
        # The longest are begun first: one that is begun last would have all other cores wait for it.
        started = {
            number: _begun(runner, number, args.all, progress=bar.set_description_str, **given)
            for number in runner.longest_first(numbers, args.scale, out)
        }
        for number in numbers:
            try:
                report = started[number]()
            except HoldfastError as error:
                if not args.all:
                    raise
                # One claim that lacks its data must not keep the others from being run.
                records.append({"number": number, "verdict": "not run", "error": str(error)})
                if not screen.json:
                    screen.say(f"{number}: not run: {error}", hang=4)
            else:
                records.append(dict(report.record))
                if not screen.json:
                    _report(screen, report)
            bar.update()
    if screen.json:
        screen.data(records if args.all or len(records) > 1 else records[0])
    elif len(records) > 1:
        _summary(screen, records)
    return 0 if all(record["verdict"] == "holds" for record in records) else 1


def _begun(runner: Any, number: int, later: bool, **given: Any) -> Callable[[], Any]:
    """What gives a claim's report. ``later``: what hinders it is said when it is its turn, and keeps no other from being run."""
    try:
        started: Callable[[], Any] = runner.start_claim(number, **given)
    except HoldfastError as error:
        if not later:
            raise
        hindrance = error

        def told() -> Any:
            raise hindrance

        return told
    return started


def bench(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast bench``."""
    data = Path(args.data).expanduser()
    if not data.exists():
        raise InputError(f"there is no {data}; --data takes the benchmark's own file or folder")
    if args.limit is not None and args.limit < 1:
        raise InputError("--limit must be at least 1")
    run = importlib.import_module("holdfast.bench.recall").run
    with screen.bar(None, f"bench {args.name}", unit="") as bar:

        def tick(what: str, done: int) -> None:
            bar.set_description_str(what, refresh=False)
            bar.update(done)

        report = run(args.name, data, _path(args.out), tick, embedder=embedder(args.embedder), limit=args.limit)
    if screen.json:
        screen.data(report)
    else:
        _measured(screen, report, _path(args.out))
    return 0


def _runner() -> Any:
    return importlib.import_module("holdfast.claims.runner")


def _path(given: str | None) -> Path | None:
    return None if given is None else Path(given).expanduser()


def _report(screen: Screen, report: Any) -> None:
    """One claim's run: statement, verdict, the checks that decided, the arms."""
    record = report.record
    seeds = ", ".join(str(seed) for seed in report.seeds)
    screen.heading(f"{record['number']}  {record['name']} (arXiv {record['arxiv']}): {report.verdict}")
    screen.say(record["statement"], indent=4)
    screen.line()
    checks = [
        ("ok" if check["holds"] else "FAILS", check["name"], _number(check["value"]), _bound(check))
        for check in record["checks"]
    ]
    screen.table(checks, ("", "check", "value", "required"), wide=1)
    metrics = list(dict.fromkeys(metric for arm in report.result.arms.values() for metric in arm))
    if metrics and len(metrics) <= 5:
        arms = [
            (arm, *(_number(values.get(metric)) for metric in metrics)) for arm, values in report.result.arms.items()
        ]
        screen.line()
        screen.table(arms, ("arm", *metrics))
    for note in (*record["notes"], *report.messages):
        screen.say(f"note: {note}", hang=2)
    screen.line()
    screen.say(
        f"scale {report.scale}, seeds {seeds}, {record['duration_s']:.1f} s; evidence in {report.evidence}", hang=2
    )
    if report.plot:
        screen.say(f"plot in {report.plot}", hang=2)


def _summary(screen: Screen, records: list[dict[str, Any]]) -> None:
    counts: dict[str, int] = {}
    for record in records:
        counts[record["verdict"]] = counts.get(record["verdict"], 0) + 1
    screen.heading("Verdicts")
    screen.table(
        [(record["number"], record.get("name", ""), record["verdict"], record.get("error", "")) for record in records],
        wide=3,
    )
    screen.line(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


def _bound(check: dict[str, Any]) -> str:
    return f"{'≥' if check['at_least'] else '≤'} {_number(check['required'])}"


def _measured(screen: Screen, report: dict[str, Any], out: Path | None) -> None:
    """A benchmark's report: the headline, every arm, our arm by kind of question, the cost and the setting."""
    headline, results, settings = report["headline"], report["results"], report["settings"]
    group, metric = headline["group"], headline["metric"]
    screen.say(f"{report['benchmark']}: {metric} {headline['value']:.3f} on {group}", style="bold")
    screen.say(report["note"])
    for title, rows in (
        (f"{group}, every arm", dict(sorted(results[group].items(), key=lambda item: item[0] != "holdfast"))),
        ("holdfast, by kind of question", {name: arms["holdfast"] for name, arms in sorted(results.items())}),
    ):
        screen.heading(title)
        columns = dict.fromkeys((metric, "recall@5", "recall@10", "nDCG@10"))
        cells = [
            (name, values["questions"], *(_mean(values.get(column), column == metric) for column in columns))
            for name, values in rows.items()
        ]
        screen.table(cells, ("", "questions", *columns), wide=0)
    screen.heading("cost and setting")
    shown = {**report["cost"], **settings, "abstention AUC": report.get("abstention_auc")}
    screen.table([(name.replace("_", " "), _number(value)) for name, value in shown.items()], wide=1)
    if out is not None:
        screen.line()
        screen.say(f"written to {out}")


def _mean(values: list[float] | None, whole: bool) -> str:
    """A mean, with its interval where there is room to look at it."""
    if values is None:
        return ""
    mean, low, high = values
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]" if whole else f"{mean:.3f}"


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
