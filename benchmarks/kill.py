"""Writers are killed at random, and everything that they were told is safe must be there: `python benchmarks/kill.py`.

Several processes write into one store: they add, correct, retract, undo, rate and forget, each its own memories, and note
in a ledger what they are about to do and what the store has confirmed. The supervisor kills one after the other with
SIGKILL, at any moment, and starts it again. Another process reads all the while: what a ledger has confirmed it must find
at once. In the end every confirmed change is looked for in the store, in the journal, by words and by vectors; and whatever
is there that nobody had set out to write counts as well. The report is JSON; the exit status is 0 where nothing is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from holdfast import Memory
from holdfast.cube import Status
from holdfast.retrieve.partition import Partition
from holdfast.retrieve.text import term, tokens
from holdfast.store.base import Where

SHARED = "everybody"
DIMENSION = 64
SAMPLE = 400
"""How many memories are looked for through the whole search, besides all of them through the indexes."""


class HashEmbedder:
    """Words as random directions: offline, quick, and the same in every process."""

    model = "kill-test-64"
    dimension = DIMENSION

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors, shape (len(texts), 64)."""
        found = np.zeros((len(texts), DIMENSION), np.float32)
        for row, text in enumerate(texts):
            for word in tokens(text):
                seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4])
                found[row] += np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)


def open_memory(folder: Path, durability: str, *, background: bool) -> Memory:
    return Memory(folder, embedder=HashEmbedder(), encoders=(), durability=durability, background=background)


# --- the writer ---


class Ledger:
    """Lines in a file, each whole once ``note`` has returned, whatever happens to the process afterwards."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, **entry: Any) -> None:
        os.write(self._file, (json.dumps(entry) + "\n").encode())


def write(folder: Path, ledger: Ledger, name: str, seed: int, durability: str) -> None:
    """Change things for ever; only a signal ends it."""
    rng = random.Random(seed)
    memory = open_memory(folder, durability, background=True)
    mine: dict[str, tuple[str, str]] = {}  # id: (user, text)
    count = 0
    while True:
        count += 1
        user = SHARED if rng.random() < 0.5 else name.split("x")[0]
        act = rng.choices(["add", "chat", "correct", "retract", "undo", "rate", "forget"], [40, 15, 12, 6, 6, 6, 4])[0]
        if act in ("add", "chat") or not mine:
            words = [f"{name}x{count}x{n}" for n in range(1 if act == "add" else 3)]
            texts = [f"turn {word} of {user} on Monday" for word in words]
            ledger.note(will="add", user=user, texts=texts)
            content: Any = texts[0] if len(texts) == 1 else [{"role": "user", "content": text} for text in texts]
            ids = memory.add(content, user=user).ids
            ledger.note(did="add", user=user, texts=texts, ids=ids)
            mine.update(zip(ids, ((user, text) for text in texts), strict=True))
            continue
        id = rng.choice(list(mine))
        user = mine[id][0]
        if act == "correct":
            new = f"turn {name}x{count}x0 of {user} on Tuesday"
            ledger.note(will=act, id=id, user=user, text=new)
            memory.correct(id, new, user=user)
            ledger.note(did=act, id=id)
            mine[id] = user, new
        elif act in ("retract", "undo"):
            ledger.note(will="retract", id=id, user=user)
            memory.retract(id, user=user)
            ledger.note(did="retract", id=id)
            if act == "undo":
                seq = memory.history(id, user=user)[-1].event.seq
                ledger.note(will="undo", id=id, user=user)
                memory.undo(seq, user=user)
                ledger.note(did="undo", id=id)
            else:
                del mine[id]
        elif act == "rate":
            ledger.note(will=act, id=id, user=user)
            memory.feedback([id], rng.choice([1.0, -1.0, 0.5]), user=user)
            ledger.note(did=act, id=id)
        else:
            ledger.note(will=act, id=id, user=user)
            memory.forget(id, user=user)
            ledger.note(did=act, id=id)
            del mine[id]


# --- the reader ---


def _ready(report: Path) -> Path:
    """A file that is there once a reader can be stopped: on a busy machine that takes longer than a short run."""
    return report.with_suffix(".ready")


def read(folder: Path, ledgers: Path, report: Path, durability: str) -> None:
    """Look for what was confirmed a moment ago, until SIGTERM; then write what came of it."""
    memory = open_memory(folder, durability, background=False)
    going = [True]
    signal.signal(signal.SIGTERM, lambda *_: going.clear())
    _ready(report).touch()
    read_to: dict[Path, int] = {}
    looked, missed, times = 0, [], []
    while going:
        fresh = []
        for path in sorted(ledgers.glob("*.jsonl")):
            with path.open("rb") as lines:
                lines.seek(read_to.get(path, 0))
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    read_to[path] = read_to.get(path, 0) + len(line)
                    entry = json.loads(line)
                    if entry.get("did") == "add":
                        fresh.append(entry)
        if not fresh:
            time.sleep(0.002)
            continue
        entry = fresh[-1]
        text, id = entry["texts"][0], entry["ids"][0]
        begin = time.perf_counter()
        hits = memory.search(text.split()[1], k=3, user=entry["user"])
        times.append(time.perf_counter() - begin)
        looked += 1
        if id not in [hit.id for hit in hits] and not _changed_since(memory, id, entry["user"]):
            missed.append(text)
    report.write_text(
        json.dumps(
            {
                "looked": looked,
                "missed": missed,
                "median_ms": round(1000 * float(np.median(times)), 2) if times else None,
                "p99_ms": round(1000 * float(np.quantile(times, 0.99)), 2) if times else None,
                "slowest_ms": round(1000 * max(times), 2) if times else None,
            }
        )
    )
    memory.close()


def _changed_since(memory: Memory, id: str, user: str) -> bool:
    """Whether its writer has corrected, retracted or forgotten it meanwhile."""
    return len(memory.history(id, user=user)) != 1


# --- the supervisor ---


@dataclass
class State:
    """What may be true of one memory, as far as the ledgers tell: (status, text), or ("gone", "")."""

    user: str
    allowed: set[tuple[str, str]]
    rated: int = 0
    maybe_rated: int = 0


@dataclass
class Told:
    """All ledgers together."""

    states: dict[str, State] = field(default_factory=dict)
    maybe: Counter[tuple[str, str]] = field(default_factory=Counter)  # (user, text) that somebody set out to add
    confirmed: Counter[str] = field(default_factory=Counter)
    unconfirmed: int = 0


def entries(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().split(b"\n"):
        if line:
            yield json.loads(line)


def listen(ledgers: Path) -> Told:
    told = Told()
    for path in sorted(ledgers.glob("*.jsonl")):
        open_intent: dict[str, Any] | None = None
        for entry in entries(path):
            if "will" in entry:
                open_intent = entry
                _intend(told, entry)
            else:
                assert open_intent is not None
                told.confirmed[entry["did"]] += len(entry.get("ids", "x"))
                _confirm(told, open_intent, entry)
                open_intent = None
        told.unconfirmed += open_intent is not None
    return told


def _after(state: State, entry: dict[str, Any]) -> set[tuple[str, str]]:
    """What a change makes of each thing that may be true."""
    will = entry["will"]
    if will == "forget":
        return {("gone", "")}
    status = {"retract": "archived", "undo": "generated"}.get(will)
    return {(status or known, entry.get("text", text)) for known, text in state.allowed}


def _intend(told: Told, entry: dict[str, Any]) -> None:
    if entry["will"] == "add":
        told.maybe.update((entry["user"], text) for text in entry["texts"])
        return
    state = told.states[entry["id"]]
    entry["after"] = _after(state, entry)
    state.allowed |= entry["after"]
    state.maybe_rated += entry["will"] == "rate"


def _confirm(told: Told, intent: dict[str, Any], entry: dict[str, Any]) -> None:
    if intent["will"] == "add":
        for id, text in zip(entry["ids"], entry["texts"], strict=True):
            told.states[id] = State(entry["user"], {("generated", text)})
            told.maybe[entry["user"], text] -= 1
        return
    state = told.states[intent["id"]]
    state.allowed = intent["after"]
    state.rated += intent["will"] == "rate"


def supervise(folder: Path, ledgers: Path, writers: int, seconds: float, seed: int, durability: str) -> dict[str, int]:
    """Start, kill and start again; return how often."""
    rng = random.Random(seed)
    running: dict[int, subprocess.Popen[bytes]] = {}
    counts = Counter[str]()

    def start(slot: int) -> None:
        counts["started"] += 1
        name = f"w{slot}x{counts['started']}"
        command = [
            sys.executable,
            __file__,
            "--writer",
            name,
            "--folder",
            str(folder),
            "--seed",
            str(rng.randrange(2**32)),
        ]
        running[slot] = subprocess.Popen([*command, "--ledgers", str(ledgers), "--durability", durability])

    for slot in range(writers):
        start(slot)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        time.sleep(rng.uniform(0.05, 1.2))
        slot = rng.randrange(writers)
        if running[slot].poll() is not None:
            counts["died_by_themselves"] += 1
        running[slot].kill()
        running[slot].wait()
        counts["killed"] += 1
        start(slot)
    for process in running.values():
        if process.poll() is not None:
            counts["died_by_themselves"] += 1
        process.kill()
    for process in running.values():
        process.wait()
    counts["killed"] += writers
    return dict(counts)


def audit(folder: Path, told: Told, seed: int) -> dict[str, Any]:
    """Everything that is wrong with the store, and how much of what was looked at."""
    begin = time.perf_counter()
    memory = open_memory(folder, "normal", background=False)
    problems = [f"event {problem.seq}: {problem.what}" for problem in memory.verify()]
    verified = time.perf_counter() - begin
    found: dict[str, tuple[str, str, str, int]] = {}
    users = sorted({state.user for state in told.states.values()} | {user for user, _ in told.maybe})
    for user in users:
        for cube in memory.select(Where(), user=user):
            found[cube.id] = user, str(cube.status), cube.text, cube.use.visits
    lost, wrong = [], []
    for id, state in told.states.items():
        user, status, text, visits = found.get(id, (state.user, "gone", "", state.rated))
        if (status, text) not in state.allowed or user != state.user:
            (lost if status == "gone" else wrong).append(f"{id}: is {status} {text!r}, may be {sorted(state.allowed)}")
        elif status != "gone" and not state.rated <= visits <= state.maybe_rated:
            wrong.append(f"{id}: was rated {visits} times, confirmed are {state.rated}")
    nobody = [f"{id}: {some}" for id, some in found.items() if id not in told.states and not _was_meant(told, some)]
    flushed = time.perf_counter()
    memory.flush()
    backlog = memory.status()["backlog"]
    flushed = time.perf_counter() - flushed
    words, vectors, searched = _unfindable(memory, found, seed)
    quick = sqlite3.connect(folder / "holdfast.db").execute("PRAGMA integrity_check").fetchall()
    report = {
        "lost": lost,
        "wrong": wrong,
        "written_by_nobody": nobody,
        "chain_problems": problems,
        "sqlite_integrity": [line for (line,) in quick],
        "not_found_by_words": words,
        "not_found_by_vectors": vectors,
        "not_found_by_search": searched,
        "jobs_left": backlog,
        "looked_at": {
            "confirmed_memories": len(told.states),
            "in_the_store": len(found),
            "events": memory.store.head()[0],
            "searched_for": min(SAMPLE, sum(some[1] == Status.GENERATED for some in found.values())),
        },
        "seconds": {"verify": round(verified, 2), "catch_up": round(flushed, 2)},
    }
    memory.close()
    return report


def _was_meant(told: Told, some: tuple[str, str, str, int]) -> bool:
    """Whether somebody set out to add it and was killed before hearing that it was done."""
    if told.maybe[some[0], some[2]] > 0:
        told.maybe[some[0], some[2]] -= 1
        return True
    return False


def _unfindable(
    memory: Memory, found: dict[str, tuple[str, str, str, int]], seed: int
) -> tuple[list[str], list[str], list[str]]:
    live = {id: some for id, some in found.items() if some[1] == Status.GENERATED}
    words, vectors = [], []
    for user in sorted({some[0] for some in live.values()}):
        scope = memory.scope(user=user)
        no = memory.store.partition(scope)
        assert no is not None
        partition = Partition(memory.store, no)
        partition.catch_up()
        rows = {row.cube.id: row.rid & 0xFFFFFFFF for row in memory.store.rows(scope)}
        for id, some in live.items():
            if some[0] != user:
                continue
            row = rows[id]
            if not partition.lexical.counts([term(tokens(some[2].split()[1])[0])], np.asarray([row])).any():
                words.append(some[2])
            if partition.vectors is None or row >= len(partition.vectors.present) or not partition.vectors.present[row]:
                vectors.append(some[2])
            elif partition.vectors.cosines(HashEmbedder().embed([some[2]])[0], np.asarray([row]))[0] < 0.99:
                vectors.append(f"{some[2]}: another vector")
    sample = random.Random(seed).sample(sorted(live), min(SAMPLE, len(live)))
    searched = [
        live[id][2]
        for id in sample
        if id not in [hit.id for hit in memory.search(live[id][2].split()[1], k=3, user=live[id][0])]
    ]
    return words, vectors, searched


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--durability", choices=["full", "normal"], default="full")
    parser.add_argument("--out", type=Path, default=Path("evidence/durability.json"))
    parser.add_argument("--folder", type=Path, help="where the store is made; by default a temporary folder")
    parser.add_argument("--ledgers", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--writer", help=argparse.SUPPRESS)
    parser.add_argument("--reader", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.writer:
        write(args.folder, Ledger(args.ledgers / f"{args.writer}.jsonl"), args.writer, args.seed, args.durability)
    if args.reader:
        read(args.folder, args.ledgers, args.reader, args.durability)
        return 0
    with tempfile.TemporaryDirectory(dir=args.folder) as home:
        folder, ledgers, seen = Path(home) / "killed.holdfast", Path(home) / "ledgers", Path(home) / "reader.json"
        ledgers.mkdir()
        common = ["--folder", str(folder), "--ledgers", str(ledgers), "--durability", args.durability]
        reader = subprocess.Popen([sys.executable, __file__, "--reader", str(seen), *common])
        while not _ready(seen).exists() and reader.poll() is None:
            time.sleep(0.05)
        counts = supervise(folder, ledgers, args.writers, args.seconds, args.seed, args.durability)
        reader.terminate()
        reader.wait(timeout=60)
        told = listen(ledgers)
        report = {
            "what": f"{args.writers} writer processes on one store, killed with SIGKILL at random for {args.seconds:g} s",
            "settings": {"seed": args.seed, "durability": args.durability, "embedder": HashEmbedder.model},
            "machine": {
                "python": platform.python_version(),
                "sqlite": sqlite3.sqlite_version,
                "system": platform.system(),
                "cores": os.cpu_count(),
            },
            "date": datetime.now(UTC).date().isoformat(),
            "processes": counts,
            "confirmed": dict(sorted(told.confirmed.items())),
            "unconfirmed": told.unconfirmed,
            "reader": json.loads(seen.read_text()),
            **audit(folder, told, args.seed),
        }
    faults = ("lost", "wrong", "written_by_nobody", "chain_problems", "not_found_by_words", "not_found_by_vectors",
              "not_found_by_search", "jobs_left")  # fmt: skip
    bad = {name: report[name] for name in faults if report[name]}
    if report["reader"]["missed"] or report["sqlite_integrity"] != ["ok"] or counts.get("died_by_themselves"):
        bad["others"] = [report["reader"]["missed"], report["sqlite_integrity"], counts]
    report["verdict"] = "fails" if bad else "holds"
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(bad or {key: report[key] for key in ("processes", "confirmed", "reader", "verdict")}, indent=1))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
