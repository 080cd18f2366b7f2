"""The arms of Dynamic Cheatsheet (arXiv 2504.07952 §3) on one stream of questions: which are answered rightly.

Every arm goes through the product's prompts, parsers and code protocol. ``DC-Cu`` and ``DC-RS`` are the paper's: one document,
taken over as the curator writes it. ``DC-Cu items`` is the product's: a ``Memory`` with the recipe, over a store.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from holdfast.agent.coding import INSTRUCTION, PLAIN, Worked, work
from holdfast.chat import Message, Role
from holdfast.claims.sheet_box import Box
from holdfast.claims.sheet_players import FAULT, Curator, Generator
from holdfast.claims.sheet_tasks import FAULTY, SOUND, Question
from holdfast.encode.sheet_items import EMPTY, parse, render
from holdfast.encode.sheets import INSTRUCTION as CURATE
from holdfast.encode.writing import told
from holdfast.memory import Memory
from holdfast.recipes.cheatsheet import cheatsheet

BASELINE, EMPTY_SHEET, HISTORY, RETRIEVED, SYNTHESIS, CUMULATIVE, ITEMS = (
    "BL",
    "DC-∅",
    "FH",
    "DR",
    "DC-RS",
    "DC-Cu",
    "DC-Cu items",
)
WORDS = 650
"""Of the sheet: what the window of the generator has room for."""

K = 3
_SHOWN = 30  # of the history, which is more than the window

Vectors = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Stream:
    """Questions in an order. ``luck`` names what is drawn for each of them, alike in every arm."""

    name: str
    questions: tuple[Question, ...]
    luck: str

    def generator(self, at: int, fault: float = FAULT) -> Generator:
        """The solver of one question."""
        return Generator(self.questions[at], f"{self.luck} {at}", fault)


def stream(name: str, pools: Sequence[Sequence[Question]], order: int, seed: int) -> Stream:
    """The questions of some pools, mixed."""
    luck = f"{name} {seed} {order}"
    mixed = [question for pool in pools for question in pool]
    random.Random(luck).shuffle(mixed)
    return Stream(name, tuple(mixed), luck)


def answered(arm: str, given: Stream, box: Box, vectors: Vectors) -> list[bool]:
    """Of each question, whether an arm answers it rightly."""
    if arm == ITEMS:
        return by_items(given, box)
    return _documents(arm, given, box, vectors)


def _documents(arm: str, given: Stream, box: Box, vectors: Vectors, forgets: float = 0.0) -> list[bool]:
    curator = Curator(WORDS, box, forgets=forgets, luck=given.luck)
    sheet = EMPTY
    past: list[tuple[Question, Worked]] = []
    right = []
    for at, question in enumerate(given.questions):
        guidance = ""
        if arm == HISTORY:
            guidance = "\n\n".join(map(_pair, past[-_SHOWN:]))
        elif arm in (RETRIEVED, SYNTHESIS):
            like = _similar(question, past, vectors)
            guidance = "\n\n".join(map(_pair, like))
            if arm == SYNTHESIS:
                shown = [{"question": one.text, "work": told(worked.trajectory)} for one, worked in like]
                sheet = _rewritten(curator, sheet, {"past": shown, "next_question": question.text})
        if arm in (SYNTHESIS, CUMULATIVE):
            guidance = sheet
        instruction = PLAIN if arm == BASELINE else INSTRUCTION
        if arm in (HISTORY, RETRIEVED):
            _warm(box, given, question, guidance)
        done = work(given.generator(at), question.text, guidance=guidance, runner=box, instruction=instruction)
        right.append(question.right(done.answer))
        past.append((question, done))
        if arm == CUMULATIVE:
            sheet = _rewritten(curator, sheet, {"question": question.text, "work": told(done.trajectory)})
        _warmed(box, given, curator)
    return right


def by_items(
    given: Stream,
    box: Box,
    *,
    checked: bool = True,
    poisoned: tuple[int, str] | None = None,
    fault: float = FAULT,
    forgets: float = 0.0,
) -> list[bool]:
    """The product's arm. ``checked``: whether code is tried; ``fault``: of what the generator writes itself.

    ``poisoned``: from that question on the curator puts that code in the place of the most used one, once; what comes after it is
    returned.
    """
    curator = Curator(WORDS, forgets=forgets, luck=given.luck)
    recipe = cheatsheet(budget_words=WORDS, runner=box if checked else None)
    right: list[bool] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Memory(
            folder,
            user="solver",
            embedder=None,
            encoders=(),
            background=False,
            durability="normal",
            recipe=recipe,
            chat=curator,
        ) as memory,
    ):
        for at, question in enumerate(given.questions):
            if poisoned is not None and at == poisoned[0]:
                curator.poison = question.family, poisoned[1]
            guidance = memory.provide(question.text)
            done = work(given.generator(at, fault), question.text, guidance=guidance, runner=box)
            right.append(question.right(done.answer))
            armed = curator.poison is not None
            memory.take_in(done.trajectory, None)
            if armed and curator.poison is None:
                right.clear()
            _warmed(box, given, curator)
    return right


def forgotten(given: Stream, box: Box, forgets: float) -> tuple[list[bool], list[bool]]:
    """The document and the items with a curator that leaves each item out of a rewrite now and then."""
    return _documents(CUMULATIVE, given, box, {}, forgets), by_items(given, box, forgets=forgets)


def _rewritten(curator: Curator, sheet: str, data: Mapping[str, object]) -> str:
    """The curator's document, its new items numbered; the old one where it wrote none."""
    asked = f"{sheet}\n\n{json.dumps(data, ensure_ascii=False)}"
    messages = [Message(Role.SYSTEM, CURATE.format(words=WORDS)), Message(Role.USER, asked)]
    written = parse(curator.reply(messages).text)
    if written is None:
        return sheet
    return render([replace(item, number=number) for number, item in enumerate(written.items, 1)])


def _pair(one: tuple[Question, Worked]) -> str:
    return f"Question: {one[0].text}\n{one[1].text}"


def _similar(
    question: Question, past: Sequence[tuple[Question, Worked]], vectors: Vectors
) -> list[tuple[Question, Worked]]:
    """The most similar questions before this one, least similar first."""
    if not past:
        return []
    likeness = np.stack([vectors[one.text] for one, _ in past]) @ vectors[question.text]
    return [past[at] for at in np.argsort(likeness, kind="stable")[-K:].tolist()]


def _warm(box: Box, given: Stream, question: Question, guidance: str) -> None:
    """Code that a generator finds in a history is run on all questions at once, when it is first shown."""
    for code in (*FAULTY.get(question.family, ()), SOUND.get(question.family, "")):
        if code and code in guidance:
            box.warm(code, [one.text for one in given.questions])


def _warmed(box: Box, given: Stream, curator: Curator) -> None:
    for code in dict.fromkeys(curator.wrote):
        box.warm(code, [one.text for one in given.questions])
    curator.wrote.clear()
