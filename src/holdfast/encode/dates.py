"""Time expressions in a text, resolved to half-open intervals against a reference time.

A memory is found by when it happened, and a claim is true from some day on; both need "last Friday" as a date. Where the
expressions are is decided by a grammar of English phrases (``date_grammar``), because a parser let loose on running text
takes "may", "sat", "second" and "now" for dates, and one that is asked about "this morning" reads the clock. What a
clock time means is left to ``parsedatetime``; the rest is calendar arithmetic. An expression becomes the calendar
unit that it names ("last week" is a week from Monday to Monday), since pretending to know the minute would be false precision.
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

from holdfast.encode.date_grammar import (
    COUNTS,
    FORMS,
    MONTHS,
    SCANNER,
    SEASONS,
    VAGUE,
    WEEKDAYS,
    clause_before,
    openings,
    tense_around,
)


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


MOST = 1_000
"""Expressions that are read of a text: one that holds more is a table or a log."""


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
    for start in openings(text):
        if len(spans) == MOST:
            break
        match = SCANNER.match(text, start) if start >= position else None
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


# --- where and when a phrase is said ---

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
        return tense_around(self.text, self.start, self.end) if self.tense is None else self.tense

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
    return next(n for n, name in enumerate(MONTHS, 1) if name[:3] == month[:3].lower())


def _weekday_number(name: str) -> int:
    return next(n for n, full in enumerate(WEEKDAYS) if full[:3] == name[:3].lower())


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
        return _days(datetime(int(year), _number(month), day))
    if month in ("may", "march", "mar", "sun"):
        return None  # "those 3 may be late"
    years = (scene.now.year + step for step in (-1, 0, 1))
    return _choose([_days(datetime(year, _number(month), day)) for year in years], scene)


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
    return _months(int(match["year"]), SEASONS[match["season"].lower()], 3, Grain.SEASON)


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
    if noun in SEASONS:
        return _step(_yearly(SEASONS[noun], 3, Grain.SEASON, scene), step, scene)
    if noun[:3] in {name[:3] for name in MONTHS}:
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
    if word in VAGUE:
        return VAGUE[word]
    number = COUNTS.get(word)
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
    if not match.group().lower().endswith("now") and not _PERFECT.search(clause_before(scene.text, scene.start)):
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

# --- which form means what ---

_Meaning = Callable[[re.Match[str], _Scene], _Interval | None]
_MEANINGS: dict[str, _Meaning] = {
    "iso": _iso,
    "numeric": _numeric,
    "written": _written,
    "hour": _hour,
    "named day": _named_day,
    "month year": _month_year,
    "season year": _season_year,
    "year": _year,
    "decade": _decade,
    "month": _month,
    "weekday": _weekday,
    "day of month": _day_of_month,
    "relative": _relative,
    "ago": _ago,
    "ahead": _ahead,
    "stretch": _stretch,
    "so far": _so_far,
    "other day": _other_day,
    "the weekend": _the_weekend,
    "before last": _before_last,
    "beside": _beside,
    "nth of": _nth_of,
    "week of": _week_of,
    "part of": _part_of,
    "open": _open,
    "between": _between,
    "cued": _cued,
}
_FORMS = tuple((pattern, _MEANINGS[name]) for name, pattern in FORMS)


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
