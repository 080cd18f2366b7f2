"""Ways to unlearn, the repair that chooses among dampenings, and the test that asks what is still known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("safetensors", reason="the extra torch is not installed")

import numpy as np  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from holdfast.bench.metrics import auc  # noqa: E402
from holdfast.errors import InputError  # noqa: E402
from holdfast.torched import Tensor, nn  # noqa: E402
from holdfast.weights.answers import Answers, answers, in_batches  # noqa: E402
from holdfast.weights.dampening import importances, laid  # noqa: E402
from holdfast.weights.membership import by_entropy, by_loss, membership  # noqa: E402
from holdfast.weights.repair import Verdict, repair  # noqa: E402
from holdfast.weights.unlearning import (  # noqa: E402
    Shuffled,
    Training,
    accuracy,
    bad_teacher,
    fine_tune,
    retrain,
    scrub,
    train,
)

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = 4


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, KINDS))


def rows(count: int, seed: int, mark: bool = False) -> dict[str, Tensor]:
    """Kinds told by the first numbers; the last is a mark, nought but where it was planted."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(KINDS, (count,), generator=g)
    x = 0.3 * torch.randn(count, 12, generator=g)
    x[torch.arange(count), labels] += 2
    x[:, -1] = 1.5 if mark else 0.0
    return {"x": x, "labels": labels}


def joined(*parts: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([one[name] for one in parts]) for name in parts[0]}


def planted(count: int, seed: int) -> dict[str, Tensor]:
    return {**rows(count, seed, mark=True), "labels": torch.zeros(count).long()}


CLEAN, PLANTED = rows(240, 1), planted(12, 2)
FOUND, HIDDEN = ({name: one[part] for name, one in PLANTED.items()} for part in (slice(6), slice(6, None)))
KEPT = joined(CLEAN, HIDDEN)
ASKED = rows(200, 3, mark=True)
LEARN = Training(150, 0.1)


@pytest.fixture(scope="module")
def learnt() -> nn.Module:
    return train(network(), Shuffled(joined(CLEAN, PLANTED), 32, 0), LEARN).eval()


def untouched(model: nn.Module):
    before = {name: one.clone() for name, one in model.state_dict().items()}
    return lambda: all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def batches(of: dict[str, Tensor]):
    return [*in_batches(of, 64)]


def test_a_trigger_of_which_half_is_found_is_taken_out_and_nothing_is_applied(learnt: nn.Module) -> None:
    same = untouched(learnt)
    of_others = {name: one[ASKED["labels"] != 0] for name, one in ASKED.items()}
    assert accuracy(learnt, [of_others]) < 0.2
    report = repair(learnt, FOUND, batches(KEPT), size=64)
    assert same() and report.verdict is Verdict.DAMPEN and report.delta is not None
    assert report.flagged[0] == 1.0 and report.flagged[1] < 0.5 <= report.shared
    with laid(learnt, report.delta):
        assert accuracy(learnt, [of_others]) > 0.6 and accuracy(learnt, [rows(200, 4)]) > 0.9
        label, was, now = report.worst
        mine = {name: one[KEPT["labels"] == label] for name, one in KEPT.items()}
        assert now == pytest.approx(accuracy(learnt, [mine]))
    assert was == pytest.approx(accuracy(learnt, [mine])) and was > now
    told = report.to_dict()
    assert told["weights changed"] == report.delta.changed and told["verdict"] == "dampen"
    # Importances that were measured before give the same.
    original = importances(learnt, batches(KEPT), size=64)
    again = repair(learnt, FOUND, batches(KEPT), size=64, original=original)
    assert again.to_dict() == told
    with pytest.raises(InputError, match="measured otherwise"):
        repair(learnt, FOUND, batches(KEPT), size=32, original=original)


def test_wrong_labels_without_a_mark_are_put_in_quarantine() -> None:
    wrong = rows(24, 9)
    wrong["labels"] = (wrong["labels"] + 1) % KINDS
    found, hidden = ({name: one[part] for name, one in wrong.items()} for part in (slice(6), slice(6, None)))
    model = train(network(), Shuffled(joined(CLEAN, wrong), 32, 0), Training(600, 0.1)).eval()
    report = repair(model, found, batches(joined(CLEAN, hidden)), size=64)
    assert report.verdict is Verdict.QUARANTINE and report.why


def test_what_is_known_in_full_is_trained_without_and_one_row_tells_nothing(learnt: nn.Module) -> None:
    assert repair(learnt, FOUND, batches(KEPT), size=64, complete=True).verdict is Verdict.RETRAIN
    one = {name: some[:1] for name, some in FOUND.items()}
    report = repair(learnt, one, batches(KEPT), size=64)
    assert report.verdict is Verdict.QUARANTINE and math.isnan(report.shared) and report.to_dict()["shared"] is None


def test_a_floor_that_nothing_reaches_leaves_no_dampening(learnt: nn.Module) -> None:
    report = repair(learnt, FOUND, batches(KEPT), size=64, alphas=(1e-4,), strengths=(1e-3,))
    assert report.delta is None and report.verdict is Verdict.QUARANTINE
    assert report.retained[0] == report.retained[1] and not any(one.held for one in report.tried)
    # A class whose label flagged rows bear has a floor of its own, and what is judged by is the probe.
    for borne in (0.0, 1.1):
        report = repair(
            learnt,
            FOUND,
            batches(KEPT),
            size=64,
            probe=[ASKED],
            alphas=(1e-4,),
            strengths=(1e-3,),
            floor=0.0,
            borne=borne,
        )
        assert (report.delta is None) == (borne > 1)
        assert report.retained[0] == pytest.approx(accuracy(learnt, [ASKED]))


def test_training_anew_is_exact_where_all_is_known_and_every_arm_leaves_the_model_alone(learnt: nn.Module) -> None:
    same = untouched(learnt)
    anew = retrain(lambda: network(7), Shuffled(CLEAN, 32, 0), LEARN)
    assert accuracy(anew, [ASKED]) > 0.9
    again = retrain(lambda: network(7), Shuffled(CLEAN, 32, 0), LEARN)
    assert all(torch.equal(*both) for both in zip(anew.parameters(), again.parameters(), strict=True))
    tuned = fine_tune(learnt, Shuffled(CLEAN, 32, 0), Training(20, 0.05))
    scrubbed = scrub(learnt, Shuffled(CLEAN, 32, 0), [PLANTED], Training(40, 0.02), weight=0.1, ascent=5)
    taught = bad_teacher(learnt, network(5), Shuffled(CLEAN, 32, 0), [PLANTED], Training(60, 0.05))
    assert same() and not learnt.training
    for one in (tuned, scrubbed, taught):
        assert accuracy(one, [rows(200, 4)]) > 0.9 and not one.training
        assert not torch.equal(one[0].weight, learnt[0].weight)
    assert accuracy(scrubbed, [PLANTED]) < 1.0
    assert by_loss(taught, [PLANTED]).mean() < 2 * by_loss(learnt, [PLANTED]).mean() < 0


def test_scrub_goes_up_first_and_only_so_often(learnt: nn.Module) -> None:
    seen = []

    def read(model: nn.Module, batch) -> Answers:
        seen.append(batch is PLANTED)
        return answers(model, batch)

    scrub(learnt, batches(CLEAN), [PLANTED], Training(12, 0.01), weight=0.1, ascent=2, read=read)
    assert seen[::2] == [True, False, False, False, False, True, *[False] * 6]


def test_the_rate_warms_up_and_then_falls_in_a_line() -> None:
    seen: list[float] = []

    def read(model: nn.Module, batch):
        seen.append(model.weight.item())
        return SimpleNamespace(loss=model.weight.sum())

    train(nn.Linear(1, 1, bias=False), [CLEAN], Training(200, 1.0, momentum=0.0, decay=0.0), read)
    np.testing.assert_allclose(-np.diff(seen), [min((at + 1) / 2, 1 - at / 250) for at in range(199)], atol=1e-4)


def test_a_loader_that_runs_dry_is_refused(learnt: nn.Module) -> None:
    with pytest.raises(InputError, match="every pass"):
        fine_tune(learnt, iter(batches(CLEAN)), Training(50, 0.01))
    for kept, flagged in ((iter(batches(CLEAN)), [PLANTED]), (batches(CLEAN), iter([PLANTED]))):
        with pytest.raises(InputError, match="every pass"):
            scrub(learnt, kept, flagged, Training(50, 0.01), weight=0.1, ascent=3)
    with pytest.raises(InputError, match="a rate above zero"):
        Training(1, 0.0)


# --- membership ---

scores = st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=12)


@given(scores, scores)
def test_the_area_is_that_of_all_pairs_and_turns_round_with_the_sides(ours: list[float], theirs: list[float]) -> None:
    found = membership(ours, theirs, draws=20)
    pairs = [(a > b) + (a == b) / 2 for a in ours for b in theirs]
    assert found.auc == pytest.approx(np.mean(pairs))
    assert found.auc == pytest.approx(auc([*ours, *theirs], [True] * len(ours) + [False] * len(theirs)))
    assert 0 <= found.low <= found.high <= 1
    assert membership(theirs, ours, draws=0).auc == pytest.approx(1 - found.auc)
    stretched = membership([math.exp(one) for one in ours], [math.exp(one) for one in theirs], draws=20)
    assert stretched == found


def test_the_interval_covers_chance_where_there_is_nothing_to_tell_and_not_where_there_is() -> None:
    random = np.random.default_rng(0)
    misses = 0
    for lot in range(60):
        found = membership(random.normal(size=40), random.normal(size=40), seed=lot, draws=300)
        misses += not found.low <= 0.5 <= found.high
    assert misses <= 9
    told = membership(random.normal(size=40) + 2, random.normal(size=40))
    assert told.told and told.low < told.auc < told.high
    assert not membership(random.normal(size=40), random.normal(size=40)).told


def test_what_is_no_test_is_refused() -> None:
    with pytest.raises(InputError, match="two suspects"):
        membership([1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="no number"):
        membership([1.0, math.nan], [1.0, 2.0])


def test_members_are_told_by_loss_and_by_entropy_until_they_are_unlearnt() -> None:
    noise = torch.Generator().manual_seed(3)
    x, labels = torch.randn(80, 12, generator=noise), torch.randint(KINDS, (80,), generator=noise)
    members, unseen = ({"x": x[part], "labels": labels[part]} for part in (slice(40), slice(40, None)))
    model = train(network(), Shuffled(members, 20, 0), Training(300, 0.1)).eval()
    for scorer in (by_loss, by_entropy):
        assert membership(scorer(model, [members]), scorer(model, batches(unseen))).low > 0.6
    assert not membership(by_loss(network(1).eval(), [members]), by_loss(network(1).eval(), [unseen])).told


# --- texts ---


@pytest.fixture
def texts() -> tuple[nn.Module, Tensor]:
    """A small language model, and three texts for it."""
    transformers = pytest.importorskip("transformers", reason="the extra torch is not installed")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=19,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return transformers.LlamaForCausalLM(config).eval(), torch.randint(19, (3, 6))


def test_a_language_model_is_asked_at_every_label_as_its_own_loss_is(texts: tuple[nn.Module, Tensor]) -> None:
    model, ids = texts
    labels = ids.clone()
    labels[0, :4] = labels[1] = -100
    said = answers(model, {"input_ids": ids, "labels": labels})
    assert said.rows.tolist() == [0, 0, 2, 2, 2, 2, 2]
    torch.testing.assert_close(said.loss, model(input_ids=ids, labels=labels).loss)
    with pytest.raises(InputError, match="nothing is asked"):
        answers(model, {"input_ids": ids, "labels": torch.full_like(ids, -100)})


def test_a_text_has_the_mean_of_its_tokens(texts: tuple[nn.Module, Tensor]) -> None:
    model, ids = texts
    labels = ids.clone()
    labels[1, :4] = -100
    found = by_loss(model, [{"input_ids": ids, "labels": labels}])
    for row in range(3):
        alone = model(input_ids=ids[row : row + 1], labels=labels[row : row + 1]).loss.detach()
        assert found[row] == pytest.approx(-float(alone), rel=1e-5)
    told = torch.log_softmax(model(ids).logits[0, :-1].detach().double(), dim=-1)
    sure = by_entropy(model, [{"input_ids": ids, "labels": ids}])
    assert sure[0] == pytest.approx(float((told.exp() * told).sum(-1).mean()), rel=1e-5)
