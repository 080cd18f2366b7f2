"""Rotary positions: keys that were turned to one place, turned on to another (RoFormer, arXiv 2104.09864 eq. 16).

A key cached at place p is R(p) k, so R(q - p) turns it to place q; values have no place. Angles are in fp32, whatever the model is.
"""

from __future__ import annotations

from typing import Any

from holdfast.errors import InputError
from holdfast.torched import Tensor, torch

PROFILE = ()  # arithmetic, and no memory


class Rotation:
    """Turns rotated keys by some places. ``frequencies``: of each pair of numbers, shape (D / 2,)."""

    def __init__(self, frequencies: Tensor) -> None:
        self._frequencies = frequencies

    def __call__(self, keys: Tensor, by: Tensor) -> Tensor:
        """Keys of shape (..., S, D), each by so many places, shape (..., S)."""
        angles = by[..., None].float() * self._frequencies.to(keys.device)
        cos, sin = (torch.cat([part, part], dim=-1) for part in (angles.cos(), angles.sin()))
        half = keys.shape[-1] // 2
        turned = torch.cat([-keys[..., half:], keys[..., :half]], dim=-1)
        return (keys.float() * cos + turned.float() * sin).to(keys.dtype)


def rotation(model: Any) -> Rotation:
    """That of a causal model of ``transformers``. Raises InputError where its positions are not plain rotary ones."""
    rotary = getattr(getattr(model, "model", model), "rotary_emb", None)
    frequencies = getattr(rotary, "inv_freq", None)
    head = getattr(model.config, "head_dim", None) or model.config.hidden_size // model.config.num_attention_heads
    if frequencies is None or getattr(rotary, "attention_scaling", 1.0) != 1.0 or 2 * len(frequencies) != head:
        raise InputError("keys can be moved to other positions for plain rotary embeddings over whole heads alone")
    return Rotation(frequencies.detach().float())


def full_attention(model: Any) -> int:
    """How many layers of full attention a causal model has. Raises InputError where it has any of another kind."""
    config = model.config.get_text_config(decoder=True)
    # As ``DynamicCache`` reads a configuration.
    plain = "sliding_attention" if getattr(config, "sliding_window", None) is not None else "full_attention"
    plain = "chunked_attention" if getattr(config, "attention_chunk_size", None) is not None else plain
    kinds = set(getattr(config, "layer_types", None) or (plain,))
    if kinds != {"full_attention"}:
        raise InputError(
            f"what is cached here are the keys and values of full attention, and this model has {sorted(kinds)}"
        )
    return int(config.num_hidden_layers)
