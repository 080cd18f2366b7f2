"""The scripted model of claim 8: a chat that knows nothing but the messages it is given, writes real tool calls, errs and repairs.

It implements a feature only where its requirement and the signatures that it depends on stand in those messages; it makes a fault
in 15 % of what it writes, and 2 % of its calls are malformed JSON. What it does is a function of what it sees and of a seed, so
a run that is resumed goes the way that it would have gone.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.agent.context import cost, tools_cost
from holdfast.agent.control import COMPLETE
from holdfast.agent.filework import READ, SEARCH, TASK_FILE, WRITE
from holdfast.agent.planning import PLAN
from holdfast.agent.reading import UnreadableError, read_calls
from holdfast.chat import Message, Reply, Tool, Usage, count_tokens
from holdfast.claims.l2mac_specs import (
    SIGNATURE,
    Feature,
    expression,
    module_of,
    name_of,
    read_requirements,
)
from holdfast.encode.endpoint import RawCall
from holdfast.errors import ClaimError, CutReplyError, UnusableReplyError

WINDOW = 1500
"""Tokens that it reads at most, tools included."""
OUTPUT = 400
"""Tokens that it writes at most."""
FAULTS = 0.15
MALFORMED = 0.02
GROUP = 4
"""Features that it plans for one step."""

REPLAN = "Rewrite your plan from what you see."
REFLECT = "Say what is wrong with your last attempt."
CONDENSE = "Summarise all that was done so far."
_DONE = re.compile(r"^(?:So far: )?Done: (.*)$", re.MULTILINE)
_FAILING = re.compile(r"^Failing: (.*)$", re.MULTILINE)
_STEP = re.compile(r"^Step s\d+: Implement F(\d+) to F(\d+), lines (\d+) to (\d+) of", re.MULTILINE)
_PLANNED = re.compile(r"^s(\d+): Implement F(\d+) to F(\d+),", re.MULTILINE)


class SpentError(Exception):
    """No calls are left."""


class Scribe:
    """The model.

    Args:
        seed: of its faults.
        calls: how often it may be asked; SpentError after.

    ``searches``: it looks in files for signatures that it misses; else it knows of what was written only what it is told.
    """

    def __init__(self, seed: int, calls: int) -> None:
        self._seed = seed
        self._asked: Counter[str] = Counter()
        self.left = calls
        self.made = 0
        self.written = 0
        self.looked = 0
        self.searches = True

    def reply(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        schema: Mapping[str, Any] | None = None,
        temperature: float | None = None,
        limit: int | None = None,
    ) -> Reply:
        """See ``Chat``. Raises SpentError, UnusableReplyError for malformed calls, ClaimError for more than its window to read."""
        if not self.left:
            raise SpentError
        assert schema is None, "no arm asks for an answer of a schema"
        self.left -= 1
        self.made += 1
        read = sum(cost(message, count_tokens) for message in messages) + tools_cost(tools, count_tokens)
        if read > WINDOW:
            raise ClaimError(f"an arm gave its model {read} tokens to read, and its window has {WINDOW}")
        limit = min(limit or OUTPUT, OUTPUT)
        key = json.dumps([[m.role, m.text, [c.tool for c in m.calls]] for m in messages])
        # Asked the same again a model says something else, how warm it ever is; a run that goes on asks anew and hears the same.
        self._asked[asked := f"{temperature} {key}"] += 1
        rng = random.Random(f"{self._seed} {self._asked[asked]} {asked}")
        seen = _Seen(messages)
        names = {tool.name for tool in tools} - (set() if self.searches else {SEARCH.name})
        if not tools:
            text = _cut(_words(seen, limit), limit)
            self.written += count_tokens(text)
            return Reply(text, usage=Usage(read, count_tokens(text), 1))
        tool, arguments = _plan(seen) if PLAN.name in names else _act(seen, names, rng, limit)
        if not tool:
            self.written += count_tokens(arguments["text"])
            return Reply(arguments["text"], usage=Usage(read, count_tokens(arguments["text"]), 1))
        raw = json.dumps(arguments, ensure_ascii=False)
        cut = count_tokens(raw) > limit
        raw = _cut(raw, limit)
        self.written += count_tokens(raw)
        if rng.random() < MALFORMED:
            at = rng.randrange(len(raw))
            raw = raw[:-2] if rng.random() < 0.5 else raw[:at] + '"' + raw[at:]
        self.looked += tool in (READ.name, SEARCH.name)
        try:
            calls = read_calls([RawCall(f"call-{rng.getrandbits(48):012x}", tool, raw)], tools)
        except UnreadableError as error:
            raise (CutReplyError if cut else UnusableReplyError)(str(error)) from error
        return Reply("", calls, Usage(read, count_tokens(raw), 1), cut)


class _Seen:
    """What can be read out of some messages."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.words = "\n".join(message.text for message in messages)
        self.writes = [
            str(file.get("text", ""))
            for message in messages
            for call in message.calls
            if call.tool == WRITE.name
            for file in call.arguments.get("files", ())
            if isinstance(file, dict)
        ]
        self.requirements = read_requirements(self.words)
        self.calls = {int(number): call for number, call in SIGNATURE.findall("\n".join([self.words, *self.writes]))}
        done = [number for text in self.writes for number, _ in SIGNATURE.findall(text.partition("\n")[0])]
        for told in _DONE.findall(self.words):
            done += [number for number, _ in SIGNATURE.findall(told)]
        self.done = {int(number) for number in done}
        found = _STEP.search(self.words)
        self.step = tuple(map(int, found.groups())) if found else None
        files = re.search(r"^Files: (.*)$", self.words, re.MULTILINE)
        self.files = set(re.findall(r"\w+\.\w+", files[1])) if files else set()
        self.failing = self._failing()

    def _failing(self) -> dict[int, str]:
        """The features that the newest report finds at fault, and what it says of them."""
        told = next((m.text for m in reversed(self.messages) if _judges(m.text)), "")
        modules = {module_of(name_of(call)): number for number, call in self.calls.items()}
        failing: dict[int, str] = {}
        for line in told.splitlines():
            if found := re.search(r"cannot import name '\w+' from '(\w+)'", line) or re.match(r"(\w+)\.py: ", line):
                number = modules.get(found[1])
            elif found := re.search(r"::test_F(\d+): (?:Assertion|Name|Type|Key)Error", line):
                number = int(found[1])
            else:
                continue
            if number is not None:
                failing[number] = line[:120]
        for listed in _FAILING.findall(told):
            failing |= {int(number): listed for number in re.findall(r"F(\d+)", listed)}
        return failing


def _judges(text: str) -> bool:
    return "not done: " in text or "checks pass" in text or text.startswith("complete") or "\nFailing: " in f"\n{text}"


# --- what it says in words ---


def _words(seen: _Seen, limit: int) -> str:
    asked = seen.messages[-1].text
    done = [f"F{n:02d} {seen.calls[n]}" for n in sorted(seen.done) if n in seen.calls and n not in seen.failing]
    failing = [f"F{n:02d}" for n in sorted(seen.failing)]
    if asked == REFLECT:
        return "\n".join(f"Failing: F{n:02d}: {line}" for n, line in sorted(seen.failing.items()))
    if asked == REPLAN:
        left = [one for n, one in sorted(seen.requirements.items()) if n not in seen.done or n in seen.failing]
        lines = [f"Done: {'; '.join(done[-8:])}", *[f"Failing: {', '.join(failing)}"] * bool(failing)]
        return "\n".join([*lines, *(one.requirement for one in left)])
    if seen.step and not asked.startswith("Your context"):
        first, last = seen.step[:2]
        done = [f"F{n:02d} {seen.calls[n]}" for n in range(first, last + 1) if n in seen.calls]
    elif seen.step:
        first, last = seen.step[:2]
        done = [f"F{n:02d} {seen.calls[n]}" for n in range(first, last + 1) if n in seen.done and n in seen.calls]
    while len(done) > 1 and count_tokens("Done: " + "; ".join(done)) > limit - 20:
        done.pop(0)
    text = f"Done: {'; '.join(done)}"
    return f"{text}\nFailing: {', '.join(failing)}" if failing else text


def _cut(text: str, limit: int) -> str:
    return text.encode()[: 4 * limit].decode(errors="ignore")


# --- what it does ---


def _plan(seen: _Seen) -> tuple[str, dict[str, Any]]:
    """Steps of four features each, which name their lines and the steps that they depend on."""
    told = re.search(rf"{TASK_FILE} from line (\d+)", seen.words)
    already = re.search(r"(\d+) steps are planned", seen.words)
    assert told is not None and already is not None
    found = sorted(seen.requirements)
    first_line, planned = int(told[1]), int(already[1])
    steps: list[dict[str, Any]] = []
    home = {
        number: int(step)
        for step, first, last in _PLANNED.findall(seen.words)
        for number in range(int(first), int(last) + 1)
    }
    for start in range(0, len(found), GROUP):
        some = found[start : start + GROUP]
        at = first_line + start
        home |= dict.fromkeys(some, planned + len(steps) + 1)
        needs = {home[p.number] for n in some for p in seen.requirements[n].parts if p.number in home} - {home[some[0]]}
        text = f"Implement F{some[0]:02d} to F{some[-1]:02d}, lines {at} to {at + len(some) - 1} of {TASK_FILE}."
        steps.append({"text": text, "depends_on": [f"s{number}" for number in sorted(needs)]})
    return PLAN.name, {"steps": steps}


def _act(seen: _Seen, tools: set[str], rng: random.Random, limit: int) -> tuple[str, dict[str, Any]]:
    mine = set(range(seen.step[0], seen.step[1] + 1)) if seen.step else set(seen.requirements)
    there = {n for n in mine if n in seen.calls and f"{module_of(name_of(seen.calls[n]))}.py" in seen.files}
    wanted = sorted(n for n in mine if n not in seen.done | there or n in seen.failing)
    if wanted and READ.name in tools and seen.step and not set(wanted) <= set(seen.requirements):
        return READ.name, {"path": TASK_FILE, "start": seen.step[2], "end": seen.step[3]}
    wanted = [n for n in wanted if n in seen.requirements]
    needs = {p.number for n in wanted for p in seen.requirements[n].parts} - set(seen.calls)
    words = [f"# F{n:02d} " for n in sorted(needs)]
    asked = any(
        call.tool == SEARCH.name and call.arguments.get("words") == words for m in seen.messages for call in m.calls
    )
    if needs and SEARCH.name in tools and not asked:
        return SEARCH.name, {"words": words}
    ready = [n for n in wanted if all(p.number in seen.calls for p in seen.requirements[n].parts)]
    if ready:
        return WRITE.name, {"files": _written(seen, ready, rng, limit)}
    if COMPLETE.name in tools:
        return COMPLETE.name, {}
    return "", {"text": "There is nothing that I could do."}


def _written(seen: _Seen, numbers: Sequence[int], rng: random.Random, limit: int) -> list[dict[str, str]]:
    """As many of the features as fit a reply, with a file of tests for those that are new."""
    calls = seen.calls | {n: seen.requirements[n].call for n in numbers}
    files: list[dict[str, str]] = []
    for upto in range(1, len(numbers) + 1):
        some = [seen.requirements[n] for n in numbers[:upto]]
        state = rng.getstate()
        made = [{"path": f"{module_of(one.name)}.py", "text": _code(one, calls, rng)} for one in some]
        new = [one for one in some if one.number not in seen.failing]
        if new:
            made.append({"path": f"test_{module_of(new[0].name)}.py", "text": _tests(new)})
        if files and count_tokens(json.dumps({"files": made})) > limit - 10:
            break
        files = made
        rng.setstate(state)
    return files


def _code(feature: Feature, calls: dict[int, str], rng: random.Random) -> str:
    """The feature's module, in one of seven cases with a fault: a wrong name, broken syntax, or a constant off by one."""
    fault = rng.choice(("name", "syntax", "constant")) if rng.random() < FAULTS else ""
    name = f"{feature.name}s" if fault == "name" else feature.name
    body = expression(feature, calls) + (" + 1" if fault == "constant" else "")
    colon = "" if fault == "syntax" else ":"
    lines = [f"# {feature.id} {feature.call}"]
    for part in sorted({part.number for part in feature.parts}):
        other = name_of(calls[part])
        lines.append(f"from {module_of(other)} import {other}")
    if feature.call.endswith("]"):
        lines.append(f"{name} = {{x{colon} {body} for x in range(4)}}")
        if fault == "syntax":
            lines[-1] = lines[-1].replace(" for x", " fro x")
    elif feature.call.endswith(".value()"):
        lines += ["from dataclasses import dataclass", "@dataclass", f"class {name}{colon}", "    x: int"]
        lines += ["    def value(self):", "        x = self.x", f"        return {body}"]
    else:
        lines += [f"def {name}(x){colon}", f"    return {body}"]
    return "\n".join(lines) + "\n"


def _tests(features: Sequence[Feature]) -> str:
    lines = [f"from {module_of(one.name)} import {one.name}" for one in features]
    for one in features:
        lines += [
            f"def test_{one.id}():",
            f"    assert {one.call.replace('x % 4', '2').replace('(x)', '(2)')} == {one.example}",
        ]
    return "\n".join(lines) + "\n"
