"""Where memories disagree: one vote a source, by trust and freshness, the same in every order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cube import Channel, Cube, Origin, Scope
from holdfast.errors import InputError
from holdfast.guard.conflicts import Action, Belief, Policy, Status, by_slot, resolve
from holdfast.guard.stance import WEIGHTS, Stance, detector
from holdfast.retrieve.hits import Hit
from support import HashEmbedder

ANA = Scope("t", "ana")
START = datetime(2026, 1, 1, tzinfo=UTC)


def hit(source: str, value: str | None, trust: float = 1.0, day: int = 0) -> Hit:
    origin = Origin(Channel.DOCUMENT, reference=source, trust=trust, taint=(f"document:{source}",))
    data = {} if value is None else {"value": value}
    cube = Cube(ANA, f"{source} says {value}", data=data, origin=origin, valid_from=START + timedelta(days=day))
    return Hit(cube, 1.0, 0.5)


hits = st.lists(
    st.builds(
        hit,
        st.sampled_from("abcd"),
        st.sampled_from(["yes", "no", None]),
        st.sampled_from([0.2, 0.5, 1.0]),
        st.integers(0, 9),
    ),
    max_size=8,
)


@given(hits, st.randoms(use_true_random=False), st.integers(1, 5))
def test_neither_order_nor_copies_change_a_verdict(some, random, copies):
    first = resolve("q?", some, by_slot)
    other = [one for one in some for _ in range(random.randint(1, copies))]
    random.shuffle(other)
    again = resolve("q?", other, by_slot)
    assert again == first


@given(hits)
def test_an_answer_has_weight_and_a_lead(some):
    policy = Policy()
    found = resolve("q?", some, by_slot, policy=policy)
    assert (found.answer is None) is (found.action is Action.ABSTAIN)
    if found.answer is not None:
        assert found.sides[0].answer == found.answer and found.sides[0].weight >= policy.least
        rest = found.sides[1].weight if len(found.sides) > 1 else 0.0
        assert found.sides[0].weight - rest >= policy.margin * (found.sides[0].weight + rest) - 1e-9
    sources = [source for side in found.sides for source in side.sources]
    assert len(sources) == len(set(sources))  # nobody votes on two sides


def test_a_crowd_of_one_source_is_one_voice() -> None:
    crowd = [hit("evil", "yes", 0.4, day) for day in range(9)]
    found = resolve("q?", [*crowd, hit("good", "no", 1.0)], by_slot)
    assert found.answer == "no" and found.action is Action.CAVEAT and found.status is Status.CONFLICT
    assert [side.sources for side in found.sides] == [("document:good",), ("document:evil",)]


def said(author: str, value: str, reference: str, day: int = 0, **origin) -> Cube:
    when = START + timedelta(days=day)
    return Cube(
        ANA,
        f"{author}: {value}",
        data={"value": value},
        valid_from=when,
        origin=Origin(author=author, reference=reference, **origin),
    )


def test_one_person_with_many_references_is_one_voice_and_two_people_are_two() -> None:
    many = [Hit(said("mallory", "yes", f"https://{at}.example", at), 1.0, 0.5) for at in range(9)]
    two = [Hit(said(name, "no", "file:handbook.md"), 1.0, 0.5) for name in ("dan", "eve")]
    found = resolve("q?", [*many, *two], by_slot)
    assert found.answer == "no"
    assert [side.sources for side in found.sides] == [("user:dan", "user:eve"), ("user:mallory",)]
    assert found.sides[1].cubes == (many[-1].cube,)


def test_what_was_derived_is_the_word_of_its_sources() -> None:
    turns = [said(name, "", "chat:1") for name in ("dan", "eve")]
    facts = [
        Hit(said("anybody", "yes", f"r{at}", channel=Channel.DERIVED, derived_from=(turn.ref,)), 1.0, 0.5)
        for at, turn in enumerate((*turns, turns[0]))
    ]
    known = {turn.ref: turn for turn in turns}
    (side,) = resolve("q?", facts, by_slot, lookup=known.get).sides
    assert side.sources == ("user:dan", "user:eve")
    (side,) = resolve("q?", facts, by_slot).sides  # unseen sources: one voice
    assert side.sources == ("derived",)


def own(value: str, trust: float = 1.0, who: str = "ana") -> Hit:
    return Hit(
        Cube(ANA, f"I say {value}", data={"value": value}, origin=Origin(Channel.USER, who, trust=trust)), 1.0, 0.5
    )


def test_the_pages_of_a_site_are_one_voice() -> None:
    pages = [hit(f"https://evil.example/{n}", "yes", 0.4) for n in range(9)]
    assert resolve("q?", [*pages, hit("https://good.example", "no", 1.0)], by_slot).answer == "no"


def test_the_outside_overrules_nobody_inside_however_many_it_is() -> None:
    sites = [hit(f"https://{n}.example", "yes", 0.4) for n in range(9)]
    found = resolve("q?", [*sites, own("no")], by_slot)
    assert found.answer == "no" and found.action is Action.CAVEAT and found.sides[1].weight == 0.4  # as one of them
    weak = resolve("q?", [*sites, own("no", 0.55)], by_slot)
    assert weak.answer is None and "too even" in weak.reason
    pages = [hit(f"https://{n}.example", "yes", 0.6) for n in range(9)]
    above = resolve("q?", [*pages, own("no", 0.55)], by_slot)
    assert above.action is Action.ABSTAIN and "one from inside" in above.reason and above.sides[0].answer == "yes"
    assert (
        resolve("q?", [*sites, own("no", 0.4)], by_slot).answer == "yes"
    )  # who is hardly trusted does not stand against it
    assert (
        resolve("q?", [*sites, own("yes", who="ben"), own("no")], by_slot).answer == "yes"
    )  # it is not the outside alone that says so
    assert resolve("q?", sites, by_slot, belief=Belief("no", 0.9)).answer == "yes"
    assert resolve("q?", [*sites, own("no")], by_slot, belief=Belief("yes", 0.9)).answer == "yes"


def test_what_a_source_said_last_counts() -> None:
    found = resolve("q?", [hit("a", "yes", day=1), hit("a", "no", day=2)], by_slot)
    assert found.answer == "no" and found.status is Status.AGREE


def test_what_only_the_outside_says_is_told_as_its_word() -> None:
    page = hit("a", "yes")
    found = resolve("q?", [page, hit("b", "yes")], by_slot)
    assert found.answer == "yes" and found.outside and found.action is Action.CAVEAT and "from outside" in found.reason
    assert not (known := resolve("q?", [page, own("yes")], by_slot)).outside and known.action is Action.ANSWER
    assert not resolve("q?", [page], by_slot, belief=Belief("yes", 0.9)).outside


def test_even_sides_hardly_trusted_ones_and_what_cannot_be_told_are_not_answered() -> None:
    even = resolve("q?", [hit("a", "yes"), hit("b", "no")], by_slot)
    assert even.action is Action.ABSTAIN and "even" in even.reason
    faint = resolve("q?", [hit("a", "yes", 0.2)], by_slot)
    assert faint.action is Action.ABSTAIN and "hardly trusted" in faint.reason
    dark = resolve("q?", [hit("a", "yes"), hit("b", None), hit("c", None)], by_slot)
    assert dark.status is Status.INSUFFICIENT and len(dark.unknown) == 2
    assert resolve("q?", [], by_slot).status is Status.INSUFFICIENT


def test_what_a_model_believes_is_one_voice() -> None:
    told = [hit("a", "yes"), hit("b", "yes")]
    assert resolve("q?", told, by_slot, belief=Belief("no", 0.9)).answer == "yes"
    assert resolve("q?", told[:1], by_slot, belief=Belief("no", 0.9)).action is Action.ABSTAIN
    assert resolve("q?", told[:1], by_slot, belief=Belief("no", 0.9, firm=False)).answer == "yes"


def test_words_age_where_the_policy_says_so() -> None:
    old, new = hit("a", "yes", day=0), hit("b", "no", day=300)
    at = START + timedelta(days=300)
    assert resolve("q?", [old, new], by_slot, policy=Policy(half_life=100), at=at).answer == "no"
    assert resolve("q?", [old, new], by_slot).action is Action.ABSTAIN
    with pytest.raises(InputError, match="needs at="):
        resolve("q?", [old], by_slot, policy=Policy(half_life=100))


def test_polarity_tells_two_answers_apart() -> None:
    cube = hit("a", "Tea  ").cube
    assert (
        by_slot("q", cube) == "tea" and by_slot("q", cube.with_(data={"value": "tea", "polarity": False})) == "not tea"
    )
    assert by_slot("q", cube.with_(data={})) is None


# --- stance ---


class _Words(HashEmbedder):
    """The small embedder, as float32 unit vectors of the words."""


def test_swapping_the_claims_turns_the_stance() -> None:
    stance = Stance(_Words())
    claims = ("A dog hears a bell before a seal.", "A dog does not hear a bell before a seal.")
    passages = [
        "Dogs hear well. So a dog hears a bell first.",
        "It is a myth. A dog does not hear it first.",
        "",
        "Nothing!",
    ]
    forward, backward = stance.features(claims, passages), stance.features((claims[1], claims[0]), passages)
    np.testing.assert_allclose(forward, -backward, atol=1e-6)
    assert forward.shape == (4, len(WEIGHTS)) and np.isfinite(forward).all()
    np.testing.assert_allclose(stance.of(claims, passages), forward @ np.asarray(WEIGHTS))


def test_a_passage_that_denies_what_one_claim_says_speaks_for_the_other() -> None:
    claims = ("A dog hears a bell before a seal.", "A dog does not hear a bell before a seal.")
    for_it, against = Stance(_Words()).of(
        claims, ["Therefore a dog hears a bell before a seal.", "Therefore a dog does not hear a bell before a seal."]
    )
    assert for_it > against


def test_what_cannot_be_told_is_no_vote() -> None:
    claims = ("The door is red.", "The door is not red.")
    detect = detector(Stance(_Words()), claims)
    assert detect("?", Cube(ANA, "We had fish for lunch")) is None
