"""The memories of claim 44, and the stand-in that writes them: the same extractor, faults and budget for all.

The stand-in fits the ``Chat`` seam. It reads its prompt and answers in JSON, which the real parser reads: of the facts in an output
it leaves out one in ten, and one answer in twenty is cut short. What it leaves out is the same in every arm.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from holdfast.agent.patches import Policy
from holdfast.agent.role_templates import RoleCard, Template, template_for
from holdfast.agent.roles import RoleMemory
from holdfast.agent.team import NOTICE, SHARE, Said, TeamMemory
from holdfast.chat import Message, Reply, count_tokens, estimate
from holdfast.claims.roles_world import CHECKER, KEEPER, PLANNER, ROLES, Fact
from holdfast.encode.base import Embedder
from holdfast.memory import Memory

WINDOW = 600
"""Tokens of a context."""

MEMORY = int(WINDOW * SHARE) - 10
"""Tokens of a memory; the rest of its share is the fence around it."""

OMITTED, CORRUPT = 0.10, 0.05

VERBS = {
    "goal": "must end at",
    "place": "is at",
    "rule": "needs",
    "requirement": "shall be",
    "constraint": "must be",
}
FIELDS = {
    "goals": "goal",
    "places": "place",
    "rules": "rule",
    "requirements": "requirement",
    "constraints": "constraint",
}
_DEFAULT_FIELDS = {
    "goal": "goals",
    "place": "facts",
    "rule": "constraints",
    "requirement": "facts",
    "constraint": "constraints",
}
_OF_KIND = {kind: field for field, kind in FIELDS.items()}

_SAID = re.compile(
    rf"(?:^|(?<=[-:;.>] ))(?P<subject>[a-z][a-z ]*?) (?P<verb>{'|'.join(VERBS.values())}) (?P<value>[a-z0-9 ]+?)"
    r"(?: \((?P<why>[a-z ]+)\))?(?=[.;\n]|$)",
    re.MULTILINE,
)
_DONE = re.compile(r"(?:^|(?<=[-:;.>] ))([a-z]+ [a-z]+) is done", re.MULTILINE)
_FAILED = re.compile(r"(?:^|(?<=[-:;.>] ))([a-z]+ [a-z]+) could not be moved", re.MULTILINE)
_ITEM = re.compile(r"- (?P<subject>[a-z ]+)(?:: (?P<value>[a-z0-9 ]+?)(?: \((?P<why>[a-z ]+)\))?)?$")
_SECTION = re.compile(r"[a-z_]+:")
_KIND_OF = {verb: kind for kind, verb in VERBS.items()}


def sentence(fact: Fact) -> str:
    """A fact in words, without the full stop."""
    return f"{fact.subject} {VERBS[fact.kind]} {fact.value}" + (f" ({fact.why})" if fact.why else "")


def facts_in(text: str) -> list[Fact]:
    """The facts that a text states, in its order."""
    return [Fact(_KIND_OF[one["verb"]], one["subject"], one["value"], one["why"] or "") for one in _SAID.finditer(text)]


@dataclass(frozen=True, slots=True)
class _Line:
    """A line as it is read: whether it heads a section, its item's subject and value, what it states, and what it says of moves."""

    heads: bool
    item: tuple[str, str | None] | None
    facts: tuple[Fact, ...]
    done: tuple[str, ...]
    failed: tuple[str, ...]


@lru_cache(maxsize=8_192)
def _read(line: str) -> _Line:
    """A line read. The same lines stand in one context after another."""
    item = _ITEM.fullmatch(line)
    return _Line(
        _SECTION.fullmatch(line) is not None,
        (item["subject"], item["value"]) if item else None,
        tuple(facts_in(line)),
        tuple(_DONE.findall(line)),
        tuple(_FAILED.findall(line)),
    )


class Known:
    """What an agent finds in a rendered context, and nothing else: facts (the last said of a subject holds), and what was done."""

    def __init__(self, context: str) -> None:
        self.facts: dict[tuple[str, str], str] = {}
        self.done: set[str] = set()
        self.failed: set[str] = set()
        section = ""
        for line in context.splitlines():
            read = _read(line)
            if read.heads:
                section = line[:-1]
            if read.item is not None:
                subject, value = read.item
                if value and section in FIELDS:
                    self.facts[FIELDS[section], subject] = value
                elif section in ("done", "failed"):
                    (self.done if section == "done" else self.failed).add(subject)
            for fact in read.facts:
                self.facts[fact.kind, fact.subject] = fact.value
            self.done.update(read.done)
            self.failed.update(read.failed)

    def of(self, kind: str, subject: str) -> str | None:
        """The value of a subject, where it is known."""
        return self.facts.get((kind, subject))


# --- the stand-in of the model that writes memories ---


class Scribe:
    """Reads an update's prompt and answers as a model would. ``tokens``: of all its prompts and answers."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self.tokens = self.calls = self.repairs = 0

    def reply(self, messages: Sequence[Message], **_options: Any) -> Reply:
        """The answer to one update, cut short one time in twenty."""
        told, document, output = (_part(messages[1].text, name) for name in ("template", "memory", "output"))
        template = json.loads(told)
        patch = self._patch(template, json.loads(document), output)
        text = json.dumps({"patch": patch})
        luck = random.Random(f"{self._seed} {output} {len(messages)}")
        if luck.random() < CORRUPT:
            text = text[: luck.randrange(2, len(text) - 1)]
        self.calls += 1
        self.repairs += len(messages) > 2
        self.tokens += estimate(messages) + count_tokens(text)
        return Reply(text)

    def _patch(self, template: Mapping[str, Any], document: Mapping[str, Any], output: str) -> list[dict[str, Any]]:
        facts = [one for one in facts_in(output) if not self._omits(sentence(one), output)]
        done = [one for one in _DONE.findall(output) if not self._omits(f"{one} is done", output)]
        failed = [one for one in _FAILED.findall(output) if not self._omits(f"{one} could not", output)]
        fields = template["schema"]["properties"]
        if "notes" in fields:
            new = [*map(sentence, facts), *(f"{one} is done" for one in done)]
            new += [f"{one} could not be moved" for one in failed]
            return _noted(document["notes"], new, template["tokens"])
        if "decisions" in fields:
            return _by_default(document, facts, done, failed)
        patch: list[dict[str, Any]] = []
        for fact in facts:
            field = _OF_KIND[fact.kind]
            held = document.get(field, {}).get(fact.subject, "")
            if field in fields and held.split(" (")[0] != fact.value:
                patch.append(
                    {
                        "op": "set",
                        "path": f"/{field}/{fact.subject}",
                        "value": sentence(fact).split(f" {VERBS[fact.kind]} ")[1],
                    }
                )
        for field, names in (("done", done), ("failed", failed)):
            if field in fields:
                patch += [
                    {"op": "append", "path": f"/{field}", "value": one} for one in names if one not in document[field]
                ]
        return patch

    def _omits(self, what: str, output: str) -> bool:
        return random.Random(f"{self._seed} {what} {output}").random() < OMITTED


def _part(prompt: str, name: str) -> str:
    found = re.search(rf"<{name}[^>]*>\n(.*?)\n</{name}>", prompt, re.DOTALL)
    assert found is not None, name
    return found[1]


def _noted(notes: str, new: Sequence[str], tokens: int) -> list[dict[str, Any]]:
    """A running summary: what is new at its end, said once; where it is too long, its beginning goes."""
    lines = [one for one in notes.split(". ") if one and one.rstrip(".") not in new]
    lines = [one.rstrip(".") for one in lines] + list(dict.fromkeys(new))
    while lines and count_tokens(f"notes: {'. '.join(lines)}.") > tokens:
        lines.pop(0)
    text = f"{'. '.join(lines)}." if lines else ""
    return [] if text == notes else [{"op": "set", "path": "/notes", "value": text}]


def _by_default(
    document: Mapping[str, Any], facts: Sequence[Fact], done: Sequence[str], failed: Sequence[str]
) -> list[dict[str, Any]]:
    patch: list[dict[str, Any]] = []
    for fact in facts:
        field = _DEFAULT_FIELDS[fact.kind]
        begins = f"{fact.subject} {VERBS[fact.kind]} "
        at = next((n for n, held in enumerate(document[field]) if held.startswith(begins)), None)
        if at is None:
            patch.append({"op": "append", "path": f"/{field}", "value": sentence(fact)})
        elif document[field][at].removeprefix(begins).split(" (")[0] != fact.value:
            patch.append({"op": "set", "path": f"/{field}/{at}", "value": sentence(fact)})
    for field, names, words in (("decisions", done, "is done"), ("rejected", failed, "could not be moved")):
        held = {one["what"] for one in document[field]}
        patch += [
            {"op": "append", "path": f"/{field}", "value": {"what": f"{one} {words}"}}
            for one in names
            if f"{one} {words}" not in held
        ]
    return patch


# --- templates ---

_MAP = {"type": "object", "additionalProperties": {"type": "string"}}
_LIST = {"type": "array", "items": {"type": "string"}}


def _hand(*fields: str) -> Template:
    properties = {one: _LIST if one in ("done", "failed") else _MAP for one in fields}
    pinned = {one: Policy(pinned=True) for one in fields if one in ("rules", "constraints")}
    return Template({"type": "object", "properties": properties, "additionalProperties": False}, pinned)


HAND = {
    PLANNER: _hand("goals", "done", "failed"),
    KEEPER: _hand("places"),
    CHECKER: _hand("rules"),
    **{role: _hand("requirements", "constraints") for role in ROLES},
}
_OF_ALL = {
    True: _hand("goals", "done", "failed", "places", "rules"),
    False: _hand("requirements", "constraints"),
}
_NOTES = Template({"type": "object", "properties": {"notes": {"type": "string"}}, "additionalProperties": False})


# --- arms ---


class Arm(Protocol):
    """A way to fill the window: what an agent is shown, and what is made of what it said."""

    def show(self, agent: str, history: Sequence[Said], ask: str, /) -> tuple[str, int]:
        """The context, and its tokens; ``ask`` says in words what the agent looks for."""
        ...

    def take(self, agent: str, output: str, /) -> None:
        """An agent has spoken."""
        ...


TASK = "Do together what is asked, each of you by what you know; nobody else knows it."


class Kept:
    """Role memories of the product: one for each agent, or one for all."""

    def __init__(self, memory: Memory, seed: str, episode: str, agents: Sequence[str], how: str) -> None:
        self._own = how.startswith("per-agent")
        self.scribe = Scribe(seed)
        names = agents if self._own else ("team",)
        self._team = TeamMemory(
            {
                name: RoleMemory(memory, agent=name, schema=_template(how, name, agents), budget=MEMORY, task=episode)
                for name in names
            },
            task=TASK,
        )

    def show(self, agent: str, history: Sequence[Said], _ask: str, /) -> tuple[str, int]:
        """As ``TeamMemory.context_for``."""
        context = self._team.context_for(agent if self._own else "team", history, WINDOW)
        return context.text, context.tokens

    def take(self, agent: str, output: str) -> None:
        """As ``TeamMemory.update``."""
        self._team.update(agent if self._own else "team", output, self.scribe)


def _template(how: str, name: str, agents: Sequence[str]) -> Template:
    match how:
        case "per-agent, template":
            return HAND[name]
        case "per-agent, template by rule":
            return template_for(RoleCard(name, "keeps what it answers for"))
        case "shared, structured":
            return _OF_ALL[PLANNER in agents]
        case _:
            return _NOTES


class Window:
    """Turns alone: the newest; the first and the newest; or, with an embedder, the newest and those most like what is asked."""

    def __init__(
        self, how: str, embedder: Embedder | None = None, truth: Mapping[str, Sequence[Fact]] | None = None
    ) -> None:
        self._how, self._embedder, self._truth = how, embedder, truth or {}
        self._done: list[str] = []

    def show(self, agent: str, history: Sequence[Said], ask: str) -> tuple[str, int]:
        """The system prompt, the task, what is known (the oracle), and turns while they fit, in their order."""
        head = f"You are {agent}.\n{NOTICE}\nTask: {TASK}"
        if self._truth:
            head += "\n" + "\n".join([*(f"- {sentence(one)}." for one in self._truth[agent]), *self._done])
        lines = [f"<turn of={one.agent}>{one.text}</turn>" for one in history]
        left, chosen = WINDOW - count_tokens(head), set()
        costs = [count_tokens(f"{one}\n") for one in lines]
        # Where all of them have room, nobody need be asked which are nearest.
        for at in range(len(lines)) if sum(costs) <= left else self._ranked(lines, ask):
            if costs[at] > left:
                break
            left -= costs[at]
            chosen.add(at)
        text = "\n".join([head, *(lines[at] for at in sorted(chosen))])
        return text, count_tokens(text)

    def take(self, _agent: str, output: str, /) -> None:
        """Nothing is kept, but that the oracle knows what is done."""
        if self._truth:
            self._done += [f"- {one} is done." for one in _DONE.findall(output)]

    def _ranked(self, lines: Sequence[str], ask: str) -> list[int]:
        newest = list(range(len(lines)))[::-1]
        if self._how == "full history, truncated":
            firsts = newest[::-1]
            return list(dict.fromkeys(at for pair in zip(newest, firsts, strict=True) for at in pair))
        if self._embedder is None or len(lines) < 3:
            return newest
        vectors = self._embedder.embed([ask, *lines])
        best = np.argsort(-(vectors[1:] @ vectors[0]), kind="stable").tolist()
        return list(dict.fromkeys([*newest[:2], *best]))
