"""The recipes that have a name.

The first twelve are the systems that EvolveLab compares (arXiv 2512.18746, table 1), as it implements them.
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.cube import Kind
from holdfast.encode.digests import Digests
from holdfast.encode.records import Unit
from holdfast.errors import InputError
from holdfast.recipes.base import Find, Recipe
from holdfast.recipes.cheatsheet import cheatsheet
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

CHEATSHEET = cheatsheet()

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in (CASES, VOYAGER, DILU, CHEATSHEET)}
"""By name."""


def opened(recipe: Recipe | str) -> Recipe:
    """A recipe by its name, or itself. Raises InputError."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise InputError(f"there is no recipe {recipe!r}; there are {', '.join(sorted(RECIPES))}")
    return RECIPES[recipe]
