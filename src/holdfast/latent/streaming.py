"""A KV cache of bounded length for ``transformers`` models: what a policy holds to be worth it stays, however long the stream.

Attention sees all that was kept and all that is new; what is too much leaves after the step. Positions count in one of two ways:

- as they were read (the default): an entry keeps the position that it had, and the model is told how many tokens there were;
- within the cache (``reindex``, as in StreamingLLM, arXiv 2309.17453, and SirLLM, arXiv 2405.12528): entries move together, keys
  are turned to their new places (rotary embeddings: R(new - old) k), and no position grows past what is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from holdfast.cube import Form
from holdfast.errors import InputError, MissingExtraError
from holdfast.latent.retention import Entries, RetentionPolicy, gathered, kept
from holdfast.latent.virtual import Rows, VirtualKV
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Retrieval, Subform, Subject
from holdfast.torched import Tensor, nn, torch

try:
    from transformers.cache_utils import Cache, DynamicLayer
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


class StreamingCache(Cache):  # type: ignore[misc]
    """A cache that a policy keeps to ``budget`` entries a head. Raises InputError.

    Args:
        model: a causal model of ``transformers`` with rotary embeddings, none of whose layers slides.
        policy: what is worth keeping.
        budget: entries a head at most, between two steps.
        buffer: so many more may gather before any leave: to choose costs something at every step.
        reindex: positions are those in the cache.
        kv: where keys and values lie: what leaves the cache is then memory that is free, not only a shorter tensor. Close the cache
            when it is done with.

    Within ``attached`` give it to the model itself or to ``generate``, as ``cache``. Rows have one length: there is no padding.
    """

    def __init__(
        self,
        model: Any,
        policy: RetentionPolicy,
        budget: int,
        *,
        buffer: int = 0,
        reindex: bool = False,
        kv: VirtualKV | None = None,
    ) -> None:
        if budget < 1 or buffer < 0:
            raise InputError("one entry or more is kept, and a buffer is 0 or more")
        config = model.config.get_text_config(decoder=True)
        kinds = set(getattr(config, "layer_types", None) or ("full_attention",))
        if kinds != {"full_attention"}:
            raise InputError(f"a cache of bounded length is for full attention, and this model has {sorted(kinds)}")
        turn = _rotation(model) if reindex else None
        super().__init__(layers=[_Layer(at, self, turn) for at in range(config.num_hidden_layers)])
        self._rows = None if kv is None else Rows(kv)
        self.policy, self.budget, self.buffer = policy, budget, buffer
        self.seen = 0
        self._before: Tensor | None = None

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[StreamingCache]:
        """Within the block the model tells the policy what it reads and predicts, and the cache stays within its budget."""

        def ask(_module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
            if self not in (given.get("cache"), given.get("past_key_values")):
                return None
            mask = given.get("attention_mask")
            if isinstance(mask, Tensor) and mask.dim() == 2 and not mask.all():
                raise InputError("a stream has no padding: give rows of one length, without a mask or with one of ones")
            # Of all tokens, and not of the last alone.
            return (args, {**given, "logits_to_keep": 0}) if "logits_to_keep" in given else None

        def told(_module: nn.Module, args: tuple[Any, ...], given: dict[str, Any], output: Any) -> None:
            if self in (given.get("cache"), given.get("past_key_values")):
                tokens = given.get("input_ids")
                self.observe(args[0] if tokens is None else tokens, output.logits)

        handles = [
            model.register_forward_pre_hook(ask, with_kwargs=True),
            model.register_forward_hook(told, with_kwargs=True),
        ]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def observe(self, tokens: Tensor, logits: Tensor) -> None:
        """Tell the policy what a step read and predicted, and let go of what is too much. Raises InputError.

        ``tokens``: shape (B, T), those that the cache has just taken; ``logits``: shape (B, T, V).
        """
        if logits.shape[:2] != tokens.shape:
            raise InputError(
                f"of {tokens.shape[1]} tokens there are predictions of {logits.shape[1]}: call the model with all logits"
            )
        notes = self.policy.observe(tokens, logits, self._before)
        self._before = logits[:, -1].detach()
        self.seen += tokens.shape[1]
        for layer in self.layers:
            layer.note(notes)
            layer.evict()

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
            if layer.entries is not None:
                self.policy.turn(layer.entries.notes)

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


class _Layer(DynamicLayer):  # type: ignore[misc]
    """One layer's entries. While a step runs, ``keys`` and ``values`` hold the new ones too."""

    is_croppable = False

    def __init__(self, at: int, cache: StreamingCache, turn: _Rotation | None) -> None:
        super().__init__()
        self._at, self._cache, self._turn = at, cache, turn
        self.positions: Tensor | None = None
        self.notes: dict[str, Tensor] = {}
        self._read = self._fresh = 0
        self._told = True  # what was read last

    @property
    def entries(self) -> Entries | None:
        """What is held; None where nothing is."""
        return None if self.positions is None else Entries(self.keys, self.values, self.positions, self.notes)

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_given: Any) -> tuple[Tensor, Tensor]:
        """See ``transformers``: all that is kept and what is new. Raises InputError where nobody told of the step before."""
        if not self._told:
            raise InputError("nothing would ever leave this cache: call the model within attached()")
        start = self.get_seq_length()
        found = self._grown(key_states, value_states)
        self._told = False
        rows, heads, self._fresh, _ = key_states.shape
        self._read += self._fresh
        new = torch.arange(start, start + self._fresh, device=key_states.device).expand(rows, heads, -1)
        self.positions = new if self.positions is None else torch.cat([self.positions, new], dim=-1)
        return found

    def get_seq_length(self) -> int:
        """How many tokens were read, or with ``reindex`` how many entries there are: where the next token stands."""
        if self._turn is None:
            return self._read
        return 0 if self.positions is None else int(self.positions.shape[-1])

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys there will be, and by how much their places lag behind their positions: what is new stays causal."""
        held = 0 if self.positions is None else self.positions.shape[-1]
        return held + query_length, self.get_seq_length() - held

    def note(self, notes: Mapping[str, Tensor]) -> None:
        """Take notes on what the last step brought, shape (B, T) each."""
        assert self.positions is not None
        rows, heads, size = self.positions.shape
        for name, note in notes.items():
            held = self.notes.get(name)
            if held is None:
                held = torch.zeros((rows, heads, size - self._fresh), dtype=torch.float32, device=self.positions.device)
            new = note.float()[:, None, :].expand(rows, heads, self._fresh)
            self.notes[name] = torch.cat([held, new], dim=-1)

    def evict(self) -> None:
        """Let go of what is too much: the step is over."""
        self._told = True
        entries, cache = self.entries, self._cache
        assert entries is not None
        if entries.positions.shape[-1] <= cache.budget + cache.buffer:
            return
        seen = self.get_seq_length()
        scores = cache.policy.score(self._at, entries, seen)
        left = gathered(entries, kept(scores.expand_as(entries.positions), cache.budget))
        if self._turn is not None:
            places = torch.arange(cache.budget, device=left.positions.device).expand_as(left.positions)
            left.keys, left.positions = self._turn(left.keys, places - left.positions), places.clone()
        self.positions, self.notes = left.positions, left.notes
        stored = cache._rows
        self.keys, self.values = (
            (left.keys, left.values) if stored is None else stored.replace(self._at, left.keys, left.values)
        )

    def _grown(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take in what is new, and give all that is held."""
        stored = self._cache._rows
        if stored is None:
            found: tuple[Tensor, Tensor] = super().update(keys, values)
            return found
        self.device, self.is_initialized = keys.device, True
        self.keys, self.values = stored.append(self._at, keys, values)
        return self.keys, self.values

    def reset(self) -> None:
        """See ``transformers``."""
        super().reset()
        self.positions, self.notes, self._read, self._fresh, self._told = None, {}, 0, 0, True

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beam search takes some rows anew, with all that was noted of them."""
        stored = self._cache._rows
        if stored is None:
            super().reorder_cache(beam_idx)
        elif stored.count:
            self.keys, self.values = stored.view(self._at)
        if self.positions is not None:
            self.positions = self.positions.index_select(0, beam_idx)
            self.notes = {name: note.index_select(0, beam_idx) for name, note in self.notes.items()}


class _Rotation:
    """Turns rotated keys by some places."""

    def __init__(self, frequencies: Tensor) -> None:
        self._frequencies = frequencies

    def __call__(self, keys: Tensor, by: Tensor) -> Tensor:
        """Keys of shape (B, H, S, D) by (B, H, S) places."""
        angles = by[..., None].float() * self._frequencies.to(keys.device)
        cos, sin = (torch.cat([part, part], dim=-1) for part in (angles.cos(), angles.sin()))
        half = keys.shape[-1] // 2
        turned = torch.cat([-keys[..., half:], keys[..., :half]], dim=-1)
        return (keys.float() * cos + turned.float() * sin).to(keys.dtype)


def _rotation(model: Any) -> _Rotation:
    rotary = getattr(getattr(model, "model", model), "rotary_emb", None)
    frequencies = getattr(rotary, "inv_freq", None)
    head = getattr(model.config, "head_dim", None) or model.config.hidden_size // model.config.num_attention_heads
    if frequencies is None or getattr(rotary, "attention_scaling", 1.0) != 1.0 or 2 * len(frequencies) != head:
        raise InputError("positions can be counted within the cache for plain rotary embeddings over whole heads alone")
    return _Rotation(frequencies.detach().float())
