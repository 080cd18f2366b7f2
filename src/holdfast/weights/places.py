"""Where in a causal model of ``transformers`` memory is put: feed-forward networks and maps to values; and whose a cache is."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from holdfast.errors import InputError, StaleError
from holdfast.torched import Tensor, nn

PROFILE = ()  # no memory, but where it is put

Said = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Of a module, what it was given and what it said: what it says instead."""

_WRITTEN: WeakKeyDictionary[Any, Hashable] = WeakKeyDictionary()
"""Under which route each cache of keys and values was written."""


@dataclass(frozen=True, slots=True)
class FeedForward:
    """One feed-forward network: whether it has a gate (SwiGLU), and what it puts between its maps."""

    module: nn.Module
    gated: bool
    activation: Callable[[Tensor], Tensor]


def decoder(model: Any) -> nn.Module:
    """What takes token ids and holds the blocks."""
    return model.get_decoder() if hasattr(model, "get_decoder") else model


def blocks(model: Any) -> Any:
    """The blocks of a model, those of Llama's or GPT-2's kind. Raises InputError for another."""
    inner = decoder(model)
    found = getattr(inner, "layers", getattr(inner, "h", None))
    if not isinstance(found, nn.ModuleList) or not all(hasattr(one, "mlp") for one in found):
        raise InputError(
            "the model's blocks are not where Llama or GPT-2 has them: `layers` or `h`, each with an `mlp`"
        )
    return found


def feed_forward(model: Any) -> list[FeedForward]:
    """Of each block its feed-forward network. Raises InputError."""
    found = []
    for at, block in enumerate(blocks(model)):
        inner = block.mlp
        gated, activation = hasattr(inner, "gate_proj"), getattr(inner, "act_fn", getattr(inner, "act", None))
        if activation is None:
            raise InputError(
                f"block {at} has a {type(inner).__name__}, whose activation is not told: `act_fn` or `act`"
            )
        found.append(FeedForward(inner, gated, activation))
    return found


def value_maps(model: Any) -> list[tuple[nn.Module, int]]:
    """Of each block the module whose outputs end in the values, and how many heads these have. Raises InputError."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    found = []
    for at, block in enumerate(blocks(model)):
        attention = _attention(block)
        module = getattr(attention, "v_proj", getattr(attention, "c_attn", None))
        if module is None:
            raise InputError(f"block {at} has no map to its values that is known: `v_proj` or `c_attn`")
        found.append((module, heads))
    return found


def _attention(block: nn.Module) -> Any:
    return block.self_attn if hasattr(block, "self_attn") else block.attn


@contextmanager
def hooked(modules: list[nn.Module], say: Callable[[int], Said]) -> Iterator[None]:
    """Within the block each module says what ``say(its number)`` makes of it; afterwards it is as it was."""

    def hook(at: int) -> Callable[..., Tensor]:
        instead = say(at)
        return lambda module, args, said: instead(module, args[0], said)

    with ExitStack() as stack:
        for at, module in enumerate(modules):
            stack.callback(module.register_forward_hook(hook(at)).remove)
        yield


@contextmanager
def one_route(model: Any, route: Callable[[], Hashable]) -> Iterator[None]:
    """Within the block a cache of keys and values is gone on with under the route it was begun under, or not at all.

    The model then raises StaleError for one that another route, or none, has written.
    """
    attention = _attention(blocks(model)[0])

    def check(_module: nn.Module, _args: Any, given: dict[str, Any]) -> None:
        cache = given.get("cache", given.get("past_key_values"))
        if cache is None:
            return
        now = route()
        if cache.get_seq_length() > 0 and _WRITTEN.get(cache) != now:
            raise StaleError("this cache was written with other memory than is attached now: begin it anew")
        _WRITTEN[cache] = now

    hook = attention.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
