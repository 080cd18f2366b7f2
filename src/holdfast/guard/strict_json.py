"""Reading a worker's answer strictly: one balanced JSON object, or a refusal in words of our own (AgentSys, arXiv 2602.07398).

Duplicate keys, NaN, numbers beyond 64 bits and deep nesting are refused. The decoder's own errors quote the text they failed on,
so none of them is ever passed on.
"""

from __future__ import annotations

import json
import math
import re
from enum import StrEnum
from typing import Any, Never

from holdfast.errors import AnswerRefusedError

PROFILE = ()  # a part of the boundary, and no memory

MOST_CHARACTERS = 1_000_000
"""A worker's answer longer than this is refused unread."""

DEEPEST = 32
"""Brackets nested deeper than this are refused before anything is decoded."""

MOST_DIGITS = 19
"""Integers of more digits than a 64-bit one has are refused."""


class Refusal(StrEnum):
    """Why an answer was refused. The words are ours alone: nothing of the answer is ever in them."""

    NO_OBJECT = "there is no JSON object in it"
    NOT_JSON = "it is not JSON"
    TOO_LARGE = "it is too long, too deep, or holds a number too large"
    DUPLICATE_KEY = "a key stands in it twice"
    EXTRA_KEY = "it has a key that was not declared"
    MISSING_KEY = "a declared key is missing"
    WRONG_TYPE = "a value is not of the declared type"
    NOT_ALLOWED = "a value is not among those allowed"
    UNGROUNDED = "a text is not one that the result holds as a whole"


def first_object(answer: str) -> dict[str, Any]:
    """The first balanced ``{...}`` of a text as a dict. Raises AnswerRefusedError.

    An answer that is JSON as a whole and no object is refused, whatever objects it holds. Strings may hold braces.
    """
    if len(answer) > MOST_CHARACTERS:
        raise AnswerRefusedError(Refusal.TOO_LARGE)
    stripped = answer.strip()
    if stripped[:1] in ("[", '"'):
        raise AnswerRefusedError(Refusal.NO_OBJECT)
    found = _decode(_balanced(stripped))
    if not isinstance(found, dict):
        raise AnswerRefusedError(Refusal.NO_OBJECT)
    return found


def _balanced(text: str) -> str:
    start = text.find("{")
    if start < 0:
        raise AnswerRefusedError(Refusal.NO_OBJECT)
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text, start):
        mark = found.group()
        if mark in "{[":
            depth += 1
            if depth > DEEPEST:
                raise AnswerRefusedError(Refusal.TOO_LARGE)
        elif mark in "}]":
            depth -= 1
            if depth == 0:
                return text[start : found.end()]
    raise AnswerRefusedError(Refusal.NOT_JSON)


_STRING_OR_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[{}\[\]]', re.DOTALL)
"""A string that does not end reaches to the end, as one that ends within an escape does."""


def _decode(text: str) -> Any:
    try:
        return json.loads(
            text, object_pairs_hook=_pairs, parse_constant=_constant, parse_int=_integer, parse_float=_float
        )
    except json.JSONDecodeError:
        # From None: the decoder's error quotes the text.
        raise AnswerRefusedError(Refusal.NOT_JSON) from None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise AnswerRefusedError(Refusal.DUPLICATE_KEY)
    return found


def _constant(_: str) -> Never:
    raise AnswerRefusedError(Refusal.NOT_JSON)  # NaN and the infinities are no JSON


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MOST_DIGITS:
        raise AnswerRefusedError(Refusal.TOO_LARGE)
    return int(digits)


def _float(digits: str) -> float:
    found = float(digits)
    if not math.isfinite(found):
        raise AnswerRefusedError(Refusal.TOO_LARGE)
    return found
