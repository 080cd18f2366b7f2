"""Facts by rule: who lives where, works at what, is called how, likes what; no model, and nothing that was not said.

The claims (subject, attribute, value, unit, validity, polarity) that the contradiction layer of SuperLocalMemory needs
(arXiv 2603.14588, §3), read from first and third person statements by a table of English patterns. Precision comes before
recall: the words of a fact stand in the turn, at ``span``; questions, hypotheses, fiction, quotations and code say nothing
about anybody; pronouns are left alone. What no rule reads is still in the turn, which is kept verbatim.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from holdfast.cube import Channel, Form
from holdfast.encode.base import Experience
from holdfast.encode.claim_rules import RULES
from holdfast.encode.said import Said
from holdfast.encode.slots import Claim, is_heard, said_at, settle, speaker
from holdfast.store.base import Operation
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    formation=(Formation.DISTILL_FACTS, Formation.STRUCTURE_ENTITIES),
    evolution=(Evolution.UPDATE_EXTERNAL,),
    subject=(Subject.USER, Subject.WORLD),
)


@dataclass(frozen=True, slots=True)
class ClaimEncoder:
    """Reads the claims in turns, and proposes what they change.

    An assistant's turns are not read: what a model says about its user is a guess, and its own "I" is nobody.
    """

    def encode(self, experience: Experience) -> list[Operation]:
        """Additions, ends of older values of the same slot, and ``none`` for what is known; empty where nothing is said."""
        claims = (
            (claim, turn)
            for turn in experience.turns
            if is_heard(turn) and turn.origin.channel is not Channel.ASSISTANT and turn.data.get("role") != "assistant"
            for claim in find_claims(turn.text, speaker(turn), said_at(turn, experience.now))
        )
        return settle(claims, experience)


def find_claims(text: str, author: str, when: datetime) -> tuple[Claim, ...]:
    """The claims that a text makes when ``author`` says it at ``when``, in the order of the text."""
    words = frozenset(_TOKEN.findall(text.lower()))
    found: dict[tuple[int, str], Claim] = {}
    turn = Said(text, author, when)
    for rule in RULES:
        if rule.triggers.isdisjoint(words):
            continue
        pattern = rule.pattern if turn.has_capitals else rule.small
        for match in pattern.finditer(text) if pattern else ():
            if turn.asserts(match.start(), match.end()):
                for claim in rule.read(match, turn):
                    found.setdefault((claim.span[0], claim.key), claim)
    return tuple(sorted(found.values(), key=lambda claim: claim.span))


_TOKEN = re.compile(r"[a-z]+|[0-9%$€£]")
