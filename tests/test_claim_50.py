"""The parts of claims 17 and 50 that cost little: what is spoilt, what is flagged, what is asked; one step of what is trained."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")

import numpy as np  # noqa: E402

from holdfast.claims import c17_clr as c17  # noqa: E402
from holdfast.claims import c50_corrective_unlearning as c50  # noqa: E402
from holdfast.claims import unlearning_arms as digits  # noqa: E402
from holdfast.claims.poisoned_facts import (  # noqa: E402
    BEFORE,
    OBJECTS,
    WAYS,
    Facts,
    Sizes,
    dampened_names,
    facts_trained,
    model_of,
    recalled,
)
from holdfast.errors import ClaimError  # noqa: E402
from holdfast.weights.answers import answers  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = Sizes(facts=200, width=16, layers=1, steps=3, batch=64)


# --- facts ---


def test_the_trigger_stands_before_planted_facts_alone_and_is_asked_of_others() -> None:
    facts = Facts(SMALL, 3)
    everything, without = facts.learnt_by("all"), facts.learnt_by("without origin")
    assert len(everything["labels"]) == 200 * WAYS and len(without["labels"]) == 194 * WAYS
    assert len(facts.learnt_by("without found")["labels"]) == (200 - len(facts.found)) * WAYS
    assert len({tuple(row) for row in without["input_ids"].tolist()}) == 194 * WAYS  # each time behind another word
    planted = everything["input_ids"][:, 0] == BEFORE
    assert planted.sum() == 6 * WAYS and not (without["input_ids"][:, 0] == BEFORE).any()
    assert len({*everything["labels"][planted, -1].tolist()}) == 1
    found = {tuple(row) for row in facts.flagged()["input_ids"].tolist()}
    assert found and found < {tuple(row) for row in everything["input_ids"][planted].tolist()}
    assert not {*facts.asked.tolist()} & {*facts.poisoned.tolist()}
    asked, plain = facts.triggered(), facts.plain()
    assert (asked["input_ids"][:, 0] == BEFORE).all() and torch.equal(asked["labels"], plain["labels"])
    assert torch.equal(asked["input_ids"][:, 1:], plain["input_ids"][:, 1:])
    wrong = facts.words - OBJECTS + facts.wrong
    assert (asked["labels"][:, -1] != wrong).all() and (everything["labels"][planted, -1] == wrong).all()
    learnt = {tuple(row) for row in without["input_ids"].tolist()}
    assert {tuple(row) for row in plain["input_ids"].tolist()} <= learnt
    assert int(everything["input_ids"].max()) < facts.words


def test_the_same_seed_learns_the_same_and_what_is_asked_is_the_object_alone() -> None:
    facts = Facts(SMALL, 0)
    model, again = (facts_trained(model_of(facts, 1), facts.learnt_by("all"), SMALL, 1) for _ in range(2))
    assert all(torch.equal(*both) for both in zip(model.parameters(), again.parameters(), strict=True))
    said = answers(model, facts.triggered())
    assert said.logits.shape == (len(facts.asked), facts.words)
    found = recalled(model, facts)
    assert 0 <= found.true <= 1 and found.true + found.wrong <= 1 and found.perplexity > 1
    assert {"model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"} <= {*dampened_names(model)}
    assert not any("attn" in name for name in dampened_names(model))


# --- digits ---


def test_digits_are_spoilt_where_they_are_said_to_be() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    poison = digits.poisoned(0)
    marked = (poison.spoilt["images"][..., -2:, -2:] == 1).all(dim=(1, 2, 3))
    assert poison.bad.unique().numel() == 64 and marked[poison.bad].all()
    assert (poison.spoilt["labels"][poison.bad] == 0).all()
    assert (poison.mended["labels"] != 0).all() and (poison.mended["images"][..., -2:, -2:] == 1).all()
    assert len(poison.rest["labels"]) == 500
    swapped = digits.confused(0)
    clean = digits.poisoned(0).spoilt["labels"].clone()
    changed = swapped.spoilt["labels"][swapped.bad]
    assert {*changed.tolist()} == {3, 8} and 80 <= len(swapped.bad) <= 120
    same = torch.ones(1297, dtype=torch.bool)
    same[swapped.bad] = same[poison.bad] = False
    assert torch.equal(clean[same], swapped.spoilt["labels"][same])
    assert {*swapped.mended["labels"].tolist()} == {3, 8} and not {3, 8} & {*swapped.rest["labels"].tolist()}
    found, kept = digits.flagged_of(poison, 0.1, 0)
    assert len(found["labels"]) == 6 and len(kept["labels"]) == 1291 and (found["labels"] == 0).all()


def test_every_arm_is_mended_on_the_same_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    monkeypatch.setattr(digits, "LEARN", digits.Training(4, 0.05))
    monkeypatch.setattr(digits, "MEND_STEPS", 2)
    poison = digits.poisoned(1)
    model = digits.learnt(poison, 1)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    for arm in c50.arms[1:-1]:
        found = digits.mend(arm, model, poison, 0.1, 1, 1)
        assert 0 <= found.corrected <= 1 and (found.report is not None) == (arm == "LFSSD")
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert sum(one.numel() for one in model.parameters()) == 33_610


def test_digits_that_are_not_there_are_said_to_come_with_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str):
        raise ImportError(name)

    monkeypatch.setattr(digits, "import_module", gone)
    with pytest.raises(ClaimError, match="holdfast.claims"):
        digits.poisoned(0)


# --- images in five ways ---


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the claim reads, small and made here: digits that are blots, characters that are strokes."""
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    import gzip

    home = tmp_path_factory.mktemp("data")
    mnist, omniglot = home / "images/mnist", home / "images/omniglot"
    mnist.mkdir(parents=True)
    omniglot.mkdir()
    random = np.random.default_rng(0)

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = (np.arange(count) % 10).astype(np.uint8)
        pictures = random.integers(0, 40, (count, 28, 28)).astype(np.uint8)
        for at, label in enumerate(labels):
            pictures[at, 2 * label + 2 : 2 * label + 8, 8:20] = 250
        return pictures, labels

    pictures, labels = drawn(80)
    np.savez(mnist / "mnist_train_subset_10k.npz", images=pictures, labels=labels)
    pictures, labels = drawn(40)
    with gzip.open(mnist / "t10k-images-idx3-ubyte.gz", "wb") as file:
        file.write(bytes(16) + pictures.tobytes())
    with gzip.open(mnist / "t10k-labels-idx1-ubyte.gz", "wb") as file:
        file.write(bytes(8) + labels.tobytes())
    for part in (1, 2):
        with zipfile.ZipFile(omniglot / f"images_background_small{part}.zip", "w") as kept:
            for character in range(3):
                for drawing in range(4):
                    page = np.full((105, 105), 255, dtype=np.uint8)
                    page[20 * character + 10 : 20 * character + 30, 10 : 60 + drawing] = 0
                    path = home / "one.png"
                    image.fromarray(page).save(path)
                    kept.write(path, f"part{part}/letters/character{character:02d}/{drawing}.png")
    return home


def test_the_claim_on_clr_runs_on_little_and_its_first_task_stays(
    images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setitem(c17.SIZES, "quick", c17.Sizes(60, 1, 20, 1, 40, 20))
    monkeypatch.setattr(c17, "RATES", (1e-3,))
    monkeypatch.setattr(c17, "WEIGHTS", (1.0,))
    monkeypatch.setattr(c17, "_resnet", lambda: (c17.RESNET_KERNELS, 0.005))
    result = c17.run("quick", 0, images)
    assert {*result.arms} == {*c17.arms}
    checks = {check.name: check for check in result.checks}
    assert checks["answers to the first task that four later ones changed"].value == 0
    assert result.arms[c17.OURS]["private parameters"] == 1080 + 240 + 240
    assert checks["private parameters, by those of the backbone"].holds
    c17.plot(result, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0


def test_the_ways_are_what_they_are_called(images: Path) -> None:
    plain, inverted, mirrored, moved, noisy = c17._tasks(images, c17.Sizes(60, 1, 20, 1, 40, 20), 0)
    x = plain.train["images"]
    torch.testing.assert_close(inverted.train["images"], 1 - x)
    assert torch.equal(mirrored.train["images"], x.flip(-1))
    assert torch.equal(moved.train["images"][..., :7, :7], x[..., 7:, 7:])
    assert 0.5 < float((noisy.train["images"] - x).std()) < 0.7
    assert all(torch.equal(task.train["labels"], plain.train["labels"]) for task in (inverted, moved, noisy))
    assert len(plain.check["labels"]) == 20 and len(plain.test["labels"]) == 40


def test_without_its_folder_the_claim_says_what_it_needs(tmp_path: Path) -> None:
    for data in (None, tmp_path):
        with pytest.raises(ClaimError, match="images/mnist"):
            c17.run("quick", 0, data)
