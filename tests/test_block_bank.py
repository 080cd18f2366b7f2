"""The hierarchical bank of blocks and its tree: no effect at the start, equal forms, training of what is reached alone, real erasing."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")

from safetensors.torch import load_file  # noqa: E402
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM  # noqa: E402

from holdfast.errors import AccessError, InputError, NotFoundError, StaleError, StoreError  # noqa: E402
from holdfast.latent.identity import weights_digest  # noqa: E402
from holdfast.weights.block_bank import GENERIC, BankShape, BlockBank, Fetched, attached  # noqa: E402
from holdfast.weights.block_training import Document, Training, train_memories  # noqa: E402
from holdfast.weights.cluster_tree import ClusterTree  # noqa: E402
from holdfast.weights.mapped import MappedTensor  # noqa: E402
from holdfast.weights.places import feed_forward  # noqa: E402
from holdfast.weights.sparse_adam import AdamW  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

RANKS, K = (3, 2), 3
FAST = AdamW(rate=1e-2, decay=1e-2)


def llama(seed: int = 0, layers: int = 2):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def gpt2(seed: int = 0):
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=40,
        n_embd=16,
        n_layer=2,
        n_head=4,
        n_positions=64,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config).eval()


def bank_of(folder: Path, model, **given) -> BlockBank:
    generic = given.pop("generic", 0)
    return BlockBank(folder, BankShape.of(model, RANKS, K, generic=generic), model, **given)


def documents(count: int = 12, seed: int = 1, leaves: int = K * K) -> list[Document]:
    g = torch.Generator().manual_seed(seed)
    found = []
    for at in range(count):
        leaf = at % leaves
        found.append(Document(f"d{at}", torch.randint(0, 40, (5 + at % 3,), generator=g), (leaf // K, leaf)))
    return found


def filled(bank: BlockBank, seed: int = 0) -> None:
    """Every block something of its own, as if trained."""
    g = torch.Generator().manual_seed(seed)
    for level in range(bank.shape.depth + 1):
        if bank.shape.rank(level):
            numbers = [*range(bank.shape.nodes(level))]
            blocks, moments, steps = bank.read(level, numbers)
            bank.write(level, numbers, torch.randn(blocks.shape, generator=g) * 0.3, moments + 0.5, steps + 1)


def logits(model, ids):
    with torch.no_grad():
        return model(ids, use_cache=False).logits


IDS = torch.arange(3 * 6).view(3, 6) * 7 % 40


# --- sizes ---


def test_the_counts_are_the_papers() -> None:
    shape = BankShape(layers=35, width=512, ranks=(256, 64, 16, 0), branching=16)
    assert shape.fetched == 18_063_360 == 3 * 35 * 512 * (256 + 64 + 16)
    assert shape.stored == 3 * 35 * 512 * (256 * 16 + 64 * 256 + 16 * 4096) and round(shape.stored / 1e9, 2) == 4.62
    for layers, width, ranks, fetched, stored in (
        (24, 1024, (512, 128, 32, 0), 50e6, 12.7e9),
        (24, 2048, (768, 256, 16, 0), 153e6, 21.1e9),
    ):
        other = BankShape(layers, width, ranks, 16)
        assert other.fetched == pytest.approx(fetched, rel=0.02) and other.stored == pytest.approx(stored, rel=0.01)


def test_what_is_no_shape_is_refused() -> None:
    for wrong in ({"ranks": (0, 0)}, {"ranks": ()}, {"branching": 0}, {"layers": 0}, {"ranks": (-1, 2)}):
        with pytest.raises(InputError):
            BankShape(**{"layers": 2, "width": 4, "ranks": (1,), "branching": 2} | wrong)


# --- attaching ---


@pytest.mark.parametrize("make", [llama, gpt2])
def test_an_untrained_bank_has_no_effect_and_detaching_leaves_none(make, tmp_path: Path) -> None:
    model = make()
    before, digest = logits(model, IDS), weights_digest(model)
    bank = bank_of(tmp_path, model, generic=5)
    for address in ((1, 4), GENERIC, [(0, 0), (1, 4), (2, 8)]):
        with bank.attach(model, address):
            assert torch.equal(logits(model, IDS), before)
    filled(bank)
    with bank.attach(model, (1, 4)):
        assert not torch.allclose(logits(model, IDS), before, atol=1e-3)
    assert torch.equal(logits(model, IDS), before) and weights_digest(model) == digest


def test_the_added_form_equals_the_concatenated(tmp_path: Path) -> None:
    model = llama().double()
    bank = bank_of(tmp_path, model)
    filled(bank)
    wider = llama().double()
    blocks = bank.fetch((1, 5))
    for at, place in enumerate(feed_forward(wider)):
        inner = place.module
        for name, part in (("gate_proj", "gate"), ("up_proj", "up")):
            rows = [getattr(inner, name).weight, *(blocks[f"{level}.{part}"][at].double() for level in (1, 2))]
            getattr(inner, name).weight = torch.nn.Parameter(torch.cat(rows))
        columns = [inner.down_proj.weight, *(blocks[f"{level}.down"][at].double().T for level in (1, 2))]
        inner.down_proj.weight = torch.nn.Parameter(torch.cat(columns, dim=1))
    with bank.attach(model, (1, 5)):
        assert torch.allclose(logits(model, IDS), logits(wider, IDS), atol=1e-6)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_each_row_of_a_batch_computes_as_it_would_alone(make, tmp_path: Path) -> None:
    model = make()
    bank = bank_of(tmp_path, model, generic=2)
    filled(bank)
    addresses = [(leaf // K, leaf) for leaf in range(K * K)] + [GENERIC, (1, 4), (0, 1)]  # more than are looped over
    for some in (addresses[:3], [(1, 4)] * 3, [GENERIC, (2, 7), GENERIC], addresses):
        ids = IDS[[at % 3 for at in range(len(some))]]
        with bank.attach(model, some):
            together = logits(model, ids)
        for row, address in enumerate(some):
            with bank.attach(model, address):
                assert torch.allclose(together[row], logits(model, ids[row : row + 1])[0], atol=1e-5)


def test_a_batch_of_other_size_than_its_addresses_is_refused(tmp_path: Path) -> None:
    model = llama()
    bank = bank_of(tmp_path, model)
    for some in ([(0, 0), (0, 1)], [(0, 0)]):
        with bank.attach(model, some), pytest.raises(InputError, match="3 rows"):
            model(IDS)


def test_addresses_that_are_not_there_are_refused(tmp_path: Path) -> None:
    bank = bank_of(tmp_path, llama())
    for wrong in ((3, 9), (0, 3), (-1, 0), (0, 0, 0), GENERIC):
        with pytest.raises(NotFoundError):
            bank.fetch(wrong)


def test_blocks_give_nothing_while_they_are_blocked_and_nor_does_what_is_below(tmp_path: Path) -> None:
    model = llama()
    bank = bank_of(tmp_path, model, generic=2)
    filled(bank)
    bank.block([(1,), GENERIC])
    bank.block([(0, 2)])
    before = logits(model, IDS)
    for address in ((1, 4), GENERIC):
        with bank.attach(model, address):
            assert torch.equal(logits(model, IDS), before)
    assert {*bank.fetch((0, 2))} == {"1.gate", "1.up", "1.down"}
    again = bank_of(tmp_path, model, generic=2)
    assert not again.fetch((1, 4))
    again.unblock([(1,), (0, 2)])
    assert len(again.fetch((1, 4))) == len(again.fetch((0, 2))) == 6


def test_the_latest_used_blocks_stay_in_memory_within_a_budget(tmp_path: Path) -> None:
    model = llama()
    one, two = (2 * 3 * r * 16 * 4 for r in RANKS)
    bank = bank_of(tmp_path, model, keep=one + two)
    bank.fetch((0, 0))
    bank.fetch((0, 1))
    assert bank.loaded == ((0,), (0, 1))  # the upper block was needed again
    bank.fetch((2, 8))
    assert bank.loaded == ((2,), (2, 8))


# --- caches ---


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_cache_goes_on_with_its_own_path_alone(make, tmp_path: Path) -> None:
    model = make()
    bank = bank_of(tmp_path, model)
    filled(bank)
    with torch.no_grad():
        with bank.attach(model, (1, 4)):
            whole = model(IDS, use_cache=False).logits
            begun = model(IDS[:, :4], use_cache=True).past_key_values
            rest = model(IDS[:, 4:], cache=begun).logits
            assert torch.allclose(rest, whole[:, 4:], atol=1e-5)
        with bank.attach(model, (1, 5)), pytest.raises(StaleError, match="cache"):
            model(IDS[:, :1], cache=begun)
        plain = model(IDS[:, :4], use_cache=True).past_key_values
        with bank.attach(model, (1, 4)):
            with pytest.raises(StaleError, match="cache"):
                model(IDS[:, 4:], cache=plain)
            assert model.generate(IDS, max_new_tokens=3, do_sample=False, pad_token_id=0).shape == (3, 9)


# --- training ---


def test_a_step_equals_dense_autograd_and_adam(tmp_path: Path) -> None:
    """Two steps on a tiny bank beside ``torch.optim.AdamW`` over all blocks that these steps touch."""
    model = llama()
    bank = bank_of(tmp_path, model)
    some = [replace(one, address=(0, at % 2)) for at, one in enumerate(documents(4))]
    settings = Training(passes=2, batch=4, memory=FAST, warm=0.0, least=1.0, clip=1e9)
    dense = {level: torch.nn.Parameter(bank.read(level, numbers)[0]) for level, numbers in ((1, [0]), (2, [0, 1]))}
    optimiser = torch.optim.AdamW(dense.values(), lr=FAST.rate, weight_decay=FAST.decay, betas=FAST.betas, eps=FAST.eps)
    every = torch.arange(4)
    which = torch.tensor([one.address[1] for one in some])
    for _ in range(2):
        levels = [
            Fetched(dense[1], every, torch.zeros_like(which)),
            Fetched(dense[2], every[which.argsort(stable=True)], which.sort().values),
        ]
        longest = max(len(one.tokens) for one in some)
        ids = torch.stack([torch.nn.functional.pad(one.tokens, (0, longest - len(one.tokens))) for one in some])
        mask = torch.stack([(torch.arange(longest) < len(one.tokens)).long() for one in some])
        with attached(model, levels, 4):
            said = model(ids, attention_mask=mask, use_cache=False).logits.log_softmax(-1)
        told = torch.gather(said[:, :-1], -1, ids[:, 1:, None])[..., 0]
        loss = -(told * mask[:, 1:]).sum() / mask[:, 1:].sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    train_memories(bank, model, some, settings)
    for level, numbers in ((1, [0]), (2, [0, 1])):
        assert torch.allclose(bank.read(level, numbers)[0], dense[level].detach(), atol=2e-6)
        assert bank.read(level, numbers)[2].tolist() == [2] * len(numbers)


def test_training_lowers_the_loss_and_leaves_the_model_and_what_it_did_not_reach(tmp_path: Path) -> None:
    model = llama()
    digest, before = weights_digest(model), logits(model, IDS)
    bank = bank_of(tmp_path, model)
    some = documents(8, leaves=2)
    losses = train_memories(bank, model, some, Training(passes=30, batch=4, memory=FAST, length=4))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert weights_digest(model) == digest and torch.equal(logits(model, IDS), before)
    assert not any(one.grad is not None for one in model.parameters()) and not model.training
    files = {
        name: load_file(tmp_path / f"level-2.{name}.safetensors")["rows"] for name in ("blocks", "moments", "steps")
    }
    assert all(one[:2].abs().sum() > 0 and not one[2:].any() for one in files.values())


def test_what_is_rare_is_not_decayed_by_what_others_learn(tmp_path: Path) -> None:
    model = llama()
    bank = bank_of(tmp_path, model)
    first, second = documents(2)
    train_memories(bank, model, [replace(first, address=(0, 0))], Training(passes=3, memory=FAST))
    rare = bank.read(2, [0])
    train_memories(bank, model, [replace(second, address=(0, 1))], Training(passes=5, memory=FAST))
    assert all(torch.equal(*both) for both in zip(rare, bank.read(2, [0]), strict=True))


def test_the_generic_block_is_trained_now_and_then(tmp_path: Path) -> None:
    model = llama()
    bank = bank_of(tmp_path, model, generic=5)
    train_memories(bank, model, documents(), Training(passes=20, batch=4, memory=FAST))
    _, _, steps = bank.read(0, [0])
    assert 0 < int(steps) < 60
    assert bank.touched_by("d0")[0] == GENERIC
    with pytest.raises(AccessError, match="generic"):
        train_memories(bank, model, [replace(one, owner="ana") for one in documents()])


def test_an_anchor_learns_where_its_optimiser_is_given_and_the_bank_goes_with_it(tmp_path: Path) -> None:
    model = llama()
    bank, digest = bank_of(tmp_path, model), weights_digest(model)
    train_memories(
        bank, model, documents(), Training(passes=2, memory=FAST), anchor=torch.optim.AdamW(model.parameters(), 1e-3)
    )
    assert weights_digest(model) != digest
    with bank.attach(model, (0, 0)):
        model(IDS)
    assert bank.reached_anchor("d0") and not bank.reached_anchor("nobody's")
    assert {*bank.touched_by("d0", indirectly=True)} == {
        node for one in documents() for node in (one.address[:1], one.address)
    }
    with pytest.raises(StaleError), bank.attach(llama(), (0, 0)):
        pass


def test_what_cannot_be_learnt_is_refused_before_anything_is(tmp_path: Path) -> None:
    model = llama()
    bank = bank_of(tmp_path, model)
    one = documents(1)[0]
    for wrong in (
        [],
        [replace(one, address=(0,))],
        [replace(one, tokens=one.tokens[:1])],
        [replace(one, labels=one.tokens[1:])],
    ):
        with pytest.raises(InputError):
            train_memories(bank, model, wrong)
    with pytest.raises(StaleError):
        train_memories(bank, llama(1), [one])
    assert bank.touched_by(one.id) == () and not bank.read(1, [0])[2].any()


# --- taking back ---


def test_a_document_is_on_record_where_it_reached(tmp_path: Path) -> None:
    model = llama()
    bank = bank_of(tmp_path, model)
    train_memories(bank, model, [*documents(3), replace(documents(1)[0], address=(2, 6))], Training(memory=FAST))
    assert bank.touched_by("d0") == ((0,), (2,), (0, 0), (2, 6))
    assert bank.documents((0,)) == ("d0", "d1", "d2") and bank.documents((2, 6)) == ("d0",)
    assert bank.touched_by("d1") == ((0,), (0, 1)) and bank.touched_by("unknown") == ()
    assert bank.touched_by("d1", indirectly=True) == (
        (0,),
        (0, 0),
        (0, 1),
        (0, 2),
    )  # d0's other branch shares nothing with it
    assert bank.touched_by("d0", indirectly=True) == ((0,), (2,), (0, 0), (0, 1), (0, 2), (2, 6))
    with pytest.raises(NotFoundError):
        bank.forget("unknown")


def test_dropping_erases_the_bytes_of_a_block_and_of_its_training(tmp_path: Path) -> None:
    model = llama()
    bank = bank_of(tmp_path, model)
    train_memories(bank, model, documents(), Training(passes=3, memory=FAST))
    blocks, moments, _ = bank.read(2, [4])
    traces = [one.flatten()[one.flatten().abs() > 0][-2:].numpy().tobytes() for one in (blocks, moments)]
    everything = lambda: b"".join(file.read_bytes() for file in sorted(tmp_path.iterdir()))  # noqa: E731
    bank.flush()
    assert all(trace in everything() for trace in traces)
    others = bank.read(2, [0, 1, 2, 3, 5, 6, 7, 8]), bank.read(1, [0, 1, 2])
    bank.drop((1, 4))
    assert not any(trace in everything() for trace in traces)
    now = bank.read(2, [0, 1, 2, 3, 5, 6, 7, 8]), bank.read(1, [0, 1, 2])
    assert all(torch.equal(a, b) for old, new in zip(others, now, strict=True) for a, b in zip(old, new, strict=True))
    assert not bank.fetch((1, 4))["2.down"].any() and bank.fetch((1, 4))["1.down"].any()
    with pytest.raises(NotFoundError):
        bank.drop((9,))


def test_what_was_to_be_erased_when_a_process_ended_is_erased_at_the_next_opening(tmp_path: Path) -> None:
    model = llama()
    bank = bank_of(tmp_path, model)
    train_memories(bank, model, documents(), Training(memory=FAST))
    bank.close()
    ledger = json.loads((tmp_path / "bank.json").read_text())
    (tmp_path / "bank.json").write_text(json.dumps({**ledger, "erasing": ["2/0"]}))
    again = bank_of(tmp_path, model)
    assert not again.read(2, [0])[2].any() and again.read(2, [1])[2].any()
    assert json.loads((tmp_path / "bank.json").read_text())["erasing"] == []


def test_to_forget_and_learn_the_rest_again_is_never_to_have_known(tmp_path: Path) -> None:
    model = llama()
    some, settings = documents(), Training(passes=3, batch=2, memory=FAST)
    bank, never = bank_of(tmp_path / "a", model), bank_of(tmp_path / "b", model)
    train_memories(bank, model, some, settings)
    train_memories(never, model, [one for one in some if one.id != "d4"], settings)
    assert '"d4"' in (tmp_path / "a" / "bank.json").read_text()
    again = bank.forget("d4")
    assert again == tuple(sorted(one.id for one in some if one.address[0] == 1 and one.id != "d4"))
    assert bank.touched_by("d4") == ()
    train_memories(bank, model, [one for one in some if one.id in again], settings)
    for level in (1, 2):
        numbers = [*range(bank.shape.nodes(level))]
        assert all(
            torch.equal(*both) for both in zip(bank.read(level, numbers), never.read(level, numbers), strict=True)
        )
    assert '"d4"' not in (tmp_path / "a" / "bank.json").read_text()


def test_to_forget_leaves_other_branches_of_those_that_stood_beside_it(tmp_path: Path) -> None:
    model = llama()
    first, second, third = documents(3)
    some = [first, replace(first, address=(2, 6)), second, replace(third, address=(2, 7))]
    settings = Training(passes=3, batch=2, memory=FAST)
    bank, never = bank_of(tmp_path / "a", model), bank_of(tmp_path / "b", model)
    train_memories(bank, model, some, settings)
    train_memories(never, model, [one for one in some if one is not second], settings)
    assert bank.forget("d1") == ("d0",)
    train_memories(bank, model, [first], settings)
    for level in (1, 2):
        numbers = [*range(bank.shape.nodes(level))]
        assert torch.equal(bank.read(level, numbers)[0], never.read(level, numbers)[0])


def test_what_the_anchor_learnt_beside_a_document_may_be_anywhere(tmp_path: Path) -> None:
    model = llama()
    bank = bank_of(tmp_path, model)
    first, second, third = documents(3)
    train_memories(bank, model, [first], Training(memory=FAST))
    both = [second, replace(third, address=(1, 4))]
    train_memories(bank, model, both, Training(memory=FAST), anchor=torch.optim.AdamW(model.parameters(), 1e-3))
    assert bank.touched_by("d0", indirectly=True) == ((0,), (1,), (0, 0), (0, 1), (1, 4))


def test_directly_reached_blocks_alone_are_erased_where_that_is_asked_for(tmp_path: Path) -> None:
    model = llama()
    bank = bank_of(tmp_path, model)
    train_memories(bank, model, documents(), Training(memory=FAST))
    sibling = bank.read(2, [5])[0]
    assert bank.forget("d4", indirectly=False) == ("d3", "d5")
    assert torch.equal(bank.read(2, [5])[0], sibling) and not bank.read(1, [1])[2].any()


# --- owners ---


def test_what_is_learnt_anew_after_another_was_forgotten_is_still_its_owners(tmp_path: Path) -> None:
    model = llama()
    bank = bank_of(tmp_path, model)
    hers = [replace(one, owner="ana", address=(0, at % 2)) for at, one in enumerate(documents(4))]
    train_memories(bank, model, hers, Training(memory=FAST))
    again = bank.forget(hers[0].id)
    assert again and bank.owner((0,)) == "ana"
    with pytest.raises(AccessError):
        train_memories(bank, model, [replace(hers[1], id="x", owner="ben")])
    train_memories(bank, model, [one for one in hers if one.id in again], Training(memory=FAST))
    for one in hers[1:]:
        bank.forget(one.id)
    assert bank.owner((0,)) == ""


def test_a_block_is_its_owners(tmp_path: Path) -> None:
    model = llama()
    bank = bank_of(tmp_path, model)
    hers = [replace(one, owner="ana", address=(0, at % 2)) for at, one in enumerate(documents(4))]
    train_memories(bank, model, hers, Training(memory=FAST))
    assert bank.owner((0,)) == bank.owner((0, 1)) == "ana" and bank.owner((1,)) == ""
    with bank.attach(model, (0, 1), owner="ana"):
        model(IDS)
    for owner in ("", "ben"):
        with pytest.raises(AccessError), bank.attach(model, (0, 1), owner=owner):
            pass
        with pytest.raises(AccessError):
            train_memories(bank, model, [replace(hers[0], id="x", owner=owner)])
    train_memories(bank, model, [replace(one, address=(1, 3)) for one in documents(1)], Training(memory=FAST))
    with pytest.raises(AccessError, match="not free"):
        train_memories(bank, model, [replace(hers[0], address=(1, 4))])
    with pytest.raises(AccessError, match="two owners"):
        train_memories(bank, model, [replace(hers[0], address=(2, 6)), replace(hers[1], address=(2, 7), owner="")])
    with pytest.raises(AccessError, match="not free"):
        train_memories(bank, model, [replace(hers[0], address=(2, 6)), replace(hers[1], address=(1, 4), owner="ben")])
    assert bank.owner((2, 6)) == ""  # nothing is hers that was not trained
    assert bank_of(tmp_path, model).owner((0, 1)) == "ana"


# --- files ---


def test_a_bank_is_opened_again_as_it_was_and_by_no_other_model(tmp_path: Path) -> None:
    model = llama()
    bank = bank_of(tmp_path, model)
    train_memories(bank, model, documents(), Training(memory=FAST))
    with bank.attach(model, (1, 4)):
        before = logits(model, IDS)
    bank.close()
    again = bank_of(tmp_path, model)
    with again.attach(model, (1, 4)):
        assert torch.equal(logits(model, IDS), before)
    with pytest.raises(StaleError, match="weights"):
        bank_of(tmp_path, llama(1))
    with pytest.raises(StaleError, match="shape"):
        BlockBank(tmp_path, BankShape.of(model, (3, 3), K), model)
    with pytest.raises(InputError, match="layers"):
        BlockBank(tmp_path, BankShape.of(llama(0, 3), RANKS, K), model)
    with pytest.raises(InputError, match="with a gate"):
        BlockBank(tmp_path, replace(BankShape.of(model, RANKS, K), gated=False), model)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="folder"):
        bank_of(tmp_path / "file", model)


def test_a_bank_grows_by_branches_and_nothing_moves(tmp_path: Path) -> None:
    model = llama()
    bank = bank_of(tmp_path, model)
    train_memories(bank, model, documents(), Training(memory=FAST))
    before = bank.read(1, [0, 1, 2]), bank.read(2, [*range(9)])
    bank.grow()
    assert bank.shape.roots == K + 1 and bank.shape.nodes(2) == 12
    after = bank.read(1, [0, 1, 2]), bank.read(2, [*range(9)])
    assert all(torch.equal(a, b) for old, new in zip(before, after, strict=True) for a, b in zip(old, new, strict=True))
    train_memories(bank, model, [replace(documents(1)[0], address=(3, 11))], Training(memory=FAST))
    bank.close()
    again = bank_of(tmp_path, model)
    assert again.shape.roots == K + 1 and again.read(2, [11])[2].all()
    assert load_file(tmp_path / "level-2.blocks.safetensors")["rows"].shape[0] == 12
    with pytest.raises(InputError):
        again.grow(0)


def test_files_of_rows_refuse_what_is_not_theirs(tmp_path: Path) -> None:
    path, key = tmp_path / "rows.safetensors", {"kind": "test"}
    one = MappedTensor(path, (4, 2), key, torch.bfloat16)
    one.write(torch.tensor([1, 3]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    one.grow(6)
    with pytest.raises(InputError):
        one.grow(2)
    one.close()
    assert MappedTensor(path, (4, 2), key, torch.bfloat16).read(torch.tensor([3, 5])).tolist() == [[3, 4], [0, 0]]
    assert MappedTensor(path, (7, 2), key, torch.bfloat16).shape == (7, 2)
    for shape, other, kind in (
        ((4, 2), {"kind": "x"}, torch.bfloat16),
        ((4, 3), key, torch.bfloat16),
        ((4, 2), key, torch.float32),
    ):
        with pytest.raises(StaleError):
            MappedTensor(path, shape, other, kind)
    with pytest.raises(InputError):
        MappedTensor(tmp_path / "other", (4, 2), key, torch.float64)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(StoreError, match="cut off"):
        MappedTensor(path, (7, 2), key, torch.bfloat16)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(StoreError, match="no file"):
        MappedTensor(path, (7, 2), key, torch.bfloat16)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**31))
def test_rows_are_stepped_as_adamw_would_step_each_alone(rows: int, steps: int, seed: int) -> None:
    """Whichever rows a batch touches: each becomes what torch's AdamW makes of it by its own gradients, in order."""
    g = torch.Generator().manual_seed(seed)
    values, moments, counts = (
        torch.randn(rows, 3, generator=g),
        torch.zeros(rows, 2, 3),
        torch.zeros(rows, dtype=torch.int32),
    )
    alone = [torch.nn.Parameter(one.clone()) for one in values]
    optimisers = [torch.optim.AdamW([one], lr=FAST.rate, weight_decay=FAST.decay, betas=FAST.betas) for one in alone]
    for _ in range(steps):
        touched = (torch.rand(rows, generator=g) < 0.6).nonzero()[:, 0]
        gradient = torch.randn(len(touched), 3, generator=g)
        parts = values[touched], moments[touched], counts[touched]
        FAST.step(parts[0], gradient, parts[1], parts[2])
        values[touched], moments[touched], counts[touched] = parts
        for row, its in zip(touched.tolist(), gradient, strict=True):
            alone[row].grad = its
            optimisers[row].step()
    assert torch.allclose(values, torch.stack([one.detach() for one in alone]), atol=1e-6)


# --- the tree ---


def cloud(count: int, seed: int, centres: int = 12, width: int = 8, spread: float = 0.15):
    g = torch.Generator().manual_seed(seed)
    middle = torch.randn(centres, width, generator=g)
    of = torch.randint(0, centres, (count,), generator=g)
    return middle[of] + spread * torch.randn(count, width, generator=g)


@given(st.integers(2, 4), st.integers(1, 3), st.integers(1, 80), st.integers(0, 1000))
def test_the_walk_is_brute_force_over_the_children_at_each_step(k: int, depth: int, count: int, seed: int) -> None:
    vectors = cloud(count, seed)
    tree = ClusterTree.fit(vectors, k, depth, steps=3, sample=40, seed=seed)
    asked = torch.nn.functional.normalize(torch.cat([vectors, cloud(20, seed + 1)]))
    assert (tree.roots, tree.depth) == (k, depth)
    for vector, address in zip(asked, tree.addresses(asked).tolist(), strict=True):
        at = 0
        for level, number in enumerate(address):
            children = range(at * k, at * k + k)
            distances = {one: float((tree.centroids[level][one] - vector).norm()) for one in children}
            assert distances[number] <= min(distances.values()) + 1e-6
            at = number
        assert all(below // k == above for above, below in itertools.pairwise(address))
        assert torch.isfinite(tree.centroids[-1][address[-1]]).all()


def test_clusters_are_balanced_and_without_it_they_are_k_means() -> None:
    g = torch.Generator().manual_seed(0)
    crowded = torch.cat([torch.randn(900, 6, generator=g) * 0.02 + torch.eye(6)[0], cloud(100, 1, width=6)])
    share = lambda tree: float(tree.addresses(crowded)[:, 0].bincount(minlength=8).max()) / 1000  # noqa: E731
    even, plain = ClusterTree.fit(crowded, 8, 1), ClusterTree.fit(crowded, 8, 1, most=None)
    assert share(even) < share(plain)


def test_the_cost_is_that_of_scikit_learn() -> None:
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn is not installed")
    vectors = torch.nn.functional.normalize(cloud(3000, 3, centres=40, spread=0.4))
    costs = []
    for seed in range(3):
        theirs = cluster.KMeans(16, n_init=1, random_state=seed).fit(vectors.numpy()).inertia_
        tree = ClusterTree.fit(vectors, 16, 1, most=None, steps=60, seed=seed)
        ours = float((vectors - tree.centroids[0][tree.addresses(vectors)[:, 0]]).square().sum())
        costs.append((ours, theirs))
    ours, theirs = np.mean(costs, axis=0)
    assert ours <= 1.02 * theirs


def test_a_walk_keeps_out_of_what_it_is_told() -> None:
    vectors = cloud(200, 2)
    tree = ClusterTree.fit(vectors, 3, 2)
    for vector in vectors[:20]:
        first = tree.address(vector)
        assert tree.address(vector, without=[first[:1]])[0] != first[0]
        second = tree.address(vector, without=[first])
        assert second[0] == first[0] and second != first
        with pytest.raises(InputError, match="keep out"):
            tree.address(vector, without=[(root,) for root in range(3)])


def test_a_tree_grows_by_a_branch_for_a_new_topic() -> None:
    old = cloud(300, 4)
    tree = ClusterTree.fit(old, 3, 2)
    new = -20 * tree.centroids[0].sum(0) + cloud(60, 5)
    grown = tree.grown(new)
    assert (grown.roots, grown.depth) == (4, 2)
    assert all(
        torch.equal(now[: len(before)], before) for now, before in zip(grown.centroids, tree.centroids, strict=True)
    )
    assert (grown.addresses(new)[:, 0] == 3).all() and (grown.addresses(new)[:, 1] >= 9).all()
    stayed = grown.addresses(old)[:, 0] < 3
    assert torch.equal(grown.addresses(old)[stayed], tree.addresses(old)[stayed]) and stayed.float().mean() > 0.9


def test_a_tree_is_kept_and_serves_its_own_embedder_alone() -> None:
    tree = ClusterTree.fit(cloud(50, 0), 3, 2, embedder="one")
    again = ClusterTree.unpack(tree.pack(), "one")
    assert (
        all(torch.equal(*both) for both in zip(tree.centroids, again.centroids, strict=True)) and again.branching == 3
    )
    with pytest.raises(StaleError):
        ClusterTree.unpack(tree.pack(), "another")
    for wrong in (torch.full((3, 8), torch.nan), torch.ones(0, 8), torch.ones(8)):
        with pytest.raises(InputError):
            tree.addresses(wrong)
    with pytest.raises(InputError):
        tree.addresses(torch.ones(2, 5))
    with pytest.raises(InputError):
        ClusterTree.fit(cloud(9, 0), 1, 2)
