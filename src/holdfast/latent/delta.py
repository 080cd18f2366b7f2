"""Memory as a matrix: linear attention (arXiv 2006.16236), gated forms (2312.06635), delta rules (2406.06484, 2412.06464).

With keys k, values v, queries q, decay a <= 0 in logarithms and strength b, all of a token t:

    S <- diag(e^a) S;   S <- S + b k (v - S'k)'  or, without correction,  S + b k v';   o = S'q

``recurrent`` does this token by token. ``chunked`` does it in pieces: within one, what each token truly writes is the solution
of a unit triangular system, and the pieces are joined by their states. ``dense`` is one single piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from holdfast.errors import InputError
from holdfast.latent.layers import Path, exact, full_precision
from holdfast.torched import Tensor, nn, torch

PROFILE = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """How a matrix is written.

    Fields
        corrects: what it would say of a key is taken off first (the delta rule).
        decay: not at all, by a number a head, or by one a channel of the keys.
    """

    corrects: bool
    decay: Literal["none", "head", "channel"]


RULES: Mapping[str, Rule] = {
    "linear": Rule(corrects=False, decay="none"),
    "gated_linear": Rule(corrects=False, decay="head"),
    "gla": Rule(corrects=False, decay="channel"),
    "delta": Rule(corrects=True, decay="none"),
    "gated_delta": Rule(corrects=True, decay="head"),
    "channel_delta": Rule(corrects=True, decay="channel"),
}
"""Rules by name."""


@dataclass(frozen=True, slots=True)
class Writes:
    """What is read and written: of B rows and H heads T tokens.

    Fields
        queries, keys: shape (B, H, T, K); values: shape (B, H, T, V).
        decay: logarithms, never above 0, shape (B, H, T, 1) or (B, H, T, K); None for no decay.
        strength: shape (B, H, T); 0 writes nothing, and None is 1.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    decay: Tensor | None = None
    strength: Tensor | None = None

    def only(self, places: Tensor) -> Writes:
        """Nothing is written or fades elsewhere: ``places`` is True where it may, shape (B, H, T) or (B, 1, T)."""
        where = places.to(self.keys.dtype)
        strength = where.expand(self.keys.shape[:3]) if self.strength is None else self.strength * where
        decay = None if self.decay is None else self.decay * where[..., None]
        return Writes(self.queries, self.keys, self.values, decay, strength)


_MILD = 60.0
"""Where channels fade by themselves and none by more than this within a piece, half of it to either side is exact in fp32."""
_BLOCK = 8
"""Where one fades by more, so many tokens of a piece are compared pair by pair."""


def run(
    writes: Writes,
    state: Tensor | None = None,
    *,
    rule: Rule,
    path: Path = "chunked",
    size: int | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What is read at every token, shape (B, H, T, V), and the matrices then, shape (B, H, K, V), both in fp32 at least.

    ``size``: tokens in a piece, by default 32. ``lengths``: for a caller who writes nothing after so many tokens of a row and head,
    and reads nothing there, shape (B, H): pieces that lie there may be passed over. Raises InputError for a decay that the rule
    has not.
    """
    if (rule.decay == "none") != (writes.decay is None):
        raise InputError(f"a rule with decay {rule.decay} takes {'no' if rule.decay == 'none' else 'a'} decay")
    queries, keys, values = (exact(one) for one in (writes.queries, writes.keys, writes.values))
    decay = None if writes.decay is None else exact(writes.decay)
    strength = None if writes.strength is None else exact(writes.strength)[..., None]
    if state is None:
        state = keys.new_zeros((*keys.shape[:2], keys.shape[-1], values.shape[-1]))
    state = state.to(keys.dtype)
    with full_precision(keys):
        if path == "recurrent" or keys.shape[2] == 1:  # a single token makes no piece
            return _recurrent(queries, keys, values, decay, strength, state, rule.corrects)
        size = keys.shape[2] if path == "dense" else min(size or 32, keys.shape[2])
        cut = _Cut.of(keys, size, lengths)
        return _chunked(queries, keys, values, decay, strength, state, rule.corrects, cut)


def _recurrent(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    decay: Tensor | None,
    strength: Tensor | None,
    state: Tensor,
    corrects: bool,
) -> tuple[Tensor, Tensor]:
    # Taken apart at once: the gradient of a token that is taken by itself is as long as all of them.
    fading = None if decay is None else decay.exp()[..., None].unbind(2)
    strong = None if strength is None else strength.unbind(2)
    found = []
    for at, (query, key, new) in enumerate(zip(*(one.unbind(2) for one in (queries, keys, values)), strict=True)):
        if fading is not None:
            state = state * fading[at]
        if corrects:
            new = new - torch.einsum("bhk,bhkv->bhv", key, state)
        if strong is not None:
            new = new * strong[at]
        state = state + key[..., None] * new[..., None, :]
        found.append(torch.einsum("bhk,bhkv->bhv", query, state))
    return torch.stack(found, dim=2), state


def _chunked(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    decay: Tensor | None,
    strength: Tensor | None,
    state: Tensor,
    corrects: bool,
    cut: _Cut,
) -> tuple[Tensor, Tensor]:
    queries, keys, new = (cut.pieces(one) for one in (queries, keys, values))
    strong = keys
    if strength is not None:
        strength = cut.pieces(strength)
        new, strong = new * strength, keys * strength if corrects else keys
    fallen = None if decay is None else cut.pieces(decay).cumsum(dim=1)
    seen, alike = _likeness([queries, strong] if corrects else [queries], keys, fallen)
    since = None if fallen is None else fallen.exp()
    from_before = queries if since is None else queries * since
    to_after = keys if fallen is None else keys * (fallen[:, -1:] - fallen).exp()
    left = None if since is None else since[:, -1, :, None]
    if corrects:
        asked = strong if since is None else strong * since
        solved = _Inverse.apply(alike)
        new, known = solved @ new, solved @ asked
        states, new, ends = _Corrected.apply(new, known, to_after, left, cut.lanes(state), cut)
    else:
        states, ends = _joined(to_after.mT @ new, left, cut.lanes(state), cut)
    # What is read of all pieces is one product, now that their states are known.
    return cut.tokens(from_before @ states + seen @ new), cut.rows(ends)


@dataclass(frozen=True, slots=True)
class _Cut:
    """How B rows of H heads are cut into Q pieces, as in a ``PackedSequence``: all first pieces, then all second ones, and so on,
    each time of those heads that have one, the longest first.

    Fields
        shape: B, H, T.
        size: tokens in a piece.
        counts: how many heads have a first piece, a second one, and so on.
        places: where each piece stands among the B H P of all heads, shape (Q,); None: all heads have P, and keep their order.
        order: which head comes first, shape (B H,); None with ``places``.
    """

    shape: tuple[int, int, int]
    size: int
    counts: tuple[int, ...]
    places: Tensor | None = None
    order: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor, size: int, lengths: Tensor | None) -> _Cut:
        rows, heads, length, _ = x.shape
        most = -(-length // size)
        if lengths is None:
            return cls((rows, heads, length), size, (rows * heads,) * most)
        many = (-(-lengths.flatten() // size)).clamp_min(1)
        order = many.argsort(descending=True, stable=True)
        there = torch.arange(most, device=x.device)[:, None] < many[order]
        places = (order * most + torch.arange(most, device=x.device)[:, None])[there]
        return cls((rows, heads, length), size, tuple(there.sum(dim=1).tolist()), places, order)

    @property
    def starts(self) -> list[int]:
        """Where the states before each round of pieces stand, and those after the last, if all are kept one after the other."""
        return [0, *accumulate(self.counts, initial=self.shape[0] * self.shape[1])]

    def pieces(self, x: Tensor) -> Tensor:
        """Shape (B, H, T, N) as (Q, size, N); tokens that make the last one full have no strength and no decay."""
        if short := -self.shape[2] % self.size:
            x = nn.functional.pad(x, (0, 0, 0, short))
        x = x.unflatten(2, (-1, self.size))
        if self.places is None:
            return x.movedim(2, 0).flatten(0, 2)
        return x.flatten(0, 2).index_select(0, self.places)

    def tokens(self, x: Tensor) -> Tensor:
        """Shape (Q, size, N) as (B, H, T, N), with zeros where there is no piece."""
        rows, heads, length = self.shape
        if self.places is None:
            x = x.unflatten(0, (-1, rows, heads)).movedim(0, 2)
        else:
            room = x.new_zeros((rows * heads * -(-length // self.size), *x.shape[1:]))
            x = room.index_copy(0, self.places, x).unflatten(0, (rows, heads, -1))
        return x.flatten(2, 3)[:, :, :length]

    def lanes(self, state: Tensor) -> Tensor:
        """Shape (B, H, K, V) as (B H, K, V), in the order of pieces."""
        state = state.flatten(0, 1)
        return state if self.order is None else state.index_select(0, self.order)

    def rows(self, state: Tensor) -> Tensor:
        """The other way."""
        if self.order is not None:
            state = state.index_select(0, self.order.argsort())
        return state.unflatten(0, self.shape[:2])


class _Inverse(torch.autograd.Function):  # type: ignore[misc]
    """Of a unit lower triangle, shape (..., size, size): ones are on its diagonal, whatever stands there.

    Solving for what is written would take as many triangular systems for it as it has columns, and as many again for gradients.
    """

    @staticmethod
    def forward(ctx: Any, triangle: Tensor) -> Tensor:
        one = torch.eye(triangle.shape[-1], dtype=triangle.dtype, device=triangle.device)
        found = torch.linalg.solve_triangular(triangle, one.expand_as(triangle), upper=False, unitriangular=True)
        ctx.save_for_backward(found)
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, back: Tensor) -> Tensor:
        (found,) = ctx.saved_tensors
        return (found.mT @ back @ found.mT).tril(-1).neg_()


def _joined(written: Tensor, left: Tensor | None, state: Tensor, cut: _Cut) -> tuple[Tensor, Tensor]:
    """The states with which pieces begin, shape (Q, K, V), and the last ones, of what each adds and leaves."""
    begins, ends = [], []
    fades = (None,) * len(cut.counts) if left is None else left.split(cut.counts)
    for fade, one in zip(fades, written.split(cut.counts), strict=True):
        ends.append(state[len(one) :])
        begins.append(state[: len(one)])
        state = (begins[-1] if fade is None else begins[-1] * fade) + one
    return torch.cat(begins), torch.cat([state, *reversed(ends)])


class _Corrected(torch.autograd.Function):  # type: ignore[misc]
    """The same and, second, what is truly written: what the state says of a piece's keys is taken off first.

    The loops hold what must be done in order alone; the gradients of all pieces are then one product each.

    Shapes: new (Q, size, V); known, to_after (Q, size, K); left (Q, 1 or K, 1), or None; state (B H, K, V).
    """

    @staticmethod
    def forward(
        ctx: Any, new: Tensor, known: Tensor, to_after: Tensor, left: Tensor | None, state: Tensor, cut: _Cut
    ) -> tuple[Tensor, Tensor, Tensor]:
        starts, heads = cut.starts, len(state)
        states, written = new.new_empty((heads + len(new), *state.shape[1:])), torch.empty_like(new)
        states[:heads] = state
        for at, many in enumerate(cut.counts):
            here = slice(starts[at + 1] - heads, starts[at + 1] - heads + many)
            before, after = states[starts[at] : starts[at] + many], states[starts[at + 1] : starts[at + 1] + many]
            torch.baddbmm(new[here], known[here], before, alpha=-1, out=written[here])
            torch.baddbmm(before if left is None else before * left[here], to_after[here].mT, written[here], out=after)
        begins, last = _places(cut, heads, new.device)
        found = states[: len(new)] if begins is None else states.index_select(0, begins)
        ctx.save_for_backward(known, to_after, left, found, written, last)
        ctx.cut = cut
        return found, written, states[-heads:].clone() if last is None else states.index_select(0, last)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, to_states: Tensor, to_written: Tensor, to_last: Tensor) -> tuple[Tensor | None, ...]:
        known, to_after, left, begins, written, last = ctx.saved_tensors
        starts, heads = ctx.cut.starts, len(to_last)
        # Of the states before the first piece and after each; of what each piece writes.
        backs, to_new = begins.new_empty((heads + len(written), *begins.shape[1:])), torch.empty_like(written)
        if last is None:
            backs[-heads:] = to_last
        else:
            backs.index_copy_(0, last, to_last)
        for at, many in reversed(tuple(enumerate(ctx.cut.counts))):
            here = slice(starts[at + 1] - heads, starts[at + 1] - heads + many)
            before, back = backs[starts[at] : starts[at] + many], backs[starts[at + 1] : starts[at + 1] + many]
            torch.baddbmm(to_written[here], to_after[here], back, out=to_new[here])
            stays = to_states[here] + (back if left is None else back * left[here])
            torch.baddbmm(stays, known[here].mT, to_new[here], alpha=-1, out=before)
        to_known, to_write = (to_new @ begins.mT).neg_(), written @ backs[heads:].mT
        # Of one fading for all channels autograd adds up the gradients of each.
        to_left = None if left is None else (backs[heads:] * begins).sum(dim=-1, keepdim=True)
        return to_new, to_known, to_write, to_left, backs[:heads], None


def _places(cut: _Cut, heads: int, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Among all states: those before each piece, and the last of each head; None where each has as many pieces."""
    if cut.places is None:
        return None, None
    starts, counts = cut.starts[:-1], (heads, *cut.counts)
    begins = [torch.arange(start, start + after) for start, after in zip(starts, cut.counts, strict=False)]
    # A head ends where the next round is of fewer.
    ends = [
        torch.arange(start + after, start + many)
        for start, many, after in zip(starts, counts, (*cut.counts, 0), strict=True)
    ]
    return torch.cat(begins).to(device), torch.cat(ends[::-1]).to(device)


def _likeness(some: list[Tensor], right: Tensor, fallen: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of one or two sequences with each token of ``right`` up to the same place of its piece, faded by what lies between.

    Shape (..., size, size), zero above the diagonal; where there is but one, it is given twice.
    """
    channels = fallen is not None and fallen.shape[-1] > 1
    if fallen is not None and channels:
        if not fallen[..., -1, :].min() > -_MILD:
            each = _by_blocks(some, right, fallen)
            return each[0], each[-1]
        # What lies between two places is a quotient of what lies before them; from the middle neither part is large.
        middle = fallen[..., -1:, :].detach() / 2
        rising, falling = (middle - fallen).exp(), (fallen - middle).exp()
        some, right = [one * falling for one in some], right * rising
    found = [one @ right.mT for one in some]
    if fallen is None or channels:
        return found[0].tril(), found[-1].tril()
    # Above the diagonal the difference is positive and its exponential may be infinite: zero times that would be no number.
    faded = (fallen - fallen.mT).masked_fill(_later(right), float("-inf")).exp()
    return found[0] * faded, found[-1] * faded


def _by_blocks(some: list[Tensor], right: Tensor, fallen: Tensor) -> list[Tensor]:
    """The same with a fading for each channel, however strong."""
    size, later = right.shape[-2], _later(right)
    if size % _BLOCK:
        return [_by_channel(one, right, fallen, later) for one in some]
    # Between blocks fading is a product, up to the start of the later block and from there on, both of which can only shrink.
    count = size // _BLOCK
    starts = nn.functional.pad(fallen, (0, 0, 1, 0))[..., :-1:_BLOCK, :]
    earlier = torch.arange(size, device=right.device) < _BLOCK * torch.arange(count, device=right.device)[:, None]
    fading = starts[..., :, None, :] - fallen[..., None, :, :]
    to_start = right[..., None, :, :] * fading.masked_fill(~earlier[..., None], float("-inf")).exp()
    inside = (fallen.unflatten(-2, (count, _BLOCK)) - starts[..., :, None, :]).exp()
    own = torch.eye(count, dtype=right.dtype, device=right.device)[:, None, :, None]
    blocked = right.unflatten(-2, (count, _BLOCK)), fallen.unflatten(-2, (count, _BLOCK)), later[:_BLOCK, :_BLOCK]
    each = []
    for one in some:
        left = one.unflatten(-2, (count, _BLOCK))
        before = ((left * inside) @ to_start.mT).flatten(-3, -2)
        each.append(before + (_by_channel(left, *blocked)[..., :, :, None, :] * own).flatten(-2).flatten(-3, -2))
    return each


def _later(x: Tensor) -> Tensor:
    """Which of a piece's tokens come after which, shape (size, size)."""
    size = x.shape[-2]
    return torch.ones(size, size, dtype=torch.bool, device=x.device).triu(1)


def _by_channel(left: Tensor, right: Tensor, fallen: Tensor, later: Tensor) -> Tensor:
    """The same with a fading for each channel: size² K numbers."""
    between = fallen[..., :, None, :] - fallen[..., None, :, :]
    faded = between.masked_fill(later[..., None], float("-inf")).exp()
    return torch.einsum("...ik,...jk,...ijk->...ij", left, right, faded)
