"""A network that never changes, lent to tasks."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
transformers = pytest.importorskip("transformers", reason="the extra torch is not installed")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from holdfast.errors import ConflictError, InputError, NotFoundError, StaleError  # noqa: E402
from holdfast.torched import Tensor, nn  # noqa: E402
from holdfast.weights.reprogramming import ChannelKernels, Parameters, Reprogrammed  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, 5),
    )
    model[1].running_mean.normal_()
    return model.eval()


def lent(model: nn.Module, **given) -> Reprogrammed:
    return Reprogrammed(model, head="6", **given)


def images(count: int = 16, seed: int = 1) -> Tensor:
    return torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


def taught(tasks: Reprogrammed, name: str, seed: int = 0, steps: int = 3) -> None:
    with tasks.active(name) as model:
        model.train()
        learner = torch.optim.Adam(tasks.task_parameters(name), lr=0.05)
        for step in range(steps):
            loss = model(images(seed=seed + step)).square().mean()
            learner.zero_grad()
            loss.backward()
            learner.step()


def said(tasks: Reprogrammed, name: str) -> Tensor:
    with tasks.active(name) as model, torch.no_grad():
        return model.eval()(images())


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: one.clone() for name, one in model.state_dict().items()}


@pytest.mark.parametrize("layers", ["spatial", "all", "none"])
@pytest.mark.parametrize("norms", [True, False])
def test_a_new_task_sees_what_the_network_sees_to_the_last_bit(layers, norms: bool) -> None:
    model = network()
    tasks = lent(model, layers=layers, norms=norms)
    tasks.add_task("one", 5)
    with tasks.active("one") as seen:
        seen[6].load_state_dict(nn.Linear(4 * 36, 5).state_dict())
        head = copy.deepcopy(seen[6])
        found = seen(images())
    wanted = head(model[:6](images()))
    assert torch.equal(found, wanted)


@given(st.integers(1, 5), st.integers(3, 7), st.integers(0, 99))
def test_kernels_are_a_convolution_for_each_channel_alone(channels: int, side: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    layer, x = ChannelKernels(channels), torch.randn(2, channels, side, side, generator=g)
    assert torch.equal(layer(x), x)
    layer.kernel.data = torch.randn(channels, 1, 3, 3, generator=g)
    for at in range(channels):
        alone = nn.functional.conv2d(x[:, at : at + 1], layer.kernel[at : at + 1], padding=1)
        torch.testing.assert_close(layer(x)[:, at : at + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", ["spatial", "all", "none"])
@pytest.mark.parametrize("norms", [True, False])
def test_no_task_changes_the_network_or_another_task(layers, norms: bool) -> None:
    model = network()
    before = state(model)
    tasks = lent(model, layers=layers, norms=norms)
    tasks.add_task("one", 5)
    taught(tasks, "one")
    answered = said(tasks, "one")
    tasks.add_task("two", 3)
    taught(tasks, "two", seed=9)
    assert torch.equal(said(tasks, "one"), answered) and said(tasks, "two").shape == (16, 3)
    after = state(model)
    assert after.keys() == before.keys() and all(torch.equal(after[name], one) for name, one in before.items())
    assert not model.training and all(one.grad is None and one.requires_grad for one in model.parameters())
    tasks.drop("two")
    assert torch.equal(said(tasks, "one"), answered) and tasks.tasks == ("one",)


def test_a_task_learns_with_what_it_owns_and_keeps_statistics_of_its_own() -> None:
    tasks = lent(network())
    tasks.add_task("one", 2)
    before = [one.clone() for one in tasks.task_parameters("one")]
    taught(tasks, "one")
    assert all(not torch.equal(*both) for both in zip(before, tasks.task_parameters("one"), strict=True))
    assert tasks.count("one") == Parameters(kernels=6 * 9, norms=12, statistics=12, head=2 * 144 + 2)
    with tasks.active("one") as model:
        mine = model[1].running_mean
    assert not torch.equal(mine, tasks.model[1].running_mean)


def test_a_lent_norm_says_what_it_says_in_use_in_training_too() -> None:
    tasks = lent(network(), norms=False)
    tasks.add_task("one", 2)
    with tasks.active("one") as model:
        assert torch.equal(model.train()(images()), model.eval()(images()))
    assert tasks.count("one").norms == tasks.count("one").statistics == 0


def test_the_counts_of_the_paper() -> None:
    config = transformers.ResNetConfig(num_labels=1000)  # of ResNet-50's shape, with random weights
    model = transformers.ResNetForImageClassification(config)
    assert sum(one.numel() for one in model.parameters()) == 25_557_032
    tasks = Reprogrammed(model, head="classifier.1")
    tasks.add_task("one", 10)
    count = tasks.count("one")
    assert (count.kernels, count.norms, count.statistics) == (34_560, 53_120, 53_120)
    assert 100 * tasks.share("one") == pytest.approx(0.551, abs=5e-4)


def test_a_task_comes_back_from_its_file_for_its_own_network_alone() -> None:
    model = network()
    tasks = lent(model)
    tasks.add_task("one", 5)
    taught(tasks, "one")
    tasks.remember("one", [images()])
    kept = tasks.pack("one")
    other = lent(copy.deepcopy(model))
    assert other.unpack(kept) == "one"
    assert torch.equal(said(other, "one"), said(tasks, "one")) and other.count("one") == tasks.count("one")
    assert [one.score for one in other.route(images())] == [one.score for one in tasks.route(images())]
    with pytest.raises(ConflictError, match="already"):
        other.unpack(kept)
    with pytest.raises(StaleError, match="anchor"):
        lent(network(5)).unpack(kept)
    with pytest.raises(StaleError, match="layers"):
        lent(model, layers="all").unpack(kept)


def test_rows_find_their_task_and_strangers_find_none() -> None:
    tasks = lent(network())
    for at, name in enumerate(("dark", "bright")):
        tasks.add_task(name, 2)
        tasks.remember(name, [images(300, seed=at) + 4 * at])
    routes = tasks.route(torch.cat([images(50, seed=7), images(50, seed=8) + 4]))
    names = [route.memory for route in routes]
    assert names[:50].count("dark") >= 40 and names[50:].count("bright") >= 40
    assert not {"dark"} & {*names[50:]} and not {"bright"} & {*names[:50]}
    far = tasks.route(images(20) * 40)
    assert all(route.memory is None and route.score > route.threshold for route in far)
    tasks.drop("bright")
    assert {route.memory for route in tasks.route(images(50, seed=8) + 4)} <= {"dark", None}


def test_what_lies_between_the_kinds_of_a_task_is_none_of_its_where_they_were_told_apart() -> None:
    labels, tasks = torch.arange(300) // 150, lent(network())
    tasks.add_task("one", 2)
    shown = images(300) + 16.0 * labels[:, None, None, None] - 8
    tasks.remember("one", [shown], [labels])
    between = tasks.route(0.1 * images(20, seed=5))
    tasks.remember("one", [shown])
    assert all(
        a.memory is None and a.score > 2 * b.score
        for a, b in zip(between, tasks.route(0.1 * images(20, seed=5)), strict=True)
    )


def test_how_far_a_task_reaches_does_not_hang_on_the_order_of_its_rows() -> None:
    tasks, labels = lent(network()), torch.arange(300) // 150
    tasks.add_task("one", 2)
    shown = images(300) + 16.0 * labels[:, None, None, None] - 8
    reached = []
    for order in (
        torch.arange(300),
        torch.arange(300).reshape(2, 150).T.flatten(),
    ):  # one kind after the other, and by turns
        tasks.remember("one", [shown[order]], [labels[order]])
        reached.append(tasks.route(images(1) + 8)[0].threshold)
    assert reached[0] == pytest.approx(reached[1])


def test_without_a_head_rows_are_seen_by_the_channels_of_the_last_convolution() -> None:
    model = network()
    seen = Reprogrammed(model, head=None, layers="all").features([images()])
    torch.testing.assert_close(seen, model[:4](images()).mean(dim=(2, 3)).double())
    with pytest.raises(InputError, match="norms alone"):
        Reprogrammed(model, head=None, layers="none").features([images()])


def test_what_cannot_be_is_refused() -> None:
    model = network()
    tasks = lent(model)
    with pytest.raises(InputError, match="no nn.Linear"):
        Reprogrammed(model, head="0")
    with pytest.raises(InputError, match="no module"):
        Reprogrammed(model, head="nowhere")
    with pytest.raises(InputError, match="nothing here"):
        Reprogrammed(nn.Sequential(nn.ReLU()), head=None)
    with pytest.raises(InputError, match="classes"):
        tasks.add_task("one")
    with pytest.raises(NotFoundError, match="no task 'one'"), tasks.active("one"):
        pass
    tasks.add_task("one", 2)
    with pytest.raises(ConflictError, match="already"):
        tasks.add_task("one", 2)
    with pytest.raises(InputError, match="no task was remembered"):
        tasks.route(images())
    with tasks.active("one"):
        with pytest.raises(ConflictError, match="is active"), tasks.active("one"):
            pass
        with pytest.raises(ConflictError, match="is active"):
            tasks.drop("one")
        with pytest.raises(InputError, match="leave the block"):
            tasks.features([images()])
    model[0].weight.data += 1
    with pytest.raises(StaleError, match="changed"), tasks.active("one"):
        pass


def test_blocks_of_a_language_model_are_scaled_and_shifted_and_decode_with_a_cache() -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.randint(31, (2, 5))
    plain = model(ids).logits
    tasks = Reprogrammed(model, head=None, layers="blocks")
    tasks.add_task("one")
    assert tasks.count("one") == Parameters(2 * 2 * 16, 0, 0, 0)
    with tasks.active("one") as seen:
        assert torch.equal(seen(ids).logits, plain)
        learner = torch.optim.Adam(tasks.task_parameters("one"), lr=0.05)
        first = None
        for _ in range(30):
            loss = seen(ids, labels=ids).loss
            first = first or float(loss.detach())
            learner.zero_grad()
            loss.backward()
            learner.step()
        assert float(loss.detach()) < 0.98 * first
        cached = seen.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
        bare = seen.generate(ids, max_new_tokens=4, do_sample=False, use_cache=False, pad_token_id=0)
        assert torch.equal(cached, bare)
    assert torch.equal(model(ids).logits, plain)
    tasks.remember("one", [ids])
    assert tasks.features([ids]).shape == (2, 16) and len(tasks.route(ids)) == 2
