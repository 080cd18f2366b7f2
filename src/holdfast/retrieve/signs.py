"""What a text shows of itself before anyone asks: that it asks, counts, dates, rules or prefers. One byte a row."""

from __future__ import annotations

import re
from enum import IntFlag

from holdfast.cube import Channel, Cube, Kind


class Sign(IntFlag):
    """Observable properties of a text that channels weigh."""

    ASKS = 1
    """ends with a question"""
    QUESTION = 2
    """holds a question somewhere"""
    DATED = 4
    """speaks of a time"""
    COUNTED = 8
    """holds a number"""
    INSTRUCTION = 16
    """lays down a standing rule for the assistant"""
    PREFERENCE = 32
    """says what the speaker prefers"""


_DATED = re.compile(
    r"\b(yesterday|today|tonight|tomorrow|last|next|ago|this (?:week|month|year|morning|weekend|summer|winter|spring|fall)|"
    r"recently|(?:mon|tues|wednes|thurs|fri|satur|sun)day|january|february|march|april|june|july|august|september|october|"
    r"november|december|week(?:end)?s?|months?|years?|days?|since|in (?:19|20)\d\d)\b",
    re.IGNORECASE,
)
_COUNTED = re.compile(
    r"\b(\d+|one|two|three|four|five|six|seven|eight|nine|ten|dozen|hundred|twice|once|couple)\b", re.IGNORECASE
)
_INSTRUCTION = re.compile(
    r"^\s*(?:please\s+)?(?:always|never|from now on|whenever|do not ever|don't ever|remember to|in future|going forward)\b|"
    r"\b(?:from now on|always\b[^.?!]{3,80}\bwhen(?:ever)? i)\b",
    re.IGNORECASE,
)
_PREFERENCE = re.compile(
    r"\b(?:i(?:'d| would| also| really| generally| usually| always| still)* prefer|i(?:'d| would) rather|my preference|"
    r"i tend to prefer|preferring)\b",
    re.IGNORECASE,
)
_OWN_WORDS = (Channel.USER, Channel.DERIVED, Channel.IMPORT)


def signs(cube: Cube) -> Sign:
    """The signs of a cube; rules and preferences only where the user speaks."""
    text = cube.text
    found = Sign(0)
    if "?" in text:
        found |= Sign.QUESTION
        if text.rstrip().endswith("?"):
            found |= Sign.ASKS
    if _DATED.search(text):
        found |= Sign.DATED
    if _COUNTED.search(text):
        found |= Sign.COUNTED
    if cube.origin.channel in _OWN_WORDS:
        if cube.kind == Kind.INSTRUCTION or (len(text) < 600 and _INSTRUCTION.search(text[:400])):
            found |= Sign.INSTRUCTION
        if cube.kind == Kind.PREFERENCE or _PREFERENCE.search(text):
            found |= Sign.PREFERENCE
    return found
