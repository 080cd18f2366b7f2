"""Mixture of memories (arXiv 2502.13685, eqs 4-8): several matrices a head and a router, so that what is unlike does not overwrite.

Each token is written to its top-k memories and read from them; one shared memory takes every token. A memory that was not
chosen neither changes nor fades. Keys, values, strengths and fading are projected for each memory, queries for all.

The published code convolves after routing, so that a token's neighbour is the one before it in the same memory, and in
training lets the convolution leak across sequences; here it comes before, and the router sees convolved features too: else the
value that is written and the key that is asked for later would be sent to different memories.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.latent.delta import Writes, run
from holdfast.latent.layers import Layer, Path, ShortConvolution, State, exact, real, unit
from holdfast.latent.matrix_memory import GatedOutput, by_head, faded, fading_parameters, rule_named
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Retrieval, Subform, Subject, Trainable
from holdfast.torched import Tensor, nn, torch

PROFILE = MemoryProfile(
    Form.STATE,
    Subform.TRANSFORMED,
    (Function.WORK_SINGLE, Function.WORK_MULTI),
    formation=(Formation.LATENT,),
    evolution=(Evolution.UPDATE_INTERNAL, Evolution.FORGET_BY_TIME),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.USER, Subject.WORLD, Subject.AGENT),
    trainable=Trainable.FULL,
)


LONG = 256
"""From so many tokens on it pays to put each memory's own side by side; a single one would cost nearly twice as much."""


@dataclass(frozen=True, slots=True)
class Routing:
    """Where the tokens of one call went.

    Fields
        likely: the router's probabilities, shape (B, T, N).
        chosen: the memories of each token, best first, shape (B, T, K).
        mask: False for padding, shape (B, T); None where there is none.
    """

    likely: Tensor
    chosen: Tensor
    mask: Tensor | None


class MixtureOfMemories(Layer):
    """A router, ``memories`` matrices a head, and one shared by all tokens. Raises InputError.

    The state's "memories" has the shape (B, N, H, K, V), the shared one last; "frozen" says which may not change.

    Args:
        d_model, heads, key_dim, value_dim, conv, path, size: as in ``MatrixMemory``.
        memories, top_k: how many there are, the shared one apart, and how many a token is written to.
        shared: whether there is one for every token.
        rule: a name of ``delta.RULES``.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        *,
        key_dim: int,
        value_dim: int | None = None,
        memories: int = 4,
        top_k: int = 2,
        shared: bool = True,
        rule: str = "gated_delta",
        conv: int = 4,
        path: Path = "chunked",
        size: int | None = None,
    ) -> None:
        super().__init__(d_model)
        if not 0 < top_k <= memories:
            raise InputError(f"a token goes to 1 memory at least and to {memories} at most, not to {top_k}")
        self.heads, self.key_dim, self.value_dim = heads, key_dim, value_dim or key_dim
        self.memories, self.top_k, self.shared = memories, top_k, shared
        self.rule, self.path, self.size = rule_named(rule), path, size
        count = memories + shared
        keys, values = heads * key_dim, heads * self.value_dim
        self._sides = [keys, count * keys, count * values]
        self.to_all = nn.Linear(d_model, sum(self._sides), bias=False)
        # One filter for queries, one for the keys of all memories, one for their values.
        filters = torch.arange(2 * keys + values).split([keys, keys, values])
        self.conv = ShortConvolution(
            2 * keys + values, conv, torch.cat([filters[0], filters[1].repeat(count), filters[2].repeat(count)])
        )
        self.router_conv = ShortConvolution(d_model, conv)
        self.router = nn.Linear(d_model, memories, bias=False)
        self.to_strength = nn.Linear(d_model, count * heads, bias=False) if self.rule.corrects else None
        if self.rule.decay == "head":
            self.to_fading = nn.Linear(d_model, count * heads, bias=False)
            self.rate, self.bias = fading_parameters(heads)
        elif self.rule.decay == "channel":
            self.to_fading = nn.Linear(d_model, count * keys)
        self.out = GatedOutput(d_model, heads, self.value_dim)
        self._watchers: list[list[Routing]] = []

    def take(self, x: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        """See ``Layer``."""
        count = self.memories + self.shared
        mixed, conv = self.conv(self.to_all(x), None if state is None else state["conv"], lengths)
        queries, keys, values = mixed.split(self._sides, dim=-1)
        route, route_conv = self._routed(x, state, lengths)
        frozen = x.new_zeros((len(x), count), dtype=torch.bool) if state is None else state["frozen"]
        places = torch.ones_like(x[..., :count], dtype=torch.bool) & ~frozen[:, None]
        if route.mask is not None:
            places = places & route.mask[..., None]
        strength = None if self.to_strength is None else self.to_strength(x).sigmoid()
        decay = None
        if self.rule.decay == "head":
            decay = faded(self.to_fading(x), self.rate.repeat(count), self.bias.repeat(count))
        elif self.rule.decay == "channel":
            decay = nn.functional.logsigmoid(exact(self.to_fading(x))) / 16
        told = _Told(unit(by_head(queries, self.heads)) * self.key_dim**-0.5, keys, values, decay, strength, places)
        before = None if state is None else state["memories"]
        short = self.path == "recurrent" or x.shape[1] < LONG
        found, matrices = (self._masked if short else self._packed)(told, route, before)
        return self.out(found, x), {
            "memories": matrices,
            "frozen": frozen,
            "conv": conv,
            "router_conv": route_conv,
        }

    def _routed(self, x: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Routing, Tensor]:
        """Where tokens go, and the convolution's state."""
        features, conv = self.router_conv(x, None if state is None else state["router_conv"], lengths)
        likely = exact(self.router(features)).softmax(dim=-1)
        route = Routing(likely, likely.topk(self.top_k, dim=-1).indices, real(lengths, x))
        for watcher in self._watchers:
            watcher.append(route)
        return route, conv

    def _masked(self, told: _Told, route: Routing, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """What tokens are told, shape (B, H, T, V), and what memories hold then: each passes over what is not its own."""
        # From the choices, not from their weights: one that is rounded to zero is a choice all the same.
        own = torch.zeros_like(route.likely, dtype=torch.bool).scatter(-1, route.chosen, True)
        weights = torch.zeros_like(route.likely).scatter(-1, route.chosen, self._weight(route))
        if self.shared:
            own, weights = (torch.cat([one, torch.ones_like(one[..., :1])], dim=-1) for one in (own, weights))
        count = own.shape[-1]
        writes = replace(told, places=told.places & own).writes(self.heads, count)
        found, matrices = self._run(writes, before, count)
        return torch.einsum("bmhtv,btm->bhtv", found, weights.to(found.dtype)), matrices

    def _packed(self, told: _Told, route: Routing, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """The same; each memory is run over its own tokens alone, which stand side by side."""
        routed, shared = told.parted(self.memories)
        slots = _Slots.of(route.chosen, self.memories)
        states = (None, None) if before is None else (before[:, : self.memories], before[:, self.memories :])
        lengths = slots.counts.repeat_interleave(self.heads, dim=1)
        said, matrices = self._run(slots.packed(routed, self.heads), states[0], self.memories, lengths)
        found = slots.unpacked(said) * self._weight(route)[..., None, None].to(said.dtype)
        found = found.sum(dim=2).transpose(1, 2)
        if self.shared:
            more, last = self._run(shared.writes(self.heads, 1), states[1], 1)
            found, matrices = found + more[:, 0], torch.cat([matrices, last], dim=1)
        return found, matrices

    def _run(
        self, writes: Writes, before: Tensor | None, count: int, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What so many memories say, shape (B, N, H, T, V), and hold, shape (B, N, H, K, V)."""
        state = None if before is None else before.flatten(1, 2)
        found, matrices = run(writes, state, rule=self.rule, path=self.path, size=self.size, lengths=lengths)
        return found.unflatten(1, (count, self.heads)), matrices.unflatten(1, (count, self.heads))

    def _weight(self, route: Routing) -> Tensor:
        """Of each choice of a token, shape (B, T, K)."""
        best = route.likely.gather(-1, route.chosen)
        # With one choice the weight would always be 1 and would teach the router nothing.
        return best / best.sum(dim=-1, keepdim=True) if self.top_k > 1 else best


@dataclass(frozen=True, slots=True)
class _Told:
    """What N memories may be told, token by token.

    Fields
        queries: shape (B, H, T, K), for all memories; keys, values: shape (B, T, N H K) and (B, T, N H V).
        decay: shape (B, T, N H) or (B, T, N H K), or None; strength: shape (B, T, N H), or None.
        places: False where a memory may not change, shape (B, T, N).
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    decay: Tensor | None
    strength: Tensor | None
    places: Tensor

    def writes(self, heads: int, count: int) -> Writes:
        """The same for N H heads that all pass over all tokens."""
        many = heads * count
        return Writes(
            self.queries.repeat(1, count, 1, 1),
            unit(by_head(self.keys, many)),
            by_head(self.values, many),
            None if self.decay is None else by_head(self.decay, many),
            None if self.strength is None else self.strength.mT,
        ).only(self.places.mT.repeat_interleave(heads, dim=1))

    def parted(self, count: int) -> tuple[_Told, _Told]:
        """For the first so many memories, and for the others."""
        of = self.places.shape[-1]
        each = [
            (None, None)
            if one is None
            else one.split([one.shape[-1] // of * many for many in (count, of - count)], dim=-1)
            for one in (self.keys, self.values, self.decay, self.strength, self.places)
        ]
        first, second = (_Told(self.queries, *some) for some in zip(*each, strict=True))
        return first, second


@dataclass(frozen=True, slots=True)
class _Slots:
    """Where the tokens of each memory stand side by side: memories of a row have as much room as that with the most tokens.

    Fields
        at: the slot of each choice, shape (B, T, K), among B N L.
        tokens: which token stands in each slot, shape (B, N, L), among B T; a row's first one where none does.
        counts: how many tokens each memory has, shape (B, N).
    """

    at: Tensor
    tokens: Tensor
    counts: Tensor

    @classmethod
    def of(cls, chosen: Tensor, memories: int) -> _Slots:
        """By the choices of each token, shape (B, T, K)."""
        rows, many, choices = chosen.shape
        places = chosen.new_zeros((rows, many, memories)).scatter(-1, chosen, 1).cumsum(dim=1)
        counts = places[:, -1]
        length = int(counts.max())
        row = torch.arange(rows, device=chosen.device)
        at = (row[:, None, None] * memories + chosen) * length + places.gather(-1, chosen) - 1
        which = torch.arange(rows * many, device=chosen.device).repeat_interleave(choices)
        tokens = (row * many).repeat_interleave(memories * length).index_copy(0, at.flatten(), which)
        return cls(at, tokens.unflatten(0, (rows, memories, length)), counts)

    def packed(self, told: _Told, heads: int) -> Writes:
        """What memories are told of their own tokens; nothing is written where there are none."""
        memories, length = self.tokens.shape[1:]
        places = torch.arange(length, device=self.tokens.device)
        own = self.tokens * memories + torch.arange(memories, device=self.tokens.device)[:, None]

        def taken(x: Tensor, which: Tensor) -> Tensor:
            """Rows of x, shape (..., H W), as (B, N H, L, W)."""
            found = x.flatten(0, -2).index_select(0, which.flatten()).unflatten(0, which.shape)
            return found.unflatten(-1, (heads, -1)).transpose(2, 3).flatten(1, 2)

        def each(x: Tensor) -> Tensor:
            """What stands for each memory, shape (B, T, N H W), in its slots."""
            return taken(x.unflatten(-1, (memories, -1)), own)

        there = told.places.flatten().index_select(0, own.flatten()).unflatten(0, own.shape)
        there = there & (places < self.counts[..., None])
        return Writes(
            taken(told.queries.transpose(1, 2).flatten(2), self.tokens),
            unit(each(told.keys)),
            each(told.values),
            None if told.decay is None else each(told.decay),
            None if told.strength is None else each(told.strength)[..., 0],
        ).only(there.repeat_interleave(heads, dim=1))

    def unpacked(self, found: Tensor) -> Tensor:
        """What memories say, shape (B, N, H, L, V), as what each token is told by those that it chose, shape (B, T, K, H, V)."""
        rows = found.transpose(2, 3).flatten(0, 2)
        return (
            rows.flatten(1).index_select(0, self.at.flatten()).unflatten(1, rows.shape[1:]).unflatten(0, self.at.shape)
        )


@contextmanager
def watched(module: nn.Module) -> Iterator[list[Routing]]:
    """Within the block each call of a mixture in ``module`` adds where its tokens went: for ``balance``, or to look at."""
    found: list[Routing] = []
    mixtures = [one for one in module.modules() if isinstance(one, MixtureOfMemories)]
    for one in mixtures:
        one._watchers.append(found)
    try:
        yield found
    finally:
        for one in mixtures:
            one._watchers[:] = [watcher for watcher in one._watchers if watcher is not found]


def balance(routes: Sequence[Routing]) -> Tensor:
    """The loss that keeps all memories in use, to be added with a weight of about 0.01; K where they are used alike.

    N sum_j sum_e f_je P_e over the tokens of all calls: f the share of tokens whose j-th choice is e, P the mean probability.
    Raises InputError where there is nothing to balance.
    """
    if not routes:
        raise InputError("no mixture was called within the block of watched()")
    masks = [torch.ones_like(one.chosen[..., 0], dtype=torch.bool) if one.mask is None else one.mask for one in routes]
    likely = torch.cat([one.likely[mask] for one, mask in zip(routes, masks, strict=True)])
    chosen = torch.cat([one.chosen[mask] for one, mask in zip(routes, masks, strict=True)])
    count = likely.shape[-1]
    share = nn.functional.one_hot(chosen, count).to(likely.dtype).mean(dim=0)
    return count * (share * likely.mean(dim=0)).sum()


def spread(routes: Sequence[Routing]) -> float:
    """How evenly memories were chosen: the entropy of the choices over its greatest value, from 0 (always one) to 1."""
    taken = torch.cat([(one.chosen if one.mask is None else one.chosen[one.mask]).flatten() for one in routes])
    count = routes[0].likely.shape[-1]
    share = torch.bincount(taken, minlength=count).double() / taken.numel()
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    return float(entropy / torch.tensor(float(count)).log())


def frozen(state: State, memory: int, *, frozen: bool = True) -> State:
    """A state one of whose memories may not change from now on, or may again."""
    return {**state, "frozen": state["frozen"].index_fill(1, _at(memory, state), frozen)}


def emptied(state: State, memory: int) -> State:
    """A state one of whose memories holds nothing."""
    return {**state, "memories": state["memories"].index_fill(1, _at(memory, state), 0.0)}


def _at(memory: int, state: State) -> Tensor:
    count = state["frozen"].shape[1]
    if not 0 <= memory < count:
        raise InputError(f"there are {count} memories, numbered from 0: {memory} is none")
    return torch.tensor([memory], device=state["frozen"].device)
