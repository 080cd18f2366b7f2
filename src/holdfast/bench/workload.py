"""A synthetic life of an agent, with tasks of every function of memory (arXiv 2512.13564: facts, experience, work).

One stream of lines, as an agent would meet them, and questions asked at its end. Each function has a generator of its own,
and a task says by itself whether lines from a memory let a scripted agent answer it, so that no model judges. Names are made
up, so that no word means anything by accident.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.taxonomy import Function

WRONG = 0.12
"""Share of the outcomes, in the tasks for strategies, that are told wrongly."""


@dataclass(frozen=True, slots=True)
class Task:
    """A question in words, what is asked for in particular, and whether lines from a memory let the agent answer it."""

    function: Function
    question: str
    solve: Callable[[Sequence[str]], bool]


@dataclass(frozen=True, slots=True)
class World:
    """Everything that was experienced, oldest first; what is asked; and example questions that taught the router."""

    events: tuple[str, ...]
    tasks: tuple[Task, ...]
    examples: tuple[tuple[str, Function], ...]


_Part = tuple[list[str], list[Task], list[tuple[str, Function]]]


def make_world(tasks: int, seed: int) -> World:
    """A world with so many tasks of each of the seven functions."""
    rng = np.random.default_rng([seed, 43])
    makers = (_user_facts, _environment_facts, _cases, _strategies, _skills, _single_turn, _many_turns)
    parts = [make(tasks, rng) for make in makers]
    # Life does not come sorted by function.
    return World(
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


def make_words(count: int, rng: np.random.Generator, length: int = 3) -> list[str]:
    """Different made-up words of so many syllables."""
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(rng.choice(_SYLLABLES, length))] = None
    return list(found)


def pick(options: Sequence[Any], rng: np.random.Generator) -> Any:
    """One of the options."""
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
    for slot in make_words(count, rng):
        values, lane = make_words(int(rng.integers(2, 5)), rng, 4), []
        for position, value in enumerate(values):
            lane.append(pick(wordings, rng).format(s=slot, v=value))
            lane += [f"user my {slot} was on my mind again today"] * int(rng.integers(1, 4))
            if position:
                lane.append(f"user my {slot} was {values[position - 1]} back then")
        lanes.append(lane)
        question = pick(("what is my {s} these days", "tell me my current {s}"), rng).format(s=slot)

        def solve(lines: Sequence[str], slot: str = slot, value: str = values[-1]) -> bool:
            said = [m.group(1) for m in (re.search(rf"\bmy {slot} is (\w+)", line) for line in lines) if m]
            return bool(said) and said[0] == value

        tasks.append(Task(Function.FACTS_USER, question, solve))
    taught = [{"s": slot} for slot in make_words(4, rng)]
    forms = ("do you remember my {s}", "which {s} is mine these days")
    return _interleaved(lanes, rng), tasks, _asked(Function.FACTS_USER, forms, taught)


def _environment_facts(count: int, rng: np.random.Generator) -> _Part:
    """Facts from documents; half of the questions need two of them in a row."""
    places, regions, heads = (
        make_words(count, rng),
        make_words(max(count // 2, 6), rng),
        make_words(max(count // 2, 6), rng, 4),
    )
    within = {place: pick(regions, rng) for place in places}
    led = {region: heads[index % len(heads)] for index, region in enumerate(regions)}
    events = [f"doc {place} located_in {region}" for place, region in within.items()]
    events += [f"doc {region} governed_by {head}" for region, head in led.items()]
    events += [
        f"doc {pick(places, rng)} was seen near the {pick(regions, rng)} road, report {n}" for n in range(2 * count)
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

        tasks.append(Task(Function.FACTS_ENVIRONMENT, pick(forms, rng).format(p=place), solve))
    order = rng.permutation(len(events))
    examples = _asked(
        Function.FACTS_ENVIRONMENT,
        ("which region holds {p} by the document", "name the governor whose region {p} is located in"),
        [{"p": p} for p in make_words(4, rng)],
    )
    return [events[index] for index in order], tasks, examples


def _cases(count: int, rng: np.random.Generator) -> _Part:
    """Problems that come back with other wording, each with a cure of its own that follows from nothing."""
    symptoms, events, tasks = make_words(60, rng), [], []
    for index in range(count):
        shown = list(rng.choice(symptoms, 6, replace=False))
        wrong, cure = f"fix{index}x", f"fix{index}"
        noise = "restarted service, waited, compared output, read logs, asked around"
        attempts = [(wrong, "failed")] * int(rng.integers(1, 3)) + [(cure, "solved")]
        told = [f"run problem {' '.join(shown)} ; {noise} ; did {did} ; outcome {end}" for did, end in attempts]
        events += [told[at] for at in rng.permutation(len(told))]
        seen = [*rng.choice(shown, 4, replace=False), *rng.choice(symptoms, 2, replace=False)]
        form = pick(("problem again with {s}, which fix", "we see {s}, what is the fix"), rng)
        tasks.append(Task(Function.CASES, form.format(s=" ".join(seen)), _does(cure)))
    taught = [{"s": " ".join(make_words(6, rng))} for _ in range(4)]
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
    domains, cues, fillers = make_words(8, rng), make_words(5, rng), make_words(80, rng)
    actions = [f"act{index}" for index in range(6)]
    rule = {(domain, cue): pick(actions, rng) for domain in domains for cue in cues}
    pairs, events, tasks = list(rule), [], []
    for _ in range(16 * len(pairs)):
        domain, cue = pick(pairs, rng)
        did = rule[domain, cue] if rng.random() < 0.6 else pick(actions, rng)
        good = (did == rule[domain, cue]) != (rng.random() < WRONG)
        words = " ".join(rng.choice(fillers, 5, replace=False))
        events.append(f"run site {domain} shows {cue} {words} ; did {did} ; outcome {'solved' if good else 'failed'}")
    for _ in range(count):
        domain, cue = pick(pairs, rng)
        words = " ".join(rng.choice(fillers, 5, replace=False))
        form = pick(("at site {d} showing {c} {w}, how to proceed", "site {d} shows {c} {w}, which approach"), rng)
        question = form.format(d=domain, c=cue, w=words)
        tasks.append(Task(Function.STRATEGIES, question, _does(rule[domain, cue])))
    taught = [dict(zip("dcw", make_words(3, rng), strict=True)) for _ in range(4)]
    forms = ("new site {d} with {c} {w}, which approach should we take", "how to approach site {d}, {c} {w}")
    return events, tasks, _asked(Function.STRATEGIES, forms, taught)


def _skills(count: int, rng: np.random.Generator) -> _Part:
    """Procedures with an argument: seen with some, asked for with another."""
    verbs, steps, objects = make_words(count, rng), make_words(40, rng), make_words(3 * count, rng, 4)
    events, tasks = [], []
    for verb in verbs:
        parts = list(rng.choice(steps, 3, replace=False))
        for _ in range(2):
            thing = pick(objects, rng)
            listed = ", ".join(f"{step} {thing}" for step in parts)
            events.append(f"run please {verb} {thing} ; steps {listed} ; outcome solved")
        thing = make_words(1, rng, 5)[0]
        wanted = ", ".join(f"{step} {thing}" for step in parts)

        def solve(lines: Sequence[str], verb: str = verb, wanted: str = wanted) -> bool:
            shown = [line for line in lines if f" {verb} " in line and " ; steps " in line]
            return bool(shown) and shown[0].split(" ; steps ")[1].split(" ; ")[0] == wanted

        form = pick(("please {v} {t}, step by step", "carry out the steps, {v} {t}"), rng)
        tasks.append(Task(Function.SKILLS, form.format(v=verb, t=thing), solve))
    taught = [dict(zip("vt", make_words(2, rng), strict=True)) for _ in range(4)]
    forms = ("perform the steps to {v} {t}", "please carry out {v} on {t}, step by step")
    return events, tasks, _asked(Function.SKILLS, forms, taught)


def _single_turn(count: int, rng: np.random.Generator) -> _Part:
    """One long observation, a table of offers, and a question that only an abstract of it answers in the budget."""
    colours, states, events, tasks = ("red", "blue", "green"), ("new", "used"), [], []
    for table in make_words(count, rng):
        items = make_words(36, rng, 4)
        prices = rng.permutation(np.arange(10, 10 + len(items)))
        rows = [(i, pick(colours, rng), pick(states, rng), int(p)) for i, p in zip(items, prices, strict=True)]
        events += [f"row {table} {item} {colour} {state} price {price}" for item, colour, state, price in rows]
        _, colour, state, _ = pick(rows, rng)
        wanted = min((row for row in rows if row[1:3] == (colour, state)), key=lambda row: row[3])[0]

        def solve(
            lines: Sequence[str], table: str = table, cs: str = f"{colour} {state}", wanted: str = wanted
        ) -> bool:
            found = [re.search(rf"^row {table} (\w+) {cs} price (\d+)", line) for line in lines]
            offers = [(int(match.group(2)), match.group(1)) for match in found if match]
            return bool(offers) and min(offers)[1] == wanted

        form = pick(("table {t}, cheapest {c} {s} item", "from table {t} the lowest price of {c} {s}"), rng)
        tasks.append(Task(Function.WORK_SINGLE, form.format(t=table, c=colour, s=state), solve))
    taught = [{"t": t, "c": pick(colours, rng), "s": pick(states, rng)} for t in make_words(4, rng)]
    forms = ("what {c} {s} item is cheapest in table {t}", "lowest price for {c} {s} in table {t}")
    return events, tasks, _asked(Function.WORK_SINGLE, forms, taught)


def _many_turns(count: int, rng: np.random.Generator) -> _Part:
    """A run of many steps that each change a quantity; what counts is where it stands at the end."""
    events, tasks = [], []
    for job in make_words(count, rng):
        things = make_words(3, rng, 4)
        held = dict.fromkeys(things, 0)
        for _ in range(30):
            thing = pick(things, rng)
            change = int(rng.integers(1, 6)) * (-1 if held[thing] > 5 and rng.random() < 0.5 else 1)
            held[thing] += change
            events.append(f"step {job} {thing} changed {change:+d}")
        thing = pick(things, rng)

        def solve(lines: Sequence[str], job: str = job, thing: str = thing, total: int = held[thing]) -> bool:
            stands = [re.search(rf"^state {job} {thing} stands (-?\d+)", line) for line in lines]
            if any(stands):
                return int(next(match for match in stands if match).group(1)) == total
            changes = [re.search(rf"^step {job} {thing} changed ([+-]\d+)", line) for line in lines]
            return any(changes) and sum(int(match.group(1)) for match in changes if match) == total

        form = pick(("after all steps of {j}, how much {t} is left", "job {j}, how many {t} remain"), rng)
        tasks.append(Task(Function.WORK_MULTI, form.format(j=job, t=thing), solve))
    taught = [dict(zip("jt", make_words(2, rng), strict=True)) for _ in range(4)]
    forms = ("how many {t} are left in job {j}", "how much {t} remain after the steps of {j}")
    return events, tasks, _asked(Function.WORK_MULTI, forms, taught)
