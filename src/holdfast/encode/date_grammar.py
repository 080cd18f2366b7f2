"""How time expressions look in English: where in a text one may be, which form it has, and which tense stands around it.

When that is, ``dates`` works out: it looks up what a form means by the form's name, and reads the groups of its pattern.
"""

from __future__ import annotations

import re

# --- where to look ---


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


MONTHS = _words("january february march april may june july august september october november december")
WEEKDAYS = _words("monday tuesday wednesday thursday friday saturday sunday")
SEASONS = {"spring": 3, "summer": 6, "fall": 9, "autumn": 9, "winter": 12}  # the month in which each begins
COUNTS = {
    word: n for n, word in enumerate(_words("zero one two three four five six seven eight nine ten eleven twelve"))
}
COUNTS |= {"a": 1, "an": 1, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50}
VAGUE = {"couple": (1, 3), "few": (2, 5), "several": (3, 7)}  # how many units away, at least and at most
_HINTS = frozenset(
    (
        *_words(
            "ago back today tonight yesterday tomorrow morning evening afternoon night week weeks weekend weekends"
        ),
        *_words("month months year years decade decades day days minute minutes hour hours"),
        *_words("jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed weds thu thur thurs fri sat sun"),
        *(*MONTHS, *WEEKDAYS, *SEASONS),
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
        *(*_HINTS, *COUNTS, *VAGUE),
    )
)
_TOKEN = re.compile(r"[a-z]{3,9}")
_DIGIT = re.compile(r"[0-9]")
_WORD = re.compile(r"\w+")
_REACH = 40  # characters between the first word of an expression and its telling one


def openings(text: str) -> list[int]:
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


# --- the parts that forms are made of ---

_MONTH = (
    r"(?:january|february|march|april|may|june|july|august|september|october|november|december|"
    r"(?:jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\b\.?)"
)
_FULL_WEEKDAY = rf"(?:{'|'.join(WEEKDAYS)})"
_SHORT_WEEKDAY = r"(?:mon|tues?|weds?|thu(?:rs?)?|fri|sat|sun)\b\.?"
_WEEKDAY = rf"(?:{_FULL_WEEKDAY}|{_SHORT_WEEKDAY})"
_SEASON = rf"(?:{'|'.join(SEASONS)})"
_YEAR = r"(?:1[6-9]|20|21)[0-9]{2}(?![0-9])"
_NTH = r"[0-3]?[0-9](?:st|nd|rd|th)"
_PART = r"(?:morning|afternoon|evening|night)"
_CLOCK = r"(?:[0-2]?[0-9](?::[0-5][0-9])?\s?(?:am|pm|a\.m\.|p\.m\.)|[0-2]?[0-9]:[0-5][0-9]|noon|midnight)"
_COUNT = rf"(?:[0-9]{{1,3}}|{'|'.join(COUNTS)}|(?:a\s+)?couple(?:\s+of)?|(?:a\s+)?few|several)"
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
_DATED = rf"(?:{_WRITTEN}|{_MONTH_YEAR})"
_RANGED = rf"{_DATED}{_TO}(?:{_DATED}|[0-3]?[0-9](?:st|nd|rd|th)?{_ENDS})"
_CLOCKED_DAY = rf"(?:{_WRITTEN}|{_NAMED_DAY}|(?:(?:last|this|next)\s+)?{_WEEKDAY})"
_NOT_HABIT = r"(?<!every )(?<!each )(?<!most )"

# --- the forms: each has the name of what it means ---

_ALONE: tuple[tuple[str, str], ...] = (
    ("between", rf"(?:between|from)\s+(?:the\s+)?(?P<begin>{_POINT}|{_NTH}){_TO}(?:the\s+)?(?P<end>{_POINT}|{_NTH})"),
    (
        "between",
        rf"(?P<begin>{_DATED}){_TO}(?P<end>{_DATED}|[0-3]?[0-9](?:st|nd|rd|th)?(?:,?\s+(?P<year>{_YEAR}))?{_ENDS})",
    ),
    ("between", rf"(?P<begin>[0-3]?[0-9](?:st|nd|rd|th)?){_TO}(?P<end>{_DAY_FIRST})"),
    ("week of", rf"(?:the\s+)?(?P<unit>week|weekend)\s+of\s+(?:the\s+)?(?P<point>{_RANGED}|{_POINT}|{_NTH})"),
    ("before last", r"(?:the\s+)?(?P<unit>weekend|week|month|year)\s+(?P<which>before\s+last|after\s+next)"),
    (
        "beside",
        rf"(?:the\s+)?(?:(?P<count>{_COUNT})\s+)?(?P<noun>{_UNIT}|{_WEEKDAY})\s+(?P<side>before|after|following)\s+"
        rf"(?:the\s+)?(?P<point>{_POINT})",
    ),
    (
        "nth of",
        rf"(?:the\s+)?(?P<nth>first|second|third|fourth|last|final|1st|2nd|3rd|4th)\s+(?P<noun>weekend|week|day|{_WEEKDAY})\s+"
        rf"(?:of|in)\s+(?P<point>{_MONTH_YEAR}|{_RELATIVE}|{_MONTH}|{_YEAR})",
    ),
    (
        "part of",
        rf"(?:the\s+)?(?P<part>early|mid|middle\s+of|late|beginning\s+of|start\s+of|end\s+of)[\s-]+(?:in\s+)?(?:the\s+)?"
        rf"(?P<point>{_MONTH_YEAR}|{_RELATIVE}|{_SEASON}\s+(?:of\s+)?{_YEAR}|{_MONTH}|{_YEAR})",
    ),
    ("open", rf"(?P<which>since|until|till)\s+(?:the\s+)?(?P<point>{_COUNT}\s+{_UNIT}\s+ago|{_POINT}|{_NTH})"),
    ("ago", rf"(?P<count>{_COUNT})\s+(?P<unit>{_UNIT})\s+(?:ago|back)"),
    ("ahead", rf"in\s+(?:about\s+|around\s+)?(?P<count>{_COUNT})\s+(?P<unit>{_UNIT})(?:['’]?\s+time)?"),
    ("ahead", rf"(?P<count>{_COUNT})\s+(?P<unit>{_UNIT})\s+from\s+(?:now|today)"),
    (
        "stretch",
        rf"(?:(?:the|these|this|my)\s+)?(?P<which>past|last|previous|next|coming)\s+(?P<count>{_COUNT})\s+(?P<unit>{_UNIT})",
    ),
    (
        "so far",
        rf"for\s+(?:about\s+|around\s+|almost\s+|nearly\s+|over\s+)?(?P<count>{_COUNT})\s+"
        r"(?P<unit>(?:day|week|month|year|decade)s?)(?:\s+now)?",
    ),
    ("so far", rf"(?P<count>{_COUNT})\s+(?P<unit>(?:week|month|year|decade)s?)\s+now"),
    ("stretch", r"(?:the|this)\s+(?P<which>past|last|next|coming)\s+(?P<count>)(?P<unit>week|month|year|decade)"),
    (
        "hour",
        rf"(?P<day>{_CLOCKED_DAY})(?:\s+(?P<part>{_PART})|,?\s+(?:(?:at|around|by)\s+|@\s*)?(?P<clock>{_CLOCK}))",
    ),
    ("hour", rf"(?P<clock>{_CLOCK})\s+(?:on\s+)?(?P<day>{_CLOCKED_DAY})(?P<part>)"),
    (
        "relative",
        rf"(?P<which>{_WHICH})\s+(?P<noun>weekend|week|month|year|decade|{_PART}|{_SEASON}|{_WEEKDAY}|{_MONTH})",
    ),
    ("named day", _NAMED_DAY),
    ("iso", _ISO),
    ("numeric", _NUMERIC),
    ("written", rf"(?P<day>[0-3]?[0-9](?:st|nd|rd|th)?)\s*(?:of\s+)?(?P<month>{_MONTH})(?:,?\s*(?P<year>{_YEAR}))?"),
    (
        "written",
        rf"(?P<month>{_MONTH})\s*(?:the\s+)?(?P<day>[0-3]?[0-9](?:st|nd|rd|th)?)(?![0-9:%])(?:,?\s+(?P<year>{_YEAR}))?",
    ),
    ("month year", rf"(?P<month>{_MONTH}),?\s+(?:of\s+)?(?P<year>{_YEAR})"),
    ("season year", rf"(?P<season>{_SEASON})\s+(?:of\s+)?(?P<year>{_YEAR})"),
    (
        "cued",
        rf"(?:in|during|by|before|after|from|of|around|through|throughout)\s+(?P<point>{_MONTH}(?!,?\s*[0-9])|{_YEAR}{_ENDS})",
    ),
    ("cued", rf"(?:on|by)\s+(?P<point>{_SHORT_WEEKDAY}{_ENDS}|the\s+{_NTH}{_ENDS})"),
    ("decade", r"(?:the|in|during)\s+(?:the\s+)?['’]?(?P<years>(?:1[6-9]|20)[0-9]0|[2-9]0)['’]?s"),
    ("other day", r"the\s+other\s+(?:day|night)"),
    ("the weekend", r"(?:(?:over|for|during)\s+)?the\s+weekend"),
    # May, March, April, June and August alone are as often a verb or a name.
    ("month", r"(?P<month>(?-i:January|February|July|September|October|November|December))"),
    ("weekday", rf"{_NOT_HABIT}(?P<weekday>{_FULL_WEEKDAY})"),
)
_WITHIN: tuple[tuple[str, str], ...] = (  # these need the words of another form before them
    ("month", rf"(?P<month>{_MONTH})"),
    ("weekday", rf"(?P<weekday>{_WEEKDAY})"),
    ("year", rf"(?P<year>{_YEAR})"),
    ("day of month", rf"(?:the\s+)?(?P<nth>{_NTH})"),
)
FORMS = tuple((name, re.compile(pattern, re.I | re.A)) for name, pattern in (*_ALONE, *_WITHIN))
"""The forms with their names: an expression is read by the first that fits all of it."""
SCANNER = re.compile(
    r"(?<![\w@#$€£/])(?<![\w][.-])(?:"
    + "|".join(re.sub(r"\?P<\w+>", "?:", pattern) for _, pattern in _ALONE)
    + r")(?!\w)",
    re.I | re.A,
)
"""Matches an expression from one of the ``openings`` on, by the forms that can stand alone."""

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


def clause_before(text: str, start: int) -> str:
    """What the clause says before an expression, as far as 120 characters back."""
    return _CLAUSE_END.split(text[max(0, start - 120) : start])[-1]


def tense_around(text: str, start: int, end: int) -> int:
    """Which way the clause looks: -1 back, 1 ahead, 0 where nothing tells.

    The nearest telling word before the expression decides, else the first one after it.
    Where no verb tells, what has a date is to come if one names it as such: a deadline, an appointment.
    """
    before = clause_before(text, start)
    after = _CLAUSE_END.split(text[end : end + 120], maxsplit=1)[0]
    cues = [*_TENSES.finditer(before)][-1:] or [*_TENSES.finditer(after)][:1]
    if not cues:
        return 1 if _DUE.search(before) else 0
    return -1 if cues[0]["past"] else 1
