"""What in a text its author says in earnest: not in a question, a condition, a story, a quotation or code.

The rules that read facts and standing wishes share this test, because it is where such rules go wrong: "if I lived in
Lisbon", "write a story in which I live in Lisbon" and "do I live in Lisbon?" hold the words of a fact and none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from holdfast.encode.dates import Span, find_dates

_HIDDEN = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|^[ \t]*>[^\n]*|“[^“”\n]*”|\"[^\"\n]*\"|^(?: {4}|\t)[^\n]*", re.DOTALL | re.MULTILINE
)
_STOPS = re.compile(r"[.!?…](?=\s|$)|\n")
_FICTION = re.compile(
    r"\b(?:imagine|suppose|supposing|pretend|hypothetical\w*|story|character|novel|lyrics|poem|translate|rewrite|rephrase|"
    r"paraphrase|draft|compose|role-?play|act\s+as|for\s+example|e\.g|i\.e|sentence|write\s+(?:a|an|me|the|in))\b",
    re.I,
)
_UNSURE = re.compile(
    r"\b(?:if|whether|wish|hope|hoping|maybe|perhaps|might|could|would|should|unless|until|once|when|whenever|before|after|"
    r"says?|said|told|tells?|asked|thought|believe[sd]?|dream\w*|as\s+though|like)\b[^,;:]*$|\b(?:\w+n['’]t|not|never|nor)"
    r"(?:\s+\w+){0,2}\s*$",
    re.I,
)
_ASKS = re.compile(
    r"(?:(?:so|and|but|well|hey|hi|ok|oh|also|wait)[, ]+)?(?:do|does|did|is|are|am|was|were|can|could|will|would|should|shall|"
    r"has|have|had|what|who|whom|where|when|why|how|which)\b",
    re.I,
)
_TAG = re.compile(r",\s*(?:right|correct|yes|no|okay|isn['’]t \w+|aren['’]t \w+|don['’]t \w+|doesn['’]t \w+)\s*$", re.I)
_RELATIVE = re.compile(r"\b(?:which|that|what|whom?)\s+\Z", re.I)
_NEAR = 300  # characters of a sentence that are looked at on either side


@dataclass(frozen=True)
class Said:
    """A text, who says it and when: what parts of it are said in earnest."""

    text: str
    author: str
    when: datetime

    @cached_property
    def has_capitals(self) -> bool:
        """Whether its author uses capitals at all; where not, they tell nothing about names."""
        return any(map(str.isupper, self.text))

    @cached_property
    def _hidden(self) -> list[tuple[int, int]]:
        return [match.span() for match in _HIDDEN.finditer(self.text)]

    def sentence(self, start: int, end: int) -> tuple[int, int]:
        """Where the sentence that holds a stretch begins and ends; at most some hundred characters away."""
        low = max(0, start - _NEAR)
        begins = low + max((match.end() for match in _STOPS.finditer(self.text[low:start])), default=0)
        stop = _STOPS.search(self.text, end, end + _NEAR)
        return begins, stop.start() if stop else min(len(self.text), end + _NEAR)

    def asserts(self, start: int, end: int) -> bool:
        """Whether the author says these words as true: no question, condition, report, fiction, quotation or code."""
        if any(low <= start < high and end <= high for low, high in self._hidden):
            return False
        begins, ends = self.sentence(start, end)
        before, after = self.text[begins:start], self.text[end:ends]
        if _FICTION.search(before) or _UNSURE.search(before):
            return False
        if self.text[ends : ends + 1] == "?":
            # "I live in Lisbon, can you suggest a park?" asserts; "Do I live in Lisbon?" and "..., right?" do not.
            asked = not re.search(r"[,;:–—]|\b(?:and|but|so)\b", after) or _TAG.search(after) is not None
            return not asked and not (_ASKS.match(before.lstrip()) and "," not in before)
        return True

    def is_relative(self, start: int) -> bool:
        """Whether the words that begin there only describe something: "the house that I love" loves no house in general."""
        return _RELATIVE.search(self.text, max(0, start - 8), start) is not None

    def dates(self, start: int, end: int) -> list[Span]:
        """The time expressions in the sentence around a stretch, with offsets into the whole text."""
        begins, ends = self.sentence(start, end)
        return [
            Span(begins + one.start, begins + one.end, one.text, one.first, one.last, one.grain)
            for one in find_dates(self.text[begins:ends], self.when)
        ]
