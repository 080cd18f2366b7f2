"""Memory as a matrix: linear attention (arXiv 2006.16236), gated forms (2312.06635), delta rules (2406.06484, 2412.06464).

With keys k, values v, queries q, decay a <= 0 in logarithms and strength b, all of a token t:

    S <- diag(e^a) S;   S <- S + b k (v - S'k)'  or, without correction,  S + b k v';   o = S'q

``recurrent`` does this token by token. ``chunked`` does it in pieces: within one, what each token truly writes is the solution
of a unit triangular system, and the pieces are joined by their states. ``dense`` is one single piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
    writes: Writes, state: Tensor | None = None, *, rule: Rule, path: Path = "chunked", size: int | None = None
) -> tuple[Tensor, Tensor]:
    """What is read at every token, shape (B, H, T, V), and the matrices then, shape (B, H, K, V), both in fp32 at least.

    ``size``: tokens in a piece, by default 32. Raises InputError for a decay that the rule has not.
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
        if path == "dense":
            size = keys.shape[2]
        return _chunked(queries, keys, values, decay, strength, state, rule.corrects, size or 32)


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
    size: int,
) -> tuple[Tensor, Tensor]:
    length = keys.shape[2]
    size = min(size, length)

    def pieces(x: Tensor) -> Tensor:
        """Shape (B, H, T, N) as (B, H, pieces, size, N); tokens that make the last one full have no strength and no decay."""
        short = -length % size
        return nn.functional.pad(x, (0, 0, 0, short)).unflatten(2, (-1, size))

    queries, keys, new = (pieces(one) for one in (queries, keys, values))
    strong = keys
    if strength is not None:
        strength = pieces(strength)
        new, strong = new * strength, keys * strength if corrects else keys
    fallen = None if decay is None else pieces(decay).cumsum(dim=3)
    seen, alike = _likeness([queries, strong] if corrects else [queries], keys, fallen)
    since = None if fallen is None else fallen.exp()
    from_before = queries if since is None else queries * since
    to_after = keys if fallen is None else keys * (fallen[..., -1:, :] - fallen).exp()
    left = None if since is None else since[..., -1, :, None]
    if corrects:
        asked = strong if since is None else strong * since
        solved = _Inverse.apply(alike)
        new, known = solved @ new, solved @ asked
        states, new, state = _Corrected.apply(new, known, to_after, left, state)
    else:
        states, state = _joined(to_after.mT @ new, left, state)
    # What is read of all pieces is one product, now that their states are known.
    found = from_before @ states + seen @ new
    return found.flatten(2, 3)[:, :, :length], state


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


def _joined(written: Tensor, left: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """The states with which pieces begin, shape (B, H, pieces, K, V), and the last one, of what each adds and leaves."""
    fades, states = None if left is None else left.unbind(2), []
    for at, one in enumerate(written.unbind(2)):
        states.append(state)
        state = (state if fades is None else state * fades[at]) + one
    return torch.stack(states, dim=2), state


class _Corrected(torch.autograd.Function):  # type: ignore[misc]
    """The same and, second, what is truly written: what the state says of a piece's keys is taken off first.

    The loops hold what must be done in order alone; the gradients of all pieces are then one product each.

    Shapes: new (B, H, pieces, size, V); known, to_after (B, H, pieces, size, K); left (B, H, pieces, 1 or K, 1), or None; state
    (B, H, K, V).
    """

    @staticmethod
    def forward(
        ctx: Any, new: Tensor, known: Tensor, to_after: Tensor, left: Tensor | None, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        # Pieces come first: what a product is written to must lie side by side.
        fresh, asked, write = (one.flatten(0, 1).transpose(0, 1) for one in (new, known, to_after))
        fades = None if left is None else left.flatten(0, 1).transpose(0, 1)
        states, written = _room(len(fresh) + 1, state.flatten(0, 1)), _room(len(fresh), fresh[0])
        states[0] = state.flatten(0, 1)
        for at in range(len(fresh)):
            torch.baddbmm(fresh[at], asked[at], states[at], alpha=-1, out=written[at])
            stays = states[at] if fades is None else states[at] * fades[at]
            torch.baddbmm(stays, write[at].mT, written[at], out=states[at + 1])
        ctx.save_for_backward(asked, write, fades, states, written)
        found, last = states.transpose(0, 1).unflatten(0, new.shape[:2]).split([len(fresh), 1], dim=2)
        return found, written.transpose(0, 1).unflatten(0, new.shape[:2]), last[:, :, 0].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, to_states: Tensor, to_written: Tensor, to_last: Tensor) -> tuple[Tensor | None, ...]:
        asked, write, fades, states, written = ctx.saved_tensors
        by_piece = [one.flatten(0, 1).transpose(0, 1) for one in (to_states, to_written)]
        # Of the states after each piece, and before the first one; of what each piece writes.
        backs, to_new = _room(len(states), states[0]), _room(len(written), written[0])
        backs[-1] = to_last.flatten(0, 1)
        for at in reversed(range(len(written))):
            back = backs[at + 1]
            torch.baddbmm(by_piece[1][at], write[at], back, out=to_new[at])
            stays = by_piece[0][at] + (back if fades is None else back * fades[at])
            torch.baddbmm(stays, asked[at].mT, to_new[at], alpha=-1, out=backs[at])
        to_known, to_after = (to_new @ states[:-1].mT).neg_(), written @ backs[1:].mT
        # Of one fading for all channels autograd adds up the gradients of each.
        to_left = None if fades is None else (backs[1:] * states[:-1]).sum(dim=-1, keepdim=True)
        each = [
            None if one is None else one.transpose(0, 1).unflatten(0, to_last.shape[:2])
            for one in (to_new, to_known, to_after, to_left)
        ]
        return *each, backs[0].unflatten(0, to_last.shape[:2])


def _room(count: int, like: Tensor) -> Tensor:
    return like.new_empty((count, *like.shape))


def _likeness(some: list[Tensor], right: Tensor, fallen: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of one or two sequences with each token of ``right`` up to the same place of its piece, faded by what lies between.

    Shape (..., size, size), zero above the diagonal; where there is but one, it is given twice.
    """
    size = right.shape[-2]
    channels = fallen is not None and fallen.shape[-1] > 1
    if fallen is not None and channels:
        if not fallen[..., -1, :].min() > -_MILD:
            each = _by_blocks(some, right, fallen)
            return each[0], each[-1]
        # What lies between two places is a quotient of what lies before them; from the middle neither part is large.
        middle = fallen[..., -1:, :].detach() / 2
        rising, falling = (middle - fallen).exp(), (fallen - middle).exp()
        some, right = [one * falling for one in some], right * rising
    found = (torch.cat(some, dim=-2) @ right.mT).split(size, dim=-2)
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
