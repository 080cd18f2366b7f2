"""Mixed value embeddings: the acceptance tests of the paper's sheet, by number, and what a table on disk must keep to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM  # noqa: E402

from holdfast.errors import InputError, StaleError  # noqa: E402
from holdfast.latent.identity import weights_digest  # noqa: E402
from holdfast.weights.sparse_adam import AdamW  # noqa: E402
from holdfast.weights.value_bank import ValueBank  # noqa: E402
from holdfast.weights.value_table import ValueTable  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

V, PAD, RULE = 30, 0, AdamW(rate=0.1, decay=0.01)
IDS = torch.arange(2 * 7).view(2, 7) * 5 % 19 + 1  # tokens from 20 on are in no batch


def llama(kv: int = 4, layers: int = 2, pad: int | None = PAD):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=V,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=kv,
        initializer_range=0.3,
        pad_token_id=pad,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def gpt2():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=V,
        n_embd=16,
        n_layer=2,
        n_head=4,
        n_positions=64,
        initializer_range=0.3,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config).eval()


MODELS = pytest.mark.parametrize("make", [llama, lambda: llama(kv=2), gpt2], ids=["llama", "grouped queries", "gpt2"])


def filled(bank: ValueBank, seed: int = 1) -> ValueBank:
    """Rows and gates of its own, as if trained."""
    g = torch.Generator().manual_seed(seed)
    bank.table.write(torch.arange(V), torch.randn(V, bank.table.width, generator=g))
    for one in bank.gates:
        with torch.no_grad():
            one.weight.copy_(torch.randn(one.weight.shape, generator=g))
    return bank


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(ids, use_cache=False).logits


def told(bank: ValueBank, model, ids=IDS):
    with bank.attach(model):
        return logits(model, ids)


# --- the eight acceptance tests ---


@MODELS
def test_1_a_zero_bank_is_the_model_to_the_last_bit_and_detaching_leaves_nothing(make) -> None:
    model = make()
    before, digest = logits(model), weights_digest(model)
    bank = ValueBank(model, 3)
    assert torch.equal(told(bank, model), before)
    assert not torch.allclose(told(filled(bank), model), before, atol=1e-2)
    assert torch.equal(logits(model), before) and weights_digest(model) == digest


@MODELS
def test_2_a_token_that_is_in_no_batch_has_no_gradient_and_its_training_state_stays(make) -> None:
    model = make()
    bank = filled(ValueBank(model, 2))
    every = torch.arange(V)
    before = bank.table.read(every), *bank.table.state(every)
    with bank.attach(model):
        model(IDS, labels=IDS, use_cache=False).loss.backward()
        rows = bank.waiting()
        assert [len(one) for one in rows] == [len(IDS.unique())] and rows[0].grad.abs().sum() > 0
        bank.step(RULE)
    after = bank.table.read(every), *bank.table.state(every)
    there = torch.isin(every, IDS)
    told_of = IDS[:, :-1].unique()  # of a row's last token nothing is told
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[~there], new[~there])
        assert all(not torch.equal(old[one], new[one]) for one in told_of)


def test_2_rows_are_stepped_as_a_dense_table_would_be_by_adamw() -> None:
    """Against one leaf for the whole table, mixed by the formula, with every token in every batch; two passes to a step."""
    model = llama()
    bank = filled(ValueBank(model, 2, zero=()))
    ids = torch.arange(V).view(2, 15)
    dense = torch.nn.Parameter(bank.table.read(torch.arange(V)))
    optimiser = torch.optim.AdamW([dense], lr=RULE.rate, weight_decay=RULE.decay, betas=RULE.betas)
    twin = filled(ValueBank(model, 2, zero=()))
    twin._rows = lambda ids: [dense.view(V, 4, 2, 4)[ids]] * 2  # the same mixing, another way to the rows
    for _ in range(3):
        optimiser.zero_grad()
        with twin.attach(model):
            for some in ids:
                model(some[None], labels=some[None], use_cache=False).loss.backward()
        optimiser.step()
        with bank.attach(model):
            for some in ids:
                model(some[None], labels=some[None], use_cache=False).loss.backward()
            bank.step(RULE)
    assert torch.allclose(bank.table.read(torch.arange(V)), dense.detach(), atol=1e-5)


@MODELS
def test_3_a_bank_on_disk_gives_the_same_logits_as_one_in_memory(make, tmp_path: Path) -> None:
    model = make()
    ram, disk = filled(ValueBank(model, 3)), filled(ValueBank(model, 3, folder=tmp_path, keep=5))
    assert torch.equal(told(ram, model), told(disk, model))
    for bank in (ram, disk):
        with bank.attach(model, IDS[0].tolist()):
            for _ in range(3):
                model(IDS, labels=IDS, use_cache=False).loss.backward()
                bank.step(RULE)
    assert torch.equal(told(ram, model), told(disk, model))
    disk.flush()
    disk.table.close()
    again = ValueBank(model, 3, folder=tmp_path)
    assert torch.equal(told(again, model), told(ram, model))
    with pytest.raises(StaleError, match="slots"):
        ValueBank(model, 2, folder=tmp_path)


@MODELS
def test_4_prefill_and_decoding_with_a_cache_equal_the_whole(make) -> None:
    model = make()
    bank = filled(ValueBank(model, 2))
    with torch.no_grad(), bank.attach(model):
        whole = model(IDS, use_cache=False).logits
        out = model(IDS[:, :3], use_cache=True)
        parts, cache = [out.logits], out.past_key_values
        for at in range(3, IDS.shape[1]):
            parts.append(model(IDS[:, at : at + 1], cache=cache).logits)
        assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-5)
        greedy = IDS
        for _ in range(4):
            greedy = torch.cat([greedy, model(greedy, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
        assert torch.equal(model.generate(IDS, max_new_tokens=4, do_sample=False, eos_token_id=None), greedy)


@pytest.mark.parametrize("kv", [1, 2, 4])
@pytest.mark.parametrize("slots", [1, 3])
def test_5_shapes_with_grouped_queries_are_of_the_heads_that_have_values(kv: int, slots: int) -> None:
    model = llama(kv=kv)
    bank = filled(ValueBank(model, slots))
    assert bank.width == kv * 4 and bank.size == V * slots * kv * 4
    assert bank.lookup(IDS).shape == (2, 7, slots, kv * 4)
    assert bank.gates[0].weight.shape == (kv * (slots + 1), 16)
    seen = []
    hook = model.model.layers[0].self_attn.o_proj.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    x = model.model.layers[0].input_layernorm(model.model.embed_tokens(IDS[:, :1]))
    told(bank, model, IDS[:, :1])
    hook.remove()
    # Of a single token attention is its value: each query's head has that of its group, by the formula.
    gates = 2 * torch.sigmoid(x @ bank.gates[0].weight.T).view(2, 1, kv, slots + 1)
    own = (x @ model.model.layers[0].self_attn.v_proj.weight.T).view(2, 1, kv, 4)
    vectors = bank.lookup(IDS[:, :1]).view(2, 1, slots, kv, 4)
    mixed = gates[..., :1] * own + sum(gates[..., at + 1, None] * vectors[:, :, at] for at in range(slots))
    assert torch.allclose(seen[0], mixed.repeat_interleave(4 // kv, dim=2).flatten(2), atol=1e-5)


def test_6_the_row_of_padding_stays_zero() -> None:
    model = llama()
    bank = filled(ValueBank(model, 2))
    ids = torch.cat([IDS, torch.full((2, 3), PAD)], dim=1)
    with bank.attach(model):
        for _ in range(2):
            model(ids, labels=ids, use_cache=False).loss.backward()
            bank.step(RULE)
    assert not bank.lookup(torch.tensor([[PAD]])).any() and not bank.table.state(torch.tensor([PAD]))[0].any()
    named = ValueBank(model, 2, zero=(3, 4))
    filled(named)
    assert not named.lookup(torch.tensor([[3, 4]])).any() and named.lookup(torch.tensor([[PAD]])).any()


def test_7_all_gates_are_one_at_the_start() -> None:
    model = llama()
    bank = ValueBank(model, 3)
    hidden = torch.randn(5, 16)
    assert all(torch.equal(2 * torch.sigmoid(gate(hidden)), torch.ones(5, 16)) for gate in bank.gates)
    # So the vectors are added as they are, and the model's own value stays.
    bank.table.write(torch.arange(V), torch.randn(V, bank.table.width))
    plain = ValueBank(model, 3, scaled=False)
    plain.table.write(torch.arange(V), bank.table.read(torch.arange(V)))
    assert torch.equal(told(bank, model), told(plain, model))


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("scaled", [True, False])
def test_8_the_operations_counted_are_those_of_the_formula(slots: int, scaled: bool) -> None:
    model = llama(kv=2)
    bank = ValueBank(model, slots, scaled=scaled)
    with FlopCounterMode(display=False) as without:
        logits(model)
    with FlopCounterMode(display=False) as counted:
        told(bank, model)
    more = counted.get_total_flops() - without.get_total_flops()
    assert more == bank.flops(16) * IDS.numel()
    assert bank.flops(16) == 2 * (2 * 16 * 2 * (slots + scaled) + 2 * slots * 8)


def test_the_share_of_operations_is_small_at_the_papers_sizes() -> None:
    """2.3 % of a block's maps, 24 D², at D = 2048, 16 heads and 32 slots; the paper says about 1.8 %."""
    sizes = SimpleNamespace(layers=1, heads=16, slots=32, scaled=True, width=2048)
    assert ValueBank.flops(sizes, 2048) / (24 * 2048**2) == pytest.approx(0.0228, abs=1e-4)


# --- parity ---


def test_with_one_slot_no_gate_on_the_value_and_a_table_a_layer_it_is_the_baseline() -> None:
    """MoVE whose only slot is another in each layer equals LaVE; and the same rows in every layer's own table equal the shared bank."""
    model = llama()
    layered, shared = ValueBank(model, 1, shared=False, scaled=False), ValueBank(model, 1, scaled=False)
    filled(shared)
    rows = shared.table.read(torch.arange(V)).view(V, 4, 1, 4)
    layered.table.write(torch.arange(V), rows.expand(V, 4, 2, 4).reshape(V, -1))
    for a, b in zip(layered.gates, shared.gates, strict=True):
        a.load_state_dict(b.state_dict())
    assert layered.size == 2 * shared.size
    assert torch.equal(told(layered, model), told(shared, model))


def test_the_baseline_is_that_of_nanochat_on_the_same_weights() -> None:
    """Its attention: v + 2σ(W x[:12]) · E_layer[token] by head; written down anew here, as what comes out of it is compared."""
    model = llama(layers=1)
    bank = filled(ValueBank(model, 1, shared=False, scaled=False))
    with torch.no_grad():
        bank.gates[0].weight[:, 12:] = 0
    inner = model.model.layers[0].self_attn
    x = torch.randn(2, 7, 16)
    turn = model.model.rotary_emb(x, torch.arange(7)[None])
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    q, k, v = (proj(x).view(2, 7, 4, 4) for proj in (inner.q_proj, inner.k_proj, inner.v_proj))
    gate = 2 * torch.sigmoid(x[..., :12] @ bank.gates[0].weight[:, :12].T)
    v = v + gate[..., None] * bank.lookup(IDS).view(2, 7, 4, 4)
    q, k = apply_rotary_pos_emb(q.transpose(1, 2), k.transpose(1, 2), *turn)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True)
    wanted = inner.o_proj(wanted.transpose(1, 2).flatten(2))
    found = []
    hook = inner.register_forward_hook(lambda _m, _a, out: found.append(out[0]))
    swap = model.model.layers[0].input_layernorm.register_forward_hook(lambda *_: x)
    told(bank, model)
    hook.remove(), swap.remove()
    assert torch.allclose(found[0], wanted, atol=1e-5)


# --- what else it keeps to ---


def test_layers_that_share_nothing_read_and_train_their_own_slots() -> None:
    model = llama()
    bank = ValueBank(model, 2, shared=False)
    assert bank.columns == 4
    vectors = torch.zeros(V, 4, 4, 4)
    vectors[:, :, 2:] = 1.0
    bank.table.write(torch.arange(V), vectors.view(V, -1))
    first = []
    hook = model.model.layers[0].register_forward_hook(lambda _m, _a, out: first.append(out))
    logits(model), told(bank, model)
    hook.remove()
    assert torch.equal(*first) and not torch.allclose(logits(model), told(bank, model))


def test_a_cache_of_another_state_of_the_bank_is_refused() -> None:
    model = llama()
    bank = filled(ValueBank(model, 2))
    with torch.no_grad():
        plain = model(IDS, use_cache=True).past_key_values
        with bank.attach(model):
            with pytest.raises(StaleError, match="cache"):
                model(IDS[:, :1], cache=plain)
            begun = model(IDS, use_cache=True).past_key_values
            model(IDS[:, :1], cache=begun)
        bank.drop([5])
        with bank.attach(model), pytest.raises(StaleError, match="cache"):
            model(IDS[:, :1], cache=begun)


def test_it_serves_its_own_model_and_packs_for_it_alone() -> None:
    model, other = llama(), gpt2()
    bank = filled(ValueBank(model, 2))
    with bank.attach(model):
        model(IDS, labels=IDS, use_cache=False).loss.backward()
        bank.step(RULE)
    again = ValueBank(model, 2)
    again.restore(bank.pack())
    assert torch.equal(told(again, model), told(bank, model))
    every = torch.arange(V)
    assert all(torch.equal(*both) for both in zip(bank.table.state(every), again.table.state(every), strict=True))
    with pytest.raises(StaleError), bank.attach(other):
        pass
    for wrong in (ValueBank(other, 2), ValueBank(model, 3)):
        with pytest.raises(StaleError):
            wrong.restore(bank.pack())
    with torch.no_grad():
        model.lm_head.weight += 1
    with pytest.raises(StaleError):
        bank.check(model)
    bank.rebind(model)
    told(bank, model)
    with pytest.raises(InputError), bank.attach(model):
        model(inputs_embeds=torch.zeros(1, 2, 16))
    with pytest.raises(InputError):
        ValueBank(model, 0)


def test_dropping_erases_the_rows_of_tokens_in_the_files(tmp_path: Path) -> None:
    model = llama()
    bank = filled(ValueBank(model, 2, folder=tmp_path))
    with bank.attach(model):
        model(IDS, labels=IDS, use_cache=False).loss.backward()
        bank.step(RULE)
    bank.flush()
    seven, everything = torch.tensor([6]), lambda: b"".join(one.read_bytes() for one in tmp_path.iterdir())
    traces = [one[0].numpy().tobytes() for one in (bank.table.read(seven), bank.table.state(seven)[0])]
    assert all(trace in everything() for trace in traces)
    bank.drop([6])
    assert not any(trace in everything() for trace in traces)
    assert not bank.fetch([6])["6"].any() and bank.fetch([7])["7"].shape == (2, 16)
    with pytest.raises(InputError):
        bank.fetch([V])


def test_tokens_with_like_vectors_are_near(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        bank = filled(ValueBank(llama(), 2, folder=folder))
        own = bank.table.read(torch.tensor([9]))
        bank.table.write(torch.tensor([12]), own * 2 + 0.01)
        (best, likeness), *rest = bank.nearest(9, 3)
        assert best == 12 and likeness > 0.99 and len(rest) == 2 and 9 not in {at for at, _ in rest}


def test_rows_are_fetched_ahead_and_the_latest_used_are_kept(tmp_path: Path) -> None:
    table = ValueTable(10, 3, folder=tmp_path, key={"kind": "test"}, keep=3)
    table.write(torch.arange(10), torch.arange(10.0)[:, None].expand(10, 3))
    table.prefetch([1, 2])
    assert table.read(torch.tensor([2])).tolist() == [[2, 2, 2]] and table.kept == (1, 2)
    table.read(torch.tensor([1, 5]))
    assert table.kept == (2, 1, 5)
    table.read(torch.tensor([7]))
    assert table.kept == (1, 5, 7)
    assert all(one.untyped_storage().nbytes() == 3 * 4 for one in table._kept.values())  # and no neighbours with it
    assert table.read(torch.arange(10))[:, 0].tolist() == [*range(10)] and table.kept == (1, 5, 7)  # too many to keep
    table.write(torch.tensor([5]), torch.full((1, 3), -1.0))
    assert table.kept == (1, 7) and table.read(torch.tensor([5])).tolist() == [[-1, -1, -1]]
    table.prefetch([8, 9])
    table.write(torch.tensor([8]), torch.zeros(1, 3))  # what was fetched before is not what there is
    assert not table.read(torch.tensor([8])).any()
    with pytest.raises(InputError):
        table.prefetch([10])
    table.close()


@given(
    st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=5, unique=True), min_size=1, max_size=6),
    st.integers(1, 4),
)
def test_a_table_on_disk_is_one_in_memory_whatever_is_done(changes: list[list[int]], keep: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as home:
        tables = ValueTable(8, 2, zero=(0,)), ValueTable(8, 2, folder=Path(home), keep=keep, zero=(0,))
        for turn, ids in enumerate(changes):
            at = torch.tensor(ids)
            for table in tables:
                table.prefetch(ids)
                match turn % 3:
                    case 0:
                        table.step(at, torch.arange(2.0 * len(ids)).view(-1, 2) - 1, RULE)
                    case 1:
                        table.write(at, torch.ones(len(ids), 2) * turn)
                    case _:
                        table.erase(ids[:1])
            assert torch.equal(*(table.read(torch.arange(8)) for table in tables))
            assert torch.equal(*(table.read(at) for table in tables))
            assert not tables[1].read(torch.tensor([0])).any() and len(tables[1].kept) <= keep
        tables[1].close()


def test_numbers_of_half_the_size_are_near(tmp_path: Path) -> None:
    model = llama()
    whole, half = filled(ValueBank(model, 2)), filled(ValueBank(model, 2, folder=tmp_path, kind=torch.bfloat16))
    assert torch.allclose(told(whole, model), told(half, model), atol=0.2)
    assert (tmp_path / "values.safetensors").stat().st_size == 4096 + V * 2 * 16 * 2
    assert {*half.fetch([1])} == {"1"}
