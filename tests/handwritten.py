"""The twelve systems that EvolveLab compares, each written by hand: lists, dicts and numpy, and no store of anybody's.

They are what the recipes are held against. ``ask(title, data)`` is the model; ``provide`` gives the texts that are told, in order.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from holdfast.retrieve.text import tokens
from support import HashEmbedder

Ask = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]


@dataclass
class Run:
    """One run of an agent."""

    task: str
    steps: Sequence[tuple[str, str]]
    answer: str
    succeeded: bool

    @property
    def told(self) -> str:
        lines = [f"{number}. {action} -> {seen}" for number, (action, seen) in enumerate(self.steps, 1)]
        return "\n".join([*lines, f"Answer: {self.answer}"])


@dataclass(eq=False)
class Row:
    """One record: what it is found by, what is told, and whatever else."""

    text: str
    tell: str = ""
    kind: str = ""
    more: dict[str, Any] = field(default_factory=dict)
    used: int = 0
    won: int = 0

    @cached_property
    def vector(self) -> np.ndarray:
        return HashEmbedder().embed([self.text])[0].astype(np.float16).astype(np.float32)

    @property
    def told(self) -> str:
        return f"{self.text}\n{self.tell}" if self.tell else self.text

    @property
    def score(self) -> float:
        return (self.won + 1) / (self.used + 2)


def cosines(query: str, rows: Sequence[Row]) -> list[float]:
    asked = HashEmbedder().embed([query])[0]
    return [float(row.vector @ asked) for row in rows]


def best(scores: Sequence[float], k: int, above: float = -math.inf) -> list[int]:
    return [at for at in sorted(range(len(scores)), key=lambda at: -scores[at]) if scores[at] > above][:k]


def nearest(query: str, rows: Sequence[Row], k: int = 1) -> list[Row]:
    return [rows[at] for at in best(cosines(query, rows), k)]


def by_likeness(query: str, rows: Sequence[Row]) -> list[Row]:
    return nearest(query, rows, len(rows))


AUTHOR = "cook"
"""Who wrote a record is one of the words that it is found by."""


def tf_idf(query: str, texts: Sequence[str]) -> list[float]:
    """Words weigh by their rarity on the query's side."""
    counts = [Counter(tokens(f"{AUTHOR}\n{text}")) for text in texts]
    held = Counter(word for count in counts for word in count)

    def weigh(count: Counter[str]) -> dict[str, float]:
        return {word: n * (math.log((1 + len(texts)) / (1 + held[word])) + 1) for word, n in count.items()}

    asked = weigh(Counter(tokens(query)))
    found = []
    for count in counts:
        dot = sum(weight * count[word] for word, weight in asked.items())
        norms = math.sqrt(sum(w * w for w in asked.values())) * math.sqrt(sum(n * n for n in count.values()))
        found.append(dot / norms if dot else 0.0)
    return found


class Written:
    """What they share: rows, a model, and what was served for the task at hand."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.rows: list[Row] = []
        self.served: list[Row] = []

    def provide(self, task: str) -> list[str]:
        self.served = self.find(task)
        return [row.told for row in self.served]

    def step(self, task: str, context: str) -> list[str]:
        return []

    def find(self, task: str) -> list[Row]:
        return nearest(task, self.rows)

    def digest(self, run: Run) -> Mapping[str, Any]:
        return self.ask("digest", {"task": run.task, "steps": run.told, "succeeded": run.succeeded})

    def counted(self, run: Run, kind: str) -> None:
        for row in self.served:
            if row.kind == kind:
                row.used += 1
                row.won += run.succeeded


class Voyager(Written):
    """The new record is appended to the list that is searched, which EvolveLab's code forgets to do until it reloads."""

    def take_in(self, run: Run) -> None:
        if run.succeeded:
            found = self.digest(run)
            self.rows.append(Row(found["description"], found["digest"]))


class ExpeL(Written):
    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self.examples: list[Row] = []

    def find(self, task: str) -> list[Row]:
        insights = by_likeness(task, self.rows)
        told = [insights[at] for at in best(tf_idf(task, [row.text for row in insights]), 3, above=0.0)]
        examples = by_likeness(task, self.examples)
        words, likeness = tf_idf(task, [row.text for row in examples]), cosines(task, examples)
        mixed = [0.3 * w + 0.7 * c for w, c in zip(words, likeness, strict=True)]
        return told + [examples[at] for at in best(mixed, len(mixed)) if examples[at].more["succeeded"]][:3]

    def take_in(self, run: Run) -> None:
        steps = "\n".join(f"{action} -> {seen}" for action, seen in run.steps)
        self.examples.append(Row(run.task, f"{steps}\nAnswer: {run.answer}", more={"succeeded": run.succeeded}))
        found = self.ask("insights", {"task": run.task, "steps": run.told, "succeeded": run.succeeded})["insights"]
        self.rows += [Row(text) for text in found[:4]]


class Generative(Written):
    def find(self, task: str) -> list[Row]:
        three = nearest(task, self.rows, 3)
        if not three:
            return []
        scores = self.ask("usefulness", {"task": task, "records": [row.told for row in three]})["scores"]
        return [three[best(scores, 1)[0]]]

    def take_in(self, run: Run) -> None:
        self.rows.append(Row(run.task, self.digest(run)["digest"]))


class DiLu(Written):
    def take_in(self, run: Run) -> None:
        self.rows.append(Row(run.task, self.digest(run)["digest"]))


class Awm(Written):
    def take_in(self, run: Run) -> None:
        if run.succeeded:
            steps = self.ask("workflow", {"task": run.task, "steps": run.told})["steps"]
            self.rows.append(Row("\n".join([run.task, *(f"{n}. {step}" for n, step in enumerate(steps, 1))])))


class MobileE(Written):
    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self.shortcuts: list[Row] = []

    def find(self, task: str) -> list[Row]:
        asked = set(tokens(task))
        found = []
        for rows in (self.rows, self.shortcuts):
            near = by_likeness(task, rows)
            shared = [len(asked & set(tokens(row.text))) for row in near]
            found += [near[at] for at in best(shared, 2, above=0.0)]
        return found

    def step(self, task: str, context: str) -> list[str]:
        return [row.told for row in self.find(context)]

    def take_in(self, run: Run) -> None:
        data = {"task": run.task, "steps": run.told}
        self.rows += [Row(tip) for tip in self.ask("tips", {**data, "succeeded": run.succeeded})["tips"]]
        if run.succeeded:
            for one in self.ask("shortcuts", data)["shortcuts"]:
                actions = "\n".join(f"{n}. {action}" for n, action in enumerate(one["actions"], 1))
                self.shortcuts.append(Row(f"{one['name']}: {one['precondition']}", actions))


class DynamicCheatsheet(Written):
    sheet = ""

    def provide(self, task: str) -> list[str]:
        if not self.rows:
            return []
        data = {"task": task, "sheet": self.sheet, "records": [row.told for row in nearest(task, self.rows)]}
        self.sheet = self.ask("sheet", data)["sheet"]
        return [self.sheet]

    def take_in(self, run: Run) -> None:
        self.rows.append(Row(run.task, self.digest(run)["digest"]))


class SkillWeaver(Written):
    """A function is kept as text and never imported, which EvolveLab's code does."""

    BAD = ("import os", "eval(", "open(")

    def find(self, task: str) -> list[Row]:
        asked = set(tokens(task))

        def score(row: Row) -> float:
            shared = {key: len(asked & set(tokens(row.more[key]))) for key in ("name", "description", "doc")}
            return 2.0 * shared["name"] + 1.5 * shared["description"] + 1.0 * shared["doc"]

        near = by_likeness(task, self.rows)
        return [near[at] for at in best([score(row) for row in near], 3, above=0.0)]

    def take_in(self, run: Run) -> None:
        if run.succeeded:
            found = self.ask("function", {"task": run.task, "steps": run.told})
            code, description = found["code"].strip(), found["description"]
            if not any(bad in code for bad in self.BAD):
                name = code.split("def ")[1].split("(")[0]
                more = {"name": name.replace("_", " "), "description": description, "doc": code.split('"""')[1]}
                self.rows.append(Row(f"{name}: {description}", code, "skill", more))
        self.counted(run, "skill")
        self.rows = [row for row in self.rows if row.used < 3 or row.score >= 0.2]


class GMemory(Written):
    """Runs are condensed for one reader: our runs have one agent, so there are no roles to hand out to."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self.insights: list[Row] = []
        self.runs = 0

    def find(self, task: str) -> list[Row]:
        nodes = by_likeness(task, self.rows)
        likeness = cosines(task, nodes)
        scores: dict[int, float] = {id(nodes[at]): likeness[at] for at in best(likeness, 2, above=0.0)}
        for at in best(likeness, 2, above=0.0):
            tied = [row for row in nodes if row in nodes[at].more["ties"] or nodes[at] in row.more["ties"]]
            for row in tied[:3]:
                scores[id(row)] = max(scores.get(id(row), -math.inf), likeness[at] * 0.7)
        by_case = {node.more["case"]: scores[id(node)] for node in nodes if id(node) in scores}
        for row in self.insights:
            under = [by_case[case] for case in row.more["cases"] if case in by_case]
            if under:
                scores[id(row)] = max(under) * 0.7 * 2 * row.score
        both = by_likeness(task, self.rows) + self.insights
        found = [row for row in both if id(row) in scores]
        return [found[at] for at in best([scores[id(row)] for row in found], 8)]

    def provide(self, task: str) -> list[str]:
        self.served = self.find(task)
        lines = [f"- {row.text}" for row in self.served if row.kind == "insight"]
        nodes = [row for row in self.served if row.kind == "node"]
        if nodes:
            runs = [{"task": row.text, "steps": row.tell} for row in nodes]
            steps = self.ask("steps", {"task": task, "runs": runs})["runs"]
            lines += [f"{row.text}: {told}" for row, told in zip(nodes, steps, strict=True)]
        return ["\n".join(lines)] if lines else []

    def take_in(self, run: Run) -> None:
        case = self.runs = self.runs + 1
        used = [row for row in self.served if row.kind == "node"]
        self.rows.append(Row(run.task, run.told, "node", {"case": case, "ties": used}))
        self.counted(run, "insight")
        data = {"task": run.task, "steps": run.told, "succeeded": run.succeeded}
        for text in self.ask("insights", data)["insights"][:4]:
            self.insights.append(Row(text, kind="insight", more={"cases": [case], "unlike": []}))
        if case % 20 == 0:
            self.insights = merged(self.insights, self.ask)


def merged(rows: list[Row], ask: Ask) -> list[Row]:
    """Every row, the oldest first, is compared with the older ones among the four nearest, and gone where one says the same."""
    gone: list[Row] = []
    for row in rows:
        four = nearest(row.text, rows, 4)
        for old in four:
            near = cosines(row.text, [old])[0] > 0.8
            if not near or rows.index(old) >= rows.index(row) or old in gone or old in row.more["unlike"]:
                continue
            if ask("equality", {"one": old.told, "other": row.told})["same"]:
                gone.append(row)
                old.used, old.won = old.used + row.used, old.won + row.won
                old.more["cases"] = old.more["cases"] + row.more["cases"]
                break
            row.more["unlike"] = [*row.more["unlike"], old]
    return [row for row in rows if not any(row is one for one in gone)]


class AgentKb(Written):
    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self.runs = 0

    def find(self, task: str) -> list[Row]:
        if not self.rows:
            return []
        query = self.ask("query", {"task": task[-1000:]})["query"]
        rows = by_likeness(task, self.rows)
        words, likeness = tf_idf(query, [row.text for row in rows]), cosines(query, rows)
        return [rows[at] for at in best([0.5 * w + 0.5 * c for w, c in zip(words, likeness, strict=True)], 3)]

    def say(self, who: str, task: str, context: str, named: Sequence[str], rows: Sequence[Row]) -> list[str]:
        if not rows:
            return []
        records = [{"task": row.text, **{name: row.more[name] for name in named}} for row in rows]
        return [self.ask(who, {"task": task, "context": context[-1000:], "records": records})["guidance"]]

    def provide(self, task: str) -> list[str]:
        return self.say("student", task, "", ("agent_planning", "search_agent_planning"), self.find(task))

    def step(self, task: str, context: str) -> list[str]:
        return self.say("teacher", task, context, ("agent_experience", "search_agent_experience"), self.find(context))

    def take_in(self, run: Run) -> None:
        self.runs += 1
        if run.succeeded:
            found = self.ask("plan", {"task": run.task, "steps": run.told})
            names = ("agent_planning", "search_agent_planning", "agent_experience", "search_agent_experience")
            tell = "\n".join(f"{name.replace('_', ' ')}: {found[name]}" for name in names)
            self.rows.append(Row(run.task, tell, more={**found, "cases": [], "unlike": []}))
        if self.runs % 20 == 0:
            self.rows = merged(self.rows, self.ask)


class Memp(Written):
    def take_in(self, run: Run) -> None:
        data = {"task": run.task, "steps": run.told}
        if run.succeeded:
            found = self.ask("script", data)
            self.rows.append(Row(run.task, f"Script: {found['script']}\nA case: {found['case']}", more=dict(found)))
            return
        for row in self.served:
            found = self.ask("revision", {**data, "feedback": "", **row.more})
            row.tell, row.more = f"Script: {found['script']}\nA case: {found['case']}", dict(found)


class EvolveR(Written):
    def take_in(self, run: Run) -> None:
        found = self.ask("principle", {"task": run.task, "steps": run.told})
        trace = "good" if run.succeeded else "bad"
        near = [row for row in nearest(found["principle"], self.rows, 3) if cosines(found["principle"], [row])[0] > 0.8]
        same = next((row for row in near if self.says_the_same(row, found["principle"])), None)
        if same is None:
            more = {"sort": "guiding" if run.succeeded else "cautionary", "structure": found["structure"]}
            self.rows.append(Row(found["principle"], kind="principle", more=more))
            same = self.rows[-1]
        same.more.setdefault(trace, found["trace"])
        ties = "; ".join(" ".join(triplet) for triplet in same.more["structure"])
        lines = [f"({same.more['sort']}: {ties})"]
        lines += [f"It went well: {same.more['good']}"] if "good" in same.more else []
        lines += [f"It went wrong: {same.more['bad']}"] if "bad" in same.more else []
        same.tell = "\n".join(lines)
        self.counted(run, "principle")
        self.rows = [row for row in self.rows if row.used < 1 or row.score >= 0.3]

    def says_the_same(self, row: Row, text: str) -> bool:
        return bool(self.ask("equality", {"one": row.text, "other": text})["same"])


BY_HAND: Mapping[str, type[Written]] = {
    "voyager": Voyager,
    "expel": ExpeL,
    "generative": Generative,
    "dilu": DiLu,
    "awm": Awm,
    "mobile-e": MobileE,
    "dynamic-cheatsheet": DynamicCheatsheet,
    "skillweaver": SkillWeaver,
    "g-memory": GMemory,
    "agent-kb": AgentKb,
    "memp": Memp,
    "evolver": EvolveR,
}
