"""Letters as a reader sees them: compatibility forms composed, and what is drawn as nothing told from the rest."""

from __future__ import annotations

import re
import unicodedata

INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff0-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""What is drawn as nothing, for a class of a regular expression: Unicode's default ignorables and its format characters."""

_INVISIBLE = re.compile(f"[{INVISIBLE}]")
# Joiners shape Persian, Indic scripts and emoji, one at a time; beside a letter of ASCII they only hide something.
_BUT_JOINERS = re.compile(f"(?![\u200c\u200d])[{INVISIBLE}]")
_NEEDLESS = re.compile(
    "(?:\\A|(?<=[\x01-\x7f]))[\u200c\u200d]+|[\u200c\u200d]+(?=[\x01-\x7f]|\\Z)|(?<=[\u200c\u200d])[\u200c\u200d]+"
)

# No language stacks more than a few marks on a letter, and sorting them takes time with the square of their number.
_MOST_MARKS = 30
_CROWD = re.compile(rf"[^\x00-\x7f\w]{{{_MOST_MARKS + 1},}}")


def composed(text: str) -> str:
    """The text in NFKC. Of marks on one letter 30 are kept, as Unicode's stream-safe format has it (UAX 15)."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", _CROWD.sub(_thinned, text))


def folded(text: str) -> str:
    """The text composed and without case, so that folding it again changes nothing."""
    # Folding case can undo a composition, and composing can make a letter that has a case.
    return text.lower() if text.isascii() else composed(composed(composed(text).casefold()).casefold())


def visible(text: str) -> str:
    """The text without what is drawn as nothing."""
    return text if text.isascii() else _INVISIBLE.sub("", text)


def legible(text: str) -> str:
    """The text without what is drawn as nothing, but for joiners where letters need them."""
    return text if text.isascii() else _NEEDLESS.sub("", _BUT_JOINERS.sub("", text))


def _thinned(run: re.Match[str]) -> str:
    kept, marks = [], 0
    for character in run[0]:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= _MOST_MARKS:
            kept.append(character)
    return "".join(kept)
