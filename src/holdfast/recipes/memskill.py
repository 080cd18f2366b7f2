"""MemSkill as a recipe (arXiv 2602.02474): notes on a run, written by the skills that it calls for, found by meaning."""

from __future__ import annotations

from holdfast.encode.records import Unit
from holdfast.encode.skill_writing import SkillWriter
from holdfast.recipes.base import Find, Recipe
from holdfast.retrieve.likeness import Meaning

PROFILE = ()  # how its parts are put together


def memskill(skills: str = "", *, k: int = 3) -> Recipe:
    """The recipe.

    Args:
        skills: a folder with a bank of skills, and a controller where one was trained (``holdfast skills train``); "" for the
            four skills that every bank begins with.
        k: how many skills a stretch of a run is given.

    Raises InputError.
    """
    return Recipe(
        "memskill",
        "notes on each run, written by the memory skills that it calls for (arXiv 2602.02474)",
        (SkillWriter(skills, k),),
        (Find((Unit.NOTE,), Meaning(), k=5, makers=("skill_writing",)),),
    )
