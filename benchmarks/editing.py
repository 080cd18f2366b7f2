"""Edits in a side memory: what a step costs beside the released code of WISE, and whether the two compute the same.

    python -m benchmarks.editing editing.json [--easyedit FOLDER]

FOLDER: a checkout of zjunlp/EasyEdit (MIT), of which ``easyeditor.models.wise`` must be importable; without it the side memory is
measured alone. Both edit a GPT-2 with random weights, from the same weights, mask and rows, a fact after another, every fact for so
many steps; turn about, on one thread. Of processor time the best of several is told. Weight decay, which the released code does not
mask, is 0 in both.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel

from holdfast.weights.base import Edit
from holdfast.weights.side_memory import Margins, Settings, SideMemory, _Shard

LAYERS, WIDTH, HEADS, WORDS = 6, 128, 4, 1000
AT = 4
RATE, MARGINS, SHARE, BOUND = 0.1, Margins(1.0, 4.0, 2.0), 0.2, 1.0
TEMPLATES = ("{}", *(f"{200 + at} {300 + at} {{}}" for at in range(10)))


def tokenizer(text: str) -> list[int]:
    """A text of numbers."""
    return [int(word) for word in text.split()]


def model() -> Any:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=WORDS,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=64,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config).eval()


def facts(count: int) -> list[Edit]:
    return [
        Edit(str(at), f"{1 + at} 120 130 {140 + at} 150 160", f"{500 + at}", ("170 171 172 173 174",))
        for at in range(count)
    ]


def ours(steps: int, **changed: Any) -> SideMemory:
    settings = Settings(steps=steps, rate=RATE, margins=MARGINS, share=SHARE, bound=BOUND, reference=True, **changed)
    layer = f"transformer.h.{AT}.mlp.c_proj"
    return SideMemory(model(), tokenizer, layer=layer, settings=settings, unrelated=["170 171"], templates=TEMPLATES)


def theirs(released: Any, steps: int, mask: torch.Tensor) -> Any:
    config = SimpleNamespace(
        model_name="gpt2", inner_params=[f"transformer.h[{AT}].mlp.c_proj.weight"], edit_lr=RATE, n_iter=steps,
        mask_ratio=SHARE, alpha=MARGINS.unrelated, beta=MARGINS.taught, gamma=MARGINS.apart, act_ratio=0.88,
        save_freq=10**9, merge_freq=10**9, retrieve=True, replay=False, merge_alg="ties", norm_constraint=BOUND,
        weights=1.0, densities=0.53, device="cpu", sequential_edit=True,
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        editor = released.WISE(config, model(), "cpu")
    layer = editor.get_adapter_layer()
    layer.generate_activation_mask = lambda _: setattr(layer, "weight_mask", mask.flatten())
    return editor


def teach_theirs(editor: Any, rows: Sequence[Any]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        for one in rows:
            batch = {**one.inputs, "labels": one.labels}
            editor.edit(editor.config, batch, act_mask=[None], deact_mask=[None])


def timed(run: Callable[[], None]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def measured(released: Any, count: int, steps: int, repeats: int) -> dict[str, float]:
    """Seconds of processor time a step, of both, and how far they are apart after five steps."""
    edits = facts(count)
    found: dict[str, float] = {}
    best = {"side memory": float("inf"), "whole edits": float("inf"), "released": float("inf")}
    for _ in range(repeats):
        memory = ours(steps)
        mask, rows = memory._subspace(0), [memory._rows(one) for one in edits]
        shard = [_Shard(0, memory._base)]

        def teach() -> None:
            for one in edits:
                shard[0] = memory._taught(shard[0], one, ())  # noqa: B023 - it is run at once

        best["side memory"] = min(best["side memory"], timed(teach))
        whole = ours(steps)
        best["whole edits"] = min(best["whole edits"], timed(lambda: whole.edit(edits)))  # noqa: B023
        if released is not None:
            editor = theirs(released, steps, mask)
            best["released"] = min(best["released"], timed(lambda: teach_theirs(editor, rows)))  # noqa: B023
    found["ms a step, side memory"] = 1000 * best["side memory"] / (count * steps)
    found["ms a step, side memory with merging and measuring"] = 1000 * best["whole edits"] / (count * steps)
    if released is not None:
        found["ms a step, released code"] = 1000 * best["released"] / (count * steps)
        found["ratio"] = best["whole edits"] / best["released"]
        five = ours(5)
        editor = theirs(released, 5, five._subspace(0))
        teach_theirs(editor, [five._rows(edits[0])])
        five.edit(edits[:1])
        apart = five._shards[0].weight - editor.get_adapter_layer().new_weight.detach()
        moved = five._shards[0].weight - five._base
        found["apart after 5 steps"] = float(apart.abs().max())
        found["moved after 5 steps"] = float(moved.abs().max())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--easyedit", type=Path)
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    released = None
    if given.easyedit is not None:
        sys.path.insert(0, str(given.easyedit))
        from easyeditor.models.wise import WISE as released  # type: ignore[import-not-found,no-redef]

        sgd = torch.optim.SGD
        torch.optim.SGD = lambda learning, rate, **_: sgd(learning, rate)  # type: ignore[misc,assignment]
    found = measured(released, given.edits, given.steps, given.repeats)
    for name, value in found.items():
        print(f"{name}: {value:.6g}")
    settings = {"layers": LAYERS, "width": WIDTH, "layer": AT, "templates": len(TEMPLATES), "edits": given.edits}
    record = {
        "settings": {**settings, "steps": given.steps, "repeats": given.repeats, "threads": 1},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "load": list(os.getloadavg()),
        "measured": found,
    }
    given.file.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
