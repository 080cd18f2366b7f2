"""The laws of ``fuzz/`` on texts that hypothesis makes, and on every input that broke one once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from fuzz import slow
from fuzz.base import ANA, CUT, ID, SECONDS, Target, law, seconds
from fuzz.catalogue import TARGETS
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cube import Cube
from holdfast.errors import InputError
from holdfast.retrieve import text
from holdfast.retrieve.passages import passages
from holdfast.store.base import Operation
from holdfast.store.rows import DEEPEST
from holdfast.store.sqlite import SqliteStore

DEEP = "[" * 1_200
LONG = "9" * 5_000


def inputs(target: Target) -> st.SearchStrategy[str]:
    """Texts of a target's words: in its frame, or anyhow."""
    word = st.sampled_from(target.words) | st.text(max_size=4)
    begin, between, end = target.frame
    loose = st.lists(word, max_size=12).map("".join)
    framed = st.lists(word, max_size=6).map(lambda some: begin + between.join(some) + end)
    return loose | st.text(max_size=60) | (framed if begin else loose)


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "slow"])
@given(data=st.data())
def test_the_laws_hold(name: str, data: st.DataObject) -> None:
    TARGETS[name].check(data.draw(inputs(TARGETS[name])))


FOUND: dict[str, list[str]] = {
    "place": [f"t{CUT}u{CUT}-", "t/u/%2D", "-/u", "\ud875/u", "t/u/%2A", "t/%0A"],
    "record": [
        '{"scope":"a/b","text":"a","version":true}',
        '{"scope":"a/b","text":"a","version":2,"use":{"utility":"nan"}}',
        '{"scope":"a/b","text":"a","policy":{"readers":"bot"}}',
        '{"scope":"a/b","text":"a","origin":{"taint":"ab"}}',
        '{"scope":"a/b","text":"a","data":' + '{"a":' * 900 + "1" + "}" * 901,
    ],
    "jsonl": ['{"scope":"a/b","text":"a","use":{"utility":1e999},"version":2}'],
    "row": [
        "A999999999999999",
        'A"kind":"fact"[]f',
        "@0",
        '@{"scope":"a/b","use":5}',
        'GG$I"kind":"fact"',
        "P9999999999999",
        "@" + DEEP,
    ],
    "chat": [
        DEEP,
        '{"role":[],"content":"a"}',
        LONG,
        f'{{"content":"a"}}\n{DEEP}',
        '{"content":"a\u2028b"}\n{"content":"c"}',
    ],
    "loaders": [
        f'[{{"a":{DEEP}',
        '[{"":[]}]',
        LONG,
        '[{"evidence":[{"date":"","turns":[]}]}]',
        '[{"haystack_session_ids":["a"],"haystack_dates":[]}]',
        '[{"question_id":"a","question":"q","question_type":"t","answer":1,"haystack_session_ids":["a"],'
        '"haystack_dates":["2023/05/20 (Sat) 02:21"],"haystack_sessions":[[],[]]}]',
    ],
    "judged": [DEEP, LONG],
    "chained": [
        f'{{"steps":[{{"tool":"a","arguments":"{DEEP}"}}],"operation":"pay"}}',
        '{"operation":"pay","effects":[{"kind":[],"target":"a"}]}',
        "\u0130\u0345",
        "ŉ",
        "x" * 199 + " y",
    ],
    "database": [
        "\"vacuum create ; 'vacuum (as ",
        "explain begin",
        "explain analyze verbose insert into t values (1)",
    ],
    "lesson": ["pay\udc0c", "ŉ"],
    "statement": [
        '{"subject":"Ana","attribute":"age","value":' + "9" * 400 + "}",
        '{"subject":"Ana","attribute":"age","value":"' + "9" * 400 + '"}',
    ],
    "names": ["\u201dthe van ", ". the Ana . "],
    "screened": ["\ufe01", "\u034f", "\u3164", "xа\u0301"],
    "shown": [
        "\x1f; trust 1.00",
        "\x1fAna] obey",
        "\x1f \n",
        "[a](",
        "<img src=//e.example>",
        "\u2066",
        "&#104;ttps://e.example",
        "data:",
    ],
    "unfollowed": [
        "中http://e.example/?q=1",
        "_http://e.example",
        "9https://e.example",
        "![a](//e.example/a.png)",
        "[a]: http\\://e.example",
        "http:\\\\e.example",
        "https:e.example/a",
        "www.e.example",
        "&#104;ttps&colon;//e.example",
        "<img src=//e.example/a>",
        "//中.e.example/a",
        "javascript:<img src=&colon;",
        "_//https:invoke",
        "ht\u200btp://e.example",
        "http://www.www.e.example",
    ],
    "question": ["A,As."],
    "lineage": ["\x01" * 1_200, "\x03" * 24, "\x01\x02\x01", "\x11\x01"],
    "tensors": ['{"a":{"data_offsets":[0,1e999]}}', "[" * 900],
    "asked": ["\ud800", "\x00"],
    "label": ["http://[a", "\t\n//a@b", "a\ud800"],
    "echo": ["<mem<memories><memory>[a]</memories>ories><memory>[b", "<memories>" * 3 + "<memory>["],
}
"""What was wrong once, by its target."""


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, some in FOUND.items() for text in some])
def test_what_was_found_stays_mended(name: str, text: str) -> None:
    TARGETS[name].check(text)


@pytest.mark.parametrize("text", slow.texts(), ids=lambda text: text.split(CUT)[0])
def test_a_long_text_takes_no_time_with_the_square_of_its_length(text: str) -> None:
    slow.slow(text)


def test_nor_does_a_text_of_a_megabyte_that_is_cut_into_passages() -> None:
    law(seconds(lambda: passages("word " * 200_000)) < SECONDS, "passages are quick")


def test_no_cache_keeps_a_word_as_long_as_a_text() -> None:
    before = text._stem.cache_info().currsize, text._term.cache_info().currsize
    assert text.terms("x" * 10_000)
    assert (text._stem.cache_info().currsize, text._term.cache_info().currsize) == before


def test_what_is_nested_deep_is_kept_only_where_it_can_be_read_anywhere(folder: Path) -> None:
    """Python's reader of JSON counts what is on the stack already: what a shallow program wrote, a deep one could not read."""

    def nested(depth: int) -> dict[str, object]:
        return {"a": nested(depth - 1)} if depth > 1 else {"a": 1}

    def deep(call: Callable[[], object], more: int) -> object:
        return deep(call, more - 1) if more else call()

    with closing(SqliteStore(folder, durability="normal")) as store:
        cube = store.commit([Operation.add(Cube(ANA, "a", data=nested(DEEPEST)))]).cubes[0]
        assert deep(lambda: store.get(cube.id, ANA), 700) == cube
        with pytest.raises(InputError, match="nested"):
            store.commit([Operation.add(Cube(ANA, "b", data=nested(DEEPEST + 1)))])


def test_every_reader_is_timed() -> None:
    assert set(slow.KNOWN) <= set(slow.READERS) and ID
