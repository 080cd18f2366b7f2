"""Learning while reading: the network of a neural memory changes chunk by chunk (Titans, arXiv 2501.00663, eqs 8-15).

The gradients are written out, so that a backward pass can go through them. Two paths let autograd do so, token by token or chunk by
chunk. The third has its backward pass written out as well: small products follow one another by the hundred, and what autograd
notes of each costs more than the product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from holdfast.latent.layers import Path
from holdfast.torched import Tensor, nn, torch

PROFILE = ()

_PEAK = 0.3989422804014327  # of the normal distribution's density

Weights = tuple[Tensor, ...]
"""Of an MLP's layers without biases, shape (B, H, in, out) each."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a memory is to learn: of B rows and H heads T tokens.

    Fields
        keys, values: shape (B, H, T, d).
        rates: theta, and the logits of eta and alpha, shape (B, H, T, 3).
    """

    keys: Tensor
    values: Tensor
    rates: Tensor


@dataclass(frozen=True, slots=True)
class Settings:
    """How a memory learns.

    Fields
        chunk: tokens between two changes of the weights.
        momentum, forget: without them eta, or alpha, is 0.
        home: what is forgotten fades to these weights, and to zero where there are none.
        clip: a bound on the length of a chunk's gradient, approached smoothly: else a token that comes again and again in one
            chunk adds up to a step that overshoots, and memory runs away.
    """

    chunk: int
    momentum: bool = True
    forget: bool = True
    home: Weights | None = None
    clip: float | None = None


def told(weights: Sequence[Tensor], asked: Tensor) -> Tensor:
    """What the network says: asked of shape (..., T, d), weights of shape (..., in, out)."""
    for weight in weights[:-1]:
        asked = nn.functional.gelu(asked @ weight)
    return asked @ weights[-1]


def learnt(
    lesson: Lesson, totals: Tensor | None, weights: Weights, momentum: Weights, settings: Settings, path: Path
) -> tuple[Weights, Weights]:
    """The weights after 0, 1, 2, ... chunks, shape (B, H, chunks + 1, in, out), and the last momentum; rows begin with a chunk.

    ``totals``: shape (B,), so many tokens of each row are real; None: all. ``recurrent`` takes each token's gradient by itself
    as it comes, the others those of a chunk at once. ``chunked`` is differentiated once at most where all tokens are real.
    """
    size = settings.chunk
    count = lesson.keys.shape[2] // size

    def chunks(x: Tensor) -> Tensor:
        """Shape (B, H, T, ...) as (B, H, chunks, size, ...), without what makes no complete chunk."""
        return x[:, :, : count * size].unflatten(2, (count, size))

    eta, alpha = chunks(lesson.rates[..., 1:]).mean(dim=3).sigmoid().unbind(dim=3)
    keys, values, theta = (chunks(one) for one in (lesson.keys, lesson.values, lesson.rates[..., 0]))
    weighed = (theta * (2 / values.shape[-1]))[..., None]
    if path == "chunked" and count and (totals is None or bool((totals >= count * size).all())):
        return _written_out(keys, values, weighed, eta, alpha, weights, momentum, settings)
    history, paces = [weights], torch.stack([eta, alpha], dim=-1)[..., None, None]
    # Taken apart at once: the gradient of a chunk that is taken by itself is as long as the whole sequence.
    each = zip(*(one.unbind(dim=2) for one in (paces, keys, values, weighed)), strict=True)
    for at, (pace, *seen) in enumerate(each):
        if path == "recurrent":
            tokens = [gradient(weights, *some) for some in zip(*(one.split(1, dim=2) for one in seen), strict=True)]
            steps = tuple(map(sum, zip(*tokens, strict=True)))
        else:
            steps = gradient(weights, *seen)
        eta_, alpha_ = pace.unbind(dim=2)
        now, then = changed(weights, momentum, steps, eta_, alpha_, settings)
        if totals is not None and not (complete := totals >= (at + 1) * size).all():
            where = complete[:, None, None, None]
            now = tuple(torch.where(where, a, b) for a, b in zip(now, weights, strict=True))
            then = tuple(torch.where(where, a, b) for a, b in zip(then, momentum, strict=True))
        weights, momentum = now, then
        history.append(weights)
    return tuple(torch.stack(layer, dim=2) for layer in zip(*history, strict=True)), momentum


def answered(history: Weights, asked: Tensor, size: int, *, ahead: int) -> Tensor:
    """What token t is told, with the weights after floor((t + ahead) / size) chunks: asked of shape (B, H, T, d)."""
    length = asked.shape[2]
    asked = nn.functional.pad(asked, (0, 0, ahead, history[0].shape[2] * size - length - ahead))
    return told(history, asked.unflatten(2, (-1, size))).flatten(2, 3)[:, :, ahead : ahead + length]


def gradient(weights: Sequence[Tensor], keys: Tensor, values: Tensor, weighed: Tensor) -> Weights:
    """Of sum_i w_i |M(k_i) - v_i|² / 2 by the weights, for each row and head; ``weighed``: shape (..., T, 1)."""
    inputs, slopes = [keys], []
    for weight in weights[:-1]:
        before = inputs[-1] @ weight
        below = torch.special.ndtr(before)  # gelu(z) = z below(z)
        inputs.append(before * below)
        slopes.append(below + before * _bell(before))
    back = (inputs[-1] @ weights[-1] - values) * weighed
    found = []
    for at in range(len(weights) - 1, -1, -1):
        found.append(inputs[at].mT @ back)
        if at:
            back = (back @ weights[at].mT) * slopes[at - 1]
    return tuple(reversed(found))


def _bell(x: Tensor) -> Tensor:
    """The density of the normal distribution."""
    return torch.exp(-0.5 * x.square()) * _PEAK


def changed(
    weights: Weights, momentum: Weights, steps: Weights, eta: Tensor, alpha: Tensor, settings: Settings
) -> tuple[Weights, Weights]:
    """Weights and momentum after a chunk with these gradients; eta and alpha of shape (B, H, 1, 1)."""
    shorter: Tensor | float = 1.0
    if settings.clip is not None:
        length = sum(step.square().sum(dim=(-1, -2), keepdim=True) for step in steps)
        shorter = settings.clip * torch.rsqrt(length + settings.clip**2)
    now, then = [], []
    for at, (weight, pace, step) in enumerate(zip(weights, momentum, steps, strict=True)):
        move = eta * pace - step * shorter if settings.momentum else -step * shorter
        if settings.forget:
            weight = (1 - alpha) * weight if settings.home is None else weight.lerp(settings.home[at], alpha)
        now.append(weight + move)
        then.append(move)
    return tuple(now), tuple(then)


def _written_out(
    keys: Tensor,
    values: Tensor,
    weighed: Tensor,
    eta: Tensor,
    alpha: Tensor,
    weights: Weights,
    momentum: Weights,
    settings: Settings,
) -> tuple[Weights, Weights]:
    """``learnt`` of complete chunks: rows and heads are one dimension N, and all layers of a network one vector of P numbers."""
    rows, heads = keys.shape[:2]
    sides = [tuple(one.shape[-2:]) for one in weights]

    def flat(some: Weights) -> Tensor:
        return torch.cat([one.expand(rows, heads, *one.shape[-2:]).flatten(2) for one in some], dim=2).flatten(0, 1)

    keys, values, weighed, eta, alpha = (one.flatten(0, 1) for one in (keys, values, weighed, eta, alpha))
    if len(weights) == 1:
        # A matrix has the gradient A W - B, neither of which depends on it: they are made for all chunks at once.
        moment = (keys * weighed).mT
        keys, values = moment @ keys, moment @ values
    home = None if settings.home is None or not settings.forget else flat(settings.home)
    history, last = _Learning.apply(
        sides, settings, keys, values, weighed, eta, alpha, flat(weights), flat(momentum), home
    )
    sizes = [a * b for a, b in sides]

    def apart(x: Tensor) -> Weights:
        """Shape (N, ..., P) as (B, H, ..., in, out) of each layer."""
        parts = x.unflatten(0, (rows, heads)).split(sizes, dim=-1)
        return tuple(part.unflatten(-1, side) for part, side in zip(parts, sides, strict=True))

    return apart(history), apart(last)


class _Learning(torch.autograd.Function):  # type: ignore[misc]
    """The weights after 0, 1, ... C chunks, shape (N, C + 1, P), and the last momentum, shape (N, P).

    Keys and values: shape (N, C, T, d), or A and B, shape (N, C, d, d); weighed: (N, C, T, 1); eta, alpha: (N, C).
    """

    @staticmethod
    def forward(
        ctx: Any,
        sides: Sequence[tuple[int, int]],
        settings: Settings,
        keys: Tensor,
        values: Tensor,
        weighed: Tensor,
        eta: Tensor,
        alpha: Tensor,
        weights: Tensor,
        momentum: Tensor,
        home: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        count, keep = keys.shape[1], any(ctx.needs_input_grad)
        slopes = (_Matrix if len(sides) == 1 else _Network)(sides, keys, values, weighed, keep)
        history = weights.new_empty((len(weights), count + 1, weights.shape[1]))
        # Without a way back two of them do: memory that is written for the first time costs more than what is written there.
        moves, steps = (weights.new_empty((some if keep else 2, *weights.shape)) for some in (count + 1, count))
        scales = weights.new_full((count, len(weights), 1), -1.0)
        history[:, 0], moves[0] = weights, momentum
        fast, slow = (one.mT[..., None].contiguous() for one in (eta, alpha))
        if not settings.momentum:
            fast = torch.zeros_like(fast)
        # Taken apart at once: to take a place by itself costs as much as a small product.
        layers = slopes.layers(history[:, :-1])
        paces, some = (
            [room[at % len(room)] for at in range(many)] for room, many in ((moves, count + 1), (steps, count))
        )
        each = zip(pairwise(history.unbind(1)), pairwise(paces), some, scales, fast, slow, layers, strict=True)
        for at, ((now, after), (pace, move), step, scale, eta_, alpha_, parts) in enumerate(each):
            slopes.of(at, parts, step)
            if settings.clip is not None:
                torch.mul(_dot(step, step).add_(settings.clip**2).rsqrt_(), -settings.clip, out=scale)
            torch.mul(step, scale, out=move)
            if settings.momentum:
                move.addcmul_(pace, eta_)
            if not settings.forget:
                torch.add(now, move, out=after)
            elif home is None:
                torch.addcmul(move, now, 1 - alpha_, out=after)
            else:
                torch.lerp(now, home, alpha_, out=after).add_(move)
        ctx.settings, ctx.slopes = settings, slopes
        ctx.save_for_backward(history, moves, steps, scales, fast, slow, home)
        return history, paces[count].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, to_history: Tensor, to_last: Tensor) -> tuple[Tensor | None, ...]:
        history, moves, steps, scales, fast, slow, home = ctx.saved_tensors
        settings, slopes = ctx.settings, ctx.slopes
        *to_history, to_now = to_history.unbind(1)
        to_pace, to_steps = to_last, torch.empty_like(history[:, 1:])
        to_fast, to_slow, stay = torch.zeros_like(fast), torch.zeros_like(slow), 1 - slow
        to_home = None if home is None else torch.zeros_like(home)
        bends = scales if settings.clip is None else scales**3 / -(settings.clip**2)
        layers = slopes.layers(history[:, :-1]), slopes.layers(to_steps)
        some = to_history, history.unbind(1)[:-1], moves[:-1], steps, to_steps.unbind(1), *layers
        rates = zip(fast, to_fast, slow, stay, to_slow, scales, bends, strict=True)
        for at, (*those, rate) in reversed(list(enumerate(zip(*some, rates, strict=True)))):
            to_before, before, pace, step, to_step, weights, to_layers = those
            eta, to_eta, alpha, left, to_alpha, scale, bend = rate
            to_move = to_now + to_pace
            torch.mul(to_move, scale, out=to_step)
            if settings.clip is not None:
                to_step.addcmul_(step, _dot(to_move, step).mul_(bend))
            if settings.momentum:
                to_eta.copy_(_dot(to_move, pace))
            to_pace = to_move.mul_(eta)
            if not settings.forget:
                to_now = to_now + to_before
            else:
                to_alpha.copy_(_dot(to_now, -before if home is None else home - before))
                if to_home is not None:
                    to_home.addcmul_(to_now, alpha)
                to_now = torch.addcmul(to_before, to_now, left)
            slopes.back(at, weights, to_layers, to_now)
        to_lesson = slopes.to_lesson(history[:, :-1], to_steps)
        return None, None, *to_lesson, to_fast[..., 0].mT, to_slow[..., 0].mT, to_now, to_pace, to_home


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """Shape (N, P) both; (N, 1)."""
    found: Tensor = torch.linalg.vecdot(x, y)[:, None]
    return found


class _Matrix:
    """The gradient by a matrix, A W - B, chunk by chunk, and the way back through it."""

    def __init__(
        self, sides: Sequence[tuple[int, int]], alike: Tensor, meant: Tensor, weighed: Tensor, keep: bool
    ) -> None:
        self._side, self._alike, self._meant = sides[0], alike.unbind(1), meant.unbind(1)

    def layers(self, flat: Tensor) -> Iterator[Sequence[Tensor]]:
        """Shape (N, C, P) as that of each layer, shape (N, in, out), chunk by chunk."""
        return ((one,) for one in flat.unflatten(2, self._side).unbind(1))

    def of(self, at: int, weights: Sequence[Tensor], step: Tensor) -> None:
        """Puts the gradient of a chunk into ``step``, shape (N, P)."""
        torch.baddbmm(self._meant[at], self._alike[at], weights[0], beta=-1, out=step.unflatten(1, self._side))

    def back(self, at: int, weights: Sequence[Tensor], to_steps: Sequence[Tensor], to_weights: Tensor) -> None:
        """Adds to the gradient by a chunk's weights, shape (N, P), what comes of that by its step."""
        to_weights.unflatten(1, self._side).baddbmm_(self._alike[at].mT, to_steps[0])

    def to_lesson(self, history: Tensor, to_steps: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients by A and B of all chunks at once."""
        matrices, to_steps = (one.unflatten(-1, self._side) for one in (history, to_steps))
        return to_steps @ matrices.mT, -to_steps, None


class _Network:
    """The same by the weights of an MLP; of keys, values and what each token weighs."""

    def __init__(
        self, sides: Sequence[tuple[int, int]], keys: Tensor, values: Tensor, weighed: Tensor, keep: bool
    ) -> None:
        self._sides, self._sizes = sides, [a * b for a, b in sides]
        self._keys, self._values, self._weighed = (one.unbind(1) for one in (keys, values, weighed))
        self._kept: list[_Pass] | None = [] if keep else None
        self._found: list[tuple[Tensor, ...]] = []

    def layers(self, flat: Tensor) -> Iterator[Sequence[Tensor]]:
        """See ``_Matrix``."""
        parts = zip(flat.split(self._sizes, dim=2), self._sides, strict=True)
        return zip(*(part.unflatten(2, side).unbind(1) for part, side in parts), strict=True)

    def of(self, at: int, weights: Sequence[Tensor], step: Tensor) -> None:
        """See ``_Matrix``."""
        inputs, slopes, curves = [self._keys[at]], [], []
        for weight in weights[:-1]:
            before = torch.bmm(inputs[-1], weight)
            below, square = torch.special.ndtr(before), before.square()
            bell = (-0.5 * square).exp_().mul_(_PEAK)
            inputs.append(before * below)
            slopes.append(below.addcmul_(before, bell))
            if self._kept is not None:
                curves.append((2 - square).mul_(bell))
        miss = torch.baddbmm(self._values[at], inputs[-1], weights[-1], beta=-1)
        backs, unders, steps = [miss * self._weighed[at]], [], []
        for layer in range(len(weights) - 1, -1, -1):
            steps.append(torch.bmm(inputs[layer].mT, backs[-1]).flatten(1))
            if layer:
                unders.append(torch.bmm(backs[-1], weights[layer].mT))
                backs.append(unders[-1] * slopes[layer - 1])
        torch.cat(steps[::-1], dim=1, out=step)
        if self._kept is not None:
            self._kept.append(_Pass(inputs, slopes, curves, backs[::-1], unders[::-1], miss))

    def back(self, at: int, weights: Sequence[Tensor], to_steps: Sequence[Tensor], to_weights: Tensor) -> None:
        """See ``_Matrix``."""
        assert self._kept is not None
        one = self._kept[at]
        # Up again through what came down from the loss.
        to_back, to_inputs, to_slopes, found = torch.bmm(one.inputs[0], to_steps[0]), [], [], []
        for layer in range(1, len(weights)):
            to_slopes.append(to_back * one.unders[layer - 1])
            to_under = to_back.mul_(one.slopes[layer - 1])
            found.append(torch.bmm(to_under.mT, one.backs[layer]))
            to_inputs.append(torch.bmm(one.backs[layer], to_steps[layer].mT))
            to_back = torch.bmm(to_under, weights[layer]).baddbmm_(one.inputs[layer], to_steps[layer])
        # Down through the network itself.
        to_before = to_said = to_back * self._weighed[at]
        for layer in range(len(weights) - 1, 0, -1):
            found[layer - 1].baddbmm_(one.inputs[layer].mT, to_before)
            to_input = to_inputs[layer - 1].baddbmm_(to_before, weights[layer].mT)
            to_before = to_input.mul_(one.slopes[layer - 1]).addcmul_(to_slopes[layer - 1], one.curves[layer - 1])
        found = [torch.bmm(one.inputs[0].mT, to_before), *found]
        to_weights += torch.cat([layer.flatten(1) for layer in found], dim=1)
        self._found.append((one.backs[0], to_before, to_said, to_back, one.miss))

    def to_lesson(self, history: Tensor, to_steps: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients by keys, values and what tokens weigh, of all chunks at once."""
        found, self._found = self._found, []  # a graph that is retained may be gone back through again
        backs, to_before, to_said, to_back, misses = (
            torch.stack(several[::-1], dim=1) for several in zip(*found, strict=True)
        )
        first, to_first = (one[..., : self._sizes[0]].unflatten(-1, self._sides[0]) for one in (history, to_steps))
        to_keys = (backs @ to_first.mT).add_(to_before @ first.mT)
        return to_keys, -to_said, (to_back * misses).sum(dim=3, keepdim=True)


@dataclass(frozen=True, slots=True)
class _Pass:
    """What is kept of a chunk, of each layer or of each but the last: shape (N, T, width).

    Fields
        inputs: of each layer.
        slopes, curves: the first and second derivatives of gelu where it was taken.
        backs: the gradient by what each layer says; unders: the same by its inputs, before the slope.
        miss: what was said less the values.
    """

    inputs: Sequence[Tensor]
    slopes: Sequence[Tensor]
    curves: Sequence[Tensor]
    backs: Sequence[Tensor]
    unders: Sequence[Tensor]
    miss: Tensor
