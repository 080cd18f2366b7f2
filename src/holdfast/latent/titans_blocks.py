"""Attention and a neural memory in one block, in the four ways of Titans (arXiv 2501.00663, §4, eqs 19-31).

- ``mac``, memory as context: of each segment, what memory says of its tokens stands before them; what attention makes of both is
  written, and gated by what memory says then;
- ``mag``, memory as gate: a sliding window gated by memory;
- ``mal``, memory as layer: a sliding window over what memory says;
- ``lmm``: memory alone.

In the paper's ``mac`` a token sees what memory says of the whole segment, and is gated by a memory that has read it, later tokens
and all. Here it sees what is said of itself and the tokens before it, and memory changes as each of its chunks is complete, so
that reading token by token gives what one pass gives. Learnt tokens are in sight of attention; memory does not read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.latent.layers import Layer, RMSNorm, State, exact
from holdfast.latent.stretch import Stretch
from holdfast.latent.titans import NeuralMemory
from holdfast.latent.window_attention import WindowAttention, turned, turns
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

Mode = Literal["mac", "mag", "mal", "lmm"]


class TitansBlock(Layer):
    """One of the four. Raises InputError. The state is that of its parts, "memory.*" and "attention.*".

    Args:
        d_model, heads, head_dim: sizes of attention and memory alike.
        mode: which one.
        window: what attention sees; of ``mac`` the length of a segment, a multiple of the memory's chunk.
        persistent: learnt tokens before every window.
        conv: width of the convolutions in both; ``mac`` has none in attention, which sees the segment.
        memory: what else ``NeuralMemory`` takes.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        *,
        head_dim: int,
        mode: Mode = "mag",
        window: int = 64,
        persistent: int = 4,
        conv: int = 4,
        **memory: Any,
    ) -> None:
        super().__init__(d_model)
        if mode not in get_args(Mode):
            raise InputError(f"the modes are {', '.join(get_args(Mode))}: {mode!r} is none")
        self.mode, self.window = mode, window
        self.memory = NeuralMemory(d_model, heads, head_dim=head_dim, conv=conv, **memory)
        if mode in ("mag", "mal"):
            self.attention = WindowAttention(
                d_model, heads, head_dim=head_dim, window=window, persistent=persistent, conv=conv
            )
        if mode == "mac":
            if window % self.memory.chunk:
                raise InputError(f"a segment of {window} tokens is no multiple of a chunk of {self.memory.chunk}")
            self.segment = _SegmentAttention(d_model, heads, head_dim, persistent)
        if mode in ("mac", "mag"):
            self.said_norm, self.gate_norm = RMSNorm(d_model, eps=1e-5), RMSNorm(d_model, eps=1e-5)

    def take(self, x: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        """See ``Layer``."""
        if self.mode == "mac":
            return self._segments(x, state, lengths)
        memory = None if state is None else under("memory", state)
        if self.mode == "lmm":
            said, memory = self.memory.take(x, memory, lengths)
            return said, named("memory", memory)
        attention = None if state is None else under("attention", state)
        if self.mode == "mal":
            said, memory = self.memory.take(x, memory, lengths)
            said, attention = self.attention.take(said, attention, lengths)
        else:
            said, attention = self.attention.take(x, attention, lengths)
            gate, memory = self.memory.take(x, memory, lengths)
            said = self._gated(said, gate)
        return said, {**named("memory", memory), **named("attention", attention)}

    def _gated(self, said: Tensor, gate: Tensor) -> Tensor:
        found: Tensor = self.said_norm(said) * nn.functional.silu(self.gate_norm(gate))
        return found

    def _segments(self, x: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        """Memory is kept as it was when the last segment began, and beside it the tokens of the segment since then.

        What does not depend on memory is computed of all segments at once, before and after they are gone through.
        """
        size = self.window
        if state is None:
            state = {
                **named("memory", self.memory.begun(len(x))),
                "tokens": x.new_zeros((len(x), size - 1, self.d_model)),
                "count": torch.zeros(len(x), dtype=torch.int64, device=x.device),
            }
        memory = under("memory", state)
        stretch = Stretch.of({"tokens": state["tokens"]}, state["count"], {"tokens": x}, lengths)
        tokens = stretch.parts["tokens"]
        asks = (one.split(size, dim=1) for one in self.memory.asks(tokens))
        saids, reads, inputs = [], [], []
        for at, (own, asked, opened) in enumerate(zip(self.segment.alone(tokens, size), *asks, strict=True)):
            said = self.segment(own, self.memory.answers(asked, opened, memory))
            some = stretch.within(at * size, said.shape[1])
            read, normed, after = self.memory.learn(said, memory, some)
            if said.shape[1] == size:  # else it is complete in no row
                memory = after if some is None else _where(some == size, after, memory)
            saids.append(said)
            reads.append(read)
            inputs.append(normed)
        gate = self.memory.out(torch.cat(reads, dim=2), torch.cat(inputs, dim=1))
        found = self._gated(torch.cat(saids, dim=1), gate)
        return stretch.new(found), {**named("memory", memory), **stretch.tail(size)}


class _SegmentAttention(nn.Module):  # type: ignore[misc]
    """Attention in a segment: a token sees the learnt tokens, and of itself and each before it both it and what memory says."""

    def __init__(self, d_model: int, heads: int, head_dim: int, persistent: int) -> None:
        super().__init__()
        if head_dim % 2:
            raise InputError("heads have an even size")
        self.heads, self.head_dim = heads, head_dim
        self.to_queries = nn.Linear(d_model, heads * head_dim, bias=False)
        self.to_others = nn.Linear(d_model, 2 * heads * head_dim, bias=False)
        self.persistent = nn.Parameter(torch.randn(2, heads, persistent, head_dim) * 0.5)
        self.out = nn.Linear(heads * head_dim, d_model, bias=False)

    def alone(self, x: Tensor, size: int) -> Iterator[_Alone]:
        """What it makes of the tokens of each segment, without what memory says of them: x of shape (B, T, D)."""
        length = x.shape[1]
        size = min(size, length)
        segments = nn.functional.pad(x, (0, 0, 0, -length % size)).unflatten(1, (-1, size))
        plain = self._split(self.to_queries(segments)) * self.head_dim**-0.5
        keys, values = (self._split(one) for one in self.to_others(segments).chunk(2, dim=-1))
        turn = turns(plain, torch.arange(size, device=x.device))
        queries, keys = (turned(one, *turn).transpose(2, 3) for one in (plain, keys))
        later = torch.full((size, size), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
        always = plain.transpose(2, 3) @ self.persistent[0].mT
        scores = torch.cat([always, queries @ keys.mT + later], dim=-1)
        values = torch.cat([self.persistent[1].expand(*values.shape[:2], -1, -1, -1), values.transpose(2, 3)], dim=-2)
        each = zip(queries.unbind(1), scores.unbind(1), values.unbind(1), strict=True)
        for at, (asking, weighed, told) in enumerate(each):
            left = min(size, length - at * size)
            places = tuple(one[:left] for one in turn)
            yield _Alone(asking[:, :, :left], weighed[:, :, :left], told, later[:left, :left], places)

    def forward(self, own: _Alone, said: Tensor) -> Tensor:
        """A segment's tokens among themselves and what memory says of them, shape (B, T, D)."""
        keys, values = (self._split(one) for one in self.to_others(said).chunk(2, dim=-1))
        scores = own.queries @ turned(keys, *own.turns).transpose(1, 2).mT + own.later
        weights = exact(torch.cat([own.scores, scores], dim=-1)).softmax(dim=-1).to(said.dtype)
        found = weights @ torch.cat([own.values, values.transpose(1, 2)], dim=-2)
        answer: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return answer

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.head_dim))


@dataclass(frozen=True, slots=True)
class _Alone:
    """Of a segment of T tokens, and P learnt ones.

    Fields
        queries: turned to their places, shape (B, H, T, d).
        scores: of the learnt tokens and of its own, shape (B, H, T, P + S); S is T at least.
        values: of these, shape (B, H, P + S, d).
        later: -inf where a key is later than a query, shape (T, T).
        turns: of its places.
    """

    queries: Tensor
    scores: Tensor
    values: Tensor
    later: Tensor
    turns: tuple[Tensor, ...]


def _where(rows: Tensor, after: State, before: State) -> State:
    """The state ``after`` in some rows, shape (B,), and ``before`` in the others."""
    return {
        name: torch.where(rows.reshape(-1, *(1,) * (one.dim() - 1)), after[name], one.to(after[name].dtype))
        for name, one in before.items()
    }


def named(name: str, state: State) -> State:
    """A part's state among the whole's."""
    return {f"{name}.{key}": tensor for key, tensor in state.items()}


def under(name: str, state: State) -> State:
    """The state of a part."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in state.items() if key.startswith(f"{name}.")}
