"""What will last is kept (TRIM-KV, arXiv 2512.03324, v2, Eq. 3): a gate tells when a token is written how fast its worth decays.

Of each layer one small network reads the hidden state that goes into attention and gives log β for every head of keys; after an
age of a tokens the worth of an entry is β^a. To learn it the model is frozen: attention is softened by the same decay, with
(t - i) log β_i added to the logits; what the softened model tells is drawn towards what the whole one tells and towards the next
token; and a hinge holds the soft size Σ_i β_i^(t-i) of every head under the budget. Afterwards attention is the model's own, and
log β ranks what a cache holds (``GatedRetention``).

The published eager code multiplies the logits by β^a instead; then what has decayed keeps the weight exp(0). ``multiply`` is that
variant, for comparison. Log β and ages stay in fp32: with a bias of 18, 1 - β is less than half precision can tell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from holdfast.cube import Form
from holdfast.errors import InputError, MissingExtraError
from holdfast.latent.retention import Entries, Needs, Retention, pinned
from holdfast.latent.streaming import attending, attentions
from holdfast.latent.tensors import key_of, pack, unpack
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Retrieval, Subform, Subject, Trainable
from holdfast.torched import Tensor, nn, torch

try:
    from transformers import AttentionInterface
    from transformers.activations import ACT2FN
except ImportError as error:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[torch]'") from error

PROFILE = MemoryProfile(
    Form.STATE,
    Subform.REUSED,
    (Function.WORK_MULTI,),
    evolution=(Evolution.FORGET_BY_IMPORTANCE, Evolution.FORGET_BY_TIME),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.USER, Subject.WORLD, Subject.AGENT),
    trainable=Trainable.ASSISTED,
)

LOG_BETA = "log_beta"
GATED = "holdfast_gated"
"""The name of the softened attention."""

_BLOCK = 256
_KIND = "retention gates"


class RetentionGate(nn.Module):  # type: ignore[misc]
    """The gate of one layer: log β of each head of keys, from hidden states.

    Args:
        hidden: numbers in a hidden state.
        heads: of keys.
        width: of the gate's inner layer.
        bias: log β begins near log sigmoid(bias), so that at first nothing decays.
        activation: of the inner layer, by its name in ``transformers``: the model's own.
        seed: of the first weights.
    """

    def __init__(
        self, hidden: int, heads: int, width: int = 512, bias: float = 18.0, activation: str = "silu", seed: int = 0
    ) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(hidden, width), nn.Linear(width, heads, bias=False)
        self.bias = nn.Parameter(torch.full((heads,), float(bias)))
        self.activation = ACT2FN[activation]
        drawn = torch.Generator().manual_seed(seed)
        for layer in (self.inner, self.outer):
            nn.init.normal_(layer.weight, 0.0, 0.02, generator=drawn)
        nn.init.zeros_(self.inner.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Log β, shape (B, H, T), fp32, of hidden states of shape (B, T, C)."""
        found = self.outer(self.activation(self.inner(hidden.float()))) + self.bias
        return nn.functional.logsigmoid(found).transpose(1, 2)


class RetentionGates(nn.ModuleList):  # type: ignore[misc]
    """The gates of all layers of a model, in fp32 on its device."""

    @classmethod
    def of(cls, model: Any, width: int = 512, bias: float = 18.0, seed: int = 0) -> RetentionGates:
        """Gates that know nothing yet. Raises InputError for a model whose layers have no ``self_attn``."""
        config = model.config.get_text_config(decoder=True)
        if len(attentions(model)) != config.num_hidden_layers:
            raise InputError("gates read what goes into attention, and the model has no layers named self_attn")
        act = getattr(config, "hidden_act", "silu")
        made = [
            RetentionGate(config.hidden_size, config.num_key_value_heads, width, bias, act, seed + at)
            for at in range(config.num_hidden_layers)
        ]
        gates: RetentionGates = cls(made).to(model.device)
        return gates

    def pack(self, model: Any, budget: int) -> bytes:
        """A file of the gates alone, bound to the model, and saying for what budget they were trained."""
        width = self[0].inner.out_features
        return pack(self.state_dict(), {"kind": _KIND, "model": fingerprint(model), "width": width, "budget": budget})

    @classmethod
    def unpack(cls, data: bytes, model: Any) -> RetentionGates:
        """The gates of such a file. Raises InputError for what is none, StaleError for those of another model."""
        key = key_of(data)
        if key.get("kind") != _KIND:
            raise InputError("these tensors are no retention gates")
        tensors = unpack(data, {**key, "model": fingerprint(model)})
        gates = cls.of(model, int(key["width"]))
        gates.load_state_dict(tensors)
        gates.eval().requires_grad_(False)
        return gates


@dataclass(frozen=True, slots=True, eq=False)
class GatedRetention(Retention):
    """A policy for each head of its own. Raises InputError.

    Fields
        gates: trained for this model, and for about the budget of the cache.
        sinks: so many of the first entries are pinned, as what must never be forgotten should be (a system's prompt).
        recent: so many of the newest are.
    """

    gates: RetentionGates
    sinks: int = 0
    recent: int = 0

    def __post_init__(self) -> None:
        if self.sinks < 0 or self.recent < 0:
            raise InputError("sinks and recent are 0 or more")

    @property
    def needs(self) -> Needs:
        """Hidden states."""
        return Needs(hidden=True)

    def write(self, layer: int, hidden: Tensor | None, keys: Tensor, values: Tensor) -> Mapping[str, Tensor]:
        """Log β."""
        assert hidden is not None
        with torch.no_grad():
            return {LOG_BETA: self.gates[layer](hidden)}

    def score(self, layer: int, entries: Entries, seen: int) -> Tensor:
        """Log β^age as the next query will find it: the newest has the age 1 (2 in the published code)."""
        ages = (seen - entries.positions).float()
        return pinned(entries.notes[LOG_BETA] * ages, entries, seen, self.sinks, self.recent)


def expected_lifetime(log_beta: Tensor) -> Tensor:
    """Tokens until the worth of an entry has sunk to 1/e: what a tier may go by, known as soon as the entry is written."""
    return -1.0 / log_beta


def soft_sizes(log_beta: Tensor, block: int = _BLOCK) -> Tensor:
    """How many entries each head holds at every place, softly: Σ_{i≤t} β_i^(t-i), shape (B, H, T), of log β of that shape.

    A block of places at a time, so that memory grows with the length and not with its square, backwards too.
    """
    length = log_beta.shape[-1]
    parts = []
    for start in range(0, length, block):
        end = min(start + block, length)
        some = (log_beta[..., :end], start)
        if log_beta.requires_grad and torch.is_grad_enabled():
            parts.append(torch.utils.checkpoint.checkpoint(_soft_block, *some, use_reentrant=False))
        else:
            parts.append(_soft_block(*some))
    return torch.cat(parts, dim=-1)


def _soft_block(log_beta: Tensor, start: int) -> Tensor:
    ages = _ages(torch.arange(start, log_beta.shape[-1], device=log_beta.device), log_beta.shape[-1])
    return (log_beta[..., None, :] * ages.clamp(min=0)).exp().masked_fill(ages < 0, 0.0).sum(dim=-1)


def _ages(asked: Tensor, length: int) -> Tensor:
    """How old each of so many entries is for those that stand at some places, shape (T, S): below 0 where it comes later."""
    return (asked[:, None] - torch.arange(length, device=asked.device)).float()


@dataclass(frozen=True, slots=True)
class Rows:
    """Texts to train with, one a row, padded at the end.

    Fields
        tokens: shape (B, T), int64.
        mask: False where there is padding, shape (B, T); None: nowhere.
        weights: how much it matters to tell each token, shape (B, T); None: all the same.
    """

    tokens: Tensor
    mask: Tensor | None = None
    weights: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Losses:
    """Of one step: ``kl`` to the whole model and ``told`` (the next token) in nats, ``over`` by which heads are too large, and
    ``size``, the mean soft size of a head at the end of a text."""

    kl: float
    told: float
    over: float
    size: float


def train_retention_gates(
    model: Any,
    batches: Iterable[Rows],
    budget: int,
    *,
    width: int = 512,
    bias: float = 18.0,
    rate: float = 2e-4,
    weight_decay: float = 0.01,
    kl: float = 1.0,
    told: float = 1.0,
    capacity: float = 1.0,
    multiply: bool = False,
    seed: int = 0,
    progress: Callable[[int, Losses], None] | None = None,
) -> RetentionGates:
    """Gates of a frozen model that learn to do with ``budget`` entries a head, one step a batch. Raises InputError.

    The loss is ``kl`` KL(whole ‖ gated) + ``told`` CE of the next token + ``capacity`` (1/T) Σ_t max(0, s_t - budget) / t, its mean
    over layers and heads; the defaults are the published ones. One text a row: packed texts would have to decay at their seams.
    Training needs memory of the length squared for each head of a layer. ``progress`` is told of every step.
    """
    if budget < 1:
        raise InputError("one entry or more is kept")
    gates = RetentionGates.of(model, width, bias, seed)
    optimiser = torch.optim.AdamW(gates.parameters(), lr=rate, weight_decay=weight_decay)
    asked_of = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    training = model.training
    model.eval().requires_grad_(False)
    try:
        for step, rows in enumerate(batches):
            with torch.no_grad():
                whole = torch.log_softmax(model(rows.tokens, use_cache=False).logits[:, :-1].float(), dim=-1)
            with gated(model, gates, multiply=multiply) as seen:
                logits = model(rows.tokens, use_cache=False).logits[:, :-1].float()
            ours = torch.log_softmax(logits, dim=-1)
            mask = torch.ones_like(rows.tokens, dtype=torch.bool) if rows.mask is None else rows.mask
            weights = mask[:, 1:].float() if rows.weights is None else rows.weights[:, 1:].float() * mask[:, 1:]
            weights = weights / weights.sum()
            apart = ((whole.exp() * (whole - ours)).sum(dim=-1) * weights).sum()
            missed = -(ours.gather(-1, rows.tokens[:, 1:, None])[..., 0] * weights).sum()
            sizes = torch.stack([soft_sizes(log_beta) for log_beta in seen])  # (L, B, H, T)
            so_far = torch.arange(1, sizes.shape[-1] + 1, device=sizes.device)
            there = mask[:, None].expand(sizes.shape[1:])
            over = ((sizes - budget).clamp(min=0) / so_far)[:, there].mean()
            loss = kl * apart + told * missed + capacity * over
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(gates.parameters(), 1.0)
            optimiser.step()
            if progress is not None:
                ends = mask.sum(dim=1) - 1
                last = sizes[:, torch.arange(len(ends)), :, ends]
                progress(step, Losses(*(float(one.detach()) for one in (apart, missed, over, last.mean()))))
    finally:
        model.train(training)
        for parameter, needed in asked_of:
            parameter.requires_grad_(needed)
    gates.eval().requires_grad_(False)
    return gates


@dataclass(frozen=True, slots=True)
class _Gating:
    seen: list[Tensor]  # log β of each layer, as the layers run
    multiply: bool


_GATING: ContextVar[_Gating | None] = ContextVar("_GATING", default=None)


@contextmanager
def gated(model: Any, gates: RetentionGates, *, multiply: bool = False) -> Iterator[list[Tensor]]:
    """Within the block attention is softened by the gates, without a cache; gives log β of every layer once the model has run."""
    state = _Gating([], multiply)

    def hook_of(gate: RetentionGate) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
            state.seen.append(gate(args[0] if args else given["hidden_states"]))

        return hook

    handles = [
        attention.register_forward_pre_hook(hook_of(gate), with_kwargs=True)
        for attention, gate in zip(attentions(model), gates, strict=True)
    ]
    token = _GATING.set(state)
    try:
        with attending(model, GATED):
            yield state.seen
    finally:
        _GATING.reset(token)
        for handle in handles:
            handle.remove()


def _attend(
    _module: nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask: Tensor | None, **given: Any
) -> tuple[Tensor, None]:
    """Attention of whole texts whose weights decay with age: softmax over i ≤ t of q_t·k_i + (t - i) log β_i."""
    state = _GATING.get()
    if state is None or query.shape[2] != key.shape[2]:
        raise InputError("softened attention is of whole texts, without a cache, within gated()")
    scaling = given.get("scaling") or query.shape[-1] ** -0.5
    ages = _ages(torch.arange(query.shape[2], device=query.device), key.shape[2])
    decay = state.seen[-1][:, :, None, None, :] * ages.clamp(min=0)  # (B, H, 1, T, S)
    grouped = query.unflatten(1, (key.shape[1], -1))
    logits = (grouped @ key[:, :, None].transpose(-1, -2)).float() * scaling
    logits = logits * decay.exp() if state.multiply else logits + decay
    weights = logits.masked_fill(ages < 0, float("-inf")).softmax(dim=-1).to(value.dtype)
    return (weights @ value[:, :, None]).flatten(1, 2).transpose(1, 2).contiguous(), None


AttentionInterface.register(GATED, _attend)


def fingerprint(model: Any) -> str:
    """What tells a model's weights from any others: SHA-256 of their names, kinds, shapes and bytes."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().to("cpu").contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
