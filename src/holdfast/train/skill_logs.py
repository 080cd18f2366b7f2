"""A user's own question log as episodes, and a chat model as the reader that answers from memory (for MemSkill, arXiv 2602.02474).

A log has one JSON object a line: ``turns`` ({"speaker", "text"}, or strings) or ready ``spans``, and ``questions`` ({"question",
"answer", and "evidence", the places of turns or spans that hold it, where they are known}).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.chat import Chat
from holdfast.encode.writing import write
from holdfast.errors import InputError
from holdfast.train.skill_episodes import Episode, Question, Reader

TURNS = 8
_ASKED = "Answer the question from these memories alone, in as few words as it takes. Where they do not say, answer: unknown."


def read_log(path: Path, turns: int = TURNS) -> list[Episode]:
    """The episodes of a log; ``turns`` of a history are one span. Raises InputError, and names the line."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a question log: {error}") from error
    episodes = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            episodes.append(_episode(json.loads(line), str(number), turns))
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            what = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            raise InputError(f"{path}, line {number} is no episode ({what}); it has turns, and questions") from error
    if not episodes:
        raise InputError(f"{path} holds no episode")
    return episodes


def reader(model: Chat) -> Reader:
    """A reader that asks a model, and scores its answer by the words it shares with the right one. It raises ChatError."""

    def read(question: Question, memories: Sequence[str]) -> tuple[float, str]:
        data = {"question": question.text, "memories": list(memories)}
        answer = write(model, "answer", _ASKED, data, {"answer": {"type": "string"}})["answer"]
        return token_f1(answer, question.answer), answer

    return read


def token_f1(given: str, right: str) -> float:
    """The harmonic mean of precision and recall over words, without case, punctuation and articles."""
    words = [
        Counter(one for one in re.findall(r"\w+", text.lower()) if one not in _ARTICLES) for text in (given, right)
    ]
    common = (words[0] & words[1]).total()
    return 2 * common / (words[0].total() + words[1].total()) if common else float(not words[0] and not words[1])


_ARTICLES = frozenset({"a", "an", "the"})


def _episode(record: Mapping[str, Any], id: str, most: int) -> Episode:
    if "spans" in record:
        spans, each = [str(one) for one in record["spans"]], 1
    else:
        said = [one if isinstance(one, str) else f"{one['speaker']}: {one['text']}" for one in record["turns"]]
        spans, each = ["\n".join(said[start : start + most]) for start in range(0, len(said), most)], most
    questions = tuple(
        Question(
            str(one["question"]),
            str(one["answer"]),
            tuple(dict.fromkeys(int(at) // each for at in one.get("evidence", ()))),
        )
        for one in record["questions"]
    )
    return Episode(str(record.get("id", id)), tuple(spans), questions)
