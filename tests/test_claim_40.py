"""Claim 40 with a model that has hardly learnt: the laws of its world, its arms' budgets, and how it leaves its evidence."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")

from holdfast.claims import c40_hack as c40  # noqa: E402
from holdfast.claims.hack_arms import (  # noqa: E402
    BEFORE_LAST,
    FULL,
    OURS,
    SETTINGS,
    SWAPPED,
    TYPED,
    UNIFORM,
    Told,
    cache_of,
    divergence,
    drawn,
    frechet,
    maps,
    told,
    variances,
)
from holdfast.claims.hack_digits import CLASSES, FILE, MNIST, STROKES, pictures, strokes  # noqa: E402
from holdfast.claims.hack_model import CODES, SIZES, TOKENS, Appended, Coder, Drawer, coder, drawer, namer  # noqa: E402
from holdfast.claims.runner import run_claim  # noqa: E402
from holdfast.errors import ClaimError  # noqa: E402
from holdfast.latent.head_types import CONTEXTUAL, column_variance  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = replace(
    SIZES["quick"],
    layers=2, width=32, inner=32, channels=4, pictures=200, coding=20, drawing=15, naming=10, tuned=10, held=20, generated=20,
    calibration=10, batch=16,
)  # fmt: skip


def untrained():
    """A model that was not trained, but whose class moves what it tells; and pictures told by random tokens."""
    torch.manual_seed(0)
    code, model = Coder(4).eval(), Drawer(SMALL).eval()
    code.codes.normal_(generator=torch.Generator().manual_seed(1))
    for layer in model.layers:
        torch.nn.init.normal_(layer.given.weight, std=0.3)
        torch.nn.init.normal_(layer.qkv.weight, std=0.4)
    g = torch.Generator().manual_seed(2)
    tokens = [torch.randint(0, CODES, (6, many), generator=g) for many in TOKENS]
    return code, model, Told(code.inputs(tokens), torch.arange(6)), tokens


def test_pictures_are_four_digits_of_a_class_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    train, held, source = pictures(tmp_path, 1, 40, 20)
    again, _, _ = pictures(None, 1, 40, 20)
    assert source == STROKES and torch.equal(train.images, again.images)
    assert not torch.equal(train.images, pictures(None, 2, 40, 20)[0].images)
    assert train.images.shape == (40, 1, 32, 32) and train.images.min() == -1 and 0.9 < train.images.max() <= 1
    assert torch.bincount(train.labels).tolist() == [4] * CLASSES

    def quarters(images):
        return {bytes(part.numpy().tobytes()) for part in images.unfold(2, 16, 16).unfold(3, 16, 16).reshape(-1, 256)}

    assert not quarters(train.images) & quarters(held.images), "no digit that was learnt from is asked for"


def test_a_nearest_mean_tells_drawn_digits_apart() -> None:
    labels = np.arange(600) % CLASSES
    digits = strokes(labels, np.random.default_rng(0)).reshape(600, -1)
    means = np.stack([digits[:400][labels[:400] == digit].mean(0) for digit in range(CLASSES)])
    found = ((digits[400:, None] - means) ** 2).sum(-1).argmin(-1)
    assert np.mean(found == labels[400:]) > 0.8
    assert digits.std(0).max() > 0.2, "no two are the same"


def test_mnist_is_read_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / FILE
    file.parent.mkdir(parents=True)
    random = np.random.default_rng(0)
    images, labels = (
        random.integers(0, 256, (400, 28, 28), dtype=np.uint8),
        random.integers(0, 10, 400).astype(np.uint8),
    )
    np.savez(file, images=images, labels=labels)
    train, _, source = pictures(tmp_path, 0, 20, 20)
    assert source == MNIST
    digit = ((train.images[3, 0, :16, 16:] + 1) / 2).numpy()
    wide = np.pad(images / np.float32(255), ((0, 0), (2, 2), (2, 2))).reshape(400, 16, 2, 16, 2).mean((2, 4))
    match = np.abs(wide - digit).max((1, 2)).argmin()
    assert np.abs(wide[match] - digit).max() < 1e-6 and labels[match] == train.labels[3] == 3


def test_tokens_are_what_is_missing_scale_by_scale() -> None:
    code, _, _, _ = untrained()
    latents = torch.randn(2, 64, 16, generator=torch.Generator().manual_seed(3))
    tokens = code.tokens(latents)
    missing = latents.clone()
    for at, side in enumerate((1, 2, 3, 4, 6, 8)):
        square = missing.transpose(1, 2).unflatten(2, (8, 8))
        asked = torch.nn.functional.interpolate(square, size=(side, side), mode="area").flatten(2).transpose(1, 2)
        expected = ((asked[:, :, None] - code.codes) ** 2).sum(-1).argmin(-1)
        assert torch.equal(tokens[at], expected)
        added = code.codes[expected].transpose(1, 2).unflatten(2, (side, side))
        up = torch.nn.functional.interpolate(added, size=(8, 8), mode="bicubic").flatten(2).transpose(1, 2)
        missing = missing - up
        if at < 5:
            told_next = code.inputs(tokens)[at]
            assert torch.allclose(told_next, code.asked(at + 1, latents - missing), atol=1e-5)


def test_scale_by_scale_it_tells_what_it_tells_at_once() -> None:
    _, model, some, _ = untrained()
    with torch.no_grad():
        whole = model(some.inputs, some.labels).log_softmax(-1)
    values = torch.rand(2, 4)
    for cache in (Appended(), cache_of(FULL, SETTINGS[OURS][0], values, 0)(0)):
        assert torch.allclose(told(model, some, cache), whole, atol=1e-4)
    assert divergence(whole, whole) == 0
    # What comes before matters, or nothing could be lost.
    assert divergence(whole, told(model, some, cache_of(UNIFORM[0], SETTINGS[UNIFORM[0]][1], values, 0)(1))) > 1e-3


@pytest.mark.parametrize("budget", [33, 20, 7])
def test_all_arms_have_the_same_budget(budget: int) -> None:
    _, model, some, _ = untrained()
    values = torch.rand(2, 4, generator=torch.Generator().manual_seed(4))
    settings = {**SETTINGS, **dict.fromkeys(TYPED, SETTINGS[OURS])}
    for arm in (*UNIFORM, *TYPED):
        for setting in settings[arm]:
            cache = cache_of(arm, setting, values, 0)(budget)
            told(model, some, cache)
            kept = sum(
                (cache.entries(layer, group).keys.shape[2] - TOKENS[-1]) * cache.entries(layer, group).keys.shape[1]
                for layer in range(2)
                for group in cache.groups
                if group in cache._layers[layer].groups
            )
            # A typed cache's larger budget is rounded down; what a head cannot fill is no other's.
            assert kept <= 8 * budget < BEFORE_LAST * 8
            if arm in UNIFORM:
                assert kept == 8 * budget


def test_swapped_types_have_the_same_rules_and_the_other_heads() -> None:
    values = torch.rand(2, 4, generator=torch.Generator().manual_seed(5))
    setting = SETTINGS[OURS][0]
    ours, swapped = (cache_of(arm, setting, values, 0)(20) for arm in (OURS, SWAPPED))
    for layer in range(2):
        assert sorted(ours.types.heads(layer, CONTEXTUAL) + swapped.types.heads(layer, CONTEXTUAL)) == [0, 1, 2, 3]
    assert ours.rules == swapped.rules


def test_variances_are_those_of_the_late_maps() -> None:
    _, model, some, _ = untrained()
    found = variances(model, some)
    assert found.shape == (6, 2, 4) and not torch.allclose(found[0], found[1])
    maps_seen = []

    class Seen(Appended):
        def attend(self, layer, queries, scaling=None):
            keys = self._held[layer][0]
            maps_seen.append((layer, queries.shape[2], (queries @ keys.transpose(-1, -2) * scaling).softmax(-1)))
            return super().attend(layer, queries, scaling)

    told(model, some, Seen())
    for layer in range(2):
        late = [column_variance(weights) for of, size, weights in maps_seen if of == layer and size in (36, 64)]
        assert len(late) == 2 and torch.allclose(found[:, layer], sum(late) / 2, atol=1e-6)


def test_pictures_are_drawn_alike_by_alike_caches_and_frechet_is_the_formula() -> None:
    code, model, _, _ = untrained()
    labels = torch.arange(6)
    one, same, other = (drawn(model, code, labels, Appended(), seed) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other) and one.shape == (6, 1, 32, 32)
    g = torch.Generator().manual_seed(6)
    a, b = torch.randn(400, 3, generator=g) * torch.tensor([1.0, 2.0, 3.0]), torch.randn(500, 3, generator=g) + 1
    from scipy.linalg import sqrtm

    first, second = np.cov(a.double().numpy().T), np.cov(b.double().numpy().T)
    gap = (a.double().mean(0) - b.double().mean(0)).square().sum().item()
    expected = gap + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-5) and abs(frechet(a, a)) < 1e-6


def test_synthetic_maps_are_shares() -> None:
    for some in maps(0, 5):
        assert some.shape == (5, 64, 130) and torch.allclose(some.sum(-1), torch.ones(5, 64), atol=1e-5)


def test_training_learns() -> None:
    sizes = replace(SMALL, coding=60, drawing=40, naming=120)
    train, held, _ = pictures(None, 0, 300, 40)
    code = coder(train, sizes, 0)
    with torch.no_grad():
        known, asked = (code.tokens(code.latents(one.images)) for one in (train, held))
        shown = code.pictures(sum(code.added(at, one) for at, one in enumerate(asked)))
    assert (shown - held.images).square().mean() < 0.7 * held.images.var()
    model = drawer(known, train.labels, code, sizes, 0)
    told_held = told(model, Told(code.inputs(asked), held.labels), Appended())
    missed = -told_held.gather(-1, torch.cat(asked, dim=1)[..., None]).mean()
    assert missed < 0.95 * np.log(CODES)
    judge = namer(train, sizes, 0)
    assert (judge(held.images).argmax(-1) == held.labels).float().mean() > 0.6


def test_the_claim_runs_and_leaves_its_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "quick", SMALL)
    report = run_claim(40, evidence_dir=tmp_path, seeds=[3], today=date(2026, 1, 1))
    written = json.loads((tmp_path / "40-hack.json").read_text())
    assert written["verdict"] == report.verdict and (tmp_path / "40-hack.png").stat().st_size > 10_000
    assert set(c40.arms) <= set(written["arms"]) and written["settings"]["pictures of"] == STROKES
    exact = written["arms"]["exact"]
    assert exact["synthetic maps told apart"] == 1 and exact["where nothing leaves, off the plain cache by"] <= 1e-5
    for arm in (*UNIFORM, *TYPED):
        assert written["arms"][arm]["KL, 90%"] > 0
    with pytest.raises(ClaimError, match="quick or full"):
        c40.run("gpu", 0, None)
