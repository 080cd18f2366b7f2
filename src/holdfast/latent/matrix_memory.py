"""A layer whose memory is one matrix a head: Gated DeltaNet (arXiv 2412.06464) and its kin, by the rules of ``delta``."""

from __future__ import annotations

import math

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.latent.delta import RULES, Rule, Writes, run
from holdfast.latent.layers import Layer, Path, RMSNorm, ShortConvolution, State, exact, real, unit
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


class MatrixMemory(Layer):
    """One matrix a head, read and written at every token. Raises InputError.

    Args:
        d_model: width of what it reads and says.
        heads, key_dim, value_dim: matrices, and their two sides.
        rule: a name of ``delta.RULES``; "linear" is read as a mean (arXiv 2006.16236), the others are not.
        conv: width of a causal convolution of queries, keys and values: neighbours are seen together.
        path, size: how it is computed, see ``delta.run``.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        *,
        key_dim: int,
        value_dim: int | None = None,
        rule: str = "gated_delta",
        conv: int = 4,
        path: Path = "chunked",
        size: int | None = None,
    ) -> None:
        super().__init__(d_model)
        self.heads, self.key_dim, self.value_dim = heads, key_dim, value_dim or key_dim
        self.rule, self.path, self.size = rule_named(rule), path, size
        self.mean = rule == "linear"
        sides = [heads * key_dim, heads * key_dim, heads * self.value_dim]
        self._sides = sides
        self.to_all = nn.Linear(d_model, sum(sides), bias=False)
        self.conv = ShortConvolution(sum(sides), conv)
        self.to_strength = nn.Linear(d_model, heads, bias=False) if self.rule.corrects else None
        self.fading = Fading(d_model, heads, key_dim, self.rule)
        self.out = GatedOutput(d_model, heads, self.value_dim)

    def take(self, x: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        """See ``Layer``."""
        mixed, conv = self.conv(self.to_all(x), None if state is None else state["conv"], lengths)
        queries, keys, values = (by_head(one, self.heads) for one in mixed.split(self._sides, dim=-1))
        if self.mean:
            # A column of ones sums up the keys: what is read of it is what the rest must be divided by.
            queries, keys = (nn.functional.elu(one) + 1 for one in (queries, keys))
            values = torch.cat([values, torch.ones_like(values[..., :1])], dim=-1)
        else:
            queries, keys = unit(queries) * self.key_dim**-0.5, unit(keys)
        strength = None if self.to_strength is None else self.to_strength(x).sigmoid().mT
        writes = Writes(queries, keys, values, self.fading(x), strength)
        places = real(lengths, x)
        if places is not None:
            writes = writes.only(places[:, None])
        before = None if state is None else state["matrix"]
        found, matrix = run(writes, before, rule=self.rule, path=self.path, size=self.size)
        if self.mean:
            found = found[..., :-1] / (found[..., -1:] + 1e-6)
        return self.out(found, x), {"matrix": matrix, "conv": conv}


class Fading(nn.Module):  # type: ignore[misc]
    """How fast memory fades at a token, in logarithms, shape (B, H, T, 1 or K); None for a rule without decay.

    A number a head is -exp(A) softplus(Wx + b), as in Mamba-2 and Gated DeltaNet; one a channel is log sigmoid(Wx) / 16, as in GLA.
    """

    def __init__(self, d_model: int, heads: int, key_dim: int, rule: Rule) -> None:
        super().__init__()
        self._decay, self._heads = rule.decay, heads
        if rule.decay == "head":
            self.to_fading = nn.Linear(d_model, heads, bias=False)
            self.rate, self.bias = fading_parameters(heads)
        elif rule.decay == "channel":
            self.to_fading = nn.Linear(d_model, heads * key_dim)

    def forward(self, x: Tensor) -> Tensor | None:
        """See the class; ``x``: shape (B, T, D)."""
        if self._decay == "head":
            return faded(self.to_fading(x), self.rate, self.bias).mT[..., None]
        if self._decay == "channel":
            return by_head(nn.functional.logsigmoid(exact(self.to_fading(x))) / 16, self._heads)
        return None


class GatedOutput(nn.Module):  # type: ignore[misc]
    """What the heads have read, of shape (B, H, T, V), as one output of shape (B, T, D): W [norm(o) silu(W' x)]."""

    def __init__(self, d_model: int, heads: int, value_dim: int) -> None:
        super().__init__()
        self.norm = RMSNorm(value_dim, eps=1e-5)
        self.gate = nn.Linear(d_model, heads * value_dim, bias=False)
        self.out = nn.Linear(heads * value_dim, d_model, bias=False)

    def forward(self, found: Tensor, x: Tensor) -> Tensor:
        """See the class."""
        return self.through(found, self.opened(x))

    def opened(self, x: Tensor) -> Tensor:
        """silu(W' x), shape (B, T, H V): how far what is read at x is let through."""
        return nn.functional.silu(self.gate(x))

    def through(self, found: Tensor, opened: Tensor) -> Tensor:
        """What is let through of what was read."""
        # In what the model is kept in: autocast has let ``opened`` come in less.
        found = self.norm(found.to(self.norm.weight.dtype))
        said: Tensor = self.out(found.transpose(1, 2).flatten(2) * opened)
        return said


def rule_named(name: str) -> Rule:
    """Raises InputError for a rule that is not there."""
    if name not in RULES:
        raise InputError(f"there is no rule {name!r}: choose one of {', '.join(RULES)}")
    return RULES[name]


def by_head(x: Tensor, heads: int) -> Tensor:
    """Shape (B, T, H N) as (B, H, T, N)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def faded(logits: Tensor, rate: Tensor, bias: Tensor) -> Tensor:
    """-exp(A) softplus(logits + b), in fp32: what is near 1 after a thousand steps must not be rounded to 1."""
    return -exact(rate).exp() * nn.functional.softplus(exact(logits) + exact(bias))


def fading_parameters(heads: int) -> tuple[nn.Parameter, nn.Parameter]:
    """A = 1, and b such that the heads begin by losing from 0.001 to 0.1 of their memory at a token, evenly in logarithms.

    Mamba-2 has A in (1, 16) too: a head that forgets within a few tokens before it has learnt anything seldom learns to keep.
    """
    at = (torch.arange(heads) + 0.5) / heads
    steps = torch.exp(math.log(0.001) + at * (math.log(0.1) - math.log(0.001)))
    return nn.Parameter(torch.zeros(heads)), nn.Parameter(steps + torch.log(-torch.expm1(-steps)))
