"""Facts by rule: what is read, what never is, and that a claim ends nothing but an older value of its own slot."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cube import Channel, Cube, Kind, Origin, Policy, Scope, Status
from holdfast.encode.base import Experience
from holdfast.encode.claims import ClaimEncoder, find_claims
from holdfast.encode.junk import why_nothing
from holdfast.encode.slots import Claim, settle
from holdfast.encode.standing import StandingEncoder
from holdfast.store.base import Op, Operation, Where
from support import open_memory

SCOPE = Scope("acme", "ana")
NOW = datetime(2023, 6, 9, 15, tzinfo=UTC)
DAY = timedelta(days=1)


def turn(text: str, at: datetime = NOW, *, author: str = "ana", scope: Scope = SCOPE, **origin: object) -> Cube:
    return Cube(scope, text, valid_from=at, origin=Origin(author=author, **origin))  # type: ignore[arg-type]


def encode(*turns: Cube, known: Sequence[Cube] = ()) -> list[Operation]:
    return ClaimEncoder().encode(Experience(turns, NOW, known=tuple(known)))


def learn(*turns: Cube, known: Sequence[Cube] = ()) -> list[Cube]:
    """The cubes that are known after some turns, one after the other."""
    cubes = {cube.id: cube for cube in known}
    for one in turns:
        for operation in encode(one, known=tuple(cubes.values())):
            if operation.cube is not None:
                cubes[operation.cube.id] = operation.cube
    return list(cubes.values())


def current(cubes: Sequence[Cube], when: datetime = NOW) -> set[str]:
    return {cube.text for cube in cubes if cube.valid_at(when)}


def said(text: str) -> list[tuple[str, str, str, bool]]:
    return [(one.subject, one.attribute, one.value, one.polarity) for one in find_claims(text, "ana", NOW)]


# --- what is read ---


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("I live in Lisbon.", [("ana", "residence", "Lisbon", True)]),
        ("I'm based in Porto, Portugal", [("ana", "residence", "Porto, Portugal", True)]),
        ("We've lived in Rio de Janeiro for 3 years", [("ana", "residence", "Rio de Janeiro", True)]),
        ("I moved from Porto to Lisbon two weeks ago", [("ana", "residence", "Lisbon", True)]),
        ("I no longer live in Porto", [("ana", "residence", "Porto", False)]),
        ("I used to live in Porto", [("ana", "residence", "Porto", False)]),
        ("I don't live in Porto anymore", [("ana", "residence", "Porto", False)]),
        ("i live in porto", [("ana", "residence", "porto", True)]),
        ("My sister lives in Rome", [("ana's sister", "residence", "Rome", True)]),
        ("Ben Carver lives in Rome", [("Ben Carver", "residence", "Rome", True)]),
        ("I'm originally from Brazil", [("ana", "home town", "Brazil", True)]),
        ("My name is Ana Reis", [("ana", "name", "Ana Reis", True)]),
        ("my name is ana", [("ana", "name", "ana", True)]),
        ("Hi, I'm Emily. Nice to meet you", [("ana", "name", "Emily", True)]),
        ("My dog's name is Rex", [("ana", "dog's name", "Rex", True)]),
        ("my friend Rita called", [("ana", "friend's name", "Rita", True)]),
        ("We adopted a small brown dog named Toby", [("ana", "dog's name", "Toby", True)]),
        ("I'm 27 years old", [("ana", "age", "27", True)]),
        ("I turned 30 last week", [("ana", "age", "30", True)]),
        ("Ben is two years older than Rita", [("Ben", "older than Rita", "two", True)]),
        ("My brother is 3 years younger than me", [("ana's brother", "younger than ana", "3", True)]),
        ("My birthday is March 3rd", [("ana", "birthday", "March 3rd", True)]),
        ("I was born on 3 March 1990", [("ana", "birthday", "3 March 1990", True)]),
        ("I work as a software engineer", [("ana", "occupation", "a software engineer", True)]),
        ("I'm a nurse", [("ana", "occupation", "a nurse", True)]),
        ("I work at Acme Corp", [("ana", "employer", "Acme Corp", True)]),
        ("I quit my job at Acme", [("ana", "employer", "Acme", False)]),
        ("I have two kids", [("ana", "number of kids", "two", True)]),
        (
            "I am allergic to peanuts and shellfish",
            [("ana", "allergy", "peanuts", True), ("ana", "allergy", "shellfish", True)],
        ),
        ("I'm not allergic to peanuts", [("ana", "allergy", "peanuts", False)]),
        ("Actually, I'm vegan now", [("ana", "diet", "vegan", True)]),
        ("I'm no longer vegan", [("ana", "diet", "vegan", False)]),
        ("We're married", [("ana", "marital status", "married", True)]),
        ("My favourite colour is green", [("ana", "favourite colour", "green", True)]),
        ('My favorite book is "The Great Gatsby"', [("ana", "favourite book", "The Great Gatsby", True)]),
        ("Ben's favourite dish is lasagna", [("Ben", "favourite dish", "lasagna", True)]),
        (
            "I love hiking, camping and reading.",
            [("ana", "likes", value, True) for value in ("hiking", "camping", "reading")],
        ),
        ("I like to listen to music", [("ana", "likes", "to listen to music", True)]),
        ("I enjoy action and comedy films", [("ana", "likes", "action and comedy films", True)]),
        ("I don't like olives", [("ana", "likes", "olives", False)]),
        ("Max loves playing fetch", [("Max", "likes", "playing fetch", True)]),
        ("I speak Portuguese and English", [("ana", "speaks", value, True) for value in ("Portuguese", "English")]),
        ("The deadline was moved to June 20", [("ana", "deadline", "June 20", True)]),
        ("My dentist appointment is on Tuesday at 3pm", [("ana", "dentist appointment", "Tuesday at 3pm", True)]),
        ("The average response time is 250ms", [("ana", "average response time", "250", True)]),
        ("Our test coverage has improved from 65% to 78%", [("ana", "test coverage", "78", True)]),
        ("The price of the ticket is $1,200", [("ana", "price of ticket", "1,200", True)]),
        ("I live in Lisbon, can you suggest a park?", [("ana", "residence", "Lisbon", True)]),
    ],
)
def test_statements_are_read(text: str, claims: list[tuple[str, str, str, bool]]) -> None:
    assert said(text) == claims


@pytest.mark.parametrize(
    "text",
    [
        "Do I live in Lisbon?",
        "I live in Lisbon, right?",
        "If I lived in Lisbon, I'd swim. If I live in Lisbon I swim.",
        "I wish I lived in Lisbon, maybe I work at Acme",
        "I don't think I live in Lisbon",
        "I'll see which one I like better, or like most.",
        "Write a story where my name is Bob and I live in Paris.",
        'She said "I live in Paris" and left',
        "Ben told me I work at Acme",
        "> I live in Paris",
        "```\nI live in Paris\n```",
        "`my name is Bob`",
        "He lives in Paris. She works at Acme. They like olives. Everyone loves jazz.",
        "It is 5 years old. This is 30 minutes away. I'm 30 minutes away.",
        "I live in fear. i live in fear",
        "I love it! I love that. I like the idea. I love how you did this. I like your dog.",
        "I love making this cake, which I like for breakfast",
        "This is the house that I love",
        "I'm a big fan of jazz",
        "I'm engaged in a project",
        "The launch tomorrow will be great",
        "The meeting on May 3 went well",
        "the response time was 800ms",
        "it is in my app, which is 500ms slow",
        "I have a dream",
        "My sister Monday",
        "Sounds like a great plan",
        "I turned 180 degrees",
        "",
    ],
)
def test_what_is_not_stated_is_not_read(text: str) -> None:
    assert said(text) == []


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("I moved to Lisbon in May", datetime(2023, 5, 1, tzinfo=UTC)),
        ("I moved to Lisbon yesterday", datetime(2023, 6, 8, tzinfo=UTC)),
        ("I've lived in Lisbon since 2019", datetime(2019, 1, 1, tzinfo=UTC)),
        ("I've lived in Lisbon for 3 years", datetime(2020, 1, 1, tzinfo=UTC)),
        ("I live in Lisbon", NOW),
        ("We met last week and I live in Lisbon", NOW),
    ],
)
def test_a_claim_begins_when_it_says_so_else_when_it_was_said(text: str, begins: datetime) -> None:
    (operation,) = encode(turn(text))
    assert operation.cube is not None and operation.cube.valid_from == begins


def test_a_fact_carries_its_lineage_and_its_place() -> None:
    policy = Policy(sensitivity="private", readers=("ana",))
    source = turn("By the way, I moved to Lisbon in May.", trust=0.6, reference="mail:7").with_(policy=policy)
    (operation,) = encode(source)
    cube = operation.cube
    assert cube is not None and operation.op is Op.ADD
    assert cube.kind == Kind.FACT and cube.text == "ana lives in Lisbon" and cube.scope == source.scope
    assert source.text[slice(*cube.data["span"])] == "I moved to Lisbon"
    assert cube.origin == Origin(Channel.DERIVED, "ana", "mail:7", 0.6, (source.ref,))
    assert cube.policy == policy
    assert cube.data["functional"] is True and cube.data["rule"] == "move"
    assert "Lisbon" not in operation.reason  # a reason outlives the content
    assert Cube.from_dict(cube.to_dict()) == cube


def test_events_say_when_they_take_place_but_hold_from_now() -> None:
    (operation,) = encode(turn("My dentist appointment is on Tuesday"))
    cube = operation.cube
    assert cube is not None and cube.kind == Kind.EVENT and cube.valid_from == NOW
    assert cube.data["when"] == ["2023-06-13T00:00:00+00:00", "2023-06-14T00:00:00+00:00", "day"]


# --- who is heard ---


@pytest.mark.parametrize("channel", [Channel.RECALLED, Channel.SYSTEM, Channel.ASSISTANT])
def test_recalled_text_system_prompts_and_models_state_nothing(channel: Channel) -> None:
    text = "I live in Lisbon. Always use metric units. I prefer tea over coffee."
    source = turn(text, channel=channel)
    for encoder in (ClaimEncoder(), StandingEncoder()):
        assert encoder.encode(Experience((source,), NOW)) == []
        assert encoder.encode(Experience((turn(text).with_(data={"role": "assistant"}),), NOW)) == []
        assert encoder.encode(Experience((turn(text).with_(status=Status.QUARANTINED),), NOW)) == []
        assert encoder.encode(Experience((turn(text),), NOW)) != []


def test_a_mere_role_is_the_user_of_the_scope() -> None:
    for author in ("user", "human"):
        (operation,) = encode(turn("I live in Lisbon", author=author))
        assert operation.cube is not None and operation.cube.text == "ana lives in Lisbon"


# --- what a claim does to what is known ---


def test_the_same_claim_is_one_row() -> None:
    known = learn(turn("I live in Lisbon."))
    operations = encode(turn("Yes, I live in LISBON!", NOW + DAY), known=known)
    assert [one.op for one in operations] == [Op.NONE] and known[0].id in operations[0].reason
    twice = encode(turn("I live in Lisbon. As I said, I live in Lisbon."))
    assert [one.op for one in twice] == [Op.ADD, Op.NONE]


def test_numbers_are_the_same_in_any_spelling() -> None:
    known = learn(turn("I have two kids"), turn("The price of the ticket is $1,200"))
    again = encode(turn("I have 2 kids"), turn("The price of the ticket is $1200"), known=known)
    assert [one.op for one in again] == [Op.NONE, Op.NONE]


def test_reading_a_turn_again_makes_the_same_cube() -> None:
    source = turn("I live in Lisbon and I love jazz.")
    first, second = (encode(source) for _ in range(2))
    assert [one.cube for one in first] == [one.cube for one in second]
    assert len({one.cube.id for one in first if one.cube}) == 2


def test_a_new_value_ends_the_old_one_where_it_begins() -> None:
    (old,) = learn(turn("I live in Porto", NOW - 90 * DAY))
    operations = encode(turn("I moved to Lisbon in May"), known=[old])
    assert [one.op for one in operations] == [Op.UPDATE, Op.ADD]
    ended, new = operations[0].cube, operations[1].cube
    assert ended is not None and new is not None
    assert ended.id == old.id and ended.version == old.version and ended.status == old.status
    assert ended.valid_to == new.valid_from == datetime(2023, 5, 1, tzinfo=UTC)
    assert ended.data["ended_by"] == new.id and ended.text == old.text
    assert current([ended, new]) == {"ana lives in Lisbon"}


@pytest.mark.parametrize(
    ("before", "after", "holds"),
    [
        ("I love jazz", "I don't like jazz", {"ana does not like jazz"}),
        ("I don't like jazz", "I love jazz", {"ana likes jazz"}),
        ("I am allergic to nuts", "I'm no longer allergic to nuts", {"ana is not allergic to nuts"}),
        ("I live in Porto", "I no longer live in Porto", {"ana no longer lives in Porto"}),
        ("I work at Acme", "I quit my job at Acme", {"ana no longer works at Acme"}),
        ("My favourite colour is red", "My favourite colour is blue", {"ana's favourite colour is blue"}),
        ("The deadline is June 20", "The deadline was moved to July 2", {"ana's deadline is July 2"}),
        (
            "The average latency is 250ms",
            "the average latency has dropped to 200ms",
            {"ana's average latency is 200ms"},
        ),
        # both hold
        ("My dog's name is Rex", "My dog's name is Bo", {"ana's dog is called Rex", "ana's dog is called Bo"}),
        ("I love jazz", "I love opera", {"ana likes jazz", "ana likes opera"}),
        ("I speak Greek", "I speak Dutch", {"ana speaks Greek", "ana speaks Dutch"}),
        ("I live in Porto", "My sister lives in Rome", {"ana lives in Porto", "ana's sister lives in Rome"}),
        ("I live in Porto", "I no longer live in Rome", {"ana lives in Porto", "ana no longer lives in Rome"}),
        (
            "The average latency is 250ms",
            "The peak latency is 900ms",
            {"ana's average latency is 250ms", "ana's peak latency is 900ms"},
        ),
        ("I work at Acme", "Acme is nice, and Porto too", {"ana works at Acme"}),
    ],
)
def test_corrections_and_additions(before: str, after: str, holds: set[str]) -> None:
    cubes = learn(turn(before, NOW - DAY), turn(after))
    assert current(cubes, NOW + DAY) == holds


def test_of_several_meetings_none_is_moved() -> None:
    cubes = learn(
        turn("The meeting is on June 12", NOW - 2 * DAY),
        turn("The meeting is on June 14", NOW - DAY),
        turn("The meeting was moved to June 20"),
    )
    assert len(current(cubes)) == 3


def test_moving_back_is_a_new_fact() -> None:
    cubes = learn(
        turn("I live in Porto", NOW - 3 * DAY), turn("I live in Rome", NOW - 2 * DAY), turn("I live in Porto")
    )
    assert len(cubes) == 3 and current(cubes) == {"ana lives in Porto"}


def test_late_news_does_not_undo_what_came_after() -> None:
    cubes = learn(turn("I live in Lisbon"), turn("I live in Porto", NOW - 30 * DAY))
    assert current(cubes) == {"ana lives in Lisbon"}
    assert current(cubes, NOW - 10 * DAY) == {"ana lives in Porto"}


def test_turns_of_one_batch_settle_in_order() -> None:
    operations = encode(
        turn("I live in Porto", NOW - 2 * DAY), turn("I live in Rome", NOW - DAY), turn("I live in Bonn")
    )
    assert [one.op for one in operations] == [Op.ADD] * 3
    cubes = [one.cube for one in operations if one.cube]
    assert current(cubes) == {"ana lives in Bonn"}
    assert current(cubes, NOW - DAY) == {"ana lives in Rome"}
    assert len({cube.id for cube in cubes}) == 3


def test_one_operation_for_each_cube_of_a_batch() -> None:
    known = learn(turn("I live in Porto", NOW - 9 * DAY))
    operations = encode(
        turn("I live in Rome", NOW - 2 * DAY),
        turn("I no longer live in Porto", NOW - 5 * DAY),
        turn("I live in Bonn"),
        known=known,
    )
    ids = [one.cube.id for one in operations if one.cube]
    assert len(ids) == len(set(ids))


def test_nobody_ends_what_somebody_else_or_a_better_source_said() -> None:
    (mine,) = learn(turn("I live in Porto", NOW - DAY))
    for other in (
        turn("Ana lives in Rome", author="ben"),
        turn("I live in Rome", trust=0.5, channel=Channel.DOCUMENT),
        turn("I live in Rome", scope=Scope("acme", "eve"), author="ana"),
    ):
        operations = encode(other, known=[mine.with_(data={**mine.data})])
        assert [one.op for one in operations] == [Op.ADD]
    frozen = mine.with_(status=Status.FROZEN)
    assert [one.op for one in encode(turn("I live in Rome"), known=[frozen])] == [Op.ADD]
    (ben,) = learn(turn("Ana lives in Rome", author="ben", at=NOW - DAY))
    assert [one.op for one in encode(turn("I live in Rome"), known=[ben])] != [Op.UPDATE]


def test_known_cubes_of_any_shape_do_no_harm() -> None:
    odd = [
        Cube(SCOPE, "a"),
        Cube(SCOPE, "b", data={"slot": "ana | residence", "value": None, "said_at": "never"}),
        Cube(SCOPE, "c", data={"slot": 7, "value": ["x"], "polarity": "maybe", "unit": 3}),
        Cube(SCOPE, "d", data={"slot": "ana | residence", "value": "Lisbon", "canonical": {}, "said_at": 5}),
    ]
    operations = encode(turn("I live in Lisbon"), known=odd)
    assert operations and all(one.cube is None or one.cube.id not in {odd[0].id, odd[2].id} for one in operations)


# --- the rewrite probe (arXiv 2601.15086), on the real store ---


def test_after_any_number_of_rewrites_only_the_last_value_is_recalled_and_all_are_in_history(folder: Path) -> None:
    cities = ["Porto", "Rome", "Bonn", "Oslo", "Lima", "Cairo", "Kyoto", "Quito"]
    small_talk = ["Thanks a lot!", "I love jazz.", "My sister lives in Paris.", "What do you think of Porto and Rome?"]
    start = datetime(2025, 1, 1, tzinfo=UTC)
    with open_memory(folder, encoders=(ClaimEncoder(), StandingEncoder())) as memory:
        for number, city in enumerate(cities):
            memory.add(f"I moved to {city}.", author="ana", at=start + number * DAY)
            memory.flush()
            for talk in small_talk:
                memory.add(talk, author="ana", at=start + number * DAY + timedelta(hours=1))
            memory.flush()
        homes = Where(data={"slot": "ana | residence"})
        assert [cube.data["value"] for cube in memory.select(homes) if cube.valid_at(start + 30 * DAY)] == [
            "Kyoto",
            "Quito",
        ][1:]
        assert {cube.data["value"] for cube in memory.select(homes)} == set(cities)
        for number, city in enumerate(cities):
            then = start + number * DAY + timedelta(hours=2)
            assert [cube.data["value"] for cube in memory.select(homes) if cube.valid_at(then)] == [city]
        found = [hit.text for hit in memory.search("where does ana live", kinds=("fact",), k=20)]
        assert [text for text in found if text.startswith("ana lives in")] == ["ana lives in Quito"]
        first = next(cube for cube in memory.select(homes) if cube.data["value"] == "Porto")
        assert len(memory.history(first.id)) == 2
        facts = [cube.text for cube in memory.select(Where(kinds=("fact", "preference")))]
        assert facts.count("ana likes jazz") == 1 and facts.count("ana's sister lives in Paris") == 1


# --- laws ---

anything = st.text(st.characters(exclude_categories=()), max_size=200)
pieces = st.lists(
    st.sampled_from(
        (
            "I;live;in;Lisbon;moved;to;from;Porto;no longer;my;sister;Ana;'s;is;am;allergic;nuts;and;,;.;love;hiking;don't;like;"
            "name;the;deadline;was;June 20;response time;250ms;improved;favourite;colour;red;work;at;Acme;two;kids;I'm;vegan;not;"
            'years;old;3;older than;me;\ud800;\x00;?;\n;";`;if;last week;yesterday'
        ).split(";")
    ),
    max_size=25,
).map(" ".join)


@given(st.lists(st.one_of(anything, pieces), min_size=1, max_size=3), st.lists(pieces, max_size=3))
def test_any_text_gives_supported_claims_and_touches_only_its_own_slots(texts: list[str], earlier: list[str]) -> None:
    known = learn(*(turn(text, NOW - DAY) for text in earlier))
    turns = tuple(turn(text) for text in texts)
    for encoder in (ClaimEncoder(), StandingEncoder()):
        operations = encoder.encode(Experience(turns, NOW, known=tuple(known)))
        by_id = {one.id: one for one in turns}
        added = [one.cube for one in operations if one.op is Op.ADD and one.cube]
        ids = [one.cube.id for one in operations if one.cube]
        assert len(ids) == len(set(ids))
        for cube in added:
            source = by_id[cube.origin.derived_from[0].id]
            start, end = cube.data["span"]
            assert 0 <= start < end <= len(source.text)
            assert cube.data["value"] in source.text[start:end]
        for operation in operations:
            assert operation.op in (Op.ADD, Op.UPDATE, Op.NONE)
            if operation.op is Op.UPDATE:
                ended = operation.cube
                assert ended is not None
                before = next(one for one in known if one.id == ended.id)
                assert ended.with_(valid_to=before.valid_to, data=before.data) == before
                assert ended.data["slot"] in {cube.data["slot"] for cube in added}
        # Said again, nothing is new.
        after = {cube.id: cube for cube in (*known, *(one.cube for one in operations if one.cube))}
        again = encoder.encode(Experience(turns[-1:], NOW, known=tuple(after.values())))
        assert all(one.op is not Op.ADD or (one.cube is not None and one.cube.id in after) for one in again)


@given(st.permutations(["Porto", "Rome", "Bonn", "Oslo"]))
def test_whatever_the_order_of_arrival_each_day_has_one_residence(order: list[str]) -> None:
    days = {"Porto": 1, "Rome": 2, "Bonn": 3, "Oslo": 4}
    cubes = learn(*(turn(f"I live in {city}", NOW + days[city] * DAY) for city in order))
    for city, day in days.items():
        assert current(cubes, NOW + day * DAY) == {f"ana lives in {city}"}


SCRIPTS = (
    "Moro em Lisboa e adoro música",
    "Я живу в Лиссабоне и люблю джаз",
    "Ζω στη Λισαβόνα",
    "我住在里斯本，我喜欢爵士乐",
    "私はリスボンに住んでいます",
    "나는 리스본에 살고 있어요",
    "أعيش في لشبونة",
    "אני גר בליסבון",
    "मैं लिस्बन में रहता हूँ",
    "ฉันอาศัยอยู่ที่ลิสบอน",
    "ես ապրում եմ Լիսաբոնում",
    "მე ვცხოვრობ ლისაბონში",
)


@pytest.mark.parametrize("text", SCRIPTS)
def test_other_scripts_give_nothing_and_do_no_harm(text: str) -> None:
    assert said(text) == []
    assert said(f"{text}. I live in Lisbon. {text}") == [("ana", "residence", "Lisbon", True)]
    assert why_nothing(text) is None


def test_values_in_any_script_are_kept_as_they_are() -> None:
    assert said("I live in Αθήνα") == [("ana", "residence", "Αθήνα", True)]
    assert said("My name is Łukasz Żak") == [("ana", "name", "Łukasz Żak", True)]


def test_hostile_texts_take_no_longer_than_their_length() -> None:
    for piece in (
        "I love a and ",
        "I love a, ",
        "My sister ",
        "the meeting moved ",
        "the a of ",
        '"',
        "> a\n",
        "I'm allergic to a and b or c, ",
    ):
        began = time.perf_counter()
        find_claims(piece * (20_000 // len(piece)), "ana", NOW)
        assert time.perf_counter() - began < 15, piece


def test_settle_ends_the_named_value_only() -> None:
    known = learn(turn("I love jazz", NOW - DAY), turn("I love opera", NOW - DAY))
    jazz = next(cube for cube in known if cube.data["value"] == "jazz")
    claim = Claim("ana", "likes", "blues", "ana likes blues", (0, 5), "test", ends=jazz.id)
    operations = settle([(claim, turn("blues"))], Experience((), NOW, known=tuple(known)))
    assert [one.op for one in operations] == [Op.UPDATE, Op.ADD]
    assert operations[0].cube is not None and operations[0].cube.id == jazz.id


# --- why nothing ---


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("?!…", "no words"),
        ("🎉🎉", "no words"),
        ("\ud800", "no words"),
        ("Hi!", "greeting"),
        ("Thanks, Ana!", "greeting"),
        ("Take care, bye!", "greeting"),
        ("Ok, got it.", "greeting"),
        ("你好！", "greeting"),
        ("नमस्ते", "greeting"),
        ("Спасибо", "greeting"),
    ],
)
def test_an_empty_result_has_a_reason(text: str, reason: str) -> None:
    assert reason in (why_nothing(text) or "")


@pytest.mark.parametrize(
    "text", ["yes", "No.", "Lisbon", "Great, Lisbon!", "Thanks, I live in Porto", "5", "bye " * 40 + "x"]
)
def test_what_may_mean_something_is_never_called_nothing(text: str) -> None:
    assert why_nothing(text) is None


@given(anything)
def test_any_text_has_a_reason_or_none(text: str) -> None:
    reason = why_nothing(text)
    assert reason is None or reason.startswith("it ")
