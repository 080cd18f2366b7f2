"""Standing instructions and preferences: what is a rule for every answer, and what is a request or a saying."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cube import Channel, Cube, Kind, Origin, Scope
from holdfast.encode.base import Experience
from holdfast.encode.standing import StandingEncoder, find_standing
from holdfast.store.base import Op

SCOPE = Scope("acme", "ana")
NOW = datetime(2023, 6, 9, 15, tzinfo=UTC)


def turn(text: str, at: datetime = NOW, channel: Channel = Channel.USER) -> Cube:
    return Cube(SCOPE, text, valid_from=at, origin=Origin(channel, "ana"))


def found(text: str) -> list[tuple[str, str, bool]]:
    return [(str(one.kind), one.value, one.polarity) for one in find_standing(text, "ana", NOW)]


@pytest.mark.parametrize(
    ("text", "value", "polarity"),
    [
        ("Always use tabs.", "use tabs", True),
        ("Please always answer in French", "answer in French", True),
        ("Always include units when I ask about sizes.", "include units when I ask about sizes", True),
        ("Always water the plants when I ask for the time", "water the plants when I ask for the time", True),
        ("Never use emojis", "use emojis", False),
        ("Please don't use jargon.", "use jargon", False),
        ("Don't call me Robert", "call me Robert", False),
        ("Do not ever mention my ex to me", "mention my ex to me", False),
        ("Stop using bullet points", "using bullet points", False),
        ("From now on, call me Max.", "call me Max", True),
        ("Going forward please don't add comments", "add comments", False),
        ("From now on I want you to answer briefly", "answer briefly", True),
        ("Please remember to cite sources", "cite sources", True),
        ("When I ask about dates, use ISO format", "When I ask about dates, use ISO format", True),
        ("Whenever I send code, never explain it", "Whenever I send code, never explain it", False),
        ("I want you to always reply in German", "reply in German", True),
        ("Keep your answers short.", "Keep your answers short", True),
        ("Nice work! Also, always format code.", "format code", True),
        ("- Always cite sources\n- thanks", "cite sources", True),
    ],
)
def test_instructions(text: str, value: str, polarity: bool) -> None:
    assert found(text) == [("instruction", value, polarity)]


@pytest.mark.parametrize(
    ("text", "value", "attribute"),
    [
        ("I prefer tea over coffee.", "tea", "preference: coffee / tea"),
        ("I prefer coffee to tea", "coffee", "preference: coffee / tea"),
        ("I like tea better than coffee", "tea", "preference: coffee / tea"),
        ("I'd rather walk than drive", "walk", "preference: drive / walk"),
        ("I generally prefer short answers", "short answers", "prefers"),
        ("I prefer simple, minimal dependencies, so help me", "simple, minimal dependencies", "prefers"),
        ("I prefer going to bed by 9:30 pm", "going to bed by 9:30 pm", "prefers"),
        ("My preference is for window seats", "window seats", "prefers"),
        ("My preferred language is Rust.", "Rust", "preferred language"),
        ("Ben Carver strongly prefers LaTeX rather than Markdown", "LaTeX", "preference: latex / markdown"),
        ("I prefer trains, can you book one?", "trains", "prefers"),
    ],
)
def test_preferences(text: str, value: str, attribute: str) -> None:
    (one,) = find_standing(text, "ana", NOW)
    assert (one.kind, one.value, one.attribute) == (Kind.PREFERENCE, value, attribute)
    assert one.subject == ("Ben Carver" if text.startswith("Ben") else "ana")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Always be yourself!",
        "Never give up. Never mind.",
        "Always remember that I care",
        "Don't forget to buy milk. Don't worry!",
        "Make sure to include a title in this essay",
        "I never use tabs and I always use spaces",
        "Do you prefer tea or coffee?",
        "Should I always use tabs?",
        "In the future, I want to visit Rome",
        "When I asked about dates, she used ISO format",
        "I prefer it. I prefer this one over that. I'd prefer if you came",
        "the tool that I prefer",
        "Douglas prefers the former",
        "They prefer tea. People prefer tea. Who prefers tea?",
        '"Always use tabs" is what he said',
        "```\n# Always use tabs\n```",
        "Write a poem: I prefer tea",
        "stop it, stop the car",
    ],
)
def test_what_is_no_standing_wish(text: str) -> None:
    assert found(text) == []


def test_only_masters_give_orders() -> None:
    for channel in Channel:
        operations = StandingEncoder().encode(Experience((turn("Always use tabs.", channel=channel),), NOW))
        assert bool(operations) == (channel in (Channel.USER, Channel.IMPORT))


def test_a_rule_is_kept_in_its_own_words() -> None:
    (operation,) = StandingEncoder().encode(Experience((turn("Hi! Please always use tabs."),), NOW))
    cube = operation.cube
    assert cube is not None and cube.kind == Kind.INSTRUCTION and cube.text == "Please always use tabs"
    assert turn("Hi! Please always use tabs.").text[slice(*cube.data["span"])] == cube.text


@pytest.mark.parametrize(
    ("first", "then", "ends"),
    [
        ("Always use tabs.", "Never use tabs.", True),
        ("Don't use emojis", "Always use emojis", True),
        ("I prefer tea over coffee", "I prefer coffee over tea", True),
        ("My preferred language is Rust", "My preferred language is Go", True),
        ("Always use tabs.", "Never use spaces.", False),
        ("I prefer tea over coffee", "I prefer tea over milk", False),
        ("I prefer short answers", "I prefer long walks", False),
    ],
)
def test_the_opposite_ends_a_wish_and_nothing_else_does(first: str, then: str, ends: bool) -> None:
    encoder = StandingEncoder()
    before = encoder.encode(Experience((turn(first, NOW - timedelta(days=1)),), NOW))[0].cube
    assert before is not None
    after = encoder.encode(Experience((turn(then),), NOW, known=(before,)))
    assert [one.op for one in after] == ([Op.UPDATE, Op.ADD] if ends else [Op.ADD])
    again = encoder.encode(Experience((turn(first + " "),), NOW, known=(before,)))
    assert [one.op for one in again] == [Op.NONE]


pieces = st.lists(
    st.sampled_from(
        (
            "always;never;please;use;tabs;when I ask;about;,;.;don't;from now on;I prefer;over;tea;coffee;rather;than;my;"
            'preferred;is;remember to;stop;using;?;\n;";\ud800;\x00;-;you should always;keep;your answers;short;that;it'
        ).split(";")
    ),
    max_size=20,
).map(" ".join)


@given(st.one_of(pieces, st.text(st.characters(exclude_categories=()), max_size=200)))
def test_any_text_gives_wishes_that_stand_in_it(text: str) -> None:
    claims = find_standing(text, "ana", NOW)
    for one in claims:
        start, end = one.span
        assert one.value in text[start:end] and one.kind in (Kind.INSTRUCTION, Kind.PREFERENCE)
    assert find_standing(text, "ana", NOW) == claims


def test_hostile_texts_take_no_longer_than_their_length() -> None:
    for piece in (
        "always ",
        "please always use ",
        "I prefer a, ",
        "when i ask, ",
        "and and ",
        "- always use when i ask ",
        "\n\n",
    ):
        began = time.perf_counter()
        find_standing(piece * (30_000 // len(piece)), "ana", NOW)
        assert time.perf_counter() - began < 10, piece
