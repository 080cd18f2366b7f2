"""Whether a text says again what was read: then it is no second witness.

An agent that answers with what its user once said, and keeps the answer, would make two voices of one, and go on saying the old
thing when the user has said a new one. So what it writes in the words of what it read is derived from that. Words and not
meaning decide: a paraphrase without a word in common passes for the agent's own.
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.cube import Form, Ref
from holdfast.retrieve.text import tokens
from holdfast.taxonomy import Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    subject=(Subject.AGENT,),
)

SHARE = 0.6
"""Texts of which the shorter has so many of its words in the other one say the same, or one quotes the other."""

WORDS = 2
"""So many words they have in common at least."""


def said(text: str) -> frozenset[str]:
    """What a text says, for ``echoed``: its stems, without words that say nothing."""
    return frozenset(tokens(text))


def echoed(text: str, read: Mapping[Ref, frozenset[str]]) -> list[Ref]:
    """Which of the things that were read, each as ``said`` gives it, a text says again: those of which it says most.

    What is merely about the same says some of the same words too, and would be forgotten with it for no reason.
    """
    own = said(text)
    shares = {
        ref: len(own & words) / min(len(own), len(words)) for ref, words in read.items() if len(own & words) >= WORDS
    }
    most = max(shares.values(), default=0.0)
    return [ref for ref, share in shares.items() if share == most >= SHARE]
