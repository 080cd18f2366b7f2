"""MemOS as memory-augmented generation (arXiv 2505.22101): when facts change, the loop beats both no memory and stateless RAG.

The paper has no experiment. What it asserts is architectural, so it is shown with a scripted reader that answers with what
its context says of the attribute asked for, and abstains where the context says nothing. The facts are an overlay of known
truth on real conversations: stated, later changed, some forgotten, others told to another tenant.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import numpy as np

from holdfast.agent.mag import MAGLoop, Trace
from holdfast.bench.plots import Bars, draw
from holdfast.claims.base import Check, Result, Scale
from holdfast.memory import Memory

number = 33
name = "memos-mag"
statement = (
    "A loop that reads, injects, generates and writes back answers changed facts at least 15 points better than stateless "
    "retrieval, abstains on what was forgotten or belongs to another tenant, and names the deciding version in its trace."
)
arms = ("memory-augmented generation", "stateless RAG", "stateless RAG, newest first", "no memory")

_FACTS = {"quick": 60, "full": 200, "gpu": 200}
_NOUNS = "colour film song dish book sport city flower drink season animal tree game painter dance".split()
_ROOMS = "home school work travel summer winter childhood weekend holiday sunday office garden birthday rainy".split()
_VALUES = (
    "amber basil cedar dahlia ember fennel garnet hazel indigo jasmine kelp lilac maple nutmeg olive pepper quince russet "
    "saffron thistle umber violet willow yarrow zinnia"
).split()


@dataclass(frozen=True, slots=True)
class _Fact:
    """One attribute of the user: its first value, the one it changed to, and whether it was forgotten."""

    attribute: str
    first: str
    second: str | None
    forgotten: bool
    stranger: bool

    @property
    def current(self) -> str | None:
        if self.forgotten or self.stranger:
            return None
        return self.second or self.first

    @property
    def group(self) -> str:
        if self.stranger:
            return "another tenant's"
        if self.forgotten:
            return "forgotten"
        return "changed" if self.second else "unchanged"


def run(scale: Scale, seed: int, data: Path | None) -> Result:
    """Replay the packaged conversations with the overlay, then ask; lexical search only, so that nothing is installed."""
    random = np.random.default_rng(seed)
    facts = _overlay(_FACTS[scale], random)
    with tempfile.TemporaryDirectory() as folder:
        memory = _replay(Path(folder) / "a", facts, random)
        loop = MAGLoop(memory, _read, budget=800, write_back=False)
        rag = _stateless(memory, facts)
        asked: dict[str, Callable[[str], tuple[str, Trace | None]]] = {
            "memory-augmented generation": loop.step,
            "stateless RAG": lambda query: (_read(rag(query, False), query), None),
            "stateless RAG, newest first": lambda query: (_read(rag(query, True), query), None),
            "no memory": lambda query: (_read("", query), None),
        }
        measured: dict[str, dict[str, float]] = {}
        named: list[float] = []
        for arm, ask in asked.items():
            right: dict[str, list[float]] = {}
            for fact in facts:
                answer, trace = ask(f"What is my favourite {fact.attribute}?")
                right.setdefault(fact.group, []).append(float(answer == (fact.current or "")))
                if trace is not None and answer:
                    named.append(float(any(answer in cube.text and cube.version >= 1 for cube in trace.used)))
            measured[arm] = {group: float(np.mean(values)) for group, values in sorted(right.items())}
        memory.close()
    ours, stateless = measured["memory-augmented generation"], measured["stateless RAG"]
    checks = (
        Check("changed facts, gain over stateless RAG", ours["changed"] - stateless["changed"], 0.15),
        Check("changed facts, gain over no memory", ours["changed"] - measured["no memory"]["changed"], 0.15),
        Check("unchanged facts, ours", ours["unchanged"], stateless["unchanged"] - 0.02),
        Check("abstains on forgotten facts", ours["forgotten"], 1.0),
        Check("abstains on another tenant's facts", ours["another tenant's"], 1.0),
        Check("answers whose trace names the deciding version", float(np.mean(named)) if named else float("nan"), 1.0),
        Check("stateless RAG repeats forgotten facts (control)", 1 - stateless["forgotten"], 0.5),
    )
    notes = (
        "a log read newest first sees changed facts as well as memory does; it still repeats what was forgotten and leaks",
        "text only: the forms in cached state and in weights join when they are built",
    )
    return Result(measured, checks, {"facts": len(facts), "budget": 800, "rag_k": 5, "embedder": None}, notes=notes)


def plot(result: Result, path: Path) -> None:
    """Accuracy by kind of fact, one panel each."""
    groups = ["changed", "unchanged", "forgotten", "another tenant's"]
    panels = [
        Bars(
            {arm: metrics[group] for arm, metrics in result.arms.items()},
            title=f"{group} facts",
            ours=("memory-augmented generation",),
            percent=True,
            limits=(0, 1),
        )
        for group in groups
    ]
    draw(
        path,
        panels,
        title="Right answers (or right silence) when facts change",
        subtitle="scripted reader, real dialogue",
    )


def _overlay(count: int, random: np.random.Generator) -> list[_Fact]:
    attributes = [f"{room} {noun}" for room in _ROOMS for noun in _NOUNS]
    chosen = random.choice(len(attributes), count, replace=False)
    facts = []
    for at, which in enumerate(chosen):
        first, second = random.choice(_VALUES, 2, replace=False)
        kind = at % 4  # changed, unchanged, forgotten, another tenant's
        facts.append(_Fact(attributes[which], str(first), str(second) if kind == 0 else None, kind == 2, kind == 3))
    return facts


def _replay(folder: Path, facts: list[_Fact], random: np.random.Generator) -> Memory:
    """Real turns in order of time with the overlay strewn in; updates come after, then what is forgotten is."""
    clock = [datetime(2026, 1, 1, tzinfo=UTC)]

    def opened(tenant: str) -> Memory:
        return Memory(
            folder,
            tenant=tenant,
            user="sam",
            embedder=None,
            background=False,
            durability="normal",
            clock=lambda: clock[0],
        )

    memory, stranger = opened("acme"), opened("rival")
    turns = [turn["content"] for session in _sample()["sessions"] for turn in session["messages"]]
    said: dict[str, str] = {}
    for round_ in (0, 1):
        for at in random.permutation(len(facts)):
            fact = facts[at]
            clock[0] += timedelta(hours=1)
            if turns:
                memory.add(turns.pop(0), session="dialogue")
            if round_ == 0:
                teller = stranger if fact.stranger else memory
                text = f"My favourite {fact.attribute} is {fact.first}."
                said[fact.attribute] = teller.add(text, session="overlay").ids[0]
            elif fact.second:
                memory.add(f"Actually, my favourite {fact.attribute} is {fact.second} now.", session="overlay")
        memory.flush()
    for fact in facts:
        if fact.forgotten:
            memory.forget(said[fact.attribute], reason="asked to").verify()
    stranger.close()
    return memory


def _stateless(memory: Memory, facts: list[_Fact]) -> Callable[[str, bool], str]:
    """Append-only chunks of everything ever said by anybody, top five by BM25, in the order of their scores or of time.

    Newest first is the stronger reader: it needs no memory to see that a fact changed, only the order of the log.
    """
    from holdfast.retrieve.lexical import LexicalIndex
    from holdfast.retrieve.text import pack_terms, terms, tokens

    # What was forgotten or belongs to another is still in an append-only pool.
    gone = [fact for fact in facts if fact.forgotten or fact.stranger]
    chunks = [f"My favourite {fact.attribute} is {fact.first}." for fact in gone]
    turns = sorted((cube for cube in memory.select() if cube.kind == "message"), key=lambda cube: cube.id)
    chunks += [cube.text for cube in turns]  # in the order in which they were said
    index = LexicalIndex()
    index.append(range(len(chunks)), [pack_terms(tokens(chunk)) for chunk in chunks])

    def retrieve(query: str, newest_first: bool) -> str:
        scores = index.scores(terms(query), len(chunks))
        rows = np.argsort(-scores, kind="stable")[:5].tolist()
        return "\n".join(chunks[row] for row in (sorted(rows, reverse=True) if newest_first else rows))

    return retrieve


_ASKED = re.compile(r"favourite ([\w ]+)\?")


def _read(context: str, query: str) -> str:
    """The scripted reader: the value that the first statement about the attribute gives; "" where there is none."""
    asked = _ASKED.search(query)
    if asked is None:
        return ""
    found = re.search(rf"favourite {re.escape(asked[1])} is (\w+)", context)
    return found[1] if found else ""


def _sample() -> dict[str, list[dict[str, list[dict[str, str]]]]]:
    found: dict[str, list[dict[str, list[dict[str, str]]]]] = json.loads(
        files("holdfast.sample").joinpath("sam.json").read_text()
    )
    return found
