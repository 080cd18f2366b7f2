"""The parts of claims 10, 31 and 53, in miniature: the machinery, not the verdicts. No data of a user are needed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("safetensors", reason="the extra torch is not installed")

from holdfast.claims import c10_lcia as c10  # noqa: E402
from holdfast.claims import c31_rehearsal_free as c31  # noqa: E402
from holdfast.claims import c53_kappatune as c53  # noqa: E402
from holdfast.claims.image_streams import Digits, Pictures, disguised  # noqa: E402
from holdfast.errors import ClaimError  # noqa: E402
from holdfast.weights.adapter_book import tfidf  # noqa: E402
from holdfast.weights.plasticity import rank  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(rows: int, seed: int) -> Pictures:
    """Each class a bright bar of its own, and noise."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % 10
    x = 0.1 * torch.rand(rows, 1, 14, 14, generator=g)
    x[torch.arange(rows), 0, labels + 2] += 0.8
    return Pictures(x, labels)


def test_without_data_a_claim_says_what_is_missing() -> None:
    for claim, missing in ((c10, "MNIST"), (c31, "MNIST"), (c53, "tinyshakespeare")):
        with pytest.raises(ClaimError, match=missing):
            claim.run("quick", 0, None)


def test_an_arm_learns_its_tasks_from_a_start_that_stays_and_is_scored_as_said() -> None:
    start = c31._fresh(0)
    before = [one.clone() for one in start.state_dict().values()]
    train, test, tasks = drawn(1000, 0), drawn(100, 1), c31.TASKS[:2]
    plain, local = c31.learnt(c31.ARMS["random: nothing"], 0, start, train, test, 0, tasks)
    told, _ = c31.learnt(c31.ARMS["random: predictions"], 0, start, train, test, 0, tasks)
    assert all(torch.equal(*both) for both in zip(before, start.state_dict().values(), strict=True))
    assert plain.scores.shape == (3, 2) and plain.learnt > 0.9 and -1 <= local <= 1
    assert told.average > plain.average  # what was learnt first is kept
    assert plain.cost.stored == 0 < told.cost.stored


@pytest.mark.parametrize("arm", c31.arms)
def test_every_arm_runs(arm: str) -> None:
    weight = c31.GRID.get(c31.ARMS[arm].held, (0.0,))[0]
    found, _ = c31.learnt(c31.ARMS[arm], weight, c31._fresh(0), drawn(40, 0), drawn(40, 1), 0, c31.TASKS[:2])
    assert found.tasks == 2


def test_verdicts_follow_from_the_numbers() -> None:
    good = {arm: {"average": 0.4, "global forgetting": 0.1} for arm in c31.arms}
    for arm, one in good.items():
        if not c31.ARMS[arm].predictions:
            one["average"] = 0.2
    good["random: predictions"] = {"average": 0.41, "global forgetting": 0.2}
    good["pre-trained: predictions"] = {"average": 0.36, "global forgetting": 0.2}
    assert all(one.holds for one in c31.judged(good))
    bad = {arm: {"average": 0.3, "global forgetting": 0.1} for arm in c31.arms}
    bad["pre-trained: predictions + EWC"]["average"] = 0.29
    held = [one.holds for one in c31.judged(bad)]
    assert held.count(False) == 4


def test_guises_change_places_and_lose_no_ink() -> None:
    some = drawn(20, 0)
    for name in ("mirrored", "permuted"):
        other = disguised(some, name, 0)
        assert not torch.equal(other.x, some.x)
        assert torch.equal(other.x.flatten(1).sort().values, some.x.flatten(1).sort().values)
    assert torch.allclose(disguised(some, "turned 0", 0).x, some.x, atol=1e-5)
    assert torch.allclose(disguised(some, "inverted", 0).x, 1 - some.x)
    large = Pictures(torch.arange(784.0).view(1, 1, 28, 28), torch.zeros(1))
    other = disguised(large, "permuted", 0)
    assert not torch.equal(other.x, large.x)
    for row in range(0, 28, 7):  # each square keeps its own points, in one order for all
        for column in range(0, 28, 7):
            own, was = (one.x[0, 0, row : row + 7, column : column + 7] for one in (other, large))
            assert torch.equal(own - was[0, 0], other.x[0, 0, :7, :7])
    with pytest.raises(ClaimError):
        disguised(some, "upside down", 0)


def test_only_the_adapter_learns_and_a_slow_one_moves_less() -> None:
    found = Digits(drawn(200, 0), drawn(50, 1), drawn(100, 2))
    start = c10._start(found.train, 0, c10.SIZES["quick"])
    streams = c10.Streams(found, start, 0, 1)
    plain, in_range, beta = streams.learnt(c10.Setting(), "dissimilar")
    slow, _, kept = streams.learnt(c10.Setting("constant", 0.999), "dissimilar")
    assert (in_range, beta) == (1.0, 0.0) and kept == pytest.approx(0.999)
    assert slow.forgetting < plain.forgetting and slow.learnt < plain.learnt
    assert {name.split(".")[-1] for name, one in start.named_parameters() if one.requires_grad} == {"up", "down"}


def test_instructions_find_their_adapter() -> None:
    found = c10._templates({"TF-IDF": tfidf})
    assert found["TF-IDF: as told in training"] == 1.0 and found["TF-IDF: told anew"] > 0.6


TINY = c53.Sizes(16, 2, 3, 3, 1, 3, (1e-2,), most=60, gain=0.02, every=10, length=16)


def texts(folder: Path) -> c53.Texts:
    (folder / "corpora").mkdir()
    (folder / "intents").mkdir()
    (folder / c53.OLD).write_text("To be, or not to be, that is the question.\n" * 200)
    (folder / c53.NEW).write_text("text,category\n" + "Where is my card?,card\n" * 300)
    return c53.Texts(folder, TINY.length, 0)


def test_arms_keep_to_the_budget_and_stop_at_the_same_loss(tmp_path: Path) -> None:
    some = texts(tmp_path)
    start = some.trained(TINY, 0)
    names = [
        name
        for name, one in start.named_parameters()
        if name.startswith("blocks") and one.dim() == 2 and "router" not in name
    ]
    arms = c53.chosen(rank(start, "kappa", names=names), names, 2, 0)
    assert set(arms) == set(c53.arms) and len(arms[c53.RANDOM]) == 2
    before = [one.clone() for one in start.parameters()]
    whole, thin, ours = (
        some.learnt(start, arms[arm][0], 1e-2, TINY.gain, TINY) for arm in (c53.EVERYTHING, c53.LOW_RANK, c53.OURS)
    )
    assert all(torch.equal(*both) for both in zip(before, start.parameters(), strict=True))
    assert whole.steps > 0 and whole.forgotten == whole.forgotten
    assert ours.weights <= 0.35 * whole.weights and thin.weights <= 0.4 * whole.weights
    never = some.learnt(start, arms[c53.OURS][0], 1e-9, 0.5, TINY)
    assert never.forgotten != never.forgotten
    assert (
        c53._best([never], (1.0,))["forgotten"] != c53._best([whole, never], (1.0, 2.0))["forgotten"] == whole.forgotten
    )


def test_ranks_that_rise_together() -> None:
    assert c53.spearman([1, 2, 30], [5, 6, 7]) == pytest.approx(1)
    assert c53.spearman([1, 2, 3], [9, 2, 1]) == pytest.approx(-1)
    assert c53.spearman([1], [1]) != c53.spearman([1], [1])


def test_a_model_reads_no_byte_that_is_to_come() -> None:
    torch.manual_seed(0)
    model = c53.Decoder(dataclasses.replace(TINY, length=8)).eval()
    ids = torch.randint(256, (2, 8))
    other = ids.clone()
    other[:, 5:] = 1
    torch.testing.assert_close(model(ids)[:, :5], model(other)[:, :5])
