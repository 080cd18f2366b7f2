"""A recipe as plain JSON, and back: the genotype that a search changes (MemEvolve, arXiv 2512.18746 §3.1).

A part is a mapping with its name, ``part``, and its genes. Parts are known by name and made of checked values; nothing is imported
or unpickled, so a genotype from anywhere can be read, and is data until it is a valid recipe.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from holdfast.encode.digests import Digests
from holdfast.encode.functions import Functions
from holdfast.encode.insights import Insights
from holdfast.encode.nodes import Nodes
from holdfast.encode.plans import Plans
from holdfast.encode.principles import Principles
from holdfast.encode.revision import Revision
from holdfast.encode.scripts import Scripts
from holdfast.encode.shortcuts import Shortcuts
from holdfast.encode.tips import Tips
from holdfast.encode.trials import Trials
from holdfast.encode.workflows import Workflows
from holdfast.errors import InputError
from holdfast.manage.fading import Fading
from holdfast.manage.merging import Merging
from holdfast.manage.pruning import Pruning
from holdfast.recipes.base import Find, Phase, Recipe
from holdfast.recipes.condensing import Condensing
from holdfast.recipes.curation import Curation
from holdfast.recipes.tutoring import Tutoring
from holdfast.retrieve.base import Ranker
from holdfast.retrieve.expansion import Expanded
from holdfast.retrieve.judged import Judged
from holdfast.retrieve.keywords import Keywords
from holdfast.retrieve.likeness import Meaning, Mixed, Overlap, Words
from holdfast.retrieve.rewriting import Rewritten
from holdfast.retrieve.solved import Solved

ENCODERS: Mapping[str, type[Any]] = {
    "digests": Digests,
    "functions": Functions,
    "insights": Insights,
    "nodes": Nodes,
    "plans": Plans,
    "principles": Principles,
    "revision": Revision,
    "scripts": Scripts,
    "shortcuts": Shortcuts,
    "tips": Tips,
    "trials": Trials,
    "workflows": Workflows,
}
RANKERS: Mapping[str, type[Any]] = {
    "expanded": Expanded,
    "judged": Judged,
    "keywords": Keywords,
    "meaning": Meaning,
    "mixed": Mixed,
    "overlap": Overlap,
    "rewritten": Rewritten,
    "solved": Solved,
    "words": Words,
}
COMPOSERS: Mapping[str, type[Any]] = {"condensing": Condensing, "curation": Curation, "tutoring": Tutoring}
MANAGERS: Mapping[str, type[Any]] = {"fading": Fading, "merging": Merging, "pruning": Pruning}
"""The parts that a genotype may name, by the place that they stand in."""

DEEPEST = 4
"""Rankers within rankers, at most."""

_GIVEN = frozenset({"model", "memory", "scope", "author"})  # what a part works with; no genes
_RECIPE = frozenset("name about encoders finds composer managers every rewarded notes".split())
_FIND = frozenset("kinds ranker k least phases pool makers".split())


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON-ready data. Raises InputError for a part that has no name here."""
    return {
        "name": recipe.name,
        "about": recipe.about,
        "encoders": [_written(part, ENCODERS) for part in recipe.encoders],
        "finds": [
            {
                "kinds": [str(kind) for kind in find.kinds],
                "ranker": _written(find.ranker, RANKERS),
                "k": find.k,
                "least": find.least if math.isfinite(find.least) else None,
                "phases": [str(phase) for phase in find.phases],
                "pool": find.pool,
                "makers": list(find.makers),
            }
            for find in recipe.finds
        ],
        "composer": None if recipe.composer is None else _written(recipe.composer, COMPOSERS),
        "managers": [_written(part, MANAGERS) for part in recipe.managers],
        "every": recipe.every,
        "rewarded": recipe.rewarded,
        "notes": dict(recipe.notes),
    }


def from_dict(data: Mapping[str, Any]) -> Recipe:
    """The recipe that data describe; what they leave out stands at its default. Raises InputError for what is unknown."""
    given = _mapping(data, _RECIPE, "a recipe")
    notes = given.get("notes", {})
    if not isinstance(notes, Mapping) or not all(isinstance(one, str) for pair in notes.items() for one in pair):
        raise InputError("notes of a recipe are texts by name")
    composer = given.get("composer")
    return Recipe(
        _valued(given.get("name"), str, "name"),
        _valued(given.get("about", ""), str, "about"),
        tuple(_part(one, ENCODERS, "encoder") for one in _listed(given.get("encoders", ()), "encoders")),
        tuple(_find(one) for one in _listed(given.get("finds", ()), "finds")),
        None if composer is None else _part(composer, COMPOSERS, "composer"),
        tuple(_part(one, MANAGERS, "manager") for one in _listed(given.get("managers", ()), "managers")),
        _valued(given.get("every", 1), int, "every"),
        _valued(given.get("rewarded", False), bool, "rewarded"),
        dict(notes),
    )


def read(path: Path) -> Recipe:
    """The recipe in a JSON file. Raises InputError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the recipe {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise InputError(f"the recipe {path} is no JSON") from None
    return from_dict(data)


def genes(part: type[Any]) -> dict[str, Any]:
    """The genes of a part's class, with their types."""
    hints = get_type_hints(part)
    return {one.name: hints[one.name] for one in fields(part) if one.name not in _GIVEN}


def _written(part: Any, known: Mapping[str, type[Any]]) -> dict[str, Any]:
    name = next((name for name, one in known.items() if type(part) is one), None)
    if name is None:
        raise InputError(f"{type(part).__name__} has no name among the parts: {', '.join(sorted(known))}")
    held = {gene: getattr(part, gene) for gene in genes(type(part))}
    return {"part": name, **{gene: _plain(value) for gene, value in held.items()}}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _written(value, RANKERS)
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, str) else value


def _part(data: Any, known: Mapping[str, type[Any]], place: str, depth: int = 0) -> Any:
    name = data.get("part") if isinstance(data, Mapping) else None
    if not isinstance(name, str) or name not in known or depth > DEEPEST:
        raise InputError(f"there is no {place} {name!r}; there are {', '.join(sorted(known))}")
    types = genes(known[name])
    given = _mapping(data, {"part", *types}, f"the {place} {name!r}")
    values = {
        gene: _gene(given[gene], wanted, f"{name}.{gene}", depth) for gene, wanted in types.items() if gene in given
    }
    try:
        return known[name](**values)
    except TypeError as error:
        raise InputError(f"the {place} {name!r} lacks a gene: {error}") from error


def _gene(value: Any, wanted: Any, name: str, depth: int) -> Any:
    if wanted is Ranker:
        return _part(value, RANKERS, "ranker", depth + 1)
    if get_origin(wanted) is tuple:
        inner = get_args(wanted)[0]
        return tuple(_gene(one, inner, name, depth) for one in _listed(value, name))
    return _valued(value, wanted, name)


def _find(data: Any) -> Find:
    given = _mapping(data, _FIND, "a find")
    if "kinds" not in given or "ranker" not in given:
        raise InputError("a find has kinds and a ranker")
    values: dict[str, Any] = {
        "kinds": _words(given["kinds"], "kinds"),
        "ranker": _part(given["ranker"], RANKERS, "ranker"),
    }
    values |= {name: _valued(given[name], int, name) for name in ("k", "pool") if name in given}
    if given.get("least") is not None:
        values["least"] = _valued(given["least"], float, "least")
    if "phases" in given:
        named = _words(given["phases"], "phases")
        if unknown := set(named) - {str(phase) for phase in Phase}:
            raise InputError(f"there is no phase {', '.join(sorted(unknown))}; there are {', '.join(Phase)}")
        values["phases"] = tuple(Phase(one) for one in named)
    if "makers" in given:
        values["makers"] = _words(given["makers"], "makers")
    return Find(**values)


def _mapping(data: Any, known: set[str] | frozenset[str], what: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise InputError(f"{what} is a mapping, not {type(data).__name__}")
    if unknown := {str(name) for name in data} - known:
        raise InputError(f"{what} has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}")
    return data


def _listed(value: Any, name: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise InputError(f"{name} is a list, not {type(value).__name__}")
    return value


def _words(value: Any, name: str) -> tuple[str, ...]:
    return tuple(_valued(one, str, name) for one in _listed(value, name))


def _valued(value: Any, wanted: Any, name: str) -> Any:
    """A value of that type: whole numbers are numbers too, and truth values are none. Raises InputError."""
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not wanted or (wanted is float and not math.isfinite(value)):
        raise InputError(f"{name} is {wanted.__name__}, not {value!r}")
    return value
