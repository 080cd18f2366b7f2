"""Time expressions: what they mean, what is none, and that nothing crashes, reads the clock or loses its place."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import parsedatetime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.encode.dates import Grain, find_dates

FRIDAY = datetime(2023, 6, 9, 15, 7, tzinfo=UTC)


def found(text: str, reference: datetime = FRIDAY) -> list[tuple[str, str, str, str]]:
    return [
        (span.text, f"{span.first:%Y-%m-%d %H:%M}", f"{span.last:%Y-%m-%d %H:%M}", str(span.grain))
        for span in find_dates(text, reference)
    ]


def days(first: str, last: str) -> tuple[str, str]:
    return f"{first} 00:00", f"{last} 00:00"


@pytest.mark.parametrize(
    ("text", "first", "last", "grain"),
    [
        # written
        ("8 May 2023", "2023-05-08", "2023-05-09", "day"),
        ("8 May, 2023", "2023-05-08", "2023-05-09", "day"),
        ("May 8, 2023", "2023-05-08", "2023-05-09", "day"),
        ("Dec 25th 2020", "2020-12-25", "2020-12-26", "day"),
        ("the 4th of July 2021", "2021-07-04", "2021-07-05", "day"),
        ("Sept. 3 2020", "2020-09-03", "2020-09-04", "day"),
        ("29 February 2024", "2024-02-29", "2024-03-01", "day"),
        ("2023-05-08", "2023-05-08", "2023-05-09", "day"),
        ("2023/5/8", "2023-05-08", "2023-05-09", "day"),
        ("05/08/2023", "2023-05-08", "2023-05-09", "day"),
        ("15/01/2024", "2024-01-15", "2024-01-16", "day"),
        ("15.3.2024", "2024-03-15", "2024-03-16", "day"),
        ("May 2022", "2022-05-01", "2022-06-01", "month"),
        ("in 2019", "2019-01-01", "2020-01-01", "year"),
        ("in the 1990s", "1990-01-01", "2000-01-01", "decade"),
        ("in the summer of 2019", "2019-06-01", "2019-09-01", "season"),
        ("winter 2021", "2021-12-01", "2022-03-01", "season"),
        # relative
        ("yesterday", "2023-06-08", "2023-06-09", "day"),
        ("the day before yesterday", "2023-06-07", "2023-06-08", "day"),
        ("the day after tomorrow", "2023-06-11", "2023-06-12", "day"),
        ("last week", "2023-05-29", "2023-06-05", "week"),
        ("this week", "2023-06-05", "2023-06-12", "week"),
        ("the week before last", "2023-05-22", "2023-05-29", "week"),
        ("last weekend", "2023-06-03", "2023-06-05", "weekend"),
        ("this weekend we went hiking", "2023-06-03", "2023-06-05", "weekend"),
        ("we will hike this weekend", "2023-06-10", "2023-06-12", "weekend"),
        ("two weekends ago", "2023-05-27", "2023-05-29", "weekend"),
        ("last month", "2023-05-01", "2023-06-01", "month"),
        ("next year", "2024-01-01", "2025-01-01", "year"),
        ("last June", "2022-06-01", "2022-07-01", "month"),
        ("last summer", "2022-06-01", "2022-09-01", "season"),
        ("next summer", "2024-06-01", "2024-09-01", "season"),
        ("last Friday", "2023-06-02", "2023-06-03", "day"),
        ("last fri", "2023-06-02", "2023-06-03", "day"),
        ("next Thursday", "2023-06-15", "2023-06-16", "day"),
        ("three days ago", "2023-06-06", "2023-06-07", "day"),
        ("two weeks ago", "2023-05-22", "2023-05-29", "week"),
        ("a month ago", "2023-05-01", "2023-06-01", "month"),
        ("10 years ago", "2013-01-01", "2014-01-01", "year"),
        ("two decades ago", "2000-01-01", "2010-01-01", "decade"),
        ("a few days ago", "2023-06-04", "2023-06-08", "range"),
        ("a couple of weeks ago", "2023-05-19", "2023-06-03", "range"),
        ("I will be back in two weeks", "2023-06-19", "2023-06-26", "week"),
        ("the other day", "2023-06-02", "2023-06-09", "range"),
        # beside and within another
        ("the week before 9 June 2023", "2023-06-02", "2023-06-09", "week"),
        ("the Friday before 22 October 2023", "2023-10-20", "2023-10-21", "day"),
        ("the Saturday after 27 January 2023", "2023-01-28", "2023-01-29", "day"),
        ("two weeks before 11 August 2023", "2023-07-24", "2023-07-31", "week"),
        ("the week of April 3rd to 9th", "2023-04-03", "2023-04-10", "range"),
        ("the first weekend of August 2023", "2023-08-05", "2023-08-07", "weekend"),
        ("the last week of October 2023", "2023-10-25", "2023-11-01", "week"),
        ("the second Tuesday of May 2023", "2023-05-09", "2023-05-10", "day"),
        ("mid-June", "2023-06-11", "2023-06-21", "range"),
        ("end of March 2023", "2023-03-22", "2023-04-01", "range"),
        ("between August 11 and August 15 2023", "2023-08-11", "2023-08-16", "range"),
        ("May 3-5, 2023", "2023-05-03", "2023-05-06", "range"),
        ("from March to May 2022", "2022-03-01", "2022-06-01", "range"),
    ],
)
def test_an_expression_is_the_unit_that_it_names(text: str, first: str, last: str, grain: str) -> None:
    ((_, *when, unit),) = found(text)
    assert (tuple(when), unit) == (days(first, last), grain)


@pytest.mark.parametrize(
    ("text", "first", "last", "grain"),
    [
        ("this morning", "2023-06-09 05:00", "2023-06-09 12:00", "part"),
        ("last night", "2023-06-08 18:00", "2023-06-09 06:00", "part"),
        ("late last night", "2023-06-08 18:00", "2023-06-09 06:00", "part"),
        ("tomorrow at 5pm", "2023-06-10 17:00", "2023-06-10 18:00", "hour"),
        ("1:56 pm on 8 May, 2023", "2023-05-08 13:56", "2023-05-08 13:57", "minute"),
        ("2023-05-08T10:30:00+02:00", "2023-05-08 08:30", "2023-05-08 08:31", "minute"),
        ("30 minutes ago", "2023-06-09 14:37", "2023-06-09 14:38", "minute"),
        ("two hours ago", "2023-06-09 13:00", "2023-06-09 14:00", "hour"),
        ("since March", "2023-03-01 00:00", "2023-06-09 15:07", "range"),
        ("since 2016", "2016-01-01 00:00", "2023-06-09 15:07", "range"),
        ("until Friday", "2023-06-09 15:07", "2023-06-17 00:00", "range"),
        ("over the last two weeks", "2023-05-26 15:07", "2023-06-09 15:07", "range"),
        ("in the past week", "2023-06-02 15:07", "2023-06-09 15:07", "range"),
        ("I have had her for three years now", "2020-01-01 00:00", "2023-06-09 15:07", "range"),
        ("the next three days", "2023-06-09 15:07", "2023-06-12 15:07", "range"),
    ],
)
def test_hours_and_open_ends(text: str, first: str, last: str, grain: str) -> None:
    ((_, *when, unit),) = found(text)
    assert (when, unit) == ([first, last], grain)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("I moved to Lisbon in May", "2023-05-01"),
        ("I moved to Lisbon in December", "2022-12-01"),
        ("I will move to Lisbon in May", "2024-05-01"),
        ("the deadline is April 15", "2024-04-15"),
        ("we met on April 15", "2023-04-15"),
        ("we met on Tuesday", "2023-06-06"),
        ("see you on Tuesday", "2023-06-13"),
        ("it arrived on the 11th", "2023-05-11"),
        ("the exam will be on the 11th", "2023-06-11"),
        ("the meeting on April 15", "2024-04-15"),
        ("the meeting notes from April 15", "2023-04-15"),  # what is written down has been
        ("June 12 suits me", "2023-06-12"),  # no tense: the nearest
        ("June 7 suits me", "2023-06-07"),
    ],
)
def test_the_tense_chooses_the_year(text: str, first: str) -> None:
    assert [one[1] for one in found(text)] == [f"{first} 00:00"]


@pytest.mark.parametrize(
    "text",
    [
        "she may have been right, and he sat on the second mat",
        "the may report",
        "march on, soldier",
        "those 3 may be late",
        "I saw the sun on the mon",
        "so what do we do now",
        "wait a second",
        "it takes 5 minutes",
        "we stayed for 3 years",
        "I read it in 10 minutes",
        "Cyberpunk 2077 has 1984 endings",
        "in 2000 words",
        "the 4th floor",
        "version 2.3.1 listens on port 5000",
        "I cook at the weekend",
        "every Friday we play, on Mondays we rest",
        "2023-13-45",
        "0000-00-00",
        "99999999999",
        "user@may2023.example",
        "#may #2023",
        "decades ago",
        "June is my sister, August my brother and April my aunt",
        "3/4 of it",
        "tomorrowland",
        "yesterdays",
    ],
)
def test_what_only_looks_like_a_date_is_none(text: str) -> None:
    assert found(text) == []


def test_of_an_impossible_day_the_month_remains() -> None:
    assert [(one[0], one[3]) for one in found("31 September 2020")] == [("September 2020", "month")]


def test_several_expressions_come_in_order() -> None:
    spans = found("Yesterday I called; on 3 May 2022 I wrote, and tomorrow I rest.")
    assert [span[0] for span in spans] == ["Yesterday", "3 May 2022", "tomorrow"]


def test_a_dense_text_gives_every_date() -> None:
    assert len(find_dates("yesterday " * 200, FRIDAY)) == 200


def test_the_interval_has_the_zone_of_the_reference() -> None:
    zone = ZoneInfo("America/Los_Angeles")
    (span,) = find_dates("yesterday", datetime(2023, 3, 13, 0, 30, tzinfo=zone))
    assert span.first == datetime(2023, 3, 12, tzinfo=zone) and span.first.tzinfo is zone
    (naive,) = find_dates("yesterday", datetime(2023, 3, 13, 0, 30))
    assert naive.first == datetime(2023, 3, 12, tzinfo=UTC)
    east = timezone(timedelta(hours=9))
    (exact,) = find_dates("2023-05-08T23:30:00Z", datetime(2023, 5, 1, tzinfo=east))
    assert exact.first == datetime(2023, 5, 9, 8, 30, tzinfo=east)


PHRASES = (
    "this morning, last night, 15.3.2024, 31 February 2020, in 2019, tomorrow at 5pm, Friday night, May 8, 3 hours ago, "
    "2 pm on Tuesday, noon today, since March, the week before 9 June 2023, tonight, in three days, at 25:30 today"
)


def test_the_clock_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    before = find_dates(PHRASES, FRIDAY)
    assert len(before) > 10
    real = time.localtime
    monkeypatch.setattr(parsedatetime.time, "localtime", lambda *when: real(*when) if when else real(0))
    assert find_dates(PHRASES, FRIDAY) == before


def test_the_zone_of_the_machine_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    spring = datetime(2023, 3, 12, 2, 30, tzinfo=UTC)  # an hour that clocks in New York skip
    before = find_dates(PHRASES, spring)
    try:
        for zone in ("America/New_York", "Asia/Kolkata", "Pacific/Auckland"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert find_dates(PHRASES, spring) == before
    finally:
        monkeypatch.undo()
        time.tzset()


SCRIPTS = (
    "Estou em Lisboa desde março",
    "Я переехал в Лиссабон в мае",
    "Μετακόμισα στη Λισαβόνα τον Μάιο",
    "我五月搬到了里斯本",
    "5月にリスボンに引っ越しました",
    "나는 5월에 리스본으로 이사했다",
    "انتقلت إلى لشبونة في مايو",
    "עברתי לליסבון במאי",
    "मैं मई में लिस्बन गया",
    "ฉันย้ายไปลิสบอนในเดือนพฤษภาคม",
    "ես տեղափոխվեցի Լիսաբոն մայիսին",
    "მე გადავედი ლისაბონში მაისში",
)


@pytest.mark.parametrize("text", SCRIPTS)
def test_other_scripts_give_nothing_and_do_no_harm(text: str) -> None:
    assert find_dates(text, FRIDAY) == ()
    (span,) = find_dates(f"{text} 2023-05-08 {text}", FRIDAY)
    assert span.text == "2023-05-08"


anything = st.text(st.characters(exclude_categories=()), max_size=120)
WORDS = """in on by since until between from to the last next this first second end of week weekend month year day ago May
    march 3rd 31 2020 29 February Friday sat yesterday tomorrow morning at 5pm 12:60 noon 1990s few couple before after summer
    winter - , . 0 9999 0001 2023-02-30 13/13/2023 ſeptember Kın now back for years \ud800 \x00 ١٢ ２０２３"""
words = st.sampled_from(WORDS.split())
whens = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))


@settings(max_examples=400, deadline=None)
@given(st.one_of(anything, st.lists(words, max_size=14).map(" ".join)), whens)
def test_spans_index_the_text_and_are_real_intervals(text: str, when: datetime) -> None:
    spans = find_dates(text, when)
    end = 0
    for span in spans:
        assert text[span.start : span.end] == span.text and span.start >= end
        assert span.first < span.last and span.first.tzinfo is UTC
        assert isinstance(span.grain, Grain)
        end = span.end
    assert find_dates(text, when) == spans


@settings(max_examples=60, deadline=None)
@given(st.dates(datetime(1900, 1, 1).date(), datetime(2199, 12, 31).date()), whens)
def test_a_written_date_means_itself_whenever_it_is_said(date: object, when: datetime) -> None:
    for text in (f"{date:%d %B %Y}", f"{date:%B} {date.day}, {date.year}", f"{date:%Y-%m-%d}", f"{date:%d.%m.%Y}"):  # type: ignore[attr-defined]
        (span,) = find_dates(f"on {text}, I think", when)
        assert span.first.date() == date and span.last - span.first == timedelta(days=1)


def test_hostile_texts_take_no_longer_than_their_length() -> None:
    for piece in (
        "the ",
        "in ",
        "2023-",
        "may ",
        "1/",
        "from may to ",
        "a few ",
        "the week of the week before ",
        " " * 50,
    ):
        text = piece * (60_000 // len(piece))
        began = time.perf_counter()
        find_dates(text, FRIDAY)
        assert time.perf_counter() - began < 20, piece[:20]
