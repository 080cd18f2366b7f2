"""Words for lexical search, in any script: what counts as the same word when a query meets a memory.

Compatibility forms and case are folded (NFKC, casefold), accents are taken off Latin, Greek and Cyrillic letters, English
words are stemmed (Porter, by snowballstemmer), and runs of scripts that are written without spaces (Han, kana, Hangul,
Thai, Lao, Khmer, Myanmar) become overlapping pairs of characters. The same function serves both sides.
"""

from __future__ import annotations

import functools
import re
import struct
import threading
import unicodedata
import zlib
from collections.abc import Callable, Iterable

import snowballstemmer

from holdfast.cube import Cube
from holdfast.letters import composed
from holdfast.retrieve.passages import passages
from holdfast.retrieve.signs import signs

ANALYSER = "3"
"""Changes whenever the same text would give other terms; the store then makes its lexical fold again."""

MAX_TOKENS = 100_000
"""Of a longer text only this many tokens are indexed; the text itself is kept whole."""

# Combining marks belong to the word they stand in (\\w leaves them out): the general ones, and the blocks of the Indic,
# Semitic and Southeast Asian scripts, less their punctuation.
_MARKS = "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670"
_MARKS += "\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963"
_MARKS += "\u0981-\u0983\u09bc-\u09d7\u0a01-\u0a03\u0a3c-\u0a51\u0a81-\u0a83\u0abc-\u0acd\u0b01-\u0b03\u0b3c-\u0b57"
_MARKS += "\u0bbe-\u0bd7\u0c00-\u0c04\u0c3c-\u0c56\u0c81-\u0c83\u0cbc-\u0cd6\u0d00-\u0d03\u0d3b-\u0d57\u0d81-\u0d83"
_MARKS += "\u0dca-\u0df3\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd\u0f71-\u0f84\u102b-\u103e"
_MARKS += "\u1056-\u1059\u17b4-\u17d3"
_WORD = re.compile(rf"(?:[^\W_]|[{_MARKS}])+(?:['’](?:[^\W_]|[{_MARKS}])+)*")
_PLAIN = re.compile("[a-z0-9]+(?:'[a-z0-9]+)*")  # as _WORD finds them where all is ASCII, in a third of the time
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_UNSPACED += "\uf900-\ufaff\U00020000-\U0003ffff"
_RUN = re.compile(rf"[{_UNSPACED}{_MARKS}]+|[^{_UNSPACED}]+")
_FOLDABLE = re.compile(
    "[\u0591-\u05c7\u00c0-\u024f\u0370-\u03ff\u0400-\u04ff\u1e00-\u1fff\u0300-\u036f\u064b-\u0652\u0670\u0640]"
)
_STRIPPED = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0300-\u036f\u064b-\u0652\u0670\u0640]")

_STOP = """
a an and are as at be been but by can could did do does for from had has have he her him his how i if in into is it its
just me my of on or our she so that the their them then there these they this those to was we were what when where which
who whom why will with would you your
"""
STOP_WORDS = frozenset(_STOP.split())
"""Words that say nothing about what a text is about; they are left out wherever any other word is there."""


class _Stemmer(threading.local):
    """One for each thread: the library's keeps the word that it works on, and two threads would mix theirs.

    The library goes by PyStemmer where that is installed (the extra ``fast``): the same stems in a twentieth of the time.
    """

    def __init__(self) -> None:
        self.stem: Callable[[str], str] = snowballstemmer.stemmer("porter").stemWord


_stemmer = _Stemmer()


def fold(text: str) -> str:
    """Case and compatibility forms folded, accents taken off (not the vowel signs of scripts that need them)."""
    text = composed(text).casefold()
    if _FOLDABLE.search(text):
        text = unicodedata.normalize("NFC", _STRIPPED.sub("", unicodedata.normalize("NFD", text)))
    return text


def words(text: str, most: int | None = None) -> list[str]:
    """The words of a text as written, folded, in order; pairs of characters where a script has no spaces. At most ``most``."""
    if text.isascii():
        return _PLAIN.findall(text.lower())[:most]
    found: list[str] = []
    text = fold(text)
    for match in _WORD.finditer(text.lower()):
        word = match[0]
        if word.isascii():
            found.append(word)
        else:
            for run in _RUN.findall(word):
                if re.match(f"[{_UNSPACED}]", run):
                    found += [run[i : i + 2] for i in range(len(run) - 1)] or [run]
                else:
                    found.append(run)
        if most is not None and len(found) >= most:
            return found[:most]
    return found


LONGEST_WORD = 64
"""A longer one is no word of a language: it stands for itself, and no cache keeps it."""


def stem(word: str) -> str:
    """A folded word's stem: English by Porter's rules, other scripts as they are."""
    return word if len(word) > LONGEST_WORD else _stem(word)


@functools.lru_cache(maxsize=262_144)
def _stem(word: str) -> str:
    word = word.replace("’", "'").removesuffix("'s").replace("'", "")
    return _stemmer.stem(word) if word.isascii() and word.isalpha() else word


def tokens(text: str) -> list[str]:
    """The stems of a text, in order, without stop words (which stay when there is nothing else)."""
    return content(text) or [stem(word) for word in words(text, MAX_TOKENS)]


def content(text: str) -> list[str]:
    """The stems of a text, in order, without stop words."""
    return [stem(word) for word in words(text, MAX_TOKENS) if word not in STOP_WORDS]


def term(token: str) -> int:
    """A token as 32 bits. Two words of a vocabulary of 60,000 collide with probability 0.4; a collision costs one
    false candidate, which the other channels then outvote."""
    return _number(token) if len(token) > LONGEST_WORD else _term(token)


def _number(token: str) -> int:
    return zlib.crc32(token.encode("utf-8", "surrogatepass"))


_term = functools.lru_cache(maxsize=262_144)(_number)


def terms(text: str) -> list[int]:
    """The terms of a query: its distinct tokens, in order."""
    return list(dict.fromkeys(term(token) for token in tokens(text)))


def searchable(cube: Cube) -> str:
    """The words a cube is found by: who spoke (a person, not a part in a chat), what was said and shown, and the date."""
    when, author = cube.valid_from, cube.origin.author
    parts = [
        author if author is not None and author not in ROLES else "",
        cube.text,
        str(cube.data.get("caption", "")),
        f"{when:%d %B %Y}" if when is not None else "",
    ]
    return "\n".join(part for part in parts if part)


def embeddable(cube: Cube) -> list[str]:
    """The texts whose vectors a cube is found by: all that was said and shown, then each passage of a long text."""
    cut = passages(cube.text)[:MAX_PASSAGES]
    return [f"{cube.text} {cube.data.get('caption', '')}".strip(), *(cut if len(cut) > 1 else ())]


MAX_PASSAGES = 64
"""Of a longer text only the first passages get vectors of their own; words are indexed throughout."""

ROLES = frozenset({"user", "assistant", "system", "tool", "human", "ai", "function", "document", "developer"})
"""Authors that are parts in a chat, not people."""

RECORD = struct.Struct("<IB")
"""A record of the lexical fold: first (number of tokens, with the row's ``signs`` in the top byte; 0), then a term and how
often it stands in the row (at most 255)."""


def fold_terms(cube: Cube) -> bytes:
    """A row's lexical fold: a head, then (term, count) for each distinct term."""
    return pack_terms(tokens(searchable(cube)), int(signs(cube)))


def pack_terms(found: Iterable[str], flags: int = 0) -> bytes:
    """Tokens as a lexical fold."""
    counts: dict[int, int] = {}
    length = 0
    for token in found:
        key = term(token)
        counts[key] = counts.get(key, 0) + 1
        length += 1
    pack = RECORD.pack
    return pack(length | flags << 24, 0) + b"".join([pack(key, min(count, 255)) for key, count in counts.items()])
