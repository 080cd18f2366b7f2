"""The forward pass of all-MiniLM-L6-v2 in numpy, float32: the fallback without onnxruntime, and the yardstick of int8."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from holdfast.encode.embedders.weights import HEADS, HIDDEN, LAYERS, Weights

_Array = npt.NDArray[np.float32]


def forward(weights: Weights, ids: npt.NDArray[np.int64]) -> _Array:
    """Unit vectors (texts, 384) of token ids (texts, tokens), all texts being of one length: there is no padding."""
    hidden = (
        weights["embeddings.word_embeddings.weight"][ids]
        + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    hidden = _norm(hidden, weights, "embeddings")
    for layer in range(LAYERS):
        hidden = _layer(hidden, weights, f"encoder.layer.{layer}.")
    mean = hidden.mean(axis=1)
    unit: _Array = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return unit


def _layer(hidden: _Array, weights: Weights, prefix: str) -> _Array:
    def heads(name: str) -> _Array:
        projected = _linear(hidden, weights, f"{prefix}attention.self.{name}")
        return projected.reshape(*hidden.shape[:2], HEADS, HIDDEN // HEADS).transpose(0, 2, 1, 3)

    scores = heads("query") @ heads("key").transpose(0, 1, 3, 2) / np.float32(np.sqrt(HIDDEN / HEADS))
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    attended = (scores @ heads("value")).transpose(0, 2, 1, 3).reshape(hidden.shape)
    mixed = _linear(attended, weights, f"{prefix}attention.output.dense")
    hidden = _norm(hidden + mixed, weights, f"{prefix}attention.output")
    wide = gelu(_linear(hidden, weights, f"{prefix}intermediate.dense"))
    return _norm(hidden + _linear(wide, weights, f"{prefix}output.dense"), weights, f"{prefix}output")


def _linear(x: _Array, weights: Weights, name: str) -> _Array:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(x: _Array, weights: Weights, name: str) -> _Array:
    x = x - x.mean(axis=-1, keepdims=True)
    x /= np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(1e-12))
    return x * weights[f"{name}.LayerNorm.weight"] + weights[f"{name}.LayerNorm.bias"]


def gelu(x: _Array) -> _Array:
    """x Φ(x), with erf by Abramowitz and Stegun 7.1.26, whose absolute error is below 1.5e-7: numpy has no erf."""
    z = np.abs(x) * np.float32(np.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = np.zeros_like(t)
    for coefficient in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(coefficient)) * t
    tail = np.float32(0.5) * series * np.exp(-z * z)  # 1 - Φ(|x|)
    result: _Array = x * np.where(x < 0, tail, 1 - tail)
    return result
