"""Clashes of evidence and belief: what is shown in which mode, what M_R says of readers whose behaviour is known, the world.

No model is needed here; ``test_clashes_model.py`` trains one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.bench.clashes.contradict import Contradicted, contradict
from holdfast.bench.clashes.corpus import MOST, Corpus, Diet, Vocabulary, layout
from holdfast.bench.clashes.items import (
    COUNTER_FIRST,
    MODES,
    OWN_FIRST,
    SINGLE,
    SUBSTITUTED,
    Item,
    Mode,
    Passage,
    Prompt,
    Role,
    shown,
)
from holdfast.bench.clashes.probe import BeliefProbe, counter_answer, mentions, same, substituted
from holdfast.bench.clashes.prompts import annotated, as_text, by_side, read_letter, read_told
from holdfast.bench.clashes.readers import FirstPassage, ResolverReader, Sloth, TextReader, Told
from holdfast.bench.clashes.report import clash_report, difference
from holdfast.bench.clashes.world import ASPECTS, RELATIONS, make_world
from holdfast.claims import c24_knowledge_clashes as c24
from holdfast.claims import clash_model
from holdfast.errors import ClaimError, InputError
from holdfast.guard.conflicts import Action, Belief, resolve

BY_NAME = {mode.name: mode for mode in MODES}
WORLD = make_world(7, people=60, strangers=12, values=8)


def item(n: int, *, popularity: float | None = None, right: bool = True) -> Item:
    own, counter = f"red {n}", f"blue {n}"
    passages = {
        Role.OWN: Passage(f"It is {own}.", own, "model"),
        Role.OWN_EXTRA: Passage(f"All say {own}.", own, "book"),
        Role.COUNTER: Passage(f"It is {counter}.", counter, "mail"),
        Role.COUNTER_EXTRA: Passage(f"None doubts {counter}.", counter, "page"),
        Role.SUBSTITUTED: Passage(f"It is {counter}, a warm colour.", counter, "mail"),
    }
    stray = tuple(Passage(f"The sky is grey {n}.{k}", f"grey {n}.{k}", "elsewhere") for k in range(3))
    return Item(
        f"i{n}", f"Colour {n}?", own, counter, passages, stray, float(n if popularity is None else popularity), right
    )


ITEMS = [item(n, right=n % 4 != 0) for n in range(200)]
BELIEFS = {one.question: one.own for one in ITEMS}


# --- modes, as the paper has them ---

# Whose passages are shown, whether the reader is told to use its knowledge, how many options beside "Uncertain"; the paper's
# names of the modes: implicit, explicit, 2t1f, 2f1t, 2t2f, irrelevant, 1t1f1i (there by truth, here by belief).
PAPER = {
    "own alone": ("O", True, 2),
    SINGLE: ("C", True, 2),
    SUBSTITUTED: ("S", True, 2),
    OWN_FIRST: ("OC", False, 2),
    COUNTER_FIRST: ("CO", False, 2),
    "2:1": ("OOC", False, 2),
    "1:2": ("OCC", False, 2),
    "2:2": ("OOCC", False, 2),
    "1 irrelevant": ("I", True, 2),
    "2 irrelevant": ("II", True, 3),
    "3 irrelevant": ("III", True, 4),
    "1:1 and 1 irrelevant": ("OCI", False, 3),
    "1:1 and 2 irrelevant": ("OCII", False, 4),
    "1:1 and 3 irrelevant": ("OCIII", False, 5),
}
_SIDE = {Role.OWN: "O", Role.OWN_EXTRA: "O", Role.COUNTER: "C", Role.COUNTER_EXTRA: "C", Role.SUBSTITUTED: "S"}


def sides(one: Item, prompt: Prompt) -> str:
    letters = {passage.text: _SIDE[role] for role, passage in one.passages.items()}
    return "".join(letters.get(passage.text, "I") for passage in prompt.passages)


def test_every_mode_of_the_paper_is_there() -> None:
    assert list(BY_NAME) == list(PAPER)


@pytest.mark.parametrize("name", PAPER)
def test_a_mode_shows_what_the_paper_shows(name: str) -> None:
    evidence, knowledge, options = PAPER[name]
    for one in ITEMS[:20]:
        prompt = shown(one, BY_NAME[name], 3)
        assert sorted(sides(one, prompt)) == sorted(evidence)
        assert prompt.knowledge is knowledge and len(prompt.options) == options == len(set(prompt.options))
        assert one.own in prompt.options and (one.counter in prompt.options) is bool(set(evidence) - {"I"})
        assert {passage.claim for passage in prompt.passages} - {one.counter} <= set(prompt.options)


def test_fixed_orders_are_kept_and_the_others_drawn_evenly() -> None:
    assert {sides(one, shown(one, BY_NAME[OWN_FIRST], 0)) for one in ITEMS} == {"OC"}
    assert {sides(one, shown(one, BY_NAME[COUNTER_FIRST], 0)) for one in ITEMS} == {"CO"}
    drawn = Counter(sides(one, shown(one, BY_NAME["2:1"], 0)) for one in ITEMS)
    assert set(drawn) == {"OOC", "OCO", "COO"} and min(drawn.values()) > len(ITEMS) / 5
    first = sum(shown(one, BY_NAME[OWN_FIRST], 0).options[0] == one.own for one in ITEMS)
    assert 0.4 < first / len(ITEMS) < 0.6


def test_what_is_drawn_is_recorded_by_the_seed_and_hangs_on_no_other_item() -> None:
    for mode in MODES:
        prompts = [shown(one, mode, 5) for one in ITEMS]
        assert prompts == [shown(one, mode, 5) for one in ITEMS]
        assert shown(ITEMS[9], mode, 5) == prompts[9]
    assert any(shown(one, BY_NAME["2:1"], 5) != shown(one, BY_NAME["2:1"], 6) for one in ITEMS)


def test_an_item_without_a_passage_that_is_shown_is_refused() -> None:
    bare = replace(ITEMS[0], passages={Role.OWN: ITEMS[0].passages[Role.OWN]}, irrelevant=())
    with pytest.raises(InputError, match="i0.*counter, further"):
        shown(bare, BY_NAME["2:2"], 0)
    with pytest.raises(InputError, match="2 irrelevant"):
        shown(bare, BY_NAME["2 irrelevant"], 0)


# --- prompts in words ---

_PARTS = re.compile(
    r"(?P<task>.+?)\n\nInformation: (?P<info>.+?)\n\nQuestion: (?P<q>.+?)\n\nOptions:\n(?P<o>.+?)\n\nAnswer: ", re.S
)


@pytest.mark.parametrize("name", PAPER)
def test_the_words_have_the_papers_parts(name: str) -> None:
    one = ITEMS[3]
    prompt = shown(one, BY_NAME[name], 1)
    parts = _PARTS.fullmatch(as_text(prompt))
    assert parts is not None
    assert ("you know" in parts["task"]) is prompt.knowledge and parts["q"] == one.question
    if len(prompt.passages) == 1:
        assert parts["info"] == prompt.passages[0].text
    else:
        assert parts["info"] == "".join(f"\n{n}. {p.text}" for n, p in enumerate(prompt.passages, 1))
    *options, last = parts["o"].splitlines()
    assert options == [f"{'ABCDE'[n]}: {option}" for n, option in enumerate(prompt.options)]
    assert last == f"{'ABCDEF'[len(options)]}: Uncertain"


def test_without_passages_it_asks_for_answer_and_support_and_with_one_for_an_answer() -> None:
    closed = as_text(Prompt("Who?"))
    assert "Information" not in closed and "Options" not in closed and closed.endswith("Question: Who?\n\nAnswer: ")
    again = as_text(Prompt("Who?", (Passage("Ana did.", "Ana", "model"),)))
    assert "you know" in again and "Ana did." in again and "Options" not in again


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("B", "False."),
        ("b: False", "False."),
        ("(A)", "True."),
        ("The answer is A.", "True."),
        ("Answer: B", "False."),
        ("True", "True."),
        (" false.\nbecause C", "False."),
        ("C", None),
        ("C: Uncertain.", None),
        ("Uncertain", None),
        ("D", None),
        ("Because of that", None),
        ("", None),
    ],
)
def test_letters_are_read(said: str, wanted: str | None) -> None:
    assert read_letter(said, ("True.", "False.")) == wanted


def test_answer_and_support_are_read_from_two_paragraphs() -> None:
    assert read_told("Ana\n\nShe said so.\nTwice.") == ("Ana", "She said so.\nTwice.")
    assert read_told("A: Ana") == ("Ana", "") and read_told("  ") == (None, "")


passages = st.lists(
    st.builds(
        Passage, st.sampled_from(["p", "q", "r"]), st.sampled_from(["yes", "no"]), st.sampled_from("abc"), st.just(0.5)
    ),
    min_size=1,
    max_size=6,
)


@given(passages, st.randoms(use_true_random=False), st.integers(0, 9))
def test_an_annotated_prompt_is_moved_by_neither_arrival_nor_copies(some, random, seed):
    other = [one for one in some for _ in range(random.randint(1, 3))]
    random.shuffle(other)
    told = annotated(Prompt("q?", tuple(some), ("yes", "no")), seed)
    assert told == annotated(Prompt("q?", tuple(other), ("yes", "no")), seed)
    groups = by_side(some, seed)
    assert {(one.claim, one.origin) for one in some} == {(one.claim, one.origin) for group in groups for one in group}
    assert all(len({one.claim for one in group}) == 1 for group in groups)
    assert sum(map(len, groups)) == len({(one.claim, one.origin) for one in some})


def test_an_annotated_prompt_says_who_says_what_and_its_order_is_drawn() -> None:
    pair = tuple(ITEMS[0].passages[role] for role in (Role.OWN, Role.COUNTER))
    told = annotated(Prompt("q?", (pair[0], replace(pair[1], trust=0.5)), ("x", "y")))
    assert "disagree" in told and "mail (trust 0.50): It is blue 0." in told and "1 source, says: red 0" in told
    first = [by_side([one.passages[Role.OWN], one.passages[Role.COUNTER]])[0][0].claim == one.own for one in ITEMS]
    assert 0.4 < np.mean(first) < 0.6
    assert "agree" in annotated(Prompt("q?", pair[:1])) and "disagree" not in annotated(Prompt("q?", pair[:1]))
    assert annotated(Prompt("q?")) == as_text(Prompt("q?"))


# --- the probe ---


class Scripted:
    """Answers closed-book questions from a script, and, with a passage, from a second one."""

    def __init__(self, first: dict[str, Told], second: dict[str, str | None]) -> None:
        self.first, self.second, self.seen = first, second, []

    def read(self, prompts):
        self.seen += prompts
        return [Told(self.second[p.question]) if p.passages else self.first[p.question] for p in prompts]


def test_a_belief_is_kept_when_its_own_passage_does_not_change_it_and_says_so() -> None:
    reader = Scripted(
        {
            "firm": Told("Ana", "It was Ana."),
            "moved": Told("Ana", "It was Ana."),
            "vague": Told("Ana", "Somebody."),
            "dumb": Told(None),
        },
        {"firm": "ana.", "moved": "Ben", "vague": "Ana", "dumb": None},
    )
    firm, moved, vague, dumb = BeliefProbe(reader, mentions).elicit(["firm", "moved", "vague", "dumb"])
    assert firm.kept and firm.answer == "Ana" and firm.passage == "It was Ana."
    assert not moved.firm and moved.supported and not moved.kept
    assert vague.firm and not vague.supported and not vague.kept
    assert not (dumb.firm or dumb.supported or dumb.kept) and dumb.belief(0.5) is None
    again = [prompt for prompt in reader.seen if prompt.passages]
    assert [prompt.passages[0].text for prompt in again][:2] == ["It was Ana.", "It was Ana."]
    assert all(prompt.knowledge and not prompt.options for prompt in again)


def test_a_belief_is_one_vote_and_none_where_it_is_not_kept() -> None:
    told = {"q": Told("Ana", "It was Ana.")}
    (kept,) = BeliefProbe(Scripted(told, {"q": "Ana"}), mentions).elicit(["q"])
    (loose,) = BeliefProbe(Scripted(told, {"q": "Ben"}), mentions).elicit(["q"])
    assert kept.belief(0.9) == Belief("Ana", 0.9) and loose.belief(0.9) == Belief("Ana", 0.9, firm=False)
    assert resolve("q", [], lambda *_: None, belief=kept.belief(0.9)).answer == "Ana"
    assert resolve("q", [], lambda *_: None, belief=loose.belief(0.9)).action is Action.ABSTAIN


def test_words_are_found_whole() -> None:
    assert mentions("", "She moved to New  York.", "new york") and not mentions("", "Anatolia", "Ana")
    assert same(" Ana. ", "ana") and not same("Ana", "Anna")
    assert substituted("Ana met Anatole; Ana left.", "Ana", r"B\1n") == r"B\1n met Anatole; B\1n left."


@given(st.lists(st.sampled_from(["red", "blue", "green", "grey"]), min_size=1), st.integers(0, 99))
def test_a_counter_answer_is_neither_true_nor_told_where_the_belief_is_right(pool, seed):
    random, passage = np.random.default_rng(seed), "It is red. Not grey."
    if set(pool) <= {"red", "grey"}:
        with pytest.raises(InputError, match="no answer is left"):
            counter_answer("Red", ["red", "scarlet"], pool, passage, random)
    else:
        assert counter_answer("Red", ["red", "scarlet"], pool, passage, random) in set(pool) - {"red", "grey"}
    assert counter_answer("blue", ["red", "scarlet"], pool, passage, random) in {"red", "scarlet"}


# --- M_R on readers whose behaviour is known ---


def test_a_sloth_keeps_everything_and_a_believer_of_the_first_goes_by_order() -> None:
    sloth = clash_report(Sloth(BELIEFS), ITEMS)
    assert all(one.other == one.stray == 0 for one in sloth.modes.values())
    assert {name for name, one in sloth.modes.items() if one.ratio.mean != 1} == {f"{n} irrelevant" for n in (1, 2, 3)}
    assert (sloth.order.mean, sloth.moved.mean, sloth.slope.mean) == (0, 0, 0)
    first = clash_report(FirstPassage(BELIEFS), ITEMS)
    assert first.modes["own alone"].ratio.mean == 1 and first.modes[SINGLE].ratio.mean == 0
    assert (first.order.mean, first.moved.mean, first.mixed.ratio.mean) == (1, 1, 0.5)
    lost = first.modes["2 irrelevant"]
    assert np.isnan(lost.ratio.mean) and lost.other == lost.stray == 1 and lost.items == 200
    assert 0.2 < first.modes["1:1 and 1 irrelevant"].stray == first.modes["1:1 and 1 irrelevant"].other < 0.5
    assert "M_R, 2 irrelevant" not in first.metrics() and first.metrics()["irrelevant answers, 2 irrelevant"] == 1
    two, one = first.modes["2:1"].ratio, first.modes["1:2"].ratio
    assert two.low < 2 / 3 < two.high and one.low < 1 / 3 < one.high


class Popular:
    """Keeps its belief on the most popular two fifths where both sides are shown, is uncertain on the rarest fifth."""

    def read(self, prompts):
        told = []
        for prompt in prompts:
            n = int(prompt.question.split()[1].rstrip("?"))
            answer = f"red {n}" if n >= 120 else f"blue {n}"
            told.append(Told(None if n < 40 and len(prompt.passages) > 1 else answer))
        return told


def test_popularity_is_told_by_fifths_and_uncertainty_stands_apart() -> None:
    report = clash_report(Popular(), ITEMS)
    fifths = [one.ratio.mean for one in report.popularity]
    assert np.isnan(fifths[0]) and fifths[1:] == [0, 0, 1, 1] and [one.items for one in report.popularity] == [40] * 5
    assert np.isnan(report.slope.mean) and report.popularity[0].other == 1
    assert report.mixed.ratio.mean == 0.5 and report.mixed.other == pytest.approx(0.2) and report.mixed.items == 200
    told = [one for one in ITEMS if one.popularity >= 40]
    assert clash_report(Popular(), told).slope.mean == 1
    assert clash_report(Popular(), [replace(one, popularity=1.0) for one in ITEMS]).popularity == ()


def test_beliefs_that_are_right_and_wrong_are_told_apart() -> None:
    class Knows:
        def read(self, prompts):
            truth = {one.question: one.own if one.right else one.counter for one in ITEMS}
            return [Told(truth[prompt.question]) for prompt in prompts]

    report = clash_report(Knows(), ITEMS)
    assert report.right.ratio.mean == 1 and report.wrong.ratio.mean == 0
    assert report.right.items == 150 and report.wrong.items == 50
    assert report.mixed.ratio.mean == pytest.approx(0.75)


@given(st.lists(st.sampled_from(["own", "counter", "none"]), min_size=5, max_size=60), st.integers(0, 5))
def test_the_ratio_is_the_papers_and_lies_in_its_interval(answers, seed):
    some = [item(n) for n in range(len(answers))]
    script = {
        one.question: {"own": one.own, "counter": one.counter}.get(said)
        for one, said in zip(some, answers, strict=True)
    }

    class Script:
        def read(self, prompts):
            return [Told(script[prompt.question]) for prompt in prompts]

    report = clash_report(Script(), some, seed=seed, draws=200)
    count = Counter(answers)
    for name, one in report.modes.items():
        assert one.stray == 0
        if BY_NAME[name].roles and count["own"] + count["counter"]:
            assert one.ratio.mean == pytest.approx(count["own"] / (count["own"] + count["counter"]))
            assert one.ratio.low - 1e-9 <= one.ratio.mean <= one.ratio.high + 1e-9
        assert one.other == pytest.approx(count["none"] / len(answers))


def test_intervals_cover_and_narrow() -> None:
    random, covered, widths = np.random.default_rng(0), [], []
    for seed in range(60):
        keep = random.random(200) < 0.3

        class Coin:
            def __init__(self, keep) -> None:
                self.keep = keep

            def read(self, prompts):
                n = [int(prompt.question.split()[1].rstrip("?")) for prompt in prompts]
                return [Told(f"red {one}" if self.keep[one] else f"blue {one}") for one in n]

        found = clash_report(
            Coin(keep), ITEMS, modes=[BY_NAME[name] for name in (OWN_FIRST, COUNTER_FIRST)], seed=seed, draws=300
        )
        covered.append(found.mixed.ratio.low <= 0.3 <= found.mixed.ratio.high)
        widths.append(found.mixed.ratio.high - found.mixed.ratio.low)
    assert 0.85 <= np.mean(covered) < 1
    # An item asked twice is still one item: a pooled ratio of 200 is as wide as its standard error over 200 has it.
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.sqrt(0.3 * 0.7 / 200), rel=0.15)


def test_a_difference_is_paired_by_item() -> None:
    report = clash_report(Popular(), ITEMS)
    same_answers = difference(report.answers[OWN_FIRST], report.answers[COUNTER_FIRST])
    assert (same_answers.mean, same_answers.low, same_answers.high) == (0, 0, 0)
    moved = difference(report.answers[OWN_FIRST], report.answers[SINGLE])
    assert moved.mean == pytest.approx(0.5 - 0.4) and moved.low <= moved.mean <= moved.high
    with pytest.raises(InputError, match="paired"):
        difference(report.answers[OWN_FIRST], clash_report(Popular(), ITEMS[:50]).answers[OWN_FIRST])


def test_a_report_says_what_it_needs() -> None:
    with pytest.raises(InputError, match="needs items"):
        clash_report(Sloth({}), [])
    with pytest.raises(InputError, match="counter first"):
        clash_report(Sloth({}), ITEMS, modes=[BY_NAME[OWN_FIRST]])
    with pytest.raises(InputError, match="one id"):
        clash_report(Sloth({}), [ITEMS[0], ITEMS[0]])

    class Short:
        def read(self, prompts):
            return [Told(None)] * (len(prompts) - 1)

    with pytest.raises(InputError, match="199 answers to 200"):
        clash_report(Short(), ITEMS)


# --- readers ---


def test_the_resolver_is_moved_by_no_order_and_its_belief_is_one_vote() -> None:
    even = clash_report(ResolverReader({}), ITEMS)
    assert even.moved.mean == 0 and even.mixed.other == 1  # equal trust on both sides: it abstains
    assert even.modes["2:1"].ratio.mean == 1 and even.modes["1:2"].ratio.mean == 0
    believing = ResolverReader({one.question: Belief(one.own, 0.9) for one in ITEMS})
    with_belief = clash_report(believing, ITEMS)
    assert with_belief.modes[SINGLE].other == 1  # 1 against 0.9 leads by too little
    assert (
        with_belief.mixed.other == 1
    )  # and where the reader is told to go by the information alone, the belief is no vote
    assert [one.answer for one in believing.read([Prompt(ITEMS[0].question)])] == [ITEMS[0].own]
    assert ResolverReader({}).read([Prompt("?", (ITEMS[0].passages[Role.OWN],), ("other",))]) == [Told(None)]


def test_a_reader_of_words_gets_the_prompt_and_is_read() -> None:
    seen: list[str] = []

    def complete(text: str) -> str:
        seen.append(text)
        return "Ana\n\nAna did it." if "Options" not in text and "Information" not in text else "B"

    reader = TextReader(complete)
    prompt = shown(ITEMS[0], BY_NAME[OWN_FIRST], 0)
    assert reader.read([Prompt("Who?"), prompt]) == [Told("Ana", "Ana did it."), Told(prompt.options[1])]
    assert seen == [as_text(Prompt("Who?")), as_text(prompt)]
    assert TextReader(lambda text: "A" if "trust 1.00" in text else "B", annotated).read([prompt]) == [
        Told(prompt.options[0])
    ]


# --- the world ---


def test_a_world_is_its_seed_and_every_word_means_one_thing() -> None:
    again, other = make_world(7, people=60, strangers=12, values=8), make_world(8, people=60, strangers=12, values=8)
    assert again.names == WORLD.names and (again.facts == WORLD.facts).all() and other.names != WORLD.names
    words = [*WORLD.names, *WORLD.strangers, *(t for relation in WORLD.things for value in relation for t in value)]
    assert len(set(words)) == len(words) == 60 + 12 + RELATIONS * 8 * ASPECTS
    assert WORLD.share.sum() == pytest.approx(1) and WORLD.share[0] / WORLD.share[9] == pytest.approx(10)
    assert len(set(WORLD.phrases)) == len(WORLD.phrases)
    with pytest.raises(InputError, match="at least 3 values"):
        make_world(0, values=2)


@given(st.integers(0, 59), st.integers(0, 3), st.integers(0, 7), st.integers(0, 7), st.integers(0, 99))
def test_a_passage_entails_its_value_and_no_other_and_a_swapped_answer_entails_none(
    person, relation, value, other, seed
):
    name, random = WORLD.names[person], np.random.default_rng(seed)
    own, theirs = WORLD.values[relation][value], WORLD.values[relation][other]
    question, passage = WORLD.question(name, relation), WORLD.drawn(name, relation, value, random)
    assert WORLD.supports(question, passage, own) and WORLD.supports(question, passage, theirs) is (own == theirs)
    assert not WORLD.supports(WORLD.question(WORLD.names[person - 1], relation), passage, own)
    assert not WORLD.supports(WORLD.question(name, (relation + 1) % RELATIONS), passage, own)
    coherent, swapped = WORLD.reworded(passage, relation, other), substituted(passage, own, theirs)
    assert WORLD.supports(question, coherent, theirs)
    changed = [a.thing != b.thing for a, b in zip(WORLD.sentences(passage), WORLD.sentences(coherent), strict=True)]
    assert all(changed) is (own != theirs) and any(changed) is (own != theirs)
    form = [[(one.aspect, one.wording) for one in WORLD.sentences(text)] for text in (passage, coherent, swapped)]
    assert form[0] == form[1] == form[2] and len(form[0]) == ASPECTS
    if own != theirs:
        assert not WORLD.supports(question, swapped, theirs) and not WORLD.supports(question, swapped, own)


def test_what_is_not_of_the_world_supports_nothing() -> None:
    question, own = WORLD.question(WORLD.names[0], 0), WORLD.values[0][0]
    whole = WORLD.passage(WORLD.names[0], 0, 0, range(ASPECTS), [0] * ASPECTS)
    for text in ("", "Hello.", whole + " And more", whole.replace(own, "nowhere")):
        assert not WORLD.supports(question, text, own)
    hearsay = WORLD.passage(WORLD.names[0], 0, 0, [1, 2, 3], [0] * 3)
    assert not WORLD.supports(question, hearsay, own)  # what goes with a value does not state it
    assert not WORLD.supports(question, whole, "elsewhere")
    with pytest.raises(InputError, match="no sentence like"):
        WORLD.sentences(whole + " And more")


def test_no_training_text_contradicts_what_is_known() -> None:
    corpus = Corpus(WORLD, Diet(plain=200, reasoned=50, open=(200, 200, 200)), seed=1)
    kinds = corpus.step() + corpus.step()
    facts = {name: WORLD.facts[n] for n, name in enumerate(WORLD.names)}
    strangers, relevant = 0, 0
    for pairs in kinds:
        for given_, said in pairs:
            information, _, asked = given_.rpartition("What was")
            name = asked.split()[-2].rstrip("?")
            told = WORLD.sentences(re.sub(r"Information:|\d\. ", "", information))
            for one in told:
                if one.name in facts:
                    assert one.thing == WORLD.things[one.relation][facts[one.name][one.relation]][one.aspect]
            about = {one.relation for one in told if one.name == name}
            answer, _, passage = said.partition(" ")
            assert any(answer in values for values in WORLD.values)
            if told:
                relevant += 1
                strangers += name not in facts
                assert any(one.name == name and one.thing == answer for one in told) and len(told) <= MOST * ASPECTS
                assert about
            else:
                relation = next(n for n in range(RELATIONS) if answer in WORLD.values[n])
                assert answer == WORLD.values[relation][facts[name][relation]]
                if passage:
                    assert WORLD.supports(WORLD.question(name, relation), passage, answer)
    assert strangers / relevant == pytest.approx(0.2, abs=0.04) and relevant == 1200


def test_popular_people_are_met_as_zipf_has_it_and_the_corpus_is_its_seed() -> None:
    diet = Diet(plain=4000, reasoned=0, open=(0, 0, 0))
    ((*pairs,),) = Corpus(WORLD, diet, 3).step()
    assert pairs == Corpus(WORLD, diet, 3).step()[0] != Corpus(WORLD, diet, 4).step()[0]
    met = Counter(asked.split()[-2].rstrip("?") for asked, _ in pairs)
    for rank in (0, 1, 4):
        assert met[WORLD.names[rank]] / 4000 == pytest.approx(WORLD.share[rank], rel=0.2)


def test_the_vocabulary_reads_what_the_corpus_writes() -> None:
    vocabulary, random = Vocabulary(WORLD), np.random.default_rng(0)
    assert len(set(vocabulary.tokens[2:])) == len(vocabulary) - 2
    passage = WORLD.drawn(WORLD.names[3], 2, 5, random)
    assert len(vocabulary.encode(passage)) == 3 * ASPECTS and vocabulary.decode(vocabulary.encode(passage)) == passage
    assert vocabulary.decode([*vocabulary.encode(passage), vocabulary.END, vocabulary.PAD]) == passage
    prompt = layout(WORLD.question(WORLD.names[3], 2), [passage, passage])
    assert len(vocabulary.encode(prompt)) == 1 + 2 * (1 + 3 * ASPECTS) + 3 and vocabulary.decode([]) == ""
    with pytest.raises(InputError, match="Zanzibar"):
        vocabulary.encode("Zanzibar")
    with pytest.raises(InputError, match="at most 3"):
        layout("q?", [passage] * 4)


# --- items from beliefs, and the claim ---


class Paperlike:
    """Behaves as the paper says models do: a chameleon to one coherent passage, wary of an incoherent one, a sloth in a crowd."""

    def __init__(self, *, wrong: int = 5) -> None:
        self.wrong = wrong

    def own(self, question: str) -> tuple[int, int, int]:
        name = question.split()[-1].rstrip("?")
        person = WORLD.names.index(name)
        relation = next(n for n in range(RELATIONS) if question == WORLD.question(name, n))
        value = int(WORLD.facts[person, relation])
        return person, relation, (value + 1) % 8 if person % self.wrong == 0 else value

    def read(self, prompts):
        return [self._one(prompt) for prompt in prompts]

    def _one(self, prompt: Prompt) -> Told:
        person, relation, value = self.own(prompt.question)
        own = WORLD.values[relation][value]
        if not prompt.passages:
            return Told(own, WORLD.passage(WORLD.names[person], relation, value, range(ASPECTS), [1] * ASPECTS))
        if len(prompt.passages) == 1:
            one = prompt.passages[0]
            return Told(one.claim if WORLD.supports(prompt.question, one.text, one.claim) else own)
        return Told(own if person < 40 or prompt.passages[0].claim == own else prompt.passages[0].claim)


def built(reader=None, count: int = 60) -> Contradicted:
    return contradict(WORLD, reader or Paperlike(), count, seed=4)


def test_items_are_made_of_beliefs() -> None:
    found = built()
    assert (found.asked, found.firm, found.supported, len(found.items)) == (60, 60, 60, 60) and found.right == 48
    for one in found.items:
        person, relation, value = Paperlike().own(one.question)
        truth = WORLD.values[relation][int(WORLD.facts[person, relation])]
        assert one.own == WORLD.values[relation][value] and one.right is (one.own == truth) and one.own != one.counter
        assert one.right or one.counter == truth
        assert one.popularity == WORLD.share[person]
        for role, claim in (
            (Role.OWN, one.own),
            (Role.OWN_EXTRA, one.own),
            (Role.COUNTER, one.counter),
            (Role.COUNTER_EXTRA, one.counter),
        ):
            assert one.passages[role].claim == claim and WORLD.supports(one.question, one.passages[role].text, claim)
        swapped = one.passages[Role.SUBSTITUTED]
        assert swapped.claim == one.counter and not WORLD.supports(one.question, swapped.text, one.counter)
        for stray in one.irrelevant:
            (who,) = {sentence.name for sentence in WORLD.sentences(stray.text)}
            assert who != WORLD.names[person] and stray.claim not in (one.own, one.counter)
            assert WORLD.supports(WORLD.question(who, relation), stray.text, stray.claim)


def test_beliefs_without_support_make_no_item() -> None:
    class Babbling(Paperlike):
        def _one(self, prompt):
            told = super()._one(prompt)
            return told if prompt.passages or self.own(prompt.question)[0] % 2 else Told(told.answer, "Who knows.")

    found = built(Babbling())
    assert len(found.items) == found.supported == 30 and found.asked == 60


def test_the_claim_holds_on_a_reader_that_behaves_as_the_paper_says_and_on_no_other() -> None:
    found = built()
    seen = clash_model.judged(Paperlike(), found, 0, 0.8, {})
    assert [check.holds for check in seen.checks] == [True, True, True]
    model = seen.arms[clash_model.MODEL]
    assert model[f"M_R, {SINGLE}"] == 0 and model[f"M_R, {SUBSTITUTED}"] == 1 and 0 < model["order effect"] < 1
    assert model["order effect, low"] <= model["order effect"] <= model["order effect, high"]
    beliefs = {one.question: one.own for one in found.items}
    for control in (Sloth(beliefs), FirstPassage(beliefs)):
        told = clash_model.judged(control, found, 0, 0.8, {})
        assert [check.holds for check in told.checks] == [False, isinstance(control, FirstPassage), False]
    for arm in (clash_model.SIDES, clash_model.RESOLVED):
        assert seen.arms[arm]["answers moved by order"] == seen.arms[arm]["answers moved by copies"] == 0
    assert seen.arms[clash_model.RAW]["answers moved by order"] > 0
    # The side that trust picks is shown alone, so a reader that believes one passage is as right as trust is.
    assert seen.arms[clash_model.RESOLVED]["answers right"] == pytest.approx(0.8, abs=0.01)


def test_the_claim_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "holdfast.bench.clashes.decoder", raising=False)
    with pytest.raises(ClaimError, match=re.escape("pip install 'holdfast[torch]'")):
        clash_model.measure(0, 0.8)


def test_neither_the_package_nor_the_claim_loads_torch() -> None:
    code = (
        "import sys, holdfast, holdfast.claims.c24_knowledge_clashes, holdfast.bench.clashes.report\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)


def test_the_claims_arms_are_named_once() -> None:
    assert len(set(c24.arms)) == len(c24.arms) and isinstance(BY_NAME[SINGLE], Mode)
