"""Neural memory (Titans, arXiv 2501.00663, eqs 8-15): a small network a head whose weights learn while it reads.

Its loss is how badly it says a token's value when given the token's key. Of the tokens of a chunk the gradients g are taken at
the weights M with which the chunk began, and at its end, with rates that the model draws from what it read,

    S <- eta S - sum_i theta_i g_i;   M <- (1 - alpha) M + S

A token reads with the weights of the chunks that are complete once it is there: the last of a chunk sees what its own chunk wrote.
Three choices where the paper leaves room or its readers differ: eta and alpha are one number a chunk (the mean of what its tokens
ask for), the loss is the mean over features and not the sum, and every chunk takes its gradients at its own start.

Gradients are written out, so that a backward pass goes through them as through any other operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.latent.layers import Layer, Path, ShortConvolution, State, exact, front, full_precision
from holdfast.latent.matrix_memory import GatedOutput, by_head
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Retrieval, Subform, Subject, Trainable
from holdfast.torched import Tensor, nn, torch

PROFILE = MemoryProfile(
    Form.STATE,
    Subform.TRANSFORMED,
    (Function.WORK_SINGLE, Function.WORK_MULTI),
    formation=(Formation.LATENT,),
    evolution=(Evolution.UPDATE_INTERNAL, Evolution.FORGET_BY_IMPORTANCE),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.USER, Subject.WORLD, Subject.AGENT),
    trainable=Trainable.FULL,
)

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


def gradient(weights: Sequence[Tensor], keys: Tensor, values: Tensor, theta: Tensor) -> Weights:
    """Of sum_i theta_i mean((M(k_i) - v_i)²) by the weights, for each row and head; theta of shape (..., T)."""
    inputs, slopes = [keys], []
    for weight in weights[:-1]:
        before = inputs[-1] @ weight
        below = torch.special.ndtr(before)  # gelu(z) = z below(z)
        inputs.append(before * below)
        slopes.append(below + before * torch.exp(-0.5 * before.square()) * 0.3989422804014327)
    back = (inputs[-1] @ weights[-1] - values) * (theta * (2 / values.shape[-1]))[..., None]
    found = []
    for at in range(len(weights) - 1, -1, -1):
        found.append(inputs[at].mT @ back)
        if at:
            back = (back @ weights[at].mT) * slopes[at - 1]
    return tuple(reversed(found))


def _moments(keys: Tensor, values: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """A and B of each chunk, such that the gradient by a matrix W is A W - B: they do not depend on it, so all are made at once."""
    weighed = (keys * (theta * (2 / values.shape[-1]))[..., None]).mT
    return weighed @ keys, weighed @ values


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


def learnt(
    lesson: Lesson, totals: Tensor | None, weights: Weights, momentum: Weights, settings: Settings, path: Path
) -> tuple[list[Weights], Weights]:
    """The weights after 0, 1, 2, ... chunks and the last momentum, for rows that begin with a chunk.

    ``totals``: shape (B,), so many tokens of each row are real; None: all. ``recurrent`` takes each token's gradient by itself
    as it comes, ``chunked`` those of a chunk at once; ``dense`` is ``chunked``.
    """
    size, history = settings.chunk, [weights]
    count = lesson.keys.shape[2] // size

    def chunks(x: Tensor) -> Tensor:
        """Shape (B, H, T, ...) as (B, H, chunks, size, ...), without what makes no complete chunk."""
        return x[:, :, : count * size].unflatten(2, (count, size))

    paces = chunks(lesson.rates[..., 1:]).mean(dim=3).sigmoid()[..., None, None]
    keys, values, theta = (chunks(one) for one in (lesson.keys, lesson.values, lesson.rates[..., 0]))
    plain = len(weights) == 1 and path != "recurrent"
    parts = _moments(keys, values, theta) if plain else (keys, values, theta)
    # Taken apart at once: the gradient of a chunk that is taken by itself is as long as the whole sequence.
    each = zip(*(one.unbind(dim=2) for one in (*paces.unbind(dim=3), *parts)), strict=True)
    for at, (eta, alpha, *seen) in enumerate(each):
        if plain:
            alike, meant = seen
            steps: Weights = (alike @ weights[0] - meant,)
        elif path == "recurrent":
            tokens = [gradient(weights, *some) for some in zip(*(one.split(1, dim=2) for one in seen), strict=True)]
            steps = tuple(map(sum, zip(*tokens, strict=True)))
        else:
            steps = gradient(weights, *seen)
        now, then = changed(weights, momentum, steps, eta, alpha, settings)
        if totals is not None and not (complete := totals >= (at + 1) * size).all():
            where = complete[:, None, None, None]
            now = tuple(torch.where(where, a, b) for a, b in zip(now, weights, strict=True))
            then = tuple(torch.where(where, a, b) for a, b in zip(then, momentum, strict=True))
        weights, momentum = now, then
        history.append(weights)
    return history, momentum


def answered(history: Sequence[Weights], asked: Tensor, size: int, *, ahead: int) -> Tensor:
    """What token t is told, with the weights after floor((t + ahead) / size) chunks: asked of shape (B, H, T, d)."""
    length = asked.shape[2]
    asked = nn.functional.pad(asked, (0, 0, ahead, len(history) * size - length - ahead))
    stacked = [torch.stack(layer, dim=2) for layer in zip(*history, strict=True)]
    return told(stacked, asked.unflatten(2, (-1, size))).flatten(2, 3)[:, :, ahead : ahead + length]


class NeuralMemory(Layer):
    """A layer whose memory is a network a head. Raises InputError.

    The state: "weights.0", ... and "momentum.0", ..., shape (B, H, in, out); what was read since the last complete chunk ("keys",
    "values", "rates", and in "count" how much that is); and the last inputs of the convolution.

    Args:
        d_model: width of what it reads and says.
        heads, head_dim: networks, and the width of their keys and values.
        depth, expansion: layers of a network, and how much wider those between are. Depth 1 is a matrix.
        chunk: see ``Settings``: the longer, the faster, and the later what was read can be told.
        conv: width of a causal convolution of queries, keys and values: without it a token's key and value are of one token.
        momentum, forget, clip: see ``Settings``.
        forget_to: what is forgotten fades to the weights that were learnt in training ("start"), or to "zero": with two layers or
            more all gradients are zero there, and a memory that forgot everything would never learn again.
        most: bound on theta.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        *,
        head_dim: int,
        depth: int = 2,
        expansion: int = 2,
        chunk: int = 16,
        conv: int = 4,
        momentum: bool = True,
        forget: bool = True,
        forget_to: Literal["zero", "start"] = "start",
        most: float = 0.5,
        clip: float | None = 1.0,
        path: Path = "chunked",
    ) -> None:
        super().__init__(d_model)
        if depth < 1 or chunk < 1 or conv < 1 or most <= 0 or (clip is not None and clip <= 0):
            raise InputError("depth, chunk and conv are 1 or more, and most and clip are positive")
        if forget_to not in ("zero", "start"):
            raise InputError(f"what is forgotten fades to 'zero' or to the 'start', not to {forget_to!r}")
        self.heads, self.head_dim, self.depth, self.chunk, self.path = heads, head_dim, depth, chunk, path
        self.momentum, self.forget, self.forget_to, self.most, self.clip = momentum, forget, forget_to, most, clip
        wide = heads * head_dim
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.to_all = nn.Linear(d_model, 3 * wide, bias=False)
        self.conv = ShortConvolution(3 * wide, conv)
        self.to_rates = nn.Linear(d_model, 3 * heads)
        nn.init.zeros_(self.to_rates.bias)
        with torch.no_grad():
            self.to_rates.bias[2 * heads :] = -4.0  # at first little is forgotten
        widths = [head_dim, *[head_dim * expansion] * (depth - 1), head_dim]
        self.start = nn.ParameterList(nn.Parameter(_by_head(heads, *sides)) for sides in pairwise(widths))
        self.out = GatedOutput(d_model, heads, head_dim)

    def begun(self, rows: int) -> State:
        """The state of rows that have read nothing."""
        weights = [exact(one).expand(rows, *one.shape) for one in self.start]
        like = weights[0]
        wide = self.heads * self.head_dim
        tail = (rows, self.heads, self.chunk - 1)
        return {
            **{f"weights.{at}": one for at, one in enumerate(weights)},
            **{f"momentum.{at}": torch.zeros_like(one) for at, one in enumerate(weights)},
            "keys": like.new_zeros((*tail, self.head_dim)),
            "values": like.new_zeros((*tail, self.head_dim)),
            "rates": like.new_zeros((*tail, 3)),
            "count": torch.zeros(rows, dtype=torch.int64, device=like.device),
            "conv": like.new_zeros((rows, self.conv.weight.shape[0] - 1, 3 * wide)),
        }

    def take(self, x: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        """See ``Layer``."""
        state = self.begun(x.shape[0]) if state is None else state
        x, lesson, queries, conv = self._looked(x, state, lengths)
        with full_precision(x):
            joint = _Joint.of(state, lesson, queries, lengths)
            history, momentum = self._learnt(joint, state)
            found = joint.new(answered(history, joint.queries, self.chunk, ahead=1))
            now = {
                **{f"weights.{at}": one for at, one in enumerate(history[-1])},
                **{f"momentum.{at}": one for at, one in enumerate(momentum)},
                **joint.tail(self.chunk),
                "conv": conv,
            }
        return self.out(found, x), now

    def write(self, x: Tensor, state: State | None = None, *, mask: Tensor | None = None) -> State:
        """What it keeps after reading x, shape (B, T, D)."""
        now: State = self(x, state, mask=mask)[1]
        return now

    def read(self, x: Tensor, state: State) -> Tensor:
        """What it says to x, shape (B, T, D), and nothing of it is kept: every token asks the same weights."""
        x, wide = self.norm(x), self.heads * self.head_dim
        asked = nn.functional.linear(x, self.to_all.weight[:wide])  # keys and values are for what is written
        mixed, _ = self.conv(asked, state["conv"][..., :wide], None)
        queries = self._queries(nn.functional.silu(mixed))
        with full_precision(x):
            found = told(self._weights("weights", state), queries)
        said: Tensor = self.out(found, x)
        return said

    def surprise(self, x: Tensor, state: State | None = None) -> Tensor:
        """The loss of each token when its chunk began, the mean over heads, shape (B, T): how much of x was not to be foreseen.

        What was surprising is worth keeping in other stores too.
        """
        state = self.begun(x.shape[0]) if state is None else state
        x, lesson, queries, _ = self._looked(x, state, None)
        with full_precision(x):
            joint = _Joint.of(state, lesson, queries, None)
            history, _ = self._learnt(joint, state)
            said = joint.new(answered(history, joint.lesson.keys, self.chunk, ahead=0))
            return (said - lesson.values).square().mean(dim=(1, 3))

    def _looked(self, x: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, Lesson, Tensor, Tensor]:
        """x normalised, what is to be learnt of it, its queries, and the convolution's state."""
        x = self.norm(x)
        mixed, conv = self.conv(self.to_all(x), state["conv"], lengths)
        queries, keys, values = nn.functional.silu(mixed).chunk(3, dim=-1)
        queries, keys, values = self._queries(queries), self._queries(keys), exact(by_head(values, self.heads))
        rates = exact(self.to_rates(x)).unflatten(-1, (3, self.heads)).permute(0, 3, 1, 2)
        theta = rates[..., :1].sigmoid() * self.most
        return x, Lesson(keys, values, torch.cat([theta, rates[..., 1:]], dim=-1)), queries, conv

    def _queries(self, x: Tensor) -> Tensor:
        """What is asked, or what a value is kept under: of one length, shape (B, H, T, d)."""
        return nn.functional.rms_norm(exact(by_head(x, self.heads)), (self.head_dim,), eps=1e-6)

    def _learnt(self, joint: _Joint, state: State) -> tuple[list[Weights], Weights]:
        home = tuple(exact(one) for one in self.start) if self.forget_to == "start" else None
        settings = Settings(self.chunk, self.momentum, self.forget, home, self.clip)
        weights, momentum = self._weights("weights", state), self._weights("momentum", state)
        return learnt(joint.lesson, joint.totals, weights, momentum, settings, self.path)

    def _weights(self, name: str, state: State) -> Weights:
        return tuple(state[f"{name}.{at}"] for at in range(self.depth))


@dataclass(frozen=True, slots=True)
class _Joint:
    """What rows read since their last complete chunk and what is new, in one sequence that begins with a chunk.

    Fields
        lesson, queries: of all these tokens.
        totals: shape (B,), so many of a row are real; None: all.
        fresh: where a row's new tokens stand: shape (B, T), or one slice for all rows.
    """

    lesson: Lesson
    queries: Tensor
    totals: Tensor | None
    fresh: Tensor | slice

    @classmethod
    def of(cls, state: State, lesson: Lesson, queries: Tensor, lengths: Tensor | None) -> _Joint:
        counts, size = state["count"], state["keys"].shape[2]
        before = Lesson(state["keys"], state["values"], state["rates"])
        # Nobody asks again what was asked already.
        queries = nn.functional.pad(queries, (0, 0, size, 0))
        count = int(counts[0])
        if lengths is None and (counts == count).all():
            long = _both(before, lesson, slice(0, count))
            return cls(long, queries[:, :, size - count :], None, slice(count, None))
        long = _both(before, lesson, slice(0, size))
        places = torch.arange(long.keys.shape[2], device=counts.device)
        ends = size + (lesson.keys.shape[2] if lengths is None else lengths)
        held = (places < counts[:, None]) | ((places >= size) & (places < torch.as_tensor(ends).reshape(-1, 1)))
        order = front(held)
        fresh = counts[:, None] + torch.arange(lesson.keys.shape[2], device=counts.device)
        moved = Lesson(*(_picked(one, order) for one in (long.keys, long.values, long.rates)))
        return cls(moved, _picked(queries, order), held.sum(dim=1), fresh)

    def new(self, found: Tensor) -> Tensor:
        """Of the new tokens alone, of what was found for all, shape (B, H, L, d)."""
        return found[:, :, self.fresh] if isinstance(self.fresh, slice) else _picked(found, self.fresh)

    def tail(self, chunk: int) -> State:
        """What does not make a complete chunk."""
        keys = self.lesson.keys
        totals = self.totals
        if totals is None:
            totals = torch.full((keys.shape[0],), keys.shape[2], device=keys.device)
        counts = totals % chunk
        slots = torch.arange(chunk - 1, device=keys.device)
        places = ((totals - counts)[:, None] + slots).clamp_max(keys.shape[2] - 1)
        held = (slots < counts[:, None])[:, None, :, None]
        names = {"keys": keys, "values": self.lesson.values, "rates": self.lesson.rates}
        return {**{name: _picked(one, places) * held for name, one in names.items()}, "count": counts}


def _both(before: Lesson, after: Lesson, some: slice) -> Lesson:
    pairs = (before.keys, after.keys), (before.values, after.values), (before.rates, after.rates)
    return Lesson(*(torch.cat([a[:, :, some], b], dim=2) for a, b in pairs))


def _picked(x: Tensor, places: Tensor) -> Tensor:
    """Some places of x, shape (B, H, L, d), of each row its own: places of shape (B, N)."""
    wide = places[:, None, :, None].expand(x.shape[0], x.shape[1], places.shape[1], x.shape[3])
    return x.gather(2, wide)


def _by_head(heads: int, rows: int, columns: int) -> Tensor:
    return torch.stack([nn.init.xavier_uniform_(torch.empty(rows, columns)) for _ in range(heads)])
