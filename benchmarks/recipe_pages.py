"""The pages of recipes say what was measured: written into them from ``evidence/``, so that no number is copied by hand.

    python -m benchmarks.recipe_pages [--check]

Between two marks it fills in: the composition and the measurements of docs/recipes/NAME.md, the table of the arena in
docs/recipes.md, that of the attacks in docs/guard.md. What is outside the marks stays as it is.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from holdfast.bench.redteam import sweep
from holdfast.bench.redteam.report import table
from holdfast.recipes.book import RECIPES, TWELVE
from holdfast.recipes.genotype import to_dict

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- measured: python -m benchmarks.recipe_pages -->", "<!-- end -->"
NONE = "no memory"


def pages(root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """Each page and what is to stand between its marks."""
    arena, cost, attacks = (
        json.loads((root / "evidence" / name).read_text())
        for name in ("27-memevolve.json", "recipes.json", "redteam-recipes.json")
    )
    doors = {row[0]: row[1:] for row in sweep.matrix(attacks)}
    yield root / "docs" / "recipes.md", _arena_table(arena)
    yield root / "docs" / "guard.md", table(sweep.HEADERS, sweep.matrix(attacks))
    for name, recipe in RECIPES.items():
        parts = [
            "## As data",
            "`recipes.genotype.from_dict` reads it, and `holdfast evolve` changes it ([recipes](../recipes.md)).",
            f"```json\n{_folded(to_dict(recipe))}\n```",
            "## Measured",
            _arena(arena, name),
            _attacks(doors[name]),
            _cost(cost["recipes"].get(name), cost["runs"]),
        ]
        yield root / "docs" / "recipes" / f"{name}.md", "\n\n".join(part for part in parts if part)


def filled(text: str, between: str) -> str:
    """A page with this between its marks. Raises ValueError where it has none."""
    pattern = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"there is no place for what was measured: {BEGIN}")
    return pattern.sub(lambda _: f"{BEGIN}\n\n{between}\n\n{END}", text, count=1)


def _families(arena: Mapping[str, Any]) -> list[str]:
    return [arena["settings"]["searched"], *arena["settings"]["others"]]


def _arena_table(arena: Mapping[str, Any]) -> str:
    families = _families(arena)
    linked = {name: f"[{name}](recipes/{name}.md)" for name in RECIPES}
    rows = [
        (
            linked.get(arm, arm),
            *(f"{100 * of[f'success, {family}']:.0f}" for family in families),
            f"{of['tokens a task']:,.0f}",
            f"{of['model calls a task']:.1f}",
            f"{of['milliseconds a task']:.0f}",
        )
        for arm, of in arena["arms"].items()
    ]
    settings = arena["settings"]
    told = (
        f"`holdfast claims run 27 --scale {arena['scale']}`, seeds {', '.join(map(str, arena['seeds']))}: success in percent of "
        f"{settings['tested']} tasks of each family, from an empty memory; tokens told, calls and milliseconds (vectors included) "
        f"a task of the first family ([plot](../evidence/27-memevolve.png))."
    )
    return f"{told}\n\n{table(('recipe', *families, 'tokens', 'calls', 'ms'), rows)}"


def _arena(arena: Mapping[str, Any], name: str) -> str:
    arms, families = arena["arms"], _families(arena)
    best = {
        family: max((one.name for one in TWELVE), key=lambda arm: arms[arm][f"success, {family}"])
        for family in families
    }
    rows = [
        (
            family,
            *(f"{100 * arms[arm][f'success, {family}']:.0f}" for arm in (name, NONE)),
            _best(arms, best[family], family),
        )
        for family in families
    ]
    own = arms[name]
    return (
        "In [the arena](../recipes.md#measured), where a stand-in writes in a model's place: success in percent.\n\n"
        f"{table(('tasks', name, NONE, 'best of the twelve'), rows)}\n\n"
        f"A task of the first family is told {own['tokens a task']:,.0f} tokens, and takes {own['model calls a task']:.1f} calls "
        f"of the stand-in and {own['milliseconds a task']:.0f} ms, vectors included."
    )


def _best(arms: Mapping[str, Any], arm: str, family: str) -> str:
    return f"{100 * arms[arm][f'success, {family}']:.0f} ({arm})"


def _attacks(cells: tuple[str, ...]) -> str:
    return (
        "[Attacked](../guard.md#agents-that-learn): percent of questions at which the agent would act by the attacker's record, in "
        "a bare memory and in a guarded one; benign: done rightly under attack.\n\n"
        + table(
            ("by", "bare", "guarded"),
            [(door, *cell.split("/")) for door, cell in zip(sweep.HEADERS[1:], cells, strict=True)],
        )
    )


def _cost(found: Mapping[str, Any] | None, runs: int) -> str:
    if found is None:
        return ""
    begin, step, take, commit = (_median(found[what]) for what in ("begin", "step", "take in", "synced commit"))
    return (
        f"Among {runs:,} runs of one agent ({found['records']:,} records; [evidence](../../evidence/recipes.json)), the stand-in "
        f"and the embedder taken off: guidance takes {begin:.1f} ms before a task and {step:.2f} ms at a step, taking a run in "
        f"{take:.1f} ms, of which {found['commits a run']:.1f} synced commits of {commit:.1f} ms each are the disk's."
    )


def _median(one: Mapping[str, Any]) -> float:
    return float(one["quiet"].get("p50", one["p50"]))


def _folded(record: Mapping[str, Any]) -> str:
    """JSON with a line for each field, and for each part of a list."""
    lines = []
    for key, value in record.items():
        if isinstance(value, list) and value:
            parts = ",\n".join(f"    {json.dumps(one)}" for one in value)
            lines.append(f"  {json.dumps(key)}: [\n{parts}\n  ]")
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipe_pages", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page says something else")
    options = parser.parse_args()
    stale = []
    for path, between in pages():
        text = path.read_text(encoding="utf-8")
        if (new := filled(text, between)) != text:
            stale.append(str(path.relative_to(ROOT)))
            if not options.check:
                path.write_text(new, encoding="utf-8")
    print("\n".join(stale) or "every page says what was measured")
    sys.exit(bool(stale) and options.check)


if __name__ == "__main__":
    main()
