"""Training blocks of weights, each by the documents that reach it alone (arXiv 2510.02375, section on training).

Every row of a batch computes with the blocks of its own address, and now and then with the generic one; only blocks of the batch
get gradients, and their optimiser's state lies beside them on disk. Where neither a generic block nor the model learns, branches of
the root share nothing and are trained one after another, each by itself: what a branch becomes follows from its own documents.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from holdfast.errors import AccessError, InputError
from holdfast.torched import Tensor, torch
from holdfast.weights.base import frozen
from holdfast.weights.block_bank import GENERIC, BlockBank, attached
from holdfast.weights.cluster_tree import Address
from holdfast.weights.sparse_adam import AdamW

PROFILE = ()  # how memory is learnt: ``block_bank`` says what it is

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Document:
    """What is to be learnt, and where.

    Fields
        id: under which it is taken back. owner: whose blocks it trains.
        tokens: ids, shape (T,). address: by the tree, from the embedding of its text.
        labels: what is to be told at each place, -100 for nothing; None: every token.
    """

    id: str
    tokens: Tensor
    address: Address
    owner: str = ""
    labels: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Training:
    """How blocks are trained; the defaults are the paper's, but for the warm-up, which is a share of all steps here.

    Fields
        passes: over the documents. batch: rows. length: tokens of a row; a longer document is cut.
        memory: rate, decay and moments of the blocks. clip: the norm of all gradients of a batch.
        warm: share of the steps with a growing rate; afterwards a cosine down to ``least`` of it.
        generic: how often a row is given the generic block instead of its path; None: once in k + 1, where there is one.
    """

    passes: int = 1
    batch: int = 32
    length: int = 2048
    memory: AdamW = field(default_factory=AdamW)
    clip: float = 1.0
    warm: float = 0.05
    least: float = 0.1
    generic: float | None = None
    seed: int = 0


def train_memories(
    bank: BlockBank,
    model: Any,
    documents: Sequence[Document],
    training: Training = Training(),
    *,
    anchor: torch.optim.Optimizer | None = None,
) -> list[float]:
    """Train the blocks that documents reach, and no others; the loss of each step.

    A document may come several times. ``anchor``: an optimiser of the model's own parameters; who gives one lets the model change
    in place, and documents are on record as having reached it. Raises StaleError for another model, AccessError where a document
    reaches another owner's block, or one of an owner the generic block, InputError for no documents, an address that is no leaf's,
    or labels that are not one a token; nothing is trained then.
    """
    bank.check(model)
    reached: dict[str, set[Address]] = {}
    for one in documents:
        if len(one.address) != bank.shape.depth or one.tokens.dim() != 1 or len(one.tokens) < 2:
            raise InputError(f"document {one.id!r} needs two tokens at least and the address of a leaf")
        if one.labels is not None and one.labels.shape != one.tokens.shape:
            raise InputError(f"document {one.id!r} has another number of labels than of tokens")
        bank.allowed(one.address, one.owner)
        reached.setdefault(one.id, set()).add(one.address)
    if not reached:
        raise InputError("there are no documents to learn")
    share = training.generic
    if share is None:
        share = 1 / (bank.shape.branching + 1) if bank.shape.generic else 0.0
    _own(bank, documents, share)
    bank.touch(reached, [*["generic"] * (share > 0), *["anchor"] * (anchor is not None)])
    together = share > 0 or anchor is not None
    losses = []
    with _learning(model, anchor):
        for number, some in _jobs(documents, together):
            losses += _trained(bank, model, some, training, share, anchor, training.seed + number)
    bank.flush()
    if anchor is not None:
        bank.rebind(model)
    return losses


def _own(bank: BlockBank, documents: Sequence[Document], share: float) -> None:
    """Blocks become their documents' owner's. Raises AccessError."""
    owners: dict[Address, str] = {}
    for one in documents:
        for level in range(1, len(one.address) + 1):
            if owners.setdefault(one.address[:level], one.owner) != one.owner:
                raise AccessError(f"documents of two owners reach the block at {one.address[:level]}")
    if share and any(owners.values()):
        raise AccessError("the generic block is everybody's: documents of an owner train none")
    if owned := {node: owner for node, owner in owners.items() if owner}:
        bank.own(owned)


def _jobs(documents: Sequence[Document], together: bool) -> list[tuple[int, list[Document]]]:
    """What is trained by itself, with a number that its lots are drawn by."""
    if together:
        return [(0, [*documents])]
    found: dict[int, list[Document]] = {}
    for one in documents:
        found.setdefault(one.address[0], []).append(one)
    return sorted(found.items())


def _trained(
    bank: BlockBank,
    model: Any,
    documents: list[Document],
    training: Training,
    share: float,
    anchor: torch.optim.Optimizer | None,
    seed: int,
) -> list[float]:
    rows = [(one, at) for one in documents for at in range(0, len(one.tokens) - 1, training.length)]
    generator = torch.Generator().manual_seed(seed)
    steps = training.passes * -(-len(rows) // training.batch)
    groups = anchor.param_groups if anchor else []
    rates = [group["lr"] for group in groups]
    losses: list[float] = []
    for _ in range(training.passes):
        for picked in torch.randperm(len(rows), generator=generator).split(training.batch):
            some = [rows[at] for at in picked.tolist()]
            lots = torch.rand(len(some), generator=generator).tolist()
            addresses = [GENERIC if lot < share else one.address for (one, _), lot in zip(some, lots, strict=True)]
            now = _schedule(len(losses) / steps, training)
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate * now
            losses.append(_step(bank, model, some, addresses, training, anchor, now))
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate
    return losses


def _step(
    bank: BlockBank,
    model: Any,
    rows: list[tuple[Document, int]],
    addresses: list[Address],
    training: Training,
    anchor: torch.optim.Optimizer | None,
    now: float,
) -> float:
    device = next(model.parameters()).device
    tokens, mask, labels = (one.to(device) for one in _batch(rows, training.length))
    held: list[tuple[int, list[int], Tensor, Tensor, Tensor]] = []

    def leaves(level: int, numbers: list[int]) -> Tensor:
        blocks, moments, steps = (one.to(device) for one in bank.read(level, numbers))
        held.append((level, numbers, blocks.requires_grad_(), moments, steps))
        return held[-1][2]

    with attached(model, bank.gathered(addresses, leaves), rows=len(rows)):
        logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    told = labels[:, 1:] != IGNORED
    loss = torch.nn.functional.cross_entropy(logits[:, :-1][told].float(), labels[:, 1:][told])
    if anchor is not None:
        anchor.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([one[2] for one in held] + _wanted(anchor), training.clip)
    for level, numbers, blocks, moments, steps in held:
        gradient = blocks.grad
        assert gradient is not None
        training.memory.step(blocks, gradient, moments, steps, now)
        bank.write(level, numbers, blocks, moments, steps)
    if anchor is not None:
        anchor.step()
    return float(loss.detach())


def _batch(rows: list[tuple[Document, int]], length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, padded at the end, shape (B, T); a mask of what is none; labels."""
    parts = []
    for one, at in rows:
        cut = slice(at, at + length + 1)  # the first token of the next row is told by this one
        labels = one.tokens if one.labels is None else one.labels
        parts.append((one.tokens[cut], labels[cut]))
    longest = max(len(tokens) for tokens, _ in parts)
    tokens = torch.zeros(len(parts), longest, dtype=torch.int64)
    labels, mask = torch.full_like(tokens, IGNORED), torch.zeros_like(tokens)
    for at, (some, told) in enumerate(parts):
        tokens[at, : len(some)], labels[at, : len(some)], mask[at, : len(some)] = some, told, 1
    return tokens, mask, labels


def _schedule(done: float, training: Training) -> float:
    if done < training.warm:
        return max(done / training.warm, 1e-3)
    left = (done - training.warm) / max(1e-9, 1 - training.warm)
    return training.least + (1 - training.least) * 0.5 * (1 + math.cos(math.pi * left))


def _wanted(anchor: torch.optim.Optimizer | None) -> list[Any]:
    """What an optimiser trains."""
    return [one for group in (anchor.param_groups if anchor else []) for one in group["params"]]


@contextmanager
def _learning(model: Any, anchor: torch.optim.Optimizer | None) -> Iterator[None]:
    """Within the block the model takes gradients where its optimiser wants them, and no others, in the mode for training."""
    before = [(module, module.training) for module in model.modules()]
    try:
        # Dropout belongs to the model's own training; a frozen one is trained beside as it will be used.
        model.train(anchor is not None)
        with frozen(model, _wanted(anchor)):
            yield
    finally:
        for module, was in before:
            module.training = was
