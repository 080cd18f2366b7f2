"""Time expressions in a text, resolved to half-open intervals against a reference time.

A memory is found by when it happened, and a claim is true from some day on; both need "last Friday" as a date. Where the
expressions are is decided here, by a grammar of English phrases, because a parser let loose on running text takes "may",
"sat", "second" and "now" for dates, and one that is asked about "this morning" reads the clock. What a date in words or a
clock time means is left to ``parsedatetime``; the rest is calendar arithmetic. An expression becomes the calendar unit that
it names ("last week" is a week from Monday to Monday), since pretending to know the minute would be false precision.
Expressions in other languages are not found, except numeric dates.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum

import parsedatetime


class Grain(StrEnum):
    """The unit that an expression names; ``RANGE`` is a stretch that is no single unit."""

    MINUTE = "minute"
    HOUR = "hour"
    PART = "part"
    DAY = "day"
    WEEKEND = "weekend"
    WEEK = "week"
    MONTH = "month"
    SEASON = "season"
    YEAR = "year"
    DECADE = "decade"
    RANGE = "range"


@dataclass(frozen=True, slots=True)
class Span:
    """A time expression: ``text`` is exactly ``source[start:end]``; it means ``first <= t < last``."""

    start: int
    end: int
    text: str
    first: datetime
    last: datetime
    grain: Grain


def find_dates(text: str, reference: datetime) -> tuple[Span, ...]:
    """Every time expression in a text, in order, as it was meant at ``reference`` (naive: UTC).

    The intervals carry the reference's time zone. A date without a year, or a weekday without "last" or "next", lies
    before or after the reference by the tense around it, and is the nearest one where the tense does not tell. Seasons
    are those of the northern hemisphere; weeks begin on Monday. Never reads the clock.
    """
    zone = reference.tzinfo or UTC
    now = reference.replace(tzinfo=None)
    spans: list[Span] = []
    position = 0
    for start in _openings(text):
        match = _SCANNER.match(text, start) if start >= position else None
        if match is None or text[match.end() : match.end() + 1].isalnum():
            continue
        found = _resolve(match.group(), _Scene(text, start, match.end(), now, zone))
        if found:
            first, last, grain = found
            position = match.end()
            spans.append(
                Span(start, position, match.group(), first.replace(tzinfo=zone), last.replace(tzinfo=zone), grain)
            )
    return tuple(spans)


# --- where to look ---


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_MONTHS = _words("january february march april may june july august september october november december")
_WEEKDAYS = _words("monday tuesday wednesday thursday friday saturday sunday")
_SEASONS = {"spring": 3, "summer": 6, "fall": 9, "autumn": 9, "winter": 12}
_COUNTS = {
    word: n for n, word in enumerate(_words("zero one two three four five six seven eight nine ten eleven twelve"))
}
_COUNTS |= {"a": 1, "an": 1, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50}
_VAGUE = {"couple": (1, 3), "few": (2, 5), "several": (3, 7)}  # how many units away, at least and at most
_HINTS = frozenset(
    (
        *_words(
            "ago back today tonight yesterday tomorrow morning evening afternoon night week weeks weekend weekends"
        ),
        *_words("month months year years decade decades day days minute minutes hour hours"),
        *_words("jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed weds thu thur thurs fri sat sun"),
        *(*_MONTHS, *_WEEKDAYS, *_SEASONS),
    )
)
_OPENERS = frozenset(
    (
        *_words(
            "the a an this these my last next past previous coming first second third fourth final early mid middle late"
        ),
        *_words(
            "beginning start end between from since until till in for over during on by before after of around through"
        ),
        *_words("throughout"),
        *(*_HINTS, *_COUNTS, *_VAGUE),
    )
)
_TOKEN = re.compile(r"[a-z]{3,9}")
_DIGIT = re.compile(r"[0-9]")
_WORD = re.compile(r"\w+")
_REACH = 40  # characters between the first word of an expression and its telling one


def _openings(text: str) -> list[int]:
    """Where an expression could begin: at a word that opens one, soon before a word of time or a number.

    Most texts hold no such word; finding that out costs microseconds.
    """
    if _HINTS.isdisjoint(_TOKEN.findall(text.lower())) and not _DIGIT.search(text):
        return []
    starts: list[int] = []
    hint = len(text) + _REACH
    for word in reversed([*_WORD.finditer(text)]):
        token = word.group().lower()
        if token in _HINTS or "0" <= token[0] <= "9":
            hint = word.start()
        elif token not in _OPENERS or hint - word.start() > _REACH:
            continue
        starts.append(word.start())
    return starts[::-1]


# --- the grammar: how expressions look ---

_MONTH = (
    r"(?:january|february|march|april|may|june|july|august|september|october|november|december|"
    r"(?:jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\b\.?)"
)
_FULL_WEEKDAY = rf"(?:{'|'.join(_WEEKDAYS)})"
_SHORT_WEEKDAY = r"(?:mon|tues?|weds?|thu(?:rs?)?|fri|sat|sun)\b\.?"
_WEEKDAY = rf"(?:{_FULL_WEEKDAY}|{_SHORT_WEEKDAY})"
_SEASON = rf"(?:{'|'.join(_SEASONS)})"
_YEAR = r"(?:1[6-9]|20|21)[0-9]{2}(?![0-9])"
_NTH = r"[0-3]?[0-9](?:st|nd|rd|th)"
_PART = r"(?:morning|afternoon|evening|night)"
_CLOCK = r"(?:[0-2]?[0-9](?::[0-5][0-9])?\s?(?:am|pm|a\.m\.|p\.m\.)|[0-2]?[0-9]:[0-5][0-9]|noon|midnight)"
_COUNT = rf"(?:[0-9]{{1,3}}|{'|'.join(_COUNTS)}|(?:a\s+)?couple(?:\s+of)?|(?:a\s+)?few|several)"
_UNIT = r"(?:minute|hour|day|night|week|weekend|month|year|decade)s?"
_ISO = (
    r"[12][0-9]{3}-[01][0-9]-[0-3][0-9]"
    r"(?:[T ][0-2][0-9]:[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?(?:Z|[+-][0-2][0-9]:?[0-5][0-9])?)?"
)
_NUMERIC = r"(?:[12][0-9]{3}/[01]?[0-9]/[0-3]?[0-9]|[0-3]?[0-9]/[0-3]?[0-9]/[12][0-9]{3}|[0-3]?[0-9]\.[01]?[0-9]\.[12][0-9]{3})"
_DAY_FIRST = rf"[0-3]?[0-9](?:st|nd|rd|th)?\s*(?:of\s+)?{_MONTH}(?:,?\s*{_YEAR})?"
_MONTH_FIRST = rf"{_MONTH}\s*(?:the\s+)?[0-3]?[0-9](?:st|nd|rd|th)?(?![0-9:%])(?:,?\s+{_YEAR})?"
_WRITTEN = rf"(?:{_ISO}|{_NUMERIC}|{_DAY_FIRST}|{_MONTH_FIRST})"
_MONTH_YEAR = rf"{_MONTH},?\s+(?:of\s+)?{_YEAR}"
_NAMED_DAY = (
    r"(?:(?:the\s+)?day\s+before\s+yesterday|(?:the\s+)?day\s+after\s+tomorrow|yesterday|today|tomorrow|tonight)"
)
_WHICH = r"(?:this\s+past|this\s+coming|last|this|next|past|coming|previous)"
_RELATIVE = rf"{_WHICH}\s+(?:weekend|week|month|year|decade|{_PART}|{_SEASON}|{_WEEKDAY}|{_MONTH})"
_POINT = (
    rf"(?:{_WRITTEN}|{_MONTH_YEAR}|{_NAMED_DAY}|{_RELATIVE}|{_SEASON}\s+(?:of\s+)?{_YEAR}|{_WEEKDAY}|{_MONTH}|{_YEAR})"
)
_TO = r"\s*(?:to|and|until|till|through|-|–|—)\s*"
# What may follow a bare year or day number: not the noun that it would be counting ("in 2000 words", "the 4th floor").
_ENDS = (
    r"(?=\s*(?:$|[.,;:!?)\]\"'’”–—-])|\s+(?:and|or|but|at|in|on|for|with|to|when|where|while|because|so|as|after|before|by|"
    r"until|from|i|i'm|i've|we|he|she|they|it|you|my|our|his|her|their|the|a|an|is|was|were|will|that|which|who)\b)"
)

_Interval = tuple[datetime, datetime, Grain]


@dataclass(frozen=True, slots=True)
class _Scene:
    """Where a phrase stands, and the naive local time at which it was said."""

    text: str
    start: int
    end: int
    now: datetime
    zone: tzinfo
    tense: int | None = None

    @property
    def direction(self) -> int:
        """-1 where the phrase is about the past, 1 where about the future, 0 where nothing tells."""
        return _tense(self.text, self.start, self.end) if self.tense is None else self.tense

    @property
    def today(self) -> datetime:
        return self.now.replace(hour=0, minute=0, second=0, microsecond=0)

    @property
    def monday(self) -> datetime:
        return self.today - timedelta(days=self.now.weekday())


# --- calendar arithmetic ---


def _days(first: datetime, count: int = 1, grain: Grain = Grain.DAY) -> _Interval:
    first = first.replace(hour=0, minute=0, second=0, microsecond=0)
    return first, first + timedelta(days=count), grain


def _shift(when: datetime, months: int) -> datetime:
    """The first moment of the month so many months away."""
    year, month = divmod(when.year * 12 + when.month - 1 + months, 12)
    return datetime(year, month + 1, 1)


def _months(year: int, month: int, count: int, grain: Grain) -> _Interval:
    first = datetime(year, month, 1)
    return first, _shift(first, count), grain


def _unit(when: datetime, unit: str, steps: int = 0) -> _Interval:
    """The calendar unit that holds a moment, or the one so many steps away from it."""
    monday = when - timedelta(days=when.weekday())
    if unit in ("day", "night"):
        return _days(when + timedelta(days=steps))
    if unit == "week":
        return _days(monday + timedelta(weeks=steps), 7, Grain.WEEK)
    if unit == "weekend":
        return _days(monday + timedelta(weeks=steps, days=5), 2, Grain.WEEKEND)
    if unit == "month":
        there = _shift(when, steps)
        return _months(there.year, there.month, 1, Grain.MONTH)
    if unit == "year":
        return _months(when.year + steps, 1, 12, Grain.YEAR)
    return _months((when.year // 10 + steps) * 10, 1, 120, Grain.DECADE)


def _move(when: datetime, unit: str, steps: int) -> datetime:
    """The same hour so many units away, on the last day of a month that is too short."""
    months = {"month": 1, "year": 12, "decade": 120}.get(unit)
    if months:
        first = _shift(when, steps * months)
        return when.replace(year=first.year, month=first.month, day=min(when.day, _length(first)))
    size = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "week": timedelta(7), "weekend": timedelta(7)}
    return when + steps * size.get(unit, timedelta(1))


def _length(month: datetime) -> int:
    return (_shift(month, 1) - month.replace(day=1, hour=0, minute=0, second=0, microsecond=0)).days


def _choose(around: list[_Interval], scene: _Scene) -> _Interval:
    """The one that the tense points to: the last begun, the first not over, or the nearest (the past one on a tie)."""
    if scene.direction < 0:
        return max((one for one in around if one[0] <= scene.now), key=lambda one: one[0])
    if scene.direction > 0:
        return min((one for one in around if one[1] > scene.now), key=lambda one: one[0])
    return min(around, key=lambda one: max(one[0] - scene.now, scene.now - one[1], timedelta(0)))


def _yearly(month: int, count: int, grain: Grain, scene: _Scene) -> list[_Interval]:
    return [_months(scene.now.year + step, month, count, grain) for step in (-1, 0, 1)]


def _number(month: str) -> int:
    return next(n for n, name in enumerate(_MONTHS, 1) if name[:3] == month[:3].lower())


def _weekday_number(name: str) -> int:
    return next(n for n, full in enumerate(_WEEKDAYS) if full[:3] == name[:3].lower())


def _digits(text: str) -> int:
    return int("".join(character for character in text if character.isdigit()))


_library_lock = threading.Lock()
_library = parsedatetime.Calendar(parsedatetime.Constants("en_US", usePyICU=False), parsedatetime.VERSION_CONTEXT_STYLE)


def _parse(phrase: str, day: datetime) -> datetime:
    """What the library reads in a phrase said on a day. Raises ValueError where it reads nothing."""
    with _library_lock:  # its calendar keeps the state of a parse on itself
        moment, context = _library.parse(phrase, day.timetuple())
    if not context.accuracy:  # then the answer is the time on the clock
        raise ValueError(f"not a time: {phrase!r}")
    return datetime(*moment[:6])


# --- what the expressions mean ---


def _iso(match: re.Match[str], scene: _Scene) -> _Interval:
    when = datetime.fromisoformat(match.group())
    if len(match.group()) == 10:
        return _days(when)
    if when.tzinfo is not None:
        when = when.astimezone(scene.zone).replace(tzinfo=None)
    when = when.replace(second=0, microsecond=0)
    return when, when + timedelta(minutes=1), Grain.MINUTE


def _numeric(match: re.Match[str], _scene: _Scene) -> _Interval:
    first, second, third = (int(part) for part in re.split(r"[/.]", match.group()))
    if first > 31:
        return _days(datetime(first, second, third))
    # American order with slashes, unless the first number cannot be a month; with dots the day always comes first.
    day_first = "." in match.group() or first > 12
    return _days(datetime(third, second, first) if day_first else datetime(third, first, second))


def _written(match: re.Match[str], scene: _Scene) -> _Interval | None:
    month, day, year = match["month"], _digits(match["day"]), match["year"]
    if year:
        return _days(_parse(f"{day} {month[:3]} {year}", scene.today))
    if month in ("may", "march", "mar", "sun"):
        return None  # "those 3 may be late"
    years = (scene.now.year + step for step in (-1, 0, 1))
    return _choose([_days(_parse(f"{day} {month[:3]} {year}", scene.today)) for year in years], scene)


def _hour(match: re.Match[str], scene: _Scene) -> _Interval | None:
    """A day, and a part or an hour of it."""
    found = _resolve(match["day"], scene)
    if found is None or found[2] is not Grain.DAY:
        return None
    if match["part"]:
        return _part(found[0], match["part"])
    exact = ":" in match["clock"]
    when = _parse(match["clock"].lower(), found[0])
    return when, when + timedelta(minutes=1 if exact else 60), Grain.MINUTE if exact else Grain.HOUR


def _part(day: datetime, name: str) -> _Interval:
    begin, end = {"morning": (5, 12), "afternoon": (12, 18), "evening": (17, 24), "night": (18, 30)}[name.lower()]
    return day + timedelta(hours=begin), day + timedelta(hours=end), Grain.PART


def _named_day(match: re.Match[str], scene: _Scene) -> _Interval:
    words = match.group().lower().split()
    if words == ["tonight"]:
        return _part(scene.today, "night")
    steps = {"yesterday": -1, "today": 0, "tomorrow": 1}[words[-1]]
    return _days(scene.today + timedelta(days=2 * steps if len(words) > 1 else steps))


def _month_year(match: re.Match[str], _scene: _Scene) -> _Interval:
    return _months(int(match["year"]), _number(match["month"]), 1, Grain.MONTH)


def _season_year(match: re.Match[str], _scene: _Scene) -> _Interval:
    return _months(int(match["year"]), _SEASONS[match["season"].lower()], 3, Grain.SEASON)


def _year(match: re.Match[str], _scene: _Scene) -> _Interval:
    return _months(int(match["year"]), 1, 12, Grain.YEAR)


def _decade(match: re.Match[str], _scene: _Scene) -> _Interval:
    year = _digits(match["years"])
    return _months(year if year > 99 else 1900 + year, 1, 120, Grain.DECADE)


def _month(match: re.Match[str], scene: _Scene) -> _Interval:
    return _choose(_yearly(_number(match["month"]), 1, Grain.MONTH, scene), scene)


def _weekday(match: re.Match[str], scene: _Scene) -> _Interval:
    return _near_weekday(_weekday_number(match["weekday"]), scene.direction, scene)


def _near_weekday(weekday: int, direction: int, scene: _Scene) -> _Interval:
    """The nearest such day, or the nearest in a direction; never today."""
    ahead = (weekday - scene.now.weekday() - 1) % 7 + 1
    back = (scene.now.weekday() - weekday - 1) % 7 + 1
    forward = direction > 0 or (direction == 0 and ahead < back)
    return _days(scene.today + timedelta(days=ahead if forward else -back))


def _day_of_month(match: re.Match[str], scene: _Scene) -> _Interval:
    day = _digits(match["nth"])
    months = [_shift(scene.now, step) for step in (-2, -1, 0, 1, 2)]
    return _choose([_days(month.replace(day=day)) for month in months if day <= _length(month)], scene)


def _relative(match: re.Match[str], scene: _Scene) -> _Interval | None:
    """A unit, part of a day, season, month or weekday after "last", "this" or "next"."""
    which, noun = match["which"].lower(), match["noun"].lower()
    step = {"last": -1, "past": -1, "previous": -1, "this": 0, "next": 1, "coming": 1}[which.split()[-1]]
    if noun in ("week", "weekend", "month", "year", "decade"):
        soon = which.endswith("coming") and noun == "weekend"
        found = _unit(scene.now, noun, 0 if soon else step)
        # Said on a Monday, "we went hiking this weekend" is about the one just over.
        over = noun == "weekend" and which == "this" and found[0] > scene.now and scene.direction < 0
        return _unit(scene.now, noun, -1) if over else found
    if noun in ("morning", "afternoon", "evening", "night"):
        return None if step > 0 else _part(scene.today + timedelta(days=step), noun)  # "next morning": of a story
    if noun in _SEASONS:
        return _step(_yearly(_SEASONS[noun], 3, Grain.SEASON, scene), step, scene)
    if noun[:3] in {name[:3] for name in _MONTHS}:
        return _step(_yearly(_number(noun), 1, Grain.MONTH, scene), step, scene)
    weekday = _weekday_number(noun)
    if which == "next":  # the one of next week: this week's is called "this Friday", or plain "Friday"
        return _days(scene.monday + timedelta(days=7 + weekday))
    if step:
        return _near_weekday(weekday, step, scene)
    this = scene.monday + timedelta(days=weekday)
    over = scene.direction < 0 and this > scene.now
    return _days(this - timedelta(days=7) if over else this)


def _step(around: list[_Interval], step: int, scene: _Scene) -> _Interval:
    if step < 0:
        return max((one for one in around if one[1] <= scene.now), key=lambda one: one[0])
    if step > 0:
        return min((one for one in around if one[0] > scene.now), key=lambda one: one[0])
    return _choose(around, replace(scene, tense=0))


def _count(words: str) -> tuple[int, int]:
    """At least and at most how many: "three" is (3, 3), "a few" is (2, 5)."""
    word = next(word for word in reversed(words.lower().split()) if word != "of")
    if word in _VAGUE:
        return _VAGUE[word]
    number = _COUNTS.get(word)
    number = int(word) if number is None else number
    return number, number


def _singular(unit: str) -> str:
    return unit.lower().removesuffix("s")


def _away(words: str, unit: str, sign: int, now: datetime) -> _Interval:
    """So many units before (sign -1) or after a moment: the unit it falls into, or a range for a vague number."""
    unit, (least, most) = _singular(unit), _count(words)
    if least != most:
        near, far = _move(now, unit, sign * least), _move(now, unit, sign * most)
        return _days(min(near, far))[0], _days(max(near, far))[1], Grain.RANGE
    then = _move(now, unit, sign * least)
    if unit in ("minute", "hour"):
        exact = unit == "minute"
        then = then.replace(second=0, microsecond=0) if exact else then.replace(minute=0, second=0, microsecond=0)
        return then, then + timedelta(minutes=1 if exact else 60), Grain.MINUTE if exact else Grain.HOUR
    return _unit(then, unit)


def _ago(match: re.Match[str], scene: _Scene) -> _Interval:
    return _away(match["count"], match["unit"], -1, scene.now)


def _ahead(match: re.Match[str], scene: _Scene) -> _Interval | None:
    # "I read it in three days" is a length of time, and so is every "in ten minutes".
    sure = match.group().lower().endswith(("now", "today", "time"))
    if not sure and (scene.direction < 0 or _singular(match["unit"]) in ("minute", "hour")):
        return None
    return _away(match["count"], match["unit"], 1, scene.now)


def _stretch(match: re.Match[str], scene: _Scene) -> _Interval:
    """The last or the next so many units, up to or from now."""
    unit, most = _singular(match["unit"]), _count(match["count"] or "one")[1]
    if match["which"].lower() in ("last", "past", "previous"):
        return _move(scene.now, unit, -most), scene.now, Grain.RANGE
    return scene.now, _move(scene.now, unit, most), Grain.RANGE


def _so_far(match: re.Match[str], scene: _Scene) -> _Interval | None:
    """ "For three years now": from then until now. "For three years" alone only after "have" or "been"."""
    clause = _CLAUSE_END.split(scene.text[max(0, scene.start - 120) : scene.start])[-1]
    if not match.group().lower().endswith("now") and not _PERFECT.search(clause):
        return None
    unit = _singular(match["unit"])
    return _unit(_move(scene.now, unit, -_count(match["count"])[1]), unit)[0], scene.now, Grain.RANGE


def _other_day(_match: re.Match[str], scene: _Scene) -> _Interval:
    return scene.today - timedelta(days=7), scene.today, Grain.RANGE


def _the_weekend(_match: re.Match[str], scene: _Scene) -> _Interval | None:
    # Without a tense it is a habit: "I cook at the weekend".
    return _unit(scene.now, "weekend", min(scene.direction, 0)) if scene.direction else None


def _before_last(match: re.Match[str], scene: _Scene) -> _Interval:
    return _unit(scene.now, match["unit"].lower(), -2 if match["which"].lower() == "before last" else 2)


def _beside(match: re.Match[str], scene: _Scene) -> _Interval | None:
    """The week before, the Friday after, two months before a date."""
    found = _resolve(match["point"], scene)
    if found is None:
        return None
    sign = -1 if match["side"].lower() == "before" else 1
    noun = _singular(match["noun"])
    edge = found[0] if sign < 0 else found[1]
    if match["count"]:
        return _away(match["count"], noun, sign, found[0])
    if noun in ("week", "month", "year"):
        other = _move(edge, noun, sign)
        return min(edge, other), max(edge, other), Grain(noun)
    if noun == "weekend":
        saturday = _near_weekday(5, sign, replace(scene, now=edge if sign < 0 else edge - timedelta(days=1)))[0]
        return _days(saturday, 2, Grain.WEEKEND)
    if noun in ("day", "night"):
        return _days(edge - timedelta(days=1) if sign < 0 else edge)
    return _near_weekday(
        _weekday_number(noun), sign, replace(scene, now=edge if sign < 0 else edge - timedelta(days=1))
    )


def _nth_of(match: re.Match[str], scene: _Scene) -> _Interval | None:
    """The first weekend, the last week, the second Tuesday of a month or a year."""
    found = _resolve(match["point"], scene)
    if found is None or found[2] not in (Grain.MONTH, Grain.YEAR):
        return None
    first, last, _ = found
    noun = match["noun"].lower()
    place = {"first": 0, "1st": 0, "second": 1, "2nd": 1, "third": 2, "3rd": 2, "fourth": 3, "4th": 3}.get(
        match["nth"].lower(), -1
    )
    if noun in ("week", "day"):
        size = 7 if noun == "week" else 1
        begin = first + timedelta(days=size * place) if place >= 0 else last - timedelta(days=size)
        return _days(begin, size, Grain(noun))
    weekday = 5 if noun == "weekend" else _weekday_number(noun)
    if place >= 0:
        begin = first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * place)
    else:
        begin = last - timedelta(days=(last.weekday() - weekday - 1) % 7 + 1)
    return _days(begin, 2, Grain.WEEKEND) if noun == "weekend" else _days(begin)


def _week_of(match: re.Match[str], scene: _Scene) -> _Interval | None:
    found = _resolve(match["point"], scene)
    return found and (found if found[2] is Grain.RANGE else _unit(found[0], match["unit"].lower()))


def _part_of(match: re.Match[str], scene: _Scene) -> _Interval | None:
    """Early, mid or late in a unit: a third of it, in whole days."""
    found = _resolve(match["point"], scene)
    if found is None or found[1] - found[0] < timedelta(days=3):
        return None
    first, last, _ = found
    third = (last - first).days // 3
    name = match["part"].lower().split()[0]
    if name in ("early", "beginning", "start"):
        return first, first + timedelta(days=third), Grain.RANGE
    if name in ("mid", "middle"):
        return first + timedelta(days=third), last - timedelta(days=third), Grain.RANGE
    return last - timedelta(days=third), last, Grain.RANGE


def _open(match: re.Match[str], scene: _Scene) -> _Interval | None:
    """From a date until now, or from now until it is over."""
    since = match["which"].lower() == "since"
    found = _resolve(match["point"], replace(scene, tense=-1 if since else 1))
    if found is None:
        return None
    return (found[0], scene.now, Grain.RANGE) if since else (scene.now, found[1], Grain.RANGE)


def _between(match: re.Match[str], scene: _Scene) -> _Interval | None:
    """From one date to another; the first may lack the year, and one of the two all but the day."""
    begin, end = match["begin"], match["end"]
    year = match.groupdict().get("year")
    if year:
        begin, end = f"{begin} {year}", end.removesuffix(year).rstrip(", ")
    if _BARE_DAY.fullmatch(begin):
        last = _resolve(end, scene)
        first = last and _days(last[0].replace(day=_digits(begin)))
    elif _BARE_DAY.fullmatch(end):
        first = _resolve(begin, scene)
        last = first and _days(first[0].replace(day=_digits(end)))
    elif _HAS_YEAR.search(end) and not _HAS_YEAR.search(begin):
        last = _resolve(end, scene)
        first = last and _resolve(begin, replace(scene, now=last[0], tense=-1))
    else:
        first = _resolve(begin, scene)
        last = first and _resolve(end, replace(scene, now=first[0], tense=1))
    return (first[0], last[1], Grain.RANGE) if first and last else None


def _cued(match: re.Match[str], scene: _Scene) -> _Interval | None:
    return _resolve(match["point"], scene)


_BARE_DAY = re.compile(r"[0-3]?[0-9](?:st|nd|rd|th)?", re.I)
_HAS_YEAR = re.compile(r"[0-9]{4}")

_PERFECT = re.compile(r"\b(?:have|has|been)\b|\w['’](?:ve|s)\b", re.I)

# --- the tense around an expression ---

_CLAUSE_END = re.compile(r"[.!?;\n]")
_TENSES = re.compile(
    r"\b(?:(?P<future>will|won't|shall|going\s+to|gonna|plan|plans|planning|next|upcoming|hope|hoping|wants?|wanna|scheduled|"
    r"see\s+y(?:ou|a)|let's|can't\s+wait|looking\s+forward|excited\s+for|booked|how\s+about|sounds?\s+good|works\s+for|tomorrow|"
    r"would\s+like)|(?P<past>was|were|did|didn't|had|has\s+been|have\s+been|went|got|saw|took|made|met|bought|came|gave|found|"
    r"lost|won|left|began|felt|told|said|ate|spent|taught|wrote|ran|led|held|heard|kept|brought|thought|flew|drove|drew|"
    r"chose|ago|since|(?!need|feed|speed|indeed|exceed|proceed|seed|weed)[a-z]{2,}ed))\b|(?P<soon>'ll)\b",
    re.I,
)
_DUE = re.compile(
    r"\b(?:due|deadline|by|until|(?:appointment|meeting|exam|flight)(?!\s+(?:notes|minutes|summary|recording|results?)))\b",
    re.I,
)


def _tense(text: str, start: int, end: int) -> int:
    """Which way the clause looks: by the nearest telling word before the expression, else by the first one after it.

    Where no verb tells, what has a date is to come if one names it as such: a deadline, an appointment.
    """
    before = _CLAUSE_END.split(text[max(0, start - 120) : start])[-1]
    after = _CLAUSE_END.split(text[end : end + 120], maxsplit=1)[0]
    cues = [*_TENSES.finditer(before)][-1:] or [*_TENSES.finditer(after)][:1]
    if not cues:
        return 1 if _DUE.search(before) else 0
    return -1 if cues[0]["past"] else 1


# --- the forms: an expression is read by the first that fits all of it ---

_Meaning = Callable[[re.Match[str], _Scene], _Interval | None]
_DATED = rf"(?:{_WRITTEN}|{_MONTH_YEAR})"
_RANGED = rf"{_DATED}{_TO}(?:{_DATED}|[0-3]?[0-9](?:st|nd|rd|th)?{_ENDS})"
_CLOCKED_DAY = rf"(?:{_WRITTEN}|{_NAMED_DAY}|(?:(?:last|this|next)\s+)?{_WEEKDAY})"
_NOT_HABIT = r"(?<!every )(?<!each )(?<!most )"

_ALONE: tuple[tuple[str, _Meaning], ...] = (
    (rf"(?:between|from)\s+(?:the\s+)?(?P<begin>{_POINT}|{_NTH}){_TO}(?:the\s+)?(?P<end>{_POINT}|{_NTH})", _between),
    (
        rf"(?P<begin>{_DATED}){_TO}(?P<end>{_DATED}|[0-3]?[0-9](?:st|nd|rd|th)?(?:,?\s+(?P<year>{_YEAR}))?{_ENDS})",
        _between,
    ),
    (rf"(?P<begin>[0-3]?[0-9](?:st|nd|rd|th)?){_TO}(?P<end>{_DAY_FIRST})", _between),
    (rf"(?:the\s+)?(?P<unit>week|weekend)\s+of\s+(?:the\s+)?(?P<point>{_RANGED}|{_POINT}|{_NTH})", _week_of),
    (r"(?:the\s+)?(?P<unit>weekend|week|month|year)\s+(?P<which>before\s+last|after\s+next)", _before_last),
    (
        rf"(?:the\s+)?(?:(?P<count>{_COUNT})\s+)?(?P<noun>{_UNIT}|{_WEEKDAY})\s+(?P<side>before|after|following)\s+"
        rf"(?:the\s+)?(?P<point>{_POINT})",
        _beside,
    ),
    (
        rf"(?:the\s+)?(?P<nth>first|second|third|fourth|last|final|1st|2nd|3rd|4th)\s+(?P<noun>weekend|week|day|{_WEEKDAY})\s+"
        rf"(?:of|in)\s+(?P<point>{_MONTH_YEAR}|{_RELATIVE}|{_MONTH}|{_YEAR})",
        _nth_of,
    ),
    (
        rf"(?:the\s+)?(?P<part>early|mid|middle\s+of|late|beginning\s+of|start\s+of|end\s+of)[\s-]+(?:in\s+)?(?:the\s+)?"
        rf"(?P<point>{_MONTH_YEAR}|{_RELATIVE}|{_SEASON}\s+(?:of\s+)?{_YEAR}|{_MONTH}|{_YEAR})",
        _part_of,
    ),
    (rf"(?P<which>since|until|till)\s+(?:the\s+)?(?P<point>{_COUNT}\s+{_UNIT}\s+ago|{_POINT}|{_NTH})", _open),
    (rf"(?P<count>{_COUNT})\s+(?P<unit>{_UNIT})\s+(?:ago|back)", _ago),
    (rf"in\s+(?:about\s+|around\s+)?(?P<count>{_COUNT})\s+(?P<unit>{_UNIT})(?:['’]?\s+time)?", _ahead),
    (rf"(?P<count>{_COUNT})\s+(?P<unit>{_UNIT})\s+from\s+(?:now|today)", _ahead),
    (
        rf"(?:(?:the|these|this|my)\s+)?(?P<which>past|last|previous|next|coming)\s+(?P<count>{_COUNT})\s+(?P<unit>{_UNIT})",
        _stretch,
    ),
    (
        rf"for\s+(?:about\s+|around\s+|almost\s+|nearly\s+|over\s+)?(?P<count>{_COUNT})\s+"
        r"(?P<unit>(?:day|week|month|year|decade)s?)(?:\s+now)?",
        _so_far,
    ),
    (rf"(?P<count>{_COUNT})\s+(?P<unit>(?:week|month|year|decade)s?)\s+now", _so_far),
    (r"(?:the|this)\s+(?P<which>past|last|next|coming)\s+(?P<count>)(?P<unit>week|month|year|decade)", _stretch),
    (
        rf"(?P<day>{_CLOCKED_DAY})(?:\s+(?P<part>{_PART})|,?\s+(?:(?:at|around|by)\s+|@\s*)?(?P<clock>{_CLOCK}))",
        _hour,
    ),
    (rf"(?P<clock>{_CLOCK})\s+(?:on\s+)?(?P<day>{_CLOCKED_DAY})(?P<part>)", _hour),
    (
        rf"(?P<which>{_WHICH})\s+(?P<noun>weekend|week|month|year|decade|{_PART}|{_SEASON}|{_WEEKDAY}|{_MONTH})",
        _relative,
    ),
    (_NAMED_DAY, _named_day),
    (_ISO, _iso),
    (_NUMERIC, _numeric),
    (rf"(?P<day>[0-3]?[0-9](?:st|nd|rd|th)?)\s*(?:of\s+)?(?P<month>{_MONTH})(?:,?\s*(?P<year>{_YEAR}))?", _written),
    (
        rf"(?P<month>{_MONTH})\s*(?:the\s+)?(?P<day>[0-3]?[0-9](?:st|nd|rd|th)?)(?![0-9:%])(?:,?\s+(?P<year>{_YEAR}))?",
        _written,
    ),
    (rf"(?P<month>{_MONTH}),?\s+(?:of\s+)?(?P<year>{_YEAR})", _month_year),
    (rf"(?P<season>{_SEASON})\s+(?:of\s+)?(?P<year>{_YEAR})", _season_year),
    (
        rf"(?:in|during|by|before|after|from|of|around|through|throughout)\s+(?P<point>{_MONTH}(?!,?\s*[0-9])|{_YEAR}{_ENDS})",
        _cued,
    ),
    (rf"(?:on|by)\s+(?P<point>{_SHORT_WEEKDAY}{_ENDS}|the\s+{_NTH}{_ENDS})", _cued),
    (r"(?:the|in|during)\s+(?:the\s+)?['’]?(?P<years>(?:1[6-9]|20)[0-9]0|[2-9]0)['’]?s", _decade),
    (r"the\s+other\s+(?:day|night)", _other_day),
    (r"(?:(?:over|for|during)\s+)?the\s+weekend", _the_weekend),
    # May, March, April, June and August alone are as often a verb or a name.
    (r"(?P<month>(?-i:January|February|July|September|October|November|December))", _month),
    (rf"{_NOT_HABIT}(?P<weekday>{_FULL_WEEKDAY})", _weekday),
)
_WITHIN: tuple[tuple[str, _Meaning], ...] = (  # these need the words of another form before them
    (rf"(?P<month>{_MONTH})", _month),
    (rf"(?P<weekday>{_WEEKDAY})", _weekday),
    (rf"(?P<year>{_YEAR})", _year),
    (rf"(?:the\s+)?(?P<nth>{_NTH})", _day_of_month),
)
_FORMS = tuple((re.compile(pattern, re.I | re.A), meaning) for pattern, meaning in (*_ALONE, *_WITHIN))
_SCANNER = re.compile(
    r"(?<![\w@#$€£/])(?<![\w][.-])(?:"
    + "|".join(re.sub(r"\?P<\w+>", "?:", pattern) for pattern, _ in _ALONE)
    + r")(?!\w)",
    re.I | re.A,
)


def _resolve(phrase: str, scene: _Scene) -> _Interval | None:
    """What a phrase of the grammar means; None where it is no expression after all, or lies outside the calendar."""
    for pattern, meaning in _FORMS:
        match = pattern.fullmatch(phrase)
        if match:
            try:
                found = meaning(match, scene)
            except (OverflowError, ValueError):  # 31 February, or a year before the first
                return None
            return found if found and found[0] < found[1] else None
    return None
