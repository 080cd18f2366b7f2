"""A bounded cache for models that draw an image scale by scale (HACK, arXiv 2504.09261, v2, sec. 3; its formulas are inferred).

All tokens of a scale are made at once and look at each other and at all that is kept of the scales before. After each scale the
cache lets go of what is too much: contextual heads keep a few entries, those that were looked at most, and at the last compression
merge the others into them; structural heads keep more: the first scales, the newest one, and of those between what was looked at.
What is looked at is told by a few queries of the scale, so that it costs less than attention. Heads of a type have one length, and
are attended to together, at that length.

Positions are in the model's input, not in its keys, so entries may go without any being moved. Where keys are rotated (Infinity)
nothing must be merged: ``merging=()``. Nothing follows the last scale, so it is never compressed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.latent.head_types import CONTEXTUAL, STRUCTURAL, HeadTypes
from holdfast.latent.heavy_hitters import ATTENTION, HeavyHitters
from holdfast.latent.merging import merged
from holdfast.latent.retention import LEAST, PINNED, Entries, Needs, Retention, RetentionPolicy, gathered, kept
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Modality, Retrieval, Subform, Subject
from holdfast.torched import Tensor, torch

PROFILE = MemoryProfile(
    Form.STATE,
    Subform.REUSED,
    (Function.WORK_SINGLE,),
    evolution=(Evolution.FORGET_BY_IMPORTANCE, Evolution.CONSOLIDATE_LOCAL),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.WORLD,),
    modality=(Modality.IMAGE,),
)

ALL = "all"
"""The one group of heads where no types are given."""

OBSERVED = 32

_NEWEST = 100.0
"""More than logarithms of attention lie apart, so that the newest scale comes before what is between; no more, for fp32's sake."""


@dataclass(frozen=True, slots=True)
class ScaleAware(Retention):
    """The rule of structural heads: the first scales are pinned, then comes the newest, then what was looked at most.

    Where the newest alone is too much, what was looked at most of it stays. Raises InputError.

    Fields
        scales: how many tokens each has. first: so many of the first are pinned.
    """

    scales: tuple[int, ...]
    first: int = 2

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) < 1 or not 0 <= self.first <= len(self.scales):
            raise InputError("each scale has a token or more, and no more than all of them are pinned")

    @property
    def needs(self) -> Needs:
        """What is read; ``ScaleCache`` notes it."""
        return Needs(reads=True)

    def score(self, layer: int, entries: Entries, seen: int) -> Tensor:
        """The logarithm of the attention so far, raised or pinned."""
        found = entries.notes[ATTENTION].clamp(min=LEAST).log()
        ends = [0, *accumulate(self.scales)]
        newest = ends[ends.index(seen) - 1]
        found = torch.where(entries.positions >= newest, found + _NEWEST, found)
        return found.masked_fill(entries.positions < ends[self.first], PINNED)


class ScaleCache:
    """What a next-scale model keeps of the scales it has drawn. Raises InputError.

    Args:
        scales: how many tokens each scale has, in order.
        types: of the model's heads; None: all are of one group, ``all``.
        budgets: entries that a head of each group keeps after a scale; a group that has none keeps everything.
        rules: what is worth keeping, by group; by default those above. They may go by ``heavy_hitters.ATTENTION``, and by nothing
            else that a policy could ask for.
        merging: the groups that merge at the last compression.
        observed: so many queries of each scale tell what is looked at.
        pairs: the rows are two halves, with and without a condition, and both rows of a pair keep the same.
        seed: which queries are asked.

    For each scale every layer calls ``append``, ``attend`` and ``compress`` once, in this order.
    """

    def __init__(
        self,
        scales: Sequence[int],
        types: HeadTypes | None = None,
        budgets: Mapping[str, int] | None = None,
        *,
        rules: Mapping[str, RetentionPolicy] | None = None,
        merging: Sequence[str] = (CONTEXTUAL,),
        observed: int = OBSERVED,
        pairs: bool = False,
        seed: int = 0,
    ) -> None:
        self.scales, self.types, self.budgets = tuple(scales), types, dict(budgets or {})
        usual: dict[str, RetentionPolicy] = {
            CONTEXTUAL: HeavyHitters(recent=0),
            STRUCTURAL: ScaleAware(self.scales, min(2, len(self.scales))),
        }
        self.rules = usual if rules is None else dict(rules)
        self.groups = (ALL,) if types is None else types.names
        if not set(self.budgets) <= set(self.groups) or min(self.budgets.values(), default=1) < 1:
            raise InputError(f"budgets are 1 or more, for {' or '.join(self.groups)} heads")
        if missing := set(self.budgets) - set(self.rules):
            raise InputError(f"there is no rule for {', '.join(sorted(missing))} heads")
        asked = [self.rules[name].needs for name in self.budgets]
        if any(needs.logits or needs.hidden or needs.queries for needs in asked):
            raise InputError("a rule of this cache may go by keys, places and attention alone")
        if observed < 1:
            raise InputError("one query or more tells what is looked at")
        self._merging, self._observed, self._pairs, self._seed = tuple(merging), observed, pairs, seed
        self._layers: dict[int, _Layer] = {}

    def append(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """A scale's keys and values, shape (B, H, T, D) each. Raises InputError where no scale of T tokens is due."""
        if self.types is not None and layer >= len(self.types.types):
            raise InputError(f"there are types for {len(self.types.types)} layers")
        found = self._layers.setdefault(layer, _Layer({name: self._heads(layer, name) for name in self.groups}))
        if found.step >= len(self.scales) or keys.shape[2] != self.scales[found.step]:
            raise InputError(
                f"the scales have {list(self.scales)} tokens, and {keys.shape[2]} come as number {found.step + 1}"
            )
        if self.types is not None and keys.shape[1] != len(self.types.types[layer]):
            raise InputError(
                f"layer {layer} has types for {len(self.types.types[layer])} heads, not for {keys.shape[1]}"
            )
        if self._pairs and keys.shape[0] % 2:
            raise InputError("rows that come in pairs are even in number")
        found.append(keys, values)

    def attend(self, layer: int, queries: Tensor, scaling: float | None = None) -> Tensor:
        """What the newest scale's queries read, shape (B, H, T, D): of each group of heads at its own length.

        ``scaling``: of what queries and keys have in common; by default 1/√D.
        """
        found, scale = self._layers[layer], queries.shape[-1] ** -0.5 if scaling is None else scaling
        out = torch.empty_like(queries)
        asked = self._asked(found.step, layer, queries.shape[2]).to(queries.device)
        for name, heads in found.heads.items():
            if not heads:
                continue
            some, held = _pick(queries, heads), found.groups[name]
            read = torch.nn.functional.scaled_dot_product_attention(some, held.keys, held.values, scale=scale)
            out[:, _slice(heads)] = read
            if name in self.budgets and self.rules[name].needs.reads and found.step < len(self.scales) - 1:
                shares = (some[:, :, asked] @ held.keys.transpose(-1, -2)).float() * scale
                held.notes[ATTENTION] += shares.softmax(dim=-1).sum(dim=2)
        return out

    def compress(self, layer: int) -> None:
        """The scale is over in this layer: let go of what is too much, but for the last scale's."""
        found = self._layers[layer]
        found.step += 1
        if found.step >= len(self.scales):
            return
        last = found.step == len(self.scales) - 1
        for name, budget in self.budgets.items():
            entries = found.groups.get(name)
            if entries is None or entries.keys.shape[2] <= budget:
                continue
            scored = entries if not self._pairs else _shared(entries)
            scores = self.rules[name].score(layer, scored, sum(self.scales[: found.step])).expand_as(entries.positions)
            places = kept(scores, budget)
            if self._pairs:
                places = places[: len(places) // 2].repeat(2, 1, 1)
            if last and name in self._merging:
                mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(2, places, True)
                entries.keys, entries.values = merged(entries, scores, mask)
            found.groups[name] = gathered(entries, places)

    def lengths(self, group: str) -> list[int]:
        """How many entries a head of a group holds, by layer; 0 where a layer has none. Raises InputError."""
        if group not in self.groups:
            raise InputError(f"heads are {' or '.join(self.groups)}, not {group}")
        return [
            self._layers[at].groups[group].keys.shape[2] if self._layers[at].heads[group] else 0
            for at in sorted(self._layers)
        ]

    def entries(self, layer: int, group: str) -> Entries:
        """What the heads of a group hold in a layer."""
        return self._layers[layer].groups[group]

    def nbytes(self) -> int:
        """Bytes of keys, values, positions and notes."""
        return sum(
            tensor.numel() * tensor.element_size()
            for layer in self._layers.values()
            for one in layer.groups.values()
            for tensor in (one.keys, one.values, one.positions, *one.notes.values())
        )

    def _heads(self, layer: int, name: str) -> list[int] | None:
        return None if self.types is None else self.types.heads(layer, name)

    def _asked(self, step: int, layer: int, size: int) -> Tensor:
        """The queries of a scale that are asked, in order, drawn evenly by lot."""
        if size <= self._observed:
            return torch.arange(size)
        drawn = torch.Generator().manual_seed((self._seed * 1_000_003 + step) * 1_009 + layer)
        return torch.randperm(size, generator=drawn)[: self._observed].sort().values


class _Layer:
    """One layer: its heads by group, and what each group holds."""

    def __init__(self, heads: Mapping[str, list[int] | None]) -> None:
        self._named = heads
        self.heads: dict[str, list[int]] = {}
        self.groups: dict[str, Entries] = {}
        self.step = self.seen = 0

    def append(self, keys: Tensor, values: Tensor) -> None:
        rows, many, new, _ = keys.shape
        if not self.heads:
            self.heads = {name: list(range(many)) if of is None else of for name, of in self._named.items()}
        for name, heads in self.heads.items():
            if not heads:
                continue
            places = torch.arange(self.seen, self.seen + new, device=keys.device).expand(rows, len(heads), -1)
            fresh = Entries(
                _pick(keys, heads),
                _pick(values, heads),
                places,
                {ATTENTION: torch.zeros(places.shape, device=keys.device)},
            )
            old = self.groups.get(name)
            if old is None:
                self.groups[name] = fresh
                continue
            self.groups[name] = Entries(
                torch.cat([old.keys, fresh.keys], dim=2),
                torch.cat([old.values, fresh.values], dim=2),
                torch.cat([old.positions, fresh.positions], dim=2),
                {note: torch.cat([old.notes[note], fresh.notes[note]], dim=2) for note in fresh.notes},
            )
        self.seen += new


def _slice(heads: list[int]) -> slice | list[int]:
    """Heads that stand side by side are taken without a copy."""
    return slice(heads[0], heads[-1] + 1) if heads == list(range(heads[0], heads[-1] + 1)) else heads


def _pick(states: Tensor, heads: list[int]) -> Tensor:
    return states[:, _slice(heads)]


def _shared(entries: Entries) -> Entries:
    """Rows of a pair with the mean of what both look at, and what they hold is in the same places."""
    notes = {name: note.unflatten(0, (2, -1)).mean(dim=0).repeat(2, 1, 1) for name, note in entries.notes.items()}
    return Entries(entries.keys, entries.values, entries.positions, notes)


def permute_heads(weight: Tensor, order: Sequence[int], dim: int = 0, parts: int = 1) -> Tensor:
    """A projection's weight or bias whose heads stand in another order, so that those of a type are side by side. Exact.

    Of W_q, W_k, W_v rows (``dim`` 0; ``parts`` 3 where one matrix holds all of them), of W_o columns (``dim`` 1).
    Raises InputError.
    """
    if sorted(order) != list(range(len(order))) or weight.shape[dim] % (parts * len(order)):
        raise InputError(
            f"an order names each head once, and {weight.shape[dim]} numbers are not of {len(order)} heads"
        )
    split = weight.unflatten(dim, (parts, len(order), -1))
    chosen = torch.tensor(list(order), device=weight.device)
    return split.index_select(dim + 1, chosen).flatten(dim, dim + 2)
