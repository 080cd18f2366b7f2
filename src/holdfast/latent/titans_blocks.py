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

from typing import Any, Literal, get_args

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.latent.layers import Layer, State, exact, front, moved
from holdfast.latent.titans import NeuralMemory
from holdfast.latent.window_attention import WindowAttention, rotated
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
            self.said_norm, self.gate_norm = nn.RMSNorm(d_model, eps=1e-5), nn.RMSNorm(d_model, eps=1e-5)

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
        """Memory is kept as it was when the last segment began, and beside it the tokens of the segment since then."""
        rows, length, _ = x.shape
        size = self.window
        if state is None:
            state = {
                **named("memory", self.memory.begun(rows)),
                "tokens": x.new_zeros((rows, size - 1, self.d_model)),
                "count": torch.zeros(rows, dtype=torch.int64, device=x.device),
            }
        memory, counts = under("memory", state), state["count"]
        long = torch.cat([state["tokens"].to(x.dtype), x], dim=1)
        places = torch.arange(long.shape[1], device=x.device)
        ends = size - 1 + (torch.full_like(counts, length) if lengths is None else lengths)
        held = (places < counts[:, None]) | ((places >= size - 1) & (places < ends[:, None]))
        totals = held.sum(dim=1)
        long = moved(long, front(held))[:, : int(totals.max())]
        found = []
        for start in range(0, long.shape[1], size):
            segment = long[:, start : start + size]
            end = start + segment.shape[1]
            # Nothing need be sorted or chosen by row where all tokens are real, as in training they mostly are.
            real = bool((totals >= end).all())
            mask = None if real else torch.arange(start, end, device=x.device) < totals[:, None]
            said = self.segment(segment, self.memory.read(segment, memory))
            gate, after = self.memory(said, memory, mask=mask)
            if real and end == start + size:
                memory = after
            else:
                complete = totals >= start + size
                memory = {
                    name: torch.where(
                        complete.reshape(-1, *(1,) * (one.dim() - 1)), after[name], one.to(after[name].dtype)
                    )
                    for name, one in memory.items()
                }
            found.append(self._gated(said, gate))
        fresh = (counts[:, None] + torch.arange(length, device=x.device)).clamp_max(long.shape[1] - 1)
        counts = totals % size
        slots = torch.arange(size - 1, device=x.device)
        last = ((totals - counts)[:, None] + slots).clamp_max(long.shape[1] - 1)
        tokens = moved(long, last) * (slots < counts[:, None])[..., None]
        return moved(torch.cat(found, dim=1), fresh), {**named("memory", memory), "tokens": tokens, "count": counts}


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

    def forward(self, x: Tensor, said: Tensor) -> Tensor:
        """The tokens and what memory says of them, shape (B, T, D) both."""
        length = x.shape[1]
        places = torch.arange(length, device=x.device)

        def split(one: Tensor) -> Tensor:
            return one.unflatten(-1, (self.heads, self.head_dim))

        plain = split(self.to_queries(x))
        keys, values = (split(one) for one in self.to_others(torch.cat([said, x], dim=1)).chunk(2, dim=-1))
        queries = rotated(plain, places[None]).transpose(1, 2)
        keys = rotated(keys, places.repeat(2)[None]).transpose(1, 2)
        later = (places > places[:, None]).repeat(1, 2)
        scores = (queries @ keys.mT).masked_fill(later, float("-inf"))
        always = plain.transpose(1, 2) @ self.persistent[0].mT
        weights = (exact(torch.cat([always, scores], dim=-1)) * self.head_dim**-0.5).softmax(dim=-1).to(x.dtype)
        first, rest = weights.split([always.shape[-1], 2 * length], dim=-1)
        found = first @ self.persistent[1] + rest @ values.transpose(1, 2)
        answer: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return answer


def named(name: str, state: State) -> State:
    """A part's state among the whole's."""
    return {f"{name}.{key}": tensor for key, tensor in state.items()}


def under(name: str, state: State) -> State:
    """The state of a part."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in state.items() if key.startswith(f"{name}.")}
