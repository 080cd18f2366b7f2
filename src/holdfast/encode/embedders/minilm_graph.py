"""all-MiniLM-L6-v2 as an ONNX graph written node by node, in float32 or in int8.

Every run holds texts of one and the same length in tokens, so there is no padding and no mask anywhere. The int8 graph
quantises weights per output column and activations per token (symmetric, scale max|x| / 127): a text's vector then does
not depend on what shares its run but in its last bits (1e-7), as it does with the per-tensor DynamicQuantizeLinear, and it
lies closer to float32.
A few channels are far larger than the rest in every text; they are scaled down before quantising and the weights that
read them scaled up, as in SmoothQuant (2211.10438, eq. 3), which takes three fifths of the remaining error away.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from holdfast.encode.embedders.onnx_writer import Graph
from holdfast.encode.embedders.weights import HEADS, HIDDEN, LAYERS, MAX_TOKENS, Weights

INPUT, OUTPUT = "ids", "vectors"

_Array = npt.NDArray[np.float32]
_CONTRIB = "com.microsoft"
_EPSILON = 1e-12
_GELU_FLOOR = 0.17  # gelu(x) > -0.17 for every x, so gelu(x) + 0.17 uses all eight bits of an unsigned byte

# What the large channels of the hidden state are divided by. Measured on English turns and on single words, the marks at
# both ends of a text reach 30 in channel 99 where the median channel stays below 2. Powers of two, to be exact.
_LARGE = {63: 4, 99: 8, 127: 2, 157: 4, 223: 4, 267: 2, 338: 2}


def build(weights: Weights, *, int8: bool) -> bytes:
    """A serialised ONNX model: ``ids`` int64 (texts, tokens) to ``vectors`` float32 (texts, 384), of unit length."""
    return _Builder(weights, int8).build()


def quantise_rows(table: _Array) -> tuple[npt.NDArray[np.int8], _Array]:
    """(rows, n) as int8 and one float32 scale a row, shape (rows, 1): values * scale is nearly the table."""
    scale = np.abs(table).max(axis=1, keepdims=True) / np.float32(127)
    return np.rint(table / scale).astype(np.int8), scale


def _quantise_columns(weight: _Array) -> tuple[npt.NDArray[np.int8], _Array]:
    """(k, n) as int8 and one float32 scale a column, shape (n,), such that the product is exact on every processor.

    x86 without VNNI multiplies bytes in pairs and adds each pair in 16 bits, saturating: 255 (w0 + w1) must stay below
    32,768. So it is the largest sum of a pair of equal sign, not the largest weight, that becomes 127; rounding can make
    it 128.
    """
    pairs = weight.reshape(-1, 2, weight.shape[1])
    up, down = np.maximum(pairs, 0).sum(axis=1).max(axis=0), np.maximum(-pairs, 0).sum(axis=1).max(axis=0)
    scale = np.maximum(up, down) / np.float32(127)
    return np.rint(weight / scale).astype(np.int8), scale


def _divisors() -> _Array:
    divisors = np.ones(HIDDEN, dtype=np.float32)
    divisors[list(_LARGE)] = list(_LARGE.values())
    return divisors


@dataclass(frozen=True, slots=True)
class _Quantised:
    """Rows of activations as unsigned bytes, the zero point that they share, and the scale of each row.

    ``divisors`` tells by what each channel was divided before.
    """

    values: str
    zero: str
    scale: str
    divisors: _Array | None = None


@dataclass(slots=True)
class _Builder:
    weights: Weights
    int8: bool
    graph: Graph = field(default_factory=Graph)

    def build(self) -> bytes:
        ids = self.graph.input(INPUT, np.int64, ["texts", "tokens"])
        hidden = self._norm(self._embeddings(ids), "embeddings")
        for layer in range(LAYERS):
            hidden = self._layer(hidden, f"encoder.layer.{layer}.")
        mean = self.graph.op("ReduceMean", hidden, axes=[1], keepdims=0)
        self.graph.output(self.graph.op("LpNormalization", mean, axis=-1, p=2), OUTPUT, np.float32, ["texts", HIDDEN])
        return self.graph.model(opset=17, domains=[_CONTRIB])

    def _embeddings(self, ids: str) -> str:
        op, constant = self.graph.op, self.graph.constant
        table = self.weights["embeddings.word_embeddings.weight"]
        if self.int8:
            values, scale = quantise_rows(table)
            word = op("Cast", op("Gather", constant(values), ids), to=1)
            word = op("Mul", word, op("Gather", constant(scale), ids))
        else:
            word = op("Gather", constant(table), ids)
        places = self.weights["embeddings.position_embeddings.weight"][:MAX_TOKENS]
        places = places + self.weights["embeddings.token_type_embeddings.weight"][0]
        start = constant(np.array([0], dtype=np.int64))
        length = op("Gather", op("Shape", ids), constant(np.array([1], dtype=np.int64)))
        return op("Add", word, op("Slice", constant(places), start, length, start))

    def _layer(self, hidden: str, prefix: str) -> str:
        op = self.graph.op
        x = self._hidden_rows(hidden)
        names = [f"{prefix}attention.self.{name}" for name in ("query", "key", "value")]
        biases = np.concatenate([self.weights[f"{name}.bias"] for name in names])
        attended = op(
            "MultiHeadAttention",
            *(self._product(x, name) for name in names),
            self.graph.constant(biases),
            domain=_CONTRIB,
            num_heads=HEADS,
        )
        mixed = self._linear(self._rows(attended), f"{prefix}attention.output.dense")
        hidden = self._norm(op("Add", hidden, mixed), f"{prefix}attention.output")
        wide = self._product(self._hidden_rows(hidden), f"{prefix}intermediate.dense")
        wide = op(
            "BiasGelu", wide, self.graph.constant(self.weights[f"{prefix}intermediate.dense.bias"]), domain=_CONTRIB
        )
        narrow = self._after_gelu(wide, f"{prefix}output.dense")
        return self._norm(op("Add", hidden, narrow), f"{prefix}output")

    def _norm(self, x: str, name: str) -> str:
        scale, bias = (self.graph.constant(self.weights[f"{name}.LayerNorm.{part}"]) for part in ("weight", "bias"))
        return self.graph.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=_EPSILON)

    def _linear(self, x: str | _Quantised, name: str) -> str:
        return self.graph.op("Add", self._product(x, name), self.graph.constant(self.weights[f"{name}.bias"]))

    def _after_gelu(self, x: str, name: str) -> str:
        """The linear layer that follows a gelu."""
        op = self.graph.op
        if not self.int8:
            return self._linear(x, name)
        # W (g + floor) - floor W 1 = W g: the second term goes into the bias.
        values, scale = _quantise_columns(self.weights[f"{name}.weight"].T)
        sums = values.sum(axis=0, dtype=np.int64) * scale.astype(np.float64)
        bias = (self.weights[f"{name}.bias"] - _GELU_FLOOR * sums).astype(np.float32)
        raised = op("Add", x, self.graph.scalar(_GELU_FLOOR))
        most = op("ReduceMax", raised, axes=[-1], keepdims=1)
        row = self._bytes(raised, op("Mul", most, self.graph.scalar(1 / 255)), zero=0)
        return op("Add", self._product(row, name), self.graph.constant(bias))

    def _hidden_rows(self, x: str) -> str | _Quantised:
        """The hidden state made ready for a product, its large channels scaled down."""
        if not self.int8:
            return x
        rows = self._rows(self.graph.op("Mul", x, self.graph.constant(1 / _divisors())))
        assert isinstance(rows, _Quantised)
        return replace(rows, divisors=_divisors())

    def _rows(self, x: str) -> str | _Quantised:
        """Activations made ready for a product."""
        if not self.int8:
            return x
        most = self.graph.op("ReduceMax", self.graph.op("Abs", x), axes=[-1], keepdims=1)
        return self._bytes(x, self.graph.op("Mul", most, self.graph.scalar(1 / 127)), zero=128)

    def _bytes(self, x: str, scale: str, zero: int) -> _Quantised:
        point = self.graph.scalar(zero, np.uint8)
        values = self.graph.op("QuantizeLinear", self.graph.op("Div", x, scale), self.graph.scalar(1), point)
        return _Quantised(values, point, scale)

    def _product(self, x: str | _Quantised, name: str) -> str:
        """x @ weight.T, without the bias."""
        weight = self.weights[f"{name}.weight"].T
        if isinstance(x, str):
            return self.graph.op("MatMul", x, self.graph.constant(weight))
        if x.divisors is not None:
            weight = weight * x.divisors[:, None]
        values, scale = _quantise_columns(weight)
        constant = self.graph.constant
        one = self.graph.scalar(1)
        product = self.graph.op(
            "MatMulIntegerToFloat", x.values, constant(values), one, constant(scale), x.zero, domain=_CONTRIB
        )
        return self.graph.op("Mul", product, x.scale)
