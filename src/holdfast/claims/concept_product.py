"""The product's path of ArcMemo's claim (arXiv 2509.04439): the same writer and selector behind a chat, over a store.

What the claim measures goes through the product's records, merging and texts, and leaves the store out, for speed. Here a memory
with the recipe takes the same tasks in; what it holds and tells in the end must be what the claim's own memory does.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from holdfast.chat import Message, Reply, Tool, Usage
from holdfast.claims.concept_arms import K, book
from holdfast.claims.concept_grids import parsed, written
from holdfast.claims.concept_world import Task, cues
from holdfast.claims.concept_writer import Book, Solved, routines, selected
from holdfast.encode.base import Step, Trajectory
from holdfast.encode.concept_text import hint
from holdfast.encode.concepts import Concept
from holdfast.errors import ChatError
from holdfast.memory import Memory
from holdfast.recipes.concepts import arcmemo, concepts

_NAME, _CUE = re.compile(r"^- ([^(]+)\("), re.compile(r"^  cue: (.*)$")


class Stand:
    """A ``Chat``: the writer and the selector of the claim, in a model's place."""

    def __init__(self) -> None:
        self._book = Book()

    def reply(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),  # noqa: ARG002  (the seam has it)
        schema: Mapping[str, Any] | None = None,
        temperature: float | None = None,  # noqa: ARG002
        limit: int | None = None,  # noqa: ARG002
    ) -> Reply:
        """The answer to what the recipe asks. Raises ChatError where it asks for nothing by a schema."""
        if schema is None:
            raise ChatError("the stand-in answers schemas alone")
        data = json.loads(messages[-1].text)
        seen = tuple(data["task"].splitlines()[1:])
        answer: dict[str, Any]
        match schema["title"]:
            case "pseudocode":
                answer = {"pseudocode": data["steps"].removeprefix("1. "), "summary": "a program of grids"}
            case "concepts":
                solved = Solved(data["task"], parsed(data["pseudocode"]), seen)
                answer = {"concepts": [record for record, _ in self._book.written(solved)]}
            case _:
                answer = {"exploration": "", "names": selected(_listed(data["memory"]), seen, K)}
        return Reply(json.dumps(answer), usage=Usage(0, 0, 1))


def _listed(view: str) -> dict[str, Concept]:
    """The concepts that a view shows, with their cues."""
    found: dict[str, list[str]] = {}
    for line in view.splitlines():
        if named := _NAME.match(line):
            found[named[1]] = []
        elif cue := _CUE.match(line):
            found[list(found)[-1]].append(cue[1])
    return {name: Concept(name, cues=tuple(said)) for name, said in found.items()}


def differences(seeds: Sequence[Task], asked: Sequence[Task]) -> int:
    """So many concepts that are not the same in the product's memory and in the claim's, and tasks that are told other routines."""
    ours = {name: replace(one, used_in=()) for name, one in book(seeds).concepts.items()}
    with (
        tempfile.TemporaryDirectory() as folder,
        Memory(
            folder,
            user="solver",
            embedder=None,
            encoders=(),
            background=False,
            durability="normal",
            recipe=arcmemo(k=K, tokens=20_000),
            chat=Stand(),
        ) as memory,
    ):
        for task in seeds:
            memory.take_in(Trajectory(_words(task), (Step(written(task.program)),), id=task.name), 1.0)
        held = {name: replace(one, used_in=()) for name, one in concepts(memory).items()}
        wrong = sum(held.get(name) != ours.get(name) for name in {*held, *ours})
        for task in asked:
            chosen = selected(ours, cues(task.train), K)
            told = memory.provide(_words(task)).text
            wrong += routines(told, task.colours) != routines(hint(ours.values(), chosen), task.colours)
    return wrong


def _words(task: Task) -> str:
    return "\n".join((f"puzzle {task.name}", *cues(task.train)))
