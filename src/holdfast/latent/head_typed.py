"""Heads of each type have a budget and a rule of their own (HACK, arXiv 2504.09261, v2, sec. 3.3, for models of text too).

One policy for all heads is wrong where heads have different jobs: one that looks at the first tokens and the newest alone needs no
more than these, and what it lets go of is free for heads that look back. Types come from ``head_types``; every head of keys has the
budget of its type, and what heads hold lies flat (``latent.ragged``), so that the bytes are free in fact::

    types = profile(model, texts, share=0.5)
    policy = HeadTyped(types, {STREAMING: Window(4), RETRIEVAL: HeavyHitters(recent=64)})
    cache = StreamingCache(model, policy, policy.shares({STREAMING: 68, RETRIEVAL: 512}))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.latent.head_types import HeadTypes
from holdfast.latent.merging import merged
from holdfast.latent.retention import Entries, Needs, Retention, RetentionPolicy, Sum
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Retrieval, Subform, Subject
from holdfast.torched import Tensor, torch

PROFILE = MemoryProfile(
    Form.STATE,
    Subform.REUSED,
    (Function.WORK_MULTI,),
    evolution=(Evolution.FORGET_BY_IMPORTANCE, Evolution.CONSOLIDATE_LOCAL),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.USER, Subject.WORLD, Subject.AGENT),
)


@dataclass(frozen=True, slots=True)
class HeadTyped(Retention):
    """A policy for each head of its own. Raises InputError.

    Fields
        types: of this model's heads of keys. What different rules say cannot be compared: let entries compete within heads.
        rules: what is worth keeping, by type. Every rule is told of all heads.
        merging: the types in whose heads the values of what leaves are merged into what stays (``merging``).
    """

    types: HeadTypes
    rules: Mapping[str, RetentionPolicy]
    merging: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if set(self.rules) != set(self.types.names) or not set(self.merging) <= set(self.rules):
            raise InputError(f"there is a rule for {' and for '.join(self.types.names)} heads, and for no others")

    def shares(self, budgets: Mapping[str, int]) -> list[list[int]]:
        """The budget of each head of each layer, as ``StreamingCache`` takes them, of those of each type."""
        if set(budgets) != set(self.types.names):
            raise InputError(f"there is a budget for {' and for '.join(self.types.names)} heads, and for no others")
        return [[budgets[name] for name in of] for of in self.types.types]

    @property
    def needs(self) -> Needs:
        """Whatever one of the rules needs."""
        return self._every.needs

    def observe(self, tokens: Tensor, logits: Tensor, before: Tensor | None) -> Mapping[str, Tensor]:
        """The notes of each rule."""
        return self._every.observe(tokens, logits, before)

    def write(self, layer: int, hidden: Tensor | None, keys: Tensor, values: Tensor) -> Mapping[str, Tensor]:
        """The notes of each rule."""
        return self._every.write(layer, hidden, keys, values)

    def read(self, layer: int, entries: Entries, queries: Tensor) -> Mapping[str, Tensor]:
        """The notes of each rule."""
        return self._every.read(layer, entries, queries)

    def score(self, layer: int, entries: Entries, seen: int) -> Tensor:
        """Of each head what the rule of its type says."""
        found = torch.zeros(entries.positions.shape, dtype=torch.float32, device=entries.positions.device)
        for at, name in enumerate(self.types.names):
            if heads := self.types.heads(layer, name):
                told = self.rules[name].score(layer, self._every.part(entries, at), seen).expand_as(found)
                found[:, heads] = told[:, heads].float()
        return found

    def turn(self, notes: dict[str, Tensor]) -> None:
        """Each rule changes its own."""
        self._every.turn(notes)

    def merge(self, layer: int, entries: Entries, scores: Tensor, kept: Tensor) -> Tensor:
        """The values, those that are kept holding what leaves of them, in heads of the types that merge."""
        heads = [at for name in self.merging for at in self.types.heads(layer, name)]
        if not heads:
            return entries.values
        some = Entries(
            entries.keys[:, heads],
            entries.values[:, heads],
            entries.positions[:, heads],
            held=None if entries.held is None else entries.held[:, heads],
        )
        _, values = merged(some, scores[:, heads], kept[:, heads])
        found = entries.values.clone()
        found[:, heads] = values
        return found

    @property
    def _every(self) -> Sum:
        """All rules, each with notes of its own."""
        return Sum([(1.0, self.rules[name]) for name in self.types.names])
