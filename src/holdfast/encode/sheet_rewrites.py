"""What a curator's rewrite of a sheet changes (Dynamic Cheatsheet, arXiv 2504.07952 §2): additions, revisions, deletions.

A whole document that is written anew loses what the writer forgets (the paper's context collapse), and counts what the writer says.
So a rewrite is read item by item against the sheet before it: what is left out without a mark stays for some rounds, one rewrite
deletes few, and a count grows by one at most.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from textwrap import dedent

from holdfast.chat import count_tokens
from holdfast.cube import Form
from holdfast.encode.sheet_items import Check, Item, Written, render, words
from holdfast.encode.sheet_trials import Found
from holdfast.store.rows import forgotten_with
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.STRATEGIES,),
    formation=(Formation.DISTILL_EXPERIENCE,),
    evolution=(Evolution.UPDATE_EXTERNAL, Evolution.FORGET_BY_FREQUENCY),
    subject=(Subject.AGENT,),
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a rewrite may do.

    Fields
        words: of the whole sheet, at most.
        patience: so many rewrites in turn may leave an item out before it goes.
        deletes: so many items one rewrite may delete; those that are marked beyond count as left out.
    """

    words: int = 2_500
    patience: int = 3
    deletes: int = 3


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet after a rewrite: its items (new ones have the number 0), why others went, and what was not taken over."""

    items: tuple[Item, ...]
    gone: Mapping[int, str] = field(default_factory=dict)
    refused: tuple[str, ...] = ()


def rewritten(old: Sequence[Item], written: Written, question: int, bounds: Bounds) -> Sheet:
    """The sheet as a curator wrote it for one question, before anything is tried, merged or cut."""
    before = {item.number: item for item in old}
    said = [item for item in map(tidied, written.items) if item is not None]
    stated = {item.number: item for item in said}
    marked = [number for number in dict.fromkeys(written.deleted) if number in before and number not in stated]
    gone = dict.fromkeys(marked[: bounds.deletes], "the curator deleted it")
    items = []
    for item in old:
        if item.number in gone:
            continue
        if item.number in stated:
            items.append(_revised(item, stated[item.number], question))
        elif item.missed < bounds.patience:
            items.append(replace(item, missed=item.missed + 1))
        else:
            gone[item.number] = f"{bounds.patience + 1} rewrites in turn left it out"
    fresh = [item for item in said if item.number not in before]
    items += [
        replace(item, number=0, count=1, refs=(question,), used=question, check=Check.UNCHECKED, missed=0)
        for item in fresh
    ]
    return Sheet(tuple(items), gone)


def judged(sheet: Sheet, old: Sequence[Item], found: Mapping[int, Found], bounds: Bounds) -> Sheet:
    """The sheet after its code was tried; ``found`` is by place among ``sheet.items``.

    New code that fails is not taken over, and an item whose code it would have replaced stays as it was. An item that fails
    later stays as long as one that is left out, for the curator to mend.
    """
    before = {item.number: item for item in old}
    items: list[Item] = []
    gone, refused = dict(sheet.gone), list(sheet.refused)
    for place, item in enumerate(sheet.items):
        held = before.get(item.number)
        said = found.get(place)
        if said is None or (held is not None and held.code == item.code and not _decides(said)):
            items.append(item)
        elif said.check is not Check.FAILED:
            items.append(replace(item, check=said.check))
        elif held is None:
            refused.append(f"new code was not taken over: {said.why}")
        elif held.code != item.code and held.check is not Check.FAILED:
            refused.append(f"item {item.number} keeps its code: of the new one, {said.why}")
            items.append(replace(held, missed=0))
        else:
            items.append(replace(item, check=Check.FAILED))
    kept = []
    for item in items:
        held = before.get(item.number)
        if item.check is Check.FAILED and held is not None and held.check is Check.FAILED:
            item = replace(item, missed=held.missed + 1)
            if item.missed > bounds.patience:
                gone[item.number] = "its code fails, and nobody has mended it"
                continue
        kept.append(item)
    return Sheet(tuple(kept), gone, tuple(refused))


def merged(sheet: Sheet) -> Sheet:
    """Without duplicates: of items that say the same the oldest stays, with the counts and references of all."""
    items: list[Item] = []
    gone = dict(sheet.gone)
    places: dict[tuple[str, ...], int] = {}
    for item in sheet.items:
        key = _key(item)
        if key not in places:
            places[key] = len(items)
            items.append(item)
            continue
        first = items[places[key]]
        items[places[key]] = replace(
            first,
            # A new item that says what is known is one more use of it, unless this rewrite has counted it already.
            count=first.count + item.count if item.number else first.count + (item.used > first.used),
            refs=_refs(first.refs, *item.refs),
            used=max(first.used, item.used),
            missed=min(first.missed, item.missed),
        )
        if item.number:
            gone[item.number] = f"it says the same as item {first.number}"
    return Sheet(tuple(items), gone, sheet.refused)


def bounded(sheet: Sheet, question: int, limit: int, tokens: int | None = None) -> Sheet:
    """Within a number of words, and of tokens as far as they can be estimated: first goes what fails, then what was left out, then
    what was not used now, has served least and longest ago."""
    frame = words(render([])), count_tokens(render([]))
    most = limit - frame[0], (float("inf") if tokens is None else tokens) - frame[1]
    sizes = {}
    for place, item in enumerate(sheet.items):
        text = render([item])
        sizes[place] = words(text) - frame[0], count_tokens(text) - frame[1] + 1
    left = dict(enumerate(sheet.items))
    total = [sum(size[at] for size in sizes.values()) for at in (0, 1)]
    gone, refused = dict(sheet.gone), list(sheet.refused)
    fits = {place: size[0] <= most[0] and size[1] <= most[1] for place, size in sizes.items()}
    for place in sorted(left, key=lambda place: (fits[place], *worth(left[place], question), place)):
        if total[0] <= most[0] and total[1] <= most[1]:
            break
        item = left.pop(place)
        total = [total[at] - sizes[place][at] for at in (0, 1)]
        why = f"the sheet has room for {limit} words" + ("" if tokens is None else f" and {tokens} tokens")
        if item.number:
            gone[item.number] = why
        else:
            refused.append(f"a new item was not taken over: {why}")
    return Sheet(tuple(left.values()), gone, tuple(refused))


def worth(item: Item, question: int = -1) -> tuple[bool, bool, bool, int, int]:
    """By what items are compared where there is no room for all, the least one first."""
    return item.check is not Check.FAILED, not item.missed, item.used == question, item.count, item.used


def tidied(item: Item) -> Item | None:
    """An item as it is taken over from a model; None for one that says nothing."""
    code = dedent(item.code).strip("\n").rstrip()
    description, example = item.description.strip(), item.example.strip()
    if not (description or example or code):
        return None
    named = description or (example or code).splitlines()[0].strip() or "an example"
    return replace(item, description=named, example=example, code=code)


def _revised(item: Item, stated: Item, question: int) -> Item:
    grew = stated.count > item.count
    changed = stated.content != item.content
    return replace(
        item,
        description=stated.description,
        example=stated.example,
        code=stated.code,
        section=stated.section,
        count=item.count + grew,
        refs=_refs(item.refs, question) if grew or changed else item.refs,
        used=question if grew else item.used,
        check=item.check if stated.code == item.code else Check.UNCHECKED,
        missed=0,
    )


_REFS = 5  # they stand in every prompt


def _refs(refs: Sequence[int], *more: int) -> tuple[int, ...]:
    """The last ones of all, in order, each once."""
    return tuple(sorted({*refs, *more}))[-_REFS:]


def _decides(said: Found) -> bool:
    """Code that stood up before is at fault only where it gives a wrong answer, not where it cannot read some question."""
    return said.wrong > 0 or said.check is Check.PASSED


def _key(item: Item) -> tuple[str, ...]:
    """Code says the same however it is laid out and described; without code, the words do."""
    if not item.code:
        return " ".join(item.description.casefold().split()), " ".join(item.example.casefold().split())
    return "code", _laid_out(item.code)


@lru_cache(maxsize=1_024)
def _laid_out(code: str) -> str:
    try:
        return ast.dump(ast.parse(code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code


forgotten_with(_laid_out.cache_clear)
