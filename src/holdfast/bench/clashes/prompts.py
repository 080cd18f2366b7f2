"""Conflict prompts in words, and what a reader of words answered (arXiv 2305.13300, appendix on prompts).

The parts and their order are the paper's: instruction, information (one passage bare, several numbered), question, lettered
options with "Uncertain" last. ``annotated`` is our own rendering of the same evidence: sides told apart, one passage a source,
the source and its trust shown, in an order that is drawn and not that of arrival.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from string import ascii_uppercase

import numpy as np

from holdfast.bench.clashes.items import Passage, Prompt
from holdfast.errors import InputError

UNCERTAIN = "Uncertain"

_LETTER = re.compile(r"^\W*(?:(?:the\s+)?answer\s*(?:is)?\s*:?\s*)?\(?([A-Z])\b", re.IGNORECASE)
_ANSWER = re.compile(r"^\s*(?:A:|answer:)?\s*", re.IGNORECASE)


def as_text(prompt: Prompt) -> str:
    """The prompt in words, passages as they come. Raises InputError for more options than there are letters."""
    return _prompt(prompt, _listed([one.text for one in prompt.passages]))


def annotated(prompt: Prompt, seed: int = 0) -> str:
    """The prompt in words, passages by the side they are on, each with its source and trust (``by_side``).

    Raises InputError for more options than there are letters.
    """
    sides = by_side(prompt.passages, seed)
    if not sides:
        return as_text(prompt)
    told = []
    for n, side in enumerate(sides, 1):
        of = f"{len(side)} source{'s' if len(side) > 1 else ''}"
        told.append(f"\nSide {n}, {of}, says: {side[0].claim}")
        told += [f"- {one.origin} (trust {one.trust:.2f}): {one.text}" for one in side]
    head = "sources that agree" if len(sides) == 1 else "sources that disagree; weigh who says what, not how often"
    return _prompt(prompt, f"({head})" + "\n".join(told))


def by_side(passages: Sequence[Passage], seed: int = 0) -> list[list[Passage]]:
    """Passages by the answer they give, one of each origin for each answer.

    The order of sides and of sources within one is drawn from what they say and the seed, so neither the order in which they
    come nor a copy among them changes anything; the same seed gives the same order again.
    """
    sides: dict[str, dict[str, Passage]] = {}
    for one in sorted(passages, key=lambda one: (one.claim, one.origin, one.text)):
        sides.setdefault(one.claim, {}).setdefault(one.origin, one)
    groups = [list(side.values()) for side in sides.values()]
    key = "\0".join(one.text for group in groups for one in group)
    random = np.random.default_rng([seed, zlib.crc32(key.encode())])
    return [[groups[n][at] for at in random.permutation(len(groups[n]))] for n in random.permutation(len(groups))]


def read_letter(text: str, options: Sequence[str]) -> str | None:
    """The option that an answer names by its letter or by its words; None for "Uncertain" and for what cannot be read."""
    said = text.strip().splitlines()[0].strip() if text.strip() else ""
    plain = said.casefold().rstrip(".")
    for option in (*options, UNCERTAIN):
        if plain == option.casefold().rstrip("."):
            return None if option == UNCERTAIN else option
    found = _LETTER.match(said)
    at = ascii_uppercase.index(found.group(1).upper()) if found else len(options)
    return options[at] if at < len(options) else None


def read_told(text: str) -> tuple[str | None, str]:
    """Answer and supporting passage of a reply in two paragraphs; None where there is no answer."""
    first, _, rest = text.strip().partition("\n")
    answer = _ANSWER.sub("", first, count=1).strip()
    return answer or None, rest.strip()


def _listed(texts: Sequence[str]) -> str:
    if len(texts) == 1:
        return texts[0]
    return "".join(f"\n{n}. {text}" for n, text in enumerate(texts, 1))


def _prompt(prompt: Prompt, information: str) -> str:
    asked = f"Question: {prompt.question}"
    if not prompt.passages and not prompt.options:
        return f"Answer in the first paragraph; support the answer in the second.\n\n{asked}\n\nAnswer: "
    sources = "the information below and what you know yourself" if prompt.knowledge else "the information below"
    task = "pick the best of the options, by its letter" if prompt.options else "answer the question"
    parts = [f"Going by {sources}, {task}.", f"Information: {information}", asked]
    if prompt.options:
        if len(prompt.options) >= len(ascii_uppercase):
            raise InputError(f"{len(prompt.options)} options and 'Uncertain' are more than there are letters")
        rows = [f"{letter}: {option}" for letter, option in zip(ascii_uppercase, prompt.options, strict=False)]
        parts.append("\n".join(["Options:", *rows, f"{ascii_uppercase[len(rows)]}: {UNCERTAIN}"]))
    return "\n\n".join([*parts, "Answer: "])
