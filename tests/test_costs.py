"""What a recipe costs is counted from what it does, and printed for all of them."""

from __future__ import annotations

import json

import pytest

from holdfast.bench.costs import Clock, Timed, costs, runs
from holdfast.cli import main
from holdfast.recipes import book
from holdfast.recipes.book import RECIPES
from support import HashEmbedder


def test_calls_tokens_and_bytes_are_those_of_the_later_runs() -> None:
    cases, voyager, kb = costs([RECIPES[name] for name in ("cases", "voyager", "agent-kb")], HashEmbedder(), 16)
    assert (cases.calls_before, cases.calls_at_step, cases.calls_after, cases.prompt) == (0, 0, 0, 0)
    assert (voyager.calls_before, voyager.calls_after) == (0, 0.75), "a digest of each run that succeeded"
    assert (kb.calls_before, kb.calls_at_step) == (2, 2), "the query is written anew, and somebody tells"
    assert 0 < voyager.prompt < kb.prompt
    assert cases.told > 50, "steps and answer of a run"
    assert cases.kept > 500 and voyager.kept > cases.kept, "its record, and its digest"
    assert all(0 < one.before < 1 and 0 < one.after < 1 for one in (cases, voyager, kb))


def test_the_time_of_the_model_and_the_embedder_is_not_the_frameworks() -> None:
    clock = Clock()
    assert clock(lambda: 3) == 3
    before = clock.seconds
    assert Timed(HashEmbedder(), clock).embed(["a"]).shape[0] == 1
    assert clock.seconds > before > 0


def test_the_same_seed_draws_the_same_runs() -> None:
    assert runs(5, 1) == runs(5, 1) != runs(5, 2)


def test_doctor_prints_what_each_recipe_costs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(book, "RECIPES", {name: RECIPES[name] for name in ("cases", "voyager")})
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["doctor", "--cost", "--embedder", "none"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines() if line][2:4] == ["cases", "voyager"]
    assert main(["doctor", "--cost", "--embedder", "none", "--json"]) == 0
    assert [one["recipe"] for one in json.loads(capsys.readouterr().out)] == ["cases", "voyager"]
