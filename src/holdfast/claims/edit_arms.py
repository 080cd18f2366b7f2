"""What claim 20 measures: a side memory, and by the same edits fine-tuning, of one matrix within a bound and of everything."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from holdfast.claims.edit_world import World
from holdfast.torched import nn, torch
from holdfast.weights.base import Edit, evaluating, frozen, linear
from holdfast.weights.prompts import IGNORED, Tokenizer, logits_at, padded, rows_of, tokens
from holdfast.weights.routing import Routed, constant
from holdfast.weights.side_memory import Settings, SideMemory

_LOW = 0.02
"""A loss at which an edit is learnt, as for a side memory."""


def side_memory(model: Any, world: World, settings: Settings, seed: int) -> SideMemory:
    """One of the world's model, that has learnt nothing yet."""
    return SideMemory(
        model, world.tokenizer, layer=world.sizes.layer, settings=settings, unrelated=world.unrelated,
        templates=world.templates, seed=seed,
    )  # fmt: skip


def key_length(memory: Routed, tokenizer: Tokenizer, prompts: Sequence[str]) -> float:
    """The median length of what a matrix is given at the last token of a prompt: a unit for the radius of a code book."""
    ids, mask = padded([tokens(tokenizer, prompt) for prompt in prompts])
    x, _ = memory.read(ids, mask)
    return float(torch.linalg.vector_norm(x[torch.arange(len(ids)), mask.sum(dim=1) - 1], dim=-1).median())


def fine_tuned(
    model: Any,
    tokenizer: Tokenizer,
    edits: Sequence[Edit],
    templates: Sequence[str],
    *,
    rate: float,
    steps: int,
    layer: str | None = None,
    bound: float | None = None,
) -> Any:
    """A copy of the model that was taught edit after edit by Adam: of all weights, or of the matrix of one layer.

    ``bound``: so far each of its elements may move at most (the constrained fine-tuning of arXiv 2012.00363).
    """
    taught = copy.deepcopy(model)
    learning = [linear(taught, layer).weight] if layer else list(taught.parameters())
    base = [one.detach().clone() for one in learning]
    with evaluating(taught), torch.enable_grad(), frozen(taught, learning):
        for edit in edits:
            rows = rows_of(tokenizer, edit, templates, [])
            learner = torch.optim.Adam(learning, rate)
            places = rows.places
            wanted = rows.labels[:, places + 1].flatten()
            with constant(taught, layer) if layer else nullcontext():
                for _ in range(steps):
                    logits = logits_at(taught, rows.inputs, places).flatten(0, 1)
                    loss = nn.functional.cross_entropy(logits, wanted, ignore_index=IGNORED)
                    if float(loss.detach()) <= _LOW:
                        break
                    learner.zero_grad()
                    loss.backward()
                    learner.step()
                    if bound is not None:
                        with torch.no_grad():
                            for one, was in zip(learning, base, strict=True):
                                one.clamp_(was - bound, was + bound)
    return taught
