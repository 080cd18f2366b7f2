"""How the rules of ``claim_rules`` are read: functions from a match, and the text that it stands in, to claims.

The groups of a pattern say what to read: ``who`` is the subject, ``v`` the value, ``a`` what it is a value of, ``kin`` a kin or
a pet, ``unit`` and ``currency`` what a number counts. ``base`` is a verb without an ending, which goes with "I" and "we" only.
A reader may still find that the words are no claim, and then gives none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from holdfast.cube import Kind
from holdfast.encode.dates import Grain, find_dates
from holdfast.encode.people import CALENDAR_WORDS, COMMON_WORDS
from holdfast.encode.said import Said
from holdfast.encode.slots import Claim

Reader = Callable[[re.Match[str], Said], Iterable[Claim]]

# --- words ---


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NUMBERS = {
    word: str(number)
    for number, word in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), 1)
}
_ONE_ONLY = _words("mother father mom mum dad wife husband partner girlfriend boyfriend fiance fiancé fiancee fiancée")
_NOT_NOUNS = _words(
    "it its that this these those the your you how what when where who why to being seeing hearing her his him hers them my "
    "our their all every each both everything anything something nothing us me having doing getting one ones so such there "
    "here if because and or not no too very just more most much many some any i we he she they is are was were be been am do "
    "does did have has had can could will would should up out about around i'm i've it's that's we're you're they're "
    "especially particularly even mostly mainly plus yes well including"
)
_NO_TOPICS = _words(
    "part thing things moment memory memories way one time times place spot people person bit ones day reason goal idea kind "
    "sort type stuff"
)
_NO_DEEDS = _words(
    "to think say see hear know be get do have make keep seeing hearing knowing when a an the also better best more most"
)
_WITHIN_DEEDS = _words("to the and or out up about around")
_NOT_PART = _words("current currently new latest recent present now the our my")

# --- whom it is about, and whether the words will do ---


def _subject(match: re.Match[str], turn: Said) -> str | None:
    """Whom a statement is about: the speaker, one of their kin or pets, or somebody by name; None for anybody else."""
    who = match.groupdict().get("who")
    if who is None or who.lower() in ("i", "we", "my", "our"):
        return turn.author
    if who.lower().startswith("my "):
        return f"{turn.author}'s {who[3:].lower()}"
    return who if _is_name(who) else None


def _is_name(text: str) -> bool:
    first = re.split(r"[ ,]", text.casefold().removeprefix("the "), maxsplit=1)[0]
    return first not in COMMON_WORDS and first not in CALENDAR_WORDS


def is_noun(text: str) -> bool:
    """Whether a few words are the name of a thing: none of them points, asks or is a verb that carries the sentence."""
    words = re.findall(r"[\w’']+", text.casefold())
    return 0 < len(words) <= 6 and _NOT_NOUNS.isdisjoint(words)


def is_liked(text: str) -> bool:
    """Whether a few words name a thing or something that one does: "jazz", "hiking", "to listen to music"."""
    words = re.findall(r"[\w’']+", text.casefold())
    doing = words[1:] if words[:1] == ["to"] else words
    told = 0 < len(doing) <= 10 and doing[0] not in _NO_DEEDS
    if not told or _PREPOSITIONS.fullmatch(doing[0]) or _PREPOSITIONS.fullmatch(doing[-1]):
        return False
    return (_NOT_NOUNS - _WITHIN_DEEDS).isdisjoint(doing)


def _clean(text: str) -> str:
    return text.strip(" \"“”'‘’,")


# --- since when ---


def since(match: re.Match[str], turn: Said) -> datetime | None:
    """When a state began, where the sentence says "since ..." or "for ... years"."""
    ranges = (one for one in turn.dates(match.start(), match.end()) if one.grain is Grain.RANGE)
    return next(
        (one.first for one in ranges if one.text[:5].lower() in ("since", "for a") or one.text[:4].lower() == "for "),
        None,
    )


def at_change(match: re.Match[str], turn: Said) -> datetime | None:
    """When a change happened, where the sentence holds a time expression: the one that follows soonest, or the last before."""
    dates = turn.dates(match.start(), match.end())
    after = [one for one in dates if one.start >= match.start()]
    chosen = after[0] if after else dates[-1] if dates else None
    # A change that was told has happened: the unit it fell into may reach past the telling.
    return None if chosen is None or chosen.first > turn.when else chosen.first


def _never(_match: re.Match[str], _turn: Said) -> datetime | None:
    """A state that holds when it is told; since when, nobody says."""
    return None


# --- any attribute ---


def says(
    rule: str,
    attribute: str,
    affirms: str = "",
    denies: str = "",
    *,
    functional: bool = False,
    listed: bool = False,
    kind: str = Kind.FACT,
    fits: Callable[[str], bool] = _is_name,
    begins: Callable[[re.Match[str], Said], datetime | None] = _never,
) -> Reader:
    """A reader for one value (several where ``listed``) of an attribute; where only ``denies`` is given, of a denial."""

    def read(match: re.Match[str], turn: Said) -> Iterator[Claim]:
        subject = _subject(match, turn)
        if subject is None or (match.groupdict().get("base") and subject != turn.author):
            return
        if kind == Kind.PREFERENCE and turn.is_relative(match.start()):
            return
        for value, end in _items(match) if listed else [(_clean(match["v"]), match.end("v"))]:
            if not value or not fits(value):
                return
            yield Claim(
                subject=subject,
                attribute=attribute,
                value=value,
                text=(affirms or denies).format(s=subject, v=value),
                span=(match.start(), end),
                rule=rule,
                kind=kind,
                polarity=bool(affirms),
                functional=functional,
                canonical=_NUMBERS.get(value.lower()),
                valid_from=begins(match, turn),
            )

    return read


def _items(match: re.Match[str]) -> Iterator[tuple[str, int]]:
    """The values in a list, with where each ends; one value where it is not sure how the words belong together."""
    parts = [*_ITEM.finditer(match["v"])]
    last = parts[-1].group().split()
    # "Shooting near lakes and hills", "action and comedy films": not two things that stand alone.
    shared = len(parts) == 2 and " " not in parts[0].group() and len(last) > 1 and not last[0].endswith("ing")
    if _PREPOSITIONS.search(match["v"]) or (shared and "," not in match["v"]):
        whole = match["v"].split(",")[0]
        yield _clean(whole), match.start("v") + len(whole)
        return
    for part in parts:
        yield _clean(part.group()), match.start("v") + part.end()


_ITEM = re.compile(r"(?<![^ ,])(?!(?:and|or) )[^ ,](?:(?!,| and | or ).)*")
_PREPOSITIONS = re.compile(
    r"\b(?:to|in|on|at|with|for|of|from|by|near|around|about|into|over|under|through|without|like)\b"
)


# --- attributes that need care ---


def read_kin_or_pet(match: re.Match[str], turn: Said) -> Iterator[Claim]:
    """The name of a kin or a pet: one value for a wife, any number for a friend or a dog."""
    kin, name = match["kin"].lower(), _clean(match["v"])
    if not _is_name(name):
        return
    single = kin.split()[-1] in _ONE_ONLY
    yield Claim(
        subject=turn.author,
        attribute=f"{kin}'s name",
        value=name,
        text=f"{turn.author}'s {kin} is called {name}",
        span=match.span(),
        rule="kin or pet",
        functional=single,
    )


def read_favourite(match: re.Match[str], turn: Said) -> Iterator[Claim]:
    """What somebody likes best of a kind of things; one of several favourites leaves room for others."""
    subject, topic, value = _subject(match, turn), match["a"].lower(), _clean(match["v"])
    quoted = match["v"].startswith(('"', "“"))
    if subject is None or topic.split()[-1] in _NO_TOPICS or not (quoted or is_noun(value)):
        return
    yield Claim(
        subject=subject,
        attribute=f"favourite {topic}",
        value=value,
        text=f"{subject}'s favourite {topic} is {value}",
        span=match.span(),
        rule="favourite",
        kind=Kind.PREFERENCE,
        functional=not turn.text[: match.start()].lower().endswith(" of "),  # "one of my favourite dishes is ..."
    )


def read_age(match: re.Match[str], turn: Said) -> Iterator[Claim]:
    """An age in years, within what people reach."""
    subject, years = _subject(match, turn), match["v"]
    if subject is None or not 0 < int(_NUMBERS.get(years.lower(), years)) < 120:
        return
    yield Claim(
        subject=subject,
        attribute="age",
        value=years,
        text=f"{subject} is {years} years old",
        span=match.span(),
        rule="age",
        unit="years",
        functional=True,
        canonical=_NUMBERS.get(years.lower()),
    )


def read_age_difference(match: re.Match[str], turn: Said) -> Iterator[Claim]:
    """How much older or younger than somebody else; as a number, "younger" is negative."""
    subject, other = _subject(match, turn), match["other"]
    if subject is None:
        return
    other = (
        turn.author if other == "me" else f"{turn.author}'s {other[3:].lower()}" if other.startswith("my ") else other
    )
    number, way, unit = _NUMBERS.get(match["v"].lower(), match["v"]), match["way"], match["unit"].rstrip("s") + "s"
    yield Claim(
        subject=subject,
        attribute=f"{way} than {other}",
        value=match["v"],
        text=f"{subject} is {match['v']} {unit} {way} than {other}",
        span=match.span(),
        rule="age difference",
        unit=unit,
        functional=True,
        canonical=number,
        extra={"other": other, "difference": int(number) if way == "older" else -int(number)},
    )


def read_birthday(match: re.Match[str], turn: Said) -> Iterator[Claim]:
    """A birthday: the day of the year where a day is named, else the month or the year in its words."""
    subject = _subject(match, turn)
    day = next((one for one in turn.dates(match.start(), match.end()) if 0 <= one.start - match.end() <= 4), None)
    if subject is None or day is None or day.grain not in (Grain.DAY, Grain.MONTH, Grain.YEAR):
        return
    yield Claim(
        subject=subject,
        attribute="birthday",
        value=day.text,
        text=f"{subject}'s birthday is {day.text}",
        span=(match.start(), day.end),
        rule="birthday",
        functional=True,
        canonical=f"{day.first:%m-%d}" if day.grain is Grain.DAY else None,
    )


def read_appointment(match: re.Match[str], turn: Said) -> Iterator[Claim]:
    """When something is due or takes place; it holds from when it is told until it is moved."""
    when = next((one for one in turn.dates(match.start(), match.end()) if 0 <= one.start - match.end() <= 1), None)
    subject, what = _subject(match, turn), " ".join(match["a"].lower().split())
    if when is not None and when.last <= turn.when and _MOVES.search(match.group()):
        # "Was moved to April 15" looks back, but not to a past April.
        due = find_dates(f"due {when.text}", turn.when)
        when = replace(when, first=due[0].first, last=due[0].last) if due and due[0].last > turn.when else None
    if subject is None or when is None or when.last <= turn.when:
        return
    if not is_noun(what) or match.end() == match.end("a"):  # "the launch tomorrow" does not say whose
        return
    yield Claim(
        subject=subject,
        attribute=what,
        value=when.text,
        text=f"{subject}'s {what} is {when.text}",
        span=(match.start(), when.end),
        rule="appointment",
        kind=Kind.EVENT,
        # One has many meetings; "the meeting" alone names none of them, unless it is said to move.
        functional=" " in what or _MOVES.search(match.group()) is not None,
        canonical=f"{when.first.isoformat()}/{when.last.isoformat()}",
        extra={"when": [when.first.isoformat(), when.last.isoformat(), str(when.grain)]},
    )


def read_quantity(match: re.Match[str], turn: Said) -> Iterator[Claim]:
    """A number with a unit that something has now; one that it had before is no claim about today."""
    subject, what = _subject(match, turn), " ".join(match["a"].lower().split())
    words = [word for word in what.split() if word not in _NOT_PART]
    unit = match["unit"] or match["currency"]
    if subject is None or not unit or not words or words[0] in _NO_TOPICS or not is_noun(" ".join(words)):
        return
    if match["which"] and _PREPOSITION.search(turn.text[max(0, match.start() - 12) : match.start()]):
        return  # "the lag in my app, which is 500 ms": not the app's
    number = match["v"].replace(",", "")
    what = " ".join(words)
    shown = f"{match['currency'] or ''}{match['v']}{'' if match['unit'] in (None, '%', 'ms', 's') else ' '}{match['unit'] or ''}"
    yield Claim(
        subject=subject,
        attribute=what,
        value=match["v"],
        text=f"{subject}'s {what} is {shown}",
        span=match.span(),
        rule="quantity",
        unit=unit,
        functional=True,
        canonical=number,
    )


def read_count(match: re.Match[str], turn: Said) -> Iterator[Claim]:
    """How many children, siblings or pets somebody has."""
    subject, number, what = _subject(match, turn), match["v"], match["a"].lower()
    if subject is None:
        return
    yield Claim(
        subject=subject,
        attribute=f"number of {what}",
        value=number,
        text=f"{subject} has {number} {what}",
        span=match.span(),
        rule="count",
        functional=True,
        canonical=_NUMBERS.get(number.lower()),
    )


_MOVES = re.compile(r" (?:moved|rescheduled|pushed|postponed|shifted|changed|brought|extended|delayed|due)\b")
_PREPOSITION = re.compile(r"\b(?:in|of|for|on|at|with|to|from|by|within|across) $")
