"""The demo: real conversations become memories, questions find their evidence, and what was kept is taken back.

Everything it prints is computed while it runs; the store's clock follows the dates of the conversations.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from holdfast.cli.erase import receipt_lines
from holdfast.cli.excerpt import excerpt
from holdfast.cli.options import embedder
from holdfast.cli.past import before, change_lines
from holdfast.cli.recall import hit_lines, sentence
from holdfast.cli.sample import Question, Sample, load
from holdfast.cli.screen import Screen
from holdfast.cli.takeback import takeback
from holdfast.cube import Cube, Kind, Status, utc
from holdfast.errors import InputError
from holdfast.memory import Memory
from holdfast.retrieve.hits import Hits
from holdfast.store.base import Where

TODAY = "2023-11-30T18:00"
A_MONTH_EARLIER = "2023-10-29"

_ASKED = ("e47becba", "118b2229", "4c36ccef")
_UNANSWERABLE = "2133c1b5_abs"
_CAT, _MORTGAGE, _PAINTING, _THERAPIST = "0862e8bf", "852ce960", "e493bb7c", "2698e78f"
_WRONG = "Actually, my cat's name is Whiskers."
_DERIVED = (Kind.FACT, Kind.EVENT, Kind.PREFERENCE, Kind.INSTRUCTION, Kind.PROFILE)
_INDENT = 3


def register(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands("demo", demo, "watch real conversations become memories, be recalled, undone and forgotten")
    parser.add_argument(
        "show",
        nargs="?",
        choices=("takeback",),
        help="takeback: what a source taught a model, as text, caches and weights, is taken back (needs holdfast[torch,embed])",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of takeback: of all that is drawn")
    parser.add_argument("--plot", metavar="FILE", help="of takeback: draw what the model knows before and afterwards")


class _Clock:
    """The store's time, which follows the conversations."""

    def __init__(self) -> None:
        self.now = utc("2023-01-01")

    def __call__(self) -> datetime:
        return self.now


@dataclass(frozen=True, slots=True)
class _Stage:
    """What every step works on."""

    memory: Memory
    screen: Screen
    clock: _Clock
    sam: Sample
    emily: Sample


def demo(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast demo``."""
    if args.show:
        return takeback(args, screen)
    if args.plot is not None:
        raise InputError("--plot draws what takeback measures: holdfast demo takeback --plot FILE")
    began = time.perf_counter()
    clock = _Clock()
    with ExitStack() as stack:
        if args.store:  # never the default store, nor the environment's: those hold somebody's memories
            folder = Path(args.store).expanduser()
            if (folder / "holdfast.db").exists():
                raise InputError(f"{folder} holds a store already; give the demo a folder of its own")
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-demo-"))) / "demo.holdfast"
        memory = stack.enter_context(Memory(folder, embedder=embedder(args.embedder), background=False, clock=clock))
        told = replace(screen, out=io.StringIO()) if screen.json else screen
        stage = _Stage(memory, told, clock, load("sam"), load("emily"))
        _opening(stage)
        answers = {name: step(stage) for name, step in _STEPS.items()}
        _closing(stage, folder if args.store else None, time.perf_counter() - began)
        if screen.json:
            screen.data({"embedder": memory.status()["embedder"], "degraded": memory.degraded, **answers})
    return 0 if answers["verify"]["intact"] else 1


def _opening(stage: _Stage) -> None:
    screen, memory = stage.screen, stage.memory
    screen.say("Holdfast: memory that can be traced, trusted and taken back", style="bold")
    screen.line()
    screen.say(
        "Real conversations of two users, from LongMemEval and MemoryBank (MIT licence), are replayed into a new store. "
        "Nothing is downloaded, no language model is called; all that you see is computed now."
    )
    name = memory.status()["embedder"]
    if name:
        screen.say(f"Embedder: {name}, on this machine.")
    for what in memory.degraded or ([] if name else ["No embedder: memories are found by their words."]):
        screen.say(what)


# --- the steps ---


def _remember(stage: _Stage) -> dict[str, Any]:
    memory, screen = stage.memory, stage.screen
    _step(screen, "1  Remember", "Every turn is kept as it was said, on the day it was said; facts are drawn by rule.")
    sessions = sorted((*stage.sam.sessions, *stage.emily.sessions), key=lambda session: session.at)
    turns, began = 0, time.perf_counter()
    with screen.bar(len(sessions), "replaying", unit=" conversations") as bar:
        for session in sessions:
            stage.clock.now = session.at
            added = memory.add(
                session.messages, user=session.user, session=session.id, source=session.source, at=session.at
            )
            turns += len(added.ids)
            memory.flush()
            bar.update()
    took = time.perf_counter() - began
    stage.clock.now = utc(TODAY)
    drawn = {user: list(memory.select(_standing(), user=user)) for user in (stage.sam.user, stage.emily.user)}
    count = sum(len(cubes) for cubes in drawn.values())
    _tell(
        screen,
        f"{len(sessions)} conversations, {turns} turns, {sessions[0].at:%Y-%m-%d} to {sessions[-1].at:%Y-%m-%d}, took "
        f"{took:.1f} s. {count} facts and preferences were drawn from them"
        + ("; of Sam, for example:" if drawn[stage.sam.user] else "."),
    )
    for cube in _varied(drawn[stage.sam.user], 6):
        said = cube.valid_from or cube.recorded_at
        screen.say(f"{said:%Y-%m-%d}  {cube.kind:<11}  {excerpt(cube.text, '', 160)}", indent=_INDENT + 2, hang=25)
    kinds: dict[str, int] = {}
    for cube in (cube for cubes in drawn.values() for cube in cubes):
        kinds[str(cube.kind)] = kinds.get(str(cube.kind), 0) + 1
    return {"conversations": len(sessions), "turns": turns, "seconds": round(took, 2), "drawn": kinds}


def _recall(stage: _Stage) -> dict[str, Any]:
    screen = stage.screen
    _step(screen, "2  Recall", "A question finds the turn that answers it, and the score says why.")
    ranks: dict[str, int | None] = {}
    for sample in (stage.sam, stage.emily):
        for question in sample.questions:
            if question.evidence:
                hits = stage.memory.search(question.text, k=5, user=sample.user)
                ranks[question.id] = _rank(hits, question)
                if question.id in _ASKED:
                    _ask(screen, question)
                    _answer(screen, question, hits, why=True)
    first = sum(rank == 1 for rank in ranks.values())
    five = sum(rank is not None for rank in ranks.values())
    screen.line()
    _tell(
        screen,
        f"The sample has {len(ranks)} questions. A turn that is marked as the answer comes first for {first} of them, and "
        f"among the first five for {five}.",
    )
    return {"questions": len(ranks), "first": first, "in_first_five": five, "ranks": ranks}


def _abstain(stage: _Stage) -> dict[str, Any]:
    screen, question = stage.screen, stage.sam.question(_UNANSWERABLE)
    _step(screen, "3  Abstain", "Nothing is made up where nobody ever said it.")
    hits = stage.memory.search(question.text, k=1, user=stage.sam.user)
    abstained = hits.abstain or not hits
    _ask(screen, question)
    if abstained:
        _tell(screen, sentence(hits.reason or "nothing here is likely to answer"), 2)
    else:
        _tell(screen, "This time it was not noticed that nothing answers; what came back is:", 2)
        hit_lines(screen, 1, hits[0], question.text, indent=_INDENT + 2)
    return {"question": question.text, "abstained": abstained, "reason": hits.reason}


def _undo(stage: _Stage) -> dict[str, Any]:
    memory, screen, user = stage.memory, stage.screen, stage.sam.user
    question = stage.sam.question(_CAT)
    _step(screen, "4  Undo", "A wrong memory is recalled like any other, until it is taken back.")
    _tell(screen, f'Somebody who borrowed Sam\'s phone says: "{_WRONG}"')
    wrong = memory.add([{"role": "user", "content": _WRONG}], user=user, source="phone:borrowed").ids[0]
    memory.flush()
    event = memory.history(wrong, user=user)[0].event.seq
    told = memory.search(question.text, k=5, user=user)
    _ask(screen, question)
    _answer(screen, question, told)
    undone = memory.undo(event, user=user, reason="it was not Sam who said so")
    after = memory.search(question.text, k=5, user=user)
    screen.line()
    _tell(screen, f"$ holdfast undo {event} --reason 'it was not Sam who said so'")
    drawn = [cube.text for cube in undone if cube.id != wrong and cube.status is Status.ARCHIVED]
    if drawn:
        _tell(screen, "What was drawn from it goes with it: " + "; ".join(f'"{text}"' for text in drawn))
    _ask(screen, question)
    _answer(screen, question, after)
    screen.line()
    _tell(screen, "It is out of recall, and history still has it:")
    changes = memory.history(wrong, user=user)
    for change in changes:
        change_lines(screen, change, before(memory, change, user=user), indent=_INDENT)
    return {
        "question": question.text,
        "wrong": wrong,
        "event": event,
        "recalled_before": wrong in [hit.id for hit in told],
        "drawn": drawn,
        "recalled_after": any("Whiskers" in hit.text for hit in after),
        "history": [str(change.event.action) for change in changes],
    }


def _as_of(stage: _Stage) -> dict[str, Any]:
    memory, screen, user = stage.memory, stage.screen, stage.sam.user
    question = stage.sam.question(_PAINTING)
    _step(screen, "5  Read it as it was", "The store answers as it would have answered at any time before.")
    _ask(screen, question)
    answers = {}
    for when, view in ((A_MONTH_EARLIER, memory.as_of(A_MONTH_EARLIER)), (TODAY[:10], memory)):
        hits = view.search(question.text, k=5, user=user)
        _tell(screen, f"on {when}:", 2)
        _answer(screen, question, hits, indent=_INDENT + 2)
        answers[when] = {"text": hits[0].text, "said": f"{hits[0].said:%Y-%m-%d}"} if hits else None
    return {"question": question.text, "answers": answers}


def _walls(stage: _Stage) -> dict[str, Any]:
    screen, memory = stage.screen, stage.memory
    question = stage.sam.question(_MORTGAGE)
    _step(screen, "6  Keep apart", "Emily shares the store with Sam, and none of his memories.")
    _ask(screen, question, "Emily asks")
    hits = memory.search(question.text, k=5, user=stage.emily.user)
    strangers = [hit for hit in hits if hit.cube.scope.user != stage.emily.user]
    said = "None of what comes back is Sam's" if hits else "Nothing comes back"
    doubt = ", and nothing is likely to be an answer." if hits.abstain or not hits else "."
    _tell(screen, said + doubt if not strangers else f"{len(strangers)} of Sam's memories came back: a fault.", 2)
    return {"hits": len(hits), "of_others": len(strangers)}


def _forget(stage: _Stage) -> dict[str, Any]:
    memory, screen, user = stage.memory, stage.screen, stage.sam.user
    question = stage.sam.question(_THERAPIST)
    source = next(session.source for session in stage.sam.sessions if session.id.startswith(_THERAPIST))
    _step(
        screen,
        "7  Forget",
        "What came from a source goes for good, with all that was derived from it, and this is proved.",
    )
    told = memory.search(question.text, k=5, user=user)
    _ask(screen, question)
    _answer(screen, question, told)
    screen.line()
    _tell(screen, f"$ holdfast forget --source {source}")
    receipt = memory.forget(source=source, user=user, reason="Sam asked for it")
    receipt.verify()
    inner = replace(screen, out=io.StringIO(), width=screen.width - _INDENT)
    receipt_lines(inner, receipt)
    for line in inner.out.getvalue().splitlines():  # type: ignore[attr-defined]
        screen.line(" " * _INDENT + line)
    after = memory.search(question.text, k=5, user=user)
    gone = not any("Dr. Smith" in hit.text for hit in after)
    _ask(screen, question)
    _tell(screen, "No memory of Dr. Smith is left." if gone else "Something of it is left: a fault.", 2)
    return {"source": source, "receipt": receipt.to_dict(), "verified": True, "recalled_after": not gone}


def _verify(stage: _Stage) -> dict[str, Any]:
    memory, screen = stage.memory, stage.screen
    _step(screen, "8  Verify", "The journal is a hash chain: whoever changes the past behind its back breaks it.")
    problems = memory.verify()
    status = memory.status()
    if problems:
        _tell(screen, f"{len(problems)} problems: " + "; ".join(problem.what for problem in problems[:3]))
    else:
        _tell(
            screen,
            f"{status['events']} events, every one fits the one before it, and every memory is the one its event made. "
            f"Head: {status['head']['hash'][:32]}",
        )
    return {"intact": not problems, "events": status["events"], "head": status["head"]["hash"]}


_STEPS: dict[str, Callable[[_Stage], dict[str, Any]]] = {
    "remember": _remember,
    "recall": _recall,
    "abstain": _abstain,
    "undo": _undo,
    "as_of": _as_of,
    "walls": _walls,
    "forget": _forget,
    "verify": _verify,
}


def _closing(stage: _Stage, kept: Path | None, took: float) -> None:
    screen = stage.screen
    screen.heading(f"That was all, in {took:.0f} s. To go on:")
    store = str(kept) if kept else "./demo.holdfast"
    lines = [] if kept else [f"holdfast demo --store {store}"]
    lines += [
        f"export HOLDFAST_STORE={store} HOLDFAST_USER={stage.sam.user}",
        "holdfast search --why how long is my commute",
        "holdfast history",
        "holdfast doctor",
        "holdfast --help",
    ]
    for line in lines:
        screen.line(f"   {line}")


# --- how they look ---


def _step(screen: Screen, title: str, what: str) -> None:
    screen.heading(title)
    screen.say(what, indent=_INDENT)


def _tell(screen: Screen, text: str, more: int = 0) -> None:
    screen.say(text, indent=_INDENT + more)


def _ask(screen: Screen, question: Question, who: str = "") -> None:
    screen.line()
    screen.say(f"{who or 'Q'}: {question.text}", indent=_INDENT, hang=3, style="bold")


def _answer(screen: Screen, question: Question, hits: Hits, *, why: bool = False, indent: int = _INDENT) -> None:
    """The first hit, and where the turn stands that the data set marks as the answer."""
    if not hits:
        screen.say(sentence(hits.reason or "nothing was found"), indent=indent + 2)
        return
    hit_lines(screen, 1, hits[0], question.text, why=why, indent=indent)
    rank = _rank(hits, question)
    if rank == 1:
        screen.say("✓ marked as the answer in the data set", indent=indent + 4, style="dim")
    elif rank is not None:
        screen.say(f"(the turn marked as the answer is number {rank})", indent=indent + 4, style="dim")
    else:
        screen.say("(the turn marked as the answer is not among the first five)", indent=indent + 4, style="dim")


def _rank(hits: Hits, question: Question) -> int | None:
    """Where the first turn stands that is marked as evidence, or a fact drawn from one."""
    return next((rank for rank, hit in enumerate(hits, 1) if hit.cube.data.get("turn") in question.evidence), None)


def _standing() -> Where:
    return Where(kinds=_DERIVED, statuses=(Status.GENERATED, Status.ACTIVATED, Status.FROZEN))


def _varied(cubes: list[Cube], count: int) -> list[Cube]:
    """Some cubes, of as many kinds as there are, each kind spread over its time."""
    by_kind: dict[str, list[Cube]] = {}
    for cube in cubes:
        by_kind.setdefault(str(cube.kind), []).append(cube)
    share = max(1, count // max(len(by_kind), 1))
    chosen = [
        some[i * len(some) // taken]
        for some in by_kind.values()
        for taken in [min(share, len(some))]
        for i in range(taken)
    ]
    return sorted(chosen, key=lambda cube: cube.valid_from or cube.recorded_at or utc(TODAY))
