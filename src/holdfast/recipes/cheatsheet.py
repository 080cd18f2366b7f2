"""Dynamic Cheatsheet as a recipe (arXiv 2504.07952 §2): one sheet, written by the model itself, told whole for every question.

``cumulative`` (DC-Cu) rewrites the sheet after each run; ``retrieval`` (DC-RS) before each, from the most similar past ones. Nobody
says which answers were right.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from holdfast.as_of import RECALLED
from holdfast.chat import Chat, count_tokens
from holdfast.cube import Cube, Form, Kind, Scope
from holdfast.encode.base import Experience
from holdfast.encode.records import Unit, tell
from holdfast.encode.sheet_items import EMPTY, Check, Item, render
from holdfast.encode.sheet_rewrites import worth
from holdfast.encode.sheet_trials import Runner
from holdfast.encode.sheets import Sheets, sheet_of
from holdfast.errors import InputError
from holdfast.recipes.base import Composition, Find, Recipe
from holdfast.retrieve.hits import Hit
from holdfast.retrieve.likeness import Meaning
from holdfast.retrieve.unranked import Unranked
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Retrieval, Subform, Subject

if TYPE_CHECKING:
    from holdfast.memory import Memory

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.STRATEGIES, Function.SKILLS),
    formation=(Formation.SUMMARY_INCREMENTAL,),
    evolution=(Evolution.CONSOLIDATE_GLOBAL,),
    retrieval=(Retrieval.AUTOMATIC, Retrieval.AGGREGATE),
    subject=(Subject.AGENT,),
)

TOKENS_A_WORD = 4
"""Of a sheet, code and tags included; what does not fit all the same is left out, the least used first."""

MOST = 500
"""Items that a sheet is read from."""

_FRAME = 200  # tokens that stand around a sheet when it is told


def cheatsheet(
    mode: Literal["cumulative", "retrieval"] = "cumulative",
    *,
    budget_words: int = 2_500,
    patience: int = 3,
    k: int = 3,
    runner: Runner | None = None,
) -> Recipe:
    """The recipe.

    Args:
        mode: when the sheet is rewritten: after each run, or before each one from ``k`` similar past ones.
        budget_words: the longest that the sheet may be.
        patience: so many rewrites in turn may leave an item out before it goes.
        runner: what code in the sheet is tried with, such as ``agent.sandbox.Sandbox()``; without one it stays unchecked.

    Raises InputError.
    """
    if mode not in ("cumulative", "retrieval"):
        raise InputError(f"a cheatsheet is 'cumulative' or 'retrieval', not {mode!r}")
    if budget_words < 1 or patience < 0 or k < 1:
        raise InputError("a cheatsheet has budget_words and k from 1 on, and patience from 0 on")
    sheets = Sheets(budget_words, patience, runner=runner)
    whole = Find((Unit.SHEET,), Unranked(), k=MOST, pool=MOST, whole=True, own=True)
    tokens = TOKENS_A_WORD * budget_words
    if mode == "cumulative":
        return Recipe(
            "cheatsheet",
            "one sheet of what works, rewritten after every run (arXiv 2504.07952, DC-Cu)",
            (sheets,),
            (whole,),
            Told(tokens),
            budget=tokens + _FRAME,
        )
    return Recipe(
        "cheatsheet-retrieval",
        "one sheet of what works, rewritten before every run from the most similar ones (arXiv 2504.07952, DC-RS)",
        (),
        (whole, Find((Kind.EXPERIENCE,), Meaning(), k=k, own=True)),
        Synthesised(sheets, tokens),
        budget=tokens + _FRAME,
    )


@dataclass(frozen=True, slots=True)
class Told:
    """A composer: the sheet, without items whose code fails, within ``tokens``."""

    tokens: int = 10_000

    def compose(self, task: str, context: str, hits: Sequence[Hit]) -> Composition:  # noqa: ARG002  (the seam has it)
        """The sheet that the hits make up."""
        return Composition(told(list(sheet_of([hit.cube for hit in hits])), self.tokens))


@dataclass(frozen=True, slots=True)
class Synthesised:
    """A composer: the sheet as it is rewritten for a task from the runs that were found beside it, least similar first."""

    sheets: Sheets
    tokens: int = 10_000
    model: Chat | None = None
    memory: Memory | None = None
    scope: Scope | None = None

    def compose(self, task: str, context: str, hits: Sequence[Hit]) -> Composition:
        """The sheet, and its changes. Where nothing was found, there is nothing to write it from, and it stays as it is.

        Raises InputError without a model, ChatError.
        """
        runs = [hit.cube for hit in hits if hit.cube.kind == Kind.EXPERIENCE]
        if not runs or self.memory is None:
            return Told(self.tokens).compose(task, context, [hit for hit in hits if hit.cube.kind == Unit.SHEET])
        data = {"past": [_pair(cube) for cube in reversed(runs)], "next_question": task}
        sheets = replace(self.sheets, model=self.model, memory=self.memory, scope=self.scope)
        made = sheets.rewrite(Experience(tuple(runs), self.memory.store.now()), data)
        return Composition(told(made.items, self.tokens), made.operations)


def told(items: Sequence[Item], tokens: int) -> str:
    """The sheet as an agent is told it; "" where there is nothing to tell."""
    kept = [item for item in items if item.check is not Check.FAILED]
    for least in sorted(kept, key=worth):
        if count_tokens(render(kept)) <= tokens:
            break
        kept.remove(least)
    return render(kept) if kept else ""


def text(memory: Memory, *, at: datetime | str | None = None, author: str | None = None, **scope: str | None) -> str:
    """The sheet now, or as it was ``at`` a time; "(empty)" where there is none. ``author``: whose, by default everybody's."""
    where = replace(RECALLED, kinds=(Unit.SHEET,))
    cubes = memory.select(where, **scope) if at is None else memory.as_of(at).select(where, **scope)
    items = list(sheet_of(list(cubes), author))
    return render(items) if items else EMPTY


def diff(memory: Memory, since: datetime | str, *, author: str | None = None, **scope: str | None) -> str:
    """How the sheet has changed since a time, as a unified diff; "" where it has not."""
    before, after = text(memory, at=since, author=author, **scope), text(memory, author=author, **scope)
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), f"sheet, {since}", "sheet, now", lineterm="")
    return "\n".join(lines)


def _pair(cube: Cube) -> dict[str, str]:
    return {"question": cube.text, "work": tell(cube)}
