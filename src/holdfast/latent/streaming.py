"""A KV cache of bounded length for ``transformers`` models: what a policy holds to be worth it stays, however long the stream.

Attention sees all that was kept and all that is new; what is too much leaves after the step. Positions count in one of two ways:

- as they were read (the default): an entry keeps the position that it had, and the model is told how many tokens there were;
- within the cache (``reindex``, as in StreamingLLM, arXiv 2309.17453, and SirLLM, arXiv 2405.12528): entries move together, keys
  are turned to their new places (rotary embeddings: R(new - old) k), and no position grows past what is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Literal

from holdfast.cube import Form
from holdfast.errors import InputError, MissingExtraError
from holdfast.latent.ragged import Ragged
from holdfast.latent.retention import Entries, Merging, RetentionPolicy, gathered, kept, kept_of_heads
from holdfast.latent.rotary import Rotation, full_attention, rotation
from holdfast.latent.virtual import Rows, VirtualKV
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Retrieval, Subform, Subject
from holdfast.torched import Tensor, nn, torch

try:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.cache_utils import Cache, DynamicLayer
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

_UNREAD = 256
"""So many queries wait at most to be read by a policy."""

_READING: ContextVar[StreamingCache | None] = ContextVar("_READING", default=None)


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
        made = _RaggedLayer if self._ragged else _Layer
        super().__init__(layers=[made(at, self, turn) for at in range(layers)])
        self.policy, self.budget, self.buffer, self.scope, self.floor = policy, budget, buffer, scope, floor
        self._rows = None if kv is None else Rows(kv)
        self.seen = 0
        self._shares = [torch.tensor(of) for of in shares]
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
            _READING.set(self if ours else None)
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
            _READING.set(None)

        def enters(layer: _Layer) -> Any:
            def hook(_module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
                if _READING.get() is self:
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
        groups = [self.layers] if self.scope == "global" else [[layer] for layer in self.layers]
        for at, group in enumerate(groups):
            if not any(
                layer.is_over(share, self.buffer) for layer, share in zip(group, self._shares[at:], strict=False)
            ):
                continue
            if not self._ragged:
                assert isinstance(self.budget, int)
                group[0].keep(self.budget)
                continue
            scores, held = zip(*(layer.scored() for layer in group), strict=True)
            if self.scope == "head":
                masks = kept_of_heads(scores, held, [self._shares[at].to(scores[0].device)])
            else:
                total = sum(int(share.sum()) for share in self._shares[at : at + len(group)])
                masks = kept_of_heads(scores, held, total, self.floor)
            for layer, told, mask in zip(group, scores, masks, strict=True):
                layer.keep(mask, told)

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


class _Layer(DynamicLayer):  # type: ignore[misc]
    """One layer's entries. While a step runs, ``keys`` and ``values`` hold the new ones too.

    Positions and notes of what came since they were last asked for wait in ``_late``: to put them in place at every step would cost
    more than the step of a small model can spare.
    """

    is_croppable = False

    def __init__(self, at: int, cache: StreamingCache, turn: Rotation | None) -> None:
        super().__init__()
        self._at, self._cache, self._turn = at, cache, turn
        self._read = self._fresh = 0
        self._told = True  # what was read last
        self._positions: Tensor | None = None
        self._notes: dict[str, Tensor] = {}
        self._late: list[tuple[int, dict[str, Tensor]]] = []
        self._queries: Tensor | None = None
        self._unread: list[Tensor] = []  # queries of steps that the policy has not read yet
        self._scaling = 1.0
        self.hidden: Tensor | None = None

    @property
    def positions(self) -> Tensor | None:
        """Where each entry stood in what was read, shape (B, H, S)."""
        return None if (found := self.entries) is None else found.positions

    @property
    def notes(self) -> dict[str, Tensor]:
        """What was noted of each entry, shape (B, H, S) by name."""
        return {} if (found := self.entries) is None else found.notes

    @property
    def entries(self) -> Entries | None:
        """What is held; None where nothing is."""
        if not self._read:
            return None
        self._catch_up()
        return self._all()

    @property
    def counts(self) -> Tensor:
        """How many entries each head holds, shape (B, H)."""
        return (
            torch.full(self.keys.shape[:2], self.keys.shape[2])
            if self._read
            else torch.zeros((0, 0), dtype=torch.int64)
        )

    def tensors(self) -> list[Tensor]:
        """All that is held between two steps."""
        late = [note for _, notes in self._late for note in notes.values()]
        every = [self.keys, self.values, self._positions, self._queries, *self._unread, *self._notes.values(), *late]
        return [one for one in every if one is not None]

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_given: Any) -> tuple[Tensor, Tensor]:
        """See ``transformers``: all that is kept and what is new. Raises InputError where nobody told of the step before."""
        if not self._told:
            raise InputError("nothing would ever leave this cache: call the model within attached()")
        policy = self._cache.policy
        if policy.needs.hidden and self.hidden is None:
            raise InputError("this policy asks for hidden states: call the model within attached()")
        notes = dict(policy.write(self._at, self.hidden, key_states, value_states))
        found = self._grown(key_states, value_states)
        self._late.append((key_states.shape[2], notes))
        self._told, self.hidden = False, None
        self._fresh = key_states.shape[2]
        self._read += self._fresh
        return found

    def reads(self, queries: Tensor, mask: Tensor | None, scaling: float) -> Tensor | None:
        """New queries look at what ``update`` gave, shape (B, Hq, T, D); returns the mask with which they do."""
        needs = self._cache.policy.needs
        self._scaling = scaling
        if needs.queries:
            newest = queries.detach()[:, :, -needs.queries :]
            if self._queries is not None and newest.shape[2] < needs.queries:
                newest = torch.cat([self._queries[:, :, newest.shape[2] - needs.queries :], newest], dim=2)
            self._queries = newest.clone()
        if needs.reads:
            # Nothing leaves before they were read, so that those of many steps can be read at once, for a fraction of the time.
            self._unread.append(queries.detach())
            if sum(some.shape[2] for some in self._unread) >= _UNREAD:
                self._catch_up()
        return mask

    def get_seq_length(self) -> int:
        """How many tokens were read, or with ``reindex`` how many entries there are: where the next token stands."""
        return self._read if self._turn is None else self._held

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys there will be, and by how much their places lag behind their positions: what is new stays causal."""
        return self._held + query_length, self.get_seq_length() - self._held

    def note(self, notes: Mapping[str, Tensor]) -> None:
        """Take notes on what the last step brought, shape (B, T) each: the step is over."""
        self._told = True
        new = {name: note.float()[:, None] for name, note in notes.items()}
        if self._late:
            self._late[-1][1].update(new)
            return
        for name, note in new.items():
            held = self._notes.get(name)
            if held is None:
                assert self._positions is not None
                held = self._notes[name] = torch.zeros(self._positions.shape, device=note.device)
            held[..., -self._fresh :] = note

    def turn(self) -> None:
        """The policy may change its notes."""
        if self._read:
            self._catch_up()
            self._settle()
            self._cache.policy.turn(self._notes)

    def is_over(self, shares: Tensor, buffer: int) -> bool:
        """Whether there is more than there may be."""
        return self._held > int(shares[0]) + buffer

    def keep(self, count: int) -> None:
        """Let go of all but so many."""
        entries = self.entries
        assert entries is not None
        scores = self._cache.policy.score(self._at, entries, self._cache.seen).expand_as(entries.positions)
        places = kept(scores, count)
        if isinstance(self._cache.policy, Merging):
            mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(2, places, True)
            entries.values = self._cache.policy.merge(self._at, entries, scores, mask)
        left = gathered(entries, places)
        if self._turn is not None:
            new = torch.arange(count, device=places.device)
            left.keys = self._turn(left.keys, new - places)
            if self._queries is not None:  # they stand before the next token, wherever that is
                self._queries = self._turn(
                    self._queries, torch.full((1, 1, 1), count - self._held, device=places.device)
                )
        self._positions, self._notes = left.positions, left.notes
        stored = self._cache._rows
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
        self._positions, self._notes, self._late, self._queries, self.hidden = None, {}, [], None, None
        self._unread = []
        self._read, self._fresh, self._told = 0, 0, True

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beam search takes some rows anew, with all that was noted of them."""
        self._catch_up()
        self._settle()
        stored = self._cache._rows
        if stored is None:
            super().reorder_cache(beam_idx)
        elif stored.count:
            self.keys, self.values = stored.view(self._at)
        if self._positions is not None:
            self._positions = self._positions.index_select(0, beam_idx)
            self._notes = {name: note.index_select(0, beam_idx) for name, note in self._notes.items()}
        if self._queries is not None:
            self._queries = self._queries.index_select(0, beam_idx)

    @property
    def _held(self) -> int:
        """Places that there are, S."""
        return int(self.keys.shape[2]) if self._read else 0

    def _catch_up(self) -> None:
        """Let the policy read what was looked for since it last did."""
        if self._unread:
            queries, self._unread = torch.cat(self._unread, dim=2), []
            self._renew(self._cache.policy.read(self._at, self._all(), queries))

    def _all(self) -> Entries:
        """What is held, with the newest queries where the policy asks for them."""
        self._settle()
        assert self._positions is not None
        entries = Entries(self.keys, self.values, self._positions, self._notes)
        entries.scaling = self._scaling
        if self._queries is not None:
            many = self._queries.shape[2]
            entries.queries = self._queries
            entries.asked = torch.arange(self._read - many, self._read, device=self._queries.device)
        return entries

    def _renew(self, notes: Mapping[str, Tensor]) -> None:
        """Notes on all entries take the place of those that there are."""
        self._notes.update({name: note.float() for name, note in notes.items()})

    def _settle(self) -> None:
        """Put what waits in ``_late`` in its place."""
        if not self._late:
            return
        rows, heads = self.keys.shape[:2]
        many, device = sum(count for count, _ in self._late), self.keys.device
        new = torch.arange(self._read - many, self._read, device=device).expand(rows, heads, -1)
        old = new[..., :0] if self._positions is None else self._positions
        names = dict.fromkeys([*self._notes, *(name for _, notes in self._late for name in notes)])
        pieces = [(old.shape[-1], self._notes), *self._late]
        self._notes = {
            name: torch.cat(
                [
                    notes[name].detach().float().expand(rows, heads, count)
                    if name in notes
                    else torch.zeros((rows, heads, count), device=device)
                    for count, notes in pieces
                ],
                dim=-1,
            )
            for name in names
        }
        self._positions, self._late = torch.cat([old, new], dim=-1), []


class _RaggedLayer(_Layer):
    """A layer whose heads hold unequal numbers: ``_flat`` is what was kept last, the fields of a plain layer what came since."""

    def __init__(self, at: int, cache: StreamingCache, turn: Rotation | None) -> None:
        super().__init__(at, cache, turn)
        self._flat: Ragged | None = None
        self._there: Tensor | None = None  # which places hold an entry, while a step runs

    def _all(self) -> Entries:
        """What is held, padded on the left."""
        late = super()._all()
        if self._flat is None:
            return late
        old = self._flat.padded()
        assert old.held is not None
        names = dict.fromkeys([*old.notes, *late.notes])
        none = {"old": torch.zeros(old.positions.shape), "late": torch.zeros(late.positions.shape)}
        none = {side: one.to(late.positions.device) for side, one in none.items()}
        return replace(
            late,
            keys=torch.cat([old.keys, late.keys], dim=2),
            values=torch.cat([old.values, late.values], dim=2),
            positions=torch.cat([old.positions, late.positions], dim=2),
            notes={
                name: torch.cat([old.notes.get(name, none["old"]), late.notes.get(name, none["late"])], dim=2)
                for name in names
            },
            held=torch.nn.functional.pad(old.held, (0, late.positions.shape[2]), value=True),
        )

    @property
    def counts(self) -> Tensor:
        """How many entries each head holds, shape (B, H)."""
        late = super().counts
        return late if self._flat is None else late + self._flat.counts.to(late.device)

    def tensors(self) -> list[Tensor]:
        """All that is held between two steps."""
        flat = self._flat
        if flat is None:
            return super().tensors()
        return [*super().tensors(), flat.keys, flat.values, flat.positions, flat.counts, *flat.notes.values()]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """See ``transformers``: all that is kept, padded on the left, and what is new."""
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        if _READING.get() is not self._cache:
            raise InputError("heads hold unequal numbers: call the model within attached()")
        self._there = torch.ones(keys.shape[:3], dtype=torch.bool, device=keys.device)
        if self._flat is None:
            return keys, values
        keys, values, self._there = self._flat.padded_states(keys, values)
        return keys, values

    def reads(self, queries: Tensor, mask: Tensor | None, scaling: float) -> Tensor | None:
        """The mask is of each head its own; the one of all layers is of none of them."""
        super().reads(queries, mask, scaling)
        there, self._there = self._there, None
        assert there is not None
        new = queries.shape[2]
        seen = there[:, :, None, :].repeat(1, 1, new, 1)
        seen[..., -new:] = torch.ones((new, new), dtype=torch.bool, device=seen.device).tril()
        return seen.repeat_interleave(queries.shape[1] // seen.shape[1], dim=1)

    def turn(self) -> None:
        """The policy may change its notes."""
        super().turn()
        if self._flat is not None:
            self._cache.policy.turn(self._flat.notes)

    def is_over(self, shares: Tensor, buffer: int) -> bool:
        """Whether there is more than there may be: of all heads together where they compete, of any of them where not."""
        counts = self.counts
        if self._cache.scope == "head":
            return bool((counts > shares + buffer).any())
        return int(counts.sum(dim=-1).max()) > int(shares.sum()) + buffer * len(shares)

    def scored(self) -> tuple[Tensor, Tensor]:
        """The scores, and which places hold an entry, shape (B, H, S) each."""
        entries = self.entries
        assert entries is not None
        scores = self._cache.policy.score(self._at, entries, self._cache.seen).expand_as(entries.positions)
        return scores, torch.ones_like(scores, dtype=torch.bool) if entries.held is None else entries.held

    def keep(self, mask: Any, scores: Tensor | None = None) -> None:
        """Let go of all but those of a mask, shape (B, H, S), chosen by their scores."""
        entries = self.entries
        assert entries is not None
        if isinstance(self._cache.policy, Merging):
            assert scores is not None
            entries.values = self._cache.policy.merge(self._at, entries, scores, mask)
        self._flat = Ragged.of(entries, mask)
        self.keys, self.values = (one[:, :, :0].clone() for one in (self.keys, self.values))
        self._positions = entries.positions[..., :0].clone()
        self._notes = {name: note[..., :0].clone() for name, note in entries.notes.items()}

    def reset(self) -> None:
        """See ``transformers``."""
        super().reset()
        self._flat = self._there = None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beam search takes some rows anew, with all that was noted of them."""
        super().reorder_cache(beam_idx)
        if self._flat is not None:
            self._flat = self._flat.rows(beam_idx)

    def _renew(self, notes: Mapping[str, Tensor]) -> None:
        """Notes on all entries, padded, go to what was kept and to what came since."""
        if self._flat is None:
            super()._renew(notes)
            return
        held = self._flat.places()
        size = held.shape[2]
        for name, note in notes.items():
            self._flat.notes[name] = note[..., :size][held].float()
            self._notes[name] = note[..., size:].float()


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
    cache = _READING.get()
    if cache is not None:
        scaling = given.get("scaling") or query.shape[-1] ** -0.5
        attention_mask = cache.layers[module.layer_idx].reads(query, attention_mask, float(scaling))
    return sdpa_attention_forward(module, query, key, value, attention_mask, **given)


AttentionInterface.register(ATTENTION, _attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
