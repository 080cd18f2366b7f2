"""A KV cache of bounded length for ``transformers`` models: what a policy holds to be worth it stays, however long the stream.

Attention sees all that was kept and all that is new; what is too much leaves after the step. Positions count in one of two ways:

- as they were read (the default): an entry keeps the position that it had, and the model is told how many tokens there were;
- within the cache (``reindex``, as in StreamingLLM, arXiv 2309.17453, and SirLLM, arXiv 2405.12528): entries move together, keys
  are turned to their new places (rotary embeddings: R(new - old) k), and no position grows past what is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

from holdfast.cube import Form
from holdfast.errors import InputError, MissingExtraError
from holdfast.latent.ragged_layers import RaggedLayer
from holdfast.latent.retention import Entries, RetentionPolicy, kept_of_heads
from holdfast.latent.rotary import full_attention, rotation
from holdfast.latent.stream_layers import READING, StreamLayer
from holdfast.latent.virtual import Rows, VirtualKV
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Retrieval, Subform, Subject
from holdfast.torched import Tensor, nn, torch

try:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.cache_utils import Cache
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask
except ImportError as error:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[torch]'") from error

PROFILE = MemoryProfile(
    Form.STATE,
    Subform.REUSED,
    (Function.WORK_MULTI,),
    evolution=(Evolution.UPDATE_INTERNAL,),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.USER, Subject.WORLD, Subject.AGENT),
)


Scope = Literal["head", "layer", "global"]
"""Within what entries compete for a place."""

ATTENTION = "holdfast"
"""The name of the attention that lets a policy see what is read, and that knows heads of unequal length: SDPA beneath."""


class StreamingCache(Cache):  # type: ignore[misc]
    """A cache that a policy keeps to ``budget`` entries a head. Raises InputError.

    Args:
        model: a causal model of ``transformers`` with rotary embeddings, none of whose layers slides.
        policy: what is worth keeping.
        budget: entries a head at most, between two steps; or of each layer's heads of keys its own: ``[[8, 64], [16, 16], ...]``.
        buffer: so many more a head may gather before any leave: to choose costs something at every step.
        reindex: positions are those in the cache.
        scope: entries compete within a head; or, with ``budget`` the mean of a head, within a layer or within all layers: then
            heads whose entries score more keep more, and what they hold is kept flat (``latent.ragged``).
        floor: so many entries a head keeps in any case, where they compete within more than a head.
        kv: where keys and values lie: what leaves the cache is then memory that is free, not only a shorter tensor. Close the cache
            when it is done with.

    Within ``attached`` give it to the model itself or to ``generate``, as ``cache``. Rows have one length: there is no padding.
    """

    def __init__(
        self,
        model: Any,
        policy: RetentionPolicy,
        budget: int | Sequence[Sequence[int]],
        *,
        buffer: int = 0,
        reindex: bool = False,
        scope: Scope = "head",
        floor: int = 0,
        kv: VirtualKV | None = None,
    ) -> None:
        layers, heads = full_attention(model), model.config.get_text_config(decoder=True).num_key_value_heads
        shares = [[budget] * heads] * layers if isinstance(budget, int) else [[*map(int, of)] for of in budget]
        if [len(of) for of in shares] != [heads] * layers:
            raise InputError(f"a budget is one number, or {heads} numbers for each of {layers} layers")
        if min(min(of) for of in shares) < 1 or buffer < 0:
            raise InputError("one entry or more is kept, and a buffer is 0 or more")
        if scope not in ("head", "layer", "global") or not (scope == "head" or isinstance(budget, int)):
            raise InputError(
                "entries compete within a head, a layer, or globally; of each head its own budget is for a head"
            )
        if not 0 <= floor <= min(min(of) for of in shares) or (floor and scope == "head"):
            raise InputError("the floor of a head is at most its budget, and means something where heads compete alone")
        self._ragged = scope != "head" or not isinstance(budget, int)
        if reindex and self._ragged:
            raise InputError("positions are counted within the cache where all heads hold the same number alone")
        if kv is not None and self._ragged:
            raise InputError("over pages all heads hold the same number: no scope, and one budget for all")
        turn = rotation(model) if reindex else None
        self._rows = None if kv is None else Rows(kv)
        made = RaggedLayer if self._ragged else StreamLayer
        super().__init__(layers=[made(at, policy, buffer, turn, self._rows) for at in range(layers)])
        self.policy, self.budget, self.buffer, self.scope, self.floor = policy, budget, buffer, scope, floor
        self.seen = 0
        self._shares = shares
        self._before: Tensor | None = None

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[StreamingCache]:
        """Within the block the model tells the policy what it reads and predicts, and the cache stays within its budget.

        Where the policy asks for what is read, or heads hold unequal numbers, attention is by SDPA. Raises InputError where the
        policy asks for hidden states and the model has no layers named ``self_attn``.
        """
        needs = self.policy.needs

        def ask(_module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
            ours = self in (given.get("cache"), given.get("past_key_values"))
            READING.set(self.layers if ours else None)
            if not ours:
                return None
            mask = given.get("attention_mask")
            if isinstance(mask, Tensor) and mask.dim() == 2 and not mask.all():
                raise InputError("a stream has no padding: give rows of one length, without a mask or with one of ones")
            # Of all tokens, and not of the last alone.
            return (args, {**given, "logits_to_keep": 0}) if needs.logits and "logits_to_keep" in given else None

        def told(_module: nn.Module, args: tuple[Any, ...], given: dict[str, Any], output: Any) -> None:
            if self in (given.get("cache"), given.get("past_key_values")):
                tokens = given.get("input_ids")
                self.observe(args[0] if tokens is None else tokens, output.logits)

        def done(_module: nn.Module, _args: Any, _output: Any) -> None:
            READING.set(None)

        def enters(layer: StreamLayer) -> Any:
            def hook(_module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
                if READING.get() is self.layers:
                    layer.hidden = args[0] if args else given["hidden_states"]

            return hook

        handles = [
            model.register_forward_pre_hook(ask, with_kwargs=True),
            model.register_forward_hook(told, with_kwargs=True),
            model.register_forward_hook(done, always_call=True),
        ]
        if needs.hidden:
            found = attentions(model)
            if len(found) != len(self.layers):
                raise InputError("this policy asks for hidden states, and the model has no layers named self_attn")
            handles += [
                attention.register_forward_pre_hook(enters(layer), with_kwargs=True)
                for attention, layer in zip(found, self.layers, strict=True)
            ]
        ours = self._ragged or needs.reads or needs.queries > 0
        try:
            with attending(model, ATTENTION) if ours else nullcontext():
                yield self
        finally:
            for handle in handles:
                handle.remove()

    def observe(self, tokens: Tensor, logits: Tensor | None = None) -> None:
        """Tell the policy what a step read and predicted, and let go of what is too much. Raises InputError.

        ``tokens``: shape (B, T), those that the cache has just taken; ``logits``: shape (B, T, V), where the policy asks for them.
        """
        notes: Mapping[str, Tensor] = {}
        if self.policy.needs.logits:
            if logits is None or logits.shape[:2] != tokens.shape:
                told = 0 if logits is None else logits.shape[1]
                raise InputError(f"of {tokens.shape[1]} tokens {told} have predictions: call the model with all logits")
            notes = self.policy.observe(tokens, logits, self._before)
            self._before = logits[:, -1].detach()
        self.seen += tokens.shape[1]
        for layer in self.layers:
            layer.note(notes)
        self._evict()

    def _evict(self) -> None:
        if self.scope == "head":
            for layer, shares in zip(self.layers, self._shares, strict=True):
                if not layer.is_over(shares):
                    continue
                if isinstance(layer, RaggedLayer):
                    scores, held = layer.scored(self.seen)
                    (mask,) = kept_of_heads([scores], [held], [torch.tensor(shares, device=scores.device)])
                    layer.keep_of(mask, scores)
                else:
                    layer.keep(shares[0], self.seen)
            return
        groups = [self.layers] if self.scope == "global" else [[layer] for layer in self.layers]
        for group in groups:
            # Heads that compete are over together: one layer may hold more than its share for as long as others hold less.
            heads = len(group) * len(self._shares[0])
            totals = map(sum, zip(*(layer.totals() for layer in group), strict=True))
            share = heads * self._shares[0][0]
            if max(totals) <= share + heads * self.buffer:
                continue
            scored, held = zip(*(layer.scored(self.seen) for layer in group), strict=True)
            masks = kept_of_heads(scored, held, share, self.floor)
            for layer, told, mask in zip(group, scored, masks, strict=True):
                layer.keep_of(mask, told)

    def prompt(self, new: Tensor) -> dict[str, Tensor]:
        """What ``generate`` takes to go on with ``new`` tokens, shape (B, T): of its ids it leaves out as many as the cache counts.

        The last token that it gave was not read yet: let ``new`` begin with it.
        """
        filler = new[:, :1].expand(-1, self.get_seq_length())
        ids = torch.cat([filler, new], dim=1)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def end_turn(self) -> None:
        """A turn of the talk has ended: what the policy has noted may fade."""
        for layer in self.layers:
            layer.turn()

    def entries(self, layer: int) -> Entries | None:
        """What a layer holds; None where nothing was read yet."""
        found: Entries | None = self.layers[layer].entries
        return found

    def counts(self) -> list[Tensor]:
        """How many entries each head holds: of each layer, shape (B, H)."""
        return [layer.counts for layer in self.layers]

    def nbytes(self) -> int:
        """Bytes that the cache holds between two steps: keys, values, positions, notes and queries."""
        return sum(tensor.untyped_storage().nbytes() for layer in self.layers for tensor in layer.tensors())

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.seen, self._before = 0, None
        if self._rows is not None:
            self._rows.free()

    def close(self) -> None:
        """Forget everything, and give its memory back."""
        if self._rows is not None:
            self._rows.free(now=True)
        self.reset()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beam search takes some rows anew."""
        if self._rows is not None and self._rows.count:
            self._rows.select(beam_idx)
        super().reorder_cache(beam_idx)


def attentions(model: nn.Module) -> list[nn.Module]:
    """The attention of each layer, in order: the modules named ``self_attn``."""
    return [module for name, module in model.named_modules() if name.rpartition(".")[2] == "self_attn"]


@contextmanager
def attending(model: Any, name: str) -> Iterator[None]:
    """Within the block the model's attention is the one registered under a name."""
    config = model.config.get_text_config(decoder=True)
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **given: Any
) -> Any:
    layers = READING.get()
    if layers is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **given)
    return layers[module.layer_idx].attend(module, query, key, value, attention_mask, **given)


AttentionInterface.register(ATTENTION, _attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
