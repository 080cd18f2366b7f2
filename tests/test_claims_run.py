"""The cheap claims hold at quick scale, through the same runner that users call."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from holdfast.bench.workload import make_world
from holdfast.claims import c33_memos_mag as c33
from holdfast.claims import c37_memrl as c37
from holdfast.claims import c43_memory_survey as c43
from holdfast.claims import kept as keeping
from holdfast.claims import runner
from holdfast.claims.base import Result, Scale
from holdfast.claims.embedded import Cached
from holdfast.claims.runner import OUTCOMES, list_claims, load_claim, longest_first, merge, run_claim, start_claim
from holdfast.cli import main
from holdfast.encode.base import Vectors
from holdfast.errors import ClaimError, MissingExtraError
from holdfast.taxonomy import Function


@pytest.mark.parametrize("number", [33, 43])
def test_a_claim_holds_and_leaves_its_evidence(number: int, tmp_path: Path) -> None:
    report = run_claim(number, evidence_dir=tmp_path, seeds=[3], today=date(2026, 1, 1))
    failed = [check.name for check in report.result.checks if not check.holds]
    assert report.verdict == "holds", failed
    written = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert written["verdict"] == "holds" and written["seeds"] == [3]
    assert next(tmp_path.glob("*.png")).stat().st_size > 10_000
    row = list_claims(tmp_path)[number - 1]
    assert (row.number, row.verdict, row.scale) == (number, "holds", "quick")


def test_the_list_has_all_papers_in_order(tmp_path: Path) -> None:
    rows = list_claims(tmp_path)
    assert [row.number for row in rows] == list(range(1, 55))
    assert all(row.verdict == "not run" for row in rows)


def test_a_claim_may_say_over_which_seeds_it_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c33, "SEEDS", {"quick": (4, 5)}, raising=False)
    assert run_claim(33, evidence_dir=tmp_path).seeds == (4, 5)
    assert run_claim(33, evidence_dir=tmp_path, seeds=[2]).seeds == (2,)
    assert c37.SEEDS == {"full": (0, 1, 2, 3, 4)}


def test_seeds_are_drawn_by_their_mean_and_what_has_none_as_the_first_has_it() -> None:
    def ran(value: float, **series: object) -> Result:
        curve = {"steps": [1, 2], "recall": {"ours": [value, 2 * value]}, "best": f"arm {value:g}", "right": value > 1}
        return Result({"ours": {"recall": value}}, (), series={**curve, OUTCOMES: {"ours": [value]}, **series})

    merged = merge([ran(1.0, lengths=[1]), ran(3.0, lengths=[3, 4])])
    assert merged.arms == {"ours": {"recall": 2.0}}
    assert merged.series == {
        "steps": [1, 2],
        "recall": {"ours": [2.0, 4.0]},
        "best": "arm 1",
        "right": False,
        OUTCOMES: {"ours": [1.0]},
        "lengths": [1],
    }
    assert merge([ran(1.0)]).series == ran(1.0).series


def test_a_claim_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClaimError):
        run_claim(99, evidence_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_workload_of_claim_43_is_the_same_for_the_same_seed_and_asks_nothing_that_nothing_answers() -> None:
    def told(seed: int) -> tuple[object, ...]:
        world = make_world(5, seed)
        return world.events, tuple((task.function, task.question) for task in world.tasks), world.examples

    assert told(100) == told(100) and told(100) != told(101)
    world = make_world(5, 100)
    assert Counter(task.function for task in world.tasks) == dict.fromkeys(Function, 5)
    assert not any(task.solve([]) for task in world.tasks)
    # Router and tasks never share a wording, so that routing is more than looking up.
    assert not {question for question, _ in world.examples} & {task.question for task in world.tasks}


def test_the_router_of_claim_43_knows_nothing_but_the_profiles() -> None:
    world = make_world(5, 100)
    profiles = {memory.name: memory.profile for memory in (make() for make in c43._CONFIGURATIONS)}
    honest, misled = (c43._Router(known, world.examples) for known in (profiles, c43._dealt(profiles, 0)))
    for task in world.tasks:
        assert task.function in profiles[honest.choose(task.question)].function
        assert task.function not in profiles[misled.choose(task.question)].function


def test_seeds_that_run_at_once_give_what_they_give_in_turn(tmp_path: Path) -> None:
    at_once, in_turn = (run_claim(33, evidence_dir=tmp_path / str(jobs), seeds=[3, 4], jobs=jobs) for jobs in (2, 1))
    deterministic = [check.value for check in in_turn.result.checks if "second" not in check.name]
    assert [check.value for check in at_once.result.checks if "second" not in check.name] == deterministic
    assert at_once.record["machine"]["jobs"] == 2
    with pytest.raises(ClaimError, match="one seed or more"):
        run_claim(33, evidence_dir=tmp_path, jobs=0)


def test_the_embedder_of_claims_embeds_each_text_once_and_takes_none() -> None:
    asked: list[str] = []

    class Lengths:
        model, dimension = "lengths", 2

        def embed(self, texts: Sequence[str]) -> Vectors:
            asked.extend(texts)
            return np.array([[len(text), 1] for text in texts], np.float32)

    cached = Cached(Lengths())
    assert cached.embed([]).shape == (0, 2)
    assert cached.embed(["ab", "a", "ab"]).tolist() == [[2, 1], [1, 1], [2, 1]]
    assert cached.embed(["abc", "a"]).tolist() == [[3, 1], [1, 1]]
    assert asked == ["ab", "a", "abc"]


def test_seeds_that_run_at_once_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    name, cores = "OMP_NUM_THREADS", os.cpu_count() or 1
    for said, jobs, wanted in ((None, 2, max(1, cores // 2)), (None, 2 * cores, 1), ("7", 2, 7)):
        monkeypatch.delenv(name, raising=False)
        if said is not None:
            monkeypatch.setenv(name, said)
        with runner.workers(jobs) as pool:
            assert pool is not None
            assert pool.executor.submit(os.getenv, name).result() == str(wanted)
        assert os.environ.get(name) == said


def test_a_run_that_was_cut_goes_on_at_the_seed_it_stood_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, ran = tmp_path / "kept", load_claim(33).run
    given = {"evidence_dir": tmp_path, "keep": kept}
    run_claim(33, seeds=[3], **given)  # type: ignore[arg-type]
    asked: list[int] = []

    def run(scale: Scale, seed: int, data: Path | None) -> Result:
        asked.append(seed)
        return ran(scale, seed, data)

    monkeypatch.setattr(load_claim(33), "run", run)
    first = run_claim(33, seeds=[3, 4], **given)  # type: ignore[arg-type]
    again = run_claim(33, seeds=[3, 4], **given)  # type: ignore[arg-type]
    assert asked == [4]
    assert again.record == first.record
    # What other code gave is no answer of this one.
    monkeypatch.setattr(keeping, "_code", lambda: "other")
    run_claim(33, seeds=[4], **given)  # type: ignore[arg-type]
    assert asked == [4, 4]
    (kept / "33-quick-4.json").write_text("{}")
    with pytest.raises(ClaimError, match="33-quick-4.json is not a kept seed"):
        run_claim(33, seeds=[4], **given)  # type: ignore[arg-type]


def test_seeds_of_several_claims_run_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["claims", "run", "33", "43", "--seed", "3", "--jobs", "2", "--out", str(tmp_path), "--json"]
    assert main(command) in (0, 1)
    told = json.loads(capsys.readouterr().out)
    assert [(one["number"], one["seeds"], one["machine"]["jobs"]) for one in told] == [(33, [3], 2), (43, [3], 2)]
    assert {path.name[:2] for path in tmp_path.glob("*.json")} == {"33", "43"}


def test_the_longest_claims_are_begun_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def took(number: int, scale: str, *seconds: float, **more: object) -> dict[str, object]:
        runs = [{"seed": seed, "duration_s": one, "arms": {}} for seed, one in enumerate(seconds)]
        record = {"scale": scale, "seeds": list(range(len(runs))), "runs": runs, **more}
        (tmp_path / f"{runner.paper(number).stem}.json").write_text(json.dumps(record))
        return record

    quick = took(43, "quick", 2.0, 5.0)
    took(33, "quick", 3.0, 4.0)
    assert longest_first([33, 43], "quick", tmp_path) == [43, 33]
    # Of other scales nothing is known, and what may be the longest of all is begun before the rest.
    took(33, "full", 900.0, smaller={"quick": quick | {"runs": [{"duration_s": 9.0}]}})
    assert longest_first([43, 33, 37], "quick", tmp_path) == [37, 33, 43]
    assert longest_first([43, 37, 33], "full", tmp_path) == [43, 37, 33]

    begun: list[int] = []

    def start(number: int, **given: object) -> Callable[[], object]:
        begun.append(number)
        raise MissingExtraError("it needs something")

    monkeypatch.setattr(runner, "start_claim", start)
    assert main(["claims", "run", "--all", "--jobs", "2", "--out", str(tmp_path), "--json"]) == 1
    told = [one["number"] for one in json.loads(capsys.readouterr().out)]
    assert told == sorted(told) and begun[-2:] == [33, 43] and sorted(begun) == told


def test_a_claim_that_cannot_be_run_keeps_no_other_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(number: int, **given: object) -> Callable[[], object]:
        if number != 33:
            raise MissingExtraError("it needs something")
        return start_claim(number, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "start_claim", start)
    assert main(["claims", "run", "--all", "--out", str(tmp_path), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert {one["number"] for one in told if one["verdict"] != "not run"} == {33}
    assert all(one["error"] == "it needs something" for one in told if one["number"] != 33)
