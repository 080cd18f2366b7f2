"""Adapters that a model distils itself: it tells without the text what it told with it, and is itself again, to the last bit, without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
transformers = pytest.importorskip("transformers", reason="the extra torch is not installed")
pytest.importorskip("tokenizers", reason="the extra embed is not installed")
pytest.importorskip("peft", reason="the extra peft is not installed")

from benchmarks import three_forms  # noqa: E402

from holdfast.bench.fact_world import World, overheard, tokenizer, trained, world  # noqa: E402
from holdfast.cube import Form, Status  # noqa: E402
from holdfast.errors import HoldfastError, InputError, StaleError  # noqa: E402
from holdfast.imprint import KIND, Gate, Imprint  # noqa: E402
from holdfast.latent.identity import config_digest, weights_digest  # noqa: E402
from holdfast.latent.reader import Reader  # noqa: E402
from holdfast.latent.tensors import key_of, pack, unpack  # noqa: E402
from holdfast.memory import Memory  # noqa: E402
from holdfast.store.base import Operation, Where  # noqa: E402
from holdfast.teaching import Lesson  # noqa: E402
from holdfast.weights.base import Edit  # noqa: E402
from holdfast.weights.distilled_adapter import DistilledAdapter, Settings  # noqa: E402
from holdfast.weights.side_memory import SideMemory  # noqa: E402
from support import Clock  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

OPEN = Gate(passing=0.0, drift=1.0)


@pytest.fixture(scope="module")
def facts() -> World:
    return world(6, 2, seed=0)


@pytest.fixture(scope="module")
def words():
    return tokenizer()


@pytest.fixture(scope="module")
def reads(facts: World, words):
    """A model that tells what the sentence before a prompt says."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return trained(facts.known, words, steps=100, width=96, hidden=128, layers=2, batch=24, reading=overheard)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def model(reads) -> Iterator[object]:
    """The same, which each test must leave as it was."""
    before = told(reads), weights_digest(reads), config_digest(reads), [*reads.state_dict()]
    grads = [one.requires_grad for one in reads.parameters()]
    yield reads
    assert torch.equal(told(reads), before[0])
    assert (weights_digest(reads), config_digest(reads), [*reads.state_dict()]) == before[1:]
    assert [one.requires_grad for one in reads.parameters()] == grads
    assert not hasattr(reads, "peft_config")
    assert not any("lora" in type(one).__module__ for one in reads.modules())


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


def told(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([[5, 6, 7], [9, 4, 30]])).logits


def editor(model, words, facts: World, **given) -> DistilledAdapter:
    maps = ("o_proj", "down_proj", "c_proj")  # what a block adds: two maps in seven cost half as much as all
    settings = Settings(**({"rank": 4, "rate": 1e-2, "steps": 60, "batch": 32, "targets": maps} | given))
    return DistilledAdapter(
        model, words, settings=settings, templates=("{}",), unrelated=[one.prompt(at % 4) for at, one in enumerate(facts.known)],
    )  # fmt: skip


def edits(facts: World, *which: int) -> list[Edit]:
    some = [facts.new[at] for at in which]
    return [
        Edit(f"f{at}", one.prompt(), one.value, context=f"{one.text}\n") for at, one in zip(which, some, strict=True)
    ]


def asked(model, words, *prompts: str) -> list:
    with torch.no_grad():
        return [
            model(input_ids=torch.tensor([words(one)["input_ids"]]), use_cache=False).logits[0, -1] for one in prompts
        ]


def says(model, words, *prompts: str) -> list[str]:
    return [words.decode(one.argmax()) for one in asked(model, words, *prompts)]


# --- by itself ---


def test_a_model_tells_without_the_text_what_it_tells_with_it(model, words, facts):
    some = facts.new[:4]
    values = [one.value for one in some]
    assert says(model, words, *(f"{one.text}\n{one.prompt()}" for one in some)) == values
    adapter = editor(model, words, facts)
    found = adapter.edit(edits(facts, 0, 1, 2, 3))
    assert all(one.learnt for one in found) and says(model, words, *(one.prompt() for one in some)) != values
    with adapter:
        assert says(model, words, *(one.prompt() for one in some)) == values
        with adapter.apart():
            assert says(model, words, *(one.prompt() for one in some)) != values
        assert says(model, words, some[0].prompt()) == values[:1]


def test_a_request_that_nothing_was_taught_of_is_answered_by_the_model_itself_in_the_same_batch(model, words, facts):
    adapter = editor(model, words, facts)
    adapter.edit(edits(facts, 0, 1))
    texts = [facts.known[1].prompt(), facts.new[0].prompt(), "so then I think"]
    rows = [words(text)["input_ids"] for text in texts]
    long = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (long - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (long - len(row)) for row in rows])
    with torch.no_grad():
        before = model(input_ids=ids, attention_mask=mask).logits
        with adapter:
            after = model(input_ids=ids, attention_mask=mask).logits
            assert [one.memory for one in adapter.routed] == [None, "0", None]
            scores = [one.score for one in adapter.routed]
            model.model(ids, mask)  # a mask that is not named is one too
            assert [one.score for one in adapter.routed] == pytest.approx(scores, rel=1e-4)
    assert torch.equal(before[0], after[0]) and torch.equal(before[2], after[2])
    assert not torch.equal(before[1], after[1])


def test_what_is_generated_goes_on_with_the_adapter_it_was_begun_with(model, words, facts):
    adapter = editor(model, words, facts)
    adapter.edit(edits(facts, 0))
    ids = torch.tensor([words(facts.new[0].prompt())["input_ids"]])
    given = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    with adapter:
        said = model.generate(ids, **given)
        assert words.decode(said[0, ids.shape[1]]) == facts.new[0].value
        assert adapter.routed[0].memory == "0"
        assert torch.equal(said, model.generate(ids, **given))
        cache = model(input_ids=ids, use_cache=True).cache
        with pytest.raises(InputError, match="rows go on"):
            model(input_ids=torch.tensor([[4], [5]]), cache=cache)
    with adapter, pytest.raises(InputError, match="input_ids"):
        model(inputs_embeds=torch.zeros(1, 2, model.config.hidden_size))


def test_what_is_forgotten_leaves_exactly_what_would_be_without_it(model, words, facts):
    ours, never = editor(model, words, facts), editor(model, words, facts)
    before = asked(model, words, *(one.prompt() for one in facts.new))
    ours.edit(edits(facts, 0, 1, 2))
    ours.edit(edits(facts, 4, 5))
    other = unpack(ours.state([1]))
    assert ours.forget(["f1", "nothing"]) == ("f1",)
    never.edit(edits(facts, 0, 2))
    never.edit(edits(facts, 4, 5))
    assert ours.state() == never.state()
    assert all(torch.equal(one, unpack(ours.state([1]))[name]) for name, one in other.items())
    with ours:
        assert says(model, words, facts.new[0].prompt(), facts.new[4].prompt()) == [
            facts.new[at].value for at in (0, 4)
        ]
    assert ours.forget(["f0", "f2"]) == ("f0", "f2") and ours.shards == {1: ("f4", "f5")}
    ours.forget(["f4", "f5"])
    with ours:
        assert ours.edits == () and all(
            map(torch.equal, asked(model, words, *(one.prompt() for one in facts.new)), before)
        )


def test_a_file_is_taken_up_again_and_no_other_is(model, words, facts):
    first = editor(model, words, facts)
    first.edit(edits(facts, 0, 1))
    first.edit(edits(facts, 2))
    kept = first.state()
    second = editor(model, words, facts)
    second.edit(edits(facts, 5))
    assert second.join(kept) == ("f0", "f1", "f2") and second.join(kept) == ()
    assert sorted(second.shards.values()) == [("f0", "f1"), ("f2",), ("f5",)]
    with second:
        prompts = [facts.new[at].prompt() for at in (0, 1, 2, 5)]
        assert says(model, words, *prompts) == [facts.new[at].value for at in (0, 1, 2, 5)]
    for wrong in (
        editor(model, words, facts, rank=2),
        DistilledAdapter(model, words, settings=first.settings, templates=("{}",), unrelated=["so then I think"]),
    ):
        with pytest.raises(StaleError):
            wrong.join(kept)


def test_a_file_of_another_model_is_not_taken_up(model, words, facts):
    first = editor(model, words, facts)
    first.edit(edits(facts, 0))
    other = trained(facts.known, words, steps=2, width=96, hidden=128, layers=2, seed=3)
    with pytest.raises(StaleError, match="weights"):
        editor(other, words, facts).join(first.state())
    with torch.no_grad():
        other.load_state_dict(model.state_dict())
        other.model.layers[1].mlp.down_proj.weight[0, 0] += 1e-6
    with pytest.raises(StaleError, match="weights"):
        editor(other, words, facts).join(first.state())


def test_a_file_that_was_cut_or_made_up_is_refused_and_changes_nothing(model, words, facts):
    adapter = editor(model, words, facts)
    adapter.edit(edits(facts, 0, 1))
    kept = adapter.state()
    fresh = editor(model, words, facts)
    for cut in (0, 4, 8, 200, len(kept) // 2, len(kept) - 1):
        with pytest.raises(HoldfastError):
            fresh.join(kept[:cut])
    tensors, key = unpack(kept), key_of(kept)
    name = next(one for one in tensors if one.endswith(".A"))
    log = json.loads(bytes(tensors["log"].numpy()))
    typed = {**log["pieces"][0]["log"][0], "edit": log["pieces"][0]["log"][0]["edit"] | {"prompt": 7}}
    typed = {"pieces": [{"number": 0, "log": [typed]}]}
    none = {**log, "pieces": [{**log["pieces"][0], "log": []}]}
    for made_up in (
        {one: value for one, value in tensors.items() if one != name},
        tensors | {name: torch.zeros(2, 2)},
        tensors | {name: torch.full_like(tensors[name], float("nan"))},
        tensors | {"log": torch.zeros(3, dtype=torch.uint8)},
        tensors | {"log": torch.tensor([*b'{"pieces": 7}'], dtype=torch.uint8)},
        tensors | {"log": torch.tensor([*json.dumps(typed).encode()], dtype=torch.uint8)},
        tensors | {"log": torch.tensor([*json.dumps(none).encode()], dtype=torch.uint8)},
    ):
        with pytest.raises((InputError, StaleError)):
            fresh.join(pack(made_up, key))
    side = SideMemory(model, words, layer="model.layers.0.mlp.down_proj", templates=("{}",), unrelated=["so then"])
    side.edit(edits(facts, 0))
    with pytest.raises((InputError, StaleError)):
        fresh.join(side.state())
    assert fresh.edits == () and fresh.join(kept) == ("f0", "f1")


def test_what_cannot_be_taught_is_refused_before_anything_is(model, words, facts):
    adapter = editor(model, words, facts)
    adapter.edit(edits(facts, 0))
    before = adapter.state()
    with pytest.raises(InputError, match="there already"):
        adapter.edit(edits(facts, 1, 0))
    with pytest.raises(InputError, match="no context"):
        adapter.edit([*edits(facts, 1), replace(edits(facts, 2)[0], context=" ")])
    assert adapter.state() == before and adapter.edit([]) == ()
    with adapter, pytest.raises(InputError, match="adapter on it already"):
        editor(model, words, facts)
    with pytest.raises(InputError, match="no adapter goes on"):
        editor(model, words, facts, targets=("nowhere",))
    with pytest.raises(InputError, match="linear maps alone"):
        editor(model, words, facts, targets=("embed_tokens",))


def test_a_model_of_another_make_is_itself_again_too(words, facts):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(words), n_embd=24, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    other = transformers.GPT2LMHeadModel(config).eval()
    other.transformer.h[1].requires_grad_(False)
    before, digest, grads = told(other), weights_digest(other), [one.requires_grad for one in other.parameters()]
    adapter = editor(other, words, facts)
    one = edits(facts, 0)[0]
    value = says(other, words, f"{one.context} {one.prompt}")[0]
    (found,) = adapter.edit([replace(one, target=value)])
    with adapter:
        assert found.learnt and says(other, words, one.prompt) == [value]
    assert torch.equal(told(other), before) and weights_digest(other) == digest
    assert [one.requires_grad for one in other.parameters()] == grads


# --- as memories ---


def imprinted(memory: Memory, model, words, facts: World, **given) -> Imprint:
    return memory.imprint(editor(model, words, facts), **({"gate": OPEN, "contexts": ("today {}",)} | given))


def remembered(memory: Memory, facts: World, *which: int, source: str = "ana") -> list[str]:
    return [memory.add(facts.new[at].text, source=source).ids[0] for at in which]


def test_what_was_promoted_together_is_one_cube_and_is_told_in_another_program(
    folder, clock, memory, model, words, facts
):
    imprint = imprinted(memory, model, words, facts)
    ids = remembered(memory, facts, 0, 1, 2)
    promotion = memory.promote([*ids, ids[0]], to="weights", model=imprint)
    (row,) = memory.select(Where(kinds=(KIND,)))
    assert {cube.id for cube in promotion.cubes} == {row.id} and row.form is Form.WEIGHTS and not promotion.refused
    assert {ref.id for ref in row.origin.derived_from} == {*ids} and imprint.probe().direct == 1.0
    with opened(folder, clock) as other:
        second = imprinted(other, model, words, facts)
        assert set(second.facts) == {*ids} and second.probe().direct == 1.0
        other.forget(ids[1]).verify()
        assert set(second.facts) == {ids[0], ids[2]}
        imprint.load()
    assert set(imprint.facts) == {ids[0], ids[2]} and imprint.probe().direct == 1.0


def test_forgotten_it_is_as_if_never_taught_and_the_receipt_says_so(memory, model, words, facts):
    imprint = imprinted(memory, model, words, facts)
    mail, kept = remembered(memory, facts, 0, 1, source="mail:7"), remembered(memory, facts, 4, 5)
    assert memory.promote([*mail, *kept], to="weights", model=imprint).refused == {}
    receipt = memory.forget(source="mail:7").verify()
    (step,) = [one for one in receipt.forms if one.holder == "weights"]
    assert step.measured["direct before"] == step.measured["others before"] == step.measured["others after"] == 1.0
    assert step.measured["direct after"] < 1.0
    assert not any(facts.new[at].value in str(receipt.to_dict()) for at in (0, 1))
    never = editor(model, words, facts)
    never.edit(
        [
            Edit(id, one.prompt(), one.value, context=f"{one.text}\n")
            for id, one in zip(kept, facts.new[4:6], strict=True)
        ]
    )
    ours, theirs = unpack(imprint.editor.state()), unpack(never.state())
    assert all(torch.equal(one, theirs[name]) for name, one in ours.items())
    (row,) = memory.select(Where(kinds=(KIND,)))
    assert {ref.id for ref in row.origin.derived_from} == {*kept}


def test_a_fact_that_the_gate_does_not_pass_is_learnt_out_again_and_the_others_stay(memory, model, words, facts):
    def teach(cube):  # of one the model is to say what its text does not
        fact = next(one for one in facts.new if one.text == cube.text)
        return Lesson(fact.prompt(), fact.value if fact != facts.new[1] else "Ghent", rephrased=(fact.prompt(1),))

    imprint = imprinted(memory, model, words, facts, teach=teach, gate=Gate(passing=0.0, of_read=0.0, drift=1.0))
    ids = remembered(memory, facts, 0, 1, 2)
    refused = memory.promote(ids, to="weights", model=imprint).refused
    assert refused == {ids[1]: "the model does not tell it"}
    assert set(imprint.facts) == {ids[0], ids[2]} == {one.id for one in imprint.editor.edits}
    strict = memory.imprint(editor(model, words, facts, steps=1), gate=Gate(passing=1.0, drift=0.0), name="strict")
    assert len(memory.promote(ids, to="weights", model=strict).refused) == 3 and strict.editor.edits == ()
    assert strict.editor.shards == {}


def test_what_is_told_is_measured_by_what_is_told_with_the_text(memory, model, words, facts):
    def teach(cube):  # asked for somebody whom the model knows, it says what it reads, and by itself what it knows
        fact = next(one for one in facts.new if one.text == cube.text)
        return Lesson(fact.prompt(), fact.value, rephrased=(facts.known[0].prompt(),) * (fact == facts.new[0]))

    imprint = imprinted(memory, model, words, facts, teach=teach, contexts=("{}",), gate=replace(OPEN, of_read=1.0))
    ids = remembered(memory, facts, 0, 1)
    refused = memory.promote(ids, to="weights", model=imprint).refused
    assert [*refused] == [ids[0]] and "100% when it reads it" in refused[ids[0]] and imprint.facts == (ids[1],)
    with pytest.raises(InputError):
        Gate(of_read=1.5)


def test_a_fact_quarantined_after_it_was_promoted_is_told_no_more_and_its_neighbours_are(memory, model, words, facts):
    imprint = imprinted(memory, model, words, facts)
    ids = remembered(memory, facts, 0, 1)
    memory.promote(ids, to="weights", model=imprint)
    held = memory.get(ids[0]).with_(status=Status.QUARANTINED)
    memory.apply([Operation.update(held, "it looks wrong")], actor="ana")
    imprint.load()
    assert imprint.facts == (ids[1],) and [one.id for one in imprint.editor.edits] == [ids[1]]
    with imprint.editor.on():
        assert says(model, words, facts.new[1].prompt()) == [facts.new[1].value]
    assert [ref.id for row in memory.select(Where(kinds=(KIND,))) for ref in row.origin.derived_from].count(ids[0]) == 0


def test_a_source_that_is_revoked_is_told_no_more_and_what_was_taught_with_it_is(memory, model, words, facts):
    imprint = imprinted(memory, model, words, facts)
    (theirs,), ids = remembered(memory, facts, 0, source="crm"), remembered(memory, facts, 1, 4)
    assert memory.promote([theirs, *ids], to="weights", model=imprint).refused == {}
    memory.revoke(source="crm").verify()
    assert set(imprint.facts) == {*ids} and imprint.probe().direct == 1.0
    memory.correct(ids[0], f"{facts.new[1].prompt()} Rome")
    imprint.load()
    assert imprint.facts == (ids[1],)
    (promoted,) = memory.promote([ids[1]], to="weights", model=imprint).cubes
    assert [ref.id for ref in promoted.origin.derived_from] == [ids[1]]


def test_one_fact_in_three_forms_in_miniature():
    small = world(4, 2, seed=1)
    reader, its_words = three_forms.reads(small, 1, steps=20, width=32, hidden=64)
    found = three_forms.measure(small, reader, its_words, 1, Settings(rank=2, steps=5, batch=16), count=3)
    held = three_forms.passed(found)
    assert held["the cache is exact"] and held["the same afterwards"] and json.dumps(found)
    assert found["told"]["text"] == found["told"]["KV cache"]
    assert found["memory tokens read a question"]["KV cache"] == 0 < found["memory tokens read a question"]["text"]
    assert len(found["refused"]) <= 3


def test_what_is_forgotten_while_it_is_taught_does_not_stay(memory, model, words, facts, monkeypatch):
    imprint = imprinted(memory, model, words, facts)
    ids = remembered(memory, facts, 0, 1)
    learn, done = imprint.editor._learn, []

    def forgets(*given):
        if not done:
            done.append(memory.forget(ids[0]))
        return learn(*given)

    monkeypatch.setattr(imprint.editor, "_learn", forgets)
    refused = memory.promote(ids, to="weights", model=imprint).refused
    assert "taken back while" in refused[ids[0]] and imprint.facts == (ids[1],)
    assert [one.id for one in imprint.editor.edits] == [ids[1]]
    done[0].verify()
    (row,) = memory.select(Where(kinds=(KIND,)))
    assert [ref.id for ref in row.origin.derived_from] == [ids[1]]


def test_a_chat_answers_from_an_adapter_and_after_forgetting_does_not(memory, model, words, facts):
    reader = Reader(model, words)
    key = reader.key
    imprint = imprinted(memory, model, words, facts)
    (id,) = remembered(memory, facts, 0)
    memory.promote([id], to="weights", model=imprint)
    found = memory.chat(facts.new[0].prompt(), model=reader, imprint=imprint, length=1)
    assert (found.form, found.text) == (Form.WEIGHTS, facts.new[0].value) and [one.id for one in found.cubes] == [id]
    assert reader.key == key
    memory.forget(id)
    assert memory.chat(facts.new[0].prompt(), model=reader, imprint=imprint, length=1).form is Form.TEXT
