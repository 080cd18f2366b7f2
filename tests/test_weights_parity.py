"""Beside libraries that do a part of the same, where they are installed, and in the words of one that is no library."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("safetensors", reason="the extra torch is not installed")

from torch import nn  # noqa: E402

from holdfast.weights.anchors import FisherAnchor, L2Anchor  # noqa: E402
from holdfast.weights.distillation import PredictionDistiller, sigmoid_loss  # noqa: E402
from holdfast.weights.learning import Plastic  # noqa: E402
from holdfast.weights.plasticity import rank, select, to_peft_targets  # noqa: E402
from holdfast.weights.slow_weights import SlowWeights  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize("mode", ["separate", "online"])
def test_elastic_weight_consolidation_is_that_of_avalanche(mode: str) -> None:
    """Three tasks: penalties and their gradients, by labels of the data and the gradients of whole batches."""
    ewc = pytest.importorskip("avalanche.training.plugins.ewc")
    from types import SimpleNamespace

    from torch.utils.data import TensorDataset

    torch.manual_seed(0)
    model, loss = Net(), nn.CrossEntropyLoss()
    ours = FisherAnchor(
        0.4, labels="true", online=None if mode == "separate" else 0.5, samples=None, rows=8, without=()
    )
    theirs = ewc.EWCPlugin(0.4, mode=mode, decay_factor=0.5 if mode == "online" else None)
    for task in range(3):
        x, y = torch.randn(24, 4), torch.randint(3, (24,))
        strategy = SimpleNamespace(
            model=model, _criterion=loss, device="cpu", train_mb_size=8, loss=torch.zeros(()),
            optimizer=torch.optim.SGD(model.parameters(), 0.1), clock=SimpleNamespace(train_exp_counter=task),
            experience=SimpleNamespace(dataset=TensorDataset(x, y, torch.zeros(24))),
        )  # fmt: skip
        theirs.before_backward(strategy)
        penalty = ours.penalty(model, {}, None)
        torch.testing.assert_close(penalty, strategy.loss)
        if task:
            gradients = [torch.autograd.grad(one, list(model.parameters())) for one in (penalty, strategy.loss)]
            for a, b in zip(*gradients, strict=True):
                torch.testing.assert_close(a, b)
        theirs.after_training_exp(strategy)
        ours.end_task(model, [{"x": x, "labels": y}])
        with torch.no_grad():
            for one in model.parameters():
                one.add_(0.1 * torch.randn(one.shape))


def test_sigmoids_and_distilled_ones_are_those_of_mammoth_times_the_number_of_classes() -> None:
    """``lwf_mc`` there: binary cross-entropy with its mean over rows and classes, old targets the sigmoids of the former model."""
    torch.manual_seed(0)
    model, x, labels = Net(), torch.randn(9, 4), torch.randint(1, 3, (9,))
    distiller = PredictionDistiller(known=(0,))
    distiller.start_task(model)
    with torch.no_grad():
        former = model(x).sigmoid()
        model.first.weight.add_(0.3)
    outputs = model(x)
    targets = torch.cat([former[:, :1], torch.eye(3)[labels][:, 1:]], dim=1)
    theirs = nn.functional.binary_cross_entropy_with_logits(outputs, targets)
    ours = sigmoid_loss(outputs, labels, (1, 2)) + distiller.penalty(model, {"x": x}, outputs)
    torch.testing.assert_close(ours, 3 * theirs)


def llama():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=40, num_hidden_layers=3, num_attention_heads=2, pad_token_id=0
    )
    return transformers.LlamaForCausalLM(config)


@pytest.mark.parametrize("make", [lambda: nn.Sequential(*(nn.Linear(12, 12) for _ in range(20))), llama])
def test_condition_numbers_are_those_of_peft(make) -> None:
    helpers = pytest.importorskip("peft.helpers")
    torch.manual_seed(0)
    model = make()
    theirs = helpers.KappaTuneSelector(model).get_best_targets(num_modules=6)
    scores = [
        one
        for one in rank(model, "kappa")
        if isinstance(model.get_submodule(one.name.removesuffix(".weight")), nn.Linear)
    ]
    ours = to_peft_targets(model, [one.name for one in scores[:6]])["target_modules"]
    assert ours == list(theirs)
    for one in scores[:6]:
        values = torch.linalg.svdvals(model.get_submodule(one.name.removesuffix(".weight")).weight.detach())
        assert one.kappa == pytest.approx(float(values[0] / (values[-1] + 1e-8)), rel=1e-4)


def test_what_was_chosen_is_taken_by_peft() -> None:
    peft = pytest.importorskip("peft")
    model = llama()
    names = select(rank(model, "kappa"), 0.2, balanced=True)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, **to_peft_targets(model, names)))
    paths = {name.split(".lora_A")[0] for name, _ in adapted.named_parameters() if ".lora_A" in name}
    assert {one.removeprefix("base_model.model.") for one in paths} == {name.removesuffix(".weight") for name in names}


@pytest.mark.parametrize(("accumulate", "many"), [(1, 8), (2, 8), (2, 6)])
def test_the_trainer_of_transformers_learns_as_the_loop_does(accumulate: int, many: int, tmp_path) -> None:
    pytest.importorskip("accelerate")
    from transformers import Trainer, TrainingArguments

    # Of six rows the last step of an epoch gathers one batch of two, not two.
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(1, 64, (many, 6))]
    names = ["model.layers.1.self_attn.q_proj.weight"]
    found = []
    for by_trainer in (True, False):
        model = llama()
        plastic = Plastic(
            model,
            lambda some: torch.optim.SGD(some, 0.5),
            select=names,
            hold=[L2Anchor(3.0)],
            slow=lambda some: SlowWeights(some, beta=0.5),
            slow_first=True,
        )
        if by_trainer:
            arguments = TrainingArguments(
                str(tmp_path), per_device_train_batch_size=4 // accumulate, gradient_accumulation_steps=accumulate, max_steps=4,
                learning_rate=0.5, optim="sgd", lr_scheduler_type="constant", max_grad_norm=0, report_to=[], use_cpu=True,
                save_strategy="no", disable_tqdm=True, seed=1, dataloader_pin_memory=False,
            )  # fmt: skip
            trainer = Trainer(model, arguments, train_dataset=rows, callbacks=[plastic.callback("a")])
            trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(rows)
            trainer.train()
        else:
            with plastic.learning("a"):
                model.train()
                for at in (0, 4, 0, 4):
                    ids = torch.stack([row["input_ids"] for row in rows[at : at + 4]])
                    plastic.step(model(input_ids=ids, labels=ids).loss)
        assert plastic.tasks == ["a"] and not model._forward_hooks
        assert plastic.averaged is not None and plastic.averaged.steps == 4
        found.append({name: one.detach().clone() for name, one in model.named_parameters()})
    start = dict(llama().named_parameters())
    for name, one in found[0].items():
        torch.testing.assert_close(one, found[1][name], rtol=1e-4, atol=1e-6)
        assert torch.equal(one, start[name]) == (name not in names)
