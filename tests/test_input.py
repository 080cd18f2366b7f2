"""Whatever is handed over: kept verbatim and found again, or refused with a reason. Nothing is dropped in silence."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.chat import count_tokens
from holdfast.cube import Channel, Cube, Kind, Origin, Scope, utc
from holdfast.encode.turns import to_cubes
from holdfast.errors import HoldfastError, InputError, ScopeError
from holdfast.memory import Memory
from holdfast.retrieve.context import CLOSE, NOTICE, OPEN, line, pack, without_recalled
from holdfast.retrieve.hits import Hit
from holdfast.retrieve.text import tokens
from holdfast.store.base import Where
from support import ANA, HashEmbedder, open_memory


@pytest.fixture
def memory(folder: Path) -> Iterator[Memory]:
    with open_memory(folder) as opened:
        yield opened
        assert opened.verify() == []


# --- texts ---

SCRIPTS = {
    "Latin": ("Ana ist nach München gezogen", "münchen"),
    "Greek": ("Η Άννα μετακόμισε στην Αθήνα", "αθηνα"),
    "Cyrillic": ("Анна переехала в Москву весной", "москву"),
    "Arabic": ("انتقلت آنا إلى القاهرة", "القاهرة"),
    "Hebrew": ("אנה עברה לירושלים בקיץ", "לירושלים"),
    "Devanagari": ("अन्ना दिल्ली चली गई", "दिल्ली"),
    "Bengali": ("আনা কলকাতা চলে গেছে", "কলকাতা"),
    "Tamil": ("அனா சென்னை சென்றார்", "சென்னை"),
    "Thai": ("แอนนาย้ายไปกรุงเทพฯ", "กรุงเทพ"),
    "Han": ("安娜搬到了上海居住", "上海"),
    "Japanese": ("アナは東京に引っ越しました", "東京"),
    "Hangul": ("안나는 서울로 이사했다", "서울"),
    "Georgian": ("ანა თბილისში გადავიდა", "თბილისში"),
    "Amharic": ("አና ወደ አዲስ አበባ ተዛወረች", "አበባ"),
    "Khmer": ("អាណាបានផ្លាស់ទៅភ្នំពេញ", "ភ្នំពេញ"),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_memory_is_found_by_a_search_in_its_own_script(memory: Memory, script: str) -> None:
    for name, (text, _) in SCRIPTS.items():
        memory.add(text, source=name)
    text, query = SCRIPTS[script]
    hits = memory.search(query, k=3)
    assert hits and hits[0].text == text, [hit.text for hit in hits]


def test_more_than_twelve_scripts() -> None:
    assert len(SCRIPTS) >= 12


@pytest.mark.parametrize(
    "text",
    [
        "👍",
        "Ana 🦊 likes foxes 🏳️‍🌈 and 👩‍👩‍👧",
        "null \x00 byte \x00",
        "\x00",
        "half \ud800 a character \udfff",
        "\u202eright to left override\u202c",
        "שלום Ana مرحبا",
        "zero\u200bwidth\ufeff",
        "e\u0301 and é and ﬁ",
        "tab\tnew\nline\r\nreturn\x0b\x0c\x1c\x85\u2028",
        "{'json': \"quotes\"} \\ \\\\ ' ; DROP TABLE cubes; --",
        "%s %d {} {0} ${x}",
        "  blanks around  ",
        "\u00a0",
        "1",
        "a" * 5000,
        "𝕬𝖓𝖆 𒀀 𓀀",
        "\U0010ffff",
    ],
)
def test_a_text_comes_back_as_it_was(memory: Memory, text: str) -> None:
    added = memory.add(text)
    if not added.ids:
        assert added.reasons and not text.strip().strip("\x00"), (
            "only what holds no word may be left out, with a reason"
        )
        return
    assert memory.get(added.ids[0]).text == text
    assert [cube.text for cube in memory.select()] == [text]
    assert memory.add(text).duplicates == added.ids
    memory.flush()
    assert set(memory.status()["backlog"]) <= {"embed"}, "what needs no embedder is done"
    if tokens(text):
        assert [hit.text for hit in memory.search(text)] == [text]
        assert text.replace("<", "&lt;")[:20] in memory.context(text, budget=10_000)
    memory.search(text, user="nobody")
    memory.forget(added.ids[0]).verify()


@given(st.text(max_size=200))
def test_any_text_can_be_searched_for_and_any_text_kept(text: str) -> None:
    cubes, reasons = to_cubes(text, ANA)
    assert bool(cubes) != bool(reasons)
    assert all(cube.text == text for cube in cubes)
    tokens(text)


@pytest.mark.parametrize(
    "empty", ["", " ", "\n\t ", "...", "!?", [], [""], ["", "  "], {"role": "user", "content": ""}, iter([])]
)
def test_what_holds_nothing_is_not_kept_and_says_why(memory: Memory, empty: object) -> None:
    added = memory.add(empty)  # type: ignore[arg-type]
    assert added.ids == () and added.duplicates == () and not added
    assert added.reasons and all(reason for reason in added.reasons)
    assert memory.store.head()[0] == 0


def test_ten_megabytes(folder: Path) -> None:
    rng = random.Random(1)
    words = ["lisbon", "porto", "tea", "river", "monday", "Ana", "moved", "seven", "blue", "yesterday."]
    text = " ".join(rng.choice(words) for _ in range(1_800_000)) + " Zarathustra at the end"
    assert len(text) > 10_000_000
    with open_memory(folder, embedder=HashEmbedder(dimension=8)) as memory:
        begin = time.process_time()
        id = memory.add(text).ids[0]
        memory.add("a short one about Porto")
        memory.flush()
        assert time.process_time() - begin < 60
        assert memory.get(id).text == text
        assert memory.search("river monday")[0].id == id
        assert memory.status()["backlog"] == {}
        assert count_tokens(memory.context("Porto", budget=500)) <= 500
        memory.search(text, k=1)
        memory.forget(id).verify()


def test_a_text_that_is_too_large_is_refused(memory: Memory) -> None:
    with pytest.raises(InputError, match="MiB"):
        memory.add("é" * (33 * 2**20))
    assert memory.store.head()[0] == 0


# --- wrong types ---


@pytest.mark.parametrize(
    "content", [None, 5, 1.5, b"bytes", bytearray(b"x"), object(), [5], [None], [b"x"], [["nested"]], True]
)
def test_what_is_no_text_is_refused(memory: Memory, content: object) -> None:
    with pytest.raises(InputError):
        memory.add(content)  # type: ignore[arg-type]
    assert memory.store.head()[0] == 0


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "Not A Kind"},
        {"kind": 5},
        {"kind": None},
        {"channel": "radio"},
        {"channel": 5},
        {"trust": 2},
        {"trust": float("nan")},
        {"trust": "high"},
        {"author": 5},
        {"author": "\ud800"},
        {"source": ["x"]},
        {"source": "\udfff"},
        {"at": "soon"},
        {"at": 5},
        {"at": "0001-01-01T00:00:00+09:00"},
        {"session": ""},
        {"session": "\x00"},
        {"session": 5},
        {"usr": "ana"},
        {"userid": "ana"},
    ],
)
def test_a_wrong_option_is_refused(memory: Memory, options: dict[str, object]) -> None:
    with pytest.raises((InputError, ScopeError)):
        memory.add("text", **options)  # type: ignore[arg-type]
    assert memory.store.head()[0] == 0


@pytest.mark.parametrize(
    ("query", "options"),
    [
        (None, {}),
        (5, {}),
        (b"tea", {}),
        (["tea"], {}),
        ("tea", {"k": 0}),
        ("tea", {"k": -1}),
        ("tea", {"k": "5"}),
        ("tea", {"k": 2.5}),
        ("tea", {"k": None}),
        ("tea", {"neighbours": -1}),
        ("tea", {"neighbours": "1"}),
        ("tea", {"kinds": "fact"}),
        ("tea", {"where": "x"}),
    ],
)
def test_a_wrong_question_is_refused(memory: Memory, query: object, options: dict[str, object]) -> None:
    memory.add("tea")
    with pytest.raises((InputError, ScopeError)):
        memory.search(query, **options)  # type: ignore[arg-type]


def test_questions_that_ask_nothing(memory: Memory) -> None:
    memory.add("tea")
    for query in ("", "  ", "\n"):
        hits = memory.search(query)
        assert hits == [] and hits.reason
        assert memory.context(query) == ""
    for query in ("the", "\ud800 tea", "x" * 300_000, "tea " * 50_000):
        memory.search(query)
    nothing = memory.search("tea", user="nobody")
    assert nothing == [] and "nobody" in nothing.reason
    assert memory.context("tea", user="nobody") == ""


@pytest.mark.parametrize("query", ["?", "!", "\x00", "👍", "\ud800", "..."])
def test_a_question_without_a_word_finds_nothing_or_something_but_does_not_crash(memory: Memory, query: str) -> None:
    memory.add("tea")
    memory.search(query)


@pytest.mark.parametrize("id", ["", "x", None, 5, b"x", "' OR 1=1", "0" * 36])
def test_what_is_no_id_is_not_found(memory: Memory, id: object) -> None:
    for call in (memory.get, memory.retract, memory.lineage, lambda id: memory.correct(id, "x")):
        with pytest.raises(HoldfastError):
            call(id)  # type: ignore[operator]


@pytest.mark.parametrize("known", ["soon", 5, object(), "2026-13-01", ""])
def test_a_wrong_time_is_refused(memory: Memory, known: object) -> None:
    with pytest.raises(InputError):
        memory.as_of(known)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        memory.as_of(true_at=known)  # type: ignore[arg-type]


# --- chats ---


def test_shapes_of_messages(memory: Memory) -> None:
    added = memory.add(
        [
            {
                "role": "user",
                "content": "I moved to Lisbon",
                "name": "Ana",
                "timestamp": "2026-01-02T10:00:00+00:00",
                "id": 7,
            },
            {"role": "assistant", "content": "How is it?"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "Sunny."}, {"type": "image_url", "image_url": {"url": "x"}}],
            },
            {"role": "user", "content": ["two", "parts"], "caption": "a picture of the river"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            {"role": "tool", "content": "22 degrees", "tool_call_id": "1"},
            {"role": "human", "content": "at a second", "timestamp": 1_767_348_000},
            {"role": "ai", "content": "at none", "timestamp": None},
            {"role": "system", "content": "You are a helpful assistant."},
            {"content": "without a role"},
            {"role": "user", "content": [{"type": "text", "text": {"value": "an object"}}]},
            "a plain string",
            Cube(memory.scope(), "a cube", "fact"),
        ],
        at="2026-01-01",
    )
    cubes = {cube.text: cube for cube in memory.select()}
    assert list(cubes) == [
        "I moved to Lisbon", "How is it?", "Sunny.", "two\nparts", "22 degrees", "at a second", "at none", "without a role",
        "a plain string", "a cube",
    ]  # fmt: skip
    assert len(added.ids) == 10 and len(added.reasons) == 3
    assert any("system prompt" in reason for reason in added.reasons)
    first = cubes["I moved to Lisbon"]
    assert first.origin == Origin(Channel.USER, "Ana", None, 1.0) and first.data == {"role": "user", "turn": "7"}
    assert first.valid_from == utc("2026-01-02T10:00:00") and cubes["How is it?"].valid_from == utc("2026-01-01")
    assert cubes["at a second"].valid_from == datetime(2026, 1, 2, 10, tzinfo=UTC)
    assert cubes["at none"].valid_from == utc("2026-01-01"), "a stamp of None is none"
    assert [cubes[text].origin.channel for text in ("How is it?", "22 degrees")] == [Channel.ASSISTANT, Channel.TOOL]
    assert cubes["22 degrees"].origin.trust < cubes["How is it?"].origin.trust < 1
    assert cubes["a cube"].kind == Kind.FACT
    assert memory.search("picture of the river")[0].text == "two\nparts"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "wizard", "content": "x"},
        {"role": None, "content": "x"},
        {"role": ["user"], "content": "x"},
        {"role": "user"},
        {"role": "user", "content": 5},
        {"role": "user", "content": {"text": "x"}},
        {"role": "user", "content": "x", "timestamp": "soon"},
        {"role": "user", "content": "x", "timestamp": 1e20},
        {"role": "user", "content": "x", "timestamp": float("nan")},
        {"role": "user", "content": "x", "timestamp": True},
        {"role": "user", "content": "x", "name": "\ud800"},
    ],
)
def test_a_message_that_is_none_is_refused_and_nothing_of_the_chat_is_kept(
    memory: Memory, message: dict[str, object]
) -> None:
    with pytest.raises(InputError):
        memory.add([{"role": "user", "content": "before"}, message])
    assert memory.store.head()[0] == 0


def test_the_same_words_twice_in_a_chat_are_two_turns_and_the_same_chat_twice_is_one(memory: Memory) -> None:
    chat = [
        {"role": "user", "content": "yes"},
        {"role": "assistant", "content": "sure?"},
        {"role": "user", "content": "yes"},
    ]
    first = memory.add(chat)
    again = memory.add(chat)
    assert len(first.ids) == 3 and again.ids == () and again.duplicates == first.ids and again


def test_a_generator_is_as_good_as_a_list(memory: Memory) -> None:
    assert len(memory.add(f"turn {n}" for n in range(1200)).ids) == 1200
    assert len(list(memory.select(Where(limit=2000)))) == 1200


# --- what was recalled ---

words = st.text(st.characters(exclude_categories=("Cs",)), max_size=80)


@given(st.lists(words | st.sampled_from([OPEN, CLOSE, "</memory>", "<memory>", "</ MEMORIES >", NOTICE]), max_size=5))
def test_a_block_that_was_recalled_is_cut_out_whole_whatever_it_holds(texts: list[str]) -> None:
    hits = [
        Hit(Cube(ANA, text or "x", origin=Origin(author=text or None), recorded_at=utc("2026-01-01")), 1.0, 1.0)
        for text in texts
    ]
    block = pack(hits, 100_000).text
    assert without_recalled(block) == ""
    assert without_recalled(f"before {block} after") == "before  after"
    assert without_recalled(block[: max(len(OPEN) + 12, len(block) - 20)]) == "", "also one that was cut short"
    if block:
        assert block.count(OPEN) == block.count(CLOSE) == 1 and block.endswith(CLOSE)
        assert block.lower().count("<memory>") == block.lower().count("</memory>") == len({hit.id for hit in hits})


def test_recalled_text_is_never_remembered_again(memory: Memory) -> None:
    memory.add("Ana moved to Lisbon")
    block = memory.context("Lisbon")
    assert "Ana moved to Lisbon" in block
    head = memory.store.head()
    for echo in (
        block,
        f"\n{block}\n",
        [block],
        iter([block]),
        {"role": "user", "content": block},
        {"role": "user", "content": [{"type": "text", "text": block}]},
        [{"role": "assistant", "content": block}, {"role": "tool", "content": [block]}],
        block[:-20],
    ):
        added = memory.add(echo)  # type: ignore[arg-type]
        assert added.ids == () and added.duplicates == ()
        assert all("recalled" in reason for reason in added.reasons) and added.reasons
    assert memory.store.head() == head
    memory.add([{"role": "user", "content": [{"type": "text", "text": f"{block}\nWhat is the weather there?"}]}])
    memory.add("said already", channel="recalled")
    assert [cube.text for cube in memory.select()] == ["Ana moved to Lisbon", "What is the weather there?"]


def test_words_that_only_look_like_a_block_are_kept(memory: Memory) -> None:
    for text in ("In XML I write <memories> and then the list", "<memories> of summer", "<memory>[x] is a tag"):
        assert memory.get(memory.add(text).ids[0]).text == text


def test_system_prompts_give_a_reason(memory: Memory) -> None:
    for content in ({"role": "system", "content": "You are kind."}, {"role": "developer", "content": "Be brief."}):
        added = memory.add(content)
        assert added.ids == () and "system prompt" in added.reasons[0]
    assert "system prompt" in memory.add("You are kind.", channel="system").reasons[0]


# --- packing ---


@given(st.lists(words.filter(bool), min_size=1, max_size=8), st.integers(0, 300))
def test_what_is_packed_fits(texts: list[str], budget: int) -> None:
    hits = [Hit(Cube(ANA, text, recorded_at=utc("2026-01-01")), 1.0, 1.0) for text in texts]
    packed = pack(hits, budget)
    assert packed.tokens == count_tokens(packed.text) <= max(budget, 0)
    assert all(line(cube) in packed.text for cube in packed.cubes)
    if budget > 40 + sum(count_tokens(line(hit.cube) + "\n") for hit in hits):
        assert len(packed.cubes) == len(hits)


def test_the_budget_is_counted_as_the_caller_counts() -> None:
    hits = [Hit(Cube(ANA, f"tea number {n}", recorded_at=utc("2026-01-01")), 1.0, 1.0) for n in range(20)]
    packed = pack(hits, 100, lambda text: len(text.split()))
    assert 50 < packed.tokens == len(packed.text.split()) <= 100
    assert pack(hits, 0).text == pack(hits, 3).text == ""


def test_scopes_that_cannot_be(memory: Memory) -> None:
    for scope in ({"user": ""}, {"user": "a\nb"}, {"user": "x" * 600}, {"user": b"ana"}, {"tenant": "\x00"}):
        with pytest.raises(ScopeError):
            memory.add("x", **scope)  # type: ignore[arg-type]
    for user in ("ana@example.org", "日本 太郎", "a/b", "..", "-", "%2F", "O'Brien; --", "🦊"):
        id = memory.add("tea", user=user).ids[0]
        assert memory.get(id, user=user).scope == Scope("default", user)
        assert memory.search("tea", user=user)[0].id == id
    assert len(memory.store.partitions()) == 8


def test_a_time_to_live_must_be_a_time(memory: Memory) -> None:
    with pytest.raises((InputError, TypeError)):
        memory.add("x", ttl=5)  # type: ignore[arg-type]
    assert memory.store.head()[0] == 0
    assert memory.add("x", ttl=timedelta(days=1)).ids
