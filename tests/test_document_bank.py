"""A bank of documents: what was removed was never there, owners do not mix, and a file goes back to whom it is of alone."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")

from holdfast.cube import Channel, Cube, Form, Origin  # noqa: E402
from holdfast.errors import ConflictError, InputError, NotFoundError, StaleError  # noqa: E402
from holdfast.latent.document_bank import DocumentBank  # noqa: E402
from holdfast.latent.sparse_attention import attached  # noqa: E402
from holdfast.latent.tensors import pack  # noqa: E402
from holdfast.store.forget import forget  # noqa: E402
from support import ANA, add, open_store  # noqa: E402
from test_sparse_attention import by_hand, ids, model_of, router_of  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = {
    name: ids(1, length, seed)[0]
    for seed, (name, length) in enumerate({"a": 9, "b": 13, "c": 4, "d": 6, "e": 8}.items())
}


def bank_of(names: str = "abcde", owner: str = "", **more) -> DocumentBank:
    model = model_of()
    bank = DocumentBank(model, router_of(model, **more))
    for name in names:
        bank.add(name, TEXTS[name], owner=owner)
    return bank


def answer(bank: DocumentBank, owner: str = ""):
    with torch.no_grad(), attached(bank._model, bank._router) as memory:
        memory.use(bank.documents(owner=owner))
        return bank._model(ids(1, 6, 30)).logits, memory.found()


def test_what_was_removed_was_never_there_to_the_last_bit() -> None:
    bank, without = bank_of(), bank_of("acde")
    assert bank.pack() != without.pack()
    logits, found = answer(bank)
    bank.remove("b")
    assert bank.pack() == without.pack() and bank.ids() == ("a", "c", "d", "e")
    assert torch.equal(answer(bank)[0], answer(without)[0]) and answer(bank)[1] == answer(without)[1]
    one, two = bank.documents(), without.documents()
    assert torch.equal(one.there, two.there) and one.there.shape[2] == 3, "nor does its length show"
    assert all(torch.equal(one.keys[at], two.keys[at]) for at in one.keys)
    with pytest.raises(NotFoundError):
        bank.tokens("b")
    bank.add("b", TEXTS["b"])
    assert bank.pack() == bank_of("edcba").pack(), "nor does the order in which documents came"
    assert torch.equal(answer(bank)[0], logits) and answer(bank)[1] == found
    for name in "abcde":
        bank.remove(name)
    assert bank.documents() is None and bank._owners == {} and bank._stacked == {}


@torch.no_grad()
def test_the_bank_answers_as_all_of_it_by_hand() -> None:
    bank = bank_of()
    logits, found = answer(bank)
    expected, picked = by_hand(bank._model, bank._router, [ids(1, 6, 30)[0]], [TEXTS[name] for name in "abcde"])
    assert torch.allclose(logits[0], expected[0], atol=1e-4)
    assert {at: [["abcde"[n] for n in picked[0][at]]] for at in picked[0]} == found


def test_owners_do_not_mix() -> None:
    bank, bob = bank_of("abc", "ana"), bank_of("de", "bob")
    alone = answer(bank, "ana")
    for name in "de":
        bank.add(name, TEXTS[name], owner="bob")
    bank.add("a", TEXTS["e"], owner="bob")
    assert torch.equal(answer(bank, "ana")[0], alone[0]) and answer(bank, "ana")[1] == alone[1]
    bank.remove("a", owner="bob")
    assert bank.ids(owner="ana") == ("a", "b", "c") and bank.pack(owner="bob") == bob.pack(owner="bob")
    with pytest.raises(NotFoundError):
        bank.remove("d", owner="ana")
    assert bank.documents() is None, "nobody is an owner of their own"
    fresh = bank_of("")
    with pytest.raises(StaleError, match="owner"):
        fresh.restore(bank.pack(owner="ana"), owner="bob")
    assert fresh.ids(owner="bob") == ()


def test_a_bank_is_kept_and_goes_back_to_its_model_router_and_pool_alone() -> None:
    bank = bank_of(owner="ana")
    data, expected = bank.pack(owner="ana"), answer(bank, "ana")
    other = bank_of("")
    other.restore(data, owner="ana")
    assert other.pack(owner="ana") == data and torch.equal(answer(other, "ana")[0], expected[0])
    assert torch.equal(other.tokens("b", owner="ana"), TEXTS["b"])
    bank._router.top_k = 2
    with torch.no_grad():
        bank._router.to_queries["1"].weight.add_(1.0)
    assert answer(bank, "ana")[1] != expected[1], "how it is asked is not what was kept"
    for change, word in (
        (lambda model, _: model.model.layers[0].mlp.up_proj.weight.add_(0.1), "weights"),
        (lambda _, router: router.to_keys["2"].weight.add_(0.1), "keys"),
    ):
        changed = bank_of("a", "ana")
        with torch.no_grad():
            change(changed._model, changed._router)
        for use in (
            lambda changed=changed: changed.documents(owner="ana"),
            lambda changed=changed: changed.add("z", TEXTS["b"], owner="ana"),
            lambda changed=changed: changed.restore(data, owner="ana"),
        ):
            with pytest.raises(StaleError, match=word):
                use()
    with pytest.raises(StaleError, match="pool"):
        bank_of("", pool=8).restore(data, owner="ana")
    with attached(other._model, other._router):
        other.restore(data, owner="ana")  # a memory that is attached makes no other model of it


def test_what_is_no_bank_is_refused() -> None:
    bank = bank_of("a")
    for data in (b"", b"x" * 40, pack({"x": torch.zeros(1)}, {**bank.key(), "owner": "", "ids": ["a"]})):
        with pytest.raises(InputError):
            bank.restore(data)
    good = {"0.tokens": TEXTS["b"]} | {
        f"0.{part}.{at}": torch.zeros(1, 1, 1, 2, 8) for part in ("keys", "values", "routing") for at in (1, 2)
    }
    with pytest.raises(InputError, match="chunks"):
        bank.restore(pack(good, {**bank.key(), "owner": "", "ids": ["a"]}))
    with pytest.raises(ConflictError):
        bank.add("a", TEXTS["b"])
    for tokens in (TEXTS["b"][:0], TEXTS["b"][None]):
        with pytest.raises(InputError):
            bank.add("z", tokens)
    assert bank.ids() == ("a",)
    bank._model.train()
    bank.add("b", TEXTS["b"])
    assert bank._model.training


def test_a_bank_is_a_cube_and_a_document_goes_with_the_text_that_it_was_made_of(folder: Path) -> None:
    store, bank = open_store(folder), bank_of("")
    texts = {name: add(store, Cube(ANA, f"text {name}")).cubes[0] for name in "ab"}
    for name, cube in texts.items():
        bank.add(cube.id, TEXTS[name], owner="acme/ana")
    blob = store.blobs.put(bank.pack(owner="acme/ana"), ANA)
    origin = Origin(Channel.DERIVED, derived_from=tuple(cube.ref for cube in texts.values()))
    kept = add(store, Cube(ANA, form=Form.STATE, blob=blob, origin=origin)).cubes[0]
    again = bank_of("")
    again.restore(store.blobs.read(kept), owner="acme/ana")
    assert again.ids(owner="acme/ana") == tuple(sorted(cube.id for cube in texts.values()))
    forget(store, ANA, ids=[texts["a"].id]).verify()
    assert not [path for path in store.folder.glob("blobs/**/*") if path.is_file()]
    again.remove(texts["a"].id, owner="acme/ana")
    bank = bank_of("")
    bank.add(texts["b"].id, TEXTS["b"], owner="acme/ana")
    assert again.pack(owner="acme/ana") == bank.pack(owner="acme/ana"), "the rest is kept without reading it again"
    store.close()
