"""What a text shows of itself before anyone asks: that it asks, rules or prefers. One byte a row."""

from __future__ import annotations

from enum import IntFlag

from holdfast.cube import Channel, Cube, Kind
from holdfast.retrieve.standing import is_instruction, is_preference


class Sign(IntFlag):
    """Observable properties of a text that channels weigh."""

    QUESTION = 1
    """holds a question"""
    INSTRUCTION = 2
    """lays down a standing rule for the assistant"""
    PREFERENCE = 4
    """says what the speaker prefers"""


_OWN_WORDS = (Channel.USER, Channel.DERIVED, Channel.IMPORT)


def signs(cube: Cube) -> Sign:
    """The signs of a cube; rules and preferences only where the user speaks."""
    found = Sign.QUESTION if "?" in cube.text else Sign(0)
    if cube.origin.channel in _OWN_WORDS:
        if cube.kind == Kind.INSTRUCTION or is_instruction(cube.text):
            found |= Sign.INSTRUCTION
        if cube.kind == Kind.PREFERENCE or is_preference(cube.text):
            found |= Sign.PREFERENCE
    return found
