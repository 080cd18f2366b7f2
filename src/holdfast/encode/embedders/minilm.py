"""all-MiniLM-L6-v2, offline: int8 through onnxruntime, or float32 where that is missing (Sentence-BERT, 1908.10084)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from holdfast.encode.base import Vectors
from holdfast.encode.embedders import minilm_graph, minilm_numpy
from holdfast.encode.embedders.artefact import cache_directory, load_or_build
from holdfast.encode.embedders.text import clean
from holdfast.encode.embedders.weights import (
    HIDDEN,
    MAX_TOKENS,
    Weights,
    installed,
    load_tokenizer,
    load_weights,
    require,
)
from holdfast.errors import EmbedderError, MissingExtraError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Precision = Literal["int8", "float32"]
Forward = Callable[[npt.NDArray[np.int64]], Vectors]

VERSION = 1
ARTEFACT = f"all-MiniLM-L6-v2-int8-{VERSION}.onnx"
SHA256 = "99204a29088528ea2b911754a79b346e2265f461369db5b8d7cb0aa427b42ee3"

# First components in float32 by torch 2.13.0 and transformers 5.24.0 (how: tests/test_embedders.py).
GOLDEN: dict[str, tuple[float, ...]] = {
    "I moved to Lisbon in May.": (0.1178, -0.0280, 0.0860, 0.0361, 0.0212, 0.0204, -0.0637, -0.0189),
    "今日は雨です。": (0.0356, 0.1093, 0.0781, 0.0249, -0.0331, 0.0406, 0.1191, 0.0143),
    "שלום, מה שלומך? 😀": (0.0109, 0.0988, 0.0023, -0.0095, -0.0968, 0.1183, 0.0972, -0.0459),
}
_TOLERANCE = {"int8": 0.015, "float32": 0.0005}

# A fresh artefact must come this near to float32 on each of these; they measured 0.9975 to 0.9993.
_LEAST_COSINE = 0.99
_PROBES = (
    *GOLDEN,
    "Ana asked whether the invoice of 3 March (€1,240.50) was ever paid; nobody could say.",
    "def area(r): return 3.14159 * r ** 2",
    "memory " * 40,
)

# 254 pieces of English take about 1,200 characters: the first cut suffices for nearly every text, and where it does, its
# tokens are those of the whole text. The second bounds what a text of endless words or of blanks can cost.
_CHARACTERS = (4_096, 65_536)
_TOKENS_A_RUN = 512


class MiniLM:
    """384-d unit vectors of texts up to 256 tokens; of a longer text its beginning counts.

    ``precision`` is int8 where onnxruntime is installed and float32 otherwise, unless named; to a store the two are
    different models. ``threads`` share the texts of a call (default: what OMP_NUM_THREADS says, else one for each core).
    ``cache`` is the directory of the int8 artefact, which is built at the first use on a machine, in about a second. The
    model is loaded by the first ``embed``; several threads may call it.

    Raises MissingExtraError where a part is not installed.
    """

    dimension = HIDDEN

    def __init__(
        self, precision: Precision | None = None, *, threads: int | None = None, cache: Path | None = None
    ) -> None:
        require()
        if precision == "int8" and not installed("onnxruntime"):
            raise MissingExtraError("MiniLM in int8 needs onnxruntime. Install it with: pip install 'holdfast[embed]'")
        self._precision: Precision = precision or ("int8" if installed("onnxruntime") else "float32")
        self._threads = max(1, threads or _cores())
        self._cache = cache or cache_directory()
        self._lock = threading.Lock()
        self._loaded: tuple[Tokenizer, Forward] | None = None
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    @property
    def model(self) -> str:
        """Name, precision and version of the artefact."""
        return model_id(self._precision)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), 384). Raises InputError, EmbedderError."""
        cleaned = clean(texts, _CHARACTERS[-1])
        tokenizer, forward = self._load()
        ids = [_tokens(tokenizer, text) for text in cleaned]
        vectors = np.empty((len(ids), HIDDEN), dtype=np.float32)

        def run(rows: list[int]) -> None:
            vectors[rows] = forward(np.array([ids[row] for row in rows], dtype=np.int64))

        runs = list(_runs([len(tokens) for tokens in ids]))
        if self._threads == 1 or len(runs) < 2:
            for rows in runs:
                run(rows)
        else:
            list(self._workers().map(run, runs))
        if not np.isfinite(vectors).all():
            raise EmbedderError("MiniLM gave a vector that is not finite; none of these texts was embedded.")
        return vectors

    def _workers(self) -> ThreadPoolExecutor:
        """Kept from call to call: to start a thread takes about as long as to embed a short text."""
        with self._lock:
            if self._pool is None or self._pool[0] != os.getpid():  # a fork has the pool, but none of its threads
                self._pool = os.getpid(), ThreadPoolExecutor(self._threads, thread_name_prefix="holdfast-embed")
            return self._pool[1]

    def _load(self) -> tuple[Tokenizer, Forward]:
        with self._lock:
            if self._loaded is None:
                tokenizer = load_tokenizer()
                forward = _open(self._precision, self._cache, tokenizer)
                _check_golden(tokenizer, forward, self._precision)
                self._loaded = tokenizer, forward
            return self._loaded


def _cores() -> int:
    """What is said of whatever computes in this process, else the cores that it may run on."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list has a number for each level
    if said.isdigit() and int(said):
        return int(said)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def model_id(precision: Precision) -> str:
    """What a store records: a change of precision or of the artefact's version makes it another model."""
    return f"all-MiniLM-L6-v2/{precision}/{VERSION}"


def _tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = []
    for limit in _CHARACTERS:
        ids = tokenizer.encode(text[:limit]).ids
        if len(ids) == MAX_TOKENS or len(text) <= limit:
            break
    return ids


def _runs(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Row numbers, longest first, so that a run holds texts of one length only and about _TOKENS_A_RUN tokens in all."""
    run: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if run and (lengths[row] != lengths[run[0]] or (len(run) + 1) * lengths[row] > _TOKENS_A_RUN):
            yield run
            run = []
        run.append(row)
    if run:
        yield run


def _open(precision: Precision, cache: Path, tokenizer: Tokenizer) -> Forward:
    if precision == "float32":
        weights = load_weights()
        return lambda ids: minilm_numpy.forward(weights, ids)
    return session(load_or_build(cache, ARTEFACT, SHA256, lambda: _build(tokenizer)))


def session(model: bytes) -> Forward:
    """An onnxruntime session for a graph of ``minilm_graph``. Raises EmbedderError."""
    try:
        import onnxruntime
    except ImportError as error:
        raise EmbedderError(f"onnxruntime is installed but does not load ({error}); reinstall it.") from error
    options = onnxruntime.SessionOptions()
    # Threads share the texts, not the insides of one product: that scales better and leaves no thread spinning.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # The graph is written fused; further fusing replaces LayerNormalization by a kernel nine times slower.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    runtime = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def forward(ids: npt.NDArray[np.int64]) -> Vectors:
        vectors: Vectors = runtime.run([minilm_graph.OUTPUT], {minilm_graph.INPUT: ids})[0]
        return vectors

    return forward


def _build(tokenizer: Tokenizer) -> bytes:
    """The int8 artefact, compared with the float32 forward pass before anyone uses it."""
    weights: Weights = load_weights()
    model = minilm_graph.build(weights, int8=True)
    forward = session(model)
    for text in _PROBES:
        ids = np.array([_tokens(tokenizer, text)], dtype=np.int64)
        cosine = float(forward(ids)[0] @ minilm_numpy.forward(weights, ids)[0])
        if not cosine >= _LEAST_COSINE:
            raise EmbedderError(
                f"The int8 model just built is wrong: cosine {cosine:.3f} with float32 on {text[:30]!r}, at least "
                f"{_LEAST_COSINE} expected. It was not kept. Use MiniLM('float32') and please report this platform."
            )
    return model


def _check_golden(tokenizer: Tokenizer, forward: Forward, precision: Precision) -> None:
    """Refuses a runtime that computes something else than the model; such runtimes load and run without complaint."""
    for text, expected in GOLDEN.items():
        vector = forward(np.array([_tokens(tokenizer, text)], dtype=np.int64))[0]
        error = float(np.abs(vector[: len(expected)] - np.array(expected, dtype=np.float32)).max())
        if not error <= _TOLERANCE[precision]:
            raise EmbedderError(
                f"MiniLM ({precision}) computes wrong vectors here: {text!r} is off by {error:.3f}, at most "
                f"{_TOLERANCE[precision]} is allowed. Update onnxruntime and numpy, and please report this platform."
            )
