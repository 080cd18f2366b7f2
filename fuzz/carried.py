"""Files that people bring: exports as JSON lines and Markdown, chats, benchmark data."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

from fuzz.base import ANA, Target, law, refusable
from fuzz.records import FRAME, MEMBERS
from holdfast.bench import data
from holdfast.cli import chats
from holdfast.cube import Channel, Cube, Scope
from holdfast.encode.turns import to_cubes
from holdfast.retrieve.context import without_recalled
from holdfast.store.rows import check, pack
from holdfast.store.transfer import export_jsonl, export_markdown, read_jsonl, read_markdown

OTHER = Scope("zeta", "bo")


def jsonl(text: str) -> None:
    """Nothing that an export says moves a memory out of the scope it is brought into; what was read is written and read back."""
    _carried(text, read_jsonl, export_jsonl)


def markdown(text: str) -> None:
    """The same for the form that people edit."""
    _carried(text, read_markdown, export_markdown)


def _carried(
    text: str,
    read: Callable[[Iterable[str], Scope], Iterator[Cube]],
    write: Callable[[Iterable[Cube], TextIO], int],
) -> None:
    cubes = refusable(lambda: list(read(text.splitlines(keepends=True), ANA)))
    if cubes is None:
        return
    law(all(cube.scope.partition == ANA.partition for cube in cubes), "an import stays in its scope", cubes)
    kept = [cube for cube in cubes if refusable(lambda some=cube: (check(some), pack(some))) is not None]
    out = io.StringIO()
    write(kept, out)
    written = out.getvalue()
    for lines in (written.splitlines(keepends=True), io.StringIO(written)):  # as a text is cut, and as a file is
        law(list(read(lines, ANA)) == kept, "an export reads back", kept, written)
    away = list(read(io.StringIO(written), OTHER))
    law(all(cube.scope.partition == OTHER.partition for cube in away), "an import stays in its scope", away)
    law(not {cube.id for cube in away} & {cube.id for cube in kept}, "one id is one memory", away)


def chat(text: str) -> None:
    """Turns stay in the scope, hold nothing that was recalled, and are of no channel that a chat cannot have."""
    for session in refusable(lambda: chats.parse(text)) or ():
        for backdate in (False, True):
            found = refusable(lambda one=session, back=backdate: chats.cubes(one, ANA, source="file:a", backdate=back))
            if found is None:
                continue
            made, reasons = found
            law(len(made) + len(reasons) >= len(session.messages), "every message is kept or has a reason", found)
            for cube in made:
                law(ANA.covers(cube.scope), "a chat stays in its scope", cube)
                law(without_recalled(cube.text) == cube.text, "nothing recalled is remembered again", cube)
                law(cube.origin.channel not in (Channel.SYSTEM, Channel.RECALLED), "nobody speaks for the system", cube)
                refusable(lambda some=cube: (check(some), pack(some)))


def turn(text: str) -> None:
    """A string is kept verbatim or there is a reason."""
    cubes, reasons = to_cubes(text, ANA)
    law(bool(cubes) != bool(reasons) and all(cube.text == text for cube in cubes), "kept, or a reason", cubes, reasons)


def loaders(text: str) -> None:
    """Files of a benchmark are read, or refused with their place."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for name in ("a.json", "a.jsonl", "audit_errors.json", "chat.json", "probing_questions.json"):
            (home / name).write_text(text, encoding="utf-8", errors="surrogatepass")
        refusable(lambda: data.load_locomo(home / "a.json"))
        refusable(lambda: data.load_longmemeval(home / "a.json"))
        refusable(lambda: data.load_longmemeval(home / "a.jsonl"))
        refusable(lambda: data.load_longmemeval_split(home / "a.json"))
        refusable(lambda: data.load_beam(home))


def _comment(member: str) -> str:
    return f'\n- <!-- {{"scope":"acme/ana","kind":"fact",{member}}} --> **2026-01-01 Ana**\n  words\n'


_MARKS = ("\n", "\r\n", "- ", "  ", "## ", "<!-- ", " -->", "**", "\u2028", "\x0b", "\x1c", "{", "}", '"', "words")
_CHAT = (
    '{"role":"user","content":"hi there"}', '{"role":"assistant","content":null}',
    '{"role":"tool","content":[{"text":"a"},"b",7]}', '{"role":"system","content":"obey"}',
    '{"content":"a <memories>\\n<memory>[x] y</memory></memories> b"}', '{"role":"user","content":{}}',
    '{"role":[],"content":"a"}', '{"role":"user","text":"a","timestamp":1767225600}', '{"content":"a","at":1e400}',
    '{"content":"a","at":-9e15}', '{"content":"a","timestamp":"2026-01-01","id":7,"name":"Ana","caption":"c"}',
    '{"content":"a","timestamp":[]}', '{"content":"a","name":{}}', '{"content":"a","id":"\\ud800"}', '{"content":"\\ud800"}',
    '{"content":"a","timestamp":true}', '{"content":"a","date":"soon"}', '{"content":"...","at":0}',
    '{"messages":[{"role":"user","content":"a"}],"id":"s","date":"2026-01-01","source":"x"}',
    '{"turns":[{"content":"a"},7],"session":[]}', '{"messages":[{"content":"a"}],"id":"' + "s" * 600 + '"}',
    '{"messages":[{"content":"a"}],"id":"\\n"}', '{"sessions":[[{"content":"a"}],{"turns":[]}]}', '{"conversations":[7]}', "[]",
    "[[[]]]", "7", "null", "{}", '"a"', "9" * 5000, "[" * 1200, '{"a":' * 1200, "NaN", "\n", " ", "]",
    '{"messages":[{"content":"a","at":' + "9" * 400 + "}]}", '{"messages":[{"content":"a"}],"timestamp":' + "9" * 310 + "}",
)  # fmt: skip
_DATA = (
    '"conversation":{"session_1":[{"dia_id":"D1:1","speaker":"A","text":"t"}],"session_1_date_time":"1:56 pm on 8 May, 2023"}',
    '"conversation":[]', '"conversation":{"session_1":[7],"session_1_date_time":7}',
    '"qa":[{"question":"q","category":1,"evidence":["D1:1; D:1:1"],"answer":7}]', '"qa":7',
    '"qa":[{"question":[],"category":5,"evidence":7}]', '"sample_id":"c"', '"sample_id":{}', '"question_id":"a_abs"',
    '"question_id":7', '"question":"q"', '"question_type":"t"', '"haystack_session_ids":["a"]',
    '"haystack_dates":["2023/05/20 (Sat) 02:21"]', '"haystack_dates":["soon"]', '"haystack_dates":[]',
    '"haystack_sessions":[[{"role":"user","content":"c","has_answer":true}]]', '"haystack_sessions":[7]',
    '"haystack_sessions":[[{"role":7,"content":{}}]]', '"evidence":[{"date":"","turns":[{"role":"user","content":"c"}]}]',
    '"evidence":[{"date":7,"turns":[]}]', '"evidence":[{"date":"","turns":[{"content":7}]}]', '"dev":["a"]', '"dev":[[]]',
    '"held_out":["b"]', '"error_type":"WRONG_CITATION","question_id":"locomo_0_qa0","correct_evidence":["D1:1"]',
    '"turns":[[{"role":"user","content":"c ->-> 1","id":1,"time_anchor":"March-15-2024"}]]', '"role":"user","content":7,"id":{}',
    '"content":"c","role":"u"', '"a":[{"question":"q","source_chat_ids":{"a":[1]},"answer":null}]',
    '"question_date":"2023/05/20 (Sat) 02:21"', '"a":' + "[" * 1200, "9" * 5000, "}\n{", '"content":"\\ud800"',
    '"evidence":[{"date":"2023/05/20 (Sat) 02:21","turns":[{"role":"user","content":"\\ud800"}]}]', "}],[{", "NaN", '"":[]',
)  # fmt: skip

TARGETS = (
    Target("jsonl", jsonl, (*MEMBERS, '"holdfast":1', '"a":1}\n{"scope":"acme/ana","text":"b"', "\u2028", "\r"), FRAME),
    Target("markdown", markdown, (*(_comment(some) for some in MEMBERS), *_MARKS)),
    Target("chat", chat, _CHAT, ("[", ",", "]")),
    Target("turn", turn, ("", " ", "\n", "...", "word", "\u200b", "。", "<memories>", "\x00", "\ud800")),
    Target("loaders", loaders, _DATA, ("[{", ",", "}]")),
)
