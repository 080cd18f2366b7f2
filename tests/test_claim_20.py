"""Claim 20 in miniature: its world, its arms, what is judged. The model is hardly trained here, and of records made up for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")

from holdfast.bench.editing import Edited, Share, Trial, judged, locality, shares  # noqa: E402
from holdfast.claims import c20_wise as c20  # noqa: E402
from holdfast.claims.edit_arms import fine_tuned  # noqa: E402
from holdfast.claims.edit_world import FACTS, REQUESTS, SIZES, Sizes, World, trained  # noqa: E402
from holdfast.errors import ClaimError, InputError  # noqa: E402
from holdfast.weights.base import Edit  # noqa: E402
from holdfast.weights.prompts import split  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = Sizes(6, 2, 8, layers=2, width=16, heads=2, inner=16, wide=32, epochs=40, batch=8, rate=1e-2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    records = [
        {
            "case_id": at, "prompt": f"the mother tongue of person{at} is", "target_new": f"tongue{at + 20}",
            "subject": f"person{at}", "ground_truth": f"tongue{at}", "rephrase_prompt": f"where person{at} lives people speak",
            "locality_prompt": f"neighbour{at} speaks", "locality_ground_truth": f"tongue{at}",
        }
        for at in range(8)
    ]  # fmt: skip
    for name, what in (
        (FACTS, records),
        (REQUESTS, {"train": [[f"do thing number {at}", f"intent_{at}"] for at in range(9)]}),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(what))
    return tmp_path


def test_what_is_edited_asked_and_unrelated_is_never_the_same(data: Path) -> None:
    world = World(data, SMALL, 3)
    trial = world.trial
    assert (len(trial.edits), len(trial.rewordings), len(trial.near), len(trial.far)) == (2, 2, 2, 4)
    asked = {one.prompt for one in trial.edits} | {prompt for prompt, _ in (*trial.rewordings, *trial.near, *trial.far)}
    assert (
        not asked & {*world.unrelated} and len(world.unrelated) == 16 and asked <= {prompt for prompt, _ in world.known}
    )
    old = dict(world.known)
    for edit, (wording, target) in zip(trial.edits, trial.rewordings, strict=True):
        assert target == edit.target != old[edit.prompt] == old[wording]
        assert len(world.tokenizer(edit.target)) == 1 and 0 not in world.tokenizer(edit.prompt)
    assert len(world.templates) == 11 and World(data, SMALL, 3).templates == world.templates
    with pytest.raises(ClaimError, match="CounterFact"):
        World(None, SMALL, 0)


def test_measures_are_of_whole_answers_and_of_tokens_and_of_what_was_said_before(data: Path) -> None:
    world = World(data, SMALL, 0)
    model, known = trained(world)
    assert known > 0.5 and not model.training
    pairs = [*world.trial.near, ("where person1 lives people speak", "tongue1 tongue2")]
    said = shares(model, world.tokenizer, pairs)
    assert 0 <= said.exact <= said.tokens <= 1
    before = locality(model, world.tokenizer, world.trial)
    found = judged(model, world.tokenizer, world.trial, before)
    assert found.near == found.far == Share(1.0, 1.0)
    wrong = [[one + 1 for one in row] for row in before]
    assert judged(model, world.tokenizer, world.trial, wrong).far == Share(0.0, 0.0)
    with pytest.raises(InputError, match="before"):
        judged(model, world.tokenizer, world.trial, before[1:])
    with pytest.raises(InputError, match="nothing"):
        judged(model, world.tokenizer, replace(world.trial, rewordings=[]), before)
    half = Edited(Share(0.5, 0.6), Share(0.25, 0.3), Share(0.0, 0.0), Share(0.75, 0.8))
    assert half.mean == 0.5 and half.metrics["far, tokens"] == 0.8


def test_fine_tuning_teaches_a_copy_and_stays_within_its_bound(data: Path) -> None:
    world = World(data, SMALL, 1)
    model, _ = trained(world)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    given = {"rate": 0.05, "steps": 30}
    one = fine_tuned(model, world.tokenizer, world.trial.edits[:1], ("{}",), layer=SMALL.layer, bound=0.1, **given)
    every = fine_tuned(model, world.tokenizer, world.trial.edits[:1], ("{}",), **given)
    changed = [name for name, was in before.items() if not torch.equal(was, one.state_dict()[name])]
    assert changed == [f"{SMALL.layer}.weight"]
    assert (one.state_dict()[changed[0]] - before[changed[0]]).abs().max() <= 0.1 + 1e-6
    edit = world.trial.edits[0]
    assert shares(every, world.tokenizer, [(edit.prompt, edit.target)]).exact == 1.0
    assert all(torch.equal(was, model.state_dict()[name]) for name, was in before.items())


def test_the_claim_runs_and_judges_what_it_says(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(SIZES, "quick", SMALL)
    tuned = c20.TUNED["quick"]
    monkeypatch.setitem(c20.TUNED, "quick", replace(tuned, side=replace(tuned.side, steps=2)))
    result = c20.run("quick", 0, data)
    assert {*result.arms} == {*c20.arms} and len(result.checks) == 8
    ours = result.arms[c20.OURS]
    assert ours["mean"] == pytest.approx((ours["reliability"] + ours["generalisation"] + ours["far"]) / 3)
    assert result.settings["weights an edit"] > 0
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    c20.plot(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    with pytest.raises(ClaimError, match="scale"):
        c20.run("gpu", 0, data)


def test_the_scales_keep_to_the_sheet() -> None:
    for scale, tuned in c20.TUNED.items():
        sizes = SIZES[scale]
        assert sizes.wide >= 4096 and tuned.steps >= 200
        assert sizes.width * sizes.wide * tuned.side.share / tuned.side.shard >= 10_000
    assert Trial([Edit("a", "b", "c")], [], [], []).edits and split(lambda text: [*text.encode()], "a", "b") == (
        [97],
        [32, 98],
    )
