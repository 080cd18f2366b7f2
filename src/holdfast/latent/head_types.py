"""Heads have different jobs, told once from what they look at (HACK, arXiv 2504.09261, v2, sec. 3): types that a cache goes by.

In a next-scale model a *contextual* head looks at the same few keys whatever the query, vertical stripes in its map; a *structural*
one at the place that fits the query, diagonals. How much each column varies over queries tells them apart: v = Σ_k Var_q A[q, k].
In a text it does not: a head that looks at what is near makes a diagonal too, and needs a short cache, not a long one. There the
share of attention that goes to neither the first tokens nor the newest tells *retrieval* heads from *streaming* ones.

Types hang on the model alone, so they are measured once and kept as plain data, bound to the model's weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from holdfast.errors import InputError, StaleError
from holdfast.latent.identity import weights_digest
from holdfast.latent.retention import Entries, Needs, Retention, attention
from holdfast.latent.streaming import StreamingCache
from holdfast.torched import Tensor, torch

PROFILE = ()  # it measures heads and keeps nothing of what they read

CONTEXTUAL, STRUCTURAL = "contextual", "structural"
STREAMING, RETRIEVAL = "streaming", "retrieval"

Measure = Callable[[Tensor], Tensor]
"""Of what queries look at, shape (..., T, S), one number: shape (...)."""


def column_variance(weights: Tensor) -> Tensor:
    """Σ_k Var_q of each map, shape (...), of maps of shape (..., T, S). Over queries: over keys the order is the opposite."""
    return weights.float().var(dim=-2, correction=0).sum(dim=-1)


def far_attention(sinks: int, recent: int) -> Measure:
    """What of a whole text's causal maps, shape (..., T, T), goes to neither the first ``sinks`` nor the ``recent`` newest tokens.

    Of the queries that have anything else to look at; raises InputError where none has.
    """

    def measure(weights: Tensor) -> Tensor:
        places = torch.arange(weights.shape[-1], device=weights.device)
        age = places[-weights.shape[-2] :, None] - places
        far = (age >= recent) & (places >= sinks)
        asked = far.any(dim=-1)
        if not asked.any():
            raise InputError(f"nothing is far in {weights.shape[-1]} tokens: give longer texts, or a smaller window")
        return (weights.float() * far).sum(dim=-1)[..., asked].mean(dim=-1)

    return measure


@dataclass(frozen=True, slots=True)
class HeadTypes:
    """The types of a model's heads of keys, by layer and head. Raises InputError.

    Fields
        model: what tells the model's weights from any others (``identity.weights_digest``).
        by: the name of what was measured. values: what it was.
        types: the type of each. names: both types, first that of the low values.
    """

    model: str
    by: str
    values: tuple[tuple[float, ...], ...]
    types: tuple[tuple[str, ...], ...]
    names: tuple[str, str] = (CONTEXTUAL, STRUCTURAL)

    def __post_init__(self) -> None:
        if not self.values or {len(of) for of in (*self.values, *self.types)} != {len(self.values[0])}:
            raise InputError("all layers have the same number of heads, each with a value and a type")
        if len(self.values) != len(self.types) or len(set(self.names)) != 2:
            raise InputError("there are two types, and as many layers of types as of values")
        if wrong := {one for of in self.types for one in of} - set(self.names):
            raise InputError(f"heads are {' or '.join(self.names)}, not {', '.join(sorted(wrong))}")

    @classmethod
    def of(
        cls,
        model: str,
        values: Tensor,
        share: float = 0.5,
        *,
        by: str = "variance",
        names: tuple[str, str] = (CONTEXTUAL, STRUCTURAL),
    ) -> HeadTypes:
        """Types of heads by what was measured, shape (L, H): the ``share`` of all heads that has the lowest values is of the first.

        The share is the model's, not the layer's, so that layers come to have different totals. Raises InputError.
        """
        if values.dim() != 2 or not torch.isfinite(values).all() or not 0.0 <= share <= 1.0:
            raise InputError("a share is from 0 to 1, and each head of each layer has one number")
        low = torch.zeros(values.numel(), dtype=torch.bool)
        low[values.flatten().cpu().sort(stable=True).indices[: round(share * values.numel())]] = True
        types = [[names[0] if one else names[1] for one in of] for of in low.view(values.shape).tolist()]
        return cls(model, by, tuple(map(tuple, values.tolist())), tuple(map(tuple, types)), names)

    @property
    def share(self) -> float:
        """Of all heads, those of the first type: α."""
        every = [one for of in self.types for one in of]
        return every.count(self.names[0]) / len(every)

    def heads(self, layer: int, name: str) -> list[int]:
        """Which heads of a layer are of a type, in order."""
        return [at for at, one in enumerate(self.types[layer]) if one == name]

    def order(self, layer: int) -> list[int]:
        """All heads of a layer, those of the first type first: the order in which each type is contiguous."""
        return [at for name in self.names for at in self.heads(layer, name)]

    def permuted(self) -> HeadTypes:
        """The types of the model whose heads were brought into that order (``scales.permute_heads``): bound to no model yet."""
        orders = [self.order(layer) for layer in range(len(self.types))]
        values = tuple(tuple(of[at] for at in order) for of, order in zip(self.values, orders, strict=True))
        types = tuple(tuple(of[at] for at in order) for of, order in zip(self.types, orders, strict=True))
        return replace(self, model="", values=values, types=types)

    def swapped(self) -> HeadTypes:
        """Each head is of the other type: a control."""
        other = dict(zip(self.names, reversed(self.names), strict=True))
        return replace(self, types=tuple(tuple(other[one] for one in of) for of in self.types))

    def shuffled(self, seed: int) -> HeadTypes:
        """The same number of each type, dealt by lot over all heads: a control."""
        every = [one for of in self.types for one in of]
        lots = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed)).tolist()
        wide = len(self.types[0])
        dealt = [every[at] for at in lots]
        return replace(self, types=tuple(tuple(dealt[at : at + wide]) for at in range(0, len(dealt), wide)))

    def agreement(self, other: HeadTypes) -> float:
        """The share of heads that both say the same of. Raises InputError where they are not of the same heads."""
        if (self.names, len(self.types), len(self.types[0])) != (other.names, len(other.types), len(other.types[0])):
            raise InputError("these are types of other heads")
        pairs = [
            pair for ours, its in zip(self.types, other.types, strict=True) for pair in zip(ours, its, strict=True)
        ]
        return sum(one == another for one, another in pairs) / len(pairs)

    def budgets(self, mean: float, low: int) -> dict[str, int]:
        """Budgets of both types, ``low`` of the first, that come to ``mean`` a head over all heads, or to less than one below.

        Raises InputError where nothing would be left for the second.
        """
        share = self.share
        high = int((mean - share * low) / (1 - share) + 1e-9) if share < 1 else low
        if low < 1 or high < 1:
            raise InputError(f"with {low} for {self.names[0]} heads nothing is left for the others of {mean} a head")
        return {self.names[0]: low, self.names[1]: high}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        heads = [
            {"layer": layer, "head": head, self.by: value, "type": self.types[layer][head]}
            for layer, of in enumerate(self.values)
            for head, value in enumerate(of)
        ]
        return {"model": self.model, "by": self.by, "names": list(self.names), "heads": heads}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], model: str | None = None) -> HeadTypes:
        """What ``to_dict`` gave. Raises InputError for anything else, StaleError for types of a model other than ``model``."""
        try:
            by, first, second = str(data["by"]), *map(str, data["names"])
            rows = sorted(data["heads"], key=lambda row: (int(row["layer"]), int(row["head"])))
            layers = 1 + max(int(row["layer"]) for row in rows)
            wide = len(rows) // layers
            placed = [(int(row["layer"]), int(row["head"])) for row in rows]
            if placed != [(layer, head) for layer in range(layers) for head in range(wide)]:
                raise InputError("these are no types of heads: each head of each layer has one row")
            values, types = [float(row[by]) for row in rows], [str(row["type"]) for row in rows]
            found = cls(
                str(data["model"]),
                by,
                tuple(tuple(values[at : at + wide]) for at in range(0, len(rows), wide)),
                tuple(tuple(types[at : at + wide]) for at in range(0, len(rows), wide)),
                (first, second),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"these are no types of heads: {error}") from error
        if model is not None and found.model != model:
            raise StaleError("these types are of a model with other weights: measure its heads anew")
        return found


def measured(model: Any, batches: Iterable[Tensor], measure: Measure) -> Tensor:
    """A measure of each head of keys of a causal model, shape (L, H): the mean over texts and over the heads that share it.

    ``batches``: token ids, shape (B, T) each, texts of one length; each is read at once, which needs memory of T² for every head of
    a layer. Raises InputError where there are none.
    """
    total, many = torch.zeros(0), 0
    for ids in batches:
        probe = _Probe(measure)
        cache = StreamingCache(model, probe, ids.shape[1])
        with torch.no_grad(), cache.attached(model):
            model(ids, cache=cache)
            for layer in range(len(cache.layers)):
                cache.entries(layer)  # by now the probe has read all queries
        found = torch.stack([probe.found[layer] for layer in range(len(cache.layers))]).double() * ids.shape[0]
        total, many = total + found if many else found, many + ids.shape[0]
    if not many:
        raise InputError("there are no texts to measure heads with")
    return total / many


def profile(
    model: Any,
    batches: Iterable[Tensor],
    share: float = 0.5,
    *,
    sinks: int = 4,
    recent: int = 64,
) -> HeadTypes:
    """The types of a text model's heads: the ``share`` that looks least at what is far are streaming heads, the others retrieve.

    Raises InputError where texts are too short to hold anything that is far.
    """
    values = measured(model, batches, far_attention(sinks, recent))
    return HeadTypes.of(weights_digest(model), values, share, by="far", names=(STREAMING, RETRIEVAL))


class _Probe(Retention):
    """Sees what is read, through the seam that policies have, and keeps a number of each head."""

    needs = Needs(reads=True)

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self.found: dict[int, Tensor] = {}

    def read(self, layer: int, entries: Entries, queries: Tensor) -> Mapping[str, Tensor]:
        asked = entries.positions[0, 0, -queries.shape[2] :]
        self.found[layer] = self._measure(attention(entries, queries, asked)).mean(dim=(0, 2)).cpu()
        return {}

    def score(self, layer: int, entries: Entries, seen: int) -> Tensor:
        return entries.positions.float()
