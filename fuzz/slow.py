"""Time: whatever is repeated to 100 kB, no reader takes longer than SECONDS for it.

A regular expression that tries a text in the square of its length shows only where the text is long, so a text here is a reader, a
beginning, a piece that is repeated, and an end.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable

from fuzz import answers, carried, readers, records, sources, words
from fuzz.base import ANA, CUT, ID, MOST, NOW, SECONDS, Target, law, parts, said, seconds
from holdfast.cli import chats
from holdfast.cli.excerpt import excerpt
from holdfast.cli.screen import plain, wrap
from holdfast.cube import Cube, Ref, Scope, utc
from holdfast.encode.claims import find_claims
from holdfast.encode.dates import find_dates
from holdfast.encode.junk import why_nothing
from holdfast.encode.people import find_names, name_key
from holdfast.encode.slots import plain as key
from holdfast.encode.standing import find_standing
from holdfast.guard.admission import Admission
from holdfast.guard.analogy import applied
from holdfast.guard.chains import read_chain, structured, target
from holdfast.guard.conform import conform, ground
from holdfast.guard.echoes import echoed
from holdfast.guard.echoes import said as says
from holdfast.guard.judge import read_judgement
from holdfast.guard.schema import identifier, record, short_text
from holdfast.guard.screening import seen, signals
from holdfast.guard.sketch import sketch
from holdfast.guard.sql import sql
from holdfast.guard.stance import denies
from holdfast.guard.strict_json import first_object
from holdfast.guard.workers import drop_instructions
from holdfast.manage.statements import statement_of
from holdfast.retrieve.context import disarmed, line, without_recalled
from holdfast.retrieve.passages import passages
from holdfast.retrieve.query import analyse
from holdfast.retrieve.signs import signs
from holdfast.retrieve.text import fold_terms
from holdfast.store.access import place_of
from holdfast.store.base import Operation
from holdfast.store.transfer import read_jsonl, read_markdown


def _done(text: str) -> dict[str, object]:
    """A record's data, of which each part says that."""
    return {"operation": text, "object": 4711, "steps": [{"tool": text, "args": {"to": [text, 4711]}}]}


_NAMED = record(name=short_text(), id=identifier())

READERS: dict[str, Callable[[str], object]] = {
    "admission": lambda text: Admission().admit([Operation.add(said(text, taint="web:a"))]),
    "analogy": lambda text: [
        applied(asked, said(about).with_(data=_done(acts)))
        for asked, about, acts in (
            (text, text, "b2 4711"),
            (text, "b2 4711", "b2 4711"),
            ("b1 4712", text, text),
            ("b1 4712", "b2 4711", text),
        )
    ],
    "chain": lambda text: (read_chain(text), target(text)),
    "chats": lambda text: [chats.cubes(some, ANA, source=None, backdate=False) for some in chats.parse(text)],
    "claims": lambda text: find_claims(text, "Ana", NOW),
    "dates": lambda text: find_dates(text, NOW),
    "disarmed": disarmed,
    "echoes": lambda text: echoed(text, {Ref(ID, version): says(text[version:]) for version in (1, 2)}),
    "excerpt": lambda text: excerpt(text, "what is it?"),
    "ground": lambda text: ground({"name": text[:9], "id": text[9:20]}, _NAMED, text),
    "instructions": drop_instructions,
    "json": first_object,
    "jsonl": lambda text: list(read_jsonl(io.StringIO(text), ANA)),
    "judgement": lambda text: read_judgement(text, 3),
    "junk": lambda text: (why_nothing(text), why_nothing(text[:100])),
    "key": key,
    "line": lambda text: (line(said(text)), line(said(text, taint="web:a")), line(said("a", author=text))),
    "markdown": lambda text: list(read_markdown(io.StringIO(text), ANA)),
    "name": name_key,
    "names": find_names,
    "passages": passages,
    "place": place_of,
    "release": lambda text: sources.proposed(text),
    "query": lambda text: analyse(text, ("Ana Lima", "Bo")),
    "recalled": without_recalled,
    "record": lambda text: Cube.from_dict({"scope": text, "text": text, "kind": text, "valid_from": text}),
    "scope": Scope.parse,
    "screen": lambda text: wrap(plain(text), 80),
    "seen": seen,
    "signals": signals,
    "signs": lambda text: signs(said(text)),
    "sketch": sketch,
    "sql": lambda text: sql("", said(f"select {text}")),
    "sql block": lambda text: sql("", said(f"```sql\nselect 1```{text}")),
    "standing": lambda text: find_standing(text, "Ana", NOW),
    "stance": denies,
    "statement": lambda text: statement_of(
        said("a").with_(data={"subject": text, "attribute": text, "value": text}), NOW
    ),
    "strings": lambda text: conform({"name": text, "id": text}, _NAMED),
    "structured": lambda text: structured()(
        text, said("a").with_(data={"operation": text, "steps": [{"tool": text, "args": {"to": text}}]})
    ),
    "terms": lambda text: fold_terms(said(text)),
    "time": utc,
}

KNOWN: dict[str, tuple[tuple[str, str, str], ...]] = {
    "admission": (("", "<" + " " * 9_000, ""),),
    "analogy": (("", "a1 ", ""), ("", "1-", ""), ("", "4711 ", ""), ("", "1" * 99 + "_", "a")),
    "chain": (("a", "\u0315\u0300", ""),),
    "claims": (
        ("", "“", ""),
        ("I live in ", "Lis", ""),
        ("My favourite a a is definitely the aa a ", "or ", "\n!"),
        ("I love ", "a and ", ":5"),
        ("", "my favourite film is or or or or or or or or or or or or or or or or or or or or: ", ""),
        ("", "I moved from Aa to Bb. ", ""),
    ),
    "dates": (("", "1 ", ""), ("", "between may and ", ""), ("", "May 3rd, ", "")),
    "disarmed": (("", "a.", ""), ("", "<tool_call ", ""), ("", "a:", ""), ("", "//", ""), ("", "\u200d", "")),
    "instructions": (("", "word ", ""), ("", "<a>", "")),
    "judgement": (("", "[", ""), ("", "]", "")),
    "line": (("<", " ", ""), ("", "< ", ""), ("", "[", "")),
    "echoes": (("", "a'", ""), ("", "word ", "")),
    "excerpt": (("", "a\n", ""),),
    "name": (("a", "\u0315\u0300", ""),),
    "names": (("", "Ana of ", ""), ("", "“", ""), ("", "A'", "")),
    "passages": (("", "word ", ""),),
    "release": (("a", "\u0315\u0300", ""),),
    "query": (("", "order ", ""), ("", "the order in ", ""), ("", "Ana's ", "")),
    "recalled": (("", "<memories>", ""), ("<mem" * 2_000, "<memories><memory>[</memories>", "ories><memory>[" * 2_000)),
    "screen": (("", "中", ""), ("", "中 ", "")),
    "signals": (("", "\n", ""), ("", "![", ""), ("![](http://", "?", ""), ("<", " ", ""), ("", "trust ", "")),
    "sql": (("", "(copy ", ""), ("", "[a", ""), ("", "(update t set a ", "")),
    "sql block": (("```", "\n", ""), ("", "```", "")),
    "standing": (
        ("", "\n", ""),
        ("Always use a", " ", ":5"),
        ("", ";avoid ", ""),
        ("", "and: ", ""),
        ("I prefer ", "a over ", "a:5"),
        ("I prefer a", " ", "!:5"),
        ("Never use ", "x.", ""),
    ),
    "terms": (("a", "\u0315\u0300", ""), ("", "ﷺ", ""), ("", "a'", "")),
}
"""What was slow once, or is nearly so: a beginning, what is repeated, an end."""


def pumped(begin: str, piece: str, end: str, size: int = MOST) -> str:
    """A text of about that size."""
    return begin + piece * max(1, (size - len(begin) - len(end)) // max(1, len(piece))) + end


def slow(text: str) -> None:
    """A reader is done with 100 kB within SECONDS."""
    name, begin, piece, end = parts(text, 4)
    read = READERS.get(name)
    if read is None or not piece:
        return
    short = pumped(begin, piece, end, MOST // 8)
    # What takes the square of the length takes 64 times as long for the whole.
    if seconds(lambda: read(short)) < SECONDS / 64:
        return
    took = seconds(lambda: read(pumped(begin, piece, end)))
    law(took <= SECONDS, "a reader is quick", name, begin, piece, end, took)


_PIECES = tuple(
    dict.fromkeys(
        word
        for module in (words, readers, answers, carried, records, sources)
        for some in module.TARGETS
        for word in some.words
        if 0 < len(word) <= 40
    )
)
_MARKS = tuple(" \n\t.,;:!?-*'\"“”‘’«»「」()[]{}<>|/\\#@&=_`~%$€0aAzÉ中\u0301\u200d\u2028")
TARGETS = (Target("slow", slow, (*(f"{name}{CUT}" for name in READERS), CUT, *_MARKS, *_PIECES)),)


def texts() -> list[str]:
    """What is known to be hard, as inputs of the target."""
    return [CUT.join((name, *one)) for name, some in KNOWN.items() for one in some]


if __name__ == "__main__":
    print(
        json.dumps({text.split(CUT)[0]: round(seconds(lambda some=text: slow(some)), 2) for text in texts()}, indent=1)
    )
