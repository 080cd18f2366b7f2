"""What the arms of claim 20 learn with: each tries its rates on the facts and the model of a seed that is not measured.

    python -m benchmarks.edit_rates edit-rates.json --data DATA [--scale full] [--seed 101]        (goes on where it was cut)

DATA: the folder that claim 20 reads. Every value is judged as the claim judges: by the mean of reliability, generalisation and far
locality of the final model. The side memory also tries how many edits share a shard, replay, and factors on its thresholds, for
which nothing is learnt again; all of its arms have what it does best with when it has margins and retrieves. A code book tries
radii, in units of the median length of what the matrix is given.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.bench.editing import judged, locality
from holdfast.bench.memory_probes import one_thread
from holdfast.claims.c20_wise import ALL, BOOK, MATRIX, OURS, TUNED
from holdfast.claims.edit_arms import fine_tuned, key_length, side_memory
from holdfast.claims.edit_world import SIZES, World, trained
from holdfast.weights.code_book import CodeBook

SIDES: Mapping[str, Mapping[str, Any]] = {
    f"{rate:g}, {shard} a shard{', replayed' if replay else ''}": {"rate": rate, "shard": shard, "replay": replay}
    for rate, shard, replay in (
        *((rate, shard, False) for shard in (10, 1) for rate in (0.03, 0.1, 0.3)),
        (0.1, 25, False),
        (0.1, 10, True),
    )
}
"""Rates, edits a shard, and whether earlier memories are told again."""
TRIED: Mapping[str, Sequence[Any]] = {
    OURS: list(SIDES),
    MATRIX: (1e-4, 3e-4, 1e-3, 3e-3),
    ALL: (1e-4, 3e-4, 1e-3),
    BOOK: (0.3, 0.6, 1.2, 2.4),
}
RATIOS = (1.0, 0.75, 0.5, 0.35)


class Arms:
    """A model that knows its world, and what an arm makes of it with a value. Raises ClaimError where the data is missing."""

    def __init__(self, data: Path, scale: Any, seed: int) -> None:
        self._sizes, self._tuned, self._seed = SIZES[scale], TUNED[scale], seed
        self._world = World(data, self._sizes, seed)
        self._model, known = trained(self._world)
        print(f"the model knows {known:.1%}", flush=True)
        self._before = locality(self._model, self._world.tokenizer, self._world.trial)

    def tried(self, arm: str, value: Any) -> dict[str, dict[str, float]]:
        """What is measured, by the value, and of the side memory by the factor on its thresholds too."""
        world, tuned, layer = self._world, self._tuned, self._sizes.layer
        if arm == OURS:
            memory = side_memory(self._model, world, replace(tuned.side, **SIDES[value]), self._seed)
            memory.edit(world.trial.edits)
            found = {}
            for ratio in RATIOS:
                memory.settings = replace(memory.settings, ratio=ratio)
                with memory:
                    found[f"{value}, {ratio:g} of the threshold"] = self._judged(self._model)
            return found
        if arm == BOOK:
            untaught = side_memory(self._model, world, tuned.side, self._seed)
            radius = value * key_length(untaught, world.tokenizer, world.unrelated)
            with CodeBook(
                self._model, world.tokenizer, layer=layer, radius=radius, rate=tuned.value, steps=tuned.steps
            ) as book:
                book.edit(world.trial.edits)
                return {f"{value:g}": self._judged(self._model)}
        within: dict[str, Any] = {"layer": layer, "bound": tuned.side.bound} if arm == MATRIX else {}
        edits, templates = world.trial.edits, world.templates
        taught = fine_tuned(self._model, world.tokenizer, edits, templates, rate=value, steps=tuned.steps, **within)
        return {f"{value:g}": self._judged(taught)}

    def _judged(self, model: Any) -> dict[str, float]:
        return judged(model, self._world.tokenizer, self._world.trial, self._before).metrics


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.edit_rates", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scale", choices=sorted(TUNED), default="full")
    parser.add_argument("--seed", type=int, default=101)
    parser.add_argument("--arm", action="append", choices=list(TRIED), help="only these")
    given = parser.parse_args()
    asked = {"scale": given.scale, "seed": given.seed}
    record: dict[str, Any] = {**asked, "tried": {arm: {} for arm in TRIED}, "done": []}
    if given.file.exists():
        kept = json.loads(given.file.read_text())
        record = kept if asked.items() <= kept.items() else record
    left = [(arm, value) for arm in given.arm or TRIED for value in TRIED[arm] if [arm, value] not in record["done"]]
    if not left:
        return
    with one_thread():
        arms = Arms(given.data, given.scale, given.seed)
        for arm, value in left:
            found = arms.tried(arm, value)
            record["tried"][arm] |= found
            record["done"].append([arm, value])
            record["best"] = {one: max(by, key=lambda at: by[at]["mean"]) for one, by in record["tried"].items() if by}
            given.file.write_text(json.dumps(record, indent=1) + "\n")
            for at, metrics in found.items():
                print(f"{arm}, {at}: mean {metrics['mean']:.3f}", flush=True)


if __name__ == "__main__":
    main()
