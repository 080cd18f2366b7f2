"""What a bounded KV cache keeps: the seam of retention policies.

A policy scores the entries of a layer's cache: additive log-scores in fp32, the larger the more worth keeping, +inf for what is
pinned, so that the scores of several policies can be added up (``Sum``). Which entries are kept follows from the scores alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from holdfast.errors import InputError
from holdfast.torched import Tensor, torch

PINNED = float("inf")

LEAST = 1e-30
"""Shares below this are scored as this: a score is a logarithm, and a log of nothing could not be told from what is not there."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a policy must be told. Whatever costs something is done only where it is asked for.

    Fields
        logits: ``observe`` is called, with predictions of every token and not of the last alone.
        hidden: ``write`` is given the hidden states that keys and values were made of.
        reads: ``read`` is given every query.
        queries: so many of the newest queries are there when ``score`` is called (``Entries.queries``).
    """

    logits: bool = False
    hidden: bool = False
    reads: bool = False
    queries: int = 0

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            self.logits or other.logits,
            self.hidden or other.hidden,
            self.reads or other.reads,
            max(self.queries, other.queries),
        )


@dataclass
class Entries:
    """What a layer's cache holds: B rows, H heads of keys and values, S entries of D numbers.

    Fields
        keys, values: shape (B, H, S, D); keys as attention sees them (rotated).
        positions: where each stood in what was read, shape (B, H, S), int64, rising along S.
        notes: what a policy has noted of each, fp32, shape (B, H, S) by name.
        held: where heads hold unequal numbers, which places hold an entry, shape (B, H, S); None where all do. The others come
            first and mean nothing.
        queries: the newest queries, shape (B, Hq, W, D), where the policy needs some; ``asked``: where they stood, shape (W,).
        scaling: by which attention multiplies what queries and keys have in common.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    notes: dict[str, Tensor] = field(default_factory=dict)
    held: Tensor | None = None
    queries: Tensor | None = None
    asked: Tensor | None = None
    scaling: float = 1.0


class RetentionPolicy(Protocol):
    """Says what is worth keeping. Whatever it remembers of an entry it keeps as a note, which goes where the entry goes.

    ``Retention`` does nothing but score: derive from it what need not do more.
    """

    @property
    def needs(self) -> Needs:
        """What it must be told."""
        ...

    def observe(self, tokens: Tensor, logits: Tensor, before: Tensor | None) -> Mapping[str, Tensor]:
        """Notes on tokens that were read, shape (B, T) each, for all layers and heads: {} where none are taken.

        ``tokens``: shape (B, T); ``logits``: the model's, shape (B, T, V); ``before``: those that the first of the tokens was to
        be told from, shape (B, V), None where nothing was read before. Called after a step, where ``needs.logits``.
        """
        ...

    def write(self, layer: int, hidden: Tensor | None, keys: Tensor, values: Tensor) -> Mapping[str, Tensor]:
        """Notes on entries that have come into a layer, shape (B, H, T) each: of those of several steps at once.

        ``hidden``: what went into the layer's attention, shape (B, T, C), where ``needs.hidden``; ``keys`` and ``values``: shape
        (B, H, T, D). Each entry is given once, before anything is scored.
        """
        ...

    def read(self, layer: int, entries: Entries, queries: Tensor) -> Mapping[str, Tensor]:
        """Notes on all entries, shape (B, H, S) each, now that some queries looked at them; called where ``needs.reads``.

        ``queries``: shape (B, Hq, T, D), those of the newest T entries, which are among ``entries``, each given once, before any of
        what they looked at leaves; notes that are not there yet are 0. ``attention`` says what they looked at.
        """
        ...

    def score(self, layer: int, entries: Entries, seen: int) -> Tensor:
        """Shape (B, H, S), fp32; ``seen`` tokens were read by now. Of places that hold nothing whatever, but no NaN."""
        ...

    def turn(self, notes: dict[str, Tensor]) -> None:
        """A turn of the talk has ended: notes may be changed in place."""
        ...


@runtime_checkable
class Merging(Protocol):
    """What a policy may do besides: let what stays hold something of what leaves."""

    def merge(self, layer: int, entries: Entries, scores: Tensor, kept: Tensor) -> Tensor:
        """The values, shape (B, H, S, D), with which those go on that are kept, a mask of shape (B, H, S) as their scores are."""
        ...


class Retention:
    """A policy that is told nothing and notes nothing: what is left to do is ``score``."""

    __slots__ = ()

    @property
    def needs(self) -> Needs:
        """Nothing."""
        return Needs()

    def observe(self, tokens: Tensor, logits: Tensor, before: Tensor | None) -> Mapping[str, Tensor]:
        """Nothing is noted."""
        return {}

    def write(self, layer: int, hidden: Tensor | None, keys: Tensor, values: Tensor) -> Mapping[str, Tensor]:
        """Nothing is noted."""
        return {}

    def read(self, layer: int, entries: Entries, queries: Tensor) -> Mapping[str, Tensor]:
        """Nothing is noted."""
        return {}

    def turn(self, notes: dict[str, Tensor]) -> None:
        """Nothing changes."""


@dataclass(frozen=True, slots=True)
class Sum(Retention):
    """Several policies in one: their scores by weight, added up. Raises InputError.

    Scores are logarithms, so that a sum of scores is a product of worths; a pin of any of them holds.
    """

    parts: Sequence[tuple[float, RetentionPolicy]]

    def __post_init__(self) -> None:
        if not self.parts or any(not 0.0 < weight < PINNED for weight, _ in self.parts):
            raise InputError("there is nothing to add up, or a weight is not above 0")
        if any(isinstance(part, Merging) for _, part in self.parts):
            raise InputError("a policy that may merge what leaves cannot be added up: add up its rules instead")

    @property
    def needs(self) -> Needs:
        """Whatever one of them needs."""
        found = Needs()
        for _, part in self.parts:
            found |= part.needs
        return found

    def observe(self, tokens: Tensor, logits: Tensor, before: Tensor | None) -> Mapping[str, Tensor]:
        """The notes of each, under its number."""
        return self._numbered(
            part.observe(tokens, logits, before) if part.needs.logits else {} for _, part in self.parts
        )

    def write(self, layer: int, hidden: Tensor | None, keys: Tensor, values: Tensor) -> Mapping[str, Tensor]:
        """The notes of each, under its number."""
        return self._numbered(part.write(layer, hidden, keys, values) for _, part in self.parts)

    def read(self, layer: int, entries: Entries, queries: Tensor) -> Mapping[str, Tensor]:
        """The notes of each, under its number."""
        return self._numbered(
            part.read(layer, self.part(entries, at), queries) if part.needs.reads else {}
            for at, (_, part) in enumerate(self.parts)
        )

    def score(self, layer: int, entries: Entries, seen: int) -> Tensor:
        """The sum."""
        found = torch.zeros(entries.positions.shape, dtype=torch.float32, device=entries.positions.device)
        for at, (weight, part) in enumerate(self.parts):
            found = found + weight * part.score(layer, self.part(entries, at), seen)
        return found

    def part(self, entries: Entries, at: int) -> Entries:
        """The entries as one of them sees them, by its number: with its own notes."""
        return replace(entries, notes=_of(entries.notes, at))

    def turn(self, notes: dict[str, Tensor]) -> None:
        """Each changes its own."""
        for at, (_, part) in enumerate(self.parts):
            own = _of(notes, at)
            part.turn(own)
            notes.update({f"{at}.{name}": note for name, note in own.items()})

    def _numbered(self, many: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {f"{at}.{name}": note for at, notes in enumerate(many) for name, note in notes.items()}


def _of(notes: Mapping[str, Tensor], at: int) -> dict[str, Tensor]:
    prefix = f"{at}."
    return {name.removeprefix(prefix): note for name, note in notes.items() if name.startswith(prefix)}


def attention(entries: Entries, queries: Tensor, asked: Tensor) -> Tensor:
    """What some queries look at: shares that add up to 1 over the entries, shape (B, H, G, T, S), fp32.

    ``queries``: shape (B, H G, T, D), G of their heads a head of keys; ``asked``: where they stood, shape (T,): none looks at what
    is later than itself.
    """
    grouped = queries.unflatten(1, (entries.keys.shape[1], -1))
    # One product a head of keys: to give each query's head keys of its own would copy them.
    found = grouped.flatten(2, 3) @ entries.keys.transpose(-1, -2)
    found = found.float().mul_(entries.scaling).unflatten(2, grouped.shape[2:4])
    unseen = entries.positions[:, :, None, :] > asked[:, None]
    if entries.held is not None:
        unseen = unseen | ~entries.held[:, :, None, :]
    return found.masked_fill_(unseen[:, :, None], float("-inf")).softmax(dim=-1)


def pinned(scores: Tensor, entries: Entries, seen: int, sinks: int, recent: int) -> Tensor:
    """The scores, but the first ``sinks`` and the newest ``recent`` of what was read are pinned."""
    firm = (entries.positions < sinks) | (entries.positions >= seen - recent)
    return scores.masked_fill(firm, PINNED)


def kept(scores: Tensor, count: int) -> Tensor:
    """Which ``count`` entries are kept, in their old order: shape (B, H, count), int64. Of equals the earlier one.

    Raises InputError where a score is no number, or fewer entries than that are there.
    """
    if not 0 < count <= scores.shape[-1]:
        raise InputError(f"{count} of {scores.shape[-1]} entries cannot be kept")
    if torch.isnan(scores).any():
        raise InputError("a score is no number")
    best = torch.sort(scores.float(), dim=-1, descending=True, stable=True).indices[..., :count]
    return best.sort(dim=-1).values


def kept_of_heads(
    scores: Sequence[Tensor], held: Sequence[Tensor], counts: Sequence[Tensor] | int, floor: int = 0
) -> list[Tensor]:
    """Which entries of several layers' heads are kept: of each layer a mask of shape (B, H, S). Of equals the earlier one.

    ``scores`` and ``held`` (which places hold an entry): shape (B, H, S) each, S a layer's own. ``counts``: how many each head
    keeps, shape (H,) a layer, or how many all heads of these layers keep together in each row, then whichever score the most, but
    ``floor`` of each head at the least. A head that holds fewer keeps what it holds. Raises InputError where a score is no number.
    """
    if any(torch.isnan(one).any() for one in scores):
        raise InputError("a score is no number")
    # What holds nothing is worth less than anything.
    worth = [
        one.float().clamp(min=torch.finfo(torch.float32).min).masked_fill(~there, float("-inf"))
        for one, there in zip(scores, held, strict=True)
    ]
    if not isinstance(counts, int):
        ranks = [_ranks(one) for one in worth]
        return [there & (rank < count[:, None]) for there, rank, count in zip(held, ranks, counts, strict=True)]
    if floor:
        worth = [one.masked_fill(there & (_ranks(one) < floor), PINNED) for one, there in zip(worth, held, strict=True)]
    rows = worth[0].shape[0]
    # Place before head and layer, so that of equals no head takes all.
    longest = max(one.shape[-1] for one in worth)
    aligned = [torch.nn.functional.pad(one, (longest - one.shape[-1], 0), value=float("-inf")) for one in worth]
    together = torch.cat(aligned, dim=1).transpose(1, 2)
    ranks = [_ranks(together.reshape(rows, -1)).view(together.shape).transpose(1, 2)]
    chosen = ranks[0] < counts
    parts = chosen.split([one.shape[1] for one in worth], dim=1)
    return [there & part[..., longest - there.shape[-1] :] for there, part in zip(held, parts, strict=True)]


def _ranks(scores: Tensor) -> Tensor:
    """How many of the last dimension come before each; of equals the earlier one does."""
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    return torch.empty_like(order).scatter_(
        -1, order, torch.arange(order.shape[-1], device=order.device).expand_as(order)
    )


def gathered(entries: Entries, places: Tensor) -> Entries:
    """The entries at some places, shape (B, H, N), of each head its own."""
    wide = places[..., None].expand(*places.shape, entries.keys.shape[-1])
    return Entries(
        entries.keys.gather(2, wide),
        entries.values.gather(2, wide),
        entries.positions.gather(2, places),
        {name: note.gather(2, places) for name, note in entries.notes.items()},
    )
