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
from dataclasses import dataclass

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.latent.delta import Writes, run
from holdfast.latent.layers import Layer, Path, ShortConvolution, State, exact, real
from holdfast.latent.matrix_memory import GatedOutput, by_head, faded, fading_parameters, rule_named, unit
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
        queries, keys, values = nn.functional.silu(mixed).split(self._sides, dim=-1)
        queries = unit(by_head(queries, self.heads)) * self.key_dim**-0.5
        keys, values = unit(by_head(keys, count * self.heads)), by_head(values, count * self.heads)
        weights, places, route_conv = self._routed(x, state, lengths)
        frozen = None if state is None else state["frozen"]
        if frozen is not None:
            places = places & ~frozen[:, None]
        strength = None if self.to_strength is None else self.to_strength(x).sigmoid().mT
        decay = None
        if self.rule.decay == "head":
            decay = faded(self.to_fading(x), self.rate.repeat(count), self.bias.repeat(count)).mT[..., None]
        elif self.rule.decay == "channel":
            decay = by_head(nn.functional.logsigmoid(exact(self.to_fading(x))) / 16, count * self.heads)
        writes = Writes(queries.repeat(1, count, 1, 1), keys, values, decay, strength).only(
            places.mT.repeat_interleave(self.heads, dim=1)
        )
        before = None if state is None else state["memories"].flatten(1, 2)
        found, matrices = run(writes, before, rule=self.rule, path=self.path, size=self.size)
        found = torch.einsum("bmhtv,btm->bhtv", found.unflatten(1, (count, self.heads)), weights.to(found.dtype))
        return self.out(found, x), {
            "memories": matrices.unflatten(1, (count, self.heads)),
            "frozen": torch.zeros((x.shape[0], count), dtype=torch.bool, device=x.device) if frozen is None else frozen,
            "conv": conv,
            "router_conv": route_conv,
        }

    def _routed(self, x: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The weight of each memory at each token and whether it is written, shape (B, T, N) both, and the convolution's state."""
        features, conv = self.router_conv(x, None if state is None else state["router_conv"], lengths)
        likely = exact(self.router(nn.functional.silu(features))).softmax(dim=-1)
        best, chosen = likely.topk(self.top_k, dim=-1)
        # With one choice the weight would always be 1 and would teach the router nothing.
        weight = best / best.sum(dim=-1, keepdim=True) if self.top_k > 1 else best
        weights = torch.zeros_like(likely).scatter(-1, chosen, weight)
        # From the choices, not from the weights: one that is rounded to zero is a choice all the same.
        places = torch.zeros_like(likely, dtype=torch.bool).scatter(-1, chosen, True)
        mask = real(lengths, x)
        for watcher in self._watchers:
            watcher.append(Routing(likely, chosen, mask))
        if self.shared:
            weights = torch.cat([weights, torch.ones_like(weights[..., :1])], dim=-1)
            places = torch.cat([places, torch.ones_like(places[..., :1])], dim=-1)
        return weights, places if mask is None else places & mask[..., None], conv


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
