"""Recipes as data: there and back, and nothing that a file could smuggle in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from holdfast.encode.digests import Digests
from holdfast.errors import InputError
from holdfast.recipes.base import Find, Phase, Recipe
from holdfast.recipes.book import RECIPES, opened
from holdfast.recipes.genotype import PARTS, SEAMS, from_dict, genes, to_dict
from holdfast.retrieve.likeness import Meaning, Mixed, Overlap, Words
from holdfast.retrieve.utility import Utility
from scribe import Scribe

rankers = st.one_of(
    st.sampled_from([Meaning(), Words(), Overlap()]),
    st.builds(Mixed, st.floats(0, 1)),
    st.builds(Utility, weight=st.floats(0, 1), least=st.floats(-1, 1)),
)
finds = st.builds(
    Find,
    kinds=st.lists(st.sampled_from(["digest", "tip", "experience"]), min_size=1, max_size=3).map(tuple),
    ranker=rankers,
    k=st.integers(1, 9),
    least=st.one_of(st.just(float("-inf")), st.floats(-1, 1)),
    phases=st.lists(st.sampled_from(Phase), min_size=1, max_size=2, unique=True).map(tuple),
    pool=st.integers(9, 99),
    makers=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    own=st.booleans(),
)
recipes = st.builds(
    Recipe,
    name=st.text(min_size=1, max_size=20),
    about=st.text(max_size=40),
    encoders=st.lists(st.builds(Digests, words=st.integers(1, 500), described=st.booleans()), max_size=3).map(tuple),
    finds=st.lists(finds, max_size=3).map(tuple),
    every=st.integers(1, 99),
    rewarded=st.booleans(),
)


@given(recipes)
def test_a_recipe_comes_back_as_it_was(recipe: Recipe) -> None:
    assert from_dict(json.loads(json.dumps(to_dict(recipe)))) == recipe


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_of_the_book_can_be_saved(name: str, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(to_dict(RECIPES[name])))
    assert opened(str(path)) == RECIPES[name]
    assert opened(to_dict(RECIPES[name])) == RECIPES[name]


GOOD = to_dict(RECIPES["voyager"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"colour": "red"}, "a recipe has no colour"),
        ({"name": 3}, "strings"),
        ({"every": True}, "whole number"),
        ({"every": 0}, "one trajectory or more"),
        ({"encoders": {}}, "encoders is a list"),
        ({"encoders": [{"part": "os.system"}]}, "there is no part 'os.system'"),
        ({"encoders": [{"part": "Meaning"}]}, "Meaning does not encode"),
        ({"encoders": ["Digests"]}, "there is no part 'Digests'"),
        ({"encoders": [{"part": "Digests", "words": "many"}]}, "Digests.words is a int, not 'many'"),
        ({"encoders": [{"part": "Digests", "words": True}]}, "Digests.words is a int, not True"),
        ({"encoders": [{"part": "Digests", "model": {"part": "Digests"}}]}, "Digests has no model"),
        ({"finds": [{"kinds": ["digest"]}]}, "kinds and a ranker"),
        ({"finds": [GOOD["finds"][0] | {"phases": ["never"]}]}, "phases are"),
        ({"finds": [GOOD["finds"][0] | {"k": 0}]}, "k between 1"),
        ({"finds": [GOOD["finds"][0] | {"ranker": {"part": "Mixed", "words": 3}}]}, "between 0 and 1"),
        ({"composer": {"part": "Digests"}}, "Digests does not compose"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        from_dict({**GOOD, **change})


def test_a_part_of_ones_own_cannot_be_saved_and_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    class Own:
        def encode(self, experience: Any) -> list[Any]:
            return [experience]

    with pytest.raises(InputError, match="the part Own is known to this program alone"):
        to_dict(replace(RECIPES["cases"], encoders=(Own(),)))
    path = tmp_path / "r.json"
    with pytest.raises(InputError, match="is no recipe"):
        opened(str(path))
    path.write_text("[1")
    with pytest.raises(InputError, match="is no recipe"):
        opened(str(path))
    path.write_text('{"name": "x", "encoders": [{"part": "Digest"}]}')
    with pytest.raises(InputError, match=r"r\.json: there is no part 'Digest'"):
        opened(str(path))


def test_what_a_part_works_with_is_no_setting() -> None:
    equipped = replace(RECIPES["voyager"], encoders=(Digests(described=True, successes=True, model=Scribe()),))
    assert to_dict(equipped) == GOOD


# --- every part ---

KINDS = ["digest", "insight", "tip", "skill"]


def gene(wanted: Any) -> st.SearchStrategy[Any]:
    if wanted in SEAMS:
        return parts([part for part in PARTS.values() if hasattr(part, SEAMS[wanted])])
    if get_origin(wanted) is tuple:
        return st.lists(st.sampled_from(KINDS), min_size=1, max_size=3).map(tuple)
    if get_origin(wanted) is Literal:
        return st.sampled_from(get_args(wanted))
    if wanted in PARTS.values():
        return parts([wanted])
    known = {int: st.integers(0, 60), float: st.floats(-1, 2), bool: st.booleans(), str: st.text(max_size=9)}
    return known[wanted]


@st.composite
def parts(draw: st.DrawFn, among: list[type]) -> Any:
    part = draw(st.sampled_from(among))
    values = {name: draw(gene(wanted)) for name, wanted in genes(part).items()}
    try:
        return part(**values)
    except InputError:
        reject()


@given(
    parts([part for part in PARTS.values() if hasattr(part, "encode")]),
    parts([part for part in PARTS.values() if hasattr(part, "rank")]),
)
def test_encoders_and_rankers_of_any_genes_come_back_as_they_were(encoder: Any, ranker: Any) -> None:
    recipe = Recipe("any", "", (encoder,), (Find(("digest",), ranker),))
    assert from_dict(json.loads(json.dumps(to_dict(recipe)))) == recipe


@given(
    parts([part for part in PARTS.values() if hasattr(part, "compose")]),
    parts([part for part in PARTS.values() if hasattr(part, "manage")]),
)
def test_composers_and_managers_of_any_genes_come_back_as_they_were(composer: Any, manager: Any) -> None:
    recipe = Recipe("any", "", composer=composer, managers=(manager,), every=7)
    assert from_dict(json.loads(json.dumps(to_dict(recipe)))) == recipe


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_gene_of_every_recipe_is_checked(name: str) -> None:
    """Each value in the data, put to something of another type, is refused: nothing stands there unread."""
    data = to_dict(RECIPES[name])
    tried = 0
    for path in leaves(data):
        for wrong in ({"part": "nobody"}, [[]]):
            if path[0] == "notes":
                continue
            changed = json.loads(json.dumps(data))
            place = changed
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = wrong
            with pytest.raises(InputError):
                from_dict(changed)
            tried += 1
    assert tried > 8


def leaves(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    found = [one for key, value in items for one in leaves(value, (*path, key))]
    return found or ([path] if not isinstance(data, dict | list) else [])


def test_parts_within_parts_without_end_are_refused() -> None:
    ranker: dict[str, Any] = {"part": "Meaning"}
    for _ in range(5_000):
        ranker = {"part": "Solved", "of": ranker}
    with pytest.raises(InputError, match="without end"):
        from_dict({"name": "x", "finds": [{"kinds": ["digest"], "ranker": ranker}]})
