"""False alarms of admission: of the turns of honest conversations, how many would wait or be refused, and why.

    python -m benchmarks.quarantine NAME PATH ANSWER       # NAME: locomo, longmemeval, beam

Every turn is ruled upon once as what a user or an assistant said, once as from a document a session, and once as if the whole
conversation were one page. Only counts are written: the texts may be under a licence that forbids more.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from holdfast import Cube, Scope, __version__
from holdfast.bench.data import Conversation, Turn, load_beam, load_locomo, load_longmemeval
from holdfast.cube import Channel, Origin
from holdfast.guard.admission import Admission
from holdfast.guard.base import Ruling
from holdfast.store.base import Operation

WAYS: dict[str, Callable[[Conversation, Turn], Origin]] = {
    "as said": lambda _, turn: Origin(Channel.USER if turn.role == "user" else Channel.ASSISTANT, turn.speaker),
    "a document a session": lambda talk, turn: Origin(Channel.DOCUMENT, reference=f"{talk.id} {turn.session}"),
    "a page a conversation": lambda talk, _: Origin(Channel.WEB, reference=f"https://talks.example/{talk.id}"),
}
"""From where the turns are said to come."""


def turns_of(name: str, path: Path) -> list[Conversation]:
    """The conversations of a benchmark; of LongMemEval all files of a folder: the evidence of all questions, whole histories."""
    if name == "longmemeval":
        files = [path] if path.is_file() else sorted([*path.glob("longmemeval*.json"), *path.glob("evidence*.jsonl")])
        return [talk for file in files for talk in load_longmemeval(file)]
    return load_locomo(path) if name == "locomo" else load_beam(path)


def ruled(talks: Sequence[Conversation], way: Callable[[Conversation, Turn], Origin]) -> dict[str, Any]:
    """How many turns are admitted, wait and are refused, and the reasons, without the names in them."""
    guard = Admission()
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    signals: Counter[str] = Counter()
    for talk in talks:
        scope = Scope("bench", talk.id)
        for turn in talk.turns:
            if not turn.text.strip():
                continue
            (decision,) = guard.admit([Operation.add(Cube(scope, turn.text, origin=way(talk, turn)))])
            counts[decision.ruling] += 1
            if decision.ruling is not Ruling.ADMIT:
                reasons.update(re.sub(r"^\S+ is refused", "refused", reason) for reason in decision.reasons)
                signals.update(decision.signals.keys())
    total = sum(counts.values())
    stopped = total - counts[Ruling.ADMIT]
    return {
        "turns": total,
        "quarantined": counts[Ruling.QUARANTINE],
        "refused": counts[Ruling.REFUSE],
        "share": stopped / total if total else 0.0,
        "reasons": dict(reasons.most_common()),
        "signals": dict(signals.most_common()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quarantine", description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=("locomo", "longmemeval", "beam"))
    parser.add_argument("path", type=Path)
    parser.add_argument("answer", type=Path)
    options = parser.parse_args()
    talks = turns_of(options.name, options.path)
    found = {name: ruled(talks, way) for name, way in WAYS.items()}
    answer = {"version": __version__, "benchmark": options.name, "conversations": len(talks), "ways": found}
    options.answer.write_text(json.dumps(answer, indent=1) + "\n")
    for name, some in found.items():
        print(
            f"{name}: {some['turns']} turns, {some['quarantined']} wait, {some['refused']} refused: {100 * some['share']:.3f} %"
        )
        print("  ", some["reasons"])


if __name__ == "__main__":
    main()
