"""The probes ask what they say they ask, all layers can be probed, and what must be learnt is learnt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

from holdfast.bench import memory_probes  # noqa: E402
from holdfast.bench.memory_probes import IGNORED, ProbeModel, Recipe, Task, anchors, scored, train_probe  # noqa: E402
from holdfast.errors import InputError  # noqa: E402
from holdfast.latent.mixture import MixtureOfMemories  # noqa: E402
from holdfast.latent.titans_blocks import TitansBlock  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("random_filler", [True, False])
def test_pairs_are_told_once_and_each_key_is_asked_once(random_filler: bool) -> None:
    task = Task(64, (4, 8, 16), 256, random_filler=random_filler)
    for pairs in task.pairs:
        tokens, labels = task.drawn(50, pairs, np.random.default_rng(1))
        for row, wanted in zip(tokens, labels, strict=True):
            told = dict(zip(row[0 : 2 * pairs : 2].tolist(), row[1 : 2 * pairs : 2].tolist(), strict=True))
            assert len(told) == pairs and all(1 <= key < 128 <= value < 256 for key, value in told.items())
            assert len(set(told.values())) == pairs
            places = np.flatnonzero(wanted != IGNORED)
            assert (
                sorted(row[places].tolist()) == sorted(told) and (places >= 2 * pairs).all() and not (places % 2).any()
            )
            assert [told[key] for key in row[places].tolist()] == wanted[places].tolist()
            rest = np.delete(row[2 * pairs :], places - 2 * pairs)
            assert random_filler or not rest.any()


def test_most_are_asked_soon_by_a_power_law() -> None:
    task = Task(64, (4,), 256)
    _, labels = task.drawn(4000, 4, np.random.default_rng(0))
    gaps = (np.nonzero(labels != IGNORED)[1] - 8) // 2 + 1
    counts = np.bincount(gaps, minlength=29)[1:]
    assert counts[0] > counts[1] > counts[3] > counts[9] > counts[24]
    # Of the first of the four that are drawn: p(1) = 1 / sum of g^-0.99. All four are seen here, so it is a bound from below.
    assert counts[0] / 4000 > 1 / (np.arange(1, 29) ** -0.99).sum()


def test_what_does_not_fit_is_refused() -> None:
    for wrong in ((63, (4,), 256), (64, (17,), 256), (64, (), 256), (64, (4,), 64)):
        with pytest.raises(InputError):
            Task(*wrong)


def test_attention_learns_what_a_short_window_cannot() -> None:
    task, found = Task(24, (2, 4), 32), {}
    for name, make in anchors(24, size=16, window=2).items():
        if name in ("attention", "window"):
            found[name] = train_probe(make, task, Recipe(steps=300, width=32, rate=1e-2), seed=0, tested=128)
    assert found["attention"].accuracy[2] > 0.8 > 0.6 > found["window"].accuracy[4]
    assert found["window"].state_bytes < found["attention"].state_bytes


def test_the_best_rate_is_chosen_by_sequences_that_are_neither_trained_on_nor_tested(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, recipe, make = Task(24, (2, 4), 32), Recipe(steps=150, width=32), anchors(24, size=16)["attention"]
    seeds, score = [], memory_probes.scored
    monkeypatch.setattr(memory_probes, "scored", lambda *given: (seeds.append(given[2]), score(*given))[1])
    rate, found = memory_probes.tuned_probe(make, task, recipe, (1e-6, 1e-2), seed=3, pairs=2)
    assert rate == 1e-2 and seeds == [3, 3, 3 + memory_probes.VALIDATION, 3 + memory_probes.VALIDATION]
    assert found.accuracy == train_probe(make, task, replace(recipe, rate=1e-2), seed=3).accuracy


def test_a_probe_is_the_same_for_the_same_seed_and_takes_every_layer() -> None:
    task, recipe = Task(16, (2, 4), 20), Recipe(steps=3, batch=4, width=16, blocks=2)
    for make in (
        *anchors(16, size=4, window=4).values(),
        lambda width: MixtureOfMemories(width, 1, key_dim=4),
        lambda width: TitansBlock(width, 1, head_dim=4, mode="mac", window=8, chunk=4),
    ):
        one, two = (train_probe(make, task, recipe, seed=5, tested=8) for _ in range(2))
        assert (one.accuracy, one.loss, one.state_bytes) == (two.accuracy, two.loss, two.state_bytes)
        assert one.state_bytes > 0 and one.parameters > 0


def test_a_model_that_copies_nothing_is_at_chance() -> None:
    torch.manual_seed(0)
    model = ProbeModel(anchors(64)["linear"], 256, 16, 1)
    accuracy, _ = scored(model, Task(), 0, 256)
    assert all(share < 0.05 for share in accuracy.values())
