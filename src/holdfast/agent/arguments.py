"""Reading the arguments of a tool call from the JSON that a model wrote (L2MAC, arXiv 2310.02003: completion of cut JSON).

What was cut is completed by the characters that close it, as the original does; then it says so, because a text that was cut and
closed is still a text that was cut.
"""

from __future__ import annotations

import json
from typing import Any

from holdfast.errors import ChatError

PROFILE = ()  # a reader, and no memory

MOST_CHARACTERS = 1_000_000
_CLOSES = {"{": "}", "[": "]"}


def read_arguments(text: str) -> tuple[dict[str, Any], bool]:
    """The arguments, and whether they had to be completed. Raises ChatError where they are no JSON object even then."""
    if len(text) > MOST_CHARACTERS:
        raise ChatError(f"the arguments of a tool call have more than {MOST_CHARACTERS} characters")
    for candidate, completed in ((text, False), (_completed(text), True)):
        try:
            found = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found, completed
        break
    raise ChatError("the arguments of a tool call are no JSON object, and closing what was open does not make them one")


def _completed(text: str) -> str:
    """The text with its open string and brackets closed."""
    waiting: list[str] = []
    quoted = escaped = False
    for mark in text:
        if quoted:
            quoted = escaped or mark != '"'
            escaped = mark == "\\" and not escaped
        elif mark == '"':
            quoted = True
        elif mark in _CLOSES:
            waiting.append(_CLOSES[mark])
        elif waiting and mark == waiting[-1]:
            waiting.pop()
    return text + ("\\" if escaped else "") + ('"' if quoted else "") + "".join(reversed(waiting))
