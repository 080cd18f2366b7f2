"""Trying an item's code on past questions without knowing the right answers (for Dynamic Cheatsheet, arXiv 2504.07952).

Code may define ``solve(question)``, which gives an answer, or None for a question that is not of its kind, and ``check(question,
answer)``, which says whether an answer is right, or None. An answer fails where more checks of the sheet say no than yes. The code
is run by whatever ``Runner`` the caller gives (``agent.sandbox.Sandbox``) and nowhere else, each item's in a run of its own: what
one prints can say nothing of another.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from holdfast.encode.sheet_items import Check
from holdfast.store.rows import forgotten_with

PROFILE = ()  # no memory


class Finished(Protocol):
    """How a run of code ended."""

    @property
    def ok(self) -> bool:
        """Whether it ended in time and without an error."""
        ...

    @property
    def output(self) -> str:
        """What it printed."""
        ...

    @property
    def errors(self) -> str:
        """What it wrote of errors, such as a traceback."""
        ...


class Runner(Protocol):
    """Runs Python code that nobody has read, where it can do no harm."""

    def run(self, code: str) -> Finished:
        """Run it to its end, or to a limit of time."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """What a trial found, and why: how many questions the code gave an answer to, and how many answers were found wrong."""

    check: Check
    why: str = ""
    answered: int = 0
    wrong: int = 0


K = TypeVar("K", bound=Hashable)


def tried(
    runner: Runner, codes: Mapping[K, str], questions: Mapping[K, Sequence[str]], checks: Sequence[str]
) -> dict[K, Found]:
    """What is found of each code on its questions. ``checks``: the codes whose ``check`` may judge, besides each code's own."""
    found: dict[K, Found] = {}
    pairs: dict[K, list[tuple[str, str]]] = {}
    for key, code in codes.items():
        names = defined(code)
        if names is None:
            found[key] = Found(Check.FAILED, "it is no Python")
        elif "solve" not in names:
            done = runner.run(code)
            found[key] = Found(Check.RUNS) if done.ok else Found(Check.FAILED, "it does not run to its end")
        else:
            replies = _each(runner, _SOLVE, code, list(questions[key]))
            answers = [(question, reply) for question, reply in zip(questions[key], replies, strict=True)]
            pairs[key] = [(question, reply["answer"]) for question, reply in answers if reply.get("answer") is not None]
            if not pairs[key]:
                broken = answers and all(reply.get("error") for _, reply in answers)
                why = "it raises an error, or does not end" if broken else "it answers none of the questions"
                found[key] = Found(Check.FAILED, why)
    asked = list(dict.fromkeys(pair for some in pairs.values() for pair in some))
    votes = _votes(runner, checks, asked)
    for key, some in pairs.items():
        own = _votes(runner, [codes[key]] if codes[key] not in checks else [], some)
        said = [votes[pair] + own[pair] for pair in some]
        if key not in found:
            wrong = sum(vote < 0 for vote in said)
            right = sum(vote > 0 for vote in said)
            check = Check.FAILED if wrong else Check.PASSED if right else Check.RUNS
            found[key] = Found(check, f"{wrong} of {len(said)} answers are wrong" if wrong else "", len(said), wrong)
    return found


@lru_cache(maxsize=1_024)
def defined(code: str) -> frozenset[str] | None:
    """The functions that a code defines at its top; None where it is no Python. Nothing is run."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


forgotten_with(defined.cache_clear)


def _votes(runner: Runner, checks: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """Of each question and answer: how many checks say yes, less how many say no."""
    votes: Counter[tuple[str, str]] = Counter()
    for code in dict.fromkeys(checks) if pairs else ():
        if "check" not in (defined(code) or ()):
            continue
        for pair, reply in zip(pairs, _each(runner, _CHECK, code, [list(pair) for pair in pairs]), strict=True):
            if isinstance(said := reply.get("answer"), str):
                votes[pair] += {"True": 1, "False": -1}.get(said, 0)
    return votes


_MARK = "\x1eof "
_FRAME = """\
import json
_given = json.loads({given!r})
_space = {{"__name__": "sheet"}}
exec(compile({code!r}, "<item>", "exec"), _space)
for _at, _one in enumerate(_given):
    try:
        _said = {call}
        _said = {{"answer": None if _said is None else str(_said)}}
    except Exception as _error:
        _said = {{"error": type(_error).__name__}}
    print("\\n" + {mark!r} + str(_at) + " " + json.dumps(_said), flush=True)
"""
_SOLVE, _CHECK = '_space["solve"](_one)', '_space["check"](*_one)'


def _each(runner: Runner, call: str, code: str, given: Sequence[Any]) -> list[dict[str, Any]]:
    """What a call gives for each; an error where it gives nothing in time. What is printed is the code's own word."""
    if not given:
        return []
    script = _FRAME.format(given=json.dumps(given), code=code, call=call, mark=_MARK)
    replies: list[dict[str, Any]] = [{"error": "no reply"} for _ in given]
    for line in runner.run(script).output.split("\n"):
        if not line.startswith(_MARK):
            continue
        at, _, said = line.removeprefix(_MARK).partition(" ")
        try:
            read = json.loads(said)
        except ValueError:
            continue
        if at.isdecimal() and int(at) < len(given) and isinstance(read, dict):
            replies[int(at)] = read
    return replies
