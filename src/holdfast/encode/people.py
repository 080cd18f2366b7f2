"""Names in a text by rule: people, places, organisations, titles, products, handles; no model, no gazetteer.

What a language writes with a capital inside a sentence is a name. The first word of a sentence proves nothing, so it
counts only where something else speaks for it: it opens a longer name, it has a capital elsewhere in the text too, an act
follows ("Aria mentioned ..."), or the caller knows it. Scripts without capitals give only what is quoted or marked: "@ana",
"#launch", 《红楼梦》.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from holdfast.letters import folded


def name_key(name: str) -> str:
    """The form under which names are compared: NFKC, case folded, blanks collapsed, no possessive ending."""
    return _POSSESSIVE.sub("", " ".join(folded(name).split()))


def find_names(text: str, known: Collection[str] = ()) -> tuple[str, ...]:
    """The keys of the names in a text, in order of first appearance, each once.

    ``known`` holds keys (see ``name_key``) that count at the beginning of a sentence as well.
    """
    found: dict[int, str] = {}
    if _MARKS.search(text):
        for match in _MARKED.finditer(text):
            name = next((group for group in match.groups() if group), "")
            if name and (match.lastgroup != "quoted" or _is_title(name)):
                found[match.start()] = name
        text = _MARKED.sub(_blank, text)
    runs = [] if text.isupper() else [*_runs(text)]  # where all is in capitals, capitals mean nothing
    within = {word for run in runs for word in run.words[run.opens :]}
    for run in runs:
        first = run.words[0]
        if not run.opens or len(run.words) > 1 or first in within or name_key(first) in known or _acts(text, run):
            found[run.start] = text[run.start : run.end]
    keys = (name_key(name) for _, name in sorted(found.items()))
    return tuple(dict.fromkeys(key for key in keys if key))


# --- what is marked as a name ---

_POSSESSIVE = re.compile(r"['’]s?$")
_MARKS = re.compile(r"[@#\"“«「『《`]|://")
_MARKED = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\w{1,12}://\S+"  # code and addresses hold no names
    r"|(?<![\w.+-])(?P<mail>[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+)"
    r"|(?<!\w)(?P<handle>[@#][^\W\d]\w*)"
    r"|“(?P<curly>[^“”\n]{1,80})”|«\s?(?P<guillemets>[^«»\n]{1,80}?)\s?»"
    r"|「(?P<corner>[^「」\n]{1,80})」|『(?P<white>[^『』\n]{1,80})』|《(?P<book>[^《》\n]{1,80})》"
    r"|\"(?P<quoted>[^\"\n]{1,80})\"",
    re.DOTALL,
)


def _blank(match: re.Match[str]) -> str:
    # Speech in straight quotes may hold names; everything else marked has been taken whole, or holds none. A mark stands
    # where a word stood, so that what follows it does not look like the beginning of a sentence.
    spoken = match.lastgroup == "quoted" and not _is_title(match["quoted"])
    return match.group() if spoken else "\x00" * len(match.group())


def _is_title(name: str) -> bool:
    """Whether something in quotes is a title or a name rather than speech."""
    first = name[0]
    return first.isalnum() and first == first.upper() and name[-1] not in ".,!?…" and name.count(" ") < 8


# --- runs of capitalised words ---

_WORD = re.compile(r"[^\W_]+(?:['’.&-][^\W_]+)*")
_LINK = re.compile(
    r" (?:(?P<of>of)(?: the)?|(?:de|van|von)(?: l[ao]s?| de[rn]?)?|d[aio]|dos|del|della|la|le|el|al|bin|&) "
)
_CONTRACTION = re.compile(r".*(?:n['’]t|['’](?:ve|re|ll|d|m))")
_INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])*")
_ITEM = re.compile(r"(?:\A|\n)[ \t]*[-+]\Z")
_OPENS = frozenset(".!?…:\n\r\t>*•|\"'“‘«(–—")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ABBREVIATIONS = _words("mr mrs ms dr prof st sr jr")
CALENDAR_WORDS = _words(
    "january february march april may june july august september october november december jan feb mar apr jun jul aug sep "
    "sept oct nov dec monday tuesday wednesday thursday friday saturday sunday mon tue tues wed thu thur thurs fri sat sun"
)
"""Months and weekdays, which are written with a capital and name nobody."""
COMMON_WORDS = _words(
    "i i'm i've i'll i'd im ive a an the this that these those there here it its it's he she we you they his her our your "
    "their my mine who what when where why how which whose whom and or but nor so yet if then than because since while as at "
    "by for from in into of off on onto out over to up with without about after again against all also although always any "
    "anyone anything are am is was were be been being can could cannot can't do does did don't doesn't didn't down during each "
    "either else even ever every everyone everything few first last next finally had has have having however just least less "
    "let let's like lots many maybe me might more most much must need neither never no nobody none not nothing now okay once "
    "one two three four five six seven eight nine ten only other others otherwise perhaps please quite rather same several "
    "shall should some someone something sometimes soon still such super sure them though through thus today tomorrow tonight "
    "too under unless until us very via wait want wants well whatever whenever whether will would won't yes yesterday yeah yep "
    "nope nah hey hi hello hiya bye goodbye thanks thank congrats congratulations wow whoa woah oh ooh ah aha haha hah hmm hm "
    "mm um uh ugh gosh ok ah aww aw yay omg lol welcome sorry great good nice cool awesome amazing absolutely definitely "
    "exactly totally right wonderful fantastic perfect glad happy best morning afternoon evening night life work family "
    "friends people music art nature love time kids pets home school money ps pps re fyi btw asap faq note todo tldr ai dr mr "
    "mrs ms mom dad mum ceo cfo cto coo vp stay rest fingers bet yo woohoo remember"
)
"""What begins sentences without being a name, and is never the first word of one either."""
_FORMS = ("ing", "ed", "ly")  # at the beginning of a sentence more often a verb or an adverb than a name
_NO_ACTS = _words("need feed speed indeed exceed proceed succeed seed weed bed red shed")
_LONGEST = 8  # words; a longer row is a headline
_SHOUTED = 3  # words in capitals in a row, from which on capitals mean nothing


@dataclass(frozen=True, slots=True)
class _Run:
    """Capitalised words in a row; ``opens`` where the first of them begins a sentence and so may have its capital from that."""

    start: int
    end: int
    words: tuple[str, ...]
    opens: bool


def _runs(text: str) -> Iterator[_Run]:
    row: list[re.Match[str]] = []
    for match in _WORD.finditer(text):
        word = match.group()
        if word.islower() or not _is_capital(word):
            continue
        if row and not _continues(row, match, text):
            yield from _trimmed(row, text)
            row = []
        row.append(match)
    yield from _trimmed(row, text)


def _is_capital(word: str) -> bool:
    if word[0].isupper() or word[0].istitle():
        return True
    inner = word[1:]
    return word[0].isalpha() and not inner.isupper() and any(map(str.isupper, inner))  # iPhone


def _continues(row: list[re.Match[str]], word: re.Match[str], text: str) -> bool:
    """Whether a capitalised word belongs to the name that the row before it spells."""
    last = row[-1].group()
    gap = text[row[-1].end() : word.start()]
    if gap == " ":
        return not _POSSESSIVE.search(last)
    if word.group().casefold() in COMMON_WORDS:
        return False
    if gap == ". ":
        return _INITIALS.fullmatch(last) is not None or last.casefold() in _ABBREVIATIONS
    link = _LINK.fullmatch(gap)
    # "Bank of Wales" is one name, "Pell Halloran of Carag Press" two.
    return (
        link is not None
        and last.casefold() not in COMMON_WORDS
        and not (link["of"] and len(row) > _is_common(row[0].group()) + 1)
    )


def _trimmed(row: list[re.Match[str]], text: str) -> Iterator[_Run]:
    first, last = 0, len(row)
    opens = bool(row) and _begins(text, row[0].start())
    while first < last and (
        _is_common(row[first].group()) or (opens and first + 1 < last and row[first].group().endswith(_FORMS))
    ):
        first, opens = first + 1, False
    while first < last and _is_common(row[last - 1].group()):
        last -= 1
    words = tuple(match.group() for match in row[first:last])
    if not 0 < len(words) <= _LONGEST or (
        len(words) == 1 and (words[0].casefold() in CALENDAR_WORDS or len(words[0]) == 1)
    ):
        return
    if len(words) >= _SHOUTED and all(word.isupper() for word in words):
        return
    yield _Run(row[first].start(), row[last - 1].end(), words, opens)


def _is_common(word: str) -> bool:
    return word.casefold() in COMMON_WORDS or _CONTRACTION.fullmatch(word) is not None


def _begins(text: str, start: int) -> bool:
    """Whether a word begins a sentence, a line, a quotation or an item."""
    before = text[max(0, start - 8) : start].rstrip(" ")
    if not before:
        return True
    if before[-1] == "." and (word := _WORD.search(before.split()[-1])):
        return not _INITIALS.fullmatch(word.group()) and word.group().casefold() not in _ABBREVIATIONS
    return before[-1] in _OPENS or _ITEM.search(before) is not None


_ACT = re.compile(r" (?:and [A-Z][a-z]|(?:[a-z]+ly )?(?P<verb>[a-z]{2,}ed)\b)")


def _acts(text: str, run: _Run) -> bool:
    """Whether the word at the beginning of a sentence does something, or stands in a list with another name."""
    if run.words[0].endswith(_FORMS):
        return False
    act = _ACT.match(text, run.end)
    return act is not None and act["verb"] not in _NO_ACTS
