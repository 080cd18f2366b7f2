"""The real search against the recipe in its plainest form: the same candidates, the same scores, channel by channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from holdfast import Memory
from holdfast.bench import reference
from holdfast.bench.data import Conversation, Question, Turn
from holdfast.cli.sample import load
from support import HashEmbedder

NEAR = 0.02  # vectors lie in the store as float16


def conversation(user: str) -> Conversation:
    """The packaged sample of a user; every other turn of the assistant's is by a person, so that both kinds of talk are met."""
    sample = load(user)
    turns = tuple(
        Turn(message["id"], message["role"], message["role"], message["content"], session.id, session.at)
        for session in sample.sessions
        for message in session.messages
    )
    asked = tuple(Question(q.id, q.text, q.category, tuple(q.evidence)) for q in sample.questions)
    more = (
        "When did I visit Hawaii last summer?",
        "Which doctor did Emily see in May 2023?",
        "Can you recommend a book, as you did before?",
        "what is the name of Luna",
        "Did Dr. Smith or Dr. Patel say anything about Luna?",
    )
    return Conversation(user, turns, asked + tuple(Question(f"more-{n}", text, "", ()) for n, text in enumerate(more)))


@pytest.mark.parametrize("user", ["sam", "emily"])
@pytest.mark.parametrize("embedder", [None, HashEmbedder()], ids=["lexical", "vectors"])
def test_the_search_ranks_as_the_oracle_does(user: str, embedder: HashEmbedder | None, tmp_path: Path) -> None:
    talk = conversation(user)
    latest = max(turn.time for turn in talk.turns if turn.time)
    prepared = reference.prepare(talk, None if embedder is None else embedder.embed)
    seen: set[str] = set()
    with Memory(
        tmp_path / "m", user=user, embedder=embedder, encoders=(), background=False, clock=lambda: latest
    ) as memory:
        for session in dict.fromkeys(turn.session for turn in talk.turns):
            some = [turn for turn in talk.turns if turn.session == session]
            memory.add([{"role": t.role, "content": t.text, "id": t.id, "at": t.time} for t in some], session=session)
        memory.flush()
        for question in talk.questions:
            hits = memory.search(question.text, k=20, now=latest)
            expected = reference.rank(prepared, question, prepared_embed(embedder), 40)
            scores = dict(zip(expected.ids, expected.scores.tolist(), strict=True))
            found = [str(hit.cube.data["turn"]) for hit in hits]
            assert len(found) == min(20, len(expected.ids)), question.text
            least = min(sorted(scores.values(), reverse=True)[: len(found)], default=0.0)
            for hit, turn in zip(hits, found, strict=True):
                assert turn in scores and scores[turn] > least - NEAR, (question.text, turn)
                assert hit.score == pytest.approx(scores[turn], abs=NEAR), (question.text, turn)
                at = expected.ids.index(turn)
                for name, part in expected.parts.items():
                    assert hit.channels.get(name, 0.0) == pytest.approx(float(part[at]), abs=NEAR), (
                        question.text,
                        name,
                    )
                seen |= {name for name, value in hit.channels.items() if abs(value) > NEAR}
    told = {"best_words", "window", "length", "dated", "time", "user", "entities", "answer"}
    told |= {"meaning", "passage", "session_meaning"} if embedder else set()
    assert told <= seen, f"no question here says anything by {sorted(told - seen)}"


def prepared_embed(embedder: HashEmbedder | None) -> reference.Embed | None:
    return None if embedder is None else lambda texts: np.asarray(embedder.embed(list(texts)), np.float32)
