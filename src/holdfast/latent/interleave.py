"""Memory Interleave (MSA, arXiv 2603.23516, Fig. 3): a model names documents, gets their words, and goes on until it can answer.

Means of chunks hold no text word for word, and what a second document must be found by often stands in the first. So in a round all
that was asked and pasted until then is routed anew, within one call and never while tokens are generated; the model says labels,
"[4821][77]", and a mark; what it named is pasted. It ends where the model says that this is enough, says anything but labels, or
names nothing new. Then the question is asked once more, and what it says now is the answer.

A label follows from a document's name alone, so that a bank stays a set and what was removed leaves no gap. Two documents may have
the same one: then both are pasted. Labels are read from what a model says, so only documents in sight have any here, and what is
pasted is what the caller gave for them, fenced as data where it comes from a store (``Shelf.texts``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.errors import InputError
from holdfast.latent.sparse_attention import Documents, Router, attached
from holdfast.torched import torch

PROFILE = ()  # a way of asking, and no memory

LABELS = 10_000
"""How many labels there are."""

_NAMED = re.compile(r"\[(\d{1,4})\]")
_ONLY = re.compile(r"(?:\s*\[\d+\])+\s*")


@dataclass(frozen=True, slots=True)
class Frame:
    """The words around a question; a model knows those that it was trained with. Raises InputError where the question has no place.

    Fields
        ask: the question, at ``{question}``, and what is wanted of documents.
        end: ends what the model names, and what is pasted.
        enough: says that no more is wanted.
        tell: asks for the answer.
    """

    ask: str = "{question}\nName the documents that tell it: "
    end: str = "<|object_ref_end|>"
    enough: str = "<End-of-Retrieve>"
    tell: str = "The user's question is: {question}<|object_ref_end|>The answer to the question is: "

    def __post_init__(self) -> None:
        if not self.end or not self.enough or "{question}" not in self.ask or "{question}" not in self.tell:
            raise InputError("both marks must say something, and {question} must stand in what asks and in what tells")


@dataclass(frozen=True, slots=True)
class Round:
    """What the model said, and the names of the documents that were pasted for it."""

    said: str
    pasted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Interleaved:
    """An answer, and how it came about. ``enough``: whether the model itself ended the rounds; ``read``: all that was pasted."""

    answer: str
    rounds: tuple[Round, ...]
    enough: bool

    @property
    def read(self) -> tuple[str, ...]:
        """The names of the documents whose words it was given, in the order it asked for them."""
        return tuple(id for one in self.rounds for id in one.pasted)


def label(id: str) -> int:
    """By which a model names a document; to be written before its words where it is read: ``f"[{label(id)}] {text}"``."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big") % LABELS


def interleave(
    model: Any,
    router: Router,
    tokenizer: Any,
    documents: Documents | None,
    texts: Mapping[str, str],
    question: str,
    *,
    frame: Frame | None = None,
    rounds: int = 4,
    named: int = 128,
    pasted: int = 4096,
    length: int = 64,
) -> Interleaved:
    """Let a model read its way to an answer, greedily.

    Args:
        model, router: as for ``attached``; trained to name documents.
        documents, texts: what is in sight, and the words of each by its name. None, or a document without words, is never named.
        rounds: at most so many. named, length: tokens of what is named in a round, and of the answer. pasted: tokens of all pastes.

    Raises InputError for a question that says nothing, or numbers below 1.
    """
    frame = frame or Frame()
    if not question.strip() or min(rounds, named, pasted, length) < 1:
        raise InputError("a question must say something, and rounds and lengths are 1 or more")
    by_label: dict[int, list[str]] = {}
    for id in () if documents is None else documents.ids:
        if id in texts:
            by_label.setdefault(label(id), []).append(id)
    question = _without_marks(question, frame)
    context, found, seen, enough, left = frame.ask.replace("{question}", question), [], set[str](), False, pasted
    with attached(model, router) as memory:
        for _ in range(rounds if by_label else 0):
            memory.use(documents)  # routed anew, by all that stands there now
            said = _said(model, tokenizer, context, named, (frame.end, frame.enough))
            enough = frame.enough in said
            wanted = said.partition(frame.enough)[0].removesuffix(frame.end)
            new = []
            for id in _ids(wanted, by_label) if _ONLY.fullmatch(wanted) else ():
                cost = len(tokenizer(texts[id], add_special_tokens=False)["input_ids"])
                if id not in seen and cost <= left:
                    seen.add(id)
                    new.append(id)
                    left -= cost
            found.append(Round(said, tuple(new)))
            if new:
                words = "".join(f"[{label(id)}]. {_without_marks(texts[id], frame)}\n" for id in new)
                context += wanted + frame.end + words + frame.end
            if enough or not new:
                break
        memory.use(documents)
        answer = _said(model, tokenizer, context + frame.tell.replace("{question}", question), length, (frame.end,))
    return Interleaved(answer.removesuffix(frame.end).strip(), tuple(found), enough)


def _ids(said: str, by_label: Mapping[int, list[str]]) -> list[str]:
    """The documents that were named, each once, in order; labels of none are dropped."""
    labels = dict.fromkeys(int(digits) for digits in _NAMED.findall(said))
    return [id for one in labels for id in by_label.get(one, ())]


def _without_marks(text: str, frame: Frame) -> str:
    """A text that cannot end what it stands in."""
    while frame.end in text or frame.enough in text:  # what stood around a mark may make another
        text = text.replace(frame.end, " ").replace(frame.enough, " ")
    return text


def _said(model: Any, tokenizer: Any, context: str, most: int, ends: tuple[str, ...]) -> str:
    """What the model goes on with, up to and with the first of ``ends``."""
    ids = torch.tensor([tokenizer(context)["input_ids"]], device=next(model.parameters()).device)
    with torch.no_grad():
        out = model.generate(
            ids, max_new_tokens=most, do_sample=False, stop_strings=list(ends), tokenizer=tokenizer, pad_token_id=0
        )
    said = str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=False))
    first = min((said.find(end) + len(end) for end in ends if end in said), default=len(said))
    return said[:first]
