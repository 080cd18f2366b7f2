"""The demo of taking back, in miniature: what a source taught is gone from all three forms, and the command says when it is misused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")
pytest.importorskip("tokenizers", reason="the extra embed is not installed")

from holdfast.bench import takeback  # noqa: E402
from holdfast.cli import main  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def test_what_a_source_taught_goes_from_text_caches_and_weights(tmp_path: Path) -> None:
    steps: list[str] = []
    found = takeback.take_back(
        tmp_path / "store", people=12, steps=150, hidden=512, progress=lambda what, *_: steps.append(what)
    )
    assert len(set(steps)) == 2
    assert found.taught[takeback.FALSE] > 0 and sum(found.taught.values()) + len(found.refused) == 12
    asked = found.measured
    assert asked["direct before"] == 1.0 and asked["chance before"] > asked["chance after"]
    assert asked["more than never"] <= takeback.NOISE
    assert asked["others after"] >= takeback.KEPT * asked["others before"] > 0 and found.holds
    for less in ({"others after": 0.9 * asked["others before"]}, {"more than never": 0.2}):
        assert not replace(found, measured={**asked, **less}).holds
    assert found.states == (12, 6) and found.identical
    for one in found.told:
        assert one.form == "weights" and one.before == one.value
        assert (one.form_after == "weights") == (one.source == takeback.TRUE)
    takeback.plot(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_a_plot_needs_a_name_that_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "takeback", "--plot", "plot.txt"]) == 2
    assert ".png" in capsys.readouterr().err
    assert main(["demo", "--plot", "plot.png"]) == 2
    assert "takeback" in capsys.readouterr().err
