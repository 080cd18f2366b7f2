"""Memory sparse attention (MSA, arXiv 2603.23516, §3): documents are read once, and a question attends to those it is routed to.

Every document is read by itself, at positions that begin at 0, so that nothing that is kept of it depends on any other. Of a chunk
of its tokens a router layer keeps the means of their keys (turned to their positions), of their values, and of a routing key of
their own, which has no position. A question's tokens are compared with all routing keys,

    s_i = max over tokens t and chunks j of mean over heads h of cos(q_th, k_ijh),

and the documents with the highest s stand before the question's own keys and values. It begins at position ``top_k``, however many
documents there are. A choice has no gradient: the router learns from the loss of contrast alone, keys and values from attention.

Attention is the model's own: ``attached`` gives a model of ``transformers`` this memory by one call. Means are taken over segments,
not as differences of running sums, which lose digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.latent.layers import exact, full_precision
from holdfast.latent.mounting import blocks_of
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Retrieval, Subform, Subject, Trainable
from holdfast.torched import Tensor, nn, torch

PROFILE = MemoryProfile(
    Form.STATE,
    Subform.REUSED,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    formation=(Formation.LATENT, Formation.STRUCTURE_CHUNKS),
    evolution=(Evolution.UPDATE_INTERNAL,),
    retrieval=(Retrieval.AUTOMATIC, Retrieval.SEMANTIC),
    subject=(Subject.USER, Subject.WORLD),
    trainable=Trainable.FULL,
)

NAME = "holdfast_sparse"
"""How ``transformers`` knows this attention."""


@dataclass(frozen=True, slots=True)
class Documents:
    """What router layers keep of N documents: for each of B rows its own, or for all rows alike where B is 1.

    Fields
        keys, values, routing: by layer, of C chunks and G heads, shape (B, N, C, G, d).
        there: which chunks there are, shape (B, N, C).
        ids: the documents' names, in order, where they have names.
    """

    keys: Mapping[int, Tensor]
    values: Mapping[int, Tensor]
    routing: Mapping[int, Tensor]
    there: Tensor
    ids: tuple[str, ...] = ()

    def by_row(self, rows: int) -> Documents:
        """Of N documents for all, N / rows for each row, in order. Raises InputError where they cannot be shared out."""
        count = self.there.shape[0] * self.there.shape[1]
        if count % rows:
            raise InputError(f"{count} documents cannot be shared out to {rows} rows")

        def shared(x: Tensor) -> Tensor:
            return x.flatten(0, 1).unflatten(0, (rows, -1))

        parts = (_each(part, shared) for part in (self.keys, self.values, self.routing))
        return Documents(next(parts), next(parts), next(parts), shared(self.there))


def together(documents: Sequence[Documents], ids: Sequence[str] = ()) -> Documents:
    """The documents of several, one after the other; those with fewer chunks are filled up with zeros. Raises InputError."""
    if not documents:
        raise InputError("there are no documents to put together")
    most = max(one.there.shape[2] for one in documents)

    def filled(x: Tensor) -> Tensor:
        return nn.functional.pad(x, (*(0,) * (2 * (x.dim() - 3)), 0, most - x.shape[2]))

    def joined(parts: Sequence[Mapping[int, Tensor]]) -> dict[int, Tensor]:
        return {at: torch.cat([filled(one[at]) for one in parts], dim=1) for at in parts[0]}

    return Documents(
        joined([one.keys for one in documents]),
        joined([one.values for one in documents]),
        joined([one.routing for one in documents]),
        torch.cat([filled(one.there) for one in documents], dim=1),
        tuple(ids),
    )


class Router(nn.Module):  # type: ignore[misc]
    """The routing queries and keys of some blocks of a model: all that memory sparse attention adds to it. Raises InputError.

    Args:
        model: a causal model of ``transformers``.
        layers: blocks that have memory, by default the upper half.
        top_k: so many documents are attended to, and a question begins at this position.
        pool: tokens of a chunk.
        tile: documents that are compared at once, to bound memory; None for all.
    """

    def __init__(
        self,
        model: Any,
        *,
        layers: Sequence[int] | None = None,
        top_k: int = 16,
        pool: int = 64,
        tile: int | None = None,
    ) -> None:
        super().__init__()
        count = len(blocks_of(model))
        config = model.config.get_text_config(decoder=True)
        layers = range(count // 2, count) if layers is None else sorted(set(layers))
        if not layers or not set(layers) <= set(range(count)):
            raise InputError(f"the model's blocks are numbered 0 to {count - 1}: {[*layers]} are none of them")
        if top_k < 1 or pool < 1 or (tile is not None and tile < 1):
            raise InputError("top_k, pool and tile are 1 or more")
        self.heads, self.top_k, self.pool, self.tile = config.num_attention_heads, top_k, pool, tile
        self.groups = getattr(config, "num_key_value_heads", None) or self.heads
        size = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.layers = tuple(layers)
        self.to_queries = nn.ModuleDict(
            {str(at): nn.Linear(config.hidden_size, self.heads * size, bias=False) for at in layers}
        )
        self.to_keys = nn.ModuleDict(
            {str(at): nn.Linear(config.hidden_size, self.groups * size, bias=False) for at in layers}
        )

    def queries(self, at: int, hidden: Tensor) -> Tensor:
        """Of what block ``at`` is given, shape (B, T, D): shape (B, T, H, d)."""
        found: Tensor = self.to_queries[str(at)](hidden).unflatten(-1, (self.heads, -1))
        return found

    def keys(self, at: int, hidden: Tensor) -> Tensor:
        """As ``queries``: shape (B, T, G, d)."""
        found: Tensor = self.to_keys[str(at)](hidden).unflatten(-1, (self.groups, -1))
        return found


def pooled(x: Tensor, size: int, lengths: Tensor) -> Tensor:
    """The mean of each ``size`` tokens, of the last ones of as many as there are: shape (R, T, ...) to (R, chunks, ...)."""
    short = -x.shape[1] % size
    real = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
    real = real.reshape(*real.shape, *(1,) * (x.dim() - 2))
    x, real = (
        nn.functional.pad(one, (*(0,) * (2 * (x.dim() - 2)), 0, short)).unflatten(1, (-1, size))
        for one in (exact(x) * real, real)
    )
    found: Tensor = x.sum(dim=2) / real.sum(dim=2).clamp_min(1)
    return found


def relevance(
    queries: Tensor, keys: Tensor, there: Tensor, asked: Tensor | None = None, *, tile: int | None = None
) -> Tensor:
    """How well documents answer questions, from -1 to 1, shape (B, N); -inf for a document without chunks.

    Args:
        queries: shape (B, T, H, d).
        keys: shape (B or 1, N, C, G, d), where H is a multiple of G.
        there: which chunks there are, shape (B or 1, N, C).
        asked: which tokens ask, shape (B, T); None: all. A row where none does gets -inf.
        tile: documents compared at once.
    """
    with full_precision(queries):
        queries, groups = _unit(exact(queries)), keys.shape[-2]
        # The mean over heads of products is the product with the sum over the heads of a group: one dot product a token and chunk.
        of_groups = queries.unflatten(2, (groups, -1)).sum(dim=3).flatten(2) / queries.shape[2]
        found = []
        for some, those in zip(
            keys.split(tile or keys.shape[1], 1), there.split(tile or keys.shape[1], 1), strict=True
        ):
            scores = torch.einsum(
                "btk,bnck->btnc", of_groups, _unit(exact(some)).flatten(3).expand(len(queries), -1, -1, -1)
            )
            scores = scores.masked_fill(~those[:, None], float("-inf"))
            if asked is not None:
                scores = scores.masked_fill(~asked[:, :, None, None], float("-inf"))
            found.append(scores.amax(dim=(1, 3)))
        return torch.cat(found, dim=1)


def chosen(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best ``count`` documents of each row in the order of the documents, and whether they are any: shape (B, K) both."""
    best = scores.topk(min(count, scores.shape[1]), dim=1).indices.sort(dim=1).values
    return best, scores.gather(1, best) > float("-inf")


def routing_loss(scores: Tensor | Mapping[int, Tensor], relevant: Tensor, *, temperature: float = 0.1) -> Tensor:
    """The loss of contrast that teaches the router, the mean over layers, rows and the documents that are relevant.

    -log(e^(s/τ) / (e^(s/τ) + sum over what is not relevant of e^(s'/τ))) of each: those that are relevant do not compete.
    ``relevant``: shape (B, N). Rows to which nothing is relevant do not count. Raises InputError where none is left.
    """
    layers = [*scores.values()] if isinstance(scores, Mapping) else [scores]
    relevant = relevant.bool()
    rows = relevant.any(dim=1)
    if not layers or not rows.any():
        raise InputError("nothing was routed, or no document is relevant to any question")
    losses = []
    for one in layers:
        logits = exact(one[rows]) / temperature
        right = relevant[rows]
        others = logits.masked_fill(right, float("-inf")).logsumexp(dim=1, keepdim=True)
        loss = nn.functional.softplus(others - logits).masked_fill(~right, 0.0)
        losses.append((loss.sum(dim=1) / right.sum(dim=1)).mean())
    return torch.stack(losses).mean()


class Memory:
    """What an attached model has in sight; made by ``attached``.

    Fields
        scores: by layer, how well each document answered the last question, shape (B, N), with gradients.
        chosen: by layer, the numbers of the documents that it attends to, shape (B, K), and -1 where there are fewer.
    """

    def __init__(self, router: Router) -> None:
        self.router = router
        self.scores: dict[int, Tensor] = {}
        self.chosen: dict[int, Tensor] = {}
        self._documents: Documents | None = None
        self._asked: Tensor | None = None
        self._asking: Tensor | None = None
        self._idle = False
        self._fresh = True
        self._hidden: dict[int, Tensor] = {}
        self._picked: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def use(self, documents: Documents | None, *, asked: Tensor | None = None) -> None:
        """What is asked from now on has these documents in sight, and none where they are None.

        ``asked``: which tokens of the question count for routing, shape (B, T); by default all that are no padding. In training
        the answer's must not. A question is read in one call, and what was chosen then stays until a call without a past.
        """
        self._documents, self._asked = documents, asked
        self.scores, self.chosen, self._picked = {}, {}, {}

    def found(self) -> dict[int, list[list[str]]]:
        """By layer and row, the names of the documents that are attended to. Raises InputError for documents without names."""
        if self._documents is None or not self._documents.ids:
            raise InputError("the documents in use have no names, or there are none")
        ids = self._documents.ids
        return {at: [[ids[n] for n in row if n >= 0] for row in one.tolist()] for at, one in self.chosen.items()}

    def _begin(self, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        """Before every call of the model: is this a new question, and at which position does it stand?"""
        self._hidden = {}
        if self._documents is None or self._idle:
            return
        cache = given.get("cache", given.get("past_key_values"))
        if getattr(cache, "is_compileable", False):
            raise InputError("a cache of fixed size has no room for documents: use a dynamic one")
        past = 0 if cache is None else cache.get_seq_length()
        tokens = given.get("input_ids", given.get("inputs_embeds", args[0] if args else None))
        if tokens is None:
            raise InputError("a model with a memory is given input_ids or inputs_embeds")
        self._fresh = past == 0
        if self._fresh:
            mask = given.get("attention_mask", args[1] if len(args) > 1 else None)
            if mask is not None and mask.dim() != 2:
                raise InputError("routing needs a mask of shape (rows, tokens), False or 0 for padding")
            self._asking = self._asked if self._asked is not None else None if mask is None else mask.bool()
            if self._asking is not None and self._asking.shape[1] != tokens.shape[1]:
                if self._asked is not None or self._asking.shape[1] < tokens.shape[1]:
                    raise InputError(f"a mask for {self._asking.shape[1]} tokens is none for {tokens.shape[1]}")
                self._asking = self._asking[:, : tokens.shape[1]]
            self.scores, self.chosen, self._picked = {}, {}, {}
        elif not self._picked:
            raise InputError("the text has a past that was read without these documents: begin it anew")
        places = given.get("position_ids")
        if places is None:
            places = torch.arange(past, past + tokens.shape[1], device=tokens.device)[None]
        given["position_ids"] = places + self.router.top_k

    def _note(self, at: int, hidden: Tensor) -> None:
        if self._documents is not None and not self._idle and self._fresh:
            self._hidden[at] = hidden

    def _pick(self, at: int, rows: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """The keys and values that stand before a row's own, shape (B, G, K C, d), and which are there, shape (B, K C)."""
        if self._documents is None or self._idle:
            return None
        if not self._fresh:
            return self._picked[at]
        documents, router = self._documents, self.router
        if documents.there.shape[0] not in (1, rows):
            raise InputError(f"documents of {documents.there.shape[0]} rows are none of {rows} rows")
        queries = router.queries(at, self._hidden.pop(at))
        scores = relevance(queries, documents.routing[at], documents.there, self._asking, tile=router.tile)
        best, there = chosen(scores.detach(), router.top_k)
        self.scores[at], self.chosen[at] = scores, best.masked_fill(~there, -1)
        chunks = there[..., None] & _taken(documents.there, best)
        keys, values = (
            _taken(one[at], best).flatten(1, 2).transpose(1, 2) for one in (documents.keys, documents.values)
        )
        self._picked[at] = keys, values, chunks.flatten(1)
        return self._picked[at]


_PLACES: WeakKeyDictionary[Any, tuple[Memory, int]] = WeakKeyDictionary()
_MEMORIES: WeakKeyDictionary[Any, Memory] = WeakKeyDictionary()


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **given: Any
) -> tuple[Tensor, None]:
    """Attention as ``transformers`` calls it, with what memory has before the first key."""
    place = _PLACES.get(module)
    picked = None if place is None else place[0]._pick(place[1], query.shape[0])
    if picked is not None:
        keys, values, there = picked
        if attention_mask is None:
            length, size = query.shape[2], key.shape[2]
            attention_mask = torch.ones(length, size, dtype=torch.bool, device=key.device).tril(size - length)[
                None, None
            ]
        mask = there[:, None, None].expand(-1, -1, query.shape[2], -1)
        attention_mask = torch.cat([mask, attention_mask.expand(mask.shape[0], -1, -1, -1)], dim=-1)
        key = torch.cat([keys.to(key.dtype), key], dim=2)
        value = torch.cat([values.to(value.dtype), value], dim=2)
    found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **given)
    return found


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def attached(model: Any, router: Router) -> Iterator[Memory]:
    """Within the block a model's router layers attend to documents too: those that ``Memory.use`` was told. Raises InputError.

    The model is trained, and generates, as without; it is what it was where no documents are in use, and afterwards. The router's
    parameters are its own: give them to the optimizer too, and ``routing_loss(memory.scores, relevant)`` to the loss.
    """
    if model in _MEMORIES:
        raise InputError("the model has a memory attached already: leave its block first")
    memory, before = Memory(router), model.config._attn_implementation
    places = {at: blocks_of(model)[at].self_attn for at in router.layers}

    def begin(_module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        given = dict(given)
        memory._begin(args, given)
        return args, given

    hooks = [model.register_forward_pre_hook(begin, with_kwargs=True), *_noting(places, memory._note)]
    try:
        _PLACES.update({module: (memory, at) for at, module in places.items()})
        _MEMORIES[model] = memory
        model.set_attn_implementation(NAME)
        yield memory
    finally:
        model.set_attn_implementation(before)
        _MEMORIES.pop(model, None)
        for hook in hooks:
            hook.remove()
        for module in places.values():
            _PLACES.pop(module, None)
        memory.use(None)


def read(model: Any, router: Router, tokens: Tensor, lengths: Tensor | None = None) -> Documents:
    """What router layers keep of R documents, as documents for all rows, with gradients where these are on.

    ``tokens``: shape (R, T). ``lengths``: shape (R,), so many of a document's tokens are real, and come first; None: all. Raises
    InputError.
    """
    if tokens.dim() != 2 or not tokens.shape[1]:
        raise InputError(f"documents have the shape (documents, 1 or more tokens), not {tuple(tokens.shape)}")
    if lengths is None:
        lengths = torch.full((tokens.shape[0],), tokens.shape[1], device=tokens.device)
    if lengths.shape != tokens.shape[:1] or not bool(((lengths >= 0) & (lengths <= tokens.shape[1])).all()):
        raise InputError(f"the lengths of {tokens.shape[0]} documents are from 0 to {tokens.shape[1]}")
    if model.training and getattr(model, "is_activation_checkpointing", False):
        raise InputError("gradient checkpointing keeps no keys and values: switch it off")
    places = {at: blocks_of(model)[at].self_attn for at in router.layers}
    hidden: dict[int, Tensor] = {}
    hooks = _noting(places, hidden.__setitem__)
    memory = _MEMORIES.get(model)
    idle, cache = memory is not None and memory._idle, DynamicCache()
    try:
        if memory is not None:
            memory._idle = True
        # Padding stands at the end, where no token sees it.
        model.get_decoder()(input_ids=tokens, cache=cache, use_cache=True)
    finally:
        if memory is not None:
            memory._idle = idle
        for hook in hooks:
            hook.remove()

    def kept(x: Tensor) -> Tensor:
        return pooled(x, router.pool, lengths).to(x.dtype)[None]

    chunks = -(-tokens.shape[1] // router.pool)
    there = torch.arange(chunks, device=tokens.device) * router.pool < lengths[:, None]
    return Documents(
        {at: kept(cache.layers[at].keys.transpose(1, 2)) for at in places},
        {at: kept(cache.layers[at].values.transpose(1, 2)) for at in places},
        {at: kept(router.keys(at, hidden[at])) for at in places},
        there[None],
    )


def _noting(places: Mapping[int, nn.Module], note: Callable[[int, Tensor], None]) -> list[Any]:
    """Hooks by which each of these attentions tells what it is given."""

    def noting(at: int) -> Callable[..., None]:
        def tell(_module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
            note(at, given["hidden_states"] if "hidden_states" in given else args[0])

        return tell

    return [module.register_forward_pre_hook(noting(at), with_kwargs=True) for at, module in places.items()]


def _each(part: Mapping[int, Tensor], what: Callable[[Tensor], Tensor]) -> dict[int, Tensor]:
    return {at: what(one) for at, one in part.items()}


def _taken(x: Tensor, which: Tensor) -> Tensor:
    """Of documents, shape (B or 1, N, ...), those of each row, which of shape (B, K)."""
    rows = torch.zeros_like(which) if x.shape[0] == 1 else torch.arange(len(which), device=which.device)[:, None]
    return x[rows, which]


def _unit(x: Tensor) -> Tensor:
    return nn.functional.normalize(x, dim=-1)
