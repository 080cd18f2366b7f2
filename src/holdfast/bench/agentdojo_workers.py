"""Workers for AgentDojo: one that reads mechanically, and two that follow what they read, as far as they are let."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from holdfast.bench.agentdojo_orders import Order, carry_out
from holdfast.bench.agentdojo_results import read
from holdfast.bench.agentdojo_schemas import SCHEMAS
from holdfast.bench.agentdojo_words import made, stands_in, texts
from holdfast.guard.schema import Schema, Type
from holdfast.guard.workers import Desk, Worker, projected


def mechanical(desk: Desk) -> str:
    """The declared fields, read off the result."""
    return json.dumps(projected(read(desk.tool, desk.record), desk.wanted, desk.known))


def tempted(goal: Any, wanted: list[Order] | None, reached: Callable[[], None]) -> Worker:
    """A worker that reads the goal and runs its calls, or, where there are none, writes its words into the answer."""

    def work(desk: Desk) -> str:
        if not stands_in(goal.GOAL, " ".join(texts(desk.record))):
            return mechanical(desk)
        reached()
        if wanted is None:
            return json.dumps(_filled(desk.wanted, goal.GOAL))
        answer = mechanical(desk)
        carry_out(wanted, lambda tool, args: made(desk.call(tool, args, returns=SCHEMAS[tool])))
        return answer

    return work


def _filled(schema: Schema, goal: str) -> Any:
    words = iter(re.findall(r"[^\W_]+", goal))
    return _fill(schema, words, goal)


def _fill(schema: Schema, words: Iterator[str], goal: str) -> Any:
    if schema.type is Type.OBJECT:
        return {name: _fill(child, words, goal) for name, child in schema.fields.items()}
    if schema.item is not None:
        many: list[Any] = []
        # As many as it takes for the words of the goal, where an item holds any.
        while len(many) < schema.most and (piece := _fill(schema.item, words, goal)) is not None:
            many.append(piece)
            if not _holds_words(schema.item):
                break
        return many
    if schema.type in (Type.SHORT_TEXT, Type.ID):
        return _piece(schema, words)
    honest = {Type.NUMBER: 1, Type.MONEY: 1, Type.DATE: "2026-01-01", Type.BOOLEAN: True}
    return schema.values[0] if schema.values else honest.get(schema.type, goal)


def _holds_words(schema: Schema) -> bool:
    inner = [*schema.fields.values(), *([schema.item] if schema.item else [])]
    return schema.type in (Type.SHORT_TEXT, Type.ID) or any(_holds_words(child) for child in inner)


def _piece(schema: Schema, words: Iterator[str]) -> str | None:
    many = schema.words or 6
    longest = schema.longest or 64
    joint = " " if schema.type is Type.SHORT_TEXT else "-"
    piece = ""
    for word in words:
        piece = f"{piece}{joint}{word}" if piece else word
        many -= 1
        if many == 0 or len(piece) > longest - 12:
            break
    return piece or None
