"""The parts of claims 36 and 38 that cost little: the stream, the published score, survival, opponents. The model is not trained here."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")

from holdfast.claims import c36_sirllm as c36  # noqa: E402
from holdfast.claims import c38_trim_kv as c38  # noqa: E402
from holdfast.claims.stream_model import GROUPS, ITEMS, SIZES, Sizes, Stream, streamed, trained  # noqa: E402
from holdfast.latent.chance import Chance  # noqa: E402
from holdfast.latent.streaming import StreamingCache  # noqa: E402
from holdfast.latent.surprisal import SURPRISE, Surprisal  # noqa: E402
from holdfast.latent.window import Window  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = Sizes(layers=2, width=16, heads=2, inner=16, steps=2, batch=4, turns=3, episodes=6, together=3)


def words(stream: Stream, tokens) -> str:
    known = {at: word for word, at in stream.vocabulary.items()}
    return " ".join(known[at] for at in tokens)


def test_items_are_as_many_as_published_and_one_token_each() -> None:
    stream = Stream(None, 0)
    assert len(ITEMS) == len({*ITEMS}) == 53 and stream.questions == 140
    assert len({*stream.items}) == 53 and all(" " not in item for item in ITEMS)


@pytest.mark.parametrize("several", [False, True])
def test_an_episode_names_what_it_asks_for_and_shows_no_question_of_the_training(several: bool) -> None:
    stream = Stream(None, 1)
    trained_with = {tuple(turn) for turn in stream._train}
    groups = {item: group for group, items in GROUPS.items() for item in items}
    for some in stream.episodes(SMALL, 3, several):
        assert len(some.turns) == 1 + 3 + 1 and some.tokens == sum(turn.shape[1] for turn in some.turns)
        for row in range(3):
            naming, asking = words(stream, some.turns[0][row].tolist()), words(stream, some.turns[-1][row].tolist())
            answer = words(stream, [int(some.answers[row])])
            assert some.turns[0][row, some.named[row]] == some.answers[row]
            named = naming.removeprefix("please buy [ ").removesuffix(" ] .").split()
            if several:
                assert len(named) == 4 and {groups[item] for item in named} == {*GROUPS}
                assert asking == f"which {groups[answer]} was named ?"
            else:
                assert named == [answer] and asking == "what was named ?"
            assert not any(tuple(turn[row].tolist()) in trained_with for turn in some.turns[1:-1])


def test_rows_to_train_with_weigh_what_is_asked_for_and_nothing_that_is_padded() -> None:
    stream = Stream(None, 0)
    for tokens, mask, weights in stream.batches(SMALL, 3, 0, several=0.5):
        assert (weights[~mask] == 0).all() and (tokens[~mask] == 0).all()
        heavy = tokens[weights == SMALL.weight].tolist()
        assert {*heavy} <= {*stream.items} and len(heavy) >= 4


def test_the_same_seed_gives_the_same_model_and_what_no_budget_bounds_is_the_full_cache() -> None:
    stream = Stream(None, 0)
    model, again = trained(stream, SMALL, 5), trained(stream, SMALL, 5)
    assert all(torch.equal(*both) for both in zip(model.parameters(), again.parameters(), strict=True))
    episodes = stream.episodes(SMALL, 0)
    full, wide = streamed(model, stream, episodes, None), streamed(
        model, stream, episodes, lambda: StreamingCache(model, Window(2), 500)
    )  # fmt: skip
    assert wide.recall == full.recall and wide.held == 1.0 and abs(wide.divergence) < 1e-5
    narrow = streamed(model, stream, episodes, lambda: StreamingCache(model, Window(1), 6))
    assert narrow.held == 0.0 and narrow.divergence > 0


def test_the_published_score_is_of_the_token_before_and_that_once_more() -> None:
    g = torch.Generator().manual_seed(0)
    tokens, logits = torch.randint(0, 9, (1, 7), generator=g), torch.randn(1, 7, 9, generator=g)
    told = torch.log_softmax(logits, dim=-1)[0]
    ours = Surprisal().observe(tokens, logits, None)[SURPRISE][0]
    theirs = c36.Repeated().observe(tokens, logits, None)[SURPRISE][0]
    for at in range(1, 7):
        assert ours[at] == pytest.approx(-float(told[at - 1, tokens[0, at]]))
        assert theirs[at] == pytest.approx(-float(told[at - 1, tokens[0, at - 1]]))


def test_a_decay_lets_surprises_go_at_its_rate_and_without_one_the_highest_stay() -> None:
    stream = Stream(None, 2)
    for decay in c36.DECAYS:
        found = c36._survival(stream, decay)
        assert found.slope == pytest.approx(math.log(2) / -math.log(decay), rel=c36.SLOPE)
        assert found.highest < 0.5
    assert c36._survival(stream, 1.0).highest == 1.0


def test_without_decay_a_player_remembers_what_is_rare_and_with_it_learns_what_is_common() -> None:
    learnt, stuck, lost = (
        sum(c36._played(policy, 300, 1).values()) / 3 for policy in (Surprisal(0, decay=0.9), Surprisal(0), Chance(1))
    )
    assert learnt > c36.LEARNT and learnt > stuck and learnt > lost


def test_the_statements_and_settings_fit_what_is_judged() -> None:
    for claim in (c36, c38):
        assert claim.arms[0] == claim.OURS and {*SIZES} == {"quick", "full", "gpu"}
    assert {*c38.JUDGED} <= {*c38.BUDGETS} and {*c38.HEURISTICS} < {*c38.arms}
