"""What holds a model while it learns: anchors, distillers, and the helper that puts them together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("safetensors", reason="the extra torch is not installed")

from torch import nn  # noqa: E402

from holdfast.errors import InputError, StaleError  # noqa: E402
from holdfast.weights.anchors import ATTENTION, FisherAnchor, L2Anchor, scoped  # noqa: E402
from holdfast.weights.distillation import FeatureDistiller, PredictionDistiller, sigmoid_loss  # noqa: E402
from holdfast.weights.learning import Plastic, recommend  # noqa: E402
from holdfast.weights.slow_weights import SlowWeights  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


class Net(nn.Module):
    """Two layers, a normalisation and a head."""

    def __init__(self, width: int = 5, classes: int = 4, norm: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(3, width)
        self.norm = nn.BatchNorm1d(width) if norm else nn.Identity()
        self.second = nn.Linear(width, width)
        self.drop = nn.Dropout(0.0)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(torch.tanh(self.second(torch.tanh(self.norm(self.first(x)))))))


def net(seed: int = 0, **settings) -> Net:
    torch.manual_seed(seed)
    return Net(**settings)


def batch(seed: int, rows: int = 8, classes: int = 4) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(rows, 3, generator=g), "labels": torch.randint(classes, (rows,), generator=g)}


def moved(model: nn.Module, by: float = 0.1) -> None:
    with torch.no_grad():
        for one in model.parameters():
            one.add_(by * torch.randn(one.shape, generator=torch.Generator().manual_seed(one.numel())))


# --- what is held ---


def test_patterns_name_parts_of_paths_and_heads_are_left_free() -> None:
    model = nn.TransformerEncoderLayer(8, 2)
    assert set(scoped(model, ATTENTION)) == {"self_attn.in_proj_weight", "self_attn.in_proj_bias"}
    assert set(scoped(net(), without=("head",))) == {"first.weight", "first.bias", "second.weight", "second.bias"}
    assert set(scoped(nn.ModuleDict({"multihead": nn.Linear(2, 2)}), without=("head",))) == {
        "multihead.weight",
        "multihead.bias",
    }
    with pytest.raises(InputError, match="no parameter"):
        scoped(model, ("nothing",))


@given(st.floats(0, 100), st.integers(0, 5))
def test_an_l2_penalty_is_the_weighed_sum_of_squares_with_no_half(weight: float, seed: int) -> None:
    model, anchor = net(seed), L2Anchor(weight)
    anchor.start_task(model)
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    assert anchor.penalty(model, {}, None) == 0
    moved(model)
    held = [name for name in before if not name.startswith("head")]
    now = dict(model.named_parameters())
    by_hand = weight * sum(((now[name] - before[name]) ** 2).sum() for name in held)
    penalty = anchor.penalty(model, {}, None)
    torch.testing.assert_close(penalty, by_hand)
    penalty.backward()
    for name in held:
        torch.testing.assert_close(now[name].grad, 2 * weight * (now[name] - before[name]).detach())
    assert now["head.weight"].grad is None
    assert anchor.size == 4 * sum(before[name].numel() for name in held)


def test_a_model_that_begins_at_random_is_not_held_in_its_first_task() -> None:
    model, anchor = net(), L2Anchor(1.0, pretrained=False)
    anchor.start_task(model)
    moved(model)
    assert anchor.penalty(model, {}, None) == 0
    anchor.end_task(model)
    anchor.start_task(model)
    moved(model)
    assert anchor.penalty(model, {}, None) > 0


def test_what_a_parameter_has_grown_is_free_and_what_shrank_is_refused() -> None:
    model, anchor = net(), L2Anchor(1.0, without=())
    anchor.start_task(model)
    old = model.head
    model.head = nn.Linear(5, 6)
    with torch.no_grad():
        model.head.weight[:4], model.head.bias[:4] = old.weight, old.bias
    assert anchor.penalty(model, {}, None) == 0
    model.head = nn.Linear(5, 2)
    with pytest.raises(InputError, match="only grow"):
        anchor.penalty(model, {}, None)


def test_a_fisher_of_single_rows_is_that_of_the_softmax() -> None:
    """For one linear layer and labels drawn as the data's, E[g g] = (p - y)^2 x^2, which is written out here."""
    layer = nn.Sequential(nn.Linear(3, 4))
    layer.forward = lambda x: nn.Sequential.forward(layer, x)  # type: ignore[method-assign]
    data = batch(1, rows=20)
    anchor = FisherAnchor(1.0, labels="true", online=None, without=())
    anchor.end_task(layer, [{"x": data["x"], "labels": data["labels"]}])
    p = (layer[0](data["x"])).softmax(-1).detach()
    error = p - nn.functional.one_hot(data["labels"], 4)
    by_hand = torch.einsum("bi,bj->ij", error**2, data["x"] ** 2) / 20
    torch.testing.assert_close(anchor._held[0][0]["0.weight"], by_hand)


def test_fishers_of_tasks_are_kept_apart_or_fade_and_nothing_else_is_touched() -> None:
    model = net()
    model.train()
    kept_grad = torch.ones_like(model.first.weight)
    model.first.weight.grad = kept_grad.clone()
    apart, fading = FisherAnchor(2.0, online=None), FisherAnchor(2.0, online=0.5)
    for seed in (1, 2):
        for one in (apart, fading):
            one.end_task(model, [batch(seed)])
        moved(model)
    assert model.training and torch.equal(model.first.weight.grad, kept_grad)
    (first, _), (second, at) = apart._held
    ((faded, anchor),) = fading._held
    for name in first:
        torch.testing.assert_close(faded[name], 0.5 * first[name] + second[name])
        assert torch.equal(anchor[name], at[name])
    now = dict(model.named_parameters())
    by_hand = 2 * sum((f[name] * (now[name] - a[name]) ** 2).sum() for f, a in apart._held for name in f)
    torch.testing.assert_close(apart.penalty(model, {}, None), by_hand)
    with pytest.raises(InputError, match="measured on data"):
        apart.end_task(model, [])


def test_a_fisher_reads_no_more_data_than_it_looks_at() -> None:
    data = iter([batch(1), batch(2), batch(3)])
    FisherAnchor(samples=8).end_task(net(), data)
    assert len([*data]) == 1  # the second told that the first was enough


def test_a_fisher_outlives_the_data_and_is_refused_by_another_model() -> None:
    model, anchor = net(), FisherAnchor(3.0)
    anchor.end_task(model, [batch(1)])
    kept = anchor.pack(model)
    other = FisherAnchor(3.0)
    other.restore(kept, model)
    moved(model)
    assert torch.equal(other.penalty(model, {}, None), anchor.penalty(model, {}, None))
    with pytest.raises(StaleError):
        FisherAnchor(3.0).restore(kept, model)


# --- what is distilled ---


def test_sigmoids_and_distilled_sigmoids_are_one_sum_over_all_classes() -> None:
    """LwF.MC: ones and noughts for new classes, what the teacher said for old ones, summed over classes, the mean over rows."""
    model, data = net(), batch(3)
    distiller = PredictionDistiller(known=(0, 1))
    with torch.no_grad():
        teacher = model(data["x"]).sigmoid()
    distiller.start_task(model)
    moved(model)
    outputs = model(data["x"])
    targets = nn.functional.one_hot(data["labels"], 4).float()
    targets[:, :2] = teacher[:, :2]
    by_hand = nn.functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").sum(1).mean()
    joined = sigmoid_loss(outputs, data["labels"], (2, 3)) + distiller.penalty(model, data, outputs)
    torch.testing.assert_close(joined, by_hand)


def test_the_teacher_knows_what_its_tasks_had_labels_of_and_nothing_at_first() -> None:
    model, data = net(), batch(3)
    distiller = PredictionDistiller(known=())
    distiller.start_task(model)
    assert distiller.penalty(model, data, model(data["x"])) == 0 and distiller.size == 0
    with pytest.raises(InputError, match="labels"):
        distiller.end_task(model)
    distiller.end_task(model, [{**data, "labels": torch.tensor([2, 0, 2, 0, 2, 0, 2, 0])}])
    assert distiller.known == (0, 2)


def test_a_softmax_teacher_is_at_its_least_where_nothing_moved() -> None:
    model, data = net(), batch(4)
    distiller = PredictionDistiller(form="softmax", temperature=2.0)
    distiller.start_task(model)
    still = distiller.penalty(model, data, model(data["x"]))
    gradients = torch.autograd.grad(still, list(model.parameters()))
    assert all(one.abs().max() < 1e-6 for one in gradients)
    moved(model)
    assert distiller.penalty(model, data, model(data["x"])) > still
    before = [one.detach().clone() for one in model.parameters()]
    distiller.penalty(model, data, model(data["x"]))
    assert all(torch.equal(*both) for both in zip(before, model.parameters(), strict=True)), (
        "the teacher stayed in the model"
    )


def test_a_head_that_grew_is_held_where_the_teacher_had_one() -> None:
    model, data = net(classes=2), batch(5, classes=3)
    distiller = PredictionDistiller()
    distiller.start_task(model)
    old = model.head
    model.head = nn.Linear(5, 3)
    with torch.no_grad():
        model.head.weight[:2], model.head.bias[:2] = old.weight, old.bias
    penalty = distiller.penalty(model, data, model(data["x"]))
    penalty.backward()
    assert model.head.weight.grad[2].abs().max() == 0 and model.head.weight.grad[:2].abs().max() < 1e-6


def test_features_are_held_at_a_module_and_its_hook_goes() -> None:
    model, data = net(), batch(6)
    distiller = FeatureDistiller("second", 2.0)
    distiller.start_task(model)
    with torch.no_grad():
        before = model.second(torch.tanh(model.first(data["x"])))
    moved(model)
    outputs = model(data["x"])
    now = model.second(torch.tanh(model.first(data["x"])))
    torch.testing.assert_close(
        distiller.penalty(model, data, model(data["x"])), 2 * ((now - before) ** 2).sum() / 8, rtol=1e-4, atol=1e-6
    )
    with pytest.raises(InputError, match="call it"):
        distiller.penalty(model, data, outputs)
    distiller.end_task(model)
    assert not model.second._forward_hooks
    with pytest.raises(InputError, match="no module"):
        FeatureDistiller("third").start_task(model)


def test_features_and_predictions_are_held_beside_each_other() -> None:
    """The teacher of the one calls the model too: the other must not take its features for the model's."""
    model, data = net(), batch(6)
    predictions, features = PredictionDistiller(), FeatureDistiller("second")
    for one in (predictions, features):
        one.start_task(model)
    moved(model)
    alone = features.penalty(model, data, model(data["x"]))
    outputs = model(data["x"])
    predictions.penalty(model, data, outputs)
    beside = features.penalty(model, data, outputs)
    assert torch.equal(beside, alone) and beside > 0 and beside.requires_grad


# --- put together ---


def adam(parameters) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, 0.01)


def learn(plastic: Plastic, task: str, seed: int, steps: int = 5) -> None:
    data = batch(seed)
    with plastic.learning(task, [data]):
        for _ in range(steps):
            plastic.step(nn.functional.cross_entropy(plastic.model(data["x"]), data["labels"]))


def test_learning_is_the_plain_loop_where_nothing_is_held() -> None:
    plastic, plain, data = Plastic(net(), adam), net(), batch(1)
    learn(plastic, "a", 1)
    optimizer = adam(plain.parameters())
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(data["x"]), data["labels"]).backward()
        optimizer.step()
    assert all(torch.equal(*both) for both in zip(plain.parameters(), plastic.model.parameters(), strict=True))


def test_only_what_was_selected_moves_and_the_last_task_can_be_taken_back_bit_for_bit() -> None:
    model = net()
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    plastic = Plastic(model, adam, select=["second.weight"], hold=[L2Anchor(0.1)])
    learn(plastic, "a", 1)
    after = {name: one.detach().clone() for name, one in model.named_parameters()}
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"second.weight"}
    assert all(one.requires_grad for one in model.parameters())
    learn(plastic, "b", 2)
    assert plastic.revert() == "b" and plastic.tasks == ["a"]
    assert all(torch.equal(after[name], one) for name, one in model.named_parameters())
    with pytest.raises(InputError, match="no task"):
        plastic.revert()


def test_a_task_that_fails_leaves_the_model_as_it_was() -> None:
    model = net(norm=True)
    model.train()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    plastic = Plastic(
        model,
        adam,
        hold=[L2Anchor(), PredictionDistiller(), FeatureDistiller("second")],
        slow=SlowWeights,
        slow_first=True,
    )
    with pytest.raises(ZeroDivisionError), plastic.learning("a"):
        plastic.step(model(batch(1)["x"]).sum())
        assert not torch.equal(model.first.weight, before["first.weight"])
        raise ZeroDivisionError
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())
    assert model.training and model.norm.training and not model._forward_hooks and plastic.tasks == []


def test_a_task_that_could_not_begin_is_not_taken_back_in_the_place_of_another() -> None:
    plastic = Plastic(net(), adam, hold=[FeatureDistiller("second")])
    learn(plastic, "a", 1)
    del plastic.model.second
    with pytest.raises(InputError, match="no module"), plastic.learning("b"):
        pass
    with pytest.raises(InputError, match="no task"):
        plastic.revert()
    assert plastic.tasks == ["a"]


def test_a_first_task_that_failed_is_still_the_first() -> None:
    model, data = net(), batch(1)
    hold = [L2Anchor(pretrained=False), FeatureDistiller("second", pretrained=False)]
    plastic = Plastic(model, adam, hold=hold)
    with pytest.raises(ZeroDivisionError), plastic.learning("a"):
        raise ZeroDivisionError
    with plastic.learning("a"):
        moved(model)
        assert plastic.penalty(data, model(data["x"])) == 0
    with plastic.learning("b"):
        moved(model)
        assert plastic.penalty(data, model(data["x"])) > 0


def test_statistics_of_normalisation_stay_whatever_the_loop_says() -> None:
    model = net(norm=True)
    plastic, data = Plastic(model, adam), batch(1)
    with plastic.learning("a"):
        model.train()
        plastic.step(model(data["x"]).sum())
        assert not model.norm.training
    assert model.norm.running_mean.abs().max() == 0 and model.norm.num_batches_tracked == 0
    model.train()
    model(data["x"])
    assert model.norm.num_batches_tracked == 1


def test_what_is_held_moves_less() -> None:
    def distance(hold) -> float:
        model = net()
        before = [one.detach().clone() for one in model.parameters()]
        learn(Plastic(model, adam, hold=hold), "a", 1, steps=30)
        return sum(float(((a - b.detach()) ** 2).sum()) for a, b in zip(before, model.parameters(), strict=True))

    free = distance([])
    for hold in ([L2Anchor(10.0, without=())], [PredictionDistiller(10.0)], [FeatureDistiller("second", 10.0)]):
        assert distance(hold) < free


def test_the_average_is_kept_but_not_of_the_first_task() -> None:
    def run(slow) -> list[torch.Tensor]:
        plastic = Plastic(net(), adam, slow=slow)
        learn(plastic, "a", 1)
        first = [one.detach().clone() for one in plastic.model.parameters()]
        learn(plastic, "b", 2)
        return [*first, *(one.detach().clone() for one in plastic.model.parameters())]

    plain, slow = run(None), run(lambda parameters: SlowWeights(parameters, beta=0.9))
    half = len(plain) // 2
    assert all(torch.equal(*both) for both in zip(plain[:half], slow[:half], strict=True))
    for start, fast, kept in zip(plain[:half], plain[half:], slow[half:], strict=True):
        assert (kept - start).norm() < (fast - start).norm()


def test_a_trainer_that_stops_on_the_way_leaves_the_model_as_it_was() -> None:
    pytest.importorskip("transformers", reason="the extra torch is not installed")
    from types import SimpleNamespace

    model = net()
    before = [one.detach().clone() for one in model.parameters()]
    plastic = Plastic(model, adam, select=["second.weight"], hold=[L2Anchor(1.0)])
    callback = plastic.callback("a")
    callback.on_train_begin(SimpleNamespace(gradient_accumulation_steps=1), None, None, model=model)
    assert not model.first.weight.requires_grad
    with torch.no_grad():
        model.second.weight.add_(1)
    callback.close()
    assert all(torch.equal(*both) for both in zip(before, model.parameters(), strict=True))
    assert model.first.weight.requires_grad and not model._forward_hooks and plastic.tasks == []
    callback.close()
    with pytest.raises(InputError, match="another model"):
        callback.on_train_begin(SimpleNamespace(gradient_accumulation_steps=1), None, None, model=net())


def test_the_rule_of_what_to_hold() -> None:
    assert [type(one) for one in recommend(True)] == [L2Anchor, PredictionDistiller]
    assert [type(one) for one in recommend(False, known=())] == [PredictionDistiller]


def test_what_is_wrong_is_said() -> None:
    plastic = Plastic(net(), adam, hold=[L2Anchor()])
    with pytest.raises(InputError, match="within learning"):
        plastic.step(torch.zeros(()))
    with pytest.raises(InputError, match="no parameters"):
        Plastic(net(), adam, select=["third"])
    with pytest.raises(InputError, match="nothing may learn"):
        Plastic(net(), adam, select=[])
    with pytest.raises(InputError, match="last call"), plastic.learning("a"):
        plastic.step(torch.zeros((), requires_grad=True))
    learn(plastic, "a", 1)
    with pytest.raises(InputError, match="learnt already"), plastic.learning("a"):
        pass
    for wrong in (lambda: L2Anchor(-1), lambda: FisherAnchor(online=2), lambda: PredictionDistiller(temperature=0)):
        with pytest.raises(InputError):
            wrong()
