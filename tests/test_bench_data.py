"""Loaders: every repair and trap on small files made here; published counts and BM25 baselines on the real data, if given."""

from __future__ import annotations

import functools
import json
import math
import os
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import snowballstemmer

from holdfast.bench import metrics
from holdfast.bench.data import load_beam, load_locomo, load_longmemeval, load_longmemeval_split
from holdfast.errors import InputError

DATA = Path(os.environ.get("HOLDFAST_DATA") or Path(__file__).parents[2] / "shared" / "data")


def needs(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"no {name} data here: set HOLDFAST_DATA to the folder that holds it")
    return DATA / name


def write(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


# --- LoCoMo ---


def locomo(tmp_path: Path) -> Path:
    turns = [{"speaker": "Ana", "dia_id": f"D1:{i}", "text": f"turn {i}"} for i in range(1, 31)]
    turns[0] |= {"blip_caption": "a dog", "query": "secret search words", "img_url": ["x"]}
    eleventh = [{"speaker": "Ben", "dia_id": "D11:26", "text": "late"}]
    qa = [
        {"question": "Q0", "answer": 2022, "evidence": ["D1:3; D1:4"], "category": 2},
        {"question": "Q1", "answer": "x", "evidence": ["D:11:26", "D1:05", "D"], "category": 1},
        {"question": "Q2", "answer": "x", "evidence": ["D1:99", "D1:2 D1:2"], "category": 1},
        {"question": "Q3", "answer": "x", "evidence": [], "category": 3},
        {"question": "Q4", "evidence": ["D1:1"], "category": 5, "adversarial_answer": "wrong"},
    ]
    talk = {
        "speaker_a": "Ana",
        "speaker_b": "Ben",
        "session_1_date_time": "1:56 pm on 8 May, 2023",
        "session_1": turns,
        "session_11": eleventh,
        "session_11_date_time": "12:05 am on 1 June, 2023",
        "session_36_date_time": "1:00 pm on 1 June, 2024",
    }
    write(
        tmp_path / "audit_errors.json",
        [
            {"question_id": "locomo_0_qa0", "error_type": "WRONG_CITATION", "correct_evidence": ["D1:7"]},
            {"question_id": "locomo_0_qa1", "error_type": "HALLUCINATION", "correct_evidence": ["D1:8"]},
        ],
    )
    return write(tmp_path / "locomo10.json", [{"sample_id": "conv-1", "conversation": talk, "qa": qa}])


def test_locomo_repairs(tmp_path):
    file = locomo(tmp_path)
    (talk,) = load_locomo(tmp_path)
    assert [talk] == load_locomo(file)
    assert [question.evidence for question in talk.questions] == [
        ("D1:3", "D1:4"),
        ("D11:26", "D1:5"),
        ("D1:2",),
        (),
        ("D1:1",),
    ]
    assert talk.questions[0].answer == "2022"
    assert talk.questions[4].abstain and talk.questions[4].answer == "wrong"
    assert talk.questions[0].evidence_corrected == ("D1:7",)
    assert talk.questions[1].evidence_corrected is None
    assert talk.turns[0].caption == "a dog"
    assert "secret" not in repr(talk)
    assert [turn.session for turn in talk.turns[-2:]] == ["session_1", "session_11"]
    assert talk.turns[0].time == datetime(2023, 5, 8, 13, 56, tzinfo=UTC)
    assert talk.turns[-1].time == datetime(2023, 6, 1, 0, 5, tzinfo=UTC)


# --- LongMemEval ---


def entry(id: str, evidence: list[object], kind: str = "multi-session") -> dict[str, object]:
    return {
        "question_id": id,
        "question_type": kind,
        "question": f"what about {id}?",
        "question_date": "2023/05/30 (Tue) 23:40",
        "answer": 3,
        "evidence": evidence,
    }


def test_longmemeval_pool_keeps_a_shared_text_once_and_its_order_tells_nothing(tmp_path):
    shared = {"role": "user", "content": "shared"}
    one = {"date": "2023/05/20 (Sat) 02:21", "turns": [shared, {"role": "assistant", "content": "reply"}]}
    two = {"date": "2023/05/10 (Wed) 10:00", "turns": [shared]}
    lines = [entry("q1", [one]), entry("q2_abs", [two]), entry("q3_abs", [])]
    file = tmp_path / "evidence_500.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    (pool,) = load_longmemeval(tmp_path)
    assert [turn.text for turn in pool.turns] == ["shared", "reply"]
    assert pool.turns[0].time == datetime(2023, 5, 10, 10, tzinfo=UTC)
    first, second, third = pool.questions
    assert first.evidence == tuple(turn.id for turn in pool.turns)
    assert second.abstain and not first.abstain and third.evidence == ()
    assert first.date == datetime(2023, 5, 30, 23, 40, tzinfo=UTC)
    file.write_text("\n".join(json.dumps(line) for line in reversed(lines)), encoding="utf-8")
    (again,) = load_longmemeval(file)
    assert again.turns == pool.turns  # whatever the order of the questions


def test_longmemeval_official_file_comes_before_the_pool_and_is_put_in_order_of_time(tmp_path):
    official = {
        **{key: value for key, value in entry("q1", []).items() if key != "evidence"},
        "haystack_session_ids": ["later", "answer_1"],
        "haystack_dates": ["2023/05/20 (Sat) 02:21", "2023/05/10 (Wed) 10:00"],
        "haystack_sessions": [
            [{"role": "user", "content": "filler"}],
            [{"role": "user", "content": "a", "has_answer": True}, {"role": "assistant", "content": "b"}],
        ],
    }
    write(tmp_path / "longmemeval_s.json", [official])
    (tmp_path / "evidence_500.jsonl").write_text(json.dumps(entry("q1", [])), encoding="utf-8")
    (talk,) = load_longmemeval(tmp_path)
    assert [turn.id for turn in talk.turns] == ["answer_1_1", "answer_1_2", "later_1"]
    assert talk.questions[0].evidence == ("answer_1_1",)


# --- BEAM ---


def beam(folder: Path, nested: bool = False, plans: bool = False) -> Path:
    def message(id: int, role: str, content: str, **more: str) -> dict[str, object]:
        return {"id": id, "role": role, "content": content, **more}

    batches = [
        {
            "batch_number": 1,
            "time_anchor": None,
            "turns": [
                [
                    message(0, "user", "Hello ->-> 1,1", time_anchor="March-15-2024"),
                    message(1, "assistant", "use -> here"),
                ]
            ],
        },
        {"batch_number": 2, "turns": [[message(2, "user", "Again ->-> 2,1 and more")]]},
    ]
    write(folder / "chat.json", [{"plan-1": batches}] if plans else batches)
    probes = {
        "knowledge_update": [
            {"question": "U", "answer": "b", "source_chat_ids": {"original_info": [0], "updated_info": [2, 0]}}
        ],
        "abstention": [{"question": "A", "ideal_response": "no"}],
        "summarization": [{"question": "S", "ideal_summary": "s", "source_chat_ids": [2, 77]}],
    }
    write(folder / ("probing_questions" if nested else "") / "probing_questions.json", probes)
    return folder


@pytest.mark.parametrize("plans", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_beam_cuts_plan_markers_and_reads_every_layout(tmp_path, nested, plans):
    for name in ("10", "2"):
        beam(tmp_path / name, nested, plans)
    assert [talk.id for talk in load_beam(tmp_path)] == [f"{tmp_path.name}/2", f"{tmp_path.name}/10"]
    (talk,) = load_beam(tmp_path / "2")
    assert [turn.text for turn in talk.turns] == ["Hello", "use -> here", "Again"]
    assert [turn.session for turn in talk.turns] == ["session_1", "session_1", "session_2"]
    assert talk.turns[1].time == datetime(2024, 3, 15, tzinfo=UTC)
    assert talk.turns[2].time is None
    update, abstain, summary = talk.questions
    assert update.evidence == ("0", "2") and summary.evidence == ("2",)
    assert abstain.abstain and abstain.evidence == () and abstain.answer == "no"


# --- wrong input ---


@pytest.mark.parametrize("load", [load_locomo, load_longmemeval, load_beam, load_longmemeval_split])
def test_a_wrong_path_is_named(load, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        load(tmp_path)


def test_a_wrong_layout_is_named(tmp_path):
    with pytest.raises(InputError, match="LoCoMo"):
        load_locomo(write(tmp_path / "a.json", {"x": 1}))
    with pytest.raises(InputError, match="LoCoMo"):
        load_locomo(write(tmp_path / "b.json", [{"sample_id": "1"}]))
    with pytest.raises(InputError, match="LongMemEval"):
        load_longmemeval(write(tmp_path / "c.json", [{"question_id": "1"}]))
    broken = tmp_path / "d.json"
    broken.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="not JSON"):
        load_longmemeval(broken)
    folder = beam(tmp_path / "beam")
    (folder / "probing_questions.json").unlink()
    with pytest.raises(InputError, match="probing_questions"):
        load_beam(folder)


# --- the real data ---

_stem = functools.cache(snowballstemmer.stemmer("porter").stemWord)
_WORDS = """
a an the and or but if of to in on at by for with from as is are was were be been being am do does did have has had i you he she it
we they me him her us them my your his its our their this that these those what which who whom when where why how s t
"""
_STOP = frozenset(_WORDS.split())


def okapi(texts: list[str], queries: list[str]) -> list[list[int]]:
    """Okapi BM25, k1 1.5, b 0.75, negative idf floored at a quarter of the mean idf; Porter stems, a small stop list."""

    def read(text: str) -> list[str]:
        return [_stem(word) for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in _STOP]

    documents = [Counter(read(text)) for text in texts]
    lengths = np.array([sum(document.values()) for document in documents])
    df = Counter(word for document in documents for word in document)
    idf = {word: math.log((len(texts) - n + 0.5) / (n + 0.5)) for word, n in df.items()}
    floor = 0.25 * sum(idf.values()) / len(idf)
    posts: dict[str, dict[int, int]] = {}
    for row, document in enumerate(documents):
        for word, times in document.items():
            posts.setdefault(word, {})[row] = times
    norm = 1.5 * (0.25 + 0.75 * lengths / lengths.mean())
    ranked = []
    for query in queries:
        scores = np.zeros(len(texts))
        for word in read(query):
            for row, times in posts.get(word, {}).items():
                scores[row] += (idf[word] if idf[word] >= 0 else floor) * times * 2.5 / (times + norm[row])
        ranked.append(np.argsort(-scores, kind="stable")[:10].tolist())
    return ranked


def baseline(talk, text, asked, measure) -> list[float]:
    questions = [question for question in talk.questions if asked(question)]
    ids = [turn.id for turn in talk.turns]
    rankings = okapi([text(turn) for turn in talk.turns], [question.text for question in questions])
    return [
        measure([ids[row] for row in rows], set(question.evidence), 10)
        for rows, question in zip(rankings, questions, strict=True)
    ]


def test_locomo_counts_and_bm25():
    talks = load_locomo(needs("locomo"))
    questions = [question for talk in talks for question in talk.questions]
    assert (len(talks), sum(len(talk.turns) for talk in talks), len(questions)) == (10, 5882, 1986)
    assert len({(talk.id, turn.session) for talk in talks for turn in talk.turns}) == 272
    assert Counter(question.category for question in questions) == {"1": 282, "2": 321, "3": 96, "4": 841, "5": 446}
    assert sum(bool(question.evidence) for question in questions) == 1982
    assert sum(bool(question.evidence) and not question.abstain for question in questions) == 1536
    assert sum(question.evidence_corrected is not None for question in questions) == 57
    found = [
        value
        for talk in talks
        for value in baseline(
            talk,
            lambda turn: f"{turn.speaker}: {turn.text} {turn.caption} {turn.time:%d %B %Y}",
            lambda question: question.evidence and not question.abstain,
            metrics.recall,
        )
    ]
    assert len(found) == 1536
    assert np.mean(found) == pytest.approx(0.633, abs=0.01)


def test_longmemeval_pool_counts_and_bm25():
    folder = needs("longmemeval")
    (pool,) = load_longmemeval(folder)
    assert (len(pool.turns), len(pool.questions)) == (870, 500)
    assert sum(question.abstain for question in pool.questions) == 30
    dev, held_out = load_longmemeval_split(folder)
    assert (len(dev), len(held_out)) == (50, 450)
    assert dev | held_out == {question.id for question in pool.questions}
    found = baseline(
        pool,
        lambda turn: turn.text,
        lambda question: question.evidence and not question.abstain,
        metrics.recall_all,
    )
    assert len(found) == 470
    assert np.mean(found) == pytest.approx(0.728, abs=0.01)


def test_longmemeval_official_instance():
    (talk,) = load_longmemeval(needs("longmemeval") / "longmemeval_s_one_instance.json")
    assert len({turn.session for turn in talk.turns}) == 53
    assert talk.questions[0].evidence and talk.questions[0].answer == "Business Administration"


def test_beam_counts_and_bm25():
    talks = load_beam(needs("beam") / "100K")
    questions = [question for talk in talks for question in talk.questions]
    assert (len(talks), sum(len(talk.turns) for talk in talks), len(questions)) == (20, 5732, 400)
    assert sum(bool(question.evidence) for question in questions) == 355
    assert not any("->->" in turn.text for talk in talks for turn in talk.turns)
    found = [
        value
        for talk in talks
        for value in baseline(talk, lambda turn: turn.text, lambda question: question.evidence, metrics.recall)
    ]
    assert len(found) == 355
    assert np.mean(found) == pytest.approx(0.398, abs=0.01)
