"""Standing instructions and preferences, known by how they are put: they must be recalled when no word of the query is theirs."""

from __future__ import annotations

import re

MAX_INSTRUCTION = 600
"""A rule is short; a longer text that begins with "Always" is a document."""

_RULE = re.compile(
    r"^\s*(?:please,? )?(?:always|never|from now on|whenever|make sure to always|do not ever|don['’]t ever|remember to"
    r"|in (?:the )?future|going forward)\b|\b(?:from now on|always\b[^.?!]{3,80}\bwhen(?:ever)? i)\b",
    re.I,
)
_PREFERENCE = re.compile(
    r"\bi(?:['’]d| would| also| really| generally| usually| always| still)* prefer\b|\bi(?:['’]d| would) rather\b"
    r"|\bmy preference\b|\bi tend to prefer\b|\bpreferring\b",
    re.I,
)


def is_instruction(text: str) -> bool:
    """Whether a user's text lays down a rule for the answers to come ("Always give versions when I ask about libraries")."""
    return len(text) < MAX_INSTRUCTION and _RULE.search(text[:400]) is not None


def is_preference(text: str) -> bool:
    """Whether a user's text says what they prefer."""
    return _PREFERENCE.search(text) is not None
