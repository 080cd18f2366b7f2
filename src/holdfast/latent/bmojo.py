"""B'MOJO (arXiv 2407.06324, §3-4): a window, a memory that fades and an exact store of what was not foreseen, in one softmax.

A query at t attends to

- the last w tokens as they are (j > t - w);
- what a fading memory, any layer with a state, said of the w tokens before those (t - 2w < j <= t - w);
- of all that has left the window (j <= t - w), the M tokens that were foreseen worst, as they are.

With M = 0 this is B'MOJO-F, which the authors have published; how tokens are selected they have not, so that is our reading: a
linear filter foresees each token's input from what the fading memory said of the few before it, and the error is its innovation.
Which are the M is decided anew at every token, by what has been read until then, and no gradient goes through the choice.

``recurrent`` goes token by token. ``chunked`` takes blocks of queries: what is stored at a block's start is gathered, what leaves
the window within it is among the keys already, and a mask says which of both are stored at each query. ``dense`` is one block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.latent.layers import Layer, Path, RMSNorm, ShortConvolution, State, exact, full_precision, moved, real
from holdfast.latent.matrix_memory import MatrixMemory
from holdfast.latent.titans_blocks import named, under
from holdfast.latent.window_attention import rotated
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Retrieval, Subform, Subject, Trainable
from holdfast.torched import Tensor, nn, torch

PROFILE = MemoryProfile(
    Form.STATE,
    Subform.TRANSFORMED,
    (Function.WORK_SINGLE, Function.WORK_MULTI),
    formation=(Formation.LATENT,),
    evolution=(Evolution.UPDATE_INTERNAL, Evolution.FORGET_BY_TIME, Evolution.FORGET_BY_IMPORTANCE),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.USER, Subject.WORLD, Subject.AGENT),
    trainable=Trainable.FULL,
)

Selector = Literal["innovation", "random"]
"""What is kept: what was foreseen worst, or anything (a control: drawn from torch's generator)."""

_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Foreseen:
    """How well one call's tokens were foreseen.

    Fields
        errors: the mean square over features, shape (B, T), with gradients to the filter alone.
        counted: False for padding and for the first token of a text, which nothing foresees, shape (B, T).
    """

    errors: Tensor
    counted: Tensor


class BMojo(Layer):
    """Window, fading and eidetic memory in one attention. Raises InputError.

    The first token of a text, which nothing foresees, stays in the store for good, as a sink. ``path`` is the fading memory's too.

    Args:
        d_model, heads, head_dim: its sizes; head_dim is even.
        window: w.
        eidetic: M, 0 for B'MOJO-F.
        fading: any memory layer of width d_model; by default a gated delta rule with heads of the same size.
        selector: what the store keeps.
        least: a token is stored only where its innovation is above so many times the mean of its text until then.
        lags: the filter is told what was said of so many tokens.
        tied: what was said is projected by the same weights as tokens are.
        normed: queries and keys are normalised a head, so that both kinds of keys have one scale.
        residual: what the fading memory says of the token itself is added; attention sees what was said of others alone.
        conv: width of a causal convolution of queries, keys and values; 1 for none.
        path, size: how it is computed; queries in a block, by default ``window``.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        *,
        head_dim: int,
        window: int,
        eidetic: int = 0,
        fading: nn.Module | None = None,
        selector: Selector = "innovation",
        least: float = 0.0,
        lags: int = 4,
        tied: bool = True,
        normed: bool = True,
        residual: bool = False,
        conv: int = 1,
        path: Path = "chunked",
        size: int | None = None,
    ) -> None:
        super().__init__(d_model)
        if window < 1 or eidetic < 0 or lags < 1 or head_dim % 2 or (size is not None and size < 1):
            raise InputError("window, lags and size are 1 or more, eidetic is 0 or more, and heads have an even size")
        if selector not in get_args(Selector):
            raise InputError(f"tokens are kept by {' or '.join(get_args(Selector))}, not by {selector!r}")
        self.fading = MatrixMemory(d_model, heads, key_dim=head_dim) if fading is None else fading
        if getattr(self.fading, "d_model", None) != d_model:
            raise InputError(f"the fading memory must be a layer of width {d_model}")
        self.heads, self.head_dim, self.window, self.eidetic = heads, head_dim, window, eidetic
        self.selector, self.least, self.lags, self.residual = selector, least, lags, residual
        self.path, self.size = path, size
        self.of_tokens = _Projected(d_model, heads, head_dim, conv, normed)
        self.of_said = self.of_tokens if tied else _Projected(d_model, heads, head_dim, conv, normed)
        self.filter = nn.Linear(lags * d_model, d_model) if eidetic else None
        self.out = nn.Linear(heads * head_dim, d_model, bias=False)
        self._watchers: list[list[Foreseen]] = []

    def begun(self, x: Tensor) -> State:
        """The state of rows that have read nothing, without those of its parts; ``x`` tells their number and kind."""
        rows, before = x.shape[0], self.window - 1

        def empty(length: int) -> Tensor:
            return x.new_zeros((rows, length, self.heads, self.head_dim))

        found = {
            "keys": empty(before),
            "values": empty(before),
            "said.keys": empty(before + self.window),
            "said.values": empty(before + self.window),
            "seen": torch.zeros(rows, dtype=torch.int64, device=x.device),
        }
        if self.eidetic:
            high = exact(x)
            found |= {
                "innovations": high.new_full((rows, before), _NEVER),
                "total": high.new_zeros(rows),
                "lags": x.new_zeros((rows, self.lags, self.d_model)),
                "eidetic.keys": empty(self.eidetic),
                "eidetic.values": empty(self.eidetic),
                "eidetic.innovations": high.new_full((rows, self.eidetic), _NEVER),
                "eidetic.positions": torch.full((rows, self.eidetic), -1, dtype=torch.int64, device=x.device),
            }
        return found

    def take(self, x: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        """See ``Layer``."""
        length = x.shape[1]
        if hasattr(self.fading, "path"):
            self.fading.path = self.path
        inner = None if state is None else under("fading", state)
        said, inner = self.fading(x, inner, mask=real(lengths, x))
        said = said.to(x.dtype)
        state = self.begun(x) if state is None else state
        seen = state["seen"]
        ends = torch.full_like(seen, length) if lengths is None else lengths
        places = seen[:, None] + torch.arange(length, device=x.device)
        now: State = {}
        queries = self.of_tokens.queries(x, places, state, now, "asking", lengths)
        keys, values = self.of_tokens.others(x, places, state, now, "telling", lengths)
        asking = queries
        if self.of_said is not self.of_tokens:
            asking = self.of_said.queries(x, places, state, now, "said.asking", lengths)
        said_keys, said_values = self.of_said.others(said, places, state, now, "said.telling", lengths)
        recent = _joined(state, {"keys": keys, "values": values})
        faded = _joined(state, {"said.keys": said_keys, "said.values": said_values})
        everything, innovations = recent, None
        if self.eidetic:
            new = self._innovations(x, said, places, state, now, lengths)
            innovations = torch.cat([state["eidetic.innovations"], state["innovations"], new], dim=1)
            everything = {
                name: torch.cat([state[f"eidetic.{name}"].to(one.dtype), one], dim=1) for name, one in recent.items()
            }
            positions = (seen - self.window + 1)[:, None] + torch.arange(recent["keys"].shape[1], device=x.device)
            positions = torch.cat([state["eidetic.positions"], positions], dim=1)
            now |= self._stored(everything, innovations, positions, ends)
        reading = _Reading(
            queries,
            asking,
            everything["keys"],
            everything["values"],
            faded["said.keys"],
            faded["said.values"],
            innovations,
            seen,
            self.window,
            self.eidetic,
        )
        if self.path == "recurrent":
            found = _stepwise(reading)
        else:
            found = _blockwise(reading, length if self.path == "dense" else self.size or self.window)
        answer = self.out(found.flatten(2))
        for name, one in {**recent, **faded}.items():
            now[name] = moved(one, ends[:, None] + torch.arange(state[name].shape[1], device=x.device))
        if innovations is not None:
            last = ends[:, None] + torch.arange(self.window - 1, device=x.device)
            now["innovations"] = moved(innovations[:, self.eidetic :], last)
        now["seen"] = seen + ends
        return (answer + said if self.residual else answer), {**named("fading", inner), **now}

    def _innovations(
        self, x: Tensor, said: Tensor, places: Tensor, state: State, now: State, lengths: Tensor | None
    ) -> Tensor:
        """Of the new tokens, shape (B, T); -inf for what is not to be stored."""
        assert self.filter is not None
        length, first = x.shape[1], places == 0
        ends = torch.full_like(places[:, 0], length) if lengths is None else lengths
        past = torch.cat([state["lags"].to(x.dtype), said.detach()], dim=1)
        now["lags"] = moved(past, ends[:, None] + torch.arange(self.lags, device=x.device))
        told = torch.cat(
            [past[:, self.lags - back : self.lags - back + length] for back in range(1, self.lags + 1)], -1
        )
        with full_precision(x):
            foreseen = nn.functional.linear(exact(told), exact(self.filter.weight), exact(self.filter.bias))
            errors = (foreseen - exact(x.detach())).square().mean(dim=-1)
        there = torch.ones_like(first) if lengths is None else real(lengths, x)
        assert there is not None
        for watcher in self._watchers:
            watcher.append(Foreseen(errors, there & ~first))
        found = errors.detach()
        totals = state["total"][:, None] + (found * (there & ~first)).cumsum(dim=1)
        now["total"] = totals[:, -1]
        if self.selector == "random":
            found = torch.rand_like(found)
        else:
            found = found.masked_fill(found <= self.least * totals / places.clamp_min(1), _NEVER)
        return found.masked_fill(first, float("inf")).masked_fill(~there, _NEVER)

    def _stored(self, everything: State, innovations: Tensor, positions: Tensor, ends: Tensor) -> State:
        """The store when so many tokens of each row were read: what has left the window then is what may be in it."""
        within = torch.arange(innovations.shape[1], device=ends.device) < self.eidetic + ends[:, None]
        best, order = _best(innovations.masked_fill(~within, _NEVER), self.eidetic)
        kept = best > _NEVER
        found = {f"eidetic.{name}": moved(one, order) * kept[..., None, None] for name, one in everything.items()}
        found["eidetic.innovations"] = best
        found["eidetic.positions"] = moved(positions, order).masked_fill(~kept, -1)
        return found


class _Projected(nn.Module):  # type: ignore[misc]
    """Queries, and keys and values, of shape (B, T, H, d), turned to their positions."""

    def __init__(self, d_model: int, heads: int, head_dim: int, conv: int, normed: bool) -> None:
        super().__init__()
        wide = heads * head_dim
        self._sides = heads, head_dim
        self.to_queries = nn.Linear(d_model, wide, bias=False)
        self.to_others = nn.Linear(d_model, 2 * wide, bias=False)
        self.conv_queries = ShortConvolution(wide, conv) if conv > 1 else None
        self.conv_others = ShortConvolution(2 * wide, conv) if conv > 1 else None
        self.norm_queries = RMSNorm(head_dim, eps=1e-6) if normed else nn.Identity()
        self.norm_keys = RMSNorm(head_dim, eps=1e-6) if normed else nn.Identity()

    def queries(self, x: Tensor, places: Tensor, state: State, now: State, name: str, lengths: Tensor | None) -> Tensor:
        """The convolution goes on from, and is left in, what has this name."""
        mixed = _convolved(self.to_queries(x), self.conv_queries, state, now, name, lengths)
        return rotated(self.norm_queries(mixed.unflatten(-1, self._sides)), places)

    def others(
        self, x: Tensor, places: Tensor, state: State, now: State, name: str, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Keys and values, as ``queries``."""
        mixed = _convolved(self.to_others(x), self.conv_others, state, now, name, lengths)
        keys, values = (one.unflatten(-1, self._sides) for one in mixed.chunk(2, dim=-1))
        return rotated(self.norm_keys(keys), places), values


@dataclass(frozen=True, slots=True)
class _Reading:
    """What attention is given of T new tokens, all shapes (B, N, H, d).

    Fields
        queries, asking: to tokens, and to what was said of them; N is T.
        keys, values: those M that are stored, the w - 1 before the new ones, and these.
        said_keys, said_values: of the 2 w - 1 tokens before the new ones, and of these.
        innovations: of ``keys``, shape (B, M + w - 1 + T); None where nothing is stored.
        seen: how many tokens a row has read before, shape (B,).
    """

    queries: Tensor
    asking: Tensor
    keys: Tensor
    values: Tensor
    said_keys: Tensor
    said_values: Tensor
    innovations: Tensor | None
    seen: Tensor
    window: int
    eidetic: int


def _stepwise(reading: _Reading) -> Tensor:
    """What each query is told, shape (B, T, H, d): token by token, with a store that takes in what leaves the window."""
    window, most = reading.window, reading.eidetic
    length, device = reading.queries.shape[1], reading.queries.device
    near = torch.arange(window, device=device)
    scale = reading.queries.shape[-1] ** -0.5

    def windows(x: Tensor) -> tuple[Tensor, ...]:
        """What each query sees of it, shape (B, w, H, d), taken apart at once: the gradient of a slice is as long as all of it."""
        found: tuple[Tensor, ...] = x.unfold(1, window, 1)[:, :length].movedim(-1, 2).unbind(1)
        return found

    recent = [windows(one[:, most:]) for one in (reading.keys, reading.values)]
    faded = [windows(one) for one in (reading.said_keys, reading.said_values)]
    held = [one[:, :most] for one in (reading.keys, reading.values)]
    best = None if reading.innovations is None else reading.innovations[:, :most]
    found = []
    for at, (query, asking) in enumerate(zip(reading.queries.unbind(1), reading.asking.unbind(1), strict=True)):
        masks = [
            at + near >= window - 1 - reading.seen[:, None],
            at + near >= 2 * window - 1 - reading.seen[:, None],
        ]
        parts = [(query, *(one[at] for one in recent)), (asking, *(one[at] for one in faded))]
        if best is not None and reading.innovations is not None:
            if at:  # one token has left the window
                best = torch.cat([best, reading.innovations[:, most + at - 1, None]], dim=1)
                best, order = _best(best, most)
                left = (one[at - 1][:, :1] for one in recent)
                held = [moved(torch.cat(pair, dim=1), order) for pair in zip(held, left, strict=True)]
            masks.append(best > _NEVER)
            parts.append((query, *held))
        scores = torch.cat([torch.einsum("bhd,bnhd->bhn", asked, keys) for asked, keys, _ in parts], dim=-1)
        scores = exact(scores).masked_fill(~torch.cat(masks, dim=1)[:, None], _NEVER)
        weights = (scores * scale).softmax(dim=-1).to(reading.values.dtype)
        found.append(torch.einsum("bhn,bnhd->bhd", weights, torch.cat([values for _, _, values in parts], dim=1)))
    return torch.stack(found, dim=1)


def _blockwise(reading: _Reading, size: int) -> Tensor:
    """The same in blocks of ``size`` queries."""
    window, most = reading.window, reading.eidetic
    length, device = reading.queries.shape[1], reading.queries.device
    size = min(size, length)
    short, count, span = -length % size, -(-length // size), size + window - 1

    def blocks(x: Tensor, wide: int) -> Tensor:
        """Shape (B, N, H, d) as (B, H, blocks, wide, d)."""
        long = nn.functional.pad(x, (0, 0, 0, 0, 0, short))
        return long.unfold(1, wide, size)[:, :count].permute(0, 2, 1, 4, 3)

    at, key = torch.arange(size, device=device), torch.arange(span, device=device)
    first = torch.arange(count, device=device)[:, None] * size
    seen = reading.seen[:, None, None]
    back = at[:, None] + window - 1 - key  # a key of the window is so many tokens before the query
    near = (back >= 0) & (back < window) & (first + key >= window - 1 - seen)[:, :, None]
    # The first key of what was said is 2 w - 1 tokens before the block, and what is w to 2 w - 1 before the query is seen.
    said = (key >= at[:, None]) & (key < at[:, None] + window) & (first + key >= 2 * window - 1 - seen)[:, :, None]
    masks = [near, said]
    parts = [
        (reading.queries, blocks(reading.keys[:, most:], span), blocks(reading.values[:, most:], span)),
        (reading.asking, blocks(reading.said_keys, span), blocks(reading.said_values, span)),
    ]
    if reading.innovations is not None:
        innovations = nn.functional.pad(reading.innovations, (0, short), value=_NEVER)
        stores = _stores(innovations, most, size, count)
        kept = _kept(innovations, stores, size)
        # What leaves the window within the block is among its keys, the first of them.
        masks[0] = torch.cat([near[..., : size - 1] | kept[..., most:], near[..., size - 1 :]], dim=-1)
        masks.append(kept[..., :most])
        keys, values = (
            moved(one, stores.flatten(1)).unflatten(1, (count, most)).permute(0, 3, 1, 2, 4)
            for one in (reading.keys, reading.values)
        )
        parts.append((reading.queries, keys, values))
    scores = torch.cat([blocks(one, size) @ keys.mT for one, keys, _ in parts], dim=-1)
    scores = exact(scores).masked_fill(~torch.cat(masks, dim=-1)[:, None], _NEVER)
    weights = (scores * reading.queries.shape[-1] ** -0.5).softmax(dim=-1).to(reading.values.dtype)
    shares = weights.split([mask.shape[-1] for mask in masks], dim=-1)
    found = sum(share @ values for share, (_, _, values) in zip(shares, parts, strict=True))
    assert isinstance(found, torch.Tensor)
    return found.flatten(2, 3)[:, :, :length].transpose(1, 2)


def _stores(innovations: Tensor, stored: int, size: int, count: int) -> Tensor:
    """What is stored at the start of each block, as places among all keys, shape (B, blocks, M)."""
    held = torch.arange(stored, device=innovations.device).expand(innovations.shape[0], -1)
    found = [held]
    for block in range(1, count):
        left = torch.arange(size, device=innovations.device) + stored + (block - 1) * size
        held = torch.cat([held, left.expand(held.shape[0], -1)], dim=1)
        held = held.gather(1, _best(innovations.gather(1, held), stored)[1])
        found.append(held)
    return torch.stack(found, dim=1)


def _kept(innovations: Tensor, stores: Tensor, size: int) -> Tensor:
    """Which of the M stored at a block's start and the size - 1 that leave within it are stored at each query.

    Shape (B, blocks, size, M + size - 1). A token is, if it has left the window and fewer than M such are ahead of it.
    """
    rows, count, stored = stores.shape
    device = innovations.device
    left = stored + torch.arange(count, device=device)[:, None] * size + torch.arange(size - 1, device=device)
    those = torch.cat([stores, left.expand(rows, -1, -1)], dim=-1)
    of_those = innovations.gather(1, those.flatten(1)).unflatten(1, (count, -1))
    entered = torch.ones(stored + size - 1, size, dtype=torch.bool, device=device)
    entered[stored:] = entered[stored:].triu(1)  # the i-th to leave is gone at query i + 1
    order = of_those.argsort(dim=-1, descending=True, stable=True)[..., None].expand(-1, -1, -1, size)
    there = (entered & (of_those > _NEVER)[..., None]).gather(2, order)
    best = there & (there.cumsum(dim=2) <= stored)
    return torch.zeros_like(best).scatter(2, order, best).mT


def _best(innovations: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The greatest of each row and where they are; of equals those that come first, shape (B, count) both."""
    found = innovations.sort(dim=-1, descending=True, stable=True)
    return found.values[:, :count], found.indices[:, :count]


def _joined(state: State, new: State) -> State:
    return {name: torch.cat([state[name].to(one.dtype), one], dim=1) for name, one in new.items()}


def _convolved(
    x: Tensor, conv: ShortConvolution | None, state: State, now: State, name: str, lengths: Tensor | None
) -> Tensor:
    if conv is None:
        return x
    found, now[f"conv.{name}"] = conv(x, state.get(f"conv.{name}"), lengths)
    return found


@contextmanager
def watched(module: nn.Module) -> Iterator[list[Foreseen]]:
    """Within the block each call of such a layer in ``module`` adds how its tokens were foreseen: for ``foresight``."""
    found: list[Foreseen] = []
    layers = [one for one in module.modules() if isinstance(one, BMojo)]
    for one in layers:
        one._watchers.append(found)
    try:
        yield found
    finally:
        for one in layers:
            one._watchers[:] = [watcher for watcher in one._watchers if watcher is not found]


def foresight(calls: Sequence[Foreseen]) -> Tensor:
    """The loss that teaches the filters to foresee, and teaches nothing else: to be added with a weight of 1.

    Raises InputError where nothing was foreseen.
    """
    if not any(bool(one.counted.any()) for one in calls):
        raise InputError("no eidetic memory has read anything within the block of watched()")
    return torch.cat([one.errors[one.counted] for one in calls]).mean()


def remembered(state: State) -> list[dict[int, float]]:
    """Which tokens of each row are in the store, by their position in its text, with their innovation: worth keeping elsewhere."""
    pairs = zip(state["eidetic.positions"].tolist(), state["eidetic.innovations"].tolist(), strict=True)
    return [dict(sorted((at, how) for at, how in zip(*row, strict=True) if at >= 0)) for row in pairs]
