"""Memory in the Age of AI Agents (arXiv 2512.13564): that form, function and dynamics are sufficient and useful axes.

Sufficient: every mechanism of this product has a place on them, and every empty place has a reason. Useful: eight small
memories that differ along the axes are each best at the function that their profile names, so that a router that reads
profiles, and never a score, nearly equals the best choice for each task. The dynamics each pay where the survey says they
should, forgetting by time, use and importance together serves every stream, and the deciding memory can be named.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from holdfast import Memory, taxonomy
from holdfast.claims import plots
from holdfast.claims.base import Check, Result, Scale
from holdfast.cube import Form
from holdfast.errors import ClaimError
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
    """All parts on one seed; ``data`` is not needed. Raises ClaimError at ``gpu``, which this claim lacks."""
    del data
    if scale not in _SIZES:
        raise ClaimError("claim 43 runs on the processor alone: use --scale quick or full")
    size = _SIZES[scale]
    house = taxonomy.matrix()
    missing = taxonomy.undeclared()
    world = _world(size, seed)
    scores = {memory.name: _score(memory, world) for memory in _filled(_CONFIGURATIONS, world)}
    routed = _routed(scores, world, seed)
    best = {function: max(scores, key=lambda arm: scores[arm][function]) for function in Function}
    as_predicted = sum(
        best[function] == _PREDICTED[function]
        and sum(scores[arm][function] == scores[best[function]][function] for arm in scores) == 1
        for function in Function
    )
    oracle = {function: scores[best[function]][function] for function in Function}
    single = max(_average(scores[arm]) for arm in scores)
    dynamics = _dynamics(world)
    plain, evolved = dynamics["form"], dynamics["form + evolve"]
    retrieved = dynamics["form + retrieve"]
    streams = _streams(size, seed)
    shortfall = max(
        max(streams[arm][stream] for arm in streams if "shuffled" not in arm) - streams["forget combined"][stream]
        for stream in streams["forget combined"]
    )
    traced = _trace(size, seed)
    updates, hops = str(Function.FACTS_USER), str(Function.FACTS_ENVIRONMENT)
    rest = [key for key in plain if key not in (updates, "lines kept")]
    checks = (
        Check("mechanisms without a profile", float(len(missing)), 0.0, at_least=False, note=", ".join(missing)),
        Check("empty cells and sub-types without a reason", float(len(house.unexplained)), 0.0, at_least=False),
        Check("functions whose one best memory is the predicted one, of 7", float(as_predicted), 5.0),
        Check("router, share of the best choice by function", _average(routed["router"]) / _average(oracle), 0.95),
        Check("router above the best single memory", _average(routed["router"]) - single, 0.08),
        Check("evolution adds on updates", evolved[updates] - plain[updates], 0.03),
        Check("retrieval adds on several hops", retrieved[hops] - plain[hops], 0.03),
        Check("evolution makes the store smaller by", 1 - evolved["lines kept"] / plain["lines kept"], 0.30),
        Check(
            "largest loss by evolution on any other function",
            max(plain[key] - evolved[key] for key in rest),
            0.01,
            at_least=False,
        ),
        Check("combined forgetting, worst shortfall on any stream", shortfall, 0.02, at_least=False),
        Check("the deciding memory has the largest influence", traced["deciding is first"], 0.90),
    )
    choice = {"best choice by function": {str(function): oracle[function] for function in Function}}
    choice["best choice by function"]["average"] = _average(oracle)
    return Result(
        arms={
            "router": _flat(routed["router"]),
            **choice,
            **{arm: _flat(by_function) for arm, by_function in scores.items()},
            "router, profiles shuffled": _flat(routed["router, profiles shuffled"]),
            **dynamics,
            **streams,
            "traced memory": traced,
        },
        checks=checks,
        settings={
            "tasks a function": size.tasks,
            "events": len(world.events),
            "budget, words": BUDGET,
            "wrong success labels": _WRONG,
            "predicted": {str(function): arm for function, arm in _PREDICTED.items()},
            "stream days, items, capacity": [size.days, size.items, 0.25],
            "half-life, days": _HALF_LIFE,
            "seed": seed,
        },
        series={"coverage": house.to_dict(), "gaps": house.gaps},
        notes=(
            "The workload and the eight memories are synthetic and small: the check is that the axes tell memories apart, "
            "not how good any one is. Every memory sees every event and serves every task.",
            "The ablation of dynamics runs on the workload; its other half, on LoCoMo, is not part of this claim.",
            "Combined forgetting needs importance to mean something: with importances shuffled it falls below the best of "
            "the single policies, as its arm shows.",
        ),
    )


def plot(result: Result, path: Path) -> None:
    """Draw router and memories on average, the seven functions, dynamics, and forgetting by stream."""
    memories = [arm for arm in arms[:11] if arm in result.arms]
    look: dict[str, Any] = {
        "percent": True,
        "bounds": ["best choice by function"],
        "controls": ["router, profiles shuffled"],
    }
    panels: list[plots.Panel] = [
        plots.Bars(
            {a: result.arms[a]["average"] for a in memories}, title="All seven functions", ours=["router"], **look
        )
    ]
    predicted = result.settings["predicted"]
    panels += [
        plots.Bars(
            {arm: result.arms[arm][function] for arm in memories[2:10]},
            title=function.capitalize(),
            ours=[predicted[function]],
            percent=True,
        )
        for function in map(str, Function)
    ]
    stages = [arm for arm in arms[11:15] if arm in result.arms]
    for function, title in (
        (Function.FACTS_USER, "Evolution: updates"),
        (Function.FACTS_ENVIRONMENT, "Retrieval: hops"),
    ):
        panels.append(
            plots.Bars(
                {arm: result.arms[arm][str(function)] for arm in stages}, title=title, ours=[stages[-1]], percent=True
            )
        )
    forgetting = [arm for arm in arms[15:] if arm in result.arms]
    panels += [
        plots.Bars(
            {arm.removeprefix("forget "): result.arms[arm][stream] for arm in forgetting},
            title=f"Forgetting: {stream}",
            ours=["combined"],
            controls=["combined, importance shuffled"],
            percent=True,
        )
        for stream in result.arms["forget combined"]
    ]
    plots.draw(
        path,
        panels,
        title="Each memory is best at the function that its profile names, and a router can know that beforehand",
        subtitle=(
            f"Share of tasks solved with {BUDGET} words of memory; {result.settings['tasks a function']} tasks a function. "
            "In blue: the router, or what the survey predicts."
        ),
    )


def _average(by_function: Mapping[Function, float]) -> float:
    return float(np.mean([by_function[function] for function in Function]))


def _flat(by_function: Mapping[Function, float]) -> dict[str, float]:
    return {**{str(function): by_function[function] for function in Function}, "average": _average(by_function)}


# --- the workload: one stream of lines, and tasks of each function asked at its end ---

_WRONG = 0.12


@dataclass(frozen=True, slots=True)
class _Task:
    """A question in words, what is asked for in particular, and whether lines from a memory let the agent answer it."""

    function: Function
    question: str
    solve: Callable[[Sequence[str]], bool]


@dataclass(frozen=True, slots=True)
class _World:
    """Everything that was experienced, oldest first; what is asked; and example questions that taught the router."""

    events: tuple[str, ...]
    tasks: tuple[_Task, ...]
    examples: tuple[tuple[str, Function], ...]


_Part = tuple[list[str], list[_Task], list[tuple[str, Function]]]


def _world(size: _Size, seed: int) -> _World:
    rng = np.random.default_rng([seed, 43])
    makers = (_user_facts, _environment_facts, _cases, _strategies, _skills, _single_turn, _many_turns)
    parts = [make(size.tasks, rng) for make in makers]
    # Life does not come sorted by function.
    return _World(
        events=tuple(_interleaved([part[0] for part in parts], rng)),
        tasks=tuple(task for part in parts for task in part[1]),
        examples=tuple(example for part in parts for example in part[2]),
    )


def _interleaved(lanes: Sequence[Sequence[str]], rng: np.random.Generator) -> list[str]:
    """The lanes shuffled together, each in its own order."""
    cursors = [iter(lane) for lane in lanes]
    order = rng.permutation(np.repeat(np.arange(len(lanes)), [len(lane) for lane in lanes]))
    return [next(cursors[lane]) for lane in order]


_SYLLABLES = ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "te", "vi", "zo")


def _words(count: int, rng: np.random.Generator, length: int = 3) -> list[str]:
    """Different made-up words, so that no word means anything by accident."""
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(rng.choice(_SYLLABLES, length))] = None
    return list(found)


def _pick(options: Sequence[Any], rng: np.random.Generator) -> Any:
    return options[int(rng.integers(len(options)))]


def _asked(function: Function, forms: Sequence[str], taught: Sequence[Mapping[str, str]]) -> list[tuple[str, Function]]:
    """Example questions for the router, in wordings that the tasks do not use."""
    return [(form.format(**slots), function) for slots in taught for form in forms]


def _user_facts(count: int, rng: np.random.Generator) -> _Part:
    """What the user says of himself, in several wordings, often updated, often only mentioned."""
    lanes, tasks = [], []
    wordings = (
        "user my {s} is {v} now",
        "user so my {s} is {v}",
        "user by the way my {s} is {v} since last week, all is well",
    )
    for slot in _words(count, rng):
        values, lane = _words(int(rng.integers(2, 5)), rng, 4), []
        for position, value in enumerate(values):
            lane.append(_pick(wordings, rng).format(s=slot, v=value))
            lane += [f"user my {slot} was on my mind again today"] * int(rng.integers(1, 4))
            if position:
                lane.append(f"user my {slot} was {values[position - 1]} back then")
        lanes.append(lane)
        question = _pick(("what is my {s} these days", "tell me my current {s}"), rng).format(s=slot)

        def solve(lines: Sequence[str], slot: str = slot, value: str = values[-1]) -> bool:
            said = [m.group(1) for m in (re.search(rf"\bmy {slot} is (\w+)", line) for line in lines) if m]
            return bool(said) and said[0] == value

        tasks.append(_Task(Function.FACTS_USER, question, solve))
    taught = [{"s": slot} for slot in _words(4, rng)]
    forms = ("do you remember my {s}", "which {s} is mine these days")
    return _interleaved(lanes, rng), tasks, _asked(Function.FACTS_USER, forms, taught)


def _environment_facts(count: int, rng: np.random.Generator) -> _Part:
    """Facts from documents; half of the questions need two of them in a row."""
    places, regions, heads = _words(count, rng), _words(max(count // 2, 6), rng), _words(max(count // 2, 6), rng, 4)
    within = {place: _pick(regions, rng) for place in places}
    led = {region: heads[index % len(heads)] for index, region in enumerate(regions)}
    events = [f"doc {place} located_in {region}" for place, region in within.items()]
    events += [f"doc {region} governed_by {head}" for region, head in led.items()]
    events += [
        f"doc {_pick(places, rng)} was seen near the {_pick(regions, rng)} road, report {n}" for n in range(2 * count)
    ]
    tasks = []
    for index, place in enumerate(places):
        far = index % 2 == 0
        answer = led[within[place]] if far else within[place]
        forms = (
            (
                "who is governor of the region where {p} is located",
                "the document governor for {p} located_in which region",
            )
            if far
            else ("in which region is {p} located", "the document says {p} located_in what")
        )

        def solve(lines: Sequence[str], place: str = place, far: bool = far, answer: str = answer) -> bool:
            triples = [line.split()[1:4] for line in lines if len(line.split()) == 4]
            known = {(a, relation): b for a, relation, b in triples}
            region = known.get((place, "located_in"), "")
            return (known.get((region, "governed_by")) if far else region) == answer

        tasks.append(_Task(Function.FACTS_ENVIRONMENT, _pick(forms, rng).format(p=place), solve))
    order = rng.permutation(len(events))
    examples = _asked(
        Function.FACTS_ENVIRONMENT,
        ("which region holds {p} by the document", "name the governor whose region {p} is located in"),
        [{"p": p} for p in _words(4, rng)],
    )
    return [events[index] for index in order], tasks, examples


def _cases(count: int, rng: np.random.Generator) -> _Part:
    """Problems that come back with other wording, each with a cure of its own that follows from nothing."""
    symptoms, events, tasks = _words(60, rng), [], []
    for index in range(count):
        shown = list(rng.choice(symptoms, 6, replace=False))
        wrong, cure = f"fix{index}x", f"fix{index}"
        noise = "restarted service, waited, compared output, read logs, asked around"
        attempts = [(wrong, "failed")] * int(rng.integers(1, 3)) + [(cure, "solved")]
        told = [f"run problem {' '.join(shown)} ; {noise} ; did {did} ; outcome {end}" for did, end in attempts]
        events += [told[at] for at in rng.permutation(len(told))]
        seen = [*rng.choice(shown, 4, replace=False), *rng.choice(symptoms, 2, replace=False)]
        form = _pick(("problem again with {s}, which fix", "we see {s}, what is the fix"), rng)
        tasks.append(_Task(Function.CASES, form.format(s=" ".join(seen)), _does(cure)))
    taught = [{"s": " ".join(_words(6, rng))} for _ in range(4)]
    forms = ("a problem shows {s}, what fix helped", "fix this problem, {s}")
    return events, tasks, _asked(Function.CASES, forms, taught)


def _does(action: str) -> Callable[[Sequence[str]], bool]:
    """The agent does what the first line that names a deed says, unless the line itself says that it failed."""

    def solve(lines: Sequence[str]) -> bool:
        for line in lines:
            deed = re.search(r"\bdid (\w+)", line)
            if deed and "outcome failed" not in line:
                return deed.group(1) == action
        return False

    return solve


def _strategies(count: int, rng: np.random.Generator) -> _Part:
    """Hidden rules: in a domain, a cue calls for an action; the other words say nothing, and some outcomes are mislabelled."""
    domains, cues, fillers = _words(8, rng), _words(5, rng), _words(80, rng)
    actions = [f"act{index}" for index in range(6)]
    rule = {(domain, cue): _pick(actions, rng) for domain in domains for cue in cues}
    pairs, events, tasks = list(rule), [], []
    for _ in range(16 * len(pairs)):
        domain, cue = _pick(pairs, rng)
        did = rule[domain, cue] if rng.random() < 0.6 else _pick(actions, rng)
        good = (did == rule[domain, cue]) != (rng.random() < _WRONG)
        words = " ".join(rng.choice(fillers, 5, replace=False))
        events.append(f"run site {domain} shows {cue} {words} ; did {did} ; outcome {'solved' if good else 'failed'}")
    for _ in range(count):
        domain, cue = _pick(pairs, rng)
        words = " ".join(rng.choice(fillers, 5, replace=False))
        form = _pick(("at site {d} showing {c} {w}, how to proceed", "site {d} shows {c} {w}, which approach"), rng)
        question = form.format(d=domain, c=cue, w=words)
        tasks.append(_Task(Function.STRATEGIES, question, _does(rule[domain, cue])))
    taught = [dict(zip("dcw", _words(3, rng), strict=True)) for _ in range(4)]
    forms = ("new site {d} with {c} {w}, which approach should we take", "how to approach site {d}, {c} {w}")
    return events, tasks, _asked(Function.STRATEGIES, forms, taught)


def _skills(count: int, rng: np.random.Generator) -> _Part:
    """Procedures with an argument: seen with some, asked for with another."""
    verbs, steps, objects = _words(count, rng), _words(40, rng), _words(3 * count, rng, 4)
    events, tasks = [], []
    for verb in verbs:
        parts = list(rng.choice(steps, 3, replace=False))
        for _ in range(2):
            thing = _pick(objects, rng)
            listed = ", ".join(f"{step} {thing}" for step in parts)
            events.append(f"run please {verb} {thing} ; steps {listed} ; outcome solved")
        thing = _words(1, rng, 5)[0]
        wanted = ", ".join(f"{step} {thing}" for step in parts)

        def solve(lines: Sequence[str], verb: str = verb, wanted: str = wanted) -> bool:
            shown = [line for line in lines if f" {verb} " in line and " ; steps " in line]
            return bool(shown) and shown[0].split(" ; steps ")[1].split(" ; ")[0] == wanted

        form = _pick(("please {v} {t}, step by step", "carry out the steps, {v} {t}"), rng)
        tasks.append(_Task(Function.SKILLS, form.format(v=verb, t=thing), solve))
    taught = [dict(zip("vt", _words(2, rng), strict=True)) for _ in range(4)]
    forms = ("perform the steps to {v} {t}", "please carry out {v} on {t}, step by step")
    return events, tasks, _asked(Function.SKILLS, forms, taught)


def _single_turn(count: int, rng: np.random.Generator) -> _Part:
    """One long observation, a table of offers, and a question that only an abstract of it answers in the budget."""
    colours, states, events, tasks = ("red", "blue", "green"), ("new", "used"), [], []
    for table in _words(count, rng):
        items = _words(36, rng, 4)
        prices = rng.permutation(np.arange(10, 10 + len(items)))
        rows = [(i, _pick(colours, rng), _pick(states, rng), int(p)) for i, p in zip(items, prices, strict=True)]
        events += [f"row {table} {item} {colour} {state} price {price}" for item, colour, state, price in rows]
        _, colour, state, _ = _pick(rows, rng)
        wanted = min((row for row in rows if row[1:3] == (colour, state)), key=lambda row: row[3])[0]

        def solve(
            lines: Sequence[str], table: str = table, cs: str = f"{colour} {state}", wanted: str = wanted
        ) -> bool:
            found = [re.search(rf"^row {table} (\w+) {cs} price (\d+)", line) for line in lines]
            offers = [(int(match.group(2)), match.group(1)) for match in found if match]
            return bool(offers) and min(offers)[1] == wanted

        form = _pick(("table {t}, cheapest {c} {s} item", "from table {t} the lowest price of {c} {s}"), rng)
        tasks.append(_Task(Function.WORK_SINGLE, form.format(t=table, c=colour, s=state), solve))
    taught = [{"t": t, "c": _pick(colours, rng), "s": _pick(states, rng)} for t in _words(4, rng)]
    forms = ("what {c} {s} item is cheapest in table {t}", "lowest price for {c} {s} in table {t}")
    return events, tasks, _asked(Function.WORK_SINGLE, forms, taught)


def _many_turns(count: int, rng: np.random.Generator) -> _Part:
    """A run of many steps that each change a quantity; what counts is where it stands at the end."""
    events, tasks = [], []
    for job in _words(count, rng):
        things = _words(3, rng, 4)
        held = dict.fromkeys(things, 0)
        for _ in range(30):
            thing = _pick(things, rng)
            change = int(rng.integers(1, 6)) * (-1 if held[thing] > 5 and rng.random() < 0.5 else 1)
            held[thing] += change
            events.append(f"step {job} {thing} changed {change:+d}")
        thing = _pick(things, rng)

        def solve(lines: Sequence[str], job: str = job, thing: str = thing, total: int = held[thing]) -> bool:
            stands = [re.search(rf"^state {job} {thing} stands (-?\d+)", line) for line in lines]
            if any(stands):
                return int(next(match for match in stands if match).group(1)) == total
            changes = [re.search(rf"^step {job} {thing} changed ([+-]\d+)", line) for line in lines]
            return any(changes) and sum(int(match.group(1)) for match in changes if match) == total

        form = _pick(("after all steps of {j}, how much {t} is left", "job {j}, how many {t} remain"), rng)
        tasks.append(_Task(Function.WORK_MULTI, form.format(j=job, t=thing), solve))
    taught = [dict(zip("jt", _words(2, rng), strict=True)) for _ in range(4)]
    forms = ("how many {t} are left in job {j}", "how much {t} remain after the steps of {j}")
    return events, tasks, _asked(Function.WORK_MULTI, forms, taught)


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
    """Lines by the rarity-weighted share of the question's words that they hold."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._sizes: list[int] = []
        self._postings: dict[str, list[int]] = defaultdict(list)

    def add(self, line: str, words: Iterable[str] | None = None) -> None:
        terms = set(_terms(line) if words is None else words)
        for term in terms:
            self._postings[term].append(len(self.lines))
        self.lines.append(line)
        self._sizes.append(len(terms))

    def best(self, question: str, count: int = 12) -> list[str]:
        scores: dict[int, float] = defaultdict(float)
        for term in set(_terms(question)):
            held = self._postings.get(term, ())
            for position in held:
                scores[position] += math.log(1 + len(self.lines) / len(held)) / math.sqrt(self._sizes[position])
        ranked = sorted(scores, key=lambda position: (-scores[position], -position))
        return [self.lines[position] for position in ranked[:count]]


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


def _filled(configurations: Iterable[Callable[[], _Memory]], world: _World) -> list[_Memory]:
    memories = [make() for make in configurations]
    for event in world.events:
        for memory in memories:
            memory.write(event)
    return memories


def _score(memory: _Memory, world: _World) -> dict[Function, float]:
    """Share of the tasks of each function that the agent solves with what the memory hands it."""
    solved = defaultdict(list)
    for task in world.tasks:
        solved[task.function].append(task.solve(_within_budget(memory.read(task.question))))
    return {function: float(np.mean(solved[function])) for function in Function}


# --- the router ---


class _Router:
    """Chooses a memory for a question by what their profiles say they are for; it never sees how well they do.

    The question's function is told by naive Bayes over its words, from a few examples in other wordings; the choice falls
    on the most specific profile that names that function.
    """

    def __init__(self, profiles: Mapping[str, MemoryProfile], examples: Iterable[tuple[str, Function]]) -> None:
        self._profiles = profiles
        self._counts: dict[Function, Counter[str]] = {function: Counter() for function in Function}
        for question, function in examples:
            self._counts[function].update(set(_terms(question)))

    def choose(self, question: str) -> str:
        """The name of a memory."""
        # Words of no example say nothing: most are names that the router cannot know.
        words = set(_terms(question)) & set().union(*self._counts.values())

        def likelihood(function: Function) -> float:
            counts = self._counts[function]
            return sum(math.log((counts[word] + 0.1) / (sum(counts.values()) + 10)) for word in words)

        function = max(Function, key=likelihood)
        able = [arm for arm, profile in self._profiles.items() if function in profile.function]
        return min(able, key=lambda arm: len(self._profiles[arm].function))


def _routed(scores: Mapping[str, Any], world: _World, seed: int) -> dict[str, dict[Function, float]]:
    """What the router scores, and what it would with the profiles of the seven special memories dealt out at random."""
    memories = {memory.name: memory for memory in _filled(_CONFIGURATIONS, world)}
    profiles = {arm: memories[arm].profile for arm in scores}
    special = [arm for arm in profiles if arm != "flat log"]
    shift = 1 + seed % (len(special) - 1)
    dealt = {arm: profiles[special[(at + shift) % len(special)]] for at, arm in enumerate(special)}
    arms_ = {"router": profiles, "router, profiles shuffled": {"flat log": profiles["flat log"], **dealt}}
    results: dict[str, dict[Function, float]] = {}
    for arm, known in arms_.items():
        router = _Router(known, world.examples)
        solved = defaultdict(list)
        for task in world.tasks:
            lines = _within_budget(memories[router.choose(task.question)].read(task.question))
            solved[task.function].append(task.solve(lines))
        results[arm] = {function: float(np.mean(solved[function])) for function in Function}
    return results


# --- dynamics: what evolution and retrieval each add to plain formation ---


class _Dynamic:
    """A log, with evolution (repeats dropped, values superseded, sums folded) and hybrid retrieval (hops) as options."""

    profile = _FlatLog.profile

    def __init__(self, *, evolve: bool, retrieve: bool) -> None:
        self.name = "form" + " + evolve" * evolve + " + retrieve" * retrieve
        self._evolve, self._retrieve = evolve, retrieve
        self._lines: dict[str, str] = {}
        self._held: Counter[str] = Counter()
        self._index: _Index | None = None

    @property
    def size(self) -> int:
        """How many lines are kept."""
        return len(self._lines)

    def write(self, event: str) -> None:
        key = str(len(self._lines))
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
            self._index = _Index()
            for line in self._lines.values():
                self._index.add(line)
        found = self._index.best(question)
        if not self._retrieve:
            return found
        # The second hop: what the best line names and the question does not is searched for in turn.
        known = set(_terms(question))
        more = self._index.best(" ".join(word for word in _terms(found[0]) if word not in known), 4) if found else []
        return list(dict.fromkeys([*found[:1], *more, *found[1:]]))


def _dynamics(world: _World) -> dict[str, dict[str, float]]:
    memories = [_Dynamic(evolve=evolve, retrieve=retrieve) for retrieve in (False, True) for evolve in (False, True)]
    for event in world.events:
        for memory in memories:
            memory.write(event)
    return {memory.name: {**_flat(_score(memory, world)), "lines kept": float(memory.size)} for memory in memories}


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
    subjects, values, chat = _words(size.traced, rng), _words(size.traced, rng, 4), _words(40, rng)
    first, answered, silent, spoke = 0, 0, 0, 0
    with (
        tempfile.TemporaryDirectory() as folder,
        Memory(folder, user="u", embedder=None, encoders=(), background=False, durability="normal") as memory,
    ):
        for subject, value in zip(subjects, values, strict=True):
            memory.add(f"The {subject} is kept in room {value}.")
            memory.add(f"We spoke of the {subject} and the {_pick(chat, rng)} today.")
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
        for stranger in _words(2 * size.traced, rng, 5)[: size.traced]:
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
