"""The indexes against plain arithmetic, and against themselves made afresh: after any history both must be the same."""

from __future__ import annotations

import math
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, rule

from holdfast.cube import Channel, Cube, Kind, Origin, Policy, Scope, Status, to_micros, utc
from holdfast.enrichment import Enrichment
from holdfast.errors import HoldfastError
from holdfast.retrieve import loops
from holdfast.retrieve import vectors as vectors_module
from holdfast.retrieve.arrays import Column, top
from holdfast.retrieve.lexical import K1, B, LexicalIndex
from holdfast.retrieve.partition import MASKS, Partition, View
from holdfast.retrieve.text import ROLES, fold_terms, pack_terms, term, tokens
from holdfast.retrieve.vectors import VectorIndex
from holdfast.store.base import Operation
from holdfast.store.grants import Grant, Reach, Right
from holdfast.store.sql import SqlStore
from support import ANA, BEN, MEMORY, START, Clock, HashEmbedder, add, open_memory, open_store, update

# --- arrays ---


@given(st.lists(st.integers(-3, 9), max_size=60), st.integers(1, 70))
def test_top_is_a_sort(scores: list[int], k: int) -> None:
    expected = sorted((row for row, score in enumerate(scores) if score > 0), key=lambda row: (-scores[row], row))[:k]
    assert top(np.asarray(scores, np.float32), k).tolist() == expected


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["distinct", "ties", "sparse", "few"])
def test_top_is_a_sort_of_large_arrays_too(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal(50_000).astype(np.float32)
    if kind == "ties":
        scores = np.round(scores * 2)
    elif kind == "sparse":
        scores *= rng.random(len(scores)) < 0.001
    elif kind == "few":
        scores[:] = 0
        scores[rng.integers(0, len(scores), 7)] = 1
    for k in (1, 10, 500):
        order = np.lexsort((np.arange(len(scores)), -scores))
        assert top(scores, k).tolist() == order[scores[order] > 0][:k].tolist()


@given(st.lists(st.integers(0, 40), unique=True, max_size=20))
def test_a_column_grows_and_fills(rows: list[int]) -> None:
    column = Column(np.int64, fill=-1)
    for row in rows:
        column.put(np.asarray([row]), np.asarray([row * 10]))
    size = max(rows, default=-1) + 1
    assert column.values.tolist() == [row * 10 if row in rows else -1 for row in range(size)]


# --- words ---

vocabulary = st.sampled_from(["lisbon", "porto", "tea", "coffee", "blue", "green", "river", "ana"])
documents = st.lists(st.lists(vocabulary, min_size=1, max_size=12), min_size=1, max_size=12)


def bm25(texts: list[list[str]], query: list[str]) -> list[float]:
    """Okapi BM25 as the textbooks write it, with an inverse document frequency that is never negative."""
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        counts = Counter(text)
        score = 0.0
        for word in dict.fromkeys(query):
            df = sum(word in other for other in texts)
            idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            tf = counts[word]
            score += idf * tf * (K1 + 1) / (tf + K1 * (1 - B + B * len(text) / max(mean, 1)))
        scores.append(score)
    return scores


@given(documents, st.lists(vocabulary, min_size=1, max_size=5, unique=True), st.lists(st.integers(1, 4), max_size=12))
def test_lexical_scores_are_bm25_however_the_rows_came(
    texts: list[list[str]], query: list[str], steps: list[int]
) -> None:
    index = LexicalIndex()
    folds = [pack_terms(text) for text in texts]
    at = 0
    for step in [*steps, len(texts)]:
        index.append(list(range(at, min(at + step, len(texts)))), folds[at : at + step])
        at = min(at + step, len(texts))
    found = index.scores([term(word) for word in query], len(texts))
    assert found.tolist() == pytest.approx(bm25(texts, query), rel=1e-5)
    rows = np.arange(-1, len(texts))
    for word in query:
        assert index.counts([term(word)], rows)[0].tolist() == [0, *(Counter(text)[word] for text in texts)]


@given(documents, st.randoms(use_true_random=False))
def test_rows_may_come_in_any_order(texts: list[list[str]], random: object) -> None:
    order = list(range(len(texts)))
    random.shuffle(order)  # type: ignore[attr-defined]
    index = LexicalIndex()
    for row in order:
        index.append([row], [pack_terms(texts[row])])
    for word in ("lisbon", "tea"):
        assert index.scores([term(word)], len(texts)).tolist() == pytest.approx(bm25(texts, [word]), rel=1e-5)
        assert index.counts([term(word)], np.arange(len(texts)))[0].tolist() == [Counter(text)[word] for text in texts]


def test_the_index_of_a_partition_knows_nothing_of_other_users(place: Path | str) -> None:
    store = open_store(place)
    add(store, Cube(ANA, "tea in Lisbon"), *(Cube(BEN, f"tea number {n}") for n in range(50)))
    partition = Partition(store, store.partition(ANA) or 0)
    partition.catch_up()
    alone = LexicalIndex()
    alone.append([0], [fold_terms(Cube(ANA, "tea in Lisbon"))])
    words = [term(word) for word in tokens("tea Lisbon")]
    assert partition.lexical.scores(words, 1).tolist() == alone.scores(words, 1).tolist()


# --- vectors ---


def clustered(rng: np.random.Generator, rows: int, dimension: int, clusters: int, spread: float) -> np.ndarray:
    """Unit vectors in clusters, as texts about a few things are."""
    centres = rng.standard_normal((clusters, dimension))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    noise = rng.standard_normal((rows, dimension)) / math.sqrt(dimension)
    found = centres[rng.integers(0, clusters, rows)] + spread * noise
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


def exactly(table: np.ndarray, query: np.ndarray, k: int, allowed: np.ndarray) -> list[int]:
    cosines = table.astype(np.float32, copy=False) @ query
    cosines[~allowed] = -np.inf
    near = np.sort(np.argpartition(-cosines, k)[:k])
    return near[np.argsort(-cosines[near], kind="stable")].tolist()


def test_in_a_small_scope_the_scan_is_exact() -> None:
    rng = np.random.default_rng(1)
    table = clustered(rng, 3000, 96, 20, 0.6)
    index = VectorIndex(96)
    order = rng.permutation(3000)
    for start in range(0, 3000, 700):
        index.put(order[start : start + 700], table[order[start : start + 700]])
    for n in range(20):
        query = table[n * 7].astype(np.float32) + 0.1 * rng.standard_normal(96).astype(np.float32)
        for allowed in (np.ones(3000, np.bool_), rng.random(3000) < 0.02, np.zeros(3000, np.bool_)):
            rows, cosines = index.search(query, 10, allowed)
            assert rows.tolist() == exactly(table, query, 10, allowed)[: allowed.sum()]
            assert np.allclose(cosines, table[rows].astype(np.float32) @ query, atol=1e-5)


@pytest.fixture(params=["numpy", "compiled"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What scans above EXACT_ROWS: numpy alone, or the extra ``fast``."""
    if request.param == "compiled":
        pytest.importorskip("numba", reason="the extra fast is not installed")
    else:
        monkeypatch.setattr(loops, "fastest", loops.plain)
    return str(request.param)


@pytest.mark.parametrize(("clusters", "spread"), [(60, 0.5), (60, 2.0), (40, 0.3)])
@pytest.mark.usefixtures("engine")
def test_above_that_the_scan_over_codes_finds_99_of_100(clusters: int, spread: float) -> None:
    """Wide clusters, hardly any, and so tight ones that the signs alone cannot tell their members apart."""
    rng = np.random.default_rng(2)
    table = clustered(rng, 40_000, 128, clusters, spread)
    index = VectorIndex(128)
    index.put(np.arange(40_000), table)
    assert index._exact is None
    every, some = np.ones(40_000, np.bool_), rng.random(40_000) < 0.3
    found = {"all": 0, "some": 0}
    single = table.astype(np.float32)
    for n in range(40):
        query = single[n * 11] + 0.3 * rng.standard_normal(128).astype(np.float32) / math.sqrt(128)
        query /= np.linalg.norm(query)
        for name, allowed in (("all", every), ("some", some)):
            rows, _ = index.search(query, 10, allowed)
            assert allowed[rows].all()
            found[name] += len(set(rows.tolist()) & set(exactly(single, query, 10, allowed)))
    assert min(found.values()) >= 0.99 * 400, found


@pytest.mark.usefixtures("engine")
def test_a_narrow_mask_is_scanned_exactly_in_a_large_index() -> None:
    rng = np.random.default_rng(3)
    table = clustered(rng, 30_000, 64, 30, 0.8)
    index = VectorIndex(64)
    index.put(np.arange(30_000), table)
    allowed = np.zeros(30_000, np.bool_)
    allowed[rng.choice(30_000, 300, replace=False)] = True
    for n in range(10):
        query = table[n].astype(np.float32)
        assert index.search(query, 10, allowed)[0].tolist() == exactly(table, query, 10, allowed)
    assert index.search(query, 10, allowed[:100])[0].max(initial=0) < 100, (
        "a shorter mask allows nothing beyond its end"
    )


@pytest.mark.usefixtures("engine")
def test_the_change_from_exact_to_codes_loses_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors_module, "EXACT_ROWS", 50)
    monkeypatch.setattr(vectors_module, "SCANNED_ROWS", 0)
    rng = np.random.default_rng(4)
    dimension = 70  # one that does not fill its last word of bits
    table = clustered(rng, 130, dimension, 3, 1.0)
    index = VectorIndex(dimension)
    for start, end in ((0, 40), (60, 100), (40, 60), (100, 130)):
        index.put(np.arange(start, end), table[start:end])
    assert index.present.all()
    for row in range(130):
        assert index.search(table[row].astype(np.float32), 1)[0].tolist() == [row]
    rows = np.arange(-1, 131)
    cosines = index.cosines(table[5].astype(np.float32), rows)
    assert cosines[0] == cosines[-1] == 0
    assert np.allclose(cosines[1:-1], table.astype(np.float32) @ table[5].astype(np.float32), atol=1e-5)


@pytest.mark.usefixtures("engine")
def test_a_vector_set_anew_replaces_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors_module, "EXACT_ROWS", 50)
    monkeypatch.setattr(vectors_module, "SCANNED_ROWS", 0)
    table = clustered(np.random.default_rng(6), 200, 64, 5, 1.0)
    index = VectorIndex(64)
    index.put(np.arange(0, 200, 2), table[:100])
    index.put(np.arange(0, 100, 2), table[100:150])
    expected = np.concatenate((table[100:150], table[50:100])).astype(np.float32)
    for n in range(100):
        rows, cosines = index.search(expected[n], 3)
        assert rows[0] == 2 * n and cosines[0] > 0.99 and (rows % 2 == 0).all() and len(set(rows.tolist())) == 3


def test_a_row_without_a_vector_is_never_near() -> None:
    index = VectorIndex(8)
    table = clustered(np.random.default_rng(5), 10, 8, 2, 1.0)
    index.put(np.asarray([1, 3]), table[[1, 3]])
    assert set(index.search(-table[1].astype(np.float32), 10)[0].tolist()) == {1, 3}
    assert index.search(table[0].astype(np.float32), 10, np.ones(10, np.bool_))[0].max() == 3
    assert VectorIndex(8).search(table[0].astype(np.float32), 3)[0].tolist() == []


def test_a_fold_of_the_wrong_length_is_refused() -> None:
    index = VectorIndex(8)
    for folds in ([b""], [b"\0" * 15], [b"\0" * 24, b"\0" * 8]):
        with pytest.raises(ValueError, match="length"):
            index.put_folds(list(range(len(folds))), folds)
    with pytest.raises(ValueError, match="cut short"):
        LexicalIndex().append([0, 1], [b"\0" * 7, b"\0" * 3])


# --- a partition follows the journal ---


def snapshot(partition: Partition) -> dict[str, object]:
    """Everything that a search reads, in a form that does not depend on how it came."""
    size = partition.size
    words = [term(word) for word in ("tea", "coffee", "milk", "porto", "ben", "monday")]
    held = partition.vectors.present.tolist() if partition.vectors is not None else []
    rows = np.arange(size)
    moments = [to_micros(START) + seconds * 1_000_000 for seconds in range(-5, 40)]
    views = [View(now=moments[-1]), *(View(now=moment, known=moment) for moment in moments)]
    views += [View(now=moments[-1], true_at=moment) for moment in moments[::7]]
    views += [View(now=moments[-1], session="s"), View(now=moments[-1], kinds=("fact",)), View(now=0, agent="nobody")]
    found: dict[str, object] = {
        "size": size,
        "words": partition.lexical.scores(words, size).tolist(),
        "counts": partition.lexical.counts(words, rows).tolist(),
        "names": partition.entities.postings.counts(words, rows).tolist(),
        "entities": [
            partition.entities.activation([name], np.ones(size, np.bool_)).tolist() for name in ("porto", "ben")
        ],
        "dated": partition.dated.tolist(),
        "model": partition.model,
        "present": held + [False] * (size - len(held)),
        "trust": partition.trust.tolist(),
        "views": [partition.visible(view).tolist() for view in views],
    }
    for name in ("known_from", "known_to", "valid_from", "valid_to", "expires_at", "said"):
        found[name] = partition.column(name).tolist()
    for name in ("kind", "agent", "session", "author"):
        labels = {code: label for label, code in partition.labels(name).items()}
        found[name] = [labels[code] for code in partition.codes(name).tolist()]
    for side in ("previous", "next"):
        found[side] = partition.neighbours(side).tolist()
    found["speakers"] = spoken = []
    for session, kinds in ((None, frozenset[str]()), ("s", frozenset[str]()), ("t", frozenset({"fact"}))):
        grant = Grant("g", "bot", "acme", "ana", None, session, frozenset({Right.READ}), kinds)
        granted = View(now=moments[-1], reach=Reach(ANA, Right.READ, (grant,), "bot"))
        spoken.append(partition.speakers(granted))
        shown = partition.visible(granted)
        assert spoken[-1] == {found["author"][row] for row in rows[shown]} - ROLES - {None}
        assert partition.speakers(granted) == spoken[-1]
    if partition.vectors is not None:
        found["vectors"] = partition.vectors.vectors(rows).tolist()
    return found


class Follower(RuleBasedStateMachine):
    """One partition follows what two programs do; another is loaded afresh each time. Both must be the same."""

    memories = Bundle("memories")

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory(dir=MEMORY)
        self.clock = Clock()
        self.stores = [open_store(Path(self.home.name), clock=self.clock) for _ in range(2)]
        self.workers = [Enrichment(store, HashEmbedder(dimension=8), ()) for store in self.stores]
        add(self.stores[0], Cube(ANA, "tea in Porto"))
        self.partition = Partition(self.stores[0], 1)
        self.partition.catch_up()

    def teardown(self) -> None:
        self.same()
        for store in self.stores:
            store.close()
        self.home.cleanup()

    @rule(
        target=memories,
        store=st.integers(0, 1),
        text=st.sampled_from(["tea with Ben", "coffee on Monday", "milk, not tea", "I saw Porto yesterday"]),
        kind=st.sampled_from([Kind.MESSAGE, Kind.MESSAGE, Kind.FACT]),
        session=st.sampled_from([None, "s", "t"]),
        begins=st.sampled_from([None, START, utc("2025-01-01")]),
        status=st.sampled_from([Status.GENERATED, Status.GENERATED, Status.ARCHIVED]),
        author=st.sampled_from([None, "user", "Ana", "Ben", "Caro"]),
        lasts=st.sampled_from([None, None, 3, 9]),
    )
    def add(
        self,
        store: int,
        text: str,
        kind: str,
        session: str | None,
        begins: object,
        status: Status,
        author: str | None,
        lasts: int | None,
    ) -> str:
        self.clock.tick()
        expires = None if lasts is None else self.clock() + timedelta(seconds=lasts)
        given = {"origin": Origin(Channel.USER, author), "policy": Policy(expires_at=expires)}
        cube = Cube(Scope("acme", "ana", None, session), text, kind, valid_from=begins, status=status, **given)  # type: ignore[arg-type]
        done = add(self.stores[store], cube)
        return done.cubes[0].id if done.cubes else done.duplicates[0]

    @rule(store=st.integers(0, 1), id=memories, text=st.sampled_from([None, "coffee", "tea on Tuesday"]))
    def change(self, store: int, id: str, text: str | None) -> None:
        self.clock.tick()
        with suppress(HoldfastError):  # what is refused changes nothing, and that is looked at elsewhere
            cube = self.stores[store].get(id, ANA)
            update(self.stores[store], cube, **({"text": text} if text else {"status": Status.ACTIVATED}))

    @rule(store=st.integers(0, 1), id=memories)
    def retract(self, store: int, id: str) -> None:
        self.clock.tick()
        with suppress(HoldfastError):
            self.stores[store].commit([Operation.delete(self.stores[store].get(id, ANA))])

    @rule(store=st.integers(0, 1), back=st.integers(0, 4))
    def undo(self, store: int, back: int) -> None:
        self.clock.tick()
        with suppress(HoldfastError):
            self.stores[store].undo(self.stores[store].head()[0] - back, ANA)

    @rule(store=st.integers(0, 1), id=consumes(memories))
    def purge(self, store: int, id: str) -> None:
        with suppress(HoldfastError):  # forgotten already
            self.stores[store].purge([id], ANA)

    @rule(store=st.integers(0, 1))
    def enrich(self, store: int) -> None:
        self.workers[store].step()

    @rule()
    def two_workers_take_the_same_jobs(self) -> None:
        """A lease that ran out: both finish, and nothing counts twice."""
        store = self.stores[1]
        rids = store.queue.take("enrich", 99)
        self.clock.tick(61)
        self.workers[0].step()
        rows = [(row.rid, pack_terms(["ben"])) for row in store.queue.texts(rids)]
        self.partition.catch_up()
        if rows:
            held = dict(store.fold_rows("names", [rid for rid, _ in rows]))
            store.queue.put_folds(
                {"names": [(rid, held.get(rid, body)) for rid, body in rows]}, task="enrich", done=rids
            )

    @rule()
    def somebody_else_writes(self) -> None:
        add(self.stores[1], Cube(BEN, "tea"))

    @rule()
    def same(self) -> None:
        self.partition.catch_up()
        fresh = Partition(self.stores[0], 1)
        fresh.catch_up()
        found, expected = snapshot(self.partition), snapshot(fresh)
        size = found.pop("size")
        expected_size = expected.pop("size")
        assert isinstance(size, int) and isinstance(expected_size, int)
        assert size == expected_size
        assert {name: value for name, value in found.items() if value != expected[name]} == {}


TestFollower = Follower.TestCase


ACTS = ("add", "add", "correct", "retract", "restore", "undo", "forget", "wait")


@given(st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 99), st.booleans()), min_size=5, max_size=30))
def test_views_that_follow_two_programs_are_as_views_made_anew(acts: list[tuple[str, int, bool]]) -> None:
    """The same few views again and again: a partition changes what it knows of them, and does not look at all rows anew."""
    clock, ids = Clock(), []
    grant = Grant("g", "bot", "acme", "ana", None, "s", frozenset({Right.READ}), frozenset())
    reach = Reach(ANA, Right.READ, (grant,), "bot")
    with tempfile.TemporaryDirectory(dir=MEMORY) as home:
        stores = [open_store(Path(home), clock=clock) for _ in range(2)]
        for n in range(3):
            ids.append(add(stores[0], Cube(ANA, f"tea {n}")).cubes[0].id)
        known = to_micros(clock())
        watching = [Partition(store, 1) for store in stores]
        for act, number, look in acts:
            clock.tick(8 if act == "wait" else 1)
            store, id = stores[number % 2], ids[number % len(ids)]
            with suppress(HoldfastError):  # what is refused changes nothing
                if act == "add":
                    ends = (None, clock.at + timedelta(seconds=4))[number % 3 == 0]
                    scope = Scope("acme", "ana", None, (None, "s")[number % 2])
                    cube = Cube(scope, f"coffee {len(ids)}", policy=Policy(expires_at=ends))
                    ids.append(add(store, cube).cubes[0].id)
                elif act == "correct":
                    update(store, store.get(id, ANA), text=f"milk {number}")
                elif act == "retract":
                    store.commit([Operation.delete(store.get(id, ANA))])
                elif act == "restore":
                    update(store, store.get(id, ANA), status=Status.ACTIVATED)
                elif act == "undo":
                    store.undo(store.head()[0] - number % 5, ANA)
                elif act == "forget" and number % 4 == 0:
                    store.purge([id], ANA)
            if look:
                now = to_micros(clock())
                views = [View(now), View(now, known), View(now, true_at=known), View(now, reach=reach)]
                assert len(views) == MASKS
                fresh, watcher = Partition(store, 1), watching[number % 2]
                fresh.catch_up()
                watcher.catch_up()
                for view in views:
                    assert watcher.visible(view).tolist() == fresh.visible(view).tolist(), view
        for store in stores:
            store.close()


def test_who_wrote_half_of_what_is_left_of_some_rows_crowds(place: Path | str) -> None:
    store = open_store(place)

    def wrote(author: str | None, text: str) -> Cube:
        return add(store, Cube(ANA, text, origin=Origin(Channel.USER, author))).cubes[0]

    authors = (None, "Caro", "Ana", "Ana", "Ben", "Ben")
    turns = [wrote(author, f"turn {n}") for n, author in enumerate(authors)]
    partition = Partition(store, 1)
    partition.catch_up()
    assert partition.crowding(np.arange(6)) == ()
    assert partition.crowding(np.arange(2, 6)) == ("Ana", "Ben")
    assert partition.crowding(np.asarray([0, 0, 1])) == (None,)
    assert partition.crowding(np.asarray([2, 3, 1, 4, 5])) == ()
    assert partition.crowding(np.empty(0, np.int64)) == ()
    store.purge([turns[5].id, turns[1].id], ANA)  # the last row, and one before others
    partition.catch_up()
    assert partition.crowding(np.arange(6)) == ("Ana",)
    assert partition.crowding(np.asarray([1, 5])) == ()


def test_the_turns_of_a_conversation_keep_their_places(place: Path | str) -> None:
    store = open_store(place)
    chat = Scope("acme", "ana", None, "s")
    turns = [add(store, Cube(chat, f"turn {n}")).cubes[0] for n in range(4)]
    partition = Partition(store, 1)
    partition.catch_up()

    def order() -> list[int]:
        following = partition.neighbours("next")
        row = next(
            r for r in range(partition.size) if partition._live.values[r] and partition.neighbours("previous")[r] < 0
        )
        found = [row]
        while following[found[-1]] >= 0:
            found.append(int(following[found[-1]]))
        return found

    assert order() == [0, 1, 2, 3]
    second = update(store, turns[1], status=Status.FROZEN)
    partition.catch_up()
    assert order() == [0, 4, 2, 3], "a new version stands where the old one stood"
    store.commit([Operation.delete(store.get(turns[2].id, ANA))])
    partition.catch_up()
    assert order() == [0, 4, 3], "what is retracted stands between nobody"
    update(store, store.get(turns[2].id, ANA), status=Status.ACTIVATED)
    update(store, second, status=Status.ACTIVATED)
    add(store, Cube(chat, "turn 4"), Cube(Scope("acme", "ana", None, "t"), "elsewhere"))
    partition.catch_up()
    assert order() == [0, 7, 6, 3, 8]


def test_a_thread_with_the_number_of_a_dead_one_sees_the_present(place: Path | str) -> None:
    """Threads come and go and numbers are used again; what the dead one had seen says nothing about the new one."""
    with open_memory(place) as memory, open_memory(place) as other:
        found: list[int] = []

        def look() -> None:
            found.append(len(memory.search("tea", k=100)))

        for n in range(30):
            other.add(f"tea number {n}")
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
        assert found == list(range(1, 31))


def test_many_threads_catch_up_at_once(place: Path | str) -> None:
    with open_memory(place) as memory, open_memory(place) as other:
        missed: list[str] = []
        done = threading.Event()

        def look() -> None:
            while not done.is_set():
                memory.search("tea", k=5)

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for n in range(60):
            other.add(f"tea number{n}")
            if not any(hit.text == f"tea number{n}" for hit in memory.search(f"number{n}", k=3)):
                missed.append(str(n))
        done.set()
        for thread in threads:
            thread.join()
        assert missed == []


def test_a_partition_that_failed_half_way_starts_afresh(place: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(place)
    add(store, Cube(ANA, "tea"))
    partition = Partition(store, 1)
    partition.catch_up()
    add(store, Cube(ANA, "coffee"))
    plain = SqlStore.fold

    def failing(self: SqlStore, table: str, part: int, after: int = -1) -> list[tuple[int, bytes]]:
        raise OSError("the disk is gone for a moment")

    monkeypatch.setattr(SqlStore, "fold", failing)
    with pytest.raises((OSError, HoldfastError)):
        partition.catch_up()
    monkeypatch.setattr(SqlStore, "fold", plain)
    partition.catch_up()
    words = [term(token) for token in tokens("tea coffee")]
    assert partition.size == 2 and (partition.lexical.scores(words, 2) > 0).all()


@given(
    documents,
    st.lists(vocabulary, min_size=1, max_size=4, unique=True),
    st.integers(1, 6),
    st.randoms(use_true_random=False),
)
def test_the_best_by_words_are_those_of_the_highest_scores(
    texts: list[list[str]], query: list[str], k: int, random: object
) -> None:
    """Also where some words are so common that their postings are left out."""
    index = LexicalIndex()
    many = texts * 40
    for start in range(0, len(many), 37):
        some = range(start, min(start + 37, len(many)))
        index.append(list(some), [pack_terms(many[row]) for row in some])
    allowed = np.asarray([random.random() < 0.7 for _ in many], np.bool_)  # type: ignore[attr-defined]
    terms = [term(word) for word in query]
    for mask in (allowed, np.ones(len(many), np.bool_), np.zeros(len(many), np.bool_)):
        scores = index.scores(terms, len(many)) * mask
        found, expected = index.best(terms, k, mask), top(scores, k)
        assert len(found) == len(expected) and mask[found].all()
        assert scores[found].tolist() == pytest.approx(scores[expected].tolist(), rel=1e-5)


@given(
    documents,
    st.lists(vocabulary, max_size=4, unique=True),
    st.integers(1, 6),
    st.randoms(use_true_random=False),
)
def test_those_that_hold_most_words_are_found_with_their_equals(
    texts: list[list[str]], query: list[str], k: int, random: object
) -> None:
    index = LexicalIndex()
    many = texts * 40
    for start in range(0, len(many), 37):
        some = range(start, min(start + 37, len(many)))
        index.append(list(some), [pack_terms(many[row]) for row in some])
    allowed = np.asarray([random.random() < 0.7 for _ in many], np.bool_)  # type: ignore[attr-defined]
    terms = {term(word) for word in query}
    for mask in (allowed, np.ones(len(many), np.bool_), np.zeros(len(many), np.bool_)):
        held = np.asarray([len({term(word) for word in text} & terms) for text in many]) * mask
        expected = np.flatnonzero(held)
        if len(expected) > k:
            expected = expected[held[expected] >= np.sort(held[expected])[-k]]
        rows, counts = index.most_held(terms, k, mask)
        assert rows.tolist() == expected.tolist() and counts.tolist() == held[expected].tolist()


def test_a_query_that_names_who_has_just_spoken_for_the_first_time_is_read_as_such(tmp_path: Path) -> None:
    with open_memory(tmp_path) as here, open_memory(tmp_path) as there:
        here.add({"role": "user", "name": "Ana", "content": "our boat is for sale"}, session="s")
        assert "author" not in here.search("what did Zoe say of a boat?")[0].channels
        there.add({"role": "user", "name": "Zoe", "content": "my boat leaks"}, session="t")
        best = here.search("what did Zoe say of a boat?")[0]
        assert best.text == "my boat leaks" and best.channels["author"] > 0


def test_a_row_whose_words_are_lost_does_not_stop_the_search_of_a_small_scope(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        memory.add("the boat leaks", session="s")
        memory.add("a piano", session="s")
        with memory.store.connections.writing() as connection:
            connection.execute("DELETE FROM terms WHERE rid = (SELECT max(rid) FROM terms)")
        assert memory.search("boat")[0].text == "the boat leaks"


@pytest.mark.parametrize("sessions", [1, 12, 130])
def test_a_session_is_searched_by_meaning_however_small_a_part_of_the_scope_it_is(
    tmp_path: Path, sessions: int
) -> None:
    class Animals(HashEmbedder):
        def embed(self, texts: Sequence[str]) -> np.ndarray:
            found = super().embed(texts)
            for at, text in enumerate(texts):
                if "cat" in text or "feline" in text:
                    found[at] = np.eye(1, self.dimension, dtype=np.float32)
            return found

    with open_memory(tmp_path, embedder=Animals()) as memory:
        for number in range(sessions):
            memory.add(f"the kettle of house {number} is old", session=f"s{number}")
        memory.add("my cat sleeps all day", session="s0")
        memory.flush()
        hits = memory.search("any feline?", session="s0")
        assert hits[0].text == "my cat sleeps all day" and hits[0].channels["meaning"] > 0.4
