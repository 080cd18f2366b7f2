"""Memory in the Age of AI Agents (arXiv 2512.13564): that form, function and dynamics are sufficient and useful axes.

Sufficient: every mechanism of this product has a place on them, and every empty place has a reason. Useful: eight small
memories that differ along the axes are each best at the function that their profile names, so that a router that reads
profiles, and never a score, nearly equals the best choice for each task. The dynamics each pay where the survey says they
should, forgetting by time, use and importance together serves every stream, and the deciding memory can be named.
"""

from __future__ import annotations

import functools
import math
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from holdfast import Memory, taxonomy
from holdfast.bench.data import Turn, load_locomo
from holdfast.bench.metrics import recall
from holdfast.bench.plots import Bars, draw
from holdfast.bench.workload import WRONG, World, make_words, make_world, pick
from holdfast.claims.base import Check, Result, Scale
from holdfast.cube import Form
from holdfast.encode.junk import why_nothing
from holdfast.errors import ClaimError
from holdfast.retrieve.arrays import top
from holdfast.retrieve.text import terms
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Retrieval, Subform

number = 43
name = "memory-survey"
statement = (
    "Form, function and dynamics describe every mechanism of this product, and they are useful: the best of eight memories "
    "differs by function as their profiles say, a router that reads only profiles nearly equals the best choice for each "
    "task, and forgetting by time, use and importance together serves every stream."
)
arms = (
    "router",
    "best choice by function",
    "flat log",
    "profile",
    "graph",
    "cases",
    "insights",
    "skills",
    "condenser",
    "state",
    "router, profiles shuffled",
    "form",
    "form + evolve",
    "form + retrieve",
    "form + evolve + retrieve",
    "forget combined",
    "forget by time",
    "forget by frequency",
    "forget by importance",
    "forget combined, importance shuffled",
    "traced memory",
)

BUDGET = 40
"""Words that a memory may hand to the agent for one task."""


@dataclass(frozen=True, slots=True)
class _Size:
    """How large the parts are at one scale: tasks of each function, days of the streams, facts of the traced memory."""

    tasks: int
    days: int
    items: int
    traced: int


_SIZES: Mapping[Scale, _Size] = {"quick": _Size(40, 240, 600, 40), "full": _Size(120, 720, 2_000, 150)}


def run(scale: Scale, seed: int, data: Path | None) -> Result:
    """All parts on one seed. Where ``data`` holds LoCoMo, ``full`` reports the dynamics there as well.

    Raises ClaimError at ``gpu``, which this claim lacks.
    """
    if scale not in _SIZES:
        raise ClaimError("claim 43 runs on the processor alone: use --scale quick or full")
    size = _SIZES[scale]
    house, missing = taxonomy.matrix(), taxonomy.undeclared()
    world = make_world(size.tasks, seed)
    memories = [make() for make in _CONFIGURATIONS]
    solved = _solved(memories, world)
    scores = {arm: _by_function(world, outcome) for arm, outcome in solved.items()}
    best = {str(function): max(score[function] for score in scores.values()) for function in Function}
    best["average"] = float(np.mean([*best.values()]))
    single = max(score["average"] for score in scores.values())
    profiles = {memory.name: memory.profile for memory in memories}
    routed, misled = (_routed(known, solved, world) for known in (profiles, _dealt(profiles, seed)))
    as_predicted = sum(
        all(scores[arm][function] > score[function] for other, score in scores.items() if other != arm)
        for function, arm in _PREDICTED.items()
    )
    dynamics = _dynamics(world)
    plain, evolved, retrieved = (dynamics[arm] for arm in ("form", "form + evolve", "form + retrieve"))
    lost = {function: plain[function] - evolved[function] for function in Function if function != Function.FACTS_USER}
    worst = max(lost, key=lambda function: lost[function])
    streams = _streams(size, seed)
    short = {arm: _shortfall(streams, arm) for arm in streams}
    traced = _trace(size, seed)
    talks = _locomo(data) if scale == "full" and data is not None else {}
    checks = (
        Check("mechanisms without a profile", len(missing), 0, at_least=False, note=", ".join(missing)),
        Check(
            "empty cells and sub-types without a reason",
            len(house.unexplained),
            0,
            at_least=False,
            note=", ".join(house.unexplained),
        ),
        Check("functions whose one best memory is the predicted one, of 7", as_predicted, 5),
        Check("router, share of the best choice by function", routed["average"] / best["average"], 0.95),
        Check("router above the best single memory", routed["average"] - single, 0.08),
        Check("the same with profiles shuffled, which must fail", misled["average"] - single, 0.08, at_least=False),
        Check("evolution adds on updates", evolved[Function.FACTS_USER] - plain[Function.FACTS_USER], 0.03),
        Check(
            "retrieval adds on several hops",
            retrieved[Function.FACTS_ENVIRONMENT] - plain[Function.FACTS_ENVIRONMENT],
            0.03,
        ),
        Check("evolution makes the store smaller by", 1 - evolved["lines kept"] / plain["lines kept"], 0.30),
        Check(
            "largest loss by evolution on any other function",
            lost[worst],
            0.01,
            at_least=False,
            note=worst if lost[worst] > 0 else "",
        ),
        Check("combined forgetting, worst shortfall on any stream", short["forget combined"], 0.02, at_least=False),
        Check(
            "the same with importance shuffled, which must fail", short["forget combined, importance shuffled"], 0.02
        ),
        Check("the deciding memory has the largest influence", traced["deciding is first"], 0.90),
    )
    return Result(
        arms={
            "router": routed,
            "best choice by function": best,
            **scores,
            "router, profiles shuffled": misled,
            **dynamics,
            **{arm: {**by_stream, "worst shortfall": short[arm]} for arm, by_stream in streams.items()},
            "traced memory": traced,
            **talks,
        },
        checks=checks,
        settings={
            "tasks a function": size.tasks,
            "events": len(world.events),
            "budget, words": BUDGET,
            "wrong success labels": WRONG,
            "predicted": {str(function): arm for function, arm in _PREDICTED.items()},
            "stream days, items, capacity": [size.days, size.items, 0.25],
            "half-life, days": _HALF_LIFE,
            "seed": seed,
        },
        series={"coverage": house.to_dict(), "gaps": house.gaps},
        notes=(
            "The workload and the eight memories are synthetic and small: the check is that the axes tell memories apart, "
            "not how good any one is. Every memory is offered every event and every task; a special memory takes in what "
            "its function needs and mostly nothing else, so the flat log is its one rival on most functions.",
            "The checks of dynamics are on the workload. On LoCoMo, which has no updates and hardly a turn that says nothing "
            "or the same again, evolution as it is here finds nothing to do; its arms are reported (full, with --data).",
            "Combined forgetting needs importance to mean something: with importances shuffled it falls below the best of "
            "the single policies, as its arm shows.",
        ),
    )


def plot(result: Result, path: Path) -> None:
    """Router and memories on average, each function's own memory beside its best rival, dynamics, and forgetting."""
    measured, predicted = result.arms, result.settings["predicted"]
    memories, stages, policies = arms[2:10], arms[11:15], arms[15:20]
    own, rivals = {}, {}
    for (function, memory), short in zip(predicted.items(), _SHORT, strict=True):
        rival = max((arm for arm in memories if arm != memory), key=lambda arm: measured[arm][function])
        own[f"{short}: {memory}"] = measured[memory][function]
        rivals[f"{short}: {rival}"] = measured[rival][function]
    panels = [
        Bars(
            {arm: measured[arm]["average"] for arm in arms[:11]},
            title="All seven functions",
            ours=["router"],
            bounds=["best choice by function"],
            controls=["router, profiles shuffled"],
            percent=True,
        ),
        Bars(own, title="Function: its own memory", ours=[*own], percent=True),
        Bars(rivals, title="Function: best other memory", percent=True, limits=(0.0, 1.16)),
        *(
            Bars({arm: measured[arm][function] for arm in stages}, title=title, ours=[stages[-1]], percent=True)
            for function, title in (
                (Function.FACTS_USER, "Evolution, on updates"),
                (Function.FACTS_ENVIRONMENT, "Retrieval, on several hops"),
            )
        ),
        Bars(
            {arm.removeprefix("forget "): measured[arm]["worst shortfall"] for arm in policies},
            title="Forgetting: worst shortfall",
            label="points behind the best policy",
            ours=["combined"],
            controls=["combined, importance shuffled"],
            required=0.02,
            at_least=False,
            percent=True,
        ),
    ]
    draw(
        path,
        panels,
        title="Each memory is best at the function that its profile names, and a router can know that beforehand",
        subtitle=f"Share of tasks solved with {BUDGET} words of memory; {result.settings['tasks a function']} tasks a function",
    )


_SHORT = ("user", "environment", "cases", "strategies", "skills", "one turn", "many turns")


# --- eight memories ---


class _Memory(Protocol):
    """What all eight have in common: a profile, and lines in and out."""

    name: str
    profile: MemoryProfile

    def write(self, event: str) -> None:
        """Take in one line of what happens."""
        ...

    def read(self, question: str) -> list[str]:
        """Lines for the agent, most useful first; they are cut to the budget by the caller."""
        ...


class _Index:
    """Lines by the rarity-weighted share of the question's words that they hold.

    Where fewer lines are kept than were told, ``lines`` is how many were told and ``told`` how many of them with each word.
    """

    def __init__(self, lines: int = 0, told: Mapping[str, int] | None = None) -> None:
        self.lines: list[str] = []
        self._least, self._told = lines, told or {}
        self._sizes: list[int] = []
        self._postings: dict[str, list[int]] = defaultdict(list)
        self._subjects: dict[str, list[str]] = defaultdict(list)

    def add(self, line: str, words: Iterable[str] | None = None) -> None:
        terms = set(_terms(line) if words is None else words)
        for term in terms:
            self._postings[term].append(len(self.lines))
        self.lines.append(line)
        self._subjects[line.split()[1]].append(line)
        self._sizes.append(len(terms))

    def best(self, question: str, count: int = 12) -> list[str]:
        lines = max(self._least, len(self.lines))
        scores: dict[int, float] = defaultdict(float)
        for term in dict.fromkeys(_terms(question)):  # in order, for a sum of floats depends on it
            held = self._postings.get(term, ())
            rarity = math.log(1 + lines / max(self._told.get(term, 0), len(held), 1))
            for position in held:
                scores[position] += rarity / math.sqrt(self._sizes[position])
        ranked = sorted(scores, key=lambda position: (-scores[position], -position))
        return [self.lines[position] for position in ranked[:count]]

    def about(self, subject: str) -> list[str]:
        """The lines whose second word it is."""
        return self._subjects.get(subject, [])


def _terms(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def _within_budget(lines: Iterable[str]) -> list[str]:
    kept, used = [], 0
    for line in lines:
        used += len(line.split())
        if used > BUDGET:
            break
        kept.append(line)
    return kept


def _text(function: Function | tuple[Function, ...], subform: Subform = Subform.FLAT, **dynamics: Any) -> MemoryProfile:
    return MemoryProfile(Form.TEXT, subform, function if isinstance(function, tuple) else (function,), **dynamics)


class _FlatLog:
    """Every line as it was."""

    name = "flat log"
    profile = _text(tuple(Function), retrieval=(Retrieval.LEXICAL,))

    def __init__(self) -> None:
        self._index = _Index()

    def write(self, event: str) -> None:
        self._index.add(event)

    def read(self, question: str) -> list[str]:
        return self._index.best(question)


class _UserProfile:
    """What the user says is so, one value a slot: the last one said."""

    name = "profile"
    profile = _text(Function.FACTS_USER, formation=(Formation.DISTILL_FACTS,), evolution=(Evolution.UPDATE_EXTERNAL,))

    def __init__(self) -> None:
        self._slots: dict[str, str] = {}

    def write(self, event: str) -> None:
        said = re.search(r"\bmy (\w+) is \w+", event)
        if said:
            self._slots[said.group(1)] = event

    def read(self, question: str) -> list[str]:
        return [self._slots[word] for word in _terms(question) if word in self._slots]


class _Graph:
    """Relations between entities, searched outwards from those that the question names."""

    name = "graph"
    profile = _text(
        Function.FACTS_ENVIRONMENT,
        Subform.PLANAR,
        formation=(Formation.STRUCTURE_ENTITIES,),
        retrieval=(Retrieval.GRAPH,),
    )

    def __init__(self) -> None:
        self._edges: dict[str, list[tuple[str, str]]] = defaultdict(list)

    def write(self, event: str) -> None:
        relation = re.fullmatch(r"doc (\w+) \w+_\w+ (\w+)", event) or re.search(r"\bmy (\w+) is (\w+)", event)
        if relation:
            self._edges[relation.group(1)].append((event, relation.group(2)))

    def read(self, question: str) -> list[str]:
        near = [edge for word in _terms(question) for edge in self._edges.get(word, ())]
        return [line for line, _ in near] + [line for _, end in near for line, _ in self._edges.get(end, ())]


class _Cases:
    """What was solved before and how, found by likeness of the problem."""

    name = "cases"
    profile = _text(Function.CASES, formation=(Formation.DISTILL_EXPERIENCE,), retrieval=(Retrieval.SEMANTIC,))

    def __init__(self) -> None:
        self._index = _Index()

    def write(self, event: str) -> None:
        if event.startswith("run ") and event.endswith("outcome solved"):
            problem, *middle, _ = event.split(" ; ")
            self._index.add(f"{problem} ; {middle[-1]}", _terms(problem))

    def read(self, question: str) -> list[str]:
        return self._index.best(question, 3)


class _Insights:
    """Rules induced over many runs: pairs of words and the deed that went well with them more often than not."""

    name = "insights"
    profile = _text(
        Function.STRATEGIES,
        Subform.HIERARCHICAL,
        formation=(Formation.DISTILL_EXPERIENCE,),
        evolution=(Evolution.CONSOLIDATE_GLOBAL,),
    )

    def __init__(self) -> None:
        self._outcomes: dict[tuple[str, str], Counter[tuple[str, bool]]] = defaultdict(Counter)
        self._met: Counter[str] = Counter()
        self._runs = 0

    def write(self, event: str) -> None:
        run = re.match(r"run (.*?) ;.*\bdid (\w+) ; outcome (\w+)", event)
        if run:
            words = sorted(set(_terms(run.group(1))))
            self._met.update(words)
            self._runs += 1
            for pair in combinations(words, 2):
                self._outcomes[pair][run.group(2), run.group(3) == "solved"] += 1

    def read(self, question: str) -> list[str]:
        rules = []
        # A word that stands in a third of all runs tells none of them apart.
        telling = {word for word in _terms(question) if self._met[word] < self._runs / 3}
        for pair in combinations(sorted(telling), 2):
            for deed, _ in {key for key in self._outcomes.get(pair, {}) if key[1]}:
                good, bad = self._outcomes[pair][deed, True], self._outcomes[pair][deed, False]
                # The lower end of what so few trials can mean: two successes out of two are not yet a rule.
                trials = good + bad + 2
                rules.append(((good + 1) / trials - 1 / math.sqrt(trials), f"when {' and '.join(pair)} did {deed}"))
        return [line for _, line in sorted(rules, reverse=True)[:4]]


class _Skills:
    """Procedures with the argument made a variable, filled in for the task at hand."""

    name = "skills"
    profile = _text(Function.SKILLS, formation=(Formation.DISTILL_EXPERIENCE,))

    def __init__(self) -> None:
        self._steps: dict[str, str] = {}

    def write(self, event: str) -> None:
        run = re.match(r"run please (\w+) (\w+) ; steps (.*) ; outcome solved", event)
        if run:
            self._steps[run.group(1)] = re.sub(rf"\b{run.group(2)}\b", "{}", run.group(3))

    def read(self, question: str) -> list[str]:
        words = _terms(question)
        return [
            f"run please {word} {after} ; steps {self._steps[word].replace('{}', after)}"
            for word, after in pairwise(words)
            if word in self._steps
        ]


class _Condenser:
    """An abstract of long input: of lines alike but for a name and a number, only the extremes."""

    name = "condenser"
    profile = _text(Function.WORK_SINGLE, formation=(Formation.SUMMARY_PARTITIONED,), retrieval=(Retrieval.COMPRESS,))

    def __init__(self) -> None:
        self._least: dict[tuple[str, ...], tuple[int, str]] = {}
        self._most: dict[tuple[str, ...], tuple[int, str]] = {}

    def write(self, event: str) -> None:
        words = event.split()
        if words[-1].isdigit() and len(words) > 4:
            group = (words[1], *words[3:-2])
            entry = int(words[-1]), event
            self._least[group] = min(self._least.get(group, entry), entry)
            self._most[group] = max(self._most.get(group, entry), entry)

    def read(self, question: str) -> list[str]:
        asked = set(_terms(question))
        groups = sorted(self._least, key=lambda group: -len(asked & set(group)))[:3]
        return [extreme[group][1] for group in groups for extreme in (self._least, self._most)]


class _State:
    """Where every quantity of a run stands, folded step by step."""

    name = "state"
    profile = _text(
        Function.WORK_MULTI, formation=(Formation.SUMMARY_INCREMENTAL,), evolution=(Evolution.CONSOLIDATE_LOCAL,)
    )

    def __init__(self) -> None:
        self._held: Counter[tuple[str, str]] = Counter()

    def write(self, event: str) -> None:
        change = re.fullmatch(r"step (\w+) (\w+) changed ([+-]\d+)", event)
        if change:
            self._held[change.group(1), change.group(2)] += int(change.group(3))

    def read(self, question: str) -> list[str]:
        asked = set(_terms(question))
        ranked = sorted(self._held, key=lambda key: -len(asked & set(key)))[:4]
        return [f"state {job} {thing} stands {self._held[job, thing]}" for job, thing in ranked]


_CONFIGURATIONS: tuple[Callable[[], _Memory], ...] = (
    _FlatLog,
    _UserProfile,
    _Graph,
    _Cases,
    _Insights,
    _Skills,
    _Condenser,
    _State,
)

_PREDICTED: Mapping[Function, str] = {
    Function.FACTS_USER: "profile",
    Function.FACTS_ENVIRONMENT: "graph",
    Function.CASES: "cases",
    Function.STRATEGIES: "insights",
    Function.SKILLS: "skills",
    Function.WORK_SINGLE: "condenser",
    Function.WORK_MULTI: "state",
}
"""Which form of organisation the survey names for each function."""


def _solved(memories: Iterable[_Memory], world: World) -> dict[str, list[bool]]:
    """By memory, whether the agent solves each task with what the memory hands it at the end of the stream."""
    solved = {}
    for memory in memories:
        for event in world.events:
            memory.write(event)
        solved[memory.name] = [task.solve(_within_budget(memory.read(task.question))) for task in world.tasks]
    return solved


def _by_function(world: World, outcome: Sequence[bool]) -> dict[str, float]:
    """Share of the tasks solved, by function and on average over the functions."""
    by_function = defaultdict(list)
    for task, solved in zip(world.tasks, outcome, strict=True):
        by_function[task.function].append(solved)
    shares = {str(function): float(np.mean(by_function[function])) for function in Function}
    return {**shares, "average": float(np.mean([*shares.values()]))}


# --- the router ---


class _Router:
    """Chooses a memory for a question by what their profiles say they are for; it never sees how well they do.

    The question's function is told by naive Bayes over its words, from a few examples in other wordings; the choice falls
    on the most specific profile that names that function.
    """

    def __init__(self, profiles: Mapping[str, MemoryProfile], examples: Iterable[tuple[str, Function]]) -> None:
        self._profiles = profiles
        self._with: dict[Function, Counter[str]] = {function: Counter() for function in Function}
        self._examples: Counter[Function] = Counter()
        for question, function in examples:
            self._with[function].update(set(_terms(question)))
            self._examples[function] += 1

    def choose(self, question: str) -> str:
        """The name of a memory."""
        # A word says less the more functions ask with it ("the", "what"), and nothing where none does: mostly a name.
        askers = {word: sum(word in known for known in self._with.values()) for word in _terms(question)}
        telling = {word: math.log(len(Function) / count) for word, count in askers.items() if count}

        def likelihood(function: Function) -> float:
            # Of examples, not of words: a function whose questions hold many names is not less likely for that.
            known, trials = self._with[function], self._examples[function]
            return sum(weight * math.log((known[word] + 1) / (trials + 2)) for word, weight in telling.items())

        function = max(Function, key=likelihood)
        able = [arm for arm, profile in self._profiles.items() if function in profile.function]
        return min(able, key=lambda arm: len(self._profiles[arm].function))


def _routed(profiles: Mapping[str, MemoryProfile], solved: Mapping[str, list[bool]], world: World) -> dict[str, float]:
    """What a router that knows these profiles scores."""
    router = _Router(profiles, world.examples)
    return _by_function(world, [solved[router.choose(task.question)][at] for at, task in enumerate(world.tasks)])


def _dealt(profiles: Mapping[str, MemoryProfile], seed: int) -> dict[str, MemoryProfile]:
    """The profiles of the special memories dealt out so that none has its own: the control."""
    special = [arm for arm in profiles if arm != "flat log"]
    shift = 1 + seed % (len(special) - 1)
    return {**profiles, **{arm: profiles[special[(at + shift) % len(special)]] for at, arm in enumerate(special)}}


# --- dynamics: what evolution and retrieval each add to plain formation ---


class _Dynamic:
    """A log, with evolution (repeats dropped, values superseded, sums folded) and hybrid retrieval (links) as options."""

    profile = _FlatLog.profile

    def __init__(self, *, evolve: bool, retrieve: bool) -> None:
        self.name = "form" + " + evolve" * evolve + " + retrieve" * retrieve
        self._evolve, self._retrieve = evolve, retrieve
        self._lines: dict[str, str] = {}
        self._count, self._told = 0, Counter[str]()
        self._held: Counter[str] = Counter()
        self._index: _Index | None = None

    @property
    def size(self) -> int:
        """How many lines are kept."""
        return len(self._lines)

    def write(self, event: str) -> None:
        self._count += 1
        self._told.update({*_terms(event)})
        key = str(self._count)
        if self._evolve:
            slot = re.search(r"\bmy \w+ is ", event)
            change = re.fullmatch(r"step (\w+ \w+) changed ([+-]\d+)", event)
            if change:
                self._held[change.group(1)] += int(change.group(2))
                event = f"state {change.group(1)} stands {self._held[change.group(1)]}"
            # One line a slot, one a quantity, one for what is said again in the same words.
            key = slot.group(0) if slot else f"state {change.group(1)}" if change else event
            self._lines.pop(key, None)
        self._lines[key] = event
        self._index = None

    def read(self, question: str) -> list[str]:
        if self._index is None:
            # Dropping a line must not change how rare a word is: that is a matter of what was told.
            self._index = _Index(self._count, self._told)
            for line in self._lines.values():
                self._index.add(line)
        found = self._index.best(question)
        if not self._retrieve:
            return found
        # From what the two best lines name, on to the lines whose subject that is.
        known = set(_terms(question))
        named = [word for line in found[:2] for word in _terms(line)[2:] if word not in known]
        linked = [line for word in named for line in self._index.about(word) if line not in found]
        return [*found[:2], *linked[:4], *found[2:]]


def _dynamics(world: World) -> dict[str, dict[str, float]]:
    memories = [_Dynamic(evolve=evolve, retrieve=retrieve) for retrieve in (False, True) for evolve in (False, True)]
    solved = _solved(memories, world)
    return {
        memory.name: {**_by_function(world, solved[memory.name]), "lines kept": float(memory.size)}
        for memory in memories
    }


@functools.cache
def _locomo(data: Path) -> dict[str, dict[str, float]]:
    """Recall@10 of the evidence on LoCoMo without an embedder, by category (1: several hops); empty where there is none.

    Form is BM25 over the turns, evolution drops those that say nothing or what their speaker has said before in the same
    words, retrieval is the product's search.
    """
    folder = next((at for at in (data, data / "locomo") if (at / "locomo10.json").is_file()), None)
    if folder is None:
        return {}
    recalls: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    kept: Counter[str] = Counter()
    for conversation, evolve in product(load_locomo(folder), ("", " + evolve")):
        turns: dict[str, Turn] = {}
        for turn in conversation.turns:
            said = f"{turn.text} {turn.caption}".strip()
            key = " ".join([turn.speaker, *_terms(said.lower())]) if evolve else turn.id
            if not evolve or not why_nothing(said):
                turns.setdefault(key, turn)
        stages = {f"LoCoMo: form{evolve}{retrieve}": retrieve for retrieve in ("", " + retrieve")}
        kept.update(dict.fromkeys(stages, len(turns)))
        with (
            tempfile.TemporaryDirectory() as store,
            Memory(store, user="u", embedder=None, encoders=(), background=False, durability="normal") as memory,
        ):
            memory.add([_message(turn) for turn in turns.values()])
            no = memory.store.partition(memory.scope())
            assert no is not None
            partition = memory.recall.partition(no)
            partition.catch_up()
            names = {row.rid & 0xFFFFFFFF: str(row.cube.data["turn"]) for row in memory.store.rows(memory.scope())}
            for question, (arm, retrieve) in product(conversation.questions, stages.items()):
                if not question.evidence:
                    continue
                if retrieve:
                    found = [str(hit.cube.data["turn"]) for hit in memory.search(question.text, k=10)]
                else:
                    scores = partition.lexical.scores(terms(question.text), partition.size)
                    found = [names[row] for row in top(scores, 10).tolist()]
                share = recall(found, set(question.evidence), 10)
                for group in (f"category {question.category}", "all"):
                    recalls[arm][group].append(share)
    return {
        arm: {**{group: float(np.mean(shares)) for group, shares in sorted(by.items())}, "turns kept": float(kept[arm])}
        for arm, by in recalls.items()
    }


def _message(turn: Turn) -> dict[str, Any]:
    message = {"role": turn.role, "content": turn.text, "id": turn.id, "at": turn.time, "name": turn.speaker}
    return {**message, "caption": turn.caption} if turn.caption else message


# --- forgetting ---

_HALF_LIFE = 30.0
_PER_DAY = 20

_POLICIES = ("forget by time", "forget by frequency", "forget by importance", "forget combined")


def _worth(
    policy: str, age: npt.NDArray[np.float64], uses: npt.NDArray[np.float64], importance: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """What keeps a memory: days since its last use, uses, importance. The lowest is forgotten; ties fall to the oldest."""
    match policy:
        case "forget by time":
            return -age
        case "forget by frequency":
            return uses - 1e-6 * age
        case "forget by importance":
            return importance - 1e-9 * age
        case _:
            return 0.5 ** (age / _HALF_LIFE) * np.log1p(uses) * importance


def _streams(size: _Size, seed: int) -> dict[str, dict[str, float]]:
    """Importance-weighted share of needs that were met, by policy and stream, at a capacity of a quarter of the items."""
    kinds = {"Zipf": (1.0, 0.0), "drift": (0.6, 0.02), "Zipf + drift": (1.0, 0.01)}
    results: dict[str, dict[str, float]] = {arm: {} for arm in (*_POLICIES, "forget combined, importance shuffled")}
    for at, (stream, (exponent, drift)) in enumerate(kinds.items()):
        rng = np.random.default_rng([seed, 44, at])
        importance = rng.beta(1, 3, size.items)
        needs = _needs(size, exponent, drift, rng)
        for policy in _POLICIES:
            results[policy][stream] = _met(needs, importance, importance, policy, size)
        shuffled = rng.permutation(importance)
        control = _met(needs, importance, shuffled, "forget combined", size)
        results["forget combined, importance shuffled"][stream] = control
    return results


def _shortfall(streams: Mapping[str, Mapping[str, float]], arm: str) -> float:
    """How far a policy falls behind the best one on the stream where that is furthest."""
    kept = [by_stream for policy, by_stream in streams.items() if "shuffled" not in policy]
    return max(max(by_stream[stream] for by_stream in kept) - streams[arm][stream] for stream in streams[arm])


def _needs(size: _Size, exponent: float, drift: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Which item is needed, ``_PER_DAY`` a day: Zipf over ranks, some of which change hands each day."""
    popularity = 1 / np.arange(1, size.items + 1) ** exponent
    popularity /= popularity.sum()
    holder = rng.permutation(size.items)
    days = []
    for _ in range(size.days):
        moving = rng.choice(size.items, round(drift * size.items), replace=False)
        holder[moving] = holder[rng.permutation(moving)]
        days.append(holder[rng.choice(size.items, _PER_DAY, p=popularity)])
    return np.stack(days)


def _met(
    needs: npt.NDArray[np.int64],
    importance: npt.NDArray[np.float64],
    believed: npt.NDArray[np.float64],
    policy: str,
    size: _Size,
) -> float:
    """Play a stream: what is kept is used, what is not is learnt anew, and the memory never holds more than a quarter."""
    kept = np.zeros(size.items, bool)
    last, uses = np.zeros(size.items), np.zeros(size.items)
    met = asked = 0.0
    for day, items in enumerate(needs):
        for order, item in enumerate(items):
            if day >= size.days // 4:
                asked += importance[item]
                met += importance[item] * kept[item]
            last[item] = day + order / _PER_DAY
            uses[item] = uses[item] + 1 if kept[item] else 1
            kept[item] = True
            if kept.sum() > size.items // 4:
                held = np.flatnonzero(kept)
                score = _worth(policy, last[item] - last[held], uses[held], believed[held])
                kept[held[score.argmin()]] = False
    return float(met / asked)


# --- the trace: which memory decided, on the product itself ---


def _trace(size: _Size, seed: int) -> dict[str, float]:
    """Leave one out: of the memories that a search finds, retracting which one changes the answer most?

    The agent answers with the value in the best hit that speaks of what was asked, and is as sure as that hit is relevant.
    A memory's influence is how much surety of that answer goes with it.
    """
    rng = np.random.default_rng([seed, 45])
    subjects, values, chat = make_words(size.traced, rng), make_words(size.traced, rng, 4), make_words(40, rng)
    first, answered, silent, spoke = 0, 0, 0, 0
    with (
        tempfile.TemporaryDirectory() as folder,
        Memory(folder, user="u", embedder=None, encoders=(), background=False, durability="normal") as memory,
    ):
        for subject, value in zip(subjects, values, strict=True):
            memory.add(f"The {subject} is kept in room {value}.")
            memory.add(f"We spoke of the {subject} and the {pick(chat, rng)} today.")
        for subject, value in zip(subjects, values, strict=True):
            question = f"In which room is the {subject} kept?"
            hits = memory.search(question, k=5)
            before = _surety(memory, question, subject, value)
            if not before:
                continue
            answered += 1
            influence = {}
            for hit in hits:
                memory.retract(hit.id)
                influence[hit.id] = before - _surety(memory, question, subject, value)
                memory.restore(hit.id)
            deciding = next(hit.id for hit in hits if f"{subject} is kept in room {value}" in hit.text)
            first += influence[deciding] == max(influence.values()) and influence[deciding] > 0
        for stranger in make_words(2 * size.traced, rng, 5)[: size.traced]:
            silent += memory.search(f"In which room is the {stranger} kept?", k=5).abstain
        for subject in subjects:
            spoke += not memory.search(f"In which room is the {subject} kept?", k=5).abstain
    return {
        "deciding is first": first / max(answered, 1),
        "answered": answered / size.traced,
        "abstains on what was never said": silent / size.traced,
        "does not abstain on what was": spoke / size.traced,
    }


def _surety(memory: Memory, question: str, subject: str, value: str) -> float:
    for hit in memory.search(question, k=5):
        found = re.search(rf"{subject} is kept in room (\w+)", hit.text)
        if found:
            return hit.relevance if found.group(1) == value else 0.0
    return 0.0
