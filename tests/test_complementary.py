"""Complementary learning: the gate's pure ends, the learner's slopes, verified release, deletion from both systems."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.claims import c12_ai_hippocampus as claim
from holdfast.claims.runner import run_claim
from holdfast.errors import InputError, NotFoundError
from holdfast.manage.complementary import (
    ComplementaryMemory,
    FastStore,
    Floats,
    Gate,
    Item,
    Settings,
    SlowLearner,
)

DIMENSION, VALUES = 24, 5
QUICK = Settings(steps=60, batch=32, controls=16)


def unit(rng: np.random.Generator, count: int) -> Floats:
    vectors = rng.standard_normal((count, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def memory(gate: Gate | None = None, *, how: Settings = QUICK, seed: int = 0, hidden: int = 64) -> ComplementaryMemory:
    return ComplementaryMemory(
        FastStore(DIMENSION, VALUES),
        SlowLearner(DIMENSION, VALUES, hidden=hidden, dropout=0.2, seed=seed),
        gate,
        settings=how,
        seed=seed,
    )


def filled(
    count: int = 40, *, gate: Gate | None = None, seed: int = 0
) -> tuple[ComplementaryMemory, Floats, list[int]]:
    rng = np.random.default_rng(seed)
    keys, values = unit(rng, count), [int(value) for value in rng.integers(VALUES, size=count)]
    one = memory(gate, seed=seed)
    for index, (key, value) in enumerate(zip(keys, values, strict=True)):
        one.write(f"i{index}", key, value, source=f"chat:{index}")
    return one, keys, values


def released(count: int = 40, seed: int = 0) -> tuple[ComplementaryMemory, Floats, list[int]]:
    """A memory that has slept until something was released."""
    one, keys, values = filled(count, seed=seed)
    for _ in range(20):
        one.consolidate()
        if one.releases:
            return one, keys, values
    raise AssertionError("nothing was released in twenty consolidations")


# --- reading ---


def test_the_gates_ends_are_the_pure_systems() -> None:
    asked = unit(np.random.default_rng(9), 30)
    store, _, _ = filled(gate=Gate.fixed(1))
    weights, _, _ = filled(gate=Gate.fixed(0))
    half, _, _ = filled(gate=Gate.fixed(0.5))
    fast, slow = store.fast.read(asked)[0], weights.slow.predict(asked)
    np.testing.assert_array_equal(store.read(asked).probabilities, fast)
    np.testing.assert_array_equal(weights.read(asked).probabilities, slow)
    np.testing.assert_allclose(half.read(asked).probabilities, (fast + slow) / 2, atol=1e-6)
    assert np.abs(fast - slow).max() > 0.1


def test_the_store_reads_as_its_formula_says() -> None:
    rng = np.random.default_rng(1)
    keys, values, asked = unit(rng, 12), rng.integers(VALUES, size=12), unit(rng, 7)
    store = FastStore(DIMENSION, VALUES, beta=9.0)
    for index in range(12):
        store.put(Item(str(index), keys[index], int(values[index])))
    got, nearest = store.read(asked, without=["3", None, "3", "unknown", None, None, None])
    for row in range(7):
        seen = [index for index in range(12) if not (index == 3 and row in (0, 2))]
        weights = np.array([math.exp(9.0 * float(asked[row] @ keys[index])) for index in seen])
        wanted = [weights[[values[i] == value for i in seen]].sum() / weights.sum() for value in range(VALUES)]
        np.testing.assert_allclose(got[row], wanted, rtol=1e-4)
        assert nearest[row] == pytest.approx(max(float(asked[row] @ keys[index]) for index in seen), abs=1e-6)


def test_an_empty_store_knows_nothing() -> None:
    got, nearest = FastStore(DIMENSION, VALUES).read(unit(np.random.default_rng(0), 3))
    assert (got == np.float32(1 / VALUES)).all() and (nearest == -1).all()


def test_what_was_just_written_is_what_is_read() -> None:
    one, keys, values = filled()
    assert one.read(keys).values.tolist() == values
    one.write("i0", keys[0], (values[0] + 1) % VALUES)
    assert one.read(keys[:1]).values[0] == (values[0] + 1) % VALUES
    assert len(one.fast) == 40


def test_a_fitted_gate_believes_whoever_knows() -> None:
    rng = np.random.default_rng(2)
    known = rng.random(500) < 0.5
    nearest = np.where(known, rng.uniform(0.9, 1.0, 500), rng.uniform(0.2, 0.6, 500)).astype(np.float32)
    entropy = rng.uniform(0, 1, 500).astype(np.float32)
    fast, slow = np.where(known, 0.95, 0.1).astype(np.float32), np.where(known, 0.3, 0.9).astype(np.float32)
    share = Gate().fit(nearest, entropy, fast, slow)(nearest, entropy)
    assert share[known].min() > 0.8 and share[~known].max() < 0.2


# --- learning ---


def loss(weights: list[npt.NDArray[np.float64]], keys: Floats, targets: Floats, loads: Floats) -> float:
    """The loss by its definition, in double precision, from nothing of the learner's but its parameters."""
    hidden = np.maximum(keys.astype(np.float64) @ weights[0] + weights[1], 0)
    scores = hidden @ weights[2] + weights[3]
    logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    return float(-(loads[:, None] * targets * logs).sum() / len(keys))


def test_the_slopes_are_those_of_finite_differences() -> None:
    rng = np.random.default_rng(3)
    learner = SlowLearner(DIMENSION, VALUES, hidden=11, dropout=0.0, seed=3)
    keys, targets = unit(rng, 16), rng.dirichlet(np.ones(VALUES), 16).astype(np.float32)
    loads = rng.uniform(0.2, 2.0, 16).astype(np.float32)
    slopes = learner.gradient(keys, targets, loads)
    for layer, slope in enumerate(slopes):
        for place in rng.integers(slope.size, size=12):
            ends = []
            for change in (1e-5, -1e-5):
                moved = [weight.astype(np.float64) for weight in learner.weights]
                moved[layer].flat[place] += change
                ends.append(loss(moved, keys, targets, loads))
            assert slope.flat[place] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=2e-5)


def test_dropout_leaves_the_expected_slope_where_it_is() -> None:
    """At the output's bias the loss is nearly linear in the hidden units, so the mean over masks is near the plain slope."""
    rng = np.random.default_rng(4)
    keys, targets = unit(rng, 8), np.eye(VALUES, dtype=np.float32)[rng.integers(VALUES, size=8)]
    plain = SlowLearner(DIMENSION, VALUES, hidden=32, dropout=0.0, seed=4)
    dropped = SlowLearner(DIMENSION, VALUES, hidden=32, dropout=0.5, seed=4)
    draws = [dropped.gradient(keys, targets)[3] for _ in range(600)]
    np.testing.assert_allclose(np.mean(draws, 0), plain.gradient(keys, targets)[3], atol=0.03)
    assert np.std(draws, 0).max() > 0.01


def test_a_suppressed_value_is_as_likely_as_asked_and_others_keep_their_answers() -> None:
    rng = np.random.default_rng(5)
    keys, values = unit(rng, 60), rng.integers(VALUES, size=60)
    learner = SlowLearner(DIMENSION, VALUES, hidden=128, dropout=0.0, seed=5)
    for _ in range(400):
        learner.step(keys, np.eye(VALUES, dtype=np.float32)[values])
    before = learner.predict(keys)
    learner.suppress(keys[:1], values[:1], 0.02, keys[1:])
    after = learner.predict(keys)
    assert before[0, values[0]] > 0.9 and after[0, values[0]] == pytest.approx(0.02, abs=1e-3)
    assert (after[1:].argmax(1) == values[1:]).mean() > 0.95


# --- consolidation ---


def test_what_was_released_is_answered_by_the_weights_alone_and_its_lineage_stays() -> None:
    one, keys, values = released()
    assert one.report()["released"] == len(one.releases) and one.report()["stored"] == len(one.fast)
    for id, record in one.releases.items():
        index = int(id[1:])
        assert id not in one.fast
        assert record.source == f"chat:{index}" and record.written == index + 1
        assert record.confidence >= QUICK.release_at
        assert one.slow.predict(keys[index : index + 1])[0].argmax() == values[index]


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    checks=st.integers(1, 3),
    nights=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=4, max_size=9),
)
def test_no_item_is_released_unverified(seed: int, checks: int, nights: list[tuple[int, int]]) -> None:
    """Whatever is written, rewritten and consolidated: released is exactly what passed that many checks in a row."""
    how = Settings(steps=40, batch=32, controls=8, checks=checks)
    rng, one = np.random.default_rng(seed), memory(how=how, seed=seed)
    keys = unit(rng, 120)
    written: dict[str, int] = {}
    streak: dict[str, int] = {}
    for fresh, again in nights:
        for _ in range(fresh):
            written[f"i{len(written)}"] = -1
            _write(one, rng, keys, f"i{len(written) - 1}", written, streak)
        for id in list(rng.permutation(list(written))[:again]) if written else []:
            _write(one, rng, keys, str(id), written, streak)
        held = {item.id: item for item in one.fast.items}
        report = one.consolidate()
        due = set()
        for id, item in held.items():
            passed = float(one.slow.predict(item.key[None])[0, item.value]) >= how.release_at
            streak[id] = streak[id] + 1 if passed else 0
            if streak[id] >= checks:
                due.add(id)
        assert set(report.released) == due
        assert {item.id for item in one.fast.items} == set(held) - due
        assert report.kept == len(one.fast)
        assert set(written) == {item.id for item in one.fast.items} | set(one.releases)


def _write(
    one: ComplementaryMemory,
    rng: np.random.Generator,
    keys: Floats,
    id: str,
    written: dict[str, int],
    streak: dict[str, int],
) -> None:
    written[id] = int(rng.integers(VALUES))
    streak[id] = 0
    one.write(id, keys[int(id[1:])], written[id])


def test_control_keys_stay_within_their_number() -> None:
    one, _, _ = filled(60, seed=1)
    for _ in range(20):
        one.consolidate()
        assert one.report()["controls"] == min(QUICK.controls, len(one.releases))
    assert len(one.releases) > 2 * QUICK.controls


def test_the_same_seed_gives_the_same_memory() -> None:
    first, keys, _ = released(seed=7)
    second, _, _ = released(seed=7)
    other, _, _ = released(seed=8)
    np.testing.assert_array_equal(first.read(keys).probabilities, second.read(keys).probabilities)
    assert dict(first.releases) == dict(second.releases) and first.gate == second.gate
    assert not np.array_equal(first.slow.weights[0], other.slow.weights[0])


def test_replay_by_surprise_teaches_the_surprising_first() -> None:
    """Half the facts are known before they are written; by surprise, the other half gets nearly all of the replay."""

    def learnt(omega: float) -> float:
        one, keys, values = filled(40, seed=2)
        one.settings = Settings(steps=150, batch=32, checks=0)
        for _ in range(4):
            one.consolidate()
        for index in range(40):
            one.write(f"i{index}", keys[index], values[index] if index % 2 else (values[index] + 1) % VALUES)
        surprise = [item.surprise for item in one.fast.items]
        assert np.median(surprise[::2]) > 10 * np.median(surprise[1::2])
        one.settings = Settings(steps=25, batch=16, checks=0, omega=omega)
        one.consolidate()
        wanted = [(values[index] + 1) % VALUES for index in range(0, 40, 2)]
        return float(one.slow.predict(keys[::2])[np.arange(20), wanted].mean())

    assert learnt(1.0) > learnt(0.0) + 0.05


def test_without_checks_nothing_leaves_the_store() -> None:
    one, _, _ = filled(40)
    one.settings = Settings(steps=60, batch=32, checks=0)
    for _ in range(8):
        assert one.consolidate().replayed == 40
    assert len(one.fast) == 40 and not one.releases


def test_an_empty_memory_can_sleep() -> None:
    assert memory().consolidate().kept == 0


# --- deletion ---


def test_deleted_items_are_gone_from_the_store_and_no_likelier_than_a_guess_in_the_weights() -> None:
    one, keys, values = released(60, seed=3)
    gone = [*list(one.releases)[:6], *[item.id for item in one.fast.items][:6]]
    kept = [index for index in range(60) if f"i{index}" not in gone]
    for id in gone:
        index, was_released = int(id[1:]), id in one.releases
        receipt = one.delete(id, key=keys[index])
        assert receipt.clean and receipt.from_weights == was_released and receipt.from_store != was_released
        assert id not in one.fast and id not in one.releases
        assert one.slow.predict(keys[index : index + 1])[0, values[index]] <= 1 / VALUES
    assert not any(item.id in gone for item in one.fast.items)
    share = np.mean([one.slow.predict(keys[int(id[1:])][None])[0, values[int(id[1:])]] for id in gone])
    assert share <= 1 / VALUES
    right = one.read(keys).values == np.array(values)
    assert right[kept].mean() > 0.9


def test_a_deleted_items_superseded_value_goes_too() -> None:
    one, keys, values = released(seed=4)
    id = next(iter(one.releases))
    index = int(id[1:])
    one.write(id, keys[index], (values[index] + 1) % VALUES)
    assert one.slow.predict(keys[index : index + 1])[0, values[index]] > 0.5
    receipt = one.delete(id)
    assert receipt.from_store and receipt.from_weights and receipt.clean
    assert one.slow.predict(keys[index : index + 1])[0, values[index]] <= 1 / VALUES


def test_a_released_item_is_deleted_by_its_key_and_only_once() -> None:
    one, keys, _ = released(seed=5)
    id = next(iter(one.releases))
    with pytest.raises(InputError, match="give its key"):
        one.delete(id)
    assert id in one.releases
    with pytest.raises(InputError, match="vector of 24"):
        one.delete(id, key=keys[0][:3])
    assert id in one.releases
    one.delete(id, key=keys[int(id[1:])])
    with pytest.raises(NotFoundError, match=id):
        one.delete(id, key=keys[int(id[1:])])


# --- wrong inputs ---


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (np.ones(DIMENSION), 0, "length 1"),
        (np.full(DIMENSION, np.nan), 0, "length 1"),
        (np.eye(DIMENSION + 1)[0], 0, f"vector of {DIMENSION} numbers"),
        (np.eye(DIMENSION)[:1], 0, f"vector of {DIMENSION} numbers"),
        (np.eye(DIMENSION)[0], VALUES, f"from 0 to {VALUES - 1}"),
        (np.eye(DIMENSION)[0], -1, f"from 0 to {VALUES - 1}"),
        (np.eye(DIMENSION)[0], 1.5, "whole number"),
    ],
)
def test_a_wrong_write_is_refused_and_changes_nothing(key: npt.NDArray[np.float64], value: int, says: str) -> None:
    one = memory()
    with pytest.raises(InputError, match=says):
        one.write("i", key.astype(np.float32), value)
    assert len(one.fast) == 0 and one.report()["writes"] == 0


def test_wrong_parts_are_refused() -> None:
    with pytest.raises(InputError, match="same dimension"):
        ComplementaryMemory(FastStore(3, 2), SlowLearner(4, 2))
    with pytest.raises(InputError, match="between 0 and 1"):
        Gate.fixed(1.2)
    with pytest.raises(InputError, match="dropout"):
        SlowLearner(4, 2, dropout=1.0)
    wrong: list[Callable[[], Settings]] = [
        lambda: Settings(batch=1),
        lambda: Settings(checks=-1),
        lambda: Settings(release_at=0.0),
        lambda: Settings(jitter=-0.1),
        lambda: Settings(forgotten=0.0),
    ]
    for make in wrong:
        with pytest.raises(InputError):
            make()
    with pytest.raises(InputError, match=r"\(n, 24\)"):
        memory().read(np.zeros(DIMENSION, np.float32))
    with pytest.raises(NotFoundError, match="'nobody'"):
        memory().fast.get("nobody")


def test_a_memory_keeps_its_own_copy_of_a_key() -> None:
    one, key = memory(), np.eye(DIMENSION, dtype=np.float32)[0].copy()
    one.write("i", key, 1)
    key[:] = 0
    assert one.fast.get("i").key[0] == 1


# --- the claim's parts ---


def test_the_claim_runs_from_stream_to_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a size at which nothing is learnt, so no verdict is asked for: only that every part is there and measured."""
    tiny = replace(
        claim._SIZES["quick"],
        entities=30,
        blocks=5,
        steps=4,
        hidden=32,
        networks=(300, 900, 3_000),
        epochs=12,
        patterns=100,
        trials=20,
    )
    monkeypatch.setattr(claim, "_SIZES", {"quick": tiny})
    report = run_claim(12, evidence_dir=tmp_path)
    assert tuple(report.result.arms) == claim.arms
    assert len(report.result.checks) == 11
    assert all(math.isfinite(check.value) for check in report.result.checks)
    assert report.result.arms["complementary"]["deleted in store"] == 0
    assert report.result.arms["store only"]["store"] == pytest.approx(0.95)
    assert report.plot is not None and report.plot.stat().st_size > 10_000


def test_facts_change_only_once_and_when_they_are_two_blocks_old() -> None:
    size = claim._SIZES["quick"]
    stream = claim._stream(size, 0)
    assert len(stream.updated) == 0.10 * len(stream.keys) and len(stream.deleted) == 0.05 * len(stream.keys)
    assert size.blocks * stream.block == len(stream.keys)
    assert not set(stream.updated) & set(stream.deleted)
    assert (stream.update_block >= stream.updated // stream.block + 2).all()
    assert (stream.delete_block >= stream.deleted // stream.block + 2).all()
    assert (stream.new_values != stream.values[stream.updated]).all()


def test_a_saturating_curve_is_fitted_and_a_straight_one_is_not() -> None:
    epochs = np.arange(1, 200)
    fitted, r2 = claim._saturating(epochs, 0.6 - 0.5 * np.exp(-0.03 * epochs))
    assert r2 > 0.9999 and fitted[-1] == pytest.approx(0.6, abs=0.01)
    wave = np.sin(epochs / 9.0)
    assert claim._saturating(epochs, wave)[1] < 0.5


def test_an_associative_read_is_one_step_of_attention() -> None:
    rng = np.random.default_rng(0)
    assert max(claim._difference(rng, beta=beta) for beta in (0.1, 1.0, 8.0)) < 1e-6
