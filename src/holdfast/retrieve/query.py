"""What a query asks for, read off its words: whom it names, what it wants, and what is left when the wrapping is taken off.

No model is asked. Questions come wrapped in words that no memory holds ("can you give me a summary of", "throughout our
conversations"), name people in the third person who speak of themselves in the first, and join several things with "and".
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from holdfast.retrieve.text import STOP_WORDS, stem, words


class Want(StrEnum):
    """What a query is after; a query may want several things, or none of these."""

    TIME = "time"
    REQUEST = "request"
    SUMMARY = "summary"
    ORDER = "order"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Query:
    """A query as the channels read it.

    Fields
        text: as it was asked.
        focus: without wrapping; this is what the words of ``terms`` come from.
        spoken: what to embed: the focus, with a single named author turned into "I", since turns are in the first person.
        authors: the known authors whom it names.
        names: the keys of the other names in it, as ``people.find_names`` gives them.
        tokens: stems to look up, distinct, in order, without stop words, question words and author names.
        segments: the tokens of each of its parts, where it has at least two (``what did I pay for A and B``).
        wants: what it is after.
    """

    text: str
    focus: str
    spoken: str
    authors: frozenset[str]
    names: tuple[str, ...]
    tokens: tuple[str, ...]
    segments: tuple[tuple[str, ...], ...]
    wants: frozenset[Want]


def analyse(text: str, authors: Collection[str] = ()) -> Query:
    """Read a query. ``authors`` are the names of those who speak in the scope (not roles such as ``user``)."""
    named = frozenset(author for author in authors if _names(text, author))
    focus = _focus(text)
    plain = {stem(word) for author in named for word in words(author)} | {
        stem(form.lower()) for author in named for form in _forms(text, author)
    }
    found = _tokens(focus, plain) or _tokens(text, set()) or tuple(dict.fromkeys(map(stem, words(text))))
    spoken = _first_person(focus, text, next(iter(named))) if len(named) == 1 else focus
    parts = _parts(focus)
    segments = (
        tuple(dict.fromkeys(tokens for part in parts if (tokens := _tokens(part, plain)))) if len(parts) > 1 else ()
    )
    names = _others(text, named)
    return Query(text, focus, spoken, named, names, found, segments if len(segments) > 1 else (), _wants(text))


def verbatim(text: str, _authors: Collection[str] = ()) -> Query:
    """Read a text as it stands: of a task nothing is wrapping, and what is most like it is to be found, not what answers it."""
    found = _tokens(text, set()) or tuple(dict.fromkeys(map(stem, words(text))))
    return Query(text, text, text, frozenset(), (), found, (), frozenset())


# --- words ---

_ASKING = """
about all am any anything be did do does ever every few get give got have has had how if it list long many me much my
no not other some something tell than that them then they up what when where which who whom whose why
"""
QUESTION_WORDS = frozenset(_ASKING.split())
"""Words that shape a question and say nothing about its answer."""


def _tokens(text: str, without: set[str]) -> tuple[str, ...]:
    dropped = STOP_WORDS | QUESTION_WORDS
    stems = (stem(word) for word in words(text) if word not in dropped)
    return tuple(dict.fromkeys(token for token in stems if token not in without))


# --- people ---

_READ = 10_000
"""Names are read from so many characters of a query."""


_CAPITALISED = re.compile(r"\b[A-Z][\w'’]*")
_OWNING = re.compile(r"['’]s$")


def _forms(text: str, author: str) -> list[str]:
    """The capitalised words of a text that stand for an author: any part of the name, or three letters or more of its start."""
    parts = author.split()
    forms = []
    for word in _CAPITALISED.findall(text):
        bare = _OWNING.sub("", word)
        short = len(bare) >= 3 and parts[0].lower().startswith(bare.lower()) and bare.lower() not in STOP_WORDS
        if short or any(bare.lower() == part.lower() for part in parts):
            forms.append(bare)
    return forms


def _names(text: str, author: str) -> bool:
    return bool(author.strip()) and (
        bool(_forms(text, author)) or re.search(rf"(?<!\w){re.escape(author)}(?!\w)", text, re.I) is not None
    )


def _others(text: str, authors: Collection[str]) -> tuple[str, ...]:
    if text.islower():
        return ()
    from holdfast.encode.people import find_names  # compiles a grammar: when a query may hold a name

    known = {form.casefold() for author in authors for form in (author, *author.split())}
    return tuple(name for name in find_names(text[:_READ]) if name.casefold() not in known)


def _first_person(focus: str, text: str, author: str) -> str:
    forms = {author, author.split()[0], *_forms(text, author)}
    name = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    said = re.sub(rf"\b(?:{name})['’]s\b", "my", focus, flags=re.I)
    said = re.sub(rf"\b(?:{name})\b", "I", said, flags=re.I)
    said = re.sub(r"\b(?:her|his)\b", "my", said)
    return re.sub(r"\bdoes I\b", "do I", said)


# --- wrapping ---

_TALK = r"(?:conversations?|chats?|discussions?|sessions?|messages|history|exchanges)"
_WRAPPING = [
    re.compile(pattern, re.I)
    for pattern in (
        r"^(?:hi|hey|hello)[,!.]? ",
        r"\b(?:please )?(?:mention|list|include|give|name) only and only \w+ \w+\b[.!]?",
        r"\b(?:throughout|across|over|in|during|from|based on) (?:all )?(?:of )?(?:our|my|the|these|those) "
        rf"(?:previous |past |earlier |entire |whole |various |multiple |different )?{_TALK}(?: so far)?\b",
        r"\bin (?:chronological |the (?:correct|right) )?order\b|\bso far\b|\bover time\b|\bthroughout$",
        r"\b(?:can|could|would|will) you (?:please )?(?:help me )?(?:to )?(?:give|provide|list|walk|tell|show|summari[sz]e"
        r"|explain|describe|remind|suggest|recommend|share)(?: me)?(?: through| with| about| of)?(?: a| an| the| some)?"
        r"(?: comprehensive| complete| detailed| brief| quick| full| clear| thorough)*"
        r"(?: summary| overview| recap| list| order| timeline| sequence)?(?: of| in which| about| for)?(?: how| what)?\b",
        r"\b(?:the )?order in which\b",
        r"\bi (?:have )?(?:brought|mentioned|discussed|talked|raised|asked)(?: up| about)? (?:the )?(?:different|various|all"
        r"|several)? ?(?:aspects|topics|parts|features|points|things|steps|stages) (?:of|about|related to|regarding)\b",
        r"\bi (?:brought up|talked about|mentioned)\b",
        r"\bi(?:'m| am| was|'ve been) (?:just |currently )?(?:thinking|looking|going)(?: back)?(?: about| at| through| of| to)?"
        rf" (?:our|my) (?:previous |last |earlier |past )?{_TALK}(?: about| on| regarding)?\b",
        r"\b(?:do you have|have you got|any|some) (?:any )?(?:suggestions?|tips|recommendations?|advice|ideas)"
        r"(?: for| on| about| of)?\b",
        r"\bi (?:wanted|want|would like|'d like) to (?:follow up on|know|ask|check)\b",
        r"\byou (?:told|mentioned to|suggested to) me\b",
    )
]


def _focus(text: str) -> str:
    rest = text
    for pattern in _WRAPPING:
        rest = pattern.sub(" ", rest)
    rest = " ".join(rest.split()).strip(" .?!,;:")
    # What is all wrapping has no core; then the wrapping is the question.
    return rest if len(words(rest)) >= 2 else text


_JOINT = re.compile(r",|;|\b(?:and|or|before|after|when|between|since|than|instead of|as well as|versus|vs)\b", re.I)
_QUOTED = re.compile(r"(?:(?<=\s)|^)[\"“'‘]([^\"“”]{3,80}?)[\"”'’](?=\W|$)")


def _parts(focus: str) -> list[str]:
    return [part for part in (*_JOINT.split(focus), *_QUOTED.findall(focus)) if part.strip()]


# --- intent ---

_TIME = re.compile(
    r"\bwhen\b|\b(?:what|which) (?:date|day|month|year|time)\b|\bhow long ago\b|\bhow many (?:days|weeks|months|years)\b"
)
_ORDER = re.compile(
    r"\border\b[^\n]{0,200}?(?:brought|mention|discuss|talk|came|raised)|\bthe order (?:in|of)\b|\bin order\b|chronolog|"
    r"\bsequence of\b"
)
_SUMMARY = re.compile(r"summar|\boverview\b|\brecap\b")
_WHOLE = re.compile(r"\bacross (?:our|all|my)\b|\bthroughout\b|\bover time\b|\bso far\b")
_COUNTED = re.compile(r"\bhow (?:many|much)\b")
_ASSISTANT = re.compile(
    r"\b(?:did|have|had) you\b|\byou (?:had |have |also |previously |just )?(?:told|said|mentioned|suggested|recommended|gave"
    r"|given|provided|listed|advised|explained|created|described|wrote|came up|shared|helped)\b|\bremind me\b"
    r"|\bour (?:previous|last|earlier) (?:conv|chat|disc)|\byour (?:suggestion|recommendation|advice|previous|explanation)"
)
_REQUEST = re.compile(
    r"^(?:can|could|would|will) you\b|^(?:please|help|suggest|recommend|show|explain|give|write|create|tell|describe|walk)\b"
    r"|\bany (?:tips|suggestions|advice|ideas|recommend)|\b(?:what|which|how) (?:would|should|could|can|do) (?:you|i|we)\b"
    r"|\bhow (?:can|should|do|would|to)\b|\bwhat (?:are|is) (?:some|the (?:best|different|steps|common|main))\b|\bsuggest"
    r"|\brecommend|\b(?:i'm|i am) (?:planning|looking|trying|thinking|working)\b|\bdo you (?:think|have)\b"
    r"|^if i\b|\bif i\b|\bwhat if\b"
)
_LOOKING_BACK = re.compile(r"^(?:did|have|has|when|where|who)\b|\bdid i\b|\bhave i\b|\bremind\b")


def _wants(text: str) -> frozenset[Want]:
    said = text.lower().replace("’", "'").strip()
    found = set()
    if _TIME.search(said):
        found.add(Want.TIME)
    if _ORDER.search(said):
        found.add(Want.ORDER)
    elif _SUMMARY.search(said) or (_WHOLE.search(said) and not _COUNTED.search(said)):
        found.add(Want.SUMMARY)
    if _ASSISTANT.search(said):
        found.add(Want.ASSISTANT)
    if (
        not found & {Want.ORDER, Want.SUMMARY, Want.ASSISTANT}
        and _REQUEST.search(said)
        and not _LOOKING_BACK.search(said)
    ):
        found.add(Want.REQUEST)
    return frozenset(found)
