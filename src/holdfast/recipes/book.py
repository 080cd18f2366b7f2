"""The recipes that have a name.

The first twelve are the systems that EvolveLab compares (arXiv 2512.18746, table 1), as it implements them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.cube import Kind
from holdfast.encode.digests import Digests
from holdfast.encode.records import Unit
from holdfast.errors import InputError
from holdfast.recipes.base import Find, Recipe
from holdfast.recipes.genotype import from_dict, read
from holdfast.retrieve.likeness import Meaning

CASES = Recipe(
    "cases",
    "what was done in the most similar case, as it was; asks no model",
    finds=(Find((Kind.EXPERIENCE,), Meaning(), k=1),),
)

VOYAGER = Recipe(
    "voyager",
    "a digest of each run, found by a description of its task (arXiv 2305.16291)",
    (Digests(described=True),),
    (Find((Unit.DIGEST,), Meaning(), k=1),),
)

DILU = Recipe(
    "dilu",
    "the digest of the most similar run as an example (arXiv 2309.16292)",
    (Digests(),),
    (Find((Unit.DIGEST,), Meaning(), k=1),),
)

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in (CASES, VOYAGER, DILU)}
"""By name."""


def opened(recipe: Recipe | str | Mapping[str, Any]) -> Recipe:
    """A recipe by its name, from a file of it (``*.json``), from its data, or itself. Raises InputError."""
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Mapping):
        return from_dict(recipe)
    if recipe.endswith(".json"):
        return read(Path(recipe).expanduser())
    if recipe not in RECIPES:
        raise InputError(f"there is no recipe {recipe!r}; there are {', '.join(sorted(RECIPES))}")
    return RECIPES[recipe]
