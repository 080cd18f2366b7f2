"""Long texts cut into passages, so that one sentence of a long turn can be found by what it means.

An embedder that averages over a long turn blurs the one sentence that answers ("By the way, ..."); the best passage of a
turn is a channel of its own beside the whole turn.
"""

from __future__ import annotations

import re

from holdfast.cube import Form
from holdfast.taxonomy import Formation, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    formation=(Formation.STRUCTURE_CHUNKS,),
    subject=(Subject.USER, Subject.WORLD),
)

PASSAGE_WORDS = 28
"""A passage holds whole sentences up to this many words."""
WHOLE_WORDS = 42
"""A text up to this long is one passage."""

_BREAK = re.compile(r"(?<=[.!?])\s+|\n+")


def passages(text: str) -> list[str]:
    """The passages of a text, in order, together all its words; one passage where the text is short.

    Whole sentences and lines are packed together; a run of words without an end is cut.
    """
    if len(text.split()) <= WHOLE_WORDS:
        return [text]
    found: list[str] = []
    packed: list[str] = []
    for sentence in _BREAK.split(text):
        spoken = sentence.split()
        if packed and len(packed) + len(spoken) > PASSAGE_WORDS:
            found.append(" ".join(packed))
            packed = []
        packed += spoken
        over = (len(packed) - 1) // PASSAGE_WORDS * PASSAGE_WORDS if packed else 0
        found += [" ".join(packed[at : at + PASSAGE_WORDS]) for at in range(0, over, PASSAGE_WORDS)]
        packed = packed[over:]
    if packed:
        found.append(" ".join(packed))
    return found
