"""Standing instructions and preferences, as kinds of their own: "Always ...", "never ...", "I prefer ...".

They hold for every later answer and share no word with the question that needs them (on BEAM, arXiv 2510.27246, lexical
search finds 6 % of the instructions behind its questions), so they must be known by kind, not found by chance. Only what
is asked once and for all counts: "make sure this essay is short" is a request, "always keep essays short" is a rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from holdfast.cube import Channel, Form, Kind
from holdfast.encode.base import Experience
from holdfast.encode.people import COMMON_WORDS
from holdfast.encode.said import Said
from holdfast.encode.slots import Claim, is_heard, plain, said_at, settle, speaker
from holdfast.store.base import Operation
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Subform

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER,),
    formation=(Formation.DISTILL_FACTS,),
    evolution=(Evolution.UPDATE_EXTERNAL,),
)


@dataclass(frozen=True, slots=True)
class StandingEncoder:
    """Reads what a user wants of every answer, and what they prefer; an assistant, a tool or a document gives no orders."""

    def encode(self, experience: Experience) -> list[Operation]:
        """Additions, ends of wishes that a new one reverses, and ``none`` for what is known."""
        claims = (
            (claim, turn)
            for turn in experience.turns
            if is_heard(turn) and turn.origin.channel in _MASTERS and turn.data.get("role") != "assistant"
            for claim in find_standing(turn.text, speaker(turn), said_at(turn, experience.now))
        )
        return settle(claims, experience)


_MASTERS = frozenset({Channel.USER, Channel.IMPORT})


def find_standing(text: str, author: str, when: datetime) -> tuple[Claim, ...]:
    """The standing instructions and the preferences in a text that ``author`` says at ``when``, in order."""
    if not _HINT.search(text):
        return ()
    said = Said(text, author, when)
    found = [*_instructions(said), *_preferences(said)]
    return tuple(sorted(found, key=lambda claim: claim.span))


_HINT = re.compile(
    r"always|never|from now on|going forward|moving forward|from here on|henceforth|in (?:the )?future|when(?:ever)? i|"
    r"(?:every|each|any) ?time i|do ?n['’]t|do not|stop|avoid|remember to|prefer|better than|better\b|rather|"
    r"(?:keep|make) (?:all )?(?:your|the) (?:answer|response|repl|explanation)",
    re.I,
)

# --- instructions ---

# Bounded, and without a way back: what begins again at every mark must not look through all that follows each time.
_LEAD = (
    r"(?:\A|(?<=[.!?…\n:;]))[\s\-*•]{0,40}+(?:(?:and|also|but|so|oh|ok|okay|hey|hi|note|important|reminder|remember|"
    r"one more thing|by the way|btw|additionally|finally)[,:]?\s{1,20}+){0,4}(?:that\s{1,20}+)?(?:please,?\s{1,20}+)?"
)
# What one asks of an answer, and hardly ever of a friend.
_DEED = (
    r"(?:include|provide|format|use|show|write|reply|respond|answer|explain|mention|call|address|list|cite|add|refer|check|"
    r"confirm|suggest|recommend|summari[sz]e|translate|combine|present|highlight|describe|specify|state|offer|double-check|"
    r"verify|convert|prioriti[sz]e|clarify|compare|outline|detail|illustrate|emphasi[sz]e|structure|organi[sz]e|quote|"
    r"assume|return|print|display|ensure|limit|apply|reference|label|annotate|tailor|incorporate|demonstrate|skip|omit)\b"
)
_ANY_DEED = (
    rf"(?:{_DEED}|(?:give|tell|ask|keep|make|speak|talk|remind|send|put|begin|start|end|finish|break|avoid|do|run)\b)"
)
_WHENEVER = (
    r"(?:when(?:ever)?|(?:every|each|any) ?time) i (?:ask|mention|request|say|send|share|write|talk|want|need|tell)"
)
_FOR_ALL = (
    rf"(?=[^.!?\n]{{0,300}}\b(?:{_WHENEVER}|for me|to me|with me|my (?:questions?|requests?|code|messages?|name)|again|any ?more|"
    r"your (?:answers?|responses?|replies|explanations?|messages?|code|suggestions?)|unless i|in (?:the )?future|from now on))"
)
_FROM_NOW = r"(?:from now on|from here on(?: out)?|going forward|moving forward|henceforth|in (?:the )?future)"
_NOT = r"(?:do ?n['’]t|do not|never)(?: ever)?"
_BODY = r"(?P<body>[^\s.!?](?:[^.!?\n]|\.(?!\s|\Z))*+)"
_INSTRUCTIONS = tuple(
    (re.compile(pattern, re.I), polarity)
    for pattern, polarity in (
        (rf"{_LEAD}{_FROM_NOW},?\s+(?:please,?\s+)?(?:you (?:should|must) )?{_NOT}\s+{_BODY}", False),
        (
            rf"{_LEAD}{_FROM_NOW},?\s+(?:please,?\s+|i(?: want|['’]d like| would like| need) you to\s+|you (?:should|must)\s+)?"
            rf"(?:always\s+|make sure (?:to|you)\s+)?(?={_ANY_DEED}){_BODY}",
            True,
        ),
        (rf"{_LEAD}(?={_WHENEVER}[^.!?\n]{{2,90}}?,\s+(?:please,?\s+)?{_NOT}\s+{_ANY_DEED}){_BODY}", False),
        (
            rf"{_LEAD}(?={_WHENEVER}[^.!?\n]{{2,90}}?,\s+(?:please,?\s+)?(?:always\s+|make sure (?:to|you)\s+)?{_ANY_DEED}){_BODY}",
            True,
        ),
        (
            rf"{_LEAD}always\s+(?:(?:make sure|be sure|remember) to\s+)?"
            rf"(?:(?={_DEED})|(?={_ANY_DEED}){_FOR_ALL}|(?=[^.!?\n]{{0,300}}\b{_WHENEVER})){_BODY}",
            True,
        ),
        (rf"{_LEAD}(?:never|do(?:n['’]t| not) ever)\s+(?:(?={_DEED})|(?={_ANY_DEED}){_FOR_ALL}){_BODY}", False),
        (rf"{_LEAD}(?:do ?n['’]t|do not)\s+(?:(?=(?:use|call|include|add)\b)|(?={_ANY_DEED}){_FOR_ALL}){_BODY}", False),
        (
            rf"{_LEAD}stop\s+(?=(?:using|adding|including|calling|asking|giving|suggesting|recommending|saying|sending)\b){_BODY}",
            False,
        ),
        (rf"{_LEAD}avoid\s+{_FOR_ALL}{_BODY}", False),
        (rf"{_LEAD}(?:(?<=please )remember to|remember to always)\s+(?={_ANY_DEED}){_BODY}", True),
        (
            rf"\b(?:i(?: want| need|['’]d like| would like| expect) you to always|you (?:should|must) always)\s+{_BODY}",
            True,
        ),
        (
            rf"\b(?:i(?: want| need|['’]d like| would like| expect) you to never|you (?:should|must) never)\s+{_BODY}",
            False,
        ),
        (rf"{_LEAD}(?=(?:keep|make) (?:all )?(?:of )?your (?:answer|response|repl|explanation|message)){_BODY}", True),
    )
)


def _instructions(said: Said) -> Iterator[Claim]:
    taken = 0
    matches = [(match, polarity) for pattern, polarity in _INSTRUCTIONS for match in pattern.finditer(said.text)]
    for match, polarity in sorted(matches, key=lambda one: (one[0].start(), one[0].start("body"))):
        start = _first_word(said.text, match.start())
        body = match["body"].rstrip().rstrip(" .,;:")
        end = match.start("body") + len(match["body"].rstrip())
        if start < taken or len(body) < 4 or not said.asserts(start, end):
            continue
        taken = end
        sentence = said.text[start : match.start("body") + len(body)]
        yield Claim(
            subject=said.author,
            attribute="instruction",
            value=body,
            text=sentence,
            span=(start, start + len(sentence)),
            rule="instruction",
            kind=Kind.INSTRUCTION,
            polarity=polarity,
            canonical=_TAIL.sub("", body),
        )


_WORD = re.compile(r"\w")
_TAIL = re.compile(r"(?<!\s)\s+(?:any ?more|again|ever|please|from now on|in (?:the )?future)$", re.I)


def _first_word(text: str, start: int) -> int:
    word = _WORD.search(text, start)
    return word.start() if word else start


# --- preferences ---

_WANT = r"(?:[\w'’-]{1,40}, (?!(?:so|but|can|could|and|because|since|i|you|we)\b))?(?:[^,.;:!?\n]|[:.,](?=\d)){1,150}?"
_STOP = (
    r"(?=\s{0,20}+(?:[,.;!?\n–—(]|:(?!\d)|\Z)|\s{1,20}+-\s|\s{1,20}+(?:because|since|so|but|when|whenever|if|as|for|where|"
    r"while|which|due to|"
    r"and (?:i|it|that|my|we|can|then)|especially|in order|to (?:keep|ensure|make|avoid|reduce|grasp|fully|understand))\b)"
)
_OTHER = r"(?P<other>[^,.;:!?\n]{1,100}?)"
_WHO = r"(?P<who>\bi|\b(?-i:[A-Z])\w{1,40}(?: (?-i:[A-Z])\w{1,40}){0,2})"
_HOW = r"(?: (?:really|generally|usually|strongly|always|definitely|actually|still|also|much|typically|now|clearly|just|would))*"
_PREFERENCES = tuple(
    re.compile(pattern, re.I)
    for pattern in (
        rf"{_WHO}(?:['’]d)?{_HOW} prefers? (?P<v>{_WANT})(?:(?:,? (?:over|rather than|instead of)|, not) {_OTHER})?{_STOP}",
        rf"{_WHO}{_HOW} prefers? (?P<v>(?!\w*ing\b)[\w'’-]+) to (?P<other>[\w'’-]+){_STOP}",
        rf"{_WHO}{_HOW} likes? (?P<v>{_WANT}) (?:better|more) than {_OTHER}{_STOP}",
        rf"{_WHO}{_HOW} likes? (?P<v>[\w'’-]+(?: [\w'’-]+){{0,4}}?) (?:better|best)(?=\s*(?:[,.;!?\n]|\Z))",
        rf"{_WHO}(?:['’]d| would){_HOW} rather (?P<v>{_WANT}) than {_OTHER}{_STOP}",
        rf"\b(?P<who>my) preference (?:is|for) (?:for )?(?P<v>{_WANT})(?:,? (?:over|rather than|instead of) {_OTHER})?{_STOP}",
        rf"\b(?P<who>my) (?P<topic>preferred [\w-]+(?: [\w-]+)?) (?:is|are) (?P<v>{_WANT}){_STOP}",
    )
)
# What the value would only point at, and whose wishes are nobody's.
_POINTS = re.compile(
    r"(?:its?|some\w*|any\w*|every\w*|this|that|these|those|them|their|his|her|to|not|you|your|if|one|when)\b|"
    r"(?:the )?(?:former|latter)\b",
    re.I,
)
_NOBODY = (COMMON_WORDS | {"users", "customers"}) - {"i", "my"}


def _preferences(said: Said) -> Iterator[Claim]:
    taken = 0
    matches = (match for pattern in _PREFERENCES for match in pattern.finditer(said.text))
    for match in sorted(matches, key=lambda one: (one.start(), not one.groupdict().get("other"), -one.end())):
        who, value = match["who"], match["v"].strip(" \"'“”")
        if match.start() < taken or not plain(value) or _POINTS.match(value) or who.casefold().split()[0] in _NOBODY:
            continue
        if said.is_relative(match.start()) or not said.asserts(match.start(), match.end()):
            continue
        taken = match.end()
        subject = said.author if who.casefold() in ("i", "my") else who
        groups = match.groupdict()
        other, topic = (groups.get("other") or "").strip(), groups.get("topic") or "prefers"
        yield Claim(
            subject=subject,
            # Between the same two things only one preference holds at a time.
            attribute=f"preference: {' / '.join(sorted((plain(value), plain(other))))}" if other else topic.lower(),
            value=value,
            text=f"{subject} prefers {value}{f' over {other}' if other else ''}",
            span=match.span(),
            rule="preference",
            kind=Kind.PREFERENCE,
            functional=bool(other) or topic != "prefers",
        )
