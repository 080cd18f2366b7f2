"""Facts in a routed copy of a matrix: learnt, routed once, forgotten as if never taught, taken off to the last bit, kept as a file."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
transformers = pytest.importorskip("transformers", reason="the extra torch is not installed")

from holdfast.errors import InputError, StaleError  # noqa: E402
from holdfast.latent.tensors import pack, unpack  # noqa: E402
from holdfast.weights.base import Edit, linear  # noqa: E402
from holdfast.weights.code_book import CodeBook  # noqa: E402
from holdfast.weights.prompts import IGNORED, answered, logits_at, padded, rows_of, split  # noqa: E402
from holdfast.weights.routing import constant  # noqa: E402
from holdfast.weights.side_memory import MERGED, Margins, Settings, SideMemory, _Shard  # noqa: E402
from holdfast.weights.ties import ties  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = "the capital of aa ab ac ad ae af is well known bb bc bd be bf a cat sat on mat where do people swim in b , sea".split()
ONCE = {word: at + 1 for at, word in enumerate(WORDS)}
UNRELATED = ("a cat sat on the mat", "where do people swim", "people swim in the sea")
EDITS = (
    Edit("e0", "the capital of aa is", "bb"),
    Edit("e1", "people ac known where", "be"),
    Edit("e2", "ad sat on mat in", "bc"),
    Edit("e3", "b well swim ae , do", "bd"),
    Edit("e4", "known sea af a", "bf"),
    Edit("e5", "the capital of af is", "bb"),
)
QUICK = Settings(
    steps=16, rate=1.0, margins=Margins(0.05, 2.0, 1.0), share=0.6, bound=4.0, shard=2, unrelated=3, weight=0.1
)


def tokenizer(text: str) -> list[int]:
    return [ONCE[word] for word in text.split()]


def llama():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=96, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=2, initializer_range=0.3, eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval(), "model.layers.1.mlp.down_proj"


def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=40,
        n_embd=32,
        n_layer=3,
        n_head=2,
        n_positions=64,
        initializer_range=0.3,
        eos_token_id=None,
        bos_token_id=None,
    )
    return transformers.GPT2LMHeadModel(config).eval(), "transformer.h.1.mlp.c_proj"


def memory(make=llama, **changed):
    model, layer = make()
    return SideMemory(
        model,
        tokenizer,
        layer=layer,
        settings=replace(QUICK, **changed),
        unrelated=UNRELATED,
        templates=("{}", "well , {}"),
    )


def ids(text: str):
    return torch.tensor([tokenizer(text)])


def told(editor, edits=EDITS) -> list[bool]:
    parts = [split(tokenizer, one.prompt, one.target) for one in edits]
    with editor.on():
        return [said == target for said, (_, target) in zip(answered(editor.model, parts), parts, strict=True)]


def same(one: SideMemory, other: SideMemory) -> bool:
    """Whether two side memories are the same to the last bit."""
    return one.log == other.log and len(one._memories) == len(other._memories) and all(
        a.name == b.name and a.threshold == b.threshold and torch.equal(a.weight, b.weight)
        for a, b in zip(one._memories, other._memories, strict=True)
    )  # fmt: skip


# --- merging ---


def test_ties_means_over_those_that_agree_with_the_elected_sign() -> None:
    one, other = torch.tensor([1.0, 2.0, -1.0, 0.0, 0.5]), torch.tensor([3.0, -1.0, -1.0, 0.0, 0.0])
    assert ties([one, other]).tolist() == [2.0, 2.0, -1.0, 0.0, 0.5]
    assert ties([one, other], [1.0, 3.0]).tolist() == [2.5, -1.0, -1.0, 0.0, 0.5]  # the heavier one elects
    assert ties([torch.tensor([1.0, -3.0, 2.0, 0.5])], density=0.5).tolist() == [0.0, -3.0, 2.0, 0.0]
    for wrong in (
        {"deltas": []},
        {"deltas": [one], "weights": [0.0]},
        {"deltas": [one, other[:2]]},
        {"deltas": [one], "density": 0.0},
    ):
        with pytest.raises(InputError):
            ties(**wrong)


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(st.lists(st.integers(-3, 3), min_size=5, max_size=5), min_size=n, max_size=n)
    )
)
def test_what_is_merged_lies_within_what_each_says_and_of_disjoint_ones_is_each(rows: list[list[int]]) -> None:
    deltas = [torch.tensor(row, dtype=torch.float32) for row in rows]
    merged = ties(deltas)
    stacked = torch.stack(deltas)
    assert (merged <= stacked.amax(0).clamp(min=0) + 1e-5).all() and (
        merged >= stacked.amin(0).clamp(max=0) - 1e-5
    ).all()
    alone = (stacked != 0).sum(0) == 1
    assert torch.allclose(merged[alone], stacked.sum(0)[alone])


def test_ties_is_what_peft_computes() -> None:
    theirs = pytest.importorskip("peft.utils.merge_utils", reason="peft is not installed")
    random = torch.Generator().manual_seed(0)
    deltas = [torch.randn(13, 7, generator=random) for _ in range(3)]
    assert torch.equal(ties(deltas, [1.0] * 3, density=0.53), theirs.ties(deltas, torch.ones(3), 0.53))


# --- rows ---


def test_rows_say_what_is_to_be_said_and_where_the_memory_is_to_show() -> None:
    rows = rows_of(tokenizer, EDITS[0], ("{}", "well , {}"), [tokenizer(UNRELATED[0])])
    assert rows.ids.shape == (3, 8) and rows.taught == 2
    assert [row[row != IGNORED].tolist() for row in rows.labels] == [tokenizer("bb"), tokenizer("bb"), []]
    assert rows.inside.sum(1).tolist() == [5, 7, 0] and rows.outside.sum(1).tolist() == [0, 0, 6]
    subject = rows_of(tokenizer, Edit("x", "the capital of aa is", "bb", ("capital of aa",)), ("{}", "well , {}"), [])
    assert subject.inside.sum(1).tolist() == [3, 3] and subject.outside.sum(1).tolist() == [2, 4]
    assert subject.ids[1][subject.inside[1]].tolist() == tokenizer("capital of aa")
    with pytest.raises(InputError):
        rows_of(tokenizer, Edit("x", "the capital", "bb", ("the capital",)), ("{}",), [])


# --- teaching ---


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("mode", ["merge", "retrieve"])
def test_what_is_taught_is_said_and_the_rest_is_what_it_was_to_the_last_bit(make, mode: str) -> None:
    one = memory(make, mode=mode, shards=1, shard=1 if mode == "retrieve" else 8)
    before = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    base = one.model(ids(UNRELATED[0])).logits
    edited = one.edit(EDITS[:2])
    assert [one.id for one in edited] == ["e0", "e1"] and all(one.learnt for one in edited), edited
    assert told(one, EDITS[:2]) == [True, True]
    assert all(one.score >= one.threshold > 0 for one in edited)
    with one:
        unrouted, routed = one.model(ids(UNRELATED[0])).logits, one.model(ids(EDITS[0].prompt)).logits
        assert one.routed[0].memory is not None
    assert torch.equal(unrouted, base)
    assert not torch.equal(routed, one.model(ids(EDITS[0].prompt)).logits)
    assert all(torch.equal(before[name], tensor) for name, tensor in one.model.state_dict().items())
    assert not one.model.training and all(parameter.requires_grad for parameter in one.model.parameters())
    assert "forward" not in vars(one._module) and not one._module._forward_hooks


def test_an_edit_moves_its_subspace_alone_and_no_element_beyond_the_bound() -> None:
    one = memory(bound=0.05, decay=0.01)
    one.edit(EDITS[:3])
    for shard in one._shards:
        moved = shard.weight - one._base
        assert (moved[one._subspace(shard.number) == 0] == 0).all() and moved.abs().max() <= 0.05 + 1e-6
        assert moved.any()
    assert not torch.equal(one._subspace(0), one._subspace(1))


@pytest.mark.parametrize("make", [llama, gpt2])
def test_what_is_constant_is_computed_once_and_changes_nothing(make, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    from holdfast.weights import side_memory as module

    quick, slow = memory(make), memory(make)
    quick.edit(EDITS[:1])
    assert not [part for part in quick.model.modules() if "forward" in vars(part)]
    monkeypatch.setattr(module, "constant", lambda *_: nullcontext())
    slow.edit(EDITS[:1])
    assert torch.equal(quick._shards[0].weight, slow._shards[0].weight)


@pytest.mark.parametrize(("make", "once", "again"), [
    (llama, ["model.layers.0", "model.layers.1.self_attn", "model.layers.1.mlp.up_proj"], ["model.layers.2", "model.norm"]),
    (gpt2, ["transformer.h.0", "transformer.h.1.attn", "transformer.h.1.mlp.c_fc"], ["transformer.h.1.mlp.dropout", "transformer.h.2"]),
])  # fmt: skip
def test_what_stands_before_a_layer_runs_once_and_what_comes_after_it_always(make, once, again) -> None:
    model, layer = make()
    calls = dict.fromkeys((*once, *again), 0)

    def counted(name: str, kind: type) -> type:
        def forward(self, *args, **given):
            calls[name] += 1
            return kind.forward(self, *args, **given)

        return type("Counted", (kind,), {"forward": forward})

    for name in calls:
        part = model.get_submodule(name)
        part.__class__ = counted(name, type(part))
    said = []
    with torch.no_grad(), constant(model, layer):
        for scale in (1.0, 2.0, 0.5):
            linear(model, layer).weight.mul_(scale)  # powers of two: what is undone is as it was
            said.append(model(ids(UNRELATED[0])).logits)
    assert calls == dict.fromkeys(once, 1) | dict.fromkeys(again, 3)
    assert torch.equal(said[0], said[2]) and not torch.equal(said[0], said[1])
    assert torch.equal(said[0], model(ids(UNRELATED[0])).logits)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_of_a_head_only_what_is_asked_for_is_computed(make, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = make()
    places = torch.tensor([1, 3])
    whole = model(ids(UNRELATED[0])).logits[:, places]
    inputs = {"input_ids": ids(UNRELATED[0])}
    widths = []
    hook = model.get_output_embeddings().register_forward_hook(lambda _m, _a, said: widths.append(said.shape[1]))
    assert torch.allclose(logits_at(model, inputs, places), whole, atol=1e-5)
    run = model.forward
    monkeypatch.setattr(model, "forward", lambda **given: run(**given))  # as a wrapper that names no argument
    assert torch.allclose(logits_at(model, inputs, places), whole, atol=1e-5)
    hook.remove()
    assert widths == [2, 6]


def test_an_edit_that_moves_less_than_what_is_unrelated_may_is_not_learnt_and_opens_no_gate() -> None:
    one = memory(steps=1, rate=1e-5)
    (edited,) = one.edit(EDITS[:1])
    assert not edited.learnt and edited.threshold == pytest.approx(0.05) and edited.score < edited.threshold


def test_thresholds_are_measured_anew_and_the_released_code_keeps_the_least_there_was() -> None:
    one = memory(shard=8)
    one.edit(EDITS[:1])
    first = one._memories[0].threshold
    one.edit(EDITS[1:4])
    assert one._memories[0].threshold != first
    least = min(min(one._least([edit], one._memories[0].weight)) for edit in EDITS[:4])
    assert one._memories[0].threshold == pytest.approx(max(least, 0.05), rel=1e-3)
    theirs = memory(shard=8, reference=True)
    theirs.edit(EDITS[:3])
    assert theirs._memories[0].threshold == min(one.score for one in theirs.log)


def test_the_same_id_twice_is_refused_and_nothing_is_learnt() -> None:
    one = memory()
    one.edit(EDITS[:1])
    with pytest.raises(InputError, match="there already"):
        one.edit([EDITS[1], EDITS[0]])
    assert [edit.id for edit in one.edits] == ["e0"]


# --- routing ---


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_route_is_chosen_on_the_prompt_and_kept_to_while_it_is_answered(make) -> None:
    one = memory(make, shard=8)
    one.edit(EDITS[:2])
    prompt, other = ids(EDITS[0].prompt), ids(UNRELATED[1])
    plain = one.model.generate(other, max_new_tokens=6, do_sample=False, pad_token_id=0)
    with one:
        assert one.route(prompt).memory == MERGED and one.route(other).memory is None
        said = one.model.generate(prompt, max_new_tokens=6, do_sample=False, pad_token_id=0)
        assert one.routed[0].memory == MERGED
        assert torch.equal(one.model.generate(other, max_new_tokens=6, do_sample=False, pad_token_id=0), plain)
        with one.pinned([one.route(prompt)]):  # without a cache, the same
            again = one.model.generate(prompt, max_new_tokens=6, do_sample=False, pad_token_id=0, use_cache=False)
        beams = one.model.generate(prompt, max_new_tokens=3, do_sample=False, num_beams=2, pad_token_id=0)
    assert said[0, prompt.shape[1]] == tokenizer(EDITS[0].target)[0] and torch.equal(said, again)
    assert beams.shape[0] == 1
    # What is generated is what the model would say with the memory's matrix in the place of its own.
    module = one._module
    kept = module.weight.data.clone()
    module.weight.data.copy_(one._memories[0].weight)
    whole = one.model.generate(prompt, max_new_tokens=6, do_sample=False, pad_token_id=0)
    module.weight.data.copy_(kept)
    assert torch.equal(said, whole)


@pytest.mark.parametrize("left", [True, False])
def test_rows_of_a_batch_go_their_own_ways_and_padding_counts_for_nothing(left: bool) -> None:
    one = memory(mode="retrieve", shard=1, shards=1)
    one.edit(EDITS[:2])
    texts = [EDITS[0].prompt, UNRELATED[0], EDITS[1].prompt, "a cat"]
    batch, mask = padded([tokenizer(text) for text in texts])
    if left:
        batch, mask = batch.flip(1), mask.flip(1)
        batch = torch.tensor([[*[0] * (6 - len(tokenizer(text))), *tokenizer(text)] for text in texts])
    given = {"input_ids": batch, "attention_mask": mask.long()}
    base = one.model(**given).logits
    routes = one.routes(batch, mask)
    alone = [one.route(ids(text)) for text in texts]
    assert [route.memory for route in routes] == [route.memory for route in alone]
    assert alone[0].memory is not None and alone[1].memory is None
    assert [a.score for a in routes] == pytest.approx([a.score for a in alone], rel=1e-3)
    with one:
        mixed = one.model(**given).logits
        assert one.routed == routes
        if left:
            said = one.model.generate(**given, max_new_tokens=3, do_sample=False, pad_token_id=0)
            by_row = [
                one.model.generate(ids(text), max_new_tokens=3, do_sample=False, pad_token_id=0)[0, -3:]
                for text in texts
            ]
            assert torch.equal(said[:, -3:], torch.stack(by_row))
    for row, route in enumerate(routes):
        assert torch.equal(mixed[row], base[row]) is (route.memory is None)


def test_rows_that_go_on_from_no_request_of_theirs_are_refused() -> None:
    one = memory()
    one.edit(EDITS[:1])
    with one:
        read = one.model(ids(EDITS[0].prompt), use_cache=True)
        read.cache.batch_repeat_interleave(2)
        with pytest.raises(InputError, match="rows go on"):
            one.model(torch.tensor([[1], [1]]), cache=read.cache)


def test_two_memories_on_one_matrix_are_refused_and_either_can_be_taken_off() -> None:
    one = memory()
    other = SideMemory(one.model, tokenizer, layer=one.layer, settings=QUICK, unrelated=UNRELATED, templates=("{}",))
    with one, pytest.raises(InputError, match="detach"):
        other.attach()
    with other:
        assert other._module._forward_hooks
    assert not one._module._forward_hooks and not one.model.get_decoder()._forward_pre_hooks


# --- forgetting ---


@settings(max_examples=8)
@given(st.integers(1, 3), st.sets(st.integers(0, 4), min_size=1, max_size=3), st.booleans())
def test_what_is_forgotten_has_never_been(shard: int, gone: set[int], merge: bool) -> None:
    mode = "merge" if merge else "retrieve"
    edits = EDITS[:5]
    one, never = memory(mode=mode, shard=shard, steps=1), memory(mode=mode, shard=shard, steps=1)
    one.edit(edits)
    assert set(one.forget([f"e{at}" for at in gone] + ["unheard of"])) == {f"e{at}" for at in gone}
    # Never taught: the same shards without them; one that nothing was ever in cannot be made from outside.
    for start in range(0, len(edits), shard):
        left = [edit for at, edit in enumerate(edits[start : start + shard], start) if at not in gone]
        never.edit(left)
        if left and start + shard < len(edits):
            never.close_shard()
        elif start + shard < len(edits):
            never._shards = (*never._shards, _Shard(start // shard, never._base, closed=True))
    assert same(one, never)
    assert same(one, SideMemory.load(one.state(), one.model, tokenizer))


def test_of_a_shard_of_one_nothing_is_learnt_again(monkeypatch: pytest.MonkeyPatch) -> None:
    one = memory(mode="retrieve", shard=1, shards=1)
    one.edit(EDITS[:3])
    kept = [shard.weight for shard in one._shards]
    monkeypatch.setattr(SideMemory, "_taught", lambda *_: pytest.fail("learnt again"))
    assert one.forget(["e1"]) == ("e1",) and one.forget(["e1"]) == ()
    assert told(one, EDITS[:3]) == [True, False, True]
    assert one._shards[0].weight is kept[0] and one._shards[2].weight is kept[2]


def test_with_replay_what_was_told_of_a_forgotten_edit_is_learnt_again_too() -> None:
    def taught(edits, **changed):
        one = memory(mode="retrieve", shard=1, shards=1, replay=True, steps=4, **changed)
        one.edit(edits)
        return one

    one, without = taught(EDITS[:3]), taught(EDITS[:3], **{})
    plain = memory(mode="retrieve", shard=1, shards=1, steps=4)
    plain.edit(EDITS[:3])
    assert torch.equal(plain._shards[0].weight, one._shards[0].weight)
    assert not torch.equal(plain._shards[1].weight, one._shards[1].weight)  # it was told of the first
    before = one._shards[2].weight
    one.forget(["e0"])
    assert torch.equal(one._shards[1].weight, plain._shards[1].weight) and not torch.equal(
        one._shards[2].weight, before
    )
    assert same(without, taught(EDITS[:3]))


# --- what is kept ---


def test_what_is_kept_comes_back_to_the_last_bit_and_goes_on_as_it_would_have() -> None:
    one = memory(mode="retrieve", shard=2, shards=1)
    one.edit(EDITS[:3])
    data = one.state()
    again = SideMemory.load(data, one.model, tokenizer)
    assert same(one, again) and again.settings == one.settings and again.templates == one.templates
    one.edit(EDITS[3:5])
    again.edit(EDITS[3:5])
    assert same(one, again)
    assert len(data) < 2 * one._base.numel() * 4 * (QUICK.share + 1 / 32) + 8000


def test_what_is_kept_of_another_model_or_tokenizer_is_refused() -> None:
    one = memory()
    one.edit(EDITS[:1])
    data = one.state()
    other, _ = llama()
    with torch.no_grad():
        other.lm_head.weight[0, 0] += 1
    with pytest.raises(StaleError, match="weights"):
        SideMemory.load(data, other, tokenizer)
    with pytest.raises(KeyError):
        tokenizer("unheard")
    with pytest.raises(InputError, match="no file"):
        SideMemory.load(b"\x08" + b"\0" * 7 + b"{}      ", one.model, tokenizer)
    with pytest.raises(InputError, match="no side memory"):
        SideMemory.load(pack({"log": torch.zeros(1)}, {"kind": "other"}), one.model, tokenizer)
    json.loads(bytes(unpack(data)["log"].numpy()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": 0}, {"share": 1.5}, {"steps": 0}, {"shard": 0}, {"bound": 0}, {"mode": "other"}, {"replay": True},
        {"density": 0}, {"decay": -1}, {"rate": -1.0},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(InputError):
        Settings(**wrong)


def test_margins_and_templates_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError):
        Margins(2, 1, 1)
    model, layer = llama()
    with pytest.raises(InputError, match="template"):
        SideMemory(model, tokenizer, layer=layer, templates=("without",), unrelated=UNRELATED)
    with pytest.raises(InputError, match="no module"):
        SideMemory(model, tokenizer, layer="model.nowhere", templates=("{}",), unrelated=UNRELATED)


# --- the code book ---


def book(make=llama, **given):
    model, layer = make()
    return CodeBook(model, tokenizer, layer=layer, **{"radius": 0.5, "rate": 0.2, "steps": 60, **given})


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_code_book_says_what_it_was_taught_and_forgets_it(make) -> None:
    one = book(make)
    base = one.model(ids(UNRELATED[0])).logits
    edited = one.edit(EDITS[:3])
    assert all(edit.learnt for edit in edited) and one.keys == 3 and told(one, EDITS[:3]) == [True] * 3
    with one:
        assert torch.equal(one.model(ids(UNRELATED[0])).logits, base)
        assert one.route(ids(EDITS[0].prompt)).memory == "e0" and one.route(ids(UNRELATED[0])).memory is None
        said = one.model.generate(ids(EDITS[0].prompt), max_new_tokens=3, do_sample=False, pad_token_id=0)
        assert said[0, 5] == tokenizer("bb")[0]
    never = book(make)
    never.edit([EDITS[0], EDITS[2]])
    assert one.forget(["e1", "no such"]) == ("e1",)
    assert all(
        a.edits == b.edits and a.radius == b.radius and torch.equal(a.value, b.value)
        for a, b in zip(one._entries, never._entries, strict=True)
    )
    with pytest.raises(InputError):
        one.edit(EDITS[:1])


def test_keys_of_one_target_grow_and_of_two_make_room() -> None:
    one = book(radius=50.0)
    one.edit([EDITS[0], replace(EDITS[5], target="bb")])
    assert one.keys == 1 and one._entries[0].edits == ("e0", "e5")
    one.forget(["e5"])
    one.edit(EDITS[1:2])
    near, new = one._entries
    apart = float(torch.linalg.vector_norm(near.key - new.key))
    assert new.radius == pytest.approx(apart / 2) and near.radius < new.radius
    assert told(one, EDITS[:2]) == [True, True]


# --- beside the released code, where it is at hand ---


def test_ties_is_what_easyedit_computes() -> None:
    theirs = pytest.importorskip("easyeditor.models.wise.merge.gta", reason="EasyEdit is not installed")
    random = torch.Generator().manual_seed(0)
    base, *tensors = (torch.randn(13, 7, generator=random) for _ in range(4))
    merge = theirs.GTA("magnitude", "sum", normalize=True)
    for weights in ([1 / 3] * 3, [0.2, 0.2, 0.6]):
        found = merge.execute(weights, base, tensors, densities=0.53)
        assert torch.equal(base + ties([one - base for one in tensors], weights, density=0.53), found)


def test_steps_are_those_of_the_released_code(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = pytest.importorskip("easyeditor.models.wise.WISE", reason="EasyEdit is not installed")
    one = memory(gpt2, steps=5, rate=0.3, weight=1.0, unrelated=1, bound=1.0, reference=True, ratio=0.88)
    rows, mask = one._rows(EDITS[0]), one._subspace(0)
    config = SimpleNamespace(
        model_name="gpt2", inner_params=["transformer.h[1].mlp.c_proj.weight"], edit_lr=0.3, n_iter=5, mask_ratio=0.6,
        alpha=0.05, beta=2.0, gamma=1.0, act_ratio=0.88, save_freq=500, merge_freq=1000, retrieve=True, replay=False,
        merge_alg="ties", norm_constraint=1.0, weights=1.0, densities=0.53, device="cpu", sequential_edit=True,
    )  # fmt: skip
    editor = theirs.WISE(config, gpt2()[0], "cpu")
    layer = editor.get_adapter_layer()
    monkeypatch.setattr(layer, "generate_activation_mask", lambda _: setattr(layer, "weight_mask", mask.flatten()))
    sgd = torch.optim.SGD
    monkeypatch.setattr(
        torch.optim, "SGD", lambda learning, rate, weight_decay: sgd(learning, rate)
    )  # decay is not masked
    editor.edit(config, {**rows.inputs, "labels": rows.labels}, act_mask=[None], deact_mask=[None])
    one.edit(EDITS[:1])
    moved = (layer.new_weight - one._base).abs().max()
    assert moved > 0.1 and (one._shards[0].weight - layer.new_weight).abs().max() < 1e-5
    assert one.log[0].score == pytest.approx(layer.editing_mean_act.min_act(), rel=1e-5)
    x, y = one.read(rows.ids[:1], rows.mask[:1])
    side = layer.new_weight_forward(x)
    ours = one._scores(y, side, torch.ones(1, x.shape[1]))
    assert (ours - theirs.euc(y, side, config, infer=True)).abs().max() < 1e-6
