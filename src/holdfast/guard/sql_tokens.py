"""How databases cut an SQL text into tokens: what one takes for a string or a comment, another runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """The tokens of a family of databases; ``nested``: whether a comment may stand in a comment."""

    pattern: re.Pattern[str]
    nested: bool = False


_PLAIN = r"(?P<string>'(?:[^']|'')*)(?:'|\Z)"
_ESCAPING = r"(?P<string>'(?:[^'\\]|''|\\.)*)(?:'|\Z)"
_REST = r"|(?P<word>[^\W\d]\w*(?:\.\w+)*)|(?P<mark>[;(),*=])|."


def _dialect(*forms: str, nested: bool = False) -> Dialect:
    return Dialect(re.compile("|".join(forms) + _REST, re.DOTALL), nested)


DIALECTS = (
    # SQLite, SQL Server
    _dialect(
        r"--[^\n]*", r"(?P<comment>/\*)", _PLAIN, '"(?P<name>[^"]*)"', "`(?P<other>[^`]*)`",
        r"\[(?P<third>[A-Za-z_][^\]\n]{0,127})\]",
    ),
    # MySQL: a backslash escapes, a hash begins a comment and two dashes only before a blank, what stands in /*! */ is run
    _dialect(
        r"--(?=\s|\Z)[^\n]*", r"#[^\n]*", r"/\*M?!\d*|\*/", r"(?P<comment>/\*)", _ESCAPING, r'"(?P<name>(?:[^"\\]|\\.)*)(?:"|\Z)',
        "`(?P<other>[^`]*)`",
    ),
    # PostgreSQL: strings in $$ or, with a backslash that escapes, in E'', and comments in comments
    _dialect(
        r"--[^\n]*", r"(?P<comment>/\*)", r"(?P<dollar>\$(?:[^\W\d]\w*)?\$)", f"[eE]{_ESCAPING.replace('string', 'other')}", _PLAIN,
        '"(?P<name>[^"]*)"', nested=True,
    ),
)  # fmt: skip
"""The first is the one that says what a text is; what the others find in it besides is added."""

_AMBIGUOUS = re.compile(r"[\\#$\[]|/\*|--")
_BRACKETS = re.compile(r"/\*|\*/")


def readings(text: str) -> list[list[str]]:
    """The tokens of a text as each dialect cuts it; once where all cut it alike."""
    some = DIALECTS if _AMBIGUOUS.search(text) else DIALECTS[:1]
    return [list(_tokens(text, dialect)) for dialect in some]


def _tokens(text: str, dialect: Dialect) -> Iterator[str]:
    """Words and marks in lower case; quoted names as words, strings with the quote before them, comments left out."""
    at = 0
    while found := dialect.pattern.match(text, at):
        at = found.end()
        if found.lastgroup == "comment":
            at = _past_comment(text, at, dialect.nested)
        elif found.lastgroup == "dollar":
            end = text.find(found["dollar"], at)
            yield "'" + text[at : end if end >= 0 else len(text)].lower()
            at = end + len(found["dollar"]) if end >= 0 else len(text)
        elif found.lastgroup and (token := found[found.lastgroup]):
            yield token.lower()


def _past_comment(text: str, at: int, nested: bool) -> int:
    depth = 1
    while depth and (bracket := _BRACKETS.search(text, at)):
        at = bracket.end()
        depth += -1 if bracket[0] == "*/" else int(nested)
    return len(text) if depth else at
