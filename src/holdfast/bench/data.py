"""Loaders for the three judge-free memory benchmarks: LoCoMo (arXiv 2402.17753), LongMemEval (arXiv 2410.10813), BEAM
(arXiv 2510.27246).

Every loader reads files from a path that the user gives (LoCoMo is CC BY-NC and must not be packed), repairs what is known
to be broken in them, and yields the same shape: conversations of turns, with questions that name their evidence turns.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from holdfast.errors import InputError


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance.

    Fields
        id: unique in its conversation.
        speaker: who said it: a name where the data have names, else the role.
        role: ``user`` or ``assistant``; in LoCoMo, where two people talk, both are ``user``.
        text: what was said, without plan markers.
        session: key of the session; turns of one session are adjacent and in order.
        time: when the session took place (None: the data do not say).
        caption: words that describe a picture shared in the turn; part of the turn, but not said by anyone.
    """

    id: str
    speaker: str
    role: str
    text: str
    session: str
    time: datetime | None = None
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """One question about a conversation.

    Fields
        category: the official name of the kind of question (LoCoMo: ``"1"`` to ``"5"``, since names differ between papers).
        evidence: ids of the turns that hold the answer, without repeats, in the order of the file; empty where none is known.
        answer: the gold answer as text (LoCoMo category 5: the adversarial, that is wrong, answer).
        date: when it is asked.
        abstain: whether the right answer is that the conversation does not say.
        evidence_corrected: LoCoMo only: the evidence according to the audit, where the official citation is wrong.
    """

    id: str
    text: str
    category: str
    evidence: tuple[str, ...]
    answer: str = ""
    date: datetime | None = None
    abstain: bool = False
    evidence_corrected: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A history, oldest turn first, and what is asked about it."""

    id: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]


_MISLAID = (LookupError, TypeError, AttributeError, ValueError)  # what another layout causes

# --- LoCoMo ---

_EVIDENCE = re.compile(r"D:?(\d+):(\d+)")
_SESSION = re.compile(r"session_(\d+)")


def load_locomo(path: str | Path) -> list[Conversation]:
    """The ten LoCoMo conversations from ``locomo10.json`` or from the folder that holds it.

    Repairs: several ids in one evidence string, ``D:11:26``, ``D30:05``, ids that name no turn (dropped); integer answers;
    category 5 without ``answer``. ``query`` (the image search words) is never read, for some answers leak from it. Where
    ``audit_errors.json`` lies beside the file, its corrected citations are given as ``evidence_corrected``.
    Raises InputError where the path or the layout is wrong.
    """
    file = _file(path, "locomo10.json", "LoCoMo")
    samples = _json(file)
    if not isinstance(samples, list):
        raise InputError(f"{file} is not LoCoMo: expected a list of conversations")
    try:
        audit = _locomo_audit(file.with_name("audit_errors.json"))
        return [_locomo_conversation(sample, index, audit) for index, sample in enumerate(samples)]
    except InputError:
        raise
    except _MISLAID as error:
        raise InputError(f"{file} is not laid out as LoCoMo: {type(error).__name__}: {error}") from error


def _locomo_conversation(sample: dict[str, Any], index: int, audit: dict[str, list[str]]) -> Conversation:
    talk = sample["conversation"]
    # conv-26 has dates for sessions that do not exist, so the turn lists decide.
    numbers = sorted(int(m[1]) for key in talk if (m := _SESSION.fullmatch(key)) and isinstance(talk[key], list))
    turns = []
    for number in numbers:
        when = _time(talk.get(f"session_{number}_date_time"), "%I:%M %p on %d %B, %Y")
        turns += [
            Turn(t["dia_id"], t["speaker"], "user", t["text"], f"session_{number}", when, t.get("blip_caption") or "")
            for t in talk[f"session_{number}"]
        ]
    known = {turn.id for turn in turns}
    questions = []
    for number, qa in enumerate(sample["qa"]):
        category = str(qa["category"])
        id = f"locomo_{index}_qa{number}"
        corrected = audit.get(id)
        questions.append(
            Question(
                id=id,
                text=qa["question"],
                category=category,
                evidence=_locomo_evidence(qa.get("evidence") or [], known),
                answer=str(qa.get("answer", qa.get("adversarial_answer", ""))),
                abstain=category == "5",
                evidence_corrected=None if corrected is None else _locomo_evidence(corrected, known),
            )
        )
    return Conversation(sample["sample_id"], tuple(turns), tuple(questions))


def _locomo_evidence(strings: list[str], known: set[str]) -> tuple[str, ...]:
    ids = (f"D{int(a)}:{int(b)}" for string in strings for a, b in _EVIDENCE.findall(string))
    return tuple(dict.fromkeys(id for id in ids if id in known))


def _locomo_audit(file: Path) -> dict[str, list[str]]:
    if not file.is_file():
        return {}
    return {
        entry["question_id"]: list(entry["correct_evidence"])
        for entry in _json(file)
        if entry["error_type"] == "WRONG_CITATION" and entry.get("correct_evidence")
    }


# --- LongMemEval ---

_LME_TIME = "%Y/%m/%d (%a) %H:%M"
_OFFICIAL = ("longmemeval_s_cleaned.json", "longmemeval_s.json", "longmemeval_m_cleaned.json", "longmemeval_m.json")
_POOL = "evidence_500.jsonl"


def load_longmemeval(path: str | Path) -> list[Conversation]:
    """LongMemEval from an official file, or its evidence pool from ``evidence_500.jsonl``, or either from a folder.

    An official file gives one conversation a question (its haystack). The pool gives one conversation,
    ``longmemeval-evidence-pool``, that holds the different evidence turns of all questions and that every question searches:
    **not** a LongMemEval_S score. A folder is searched for an official file first. Abstention questions carry
    ``abstain=True`` and have to be left out of recall, though turns are marked for some of them.

    The pool's order carries no hint: sessions are sorted by date and then by a digest of their text, and a text that several
    questions share is kept once, at its first date. Raises InputError where the path or the layout is wrong.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in (*_OFFICIAL, _POOL) if (path / name).is_file()]
        if not found:
            raise InputError(f"no LongMemEval file in {path}; expected one of {', '.join((*_OFFICIAL, _POOL))}")
        path = found[0]
    elif not path.is_file():
        raise InputError(f"no LongMemEval file at {path}; give the official .json, {_POOL}, or their folder")
    try:
        return [_lme_pool(path)] if path.suffix == ".jsonl" else [_lme_official(entry) for entry in _json(path)]
    except InputError:
        raise
    except _MISLAID as error:
        raise InputError(f"{path} is not laid out as LongMemEval: {type(error).__name__}: {error}") from error


def load_longmemeval_split(path: str | Path) -> tuple[frozenset[str], frozenset[str]]:
    """The fixed (dev, held-out) question ids of ``dev_heldout_split_50_450.json``; tune on the first only."""
    file = _file(path, "dev_heldout_split_50_450.json", "LongMemEval split")
    split = _json(file)
    try:
        return frozenset(split["dev"]), frozenset(split["held_out"])
    except (LookupError, TypeError) as error:
        raise InputError(f"{file} is not a split: expected the keys dev and held_out") from error


def _lme_official(entry: dict[str, Any]) -> Conversation:
    turns, evidence = [], []
    for session, date, messages in zip(
        entry["haystack_session_ids"], entry["haystack_dates"], entry["haystack_sessions"], strict=True
    ):
        when = _time(date, _LME_TIME)
        for number, message in enumerate(messages, 1):
            id = f"{session}_{number}"
            turns.append(Turn(id, message["role"], message["role"], message["content"], session, when))
            if message.get("has_answer"):
                evidence.append(id)
    # The haystack is not always in order of time; the sort is stable, so a session's turns stay together and in order.
    turns.sort(key=lambda turn: turn.time or datetime.min.replace(tzinfo=UTC))
    return Conversation(entry["question_id"], tuple(turns), (_lme_question(entry, tuple(evidence)),))


def _lme_question(entry: dict[str, Any], evidence: tuple[str, ...]) -> Question:
    return Question(
        id=entry["question_id"],
        text=entry["question"],
        category=entry["question_type"],
        evidence=tuple(dict.fromkeys(evidence)),
        answer=str(entry.get("answer", "")),
        date=_time(entry.get("question_date"), _LME_TIME),
        abstain=entry["question_id"].endswith("_abs"),
    )


def _lme_pool(file: Path) -> Conversation:
    entries = _jsonl(file)
    sessions = sorted(
        ((_time(s["date"], _LME_TIME), s["turns"]) for entry in entries for s in entry["evidence"]),
        key=lambda s: (s[0] or datetime.min.replace(tzinfo=UTC), _digest(s[1][0]["content"])),
    )
    ids: dict[str, str] = {}
    turns = []
    for number, (when, messages) in enumerate(sessions):
        for message in messages:
            text = message["content"]
            if text not in ids:
                ids[text] = f"E{len(ids)}"
                turns.append(Turn(ids[text], message["role"], message["role"], text, f"session_{number}", when))
    questions = [
        _lme_question(entry, tuple(ids[m["content"]] for s in entry["evidence"] for m in s["turns"]))
        for entry in entries
    ]
    return Conversation("longmemeval-evidence-pool", tuple(turns), tuple(questions))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# --- BEAM ---


def load_beam(path: str | Path) -> list[Conversation]:
    """The conversations of one BEAM split (``100K``, ``500K``, ``1M``, ``10M``): a folder of numbered folders, or one of these.

    User messages end in a plan marker ``->-> 1,1``: it and all that follows it are cut, for it is not part of the dialogue
    and leaks structure. A batch is a session; its time anchor, where one is given, is the time of its messages. Evidence ids
    may be a list or a dict of lists. A conversation is named ``split/number``.
    Raises InputError where the path or the layout is wrong.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"no BEAM split at {path}; give the folder of a split, such as chats/100K")
    folders = [path] if (path / "chat.json").is_file() else [f for f in path.iterdir() if (f / "chat.json").is_file()]
    if not folders:
        raise InputError(f"no chat.json under {path}; give the folder of one split, such as chats/100K")
    folders = [folder.resolve() for folder in folders]
    folders.sort(key=lambda f: (int(f.name) if f.name.isdecimal() else 10**9, f.name))
    return [_beam_conversation(folder) for folder in folders]


def _beam_conversation(folder: Path) -> Conversation:
    id = f"{folder.parent.name}/{folder.name}"
    try:
        turns = tuple(_beam_turns(_json(folder / "chat.json")))
        known = {turn.id for turn in turns}
        # The larger splits keep the questions one folder deeper.
        nested = folder / "probing_questions"
        probes = _json(_file(nested if nested.is_dir() else folder, "probing_questions.json", "BEAM"))
        questions = []
        for ability, entries in probes.items():
            for number, entry in enumerate(entries, 1):
                evidence = (str(message) for message in _flat(entry.get("source_chat_ids")))
                answers = (entry.get(k) for k in ("answer", "ideal_answer", "ideal_response", "ideal_summary"))
                questions.append(
                    Question(
                        id=f"{id}/{ability}_{number}",
                        text=entry["question"],
                        category=ability,
                        evidence=tuple(dict.fromkeys(message for message in evidence if message in known)),
                        answer=str(next((a for a in answers if a is not None), "")),
                        abstain=ability == "abstention",
                    )
                )
    except InputError:
        raise
    except _MISLAID as error:
        raise InputError(f"{folder} is not laid out as BEAM: {type(error).__name__}: {error}") from error
    return Conversation(id, turns, tuple(questions))


def _beam_turns(node: Any) -> Iterator[Turn]:
    session, when, batches = "", None, 0
    for batch, message in _beam_messages(node, None):
        if batch is not session:
            # Batch numbers start again in every plan of the largest split, so the sessions are counted here.
            session, when, batches = batch, None, batches + 1
        anchor = message.get("time_anchor")
        when = _time(anchor, "%B-%d-%Y") or when
        text = message["content"].split("->->", 1)[0].strip()
        yield Turn(str(message["id"]), message["role"], message["role"], text, f"session_{batches}", when)


def _beam_messages(node: Any, batch: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    if isinstance(node, dict):
        if "role" in node and "content" in node:
            yield batch, node
            return
        inner = node if "turns" in node else batch
        for value in node.values():
            yield from _beam_messages(value, inner)
    elif isinstance(node, list):
        for value in node:
            yield from _beam_messages(value, batch)


def _flat(node: Any) -> list[Any]:
    if node is None:
        return []
    if isinstance(node, dict):
        return [leaf for value in node.values() for leaf in _flat(value)]
    if isinstance(node, list):
        return [leaf for value in node for leaf in _flat(value)]
    return [node]


# --- files ---


def _file(path: str | Path, name: str, what: str) -> Path:
    path = Path(path)
    file = path / name if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"no {what} file at {file}; give {name} or the folder that holds it")
    return file


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON: {error}") from error


def _jsonl(file: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON lines: {error}") from error


def _time(text: str | None, form: str) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError as error:
        raise InputError(f"{text!r} is not a date of the form {form}") from error
