"""Learnt utility (claim 37): the arithmetic of the ranking, and a token that counts once, whoever brings it, whenever."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.agent.turn import Turn
from holdfast.aio import AsyncMemory
from holdfast.cube import Channel, Cube, Kind, Origin, Status, Use
from holdfast.errors import AccessError, ConflictError, InputError, NotFoundError, StoreError
from holdfast.memory import Memory
from holdfast.retrieve.hits import Hit, Hits
from holdfast.retrieve.utility import Running, Utility, worth, z_scores
from holdfast.store.base import Action
from holdfast.store.batch import Batch
from holdfast.store.rewards import Terms
from support import ANA, MEMORY, START, Clock, HashEmbedder, open_memory, update

TASK = "count the orders of each customer"
TASKS = [f"{TASK} in {place}" for place in ("spring", "summer", "autumn", "winter")]
LOOSE = Utility(least=0.1)


def hits(pairs: Sequence[tuple[float, float]]) -> Hits:
    """Hits of some likeness and utility."""
    return Hits(Hit(Cube(ANA, "x", use=Use(1, START, utility)), likeness, likeness) for likeness, utility in pairs)


@pytest.fixture
def memory(place: Path | str) -> Iterator[Memory]:
    found = open_memory(place, embedder=HashEmbedder(), tenant="acme")
    found.add([{"role": "assistant", "content": text} for text in TASKS], kind=Kind.EXPERIENCE)
    found.flush()
    yield found
    found.close()


def utilities(memory: Memory) -> dict[str, float]:
    return {cube.text: cube.use.utility for cube in memory.select()}


# --- the ranking ---

likenesses = st.floats(-1, 1)
pools = st.lists(st.tuples(likenesses, st.floats(-1, 1)), min_size=1, max_size=12)


@given(
    pool=st.lists(
        st.tuples(likenesses, st.integers(-100, 100)), min_size=1, max_size=12, unique_by=lambda pair: pair[1]
    ),
    constants=st.sampled_from([(0.39, 0.14), (0.5187, 0.1203), (0.31, 0.10), (0.1857, 0.0941)]),
)
def test_parity_with_the_arithmetic_of_the_official_code(
    pool: list[tuple[float, int]], constants: tuple[float, float]
) -> None:
    """Likeness by the fixed constants of a data set, utility by its pool, both clamped to 3, half and half."""
    likeness, utility = (np.array(values) for values in zip(*((one, q / 100) for one, q in pool), strict=True))
    spread = utility.std() if len(pool) > 1 else 1.0
    expected = 0.5 * np.clip((likeness - constants[0]) / constants[1], -3, 3)
    expected += 0.5 * np.clip((utility - utility.mean()) / spread, -3, 3)
    ours = 0.5 * z_scores(likeness, 3, 1e-9, constants) + 0.5 * z_scores(utility, 3, 1e-9)
    assert np.allclose(ours, expected, atol=1e-12, rtol=0)


def test_a_fixed_pool_has_a_fixed_order() -> None:
    """Worked by hand: likeness .9 .7 .5 has z 1.2247, 0, -1.2247; utility 0 1 .5 has z -1.2247, 1.2247, 0."""
    found = Utility().choose(hits([(0.9, 0.0), (0.7, 1.0), (0.5, 0.5)]))
    assert [round(hit.score, 4) for hit in found] == [0.6124, 0.0, -0.6124]
    assert [hit.relevance for hit in found] == [0.7, 0.9, 0.5]
    assert found[0].channels == pytest.approx({"likeness": 0.0, "utility": 0.6124}, abs=1e-4)


@given(pool=pools)
def test_the_ends_of_the_mix_are_likeness_alone_and_utility_alone(pool: list[tuple[float, float]]) -> None:
    likeness, utility = (np.array(values) for values in zip(*pool, strict=True))
    for weight, values in ((0.0, likeness), (1.0, utility)):
        scores = Utility(weight=weight, least=-2).rank("", hits(pool))
        assert all(scores[a] <= scores[b] for a in range(len(pool)) for b in range(len(pool)) if values[a] <= values[b])


@given(pool=pools, least=st.floats(-1, 1))
def test_what_is_not_alike_enough_is_left_out_and_moves_no_score(pool: list[tuple[float, float]], least: float) -> None:
    by = Utility(least=least, k=10)
    scores = by.rank("", hits(pool))
    alike = [pair for pair in pool if pair[0] > least]
    assert np.isfinite(scores).tolist() == [pair[0] > least for pair in pool]
    assert scores[np.isfinite(scores)].tolist() == by.rank("", hits(alike)).tolist()
    told = by.choose(hits(pool))
    assert len(told) == min(len(alike), 10) and told.abstain is not bool(alike)


def test_two_that_hardly_differ_are_not_far_apart() -> None:
    near = Utility(weight=0.0).rank("", hits([(0.601, 0), (0.600, 0)]))
    far = Utility(weight=0.0).rank("", hits([(0.9, 0), (0.4, 0)]))
    assert near[0] - near[1] == pytest.approx(0.02)
    assert far[0] - far[1] == pytest.approx(2.0)


@given(values=st.lists(st.lists(likenesses, min_size=1, max_size=9), min_size=1, max_size=9))
def test_a_running_scale_is_that_of_all_it_saw(values: list[list[float]]) -> None:
    running = Running()
    for some in values:
        mean, deviation = running.see(some)
    flat = [value for some in values for value in some]
    assert (mean, deviation) == pytest.approx((np.mean(flat), np.std(flat)), abs=1e-9)


def test_a_running_scale_takes_the_place_of_the_pools() -> None:
    by = Utility(weight=0.0, scale=Running())
    by.rank("", hits([(0.4, 0), (0.6, 0), (0.8, 0)]))
    assert by.rank("", hits([(0.9, 0)]))[0] == pytest.approx((0.9 - 0.675) / np.std([0.4, 0.6, 0.8, 0.9]))


def test_exploring_needs_a_seed_and_stays_among_what_is_alike() -> None:
    by = Utility(explore=1.0, k=2)
    pool = hits([(0.9, 1.0), (0.8, 0.5), (0.7, 0.0), (0.6, -1.0), (0.1, 1.0)])
    with pytest.raises(InputError, match="at random"):
        by.choose(pool)
    drawn = [tuple(hit.relevance for hit in by.choose(pool, np.random.default_rng(seed))) for seed in range(200)]
    again = [tuple(hit.relevance for hit in by.choose(pool, np.random.default_rng(seed))) for seed in range(200)]
    assert drawn == again and len(set(drawn)) == 6  # of four that are alike, every pair
    assert {likeness for pair in drawn for likeness in pair} == {0.9, 0.8, 0.7, 0.6}
    never = Utility(explore=0.0, k=2)
    assert {hit.relevance for hit in never.choose(pool)} == {0.9, 0.8}


@pytest.mark.parametrize(
    "wrong",
    [{"k": 11}, {"k": 0}, {"weight": 1.1}, {"explore": -0.1}, {"clamp": 0}, {"floor": 0}, {"weight": float("nan")}],
)
def test_settings_that_make_no_ranker_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Utility(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"rate": 0}, {"rate": 1.1}, {"start": 2}, {"credit": "none"}, {"rate": float("nan")}]
)
def test_terms_that_are_none_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Terms(**wrong)


# --- utility moves what is told ---


def test_what_helped_comes_before_what_is_more_alike(memory: Memory) -> None:
    first = memory.useful(TASKS[0], by=LOOSE)
    assert first.hits[0].text == TASKS[0]
    wanted = next(hit for hit in first.hits if hit.text == TASKS[3])
    for hit, reward in ((wanted, 1.0), (first.hits[0], -1.0)):
        for _ in range(6):
            token = memory.store.hand_out([memory.get(hit.id)], memory.scope(), LOOSE.terms)
            assert memory.reward(token, reward).moved == (hit.id,)
    again = memory.useful(TASKS[0], by=LOOSE)
    assert again.hits[0].text == TASKS[3]
    alone = memory.useful(TASKS[0], by=replace(LOOSE, weight=0.0))
    assert alone.hits[0].text == TASKS[0]


def test_where_nothing_is_alike_nothing_is_told_and_nothing_is_to_be_rewarded(memory: Memory) -> None:
    before = memory.store.head()
    found = memory.useful("paint the fence", by=Utility(least=0.8))
    assert (list(found.hits), found.token, found.hits.abstain) == ([], "", True)
    assert "alike" in found.hits.reason and memory.store.head() == before


def test_kinds_and_scope_hold(memory: Memory) -> None:
    memory.add(TASK, kind=Kind.FACT)
    memory.add(TASK, kind=Kind.EXPERIENCE, user="ben")
    memory.flush()
    found = memory.useful(TASK, by=LOOSE, kinds=[Kind.EXPERIENCE])
    assert {hit.cube.kind for hit in found.hits} == {Kind.EXPERIENCE} and len(found.hits) == 4
    assert len(memory.useful(TASK, by=LOOSE, user="ben").hits) == 1
    with pytest.raises(NotFoundError):
        memory.reward(found.token, 1.0, user="ben")
    assert memory.reward(found.token, 1.0).applied


def test_a_memory_is_found_by_its_words_until_it_has_a_vector(memory: Memory) -> None:
    (id,) = memory.add("reset router cellar", kind=Kind.EXPERIENCE).ids
    found = memory.useful("reset router cellar")
    assert [hit.id for hit in found.hits] == [id] and found.hits[0].relevance == pytest.approx(1.0)
    memory.flush()
    assert [hit.id for hit in memory.useful("reset router cellar").hits] == [id]


def test_what_is_told_follows_every_change_and_a_reward_hides_nothing(memory: Memory) -> None:
    def told() -> set[str]:
        found = memory.useful(TASK, by=replace(LOOSE, k=10))
        memory.reward(found.token, 1.0)
        return {hit.id for hit in found.hits}

    before = told()
    assert len(before) == 4 and told() == before
    (id,) = memory.add(TASK, kind=Kind.EXPERIENCE).ids
    assert told() == before | {id}
    memory.retract(id)
    assert told() == before
    memory.restore(id)
    assert told() == before | {id}
    memory.forget(id)
    assert told() == before


def test_without_an_embedder_likeness_is_the_share_of_the_words(place: Path | str) -> None:
    with open_memory(place) as memory:
        memory.add("count orders by customer")
        memory.add("count sheep")
        found = memory.useful("count orders by customer", by=Utility(least=0.5))
        assert [hit.text for hit in found.hits] == ["count orders by customer"]


# --- a token counts once ---


def test_a_token_counts_once_and_says_so(memory: Memory) -> None:
    found = memory.useful(TASK, by=LOOSE)
    first = memory.reward(found.token, 1.0)
    assert first.applied and set(first.moved) == {hit.id for hit in found.hits} and not first.unmoved
    before, head = utilities(memory), memory.store.head()
    again = memory.reward(found.token, -1.0)
    assert (again.applied, again.reward, again.moved) == (False, 1.0, ())
    assert utilities(memory) == before and memory.store.head() == head
    assert set(before.values()) == {0.3}
    assert {cube.use.visits for cube in memory.select()} == {1}
    assert memory.verify() == []


def test_a_token_outlives_the_process_and_days(folder: Path) -> None:
    clock = Clock()
    with open_memory(folder, clock=clock) as memory:
        memory.add(TASK)
        token = memory.useful(TASK).token
    clock.tick(9 * 86_400)
    with open_memory(folder, clock=clock) as memory:
        assert memory.reward(token, 0.5).applied
        (cube,) = memory.select()
        assert cube.use.utility == pytest.approx(0.15) and cube.use.last_use == clock.at
    with open_memory(folder, clock=clock) as memory:
        assert not memory.reward(token, 0.5).applied


CHILD = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from support import open_memory
with open_memory(Path(sys.argv[2])) as memory:
"""


def child(script: str, *arguments: object) -> subprocess.Popen[str]:
    code = CHILD + textwrap.indent(textwrap.dedent(script), "    ")
    command = [sys.executable, "-c", code, str(Path(__file__).parent), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_of_processes_that_bring_one_token_at_once_one_counts(folder: Path) -> None:
    with open_memory(folder) as memory:
        (id,) = memory.add(TASK).ids
        tokens = [memory.useful(TASK).token for _ in range(10)]
        bring = """
            print("ready", flush=True)
            sys.stdin.readline()
            print(sum(memory.reward(token, 1.0).applied for token in sys.argv[3:]), flush=True)
        """
        children = [child(bring, folder, *tokens) for _ in range(3)]
        try:
            for one in children:
                assert one.stdout is not None and one.stdout.readline() == "ready\n"
            for one in children:
                assert one.stdin is not None
                one.stdin.write("\n")
                one.stdin.flush()
            applied = [int(one.communicate(timeout=60)[0]) for one in children]
        finally:
            for one in children:
                one.kill()
                one.wait()
        assert sum(applied) == 10
        use = memory.get(id).use
        assert use.visits == 10 and use.utility == pytest.approx(1 - 0.7**10)
        assert memory.verify() == []


def test_a_process_that_dies_between_recall_and_reward_loses_nothing(folder: Path) -> None:
    with open_memory(folder) as memory:
        (id,) = memory.add(TASK).ids
    die = f"""
        print(memory.useful({TASK!r}).token, flush=True)
        sys.stdin.readline()
    """
    process = child(die, folder)
    assert process.stdout is not None
    token = process.stdout.readline().strip()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with open_memory(folder) as memory:
        assert memory.verify() == [] and memory.get(id).use == Use()
        assert memory.reward(token, 1.0).moved == (id,)


def test_a_reward_that_fails_midway_leaves_the_token_good(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    found = memory.useful(TASK, by=LOOSE)
    done = []

    def failing(self: Batch, *arguments: object) -> None:
        if done:
            raise OSError("no space left")
        done.append(whole(self, *arguments))

    whole = Batch.feedback
    monkeypatch.setattr(Batch, "feedback", failing)
    with pytest.raises(StoreError, match="space"):
        memory.reward(found.token, 1.0)
    monkeypatch.undo()
    assert done and set(utilities(memory).values()) == {0.0} and memory.verify() == []
    assert memory.reward(found.token, 1.0).applied


def test_a_token_cannot_be_made_or_guessed(memory: Memory) -> None:
    """It is sealed with a key that is not in the journal, for one scope; nobody changes its terms or makes it fresh."""
    found = memory.useful(TASK, by=LOOSE)
    raw = urlsafe_b64decode(found.token[4:] + "=" * (-len(found.token[4:]) % 4))
    for at in range(len(raw)):
        other = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        with pytest.raises(NotFoundError):
            memory.reward("use-" + urlsafe_b64encode(other).decode().rstrip("="), 1.0)
    for wrong in (
        "",
        "use-",
        found.token + " ",
        found.token[4:],
        None,
        7,
        "use-" + "f" * 40,
        found.token + "é",
        "use-" + "A" * 101,
    ):
        with pytest.raises(InputError):
            memory.reward(wrong, 1.0)  # type: ignore[arg-type]
    for other in (found.token + "A", found.token[:-4], "use-" + "A" * 200):
        with pytest.raises((NotFoundError, InputError)):
            memory.reward(other, 1.0)
    assert set(utilities(memory).values()) == {0.0}
    assert memory.reward(found.token, 1.0).applied
    told = [change.event.reason for change in memory.history()]
    assert not any(TASK in reason or found.token[-20:] in reason for reason in told)


def test_every_spelling_of_a_token_but_its_own_is_refused(memory: Memory) -> None:
    """The last letter of base64 may hold bits that count for nothing: were they let through, one token could be told as several."""
    (id,) = memory.add("count them").ids
    token = memory.store.hand_out([memory.get(id)], memory.scope())
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert memory.reward(token, 1.0).applied
    for letter in letters:
        if token[-1] != letter:
            with pytest.raises(NotFoundError):
                memory.reward(token[:-1] + letter, 1.0)
    assert memory.get(id).use.visits == 1


def test_a_recall_writes_nothing(memory: Memory, folder: Path) -> None:
    memory.useful(TASK, by=LOOSE)  # the first makes the key that tokens are sealed with
    file = memory.store.connections.file
    before = memory.store.head(), file.read_bytes(), file.with_name(file.name + "-wal").read_bytes()
    tokens = {memory.useful(TASK, by=LOOSE).token for _ in range(3)}
    assert len(tokens) == 3
    assert before == (memory.store.head(), file.read_bytes(), file.with_name(file.name + "-wal").read_bytes())


def test_a_token_of_another_store_is_none_here(memory: Memory, folder: Path) -> None:
    with open_memory(folder.with_name("other"), embedder=HashEmbedder(), tenant="acme") as other:
        (id,) = other.add(TASK).ids
        token = other.store.hand_out([other.get(id)], other.scope())
    with pytest.raises(NotFoundError):
        memory.reward(token, 1.0)


def test_a_store_put_back_from_a_backup_counts_a_later_token_once_or_not_at_all(folder: Path) -> None:
    with open_memory(folder) as memory:
        (id,) = memory.add(TASK).ids
        early = memory.useful(TASK).token
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    with open_memory(folder) as memory:
        memory.add("something else")
        late = memory.useful(TASK).token
    with open_memory(kept) as memory:
        with pytest.raises(NotFoundError):
            memory.reward(late, 1.0)
        assert memory.reward(early, 1.0).applied
        applied = 0
        for at in range(4):
            memory.add(f"number {at}")
            applied += memory.reward(late, 1.0).applied
        assert applied == 1 and memory.get(id).use.visits == 2


@pytest.mark.parametrize("reward", [1.01, -2, float("nan"), float("inf"), "1", None])
def test_a_reward_is_bounded(memory: Memory, reward: float) -> None:
    token = memory.useful(TASK, by=LOOSE).token
    with pytest.raises(InputError, match="between -1 and 1"):
        memory.reward(token, reward)
    assert memory.reward(token, 1.0).applied


def test_credit_is_whole_or_split_and_begins_where_it_is_said(memory: Memory) -> None:
    split = replace(LOOSE, terms=Terms(rate=0.5, start=0.5, credit="split"))
    found = memory.useful(TASK, by=split)
    assert len(found.hits) == 4
    memory.reward(found.token, 1.0)
    assert set(utilities(memory).values()) == {0.5 + 0.5 * (0.25 - 0.5)}
    memory.reward(memory.useful(TASK, by=replace(split, terms=Terms(rate=1.0, start=0.5))).token, -1.0)
    assert set(utilities(memory).values()) == {-1.0}


def test_what_is_gone_gains_nothing_and_the_rest_does(memory: Memory) -> None:
    found = memory.useful(TASK, by=LOOSE)
    forgotten, retracted, left, frozen = (hit.id for hit in found.hits)
    memory.forget(forgotten)
    memory.retract(retracted)
    memory.freeze(frozen)
    done = memory.reward(found.token, 1.0)
    assert set(done.moved) == {left, frozen} and set(done.unmoved) == {forgotten, retracted}
    assert not memory.reward(found.token, 1.0).applied
    assert memory.verify() == [] and memory.store.leftovers([forgotten])["uses"] == 0


def test_a_reward_is_evidence_and_makes_no_version(memory: Memory) -> None:
    found = memory.useful(TASK, by=LOOSE)
    memory.reward(found.token, 1.0)
    id = found.hits[0].id
    assert [change.event.action for change in memory.history(id)] == [Action.ADD, Action.REWARD, Action.FEEDBACK]
    assert memory.get(id).version == 1
    for event in list(memory.store.events()):
        if event.action in (Action.REWARD, Action.FEEDBACK):
            with pytest.raises(ConflictError, match="evidence"):
                memory.undo(event.seq)
    memory.correct(id, "count them otherwise")
    assert memory.get(id).use.utility == pytest.approx(0.3)


# --- who may, and what may gain ---


def test_what_came_from_outside_gains_nothing_and_can_lose(memory: Memory) -> None:
    (page,) = memory.add(TASK, channel=Channel.WEB, source="https://e.example").ids
    memory.flush()
    for _ in range(3):
        found = memory.useful(TASK, by=LOOSE)
        assert page in [hit.id for hit in found.hits]
        done = memory.reward(found.token, 1.0)
        assert "outside" in done.unmoved[page] and page not in done.moved
    assert memory.get(page).use == Use()
    assert page in memory.reward(memory.useful(TASK, by=LOOSE).token, -1.0).moved
    assert memory.get(page).use.utility == pytest.approx(-0.3)
    assert page not in memory.reward(memory.useful(TASK, by=LOOSE).token, 0.0).moved  # back up to 0 would be a gain


def test_however_it_came_by_it_a_tainted_memory_has_no_utility_above_the_unknown(memory: Memory) -> None:
    (page,) = memory.add(TASK, channel=Channel.WEB, source="https://e.example").ids
    memory.flush()
    cube = memory.get(page).with_(use=Use(1, START, 0.3))  # as an import may bring it
    assert worth(cube) == 0.0 and worth(cube, 0.5) == pytest.approx(0.3)
    assert worth(replace(cube, use=Use(1, START, -0.4))) == -0.4
    assert worth(replace(cube, origin=Origin())) == pytest.approx(0.3)
    shown = {hit.id: hit.channels["utility"] for hit in memory.useful(TASK, by=LOOSE).hits}
    assert set(shown.values()) == {0.0}


def test_plain_feedback_raises_a_tainted_memory_no_more_than_a_reward_does(memory: Memory) -> None:
    """An agent that was told by a page says that the page served well: nobody else says so."""
    (page,) = memory.add(TASK, channel=Channel.WEB, source="https://e.example").ids
    (own,) = memory.add("count them all").ids
    head = memory.store.head()[0]
    unmoved = memory.feedback([page, own], 1.0)
    assert list(unmoved) == [page] and "outside" in unmoved[page]
    assert memory.get(page).use == Use() and memory.get(own).use.utility == pytest.approx(0.3)
    assert memory.store.head()[0] == head + 1
    assert memory.feedback([page], -1.0) == {} and memory.get(page).use.utility == pytest.approx(-0.3)
    assert page in memory.feedback([page], 0.0) and memory.get(page).use.visits == 1


def test_plain_feedback_lifts_nothing_in_quarantine(place: Path | str) -> None:
    with open_memory(place) as memory:
        (id,) = memory.add(TASK).ids
        update(memory.store, memory.get(id), status=Status.QUARANTINED)
        assert "quarantined" in memory.feedback([id], 1.0)[id] and memory.get(id).use == Use()
        assert memory.feedback([id], -1.0) == {} and memory.get(id).use.utility == pytest.approx(-0.3)


@pytest.mark.parametrize("reward", [1.0, -1.0])
def test_a_reward_leaves_what_was_put_into_quarantine_as_it_is(place: Path | str, reward: float) -> None:
    with open_memory(place, tenant="acme") as memory:
        (id,) = memory.add(TASK).ids
        token = memory.useful(TASK).token
        update(memory.store, memory.get(id), status=Status.QUARANTINED)
        done = memory.reward(token, reward)
        assert done.applied and done.moved == () and id in done.unmoved
        assert memory.get(id).use == Use()
        assert memory.useful(TASK).hits == []
        memory.approve(id)
        assert not memory.reward(token, reward).applied, "nor later, by bringing the same token again"
        assert memory.get(id).use == Use()


def test_rights_say_who_may_rate(place: Path | str) -> None:
    with open_memory(place, tenant="acme", user="ana") as memory:
        memory.add(TASK, agent="planner")
        memory.add(TASK + " again", agent="other")
        for name, place, rights in (
            ("reader", "acme/ana", ["read"]),
            ("writer", "acme/ana", ["read", "write"]),
            ("planner", "acme/ana/planner", ["read", "write"]),
            ("other", "acme/ana/other", ["read", "write"]),
        ):
            memory.access.enrol(name)
            memory.access.grant(name, place, rights)
        reader, writer, planner, other = (memory.held_by(name) for name in ("reader", "writer", "planner", "other"))
        found = reader.useful(TASK)
        assert len(found.hits) == 2 and found.token == ""
        token = planner.useful(TASK).token
        with pytest.raises(AccessError):
            reader.reward(token, 1.0)
        with pytest.raises(NotFoundError):
            other.reward(token, 1.0)
        assert writer.reward(token, 1.0).applied, "one agent recalls, another judges"
        both = writer.useful(TASK).token
        with pytest.raises(NotFoundError):
            planner.reward(both, 1.0)
        assert len(memory.reward(both, 1.0).moved) == 2
        events = [event for event in memory.store.events() if event.action is Action.REWARD]
        assert [event.actor for event in events] == ["writer", "acme/ana/-/-"]


def test_a_turn_that_recalls_what_is_tainted_is_tainted(memory: Memory) -> None:
    memory.add(TASK, channel=Channel.WEB, source="https://e.example")
    memory.flush()
    turn = Turn(memory)
    turn.useful(TASK, by=LOOSE)
    assert turn.taint == ("web:https://e.example",)


def test_asynchronously(place: Path | str) -> None:
    async def go() -> None:
        async with AsyncMemory(place, user="ana", embedder=None, background=False) as memory:
            await memory.add(TASK)
            found = await memory.useful(TASK)
            done = await asyncio.gather(*(memory.reward(found.token, 1.0) for _ in range(8)))
            assert sum(one.applied for one in done) == 1

    asyncio.run(go())


# --- laws ---

rewards = st.lists(st.floats(-1, 1), min_size=1, max_size=12)


@given(given_=rewards, rate=st.floats(0.01, 1), start=st.floats(-1, 1))
def test_utility_is_the_weighted_mean_of_the_rewards_and_stays_within_them(
    given_: list[float], rate: float, start: float
) -> None:
    """Q_t = (1 - a)^t Q_0 + a sum (1 - a)^(t - i) r_i, the closed form of the update."""
    use = Use(utility=start)
    for reward in given_:
        use = use.after(reward, rate)
    n = len(given_)
    closed = (1 - rate) ** n * start + rate * sum((1 - rate) ** (n - 1 - i) * r for i, r in enumerate(given_))
    assert use.utility == pytest.approx(closed, abs=1e-12) and use.visits == n
    assert min(start, *given_) - 1e-12 <= use.utility <= max(start, *given_) + 1e-12
    assert 0 <= use.uncertainty <= 2


@settings(max_examples=25, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_in_whatever_order_and_however_often_tokens_come_each_counts_once(data: st.DataObject, seed: int) -> None:
    """Tokens of different memories come to the same in any order; of one memory, the first of each token in their order."""
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, open_memory(Path(folder)) as memory:
        ids = [memory.add(text).ids[0] for text in TASKS]
        given_ = data.draw(st.lists(st.tuples(st.integers(0, 3), st.floats(-1, 1)), min_size=1, max_size=8))
        tokens = [memory.store.hand_out([memory.get(ids[at])], memory.scope(), Terms(0.4, 0.2)) for at, _ in given_]
        order = random.integers(0, len(tokens), 3 * len(tokens)).tolist() + list(range(len(tokens)))
        expected, seen = {id: Use(utility=0.2) for id in ids}, set[int]()
        for which in order:
            at, reward = given_[which]
            done = memory.reward(tokens[which], reward if which not in seen else -reward)
            assert done.applied is (which not in seen) and done.reward == reward
            if which not in seen:
                expected[ids[at]] = expected[ids[at]].after(reward, 0.4)
            seen.add(which)
        for id in ids:
            use = memory.get(id).use
            assert use.visits == expected[id].visits
            if use.visits:
                assert use.utility == expected[id].utility and -1 <= use.utility <= 1
        assert memory.verify() == []
