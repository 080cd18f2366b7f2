"""What was trained on memories follows the store: blocks to the last bit, a model as far as its owner's method goes, and it says which."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
transformers = pytest.importorskip("transformers", reason="the extra torch is not installed")

from holdfast.errors import AccessError, HoldfastError, InputError, IntegrityError, NotFoundError, StaleError  # noqa: E402
from holdfast.memory import Memory  # noqa: E402
from holdfast.trained import TrainedBank, TrainedModel  # noqa: E402
from holdfast.weights import unlearning  # noqa: E402
from holdfast.weights.block_bank import BankShape, BlockBank  # noqa: E402
from holdfast.weights.block_training import Training  # noqa: E402
from holdfast.weights.sparse_adam import AdamW  # noqa: E402
from support import Clock  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

TRAINING = Training(passes=12, batch=4, memory=AdamW(rate=3e-2))
LEAVES = ((0, 0), (0, 1), (1, 2), (1, 3))
WORDS: dict[str, int] = {}


def tokenizer(text: str) -> list[int]:
    return [WORDS.setdefault(word, len(WORDS) + 1) for word in text.split()]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=90, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(folder: Path, clock: Clock) -> Iterator[Memory]:
    memory = opened(folder, clock)
    yield memory
    assert memory.verify() == []
    memory.close()


def opened(folder: Path, clock: Clock) -> Memory:
    return Memory(folder, user="ana", embedder=None, encoders=(), background=False, clock=clock)


def bank(folder: Path, model) -> BlockBank:
    return BlockBank(folder, BankShape.of(model, ranks=(4, 4), branching=2), model)


def place(cube):
    return LEAVES[cube.data["leaf"]]


def banked(memory: Memory, blocks: BlockBank, model, **given) -> TrainedBank:
    return memory.bank(blocks, model, tokenizer, place=place, training=TRAINING, **given)


def told(memory: Memory, text: str, leaf: int, source: str = "ana", **given) -> str:
    return memory.add(text, source=source, data={"leaf": leaf}, **given).ids[0]


def blocks(one: BlockBank) -> list:
    return [torch.cat([part.flatten() for part in one.fetch(leaf).values()]) for leaf in LEAVES]


def same(one: BlockBank, other: BlockBank) -> bool:
    return all(torch.equal(ours, theirs) for ours, theirs in zip(blocks(one), blocks(other), strict=True))


def test_what_is_forgotten_leaves_the_bank_as_if_it_had_never_been_there(memory, model, tmp_path):
    ours, never = bank(tmp_path / "ours", model), bank(tmp_path / "never", model)
    holder = banked(memory, ours, model)
    kept = [told(memory, f"the river {at} runs to the sea", at % 3) for at in range(6)]
    gone = told(memory, "the river 7 is a secret", 0, source="mail:7")
    assert holder.train([*kept[:3], gone, *kept[3:]]) == (*kept[:3], gone, *kept[3:]) and holder.train([gone]) == ()
    other = banked(memory, never, model, name="never")
    other.train(kept)
    untouched = blocks(ours)[2]
    assert not same(ours, never)
    receipt = memory.forget(source="mail:7").verify()
    (step,) = [one for one in receipt.forms if one.holder == "bank"]
    assert same(ours, never) and torch.equal(blocks(ours)[2], untouched)
    assert step.measured["blocks erased"] == 3 and step.measured["memories learnt again"] == 4
    assert step.measured["others' loss after"] < math.log(90) - 0.1 and "others' loss before" in step.measured
    assert "secret" not in str(receipt.to_dict())
    assert {one.ref.id for one in holder.held()} == {*kept} and ours.documents((0, 0)) == never.documents((0, 0))


def test_a_bank_that_was_away_forgets_when_it_joins_again(folder, clock, memory, model, tmp_path):
    first = bank(tmp_path / "bank", model)
    kept, gone = told(memory, "the door is green", 0), told(memory, "the code is 4711", 1)
    banked(memory, first, model).train([kept, gone])
    memory.store.owner.forms.leave("bank")
    first.close()
    memory.forget(gone)
    with opened(folder, clock) as other:
        again = bank(tmp_path / "bank", model)
        holder = banked(other, again, model)
        assert [one.ref.id for one in holder.held()] == [kept]
        assert not again.fetch((0, 1))["2.down"].any() and again.fetch((0, 0))["2.down"].any()


def test_what_is_corrected_revoked_or_expired_is_in_no_block(memory, clock, model, tmp_path):
    blocks_ = bank(tmp_path / "bank", model)
    holder = banked(memory, blocks_, model)
    corrected = told(memory, "ana lives in Rome", 0)
    revoked = told(memory, "ben lives in Rome", 1, source="crm")
    expiring = told(memory, "the code is 4711", 2, ttl=timedelta(days=1))
    holder.train([corrected, revoked, expiring])
    memory.correct(corrected, "ana lives in Porto")
    memory.revoke(source="crm").verify()
    with holder.attach((0, 0)):
        assert {one.ref.id for one in holder.held()} == {expiring}
    clock.tick(2 * 86_400)
    with holder.attach((1, 2)):
        assert holder.held() == []
    assert not any(one.any() for one in (blocks_.fetch(leaf)["2.down"] for leaf in LEAVES))
    assert holder.train([corrected]) == (corrected,)
    with pytest.raises(NotFoundError):
        holder.train([revoked])


def test_no_block_is_trained_or_seen_by_two(memory, model, tmp_path):
    one = bank(tmp_path / "bank", model)
    ana, ben = banked(memory, one, model), banked(memory, one, model, name="ben", user="ben")
    ana.train([told(memory, "ana likes figs", 0)])
    theirs = told(memory, "ben likes dates", 0, user="ben")
    with pytest.raises(AccessError):
        ben.train([theirs])
    with pytest.raises(AccessError), ben.attach((0, 0)):
        pass
    with pytest.raises(NotFoundError):
        ana.train([theirs])
    assert ben.held() == [] and len(ana.held()) == 1
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.lm_head.weight[0, 0] += 1
    with pytest.raises(StaleError):
        memory.bank(one, other, tokenizer, place=place, name="other")


def test_a_program_that_ended_between_erasing_and_learning_again_leaves_nothing_false(
    memory, model, tmp_path, monkeypatch
):
    one = bank(tmp_path / "bank", model)
    holder = banked(memory, one, model)
    kept, gone = told(memory, "the door is green", 0), told(memory, "the code is 4711", 1)
    holder.train([kept, gone])

    def ends(*_):
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr("holdfast.trained.train_memories", ends)
        with pytest.raises(SystemExit):
            memory.forget(gone)
    assert one.touched_by(f"{gone}@1") == () and not one.fetch((0, 1))["2.down"].any()
    assert holder.train([kept]) == (kept,) and one.fetch((0, 0))["2.down"].any()


# --- a model's own weights ---


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body, self.head = torch.nn.Linear(8, 64), torch.nn.Linear(64, 2)

    def forward(self, x):
        return self.head(torch.relu(self.body(x)))


def drawn(count: int, seed: int):
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=random)  # of chance: to know them is to have seen them
    return {"x": torch.randn(count, 8, generator=random), "labels": labels}


def batches(rows):
    return [rows]


LONG = unlearning.Training(steps=400, rate=0.2)


def trained(memory: Memory, unlearn, **given) -> tuple[TrainedModel, dict]:
    rows = {memory.get(memory.add(f"form {at}", source=f"s:{at}").ids[0]).ref: drawn(8, at) for at in range(5)}
    every = {name: torch.cat([one[name] for one in rows.values()]) for name in ("x", "labels")}
    model = unlearning.train(Net(), batches(every), LONG)
    holder = memory.trained(model, unlearn=unlearn, unseen=drawn(60, 99), **given)
    holder.learnt(rows)
    return holder, rows


def anew(_model, _forgotten, retained):
    return unlearning.retrain(Net, batches(retained), LONG)


def test_a_model_that_is_trained_anew_is_proved_and_one_that_is_not_is_called_approximate(memory):
    holder, rows = trained(memory, anew, exact=True)
    first = holder.model
    before = copy.deepcopy(first.state_dict())
    receipt = memory.forget(source="s:0").verify()
    (step,) = [one for one in receipt.forms if one.holder == "model"]
    assert step.measured["approximate"] == 0.0 and step.measured["retained after"] > 0.95
    assert step.measured["membership before"] > 0.8 > step.measured["membership after"]
    kept = {name: torch.cat([one[name] for one in [*rows.values()][1:]]) for name in ("x", "labels")}
    expected = anew(None, None, kept).state_dict()
    assert all(torch.equal(one, expected[name]) for name, one in holder.model.state_dict().items())
    assert holder.model is not first and all(torch.equal(one, before[name]) for name, one in first.state_dict().items())
    assert len(holder.held()) == 4


def test_an_unlearning_that_does_not_work_is_not_proved(memory):
    holder, _ = trained(memory, lambda model, _, __: copy.deepcopy(model))
    receipt = memory.forget(source="s:0")
    (step,) = [one for one in receipt.forms if one.holder == "model"]
    assert step.measured["approximate"] == 1.0
    assert step.measured["membership after"] == step.measured["membership before"] > 0.8
    with pytest.raises(IntegrityError, match="may still be known"):
        receipt.verify()
    assert len(holder.held()) == 4


def test_an_unlearning_that_works_is_approximate_and_passes(memory):
    def tuned(model, _forgotten, retained):
        nonsense = Net()
        rest = unlearning.Training(steps=300, rate=0.05)
        return unlearning.bad_teacher(model, nonsense, batches(retained), batches(_forgotten), rest)

    holder, _ = trained(memory, tuned)
    receipt = memory.forget(source="s:0").verify()
    (step,) = [one for one in receipt.forms if one.holder == "model"]
    assert step.measured["approximate"] == 1.0 and step.measured["membership after, at least"] <= 0.5
    assert step.measured["retained after"] > 0.9 and len(holder.held()) == 4


def test_what_cannot_be_unlearnt_or_tested_is_said(memory):
    holder, rows = trained(memory, anew)
    lost = next(iter(rows))
    holder.learnt({lost: None})
    with pytest.raises(IntegrityError, match="train the model anew"):
        memory.forget(lost.id).verify()
    assert lost in {one.ref for one in holder.held()}
    single = memory.trained(Net(), unlearn=anew, unseen=drawn(9, 1), name="single")
    one, two = (memory.get(memory.add(text).ids[0]).ref for text in ("a form", "another form"))
    single.learnt({one: drawn(1, 3), two: drawn(4, 4)})
    with pytest.raises(IntegrityError, match="too few rows"):
        memory.forget(one.id).verify()
    with pytest.raises(IntegrityError, match="nothing that the model was trained on"):
        memory.forget(two.id).verify()
    with pytest.raises(InputError):
        single.learnt({one: {"x": torch.zeros(1, 8)}})
    with pytest.raises(HoldfastError):
        memory.trained(Net(), unlearn=anew, unseen=drawn(1, 1), name="few")
