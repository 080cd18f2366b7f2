"""A stream of runs, and a scripted model whose every answer is a function of what it is shown: for the twelve systems of EvolveLab."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from handwritten import Run
from holdfast import Memory
from holdfast.encode.base import Step, Trajectory
from holdfast.encode.records import tell
from holdfast.recipes.base import Guidance
from holdfast.recipes.book import TWELVE
from scribe import Scribe
from support import HashEmbedder

NAMES = [recipe.name for recipe in TWELVE]
COMPOSED = [recipe.name for recipe in TWELVE if recipe.composer is not None]

VERBS = "fetch paint repair deliver measure sort".split()
THINGS = "lamp chair clock kettle mirror basket ladder radio".split()
PLACES = "cellar attic garden kitchen harbour library".split()
TOOLS = "rope brush spanner cart ruler tray".split()


def runs(count: int = 66, seed: int = 7) -> list[Run]:
    random = np.random.default_rng(seed)
    found = []
    for at in random.permutation(len(VERBS) * len(THINGS) * len(PLACES))[:count].tolist():
        verb, thing, place = VERBS[at % 6], THINGS[at // 6 % 8], PLACES[at // 48]
        tool = TOOLS[(at + at // 7) % 6]
        steps = [
            (f"go to the {place}", f"a {thing} is there"),
            (f"{verb} it with the {tool}", "it works" if at % 3 else "no"),
        ]
        found.append(
            Run(
                f"{verb} the {thing} in the {place} before noon today",
                steps,
                f"{thing} done",
                bool(random.random() < 0.6),
            )
        )
    return found


# --- a model that is scripted: each answer is a function of what it is shown ---


def parts(data: Mapping[str, Any]) -> tuple[str, str, str, str]:
    verb, _, thing, _, _, place = data["task"].split()[:6]
    return verb, thing, place, data["steps"].splitlines()[1].split(" the ")[1].split(" ->")[0]


def digest(data: Mapping[str, Any]) -> Mapping[str, Any]:
    verb, thing, place, tool = parts(data)
    return {
        "digest": f"took the {tool}; {data['steps'][-40:]}",
        "description": f"somebody must {verb} a {thing}, {place}",
    }


def insights(data: Mapping[str, Any]) -> Mapping[str, Any]:
    verb, thing, place, tool = parts(data)
    does = "bring" if data["succeeded"] else "leave"
    found = [
        f"to {verb} a {thing} in a {place} {does} the {tool} and wait until somebody brings the key early that morning",
        f"in a {place} look twice for the {thing} that you {verb}",
        f"every {thing} of the {place} breaks near water unless you {verb} slowly",
        f"whoever wants to {verb} a {thing} asks first in the {place}",
        f"the {place} is dark for the {thing}, {verb} with a light",
        "be quick",
    ]
    return {"insights": found[: 3 + len(thing) % 4]}


def function(data: Mapping[str, Any]) -> Mapping[str, Any]:
    verb, thing, place, tool = parts(data)
    worse = {"lamp": "    import os\n", "clock": "    eval(place)\n"}.get(thing, "")
    code = (
        f'def {verb}_{thing}(place: str) -> str:\n    """Take the {tool} to any {place}."""\n{worse}    return place\n'
    )
    return {"description": f"when you must {verb} something in the {place}", "code": code}


def principle(data: Mapping[str, Any]) -> Mapping[str, Any]:
    verb, thing, place, tool = parts(data)
    return {
        "principle": f"whoever must {verb} something takes a good {tool} and goes early in the morning",
        "structure": [[verb, "needs", tool]],
        "trace": f"{verb} {thing} {place}",
    }


def sheet(data: Mapping[str, Any]) -> Mapping[str, Any]:
    lines = [*filter(None, data["sheet"].splitlines()), f"{data['task']}: {data['records'][0].splitlines()[-1]}"]
    return {"sheet": "\n".join(lines[-5:])}


def said(data: Mapping[str, Any]) -> Mapping[str, Any]:
    words = [value for record in data["records"] for name, value in sorted(record.items()) if name != "task"]
    return {"guidance": f"for {data['task']} after {data['context']!r}: {'; '.join(words)}"}


def plan(data: Mapping[str, Any]) -> Mapping[str, Any]:
    verb, thing, place, tool = parts(data)
    return {
        "agent_planning": f"first the {place}, then {verb}",
        "search_agent_planning": f"look up {thing}",
        "agent_experience": f"the {tool} was right",
        "search_agent_experience": f"maps of the {place} are old",
    }


def shortcuts(data: Mapping[str, Any]) -> Mapping[str, Any]:
    verb, thing, place, tool = parts(data)
    one = {
        "name": f"{verb} {thing}",
        "precondition": f"you hold a {tool} and see a {place}",
        "actions": [f"go {place}", f"{verb} it"],
    }
    two = {"name": f"hide {thing}", "precondition": f"nobody in the {place} is to {verb}", "actions": ["wait"]}
    return {"shortcuts": [one, two][: len(thing) % 3]}


def same(data: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"same": data["one"].split()[:3] == data["other"].split()[:3]}


def concepts(data: Mapping[str, Any]) -> Mapping[str, Any]:
    verb, _, thing, _, _, place = data["task"].split()[:6]
    tool = [{"name": "tool", "typing": "Tool := something held", "description": data["pseudocode"]}]
    one = {"name": verb, "kind": "routine", "parameters": tool, "cues": [f"there is a {thing} to {verb}"]}
    return {
        "concepts": [one, {"name": place, "kind": "structure", "description": data["summary"]}, {"kind": "routine"}]
    }


def numbers(data: Mapping[str, Any]) -> Mapping[str, Any]:
    asked = set(data["task"].split())
    return {"numbers": [one["number"] for one in data["situations"] if asked & set(one["situation"].split())]}


ANSWERS = {
    "digest": digest,
    "insights": insights,
    "usefulness": lambda data: {
        "scores": [1 + len(set(data["task"].split()) ^ set(one.split())) % 10 for one in data["records"]]
    },
    "workflow": lambda data: {"steps": [line.split(". ")[1][:25] for line in data["steps"].splitlines()[:2]]},
    "tips": lambda data: {"tips": [f"{word} needs care: {' '.join(parts(data))}" for word in parts(data)[:3]]},
    "shortcuts": shortcuts,
    "sheet": sheet,
    "function": function,
    "pattern": lambda data: {"kind": " ".join(parts(data)), "pattern": data["steps"][:30]},
    "advice": lambda data: {"needed": True, "guidance": "; ".join(data["records"])},
    "steps": lambda data: {"runs": [f"{len(data['task'])} {one['steps'][:30]}" for one in data["runs"]]},
    "query": lambda data: {"query": " ".join(sorted(data["task"].split())[1:])},
    "student": said,
    "teacher": said,
    "plan": plan,
    "script": lambda data: {"script": f"{parts(data)[0]} with a {parts(data)[3]}", "case": data["steps"][:35]},
    "revision": lambda data: {"script": f"{data['script']}, not {parts(data)[3]}", "case": f"failed: {data['task']}"},
    "principle": principle,
    "equality": same,
    "facts": lambda data: {
        "facts": [f"{line.split('. ')[1]} ({data['task']})" for line in data["steps"].splitlines()[:2]]
    },
    "operation": lambda data: {
        "event": "UPDATE" if data["fact"].split()[:3] == data["records"]["1"].split()[:3] else "ADD",
        "record": 1,
        "text": data["fact"],
    },
    "distillation": lambda data: {"useful": [int(number) for number in data["records"]]},
    "pseudocode": lambda data: {"pseudocode": data["steps"].splitlines()[1], "summary": f"did {data['task']}"},
    "concepts": concepts,
    "selection": lambda data: {"exploration": "", "names": [*data["task"].split(), "nothing there"]},
    "thought": lambda data: {"thought": data["steps"][:40]},
    "lessons": lambda data: {
        "lessons": [{"situation": f"asked to {data['task']}", "suggestion": f"think of {data['thought']}"}]
    },
    "situations": numbers,
}


class Model(Scribe):
    """The scripted model; of an answer it gives the fields that are asked for."""

    def __init__(self) -> None:
        super().__init__(**ANSWERS)

    def reply(self, messages: Any, **options: Any) -> Any:
        given = super().reply(messages, **options)
        asked = options["schema"]["properties"]
        return replace(
            given, text=json.dumps({name: value for name, value in json.loads(given.text).items() if name in asked})
        )


def opened(path: Path, recipe: Any, **options: Any) -> Memory:
    options = {"chat": Model(), "agent": "cook", "user": "ana"} | options
    return Memory(path, recipe=recipe, embedder=HashEmbedder(), background=False, durability="normal", **options)


def trajectory(run: Run, number: int, served: Guidance = Guidance()) -> Trajectory:  # noqa: B008  (it is frozen)
    steps = tuple(Step(action, seen) for action, seen in run.steps)
    return Trajectory(
        run.task, steps, run.answer, served=tuple(hit.cube.ref for hit in served.hits), id=f"run-{number}"
    )


def told(guidance: Guidance, composed: bool) -> list[str]:
    if not composed:
        return [tell(hit.cube) for hit in guidance.hits]
    return re.findall(r"<memory>\[.*?\] (.*)</memory>", guidance.text, re.DOTALL)
