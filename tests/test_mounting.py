"""Layers in a model: positions, masks and padding stay right, a session's state goes on, is kept, branched and refused to others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")

from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM  # noqa: E402

from holdfast.cube import Channel, Cube, Form, Origin  # noqa: E402
from holdfast.errors import InputError, StaleError  # noqa: E402
from holdfast.latent.bmojo import BMojo  # noqa: E402
from holdfast.latent.matrix_memory import MatrixMemory  # noqa: E402
from holdfast.latent.mixture import MixtureOfMemories  # noqa: E402
from holdfast.latent.mounting import Beside, mounted  # noqa: E402
from holdfast.latent.titans import NeuralMemory  # noqa: E402
from holdfast.latent.titans_blocks import TitansBlock  # noqa: E402
from holdfast.store.forget import forget  # noqa: E402
from support import ANA, add, open_store  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
LAYERS = {
    "matrix": lambda: MatrixMemory(32, 2, key_dim=8),
    "mixture": lambda: MixtureOfMemories(32, 2, key_dim=8),
    "titans": lambda: NeuralMemory(32, 2, head_dim=8, chunk=4),
    "bmojo": lambda: BMojo(32, 2, head_dim=8, window=4, eidetic=3),
    "mac": lambda: TitansBlock(32, 2, head_dim=8, mode="mac", window=8, chunk=4),
    "mag": lambda: TitansBlock(32, 2, head_dim=8, mode="mag", window=8, chunk=4),
}


def model_of(kind: str = "llama", attention: str = "sdpa"):
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES) if kind == "llama" else Qwen3Config(**SIZES, head_dim=8)
    config._attn_implementation = attention
    return (LlamaForCausalLM if kind == "llama" else Qwen3ForCausalLM)(config).eval()


def layer_of(name: str, beside: bool = False):
    torch.manual_seed(1)
    layer = LAYERS[name]()
    if not beside:
        return layer.eval()
    found = Beside(layer).eval()
    with torch.no_grad():
        found.gate.fill_(0.7)
    return found


def ids(rows: int, length: int, seed: int = 1):
    return torch.randint(1, 61, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_what_a_layer_keeps_does_not_keep_all_that_it_has_read(name: str) -> None:
    for length in (64, 67):
        _, state = LAYERS[name]()(torch.randn(2, length, 32))
        for key, one in state.items():
            assert one.untyped_storage().nbytes() <= 4 * one.numel() * one.element_size() + 1024, key


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("places", [(0,), (1,), (0, 1, 2)])
@pytest.mark.parametrize("beside", [False, True])
@torch.no_grad()
def test_reading_in_pieces_with_a_cache_is_one_pass(name: str, kind: str, places, beside: bool) -> None:
    model, text = model_of(kind), ids(2, 21)
    plain = model(text).logits
    with mounted(model, {at: layer_of(name, beside) for at in places}) as session:
        expected = model(text, use_cache=False).logits
        assert not torch.allclose(expected, plain, atol=1e-2)
        session.reset()
        cache, parts = None, []
        for piece in text.split([6, 1, 1, 9, 4], dim=1):
            out = model(piece, cache=cache, use_cache=True)
            cache = out.cache
            parts.append(out.logits)
        assert cache.get_seq_length() == 21
        assert torch.allclose(torch.cat(parts, 1), expected, atol=1e-4)
    assert torch.equal(model(text).logits, plain), "afterwards the model is what it was"


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("beside", [False, True])
def test_generating_is_stepping_by_hand_and_padding_changes_nothing(name: str, attention: str, beside: bool) -> None:
    model, prompts = model_of(attention=attention), [ids(1, 9, 2)[0], ids(1, 5, 3)[0]]
    given = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with mounted(model, {0: layer_of(name, beside), 2: layer_of(name)}) as session:
        alone = []
        for prompt in prompts:
            session.reset()
            alone.append(model.generate(prompt[None], **given)[0, len(prompt) :].tolist())
            said, text = [], prompt[None]
            for _ in range(8):  # without any cache, all of it anew for each token
                session.reset()
                with torch.no_grad():
                    said.append(model(text, use_cache=False).logits[0, -1].argmax().item())
                text = torch.cat([text, torch.tensor([[said[-1]]])], dim=1)
            assert said == alone[-1]
        session.reset()
        padded = torch.stack([prompts[0], torch.cat([torch.zeros(4, dtype=torch.long), prompts[1]])])
        mask = torch.tensor([[1] * 9, [0] * 4 + [1] * 5])
        both = model.generate(padded, attention_mask=mask, **given)[:, 9:].tolist()
    assert both == alone


@torch.no_grad()
def test_a_session_goes_on_over_a_new_cache_and_can_be_kept_restored_branched_and_reset() -> None:
    model, first, second = model_of(), ids(1, 13, 4), ids(1, 7, 5)
    with mounted(model, {0: layer_of("titans"), 1: layer_of("matrix")}) as session:
        fresh = model(second).logits
        session.reset()
        model(first)
        kept, file = session.state(), session.pack()
        after = model(second).logits  # the cache is a new one, the memory is not
        assert not torch.allclose(after, fresh, atol=1e-3)
        for given in (kept, file):
            session.restore(given)
            with session.branch():
                assert torch.equal(model(second).logits, after)
            with session.branch():
                assert torch.equal(model(second).logits, after), "what was read in the branch left no trace"
        session.reset()
        assert session.state() == {} and torch.equal(model(second).logits, fresh)
        session.restore(kept)
    with mounted(model, {0: layer_of("titans"), 1: layer_of("matrix")}) as session:  # another day
        session.restore(file)
        assert torch.equal(model(second).logits, after)


@torch.no_grad()
def test_what_was_kept_goes_back_to_its_owner_model_layer_and_place_alone() -> None:
    model, layer, text = model_of(), layer_of("titans"), ids(1, 9)
    with mounted(model, {1: layer}, owner="ana") as session:
        with pytest.raises(InputError, match="nothing to keep"):
            session.pack()
        model(text)
        file = session.pack()
    other = model_of()
    other.model.layers[2].mlp.up_proj.weight.mul_(1.01)
    coarse, trained = layer_of("titans"), layer_of("titans")
    coarse.chunk = 8
    trained.start[0][0, 0, 0] += 1e-3
    for where, what, owner, word in (
        (model, {1: layer}, "bob", "owner"),
        (other, {1: layer}, "ana", "weights"),
        (model_of("qwen3"), {1: layer}, "ana", "model"),
        (model, {2: layer}, "ana", "layers"),
        (model, {1: coarse}, "ana", "layers"),
        (model, {1: trained}, "ana", "weights"),
    ):
        with mounted(where, what, owner=owner) as session, pytest.raises(StaleError, match=word):
            session.restore(file)
    with mounted(model, {1: layer}, owner="ana") as session:
        session.restore(file)
        layer.path = "recurrent"  # how it is computed is no part of what it is
        session.restore(file)


@torch.no_grad()
def test_a_session_is_a_cube_and_is_forgotten_with_what_it_was_made_of(folder: Path) -> None:
    model, layers, store = model_of(), {0: layer_of("mixture")}, open_store(folder)
    said = add(store, Cube(ANA, "what ana said")).cubes[0]
    with mounted(model, layers, owner="acme/ana") as session:
        model(ids(1, 9))
        kept = session.state()
        blob = store.blobs.put(session.pack(), ANA)
    origin = Origin(Channel.DERIVED, derived_from=(said.ref,))
    cube = add(store, Cube(ANA, form=Form.STATE, blob=blob, origin=origin)).cubes[0]
    with mounted(model, layers, owner="acme/ana") as session:
        session.restore(store.blobs.read(cube))
        assert all(torch.equal(session.state()[0][name], one) for name, one in kept[0].items())
    forget(store, ANA, ids=[said.id]).verify()
    assert not [path for path in store.folder.glob("blobs/**/*") if path.is_file()]
    store.close()


def test_an_ordinary_loop_trains_the_layers_and_nothing_else_if_so_wished() -> None:
    model, text = model_of(), ids(4, 12)
    frozen = {name: one.detach().clone() for name, one in model.named_parameters()}
    layers = {0: Beside(LAYERS["titans"]()), 2: Beside(LAYERS["mixture"]())}
    with torch.no_grad():
        plain = model(text).logits
    optimizer = torch.optim.AdamW([one for layer in layers.values() for one in layer.parameters()], lr=1e-2)
    with mounted(model, layers) as session:
        with torch.no_grad():
            assert torch.allclose(model(text).logits, plain, atol=1e-6), "the gates begin at zero"
        losses = []
        for _ in range(25):
            session.reset()
            loss = model(text, labels=text).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3
    assert all(torch.equal(frozen[name], one) for name, one in model.named_parameters())


def test_gradients_go_back_over_calls_until_they_are_cut() -> None:
    model, layer = model_of(), layer_of("titans")
    with mounted(model, {1: layer}) as session:
        for cut in (False, True):
            session.reset()
            layer.zero_grad()
            model(ids(1, 8))
            if cut:
                session.detach()
            model(ids(1, 1, 9)).logits.sum().backward()
            # With one new token no chunk is complete: the learning rates had a part in the first call alone.
            assert bool(layer.to_rates.weight.grad is not None and layer.to_rates.weight.grad.any()) is not cut


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_in_half_precision_what_is_kept_stays_in_full(name: str) -> None:
    model, text = model_of().to(torch.bfloat16), ids(1, 9)
    for layer in (layer_of(name), layer_of(name).to(torch.bfloat16)):
        with mounted(model, {0: layer}) as session:
            assert model(text).logits.dtype == torch.bfloat16
            kept = session.state()[0]
            written = [one for key, one in kept.items() if "weights" in key or "momentum" in key or "matri" in key]
            assert all(one.dtype == torch.float32 for one in written)
            session.restore(session.pack())
            assert model(text).logits.isfinite().all()


def test_beams_take_their_memory_with_them() -> None:
    model, prompt = model_of(), ids(1, 9, 6)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # a model that has opinions: beams are given up for others
    given = {
        "num_beams": 4,
        "num_return_sequences": 4,
        "max_new_tokens": 12,
        "do_sample": False,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    with mounted(model, {0: layer_of("matrix"), 1: layer_of("titans")}) as session:
        found = model.generate(prompt, **given)
        session.reset()
        # Without a cache each step reads all beams anew, so that nothing has to follow them.
        forward = model.forward

        def anew(*args, **more):
            session.reset()
            return forward(*args, **more)

        model.forward = anew
        expected = model.generate(prompt, **given, use_cache=False)
        del model.forward
    assert found.tolist() == expected.tolist()


def test_what_cannot_be_is_refused() -> None:
    model, layer = model_of(), layer_of("matrix")
    for places in ({3: layer}, {-1: layer}, {0: MatrixMemory(16, 2, key_dim=8)}):
        with pytest.raises(InputError), mounted(model, places):
            pass
    with pytest.raises(InputError, match="blocks in"), mounted(torch.nn.Linear(2, 2), {0: layer}):
        pass
    with mounted(model, {0: layer}) as session:
        with pytest.raises(InputError, match="already"), mounted(model, {0: layer}):
            pass
        model(ids(2, 4))
        with pytest.raises(InputError, match="as many rows"):
            model(ids(3, 4))
        session.reset()
        with pytest.raises(InputError, match="mask of shape"):
            model(ids(1, 4), attention_mask=torch.zeros(1, 1, 4, 4))
        out = model(ids(1, 4), use_cache=True)
        with pytest.raises(InputError, match="taken back"):
            out.cache.crop(-1)
        with pytest.raises(InputError, match="the layers are at"):
            session.restore({2: session.state()[0]})
        model.activation_checkpointing_enable()
        with pytest.raises(InputError, match="twice"):
            model.train()(ids(1, 4))


def test_the_example_of_the_page_runs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "layers.md").read_text()
    (example,) = (
        one for one in re.findall(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "NeuralMemory" in one
    )
    names = {"torch": torch, "model": model_of(), "batches": [ids(2, 12)], "first": ids(1, 9), "second": ids(1, 4)}
    exec(compile(example, "docs/layers.md", "exec"), names)
    assert names["said"].shape[1] <= 4 + 20 and names["session"].state()
