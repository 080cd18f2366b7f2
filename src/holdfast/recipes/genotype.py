"""A recipe as plain data, and back (the genotype of MemEvolve, arXiv 2512.18746 §3.3): to be saved, sent, or changed by hand.

A part stands there as the name of its class and its settings. Only parts that are known here are made again: a file names none that
would have to be imported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from holdfast.encode.concept_writing import ConceptWriting
from holdfast.encode.digests import Digests
from holdfast.encode.functions import Functions
from holdfast.encode.insights import Insights
from holdfast.encode.managed import Drawn, Managed, Policy, Prompted, Source, Steps, Thresholds
from holdfast.encode.nodes import Nodes
from holdfast.encode.patterns import Patterns
from holdfast.encode.plans import Plans
from holdfast.encode.principles import Principles
from holdfast.encode.revision import Revision
from holdfast.encode.scripts import Scripts
from holdfast.encode.sheets import Sheets
from holdfast.encode.shortcuts import Shortcuts
from holdfast.encode.situations import Situations
from holdfast.encode.skill_writing import SkillWriter
from holdfast.encode.tips import Tips
from holdfast.encode.trials import Trials
from holdfast.encode.workflows import Workflows
from holdfast.errors import InputError
from holdfast.manage.fading import Fading
from holdfast.manage.merging import Merging
from holdfast.manage.pruning import Pruning
from holdfast.recipes.advising import Advising
from holdfast.recipes.base import BUDGET, Find, Phase, Recipe
from holdfast.recipes.cheatsheet import Synthesised, Told
from holdfast.recipes.concepts import Hinting
from holdfast.recipes.condensing import Condensing
from holdfast.recipes.curation import Curation
from holdfast.recipes.tutoring import Tutoring
from holdfast.retrieve.base import Ranker
from holdfast.retrieve.concepts import Chosen, Situated
from holdfast.retrieve.distilled import Distilled
from holdfast.retrieve.expansion import Expanded
from holdfast.retrieve.judged import Judged
from holdfast.retrieve.keywords import Keywords
from holdfast.retrieve.likeness import Meaning, Mixed, Overlap, Words
from holdfast.retrieve.rewriting import Rewritten
from holdfast.retrieve.solved import Solved
from holdfast.retrieve.unranked import Unranked
from holdfast.retrieve.utility import Utility
from holdfast.store.rewards import Terms

_PARTS: tuple[type, ...] = (
    *(
        ConceptWriting,
        Digests,
        Functions,
        Insights,
        Managed,
        Nodes,
        Patterns,
        Plans,
        Principles,
        Revision,
        Scripts,
        Sheets,
        Shortcuts,
        Situations,
        SkillWriter,
        Tips,
        Trials,
        Workflows,
    ),
    *(
        Chosen,
        Distilled,
        Expanded,
        Judged,
        Keywords,
        Meaning,
        Mixed,
        Overlap,
        Rewritten,
        Situated,
        Solved,
        Unranked,
        Utility,
        Words,
    ),
    *(Advising, Condensing, Curation, Hinting, Synthesised, Told, Tutoring),
    *(Fading, Merging, Pruning),
    *(Drawn, Prompted, Steps, Thresholds),
    Terms,
)

PROFILE = ()  # how recipes are written down, and no memory

PARTS: Mapping[str, type] = {part.__name__: part for part in _PARTS}
"""What a file may name: encoders, rankers, composers, managers, and what these are set by."""

SEAMS: Mapping[type, str] = {Ranker: "rank", Policy: "decide", Source: "facts"}
"""Settings that are parts themselves, each with the method that makes one fit."""

EQUIPPED = frozenset({"model", "memory", "scope", "author", "runner", "scale", "changed", "embedder"})
"""Fields of a part that are no setting of it, and are filled where it works."""

_PART = "part"


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """JSON-ready. Raises InputError for a recipe with a part that no file can name."""
    return {
        "name": recipe.name,
        "about": recipe.about,
        "encoders": [_told(part) for part in recipe.encoders],
        "finds": [_found(find) for find in recipe.finds],
        "composer": None if recipe.composer is None else _told(recipe.composer),
        "managers": [_told(part) for part in recipe.managers],
        "every": recipe.every,
        "budget": recipe.budget,
        "rewarded": recipe.rewarded,
        "notes": dict(recipe.notes),
    }


def from_dict(record: Mapping[str, Any]) -> Recipe:
    """The inverse of ``to_dict``. Raises InputError for what is unknown or of the wrong type, and says which."""
    try:
        return _recipe(record)
    except RecursionError:
        raise InputError("parts within parts without end are no recipe") from None


def _recipe(record: Mapping[str, Any]) -> Recipe:
    if not isinstance(record, Mapping):
        raise InputError("a recipe is a JSON object")
    known = {"name", "about", "encoders", "finds", "composer", "managers", "every", "rewarded", "budget", "notes"}
    if unknown := sorted(set(record) - known):
        raise InputError(f"a recipe has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    name, about, notes = record.get("name"), record.get("about", ""), record.get("notes", {})
    every, rewarded = record.get("every", 1), record.get("rewarded", False)
    if not isinstance(name, str) or not isinstance(about, str) or not isinstance(notes, Mapping):
        raise InputError("a recipe's name and about are strings, and its notes an object")
    budget = record.get("budget", BUDGET)
    if type(every) is not int or type(budget) is not int or type(rewarded) is not bool:
        raise InputError("every and budget are whole numbers, and rewarded is true or false")
    composer = record.get("composer")
    return Recipe(
        name,
        about,
        tuple(_made(part, "encode") for part in _list(record, "encoders")),
        tuple(_find(find) for find in _list(record, "finds")),
        None if composer is None else _made(composer, "compose"),
        tuple(_made(part, "manage") for part in _list(record, "managers")),
        every,
        rewarded,
        budget,
        {str(key): str(value) for key, value in notes.items()},
    )


def read(path: Path) -> Recipe:
    """The recipe in a file. Raises InputError."""
    try:
        return from_dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise InputError(f"{path}: {error}") from error
        raise InputError(f"{path} is no recipe: {error}") from error


def genes(part: type) -> dict[str, Any]:
    """The settings of a part, each with its type."""
    # What it is equipped with may be of a type that is known to a type checker alone.
    named = {one.name: one.type for one in fields(part) if one.name not in EQUIPPED}
    hints = get_type_hints(type("_", (), {"__annotations__": named, "__module__": part.__module__}))
    made: Any = part
    return {one.name: hints[one.name] for one in fields(made) if one.name not in EQUIPPED}


def _told(part: object) -> dict[str, Any]:
    name = type(part).__name__
    if PARTS.get(name) is not type(part) or not is_dataclass(part) or isinstance(part, type):
        raise InputError(f"the part {name} is known to this program alone, and no file can name it")
    settings = {gene: getattr(part, gene) for gene in genes(type(part))}
    return {_PART: name, **{key: _plain(value) for key, value in settings.items()}}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return _told(value)
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return str(value)
    return None if value == -math.inf else value


def _made(record: Any, does: str) -> Any:
    """A part from its record; ``does``: the method that makes it fit its place, "" where it is only a setting of another."""
    named = record.get(_PART) if isinstance(record, Mapping) else record
    if not isinstance(record, Mapping) or not isinstance(named, str) or named not in PARTS:
        raise InputError(f"there is no part {named!r}; there are {', '.join(sorted(PARTS))}")
    cls: Any = PARTS[record[_PART]]
    if does and not hasattr(cls, does):
        raise InputError(f"{record[_PART]} does not {does}, and cannot stand there")
    known = genes(cls)
    settings = {key: value for key, value in record.items() if key != _PART}
    if unknown := sorted(set(settings) - set(known)):
        raise InputError(
            f"{record[_PART]} has no {', '.join(unknown)}; it has {', '.join(sorted(known)) or 'no settings'}"
        )
    made = {key: _like(known[key], value, f"{record[_PART]}.{key}") for key, value in settings.items()}
    try:
        return cls(**made)
    except TypeError as error:
        raise InputError(f"{record[_PART]} cannot be made so: {error}") from error


def _like(wanted: Any, value: Any, where: str) -> Any:
    """A setting of the type that its part declares. A whole number is a number too; true is none."""
    if wanted in SEAMS:
        return _made(value, SEAMS[wanted])
    if wanted in PARTS.values():
        made = _made(value, "")
        if type(made) is not wanted:
            raise InputError(f"{where} is {wanted.__name__}, not {type(made).__name__}")
        return made
    if get_origin(wanted) is tuple:
        if not isinstance(value, list):
            raise InputError(f"{where} is a list, not {value!r}")
        return tuple(_like(get_args(wanted)[0], one, where) for one in value)
    if get_origin(wanted) is Literal:
        if value not in get_args(wanted):
            raise InputError(f"{where} is one of {', '.join(get_args(wanted))}, not {value!r}")
        return value
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted:
        raise InputError(f"{where} is a {wanted.__name__}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where} is a finite number")
    return value


def _found(find: Find) -> dict[str, Any]:
    return {
        "kinds": [str(kind) for kind in find.kinds],
        "ranker": _told(find.ranker),
        "k": find.k,
        "least": None if find.least == -math.inf else find.least,
        "phases": [str(phase) for phase in find.phases],
        "pool": find.pool,
        "makers": list(find.makers),
        "whole": find.whole,
        "own": find.own,
    }


def _find(record: Any) -> Find:
    if not isinstance(record, Mapping) or "kinds" not in record or "ranker" not in record:
        raise InputError("a find has kinds and a ranker")
    if unknown := sorted(set(record) - {"kinds", "ranker", "k", "least", "phases", "pool", "makers", "whole", "own"}):
        raise InputError(f"a find has no {', '.join(unknown)}")
    least = record.get("least")
    k, pool = record.get("k", 1), record.get("pool", 50)
    if type(k) is not int or type(pool) is not int or not (least is None or type(least) in (int, float)):
        raise InputError("k and pool of a find are whole numbers, and least is a number or null")
    whole, own = record.get("whole", False), record.get("own", False)
    if type(whole) is not bool or type(own) is not bool:
        raise InputError("whole and own of a find are true or false")
    try:
        phases = tuple(Phase(phase) for phase in _words(record, "phases", [str(Phase.BEGIN)]))
    except ValueError as error:
        raise InputError(f"phases are {', '.join(Phase)}") from error
    return Find(
        _words(record, "kinds", []),
        _made(record["ranker"], "rank"),
        k,
        -math.inf if least is None else float(least),
        phases,
        pool,
        _words(record, "makers", []),
        whole,
        own,
    )


def _list(record: Mapping[str, Any], name: str) -> Sequence[Any]:
    found = record.get(name, [])
    if not isinstance(found, list):
        raise InputError(f"{name} is a list")
    return found


def _words(record: Mapping[str, Any], name: str, default: Iterable[str]) -> tuple[str, ...]:
    found = record.get(name, list(default))
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InputError(f"{name} is a list of strings")
    return tuple(found)
