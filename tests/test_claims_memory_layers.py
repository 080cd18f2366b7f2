"""The parts of the claims of memory layers: what is drawn, that every arm is run and scored, and that removal is compared with care."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")

from holdfast.bench.memory_probes import Task  # noqa: E402
from holdfast.claims import c09_bmojo as c09  # noqa: E402
from holdfast.claims import c19_mom as c19  # noqa: E402
from holdfast.claims import c35_titans as c35  # noqa: E402
from holdfast.claims import c47_msa as c47  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def test_claim_9_runs_every_arm_at_every_rate_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = c09.Size(
        Task(32, (2, 4), 64, random_filler=False), replace(c09.SIZES["quick"].recipe, steps=2), 4, 4, 8, 2, (1e-3, 5e-3)
    )
    monkeypatch.setattr(c09, "SIZES", {"full": tiny})
    result = c09.run("full", 0, None)
    assert set(result.arms) == {
        *c09.arms,
        *(f"{arm}, {one}" for arm in ("eidetic", "random store") for one in ("random filler", "asked evenly")),
    }
    assert all(one["learning rate"] in tiny.rates for arm, one in result.arms.items() if arm in c09.arms)
    assert result.arms["eidetic"]["bytes of state"] > result.arms["small store"]["bytes of state"]
    assert result.arms["eidetic"]["parameters"] == result.arms["random store"]["parameters"]
    assert [check.required for check in result.checks] == [0.10, 0.10, 0.10, 0.0001, 0.10]
    c09.plot(result, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_claim_19_runs_every_arm_at_every_rate_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = (Task(32, (2, 4), 64), replace(c19.SIZES["quick"][1], steps=2), 8)
    monkeypatch.setattr(c19, "SIZES", {"quick": tiny})
    monkeypatch.setattr(c19, "RATES", {"quick": (1e-3, 5e-3)})
    result = c19.run("quick", 0, None)
    assert all(one["learning rate"] in (1e-3, 5e-3) for one in result.arms.values())
    assert tuple(result.arms) == c19.arms and [check.required for check in result.checks] == [0.10, 0.0, 0.8]
    assert result.arms[c19.WIDE]["bytes of state"] > result.arms[c19.ONE]["bytes of state"]
    c19.plot(result, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_claim_35_runs_every_arm_at_every_rate_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, recipe, *sizes = c35.SIZES["quick"]
    monkeypatch.setattr(c35, "SIZES", {"quick": (Task(32, (2, 4, 8), 64), replace(recipe, steps=2), *sizes)})
    monkeypatch.setattr(c35, "RATES", {"quick": (1e-3, 5e-3)})
    monkeypatch.setattr(c35, "STREAMS", {"quick": (1, 2)})
    monkeypatch.setattr(c35, "THETAS", (0.1,))
    result = c35.run("quick", 0, None)
    assert all(result.arms[arm]["learning rate"] in (1e-3, 5e-3) for arm in c35.arms)
    assert {*c35.arms} < {*result.arms} and [check.required for check in result.checks] == [0.4, 0.2, 0.7, 0.7, 0.999]
    assert all(values["error"] > 0 for arm, values in result.arms.items() if arm.startswith("stream"))
    c35.plot(result, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


@torch.no_grad()
def test_the_hybrid_arm_reads_a_stream_in_pieces() -> None:
    layer, x = c09._layers(c09.SIZES["quick"])[c09.HYBRID](12), torch.randn(2, 21, 12)
    expected, after = layer(x)
    state, parts = None, []
    for piece in x.split([4, 1, 16], dim=1):
        part, state = layer(piece, state)
        parts.append(part)
    assert torch.allclose(torch.cat(parts, 1), expected, atol=1e-5)
    assert all(torch.allclose(state[name], after[name], atol=1e-5) for name in after)


def test_claim_47_asks_for_what_one_document_tells_and_no_other() -> None:
    size = c47.SIZES["quick"]
    for documents in (size.trained, size.documents[-1]):
        drawn = c47.drawn(5, documents, size, np.random.default_rng(1))
        assert drawn.documents.shape == (5, documents, 2 * c47.PAIRS)
        for row in range(5):
            keys = drawn.documents[row, :, 0::2].flatten().tolist()
            values = drawn.documents[row, :, 1::2].flatten().tolist()
            assert len(set(keys)) == len(keys) and max(keys) < size.keys <= min(values)
            told = dict(zip(keys, values, strict=True))
            assert told[drawn.asked[row].item()] == drawn.answers[row].item()
            assert drawn.asked[row] in drawn.documents[row, drawn.right[row], 0::2]
    for scale in c47.SIZES.values():
        assert scale.documents[-1] * c47.PAIRS <= scale.keys


def test_claim_47_runs_every_arm_and_a_trace_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = c47.Size(256, 32, (8, 64), 4, 2, 4, (1e-3, 2e-3), 16)
    monkeypatch.setattr(c47, "SIZES", {"quick": tiny})
    result = c47.run("quick", 0, None)
    assert set(result.arms) == set(c47.arms) and len(result.checks) == 7
    assert result.arms[c47.OURS]["banks that differ"] == 0.0
    assert "found, 64" in result.arms[c47.UNTAUGHT] and "found, 64" not in result.arms[c47.DENSE]
    c47.plot(result, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    trained = c47._tuned(c47.OURS, tiny, 0)
    monkeypatch.setattr(c47.DocumentBank, "remove", lambda self, name: None)
    assert c47._removed(trained, tiny, 0)["banks that differ"] == 1.0
