"""What is drawn from words: times, names, claims, standing wishes, a model's operations, statements."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import TYPE_CHECKING, Any

from fuzz.base import CUT, ID, NOW, Target, law, parts, refusable, said
from holdfast.cube import Channel, Cube, Kind, Origin, from_micros, to_micros
from holdfast.encode.base import Encoder, Experience
from holdfast.encode.claims import ClaimEncoder, find_claims
from holdfast.encode.dates import find_dates
from holdfast.encode.junk import why_nothing
from holdfast.encode.people import find_names
from holdfast.encode.slots import Claim, plain
from holdfast.encode.standing import StandingEncoder, find_standing
from holdfast.manage.sheaf import Sheaf
from holdfast.manage.statements import learnt_at, statement_of
from holdfast.store.base import Op, Operation
from holdfast.store.rows import check, pack

if TYPE_CHECKING:
    from holdfast.encode.llm import LanguageModelEncoder

_REFERENCES = (
    NOW, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, tzinfo=timezone(-timedelta(hours=12))), datetime(2024, 2, 29, 0, 0),
)  # fmt: skip


def dates(text: str) -> None:
    """Times stand in the text, in order, and last; whenever it is said."""
    for reference in _REFERENCES:
        end = 0
        for span in find_dates(text, reference):
            law(span.text == text[span.start : span.end] and span.start >= end, "a time stands in the text", span)
            law(span.first < span.last, "a time lasts", span)
            if reference.tzinfo is UTC:  # as a memory has it
                law(
                    all(from_micros(to_micros(when)) == when for when in (span.first, span.last)),
                    "a time can be kept",
                    span,
                )
            end = span.end


def names(text: str) -> None:
    """Names are keys, each once, and stay what they are."""
    found = find_names(text)
    law(len(set(found)) == len(found) and all(found), "a name is told once", found)
    law(plain(plain(text)) == plain(text), "what is plain stays", text, plain(text), plain(plain(text)))


def claims(text: str) -> None:
    """A claim stands in the turn, and what is proposed of it can be kept, adds no trust and leaves the scope alone."""
    told, before = parts(text, 2)
    for found in (find_claims(told, "Ana", NOW), find_standing(told, "Ana", NOW)):
        for claim in found:
            _is_claim(claim, told)
    why_nothing(told)
    for encoder in (ClaimEncoder(), StandingEncoder()):
        earlier = encoder.encode(Experience((said(before).with_(id=ID[:-1] + "2"),), NOW))
        known = tuple(operation.cube for operation in earlier if operation.op is Op.ADD and operation.cube is not None)
        for channel in (Channel.USER, Channel.WEB, Channel.ASSISTANT, Channel.RECALLED):
            turn = said(told, channel, "Ana", "web:a").with_(origin=Origin(channel, "Ana", trust=0.5, taint=("web:a",)))
            _proposed(encoder, turn, known)


def _is_claim(claim: Claim, text: str) -> None:
    start, end = claim.span
    law(0 <= start < end <= len(text), "a claim stands in the turn", claim)
    law(bool(claim.value.strip() and claim.subject.strip() and claim.text.strip()), "a claim says something", claim)


def _proposed(encoder: Encoder, turn: Cube, known: tuple[Cube, ...]) -> list[Operation]:
    operations = encoder.encode(Experience((turn,), NOW, known=known))
    allowed = {cube.id for cube in known}
    for operation in operations:
        cube = operation.cube
        law(operation.op is not Op.DELETE, "nothing is retracted on somebody's word", operation)
        if cube is None:
            continue
        law(turn.origin.channel not in (Channel.ASSISTANT, Channel.RECALLED), "a model's guess is no fact", operation)
        law(cube.scope == turn.scope and cube.status == turn.status, "a fact lies where the turn lies", operation)
        refusable(lambda some=cube: (check(some), pack(some)))
        if operation.op is Op.UPDATE:
            law(cube.id in allowed, "only what is known can end", operation)
        else:
            law(
                turn.ref in cube.origin.derived_from and cube.origin.trust <= turn.origin.trust,
                "a fact names its turn",
                cube,
            )
            law(cube.origin.channel is Channel.DERIVED, "a fact is derived", cube)
            allowed.add(cube.id)
        statement_of(cube, NOW)
    return operations


def model(text: str) -> None:
    """Whatever a model answers, only what stands in the turn is kept, only what is known of the same slot ends."""
    if importlib.util.find_spec("openai") is None or importlib.util.find_spec("pydantic") is None:
        return
    turn = said("I live in Lisbon and work at Acme, since May 2025")
    held = _known()
    for first, second in ((text, text), ("no JSON", text)):
        encoder = _encoder(first, second)
        operations = _proposed(encoder, turn, held)
        for operation in operations:
            law(
                "Lisbon" not in operation.reason and "Acme" not in operation.reason,
                "a reason quotes nothing",
                operation,
            )
            if operation.op is Op.ADD and operation.cube is not None:
                begin, end = operation.cube.data["span"]
                law(bool(turn.text[begin:end].strip()), "a fact is quoted", operation)
        law(encoder.usage.calls <= 2, "one repair", encoder.usage)


@cache
def _known() -> tuple[Cube, ...]:
    found = ClaimEncoder().encode(Experience((said("I live in Porto").with_(id=ID[:-1] + "3"),), NOW))
    return tuple(operation.cube for operation in found if operation.cube is not None)


def _encoder(*answers: str) -> LanguageModelEncoder:
    from holdfast.encode.llm import LanguageModelEncoder

    class Scripted(LanguageModelEncoder):
        """Answers what it was given."""

        left = iter(answers)

        def _complete(self, messages: Any) -> str:
            json.dumps(messages)
            self._count(calls=1)
            return next(self.left)

    return Scripted("model", base_url="http://localhost:9/v1", api_key="-")


def statement(text: str) -> None:
    """Whatever stands in a memory's data, it is a statement that can be compared, or none."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(data, dict):
        return
    cube = refusable(lambda: replace(said("a fact"), kind=Kind.FACT, data=data))
    if cube is None:
        return
    law(learnt_at(cube, NOW).tzinfo is not None, "a statement was learnt some time", cube)
    found = statement_of(cube, NOW)
    if found is not None:
        hash(found.content)
        Sheaf([found, replace(found, polarity=True, value="another", ref=None)]).check()
    for encoder in (ClaimEncoder(), StandingEncoder()):
        encoder.encode(
            Experience(
                (said("I live in Porto. I prefer tea over coffee. Always answer in French."),), NOW, known=(cube,)
            )
        )


_DATES = (
    "last ", "next ", "the ", "week", "weekend", "Monday", "fri", "May", " 3rd", "31", " of ", "February", "2024", "1600", "2199",
    "3 ", "a few ", "days ", "decades ", "ago", "in ", "from now", "since ", "until ", "between ", " and ", " to ", "-", ":",
    "noon", "9:30 pm", "2024-02-30", "T10:00:00+23:59", "12/31/1999", "31.12.1999", "before ", "after ", "early ", "first ",
    "summer ", "yesterday", "tonight", "the other day", "for ", " years", " now", "999 ", "'90s", "will ", "went ", ". ", " ",
    "\n", "of ",
)  # fmt: skip
_CLAIMS = (
    "I ", "I'm ", "My ", "my wife ", "Ana ", "live in ", "Lisbon", "moved ", "from ", "to ", "Porto", "work at ", "Acme & Co",
    "as a ", "nurse", "am ", "allergic to ", "nuts and milk", "love ", "prefer ", "tea ", "over ", "coffee", "favourite ", "film ",
    "is ", "birthday is ", "May 3rd", "deadline ", "moved to ", "turned ", "34", "years old", "have two ", "children", "Always ",
    "never ", "answer in ", "French", "from now on", "when I ask", ", ", ". ", "? ", "\n", "if ", "not ", '"', "“", "```", "> ",
    "no longer ", CUT, "the price of the house is ", "1,200", " euros", "%", "'s ", "’", "don't ", "please ", "and ", "or ",
)  # fmt: skip
_CHANGE = (
    '"op":"add"', '"op":"UPDATE"', '"op":"delete"', '"op":"NOOP"', '"turn":1', '"turn":-1', '"turn":' + "9" * 30, '"target":null',
    '"target":"k1"', '"kind":"fact"', '"kind":"instruction"', '"subject":"Ana"', '"subject":" "', '"attribute":"residence"',
    '"attribute":"employer"', '"value":"Lisbon"', '"value":"Porto"', '"value":"\u0345"', '"unit":null', '"unit":"km"',
    '"polarity":true', '"polarity":false', '"functional":true', '"functional":false', '"quote":"I live in Lisbon"', '"quote":""',
    '"quote":"work at Acme"', '"valid_from":null', '"valid_from":"2025-05-01"', '"valid_from":"soon"',
    '"valid_from":"0001-01-01T00:00:00+14:00"', '"valid_from":"9999-12-31T23:59:59-12:00"', '"valid_from":"9999-12-31"',
    '"value":"\\ud800"', '"x":1',
)  # fmt: skip
_ADDED = '{"op":"add","turn":1,"target":null,"kind":"fact","subject":"Ana","attribute":"residence","value":"Lisbon","unit":null,"polarity":true,'
_ADDED += '"functional":true,"quote":"I live in Lisbon","valid_from":null'
_ANSWER = (
    *(f"{_ADDED},{member}}}" for member in _CHANGE),
    *('{"op":"none","turn":1}', "7", "null", "[" * 300, '"', "}", "]", ",", "```", "\n", "9" * 5000, "1e400"),
)
_DATA = (
    '"subject":"Ana"', '"subject":7', '"attribute":"age"', '"attribute":"same as"', '"value":"180 cm"', '"value":1e400',
    '"value":true', '"value":[]', '"canonical":"1,200"', '"canonical":{}', '"unit":"km"', '"unit":7', '"polarity":"negative"',
    '"polarity":[]', '"functional":true', '"functional":"no"', '"said_at":"2026-01-01"', '"said_at":5',
    '"said_at":"0001-01-01T00:00:00+14:00"', '"slot":"ana | residence"', '"slot":{}', '"span":[1,2]', '"span":"ab"',
    '"value":"Porto"', '"attribute":"residence"', '"key":7', '"ended_by":"x"', '"value":' + "9" * 400, '"value":-0.0',
    '"value":"' + "9" * 400 + '"', "null", "{", '"value":"-1,234.50 miles"', '"value":"\\ud800"', '"subject":"the"',
    '"unit":"the"', '"value":NaN', '"canonical":-1e308', '"value":"\u0345"',
)  # fmt: skip

TARGETS = (
    Target("dates", dates, _DATES),
    Target(
        "names",
        names,
        (
            "Ana ",
            "of ",
            "van ",
            "the ",
            "O'Neil",
            "’s",
            "'s'",
            "@ana",
            "“",
            "”",
            "```",
            "://",
            "İ",
            "ß",
            "ſ",
            ". ",
            "\n",
            "1",
        ),
    ),
    Target("claims", claims, _CLAIMS),
    Target("model", model, _ANSWER, ('{"reasoning":"r","operations":[', ",", "]}")),
    Target("statement", statement, _DATA, ("{", ",", "}")),
)
