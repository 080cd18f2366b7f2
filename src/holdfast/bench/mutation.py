"""How a recipe may differ by one step: a part more or less, another ranker, a number moved (the design step of MemEvolve,
arXiv 2512.18746 §3.3, over declared genes in place of generated code).

What can be put in is what other recipes are made of. Where it is known what a memory lost (``bench.arena.Lost``), the module that
lost it is changed, and in the direction that may mend it; otherwise any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np

from holdfast.bench.arena import Lost
from holdfast.encode.base import Encoder
from holdfast.errors import InputError
from holdfast.manage.base import Manager
from holdfast.recipes.base import Composer, Find, Phase, Recipe
from holdfast.retrieve.base import Ranker

T = TypeVar("T")
FACTORS = (0.5, 0.8, 1.25, 2.0)
"""A number is moved by one of these."""

_TRIES = 50


class Module(StrEnum):
    """The part of a recipe that is changed."""

    ENCODE = "encode"
    FIND = "find"
    NARROW = "narrow"  # tell less
    MANAGE = "manage"


BLAMED: Mapping[Lost, Module] = {
    Lost.NEVER_ENCODED: Module.ENCODE,
    Lost.EVICTED: Module.MANAGE,
    Lost.NOT_FOUND: Module.FIND,
    Lost.DROWNED: Module.NARROW,
}
"""What was lost before any run had shown it is no part's fault."""


@dataclass(frozen=True, slots=True)
class Menu:
    """What recipes can be made of: whole recipes' encoders with the finds that read what these make, and the other parts."""

    blocks: tuple[tuple[tuple[Encoder, ...], tuple[Find, ...]], ...]
    rankers: tuple[Ranker, ...]
    managers: tuple[Manager, ...]
    composers: tuple[Composer, ...]

    @classmethod
    def of(cls, recipes: Iterable[Recipe]) -> Menu:
        """All that some recipes are made of, each part once."""
        recipes = tuple(recipes)
        return cls(
            _each((recipe.encoders, recipe.finds) for recipe in recipes),
            _each(find.ranker for recipe in recipes for find in recipe.finds),
            _each(manager for recipe in recipes for manager in recipe.managers),
            _each(recipe.composer for recipe in recipes if recipe.composer is not None),
        )


def blamed(lost: Mapping[Lost, int], random: np.random.Generator) -> Module:
    """A module, as likely as it is to blame; any, where none is."""
    counts = dict.fromkeys(Module, 0)
    for what, count in lost.items():
        if what in BLAMED:
            counts[BLAMED[what]] += count
    total = sum(counts.values())
    weights = [count / total for count in counts.values()] if total else None
    return list(Module)[int(random.choice(len(Module), p=weights))]


def mutate(recipe: Recipe, module: Module, menu: Menu, random: np.random.Generator) -> Recipe:
    """The recipe with one module changed by one step; never the same one. Raises InputError where nothing can be changed."""
    moves = _MOVES[module]
    for _ in range(_TRIES):
        try:
            child = moves[int(random.integers(len(moves)))](recipe, menu, random)
        except InputError:  # a number went where it may not
            continue
        if child != recipe and child.finds:
            return child
    raise InputError(f"the recipe {recipe.name!r} cannot be changed in {module}")


Move = Callable[[Recipe, Menu, np.random.Generator], Recipe]


def _add_block(recipe: Recipe, menu: Menu, random: np.random.Generator) -> Recipe:
    encoders, finds = _one(menu.blocks, random)
    return replace(recipe, encoders=_each((*recipe.encoders, *encoders)), finds=_each((*recipe.finds, *finds)))


def _drop_block(recipe: Recipe, menu: Menu, random: np.random.Generator) -> Recipe:
    own = [block for block in menu.blocks if set(block[1]) & set(recipe.finds) and block[0]]
    encoders, finds = _one(own, random)
    return replace(
        recipe,
        encoders=tuple(one for one in recipe.encoders if one not in encoders),
        finds=tuple(one for one in recipe.finds if one not in finds),
    )


def _move_encoder(recipe: Recipe, _menu: Menu, random: np.random.Generator) -> Recipe:
    return replace(recipe, encoders=_moved_in(recipe.encoders, random))


def _other_ranker(recipe: Recipe, menu: Menu, random: np.random.Generator) -> Recipe:
    return _with_find(recipe, random, lambda find: replace(find, ranker=_one(menu.rankers, random)))


def _move_ranker(recipe: Recipe, _menu: Menu, random: np.random.Generator) -> Recipe:
    return _with_find(recipe, random, lambda find: replace(find, ranker=_moved(find.ranker, random)))


def _more(recipe: Recipe, _menu: Menu, random: np.random.Generator) -> Recipe:
    return _with_find(recipe, random, lambda find: replace(find, k=min(find.pool, find.k + int(random.integers(1, 4)))))


def _fewer(recipe: Recipe, _menu: Menu, random: np.random.Generator) -> Recipe:
    return _with_find(recipe, random, lambda find: replace(find, k=max(1, find.k - int(random.integers(1, 4)))))


def _looser(recipe: Recipe, _menu: Menu, random: np.random.Generator) -> Recipe:
    return _with_find(recipe, random, lambda find: replace(find, least=find.least - 0.1))


def _stricter(recipe: Recipe, _menu: Menu, random: np.random.Generator) -> Recipe:
    return _with_find(recipe, random, lambda find: replace(find, least=max(find.least, 0.0) + 0.1))


def _other_phases(recipe: Recipe, _menu: Menu, random: np.random.Generator) -> Recipe:
    phases = _one(((Phase.BEGIN,), (Phase.STEP,), (Phase.BEGIN, Phase.STEP)), random)
    return _with_find(recipe, random, lambda find: replace(find, phases=phases))


def _drop_find(recipe: Recipe, _menu: Menu, random: np.random.Generator) -> Recipe:
    out = _one(recipe.finds, random)
    return replace(recipe, finds=tuple(find for find in recipe.finds if find != out))


def _add_manager(recipe: Recipe, menu: Menu, random: np.random.Generator) -> Recipe:
    return replace(recipe, managers=_each((*recipe.managers, _one(menu.managers, random))))


def _drop_manager(recipe: Recipe, _menu: Menu, random: np.random.Generator) -> Recipe:
    out = _one(recipe.managers, random)
    return replace(recipe, managers=tuple(manager for manager in recipe.managers if manager != out))


def _move_manager(recipe: Recipe, _menu: Menu, random: np.random.Generator) -> Recipe:
    return replace(recipe, managers=_moved_in(recipe.managers, random))


def _other_every(recipe: Recipe, _menu: Menu, random: np.random.Generator) -> Recipe:
    return replace(recipe, every=int(_one((1, 5, 20, 50), random)))


def _other_composer(recipe: Recipe, menu: Menu, random: np.random.Generator) -> Recipe:
    return replace(recipe, composer=_one((None, *menu.composers), random))


_MOVES: Mapping[Module, tuple[Move, ...]] = {
    Module.ENCODE: (_add_block, _add_block, _drop_block, _move_encoder),
    Module.FIND: (_other_ranker, _move_ranker, _more, _looser, _other_phases, _add_block),
    Module.NARROW: (_fewer, _stricter, _drop_find, _other_ranker, _other_composer, _add_manager),
    Module.MANAGE: (_add_manager, _drop_manager, _move_manager, _other_every),
}


def _with_find(recipe: Recipe, random: np.random.Generator, change: Callable[[Find], Find]) -> Recipe:
    at = int(random.integers(len(recipe.finds)))
    return replace(recipe, finds=_each((*recipe.finds[:at], change(recipe.finds[at]), *recipe.finds[at + 1 :])))


def _moved_in(parts: tuple[T, ...], random: np.random.Generator) -> tuple[T, ...]:
    if not parts:
        raise InputError("there is nothing to change")
    at = int(random.integers(len(parts)))
    return (*parts[:at], _moved(parts[at], random), *parts[at + 1 :])


def _moved(part: T, random: np.random.Generator) -> T:
    """The part with one of its numbers moved, or one of its switches turned. Raises InputError where it has none."""
    if not is_dataclass(part) or isinstance(part, type):
        raise InputError("a part has no genes")
    genes = {one.name: getattr(part, one.name) for one in fields(part)}
    name = _one([name for name, value in genes.items() if isinstance(value, int | float)], random)
    value = genes[name]
    if isinstance(value, bool):
        return replace(part, **{name: not value})
    factor = _one(FACTORS, random)
    if isinstance(value, float):
        return replace(part, **{name: round(value * factor, 4)})
    changed = round(value * factor)
    return replace(part, **{name: changed if changed != value else value + (1 if factor > 1 else -1)})


def _one(choices: Any, random: np.random.Generator) -> Any:
    if not len(choices):
        raise InputError("there is nothing to choose from")
    return choices[int(random.integers(len(choices)))]


def _each(parts: Iterable[T]) -> tuple[T, ...]:
    found: list[T] = []
    for part in parts:
        if part not in found:
            found.append(part)
    return tuple(found)
