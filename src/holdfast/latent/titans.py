"""Neural memory (Titans, arXiv 2501.00663, eqs 8-15): a small network a head whose weights learn while it reads.

Its loss is how badly it says a token's value when given the token's key. Of the tokens of a chunk the gradients g are taken at
the weights M with which the chunk began, and at its end, with rates that the model draws from what it read,

    S <- eta S - sum_i theta_i g_i;   M <- (1 - alpha) M + S

A token reads with the weights of the chunks that are complete once it is there: the last of a chunk sees what its own chunk wrote.
Three choices where the paper leaves room or its readers differ: eta and alpha are one number a chunk (the mean of what its tokens
ask for), the loss is the mean over features and not the sum, and every chunk takes its gradients at its own start.

How it learns is ``inner_loop``'s.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.latent.inner_loop import Lesson, Settings, Weights, answered, learnt, told
from holdfast.latent.layers import (
    Layer,
    Path,
    RMSNorm,
    ShortConvolution,
    State,
    exact,
    full_precision,
    normed,
)
from holdfast.latent.matrix_memory import GatedOutput, by_head
from holdfast.latent.stretch import Stretch
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
        self.norm = RMSNorm(d_model, eps=1e-6)
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
        found, x, now = self.learn(x, state, lengths)
        return self.out(found, x), now

    def learn(self, x: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, Tensor, State]:
        """As ``take``, but of what it says only what ``out`` takes: for who reads piece by piece and has all said at once."""
        state = self.begun(x.shape[0]) if state is None else state
        x, lesson, queries, conv = self._looked(x, state, lengths)
        with full_precision(x):
            stretch = _since(state, lesson, queries, lengths)
            history, momentum = self._learnt(stretch, state)
            found = stretch.new(answered(history, stretch.parts["queries"], self.chunk, ahead=1))
            now = {
                # Of its own: a part of them all would keep all of them.
                **{f"weights.{at}": one[:, :, -1].clone() for at, one in enumerate(history)},
                **{f"momentum.{at}": one for at, one in enumerate(momentum)},
                **stretch.tail(self.chunk),
                "conv": conv,
            }
        return found, x, now

    def write(self, x: Tensor, state: State | None = None, *, mask: Tensor | None = None) -> State:
        """What it keeps after reading x, shape (B, T, D)."""
        now: State = self(x, state, mask=mask)[1]
        return now

    def read(self, x: Tensor, state: State) -> Tensor:
        """What it says to x, shape (B, T, D), and nothing of it is kept: every token asks the same weights."""
        return self.answers(*self.asks(x), state)

    def asks(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What x asks, and how far answers are let through, shape (B, T, H d) both: neither depends on what is remembered."""
        x = self.norm(x)
        # Keys and values are for what is written.
        return nn.functional.linear(x, self.to_all.weight[: self.heads * self.head_dim]), self.out.opened(x)

    def answers(self, asked: Tensor, opened: Tensor, state: State) -> Tensor:
        """What it says to what ``asks`` gave, shape (B, T, D)."""
        mixed, _ = self.conv(asked, state["conv"][..., : asked.shape[-1]], None)
        queries = self._asking(mixed, self.heads)
        with full_precision(asked):
            found = told(self._weights("weights", state), queries)
        return self.out.through(found, opened)

    def surprise(self, x: Tensor, state: State | None = None) -> Tensor:
        """The loss of each token when its chunk began, the mean over heads, shape (B, T): how much of x was not to be foreseen.

        What was surprising is worth keeping in other stores too.
        """
        state = self.begun(x.shape[0]) if state is None else state
        x, lesson, queries, _ = self._looked(x, state, None)
        with full_precision(x):
            stretch = _since(state, lesson, queries, None)
            history, _ = self._learnt(stretch, state)
            said = stretch.new(answered(history, stretch.parts["keys"], self.chunk, ahead=0))
            return (said - lesson.values).square().mean(dim=(1, 3))

    def _looked(self, x: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, Lesson, Tensor, Tensor]:
        """x normalised, what is to be learnt of it, its queries, and the convolution's state."""
        x = self.norm(x)
        mixed, conv = self.conv(self.to_all(x), state["conv"], lengths)
        wide = self.heads * self.head_dim
        queries, keys = self._asking(mixed[..., : 2 * wide], 2 * self.heads).chunk(2, dim=1)
        values = exact(by_head(mixed[..., 2 * wide :], self.heads))
        rates = exact(self.to_rates(x)).unflatten(-1, (3, self.heads)).permute(0, 3, 1, 2)
        theta = rates[..., :1].sigmoid() * self.most
        return x, Lesson(keys, values, torch.cat([theta, rates[..., 1:]], dim=-1)), queries, conv

    @staticmethod
    def _asking(x: Tensor, heads: int) -> Tensor:
        """What is asked, or what a value is kept under: of one length, shape (B, H, T, d)."""
        return normed(exact(by_head(x, heads)), None, 1e-6)

    def _learnt(self, stretch: Stretch, state: State) -> tuple[Weights, Weights]:
        home = tuple(exact(one) for one in self.start) if self.forget_to == "start" else None
        settings = Settings(self.chunk, self.momentum, self.forget, home, self.clip)
        weights, momentum = self._weights("weights", state), self._weights("momentum", state)
        lesson = Lesson(*(stretch.parts[name] for name in _KEPT))
        return learnt(lesson, stretch.totals, weights, momentum, settings, self.path)

    def _weights(self, name: str, state: State) -> Weights:
        return tuple(state[f"{name}.{at}"] for at in range(self.depth))


_KEPT = "keys", "values", "rates"


def _since(state: State, lesson: Lesson, queries: Tensor, lengths: Tensor | None) -> Stretch:
    """What is to be learnt since the last complete chunk. Queries are not kept: nobody asks again what was asked already."""
    before = {name: state[name] for name in _KEPT}
    new = {"keys": lesson.keys, "values": lesson.values, "rates": lesson.rates, "queries": queries}
    return Stretch.of(before, state["count"], new, lengths)


def _by_head(heads: int, rows: int, columns: int) -> Tensor:
    return torch.stack([nn.init.xavier_uniform_(torch.empty(rows, columns)) for _ in range(heads)])
