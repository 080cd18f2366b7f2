"""The cheap claims hold at quick scale, through the same runner that users call."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from holdfast.claims.runner import list_claims, run_claim
from holdfast.errors import ClaimError


@pytest.mark.parametrize("number", [14, 33])
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


def test_a_claim_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClaimError):
        run_claim(99, evidence_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
