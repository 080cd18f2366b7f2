"""Evidence recall on LoCoMo, LongMemEval and BEAM: does a search return the turns that hold the answer?

No model judges and no reader answers. Every arm ranks the same turns of the same store in the same run: ours through
``Memory.search``, plain BM25, the bare question's nearest vectors (of bare turns, and of turns that name their speaker), and
the newest turns; then ours with one group of channels taken out at a time. What the constants were tuned on is reported apart
from what was held out.
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from holdfast import __version__
from holdfast.bench import metrics
from holdfast.bench.data import (
    Conversation,
    Question,
    Turn,
    load_beam,
    load_locomo,
    load_longmemeval,
    load_longmemeval_split,
)
from holdfast.cube import Kind, from_micros, to_micros
from holdfast.encode.base import Embedder
from holdfast.errors import InputError, MissingExtraError
from holdfast.memory import Memory
from holdfast.retrieve.arrays import Floats, top
from holdfast.retrieve.fusion import UNLIKELY, Weights
from holdfast.retrieve.partition import View
from holdfast.retrieve.query import analyse
from holdfast.retrieve.search import rank
from holdfast.retrieve.text import terms
from holdfast.store.schema import PARTITION_BITS

K = 50
SEED = 0
_LOW = (1 << PARTITION_BITS) - 1
NAMED = "dense, speaker named"

Progress = Callable[[str, int], None]
Load = Callable[[Path], list[Conversation]]

ABLATIONS: dict[str, tuple[str, ...]] = {
    "without words": ("words", "best_words", "window", "segment"),
    "without meaning": ("meaning", "passage", "meaning_after", "session_meaning"),
    "without passages": ("passage",),
    "without neighbours and session": ("window", "meaning_after", "session_words", "session_meaning", "answer"),
    "without names": ("entities",),
    "without who": ("author", "user", "recounted", "summed_up"),
    "without when": ("dated", "time"),
    "without standing rules": ("instruction", "preference"),
}
"""Which channels each ablation takes out; the candidates stay the same."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """How a benchmark is loaded and scored.

    ``groups`` names the groups that a question belongs to; ``dev`` tells whether the recipe was tuned on it; ``headline`` is
    the (group, metric) that the report leads with, ``floor`` what it must reach.
    """

    name: str
    load: Load
    groups: Callable[[Conversation, Question], tuple[str, ...]]
    dev: Callable[[Conversation, Question], bool]
    headline: tuple[str, str]
    floor: float
    note: str
    abstentions: bool = False

    def scored(self, question: Question) -> bool:
        """Whether the question has evidence to be found. LoCoMo's category 5 has; other questions without an answer do not."""
        return bool(question.evidence) and (self.abstentions or not question.abstain)


@dataclass(slots=True)
class _Tally:
    """Per question of one group and arm: each metric's values, and the conversation of each."""

    values: dict[str, list[float]] = field(default_factory=dict)
    clusters: list[str] = field(default_factory=list)

    def add(self, scored: dict[str, float], cluster: str) -> None:
        for name, value in scored.items():
            self.values.setdefault(name, []).append(value)
        self.clusters.append(cluster)


@dataclass(frozen=True, slots=True)
class _First:
    """The chance that our first hit was given, whether there was anything to find, and whether it was found."""

    chance: float
    answerable: bool
    right: bool
    dev: bool


def run(
    name: str,
    data: str | Path,
    out: str | Path | None = None,
    progress: Progress | None = None,
    *,
    embedder: Embedder | str | None = "auto",
    limit: int | None = None,
) -> dict[str, Any]:
    """Run one benchmark; return the report, and write it with a plot into ``out`` where one is given.

    ``name`` is locomo, longmemeval or beam; ``data`` its file or folder; ``limit`` takes only the first conversations.
    Raises InputError for an unknown name or data that cannot be read.
    """
    benchmark = find_benchmark(name, Path(data))
    conversations = benchmark.load(Path(data))[:limit]
    tallies: dict[tuple[str, str], _Tally] = {}
    cost: dict[str, list[float]] = {"import": [], "embed": [], "search": [], "turns": []}
    firsts: list[_First] = []
    model: str | None = None
    for conversation in conversations:
        with tempfile.TemporaryDirectory() as folder:
            latest = _latest(conversation)
            memory = Memory(
                folder,
                user=conversation.id,
                embedder=embedder,
                encoders=(),
                durability="normal",
                background=False,
                clock=lambda latest=latest: latest,  # type: ignore[misc]
            )
            with memory:
                model = memory.status()["embedder"]
                _import(memory, conversation, cost, progress)
                named = _named(memory, conversation)
                turns = {row.rid & _LOW: str(row.cube.data["turn"]) for row in memory.store.rows(memory.scope())}
                for question in conversation.questions:
                    rankings, best = _ask(memory, question, cost, turns, named)
                    firsts.append(
                        _First(
                            best,
                            answerable=bool(question.evidence) and not question.abstain,
                            right=bool(set(rankings["holdfast"][:1]) & set(question.evidence)),
                            dev=benchmark.dev(conversation, question),
                        )
                    )
                    if benchmark.scored(question):
                        _score(tallies, benchmark, conversation, question, rankings)
                    if progress is not None:
                        progress(f"{conversation.id}: questions", 1)
    report = _report(benchmark, conversations, tallies, cost, firsts, model)
    if out is not None:
        _write(report, Path(out), benchmark)
    return report


# --- the benchmarks ---


def find_benchmark(name: str, data: Path) -> Benchmark:
    """A benchmark by its name; ``data`` is its file or folder. Raises InputError for an unknown name."""
    if name == "locomo":
        return Benchmark(
            name="locomo",
            load=load_locomo,
            groups=lambda _, q: (*(("categories 1-4",) if q.category != "5" else ()), "all", f"category {q.category}"),
            dev=lambda c, _: c.id in ("conv-26", "conv-30"),
            headline=("categories 1-4", "recall@10"),
            floor=0.75,
            abstentions=True,
            note="turn level; category numbers as the official scorer uses them; questions without evidence left out",
        )
    if name == "longmemeval":
        folder = data if data.is_dir() else data.parent
        split = folder / "dev_heldout_split_50_450.json"
        tuned = load_longmemeval_split(folder)[0] if split.is_file() else frozenset()
        return Benchmark(
            name="longmemeval",
            load=load_longmemeval,
            groups=lambda _, q: ("all", q.category),
            dev=lambda _, q: q.id in tuned,
            headline=("all", "recall_all@10"),
            floor=0.82,
            note="turn level; from evidence_500.jsonl this is the evidence pool, not a LongMemEval_S score",
        )
    if name == "beam":
        return Benchmark(
            name="beam",
            load=load_beam,
            groups=lambda _, q: ("all", q.category),
            dev=lambda c, _: c.id.rpartition("/")[2] in {"1", "2", "3", "4", "5"},
            headline=("all", "recall@10"),
            floor=0.50,
            note="message level, by source_chat_ids; abstention questions have no evidence and are left out",
        )
    raise InputError(f"there is no benchmark {name!r}; use locomo, longmemeval or beam")


# --- one conversation ---


def _import(
    memory: Memory, conversation: Conversation, cost: dict[str, list[float]], progress: Progress | None
) -> None:
    start = time.perf_counter()
    for session, turns in groupby(conversation.turns, key=lambda turn: turn.session):
        messages = [_message(turn) for turn in turns]
        added = memory.add(messages, session=session)
        lost = len(messages) - len(added.ids) - len(added.reasons)  # a turn that is only ";)" is no memory, and says so
        if lost:
            raise InputError(f"{conversation.id}: {lost} turns of session {session} were not kept")
    middle = time.perf_counter()
    memory.flush(progress)
    cost["import"].append(middle - start)
    cost["embed"].append(time.perf_counter() - middle)
    cost["turns"].append(len(conversation.turns))


def _message(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": turn.text, "id": turn.id, "at": turn.time}
    if turn.speaker != turn.role:
        message["name"] = turn.speaker
    if turn.caption:
        message["caption"] = turn.caption
    return message


@dataclass(frozen=True, slots=True)
class _Named:
    """The turns of a conversation as a question speaks of them, with who said it: ids, and vectors (n, dimension)."""

    ids: list[str]
    vectors: Floats


def _named(memory: Memory, conversation: Conversation) -> _Named | None:
    """None without an embedder, and where nobody has a name.

    Of four ways to put it, this one was the best on LoCoMo: recall@10 0.490, and 0.296 for the bare turn.
    """
    embedder = memory.recall.embedder
    if embedder is None or all(turn.speaker == turn.role for turn in conversation.turns):
        return None
    texts = [f'{turn.speaker} said, "{turn.text}" {turn.caption}'.strip() for turn in conversation.turns]
    return _Named([turn.id for turn in conversation.turns], np.asarray(embedder.embed(texts), np.float32))


def _ask(
    memory: Memory, question: Question, cost: dict[str, list[float]], turns: dict[int, str], named: _Named | None
) -> tuple[dict[str, list[str]], float]:
    """Every arm's ranking of turn ids for one question, and the relevance of our first hit; ``turns`` names the rows."""
    now = question.date or memory.store.now()
    start = time.perf_counter()
    hits = memory.search(question.text, k=K, kinds=(Kind.MESSAGE,), now=now)
    cost["search"].append(time.perf_counter() - start)
    scope = memory.scope()
    no = memory.store.partition(scope)
    assert no is not None
    partition = memory.recall.partition(no)
    partition.catch_up()
    view = View(now=to_micros(memory.store.now()), kinds=(Kind.MESSAGE,), asked=to_micros(now))
    shown = partition.visible(view)
    rows: dict[str, Iterable[int]] = {
        "BM25": top(partition.lexical.scores(terms(question.text), partition.size) * shown, K).tolist(),
        "recency": np.flatnonzero(shown)[::-1][:K].tolist(),
    }
    query = analyse(question.text, partition.authors)
    vector = memory.recall.embed(query.spoken)
    bare = memory.recall.embed(question.text)
    if bare is not None and partition.vectors is not None:
        rows["dense"] = partition.vectors.search(bare, K, shown)[0].tolist()
    for arm, taken in ABLATIONS.items():
        weights = replace(Weights(), **dict.fromkeys(taken, 0.0))
        rows[arm] = rank(partition, query, vector, view, K, weights).rows.tolist()
    rankings = {arm: [turns[row] for row in some] for arm, some in rows.items()}
    if named is not None and bare is not None:
        rankings[NAMED] = [named.ids[at] for at in np.argsort(-(named.vectors @ bare), kind="stable")[:K].tolist()]
    rankings["holdfast"] = [str(hit.cube.data["turn"]) for hit in hits]
    return rankings, hits[0].relevance if hits else 0.0


def _latest(conversation: Conversation) -> datetime:
    times = [turn.time for turn in conversation.turns if turn.time is not None]
    return max(times, default=datetime(2026, 1, 1, tzinfo=UTC))


def _score(
    tallies: dict[tuple[str, str], _Tally],
    benchmark: Benchmark,
    conversation: Conversation,
    question: Question,
    rankings: dict[str, list[str]],
) -> None:
    part = "dev" if benchmark.dev(conversation, question) else "held out"
    relevant = set(question.evidence)
    for arm, ranked in rankings.items():
        scored = {f"recall@{k}": metrics.recall(ranked, relevant, k) for k in (1, 5, 10, 20, 50)}
        scored |= {f"recall_any@{k}": metrics.recall_any(ranked, relevant, k) for k in (5, 10, 50)}
        scored |= {f"recall_all@{k}": metrics.recall_all(ranked, relevant, k) for k in (5, 10, 50)}
        scored["nDCG@10"] = metrics.ndcg(ranked, relevant, 10)
        scored["ndcg_any@10"] = metrics.ndcg_any(ranked, relevant, 10)
        for group in benchmark.groups(conversation, question):
            for name in (group, f"{group}, {part}"):
                tallies.setdefault((name, arm), _Tally()).add(scored, conversation.id)
        if question.evidence_corrected is not None and question.category != "5":
            corrected = set(question.evidence_corrected)
            extra = {f"recall@{k}": metrics.recall(ranked, corrected, k) for k in (5, 10, 20)} if corrected else {}
            if extra:
                tallies.setdefault(("corrected citations only", arm), _Tally()).add(extra, conversation.id)


# --- the report ---


def _withheld(firsts: Iterable[_First]) -> list[int]:
    """How many of some first hits a search would have called unlikely, and of how many."""
    some = [first.chance < UNLIKELY for first in firsts]
    return [sum(some), len(some)]


def _report(
    benchmark: Benchmark,
    conversations: Sequence[Conversation],
    tallies: dict[tuple[str, str], _Tally],
    cost: dict[str, list[float]],
    firsts: Sequence[_First],
    model: str | None,
) -> dict[str, Any]:
    group, metric = benchmark.headline
    results: dict[str, dict[str, Any]] = {}
    for (name, arm), tally in tallies.items():
        intervals = {m: metrics.bootstrap(values, seed=SEED) for m, values in tally.values.items()}
        entry: dict[str, Any] = {m: [round(i.mean, 4), round(i.low, 4), round(i.high, 4)] for m, i in intervals.items()}
        results.setdefault(name, {})[arm] = {"questions": len(tally.clusters), **entry}
    reached = results[group]["holdfast"][metric][0]
    paired = {
        arm: [
            round(v, 4)
            for v in _triple(
                metrics.bootstrap(
                    tallies[group, "holdfast"].values[metric], tallies[group, arm].values[metric], seed=SEED
                )
            )
        ]
        for (name, arm) in tallies
        if name == group and arm != "holdfast"
    }
    answerable = [first.answerable for first in firsts]
    separation = metrics.auc([first.chance for first in firsts], answerable) if len(set(answerable)) == 2 else None
    fresh = [first for first in firsts if not first.dev]
    search = np.asarray(cost["search"]) * 1e3
    turns = sum(cost["turns"])
    return {
        "benchmark": benchmark.name,
        "note": benchmark.note,
        "headline": {"group": group, "metric": metric, "value": reached, "floor": benchmark.floor},
        "reached": reached >= benchmark.floor,
        "gain_over": paired,
        "results": results,
        "abstention_auc": separation,
        "withheld_of_held_out": {
            "right first hits": _withheld(first for first in fresh if first.answerable and first.right),
            "questions without an answer": _withheld(first for first in fresh if not first.answerable),
        },
        "cost": {
            "turns": int(turns),
            "import_turns_per_s": round(turns / max(sum(cost["import"]), 1e-9), 1),
            "embed_turns_per_s": round(turns / max(sum(cost["embed"]), 1e-9), 1),
            "search_ms_p50": round(float(np.median(search)), 2),
            "search_ms_p99": round(float(np.percentile(search, 99)), 2),
        },
        "settings": {
            "command": f"holdfast bench {benchmark.name} --data PATH --out evidence",
            "conversations": len(conversations),
            "embedder": model,
            "k": K,
            "seed": SEED,
            "intervals": "95 %, percentile bootstrap over questions, 2000 draws",
            "holdfast": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "date": from_micros(int(time.time() * 1e6)).date().isoformat(),
        },
    }


def _triple(interval: metrics.Interval) -> tuple[float, float, float]:
    return interval.mean, interval.low, interval.high


def _write(report: dict[str, Any], out: Path, benchmark: Benchmark) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / f"bench-{benchmark.name}.json").write_text(json.dumps(report, indent=1) + "\n")
    try:
        _plot(report, out / f"bench-{benchmark.name}.png")
    except MissingExtraError as error:
        report["plot"] = str(error)


def _plot(report: dict[str, Any], path: Path) -> None:
    from holdfast.bench.plots import Bars, draw

    group, metric = report["headline"]["group"], report["headline"]["metric"]
    arms = report["results"][group]
    main = {arm: arms[arm] for arm in ("holdfast", "BM25", "dense", NAMED, "recency") if arm in arms}
    without = {arm: arms[arm] for arm in ("holdfast", *ABLATIONS) if arm in arms}
    by_group = {
        name.removeprefix("category "): entry["holdfast"][metric][0]
        for name, entry in sorted(report["results"].items())
        if "," not in name and name not in (group, "all", "corrected citations only")
    }
    draw(
        path,
        [
            Bars(
                {arm: entry[metric][0] for arm, entry in main.items()},
                title="arms",
                label=metric,
                ours=("holdfast",),
                required=report["headline"]["floor"],
                errors={arm: (entry[metric][1], entry[metric][2]) for arm, entry in main.items()},
                limits=(0, 1),
            ),
            Bars(
                {arm: entry[metric][0] for arm, entry in without.items()},
                title="one group of channels left out",
                label=metric,
                ours=("holdfast",),
                limits=(0, 1),
            ),
            Bars(by_group, title="holdfast by kind of question", label=metric, ours=tuple(by_group), limits=(0, 1)),
        ],
        title=f"{report['benchmark']}: {metric}, {group}",
        subtitle=f"{report['settings']['embedder'] or 'no embedder'}; {report['note']}",
    )
