"""Texts as rows to edit with: a prompt in many contexts with its target, and what is unrelated to it (WISE, arXiv 2405.14768 §B.1).

Which tokens are of a prompt is told by what its tokens have in common with those of prompt and target: it holds for every tokenizer
that reads from left to right.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from holdfast.errors import InputError
from holdfast.torched import Tensor, torch
from holdfast.weights.base import Edit, Edited, evaluating

PROFILE = ()  # what is taught, and no memory

Tokenizer = Callable[[str], Any]
"""Text to tokens: a tokenizer of ``transformers``, or whatever gives their ids."""

BARE = "{}"
STUBS = ("I", "You", "Because", "Yes", "Q: ")
"""With these the model begins the contexts that it makes."""

_TOGETHER = 64  # prompts that are read at once
_POOL, _WORDS = 20, 12  # rows of the model's own words, where no unrelated texts are given, and how long they are

IGNORED = -100
"""The label of a token that is not to be said."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What is read at a step of editing; the shapes are (rows, tokens), padded at the end, those of the edit first.

    Fields
        ids, mask: the tokens, and which of them are no padding.
        labels: what is to be said, and ``IGNORED`` elsewhere.
        inside, outside: on which tokens the side memory is to show, and on which it is not.
        taught: how many rows are of the edit.
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor
    inside: Tensor
    outside: Tensor
    taught: int

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What a model takes."""
        return {"input_ids": self.ids, "attention_mask": self.mask.long()}

    @property
    def places(self) -> Tensor:
        """After which tokens something is to be said, in any row."""
        return (self.labels[:, 1:] != IGNORED).any(dim=0).nonzero().squeeze(1)


def logits_at(model: Any, inputs: Mapping[str, Tensor], places: Tensor) -> Tensor:
    """What a model says after some tokens of each row, shape (rows, places, vocabulary).

    A head is wide, and most of what it would say of a prompt nobody asks for.
    """
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        found: Tensor = model(**inputs, use_cache=False, logits_to_keep=places).logits
    else:
        found = model(**inputs, use_cache=False).logits[:, places]
    return found


def tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text. Raises InputError where there are none."""
    found = tokenizer(text)
    if hasattr(found, "keys"):
        found = found["input_ids"]
    ids = [int(one) for one in found]
    if not ids:
        raise InputError(f"the tokenizer makes nothing of {text[:60]!r}")
    return ids


def split(tokenizer: Tokenizer, prompt: str, target: str) -> tuple[list[int], list[int]]:
    """The tokens of a prompt and those of the target after it, as they are read together. Raises InputError."""
    space = "" if prompt[-1:].isspace() or target[:1].isspace() else " "
    whole = tokens(tokenizer, f"{prompt}{space}{target}")
    cut = _common(tokens(tokenizer, prompt), whole)
    if not 0 < cut < len(whole):
        raise InputError(f"{target[:60]!r} adds no token to {prompt[:60]!r}")
    return whole[:cut], whole[cut:]


def padded(rows: Sequence[Sequence[int]], device: Any = None) -> tuple[Tensor, Tensor]:
    """Rows of one length, padded at the end, and which tokens are none of the padding."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(longest, device=device) < lengths[:, None]


def rows_of(
    tokenizer: Tokenizer,
    edit: Edit,
    templates: Sequence[str],
    unrelated: Sequence[Sequence[int]],
    *,
    device: Any = None,
    everywhere: bool = False,
) -> Rows:
    """The edit in every context, and after that the unrelated rows. Raises InputError.

    Where one of the edit's unrelated texts is a phrase of its prompt, that is its subject: then the side memory is to show on the
    subject alone, and the other tokens of the same rows are what is unrelated (WISE, its released code). ``everywhere``: on all
    tokens of a row, with target and padding, as there; else on those of the prompt, by which a request is routed.
    """
    prompts, wholes = [], []
    for text in wordings(edit, templates):
        prompt, target = split(tokenizer, text, edit.target)
        prompts.append(len(prompt))
        wholes.append([*prompt, *target])
    taught = len(wholes)
    ids, mask = padded([*wholes, *unrelated], device)
    at = torch.arange(ids.shape[1], device=device)
    ends = torch.tensor([*prompts, *[ids.shape[1]] * len(unrelated)], device=device)[:, None]
    labels = ids.masked_fill((at < ends) | ~mask, IGNORED)
    inside, outside = (torch.zeros_like(mask) for _ in range(2))
    subject = next((text for text in edit.unrelated if text in edit.prompt), None)
    if subject is not None:
        if edit.also:
            raise InputError("an edit that names its subject is taught in one wording")
        before, _, _ = edit.prompt.partition(subject)
        for row, (template, whole) in enumerate(zip(templates, wholes, strict=True)):
            start, end = (
                _common(tokens(tokenizer, text), whole) if text.strip() else 0
                for text in (template.replace(BARE, one) for one in (before.rstrip(), before + subject))
            )
            inside[row, start:end] = True
        outside[:taught] = ~inside[:taught] if everywhere else mask[:taught] & (at < ends[:taught]) & ~inside[:taught]
        if not inside[:taught].any(dim=1).all() or not outside[:taught].any(dim=1).all():
            raise InputError(f"the subject {subject!r} is all or nothing of {edit.prompt!r} for this tokenizer")
    else:
        inside[:taught] = True if everywhere else mask[:taught] & (at < ends[:taught])
    outside[taught:] = True if everywhere else mask[taught:]
    return Rows(ids, mask, labels, inside, outside, taught)


def wordings(edit: Edit, templates: Sequence[str]) -> list[str]:
    """Everything that an edit's target is taught after: each of its prompts in every context."""
    return [template.replace(BARE, prompt) for prompt in (edit.prompt, *edit.also) for template in templates]


def told(
    model: Any, parts: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """What a model says where each token of a target stands, told those before it: prompt and target as ``split``.

    Those of one length are read together: which they are, the logits, shape (rows, tokens, vocabulary), and the targets, shape
    (rows, tokens). The prompt is read first and the target on its cache, as in generation, so that a memory is chosen by the prompt
    alone.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for at, (prompt, target) in enumerate(parts):
        groups.setdefault((len(prompt), len(target)), []).append(at)
    device = next(model.parameters()).device
    with evaluating(model):
        for every in groups.values():
            for start in range(0, len(every), _TOGETHER):
                some = every[start : start + _TOGETHER]
                prompts, targets = (torch.tensor([[*parts[at][side]] for at in some], device=device) for side in (0, 1))
                read = model(input_ids=prompts, use_cache=True)
                logits = [read.logits[:, -1:]]
                if targets.shape[1] > 1:
                    logits.append(model(input_ids=targets[:, :-1], cache=read.cache, use_cache=True).logits)
                yield some, torch.cat(logits, dim=1), targets


def answered(model: Any, parts: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[int]]:
    """The likeliest token at each place of each target; see ``told``."""
    found: dict[int, list[int]] = {}
    for some, logits, _ in told(model, parts):
        found.update(zip(some, logits.argmax(dim=-1).tolist(), strict=True))
    return [found[at] for at in range(len(parts))]


def became(editor: Any, edits: Sequence[Edit], log: Mapping[str, Any]) -> tuple[Edited, ...]:
    """What has come of some edits, with everything that an editor was taught; ``log``: by id, with ``loss`` and ``steps``."""
    parts = [split(editor.tokenizer, one.prompt, one.target) for one in edits]
    with editor.on():
        said = answered(editor.model, parts)
    device = next(editor.model.parameters()).device
    found = []
    for start in range(0, len(edits), _TOGETHER):
        some = slice(start, start + _TOGETHER)
        routes = editor.routes(*padded([prompt for prompt, _ in parts[some]], device))
        for one, (_, target), told, route in zip(edits[some], parts[some], said[some], routes, strict=True):
            learnt, how = route.memory is not None and told == target, log[one.id]
            found.append(Edited(one.id, learnt, how.loss, how.steps, route.score, route.threshold))
    return tuple(found)


def contexts_of(model: Any, tokenizer: Tokenizer, given: Sequence[str] | None) -> tuple[str, ...]:
    """Where a prompt is taught: those given, or ``templates_of``. Raises InputError for one that has no place for it."""
    found = tuple(templates_of(model, tokenizer) if given is None else given)
    if not found or not all(BARE in one for one in found):
        raise InputError(f"a template says with {BARE} where the prompt stands")
    return found


def pool_of(model: Any, tokenizer: Tokenizer, given: Sequence[str | Sequence[int]], seed: int) -> list[list[int]]:
    """The tokens of texts whose answers must stay: of those given, or else of ``own_words``."""
    if not given:
        return own_words(model, tokenizer, _POOL, _WORDS, seed)
    return [tokens(tokenizer, one) if isinstance(one, str) else [*one] for one in given]


def templates_of(model: Any, tokenizer: Tokenizer, lengths: Sequence[int] = (5, 10)) -> tuple[str, ...]:
    """The bare prompt, and contexts that the model itself makes from a few stubs; the bare one alone where nothing decodes."""
    decode = getattr(tokenizer, "decode", None)
    if decode is None:
        return (BARE,)
    found = [BARE]
    with evaluating(model):
        for length in lengths:
            for stub in STUBS:
                ids = _continued(model, tokens(tokenizer, stub), length)
                found.append(f"{decode(ids, skip_special_tokens=True).replace('{', '').replace('}', '')} {BARE}")
    return tuple(dict.fromkeys(found))


def own_words(model: Any, tokenizer: Tokenizer, count: int, length: int, seed: int) -> list[list[int]]:
    """What a model says of itself, drawn by its own chances: rows that are unrelated to anything."""
    random = torch.Generator().manual_seed(seed)
    with evaluating(model):
        return [_continued(model, tokens(tokenizer, STUBS[at % len(STUBS)]), length, random) for at in range(count)]


def _continued(model: Any, ids: list[int], length: int, random: Any = None) -> list[int]:
    """With so many tokens after it: the likeliest ones, or drawn by lot."""
    device = next(model.parameters()).device
    for _ in range(length):
        logits = model(torch.tensor([ids], device=device)).logits[0, -1].float().cpu()
        chosen = logits.argmax() if random is None else torch.multinomial(logits.softmax(dim=-1), 1, generator=random)
        ids = [*ids, int(chosen)]
    return ids


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many of the first tokens two texts have in common."""
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(one, other, strict=False)))
