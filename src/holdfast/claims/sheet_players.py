"""A scripted generator and a scripted curator for Dynamic Cheatsheet: each reads the prompt that a model would, and answers so.

The generator is weak: it guesses, and now and then it comes to write brute force, which may be faulty. Code that it finds in its
prompt and that is about the task at hand it runs, and it takes over what that gives if it has the form of an answer. It does not
work out again what code has told it: a solver that could would not need the sheet. The curator keeps code with a check, and counts.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from holdfast.agent.coding import EXECUTE, INSTRUCTION
from holdfast.chat import Message, Reply, Role
from holdfast.claims.sheet_tasks import CHECKS, FAULTY, SOUND, Family, Question, guess
from holdfast.encode.sheet_items import OPEN, Check, Item, Section, parse, render
from holdfast.encode.sheet_rewrites import Sheet, bounded
from holdfast.encode.sheet_trials import Runner, tried

WINDOW = 1_500
"""Tokens of a prompt that the generator sees; what stands further back is invisible."""

DISCOVER, FAULT = 0.08, 0.3
"""The chance to write code where there is none that serves, and that it is faulty."""

TRIALS = {Family.EQUATION: 16, Family.GAME: 20, Family.PHYSICS: 1}
"""Random trials of a guess, which solve about .4 of the equations and .1 of the games."""

_NEW = 1  # what was learnt just now is not the first to go
_SHORT = 40
"""Words of a question in an example: its end, where the numbers are."""

_BLOCK = re.compile(r"```python\n(.*?)\n```", re.DOTALL)
_OUTPUT = re.compile(r"<output>\n(.*?)\n</output>", re.DOTALL)
_CALL = re.compile(r"\nprint\(solve\(.*\)\)\s*\Z")


def calling(code: str, question: str) -> str:
    """Code, and its call for a question."""
    return f"{code}\nprint(solve({question!r}))"


@dataclass(frozen=True, slots=True)
class Generator:
    """A ``Chat`` that answers one question. ``luck`` names what it draws: the same in every arm."""

    question: Question
    luck: str
    fault: float = FAULT

    def reply(
        self,
        messages: Sequence[Message],
        **_options: Any,
    ) -> Reply:
        """A block of code, or the answer."""
        ran = [_BLOCK.findall(message.text)[-1] for message in messages if message.role is Role.ASSISTANT]
        if ran:
            output = _OUTPUT.findall(messages[-1].text)
            said = output[-1].strip() if output else ""
            if self.question.formed(said):
                return Reply(f"The code gives it.\n<answer>{said}</answer>")
        draws = random.Random(self.luck)
        discovers, faulty, which = draws.random() < DISCOVER, draws.random() < self.fault, draws.randrange(2)
        if messages[0].text == INSTRUCTION and self.question.family in SOUND and len(ran) < 3:
            seen = messages[1].text.encode()[-4 * WINDOW :].decode(errors="ignore")
            for code in found_code(seen, self.question.family):
                if calling(code, self.question.text) not in ran:
                    return _block("There is code for this.", calling(code, self.question.text))
            own = FAULTY[self.question.family][which] if faulty else SOUND[self.question.family]
            if discovers and calling(own, self.question.text) not in ran:
                return _block("All ways can be tried.", calling(own, self.question.text))
        said = guess(self.question, TRIALS[self.question.family], random.Random(f"{self.luck} guess"))
        return Reply(f"I try a few.\n<answer>{said}</answer>")


def found_code(shown: str, family: Family) -> list[str]:
    """The code in a prompt that is about a family: of a sheet the most used first, of a history the latest."""
    sheet = parse(shown) if OPEN in shown else None
    if sheet is not None:
        codes = [item.code for item in sorted(sheet.items, key=lambda item: -item.count)]
    else:
        codes = [_CALL.sub("", code) for code in reversed(_BLOCK.findall(shown))]
    return [code for code in dict.fromkeys(codes) if f"{family}:" in code and "def solve(" in code]


def _block(said: str, code: str) -> Reply:
    return Reply(f"{said}\n```python\n{code}\n```\n{EXECUTE}")


class Curator:
    """A ``Chat`` that rewrites a sheet.

    Args:
        words: the longest that the sheet may be.
        runner: what it tries code with itself; None where whoever keeps the sheet does.
        forgets: the chance that it leaves an item out, by mistake.
    """

    def __init__(self, words: int, runner: Runner | None = None, *, forgets: float = 0.0, luck: str = "") -> None:
        self._words, self._runner, self._forgets = words, runner, forgets
        self._luck = random.Random(luck)
        self.poison: tuple[Family, str] | None = None
        """Code that it puts in the place of the most used one of a family, once."""
        self.wrote: list[str] = []

    def reply(
        self,
        messages: Sequence[Message],
        **_options: Any,
    ) -> Reply:
        """The complete new sheet."""
        shown, _, told = messages[-1].text.rpartition("\n\n")
        data = json.loads(told)
        sheet = parse(shown)
        items = list(sheet.items) if sheet is not None else []
        failed = [item.number for item in items if item.check is Check.FAILED]
        items = [item for item in items if item.check is not Check.FAILED]
        for one in data.get("past", [data]):
            self._take(items, one["question"], one["work"])
        if self._runner is not None:
            items = _stand(items, self._runner, [one["question"] for one in data.get("past", [data])])
        if self._forgets:
            items = [item for item in items if self._luck.random() >= self._forgets]
        items = list(bounded(Sheet(tuple(items)), _NEW, self._words).items)
        items = [replace(item, used=0) for item in items]
        return Reply(f"The new sheet:\n{render(items, failed)}")

    def _take(self, items: list[Item], question: str, work: str) -> None:
        family = next((one for one in Family if f"{one}:" in question), None)
        if family is None:
            return
        if self.poison is not None and self.poison[0] is family:
            best = max((item for item in items if f"{family}:" in item.code), key=lambda item: item.count, default=None)
            if best is not None:
                items[items.index(best)] = replace(best, code=self._keeps(self.poison[1], family), count=best.count + 1)
                self.poison = None
                return
        answer = work.rpartition("Answer: ")[2].strip()
        example = f"{' '.join(question.split()[-_SHORT:])}\n-> {answer}"
        blocks = _BLOCK.findall(work) if "The code gives it." in work else []
        code = self._keeps(_CALL.sub("", blocks[-1]), family) if blocks else ""
        same = next(
            (item for item in items if item.code == code and f"{family}:" in item.code + item.description), None
        )
        if same is not None:
            items[items.index(same)] = replace(same, count=same.count + 1)
            return
        section = Section.SOLUTIONS if code else Section.STRATEGIES
        said = "Try all ways by code." if code else "No method is known; some were tried at random."
        items.append(Item(0, f"{family}: {said}", example, code, section, used=_NEW))

    def _keeps(self, code: str, family: Family) -> str:
        whole = code if "def check(" in code else code + "\n" + CHECKS[family]
        self.wrote.append(whole)
        return whole


def _stand(items: list[Item], runner: Runner, questions: Sequence[str]) -> list[Item]:
    """The items but those whose code gives a wrong answer to one of some questions, or of those in the sheet's examples."""
    asked = [*questions, *(item.example.partition("\n-> ")[0] for item in items)]
    codes = {item.code: item.code for item in items if item.code}
    # Each question alone, as the box knows them.
    bad = {
        code
        for code in codes
        for question in dict.fromkeys(asked)
        if f"{_family(code)}:" in question and tried(runner, {0: code}, {0: [question]}, list(codes))[0].wrong
    }
    return [item for item in items if item.code not in bad]


def _family(text: str) -> Family | None:
    return next((one for one in Family if f"{one}:" in text), None)
