"""Claim 14 in miniature: every part runs on the product itself; what is timed is timed, and decides nothing here."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")

from holdfast.claims import c14_memos as claim
from holdfast.claims import kv_memories
from holdfast.claims.kv_memories import EXACT, MOVED, PILED, READ, UNREAD, Training, moving, scheduled

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_claim_runs_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "CORNERS", ((300, 60), (500, 60), (500, 90)))
    monkeypatch.setattr(claim, "QUESTIONS", (60, 90))
    monkeypatch.setattr(claim, "_LONG_AND_SHORT", (500, 60))
    monkeypatch.setattr(claim, "_REAL", {"quick": 60})
    result = claim.run("quick", 3, None)
    timed = [check for check in result.checks if "saved" in check.name or "savings" in check.name]
    # A tenth of 60 requests is too few for the schedule to have learnt what is worth keeping.
    failed = [
        check.name for check in result.checks if not check.holds and check not in timed and READ not in check.name
    ]
    assert failed == [] and len(timed) == 2
    claim.plot(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_real_states_under_the_schedule_are_never_stale() -> None:
    found = scheduled(1, memories=30, requests=150)
    assert found["stale reads"] == 0 and found[READ] < 0.9 and found["states compared with reading afresh"] >= 1


def test_a_model_tells_what_moved_memories_hold_and_not_what_lies_one_upon_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, count in (("THINGS", 3), ("VALUES", 3), ("EACH", 2)):  # a world that is learnt in seconds
        monkeypatch.setattr(kv_memories, name, count)
    found = moving(1, Training(steps=90, batch=16), questions=60)
    told = {arm: values["facts told"] for arm, values in found.items()}
    assert list(told) == [EXACT, MOVED, PILED, UNREAD]
    assert min(told[EXACT], told[MOVED]) > 0.7
    assert max(told[PILED], told[UNREAD]) < told[MOVED] - 0.2
