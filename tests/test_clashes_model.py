"""A decoder learns a small world, believes it, reads about it, and is contradicted. Needs torch and transformers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")

from holdfast.bench.clashes.contradict import contradict  # noqa: E402
from holdfast.bench.clashes.corpus import Corpus, Diet, Vocabulary  # noqa: E402
from holdfast.bench.clashes.decoder import DecoderReader, Training, _batch, train  # noqa: E402
from holdfast.bench.clashes.items import MODES, SINGLE, Passage, Prompt, Role  # noqa: E402
from holdfast.bench.clashes.report import clash_report  # noqa: E402
from holdfast.bench.clashes.world import RELATIONS, World, make_world  # noqa: E402

WORLD = make_world(5, people=24, strangers=30, values=4)
SMALL = Training(steps=160, width=48, rate=1.2e-2, warm=15, diet=Diet(plain=16, reasoned=64, open=(16, 8, 0)))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def reader() -> DecoderReader:
    losses: list[float] = []
    made = train(WORLD, 5, SMALL, lambda _, loss: losses.append(loss))
    assert len(losses) == SMALL.steps and np.mean(losses[-10:]) < 0.5 < 4 < losses[0]
    return made


def questions(world: World) -> list[tuple[str, int, int]]:
    return [(name, n, relation) for n, name in enumerate(world.names) for relation in range(RELATIONS)]


def test_it_knows_by_heart_what_it_was_told(reader: DecoderReader) -> None:
    told = reader.read([Prompt(WORLD.question(name, relation)) for name, _, relation in questions(WORLD)])
    right = [
        one.answer == WORLD.values[relation][WORLD.facts[n, relation]]
        for one, (_, n, relation) in zip(told, questions(WORLD), strict=True)
    ]
    assert np.mean(right) > 0.9  # chance: 1 in 4
    supported = [
        WORLD.supports(WORLD.question(name, relation), one.passage, one.answer or "")
        for one, (name, _, relation) in zip(told, questions(WORLD), strict=True)
    ]
    assert np.mean(supported) > 0.5  # chance: 1 in 64 for what goes with the value alone


def test_it_reads_about_those_it_knows_nothing_of(reader: DecoderReader) -> None:
    random = np.random.default_rng(0)
    prompts, wanted = [], []
    for name in WORLD.strangers:
        relation, value = int(random.integers(RELATIONS)), int(random.integers(4))
        passage = WORLD.drawn(name, relation, value, random)
        prompts.append(Prompt(WORLD.question(name, relation), (Passage(passage, "", "book"),)))
        wanted.append(WORLD.values[relation][value])
    assert np.mean([one.answer == value for one, value in zip(reader.read(prompts), wanted, strict=True)]) > 0.9


def test_answers_come_back_in_the_order_of_the_prompts_and_none_is_no_option(reader: DecoderReader) -> None:
    found = contradict(WORLD, reader, 24, seed=5)
    some = found.items[:6]
    prompts = [Prompt(one.question, (one.passages[role],)) for one in some for role in (Role.OWN, Role.COUNTER)]
    prompts.insert(3, Prompt(some[0].question))
    whole = reader.read(prompts)
    assert whole == [reader.read([prompt])[0] for prompt in prompts]
    assert whole[3].passage and not whole[0].passage
    (nothing,) = reader.read([Prompt(some[0].question, (some[0].passages[Role.OWN],), ("one", "another"))])
    assert nothing.answer is None


def test_one_coherent_passage_moves_it_and_its_own_does_not(reader: DecoderReader) -> None:
    found = contradict(WORLD, reader, 24, seed=5)
    assert found.right / found.asked > 0.85 and len(found.items) > 10
    report = clash_report(reader, found.items, modes=[mode for mode in MODES if len(mode.roles) + mode.irrelevant <= 2])
    assert report.modes["own alone"].ratio.mean > 0.95
    assert report.mixed.ratio.mean > report.modes[SINGLE].ratio.mean + 0.2


def test_a_model_is_its_seed_and_moves_no_global_one() -> None:
    few = Training(steps=3, width=16, diet=Diet(plain=8, reasoned=2, open=(4, 2, 2)))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, again, other = (train(WORLD, seed, few) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    first, same, different = (next(made.model.parameters()) for made in (one, again, other))
    assert torch.equal(first, same) and not torch.equal(first, different)
    assert one.parameters == sum(parameter.numel() for parameter in one.model.parameters())


def test_only_what_is_to_be_said_is_learnt() -> None:
    vocabulary = Vocabulary(WORLD)
    for pairs in Corpus(WORLD, Diet(plain=3, reasoned=3, open=(3, 3, 3)), 0).step():
        ids, wanted = _batch(vocabulary, pairs)
        for row, (given, said) in enumerate(pairs):
            start, answer = len(vocabulary.encode(given)), vocabulary.encode(said)
            assert ids[row, :start].tolist() == vocabulary.encode(given)
            learnt = wanted[row][wanted[row] >= 0].tolist()
            assert learnt == (answer if len(answer) == 1 else [*answer, Vocabulary.END])
            assert wanted[row, start - 1] == answer[0] and (wanted[row, : start - 1] < 0).all()
