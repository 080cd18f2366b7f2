"""Memory as a matrix: linear attention (arXiv 2006.16236), gated forms (2312.06635), delta rules (2406.06484, 2412.06464).

With keys k, values v, queries q, decay a <= 0 in logarithms and strength b, all of a token t:

    S <- diag(e^a) S;   S <- S + b k (v - S'k)'  or, without correction,  S + b k v';   o = S'q

``recurrent`` does this token by token. ``chunked`` does it in pieces: within one, what each token truly writes is the solution
of a unit triangular system, and the pieces are joined by their states. ``dense`` is one single piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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
        if path == "recurrent":
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
        # Ones are on the diagonal, whatever stands there.
        solved = torch.linalg.solve_triangular(alike, torch.cat([new, asked], dim=-1), upper=False, unitriangular=True)
        new, known = solved.split([new.shape[-1], keys.shape[-1]], dim=-1)
        states, new, state = _corrected(new, known, to_after, left, state)
    else:
        states, state = _joined(to_after.mT @ new, left, state)
    # What is read of all pieces is one product, now that their states are known.
    found = from_before @ states + seen @ new
    return found.flatten(2, 3)[:, :, :length], state


def _joined(written: Tensor, left: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """The states with which pieces begin, shape (B, H, pieces, K, V), and the last one, of what each adds and leaves."""
    fades, states = None if left is None else left.unbind(2), []
    for at, one in enumerate(written.unbind(2)):
        states.append(state)
        state = (state if fades is None else state * fades[at]) + one
    return torch.stack(states, dim=2), state


def _corrected(
    new: Tensor, known: Tensor, to_after: Tensor, left: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same and, second, what is truly written: what the state says of a piece's keys is taken off first."""
    fades, states, written = None if left is None else left.unbind(2), [], []
    for at, (fresh, asked, write) in enumerate(zip(*(one.unbind(2) for one in (new, known, to_after.mT)), strict=True)):
        states.append(state)
        written.append(fresh - asked @ state)
        state = (state if fades is None else state * fades[at]) + write @ written[at]
    return torch.stack(states, dim=2), torch.stack(written, dim=2), state


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
